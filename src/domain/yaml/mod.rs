//! The one reader of YAML from repositories: parser events into a tree of our own.
//!
//! The tree keeps tags, styles and spans; scalars are resolved by a YAML 1.1 table of our own (`scalar.rs`), because
//! no library resolves as CloudFormation's readers do. Every limit is checked while reading, so that a hostile file
//! costs no more than its limits. Nothing here knows what the files mean.

mod edit;
mod read;
mod scalar;

pub use edit::{Wanted, set_scalar};
pub use read::{Limits, parse};
pub use scalar::{Scalar, ambiguity, resolve};

use serde_json::{Map, Number, Value};

use super::model::Span;

/// How a scalar was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// Without quotes: its type comes from its text.
    Plain,
    /// With quotes or as a block: always text.
    Quoted,
}

/// What a node is.
#[derive(Clone, PartialEq, Debug)]
pub enum Kind {
    /// A scalar with its text and style.
    Scalar(String, Style),
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping in the order of the file; keys are unique.
    Mapping(Vec<(Node, Node)>),
}

/// One node of a YAML document.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// Where it stands.
    pub span: Span,
    /// The local tag without its `!`, such as `Ref`.
    pub tag: Option<String>,
    /// What it is.
    pub kind: Kind,
}

impl Node {
    /// Returns the entries of a mapping; empty for everything else.
    pub fn entries(&self) -> &[(Node, Node)] {
        match &self.kind {
            Kind::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// Returns the items of a list; empty for everything else.
    pub fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::Sequence(items) => items,
            _ => &[],
        }
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    /// Returns a key's node and its value.
    pub fn entry(&self, key: &str) -> Option<(&Node, &Node)> {
        self.entries()
            .iter()
            .find(|(k, _)| k.text() == Some(key))
            .map(|(k, v)| (k, v))
    }

    /// Returns the text of a scalar, as written.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    /// Returns the text of a scalar that is not null.
    pub fn string(&self) -> Option<&str> {
        if self.is_null() { None } else { self.text() }
    }

    /// Tells whether this is a null: an empty value or one of its words.
    pub fn is_null(&self) -> bool {
        matches!(self.scalar(), Some(Scalar::Null))
    }

    /// Tells whether this is a mapping.
    pub fn is_mapping(&self) -> bool {
        matches!(self.kind, Kind::Mapping(_))
    }

    /// Tells whether this is a list.
    pub fn is_sequence(&self) -> bool {
        matches!(self.kind, Kind::Sequence(_))
    }

    /// Returns the resolved scalar.
    pub fn scalar(&self) -> Option<Scalar> {
        match &self.kind {
            Kind::Scalar(text, style) => Some(resolve(text, *style, self.tag.as_deref())),
            _ => None,
        }
    }

    /// Returns a word for the node's type, for messages.
    pub fn type_name(&self) -> &'static str {
        match (&self.kind, self.scalar()) {
            (Kind::Mapping(_), _) => "a mapping",
            (Kind::Sequence(_), _) => "a list",
            (_, Some(Scalar::Null)) => "empty",
            (_, Some(Scalar::Bool(_))) => "a boolean",
            (_, Some(Scalar::Int(_) | Scalar::Float(_))) => "a number",
            _ => "a text",
        }
    }

    /// Converts the tree to JSON, with YAML 1.1 scalars and merge keys applied.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Scalar(..) => self.scalar().map_or(Value::Null, Scalar::into_json),
            Kind::Sequence(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Kind::Mapping(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    if is_merge(key) {
                        // YAML 1.1 merge keys: what stands beside `<<` wins, and earlier sources win over later ones.
                        let sources = if value.is_sequence() {
                            value.items()
                        } else {
                            std::slice::from_ref(value)
                        };
                        for source in sources {
                            if let Value::Object(merged) = source.to_json() {
                                for (k, v) in merged {
                                    map.entry(k).or_insert(v);
                                }
                            }
                        }
                    }
                }
                for (key, value) in entries {
                    if !is_merge(key) {
                        map.insert(key.key_text(), value.to_json());
                    }
                }
                Value::Object(map)
            }
        }
    }

    /// Returns a key's text as JSON writes it.
    pub fn key_text(&self) -> String {
        self.text().unwrap_or_default().to_owned()
    }

    /// Follows a path of keys and indexes as far as it goes, and returns the last node met.
    pub fn follow<'a>(&'a self, path: impl IntoIterator<Item = &'a str>) -> &'a Node {
        let mut node = self;
        for part in path {
            let next = match &node.kind {
                Kind::Mapping(_) => node.get(part),
                Kind::Sequence(items) => part.parse::<usize>().ok().and_then(|i| items.get(i)),
                Kind::Scalar(..) => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }
}

fn is_merge(key: &Node) -> bool {
    matches!(&key.kind, Kind::Scalar(text, Style::Plain) if text == "<<")
}

impl Scalar {
    /// Converts to JSON. Numbers that JSON cannot hold become text.
    pub fn into_json(self) -> Value {
        match self {
            Scalar::Null => Value::Null,
            Scalar::Bool(b) => Value::Bool(b),
            Scalar::Int(i) => i64::try_from(i)
                .map(Number::from)
                .or_else(|_| u64::try_from(i).map(Number::from))
                .map_or_else(|_| Value::String(i.to_string()), Value::Number),
            Scalar::Float(f) => {
                Number::from_f64(f).map_or_else(|| Value::String(f.to_string()), Value::Number)
            }
            Scalar::Text(t) => Value::String(t),
        }
    }
}
