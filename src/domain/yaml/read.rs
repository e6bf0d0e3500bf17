//! From text to a tree, under limits.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span as ScanSpan, Tag};

use super::{Kind, Node, Scalar, Style, resolve};
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
        held: Weight::default(),
        anchors: HashMap::new(),
        findings: Vec::new(),
        open: text
            .rsplit(['\n', '\r'])
            .next()
            .filter(|last| last.starts_with(' '))
            .map(|_| text.matches('\n').count() + 1),
    };
    if may_grow(text, limits) {
        reader.weigh().map_err(|finding| vec![*finding])?;
    }
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

/// How many faults of one file are told; after that the file is given up.
const FAULTS: usize = 100;
/// Up to so many keys are looked through one by one.
const FEW: usize = 12;
/// How often a file's own bytes may be held, through anchors and aliases.
const GROWTH: usize = 4;

/// Tells whether a text could cost more than its limits, so that it is weighed before a tree is made of it.
///
/// It may say yes too often. A node begins at the start or after one of these bytes, a key and its empty value after
/// one. Templates are read with shell scripts in them, where `&` is no anchor, and their limit of nodes is low enough.
fn may_grow(text: &str, limits: &Limits) -> bool {
    let bytes = text.as_bytes();
    if !limits.tags && bytes.contains(&b'&') {
        return true;
    }
    let begins = |b: &&u8| matches!(b, b',' | b':' | b'\n' | b'\r' | b'[' | b'{' | b'-' | b'?');
    2 * (bytes.iter().filter(begins).count() + 1) > limits.nodes
}

/// What a node costs: itself and everything in it.
#[derive(Clone, Copy, Default)]
struct Weight {
    nodes: usize,
    bytes: usize,
}

impl Weight {
    fn of(bytes: usize) -> Self {
        Self { nodes: 1, bytes }
    }

    fn add(&mut self, more: Self) {
        self.nodes = self.nodes.saturating_add(more.nodes);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    limits: &'a Limits,
    held: Weight,
    anchors: HashMap<usize, (Node, Weight)>,
    findings: Vec<Finding>,
    /// The last line, where the file ends in it without a line break and it is indented.
    open: Option<usize>,
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

    /// Adds up what the tree would cost, aliases as what they stand for, without making it.
    fn weigh(&self) -> Result<(), Stop> {
        let mut parser = Parser::new_from_str(self.text);
        let mut anchors: HashMap<usize, Weight> = HashMap::new();
        let mut open: Vec<(usize, Weight)> = Vec::new();
        let mut total = Weight::default();
        loop {
            let (event, at) = self.next(&mut parser)?;
            let span = convert(&at);
            let (anchor, weight, new) = match event {
                Event::StreamEnd => return Ok(()),
                // A second document is refused when the tree is made.
                Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd
                | Event::Nothing => continue,
                Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                    if open.len() >= self.limits.depth {
                        return Err(self.too_deep(span));
                    }
                    open.push((anchor, Weight::of(0)));
                    total.add(Weight::of(0));
                    self.within(total, span)?;
                    continue;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let (anchor, weight) = open.pop().unwrap_or_default();
                    (anchor, weight, Weight::default())
                }
                Event::Scalar(text, _, anchor, _) => {
                    let weight = Weight::of(text.len());
                    (anchor, weight, weight)
                }
                Event::Alias(id) => {
                    let weight = anchors.get(&id).copied().unwrap_or(Weight::of(0));
                    (0, weight, weight)
                }
            };
            total.add(new);
            if anchor > 0 {
                total.add(Weight { nodes: 0, ..weight });
                anchors.insert(anchor, weight);
            }
            if let Some((_, outer)) = open.last_mut() {
                outer.add(weight);
            }
            self.within(total, span)?;
        }
    }

    fn within(&self, weight: Weight, span: Span) -> Result<(), Stop> {
        if weight.nodes > self.limits.nodes {
            let message = format!(
                "the file has more than {} nodes, aliases counted as what they stand for",
                self.limits.nodes
            );
            return Err(self.stop("yaml.size", span, &message, None));
        }
        let most = self.limits.bytes.saturating_mul(GROWTH);
        if weight.bytes > most {
            let message = format!(
                "the file holds more than {most} bytes, aliases counted as what they stand for"
            );
            return Err(self.stop("yaml.size", span, &message, None));
        }
        Ok(())
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

    fn count(&mut self, more: Weight, span: Span) -> Result<(), Stop> {
        self.held.add(more);
        self.within(self.held, span)
    }

    fn too_deep(&self, span: Span) -> Stop {
        let message = format!("nested deeper than {} levels", self.limits.depth);
        self.stop("yaml.depth", span, &message, None)
    }

    /// Collects a fault, and gives the file up where there are too many to be read by anybody.
    fn fault(&mut self, finding: Finding) -> Result<(), Stop> {
        if self.findings.len() >= FAULTS {
            let mut last = finding;
            last.help = Some(format!(
                "the file has more than {FAULTS} faults; the rest is not told"
            ));
            return Err(Box::new(last));
        }
        self.findings.push(finding);
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
            return Err(self.too_deep(span));
        }
        let (node, anchor) = match event {
            Event::Alias(id) => {
                let Some(weight) = self.anchors.get(&id).map(|(_, weight)| *weight) else {
                    return Err(self.stop(
                        "yaml.alias",
                        span,
                        "this alias names an anchor that is not complete here",
                        None,
                    ));
                };
                // Counted before it is copied.
                self.count(weight, span)?;
                let node = self.anchors[&id].0.clone();
                return Ok(Node { span, ..node });
            }
            Event::Scalar(mut text, style, anchor, tag) => {
                if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded)
                    && self.open.is_some_and(|line| at.end.line() >= line)
                    && self.ends_open(&text)
                {
                    text.to_mut().pop();
                }
                self.count(Weight::of(text.len()), span)?;
                let style = if style == ScalarStyle::Plain {
                    Style::Plain
                } else {
                    Style::Quoted
                };
                let style = self.typed(&text, style, tag.as_deref(), span)?;
                let tag = self.tag(tag.as_deref(), span)?;
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
                self.count(Weight::of(0), span)?;
                let tag = self.tag(tag.as_deref(), span)?;
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
                self.count(Weight::of(0), span)?;
                let tag = self.tag(tag.as_deref(), span)?;
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
            // Kept twice: where it stands, and for those who ask for it.
            let weight = weigh(&node);
            self.count(Weight { nodes: 0, ..weight }, span)?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        Ok(node)
    }

    fn mapping(
        &mut self,
        parser: &mut Events<'a>,
        depth: usize,
    ) -> Result<Vec<(Node, Node)>, Stop> {
        let mut entries: Vec<(Node, Node)> = Vec::new();
        // Where each key stands, once there are so many that looking through them takes longer.
        let mut seen: HashMap<String, usize> = HashMap::new();
        loop {
            let key = match self.next(parser)? {
                (Event::MappingEnd, _) => return Ok(entries),
                (event, at) => self.node(parser, event, at, depth + 1)?,
            };
            let (event, at) = self.next(parser)?;
            let value = self.node(parser, event, at, depth + 1)?;
            let Some(name) = key.text() else {
                self.fault(Finding::error(
                    "yaml.key",
                    Place::at(self.file, key.span, self.text),
                    "a key must be a text; braces in a plain value start a mapping",
                ))?;
                continue;
            };
            let same = if seen.is_empty() {
                entries.iter().position(|(k, _)| k.text() == Some(name))
            } else {
                seen.get(name).copied()
            };
            if let Some(first) = same.map(|at| entries[at].0.span) {
                let finding = Finding::error(
                    "yaml.duplicate",
                    Place::at(self.file, key.span, self.text),
                    format!(
                        "the key `{}` stands twice in this mapping",
                        name.chars().take(100).collect::<String>().escape_debug()
                    ),
                )
                .related(Place::at(self.file, first, self.text), "first here")
                .help("remove one: readers disagree about which of two wins");
                self.fault(finding)?;
                continue;
            }
            if name == "<<" && matches!(key.kind, Kind::Scalar(_, Style::Plain)) && !merges(&value)
            {
                let place = Place::at(self.file, value.span, self.text);
                let message = "a merge key takes a mapping or a list of mappings";
                let finding = Finding::error("yaml.merge", place, message);
                self.fault(finding.help("quote it where a key named `<<` is meant"))?;
            }
            if !seen.is_empty() {
                seen.insert(name.to_owned(), entries.len());
            }
            entries.push((key, value));
            if seen.is_empty() && entries.len() > FEW {
                let texts = entries.iter().map(|(k, _)| k.key_text());
                seen = texts.zip(0..).collect();
            }
        }
    }

    /// Tells whether a block scalar ends with the file, which ends without a line break: then it has none to keep.
    ///
    /// The parser adds one there. Rendered templates end like that, as Jinja drops the last line break.
    fn ends_open(&self, scalar: &str) -> bool {
        let last = self.text.rsplit(['\n', '\r']).next().unwrap_or_default();
        let Some(body) = scalar.strip_suffix('\n').filter(|_| last.starts_with(' ')) else {
            return false;
        };
        let content = last.trim_start_matches(' ');
        if !content.is_empty() {
            return body.ends_with(content);
        }
        // Nothing but spaces: they are a line of the scalar where they reach beyond its indentation, or end it.
        let line = body.rsplit('\n').next().unwrap_or_default();
        let breaks = |t: &str| t.len() - t.trim_end_matches('\n').len();
        let before = &self.text[..self.text.len() - last.len()];
        breaks(scalar) > breaks(&before.replace('\r', ""))
            || (!line.is_empty() && line.trim_matches(' ').is_empty() && line.len() < last.len())
    }

    /// Applies `!!int`, `!!float` and `!!bool`: the text has to read as that without the tag and without quotes.
    fn typed(
        &mut self,
        text: &str,
        style: Style,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<Style, Stop> {
        let Some(tag) = tag.filter(|t| t.is_yaml_core_schema()) else {
            return Ok(style);
        };
        let fits = match (tag.suffix.as_str(), resolve(text, Style::Plain, None)) {
            ("int", found) => matches!(found, Scalar::Int(_)),
            ("float", found) => matches!(found, Scalar::Float(_)),
            ("bool", found) => matches!(found, Scalar::Bool(_)),
            _ => return Ok(style),
        };
        if !fits {
            let message = format!("this is not what the tag `!!{}` says", tag.suffix);
            let finding =
                Finding::error("yaml.tag", Place::at(self.file, span, self.text), message);
            self.fault(finding.help("leave the tag out, and write the value as that type"))?;
        }
        Ok(Style::Plain)
    }

    fn tag(&mut self, tag: Option<&Tag>, span: Span) -> Result<Option<String>, Stop> {
        let Some(tag) = tag else { return Ok(None) };
        if tag.is_yaml_core_schema() {
            if matches!(
                tag.suffix.as_str(),
                "str" | "null" | "int" | "float" | "bool" | "map" | "seq"
            ) {
                return Ok(
                    matches!(tag.suffix.as_str(), "str" | "null").then(|| tag.suffix.clone())
                );
            }
        } else if tag.handle == "!" && self.limits.tags {
            return Ok(Some(tag.suffix.clone()));
        } else if tag.handle.is_empty() && tag.suffix == "!" {
            return Ok(Some("str".into()));
        }
        let written = format!("{}{}", tag.handle, tag.suffix);
        self.fault(
            Finding::error(
                "yaml.tag",
                Place::at(self.file, span, self.text),
                format!(
                    "the tag `{}` is not allowed here",
                    written.chars().take(100).collect::<String>().escape_debug()
                ),
            )
            .help("tags make sense in CloudFormation templates only"),
        )?;
        Ok(None)
    }
}

/// Tells whether a value can be merged into a mapping.
fn merges(value: &Node) -> bool {
    match &value.kind {
        Kind::Mapping(_) => true,
        Kind::Sequence(items) => items.iter().all(Node::is_mapping),
        Kind::Scalar(..) => false,
    }
}

fn weigh(node: &Node) -> Weight {
    let mut all = Weight::of(0);
    match &node.kind {
        Kind::Scalar(text, _) => all.bytes = text.len(),
        Kind::Sequence(items) => items.iter().for_each(|item| all.add(weigh(item))),
        Kind::Mapping(entries) => entries.iter().for_each(|(key, value)| {
            all.add(weigh(key));
            all.add(weigh(value));
        }),
    }
    all
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
    fn sec_07_aliases_cannot_multiply_bytes() {
        // Few nodes, and each of them large: what is counted is what is held.
        for limits in [Limits::SPEC, Limits::SYNC, Limits::TEMPLATE] {
            let text = format!(
                "a: &a {}\nb: [{}]\n",
                "x".repeat(limits.bytes / 2),
                vec!["*a"; limits.bytes / 8].join(",")
            );
            assert_eq!(codes(&text, &limits), ["yaml.size"]);
            let mut nested = "x".repeat(limits.bytes / 2);
            for i in 0..30 {
                nested = format!("&n{i} [{nested}]");
            }
            assert_eq!(codes(&nested, &limits), ["yaml.size"]);
        }
        assert_eq!(
            parse("f", "a: &a {b: c}\nd: [*a, *a]\n", &Limits::SPEC)
                .unwrap()
                .to_json(),
            serde_json::json!({"a": {"b": "c"}, "d": [{"b": "c"}, {"b": "c"}]})
        );
    }

    #[test]
    fn sec_07_a_file_of_faults_is_given_up_and_not_listed() {
        let text = "a: 1\n".repeat(9_000);
        let found = parse("f", &text, &Limits::SPEC).unwrap_err();
        assert_eq!(found.len(), FAULTS + 1);
        assert!(found[FAULTS].help.as_deref().unwrap().contains("more than"));
        let long = format!("{0}: 1\n{0}: 2\n", "k".repeat(20_000));
        assert!(
            parse("f", &long, &Limits::SPEC).unwrap_err()[0]
                .message
                .len()
                < 400
        );
    }

    #[test]
    fn sec_07_merge_keys_in_a_circle_and_python_tags_are_refused() {
        for (text, code) in [
            ("a: &a\n  <<: *a\n  b: 1\n", "yaml.alias"),
            ("a: &a [*a]\n", "yaml.alias"),
            ("x: !!python/object/apply:os.system ['id']\n", "yaml.tag"),
            (
                "x: !<tag:yaml.org,2002:python/name:os.system> y\n",
                "yaml.tag",
            ),
            ("%TAG ! tag:evil.example,2000:\n---\nx: !y z\n", "yaml.tag"),
        ] {
            let found = codes(text, &Limits::SPEC);
            assert!(found.iter().any(|c| c == code), "{found:?} for {text}");
        }
    }

    #[test]
    fn a_block_that_ends_with_the_file_has_no_line_break_to_keep() {
        for (text, expected) in [
            ("a: |\n  x", "x"),
            ("a: |+\n  x", "x"),
            ("a: >\n  x\n  y", "x y"),
            ("a: |\n  x\n", "x\n"),
            ("a: |\n  x\n  ", "x\n"),
            ("a: |\n  x\n    ", "x\n  "),
            ("a: |\n  x\n ", "x\n"),
            ("a: |+\n  x\n\n ", "x\n\n"),
            ("a: |\n  # c\n# c", "# c\n"),
            ("a: |\n  x\nb: |\n  x", "x\n"),
        ] {
            let node = parse("f", text, &Limits::SPEC).unwrap();
            assert_eq!(node.get("a").unwrap().text(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn sec_08_hostile_json_is_refused_or_read_as_text() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
            assert!(parse("f.json", &deep, &Limits::TEMPLATE).is_err());
        }
        // JSON has no number for it, and none is invented.
        let digits = "9".repeat(1_000);
        let huge = format!("{{\"a\": {digits}}}");
        let node = parse("f.json", &huge, &Limits::TEMPLATE).unwrap();
        assert_eq!(node.to_json()["a"], digits);
        assert_eq!(
            parse(
                "f.json",
                "{\"a\": 1e999, \"b\": -0, \"c\": 0x}",
                &Limits::TEMPLATE
            )
            .unwrap()
            .to_json()["c"],
            "0x"
        );
        for lone in ["{\"a\": \"\\ud800\"}", "{\"a\": \"\\udfff\\ud800\"}"] {
            assert!(parse("f.json", lone, &Limits::TEMPLATE).is_err(), "{lone}");
        }
    }

    #[test]
    fn tags_of_types_are_applied_or_refused() {
        let read = |text: &str| parse("f", text, &Limits::SPEC).map(|n| n.to_json());

        assert_eq!(read("a: !!int '7'").unwrap(), serde_json::json!({"a": 7}));
        assert_eq!(
            read("a: !!bool 'yes'").unwrap(),
            serde_json::json!({"a": true})
        );
        assert_eq!(read("a: !!str 7").unwrap(), serde_json::json!({"a": "7"}));
        assert_eq!(codes("a: !!int x", &Limits::SPEC), ["yaml.tag"]);
        assert_eq!(codes("a: !!float 1", &Limits::SPEC), ["yaml.tag"]);
    }

    #[test]
    fn a_merge_key_with_nothing_to_merge_is_refused() {
        for text in ["a: {<<: x}", "a: {<<: [{b: 1}, x]}", "a:\n  <<:\n"] {
            assert_eq!(codes(text, &Limits::SPEC), ["yaml.merge"], "{text}");
        }
        assert!(codes("a: {'<<': x}", &Limits::SPEC).is_empty());
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
