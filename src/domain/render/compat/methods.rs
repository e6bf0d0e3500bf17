//! The methods of strings, lists and dictionaries.

use super::*;

/// Unicode's third case: one letter for two, of which the first is upper.
fn is_title(c: char) -> bool {
    matches!(c, 'ǅ' | 'ǈ' | 'ǋ' | 'ǲ' | '\u{1f88}'..='\u{1f8f}' | '\u{1f98}'..='\u{1f9f}')
        || matches!(
            c,
            '\u{1fa8}'..='\u{1faf}' | '\u{1fbc}' | '\u{1fcc}' | '\u{1ffc}'
        )
}

pub(super) fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || is_title(c)
}

pub(super) fn is_lower(s: &str) -> bool {
    s.chars().any(char::is_lowercase) && !s.chars().any(|c| c.is_uppercase() || is_title(c))
}

pub(super) fn is_upper(s: &str) -> bool {
    s.chars().any(char::is_uppercase) && !s.chars().any(|c| c.is_lowercase() || is_title(c))
}

pub(super) fn list_value(items: Vec<String>) -> Res<Value> {
    if items.len() > MAX_ITEMS {
        return too_large();
    }
    spend_items(items.len())?;
    Ok(items.into_iter().map(Value::from).collect())
}

/// Python's `str.split` / `str.rsplit`.
pub(super) fn split(s: &str, sep: Option<&str>, max: i64, right: bool) -> Res<Vec<String>> {
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    if let Some(sep) = sep {
        if sep.is_empty() {
            return err("empty separator");
        }
        let n = max.saturating_add(1);
        let mut rv: Vec<String> = if right {
            s.rsplitn(n, sep)
                .take(MAX_ITEMS + 1)
                .map(String::from)
                .collect()
        } else {
            s.splitn(n, sep)
                .take(MAX_ITEMS + 1)
                .map(String::from)
                .collect()
        };
        if right {
            rv.reverse();
        }
        return Ok(rv);
    }
    let mut rv = Vec::new();
    let mut rest = s;
    loop {
        rest = if right {
            rest.trim_end_matches(is_space)
        } else {
            rest.trim_start_matches(is_space)
        };
        if rest.is_empty() || rv.len() > MAX_ITEMS {
            break;
        }
        if rv.len() == max {
            rv.push(strip(rest, None, right, !right && max == 0));
            // the remainder keeps its far side's spaces, Python strips the
            // near side only
            if let (false, Some(last)) = (right, rv.last_mut()) {
                *last = rest.to_string();
            } else if let Some(last) = rv.last_mut() {
                *last = rest.to_string();
            }
            break;
        }
        if right {
            match rest.rfind(is_space) {
                Some(i) => {
                    let cut = i + rest
                        .get(i..)
                        .and_then(|r| r.chars().next())
                        .map_or(1, char::len_utf8);
                    rv.push(rest.get(cut..).unwrap_or_default().to_string());
                    rest = rest.get(..i).unwrap_or_default();
                }
                None => {
                    rv.push(rest.to_string());
                    break;
                }
            }
        } else {
            match rest.find(is_space) {
                Some(i) => {
                    rv.push(rest.get(..i).unwrap_or_default().to_string());
                    rest = rest.get(i..).unwrap_or_default();
                }
                None => {
                    rv.push(rest.to_string());
                    break;
                }
            }
        }
    }
    if right {
        rv.reverse();
    }
    Ok(rv)
}

/// The `[start:end]` part of a string and the offset of its start.
pub(super) fn sub(s: &str, b: &Bound, i: usize) -> Res<Option<(String, i64)>> {
    let len = char_len(s);
    let fix = |x: i64| if x < 0 { (x + len).max(0) } else { x };
    let get = |i: usize, d: i64| -> Res<i64> {
        match b.some(i) {
            Some(_) => b.int_or(i, d).map(fix),
            None => Ok(d),
        }
    };
    let (start, end) = (get(i, 0)?, get(i + 1, len)?.min(len));
    if start > end {
        return Ok(None);
    }
    let part = s
        .chars()
        .skip(usize::try_from(start).unwrap_or(0))
        .take(usize::try_from(end - start).unwrap_or(0))
        .collect();
    Ok(Some((part, start)))
}

pub(super) fn find(s: &str, b: &Bound, right: bool) -> Res<i64> {
    let what = b.str(0)?;
    let Some((part, off)) = sub(s, b, 1)? else {
        return Ok(-1);
    };
    let hit = if right {
        part.rfind(&what)
    } else {
        part.find(&what)
    };
    Ok(match hit.and_then(|i| part.get(..i)) {
        Some(head) => off + char_len(head),
        None => -1,
    })
}

pub(super) fn affix(s: &str, b: &Bound, end: bool) -> Res<bool> {
    let v = b.val(0);
    let options = match ty(&v) {
        Ty::Str => vec![v],
        Ty::Tuple => items_of(&v)?,
        Ty::Undefined => return undefined(),
        _ => return err("first arg must be str or a tuple of str"),
    };
    let Some((part, _)) = sub(s, b, 1)? else {
        return Ok(false);
    };
    for o in options {
        let Some(o) = o.as_str() else {
            return err("tuple must contain only strings");
        };
        if (end && part.ends_with(o)) || (!end && part.starts_with(o)) {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn fill_of(b: &Bound, i: usize) -> Res<char> {
    let s = b.str_or(i, " ")?;
    let mut it = s.chars();
    match (it.next(), it.next()) {
        (Some(c), None) => Ok(c),
        _ => err("The fill character must be exactly one character long"),
    }
}

pub(super) fn digits(s: &str, numeric: bool) -> Res<bool> {
    let mut all = !s.is_empty();
    for c in s.chars() {
        if c.is_ascii_digit() {
            continue;
        }
        if !c.is_ascii() && (c.is_numeric() || (numeric && c.is_alphabetic())) {
            return err("digit test of a non-ASCII character is not supported");
        }
        all = false;
    }
    Ok(all)
}

pub(super) fn str_method(v: &Value, name: &str, a: &[Value]) -> Res<Value> {
    let s = v.as_str().unwrap_or_default();
    spend(s.len())?;
    let none = || bind(a, &[], 0);
    match name {
        "upper" => none().and_then(|_| text(s.to_uppercase())),
        "lower" => none().and_then(|_| text(s.to_lowercase())),
        "casefold" => {
            none()?;
            if !s.is_ascii() {
                return err("casefold of non-ASCII text is not supported");
            }
            text(s.to_lowercase())
        }
        "title" => none().and_then(|_| text(title_method(s))),
        "capitalize" => none().and_then(|_| text(capitalize(s))),
        "swapcase" => {
            none()?;
            let mut rv = String::new();
            for c in s.chars() {
                if c.is_uppercase() {
                    rv.extend(c.to_lowercase());
                } else if c.is_lowercase() {
                    rv.extend(c.to_uppercase());
                } else {
                    rv.push(c);
                }
            }
            text(rv)
        }
        "strip" | "lstrip" | "rstrip" => {
            let b = bind(a, &["\0"], 0)?;
            let chars = match b.some(0) {
                Some(_) => Some(b.str(0)?),
                None => None,
            };
            text(strip(
                s,
                chars.as_deref(),
                name != "rstrip",
                name != "lstrip",
            ))
        }
        "split" | "rsplit" => {
            let b = bind(a, &["sep", "maxsplit"], 0)?;
            let sep = match b.some(0) {
                Some(_) => Some(b.str(0)?),
                None => None,
            };
            list_value(split(
                s,
                sep.as_deref(),
                b.int_or(1, -1)?,
                name == "rsplit",
            )?)
        }
        "splitlines" => {
            let b = bind(a, &["keepends"], 0)?;
            list_value(splitlines(s, b.bool_or(0, false)?)?)
        }
        "partition" | "rpartition" => {
            let b = bind(a, &["\0"], 1)?;
            let sep = b.str(0)?;
            if sep.is_empty() {
                return err("empty separator");
            }
            let parts = if name == "partition" {
                match s.split_once(&sep) {
                    Some((x, y)) => [x, sep.as_str(), y],
                    None => [s, "", ""],
                }
            } else {
                match s.rsplit_once(&sep) {
                    Some((x, y)) => [x, sep.as_str(), y],
                    None => ["", "", s],
                }
            };
            Ok(Value::from(Tuple::from(parts.map(Value::from))))
        }
        "replace" => {
            let b = bind(a, &["\0", "\0\0", "\0\0\0"], 2)?;
            text(replace(s, &b.str(0)?, &b.str(1)?, b.int_or(2, -1)?)?)
        }
        "removeprefix" => {
            let p = bind(a, &["\0"], 1)?.str(0)?;
            text(s.strip_prefix(&p).unwrap_or(s).to_string())
        }
        "removesuffix" => {
            let p = bind(a, &["\0"], 1)?.str(0)?;
            text(s.strip_suffix(&p).unwrap_or(s).to_string())
        }
        "find" | "rfind" | "index" | "rindex" => {
            let b = bind(a, &["\0", "\0\0", "\0\0\0"], 1)?;
            let i = find(s, &b, name.starts_with('r'))?;
            if i < 0 && name.ends_with("index") {
                return err("substring not found");
            }
            Ok(Value::from(i))
        }
        "count" => {
            let b = bind(a, &["\0", "\0\0", "\0\0\0"], 1)?;
            let what = b.str(0)?;
            Ok(Value::from(
                sub(s, &b, 1)?.map_or(0, |(p, _)| p.matches(&what).count()),
            ))
        }
        "startswith" | "endswith" => {
            let b = bind(a, &["\0", "\0\0", "\0\0\0"], 1)?;
            affix(s, &b, name == "endswith").map(Value::from)
        }
        "center" | "ljust" | "rjust" => {
            let b = bind(a, &["\0", "\0\0"], 1)?;
            let (w, c) = (b.int_or(0, 0)?, fill_of(&b, 1)?);
            let more = w.saturating_sub(char_len(s));
            text(match name {
                "center" => center(s, w, c)?,
                "ljust" => format!("{s}{}", pad(more, c)?),
                _ => format!("{}{s}", pad(more, c)?),
            })
        }
        "zfill" => {
            let w = bind(a, &["\0"], 1)?.int_or(0, 0)?;
            let zeros = pad(w.saturating_sub(char_len(s)), '0')?;
            let cut = usize::from(s.starts_with(['+', '-']));
            let (sign, rest) = s.split_at(cut);
            text(format!("{sign}{zeros}{rest}"))
        }
        "expandtabs" => {
            let n = bind(a, &["tabsize"], 0)?.int_or(0, 8)?;
            let mut rv = String::new();
            let mut col = 0i64;
            for c in s.chars() {
                match c {
                    '\t' if n > 0 => {
                        let k = n - col % n;
                        rv.push_str(&pad(k, ' ')?);
                        col += k;
                        check_len(&rv)?;
                    }
                    '\t' => {}
                    c => {
                        rv.push(c);
                        col = if matches!(c, '\n' | '\r') { 0 } else { col + 1 };
                    }
                }
            }
            text(rv)
        }
        "join" => {
            let b = bind(a, &["\0"], 1)?;
            let mut rv = String::new();
            for (i, item) in items_of(&b.val(0))?.iter().enumerate() {
                if i > 0 {
                    rv.push_str(s);
                }
                match item.as_str() {
                    Some(t) => rv.push_str(t),
                    None => {
                        return err(format!("expected str instance, {} found", type_name(item)));
                    }
                }
                check_len(&rv)?;
            }
            text(rv)
        }
        "format" => {
            if v.is_safe() {
                return err("format on a safe string is not supported");
            }
            let (pos, kw) = split_kwargs(a);
            text(str_format(s, &pos, &kw)?)
        }
        "isalpha" => none()
            .map(|_| !s.is_empty() && s.chars().all(char::is_alphabetic))
            .map(Value::from),
        "isalnum" => none()
            .map(|_| !s.is_empty() && s.chars().all(char::is_alphanumeric))
            .map(Value::from),
        "isascii" => none().map(|_| Value::from(s.is_ascii())),
        "isspace" => none().map(|_| Value::from(!s.is_empty() && s.chars().all(is_space))),
        "islower" => none().map(|_| Value::from(is_lower(s))),
        "isupper" => none().map(|_| Value::from(is_upper(s))),
        "isdigit" | "isdecimal" => none().and_then(|_| digits(s, false)).map(Value::from),
        "isnumeric" => none().and_then(|_| digits(s, true)).map(Value::from),
        "isprintable" => none().map(|_| Value::from(s.chars().all(printable))),
        "isidentifier" => {
            none()?;
            if !s.is_ascii() {
                return err("isidentifier of non-ASCII text is not supported");
            }
            let ok = s.chars().all(is_word) && !s.starts_with(|c: char| c.is_ascii_digit());
            Ok(Value::from(ok && !s.is_empty()))
        }
        "istitle" => {
            none()?;
            let (mut prev, mut any) = (false, false);
            for c in s.chars() {
                let upper = c.is_uppercase() || is_title(c);
                if (upper && prev) || (c.is_lowercase() && !prev) {
                    return Ok(Value::from(false));
                }
                prev = is_cased(c);
                any |= prev;
            }
            Ok(Value::from(any))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

pub(super) fn dict_method(v: &Value, name: &str, a: &[Value]) -> Res<Value> {
    let view = |name: &'static str, items: Vec<Value>| Value::from_object(View { name, items });
    match name {
        "items" => {
            bind(a, &[], 0)?;
            Ok(view("dict_items", tuples(pairs_of(v)?)))
        }
        "keys" => {
            bind(a, &[], 0)?;
            let keys = pairs_of(v)?.into_iter().map(|p| p.0).collect();
            Ok(view("dict_keys", keys))
        }
        "values" => {
            bind(a, &[], 0)?;
            let vals = pairs_of(v)?.into_iter().map(|p| p.1).collect();
            Ok(view("dict_values", vals))
        }
        "copy" => {
            bind(a, &[], 0)?;
            Ok(Value::from_pairs(pairs_of(v)?))
        }
        "get" => {
            let b = bind(a, &["\0", "\0\0"], 1)?;
            let hit = dict_get(v, &b.val(0))?;
            Ok(hit.unwrap_or_else(|| b.opt(1).cloned().unwrap_or(Value::from(()))))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

pub(super) fn list_method(v: &Value, name: &str, a: &[Value]) -> Res<Value> {
    match name {
        "count" => {
            let b = bind(a, &["\0"], 1)?;
            let mut n = 0;
            for item in items_of(v)? {
                n += usize::from(py_eq(&item, &b.val(0), 0)?);
            }
            Ok(Value::from(n))
        }
        "index" => {
            let b = bind(a, &["\0"], 1)?;
            for (i, item) in items_of(v)?.iter().enumerate() {
                if py_eq(item, &b.val(0), 0)? {
                    return Ok(Value::from(i));
                }
            }
            err("value is not in list")
        }
        "copy" if ty(v) == Ty::List => {
            bind(a, &[], 0)?;
            Ok(Value::from(items_of(v)?))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// The methods of `Markup`: what is made of a safe text is safe, and what is put into it is escaped.
fn safe_method(v: &Value, name: &str, args: &[Value]) -> Res<Value> {
    let put_in = match name {
        "replace" | "ljust" | "rjust" | "center" => Some(1),
        "join" => Some(0),
        _ => None,
    };
    let escaped = |v: &Value| -> Res<Value> {
        if v.is_safe() {
            return Ok(v.clone());
        }
        Ok(Value::from_safe_string(html_escape(&str_of(v)?)))
    };
    let mut args = args.to_vec();
    if let Some(arg) = put_in.and_then(|i| args.get_mut(i)) {
        *arg = if name == "join" {
            let items: Res<Vec<Value>> = items_of(arg)?.iter().map(escaped).collect();
            Value::from(items?)
        } else {
            escaped(arg)?
        };
    }
    let result = str_method(v, name, &args)?;
    let safe = |v: Value| match v.as_str() {
        Some(s) => Value::from_safe_string(s.to_owned()),
        None => v,
    };
    Ok(match ty(&result) {
        Ty::Str => safe(result),
        Ty::List => items_of(&result)?.into_iter().map(safe).collect(),
        Ty::Tuple => {
            let items: Vec<Value> = items_of(&result)?.into_iter().map(safe).collect();
            Value::from(Tuple::from(items))
        }
        _ => result,
    })
}

/// Python methods of strings, dicts and lists.  Mutating methods are unknown:
/// minijinja values are immutable.
pub fn method(_: &mut State<'_, '_>, v: &Value, name: &str, args: &[Value]) -> Res<Value> {
    match ty(v) {
        Ty::Undefined => undefined(),
        Ty::Str if v.is_safe() => safe_method(v, name, args),
        Ty::Str => str_method(v, name, args),
        Ty::Dict => dict_method(v, name, args),
        Ty::List | Ty::Tuple | Ty::Range => list_method(v, name, args),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}
