//! The suite: the real binary, real repositories, and other people's programs as oracles.

mod canary;
mod corpus;
mod crash;
mod sealed;
mod story;
mod support;
mod tamper;
