//! What a change set does not show: the inside of nested stacks.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Action, Change, PolicyAction, Replacement, replacement_of};
use crate::domain::cfn::{
    NestedTemplates, Resource, Template, nested_name, parse_template, references, stateful,
};

const NESTED: &str = "AWS::CloudFormation::Stack";

/// A template with those below it, and what it was given.
pub struct Whole<'a> {
    /// Its text, in which nested templates stand by their names.
    pub text: &'a str,
    /// Its parameters.
    pub parameters: &'a BTreeMap<String, String>,
    /// The templates below it.
    pub nested: &'a NestedTemplates,
}

/// Says which nested stacks may lose state without the change set showing it.
///
/// A change set says of a nested stack that it changes, and nothing of what is in it; and it often says so where nothing
/// does. So the templates are compared: a resource that holds state counts where it leaves, or may be replaced by what its
/// properties say or refer to. Where that cannot be told, a person has to look.
pub fn hidden_losses(
    changes: &[Change],
    before: Option<&Whole<'_>>,
    after: Option<&Whole<'_>>,
) -> Vec<String> {
    let touched = |c: &&Change| {
        c.is_nested()
            && matches!(c.action, Action::Modify | Action::Remove | Action::Dynamic)
            && !(c.action == Action::Remove && c.policy == Some(PolicyAction::Retain))
    };
    let touched: Vec<&Change> = changes.iter().filter(touched).collect();
    if touched.is_empty() {
        return Vec::new();
    }
    let read = |whole: Option<&Whole<'_>>| whole.and_then(|w| parse_template("", w.text).ok());
    let (old, new) = (read(before), read(after));
    let replaces = |c: &Change| c.replacement != Replacement::Never || c.action == Action::Dynamic;
    let given =
        changes.iter().any(replaces) || before.map(|w| w.parameters) != after.map(|w| w.parameters);
    let touches: BTreeSet<String> = changes.iter().map(|c| c.logical.clone()).collect();
    let mut out = Vec::new();
    for change in touched {
        let logical = &change.logical;
        let was = old.as_ref().and_then(|t| t.resources.get(logical));
        let is = new.as_ref().and_then(|t| t.resources.get(logical));
        let is = is.filter(|_| change.action == Action::Modify && !replaces(change));
        let held = was.zip(before).and_then(|(was, whole)| {
            let below = Below {
                old: whole.nested,
                new: after.map(|w| w.nested),
            };
            // What is changed in place may give another value to whoever asks for its attributes.
            let given = given || is.is_some_and(|is| refers_to(is, &touches));
            below.lost(was, is, given)
        });
        match held {
            None => out.push(format!(
                "{logical} is a nested stack, and what changes inside it is not shown"
            )),
            Some(held) if held.is_empty() => {}
            Some(held) => {
                let held: Vec<String> = held.into_iter().collect();
                out.push(format!(
                    "{logical} is a nested stack, and a change set does not show what becomes of {} in it",
                    held.join(", ")
                ));
            }
        }
    }
    out
}

/// Templates below the old parent and below the new one.
struct Below<'a> {
    old: &'a NestedTemplates,
    new: Option<&'a NestedTemplates>,
}

impl Below<'_> {
    /// Returns what holds state in a nested stack and may lose it; absent where that cannot be told.
    ///
    /// `given` tells that what it is given may be otherwise although it is written as it was.
    fn lost(&self, was: &Resource, is: Option<&Resource>, given: bool) -> Option<BTreeSet<String>> {
        let old = child(was, self.old)?;
        let new = match (is, self.new) {
            (Some(is), Some(nested)) => Some(child(is, nested)?),
            _ => None,
        };
        let given = given || is.is_none_or(|is| given_of(was) != given_of(is));
        let moved = new.as_ref().map(|new| moved(&old, new, given));
        let mut lost = BTreeSet::new();
        for (logical, resource) in &old.resources {
            let moves = moved.as_ref().is_none_or(|m| m.contains(logical));
            if resource.kind == NESTED {
                let next = new.as_ref().and_then(|t| t.resources.get(logical));
                let refers = next.zip(moved.as_ref());
                let refers = refers.is_none_or(|(next, moved)| {
                    refers_to(next, moved)
                        || new
                            .as_ref()
                            .is_none_or(|new| refers_to(next, &changed(&old, new)))
                });
                lost.extend(self.lost(resource, next, refers)?);
            } else if moves && stateful(&resource.kind).is_some() {
                lost.insert(format!("{logical} ({})", resource.kind));
            }
        }
        Some(lost)
    }
}

/// Tells whether the properties of a resource refer to one of these.
fn refers_to(resource: &Resource, names: &BTreeSet<String>) -> bool {
    let mut refers = false;
    references(&resource.properties, &mut |name, _| {
        refers |= names.contains(name);
    });
    refers
}

/// Returns the resources that are not written as they were: what they give back may be another value.
fn changed(old: &Template, new: &Template) -> BTreeSet<String> {
    let resources = new.resources.iter();
    let differs = resources.filter(|(l, r)| old.resources.get(*l) != Some(r));
    differs.map(|(l, _)| l.clone()).collect()
}

/// Reads the template of a nested stack.
fn child(resource: &Resource, nested: &NestedTemplates) -> Option<Template> {
    let url = resource.properties.get("TemplateURL")?.as_str()?;
    let text = nested.get(nested_name(url)?)?;
    parse_template("", text).ok()
}

/// What a nested stack is given beside its template.
fn given_of(resource: &Resource) -> Value {
    let mut properties = resource.properties.clone();
    if let Some(properties) = properties.as_object_mut() {
        properties.remove("TemplateURL");
    }
    properties
}

/// Returns what of a template is not what it was, for whoever refers to it: parameters, and resources that come, go or are
/// replaced. What is changed in place keeps its name.
fn moved(old: &Template, new: &Template, given: bool) -> BTreeSet<String> {
    let everything = old.conditions != new.conditions
        || old.mappings != new.mappings
        || old.transforms != new.transforms;
    if everything {
        return old.resources.keys().cloned().collect();
    }
    let parameters = old.parameters.iter();
    let names = parameters.filter(|(name, p)| given || new.parameters.get(*name) != Some(p));
    let mut moved: BTreeSet<String> = names.map(|(name, _)| name.clone()).collect();
    // A condition that may turn out otherwise makes, takes away or replaces whatever it stands on.
    let mut turns = false;
    for condition in old.conditions.values() {
        references(condition, &mut |name, _| turns |= moved.contains(name));
    }
    if turns {
        return old.resources.keys().cloned().collect();
    }
    let gone = old.resources.keys();
    moved.extend(gone.filter(|l| !new.resources.contains_key(*l)).cloned());
    let mut changed = changed(old, new);
    loop {
        let before = moved.len() + changed.len();
        for (logical, is) in &new.resources {
            if refers_to(is, &moved) || refers_to(is, &changed) {
                changed.insert(logical.clone());
            }
            let was = old.resources.get(logical);
            if was.is_none_or(|was| is_replaced(was, is, &moved, &changed)) {
                moved.insert(logical.clone());
            }
        }
        if moved.len() + changed.len() == before {
            return moved;
        }
    }
}

/// Tells whether a resource may be another one afterwards, by its own properties and by what they refer to.
fn is_replaced(
    was: &Resource,
    is: &Resource,
    moved: &BTreeSet<String>,
    changed: &BTreeSet<String>,
) -> bool {
    if was.kind != is.kind || was.condition != is.condition {
        return true;
    }
    let mut properties = is.properties.clone();
    for value in properties
        .as_object_mut()
        .into_iter()
        .flat_map(|o| o.values_mut())
    {
        let mut refers = false;
        references(value, &mut |name, attribute| {
            refers |= moved.contains(name) || (attribute && changed.contains(name));
        });
        if refers {
            *value = json!({ "moved": value.take() });
        }
    }
    replacement_of(&is.kind, &was.properties, &properties) != Replacement::Never
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::cfn::name_nested;

    const PARENT: &str = "Resources:\n  A: { Type: AWS::CloudFormation::Stack, Properties: { TemplateURL: child.yaml } }\n";

    fn named(parent: &str, child: &str) -> (String, NestedTemplates) {
        let file = |_: &str| Some(Arc::from(child));
        let named = name_nested("p.yaml", parent, &file).unwrap().unwrap();
        (named.text, named.nested)
    }

    fn change(action: Action) -> Change {
        Change {
            logical: "A".into(),
            kind: NESTED.into(),
            physical: None,
            action,
            replacement: Replacement::Never,
            policy: None,
            properties: vec![],
        }
    }

    #[test]
    fn what_a_nested_stack_holds_is_not_lost_unseen() {
        let table = |name: &str| {
            format!(
                "Parameters: {{ Name: {{ Type: String }} }}\nResources: {{ Db: {{ Type: AWS::DynamoDB::Table, Properties: {{ TableName: {name}, TimeToLiveSpecification: {{ Enabled: true, AttributeName: a }} }} }} }}\n"
            )
        };
        let told = |changes: &[Change],
                    before: &(String, NestedTemplates),
                    after: &(String, NestedTemplates),
                    given: &str| {
            let parameters = |value: &str| BTreeMap::from([("P".to_owned(), value.to_owned())]);
            let (old, new) = (parameters("one"), parameters(given));
            let whole = |(text, nested), parameters| Whole {
                text,
                parameters,
                nested,
            };
            let before = whole((before.0.as_str(), &before.1), &old);
            let after = whole((after.0.as_str(), &after.1), &new);
            hidden_losses(changes, Some(&before), Some(&after))
        };
        let empty = named(
            PARENT,
            "Resources: { H: { Type: AWS::CloudFormation::WaitConditionHandle } }\n",
        );
        let (plain, renamed) = (named(PARENT, &table("a")), named(PARENT, &table("b")));
        let in_place = named(
            PARENT,
            &table("a").replace("Enabled: true", "Enabled: false"),
        );
        let by_name = named(PARENT, &table("!Ref Name"));
        let modify = [change(Action::Modify)];
        for (before, after, given, lost, why) in [
            (&plain, &empty, "one", 1, "it leaves"),
            (&empty, &plain, "one", 0, "there was nothing to lose"),
            (&plain, &plain, "one", 0, "it is always said to change"),
            (&plain, &renamed, "one", 1, "another name replaces it"),
            (&plain, &in_place, "one", 0, "in place"),
            (&plain, &plain, "two", 0, "what is given does not reach it"),
            (
                &by_name,
                &by_name,
                "two",
                1,
                "what is given may be its name",
            ),
        ] {
            let found = told(&modify, before, after, given);
            assert_eq!(found.len(), lost, "{why}: {found:?}");
            assert!(
                found
                    .iter()
                    .all(|l| l.contains("Db (AWS::DynamoDB::Table)")),
                "{found:?}"
            );
        }
        assert_eq!(
            told(&[change(Action::Remove)], &plain, &plain, "one").len(),
            1
        );
        // What it is given may come from what is replaced.
        let mut other = change(Action::Modify);
        other.logical = "Net".into();
        other.kind = "AWS::EC2::VPC".into();
        other.replacement = Replacement::Always;
        let both = [change(Action::Modify), other];
        assert_eq!(told(&both, &by_name, &by_name, "one").len(), 1);
        // Somewhere else: nobody here knows what it holds.
        let far = PARENT.replace("child.yaml", "https://s3.amazonaws.com/b/k");
        let far = (far, NestedTemplates::new());
        assert_eq!(told(&modify, &far, &far, "one").len(), 1);
        assert_eq!(hidden_losses(&modify, None, None).len(), 1);
        assert!(told(&[change(Action::Add)], &far, &far, "one").is_empty());
    }
}
