//! Deleting: a stack, or resources that leave one.

use super::{Effect, NESTED, Schedule, failed};
use crate::domain::cfn::DeletionPolicy;
use crate::domain::plan::{ResourceState, StackStatus as S};
use crate::local::world::Phase;

impl Schedule<'_> {
    /// Deletes the stack. `heed` tells whether deletion policies hold; those of a failed creation do not.
    ///
    /// Returns whether it went.
    pub fn delete(&mut self, reason: &str, retain: &[String], heed: bool) -> bool {
        let in_use = if self.of == self.root {
            self.used_exports(&self.now().form.exports.clone(), None)
        } else {
            None
        };
        let before = (self.now().status.clone(), self.now().reason.clone());
        self.status(S::DeleteInProgress, Some(reason), vec![Effect::Began]);
        if let Some(reason) = in_use {
            // The stack falls back to what it was; there is no DELETE_FAILED.
            self.work(NESTED);
            self.status(before.0, Some(&reason), vec![]);
            return false;
        }
        let all = self.now().resources.clone();
        let mut stuck = Vec::new();
        for (logical, state) in self.in_order(&all).into_iter().rev() {
            let kept = heed
                && matches!(
                    state.deletion_policy,
                    DeletionPolicy::Retain | DeletionPolicy::RetainExceptOnCreate
                );
            if kept || retain.contains(&logical) {
                let gone = vec![Effect::Gone(logical.clone())];
                self.resource(&logical, &state, "DELETE_SKIPPED", None, gone);
            } else if !self.delete_resource(&logical, &state, true, Phase::Delete) {
                stuck.push(logical);
            }
        }
        for (logical, state) in self.now().leaving.clone() {
            self.delete_resource(&logical, &state, false, Phase::Delete);
        }
        if !stuck.is_empty() {
            stuck.sort();
            self.status(S::DeleteFailed, Some(&failed("delete", &stuck)), vec![]);
            return false;
        }
        let mut form = self.now().form.clone();
        form.outputs.clear();
        form.exports.clear();
        form.imports.clear();
        self.status(
            S::DeleteComplete,
            None,
            vec![
                Effect::Form(Box::new(form)),
                Effect::Stable(None),
                Effect::Leaving(vec![]),
            ],
        );
        true
    }

    /// Deletes one resource. `owned` tells whether it stands in the stack under this logical id.
    pub(super) fn delete_resource(
        &mut self,
        logical: &str,
        state: &ResourceState,
        owned: bool,
        phase: Phase,
    ) -> bool {
        self.resource(logical, state, "DELETE_IN_PROGRESS", None, vec![]);
        if let Some(child) = self.child(state) {
            let went = self.within(&child, |s| {
                s.delete("Parent stack requested delete", &[], true)
            });
            if !went {
                let reason = format!("Embedded stack {child} was not successfully deleted");
                self.resource(logical, state, "DELETE_FAILED", Some(&reason), vec![]);
                return false;
            }
        }
        self.work(&state.kind);
        if let Some(reason) = self.fails(phase, logical) {
            self.resource(logical, state, "DELETE_FAILED", Some(&reason), vec![]);
            return false;
        }
        let effects = if owned {
            vec![Effect::Gone(logical.to_owned())]
        } else {
            vec![]
        };
        self.resource(logical, state, "DELETE_COMPLETE", None, effects);
        true
    }
}
