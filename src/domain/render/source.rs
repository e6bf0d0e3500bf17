//! The template's source text: what is passed through, and where an error lies.

use similar::{ChangeTag, TextDiff};

use crate::domain::model::{Finding, Place, Span};

/// Lets `{{resolve:` stand for itself, and returns where that was done.
///
/// CloudFormation's dynamic references use Jinja's braces; stock Jinja refuses them for the colon.
pub(super) fn pass_dynamic_references(text: &str) -> (String, Vec<Span>) {
    let mut out = String::with_capacity(text.len());
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let taken = if rest.starts_with("{#") {
            rest.find("#}").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("{%") {
            let end = statement_end(rest, "%}");
            let word = rest[2..end].trim_start_matches(['-', '+']).trim_start();
            if word.starts_with("raw") {
                rest.find("endraw")
                    .map_or(rest.len(), |close| close + "endraw".len())
            } else {
                end
            }
        } else if rest.starts_with("{{resolve:") && found.len() < 1000 {
            let line = text[..at].matches('\n').count() as u32 + 1;
            let column = text[..at]
                .rsplit('\n')
                .next()
                .unwrap_or_default()
                .chars()
                .count() as u32
                + 1;
            found.push(Span::on_line(line, column, "{{resolve:".len() as u32));
            out.push_str("{{'{{resolve:'}}");
            at += "{{resolve:".len();
            continue;
        } else if rest.starts_with("{{") {
            statement_end(rest, "}}")
        } else {
            rest.char_indices().nth(1).map_or(rest.len(), |(i, _)| i)
        };
        out.push_str(&rest[..taken]);
        at += taken;
    }
    (out, found)
}

/// Finds the end of an expression or statement, past texts in quotes.
fn statement_end(rest: &str, close: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut quote = None;
    let mut i = 2;
    while i < bytes.len() {
        match (quote, bytes[i]) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), b'\\') => i += 1,
            (None, c @ (b'\'' | b'"')) => quote = Some(c),
            (None, _) if rest.is_char_boundary(i) && rest[i..].starts_with(close) => {
                return i + close.len();
            }
            _ => {}
        }
        i += 1;
    }
    rest.len()
}

/// Returns the range of the dotted name around an error: the engine's own begins at its first dot.
pub(super) fn name_range(text: &str, error: &minijinja::Error) -> Option<std::ops::Range<usize>> {
    let range = error
        .range()
        .filter(|r| r.start <= r.end && text.get(r.clone()).is_some())?;
    let before = &text[..range.start];
    let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '[' | ']' | '\'' | '"');
    let start = if text[range.start..].starts_with(['.', '[']) {
        before.trim_end_matches(part).len()
    } else {
        range.start
    };
    Some(start..range.end)
}

/// Returns the place of an error in the text as it was written.
pub(super) fn place(file: &str, prepared: &str, normal: &str, error: &minijinja::Error) -> Place {
    let span = match name_range(prepared, error) {
        Some(range) => {
            let line = prepared[..range.start].matches('\n').count() as u32 + 1;
            let before = prepared[..range.start]
                .rsplit('\n')
                .next()
                .unwrap_or_default();
            // Each reference that was passed through has grown by the six characters around it.
            let grown = before.matches("{{'{{resolve:'}}").count() * 6;
            let column = (before.chars().count() - grown) as u32 + 1;
            let width = prepared
                .get(range)
                .map_or(1, |t| t.lines().next().unwrap_or_default().chars().count());
            Span::on_line(line, column, width as u32)
        }
        None => Span::on_line(error.line().unwrap_or(1) as u32, 1, 1),
    };
    Place::at(file, span, normal)
}

/// Explains a refusal of the source check, which names its line in its text.
pub(super) fn refused(file: &str, normal: &str, error: &minijinja::Error) -> Finding {
    let text = error.detail().unwrap_or("the template is refused");
    let (line, message) = match text.strip_prefix("line ").and_then(|t| t.split_once(": ")) {
        Some((line, message)) => (line.parse().unwrap_or(1), message),
        None => (1, text),
    };
    let width = normal
        .lines()
        .nth(line as usize - 1)
        .map_or(1, |l| l.chars().count());
    Finding::error(
        "render.refused",
        Place::at(file, Span::on_line(line, 1, width as u32), normal),
        format!("the template is refused: {message}"),
    )
    .help("see docs/formats/rendering.md for what cannot be rendered exactly")
}

/// Maps lines of a rendered text to lines of its template, both counted from 1.
///
/// A line that came out as it stands maps to itself; a line that was rendered maps to the template line in the same
/// gap. What cannot be told maps to the line before it.
pub fn line_map(template: &str, rendered: &str) -> Vec<u32> {
    let diff = TextDiff::from_lines(template, rendered);
    let before_colon = |line| str::split(line, ':').next().unwrap_or_default().trim();
    let keys: Vec<&str> = template.lines().map(before_colon).collect();
    let mut map = Vec::new();
    let (mut last, mut gap): (u32, Vec<u32>) = (1, Vec::new());
    let mut used = 0usize;
    for change in diff.iter_all_changes() {
        match change.tag() {
            ChangeTag::Equal => {
                last = change.old_index().map_or(last, |i| i as u32 + 1);
                map.push(last);
                gap.clear();
                used = 0;
            }
            ChangeTag::Delete => gap.extend(change.old_index().map(|i| i as u32 + 1)),
            ChangeTag::Insert => {
                let wanted = change.value().split(':').next().unwrap_or_default().trim();
                let is_wanted =
                    |line: &u32| keys.get(*line as usize - 1).is_some_and(|k| *k == wanted);
                let same_key = gap.iter().skip(used).position(is_wanted);
                let index = same_key.map(|p| p + used);
                if let Some(index) = index {
                    used = index + 1;
                }
                map.push(
                    index
                        .and_then(|i| gap.get(i))
                        .or(gap.get(used.saturating_sub(1)))
                        .copied()
                        .unwrap_or(last),
                );
            }
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_references_pass_only_where_jinja_would_refuse_them() {
        for (text, expected, count) in [
            ("'{{resolve:ssm:x}}'", "'{{'{{resolve:'}}ssm:x}}'", 1),
            (
                "{% raw %}{{resolve:x}}{% endraw %}",
                "{% raw %}{{resolve:x}}{% endraw %}",
                0,
            ),
            ("{{ '{{resolve:x}}' }}", "{{ '{{resolve:x}}' }}", 0),
            ("{# {{resolve:x}} #}", "{# {{resolve:x}} #}", 0),
        ] {
            let (out, found) = pass_dynamic_references(text);
            assert_eq!((out.as_str(), found.len()), (expected, count), "{text}");
        }
    }

    #[test]
    fn rendered_lines_map_to_template_lines() {
        let template = "a: 1\n{% if x %}\nb: {{ y }}\n{% endif %}\nc: 3\n";
        let rendered = "a: 1\n\nb: 2\n\nc: 3\n";
        let map = line_map(template, rendered);
        assert_eq!((map[0], map[2], map[4]), (1, 3, 5), "{map:?}");
    }
}
