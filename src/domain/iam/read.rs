//! What the policy of a bucket refuses to everybody, and reading policies.

use serde_json::Value;

/// What is refused to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Everything that does not come over TLS.
    pub plain_text: bool,
    /// Puts that do not ask for encryption.
    pub unencrypted: bool,
}

/// Reads the policy of a bucket. What cannot be read refuses nothing.
pub fn refused(policy: &str) -> Refused {
    refused_of(policy, "s3:*")
}

/// The same for another service, whose every action is named by `all`.
pub fn refused_of(policy: &str, all: &str) -> Refused {
    let policy: Value = serde_json::from_str(policy).unwrap_or_default();
    let statements = match policy.get("Statement") {
        Some(Value::Array(all)) => all.iter().collect(),
        Some(one) => vec![one],
        None => Vec::new(),
    };
    let denied = |actions: &[&str], condition: &dyn Fn(&str, &str, &Value) -> bool| {
        statements.iter().any(|s| {
            s.get("Effect").is_some_and(|e| e == "Deny")
                && s.get("Principal").is_some_and(is_everybody)
                && any(s.get("Action"), &|a| actions.contains(&a))
                && conditions(s).any(|(operator, key, value)| condition(operator, key, value))
        })
    };
    Refused {
        plain_text: denied(&["*", all], &|operator, key, value| {
            operator == "Bool"
                && key.eq_ignore_ascii_case("aws:SecureTransport")
                && any(Some(value), &|v| v == "false")
        }),
        unencrypted: denied(&["*", all, "s3:PutObject"], &|operator, key, value| {
            key.eq_ignore_ascii_case("s3:x-amz-server-side-encryption")
                && (operator == "StringNotEquals"
                    || operator == "Null" && any(Some(value), &|v| v == "true"))
        }),
    }
}

fn is_everybody(principal: &Value) -> bool {
    principal == "*" || any(principal.get("AWS"), &|p| p == "*")
}

/// Tells whether a value, or one of several, is as asked; a truth may be written without quotes.
pub(super) fn any(value: Option<&Value>, is: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Some(Value::String(one)) => is(one),
        Some(Value::Bool(one)) => is(if *one { "true" } else { "false" }),
        Some(Value::Array(all)) => all.iter().any(|v| any(Some(v), is)),
        _ => false,
    }
}

pub(super) fn conditions(statement: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let operators = statement.get("Condition").and_then(Value::as_object);
    operators
        .into_iter()
        .flatten()
        .flat_map(|(operator, keys)| {
            let keys = keys.as_object().into_iter().flatten();
            keys.map(move |(key, value)| (operator.as_str(), key.as_str(), value))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Refused = Refused {
        plain_text: true,
        unencrypted: true,
    };
    const NEITHER: Refused = Refused {
        plain_text: false,
        unencrypted: false,
    };

    #[test]
    fn a_policy_refuses_what_it_denies_to_everybody() {
        let good = r#"{"Statement":[
            {"Effect":"Deny","Principal":"*","Action":"s3:*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"false"}}},
            {"Effect":"Deny","Principal":{"AWS":["*"]},"Action":["s3:PutObject"],"Resource":"*","Condition":{"Null":{"s3:x-amz-server-side-encryption":true}}}]}"#;

        assert_eq!(refused(good), BOTH);
        for (from, to) in [
            ("Deny", "Allow"),
            ("*\"", "arn:aws:iam::111111111111:root\""),
            ("Condition", "Comment"),
            ("s3:", "ec2:"),
        ] {
            assert_eq!(refused(&good.replace(from, to)), NEITHER, "{to}");
        }
        let trusting = good.replace("\"false\"", "\"true\"");
        assert!(!refused(&trusting).plain_text);
        for broken in ["", "[]", "{", r#"{"Statement":{"Effect":"Deny"}}"#] {
            assert_eq!(refused(broken), NEITHER, "{broken}");
        }
    }
}
