//! Going back: a failed creation, a failed or cancelled update, and going on with a rollback.

use std::collections::BTreeMap;

use super::{Effect, NESTED, Schedule, failed};
use crate::domain::plan::{ResourceState, StackStatus as S};
use crate::local::model::Step;
use crate::local::world::Phase;

impl Schedule<'_> {
    /// Rolls a failed creation back: what was made goes, also where its policy is to retain it.
    pub(super) fn undo_create(&mut self, reason: &str) {
        self.status(S::RollbackInProgress, Some(reason), vec![Effect::Began]);
        let all = self.now().resources.clone();
        let mut stuck = Vec::new();
        for (logical, state) in self.in_order(&all).into_iter().rev() {
            if !self.delete_resource(&logical, &state, true, Phase::Rollback) {
                stuck.push(logical);
            }
        }
        if stuck.is_empty() {
            self.status(S::RollbackComplete, None, vec![]);
        } else {
            self.status(S::RollbackFailed, Some(&failed("delete", &stuck)), vec![]);
        }
    }

    /// Says of resources that were being worked on when an update was cancelled that they were.
    pub fn interrupted(&mut self, dropped: &[Step]) {
        let mut begun: BTreeMap<&str, ()> = BTreeMap::new();
        for step in dropped
            .iter()
            .filter(|s| s.of.is_none() && s.event.kind != NESTED)
        {
            let word = step.event.status.as_str();
            let Some(verb) = word
                .strip_suffix("_COMPLETE")
                .or(word.strip_suffix("_FAILED"))
            else {
                begun.insert(&step.event.logical, ());
                continue;
            };
            if begun.insert(&step.event.logical, ()).is_some() {
                continue;
            }
            let (what, noun) = match verb {
                "CREATE" => ("CREATE_FAILED", "creation"),
                "UPDATE" => ("UPDATE_FAILED", "update"),
                _ => continue,
            };
            let event = step.event.clone();
            self.push(
                (&event.logical, &event.kind, event.physical.as_deref()),
                what,
                Some(&format!("Resource {noun} cancelled")),
                None,
                vec![],
            );
        }
    }

    /// Rolls an update back to the last stable state, skipping the named resources. Returns whether that worked.
    pub fn undo_update(&mut self, reason: &str, skip: &[String]) -> bool {
        let Some(stable) = self.now().stable.clone() else {
            return true;
        };
        let found = self.now().resources.clone();
        let mut leaving = self.now().leaving.clone();
        for (logical, state) in &found {
            let stays = stable
                .resources
                .get(logical)
                .is_some_and(|s| s.physical == state.physical);
            if !stays && !leaving.iter().any(|(_, s)| s.physical == state.physical) {
                leaving.push((logical.clone(), state.clone()));
            }
        }
        self.status(
            S::UpdateRollbackInProgress,
            Some(reason),
            vec![
                Effect::Began,
                Effect::Form(Box::new(stable.form.clone())),
                Effect::Leaving(leaving.clone()),
            ],
        );
        let mut stuck = Vec::new();
        for (logical, old) in self.in_order(&stable.resources) {
            if !self.restore(&logical, &old, found.get(&logical), skip) {
                stuck.push(logical);
            }
        }
        if !stuck.is_empty() {
            stuck.sort();
            self.status(
                S::UpdateRollbackFailed,
                Some(&failed("update", &stuck)),
                vec![],
            );
            return false;
        }
        let gone = found
            .keys()
            .filter(|l| !stable.resources.contains_key(*l))
            .map(|l| Effect::Gone(l.clone()))
            .collect();
        self.status(S::UpdateRollbackCompleteCleanupInProgress, None, gone);
        for (logical, state) in leaving.iter().rev() {
            self.delete_resource(logical, state, false, Phase::Delete);
        }
        self.status(
            S::UpdateRollbackComplete,
            None,
            vec![Effect::Stable(None), Effect::Leaving(vec![])],
        );
        true
    }

    fn restore(
        &mut self,
        logical: &str,
        old: &ResourceState,
        found: Option<&ResourceState>,
        skip: &[String],
    ) -> bool {
        let nested = self
            .child(old)
            .filter(|c| self.tree.get(c).is_some_and(|s| s.stable.is_some()));
        let untouched =
            found.is_some_and(|f| f.physical == old.physical && f.properties == old.properties);
        if untouched && nested.is_none() {
            self.now_put(logical, old);
            return true;
        }
        if skip.iter().any(|s| s == logical) {
            // The stack takes it as rolled back; what is really there stays what it is.
            let mut effects = vec![Effect::Put(logical.to_owned(), old.clone())];
            if let Some(found) = found {
                effects.push(Effect::Actual(
                    logical.to_owned(),
                    Some(found.properties.clone()),
                ));
            }
            self.resource(logical, old, "UPDATE_COMPLETE", None, effects);
            return true;
        }
        self.resource(logical, old, "UPDATE_IN_PROGRESS", None, vec![]);
        if let Some(child) = nested {
            // `Nested.Logical` names a resource of a nested stack.
            let below: Vec<String> = skip
                .iter()
                .filter_map(|s| s.strip_prefix(&format!("{logical}.")).map(str::to_owned))
                .collect();
            if !self.within(&child, |s| s.undo_update("Parent stack rollback", &below)) {
                let reason = format!(
                    "Embedded stack {child} was not successfully updated. Currently in UPDATE_ROLLBACK_FAILED"
                );
                self.resource(logical, old, "UPDATE_FAILED", Some(&reason), vec![]);
                return false;
            }
        }
        self.work(&old.kind);
        if let Some(reason) = self.fails(Phase::Rollback, logical) {
            self.resource(logical, old, "UPDATE_FAILED", Some(&reason), vec![]);
            return false;
        }
        let put = vec![Effect::Put(logical.to_owned(), old.clone())];
        self.resource(logical, old, "UPDATE_COMPLETE", None, put);
        true
    }
}
