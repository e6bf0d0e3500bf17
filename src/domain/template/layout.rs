//! Where bundles lie and what a bundle must hold.

use std::collections::{BTreeMap, BTreeSet};

use super::manifest::{Engine, parse_manifest};
use super::{Files, parent, sub_tree, text_of};
use crate::domain::model::{Finding, Place, Span, folded_name};
use crate::domain::schema::Schema;
use crate::domain::spec::{CompatibleEnvironment, Registration, parse_registration};

/// Proton's limits on a bundle: "AWS Proton quotas". Only the size is enforced hard, because official bundles break
/// the others.
const BUNDLE_BYTES: usize = 5 << 20;
const FILE_BYTES: usize = 200 << 10;
const FILE_COUNT: usize = 10;

/// What a bundle's template is for.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum BundleKind {
    /// An environment template.
    Environment,
    /// A service template.
    Service,
}

impl BundleKind {
    /// Returns the word for keys and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Service => "service",
        }
    }
}

/// Where a bundle lies.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BundlePath {
    /// The template's name: the directory above `v<major>`, or the bundle's own directory where there is no version.
    pub name: String,
    /// The major version; absent where the directory is not named `v<major>`.
    pub major: Option<u32>,
    /// The bundle's directory.
    pub root: String,
}

/// One `*infrastructure` directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The engine.
    pub engine: Engine,
    /// Path of the file to render, relative to the bundle.
    pub file: String,
    /// Its text; empty for engines that are not rendered.
    pub text: String,
}

/// A bundle whose pieces were read.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// What it is for.
    pub kind: BundleKind,
    /// Its schema.
    pub schema: Schema,
    /// `infrastructure/` of an environment; absent where the environment is customer-managed.
    pub infrastructure: Option<Part>,
    /// `instance_infrastructure/` of a service.
    pub instance: Option<Part>,
    /// `pipeline_infrastructure/` of a service; absent where it is pipeline-less.
    pub pipeline: Option<Part>,
    /// What the registration file says.
    pub registration: Option<Registration>,
    /// All files, with paths relative to the bundle.
    pub files: Files,
}

/// A directly defined component: one template and its manifest.
#[derive(Clone, PartialEq, Debug)]
pub struct Component {
    /// The template.
    pub part: Part,
    /// All files.
    pub files: Files,
}

impl Bundle {
    /// Returns the environments that a service template goes with.
    pub fn compatible(&self) -> &[CompatibleEnvironment] {
        self.registration
            .as_ref()
            .map(|r| r.environments.as_slice())
            .unwrap_or_default()
    }

    /// Tells whether this is an environment that somebody else provisions.
    pub fn is_customer_managed(&self) -> bool {
        self.kind == BundleKind::Environment && self.infrastructure.is_none()
    }
}

/// Finds every bundle of a tree: each directory that holds `schema/`.
pub fn find_bundles(files: &Files) -> Vec<BundlePath> {
    let roots: BTreeSet<&str> = files
        .keys()
        .filter_map(|path| {
            path.strip_suffix("/schema/schema.yaml")
                .or((path == "schema/schema.yaml").then_some(""))
        })
        .collect();
    let found = roots.into_iter().map(|root| {
        let (above, last) = root.rsplit_once('/').unwrap_or(("", root));
        let major = last
            .strip_prefix('v')
            .filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|d| d.parse().ok());
        let name = if major.is_some() {
            above.rsplit('/').next().unwrap_or_default()
        } else {
            last
        };
        BundlePath {
            name: name.to_owned(),
            major,
            root: root.to_owned(),
        }
    });
    found.collect()
}

/// Finds every directly defined component: a directory with a manifest that belongs to no bundle.
pub fn find_components(files: &Files) -> Vec<String> {
    let bundles = find_bundles(files);
    files
        .keys()
        // Many tools have files of this name; one of a component has this key.
        .filter(|path| {
            path.ends_with("/manifest.yaml")
                && text_of(files, path)
                    .is_ok_and(|t| t.lines().any(|l| l.starts_with("infrastructure:")))
        })
        .map(|path| parent(path))
        .filter(|directory| {
            !bundles
                .iter()
                .any(|b| b.root.is_empty() || directory.starts_with(&format!("{}/", b.root)))
        })
        .map(str::to_owned)
        .collect()
}

/// The names that changed between Proton's preview and its release.
const PREVIEW_MAPPING: &str = "this is the layout of Proton's preview. Rename: \
`infrastructure/` of a service → `instance_infrastructure/`; `pipeline/` → `pipeline_infrastructure/`; \
manifest key `engine` → `rendering_engine`; \
`environment.x` → `environment.inputs.x` (own) or `environment.outputs.x` (from services); \
`service_instance.x` → `service_instance.inputs.x`; `service_instance_name` → `service_instance.name`; `service_name` → `service.name`; \
`source.repository`, `source.branch`, `source.connection_arn` → `service.repository_id`, `service.branch_name`, `service.repository_connection_arn`; \
`pipeline.x` → `pipeline.inputs.x`; `service_instances[0].spec.x` → `service_instances[0].outputs.x`";

/// Reads one bundle. Warnings come beside a result; with any error the result must not be used for deploying.
pub fn load_bundle(files: &Files, root: &str) -> (Option<Bundle>, Vec<Finding>) {
    let own = sub_tree(files, root);
    let full = |path: &str| {
        if root.is_empty() {
            path.to_owned()
        } else {
            format!("{root}/{path}")
        }
    };
    let mut findings = limits(&own, root);
    let schema = match text_of(&own, "schema/schema.yaml") {
        Ok(text) => {
            let (schema, more) = Schema::parse(&full("schema/schema.yaml"), text);
            findings.extend(more);
            schema
        }
        Err(finding) => {
            findings.push(Finding {
                place: Place::file(full("schema/schema.yaml")),
                ..*finding
            });
            None
        }
    };
    let registration = registration(&own, &full, &mut findings);
    let Some(schema) = schema else {
        return (None, findings);
    };
    let kind = if schema.environment.is_some() {
        BundleKind::Environment
    } else {
        BundleKind::Service
    };
    let has = |directory: &str| {
        own.keys()
            .any(|path| path.starts_with(&format!("{directory}/")))
    };
    for directory in own
        .keys()
        .filter_map(|p| p.strip_suffix("/manifest.yaml"))
        .filter(|d| !d.contains('/'))
    {
        let known = [
            "infrastructure",
            "instance_infrastructure",
            "pipeline_infrastructure",
        ];
        if !known.contains(&directory) {
            let mut finding = Finding::error(
                "bundle.layout",
                Place::file(full(directory)),
                format!("`{directory}/` is not a directory of a bundle, and it holds a manifest"),
            );
            finding.help = Some(crate::domain::model::closest(directory, known).map_or_else(
                || format!("known are {}", known.join(", ")),
                |c| format!("did you mean `{c}/`?"),
            ));
            findings.push(finding);
        }
    }
    let mut bundle = Bundle {
        kind,
        schema,
        infrastructure: None,
        instance: None,
        pipeline: None,
        registration,
        files: own.clone(),
    };
    let mut load = |directory: &str| -> Option<Part> {
        if !has(directory) {
            return None;
        }
        let (part, more) = part(&own, directory, &full);
        findings.extend(more);
        part
    };
    match kind {
        BundleKind::Environment => {
            bundle.infrastructure = load("infrastructure");
            for other in ["instance_infrastructure", "pipeline_infrastructure"] {
                if has(other) {
                    findings.push(Finding::error(
                        "bundle.layout",
                        Place::file(full(other)),
                        format!("an environment template has no `{other}/`"),
                    ));
                }
            }
            if bundle.infrastructure.is_none() && !has("infrastructure") {
                customer_managed(&bundle, &full, &mut findings);
            }
        }
        BundleKind::Service => {
            bundle.instance = load("instance_infrastructure");
            bundle.pipeline = load("pipeline_infrastructure");
            if !has("instance_infrastructure") {
                let mut finding = Finding::error(
                    "bundle.layout",
                    Place::file(full("instance_infrastructure")),
                    "a service template needs `instance_infrastructure/`",
                );
                if has("infrastructure") || has("pipeline") {
                    finding = Finding::error(
                        "bundle.preview",
                        Place::file(full("infrastructure")),
                        PREVIEW_MAPPING,
                    );
                }
                findings.push(finding);
            }
            let has_input = bundle.schema.pipeline.is_some();
            if has_input != has("pipeline_infrastructure") {
                let message = if has_input {
                    "the schema names a `pipeline_input_type`, and there is no `pipeline_infrastructure/`"
                } else {
                    "there is a `pipeline_infrastructure/`, and the schema names no `pipeline_input_type`"
                };
                findings.push(Finding::error(
                    "bundle.pipeline",
                    Place::file(full("schema/schema.yaml")),
                    message,
                ));
            }
        }
    }
    (Some(bundle), findings)
}

/// Reads a directly defined component.
pub fn load_component(files: &Files, directory: &str) -> (Option<Component>, Vec<Finding>) {
    let full = |path: &str| path.to_owned();
    let (part, mut findings) = part(files, directory, &full);
    let files = sub_tree(files, directory);
    if let Some(manifest) = files.get("manifest.yaml").filter(|m| m.bytes.len() > 1024) {
        let message = format!(
            "the manifest of a component has {} characters, Proton allowed 1,024",
            manifest.bytes.len()
        );
        findings.push(Finding::warning(
            "component.size",
            Place::file(format!("{directory}/manifest.yaml")),
            message,
        ));
    }
    let part = part.map(|part| Part {
        file: part
            .file
            .strip_prefix(&format!("{directory}/"))
            .unwrap_or(&part.file)
            .to_owned(),
        ..part
    });
    (part.map(|part| Component { part, files }), findings)
}

fn limits(own: &Files, root: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let total: usize = own.values().map(|b| b.bytes.len()).sum();
    if total > BUNDLE_BYTES {
        findings.push(Finding::error(
            "bundle.size",
            Place::file(root),
            format!("the bundle has {total} bytes, at most {BUNDLE_BYTES} are allowed"),
        ));
    }
    if own.len() > FILE_COUNT {
        findings.push(Finding::warning(
            "bundle.files",
            Place::file(root),
            format!(
                "the bundle has {} files; Proton's written limit was {FILE_COUNT}",
                own.len()
            ),
        ));
    }
    let mut names: BTreeMap<String, &str> = BTreeMap::new();
    for path in own.keys() {
        if let Some(other) = names.insert(folded_name(path), path) {
            let message = format!(
                "the name differs from `{}` in letter case or Unicode form only: on some systems the bundle is another one",
                other.escape_debug()
            );
            let place = Place::file(format!("{root}/{path}"));
            findings.push(
                Finding::error("bundle.ambiguous", place, message).help("rename one of them"),
            );
        }
    }
    for (path, blob) in own {
        if blob.bytes.len() > FILE_BYTES {
            let message = format!(
                "the file has {} bytes; Proton's written limit was {FILE_BYTES}",
                blob.bytes.len()
            );
            findings.push(Finding::warning(
                "bundle.file-size",
                Place::file(format!("{root}/{path}")),
                message,
            ));
        }
    }
    findings
}

fn customer_managed(bundle: &Bundle, full: &dyn Fn(&str) -> String, findings: &mut Vec<Finding>) {
    let Some(input) = &bundle.schema.environment else {
        return;
    };
    for (name, kind) in input.property_types() {
        if kind != Some("string") {
            let message = format!(
                "`{name}` must have the type string: the inputs of a customer-managed environment are its outputs"
            );
            findings.push(Finding::error(
                "bundle.customer-managed",
                Place::file(full("schema/schema.yaml")),
                message,
            ));
        }
    }
}

/// Points at a file that was meant as the registration: without one, no environment fits the template, and nothing says why.
fn misnamed(own: &Files, full: &dyn Fn(&str) -> String, findings: &mut Vec<Finding>) {
    const NAMES: [&str; 2] = [".compatible-envs", ".template-registration.yaml"];
    let plain = |name: &str| name.replace('_', "-").trim_end_matches(".yml").to_owned();
    for file in own.keys().filter(|f| !f.contains('/')) {
        let meant = NAMES.into_iter().find(|name| {
            plain(file) == name.trim_end_matches(".yaml")
                || plain(file) == *name
                || format!(".{file}") == *name
        });
        if let Some(name) = meant {
            findings.push(
                Finding::warning(
                    "registration.name",
                    Place::file(full(file)),
                    format!("this file is not read; the name is `{name}`"),
                )
                .help("rename it"),
            );
        }
    }
}

fn registration(
    own: &Files,
    full: &dyn Fn(&str) -> String,
    findings: &mut Vec<Finding>,
) -> Option<Registration> {
    let newer = own.contains_key(".template-registration.yaml");
    if newer && own.contains_key(".compatible-envs") {
        let place = Place::file(full(".compatible-envs"));
        findings.push(
            Finding::warning(
                "registration.both",
                place,
                "`.template-registration.yaml` stands beside it and is the one that counts",
            )
            .help("remove this file"),
        );
    }
    let name = if newer {
        ".template-registration.yaml"
    } else {
        ".compatible-envs"
    };
    if !own.contains_key(name) {
        misnamed(own, full, findings);
        return None;
    }
    match text_of(own, name) {
        Ok(text) => {
            let (registration, more) = parse_registration(&full(name), text);
            findings.extend(more);
            registration
        }
        Err(finding) => {
            findings.push(Finding {
                place: Place::file(full(name)),
                ..*finding
            });
            None
        }
    }
}

fn part(
    files: &Files,
    directory: &str,
    full: &dyn Fn(&str) -> String,
) -> (Option<Part>, Vec<Finding>) {
    let path = format!("{directory}/manifest.yaml");
    let text = match text_of(files, &path) {
        Ok(text) => text,
        Err(finding) => {
            return (
                None,
                vec![Finding {
                    place: Place::file(full(&path)),
                    ..*finding
                }],
            );
        }
    };
    let (manifest, mut findings) = parse_manifest(&full(&path), text);
    let Some(manifest) = manifest else {
        return (None, findings);
    };
    if manifest.engine != Engine::Jinja {
        let word = if manifest.engine == Engine::Hcl {
            "hcl"
        } else {
            "codebuild"
        };
        let message = format!(
            "`rendering_engine: {word}` is recognised and checked, and cannot be deployed by isoform yet"
        );
        findings.push(Finding::warning(
            "engine.not-supported",
            Place::file(full(&path)),
            message,
        ));
        if manifest.engine == Engine::Hcl
            && !files
                .keys()
                .any(|p| p.starts_with(&format!("{directory}/")) && p.ends_with(".tf"))
        {
            findings.push(Finding::error(
                "engine.hcl",
                Place::file(full(directory)),
                "there is no file that ends in .tf",
            ));
        }
        let file = manifest.file.unwrap_or_default();
        return (
            Some(Part {
                engine: manifest.engine,
                file: format!("{directory}/{file}"),
                text: String::new(),
            }),
            findings,
        );
    }
    let file = format!("{directory}/{}", manifest.file.unwrap_or_default());
    match text_of(files, &file) {
        Ok(text) => {
            findings.extend(retired_commands(&full(&file), text));
            (
                Some(Part {
                    engine: Engine::Jinja,
                    file,
                    text: text.to_owned(),
                }),
                findings,
            )
        }
        Err(finding) => {
            findings.push(Finding {
                place: Place::file(full(&file)),
                ..*finding
            });
            (None, findings)
        }
    }
}

/// Warns about commands of pipelines that call Proton, which answers no more.
pub fn retired_commands(file: &str, text: &str) -> Vec<Finding> {
    let replacements: BTreeMap<&str, &str> = BTreeMap::from([
        (
            "get-service",
            "read the spec from the repository: it is the file that the sync file names",
        ),
        (
            "update-service-instance",
            "commit the new value to the spec and push; isoform deploys it",
        ),
        (
            "update-service-pipeline",
            "commit the new value to the spec and push; isoform deploys it",
        ),
        (
            "update-service",
            "commit the new spec and push; isoform deploys it",
        ),
        (
            "update-environment",
            "commit the new spec and push; isoform deploys it",
        ),
        ("wait", "`isoform wait <target>` waits for the deployment"),
        (
            "notify-resource-deployment-status-change",
            "nothing listens to it any more",
        ),
    ]);
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some(at) = line.find("aws proton ") else {
            continue;
        };
        let words = line[at..].split_whitespace().skip(2);
        let verb = words
            .filter(|w| !w.starts_with('-') && !w.starts_with('$'))
            .map(|w| w.trim_matches(|c: char| !c.is_ascii_alphanumeric()))
            .next()
            .unwrap_or_default();
        let help = replacements
            .get(verb)
            .copied()
            .unwrap_or("AWS Proton was switched off on 2026-10-07");
        let column = line[..at].chars().count() as u32 + 1;
        let place = Place::at(
            file,
            Span::on_line(index as u32 + 1, column, "aws proton".len() as u32),
            text,
        );
        findings.push(
            Finding::warning(
                "pipeline.retired",
                place,
                format!("`aws proton {verb}` is answered by nobody since 2026-10-07"),
            )
            .help(help),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::template::Blob;

    const MANIFEST: &str = "infrastructure:\n  templates:\n    - {file: c.yaml, rendering_engine: jinja, template_language: cloudformation}\n";

    fn files(all: &[(&str, &str)]) -> Files {
        all.iter()
            .map(|(p, t)| ((*p).to_owned(), Blob::new(t.as_bytes())))
            .collect()
    }

    fn schema(input: &str) -> String {
        format!(
            "schema:\n  format: {{openapi: '3.0.0'}}\n  {input}: In\n  types:\n    In: {{type: object, properties: {{a: {{type: string}}}}}}\n"
        )
    }

    #[test]
    fn a_registration_under_another_name_is_pointed_out() {
        for (name, expected) in [
            (".compatible_envs", true),
            ("compatible-envs", true),
            (".template-registration.yml", true),
            (".template_registration.yaml", true),
            (".compatible-envs", false),
            (".gitignore", false),
            ("README.md", false),
        ] {
            let schema = schema("service_input_type");
            let tree = files(&[("schema/schema.yaml", &schema), (name, "env:1\n")]);

            let (_, findings) = load_bundle(&tree, "");

            let found = findings.iter().any(|f| f.code == "registration.name");
            assert_eq!(found, expected, "{name}: {findings:?}");
        }
    }

    #[test]
    fn bundles_are_found_wherever_they_lie() {
        let tree = files(&[
            ("x/y/fargate/v2/schema/schema.yaml", ""),
            ("lone/schema/schema.yaml", ""),
            ("comp/bucket/manifest.yaml", MANIFEST),
            ("k8s/manifest.yaml", "kind: Pod\n"),
        ]);
        let found: Vec<_> = find_bundles(&tree)
            .into_iter()
            .map(|b| (b.name, b.major, b.root))
            .collect();
        assert_eq!(
            found,
            [
                ("lone".into(), None, "lone".into()),
                ("fargate".into(), Some(2), "x/y/fargate/v2".into())
            ]
        );
        assert_eq!(find_components(&tree), ["comp/bucket"]);
    }

    #[test]
    fn the_kinds_of_bundle_are_told_apart() {
        let environment = files(&[
            ("schema/schema.yaml", &schema("environment_input_type")),
            ("infrastructure/manifest.yaml", MANIFEST),
            ("infrastructure/c.yaml", "x"),
        ]);
        let (bundle, findings) = load_bundle(&environment, "");
        assert!(findings.is_empty(), "{findings:?}");
        assert_eq!(bundle.unwrap().infrastructure.unwrap().text, "x");

        let managed = files(&[("schema/schema.yaml", &schema("environment_input_type"))]);
        let (bundle, findings) = load_bundle(&managed, "");
        assert!(findings.is_empty() && bundle.unwrap().is_customer_managed());
    }

    #[test]
    fn preview_bundles_get_the_mapping() {
        let tree = files(&[
            ("schema/schema.yaml", &schema("service_input_type")),
            ("infrastructure/manifest.yaml", MANIFEST),
            ("infrastructure/c.yaml", "x"),
        ]);
        let (_, findings) = load_bundle(&tree, "");
        assert!(
            findings
                .iter()
                .any(|f| f.code == "bundle.preview"
                    && f.message.contains("service_instance.inputs.x"))
        );
    }

    #[test]
    fn calls_of_the_retired_service_are_pointed_out() {
        let found = retired_commands(
            "c.yaml",
            "a\n  - aws proton --region $R update-service-instance --name x\n",
        );
        assert_eq!(found[0].place.span.unwrap(), Span::on_line(2, 5, 10));
        assert!(
            found[0].help.as_deref().unwrap().contains("push"),
            "{found:?}"
        );
    }
}
