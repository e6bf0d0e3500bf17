//! What a change set would make of a stack: the template evaluated against what exists and what will.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::engine::LocalEngine;
use super::model::{Form, Stack, StoredProposal};
use super::physical::{Home, attribute, physical_id};
use super::schedule::{Goal, NESTED};
use crate::domain::cfn::{
    EvaluateError, Pseudo, Resolver, Resource, Scope, Template, bind_parameters, evaluate,
    parse_template_with, unknown,
};
use crate::domain::model::{KeyedHasher, StackId, StackName};
use crate::domain::plan::{Change, Replacement, ResourceState, compare, replacement_of};

/// Why there is no goal.
pub(super) enum GoalError {
    /// The template cannot be evaluated.
    Evaluate(EvaluateError),
    /// A nested stack's template has to be read first.
    Needs(String),
}

impl From<EvaluateError> for GoalError {
    fn from(error: EvaluateError) -> Self {
        Self::Evaluate(error)
    }
}

/// What evaluating needs besides the stack itself.
pub(super) struct Around<'a> {
    /// Exports of the other stacks.
    pub exports: &'a BTreeMap<String, String>,
    /// Bodies of nested templates by URL.
    pub bodies: &'a BTreeMap<String, String>,
    /// Nested stacks that exist.
    pub nested: &'a BTreeMap<StackId, Stack>,
}

fn fail(message: impl Into<String>) -> EvaluateError {
    EvaluateError {
        message: message.into(),
    }
}

impl LocalEngine {
    fn pseudo(&self, name: &StackName, id: &StackId, arns: &[String]) -> Pseudo {
        Pseudo {
            account: self.account.to_string(),
            region: self.region.to_string(),
            stack_name: name.to_string(),
            stack_id: Some(id.to_string()),
            notification_arns: arns.to_vec(),
        }
    }

    /// Replaces a secret value by a keyed mark: nothing of the world holds one in the clear.
    pub(super) fn mark(&self, value: &str) -> String {
        if value.starts_with("secret-") {
            return value.to_owned();
        }
        let keyed = KeyedHasher::new(self.account.as_str().as_bytes());
        format!(
            "secret-{}",
            keyed.digest("local", value.as_bytes()).short(12)
        )
    }

    /// Works out what a stack would become, and what changes on the way.
    pub(super) fn goal(
        &self,
        stack: &Stack,
        proposal: &StoredProposal,
        text: &str,
        template: &Template,
        around: &Around<'_>,
    ) -> Result<Goal, GoalError> {
        let bound = bind_parameters(template, &proposal.parameters, &|v| self.mark(v)).map_err(
            |errors| {
                fail(
                    errors
                        .into_iter()
                        .map(|e| e.message)
                        .collect::<Vec<_>>()
                        .join("; "),
                )
            },
        )?;
        let pseudo = self.pseudo(&stack.name, &stack.id, &proposal.notification_arns);
        let home = Home {
            account: self.account.as_str(),
            region: self.region.as_str(),
            stack: stack.name.as_str(),
        };
        let live = Live {
            home: &home,
            stack,
            template,
            exports: around.exports,
            moved: RefCell::new(BTreeSet::new()),
            made: RefCell::new(BTreeMap::new()),
            outputs: RefCell::new(
                around
                    .nested
                    .iter()
                    .map(|(id, s)| (id.to_string(), s.form.outputs.clone()))
                    .collect(),
            ),
            imports: RefCell::new(BTreeSet::new()),
        };
        let scope = Scope {
            template,
            parameters: &bound,
            pseudo: &pseudo,
            resolver: &live,
        };
        let present = |logical: &str| {
            let condition = template
                .resources
                .get(logical)
                .and_then(|r| r.condition.clone());
            condition.is_none_or(|c| holds(&c, &scope))
        };
        let changes = compare(
            &stack.resources,
            template,
            &present,
            &mut |_, resource: &Resource, moved| {
                live.moved.replace(moved.clone());
                evaluate(&resource.properties, &scope)
            },
        )?;
        // The second walk knows the physical ids of everything that is made.
        live.moved.replace(BTreeSet::new());
        let order = template
            .order()
            .map_err(|p| fail(format!("circular dependency: {}", p.join(" → "))))?;
        let mut goal = Goal {
            changes,
            order: order.into_iter().filter(|l| present(l)).collect(),
            ..Goal::default()
        };
        for logical in goal.order.clone() {
            let resource = &template.resources[&logical];
            let properties = evaluate(&resource.properties, &scope)?;
            // Now that every value is known, "perhaps" becomes yes or no.
            let kept = stack.resources.get(&logical).filter(|r| {
                r.kind == resource.kind
                    && replacement_of(&r.kind, &r.properties, &properties) != Replacement::Always
            });
            let imported = proposal
                .import
                .get(&logical)
                .map(|(_, id)| id.values().cloned().collect::<Vec<_>>().join("|"));
            let physical = match kept.and_then(|r| r.physical.clone()).or(imported) {
                Some(id) => id,
                None if resource.kind == NESTED => self
                    .new_id(&nested_name(&stack.name, &logical, stack.operations + 1)?)
                    .to_string(),
                None => physical_id(
                    &home,
                    &logical,
                    &resource.kind,
                    &properties,
                    stack.operations + 1,
                ),
            };
            if resource.kind == NESTED {
                let child =
                    self.child(stack, &logical, &physical, &properties, proposal, around)?;
                let outputs = child.1.form.outputs.clone();
                live.outputs.borrow_mut().insert(physical.clone(), outputs);
                note_nested(&mut goal.changes, &logical, &physical, &child);
                goal.children.insert(logical.clone(), child);
            }
            let state = ResourceState::of(resource, Some(physical), properties);
            live.made
                .borrow_mut()
                .insert(logical.clone(), state.clone());
            goal.resources.insert(logical, state);
        }
        let (mut outputs, mut exports) = (BTreeMap::new(), BTreeMap::new());
        for (name, output) in &template.outputs {
            if !output.condition.as_ref().is_none_or(|c| holds(c, &scope)) {
                continue;
            }
            let value = plain(&evaluate(&output.value, &scope)?)?;
            if let Some(export) = &output.export {
                exports.insert(plain(&evaluate(export, &scope)?)?, value.clone());
            }
            outputs.insert(name.clone(), value);
        }
        goal.form = Form {
            template: text.to_owned(),
            parameters: bound
                .iter()
                .map(|(n, v)| (n.clone(), v.as_str().map_or_else(|| list(v), str::to_owned)))
                .collect(),
            secrets: template
                .parameters
                .iter()
                .filter(|(_, p)| p.no_echo)
                .map(|(n, _)| n.clone())
                .collect(),
            tags: proposal.tags.clone(),
            outputs,
            exports,
            imports: live.imports.into_inner(),
            notification_arns: proposal.notification_arns.clone(),
            rollback_triggers: proposal.rollback_triggers.clone(),
            monitoring_minutes: proposal.monitoring_minutes,
        };
        Ok(goal)
    }

    /// Works out a nested stack: its template is read from the URL that its properties name.
    fn child(
        &self,
        parent: &Stack,
        logical: &str,
        physical: &str,
        properties: &Value,
        proposal: &StoredProposal,
        around: &Around<'_>,
    ) -> Result<(Box<Stack>, Goal), GoalError> {
        let url = properties
            .get("TemplateURL")
            .and_then(Value::as_str)
            .ok_or_else(|| fail(format!("{logical}: a nested stack needs a TemplateURL")))?;
        let Some(text) = around.bodies.get(url) else {
            return Err(GoalError::Needs(url.to_owned()));
        };
        let id: StackId = physical
            .parse()
            .map_err(|_| fail(format!("{logical}: {physical} is not a stack")))?;
        let stack = match around.nested.get(&id) {
            Some(stack) => stack.clone(),
            None => {
                let name = nested_name(&parent.name, logical, parent.operations + 1)?;
                let mut shell = self.shell(&name);
                shell.id = id;
                shell.parent = Some(parent.id.clone());
                shell.root = Some(parent.root.clone().unwrap_or_else(|| parent.id.clone()));
                shell
            }
        };
        let inner = StoredProposal {
            parameters: properties
                .get("Parameters")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.as_str().map_or_else(|| list(v), str::to_owned)))
                .collect(),
            tags: proposal.tags.clone(),
            notification_arns: proposal.notification_arns.clone(),
            rollback_triggers: Vec::new(),
            monitoring_minutes: 0,
            on_failure: proposal.on_failure,
            import: BTreeMap::new(),
            capabilities: Vec::new(),
        };
        let template =
            parse_template_with("nested template", text, &inner.parameters).map_err(|f| {
                let first = f.first().map(|f| f.message.clone()).unwrap_or_default();
                fail(format!("{logical}: Template format error: {first}"))
            })?;
        let goal = self.goal(&stack, &inner, text, &template, around)?;
        Ok((Box::new(stack), goal))
    }
}

/// Names a nested stack as CloudFormation does: parent, logical id, and something unique.
fn nested_name(parent: &StackName, logical: &str, turn: u64) -> Result<StackName, EvaluateError> {
    let hash = crate::domain::model::sha256_hex(format!("{parent}|{logical}|{turn}").as_bytes());
    let front: String = format!("{parent}-{logical}").chars().take(114).collect();
    format!("{front}-{}", hash[..12].to_uppercase())
        .parse()
        .map_err(|_| {
            fail(format!(
                "{logical}: the name of the nested stack is too long"
            ))
        })
}

/// A nested stack whose template or parameters differ is modified, also under the same URL.
fn note_nested(
    changes: &mut Vec<Change>,
    logical: &str,
    physical: &str,
    (stack, goal): &(Box<Stack>, Goal),
) {
    let moves = stack.form != goal.form || stack.resources != goal.resources;
    if moves && !changes.iter().any(|c| c.logical == logical) {
        changes.push(Change {
            logical: logical.to_owned(),
            kind: NESTED.to_owned(),
            physical: Some(physical.to_owned()),
            action: crate::domain::plan::Action::Modify,
            replacement: Replacement::Never,
            policy: None,
            properties: Vec::new(),
        });
    }
}

fn holds(condition: &str, scope: &Scope<'_>) -> bool {
    evaluate(&json!({ "Fn::If": [condition, true, false] }), scope)
        .is_ok_and(|v| v == Value::Bool(true))
}

/// Writes a list parameter as it is given and read back: with commas.
fn list(value: &Value) -> String {
    match value {
        Value::Array(items) => items
            .iter()
            .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(","),
        other => other.to_string(),
    }
}

fn plain(value: &Value) -> Result<String, EvaluateError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        _ => Err(fail("Template format error: Output values must be strings")),
    }
}

/// Resolves references against what exists, what was just made, and what is yet unknown.
struct Live<'a> {
    home: &'a Home<'a>,
    stack: &'a Stack,
    template: &'a Template,
    exports: &'a BTreeMap<String, String>,
    moved: RefCell<BTreeSet<String>>,
    made: RefCell<BTreeMap<String, ResourceState>>,
    /// Outputs of nested stacks by ARN.
    outputs: RefCell<BTreeMap<String, BTreeMap<String, String>>>,
    imports: RefCell<BTreeSet<String>>,
}

impl Resolver for Live<'_> {
    fn resource(
        &self,
        logical: &str,
        attribute_name: Option<&str>,
    ) -> Result<Value, EvaluateError> {
        let shown = attribute_name.map_or_else(|| logical.to_owned(), |a| format!("{logical}.{a}"));
        let made = self.made.borrow();
        let state = made
            .get(logical)
            .or_else(|| self.stack.resources.get(logical))
            .filter(|_| !self.moved.borrow().contains(logical));
        let Some(state) = state else {
            if self.template.resources.contains_key(logical) {
                return Ok(unknown(&shown));
            }
            // A resource that a transform would have made: SAM is not expanded here.
            return Ok(json!(physical_id(
                self.home,
                logical,
                "AWS::Serverless::Expanded",
                &Value::Null,
                0
            )));
        };
        let physical = state.physical.clone().unwrap_or_default();
        let Some(name) = attribute_name else {
            return Ok(json!(physical));
        };
        if state.kind == NESTED {
            let outputs = self.outputs.borrow();
            let found = name
                .strip_prefix("Outputs.")
                .and_then(|o| outputs.get(&physical)?.get(o));
            return match found {
                Some(value) => Ok(json!(value)),
                // Before the nested stack is worked out, an output may still come.
                None if !made.contains_key(logical) => Ok(unknown(&shown)),
                None => Err(fail(format!(
                    "Template error: resource {logical} does not support attribute type {name} in Fn::GetAtt"
                ))),
            };
        }
        attribute(self.home, &state.kind, &physical, &state.properties, name).ok_or_else(|| {
            fail(format!(
                "Template error: resource {logical} does not support attribute type {name} in Fn::GetAtt"
            ))
        })
    }

    fn import(&self, name: &str) -> Result<Value, EvaluateError> {
        self.imports.borrow_mut().insert(name.to_owned());
        self.exports
            .get(name)
            .map(|v| json!(v))
            .ok_or_else(|| fail(format!("No export named {name} found.")))
    }
}
