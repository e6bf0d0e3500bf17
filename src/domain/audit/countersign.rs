//! The second signature of a checkpoint, by a key that never leaves its service.
//!
//! Whoever holds the state folder and its root key can sign checkpoints of a chain that he has rewritten. He cannot sign them with a
//! key of KMS for longer than he is let, and KMS keeps a record of every signature.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use super::{Checkpoint, Fault, checkpoint_bytes};
use crate::domain::model::{Timestamp, hex, unbase64, unhex};

/// A second signature over [`checkpoint_bytes`]: ECDSA on P-256 with SHA-256.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Countersignature {
    /// The name of the key: its ARN.
    pub key: String,
    /// Its public half, SubjectPublicKeyInfo in DER, hexadecimal.
    pub public_key: String,
    /// The signature, ASN.1 in DER, hexadecimal.
    pub signature: String,
}

impl Countersignature {
    /// Takes a signature of a key as its service gave both.
    pub fn new(key: &str, public_key: &[u8], signature: &[u8]) -> Self {
        Self {
            key: key.to_owned(),
            public_key: hex(public_key),
            signature: hex(signature),
        }
    }

    /// Tells whether the signature over bytes is that of the public key which stands beside it.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        let key = unhex(&self.public_key);
        let Some((key, signature)) = key.zip(unhex(&self.signature)) else {
            return false;
        };
        p256_point(&key).is_some_and(|point| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
                .verify(bytes, &signature)
                .is_ok()
        })
    }
}

/// What stands before the point of every public key on P-256 (RFC 5480, uncompressed).
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Returns the point of a public key on P-256, or nothing where it is any other key.
pub fn p256_point(spki: &[u8]) -> Option<&[u8]> {
    let point = spki.strip_prefix(P256)?;
    (point.len() == 65 && point[0] == 4).then_some(point)
}

/// Writes the public key of a point on P-256.
pub fn p256_spki(point: &[u8]) -> Vec<u8> {
    [P256, point].concat()
}

/// Reads a public key on P-256 as people keep it: PEM, DER or hexadecimal. Returns it as a checkpoint has it.
pub fn read_public_key(given: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(given).ok().map(str::trim);
    let from_text = text.and_then(
        |text| match text.strip_prefix("-----BEGIN PUBLIC KEY-----") {
            Some(rest) => unbase64(rest.split_once("-----END PUBLIC KEY-----")?.0),
            None => unhex(text),
        },
    );
    let spki = from_text.unwrap_or_else(|| given.to_vec());
    p256_point(&spki).map(|_| hex(&spki))
}

/// How far a key of a service vouches for the chain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Vouched {
    /// The name of the key.
    pub key: String,
    /// Its public half, hexadecimal.
    pub public_key: String,
    /// The last entry that it vouches for, and with it every entry before.
    pub to: u64,
    /// When that checkpoint was made.
    pub at: Timestamp,
}

/// Verifies the countersignatures of checkpoints that hold against their chain, and tells how far each key vouches.
///
/// `trusted` are the public keys that the reader trusts, hexadecimal. Without any, the keys are those that the checkpoints name:
/// then only a change of them is seen.
pub fn verify_countersigned(
    checkpoints: &[Checkpoint],
    trusted: &[String],
) -> Result<Vec<Vouched>, Fault> {
    let mut signed: Vec<(&Checkpoint, &Countersignature)> = checkpoints
        .iter()
        .filter_map(|c| Some((c, c.countersigned.as_ref()?)))
        .collect();
    signed.sort_by_key(|(c, _)| c.seq);
    let mut known: BTreeMap<&str, &str> = BTreeMap::new();
    let mut vouched: BTreeMap<&str, Vouched> = BTreeMap::new();
    let mut foreign = None;
    for (c, by) in signed {
        let (seq, key) = (c.seq, by.key.clone());
        if *known.entry(&by.key).or_insert(&by.public_key) != by.public_key {
            return Err(Fault::Swapped { seq, key });
        }
        if !by.holds(&checkpoint_bytes(&c.log, c.seq, &c.hash, c.at)) {
            return Err(Fault::Countersignature { seq, key });
        }
        if !trusted.is_empty() && !trusted.contains(&by.public_key) {
            foreign = Some((seq, key));
            continue;
        }
        let this = Vouched {
            key,
            public_key: by.public_key.clone(),
            to: seq,
            at: c.at,
        };
        vouched.insert(&by.key, this);
    }
    let reached = vouched.values().map(|v| v.to).max();
    // What a key that was given up has signed lies before what the trusted one vouches for anyway.
    if let Some((seq, key)) = foreign.filter(|(seq, _)| reached.is_none_or(|to| to < *seq)) {
        return Err(Fault::Foreign { seq, key });
    }
    if !trusted.is_empty() && reached.is_none() {
        return Err(Fault::Uncountersigned);
    }
    Ok(vouched.into_values().collect())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;

    struct Signer {
        name: &'static str,
        pair: EcdsaKeyPair,
    }

    fn signer(name: &'static str) -> Signer {
        Signer {
            name,
            pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap(),
        }
    }

    impl Signer {
        fn public(&self) -> String {
            hex(&p256_spki(self.pair.public_key().as_ref()))
        }

        fn signs(&self, seq: u64) -> Checkpoint {
            let (at, hash) = (Timestamp(seq as i64), format!("h{seq}"));
            let bytes = checkpoint_bytes("l", seq, &hash, at);
            let signature = self.pair.sign(&SystemRandom::new(), &bytes).unwrap();
            Checkpoint {
                log: "l".into(),
                seq,
                hash,
                at,
                signature: String::new(),
                countersigned: Some(Countersignature {
                    key: self.name.into(),
                    public_key: self.public(),
                    signature: hex(signature.as_ref()),
                }),
            }
        }
    }

    fn alone(seq: u64) -> Checkpoint {
        Checkpoint {
            countersigned: None,
            ..signer("nobody").signs(seq)
        }
    }

    fn reached(vouched: &[Vouched]) -> Vec<(&str, u64)> {
        vouched.iter().map(|v| (v.key.as_str(), v.to)).collect()
    }

    #[test]
    fn each_key_vouches_as_far_as_it_has_signed() {
        let (old, new) = (signer("a"), signer("b"));
        let log = [
            alone(1),
            new.signs(40),
            old.signs(10),
            old.signs(20),
            alone(50),
        ];

        let all = verify_countersigned(&log, &[]).unwrap();
        assert_eq!(reached(&all), [("a", 20), ("b", 40)]);
        assert_eq!(all[1].public_key, new.public());
        let by_new = verify_countersigned(&log, &[new.public()]).unwrap();
        assert_eq!(reached(&by_new), [("b", 40)]);
        let both = verify_countersigned(&log, &[old.public(), new.public()]).unwrap();
        assert_eq!(reached(&both), [("a", 20), ("b", 40)]);
        // Checkpoints from before there was a key.
        assert_eq!(verify_countersigned(&[alone(1)], &[]), Ok(Vec::new()));
    }

    #[test]
    fn sec_57_every_fault_of_a_countersignature_is_named() {
        let (ours, other) = (signer("k"), signer("k"));
        let named = |seq| (seq, "k".to_owned());
        let edited = |edit: &dyn Fn(&mut Checkpoint)| {
            let mut checkpoint = ours.signs(20);
            edit(&mut checkpoint);
            checkpoint
        };
        let by = |c: &mut Checkpoint, f: &dyn Fn(&mut Countersignature)| {
            f(c.countersigned.as_mut().unwrap());
        };
        let wrong = [
            edited(&|c| c.hash = "another".into()),
            edited(&|c| c.log = "another".into()),
            edited(&|c| c.at = Timestamp(0)),
            edited(&|c| by(c, &|s| s.signature = "00".into())),
            edited(&|c| by(c, &|s| s.signature = "é".into())),
            edited(&|c| by(c, &|s| s.signature.clear())),
        ];
        for checkpoint in wrong {
            let (seq, key) = named(20);
            let log = [ours.signs(10), checkpoint];
            assert_eq!(
                verify_countersigned(&log, &[]),
                Err(Fault::Countersignature { seq, key })
            );
        }
        // The same name with another key: somebody signs in its place.
        let (seq, key) = named(30);
        let log = [ours.signs(10), ours.signs(20), other.signs(30)];
        for trusted in [vec![], vec![ours.public()], vec![other.public()]] {
            let fault = Fault::Swapped {
                seq,
                key: key.clone(),
            };
            assert_eq!(verify_countersigned(&log, &trusted), Err(fault));
        }
        // A key that the reader does not trust has signed last, or alone.
        let stranger = signer("s");
        let log = [ours.signs(10), stranger.signs(20)];
        let fault = Fault::Foreign {
            seq: 20,
            key: "s".into(),
        };
        assert_eq!(
            verify_countersigned(&log, &[ours.public()]),
            Err(fault.clone())
        );
        assert_eq!(
            verify_countersigned(&log[1..], &[ours.public()]),
            Err(fault)
        );
        // All of them were taken away.
        assert_eq!(
            verify_countersigned(&[alone(10)], &[ours.public()]),
            Err(Fault::Uncountersigned)
        );
    }

    #[test]
    fn a_public_key_is_read_as_people_keep_it() {
        let key = signer("k").public();
        let der = unhex(&key).unwrap();
        let pem = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEAAECAwQFBgcICQoLDA0ODxAREhMU\nFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==\n-----END PUBLIC KEY-----\n";

        assert_eq!(read_public_key(&der), Some(key.clone()));
        let shouted = format!("  {}\n", key.to_uppercase());
        assert_eq!(read_public_key(shouted.as_bytes()), Some(key.clone()));
        let point: Vec<u8> = std::iter::once(4).chain(0..64).collect();
        assert_eq!(
            read_public_key(pem.as_bytes()),
            Some(hex(&p256_spki(&point)))
        );
        let cut = &key.as_bytes()[..key.len() - 2];
        let unended = pem.replace("-----END", "");
        for bad in [
            b"".as_slice(),
            b"no key",
            &der[1..],
            cut,
            unended.as_bytes(),
            b"-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----",
        ] {
            assert_eq!(read_public_key(bad), None, "{bad:?}");
        }
    }
}
