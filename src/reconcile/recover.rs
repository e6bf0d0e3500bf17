//! Ways back: stopping what runs, moving a stack that is stuck, and holding a target at what an earlier deployment gave.
//!
//! Whoever asks only writes that down (`operator`); here it is done, by the one writer of the target, as announced steps.

use std::sync::Arc;
use std::time::Duration;

use super::settle::LAG;
use super::{Error, Line, Snapshot};
use crate::domain::deployment::{
    Deployment, EventKind, History, Outcome, Pin, Pinned, Remedy, Step,
};
use crate::domain::estate::Target;
use crate::domain::model::{Actor, Digest, Generation, Reason, StackId, SyncResult, TargetUid};
use crate::domain::plan::{Observed, Review, StackStatus, StatusClass, generation_of};
use crate::domain::policy::{Mode, Placed, StackPolicy};
use crate::port::{StackEngine, StackRef};
use crate::workqueue::TargetGuard;

impl Line {
    /// Says what stops everything that would change the stack of a target, whatever speaks for it.
    pub(super) fn stopped(&self, uid: &TargetUid) -> Option<Reason> {
        let now = self.clock.now();
        let suspended = self
            .history(uid)
            .and_then(|h| h.suspended.clone())
            .is_some_and(|(_, until, _)| until.is_none_or(|u| u > now));
        if suspended {
            Some(Reason::Suspended)
        } else {
            self.is_frozen().then_some(Reason::Frozen)
        }
    }

    /// Tells whether somebody said no to the deployment in motion.
    pub(super) fn is_refused(&self, uid: &TargetUid) -> bool {
        let history = self.history(uid);
        history.is_some_and(|h| h.current.as_ref().is_some_and(Deployment::is_refused))
    }

    /// Ends a deployment that does not run, because somebody said no to it.
    pub(super) async fn drop_refused(
        &self,
        guard: &TargetGuard<TargetUid>,
        target: &Target,
        engine: &dyn StackEngine,
        deployment: &Deployment,
    ) -> Result<(), Error> {
        self.discard(guard, target, engine, deployment).await?;
        let (outcome, reason, cause) = match (&deployment.rejected, &deployment.cancel) {
            (None, Some((by, _))) => (Outcome::Cancelled, Reason::Cancelled, by.clone()),
            (rejected, _) => (
                Outcome::Rejected,
                Reason::Rejected,
                rejected.clone().unwrap_or_default(),
            ),
        };
        self.settle(guard, outcome, reason, Some(cause), None).await
    }

    /// Tells CloudFormation to stop, where somebody asked for that since it was last looked.
    pub(super) async fn tell_to_stop(
        &self,
        guard: &TargetGuard<TargetUid>,
        engine: &dyn StackEngine,
        target: &Target,
        stack: &StackId,
    ) -> Result<(), Error> {
        let Some(deployment) = self.history(guard.key()).and_then(|h| h.current.clone()) else {
            return Ok(());
        };
        if !matches!(deployment.cancel, Some((_, false))) {
            return Ok(());
        }
        let step = Step::Cancel {
            stack: stack.clone(),
            token: format!("{}-x", deployment.token()),
        };
        self.step(guard, target, engine, step).await
    }

    /// Says what the stack policy of the last deployment keeps a reviewed change from doing.
    ///
    /// A policy that was set by hand is not known here: what it denies is told by the change that fails.
    pub(super) async fn denied(
        &self,
        uid: &TargetUid,
        deployment: &Deployment,
        review: &Review,
    ) -> Result<Vec<String>, Error> {
        let history = self.history(uid);
        let applied = history.and_then(|h| h.applied.as_ref().map(|a| a.payload.clone()));
        let Some(applied) = applied.filter(|_| !deployment.pinned.removal) else {
            return Ok(Vec::new());
        };
        let policy = self.pinning(&applied).await?.stack_policy;
        let policy = policy.as_deref().and_then(StackPolicy::parse);
        Ok(policy.map_or_else(Vec::new, |p| p.denied(&review.changes)))
    }

    /// Opens the stack policy for what was reviewed, where that is what was approved.
    pub(super) async fn open_policy(
        &self,
        guard: &TargetGuard<TargetUid>,
        target: &Target,
        engine: &dyn StackEngine,
        deployment: &Deployment,
    ) -> Result<(), Error> {
        let (Some(stack), Some((_, payload))) = (&deployment.stack, &deployment.review) else {
            return Ok(());
        };
        let review = self.review_of(payload).await?;
        if !deployment.approvals.iter().any(|a| a.opens)
            || self
                .denied(guard.key(), deployment, &review)
                .await?
                .is_empty()
        {
            return Ok(());
        }
        // As it is, and not as Git has it: what is closed again is what was opened.
        let former = match &deployment.opened {
            Some(former) => self.text_of(former).await?,
            None => match engine.stack_policy(stack).await? {
                Some(former) => former,
                None => return Ok(()),
            },
        };
        let digest = self
            .store
            .keyring()
            .hasher()
            .digest("payload", former.as_bytes());
        let step = Step::OpenPolicy {
            former: digest.clone(),
        };
        let payloads = vec![(digest, former.into_bytes())];
        self.step_with(guard, target, engine, step, payloads).await
    }

    /// Sets the stack policy as it was, where it is open.
    pub(super) async fn close_policy(
        &self,
        guard: &TargetGuard<TargetUid>,
        target: &Target,
        engine: &dyn StackEngine,
    ) -> Result<(), Error> {
        let open = self
            .history(guard.key())
            .is_some_and(|h| h.current.as_ref().is_some_and(|d| d.opened.is_some()));
        if !open {
            return Ok(());
        }
        // Boxed: it is a step within steps.
        Box::pin(self.step(guard, target, engine, Step::ClosePolicy)).await
    }

    /// Tells whether a read shows the stack as it was before it was told to go on: reads lag behind, for a bounded time.
    pub(super) fn reads_before(
        &self,
        deployment: &Deployment,
        observed: Option<&Observed>,
    ) -> bool {
        let Some(treatment) = &deployment.treatment else {
            return false;
        };
        treatment.told.is_some_and(|told| {
            observed.and_then(Observed::watermark) == treatment.watermark
                && self.clock.now() < told.plus(LAG)
        })
    }

    /// Goes on, once and by itself, with a rollback that failed: what was only slow or throttled ends well then.
    ///
    /// Returns true where it did. A second failure is for a person, who says what to skip.
    pub(super) async fn heal(
        &self,
        guard: &TargetGuard<TargetUid>,
        engine: &dyn StackEngine,
        target: &Target,
        deployment: &Deployment,
        observed: Option<&Observed>,
    ) -> Result<bool, Error> {
        let Some(observed) = observed.filter(|o| o.status == StackStatus::UpdateRollbackFailed)
        else {
            return Ok(false);
        };
        let treated = deployment.treatment.as_ref();
        let treated = treated.is_some_and(|t| t.told.is_some() || t.refused);
        if treated || self.stopped(guard.key()).is_some() {
            return Ok(false);
        }
        let step = Step::Remedy {
            stack: observed.stack_id.clone(),
            token: format!("{}-c", deployment.token()),
            remedy: Remedy::Continue { skip: Vec::new() },
            watermark: observed.watermark(),
        };
        self.step(guard, target, engine, step).await?;
        Ok(true)
    }

    /// Moves a stack that is stuck, as an operator asked. Returns when to look again where something stops that.
    pub(super) async fn treat(
        &self,
        guard: &TargetGuard<TargetUid>,
        engine: &dyn StackEngine,
        target: &Target,
        deployment: &Deployment,
    ) -> Result<Option<Duration>, Error> {
        let uid = guard.key();
        if let Some(reason) = self.stopped(uid) {
            let what = "its stack is to be moved, as an operator asked";
            self.show(uid, SyncResult::Held, reason, what).await?;
            return Ok(Some(Duration::from_secs(3)));
        }
        if self.mode(target) == Mode::Observe {
            let what = "the mode is observe: its stack is to be moved, and nothing is done";
            self.show(uid, SyncResult::Held, Reason::Observe, what)
                .await?;
            return Ok(Some(Duration::from_secs(3)));
        }
        let Some(remedy) = &deployment.pinned.remedy else {
            return Err(Error::Broken("nothing was asked for".into()));
        };
        // It may have waited for days: what was asked for was about the stack as it was then, and about a target that nobody
        // wanted, where it deletes what was deployed.
        let now = match &deployment.stack {
            Some(stack) => engine.describe(&StackRef::Id(stack.clone())).await?,
            None => None,
        };
        let class = now.as_ref().map_or(StatusClass::Gone, |o| o.status.class());
        let deletes = matches!(remedy, Remedy::Delete { .. });
        let verdict = match (class, &now) {
            (StatusClass::Gone, _) | (_, None) if deletes => Err((
                Outcome::Removed,
                Reason::Removed,
                "the stack is gone already".to_owned(),
            )),
            (StatusClass::Gone, _) | (_, None) => Err((
                Outcome::Stuck,
                Reason::StackStuck,
                "the stack is gone".to_owned(),
            )),
            (_, Some(now)) if now.watermark() != deployment.pinned.watermark => {
                let why = "the stack moved since that was asked for".to_owned();
                Err((Outcome::Superseded, Reason::StackMoved, why))
            }
            (StatusClass::Stuck | StatusClass::Dead, Some(_)) if deletes && self.is_wanted(uid) => {
                let why = "Git asks for it again: it is not deleted".to_owned();
                Err((Outcome::Superseded, Reason::StackMoved, why))
            }
            (StatusClass::Stuck | StatusClass::Dead, Some(now)) => Ok(now.stack_id.clone()),
            (_, Some(now)) => {
                let why = format!("the stack is {} already", now.status);
                Err((Outcome::Remedied, Reason::StackRolledBack, why))
            }
        };
        let stack = match verdict {
            Ok(stack) => stack,
            Err((outcome, reason, why)) => {
                let seen = now.as_ref().filter(|_| outcome == Outcome::Remedied);
                self.settle(guard, outcome, reason, Some(why), seen).await?;
                return Ok(None);
            }
        };
        let step = Step::Remedy {
            stack,
            token: deployment.token(),
            remedy: remedy.clone(),
            watermark: deployment.pinned.watermark.clone(),
        };
        self.step(guard, target, engine, step).await?;
        Ok(None)
    }

    /// Tells whether Git asks for a target that is deployed.
    fn is_wanted(&self, uid: &TargetUid) -> bool {
        let (history, newest) = (self.history(uid), self.newest());
        let address = history
            .filter(|h| h.applied.is_some())
            .and_then(|h| h.address.clone());
        address
            .zip(newest)
            .is_some_and(|(a, s)| s.uids.get(&a) == Some(uid))
    }

    /// Begins to move a stack that is stuck, where an operator asked for that. Returns false where there is nothing to move.
    pub(super) async fn begin_remedy(
        &self,
        guard: &TargetGuard<TargetUid>,
        history: &History,
        target: &Target,
        newest: &Snapshot,
    ) -> Result<bool, Error> {
        let (Some((remedy, actor, _)), Some(stack)) = (&history.remedy, &history.owned) else {
            return Ok(false);
        };
        let engine = self.ports.engine(&target.placement, &target.region)?;
        let observed = engine.describe(&StackRef::Id(stack.clone())).await?;
        let Some(before) = history.last.as_ref().map(|(pinned, _, _)| pinned.clone()) else {
            return Err(Error::Broken("the target was never deployed".into()));
        };
        let digest = Digest::of("t1", before.digest.to_string().as_bytes());
        let pinned = Pinned {
            digest: digest.clone(),
            template: None,
            bundle: None,
            inputs: digest,
            given: None,
            rendered: String::new(),
            placed: None,
            removal: false,
            rollback: false,
            remedy: Some(remedy.clone()),
            snapshot: newest.id,
            ..self.anew(history, before, observed.as_ref())?
        };
        self.begin_pinned(guard, actor.clone(), pinned).await?;
        Ok(true)
    }

    /// Ends what an operator had done about a stack, by what has become of it.
    pub(super) async fn end_remedy(
        &self,
        guard: &TargetGuard<TargetUid>,
        deployment: &Deployment,
        observed: Option<&Observed>,
        (cause, stuck_on): (Option<String>, Vec<String>),
    ) -> Result<(), Error> {
        let class = observed.map_or(StatusClass::Gone, |o| o.status.class());
        let deletes = matches!(deployment.pinned.remedy, Some(Remedy::Delete { .. }));
        let (outcome, reason) = match class {
            StatusClass::Ready | StatusClass::RolledBack => {
                (Outcome::Remedied, Reason::StackRolledBack)
            }
            StatusClass::Gone if deletes => (Outcome::Removed, Reason::Removed),
            _ => (Outcome::Stuck, Reason::StackStuck),
        };
        let cause = cause.or_else(|| observed.and_then(|o| o.status_reason.clone()));
        let cause = cause.filter(|_| outcome == Outcome::Stuck);
        self.settle_with(guard, outcome, reason, cause, observed, stuck_on)
            .await
    }

    /// Holds a target at what an earlier deployment gave it, and brings it there first where it is not. `None` means that
    /// Git asks for the same by now, and is followed again.
    pub(super) async fn held_at(
        &self,
        guard: &TargetGuard<TargetUid>,
        history: &History,
        pin: &Pin,
        target: &Arc<Target>,
        snapshot: &Snapshot,
    ) -> Result<Option<Option<Duration>>, Error> {
        let uid = guard.key();
        let digest = &pin.to.digest;
        let here = format!(":{}:{}:stack/", target.region, target.placement.account);
        if let Some(stack) = history
            .owned
            .as_ref()
            .filter(|s| !s.as_str().contains(&here))
        {
            let name = &target.placement.name;
            let what = format!("its stack is {stack}, and the placement `{name}` is elsewhere");
            self.show(uid, SyncResult::Failed, Reason::Invalid, what)
                .await?;
            return Ok(Some(None));
        }
        if history
            .applied
            .as_ref()
            .is_some_and(|a| a.digest == *digest)
            && history.current.is_none()
        {
            return self.follows_again(guard, pin, target, snapshot).await;
        }
        let current = history.current.as_ref().map(|d| d.pinned.digest.clone());
        if current.as_ref() != Some(digest) {
            self.supersede(
                guard,
                target,
                "an operator brings an earlier deployment back",
            )
            .await?;
            if let Some((_, settlement, _)) = history.failed.as_ref().filter(|(d, ..)| d == digest)
            {
                let result = if settlement.outcome == Outcome::Stuck {
                    SyncResult::Stuck
                } else {
                    SyncResult::Failed
                };
                let cause = settlement.cause.clone().unwrap_or_default();
                self.show(uid, result, settlement.reason, cause).await?;
                return Ok(Some(None));
            }
            if self.mode(target) == Mode::Observe {
                let what = "the mode is observe: it would go back, and nothing is done";
                self.show(uid, SyncResult::Pending, Reason::Observe, what)
                    .await?;
                return Ok(Some(None));
            }
            let engine = self.ports.engine(&target.placement, &target.region)?;
            self.clear_previews(uid, history, engine.as_ref()).await?;
            let observed = self
                .observe(engine.as_ref(), history, &pin.to.stack_name)
                .await?;
            let Some(observed) = observed else {
                let gone = "its stack is gone: somebody deleted it";
                self.show(uid, SyncResult::Drifted, Reason::OutOfBand, gone)
                    .await?;
                return Ok(Some(None));
            };
            if let Some(after) = self.unfit(uid, history, &observed).await? {
                return Ok(Some(after));
            }
            let then = pin.to.placed.clone();
            let pinned = Pinned {
                rollback: true,
                placed: Some(Placed {
                    source: target.source.clone(),
                    placement: target.placement.name.clone(),
                    // Whom that deployment used, whatever the newest commit says.
                    uses: then
                        .as_ref()
                        .map_or_else(|| target.needs(), |p| p.uses.clone()),
                    used: then.as_ref().and_then(|p| p.used.clone()),
                    prune: target.options.prune,
                    gate: target.options.gate,
                    windows: target.options.windows.clone(),
                }),
                ..self.anew(history, pin.to.clone(), Some(&observed))?
            };
            self.begin_pinned(guard, pin.by.clone(), pinned).await?;
        }
        Ok(Some(self.drive(guard, target, snapshot, false).await?))
    }

    /// Shows that a target is held at an earlier deployment, unless Git asks for the same by now.
    async fn follows_again(
        &self,
        guard: &TargetGuard<TargetUid>,
        pin: &Pin,
        target: &Arc<Target>,
        snapshot: &Snapshot,
    ) -> Result<Option<Option<Duration>>, Error> {
        let uid = guard.key();
        let Some(history) = self.history(uid) else {
            return Ok(None);
        };
        let readable = !target
            .faults
            .iter()
            .any(crate::domain::model::Finding::is_error);
        if readable && let Ok((digest, _)) = self.digest_of(uid, &history, snapshot, target).await?
        {
            if digest == pin.to.digest {
                self.record(uid, Actor::daemon("line"), EventKind::Following, Vec::new())
                    .await?;
                return Ok(None);
            }
            if let Some(known) = self.shared().targets.get_mut(uid) {
                known.wanted = Some(digest);
            }
        }
        let detail = format!(
            "held at {} by {}: {}; Git asks for something else",
            pin.to.revision.short(),
            pin.by.display,
            pin.reason
        );
        self.show(uid, SyncResult::Held, Reason::Pinned, detail)
            .await?;
        Ok(Some(None))
    }

    /// Gives what was pinned before to a new deployment: a new name, the next generation, and the stack as it is now.
    fn anew(
        &self,
        history: &History,
        before: Pinned,
        observed: Option<&Observed>,
    ) -> Result<Pinned, Error> {
        let executed = observed
            .and_then(|o| o.last_change_set.as_deref())
            .and_then(|n| generation_of(&self.settings.installation, n))
            .unwrap_or_default();
        let id = super::new_id(self.clock.now());
        Ok(Pinned {
            deployment: id.parse().map_err(|e| Error::Broken(format!("{e}")))?,
            generation: Generation(history.generation.max(executed).0 + 1),
            watermark: observed.and_then(Observed::watermark),
            ..before
        })
    }

    async fn begin_pinned(
        &self,
        guard: &TargetGuard<TargetUid>,
        actor: Actor,
        pinned: Pinned,
    ) -> Result<(), Error> {
        crate::testing::crash_point("begin.before-record");
        let event = EventKind::Begun(Box::new(pinned));
        let entry = self.record(guard.key(), actor, event, Vec::new()).await?;
        crate::testing::crash_point("begin.after-record");
        if entry.binds_the_future() {
            self.ship_to(entry.seq).await?;
        }
        Ok(())
    }
}
