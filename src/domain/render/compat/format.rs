//! The formats of `%` and of `str.format`.

use super::*;

/// Exponent form as C prints it.
pub(super) fn fmt_exp(x: f64, prec: usize, upper: bool) -> String {
    let s = format!("{x:.prec$e}");
    let rv = match s.split_once('e') {
        Some((m, e)) => {
            let e: i32 = e.parse().unwrap_or(0);
            format!(
                "{m}e{}{:02}",
                if e < 0 { '-' } else { '+' },
                e.unsigned_abs()
            )
        }
        None => s,
    };
    if upper { rv.to_uppercase() } else { rv }
}

pub(super) fn fmt_general(x: f64, prec: usize, alt: bool) -> String {
    let prec = prec.max(1);
    let probe = format!("{x:.*e}", prec - 1);
    let exp: i32 = probe
        .split_once('e')
        .and_then(|(_, e)| e.parse().ok())
        .unwrap_or(0);
    let p = i32::try_from(prec).unwrap_or(i32::MAX);
    let trim = |s: String| {
        if alt || !s.contains('.') {
            s
        } else {
            s.trim_end_matches('0').trim_end_matches('.').to_string()
        }
    };
    if exp < -4 || exp >= p {
        let s = fmt_exp(x, prec - 1, false);
        match s.split_once('e') {
            Some((m, e)) => format!("{}e{e}", trim(m.to_string())),
            None => s,
        }
    } else {
        let digits = usize::try_from(p - 1 - exp).unwrap_or(0);
        trim(format!("{x:.digits$}"))
    }
}

/// The unsigned body of a number in one of the float presentation types.
pub(super) fn fmt_float(x: f64, kind: char, prec: Option<usize>, alt: bool) -> String {
    let x = x.abs();
    let upper = kind.is_ascii_uppercase();
    if x.is_nan() || x.is_infinite() {
        let s = if x.is_nan() { "nan" } else { "inf" };
        return if upper { s.to_uppercase() } else { s.into() };
    }
    let prec = prec.unwrap_or(6).min(400);
    match kind {
        'e' | 'E' => fmt_exp(x, prec, upper),
        'g' | 'G' => {
            let s = fmt_general(x, prec, alt);
            if upper { s.to_uppercase() } else { s }
        }
        _ => format!("{x:.prec$}"),
    }
}

pub(super) fn fmt_radix(x: i128, kind: char) -> String {
    let n = x.unsigned_abs();
    match kind {
        'x' => format!("{n:x}"),
        'X' => format!("{n:X}"),
        'o' => format!("{n:o}"),
        'b' => format!("{n:b}"),
        _ => n.to_string(),
    }
}

pub(super) fn parse_width(chars: &[char], i: &mut usize) -> Res<Option<usize>> {
    let mut rv: Option<usize> = None;
    while let Some(d) = chars.get(*i).and_then(|c| c.to_digit(10)) {
        let n = rv
            .unwrap_or(0)
            .saturating_mul(10)
            .saturating_add(d as usize);
        if n > MAX_TEXT {
            return too_large();
        }
        rv = Some(n);
        *i += 1;
    }
    Ok(rv)
}

/// Python's `fmt % args`.
pub(super) fn percent_format(
    fmt: &str,
    pos: &[Value],
    kw: &[(String, Value)],
    mapping: bool,
) -> Res<String> {
    let chars: Vec<char> = fmt.chars().collect();
    let mut out = String::new();
    let mut next = 0;
    let mut i = 0;
    while let Some(&c) = chars.get(i) {
        check_len(&out)?;
        i += 1;
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut keyed = None;
        if chars.get(i) == Some(&'(') {
            let mut depth = 1;
            let mut key = String::new();
            i += 1;
            while let Some(&c) = chars.get(i) {
                i += 1;
                match c {
                    '(' => depth += 1,
                    ')' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
                key.push(c);
            }
            if depth != 0 {
                return err("incomplete format key");
            }
            if !mapping {
                return err("format requires a mapping");
            }
            match kw.iter().find(|(k, _)| *k == key) {
                Some((_, v)) => keyed = Some(v.clone()),
                None => return err(format!("format key '{key}' is missing")),
            }
        }
        let (mut left, mut zero, mut alt, mut sign) = (false, false, false, None);
        while let Some(&c) = chars.get(i) {
            match c {
                '-' => left = true,
                '0' => zero = true,
                '#' => alt = true,
                '+' => sign = Some('+'),
                ' ' => sign = sign.or(Some(' ')),
                _ => break,
            }
            i += 1;
        }
        if chars.get(i) == Some(&'*') {
            return err("'*' in a format is not supported");
        }
        let width = parse_width(&chars, &mut i)?.unwrap_or(0);
        let mut prec = None;
        if chars.get(i) == Some(&'.') {
            i += 1;
            if chars.get(i) == Some(&'*') {
                return err("'*' in a format is not supported");
            }
            prec = Some(parse_width(&chars, &mut i)?.unwrap_or(0));
        }
        while matches!(chars.get(i), Some('l' | 'L' | 'h')) {
            i += 1;
        }
        let Some(&kind) = chars.get(i) else {
            return err("incomplete format");
        };
        i += 1;
        if kind == '%' {
            out.push('%');
            continue;
        }
        let arg = match keyed {
            Some(v) => v,
            None => {
                let v = match pos.get(next) {
                    Some(v) => v.clone(),
                    None => return err("not enough arguments for format string"),
                };
                next += 1;
                v
            }
        };
        if arg.is_undefined() && kind != 'r' {
            return undefined();
        }
        let (neg, body, number) = match kind {
            's' | 'r' => {
                let s = if kind == 's' {
                    str_of(&arg)?
                } else {
                    repr_of(&arg)?
                };
                (
                    false,
                    s.chars().take(prec.unwrap_or(usize::MAX)).collect(),
                    false,
                )
            }
            'c' => match (arg.as_str(), int_of(&arg)) {
                (Some(s), _) if s.chars().count() == 1 => (false, s.to_string(), false),
                (_, Some(n)) => match u32::try_from(n).ok().and_then(char::from_u32) {
                    Some(c) => (false, c.to_string(), false),
                    None => return err("%c arg not in range"),
                },
                _ => return err("%c requires int or char"),
            },
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
                let n = match (int_of(&arg), num_of(&arg)) {
                    (Some(n), _) => n,
                    (None, Some(f))
                        if matches!(kind, 'd' | 'i' | 'u') && f.is_finite() && f.abs() < 1e30 =>
                    {
                        f.trunc() as i128
                    }
                    _ => return err(format!("%{kind} format: a number is required")),
                };
                let mut s = fmt_radix(n, kind);
                if let Some(p) = prec {
                    let miss = p.saturating_sub(s.len());
                    s = format!("{}{s}", pad(miss as i64, '0')?);
                }
                if alt {
                    match kind {
                        'x' => s.insert_str(0, "0x"),
                        'X' => s.insert_str(0, "0X"),
                        'o' => s.insert_str(0, "0o"),
                        _ => {}
                    }
                }
                (n < 0, s, true)
            }
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => match num_of(&arg) {
                Some(x) => (
                    x.is_sign_negative() && !x.is_nan(),
                    fmt_float(x, kind, prec, alt),
                    true,
                ),
                None => return err("must be real number"),
            },
            _ => return err(format!("unsupported format character '{kind}'")),
        };
        let lead = match (number, neg, sign) {
            (true, true, _) => "-",
            (true, false, Some('+')) => "+",
            (true, false, Some(_)) => " ",
            _ => "",
        };
        let miss = width as i64 - char_len(&body) - char_len(lead);
        if left {
            out.push_str(lead);
            out.push_str(&body);
            out.push_str(&pad(miss, ' ')?);
        } else if zero && number {
            out.push_str(lead);
            let split = if alt && matches!(kind, 'x' | 'X' | 'o') {
                2.min(body.len())
            } else {
                0
            };
            out.push_str(body.get(..split).unwrap_or_default());
            out.push_str(&pad(miss, '0')?);
            out.push_str(body.get(split..).unwrap_or_default());
        } else {
            out.push_str(&pad(miss, ' ')?);
            out.push_str(lead);
            out.push_str(&body);
        }
    }
    if !mapping && next < pos.len() {
        return err("not all arguments converted during string formatting");
    }
    check_len(&out)?;
    Ok(out)
}

/// Inserts a thousands separator into the integer part.
pub(super) fn group_digits(s: &str, sep: char) -> String {
    let end = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    let (int, rest) = s.split_at(end);
    let n = int.len();
    let mut rv = String::new();
    for (i, c) in int.chars().enumerate() {
        if i > 0 && (n - i) % 3 == 0 {
            rv.push(sep);
        }
        rv.push(c);
    }
    rv.push_str(rest);
    rv
}

/// Python's `format(value, spec)`.
pub(super) fn format_spec(v: &Value, spec: &str) -> Res<String> {
    if v.is_undefined() {
        return undefined();
    }
    if spec.is_empty() {
        return str_of(v);
    }
    let t = ty(v);
    if !matches!(t, Ty::Str | Ty::Int | Ty::Float | Ty::Bool) {
        return err("unsupported format string passed to __format__");
    }
    let chars: Vec<char> = spec.chars().collect();
    let mut i = 0;
    let is_align = |c: Option<&char>| matches!(c, Some('<' | '>' | '^' | '='));
    let (mut fill, mut align) = (' ', None);
    if is_align(chars.get(1)) {
        fill = chars.first().copied().unwrap_or(' ');
        align = chars.get(1).copied();
        i = 2;
    } else if is_align(chars.first()) {
        align = chars.first().copied();
        i = 1;
    }
    let mut sign = None;
    if let Some(c @ ('+' | '-' | ' ')) = chars.get(i) {
        sign = Some(*c);
        i += 1;
    }
    let alt = chars.get(i) == Some(&'#');
    if alt {
        i += 1;
    }
    if chars.get(i) == Some(&'0') {
        i += 1;
        if align.is_none() {
            fill = '0';
            align = Some(if t == Ty::Str { '<' } else { '=' });
        }
    }
    let width = parse_width(&chars, &mut i)?.unwrap_or(0);
    let mut sep = None;
    if let Some(c @ (',' | '_')) = chars.get(i) {
        sep = Some(*c);
        i += 1;
    }
    let mut prec = None;
    if chars.get(i) == Some(&'.') {
        i += 1;
        prec = parse_width(&chars, &mut i)?;
        if prec.is_none() {
            return err("Format specifier missing precision");
        }
    }
    let kind = chars.get(i).copied();
    if chars.len() > i + 1 {
        return err("Invalid format specifier");
    }
    let bad = || {
        err(format!(
            "Unknown format code for object of type '{}'",
            type_name(v)
        ))
    };
    let (neg, mut body, number) = match (t, kind) {
        (Ty::Str, None | Some('s')) => {
            if sign.is_some() || alt || sep.is_some() || align == Some('=') {
                return err("not allowed in string format specifier");
            }
            let s: String = v
                .as_str()
                .unwrap_or_default()
                .chars()
                .take(prec.unwrap_or(usize::MAX))
                .collect();
            (false, s, false)
        }
        (Ty::Str, _) => return bad(),
        (Ty::Int | Ty::Bool, None | Some('d' | 'x' | 'X' | 'o' | 'b')) => {
            if prec.is_some() {
                return err("Precision not allowed in integer format specifier");
            }
            let Some(n) = int_of(v) else { return bad() };
            let k = kind.unwrap_or('d');
            if sep.is_some() && k != 'd' {
                return err("unsupported separator");
            }
            let mut s = fmt_radix(n, k);
            if alt && k != 'd' {
                s = format!("0{k}{s}");
            }
            (n < 0, s, true)
        }
        (_, Some(k @ ('e' | 'E' | 'f' | 'F' | 'g' | 'G'))) => {
            let x = num_of(v).unwrap_or(f64::NAN);
            (
                x.is_sign_negative() && !x.is_nan(),
                fmt_float(x, k, prec, alt),
                true,
            )
        }
        (_, Some('%')) => {
            let x = num_of(v).unwrap_or(f64::NAN) * 100.0;
            (
                x.is_sign_negative() && !x.is_nan(),
                format!("{}%", fmt_float(x, 'f', prec, alt)),
                true,
            )
        }
        (Ty::Float, None) if prec.is_none() => {
            let x = num_of(v).unwrap_or(f64::NAN);
            (
                x.is_sign_negative() && !x.is_nan(),
                float_repr(x.abs()),
                true,
            )
        }
        _ => return bad(),
    };
    if let Some(sep) = sep {
        if fill == '0' && align == Some('=') && width > body.len() {
            return err("zero padding with a separator is not supported");
        }
        body = group_digits(&body, sep);
    }
    let lead = match (number, neg, sign) {
        (true, true, _) => "-",
        (true, false, Some('+')) => "+",
        (true, false, Some(' ')) => " ",
        _ => "",
    };
    let miss = width as i64 - char_len(&body) - char_len(lead);
    let align = align.unwrap_or(if number { '>' } else { '<' });
    let left = match align {
        '<' => 0,
        '^' => miss.max(0) / 2,
        _ => miss.max(0),
    };
    let (a, b) = (pad(left, fill)?, pad(miss.max(0) - left, fill)?);
    Ok(if align == '=' {
        let cut = if alt && body.starts_with('0') && kind != Some('d') {
            2.min(body.len())
        } else {
            0
        };
        let (p, q) = body.split_at(cut);
        format!("{lead}{p}{a}{q}")
    } else {
        format!("{a}{lead}{body}{b}")
    })
}

/// Python's `str.format`.
pub(super) fn str_format(fmt: &str, pos: &[Value], kw: &[(String, Value)]) -> Res<String> {
    let chars: Vec<char> = fmt.chars().collect();
    let mut out = String::new();
    let mut auto: Option<usize> = Some(0);
    let mut used_auto = false;
    let mut i = 0;
    while let Some(&c) = chars.get(i) {
        check_len(&out)?;
        i += 1;
        match c {
            '{' if chars.get(i) == Some(&'{') => {
                out.push('{');
                i += 1;
            }
            '}' if chars.get(i) == Some(&'}') => {
                out.push('}');
                i += 1;
            }
            '}' => return err("Single '}' encountered in format string"),
            '{' => {
                let mut field = String::new();
                let mut closed = false;
                while let Some(&c) = chars.get(i) {
                    i += 1;
                    if c == '}' {
                        closed = true;
                        break;
                    }
                    if c == '{' {
                        return err("nested format fields are not supported");
                    }
                    field.push(c);
                }
                if !closed {
                    return err("expected '}' before end of string");
                }
                let (head, spec) = match field.split_once(':') {
                    Some((h, s)) => (h.to_string(), s.to_string()),
                    None => (field.clone(), String::new()),
                };
                let (name, conv) = match head.split_once('!') {
                    Some((n, c)) => (n.to_string(), Some(c.to_string())),
                    None => (head, None),
                };
                let cut = name.find(['.', '[']).unwrap_or(name.len());
                let (first, mut rest) = name.split_at(cut);
                let mut val = if first.is_empty() {
                    used_auto = true;
                    let Some(n) = auto else {
                        return err("cannot switch from manual to automatic field numbering");
                    };
                    auto = Some(n + 1);
                    pos.get(n).cloned()
                } else if first.chars().all(|c| c.is_ascii_digit()) {
                    if used_auto {
                        return err("cannot switch from automatic to manual field numbering");
                    }
                    auto = None;
                    first
                        .parse::<usize>()
                        .ok()
                        .and_then(|n| pos.get(n).cloned())
                } else {
                    kw.iter().find(|(k, _)| k == first).map(|(_, v)| v.clone())
                };
                while !rest.is_empty() {
                    // `{a[key]}`; attributes of Python objects are not data
                    let Some(inner) = rest.strip_prefix('[') else {
                        return err("attribute access in a format string is not supported");
                    };
                    let Some((key, tail)) = inner.split_once(']') else {
                        return err("Missing ']' in format string");
                    };
                    let key = match key.parse::<u64>() {
                        Ok(n) => Value::from(n),
                        Err(_) => Value::from(key),
                    };
                    val = match val {
                        Some(v) => Some(v.get_item(&key)?).filter(|v| !v.is_undefined()),
                        None => None,
                    };
                    rest = tail;
                }
                let Some(v) = val else {
                    return err("Replacement index or key not found in format arguments");
                };
                let v = match conv.as_deref() {
                    None => v,
                    Some("r") => Value::from(repr_of(&v)?),
                    Some("s") => Value::from(str_of(&v)?),
                    Some(_) => return err("Unknown conversion specifier"),
                };
                out.push_str(&format_spec(&v, &spec)?);
                check_len(&out)?;
            }
            c => out.push(c),
        }
    }
    check_len(&out)?;
    Ok(out)
}
