//! GitHub's own description of its API as a judge: a request that it does not know is a fault of the adapter.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use serde_json::{Map, Value, json};

use super::Asked;

/// The description, read once for a process.
pub struct Judge {
    all: Value,
    templates: Vec<(Vec<String>, String)>,
    seen: Mutex<BTreeSet<String>>,
}

/// The description of github.com; absent where the package is not installed.
pub fn github() -> Option<&'static Judge> {
    static JUDGE: OnceLock<Option<Judge>> = OnceLock::new();
    JUDGE.get_or_init(|| read("api.github.com.json")).as_ref()
}

/// The description of the oldest GitHub Enterprise Server that the package has.
pub fn server() -> Option<&'static Judge> {
    static JUDGE: OnceLock<Option<Judge>> = OnceLock::new();
    JUDGE.get_or_init(|| read("ghes-3.17.json")).as_ref()
}

fn read(name: &str) -> Option<Judge> {
    let folder = std::env::var_os("ISOFORM_TEST_NODE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/test-node"),
        PathBuf::from,
    );
    let package = folder.join("node_modules/@octokit/openapi/generated");
    if !package.exists() {
        return None;
    }
    let file = std::fs::read(package.join(name)).unwrap();
    let all: Value = serde_json::from_slice(&file).unwrap();
    let templates = all["paths"]
        .as_object()
        .unwrap()
        .keys()
        .map(|t| (t.split('/').skip(1).map(str::to_owned).collect(), t.clone()))
        .collect();
    Some(Judge {
        all,
        templates,
        seen: Mutex::default(),
    })
}

impl Judge {
    /// The operations that were asked for so far, by everybody in this process.
    pub fn seen(&self) -> BTreeSet<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Judges a request: its path, its query and its body.
    pub fn judge(&self, asked: &Asked) -> Result<(), String> {
        let line = format!("{} /{}", asked.method, asked.path.join("/"));
        let fits = |template: &[String]| {
            template.len() == asked.path.len()
                && template
                    .iter()
                    .zip(&asked.path)
                    .all(|(t, p)| t.starts_with('{') || t == p)
        };
        // Of two templates the one with fewer holes is meant.
        let (_, template) = self
            .templates
            .iter()
            .filter(|(parts, _)| fits(parts))
            .min_by_key(|(parts, _)| parts.iter().filter(|p| p.starts_with('{')).count())
            .ok_or_else(|| format!("{line}: no such path"))?;
        let operation = &self.all["paths"][template][asked.method.to_ascii_lowercase()];
        if operation.is_null() {
            return Err(format!("{line}: no such method"));
        }
        let name = format!("{} {template}", asked.method);
        self.seen.lock().unwrap().insert(name);
        let empty = Vec::new();
        let parameters: Vec<&Value> = operation["parameters"]
            .as_array()
            .unwrap_or(&empty)
            .iter()
            .map(|p| self.resolve(p))
            .collect();
        for (name, value) in &asked.query {
            let known = parameters
                .iter()
                .find(|p| p["in"] == "query" && p["name"] == name.as_str())
                .ok_or_else(|| format!("{line}: no parameter `{name}`"))?;
            let schema = self.strict(&known["schema"], false);
            // `page` of a listing by cursor, numbers and texts: the schema tells which.
            let number = value
                .parse::<u64>()
                .ok()
                .filter(|_| schema["type"] == "integer");
            let value = number.map_or_else(|| json!(value), |n| json!(n));
            self.check(&schema, &value)
                .map_err(|e| format!("{line}: `{name}`: {e}"))?;
        }
        let body = &operation["requestBody"];
        match (&asked.body, body.is_null()) {
            (Some(_), true) => Err(format!("{line}: takes no body")),
            (None, false) if body["required"] == true => Err(format!("{line}: without a body")),
            (Some(sent), false) => {
                let schema = self.strict(&body["content"]["application/json"]["schema"], true);
                self.check(&schema, sent)
                    .map_err(|e| format!("{line}: {e}"))
            }
            _ => Ok(()),
        }
    }

    /// What the description gives as an example of an answer.
    pub fn example(&self, method: &str, template: &str) -> super::Reply {
        let answers = self.all["paths"][template][method]["responses"]
            .as_object()
            .unwrap();
        let (status, answer) = answers.iter().find(|(s, _)| s.starts_with('2')).unwrap();
        let examples = &self.resolve(answer)["content"]["application/json"]["examples"];
        let first = examples.as_object().unwrap().values().next().unwrap();
        let value = self.resolve(&self.resolve(first)["value"]);
        super::Reply::json(status.parse().unwrap(), value)
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(name) => self.all.pointer(&name[1..]).unwrap(),
            None => value,
        }
    }

    fn check(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let validator = jsonschema::validator_for(schema).unwrap();
        let faults: Vec<String> = validator
            .iter_errors(value)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        if faults.is_empty() {
            Ok(())
        } else {
            Err(faults.join("; "))
        }
    }

    /// OpenAPI 3.0 as JSON Schema: references in place, `nullable` as a type, and no property beyond those that are named.
    fn strict(&self, schema: &Value, whole: bool) -> Value {
        let schema = self.resolve(schema);
        let Value::Object(fields) = schema else {
            return schema.clone();
        };
        let mut out = Map::new();
        for (name, value) in fields {
            let value = match name.as_str() {
                "description"
                | "example"
                | "examples"
                | "nullable"
                | "format"
                | "deprecated"
                | "externalDocs"
                | "x-multi-segment"
                | "x-github-breaking-changes" => continue,
                "properties" => {
                    let all = value.as_object().unwrap();
                    let strict = |(k, v): (&String, &Value)| (k.clone(), self.strict(v, whole));
                    Value::Object(all.iter().map(strict).collect())
                }
                "items" => self.strict(value, whole),
                "oneOf" | "anyOf" | "allOf" => {
                    let all = value.as_array().unwrap();
                    all.iter().map(|v| self.strict(v, false)).collect()
                }
                "type" if fields.get("nullable") == Some(&json!(true)) => json!([value, "null"]),
                _ => value.clone(),
            };
            out.insert(name.clone(), value);
        }
        if whole && out.contains_key("properties") && !out.contains_key("additionalProperties") {
            out.insert("additionalProperties".into(), json!(false));
        }
        Value::Object(out)
    }
}
