//! Digests, keyed digests and the one canonical form of JSON.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use serde::{Deserialize, Serialize};

/// A digest with the prefix that names what it was taken over, such as `d1:88fa…`.
///
/// Two digests are comparable only when their prefixes are equal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Digest(Arc<str>);

impl From<String> for Digest {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0.as_ref().to_owned()
    }
}

impl Digest {
    /// Hashes bytes with SHA-256 under a prefix.
    pub fn of(prefix: &str, bytes: &[u8]) -> Self {
        Self(format!("{prefix}:{}", sha256_hex(bytes)).into())
    }

    /// Returns the digest with its prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the hexadecimal part.
    pub fn hex(&self) -> &str {
        self.0.rsplit(':').next().unwrap_or_default()
    }

    /// Returns the prefix before the colon.
    pub fn prefix(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    /// Returns the first `n` hexadecimal digits, for names and for people.
    pub fn short(&self, n: usize) -> &str {
        self.hex().get(..n).unwrap_or(self.hex())
    }
}

impl std::str::FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((prefix, hex))
                if !prefix.is_empty()
                    && prefix.bytes().all(|b| b.is_ascii_alphanumeric())
                    && hex.len() == 64
                    && hex
                        .bytes()
                        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) =>
            {
                Ok(Self(text.into()))
            }
            _ => Err(format!("`{}` is not a digest", text.escape_debug())),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns SHA-256 in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Tells whether a text is the SHA-256 of bytes in lower-case hexadecimal.
pub fn is_sha256_hex(text: &str, bytes: &[u8]) -> bool {
    let digest = digest::digest(&digest::SHA256, bytes);
    let (text, digest) = (text.as_bytes(), digest.as_ref());
    text.len() == 2 * digest.len()
        && text.chunks_exact(2).zip(digest).all(|(pair, byte)| {
            pair == [
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]
        })
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| DIGITS[usize::from(n)];
    let text: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect();
    String::from_utf8(text).unwrap_or_default()
}

/// Writes JSON as RFC 8785 says: one value, one spelling.
///
/// What has no spelling, such as a float that is not finite, is written as `serde_json` writes it: no [`serde_json::Value`]
/// and no entry of the log can hold it.
pub fn canonical_json<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    match super::canonical_into(value, &mut out) {
        Ok(()) => out,
        Err(_) => serde_json::to_vec(value).unwrap_or_default(),
    }
}

/// Hashes secret values under the installation's key, so that a digest of them tells nothing.
///
/// HMAC-SHA-256, RFC 2104. Without `Debug`: it holds a key.
#[derive(Clone)]
pub struct KeyedHasher(hmac::Key);

impl KeyedHasher {
    /// Makes a hasher from key bytes.
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Returns the keyed digest of `bytes` within `domain`, under the prefix `h1`.
    pub fn digest(&self, domain: &str, bytes: &[u8]) -> Digest {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(domain.as_bytes());
        context.update(&[0]);
        context.update(bytes);
        Digest(format!("h1:{}", hex(context.sign().as_ref())).into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_digest_is_known_by_its_text() {
        let text = sha256_hex(b"x");
        assert!(is_sha256_hex(&text, b"x"));
        for wrong in [
            sha256_hex(b"y"),
            text.to_uppercase(),
            text[..62].to_owned(),
            format!("{text}00"),
            String::new(),
        ] {
            assert!(!is_sha256_hex(&wrong, b"x"), "{wrong}");
        }
    }

    #[test]
    fn canonical_json_has_one_spelling() {
        let a: Value = serde_json::from_str(r#"{"b":1,"a":"\u00e9"}"#).unwrap();
        assert_eq!(canonical_json(&a), "{\"a\":\"é\",\"b\":1}".as_bytes());
    }

    #[test]
    fn a_keyed_digest_depends_on_key_and_domain() {
        let hasher = KeyedHasher::new(b"k");
        assert_ne!(hasher.digest("a", b"x"), hasher.digest("b", b"x"));
        assert_ne!(
            hasher.digest("a", b"x"),
            KeyedHasher::new(b"l").digest("a", b"x")
        );
        assert_eq!(hasher.digest("a", b"x"), hasher.digest("a", b"x"));
    }
}
