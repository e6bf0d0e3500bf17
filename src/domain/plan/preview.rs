//! What a change would do, from two templates alone: no engine is asked and nothing is written.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Action, Change, Desired, Replacement, ResourceState, compare};
use crate::domain::cfn::{
    EvaluateError, Pseudo, Resolver, Resource, Scope, Template, bind_parameters, evaluate,
    parse_template_with, resource_type, unknown,
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

/// Compares what is deployed with what is desired.
pub fn preview(
    deployed: Option<&Deployed<'_>>,
    desired: &Desired,
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
    let after = match parse_template_with("template", &desired.template, &desired.parameters) {
        Ok(template) => template,
        Err(findings) => {
            out.problems.extend(findings.into_iter().map(|f| f.message));
            return out;
        }
    };
    let before = match deployed {
        Some(deployed) => states(deployed, pseudo, &secret, &mut out.problems),
        None => BTreeMap::new(),
    };
    let parameters = bound(&after, &desired.parameters, &secret, &mut out.problems);
    let resolver = Symbolic {
        template: &after,
        moved: RefCell::new(BTreeSet::new()),
    };
    let scope = Scope {
        template: &after,
        parameters: &parameters,
        pseudo,
        resolver: &resolver,
    };
    let present = |logical: &str| {
        after
            .resources
            .get(logical)
            .is_some_and(|r| exists(r, &scope))
    };
    let mut problems = Vec::new();
    let result = compare(
        &before,
        &after,
        &present,
        &mut |logical, resource, moved| {
            resolver.moved.replace(moved.clone());
            evaluate(&resource.properties, &scope).or_else(|error| {
                problems.push(format!("{logical}: {error}"));
                Ok(resource.properties.clone())
            })
        },
    );
    out.problems.extend(problems);
    match result {
        Ok(changes) => out.changes = changes,
        Err(error) => out.problems.push(error.to_string()),
    }
    // What is made anew has other names and attributes than what was there.
    let anew = |c: &&Change| c.action == Action::Add || c.replacement != Replacement::Never;
    let made = out.changes.iter().filter(anew).map(|c| c.logical.clone());
    resolver.moved.replace(made.collect());
    let before = match deployed {
        Some(deployed) => outputs_of(deployed, pseudo, &secret),
        None => BTreeMap::new(),
    };
    out.outputs = after
        .outputs
        .iter()
        .filter_map(|(name, output)| {
            let value = evaluate(&output.value, &scope).ok();
            (before.get(name) != Some(&value)).then(|| (name.clone(), value.and_then(certain)))
        })
        .collect();
    out
}

/// Returns a value as text where nothing of it is named by a resource: what is, is known to the engine only.
fn certain(value: Value) -> Option<String> {
    let text = value.as_str()?;
    (!text.contains("${")).then(|| text.to_owned())
}

/// Returns what the outputs of the deployed template say, with resources by their names.
fn outputs_of(
    deployed: &Deployed<'_>,
    pseudo: &Pseudo,
    secret: &dyn Fn(&str) -> String,
) -> BTreeMap<String, Option<Value>> {
    let Ok(template) = parse_template_with("deployed", deployed.template, deployed.parameters)
    else {
        return BTreeMap::new();
    };
    let parameters = given(&template, deployed, secret, &mut Vec::new());
    let resolver = Symbolic {
        template: &template,
        moved: RefCell::new(BTreeSet::new()),
    };
    let scope = Scope {
        template: &template,
        parameters: &parameters,
        pseudo,
        resolver: &resolver,
    };
    let outputs = template.outputs.iter();
    outputs
        .map(|(name, output)| (name.clone(), evaluate(&output.value, &scope).ok()))
        .collect()
}

/// Binds the parameters with which a template was deployed, as far as it has them.
fn given(
    template: &Template,
    deployed: &Deployed<'_>,
    secret: &dyn Fn(&str) -> String,
    problems: &mut Vec<String>,
) -> BTreeMap<String, Value> {
    let known = deployed
        .parameters
        .iter()
        .filter(|(name, _)| template.parameters.contains_key(*name))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    bound(template, &known, secret, problems)
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

fn states(
    deployed: &Deployed<'_>,
    pseudo: &Pseudo,
    secret: &dyn Fn(&str) -> String,
    problems: &mut Vec<String>,
) -> BTreeMap<String, ResourceState> {
    let Ok(template) = parse_template_with("deployed", deployed.template, deployed.parameters)
    else {
        problems.push("the deployed template cannot be read".into());
        return BTreeMap::new();
    };
    let parameters = given(&template, deployed, secret, problems);
    let resolver = Symbolic {
        template: &template,
        moved: RefCell::new(BTreeSet::new()),
    };
    let scope = Scope {
        template: &template,
        parameters: &parameters,
        pseudo,
        resolver: &resolver,
    };
    let mut out = BTreeMap::new();
    for (logical, resource) in template.resources.iter().filter(|(_, r)| exists(r, &scope)) {
        let properties =
            evaluate(&resource.properties, &scope).unwrap_or_else(|_| resource.properties.clone());
        out.insert(
            logical.clone(),
            ResourceState::of(resource, None, properties),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn previewed(before: Option<&str>, after: &str) -> Preview {
        let desired = Desired {
            stack_name: "s".parse().unwrap(),
            template: after.into(),
            parameters: BTreeMap::from([("Secret".to_owned(), "new".to_owned())]),
            secrets: vec!["Secret".into()],
            tags: BTreeMap::new(),
            notification_arns: vec![],
            rollback_triggers: vec![],
            monitoring_minutes: 0,
            stack_policy: None,
            termination_protection: None,
            prune: None,
            capabilities: vec![],
            consumed: BTreeMap::new(),
        };
        let parameters = BTreeMap::from([("Secret".to_owned(), "old".to_owned())]);
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
            &desired,
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
        let preview = previewed(before, after);
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
