//! Looking at what isoform works with, for `isoform doctor`: what is there, who may do what, and what stands in its way.
//!
//! Reads only. What is found is not judged here.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_kms::types::{KeySpec, KeyState, KeyUsageType};
use aws_sdk_s3::types::{BucketVersioningStatus, ObjectLockEnabled, ServerSideEncryption};
use aws_sdk_sts::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_sts::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_sts::error::{BoxError, ProvideErrorMetadata};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

use super::error;
use super::session::Session;
use crate::domain::model::AccountId;
use crate::port::Error;

/// Nobody has a stack of this name: what reads it is refused, or finds nothing.
const NOBODYS: &str = "isoform-doctor-asks-and-makes-nothing";

/// Whose credentials these are, and what the other side's clock says.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The account.
    pub account: AccountId,
    /// The ARN of the user, or of the role's session.
    pub arn: String,
    /// What time it is there, in milliseconds.
    pub time: Option<i64>,
}

/// A bucket as it is. An error stands where something could not be seen.
#[derive(Debug)]
pub struct BucketFacts {
    /// Whether it is there and belongs to the owner.
    pub there: Result<(), Error>,
    /// Whether it lists.
    pub lists: Result<(), Error>,
    /// Whether it keeps versions.
    pub versions: Result<bool, Error>,
    /// Whether all four kinds of public access are blocked.
    pub blocked: Result<bool, Error>,
    /// Its default encryption, in the API's words.
    pub default: Result<Option<String>, Error>,
    /// Whether it has Object Lock.
    pub lock: Result<bool, Error>,
    /// Its policy.
    pub policy: Result<Option<String>, Error>,
}

/// A key as it is.
#[derive(Debug)]
pub struct KeyFacts {
    /// Its state, in the API's words; `Enabled` is the one that works.
    pub state: Result<String, Error>,
    /// Whether its material is renewed every year.
    pub rotates: Result<bool, Error>,
}

/// A key that signs, as it is.
#[derive(Debug)]
pub struct SigningFacts {
    /// Its state, kind and use, in the API's words.
    pub is: Result<[String; 3], Error>,
    /// Whether its public half can be read.
    pub public: Result<(), Error>,
}

#[derive(Debug, Default, Clone)]
struct Time(Arc<Mutex<Option<i64>>>);

impl Intercept for Time {
    fn name(&self) -> &'static str {
        "Time"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let time = date.and_then(|d| DateTime::from_str(d, Format::HttpDate).ok());
        let time = time.and_then(|t| t.to_millis().ok());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = time;
        Ok(())
    }
}

/// What a question about a stack of nobody says of the rights: only a refusal of the caller counts.
fn may(answer: Result<(), Error>) -> Result<(), Error> {
    match answer {
        Err(
            error @ (Error::Denied(_)
            | Error::KeyUnavailable(_)
            | Error::Unavailable(_)
            | Error::Throttled),
        ) => Err(error),
        _ => Ok(()),
    }
}

impl Session {
    /// Asks whose credentials these are.
    pub async fn caller(&self) -> Result<Caller, Error> {
        let time = Time::default();
        let answer = self
            .tokens()
            .get_caller_identity()
            .customize()
            .interceptor(time.clone())
            .send()
            .await
            .map_err(|e| error::of("GetCallerIdentity", "the caller", e))?;
        let account = answer.account().unwrap_or_default();
        let time = *time.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Caller {
            account: account
                .parse()
                .map_err(|_| Error::Untrusted(format!("`{account}` is no account")))?,
            arn: answer.arn().unwrap_or_default().to_owned(),
            time,
        })
    }

    /// Tries each call that reads stacks, and says which is refused. What writes cannot be tried without writing.
    pub async fn may_read_stacks(&self) -> Vec<(&'static str, Result<(), Error>)> {
        let client = self.stacks(false);
        let gone = |call, result: Result<(), Error>| (call, may(result));
        let list = client.list_stacks().send().await;
        let describe = client.describe_stacks().stack_name(NOBODYS).send().await;
        let events = client
            .describe_stack_events()
            .stack_name(NOBODYS)
            .send()
            .await;
        let template = client.get_template().stack_name(NOBODYS).send().await;
        let policy = client.get_stack_policy().stack_name(NOBODYS).send().await;
        let change_set = client
            .describe_change_set()
            .stack_name(NOBODYS)
            .change_set_name(NOBODYS)
            .send()
            .await;
        let change_sets = client.list_change_sets().stack_name(NOBODYS).send().await;
        vec![
            (
                "ListStacks",
                list.map(|_| ()).map_err(|e| error::of("ListStacks", "", e)),
            ),
            gone(
                "DescribeStacks",
                describe
                    .map(|_| ())
                    .map_err(|e| error::of("DescribeStacks", "", e)),
            ),
            gone(
                "DescribeStackEvents",
                events
                    .map(|_| ())
                    .map_err(|e| error::of("DescribeStackEvents", "", e)),
            ),
            gone(
                "GetTemplate",
                template
                    .map(|_| ())
                    .map_err(|e| error::of("GetTemplate", "", e)),
            ),
            gone(
                "GetStackPolicy",
                policy
                    .map(|_| ())
                    .map_err(|e| error::of("GetStackPolicy", "", e)),
            ),
            gone(
                "DescribeChangeSet",
                change_set
                    .map(|_| ())
                    .map_err(|e| error::of("DescribeChangeSet", "", e)),
            ),
            gone(
                "ListChangeSets",
                change_sets
                    .map(|_| ())
                    .map_err(|e| error::of("ListChangeSets", "", e)),
            ),
        ]
    }

    /// Looks at a bucket.
    pub async fn bucket(&self, name: &str, owner: &AccountId, prefix: &str) -> BucketFacts {
        let client = self.objects();
        let owner = owner.as_str();
        let there = client.head_bucket().bucket(name);
        let there = there.expected_bucket_owner(owner).send().await;
        let lists = client
            .list_objects_v2()
            .bucket(name)
            .expected_bucket_owner(owner)
            .prefix(prefix)
            .max_keys(1)
            .send()
            .await;
        let versions = client.get_bucket_versioning().bucket(name);
        let versions = versions.expected_bucket_owner(owner).send().await;
        let blocked = client.get_public_access_block().bucket(name);
        let blocked = blocked.expected_bucket_owner(owner).send().await;
        let default = client.get_bucket_encryption().bucket(name);
        let default = default.expected_bucket_owner(owner).send().await;
        let lock = client.get_object_lock_configuration().bucket(name);
        let lock = lock.expected_bucket_owner(owner).send().await;
        let policy = client.get_bucket_policy().bucket(name);
        let policy = policy.expected_bucket_owner(owner).send().await;
        BucketFacts {
            there: there.map(|_| ()).map_err(|e| match e.raw_response() {
                Some(r) if r.status().as_u16() == 404 => {
                    Error::NotFound(format!("the bucket {name}"))
                }
                _ => error::of("HeadBucket", name, e),
            }),
            lists: lists
                .map(|_| ())
                .map_err(|e| error::of("ListObjectsV2", name, e)),
            versions: versions
                .map(|v| v.status() == Some(&BucketVersioningStatus::Enabled))
                .map_err(|e| error::of("GetBucketVersioning", name, e)),
            blocked: match blocked {
                Ok(found) => Ok(found.public_access_block_configuration().is_some_and(|b| {
                    [
                        b.block_public_acls(),
                        b.ignore_public_acls(),
                        b.block_public_policy(),
                        b.restrict_public_buckets(),
                    ]
                    .iter()
                    .all(|on| *on == Some(true))
                })),
                Err(e) if e.code() == Some("NoSuchPublicAccessBlockConfiguration") => Ok(false),
                Err(e) => Err(error::of("GetPublicAccessBlock", name, e)),
            },
            default: match default {
                Ok(found) => Ok(found
                    .server_side_encryption_configuration()
                    .and_then(|c| c.rules().first())
                    .and_then(|r| r.apply_server_side_encryption_by_default())
                    .map(|d| ServerSideEncryption::as_str(d.sse_algorithm()).to_owned())),
                Err(e) if e.code() == Some("ServerSideEncryptionConfigurationNotFoundError") => {
                    Ok(None)
                }
                Err(e) => Err(error::of("GetBucketEncryption", name, e)),
            },
            lock: match lock {
                Ok(found) => Ok(found
                    .object_lock_configuration()
                    .and_then(|c| c.object_lock_enabled())
                    .is_some_and(|on| *on == ObjectLockEnabled::Enabled)),
                Err(e) if e.code() == Some("ObjectLockConfigurationNotFoundError") => Ok(false),
                Err(e) => Err(error::of("GetObjectLockConfiguration", name, e)),
            },
            policy: match policy {
                Ok(found) => Ok(found.policy().map(str::to_owned)),
                Err(e) if e.code() == Some("NoSuchBucketPolicy") => Ok(None),
                Err(e) => Err(error::of("GetBucketPolicy", name, e)),
            },
        }
    }

    /// Returns the key of some object below a prefix.
    pub async fn some_object(
        &self,
        bucket: &str,
        owner: &AccountId,
        prefix: &str,
    ) -> Result<Option<String>, Error> {
        let answer = self
            .objects()
            .list_objects_v2()
            .bucket(bucket)
            .expected_bucket_owner(owner.as_str())
            .prefix(prefix)
            .max_keys(1)
            .send()
            .await
            .map_err(|e| error::of("ListObjectsV2", bucket, e))?;
        let first = answer.contents().first();
        Ok(first.and_then(|o| o.key()).map(str::to_owned))
    }

    /// Reads the first byte of an object.
    pub async fn reads(&self, bucket: &str, owner: &AccountId, key: &str) -> Result<(), Error> {
        let answer = self
            .objects()
            .get_object()
            .bucket(bucket)
            .key(key)
            .expected_bucket_owner(owner.as_str())
            .range("bytes=0-0")
            .send()
            .await;
        answer
            .map(|_| ())
            .map_err(|e| error::of("GetObject", key, e))
    }

    /// Looks at a key that signs. Nothing is signed.
    pub async fn signing_key(&self, arn: &str) -> SigningFacts {
        let client = self.keys();
        let described = client.describe_key().key_id(arn).send().await;
        let public = client.get_public_key().key_id(arn).send().await;
        SigningFacts {
            is: described
                .map(|k| {
                    let meta = k.key_metadata();
                    [
                        meta.and_then(|m| m.key_state()).map(KeyState::as_str),
                        meta.and_then(|m| m.key_spec()).map(KeySpec::as_str),
                        meta.and_then(|m| m.key_usage()).map(KeyUsageType::as_str),
                    ]
                    .map(|word| word.unwrap_or("unknown").to_owned())
                })
                .map_err(|e| error::of("DescribeKey", arn, e)),
            public: public
                .map(drop)
                .map_err(|e| error::of("GetPublicKey", arn, e)),
        }
    }

    /// Looks at a key.
    pub async fn key(&self, arn: &str) -> KeyFacts {
        let client = self.keys();
        let state = client.describe_key().key_id(arn).send().await;
        let rotates = client.get_key_rotation_status().key_id(arn).send().await;
        KeyFacts {
            state: state
                .map(|k| {
                    let state = k.key_metadata().and_then(|m| m.key_state());
                    state
                        .map_or("in no known state", KeyState::as_str)
                        .to_owned()
                })
                .map_err(|e| error::of("DescribeKey", arn, e)),
            rotates: rotates
                .map(|r| r.key_rotation_enabled())
                .map_err(|e| error::of("GetKeyRotationStatus", arn, e)),
        }
    }
}
