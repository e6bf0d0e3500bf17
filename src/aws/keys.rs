//! The key port on KMS.
//!
//! A data key's provider is `aws-kms` and its info the key's ARN, as in the AWS Encryption SDK: AWS's own client opens what is
//! sealed here. Every call names the key; a message cannot say which key opens it.

use aws_lc_rs::digest::{SHA256, digest};
use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, KeyState, MessageType, SigningAlgorithmSpec};
use zeroize::Zeroizing;

use async_trait::async_trait;

use super::error;
use super::session::Session;
use crate::domain::seal::{DataKey, EncryptedDataKey, EncryptionContext};
use crate::port::{Error, KeyService};

/// A key of KMS, with keys that were used before and one that signs.
pub struct KmsKeys {
    client: Client,
    key: String,
    former: Vec<String>,
    signing: Option<String>,
}

impl KmsKeys {
    /// Opens a key by its ARN. `former` keys still open what they wrapped; `signing` is an elliptic-curve key (P-256).
    pub fn new(
        session: &Session,
        key: String,
        former: Vec<String>,
        signing: Option<String>,
    ) -> Self {
        Self {
            client: session.keys(),
            key,
            former,
            signing,
        }
    }

    fn ours(&self, key: &EncryptedDataKey) -> Option<String> {
        let arn = key.kms_key_arn()?;
        (arn == self.key || self.former.iter().any(|f| f == arn)).then(|| arn.to_owned())
    }
}

fn pairs(context: &EncryptionContext) -> std::collections::HashMap<String, String> {
    context.clone().into_iter().collect()
}

/// Takes a key out of an answer. The SDK's own copy is not wiped: it frees what it read.
fn data_key(plain: Option<&Blob>) -> Result<DataKey, Error> {
    let bytes = Zeroizing::new(plain.map(|b| b.as_ref().to_vec()).unwrap_or_default());
    DataKey::from_slice(&bytes).map_err(|e| Error::Untrusted(format!("a data key: {e}")))
}

fn is_of(call: &str, asked: &str, used: Option<&str>) -> Result<(), Error> {
    if used == Some(asked) {
        return Ok(());
    }
    Err(Error::Untrusted(format!(
        "{call} used the key {}, asked for was {asked}",
        used.unwrap_or("(none)")
    )))
}

#[async_trait]
impl KeyService for KmsKeys {
    async fn data_key(
        &self,
        context: &EncryptionContext,
    ) -> Result<(DataKey, EncryptedDataKey), Error> {
        let answer = self
            .client
            .generate_data_key()
            .key_id(&self.key)
            .key_spec(DataKeySpec::Aes256)
            .set_encryption_context(Some(pairs(context)))
            .send()
            .await
            .map_err(|e| error::of("GenerateDataKey", &self.key, e))?;
        is_of("GenerateDataKey", &self.key, answer.key_id())?;
        let wrapped = answer
            .ciphertext_blob()
            .ok_or_else(|| Error::Untrusted("GenerateDataKey gave no ciphertext".into()))?;
        Ok((
            data_key(answer.plaintext())?,
            EncryptedDataKey::kms(&self.key, wrapped.as_ref().to_vec()),
        ))
    }

    async fn unwrap(
        &self,
        keys: &[EncryptedDataKey],
        context: &EncryptionContext,
    ) -> Result<DataKey, Error> {
        let mut refusal = Error::Denied(format!(
            "no data key of the message was wrapped by {}",
            self.key
        ));
        for wrapped in keys {
            let Some(arn) = self.ours(wrapped) else {
                continue;
            };
            let sent = self
                .client
                .decrypt()
                .key_id(&arn)
                .ciphertext_blob(Blob::new(wrapped.ciphertext.clone()))
                .set_encryption_context(Some(pairs(context)))
                .send()
                .await;
            match sent {
                Ok(answer) if answer.key_id() == Some(arn.as_str()) => {
                    return data_key(answer.plaintext());
                }
                Ok(answer) => {
                    refusal = Error::Untrusted(format!(
                        "Decrypt used the key {}, asked for was {arn}",
                        answer.key_id().unwrap_or("(none)")
                    ));
                }
                Err(failed) => refusal = error::of("Decrypt", &arn, failed),
            }
        }
        Err(refusal)
    }

    async fn rewrap(
        &self,
        key: &EncryptedDataKey,
        context: &EncryptionContext,
    ) -> Result<EncryptedDataKey, Error> {
        let arn = self.ours(key).ok_or_else(|| {
            Error::Denied(format!("the data key was not wrapped by {}", self.key))
        })?;
        let answer = self
            .client
            .re_encrypt()
            .ciphertext_blob(Blob::new(key.ciphertext.clone()))
            .source_key_id(&arn)
            .set_source_encryption_context(Some(pairs(context)))
            .destination_key_id(&self.key)
            .set_destination_encryption_context(Some(pairs(context)))
            .send()
            .await
            .map_err(|e| error::of("ReEncrypt", &arn, e))?;
        let wrapped = answer
            .ciphertext_blob()
            .ok_or_else(|| Error::Untrusted("ReEncrypt gave no ciphertext".into()))?;
        Ok(EncryptedDataKey::kms(&self.key, wrapped.as_ref().to_vec()))
    }

    async fn describe(&self) -> Result<String, Error> {
        let answer = self.client.describe_key().key_id(&self.key).send().await;
        let answer = answer.map_err(|e| error::of("DescribeKey", &self.key, e))?;
        let state = answer.key_metadata().and_then(|m| m.key_state());
        match state {
            Some(KeyState::Enabled) => Ok(self.key.clone()),
            other => Err(Error::Denied(format!(
                "the key {} is {}; it has to be Enabled",
                self.key,
                other.map_or("in no known state", KeyState::as_str)
            ))),
        }
    }

    async fn public_key(&self) -> Result<Vec<u8>, Error> {
        let Some(key) = &self.signing else {
            return Err(Error::Unsupported("a public key without a signing key"));
        };
        let answer = self.client.get_public_key().key_id(key).send().await;
        let answer = answer.map_err(|e| error::of("GetPublicKey", key, e))?;
        is_of("GetPublicKey", key, answer.key_id())?;
        let public = answer
            .public_key()
            .ok_or_else(|| Error::Untrusted("GetPublicKey gave no key".into()))?;
        Ok(public.as_ref().to_vec())
    }

    /// Signs the SHA-256 of the bytes, so that they may be longer than the 4,096 that KMS takes.
    async fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let Some(key) = &self.signing else {
            return Err(Error::Unsupported("signing without a signing key"));
        };
        let answer = self
            .client
            .sign()
            .key_id(key)
            .message(Blob::new(digest(&SHA256, bytes).as_ref()))
            .message_type(MessageType::Digest)
            .signing_algorithm(SigningAlgorithmSpec::EcdsaSha256)
            .send()
            .await
            .map_err(|e| error::of("Sign", key, e))?;
        is_of("Sign", key, answer.key_id())?;
        let signature = answer
            .signature()
            .ok_or_else(|| Error::Untrusted("Sign gave no signature".into()))?;
        Ok(signature.as_ref().to_vec())
    }
}
