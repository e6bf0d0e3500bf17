//! What the reference model keeps of stacks and change sets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::model::{StackId, StackName, Timestamp};
use crate::domain::plan::{Change, Observed, ResourceState, StackStatus};
use crate::port::{Proposal, StackEvent};

/// A stack.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Stack {
    pub id: StackId,
    pub name: StackName,
    pub region: String,
    pub account: String,
    pub status: StackStatus,
    pub reason: Option<String>,
    pub updated: Option<Timestamp>,
    /// The operations so far; each is named by its number.
    pub operations: u64,
    pub template: String,
    /// As given; secret values as keyed marks.
    pub parameters: BTreeMap<String, String>,
    pub secrets: Vec<String>,
    pub tags: BTreeMap<String, String>,
    pub outputs: BTreeMap<String, String>,
    pub exports: BTreeMap<String, String>,
    pub notification_arns: Vec<String>,
    pub rollback_triggers: Vec<String>,
    pub monitoring_minutes: u64,
    pub policy: Option<String>,
    pub protected: bool,
    pub resources: BTreeMap<String, ResourceState>,
    pub last_change_set: Option<String>,
    pub token: Option<String>,
    pub running: Option<Operation>,
}

/// An operation in motion: everything that will happen, with its times.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Operation {
    /// What is still to come, oldest first.
    pub steps: Vec<Step>,
    /// What the stack is when the last step is done.
    pub end: Box<Stack>,
}

/// One step of an operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Step {
    pub at: Timestamp,
    pub event: StackEvent,
    /// The stack's status from then on.
    pub status: Option<(StackStatus, Option<String>)>,
}

/// A change set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredChangeSet {
    pub arn: String,
    pub name: String,
    pub token: String,
    pub stack: StackId,
    pub create: bool,
    pub ready_at: Timestamp,
    pub template: String,
    pub failed: Option<String>,
    pub changes: Vec<Change>,
    /// The stack's operations when it was made: another number means that the stack moved.
    pub base: u64,
    pub proposal: StoredProposal,
    pub executed: bool,
}

/// What a change set was made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredProposal {
    pub parameters: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
    pub notification_arns: Vec<String>,
    pub rollback_triggers: Vec<String>,
    pub monitoring_minutes: u64,
}

impl From<&Proposal> for StoredProposal {
    fn from(p: &Proposal) -> Self {
        Self {
            parameters: p.parameters.clone(),
            tags: p.tags.clone(),
            notification_arns: p.notification_arns.clone(),
            rollback_triggers: p.rollback_triggers.clone(),
            monitoring_minutes: p.monitoring_minutes,
        }
    }
}

impl Stack {
    pub fn operation(&self) -> Option<String> {
        (self.operations > 0).then(|| format!("op-{}", self.operations))
    }

    pub fn observed(&self) -> Observed {
        let shown = |(name, value): (&String, &String)| {
            (
                name.clone(),
                if self.secrets.contains(name) {
                    "****".to_owned()
                } else {
                    value.clone()
                },
            )
        };
        Observed {
            stack_id: self.id.clone(),
            name: self.name.clone(),
            status: self.status.clone(),
            status_reason: self.reason.clone(),
            updated: self.updated,
            operation: self.operation(),
            parameters: self.parameters.iter().map(shown).collect(),
            tags: self.tags.clone(),
            outputs: self.outputs.clone(),
            notification_arns: self.notification_arns.clone(),
            termination_protection: self.protected,
            last_change_set: self.last_change_set.clone(),
        }
    }

    /// Moves an operation on to `now`; returns the events that happened.
    pub fn advance(&mut self, now: Timestamp) -> Vec<StackEvent> {
        let Some(mut running) = self.running.take() else {
            return Vec::new();
        };
        let due = running.steps.iter().take_while(|s| s.at <= now).count();
        let mut events = Vec::new();
        for step in running.steps.drain(..due) {
            if let Some((status, reason)) = step.status {
                self.status = status;
                self.reason = reason;
            }
            events.push(step.event);
        }
        if running.steps.is_empty() {
            let (status, reason) = (self.status.clone(), self.reason.clone());
            *self = *running.end;
            self.status = status;
            self.reason = reason;
        } else {
            self.running = Some(running);
        }
        events
    }
}
