//! The statements. Every action has its call in the table beside the adapters, `src/aws/calls.rs`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{DAEMON, Draft, Holder, Queue, ResourceDocument, Setup, Stacks, Store, account_of};
use crate::domain::model::{AccountId, Region};

/// Where the templates lie that CloudFormation reads.
const RENDERED: &str = "rendered/*";

/// Calls that name no stack.
const EVERYWHERE: &[&str] = &[
    "cloudformation:DescribeStackDriftDetectionStatus",
    "cloudformation:GetTemplateSummary",
    "cloudformation:ListStacks",
];
const LOOK: &[&str] = &[
    "cloudformation:DescribeChangeSet",
    "cloudformation:DescribeEvents",
    "cloudformation:DescribeStackEvents",
    "cloudformation:DescribeStackResourceDrifts",
    "cloudformation:DescribeStacks",
    "cloudformation:DetectStackDrift",
    "cloudformation:GetStackPolicy",
    "cloudformation:GetTemplate",
    "cloudformation:ListChangeSets",
];
const ACT: &[&str] = &[
    "cloudformation:CancelUpdateStack",
    "cloudformation:ContinueUpdateRollback",
    "cloudformation:DeleteStack",
    "cloudformation:ExecuteChangeSet",
    "cloudformation:RollbackStack",
    "cloudformation:SetStackPolicy",
    "cloudformation:UpdateTerminationProtection",
];
const KEEP: &[&str] = &[
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
    "s3:GetObject",
    "s3:PutObject",
];

const LOCK: &[&str] = &["s3:PutObjectLegalHold", "s3:PutObjectRetention"];
const ROOT: &[&str] = &["kms:Decrypt", "kms:GenerateDataKey"];
/// Whoever signs may see what the key is, for `isoform doctor`, and read its public half, which lies beside what it signed.
const SIGN: &[&str] = &["kms:DescribeKey", "kms:GetPublicKey"];
const HEAR: &[&str] = &[
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:ReceiveMessage",
];

fn document(statements: Vec<Value>) -> Value {
    json!({ "Version": "2012-10-17", "Statement": statements })
}

fn allow(sid: &str, actions: &[&str], resources: Vec<String>) -> Value {
    json!({ "Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources })
}

fn on(mut statement: Value, condition: Value) -> Value {
    if let Some(fields) = statement.as_object_mut() {
        fields.insert("Condition".into(), condition);
    }
    statement
}

fn partition(region: Option<&Region>) -> &'static str {
    region.map_or("aws", |r| r.partition().0)
}

/// A principal as a trust names it.
fn principal(setup: &Setup, holder: &Holder) -> String {
    match holder {
        Holder::Daemon => setup.daemon.clone().unwrap_or_else(|| DAEMON.to_owned()),
        Holder::Role(arn) => arn.clone(),
    }
}

/// Tags that the session of a deployment carries beside the others.
const DEPLOYMENT: [&str; 2] = ["isoform:commit", "isoform:target"];

/// Who may take a role, each with its external id and with the tags of isoform's sessions and no others.
pub(super) fn trust(setup: &Setup, draft: &Draft) -> Value {
    let mut statements = Vec::new();
    // Roles that deployments are worked with; the ones before them in the chain are taken for all alike.
    let deploys = !draft.looks.is_empty();
    for (holder, external_id) in &draft.taken_by {
        let mut condition = Map::new();
        let mut equals = Map::new();
        if let Some(id) = external_id {
            equals.insert("sts:ExternalId".into(), json!(id));
        }
        let principal = json!({ "AWS": principal(setup, holder) });
        let mut statement =
            json!({ "Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole" });
        if !equals.is_empty() {
            condition.insert("StringEquals".into(), json!(equals));
            statement = on(statement, json!(condition));
        }
        statements.push(statement);
        let own = deploys && setup.deployment_tags;
        if !setup.tags.is_empty() || own {
            let tags: Map<String, Value> = setup
                .tags
                .iter()
                .map(|(key, value)| (format!("aws:RequestTag/{key}"), json!(value)))
                .collect();
            let keys = setup.tags.keys().map(String::as_str);
            let keys: BTreeSet<&str> = keys.chain(DEPLOYMENT.into_iter().filter(|_| own)).collect();
            let mut condition = Map::new();
            condition.insert(
                "ForAllValues:StringEquals".into(),
                json!({ "aws:TagKeys": keys }),
            );
            if !tags.is_empty() {
                condition.insert("StringEquals".into(), json!(tags));
            }
            statements.push(on(
                json!({ "Effect": "Allow", "Principal": principal, "Action": "sts:TagSession" }),
                json!(condition),
            ));
        }
        if deploys && setup.source_identity {
            statements.push(json!({ "Effect": "Allow", "Principal": principal, "Action": "sts:SetSourceIdentity" }));
        }
    }
    document(statements)
}

/// CloudFormation may take the role for stacks of this account and these regions.
///
/// With `IfExists`: whether CloudFormation says for which stack it takes a role is written nowhere, and a condition on what is not
/// said would stop every deployment. A role can be passed only inside of its account in any case.
pub(super) fn service_trust(arn: &str, regions: &BTreeSet<&Region>) -> Value {
    let account = account_of(arn);
    let stacks: Vec<String> = regions
        .iter()
        .map(|r| format!("arn:{}:cloudformation:{r}:{account}:*", r.partition().0))
        .collect();
    document(vec![on(
        json!({ "Effect": "Allow", "Principal": { "Service": "cloudformation.amazonaws.com" }, "Action": "sts:AssumeRole" }),
        json!({
            "StringEqualsIfExists": { "aws:SourceAccount": account },
            "ArnLikeIfExists": { "aws:SourceArn": stacks },
        }),
    )])
}

/// What one holder may do.
pub(super) fn policy(setup: &Setup, draft: &Draft) -> Value {
    let mut statements = Vec::new();
    if !draft.takes.is_empty() {
        let mut actions = vec!["sts:AssumeRole"];
        if setup.source_identity {
            actions.push("sts:SetSourceIdentity");
        }
        if !setup.tags.is_empty() || setup.deployment_tags {
            actions.push("sts:TagSession");
        }
        let roles = draft.takes.iter().cloned().collect();
        statements.push(allow("TakeRoles", &actions, roles));
    }
    if !draft.looks.is_empty() {
        let regions: BTreeSet<&Region> = draft.looks.values().flat_map(|s| &s.regions).collect();
        statements.push(on(
            allow("LookEverywhere", EVERYWHERE, vec!["*".into()]),
            json!({ "StringEquals": { "aws:RequestedRegion": &regions } }),
        ));
        statements.push(allow("Look", LOOK, stacks(&draft.looks)));
        let templates: Vec<String> = draft
            .reads
            .iter()
            .map(|name| template_url(&setup.stores[name]))
            .collect();
        // A change set is made from what isoform has put, and from nothing else.
        statements.push(on(
            allow(
                "Propose",
                &["cloudformation:CreateChangeSet"],
                stacks(&draft.looks),
            ),
            json!({ "StringLike": { "cloudformation:TemplateUrl": templates } }),
        ));
        // A transform is asked for by an ARN of its own, which is no stack and has no template:
        // https://github.com/aws/serverless-application-model/issues/179
        let transforms = regions.iter().map(|region| {
            let partition = region.partition().0;
            format!("arn:{partition}:cloudformation:{region}:aws:transform/*")
        });
        statements.push(allow(
            "Transform",
            &["cloudformation:CreateChangeSet"],
            transforms.collect(),
        ));
        let discard = &["cloudformation:DeleteChangeSet"];
        statements.push(allow("Discard", discard, stacks(&draft.looks)));
        let passes: BTreeSet<&String> = draft.looks.values().flat_map(|s| &s.passes).collect();
        statements.push(allow(
            "SeeServiceRoles",
            &["iam:GetRole"],
            seen(&draft.looks),
        ));
        if !passes.is_empty() {
            let passes = passes.into_iter().cloned().collect();
            statements.push(on(
                allow("PassServiceRole", &["iam:PassRole"], passes),
                json!({ "StringEquals": { "iam:PassedToService": "cloudformation.amazonaws.com" } }),
            ));
        }
    }
    if !draft.pins.is_empty() {
        let places = || {
            let each = |(account, regions): (_, &BTreeSet<Region>)| {
                let each = regions.iter().map(move |region| (account, region.clone()));
                each.collect::<Vec<_>>()
            };
            draft.pins.iter().flat_map(each)
        };
        let partition = |region: &Region| region.partition().0;
        // Parameters that AWS publishes belong to no account.
        let parameters = places().flat_map(|(account, region)| {
            let at = format!("arn:{}:ssm:{region}", partition(&region));
            [
                format!("{at}:{account}:parameter/*"),
                format!("{at}::parameter/aws/service/*"),
            ]
        });
        let secrets = places().map(|(account, region)| {
            let partition = partition(&region);
            format!("arn:{partition}:secretsmanager:{region}:{account}:secret:*")
        });
        let parameters: BTreeSet<String> = parameters.collect();
        statements.push(allow(
            "SeeParameters",
            &["ssm:GetParameters"],
            parameters.into_iter().collect(),
        ));
        statements.push(allow(
            "SeeSecrets",
            &["secretsmanager:DescribeSecret"],
            secrets.collect(),
        ));
    }
    if !draft.acts.is_empty() {
        statements.push(allow("Act", ACT, stacks(&draft.acts)));
    }
    for (index, store) in draft.reads.iter().map(|n| &setup.stores[n]).enumerate() {
        statements.push(owned(
            store,
            allow(
                &format!("ReadTemplates{index}"),
                &["s3:GetObject", "s3:GetObjectVersion"],
                vec![objects(store, RENDERED)],
            ),
        ));
        if !every_key(store).is_empty() {
            statements.push(through_s3(
                store,
                allow(
                    &format!("OpenTemplates{index}"),
                    &["kms:Decrypt"],
                    every_key(store),
                ),
            ));
        }
    }
    for (index, store) in draft.keeps.iter().map(|n| &setup.stores[n]).enumerate() {
        statements.extend(keeping(store, index));
    }
    for (index, shelf) in draft.fetches.iter().map(|n| &setup.shelves[n]).enumerate() {
        statements.extend(fetching(shelf, index));
    }
    if let Some(key) = &draft.roots {
        let allow = allow("UseRootKey", ROOT, vec![key.clone()]);
        statements.push(on(allow, for_the_root()));
    }
    if let Some(key) = &draft.signs {
        statements.push(allow("KnowSigningKey", SIGN, vec![key.clone()]));
        let sign = allow("SignCheckpoints", &["kms:Sign"], vec![key.clone()]);
        statements.push(on(sign, digests_only()));
    }
    if !draft.hears.is_empty() {
        let queues = draft.hears.iter().cloned().collect();
        statements.push(allow("HearHints", HEAR, queues));
    }
    document(statements)
}

/// Roles whose trust is read: those that CloudFormation is given. Where it is given none, stacks that are taken over keep theirs, which no
/// configuration names.
fn seen(all: &BTreeMap<AccountId, Stacks>) -> Vec<String> {
    let mut roles = BTreeSet::new();
    for (account, stacks) in all {
        roles.extend(stacks.passes.iter().cloned());
        if stacks.keeps {
            let partition = partition(stacks.regions.first());
            roles.insert(format!("arn:{partition}:iam::{account}:role/*"));
        }
    }
    roles.into_iter().collect()
}

/// Nothing but the root key is wrapped with it: the context is in `reconcile/root.rs`.
fn for_the_root() -> Value {
    json!({ "StringEquals": { "kms:EncryptionContext:isoform:kind": "root-key" } })
}

/// Checkpoints are signed as SHA-256, and nothing else is asked of the key.
fn digests_only() -> Value {
    json!({ "StringEquals": { "kms:MessageType": "DIGEST", "kms:SigningAlgorithm": "ECDSA_SHA_256" } })
}

/// What reading archives needs. The policies of their bucket and key are somebody else's, and are not written here.
fn fetching(shelf: &Store, index: usize) -> Vec<Value> {
    let read = &["s3:GetObject"];
    let read = allow(
        &format!("ReadArchives{index}"),
        read,
        vec![objects(shelf, "*")],
    );
    let list = &["s3:ListBucket"];
    let list = allow(
        &format!("ListArchives{index}"),
        list,
        vec![bucket_of(shelf)],
    );
    let mut statements = vec![owned(shelf, read), owned(shelf, list)];
    if !every_key(shelf).is_empty() {
        let open = allow(
            &format!("OpenArchives{index}"),
            &["kms:Decrypt"],
            every_key(shelf),
        );
        statements.push(through_s3(shelf, open));
    }
    statements
}

/// Policies of queues: EventBridge of the same account and region fills them, over TLS, and nobody else.
pub(super) fn queues(setup: &Setup) -> Vec<ResourceDocument> {
    let policy = |queue: &Queue| {
        let (account, region) = (account_of(&queue.arn), &queue.region);
        let rules = format!(
            "arn:{}:events:{region}:{account}:rule/*",
            region.partition().0
        );
        document(vec![
            on(
                json!({ "Sid": "Hints", "Effect": "Allow", "Principal": { "Service": "events.amazonaws.com" }, "Action": "sqs:SendMessage", "Resource": queue.arn }),
                json!({ "StringEquals": { "aws:SourceAccount": account }, "ArnLike": { "aws:SourceArn": rules } }),
            ),
            on(
                json!({ "Sid": "OnlyTls", "Effect": "Deny", "Principal": "*", "Action": "sqs:*", "Resource": queue.arn }),
                json!({ "Bool": { "aws:SecureTransport": "false" } }),
            ),
        ])
    };
    setup
        .queues
        .iter()
        .map(|queue| ResourceDocument {
            name: queue.arn.clone(),
            owner: account_of(&queue.arn),
            region: queue.region.clone(),
            policy: policy(queue),
        })
        .collect()
}

/// What working in a store needs.
fn keeping(store: &Store, index: usize) -> Vec<Value> {
    let mut statements = vec![
        owned(
            store,
            allow(
                &format!("KeepBundles{index}"),
                KEEP,
                vec![objects(store, "*")],
            ),
        ),
        // Without it S3 answers 403 where nothing is, and what is unknown is never taken for "not there".
        owned(
            store,
            allow(
                &format!("ListBundles{index}"),
                &["s3:ListBucket"],
                vec![bucket_of(store)],
            ),
        ),
    ];
    if store.locks {
        let keep = allow(&format!("LockLog{index}"), LOCK, log_of(store));
        statements.push(owned(store, keep));
    }
    if let Some(key) = &store.key {
        let make = &["kms:GenerateDataKey"];
        let make = allow(&format!("MakeDataKeys{index}"), make, vec![key.clone()]);
        // A store that seals asks for data keys itself; elsewhere only S3 does.
        statements.push(if store.seals {
            make
        } else {
            through_s3(store, make)
        });
    }
    if !every_key(store).is_empty() {
        let open = allow(
            &format!("OpenBundles{index}"),
            &["kms:Decrypt"],
            every_key(store),
        );
        statements.push(if store.seals || !store.former_keys.is_empty() {
            open
        } else {
            through_s3(store, open)
        });
    }
    statements
}

fn every_key(store: &Store) -> Vec<String> {
    store
        .key
        .iter()
        .chain(&store.former_keys)
        .cloned()
        .collect()
}

/// What is kept by Object Lock: the log, and the wrapped root key that opens it.
fn log_of(store: &Store) -> Vec<String> {
    ["checkpoints/*", "keys/*", "log/*", "root/*"]
        .map(|what| objects(store, what))
        .into()
}

fn bucket_of(store: &Store) -> String {
    format!(
        "arn:{}:s3:::{}",
        partition(Some(&store.region)),
        store.bucket
    )
}

fn objects(store: &Store, what: &str) -> String {
    let slash = if store.prefix.is_empty() { "" } else { "/" };
    format!(
        "arn:{}:s3:::{}/{}{slash}{what}",
        partition(Some(&store.region)),
        store.bucket,
        store.prefix
    )
}

/// The URL that the object adapter makes, with anything for the name and the version.
fn template_url(store: &Store) -> String {
    let slash = if store.prefix.is_empty() { "" } else { "/" };
    format!(
        "https://s3.{}.{}/{}/{}{slash}{RENDERED}",
        store.region,
        store.region.partition().1,
        store.bucket,
        store.prefix
    )
}

fn owned(store: &Store, statement: Value) -> Value {
    on(
        statement,
        json!({ "StringEquals": { "aws:ResourceAccount": store.owner } }),
    )
}

fn through_s3(store: &Store, statement: Value) -> Value {
    on(
        statement,
        json!({ "StringEquals": { "kms:ViaService": via_s3(store) } }),
    )
}

fn via_s3(store: &Store) -> String {
    format!("s3.{}.{}", store.region, store.region.partition().1)
}

fn stacks(all: &BTreeMap<AccountId, Stacks>) -> Vec<String> {
    let mut arns = Vec::new();
    for (account, stacks) in all {
        for region in &stacks.regions {
            let head = format!(
                "arn:{}:cloudformation:{region}:{account}",
                region.partition().0
            );
            arns.push(format!("{head}:stack/*"));
            // A change set is named by its own ARN, and which of the two is looked at is not the same for every call.
            arns.push(format!("{head}:changeSet/*"));
        }
    }
    arns
}

/// Principals that use a store: `keeps` work in it, `reads` let CloudFormation read templates.
fn users(
    setup: &Setup,
    drafts: &BTreeMap<Holder, Draft>,
    name: &str,
) -> (Vec<String>, Vec<String>) {
    let those = |is: &dyn Fn(&Draft) -> bool| -> Vec<String> {
        let holders = drafts.iter().filter(|(_, d)| is(d));
        holders.map(|(h, _)| principal(setup, h)).collect()
    };
    (
        those(&|d| d.keeps.contains(name)),
        those(&|d| d.reads.contains(name)),
    )
}

/// Names of stores by bucket: several may lie in one.
fn by_bucket(setup: &Setup) -> BTreeMap<&str, Vec<&String>> {
    let mut buckets: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for (name, store) in &setup.stores {
        buckets.entry(&store.bucket).or_default().push(name);
    }
    buckets
}

/// Policies of buckets: TLS only, encrypted as configured only, and other accounts as far as they need.
pub(super) fn buckets(setup: &Setup, drafts: &BTreeMap<Holder, Draft>) -> Vec<ResourceDocument> {
    let mut documents = Vec::new();
    for (bucket, names) in by_bucket(setup) {
        let first = &setup.stores[names[0]];
        let arn = format!("arn:{}:s3:::{bucket}", partition(Some(&first.region)));
        let everything = [arn.clone(), format!("{arn}/*")];
        let deny = |sid: &str, action: &str, resources: Value, condition: Value| json!({ "Sid": sid, "Effect": "Deny", "Principal": "*", "Action": action, "Resource": resources, "Condition": condition });
        let mut statements = vec![
            deny(
                "OnlyTls",
                "s3:*",
                json!(everything),
                json!({ "Bool": { "aws:SecureTransport": "false" } }),
            ),
            deny(
                "OnlyTls12OrNewer",
                "s3:*",
                json!(everything),
                json!({ "NumericLessThan": { "s3:TlsVersion": "1.2" } }),
            ),
        ];
        for (index, name) in names.iter().enumerate() {
            let store = &setup.stores[*name];
            let put = json!([objects(store, "*")]);
            let algorithm = if store.key.is_some() {
                "aws:kms"
            } else {
                "AES256"
            };
            statements.push(deny(
                &format!("OnlyEncrypted{index}"),
                "s3:PutObject",
                put.clone(),
                json!({ "StringNotEquals": { "s3:x-amz-server-side-encryption": algorithm } }),
            ));
            if let Some(key) = &store.key {
                statements.push(deny(
                    &format!("OnlyUnderTheKey{index}"),
                    "s3:PutObject",
                    put,
                    json!({ "StringNotEquals": { "s3:x-amz-server-side-encryption-aws-kms-key-id": key } }),
                ));
            }
            let (keep, read) = users(setup, drafts, name);
            // Inside of the account the policies of the roles are enough.
            let other = |p: &String| *p == DAEMON || account_of(p) != store.owner.as_str();
            let keep: Vec<String> = keep.into_iter().filter(other).collect();
            let read: Vec<String> = read.into_iter().filter(other).collect();
            let give = |sid: String, to: Vec<String>, actions: &[&str], at: String| json!({ "Sid": sid, "Effect": "Allow", "Principal": { "AWS": to }, "Action": actions, "Resource": [at] });
            if !keep.is_empty() {
                let objects = objects(store, "*");
                statements.push(give(format!("Keep{index}"), keep.clone(), KEEP, objects));
                if store.locks {
                    statements.push(json!({ "Sid": format!("Lock{index}"), "Effect": "Allow", "Principal": { "AWS": keep }, "Action": LOCK, "Resource": log_of(store) }));
                }
                let list = &["s3:ListBucket"];
                statements.push(give(format!("List{index}"), keep, list, arn.clone()));
            }
            if !read.is_empty() {
                let actions = &["s3:GetObject", "s3:GetObjectVersion"];
                let rendered = objects(store, RENDERED);
                statements.push(give(format!("Read{index}"), read, actions, rendered));
            }
        }
        documents.push(ResourceDocument {
            name: bucket.to_owned(),
            owner: first.owner.to_string(),
            region: first.region.clone(),
            policy: document(statements),
        });
    }
    documents
}

/// Policies of keys: the account administers it, isoform uses it, CloudFormation's callers open through S3.
pub(super) fn keys(setup: &Setup, drafts: &BTreeMap<Holder, Draft>) -> Vec<ResourceDocument> {
    let mut users_of: BTreeMap<String, (Region, Vec<Value>)> = BTreeMap::new();
    for (index, (name, store)) in setup.stores.iter().enumerate() {
        let (keep, read) = users(setup, drafts, name);
        for key in every_key(store) {
            let current = store.key.as_ref() == Some(&key);
            let (_, statements) = users_of
                .entry(key)
                .or_insert_with(|| (store.region.clone(), Vec::new()));
            let actions: &[&str] = if current {
                &["kms:Decrypt", "kms:GenerateDataKey"]
            } else {
                &["kms:Decrypt"]
            };
            let give = |sid: String, to: &[String], actions: &[&str]| json!({ "Sid": sid, "Effect": "Allow", "Principal": { "AWS": to }, "Action": actions, "Resource": "*" });
            let kept = give(format!("Keep{index}"), &keep, actions);
            statements.push(if store.seals || !store.former_keys.is_empty() {
                kept
            } else {
                through_s3(store, kept)
            });
            if !read.is_empty() {
                let read = give(format!("Read{index}"), &read, &["kms:Decrypt"]);
                statements.push(through_s3(store, read));
            }
        }
    }
    for (holder, draft) in drafts {
        let key = draft.roots.as_ref();
        let region = key.and_then(|k| k.split(':').nth(3)?.parse::<Region>().ok());
        if let (Some(key), Some(region)) = (key, region) {
            let to = principal(setup, holder);
            let (_, statements) = users_of.entry(key.clone()).or_insert((region, Vec::new()));
            statements.push(on(
                json!({ "Sid": "UseRootKey", "Effect": "Allow", "Principal": { "AWS": [to] }, "Action": ROOT, "Resource": "*" }),
                for_the_root(),
            ));
        }
    }
    for (holder, draft) in drafts {
        let key = draft.signs.as_ref();
        let region = key.and_then(|k| k.split(':').nth(3)?.parse::<Region>().ok());
        if let (Some(key), Some(region)) = (key, region) {
            let to = principal(setup, holder);
            let give = |sid: &str, actions: &[&str]| json!({ "Sid": sid, "Effect": "Allow", "Principal": { "AWS": [to] }, "Action": actions, "Resource": "*" });
            let (_, statements) = users_of.entry(key.clone()).or_insert((region, Vec::new()));
            statements.push(give("KnowSigningKey", SIGN));
            statements.push(on(give("SignCheckpoints", &["kms:Sign"]), digests_only()));
        }
    }
    users_of
        .into_iter()
        .map(|(key, (region, mut statements))| {
            let owner = account_of(&key);
            let root = format!("arn:{}:iam::{owner}:root", region.partition().0);
            // Without it nobody could ever change this policy again.
            statements.insert(0, json!({ "Sid": "Administer", "Effect": "Allow", "Principal": { "AWS": root }, "Action": "kms:*", "Resource": "*" }));
            ResourceDocument {
                name: key,
                owner,
                region,
                policy: document(statements),
            }
        })
        .collect()
}
