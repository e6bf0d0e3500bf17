//! AWS as an emulator plays it: the real adapters, pointed at an endpoint on this machine.
//!
//! `./tests/run` installs the emulators and starts them; without its variables the cases are skipped. Where an emulator is not
//! as AWS is, `differences.txt` says so, and why. A case on that table has to fail as it says: one that holds has to go from it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use isoform::aws::{
    Aws, AwsVersions, Bucket, KmsKeys, Place, Reach, Role, S3Objects, Session, Stacks,
};
use isoform::clock::Clock;
use isoform::domain::cfn::{Keeper, Reference};
use isoform::domain::model::{AccountId, Region, Timestamp};
use isoform::port::{Encryption, KeyService, ObjectStore, Put, StackEngine, Versions, body};
use serde_json::Value;

use crate::harness::{During, HEARD, Harness, Heard};

/// A case that goes on for this long hangs. Operations of the emulators take less than a second.
const HANGS: Duration = Duration::from_secs(40);
const REGION: &str = "eu-west-1";

type Run = fn(Arc<Emulated>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs a case on an emulator and holds what comes of it against the table.
pub async fn judge(emulator: &'static str, room: &'static str, case: &'static str, run: Run) {
    let variable = format!("ISOFORM_{}", emulator.to_uppercase());
    let Some(endpoint) = std::env::var(&variable).ok().filter(|v| !v.is_empty()) else {
        static TOLD: Once = Once::new();
        TOLD.call_once(|| println!("SKIP contract_on_{emulator}: {variable} does not say where it is; ./tests/run starts it"));
        return;
    };
    keep_quiet();
    let heard = Arc::new(Heard::default());
    let world = Arc::new(Emulated::fresh(&endpoint, room).await);
    let case_ends = tokio::time::timeout(HANGS, run(world));
    let (outcome, why) = match tokio::spawn(HEARD.scope(heard.clone(), case_ends)).await {
        Ok(Ok(())) if heard.left.load(Ordering::Relaxed) => ("left", String::new()),
        Ok(Ok(())) => ("holds", String::new()),
        Ok(Err(_)) => ("fails", "it does not end".to_owned()),
        Err(_) => {
            let why = heard.panic.lock().unwrap().take().unwrap_or_default();
            // A case fails where it expects something: a panic of an adapter is never as told.
            let own = why.starts_with("tests/contract/");
            (if own { "fails" } else { "breaks" }, why)
        }
    };

    let expected = expected(emulator, room, case);
    let as_told = expected.split(',').any(|word| word == outcome);
    if !as_told {
        let why = why.replace('\n', " ");
        println!("DIFFERS {emulator} | {room}::{case} | {outcome} | {why}");
    }

    assert!(
        as_told,
        "{room}::{case} on {emulator}: {outcome}, and tests/contract/differences.txt expects {expected}. {why}"
    );
}

/// Keeps the panic of a case for its judge instead of printing it: most of them are expected, and hundreds of backtraces hide
/// the one that is not. Every other panic is printed as always.
fn keep_quiet() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map(ToString::to_string);
            let text = panic.payload_as_str().unwrap_or_default();
            let said = format!("{}: {text}", place.unwrap_or_default());
            let kept = HEARD.try_with(|heard| *heard.panic.lock().unwrap() = Some(said));
            if kept.is_err() {
                loud(panic);
            }
        }));
    });
}

/// Rows of the table: emulator (or `*`), case, what comes out, why.
fn rows() -> impl Iterator<Item = [&'static str; 4]> {
    include_str!("differences.txt")
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(|line| {
            let cells: Vec<&str> = line.splitn(4, " | ").map(str::trim).collect();
            cells
                .try_into()
                .unwrap_or_else(|_| panic!("four cells: {line}"))
        })
}

fn expected(emulator: &str, room: &str, case: &str) -> &'static str {
    rows()
        .find(|[on, name, ..]| {
            (*on == emulator || *on == "*") && name.split_once("::") == Some((room, case))
        })
        .map_or("holds", |[_, _, what, _]| what)
}

#[test]
fn every_row_of_the_table_is_about_a_case() {
    for [emulator, name, what, why] in rows() {
        assert!(["*", "moto", "ministack", "localemu"].contains(&emulator));
        for word in what.split(',') {
            assert!(["fails", "left", "holds"].contains(&word), "{name}: {what}");
        }
        assert_ne!(what, "holds", "{name}: what holds needs no row");
        assert!(!why.is_empty(), "{name}: say why");
        let known = crate::CASES
            .iter()
            .any(|(room, case, _)| name.split_once("::") == Some((room, case)));
        assert!(known, "{name} is no case");
    }
}

/// A fresh account of an emulator.
pub struct Emulated {
    engine: Arc<Stacks>,
    store: Arc<S3Objects>,
    templates: S3Objects,
    keys: Option<Arc<KmsKeys>>,
    raw: aws_sdk_cloudformation::Client,
    versions: Arc<AwsVersions>,
    config: aws_config::SdkConfig,
    turn: AtomicU64,
}

/// A number that no other case has, in this run or in one before it.
fn unique() -> u64 {
    static TURN: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_micros() as u64 * 64 + TURN.fetch_add(1, Ordering::Relaxed) % 64
}

impl Emulated {
    async fn fresh(endpoint: &str, room: &str) -> Self {
        let account: AccountId = format!("{:012}", unique() % 1_000_000_000_000)
            .parse()
            .unwrap();
        let region: Region = REGION.parse().unwrap();
        let reach = Reach {
            endpoint: Some(endpoint.to_owned()),
            session: "isoform-tests".into(),
            ..Reach::default()
        };
        let role = Role {
            arn: format!("arn:aws:iam::{account}:role/isoform-apply"),
            external_id: Some("an-external-id".into()),
        };
        let session = Aws::connect(reach).await.session(&region, &[role]).await;
        let config = session.config();
        let name = format!("isoform-{account}");
        let place = aws_sdk_s3::types::BucketLocationConstraint::from(REGION);
        let configuration = aws_sdk_s3::types::CreateBucketConfiguration::builder()
            .location_constraint(place)
            .build();
        let s3 = aws_sdk_s3::config::Builder::from(config).force_path_style(true);
        aws_sdk_s3::Client::from_conf(s3.build())
            .create_bucket()
            .bucket(&name)
            .object_lock_enabled_for_bucket(true)
            .create_bucket_configuration(configuration)
            .send()
            .await
            .unwrap();
        let bucket = |prefix: &str| Bucket {
            name: name.clone(),
            prefix: prefix.to_owned(),
            owner: account.clone(),
            region: region.clone(),
            at_rest: Encryption::Store,
            former_keys: Vec::new(),
        };
        let keys = match room {
            "keys" => Some(keys(&session).await),
            _ => None,
        };
        let place = Place {
            account: account.clone(),
            service_role: None,
        };
        Self {
            raw: aws_sdk_cloudformation::Client::new(config),
            versions: Arc::new(AwsVersions::new(&session, account.clone())),
            config: config.clone(),
            store: Arc::new(S3Objects::new(&session, bucket("bundles"))),
            templates: S3Objects::new(&session, bucket("templates")),
            keys,
            engine: Arc::new(Stacks::new(session, place, Clock::system())),
            turn: AtomicU64::new(0),
        }
    }
}

/// A key that wraps and one that signs.
async fn keys(session: &Session) -> Arc<KmsKeys> {
    use aws_sdk_kms::types::{KeySpec, KeyUsageType};
    let client = aws_sdk_kms::Client::new(session.config());
    let made = client.create_key().send().await.unwrap();
    let key = made.key_metadata().unwrap().arn().unwrap().to_owned();
    let made = client
        .create_key()
        .key_spec(KeySpec::EccNistP256)
        .key_usage(KeyUsageType::SignVerify)
        .send()
        .await
        .unwrap();
    let signing = made.key_metadata().unwrap().arn().unwrap().to_owned();
    Arc::new(KmsKeys::new(session, key, Vec::new(), Some(signing)))
}

#[async_trait]
impl Harness for Emulated {
    fn engine(&self) -> Arc<dyn StackEngine> {
        self.engine.clone()
    }

    fn name(&self, word: &str) -> String {
        word.to_owned()
    }

    async fn put(&self, text: &str) -> String {
        let key = format!("t{}", self.turn.fetch_add(1, Ordering::Relaxed));
        let options = Put::default();
        let put = self.templates.put(&key, body(text.as_bytes()), &options);
        let meta = put.await.unwrap();
        self.templates.url(&key, meta.version.as_deref())
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time.min(Duration::from_millis(50))).await;
    }

    async fn fail(&self, _: &str, _: &str, _: During, _: bool) -> bool {
        false
    }

    /// Updates the stack with another tag, as a person would.
    async fn meddle(&self, stack: &str) -> bool {
        let read = self.raw.get_template().stack_name(stack).send().await;
        let text = read.unwrap().template_body().unwrap().to_owned();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).to_string();
        let tag = aws_sdk_cloudformation::types::Tag::builder();
        let sent = self
            .raw
            .update_stack()
            .stack_name(stack)
            .template_body(text)
            .tags(tag.key("meddled").value(turn).build())
            .send()
            .await;
        sent.is_ok()
    }

    async fn change(&self, _: &str, _: &str, _: Option<Value>) -> bool {
        false
    }

    fn versions(&self) -> Arc<dyn Versions> {
        self.versions.clone()
    }

    async fn rotate(&self, reference: &Reference) {
        let value = self.turn.fetch_add(1, Ordering::Relaxed).to_string();
        let name = &reference.name;
        if reference.keeper == Keeper::Secret {
            let client = aws_sdk_secretsmanager::Client::new(&self.config);
            let made = client
                .create_secret()
                .name(name)
                .secret_string(&value)
                .send()
                .await;
            if made.is_err() {
                let put = client
                    .put_secret_value()
                    .secret_id(name)
                    .secret_string(value);
                put.send().await.unwrap();
            }
            return;
        }
        let kind = match reference.keeper {
            Keeper::SsmSecure => aws_sdk_ssm::types::ParameterType::SecureString,
            _ => aws_sdk_ssm::types::ParameterType::String,
        };
        let client = aws_sdk_ssm::Client::new(&self.config);
        let put = client.put_parameter().name(name).value(value).r#type(kind);
        put.overwrite(true).send().await.unwrap();
    }

    fn store(&self) -> Arc<dyn ObjectStore> {
        self.store.clone()
    }

    fn keys(&self) -> Arc<dyn KeyService> {
        self.keys.clone().unwrap()
    }

    fn later(&self) -> Timestamp {
        Clock::system().now().plus(Duration::from_secs(3600))
    }

    fn is_cheap(&self) -> bool {
        false
    }
}
