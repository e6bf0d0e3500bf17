//! Reading mappings of isoform's and Proton's files, with every fault collected.

use std::time::Duration;

use crate::domain::model::{Finding, Place, closest, parse_duration};
use crate::domain::yaml::Node;

/// How many findings of one file are kept: more are read by nobody, and each costs its place in the text.
const FINDINGS: usize = 1_000;

/// Collects findings while the fields of one file are read.
pub struct Fields<'a> {
    file: &'a str,
    text: &'a str,
    /// What was found so far.
    pub findings: Vec<Finding>,
    errors: usize,
}

impl<'a> Fields<'a> {
    /// Starts reading a file.
    pub fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            findings: Vec::new(),
            errors: 0,
        }
    }

    /// Returns the place of a node.
    pub fn at(&self, node: &Node) -> Place {
        Place::at(self.file, node.span, self.text)
    }

    /// Adds a finding, unless there are too many already.
    pub fn push(&mut self, finding: Finding) {
        self.errors += usize::from(finding.is_error());
        if !self.is_full() {
            self.findings.push(finding);
        }
    }

    /// Adds an error at a node, unless there are too many already.
    pub fn error(&mut self, code: &str, node: &Node, message: impl Into<String>) {
        self.errors += 1;
        if !self.is_full() {
            let finding = Finding::error(code, self.at(node), message);
            self.findings.push(finding);
        }
    }

    /// Returns how many errors there were, those that are not kept among them.
    pub fn errors(&self) -> usize {
        self.errors
    }

    fn is_full(&self) -> bool {
        self.findings.len() >= FINDINGS
    }

    /// Reports every key that is not known, with the nearest that is.
    pub fn known(&mut self, node: &Node, what: &str, names: &[&str]) {
        for (key, _) in node.entries() {
            let name = key.key_text();
            if !names.contains(&name.as_str()) {
                self.errors += 1;
                if self.is_full() {
                    continue;
                }
                let mut finding = Finding::error(
                    "key.unknown",
                    self.at(key),
                    format!("`{}` is not a key of {what}", name.escape_debug()),
                );
                finding.help = Some(closest(&name, names.iter().copied()).map_or_else(
                    || format!("known are {}", names.join(", ")),
                    |c| format!("did you mean `{c}`?"),
                ));
                self.findings.push(finding);
            }
        }
    }

    /// Returns a mapping under a key; reports anything else.
    pub fn mapping<'n>(&mut self, node: &'n Node, key: &str) -> Option<&'n Node> {
        let value = node.get(key).filter(|v| !v.is_null())?;
        if value.is_mapping() {
            Some(value)
        } else {
            self.error(
                "key.type",
                value,
                format!("`{key}` must be a mapping, this is {}", value.type_name()),
            );
            None
        }
    }

    /// Returns a list under a key; reports anything else.
    pub fn list<'n>(&mut self, node: &'n Node, key: &str) -> &'n [Node] {
        match node.get(key) {
            None => &[],
            Some(value) if value.is_sequence() => value.items(),
            Some(value) if value.is_null() => &[],
            Some(value) => {
                self.error(
                    "key.type",
                    value,
                    format!("`{key}` must be a list, this is {}", value.type_name()),
                );
                &[]
            }
        }
    }

    /// Returns a text under a key, as written: an account id or `22:00` stays text.
    pub fn text(&mut self, node: &Node, key: &str) -> Option<String> {
        let value = node.get(key)?;
        match value.string() {
            Some(text) => Some(text.to_owned()),
            None => {
                self.error(
                    "key.type",
                    value,
                    format!("`{key}` must be a text, this is {}", value.type_name()),
                );
                None
            }
        }
    }

    /// Returns a text that must be there.
    pub fn required(&mut self, node: &Node, key: &str, what: &str) -> Option<String> {
        if node.get(key).is_none() {
            self.error("key.missing", node, format!("{what} lacks `{key}`"));
            return None;
        }
        self.text(node, key)
    }

    /// Returns the texts of a list under a key.
    pub fn texts(&mut self, node: &Node, key: &str) -> Vec<String> {
        let items: Vec<Node> = self.list(node, key).to_vec();
        let mut out = Vec::new();
        for item in &items {
            match item.string() {
                Some(text) => out.push(text.to_owned()),
                None => self.error(
                    "key.type",
                    item,
                    format!(
                        "an item of `{key}` must be a text, this is {}",
                        item.type_name()
                    ),
                ),
            }
        }
        out
    }

    /// Returns the texts of a mapping under a key.
    pub fn text_map(&mut self, node: &Node, key: &str) -> Vec<(String, String)> {
        let Some(map) = self.mapping(node, key).cloned() else {
            return Vec::new();
        };
        let mut out = Vec::new();
        for (k, v) in map.entries() {
            match v.text() {
                Some(text) => out.push((k.key_text(), text.to_owned())),
                None => self.error(
                    "key.type",
                    v,
                    format!(
                        "`{}` must be a text, this is {}",
                        k.key_text(),
                        v.type_name()
                    ),
                ),
            }
        }
        out
    }

    /// Returns a boolean under a key.
    pub fn boolean(&mut self, node: &Node, key: &str) -> Option<bool> {
        let value = node.get(key)?;
        match value.to_json().as_bool() {
            Some(b) => Some(b),
            None => {
                self.error("key.type", value, format!("`{key}` must be true or false"));
                None
            }
        }
    }

    /// Returns a whole number under a key, within bounds.
    pub fn number(&mut self, node: &Node, key: &str, least: u64, most: u64) -> Option<u64> {
        let value = node.get(key)?;
        match value.to_json().as_u64() {
            Some(n) if (least..=most).contains(&n) => Some(n),
            _ => {
                self.error(
                    "key.type",
                    value,
                    format!("`{key}` must be a whole number from {least} to {most}"),
                );
                None
            }
        }
    }

    /// Returns a duration under a key.
    pub fn duration(&mut self, node: &Node, key: &str) -> Option<Duration> {
        let value = node.get(key)?;
        match parse_duration(value.text().unwrap_or_default()) {
            Ok(duration) => Some(duration),
            Err(message) => {
                self.error("key.duration", value, message);
                None
            }
        }
    }

    /// Returns a parsed text under a key.
    pub fn parsed<T: std::str::FromStr>(&mut self, node: &Node, key: &str) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.text(node, key)?;
        self.parse_at(node.get(key)?, &text)
    }

    /// Parses a text that stands at a node.
    pub fn parse_at<T: std::str::FromStr>(&mut self, node: &Node, text: &str) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.error("key.value", node, error.to_string());
                None
            }
        }
    }

    /// Returns a path inside the repository: relative, with `/`, without `..`. A leading `./` is dropped.
    pub fn path(&mut self, node: &Node, key: &str) -> Option<String> {
        let text = self.text(node, key)?;
        let value = node.get(key)?;
        let clean = text
            .strip_prefix("./")
            .unwrap_or(&text)
            .trim_end_matches('/')
            .to_owned();
        if clean.is_empty()
            || clean.starts_with('/')
            || clean.contains('\\')
            || clean.contains('\0')
            || clean
                .split('/')
                .any(|p| p == ".." || p == "." || p.is_empty())
        {
            self.error(
                "key.path",
                value,
                format!(
                    "`{}` is not a path inside the repository",
                    text.escape_debug()
                ),
            );
            return None;
        }
        Some(clean)
    }
}
