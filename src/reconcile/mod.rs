//! The line from a push to an applied and audited change.
//!
//! [`Line::look`] turns the heads of all sources into a snapshot; [`Line::reconcile`] brings one target a step nearer
//! to it. Both are level-triggered: what made them run is forgotten, what is done follows from Git, the log and the
//! stack. `perform.rs` is the only file that changes the world, and it takes nothing but what `announce.rs` has put
//! into the log first. No adapter is known here.

mod adopt;
mod ahead;
mod announce;
mod bundles;
mod capable;
mod countersign;
mod drive;
mod files;
mod hints;
mod janitor;
mod look;
mod memo;
mod operator;
mod perform;
mod preview;
mod pulls;
mod quarantine;
mod ready;
mod recover;
mod removal;
mod report;
mod restore;
mod root;
mod service_role;
mod settle;
mod shelf;
mod ship;
mod sweep;
mod target;
mod versions;
mod wake;
mod watch;

pub use adopt::Adoption;
pub use bundles::{open_bundle, put_bundle};
pub use countersign::CountersignReport;
pub use memo::Counts;
pub use operator::{ApproveWhat, OperatorError, Selector};
pub use report::{EstateReport, Evidence, Proof, TargetReport};
pub use restore::{Shipped, restore};
pub use root::open_root;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{self, Encryption, Source};
use crate::domain::audit::{Body, Entry, Stream};
use crate::domain::catalogue::Catalogue;
use crate::domain::deployment::{EventKind, History};
use crate::domain::estate::{Compiled, Grant, Memory, Placement, Rendering, Sheets, WaveKey};
use crate::domain::model::{
    Actor, Address, Condition, Digest, Finding, InstallationId, PlacementName, Reason, Revision,
    SnapshotId, SourceName, StackId, SyncResult, TargetUid, Timestamp,
};
use crate::domain::plan::Watermark;
use crate::git::CommitInfo;
use crate::port::{self, Ports};
use crate::store::{self, Draft, Store};
use crate::workqueue::WorkQueue;

/// Why the line cannot go on at all; everything about one target becomes a condition instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error("the state store: {0}")]
    Store(#[from] store::Error),
    /// A port.
    #[error("a service: {0}")]
    Port(#[from] port::Error),
    /// Git.
    #[error("git: {0}")]
    Git(#[from] crate::git::Error),
    /// An event that may not be recorded: a bug or a damaged log.
    #[error("the log: {0}")]
    Illegal(#[from] crate::domain::deployment::IllegalEvent),
    /// Another daemon, or another copy of the state, has gone on with this log.
    #[error(
        "the bundle store holds another log from entry {0} on: another isoform works with this bundle store, or the state folder is an old copy. This one executes nothing any more. Stop one of the two; to go on here, stop isoform, move the state folder away and start it again: it is rebuilt from the bundle store"
    )]
    Forked(u64),
    /// Something is not as it must be.
    #[error("{0}")]
    Broken(String),
    /// The work panicked: a bug that an input has found.
    #[error("isoform panicked over this input")]
    Panicked,
    /// The same input ended the daemon before, and is left alone.
    #[error("this input ended isoform before and is left alone")]
    Quarantined,
}

/// What the line is made of.
pub struct Settings {
    /// The installation.
    pub installation: InstallationId,
    /// The log's id.
    pub log: String,
    /// The state folder.
    pub state: PathBuf,
    /// Sources.
    pub sources: BTreeMap<SourceName, Source>,
    /// Sources that are archives in an object store.
    pub shelves: BTreeMap<SourceName, config::Shelf>,
    /// Placements.
    pub placements: BTreeMap<PlacementName, Placement>,
    /// How bundles are encrypted.
    pub encryption: Encryption,
    /// How the shipped log is kept.
    pub lock: Option<config::ObjectLock>,
}

impl Settings {
    /// Returns what a source may do, a repository or a shelf.
    pub fn grant(&self, name: &SourceName) -> Option<&Grant> {
        let repository = self.sources.get(name).map(|s| &s.grant);
        repository.or_else(|| self.shelves.get(name).map(|s| &s.grant))
    }
}

/// An accepted snapshot, compiled.
#[derive(Debug)]
pub struct Snapshot {
    /// Its number.
    pub id: SnapshotId,
    /// Revisions of all sources.
    pub revisions: BTreeMap<SourceName, Revision>,
    /// Commits, for people.
    pub commits: BTreeMap<SourceName, CommitInfo>,
    /// What it asks for.
    pub compiled: Compiled,
    /// When it was accepted.
    pub at: Timestamp,
    /// What made the daemon look.
    pub trigger: String,
    /// Who pushed, where known.
    pub actor: Actor,
    /// Targets by uid.
    pub uids: Arc<BTreeMap<Address, TargetUid>>,
}

/// Makes the id of a deployment. In a simulation it comes from the seed, as everything there does.
fn new_id(now: Timestamp) -> String {
    let id = match crate::testing::seeded::<10>() {
        Some(random) => {
            let millis = u64::try_from(now.0).unwrap_or_default();
            uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
        }
        None => uuid::Uuid::now_v7(),
    };
    id.to_string()
}

impl Snapshot {
    fn addresses(&self) -> Vec<Address> {
        self.compiled.targets.keys().cloned().collect()
    }
}

/// What the daemon knows of a target beside its log.
#[derive(Clone, Debug)]
struct Known {
    history: Arc<History>,
    /// The number of the newest entry of its stream.
    stream_seq: u64,
    condition: Condition,
    /// The newest snapshot at which it was looked at. [`Shared::looked`] tells it for those that rest.
    looked: SnapshotId,
    /// Snapshots at which it was in sync. [`Shared::passed`] tells it for those that rest.
    passes: Vec<Pass>,
    /// Failed tries in a row, for the back-off.
    attempts: u32,
    /// Progress of what runs, for people.
    progress: Option<String>,
    /// The digest that was wanted when it was last looked at.
    wanted: Option<Digest>,
    /// The blast radius that holds it.
    radius: Option<Radius>,
    /// When its last deployment ended in this process, by the time that only goes forward.
    ended: Option<Timestamp>,
    /// What it asked for when it was last rendered.
    memo: Option<Arc<memo::Memo>>,
}

/// A run of snapshots at each of which a target was in sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pass {
    from: SnapshotId,
    to: SnapshotId,
    since: Timestamp,
}

impl Pass {
    fn at(snapshot: SnapshotId, since: Timestamp) -> Self {
        Self {
            from: snapshot,
            to: snapshot,
            since,
        }
    }
}

/// What keeps a target from a newer snapshot.
#[derive(Clone, Debug)]
struct Behind {
    /// Who can end it.
    only: Vec<TargetUid>,
    /// When to look again in any case.
    after: Option<Duration>,
}

/// What a snapshot changes in a placement, as it was shown when it held a target.
#[derive(Clone, Debug)]
struct Radius {
    snapshot: Arc<Snapshot>,
    list: Digest,
    count: usize,
}

/// The targets of snapshots that ask for the same ones, and whom those are.
type Members = (Arc<BTreeMap<Address, TargetUid>>, Arc<BTreeSet<TargetUid>>);

#[derive(Default)]
struct Shared {
    targets: BTreeMap<TargetUid, Known>,
    /// Whom the next snapshot concerns by itself. Everybody else rests: in sync with the newest snapshot, as looked at
    /// with it, and not touched since. That goes on without a word for as long as Git asks for the same.
    open: BTreeSet<TargetUid>,
    /// The newest snapshot that was adopted: whoever rests is in sync with it.
    carried: SnapshotId,
    by_address: BTreeMap<Address, TargetUid>,
    /// The newest snapshot that has moved a target to another address.
    moved: SnapshotId,
    /// Whom the newest snapshots ask for, in the order of the uids.
    members: Option<Members>,
    snapshots: Vec<Arc<Snapshot>>,
    /// Commits of snapshots that are forgotten, for people.
    commits: Vec<CommitInfo>,
    /// A snapshot that gives every target the options with which it was applied: older ones may be forgotten.
    alike: Option<SnapshotId>,
    /// The newest accepted heads, as the log tells them: whether or not they could be compiled.
    accepted: Option<(SnapshotId, BTreeMap<SourceName, Revision>)>,
    /// Every entry up to this number is folded, and these beyond it.
    folded: u64,
    ahead: BTreeSet<u64>,
    /// How many looks have read every source. A look that could not read one proves nothing about what is gone.
    complete_looks: u64,
    /// Whom nothing asks for any more.
    unasked: removal::Unasked,
    /// Snapshots whose look has been written down.
    synced: BTreeSet<SnapshotId>,
    catalogue: Catalogue,
    /// Targets that wait for something that another target does, beside those that stand behind one.
    waiting: BTreeSet<TargetUid>,
    /// Who cannot go to the newest snapshot yet, whatever is shown of them; and the same by whom they stand behind.
    behind: BTreeMap<TargetUid, Behind>,
    followers: BTreeMap<TargetUid, BTreeSet<TargetUid>>,
    /// When this process first saw a time of the wall at which a wave settled, by the time that only goes forward.
    seen: RefCell<BTreeMap<Timestamp, Timestamp>>,
    /// Waves of snapshots that everybody in them has passed, with who was the last to settle, and when.
    through: RefCell<BTreeMap<(SnapshotId, WaveKey), (Address, Timestamp)>>,
    /// What the newest sweep saw of each stack.
    swept: BTreeMap<StackId, Watermark>,
    swept_at: Option<Timestamp>,
    /// Whose stacks are to be looked at for leftover change sets, and when they were, by the time that only goes forward.
    untidy: BTreeSet<TargetUid>,
    tidied: BTreeMap<TargetUid, Timestamp>,
    /// Accounts and regions that a sweep has seen: only there a stack that is not known of is gone.
    listed: BTreeSet<sweep::Spot>,
    /// Approved lists of blast radii.
    radii: BTreeSet<Digest>,
    /// Why the last look could not be made.
    unlooked: Option<String>,
    /// Heads of sources whose new history was refused, and those that an operator let in.
    refused: BTreeMap<SourceName, (Option<Revision>, String)>,
    let_in: BTreeSet<Revision>,
    /// What was rendered while its faults were looked for, until a deployment takes it.
    fresh: BTreeMap<TargetUid, (Digest, Rendering)>,
    /// Bundles that lie in the bundle store, as this process has seen, with the checksums of the objects.
    put: BTreeMap<Digest, String>,
    /// What CloudFormation said that texts need, for those that it refused.
    needs: capable::Needs,
    /// Outputs by payload digest.
    outputs: BTreeMap<Digest, Arc<BTreeMap<String, String>>>,
    /// Versions of what templates refer to.
    references: versions::References,
}

/// The line, with everything that it holds.
pub struct Line {
    /// The log.
    pub store: Store,
    /// The services.
    pub ports: Arc<dyn Ports>,
    /// The clock.
    pub clock: Clock,
    /// The settings.
    pub settings: Settings,
    /// The queue of targets.
    pub queue: WorkQueue<TargetUid>,
    /// Stops waiting, never work.
    pub stop: CancellationToken,
    /// What was done since it was opened.
    pub counts: Counts,
    watching: watch::Watching,
    doubt: AtomicBool,
    countersigning: countersign::Held,
    pulls: pulls::Held,
    /// From which entry on somebody else has gone on with this log; 0 while nobody has.
    forked: AtomicU64,
    client: crate::git::Client,
    shared: Mutex<Shared>,
    sheets: Mutex<Sheets>,
    memory: Mutex<Memory>,
    trees: files::Trees,
    shelves: shelf::Shelves,
    bundles: files::Bundles,
    looking: tokio::sync::Mutex<()>,
    closing: tokio::sync::Mutex<()>,
    starting: tokio::sync::Mutex<()>,
    shipping: tokio::sync::Mutex<()>,
}

impl Line {
    /// Makes the line and folds the log.
    pub async fn open(
        store: Store,
        ports: Arc<dyn Ports>,
        clock: Clock,
        settings: Settings,
        queue: WorkQueue<TargetUid>,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, Error> {
        let client = crate::git::Client::new()
            .map_err(|e| Error::Broken(format!("the HTTP client: {e}")))?;
        let line = Self {
            store,
            ports,
            clock,
            settings,
            queue,
            stop,
            counts: Counts::default(),
            watching: watch::Watching::default(),
            doubt: AtomicBool::new(false),
            countersigning: countersign::Held::default(),
            pulls: pulls::Held::default(),
            forked: AtomicU64::new(0),
            client,
            shared: Mutex::default(),
            sheets: Mutex::default(),
            memory: Mutex::default(),
            trees: files::Trees::default(),
            shelves: shelf::Shelves::default(),
            bundles: files::Bundles::default(),
            looking: tokio::sync::Mutex::default(),
            closing: tokio::sync::Mutex::default(),
            starting: tokio::sync::Mutex::default(),
            shipping: tokio::sync::Mutex::default(),
        };
        let line = Arc::new(line);
        line.fold().await?;
        Ok(line)
    }

    async fn fold(self: &Arc<Self>) -> Result<(), Error> {
        let mut from = 1;
        let mut accepted = Vec::new();
        loop {
            let entries = self.store.entries(from, 1000).await?;
            let Some(last) = entries.last() else { break };
            from = last.seq + 1;
            let mut shared = self.shared();
            for entry in &entries {
                shared.fold(entry)?;
                if let Body::Accepted {
                    snapshot,
                    revisions,
                    trigger,
                } = &entry.body
                {
                    accepted.push((
                        *snapshot,
                        revisions.clone(),
                        trigger.clone(),
                        entry.at,
                        entry.actor.clone(),
                    ));
                }
            }
        }
        // A source that is configured no more keeps nobody from telling what is asked for.
        let configured = |name: &SourceName| self.settings.grant(name).is_some();
        self.shared().refused.retain(|name, _| configured(name));
        for (uid, condition) in self.store.shown().await? {
            let mut shared = self.shared();
            if let Some(known) = shared.targets.get_mut(&uid) {
                let reason = condition.reason;
                known.condition = condition;
                shared.wait(&uid, reason);
            }
        }
        self.recall(accepted).await
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the newest snapshot.
    pub fn newest(&self) -> Option<Arc<Snapshot>> {
        self.shared().snapshots.last().cloned()
    }

    /// Tells whether the look at a snapshot has ended: everything was looked at, and nothing moves.
    pub fn has_ended(&self, snapshot: SnapshotId) -> bool {
        self.shared().synced.contains(&snapshot)
    }

    /// Appends an entry of the installation or of a source.
    pub(crate) async fn log(
        &self,
        stream: Stream,
        actor: Actor,
        body: Body,
    ) -> Result<Entry, Error> {
        self.certain().await?;
        let draft = Draft {
            stream,
            stream_seq: None,
            at: self.clock.now(),
            actor,
            body,
            payloads: Vec::new(),
        };
        let entry = match self.store.append(draft.clone()).await {
            Ok(entry) => entry,
            Err(error) => self.there_after_all(&draft, error).await?,
        };
        self.shared().fold(&entry)?;
        Ok(entry)
    }

    /// Notes that an append failed and may have happened all the same.
    fn in_doubt(&self) {
        self.doubt.store(true, Ordering::Relaxed);
    }

    /// Folds what the log holds beyond what is known, where an append failed: its commit may have been done.
    async fn certain(&self) -> Result<Vec<Entry>, Error> {
        let mut read = Vec::new();
        if !self.doubt.load(Ordering::Relaxed) {
            return Ok(read);
        }
        let mut from = self.shared().folded + 1;
        loop {
            let entries = self.store.entries(from, 1000).await?;
            let Some(last) = entries.last() else { break };
            from = last.seq + 1;
            for entry in entries {
                self.shared().fold(&entry)?;
                read.push(entry);
            }
        }
        self.doubt.store(false, Ordering::Relaxed);
        Ok(read)
    }

    /// Looks whether an entry whose append failed is in the log: a lost answer is not a lost entry.
    async fn there_after_all(&self, draft: &Draft, error: store::Error) -> Result<Entry, Error> {
        self.in_doubt();
        let read = self.certain().await?;
        read.into_iter()
            .find(|e| {
                e.stream == draft.stream
                    && e.at == draft.at
                    && e.actor == draft.actor
                    && e.body == draft.body
            })
            .ok_or_else(|| error.into())
    }

    /// Appends an event of a target and folds it. The event must be legal where it lands.
    pub(crate) async fn record(
        &self,
        uid: &TargetUid,
        actor: Actor,
        kind: EventKind,
        payloads: Vec<(Digest, Vec<u8>)>,
    ) -> Result<Entry, Error> {
        // A worker and an operator may speak of one target at once: whoever comes second folds what the first said and
        // asks again whether its own event is still legal.
        for _ in 0..20 {
            self.certain().await?;
            let (mut trial, stream_seq) = match self.shared().targets.get(uid) {
                Some(known) => (known.history.clone(), known.stream_seq),
                None => (Arc::new(History::new(uid.clone())), 0),
            };
            let at = self.clock.now();
            let event = crate::domain::deployment::Event {
                target: uid.clone(),
                at,
                actor: actor.clone(),
                kind: kind.clone(),
            };
            Arc::make_mut(&mut trial).record(&event)?;
            let draft = Draft {
                stream: Stream::Target(uid.clone()),
                stream_seq: Some(stream_seq + 1),
                at,
                actor: actor.clone(),
                body: Body::Target(kind.clone()),
                payloads: payloads.clone(),
            };
            match self.store.append(draft.clone()).await {
                Ok(entry) => {
                    self.catch_up(uid, &entry).await?;
                    return Ok(entry);
                }
                Err(store::Error::Conflict(_)) => {
                    for entry in self.store.stream(&Stream::Target(uid.clone())).await? {
                        self.shared().fold(&entry)?;
                    }
                }
                Err(error) => return self.there_after_all(&draft, error).await,
            }
        }
        Err(store::Error::Conflict(uid.to_string()).into())
    }

    /// Folds an entry, and first those before it that somebody else has appended and not folded yet.
    async fn catch_up(&self, uid: &TargetUid, entry: &Entry) -> Result<(), Error> {
        let next = self
            .shared()
            .targets
            .get(uid)
            .map_or(1, |k| k.stream_seq + 1);
        if entry.stream_seq > next {
            for earlier in self.store.stream(&Stream::Target(uid.clone())).await? {
                self.shared().fold(&earlier)?;
            }
        }
        self.shared().fold(entry)
    }

    fn known(&self, uid: &TargetUid) -> Option<Known> {
        self.shared().targets.get(uid).cloned()
    }

    pub(crate) fn history(&self, uid: &TargetUid) -> Option<Arc<History>> {
        self.shared().targets.get(uid).map(|k| k.history.clone())
    }

    /// Shows a condition of a target.
    async fn show(
        &self,
        uid: &TargetUid,
        result: SyncResult,
        reason: Reason,
        detail: impl Into<String>,
    ) -> Result<(), Error> {
        let detail = detail.into();
        let now = self.clock.now();
        let (address, condition, changed) = {
            let mut shared = self.shared();
            let Some(known) = shared.targets.get_mut(uid) else {
                return Ok(());
            };
            let same = known.condition.result == result && known.condition.reason == reason;
            let changed = !same || known.condition.detail != detail;
            known.condition = Condition {
                result,
                reason,
                detail,
                since: if same { known.condition.since } else { now },
            };
            if !matches!(result, SyncResult::Applying | SyncResult::Planning) {
                known.progress = None;
            }
            let (address, condition) = (known.history.address.clone(), known.condition.clone());
            shared.wait(uid, reason);
            (address, condition, changed)
        };
        if changed {
            let address = address.map(|a| a.to_string()).unwrap_or_default();
            self.store.show(uid, &address, &condition, 1)?;
        }
        Ok(())
    }

    fn progress(&self, uid: &TargetUid, text: String) {
        if let Some(known) = self.shared().targets.get_mut(uid) {
            known.progress = Some(text);
        }
    }

    /// Puts a target into the queue. The lane is its account and region.
    pub fn enqueue(&self, uid: &TargetUid, after: Duration) {
        let lane = {
            let shared = self.shared();
            let address = shared
                .targets
                .get(uid)
                .and_then(|k| k.history.address.clone());
            let target = address.and_then(|a| {
                shared.snapshots.last().and_then(|s| {
                    s.compiled
                        .targets
                        .get(&a)
                        .map(|t| format!("{}/{}", t.placement.account, t.region))
                })
            });
            target.unwrap_or_default()
        };
        self.queue.add(uid.clone(), &lane, after);
    }

    /// Puts some targets into the queue.
    fn enqueue_these(&self, uids: Vec<TargetUid>) {
        for uid in uids {
            self.enqueue(&uid, Duration::ZERO);
        }
    }

    /// Puts every target into the queue.
    pub fn enqueue_all(&self) {
        let uids = self.shared().targets.keys().cloned().collect();
        self.enqueue_these(uids);
    }

    /// Tells whether the file FREEZE stops every execution.
    fn is_frozen(&self) -> bool {
        self.settings.state.join("FREEZE").exists() && crate::testing::guard("freeze")
    }

    /// Returns outputs by their payload.
    async fn outputs(&self, digest: &Digest) -> Result<Arc<BTreeMap<String, String>>, Error> {
        if let Some(found) = self.shared().outputs.get(digest) {
            return Ok(found.clone());
        }
        let bytes = self
            .store
            .payload(digest)
            .await?
            .ok_or_else(|| Error::Broken(format!("the payload {digest} is missing")))?;
        let outputs: BTreeMap<String, String> = serde_json::from_slice(&bytes)
            .map_err(|e| Error::Broken(format!("the payload {digest} cannot be read: {e}")))?;
        let outputs = Arc::new(outputs);
        self.shared()
            .outputs
            .insert(digest.clone(), outputs.clone());
        Ok(outputs)
    }
}

impl Shared {
    fn fold(&mut self, entry: &Entry) -> Result<(), Error> {
        if entry.seq <= self.folded || !self.ahead.insert(entry.seq) {
            return Ok(());
        }
        while self.ahead.remove(&(self.folded + 1)) {
            self.folded += 1;
        }
        match &entry.body {
            Body::Target(_) => {
                let Some(event) = entry.event() else {
                    return Ok(());
                };
                self.stir(&event.target);
                let known = self
                    .targets
                    .entry(event.target.clone())
                    .or_insert_with(|| Known {
                        history: Arc::new(History::new(event.target.clone())),
                        stream_seq: 0,
                        condition: Condition {
                            result: SyncResult::Unknown,
                            reason: Reason::NotYet,
                            detail: "not looked at yet".into(),
                            since: entry.at,
                        },
                        looked: SnapshotId(0),
                        passes: Vec::new(),
                        attempts: 0,
                        progress: None,
                        wanted: None,
                        radius: None,
                        ended: None,
                        memo: None,
                    });
                // A fold that was done by the appender already is not done twice.
                if entry.stream_seq <= known.stream_seq {
                    return Ok(());
                }
                if let EventKind::Settled(settlement) = &event.kind
                    && matches!(
                        settlement.outcome,
                        crate::domain::deployment::Outcome::Applied
                            | crate::domain::deployment::Outcome::NoEffect
                    )
                    && let Some(deployment) = &known.history.current
                {
                    known
                        .passes
                        .push(Pass::at(deployment.pinned.snapshot, event.at));
                }
                if let EventKind::RollbackAsked { .. } = &event.kind {
                    // Whoever stands behind it is not let through by what is taken back.
                    known.passes.clear();
                    self.through.get_mut().clear();
                }
                let (before, reason) = (known.history.address.clone(), known.condition.reason);
                Arc::make_mut(&mut known.history).record(&event)?;
                known.stream_seq = entry.stream_seq;
                if let EventKind::Minted { address, .. } | EventKind::Moved { address } =
                    &event.kind
                {
                    if before.is_some() {
                        self.moved = self.accepted.as_ref().map_or(self.moved, |(id, _)| *id);
                    }
                    // In whatever order the moves of a snapshot were written: an address that another one has taken
                    // meanwhile is not taken from it.
                    if let Some(before) = before
                        && self.by_address.get(&before) == Some(&event.target)
                    {
                        self.by_address.remove(&before);
                    }
                    self.by_address
                        .insert(address.clone(), event.target.clone());
                    self.wait(&event.target, reason);
                }
            }
            Body::Accepted {
                snapshot,
                revisions,
                ..
            } => self.accepted = Some((*snapshot, revisions.clone())),
            Body::Registered(version) => {
                self.catalogue
                    .add(version.clone())
                    .map_err(|e| Error::Broken(e.to_string()))?;
            }
            Body::BlastRadiusApproved { list, .. } => {
                self.radii.insert(list.clone());
            }
            Body::HistoryAccepted { revision } => {
                self.let_in.insert(revision.clone());
            }
            Body::Synced(look) => {
                self.synced.insert(look.snapshot);
            }
            Body::Refused { revision, reason } => {
                if let Stream::Source(name) = &entry.stream {
                    self.refused
                        .insert(name.clone(), (revision.clone(), reason.clone()));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Returns what a source must say of faults, as one line.
pub(crate) fn first_fault(findings: &[Finding]) -> String {
    let errors: Vec<&Finding> = findings.iter().filter(|f| f.is_error()).collect();
    first_of(&errors)
}

/// Returns the first of some findings, and how many more there are.
fn first_of(findings: &[&Finding]) -> String {
    match findings {
        [] => "no faults".into(),
        [one] => place_of(one),
        [one, rest @ ..] => format!("{} (and {} more)", place_of(one), rest.len()),
    }
}

fn place_of(finding: &Finding) -> String {
    match finding.place.span {
        Some(span) => format!(
            "{}:{}:{}: {}",
            finding.place.file, span.line, span.column, finding.message
        ),
        None => format!("{}: {}", finding.place.file, finding.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::GENESIS;

    fn uid(letter: char) -> TargetUid {
        let digit = char::from_digit(letter as u32 % 16, 16).unwrap();
        digit.to_string().repeat(32).parse().unwrap()
    }

    /// Who stands where after everybody was minted at an address of its own and moves were written in this order.
    fn after(moves: &[(char, char)]) -> BTreeMap<Address, TargetUid> {
        let mut shared = Shared::default();
        let minted = ['a', 'b', 'c'].map(|c| {
            (
                uid(c),
                1,
                EventKind::Minted {
                    address: Address::stack(&c.to_string()),
                    stack_name: "s".parse().unwrap(),
                    given: false,
                },
            )
        });
        let moved = moves.iter().map(|(who, to)| {
            (
                uid(*who),
                2,
                EventKind::Moved {
                    address: Address::stack(&to.to_string()),
                },
            )
        });
        for (seq, (uid, stream_seq, kind)) in (1..).zip(minted.into_iter().chain(moved)) {
            let entry = Entry {
                seq,
                stream: Stream::Target(uid),
                stream_seq,
                at: Timestamp(0),
                actor: Actor::daemon("test"),
                body: Body::Target(kind),
                prev_hash: GENESIS.into(),
                hash: GENESIS.into(),
            };
            shared.fold(&entry).unwrap();
        }
        shared.by_address
    }

    #[test]
    fn moves_come_to_the_same_in_whatever_order_they_were_written() {
        let stands = |of: &[(char, char)]| -> BTreeMap<Address, TargetUid> {
            let one = |(at, who): &(char, char)| (Address::stack(&at.to_string()), uid(*who));
            of.iter().map(one).collect()
        };
        let swap = stands(&[('a', 'b'), ('b', 'a'), ('c', 'c')]);
        assert_eq!(after(&[('a', 'b'), ('b', 'a')]), swap);
        assert_eq!(after(&[('b', 'a'), ('a', 'b')]), swap);
        let chain = stands(&[('b', 'a'), ('d', 'b'), ('c', 'c')]);
        assert_eq!(after(&[('a', 'b'), ('b', 'd')]), chain);
        assert_eq!(after(&[('b', 'd'), ('a', 'b')]), chain);
        let ring = stands(&[('b', 'a'), ('c', 'b'), ('a', 'c')]);
        let all = [('a', 'b'), ('b', 'c'), ('c', 'a')];
        for order in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            assert_eq!(after(&order.map(|i| all[i])), ring);
        }
    }
}
