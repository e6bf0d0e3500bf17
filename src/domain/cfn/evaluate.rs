//! Intrinsic functions: <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/intrinsic-function-reference.html>.
//!
//! What is only known after a resource exists evaluates to an *unknown*: an object with the one key
//! [`UNKNOWN_KEY`] whose text says what will stand there. An unknown inside a text makes the whole text unknown.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Template;
use super::extensions::LANGUAGE_EXTENSIONS;

/// The key of the object that stands for a value not known yet.
pub const UNKNOWN_KEY: &str = "isoform::unknown";

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvaluateError {
    /// What is wrong, without values of parameters.
    pub message: String,
}

/// Pseudo parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pseudo {
    /// `AWS::AccountId`.
    pub account: String,
    /// `AWS::Region`.
    pub region: String,
    /// `AWS::StackName`.
    pub stack_name: String,
    /// `AWS::StackId`; unknown before the stack exists.
    pub stack_id: Option<String>,
    /// `AWS::NotificationARNs`.
    pub notification_arns: Vec<String>,
}

/// Looks up what other resources and stacks have to say.
pub trait Resolver {
    /// Returns `Ref` (no attribute) or `Fn::GetAtt` of a resource; an unknown where it is not there yet.
    fn resource(&self, logical: &str, attribute: Option<&str>) -> Result<Value, EvaluateError>;
    /// Returns an exported value.
    fn import(&self, name: &str) -> Result<Value, EvaluateError>;
}

/// Everything an expression can see.
pub struct Scope<'a> {
    /// The template.
    pub template: &'a Template,
    /// Parameter values: text, or a list for list types.
    pub parameters: &'a BTreeMap<String, Value>,
    /// Pseudo parameters.
    pub pseudo: &'a Pseudo,
    /// Resources and imports.
    pub resolver: &'a dyn Resolver,
}

/// Makes a value that is not known yet.
pub fn unknown(what: &str) -> Value {
    json!({ UNKNOWN_KEY: what })
}

/// Tells whether a value is not known yet, and what will stand there.
pub fn is_unknown(value: &Value) -> Option<&str> {
    value
        .as_object()
        .filter(|o| o.len() == 1)?
        .get(UNKNOWN_KEY)?
        .as_str()
}

/// Calls `found(name, is_attribute)` for every `Ref`, `Fn::GetAtt` and `Fn::Sub` name in a value.
pub fn references(value: &Value, found: &mut dyn FnMut(&str, bool)) {
    match value {
        Value::Array(items) => items.iter().for_each(|v| references(v, found)),
        Value::Object(map) => {
            for (key, inner) in map {
                match (key.as_str(), inner) {
                    ("Ref", Value::String(name)) if map.len() == 1 => found(name, false),
                    ("Fn::GetAtt", Value::Array(parts)) if map.len() == 1 => {
                        if let Some(name) = parts.first().and_then(Value::as_str) {
                            found(name, true);
                        }
                    }
                    ("Fn::GetAtt", Value::String(text)) if map.len() == 1 => {
                        found(text.split('.').next().unwrap_or(text), true);
                    }
                    ("Fn::Sub", body) if map.len() == 1 => sub_references(body, found),
                    _ => references(inner, found),
                }
            }
        }
        _ => {}
    }
}

fn sub_references(body: &Value, found: &mut dyn FnMut(&str, bool)) {
    let (text, local) = match body {
        Value::String(text) => (Some(text.as_str()), None),
        Value::Array(parts) => (
            parts.first().and_then(Value::as_str),
            parts.get(1).and_then(Value::as_object),
        ),
        _ => (None, None),
    };
    if let Some(local) = local {
        local.values().for_each(|v| references(v, found));
    }
    for piece in pieces(text.unwrap_or_default()) {
        if let Piece::Name(name) = piece
            && !local.is_some_and(|l| l.contains_key(name))
        {
            match name.split_once('.') {
                Some((logical, _)) if !name.starts_with("AWS::") => found(logical, true),
                _ => found(name, false),
            }
        }
    }
}

enum Piece<'a> {
    Text(&'a str),
    Name(&'a str),
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let Some(end) = rest[start..].find('}') else {
            break;
        };
        out.push(Piece::Text(&rest[..start]));
        let name = &rest[start + 2..start + end];
        // `${!Literal}` is written as `${Literal}`.
        match name.strip_prefix('!') {
            Some(_) => {
                out.push(Piece::Text("${"));
                out.push(Piece::Text(&rest[start + 3..=start + end]));
            }
            None => out.push(Piece::Name(name.trim())),
        }
        rest = &rest[start + end + 1..];
    }
    out.push(Piece::Text(rest));
    out
}

/// Evaluates a value in its long form.
///
/// `Ref: AWS::NoValue` removes the key or item that it stands at.
pub fn evaluate(value: &Value, scope: &Scope<'_>) -> Result<Value, EvaluateError> {
    Ok(eval(value, scope, 0)?.unwrap_or(Value::Null))
}

type Evaluated = Result<Option<Value>, EvaluateError>;

fn fail<T>(message: impl Into<String>) -> Result<T, EvaluateError> {
    Err(EvaluateError {
        message: message.into(),
    })
}

fn eval(value: &Value, scope: &Scope<'_>, depth: usize) -> Evaluated {
    if depth > 128 {
        return fail("functions are nested too deeply");
    }
    match value {
        Value::Array(items) => {
            let mut out = Vec::with_capacity(items.len());
            for item in items {
                out.extend(eval(item, scope, depth + 1)?);
            }
            Ok(Some(Value::Array(out)))
        }
        Value::Object(map) if map.len() == 1 => {
            let Some((name, argument)) = map.iter().next() else {
                return Ok(Some(value.clone()));
            };
            if name == "Ref"
                || name.starts_with("Fn::")
                || (name == "Condition"
                    && argument.is_string()
                    && scope
                        .template
                        .conditions
                        .contains_key(argument.as_str().unwrap_or_default()))
            {
                function(name, argument, scope, depth + 1)
            } else {
                object(map, scope, depth)
            }
        }
        Value::Object(map) => object(map, scope, depth),
        other => Ok(Some(other.clone())),
    }
}

fn object(map: &Map<String, Value>, scope: &Scope<'_>, depth: usize) -> Evaluated {
    let mut out = Map::new();
    for (key, inner) in map {
        if let Some(v) = eval(inner, scope, depth + 1)? {
            out.insert(key.clone(), v);
        }
    }
    Ok(Some(Value::Object(out)))
}

fn function(name: &str, argument: &Value, scope: &Scope<'_>, depth: usize) -> Evaluated {
    let arg = |i: usize| {
        argument
            .as_array()
            .and_then(|a| a.get(i))
            .ok_or_else(|| EvaluateError {
                message: format!("`{name}` has too few arguments"),
            })
    };
    let value = |v: &Value| -> Result<Value, EvaluateError> {
        Ok(eval(v, scope, depth)?.unwrap_or(Value::Null))
    };
    let out = match name {
        "Ref" => return reference(argument.as_str().unwrap_or_default(), scope),
        "Fn::GetAtt" => {
            let (logical, attribute) = match argument {
                Value::String(text) => text
                    .split_once('.')
                    .map(|(a, b)| (a.to_owned(), Value::String(b.to_owned()))),
                _ => Some((
                    arg(0)?.as_str().unwrap_or_default().to_owned(),
                    value(arg(1)?)?,
                )),
            }
            .ok_or_else(|| EvaluateError {
                message: "`Fn::GetAtt` wants a resource and an attribute".into(),
            })?;
            scope.resolver.resource(&logical, Some(&text(&attribute)))?
        }
        "Fn::Sub" => substitute(argument, scope, depth)?,
        "Fn::Join" => {
            let delimiter = text(&value(arg(0)?)?);
            match value(arg(1)?)? {
                Value::Array(items) => concat(&items, &delimiter),
                other if is_unknown(&other).is_some() => other,
                _ => return fail("`Fn::Join` wants a list"),
            }
        }
        "Fn::Split" => {
            let (delimiter, whole) = (text(&value(arg(0)?)?), value(arg(1)?)?);
            match is_unknown(&whole) {
                Some(_) => whole,
                None if delimiter.is_empty() => return fail("`Fn::Split` wants a delimiter"),
                None => Value::Array(
                    text(&whole)
                        .split(&delimiter)
                        .map(|p| Value::String(p.into()))
                        .collect(),
                ),
            }
        }
        "Fn::Select" => {
            let index = text(&value(arg(0)?)?);
            match value(arg(1)?)? {
                Value::Array(items) => {
                    let chosen = index
                        .parse::<usize>()
                        .ok()
                        .and_then(|i| items.get(i).cloned());
                    chosen.ok_or_else(|| EvaluateError {
                        message: format!(
                            "`Fn::Select` cannot select item {index} of {}",
                            items.len()
                        ),
                    })?
                }
                other if is_unknown(&other).is_some() => other,
                _ => return fail("`Fn::Select` wants a list"),
            }
        }
        "Fn::FindInMap" => {
            let keys = [value(arg(0)?)?, value(arg(1)?)?, value(arg(2)?)?];
            if let Some(unknown) = keys.iter().find(|k| is_unknown(k).is_some()) {
                return Ok(Some(unknown.clone()));
            }
            let [map, first, second] = keys.map(|k| text(&k));
            match scope
                .template
                .mappings
                .get(&map)
                .and_then(|m| m.get(&first))
                .and_then(|m| m.get(&second))
            {
                Some(found) => found.clone(),
                None if extended(scope)
                    && argument
                        .get(3)
                        .is_some_and(|d| d.get("DefaultValue").is_some()) =>
                {
                    value(&argument[3]["DefaultValue"])?
                }
                None => {
                    return fail(format!(
                        "`Fn::FindInMap` finds no `{map}` / `{first}` / `{second}`"
                    ));
                }
            }
        }
        "Fn::If" => {
            let condition = arg(0)?.as_str().unwrap_or_default().to_owned();
            let chosen = match test(&json!({ "Condition": condition }), scope, depth)? {
                true => arg(1)?,
                false => arg(2)?,
            };
            return eval(chosen, scope, depth);
        }
        "Fn::Equals" | "Fn::And" | "Fn::Or" | "Fn::Not" | "Condition" => {
            Value::Bool(test(&json!({ name: argument }), scope, depth)?)
        }
        "Fn::Base64" => {
            let inner = value(argument)?;
            if is_unknown(&inner).is_some() {
                inner
            } else {
                Value::String(base64(text(&inner).as_bytes()))
            }
        }
        "Fn::GetAZs" => {
            let region = text(&value(argument)?);
            let region = if region.is_empty() {
                scope.pseudo.region.clone()
            } else {
                region
            };
            Value::Array(
                ["a", "b", "c"]
                    .iter()
                    .map(|z| Value::String(format!("{region}{z}")))
                    .collect(),
            )
        }
        "Fn::Cidr" => {
            let block = value(arg(0)?)?;
            if is_unknown(&block).is_some() {
                return Ok(Some(block));
            }
            let count = text(&value(arg(1)?)?);
            let bits = argument
                .as_array()
                .and_then(|a| a.get(2))
                .map(value)
                .transpose()?
                .map_or_else(|| "8".into(), |v| text(&v));
            cidr(&text(&block), &count, &bits)?
        }
        "Fn::ImportValue" => {
            let export = value(argument)?;
            match is_unknown(&export) {
                Some(_) => export,
                None => scope.resolver.import(&text(&export))?,
            }
        }
        "Fn::ToJsonString" | "Fn::Length" if !extended(scope) => {
            return fail(format!(
                "`{name}` needs the transform AWS::LanguageExtensions"
            ));
        }
        "Fn::ToJsonString" => {
            let inner = value(argument)?;
            if holds_unknown(&inner) {
                unknown(&inner.to_string())
            } else {
                Value::String(inner.to_string())
            }
        }
        "Fn::Length" => match value(argument)? {
            Value::Array(items) => Value::from(items.len()),
            other if is_unknown(&other).is_some() => other,
            _ => return fail("`Fn::Length` wants a list"),
        },
        "Fn::Transform" => {
            return fail("`Fn::Transform` is not supported: macros can read and change anything");
        }
        other => return fail(format!("`{other}` is not a function that can be evaluated")),
    };
    Ok(Some(out))
}

fn extended(scope: &Scope<'_>) -> bool {
    let transforms = &scope.template.transforms;
    transforms.iter().any(|t| t == LANGUAGE_EXTENSIONS)
}

fn holds_unknown(value: &Value) -> bool {
    is_unknown(value).is_some()
        || match value {
            Value::Array(items) => items.iter().any(holds_unknown),
            Value::Object(map) => map.values().any(holds_unknown),
            _ => false,
        }
}

fn reference(name: &str, scope: &Scope<'_>) -> Evaluated {
    let p = scope.pseudo;
    let text = |t: &str| Ok(Some(Value::String(t.to_owned())));
    let china = p.region.starts_with("cn-");
    match name {
        "AWS::NoValue" => Ok(None),
        "AWS::AccountId" => text(&p.account),
        "AWS::Region" => text(&p.region),
        "AWS::StackName" => text(&p.stack_name),
        "AWS::StackId" => Ok(Some(
            p.stack_id
                .clone()
                .map_or_else(|| unknown("AWS::StackId"), Value::String),
        )),
        "AWS::Partition" => text(if china {
            "aws-cn"
        } else if p.region.starts_with("us-gov-") {
            "aws-us-gov"
        } else {
            "aws"
        }),
        "AWS::URLSuffix" => text(if china {
            "amazonaws.com.cn"
        } else {
            "amazonaws.com"
        }),
        "AWS::NotificationARNs" => Ok(Some(json!(p.notification_arns))),
        _ => match scope.parameters.get(name) {
            Some(value) => Ok(Some(value.clone())),
            None if scope.template.parameters.contains_key(name) => {
                fail(format!("the parameter `{name}` has no value"))
            }
            None => scope.resolver.resource(name, None).map(Some),
        },
    }
}

fn substitute(argument: &Value, scope: &Scope<'_>, depth: usize) -> Result<Value, EvaluateError> {
    let (template, local) = match argument {
        Value::String(text) => (text.as_str(), None),
        Value::Array(parts) => match (
            parts.first().and_then(Value::as_str),
            parts.get(1).and_then(Value::as_object),
        ) {
            (Some(text), Some(local)) => (text, Some(local)),
            _ => return fail("`Fn::Sub` wants a text, or a text and a mapping"),
        },
        _ => return fail("`Fn::Sub` wants a text"),
    };
    let mut parts = Vec::new();
    for piece in pieces(template) {
        parts.push(match piece {
            Piece::Text(text) => Value::String(text.to_owned()),
            Piece::Name(name) => match local.and_then(|l| l.get(name)) {
                Some(value) => eval(value, scope, depth + 1)?.unwrap_or(Value::Null),
                None => match name.split_once('.') {
                    Some((logical, attribute)) if !name.starts_with("AWS::") => {
                        scope.resolver.resource(logical, Some(attribute))?
                    }
                    _ => reference(name, scope)?.unwrap_or(Value::Null),
                },
            },
        });
    }
    Ok(concat(&parts, ""))
}

fn concat(items: &[Value], delimiter: &str) -> Value {
    let shown = |v: &Value| is_unknown(v).map_or_else(|| text(v), |u| format!("${{{u}}}"));
    let joined = items.iter().map(shown).collect::<Vec<_>>().join(delimiter);
    if items.iter().any(|v| is_unknown(v).is_some()) {
        unknown(&joined)
    } else {
        Value::String(joined)
    }
}

fn test(value: &Value, scope: &Scope<'_>, depth: usize) -> Result<bool, EvaluateError> {
    if depth > 128 {
        return fail("conditions refer to each other in a circle, or too deeply");
    }
    let Some((name, argument)) = value
        .as_object()
        .filter(|o| o.len() == 1)
        .and_then(|o| o.iter().next())
    else {
        return match value {
            Value::Bool(b) => Ok(*b),
            Value::String(t) if t == "true" || t == "false" => Ok(t == "true"),
            _ => fail("a condition is one function"),
        };
    };
    let all = || argument.as_array().map(Vec::as_slice).unwrap_or_default();
    match name.as_str() {
        "Condition" => {
            let called = argument.as_str().unwrap_or_default();
            match scope.template.conditions.get(called) {
                Some(condition) => test(condition, scope, depth + 1),
                None => fail(format!("the condition `{called}` is not defined")),
            }
        }
        "Fn::Equals" => match all() {
            [a, b] => {
                let sides = [a, b].map(|v| eval(v, scope, depth + 1));
                let [a, b] = sides;
                Ok(normal(&a?.unwrap_or(Value::Null)) == normal(&b?.unwrap_or(Value::Null)))
            }
            _ => fail("`Fn::Equals` wants two values"),
        },
        "Fn::Not" => match all() {
            [one] => Ok(!test(one, scope, depth + 1)?),
            _ => fail("`Fn::Not` wants one condition"),
        },
        "Fn::And" => all()
            .iter()
            .try_fold(true, |acc, c| Ok(acc & test(c, scope, depth + 1)?)),
        "Fn::Or" => all()
            .iter()
            .try_fold(false, |acc, c| Ok(acc | test(c, scope, depth + 1)?)),
        other => fail(format!("`{other}` is not a condition function")),
    }
}

/// Returns a scalar's text as CloudFormation passes it on.
fn text(value: &Value) -> String {
    match value {
        Value::String(t) => t.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn normal(value: &Value) -> Value {
    match value {
        Value::Array(_) | Value::Object(_) => value.clone(),
        other => Value::String(text(other)),
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            out.push(if i <= chunk.len() {
                ALPHABET[(n >> (18 - 6 * i) & 63) as usize] as char
            } else {
                '='
            });
        }
    }
    out
}

fn cidr(block: &str, count: &str, bits: &str) -> Result<Value, EvaluateError> {
    let bad = || EvaluateError {
        message: "`Fn::Cidr` wants a block, a count of 1 to 256 and bits".into(),
    };
    let (address, prefix) = block.split_once('/').ok_or_else(bad)?;
    let address: std::net::Ipv4Addr = address.parse().map_err(|_| bad())?;
    let prefix: u32 = prefix.parse().ok().filter(|p| *p <= 32).ok_or_else(bad)?;
    let count: u32 = count
        .parse()
        .ok()
        .filter(|c| (1..=256).contains(c))
        .ok_or_else(bad)?;
    let bits: u32 = bits
        .parse()
        .ok()
        .filter(|b| (1..=31).contains(b))
        .ok_or_else(bad)?;
    let base = u64::from(u32::from(address)) & !((1u64 << (32 - prefix)) - 1);
    let end = base + (1u64 << (32 - prefix));
    let mut out = Vec::new();
    for i in 0..u64::from(count) {
        let start = base + (i << bits);
        if start + (1 << bits) > end {
            return fail("`Fn::Cidr`: the block is too small for that many subnets");
        }
        out.push(Value::String(format!(
            "{}/{}",
            std::net::Ipv4Addr::from(start as u32),
            32 - bits
        )));
    }
    Ok(Value::Array(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::cfn::parse_template;

    struct Fixed;

    impl Resolver for Fixed {
        fn resource(&self, logical: &str, attribute: Option<&str>) -> Result<Value, EvaluateError> {
            Ok(match (logical, attribute) {
                ("New", _) => unknown("New"),
                (l, None) => json!(format!("id-{l}")),
                (l, Some(a)) => json!(format!("{l}/{a}")),
            })
        }

        fn import(&self, name: &str) -> Result<Value, EvaluateError> {
            Ok(json!(format!("import-{name}")))
        }
    }

    fn value_of(expression: &str) -> Result<Value, EvaluateError> {
        value_with("", expression)
    }

    fn value_with(transform: &str, expression: &str) -> Result<Value, EvaluateError> {
        let text = format!(
            "{transform}Parameters: {{P: {{Type: String}}, L: {{Type: CommaDelimitedList}}}}\nMappings: {{M: {{a: {{b: 7}}}}}}\nConditions:\n  IsOne: !Equals [1, '1']\n  IsNot: !Not [!Condition IsOne]\nResources:\n  New: {{Type: 'X::Y::Z'}}\n  Old: {{Type: 'X::Y::Z'}}\n  R:\n    Type: X::Y::Z\n    Properties:\n      V: {expression}\n"
        );
        let template = parse_template("t", &text).unwrap();
        let parameters = BTreeMap::from([
            ("P".to_owned(), json!("p")),
            ("L".to_owned(), json!(["x", "y"])),
        ]);
        let pseudo = Pseudo {
            account: "1".into(),
            region: "eu-west-1".into(),
            stack_name: "s".into(),
            stack_id: None,
            notification_arns: vec![],
        };
        let scope = Scope {
            template: &template,
            parameters: &parameters,
            pseudo: &pseudo,
            resolver: &Fixed,
        };
        evaluate(&template.resources["R"].properties, &scope).map(|v| v["V"].clone())
    }

    #[test]
    fn functions_have_their_documented_values() {
        for (expression, expected) in [
            ("!Ref P", json!("p")),
            ("!Ref AWS::Region", json!("eu-west-1")),
            ("!Ref Old", json!("id-Old")),
            ("!GetAtt Old.Endpoint.Port", json!("Old/Endpoint.Port")),
            (
                "!Sub 'a${P}-${Old.Arn}-${!P}-${AWS::AccountId}'",
                json!("ap-Old/Arn-${P}-1"),
            ),
            ("!Sub ['${x}', {x: !Ref P}]", json!("p")),
            ("!Join ['-', [a, !Ref P, 3]]", json!("a-p-3")),
            ("!Join [',', !Ref L]", json!("x,y")),
            ("!Select [1, !Split [',', 'a,b']]", json!("b")),
            ("!Select [0, !GetAZs '']", json!("eu-west-1a")),
            ("!FindInMap [M, a, b]", json!(7)),
            ("!If [IsOne, 1, 2]", json!(1)),
            ("!If [IsNot, 1, 2]", json!(2)),
            ("!Base64 'hello'", json!("aGVsbG8=")),
            (
                "!Cidr ['10.0.0.0/16', 2, 8]",
                json!(["10.0.0.0/24", "10.0.1.0/24"]),
            ),
            ("!ImportValue x", json!("import-x")),
            ("!Ref New", unknown("New")),
            ("!Sub 'arn:${New}/x'", unknown("arn:${New}/x")),
            ("[1, !Ref 'AWS::NoValue', 2]", json!([1, 2])),
        ] {
            assert_eq!(value_of(expression).unwrap(), expected, "{expression}");
        }
    }

    #[test]
    fn extended_functions_need_the_transform() {
        for (expression, expected) in [
            (
                "!ToJsonString {a: !Ref P, b: [1]}",
                json!("{\"a\":\"p\",\"b\":[1]}"),
            ),
            ("{'Fn::Length': !Ref L}", json!(2)),
            ("!Length [a, b, c]", json!(3)),
            ("{'Fn::Length': !Split [',', 'a,b']}", json!(2)),
            ("!FindInMap [M, a, z, {DefaultValue: !Ref P}]", json!("p")),
            ("!FindInMap [M, a, b, {DefaultValue: x}]", json!(7)),
        ] {
            let transform = "Transform: [AWS::LanguageExtensions]\n";
            assert_eq!(
                value_with(transform, expression).unwrap(),
                expected,
                "{expression}"
            );
            if !expression.contains(" b, {") {
                assert!(value_of(expression).is_err(), "{expression}");
            }
        }
        let open = value_with(
            "Transform: AWS::LanguageExtensions\n",
            "!ToJsonString {a: !Ref New}",
        );
        assert!(is_unknown(&open.unwrap()).is_some());
    }

    #[test]
    fn what_cannot_be_evaluated_says_why() {
        for expression in [
            "!FindInMap [M, a, c]",
            "!Select [5, [1]]",
            "!Cidr ['10.0.0.0/30', 200, 8]",
            "!Nope x",
        ] {
            assert!(value_of(expression).is_err(), "{expression}");
        }
    }
}
