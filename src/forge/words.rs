//! What a forge says of an error, made fit for people and logs.

use serde_json::Value;

use super::client::Call;

/// Finds what a forge says of an error, in the shapes that they have for it.
pub(super) fn message(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        // A page of HTML says nothing to anybody here.
        let text = String::from_utf8_lossy(&body[..body.len().min(1024)]);
        let page = text.trim_start().starts_with('<');
        return if page {
            String::new()
        } else {
            text.into_owned()
        };
    };
    let mut parts = Vec::new();
    for key in ["message", "error", "error_description", "errors"] {
        if let Some(value) = value.get(key) {
            words(value, &mut parts);
        }
    }
    parts.dedup();
    parts.join(": ")
}

fn words(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::String(text) if !text.is_empty() => out.push(text.clone()),
        Value::Array(all) => all.iter().take(5).for_each(|v| words(v, out)),
        Value::Object(fields) => {
            // GitHub: {resource, field, code, message}; GitLab: {field: [texts]}; Bitbucket: {message, detail}.
            for (name, value) in fields.iter().take(8) {
                if matches!(name.as_str(), "documentation_url" | "data" | "resource") {
                    continue;
                }
                let mut inner = Vec::new();
                words(value, &mut inner);
                match name.as_str() {
                    "message" | "detail" => out.extend(inner),
                    _ => out.extend(inner.iter().map(|text| format!("{name} {text}"))),
                }
            }
        }
        _ => {}
    }
}

/// Takes the call's own secret out of a text, however it is spelt.
pub(super) fn without(mut text: String, call: &Call) -> String {
    if let Some((_, secret, _)) = &call.secret {
        text = hidden(text, secret);
    }
    if let Some(both) = &call.plain {
        text = hidden(
            text,
            both.split_once(':').map_or(both.as_str(), |both| both.1),
        );
    }
    text
}

fn hidden(text: String, secret: &str) -> String {
    if secret.is_empty() {
        text
    } else {
        text.replace(secret, "***")
    }
}

/// Makes text of strangers fit for a line of a log: without control characters, and cut.
pub(super) fn clean(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for (number, c) in text.trim().chars().enumerate() {
        if number == limit {
            out.push('…');
            break;
        }
        let hides = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        out.push(if hides { ' ' } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn what_a_forge_says_of_an_error_is_found_in_every_shape() {
        for (body, said) in [
            (
                r#"{"message":"Validation Failed","errors":[{"resource":"Issue","field":"body","code":"too_long"}],"documentation_url":"https://x"}"#,
                "Validation Failed: field body: code too_long",
            ),
            (r#"{"message":{"base":["is wrong"]}}"#, "base is wrong"),
            (
                r#"{"error":"invalid_token","error_description":"Token was revoked."}"#,
                "invalid_token: Token was revoked.",
            ),
            (
                r#"{"type":"error","error":{"message":"Bad","detail":"why"}}"#,
                "Bad: why",
            ),
            ("Retry later", "Retry later"),
            ("<html>Bad gateway</html>", ""),
            ("", ""),
        ] {
            assert_eq!(message(body.as_bytes()), said, "{body}");
        }
    }

    #[test]
    fn sec_what_a_forge_says_cannot_break_a_line_or_repeat_the_token() {
        let token = Arc::new(Zeroizing::new("s3cret".to_owned()));
        let call = Call::get(["x"]).bearer(token);

        let said = clean(&without("bad\r\ntoken s3cret\u{202e}".into(), &call), 300);

        assert_eq!(said, "bad  token *** ");
        assert_eq!(clean(&"é".repeat(400), 300).chars().count(), 301);
    }
}
