//! Keys of the daemon's own data: one root key wraps data keys with ids; every ciphertext names its key and binds
//! where it stands.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::Error;
use crate::domain::model::{Digest, KeyedHasher};

const PAYLOAD: &str = "payload-1";
const DIGEST: &str = "digest-1";
const SIGNING: &str = "signing-1";

/// The root key: 32 bytes in a file outside the state folder. Without `Debug`.
pub struct RootKey(Zeroizing<[u8; 32]>);

impl RootKey {
    /// Takes the key's bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let array: [u8; 32] = bytes
            .try_into()
            .map_err(|_| Error::Crypto("a root key has 32 bytes".into()))?;
        Ok(Self(Zeroizing::new(array)))
    }

    /// Reads the key from a file that only its owner may read: 32 bytes, or 64 hexadecimal digits.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = crate::secret_file::read(path)
            .map_err(|e| Error::File(format!("the root key {}", path.display()), e))?;
        Self::parse(&bytes)
    }

    /// Reads the key, making it where there is none: for the demo and for `isoform config key`.
    pub fn read_or_make(path: &Path) -> Result<Self, Error> {
        let bytes = crate::secret_file::read_or_make(path, || {
            let key = random::<32>().map_err(std::io::Error::other)?;
            Ok(Zeroizing::new(
                crate::domain::model::hex(&key[..]).into_bytes(),
            ))
        });
        Self::parse(&bytes.map_err(|e| Error::File(format!("the root key {}", path.display()), e))?)
    }

    fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() == 32 {
            return Self::from_bytes(bytes);
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Error::Crypto("a root key has 32 bytes or 64 hexadecimal digits".into()))?
            .trim();
        Self::from_bytes(&unhex(text).ok_or_else(|| {
            Error::Crypto("a root key has 32 bytes or 64 hexadecimal digits".into())
        })?)
    }
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, Error> {
    let mut bytes = Zeroizing::new([0u8; N]);
    SystemRandom::new()
        .fill(&mut bytes[..])
        .map_err(|_| Error::Crypto("no randomness".into()))?;
    Ok(bytes)
}

pub(crate) fn unhex(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok())
        .collect::<Option<Vec<u8>>>()
        .map(Zeroizing::new)
}

/// The data keys, open. Without `Debug`.
#[derive(Clone)]
pub struct Keyring {
    payload: Arc<LessSafeKey>,
    hasher: KeyedHasher,
    signer: Arc<Ed25519KeyPair>,
    made: Vec<(String, Vec<u8>)>,
}

fn aead(key: &[u8]) -> Result<LessSafeKey, Error> {
    UnboundKey::new(&AES_256_GCM, key)
        .map(LessSafeKey::new)
        .map_err(|_| Error::Crypto("a key has the wrong length".into()))
}

fn seal(key: &LessSafeKey, name: &str, context: &str, plain: &[u8]) -> Result<Vec<u8>, Error> {
    let nonce = random::<NONCE_LEN>()?;
    // The name of the key stands in front, so that a reader knows which one to take after a rotation.
    let mut out = vec![1u8, name.len() as u8];
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&nonce[..]);
    let mut body = plain.to_vec();
    key.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(*nonce),
        Aad::from(format!("isoform|{name}|{context}")),
        &mut body,
    )
    .map_err(|_| Error::Crypto("sealing failed".into()))?;
    out.extend_from_slice(&body);
    Ok(out)
}

fn open(
    key: &LessSafeKey,
    name: &str,
    context: &str,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let bad = || {
        Error::Crypto(format!(
            "{context} cannot be opened: it was changed, or the root key is another one"
        ))
    };
    let rest = sealed
        .strip_prefix(&[1u8, name.len() as u8])
        .and_then(|r| r.strip_prefix(name.as_bytes()))
        .ok_or_else(bad)?;
    let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or_else(bad)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| bad())?;
    let mut body = Zeroizing::new(body.to_vec());
    let length = key
        .open_in_place(
            nonce,
            Aad::from(format!("isoform|{name}|{context}")),
            &mut body,
        )
        .map_err(|_| bad())?
        .len();
    body.truncate(length);
    Ok(body)
}

impl Keyring {
    /// Opens the data keys, making those that are not there yet.
    pub fn open(root: &RootKey, wrapped: &[(String, Vec<u8>)]) -> Result<Self, Error> {
        let root = aead(&root.0[..])?;
        let known: BTreeMap<&str, &[u8]> = wrapped
            .iter()
            .map(|(id, bytes)| (id.as_str(), bytes.as_slice()))
            .collect();
        let mut made = Vec::new();
        let mut one = |id: &str| -> Result<Zeroizing<Vec<u8>>, Error> {
            match known.get(id) {
                Some(bytes) => open(&root, "root", &format!("data_keys|{id}|wrapped"), bytes),
                None if wrapped.is_empty() => {
                    // In a simulation the seed decides: digests are made with a key, and a story must repeat.
                    let key = match crate::testing::seeded::<32>() {
                        Some(key) => Zeroizing::new(key.to_vec()),
                        None => Zeroizing::new(random::<32>()?.to_vec()),
                    };
                    made.push((
                        id.to_owned(),
                        seal(&root, "root", &format!("data_keys|{id}|wrapped"), &key)?,
                    ));
                    Ok(key)
                }
                None => Err(Error::Crypto(format!("the data key {id} is missing"))),
            }
        };
        let (payload, digest, signing) = (one(PAYLOAD)?, one(DIGEST)?, one(SIGNING)?);
        let signer = Ed25519KeyPair::from_seed_unchecked(&signing)
            .map_err(|_| Error::Crypto("the signing key is not valid".into()))?;
        Ok(Self {
            payload: Arc::new(aead(&payload)?),
            hasher: KeyedHasher::new(&digest),
            signer: Arc::new(signer),
            made,
        })
    }

    /// Returns keys that were made, wrapped, to be stored.
    pub(super) fn made(&self) -> Vec<(String, Vec<u8>)> {
        self.made.clone()
    }

    /// Returns the hasher for secret values.
    pub fn hasher(&self) -> &KeyedHasher {
        &self.hasher
    }

    /// Returns the public key of checkpoints, hexadecimal.
    pub fn public_key(&self) -> String {
        crate::domain::model::hex(self.signer.public_key().as_ref())
    }

    /// Signs bytes with Ed25519.
    pub fn sign(&self, bytes: &[u8]) -> String {
        crate::domain::model::hex(self.signer.sign(bytes).as_ref())
    }

    /// Checks a signature with a public key. Needs no secret.
    pub fn check(public_key: &str, bytes: &[u8], signature: &str) -> bool {
        let (Some(key), Some(signature)) = (unhex(public_key), unhex(signature)) else {
            return false;
        };
        UnparsedPublicKey::new(&ED25519, &key[..])
            .verify(bytes, &signature)
            .is_ok()
    }

    /// Checks that a sealed payload opens and is what its digest says.
    pub fn check_payload(&self, digest: &Digest, sealed: &[u8]) -> Result<(), Error> {
        let open = self.open_payload(digest, sealed)?;
        if self.hasher.digest("payload", &open) == *digest {
            Ok(())
        } else {
            Err(Error::Crypto(format!("the payload {digest} was changed")))
        }
    }

    /// Seals what stands in one column of one row, which the ciphertext names.
    pub(super) fn seal_row(&self, place: &str, plain: &[u8]) -> Result<Vec<u8>, Error> {
        seal(&self.payload, PAYLOAD, place, plain)
    }

    pub(super) fn open_row(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        open(&self.payload, PAYLOAD, place, sealed).map(|z| z.to_vec())
    }

    pub(super) fn seal_payload(&self, digest: &Digest, plain: &[u8]) -> Result<Vec<u8>, Error> {
        seal(
            &self.payload,
            PAYLOAD,
            &format!("payloads|{digest}|body"),
            plain,
        )
    }

    pub(super) fn open_payload(&self, digest: &Digest, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        open(
            &self.payload,
            PAYLOAD,
            &format!("payloads|{digest}|body"),
            sealed,
        )
        .map(|z| z.to_vec())
    }
}
