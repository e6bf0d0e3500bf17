//! `manifest.yaml`: which file is rendered, and by which engine.

use crate::domain::model::{Finding, Place, closest};
use crate::domain::spec::Fields;
use crate::domain::yaml::{self, Limits, Node};

/// How a part is provisioned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// Jinja over CloudFormation: what isoform deploys.
    Jinja,
    /// Terraform, which Proton handed over as a pull request. Recognised, not deployed.
    Hcl,
    /// CodeBuild commands. Recognised, not deployed.
    CodeBuild,
}

/// What a manifest says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The engine.
    pub engine: Engine,
    /// The file to render; absent for CodeBuild.
    pub file: Option<String>,
}

/// Reads a manifest. Warnings come beside a result, errors instead of one.
pub fn parse_manifest(file: &str, text: &str) -> (Option<Manifest>, Vec<Finding>) {
    let root = match yaml::parse(file, text, &Limits::SPEC) {
        Ok(root) => root,
        Err(findings) => return (None, findings),
    };
    let mut fields = Fields::new(file, text);
    fields.known(&root, "a manifest", &["infrastructure"]);
    let at = |node: &Node| Place::at(file, node.span, text);
    let Some(infrastructure) = root.get("infrastructure").filter(|n| n.is_mapping()) else {
        fields.push(Finding::error(
            "manifest.shape",
            at(&root),
            "a manifest has the key `infrastructure` with a list `templates`",
        ));
        return (None, fields.findings);
    };
    fields.known(infrastructure, "`infrastructure`", &["templates"]);
    let entries = infrastructure
        .get("templates")
        .map(Node::items)
        .unwrap_or_default();
    let [entry] = entries else {
        fields.push(Finding::error(
            "manifest.templates",
            at(infrastructure),
            format!(
                "`templates` has {} entries, exactly one is allowed",
                entries.len()
            ),
        ));
        return (None, fields.findings);
    };
    if let Some((key, _)) = entry.entry("engine") {
        fields.push(
            Finding::error(
                "manifest.preview",
                at(key),
                "`engine` is the key of Proton's preview",
            )
            .help("write `rendering_engine` instead"),
        );
        return (None, fields.findings);
    }
    fields.known(
        entry,
        "an entry of `templates`",
        &[
            "file",
            "rendering_engine",
            "template_language",
            "settings",
            "input_type",
        ],
    );
    let manifest = engine(entry, &mut fields, &at);
    (manifest, fields.findings)
}

fn engine(entry: &Node, fields: &mut Fields<'_>, at: &dyn Fn(&Node) -> Place) -> Option<Manifest> {
    let Some(engine) = entry.get("rendering_engine") else {
        fields.push(
            Finding::error(
                "manifest.engine",
                at(entry),
                "`rendering_engine` is missing",
            )
            .help("write `rendering_engine: jinja`"),
        );
        return None;
    };
    let language = entry.get("template_language");
    let mut wants = |expected: &str| {
        if language.and_then(Node::text) != Some(expected) {
            let message = format!("`template_language` must be `{expected}` for this engine");
            fields.push(Finding::error(
                "manifest.language",
                at(language.unwrap_or(entry)),
                message,
            ));
        }
    };
    let file = entry.get("file").and_then(Node::string).map(str::to_owned);
    match engine.text() {
        Some("jinja") => {
            wants("cloudformation");
            let Some(name) = file else {
                fields.push(
                    Finding::error("manifest.file", at(entry), "`file` is missing")
                        .help("name the CloudFormation file beside the manifest"),
                );
                return None;
            };
            if name.contains(['/', '\\', '*']) || name == ".." || name == "." {
                let node = entry.get("file").unwrap_or(entry);
                fields.push(Finding::error(
                    "manifest.file",
                    at(node),
                    "`file` is the name of one file beside the manifest",
                ));
                return None;
            }
            Some(Manifest {
                engine: Engine::Jinja,
                file: Some(name),
            })
        }
        Some("hcl") => {
            wants("terraform");
            Some(Manifest {
                engine: Engine::Hcl,
                file,
            })
        }
        Some("codebuild") => {
            let settings = entry.get("settings").filter(|s| s.is_mapping());
            let Some(settings) = settings else {
                fields.push(Finding::error(
                    "manifest.settings",
                    at(entry),
                    "`settings` is missing",
                ));
                return None;
            };
            fields.known(
                settings,
                "`settings`",
                &[
                    "image",
                    "runtimes",
                    "input_type",
                    "env",
                    "provision",
                    "deprovision",
                    "project_properties",
                ],
            );
            for name in ["provision", "deprovision"] {
                if settings.get(name).is_none_or(|n| !n.is_sequence()) {
                    fields.push(Finding::error(
                        "manifest.settings",
                        at(settings),
                        format!("`settings.{name}` must be a list of commands"),
                    ));
                }
            }
            Some(Manifest {
                engine: Engine::CodeBuild,
                file: None,
            })
        }
        other => {
            let names = ["jinja", "hcl", "codebuild"];
            let help = other.and_then(|o| closest(o, names)).map_or_else(
                || "one of jinja, hcl, codebuild".to_owned(),
                |c| format!("did you mean `{c}`?"),
            );
            fields.push(
                Finding::error(
                    "manifest.engine",
                    at(engine),
                    format!("`{}` is not a rendering engine", engine.key_text()),
                )
                .help(help),
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_engines_are_recognised() {
        for (body, engine) in [
            (
                "{file: c.yaml, rendering_engine: jinja, template_language: cloudformation}",
                Engine::Jinja,
            ),
            (
                "{file: '*', rendering_engine: hcl, template_language: terraform}",
                Engine::Hcl,
            ),
            (
                "{rendering_engine: codebuild, settings: {image: x, runtimes: {nodejs: 16}, provision: [a], deprovision: [b]}}",
                Engine::CodeBuild,
            ),
        ] {
            let (manifest, findings) = parse_manifest(
                "m",
                &format!("infrastructure:\n  templates:\n    - {body}\n"),
            );
            assert_eq!(
                (manifest.map(|m| m.engine), findings),
                (Some(engine), vec![])
            );
        }
    }

    #[test]
    fn every_fault_of_a_manifest_is_named() {
        for (body, code) in [
            (
                "infrastructure: {templates: [{file: c, engine: jinja, template_language: cloudformation}]}",
                "manifest.preview",
            ),
            ("infrastructure: {templates: []}", "manifest.templates"),
            (
                "infrastructure: {templates: [{file: ../c, rendering_engine: jinja, template_language: cloudformation}]}",
                "manifest.file",
            ),
            (
                "infrastructure: {templates: [{file: c, rendering_engine: jinga, template_language: cloudformation}]}",
                "manifest.engine",
            ),
            (
                "infrastructure: {templates: [{file: c, rendering_engine: jinja, template_language: terraform}]}",
                "manifest.language",
            ),
            ("templates: []", "manifest.shape"),
        ] {
            let (_, findings) = parse_manifest("m", body);
            assert!(
                findings.iter().any(|f| f.code == code),
                "{body}: {findings:?}"
            );
        }
    }
}
