//! `Fn::ForEach` of the transform `AWS::LanguageExtensions`: loops are written out before anything else reads the template.
//!
//! Template reference, "Fn::ForEach": allowed in `Conditions`, `Resources` and `Outputs`; the collection is a list or the
//! `Ref` of a list parameter; `${Identifier}` is replaced by the value, `&{Identifier}` by its letters and digits.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::yaml::{Kind, Node, Style};

/// The transform's name.
pub(super) const LANGUAGE_EXTENSIONS: &str = "AWS::LanguageExtensions";

/// How a loop's key begins.
const LOOP: &str = "Fn::ForEach::";

/// Nodes that loops may make: more than a template of 1 MB can hold, and little enough to be no attack.
const MOST_NODES: usize = 200_000;

/// A fault and where it stands.
pub(super) type Fault = (Node, String);

/// Writes out every loop of a template.
pub(super) fn expand(root: &Node, given: &BTreeMap<String, String>) -> Result<Node, Vec<Fault>> {
    let mut work = Expansion {
        parameters: root.get("Parameters"),
        given,
        faults: Vec::new(),
        names: BTreeSet::new(),
        left: MOST_NODES,
    };
    let sections = root
        .entries()
        .iter()
        .map(|(key, value)| {
            let value = match key.text() {
                Some("Conditions" | "Resources" | "Outputs") => work.node(value, &[]),
                _ => value.clone(),
            };
            (key.clone(), value)
        })
        .collect();
    if work.faults.is_empty() {
        Ok(Node {
            kind: Kind::Mapping(sections),
            ..root.clone()
        })
    } else {
        Err(work.faults)
    }
}

struct Expansion<'a> {
    parameters: Option<&'a Node>,
    given: &'a BTreeMap<String, String>,
    faults: Vec<Fault>,
    names: BTreeSet<String>,
    left: usize,
}

/// Identifiers of the loops around a node, with their values of this turn.
type Bound = [(String, String)];

impl Expansion<'_> {
    fn fault(&mut self, at: &Node, message: impl Into<String>) {
        self.faults.push((at.clone(), message.into()));
    }

    fn node(&mut self, node: &Node, bound: &Bound) -> Node {
        // One fault is enough: a loop would tell it again in every turn.
        if !self.faults.is_empty() {
            return node.clone();
        }
        if self.left == 0 {
            let text = format!(
                "loops make more than {MOST_NODES} nodes; CloudFormation's limits hold after they are written out"
            );
            self.fault(node, text);
            return node.clone();
        }
        self.left -= 1;
        if let Some(value) = referred(node).and_then(|name| value_of(bound, name)) {
            return scalar(node, value.to_owned());
        }
        let kind = match &node.kind {
            Kind::Scalar(text, style) => {
                let replaced = replaced(text, bound);
                // A value is text, also where it looks like a number.
                let style = if replaced == *text {
                    *style
                } else {
                    Style::Quoted
                };
                Kind::Scalar(replaced, style)
            }
            Kind::Sequence(items) => {
                Kind::Sequence(items.iter().map(|n| self.node(n, bound)).collect())
            }
            Kind::Mapping(entries) => Kind::Mapping(self.entries(entries, bound)),
        };
        Node {
            kind,
            ..node.clone()
        }
    }

    fn entries(&mut self, entries: &[(Node, Node)], bound: &Bound) -> Vec<(Node, Node)> {
        let mut out: Vec<(Node, Node)> = Vec::new();
        for (key, value) in entries {
            let made = match key.text().and_then(|k| k.strip_prefix(LOOP)) {
                Some(name) => self.turns(name, key, value, bound),
                None => vec![(self.node(key, bound), self.node(value, bound))],
            };
            for (key, value) in made {
                if out.iter().any(|(k, _)| k.text() == key.text()) {
                    let text = format!("`{}` comes twice out of a loop", key.key_text());
                    self.fault(&key, text);
                    return out;
                }
                out.push((key, value));
            }
        }
        out
    }

    fn turns(&mut self, name: &str, key: &Node, value: &Node, bound: &Bound) -> Vec<(Node, Node)> {
        if bound.is_empty() && !self.names.insert(name.to_owned()) {
            self.fault(key, format!("the loop `{name}` is there twice"));
            return Vec::new();
        }
        let [identifier, collection, body] = value.items() else {
            self.fault(
                value,
                format!("`{LOOP}{name}` wants an identifier, a list of values, and a mapping"),
            );
            return Vec::new();
        };
        let (Some(identifier), true) = (identifier.text(), body.is_mapping()) else {
            self.fault(
                value,
                format!("`{LOOP}{name}` wants an identifier, a list of values, and a mapping"),
            );
            return Vec::new();
        };
        let Some(values) = self.collection(collection, bound) else {
            return Vec::new();
        };
        let mut out = Vec::new();
        for value in values {
            let mut inner = bound.to_vec();
            inner.push((identifier.to_owned(), value));
            for (key, body) in body.entries() {
                match key.text().and_then(|k| k.strip_prefix(LOOP)) {
                    Some(name) => out.extend(self.turns(name, key, body, &inner)),
                    None => {
                        let made = (self.node(key, &inner), self.node(body, &inner));
                        out.push(made);
                    }
                }
                if !self.faults.is_empty() {
                    return out;
                }
            }
        }
        out
    }

    fn collection(&mut self, node: &Node, bound: &Bound) -> Option<Vec<String>> {
        if let Some(name) = referred(node) {
            return self.parameter(node, name);
        }
        if !node.is_sequence() {
            self.fault(
                node,
                "a loop goes over a list, or over the `Ref` of a list parameter",
            );
            return None;
        }
        let mut out = Vec::new();
        for item in node.items() {
            match (referred(item), item.text()) {
                (Some(name), _) => match value_of(bound, name) {
                    Some(value) => out.push(value.to_owned()),
                    None => out.extend(self.parameter(item, name)?),
                },
                (None, Some(text)) => out.push(replaced(text, bound)),
                _ => {
                    self.fault(
                        item,
                        "an item of a loop's list is a text or the `Ref` of a parameter",
                    );
                    return None;
                }
            }
        }
        Some(out)
    }

    fn parameter(&mut self, at: &Node, name: &str) -> Option<Vec<String>> {
        let Some(declared) = self.parameters.and_then(|p| p.get(name)) else {
            self.fault(
                at,
                format!(
                    "`{name}` is not a parameter: what a loop goes over must be known beforehand"
                ),
            );
            return None;
        };
        let default = declared.get("Default").and_then(Node::text);
        let Some(text) = self.given.get(name).map(String::as_str).or(default) else {
            self.fault(at, format!("the parameter `{name}`, which a loop goes over, has neither a value nor a default"));
            return None;
        };
        let kind = declared
            .get("Type")
            .and_then(Node::text)
            .unwrap_or_default();
        Some(
            if kind == "CommaDelimitedList" || kind.starts_with("List<") {
                text.split(',').map(|v| v.trim().to_owned()).collect()
            } else {
                vec![text.to_owned()]
            },
        )
    }
}

/// The name in `Ref`, in its short or its long form.
fn referred(node: &Node) -> Option<&str> {
    if node.tag.as_deref() == Some("Ref") {
        return node.text();
    }
    match node.entries() {
        [(key, value)] if key.text() == Some("Ref") => value.text(),
        _ => None,
    }
}

fn value_of<'b>(bound: &'b Bound, name: &str) -> Option<&'b str> {
    let found = bound.iter().rev().find(|(n, _)| n == name);
    found.map(|(_, v)| v.as_str())
}

fn replaced(text: &str, bound: &Bound) -> String {
    let mut out = text.to_owned();
    for (name, value) in bound {
        if !out.contains(&format!("{{{name}}}")) {
            continue;
        }
        let letters: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
        out = out
            .replace(&format!("${{{name}}}"), value)
            .replace(&format!("&{{{name}}}"), &letters);
    }
    out
}

fn scalar(node: &Node, text: String) -> Node {
    Node {
        span: node.span,
        tag: None,
        kind: Kind::Scalar(text, Style::Quoted),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use crate::domain::cfn::{parse_template, parse_template_with};

    const HEAD: &str = "Transform: AWS::LanguageExtensions\nParameters: {Names: {Type: CommaDelimitedList, Default: 'a.b, c'}}\n";

    #[test]
    fn a_loop_is_written_out() {
        let text = format!(
            "{HEAD}Conditions:\n  'Fn::ForEach::C': [N, [X, Y], {{'Is${{N}}': !Equals [!Ref N, X]}}]\nResources:\n  'Fn::ForEach::Topics':\n    - Name\n    - !Ref Names\n    - 'T&{{Name}}':\n        Type: AWS::SNS::Topic\n        Condition: IsX\n        Properties:\n          TopicName: !Ref Name\n          'Fn::ForEach::P': [Q, [DisplayName], {{'${{Q}}': !Sub '${{Name}}-${{AWS::Region}}'}}]\nOutputs:\n  'Fn::ForEach::O': [Name, [ab], {{'Out${{Name}}': {{Value: !GetAtt ['T${{Name}}', TopicName]}}}}]\n"
        );
        let template = parse_template("t", &text).unwrap();

        let names: Vec<&String> = template.resources.keys().collect();
        assert_eq!(names, ["Tab", "Tc"]);
        assert_eq!(
            template.resources["Tab"].properties,
            json!({ "TopicName": "a.b", "DisplayName": { "Fn::Sub": "a.b-${AWS::Region}" } })
        );
        assert_eq!(
            template.conditions["IsY"],
            json!({ "Fn::Equals": ["Y", "X"] })
        );
        assert_eq!(
            template.outputs["Outab"].value,
            json!({ "Fn::GetAtt": ["Tab", "TopicName"] })
        );
        let given = BTreeMap::from([("Names".to_owned(), "one".to_owned())]);
        let other = parse_template_with("t", &text.replace("[ab]", "[one]"), &given).unwrap();
        assert!(other.resources.contains_key("Tone"));
    }

    #[test]
    fn loops_in_loops_multiply_and_are_bounded() {
        let text = format!(
            "{HEAD}Resources:\n  'Fn::ForEach::A':\n    - X\n    - [1, 2]\n    - 'Fn::ForEach::B':\n        - Y\n        - [3, 4]\n        - 'R${{X}}${{Y}}': {{Type: 'AWS::SNS::Topic'}}\n"
        );
        let template = parse_template("t", &text).unwrap();
        let names: Vec<&String> = template.resources.keys().collect();
        assert_eq!(names, ["R13", "R14", "R23", "R24"]);

        let many = vec!["v"; 100].join(", ");
        let mut body = "{R: {Type: 'AWS::SNS::Topic'}}".to_owned();
        for level in 0..6 {
            body = format!("{{'Fn::ForEach::L{level}': [I{level}, [{many}], {body}]}}");
        }
        let found = parse_template("t", &format!("{HEAD}Resources: {body}\n")).unwrap_err();
        assert_eq!(found[0].code, "cfn.loop");
    }

    #[test]
    fn what_cannot_be_written_out_says_why() {
        for body in [
            "'Fn::ForEach::A': [X, [1]]",
            "'Fn::ForEach::A': [X, !GetAtt R.Arn, {'R${X}': {Type: 'AWS::SNS::Topic'}}]",
            "'Fn::ForEach::A': [X, !Ref Nothing, {'R${X}': {Type: 'AWS::SNS::Topic'}}]",
            "'Fn::ForEach::A': [X, [1, 2], {R: {Type: 'AWS::SNS::Topic'}}]",
        ] {
            let text = format!("{HEAD}Resources:\n  {body}\n");
            let found = parse_template("t", &text).unwrap_err();
            assert_eq!(found[0].code, "cfn.loop", "{body}: {found:?}");
            assert!(found[0].place.span.is_some());
        }
    }

    #[test]
    fn without_the_transform_nothing_is_extended() {
        for body in [
            "'Fn::ForEach::A': [X, [1], {'R${X}': {Type: 'AWS::SNS::Topic'}}]",
            "R: {Type: 'AWS::SNS::Topic', DeletionPolicy: !Ref P}",
        ] {
            let text = format!(
                "Parameters: {{P: {{Type: String, Default: Retain}}}}\nResources:\n  {body}\n"
            );
            assert!(parse_template("t", &text).is_err(), "{body}");
        }
    }

    #[test]
    fn a_deletion_policy_can_be_a_parameter() {
        let text = "Transform: AWS::LanguageExtensions\nParameters: {P: {Type: String, Default: Retain}}\nConditions: {C: !Equals [!Ref P, Delete]}\nResources:\n  R: {Type: 'AWS::S3::Bucket', DeletionPolicy: !Ref P, UpdateReplacePolicy: !If [C, Delete, Snapshot]}\n";
        let template = parse_template("t", text).unwrap();

        use crate::domain::cfn::DeletionPolicy as D;
        let bucket = &template.resources["R"];
        assert_eq!(
            (bucket.deletion_policy, bucket.update_replace_policy),
            (D::Retain, D::Snapshot)
        );
        let given = BTreeMap::from([("P".to_owned(), "Delete".to_owned())]);
        let other = parse_template_with("t", text, &given).unwrap();
        assert_eq!(other.resources["R"].update_replace_policy, D::Delete);
    }
}
