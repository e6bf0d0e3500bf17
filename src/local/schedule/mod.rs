//! What an operation will do, with the times of every step: the walk through a stack's states.
//!
//! A schedule works on copies of the stacks and lets every step happen to them as it is written, so that a rollback
//! is planned from the state in which the failure leaves them. [`super::engine`] lets the same steps happen in time.

mod remove;
mod rollback;
mod update;

use std::collections::BTreeMap;
use std::time::Duration;

use super::model::{Effect, Operation, Stack, Step};
use super::world::{Failure, Phase};
use crate::domain::cfn::{Template, parse_template_with};
use crate::domain::model::{StackId, Timestamp, glob_matches};
use crate::domain::plan::{Change, ResourceState, StackStatus};
use crate::port::StackEvent;

use super::model::Form;

/// The type of a nested stack.
pub(super) const NESTED: &str = "AWS::CloudFormation::Stack";

/// What a stack should become.
#[derive(Clone, Debug, Default)]
pub(super) struct Goal {
    pub form: Form,
    pub resources: BTreeMap<String, ResourceState>,
    /// Logical ids with every resource after what it needs.
    pub order: Vec<String>,
    pub changes: Vec<Change>,
    /// Nested stacks by logical id: the stack as it is, or a new one, and what it should become.
    pub children: BTreeMap<String, (Box<Stack>, Goal)>,
}

/// What stands beside a stack: who exports what, and who reads it.
#[derive(Clone, Debug, Default)]
pub(super) struct Neighbours {
    /// Export → the other stack that has it.
    pub exported_by: BTreeMap<String, String>,
    /// Export → the other stacks that read it.
    pub read_by: BTreeMap<String, Vec<String>>,
}

/// Builds an operation step by step.
pub(super) struct Schedule<'a> {
    tree: BTreeMap<StackId, Stack>,
    root: StackId,
    /// Whose steps are written at the moment.
    of: StackId,
    token: String,
    at: Timestamp,
    pace: f64,
    number: u64,
    steps: Vec<Step>,
    pub failures: &'a mut Vec<Failure>,
    neighbours: &'a Neighbours,
}

impl<'a> Schedule<'a> {
    /// Begins an operation on the first stack of a tree; the others are its nested ones.
    pub fn new(
        tree: Vec<Stack>,
        token: &str,
        now: Timestamp,
        pace: f64,
        failures: &'a mut Vec<Failure>,
        neighbours: &'a Neighbours,
    ) -> Self {
        let root = tree
            .first()
            .map(|s| s.id.clone())
            .unwrap_or_else(|| unreachable!("a tree has a root"));
        Self {
            tree: tree.into_iter().map(|s| (s.id.clone(), s)).collect(),
            of: root.clone(),
            root,
            token: token.to_owned(),
            at: now,
            pace,
            number: 0,
            steps: Vec::new(),
            failures,
            neighbours,
        }
    }

    /// Ends the plan.
    pub fn end(self) -> Operation {
        Operation { steps: self.steps }
    }

    fn now(&self) -> &Stack {
        self.tree
            .get(&self.of)
            .unwrap_or_else(|| unreachable!("every stack of the tree was loaded"))
    }

    /// Writes steps of a nested stack.
    fn within<T>(&mut self, child: &StackId, work: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.of, child.clone());
        let out = work(self);
        self.of = outer;
        out
    }

    fn push(
        &mut self,
        subject: (&str, &str, Option<&str>),
        word: &str,
        reason: Option<&str>,
        status: Option<StackStatus>,
        effects: Vec<Effect>,
    ) {
        self.number += 1;
        for effect in &effects {
            if let Effect::Born(child) = effect {
                self.tree.insert(child.id.clone(), (**child).clone());
            }
        }
        let began = effects.iter().any(|e| matches!(e, Effect::Began));
        let stack = self.now();
        let operation = stack.operations + u64::from(began);
        let (logical, kind, physical) = subject;
        let step = Step {
            at: self.at,
            of: (self.of != self.root).then(|| self.of.clone()),
            event: StackEvent {
                id: format!("{}-op-{operation}-{:06}", stack.name, self.number),
                at: self.at,
                operation: Some(format!("op-{operation}")),
                token: Some(self.token.clone()),
                logical: logical.to_owned(),
                kind: kind.to_owned(),
                physical: physical.map(str::to_owned),
                status: word.to_owned(),
                reason: reason.map(str::to_owned),
            },
            status: status.map(|s| (s, reason.map(str::to_owned))),
            effects,
        };
        if let Some(stack) = self.tree.get_mut(&self.of) {
            stack.apply(&step);
        }
        self.steps.push(step);
    }

    pub fn status(&mut self, status: StackStatus, reason: Option<&str>, effects: Vec<Effect>) {
        let (name, id) = (self.now().name.to_string(), self.of.to_string());
        let word = status.as_str().to_owned();
        self.push(
            (&name, NESTED, Some(&id)),
            &word,
            reason,
            Some(status),
            effects,
        );
    }

    fn resource(
        &mut self,
        logical: &str,
        state: &ResourceState,
        word: &str,
        reason: Option<&str>,
        effects: Vec<Effect>,
    ) {
        let physical = state.physical.clone();
        self.push(
            (logical, &state.kind, physical.as_deref()),
            word,
            reason,
            None,
            effects,
        );
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

    /// Uses up a scripted failure of this resource.
    fn fails(&mut self, phase: Phase, logical: &str) -> Option<String> {
        let name = self.now().name.to_string();
        let at = self.failures.iter().position(|f| {
            f.phase == phase
                && f.logical == logical
                && f.times != Some(0)
                && glob_matches(&f.stack, &name)
        })?;
        let failure = &mut self.failures[at];
        failure.times = failure.times.map(|n| n - 1);
        Some(failure.reason.clone())
    }

    /// The resources that the stack has, those first that are made first.
    fn in_order(
        &self,
        resources: &BTreeMap<String, ResourceState>,
    ) -> Vec<(String, ResourceState)> {
        let form = &self.now().form;
        let order = parse_template_with("template", &form.template, &form.parameters)
            .ok()
            .and_then(|t: Template| t.order().ok())
            .unwrap_or_default();
        let known = order
            .iter()
            .filter_map(|l| resources.get(l).map(|r| (l.clone(), r.clone())));
        let rest = resources
            .iter()
            .filter(|(l, _)| !order.contains(l))
            .map(|(l, r)| (l.clone(), r.clone()));
        known.chain(rest).collect()
    }

    /// The nested stack behind a resource.
    fn child(&self, state: &ResourceState) -> Option<StackId> {
        if state.kind != NESTED {
            return None;
        }
        let id: StackId = state.physical.as_deref()?.parse().ok()?;
        self.tree.contains_key(&id).then_some(id)
    }
}

/// Says which resources failed, in CloudFormation's words.
fn failed(verb: &str, logical: &[String]) -> String {
    format!(
        "The following resource(s) failed to {verb}: [{}]. ",
        logical.join(", ")
    )
}
