//! The suite: the real binary, real repositories, and other people's programs as oracles.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, says why it is skipped, and waits for a real process"
)]

mod adoption;
mod aws;
mod canary;
mod capabilities;
mod corpus;
mod countersign;
mod crash;
mod emulated;
#[path = "../forges/mod.rs"]
mod forges;
mod growth;
mod hints;
mod janitor;
mod nested;
mod preview;

mod probe;
mod pulls;
mod recovery;
mod references;
mod removal;
mod sealed;
mod sec;
mod set;
mod shelf;
mod states;
mod story;
mod support;
mod sweep;
mod tamper;
mod words;
mod world;
