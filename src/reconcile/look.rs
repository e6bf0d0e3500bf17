//! A look: from the heads of all sources to an accepted, compiled snapshot.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::json;

use super::{Error, Line, Snapshot};
use crate::config::ForcePush;
use crate::domain::audit::{Body, Look, Stream};
use crate::domain::bundle;
use crate::domain::catalogue::Registered;
use crate::domain::deployment::EventKind;
use crate::domain::estate::{
    Asker, Compiled, May, SourceTree, Standing, TargetKind, TemplateVersion, Templates,
    compile_after, identify, read_sync,
};
use crate::domain::model::{
    Actor, Address, Digest, Finding, Place, Reason, Revision, SnapshotId, SourceName, StackName,
    SyncResult, TargetUid, Timestamp, canonical_json, hex,
};
use crate::domain::schema::incompatibilities;
use crate::domain::spec::TemplateRef;
use crate::domain::template::{Bundle, BundleKind, Files, find_bundles, load_bundle};
use crate::git::{self, CommitInfo, Mirror, Tree};
use crate::port::{self, Put, body};
use crate::store::Draft;

/// How many snapshots are kept at hand for waves that wait.
const KEPT: usize = 50;
/// What becomes due later than this does not keep a look open: a wave may bake for hours.
pub(super) const QUIET: Duration = Duration::from_secs(2);

/// An accepted snapshot as the log tells it: number, heads, trigger, time and actor.
pub(super) type Accepted = (
    SnapshotId,
    BTreeMap<SourceName, Revision>,
    String,
    Timestamp,
    Actor,
);

struct Heads {
    revisions: BTreeMap<SourceName, Revision>,
    trees: BTreeMap<SourceName, Arc<Tree>>,
    commits: BTreeMap<SourceName, CommitInfo>,
}

impl Line {
    fn mirror(&self, source: &SourceName) -> PathBuf {
        self.settings
            .state
            .join("mirrors")
            .join(format!("{source}.git"))
    }

    /// Looks at all sources. Returns the newest snapshot, and whether this look made it.
    ///
    /// At unchanged heads nothing is fetched, no port is called and nothing is logged.
    pub async fn look(
        self: &Arc<Self>,
        trigger: &str,
        actor: &Actor,
    ) -> Result<(Option<Arc<Snapshot>>, bool), Error> {
        let _one = self.looking.lock().await;
        self.certain().await?;
        let newest = self.newest();
        // From the log and not from what was compiled: a commit that cannot be read is accepted once all the same.
        let (last, before) = self.shared().accepted.clone().unwrap_or_default();
        let mut revisions = before.clone();
        let mut complete = true;
        for (name, source) in &self.settings.sources {
            match git::tip(&source.remote, &self.client).await {
                Ok(Some(head)) => {
                    let known = revisions.get(name) == Some(&head);
                    if known || self.admit(name, revisions.get(name), &head).await? {
                        // What was refused before is no longer the state of things.
                        if !(known && self.is_left_alone(name)) {
                            self.shared().refused.remove(name);
                        }
                        revisions.insert(name.clone(), head);
                    } else {
                        complete = false;
                    }
                }
                Ok(None) => {
                    complete = false;
                    self.refuse(
                        name,
                        None,
                        "git.branch-missing: the branch does not exist; what is deployed stays",
                    )
                    .await?;
                }
                // Unknown is not empty: the last accepted head stands.
                Err(error) => {
                    complete = false;
                    self.refuse(name, None, &format!("git.unreachable: {error}"))
                        .await?;
                }
            }
        }
        complete &= self.look_at_shelves(&mut revisions).await?;
        revisions.retain(|name, _| self.settings.grant(name).is_some());
        if revisions.is_empty() {
            return Ok((newest, false));
        }
        if revisions == before {
            if newest.as_ref().is_some_and(|s| s.id == last) {
                if complete {
                    self.shared().complete_looks += 1;
                    self.enqueue_unasked();
                }
                // Where its end could not be written when everybody came to rest, nobody else would try again.
                self.close_look().await?;
                return Ok((newest, false));
            }
            return self
                .compile_and_adopt(last, revisions, trigger, actor, complete)
                .await;
        }
        let id = SnapshotId(last.0 + 1);
        crate::testing::crash_point("accept.before-record");
        self.log(
            Stream::Daemon,
            actor.clone(),
            Body::Accepted {
                snapshot: id,
                revisions: revisions.clone(),
                trigger: trigger.to_owned(),
            },
        )
        .await?;
        crate::testing::crash_point("accept.after-record");
        self.compile_and_adopt(id, revisions, trigger, actor, complete)
            .await
    }

    async fn compile_and_adopt(
        self: &Arc<Self>,
        id: SnapshotId,
        revisions: BTreeMap<SourceName, Revision>,
        trigger: &str,
        actor: &Actor,
        complete: bool,
    ) -> Result<(Option<Arc<Snapshot>>, bool), Error> {
        let at = self.clock.now();
        let compiled = self
            .compile_snapshot(id, revisions.clone(), trigger, actor, at, true)
            .await;
        match compiled {
            Ok(snapshot) => {
                self.nothing_is_left_alone();
                self.adopt(snapshot.clone(), complete).await?;
                Ok((Some(snapshot), true))
            }
            Err(Error::Quarantined) => {
                self.leave_alone(&revisions).await?;
                Ok((self.newest(), false))
            }
            Err(error) => Err(error),
        }
    }

    /// Decides whether a new head may take the place of the old one.
    async fn admit(
        &self,
        name: &SourceName,
        old: Option<&Revision>,
        new: &Revision,
    ) -> Result<bool, Error> {
        let source = &self.settings.sources[name];
        if self
            .shared()
            .refused
            .get(name)
            .is_some_and(|(r, _)| r.as_ref() == Some(new))
            && !self.shared().let_in.contains(new)
            && source.force_push != ForcePush::Follow
        {
            return Ok(false);
        }
        let (path, remote, wanted, before) = (
            self.mirror(name),
            source.remote.clone(),
            new.clone(),
            old.cloned(),
        );
        let trees = self.trees.clone();
        let of = name.clone();
        let fetched = tokio::task::spawn_blocking(move || -> Result<bool, git::Error> {
            Mirror::fetch(&path, &remote, &wanted)?;
            let mirror = Mirror::open(&path)?;
            // A tree that cannot be read is refused here, where it stands for one source and not for all.
            trees.read(&of, &mirror, &wanted)?;
            before.map_or(Ok(true), |old| mirror.descends(&wanted, &old))
        })
        .await
        .map_err(|_| git::Error::Thread)?;
        match fetched {
            Ok(true) => Ok(true),
            Ok(false)
                if source.force_push == ForcePush::Follow || self.shared().let_in.contains(new) =>
            {
                Ok(true)
            }
            Ok(false) => {
                let policy = if source.force_push == ForcePush::Approve {
                    "waits for an approval"
                } else {
                    "is refused"
                };
                let reason = format!(
                    "git.history-rewritten: {} does not descend from {} and {policy}; accept it with `isoform approve --source {name}`",
                    new.short(),
                    old.map_or("nothing", |o| o.short())
                );
                self.refuse(name, Some(new), &reason).await?;
                Ok(false)
            }
            Err(error) => {
                self.refuse(name, None, &format!("git.fetch: {error}"))
                    .await?;
                Ok(false)
            }
        }
    }

    /// Writes a refusal down, once for each different one.
    pub(super) async fn refuse(
        &self,
        name: &SourceName,
        revision: Option<&Revision>,
        reason: &str,
    ) -> Result<(), Error> {
        let same = self
            .shared()
            .refused
            .get(name)
            .is_some_and(|(r, text)| r.as_ref() == revision && text == reason);
        if !same {
            tracing::warn!(source.name = %name, "a head was not accepted: {reason}");
            self.log(
                Stream::Source(name.clone()),
                Actor::daemon("look"),
                Body::Refused {
                    revision: revision.cloned(),
                    reason: reason.to_owned(),
                },
            )
            .await?;
        }
        Ok(())
    }

    async fn heads(&self, revisions: &BTreeMap<SourceName, Revision>) -> Result<Heads, Error> {
        let mut heads = Heads {
            revisions: revisions.clone(),
            trees: BTreeMap::new(),
            commits: BTreeMap::new(),
        };
        for (name, revision) in revisions {
            let Some(source) = self.settings.sources.get(name) else {
                continue;
            };
            let (path, wanted, remote) =
                (self.mirror(name), revision.clone(), source.remote.clone());
            let (trees, of) = (self.trees.clone(), name.clone());
            let read = move || -> Result<(Arc<Tree>, CommitInfo), git::Error> {
                let mut mirror = Mirror::open(&path)?;
                if !mirror.has(&wanted) {
                    Mirror::fetch(&path, &remote, &wanted)?;
                    mirror = Mirror::open(&path)?;
                }
                let tree = trees.read(&of, &mirror, &wanted)?;
                Ok((tree, mirror.commit(&wanted)?))
            };
            let (tree, commit) = tokio::task::spawn_blocking(read)
                .await
                .map_err(|_| git::Error::Thread)??;
            heads.trees.insert(name.clone(), tree);
            heads.commits.insert(name.clone(), commit);
        }
        for (name, revision) in revisions {
            if self.settings.shelves.contains_key(name) {
                let read = self.shelf(name, revision).await?;
                heads.trees.insert(name.clone(), read.tree.clone());
                heads.commits.insert(name.clone(), read.commit.clone());
            }
        }
        Ok(heads)
    }

    /// Rebuilds the snapshots that may still be needed, after a start.
    pub(super) async fn recall(self: &Arc<Self>, mut accepted: Vec<Accepted>) -> Result<(), Error> {
        let skip = accepted.len().saturating_sub(KEPT);
        let recent = accepted.get(skip).map_or(SnapshotId(0), |a| a.0);
        // What a deployment in hand goes to is needed however many came after it.
        let pinned: BTreeSet<SnapshotId> = self.shared().pinned().collect();
        accepted.retain(|a| a.0 >= recent || pinned.contains(&a.0));
        let Some(last) = accepted.pop() else {
            return Ok(());
        };
        // The newest first: where everything is as it asks, nothing older is needed.
        let (id, revisions, trigger, at, actor) = last;
        let newest = self
            .compile_snapshot(id, revisions, &trigger, &actor, at, true)
            .await;
        let oldest = match &newest {
            Ok(newest) => self.shared().oldest_needed(newest),
            Err(_) => SnapshotId(0),
        };
        // Who stood at which address before the newest moves is not told by what stands there now.
        let moved = self.shared().moved;
        let needed = |a: &Accepted| a.0 >= moved && (a.0 >= oldest || pinned.contains(&a.0));
        for (id, revisions, trigger, at, actor) in accepted.into_iter().filter(needed) {
            match self
                .compile_snapshot(id, revisions, &trigger, &actor, at, false)
                .await
            {
                Ok(snapshot) => self.shared().snapshots.push(snapshot),
                Err(error) => tracing::warn!(
                    snapshot.id = id.0,
                    "a snapshot cannot be read again: {error}"
                ),
            }
        }
        match newest {
            Ok(snapshot) => self.shared().snapshots.push(snapshot),
            Err(error) => tracing::warn!(
                snapshot.id = id.0,
                "the newest snapshot cannot be read again: {error}"
            ),
        }
        // The daemon may have died between accepting a snapshot and minting what it brought.
        if let Some(newest) = self.newest() {
            let uids = self.mint(&newest.compiled, &newest.uids).await?;
            let mut shared = self.shared();
            shared.snapshots.pop();
            shared
                .snapshots
                .push(Arc::new(newest.with_uids(Arc::new(uids))));
            // Nobody rests yet: everybody is looked at before this look has ended.
            shared.carried = newest.id;
        }
        Ok(())
    }

    pub(super) async fn compile_snapshot(
        self: &Arc<Self>,
        id: SnapshotId,
        revisions: BTreeMap<SourceName, Revision>,
        trigger: &str,
        actor: &Actor,
        at: Timestamp,
        register: bool,
    ) -> Result<Arc<Snapshot>, Error> {
        let heads = revisions.clone();
        let work = self.compile_heads(id, revisions, trigger, actor, at, register);
        self.tried(&heads, work).await
    }

    async fn compile_heads(
        self: &Arc<Self>,
        id: SnapshotId,
        revisions: BTreeMap<SourceName, Revision>,
        trigger: &str,
        actor: &Actor,
        at: Timestamp,
        register: bool,
    ) -> Result<Arc<Snapshot>, Error> {
        let heads = self.heads(&revisions).await?;
        for tree in heads.trees.values() {
            crate::testing::poison(tree.files.values().map(|blob| &*blob.bytes));
        }
        let mut findings = Vec::new();
        let templates = self
            .templates(&heads, register, actor, &mut findings)
            .await?;
        let mut compiled = self.compile_trees(&heads, &templates, findings).await;
        if let Some(before) = self.newest() {
            compiled.share(&before.compiled);
        }
        let before = self.newest();
        let same = before.as_ref().filter(|b| b.asks_of_the_same(&compiled));
        let uids = match same.filter(|_| compiled.moved.is_empty()) {
            Some(before) => before.uids.clone(),
            None => {
                let uids = self.identify(&mut compiled);
                // Who is new has no uid yet: then there is somebody to be minted.
                let all = uids.len() == compiled.targets.len();
                let same = before.filter(|b| all && *b.uids == uids);
                same.map_or_else(|| Arc::new(uids), |b| b.uids.clone())
            }
        };
        let snapshot = Snapshot {
            id,
            revisions,
            commits: heads.commits,
            compiled,
            at,
            trigger: trigger.to_owned(),
            actor: actor.clone(),
            uids,
        };
        Ok(Arc::new(self.with_rendering_faults(snapshot).await?))
    }

    /// Renders what differs once, so that every fault of a commit is shown at once and not one after the other.
    async fn with_rendering_faults(
        self: &Arc<Self>,
        snapshot: Snapshot,
    ) -> Result<Snapshot, Error> {
        let used: Vec<Address> = snapshot.compiled.graph.used().cloned().collect();
        let deployed = self.outputs_of(&snapshot, &used).await?;
        let line = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut snapshot = snapshot;
            let mut sheets = line.sheets.lock().unwrap_or_else(PoisonError::into_inner);
            let filled = sheets.fill(
                &snapshot.compiled,
                &mut Asker {
                    real: &|address| deployed.get(address).cloned(),
                    settled: &|target| line.is_settled(&snapshot, target),
                    known: &mut |target, draft| line.is_applied(&snapshot, target, draft),
                    on: &mut |target, rendering, certain| {
                        if certain {
                            line.remember_rendering(&snapshot, target, rendering);
                        }
                    },
                },
            );
            line.counts.filled(filled);
            let compiled = &mut snapshot.compiled;
            compiled.findings.extend(sheets.findings().cloned());
            compiled.findings.sort();
            compiled.findings.dedup();
            drop(sheets);
            snapshot
        })
        .await
        .map_err(|_| Error::Panicked)
    }

    async fn compile_trees(
        &self,
        heads: &Heads,
        templates: &Templates,
        findings: Vec<Finding>,
    ) -> Compiled {
        let trees: Vec<SourceTree<'_>> = heads
            .trees
            .iter()
            .filter_map(|(name, tree)| {
                let source = self.settings.sources.get(name)?;
                Some(SourceTree {
                    grant: &source.grant,
                    branch: &source.remote.branch,
                    files: &tree.files,
                    left_out: &tree.left_out,
                })
            })
            .collect();
        let compiled = |stored: &BTreeMap<Address, serde_json::Value>| {
            let asked = RefCell::new(BTreeSet::new());
            let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            let compiled = compile_after(
                &trees,
                &self.settings.placements,
                templates,
                &|address| {
                    asked.borrow_mut().insert(address.clone());
                    stored.get(address).cloned()
                },
                &mut memory,
            );
            (compiled, asked.into_inner())
        };
        let (mut compiled_once, asked) = compiled(&BTreeMap::new());
        // Few ask for what is deployed, and reading it back is dear: then everything is compiled once more.
        if !asked.is_empty() {
            let stored = self.stored_inputs(&asked).await;
            (compiled_once, _) = compiled(&stored);
        }
        let mut compiled = compiled_once;
        compiled.findings.extend(findings);
        compiled.findings.extend(
            heads
                .trees
                .values()
                .flat_map(|t| t.findings.iter().cloned()),
        );
        for source in &compiled.without_sync {
            let message = format!(
                "the source `{source}` has no sync file: it is checked, and nothing of it is deployed or removed"
            );
            compiled.findings.push(
                Finding::warning("sync.missing", Place::file("isoform.yaml"), message)
                    .help("`isoform init` writes one from what it finds"),
            );
        }
        compiled.findings.sort();
        compiled.findings.dedup();
        compiled
    }

    /// The inputs that are deployed: what `${Proton::CURRENT_VAL}` stands for.
    async fn stored_inputs(
        &self,
        asked: &BTreeSet<Address>,
    ) -> BTreeMap<Address, serde_json::Value> {
        let applied: Vec<(Address, Digest)> = {
            let shared = self.shared();
            asked
                .iter()
                .filter_map(|address| {
                    let known = shared.targets.get(shared.by_address.get(address)?)?;
                    let applied = known.history.applied.as_ref()?;
                    Some((address.clone(), applied.payload.clone()))
                })
                .collect()
        };
        let mut out = BTreeMap::new();
        for (address, payload) in applied {
            let Ok(pinning) = self.pinning(&payload).await else {
                continue;
            };
            let inputs = match address.kind() {
                "env" => pinning.data.pointer("/environment/inputs"),
                "svc" => pinning.data.pointer("/service_instance/inputs"),
                "pipe" => pinning.data.pointer("/pipeline/inputs"),
                _ => None,
            };
            if let Some(inputs) = inputs {
                out.insert(address, inputs.clone());
            }
        }
        out
    }

    /// Loads the bundles of all trees, registers what is new, and finds what every reference means.
    async fn templates(
        &self,
        heads: &Heads,
        register: bool,
        actor: &Actor,
        findings: &mut Vec<Finding>,
    ) -> Result<Templates, Error> {
        let mut templates = Templates::default();
        let mut seen: BTreeMap<(BundleKind, String, u32), (SourceName, String)> = BTreeMap::new();
        for (name, tree) in &heads.trees {
            let Some(grant) = self.settings.grant(name) else {
                continue;
            };
            for path in find_bundles(&tree.files) {
                let Some(major) = path.major else { continue };
                let loaded = self.bundles.load(name, &tree.files, &path.root);
                findings.extend(loaded.findings.iter().cloned());
                let Some((bundle, digest)) = loaded.bundle.clone() else {
                    continue;
                };
                if !May::allows(&grant.may.templates, &path.name) {
                    let message = format!(
                        "the source `{name}` may not define the template `{}`",
                        path.name
                    );
                    findings.push(
                        Finding::error("template.denied", Place::file(path.root.clone()), message)
                            .help(format!(
                                "an operator allows it under `sources.{name}.may.templates`"
                            )),
                    );
                    continue;
                }
                if let Some((other, root)) = seen.insert(
                    (bundle.kind, path.name.clone(), major),
                    (name.clone(), path.root.clone()),
                ) {
                    let message = format!(
                        "the {} template {}@{major} lies twice: also in `{root}` of the source `{other}`",
                        bundle.kind.word(),
                        path.name
                    );
                    findings.push(
                        Finding::error(
                            "template.ambiguous",
                            Place::file(path.root.clone()),
                            message,
                        )
                        .help("rename one"),
                    );
                    continue;
                }
                let kind = bundle.kind;
                let Some(version) = self
                    .version_of(
                        kind,
                        &path.name,
                        major,
                        &digest,
                        &bundle,
                        register,
                        name,
                        &heads.revisions[name],
                        actor,
                        &path.root,
                        findings,
                    )
                    .await?
                else {
                    // A version that may not come to be does not take away the one before it.
                    let newest = self
                        .shared()
                        .catalogue
                        .newest(kind, &path.name, major)
                        .cloned();
                    if let Some(newest) = newest
                        && let Ok(files) = open_stored(self, &newest).await
                        && let (Some(old), _) = load_bundle(&files, "")
                    {
                        let reference = TemplateRef {
                            name: path.name.clone(),
                            major,
                            minor: None,
                        };
                        let loaded = TemplateVersion {
                            version: newest.version(),
                            digest: newest.bundle.clone(),
                            bundle: Arc::new(old),
                            root: path.root.clone(),
                        };
                        templates.add(kind, &reference, loaded);
                    }
                    continue;
                };
                let reference = TemplateRef {
                    name: path.name.clone(),
                    major,
                    minor: None,
                };
                let loaded = TemplateVersion {
                    version,
                    digest,
                    bundle,
                    root: path.root.clone(),
                };
                templates.add(kind, &reference, loaded);
            }
        }
        self.pinned_templates(heads, &mut templates, findings)
            .await?;
        Ok(templates)
    }

    /// Finds or makes the version of a bundle's content.
    #[expect(
        clippy::too_many_arguments,
        reason = "a registration names where everything comes from"
    )]
    async fn version_of(
        &self,
        kind: BundleKind,
        name: &str,
        major: u32,
        digest: &Digest,
        bundle: &Bundle,
        register: bool,
        source: &SourceName,
        revision: &Revision,
        actor: &Actor,
        root: &str,
        findings: &mut Vec<Finding>,
    ) -> Result<Option<String>, Error> {
        let (known, next, newest) = {
            let shared = self.shared();
            let known = shared
                .catalogue
                .all()
                .filter(|v| {
                    v.kind == kind && v.name == name && v.major == major && v.bundle == *digest
                })
                .last()
                .map(Registered::version);
            (
                known,
                shared.catalogue.next_minor(kind, name, major, digest),
                shared.catalogue.newest(kind, name, major).cloned(),
            )
        };
        let Some(minor) = next.filter(|_| register) else {
            return Ok(known.or_else(|| newest.map(|n| n.version())));
        };
        if let Some(newest) = &newest
            && let Ok(files) = open_stored(self, newest).await
            && let (Some(old), _) = load_bundle(&files, "")
        {
            let broken = incompatibilities(&old.schema, &bundle.schema);
            if !broken.is_empty() {
                let message = format!(
                    "{name}@{major} cannot get the minor {minor}: specs that were valid under {} would be refused: {}",
                    newest.version(),
                    broken.join("; ")
                );
                findings.push(
                    Finding::error(
                        "template.incompatible",
                        Place::file(format!("{root}/schema/schema.yaml")),
                        message,
                    )
                    .help(format!("make it a new major: `{name}/v{}`", major + 1)),
                );
                return Ok(None);
            }
        }
        let version = Registered {
            kind,
            name: name.to_owned(),
            major,
            minor,
            bundle: digest.clone(),
            source: source.clone(),
            revision: revision.clone(),
        };
        self.put_bundle(digest, &bundle.files, &version.version())
            .await?;
        crate::testing::crash_point("register.before-effect");
        let text = canonical_json(&json!(version));
        match self
            .ports
            .home()
            .put(&version.key(), body(text.clone()), &Put::default())
            .await
        {
            Ok(_) => {}
            Err(port::Error::Exists(_)) => {
                let there =
                    port::read_all(self.ports.home().as_ref(), &version.key(), None, 1 << 16)
                        .await?;
                let other: Registered = serde_json::from_slice(&there)
                    .map_err(|e| Error::Broken(format!("{} cannot be read: {e}", version.key())))?;
                if other.bundle != version.bundle {
                    findings.push(Finding::error(
                        "template.taken",
                        Place::file(root),
                        format!("{} is registered with other content", version.version()),
                    ));
                    return Ok(None);
                }
            }
            Err(error) => return Err(error.into()),
        }
        crate::testing::crash_point("register.after-effect");
        let shown = version.version();
        self.log(
            Stream::Source(source.clone()),
            actor.clone(),
            Body::Registered(version),
        )
        .await?;
        Ok(Some(shown))
    }

    /// Opens the bundles of minors that a sync file pins.
    async fn pinned_templates(
        &self,
        heads: &Heads,
        templates: &mut Templates,
        findings: &mut Vec<Finding>,
    ) -> Result<(), Error> {
        let mut wanted: BTreeSet<(BundleKind, TemplateRef)> = BTreeSet::new();
        {
            let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, tree) in &heads.trees {
                let both = memory.sync(name, &tree.files, read_sync);
                let (sync, pinned) = (&both.0, |r: &&TemplateRef| r.minor.is_some());
                let environments = sync.environments.iter().map(|e| &e.template);
                let services = sync.services.iter().flat_map(|service| {
                    let overrides = service.overrides.iter().filter_map(|o| o.template.as_ref());
                    std::iter::once(&service.template).chain(overrides)
                });
                let of = |kind| move |r: &TemplateRef| (kind, r.clone());
                wanted.extend(environments.filter(pinned).map(of(BundleKind::Environment)));
                wanted.extend(services.filter(pinned).map(of(BundleKind::Service)));
            }
        }
        for (kind, reference) in wanted {
            let Some(version) = self.shared().catalogue.resolve(kind, &reference).cloned() else {
                continue;
            };
            match open_stored(self, &version).await {
                Ok(files) => {
                    let (bundle, _) = load_bundle(&files, "");
                    if let Some(bundle) = bundle {
                        let root = version.version().to_string();
                        templates.add(
                            kind,
                            &reference,
                            TemplateVersion {
                                version: version.version(),
                                digest: version.bundle.clone(),
                                bundle: Arc::new(bundle),
                                root,
                            },
                        );
                    }
                }
                Err(error) => findings.push(Finding::error(
                    "template.unreadable",
                    Place::file("isoform.yaml"),
                    format!("{} cannot be opened: {error}", version.version()),
                )),
            }
        }
        Ok(())
    }

    /// Finds who stands at every address that is asked for, and stops what moves name that cannot be followed.
    fn identify(&self, compiled: &mut Compiled) -> BTreeMap<Address, TargetUid> {
        let found = {
            let shared = self.shared();
            let standing = |uid: &TargetUid| {
                let history = &shared.targets.get(uid)?.history;
                Some(Standing {
                    uid: uid.clone(),
                    came_from: history.came_from.clone(),
                    deployed: history.owned.is_some() || history.current.is_some(),
                })
            };
            let mut out: BTreeMap<&Address, &TargetUid> = BTreeMap::new();
            for (uid, known) in shared.targets.iter().filter(|_| !compiled.moved.is_empty()) {
                if let Some(address) = &known.history.address
                    && shared.by_address.get(address) != Some(uid)
                {
                    out.insert(address, uid);
                }
            }
            identify(
                &mut compiled.targets.keys(),
                &compiled.moved,
                &|address| standing(shared.by_address.get(address)?),
                &|address| standing(out.get(address)?).filter(|s| s.deployed),
            )
        };
        compiled.stop_moves(found.unresolved);
        found.uids
    }

    /// Mints uids for targets that are new, and moves those that have another address.
    async fn mint(
        &self,
        compiled: &Compiled,
        known: &BTreeMap<Address, TargetUid>,
    ) -> Result<BTreeMap<Address, TargetUid>, Error> {
        self.record_moves(known).await?;
        let mut uids = known.clone();
        let mut drafts = Vec::new();
        for (address, target) in &compiled.targets {
            match known.get(address) {
                Some(_) => {}
                // It may be that of a target which cannot be moved there.
                None if compiled.unmoved.contains_key(address) => {}
                // A name that is given is claimed only by who may have it.
                // What a fault keeps from being told has no identity yet; its faults are shown with the commit.
                None if matches!(target.kind, TargetKind::Broken) => {}
                None if target.options.stack_name.is_some()
                    && (target.faults.iter().any(Finding::is_error)
                        || compiled.contested.contains(address)) => {}
                None => {
                    let uid: TargetUid = hex(&super::bundles::random::<16>()?)
                        .parse()
                        .map_err(|e| Error::Broken(format!("{e}")))?;
                    let given = target.options.stack_name.clone();
                    let stack_name = match &given {
                        Some(name) => name.clone(),
                        None => minted_name(address, &uid)?,
                    };
                    let minted = EventKind::Minted {
                        address: address.clone(),
                        stack_name,
                        given: given.is_some(),
                    };
                    drafts.push(Draft {
                        stream: Stream::Target(uid.clone()),
                        stream_seq: Some(1),
                        at: self.clock.now(),
                        actor: Actor::daemon("look"),
                        body: Body::Target(minted),
                        payloads: Vec::new(),
                    });
                    uids.insert(address.clone(), uid);
                }
            }
        }
        // All of them in one commit: a new estate has many.
        for entry in self.store.append_all(drafts).await {
            match entry {
                Ok(entry) => self.shared().fold(&entry)?,
                Err(error) => {
                    self.in_doubt();
                    return Err(error.into());
                }
            }
        }
        Ok(uids)
    }

    /// Writes down who has another address. In one commit: half of a swap would leave a target without any.
    async fn record_moves(&self, known: &BTreeMap<Address, TargetUid>) -> Result<(), Error> {
        self.certain().await?;
        let at = self.clock.now();
        let moved: Vec<(TargetUid, Draft)> = {
            let shared = self.shared();
            known
                .iter()
                .filter(|(address, uid)| shared.by_address.get(address) != Some(uid))
                .filter_map(|(address, uid)| {
                    let draft = Draft {
                        stream: Stream::Target(uid.clone()),
                        stream_seq: Some(shared.targets.get(uid)?.stream_seq + 1),
                        at,
                        actor: Actor::daemon("moved"),
                        body: Body::Target(EventKind::Moved {
                            address: address.clone(),
                        }),
                        payloads: Vec::new(),
                    };
                    Some((uid.clone(), draft))
                })
                .collect()
        };
        let drafts = moved.iter().map(|(_, draft)| draft.clone()).collect();
        let appended = self.store.append_all(drafts).await;
        for ((uid, draft), entry) in moved.into_iter().zip(appended) {
            match (entry, draft.body) {
                (Ok(entry), _) => self.catch_up(&uid, &entry).await?,
                // Somebody else has just spoken of this one: then it goes behind that.
                (Err(crate::store::Error::Conflict(_)), Body::Target(kind)) => {
                    self.record(&uid, draft.actor, kind, Vec::new()).await?;
                }
                (Err(error), _) => {
                    self.in_doubt();
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Makes a compiled snapshot the newest one, and counts the look that found it if it read every source.
    async fn adopt(&self, snapshot: Arc<Snapshot>, complete: bool) -> Result<(), Error> {
        let known = self.newest();
        let minted = known.is_some_and(|k| Arc::ptr_eq(&k.uids, &snapshot.uids));
        let snapshot = if minted {
            snapshot
        } else {
            let uids = self.mint(&snapshot.compiled, &snapshot.uids).await?;
            Arc::new(snapshot.with_uids(Arc::new(uids)))
        };
        let open = {
            let mut shared = self.shared();
            let before = shared.snapshots.last().cloned();
            shared.snapshots.push(snapshot.clone());
            shared.complete_looks += u64::from(complete);
            // What is asked for again was not seen to be gone: its next removal needs two looks of its own.
            shared.unasked.ask_for(&snapshot.uids);
            shared.through.get_mut().clear();
            shared.make_room(KEPT, &snapshot, self.clock.now());
            shared.carry_over(before.as_deref(), &snapshot)
        };
        // First what must go on whatever happens next: what binds the future is shipped before its effect again.
        self.enqueue_these(open);
        for (name, source) in &self.settings.sources {
            if source.forge.is_some() {
                self.hint_pull(name, None);
            }
        }
        self.ship().await?;
        // With no target at all there is nobody else who could write the end of the look down.
        self.close_look().await
    }

    /// Writes the end of a look down, once every target was looked at and nothing moves any more.
    ///
    /// Called by whoever has just finished with a target: the last one finds everything quiet.
    pub async fn close_look(&self) -> Result<(), Error> {
        let Some(newest) = self.newest() else {
            return Ok(());
        };
        if !self.queue.is_quiet(QUIET) || self.has_ended(newest.id) {
            return Ok(());
        }
        // What is written down has ended, and nothing else: two that find everything quiet write one entry.
        let _one = self.closing.lock().await;
        let look = {
            let mut shared = self.shared();
            if shared.synced.contains(&newest.id) {
                return Ok(());
            }
            if !shared.has_passed_over(&newest) {
                return Ok(());
            }
            let mut counts: BTreeMap<SyncResult, usize> = BTreeMap::new();
            let mut results = Vec::with_capacity(newest.uids.len());
            let members = shared.members_of(&newest);
            let mut asked_for = members.iter().peekable();
            for (uid, known) in &shared.targets {
                if asked_for.next_if_eq(&uid).is_some() {
                    *counts.entry(known.condition.result).or_default() += 1;
                    results.push((uid, (known.condition.result, known.condition.reason)));
                }
            }
            let results = results_digest(&results)?;
            shared.forget_snapshots(&newest);
            shared.come_to_rest(&newest);
            Look {
                snapshot: newest.id,
                trigger: newest.trigger.clone(),
                revisions: newest.revisions.clone(),
                signature: "not-checked".into(),
                counts: counts
                    .into_iter()
                    .map(|(result, count)| (result.to_string(), count))
                    .collect(),
                faults: newest
                    .compiled
                    .findings
                    .iter()
                    .filter(|f| f.is_error())
                    .count(),
                results,
            }
        };
        self.log(Stream::Daemon, newest.actor.clone(), Body::Synced(look))
            .await?;
        self.checkpoint(1).await?;
        self.ship().await
    }

    /// Compiles files that are not committed, for `isoform diff`: nothing is written and nothing is registered.
    pub(super) async fn compile_files(
        &self,
        source: &SourceName,
        files: Files,
    ) -> Result<(Compiled, BTreeMap<Address, TargetUid>), Error> {
        let newest = self.newest();
        let revisions = newest
            .as_ref()
            .map(|s| s.revisions.clone())
            .unwrap_or_default();
        let mut heads = self.heads(&revisions).await?;
        heads.trees.insert(
            source.clone(),
            Arc::new(Tree {
                files,
                ..Tree::default()
            }),
        );
        if !heads.revisions.contains_key(source) {
            heads.revisions.insert(
                source.clone(),
                "0".repeat(40)
                    .parse()
                    .map_err(|e| Error::Broken(format!("{e}")))?,
            );
        }
        let mut findings = Vec::new();
        let templates = self
            .templates(&heads, false, &Actor::daemon("diff"), &mut findings)
            .await?;
        let templates = self.with_changed_bundles(&heads, templates);
        let mut compiled = self.compile_trees(&heads, &templates, findings).await;
        let uids = self.identify(&mut compiled);
        Ok((compiled, uids))
    }

    /// A bundle that is changed and not committed has no version yet: it is what its major would follow.
    fn with_changed_bundles(&self, heads: &Heads, mut templates: Templates) -> Templates {
        for tree in heads.trees.values() {
            for path in find_bundles(&tree.files) {
                let Some(major) = path.major else { continue };
                let reference = TemplateRef {
                    name: path.name.clone(),
                    major,
                    minor: None,
                };
                let (Some(bundle), findings) = load_bundle(&tree.files, &path.root) else {
                    continue;
                };
                if findings.iter().any(Finding::is_error) {
                    continue;
                }
                let digest = bundle::digest(&bundle.files);
                if templates
                    .get(bundle.kind, &reference)
                    .is_none_or(|v| v.digest != digest || v.version.is_empty())
                {
                    let version = format!("{}@{major} (changed)", path.name);
                    templates.add(
                        bundle.kind,
                        &reference,
                        TemplateVersion {
                            version,
                            digest,
                            root: path.root.clone(),
                            bundle: Arc::new(bundle),
                        },
                    );
                }
            }
        }
        templates
    }
}

async fn open_stored(line: &Line, version: &Registered) -> Result<Files, Error> {
    let sealing = line.ports.sealing();
    super::bundles::open_bundle(
        line.ports.home().as_ref(),
        sealing.as_deref(),
        &version.bundle,
    )
    .await
}

/// Returns the digest of what every target came to: over the canonical JSON of `{uid: [result, reason]}`.
///
/// Written piece by piece, for there are many: a uid and the words need no escaping, and the map has their order.
/// They come in the order of their uids.
fn results_digest(results: &[(&TargetUid, (SyncResult, Reason))]) -> Result<Digest, Error> {
    let broken = |e: serde_json::Error| Error::Broken(format!("writing results: {e}"));
    let mut text = Vec::with_capacity(results.len() * 64);
    let mut before = b'{';
    for (uid, found) in results {
        text.push(before);
        before = b',';
        serde_json::to_writer(&mut text, uid).map_err(broken)?;
        text.push(b':');
        serde_json::to_writer(&mut text, found).map_err(broken)?;
    }
    if results.is_empty() {
        text.push(before);
    }
    text.push(b'}');
    Ok(Digest::of("s1", &text))
}

/// Mints a stack's name: `isoform-<address with - for separators>-<uid8>`, at most 128 characters.
fn minted_name(address: &Address, uid: &TargetUid) -> Result<StackName, Error> {
    let plain: String = address
        .to_string()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let room = 128 - "isoform--".len() - uid.short().len();
    let name = format!(
        "isoform-{}-{}",
        plain
            .chars()
            .take(room)
            .collect::<String>()
            .trim_end_matches('-'),
        uid.short()
    );
    name.parse().map_err(|e| Error::Broken(format!("{e}")))
}

impl Snapshot {
    /// Tells whether another compilation has exactly these targets, and each of them has its uid.
    fn asks_of_the_same(&self, compiled: &Compiled) -> bool {
        Arc::ptr_eq(&self.compiled.graph, &compiled.graph)
            && self.compiled.moved == compiled.moved
            && self.uids.len() == compiled.targets.len()
    }

    fn with_uids(&self, uids: Arc<BTreeMap<Address, TargetUid>>) -> Self {
        Self {
            id: self.id,
            revisions: self.revisions.clone(),
            commits: self.commits.clone(),
            compiled: self.compiled.clone(),
            at: self.at,
            trigger: self.trigger.clone(),
            actor: self.actor.clone(),
            uids,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_results_is_over_their_canonical_json() {
        let uids: Vec<TargetUid> = ["a", "b", "0"]
            .map(|c| c.repeat(32).parse().unwrap())
            .to_vec();
        let found = [
            (SyncResult::InSync, Reason::Settled),
            (SyncResult::Failed, Reason::StackRolledBack),
            (SyncResult::Pending, Reason::Rollout),
        ];
        for count in 0..=uids.len() {
            let mut results: Vec<_> = uids.iter().zip(found).take(count).collect();
            results.sort_by_key(|(uid, _)| *uid);
            let plain: BTreeMap<String, _> =
                results.iter().map(|(u, f)| (u.to_string(), *f)).collect();
            let canonical = Digest::of("s1", &canonical_json(&json!(plain)));
            assert_eq!(results_digest(&results).unwrap(), canonical);
        }
    }

    #[test]
    fn minted_names_fit_whatever_the_address() {
        let uid: TargetUid = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let long = Address::instance(&"s".repeat(100), &"i".repeat(100))
            .at(Some("eu-west-1".parse().unwrap()));
        let name = minted_name(&long, &uid).unwrap();
        assert!(name.as_str().len() <= 128 && name.as_str().ends_with("-01234567"));
        assert_eq!(
            minted_name(&Address::environment("beta"), &uid)
                .unwrap()
                .as_str(),
            "isoform-env-beta-01234567"
        );
    }
}
