//! One target, one look: from what is asked for to a deployment that begins, or to a condition that says why not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::bundles::{Pinning, Sent};
use super::ready::{Candidate, Wait, earliest};
use super::{Error, Line, Radius, Snapshot, first_fault};
use crate::domain::deployment::{EventKind, History, Outcome, Pinned};
use crate::domain::estate::{Context, Rendering, Target, TargetKind};
use crate::domain::model::{
    Address, Digest, Finding, Generation, Reason, SnapshotId, StackName, SyncResult, TargetUid,
    canonical_json,
};
use crate::domain::plan::{Observed, StatusClass, generation_of};
use crate::domain::policy::{Mode, Placed};
use crate::domain::render::{EPOCH, Limits};
use crate::domain::template::Engine;
use crate::port::{self, Disposition, StackEngine, StackRef};
use crate::workqueue::TargetGuard;

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(600);

impl Line {
    /// Brings one target a step nearer to what is asked for. Returns when to look again.
    ///
    /// Everything that goes wrong becomes a condition; the daemon stays.
    pub async fn reconcile(&self, guard: &TargetGuard<TargetUid>) -> Option<Duration> {
        let uid = guard.key();
        self.shared().stir(uid);
        let after = match self.reconcile_inner(guard).await {
            Ok(after) => after,
            Err(error) => self.stalled(uid, &error).await,
        };
        self.tidy_in_turn(uid).await;
        // Whatever it waits for where it stands: what lies before it may become free by time.
        let behind = self.shared().behind.get(uid).and_then(|b| b.after);
        earliest(after, behind)
    }

    /// Stalls a target whose reconciliation panicked: the same input is not tried again by itself.
    pub async fn panicked(&self, uid: &TargetUid) {
        tracing::error!(target.id = %uid, "a target made isoform panic; it is stalled");
        if let Some(newest) = self.newest() {
            self.looked(uid, newest.id);
        }
        let _ = self
            .show(
                uid,
                SyncResult::Stuck,
                Reason::Internal,
                "isoform panicked over this target",
            )
            .await;
    }

    /// Turns an error into a condition and a time. The one place that decides about retries.
    async fn stalled(&self, uid: &TargetUid, error: &Error) -> Option<Duration> {
        if let Some(newest) = self.newest() {
            self.looked(uid, newest.id);
        }
        let attempts = {
            let mut shared = self.shared();
            let known = shared.targets.get_mut(uid)?;
            known.attempts += 1;
            known.attempts
        };
        let backoff = SHORTEST.saturating_mul(1 << attempts.min(10)).min(LONGEST);
        let current = self.history(uid).and_then(|h| h.current.clone());
        let executes = current.is_some_and(|d| d.is_executing());
        // Too many calls say nothing about a deployment that runs: it is shown as it was, and watched on.
        if matches!(error, Error::Port(port::Error::Throttled)) && executes {
            tracing::info!(target.id = %uid, "a running deployment waits: too many calls");
            return Some(SHORTEST.max(backoff / 4));
        }
        let (result, reason, after) = match error {
            Error::Port(crate::port::Error::KeyUnavailable(_)) => {
                let wait = backoff.max(Duration::from_secs(60));
                (SyncResult::Held, Reason::KeyUnavailable, Some(wait))
            }
            Error::Port(error) => match error.disposition() {
                Disposition::Retry => (SyncResult::Unknown, Reason::Unavailable, Some(backoff)),
                Disposition::WaitFor(wait) => (
                    SyncResult::Unknown,
                    Reason::Unavailable,
                    Some(wait.max(backoff / 4)),
                ),
                // What runs goes on, whoever may see it: nothing else would look at it again.
                Disposition::Stall if executes => {
                    (SyncResult::Unknown, Reason::Unavailable, Some(backoff))
                }
                Disposition::Stall => (SyncResult::Failed, Reason::ChangeSetFailed, None),
            },
            Error::Git(_)
            | Error::Store(
                crate::store::Error::Commit(_)
                | crate::store::Error::Conflict(_)
                | crate::store::Error::Database(_),
            ) => (SyncResult::Unknown, Reason::Unavailable, Some(backoff)),
            _ => (SyncResult::Stuck, Reason::Internal, None),
        };
        if reason == Reason::Internal {
            tracing::error!(target.id = %uid, "a target stalled: {error}");
        } else {
            tracing::warn!(target.id = %uid, "a target cannot go on now: {error}");
        }
        let _ = self.show(uid, result, reason, error.to_string()).await;
        after
    }

    async fn reconcile_inner(
        &self,
        guard: &TargetGuard<TargetUid>,
    ) -> Result<Option<Duration>, Error> {
        let uid = guard.key();
        self.alone()?;
        self.counts.looked_at_one();
        let (Some(history), Some(newest)) = (self.history(uid), self.newest()) else {
            return Ok(None);
        };
        let Some(address) = history.address.clone() else {
            return Ok(None);
        };
        self.shared().stand_behind(uid, None);
        // What runs is never left: nothing newer can interrupt it.
        if let Some(current) = history.current.as_ref().filter(|d| d.is_executing()) {
            let asked = current.pinned.snapshot;
            let target = (!current.pinned.removal)
                .then(|| self.asked_at(uid, asked, &address))
                .flatten()
                // A snapshot that is not at hand any more: as it was placed, before anything that a newer commit says.
                .or_else(|| self.departed(&history).map(Arc::new))
                .or_else(|| self.asked_at(uid, newest.id, &address));
            if let Some(target) = target {
                let snapshot = self.snapshot_at(asked).unwrap_or_else(|| newest.clone());
                let after = self.drive(guard, &target, &snapshot, false).await?;
                return Ok(after.or(Some(Duration::ZERO)));
            }
        }
        let asked = history.remedy.is_some() && history.current.is_none();
        let treats = history
            .current
            .as_ref()
            .is_some_and(|d| d.pinned.remedy.is_some());
        if (asked || treats)
            && let Some(target) = self.departed(&history)
            && (treats || self.begin_remedy(guard, &history, &target, &newest).await?)
        {
            let after = self.drive(guard, &target, &newest, false).await?;
            return Ok(after.or(Some(Duration::ZERO)));
        }
        if newest.uids.get(&address) != Some(uid) {
            let after = self.orphaned(guard, &history, &newest).await?;
            self.looked(uid, newest.id);
            return Ok(after);
        }
        let after = self.wanted(guard, history, &newest, &address).await?;
        self.looked(uid, newest.id);
        self.note_uses(uid, &newest).await?;
        Ok(after)
    }

    /// Returns a snapshot that is still at hand.
    fn snapshot_at(&self, id: SnapshotId) -> Option<Arc<Snapshot>> {
        let shared = self.shared();
        shared.snapshots.iter().find(|s| s.id == id).cloned()
    }

    /// Returns how a snapshot that is still at hand asks for a target.
    pub(super) fn asked_at(
        &self,
        uid: &TargetUid,
        id: SnapshotId,
        address: &Address,
    ) -> Option<Arc<Target>> {
        let snapshot = self.snapshot_at(id)?;
        let asks = snapshot.uids.get(address) == Some(uid);
        asks.then(|| snapshot.compiled.targets.get(address).cloned())?
    }

    fn looked(&self, uid: &TargetUid, snapshot: SnapshotId) {
        let mut shared = self.shared();
        shared.stir(uid);
        if let Some(known) = shared.targets.get_mut(uid) {
            known.looked = known.looked.max(snapshot);
        }
    }

    pub(super) async fn wait(
        &self,
        uid: &TargetUid,
        wait: Wait,
    ) -> Result<Option<Duration>, Error> {
        self.show(uid, SyncResult::Pending, wait.reason, wait.detail)
            .await?;
        Ok(wait.after)
    }

    async fn wanted(
        &self,
        guard: &TargetGuard<TargetUid>,
        history: Arc<History>,
        newest: &Arc<Snapshot>,
        address: &Address,
    ) -> Result<Option<Duration>, Error> {
        let uid = guard.key();
        if newest.compiled.contested.contains(address) {
            self.show(
                uid,
                SyncResult::Contested,
                Reason::Claimed,
                "two sources ask for it: neither moves",
            )
            .await?;
            return Ok(None);
        }
        let Some(target) = newest.compiled.targets.get(address) else {
            return Ok(None);
        };
        // Before anything else of Git: it is brought back exactly when what Git asks for is no good.
        let history = match &history.pin {
            None => history,
            Some(pin) => {
                // What cannot be read does not say where it belongs: then it is where it was deployed.
                let sound = !target.faults.iter().any(Finding::is_error)
                    && !matches!(target.kind, TargetKind::Broken);
                let placed = (!sound).then(|| self.departed(&history).map(Arc::new));
                let target = placed.flatten().unwrap_or_else(|| target.clone());
                let held = self.held_at(guard, &history, pin, &target, newest).await?;
                match held {
                    Some(after) => return Ok(after),
                    None => self.history(uid).unwrap_or(history.clone()),
                }
            }
        };
        if target.faults.iter().any(Finding::is_error) || matches!(target.kind, TargetKind::Broken)
        {
            self.supersede(
                guard,
                &target.clone(),
                "the files of a newer commit have faults",
            )
            .await?;
            let all = if target.faults.is_empty() {
                newest.compiled.findings.clone()
            } else {
                target.faults.clone()
            };
            self.show(uid, SyncResult::Failed, Reason::Invalid, first_fault(&all))
                .await?;
            return Ok(None);
        }
        if let TargetKind::CustomerManaged { .. } = target.kind {
            self.pass(uid, newest.id, newest.at);
            self.show(
                uid,
                SyncResult::InSync,
                Reason::Settled,
                "provisioned by somebody else",
            )
            .await?;
            return Ok(None);
        }
        if target.engine() != Engine::Jinja {
            self.show(
                uid,
                SyncResult::Pending,
                Reason::EngineNotSupported,
                "its manifest names an engine that cannot be deployed yet",
            )
            .await?;
            return Ok(None);
        }
        let (snapshot, behind) = match self.candidate(uid, newest, address) {
            Candidate::Go(snapshot, behind) => (Some(snapshot), behind),
            Candidate::Stay(wait) => (None, Some(wait)),
        };
        // Noted before anything else: wherever it stands now, whoever goes on must be able to wake it.
        self.shared().stand_behind(uid, behind.as_ref());
        let (snapshot, behind) = match (snapshot, behind) {
            (Some(snapshot), behind) => (snapshot, behind),
            (None, Some(wait)) => return self.wait(uid, wait).await,
            (None, None) => return Ok(None),
        };
        let Some(target) = snapshot.compiled.targets.get(address).cloned() else {
            return Ok(None);
        };
        let (digest, rendering) = match self.digest_of(uid, &history, &snapshot, &target).await? {
            Ok(found) => found,
            Err(findings) => {
                self.supersede(guard, &target, "the files of a newer commit have faults")
                    .await?;
                self.keep_findings(&snapshot, &findings);
                self.show(
                    uid,
                    SyncResult::Failed,
                    Reason::Invalid,
                    first_fault(&findings),
                )
                .await?;
                return Ok(None);
            }
        };
        if let Some(stack) = &history.owned
            && !stack.as_str().contains(&format!(
                ":{}:{}:stack/",
                target.region, target.placement.account
            ))
        {
            self.show(uid, SyncResult::Failed, Reason::Invalid, format!("its stack is {stack}, and the placement `{}` is elsewhere: a stack cannot move; give the target a new name", target.placement.name)).await?;
            return Ok(None);
        }
        if let Some(known) = self.shared().targets.get_mut(uid) {
            known.wanted = Some(digest.clone());
        }
        if history
            .current
            .as_ref()
            .is_some_and(|d| d.pinned.digest == digest)
        {
            return self.drive(guard, &target, &snapshot, false).await;
        }
        self.supersede(guard, &target, "a newer snapshot asks for something else")
            .await?;
        let Some(history) = self.history(uid) else {
            return Ok(None);
        };
        if let Some(applied) = history.applied.as_ref().filter(|a| a.digest == digest) {
            let swept = history
                .owned
                .as_ref()
                .and_then(|s| self.shared().swept.get(s).cloned());
            let word = history.accepted.as_ref().filter(|(w, _)| *w == swept);
            let accepted = word.is_some_and(|(_, overwrite)| !overwrite);
            let place = history.owned.as_ref().and_then(super::sweep::spot);
            let gone = swept.is_none() && place.is_some_and(|p| self.shared().listed.contains(&p));
            // What is gone cannot be waited for: somebody said that it is to be made again.
            let again = gone && word.is_some() && !accepted;
            if (swept.is_some() || gone) && swept != applied.watermark && !accepted && !again {
                let detail = if gone {
                    "its stack is gone: somebody deleted it; `overwrite` makes it anew"
                } else if word.is_some() {
                    "the stack was changed by somebody else; the next change of this target overwrites that"
                } else {
                    "the stack was changed by somebody else since it was last applied"
                };
                self.show(uid, SyncResult::Drifted, Reason::OutOfBand, detail)
                    .await?;
                return Ok(None);
            }
            // What is asked for was applied once; a change that failed since may have left the stack in between.
            let mark = swept.as_ref().or(applied.watermark.as_ref());
            if let Some(mark) = mark
                && matches!(
                    mark.status.class(),
                    StatusClass::Stuck | StatusClass::Dead | StatusClass::Unknown
                )
            {
                let detail = format!("the stack is {}", mark.status);
                self.show(uid, SyncResult::Stuck, Reason::StackStuck, detail)
                    .await?;
                return Ok(None);
            }
            if !again {
                if history.failed.is_some() && history.current.is_none() {
                    let line = crate::domain::model::Actor::daemon("line");
                    self.record(uid, line, EventKind::FailureForgotten, Vec::new())
                        .await?;
                }
                self.pass(uid, snapshot.id, applied.at);
                return self.in_sync(guard, behind).await;
            }
        }
        if let Some((_, settlement, _)) = history
            .failed
            .as_ref()
            .filter(|(d, _, _)| *d == digest && crate::testing::guard("failed"))
        {
            let result = if settlement.outcome == Outcome::Stuck {
                SyncResult::Stuck
            } else {
                SyncResult::Failed
            };
            self.show(
                uid,
                result,
                settlement.reason,
                settlement.cause.clone().unwrap_or_else(|| {
                    "it failed before; the same is not tried again by itself".into()
                }),
            )
            .await?;
            return Ok(None);
        }
        if let Some(wait) = self.radius(uid, &snapshot, &target).await? {
            return self.wait(uid, wait).await;
        }
        let rendering = match rendering {
            Some(rendering) => rendering,
            None => match self.render_target(&history, &snapshot, &target).await? {
                Ok(rendering) => rendering,
                Err(findings) => return Err(Error::Broken(first_fault(&findings))),
            },
        };
        self.change(guard, &history, &snapshot, &target, rendering, digest)
            .await
    }

    async fn in_sync(
        &self,
        guard: &TargetGuard<TargetUid>,
        behind: Option<Wait>,
    ) -> Result<Option<Duration>, Error> {
        let uid = guard.key();
        if let Some(known) = self.shared().targets.get_mut(uid) {
            known.attempts = 0;
        }
        match behind {
            Some(wait) => self.wait(uid, wait).await,
            None => {
                let effect = self
                    .history(uid)
                    .and_then(|h| h.last.clone())
                    .is_some_and(|(_, s, _)| s.outcome == Outcome::NoEffect);
                let (result, reason) = if effect {
                    (SyncResult::NoEffect, Reason::NoChanges)
                } else {
                    (SyncResult::InSync, Reason::Settled)
                };
                self.show(uid, result, reason, "").await?;
                Ok(None)
            }
        }
    }

    /// Records that a target was in sync at a snapshot, and wakes who waits for that.
    pub(super) fn pass(
        &self,
        uid: &TargetUid,
        snapshot: SnapshotId,
        since: crate::domain::model::Timestamp,
    ) {
        let new = {
            let mut shared = self.shared();
            shared.stir(uid);
            let Some(known) = shared.targets.get_mut(uid) else {
                return;
            };
            known.passed(snapshot, since)
        };
        if new {
            self.enqueue_waiting(uid);
        }
    }

    fn keep_findings(&self, snapshot: &Snapshot, findings: &[Finding]) {
        let mut shared = self.shared();
        if let Some(at) = shared.snapshots.iter().position(|s| s.id == snapshot.id) {
            let old = shared.snapshots[at].clone();
            let mut compiled = old.compiled.clone();
            compiled.findings.extend(findings.iter().cloned());
            compiled.findings.sort();
            compiled.findings.dedup();
            shared.snapshots[at] = Arc::new(Snapshot {
                id: old.id,
                revisions: old.revisions.clone(),
                commits: old.commits.clone(),
                compiled,
                at: old.at,
                trigger: old.trigger.clone(),
                actor: old.actor.clone(),
                uids: old.uids.clone(),
            });
        }
    }

    /// Renders a target with the outputs that are known.
    pub(super) async fn render_target(
        &self,
        history: &History,
        snapshot: &Snapshot,
        target: &Target,
    ) -> Result<Result<Rendering, Vec<Finding>>, Error> {
        let outputs = self.outputs_of(snapshot, &target.producers()).await?;
        self.counts.rendered_one();
        let owner = history.owner_tags(&self.settings.installation);
        let target = target.clone();
        let stack_name = history
            .stack_name
            .clone()
            .ok_or_else(|| Error::Broken("the target has no stack name".into()))?;
        let (clock, started) = (self.clock.clone(), self.clock.now());
        let (uid, asked) = (history.uid.clone(), target.clone());
        // On the blocking pool: its threads have the stack that templates need, and a slow one blocks nobody else.
        let rendered = tokio::task::spawn_blocking(move || {
            let known = |a: &Address| outputs.get(a).map(|o| (**o).clone());
            let expired = move || clock.now().since(started) > Duration::from_secs(10);
            let limits = Limits {
                expired: Some(Arc::new(expired)),
                ..Limits::default()
            };
            target.render(&Context {
                owner: &owner,
                stack_name: &stack_name,
                outputs: &known,
                limits,
            })
        })
        .await
        .map_err(|_| Error::Broken("the renderer failed".into()))?;
        let mut rendering = match rendered {
            Ok(rendering) => rendering,
            Err(findings) => return Ok(Err(findings)),
        };
        let pinned = self.pin_references(&uid, &asked, &mut rendering).await?;
        Ok(pinned.map(|()| rendering))
    }

    /// Returns how far isoform may go with a target: the stricter of its source's and its placement's modes.
    pub(super) fn mode(&self, target: &Target) -> Mode {
        target.placement.mode.min(
            self.settings
                .sources
                .get(&target.source)
                .map_or(Mode::Observe, |s| s.grant.mode),
        )
    }

    /// Looks at the stack and begins a deployment, or says what stands in the way.
    async fn change(
        &self,
        guard: &TargetGuard<TargetUid>,
        history: &History,
        snapshot: &Arc<Snapshot>,
        target: &Target,
        rendering: Rendering,
        digest: Digest,
    ) -> Result<Option<Duration>, Error> {
        let uid = guard.key();
        if self.mode(target) == Mode::Observe {
            // Nothing is made for it, not even a change set: `isoform diff` and `isoform plan` show what it would do.
            self.show(
                uid,
                SyncResult::Pending,
                Reason::Observe,
                "the mode is observe: it would change, and nothing is done",
            )
            .await?;
            return Ok(None);
        }
        let engine = self.ports.engine(&target.placement, &target.region)?;
        let stack_name = history
            .stack_name
            .clone()
            .ok_or_else(|| Error::Broken("the target has no stack name".into()))?;
        self.clear_previews(uid, history, engine.as_ref()).await?;
        let observed = self.observe(engine.as_ref(), history, &stack_name).await?;
        if let Some(observed) = &observed {
            if let Some(after) = self.unfit(uid, history, observed).await? {
                return Ok(after);
            }
        } else if history.applied.is_some()
            && history.owned.is_some()
            && !matches!(history.accepted, Some((None, true)))
        {
            self.show(
                uid,
                SyncResult::Drifted,
                Reason::OutOfBand,
                "its stack is gone: somebody deleted it",
            )
            .await?;
            return Ok(None);
        }
        // One after the other within waves, which count who moves; all others begin together, in one commit.
        let _one = match &target.stage {
            Some(_) => Some(self.starting.lock().await),
            None => None,
        };
        if let Some(wait) = self.may_begin(uid, snapshot, target) {
            return self.wait(uid, wait).await;
        }
        self.begin(
            guard,
            history,
            snapshot,
            target,
            &rendering,
            &digest,
            observed.as_ref(),
        )
        .await?;
        drop(_one);
        self.drive(guard, target, snapshot, true).await
    }

    pub(super) async fn observe(
        &self,
        engine: &dyn StackEngine,
        history: &History,
        name: &StackName,
    ) -> Result<Option<Observed>, Error> {
        let by_id = match &history.owned {
            Some(id) => engine.describe(&StackRef::Id(id.clone())).await?,
            None => None,
        };
        let found = match by_id.filter(|s| s.status.class() != StatusClass::Gone) {
            Some(found) => Some(found),
            None => engine.describe(&StackRef::Name(name.clone())).await?,
        };
        Ok(found.filter(|s| !matches!(s.status.class(), StatusClass::Gone)))
    }

    /// Says why a stack cannot be changed now: somebody else's, in motion, stuck, or moved.
    pub(super) async fn unfit(
        &self,
        uid: &TargetUid,
        history: &History,
        observed: &Observed,
    ) -> Result<Option<Option<Duration>>, Error> {
        let class = observed.status.class();
        let ours = history.owned.as_ref() == Some(&observed.stack_id);
        if class == StatusClass::Shell && (ours || observed.last_change_set.is_none()) {
            return Ok(None);
        }
        if !ours {
            // The log may have been lost between the claim and its entry; the claim itself was not.
            if history.owned.is_none()
                && self.owner(&observed.stack_id).await?.as_deref() == Some(uid.as_str())
            {
                let event = EventKind::Owned {
                    stack: observed.stack_id.clone(),
                };
                let owner = crate::domain::model::Actor::daemon("owner");
                self.record(uid, owner, event, Vec::new()).await?;
                self.ship().await?;
                return Ok(Some(Some(Duration::ZERO)));
            }
            self.show(
                uid,
                SyncResult::Foreign,
                Reason::NotOurs,
                format!("the stack {} exists and is not isoform's", observed.name),
            )
            .await?;
            return Ok(Some(None));
        }
        match class {
            StatusClass::Ready | StatusClass::RolledBack => {}
            StatusClass::Dead => return Ok(None),
            StatusClass::Moving | StatusClass::CleaningUp | StatusClass::RollingBack => {
                self.show(
                    uid,
                    SyncResult::Pending,
                    Reason::StackMoved,
                    format!("the stack is in motion: {}", observed.status),
                )
                .await?;
                return Ok(Some(Some(Duration::from_secs(1))));
            }
            _ => {
                self.show(
                    uid,
                    SyncResult::Stuck,
                    Reason::StackStuck,
                    format!("the stack is {}", observed.status),
                )
                .await?;
                return Ok(Some(None));
            }
        }
        let watermark = observed.watermark();
        // A word is about the stack as it was then: what somebody does after it asks again.
        let accepted = history
            .accepted
            .as_ref()
            .is_some_and(|(w, _)| *w == watermark);
        if let Some(name) = &observed.last_change_set
            && generation_of(&self.settings.installation, name).is_none()
            && !accepted
        {
            self.show(
                uid,
                SyncResult::Drifted,
                Reason::OutOfBand,
                format!(
                    "`{}` was executed last, which is not isoform's",
                    name.escape_debug()
                ),
            )
            .await?;
            return Ok(Some(None));
        }
        let known = history
            .applied
            .as_ref()
            .and_then(|a| a.watermark.clone())
            .or_else(|| {
                history
                    .last
                    .as_ref()
                    .and_then(|(_, s, _)| s.watermark.clone())
            });
        if known.is_some()
            && known != watermark
            && !accepted
            && crate::testing::guard("out-of-band")
        {
            self.show(
                uid,
                SyncResult::Drifted,
                Reason::OutOfBand,
                "the stack was changed by somebody else since it was last applied",
            )
            .await?;
            return Ok(Some(None));
        }
        Ok(None)
    }

    /// Pins everything that a deployment goes by, with the payload that its digest names.
    pub(super) fn pin(
        &self,
        history: &History,
        snapshot: &Snapshot,
        target: &Target,
        rendering: &Rendering,
        digest: &Digest,
        observed: Option<&Observed>,
    ) -> Result<(Pinned, Vec<u8>), Error> {
        let executed = observed
            .and_then(|o| o.last_change_set.as_deref())
            .and_then(|n| generation_of(&self.settings.installation, n))
            .unwrap_or_default();
        let generation = Generation(history.generation.max(executed).0 + 1);
        let pinning = Pinning::new(&rendering.file.0, &rendering.data, &rendering.desired);
        let payload_bytes = serde_json::to_vec(&pinning)
            .map_err(|e| Error::Broken(format!("writing a payload: {e}")))?;
        let hasher = self.store.keyring().hasher();
        let payload = hasher.digest("payload", &payload_bytes);
        let desired = &rendering.desired;
        let store = self.ports.store(&target.placement, &target.region)?;
        let rendered = Sent::new(hasher, store.as_ref(), &desired.template, &desired.nested).key;
        let id = super::new_id(self.clock.now());
        let used = target
            .needs()
            .iter()
            .filter_map(|a| snapshot.uids.get(a).cloned())
            .collect();
        let pinned = Pinned {
            deployment: id.parse().map_err(|e| Error::Broken(format!("{e}")))?,
            generation,
            snapshot: snapshot.id,
            revision: snapshot
                .revisions
                .get(&target.source)
                .cloned()
                .ok_or_else(|| Error::Broken("the source has no revision".into()))?,
            template: target.template().map(|t| t.version.clone()),
            bundle: target.template().map(|t| t.digest.clone()),
            digest: digest.clone(),
            epoch: EPOCH,
            inputs: Digest::of(
                "i1",
                &canonical_json(
                    &json!({ "data": hasher.digest("data", &canonical_json(&rendering.data)), "bundle": target.template().map(|t| t.digest.clone()) }),
                ),
            ),
            given: Some(rendering.desired.given(hasher)),
            watermark: observed.and_then(Observed::watermark),
            stack_name: rendering.desired.stack_name.clone(),
            rendered,
            payload: payload.clone(),
            placed: Some(Placed {
                source: target.source.clone(),
                placement: target.placement.name.clone(),
                uses: target.needs(),
                used: Some(used),
                prune: target.options.prune,
                gate: target.options.gate,
                windows: target.options.windows.clone(),
            }),
            removal: false,
            rollback: false,
            remedy: None,
        };
        Ok((pinned, payload_bytes))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "everything is pinned here, so everything is here"
    )]
    async fn begin(
        &self,
        guard: &TargetGuard<TargetUid>,
        history: &History,
        snapshot: &Snapshot,
        target: &Target,
        rendering: &Rendering,
        digest: &Digest,
        observed: Option<&Observed>,
    ) -> Result<(), Error> {
        let uid = guard.key();
        let (pinned, payload_bytes) =
            self.pin(history, snapshot, target, rendering, digest, observed)?;
        let payload = pinned.payload.clone();
        self.show(
            uid,
            SyncResult::Planning,
            Reason::Settled,
            "making a change set",
        )
        .await?;
        crate::testing::crash_point("begin.before-record");
        let entry = self
            .record(
                uid,
                snapshot.actor.clone(),
                EventKind::Begun(Box::new(pinned)),
                vec![(payload, payload_bytes)],
            )
            .await?;
        crate::testing::crash_point("begin.after-record");
        if entry.binds_the_future() {
            self.ship_to(entry.seq).await?;
        }
        Ok(())
    }

    /// The blast radius of a snapshot in the target's placement: held until its list is approved once.
    async fn radius(
        &self,
        uid: &TargetUid,
        snapshot: &Arc<Snapshot>,
        target: &Target,
    ) -> Result<Option<Wait>, Error> {
        if target.placement.mode == Mode::Observe {
            return Ok(None);
        }
        let limit = if target.placement.critical {
            0
        } else {
            target.placement.blast_radius
        };
        // What the placement does not even hold cannot be exceeded.
        if snapshot.compiled.targets.len() <= limit {
            if let Some(known) = self.shared().targets.get_mut(uid) {
                known.radius = None;
            }
            return Ok(None);
        }
        let (list, digest) = self.radius_of(snapshot, target).await?;
        {
            let mut shared = self.shared();
            let held = list.len() > limit
                && !shared.radii.contains(&digest)
                && crate::testing::guard("blast-radius");
            if let Some(known) = shared.targets.get_mut(uid) {
                known.radius = held.then(|| Radius {
                    snapshot: snapshot.clone(),
                    list: digest,
                    count: list.len(),
                });
            }
            if !held {
                return Ok(None);
            }
        }
        let names = list
            .iter()
            .take(5)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        let more = list.len().saturating_sub(5);
        let more = if more > 0 {
            format!(
                " and {more} more: `isoform why {}` lists all",
                target.address
            )
        } else {
            String::new()
        };
        let revision = snapshot
            .revisions
            .get(&target.source)
            .map(|r| r.short().to_owned())
            .unwrap_or_default();
        let detail = format!(
            "{revision} changes {} targets in `{}`, {limit} may change without an approval: {names}{more}",
            list.len(),
            target.placement.name
        );
        Ok(Some(Wait::new(Reason::BlastRadius, detail, None)))
    }

    /// Returns the targets of a placement that a snapshot changes, and the digest of that list.
    ///
    /// A target whose inputs are not known yet counts as changed. The list of a snapshot does not shrink while it
    /// rolls out: what was applied by this very snapshot still counts.
    pub(super) async fn radius_of(
        &self,
        snapshot: &Arc<Snapshot>,
        like: &Target,
    ) -> Result<(Vec<Address>, Digest), Error> {
        let mut list = Vec::new();
        let mut body = BTreeMap::new();
        for (address, target) in &snapshot.compiled.targets {
            if target.placement.name != like.placement.name
                || matches!(
                    target.kind,
                    TargetKind::CustomerManaged { .. } | TargetKind::Broken
                )
                || target.engine() != Engine::Jinja
            {
                continue;
            }
            let Some(uid) = snapshot.uids.get(address) else {
                continue;
            };
            // Most were rendered before: those are told from what is remembered, without a copy of their history.
            let (applied, remembered, unknown) = {
                let shared = self.shared();
                let Some(known) = shared.targets.get(uid) else {
                    continue;
                };
                let applied = known.history.applied.as_ref();
                (
                    applied.map(|a| (a.digest.clone(), a.snapshot)),
                    shared.remembered(uid, snapshot, target),
                    shared.fed(snapshot, target).iter().any(Option::is_none),
                )
            };
            let digest = match (unknown, remembered, self.history(uid)) {
                (true, _, _) | (_, None, None) => None,
                (_, Some(digest), _) => Some(digest),
                (_, None, Some(history)) => self
                    .digest_of(uid, &history, snapshot, target)
                    .await?
                    .ok()
                    .map(|(digest, _)| digest),
            };
            let changed = match (&digest, &applied) {
                (Some(digest), Some((applied, at))) => applied != digest || *at == snapshot.id,
                _ => true,
            };
            if changed {
                list.push(address.clone());
                // What is asked for, without the outputs that come while it rolls out: the list must stay the same until the end.
                let asked = format!(
                    "{:?}|{:?}|{:?}",
                    target.inputs(),
                    target.options,
                    target.stack_policy
                );
                let text = match &target.kind {
                    TargetKind::Stack { text, nested, .. } => {
                        let mut all = text.to_string();
                        all.extend(nested.values().map(|t| &**t));
                        crate::domain::model::sha256_hex(all.as_bytes())
                    }
                    TargetKind::Component { component, .. } => {
                        crate::domain::bundle::digest(&component.files).to_string()
                    }
                    _ => String::new(),
                };
                body.insert(
                    address.to_string(),
                    (
                        target.template().map(|t| t.digest.clone()),
                        text,
                        self.store
                            .keyring()
                            .hasher()
                            .digest("asked", asked.as_bytes()),
                    ),
                );
            }
        }
        let digest = Digest::of(
            "l1",
            &canonical_json(&json!({ "placement": like.placement.name, "targets": body })),
        );
        Ok((list, digest))
    }
}
