//! One entry of the log and its canonical bytes.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::catalogue::Registered;
use crate::domain::deployment::EventKind;
use crate::domain::model::{
    Actor, Digest, Revision, Room, SnapshotId, SourceName, TargetUid, Timestamp, canonical_json,
    is_sha256_hex,
};
use crate::domain::policy::Mode;

/// The hash before the first entry.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Whose history an entry belongs to. Entries of one stream are numbered without gaps.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Deserialize)]
#[serde(try_from = "String")]
pub enum Stream {
    /// The installation itself.
    Daemon,
    /// A source.
    Source(SourceName),
    /// A target.
    Target(TargetUid),
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon => f.write_str("daemon"),
            Self::Source(name) => write!(f, "source/{name}"),
            Self::Target(uid) => write!(f, "target/{uid}"),
        }
    }
}

impl TryFrom<String> for Stream {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once('/') {
            None if text == "daemon" => Ok(Self::Daemon),
            Some(("source", name)) => name.parse().map(Self::Source).map_err(|e| e.to_string()),
            Some(("target", uid)) => uid.parse().map(Self::Target).map_err(|e| e.to_string()),
            _ => Err(format!("`{}` is not a stream", text.escape_debug())),
        }
    }
}

impl Serialize for Stream {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// What a look at a snapshot came to: one entry for every look at a new one, also when nothing changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Look {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// What made it look: `push`, `poll`, `timer`, `start`, `operator`.
    pub trigger: String,
    /// Revisions of all sources.
    pub revisions: BTreeMap<SourceName, Revision>,
    /// The verdict on signatures: `not-checked` until a policy asks for them.
    pub signature: String,
    /// Targets by result.
    pub counts: BTreeMap<String, usize>,
    /// Faults of the commit.
    pub faults: usize,
    /// Digest of the per-target results.
    pub results: Digest,
}

/// What an entry says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", content = "body")]
pub enum Body {
    /// The first entry of a log.
    Created {
        /// The log's id.
        log: String,
        /// The installation.
        installation: String,
        /// The public key that checkpoints are signed with, Ed25519, hexadecimal.
        public_key: String,
        /// Version of isoform.
        version: String,
    },
    /// The daemon started.
    Started {
        /// Version of isoform.
        version: String,
        /// Modes of sources and placements as configured.
        modes: BTreeMap<String, Mode>,
    },
    /// The daemon stopped in order.
    Stopped,
    /// A snapshot was accepted: from here on it is newer than all before.
    Accepted {
        /// Its number.
        snapshot: SnapshotId,
        /// Revisions of all sources.
        revisions: BTreeMap<SourceName, Revision>,
        /// What made it look.
        trigger: String,
    },
    /// A revision was not accepted.
    Refused {
        /// The revision.
        revision: Option<Revision>,
        /// Why, with a stable code first.
        reason: String,
    },
    /// An operator let a rewritten history in.
    HistoryAccepted {
        /// The new head.
        revision: Revision,
    },
    /// Somebody asked for something in a comment of a pull request, and was answered.
    Commanded {
        /// The pull request.
        pull: u64,
        /// The comment, by the forge's own id.
        comment: u64,
        /// What was asked for.
        command: String,
        /// Whether it was done.
        done: bool,
        /// What was answered.
        answer: String,
    },
    /// A template version was registered.
    Registered(Registered),
    /// A snapshot's blast radius was approved.
    BlastRadiusApproved {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Digest of the list that was shown.
        list: Digest,
    },
    /// A look ended.
    Synced(Look),
    /// Something happened to a target.
    Target(EventKind),
}

/// What the hash is taken over.
#[derive(Serialize)]
struct Unhashed<'a> {
    actor: &'a Actor,
    at: Timestamp,
    body: &'a Body,
    prev_hash: &'a str,
    seq: u64,
    stream: &'a Stream,
    stream_seq: u64,
}

/// One entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its number in the log, from 1.
    pub seq: u64,
    /// Whose it is.
    pub stream: Stream,
    /// Its number in the stream, from 1.
    pub stream_seq: u64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// What.
    pub body: Body,
    /// The hash of the entry before it.
    pub prev_hash: String,
    /// Its own hash.
    pub hash: String,
}

impl Entry {
    /// Returns the bytes that the hash is taken over: RFC 8785 JSON of everything but the hash.
    pub fn canonical(&self) -> Vec<u8> {
        canonical_json(&self.unhashed())
    }

    fn unhashed(&self) -> Unhashed<'_> {
        Unhashed {
            actor: &self.actor,
            at: self.at,
            body: &self.body,
            prev_hash: &self.prev_hash,
            seq: self.seq,
            stream: &self.stream,
            stream_seq: self.stream_seq,
        }
    }

    /// Returns the hash that the entry should have.
    pub fn computed_hash(&self) -> String {
        crate::domain::model::sha256_hex(&self.canonical())
    }

    /// Tells whether the entry has the hash that it should have. The room is used again and again.
    pub(super) fn is_hashed(&self, room: &mut Room) -> bool {
        match room.spell(&self.unhashed()) {
            Ok(bytes) => is_sha256_hex(&self.hash, bytes),
            Err(_) => self.hash == self.computed_hash(),
        }
    }

    /// Puts an entry at its place in the chain.
    pub fn chained(mut self, seq: u64, prev_hash: &str) -> Self {
        self.seq = seq;
        self.prev_hash = prev_hash.to_owned();
        self.hash = self.computed_hash();
        self
    }

    /// Returns the event of a target.
    pub fn event(&self) -> Option<crate::domain::deployment::Event> {
        match (&self.stream, &self.body) {
            (Stream::Target(uid), Body::Target(kind)) => Some(crate::domain::deployment::Event {
                target: uid.clone(),
                at: self.at,
                actor: self.actor.clone(),
                kind: kind.clone(),
            }),
            _ => None,
        }
    }

    /// Tells whether the entry must be away from this machine before its effect.
    pub fn binds_the_future(&self) -> bool {
        match &self.body {
            Body::Target(kind) => kind.binds_the_future(),
            Body::Created { .. }
            | Body::Accepted { .. }
            | Body::HistoryAccepted { .. }
            | Body::BlastRadiusApproved { .. }
            | Body::Registered(_) => true,
            _ => false,
        }
    }

    /// Returns the digests of the payloads that the entry refers to.
    pub fn payloads(&self) -> Vec<Digest> {
        match &self.body {
            Body::Target(kind) => kind.payloads(),
            _ => Vec::new(),
        }
    }
}
