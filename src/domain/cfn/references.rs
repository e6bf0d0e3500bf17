//! Dynamic references: values that CloudFormation reads by itself when it deploys.
//!
//! A reference without a version is read when the text around it changes, and not when the value does: a secret that was
//! rotated stays the old one in the stack. Written with its version, a new version is another text, and so a change that is
//! planned, shown and deployed like every other.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/dynamic-references.html>

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde_json::Value;

use super::Template;
use crate::domain::yaml::{Kind, Node};

const OPEN: &str = "{{resolve:";
const CLOSE: &str = "}}";

/// Where a referenced value lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Keeper {
    /// A parameter of Systems Manager in the clear.
    Ssm,
    /// An encrypted parameter of Systems Manager.
    SsmSecure,
    /// A secret of Secrets Manager.
    Secret,
}

impl Keeper {
    fn word(self) -> &'static str {
        match self {
            Self::Ssm => "ssm",
            Self::SsmSecure => "ssm-secure",
            Self::Secret => "secretsmanager",
        }
    }
}

/// A value that a template names without a version.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reference {
    /// Where it lies.
    pub keeper: Keeper,
    /// Its name or ARN.
    pub name: String,
    /// The stage of a secret; the current one where none is named.
    pub stage: Option<String>,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.keeper.word(), self.name)?;
        match &self.stage {
            Some(stage) => write!(f, " at {stage}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, stage) = match text.split_once(" at ") {
            Some((name, stage)) => (name, Some(stage.to_owned())),
            None => (text, None),
        };
        let found = read(name).filter(|f| f.version.is_none() && f.part.is_empty());
        let found = found.map(|f| f.reference).filter(|r| r.stage.is_none());
        let staged = found.map(|r| Reference { stage, ..r });
        let fits = |r: &Reference| r.stage.is_none() || r.keeper == Keeper::Secret;
        staged.filter(fits).ok_or_else(|| {
            format!(
                "`{}` is no reference without a version: write ssm:<name>, ssm-secure:<name> or secretsmanager:<name>",
                text.escape_debug()
            )
        })
    }
}

/// A reference as it stands in a text.
struct Found {
    reference: Reference,
    /// The key inside a secret.
    part: String,
    version: Option<String>,
}

impl Found {
    fn at(&self, version: &str) -> String {
        let (word, name) = (self.reference.keeper.word(), &self.reference.name);
        match self.reference.keeper {
            Keeper::Ssm | Keeper::SsmSecure => format!("{OPEN}{word}:{name}:{version}{CLOSE}"),
            // A version says more than the stage that it was found by; both together are refused.
            Keeper::Secret => {
                format!(
                    "{OPEN}{word}:{name}:SecretString:{}::{version}{CLOSE}",
                    self.part
                )
            }
        }
    }
}

/// Reads what stands between the brackets, after `resolve:`. What holds a `${…}` is known only to CloudFormation.
fn read(inner: &str) -> Option<Found> {
    let (word, rest) = inner.split_once(':')?;
    let keeper = match word {
        "ssm" => Keeper::Ssm,
        "ssm-secure" => Keeper::SsmSecure,
        "secretsmanager" => Keeper::Secret,
        _ => return None,
    };
    // An ARN has colons of its own: six for a secret, five for a parameter.
    let own = match (rest.starts_with("arn:"), keeper) {
        (false, _) => 0,
        (true, Keeper::Secret) => 6,
        (true, _) => 5,
    };
    let (name, more) = match rest.match_indices(':').nth(own) {
        Some((at, _)) => (&rest[..at], &rest[at + 1..]),
        None => (rest, ""),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_+=.@-:".contains(c);
    if name.is_empty() || !name.chars().all(plain) {
        return None;
    }
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut found = Found {
        reference: Reference {
            keeper,
            name: name.to_owned(),
            stage: None,
        },
        part: String::new(),
        version: None,
    };
    if keeper != Keeper::Secret {
        found.version = given(more);
        return Some(found);
    }
    let mut parts = more.split(':');
    let mut next = || parts.next().unwrap_or_default();
    let (kind, part, stage, version) = (next(), next(), next(), next());
    if parts.next().is_some() || !matches!(kind, "" | "SecretString") || part.contains('$') {
        return None;
    }
    found.part = part.to_owned();
    found.reference.stage = given(stage);
    found.version = given(version);
    Some(found)
}

fn scan(text: &str) -> impl Iterator<Item = (Range<usize>, Found)> {
    text.match_indices(OPEN).filter_map(|(at, _)| {
        let inner = at + OPEN.len();
        let end = inner + text[inner..].find(CLOSE)?;
        Some((at..end + CLOSE.len(), read(&text[inner..end])?))
    })
}

/// The type of a parameter whose value names what Systems Manager keeps.
pub(super) const KEPT: &str = "AWS::SSM::Parameter::Value<";

/// Tells, without reading it, whether a template may refer to values. It never says no where it does.
pub fn may_refer(text: &str) -> bool {
    text.contains(OPEN) || text.contains(KEPT)
}

/// Returns every reference of a template that names no version, and the parameters of it that are read from Systems Manager.
///
/// Only what stands in the text so that [`pin`] finds it: what a loop or an escape makes of it is not. What stands in a comment
/// is none, and what the template itself makes under the name that it refers to has no version before. References inside of
/// nested templates belong to those.
pub fn unpinned(
    template: &Template,
    text: &str,
    given: &BTreeMap<String, String>,
) -> BTreeSet<Reference> {
    let mut found = BTreeSet::new();
    if !may_refer(text) {
        return found;
    }
    let written: BTreeSet<Reference> = scan(text).map(|(_, f)| f.reference).collect();
    let mut open: Vec<&Node> = vec![&template.root];
    while let Some(node) = open.pop() {
        match &node.kind {
            Kind::Scalar(text, _) => {
                let new = scan(text).filter(|(_, f)| f.version.is_none());
                let new = new.map(|(_, f)| f.reference);
                found.extend(new.filter(|r| written.contains(r)));
            }
            Kind::Sequence(items) => open.extend(items),
            Kind::Mapping(entries) => open.extend(entries.iter().flat_map(|(k, v)| [k, v])),
        }
    }
    found.retain(|r| !makes(template, r));
    for (name, parameter) in &template.parameters {
        let value = given.get(name).or(parameter.default.as_ref());
        if parameter.is_asked_for()
            && let Some(value) = value
            && let Ok(reference) = format!("ssm:{value}").parse()
        {
            found.insert(reference);
        }
    }
    found
}

/// Tells whether a template makes what it refers to.
fn makes(template: &Template, reference: &Reference) -> bool {
    let kind = match reference.keeper {
        Keeper::Ssm | Keeper::SsmSecure => "AWS::SSM::Parameter",
        Keeper::Secret => "AWS::SecretsManager::Secret",
    };
    let mut all = template.resources.values();
    all.any(|r| r.kind == kind && r.properties["Name"] == reference.name)
}

/// Tells whether a value holds a reference that names no version, or one that cannot be read.
pub fn has_unpinned(value: &Value) -> bool {
    match value {
        Value::String(text) => text.match_indices(OPEN).any(|(at, _)| {
            let inner = &text[at + OPEN.len()..];
            let found = inner.find(CLOSE).and_then(|end| read(&inner[..end]));
            found.is_none_or(|f| f.version.is_none())
        }),
        Value::Array(items) => items.iter().any(has_unpinned),
        Value::Object(fields) => fields.values().any(has_unpinned),
        _ => false,
    }
}

/// Writes the version behind every reference that has none and whose version is known.
pub fn pin(text: &str, versions: &BTreeMap<Reference, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (at, found) in scan(text).filter(|(_, f)| f.version.is_none()) {
        if let Some(version) = versions.get(&found.reference) {
            out.push_str(&text[done..at.start]);
            out.push_str(&found.at(version));
            done = at.end;
        }
    }
    out.push_str(&text[done..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::cfn::parse_template;

    fn known(all: &[(&str, &str)]) -> BTreeMap<Reference, String> {
        let one = |(r, v): &(&str, &str)| (r.parse().unwrap(), (*v).to_owned());
        all.iter().map(one).collect()
    }

    #[test]
    fn a_version_is_written_where_none_stands() {
        let arn = "arn:aws:secretsmanager:us-east-1:111122223333:secret:db-AbCdEf";
        let shared = "arn:aws:ssm:us-east-1:111122223333:parameter/url";
        let versions = known(&[
            ("ssm:/orders/url", "7"),
            ("ssm-secure:key", "2"),
            ("secretsmanager:db", "v-1"),
            (&format!("secretsmanager:{arn}"), "v-2"),
            (&format!("ssm:{shared}"), "3"),
            ("secretsmanager:db at AWSPREVIOUS", "v-0"),
        ]);
        for (given, expected) in [
            ("ssm:/orders/url", "ssm:/orders/url:7"),
            ("ssm:/orders/url:3", "ssm:/orders/url:3"),
            ("ssm-secure:key", "ssm-secure:key:2"),
            (&*format!("ssm:{shared}"), &*format!("ssm:{shared}:3")),
            ("secretsmanager:db", "secretsmanager:db:SecretString:::v-1"),
            (
                "secretsmanager:db:SecretString:user",
                "secretsmanager:db:SecretString:user::v-1",
            ),
            (
                "secretsmanager:db:SecretString:user::",
                "secretsmanager:db:SecretString:user::v-1",
            ),
            (
                "secretsmanager:db:SecretString:user:AWSPREVIOUS",
                "secretsmanager:db:SecretString:user::v-0",
            ),
            (
                "secretsmanager:db:SecretString:user::v-9",
                "secretsmanager:db:SecretString:user::v-9",
            ),
            (
                &format!("secretsmanager:{arn}:SecretString:user"),
                &format!("secretsmanager:{arn}:SecretString:user::v-2"),
            ),
            // Known to nobody, to CloudFormation alone, or no reference at all.
            ("ssm:/other", "ssm:/other"),
            ("ssm:/${Stage}/url", "ssm:/${Stage}/url"),
            ("vault:x", "vault:x"),
            ("ssm:", "ssm:"),
            ("secretsmanager:db:a:b:c:d:e", "secretsmanager:db:a:b:c:d:e"),
        ] {
            let (given, expected) = (
                format!("a{OPEN}{given}{CLOSE}b"),
                format!("a{OPEN}{expected}{CLOSE}b"),
            );
            let once = pin(&given, &versions);
            assert_eq!(once, expected);
            assert_eq!(pin(&once, &versions), once, "twice is once");
        }
    }

    #[test]
    fn a_reference_is_read_as_it_is_written() {
        for text in [
            "ssm:/a",
            "ssm-secure:b",
            "secretsmanager:c",
            "secretsmanager:c at AWSPREVIOUS",
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), text);
        }
        for text in [
            "",
            "ssm",
            "ssm:",
            "ssm:a:1",
            "ssm:a at X",
            "vault:x",
            "secretsmanager:a:SecretString:k",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_names_no_version_is_found_in_every_value() {
        for (text, loose) in [
            ("plain", false),
            ("{{resolve:ssm:/a}}", true),
            ("{{resolve:ssm:/a:7}}", false),
            ("{{resolve:ssm:/a:7}}/{{resolve:ssm:/b}}", true),
            ("{{resolve:ssm:/${Stage}/a}}", true),
            ("{{resolve:ssm:", true),
            ("{{resolve:secretsmanager:db:SecretString:user}}", true),
            ("{{resolve:secretsmanager:db:SecretString:::v-1}}", false),
        ] {
            for value in [
                serde_json::json!(text),
                serde_json::json!({ "a": [1, { "b": text }] }),
            ] {
                assert_eq!(has_unpinned(&value), loose, "{value}");
            }
        }
    }

    #[test]
    fn everything_around_a_reference_stays_as_it_is() {
        let versions = known(&[("ssm:a", "1")]);
        for text in [
            "",
            "{{resolve:",
            "{{resolve:ssm:a",
            "}}{{",
            "ü{{resolve:x}}ß",
        ] {
            assert_eq!(pin(text, &versions), text);
        }
        assert_eq!(
            pin("ü{{resolve:ssm:a}}{{resolve:ssm:a}}ß", &versions),
            "ü{{resolve:ssm:a:1}}{{resolve:ssm:a:1}}ß"
        );
    }

    #[test]
    fn what_cannot_be_pinned_is_not_said_to_be() {
        let text = r#"
Transform: AWS::LanguageExtensions
Resources:
  Own:
    Type: AWS::SecretsManager::Secret
    Properties: { Name: own }
  Uses:
    Type: AWS::SNS::Topic
    Properties: { DisplayName: '{{resolve:secretsmanager:own}}' }
  Escaped:
    Type: AWS::SNS::Topic
    Properties: { DisplayName: "{{resolve:ssm:\x2fescaped}}" }
  'Fn::ForEach::Topics':
    - N
    - [a, b]
    - 'Topic${N}':
        Type: AWS::SNS::Topic
        Properties: { DisplayName: '{{resolve:ssm:/o/${N}}}' }
"#;
        let template = parse_template("t.yaml", text).unwrap();
        assert!(template.resources.contains_key("Topica"));
        assert_eq!(unpinned(&template, text, &BTreeMap::new()), [].into());
        for (text, may) in [
            ("", false),
            ("{{resolve:x", true),
            ("Type: AWS::SSM::Parameter::Value<String>", true),
        ] {
            assert_eq!(may_refer(text), may, "{text}");
        }
    }

    #[test]
    fn what_names_no_version_is_found_and_comments_are_not() {
        let text = r#"
# {{resolve:ssm:/comment}}
Parameters:
  Image: { Type: "AWS::SSM::Parameter::Value<String>", Default: /aws/image }
  Given: { Type: "AWS::SSM::Parameter::Value<String>", Default: /nobody }
  Plain: { Type: String, Default: /plain }
Resources:
  Db:
    Type: AWS::RDS::DBInstance
    Properties:
      MasterUserPassword: '{{resolve:secretsmanager:db:SecretString:password}}'
      MasterUsername: '{{resolve:ssm:/user:4}}'
      DBName: !Sub 'x{{resolve:ssm:/name}}-{{resolve:ssm-secure:/more}}'
"#;
        let template = parse_template("t.yaml", text).unwrap();
        let given = BTreeMap::from([("Given".to_owned(), "/given".to_owned())]);
        let found: Vec<String> = unpinned(&template, text, &given)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "ssm:/aws/image",
                "ssm:/given",
                "ssm:/name",
                "ssm-secure:/more",
                "secretsmanager:db"
            ]
        );
    }
}
