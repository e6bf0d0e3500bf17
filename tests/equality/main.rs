//! Equality with other people's engines as a property: generated input, rendered or read by both.
//!
//! `ISOFORM_EQUALITY_CASES` sets how many cases a test generates, `ISOFORM_EQUALITY_SEED` where it begins. A case that
//! differs is made small, and printed with its seed.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says why it is skipped"
)]

mod choices;
mod differs;
mod functions;
mod jinja;
mod memory;
mod oracle;
mod scalars;
mod templates;
mod webhooks;
