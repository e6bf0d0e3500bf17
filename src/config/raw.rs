//! What the configuration file says, before it means anything.

use std::collections::BTreeMap;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::domain::forge::{ForgeKind, Permission};
use crate::domain::model::Prune;
use crate::domain::policy::Mode;

/// The file. Unknown keys are faults.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct File {
    pub isoform: u32,
    #[serde(default)]
    pub accounts: BTreeMap<String, Account>,
    #[serde(default)]
    pub placements: BTreeMap<String, Placement>,
    #[serde(default)]
    pub sources: BTreeMap<String, Source>,
    #[serde(default)]
    pub bundle_stores: BTreeMap<String, BundleStore>,
    #[serde(default)]
    pub home: Option<String>,
    pub state: State,
    #[serde(default)]
    pub signing: Option<Signing>,
    #[serde(default)]
    pub local: Option<Local>,
    #[serde(default)]
    pub aws: Option<Aws>,
    #[serde(default)]
    pub poll: Option<String>,
    #[serde(default)]
    pub sweep: Option<String>,
    #[serde(default)]
    pub workers: Option<usize>,
    #[serde(default)]
    pub people: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub groups: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub listen: Option<Listen>,
}

/// Where the daemon listens beside its socket.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct Listen {
    pub webhooks: String,
}

/// The forge that a repository lives on.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct Forge {
    pub kind: ForgeKind,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub api: Option<String>,
    #[serde(default)]
    pub repository: Option<String>,
    #[serde(default)]
    pub token: Option<String>,
    #[serde(default)]
    pub app: Option<ForgeApp>,
    #[serde(default)]
    pub ca: Option<String>,
    #[serde(default)]
    pub webhook: Option<Webhook>,
    #[serde(default)]
    pub may: ForgeMay,
    #[serde(default = "yes")]
    pub comments: bool,
    #[serde(default = "yes")]
    pub checks: bool,
    #[serde(default)]
    pub poll: Option<String>,
}

fn yes() -> bool {
    true
}

/// An app of GitHub.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct ForgeApp {
    pub id: String,
    pub key: String,
    #[serde(default)]
    pub installation: Option<u64>,
}

/// Secrets of a webhook: files.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct Webhook {
    pub secret: String,
    #[serde(default)]
    pub former: Option<String>,
}

/// What somebody must at least be allowed on the forge to ask for something in a comment. What is absent nobody may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct ForgeMay {
    #[serde(default)]
    pub preview: Option<Permission>,
    #[serde(default)]
    pub why: Option<Permission>,
    #[serde(default)]
    pub approve: Option<Permission>,
    #[serde(default)]
    pub hold: Option<Permission>,
    #[serde(default)]
    pub rollback: Option<Permission>,
}

/// An account.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct Account {
    pub id: String,
    #[serde(default)]
    pub roles: Roles,
    #[serde(default)]
    pub external_id: Option<String>,
    #[serde(default)]
    pub hints: Option<Hints>,
}

/// Where EventBridge leaves word of an account's stacks.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct Hints {
    pub queue: OneOrMore,
}

/// One thing, or a list of such: a queue for each region.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(String),
    /// A list.
    More(Vec<String>),
}

impl OneOrMore {
    /// Returns all of them.
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(all) => all,
        }
    }
}

/// Roles in an account: names, or ARNs.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct Roles {
    #[serde(default)]
    pub preview: Option<String>,
    #[serde(default)]
    pub apply: Option<String>,
    #[serde(default)]
    pub cloudformation: Option<String>,
}

/// How AWS is reached.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct Aws {
    #[serde(default)]
    pub endpoint: Option<String>,
    #[serde(default)]
    pub fips: bool,
    #[serde(default)]
    pub dual_stack: bool,
    #[serde(default)]
    pub session: Option<String>,
    #[serde(default)]
    pub session_tags: BTreeMap<String, String>,
    #[serde(default)]
    pub chain: Vec<Hop>,
    #[serde(default)]
    pub deployments: Deployments,
}

/// How the session of a deployment differs from the others of its role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct Deployments {
    #[serde(default)]
    pub tags: bool,
    #[serde(default)]
    pub source_identity: bool,
    #[serde(default)]
    pub narrow: bool,
}

impl Deployments {
    /// Tells whether deployments have sessions of their own.
    pub fn are_apart(self) -> bool {
        self != Self::default()
    }
}

/// A role that is taken on the way to others.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct Hop {
    pub role: String,
    #[serde(default)]
    pub external_id: Option<String>,
}

/// A placement.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct Placement {
    pub account: String,
    pub regions: Vec<String>,
    #[serde(default)]
    pub mode: Option<Mode>,
    #[serde(default)]
    pub critical: bool,
    #[serde(default)]
    pub gates: Gates,
    #[serde(default)]
    pub blast_radius: Option<usize>,
    #[serde(default)]
    pub prune: PruneRule,
    #[serde(default)]
    pub pin_references: bool,
    #[serde(default, deserialize_with = "by_region")]
    pub bundle_store: BTreeMap<String, String>,
}

/// Reads a map of regions, and tells whoever wrote one word how such a map is written.
fn by_region<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct ByRegion;

    impl<'de> Visitor<'de> for ByRegion {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a map of regions: { <region>: <bundle store> }")
        }

        fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Self::Value, E> {
            Err(E::custom(format!(
                "`{word}` is one word, and a map of regions is needed: {{ <region>: {word} }}; what is not named is served by `home`, so that `home: {word}` may be all that is meant"
            )))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            BTreeMap::deserialize(MapAccessDeserializer::new(map))
        }
    }

    from.deserialize_any(ByRegion)
}

/// What happens to stacks that are no longer asked for.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct PruneRule {
    #[serde(default)]
    pub policy: Prune,
    #[serde(default)]
    pub targets: Option<usize>,
    #[serde(default)]
    pub percent: Option<usize>,
}

/// Gates of a placement.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct Gates {
    #[serde(default)]
    pub approve: Option<Approve>,
}

/// Who approves.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct Approve {
    #[serde(default = "one")]
    pub count: u32,
    #[serde(default)]
    pub from: Vec<String>,
    #[serde(default)]
    pub not_author: bool,
    #[serde(default)]
    pub expires: Option<String>,
}

fn one() -> u32 {
    1
}

/// A source.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct Source {
    pub url: String,
    #[serde(default = "main")]
    pub branch: String,
    #[serde(default)]
    pub mode: Option<Mode>,
    #[serde(default)]
    pub may: Option<May>,
    #[serde(default)]
    pub auth: Auth,
    #[serde(default)]
    pub force_push: ForcePush,
    #[serde(default)]
    pub deadline: Option<String>,
    #[serde(default)]
    pub forge: Option<Forge>,
    #[serde(default)]
    pub owner: Option<String>,
    #[serde(default)]
    pub region: Option<String>,
    #[serde(default)]
    pub key: Option<String>,
    #[serde(default)]
    pub former_keys: Vec<String>,
    #[serde(default)]
    pub role: Option<String>,
    #[serde(default)]
    pub external_id: Option<String>,
}

impl Source {
    /// Tells whether this is no repository, but a place where archives of bundles lie.
    pub fn is_shelf(&self) -> bool {
        self.url.starts_with("s3://") || self.url.starts_with("local://")
    }
}

fn main() -> String {
    "main".into()
}

/// What happens when history was rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ForcePush {
    /// The old head stays until an operator accepts the new one.
    #[default]
    Refuse,
    /// As `refuse`, and it is reported as waiting for an approval.
    Approve,
    /// The new head is taken.
    Follow,
}

/// Globs of what a source may define.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct May {
    #[serde(default)]
    pub templates: Vec<String>,
    #[serde(default)]
    pub environments: Vec<String>,
    #[serde(default)]
    pub services: Vec<String>,
    #[serde(default)]
    pub components: Vec<String>,
    #[serde(default)]
    pub stacks: Vec<String>,
    #[serde(default)]
    pub placements: Vec<String>,
    #[serde(default)]
    pub stack_names: Vec<String>,
}

/// Files with secrets of a source.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct Auth {
    #[serde(default)]
    pub ssh_key: Option<String>,
    #[serde(default)]
    pub known_hosts: Option<String>,
    #[serde(default)]
    pub token: Option<String>,
    #[serde(default)]
    pub user: Option<String>,
}

impl Auth {
    /// Tells whether anything of it is said.
    pub fn is_given(&self) -> bool {
        let Self {
            ssh_key,
            known_hosts,
            token,
            user,
        } = self;
        [ssh_key, known_hosts, token, user]
            .iter()
            .any(|f| f.is_some())
    }
}

/// A bundle store.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct BundleStore {
    pub url: String,
    #[serde(default)]
    pub encryption: Encryption,
    #[serde(default)]
    pub owner: Option<String>,
    #[serde(default)]
    pub region: Option<String>,
    #[serde(default)]
    pub key: Option<String>,
    #[serde(default)]
    pub former_keys: Vec<String>,
    #[serde(default)]
    pub role: Option<String>,
    #[serde(default)]
    pub external_id: Option<String>,
    #[serde(default)]
    pub object_lock: Option<ObjectLock>,
}

/// How the shipped log is kept from everybody, where the bucket has Object Lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct ObjectLock {
    #[serde(default)]
    pub mode: LockMode,
    #[serde(default)]
    pub days: u32,
    #[serde(default)]
    pub legal_hold: bool,
}

/// Who may end a retention early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// Whoever has a right of its own for it.
    Governance,
    /// Nobody.
    #[default]
    Compliance,
}

/// How bundles are encrypted at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encryption {
    /// By the store, with its own key.
    SseS3,
    /// By the store, under a key of ours.
    SseKms,
    /// Sealed before they are put, under the key service.
    #[default]
    ClientKms,
}

/// The daemon's own data.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct State {
    pub path: String,
    pub key: String,
    #[serde(default)]
    pub role: Option<String>,
    #[serde(default)]
    pub external_id: Option<String>,
}

/// The key that signs checkpoints of the log beside the log's own.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct Signing {
    pub key: String,
    #[serde(default)]
    pub role: Option<String>,
    #[serde(default)]
    pub external_id: Option<String>,
}

/// The embedded engine.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/formats/config.md describes every key")]
pub struct Local {
    pub path: String,
    #[serde(default)]
    pub pace: Option<f64>,
}
