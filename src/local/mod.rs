//! The embedded default: object store, key service and CloudFormation in a folder of this machine.
//!
//! This is a full adapter and not a mock. Its world lives in a folder of its own, knows nothing of the daemon, and its
//! operations advance by elapsed time whenever they are read, so they go on while the daemon is dead. CloudFormation
//! is a *reference model*: it evaluates templates, makes change sets and walks the states of stacks. It creates
//! nothing in any cloud. Start at [`World`].

mod changesets;
mod drift;
mod engine;
mod faults;
mod import;
mod keys;
mod lifecycle;
mod model;
mod objects;
mod physical;
mod reads;
mod review;
mod schedule;
mod target;
mod versions;
mod world;

pub use drift::ByHand;
pub use engine::LocalEngine;
pub use faults::Faults;
pub use keys::LocalKeys;
pub use objects::LocalObjects;
pub use versions::LocalVersions;
pub use world::{Failure, Phase, World, WorldError};
