//! Walking the chain.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Countersignature, Entry, GENESIS, Stream};
use crate::domain::model::{Room, Timestamp, canonical_json};

/// A signed statement: at this number the chain had this hash.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The log.
    pub log: String,
    /// The number of the entry.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
    /// When it was signed.
    pub at: Timestamp,
    /// Ed25519 over [`checkpoint_bytes`], hexadecimal.
    pub signature: String,
    /// The same bytes signed by a key of a service, where one is configured and has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub countersigned: Option<Countersignature>,
}

/// Returns the bytes that a checkpoint's signature is taken over.
pub fn checkpoint_bytes(log: &str, seq: u64, hash: &str, at: Timestamp) -> Vec<u8> {
    canonical_json(
        &json!({ "at": at, "format": "isoform-checkpoint-v1", "hash": hash, "log": log, "seq": seq }),
    )
}

/// Returns the bytes that a shipped segment's signature is taken over: it ends with this entry.
///
/// The chain of hashes has no key. Without this, whoever may write to the bundle store could add entries to a log, and a
/// daemon that starts would obey them. It is no checkpoint: one is signed only over what is shipped.
pub fn segment_bytes(log: &str, last: u64, hash: &str) -> Vec<u8> {
    canonical_json(
        &json!({ "format": "isoform-segment-v1", "hash": hash, "log": log, "seq": last }),
    )
}

/// The end of a chain that is known already.
#[derive(Clone, Debug)]
pub struct End {
    /// The number of the last entry.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
    /// The last number of every stream.
    pub streams: BTreeMap<Stream, u64>,
}

impl Default for End {
    fn default() -> Self {
        Self {
            seq: 0,
            hash: GENESIS.into(),
            streams: BTreeMap::new(),
        }
    }
}

/// What is wrong with a chain: the first entry that is wrong, or a checkpoint that does not fit.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize)]
pub enum Fault {
    /// A number is missing, doubled or out of order.
    #[error("entry {expected} is missing: the log goes on with entry {found}")]
    Gap {
        /// The number that should stand there.
        expected: u64,
        /// The number that does.
        found: u64,
    },
    /// An entry was changed.
    #[error("entry {seq} was changed: its hash is not that of its content")]
    Changed {
        /// The entry.
        seq: u64,
    },
    /// An entry does not follow the one before it.
    #[error("entry {seq} does not follow entry {}: the chain is broken between them", seq - 1)]
    Unlinked {
        /// The entry.
        seq: u64,
    },
    /// A stream has a gap.
    #[error("entry {seq} has the number {found} in {stream}, {expected} was expected")]
    StreamGap {
        /// The entry.
        seq: u64,
        /// The stream.
        stream: String,
        /// The number that should stand there.
        expected: u64,
        /// The number that does.
        found: u64,
    },
    /// A checkpoint's signature is wrong.
    #[error("the signature of the checkpoint at entry {seq} is not valid")]
    Signature {
        /// The entry.
        seq: u64,
    },
    /// The chain is consistent and not the one that was signed.
    #[error("the chain was rewritten: entry {seq} has another hash than its signed checkpoint; entries {} to {seq} cannot be trusted", good + 1)]
    Rewritten {
        /// The entry.
        seq: u64,
        /// The last entry that a checkpoint still vouches for.
        good: u64,
    },
    /// The chain ends before its last checkpoint.
    #[error(
        "the log was cut: it ends at entry {last}, and a checkpoint was signed at entry {signed}"
    )]
    Cut {
        /// The last entry.
        last: u64,
        /// The number of the checkpoint.
        signed: u64,
    },
    /// A countersignature is wrong.
    #[error("the countersignature of the checkpoint at entry {seq} is not one of {key}")]
    Countersignature {
        /// The entry.
        seq: u64,
        /// The name of the key.
        key: String,
    },
    /// A key that countersigns was replaced under its name. A key of KMS never changes.
    #[error(
        "the key {key} was swapped: from the checkpoint at entry {seq} on another one countersigns under its name"
    )]
    Swapped {
        /// The entry.
        seq: u64,
        /// The name of the key.
        key: String,
    },
    /// Another key than a trusted one countersigns.
    #[error(
        "the checkpoint at entry {seq} is countersigned by {key}, which is not a key that you trust"
    )]
    Foreign {
        /// The entry.
        seq: u64,
        /// The name of the key.
        key: String,
    },
    /// A key is trusted, and nothing is countersigned.
    #[error("no checkpoint is countersigned by a key that you trust")]
    Uncountersigned,
}

/// A chain that holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Verified {
    /// Entries.
    pub entries: u64,
    /// The last entry that a checkpoint vouches for.
    pub signed_to: u64,
    /// When that was signed.
    pub signed_at: Option<Timestamp>,
    /// Entries after it, which nothing vouches for yet.
    pub unsigned: u64,
}

/// Verifies entries against each other and against signed checkpoints.
///
/// `check` tells whether a signature over bytes is valid. Checkpoints may come from anywhere; the more places they
/// come from, the harder it is to rewrite the chain.
pub fn verify<'a>(
    entries: impl IntoIterator<Item = &'a Entry>,
    checkpoints: &[Checkpoint],
    check: &dyn Fn(&[u8], &str) -> bool,
) -> Result<Verified, Fault> {
    verify_after(&End::default(), entries, checkpoints, check)
}

/// Verifies entries that follow a known end. The numbers in the result are those of the whole chain.
pub fn verify_after<'a>(
    end: &End,
    entries: impl IntoIterator<Item = &'a Entry>,
    checkpoints: &[Checkpoint],
    check: &dyn Fn(&[u8], &str) -> bool,
) -> Result<Verified, Fault> {
    let mut by_seq: BTreeMap<u64, Vec<&Checkpoint>> = BTreeMap::new();
    for checkpoint in checkpoints.iter().filter(|c| c.seq > end.seq) {
        by_seq.entry(checkpoint.seq).or_default().push(checkpoint);
    }
    let mut streams: HashMap<&Stream, u64> = end.streams.iter().map(|(s, n)| (s, *n)).collect();
    let mut previous = end.hash.as_str();
    let mut room = Room::default();
    let (mut last, mut good, mut signed_at) = (end.seq, end.seq, None);
    let mut rewritten = None;
    for entry in entries {
        if entry.seq != last + 1 {
            return Err(Fault::Gap {
                expected: last + 1,
                found: entry.seq,
            });
        }
        if !entry.is_hashed(&mut room) {
            return Err(Fault::Changed { seq: entry.seq });
        }
        if entry.prev_hash != previous {
            return Err(Fault::Unlinked { seq: entry.seq });
        }
        let count = streams.entry(&entry.stream).or_default();
        if entry.stream_seq != *count + 1 {
            return Err(Fault::StreamGap {
                seq: entry.seq,
                stream: entry.stream.to_string(),
                expected: *count + 1,
                found: entry.stream_seq,
            });
        }
        *count += 1;
        for checkpoint in by_seq.get(&entry.seq).into_iter().flatten() {
            if !check(
                &checkpoint_bytes(
                    &checkpoint.log,
                    checkpoint.seq,
                    &checkpoint.hash,
                    checkpoint.at,
                ),
                &checkpoint.signature,
            ) {
                return Err(Fault::Signature { seq: entry.seq });
            }
            if checkpoint.hash == entry.hash {
                if rewritten.is_none() {
                    good = entry.seq;
                    signed_at = Some(checkpoint.at);
                }
            } else {
                rewritten.get_or_insert(Fault::Rewritten {
                    seq: entry.seq,
                    good,
                });
            }
        }
        previous = &entry.hash;
        last = entry.seq;
    }
    if let Some(fault) = rewritten {
        return Err(fault);
    }
    // A checkpoint beyond the end counts only if it is genuine: anybody can write a number.
    if let Some((seq, list)) = by_seq.range(last + 1..).next() {
        if list.iter().any(|c| {
            check(
                &checkpoint_bytes(&c.log, c.seq, &c.hash, c.at),
                &c.signature,
            )
        }) {
            return Err(Fault::Cut { last, signed: *seq });
        }
        return Err(Fault::Signature { seq: *seq });
    }
    Ok(Verified {
        entries: last,
        signed_to: good,
        signed_at,
        unsigned: last - good,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::Body;
    use crate::domain::model::Actor;
    use proptest::prelude::*;

    fn chain(length: u64) -> Vec<Entry> {
        let mut previous = GENESIS.to_owned();
        let mut entries = Vec::new();
        for seq in 1..=length {
            let entry = Entry {
                seq: 0,
                stream: Stream::Daemon,
                stream_seq: seq,
                at: Timestamp(seq as i64),
                actor: Actor::daemon("test"),
                body: Body::Stopped,
                prev_hash: String::new(),
                hash: String::new(),
            }
            .chained(seq, &previous);
            previous.clone_from(&entry.hash);
            entries.push(entry);
        }
        entries
    }

    fn sign(entries: &[Entry], seq: u64) -> Checkpoint {
        let (hash, at) = (entries[seq as usize - 1].hash.clone(), Timestamp(9));
        let signature = crate::domain::model::sha256_hex(&checkpoint_bytes("l", seq, &hash, at));
        Checkpoint {
            log: "l".into(),
            seq,
            hash,
            at,
            signature,
            countersigned: None,
        }
    }

    fn check(bytes: &[u8], signature: &str) -> bool {
        crate::domain::model::sha256_hex(bytes) == signature
    }

    #[test]
    fn what_follows_a_known_end_is_verified_without_what_comes_before() {
        let good = chain(6);
        let end = End {
            seq: 3,
            hash: good[2].hash.clone(),
            streams: [(Stream::Daemon, 3)].into(),
        };
        let signed = [sign(&good, 2), sign(&good, 5)];

        let verified = verify_after(&end, &good[3..], &signed, &check).unwrap();

        assert_eq!((verified.entries, verified.signed_to), (6, 5));
        assert_eq!(verified.unsigned, 1);
        assert_eq!(
            verify_after(&end, &good[4..], &[], &check),
            Err(Fault::Gap {
                expected: 4,
                found: 5
            })
        );
        let other = End {
            hash: GENESIS.into(),
            ..end
        };
        assert_eq!(
            verify_after(&other, &good[3..], &[], &check),
            Err(Fault::Unlinked { seq: 4 })
        );
    }

    fn rechain(entries: &mut [Entry], from: usize) {
        for i in from..entries.len() {
            let previous = if i == 0 {
                GENESIS.to_owned()
            } else {
                entries[i - 1].hash.clone()
            };
            entries[i] = entries[i].clone().chained(i as u64 + 1, &previous);
        }
    }

    #[test]
    fn sec_57_every_kind_of_tampering_is_named() {
        let good = chain(6);
        let signed = vec![sign(&good, 2), sign(&good, 4)];
        assert_eq!(
            verify(&good, &signed, &check),
            Ok(Verified {
                entries: 6,
                signed_to: 4,
                signed_at: Some(Timestamp(9)),
                unsigned: 2
            })
        );

        let mut changed = good.clone();
        changed[2].actor.display = "somebody else".into();
        assert_eq!(
            verify(&changed, &signed, &check),
            Err(Fault::Changed { seq: 3 })
        );

        let mut deleted = good.clone();
        deleted.remove(2);
        assert_eq!(
            verify(&deleted, &signed, &check),
            Err(Fault::Gap {
                expected: 3,
                found: 4
            })
        );

        let mut swapped = good.clone();
        swapped.swap(2, 3);
        assert_eq!(
            verify(&swapped, &signed, &check),
            Err(Fault::Gap {
                expected: 3,
                found: 4
            })
        );

        let mut rewritten = good.clone();
        rewritten[2].at = Timestamp(77);
        rechain(&mut rewritten, 2);
        assert_eq!(
            verify(&rewritten, &signed, &check),
            Err(Fault::Rewritten { seq: 4, good: 2 })
        );

        assert_eq!(
            verify(&good[..3], &signed, &check),
            Err(Fault::Cut { last: 3, signed: 4 })
        );

        let mut forged = signed.clone();
        forged[1].hash = "0".repeat(64);
        assert_eq!(
            verify(&good, &forged, &check),
            Err(Fault::Signature { seq: 4 })
        );
    }

    #[test]
    fn sec_57_forks_and_backdated_entries_are_named() {
        let good = chain(6);
        let signed = vec![sign(&good, 4)];
        // Another history from the third entry on, whole in itself.
        let mut fork = good.clone();
        fork[2].actor.display = "another history".into();
        rechain(&mut fork, 2);
        assert_eq!(
            verify(&fork, &signed, &check),
            Err(Fault::Rewritten { seq: 4, good: 0 })
        );
        // Both histories, one behind the other.
        let mut both = good.clone();
        both.extend_from_slice(&fork[3..]);
        assert!(verify(&both, &signed, &check).is_err());
        let mut backdated = good.clone();
        backdated[4].at = Timestamp(-86_400_000);
        assert_eq!(
            verify(&backdated, &signed, &check),
            Err(Fault::Changed { seq: 5 })
        );
    }

    #[test]
    fn sec_58_a_clock_that_was_set_back_breaks_no_chain() {
        let mut entries = chain(6);
        let day = 86_400_000;
        for (entry, at) in entries.iter_mut().zip([0, day, 1, -day, day, 2]) {
            entry.at = Timestamp(at);
        }
        rechain(&mut entries, 0);
        let signed = vec![sign(&entries, 6)];
        let verified = verify(&entries, &signed, &check).unwrap();
        // The order is the number of each entry, and never its time.
        assert_eq!((verified.entries, verified.signed_to), (6, 6));
    }

    proptest! {
        #[test]
        fn any_edit_is_detected(length in 1u64..12, at in 0usize..12, time in -5i64..5) {
            let good = chain(length);
            let mut bad = good.clone();
            let at = at % bad.len();
            bad[at].at = Timestamp(time - 10);
            prop_assert!(verify(&bad, &[], &check).is_err());
        }
    }
}
