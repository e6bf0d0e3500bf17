//! Who may go on, or must look once more, because a target has changed.

use std::collections::BTreeSet;

use super::{Line, Shared};
use crate::domain::model::{Reason, TargetUid};

impl Line {
    /// Puts into the queue whoever may go on because a target has changed.
    pub(super) fn enqueue_waiting(&self, changed: &TargetUid) {
        // What runs now has read the state from before this change: if it is concerned, it runs once more.
        let running = self.queue.running();
        let uids = self.shared().concerned(changed, &running);
        self.enqueue_these(uids);
    }
}

impl Shared {
    /// Notes whether a target waits for what others do.
    pub(super) fn wait(&mut self, uid: &TargetUid, reason: Reason) {
        let using = reason == Reason::Dependency && self.is_asked_for(uid);
        let waits = matches!(
            reason,
            Reason::Dependency | Reason::Rollout | Reason::RolloutHalted | Reason::Invalid
        );
        for (set, is_in) in [
            (&mut self.waiting, waits && !using),
            (&mut self.using, using),
        ] {
            if is_in {
                set.insert(uid.clone());
            } else {
                set.remove(uid);
            }
        }
    }

    fn is_asked_for(&self, uid: &TargetUid) -> bool {
        let address = self
            .targets
            .get(uid)
            .and_then(|k| k.history.address.as_ref());
        let newest = self.snapshots.last();
        address.is_some_and(|a| newest.is_some_and(|s| s.uids.get(a) == Some(uid)))
    }

    /// Returns whom a change of a target concerns: those who use it, and among those who wait or run whoever may
    /// stand behind it in a wave, in an older snapshot or in a removal.
    fn concerned(&self, changed: &TargetUid, running: &BTreeSet<TargetUid>) -> Vec<TargetUid> {
        let Some(newest) = self.snapshots.last() else {
            return Vec::new();
        };
        let address_of = |uid: &TargetUid| self.targets.get(uid)?.history.address.as_ref();
        let asked = |uid: &TargetUid| newest.compiled.targets.get(address_of(uid)?);
        let users: BTreeSet<&TargetUid> = address_of(changed)
            .into_iter()
            .flat_map(|address| newest.compiled.graph.users(address))
            .filter_map(|user| self.by_address.get(user))
            .collect();
        let one = self.snapshots.len() == 1;
        let in_wave = asked(changed).is_none_or(|t| t.stage.is_some());
        let may_follow = |uid: &&TargetUid| {
            let Some(target) = asked(uid).filter(|_| one) else {
                return true;
            };
            let invalid = self
                .targets
                .get(*uid)
                .is_some_and(|k| k.condition.reason == Reason::Invalid);
            invalid || (in_wave && target.stage.is_some())
        };
        // Somebody may use it in an older snapshot only, which the graph of the newest does not tell.
        let using = (!one).then_some(&self.using).into_iter().flatten();
        let others = self.waiting.iter().chain(using).chain(running);
        let others = others.filter(may_follow);
        let all: BTreeSet<&TargetUid> = users.iter().copied().chain(others).collect();
        all.into_iter()
            .filter(|uid| *uid != changed)
            .cloned()
            .collect()
    }
}
