//! What is wrong with a file, where, and what to do about it.

use serde::{Deserialize, Serialize};

/// A range in a file. Lines and columns count from 1, columns in characters; the end is exclusive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Span {
    /// First line.
    pub line: u32,
    /// First column.
    pub column: u32,
    /// Line of the end.
    pub end_line: u32,
    /// Column after the last character.
    pub end_column: u32,
}

impl Span {
    /// Makes a span on one line.
    pub fn on_line(line: u32, column: u32, width: u32) -> Self {
        Self {
            line,
            column,
            end_line: line,
            end_column: column + width.max(1),
        }
    }
}

/// A range in a named file, with the line it begins on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Place {
    /// Path inside the repository or bundle, with `/`.
    pub file: String,
    /// Where in it; absent where the whole file is meant.
    pub span: Option<Span>,
    /// The text of the first line, so that the finding can be shown where the file is not at hand.
    pub excerpt: Option<String>,
}

impl Place {
    /// Names a whole file.
    pub fn file(file: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            span: None,
            excerpt: None,
        }
    }

    /// Names a range, and takes the excerpt from the file's text.
    pub fn at(file: impl Into<String>, span: Span, text: &str) -> Self {
        let excerpt =
            line_of(text, span.line as usize).map(|line| line.chars().take(400).collect());
        Self {
            file: file.into(),
            span: Some(span),
            excerpt,
        }
    }
}

/// Returns a line as readers of YAML count them: they end in `\n`, `\r\n` or `\r`.
fn line_of(text: &str, number: usize) -> Option<&str> {
    let mut rest = text;
    for _ in 1..number {
        let end = rest.find(['\n', '\r'])?;
        let width = if rest[end..].starts_with("\r\n") {
            2
        } else {
            1
        };
        rest = &rest[end + width..];
    }
    rest.split(['\n', '\r']).next()
}

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The thing that the file describes cannot be used.
    Error,
    /// It can be used, and something about it will surprise.
    Warning,
}

/// A second place that explains the first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Related {
    /// Where.
    pub place: Place,
    /// What stands there.
    pub label: String,
}

/// One fault or warning: where, what, and what to do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A stable code such as `schema.maximum`.
    pub code: String,
    /// What is wrong, one sentence.
    pub message: String,
    /// Where.
    pub place: Place,
    /// The words under the marked range.
    pub label: String,
    /// Places that explain it.
    pub related: Vec<Related>,
    /// What to do.
    pub help: Option<String>,
}

impl Finding {
    /// Makes an error.
    pub fn error(code: &str, place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code: code.into(),
            message: message.into(),
            place,
            label: String::new(),
            related: Vec::new(),
            help: None,
        }
    }

    /// Makes a warning.
    pub fn warning(code: &str, place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, place, message)
        }
    }

    /// Adds what to do.
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Adds the words under the marked range.
    pub fn label(mut self, text: impl Into<String>) -> Self {
        self.label = text.into();
        self
    }

    /// Adds a place that explains it.
    pub fn related(mut self, place: Place, label: impl Into<String>) -> Self {
        self.related.push(Related {
            place,
            label: label.into(),
        });
        self
    }

    /// Tells whether it is an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Longer words are no misspelt names, and comparing them costs the product of their lengths.
const LONGEST_NAME: usize = 128;

/// Returns the candidate that is most like `word`, if one is near enough to be meant.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST_NAME {
        return None;
    }
    candidates
        .into_iter()
        .filter(|c| c.len() <= LONGEST_NAME)
        .take(1_000)
        .map(|c| (similarity(word, c), c))
        .filter(|(s, _)| *s >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

fn similarity(a: &str, b: &str) -> f64 {
    let diff = similar::TextDiff::from_chars(a, b);
    f64::from(diff.ratio())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_the_line_whatever_ends_it() {
        let excerpt = |line| Place::at("f", Span::on_line(line, 1, 1), "a\rb\r\nc\nd").excerpt;
        for (line, text) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
            assert_eq!(excerpt(line).as_deref(), Some(text));
        }
        assert_eq!(excerpt(5), None);
    }

    #[test]
    fn the_closest_name_is_offered_only_when_near() {
        assert_eq!(
            closest("ClusterName", ["ClusterArn", "VpcId"]),
            Some("ClusterArn")
        );
        assert_eq!(closest("zzz", ["ClusterArn", "VpcId"]), None);
        let long = "x".repeat(1 << 20);
        assert_eq!(closest(&long, [long.as_str()]), None);
    }
}
