//! The table of filters, and what they share.

use super::*;

pub(super) type FilterFn = fn(&mut State<'_, '_>, &[Value]) -> Res<Value>;

/// The text, safe where the one that it was made of is.
pub(super) fn as_safe_as(of: &Value, s: String) -> Value {
    if of.is_safe() {
        Value::from_safe_string(s)
    } else {
        Value::from(s)
    }
}

/// The filters whose result is safe where their input is: those that call a method of the text or take a part of it.
pub(super) const KEEP_SAFE: &[&str] = &[
    "capitalize",
    "center",
    "indent",
    "lower",
    "reverse",
    "trim",
    "truncate",
    "upper",
];

pub(super) fn text(s: String) -> Res<Value> {
    check_len(&s)?;
    spend(s.len())?;
    Ok(Value::from(s))
}

/// Jinja2's `environment.getitem`: item lookup, undefined when missing.
pub(super) fn getitem(v: &Value, key: &Value) -> Res<Value> {
    let at = |len: usize| {
        let n = int_of(key)?;
        let n = if n < 0 { n + len as i128 } else { n };
        usize::try_from(n).ok().filter(|n| *n < len)
    };
    let found = match ty(v) {
        Ty::Undefined | Ty::Silent => return undefined(),
        Ty::Str => {
            let s = v.as_str().unwrap_or_default();
            if int_of(key).is_none() {
                None
            } else {
                spend(s.len())?;
                at(s.chars().count())
                    .and_then(|n| s.chars().nth(n))
                    .map(|c| as_safe_as(v, c.to_string()))
            }
        }
        Ty::List | Ty::Tuple | Ty::Range => {
            if key.as_str().is_some() {
                return v.get_item(key);
            }
            match at(v.len().unwrap_or(0)) {
                Some(n) => Some(v.get_item(&Value::from(n))?),
                None => None,
            }
        }
        Ty::Dict => dict_get(v, key).unwrap_or(None),
        Ty::Gen | Ty::View => None,
        _ => return v.get_item(key),
    };
    Ok(found.unwrap_or_default())
}

/// Looks up a key as Python does: `1`, `1.0` and `true` are one key.
pub(super) fn dict_get(v: &Value, key: &Value) -> Res<Option<Value>> {
    if key.as_str().is_some() {
        return Ok(v.as_object().and_then(|o| o.get_value(key)));
    }
    let wanted = hash_key(key, 0)?;
    for (k, value) in pairs_of(v)? {
        // A text never equals what is not one.
        if k.as_str().is_none() && hash_key(&k, 0)? == wanted {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

pub(super) fn attr_path(attr: &Value) -> Res<Vec<Value>> {
    match ty(attr) {
        Ty::None => Ok(Vec::new()),
        Ty::Str => Ok(attr
            .as_str()
            .unwrap_or_default()
            .split('.')
            .map(|p| match p.parse::<u64>() {
                Ok(n) if p.bytes().all(|b| b.is_ascii_digit()) => Value::from(n),
                _ => Value::from(p),
            })
            .collect()),
        Ty::Undefined => undefined(),
        _ => Ok(vec![attr.clone()]),
    }
}

/// Jinja2's `make_attrgetter`.
pub(super) fn get_path(v: &Value, path: &[Value], default: Option<&Value>) -> Res<Value> {
    let mut v = v.clone();
    for part in path {
        v = getitem(&v, part)?;
        if let (true, Some(d)) = (v.is_undefined(), default) {
            v = d.clone();
        }
    }
    Ok(v)
}

pub(super) fn key_of(v: &Value, path: &[Value], case: bool, default: Option<&Value>) -> Res<Value> {
    let v = get_path(v, path, default)?;
    Ok(if case { v } else { lowered(v) })
}

pub(super) const FILTERS: &[(&str, FilterFn)] = &[
    ("abs", f_abs),
    ("attr", f_attr),
    ("batch", f_batch),
    ("capitalize", f_capitalize),
    ("center", f_center),
    ("count", f_length),
    ("d", f_default),
    ("default", f_default),
    ("dictsort", f_dictsort),
    ("e", f_escape),
    ("escape", f_escape),
    ("filesizeformat", f_filesizeformat),
    ("first", f_first),
    ("float", f_float),
    ("forceescape", f_forceescape),
    ("format", f_format),
    ("groupby", f_groupby),
    ("indent", f_indent),
    ("int", f_int),
    ("items", f_items),
    ("join", f_join),
    ("last", f_last),
    ("length", f_length),
    ("list", f_list),
    ("lower", f_lower),
    ("map", f_map),
    ("max", f_max),
    ("min", f_min),
    ("pprint", f_pprint),
    ("reject", f_reject),
    ("rejectattr", f_rejectattr),
    ("replace", f_replace),
    ("reverse", f_reverse),
    ("round", f_round),
    ("safe", f_safe),
    ("select", f_select),
    ("selectattr", f_selectattr),
    ("slice", f_slice),
    ("sort", f_sort),
    ("string", f_string),
    ("striptags", f_striptags),
    ("sum", f_sum),
    ("title", f_title),
    ("tojson", f_tojson),
    ("trim", f_trim),
    ("truncate", f_truncate),
    ("unique", f_unique),
    ("upper", f_upper),
    ("urlencode", f_urlencode),
    ("wordcount", f_wordcount),
    ("wordwrap", f_wordwrap),
    ("xmlattr", f_xmlattr),
];

/// minijinja's own filters and tests, unknown to stock Jinja2.
pub(super) const NOT_STOCK_FILTERS: &[&str] = &["split", "lines", "bool", "chain", "zip"];
pub(super) const NOT_STOCK_TESTS: &[&str] = &["startingwith", "endingwith", "int", "safe"];
