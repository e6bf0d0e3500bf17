//! What an execution will do, with the times of every step: the walk through a stack's states.

use std::collections::BTreeMap;
use std::time::Duration;

use super::model::{Operation, Stack, Step};
use super::world::Failure;
use crate::domain::cfn::{DeletionPolicy, Template};
use crate::domain::model::{Timestamp, glob_matches};
use crate::domain::plan::{Action, Change, PolicyAction, Replacement, ResourceState, StackStatus};
use crate::port::StackEvent;

/// Builds a schedule step by step.
pub(super) struct Schedule<'a> {
    stack: &'a Stack,
    operation: u64,
    token: &'a str,
    at: Timestamp,
    pace: f64,
    number: u64,
    steps: Vec<Step>,
}

/// How an execution will end.
pub(super) struct Ending {
    pub operation: Operation,
    /// The scripted failure that was used up.
    pub used: Option<Failure>,
}

impl<'a> Schedule<'a> {
    pub fn new(stack: &'a Stack, token: &'a str, now: Timestamp, pace: f64) -> Self {
        Self {
            stack,
            operation: stack.operations + 1,
            token,
            at: now,
            pace,
            number: 0,
            steps: Vec::new(),
        }
    }

    fn event(
        &mut self,
        logical: &str,
        kind: &str,
        physical: Option<&str>,
        status: &str,
        reason: Option<&str>,
    ) -> StackEvent {
        self.number += 1;
        StackEvent {
            id: format!(
                "{}-op-{}-{:06}",
                self.stack.name, self.operation, self.number
            ),
            at: self.at,
            operation: Some(format!("op-{}", self.operation)),
            token: Some(self.token.to_owned()),
            logical: logical.to_owned(),
            kind: kind.to_owned(),
            physical: physical.map(str::to_owned),
            status: status.to_owned(),
            reason: reason.map(str::to_owned),
        }
    }

    pub fn stack_status(&mut self, status: StackStatus, reason: Option<&str>) {
        let (name, id) = (self.stack.name.to_string(), self.stack.id.to_string());
        let event = self.event(
            &name,
            "AWS::CloudFormation::Stack",
            Some(&id),
            status.as_str(),
            reason,
        );
        self.steps.push(Step {
            at: self.at,
            event,
            status: Some((status, reason.map(str::to_owned))),
        });
    }

    fn resource(
        &mut self,
        logical: &str,
        state: &ResourceState,
        status: &str,
        reason: Option<&str>,
    ) {
        let event = self.event(
            logical,
            &state.kind,
            state.physical.as_deref(),
            status,
            reason,
        );
        self.steps.push(Step {
            at: self.at,
            event,
            status: None,
        });
    }

    /// Lets as much time pass as a resource of this type takes.
    fn work(&mut self, kind: &str) {
        let slow = if kind.starts_with("AWS::RDS::") || kind.starts_with("AWS::CloudFront::") {
            4.0
        } else {
            1.0
        };
        let spread = f64::from(
            kind.bytes()
                .fold(0u32, |a, b| a.wrapping_mul(31).wrapping_add(u32::from(b)))
                % 20,
        );
        let ms = (15.0 + spread) * slow * self.pace;
        self.at = self.at.plus(Duration::from_micros((ms * 1000.0) as u64));
    }

    pub fn end(mut self, mut end: Stack) -> Operation {
        end.running = None;
        end.operations = self.operation;
        end.updated = Some(self.at);
        end.token = Some(self.token.to_owned());
        if let Some(last) = self.steps.last_mut() {
            last.at = self.at;
        }
        Operation {
            steps: self.steps,
            end: Box::new(end),
        }
    }

    /// Schedules the execution of a change set.
    ///
    /// `target` is the stack as it will be when everything works. `order` is the template's.
    pub fn execute(
        mut self,
        target: Stack,
        template: &Template,
        changes: &[Change],
        create: bool,
        failures: &[Failure],
    ) -> Ending {
        use StackStatus as S;
        self.stack_status(
            if create {
                S::CreateInProgress
            } else {
                S::UpdateInProgress
            },
            Some("User Initiated"),
        );
        let order = template.order().unwrap_or_default();
        let by_logical: BTreeMap<&str, &Change> =
            changes.iter().map(|c| (c.logical.as_str(), c)).collect();
        let mut made: Vec<(String, ResourceState)> = Vec::new();
        for logical in order.iter().filter(|l| by_logical.contains_key(l.as_str())) {
            let change = by_logical[logical.as_str()];
            let Some(state) = target.resources.get(logical) else {
                continue;
            };
            let creates = self.is_new(logical, &target);
            if !creates
                && self
                    .stack
                    .resources
                    .get(logical)
                    .is_some_and(|old| old.properties == state.properties)
            {
                // A value that was not known turned out to be the same.
                continue;
            }
            let verb = if creates { "CREATE" } else { "UPDATE" };
            let reason = (creates && change.action == Action::Modify).then_some("Requested update requires the creation of a new physical resource; hence creating one.");
            self.resource(logical, state, &format!("{verb}_IN_PROGRESS"), reason);
            self.work(&state.kind);
            if let Some(failure) = failures
                .iter()
                .find(|f| f.logical == *logical && glob_matches(&f.stack, self.stack.name.as_str()))
            {
                self.resource(
                    logical,
                    state,
                    &format!("{verb}_FAILED"),
                    Some(&failure.reason),
                );
                let reason = format!(
                    "The following resource(s) failed to {}: [{logical}]. ",
                    verb.to_lowercase()
                );
                let operation = if create {
                    self.undo_create(made, &reason)
                } else {
                    self.undo_update(made, &by_logical, &reason)
                };
                return Ending {
                    operation,
                    used: Some(failure.clone()),
                };
            }
            self.resource(logical, state, &format!("{verb}_COMPLETE"), None);
            if creates {
                made.push((logical.clone(), state.clone()));
            }
        }
        if create {
            self.stack_status(S::CreateComplete, None);
        } else {
            let leaving: Vec<&Change> = changes
                .iter()
                .filter(|c| {
                    c.action == Action::Remove
                        || (c.action == Action::Modify && self.is_new(&c.logical, &target))
                })
                .collect();
            self.stack_status(S::UpdateCompleteCleanupInProgress, None);
            for change in leaving {
                self.leave(change);
            }
            self.stack_status(S::UpdateComplete, None);
        }
        Ending {
            operation: self.end(target),
            used: None,
        }
    }

    /// Tells whether a resource gets another physical id.
    fn is_new(&self, logical: &str, target: &Stack) -> bool {
        self.stack.resources.get(logical).map(|r| &r.physical)
            != target.resources.get(logical).map(|r| &r.physical)
    }

    fn leave(&mut self, change: &Change) {
        let Some(old) = self.stack.resources.get(&change.logical).cloned() else {
            return;
        };
        if matches!(
            change.policy,
            Some(PolicyAction::Retain | PolicyAction::ReplaceAndRetain)
        ) {
            self.resource(&change.logical, &old, "DELETE_SKIPPED", None);
            return;
        }
        self.resource(&change.logical, &old, "DELETE_IN_PROGRESS", None);
        self.work(&old.kind);
        self.resource(&change.logical, &old, "DELETE_COMPLETE", None);
    }

    /// A failed creation with OnStackFailure=DELETE: what was made goes, and then the stack.
    fn undo_create(mut self, made: Vec<(String, ResourceState)>, reason: &str) -> Operation {
        use StackStatus as S;
        self.stack_status(
            S::RollbackInProgress,
            Some(&format!("{reason}Rollback requested by user.")),
        );
        for (logical, state) in made.iter().rev() {
            // RetainExceptOnCreate: a resource of a failed creation is deleted even where its policy is Retain.
            self.resource(logical, state, "DELETE_IN_PROGRESS", None);
            self.work(&state.kind);
            self.resource(logical, state, "DELETE_COMPLETE", None);
        }
        self.stack_status(S::RollbackComplete, None);
        self.stack_status(S::DeleteInProgress, Some("Requested by OnStackFailure"));
        self.stack_status(S::DeleteComplete, None);
        let mut end = self.stack.clone();
        end.resources.clear();
        end.outputs.clear();
        end.exports.clear();
        self.end(end)
    }

    fn undo_update(
        mut self,
        made: Vec<(String, ResourceState)>,
        by_logical: &BTreeMap<&str, &Change>,
        reason: &str,
    ) -> Operation {
        use StackStatus as S;
        self.stack_status(S::UpdateRollbackInProgress, Some(reason));
        for (logical, change) in by_logical {
            if change.action == Action::Modify
                && change.replacement == Replacement::Never
                && let Some(old) = self.stack.resources.get(*logical).cloned()
            {
                self.resource(logical, &old, "UPDATE_COMPLETE", None);
            }
        }
        self.stack_status(S::UpdateRollbackCompleteCleanupInProgress, None);
        for (logical, state) in made.iter().rev() {
            self.resource(logical, state, "DELETE_IN_PROGRESS", None);
            self.work(&state.kind);
            self.resource(logical, state, "DELETE_COMPLETE", None);
        }
        self.stack_status(S::UpdateRollbackComplete, None);
        let mut end = self.stack.clone();
        // A rollback is an operation too: the change set was executed, and the stack moved.
        end.last_change_set = self.stack.last_change_set.clone();
        self.end(end)
    }

    /// Schedules a deletion.
    pub fn delete(mut self, retain: &[String]) -> Operation {
        use StackStatus as S;
        self.stack_status(S::DeleteInProgress, Some("User Initiated"));
        for (logical, state) in self.stack.resources.clone().iter().rev() {
            if retain.contains(logical)
                || matches!(
                    state.deletion_policy,
                    DeletionPolicy::Retain | DeletionPolicy::RetainExceptOnCreate
                )
            {
                self.resource(logical, state, "DELETE_SKIPPED", None);
                continue;
            }
            self.resource(logical, state, "DELETE_IN_PROGRESS", None);
            self.work(&state.kind);
            self.resource(logical, state, "DELETE_COMPLETE", None);
        }
        self.stack_status(S::DeleteComplete, None);
        let mut end = self.stack.clone();
        end.resources.clear();
        end.outputs.clear();
        end.exports.clear();
        self.end(end)
    }
}
