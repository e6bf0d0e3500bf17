//! Who may go on, or must look once more, because a target has changed.

use std::collections::BTreeSet;

use super::ready::Wait;
use super::{Behind, Line, Shared};
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
    /// Notes whether a target waits for what others do, by the reason that is shown for it.
    ///
    /// Those who cannot go to the newest snapshot yet are noted by [`Shared::stand_behind`], whatever is shown of them.
    pub(super) fn wait(&mut self, uid: &TargetUid, reason: Reason) {
        let waits = match reason {
            Reason::RolloutHalted | Reason::Invalid => true,
            // Before a removal: whoever uses it must be gone.
            Reason::Dependency => !self.is_asked_for(uid),
            _ => false,
        };
        if waits {
            self.waiting.insert(uid.clone());
        } else {
            self.waiting.remove(uid);
        }
    }

    /// Notes whom a target stands behind: it can go to no newer snapshot before one of these has gone on, or time has.
    pub(super) fn stand_behind(&mut self, uid: &TargetUid, wait: Option<&Wait>) {
        if let Some(before) = self.behind.remove(uid) {
            for first in before.only {
                if let Some(followers) = self.followers.get_mut(&first) {
                    followers.remove(uid);
                    if followers.is_empty() {
                        self.followers.remove(&first);
                    }
                }
            }
        }
        if let Some(wait) = wait {
            for first in &wait.only {
                let followers = self.followers.entry(first.clone()).or_default();
                followers.insert(uid.clone());
            }
            let behind = Behind {
                only: wait.only.clone(),
                after: wait.after,
            };
            self.behind.insert(uid.clone(), behind);
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

    /// Returns whom a change of a target concerns: those who use it, those who stand behind it, and among those who wait
    /// otherwise or run whoever it may concern.
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
        let followers = self.followers.get(changed).into_iter().flatten();
        let others = self.waiting.iter().chain(running);
        let others = others.filter(may_follow);
        let all: BTreeSet<&TargetUid> = users
            .iter()
            .copied()
            .chain(followers)
            .chain(others)
            .collect();
        all.into_iter()
            .filter(|uid| *uid != changed)
            .cloned()
            .collect()
    }
}
