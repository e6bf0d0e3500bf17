//! The daemon's configuration: the operator's side of every gate. `docs/formats/config.md` describes the file.
//!
//! [`raw`] mirrors the file; [`Config::load`] gives it meaning and reports every fault at once. This module is the
//! only one that reads the environment.

mod aws;
mod forge;
mod hints;
pub mod raw;
mod shelf;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::estate::{Grant, May, Placement};
use crate::domain::model::{AccountId, PlacementName, SourceName, parse_duration};
use crate::domain::policy::{ApprovalRule, Mode, People, PruneRule};
use crate::git::{Auth, Patience, Remote};
pub use aws::{Aws, Hands, Hop, KmsRoot, S3Store, Signing, bucket};
pub use forge::{Forge, ForgeAuth};
pub use hints::HintQueue;
pub use raw::{BundleStore, Deployments, Encryption, ForcePush, ForgeMay, LockMode, ObjectLock};
pub use shelf::{Shelf, ShelfPlace};

/// Where the file is looked for when nothing else is said.
pub const DEFAULT_PATH: &str = "/etc/isoform/config.yaml";

/// A source that is followed.
#[derive(Clone, Debug)]
pub struct Source {
    /// What it may do.
    pub grant: Grant,
    /// Where it is.
    pub remote: Remote,
    /// What happens when its history was rewritten.
    pub force_push: ForcePush,
    /// The forge that it lives on.
    pub forge: Option<Forge>,
}

/// The configuration, with its meaning.
#[derive(Clone, Debug)]
pub struct Config {
    /// Accounts by the names that the file gives them.
    pub accounts: BTreeMap<String, AccountId>,
    /// Placements.
    pub placements: BTreeMap<PlacementName, Placement>,
    /// Sources that are repositories.
    pub sources: BTreeMap<SourceName, Source>,
    /// Sources that are archives in an object store.
    pub shelves: BTreeMap<SourceName, Shelf>,
    /// The state folder.
    pub state: PathBuf,
    /// Where the root key is.
    pub root: Root,
    /// The key that signs checkpoints of the log beside the log's own.
    pub signing: Option<Signing>,
    /// AWS; absent where the embedded engine stands in for it.
    pub aws: Option<Aws>,
    /// The folder of the local world; empty on AWS.
    pub cloud: PathBuf,
    /// How fast the local world is.
    pub pace: f64,
    /// Bundle stores.
    pub bundle_stores: BTreeMap<String, BundleStore>,
    /// How bundles are encrypted.
    pub encryption: Encryption,
    /// How often sources are polled.
    pub poll: Duration,
    /// How often stacks are swept.
    pub sweep: Duration,
    /// Workers in all, and for one account and region.
    pub workers: usize,
    /// Where webhooks are heard.
    pub listen: Option<SocketAddr>,
}

/// Where the root key of the daemon's own data is.
#[derive(Clone, Debug)]
pub enum Root {
    /// In a file.
    File(PathBuf),
    /// With KMS, which opens what was wrapped under its key.
    Kms(KmsRoot),
}

impl std::fmt::Display for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Kms(root) => write!(f, "kms:{}", root.key),
        }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("reading the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file does not have the right shape.
    #[error("{path}: {message}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// What and where.
        message: String,
    },
    /// The values do not hold together.
    #[error("{path} has {} fault{}:\n{}", faults.len(), if faults.len() == 1 { "" } else { "s" }, faults.iter().map(|f| format!("  {f}")).collect::<Vec<_>>().join("\n"))]
    Faults {
        /// The file.
        path: PathBuf,
        /// Each fault, with its key first.
        faults: Vec<String>,
    },
}

/// Reads the environment: one variable, if it is set and not empty.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

impl Config {
    /// Reads a file and gives it meaning.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        let file: raw::File = serde_yaml::from_str(&text).map_err(|e| Error::Shape {
            path: path.to_owned(),
            message: e.to_string(),
        })?;
        let base = path.parent().unwrap_or(Path::new("."));
        Self::resolve(&file, base).map_err(|faults| Error::Faults {
            path: path.to_owned(),
            faults,
        })
    }

    /// Gives meaning to a file; relative paths are taken from `base`.
    pub fn resolve(file: &raw::File, base: &Path) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        if file.isoform != 1 {
            faults.push(format!(
                "isoform: the format {} is not known; write 1",
                file.isoform
            ));
        }
        let accounts = accounts(file, &mut faults);
        let people = forge::people(file, &mut faults);
        let placements = placements(file, &accounts, &people, &mut faults);
        let sources = sources(file, base, &placements, &mut faults);
        forge::nameless(file, &sources, &mut faults);
        let listen = forge::listen(file, &sources, &mut faults);
        let shelves = shelf::resolve(file, &mut faults);
        let state = base.join(&file.state.path);
        let root = root(file, base, &state, &mut faults);
        let signing = aws::signing(file, &mut faults);
        let mut duration = |name: &str, value: &Option<String>, default: u64| match value
            .as_deref()
            .map(parse_duration)
        {
            None => Duration::from_secs(default),
            Some(Ok(d)) if d >= Duration::from_millis(100) => d,
            Some(Ok(_)) => {
                faults.push(format!("{name}: at least 100ms"));
                Duration::from_secs(default)
            }
            Some(Err(message)) => {
                faults.push(format!("{name}: {message}"));
                Duration::from_secs(default)
            }
        };
        let (poll, sweep) = (
            duration("poll", &file.poll, 30),
            duration("sweep", &file.sweep, 300),
        );
        let aws = match &file.local {
            None => aws::resolve(file, &placements, &mut faults),
            Some(_) => {
                aws::unused(file, &mut faults);
                None
            }
        };
        for (name, placement) in &file.placements {
            for (region, store) in placement
                .bundle_store
                .iter()
                .filter(|(_, s)| !file.bundle_stores.contains_key(*s))
            {
                faults.push(format!(
                    "placements.{name}.bundle_store.{region}: there is no bundle store `{store}`"
                ));
            }
        }
        let pace = file.local.as_ref().and_then(|l| l.pace).unwrap_or(1.0);
        if !(0.0..=10_000.0).contains(&pace) {
            faults.push("local.pace: a number from 0 to 10000".into());
        }
        let workers = file.workers.unwrap_or(8);
        if !(1..=4096).contains(&workers) {
            faults.push("workers: a number from 1 to 4096".into());
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let encryption = match &aws {
            Some(aws) => aws.stores.get(&aws.home).map(|s| s.encryption),
            None => file.bundle_stores.values().next().map(|s| s.encryption),
        }
        .unwrap_or_default();
        Ok(Self {
            accounts,
            placements,
            sources,
            shelves,
            state,
            root,
            signing,
            aws,
            cloud: file
                .local
                .as_ref()
                .map(|l| base.join(&l.path))
                .unwrap_or_default(),
            pace,
            bundle_stores: file.bundle_stores.clone(),
            encryption,
            poll,
            sweep,
            workers,
            listen,
        })
    }

    /// Returns the path of the socket between command line and daemon.
    pub fn socket(&self) -> PathBuf {
        self.state.join("isoform.sock")
    }
}

fn root(file: &raw::File, base: &Path, state: &Path, faults: &mut Vec<String>) -> Root {
    let given = &file.state;
    if let Some(arn) = given.key.strip_prefix("kms:") {
        return aws::root(file, arn, faults).map_or_else(|| Root::File(PathBuf::new()), Root::Kms);
    }
    for (word, is_given) in [
        ("role", given.role.is_some()),
        ("external_id", given.external_id.is_some()),
    ] {
        if is_given {
            faults.push(format!(
                "state.{word}: it is said of a root key in KMS, and this one is a file"
            ));
        }
    }
    let Some(path) = given.key.strip_prefix("file:").map(|path| base.join(path)) else {
        faults.push(
            "state.key: write file:<path>, or kms:<ARN of a key>; a key itself never stands here"
                .into(),
        );
        return Root::File(PathBuf::new());
    };
    // A key beside what it opens protects nothing. The demo is the exception, and says so.
    if path.starts_with(state) {
        faults.push(format!("state.key: {} lies inside the state folder; keep the root key outside of it and of its backups", path.display()));
    }
    Root::File(path)
}

fn accounts(file: &raw::File, faults: &mut Vec<String>) -> BTreeMap<String, AccountId> {
    let mut accounts = BTreeMap::new();
    for (name, account) in &file.accounts {
        match account.id.parse() {
            Ok(id) => {
                accounts.insert(name.clone(), id);
            }
            Err(error) => faults.push(format!("accounts.{name}.id: {error}")),
        }
    }
    accounts
}

fn placements(
    file: &raw::File,
    accounts: &BTreeMap<String, AccountId>,
    people: &Arc<People>,
    faults: &mut Vec<String>,
) -> BTreeMap<PlacementName, Placement> {
    let mut placements = BTreeMap::new();
    for (name, raw) in &file.placements {
        let at = format!("placements.{name}");
        let account = accounts.get(&raw.account).cloned();
        if account.is_none() {
            faults.push(format!(
                "{at}.account: there is no account `{}`",
                raw.account
            ));
        }
        let mut regions = Vec::new();
        for region in &raw.regions {
            match region.parse() {
                Ok(region) => regions.push(region),
                Err(error) => faults.push(format!("{at}.regions: {error}")),
            }
        }
        if raw.regions.is_empty() {
            faults.push(format!("{at}.regions: at least one"));
        }
        let mut rule = ApprovalRule {
            people: people.clone(),
            ..ApprovalRule::default()
        };
        if let Some(approve) = &raw.gates.approve {
            rule.count = approve.count.max(1);
            rule.not_author = approve.not_author;
            let key = format!("{at}.gates.approve.from");
            rule.from = forge::members(file, &approve.from, &key, faults);
            match approve.expires.as_deref().map(parse_duration) {
                Some(Ok(d)) => rule.expires = Some(d),
                Some(Err(message)) => faults.push(format!("{at}.gates.approve.expires: {message}")),
                None => {}
            }
            let asked = people.count(&rule.from);
            if !approve.from.is_empty() && asked < approve.count as usize {
                faults.push(format!(
                    "{at}.gates.approve: {} approvals are asked of {asked} people",
                    approve.count,
                ));
            }
        }
        let usual = PruneRule::default();
        let prune = PruneRule {
            policy: raw.prune.policy,
            targets: raw.prune.targets.unwrap_or(usual.targets),
            percent: raw.prune.percent.unwrap_or(usual.percent),
        };
        if prune.percent > 100 {
            faults.push(format!("{at}.prune.percent: write 0 to 100"));
        }
        match (name.parse::<PlacementName>(), account) {
            (Ok(name), Some(account)) if !regions.is_empty() => {
                placements.insert(
                    name.clone(),
                    Placement {
                        name,
                        account,
                        regions,
                        mode: raw.mode.unwrap_or(Mode::Observe),
                        critical: raw.critical,
                        blast_radius: raw.blast_radius.unwrap_or(10),
                        rule,
                        prune,
                        pin_references: raw.pin_references,
                    },
                );
            }
            (Err(error), _) => faults.push(format!("{at}: {error}")),
            _ => {}
        }
    }
    placements
}

fn sources(
    file: &raw::File,
    base: &Path,
    placements: &BTreeMap<PlacementName, Placement>,
    faults: &mut Vec<String>,
) -> BTreeMap<SourceName, Source> {
    let mut sources = BTreeMap::new();
    for (name, raw) in file.sources.iter().filter(|(_, s)| !s.is_shelf()) {
        let at = format!("sources.{name}");
        shelf::unused(raw, &at, faults);
        let path = |text: &Option<String>| {
            text.as_ref()
                .map(|t| base.join(t.strip_prefix("file:").unwrap_or(t)))
        };
        let auth = Auth {
            ssh_key: path(&raw.auth.ssh_key),
            known_hosts: path(&raw.auth.known_hosts),
            token: path(&raw.auth.token),
            user: raw.auth.user.clone(),
        };
        let url = if raw.url.starts_with("./") || raw.url.starts_with("../") {
            let joined = base.join(&raw.url);
            joined
                .canonicalize()
                .unwrap_or(joined)
                .display()
                .to_string()
        } else {
            raw.url.clone()
        };
        let mut remote = Remote::new(&url, &raw.branch, auth);
        match raw.deadline.as_deref().map(parse_duration) {
            None => {}
            Some(Ok(total)) if total >= Duration::from_secs(1) => {
                if let Ok(remote) = &mut remote {
                    remote.patience = Patience::of(total);
                }
            }
            Some(Ok(_)) => faults.push(format!("{at}.deadline: less than 1s is no time to answer")),
            Some(Err(error)) => faults.push(format!("{at}.deadline: {error}")),
        }
        if let Err(error) = &remote {
            faults.push(format!("{at}.url: {error}"));
        }
        let may = match &raw.may {
            Some(m) => May {
                templates: m.templates.clone(),
                environments: m.environments.clone(),
                services: m.services.clone(),
                components: m.components.clone(),
                stacks: m.stacks.clone(),
                placements: m.placements.clone(),
                stack_names: m.stack_names.clone(),
            },
            None => {
                faults.push(format!(
                    "{at}.may: say what the repository may define; nothing is allowed by silence"
                ));
                continue;
            }
        };
        for wanted in may
            .placements
            .iter()
            .filter(|p| !p.contains('*') && !placements.keys().any(|k| k.as_str() == p.as_str()))
        {
            faults.push(format!(
                "{at}.may.placements: there is no placement `{wanted}`"
            ));
        }
        let forge = match (&raw.forge, &remote) {
            (Some(forge), Ok(remote)) => forge::resolve(forge, remote, base, &at, faults),
            _ => None,
        };
        match (name.parse::<SourceName>(), remote) {
            (Ok(source), Ok(remote)) => {
                let grant = Grant {
                    source: source.clone(),
                    mode: raw.mode.unwrap_or(Mode::Auto),
                    may,
                };
                sources.insert(
                    source,
                    Source {
                        grant,
                        remote,
                        force_push: raw.force_push,
                        forge,
                    },
                );
            }
            (Err(error), _) => faults.push(format!("{at}: {error}")),
            _ => {}
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "isoform: 1\naccounts: {a: {id: '000000000001'}}\nplacements: {beta: {account: a, regions: [us-east-1], mode: auto}}\nsources: {p: {url: /srv/p.git, may: {services: ['*'], placements: [beta]}}}\nstate: {path: state, key: 'file:root.key'}\nlocal: {path: cloud}\n";

    fn faults(text: &str) -> Vec<String> {
        let file: raw::File = serde_yaml::from_str(text).unwrap();
        Config::resolve(&file, Path::new("/x"))
            .err()
            .unwrap_or_default()
    }

    #[test]
    fn a_good_file_has_its_meaning() {
        let file: raw::File = serde_yaml::from_str(GOOD).unwrap();
        let config = Config::resolve(&file, Path::new("/x")).unwrap();
        assert_eq!(
            (config.state.as_path(), config.placements.len(), config.poll),
            (Path::new("/x/state"), 1, Duration::from_secs(30))
        );
    }

    #[test]
    fn every_fault_is_shown_at_once() {
        let text = GOOD
            .replace("'000000000001'", "'1'")
            .replace("/srv/p.git", "ext::sh")
            .replace("file:root.key", "file:state/root.key")
            .replace("[beta]}", "[beta, gamma]}");
        let found = faults(&text);
        for (fault, key) in found.iter().zip([
            "accounts.a.id",
            "placements.beta.account",
            "sources.p.url",
            "sources.p.may.placements",
            "sources.p.may.placements",
            "state.key",
        ]) {
            assert!(
                fault.starts_with(key),
                "{fault} should begin with {key}: {found:?}"
            );
        }
        assert_eq!(found.len(), 6, "{found:?}");
    }

    #[test]
    fn a_bundle_store_without_its_region_is_told_how_it_is_written() {
        let with = |given: &str| {
            let text = GOOD.replace(
                "mode: auto}",
                &format!("mode: auto, bundle_store: {given}}}"),
            );
            serde_yaml::from_str::<raw::File>(&text)
        };

        let error = with("us").unwrap_err().to_string();

        let hint = "{ <region>: us }";
        assert!(
            error.starts_with("placements.beta.bundle_store: `us`") && error.contains(hint),
            "{error}"
        );
        let good = with("{us-east-1: us}").unwrap();
        assert_eq!(good.placements["beta"].bundle_store["us-east-1"], "us");
    }

    #[test]
    fn unknown_keys_and_secrets_in_the_file_are_refused() {
        assert!(serde_yaml::from_str::<raw::File>(&GOOD.replace("local:", "locl:")).is_err());
        assert!(faults(&GOOD.replace("'file:root.key'", "'0123456789'"))[0].contains("state.key"));
    }
}
