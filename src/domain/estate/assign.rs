//! Where the values of a target stand, and how one of them is changed: for `isoform set`.
//!
//! The file and the place are found from the files alone, as compiling finds them. The type of a value comes from the
//! template: an input of the type `string` stays text even if it looks like a number.

use std::collections::BTreeMap;

use serde_json::Value;

use super::compile::read_sync;
use super::validate::offline;
use super::{Placement, Target, TargetKind};
use crate::domain::cfn::{Parameter, parse_template};
use crate::domain::model::{Address, Finding, PlacementName, closest};
use crate::domain::schema::InputType;
use crate::domain::spec::parse_deployment;
use crate::domain::template::{Files, text_of};
use crate::domain::yaml::{self, Limits, Node, Scalar, Style, Wanted, resolve, set_scalar};

/// Why a value cannot be set.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AssignError {
    /// What was asked for does not exist or makes no sense; the text says what there is.
    #[error("{0}")]
    Asked(String),
    /// The files have faults, so that it cannot be told.
    #[error("{0}")]
    Faults(String, Vec<Finding>),
}

/// One value as it was and as it is now.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Assigned {
    /// The key, as it was asked for.
    pub key: String,
    /// The line on which it stands now.
    pub line: u32,
    /// What stood there; absent where nothing did.
    pub before: Option<String>,
    /// What stands there now.
    pub after: String,
    /// Whether it was this already.
    pub unchanged: bool,
    /// Whether the value must not be shown.
    pub secret: bool,
}

/// A file with values changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// The targets that take these values: one, or one for each region.
    pub targets: Vec<Address>,
    /// The file.
    pub file: String,
    /// Its text now.
    pub text: String,
    /// The values, in the order in which they were asked for.
    pub values: Vec<Assigned>,
}

impl Assignment {
    /// Tells whether every value was there already.
    pub fn is_empty(&self) -> bool {
        self.values.iter().all(|v| v.unchanged)
    }
}

/// Sets values of a target in the file that they come from.
///
/// `placements` are the daemon's; where they are not known, they are guessed as `validate` does.
pub fn assign(
    files: &Files,
    placements: Option<&BTreeMap<PlacementName, Placement>>,
    branch: &str,
    asked: &Address,
    values: &[(String, String)],
) -> Result<Assignment, AssignError> {
    let compiled = offline(files, placements, branch);
    let all: Vec<&Target> = compiled.targets.values().map(|t| &**t).collect();
    let found = meant(&all, asked);
    let Some(first) = found.first() else {
        let names: Vec<String> = all.iter().map(|t| t.address.to_string()).collect();
        // Without any target the faults say why.
        if names.is_empty() && compiled.findings.iter().any(Finding::is_error) {
            let faults = compiled.findings.iter().filter(|f| f.is_error());
            return Err(AssignError::Faults(
                format!("the files ask for no target, so there is no `{asked}`"),
                faults.cloned().collect(),
            ));
        }
        return Err(unknown("target", &asked.to_string(), &names));
    };
    let mut slot = Slot::of(files, first)?;
    let mut targets = vec![first.address.clone()];
    for other in &found[1..] {
        let same = Slot::of(files, other)?;
        if (&same.file, &same.base) != (&slot.file, &slot.base) {
            return Err(AssignError::Asked(format!(
                "`{asked}` is several targets with values of their own: name one of {}",
                found
                    .iter()
                    .map(|t| t.address.to_string())
                    .collect::<Vec<_>>()
                    .join(", ")
            )));
        }
        targets.push(other.address.clone());
    }
    let mut done = Vec::new();
    for (key, raw) in values {
        done.push(slot.set(files, first, key, raw)?);
        slot.started = true;
    }
    // A later value may have moved an earlier one.
    for (value, (key, _)) in done.iter_mut().zip(values) {
        value.line = slot.line(key).unwrap_or(value.line);
    }
    Ok(Assignment {
        targets,
        file: slot.file,
        text: slot.text,
        values: done,
    })
}

/// Finds the targets that an address means: itself, all its regions, or the one without where regions are not known.
fn meant<'a>(all: &[&'a Target], asked: &Address) -> Vec<&'a Target> {
    let exact: Vec<&Target> = all
        .iter()
        .copied()
        .filter(|t| t.address == *asked)
        .collect();
    if !exact.is_empty() {
        return exact;
    }
    let base = asked.base();
    let near = all.iter().copied().filter(|t| t.address.base() == base);
    match asked.region() {
        None => near.collect(),
        Some(_) => near.filter(|t| t.address.region().is_none()).collect(),
    }
}

fn unknown(what: &str, name: &str, known: &[String]) -> AssignError {
    let near = closest(name, known.iter().map(String::as_str));
    let more = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "there is none".to_owned(),
        None => {
            let shown: Vec<&str> = known.iter().take(20).map(String::as_str).collect();
            let more = known.len().saturating_sub(20);
            let rest = match more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("there are {}{rest}", shown.join(", "))
        }
    };
    AssignError::Asked(format!(
        "there is no {what} `{}`: {more}",
        name.escape_debug()
    ))
}

/// What a target's values are checked with.
enum Inputs<'a> {
    Schema(&'a InputType),
    Parameters(BTreeMap<String, Parameter>),
}

/// The mapping of a file that holds a target's values.
struct Slot<'a> {
    file: String,
    text: String,
    limits: Limits,
    base: Vec<String>,
    inputs: Inputs<'a>,
    /// Whether a value was looked at: from then on the file is chosen.
    started: bool,
}

impl<'a> Slot<'a> {
    fn of(files: &Files, target: &'a Target) -> Result<Self, AssignError> {
        let asked = |message: String| Err(AssignError::Asked(message));
        let address = &target.address;
        let name = address.name().to_owned();
        let spec = target.values_at.as_ref().map(|p| p.file.clone());
        let schema = |input: &'a Option<InputType>| {
            let none = || AssignError::Asked(format!("the template of {address} has no inputs"));
            input.as_ref().map(Inputs::Schema).ok_or_else(none)
        };
        let (file, base, inputs, limits) = match &target.kind {
            TargetKind::Environment { template, .. } => {
                let inputs = schema(&template.bundle.schema.environment)?;
                (spec, vec!["spec".to_owned()], inputs, Limits::SPEC)
            }
            TargetKind::Instance { template, .. } => {
                let inputs = schema(&template.bundle.schema.service)?;
                let file = spec.clone().unwrap_or_default();
                let at = instance(files, &file, &name)?;
                let base = vec!["instances".to_owned(), at.to_string(), "spec".to_owned()];
                (spec, base, inputs, Limits::SPEC)
            }
            TargetKind::Pipeline { template, .. } => {
                let inputs = schema(&template.bundle.schema.pipeline)?;
                (spec, vec!["pipeline".to_owned()], inputs, Limits::SPEC)
            }
            TargetKind::Stack { path, text, .. } => {
                let template = parse_template(path, text).map_err(|faults| {
                    AssignError::Faults(format!("{path} cannot be read"), faults)
                })?;
                let base = ["stacks", &name, "parameters"].map(str::to_owned).to_vec();
                let file = Some(target.made_by.file.clone());
                (
                    file,
                    base,
                    Inputs::Parameters(template.parameters),
                    Limits::SYNC,
                )
            }
            TargetKind::CustomerManaged { .. } => {
                return asked(format!(
                    "{address} is provisioned by its customer: its values are outputs that somebody else reports"
                ));
            }
            TargetKind::Component { .. } => {
                return asked(format!(
                    "{address} is a component, and has no values of its own: it takes those of what it is attached to"
                ));
            }
            TargetKind::Broken => {
                return Err(AssignError::Faults(
                    format!("the files of {address} have faults"),
                    target.faults.clone(),
                ));
            }
        };
        let file = file.unwrap_or_default();
        let text = text_of(files, &file)
            .map_err(|f| one_fault(&file, *f))?
            .to_owned();
        Ok(Self {
            file,
            text,
            limits,
            base,
            inputs,
            started: false,
        })
    }

    fn root(&self) -> Result<Node, AssignError> {
        yaml::parse(&self.file, &self.text, &self.limits)
            .map_err(|f| AssignError::Faults(format!("{} cannot be read", self.file), f))
    }

    fn path<'k>(&'k self, key: &'k str) -> Vec<&'k str> {
        let base = self.base.iter().map(String::as_str);
        match self.inputs {
            Inputs::Schema(_) => base.chain(key.split('.')).collect(),
            Inputs::Parameters(_) => base.chain([key]).collect(),
        }
    }

    fn line(&self, key: &str) -> Option<u32> {
        let root = self.root().ok()?;
        found(&root, &self.path(key)).map(|n| n.span.line)
    }

    fn set(
        &mut self,
        files: &Files,
        target: &Target,
        key: &str,
        raw: &str,
    ) -> Result<Assigned, AssignError> {
        if key.is_empty() || key.split('.').any(str::is_empty) {
            return Err(AssignError::Asked(format!(
                "`{}` is not a key: write names with dots between them",
                key.escape_debug()
            )));
        }
        if matches!(self.inputs, Inputs::Parameters(_)) {
            self.follow_deployment(files, target, key)?;
        }
        let root = self.root()?;
        let node = found(&root, &self.path(key));
        let (given, default, secret) = self.typed(&root, target, key, raw, node)?;
        let before = node.and_then(|n| n.text().map(str::to_owned));
        let mut done = Assigned {
            key: key.to_owned(),
            line: node.map_or(1, |n| n.span.line),
            before,
            after: raw.to_owned(),
            unchanged: false,
            secret,
        };
        let wanted = given.wanted();
        if node.is_some_and(|n| wanted.is(n)) {
            done.unchanged = true;
            return Ok(done);
        }
        if node.is_none() && default.is_some_and(|d| given.is(&d)) {
            done.before = Some(raw.to_owned());
            done.unchanged = true;
            return Ok(done);
        }
        let path = self.path(key);
        self.text = set_scalar(&self.file, &self.text, &self.limits, &path, wanted)
            .map_err(|f| AssignError::Faults(format!("`{key}` cannot be set"), f))?;
        done.after = match &given {
            Given::Literal(text) | Given::Text(text) | Given::Written(text) => text.clone(),
        };
        Ok(done)
    }

    /// A stack's parameters may stand in the deployment file that its entry names; what the entry says wins.
    fn follow_deployment(
        &mut self,
        files: &Files,
        target: &Target,
        key: &str,
    ) -> Result<(), AssignError> {
        let (sync, _) = read_sync(files);
        let name = target.address.name();
        let Some(entry) = sync.stacks.iter().find(|s| s.name == name) else {
            return Ok(());
        };
        let own = entry.options.parameters.contains_key(key);
        let text = text_of(files, &entry.template).unwrap_or_default();
        let deployment = text
            .contains("template-file-path")
            .then(|| parse_deployment(&entry.template, text));
        let Some(Ok((_, options))) = deployment else {
            return Ok(());
        };
        let there = !own && options.parameters.contains_key(key);
        let here = self.file == entry.template;
        if there == here {
            return Ok(());
        }
        // All values of one call stand in one file, so that they are one commit or none.
        if self.started || here {
            return Err(AssignError::Asked(format!(
                "some of these parameters stand in {} and some in {}: set them one file at a time",
                self.file,
                if here {
                    &target.made_by.file
                } else {
                    &entry.template
                }
            )));
        }
        self.file.clone_from(&entry.template);
        self.text = text.to_owned();
        self.limits = Limits::SPEC;
        self.base = vec!["parameters".to_owned()];
        Ok(())
    }

    /// Reads a value as the template's type wants it; returns its default and whether it is secret.
    fn typed(
        &self,
        root: &Node,
        target: &Target,
        key: &str,
        raw: &str,
        node: Option<&Node>,
    ) -> Result<(Given, Option<Value>, bool), AssignError> {
        let address = &target.address;
        match &self.inputs {
            Inputs::Parameters(parameters) => {
                let Some(parameter) = parameters.get(key) else {
                    let names: Vec<String> = parameters.keys().cloned().collect();
                    return Err(unknown(&format!("parameter of {address}"), key, &names));
                };
                let default = parameter.default.clone().map(Value::String);
                Ok((Given::Written(raw.to_owned()), default, parameter.no_echo))
            }
            Inputs::Schema(input) => {
                let parts: Vec<&str> = key.split('.').collect();
                let schemas = input.schemas_at(&parts);
                if schemas.is_empty() && node.is_none() {
                    if target.options.parameters.contains_key(key) {
                        return Err(AssignError::Asked(format!(
                            "`{key}` is no input of {address}: the sync file sets it among `parameters`, perhaps in `overrides`; change it there ({})",
                            target.made_by.file
                        )));
                    }
                    let (mut depth, mut names) = (parts.len(), Vec::new());
                    while depth > 0 && names.is_empty() {
                        depth -= 1;
                        let prefix = parts[..depth].iter().map(|p| format!("{p}."));
                        let prefix: String = prefix.collect();
                        let inner = input.names_at(&parts[..depth]);
                        names = inner.into_iter().map(|n| format!("{prefix}{n}")).collect();
                    }
                    return Err(unknown(&format!("input of {address}"), key, &names));
                }
                if schemas
                    .iter()
                    .any(|s| s.get("readOnly") == Some(&Value::Bool(true)))
                {
                    return Err(AssignError::Asked(format!(
                        "`{key}` is read-only in the schema of {address}"
                    )));
                }
                for depth in 1..parts.len() {
                    let outer = parts[..depth].join(".");
                    let whole = input.default_at(&parts[..depth]);
                    if whole.is_some() && found(root, &self.path(&outer)).is_none() {
                        return Err(AssignError::Asked(format!(
                            "`{outer}` comes as a whole from the default of the template, and setting one value in it would drop the others: write `{outer}` into {} first",
                            self.file
                        )));
                    }
                }
                let given = of_type(&schemas, key, raw, node)?;
                Ok((given, input.default_at(&parts), false))
            }
        }
    }
}

fn one_fault(file: &str, fault: Finding) -> AssignError {
    AssignError::Faults(format!("{file} cannot be read"), vec![fault])
}

fn instance(files: &Files, file: &str, name: &str) -> Result<usize, AssignError> {
    let text = text_of(files, file).map_err(|f| one_fault(file, *f))?;
    let root = yaml::parse(file, text, &Limits::SPEC)
        .map_err(|f| AssignError::Faults(format!("{file} cannot be read"), f))?;
    let listed = root.get("instances").map(Node::items).unwrap_or_default();
    let at = listed
        .iter()
        .position(|i| i.get("name").and_then(Node::text) == Some(name));
    at.ok_or_else(|| AssignError::Asked(format!("{file} has no instance `{name}`")))
}

/// Follows a path to its end; nothing where a part of it is missing.
fn found<'a>(root: &'a Node, path: &[&str]) -> Option<&'a Node> {
    path.iter()
        .try_fold(root, |node, part| match part.parse::<usize>() {
            Ok(at) if node.is_sequence() => node.items().get(at),
            _ => node.get(part),
        })
}

/// A value as it is to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Given {
    Text(String),
    Literal(String),
    Written(String),
}

impl Given {
    fn wanted(&self) -> Wanted<'_> {
        match self {
            Self::Text(text) => Wanted::Text(text),
            Self::Literal(text) => Wanted::Literal(text),
            Self::Written(text) => Wanted::Written(text),
        }
    }

    /// Tells whether a JSON value is this.
    fn is(&self, value: &Value) -> bool {
        match self {
            Self::Literal(text) => resolve(text, Style::Plain, None).into_json() == *value,
            Self::Text(text) | Self::Written(text) => value.as_str() == Some(text),
        }
    }
}

/// Reads a value by the types of its schema; without one, by what stood there, else as YAML reads it.
fn of_type(
    schemas: &[&Value],
    key: &str,
    raw: &str,
    node: Option<&Node>,
) -> Result<Given, AssignError> {
    let types: Vec<&str> = schemas
        .iter()
        .filter_map(|s| s.get("type"))
        .flat_map(|t| match t {
            Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect::<Vec<_>>(),
        })
        .filter(|t| *t != "null")
        .collect();
    let refused = |what: &str| {
        AssignError::Asked(format!(
            "`{key}` takes {what}, and `{}` is none",
            raw.escape_debug()
        ))
    };
    let has = |word: &str| types.contains(&word);
    let text = || Given::Text(raw.to_owned());
    if types.is_empty() {
        let was_text = node.is_some_and(|n| matches!(n.scalar(), Some(Scalar::Text(_))));
        let found = boolean(raw).or_else(|| number(raw));
        return Ok(found.filter(|_| !was_text).unwrap_or_else(text));
    }
    if has("string") {
        // Where other types are allowed too, what stood there decides.
        let other = node.and_then(|n| match n.scalar() {
            Some(Scalar::Bool(_)) if has("boolean") => boolean(raw),
            Some(Scalar::Int(_)) if has("integer") || has("number") => number(raw),
            Some(Scalar::Float(_)) if has("number") => number(raw),
            _ => None,
        });
        return Ok(other.unwrap_or_else(text));
    }
    if has("boolean")
        && let Some(given) = boolean(raw)
    {
        return Ok(given);
    }
    if has("number")
        && let Some(given) = number(raw)
    {
        return Ok(given);
    }
    if has("integer")
        && let Ok(whole) = raw.parse::<i64>()
    {
        return Ok(Given::Literal(whole.to_string()));
    }
    Err(match types[0] {
        "boolean" => refused("true or false"),
        "integer" => refused("a whole number"),
        "number" => refused("a number"),
        _ => AssignError::Asked(format!(
            "`{key}` is {}, not one value: name one value in it, with dots between the keys",
            if has("array") { "a list" } else { "a mapping" }
        )),
    })
}

fn boolean(raw: &str) -> Option<Given> {
    match resolve(raw, Style::Plain, None) {
        Scalar::Bool(value) => Some(Given::Literal(value.to_string())),
        _ => None,
    }
}

/// Reads a decimal number and writes it so that YAML 1.1 and 1.2 both read it.
fn number(raw: &str) -> Option<Given> {
    if let Ok(whole) = raw.parse::<i64>() {
        return Some(Given::Literal(whole.to_string()));
    }
    let value = raw
        .parse::<f64>()
        .ok()
        .filter(|f| f.is_finite() && f.abs() < 1e15)?;
    let text = value.to_string();
    Some(Given::Literal(if text.contains('.') {
        text
    } else {
        format!("{text}.0")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::template::Blob;

    const MANIFEST: &str = "infrastructure: {templates: [{file: c.yaml, rendering_engine: jinja, template_language: cloudformation}]}";
    const TEMPLATE: &str = "Resources: {T: {Type: 'AWS::SNS::Topic'}}";
    const SCHEMA: &str = "schema:
  format: {openapi: '3.0.0'}
  service_input_type: A
  types:
    A:
      type: object
      properties:
        image: {type: string}
        count: {type: integer, minimum: 1, default: 2}
        share: {type: number}
        loud: {type: boolean}
        fixed: {type: string, readOnly: true}
        any: {}
        ports: {type: array, items: {type: integer}}
        size: {$ref: '#/B'}
        whole: {type: object, default: {a: 1, b: 2}, properties: {a: {type: integer}, b: {type: integer}}}
    B:
      type: object
      properties: {cpu: {type: integer}}
";
    const SPEC: &str = "# the service
proton: ServiceSpec
instances:
  - name: dev   # first
    environment: beta
    spec:
      image: \"web:1.0\"   # set by CI
      any: 7
      ports: [80, 443]
  - name: prod
    environment: beta
";

    fn files() -> Files {
        let environment = "schema: {format: {openapi: '3.0.0'}, environment_input_type: A, types: {A: {type: object, properties: {a: {type: string}}}}}";
        [
            ("t/environment/net/v1/schema/schema.yaml", environment),
            ("t/environment/net/v1/infrastructure/manifest.yaml", MANIFEST),
            ("t/environment/net/v1/infrastructure/c.yaml", TEMPLATE),
            ("t/service/web/v1/schema/schema.yaml", SCHEMA),
            ("t/service/web/v1/.template-registration.yaml", "compatible_environments: ['net:1']\n"),
            ("t/service/web/v1/instance_infrastructure/manifest.yaml", MANIFEST),
            ("t/service/web/v1/instance_infrastructure/c.yaml", TEMPLATE),
            ("plain.yaml", "Parameters: {Size: {Type: Number, Default: '3'}, Key: {Type: String, NoEcho: true}}\nResources: {T: {Type: 'AWS::SNS::Topic'}}"),
            ("synced.yaml", "template-file-path: plain.yaml\nparameters:\n  Size: 5 # here\n"),
            ("beta.yaml", "proton: EnvironmentSpec\nspec: {a: b}\n"),
            ("orders.yaml", SPEC),
            (
                "isoform.yaml",
                "isoform: 1\nenvironments: {beta: {template: net@1, spec: beta.yaml, placement: beta}}\nservices: {orders: {template: web@1, spec: orders.yaml, overrides: {dev: {parameters: {Set: x}}}}}\nstacks:\n  plain: { template: plain.yaml, placement: beta, parameters: { Key: k } }\n  synced: { template: synced.yaml, placement: beta, parameters: { Key: k } }\n",
            ),
        ]
        .into_iter()
        .map(|(p, t)| (p.to_owned(), Blob::new(t.as_bytes())))
        .collect()
    }

    fn set(target: &str, values: &[(&str, &str)]) -> Result<Assignment, AssignError> {
        let values: Vec<(String, String)> = values
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        assign(&files(), None, "main", &target.parse().unwrap(), &values)
    }

    #[test]
    fn a_value_is_found_and_written_by_its_type() {
        for (target, key, value, from, to) in [
            (
                "svc/orders/dev",
                "image",
                "web:1.1",
                "\"web:1.0\"   #",
                "\"web:1.1\"   #",
            ),
            ("svc/orders/dev", "image", "2", "\"web:1.0\"", "\"2\""),
            (
                "svc/orders/dev",
                "count",
                "03",
                "443]\n",
                "443]\n      count: 3\n",
            ),
            (
                "svc/orders/dev",
                "share",
                "1e2",
                "443]\n",
                "443]\n      share: 100.0\n",
            ),
            (
                "svc/orders/dev",
                "loud",
                "yes",
                "443]\n",
                "443]\n      loud: true\n",
            ),
            ("svc/orders/dev", "any", "8", "any: 7", "any: 8"),
            ("svc/orders/dev", "any", "x", "any: 7", "any: x"),
            ("svc/orders/dev", "ports.1", "8443", "443", "8443"),
            (
                "svc/orders/dev",
                "size.cpu",
                "4",
                "443]\n",
                "443]\n      size:\n        cpu: 4\n",
            ),
            ("svc/orders/prod", "image", "1.0", "environment: beta\n", ""),
        ] {
            let found = set(target, &[(key, value)]).unwrap();
            let expected = match to {
                "" => format!("{SPEC}    spec:\n      image: '1.0'\n"),
                to => SPEC.replacen(from, to, 1),
            };
            assert_eq!(
                (found.file.as_str(), found.text),
                ("orders.yaml", expected),
                "{key}"
            );
        }
        let both = set("svc/orders/dev", &[("image", "a"), ("count", "3")]).unwrap();
        let lines: Vec<u32> = both.values.iter().map(|v| v.line).collect();
        assert_eq!(lines, [7, 10]);
        assert_eq!(both.values[0].before.as_deref(), Some("web:1.0"));
    }

    #[test]
    fn parameters_of_a_stack_stand_in_the_sync_file_or_in_its_deployment_file() {
        let plain = set("stack/plain", &[("Size", "07"), ("Key", "s3cret")]).unwrap();
        assert_eq!(plain.file, "isoform.yaml");
        assert!(
            plain
                .text
                .contains("parameters: { Key: s3cret, Size: '07' } }\n  synced"),
            "{}",
            plain.text
        );
        assert!(plain.values[1].secret && !plain.values[0].secret);

        let synced = set("stack/synced", &[("Size", "6")]).unwrap();
        assert_eq!(
            (synced.file.as_str(), synced.text.as_str()),
            (
                "synced.yaml",
                "template-file-path: plain.yaml\nparameters:\n  Size: 6 # here\n"
            )
        );
        for both in [[("Size", "6"), ("Key", "x")], [("Key", "x"), ("Size", "6")]] {
            let both = set("stack/synced", &both).unwrap_err();
            assert!(both.to_string().contains("one file at a time"), "{both}");
        }
    }

    #[test]
    fn what_is_there_already_is_no_change() {
        for (target, key, value) in [
            ("svc/orders/dev", "image", "web:1.0"),
            ("svc/orders/dev", "count", "2"),
            ("svc/orders/dev", "ports.0", "80"),
            ("stack/plain", "Size", "3"),
            ("env/beta", "a", "b"),
        ] {
            assert!(set(target, &[(key, value)]).unwrap().is_empty(), "{key}");
        }
    }

    #[test]
    fn what_cannot_be_set_says_why() {
        for (target, key, value, word) in [
            (
                "svc/orders/deb",
                "image",
                "x",
                "did you mean `svc/orders/dev`?",
            ),
            ("svc/orders/dev", "imag", "x", "did you mean `image`?"),
            (
                "svc/orders/dev",
                "size.cpus",
                "1",
                "did you mean `size.cpu`?",
            ),
            ("svc/orders/dev", "Set", "x", "perhaps in `overrides`"),
            ("svc/orders/dev", "fixed", "x", "read-only"),
            ("svc/orders/dev", "count", "many", "takes a whole number"),
            ("svc/orders/dev", "loud", "2", "takes true or false"),
            ("svc/orders/dev", "ports", "80", "is a list"),
            ("svc/orders/dev", "size", "80", "is a mapping"),
            (
                "svc/orders/dev",
                "whole.a",
                "3",
                "from the default of the template",
            ),
            ("svc/orders/dev", ".x", "3", "is not a key"),
            ("stack/plain", "Siz", "3", "did you mean `Size`?"),
        ] {
            let error = set(target, &[(key, value)]).unwrap_err().to_string();
            assert!(error.contains(word), "{key}: {error}");
        }
    }
}
