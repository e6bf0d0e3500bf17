//! isoform keeps CloudFormation equal to Git.
//!
//! The map of the house (`docs/architecture.md` has the picture):
//!
//! * [`domain`] is pure: no IO, no clock, no randomness, no `async`. Everything that can be decided is decided there.
//! * `port` cuts the four traits behind which somebody else's servers stand.
//! * `local` implements the ports in a folder of this machine, `aws` on AWS; `git` and `store` are concrete.
//! * `reconcile` is the line from a push to an applied and audited change; `daemon` puts the pieces together.
//! * `http` and `cli` are what people touch.
//!
//! The feature `edge` (default) holds everything that touches the world.

pub mod domain;

#[cfg(feature = "edge")]
pub mod aws;
#[cfg(feature = "edge")]
pub mod cli;
#[cfg(feature = "edge")]
pub mod clock;
#[cfg(feature = "edge")]
pub mod config;
#[cfg(feature = "edge")]
pub mod daemon;
#[cfg(feature = "edge")]
pub mod forge;
#[cfg(feature = "edge")]
pub mod git;
#[cfg(feature = "edge")]
pub mod http;
#[cfg(feature = "edge")]
pub mod local;
#[cfg(feature = "edge")]
pub mod port;
#[cfg(feature = "edge")]
pub mod reconcile;
#[cfg(feature = "edge")]
pub mod secret_file;
#[cfg(feature = "edge")]
pub mod store;
#[cfg(feature = "edge")]
pub mod telemetry;
#[cfg(feature = "edge")]
pub mod testing;
#[cfg(feature = "edge")]
pub mod workqueue;
