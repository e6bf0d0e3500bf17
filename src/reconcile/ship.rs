//! Bringing the log to the bundle store: numbered segments that nobody can put twice, and signed checkpoints.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Error, Line};
use crate::config::{LockMode, ObjectLock};
use crate::domain::audit::{Checkpoint, Entry, checkpoint_bytes, segment_bytes};
use crate::domain::model::{Digest, Timestamp, hex};
use crate::port::{self, ObjectStore, Put, body};

/// What a segment holds. Entries are in the clear, payloads are sealed.
#[derive(Serialize, Deserialize)]
pub(super) struct Segment {
    pub format: String,
    pub entries: Vec<Entry>,
    pub payloads: Vec<(Digest, String)>,
    pub checkpoints: Vec<Checkpoint>,
    /// Ed25519 over [`segment_bytes`] with the log's signing key, hexadecimal. Older segments have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

const SEGMENT: u64 = 500;
const DAY: Duration = Duration::from_secs(86_400);

/// Returns the key of the segment that begins with an entry.
pub(super) fn segment_key(log: &str, first: u64) -> String {
    format!("log/{log}/{first:020}")
}

/// How a shipped segment and the entries that are here from the same number on lie to each other.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Overlap {
    /// Everything that was shipped is here, up to this number.
    Behind(u64),
    /// What is here is the beginning of what was shipped.
    Ahead,
    /// They are different.
    Forked,
}

pub(super) fn overlap(there: &[Entry], here: &[Entry]) -> Overlap {
    let same = there.iter().zip(here).all(|(a, b)| a.hash == b.hash);
    match there.last() {
        Some(last) if same && there.len() <= here.len() => Overlap::Behind(last.seq),
        Some(_) if same => Overlap::Ahead,
        _ => Overlap::Forked,
    }
}

/// Reads one segment.
pub(super) async fn read_segment(home: &dyn ObjectStore, key: &str) -> Result<Segment, Error> {
    let bytes = port::read_all(home, key, None, 256 << 20).await?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::Broken(format!("the segment {key} cannot be read: {e}")))
}

/// How what belongs to the log is put: only if absent, and kept as long as the operator asks for.
pub(super) fn kept(lock: Option<&ObjectLock>, now: Timestamp) -> Put {
    let days = lock.map_or(0, |l| l.days);
    Put {
        retain_until: (days > 0).then(|| now.plus(DAY * days)),
        governed: lock.is_some_and(|l| l.mode == LockMode::Governance),
        legal_hold: lock.is_some_and(|l| l.legal_hold),
        ..Put::default()
    }
}

impl Line {
    /// Says once, loudly, that somebody else has gone on with this log.
    fn forked(&self, first: u64) -> Error {
        let error = Error::Forked(first);
        if self.forked.swap(first, Ordering::Relaxed) == 0 {
            tracing::error!("{error}");
        }
        error
    }

    /// An error where somebody else has gone on with this log: then nothing is begun here any more.
    pub(super) fn alone(&self) -> Result<(), Error> {
        match self.forked.load(Ordering::Relaxed) {
            0 => Ok(()),
            first => Err(Error::Forked(first)),
        }
    }

    /// Ships every entry that was not shipped yet. When this returns, they are away from this machine.
    pub async fn ship(&self) -> Result<(), Error> {
        let (head, _) = self.store.head();
        self.ship_to(head).await
    }

    /// Ships every entry up to a number. What others have appended meanwhile goes along, and who waits for that is
    /// done when its turn comes: many who ship at once are a few segments.
    pub(super) async fn ship_to(&self, wanted: u64) -> Result<(), Error> {
        let _one = self.shipping.lock().await;
        loop {
            let (_, shipped) = self.store.head();
            if shipped >= wanted {
                return Ok(());
            }
            let entries = self.store.entries(shipped + 1, SEGMENT).await?;
            let Some((first, last)) = entries
                .first()
                .map(|e| e.seq)
                .zip(entries.last().map(|e| e.seq))
            else {
                return Ok(());
            };
            let digests: Vec<Digest> = entries.iter().flat_map(Entry::payloads).collect();
            let payloads = self
                .store
                .sealed_payloads(&digests)
                .await?
                .into_iter()
                .map(|(d, b)| (d, hex(&b)))
                .collect();
            let checkpoints = self.store.newest_checkpoints(last, 2).await?;
            let signature = entries.last().map(|e| {
                let bytes = segment_bytes(&self.settings.log, e.seq, &e.hash);
                self.store.keyring().sign(&bytes)
            });
            let segment = Segment {
                format: "isoform-log-v1".into(),
                entries,
                payloads,
                checkpoints,
                signature,
            };
            let bytes = serde_json::to_vec(&segment)
                .map_err(|e| Error::Broken(format!("writing a segment: {e}")))?;
            match self
                .ports
                .home()
                .put(
                    &segment_key(&self.settings.log, first),
                    body(bytes),
                    &kept(self.settings.lock.as_ref(), self.clock.now()),
                )
                .await
            {
                Ok(_) => {}
                // Shipped before, and the answer was lost. What lies there must be a beginning of what we have.
                Err(port::Error::Exists(_)) => {
                    let there = read_segment(
                        self.ports.home().as_ref(),
                        &segment_key(&self.settings.log, first),
                    )
                    .await?;
                    // The fence between two daemons on one log: who ships a number first has it, and the other one stops here.
                    let reached = match overlap(&there.entries, &segment.entries) {
                        Overlap::Behind(reached) => reached,
                        _ if !crate::testing::guard("shipped") => last,
                        _ => return Err(self.forked(first)),
                    };
                    self.store.shipped(reached);
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            self.store.shipped(last);
        }
    }

    /// Signs a checkpoint over the newest entry that is shipped, if `least` entries came since the last one.
    pub async fn checkpoint(&self, least: u64) -> Result<(), Error> {
        // Only what is shipped is signed: a checkpoint over entries that died with this machine would condemn the rest.
        self.ship().await?;
        let (_, head) = self.store.head();
        let last = self
            .store
            .newest_checkpoints(u64::MAX, 1)
            .await?
            .first()
            .map_or(0, |c| c.seq);
        if head < last + least.max(1) {
            return Ok(());
        }
        let Some(hash) = self.store.entries(head, 1).await?.pop().map(|e| e.hash) else {
            return Ok(());
        };
        let at = self.clock.now();
        let signature =
            self.store
                .keyring()
                .sign(&checkpoint_bytes(&self.settings.log, head, &hash, at));
        let checkpoint = Checkpoint {
            log: self.settings.log.clone(),
            seq: head,
            hash,
            at,
            signature,
            countersigned: None,
        };
        self.store.add_checkpoint(&checkpoint).await?;
        // Checkpoints lie beside the segments too: a log that is cut here is seen there.
        let bytes = serde_json::to_vec(&json!(checkpoint))
            .map_err(|e| Error::Broken(format!("writing a checkpoint: {e}")))?;
        match self
            .ports
            .home()
            .put(
                &format!("checkpoints/{}/{head:020}", self.settings.log),
                body(bytes),
                &kept(self.settings.lock.as_ref(), self.clock.now()),
            )
            .await
        {
            Ok(_) | Err(port::Error::Exists(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
