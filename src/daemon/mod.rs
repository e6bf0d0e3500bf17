//! The process: what is put together, what runs, and how it ends.

mod build;
mod run;

pub use build::{Built, LocalPorts, build, build_on, open_ports};
pub use run::run;
