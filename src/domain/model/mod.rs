//! Ids, names, time and findings: the words that every other module uses.
//!
//! Nothing here knows a file format or a service. Ids and digests are made by parsing or by hashing only.

mod canonical;
mod condition;
mod decode;
mod digest;
mod finding;
mod ids;
mod name;
mod prune;
mod time;

pub use canonical::{Room, Unspellable, canonical_into};
pub use condition::{Condition, Reason, SyncResult};
pub(crate) use decode::{unbase64, unhex};
pub(crate) use digest::hex;
pub use digest::{Digest, KeyedHasher, canonical_json, is_sha256_hex, sha256_hex};
pub use finding::{Finding, Place, Related, Severity, Span, closest};
pub use ids::{
    AccountId, Actor, Address, AddressError, DeploymentId, Generation, IdError, InstallationId,
    PlacementName, Region, Revision, SnapshotId, SourceName, StackId, StackName, TargetUid,
    glob_matches,
};
pub use name::{counted, folded_name};
pub use prune::Prune;
pub use time::{Timestamp, parse_duration};
