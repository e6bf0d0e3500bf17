//! Bundles in the bundle store, and the payload that pins a deployment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Error, Line};
use crate::config::Encryption;
use crate::domain::bundle;
use crate::domain::cfn::{NestedTemplates, locate_nested, pin_references};
use crate::domain::deployment::{Deployment, Pinned};
use crate::domain::estate::Target;
use crate::domain::model::{Digest, KeyedHasher, sha256_hex};
use crate::domain::plan::Desired;
use crate::domain::seal::{self, EncryptionContext, FrameLength, Header, MessageId};
use crate::domain::template::Files;
use crate::port::{self, KeyService, ObjectStore, Put, body};

const LARGEST: u64 = 64 << 20;

/// Everything of a deployment that is no id: kept as a sealed payload.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Pinning {
    /// The file that was rendered.
    pub file: String,
    /// The complete data.
    pub data: Value,
    /// The rendered text.
    pub rendered: String,
    pub parameters: BTreeMap<String, String>,
    pub secrets: Vec<String>,
    pub tags: BTreeMap<String, String>,
    pub capabilities: Vec<String>,
    /// The most that may be acknowledged, where the options say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<String>>,
    pub notification_arns: Vec<String>,
    pub rollback_triggers: Vec<String>,
    pub monitoring_minutes: u64,
    pub consumed: BTreeMap<String, String>,
    /// The versions that references were pinned to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
    /// Templates that lie below the rendered one, by the hash that stands for each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nested: NestedTemplates,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack_policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_protection: Option<bool>,
}

impl Pinning {
    pub fn new(file: &str, data: &Value, desired: &Desired) -> Self {
        Self {
            file: file.to_owned(),
            data: data.clone(),
            rendered: desired.template.to_string(),
            parameters: desired.parameters.clone(),
            secrets: desired.secrets.clone(),
            tags: desired.tags.clone(),
            capabilities: desired.capabilities.clone(),
            allowed: desired.allowed.clone(),
            notification_arns: desired.notification_arns.clone(),
            rollback_triggers: desired.rollback_triggers.clone(),
            monitoring_minutes: desired.monitoring_minutes,
            consumed: desired.consumed.clone(),
            versions: desired.versions.clone(),
            nested: desired.nested.clone(),
            stack_policy: desired.stack_policy.clone(),
            termination_protection: desired.termination_protection,
        }
    }

    /// Pins a text as the one of this deployment was.
    pub fn pin(&self, text: &str) -> String {
        let one = |(r, v): (&String, &String)| Some((r.parse().ok()?, v.clone()));
        pin_references(text, &self.versions.iter().filter_map(one).collect())
    }

    /// Returns what people gave: the parameters, and the inputs of every namespace.
    pub fn inputs(&self) -> Value {
        let mut found = vec![serde_json::json!(self.parameters)];
        let mut open = vec![&self.data];
        while let Some(value) = open.pop() {
            match value {
                Value::Object(members) => {
                    found.extend(members.get("inputs").cloned());
                    open.extend(members.values());
                }
                Value::Array(items) => open.extend(items),
                _ => {}
            }
        }
        Value::Array(found)
    }
}

/// What CloudFormation is given: the text with the URLs of what lies below it, and that with its keys.
pub(super) struct Sent {
    /// The key of the text.
    pub key: String,
    /// The text.
    pub text: String,
    /// Templates below it, by their keys.
    pub below: BTreeMap<String, String>,
}

impl Sent {
    /// Names everything by what it holds, so that the same has the same URL for ever and changes nothing.
    pub fn new(
        hasher: &KeyedHasher,
        store: &dyn ObjectStore,
        text: &str,
        nested: &NestedTemplates,
    ) -> Self {
        let mut below = BTreeMap::new();
        let text = located(hasher, store, text, nested, &mut below);
        Self {
            key: text_key(hasher, &text),
            text,
            below,
        }
    }
}

fn text_key(hasher: &KeyedHasher, text: &str) -> String {
    format!(
        "rendered/{}",
        hasher.digest("rendered", text.as_bytes()).hex()
    )
}

/// Puts URLs in place of the names of nested templates, the deepest first. What is named by what it holds has no circle.
fn located(
    hasher: &KeyedHasher,
    store: &dyn ObjectStore,
    text: &str,
    nested: &NestedTemplates,
    below: &mut BTreeMap<String, String>,
) -> String {
    if nested.is_empty() {
        return text.to_owned();
    }
    let found = std::cell::RefCell::new(below);
    locate_nested(text, &|hash| {
        let child = nested.get(hash)?;
        let child = located(hasher, store, child, nested, &mut found.borrow_mut());
        let key = text_key(hasher, &child);
        let url = store.url(&key, None);
        found.borrow_mut().insert(key, child);
        Some(url)
    })
}

/// The context that every bundle is sealed under: a key service can show what was opened.
pub(super) fn context(version: &str, digest: &Digest) -> EncryptionContext {
    let name = version.split('@').next().unwrap_or(version);
    EncryptionContext::from([
        ("isoform:format".to_owned(), "bundle-v1".to_owned()),
        ("isoform:kind".to_owned(), "bundle".to_owned()),
        ("isoform:template".to_owned(), name.to_owned()),
        ("isoform:bundle".to_owned(), digest.to_string()),
    ])
}

/// Opens a bundle from a store and checks its identity.
pub async fn open_bundle(
    store: &dyn ObjectStore,
    keys: Option<&dyn KeyService>,
    digest: &Digest,
) -> Result<Files, Error> {
    read_bundle(store, keys, digest)
        .await
        .map(|(files, _)| files)
}

/// Opens a bundle and returns the checksum of the object too.
async fn read_bundle(
    store: &dyn ObjectStore,
    keys: Option<&dyn KeyService>,
    digest: &Digest,
) -> Result<(Files, String), Error> {
    let bytes = port::read_all(store, &key(digest), None, LARGEST).await?;
    let sum = sha256_hex(&bytes);
    // Nobody but the store gives these bytes: what is wrong with them is no fault of isoform.
    let wrong = |error: &dyn std::fmt::Display| {
        Error::from(port::Error::Untrusted(format!(
            "{} in the bundle store: {error}",
            key(digest)
        )))
    };
    let archive = if bytes.starts_with(&[seal::VERSION]) {
        let keys = keys.ok_or_else(|| {
            Error::Broken("the bundle is sealed, and no key service is configured".into())
        })?;
        let sealed =
            seal::Sealed::parse(&bytes[..], &seal::Limits::default()).map_err(|e| wrong(&e))?;
        let header = sealed.header().clone();
        let expected = EncryptionContext::from([("isoform:bundle".to_owned(), digest.to_string())]);
        header.require_context(&expected).map_err(|e| wrong(&e))?;
        let data_key = keys
            .unwrap(&header.encrypted_data_keys, &header.context)
            .await?;
        let mut plain = Vec::new();
        sealed
            .open(data_key)
            .map_err(|e| wrong(&e))?
            .copy_to(&mut plain)
            .map_err(|e| wrong(&e))?;
        plain
    } else {
        bytes
    };
    let files = bundle::unpack(&archive, &bundle::Limits::default()).map_err(|e| wrong(&e))?;
    if bundle::digest(&files) != *digest {
        return Err(wrong(&"it holds another bundle"));
    }
    Ok((files, sum))
}

/// What is not there, or cannot be trusted, is no trouble of the way there.
fn known<T>(read: Result<T, port::Error>) -> Result<Option<T>, Error> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(port::Error::NotFound(_) | port::Error::Untrusted(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn sealed_error(error: seal::Error) -> Error {
    Error::Broken(format!("the sealed bundle: {error}"))
}

fn key(digest: &Digest) -> String {
    format!("bundles/{}", digest.hex())
}

/// Puts a bundle if it is not there, and returns the checksum of the object.
///
/// Sealing is not repeatable, so one that is there is opened and compared.
pub async fn put_bundle(
    ports: &dyn crate::port::Ports,
    encryption: Encryption,
    digest: &Digest,
    files: &Files,
    version: &str,
) -> Result<String, Error> {
    let home = ports.home();
    let sealing = ports.sealing();
    if home.head(&key(digest)).await?.is_some() {
        let (_, sum) = read_bundle(home.as_ref(), sealing.as_deref(), digest).await?;
        return Ok(sum);
    }
    let packing = |e| Error::Broken(format!("packing {version}: {e}"));
    let bytes = match (encryption, &sealing) {
        (Encryption::ClientKms, Some(keys)) => {
            let context = context(version, digest);
            let (data_key, wrapped) = keys.data_key(&context).await?;
            let header = Header {
                message_id: MessageId::new(random()?),
                context,
                encrypted_data_keys: vec![wrapped],
                frame_length: FrameLength::default(),
            };
            // Sealed as it is written: no archive in the clear is held.
            let sealed =
                seal::Encryptor::new(Vec::new(), data_key, &header).map_err(sealed_error)?;
            let all = files.iter().map(|(path, blob)| (path, &blob.bytes));
            let written = bundle::write(all, sealed).map_err(packing)?;
            written.finish().map_err(sealed_error)?
        }
        (Encryption::ClientKms, None) => {
            return Err(Error::Broken(
                "bundles must be sealed, and no key service is configured".into(),
            ));
        }
        (Encryption::SseS3 | Encryption::SseKms, _) => bundle::pack(files).map_err(packing)?,
    };
    let mut sum = sha256_hex(&bytes);
    let options = Put {
        sha256: Some(sum.clone()),
        ..Put::default()
    };
    match home.put(&key(digest), body(bytes), &options).await {
        Ok(_) => {}
        // Somebody was faster, or an answer of ours was lost.
        Err(port::Error::Exists(_)) => {
            (_, sum) = read_bundle(home.as_ref(), sealing.as_deref(), digest).await?;
        }
        Err(error) => return Err(error.into()),
    }
    // The provenance statement stands beside the bundle: who made it of what. In-toto, Statement v1.
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": version, "digest": { "isoform-bundle-v1": digest.hex() } }],
        "predicateType": "https://isoform.invalid/provenance/v1",
        "predicate": { "version": env!("CARGO_PKG_VERSION"), "files": files.iter().map(|(p, b)| (p.clone(), json!(sha256_hex(&b.bytes)))).collect::<serde_json::Map<_, _>>() },
    });
    let statement = crate::domain::model::canonical_json(&statement);
    match home
        .put(
            &format!("{}.provenance.json", key(digest)),
            body(statement),
            &Put::default(),
        )
        .await
    {
        Ok(_) | Err(port::Error::Exists(_)) => Ok(sum),
        Err(error) => Err(error.into()),
    }
}

impl Line {
    /// Puts a bundle into the installation's own bundle store, once since the start: many targets share one.
    pub(super) async fn put_bundle(
        &self,
        digest: &Digest,
        files: &Files,
        version: &str,
    ) -> Result<(), Error> {
        if self.shared().put.contains_key(digest) {
            return Ok(());
        }
        let sum = put_bundle(
            self.ports.as_ref(),
            self.settings.encryption,
            digest,
            files,
            version,
        )
        .await?;
        self.shared().put.insert(digest.clone(), sum);
        Ok(())
    }

    /// Tells which object of a deployment is not what was put there, and what to do about it.
    ///
    /// A deployment may be held for days, and others may write to a bucket. Checksums are the store's own; an object for which it
    /// has none is read.
    pub(super) async fn replaced(
        &self,
        target: &Target,
        deployment: &Deployment,
    ) -> Result<Option<String>, Error> {
        let pinned = &deployment.pinned;
        let bundle = async {
            match &pinned.bundle {
                Some(digest) if !self.same_bundle(digest).await? => Ok(Some(key(digest))),
                _ => Ok::<_, Error>(None),
            }
        };
        let text = async {
            let sent = self.sent(target, pinned).await?;
            for (key, text) in sent.below.iter().chain([(&sent.key, &sent.text)]) {
                if !self.same_text(target, key, text).await? {
                    return Ok(Some(key.clone()));
                }
            }
            Ok::<_, Error>(None)
        };
        let (bundle, text) = tokio::try_join!(bundle, text)?;
        Ok(bundle.or(text).map(|key| {
            format!(
                "{key} in the bundle store is not what was put there: find out who replaced or removed it, delete what \
                 is there, then `isoform retry {}`",
                target.address
            )
        }))
    }

    async fn same_bundle(&self, digest: &Digest) -> Result<bool, Error> {
        let home = self.ports.home();
        let found = known(home.head(&key(digest)).await)?.flatten();
        let put = self.shared().put.get(digest).cloned();
        if let Some(found) = found {
            if put.is_some() && found.sha256 == put {
                return Ok(true);
            }
            let sealing = self.ports.sealing();
            let read = read_bundle(home.as_ref(), sealing.as_deref(), digest).await;
            let read = match read {
                Err(Error::Port(error)) => known(Err(error))?,
                other => Some(other?),
            };
            if let Some((_, sum)) = read {
                self.shared().put.insert(digest.clone(), sum);
                return Ok(true);
            }
        }
        // The next deployment looks for itself, and puts what is missing.
        self.shared().put.remove(digest);
        Ok(false)
    }

    async fn same_text(&self, target: &Target, key: &str, text: &str) -> Result<bool, Error> {
        let store = self.ports.store(&target.placement, &target.region)?;
        let text = text.as_bytes();
        let Some(found) = known(store.head(key).await)?.flatten() else {
            return Ok(false);
        };
        if let Some(sum) = found.sha256 {
            return Ok(sum == sha256_hex(text));
        }
        let read = port::read_all(store.as_ref(), key, None, 2 << 20).await;
        Ok(known(read)?.is_some_and(|bytes| bytes == text))
    }

    /// Returns what CloudFormation is given for a deployment.
    pub(super) async fn sent(&self, target: &Target, pinned: &Pinned) -> Result<Sent, Error> {
        let pinning = self.pinning(&pinned.payload).await?;
        let store = self.ports.store(&target.placement, &target.region)?;
        let hasher = self.store.keyring().hasher();
        let mut sent = Sent::new(hasher, store.as_ref(), &pinning.rendered, &pinning.nested);
        // Whatever names texts today: it is where it was put.
        sent.key.clone_from(&pinned.rendered);
        Ok(sent)
    }

    /// Opens a payload that is a text.
    pub(super) async fn text_of(&self, digest: &Digest) -> Result<String, Error> {
        let bytes = self
            .store
            .payload(digest)
            .await?
            .ok_or_else(|| Error::Broken(format!("the payload {digest} is missing")))?;
        String::from_utf8(bytes)
            .map_err(|e| Error::Broken(format!("the payload {digest} is no text: {e}")))
    }

    /// Opens the payload that pins a deployment.
    pub(super) async fn pinning(&self, digest: &Digest) -> Result<Pinning, Error> {
        let bytes = self
            .store
            .payload(digest)
            .await?
            .ok_or_else(|| Error::Broken(format!("the payload {digest} is missing")))?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::Broken(format!("the payload {digest} cannot be read: {e}")))
    }
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], Error> {
    if let Some(bytes) = crate::testing::seeded() {
        return Ok(bytes);
    }
    use aws_lc_rs::rand::{SecureRandom, SystemRandom};
    let mut bytes = [0u8; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::Broken("no randomness".into()))?;
    Ok(bytes)
}
