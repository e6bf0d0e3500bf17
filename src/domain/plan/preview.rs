//! What a change would do, from two templates alone: no engine is asked and nothing is written.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::compare::{Evaluated, compare_or};
use super::{Action, Change, Replacement, ResourceState};
use crate::domain::cfn::{
    EvaluateError, Pseudo, Resolver, Resource, Scope, Template, bind_parameters, evaluate,
    parse_template_with, references, resource_type, unknown,
};
use crate::domain::model::KeyedHasher;

/// What is deployed: the template that was sent, and its parameters.
pub struct Deployed<'a> {
    /// The original template.
    pub template: &'a str,
    /// Parameters as they were given; secret ones as they were recorded.
    pub parameters: &'a BTreeMap<String, String>,
}

/// A preview, with every fault that keeps it from being exact.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Preview {
    /// What would change.
    pub changes: Vec<Change>,
    /// Outputs that will have another value: the new one, or nothing where it is known after the change only.
    pub outputs: BTreeMap<String, Option<String>>,
    /// Why a part could not be evaluated.
    pub problems: Vec<String>,
}

/// Names resources by their logical ids: `${Logical.Attribute}` where they stay, unknown where they are new.
struct Symbolic<'a> {
    template: &'a Template,
    moved: RefCell<BTreeSet<String>>,
}

impl Resolver for Symbolic<'_> {
    fn resource(&self, logical: &str, attribute: Option<&str>) -> Result<Value, EvaluateError> {
        let name = attribute.map_or_else(|| logical.to_owned(), |a| format!("{logical}.{a}"));
        if let (Some(resource), Some(attribute)) = (self.template.resources.get(logical), attribute)
            && let Some(facts) = resource_type(&resource.kind)
            && !facts.has_attribute(attribute)
        {
            return Err(EvaluateError {
                message: format!(
                    "`{attribute}` is not an attribute of {logical} ({})",
                    resource.kind
                ),
            });
        }
        Ok(if self.moved.borrow().contains(logical) {
            unknown(&name)
        } else {
            json!(format!("${{{name}}}"))
        })
    }

    fn import(&self, name: &str) -> Result<Value, EvaluateError> {
        Ok(json!(format!("${{import {name}}}")))
    }
}

/// Compares what is deployed with a template that was read already, and the parameters that go with it.
pub fn preview(
    deployed: Option<&Deployed<'_>>,
    after: Read<'_>,
    pseudo: &Pseudo,
    keyed: &KeyedHasher,
) -> Preview {
    let mut unreadable = None;
    let before = deployed.and_then(|deployed| {
        let read = parse_template_with("deployed", deployed.template, deployed.parameters);
        if read.is_err() {
            unreadable = Some("the deployed template cannot be read".to_owned());
        }
        read.ok().map(|template| (template, deployed.parameters))
    });
    let before = before.as_ref().map(|(template, given)| (template, *given));
    let mut compared = preview_read(before, after, pseudo, keyed);
    compared.problems.splice(0..0, unreadable);
    compared
}

/// A template that was read, and the parameters that go with it.
pub type Read<'a> = (&'a Template, &'a BTreeMap<String, String>);

/// Compares what is deployed with what is desired, both read already.
pub fn preview_read(
    before: Option<Read<'_>>,
    (after, given): Read<'_>,
    pseudo: &Pseudo,
    keyed: &KeyedHasher,
) -> Preview {
    let mut out = Preview::default();
    let secret = |value: &str| {
        format!(
            "‹secret {}›",
            keyed.digest("parameter", value.as_bytes()).short(4)
        )
    };
    let old = before.map(|(template, given)| {
        let known = given
            .iter()
            .filter(|(name, _)| template.parameters.contains_key(*name))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let parameters = bound(template, &known, &secret, &mut out.problems);
        Side::new(template, parameters)
    });
    let parameters = bound(after, given, &secret, &mut out.problems);
    let new = Side::new(after, parameters);
    let (scope, old_scope) = (new.scope(pseudo), old.as_ref().map(|o| o.scope(pseudo)));
    let same_words = old.as_ref().is_some_and(|o| o.reads_as(&new));
    let (before, alike) = match (&old, &old_scope) {
        (Some(old), Some(old_scope)) => states(old, old_scope, same_words.then_some(after)),
        _ => Default::default(),
    };
    let present = |logical: &str| {
        after
            .resources
            .get(logical)
            .is_some_and(|r| exists(r, &scope))
    };
    let mut problems = Vec::new();
    let result = compare_or(&before, after, &present, &mut |logical, resource, moved| {
        let earlier = alike.contains(logical);
        if earlier && !refers(&resource.properties, moved) {
            return Ok(Evaluated::Same);
        }
        new.resolver.moved.replace(moved.clone());
        let to = evaluate(&resource.properties, &scope).unwrap_or_else(|error| {
            problems.push(format!("{logical}: {error}"));
            resource.properties.clone()
        });
        Ok(match &old_scope {
            Some(old_scope) if earlier => {
                let from = evaluate(&resource.properties, old_scope);
                Evaluated::FromTo(from.unwrap_or_else(|_| resource.properties.clone()), to)
            }
            _ => Evaluated::To(to),
        })
    });
    out.problems.extend(problems);
    match result {
        Ok(changes) => out.changes = changes,
        Err(error) => out.problems.push(error.to_string()),
    }
    // What is made anew has other names and attributes than what was there.
    let anew = |c: &&Change| c.action == Action::Add || c.replacement != Replacement::Never;
    let made = out.changes.iter().filter(anew).map(|c| c.logical.clone());
    new.resolver.moved.replace(made.collect());
    let before = old_scope.as_ref().map(outputs_of).unwrap_or_default();
    out.outputs = outputs_of(&scope)
        .into_iter()
        .filter(|(name, value)| before.get(name) != Some(value))
        .map(|(name, value)| (name, value.and_then(certain)))
        .collect();
    out
}

/// Returns a value as text where nothing of it is named by a resource: what is, is known to the engine only.
fn certain(value: Value) -> Option<String> {
    let text = value.as_str()?;
    (!text.contains("${")).then(|| text.to_owned())
}

/// Returns what the outputs of a template say, with resources by their names.
fn outputs_of(scope: &Scope<'_>) -> BTreeMap<String, Option<Value>> {
    let outputs = scope.template.outputs.iter();
    outputs
        .map(|(name, output)| (name.clone(), evaluate(&output.value, scope).ok()))
        .collect()
}

/// One of the two templates, with what its expressions see.
struct Side<'a> {
    template: &'a Template,
    parameters: BTreeMap<String, Value>,
    resolver: Symbolic<'a>,
}

impl<'a> Side<'a> {
    fn new(template: &'a Template, parameters: BTreeMap<String, Value>) -> Self {
        let moved = RefCell::new(BTreeSet::new());
        Self {
            template,
            parameters,
            resolver: Symbolic { template, moved },
        }
    }

    fn scope<'s>(&'s self, pseudo: &'s Pseudo) -> Scope<'s> {
        Scope {
            template: self.template,
            parameters: &self.parameters,
            pseudo,
            resolver: &self.resolver,
        }
    }

    /// Tells whether the same words mean the same in both, but for resources that move.
    fn reads_as(&self, other: &Side<'_>) -> bool {
        self.parameters == other.parameters
            && self.template.mappings == other.template.mappings
            && self.template.conditions == other.template.conditions
            && self.template.transforms == other.template.transforms
    }
}

/// Tells whether a value names one of these resources.
fn refers(value: &Value, names: &BTreeSet<String>) -> bool {
    let mut found = false;
    if !names.is_empty() {
        references(value, &mut |name, _| found |= names.contains(name));
    }
    found
}

/// Tells whether two values are written alike, key for key: cheaper than equality, and never true where that is not.
fn written_alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|((k, a), (l, b))| k == l && written_alike(a, b))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| written_alike(a, b))
        }
        _ => a == b,
    }
}

fn bound(
    template: &Template,
    given: &BTreeMap<String, String>,
    secret: &dyn Fn(&str) -> String,
    problems: &mut Vec<String>,
) -> BTreeMap<String, Value> {
    bind_parameters(template, given, secret).unwrap_or_else(|errors| {
        problems.extend(errors.into_iter().map(|e| e.message));
        template
            .parameters
            .keys()
            .map(|name| (name.clone(), unknown(name)))
            .collect()
    })
}

/// Tells whether a resource's condition holds; one that cannot be evaluated counts as true.
fn exists(resource: &Resource, scope: &Scope<'_>) -> bool {
    let Some(condition) = &resource.condition else {
        return true;
    };
    evaluate(&json!({ "Fn::If": [condition, true, false] }), scope)
        .map_or(true, |v| v == Value::Bool(true))
}

/// Returns what is deployed, and which of it the new template asks for in the same words. Of that, properties are not
/// evaluated.
fn states(
    old: &Side<'_>,
    scope: &Scope<'_>,
    after: Option<&Template>,
) -> (BTreeMap<String, ResourceState>, BTreeSet<String>) {
    let (mut states, mut alike) = (BTreeMap::new(), BTreeSet::new());
    for (logical, resource) in &old.template.resources {
        if !exists(resource, scope) {
            continue;
        }
        let new = after.and_then(|after| after.resources.get(logical));
        let properties = if new.is_some_and(|new| {
            new.kind == resource.kind && written_alike(&new.properties, &resource.properties)
        }) {
            alike.insert(logical.clone());
            Value::Null
        } else {
            evaluate(&resource.properties, scope).unwrap_or_else(|_| resource.properties.clone())
        };
        let state = ResourceState::of(resource, None, properties);
        states.insert(logical.clone(), state);
    }
    (states, alike)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn previewed(before: Option<&str>, after: &str) -> Preview {
        previewed_after(before, "old", after)
    }

    /// What changes where the secret was this one; it is `new` now.
    fn previewed_after(before: Option<&str>, secret: &str, after: &str) -> Preview {
        let given = BTreeMap::from([("Secret".to_owned(), "new".to_owned())]);
        let after = parse_template_with("template", after, &given).unwrap();
        let parameters = BTreeMap::from([("Secret".to_owned(), secret.to_owned())]);
        let deployed = before.map(|template| Deployed {
            template,
            parameters: &parameters,
        });
        let pseudo = Pseudo {
            account: "1".into(),
            region: "r".into(),
            stack_name: "s".into(),
            stack_id: None,
            notification_arns: vec![],
        };
        let preview = preview(
            deployed.as_ref(),
            (&after, &given),
            &pseudo,
            &KeyedHasher::new(b"k"),
        );
        assert_eq!(preview.problems, Vec::<String>::new());
        preview
    }

    fn changes(
        before: Option<&str>,
        after: &str,
    ) -> Vec<(String, Action, Replacement, Vec<String>)> {
        changes_after(before, "old", after)
    }

    fn changes_after(
        before: Option<&str>,
        secret: &str,
        after: &str,
    ) -> Vec<(String, Action, Replacement, Vec<String>)> {
        let preview = previewed_after(before, secret, after);
        let shown = |c: &Change| {
            c.properties
                .iter()
                .map(|p| {
                    format!(
                        "{} {} → {}",
                        p.path,
                        p.before.clone().unwrap_or_default(),
                        p.after.clone().unwrap_or_default()
                    )
                })
                .collect()
        };
        preview
            .changes
            .iter()
            .map(|c| (c.logical.clone(), c.action, c.replacement, shown(c)))
            .collect()
    }

    const HEAD: &str =
        "Parameters: {Secret: {Type: String, NoEcho: true, Default: x}}\nResources:\n";

    fn database(name: &str, port: &str) -> String {
        format!(
            "{HEAD}  Db: {{Type: 'AWS::RDS::DBInstance', Properties: {{DBName: {name}, Port: {port}, MasterUserPassword: !Ref Secret}}}}\n  Fn: {{Type: 'AWS::Lambda::Function', Properties: {{Environment: {{Variables: {{HOST: !GetAtt Db.Endpoint.Address}}}}}}}}\n"
        )
    }

    #[test]
    fn a_replacement_reaches_what_refers_to_it() {
        let found = changes(
            Some(&database("orders", "5432")),
            &database("orders2", "'5432'"),
        );
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(
            (found[0].0.as_str(), found[0].2),
            ("Db", Replacement::Always)
        );
        assert_eq!(found[0].3[0], "DBName \"orders\" → \"orders2\"");
        assert!(
            found[0].3[1].starts_with("MasterUserPassword \"‹secret ")
                && !found[0].3[1].contains("new"),
            "{found:?}"
        );
        assert_eq!(
            found[1].3,
            [
                "Environment.Variables.HOST \"${Db.Endpoint.Address}\" → (known after apply: Db.Endpoint.Address)"
            ]
        );
    }

    #[test]
    fn outputs_change_with_what_they_name() {
        let template = |name: &str, port: &str| {
            format!(
                "{}Outputs: {{Host: {{Value: !GetAtt Db.Endpoint.Address}}, Port: {{Value: '{port}'}}, Fn: {{Value: !Ref Fn}}}}\n",
                database(name, port)
            )
        };
        let before = template("orders", "5432");

        let replaced = previewed(Some(&before), &template("orders2", "5433")).outputs;
        let same = previewed(Some(&before), &before).outputs;
        let first = previewed(None, &before).outputs;

        let known = |outputs: &BTreeMap<String, Option<String>>| {
            let all = outputs.iter();
            all.map(|(n, v)| format!("{n} {}", v.as_deref().unwrap_or("?")))
                .collect::<Vec<_>>()
        };
        assert_eq!(known(&replaced), ["Host ?", "Port 5433"]);
        assert_eq!(known(&same), Vec::<String>::new());
        assert_eq!(known(&first), ["Fn ?", "Host ?", "Port 5432"]);
    }

    #[test]
    fn a_replacement_reaches_what_says_the_same_words() {
        // Nothing that expressions see has changed but the database: what is written as before is not evaluated.
        let port = format!(
            "{}  Far: {{Type: 'AWS::SNS::Topic', Properties: {{DisplayName: !Sub '${{Db.Endpoint.Port}}'}}}}\n  Other: {{Type: 'AWS::SNS::Topic', Properties: {{DisplayName: !Ref Fn}}}}\n",
            database("orders", "5432")
        );
        for secret in ["new", "old"] {
            let found = changes_after(Some(&port), secret, &port.replace("orders", "orders2"));
            let names: Vec<&str> = found.iter().map(|c| c.0.as_str()).collect();
            assert_eq!(names, ["Db", "Far", "Fn"], "{secret}");
            assert_eq!(
                found[1].3,
                ["DisplayName \"${Db.Endpoint.Port}\" → (known after apply: ${Db.Endpoint.Port})"]
            );
        }
        assert_eq!(changes_after(Some(&port), "new", &port), vec![]);
        // The same words mean something else once a mapping does.
        let mapped = |value: &str| {
            format!(
                "Mappings: {{M: {{a: {{b: {value}}}}}}}\n{HEAD}  T: {{Type: 'AWS::SNS::Topic', Properties: {{DisplayName: !FindInMap [M, a, b]}}}}\n"
            )
        };
        let found = changes_after(Some(&mapped("x")), "new", &mapped("y"));
        assert_eq!(found[0].3, ["DisplayName \"x\" → \"y\""]);
    }

    #[test]
    fn equal_templates_change_nothing_and_new_ones_add() {
        let topic = format!("{HEAD}  T: {{Type: 'AWS::SNS::Topic'}}\n");
        assert_eq!(
            changes(
                Some(&topic),
                &format!("{HEAD}  T: {{Type: 'AWS::SNS::Topic', Properties: {{}}}}\n")
            ),
            vec![]
        );
        assert_eq!(changes(None, &topic)[0].1, Action::Add);
    }

    #[test]
    fn policies_and_metadata_are_changes_of_their_own() {
        let topic = |more: &str| format!("{HEAD}  T: {{Type: 'AWS::SNS::Topic'{more}}}\n");

        for (more, path) in [
            (
                ", DeletionPolicy: Retain",
                "DeletionPolicy \"Delete\" → \"Retain\"",
            ),
            (
                ", UpdateReplacePolicy: Retain",
                "UpdateReplacePolicy \"Delete\" → \"Retain\"",
            ),
            (", Metadata: {a: b}", "Metadata  → {\"a\":\"b\"}"),
        ] {
            let found = changes(Some(&topic("")), &topic(more));
            assert_eq!(found.len(), 1, "{more}");
            assert_eq!(
                (found[0].2, &found[0].3[..]),
                (Replacement::Never, &[path.to_owned()][..])
            );
        }
        assert_eq!(changes(Some(&topic("")), &topic(", DependsOn: []")), vec![]);
    }
}
