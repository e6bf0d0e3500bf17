//! The root key where a key service holds it: 32 bytes that nobody has ever written down, wrapped under the service's key.
//!
//! The wrapped bytes lie in the state folder, and in the bundle store so that an empty daemon can begin again. They are
//! worth nothing without the service, which opens them under one fixed context only.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Error;
use super::ship::kept;
use crate::config::ObjectLock;
use crate::domain::model::{Timestamp, hex, sha256_hex};
use crate::domain::seal::{EncryptedDataKey, EncryptionContext};
use crate::port::{self, KeyService, ObjectStore, Put, body};
use crate::store::{RootKey, unhex};

/// Where the wrapped key lies in the bundle store, and in the state folder.
const KEY: &str = "root/wrapped.json";
const FILE: &str = "root.json";
const FORMAT: &str = "isoform-root-v1";

#[derive(Serialize, Deserialize)]
struct Wrapped {
    format: String,
    /// The names of who wrapped it, as in a sealed bundle; `info` is hexadecimal.
    provider: String,
    info: String,
    wrapped: String,
}

/// What the root key is wrapped under: policies of the key can ask for it.
fn context() -> EncryptionContext {
    EncryptionContext::from([
        ("isoform:format".to_owned(), FORMAT.to_owned()),
        ("isoform:kind".to_owned(), "root-key".to_owned()),
    ])
}

fn written(key: &EncryptedDataKey) -> Result<Vec<u8>, Error> {
    let wrapped = Wrapped {
        format: FORMAT.to_owned(),
        provider: key.provider_id.clone(),
        info: hex(&key.provider_info),
        wrapped: hex(&key.ciphertext),
    };
    serde_json::to_vec(&wrapped).map_err(|e| Error::Broken(format!("writing the root key: {e}")))
}

fn read(bytes: &[u8], at: &str) -> Result<EncryptedDataKey, Error> {
    let broken = |why: String| {
        Error::Broken(format!(
            "the wrapped root key in {at} cannot be read: {why}"
        ))
    };
    let found: Wrapped = serde_json::from_slice(bytes).map_err(|e| broken(e.to_string()))?;
    if found.format != FORMAT {
        return Err(broken(format!(
            "its format is `{}`",
            found.format.escape_debug()
        )));
    }
    let bytes = |text: &str| unhex(text).ok_or_else(|| broken("it is not hexadecimal".into()));
    let (info, ciphertext) = (bytes(&found.info)?, bytes(&found.wrapped)?);
    Ok(EncryptedDataKey {
        provider_id: found.provider,
        provider_info: info.to_vec(),
        ciphertext: ciphertext.to_vec(),
    })
}

/// Opens the root key of a state folder, or of the bundle store where the folder has none, or makes the first one.
///
/// It is made only where there is nothing yet that another root key has wrapped, and is kept in the bundle store as the log is:
/// without it nobody reads the log again. Fails where the bundle store has another one than the state folder.
pub async fn open_root(
    state: &Path,
    home: &dyn ObjectStore,
    keys: &dyn KeyService,
    lock: Option<&ObjectLock>,
    now: Timestamp,
) -> Result<RootKey, Error> {
    let file = state.join(FILE);
    let at = file.display().to_string();
    let here = match crate::secret_file::read(&file) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(crate::store::Error::File(at, error).into()),
    };
    if let Some(bytes) = here {
        let root = opened(&read(&bytes, &at)?, &at, keys).await?;
        // It may be that the one who made it died before it was away from this machine.
        keep(home, &bytes, &at, &kept(lock, now)).await?;
        return Ok(root);
    }
    let (bytes, at) = match stored(home).await? {
        Some(bytes) => (bytes, KEY.to_owned()),
        None => {
            let begun = state.join("isoform.db").exists();
            if begun || !home.list("keys/", None).await?.items.is_empty() {
                return Err(Error::Broken(format!(
                    "what is {} is wrapped under another root key, and none that the key service wrapped is there: go on with the `state.key` that it was begun with; a log changes its root key only by beginning anew, with an empty state folder and an empty bundle store",
                    if begun {
                        "in the state folder"
                    } else {
                        "in the bundle store"
                    }
                )));
            }
            let (_, wrapped) = keys.data_key(&context()).await?;
            // Whoever was first has made it.
            put(home, written(&wrapped)?, &kept(lock, now)).await?;
            let first = stored(home).await?;
            let first = first.ok_or_else(|| Error::Broken(format!("{KEY} was put and is gone")))?;
            (first, KEY.to_owned())
        }
    };
    let root = opened(&read(&bytes, &at)?, &at, keys).await?;
    crate::secret_file::folder(state)
        .and_then(|()| crate::secret_file::read_or_make(&file, || Ok(Zeroizing::new(bytes))))
        .map_err(|e| crate::store::Error::File(file.display().to_string(), e))?;
    Ok(root)
}

async fn stored(home: &dyn ObjectStore) -> Result<Option<Vec<u8>>, Error> {
    match port::read_all(home, KEY, None, 64 << 10).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(port::Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn put(home: &dyn ObjectStore, bytes: Vec<u8>, how: &Put) -> Result<(), Error> {
    match home.put(KEY, body(bytes), how).await {
        Ok(_) | Err(port::Error::Exists(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Puts the wrapped key of a state folder where there is none, and fails where there is another one: a rebuild would open that.
async fn keep(home: &dyn ObjectStore, bytes: &[u8], at: &str, how: &Put) -> Result<(), Error> {
    // Looked at first: what is there needs no right to put it, nor to lock it.
    if stored(home).await?.is_none() {
        put(home, bytes.to_vec(), how).await?;
    }
    let there = stored(home).await?;
    let there = there.ok_or_else(|| Error::Broken(format!("{KEY} was put and is gone")))?;
    let (here, there) = (read(bytes, at)?, read(&there, KEY)?);
    if here == there {
        return Ok(());
    }
    let named = |key: &EncryptedDataKey| {
        let by = key.kms_key_arn().unwrap_or(&key.provider_id);
        let hash = sha256_hex(&key.ciphertext);
        format!("wrapped by {}, SHA-256 {}…", by.escape_debug(), &hash[..12])
    };
    Err(Error::Broken(format!(
        "the bundle store has another root key than the state folder: {at} holds one {}; {KEY} in the bundle store holds one {}. If the log in this bundle store is this folder's, somebody has put the other one: bring the earlier version of {KEY} back, or delete it, and start again. If not, the state folder belongs to another bundle store: name that one, or begin with an empty state folder, which is rebuilt from this one",
        named(&here),
        named(&there),
    )))
}

async fn opened(
    wrapped: &EncryptedDataKey,
    at: &str,
    keys: &dyn KeyService,
) -> Result<RootKey, Error> {
    let by = wrapped.kms_key_arn().unwrap_or(&wrapped.provider_id);
    let root = keys.unwrap(std::slice::from_ref(wrapped), &context()).await;
    let root = root.map_err(|error| match error {
        port::Error::Denied(why) => port::Error::Denied(format!(
            "the root key in {at} does not open: it was wrapped by {}, and it, its context or the key is another one now: {why}",
            by.escape_debug()
        )),
        other => other,
    })?;
    Ok(RootKey::from_bytes(root.expose())?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;

    use super::*;
    use crate::domain::seal::{DataKey, RawAesKey};
    use crate::port::Ports;
    use crate::store::Store;
    use crate::testing::stub::Stub;

    /// A key service with a key of this letter, which may be disabled.
    struct Keys {
        key: RawAesKey,
        disabled: bool,
    }

    fn keys(letter: u8) -> Keys {
        Keys {
            key: RawAesKey::new("tests", "k", &[letter; 32]).unwrap(),
            disabled: false,
        }
    }

    #[async_trait]
    impl KeyService for Keys {
        async fn data_key(
            &self,
            context: &EncryptionContext,
        ) -> Result<(DataKey, EncryptedDataKey), port::Error> {
            if self.disabled {
                return Err(port::Error::KeyUnavailable("disabled".into()));
            }
            let key = DataKey::from_slice(&super::super::bundles::random::<32>().unwrap()).unwrap();
            let iv = super::super::bundles::random::<12>().unwrap();
            let wrapped = self.key.wrap(&key, iv, context).unwrap();
            Ok((key, wrapped))
        }

        async fn unwrap(
            &self,
            keys: &[EncryptedDataKey],
            context: &EncryptionContext,
        ) -> Result<DataKey, port::Error> {
            if self.disabled {
                return Err(port::Error::KeyUnavailable("disabled".into()));
            }
            let opened = self.key.unwrap(keys, context);
            opened.map_err(|e| port::Error::Denied(e.to_string()))
        }

        async fn rewrap(
            &self,
            _: &EncryptedDataKey,
            _: &EncryptionContext,
        ) -> Result<EncryptedDataKey, port::Error> {
            Err(port::Error::Unsupported("rewrap"))
        }

        async fn describe(&self) -> Result<String, port::Error> {
            Err(port::Error::Unsupported("describe"))
        }

        async fn public_key(&self) -> Result<Vec<u8>, port::Error> {
            Err(port::Error::Unsupported("public_key"))
        }

        async fn sign(&self, _: &[u8]) -> Result<Vec<u8>, port::Error> {
            Err(port::Error::Unsupported("sign"))
        }
    }

    /// A store that remembers how each object was put.
    struct Asked {
        store: Arc<dyn ObjectStore>,
        puts: std::sync::Mutex<Vec<(String, Put)>>,
    }

    #[async_trait]
    impl ObjectStore for Asked {
        async fn put(
            &self,
            key: &str,
            body: port::Body,
            options: &Put,
        ) -> Result<port::ObjectMeta, port::Error> {
            let asked = (key.to_owned(), options.clone());
            self.puts.lock().unwrap().push(asked);
            self.store.put(key, body, options).await
        }

        async fn get(
            &self,
            key: &str,
            version: Option<&str>,
        ) -> Result<(port::ObjectMeta, port::Body), port::Error> {
            self.store.get(key, version).await
        }

        async fn head(&self, key: &str) -> Result<Option<port::ObjectMeta>, port::Error> {
            self.store.head(key).await
        }

        async fn list(
            &self,
            prefix: &str,
            token: Option<&str>,
        ) -> Result<port::Page<port::ObjectMeta>, port::Error> {
            self.store.list(prefix, token).await
        }

        async fn delete(&self, key: &str) -> Result<(), port::Error> {
            self.store.delete(key).await
        }

        fn url(&self, key: &str, version: Option<&str>) -> String {
            self.store.url(key, version)
        }
    }

    /// Opens the root key where the log is not locked.
    async fn open_root(
        state: &Path,
        home: &dyn ObjectStore,
        keys: &dyn KeyService,
    ) -> Result<RootKey, Error> {
        super::open_root(state, home, keys, None, Timestamp(0)).await
    }

    fn place() -> (tempfile::TempDir, Arc<dyn ObjectStore>) {
        (tempfile::tempdir().unwrap(), Stub::default().home())
    }

    #[tokio::test]
    async fn the_same_root_key_comes_from_the_state_and_from_the_store_alone() {
        let (folder, home) = place();
        let state = folder.path().join("state");

        let first = open_root(&state, home.as_ref(), &keys(1)).await.unwrap();
        drop(Store::open(&state, &first).await.unwrap());
        let again = open_root(&state, home.as_ref(), &keys(1)).await.unwrap();
        drop(Store::open(&state, &again).await.unwrap());
        std::fs::remove_file(state.join(FILE)).unwrap();
        let rebuilt = open_root(&state, home.as_ref(), &keys(1)).await.unwrap();

        assert!(
            Store::open(&state, &rebuilt).await.is_ok(),
            "it opens what the first one has wrapped"
        );
        assert!(state.join(FILE).exists());
        let kept = std::fs::read_to_string(state.join(FILE)).unwrap();
        assert_eq!(
            kept.as_bytes(),
            stored(home.as_ref()).await.unwrap().unwrap()
        );
        let (elsewhere, other) = place();
        let foreign = open_root(elsewhere.path(), other.as_ref(), &keys(1)).await;
        assert!(Store::open(&state, &foreign.unwrap()).await.is_err());
    }

    #[tokio::test]
    async fn another_root_key_in_the_bundle_store_is_refused_by_name() {
        let (folder, home) = place();
        let state = folder.path();
        open_root(state, home.as_ref(), &keys(1)).await.unwrap();
        let (_, wrapped) = keys(1).data_key(&context()).await.unwrap();
        let other = written(&wrapped).unwrap();
        home.delete(KEY).await.unwrap();
        let options = Put::default();
        home.put(KEY, body(other.clone()), &options).await.unwrap();

        let answer = open_root(state, home.as_ref(), &keys(1)).await.map(drop);

        let Err(Error::Broken(said)) = answer else {
            panic!("it was taken for this one");
        };
        for word in [FILE, KEY, "empty state folder"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert_eq!(stored(home.as_ref()).await.unwrap(), Some(other));
        home.delete(KEY).await.unwrap();
        open_root(state, home.as_ref(), &keys(1)).await.unwrap();
        let kept = std::fs::read(state.join(FILE)).unwrap();
        assert_eq!(
            stored(home.as_ref()).await.unwrap(),
            Some(kept),
            "what is gone is put again"
        );
    }

    #[tokio::test]
    async fn it_is_locked_as_the_log_is_and_put_once() {
        let (folder, store) = place();
        let home = Asked {
            store,
            puts: std::sync::Mutex::default(),
        };
        let lock = ObjectLock {
            mode: crate::config::LockMode::Governance,
            days: 1,
            legal_hold: true,
        };

        for _ in 0..2 {
            super::open_root(folder.path(), &home, &keys(1), Some(&lock), Timestamp(5))
                .await
                .unwrap();
        }

        let puts = home.puts.lock().unwrap();
        let [(key, put)] = &puts[..] else {
            panic!("{puts:?}");
        };
        assert_eq!(key, KEY);
        assert!(put.if_absent && put.governed && put.legal_hold);
        assert_eq!(put.retain_until, Some(Timestamp(5 + 24 * 60 * 60 * 1000)));
    }

    #[tokio::test]
    async fn another_key_context_or_byte_is_refused_by_name() {
        let (folder, home) = place();
        let state = folder.path();
        open_root(state, home.as_ref(), &keys(1)).await.unwrap();
        let good = std::fs::read_to_string(state.join(FILE)).unwrap();

        let other = open_root(state, home.as_ref(), &keys(2)).await;
        let mut value: serde_json::Value = serde_json::from_str(&good).unwrap();
        let text = value["wrapped"].as_str().unwrap().to_owned();
        let flipped = if text.starts_with('0') { "1" } else { "0" };
        value["wrapped"] = format!("{flipped}{}", &text[1..]).into();
        std::fs::write(state.join(FILE), value.to_string()).unwrap();
        let changed = open_root(state, home.as_ref(), &keys(1)).await;
        let elsewhere = EncryptionContext::from([("isoform:kind".into(), "bundle".into())]);
        let (_, wrapped) = keys(1).data_key(&elsewhere).await.unwrap();
        std::fs::write(state.join(FILE), written(&wrapped).unwrap()).unwrap();
        let context = open_root(state, home.as_ref(), &keys(1)).await;

        for answer in [other, changed, context] {
            let Err(Error::Port(port::Error::Denied(said))) = answer.map(drop) else {
                panic!("it was not refused");
            };
            assert!(
                said.contains("does not open") && said.contains(FILE),
                "{said}"
            );
        }
        for broken in ["", "{}", "not json"] {
            std::fs::write(state.join(FILE), broken).unwrap();
            let answer = open_root(state, home.as_ref(), &keys(1)).await.map(drop);
            assert!(matches!(answer, Err(Error::Broken(_))), "{broken}");
        }
    }

    #[tokio::test]
    async fn a_key_that_is_disabled_leaves_nothing_behind() {
        let (folder, home) = place();
        let state = folder.path().join("state");
        let off = Keys {
            disabled: true,
            ..keys(1)
        };

        let answer = open_root(&state, home.as_ref(), &off).await.map(drop);

        let unavailable = matches!(answer, Err(Error::Port(port::Error::KeyUnavailable(_))));
        assert!(unavailable, "{answer:?}");
        assert!(!state.exists());
        assert_eq!(stored(home.as_ref()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_another_root_key_has_wrapped_is_not_begun_anew() {
        let (folder, home) = place();
        let by_file = RootKey::from_bytes(&[7; 32]).unwrap();
        drop(Store::open(folder.path(), &by_file).await.unwrap());
        let (empty, shipped) = place();
        let options = Put::default();
        let log = shipped.put("keys/0.json", body("{}"), &options);
        log.await.unwrap();

        for (state, home, word) in [
            (folder.path(), home, "state folder"),
            (empty.path(), shipped, "bundle store"),
        ] {
            let answer = open_root(state, home.as_ref(), &keys(1)).await.map(drop);

            let Err(Error::Broken(said)) = answer else {
                panic!("{word}: it was begun anew");
            };
            assert!(said.contains(word) && said.contains("state.key"), "{said}");
            assert_eq!(stored(home.as_ref()).await.unwrap(), None);
        }
    }
}
