//! The attack checklist, against the real binary and real servers. What the domain can show alone is tested there.

mod content;
mod host;
mod measure;
pub mod servers;
mod transport;
