//! What AWS must allow, and no more: the roles, trusts and policies of one installation.
//!
//! Pure: a configuration goes in, documents come out. Which calls the adapters make is held against this by a test
//! (`tests/contract/permissions.rs`). What CloudFormation itself may do with its service role follows from the templates, which
//! are not known here: only its trust is written.

mod read;
mod statements;
mod template;
mod trust;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::domain::model::{AccountId, Region};
pub use read::{Refused, refused, refused_of};
pub use template::template;
pub use trust::{Trust, Works, trust};

/// A role that is taken, with what its trust policy asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its ARN.
    pub arn: String,
    /// The external id.
    pub external_id: Option<String>,
}

/// A placement: where it is, and with which hands it is worked in.
#[derive(Clone, Debug)]
pub struct Place {
    /// The account.
    pub account: AccountId,
    /// Its regions, each with the name of the bundle store that serves it.
    pub regions: BTreeMap<Region, String>,
    /// Looks and makes change sets.
    pub preview: Option<Taken>,
    /// Executes.
    pub apply: Option<Taken>,
    /// What CloudFormation takes.
    pub cloudformation: Option<String>,
    /// Whether anything may be executed there.
    pub acts: bool,
    /// Whether versions of parameters and secrets are looked up there.
    pub pins: bool,
}

/// A bundle store.
#[derive(Clone, Debug)]
pub struct Store {
    /// The bucket.
    pub bucket: String,
    /// What stands before every key; may be empty.
    pub prefix: String,
    /// The account that it belongs to.
    pub owner: AccountId,
    /// Its region.
    pub region: Region,
    /// The ARN of the key that it is encrypted under.
    pub key: Option<String>,
    /// ARNs of keys from before.
    pub former_keys: Vec<String>,
    /// Whether bundles are sealed under the key before they are put.
    pub seals: bool,
    /// The role that reaches it.
    pub role: Option<Taken>,
    /// Whether the log is kept in it by Object Lock.
    pub locks: bool,
}

/// An installation.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Who the daemon itself is, an ARN; absent where nobody said it.
    pub daemon: Option<String>,
    /// Roles that are taken before any other.
    pub chain: Vec<Taken>,
    /// Tags of sessions.
    pub tags: BTreeMap<String, String>,
    /// Whether the session of a deployment carries tags with its target and commit.
    pub deployment_tags: bool,
    /// Whether it carries them as its source identity.
    pub source_identity: bool,
    /// Placements.
    pub places: Vec<Place>,
    /// Bundle stores by name.
    pub stores: BTreeMap<String, Store>,
    /// Buckets of others with archives of bundles, by the name of the source: they are read and never written.
    pub shelves: BTreeMap<String, Store>,
    /// The key that wraps the root key of the daemon's own data, with the role that uses it; absent where that is a file.
    pub root: Option<(String, Option<Taken>)>,
    /// The key that signs checkpoints of the log, with the role that uses it; absent where none is configured.
    pub signing: Option<(String, Option<Taken>)>,
    /// Queues of hints.
    pub queues: Vec<Queue>,
    /// Only what looking needs, whatever the placements may do.
    pub observe: bool,
}

/// A queue of hints.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Its ARN.
    pub arn: String,
    /// Its region.
    pub region: Region,
    /// The role that reads it.
    pub role: Option<Taken>,
}

/// Stands for the daemon's own principal where nobody said who that is.
pub const DAEMON: &str = "${DaemonPrincipal}";

/// Whose hands: the daemon's own, or those of a role.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// What the daemon runs as.
    Daemon,
    /// A role, by its ARN.
    Role(String),
}

/// What one holder needs.
#[derive(Clone, Debug, Default)]
struct Draft {
    /// Who takes it, with which external ids.
    taken_by: BTreeSet<(Holder, Option<String>)>,
    /// Roles that it takes.
    takes: BTreeSet<String>,
    /// Stacks that it looks at and proposes changes for.
    looks: BTreeMap<AccountId, Stacks>,
    /// Where it looks up versions of parameters and secrets.
    pins: BTreeMap<AccountId, BTreeSet<Region>>,
    /// Stacks that it changes.
    acts: BTreeMap<AccountId, Stacks>,
    /// Stores that CloudFormation reads templates from with its rights.
    reads: BTreeSet<String>,
    /// Stores that it works in.
    keeps: BTreeSet<String>,
    /// Archives that it reads.
    fetches: BTreeSet<String>,
    /// The key that it wraps the root key with.
    roots: Option<String>,
    /// The key that it signs checkpoints with.
    signs: Option<String>,
    /// Queues that it reads hints from.
    hears: BTreeSet<String>,
}

/// Stacks of one account.
#[derive(Clone, Debug, Default)]
struct Stacks {
    regions: BTreeSet<Region>,
    /// Service roles that are passed.
    passes: BTreeSet<String>,
    /// Whether CloudFormation is given none somewhere.
    keeps: bool,
}

/// One role, complete.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleDocument {
    /// Its ARN.
    pub arn: String,
    /// Who may take it.
    pub trust: Value,
    /// What it may do; absent for a role of CloudFormation, whose rights follow from the templates.
    pub policy: Option<Value>,
}

/// What stands at a bucket or a key.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceDocument {
    /// The bucket's name, or the ARN of the key or queue.
    pub name: String,
    /// The account that it belongs to.
    pub owner: String,
    /// Its region.
    pub region: Region,
    /// Its policy.
    pub policy: Value,
}

/// Everything that AWS must be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Documents {
    /// What the daemon's own principal may do.
    pub daemon: Value,
    /// Roles by ARN.
    pub roles: Vec<RoleDocument>,
    /// Policies of buckets.
    pub buckets: Vec<ResourceDocument>,
    /// Policies of keys.
    pub keys: Vec<ResourceDocument>,
    /// Policies of queues.
    pub queues: Vec<ResourceDocument>,
}

impl Documents {
    /// Returns the accounts that have something to be told.
    pub fn accounts(&self) -> BTreeSet<String> {
        let roles = self.roles.iter().map(|r| account_of(&r.arn));
        let owned = self.buckets.iter().chain(&self.keys).chain(&self.queues);
        roles.chain(owned.map(|d| d.owner.clone())).collect()
    }

    /// Returns it as one value: `roles`, `buckets`, `keys` and `queues` beside what the daemon itself may do.
    pub fn as_json(&self) -> Value {
        let roles: Vec<Value> = self
            .roles
            .iter()
            .map(|r| json!({ "arn": r.arn, "account": account_of(&r.arn), "trust": r.trust, "policy": r.policy }))
            .collect();
        let owned = |word: &str, all: &[ResourceDocument]| -> Vec<Value> {
            all.iter()
                .map(|d| json!({ word: d.name, "account": d.owner, "region": d.region, "policy": d.policy }))
                .collect()
        };
        json!({
            "daemon": self.daemon,
            "roles": roles,
            "buckets": owned("bucket", &self.buckets),
            "keys": owned("key", &self.keys),
            "queues": owned("queue", &self.queues),
        })
    }
}

/// Returns the account in an ARN.
fn account_of(arn: &str) -> String {
    arn.split(':').nth(4).unwrap_or_default().to_owned()
}

/// Writes the documents of an installation.
pub fn documents(setup: &Setup) -> Documents {
    let drafts = drafts(setup);
    let role = |holder: &Holder, draft: &Draft| match holder {
        Holder::Daemon => None,
        Holder::Role(arn) => Some(RoleDocument {
            arn: arn.clone(),
            trust: statements::trust(setup, draft),
            policy: Some(statements::policy(setup, draft)),
        }),
    };
    let mut roles: Vec<RoleDocument> = drafts.iter().filter_map(|(h, d)| role(h, d)).collect();
    roles.extend(service_roles(setup));
    let buckets = statements::buckets(setup, &drafts);
    Documents {
        daemon: statements::policy(setup, &drafts[&Holder::Daemon]),
        roles,
        buckets,
        keys: statements::keys(setup, &drafts),
        queues: statements::queues(setup),
    }
}

/// Finds out who does what. The roles of the chain are taken one with the other; the last one does what no role is named for.
fn drafts(setup: &Setup) -> BTreeMap<Holder, Draft> {
    let mut drafts = BTreeMap::from([(Holder::Daemon, Draft::default())]);
    let mut last = Holder::Daemon;
    for taken in &setup.chain {
        last = take(&mut drafts, &last, taken);
    }
    for place in &setup.places {
        let mut hands = Vec::new();
        if let Some(preview) = &place.preview {
            hands.push((take(&mut drafts, &last, preview), false));
        }
        match &place.apply {
            // It is not taken while there are hands that only look.
            Some(_) if setup.observe && place.preview.is_some() => {}
            Some(apply) => hands.push((take(&mut drafts, &last, apply), !setup.observe)),
            None if place.preview.is_some() && !place.acts => {}
            None => hands.push((last.clone(), place.acts && !setup.observe)),
        }
        for (holder, acts) in hands {
            let draft = drafts.entry(holder).or_default();
            let stacks = draft.looks.entry(place.account.clone()).or_default();
            stacks.add(place);
            if place.pins {
                let regions = draft.pins.entry(place.account.clone()).or_default();
                regions.extend(place.regions.keys().cloned());
            }
            if acts {
                let stacks = draft.acts.entry(place.account.clone()).or_default();
                stacks.add(place);
            }
            draft.reads.extend(place.regions.values().cloned());
        }
    }
    for (name, store) in &setup.stores {
        let holder = match &store.role {
            Some(role) => take(&mut drafts, &last, role),
            None => last.clone(),
        };
        drafts.entry(holder).or_default().keeps.insert(name.clone());
    }
    for queue in &setup.queues {
        let holder = match &queue.role {
            Some(role) => take(&mut drafts, &last, role),
            None => last.clone(),
        };
        let draft = drafts.entry(holder).or_default();
        draft.hears.insert(queue.arn.clone());
    }
    for (name, shelf) in &setup.shelves {
        let holder = match &shelf.role {
            Some(role) => take(&mut drafts, &last, role),
            None => last.clone(),
        };
        let draft = drafts.entry(holder).or_default();
        draft.fetches.insert(name.clone());
    }
    if let Some((key, role)) = &setup.root {
        let holder = match role {
            Some(role) => take(&mut drafts, &last, role),
            None => last.clone(),
        };
        drafts.entry(holder).or_default().roots = Some(key.clone());
    }
    if let Some((key, role)) = &setup.signing {
        let holder = match role {
            Some(role) => take(&mut drafts, &last, role),
            None => last.clone(),
        };
        drafts.entry(holder).or_default().signs = Some(key.clone());
    }
    drafts
}

impl Stacks {
    fn add(&mut self, place: &Place) {
        self.regions.extend(place.regions.keys().cloned());
        self.passes.extend(place.cloudformation.clone());
        self.keeps |= place.cloudformation.is_none();
    }
}

fn take(drafts: &mut BTreeMap<Holder, Draft>, by: &Holder, taken: &Taken) -> Holder {
    let role = Holder::Role(taken.arn.clone());
    let draft = drafts.entry(by.clone()).or_default();
    draft.takes.insert(taken.arn.clone());
    let draft = drafts.entry(role.clone()).or_default();
    draft
        .taken_by
        .insert((by.clone(), taken.external_id.clone()));
    role
}

fn service_roles(setup: &Setup) -> Vec<RoleDocument> {
    let mut regions: BTreeMap<&String, BTreeSet<&Region>> = BTreeMap::new();
    for place in &setup.places {
        if let Some(arn) = &place.cloudformation {
            regions.entry(arn).or_default().extend(place.regions.keys());
        }
    }
    regions
        .into_iter()
        .map(|(arn, regions)| RoleDocument {
            arn: arn.clone(),
            trust: statements::service_trust(arn, &regions),
            policy: None,
        })
        .collect()
}
