//! Binding parameter values to a template's declarations.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Parameter, Template};
use crate::domain::model::closest;

/// A value that does not fit its parameter, without the value itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParameterError {
    /// The parameter.
    pub name: String,
    /// What is wrong.
    pub message: String,
}

/// Binds given values and defaults; returns every value that does not fit.
///
/// `secret` shows a value of a `NoEcho` parameter in place of the value itself.
pub fn bind_parameters(
    template: &Template,
    given: &BTreeMap<String, String>,
    secret: &dyn Fn(&str) -> String,
) -> Result<BTreeMap<String, Value>, Vec<ParameterError>> {
    let mut errors = Vec::new();
    let mut bound = BTreeMap::new();
    for name in given
        .keys()
        .filter(|n| !template.parameters.contains_key(*n))
    {
        let near = closest(name, template.parameters.keys().map(String::as_str))
            .map(|c| format!("; did you mean `{c}`?"))
            .unwrap_or_default();
        errors.push(ParameterError {
            name: name.clone(),
            message: format!("`{name}` is not a parameter of the template{near}"),
        });
    }
    for (name, parameter) in &template.parameters {
        let Some(text) = given.get(name).or(parameter.default.as_ref()) else {
            errors.push(ParameterError {
                name: name.clone(),
                message: format!("the parameter `{name}` has neither a value nor a default"),
            });
            continue;
        };
        if let Err(message) = fits(name, parameter, text) {
            errors.push(ParameterError {
                name: name.clone(),
                message,
            });
        }
        let text = if parameter.no_echo {
            secret(text)
        } else {
            text.clone()
        };
        let list = parameter.kind == "CommaDelimitedList"
            || parameter.kind.starts_with("List<")
            || parameter.kind.contains("<List<");
        bound.insert(
            name.clone(),
            if list {
                json!(text.split(',').map(str::trim).collect::<Vec<_>>())
            } else {
                Value::String(text)
            },
        );
    }
    if errors.is_empty() {
        Ok(bound)
    } else {
        Err(errors)
    }
}

fn fits(name: &str, parameter: &Parameter, text: &str) -> Result<(), String> {
    if !parameter.allowed_values.is_empty() && !parameter.allowed_values.iter().any(|a| a == text) {
        return Err(format!(
            "the value of `{name}` is not one of its AllowedValues"
        ));
    }
    // CloudFormation API: a parameter value has at most 4,096 bytes.
    if text.len() > 4096 {
        return Err(format!("the value of `{name}` is longer than 4,096 bytes"));
    }
    let length = text.chars().count() as u64;
    if parameter.length.0.is_some_and(|l| length < l)
        || parameter.length.1.is_some_and(|l| length > l)
    {
        return Err(format!(
            "the length of `{name}` is outside MinLength and MaxLength"
        ));
    }
    if parameter.kind == "Number" {
        let Ok(number) = text.parse::<f64>() else {
            return Err(format!("the value of `{name}` is not a number"));
        };
        if parameter.range.0.is_some_and(|l| number < l)
            || parameter.range.1.is_some_and(|l| number > l)
        {
            return Err(format!(
                "the value of `{name}` is outside MinValue and MaxValue"
            ));
        }
    }
    if let Some(pattern) = &parameter.allowed_pattern {
        // The schema library brings the only regular-expression engine with ECMA syntax, so it serves here too.
        let schema = json!({ "type": "string", "pattern": format!("^(?:{pattern})$") });
        let patterns = jsonschema::PatternOptions::fancy_regex()
            .backtrack_limit(BACKTRACKS)
            .size_limit(PATTERN_BYTES);
        let options = jsonschema::options();
        match options.with_pattern_options(patterns).build(&schema) {
            Ok(validator) if validator.is_valid(&json!(text)) => {}
            Ok(_) => {
                return Err(format!(
                    "the value of `{name}` does not match its AllowedPattern"
                ));
            }
            Err(_) => {
                return Err(format!(
                    "the AllowedPattern of `{name}` is not a regular expression"
                ));
            }
        }
    }
    Ok(())
}

/// Steps back that a pattern may take before the value counts as not matching, and the size it may compile to.
const BACKTRACKS: usize = 100_000;
const PATTERN_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::cfn::parse_template;

    #[test]
    fn values_must_fit_their_declarations() {
        let text = "Parameters:\n  A: {Type: String, AllowedPattern: '[a-z]+'}\n  N: {Type: Number, MaxValue: 5, Default: 3}\n  E: {Type: String, AllowedValues: [x], Default: x}\n  L: {Type: CommaDelimitedList, Default: 'a, b'}\n  S: {Type: String, NoEcho: true, Default: p}\nResources: {R: {Type: 'X::Y::Z'}}\n";
        let template = parse_template("t", text).unwrap();
        let bind = |given: &[(&str, &str)]| {
            let given = given
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            bind_parameters(&template, &given, &|_| "hidden".into())
        };
        let bound = bind(&[("A", "abc")]).unwrap();
        assert_eq!(
            (&bound["L"], &bound["S"], &bound["N"]),
            (&json!(["a", "b"]), &json!("hidden"), &json!("3"))
        );
        for bad in [
            vec![("A", "A1")],
            vec![],
            vec![("A", "a"), ("N", "6")],
            vec![("A", "a"), ("E", "y")],
            vec![("A", "a"), ("Q", "y")],
        ] {
            assert_eq!(bind(&bad).unwrap_err().len(), 1, "{bad:?}");
        }
    }

    #[test]
    fn sec_12_patterns_of_parameters_end() {
        for pattern in [
            "(a+)+$",
            "(a|aa)+$",
            "(?=(a+)+b)a*",
            "^(?:(a*)*)*\\\\1b$",
            "(?:a{0,1000}){0,1000}",
        ] {
            let text = format!(
                "Parameters:\n  A: {{Type: String, AllowedPattern: \"{pattern}\"}}\nResources: {{R: {{Type: 'X::Y::Z'}}}}\n"
            );
            let template = parse_template("t", &text).unwrap();
            let given = BTreeMap::from([("A".to_owned(), "a".repeat(4_000) + "!")]);
            let bound = bind_parameters(&template, &given, &|_| String::new());
            assert!(bound.is_err(), "{pattern}");
        }
    }
}
