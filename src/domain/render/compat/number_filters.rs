//! Filters on numbers.

use super::*;

pub(super) fn parse_int(s: &str, base: u32) -> Option<Option<i128>> {
    // outer None: not an integer; inner None: too large
    let s = strip(s, None, true, true);
    let (neg, body) = match s.strip_prefix('-') {
        Some(r) => (true, r),
        None => (false, s.strip_prefix('+').unwrap_or(&s)),
    };
    let lower = body.to_ascii_lowercase();
    let (base, digits) = match (base, lower.get(..2)) {
        (16 | 0, Some("0x")) => (16, lower.get(2..)?),
        (8 | 0, Some("0o")) => (8, lower.get(2..)?),
        (2 | 0, Some("0b")) => (2, lower.get(2..)?),
        (0, _) => (10, lower.as_str()),
        (b, _) => (b, lower.as_str()),
    };
    let prefixed = digits.len() != lower.len();
    let digits = if prefixed {
        digits.strip_prefix('_').unwrap_or(digits)
    } else {
        digits
    };
    if digits.is_empty()
        || digits.starts_with('_')
        || digits.ends_with('_')
        || digits.contains("__")
    {
        return None;
    }
    let digits = digits.replace('_', "");
    if !digits.chars().all(|c| c.is_digit(base)) {
        return None;
    }
    Some(
        i128::from_str_radix(&digits, base)
            .ok()
            .map(|n| if neg { -n } else { n }),
    )
}

pub(super) fn parse_float(s: &str) -> Option<f64> {
    let s = strip(s, None, true, true);
    let low = s.to_ascii_lowercase();
    let bare = low.trim_start_matches(['+', '-']);
    if matches!(bare, "inf" | "infinity" | "nan") {
        return low.parse().ok();
    }
    let ok = low
        .chars()
        .all(|c| c.is_ascii_digit() || "+-.e_".contains(c));
    let b = low.as_bytes();
    let under = b.iter().enumerate().all(|(i, c)| {
        *c != b'_'
            || (i > 0
                && b.get(i - 1).is_some_and(u8::is_ascii_digit)
                && b.get(i + 1).is_some_and(u8::is_ascii_digit))
    });
    if !ok || !under {
        return None;
    }
    low.replace('_', "").parse().ok()
}

pub(super) fn float_to_int(x: f64) -> Res<Value> {
    if x.abs() < 1.7e38 {
        Ok(int_value(x.trunc() as i128))
    } else {
        err("integer is too large")
    }
}

pub(super) fn f_int(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "default", "base"], 1)?;
    let v = b.val(0);
    let default = b.opt(1).cloned().unwrap_or(Value::from(0));
    let base = match u32::try_from(b.int_or(2, 10)?) {
        Ok(n) if n == 0 || (2..=36).contains(&n) => n,
        _ => return err("int() base must be >= 2 and <= 36, or 0"),
    };
    match ty(&v) {
        Ty::Undefined | Ty::Silent => undefined(),
        Ty::Bool => Ok(int_value(int_of(&v).unwrap_or(0))),
        Ty::Int => Ok(v),
        Ty::Float => {
            let x = num_of(&v).unwrap_or(f64::NAN);
            if x.is_infinite() {
                // Python raises OverflowError from int() here
                return err("cannot convert float infinity to integer");
            }
            if x.is_nan() {
                return Ok(default);
            }
            float_to_int(x)
        }
        Ty::Str => {
            let s = v.as_str().unwrap_or_default();
            match parse_int(s, base) {
                Some(Some(n)) => Ok(int_value(n)),
                Some(None) => err("integer is too large"),
                None => match parse_float(s) {
                    Some(x) if x.is_finite() => float_to_int(x),
                    _ => Ok(default),
                },
            }
        }
        _ => Ok(default),
    }
}

pub(super) fn f_float(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "default"], 1)?;
    let v = b.val(0);
    let default = b.opt(1).cloned().unwrap_or(Value::from(0.0));
    match ty(&v) {
        Ty::Undefined | Ty::Silent => undefined(),
        Ty::Str => Ok(parse_float(v.as_str().unwrap_or_default()).map_or(default, Value::from)),
        _ => Ok(num_of(&v).map_or(default, Value::from)),
    }
}

pub(super) fn f_abs(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["x"], 1)?;
    let v = b.val(0);
    match (ty(&v), int_of(&v), num_of(&v)) {
        (Ty::Undefined, ..) => undefined(),
        (_, Some(n), _) => Ok(int_value(n.saturating_abs())),
        (Ty::Float, _, Some(x)) => Ok(Value::from(x.abs())),
        _ => err("bad operand type for abs()"),
    }
}

pub(super) fn f_round(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "precision", "method"], 1)?;
    let v = b.val(0);
    let prec = b.int_or(1, 0)?;
    let method = b.str_or(2, "common")?;
    if v.is_undefined() {
        return undefined();
    }
    let Some(x) = num_of(&v) else {
        return err(format!("type {} doesn't define __round__", type_name(&v)));
    };
    if prec.abs() > 300 {
        return err("precision is out of range");
    }
    let p = prec as i32;
    if method != "common" {
        if method != "ceil" && method != "floor" {
            return err("method must be common, ceil or floor");
        }
        let scale = 10f64.powi(p);
        let y = x * scale;
        if !y.is_finite() {
            return err("cannot convert float to integer");
        }
        let y = if method == "ceil" {
            y.ceil()
        } else {
            y.floor()
        };
        // Python divides an int: there is no negative zero
        return Ok(Value::from((y + 0.0) / scale));
    }
    if let Some(n) = int_of(&v) {
        if p >= 0 {
            return Ok(int_value(n));
        }
        let Some(unit) = 10i128.checked_pow(p.unsigned_abs().min(37)) else {
            return Ok(Value::from(0));
        };
        if p < -37 {
            return Ok(Value::from(0));
        }
        let (q, r) = (n.div_euclid(unit), n.rem_euclid(unit));
        let up = r * 2 > unit || (r * 2 == unit && q % 2 != 0);
        return match (q + i128::from(up)).checked_mul(unit) {
            Some(n) => Ok(int_value(n)),
            None => err("integer is too large"),
        };
    }
    if !x.is_finite() {
        return Ok(v);
    }
    if p >= 0 {
        let s = format!("{x:.*}", p as usize);
        return Ok(Value::from(s.parse::<f64>().unwrap_or(x)));
    }
    // a negative precision on a float: round half even on the exact value
    let unit = 10f64.powi(-p);
    let y = x / unit;
    let mut r = y.round();
    if (y - y.trunc()).abs() == 0.5 {
        r = 2.0 * (y / 2.0).round();
    }
    Ok(Value::from(r * unit))
}

pub(super) fn f_filesizeformat(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "binary"], 1)?;
    let v = b.val(0);
    let binary = b.bool_or(1, false)?;
    let x = match ty(&v) {
        Ty::Undefined => return undefined(),
        Ty::Str => parse_float(v.as_str().unwrap_or_default()),
        _ => num_of(&v),
    };
    let Some(x) = x.filter(|x| x.is_finite()) else {
        return err("could not convert to float");
    };
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    if x == 1.0 {
        return text("1 Byte".into());
    }
    if x < base {
        return text(format!("{} Bytes", x.trunc() as i128));
    }
    let names = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    // exact comparison with the integer unit, as in Python
    let step: u128 = if binary { 1024 } else { 1000 };
    let mut unit = step;
    let mut name = "k";
    for n in names {
        unit = unit.saturating_mul(step);
        name = n;
        if (x as u128) < unit {
            break;
        }
    }
    let unit = unit as f64;
    let name = match (binary, name) {
        (true, "k") => "KiB".to_string(),
        (true, n) => format!("{n}iB"),
        (false, n) => format!("{n}B"),
    };
    text(format!("{:.1} {name}", base * x / unit))
}
