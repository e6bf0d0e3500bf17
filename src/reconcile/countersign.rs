//! The second signature of checkpoints, by a key of a service.
//!
//! It comes after the log's own and waits for nobody: a service that cannot sign holds up neither the log nor a deployment. What was
//! missed is not made up for one by one: the newest checkpoint vouches for every entry before it, and is signed as soon as
//! the service can.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ship::kept;
use super::{Error, Line};
use crate::domain::audit::{
    Checkpoint, Countersignature, checkpoint_bytes, p256_point, read_public_key,
};
use crate::domain::model::{Timestamp, hex};
use crate::port::{self, KeyService, body};

/// How long a service that could not sign is left alone.
const PAUSE: Duration = Duration::from_secs(60);

/// How far the second key has signed, and what keeps it from the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountersignReport {
    /// The name of the key.
    pub key: String,
    /// The last entry that a countersigned checkpoint stands at.
    pub to: u64,
    /// Why the newest checkpoint is not countersigned; absent while all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// What is known of it while the daemon runs.
#[derive(Debug, Default)]
pub(super) struct Countersigning {
    to: u64,
    failed: Option<String>,
    /// When it is tried again, by the time that only goes forward.
    again: Option<Timestamp>,
}

impl Line {
    /// Lets the configured key sign the newest checkpoint, if it has not yet. A failure is kept for whoever asks, and is tried again
    /// after a minute.
    pub async fn countersign(&self) {
        let Some((name, service)) = self.ports.signing() else {
            return;
        };
        let now = self.clock.steady();
        let waits = |c: &Countersigning| c.again.is_some_and(|at| now < at);
        if waits(&self.countersigning.lock()) {
            return;
        }
        let done = self.sign_newest(&name, service.as_ref()).await;
        let mut known = self.countersigning.lock();
        match done {
            Ok(to) => {
                if known.failed.take().is_some() {
                    tracing::info!("{name} countersigns checkpoints again");
                }
                known.to = to;
                known.again = None;
            }
            Err(error) => {
                let said = error.to_string();
                if known.failed.as_ref() != Some(&said) {
                    tracing::warn!(
                        "the newest checkpoint is not countersigned by {name}: {said}; everything else goes on, and it is tried again"
                    );
                }
                known.failed = Some(said);
                known.again = Some(now.plus(PAUSE));
            }
        }
    }

    /// Returns how far checkpoints are countersigned, where a key is configured.
    pub(super) fn countersigned(&self) -> Option<CountersignReport> {
        let (key, _) = self.ports.signing()?;
        let known = self.countersigning.lock();
        Some(CountersignReport {
            key,
            to: known.to,
            failed: known.failed.clone(),
        })
    }

    async fn sign_newest(&self, name: &str, service: &dyn KeyService) -> Result<u64, Error> {
        let newest = self.store.newest_checkpoints(u64::MAX, 1).await?;
        let Some(mut checkpoint) = newest.into_iter().next() else {
            return Ok(0);
        };
        if checkpoint.countersigned.is_some() {
            return Ok(checkpoint.seq);
        }
        let reached = self.store.countersigned_to().await?;
        self.countersigning.lock().to = reached;
        checkpoint.countersigned = Some(self.signature(name, service, &checkpoint).await?);
        // First where it lies with the others: what only this machine has is lost with it.
        let bytes = serde_json::to_vec(&json!(checkpoint))
            .map_err(|e| Error::Broken(format!("writing a checkpoint: {e}")))?;
        let key = format!(
            "checkpoints/{}/{:020}.countersigned",
            self.settings.log, checkpoint.seq
        );
        let options = kept(self.settings.lock.as_ref(), self.clock.now());
        match self.ports.home().put(&key, body(bytes), &options).await {
            // One that was put before, and whose answer was lost, is as good as this one.
            Ok(_) | Err(port::Error::Exists(_)) => {}
            Err(error) => return Err(error.into()),
        }
        self.store.add_checkpoint(&checkpoint).await?;
        Ok(checkpoint.seq)
    }

    async fn signature(
        &self,
        name: &str,
        service: &dyn KeyService,
        c: &Checkpoint,
    ) -> Result<Countersignature, Error> {
        let bytes = checkpoint_bytes(&c.log, c.seq, &c.hash, c.at);
        let public_key = self.public_key(name, service).await?;
        let signature = service.sign(&bytes).await?;
        let by = Countersignature {
            public_key,
            ..Countersignature::new(name, &[], &signature)
        };
        // What nobody could verify later is worth nothing now.
        if !by.holds(&bytes) {
            return Err(Error::Broken(format!(
                "what {name} has signed does not verify with the public key that it gave: nothing of it was taken"
            )));
        }
        Ok(by)
    }

    /// The public half of the key: asked for once, then from the state. A key of KMS never changes it.
    async fn public_key(&self, name: &str, service: &dyn KeyService) -> Result<String, Error> {
        let meta = format!("signing/{name}");
        if let Some(known) = self.store.meta(&meta).await?
            && let Some(key) = read_public_key(known.as_bytes())
        {
            return Ok(key);
        }
        let spki = service.public_key().await?;
        if p256_point(&spki).is_none() {
            return Err(port::Error::Refused(format!(
                "{name} is no key on P-256; checkpoints are signed by one of ECC_NIST_P256 for SIGN_VERIFY"
            ))
            .into());
        }
        let key = hex(&spki);
        self.store.set_meta(&meta, &key).await?;
        Ok(key)
    }
}

/// A lock that a panic of another holder does not spoil.
#[derive(Default)]
pub(super) struct Held(std::sync::Mutex<Countersigning>);

impl Held {
    fn lock(&self) -> std::sync::MutexGuard<'_, Countersigning> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
