//! `isoform doctor`: looks at everything that the daemon will work with, and says what is wrong and how to mend it.
//!
//! Nothing is written anywhere. What cannot be seen is said to be unseen, and is not held against anybody.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use serde::Serialize;

use super::cloud::{chain, hint_queue, reach};
use crate::aws::calls::CALLS;
use crate::aws::{Aws, BucketFacts, IamRoles, KeyFacts, QueueFacts, Session, SigningFacts};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::domain::estate::Placement;
use crate::domain::iam::{Trust, Works, refused, refused_of, trust};
use crate::domain::model::AccountId;
use crate::port::{Disposition, Error, Roles};
use crate::store::RootKey;

/// Beyond this AWS begins to refuse signatures; it gives up at five minutes.
const SKEW_MS: i64 = 60_000;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it has to be.
    Good,
    /// It could not be seen, or it could be better.
    Unsure,
    /// The daemon will fail, or work with less safety than it should.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is about: a placement's region, a bucket, a key.
    pub subject: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub says: String,
    /// How to mend it.
    pub mend: Option<String>,
}

struct Report(Vec<Check>);

impl Report {
    fn good(&mut self, subject: &str, says: impl Into<String>) {
        self.add(subject, Verdict::Good, says.into(), None);
    }

    fn unsure(&mut self, subject: &str, says: impl Into<String>, mend: impl Into<String>) {
        self.add(subject, Verdict::Unsure, says.into(), Some(mend.into()));
    }

    fn bad(&mut self, subject: &str, says: impl Into<String>, mend: impl Into<String>) {
        self.add(subject, Verdict::Bad, says.into(), Some(mend.into()));
    }

    fn add(&mut self, subject: &str, verdict: Verdict, says: String, mend: Option<String>) {
        self.0.push(Check {
            subject: subject.to_owned(),
            verdict,
            says,
            mend,
        });
    }

    /// What has to be on: good, or bad with the command that mends it; what could not be seen is unsure.
    fn must(
        &mut self,
        subject: &str,
        found: Result<bool, &Error>,
        good: &str,
        bad: &str,
        mend: String,
    ) {
        match found {
            Ok(true) => self.good(subject, good),
            Ok(false) => self.bad(subject, bad, mend),
            Err(error) => {
                let says = format!("whether it is so cannot be seen: {good}: {error}");
                self.unsure(subject, says, "run it as somebody who may look");
            }
        }
    }
}

/// Looks at what a configuration names.
pub async fn examine(config: &Config, clock: &Clock) -> Vec<Check> {
    let mut report = Report(Vec::new());
    own(config, &mut report);
    match &config.aws {
        Some(aws) => {
            let reached = Aws::connect(reach(aws)).await;
            cloud(config, aws, &reached, clock, &mut report).await;
        }
        None => {
            let subject = "the embedded engine";
            report.good(
                subject,
                "nothing in AWS is used: accounts, roles, buckets and keys are not looked at",
            );
            let folder = config.cloud.display();
            if config.cloud.is_dir() {
                report.good(subject, format!("its world is in {folder}"));
            } else {
                report.good(
                    subject,
                    format!("the first run makes its world in {folder}"),
                );
            }
        }
    }
    report.0
}

/// Looks at AWS alone, through a connection that somebody made.
pub async fn examine_aws(
    config: &Config,
    aws: &config::Aws,
    reached: &Aws,
    clock: &Clock,
) -> Vec<Check> {
    let mut report = Report(Vec::new());
    cloud(config, aws, reached, clock, &mut report).await;
    report.0
}

/// What lies on this machine.
fn own(config: &Config, report: &mut Report) {
    if let config::Root::File(path) = &config.root {
        let shown = path.display();
        match RootKey::read(path) {
            Ok(_) => report.good("the root key", format!("{shown} can be read")),
            Err(error) => report.bad(
                "the root key",
                error.to_string(),
                format!("give this user the file, or make a first one: isoform config key {shown}"),
            ),
        }
    }
    let (subject, state) = ("the state folder", &config.state);
    let shown = state.display();
    match std::fs::metadata(state) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            report.good(subject, format!("the first run makes {shown}"));
        }
        Err(error) => report.bad(
            subject,
            format!("{shown}: {error}"),
            "run this as the daemon's user, or let that user into the folders above it",
        ),
        Ok(found) if !found.is_dir() => report.bad(
            subject,
            format!("{shown} is no folder"),
            "give state.path another name",
        ),
        Ok(found) if found.mode() & 0o077 != 0 => report.bad(
            subject,
            format!(
                "the mode of {shown} is {:04o}: others may look into it",
                found.mode() & 0o7777
            ),
            format!("chmod 700 {shown}"),
        ),
        Ok(_) => report.good(subject, format!("{shown} is there")),
    }
}

async fn cloud(
    config: &Config,
    aws: &config::Aws,
    reached: &Aws,
    clock: &Clock,
    report: &mut Report,
) {
    let subject = "credentials";
    let home = &aws.stores[&aws.home].region;
    let own = match reached.session(home, &[]).await.caller().await {
        Ok(caller) => {
            report.good(
                subject,
                format!("{} in the account {}", caller.arn, caller.account),
            );
            skew(caller.time, clock, report);
            caller.arn
        }
        Err(error) => {
            report.bad(subject, error.to_string(), identify(&error));
            // Everything that follows would say the same.
            return;
        }
    };
    for placement in config.placements.values() {
        for (word, hop) in hands(aws, placement) {
            hand(aws, reached, placement, word, hop.as_ref(), &own, report).await;
        }
        service_role(aws, reached, placement, report).await;
    }
    let mut keys = BTreeSet::new();
    for (name, store) in &aws.stores {
        let session = reached
            .session(&store.region, &chain(aws, store.role.as_ref()))
            .await;
        let subject = format!("bundle store {name} (s3://{})", store.bucket);
        let facts = session
            .bucket(&store.bucket, &store.owner, &store.prefix)
            .await;
        if bucket(&subject, store, &facts, report) {
            rendered(config, aws, reached, name, &session, report).await;
        }
        for arn in store.key.iter().chain(&store.former_keys) {
            if keys.insert(arn.clone()) {
                let current = store.key.as_ref() == Some(arn);
                key(arn, current, &session.key(arn).await, report);
            }
        }
    }
    if let config::Root::Kms(root) = &config.root {
        let session = reached
            .session(&root.region, &chain(aws, root.role.as_ref()))
            .await;
        if keys.insert(root.key.clone()) {
            key(&root.key, true, &session.key(&root.key).await, report);
        }
    }
    if let Some(config::Signing::Kms(key)) = &config.signing {
        let roles = chain(aws, key.role.as_ref());
        let session = reached.session(&key.region, &roles).await;
        let role = key.role.as_ref().map_or("the daemon", |r| r.arn.as_str());
        let facts = session.signing_key(&key.key).await;
        signing(&key.key, role, &facts, report);
    }
    for (name, shelf) in &config.shelves {
        if let config::ShelfPlace::S3(store) = &shelf.place {
            let session = reached
                .session(&store.region, &chain(aws, store.role.as_ref()))
                .await;
            archives(name.as_str(), store, &session, report).await;
            for arn in store.key.iter().chain(&store.former_keys) {
                if keys.insert(arn.clone()) {
                    key(arn, false, &session.key(arn).await, report);
                }
            }
        }
    }
    for queue in &aws.queues {
        let facts = hint_queue(reached, aws, queue).await.facts().await;
        hints(queue, &facts, report);
    }
    report.unsure(
        "calls that write",
        "CreateChangeSet, ExecuteChangeSet and the others that write are not tried",
        "compare the roles with what `isoform iam` prints",
    );
}

/// How it is mended that nobody says whose the credentials are: a person must act on what will not pass.
fn identify(error: &Error) -> &'static str {
    match (error, error.disposition()) {
        (Error::Denied(_), _) => {
            "set AWS_PROFILE, or run it where a role is given; `isoform iam` prints what it needs"
        }
        (_, Disposition::Stall) => {
            "correct `aws.endpoint`, `aws.fips` and `aws.dual_stack`, and the region"
        }
        _ => {
            "renew the credentials if they have expired; else look at the network: DNS and routes to STS, HTTPS_PROXY and NO_PROXY where there is a proxy, SSL_CERT_FILE where it has certificates of its own, and `aws.endpoint`"
        }
    }
}

fn skew(there: Option<i64>, clock: &Clock, report: &mut Report) {
    let subject = "the clock";
    let Some(there) = there else {
        return report.unsure(subject, "AWS told no time", "compare it yourself");
    };
    let skew = clock.now().0 - there;
    let (seconds, word) = (skew.abs() / 1000, if skew > 0 { "ahead" } else { "behind" });
    if skew.abs() <= SKEW_MS {
        // An answer tells whole seconds, and takes a while.
        report.good(subject, "it agrees with AWS's");
    } else {
        let says = format!(
            "this machine is {seconds} s {word} of AWS; beyond 5 minutes every call is refused"
        );
        report.bad(subject, says, "set it by NTP");
    }
}

/// The roles of a placement, by the word that the configuration has for them.
fn hands(aws: &config::Aws, placement: &Placement) -> Vec<(&'static str, Option<config::Hop>)> {
    let hands = aws.hands.get(&placement.name).cloned().unwrap_or_default();
    let named = [("preview", hands.preview), ("apply", hands.apply)];
    let named: Vec<_> = named.into_iter().filter(|(_, hop)| hop.is_some()).collect();
    if named.is_empty() {
        return vec![("no role", None)];
    }
    named
}

/// Looks at one role of a placement, in each of its regions.
async fn hand(
    aws: &config::Aws,
    reached: &Aws,
    placement: &Placement,
    word: &str,
    hop: Option<&config::Hop>,
    own: &str,
    report: &mut Report,
) {
    let by = aws.chain.last().map_or(own, |h| h.arn.as_str());
    let role = hop.map_or(by, |h| h.arn.as_str());
    for region in &placement.regions {
        let subject = format!("placement {}, {region}, {word} ({role})", placement.name);
        let session = reached.session(region, &chain(aws, hop)).await;
        match session.caller().await {
            Ok(caller) if caller.account == placement.account => {}
            Ok(caller) => {
                let says = format!(
                    "these are credentials of the account {}, and the placement is in {}",
                    caller.account, placement.account
                );
                report.bad(
                    &subject,
                    says,
                    "name a role of that account, or mend its id",
                );
                continue;
            }
            Err(error) => {
                let mend = format!(
                    "let {by} take {role}, with the external id and the tags that are configured: `isoform iam` prints both sides"
                );
                report.bad(&subject, error.to_string(), mend);
                continue;
            }
        }
        let mut denied = false;
        for (call, may) in session.may_read_stacks().await {
            if let Err(error) = may {
                denied = true;
                report.bad(&subject, error.to_string(), allow(call, role, &error));
            }
        }
        if !denied {
            report.good(&subject, "it is taken, and may read stacks");
        }
    }
}

/// Looks at the role that CloudFormation is given in a placement.
async fn service_role(
    aws: &config::Aws,
    reached: &Aws,
    placement: &Placement,
    report: &mut Report,
) {
    let hands = aws.hands.get(&placement.name).cloned().unwrap_or_default();
    let (Some(role), Some(region)) = (hands.cloudformation, placement.regions.first()) else {
        return;
    };
    let subject = format!("placement {}, cloudformation ({role})", placement.name);
    let hop = hands.apply.or(hands.preview);
    let session = reached.session(region, &chain(aws, hop.as_ref())).await;
    let mend = "`isoform iam` prints its trust";
    let policy = match IamRoles::new(&session, None).trust(&role).await {
        Ok(Some(policy)) => policy,
        Ok(None) => return report.bad(&subject, "it does not exist", format!("make it: {mend}")),
        Err(error) => {
            let says = format!("whether CloudFormation may take it cannot be seen: {error}");
            return report.unsure(&subject, says, format!("allow iam:GetRole on {role}"));
        }
    };
    for region in &placement.regions {
        let at = Works {
            account: &placement.account,
            region,
            stack: None,
        };
        match trust(&policy, &at) {
            Trust::Given => {
                report.good(&subject, format!("CloudFormation may take it in {region}"));
            }
            Trust::Unsure(says) => report.unsure(
                &subject,
                format!("whether CloudFormation may take it in {region} is not sure: {says}"),
                mend,
            ),
            Trust::Refused(why) => report.bad(
                &subject,
                format!("CloudFormation may not take it in {region}: {why}"),
                mend,
            ),
        }
    }
}

/// How a call that failed is mended.
fn allow(call: &str, role: &str, error: &Error) -> String {
    if !matches!(error, Error::Denied(_) | Error::KeyUnavailable(_)) {
        return "look at the network, the region and its endpoint".into();
    }
    let row = CALLS.iter().find(|c| c.name == call);
    let actions = row.map_or_else(|| call.to_owned(), |c| c.actions.join(", "));
    format!("allow {role} {actions}: `isoform iam` prints its whole policy")
}

/// Judges a bucket; tells whether it is there.
fn bucket(
    subject: &str,
    store: &config::S3Store,
    facts: &BucketFacts,
    report: &mut Report,
) -> bool {
    let name = &store.bucket;
    if let Err(error) = &facts.there {
        let mend = match error {
            Error::NotFound(_) => format!(
                "make it, in {} and in the account {}, or correct `url`",
                store.region, store.owner
            ),
            Error::Denied(_) => format!(
                "correct `owner` if the bucket is not of {}; else allow s3:ListBucket: `isoform iam` prints the policy",
                store.owner
            ),
            _ => "look at the network, and at the bucket's region".into(),
        };
        report.bad(subject, error.to_string(), mend);
        return false;
    }
    report.good(
        subject,
        format!("it is there and belongs to {}", store.owner),
    );
    let role = store.role.as_ref().map_or("the daemon", |r| r.arn.as_str());
    if let Err(error) = &facts.lists {
        let mend = allow("ListObjectsV2", role, error);
        report.bad(subject, error.to_string(), mend);
    }
    report.must(
        subject,
        facts.versions.as_ref().copied(),
        "it keeps versions",
        "it keeps no versions: what is overwritten or deleted is lost",
        format!("aws s3api put-bucket-versioning --bucket {name} --versioning-configuration Status=Enabled"),
    );
    report.must(
        subject,
        facts.blocked.as_ref().copied(),
        "it blocks public access",
        "it does not block all public access",
        format!("aws s3api put-public-access-block --bucket {name} --public-access-block-configuration BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true"),
    );
    report.must(
        subject,
        facts.default.as_ref().map(Option::is_some),
        "it encrypts by default",
        "it has no default encryption",
        format!("aws s3api put-bucket-encryption --bucket {name} --server-side-encryption-configuration '{{\"Rules\":[{{\"ApplyServerSideEncryptionByDefault\":{{\"SSEAlgorithm\":\"AES256\"}}}}]}}'"),
    );
    if let Some(lock) = &store.lock {
        let mode = if lock.mode == config::LockMode::Governance {
            "governance"
        } else {
            "compliance"
        };
        let kept = match (lock.days, lock.legal_hold) {
            (0, _) => "under a legal hold".to_owned(),
            (days, false) => format!("for {days} days in mode {mode}"),
            (days, true) => format!("for {days} days in mode {mode}, and under a legal hold"),
        };
        report.must(
            subject,
            facts.lock.as_ref().copied(),
            &format!("it has Object Lock: the log is kept {kept}"),
            "it has no Object Lock, and `object_lock` asks for it: nothing of the log can be put",
            format!("aws s3api put-object-lock-configuration --bucket {name} --object-lock-configuration ObjectLockEnabled=Enabled, which needs versions; or take `object_lock` away"),
        );
    }
    let policy = facts.policy.as_ref();
    let policy = policy.map(|p| refused(p.as_deref().unwrap_or_default()));
    let mend = "set the policy that `isoform iam` prints under `buckets`";
    report.must(
        subject,
        policy.map(|r| r.plain_text),
        "its policy refuses what is not TLS",
        "its policy does not refuse what is not TLS",
        mend.into(),
    );
    report.must(
        subject,
        policy.map(|r| r.unencrypted),
        "its policy refuses puts without encryption",
        "its policy does not refuse puts without encryption",
        mend.into(),
    );
    true
}

/// Looks at a bucket of somebody else's that archives are read from: whether it is there, lists, and can be read.
async fn archives(name: &str, store: &config::S3Store, session: &Session, report: &mut Report) {
    let subject = format!("source {name} (s3://{}/{})", store.bucket, store.prefix);
    let role = store.role.as_ref().map_or("the daemon", |r| r.arn.as_str());
    let slash = if store.prefix.is_empty() { "" } else { "/" };
    let prefix = format!("{}{slash}", store.prefix);
    let found = session
        .some_object(&store.bucket, &store.owner, &prefix)
        .await;
    let key = match found {
        Ok(Some(key)) => key,
        Ok(None) => {
            return report.unsure(
                &subject,
                "nothing lies there",
                "correct the prefix in `url`, or put archives there",
            );
        }
        Err(error) => {
            let mend = match error {
                Error::Denied(_) => format!(
                    "correct `owner` if the bucket is not of {}; else {}, and in the bucket's own policy where the accounts differ",
                    store.owner,
                    allow("ListObjectsV2", role, &error)
                ),
                Error::Refused(_) => "correct the bucket in `url`, or `region`".to_owned(),
                _ => allow("ListObjectsV2", role, &error),
            };
            return report.bad(&subject, error.to_string(), mend);
        }
    };
    match session.reads(&store.bucket, &store.owner, &key).await {
        Ok(()) => report.good(&subject, format!("{role} lists and reads it")),
        Err(error) => report.bad(
            &subject,
            error.to_string(),
            format!(
                "{}; in the policies of bucket and key too where the accounts differ",
                allow("GetObject", role, &error)
            ),
        ),
    }
}

fn key(arn: &str, current: bool, facts: &KeyFacts, report: &mut Report) {
    let subject = format!("key {arn}");
    match &facts.state {
        Ok(state) if state == "Enabled" => report.good(&subject, "it is enabled"),
        Ok(state) => {
            let mend = match state.as_str() {
                "Disabled" => format!("aws kms enable-key --key-id {arn}"),
                "PendingDeletion" => format!(
                    "aws kms cancel-key-deletion --key-id {arn}, before what it encrypted is lost"
                ),
                _ => "wait, or name another key and this one under `former_keys`".into(),
            };
            report.bad(&subject, format!("it is {state}"), mend);
        }
        Err(error @ (Error::Unavailable(_) | Error::Throttled)) => {
            report.bad(&subject, error.to_string(), "look at the network");
        }
        Err(error) => report.unsure(
            &subject,
            error.to_string(),
            "run it as somebody with kms:DescribeKey, or correct the ARN",
        ),
    }
    if !current {
        return;
    }
    match &facts.rotates {
        Ok(true) => report.good(&subject, "its material is renewed"),
        Ok(false) => report.unsure(
            &subject,
            "its material is never renewed",
            format!("aws kms enable-key-rotation --key-id {arn}"),
        ),
        Err(error) => report.unsure(
            &subject,
            format!("whether its material is renewed cannot be seen: {error}"),
            "run it as somebody with kms:GetKeyRotationStatus",
        ),
    }
}

/// Judges the key that signs checkpoints. Nothing waits for it, and without it nobody but this machine vouches for the log.
fn signing(arn: &str, role: &str, facts: &SigningFacts, report: &mut Report) {
    let subject = format!("signing key {arn}");
    match &facts.is {
        Ok([state, spec, usage]) => {
            if spec == "ECC_NIST_P256" && usage == "SIGN_VERIFY" {
                report.good(&subject, "it is a key on P-256 that signs");
            } else {
                report.bad(
                    &subject,
                    format!("it is {spec} for {usage}, and checkpoints are signed by ECC_NIST_P256 for SIGN_VERIFY"),
                    "aws kms create-key --key-spec ECC_NIST_P256 --key-usage SIGN_VERIFY makes one",
                );
            }
            let mend = match state.as_str() {
                "Enabled" => return readable(&subject, role, facts, report),
                "Disabled" => format!("aws kms enable-key --key-id {arn}"),
                "PendingDeletion" => format!(
                    "aws kms cancel-key-deletion --key-id {arn}, or name another key: what it has signed stays valid"
                ),
                _ => "wait, or name another key: what this one has signed stays valid".into(),
            };
            report.bad(&subject, format!("it is {state}"), mend);
        }
        Err(error @ (Error::Unavailable(_) | Error::Throttled)) => {
            report.bad(&subject, error.to_string(), "look at the network");
        }
        Err(error) => report.bad(
            &subject,
            error.to_string(),
            allow("DescribeKey", role, error),
        ),
    }
}

fn readable(subject: &str, role: &str, facts: &SigningFacts, report: &mut Report) {
    match &facts.public {
        Ok(()) => report.good(subject, "it is enabled, and its public half can be read"),
        Err(error) => {
            let mend = allow("GetPublicKey", role, error);
            report.bad(subject, error.to_string(), mend);
        }
    }
}

/// Judges a queue of hints. Without it nothing is lost but time.
fn hints(queue: &config::HintQueue, facts: &Result<QueueFacts, Error>, report: &mut Report) {
    let subject = format!("hints {}", queue.arn());
    let facts = match facts {
        Ok(facts) => facts,
        Err(error) => {
            let role = queue.role.as_ref().map_or("the daemon", |r| r.arn.as_str());
            let mend = match error {
                Error::Denied(_) => allow("GetQueueAttributes", role, error),
                _ => "make the queue and its rule: the guide on AWS has the template; or take `hints` away".into(),
            };
            return report.bad(&subject, error.to_string(), mend);
        }
    };
    report.good(
        &subject,
        format!("it is there; {} messages wait", facts.waiting),
    );
    let policy = facts.policy.as_deref().unwrap_or_default();
    report.must(
        &subject,
        Ok(policy.contains("events.amazonaws.com")),
        "EventBridge may fill it",
        "its policy lets EventBridge put nothing in it",
        "set the policy that `isoform iam` prints under `queues`".into(),
    );
    report.must(
        &subject,
        Ok(refused_of(policy, "sqs:*").plain_text),
        "its policy refuses what is not TLS",
        "its policy does not refuse what is not TLS",
        "set the policy that `isoform iam` prints under `queues`".into(),
    );
    if !facts.encrypted {
        let mend = format!(
            "aws sqs set-queue-attributes --queue-url \"$(aws sqs get-queue-url --queue-name {} --query QueueUrl --output text)\" --attributes SqsManagedSseEnabled=true",
            queue.name
        );
        report.unsure(&subject, "what lies in it is not encrypted", mend);
    }
}

/// Lets every role that CloudFormation reads templates with read one, which is how it will be read.
async fn rendered(
    config: &Config,
    aws: &config::Aws,
    reached: &Aws,
    name: &str,
    owner: &Session,
    report: &mut Report,
) {
    let store = &aws.stores[name];
    let slash = if store.prefix.is_empty() { "" } else { "/" };
    let prefix = format!("{}{slash}rendered/", store.prefix);
    let (bucket, account): (&str, &AccountId) = (&store.bucket, &store.owner);
    let subject = format!("reading s3://{bucket}/{prefix}");
    let found = match owner.some_object(bucket, account, &prefix).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            return report.unsure(
                &subject,
                "nothing lies there yet, so it cannot be tried",
                "run it again when the daemon has looked once",
            );
        }
        // It was said of the bucket.
        Err(_) => return,
    };
    let mut tried = BTreeSet::new();
    for placement in config.placements.values() {
        for region in &placement.regions {
            let served = (placement.name.clone(), region.clone());
            if aws.serves.get(&served).map(String::as_str) != Some(name) {
                continue;
            }
            for (_, hop) in hands(aws, placement) {
                let role = hop.as_ref().map_or("the daemon", |h| h.arn.as_str());
                if !tried.insert(role.to_owned()) {
                    continue;
                }
                let session = reached
                    .session(&store.region, &chain(aws, hop.as_ref()))
                    .await;
                match session.reads(bucket, account, &found).await {
                    Ok(()) => report.good(&subject, format!("{role} reads it")),
                    Err(error) => report.bad(
                        &subject,
                        format!("{role}: {error}"),
                        format!("allow {role} s3:GetObject and, on the key, kms:Decrypt, on both sides where the accounts differ: `isoform iam` prints the policies of role, bucket and key"),
                    ),
                }
            }
        }
    }
}
