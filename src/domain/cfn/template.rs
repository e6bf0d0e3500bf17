//! From rendered text to a checked template, with the place of everything in it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::evaluate::{EvaluateError, Pseudo, Resolver, Scope, evaluate, references};
use super::extensions::{LANGUAGE_EXTENSIONS, expand};
use super::references::KEPT;
use crate::domain::model::{Finding, Place, closest};
use crate::domain::yaml::{self, Kind, Limits, Node};

/// A parameter of a template.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// The declared type, such as `String` or `CommaDelimitedList`.
    pub kind: String,
    /// The default as text.
    pub default: Option<String>,
    /// Whether its value must never be shown.
    pub no_echo: bool,
    /// The values it may have; empty allows all.
    pub allowed_values: Vec<String>,
    /// The pattern that the whole value must match.
    pub allowed_pattern: Option<String>,
    /// Least and greatest length.
    pub length: (Option<u64>, Option<u64>),
    /// Least and greatest value of a number.
    pub range: (Option<f64>, Option<f64>),
}

impl Parameter {
    /// Tells whether CloudFormation asks Systems Manager for the value, under the name that is given.
    pub fn is_asked_for(&self) -> bool {
        self.kind.starts_with(KEPT)
    }
}

/// What happens to a resource that leaves the stack or is replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum DeletionPolicy {
    /// It is deleted.
    Delete,
    /// It stays and is forgotten.
    Retain,
    /// As `Retain`, but a failed creation deletes it.
    RetainExceptOnCreate,
    /// It is deleted after a snapshot was taken.
    Snapshot,
}

/// A resource of a template, its properties not yet evaluated.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// The type, such as `AWS::S3::Bucket`.
    pub kind: String,
    /// Properties, with intrinsic functions in their long form.
    pub properties: Value,
    /// Logical ids that must exist first, as declared.
    pub depends_on: Vec<String>,
    /// The condition under which it exists.
    pub condition: Option<String>,
    /// What happens when it leaves the stack.
    pub deletion_policy: DeletionPolicy,
    /// What happens to the old one when it is replaced.
    pub update_replace_policy: DeletionPolicy,
    /// Metadata.
    pub metadata: Value,
}

/// An output of a template.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The value, not yet evaluated.
    pub value: Value,
    /// The condition under which it exists.
    pub condition: Option<String>,
    /// The name it is exported under, not yet evaluated.
    pub export: Option<Value>,
}

/// A template that parsed and whose references hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// Transforms in order.
    pub transforms: Vec<String>,
    /// Parameters.
    pub parameters: BTreeMap<String, Parameter>,
    /// Mappings: map, first key, second key.
    pub mappings: Value,
    /// Conditions, not yet evaluated.
    pub conditions: BTreeMap<String, Value>,
    /// Resources.
    pub resources: BTreeMap<String, Resource>,
    /// Outputs.
    pub outputs: BTreeMap<String, Output>,
    /// The tree, for places.
    pub root: Node,
}

/// A published limit of CloudFormation on one template: "AWS CloudFormation quotas", user guide.
pub struct Limit;

impl Limit {
    /// Resources in one template.
    pub const RESOURCES: usize = 500;
    /// Parameters in one template.
    pub const PARAMETERS: usize = 200;
    /// Outputs in one template.
    pub const OUTPUTS: usize = 200;
    /// Mappings in one template.
    pub const MAPPINGS: usize = 200;
}

/// How many findings of one template are kept: more are read by nobody, and each costs its place in the text.
const FINDINGS: usize = 200;

/// Transforms that the reference model accepts. Serverless resources are not expanded.
const KNOWN_TRANSFORMS: &[&str] = &["AWS::Serverless-2016-10-31", LANGUAGE_EXTENSIONS];

const SECTIONS: &[&str] = &[
    "AWSTemplateFormatVersion",
    "Description",
    "Metadata",
    "Parameters",
    "Rules",
    "Mappings",
    "Conditions",
    "Transform",
    "Globals",
    "Resources",
    "Outputs",
    "Hooks",
];

impl Template {
    /// Tells whether loops may have been written out in it.
    pub fn is_extended(&self) -> bool {
        self.transforms.iter().any(|t| t == LANGUAGE_EXTENSIONS)
    }

    /// Returns the logical ids that a resource needs first: declared and by reference.
    pub fn dependencies(&self, logical: &str) -> BTreeSet<String> {
        let Some(resource) = self.resources.get(logical) else {
            return BTreeSet::new();
        };
        let mut all: BTreeSet<String> = resource.depends_on.iter().cloned().collect();
        references(&resource.properties, &mut |name, _| {
            if self.resources.contains_key(name) {
                all.insert(name.to_owned());
            }
        });
        all.remove(logical);
        all
    }

    /// Returns the logical ids with every resource after what it needs.
    ///
    /// Among equals the order is by name. Fails with the path of a circle.
    pub fn order(&self) -> Result<Vec<String>, Vec<String>> {
        let needs: BTreeMap<&String, BTreeSet<String>> = self
            .resources
            .keys()
            .map(|k| (k, self.dependencies(k)))
            .collect();
        let names: Vec<&String> = needs.keys().copied().collect();
        // By position: who waits for whom, and for how many. A long chain would be walked once for each link otherwise.
        let mut waits: Vec<usize> = vec![0; names.len()];
        let mut wanted: Vec<Vec<usize>> = vec![Vec::new(); names.len()];
        for (position, deps) in needs.values().enumerate() {
            for dependency in deps {
                if let Ok(first) = names.binary_search(&dependency) {
                    waits[position] += 1;
                    wanted[first].push(position);
                }
            }
        }
        let mut order = Vec::with_capacity(names.len());
        let mut ready: Vec<usize> = (0..names.len()).filter(|n| waits[*n] == 0).collect();
        while !ready.is_empty() {
            let mut next = Vec::new();
            for position in ready {
                order.push(names[position].clone());
                for later in &wanted[position] {
                    waits[*later] -= 1;
                    if waits[*later] == 0 {
                        next.push(*later);
                    }
                }
            }
            next.sort_unstable();
            ready = next;
        }
        if order.len() < names.len() {
            return Err(circle(&needs, &order.into_iter().collect()));
        }
        Ok(order)
    }

    /// Returns the capabilities that CloudFormation will ask for: CreateChangeSet, `Capabilities`.
    pub fn capabilities(&self) -> Vec<&'static str> {
        let mut found = Vec::new();
        let iam = self
            .resources
            .values()
            .filter(|r| r.kind.starts_with("AWS::IAM::"));
        let (mut any, mut named) = (false, false);
        for resource in iam {
            any = true;
            named |= [
                "RoleName",
                "UserName",
                "GroupName",
                "ManagedPolicyName",
                "InstanceProfileName",
            ]
            .iter()
            .any(|name| resource.properties.get(name).is_some());
        }
        let serverless = self
            .resources
            .values()
            .any(|r| r.kind == "AWS::Serverless::Function");
        if named {
            found.push("CAPABILITY_NAMED_IAM");
        } else if any || serverless {
            found.push("CAPABILITY_IAM");
        }
        if !self.transforms.is_empty() {
            found.push("CAPABILITY_AUTO_EXPAND");
        }
        found
    }
}

fn circle(needs: &BTreeMap<&String, BTreeSet<String>>, done: &BTreeSet<String>) -> Vec<String> {
    let open = |name: &String| {
        needs
            .get(name)
            .and_then(|d| d.iter().find(|d| !done.contains(*d)).cloned())
    };
    let Some(start) = needs.keys().find(|n| !done.contains(**n)) else {
        return Vec::new();
    };
    let mut path = vec![(*start).clone()];
    while let Some(next) = path.last().and_then(&open) {
        if let Some(from) = path.iter().position(|p| *p == next) {
            path.push(next);
            return path.split_off(from);
        }
        path.push(next);
    }
    path
}

/// Reads and checks rendered CloudFormation text.
///
/// Returns every fault: of syntax, of shape, of limits, of references and of circles.
///
/// What the transform `AWS::LanguageExtensions` asks of parameters is answered with their defaults.
pub fn parse_template(file: &str, text: &str) -> Result<Template, Vec<Finding>> {
    parse_template_with(file, text, &BTreeMap::new())
}

/// Reads and checks rendered CloudFormation text, with the values that loops and deletion policies may ask for.
pub fn parse_template_with(
    file: &str,
    text: &str,
    given: &BTreeMap<String, String>,
) -> Result<Template, Vec<Finding>> {
    let root = yaml::parse(file, text, &Limits::TEMPLATE)?;
    let mut check = Check {
        file,
        text,
        given,
        findings: Vec::new(),
    };
    let template = check.template(root);
    if check.findings.iter().any(Finding::is_error) {
        Err(check.findings)
    } else {
        Ok(template)
    }
}

struct Check<'a> {
    file: &'a str,
    text: &'a str,
    given: &'a BTreeMap<String, String>,
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn error(&mut self, code: &str, node: &Node, message: impl Into<String>, help: Option<String>) {
        if self.findings.len() >= FINDINGS {
            return;
        }
        let mut finding = Finding::error(code, Place::at(self.file, node.span, self.text), message);
        finding.help = help;
        self.findings.push(finding);
    }

    fn template(&mut self, root: Node) -> Template {
        let mut template = Template {
            transforms: Vec::new(),
            parameters: BTreeMap::new(),
            mappings: Value::Object(Map::new()),
            conditions: BTreeMap::new(),
            resources: BTreeMap::new(),
            outputs: BTreeMap::new(),
            // Put there at the end: until then it is read.
            root: Node {
                span: root.span,
                tag: None,
                kind: Kind::Sequence(Vec::new()),
            },
        };
        if !root.is_mapping() {
            self.error(
                "cfn.shape",
                &root,
                "a template is a mapping with `Resources`",
                None,
            );
            return template;
        }
        for (key, _) in root.entries() {
            let name = key.key_text();
            if !SECTIONS.contains(&name.as_str()) {
                let help = closest(&name, SECTIONS.iter().copied())
                    .map(|s| format!("did you mean `{s}`?"));
                self.error(
                    "cfn.section",
                    key,
                    format!("`{name}` is not a section of a template"),
                    help,
                );
            }
        }
        self.transforms(&root, &mut template);
        self.transforms_inside(&root);
        let mut root = root;
        if template.is_extended() {
            match expand(&root, self.given) {
                Ok(expanded) => root = expanded,
                Err(faults) => {
                    for (at, message) in faults {
                        self.error("cfn.loop", &at, message, None);
                    }
                    return template;
                }
            }
        }
        self.parameters(&root, &mut template);
        if let Some(mappings) = root.get("Mappings") {
            template.mappings = long_form(mappings);
            self.limit(mappings, Limit::MAPPINGS, "mappings");
        }
        if let Some(conditions) = root.get("Conditions") {
            template.conditions = conditions
                .entries()
                .iter()
                .map(|(k, v)| (k.key_text(), long_form(v)))
                .collect();
        }
        self.resources(&root, &mut template);
        self.outputs(&root, &mut template);
        self.references(&root, &template);
        if self.findings.is_empty()
            && let Err(path) = template.order()
        {
            let at = root.follow(["Resources", path.first().map_or("", String::as_str)]);
            self.error(
                "cfn.circular",
                at,
                format!(
                    "circular dependency between resources: {}",
                    path.join(" → ")
                ),
                None,
            );
        }
        template.root = root;
        template
    }

    fn limit(&mut self, section: &Node, most: usize, what: &str) {
        let count = section.entries().len();
        if count > most {
            self.error(
                "cfn.limit",
                section,
                format!("the template has {count} {what}, CloudFormation allows {most}"),
                None,
            );
        }
    }

    fn transforms(&mut self, root: &Node, template: &mut Template) {
        let Some(node) = root.get("Transform") else {
            return;
        };
        let all = if node.is_sequence() {
            node.items()
        } else {
            std::slice::from_ref(node)
        };
        for item in all {
            match item.text() {
                Some(name) => {
                    if !KNOWN_TRANSFORMS.contains(&name) {
                        let help = "only AWS::LanguageExtensions and AWS::Serverless-2016-10-31 are accepted; macros can read and change anything".to_owned();
                        self.error(
                            "cfn.transform",
                            item,
                            format!("the transform `{name}` is not supported"),
                            Some(help),
                        );
                    }
                    template.transforms.push(name.to_owned());
                }
                None => self.error(
                    "cfn.transform",
                    item,
                    "AWS::Include and other transforms with parameters are not supported",
                    None,
                ),
            }
        }
    }

    /// Refuses macros inside a template: CloudFormation runs them when it makes a change set, before anybody approves,
    /// and `AWS::Include` reads any object that the role may read.
    fn transforms_inside(&mut self, node: &Node) {
        if node.tag.as_deref() == Some("Transform") {
            let message = "`Fn::Transform` is not supported: macros can read and change anything";
            self.error("cfn.transform", node, message, None);
        }
        for item in node.items() {
            self.transforms_inside(item);
        }
        for (key, value) in node.entries() {
            if key.text() == Some("Fn::Transform") {
                let message =
                    "`Fn::Transform` is not supported: macros can read and change anything";
                self.error("cfn.transform", key, message, None);
            }
            self.transforms_inside(value);
        }
    }

    fn parameters(&mut self, root: &Node, template: &mut Template) {
        let Some(section) = root.get("Parameters") else {
            return;
        };
        self.limit(section, Limit::PARAMETERS, "parameters");
        for (key, node) in section.entries() {
            let text = |name: &str| node.get(name).and_then(Node::text).map(str::to_owned);
            let number = |name: &str| text(name).and_then(|t| t.parse::<f64>().ok());
            let Some(kind) = text("Type") else {
                self.error(
                    "cfn.parameter",
                    key,
                    format!("the parameter `{}` has no `Type`", key.key_text()),
                    None,
                );
                continue;
            };
            let default = node.get("Default").map(|n| {
                n.text()
                    .map_or_else(|| n.to_json().to_string(), str::to_owned)
            });
            template.parameters.insert(
                key.key_text(),
                Parameter {
                    kind,
                    default,
                    no_echo: node.get("NoEcho").is_some_and(|n| truthy(&n.to_json())),
                    allowed_values: node
                        .get("AllowedValues")
                        .map(|n| n.items().iter().map(Node::key_text).collect())
                        .unwrap_or_default(),
                    allowed_pattern: text("AllowedPattern"),
                    length: (
                        number("MinLength").map(|n| n as u64),
                        number("MaxLength").map(|n| n as u64),
                    ),
                    range: (number("MinValue"), number("MaxValue")),
                },
            );
        }
    }

    fn resources(&mut self, root: &Node, template: &mut Template) {
        let Some(section) = root
            .get("Resources")
            .filter(|n| n.is_mapping() && !n.entries().is_empty())
        else {
            self.error(
                "cfn.resources",
                root,
                "a template needs at least one resource under `Resources`",
                None,
            );
            return;
        };
        self.limit(section, Limit::RESOURCES, "resources");
        for (key, node) in section.entries() {
            let name = key.key_text();
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
                self.error(
                    "cfn.logical-id",
                    key,
                    format!(
                        "the logical id `{}` is not alphanumeric",
                        name.escape_debug()
                    ),
                    None,
                );
                continue;
            }
            let Some(kind) = node.get("Type").and_then(Node::text) else {
                self.error(
                    "cfn.type",
                    key,
                    format!("the resource `{name}` has no `Type`"),
                    None,
                );
                continue;
            };
            if let Some(properties) = node
                .get("Properties")
                .filter(|p| !p.is_mapping() && !p.is_null())
            {
                self.error(
                    "cfn.properties",
                    properties,
                    format!("`Properties` of `{name}` must be a mapping"),
                    None,
                );
                continue;
            }
            let deletion_policy = self.policy(template, node, "DeletionPolicy");
            let update_replace_policy = self.policy(template, node, "UpdateReplacePolicy");
            let depends_on = node.get("DependsOn").map(|n| {
                let all = if n.is_sequence() {
                    n.items()
                } else {
                    std::slice::from_ref(n)
                };
                all.iter().map(Node::key_text).collect()
            });
            template.resources.insert(
                name,
                Resource {
                    kind: kind.to_owned(),
                    properties: node
                        .get("Properties")
                        .filter(|p| p.is_mapping())
                        .map_or_else(|| json!({}), long_form),
                    depends_on: depends_on.unwrap_or_default(),
                    condition: node
                        .get("Condition")
                        .and_then(Node::text)
                        .map(str::to_owned),
                    deletion_policy: deletion_policy.unwrap_or(DeletionPolicy::Delete),
                    update_replace_policy: update_replace_policy.unwrap_or(DeletionPolicy::Delete),
                    metadata: node.get("Metadata").map_or(Value::Null, long_form),
                },
            );
        }
    }

    fn policy(&mut self, template: &Template, node: &Node, name: &str) -> Option<DeletionPolicy> {
        let value = node.get(name)?;
        let plain = value.tag.is_none() && value.text().is_some();
        let word = if plain {
            value.text().map(str::to_owned)
        } else if template.transforms.iter().any(|t| t == LANGUAGE_EXTENSIONS) {
            self.early(template, value)
        } else {
            None
        };
        match word.as_deref() {
            Some("Delete") => Some(DeletionPolicy::Delete),
            Some("Retain") => Some(DeletionPolicy::Retain),
            Some("Snapshot") => Some(DeletionPolicy::Snapshot),
            Some("RetainExceptOnCreate") if name == "DeletionPolicy" => {
                Some(DeletionPolicy::RetainExceptOnCreate)
            }
            _ => {
                self.error(
                    "cfn.policy",
                    value,
                    format!("`{name}` is one of Delete, Retain, Snapshot"),
                    None,
                );
                None
            }
        }
    }

    /// Evaluates what must be known before any resource is.
    fn early(&self, template: &Template, value: &Node) -> Option<String> {
        let parameters = template
            .parameters
            .iter()
            .filter_map(|(name, p)| {
                let value = self.given.get(name).or(p.default.as_ref())?;
                Some((name.clone(), Value::String(value.clone())))
            })
            .collect();
        let pseudo = Pseudo {
            account: String::new(),
            region: String::new(),
            stack_name: String::new(),
            stack_id: None,
            notification_arns: Vec::new(),
        };
        let scope = Scope {
            template,
            parameters: &parameters,
            pseudo: &pseudo,
            resolver: &Nothing,
        };
        let found = evaluate(&long_form(value), &scope).ok()?;
        found.as_str().map(str::to_owned)
    }

    fn outputs(&mut self, root: &Node, template: &mut Template) {
        let Some(section) = root.get("Outputs") else {
            return;
        };
        self.limit(section, Limit::OUTPUTS, "outputs");
        for (key, node) in section.entries() {
            let Some(value) = node.get("Value") else {
                self.error(
                    "cfn.output",
                    key,
                    format!("the output `{}` has no `Value`", key.key_text()),
                    None,
                );
                continue;
            };
            template.outputs.insert(
                key.key_text(),
                Output {
                    value: long_form(value),
                    condition: node
                        .get("Condition")
                        .and_then(Node::text)
                        .map(str::to_owned),
                    export: node
                        .get("Export")
                        .and_then(|e| e.get("Name"))
                        .map(long_form),
                },
            );
        }
    }

    fn references(&mut self, root: &Node, template: &Template) {
        let mut missing: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, resource) in &template.resources {
            let mut bad = Vec::new();
            references(&resource.properties, &mut |to, attribute| {
                if !known(template, to, attribute) {
                    bad.push(to.to_owned());
                }
            });
            bad.extend(
                resource
                    .depends_on
                    .iter()
                    .filter(|d| !template.resources.contains_key(*d))
                    .cloned(),
            );
            if let Some(condition) = &resource.condition
                && !template.conditions.contains_key(condition)
            {
                bad.push(condition.clone());
            }
            if !bad.is_empty() {
                missing.insert(format!("Resources/{name}"), bad);
            }
        }
        for (name, output) in &template.outputs {
            let mut bad = Vec::new();
            references(&output.value, &mut |to, attribute| {
                if !known(template, to, attribute) {
                    bad.push(to.to_owned());
                }
            });
            if !bad.is_empty() {
                missing.insert(format!("Outputs/{name}"), bad);
            }
        }
        for (path, names) in missing {
            let owner = root.follow(path.split('/'));
            for name in names {
                let at = find_reference(owner, &name).unwrap_or(owner).clone();
                let help = closest(
                    &name,
                    template
                        .resources
                        .keys()
                        .chain(template.parameters.keys())
                        .map(String::as_str),
                )
                .map(|c| format!("did you mean `{c}`?"));
                let what = format!(
                    "`{name}` is neither a resource, a parameter nor a condition of this template"
                );
                self.error("cfn.reference", &at, what, help);
            }
        }
    }
}

fn known(template: &Template, name: &str, attribute: bool) -> bool {
    let serverless = !template.transforms.is_empty()
        && template.resources.keys().any(|r| {
            name.starts_with(r.as_str())
                && name.len() > r.len()
                && template.resources[r].kind.starts_with("AWS::Serverless::")
        });
    template.resources.contains_key(name)
        || serverless
        || (!attribute && (template.parameters.contains_key(name) || name.starts_with("AWS::")))
}

fn find_reference<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    match &node.kind {
        Kind::Scalar(text, _) => {
            let hit = match node.tag.as_deref() {
                Some("Ref" | "Condition") => text == name,
                Some("GetAtt") => text.split('.').next() == Some(name),
                Some("Sub") => text.contains(&format!("${{{name}")),
                _ => text == name,
            };
            hit.then_some(node)
        }
        Kind::Sequence(items) => items.iter().find_map(|n| find_reference(n, name)),
        Kind::Mapping(entries) => entries.iter().find_map(|(_, n)| find_reference(n, name)),
    }
}

/// There are no resources yet.
struct Nothing;

impl Resolver for Nothing {
    fn resource(&self, logical: &str, _: Option<&str>) -> Result<Value, EvaluateError> {
        Err(EvaluateError {
            message: format!("`{logical}` is not known yet"),
        })
    }

    fn import(&self, name: &str) -> Result<Value, EvaluateError> {
        self.resource(name, None)
    }
}

fn truthy(value: &Value) -> bool {
    matches!(value, Value::Bool(true))
        || value
            .as_str()
            .is_some_and(|t| t.eq_ignore_ascii_case("true"))
}

/// Converts a tree to JSON, with short tags in their long form.
fn long_form(node: &Node) -> Value {
    let plain = match &node.kind {
        Kind::Scalar(text, style) => {
            let tag = node.tag.as_deref().filter(|t| matches!(*t, "str" | "null"));
            yaml::resolve(text, *style, tag).into_json()
        }
        Kind::Sequence(items) => Value::Array(items.iter().map(long_form).collect()),
        Kind::Mapping(entries) => Value::Object(
            entries
                .iter()
                .map(|(k, v)| (k.key_text(), long_form(v)))
                .collect(),
        ),
    };
    match node.tag.as_deref() {
        None | Some("str" | "null") => plain,
        Some(name @ ("Ref" | "Condition")) => json!({ name: node.key_text() }),
        Some("GetAtt") if node.text().is_some() => {
            let text = node.key_text();
            let (logical, attribute) = text.split_once('.').unwrap_or((&text, ""));
            json!({ "Fn::GetAtt": [logical, attribute] })
        }
        Some(name) => json!({ format!("Fn::{name}"): plain }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_by_what_is_needed_and_then_by_name() {
        use std::fmt::Write;
        let mut text = String::from("Resources:\n");
        // Two chains, written backwards, and one that belongs to neither.
        for i in (0..60).rev() {
            for chain in ["A", "B"] {
                let needs = if i == 0 {
                    String::new()
                } else {
                    format!(", DependsOn: {chain}{}", i - 1)
                };
                let _ = writeln!(text, "  {chain}{i}: {{Type: 'AWS::SNS::Topic'{needs}}}");
            }
        }
        text.push_str("  C: {Type: 'AWS::SNS::Topic', DependsOn: [A0, B1]}\n");
        let order = parse_template("t", &text).unwrap().order().unwrap();
        let mut wanted: Vec<String> = (0..60)
            .flat_map(|i| [format!("A{i}"), format!("B{i}")])
            .collect();
        wanted.insert(6, "C".into());
        assert_eq!(order, wanted);
        let circle = text.replace(
            "  A0: {Type: 'AWS::SNS::Topic'}",
            "  A0: {Type: 'AWS::SNS::Topic', DependsOn: A2}",
        );
        let findings = parse_template("t", &circle).unwrap_err();
        assert!(
            findings[0].message.ends_with("A0 → A2 → A1 → A0"),
            "{findings:?}"
        );
    }

    #[test]
    fn short_and_long_forms_mean_the_same() {
        let short = "Resources:\n  A: {Type: 'AWS::SNS::Topic', Properties: {TopicName: !Sub '${B.TopicName}-x', K: !GetAtt B.Arn}}\n  B: {Type: 'AWS::SNS::Topic'}\n";
        let long = "Resources:\n  A: {Type: 'AWS::SNS::Topic', Properties: {TopicName: {'Fn::Sub': '${B.TopicName}-x'}, K: {'Fn::GetAtt': [B, Arn]}}}\n  B: {Type: 'AWS::SNS::Topic'}\n";
        let (short, long) = (
            parse_template("a", short).unwrap(),
            parse_template("b", long).unwrap(),
        );
        assert_eq!(short.resources, long.resources);
        assert_eq!(short.order().unwrap(), ["B", "A"]);
    }

    #[test]
    fn every_fault_of_a_template_has_a_place() {
        let text = "Resource: {}\nResources:\n  A:\n    Type: AWS::SNS::Topic\n    Properties:\n      TopicName: !Ref Missing\n    DependsOn: Gone\n  B: {}\n";
        let found = parse_template("t.yaml", text).unwrap_err();
        let seen: Vec<(String, u32)> = found
            .iter()
            .map(|f| (f.code.clone(), f.place.span.unwrap().line))
            .collect();
        assert_eq!(
            seen,
            [
                ("cfn.section".into(), 1),
                ("cfn.type".into(), 8),
                ("cfn.reference".into(), 6),
                ("cfn.reference".into(), 7)
            ]
        );
    }

    #[test]
    fn circles_are_named() {
        let text = "Resources:\n  A: {Type: 'X::Y::Z', DependsOn: B}\n  B: {Type: 'X::Y::Z', DependsOn: A}\n";
        let found = parse_template("t", text).unwrap_err();
        assert!(
            found[0].message.contains("A → B → A"),
            "{}",
            found[0].message
        );
    }

    #[test]
    fn unknown_transforms_are_refused_by_name() {
        let found = parse_template("t", "Transform: MyMacro\nResources: {A: {Type: 'X::Y::Z'}}")
            .unwrap_err();
        assert!(found[0].message.contains("MyMacro"));
    }

    fn codes(text: &str) -> Vec<String> {
        let found = parse_template("t", text).err().unwrap_or_default();
        found.into_iter().map(|f| f.code).collect()
    }

    #[test]
    fn sec_06_macros_and_includes_are_refused_wherever_they_stand() {
        let include = "{Name: 'AWS::Include', Parameters: {Location: 's3://other/x.yaml'}}";
        for text in [
            format!("Transform: {include}\nResources: {{A: {{Type: 'X::Y::Z'}}}}\n"),
            format!(
                "Resources: {{A: {{Type: 'X::Y::Z', Properties: {{'Fn::Transform': {include}}}}}}}\n"
            ),
            format!(
                "Resources: {{A: {{Type: 'X::Y::Z', Properties: {{P: !Transform {include}}}}}}}\n"
            ),
            format!("Resources: {{A: {{Type: 'X::Y::Z'}}, 'Fn::Transform': {include}}}\n"),
            format!(
                "Mappings: {{M: {{'Fn::Transform': {include}}}}}\nResources: {{A: {{Type: 'X::Y::Z'}}}}\n"
            ),
            format!("Metadata: [!Transform {include}]\nResources: {{A: {{Type: 'X::Y::Z'}}}}\n"),
            "Transform: [AWS::Include]\nResources: {A: {Type: 'X::Y::Z'}}\n".to_owned(),
        ] {
            let found = codes(&text);
            assert!(
                found.iter().any(|c| c == "cfn.transform"),
                "{found:?}: {text}"
            );
        }
    }

    #[test]
    fn sec_10_limits_of_cloudformation_are_known_before_it_is_asked() {
        let many = |section: &str, count: usize, each: &str| {
            let lines: String = (0..count).map(|i| format!("  N{i}: {each}\n")).collect();
            format!("{section}:\n{lines}")
        };
        let resource = "{Type: 'X::Y::Z'}";
        let one = many("Resources", 1, resource);
        assert!(parse_template("t", &many("Resources", 500, resource)).is_ok());
        for (text, code) in [
            (many("Resources", 501, resource), "cfn.limit"),
            (
                one.clone() + &many("Parameters", 201, "{Type: String}"),
                "cfn.limit",
            ),
            (
                one.clone() + &many("Parameters", 10_000, "{Type: String}"),
                "cfn.limit",
            ),
            (
                one.clone() + &many("Outputs", 201, "{Value: x}"),
                "cfn.limit",
            ),
            (
                one.clone() + &many("Mappings", 201, "{a: {b: c}}"),
                "cfn.limit",
            ),
            (
                format!("{one}Description: '{}'\n", "x".repeat(1 << 20)),
                "yaml.size",
            ),
            (
                format!("{one}Description: '{}'\n", "x".repeat(50 << 20)),
                "yaml.size",
            ),
        ] {
            assert_eq!(codes(&text), [code], "{} bytes", text.len());
        }
        // 51,200 bytes is the limit of a template that is sent inline; isoform never does.
        let large = format!("{one}Description: '{}'\n", "x".repeat(51_201));
        assert!(parse_template("t", &large).is_ok());
    }

    #[test]
    fn sec_10_a_template_of_faults_is_given_up() {
        let faults: String = (0..20_000).map(|i| format!("  N{i}: 1\n")).collect();
        let found = parse_template("t", &format!("Resources:\n{faults}")).unwrap_err();
        assert!(found.len() <= FINDINGS, "{}", found.len());
    }
}
