//! `schema/schema.yaml`: the inputs that a template declares, as OpenAPI 3.0 Schema Objects.
//!
//! A schema is translated to JSON Schema draft 4, from which OpenAPI 3.0 took its keywords
//! (<https://spec.openapis.org/oas/v3.0.3#schema-object>), and checked by a library. What is our own is the
//! translation, the places, the defaults and the comparison of two versions.

mod compare;

pub use compare::incompatibilities;

use std::sync::{Arc, OnceLock};

use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value, json};

use crate::domain::model::{Finding, Place, Span, closest};
use crate::domain::spec::Fields;
use crate::domain::yaml::{self, Limits, Node};

/// A schema file that holds together.
#[derive(Clone, Debug)]
pub struct Schema {
    /// Inputs of an environment.
    pub environment: Option<InputType>,
    /// Inputs of a service instance.
    pub service: Option<InputType>,
    /// Inputs of a pipeline.
    pub pipeline: Option<InputType>,
}

/// One named input type.
#[derive(Clone, Debug)]
pub struct InputType {
    /// The key under `types`.
    pub name: String,
    /// The schema in draft 4, with all types under `definitions`.
    pub schema: Value,
    file: String,
    text: String,
    root: Node,
    /// Made when it is first asked for: a schema is compiled once and checks every instance.
    validator: Arc<OnceLock<Result<jsonschema::Validator, String>>>,
}

/// The keywords of an OpenAPI 3.0 Schema Object.
const KEYWORDS: &[&str] = &[
    "$ref",
    "additionalProperties",
    "allOf",
    "anyOf",
    "default",
    "deprecated",
    "description",
    "discriminator",
    "enum",
    "example",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "externalDocs",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "nullable",
    "oneOf",
    "pattern",
    "properties",
    "readOnly",
    "required",
    "title",
    "type",
    "uniqueItems",
    "writeOnly",
    "xml",
];

const DEPTH: usize = 32;

impl Schema {
    /// Reads a schema file. Warnings come beside a result, errors instead of one.
    pub fn parse(file: &str, text: &str) -> (Option<Self>, Vec<Finding>) {
        let root = match yaml::parse(file, text, &Limits::SPEC) {
            Ok(root) => root,
            Err(findings) => return (None, findings),
        };
        let mut fields = Fields::new(file, text);
        let at = |node: &Node| Place::at(file, node.span, text);
        fields.known(&root, "a schema file", &["schema"]);
        let Some(schema) = root.get("schema").filter(|s| s.is_mapping()) else {
            fields.push(Finding::error(
                "schema.shape",
                at(&root),
                "a schema file has the key `schema`",
            ));
            return (None, fields.findings);
        };
        let inputs = [
            "environment_input_type",
            "service_input_type",
            "pipeline_input_type",
        ];
        fields.known(
            schema,
            "`schema`",
            &["format", "types", inputs[0], inputs[1], inputs[2]],
        );
        let version = schema.get("format").and_then(|f| f.get("openapi"));
        if version
            .and_then(Node::text)
            .is_none_or(|v| !v.starts_with("3.0"))
        {
            let node = version.or(schema.get("format")).unwrap_or(schema);
            fields.push(Finding::error(
                "schema.format",
                at(node),
                "`format.openapi` must be \"3.0.0\"",
            ));
        }
        let Some(types) = schema.get("types").filter(|t| t.is_mapping()) else {
            fields.push(Finding::error(
                "schema.types",
                at(schema),
                "`types` with at least one type is missing",
            ));
            return (None, fields.findings);
        };
        let mut definitions = Map::new();
        for (key, node) in types.entries() {
            let names: Vec<&str> = types
                .entries()
                .iter()
                .filter_map(|(k, _)| k.text())
                .collect();
            definitions.insert(key.key_text(), translate(node, &mut fields, &names, 0));
        }
        let mut input = |key: &str| -> Option<InputType> {
            let node = schema.get(key)?;
            let name = node.text().unwrap_or_default();
            if types.get(name).is_none() {
                let known = types.entries().iter().filter_map(|(k, _)| k.text());
                let mut finding = Finding::error(
                    "schema.input",
                    at(node),
                    format!("`{name}` is not a key of `types`"),
                );
                finding.help = closest(name, known).map(|c| format!("did you mean `{c}`?"));
                fields.push(finding);
                return None;
            }
            let schema = json!({ "$ref": format!("#/definitions/{}", pointer(name)), "definitions": definitions });
            Some(InputType {
                name: name.to_owned(),
                schema,
                file: file.to_owned(),
                text: text.to_owned(),
                root: root.clone(),
                validator: Arc::default(),
            })
        };
        let (environment, service, pipeline) =
            (input(inputs[0]), input(inputs[1]), input(inputs[2]));
        if environment.is_some() == service.is_some()
            && fields.findings.iter().all(|f| f.code != "schema.input")
        {
            let message = "name exactly one of `environment_input_type` and `service_input_type`";
            fields.push(Finding::error("schema.input", at(schema), message));
        }
        if let (Some(_), Some(node)) = (&environment, schema.get(inputs[2])) {
            fields.push(Finding::error(
                "schema.input",
                at(node),
                "an environment template has no pipeline",
            ));
        }
        let all = Self {
            environment,
            service,
            pipeline,
        };
        for input in [&all.environment, &all.service, &all.pipeline]
            .into_iter()
            .flatten()
        {
            input.check(&mut fields);
        }
        if fields.findings.iter().any(Finding::is_error) {
            (None, fields.findings)
        } else {
            (Some(all), fields.findings)
        }
    }
}

fn pointer(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Translates one Schema Object. Unknown keywords are warned about; JSON Schema would ignore them silently.
fn translate(node: &Node, fields: &mut Fields<'_>, types: &[&str], depth: usize) -> Value {
    if depth > DEPTH {
        fields.error("schema.depth", node, "schemas are nested too deeply");
        return json!({});
    }
    if !node.is_mapping() {
        if depth > 0 && matches!(node.to_json(), Value::Bool(_)) {
            return node.to_json();
        }
        fields.error(
            "schema.shape",
            node,
            format!("a schema is a mapping, this is {}", node.type_name()),
        );
        return json!({});
    }
    let mut out = Map::new();
    for (key, value) in node.entries() {
        let name = key.key_text();
        match name.as_str() {
            "$ref" => {
                let target = value.text().unwrap_or_default();
                let short = target.rsplit('/').next().unwrap_or_default();
                if !target.starts_with("#/") || !types.contains(&short) {
                    let near = closest(short, types.iter().copied())
                        .map(|c| format!("did you mean `#/{c}`?"));
                    let help = near.unwrap_or_else(|| "write `#/<key of types>`".into());
                    fields.push(
                        Finding::error(
                            "schema.ref",
                            fields.at(value),
                            format!("`{target}` names no key of `types`"),
                        )
                        .help(help),
                    );
                    continue;
                }
                out.insert(
                    "$ref".into(),
                    json!(format!("#/definitions/{}", pointer(short))),
                );
            }
            "properties" => {
                let inner = value
                    .entries()
                    .iter()
                    .map(|(k, v)| (k.key_text(), translate(v, fields, types, depth + 1)))
                    .collect();
                out.insert(name, Value::Object(inner));
            }
            "items" | "not" | "additionalProperties" => {
                out.insert(name, translate(value, fields, types, depth + 1));
            }
            "allOf" | "anyOf" | "oneOf" => {
                let inner = value
                    .items()
                    .iter()
                    .map(|v| translate(v, fields, types, depth + 1))
                    .collect();
                out.insert(name, Value::Array(inner));
            }
            "type" => {
                let known = ["string", "number", "integer", "boolean", "object", "array"];
                let word = value.text().unwrap_or_default();
                if known.contains(&word) {
                    out.insert(name, json!(word));
                } else {
                    let mut finding = Finding::error(
                        "schema.type",
                        fields.at(value),
                        format!("`{}` is not a type of OpenAPI 3.0", value.key_text()),
                    );
                    finding.help = Some(closest(word, known).map_or_else(
                        || format!("one of {}", known.join(", ")),
                        |c| format!("did you mean `{c}`?"),
                    ));
                    fields.push(finding);
                }
            }
            _ if KEYWORDS.contains(&name.as_str()) => {
                out.insert(name, value.to_json());
            }
            _ if name.starts_with("x-") => {}
            _ => {
                let mut finding = Finding::warning(
                    "schema.keyword",
                    fields.at(key),
                    format!("`{name}` is not a keyword of OpenAPI 3.0 and has no effect"),
                );
                finding.help = closest(&name, KEYWORDS.iter().copied())
                    .map(|c| format!("did you mean `{c}`?"));
                fields.push(finding);
            }
        }
    }
    if out.get("nullable") == Some(&Value::Bool(true)) {
        nullable(&mut out);
    }
    Value::Object(out)
}

fn nullable(out: &mut Map<String, Value>) {
    if let Some(Value::String(kind)) = out.get("type").cloned() {
        out.insert("type".into(), json!([kind, "null"]));
    }
    if let Some(Value::Array(values)) = out.get_mut("enum")
        && !values.contains(&Value::Null)
    {
        values.push(Value::Null);
    }
    if let Some(reference) = out.remove("$ref") {
        out.insert(
            "anyOf".into(),
            json!([{ "$ref": reference }, { "type": "null" }]),
        );
    }
}

impl InputType {
    fn definition(&self) -> &Value {
        self.schema
            .pointer(&format!("/definitions/{}", pointer(&self.name)))
            .unwrap_or(&Value::Null)
    }

    /// Follows references of a schema to what it means.
    fn resolve<'a>(&'a self, mut schema: &'a Value) -> &'a Value {
        for _ in 0..DEPTH {
            match schema
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|r| self.schema.pointer(r.trim_start_matches('#')))
            {
                Some(next) => schema = next,
                None => break,
            }
        }
        schema
    }

    /// Returns what the schema says of the value at a path of names and indexes; empty where it does not know it.
    pub fn schemas_at(&self, path: &[&str]) -> Vec<&Value> {
        let mut here = self.parts(self.definition(), 0);
        for part in path {
            let next = here.iter().flat_map(|schema| {
                let property = schema.pointer(&format!("/properties/{}", pointer(part)));
                let more = schema.get("additionalProperties").filter(|m| m.is_object());
                let item = schema
                    .get("items")
                    .filter(|_| part.parse::<usize>().is_ok());
                property.or(item).or(more)
            });
            let next: Vec<&Value> = next.collect();
            here = next.into_iter().flat_map(|s| self.parts(s, 0)).collect();
        }
        here
    }

    /// Returns the names of properties that the value at a path may have.
    pub fn names_at(&self, path: &[&str]) -> Vec<&str> {
        let schemas = self.schemas_at(path);
        let properties = schemas
            .iter()
            .filter_map(|s| s.get("properties")?.as_object());
        properties
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Returns the default of the value at a path.
    pub fn default_at(&self, path: &[&str]) -> Option<Value> {
        let schemas = self.schemas_at(path);
        schemas.iter().find_map(|s| s.get("default")).cloned()
    }

    /// Returns a schema with everything that it is made of.
    fn parts<'a>(&'a self, schema: &'a Value, depth: usize) -> Vec<&'a Value> {
        let schema = self.resolve(schema);
        let mut out = vec![schema];
        let lists = ["allOf", "anyOf", "oneOf"]
            .into_iter()
            .filter_map(|k| schema.get(k)?.as_array());
        for part in lists.flatten().filter(|_| depth < DEPTH) {
            out.extend(self.parts(part, depth + 1));
        }
        out
    }

    /// Returns the names of the top-level properties with their types.
    pub fn property_types(&self) -> Vec<(&str, Option<&str>)> {
        let properties = self
            .resolve(self.definition())
            .get("properties")
            .and_then(Value::as_object);
        properties
            .into_iter()
            .flatten()
            .map(|(name, s)| {
                (
                    name.as_str(),
                    self.resolve(s).get("type").and_then(Value::as_str),
                )
            })
            .collect()
    }

    fn check(&self, fields: &mut Fields<'_>) {
        if let Err(error) = self.validator() {
            let node = self.root.follow(["schema", "types", self.name.as_str()]);
            fields.error(
                "schema.invalid",
                node,
                format!("the schema does not hold together: {error}"),
            );
            return;
        }
        if self.property_types().is_empty() {
            let node = self.root.follow(["schema", "types", self.name.as_str()]);
            let place = fields.at(node);
            fields.push(Finding::warning(
                "schema.empty",
                place,
                "no inputs: Proton refused such a type, isoform takes it",
            ));
        }
        let properties = self
            .resolve(self.definition())
            .get("properties")
            .and_then(Value::as_object);
        for (name, property) in properties.into_iter().flatten() {
            let Some(default) = self.resolve(property).get("default") else {
                continue;
            };
            let mut one = property.clone();
            if let Some(object) = one.as_object_mut() {
                object.insert("definitions".into(), self.schema["definitions"].clone());
            }
            let fits = options().build(&one).is_ok_and(|v| v.is_valid(default));
            if !fits {
                let node = self.root.follow([
                    "schema",
                    "types",
                    self.name.as_str(),
                    "properties",
                    name.as_str(),
                    "default",
                ]);
                let place = fields.at(node);
                fields.push(Finding::warning(
                    "schema.default",
                    place,
                    format!("the default of `{name}` does not fit its own schema"),
                ));
            }
        }
    }

    fn validator(&self) -> Result<&jsonschema::Validator, &String> {
        self.validator
            .get_or_init(|| {
                options()
                    .build(&self.schema)
                    .map_err(|e| format!("{} at {}", e.masked(), e.instance_path()))
            })
            .as_ref()
    }

    /// Returns the names that have a value where the spec gives none.
    pub fn defaults(&self) -> Vec<String> {
        let mut filled = json!({});
        self.fill(self.definition(), &mut filled, 0);
        let names = filled.as_object().into_iter().flatten();
        names.map(|(name, _)| name.clone()).collect()
    }

    /// Checks the values of a spec and fills in defaults.
    ///
    /// `node` is the mapping of values in `file`, absent where the spec leaves it out; `at` is shown then. Unknown
    /// names are warnings: Proton took them.
    pub fn effective(
        &self,
        file: &str,
        text: &str,
        node: Option<&Node>,
        values: Value,
        at: Span,
    ) -> (Value, Vec<Finding>) {
        let mut values = if values.is_null() { json!({}) } else { values };
        self.fill(self.definition(), &mut values, 0);
        let place = |path: &[String]| -> Place {
            let span = node.map_or(at, |n| n.follow(path.iter().map(String::as_str)).span);
            Place::at(file, span, text)
        };
        let mut findings = Vec::new();
        match self.validator() {
            Ok(validator) => {
                for error in validator.iter_errors(&values) {
                    findings.push(self.explain(&error, &place, node));
                }
            }
            Err(message) => findings.push(Finding::error(
                "schema.invalid",
                place(&[]),
                message.clone(),
            )),
        }
        if let (Some(object), Some(node)) = (values.as_object(), node) {
            let known: Vec<&str> = self.property_types().into_iter().map(|(n, _)| n).collect();
            for name in object.keys().filter(|n| !known.contains(&n.as_str())) {
                let span = node.entry(name).map_or(at, |(key, _)| key.span);
                let mut finding = Finding::warning(
                    "spec.unknown-input",
                    Place::at(file, span, text),
                    format!("`{name}` is not an input of the template"),
                );
                finding.help =
                    closest(name, known.iter().copied()).map(|c| format!("did you mean `{c}`?"));
                findings.push(finding);
            }
        }
        (values, findings)
    }

    fn fill(&self, schema: &Value, value: &mut Value, depth: usize) {
        if depth > DEPTH {
            return;
        }
        let schema = self.resolve(schema);
        for part in schema
            .get("allOf")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            self.fill(part, value, depth + 1);
        }
        match value {
            Value::Object(object) => {
                for (name, property) in schema
                    .get("properties")
                    .and_then(Value::as_object)
                    .into_iter()
                    .flatten()
                {
                    if let Some(default) = self.resolve(property).get("default")
                        && !object.contains_key(name)
                    {
                        object.insert(name.clone(), default.clone());
                    }
                    if let Some(inner) = object.get_mut(name) {
                        self.fill(property, inner, depth + 1);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(inner) = schema.get("items") {
                    items
                        .iter_mut()
                        .for_each(|item| self.fill(inner, item, depth + 1));
                }
            }
            _ => {}
        }
    }

    fn explain(
        &self,
        error: &jsonschema::ValidationError<'_>,
        place: &dyn Fn(&[String]) -> Place,
        node: Option<&Node>,
    ) -> Finding {
        let path: Vec<String> = error
            .instance_path()
            .to_string()
            .split('/')
            .skip(1)
            .map(|p| p.replace("~1", "/").replace("~0", "~"))
            .collect();
        let name = path.iter().fold(String::new(), |out, p| {
            if out.is_empty() {
                p.clone()
            } else {
                format!("{out}.{p}")
            }
        });
        let subject = if name.is_empty() {
            "the spec".to_owned()
        } else {
            format!("`{name}`")
        };
        let shown = shown(error.instance());
        let plain = |limit: &Value| limit.to_string();
        let (message, label, help) = match error.kind() {
            ValidationErrorKind::Maximum { limit }
            | ValidationErrorKind::ExclusiveMaximum { limit } => (
                format!(
                    "{subject} is {shown}, the template allows at most {}",
                    plain(limit)
                ),
                format!("at most {}", plain(limit)),
                "raise `maximum` in a new minor of the template, or choose a smaller value"
                    .to_owned(),
            ),
            ValidationErrorKind::Minimum { limit }
            | ValidationErrorKind::ExclusiveMinimum { limit } => (
                format!(
                    "{subject} is {shown}, the template wants at least {}",
                    plain(limit)
                ),
                format!("at least {}", plain(limit)),
                "choose a larger value".into(),
            ),
            ValidationErrorKind::MaxLength { limit } => (
                format!("{subject} is longer than {limit} characters"),
                format!("at most {limit} characters"),
                "shorten it".into(),
            ),
            ValidationErrorKind::MinLength { limit } => (
                format!("{subject} is shorter than {limit} characters"),
                format!("at least {limit} characters"),
                "give a longer value".into(),
            ),
            ValidationErrorKind::Enum { options } => {
                let names: Vec<String> = options
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(Value::to_string)
                    .collect();
                let written = error.instance().as_str().unwrap_or_default();
                let near = closest(
                    written,
                    options
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_str),
                );
                let help = near.map_or_else(
                    || "choose one of them".to_owned(),
                    |c| format!("did you mean `{c}`?"),
                );
                (
                    format!(
                        "{subject} is {shown}, which is not one of {}",
                        names.join(", ")
                    ),
                    "not allowed".into(),
                    help,
                )
            }
            ValidationErrorKind::Pattern { pattern } => (
                format!("{subject} does not match the pattern {pattern}"),
                "does not match".into(),
                "see the pattern in the template's schema".into(),
            ),
            ValidationErrorKind::Required { property } => (
                format!(
                    "{subject} lacks the required input {}",
                    property.to_string().replace('"', "`")
                ),
                "is missing here".into(),
                "add it, or give it a default in the template's schema".into(),
            ),
            ValidationErrorKind::Type { .. } => {
                let wanted = self.wanted(&path);
                let help = if wanted == "string" && !error.instance().is_string() {
                    "put the value in quotes".to_owned()
                } else {
                    format!("write a value of type {wanted}")
                };
                (
                    format!("{subject} is {shown}, the template wants the type {wanted}"),
                    format!("wants {wanted}"),
                    help,
                )
            }
            ValidationErrorKind::AdditionalProperties { unexpected } => (
                format!(
                    "{subject} has inputs that the template does not allow: {}",
                    unexpected.join(", ")
                ),
                "not allowed".into(),
                "remove them".into(),
            ),
            _ => (
                format!("{subject} does not fit the template: {}", error.masked()),
                "does not fit".into(),
                "see the template's schema".into(),
            ),
        };
        let at = match (error.kind(), path.is_empty() || node.is_none()) {
            (ValidationErrorKind::Required { .. }, true) => place(&[]),
            _ => place(&path),
        };
        let mut finding =
            Finding::error(&format!("schema.{}", error.kind().keyword()), at, message)
                .label(label)
                .help(help);
        if let Some((where_set, keyword)) = self.set_at(&path, error.kind().keyword()) {
            finding = finding.related(where_set, keyword);
        }
        finding
    }

    fn wanted(&self, path: &[String]) -> String {
        match self.schema_at(path).get("type") {
            Some(Value::String(kind)) => kind.clone(),
            Some(Value::Array(kinds)) => kinds
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(" or "),
            _ => "that the schema declares".into(),
        }
    }

    fn schema_at(&self, path: &[String]) -> &Value {
        let mut schema = self.resolve(self.definition());
        for part in path {
            let next = schema
                .pointer(&format!("/properties/{}", pointer(part)))
                .or_else(|| schema.get("items"));
            let Some(next) = next else {
                return &Value::Null;
            };
            schema = self.resolve(next);
        }
        schema
    }

    /// Finds where the schema file sets a keyword for a path, when no reference lies on the way.
    fn set_at(&self, path: &[String], keyword: &str) -> Option<(Place, String)> {
        let mut node = self.root.get("schema")?.get("types")?.get(&self.name)?;
        for part in path {
            node = node
                .get("properties")
                .and_then(|p| p.get(part))
                .or_else(|| node.get("items"))?;
        }
        let (key, value) = node.entry(keyword)?;
        let span = Span {
            end_line: value.span.end_line.min(key.span.line),
            end_column: if value.span.end_line == key.span.line {
                value.span.end_column
            } else {
                key.span.end_column
            },
            ..key.span
        };
        Some((Place::at(&self.file, span, &self.text), "set here".into()))
    }
}

/// The draft that Proton's schemas follow, with patterns that come to an end: in steps back, and in what they compile to.
fn options() -> jsonschema::ValidationOptions<'static> {
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft4)
        .with_pattern_options(
            jsonschema::PatternOptions::fancy_regex()
                .backtrack_limit(100_000)
                .size_limit(1 << 20),
        )
}

/// Shows a value in a message: numbers and booleans as they are, texts cut, everything else by its type.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() <= 40 => format!("\"{}\"", text.escape_debug()),
        Value::String(text) => format!("a text of {} characters", text.chars().count()),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "a mapping".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(properties: &str) -> Schema {
        let text = format!(
            "schema:\n  format: {{openapi: '3.0.0'}}\n  environment_input_type: In\n  types:\n    Port: {{type: integer, minimum: 1, default: 80}}\n    In:\n      type: object\n      required: [name]\n      properties:\n        name: {{type: string}}\n{properties}"
        );
        let (schema, findings) = Schema::parse("s.yaml", &text);
        schema.unwrap_or_else(|| panic!("{findings:?}"))
    }

    fn check(properties: &str, spec: &str) -> (Value, Vec<(String, u32)>) {
        let schema = schema(properties);
        let node = yaml::parse("spec.yaml", spec, &Limits::SPEC).unwrap();
        let (value, findings) = schema.environment.unwrap().effective(
            "spec.yaml",
            spec,
            Some(&node),
            node.to_json(),
            node.span,
        );
        (
            value,
            findings
                .into_iter()
                .map(|f| (f.code, f.place.span.unwrap().line))
                .collect(),
        )
    }

    /// Each keyword that the reference names, with a value that passes and one that does not.
    #[test]
    fn every_keyword_has_a_pass_and_a_fail() {
        for (declared, good, bad, code) in [
            ("{type: string}", "x", "1", "schema.type"),
            ("{type: number}", "1.5", "x", "schema.type"),
            ("{type: integer}", "8", "8.5", "schema.type"),
            ("{type: boolean}", "yes", "x", "schema.type"),
            ("{type: object}", "{a: 1}", "[1]", "schema.type"),
            (
                "{type: array, items: {type: string}}",
                "[a]",
                "[1]",
                "schema.type",
            ),
            (
                "{type: string, pattern: '^a(?=b)'}",
                "ab",
                "ac",
                "schema.pattern",
            ),
            ("{type: string, enum: [a, b]}", "a", "c", "schema.enum"),
            ("{type: integer, minimum: 2}", "2", "1", "schema.minimum"),
            (
                "{type: integer, minimum: 2, exclusiveMinimum: true}",
                "3",
                "2",
                "schema.exclusiveMinimum",
            ),
            ("{type: integer, maximum: 2}", "2", "3", "schema.maximum"),
            (
                "{type: integer, multipleOf: 5}",
                "10",
                "11",
                "schema.multipleOf",
            ),
            (
                "{type: string, minLength: 2}",
                "ab",
                "a",
                "schema.minLength",
            ),
            (
                "{type: string, maxLength: 2}",
                "ab",
                "abc",
                "schema.maxLength",
            ),
            (
                "{type: array, items: {}, minItems: 1}",
                "[1]",
                "[]",
                "schema.minItems",
            ),
            (
                "{type: array, items: {}, maxItems: 1}",
                "[1]",
                "[1, 2]",
                "schema.maxItems",
            ),
            (
                "{type: array, items: {}, uniqueItems: true}",
                "[1, 2]",
                "[1, 1]",
                "schema.uniqueItems",
            ),
            ("{type: string, nullable: true}", "~", "1", "schema.type"),
            ("{$ref: '#/Port'}", "80", "0", "schema.minimum"),
            (
                "{type: object, properties: {a: {type: object, properties: {b: {type: integer}}}}}",
                "{a: {b: 1}}",
                "{a: {b: x}}",
                "schema.type",
            ),
            (
                "{type: object, additionalProperties: false, properties: {a: {}}}",
                "{a: 1}",
                "{b: 1}",
                "schema.additionalProperties",
            ),
            (
                "{oneOf: [{type: string}, {type: integer}]}",
                "x",
                "[1]",
                "schema.oneOf",
            ),
        ] {
            let properties = format!("        v: {declared}\n");
            assert_eq!(
                check(&properties, &format!("name: n\nv: {good}\n")).1,
                [],
                "{declared} {good}"
            );
            assert_eq!(
                check(&properties, &format!("name: n\nv: {bad}\n")).1,
                [(code.to_owned(), 2)],
                "{declared} {bad}"
            );
        }
    }

    #[test]
    fn defaults_are_filled_in_at_every_depth() {
        let properties = "        port: {$ref: '#/Port'}\n        o: {type: object, properties: {x: {type: string, default: d}}}\n";
        let (value, findings) = check(properties, "name: n\no: {}\n");
        assert_eq!(
            (value, findings),
            (json!({"name": "n", "o": {"x": "d"}, "port": 80}), vec![])
        );
    }

    #[test]
    fn missing_and_unknown_inputs_are_told_apart() {
        assert_eq!(
            check("", "nam: x\n").1,
            [
                ("schema.required".to_owned(), 1),
                ("spec.unknown-input".to_owned(), 1)
            ]
        );
    }

    #[test]
    fn a_fault_points_at_the_spec_and_at_the_schema() {
        let schema = schema("        v:\n          type: integer\n          maximum: 100\n");
        let spec = "name: n\nv: 300\n";
        let node = yaml::parse("spec.yaml", spec, &Limits::SPEC).unwrap();
        let (_, findings) = schema.environment.unwrap().effective(
            "spec.yaml",
            spec,
            Some(&node),
            node.to_json(),
            node.span,
        );
        assert_eq!(
            findings[0].message,
            "`v` is 300, the template allows at most 100"
        );
        assert_eq!(
            (
                findings[0].related[0].place.file.as_str(),
                findings[0].related[0].place.span.unwrap().line
            ),
            ("s.yaml", 13)
        );
    }

    #[test]
    fn a_schema_with_faults_says_where() {
        for (text, code) in [
            (
                "schema: {format: {openapi: '2.0'}, environment_input_type: A, types: {A: {type: object}}}",
                "schema.format",
            ),
            (
                "schema: {format: {openapi: '3.0.0'}, environment_input_type: B, types: {A: {type: object}}}",
                "schema.input",
            ),
            (
                "schema: {format: {openapi: '3.0.0'}, types: {A: {type: object}}}",
                "schema.input",
            ),
            (
                "schema: {format: {openapi: '3.0.0'}, environment_input_type: A, types: {A: {type: objekt}}}",
                "schema.type",
            ),
            (
                "schema: {format: {openapi: '3.0.0'}, environment_input_type: A, types: {A: {$ref: '#/B'}}}",
                "schema.ref",
            ),
            (
                "schema: {format: {openapi: '3.0.0'}, environment_input_type: A, types: {A: {type: object, properties: {x: {type: string, pattern: '('}}}}}",
                "schema.invalid",
            ),
            (
                "schema: {format: {openapi: '3.0.0'}, environment_input_type: A}",
                "schema.types",
            ),
        ] {
            let (schema, findings) = Schema::parse("s", text);
            assert!(
                schema.is_none() && findings.iter().any(|f| f.code == code),
                "{text}: {findings:?}"
            );
        }
    }

    #[test]
    fn sec_12_patterns_of_schemas_end() {
        for pattern in ["^(?=(a+)+b)a*$", "^(?:(a*)*)*\\1b$", "^(a|aa)+$"] {
            let declared = format!("        q: {{type: string, pattern: '{pattern}'}}\n");
            let spec = format!("name: x\nq: {}!\n", "a".repeat(4_000));
            let (_, found) = check(&declared, &spec);
            assert_eq!(found.len(), 1, "{pattern}: {found:?}");
        }
        let text = "schema: {format: {openapi: '3.0.0'}, environment_input_type: A, types: {A: {type: object, properties: {x: {type: string, pattern: '(?:a{0,1000}){0,1000}'}}}}}";
        let (schema, findings) = Schema::parse("s.yaml", text);
        assert!(schema.is_none() && !findings.is_empty(), "{findings:?}");
    }
}
