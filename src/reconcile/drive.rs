//! Driving a deployment that has begun: ask what comes next, announce, perform, record, and ask again.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::bundles::Pinning;
use super::perform::Performed;
use super::ready::counts_its_wave;
use super::{Error, Line, Snapshot};
use crate::domain::deployment::{Deployment, EventKind, Next, Outcome, Phase, Step};
use crate::domain::estate::Target;
use crate::domain::model::{Actor, Digest, Reason, StackId, SyncResult, TargetUid};
use crate::domain::pace::Urgency;
use crate::domain::plan::{
    Change, ChangeSetStatus, Observed, Review, StatusClass, Unshown, Whole, generation_of,
    hidden_losses, unforeseen,
};
use crate::domain::policy::{GateInput, Hold, gate};
use crate::domain::render::EPOCH;
use crate::port::{self, ChangeSet, Purpose, StackEngine, StackRef};
use crate::testing::{crash_point, guard as guard_stands};
use crate::workqueue::TargetGuard;

/// Tells whether a stack as it was read is what it was when the deployment began.
fn is_still(now: Option<&Observed>, deployment: &Deployment) -> bool {
    let now = now.and_then(Observed::watermark);
    now == deployment.pinned.watermark
        || (deployment.cleared && now.is_none())
        || !guard_stands("watermark")
}

impl Line {
    /// Returns CloudFormation with the rights of a deployment.
    fn engine_of(
        &self,
        target: &Target,
        deployment: Option<&Deployment>,
    ) -> Result<Arc<dyn StackEngine>, Error> {
        let (placement, region) = (&target.placement, &target.region);
        let Some(pinned) = deployment.map(|d| &d.pinned) else {
            return Ok(self.ports.engine_for(placement, region, Urgency::Run)?);
        };
        let purpose = Purpose {
            target: target.address.clone(),
            stack: pinned.stack_name.clone(),
            revision: pinned.revision.clone(),
        };
        Ok(self.ports.deploying(placement, region, &purpose)?)
    }

    /// Carries a deployment on until it waits, settles or the daemon stops. Returns when to look again.
    pub(super) async fn drive(
        &self,
        guard: &TargetGuard<TargetUid>,
        target: &Target,
        snapshot: &Snapshot,
        _fresh: bool,
    ) -> Result<Option<Duration>, Error> {
        let uid = guard.key();
        let current = self.history(uid).and_then(|h| h.current.clone());
        let engine = self.engine_of(target, current.as_ref())?;
        loop {
            let Some(deployment) = self.history(uid).and_then(|h| h.current.clone()) else {
                return Ok(Some(self.again(uid)));
            };
            if self.stop.is_cancelled() {
                return Ok(None);
            }
            if deployment.is_refused() && !deployment.is_executing() {
                self.drop_refused(guard, target, engine.as_ref(), &deployment)
                    .await?;
                continue;
            }
            if deployment.phase == Phase::Executing {
                match self
                    .resume_execution(guard, engine.as_ref(), target, snapshot, &deployment)
                    .await?
                {
                    Some(after) => return Ok(after),
                    None => continue,
                }
            }
            match deployment.next(&self.settings.installation) {
                Next::Do(step) => {
                    if let Step::Propose { .. } = step
                        && let Some(stack) = self.dead(engine.as_ref(), &deployment).await?
                    {
                        // Deleting is an execution too: what holds one holds the other.
                        if let Some(reason) = self.stopped(uid) {
                            let what = "the rest of a failed creation is to be deleted";
                            self.show(uid, SyncResult::Held, reason, what).await?;
                            return Ok(Some(Duration::from_secs(3)));
                        }
                        self.step(guard, target, engine.as_ref(), Step::Clear { stack })
                            .await?;
                        continue;
                    }
                    self.step(guard, target, engine.as_ref(), step).await?;
                }
                Next::Review if deployment.pinned.removal => {
                    self.review_removal(uid, engine.as_ref(), &deployment)
                        .await?;
                }
                Next::Review => {
                    self.review(guard, engine.as_ref(), target, &deployment)
                        .await?;
                }
                Next::Gate => {
                    if let Some(after) = self
                        .gate(guard, engine.as_ref(), target, snapshot, &deployment)
                        .await?
                    {
                        return Ok(after);
                    }
                }
                Next::Treat => {
                    if let Some(after) = self
                        .treat(guard, engine.as_ref(), target, &deployment)
                        .await?
                    {
                        return Ok(Some(after));
                    }
                }
                Next::Watch => {
                    if !self
                        .watch_stack(guard, engine.as_ref(), target, &deployment)
                        .await?
                    {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// When to look again after a deployment has ended: at once, but later and later while the stack keeps moving.
    fn again(&self, uid: &TargetUid) -> Duration {
        let mut shared = self.shared();
        let Some(known) = shared.targets.get_mut(uid) else {
            return Duration::ZERO;
        };
        let moved = known.history.last.as_ref().is_some_and(|(_, s, _)| {
            s.outcome == Outcome::Superseded && s.reason == Reason::StackMoved
        });
        if !moved {
            return Duration::ZERO;
        }
        known.attempts += 1;
        Duration::from_millis(50).saturating_mul(1 << known.attempts.min(12))
    }

    /// An execution was announced and its answer was lost: finds out whether it happened before anything is repeated.
    ///
    /// One that did not happen passes every gate and the fence once more. `None` means that it went on.
    async fn resume_execution(
        &self,
        guard: &TargetGuard<TargetUid>,
        engine: &dyn StackEngine,
        target: &Target,
        snapshot: &Snapshot,
        deployment: &Deployment,
    ) -> Result<Option<Option<Duration>>, Error> {
        let uid = guard.key();
        let stack = deployment
            .stack
            .clone()
            .ok_or_else(|| Error::Broken("no stack".into()))?;
        if deployment.pinned.removal || deployment.pinned.remedy.is_some() {
            let now = engine.describe(&StackRef::Id(stack.clone())).await?;
            let untouched =
                now.as_ref().and_then(Observed::watermark) == deployment.pinned.watermark;
            if untouched
                && self
                    .operation_events(engine, &stack, deployment)
                    .await?
                    .is_empty()
            {
                if deployment.is_refused() {
                    return self
                        .drop_refused(guard, target, engine, deployment)
                        .await
                        .map(|()| None);
                }
                if deployment.pinned.remedy.is_some() {
                    let after = self.treat(guard, engine, target, deployment).await?;
                    return Ok(after.map(Some));
                }
                return self.gate(guard, engine, target, snapshot, deployment).await;
            }
            let event = match deployment.pinned.remedy {
                Some(_) => EventKind::Remedied { refused: None },
                None => EventKind::Executed,
            };
            self.record(uid, Actor::daemon("line"), event, Vec::new())
                .await?;
            return Ok(None);
        }
        let Some(change_set) = deployment.change_set.clone() else {
            return Err(Error::Broken("nothing to execute".into()));
        };
        let ran = match engine.review(&change_set).await {
            Ok(read) => matches!(
                read.status,
                ChangeSetStatus::Executing | ChangeSetStatus::Executed
            ),
            Err(port::Error::NotFound(_)) => false,
            Err(error) => return Err(error.into()),
        };
        if ran
            || !self
                .operation_events(engine, &stack, deployment)
                .await?
                .is_empty()
        {
            self.record(uid, Actor::daemon("line"), EventKind::Executed, Vec::new())
                .await?;
            return Ok(None);
        }
        if deployment.is_refused() {
            return self
                .drop_refused(guard, target, engine, deployment)
                .await
                .map(|()| None);
        }
        self.gate(guard, engine, target, snapshot, deployment).await
    }

    /// Finds the rest of a failed creation: only deleting is possible, and only where the log says it is ours.
    async fn dead(
        &self,
        engine: &dyn StackEngine,
        deployment: &Deployment,
    ) -> Result<Option<StackId>, Error> {
        let Some(watermark) = deployment
            .pinned
            .watermark
            .as_ref()
            .filter(|w| w.status.class() == StatusClass::Dead && !deployment.cleared)
        else {
            return Ok(None);
        };
        let found = engine
            .describe(&StackRef::Id(watermark.stack_id.clone()))
            .await?;
        Ok(found
            .filter(|s| s.status.class() == StatusClass::Dead)
            .map(|s| s.stack_id))
    }

    pub(super) async fn step(
        &self,
        guard: &TargetGuard<TargetUid>,
        target: &Target,
        engine: &dyn StackEngine,
        step: Step,
    ) -> Result<(), Error> {
        self.step_with(guard, target, engine, step, Vec::new())
            .await
    }

    /// Announces a step with what its entry names, performs it, and records what came of it.
    pub(super) async fn step_with(
        &self,
        guard: &TargetGuard<TargetUid>,
        target: &Target,
        engine: &dyn StackEngine,
        step: Step,
        payloads: Vec<(Digest, Vec<u8>)>,
    ) -> Result<(), Error> {
        let uid = guard.key();
        let word = step.word();
        let announced = match self.announce(guard, step, payloads).await {
            Ok(announced) => announced,
            // Somebody said no between the gates and the announcement: the next round sees that.
            Err(Error::Illegal(_)) if self.is_refused(uid) => return Ok(()),
            Err(error) => return Err(error),
        };
        let performed = self.perform(&announced, target, engine).await?;
        crash_point(&format!("{word}.after-effect"));
        match performed {
            Performed::Events(events) => {
                for event in events {
                    let binds = event.binds_the_future();
                    let entry = self
                        .record(uid, Actor::daemon("line"), event, Vec::new())
                        .await?;
                    if binds {
                        self.ship_to(entry.seq).await?;
                    }
                }
                crash_point(&format!("{word}.after-record"));
                Ok(())
            }
            Performed::Refused(text) => {
                self.close_policy(guard, target, engine).await?;
                let pinned = &announced.deployment.pinned;
                let (outcome, reason) = if pinned.removal || pinned.remedy.is_some() {
                    (Outcome::Stuck, Reason::StackStuck)
                } else {
                    (Outcome::ChangeSetFailed, Reason::ChangeSetFailed)
                };
                self.settle(guard, outcome, reason, Some(text), None).await
            }
            Performed::Moved => {
                self.close_policy(guard, target, engine).await?;
                self.settle(
                    guard,
                    Outcome::Superseded,
                    Reason::StackMoved,
                    Some("the stack moved in between".into()),
                    None,
                )
                .await?;
                self.show(
                    uid,
                    SyncResult::Superseded,
                    Reason::StackMoved,
                    "the stack moved in between: it is planned again",
                )
                .await
            }
            Performed::NotOurs(owner) => {
                self.settle(
                    guard,
                    Outcome::Stuck,
                    Reason::NotOurs,
                    Some(format!(
                        "the stack is owned by the target {}",
                        owner.escape_debug()
                    )),
                    None,
                )
                .await
            }
        }
    }

    /// Discards the change set of a deployment, where it has one.
    pub(super) async fn discard(
        &self,
        guard: &TargetGuard<TargetUid>,
        target: &Target,
        engine: &dyn StackEngine,
        deployment: &Deployment,
    ) -> Result<(), Error> {
        self.close_policy(guard, target, engine).await?;
        if deployment.change_set.is_none() {
            return Ok(());
        }
        self.step(guard, target, engine, Step::Discard).await
    }

    /// Discards a deployment that is not executing, because something newer is wanted.
    pub(super) async fn supersede(
        &self,
        guard: &TargetGuard<TargetUid>,
        target: &Target,
        why: &str,
    ) -> Result<(), Error> {
        let uid = guard.key();
        let Some(deployment) = self
            .history(uid)
            .and_then(|h| h.current.clone())
            .filter(|d| !d.is_executing())
        else {
            return Ok(());
        };
        if deployment.change_set.is_some() {
            let engine = self.engine_of(target, Some(&deployment))?;
            self.discard(guard, target, engine.as_ref(), &deployment)
                .await?;
        }
        self.settle(
            guard,
            Outcome::Superseded,
            Reason::NewerRevision,
            Some(why.to_owned()),
            None,
        )
        .await
    }

    async fn review(
        &self,
        guard: &TargetGuard<TargetUid>,
        engine: &dyn StackEngine,
        target: &Target,
        deployment: &Deployment,
    ) -> Result<(), Error> {
        let uid = guard.key();
        let Some(change_set) = deployment.change_set.clone() else {
            return Err(Error::Broken("nothing to review".into()));
        };
        let mut wait = Duration::from_millis(15);
        let read = loop {
            let read = match engine.review(&change_set).await {
                Ok(read) => read,
                // Discarded before a crash, or by somebody else: what is not there cannot run.
                Err(port::Error::NotFound(_)) => {
                    return self
                        .settle(
                            guard,
                            Outcome::Superseded,
                            Reason::StackMoved,
                            Some("the change set is gone".into()),
                            None,
                        )
                        .await;
                }
                Err(error) => return Err(error.into()),
            };
            if read.status != ChangeSetStatus::Creating {
                break read;
            }
            let least = engine.least_wait();
            wait = wait.max(least);
            self.clock.sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(2).max(least * 10));
        };
        match read.status {
            ChangeSetStatus::Available => {}
            ChangeSetStatus::NoChanges => {
                return self
                    .without_changes(guard, engine, target, deployment)
                    .await;
            }
            ChangeSetStatus::Failed => {
                self.step(guard, target, engine, Step::Discard).await?;
                let cause = read.reason.clone();
                return self
                    .settle(
                        guard,
                        Outcome::ChangeSetFailed,
                        Reason::ChangeSetFailed,
                        cause,
                        None,
                    )
                    .await;
            }
            _ => {
                self.settle(
                    guard,
                    Outcome::Superseded,
                    Reason::StackMoved,
                    Some("the change set is obsolete".into()),
                    None,
                )
                .await?;
                return Ok(());
            }
        }
        // What will run is what was rendered: the original is read back by the change set's ARN.
        let sent = self.sent(target, &deployment.pinned).await?;
        // What is read back has lost every character outside ASCII.
        if engine.change_set_template(&change_set).await?
            != crate::domain::cfn::as_read_back(&sent.text)
        {
            self.step(guard, target, engine, Step::Discard).await?;
            return self
                .settle(
                    guard,
                    Outcome::Stuck,
                    Reason::StackStuck,
                    Some("the change set holds another template than was sent".into()),
                    None,
                )
                .await;
        }
        let ChangeSet {
            changes,
            complete,
            capabilities,
            ..
        } = read;
        self.reviewed(uid, deployment, changes, complete, false, &capabilities)
            .await
    }

    /// CloudFormation found nothing to do. What a change set cannot carry may still have to be set, and passes the
    /// same gates.
    async fn without_changes(
        &self,
        guard: &TargetGuard<TargetUid>,
        engine: &dyn StackEngine,
        target: &Target,
        deployment: &Deployment,
    ) -> Result<(), Error> {
        let stack = deployment
            .stack
            .clone()
            .ok_or_else(|| Error::Broken("no stack".into()))?;
        let observed = engine.describe(&StackRef::Id(stack.clone())).await?;
        let pinning = self.pinning(&deployment.pinned.payload).await?;
        let policy = match &pinning.stack_policy {
            Some(wanted) => engine.stack_policy(&stack).await?.as_ref() != Some(wanted),
            None => false,
        };
        let protection = pinning.termination_protection.is_some_and(|on| {
            observed
                .as_ref()
                .is_some_and(|o| o.termination_protection != on)
        });
        if policy || protection {
            return self
                .reviewed(guard.key(), deployment, Vec::new(), true, true, &[])
                .await;
        }
        self.step(guard, target, engine, Step::Discard).await?;
        self.settle(
            guard,
            Outcome::NoEffect,
            Reason::NoChanges,
            None,
            observed.as_ref(),
        )
        .await
    }

    /// Writes a review down.
    pub(super) async fn reviewed(
        &self,
        uid: &TargetUid,
        deployment: &Deployment,
        changes: Vec<Change>,
        complete: bool,
        settings_only: bool,
        capabilities: &[String],
    ) -> Result<(), Error> {
        let pinned = &deployment.pinned;
        let hidden = match pinned.removal || !changes.iter().any(Change::is_nested) {
            true => self.hidden(uid, None, &changes).await?,
            false => {
                let after = self.pinning(&pinned.payload).await?;
                self.hidden(uid, Some(whole(&after)), &changes).await?
            }
        };
        // As the change set says it: whichever of two proposals it came from, before or after a crash.
        let capabilities = match capabilities {
            [] => Vec::new(),
            told => {
                let pinning = self.pinning(&pinned.payload).await?;
                unforeseen(told, &pinning.capabilities, pinning.allowed.as_deref())
            }
        };
        let unshown = Unshown {
            hidden,
            capabilities,
        };
        let review = Review::new(
            uid,
            pinned.watermark.as_ref().map(|w| &w.stack_id),
            pinned.watermark.as_ref(),
            &pinned.digest,
            changes,
            complete,
            unshown,
        );
        let bytes = serde_json::to_vec(&json!(review))
            .map_err(|e| Error::Broken(format!("writing a review: {e}")))?;
        let payload = self.store.keyring().hasher().digest("payload", &bytes);
        let losses = review.stateful_losses();
        let losses = losses.iter().map(|c| c.loss()).chain(review.hidden.clone());
        let losses = losses.collect();
        let event = EventKind::Reviewed {
            review: review.digest.clone(),
            payload: payload.clone(),
            summary: if settings_only {
                "stack policy or protection only".into()
            } else {
                review.summary()
            },
            losses,
            settings_only,
        };
        crash_point("review.before-record");
        self.record(uid, Actor::daemon("line"), event, vec![(payload, bytes)])
            .await?;
        crash_point("review.after-record");
        Ok(())
    }

    /// Says what the nested stacks of a change may lose without the change set showing it.
    pub(super) async fn hidden(
        &self,
        uid: &TargetUid,
        after: Option<Whole<'_>>,
        changes: &[Change],
    ) -> Result<Vec<String>, Error> {
        if !changes.iter().any(Change::is_nested) {
            return Ok(Vec::new());
        }
        let applied = self
            .history(uid)
            .and_then(|h| Some(h.applied.as_ref()?.payload.clone()));
        let before = match &applied {
            Some(applied) => Some(self.pinning(applied).await?),
            None => None,
        };
        let before = before.as_ref().map(whole);
        Ok(hidden_losses(changes, before.as_ref(), after.as_ref()))
    }

    pub(super) async fn review_of(&self, payload: &Digest) -> Result<Review, Error> {
        let bytes = self
            .store
            .payload(payload)
            .await?
            .ok_or_else(|| Error::Broken(format!("the payload {payload} is missing")))?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::Broken(format!("the payload {payload} cannot be read: {e}")))
    }

    /// Asks the gates. `None` means that it went on; otherwise when to look again.
    async fn gate(
        &self,
        guard: &TargetGuard<TargetUid>,
        engine: &dyn StackEngine,
        target: &Target,
        snapshot: &Snapshot,
        deployment: &Deployment,
    ) -> Result<Option<Option<Duration>>, Error> {
        let uid = guard.key();
        let Some((_, payload)) = &deployment.review else {
            return Err(Error::Broken("nothing was reviewed".into()));
        };
        let review = self.review_of(payload).await?;
        let now = self.clock.now();
        let history = self.history(uid);
        let suspended = history
            .as_ref()
            .and_then(|h| h.suspended.clone())
            .filter(|(_, until, _)| until.is_none_or(|u| u > now));
        let mode = self.mode(target);
        let pinned = self
            .shared()
            .snapshots
            .iter()
            .find(|s| s.id == deployment.pinned.snapshot)
            .cloned();
        let author = pinned
            .as_deref()
            .unwrap_or(snapshot)
            .commits
            .get(&target.source)
            .map(|c| c.author.clone());
        // The same recorded inputs and another digest: the renderer writes other bytes than the release before.
        let renderer_changed = history
            .as_ref()
            .and_then(|h| h.applied.clone())
            .is_some_and(|a| a.inputs == deployment.pinned.inputs && a.epoch != EPOCH);
        let removal = self.removal(uid, target, deployment);
        let denied = self.denied(uid, deployment, &review).await?;
        let holds: Vec<Hold> = gate(&GateInput {
            mode,
            gate: target.options.gate,
            gated_before: history
                .as_ref()
                .and_then(|h| h.applied.as_ref())
                .is_some_and(|a| a.gated),
            rule: &target.placement.rule,
            windows: &target.options.windows,
            review: &review,
            approvals: &deployment.approvals,
            author: author.as_deref(),
            frozen: self.is_frozen(),
            suspended: suspended.as_ref().map(|(why, _, _)| why.as_str()),
            renderer_changed,
            denied: &denied,
            removal: removal.as_ref(),
            now,
        });
        let holds: Vec<Hold> = holds
            .into_iter()
            .filter(|h| h.reason != Reason::Approval || guard_stands("approval"))
            .filter(|h| h.reason != Reason::Suspended || guard_stands("suspension"))
            .filter(|h| h.reason != Reason::PruneBudget || guard_stands("budget"))
            .collect();
        let Some(first) = holds.first() else {
            // It may have been held for days: how its wave stands is asked again, by one after the other where they are counted.
            // What was announced was counted then, and is never left.
            let then = pinned.as_deref().and_then(|s| {
                let there = s.compiled.targets.get(&target.address)?;
                Some((s, &**there))
            });
            let both = [Some((snapshot, target)), then];
            let both = both.into_iter().flatten();
            // A rollback is held by no wave: it takes the place of what the wave let through.
            let counted = !deployment.is_executing() && !deployment.pinned.rollback;
            let both: Vec<_> = both.filter(|_| counted).collect();
            let _one = match both.iter().any(|(s, t)| counts_its_wave(s, t)) {
                true => Some(self.starting.lock().await),
                false => None,
            };
            let wait = both.iter().find_map(|(s, t)| self.may_begin(uid, s, t));
            if let Some(wait) = wait {
                self.close_policy(guard, target, engine).await?;
                return self.wait(uid, wait).await.map(Some);
            }
            return self
                .execute(guard, engine, target, deployment)
                .await
                .map(|()| None);
        };
        // Opened before a crash, and held now: it stays closed until it runs.
        self.close_policy(guard, target, engine).await?;
        // Before it is shown as waiting: a stack that moved makes the review worthless.
        if !self.still(engine, deployment).await? {
            self.discard(guard, target, engine, deployment).await?;
            self.settle(
                guard,
                Outcome::Superseded,
                Reason::StackMoved,
                Some("the stack moved: what was reviewed cannot run".into()),
                None,
            )
            .await?;
            return Ok(Some(Some(Duration::ZERO)));
        }
        let reasons: Vec<Reason> = holds.iter().map(|h| h.reason).collect();
        if deployment.held != reasons {
            let detail = holds.iter().map(|h| h.detail.clone()).collect();
            self.record(
                uid,
                Actor::daemon("gate"),
                EventKind::Held {
                    reasons: reasons.clone(),
                    detail,
                },
                Vec::new(),
            )
            .await?;
        }
        let detail = holds
            .iter()
            .map(|h| h.detail.as_str())
            .collect::<Vec<_>>()
            .join("; ");
        let result = if matches!(first.reason, Reason::Suspended | Reason::Frozen) {
            SyncResult::Held
        } else if deployment.pinned.removal {
            SyncResult::Orphaned
        } else {
            SyncResult::Pending
        };
        self.show(uid, result, first.reason, detail).await?;
        let timed = reasons
            .iter()
            .any(|r| matches!(r, Reason::Window | Reason::Frozen | Reason::Suspended));
        // Later than what keeps a look open: a freeze may last for days.
        Ok(Some(timed.then_some(Duration::from_secs(3))))
    }

    /// Tells whether the stack is what it was when the deployment began.
    async fn still(
        &self,
        engine: &dyn StackEngine,
        deployment: &Deployment,
    ) -> Result<bool, Error> {
        let Some(stack) = &deployment.stack else {
            return Ok(true);
        };
        let now = engine.describe(&StackRef::Id(stack.clone())).await?;
        Ok(is_still(now.as_ref(), deployment))
    }

    /// The fence, and then the execution: what the stack executed last must be older than this generation.
    async fn execute(
        &self,
        guard: &TargetGuard<TargetUid>,
        engine: &dyn StackEngine,
        target: &Target,
        deployment: &Deployment,
    ) -> Result<(), Error> {
        let uid = guard.key();
        let stack = deployment
            .stack
            .clone()
            .ok_or_else(|| Error::Broken("no stack to execute on".into()))?;
        if !deployment.pinned.removal
            && let Some(why) = self.replaced(target, deployment).await?
        {
            self.discard(guard, target, engine, deployment).await?;
            let reason = Reason::StackStuck;
            return self
                .settle(guard, Outcome::Stuck, reason, Some(why), None)
                .await;
        }
        let observed = engine.describe(&StackRef::Id(stack)).await?;
        let executed = observed.as_ref().and_then(|o| o.last_change_set.as_deref());
        let newer = executed
            .and_then(|n| generation_of(&self.settings.installation, n))
            .is_some_and(|g| g >= deployment.pinned.generation)
            && guard_stands("fence");
        if newer || !is_still(observed.as_ref(), deployment) {
            self.discard(guard, target, engine, deployment).await?;
            return self
                .settle(
                    guard,
                    Outcome::Superseded,
                    Reason::StackMoved,
                    Some("the stack moved between the review and the execution".into()),
                    None,
                )
                .await;
        }
        self.show(
            uid,
            SyncResult::Applying,
            Reason::Settled,
            deployment.summary.clone(),
        )
        .await?;
        if deployment.pinned.removal {
            let stack = deployment
                .stack
                .clone()
                .ok_or_else(|| Error::Broken("no stack to delete".into()))?;
            let token = deployment.token();
            return self
                .step(guard, target, engine, Step::Delete { stack, token })
                .await;
        }
        if deployment.settings_only {
            self.step(guard, target, engine, Step::Configure).await?;
            self.step(guard, target, engine, Step::Discard).await?;
            return self
                .settle(
                    guard,
                    Outcome::Applied,
                    Reason::Settled,
                    None,
                    observed.as_ref(),
                )
                .await;
        }
        self.open_policy(guard, target, engine, deployment).await?;
        let token = deployment.token();
        let executed = self
            .step(guard, target, engine, Step::Execute { token })
            .await;
        // Refused for want of a right, and so not begun: until somebody gives it the policy does not stay open.
        if let Err(Error::Port(port::Error::Denied(_))) = &executed {
            self.close_policy(guard, target, engine).await?;
        }
        executed
    }
}

/// What a stack was given, or is to be given.
fn whole(pinning: &Pinning) -> Whole<'_> {
    Whole {
        text: &pinning.rendered,
        parameters: &pinning.parameters,
        nested: &pinning.nested,
    }
}
