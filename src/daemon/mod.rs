//! The process: what is put together, what runs, and how it ends.

mod build;
mod cloud;
pub mod doctor;
mod errand;
pub mod probe;
mod run;

pub use build::{Built, LocalPorts, build, build_on, open, open_ports, root_key};
pub use cloud::{AwsPorts, open_bucket};
pub use run::run;
