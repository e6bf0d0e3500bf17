//! Scalars as YAML 1.1 reads them: <https://yaml.org/type/>, with PyYAML's deviations, which CloudFormation shares.

use super::Style;

/// A resolved scalar. Dates stay text: nothing that isoform reads has a date type.
#[derive(Clone, PartialEq, Debug)]
pub enum Scalar {
    /// `null`, `~` or nothing.
    Null,
    /// `yes`, `no`, `true`, `false`, `on`, `off`.
    Bool(bool),
    /// A whole number, also octal, hexadecimal, binary and sexagesimal.
    Int(i128),
    /// A number with a fraction or exponent.
    Float(f64),
    /// Everything else.
    Text(String),
}

/// Resolves a scalar by its text, style and tag.
pub fn resolve(text: &str, style: Style, tag: Option<&str>) -> Scalar {
    match tag {
        Some("str") => return Scalar::Text(text.to_owned()),
        Some("null") => return Scalar::Null,
        _ => {}
    }
    if style == Style::Quoted {
        return Scalar::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Scalar::Bool(true);
        }
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Scalar::Text(text.to_owned());
    }
    int(text)
        .map(Scalar::Int)
        .or_else(|| float(text).map(Scalar::Float))
        .unwrap_or_else(|| Scalar::Text(text.to_owned()))
}

/// Returns what other readers make of a plain scalar, where they differ.
pub fn ambiguity(text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    if matches!(lower.as_str(), "yes" | "no" | "on" | "off") {
        Some("a boolean to YAML 1.1 readers and a text to YAML 1.2 readers")
    } else if text.len() > 1 && text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()) {
        Some("an octal number to YAML 1.1 readers and a decimal number or a text to others")
    } else if text.contains(':') && int(text).is_some() {
        Some("a sexagesimal number to YAML 1.1 readers and a text to others")
    } else {
        None
    }
}

fn int(text: &str) -> Option<i128> {
    let (sign, body) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let digits = |body: &str, radix: u32| -> Option<i128> {
        let clean: String = body.chars().filter(|c| *c != '_').collect();
        if clean.is_empty() || !clean.chars().all(|c| c.is_digit(radix)) {
            return None;
        }
        i128::from_str_radix(&clean, radix).ok()
    };
    let value = if let Some(rest) = body.strip_prefix("0b") {
        digits(rest, 2)?
    } else if let Some(rest) = body.strip_prefix("0x") {
        digits(rest, 16)?
    } else if body == "0" {
        0
    } else if body.starts_with('0') && body.len() > 1 {
        digits(&body[1..], 8)?
    } else if body.contains(':') {
        sexagesimal(body)?
    } else if body.starts_with(|c: char| c.is_ascii_digit()) {
        digits(body, 10)?
    } else {
        return None;
    };
    value.checked_mul(sign)
}

fn sexagesimal(body: &str) -> Option<i128> {
    let mut parts = body.split(':');
    let first = parts.next()?;
    if !first.starts_with(|c: char| ('1'..='9').contains(&c))
        || !first.bytes().all(|b| b.is_ascii_digit() || b == b'_')
    {
        return None;
    }
    let mut value: i128 = first.replace('_', "").parse().ok()?;
    for part in parts {
        if part.is_empty()
            || part.len() > 2
            || !part.bytes().all(|b| b.is_ascii_digit())
            || (part.len() == 2 && part.as_bytes()[0] > b'5')
        {
            return None;
        }
        value = value.checked_mul(60)?.checked_add(part.parse().ok()?)?;
    }
    Some(value)
}

fn float(text: &str) -> Option<f64> {
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    match body {
        ".inf" | ".Inf" | ".INF" => return Some(sign * f64::INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    // PyYAML wants a dot in every float, and a sign in every exponent: `1e3` stays text.
    let (mantissa, exponent) = match body.split_once(['e', 'E']) {
        Some((m, e)) => (m, Some(e)),
        None => (body, None),
    };
    let (whole, fraction) = mantissa.split_once('.')?;
    let fine = |t: &str| t.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    if !fine(whole)
        || !fine(fraction)
        || (whole.is_empty() && fraction.is_empty())
        || (whole.is_empty() && fraction.starts_with('_'))
    {
        return None;
    }
    if let Some(e) = exponent {
        let digits = e.strip_prefix(['+', '-'])?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
    }
    body.replace('_', "").parse::<f64>().ok().map(|f| sign * f)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values are PyYAML 6.0's `safe_load` of each text.
    #[test]
    fn plain_scalars_resolve_as_pyyaml_does() {
        let int = |i| Scalar::Int(i);
        let text = |t: &str| Scalar::Text(t.into());
        for (written, expected) in [
            ("", Scalar::Null),
            ("~", Scalar::Null),
            ("nUll", text("nUll")),
            ("yes", Scalar::Bool(true)),
            ("Off", Scalar::Bool(false)),
            ("y", text("y")),
            ("0", int(0)),
            ("-0", int(0)),
            ("+1", int(1)),
            ("010", int(8)),
            ("0755", int(493)),
            ("09", text("09")),
            ("0o17", text("0o17")),
            ("0x1F", int(31)),
            ("0b101", int(5)),
            ("1_000", int(1000)),
            ("22:22", int(1342)),
            ("1:60", text("1:60")),
            ("012345678901", text("012345678901")),
            ("2010-09-09", text("2010-09-09")),
            ("18446744073709551616", int(18_446_744_073_709_551_616)),
            ("1.5", Scalar::Float(1.5)),
            (".5", Scalar::Float(0.5)),
            ("2.10", Scalar::Float(2.1)),
            ("1e3", text("1e3")),
            ("1.0e+3", Scalar::Float(1000.0)),
            ("1.0e3", text("1.0e3")),
            ("10.0.0.0/16", text("10.0.0.0/16")),
            ("1.2.3", text("1.2.3")),
            ("-", text("-")),
            (".", text(".")),
            (".inf", Scalar::Float(f64::INFINITY)),
            ("12e03", text("12e03")),
        ] {
            assert_eq!(resolve(written, Style::Plain, None), expected, "{written}");
        }
        assert_eq!(resolve("yes", Style::Quoted, None), text("yes"));
    }
}
