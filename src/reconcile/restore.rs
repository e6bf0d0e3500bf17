//! An empty daemon rebuilds its state: from the bundle store's copy of the log, and the root key.

use serde_json::{Value, json};

use super::Error;
use super::ship::{Overlap, overlap, read_segment, segment_key};
use crate::domain::audit::{Body, Entry, GENESIS, Stream, verify};
use crate::domain::model::{Actor, Digest, InstallationId, Timestamp, hex};
use crate::port::{self, ObjectStore, Pages, Put, body};
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
        None => begin(store, home, now).await,
    }
}

/// Compares the log that is here with what was shipped of it, and takes in what is missing here.
///
/// A disk that loses what it said was written, or a machine put back to an old copy, leaves a log that is shorter than
/// what was shipped. Where it is the beginning of that, it goes on from there. Where both have gone on, nobody but a
/// person can tell which of the two is to stop. Usually this is one call that finds nothing.
async fn catch_up(store: &Store, home: &dyn ObjectStore, log: &str) -> Result<u64, Error> {
    let mut restored = 0;
    loop {
        let (_, shipped) = store.head();
        let key = segment_key(log, shipped + 1);
        if home.head(&key).await?.is_none() {
            return Ok(restored);
        }
        let there = read_segment(home, &key).await?;
        let here = store
            .entries(shipped + 1, there.entries.len() as u64)
            .await?;
        match overlap(&there.entries, &here) {
            Overlap::Behind(reached) if reached > shipped => store.shipped(reached),
            Overlap::Ahead => {
                let missing = &there.entries[here.len()..];
                let mut whole = store.entries(1, u64::MAX).await?;
                whole.extend_from_slice(missing);
                verify(&whole, &[], &|_, _| false)
                    .map_err(|e| Error::Broken(format!("the shipped log: {e}")))?;
                let payloads = sealed(&key, there.payloads)?;
                store.import(missing, &payloads).await?;
                restored += missing.len() as u64;
                tracing::warn!(
                    "the state lacked {} entries of the log that were shipped; they were taken from the bundle store",
                    missing.len()
                );
            }
            _ => return Err(Error::Forked(shipped + 1)),
        }
    }
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

async fn begin(store: &Store, home: &dyn ObjectStore, now: Timestamp) -> Result<Identity, Error> {
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
        &Put::default(),
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
    let (entries, payloads) = segments(home, &log).await?;
    let mut checkpoints: Vec<crate::domain::audit::Checkpoint> = Vec::new();
    for name in list(home, &format!("checkpoints/{log}/")).await? {
        let bytes = port::read_all(home, &name, None, 10_000).await?;
        checkpoints.push(
            serde_json::from_slice(&bytes)
                .map_err(|e| Error::Broken(format!("{name} cannot be read: {e}")))?,
        );
    }
    let last = entries.last().map_or(0, |e| e.seq);
    verify(&entries, &checkpoints, &|bytes, signature| {
        Keyring::check(&public_key, bytes, signature)
    })
    .map_err(|e| Error::Broken(format!("the shipped log: {e}")))?;
    store.set_meta("installation", &installation).await?;
    store.set_meta("log", &log).await?;
    store.import(&entries, &payloads).await?;
    for checkpoint in &checkpoints {
        store.add_checkpoint(checkpoint).await?;
    }
    if entries.is_empty() {
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

/// Reads every segment of a log, in order and without gaps.
pub async fn segments(
    home: &dyn ObjectStore,
    log: &str,
) -> Result<(Vec<Entry>, Vec<(Digest, Vec<u8>)>), Error> {
    let (mut entries, mut payloads): (Vec<Entry>, Vec<(Digest, Vec<u8>)>) =
        (Vec::new(), Vec::new());
    let mut previous = GENESIS.to_owned();
    for name in list(home, &format!("log/{log}/")).await? {
        let segment = read_segment(home, &name).await?;
        for entry in segment.entries {
            if entry.prev_hash != previous {
                return Err(Error::Broken(format!(
                    "the segment {name} does not follow the one before it at entry {}",
                    entry.seq
                )));
            }
            previous.clone_from(&entry.hash);
            entries.push(entry);
        }
        payloads.extend(sealed(&name, segment.payloads)?);
    }
    Ok((entries, payloads))
}

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
