//! What may be kept of a reason that somebody else wrote.

use serde_json::Value;

/// Shorter values are words of every sentence: hiding `2` or `true` would hide nothing and spoil the reason.
const SHORTEST: usize = 8;

/// Characters that are kept.
const LONGEST: usize = 500;

/// What stands in place of a value.
const MARK: &str = "‹value›";

/// Replaces values of a deployment in a text of CloudFormation: a service may quote what it was given.
///
/// A secret is replaced whatever its length, any other text of the inputs from eight bytes on. What has another
/// form in the text (cut, escaped, encoded) is not found. Afterwards control characters are dropped and the text is
/// cut: a cut before would leave the first half of a value, which nothing recognises.
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
    out.chars()
        .filter(|c| !c.is_control())
        .take(LONGEST)
        .collect()
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

    #[test]
    fn a_value_across_the_cut_or_over_lines_leaves_nothing() {
        let long = format!("{} hunter2-hunter2", "x".repeat(490));
        let kept = conceal(&long, ["hunter2-hunter2"], &json!({}));
        assert!(
            !kept.contains("hunter") && kept.chars().count() <= 500,
            "{kept}"
        );
        assert_eq!(
            conceal("bad key: one\ntwo\u{7}", ["one\ntwo"], &json!({})),
            "bad key: ‹value›"
        );
    }
}
