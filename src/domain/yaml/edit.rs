//! Changing one scalar of a document in place: every byte outside of it stays.
//!
//! Ways to write the new value are tried in order, and the reader is the judge: what does not read back as the same
//! document with just that value changed is not taken. So a file is never broken, only refused.

use super::{Kind, Limits, Node, Scalar, Style, parse, resolve};
use crate::domain::model::{Finding, Place, Span};

/// What a scalar is to become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted<'a> {
    /// A text, whatever readers of plain scalars would make of it.
    Text(&'a str),
    /// A number or a boolean, as it is to be written.
    Literal(&'a str),
    /// Characters that are taken as written, whatever type they seem to have.
    Written(&'a str),
}

impl Wanted<'_> {
    /// Tells whether a scalar is this already.
    pub fn is(&self, node: &Node) -> bool {
        match self {
            Self::Text(text) => node.scalar() == Some(Scalar::Text((*text).to_owned())),
            Self::Literal(text) => {
                let wanted = resolve(text, Style::Plain, None);
                !matches!(wanted, Scalar::Text(_)) && node.scalar() == Some(wanted)
            }
            Self::Written(text) => node.string() == Some(text),
        }
    }
}

/// Sets the scalar at a path of keys and indexes. A key that is missing is put behind its last sibling.
///
/// Fails where the document cannot be read, where something else than a scalar stands there, and where it cannot be
/// changed without changing anything else, such as behind an anchor.
pub fn set_scalar(
    file: &str,
    text: &str,
    limits: &Limits,
    path: &[&str],
    wanted: Wanted<'_>,
) -> Result<String, Vec<Finding>> {
    let root = parse(file, text, limits)?;
    let (mut node, mut parent, mut depth) = (&root, &root, 0);
    while let Some(next) = path.get(depth).and_then(|part| child(node, part)) {
        (parent, node, depth) = (node, next, depth + 1);
    }
    let at = |node: &Node| Place::at(file, node.span, text);
    let name = path.join(".");
    let editor = Editor {
        text,
        lines: lines(text),
        flow: in_flow(&root, path, text),
    };
    let rest = &path[depth..];
    let candidates = if rest.is_empty() {
        if !matches!(node.kind, Kind::Scalar(..)) {
            let message = format!("`{name}` is {}, not one value", node.type_name());
            let finding = Finding::error("set.scalar", at(node), message);
            return Err(vec![
                finding.help("name one value in it, with dots between the keys"),
            ]);
        }
        let key = path.last().and_then(|last| parent.entry(last));
        editor.replaced(node, key.map(|(key, _)| key), wanted)
    } else {
        let mapping = node.is_mapping() || node.is_null();
        if !mapping {
            let message = format!(
                "`{}` is {} and has no `{}`",
                path[..depth].join("."),
                node.type_name(),
                rest[0]
            );
            return Err(vec![Finding::error("set.scalar", at(node), message)]);
        }
        let key = path[..depth].last().and_then(|last| parent.entry(last));
        editor.inserted(node, key.map(|(key, _)| key), rest, wanted)
    };
    let found = candidates.into_iter().find(|candidate| {
        let new = parse(file, candidate, limits);
        new.is_ok_and(|new| changed_only(&root, &new, path, wanted))
    });
    found.ok_or_else(|| {
        let message = format!("`{name}` cannot be changed without changing something else");
        let finding = Finding::error("set.shared", at(node), message);
        vec![
            finding.help(
                "it is shared through an anchor, or written in an unusual way: edit the file",
            ),
        ]
    })
}

fn child<'a>(node: &'a Node, part: &str) -> Option<&'a Node> {
    match &node.kind {
        Kind::Mapping(_) => node.get(part),
        Kind::Sequence(items) => items.get(part.parse::<usize>().ok()?),
        Kind::Scalar(..) => None,
    }
}

/// Returns where each line begins, as readers of YAML count them.
fn lines(text: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let ends = |at: &usize| {
        bytes[*at] == b'\n' || bytes[*at] == b'\r' && bytes.get(at + 1) != Some(&b'\n')
    };
    let starts = (0..bytes.len()).filter(ends).map(|at| at + 1);
    std::iter::once(0).chain(starts).collect()
}

fn opens_flow(node: &Node, text: &str, lines: &[usize]) -> bool {
    let at = offset(text, lines, node.span.line, node.span.column);
    !matches!(node.kind, Kind::Scalar(..)) && text[at..].starts_with(['{', '['])
}

fn in_flow(root: &Node, path: &[&str], text: &str) -> bool {
    let lines = lines(text);
    let mut node = root;
    for part in path {
        if opens_flow(node, text, &lines) {
            return true;
        }
        match child(node, part) {
            Some(next) => node = next,
            None => return false,
        }
    }
    opens_flow(node, text, &lines)
}

/// Returns the byte at which a column of a line begins.
fn offset(text: &str, lines: &[usize], line: u32, column: u32) -> usize {
    let Some(start) = lines.get((line as usize).saturating_sub(1)) else {
        return text.len();
    };
    let column = (column as usize).saturating_sub(1);
    let found = text[*start..].char_indices().nth(column);
    found.map_or(text.len(), |(at, _)| start + at)
}

struct Editor<'a> {
    text: &'a str,
    lines: Vec<usize>,
    /// Whether the value stands within braces or brackets, where fewer characters are plain.
    flow: bool,
}

impl Editor<'_> {
    fn start(&self, span: Span) -> usize {
        offset(self.text, &self.lines, span.line, span.column)
    }

    fn end(&self, span: Span) -> usize {
        let (start, end) = (
            self.start(span),
            offset(self.text, &self.lines, span.end_line, span.end_column),
        );
        start + self.text[start..end.max(start)].trim_end().len()
    }

    /// Returns the end of a line's text, before what ends it.
    fn line_end(&self, at: usize) -> usize {
        let rest = self.text[at..].find(['\n', '\r']);
        rest.map_or(self.text.len(), |n| at + n)
    }

    fn newline(&self) -> &'static str {
        if self.text.contains("\r\n") {
            "\r\n"
        } else {
            "\n"
        }
    }

    fn splice(&self, from: usize, to: usize, new: &str) -> String {
        format!("{}{new}{}", &self.text[..from], &self.text[to..])
    }

    /// Returns what follows the colon of a key.
    fn after_colon(&self, key: &Node) -> Option<usize> {
        let end = self.end(key.span);
        let colon = self.text[end..].find(|c: char| !c.is_whitespace())? + end;
        self.text[colon..].starts_with(':').then_some(colon + 1)
    }

    fn replaced(&self, node: &Node, key: Option<&Node>, wanted: Wanted<'_>) -> Vec<String> {
        if node.text() == Some("") && matches!(node.kind, Kind::Scalar(_, Style::Plain)) {
            let at = key.and_then(|key| self.after_colon(key));
            let new = writings(wanted, None, self.flow);
            let new = new.iter().map(|value| format!(" {value}"));
            return at.map_or_else(Vec::new, |at| {
                new.map(|v| self.splice(at, at, &v)).collect()
            });
        }
        let Some((start, end)) = self.scalar_range(node, key) else {
            return Vec::new();
        };
        let new = writings(wanted, self.text[start..].chars().next(), self.flow);
        new.iter().map(|v| self.splice(start, end, v)).collect()
    }

    /// Returns where a scalar stands, its quotes or the header of its block included.
    ///
    /// The parser's own end of a quoted one lies behind a comment, and its start of a block is that of the content.
    fn scalar_range(&self, node: &Node, key: Option<&Node>) -> Option<(usize, usize)> {
        let start = self.start(node.span);
        let rest = &self.text[start..];
        match (&node.kind, rest.chars().next()) {
            (_, Some('*')) => Some((start, self.end(node.span))),
            (Kind::Scalar(_, Style::Plain), _) => {
                let end = self.end(node.span);
                let text = &self.text[start..end];
                let comment = text.find(" #").or_else(|| text.find("\t#"));
                let text = text[..comment.unwrap_or(text.len())].trim_end();
                Some((start, start + text.len()))
            }
            (_, Some(quote @ ('"' | '\''))) => {
                let mut inner = rest.char_indices().skip(1).peekable();
                while let Some((at, c)) = inner.next() {
                    if c == '\\' && quote == '"' {
                        inner.next();
                    } else if c == quote {
                        // Two single quotes are one that does not close.
                        let twice = c == '\'' && inner.next_if(|(_, c)| *c == '\'').is_some();
                        if !twice {
                            return Some((start, start + at + 1));
                        }
                    }
                }
                None
            }
            _ => {
                let after = self.after_colon(key?)?;
                let header = self.text[after..self.line_end(after)].find(['|', '>'])? + after;
                Some((header, self.block_end(header, key)))
            }
        }
    }

    /// Returns the end of the last line of a block scalar: what is indented deeper than its key.
    fn block_end(&self, header: usize, key: Option<&Node>) -> usize {
        let outer = key.map_or(0, |key| key.span.column as usize - 1);
        let first = self.line_end(header);
        let mut end = first;
        for start in self.lines.iter().filter(|start| **start > first) {
            let line = &self.text[*start..self.line_end(*start)];
            let indent = line.len() - line.trim_start_matches(' ').len();
            if !line.trim().is_empty() {
                if indent <= outer {
                    break;
                }
                end = start + line.len();
            }
        }
        end
    }

    /// Returns where the text of a value ends.
    fn end_of(&self, node: &Node, key: Option<&Node>) -> usize {
        let start = self.start(node.span);
        let first = self.text[start..].chars().next();
        match &node.kind {
            // An alias has the span of its name, and what it stands for is elsewhere.
            _ if first == Some('*') => self.end(node.span),
            Kind::Scalar(text, Style::Plain) if text.is_empty() => {
                let after = key.and_then(|key| self.after_colon(key));
                after.unwrap_or(start)
            }
            Kind::Scalar(..) => self.scalar_range(node, key).map_or(start, |(_, end)| end),
            _ if matches!(first, Some('{' | '[')) => self.flow_end(start),
            Kind::Mapping(entries) => entries
                .last()
                .map_or(start, |(key, value)| self.end_of(value, Some(key))),
            Kind::Sequence(items) => items.last().map_or(start, |item| self.end_of(item, None)),
        }
    }

    /// Finds the bracket that closes the one at `start`.
    fn flow_end(&self, start: usize) -> usize {
        let (mut depth, mut quote, mut before) = (0usize, None, ' ');
        let mut rest = self.text[start..].char_indices();
        while let Some((at, c)) = rest.next() {
            match (quote, c) {
                (Some('"'), '\\') => {
                    rest.next();
                }
                (Some(open), _) if open == c => quote = None,
                (Some('#'), '\n' | '\r') => quote = None,
                (Some(_), _) => {}
                // A quote in the middle of a word is none.
                (None, '"' | '\'') if before.is_whitespace() || "{[,:".contains(before) => {
                    quote = Some(c);
                }
                (None, '#') if before.is_whitespace() => quote = Some('#'),
                (None, '{' | '[') => depth += 1,
                (None, '}' | ']') => {
                    depth -= 1;
                    if depth == 0 {
                        return start + at + 1;
                    }
                }
                (None, _) => {}
            }
            before = c;
        }
        self.text.len()
    }

    fn inserted(
        &self,
        node: &Node,
        key: Option<&Node>,
        rest: &[&str],
        wanted: Wanted<'_>,
    ) -> Vec<String> {
        let start = self.start(node.span);
        let flow = |values: Vec<String>| -> Vec<String> {
            let one = |value: String| {
                let inner = rest[1..].iter().rev();
                let value = inner.fold(value, |v, k| format!("{{ {}: {v} }}", key_text(k, true)));
                format!("{}: {value}", key_text(rest[0], true))
            };
            values.into_iter().map(one).collect()
        };
        let block = |values: Vec<String>, indent: usize| -> Vec<String> {
            let one = |value: String| {
                let mut out = String::new();
                for (depth, part) in rest.iter().enumerate() {
                    out.push_str(self.newline());
                    out.push_str(&" ".repeat(indent + 2 * depth));
                    out.push_str(&key_text(part, false));
                    out.push(':');
                }
                format!("{out} {value}")
            };
            values.into_iter().map(one).collect()
        };
        let put = |from: usize, to: usize, all: Vec<String>| -> Vec<String> {
            all.iter().map(|new| self.splice(from, to, new)).collect()
        };
        match node.entries().last() {
            Some((last, value)) if opens_flow(node, self.text, &self.lines) => {
                let at = self.end_of(value, Some(last));
                let new = flow(writings(wanted, None, true));
                put(at, at, new.iter().map(|v| format!(", {v}")).collect())
            }
            Some((last, value)) => {
                let at = self.line_end(self.end_of(value, Some(last)));
                let indent = last.span.column as usize - 1;
                put(at, at, block(writings(wanted, None, false), indent))
            }
            None if node.is_mapping() => {
                let new = flow(writings(wanted, None, true));
                let new = new.iter().map(|v| format!("{{ {v} }}")).collect();
                put(start, self.flow_end(start), new)
            }
            None if node.text() == Some("") => {
                let Some(at) = key.and_then(|key| self.after_colon(key)) else {
                    return Vec::new();
                };
                if self.flow {
                    let new = flow(writings(wanted, None, true));
                    return put(at, at, new.iter().map(|v| format!(" {{ {v} }}")).collect());
                }
                let indent = key.map_or(0, |key| key.span.column as usize - 1) + 2;
                let at = self.line_end(at);
                put(at, at, block(writings(wanted, None, false), indent))
            }
            None => {
                let new = flow(writings(wanted, None, true));
                let new = new.iter().map(|v| format!("{{ {v} }}")).collect();
                put(start, self.end(node.span), new)
            }
        }
    }
}

/// Writes a key.
fn key_text(key: &str, flow: bool) -> String {
    if is_plain(key, flow) {
        key.to_owned()
    } else {
        quoted(key)
    }
}

/// Returns the ways to write a value, the one that is nearest to what stood there first.
fn writings(wanted: Wanted<'_>, first: Option<char>, flow: bool) -> Vec<String> {
    let (text, as_written) = match wanted {
        Wanted::Literal(text) => return vec![text.to_owned()],
        Wanted::Text(text) => (text, false),
        Wanted::Written(text) => (text, true),
    };
    // A number of digits that is taken as written stays plain where the one before was plain.
    let was_plain = first.is_some_and(|c| !matches!(c, '"' | '\'' | '|' | '>'));
    let plain = is_plain(text, flow) || as_written && was_plain && is_safe(text, flow);
    let plain = plain.then(|| text.to_owned());
    let single = (!text.chars().any(is_special)).then(|| format!("'{}'", text.replace('\'', "''")));
    let double = Some(quoted(text));
    let order = match first {
        Some('"') => [double, single, plain],
        Some('\'') => [single, double, plain],
        _ => [plain, single, double],
    };
    order.into_iter().flatten().collect()
}

/// Tells whether no reader, of YAML 1.1 or 1.2, takes a plain scalar for anything but this text.
fn is_plain(text: &str, flow: bool) -> bool {
    let bare = text.trim_start_matches(['+', '-']);
    let like_a_number = bare.parse::<f64>().is_ok()
        || ["0o", "0x", "0b"].iter().any(|p| bare.starts_with(p))
        || bare.replace('_', "").parse::<f64>().is_ok();
    let is_word = ["y", "n", "null", "nan", "inf"].contains(&text.to_ascii_lowercase().as_str());
    // A date is a text here, and not to others.
    let like_a_date = text.len() >= 8
        && text.starts_with(|c: char| c.is_ascii_digit())
        && text
            .bytes()
            .take(10)
            .all(|b| b.is_ascii_digit() || b == b'-')
        && text.contains('-');
    is_safe(text, flow)
        && !like_a_number
        && !is_word
        && !like_a_date
        && matches!(resolve(text, Style::Plain, None), Scalar::Text(_))
}

/// Tells whether a text can stand without quotes.
fn is_safe(text: &str, flow: bool) -> bool {
    let first = text.chars().next();
    first.is_some_and(|c| c.is_alphanumeric() || "/_.$(+".contains(c))
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.chars().any(is_special)
        && (!flow || !text.contains([',', '[', ']', '{', '}', ':']))
        && text != "<<"
}

fn is_special(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{FEFF}' | '\u{2028}' | '\u{2029}' | '\u{85}' | '\u{FFFE}' | '\u{FFFF}'
        )
}

/// Writes a text with double quotes, so that it is one line.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_special(c) => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Tells whether a document is the old one with just this scalar changed or added.
fn changed_only(old: &Node, new: &Node, path: &[&str], wanted: Wanted<'_>) -> bool {
    let Some((part, rest)) = path.split_first() else {
        return old.tag == new.tag
            && matches!(old.kind, Kind::Scalar(..))
            && matches!(new.kind, Kind::Scalar(..))
            && wanted.is(new);
    };
    match (&old.kind, &new.kind) {
        (Kind::Mapping(before), Kind::Mapping(after)) => {
            let at = before.iter().position(|(k, _)| k.text() == Some(part));
            let kept = before.iter().zip(after).enumerate().all(|(i, (old, new))| {
                is_same(&old.0, &new.0)
                    && match at == Some(i) {
                        true => changed_only(&old.1, &new.1, rest, wanted),
                        false => is_same(&old.1, &new.1),
                    }
            });
            let more = after.len() - before.len().min(after.len());
            let fine = match (at, more) {
                (Some(_), 0) => before.len() == after.len(),
                (None, 1) => after
                    .last()
                    .is_some_and(|(k, v)| k.text() == Some(part) && is_made(v, rest, wanted)),
                _ => false,
            };
            fine && old.tag == new.tag && kept
        }
        (Kind::Sequence(before), Kind::Sequence(after)) => {
            let at = part.parse::<usize>().ok();
            let pairs = before.iter().zip(after).enumerate();
            before.len() == after.len()
                && old.tag == new.tag
                && at.is_some_and(|at| at < before.len())
                && pairs.into_iter().all(|(i, (v, w))| match at == Some(i) {
                    true => changed_only(v, w, rest, wanted),
                    false => is_same(v, w),
                })
        }
        (Kind::Scalar(..), Kind::Mapping(_)) => old.is_null() && is_made(new, path, wanted),
        _ => false,
    }
}

/// Tells whether a value is nothing but this path of keys with the scalar at its end.
fn is_made(node: &Node, path: &[&str], wanted: Wanted<'_>) -> bool {
    match (path.split_first(), node.entries()) {
        (None, _) => wanted.is(node),
        (Some((part, rest)), [(key, value)]) => {
            key.text() == Some(part) && is_made(value, rest, wanted)
        }
        _ => false,
    }
}

fn is_same(one: &Node, other: &Node) -> bool {
    one.tag == other.tag
        && match (&one.kind, &other.kind) {
            (Kind::Scalar(a, s), Kind::Scalar(b, t)) => a == b && s == t,
            (Kind::Sequence(a), Kind::Sequence(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(v, w)| is_same(v, w))
            }
            (Kind::Mapping(a), Kind::Mapping(b)) => {
                a.len() == b.len()
                    && a.iter()
                        .zip(b)
                        .all(|((k, v), (l, w))| is_same(k, l) && is_same(v, w))
            }
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(text: &str, path: &str, wanted: Wanted<'_>) -> Result<String, String> {
        let parts: Vec<&str> = path.split('/').collect();
        set_scalar("f.yaml", text, &Limits::SPEC, &parts, wanted)
            .map_err(|findings| findings[0].code.clone())
    }

    #[test]
    fn a_scalar_is_changed_where_it_stands_and_its_style_is_kept() {
        let text = "# head\na: 1   # one\nb: 'x' # two\nc: \"y\"\nd: plain text # three\ne: {f: 1, 'g': [1, two]}\n";
        for (path, wanted, from, to) in [
            ("a", Wanted::Literal("22"), "a: 1 ", "a: 22 "),
            ("a", Wanted::Text("22"), "a: 1 ", "a: '22' "),
            ("b", Wanted::Text("it's"), "'x'", "'it''s'"),
            ("b", Wanted::Text("a\nb"), "'x'", "\"a\\nb\""),
            ("c", Wanted::Text("no"), "\"y\"", "\"no\""),
            ("c", Wanted::Literal("true"), "\"y\"", "true"),
            ("d", Wanted::Text("no"), "plain text", "'no'"),
            ("d", Wanted::Text("a: b"), "plain text", "'a: b'"),
            ("d", Wanted::Text("repo/x:1.2"), "plain text", "repo/x:1.2"),
            ("d", Wanted::Text("1e3"), "plain text", "'1e3'"),
            (
                "d",
                Wanted::Text("2024-01-01"),
                "plain text",
                "'2024-01-01'",
            ),
            ("e/f", Wanted::Literal("3"), "f: 1", "f: 3"),
            ("e/g/1", Wanted::Text("x,y"), "two]", "'x,y']"),
        ] {
            assert_eq!(
                set(text, path, wanted),
                Ok(text.replacen(from, to, 1)),
                "{path}"
            );
        }
    }

    #[test]
    fn what_is_taken_as_written_stays_as_it_was_written() {
        let text = "a: 012345678901\nb: \"5\"\n";
        assert_eq!(
            set(text, "a", Wanted::Written("012345678902")).unwrap(),
            "a: 012345678902\nb: \"5\"\n"
        );
        assert_eq!(
            set(text, "b", Wanted::Written("6")).unwrap(),
            "a: 012345678901\nb: \"6\"\n"
        );
        assert_eq!(
            set(text, "c", Wanted::Written("022")).unwrap(),
            "a: 012345678901\nb: \"5\"\nc: '022'\n"
        );
        assert_eq!(
            set("a: 1\n", "a", Wanted::Written("~")).unwrap(),
            "a: '~'\n"
        );
    }

    #[test]
    fn a_block_is_replaced_whole() {
        let text = "a:\n  b: |-\n    one\n\n    two\n\n  # after\n  c: 1\n";
        assert_eq!(
            set(text, "a/b", Wanted::Text("three")).unwrap(),
            "a:\n  b: three\n\n  # after\n  c: 1\n"
        );
    }

    #[test]
    fn a_missing_key_goes_behind_its_last_sibling() {
        for (text, path, expected) in [
            (
                "a:\n  b: 1 # x\n# y\nc: 2\n",
                "a/d",
                "a:\n  b: 1 # x\n  d: 7\n# y\nc: 2\n",
            ),
            ("a:\n  b: 1", "a/d", "a:\n  b: 1\n  d: 7"),
            (
                "a:\r\n  b: 1\r\nc: 1\r\n",
                "a/d",
                "a:\r\n  b: 1\r\n  d: 7\r\nc: 1\r\n",
            ),
            ("a: {b: 1}\n", "a/d", "a: {b: 1, d: 7}\n"),
            (
                "a: {b: {c: 'x}'}} # }\n",
                "a/d",
                "a: {b: {c: 'x}'}, d: 7} # }\n",
            ),
            ("a: {b: it's}\n", "a/d", "a: {b: it's, d: 7}\n"),
            ("a: {}\n", "a/d", "a: { d: 7 }\n"),
            ("a:\nb: 1\n", "a/d", "a:\n  d: 7\nb: 1\n"),
            ("a: ~\n", "a/d", "a: { d: 7 }\n"),
            ("a:\n  b: 1\n", "a/d/e", "a:\n  b: 1\n  d:\n    e: 7\n"),
            (
                "- n: x\n  e: y\n- n: z\n",
                "0/d",
                "- n: x\n  e: y\n  d: 7\n- n: z\n",
            ),
            (
                "a:\n  b: |\n    x\n\nc: 1\n",
                "a/d",
                "a:\n  b: |\n    x\n  d: 7\n\nc: 1\n",
            ),
            (
                "a:\n  b: [1,\n    2]\n",
                "a/d",
                "a:\n  b: [1,\n    2]\n  d: 7\n",
            ),
            ("a:\n  b:\n", "a/d", "a:\n  b:\n  d: 7\n"),
            ("a:\n  <<: *x\n", "a/d", ""),
            (
                "x: &x {b: 1}\na:\n  <<: *x\n",
                "a/b",
                "x: &x {b: 1}\na:\n  <<: *x\n  b: 7\n",
            ),
        ] {
            let found = set(text, path, Wanted::Literal("7")).unwrap_or_default();
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(set("a:\n", "a", Wanted::Literal("7")).unwrap(), "a: 7\n");
    }

    #[test]
    fn what_cannot_be_changed_alone_is_refused() {
        for (text, path, code) in [
            ("a: &x 1\nb: *x\n", "a", "set.shared"),
            ("x: &x {b: 1}\na: *x\n", "a/b", "set.shared"),
            ("a: [1, 2]\n", "a", "set.scalar"),
            ("a: {b: 1}\n", "a", "set.scalar"),
            ("a: 1\n", "a/b", "set.scalar"),
            ("a: [1]\n", "a/4", "set.scalar"),
            ("a: [\n", "a", "yaml.syntax"),
        ] {
            assert_eq!(
                set(text, path, Wanted::Literal("7")),
                Err(code.into()),
                "{text}"
            );
        }
        // An alias itself can be replaced: nobody else has this one.
        let alias = set("a: &x 1\nb: *x\n", "b", Wanted::Literal("7"));
        assert_eq!(alias.unwrap(), "a: &x 1\nb: 7\n");
    }

    /// A document of mappings with comments, in the styles that people use.
    fn document() -> impl Strategy<Value = String> {
        let value = prop_oneof![
            "[a-z]{1,6}",
            "[0-9]{1,5}",
            "'[a-z #:]{0,6}'",
            "\"[a-z #:]{0,6}\"",
            Just("[1, two]".to_owned()),
            Just("{x: 1, y: 'b'}".to_owned()),
            Just("|\n    one\n    two".to_owned()),
            Just(String::new()),
        ];
        let comment = prop_oneof![Just(String::new()), "  # [a-z:{}'\"]{0,8}"];
        proptest::collection::vec((value, comment), 1..8).prop_map(|all| {
            let mut out = "top: 1 # é\nm:\n".to_owned();
            for (n, (value, comment)) in all.iter().enumerate() {
                let comment = if value.starts_with('|') { "" } else { comment };
                out.push_str(&format!("  k{n}: {value}{comment}\n"));
            }
            out + "# between\nlast: end\n"
        })
    }

    proptest! {
        #[test]
        fn only_the_scalar_moves_and_it_reads_as_it_was_given(
            text in document(),
            number in 0usize..8,
            value in "\\PC{0,12}|[ -~]{0,8}|[0-9xob.e_:+-]{1,6}|[a-z\n\t]{0,6}",
        ) {
            let key = format!("k{number}");
            let path = ["m", key.as_str()];
            let wanted = Wanted::Text(&value);
            let Ok(new) = set_scalar("f", &text, &Limits::SPEC, &path, wanted) else {
                // Lists and mappings are no scalars; nothing else is refused.
                let line = text.lines().find(|l| l.starts_with(&format!("  {key}:"))).unwrap();
                prop_assert!(line.contains('[') || line.contains('{'), "{text}");
                return Ok(());
            };
            let node = parse("f", &new, &Limits::SPEC).unwrap();
            let read = node.follow(path);
            prop_assert_eq!(read.scalar(), Some(Scalar::Text(value.clone())));
            // What is the same at both ends is all but one line: a block is the only value of more.
            let before: Vec<&str> = text.lines().collect();
            let after: Vec<&str> = new.lines().collect();
            let same = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
            let tail = before.iter().rev().zip(after.iter().rev()).take_while(|(a, b)| a == b).count();
            prop_assert!(same + tail + 1 >= after.len(), "{text}\n---\n{new}");
            prop_assert!(same + tail + 3 >= before.len(), "{text}\n---\n{new}");
            // Setting it again changes nothing.
            let again = set_scalar("f", &new, &Limits::SPEC, &path, wanted).unwrap();
            prop_assert_eq!(again, new);
        }
    }
}
