//! The local key service: a raw AES key in the world's folder, with encryption context, and a signing key.

use std::path::Path;

use async_trait::async_trait;
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use zeroize::Zeroizing;

use super::world::{World, WorldError};
use crate::domain::audit::p256_spki;
use crate::domain::seal::{DataKey, EncryptedDataKey, EncryptionContext, RawAesKey};
use crate::port::{Error, KeyService};

/// The namespace that stands in every message sealed under a local key.
pub const NAMESPACE: &str = "isoform-local";

/// Keys of a local world.
pub struct LocalKeys {
    key: RawAesKey,
    name: String,
    signing: EcdsaKeyPair,
}

impl LocalKeys {
    /// Opens the world's key, making it where there is none.
    pub fn open(world: &World, name: &str) -> Result<Self, WorldError> {
        let broken =
            |e: &dyn std::fmt::Display| WorldError::Database(sqlx::Error::Protocol(e.to_string()));
        let path = world.folder().join(format!("{name}.key"));
        let bytes = read_or_make(&path).map_err(|source| WorldError::Folder { path, source })?;
        let key = RawAesKey::new(NAMESPACE, name, &bytes[..]).map_err(|e| broken(&e))?;
        let path = world.folder().join(format!("{name}.signing.key"));
        let seed = read_or_make(&path).map_err(|source| WorldError::Folder {
            path: path.clone(),
            source,
        })?;
        let signing = signing_pair(&seed[..]).ok_or_else(|| {
            let path = path.display();
            broken(&format!(
                "{path} holds no key on P-256: remove it, and another one is made"
            ))
        })?;
        Ok(Self {
            key,
            name: name.to_owned(),
            signing,
        })
    }
}

/// Makes a pair of 32 bytes: of those that chance gives, but one in four thousand million is a key on P-256.
fn signing_pair(private: &[u8]) -> Option<EcdsaKeyPair> {
    let public = PrivateKey::from_private_key(&ECDH_P256, private).ok()?;
    let public = public.compute_public_key().ok()?;
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    EcdsaKeyPair::from_private_key_and_public_key(algorithm, private, public.as_ref()).ok()
}

fn read_or_make(path: &Path) -> std::io::Result<Zeroizing<[u8; 32]>> {
    crate::secret_file::read_or_make(path, || {
        let mut bytes = Zeroizing::new([0u8; 32]);
        SystemRandom::new()
            .fill(&mut bytes[..])
            .map_err(|_| std::io::Error::other("no randomness"))?;
        Ok(Zeroizing::new(bytes.to_vec()))
    })
    .and_then(|bytes| {
        let array: [u8; 32] = bytes
            .as_slice()
            .try_into()
            .map_err(|_| std::io::Error::other("the key file does not hold 32 bytes"))?;
        Ok(Zeroizing::new(array))
    })
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, Error> {
    let mut bytes = Zeroizing::new([0u8; N]);
    SystemRandom::new()
        .fill(&mut bytes[..])
        .map_err(|_| Error::Unavailable("no randomness".into()))?;
    Ok(bytes)
}

#[async_trait]
impl KeyService for LocalKeys {
    async fn data_key(
        &self,
        context: &EncryptionContext,
    ) -> Result<(DataKey, EncryptedDataKey), Error> {
        let key = DataKey::new(random::<32>()?);
        let wrapped = self
            .key
            .wrap(&key, *random::<12>()?, context)
            .map_err(|e| Error::Unavailable(e.to_string()))?;
        Ok((key, wrapped))
    }

    async fn unwrap(
        &self,
        keys: &[EncryptedDataKey],
        context: &EncryptionContext,
    ) -> Result<DataKey, Error> {
        self.key
            .unwrap(keys, context)
            .map_err(|e| Error::Denied(e.to_string()))
    }

    async fn rewrap(
        &self,
        key: &EncryptedDataKey,
        context: &EncryptionContext,
    ) -> Result<EncryptedDataKey, Error> {
        let open = self.unwrap(std::slice::from_ref(key), context).await?;
        self.key
            .wrap(&open, *random::<12>()?, context)
            .map_err(|e| Error::Unavailable(e.to_string()))
    }

    async fn describe(&self) -> Result<String, Error> {
        Ok(format!("{NAMESPACE}/{}", self.name))
    }

    async fn public_key(&self) -> Result<Vec<u8>, Error> {
        Ok(p256_spki(self.signing.public_key().as_ref()))
    }

    async fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.signing.sign(&SystemRandom::new(), bytes);
        let signature = signature.map_err(|_| Error::Unavailable("signing failed".into()))?;
        Ok(signature.as_ref().to_vec())
    }
}
