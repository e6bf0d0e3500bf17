//! Proton's own filters: "AWS Proton CloudFormation filters", administrator guide.
//!
//! The list filters are used as the whole value of a key and in the middle of a hand-written list, so their output is
//! block style and every line after the first is indented to the column where the expression begins. A filter cannot
//! know that column; it marks where its text begins and breaks, and [`indent`] puts the spaces in afterwards.

use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use crate::domain::yaml::{Scalar, Style, ambiguity, resolve};

const BEGIN: char = '\u{F8F0}';
const BREAK: char = '\u{F8F1}';

/// The marks; a template that holds one is refused.
pub(super) const MARKS: [char; 2] = [BEGIN, BREAK];

pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_filter(
        "proton_cfn_ecs_task_definition_formatted_env_vars",
        |_: &mut State<'_, '_>, value: Value, rest: Rest<ValueOrKwargs>| {
            let lines = pairs(&value, raw(rest)?)?
                .into_iter()
                .flat_map(|(name, value)| [format!("- Name: {name}"), format!("  Value: {value}")]);
            Ok::<_, Error>(block(lines))
        },
    );
    environment.add_filter(
        "proton_cfn_lambda_function_formatted_env_vars",
        |_: &mut State<'_, '_>, value: Value, rest: Rest<ValueOrKwargs>| {
            Ok::<_, Error>(block(
                pairs(&value, raw(rest)?)?
                    .into_iter()
                    .map(|(name, value)| format!("{name}: {value}")),
            ))
        },
    );
    environment.add_filter(
        "proton_cfn_iam_policy_arns",
        |_: &mut State<'_, '_>, value: Value| {
            let arns = values(&value)?
                .into_iter()
                .map(|(_, v)| v)
                .filter(|v| is_policy_arn(v))
                .map(|v| format!("- {}", scalar(&v)));
            Ok::<_, Error>(block(arns))
        },
    );
    environment.add_filter("proton_cfn_sanitize", |_: &mut State<'_, '_>, value: Value| {
        let text = plain(&value)?;
        if is_safe(&text) || is_arn(&text) {
            Ok(Value::from(text))
        } else {
            // Proton's own text holds the value; values stay out of errors here, so the place has to do.
            Err(refuse("Illegal character(s) detected. Must match regex ^[a-zA-Z0-9_-]*$ or be a valid ARN"))
        }
    });
}

fn refuse(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// Reads the one argument that the list filters have: `raw=True`.
fn raw(rest: Rest<ValueOrKwargs>) -> Result<bool, Error> {
    let mut raw = true;
    for value in rest.into_values() {
        if value.is_kwargs() {
            for key in value.try_iter()? {
                if key.as_str() != Some("raw") {
                    return Err(refuse("the filter has the one argument `raw`"));
                }
                raw = value.get_item(&key)?.is_true();
            }
        } else {
            raw = value.is_true();
        }
    }
    Ok(raw)
}

fn values(value: &Value) -> Result<Vec<(String, String)>, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    if value.kind() != ValueKind::Map {
        return Err(refuse("the filter wants a mapping of outputs"));
    }
    let mut out = Vec::new();
    for key in value.try_iter()? {
        let item = value.get_item(&key)?;
        out.push((plain(&key)?, plain(&item)?));
    }
    Ok(out)
}

fn plain(value: &Value) -> Result<String, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    super::compat::str_of(value)
}

fn pairs(value: &Value, raw: bool) -> Result<Vec<(String, String)>, Error> {
    let all = values(value)?;
    if !raw && all.iter().any(|(_, v)| !is_safe(v)) {
        return Err(refuse(
            "Illegal character(s) detected. Must match regex ^[a-zA-Z0-9_-]*$",
        ));
    }
    Ok(all
        .into_iter()
        .map(|(k, v)| (scalar(&k), scalar(&v)))
        .collect())
}

fn block(lines: impl Iterator<Item = String>) -> Value {
    let mut out = String::new();
    for line in lines {
        out.push(if out.is_empty() { BEGIN } else { BREAK });
        out.push_str(&line);
    }
    Value::from(out)
}

/// Replaces the marks by line breaks with the indentation of the place where the text begins.
///
/// Stops soon after `limit`: a list far to the right grows by its column with every line.
pub(super) fn indent(text: String, limit: usize) -> String {
    if !text.contains(MARKS) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let (mut column, mut begin) = (0usize, 0usize);
    for c in text.chars() {
        if out.len() > limit {
            break;
        }
        match c {
            BEGIN => begin = column,
            BREAK => {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', begin));
                column = begin;
            }
            '\n' => {
                out.push(c);
                column = 0;
            }
            c => {
                out.push(c);
                column += 1;
            }
        }
    }
    out
}

fn is_safe(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn is_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    parts.len() == 6
        && parts[0] == "arn"
        && parts[1].starts_with("aws")
        && !parts[2].is_empty()
        && !parts[5].is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'\'' | b'"' | b'{' | b'}' | b'<' | b'>'))
}

fn is_policy_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let letters =
        |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-');
    let digits = |t: &str| t.len() == 12 && t.bytes().all(|b| b.is_ascii_digit());
    matches!(parts.as_slice(), ["arn", partition, "iam", "", account, rest] if letters(partition) && digits(account) && rest.starts_with("policy/"))
}

/// Writes a text as a YAML scalar: plain where every reader takes it for that text, else in double quotes.
fn scalar(text: &str) -> String {
    let special = text.is_empty()
        || text != text.trim()
        || text.starts_with(|c: char| "-?:,[]{}#&*!|>'\"%@`=<".contains(c))
        || text.contains(": ")
        || text.contains(" #")
        || text.ends_with(':')
        || text.chars().any(|c| {
            c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{FEFF}')
        });
    let float_like = text.parse::<f64>().is_ok()
        || text.starts_with(|c: char| c.is_ascii_digit())
            && text.len() == 10
            && text.as_bytes()[4] == b'-';
    let fine = !special
        && !float_like
        && ambiguity(text).is_none()
        && matches!(resolve(text, Style::Plain, None), Scalar::Text(_));
    if fine {
        text.to_owned()
    } else {
        serde_json::to_string(text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, render};
    use serde_json::{Value, json};

    fn out(text: &str, outputs: Value) -> String {
        render("t", text, &json!({ "o": outputs }), &Limits::default())
            .map_or_else(|f| f.message, |r| r.text)
    }

    const ECS: &str = "proton_cfn_ecs_task_definition_formatted_env_vars";

    #[test]
    fn lists_work_as_a_whole_value_and_in_the_middle() {
        let outputs = json!({"A": "x", "B": "y: z"});
        assert_eq!(
            out(&format!("E:\n  {{{{ o | {ECS} }}}}\n"), outputs.clone()),
            "E:\n  - Name: A\n    Value: x\n  - Name: B\n    Value: \"y: z\""
        );
        assert_eq!(
            out(
                &format!("E:\n  - Name: q\n    Value: r\n  {{{{ o |\n      {ECS} }}}}\nF: 1"),
                outputs
            ),
            "E:\n  - Name: q\n    Value: r\n  - Name: A\n    Value: x\n  - Name: B\n    Value: \"y: z\"\nF: 1"
        );
        assert_eq!(out(&format!("a{{{{ o | {ECS} }}}}b"), json!({})), "ab");
    }

    #[test]
    fn values_are_quoted_where_a_reader_would_take_them_for_something_else() {
        let text = out(
            "{{ o | proton_cfn_lambda_function_formatted_env_vars }}",
            json!({"a": "yes", "b": "1e3", "c": "plain", "d": "012345678901", "e": "", "f": 80}),
        );
        assert_eq!(
            text,
            "a: \"yes\"\nb: \"1e3\"\nc: plain\nd: \"012345678901\"\ne: \"\"\nf: \"80\""
        );
    }

    #[test]
    fn only_policies_pass_and_the_rest_is_dropped() {
        let outputs = json!({"a": "arn:aws:iam::123456789012:policy/p", "b": "arn:aws:s3:::b", "c": "arn:aws-cn:iam::123456789012:policy/x/y", "d": "xarn:aws:iam::123456789012:policy/p"});
        assert_eq!(
            out("  {{ o | proton_cfn_iam_policy_arns }}", outputs),
            "  - arn:aws:iam::123456789012:policy/p\n  - arn:aws-cn:iam::123456789012:policy/x/y"
        );
    }

    #[test]
    fn sanitize_refuses_without_showing_the_value() {
        for (value, fine) in [
            ("abc-1_X", true),
            ("arn:aws:s3:::bucket/key", true),
            ("", true),
            ("a b", false),
            ("x: y\ninjected: 1", false),
            ("arn:aws:s3:::b\n- x", false),
        ] {
            let text = out("{{ o.v | proton_cfn_sanitize }}", json!({ "v": value }));
            assert_eq!(text == value, fine, "{text}");
            assert!(fine || !text.contains(value));
        }
        assert!(
            out(
                "{{ o | proton_cfn_ecs_task_definition_formatted_env_vars(raw=False) }}",
                json!({"a": "b c"})
            )
            .contains("Illegal character")
        );
    }
}
