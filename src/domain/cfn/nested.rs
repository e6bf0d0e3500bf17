//! Nested templates that lie beside their parent: as `aws cloudformation package` finds them.
//!
//! A `TemplateURL` that is a path is replaced by a name of what the file holds. So the digest of what is asked for covers
//! every template below, the same content has the same name, and only sending it needs to know the bundle store.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::parse_template;
use crate::domain::model::{Finding, Place, Span, sha256_hex};
use crate::domain::yaml::{self, Kind, Limits, Node, Style};

const NESTED: &str = "AWS::CloudFormation::Stack";
const SCHEME: &str = "isoform-nested://";
/// Templates below one; CloudFormation's own limit is of resources in one operation, 2,500.
const MOST: usize = 200;
/// Levels below the root.
const DEEPEST: usize = 10;

/// Nested templates by the SHA-256 of their texts, hexadecimal.
pub type NestedTemplates = BTreeMap<String, Arc<str>>;

/// A template in which every nested one that is a file has the name of what it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    /// Its text.
    pub text: String,
    /// The templates below it, themselves with such names.
    pub nested: NestedTemplates,
}

/// A `TemplateURL` that is a path.
struct Local {
    span: Span,
    written: String,
    quoted: bool,
}

/// Returns the paths of the files that a template nests, as they lie in the repository.
///
/// What cannot be read nests nothing: whoever reads it as a template says what is wrong.
pub fn nested_files(path: &str, text: &str) -> Vec<String> {
    let found = locals(path, text);
    found
        .iter()
        .filter_map(|l| beside(path, &l.written))
        .collect()
}

/// Names nested templates by what they hold; absent where there are none that are files.
///
/// `file` gives the text of a file by its path. Nested templates are not rendered.
pub fn name_nested(
    path: &str,
    text: &str,
    file: &dyn Fn(&str) -> Option<Arc<str>>,
) -> Result<Option<Named>, Vec<Finding>> {
    let mut nested = NestedTemplates::new();
    let mut above = vec![path.to_owned()];
    let named = within(path, text, file, &mut above, &mut nested)?;
    Ok(named.map(|text| Named { text, nested }))
}

/// Returns the hash that stands in a name of a nested template.
pub fn nested_name(url: &str) -> Option<&str> {
    let (hash, _) = url.strip_prefix(SCHEME)?.split_once('/')?;
    Some(hash)
}

/// Puts URLs in place of the names.
pub fn locate_nested(text: &str, url: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(SCHEME) {
        let (before, name) = rest.split_at(at);
        let end = name.find('"').unwrap_or(name.len());
        let hash = name
            .get(SCHEME.len()..SCHEME.len() + 64)
            .unwrap_or_default();
        out.push_str(before);
        match url(hash) {
            Some(url) => out.push_str(&url),
            None => out.push_str(&name[..end]),
        }
        rest = &name[end..];
    }
    out.push_str(rest);
    out
}

fn within(
    path: &str,
    text: &str,
    file: &dyn Fn(&str) -> Option<Arc<str>>,
    above: &mut Vec<String>,
    nested: &mut NestedTemplates,
) -> Result<Option<String>, Vec<Finding>> {
    let found = locals(path, text);
    if found.is_empty() {
        return Ok(None);
    }
    let mut findings = Vec::new();
    let mut names = Vec::new();
    for local in found {
        let fault = |message: String, help: &str| {
            let place = Place::at(path, local.span, text);
            let mut finding = Finding::error("cfn.nested", place, message);
            finding.help = Some(help.to_owned());
            finding
        };
        let written = &local.written;
        let shown = written.escape_debug();
        let Some(width) = width_in(text, &local) else {
            findings.push(fault(
                format!("`{shown}` is not written as it reads"),
                "write the path of a nested template on one line, without escapes",
            ));
            continue;
        };
        let Some(below) = beside(path, written) else {
            findings.push(fault(
                format!("`{shown}` is no path of a file here"),
                "write an https:// URL, or a path relative to this file of letters, digits, `.`, `_`, `-` and `/`",
            ));
            continue;
        };
        if above.contains(&below) {
            findings.push(fault(
                format!("`{shown}` nests itself"),
                "a template cannot lie below itself",
            ));
            continue;
        }
        let Some(content) = file(&below) else {
            findings.push(fault(
                format!("there is no file `{}`", below.escape_debug()),
                "nested templates lie beside their parent, in the same repository or bundle; they are not rendered",
            ));
            continue;
        };
        if above.len() > DEEPEST || nested.len() >= MOST {
            findings.push(fault(
                format!("more than {MOST} nested templates, or more than {DEEPEST} levels of them"),
                "nest fewer",
            ));
            break;
        }
        if let Err(faults) = parse_template(&below, &content) {
            findings.extend(faults);
            continue;
        }
        above.push(below.clone());
        let named = within(&below, &content, file, above, nested);
        above.pop();
        match named {
            Ok(named) => {
                let text: Arc<str> = named.map_or(content, Arc::from);
                let hash = sha256_hex(text.as_bytes());
                let span = Span::on_line(local.span.line, local.span.column, width);
                names.push((span, format!("\"{SCHEME}{hash}/{written}\"")));
                nested.insert(hash, text);
            }
            Err(faults) => findings.extend(faults),
        }
    }
    if !findings.is_empty() {
        return Err(findings);
    }
    Ok(Some(replaced(text, names)))
}

/// Returns how many characters a path takes where it begins, with its quotes. The end of a plain scalar is not told exactly.
fn width_in(text: &str, local: &Local) -> Option<u32> {
    let line = text.lines().nth(local.span.line as usize - 1)?;
    let rest: String = line.chars().skip(local.span.column as usize - 1).collect();
    let quoted = |quote: char| format!("{quote}{}{quote}", local.written);
    let forms = match local.quoted {
        true => vec![quoted('"'), quoted('\'')],
        false => vec![local.written.clone()],
    };
    let form = forms.iter().find(|form| rest.starts_with(form.as_str()))?;
    u32::try_from(form.chars().count()).ok()
}

/// Replaces pieces of lines.
fn replaced(text: &str, mut names: Vec<(Span, String)>) -> String {
    names.sort_by_key(|(span, _)| (span.line, span.column));
    let mut names = names.into_iter().peekable();
    let mut out = String::with_capacity(text.len());
    for (number, line) in (1u32..).zip(text.split_inclusive('\n')) {
        let mut column = 1u32;
        let mut characters = line.chars();
        while let Some((span, name)) = names.next_if(|(s, _)| s.line == number) {
            out.extend(characters.by_ref().take((span.column - column) as usize));
            out.push_str(&name);
            let width = span.end_column.saturating_sub(span.column) as usize;
            characters.by_ref().take(width).for_each(drop);
            column = span.end_column;
        }
        out.extend(characters);
    }
    out
}

fn locals(path: &str, text: &str) -> Vec<Local> {
    if !text.contains("TemplateURL") {
        return Vec::new();
    }
    let Ok(root) = yaml::parse(path, text, &Limits::TEMPLATE) else {
        return Vec::new();
    };
    let resources = root.get("Resources").map(Node::entries).unwrap_or_default();
    let stacks = resources
        .iter()
        .filter(|(_, r)| r.get("Type").and_then(Node::string) == Some(NESTED));
    let urls = stacks.filter_map(|(_, r)| r.get("Properties")?.get("TemplateURL"));
    let plain = urls.filter(|n| n.tag.is_none());
    plain
        .filter_map(|node| {
            let written = node.string()?;
            let elsewhere =
                written.is_empty() || written.contains("://") || written.starts_with("{{");
            (!elsewhere).then(|| Local {
                span: node.span,
                written: written.to_owned(),
                quoted: matches!(node.kind, Kind::Scalar(_, Style::Quoted)),
            })
        })
        .collect()
}

/// Returns where a path leads from a file, if it stays inside the repository.
fn beside(path: &str, written: &str) -> Option<String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    if !written.chars().all(fine) || written.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in written.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str, files: &[(&str, &str)]) -> Result<Option<Named>, Vec<Finding>> {
        let file = |path: &str| {
            let found = files.iter().find(|(name, _)| *name == path);
            found.map(|(_, text)| Arc::from(*text))
        };
        name_nested("stacks/parent.yaml", text, &file)
    }

    const LEAF: &str = "Resources: { T: { Type: AWS::SNS::Topic } }\n";

    #[test]
    fn every_way_to_write_a_path_becomes_a_name_and_nothing_else_moves() {
        let hash = sha256_hex(LEAF.as_bytes());
        for (before, after) in [
            ("      TemplateURL: ", " # wörter: TemplateURL"),
            ("      TemplateURL: ", ""),
        ] {
            for written in ["leaf.yaml", "\"leaf.yaml\"", "'leaf.yaml'"] {
                let text = format!(
                    "# ünicode\nResources:\n  A:\n    Type: AWS::CloudFormation::Stack\n    Properties:\n{before}{written}{after}\n"
                );
                let found = named(&text, &[("stacks/leaf.yaml", LEAF)])
                    .unwrap()
                    .unwrap();
                let want = text.replacen(written, &format!("\"{SCHEME}{hash}/leaf.yaml\""), 1);
                assert_eq!(found.text, want);
                assert_eq!(found.nested[&hash].as_ref(), LEAF);
            }
        }
        let json = r#"{"Resources": {"A": {"Type": "AWS::CloudFormation::Stack", "Properties": {"TemplateURL": "./leaf.yaml"}}, "B": {"Properties": {"TemplateURL": "../stacks/leaf.yaml"}, "Type": "AWS::CloudFormation::Stack"}}}"#;
        let found = named(json, &[("stacks/leaf.yaml", LEAF)]).unwrap().unwrap();
        assert_eq!(found.text.matches(&hash).count(), 2);
        assert_eq!(found.nested.len(), 1);
        let located = locate_nested(&found.text, &|h| {
            (h == hash).then(|| "https://x/y?versionId=1".to_owned())
        });
        assert_eq!(located.matches("\"https://x/y?versionId=1\"").count(), 2);
        assert!(!located.contains(SCHEME));
        assert_eq!(locate_nested(&found.text, &|_| None), found.text);
    }

    #[test]
    fn what_is_no_path_stays_as_it_is() {
        for url in [
            "https://s3.amazonaws.com/b/k.yaml",
            "!Ref Url",
            "{ 'Fn::Sub': '${B}/x.yaml' }",
            "'{{resolve:ssm:/url}}'",
        ] {
            let text = format!(
                "Resources:\n  A: {{ Type: AWS::CloudFormation::Stack, Properties: {{ TemplateURL: {url} }} }}\n"
            );
            assert_eq!(named(&text, &[]).unwrap(), None, "{url}");
        }
        // Another type's property of that name.
        let other = "Resources: { A: { Type: Custom::X, Properties: { TemplateURL: leaf.yaml } } }";
        assert_eq!(named(other, &[]).unwrap(), None);
    }

    #[test]
    fn a_change_far_below_changes_every_name_above() {
        let middle = "Resources:\n  B: { Type: AWS::CloudFormation::Stack, Properties: { TemplateURL: deep/leaf.yaml } }\n";
        let top = "Resources:\n  A: { Type: AWS::CloudFormation::Stack, Properties: { TemplateURL: middle.yaml } }\n";
        let with = |leaf: &str| {
            let files = [
                ("stacks/middle.yaml", middle),
                ("stacks/deep/leaf.yaml", leaf),
            ];
            named(top, &files).unwrap().unwrap()
        };
        let (one, two) = (with(LEAF), with(&LEAF.replace("T:", "U:")));
        assert_eq!(one.nested.len(), 2);
        assert_ne!(one.text, two.text);
        assert_eq!(one, with(LEAF));
    }

    #[test]
    fn faults_say_where_and_what_to_do() {
        let of = |url: &str| {
            format!(
                "Resources:\n  A:\n    Type: AWS::CloudFormation::Stack\n    Properties:\n      TemplateURL: {url}\n"
            )
        };
        let broken = "Resources: []\n";
        let itself = of("parent.yaml");
        for (url, files, words) in [
            (
                "missing.yaml",
                vec![],
                "there is no file `stacks/missing.yaml`",
            ),
            ("../../x.yaml", vec![], "is no path of a file here"),
            ("/etc/passwd", vec![], "is no path of a file here"),
            ("'a b.yaml'", vec![], "is no path of a file here"),
            (
                ">-\n        leaf.yaml",
                vec![("stacks/leaf.yaml", LEAF)],
                "is not written as it reads",
            ),
            (
                "parent.yaml",
                vec![("stacks/parent.yaml", itself.as_str())],
                "nests itself",
            ),
            ("leaf.yaml", vec![("stacks/leaf.yaml", broken)], "Resources"),
        ] {
            let findings = named(&of(url), &files).unwrap_err();
            assert!(findings[0].message.contains(words), "{url}: {findings:?}");
            assert!(findings[0].place.span.is_some());
        }
    }
}
