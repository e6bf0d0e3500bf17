//! The object port on S3.
//!
//! Every call names the account that the bucket must belong to, so that a name that somebody else took over is refused.
//! Encryption at rest is asked for on every put and looked at in every answer: what is not encrypted as asked is no success,
//! and what is read without it is not read.

use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ObjectLockLegalHoldStatus, ObjectLockMode,
    ServerSideEncryption,
};
use aws_smithy_types::timeout::TimeoutConfig;
use tokio::io::AsyncReadExt;

use super::error;
use super::session::{ATTEMPT, Session};
use crate::domain::model::{AccountId, Region};
use crate::port::{Body, Encryption, Error, ObjectMeta, ObjectStore, Page, Put};

/// The largest object: it is held in memory while its checksum is taken, and goes in one call.
const LARGEST: u64 = 256 << 20;
/// The slowest line that an object goes over, in bytes a second.
const SLOWEST: u64 = 32 << 10;

/// A bucket, and how objects lie in it.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What stands before every key, without a slash at either end; may be empty.
    pub prefix: String,
    /// The account that it belongs to.
    pub owner: AccountId,
    /// Its region.
    pub region: Region,
    /// Encryption at rest where a put asks for the store's own.
    pub at_rest: Encryption,
    /// ARNs of keys that objects were encrypted under before.
    pub former_keys: Vec<String>,
}

/// Objects in a bucket.
pub struct S3Objects {
    client: Client,
    bucket: Bucket,
}

impl S3Objects {
    /// Opens a bucket.
    pub fn new(session: &Session, bucket: Bucket) -> Self {
        Self {
            client: session.objects(),
            bucket,
        }
    }

    /// Deletes one version of an object, and leaves no marker.
    pub async fn delete_version(&self, key: &str, version: &str) -> Result<(), Error> {
        self.client
            .delete_object()
            .bucket(&self.bucket.name)
            .key(self.full(key))
            .expected_bucket_owner(self.bucket.owner.as_str())
            .version_id(version)
            .send()
            .await
            .map(|_| ())
            .map_err(|e| error::of("DeleteObject", key, e))
    }

    fn full(&self, key: &str) -> String {
        if self.bucket.prefix.is_empty() {
            key.to_owned()
        } else {
            format!("{}/{key}", self.bucket.prefix)
        }
    }

    fn short<'a>(&self, full: &'a str) -> Option<&'a str> {
        if self.bucket.prefix.is_empty() {
            return Some(full);
        }
        full.strip_prefix(self.bucket.prefix.as_str())?
            .strip_prefix('/')
    }

    /// What is read must be encrypted as the store is configured, or was before.
    fn readable(&self, key: &str, found: Option<Encryption>) -> Result<Encryption, Error> {
        let found = found.ok_or_else(|| {
            Error::Untrusted(format!(
                "{key} is not encrypted at rest, or the store does not say so"
            ))
        })?;
        let expected = match (&self.bucket.at_rest, &found) {
            (Encryption::Store, Encryption::Store) => true,
            (Encryption::Key(_), Encryption::Store) => false,
            (ours, Encryption::Key(found)) => {
                matches!(ours, Encryption::Key(key) if key == found)
                    || self.bucket.former_keys.contains(found)
            }
        };
        if expected {
            return Ok(found);
        }
        Err(Error::Untrusted(format!(
            "{key} is encrypted at rest under {}, and not under the key of this store",
            match &found {
                Encryption::Store => "the store's own key",
                Encryption::Key(other) => other,
            }
        )))
    }

    /// Says of a refusal of a call that reads what has to be allowed, and on what.
    fn explained(&self, key: &str, error: Error) -> Error {
        let Bucket { name, .. } = &self.bucket;
        let (partition, _) = self.bucket.region.partition();
        match error {
            Error::Denied(said) => Error::Denied(format!(
                "{said}; allow s3:GetObject on arn:{partition}:s3:::{name}/{}, and see that the bucket belongs to {}",
                self.full(key),
                self.bucket.owner
            )),
            Error::KeyUnavailable(said) => {
                let ours = match &self.bucket.at_rest {
                    Encryption::Key(arn) => format!("; the key of s3://{name} is {arn}"),
                    Encryption::Store => String::new(),
                };
                Error::KeyUnavailable(format!("{said}{ours}"))
            }
            other => other,
        }
    }

    /// Makes sure that the bucket is there. A missing object and a missing bucket look the same to HeadObject.
    async fn bucket_is_there(&self) -> Result<(), Error> {
        let sent = self
            .client
            .head_bucket()
            .bucket(&self.bucket.name)
            .expected_bucket_owner(self.bucket.owner.as_str())
            .send()
            .await;
        let Err(failed) = sent else {
            return Ok(());
        };
        let name = &self.bucket.name;
        Err(match status(&failed) {
            Some(404) => Error::Refused(format!("the bucket {name} does not exist")),
            Some(301) => Error::Refused(format!(
                "the bucket {name} is in {}, and not in {}",
                failed
                    .raw_response()
                    .and_then(|r| r.headers().get("x-amz-bucket-region"))
                    .unwrap_or("another region"),
                self.bucket.region
            )),
            // An answer to HEAD has no body, and so no code: what 400 means is not known.
            Some(400) => Error::Unavailable(format!("HeadBucket {name}: HTTP 400")),
            _ => error::of("HeadBucket", name, failed),
        })
    }

    /// Asks with a call that has a body in its answer why HeadObject was refused.
    async fn why_not(&self, key: &str) -> Error {
        let sent = self
            .client
            .get_object()
            .bucket(&self.bucket.name)
            .key(self.full(key))
            .expected_bucket_owner(self.bucket.owner.as_str())
            .range("bytes=0-0")
            .send()
            .await;
        match sent {
            Ok(_) => Error::Unavailable(format!("HeadObject {key}: HTTP 400, and GetObject works")),
            Err(failed) => match error::of("GetObject", key, failed) {
                // It went in between: the next look tells.
                Error::NotFound(_) => Error::Unavailable(format!("HeadObject {key}: HTTP 400")),
                other => other,
            },
        }
    }
}

fn status<E>(failed: &SdkError<E, HttpResponse>) -> Option<u16> {
    failed.raw_response().map(|r| r.status().as_u16())
}

/// What an answer says of encryption at rest; absent where it says nothing.
fn at_rest(algorithm: Option<&ServerSideEncryption>, key: Option<&str>) -> Option<Encryption> {
    match algorithm? {
        ServerSideEncryption::Aes256 => Some(Encryption::Store),
        ServerSideEncryption::AwsKms | ServerSideEncryption::AwsKmsDsse => {
            key.map(|k| Encryption::Key(k.to_owned()))
        }
        _ => None,
    }
}

/// A bucket without versions says `null`, or nothing.
fn version(id: Option<&str>) -> Option<String> {
    id.filter(|v| *v != "null").map(str::to_owned)
}

fn bare(tag: Option<&str>) -> String {
    tag.unwrap_or_default().trim_matches('"').to_owned()
}

fn base64(hex: &str) -> Option<String> {
    use aws_smithy_types::base64::encode;
    let bytes: Option<Vec<u8>> = (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(hex.get(2 * i..2 * i + 2)?, 16).ok())
        .collect();
    bytes.map(encode)
}

fn hex(base64: Option<&str>) -> Option<String> {
    // A checksum of several parts ends in `-<parts>` and is none of the bytes.
    let bytes = aws_smithy_types::base64::decode(base64?).ok()?;
    (bytes.len() == 32).then(|| bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// How long one attempt to put so many bytes may take: it must get on, and need not be fast.
///
/// The read timeout of the SDK begins with the request, so it would end every upload that takes longer. An upload that
/// stands still is ended by the SDK's protection from stalled streams.
fn upload_time(bytes: u64) -> Duration {
    ATTEMPT + Duration::from_secs(bytes / SLOWEST)
}

async fn whole(mut stream: Body) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    (&mut stream)
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(|e| Error::Unavailable(e.to_string()))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::Refused("the object is too large".into()));
    }
    Ok(bytes)
}

/// Escapes a key for a URL; slashes stay.
fn escaped(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[async_trait]
impl ObjectStore for S3Objects {
    async fn put(&self, key: &str, stream: Body, options: &Put) -> Result<ObjectMeta, Error> {
        if key.is_empty() || self.full(key).len() > 1024 {
            return Err(Error::Refused("a key has 1 to 1,024 bytes".into()));
        }
        let bytes = whole(stream).await?;
        let size = bytes.len() as u64;
        let sha256: String = digest(&SHA256, &bytes)
            .as_ref()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        if options.sha256.as_ref().is_some_and(|g| *g != sha256) {
            return Err(Error::Refused(
                "the body does not have the checksum that was given".into(),
            ));
        }
        let wanted = match &options.encryption {
            Encryption::Store => self.bucket.at_rest.clone(),
            given @ Encryption::Key(_) => given.clone(),
        };
        let mut call = self
            .client
            .put_object()
            .bucket(&self.bucket.name)
            .key(self.full(key))
            .expected_bucket_owner(self.bucket.owner.as_str())
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .set_checksum_sha256(base64(&sha256))
            .set_metadata(Some(options.metadata.clone().into_iter().collect()))
            .body(ByteStream::from(bytes));
        call = match &wanted {
            Encryption::Store => call.server_side_encryption(ServerSideEncryption::Aes256),
            Encryption::Key(arn) => call
                .server_side_encryption(ServerSideEncryption::AwsKms)
                .ssekms_key_id(arn)
                .bucket_key_enabled(true),
        };
        if options.if_absent {
            call = call.if_none_match("*");
        }
        if let Some(tag) = &options.if_match {
            call = call.if_match(format!("\"{tag}\""));
        }
        if let Some(until) = options.retain_until {
            call = call
                .object_lock_mode(if options.governed {
                    ObjectLockMode::Governance
                } else {
                    ObjectLockMode::Compliance
                })
                .object_lock_retain_until_date(DateTime::from_millis(until.0));
        }
        if options.legal_hold {
            call = call.object_lock_legal_hold_status(ObjectLockLegalHoldStatus::On);
        }
        let locked = options.legal_hold || options.retain_until.is_some();
        let time = TimeoutConfig::builder()
            .disable_read_timeout()
            .operation_attempt_timeout(upload_time(size))
            .build();
        let longer = aws_sdk_s3::config::Builder::new().timeout_config(time);
        let sent = call.customize().config_override(longer).send().await;
        let answer = match sent.map_err(|e| error::of("PutObject", key, e)) {
            Ok(answer) => answer,
            Err(Error::Exists(what)) if options.if_absent => {
                // Whoever put it may not have asked for encryption: what is taken for ours is looked at like ours.
                return Err(match self.head(key).await? {
                    Some(_) => Error::Exists(what),
                    None => Error::Busy(format!("{key} was there and is gone")),
                });
            }
            Err(Error::Refused(said)) if locked => {
                return Err(Error::Refused(format!(
                    "{said}; `object_lock` asks for it: the bucket {} must have Object Lock, which `isoform doctor` looks at",
                    self.bucket.name
                )));
            }
            Err(other) => return Err(other),
        };
        let found = at_rest(answer.server_side_encryption(), answer.ssekms_key_id());
        if found.as_ref() != Some(&wanted) {
            // Nothing stays that is not encrypted as asked; the refusal stands whether or not this works.
            let _ = self
                .client
                .delete_object()
                .bucket(&self.bucket.name)
                .key(self.full(key))
                .expected_bucket_owner(self.bucket.owner.as_str())
                .set_version_id(version(answer.version_id()))
                .send()
                .await;
            return Err(Error::Untrusted(format!(
                "{key} was not encrypted at rest as asked: the store says {found:?}"
            )));
        }
        Ok(ObjectMeta {
            key: key.to_owned(),
            version: version(answer.version_id()),
            etag: bare(answer.e_tag()),
            size,
            sha256: hex(answer.checksum_sha256()),
            encryption: Some(wanted),
            metadata: options.metadata.clone(),
        })
    }

    async fn get(&self, key: &str, version_id: Option<&str>) -> Result<(ObjectMeta, Body), Error> {
        let answer = self
            .client
            .get_object()
            .bucket(&self.bucket.name)
            .key(self.full(key))
            .expected_bucket_owner(self.bucket.owner.as_str())
            .set_version_id(version_id.map(str::to_owned))
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await
            .map_err(|e| self.explained(key, error::of("GetObject", key, e)))?;
        let found = at_rest(answer.server_side_encryption(), answer.ssekms_key_id());
        let size = answer
            .content_length()
            .and_then(|l| u64::try_from(l).ok())
            .ok_or_else(|| Error::Untrusted(format!("{key} has no length")))?;
        let meta = ObjectMeta {
            key: key.to_owned(),
            version: version(answer.version_id()),
            etag: bare(answer.e_tag()),
            size,
            sha256: hex(answer.checksum_sha256()),
            encryption: Some(self.readable(key, found)?),
            metadata: answer
                .metadata()
                .cloned()
                .unwrap_or_default()
                .into_iter()
                .collect(),
        };
        Ok((meta, Box::new(answer.body.into_async_read())))
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, Error> {
        let sent = self
            .client
            .head_object()
            .bucket(&self.bucket.name)
            .key(self.full(key))
            .expected_bucket_owner(self.bucket.owner.as_str())
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await;
        let answer = match sent {
            Ok(answer) => answer,
            Err(failed) if status(&failed) == Some(404) => {
                return self.bucket_is_there().await.map(|()| None);
            }
            Err(failed) if status(&failed) == Some(400) => return Err(self.why_not(key).await),
            Err(failed) => return Err(error::of("HeadObject", key, failed)),
        };
        let found = at_rest(answer.server_side_encryption(), answer.ssekms_key_id());
        Ok(Some(ObjectMeta {
            key: key.to_owned(),
            version: version(answer.version_id()),
            etag: bare(answer.e_tag()),
            size: answer
                .content_length()
                .and_then(|l| u64::try_from(l).ok())
                .unwrap_or_default(),
            sha256: hex(answer.checksum_sha256()),
            encryption: Some(self.readable(key, found)?),
            metadata: answer
                .metadata()
                .cloned()
                .unwrap_or_default()
                .into_iter()
                .collect(),
        }))
    }

    async fn list(&self, prefix: &str, token: Option<&str>) -> Result<Page<ObjectMeta>, Error> {
        let answer = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket.name)
            .prefix(self.full(prefix))
            .expected_bucket_owner(self.bucket.owner.as_str())
            .set_continuation_token(token.map(str::to_owned))
            .send()
            .await
            .map_err(|e| match error::of("ListObjectsV2", &self.bucket.name, e) {
                Error::Denied(said) => {
                    let (partition, _) = self.bucket.region.partition();
                    Error::Denied(format!(
                        "{said}; allow s3:ListBucket on arn:{partition}:s3:::{}, and see that the bucket belongs to {}",
                        self.bucket.name, self.bucket.owner
                    ))
                }
                other => other,
            })?;
        let mut items = Vec::new();
        for object in answer.contents() {
            let full = object.key().unwrap_or_default();
            let Some(key) = self.short(full) else {
                return Err(Error::Untrusted(format!(
                    "{full} was listed and does not begin with the prefix"
                )));
            };
            items.push(ObjectMeta {
                key: key.to_owned(),
                version: None,
                etag: bare(object.e_tag()),
                size: object
                    .size()
                    .and_then(|s| u64::try_from(s).ok())
                    .unwrap_or_default(),
                sha256: None,
                encryption: None,
                metadata: Default::default(),
            });
        }
        let next = answer.next_continuation_token().map(str::to_owned);
        if answer.is_truncated() == Some(true) && next.is_none() {
            return Err(Error::Untrusted(
                "a listing goes on and does not say where".into(),
            ));
        }
        Ok(Page {
            items,
            next: next.filter(|_| answer.is_truncated() == Some(true)),
        })
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.client
            .delete_object()
            .bucket(&self.bucket.name)
            .key(self.full(key))
            .expected_bucket_owner(self.bucket.owner.as_str())
            .send()
            .await
            .map(|_| ())
            .map_err(|e| error::of("DeleteObject", key, e))
    }

    /// The bucket stands in the path, so that its name may hold dots; CloudFormation takes no other host than Amazon's.
    fn url(&self, key: &str, version: Option<&str>) -> String {
        let (_, end) = self.bucket.region.partition();
        let version = version
            .map(|v| format!("?versionId={}", escaped(v)))
            .unwrap_or_default();
        format!(
            "https://s3.{}.{end}/{}/{}{version}",
            self.bucket.region,
            self.bucket.name,
            escaped(&self.full(key))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_written_in_two_ways() {
        let zeros = "00".repeat(32);
        let written = base64(&zeros).unwrap();
        assert_eq!(hex(Some(&written)), Some(zeros));
        assert_eq!(hex(Some("AAAA-2")), None);
        assert_eq!(base64("zz"), None);
    }

    #[test]
    fn a_key_is_escaped_for_a_url() {
        assert_eq!(escaped("a/b c+é"), "a/b%20c%2B%C3%A9");
    }

    #[test]
    fn an_answer_that_says_nothing_of_encryption_is_no_encryption() {
        use ServerSideEncryption as S;
        assert_eq!(at_rest(None, None), None);
        assert_eq!(at_rest(Some(&S::Aes256), None), Some(Encryption::Store));
        assert_eq!(at_rest(Some(&S::AwsKms), None), None);
        assert_eq!(
            at_rest(Some(&S::AwsKms), Some("k")),
            Some(Encryption::Key("k".into()))
        );
    }
}
