//! What the configuration says of AWS: how it is reached, with which roles, and where bundles lie.

use std::collections::BTreeMap;

use super::hints::{self, HintQueue};
use super::raw;
use crate::domain::estate::Placement;
use crate::domain::model::{AccountId, PlacementName, Region};
use crate::domain::policy::Mode;

/// A role that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Its ARN.
    pub arn: String,
    /// What its trust policy asks for.
    pub external_id: Option<String>,
}

/// With which hands a placement is worked in.
#[derive(Clone, Debug, Default)]
pub struct Hands {
    /// Reads and makes change sets.
    pub preview: Option<Hop>,
    /// Executes.
    pub apply: Option<Hop>,
    /// The ARN of the role that CloudFormation takes.
    pub cloudformation: Option<String>,
}

/// A bucket with bundles.
#[derive(Clone, Debug)]
pub struct S3Store {
    /// The bucket.
    pub bucket: String,
    /// What stands before every key; may be empty.
    pub prefix: String,
    /// The account that the bucket must belong to.
    pub owner: AccountId,
    /// Its region.
    pub region: Region,
    /// How bundles are encrypted.
    pub encryption: raw::Encryption,
    /// The ARN of the key, where one is used.
    pub key: Option<String>,
    /// ARNs of keys that were used before.
    pub former_keys: Vec<String>,
    /// The role that reaches it.
    pub role: Option<Hop>,
    /// How the log is kept in it.
    pub lock: Option<raw::ObjectLock>,
}

/// The key that signs checkpoints of the log beside the log's own.
#[derive(Clone, Debug)]
pub enum Signing {
    /// A key of the embedded engine, by its name.
    Local(String),
    /// A key of KMS.
    Kms(KmsRoot),
}

impl std::fmt::Display for Signing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(name) => write!(f, "local://{name}"),
            Self::Kms(key) => f.write_str(&key.key),
        }
    }
}

/// A key of KMS with the role that uses it: one that wraps the root key, or one that signs.
#[derive(Clone, Debug)]
pub struct KmsRoot {
    /// Its ARN.
    pub key: String,
    /// Its region.
    pub region: Region,
    /// The role that may use it.
    pub role: Option<Hop>,
}

/// AWS, as it is configured.
#[derive(Clone, Debug)]
pub struct Aws {
    /// Another endpoint for every service.
    pub endpoint: Option<String>,
    /// Endpoints with validated cryptography.
    pub fips: bool,
    /// Endpoints that speak IPv6 too.
    pub dual_stack: bool,
    /// The name of sessions.
    pub session: String,
    /// Tags of sessions.
    pub session_tags: BTreeMap<String, String>,
    /// Roles that are taken before any other.
    pub chain: Vec<Hop>,
    /// What the session of a deployment carries.
    pub deployments: raw::Deployments,
    /// Roles by placement.
    pub hands: BTreeMap<PlacementName, Hands>,
    /// Bundle stores by name.
    pub stores: BTreeMap<String, S3Store>,
    /// The store of the catalogue, the owners and the log.
    pub home: String,
    /// Queues of hints.
    pub queues: Vec<HintQueue>,
    /// The store that serves a placement's region.
    pub serves: BTreeMap<(PlacementName, Region), String>,
}

/// Reports what means nothing beside the embedded engine.
pub(super) fn unused(file: &raw::File, faults: &mut Vec<String>) {
    if file.aws.is_some() {
        faults.push(
            "aws: one installation is on AWS or on the embedded engine; take away `aws` or `local`"
                .into(),
        );
    }
    for (name, store) in &file.bundle_stores {
        if store.url != "local://bundles" {
            faults.push(format!(
                "bundle_stores.{name}.url: beside `local` write local://bundles; without `local` the store is s3://…"
            ));
        }
        if store.object_lock.is_some() {
            faults.push(format!(
                "bundle_stores.{name}.object_lock: the embedded store has none"
            ));
        }
        if store.encryption == raw::Encryption::SseKms {
            faults.push(format!(
                "bundle_stores.{name}.encryption: the embedded store has sse-s3 and client-kms"
            ));
        }
    }
    if file.bundle_stores.len() > 1 {
        faults.push("bundle_stores: the embedded engine has one; take the others away".into());
    }
    for (name, store) in &file.bundle_stores {
        for (key, given) in [
            ("owner", store.owner.is_some()),
            ("region", store.region.is_some()),
            ("key", store.key.is_some()),
            ("former_keys", !store.former_keys.is_empty()),
            ("role", store.role.is_some()),
            ("external_id", store.external_id.is_some()),
        ] {
            if given {
                faults.push(format!(
                    "bundle_stores.{name}.{key}: it is about a bucket of AWS, and the embedded store has none; take it away"
                ));
            }
        }
    }
    if let Some(home) = file
        .home
        .as_ref()
        .filter(|h| !file.bundle_stores.contains_key(*h))
    {
        faults.push(format!("home: there is no bundle store `{home}`"));
    }
    for (name, placement) in &file.placements {
        let regions = placement.bundle_store.keys();
        for region in regions.filter(|r| !placement.regions.contains(*r)) {
            faults.push(no_such_region(name, region));
        }
    }
    for (name, account) in &file.accounts {
        let roles = &account.roles;
        if account.external_id.is_some() {
            faults.push(format!(
                "accounts.{name}.external_id: the embedded engine takes no roles"
            ));
        }
        if account.hints.is_some() {
            faults.push(format!(
                "accounts.{name}.hints: the embedded engine gives no hints; its stacks are looked at for nothing"
            ));
        }
        if roles.preview.is_some() || roles.apply.is_some() || roles.cloudformation.is_some() {
            faults.push(format!(
                "accounts.{name}.roles: the embedded engine knows no roles"
            ));
        }
    }
}

fn no_such_region(placement: &str, region: &str) -> String {
    format!("placements.{placement}.bundle_store.{region}: the placement has no such region")
}

/// Gives meaning to what the file says of AWS.
pub(super) fn resolve(
    file: &raw::File,
    placements: &BTreeMap<PlacementName, Placement>,
    faults: &mut Vec<String>,
) -> Option<Aws> {
    let given = file.aws.clone().unwrap_or_default();
    if let Some(endpoint) = &given.endpoint {
        endpoint_is_safe(endpoint, faults);
        for (on, word) in [(given.fips, "fips"), (given.dual_stack, "dual_stack")] {
            if on {
                faults.push(format!(
                    "aws.{word}: it chooses among Amazon's own endpoints; with aws.endpoint write an endpoint that is one"
                ));
            }
        }
    }
    tags_fit(&given.session_tags, faults);
    let session = given.session.unwrap_or_else(|| "isoform".into());
    let fits = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    if !(2..=64).contains(&session.len()) || !session.chars().all(fits) {
        faults.push("aws.session: 2 to 64 letters, digits and any of _+=,.@-".into());
    }
    let mut chain = Vec::new();
    for (index, hop) in given.chain.iter().enumerate() {
        let at = format!("aws.chain[{index}].role");
        id_fits(
            hop.external_id.as_ref(),
            &format!("aws.chain[{index}]"),
            faults,
        );
        if let Some(arn) = role(&hop.role, None, &at, faults) {
            chain.push(Hop {
                arn,
                external_id: hop.external_id.clone(),
            });
        }
    }
    let stores: BTreeMap<String, S3Store> = file
        .bundle_stores
        .iter()
        .filter_map(|(name, raw)| {
            let at = format!("bundle_stores.{name}");
            Some((name.clone(), store(&at, raw, faults)?))
        })
        .collect();
    for (name, account) in &file.accounts {
        let at = format!("accounts.{name}");
        id_fits(account.external_id.as_ref(), &at, faults);
        let given = [&account.roles.preview, &account.roles.apply];
        if account.external_id.is_some() && given.iter().all(|r| r.is_none()) {
            faults.push(format!(
                "{at}.external_id: it is given with a role that is taken, and neither roles.preview nor roles.apply is named"
            ));
        }
    }
    let home = home(file, faults)?;
    for (name, _) in stores
        .iter()
        .filter(|(name, store)| **name != home && store.lock.is_some())
    {
        faults.push(format!(
            "bundle_stores.{name}.object_lock: it keeps the log, and the log lies in `{home}`"
        ));
    }
    let mut hands = BTreeMap::new();
    let mut serves = BTreeMap::new();
    for (name, raw) in &file.placements {
        let Some(placement) = placements.values().find(|p| p.name.as_str() == name) else {
            continue;
        };
        for region in raw.bundle_store.keys() {
            if !placement.regions.iter().any(|r| r.as_str() == region) {
                faults.push(no_such_region(name, region));
            }
        }
        for region in &placement.regions {
            let store = raw.bundle_store.get(region.as_str()).unwrap_or(&home);
            serves.insert((placement.name.clone(), region.clone()), store.clone());
        }
        if let Some(account) = file.accounts.get(&raw.account) {
            let at = format!("accounts.{}.roles", raw.account);
            hands.insert(
                placement.name.clone(),
                hands_of(account, placement, &at, faults),
            );
        }
    }
    let queues = file.accounts.iter().flat_map(|(name, account)| {
        let here = |p: &&Placement| p.account.as_str() == account.id;
        let here: Vec<&Placement> = placements.values().filter(here).collect();
        hints::queues(name, account, &here, faults)
    });
    let queues = queues.collect();
    if given.deployments.are_apart() {
        for placement in placements.values().filter(|p| p.mode != Mode::Observe) {
            if hands
                .get(&placement.name)
                .is_none_or(|h: &Hands| h.apply.is_none())
            {
                faults.push(format!(
                    "aws.deployments: a deployment in `{}` takes no role, so its session can carry nothing: name roles.apply of its account",
                    placement.name
                ));
            }
        }
        if given.deployments.tags && given.session_tags.len() > 48 {
            faults.push("aws.session_tags: with `deployments.tags` at most 48: a session has at most 50 tags".into());
        }
        for key in ["isoform:target", "isoform:commit"] {
            if given.session_tags.contains_key(key) {
                faults.push(format!(
                    "aws.session_tags.{key}: `deployments.tags` gives it"
                ));
            }
        }
    }
    Some(Aws {
        endpoint: given.endpoint,
        fips: given.fips,
        dual_stack: given.dual_stack,
        session,
        session_tags: given.session_tags,
        chain,
        deployments: given.deployments,
        hands,
        stores,
        home,
        queues,
        serves,
    })
}

/// What STS takes as an external id: <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>
fn id_fits(id: Option<&String>, at: &str, faults: &mut Vec<String>) {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_+=,.@:/-".contains(c);
    if id.is_some_and(|id| !(2..=1224).contains(&id.len()) || !id.chars().all(fits)) {
        faults.push(format!(
            "{at}.external_id: 2 to 1,224 letters, digits and any of _+=,.@:/-"
        ));
    }
}

/// What STS takes as tags of a session: the same page.
fn tags_fit(tags: &BTreeMap<String, String>, faults: &mut Vec<String>) {
    let at = "aws.session_tags";
    if tags.len() > 50 {
        faults.push(format!("{at}: a session has at most 50 tags"));
    }
    let fits = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c);
    for (key, value) in tags {
        let (long, far) = (key.chars().count(), value.chars().count());
        if !(1..=128).contains(&long) || !key.chars().all(fits) {
            faults.push(format!(
                "{at}: `{key}`: a key has 1 to 128 letters, digits, spaces and any of _.:/=+-@"
            ));
        }
        if far > 256 || !value.chars().all(fits) {
            faults.push(format!(
                "{at}.{key}: a value has at most 256 letters, digits, spaces and any of _.:/=+-@"
            ));
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            faults.push(format!(
                "{at}.{key}: names that begin with aws: are Amazon's"
            ));
        }
    }
}

fn endpoint_is_safe(endpoint: &str, faults: &mut Vec<String>) {
    let loopback = ["127.0.0.1", "localhost", "[::1]"];
    let safe = match endpoint.split_once("://") {
        Some(("https", host)) => !host.is_empty(),
        Some(("http", rest)) => loopback.iter().any(|host| {
            rest.strip_prefix(host)
                .is_some_and(|r| r.is_empty() || r.starts_with([':', '/']))
        }),
        _ => false,
    };
    if !safe || endpoint.contains('@') {
        faults.push(
            "aws.endpoint: write https://…, without a user; http:// only to this machine itself"
                .into(),
        );
    }
}

fn hands_of(
    account: &raw::Account,
    placement: &Placement,
    at: &str,
    faults: &mut Vec<String>,
) -> Hands {
    let mut find = |word: &str, given: &Option<String>| {
        let given = given.as_ref()?;
        role(given, Some(placement), &format!("{at}.{word}"), faults)
    };
    let taken = |arn: String| Hop {
        arn,
        external_id: account.external_id.clone(),
    };
    Hands {
        preview: find("preview", &account.roles.preview).map(taken),
        apply: find("apply", &account.roles.apply).map(taken),
        cloudformation: find("cloudformation", &account.roles.cloudformation),
    }
}

/// Completes the name of a role, or takes its ARN; a role of a placement is one of its account.
pub(super) fn role(
    given: &str,
    placement: Option<&Placement>,
    at: &str,
    faults: &mut Vec<String>,
) -> Option<String> {
    if given.starts_with("arn:") {
        let parts: Vec<&str> = given.splitn(6, ':').collect();
        let good = matches!(parts.as_slice(), [_, _, "iam", "", account, name]
            if account.len() == 12 && name.starts_with("role/") && name.len() > 5);
        if !good {
            faults.push(format!(
                "{at}: `{given}` is not arn:<partition>:iam::<account>:role/<name>"
            ));
            return None;
        }
        if placement.is_some_and(|p| p.account.as_str() != parts[4]) {
            faults.push(format!("{at}: {given} is a role of another account"));
            return None;
        }
        return Some(given.to_owned());
    }
    let Some(placement) = placement else {
        faults.push(format!("{at}: write the whole ARN"));
        return None;
    };
    let named = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-/".contains(c);
    if given.is_empty() || !given.chars().all(named) {
        faults.push(format!("{at}: `{given}` is no name of a role"));
        return None;
    }
    let (partition, _) = placement.regions.first()?.partition();
    Some(format!(
        "arn:{partition}:iam::{}:role/{given}",
        placement.account
    ))
}

/// Gives meaning to a bucket that no file names, or tells every fault.
pub fn bucket(raw: &raw::BundleStore) -> Result<S3Store, Vec<String>> {
    let mut faults = Vec::new();
    let found = store("the bucket", raw, &mut faults);
    found.ok_or(faults)
}

/// Gives meaning to a root key in KMS.
pub(super) fn root(file: &raw::File, arn: &str, faults: &mut Vec<String>) -> Option<KmsRoot> {
    let given = &file.state;
    if file.local.is_some() {
        faults.push("state.key: a key of KMS is in AWS; beside `local` write file:<path>".into());
        return None;
    }
    key("state", arn, &given.role, &given.external_id, faults)
}

/// Gives meaning to a key of KMS and the role that uses it; `at` is the key of the file that names it.
fn key(
    at: &str,
    arn: &str,
    given: &Option<String>,
    external_id: &Option<String>,
    faults: &mut Vec<String>,
) -> Option<KmsRoot> {
    if external_id.is_some() && given.is_none() {
        faults.push(format!(
            "{at}.external_id: it is given with a role that is taken, and there is no `role`"
        ));
    }
    id_fits(external_id.as_ref(), at, faults);
    let hop = match given {
        Some(name) => Some(Hop {
            arn: role(name, None, &format!("{at}.role"), faults)?,
            external_id: external_id.clone(),
        }),
        None => None,
    };
    let Some(region) = key_region(arn) else {
        faults.push(format!(
            "{at}.key: `{arn}` is not arn:<partition>:kms:<region>:<account>:key/<id>; an alias can be pointed elsewhere and is not taken"
        ));
        return None;
    };
    Some(KmsRoot {
        key: arn.to_owned(),
        region,
        role: hop,
    })
}

/// Gives meaning to the key that signs checkpoints.
pub(super) fn signing(file: &raw::File, faults: &mut Vec<String>) -> Option<Signing> {
    let given = file.signing.as_ref()?;
    if file.local.is_none() {
        return key(
            "signing",
            &given.key,
            &given.role,
            &given.external_id,
            faults,
        )
        .map(Signing::Kms);
    }
    for (word, is_given) in [
        ("role", given.role.is_some()),
        ("external_id", given.external_id.is_some()),
    ] {
        if is_given {
            faults.push(format!(
                "signing.{word}: the embedded engine knows no roles"
            ));
        }
    }
    let name = given.key.strip_prefix("local://").unwrap_or_default();
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        faults.push(
            "signing.key: beside `local` write local://<name>, of small letters, digits and `-`: the embedded engine makes that key".into(),
        );
        return None;
    }
    Some(Signing::Local(name.to_owned()))
}

fn home(file: &raw::File, faults: &mut Vec<String>) -> Option<String> {
    let mut names = file.bundle_stores.keys();
    match (&file.home, names.next(), names.next()) {
        (Some(home), ..) if file.bundle_stores.contains_key(home) => Some(home.clone()),
        (Some(home), ..) => {
            faults.push(format!("home: there is no bundle store `{home}`"));
            None
        }
        (None, Some(only), None) => Some(only.clone()),
        (None, None, _) => {
            faults.push("bundle_stores: on AWS one is needed, s3://<bucket>/<prefix>; without AWS write local: { path: … }".into());
            None
        }
        (None, Some(_), Some(_)) => {
            faults.push("home: of several bundle stores, say which one holds the catalogue, the owners and the log".into());
            None
        }
    }
}

/// The region of the ARN of a key.
fn key_region(arn: &str) -> Option<Region> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    match parts.as_slice() {
        ["arn", _, "kms", region, account, key]
            if account.len() == 12 && key.starts_with("key/") =>
        {
            region.parse().ok()
        }
        _ => None,
    }
}

/// Gives meaning to a bucket; `at` is the key of the file that names it.
pub(super) fn store(at: &str, raw: &raw::BundleStore, faults: &mut Vec<String>) -> Option<S3Store> {
    let before = faults.len();
    let mut fault = |text: String| faults.push(format!("{at}.{text}"));
    let rest = raw.url.strip_prefix("s3://").unwrap_or_default();
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let lettered = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(lettered) {
        fault("url: write s3://<bucket> or s3://<bucket>/<prefix>".into());
    }
    let prefix = prefix.trim_matches('/');
    let owner = raw.owner.as_deref().map(str::parse::<AccountId>);
    match &owner {
        None => fault(
            "owner: the account that the bucket belongs to; a bucket of anybody else is refused"
                .into(),
        ),
        Some(Err(error)) => fault(format!("owner: {error}")),
        Some(Ok(_)) => {}
    }
    let needs = raw.encryption != raw::Encryption::SseS3;
    match (&raw.key, needs) {
        (None, true) => fault("key: sse-kms and client-kms need the ARN of a key".into()),
        (Some(_), false) => fault("key: sse-s3 takes no key; write encryption: sse-kms".into()),
        _ => {}
    }
    for key in raw.key.iter().chain(&raw.former_keys) {
        if key_region(key).is_none() {
            fault(format!(
                "key: `{key}` is not arn:<partition>:kms:<region>:<account>:key/<id>; an alias can be pointed elsewhere and is not taken"
            ));
        }
    }
    let keyed = raw.key.as_deref().and_then(key_region);
    let region = match raw.region.as_deref().map(str::parse::<Region>) {
        Some(Err(error)) => {
            fault(format!("region: {error}"));
            None
        }
        Some(Ok(region)) => Some(region),
        None => keyed.clone(),
    };
    match (&region, &keyed) {
        (None, _) if raw.region.is_none() => fault("region: the bucket's region".into()),
        (Some(region), Some(keyed)) if region != keyed => {
            fault(format!(
                "key: the key is in {keyed}, and the bucket in {region}"
            ));
        }
        _ => {}
    }
    if let Some(region) = &region {
        for former in &raw.former_keys {
            if key_region(former).is_some_and(|r| r != *region) {
                fault(format!(
                    "former_keys: {former} is in another region than the bucket, which is in {region}; what it encrypted cannot lie there"
                ));
            }
        }
    }
    if let Some(lock) = &raw.object_lock {
        if lock.days == 0 && !lock.legal_hold {
            fault("object_lock: say for how many `days`, or `legal_hold: true`".into());
        }
        if lock.days > 36_500 {
            fault("object_lock.days: S3 keeps nothing for more than 100 years".into());
        }
    }
    if raw.external_id.is_some() && raw.role.is_none() {
        fault("external_id: it is given with a role that is taken, and there is no `role`".into());
    }
    id_fits(raw.external_id.as_ref(), at, faults);
    let role = raw.role.as_ref().and_then(|given| {
        let arn = role(given, None, &format!("{at}.role"), faults)?;
        Some(Hop {
            arn,
            external_id: raw.external_id.clone(),
        })
    });
    if faults.len() > before {
        return None;
    }
    Some(S3Store {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        owner: owner?.ok()?,
        region: region?,
        encryption: raw.encryption,
        key: raw.key.clone(),
        former_keys: raw.former_keys.clone(),
        role,
        lock: raw.object_lock,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Encryption};
    use super::*;

    const GOOD: &str = r#"
isoform: 1
aws: { endpoint: "https://vpce.example", session: isoform-prod, chain: [ { role: "arn:aws:iam::111111111111:role/hub", external_id: xx } ] }
accounts: { prod: { id: "333333333333", roles: { preview: look, apply: act, cloudformation: "arn:aws:iam::333333333333:role/cfn" }, external_id: ee, hints: { queue: ["arn:aws:sqs:us-east-1:333333333333:hints", "https://sqs.eu-west-1.amazonaws.com/333333333333/hints-eu"] } } }
placements: { prod: { account: prod, regions: [us-east-1, eu-west-1], bundle_store: { eu-west-1: eu } } }
sources: { p: { url: /srv/p.git, may: { services: ["*"], placements: [prod] } } }
bundle_stores:
  us: { url: "s3://acme-us/x/", owner: "333333333333", encryption: sse-kms, key: "arn:aws:kms:us-east-1:333333333333:key/k" }
  eu: { url: "s3://acme-eu", owner: "333333333333", region: eu-west-1, encryption: sse-s3 }
home: us
state: { path: state, key: "file:root.key" }
"#;

    fn resolve(text: &str) -> Result<Config, Vec<String>> {
        let file: raw::File = serde_yaml::from_str(text).unwrap();
        Config::resolve(&file, Path::new("/x"))
    }

    #[test]
    fn a_signing_key_is_one_of_kms_and_one_of_the_embedded_engine_beside_it() {
        let with = |text: &str, line: &str| resolve(&format!("{text}signing: {line}\n"));
        let arn = "arn:aws:kms:us-east-1:333333333333:key/s";
        let role = "arn:aws:iam::333333333333:role/signs";
        let whole = format!("{{ key: '{arn}', role: '{role}', external_id: xx }}");
        let Some(Signing::Kms(key)) = with(GOOD, &whole).unwrap().signing else {
            panic!("no key of KMS");
        };
        assert_eq!((key.key.as_str(), key.region.as_str()), (arn, "us-east-1"));
        assert_eq!(key.role.unwrap().arn, role);
        let local = "isoform: 1\nsources: { p: { url: /srv/p.git, may: { services: ['*'] } } }\nstate: { path: state, key: 'file:root.key' }\nlocal: { path: cloud }\n";
        let config = with(local, "{ key: 'local://signs' }").unwrap();
        assert_eq!(config.signing.unwrap().to_string(), "local://signs");
        for (text, line, said) in [
            (
                GOOD,
                "{ key: 'local://signs' }",
                "signing.key: `local://signs` is not arn:",
            ),
            (
                GOOD,
                "{ key: 'arn:aws:kms:us-east-1:333333333333:alias/a' }",
                "an alias can be pointed elsewhere",
            ),
            (
                GOOD,
                &format!("{{ key: '{arn}', external_id: xx }}"),
                "signing.external_id",
            ),
            (
                GOOD,
                &format!("{{ key: '{arn}', role: signs }}"),
                "signing.role: write the whole ARN",
            ),
            (
                local,
                &format!("{{ key: '{arn}' }}"),
                "signing.key: beside `local` write local://<name>",
            ),
            (
                local,
                "{ key: 'local://../x' }",
                "signing.key: beside `local`",
            ),
            (
                local,
                "{ key: 'local://s', role: r }",
                "signing.role: the embedded engine knows no roles",
            ),
        ] {
            let faults = with(text, line).unwrap_err();
            assert!(
                faults.iter().any(|f| f.contains(said)),
                "{line}: {faults:?}"
            );
        }
    }

    #[test]
    fn a_good_file_has_its_meaning() {
        let config = resolve(GOOD).unwrap();
        let aws = config.aws.unwrap();
        let place: PlacementName = "prod".parse().unwrap();

        assert_eq!(config.encryption, Encryption::SseKms);
        assert_eq!(
            (aws.home.as_str(), aws.stores["us"].prefix.as_str()),
            ("us", "x")
        );
        let serves = |region: &str| aws.serves[&(place.clone(), region.parse().unwrap())].clone();
        assert_eq!(
            (serves("us-east-1"), serves("eu-west-1")),
            ("us".into(), "eu".into())
        );
        let hands = &aws.hands[&place];
        let apply = hands.apply.clone().unwrap();
        assert_eq!(apply.arn, "arn:aws:iam::333333333333:role/act");
        assert_eq!(apply.external_id.as_deref(), Some("ee"));
        let queues: Vec<String> = aws.queues.iter().map(HintQueue::arn).collect();
        let expected = [
            "arn:aws:sqs:us-east-1:333333333333:hints",
            "arn:aws:sqs:eu-west-1:333333333333:hints-eu",
        ];
        assert_eq!(queues, expected);
        let preview = hands.preview.clone();
        assert!(preview.is_some() && aws.queues.iter().all(|q| q.role == preview));
    }

    #[test]
    fn what_the_embedded_engine_never_uses_is_a_fault() {
        let good = r#"
isoform: 1
accounts: { t: { id: "333333333333" } }
placements: { beta: { account: t, regions: [us-east-1], bundle_store: { us-east-1: main } } }
sources: { p: { url: /srv/p.git, may: { services: ["*"] } } }
bundle_stores: { main: { url: "local://bundles" } }
home: main
state: { path: state, key: "file:root.key" }
local: { path: cloud }
"#;
        assert!(resolve(good).is_ok());
        let of_a_bucket = [
            ("owner", "'333333333333'"),
            ("region", "us-east-1"),
            ("key", "'arn:aws:kms:us-east-1:333333333333:key/k'"),
            (
                "former_keys",
                "['arn:aws:kms:us-east-1:333333333333:key/k']",
            ),
            ("role", "r"),
            ("external_id", "xx"),
        ];
        let mut cases: Vec<(String, String)> = of_a_bucket
            .iter()
            .map(|(key, value)| {
                let text = good.replace("bundles\" }", &format!("bundles\", {key}: {value} }}"));
                (text, format!("bundle_stores.main.{key}"))
            })
            .collect();
        for (from, to, key) in [
            (
                "local://bundles",
                "local://others",
                "bundle_stores.main.url",
            ),
            (
                "bundles\" }",
                "bundles\" }, b: { url: 'local://bundles' }",
                "bundle_stores",
            ),
            ("home: main", "home: them", "home"),
            ("3\" }", "3\", external_id: xx }", "accounts.t.external_id"),
            (
                "{ us-east-1: main }",
                "{ eu-west-1: main }",
                "placements.beta.bundle_store.eu-west-1",
            ),
        ] {
            cases.push((good.replace(from, to), key.to_owned()));
        }
        for (text, key) in cases {
            let faults = resolve(&text).unwrap_err();
            assert!(
                faults.len() == 1 && faults[0].starts_with(&format!("{key}:")),
                "{key}: {faults:?}"
            );
        }
    }

    #[test]
    fn a_fault_says_where_it_is() {
        for (from, to, key) in [
            ("https://vpce.example", "http://10.0.0.1", "aws.endpoint"),
            (
                "https://vpce.example",
                "http://127.0.0.1.example",
                "aws.endpoint",
            ),
            ("isoform-prod", "a b", "aws.session"),
            (
                "arn:aws:iam::111111111111:role/hub",
                "hub",
                "aws.chain[0].role",
            ),
            (
                "iam::333333333333:role/cfn",
                "iam::444444444444:role/cfn",
                "accounts.prod.roles.cloudformation",
            ),
            ("s3://acme-us/x/", "s3://Acme", "bundle_stores.us.url"),
            (
                "owner: \"333333333333\", region",
                "region",
                "bundle_stores.eu.owner",
            ),
            (":key/k", ":alias/k", "bundle_stores.us.key"),
            (
                "encryption: sse-s3",
                "encryption: sse-kms",
                "bundle_stores.eu.key",
            ),
            ("region: eu-west-1, ", "", "bundle_stores.eu.region"),
            ("isoform-prod,", "isoform-prod, fips: true,", "aws.fips"),
            (
                "isoform-prod,",
                "isoform-prod, dual_stack: true,",
                "aws.dual_stack",
            ),
            (
                "isoform-prod,",
                "isoform-prod, session_tags: { 'aws:x': y },",
                "aws.session_tags.aws:x",
            ),
            (
                "isoform-prod,",
                "isoform-prod, session_tags: { x: 'a;b' },",
                "aws.session_tags.x",
            ),
            (
                "isoform-prod,",
                "isoform-prod, session_tags: { '': y },",
                "aws.session_tags",
            ),
            (
                "external_id: xx ",
                "external_id: 'a b' ",
                "aws.chain[0].external_id",
            ),
            (
                "external_id: ee,",
                "external_id: e,",
                "accounts.prod.external_id",
            ),
            (
                "us-east-1:333333333333:hints\"",
                "us-east-1:444444444444:hints\"",
                "accounts.prod.hints.queue",
            ),
            (
                "us-east-1:333333333333:hints\"",
                "us-west-2:333333333333:hints\"",
                "accounts.prod.hints.queue",
            ),
            (
                "us-east-1:333333333333:hints\"",
                "us-east-1:333333333333:hints.fifo\"",
                "accounts.prod.hints.queue",
            ),
            (
                "roles: { preview: look, apply: act, cloudformation: \"arn:aws:iam::333333333333:role/cfn\" }, ",
                "",
                "accounts.prod.external_id",
            ),
            (
                "encryption: sse-s3",
                "encryption: sse-s3, external_id: ee",
                "bundle_stores.eu.external_id",
            ),
            (
                "encryption: sse-s3",
                "encryption: sse-s3, former_keys: ['arn:aws:kms:us-east-1:333333333333:key/k']",
                "bundle_stores.eu.former_keys",
            ),
            (
                "file:root.key",
                "kms:arn:aws:kms:us-east-1:333333333333:alias/k",
                "state.key",
            ),
            (
                "\"file:root.key\"",
                "\"kms:arn:aws:kms:us-east-1:333333333333:key/k\", role: read",
                "state.role",
            ),
            (
                "\"file:root.key\"",
                "\"file:root.key\", external_id: xx",
                "state.external_id",
            ),
            (
                "encryption: sse-s3",
                "encryption: sse-s3, object_lock: { days: 1 }",
                "bundle_stores.eu.object_lock",
            ),
            (
                "encryption: sse-kms",
                "encryption: sse-kms, object_lock: { mode: governance }",
                "bundle_stores.us.object_lock",
            ),
            ("home: us", "home: them", "home"),
            ("home: us", "", "home"),
            (
                "{ eu-west-1: eu }",
                "{ eu-west-2: eu }",
                "placements.prod.bundle_store.eu-west-2",
            ),
            ("state:", "local: { path: c }\nstate:", "aws"),
        ] {
            let faults = resolve(&GOOD.replace(from, to)).unwrap_err();
            assert!(
                faults.iter().any(|f| f.starts_with(&format!("{key}:"))),
                "{key}: {faults:?}"
            );
        }
    }

    #[test]
    fn a_deployment_carries_nothing_where_it_takes_no_role() {
        let text = GOOD
            .replace("session: isoform-prod", "deployments: { narrow: true }")
            .replace(
                "account: prod, regions",
                "account: prod, mode: auto, regions",
            );
        assert!(resolve(&text).unwrap().aws.unwrap().deployments.narrow);

        let without = resolve(&text.replace(", apply: act", "")).unwrap_err();

        assert!(without[0].starts_with("aws.deployments:"), "{without:?}");
        let given = text.replace(
            "deployments: { narrow: true }",
            "deployments: { tags: true }, session_tags: { 'isoform:target': x }",
        );
        let twice = resolve(&given).unwrap_err();
        assert!(
            twice[0].starts_with("aws.session_tags.isoform:target:"),
            "{twice:?}"
        );
    }

    #[test]
    fn the_root_key_may_be_with_kms() {
        let arn = "arn:aws:kms:eu-west-1:333333333333:key/k";
        let text = GOOD.replace("file:root.key", &format!("kms:{arn}"));

        let config = resolve(&text).unwrap();

        let super::super::Root::Kms(root) = &config.root else {
            panic!("{:?}", config.root);
        };
        assert_eq!(
            (root.key.as_str(), root.region.as_str()),
            (arn, "eu-west-1")
        );
        assert_eq!(config.root.to_string(), format!("kms:{arn}"));
    }

    #[test]
    fn a_key_of_another_region_than_the_bucket_is_refused() {
        let faults = resolve(&GOOD.replace(
            "key: \"arn:aws:kms:us-east-1",
            "region: us-east-2, key: \"arn:aws:kms:us-east-1",
        ));
        assert!(
            faults.unwrap_err()[0].starts_with("bundle_stores.us.key: the key is in us-east-1")
        );
    }

    #[test]
    fn without_a_store_the_fault_names_both_ways() {
        let start = GOOD.find("bundle_stores").unwrap();
        let end = GOOD.find("home:").unwrap();
        let text = GOOD
            .replace(&GOOD[start..end], "")
            .replace("home: us\n", "")
            .replace(", bundle_store: { eu-west-1: eu }", "");
        let faults = resolve(&text).unwrap_err();
        assert!(
            faults[0].contains("s3://") && faults[0].contains("local:"),
            "{faults:?}"
        );
    }
}
