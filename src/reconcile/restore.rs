//! An empty daemon rebuilds its state: from the bundle store's copy of the log, and the root key.

use serde_json::{Value, json};

use super::Error;
use super::ship::Segment;
use crate::domain::audit::{Body, Entry, GENESIS, Stream, verify};
use crate::domain::model::{Actor, Digest, InstallationId, Timestamp, hex};
use crate::port::{self, ObjectStore, Put, body};
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
        return Ok(Identity {
            installation,
            log,
            restored: 0,
        });
    }
    let found = list(home, "keys/").await?;
    match found.first() {
        Some(key) => take_over(store, home, root, key, now).await,
        None => begin(store, home, now).await,
    }
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
        let bytes = port::read_all(home, &name, None, 256 << 20).await?;
        let segment: Segment = serde_json::from_slice(&bytes)
            .map_err(|e| Error::Broken(format!("the segment {name} cannot be read: {e}")))?;
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
        for (digest, sealed) in segment.payloads {
            let bytes = unhex(&sealed).ok_or_else(|| {
                Error::Broken(format!("the segment {name} holds a broken payload"))
            })?;
            payloads.push((digest, bytes.to_vec()));
        }
    }
    Ok((entries, payloads))
}

async fn list(home: &dyn ObjectStore, prefix: &str) -> Result<Vec<String>, Error> {
    let mut keys = Vec::new();
    let mut token = None;
    loop {
        let page = home.list(prefix, token.as_deref()).await?;
        keys.extend(page.items.into_iter().map(|m| m.key));
        match page.next {
            Some(next) => token = Some(next),
            None => return Ok(keys),
        }
    }
}
