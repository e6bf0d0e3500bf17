//! Removal: from a target that nothing asks for any more to a stack that is gone, or to the reason why it stays.
//!
//! It is a deployment like every other, with a review, gates, an announced effect and an end; only what it pins is
//! nothing. `domain/policy/prune.rs` decides; here is gathered what it must know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{Error, Known, Line, Shared, Snapshot, first_of};
use crate::domain::cfn::parse_template;
use crate::domain::deployment::{Deployment, EventKind, History, Outcome, Pinned};
use crate::domain::estate::{Placement, Target, TargetKind};
use crate::domain::model::{
    Address, Digest, Finding, Generation, Place, Prune, Reason, SnapshotId, StackId, SyncResult,
    TargetUid, canonical_json,
};
use crate::domain::plan::{Observed, StatusClass, Watermark, generation_of, removal};
use crate::domain::policy::{PruneInput, PruneVerdict, Removal, over_budget, prune};
use crate::domain::render::EPOCH;
use crate::domain::spec::StackOptions;
use crate::port::{StackEngine, StackRef};
use crate::workqueue::TargetGuard;

/// The time over which the budget is counted.
const BUDGET_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Whom nothing asks for any more: the complete look that was the first to find that, and the stack then.
#[derive(Debug, Default)]
pub(super) struct Unasked(BTreeMap<TargetUid, (u64, Option<Watermark>)>);

impl Unasked {
    /// Tells whether a complete look before this one found the same.
    fn seen_twice(&mut self, uid: &TargetUid, looks: u64, watermark: Option<Watermark>) -> bool {
        match self.0.get(uid) {
            Some((first, then)) if *then == watermark => looks > *first,
            _ => {
                self.0.insert(uid.clone(), (looks, watermark));
                false
            }
        }
    }

    /// Forgets what was found of one: it has to be found twice again.
    fn forget(&mut self, uid: &TargetUid) {
        self.0.remove(uid);
    }

    /// Forgets who is asked for again: a removal later needs two looks of its own.
    pub fn ask_for(&mut self, uids: &BTreeMap<Address, TargetUid>) {
        if !self.0.is_empty() {
            for uid in uids.values() {
                self.0.remove(uid);
            }
        }
    }
}

impl Shared {
    /// Returns whom a target uses, as the log tells it.
    fn uses(&self, history: &History) -> BTreeSet<TargetUid> {
        if let Some(uses) = &history.uses {
            // From the word on, for the rollback itself may wait for an approval.
            let pinned = history.pin.as_ref().and_then(|p| p.to.placed.as_ref());
            let pinned = pinned.and_then(|p| p.used.clone()).unwrap_or_default();
            return uses.iter().cloned().chain(pinned).collect();
        }
        // From before there were uids in it: whoever has the address now, or had it.
        let addresses = history.placed.iter().flat_map(|p| &p.uses);
        let at = |address: &Address| {
            let here = self.by_address.get(address).cloned();
            let any = self.moved > SnapshotId(0);
            let moved = self
                .targets
                .iter()
                .filter(|(_, k)| any && k.history.came_from.as_ref() == Some(address));
            here.into_iter()
                .chain(moved.map(|(uid, _)| uid.clone()))
                .collect::<Vec<_>>()
        };
        addresses.flat_map(at).collect()
    }
}

impl Line {
    /// Deals with a target that the newest snapshot does not ask for.
    pub(super) async fn orphaned(
        &self,
        guard: &TargetGuard<TargetUid>,
        history: &History,
        newest: &Snapshot,
    ) -> Result<Option<Duration>, Error> {
        let uid = guard.key();
        if let Some(current) = history.current.as_ref().filter(|d| !d.pinned.removal)
            && let Some(address) = &history.address
            // The snapshot that asked for it may be forgotten: then it is as it was placed.
            && let Some(target) = self
                .asked_at(uid, current.pinned.snapshot, address)
                .or_else(|| self.departed(history).map(Arc::new))
        {
            self.supersede(guard, &target, "Git no longer asks for it")
                .await?;
        }
        let Some(history) = self.history(uid) else {
            return Ok(None);
        };
        let Some(stack) = history.owned.clone() else {
            // Nothing is deployed: it is forgotten, not orphaned.
            let detail = match &history.last {
                Some((_, settled, _)) if settled.outcome == Outcome::Removed => {
                    "Git no longer asks for it; its stack is deleted"
                }
                _ => "Git no longer asks for it; nothing was deployed",
            };
            self.show(uid, SyncResult::Orphaned, Reason::Settled, detail)
                .await?;
            return Ok(None);
        };
        // Who is held at an earlier deployment does not follow Git, and Git cannot delete it.
        if history.pin.is_some() {
            self.withdraw(guard, &history, Reason::Pinned).await?;
            let detail = "Git no longer asks for it; an operator holds it at an earlier deployment";
            self.show(uid, SyncResult::Orphaned, Reason::Pinned, detail)
                .await?;
            return Ok(None);
        }
        // A removal that failed is not tried again by itself, and neither is one that somebody rejected.
        let digest = removal_digest(uid, &stack);
        if let Some((_, settled, _)) = history.failed.as_ref().filter(|(d, _, _)| *d == digest) {
            let result = if settled.outcome == Outcome::Stuck {
                SyncResult::Stuck
            } else {
                SyncResult::Orphaned
            };
            let detail = settled
                .cause
                .clone()
                .unwrap_or_else(|| "its stack could not be deleted".into());
            self.show(uid, result, settled.reason, detail).await?;
            return Ok(None);
        }
        let placement = self.placement_of(&history, &stack);
        let unknown = self
            .unknown(newest, &history)
            .filter(|_| crate::testing::guard("unknown"));
        let own = history.placed.as_ref().and_then(|p| p.prune);
        let mut used_by = self.used_by(&history, newest);
        if !crate::testing::guard("dependency") {
            used_by.clear();
        }
        let mut input = PruneInput {
            rule: placement.as_ref().map(|p| &p.prune),
            own,
            unknown: unknown.as_deref(),
            used_by: &used_by,
            protected: false,
            seen_twice: true,
        };
        // What is decided without the stack is decided first: a stack that stays costs no call.
        let mut verdict = prune(&input);
        let mut observed = None;
        if let PruneVerdict::Goes { .. } = verdict
            && let Some(placement) = &placement
            && let Some(region) = stack.region()
        {
            let engine = self.ports.engine(placement, &region)?;
            observed = engine
                .describe(&StackRef::Id(stack.clone()))
                .await?
                .filter(|s| s.status.class() != StatusClass::Gone);
            let Some(there) = &observed else {
                return self.gone_already(guard, &history, newest).await;
            };
            input.protected = there.termination_protection;
            if input.protected {
                // Whoever takes it off, perhaps weeks later, is not to find that the looks were done long ago.
                self.shared().unasked.forget(uid);
            }
            input.seen_twice = !input.protected && self.seen_twice(uid, there.watermark())
                || !crate::testing::guard("second-look");
            verdict = prune(&input);
        }
        let (PruneVerdict::Goes { .. }, Some(observed)) = (&verdict, observed) else {
            let reason = match &verdict {
                PruneVerdict::Stays(reason, _) => *reason,
                PruneVerdict::Unknown(_) | PruneVerdict::Goes { .. } => Reason::Invalid,
            };
            self.withdraw(guard, &history, reason).await?;
            return self.stays(uid, verdict).await;
        };
        let Some(target) = self.departed(&history) else {
            return Ok(None);
        };
        if history
            .current
            .as_ref()
            .is_none_or(|d| d.pinned.digest != digest)
        {
            self.withdraw(guard, &history, Reason::StackMoved).await?;
            if !observed.status.is_settled() {
                self.show(
                    uid,
                    SyncResult::Orphaned,
                    Reason::StackMoved,
                    format!("the stack is in motion: {}", observed.status),
                )
                .await?;
                return Ok(Some(Duration::from_secs(1)));
            }
            self.begin_removal(guard, newest, digest, Some(&observed))
                .await?;
        }
        self.drive(guard, &target, newest, true).await
    }

    /// Says why a stack stays.
    async fn stays(
        &self,
        uid: &TargetUid,
        verdict: PruneVerdict,
    ) -> Result<Option<Duration>, Error> {
        let (result, reason, detail) = match verdict {
            PruneVerdict::Unknown(why) => (SyncResult::Unknown, Reason::Invalid, why),
            PruneVerdict::Stays(reason, detail) => (SyncResult::Orphaned, reason, detail),
            PruneVerdict::Goes { .. } => (
                SyncResult::Orphaned,
                Reason::Removed,
                "Git no longer asks for it".into(),
            ),
        };
        self.show(uid, result, reason, detail).await?;
        Ok(None)
    }

    /// Wakes what waits for a complete look: for the second one, or for sources that could not be read.
    pub(super) fn enqueue_unasked(&self) {
        let waiting: Vec<TargetUid> = {
            let shared = self.shared();
            // Who rests is in sync, and waits for nothing.
            let known = |uid: &&TargetUid| {
                shared.targets.get(*uid).is_some_and(|k| {
                    let condition = (k.condition.result, k.condition.reason);
                    k.history.owned.is_some()
                        && (condition.1 == Reason::SecondLook
                            || condition == (SyncResult::Unknown, Reason::Invalid))
                })
            };
            shared.open.iter().filter(known).cloned().collect()
        };
        for uid in waiting {
            self.enqueue(&uid, Duration::ZERO);
        }
    }

    /// Ends a removal that has begun and is not running, because it may not go on.
    async fn withdraw(
        &self,
        guard: &TargetGuard<TargetUid>,
        history: &History,
        reason: Reason,
    ) -> Result<(), Error> {
        if history
            .current
            .as_ref()
            .is_some_and(|d| d.pinned.removal && !d.is_executing())
        {
            self.settle(
                guard,
                Outcome::Superseded,
                reason,
                Some("what spoke for its removal is no longer so".into()),
                None,
            )
            .await?;
        }
        Ok(())
    }

    /// Writes down that a stack which was to go is gone: somebody else deleted it.
    async fn gone_already(
        &self,
        guard: &TargetGuard<TargetUid>,
        history: &History,
        newest: &Snapshot,
    ) -> Result<Option<Duration>, Error> {
        self.withdraw(guard, history, Reason::StackMoved).await?;
        let uid = guard.key();
        let digest = Digest::of("x1", uid.as_str().as_bytes());
        self.begin_removal(guard, newest, digest, None).await?;
        self.settle(
            guard,
            Outcome::Removed,
            Reason::Removed,
            Some("somebody else had deleted its stack".into()),
            None,
        )
        .await?;
        Ok(Some(Duration::ZERO))
    }

    /// The placement that a target was deployed to, where it is still the same account and region.
    pub(super) fn placement_of(&self, history: &History, stack: &StackId) -> Option<Placement> {
        let placed = history.placed.as_ref()?;
        let placement = self.settings.placements.get(&placed.placement)?;
        let here = stack.account().as_ref() == Some(&placement.account)
            && stack
                .region()
                .is_some_and(|r| placement.regions.contains(&r));
        here.then(|| placement.clone())
    }

    /// Says what keeps from telling whether a target is still asked for. Unknown is not empty.
    fn unknown(&self, newest: &Snapshot, history: &History) -> Option<String> {
        let compiled = &newest.compiled;
        if compiled.incomplete {
            // What hides a part of the sync file need not be an error.
            let mut faults: Vec<&Finding> =
                compiled.findings.iter().filter(|f| f.is_error()).collect();
            if faults.is_empty() {
                let hides = compiled.findings.iter();
                faults.extend(hides.filter(|f| f.code == "sync.hidden"));
            }
            return Some(format!(
                "a file cannot be read, so it cannot be told whether this is still asked for: {}",
                first_of(&faults)
            ));
        }
        let address = history.address.as_ref();
        if let Some(why) = address.and_then(|a| compiled.unmoved.get(a)) {
            return Some(why.clone());
        }
        let source = history.placed.as_ref().map(|p| &p.source);
        if let Some(source) = source.filter(|s| compiled.without_sync.contains(s)) {
            return Some(format!(
                "the source `{source}` has no `isoform.yaml` any more, so it cannot be told whether this is still asked for; one that asks for nothing says so"
            ));
        }
        if let Some(source) = source.filter(|s| self.settings.grant(s).is_none()) {
            return Some(format!(
                "the source `{source}` is not configured any more, so it cannot be told whether this is still asked for"
            ));
        }
        let shared = self.shared();
        let (name, (_, why)) = shared.refused.first_key_value()?;
        Some(format!(
            "the source `{name}` cannot be read, so it cannot be told whether this is still asked for: {why}"
        ))
    }

    /// Returns the deployed targets that use a target: by what the log says, and by what is asked of them now.
    fn used_by(&self, history: &History, newest: &Snapshot) -> Vec<Address> {
        let shared = self.shared();
        let asks = |k: &Known| {
            let (user, here) = (k.history.address.as_ref()?, history.address.as_ref()?);
            let asked = newest.uids.get(user) == Some(&k.history.uid);
            let target = newest.compiled.targets.get(user).filter(|_| asked)?;
            Some(target.needs().contains(here))
        };
        let uses = |k: &Known| {
            k.history.owned.is_some()
                && k.history.uid != history.uid
                && (shared.uses(&k.history).contains(&history.uid) || asks(k) == Some(true))
        };
        shared
            .targets
            .values()
            .filter(|k| uses(k))
            .filter_map(|k| k.history.address.clone())
            .collect()
    }

    /// Writes down whom a target uses, where the log does not say so: no deployment tells when only the order changes.
    ///
    /// Until it is as the newest snapshot asks, it uses what it used: what is only wanted could close a circle.
    pub(super) async fn note_uses(&self, uid: &TargetUid, newest: &Snapshot) -> Result<(), Error> {
        let uses = {
            let shared = self.shared();
            let asked = shared.targets.get(uid).and_then(|known| {
                let address = known.history.address.as_ref()?;
                Some((known, newest.compiled.targets.get(address)?))
            });
            // Who is held at an earlier deployment uses what that one used.
            let free = |k: &Known| k.history.owned.is_some() && k.history.pin.is_none();
            let Some((known, target)) = asked.filter(|(k, _)| free(k)) else {
                return Ok(());
            };
            let before = shared.uses(&known.history);
            let needs = target.needs();
            let uses: BTreeSet<TargetUid> = needs
                .iter()
                .filter_map(|a| newest.uids.get(a).cloned())
                .collect();
            if uses == before || shared.passed(known, newest.id).is_none() {
                return Ok(());
            }
            uses
        };
        let event = EventKind::Uses {
            targets: uses.into_iter().collect(),
        };
        self.record(
            uid,
            crate::domain::model::Actor::daemon("look"),
            event,
            Vec::new(),
        )
        .await?;
        // What it does not use any more may go.
        self.enqueue_waiting(uid);
        Ok(())
    }

    /// Tells whether a complete look before the newest one found the same: not asked for, and the stack as it is.
    fn seen_twice(&self, uid: &TargetUid, watermark: Option<Watermark>) -> bool {
        let mut shared = self.shared();
        let looks = shared.complete_looks;
        shared.unasked.seen_twice(uid, looks, watermark)
    }

    /// Stands for a target that no snapshot asks for any more: where it was deployed, with the gates that it had.
    pub(super) fn departed(&self, history: &History) -> Option<Target> {
        let address = history.address.clone()?;
        let stack = history
            .current
            .as_ref()
            .and_then(|d| d.stack.clone())
            .or_else(|| history.owned.clone())?;
        let placement = self.placement_of(history, &stack)?;
        let placed = history.placed.clone()?;
        let options = StackOptions {
            gate: placed.gate,
            windows: placed.windows,
            ..StackOptions::default()
        };
        Some(Target {
            source: placed.source,
            region: stack.region()?,
            placement,
            kind: TargetKind::Broken,
            options,
            stack_policy: None,
            stage: None,
            after: Vec::new(),
            made_by: Place::file("isoform.yaml"),
            values_at: None,
            input_lines: BTreeMap::new(),
            faults: Vec::new(),
            address,
        })
    }

    async fn begin_removal(
        &self,
        guard: &TargetGuard<TargetUid>,
        newest: &Snapshot,
        digest: Digest,
        observed: Option<&Observed>,
    ) -> Result<(), Error> {
        let uid = guard.key();
        let history = self
            .history(uid)
            .ok_or_else(|| Error::Broken("the target has no history".into()))?;
        let missing = || Error::Broken("the target was never deployed".into());
        let payload = match (&history.applied, &history.last) {
            (Some(applied), _) => applied.payload.clone(),
            (None, Some((pinned, _, _))) => pinned.payload.clone(),
            (None, None) => return Err(missing()),
        };
        let revision = history
            .placed
            .as_ref()
            .and_then(|p| newest.revisions.get(&p.source))
            .cloned()
            .ok_or_else(missing)?;
        let executed = observed
            .and_then(|o| o.last_change_set.as_deref())
            .and_then(|n| generation_of(&self.settings.installation, n))
            .unwrap_or_default();
        let id = super::new_id(self.clock.now());
        let pinned = Pinned {
            deployment: id.parse().map_err(|e| Error::Broken(format!("{e}")))?,
            generation: Generation(history.generation.max(executed).0 + 1),
            snapshot: newest.id,
            revision,
            template: None,
            bundle: None,
            inputs: digest.clone(),
            given: None,
            digest,
            epoch: EPOCH,
            watermark: observed.and_then(Observed::watermark),
            stack_name: history.stack_name.clone().ok_or_else(missing)?,
            rendered: String::new(),
            payload,
            placed: None,
            removal: true,
            rollback: false,
            remedy: None,
        };
        crate::testing::crash_point("begin.before-record");
        let entry = self
            .record(
                uid,
                newest.actor.clone(),
                EventKind::Begun(Box::new(pinned)),
                Vec::new(),
            )
            .await?;
        crate::testing::crash_point("begin.after-record");
        if entry.binds_the_future() {
            self.ship().await?;
        }
        Ok(())
    }

    /// Reviews a removal: every resource that the deployed template names, with what becomes of it.
    pub(super) async fn review_removal(
        &self,
        uid: &TargetUid,
        engine: &dyn StackEngine,
        deployment: &Deployment,
    ) -> Result<(), Error> {
        let text = match self.history(uid).and_then(|h| h.applied.clone()) {
            Some(_) => self.pinning(&deployment.pinned.payload).await?.rendered,
            // What was made by a creation that failed is what CloudFormation was given.
            None => {
                let stack = deployment
                    .stack
                    .clone()
                    .ok_or_else(|| Error::Broken("no stack to delete".into()))?;
                engine.template(&StackRef::Id(stack)).await?
            }
        };
        let (changes, complete) = match parse_template("deployed", &text) {
            Ok(template) => (removal(&template), true),
            // What cannot be read cannot be named: a person is asked.
            Err(_) => (Vec::new(), false),
        };
        self.reviewed(uid, deployment, changes, complete, false, &[])
            .await
    }

    /// What the gates must know of a removal; absent where this is none.
    pub(super) fn removal(
        &self,
        uid: &TargetUid,
        target: &Target,
        deployment: &Deployment,
    ) -> Option<Removal> {
        if !deployment.pinned.removal {
            return None;
        }
        let rule = &target.placement.prune;
        let now = self.clock.now();
        let newest = self.newest();
        let shared = self.shared();
        let (mut going, mut gone, mut deployed) = (0, 0, 0);
        for (other, known) in &shared.targets {
            let history = &known.history;
            let Some(placed) = history
                .placed
                .as_ref()
                .filter(|p| p.placement == target.placement.name)
            else {
                continue;
            };
            gone += history
                .removed
                .iter()
                .filter(|at| now.since(**at) < BUDGET_WINDOW)
                .count();
            if history.owned.is_none() {
                continue;
            }
            deployed += 1;
            let asked_for = newest.as_ref().is_some_and(|s| {
                history
                    .address
                    .as_ref()
                    .is_some_and(|a| s.uids.get(a) == Some(other))
            });
            let kept = placed.prune.unwrap_or(rule.policy).min(rule.policy) == Prune::Never;
            let held = matches!(
                known.condition.reason,
                Reason::Protected | Reason::Rejected | Reason::StackStuck
            );
            going += usize::from(!asked_for && !kept && !held);
        }
        let history = shared.targets.get(uid).map(|k| &k.history);
        let own = history.and_then(|h| h.placed.as_ref()?.prune);
        let over_now = over_budget(rule, going, gone, deployed);
        // Time makes room in the budget, and nobody looks then: weeks later the next push would delete without a word.
        let was_over = history.is_some_and(|h| h.over_budget);
        Some(Removal {
            ask: own.map_or(rule.policy, |o| o.min(rule.policy)) != Prune::Auto,
            over_budget: over_now.or_else(|| {
                was_over.then(|| "it was over the budget when it was first to go".to_owned())
            }),
        })
    }

    /// Ends a removal by what has become of the stack.
    pub(super) async fn end_removal(
        &self,
        guard: &TargetGuard<TargetUid>,
        observed: Option<&Observed>,
        (cause, stuck_on): (Option<String>, Vec<String>),
    ) -> Result<(), Error> {
        let gone = observed.is_none_or(|o| o.status.class() == StatusClass::Gone);
        let (outcome, reason) = if gone {
            (Outcome::Removed, Reason::Removed)
        } else {
            (Outcome::Stuck, Reason::StackStuck)
        };
        let cause = cause.or_else(|| observed.and_then(|o| o.status_reason.clone()));
        let cause = cause.filter(|_| !gone);
        self.settle_with(guard, outcome, reason, cause, observed, stuck_on)
            .await
    }
}

/// Names what would be removed: this target's stack. As it is, says the review; a deletion that failed moves the stack,
/// and it is still the same that failed.
pub(super) fn removal_digest(uid: &TargetUid, stack: &StackId) -> Digest {
    let body = json!({ "stack": stack, "target": uid });
    Digest::of("x1", &canonical_json(&body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_in_between_needs_two_looks_again() {
        let uid: TargetUid = "0".repeat(32).parse().unwrap();
        let mut unasked = Unasked::default();
        assert!(!unasked.seen_twice(&uid, 7, None));
        assert!(!unasked.seen_twice(&uid, 7, None));
        assert!(unasked.seen_twice(&uid, 8, None));
        unasked.ask_for(&BTreeMap::from([(Address::stack("a"), uid.clone())]));
        assert!(!unasked.seen_twice(&uid, 9, None));
        // Another target that is asked for says nothing about this one.
        let other = "1".repeat(32).parse().unwrap();
        unasked.ask_for(&BTreeMap::from([(Address::stack("b"), other)]));
        assert!(unasked.seen_twice(&uid, 10, None));
    }
}
