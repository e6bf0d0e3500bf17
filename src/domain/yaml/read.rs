//! From text to a tree, under limits.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span as ScanSpan, Tag};

use super::{Kind, Node, Style};
use crate::domain::model::{Finding, Place, Span};

/// What a file may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest text in bytes.
    pub bytes: usize,
    /// Deepest nesting.
    pub depth: usize,
    /// Most nodes, counted after aliases are put in.
    pub nodes: usize,
    /// Whether local tags such as `!Ref` are allowed: in CloudFormation templates only.
    pub tags: bool,
}

impl Limits {
    /// Limits for specs, manifests, schemas and isoform's own files. Proton: 51,200 characters for each.
    pub const SPEC: Self = Self {
        bytes: 51_200,
        depth: 64,
        nodes: 20_000,
        tags: false,
    };
    /// Limits for the sync file and its fragments, which describe whole estates.
    pub const SYNC: Self = Self {
        bytes: 4 << 20,
        depth: 32,
        nodes: 400_000,
        tags: false,
    };
    /// Limits for CloudFormation templates: 1 MB is the service's own limit.
    pub const TEMPLATE: Self = Self {
        bytes: 1 << 20,
        depth: 64,
        nodes: 200_000,
        tags: true,
    };
}

/// Reads one YAML document.
///
/// Returns every fault that can be told apart; at the first fault of syntax nothing after it can be read. An empty
/// file is a null.
pub fn parse(file: &str, text: &str, limits: &Limits) -> Result<Node, Vec<Finding>> {
    if text.len() > limits.bytes {
        let message = format!(
            "the file has {} bytes, at most {} are read",
            text.len(),
            limits.bytes
        );
        return Err(vec![Finding::error(
            "yaml.size",
            Place::file(file),
            message,
        )]);
    }
    let mut reader = Reader {
        file,
        text,
        limits,
        nodes: 0,
        anchors: HashMap::new(),
        findings: Vec::new(),
    };
    let mut parser = Parser::new_from_str(text);
    match reader.document(&mut parser) {
        Ok(node) if reader.findings.is_empty() => Ok(node),
        Ok(_) => Err(reader.findings),
        Err(finding) => {
            reader.findings.push(*finding);
            Err(reader.findings)
        }
    }
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    limits: &'a Limits,
    nodes: usize,
    anchors: HashMap<usize, Node>,
    findings: Vec<Finding>,
}

type Events<'a> = Parser<'a, saphyr_parser::StrInput<'a>>;
type Stop = Box<Finding>;

impl<'a> Reader<'a> {
    fn document(&mut self, parser: &mut Events<'a>) -> Result<Node, Stop> {
        let mut root = None;
        loop {
            let (event, span) = self.next(parser)?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::DocumentStart(_) => {
                    if root.is_some() {
                        return Err(self.stop(
                            "yaml.documents",
                            convert(&span),
                            "the file holds more than one document",
                            None,
                        ));
                    }
                }
                other => root = Some(self.node(parser, other, span, 0)?),
            }
        }
        Ok(root.unwrap_or(Node {
            span: Span::on_line(1, 1, 1),
            tag: None,
            kind: Kind::Scalar(String::new(), Style::Plain),
        }))
    }

    fn next(&self, parser: &mut Events<'a>) -> Result<(Event<'a>, ScanSpan), Stop> {
        match parser.next_event() {
            Some(Ok(pair)) => Ok(pair),
            None => Ok((Event::StreamEnd, ScanSpan::default())),
            Some(Err(error)) => {
                let mark = error.marker();
                let span = Span::on_line(mark.line().max(1) as u32, mark.col() as u32 + 1, 1);
                Err(self.stop(
                    "yaml.syntax",
                    span,
                    &format!("this is not YAML: {}", error.info()),
                    None,
                ))
            }
        }
    }

    fn stop(&self, code: &str, span: Span, message: &str, help: Option<&str>) -> Stop {
        let finding = Finding::error(code, Place::at(self.file, span, self.text), message);
        Box::new(match help {
            Some(help) => finding.help(help),
            None => finding,
        })
    }

    fn count(&mut self, more: usize, span: Span) -> Result<(), Stop> {
        self.nodes += more;
        if self.nodes > self.limits.nodes {
            let message = format!(
                "the file has more than {} nodes, aliases counted as what they stand for",
                self.limits.nodes
            );
            return Err(self.stop("yaml.size", span, &message, None));
        }
        Ok(())
    }

    fn node(
        &mut self,
        parser: &mut Events<'a>,
        event: Event<'a>,
        at: ScanSpan,
        depth: usize,
    ) -> Result<Node, Stop> {
        let span = convert(&at);
        if depth >= self.limits.depth {
            return Err(self.stop(
                "yaml.depth",
                span,
                &format!("nested deeper than {} levels", self.limits.depth),
                None,
            ));
        }
        self.count(1, span)?;
        let (node, anchor) = match event {
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    return Err(self.stop(
                        "yaml.alias",
                        span,
                        "this alias names an anchor that is not complete here",
                        None,
                    ));
                };
                self.count(size(&node), span)?;
                return Ok(Node { span, ..node });
            }
            Event::Scalar(text, style, anchor, tag) => {
                let style = if style == ScalarStyle::Plain {
                    Style::Plain
                } else {
                    Style::Quoted
                };
                let tag = self.tag(tag.as_deref(), span);
                (
                    Node {
                        span,
                        tag,
                        kind: Kind::Scalar(text.into_owned(), style),
                    },
                    anchor,
                )
            }
            Event::SequenceStart(anchor, tag) => {
                let tag = self.tag(tag.as_deref(), span);
                let mut items = Vec::new();
                loop {
                    match self.next(parser)? {
                        (Event::SequenceEnd, end) => {
                            let span = join(span, convert(&end), items.last());
                            break (
                                Node {
                                    span,
                                    tag,
                                    kind: Kind::Sequence(items),
                                },
                                anchor,
                            );
                        }
                        (event, at) => items.push(self.node(parser, event, at, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(anchor, tag) => {
                let tag = self.tag(tag.as_deref(), span);
                let entries = self.mapping(parser, depth)?;
                let span = join(span, span, entries.last().map(|(_, v)| v));
                (
                    Node {
                        span,
                        tag,
                        kind: Kind::Mapping(entries),
                    },
                    anchor,
                )
            }
            _ => {
                return Err(self.stop(
                    "yaml.syntax",
                    span,
                    "this is not YAML: a value was expected",
                    None,
                ));
            }
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn mapping(
        &mut self,
        parser: &mut Events<'a>,
        depth: usize,
    ) -> Result<Vec<(Node, Node)>, Stop> {
        let mut entries: Vec<(Node, Node)> = Vec::new();
        let mut seen: HashMap<String, Span> = HashMap::new();
        loop {
            let key = match self.next(parser)? {
                (Event::MappingEnd, _) => return Ok(entries),
                (event, at) => self.node(parser, event, at, depth + 1)?,
            };
            let (event, at) = self.next(parser)?;
            let value = self.node(parser, event, at, depth + 1)?;
            let Some(name) = key.text().map(str::to_owned) else {
                self.findings.push(Finding::error(
                    "yaml.key",
                    Place::at(self.file, key.span, self.text),
                    "a key must be a text; braces in a plain value start a mapping",
                ));
                continue;
            };
            if let Some(first) = seen.get(&name) {
                let finding = Finding::error(
                    "yaml.duplicate",
                    Place::at(self.file, key.span, self.text),
                    format!(
                        "the key `{}` stands twice in this mapping",
                        name.escape_debug()
                    ),
                )
                .related(Place::at(self.file, *first, self.text), "first here")
                .help("remove one: readers disagree about which of two wins");
                self.findings.push(finding);
                continue;
            }
            seen.insert(name, key.span);
            entries.push((key, value));
        }
    }

    fn tag(&mut self, tag: Option<&Tag>, span: Span) -> Option<String> {
        let tag = tag?;
        if tag.is_yaml_core_schema() {
            if matches!(
                tag.suffix.as_str(),
                "str" | "null" | "int" | "float" | "bool" | "map" | "seq"
            ) {
                return matches!(tag.suffix.as_str(), "str" | "null").then(|| tag.suffix.clone());
            }
        } else if tag.handle == "!" && self.limits.tags {
            return Some(tag.suffix.clone());
        } else if tag.handle.is_empty() && tag.suffix == "!" {
            return Some("str".into());
        }
        let written = format!("{}{}", tag.handle, tag.suffix);
        self.findings.push(
            Finding::error(
                "yaml.tag",
                Place::at(self.file, span, self.text),
                format!("the tag `{}` is not allowed here", written.escape_debug()),
            )
            .help("tags make sense in CloudFormation templates only"),
        );
        None
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.kind {
        Kind::Scalar(..) => 0,
        Kind::Sequence(items) => items.iter().map(size).sum(),
        Kind::Mapping(entries) => entries.iter().map(|(k, v)| size(k) + size(v)).sum(),
    }
}

fn convert(span: &ScanSpan) -> Span {
    let (start, end) = (span.start, span.end);
    let line = start.line().max(1) as u32;
    let column = start.col() as u32 + 1;
    let (mut end_line, mut end_column) = (end.line().max(1) as u32, end.col() as u32 + 1);
    if (end_line, end_column) <= (line, column) {
        (end_line, end_column) = (line, column + 1);
    }
    Span {
        line,
        column,
        end_line,
        end_column,
    }
}

fn join(start: Span, end: Span, last: Option<&Node>) -> Span {
    let tail = last.map_or(end, |node| node.span);
    if (tail.end_line, tail.end_column) > (start.end_line, start.end_column) {
        Span {
            end_line: tail.end_line,
            end_column: tail.end_column,
            ..start
        }
    } else {
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str, limits: &Limits) -> Vec<String> {
        parse("f.yaml", text, limits)
            .err()
            .unwrap_or_default()
            .into_iter()
            .map(|f| f.code)
            .collect()
    }

    #[test]
    fn spans_and_tags_are_kept() {
        let node = parse("f", "a:\n  b: !GetAtt x.y\n", &Limits::TEMPLATE).unwrap();
        let b = node.get("a").unwrap().get("b").unwrap();
        assert_eq!(b.tag.as_deref(), Some("GetAtt"));
        assert_eq!((b.span.line, b.text()), (2, Some("x.y")));
    }

    #[test]
    fn hostile_files_are_refused_by_name() {
        let bomb = {
            let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
            for i in 1..10 {
                let inner = vec![format!("*a{}", i - 1); 9].join(",");
                text.push_str(&format!("a{i}: &a{i} [{inner}]\n"));
            }
            text
        };
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        let deeper = "[".repeat(20_000);
        for (text, code) in [
            ("a: 1\na: 2", "yaml.duplicate"),
            ("a: !!python/object:os.system x", "yaml.tag"),
            ("a: !Ref x", "yaml.tag"),
            ("a: 1\n---\nb: 2", "yaml.documents"),
            ("a: [1", "yaml.syntax"),
            ("a: {{ x }}", "yaml.key"),
            ("a: *b", "yaml.syntax"),
            (bomb.as_str(), "yaml.size"),
            (deep.as_str(), "yaml.depth"),
            // The scanner has a limit of its own, and says so as a fault of syntax.
            (deeper.as_str(), "yaml.syntax"),
        ] {
            let found = codes(text, &Limits::SPEC);
            assert!(
                found.iter().any(|c| c == code),
                "{found:?} for {}",
                text.chars().take(40).collect::<String>()
            );
        }
    }

    #[test]
    fn every_duplicate_key_is_found() {
        assert_eq!(codes("a: 1\na: 2\nb: {c: 1, c: 2}", &Limits::SPEC).len(), 2);
    }

    #[test]
    fn merge_keys_let_what_stands_beside_them_win() {
        let node = parse(
            "f",
            "x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\n",
            &Limits::SPEC,
        )
        .unwrap();
        assert_eq!(
            node.get("y").unwrap().to_json(),
            serde_json::json!({"a": 1, "b": 3})
        );
    }
}
