//! Constructs that are refused before rendering, because no hook reaches them.

use super::*;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tok {
    Name(String),
    Op(char),
    Num,
    Str,
}

/// Refuses constructs which minijinja would render differently from Jinja2 and
/// which no run-time hook can reach.  Takes normalised source; errors name the
/// line.  The scan follows Jinja2's lexer and is linear.
pub fn check_source(src: &str) -> Res<()> {
    let c: Vec<char> = src.chars().collect();
    let at = |i: usize| c.get(i).copied();
    let mut open: Vec<String> = Vec::new();
    let mut elifs = 0usize;
    let mut line = 1usize;
    let mut i = 0;
    while let Some(ch) = at(i) {
        if ch == '\n' {
            line += 1;
        }
        let ('{', Some(kind @ ('{' | '%' | '#'))) = (ch, at(i + 1)) else {
            i += 1;
            continue;
        };
        i += 2;
        if kind == '#' {
            while at(i).is_some() && !(at(i) == Some('#') && at(i + 1) == Some('}')) {
                line += usize::from(at(i) == Some('\n'));
                i += 1;
            }
            i += 2;
            continue;
        }
        if matches!(at(i), Some('-' | '+')) {
            i += 1;
        }
        let tag_line = line;
        let mut toks: Vec<Tok> = Vec::new();
        let mut depth = 0usize;
        while let Some(ch) = at(i) {
            let end = if kind == '{' { '}' } else { '%' };
            let dash = ch == '-' || (ch == '+' && kind == '%');
            let e = if dash { i + 1 } else { i };
            if depth == 0 && at(e) == Some(end) && at(e + 1) == Some('}') {
                i = e + 2;
                break;
            }
            match ch {
                '\n' => {
                    line += 1;
                    i += 1;
                }
                '"' | '\'' => {
                    i += 1;
                    while let Some(s) = at(i) {
                        i += 1;
                        line += usize::from(s == '\n');
                        if s == ch {
                            break;
                        }
                        if s == '\\' {
                            let n = at(i).unwrap_or(' ');
                            if matches!(n, '/' | 'a' | 'v' | 'U' | 'N' | '4'..='7' | '\n') {
                                return Err(Error::new(
                                    ErrorKind::SyntaxError,
                                    format!("line {line}: the escape \\{n} is not supported"),
                                ));
                            }
                            line += usize::from(n == '\n');
                            i += 1;
                        }
                    }
                    toks.push(Tok::Str);
                }
                '(' | '[' | '{' => {
                    depth += 1;
                    toks.push(Tok::Op(ch));
                    i += 1;
                }
                ')' | ']' | '}' => {
                    depth = depth.saturating_sub(1);
                    toks.push(Tok::Op(ch));
                    i += 1;
                }
                ch if ch.is_whitespace() => i += 1,
                ch if ch.is_ascii_digit() => {
                    while at(i).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                        i += 1;
                    }
                    toks.push(Tok::Num);
                }
                ch if is_word(ch) => {
                    let mut name = String::new();
                    while let Some(c) = at(i).filter(|c| is_word(*c)) {
                        name.push(c);
                        i += 1;
                    }
                    toks.push(Tok::Name(name));
                }
                ch => {
                    toks.push(Tok::Op(ch));
                    i += 1;
                }
            }
        }
        let bad = |what: &str| {
            Err(Error::new(
                ErrorKind::SyntaxError,
                format!("line {tag_line}: {what}"),
            ))
        };
        if let Some(what) = too_complex(&toks) {
            return bad(what);
        }
        if toks.windows(5).any(|w| {
            matches!(w, [Tok::Name(a), Tok::Op('.'), Tok::Name(b), Tok::Op('('), Tok::Op(')')]
                if a == "loop" && b == "cycle")
        }) {
            return bad("loop.cycle() needs arguments");
        }
        if kind != '%' {
            continue;
        }
        let Some(Tok::Name(tag)) = toks.first() else {
            continue;
        };
        match tag.as_str() {
            "raw" => {
                // skip to the matching endraw
                while at(i).is_some() {
                    if at(i) == Some('{') && at(i + 1) == Some('%') {
                        let mut j = i + 2;
                        while at(j).is_some_and(|c| c.is_whitespace() || c == '-' || c == '+') {
                            j += 1;
                        }
                        let word: String = c.iter().skip(j).take(6).collect();
                        if word == "endraw" {
                            break;
                        }
                    }
                    line += usize::from(at(i) == Some('\n'));
                    i += 1;
                }
            }
            "extends" | "include" | "import" | "from" => {
                return bad("extends, include and import need other files: not supported");
            }
            "autoescape" => return bad("autoescape is not supported"),
            "macro" => {
                if let Some(what) = bad_macro(&toks) {
                    return bad(what);
                }
                open.push(tag.clone());
            }
            "for" | "filter" | "call" | "with" | "if" => {
                if open.len() >= MAX_OPEN_TAGS {
                    return bad("tags are nested too deeply");
                }
                open.push(tag.clone());
            }
            "elif" => {
                open.push(tag.clone());
                elifs += 1;
                if elifs > MAX_ELIFS {
                    return bad("too many elif branches");
                }
            }
            "block" if !open.is_empty() => {
                return bad("block inside another tag is not supported");
            }
            t if t.starts_with("end") && t != "endset" && t != "endblock" && t != "endraw" => {
                while open.last().is_some_and(|t| t == "elif") {
                    open.pop();
                    elifs = elifs.saturating_sub(1);
                }
                open.pop();
            }
            _ => {}
        }
    }
    Ok(())
}

/// minijinja parses and compiles operator chains recursively without a limit:
/// a few thousand of them overflow the stack and abort the process.
pub(super) const MAX_CHAIN: usize = 600;
/// `elif` branches of all open `if`s together (each one is a recursion).
pub(super) const MAX_ELIFS: usize = 200;
pub(super) const MAX_OPEN_TAGS: usize = 400;

pub(super) fn too_complex(toks: &[Tok]) -> Option<&'static str> {
    // tokens since the last comma, for each open bracket, and their sum
    let mut frames = vec![0usize];
    let mut total = 0usize;
    for t in toks {
        match t {
            Tok::Op(',') => {
                if let Some(n) = frames.last_mut() {
                    total = total.saturating_sub(*n);
                    *n = 0;
                }
            }
            Tok::Op(')' | ']' | '}') => {
                if frames.len() > 1 {
                    total = total.saturating_sub(frames.pop().unwrap_or(0));
                }
            }
            t => {
                if let Some(n) = frames.last_mut() {
                    *n += 1;
                }
                total += 1;
                if matches!(t, Tok::Op('(' | '[' | '{')) {
                    frames.push(0);
                }
            }
        }
        if total > MAX_CHAIN {
            return Some("the expression is too complex");
        }
    }
    None
}

/// A macro default which names a parameter sees the outer variable instead.
pub(super) fn bad_macro(toks: &[Tok]) -> Option<&'static str> {
    let mut depth = 0usize;
    let mut params: Vec<&str> = Vec::new();
    let mut used: Vec<&str> = Vec::new();
    let mut prev = &Tok::Num;
    for t in toks.iter().skip(2) {
        match t {
            Tok::Op('(' | '[' | '{') => depth += 1,
            Tok::Op(')' | ']' | '}') => depth = depth.saturating_sub(1),
            Tok::Name(n) => {
                let param = depth == 1 && matches!(prev, Tok::Op('(' | ','));
                if param {
                    params.push(n);
                } else if *prev != Tok::Op('.') && *prev != Tok::Op('|') {
                    used.push(n);
                }
            }
            _ => {}
        }
        prev = t;
    }
    if used.iter().any(|n| params.contains(n)) {
        return Some("a macro default may not name a parameter");
    }
    None
}
