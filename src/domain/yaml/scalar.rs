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
    float(text)
        .map(Scalar::Float)
        .or_else(|| int(text).map(Scalar::Int))
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

/// Tells whether these are digits of the radix and underscores, beginning as told.
fn is_digits(text: &str, radix: u32, first: impl Fn(char) -> bool) -> bool {
    text.starts_with(first) && text.chars().all(|c| c == '_' || c.is_digit(radix))
}

/// PyYAML's pattern of an integer, read by its own constructor.
fn int(text: &str) -> Option<i128> {
    let (sign, body) = signed(text);
    let number =
        |digits: &str, radix: u32| i128::from_str_radix(&digits.replace('_', ""), radix).ok();
    let any = |_: char| true;
    let value = if body == "0" {
        0
    } else if let Some(rest) = body.strip_prefix("0b") {
        number(rest, 2).filter(|_| is_digits(rest, 2, any))?
    } else if let Some(rest) = body.strip_prefix("0x") {
        number(rest, 16).filter(|_| is_digits(rest, 16, any))?
    } else if let Some(rest) = body.strip_prefix('0') {
        // `0_` is nothing but underscores after its zero, and zero to PyYAML.
        if !is_digits(rest, 8, any) {
            return None;
        }
        number(body, 8)?
    } else if let Some((first, rest)) = body.split_once(':') {
        let mut value = number(first, 10).filter(|_| is_digits(first, 10, is_one_to_nine))?;
        for part in rest.split(':') {
            value = value.checked_mul(60)?.checked_add(sixtieth(part)?)?;
        }
        value
    } else {
        number(body, 10).filter(|_| is_digits(body, 10, is_one_to_nine))?
    };
    value.checked_mul(sign)
}

fn is_one_to_nine(c: char) -> bool {
    ('1'..='9').contains(&c)
}

fn signed(text: &str) -> (i128, &str) {
    match text.strip_prefix('-') {
        Some(body) => (-1, body),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// Minutes or seconds: `[0-5]?[0-9]`.
fn sixtieth(part: &str) -> Option<i128> {
    let fine = match part.as_bytes() {
        [unit] => unit.is_ascii_digit(),
        [ten, unit] => (b'0'..=b'5').contains(ten) && unit.is_ascii_digit(),
        _ => false,
    };
    if fine { part.parse().ok() } else { None }
}

/// PyYAML's pattern of a float. It wants a dot in every float and a sign in every exponent: `1e3` stays text. A float
/// that begins with its dot has no sign.
fn float(text: &str) -> Option<f64> {
    let (sign, body) = signed(text);
    let sign = sign as f64;
    match body {
        ".inf" | ".Inf" | ".INF" => return Some(sign * f64::INFINITY),
        ".nan" | ".NaN" | ".NAN" if body == text => return Some(f64::NAN),
        _ => {}
    }
    let digit = |c: char| c.is_ascii_digit();
    let (whole, rest) = body.split_once('.')?;
    let (fraction, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    if let Some(exponent) = exponent {
        let digits = exponent.strip_prefix(['+', '-'])?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
    }
    if !fraction.is_empty() && !is_digits(fraction, 10, |_| true) {
        return None;
    }
    if whole.is_empty() {
        if body != text || !fraction.starts_with(digit) {
            return None;
        }
    } else if let Some((first, minutes)) = whole.split_once(':') {
        if exponent.is_some() || !is_digits(first, 10, digit) {
            return None;
        }
        let parts: Option<Vec<i128>> = minutes.split(':').map(sixtieth).collect();
        return Some(sign * base_60(first, &parts?, fraction)?);
    } else if !is_digits(whole, 10, digit) {
        return None;
    }
    let plain = body.replace('_', "");
    plain.parse::<f64>().ok().map(|f| sign * f)
}

/// Adds up from the last part, in floats, as PyYAML does: another order would round otherwise.
fn base_60(first: &str, parts: &[i128], fraction: &str) -> Option<f64> {
    let (last, middle) = parts.split_last()?;
    let clean = |t: &str| t.replace('_', "");
    let seconds = format!("{last}.{}", clean(fraction)).parse::<f64>().ok()?;
    let (mut value, mut base) = (0.0 + seconds, 60.0);
    for part in middle.iter().rev() {
        value += *part as f64 * base;
        base *= 60.0;
    }
    Some(value + clean(first).parse::<f64>().ok()? * base)
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
            ("-.inf", Scalar::Float(f64::NEG_INFINITY)),
            ("-.nan", text("-.nan")),
            ("+.5", text("+.5")),
            ("-0.5", Scalar::Float(-0.5)),
            ("+_1.5", text("+_1.5")),
            ("._5", text("._5")),
            ("0_", int(0)),
            ("0x", text("0x")),
            ("-1:30.5", Scalar::Float(-90.5)),
            ("190:20:30.15", Scalar::Float(685_230.15)),
            ("1:60.5", text("1:60.5")),
            ("0:30", text("0:30")),
            ("1:30.5e+3", text("1:30.5e+3")),
            ("12e03", text("12e03")),
        ] {
            assert_eq!(resolve(written, Style::Plain, None), expected, "{written}");
        }
        assert_eq!(resolve("yes", Style::Quoted, None), text("yes"));
    }
}
