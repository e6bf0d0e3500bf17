//! The log as evidence: entries, the chain of hashes, and checkpoints.
//!
//! Journal and audit trail are the same thing. An entry holds ids, digests, names and decisions; everything else is a
//! payload outside it, so the chain verifies without any key. `docs/formats/log.md` is the format. Nothing here
//! stores or signs.

mod chain;
mod countersign;
mod entry;

pub use chain::{
    Checkpoint, End, Fault, Verified, checkpoint_bytes, segment_bytes, verify, verify_after,
};
pub use countersign::{
    Countersignature, Vouched, p256_point, p256_spki, read_public_key, verify_countersigned,
};
pub use entry::{Body, Entry, GENESIS, Look, Stream};
