//! The types, comparisons and representations of Python, as Jinja2 shows them.

use super::*;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ty {
    Undefined,
    /// The result of `x if false`: Jinja2 makes it a lenient undefined.
    Silent,
    None,
    Bool,
    Int,
    Float,
    Str,
    List,
    Tuple,
    Dict,
    Gen,
    View,
    Range,
    Other,
}

pub(super) fn ty(v: &Value) -> Ty {
    match v.kind() {
        ValueKind::Plain if v.downcast_object_ref::<Silent>().is_some() => Ty::Silent,
        ValueKind::Undefined => Ty::Undefined,
        ValueKind::None => Ty::None,
        ValueKind::Bool => Ty::Bool,
        ValueKind::Number if v.is_integer() => Ty::Int,
        ValueKind::Number => Ty::Float,
        ValueKind::String => Ty::Str,
        ValueKind::Seq => {
            if v.is_tuple() || v.downcast_object_ref::<Group>().is_some() {
                Ty::Tuple
            } else if v.downcast_object_ref::<PyRange>().is_some() {
                Ty::Range
            } else {
                Ty::List
            }
        }
        ValueKind::Iterable => {
            if v.downcast_object_ref::<Gen>().is_some() {
                Ty::Gen
            } else if v.downcast_object_ref::<View>().is_some() {
                Ty::View
            } else if v.len().is_some() {
                // list slices, `a + b`, `a * n`
                Ty::List
            } else {
                Ty::Gen
            }
        }
        ValueKind::Map => {
            // `loop`, macros and namespaces are maps for minijinja.
            let odd = v.as_object().is_some_and(|o| {
                let n = o.type_name();
                n.ends_with("::Loop") || n.ends_with("::Macro") || n.ends_with("::Namespace")
            });
            if odd { Ty::Other } else { Ty::Dict }
        }
        _ => Ty::Other,
    }
}

pub(super) fn type_name(v: &Value) -> &'static str {
    match ty(v) {
        Ty::Undefined | Ty::Silent => "undefined",
        Ty::None => "NoneType",
        Ty::Bool => "bool",
        Ty::Int => "int",
        Ty::Float => "float",
        Ty::Str => "str",
        Ty::List => "list",
        Ty::Tuple => "tuple",
        Ty::Dict => "dict",
        Ty::Gen => "generator",
        Ty::View => "dict view",
        Ty::Range => "range",
        Ty::Other => "object",
    }
}

pub(super) fn int_of(v: &Value) -> Option<i128> {
    match ty(v) {
        Ty::Bool => Some(i128::from(v.is_true())),
        Ty::Int => i128::try_from(v.clone()).ok(),
        _ => None,
    }
}

pub(super) fn num_of(v: &Value) -> Option<f64> {
    match ty(v) {
        Ty::Bool => Some(if v.is_true() { 1.0 } else { 0.0 }),
        Ty::Int | Ty::Float => f64::try_from(v.clone())
            .ok()
            .or_else(|| int_of(v).map(|x| x as f64))
            .or_else(|| v.to_string().parse().ok()),
        _ => None,
    }
}

pub(super) fn int_value(x: i128) -> Value {
    match i64::try_from(x) {
        Ok(x) => Value::from(x),
        Err(_) => Value::from(x),
    }
}

/// Python's `repr(float)`.
pub fn float_repr(x: f64) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let sci = format!("{x:e}");
    let Some((mantissa, exp)) = sci.split_once('e') else {
        return sci;
    };
    let exp: i32 = exp.parse().unwrap_or(0);
    if (-4..16).contains(&exp) {
        let mut rv = x.to_string();
        if !rv.contains('.') {
            rv.push_str(".0");
        }
        rv
    } else {
        let sign = if exp < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exp.unsigned_abs())
    }
}

/// Python's `repr(str)`.
pub(super) fn repr_str(out: &mut String, s: &str) {
    let quote = if s.contains('\'') && !s.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in s.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            c if printable(c) => out.push(c),
            c => {
                let n = c as u32;
                if n <= 0xff {
                    out.push_str(&format!("\\x{n:02x}"));
                } else if n <= 0xffff {
                    out.push_str(&format!("\\u{n:04x}"));
                } else {
                    out.push_str(&format!("\\U{n:08x}"));
                }
            }
        }
    }
    out.push(quote);
}

/// Python's `str.isprintable` for one character: the same Unicode categories
/// as Rust's debug escaping (which escapes combining marks only at the start).
pub(super) fn printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    let s: String = ['a', c].into_iter().collect();

    s.escape_debug().count() == 2
}

pub(super) fn check_len(s: &str) -> Res<()> {
    if s.len() > MAX_TEXT {
        too_large()
    } else {
        Ok(())
    }
}

pub(super) fn repr_into(out: &mut String, v: &Value, depth: usize) -> Res<()> {
    if depth > MAX_DEPTH {
        return err("value is nested too deeply");
    }
    check_len(out)?;
    spend(16)?;
    let seq = |out: &mut String, open: &str, close: &str, one: bool| -> Res<()> {
        out.push_str(open);
        let items = items_of(v)?;
        for (idx, item) in items.iter().enumerate() {
            if idx > 0 {
                out.push_str(", ");
            }
            repr_into(out, item, depth + 1)?;
        }
        if one && items.len() == 1 {
            out.push(',');
        }
        out.push_str(close);
        Ok(())
    };
    match ty(v) {
        // `[missing]` prints like this in stock Jinja2, even when strict
        Ty::Undefined | Ty::Silent => out.push_str("Undefined"),
        Ty::None => out.push_str("None"),
        Ty::Bool => out.push_str(if v.is_true() { "True" } else { "False" }),
        Ty::Int => out.push_str(&v.to_string()),
        Ty::Float => out.push_str(&float_repr(num_of(v).unwrap_or(f64::NAN))),
        Ty::Str => {
            let s = v.as_str().unwrap_or_default();
            spend(s.len().saturating_mul(2))?;
            if v.is_safe() {
                out.push_str("Markup(");
                repr_str(out, s);
                out.push(')');
            } else {
                repr_str(out, s);
            }
        }
        Ty::List => seq(out, "[", "]", false)?,
        Ty::Tuple => seq(out, "(", ")", true)?,
        Ty::View => {
            if let Some(view) = v.downcast_object_ref::<View>() {
                out.push_str(view.name);
            }
            seq(out, "([", "])", false)?;
        }
        Ty::Range => match v.downcast_object_ref::<PyRange>() {
            Some(r) => out.push_str(&r.text()),
            None => return err("cannot print this value"),
        },
        Ty::Dict => {
            out.push('{');
            for (idx, (k, item)) in pairs_of(v)?.iter().enumerate() {
                if idx > 0 {
                    out.push_str(", ");
                }
                repr_into(out, k, depth + 1)?;
                out.push_str(": ");
                repr_into(out, item, depth + 1)?;
            }
            out.push('}');
        }
        Ty::Gen => return err("cannot print a generator; use |list or |join"),
        Ty::Other => match v.downcast_object_ref::<BigInt>() {
            Some(b) => out.push_str(&b.0),
            None => return err("cannot print this object"),
        },
    }
    check_len(out)
}

/// Python's `repr(value)`.
pub fn repr_of(v: &Value) -> Res<String> {
    let mut out = String::new();
    repr_into(&mut out, v, 0)?;
    Ok(out)
}

/// Python's `str(value)`; undefined fails.
pub fn str_of(v: &Value) -> Res<String> {
    match ty(v) {
        Ty::Undefined => undefined(),
        Ty::Silent => Ok(String::new()),
        Ty::Str => {
            let s = v.as_str().unwrap_or_default();
            spend(s.len())?;
            Ok(s.to_string())
        }
        _ => repr_of(v),
    }
}

/// Python's `iter(value)`, collected and bounded.
pub(super) fn items_of(v: &Value) -> Res<Vec<Value>> {
    match ty(v) {
        Ty::Undefined => return undefined(),
        Ty::None | Ty::Bool | Ty::Int | Ty::Float => {
            return err(format!("'{}' object is not iterable", type_name(v)));
        }
        Ty::Other => return err("object is not iterable"),
        Ty::Silent => return Ok(Vec::new()),
        _ => {}
    }
    if let Some(s) = v.as_str() {
        if char_len(s) > MAX_ITEMS as i64 {
            return too_large();
        }
        spend_items(s.len())?;
        return Ok(s.chars().map(|c| Value::from(c.to_string())).collect());
    }
    let known = v.len().unwrap_or(0);
    if known > MAX_ITEMS {
        return too_large();
    }
    spend_items(known)?;
    let mut rv = Vec::with_capacity(known);
    for item in v.try_iter()?.checked() {
        rv.push(item?);
        if rv.len() > known {
            spend_items(1)?;
        }
        if rv.len() > MAX_ITEMS {
            return too_large();
        }
    }
    Ok(rv)
}

pub(super) fn pairs_of(v: &Value) -> Res<Vec<(Value, Value)>> {
    if ty(v) == Ty::Undefined {
        return undefined();
    }
    if ty(v) != Ty::Dict {
        return err("Can only get item pairs from a mapping.");
    }
    spend_items(v.len().unwrap_or(0).saturating_mul(2))?;
    match v.as_object().and_then(|o| o.try_iter_pairs()) {
        Some(iter) => Ok(iter.take(MAX_ITEMS).collect()),
        None => Ok(Vec::new()),
    }
}

/// Truth of a value; undefined fails (StrictUndefined).
pub(super) fn truth(v: &Value) -> Res<bool> {
    if v.is_undefined() {
        undefined()
    } else {
        Ok(v.is_true())
    }
}

/// An integer against a float, exactly; nothing where the float is not a number.
fn int_cmp(n: i128, x: f64) -> Option<Ordering> {
    if x.is_nan() {
        return None;
    }
    if x.abs() >= 1.7e38 {
        return Some(if x > 0.0 {
            Ordering::Less
        } else {
            Ordering::Greater
        });
    }
    let whole = x.floor();
    Some(n.cmp(&(whole as i128)).then(if x > whole {
        Ordering::Less
    } else {
        Ordering::Equal
    }))
}

fn num_cmp(a: &Value, b: &Value) -> Option<Ordering> {
    match (int_of(a), int_of(b)) {
        (Some(x), Some(y)) => Some(x.cmp(&y)),
        (Some(x), None) => int_cmp(x, num_of(b)?),
        (None, Some(y)) => int_cmp(y, num_of(a)?).map(Ordering::reverse),
        (None, None) => num_of(a)?.partial_cmp(&num_of(b)?),
    }
}

fn is_num(t: Ty) -> bool {
    matches!(t, Ty::Bool | Ty::Int | Ty::Float)
}

/// Python's `==`. A view, a generator or an object of the engine equals nothing that could be told: they are refused.
pub(super) fn py_eq(a: &Value, b: &Value, depth: usize) -> Res<bool> {
    if depth > MAX_DEPTH {
        return err("value is nested too deeply");
    }
    spend(8)?;
    let (ta, tb) = (ty(a), ty(b));
    if ta == Ty::Undefined || tb == Ty::Undefined {
        return undefined();
    }
    if is_num(ta) && is_num(tb) {
        return Ok(num_cmp(a, b) == Some(Ordering::Equal));
    }
    match (ta, tb) {
        (Ty::Str, Ty::Str) => {
            spend(a.as_str().map_or(0, str::len))?;
            Ok(a.as_str() == b.as_str())
        }
        (Ty::List, Ty::List) | (Ty::Tuple, Ty::Tuple) | (Ty::Range, Ty::Range) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (x, y) in items_of(a)?.iter().zip(&items_of(b)?) {
                if !py_eq(x, y, depth + 1)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Ty::Dict, Ty::Dict) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            let mut theirs = std::collections::HashMap::new();
            for (key, value) in pairs_of(b)? {
                theirs.insert(hash_key(&key, 0)?, value);
            }
            for (key, value) in pairs_of(a)? {
                match theirs.get(&hash_key(&key, 0)?) {
                    Some(other) if py_eq(&value, other, depth + 1)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        (Ty::View | Ty::Gen | Ty::Other, x) if x == ta => {
            err("these objects cannot be compared here")
        }
        (x, y) => Ok(x == y),
    }
}

/// Python's `<` on two values, as an ordering; nothing where one is not a number, and other types fail.
pub(super) fn py_cmp(a: &Value, b: &Value, depth: usize) -> Res<Option<Ordering>> {
    if depth > MAX_DEPTH {
        return err("value is nested too deeply");
    }
    spend(8)?;
    let (ta, tb) = (ty(a), ty(b));
    if ta == Ty::Undefined || tb == Ty::Undefined {
        return undefined();
    }
    if is_num(ta) && is_num(tb) {
        return Ok(num_cmp(a, b));
    }
    match (ta, tb) {
        (Ty::Str, Ty::Str) => {
            spend(a.as_str().map_or(0, str::len))?;
            Ok(Some(a.as_str().cmp(&b.as_str())))
        }
        (Ty::List, Ty::List) | (Ty::Tuple, Ty::Tuple) => {
            let (x, y) = (items_of(a)?, items_of(b)?);
            for (p, q) in x.iter().zip(y.iter()) {
                if !py_eq(p, q, depth + 1)? {
                    return py_cmp(p, q, depth + 1);
                }
            }
            Ok(Some(x.len().cmp(&y.len())))
        }
        _ => err(format!(
            "'<' not supported between instances of '{}' and '{}'",
            type_name(a),
            type_name(b)
        )),
    }
}

/// Stable sort which reports the first comparison error.
pub(super) fn py_sort<T>(items: &mut [T], reverse: bool, key: impl Fn(&T) -> &Value) -> Res<()> {
    let mut failed = None;
    items.sort_by(|a, b| {
        if failed.is_some() {
            return Ordering::Equal;
        }
        let order = py_cmp(key(a), key(b), 0)
            .and_then(|o| o.map_or_else(|| err("a value that is not a number has no order"), Ok));
        match order {
            Ok(o) if reverse => o.reverse(),
            Ok(o) => o,
            Err(e) => {
                failed = Some(e);
                Ordering::Equal
            }
        }
    });
    failed.map_or(Ok(()), Err)
}

/// A text key equal for values which are equal in Python (1 == 1.0 == True).
pub(super) fn hash_key(v: &Value, depth: usize) -> Res<String> {
    if depth > MAX_DEPTH {
        return err("value is nested too deeply");
    }
    spend(16 + v.as_str().map_or(0, str::len))?;
    Ok(match ty(v) {
        Ty::Undefined => return undefined(),
        Ty::None => "n".into(),
        Ty::Bool | Ty::Int => format!("i{}", int_of(v).map_or(v.to_string(), |x| x.to_string())),
        Ty::Float => {
            let x = num_of(v).unwrap_or(f64::NAN);
            if x.fract() == 0.0 && x.abs() < 1e30 {
                format!("i{}", x as i128)
            } else {
                format!("f{}", float_repr(x))
            }
        }
        Ty::Str => format!("s{}", v.as_str().unwrap_or_default()),
        Ty::Tuple => {
            let mut rv = String::from("t(");
            for item in items_of(v)? {
                let k = hash_key(&item, depth + 1)?;
                rv.push_str(&format!("{}:{k},", k.len()));
            }
            rv
        }
        _ => return err(format!("unhashable type: '{}'", type_name(v))),
    })
}

pub(super) fn lowered(v: Value) -> Value {
    match (ty(&v), v.as_str()) {
        (Ty::Str, Some(s)) => Value::from(s.to_lowercase()),
        _ => v,
    }
}
