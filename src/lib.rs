//! isoform keeps CloudFormation equal to Git.
//!
//! The map of the house (`docs/architecture.md` has the picture):
//!
//! * [`domain`] is pure: no IO, no clock, no randomness, no `async`. Everything that can be decided is decided there.
//! * `port` cuts the four traits behind which somebody else's servers stand.
//! * `local` implements the ports in a folder of this machine; `git` and `store` are concrete.
//! * `reconcile` is the line from a push to an applied and audited change; `daemon` puts the pieces together.
//! * `http` and `cli` are what people touch.
//!
//! The feature `edge` (default) holds everything that touches the world.

pub mod domain;

//TMPCFG pub mod cli;
#[cfg(feature = "edge")]
pub mod clock;
//TMPCFG pub mod config;
//TMPCFG pub mod daemon;
#[cfg(feature = "edge")]
pub mod git;
//TMPCFG pub mod http;
#[cfg(feature = "edge")]
pub mod local;
#[cfg(feature = "edge")]
pub mod port;
//TMPCFG pub mod reconcile;
#[cfg(feature = "edge")]
pub mod secret_file;
#[cfg(feature = "edge")]
pub mod store;
//TMPCFG pub mod telemetry;
#[cfg(feature = "edge")]
pub mod workqueue;
