//! Going forward: creations, updates and imports.

use std::collections::{BTreeMap, BTreeSet};

use super::{Effect, Form, Goal, Schedule, failed};
use crate::domain::cfn::resource_type;
use crate::domain::plan::{
    PolicyAction, Replacement, ResourceState, StackStatus as S, replacement_of,
};
use crate::domain::policy::StackPolicy;
use crate::local::model::{Stable, Stack};
use crate::local::world::Phase;
use crate::port::OnFailure;

const INITIATED: &str = "User Initiated";
const NOT_FOUND: &str =
    "Resource handler returned message: \"Resource not found\" (HandlerErrorCode: NotFound)";

impl Schedule<'_> {
    /// Creates the stack.
    pub fn create(&mut self, goal: &Goal, on_failure: OnFailure) {
        self.status(
            S::CreateInProgress,
            Some(INITIATED),
            vec![Effect::Began, self.form_without_outputs(goal)],
        );
        let made = self
            .make(goal, on_failure)
            .and_then(|()| self.clash(goal))
            .and_then(|()| self.watch(goal));
        match (made, on_failure) {
            (Ok(()), _) => self.status(
                S::CreateComplete,
                None,
                vec![Effect::Form(Box::new(goal.form.clone()))],
            ),
            (Err(reason), OnFailure::Keep) => {
                self.status(S::CreateFailed, Some(&reason), vec![]);
            }
            (Err(reason), OnFailure::Rollback) => {
                self.undo_create(&format!("{reason}Rollback requested by user."));
            }
            (Err(reason), OnFailure::Delete) => {
                self.delete(&format!("{reason}Delete requested by user."), &[], false);
            }
        }
    }

    /// Updates the stack.
    pub fn update(&mut self, goal: &Goal, on_failure: OnFailure) {
        let leftovers = self.leftovers(goal);
        self.begin_update(goal);
        let done = self
            .make(goal, on_failure)
            .and_then(|()| self.clash(goal))
            .and_then(|()| self.watch(goal))
            .and_then(|()| {
                let used =
                    self.used_exports(&self.now().form.exports.clone(), Some(&goal.form.exports));
                used.map_or(Ok(()), Err)
            });
        match (done, on_failure) {
            (Ok(()), _) => self.clean_up(goal, leftovers),
            (Err(reason), OnFailure::Keep) => {
                self.status(S::UpdateFailed, Some(&reason), vec![]);
            }
            (Err(reason), _) => {
                self.undo_update(&reason, &[]);
            }
        }
    }

    /// Takes resources into the stack.
    pub fn import(&mut self, goal: &Goal, imported: &BTreeSet<String>, missing: &BTreeSet<String>) {
        let before = Form {
            exports: self.now().form.exports.clone(),
            outputs: self.now().form.outputs.clone(),
            ..self.now().form.clone()
        };
        self.status(
            S::ImportInProgress,
            Some(INITIATED),
            vec![Effect::Began, self.form_without_outputs(goal)],
        );
        let mut taken = Vec::new();
        for logical in goal.order.iter().filter(|l| imported.contains(*l)) {
            let Some(state) = goal.resources.get(logical) else {
                continue;
            };
            self.resource(
                logical,
                state,
                "IMPORT_IN_PROGRESS",
                Some("Resource import started."),
                vec![],
            );
            self.work(&state.kind);
            let absent = missing.contains(logical).then(|| NOT_FOUND.to_owned());
            if let Some(reason) = absent.or_else(|| self.fails(Phase::Make, logical)) {
                self.resource(logical, state, "IMPORT_FAILED", Some(&reason), vec![]);
                self.undo_import(before, &taken, logical);
                return;
            }
            let put = vec![Effect::Put(logical.clone(), state.clone())];
            self.resource(
                logical,
                state,
                "IMPORT_COMPLETE",
                Some("Resource import completed."),
                put,
            );
            taken.push((logical.clone(), state.clone()));
        }
        self.status(
            S::ImportComplete,
            None,
            vec![Effect::Form(Box::new(goal.form.clone()))],
        );
    }

    fn undo_import(&mut self, before: Form, taken: &[(String, ResourceState)], culprit: &str) {
        let reason = failed("import", &[culprit.to_owned()]);
        self.status(
            S::ImportRollbackInProgress,
            Some(&reason),
            vec![Effect::Began, Effect::Form(Box::new(before))],
        );
        let mut stuck = Vec::new();
        for (logical, state) in taken.iter().rev() {
            self.resource(logical, state, "IMPORT_ROLLBACK_IN_PROGRESS", None, vec![]);
            self.work(&state.kind);
            if let Some(reason) = self.fails(Phase::Rollback, logical) {
                self.resource(
                    logical,
                    state,
                    "IMPORT_ROLLBACK_FAILED",
                    Some(&reason),
                    vec![],
                );
                stuck.push(logical.clone());
                continue;
            }
            let gone = vec![Effect::Gone(logical.clone())];
            self.resource(logical, state, "IMPORT_ROLLBACK_COMPLETE", None, gone);
        }
        if stuck.is_empty() {
            self.status(S::ImportRollbackComplete, None, vec![]);
        } else {
            self.status(
                S::ImportRollbackFailed,
                Some(&failed("import", &stuck)),
                vec![],
            );
        }
    }

    /// Parameters and tags stand from the beginning, outputs and exports change at the end.
    fn form_without_outputs(&self, goal: &Goal) -> Effect {
        Effect::Form(Box::new(Form {
            outputs: self.now().form.outputs.clone(),
            exports: self.now().form.exports.clone(),
            imports: self
                .now()
                .form
                .imports
                .union(&goal.form.imports)
                .cloned()
                .collect(),
            ..goal.form.clone()
        }))
    }

    fn begin_update(&mut self, goal: &Goal) {
        let mut effects = vec![Effect::Began];
        if self.now().stable.is_none() {
            effects.push(Effect::Stable(Some(Box::new(Stable {
                form: self.now().form.clone(),
                resources: self.now().resources.clone(),
            }))));
        }
        effects.push(self.form_without_outputs(goal));
        self.status(S::UpdateInProgress, Some(INITIATED), effects);
    }

    /// Makes and updates resources. Fails with the reason that the stack will show.
    fn make(&mut self, goal: &Goal, on_failure: OnFailure) -> Result<(), String> {
        let policy = self.now().policy.as_deref().and_then(StackPolicy::parse);
        let creating = self.now().status == S::CreateInProgress;
        for logical in &goal.order {
            let Some(state) = goal.resources.get(logical) else {
                continue;
            };
            let old = self.now().resources.get(logical).cloned();
            let creates = old.as_ref().is_none_or(|o| o.physical != state.physical);
            let nested = goal.children.get(logical).filter(|(child, inner)| {
                creates || child.form != inner.form || child.resources != inner.resources
            });
            if !creates
                && nested.is_none()
                && old
                    .as_ref()
                    .is_some_and(|o| o.properties == state.properties)
            {
                // A value that was not known turned out to be the same; a policy alone moves nothing.
                self.now_put(logical, state);
                continue;
            }
            let verb = if creates { "CREATE" } else { "UPDATE" };
            let refused = policy.as_ref().filter(|_| !creating).and_then(|policy| {
                let old = old.as_ref()?;
                let action = if creates {
                    "Update:Replace"
                } else {
                    "Update:Modify"
                };
                policy.refusal(action, logical, &old.kind)
            });
            let reason = (creates && old.is_some()).then_some("Requested update requires the creation of a new physical resource; hence creating one.");
            let born = match nested {
                Some((child, _)) if creates => vec![
                    Effect::Born(child.clone()),
                    Effect::Put(logical.clone(), state.clone()),
                ],
                _ => vec![],
            };
            self.resource(logical, state, &format!("{verb}_IN_PROGRESS"), reason, born);
            let inner = match nested {
                Some((child, inner)) if refused.is_none() => {
                    self.make_nested(child, inner, creates, on_failure)
                }
                _ => Ok(()),
            };
            self.work(&state.kind);
            let failure = refused
                .or(inner.err())
                .or_else(|| self.fails(Phase::Make, logical))
                .or_else(|| self.vanished(logical, creates))
                .or_else(|| same_name(logical, old.as_ref(), state));
            if let Some(reason) = failure {
                self.resource(
                    logical,
                    state,
                    &format!("{verb}_FAILED"),
                    Some(&reason),
                    vec![],
                );
                return Err(failed(&verb.to_lowercase(), std::slice::from_ref(logical)));
            }
            let put = vec![Effect::Put(logical.clone(), state.clone())];
            self.resource(logical, state, &format!("{verb}_COMPLETE"), None, put);
        }
        if let Some(policy) = policy.filter(|_| !creating) {
            for (logical, old) in self.now().resources.clone() {
                if !goal.resources.contains_key(&logical)
                    && let Some(reason) = policy.refusal("Update:Delete", &logical, &old.kind)
                {
                    self.resource(&logical, &old, "DELETE_FAILED", Some(&reason), vec![]);
                    return Err(failed("delete", &[logical]));
                }
            }
        }
        Ok(())
    }

    /// A resource that somebody deleted by hand cannot be updated.
    fn vanished(&self, logical: &str, creates: bool) -> Option<String> {
        (!creates && matches!(self.now().actual.get(logical), Some(None)))
            .then(|| NOT_FOUND.to_owned())
    }

    /// Watches the alarms of a stack before its change is taken as done.
    fn watch(&mut self, goal: &Goal) -> Result<(), String> {
        for alarm in &goal.form.rollback_triggers {
            self.at = self.at.plus(std::time::Duration::from_millis(
                goal.form.monitoring_minutes * 20,
            ));
            if self.fails(Phase::Make, alarm).is_some() {
                return Err(format!("Rollback was triggered by the alarm {alarm}. "));
            }
        }
        Ok(())
    }

    /// Takes over what stands beside the properties: no event tells of it.
    pub(super) fn now_put(&mut self, logical: &str, state: &ResourceState) {
        if self.now().resources.get(logical) != Some(state)
            && let Some(last) = self.steps.last_mut()
        {
            last.effects
                .push(Effect::Put(logical.to_owned(), state.clone()));
            if let Some(stack) = self.tree.get_mut(&self.of) {
                stack.resources.insert(logical.to_owned(), state.clone());
            }
        }
    }

    fn make_nested(
        &mut self,
        child: &Stack,
        goal: &Goal,
        creates: bool,
        on_failure: OnFailure,
    ) -> Result<(), String> {
        let id = child.id.clone();
        // A nested stack never deletes itself; its parent does.
        let on_failure = match on_failure {
            OnFailure::Keep => OnFailure::Keep,
            _ => OnFailure::Rollback,
        };
        self.within(&id, |s| {
            if creates {
                s.create(goal, on_failure);
                if s.now().status == S::CreateComplete {
                    return Ok(());
                }
                let reason = s.now().reason.clone().unwrap_or_default();
                return Err(format!(
                    "Embedded stack {id} was not successfully created: {reason}"
                ));
            }
            s.begin_update(goal);
            match s.make(goal, on_failure) {
                // What it replaced goes when the parent cleans up.
                Ok(()) => {
                    s.status(
                        S::UpdateComplete,
                        None,
                        vec![Effect::Form(Box::new(goal.form.clone()))],
                    );
                    Ok(())
                }
                Err(reason) => {
                    if on_failure == OnFailure::Keep {
                        s.status(S::UpdateFailed, Some(&reason), vec![]);
                    } else {
                        s.undo_update(&reason, &[]);
                    }
                    Err(format!("Embedded stack {id} was not successfully updated. Currently in UPDATE_ROLLBACK_IN_PROGRESS with reason: {reason}"))
                }
            }
        })
    }

    /// What exists and will not be part of the stack: old copies of replaced resources, and what leaves.
    fn leftovers(&self, goal: &Goal) -> Vec<(String, ResourceState)> {
        let mut out: Vec<(String, ResourceState)> = Vec::new();
        let stable = self.now().stable.as_ref().map(|s| &s.resources);
        for (logical, state) in stable.into_iter().flatten().chain(&self.now().resources) {
            let stays = goal
                .resources
                .get(logical)
                .is_some_and(|g| g.physical == state.physical);
            if !stays && !out.iter().any(|(_, o)| o.physical == state.physical) {
                out.push((logical.clone(), state.clone()));
            }
        }
        out
    }

    fn clean_up(&mut self, goal: &Goal, leftovers: Vec<(String, ResourceState)>) {
        self.status(
            S::UpdateCompleteCleanupInProgress,
            None,
            vec![Effect::Form(Box::new(goal.form.clone()))],
        );
        let policies: BTreeMap<&str, PolicyAction> = goal
            .changes
            .iter()
            .filter_map(|c| Some((c.logical.as_str(), c.policy?)))
            .collect();
        let mut orphaned = false;
        for (logical, old) in leftovers.into_iter().rev() {
            let owned = !goal.resources.contains_key(&logical);
            if matches!(
                policies.get(logical.as_str()),
                Some(PolicyAction::Retain | PolicyAction::ReplaceAndRetain)
            ) {
                let gone = if owned {
                    vec![Effect::Gone(logical.clone())]
                } else {
                    vec![]
                };
                self.resource(&logical, &old, "DELETE_SKIPPED", None, gone);
            } else if !self.delete_resource(&logical, &old, owned, Phase::Delete) {
                // It tries three times and then leaves the resource behind.
                orphaned = true;
                if owned {
                    let last = vec![Effect::Gone(logical.clone())];
                    self.resource(&logical, &old, "DELETE_FAILED", None, last);
                }
            }
        }
        for (logical, (child, inner)) in &goal.children {
            let id = child.id.clone();
            if goal.resources.contains_key(logical)
                && self.tree.get(&id).is_some_and(|s| s.stable.is_some())
            {
                self.within(&id, |s| {
                    let leftovers = s.leftovers(inner);
                    s.clean_up(inner, leftovers);
                });
            }
        }
        let reason =
            orphaned.then_some("Update successful. One or more resources could not be deleted.");
        self.status(
            S::UpdateComplete,
            reason,
            vec![Effect::Stable(None), Effect::Leaving(vec![])],
        );
    }

    /// An export belongs to one stack of an account and region.
    fn clash(&self, goal: &Goal) -> Result<(), String> {
        for name in goal.form.exports.keys() {
            if let Some(owner) = self.neighbours.exported_by.get(name) {
                return Err(format!(
                    "Export with name {name} is already exported by stack {owner}. "
                ));
            }
        }
        Ok(())
    }

    /// Says which export cannot go or change because others read it.
    pub(super) fn used_exports(
        &self,
        before: &BTreeMap<String, String>,
        after: Option<&BTreeMap<String, String>>,
    ) -> Option<String> {
        before.iter().find_map(|(name, value)| {
            let users = self.neighbours.read_by.get(name)?;
            let verb = match after.and_then(|a| a.get(name)) {
                Some(same) if same == value => return None,
                Some(_) => "updated",
                None => "deleted",
            };
            let users = users.join(" and ");
            Some(format!(
                "Export {name} cannot be {verb} as it is in use by {users}"
            ))
        })
    }
}

/// The new copy of a resource comes before the old one goes, so both cannot have one name.
fn same_name(logical: &str, old: Option<&ResourceState>, new: &ResourceState) -> Option<String> {
    let old = old.filter(|o| o.kind == new.kind && o.physical == new.physical)?;
    if resource_type(&new.kind).is_some_and(|facts| facts.deletes_before_create()) {
        return None;
    }
    (replacement_of(&new.kind, &old.properties, &new.properties) == Replacement::Always).then(|| {
        format!("CloudFormation cannot update a stack when a custom-named resource requires replacing. Rename {logical} and update the stack again.")
    })
}
