//! What may be kept of a reason that somebody else wrote.

use serde_json::Value;

/// Shorter values are words of every sentence: hiding `2` or `true` would hide nothing and spoil the reason.
const SHORTEST: usize = 8;

/// What stands in place of a value.
const MARK: &str = "‹value›";

/// Replaces values of a deployment in a text of CloudFormation: a service may quote what it was given.
///
/// A secret is replaced whatever its length, any other text of the inputs from eight bytes on. What has another
/// form in the text (cut, escaped, encoded) is not found.
pub fn conceal<'a>(
    text: &str,
    secrets: impl IntoIterator<Item = &'a str>,
    inputs: &'a Value,
) -> String {
    let mut values: Vec<&str> = secrets.into_iter().filter(|s| !s.is_empty()).collect();
    let mut open = vec![inputs];
    while let Some(value) = open.pop() {
        match value {
            Value::String(s) if s.len() >= SHORTEST => values.push(s),
            Value::Array(items) => open.extend(items),
            Value::Object(members) => open.extend(members.values()),
            _ => {}
        }
    }
    // The longest first: what holds another value is replaced as a whole.
    values.sort_unstable_by_key(|v| std::cmp::Reverse(v.len()));
    values.dedup();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    'text: while let Some(first) = rest.chars().next() {
        for value in &values {
            if let Some(after) = rest.strip_prefix(value) {
                out.push_str(MARK);
                rest = after;
                continue 'text;
            }
        }
        out.push(first);
        rest = &rest[first.len_utf8()..];
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::conceal;

    #[test]
    fn values_are_replaced_and_words_are_not() {
        let inputs = json!({ "image": "registry.example/app:1", "count": 2, "list": ["orders", "a-long-value"] });
        for (text, want) in [
            (
                "no such image: registry.example/app:1",
                "no such image: ‹value›",
            ),
            ("orders failed 2 times", "orders failed 2 times"),
            ("`a-long-value-2` is in use", "`‹value›-2` is in use"),
            (
                "the password pw: pw is too short",
                "the ‹value›: ‹value› is too short",
            ),
            ("größe ‹", "größe ‹"),
        ] {
            assert_eq!(conceal(text, ["", "pw", "password pw"], &inputs), want);
        }
    }
}
