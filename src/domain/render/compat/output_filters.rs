//! Filters that write a value in another notation: URLs, XML attributes, JSON.

use super::*;

pub(super) fn f_urlencode(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value"], 1)?;
    let v = b.val(0);
    let pairs = match ty(&v) {
        Ty::Undefined => return undefined(),
        Ty::Dict => pairs_of(&v)?,
        Ty::List | Ty::Tuple | Ty::Gen | Ty::View | Ty::Range => {
            let mut rv = Vec::new();
            for item in items_of(&v)? {
                match items_of(&item)?.as_slice() {
                    [k, v] => rv.push((k.clone(), v.clone())),
                    _ => return err("expected pairs to urlencode"),
                }
            }
            rv
        }
        _ => return text(quote(&str_of(&v)?, false)),
    };
    let mut rv = Vec::new();
    for (k, v) in pairs {
        rv.push(format!(
            "{}={}",
            quote(&str_of(&k)?, true),
            quote(&str_of(&v)?, true)
        ));
    }
    text(rv.join("&"))
}

pub(super) fn f_xmlattr(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["d", "autospace"], 1)?;
    let auto = b.bool_or(1, true)?;
    let esc = |v: &Value| -> Res<String> {
        let s = str_of(v)?;
        Ok(if v.is_safe() { s } else { html_escape(&s) })
    };
    let mut rv = Vec::new();
    for (k, v) in pairs_of(&b.val(0))? {
        if v.is_none() || v.is_undefined() {
            continue;
        }
        let Some(key) = k.as_str() else {
            return err("xmlattr keys must be strings");
        };
        if key.contains(|c| matches!(c, ' ' | '\t'..='\r' | '/' | '>' | '=')) {
            return err("Invalid character in attribute name");
        }
        rv.push(format!("{}=\"{}\"", esc(&k)?, esc(&v)?));
    }
    let rv = rv.join(" ");
    text(if auto && !rv.is_empty() {
        format!(" {rv}")
    } else {
        rv
    })
}

pub(super) fn json_str(out: &mut String, s: &str) {
    // ensure_ascii plus Jinja2's HTML-safe replacements
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '<' | '>' | '&' | '\'' => out.push_str(&format!("\\u{:04x}", c as u32)),
            ' '..='~' => out.push(c),
            c => {
                let mut buf = [0u16; 2];
                for unit in c.encode_utf16(&mut buf) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push('"');
}

pub(super) fn json_float(x: f64) -> String {
    if x.is_nan() {
        "NaN".into()
    } else if x.is_infinite() {
        if x > 0.0 {
            "Infinity".into()
        } else {
            "-Infinity".into()
        }
    } else {
        float_repr(x)
    }
}

pub(super) fn json_into(
    out: &mut String,
    v: &Value,
    indent: Option<&str>,
    depth: usize,
) -> Res<()> {
    if depth > MAX_DEPTH {
        return err("value is nested too deeply");
    }
    check_len(out)?;
    let nl = |out: &mut String, depth: usize| {
        if let Some(by) = indent {
            out.push('\n');
            for _ in 0..depth {
                out.push_str(by);
            }
        }
    };
    let sep = if indent.is_some() { "," } else { ", " };
    match ty(v) {
        Ty::Undefined => return undefined(),
        Ty::None => out.push_str("null"),
        Ty::Bool => out.push_str(if v.is_true() { "true" } else { "false" }),
        Ty::Int => out.push_str(&v.to_string()),
        Ty::Float => out.push_str(&json_float(num_of(v).unwrap_or(f64::NAN))),
        Ty::Str => json_str(out, v.as_str().unwrap_or_default()),
        Ty::List | Ty::Tuple => {
            let items = items_of(v)?;
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(sep);
                }
                nl(out, depth + 1);
                json_into(out, item, indent, depth + 1)?;
            }
            if !items.is_empty() {
                nl(out, depth);
            }
            out.push(']');
        }
        Ty::Dict => {
            let mut pairs = pairs_of(v)?;
            py_sort(&mut pairs, false, |p| &p.0)?;
            out.push('{');
            for (i, (k, item)) in pairs.iter().enumerate() {
                if i > 0 {
                    out.push_str(sep);
                }
                nl(out, depth + 1);
                match ty(k) {
                    Ty::Str => json_str(out, k.as_str().unwrap_or_default()),
                    Ty::None => out.push_str("\"null\""),
                    Ty::Bool => out.push_str(if k.is_true() { "\"true\"" } else { "\"false\"" }),
                    Ty::Int => out.push_str(&format!("\"{k}\"")),
                    Ty::Float => {
                        let s = json_float(num_of(k).unwrap_or(f64::NAN));
                        out.push_str(&format!("\"{s}\""));
                    }
                    _ => return err("keys must be str, int, float, bool or None"),
                }
                out.push_str(": ");
                json_into(out, item, indent, depth + 1)?;
            }
            if !pairs.is_empty() {
                nl(out, depth);
            }
            out.push('}');
        }
        _ => match v.downcast_object_ref::<BigInt>() {
            Some(b) => out.push_str(&b.0),
            None => {
                return err(format!(
                    "Object of type {} is not JSON serializable",
                    type_name(v)
                ));
            }
        },
    }
    check_len(out)
}

pub(super) fn f_tojson(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "indent"], 1)?;
    let by = match b.some(1) {
        None => None,
        Some(v) => Some(match v.as_str() {
            Some(s) => s.to_string(),
            None => pad(b.int_or(1, 0)?.min(64), ' ')?,
        }),
    };
    let mut out = String::new();
    json_into(&mut out, &b.val(0), by.as_deref(), 0)?;
    Ok(Value::from_safe_string(out))
}

pub(super) fn f_pprint(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    fn sorted(v: &Value, depth: usize) -> Res<Value> {
        if depth > MAX_DEPTH {
            return err("value is nested too deeply");
        }
        // A copy of every list, and of what is in it.
        spend(128)?;
        Ok(match ty(v) {
            Ty::Dict => {
                let mut p = pairs_of(v)?;
                py_sort(&mut p, false, |p| &p.0)?;
                let mut rv = Vec::new();
                for (k, v) in p {
                    rv.push((k, sorted(&v, depth + 1)?));
                }
                Value::from_pairs(rv)
            }
            Ty::List => {
                let mut rv = Vec::new();
                for v in items_of(v)? {
                    rv.push(sorted(&v, depth + 1)?);
                }
                Value::from(rv)
            }
            _ => v.clone(),
        })
    }
    let b = bind(a, &["value"], 1)?;
    if b.val(0).is_undefined() {
        return text("Undefined".into());
    }
    let s = repr_of(&sorted(&b.val(0), 0)?)?;
    let long_str = ty(&b.val(0)) == Ty::Str && s.len() > 78;
    if char_len(&s) > 80 || long_str {
        // Python's line breaking is not reproduced
        return err("pprint of a value longer than one line is not supported");
    }
    text(s)
}
