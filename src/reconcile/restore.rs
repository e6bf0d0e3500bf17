//! An empty daemon rebuilds its state: from the bundle store's copy of the log, and the root key.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Error;
use super::ship::{Overlap, Segment, kept, overlap, read_segment, segment_key};
use crate::config::ObjectLock;
use crate::domain::audit::{
    Body, Checkpoint, End, Entry, GENESIS, Stream, checkpoint_bytes, segment_bytes, verify_after,
};
use crate::domain::model::{Actor, Digest, InstallationId, Timestamp, hex};
use crate::port::{self, ObjectStore, Pages, body};
use crate::store::{Draft, Keyring, RootKey, Store, unhex};

/// Who a state folder belongs to.
pub struct Identity {
    /// The installation.
    pub installation: InstallationId,
    /// The log.
    pub log: String,
    /// Entries that were taken over from the bundle store; 0 where the state was there or nothing was.
    pub restored: u64,
}

/// Finds out who the state belongs to. An empty one takes over the log of the bundle store, or begins a new one.
pub async fn restore(
    store: &mut Store,
    home: &dyn ObjectStore,
    root: &RootKey,
    lock: Option<&ObjectLock>,
    now: Timestamp,
) -> Result<Identity, Error> {
    if let (Some(installation), Some(log)) =
        (store.meta("installation").await?, store.meta("log").await?)
        && !store.is_empty().await?
    {
        let installation = installation
            .parse()
            .map_err(|e| Error::Broken(format!("{e}")))?;
        let restored = match catch_up(store, home, &log).await {
            Ok(restored) => restored,
            // It is asked again before anything is executed: every execution is shipped first.
            Err(Error::Port(error)) => {
                tracing::warn!("the shipped log cannot be compared with the state: {error}");
                0
            }
            Err(error) => return Err(error),
        };
        return Ok(Identity {
            installation,
            log,
            restored,
        });
    }
    let found = list(home, "keys/").await?;
    match found.first() {
        Some(key) => take_over(store, home, root, key, now).await,
        None => begin(store, home, lock, now).await,
    }
}

/// Compares the log that is here with what was shipped of it, and takes in what is missing here.
///
/// A disk that loses what it said was written, or a machine put back to an old copy, leaves a log that is shorter than
/// what was shipped. Where it is the beginning of that, it goes on from there. Where both have gone on, nobody but a
/// person can tell which of the two is to stop. Usually this is one call that finds nothing.
async fn catch_up(store: &Store, home: &dyn ObjectStore, log: &str) -> Result<u64, Error> {
    let key = store.keyring().public_key();
    let (_, mut reached) = store.head();
    let mut missing = Shipped::default();
    loop {
        let name = segment_key(log, reached + 1);
        if home.head(&name).await?.is_none() {
            break;
        }
        let there = read_segment(home, &name).await?;
        let here = store
            .entries(reached + 1, there.entries.len() as u64)
            .await?;
        let last = there.entries.last().map_or(0, |e| e.seq);
        match overlap(&there.entries, &here) {
            Overlap::Behind(to) if to > reached => {
                store.shipped(to);
                reached = to;
            }
            Overlap::Ahead if last > reached => {
                missing.add(name, there, here.len())?;
                reached = last;
            }
            _ => {
                // Another daemon has signed what it wrote; what nobody has signed is no other daemon.
                let mut other = Shipped::default();
                other.add(name, there, 0)?;
                other.vouch(home, log, &key).await?;
                return Err(Error::Forked(reached + 1));
            }
        }
    }
    if missing.entries.is_empty() {
        return Ok(0);
    }
    missing.vouch(home, log, &key).await?;
    missing.verify(&store.end().await?, &key)?;
    store.import(&missing.entries, &missing.payloads).await?;
    let restored = missing.entries.len() as u64;
    tracing::warn!(
        "the state lacked {restored} entries of the log that were shipped; they were taken from the bundle store"
    );
    Ok(restored)
}

/// What the bundle store holds of a log, or a part of that.
#[derive(Default)]
pub struct Shipped {
    /// Entries in their order.
    pub entries: Vec<Entry>,
    /// Sealed payloads.
    pub payloads: Vec<(Digest, Vec<u8>)>,
    /// The checkpoints that lie beside the segments.
    pub checkpoints: Vec<Checkpoint>,
    segments: Vec<Signed>,
}

/// Where a segment ends, and what vouches for that.
struct Signed {
    name: String,
    last: u64,
    hash: String,
    signature: Option<String>,
}

impl Shipped {
    /// Tells which logs were shipped to a bundle store.
    pub async fn logs(home: &dyn ObjectStore) -> Result<BTreeSet<String>, Error> {
        let keys = list(home, "log/").await?;
        let logs = keys.iter().filter_map(|key| key.split('/').nth(1));
        Ok(logs.map(str::to_owned).collect())
    }

    /// Reads everything: every segment, in order and without gaps, and every checkpoint.
    pub async fn read(home: &dyn ObjectStore, log: &str) -> Result<Self, Error> {
        let mut shipped = Self::default();
        let mut previous = GENESIS.to_owned();
        for name in list(home, &format!("log/{log}/")).await? {
            let segment = read_segment(home, &name).await?;
            for entry in &segment.entries {
                if entry.prev_hash != previous {
                    return Err(Error::Broken(format!(
                        "the segment {name} does not follow the one before it at entry {}",
                        entry.seq
                    )));
                }
                previous.clone_from(&entry.hash);
            }
            shipped.add(name, segment, 0)?;
        }
        shipped.checkpoints = checkpoints(home, log, 0).await?;
        Ok(shipped)
    }

    fn add(&mut self, name: String, segment: Segment, known: usize) -> Result<(), Error> {
        let last = segment.entries.last();
        self.segments.push(Signed {
            last: last.map_or(0, |e| e.seq),
            hash: last.map(|e| e.hash.clone()).unwrap_or_default(),
            signature: segment.signature,
            name: name.clone(),
        });
        self.payloads.extend(sealed(&name, segment.payloads)?);
        self.entries.extend(segment.entries.into_iter().skip(known));
        Ok(())
    }

    /// Reads the checkpoints where a segment has no signature of its own, and asks who has signed.
    async fn vouch(&mut self, home: &dyn ObjectStore, log: &str, key: &str) -> Result<(), Error> {
        if self.segments.iter().any(|s| s.signature.is_none()) {
            let first = self.entries.first().map_or(0, |e| e.seq);
            self.checkpoints = checkpoints(home, log, first).await?;
        }
        self.signed(log, key)
    }

    /// An error where the log's signing key has not signed a segment: then isoform has not written it.
    ///
    /// The chain of hashes alone proves nothing here, for it has no key. Segments of earlier releases have no signature; for
    /// them a later segment or a checkpoint vouches.
    pub fn signed(&self, log: &str, key: &str) -> Result<(), Error> {
        let genuine = |bytes: &[u8], signature: &str| Keyring::check(key, bytes, signature);
        let mut reached = 0;
        for segment in &self.segments {
            match &segment.signature {
                Some(s) if genuine(&segment_bytes(log, segment.last, &segment.hash), s) => {
                    reached = reached.max(segment.last);
                }
                Some(_) => return Err(unsigned(&segment.name)),
                None => {}
            }
        }
        for c in &self.checkpoints {
            let at = self.entries.binary_search_by_key(&c.seq, |e| e.seq);
            if c.seq > reached
                && at.is_ok_and(|at| self.entries[at].hash == c.hash)
                && c.log == log
                && genuine(&checkpoint_bytes(log, c.seq, &c.hash, c.at), &c.signature)
            {
                reached = c.seq;
            }
        }
        match self.segments.iter().find(|s| s.last > reached) {
            Some(segment) => Err(unsigned(&segment.name)),
            None => Ok(()),
        }
    }

    /// Walks the chain from an end that is known. Who has signed is another question: [`Self::signed`].
    fn verify(&self, end: &End, key: &str) -> Result<(), Error> {
        verify_after(
            end,
            &self.entries,
            &self.checkpoints,
            &|bytes, signature| Keyring::check(key, bytes, signature),
        )
        .map(drop)
        .map_err(|e| Error::Broken(format!("the shipped log: {e}")))
    }
}

/// Takes away a countersignature that is none: whoever may write to the bundle store may have put it there.
fn sound(mut c: Checkpoint) -> Checkpoint {
    let bytes = checkpoint_bytes(&c.log, c.seq, &c.hash, c.at);
    c.countersigned = c.countersigned.filter(|by| by.holds(&bytes));
    c
}

fn unsigned(segment: &str) -> Error {
    Error::Broken(format!(
        "the segment {segment} in the bundle store is not signed with this log's key: isoform did not write it, and nothing of it was taken. Find out who may write to the bundle store; to go on without the segment, keep a copy of it, remove it there and start again"
    ))
}

/// Reads the checkpoints that lie in the bundle store, from a number on.
async fn checkpoints(
    home: &dyn ObjectStore,
    log: &str,
    from: u64,
) -> Result<Vec<Checkpoint>, Error> {
    let folder = format!("checkpoints/{log}/");
    let mut found = Vec::new();
    for name in list(home, &folder).await? {
        let number = name.strip_prefix(&folder).and_then(|n| n.parse().ok());
        if number.is_some_and(|n: u64| n < from) {
            continue;
        }
        let bytes = port::read_all(home, &name, None, 10_000).await?;
        found.push(
            serde_json::from_slice(&bytes)
                .map_err(|e| Error::Broken(format!("{name} cannot be read: {e}")))?,
        );
    }
    Ok(found)
}

fn sealed(key: &str, payloads: Vec<(Digest, String)>) -> Result<Vec<(Digest, Vec<u8>)>, Error> {
    payloads
        .into_iter()
        .map(|(digest, sealed)| {
            let bytes = unhex(&sealed).ok_or_else(|| {
                Error::Broken(format!("the segment {key} holds a broken payload"))
            })?;
            Ok((digest, bytes.to_vec()))
        })
        .collect()
}

async fn begin(
    store: &Store,
    home: &dyn ObjectStore,
    lock: Option<&ObjectLock>,
    now: Timestamp,
) -> Result<Identity, Error> {
    let installation: InstallationId = hex(&super::bundles::random::<16>()?)
        .parse()
        .map_err(|e| Error::Broken(format!("{e}")))?;
    let log = hex(&super::bundles::random::<16>()?);
    store
        .set_meta("installation", installation.as_str())
        .await?;
    store.set_meta("log", &log).await?;
    let wrapped: Vec<Value> = store
        .wrapped_keys()
        .await?
        .iter()
        .map(|(id, bytes)| json!({ "id": id, "wrapped": hex(bytes) }))
        .collect();
    let public_key = store.keyring().public_key();
    // The wrapped keys go first: a log that was shipped without them could never be opened again.
    let keys = json!({ "format": "isoform-keys-v1", "installation": installation, "log": log, "public_key": public_key, "keys": wrapped });
    home.put(
        &format!("keys/{log}.json"),
        body(keys.to_string()),
        &kept(lock, now),
    )
    .await?;
    let created = Body::Created {
        log: log.clone(),
        installation: installation.to_string(),
        public_key,
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let draft = Draft {
        stream: Stream::Daemon,
        stream_seq: Some(1),
        at: now,
        actor: Actor::daemon("start"),
        body: created,
        payloads: Vec::new(),
    };
    store.append(draft).await?;
    Ok(Identity {
        installation,
        log,
        restored: 0,
    })
}

async fn take_over(
    store: &mut Store,
    home: &dyn ObjectStore,
    root: &RootKey,
    key: &str,
    now: Timestamp,
) -> Result<Identity, Error> {
    let bytes = port::read_all(home, key, None, 1 << 20).await?;
    let keys: Value = serde_json::from_slice(&bytes)
        .map_err(|e| Error::Broken(format!("{key} cannot be read: {e}")))?;
    let text = |name: &str| {
        keys.get(name)
            .and_then(Value::as_str)
            .map(str::to_owned)
            .ok_or_else(|| Error::Broken(format!("{key} lacks `{name}`")))
    };
    let (installation, log, public_key) =
        (text("installation")?, text("log")?, text("public_key")?);
    let mut wrapped = Vec::new();
    for one in keys
        .get("keys")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let id = one
            .get("id")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let bytes = one
            .get("wrapped")
            .and_then(Value::as_str)
            .and_then(unhex)
            .ok_or_else(|| Error::Broken(format!("{key} holds a broken key")))?;
        wrapped.push((id, bytes.to_vec()));
    }
    store.adopt_keys(root, &wrapped).await?;
    // Whoever can write to the bundle store can write a public key there, and not one that belongs to our signing key.
    if store.keyring().public_key() != public_key {
        return Err(Error::Broken(format!(
            "{key} names a public key that is not the signing key's"
        )));
    }
    let shipped = Shipped::read(home, &log).await?;
    shipped.verify(&End::default(), &public_key)?;
    shipped.signed(&log, &public_key)?;
    let last = shipped.entries.last().map_or(0, |e| e.seq);
    store.set_meta("installation", &installation).await?;
    store.set_meta("log", &log).await?;
    store.import(&shipped.entries, &shipped.payloads).await?;
    for checkpoint in shipped.checkpoints {
        store.add_checkpoint(&sound(checkpoint)).await?;
    }
    if shipped.entries.is_empty() {
        // The old state died before its first segment was shipped: the log begins again under its own name and keys.
        let created = Body::Created {
            log: log.clone(),
            installation: installation.clone(),
            public_key,
            version: env!("CARGO_PKG_VERSION").into(),
        };
        store
            .append(Draft {
                stream: Stream::Daemon,
                stream_seq: Some(1),
                at: now,
                actor: Actor::daemon("start"),
                body: created,
                payloads: Vec::new(),
            })
            .await?;
    }
    Ok(Identity {
        installation: installation
            .parse()
            .map_err(|e| Error::Broken(format!("{e}")))?,
        log,
        restored: last,
    })
}

/// Lists keys. A listing that comes back to where it was has no end, and what it says cannot be trusted.
async fn list(home: &dyn ObjectStore, prefix: &str) -> Result<Vec<String>, Error> {
    let mut keys = Vec::new();
    let mut pages = Pages::default();
    while pages.go_on() {
        let page = home.list(prefix, pages.token()).await?;
        keys.extend(page.items.into_iter().map(|m| m.key));
        pages.turn(page.next)?;
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;
    use crate::domain::audit::{Countersignature, p256_spki};

    #[test]
    fn a_countersignature_that_is_none_is_not_taken_over() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let bytes = checkpoint_bytes("l", 7, "h", Timestamp(1));
        let signature = pair.sign(&SystemRandom::new(), &bytes).unwrap();
        let spki = p256_spki(pair.public_key().as_ref());
        let good = Checkpoint {
            log: "l".into(),
            seq: 7,
            hash: "h".into(),
            at: Timestamp(1),
            signature: "s".into(),
            countersigned: Some(Countersignature::new("k", &spki, signature.as_ref())),
        };
        let forged = Checkpoint {
            countersigned: Some(Countersignature::new("k", &spki, b"no signature")),
            ..good.clone()
        };

        assert_eq!(sound(good.clone()), good);
        let bare = Checkpoint {
            countersigned: None,
            ..good.clone()
        };
        assert_eq!(sound(forged), bare);
        assert_eq!(sound(bare.clone()), bare);
    }
}
