//! The pure core: what the files mean, what should change, what may run, and what is recorded.
//!
//! Nothing here reads a clock, a file, the environment or a random source, and nothing waits. Time comes in as a
//! [`model::Timestamp`], files as maps of bytes, keys as bytes. Start at [`estate`] for what a repository asks
//! for, at [`plan`] for what would change, and at [`deployment`] for the journey of one change.

pub mod audit;
pub mod bundle;
pub mod catalogue;
pub mod cfn;
pub mod deployment;
pub mod estate;
pub mod forge;
pub mod graph;
pub mod iam;
pub mod model;
pub mod pace;
pub mod plan;
pub mod policy;
pub mod render;
pub mod schema;
pub mod seal;
pub mod spec;
pub mod template;
pub mod yaml;
