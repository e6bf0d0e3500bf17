//! What the reference model keeps of stacks and change sets.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::cfn::as_read_back;
use crate::domain::model::{StackId, StackName, Timestamp};
use crate::domain::plan::{Change, Observed, ResourceState, StackStatus};
use crate::port::{OnFailure, Proposal, StackEvent};

/// A stack.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Stack {
    pub id: StackId,
    pub name: StackName,
    pub region: String,
    pub account: String,
    /// The stack whose resource this one is, and the one at the top.
    #[serde(default)]
    pub parent: Option<StackId>,
    #[serde(default)]
    pub root: Option<StackId>,
    pub status: StackStatus,
    pub reason: Option<String>,
    pub updated: Option<Timestamp>,
    /// The operations so far; each is named by its number.
    pub operations: u64,
    #[serde(flatten)]
    pub form: Form,
    pub policy: Option<String>,
    pub protected: bool,
    /// What the stack says of its resources.
    pub resources: BTreeMap<String, ResourceState>,
    /// What is really there, where somebody changed it by hand: properties, or nothing where it was deleted.
    #[serde(default)]
    pub actual: BTreeMap<String, Option<Value>>,
    /// Where a rollback goes; present while an update is not finished.
    #[serde(default)]
    pub stable: Option<Box<Stable>>,
    /// Resources that a rollback has still to delete.
    #[serde(default)]
    pub leaving: Vec<(String, ResourceState)>,
    pub last_change_set: Option<String>,
    pub token: Option<String>,
    pub running: Option<Operation>,
}

/// Everything of a stack that a change set can set, and what follows from it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Form {
    pub template: String,
    /// As given; secret values as keyed marks.
    pub parameters: BTreeMap<String, String>,
    pub secrets: Vec<String>,
    pub tags: BTreeMap<String, String>,
    pub outputs: BTreeMap<String, String>,
    pub exports: BTreeMap<String, String>,
    /// Names of the exports of other stacks that it reads.
    #[serde(default)]
    pub imports: BTreeSet<String>,
    pub notification_arns: Vec<String>,
    pub rollback_triggers: Vec<String>,
    pub monitoring_minutes: u64,
}

/// The last known stable state: where a rollback goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Stable {
    pub form: Form,
    pub resources: BTreeMap<String, ResourceState>,
}

/// An operation in motion: everything that is still to happen, oldest first, with its times.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Operation {
    pub steps: Vec<Step>,
}

/// One step of an operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Step {
    pub at: Timestamp,
    /// The nested stack that it happens to; absent for the stack that the operation belongs to.
    #[serde(default)]
    pub of: Option<StackId>,
    pub event: StackEvent,
    /// The stack's status from then on.
    pub status: Option<(StackStatus, Option<String>)>,
    #[serde(default)]
    pub effects: Vec<Effect>,
}

/// What a step changes besides the status.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Effect {
    /// An operation begins.
    Began,
    /// A nested stack comes into being.
    Born(Box<Stack>),
    /// The stack has another form.
    Form(Box<Form>),
    /// A resource is this from now on.
    Put(String, ResourceState),
    /// A resource is no longer the stack's.
    Gone(String),
    /// What is really there differs from what the stack says.
    Actual(String, Option<Value>),
    /// Where a rollback would go.
    Stable(Option<Box<Stable>>),
    /// What a rollback has still to delete.
    Leaving(Vec<(String, ResourceState)>),
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
    /// Nested templates by URL, as they were read.
    #[serde(default)]
    pub bodies: BTreeMap<String, String>,
    pub failed: Option<String>,
    pub changes: Vec<Change>,
    /// The stack's operations when it was made: another number means that the stack moved.
    pub base: u64,
    pub proposal: StoredProposal,
    pub executed: bool,
    /// Deleted, and its name is taken until then.
    #[serde(default)]
    pub gone_at: Option<Timestamp>,
}

/// How a stack was before its last operation began: what a stale read shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Before {
    pub until: Timestamp,
    pub stack: Option<Stack>,
}

/// What a change set was made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredProposal {
    pub parameters: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
    pub notification_arns: Vec<String>,
    pub rollback_triggers: Vec<String>,
    pub monitoring_minutes: u64,
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Logical id → type and identifier.
    #[serde(default)]
    pub import: BTreeMap<String, (String, BTreeMap<String, String>)>,
    #[serde(default)]
    pub capabilities: Vec<String>,
}

impl From<&Proposal> for StoredProposal {
    fn from(p: &Proposal) -> Self {
        Self {
            parameters: p.parameters.clone(),
            tags: p.tags.clone(),
            notification_arns: p.notification_arns.clone(),
            rollback_triggers: p.rollback_triggers.clone(),
            monitoring_minutes: p.monitoring_minutes,
            on_failure: p.on_failure,
            import: p.import.clone(),
            capabilities: p.capabilities.clone(),
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
                if self.form.secrets.contains(name) {
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
            parameters: self.form.parameters.iter().map(shown).collect(),
            tags: self.form.tags.clone(),
            outputs: self
                .form
                .outputs
                .iter()
                .map(|(n, v)| (n.clone(), as_read_back(v)))
                .collect(),
            notification_arns: self.form.notification_arns.clone(),
            termination_protection: self.protected,
            last_change_set: self.last_change_set.clone(),
            role: None,
            parent: self.parent.clone(),
        }
    }

    /// Takes the steps that are due; an operation without further steps is over.
    pub fn take_due(&mut self, now: Timestamp) -> Vec<Step> {
        let Some(running) = &mut self.running else {
            return Vec::new();
        };
        let due = running.steps.iter().take_while(|s| s.at <= now).count();
        let steps: Vec<Step> = running.steps.drain(..due).collect();
        if running.steps.is_empty() {
            self.running = None;
        }
        steps
    }

    /// Lets a step happen to this stack.
    pub fn apply(&mut self, step: &Step) {
        for effect in &step.effects {
            match effect {
                Effect::Began => {
                    self.operations += 1;
                    self.updated = Some(step.at);
                    self.token.clone_from(&step.event.token);
                }
                Effect::Born(_) => {}
                Effect::Form(form) => self.form = (**form).clone(),
                Effect::Put(logical, state) => {
                    self.put(logical, state);
                }
                Effect::Gone(logical) => {
                    self.resources.remove(logical);
                    self.actual.remove(logical);
                }
                Effect::Actual(logical, actual) => {
                    self.actual.insert(logical.clone(), actual.clone());
                }
                Effect::Stable(stable) => self.stable.clone_from(stable),
                Effect::Leaving(leaving) => self.leaving.clone_from(leaving),
            }
        }
        if let Some((status, reason)) = &step.status {
            self.status = status.clone();
            self.reason.clone_from(reason);
        }
    }

    /// An update writes the properties that it changes; what else was changed by hand stays.
    fn put(&mut self, logical: &str, state: &ResourceState) {
        let old = self.resources.insert(logical.to_owned(), state.clone());
        match old.filter(|o| o.physical == state.physical) {
            None => {
                self.actual.remove(logical);
            }
            Some(old) => {
                if let Some(Some(Value::Object(actual))) = self.actual.get_mut(logical)
                    && let (Value::Object(before), Value::Object(after)) =
                        (&old.properties, &state.properties)
                {
                    for name in before.keys().chain(after.keys()) {
                        if before.get(name) != after.get(name) {
                            match after.get(name) {
                                Some(value) => actual.insert(name.clone(), value.clone()),
                                None => actual.remove(name),
                            };
                        }
                    }
                }
            }
        }
    }
}
