//! What a change set does not show: the inside of nested stacks.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Action, Change, PolicyAction, Replacement, replacement_of};
use crate::domain::cfn::{
    NestedTemplates, Parameter, Resource, Template, has_unpinned, nested_name, parse_template,
    references, stateful,
};

const NESTED: &str = "AWS::CloudFormation::Stack";
/// A nested stack once the transform has run, of a template that lies elsewhere.
const APPLICATION: &str = "AWS::Serverless::Application";

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
    let mut touches: BTreeSet<String> = changes.iter().map(|c| c.logical.clone()).collect();
    let mut turns = false;
    if let (Some(old), Some(new)) = (&old, &new) {
        touches.extend(unsteady(old, new, false));
        turns = old.mappings != new.mappings
            || old.conditions != new.conditions
            || any_refers(new.conditions.values(), &touches);
    }
    let given = turns
        || changes.iter().any(replaces)
        || before.map(|w| w.parameters) != after.map(|w| w.parameters);
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
            let given = given || is.is_some_and(|is| is_given_by(is, &touches));
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
        if is_hidden(&old, given) || new.as_ref().is_some_and(|new| is_hidden(new, given)) {
            return None;
        }
        let effect = new
            .as_ref()
            .map(|new| effect(&old, new, given, self.new.unwrap_or(self.old)));
        let mut lost = BTreeSet::new();
        for (logical, resource) in &old.resources {
            let moves = effect.as_ref().is_none_or(|e| e.moved.contains(logical));
            if resource.kind == APPLICATION {
                return None;
            }
            if resource.kind == NESTED {
                // What may go or be made anew takes everything in it along.
                let next = new.as_ref().and_then(|t| t.resources.get(logical));
                let next = next.filter(|_| !moves);
                let refers = next.zip(effect.as_ref()).is_none_or(|(next, effect)| {
                    is_given_by(next, &effect.moved) || refers_to(next, &effect.changed)
                });
                lost.extend(self.lost(resource, next, refers)?);
            } else if moves && stateful(&resource.kind).is_some() {
                lost.insert(format!("{logical} ({})", resource.kind));
            }
        }
        Some(lost)
    }
}

/// Tells whether what a template makes depends on values that nobody here knows: loops are read with the defaults of the
/// parameters, and what other transforms make of what they are given is theirs.
fn is_hidden(template: &Template, given: bool) -> bool {
    let asks = template.parameters.values().any(Parameter::is_asked_for);
    (given && !template.transforms.is_empty()) || (template.is_extended() && asks)
}

/// Returns the parameters whose values may be others than they were.
///
/// What is asked of Systems Manager may always be: every update of a stack asks again.
/// <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-supplied-parameter-types.html>
fn unsteady(old: &Template, new: &Template, given: bool) -> BTreeSet<String> {
    let all = old.parameters.iter();
    let differs =
        all.filter(|(name, p)| given || p.is_asked_for() || new.parameters.get(*name) != Some(p));
    differs.map(|(name, _)| name.clone()).collect()
}

/// Tells whether one of some values refers to one of these.
fn any_refers<'v>(values: impl Iterator<Item = &'v Value>, names: &BTreeSet<String>) -> bool {
    let mut refers = false;
    for value in values {
        references(value, &mut |name, _| refers |= names.contains(name));
    }
    refers
}

/// Tells whether the properties of a resource refer to one of these.
fn refers_to(resource: &Resource, names: &BTreeSet<String>) -> bool {
    any_refers(std::iter::once(&resource.properties), names)
}

/// Tells whether a resource may be given other values although it is written as it was.
fn is_given_by(resource: &Resource, names: &BTreeSet<String>) -> bool {
    refers_to(resource, names) || has_unpinned(&resource.properties)
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

/// Tells whether what a nested stack gives back may be another value although it is given the same.
fn asks_again(resource: &Resource, nested: &NestedTemplates) -> bool {
    let below = |template: Template| {
        template.parameters.values().any(Parameter::is_asked_for)
            || template
                .resources
                .values()
                .any(|r| has_unpinned(&r.properties) || asks_again(r, nested))
    };
    match resource.kind.as_str() {
        NESTED => child(resource, nested).is_none_or(below),
        APPLICATION => true,
        _ => false,
    }
}

/// What a nested stack is given beside its template.
fn given_of(resource: &Resource) -> Value {
    let mut properties = resource.properties.clone();
    if let Some(properties) = properties.as_object_mut() {
        properties.remove("TemplateURL");
    }
    properties
}

/// What of a template is not what it was, for whoever refers to it.
struct Effect {
    /// Parameters, and resources that come, go or are replaced.
    moved: BTreeSet<String>,
    /// What may be changed in place: it keeps its name, and its attributes may be others.
    changed: BTreeSet<String>,
}

fn effect(old: &Template, new: &Template, given: bool, nested: &NestedTemplates) -> Effect {
    let everything = || Effect {
        moved: old.resources.keys().cloned().collect(),
        changed: new.resources.keys().cloned().collect(),
    };
    if old.conditions != new.conditions
        || old.mappings != new.mappings
        || old.transforms != new.transforms
    {
        return everything();
    }
    let mut moved = unsteady(old, new, given);
    // A condition that may turn out otherwise makes, takes away or replaces whatever it stands on.
    if any_refers(old.conditions.values(), &moved) {
        return everything();
    }
    let gone = old.resources.keys();
    moved.extend(gone.filter(|l| !new.resources.contains_key(*l)).cloned());
    let mut changed = changed(old, new);
    let others = new.resources.iter().filter(|(_, r)| asks_again(r, nested));
    changed.extend(others.map(|(logical, _)| logical.clone()));
    loop {
        let before = moved.len() + changed.len();
        for (logical, is) in &new.resources {
            if is_given_by(is, &moved) || refers_to(is, &changed) {
                changed.insert(logical.clone());
            }
            let was = old.resources.get(logical);
            if was.is_none_or(|was| is_replaced(was, is, &moved, &changed)) {
                moved.insert(logical.clone());
            }
        }
        if moved.len() + changed.len() == before {
            return Effect { moved, changed };
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
        // What lies elsewhere is read again, and may be another value there.
        let mut refers = has_unpinned(value);
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

    fn told(
        changes: &[Change],
        before: &(String, NestedTemplates),
        after: &(String, NestedTemplates),
        given: &str,
    ) -> Vec<String> {
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
    }

    #[test]
    fn what_a_nested_stack_holds_is_not_lost_unseen() {
        let table = |name: &str| {
            format!(
                "Parameters: {{ Name: {{ Type: String }} }}\nResources: {{ Db: {{ Type: AWS::DynamoDB::Table, Properties: {{ TableName: {name}, TimeToLiveSpecification: {{ Enabled: true, AttributeName: a }} }} }} }}\n"
            )
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

    /// The parent of a stack with these parameters, itself with these declarations.
    fn parent(declared: &str, given: &str) -> String {
        PARENT
            .replace(
                "Resources:",
                &format!("Parameters: {{ {declared} }}\nResources:"),
            )
            .replace(
                "child.yaml",
                &format!("child.yaml, Parameters: {{ {given} }}"),
            )
    }

    const LATEST: &str =
        "Ami: { Type: 'AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>', Default: /ami }";

    #[test]
    fn what_systems_manager_gives_may_be_another_value_at_every_update() {
        let child = |ami: &str, image: &str, topic: &str| {
            format!(
                "Parameters: {{ {ami} }}\nResources:\n  Web: {{ Type: AWS::EC2::Instance, Properties: {{ ImageId: {image} }} }}\n  Topic: {{ Type: AWS::SNS::Topic, Properties: {{ DisplayName: {topic} }} }}\n"
            )
        };
        let text = "Ami: { Type: String, Default: ami-1 }";
        let owned = parent(LATEST, "Ami: !Ref Ami");
        let chosen = owned
            .replace(
                "Resources:",
                "Conditions: { Old: !Equals [!Ref Ami, ami-1] }\nResources:",
            )
            .replace("Ami: !Ref Ami", "Ami: !If [Old, ami-2, ami-3]");
        let resolved = parent(LATEST, "Ami: '{{resolve:ssm:/ami}}'");
        let modify = [change(Action::Modify)];
        for (parent, declared, image, lost, why) in [
            (PARENT, text, "!Ref Ami", 0, "a text stays as it is"),
            (PARENT, LATEST, "!Ref Ami", 1, "the child asks for it"),
            (PARENT, LATEST, "ami-1", 0, "nothing here refers to it"),
            (&owned, text, "!Ref Ami", 1, "the parent asks for it"),
            (&owned, text, "ami-1", 0, "what is given does not reach it"),
            (&chosen, text, "!Ref Ami", 1, "a condition may turn"),
            (
                &resolved,
                text,
                "!Ref Ami",
                1,
                "the parent gives what lies elsewhere",
            ),
            (
                PARENT,
                text,
                "'{{resolve:ssm:/ami}}'",
                1,
                "its property lies elsewhere",
            ),
            (
                PARENT,
                text,
                "'{{resolve:ssm:/ami:7}}'",
                0,
                "a version stays as it is",
            ),
        ] {
            let before = named(parent, &child(declared, image, "one"));
            let after = named(parent, &child(declared, image, "two"));

            let found = told(&modify, &before, &after, "one");

            assert_eq!(found.len(), lost, "{why}: {found:?}");
            let names = |l: &String| l.contains("Web (AWS::EC2::Instance)");
            assert!(found.iter().all(names), "{why}: {found:?}");
        }
    }

    #[test]
    fn what_the_parent_declares_otherwise_may_be_given_otherwise() {
        let child = "Parameters: { Name: { Type: String } }\nResources: { Db: { Type: AWS::DynamoDB::Table, Properties: { TableName: !Ref Name } } }\n";
        let parameter = |default: &str| {
            let declared = format!("Name: {{ Type: String, Default: {default} }}");
            parent(&declared, "Name: !Ref Name")
        };
        let condition = |side: &str| {
            parent("Other: { Type: String }", "Name: !If [C, a, b]").replace(
                "Resources:",
                &format!("Conditions: {{ C: !Equals [!Ref Other, {side}] }}\nResources:"),
            )
        };
        let mapping = |value: &str| {
            parent("Other: { Type: String }", "Name: !FindInMap [M, k, v]").replace(
                "Resources:",
                &format!("Mappings: {{ M: {{ k: {{ v: {value} }} }} }}\nResources:"),
            )
        };
        for parent in [&parameter as &dyn Fn(&str) -> String, &condition, &mapping] {
            let (before, after) = (named(&parent("a"), child), named(&parent("b"), child));
            let modify = [change(Action::Modify)];

            assert_eq!(told(&modify, &before, &before, "one").len(), 0);
            assert_eq!(told(&modify, &before, &after, "one").len(), 1);
        }
    }

    #[test]
    fn what_a_loop_makes_is_told_only_where_its_list_is_known() {
        let child = |kind: &str, note: &str| {
            format!(
                "Transform: AWS::LanguageExtensions\nDescription: {note}\nParameters: {{ Names: {{ Type: '{kind}', Default: a }} }}\nResources:\n  Fn::ForEach::Tables:\n    - N\n    - !Ref Names\n    - T${{N}}: {{ Type: AWS::DynamoDB::Table, Properties: {{ BillingMode: PAY_PER_REQUEST }} }}\n"
            )
        };
        let list = |names: &str| parent("Q: { Type: String }", &format!("Names: '{names}'"));
        let (plain, asked) = (
            "CommaDelimitedList",
            "AWS::SSM::Parameter::Value<CommaDelimitedList>",
        );
        let modify = [change(Action::Modify)];
        for (kind, names, lost, why) in [
            (plain, "a,b,c", 0, "nothing else is given"),
            (plain, "a,b", 1, "one table less"),
            (asked, "a,b,c", 1, "its list lies elsewhere"),
        ] {
            let before = named(&list("a,b,c"), &child(kind, "one"));
            let after = named(&list(names), &child(kind, "two"));

            let found = told(&modify, &before, &after, "one");

            assert_eq!(found.len(), lost, "{why}: {found:?}");
            assert!(
                found.iter().all(|l| l.contains("is not shown")),
                "{found:?}"
            );
        }
    }

    #[test]
    fn what_a_transform_makes_of_serverless_resources_counts() {
        let sam = |resources: &str| {
            let text = format!(
                "Transform: AWS::Serverless-2016-10-31\nResources:\n  H: {{ Type: AWS::CloudFormation::WaitConditionHandle }}\n{resources}"
            );
            named(PARENT, &text)
        };
        let nothing = sam("");
        let table = sam("  Db: { Type: AWS::Serverless::SimpleTable }\n");
        let application = sam(
            "  App: { Type: AWS::Serverless::Application, Properties: { Location: 'https://s3.amazonaws.com/b/k' } }\n",
        );
        let modify = [change(Action::Modify)];

        let removed = told(&modify, &table, &nothing, "one");
        let kept = told(&modify, &table, &table, "one");
        let below = told(&modify, &application, &application, "one");

        assert_eq!(removed.len(), 1);
        assert!(removed[0].contains("Db (AWS::Serverless::SimpleTable)"));
        assert!(kept.is_empty(), "{kept:?}");
        assert_eq!(below.len(), 1, "nobody here knows what it holds");
    }

    #[test]
    fn what_lies_two_levels_below_is_lost_with_what_is_between() {
        let middle = |head: &str, condition: &str, name: &str| {
            format!(
                "Parameters: {{ Env: {{ Type: String, Default: a }} }}\n{head}Resources:\n  B: {{ Type: AWS::CloudFormation::Stack, {condition}Properties: {{ TemplateURL: leaf.yaml, Parameters: {{ Name: {name} }} }} }}\n"
            )
        };
        let leaf = "Parameters: { Name: { Type: String } }\nResources: { Db: { Type: AWS::DynamoDB::Table, Properties: { TableName: !Ref Name } } }\n";
        let named = |middle: &str| {
            let file =
                |path: &str| Some(Arc::from(if path == "leaf.yaml" { leaf } else { middle }));
            let named = name_nested("p.yaml", PARENT, &file).unwrap().unwrap();
            (named.text, named.nested)
        };
        let head = |side: &str| format!("Conditions: {{ C: !Equals [!Ref Env, {side}] }}\n");
        let chosen = |side: &str| named(&middle(&head(side), "", "!If [C, x, y]"));
        let made = |side: &str| named(&middle(&head(side), "Condition: C, ", "x"));
        let modify = [change(Action::Modify)];

        for (before, same, after) in [
            (chosen("a"), chosen("a"), chosen("b")),
            (made("a"), made("a"), made("b")),
        ] {
            assert!(told(&modify, &before, &same, "one").is_empty());
            assert_eq!(told(&modify, &before, &after, "one").len(), 1);
        }
    }

    #[test]
    fn what_a_nested_stack_gives_back_may_be_another_value() {
        let image = |asked: &str, topic: &str| {
            let middle = format!(
                "Resources:\n  B: {{ Type: AWS::CloudFormation::Stack, Properties: {{ TemplateURL: leaf.yaml }} }}\n  Web: {{ Type: AWS::EC2::Instance, Properties: {{ ImageId: !GetAtt B.Outputs.Ami }} }}\n  Topic: {{ Type: AWS::SNS::Topic, Properties: {{ DisplayName: {topic} }} }}\n"
            );
            let leaf = format!(
                "Parameters: {{ {asked} }}\nResources: {{ H: {{ Type: AWS::CloudFormation::WaitConditionHandle }} }}\nOutputs: {{ Ami: {{ Value: !Ref Ami }} }}\n"
            );
            let file = |path: &str| {
                let text: &str = if path == "leaf.yaml" { &leaf } else { &middle };
                Some(Arc::from(text))
            };
            let named = name_nested("p.yaml", PARENT, &file).unwrap().unwrap();
            (named.text, named.nested)
        };
        let modify = [change(Action::Modify)];
        let text = "Ami: { Type: String, Default: ami-1 }";
        for (declared, lost) in [(LATEST, 1), (text, 0)] {
            let (before, after) = (image(declared, "one"), image(declared, "two"));

            assert_eq!(told(&modify, &before, &after, "one").len(), lost);
        }
    }
}
