//! Whether every spec that was valid under one version of a schema stays valid under the next.
//!
//! Proton compared minors "best effort" by unpublished rules; these are ours (`docs/formats/bundles.md`).

use serde_json::Value;

use super::{InputType, Schema};

/// Returns what makes `new` refuse specs that `old` took; empty where it is backward compatible.
pub fn incompatibilities(old: &Schema, new: &Schema) -> Vec<String> {
    let mut found = Vec::new();
    for (what, old, new) in [
        ("environment", &old.environment, &new.environment),
        ("service", &old.service, &new.service),
        ("pipeline", &old.pipeline, &new.pipeline),
    ] {
        match (old, new) {
            (Some(old), Some(new)) => compare(
                &Pair { old, new },
                old.definition(),
                new.definition(),
                "",
                &mut found,
                0,
            ),
            (Some(_), None) => found.push(format!("the {what} inputs are gone")),
            (None, Some(_)) => found.push(format!("there are {what} inputs that were not there")),
            (None, None) => {}
        }
    }
    found
}

struct Pair<'a> {
    old: &'a InputType,
    new: &'a InputType,
}

fn compare(
    pair: &Pair<'_>,
    old: &Value,
    new: &Value,
    path: &str,
    found: &mut Vec<String>,
    depth: usize,
) {
    if depth > super::DEPTH {
        return;
    }
    let (old, new) = (pair.old.resolve(old), pair.new.resolve(new));
    let name = if path.is_empty() {
        "the inputs".to_owned()
    } else {
        format!("`{path}`")
    };
    let (before, after) = (old.get("type"), new.get("type"));
    if before != after
        && after.is_some()
        && !(before == Some(&"integer".into()) && after == Some(&"number".into()))
    {
        found.push(format!("{name} changes its type"));
    }
    if let Some(allowed) = new.get("enum").and_then(Value::as_array) {
        match old.get("enum").and_then(Value::as_array) {
            None => found.push(format!("{name} is limited to an enumeration")),
            Some(before) if !before.iter().all(|v| allowed.contains(v)) => {
                found.push(format!("{name} loses values of its enumeration"));
            }
            Some(_) => {}
        }
    }
    if new.get("pattern").is_some() && new.get("pattern") != old.get("pattern") {
        found.push(format!("{name} has a new pattern"));
    }
    for (keyword, tighter_is_larger) in [
        ("minimum", true),
        ("minLength", true),
        ("minItems", true),
        ("minProperties", true),
        ("maximum", false),
        ("maxLength", false),
        ("maxItems", false),
        ("maxProperties", false),
    ] {
        let number = |v: &Value| v.get(keyword).and_then(Value::as_f64);
        let narrowed = match (number(old), number(new)) {
            (None, Some(_)) => true,
            (Some(a), Some(b)) => {
                if tighter_is_larger {
                    b > a
                } else {
                    b < a
                }
            }
            (_, None) => false,
        };
        if narrowed {
            found.push(format!("{name} narrows `{keyword}`"));
        }
    }
    let required = |v: &Value| -> Vec<String> {
        v.get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let property = |v: &Value, n: &str| v.get("properties").and_then(|p| p.get(n)).cloned();
    for needed in required(new) {
        let has_default =
            property(new, &needed).is_some_and(|p| pair.new.resolve(&p).get("default").is_some());
        if !has_default && !required(old).contains(&needed) {
            found.push(format!(
                "`{}` becomes required and has no default",
                join(path, &needed)
            ));
        } else if !has_default
            && property(old, &needed).is_some_and(|p| pair.old.resolve(&p).get("default").is_some())
        {
            found.push(format!(
                "`{}` is required and loses its default",
                join(path, &needed)
            ));
        }
    }
    let strict = new.get("additionalProperties") == Some(&Value::Bool(false));
    for (key, before) in old
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        match property(new, key) {
            Some(after) => compare(pair, before, &after, &join(path, key), found, depth + 1),
            None if strict => found.push(format!(
                "`{}` is removed and unknown inputs are refused",
                join(path, key)
            )),
            None => {}
        }
    }
    if let (Some(before), Some(after)) = (old.get("items"), new.get("items")) {
        compare(pair, before, after, &format!("{path}[]"), found, depth + 1);
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(body: &str) -> Schema {
        let text = format!(
            "schema: {{format: {{openapi: '3.0.0'}}, environment_input_type: A, types: {{A: {{type: object, {body}}}}}}}"
        );
        Schema::parse("s", &text).0.unwrap()
    }

    #[test]
    fn only_what_refuses_old_specs_is_incompatible() {
        for (old, new, compatible) in [
            (
                "properties: {a: {type: string}}",
                "properties: {a: {type: string}, b: {type: string}}",
                true,
            ),
            (
                "properties: {a: {type: string}}",
                "properties: {a: {type: string}, b: {type: string}}, required: [b]",
                false,
            ),
            (
                "properties: {a: {type: string}}",
                "properties: {a: {type: string}, b: {type: string, default: x}}, required: [b]",
                true,
            ),
            (
                "properties: {a: {type: integer}}",
                "properties: {a: {type: string}}",
                false,
            ),
            (
                "properties: {a: {type: integer}}",
                "properties: {a: {type: number}}",
                true,
            ),
            (
                "properties: {a: {type: string, enum: [x, y]}}",
                "properties: {a: {type: string, enum: [x]}}",
                false,
            ),
            (
                "properties: {a: {type: string, enum: [x]}}",
                "properties: {a: {type: string, enum: [x, y]}}",
                true,
            ),
            (
                "properties: {a: {type: integer, maximum: 5}}",
                "properties: {a: {type: integer, maximum: 4}}",
                false,
            ),
            (
                "properties: {a: {type: integer, maximum: 5}}",
                "properties: {a: {type: integer, maximum: 6}}",
                true,
            ),
            (
                "properties: {a: {type: string}}",
                "properties: {a: {type: string, pattern: x}}",
                false,
            ),
            (
                "properties: {a: {type: string}, b: {type: string}}",
                "properties: {a: {type: string}}",
                true,
            ),
            (
                "properties: {a: {type: string}, b: {type: string}}",
                "additionalProperties: false, properties: {a: {type: string}}",
                false,
            ),
        ] {
            let found = incompatibilities(&schema(old), &schema(new));
            assert_eq!(found.is_empty(), compatible, "{old} → {new}: {found:?}");
        }
    }
}
