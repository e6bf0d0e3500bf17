//! Property-level comparison of what is with what should be.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Action, Change, PolicyAction, PropertyChange, Replacement};
use crate::domain::cfn::{
    DeletionPolicy, EvaluateError, Mutability, Resource, ResourceType, Template, is_unknown,
    resource_type,
};

/// A resource with its properties evaluated.
#[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
pub struct ResourceState {
    /// The type.
    pub kind: String,
    /// The physical id, where it exists.
    pub physical: Option<String>,
    /// Properties, evaluated.
    pub properties: Value,
    /// What happens when it leaves the stack.
    pub deletion_policy: DeletionPolicy,
    /// What happens to the old one when it is replaced.
    #[serde(default = "deleted")]
    pub update_replace_policy: DeletionPolicy,
    /// Metadata, as it stands in the template.
    #[serde(default)]
    pub metadata: Value,
}

fn deleted() -> DeletionPolicy {
    DeletionPolicy::Delete
}

impl ResourceState {
    /// A resource of a template with its properties evaluated.
    pub fn of(resource: &Resource, physical: Option<String>, properties: Value) -> Self {
        Self {
            kind: resource.kind.clone(),
            physical,
            properties,
            deletion_policy: resource.deletion_policy,
            update_replace_policy: resource.update_replace_policy,
            metadata: resource.metadata.clone(),
        }
    }
}

/// A longer value is cut in what is shown; the digest of the desired state still covers all of it.
const SHOWN: usize = 1000;

/// Evaluates the properties of a resource, given the logical ids that will be new or replaced.
pub type Evaluate<'a> =
    dyn FnMut(&str, &Resource, &BTreeSet<String>) -> Result<Value, EvaluateError> + 'a;

/// What the evaluation of a resource came to.
pub enum Evaluated {
    /// Its properties are what they were: nobody has to look at them.
    Same,
    /// Its properties.
    To(Value),
    /// What its properties were, and what they are. The state before does not say it.
    FromTo(Value, Value),
}

/// As [`Evaluate`], and may say that nothing changes.
pub type EvaluateOr<'a> =
    dyn FnMut(&str, &Resource, &BTreeSet<String>) -> Result<Evaluated, EvaluateError> + 'a;

/// Compares the resources that exist with those that a template asks for.
///
/// `present` tells which resources of the template exist under its conditions. Resources are walked in the order in
/// which they would be made, so that what refers to a replaced one is seen to change.
pub fn compare(
    before: &BTreeMap<String, ResourceState>,
    template: &Template,
    present: &dyn Fn(&str) -> bool,
    evaluate: &mut Evaluate<'_>,
) -> Result<Vec<Change>, EvaluateError> {
    compare_or(
        before,
        template,
        present,
        &mut |logical, resource, moved| evaluate(logical, resource, moved).map(Evaluated::To),
    )
}

/// Compares as [`compare`] does, where what is certainly the same is not evaluated.
pub fn compare_or(
    before: &BTreeMap<String, ResourceState>,
    template: &Template,
    present: &dyn Fn(&str) -> bool,
    evaluate: &mut EvaluateOr<'_>,
) -> Result<Vec<Change>, EvaluateError> {
    let mut moved: BTreeSet<String> = BTreeSet::new();
    let mut changes = Vec::new();
    let order = template.order().map_err(|path| EvaluateError {
        message: format!("circular dependency: {}", path.join(" → ")),
    })?;
    for logical in order.iter().filter(|l| present(l)) {
        let resource = &template.resources[logical];
        let change = match before.get(logical) {
            Some(old) if old.kind == resource.kind => {
                let after = evaluate(logical, resource, &moved)?;
                modify(logical, old, resource, &after)
            }
            // A changed type cannot be updated; CloudFormation refuses it. It is shown as what it would take.
            Some(old) => Some(Change {
                logical: logical.clone(),
                kind: resource.kind.clone(),
                physical: old.physical.clone(),
                action: Action::Modify,
                replacement: Replacement::Always,
                policy: Some(replace_policy(resource.update_replace_policy)),
                properties: vec![PropertyChange {
                    path: "Type".into(),
                    before: Some(old.kind.clone()),
                    after: Some(resource.kind.clone()),
                    after_unknown: false,
                    replaces: Replacement::Always,
                }],
            }),
            None => {
                moved.insert(logical.clone());
                let after = match evaluate(logical, resource, &moved)? {
                    Evaluated::To(after) | Evaluated::FromTo(_, after) => after,
                    Evaluated::Same => Value::Null,
                };
                Some(add(logical, resource, &after))
            }
        };
        if let Some(change) = change {
            if change.replacement != Replacement::Never {
                moved.insert(logical.clone());
            }
            changes.push(change);
        }
    }
    for (logical, old) in before {
        if !(template.resources.contains_key(logical) && present(logical)) {
            let physical = old.physical.clone();
            changes.push(remove(logical, &old.kind, physical, old.deletion_policy));
        }
    }
    Ok(changes)
}

/// Returns what the deletion of a whole stack does to the resources that its template names.
///
/// Conditions are not evaluated: what may be there counts as there, so that nothing goes unnamed.
pub fn removal(template: &Template) -> Vec<Change> {
    template
        .resources
        .iter()
        .map(|(logical, r)| remove(logical, &r.kind, None, r.deletion_policy))
        .collect()
}

fn remove(logical: &str, kind: &str, physical: Option<String>, policy: DeletionPolicy) -> Change {
    let policy = match policy {
        DeletionPolicy::Delete => PolicyAction::Delete,
        DeletionPolicy::Retain | DeletionPolicy::RetainExceptOnCreate => PolicyAction::Retain,
        DeletionPolicy::Snapshot => PolicyAction::Snapshot,
    };
    Change {
        logical: logical.to_owned(),
        kind: kind.to_owned(),
        physical,
        action: Action::Remove,
        replacement: Replacement::Never,
        policy: Some(policy),
        properties: Vec::new(),
    }
}

fn replace_policy(policy: DeletionPolicy) -> PolicyAction {
    match policy {
        DeletionPolicy::Delete => PolicyAction::ReplaceAndDelete,
        DeletionPolicy::Retain | DeletionPolicy::RetainExceptOnCreate => {
            PolicyAction::ReplaceAndRetain
        }
        DeletionPolicy::Snapshot => PolicyAction::ReplaceAndSnapshot,
    }
}

fn add(logical: &str, resource: &Resource, after: &Value) -> Change {
    let mut properties = Vec::new();
    for (name, value) in after.as_object().into_iter().flatten() {
        properties.push(property(
            name.clone(),
            None,
            Some(value),
            Replacement::Never,
        ));
    }
    Change {
        logical: logical.into(),
        kind: resource.kind.clone(),
        physical: None,
        action: Action::Add,
        replacement: Replacement::Never,
        policy: None,
        properties,
    }
}

fn modify(
    logical: &str,
    old: &ResourceState,
    resource: &Resource,
    evaluated: &Evaluated,
) -> Option<Change> {
    let mut properties = Vec::new();
    let pair = match evaluated {
        Evaluated::Same => None,
        Evaluated::To(after) => Some((&old.properties, after)),
        Evaluated::FromTo(before, after) => Some((before, after)),
    };
    if let Some((before, after)) = pair {
        let facts = resource_type(&resource.kind);
        let out = &mut properties;
        walk(&mut Walk { facts, out }, "", "", Some(before), Some(after));
    }
    attributes(old, resource, &mut properties);
    if properties.is_empty() {
        return None;
    }
    let replacement = properties
        .iter()
        .map(|p| p.replaces)
        .max()
        .unwrap_or(Replacement::Never);
    Some(Change {
        logical: logical.into(),
        kind: resource.kind.clone(),
        physical: old.physical.clone(),
        action: Action::Modify,
        replacement,
        policy: (replacement != Replacement::Never)
            .then(|| replace_policy(resource.update_replace_policy)),
        properties,
    })
}

/// What stands beside the properties is a change too, without touching the resource: API `ResourceChange.Scope`,
/// aws-cloudformation/cloudformation-coverage-roadmap #1543.
fn attributes(old: &ResourceState, new: &Resource, out: &mut Vec<PropertyChange>) {
    if old.deletion_policy == new.deletion_policy
        && old.update_replace_policy == new.update_replace_policy
        && old.metadata == new.metadata
    {
        return;
    }
    let word = |policy: DeletionPolicy| Value::String(format!("{policy:?}"));
    let pairs = [
        (
            "DeletionPolicy",
            word(old.deletion_policy),
            word(new.deletion_policy),
        ),
        (
            "UpdateReplacePolicy",
            word(old.update_replace_policy),
            word(new.update_replace_policy),
        ),
        ("Metadata", old.metadata.clone(), new.metadata.clone()),
    ];
    for (name, before, after) in pairs {
        if before != after {
            let shown = |v: &Value| (!v.is_null()).then(|| v.clone());
            out.push(property(
                name.to_owned(),
                shown(&before).as_ref(),
                shown(&after).as_ref(),
                Replacement::Never,
            ));
        }
    }
}

/// Tells whether a change from known to known values replaces a resource of this type.
pub fn replacement_of(kind: &str, before: &Value, after: &Value) -> Replacement {
    let mut properties = Vec::new();
    walk(
        &mut Walk {
            facts: resource_type(kind),
            out: &mut properties,
        },
        "",
        "",
        Some(before),
        Some(after),
    );
    properties
        .iter()
        .map(|p| p.replaces)
        .max()
        .unwrap_or(Replacement::Never)
}

struct Walk<'a> {
    facts: Option<ResourceType>,
    out: &'a mut Vec<PropertyChange>,
}

/// Collects the leaves that differ. `shown` is the path for people, `schema` the path in the schema.
fn walk(
    into: &mut Walk<'_>,
    shown: &str,
    schema: &str,
    before: Option<&Value>,
    after: Option<&Value>,
) {
    let join = |a: &str, sep: &str, b: &str| {
        if a.is_empty() {
            b.to_owned()
        } else {
            format!("{a}{sep}{b}")
        }
    };
    match (before, after) {
        (Some(b), Some(a)) if same(b, a) => {}
        (Some(Value::Object(b)), Some(after @ Value::Object(a))) if is_unknown(after).is_none() => {
            let keys: BTreeSet<&String> = b.keys().chain(a.keys()).collect();
            for key in keys {
                walk(
                    into,
                    &join(shown, ".", key),
                    &join(schema, "/", key),
                    b.get(key),
                    a.get(key),
                );
            }
        }
        (Some(Value::Array(b)), Some(Value::Array(a))) => {
            for index in 0..b.len().max(a.len()) {
                walk(
                    into,
                    &format!("{shown}[{index}]"),
                    &join(schema, "/", "*"),
                    b.get(index),
                    a.get(index),
                );
            }
        }
        (before, after) => {
            let mut replaces = match into
                .facts
                .map_or(Mutability::Mutable, |f| f.mutability(schema))
            {
                Mutability::Mutable => Replacement::Never,
                Mutability::Conditional => Replacement::Conditional,
                Mutability::CreateOnly => Replacement::Always,
            };
            if after.is_some_and(|a| is_unknown(a).is_some()) && replaces == Replacement::Always {
                // The value may turn out to be the same.
                replaces = Replacement::Conditional;
            }
            into.out
                .push(property(shown.to_owned(), before, after, replaces));
        }
    }
}

fn property(
    path: String,
    before: Option<&Value>,
    after: Option<&Value>,
    replaces: Replacement,
) -> PropertyChange {
    let after_unknown = after.is_some_and(contains_unknown);
    PropertyChange {
        path,
        before: before.map(shown),
        after: after.map(shown),
        after_unknown,
        replaces,
    }
}

fn contains_unknown(value: &Value) -> bool {
    is_unknown(value).is_some()
        || match value {
            Value::Array(items) => items.iter().any(contains_unknown),
            Value::Object(map) => map.values().any(contains_unknown),
            _ => false,
        }
}

/// Compares as CloudFormation does: scalars by their text, so `80` and `"80"` are equal.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same(a, b))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, a)| y.get(k).is_some_and(|b| same(a, b)))
        }
        (Value::Array(_) | Value::Object(_), _) | (_, Value::Array(_) | Value::Object(_)) => false,
        (Value::String(x), Value::String(y)) => x == y,
        _ => scalar(a) == scalar(b),
    }
}

fn scalar(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn shown(value: &Value) -> String {
    let text = match is_unknown(value) {
        Some(what) => format!("(known after apply: {what})"),
        None => match value {
            Value::String(text) => serde_json::to_string(text).unwrap_or_default(),
            other => plain(other).to_string(),
        },
    };
    if text.chars().count() > SHOWN {
        format!("{}…", text.chars().take(SHOWN).collect::<String>())
    } else {
        text
    }
}

fn plain(value: &Value) -> Value {
    match (is_unknown(value), value) {
        (Some(what), _) => Value::String(format!("(known after apply: {what})")),
        (_, Value::Array(items)) => Value::Array(items.iter().map(plain).collect()),
        (_, Value::Object(map)) => {
            Value::Object(map.iter().map(|(k, v)| (k.clone(), plain(v))).collect())
        }
        _ => value.clone(),
    }
}
