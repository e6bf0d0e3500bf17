//! Filters on text.

use super::*;

pub(super) fn f_upper(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["s"], 1)?;
    text(str_of(&b.val(0))?.to_uppercase())
}

pub(super) fn f_lower(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["s"], 1)?;
    text(str_of(&b.val(0))?.to_lowercase())
}

pub(super) fn f_capitalize(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["s"], 1)?;
    text(capitalize(&str_of(&b.val(0))?))
}

pub(super) fn f_title(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["s"], 1)?;
    let s = str_of(&b.val(0))?;
    let mut rv = String::with_capacity(s.len());
    let mut start = true;
    for c in s.chars() {
        let sep = is_space(c) || "-({[<".contains(c);
        if sep {
            rv.push(c);
        } else if start {
            rv.extend(c.to_uppercase());
        } else {
            rv.extend(c.to_lowercase());
        }
        start = sep;
    }
    text(rv)
}

pub(super) fn f_length(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value"], 1)?;
    py_len(&b.val(0)).map(Value::from)
}

pub(super) fn py_len(v: &Value) -> Res<usize> {
    match (ty(v), v.len()) {
        (Ty::Undefined, _) => undefined(),
        (Ty::Silent, _) => Ok(0),
        (Ty::Gen | Ty::Other, _) | (_, None) => {
            err(format!("object of type '{}' has no len()", type_name(v)))
        }
        (_, Some(n)) => Ok(n),
    }
}

pub(super) fn f_first(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["seq"], 1)?;
    Ok(items_of(&b.val(0))?.into_iter().next().unwrap_or_default())
}

pub(super) fn f_last(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["seq"], 1)?;
    let v = b.val(0);
    if ty(&v) == Ty::Gen {
        return err("'generator' object is not reversible");
    }
    Ok(items_of(&v)?.pop().unwrap_or_default())
}

pub(super) fn f_list(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value"], 1)?;
    Ok(Value::from(items_of(&b.val(0))?))
}

pub(super) fn f_string(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["s"], 1)?;
    let v = b.val(0);
    if v.is_safe() {
        return Ok(v);
    }
    text(str_of(&v)?)
}

pub(super) fn f_safe(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value"], 1)?;
    Ok(Value::from_safe_string(str_of(&b.val(0))?))
}

pub(super) fn f_escape(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value"], 1)?;
    let v = b.val(0);
    if v.is_safe() {
        return Ok(v);
    }
    let s = html_escape(&str_of(&v)?);
    check_len(&s)?;
    Ok(Value::from_safe_string(s))
}

pub(super) fn f_forceescape(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value"], 1)?;
    let s = html_escape(&str_of(&b.val(0))?);
    check_len(&s)?;
    Ok(Value::from_safe_string(s))
}

pub(super) fn f_striptags(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value"], 1)?;
    let s = str_of(&b.val(0))?;
    let (mut out, mut rest) = (String::with_capacity(s.len()), s.as_str());
    while let Some((head, tail)) = rest.split_once('<') {
        let close = if tail.starts_with("!--") { "-->" } else { ">" };
        // The end of a comment begins after its own dashes.
        let from = if close == ">" { 0 } else { 3 };
        let Some((_, after)) = tail.get(from..).unwrap_or_default().split_once(close) else {
            break;
        };
        out.push_str(head);
        rest = after;
    }
    out.push_str(rest);
    let s = out;
    let s = s
        .split(is_space)
        .filter(|w| !w.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let mut out = String::with_capacity(s.len());
    let mut rest = s.as_str();
    while let Some(i) = rest.find('&') {
        out.push_str(rest.get(..i).unwrap_or_default());
        rest = rest.get(i..).unwrap_or_default();
        let known = [
            ("&amp;", "&"),
            ("&lt;", "<"),
            ("&gt;", ">"),
            ("&quot;", "\""),
            ("&#34;", "\""),
            ("&#39;", "'"),
            ("&apos;", "'"),
            ("& ", "& "),
        ];
        match known
            .iter()
            .find_map(|(e, c)| rest.strip_prefix(e).map(|r| (r, c)))
        {
            Some((r, c)) => {
                out.push_str(c);
                rest = r;
            }
            None => return err("striptags: unsupported HTML entity"),
        }
    }
    out.push_str(rest);
    text(out)
}

pub(super) fn f_replace(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["s", "old", "new", "count"], 3)?;
    let count = match b.some(3) {
        Some(_) => b.int_or(3, -1)?,
        None => -1,
    };
    text(replace(
        &str_of(&b.val(0))?,
        &str_of(&b.val(1))?,
        &str_of(&b.val(2))?,
        count,
    )?)
}

pub(super) fn f_trim(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "chars"], 1)?;
    let s = str_of(&b.val(0))?;
    let chars = match b.some(1) {
        Some(_) => Some(b.str(1)?),
        None => None,
    };
    text(strip(&s, chars.as_deref(), true, true))
}

pub(super) fn f_center(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "width"], 1)?;
    text(center(&str_of(&b.val(0))?, b.int_or(1, 80)?, ' ')?)
}

pub(super) fn f_indent(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["s", "width", "first", "blank"], 1)?;
    let s = b.str(0)?;
    let by = match b.opt(1).and_then(Value::as_str) {
        Some(s) => s.to_string(),
        None => pad(b.int_or(1, 4)?, ' ')?,
    };
    let (first, blank) = (b.bool_or(2, false)?, b.bool_or(3, false)?);
    let lines = splitlines(&format!("{s}\n"), false)?;
    if lines
        .len()
        .saturating_mul(by.len() + 1)
        .saturating_add(s.len())
        > MAX_TEXT
    {
        return too_large();
    }
    let mut rv = String::new();
    if first {
        rv.push_str(&by);
    }
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            rv.push('\n');
            if blank || !line.is_empty() {
                rv.push_str(&by);
            }
        }
        rv.push_str(line);
    }
    text(rv)
}

pub(super) fn f_truncate(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["s", "length", "killwords", "end", "leeway"], 1)?;
    let length = b.int_or(1, 255)?;
    let kill = b.bool_or(2, false)?;
    let end = b.str_or(3, "...")?;
    let leeway = match b.some(4) {
        Some(_) => b.int_or(4, 5)?,
        None => 5,
    };
    if length < char_len(&end) {
        return err(format!(
            "expected length >= {}, got {length}",
            char_len(&end)
        ));
    }
    if leeway < 0 {
        return err(format!("expected leeway >= 0, got {leeway}"));
    }
    // Jinja2 measures whatever has a length, and gives back what is short enough.
    let whole = py_len(&b.val(0))?;
    if i64::try_from(whole).is_ok_and(|n| n <= length.saturating_add(leeway)) {
        return Ok(b.val(0));
    }
    let s = b.str(0)?;
    let keep = usize::try_from(length - char_len(&end)).unwrap_or(0);
    let head: String = s.chars().take(keep).collect();
    let head = if kill {
        head.as_str()
    } else {
        head.rsplit_once(' ').map_or(head.as_str(), |(h, _)| h)
    };
    let end = if b.val(0).is_safe() && !b.val(3).is_safe() {
        html_escape(&end)
    } else {
        end
    };
    text(format!("{head}{end}"))
}

pub(super) fn f_wordwrap(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(
        a,
        &[
            "s",
            "width",
            "break_long_words",
            "wrapstring",
            "break_on_hyphens",
        ],
        1,
    )?;
    let s = b.str(0)?;
    let width = match usize::try_from(b.int_or(1, 79)?) {
        Ok(n) if n > 0 => n,
        _ => return err("invalid width (must be > 0)"),
    };
    let long = b.bool_or(2, true)?;
    let sep = match b.some(3) {
        Some(_) => b.str(3)?,
        None => "\n".into(),
    };
    let hyphens = b.bool_or(4, true)?;
    if s.len() > 256 * 1024 {
        return too_large();
    }
    // A word of one letter is a line; the text as letters, words and lines is well below this.
    spend(s.len().saturating_mul(64))?;
    let mut rv = String::new();
    for (i, line) in splitlines(&s, false)?.iter().enumerate() {
        if i > 0 {
            rv.push_str(&sep);
        }
        for (j, part) in wrap_line(line, width, long, hyphens).iter().enumerate() {
            if j > 0 {
                rv.push_str(&sep);
            }
            rv.push_str(part);
            check_len(&rv)?;
        }
    }
    text(rv)
}

pub(super) fn f_wordcount(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["s"], 1)?;
    let s = str_of(&b.val(0))?;
    Ok(Value::from(
        s.split(|c| !is_word(c)).filter(|w| !w.is_empty()).count(),
    ))
}

pub(super) fn f_format(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let (mut pos, kw) = split_kwargs(a);
    if pos.is_empty() {
        return Err(Error::from(ErrorKind::MissingArgument));
    }
    let v = pos.remove(0);
    if v.is_safe() {
        return err("format on a safe string is not supported");
    }
    if !pos.is_empty() && !kw.is_empty() {
        return err("can't handle positional and keyword arguments at the same time");
    }
    // with one dict argument `"..." % (d,)` is still positional
    text(percent_format(&str_of(&v)?, &pos, &kw, !kw.is_empty())?)
}

pub(super) fn f_join(st: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "d", "attribute"], 1)?;
    let sep = match b.opt(1) {
        Some(v) => str_of(v)?,
        None => String::new(),
    };
    let path = attr_path(&b.some(2).cloned().unwrap_or(Value::from(())))?;
    let mut rv = String::new();
    for (i, item) in items_of(&b.val(0))?.iter().enumerate() {
        if i > 0 {
            rv.push_str(&sep);
        }
        let item = get_path(item, &path, None)?;
        if !is_silent(st, &item) {
            rv.push_str(&str_of(&item)?);
        }
        check_len(&rv)?;
    }
    text(rv)
}

pub(super) fn f_reverse(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value"], 1)?;
    let v = b.val(0);
    if let Some(s) = v.as_str() {
        return text(s.chars().rev().collect());
    }
    let mut items = items_of(&v)?;
    items.reverse();
    Ok(match ty(&v) {
        Ty::Gen => Value::from(items),
        _ => Gen::value(items),
    })
}
