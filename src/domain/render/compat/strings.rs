//! What several methods and filters do with strings.

use super::*;

/// Python's `str.isspace` for one character.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

pub(super) fn strip(s: &str, chars: Option<&str>, left: bool, right: bool) -> String {
    let hit = |c: char| match chars {
        Some(set) => set.contains(c),
        None => is_space(c),
    };
    let mut s = s;
    if left {
        s = s.trim_start_matches(hit);
    }
    if right {
        s = s.trim_end_matches(hit);
    }
    s.to_string()
}

/// Python's `str.splitlines`.
pub(super) fn splitlines(s: &str, keep: bool) -> Res<Vec<String>> {
    let mut rv = Vec::new();
    let mut line = String::new();
    let mut iter = s.chars().peekable();
    let mut open = false;
    while let Some(c) = iter.next() {
        open = true;
        let brk = matches!(
            c,
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        );
        if !brk {
            line.push(c);
            continue;
        }
        if keep {
            line.push(c);
        }
        if c == '\r' && iter.peek() == Some(&'\n') {
            iter.next();
            if keep {
                line.push('\n');
            }
        }
        rv.push(std::mem::take(&mut line));
        open = false;
        if rv.len() > MAX_ITEMS {
            return too_large();
        }
    }
    if open {
        rv.push(line);
    }
    spend_items(rv.len())?;
    Ok(rv)
}

pub(super) fn pad(n: i64, fill: char) -> Res<String> {
    let n = usize::try_from(n).unwrap_or(0);
    if n.saturating_mul(fill.len_utf8()) > MAX_TEXT {
        return too_large();
    }
    spend(n * fill.len_utf8())?;
    Ok(std::iter::repeat_n(fill, n).collect())
}

pub(super) fn char_len(s: &str) -> i64 {
    i64::try_from(s.chars().count()).unwrap_or(i64::MAX)
}

/// Python's `str.center`.
pub(super) fn center(s: &str, width: i64, fill: char) -> Res<String> {
    let total = width.saturating_sub(char_len(s));
    if total <= 0 {
        return Ok(s.to_string());
    }
    let left = total / 2 + (total & width & 1);
    Ok(format!(
        "{}{s}{}",
        pad(left, fill)?,
        pad(total - left, fill)?
    ))
}

pub(super) fn replace(s: &str, old: &str, new: &str, count: i64) -> Res<String> {
    let hits = s.matches(old).count();
    let n = match usize::try_from(count) {
        Ok(n) => n.min(hits),
        Err(_) => hits,
    };
    if n.saturating_mul(new.len()).saturating_add(s.len()) > MAX_TEXT {
        return too_large();
    }
    Ok(s.replacen(old, new, n))
}

pub(super) fn upper_first(c: char) -> String {
    // Letters that are two in one have a title case of their own, and Georgian ones are their own.
    match c {
        'Ǆ'..='ǆ' => return "ǅ".into(),
        'Ǉ'..='ǉ' => return "ǈ".into(),
        'Ǌ'..='ǌ' => return "ǋ".into(),
        'Ǳ'..='ǳ' => return "ǲ".into(),
        '\u{10d0}'..='\u{10ff}' => return c.into(),
        _ => {}
    }
    // title case; a multi-letter expansion keeps only its first letter upper
    let mut it = c.to_uppercase();
    let mut rv: String = it.next().into_iter().collect();
    for c in it {
        rv.extend(c.to_lowercase());
    }
    rv
}

/// Python's `str.title`.
pub(super) fn title_method(s: &str) -> String {
    let mut rv = String::with_capacity(s.len());
    let mut prev = false;
    for c in s.chars() {
        let cased = is_cased(c);
        if prev {
            rv.extend(c.to_lowercase());
        } else {
            rv.push_str(&upper_first(c));
        }
        prev = cased;
    }
    rv
}

pub(super) fn capitalize(s: &str) -> String {
    let mut it = s.chars();
    match it.next() {
        Some(c) => format!("{}{}", upper_first(c), it.as_str().to_lowercase()),
        None => String::new(),
    }
}

pub(super) fn html_escape(s: &str) -> String {
    let mut rv = String::with_capacity(s.len());
    for c in s.chars() {
        match c {
            '&' => rv.push_str("&amp;"),
            '<' => rv.push_str("&lt;"),
            '>' => rv.push_str("&gt;"),
            '"' => rv.push_str("&#34;"),
            '\'' => rv.push_str("&#39;"),
            c => rv.push(c),
        }
    }
    rv
}

/// Python's `urllib.parse.quote`.
pub(super) fn quote(s: &str, for_qs: bool) -> String {
    let mut rv = String::with_capacity(s.len());
    for &b in s.as_bytes() {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                rv.push(char::from(b));
            }
            b'/' if !for_qs => rv.push('/'),
            b' ' if for_qs => rv.push('+'),
            b => rv.push_str(&format!("%{b:02X}")),
        }
    }
    rv
}

pub(super) fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// `textwrap`'s word splitter (`wordsep_re`), on characters.
pub(super) fn wrap_chunks(s: &[char], hyphens: bool) -> Vec<&[char]> {
    let ws = |c: char| matches!(c, '\t' | '\n' | '\x0b' | '\x0c' | '\r' | ' ');
    let at = |i: usize| s.get(i).copied();
    let punct = |c: char| is_word(c) || "!\"'&.,?".contains(c);
    let letter = |c: char| is_word(c) && !c.is_numeric();
    let mut rv: Vec<&[char]> = Vec::new();
    let mut i = 0;
    while let Some(c) = at(i) {
        let start = i;
        if ws(c) {
            while at(i).is_some_and(ws) {
                i += 1;
            }
        } else if !hyphens {
            while at(i).is_some_and(|c| !ws(c)) {
                i += 1;
            }
        } else {
            // em-dash between words
            let mut dash = i;
            while at(dash) == Some('-') {
                dash += 1;
            }
            if dash - i >= 2
                && i > 0
                && at(i - 1).is_some_and(punct)
                && at(dash).is_some_and(is_word)
            {
                i = dash;
            } else {
                // shortest non-empty run of non-space ending at a break
                i += 1;
                loop {
                    // hyphenated word: "-" here, then two letters
                    if at(i) == Some('-') {
                        let back = |n: usize| i.checked_sub(n).and_then(at);
                        let before = (back(1).is_some_and(letter) && back(2).is_some_and(letter))
                            || (back(1).is_some_and(punct)
                                && back(2) == Some('-')
                                && back(3).is_some_and(letter));
                        let after = at(i + 1).is_some_and(letter)
                            && (at(i + 2).is_some_and(letter)
                                || (at(i + 2) == Some('-') && at(i + 3).is_some_and(letter)));
                        if before && after {
                            i += 1;
                            break;
                        }
                    }
                    match at(i) {
                        None => break,
                        Some(c) if ws(c) => break,
                        _ => {}
                    }
                    // before an em-dash
                    if at(i) == Some('-') && i > 0 && at(i - 1).is_some_and(punct) {
                        let mut d = i;
                        while at(d) == Some('-') {
                            d += 1;
                        }
                        if d - i >= 2 && at(d).is_some_and(is_word) {
                            break;
                        }
                    }
                    i += 1;
                }
            }
        }
        rv.push(s.get(start..i).unwrap_or_default());
    }
    rv
}

/// `textwrap.wrap(expand_tabs=False, replace_whitespace=False)`.
pub(super) fn wrap_line(s: &str, width: usize, long: bool, hyphens: bool) -> Vec<String> {
    let chars: Vec<char> = s.chars().collect();
    let mut chunks = wrap_chunks(&chars, hyphens);
    chunks.reverse();
    let blank = |c: &[char]| c.iter().all(|c| is_space(*c));
    let mut lines: Vec<String> = Vec::new();
    while !chunks.is_empty() {
        let mut cur: Vec<&[char]> = Vec::new();
        let mut len = 0;
        if !lines.is_empty() && chunks.last().is_some_and(|c| blank(c)) {
            chunks.pop();
        }
        while let Some(chunk) = chunks.last() {
            if len + chunk.len() > width {
                break;
            }
            len += chunk.len();
            cur.extend(chunks.pop());
        }
        if let Some(chunk) = chunks.last_mut()
            && chunk.len() > width
        {
            if long {
                let mut end = width.saturating_sub(len);
                if hyphens && chunk.len() > end {
                    // break after a hyphen inside the part that fits
                    let hy = chunk
                        .get(..end)
                        .unwrap_or_default()
                        .iter()
                        .rposition(|c| *c == '-');
                    if let Some(h) = hy
                        && h > 0
                        && chunk.iter().take(h).any(|c| *c != '-')
                    {
                        end = h + 1;
                    }
                }
                let end = end.min(chunk.len());
                // A part of the same text, not a copy: a long word under a narrow width must not be moved each time.
                let (head, tail) = chunk.split_at(end);
                cur.push(head);
                *chunk = tail;
            } else if cur.is_empty() {
                cur.extend(chunks.pop());
            }
        }
        if cur.last().is_some_and(|c| blank(c)) {
            cur.pop();
        }
        if !cur.is_empty() {
            lines.push(cur.into_iter().flatten().copied().collect());
        }
    }
    lines
}
