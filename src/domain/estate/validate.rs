//! Checking any collection of bundles and specs, with or without a sync file, and without a daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::compile::{Compiled, SourceTree, compile, current_stored, read_sync};
use super::{Asker, Grant, May, Placement, Sheets, TemplateVersion, Templates};
use crate::domain::bundle;
use crate::domain::model::{Finding, Place, PlacementName};
use crate::domain::policy::{ApprovalRule, Mode, PruneRule};
use crate::domain::render;
use crate::domain::spec::{
    TemplateRef, parse_environment_spec, parse_ops, parse_service_spec, spec_kind,
};
use crate::domain::template::{
    Engine, Files, find_bundles, find_components, load_bundle, load_component, text_of,
};

/// What a check came to.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Every finding, sorted by file and place.
    pub findings: Vec<Finding>,
    /// How many bundles, components, specs and targets were looked at.
    pub bundles: usize,
    /// Components.
    pub components: usize,
    /// Specs.
    pub specs: usize,
    /// Targets of the sync file; 0 without one.
    pub targets: usize,
}

/// Checks everything in a tree.
///
/// `placements` are the daemon's; where they are not known, every name that the sync file uses is taken for granted.
pub fn validate(
    files: &Files,
    placements: Option<&BTreeMap<PlacementName, Placement>>,
    branch: &str,
) -> Checked {
    let mut out = Checked::default();
    let (templates, roots) = bundles(files, &mut out);
    for directory in find_components(files) {
        out.components += 1;
        let (component, findings) = load_component(files, &directory);
        out.findings.extend(findings);
        if let Some(component) = component.filter(|c| c.part.engine == Engine::Jinja)
            && let Err(finding) = render::check(
                &format!("{directory}/{}", component.part.file),
                &component.part.text,
            )
        {
            out.findings.push(*finding);
        }
    }
    let mut bound = BTreeSet::new();
    if files.contains_key("isoform.yaml") {
        let guessed;
        let placements = match placements {
            Some(placements) => placements,
            None => {
                guessed = guess_placements(files);
                &guessed
            }
        };
        let source = "local".parse().unwrap_or_else(|_| unreachable_name());
        let grant = Grant {
            source,
            mode: Mode::Observe,
            may: May::everything(),
        };
        let tree = SourceTree {
            grant: &grant,
            branch,
            files,
            left_out: &BTreeSet::new(),
        };
        let compiled = compile(&[tree], placements, &templates, &current_stored);
        out.targets = compiled.targets.len();
        bound = compiled.bound.clone();
        out.findings.extend(compiled.findings.iter().cloned());
        let mut sheets = Sheets::default();
        sheets.fill(
            &compiled,
            &mut Asker {
                real: &|_| None,
                settled: &|_| false,
                known: &mut |_, _| false,
                on: &mut |_, _, _| {},
            },
        );
        out.findings.extend(sheets.findings().cloned());
    }
    loose_specs(files, &bound, &roots, &mut out);
    out.findings.sort_by(|a, b| {
        (&a.place.file, a.place.span, &a.code).cmp(&(&b.place.file, b.place.span, &b.code))
    });
    out.findings.dedup();
    out
}

/// Renders every target of a tree, with names of outputs standing for their values: for comparing two revisions.
///
/// Targets with faults are left out.
pub fn rendered(files: &Files, branch: &str) -> BTreeMap<String, String> {
    let compiled = offline(files, None, branch);
    let mut texts = BTreeMap::new();
    Sheets::default().fill(
        &compiled,
        &mut Asker {
            real: &|_| None,
            settled: &|_| false,
            known: &mut |_, _| false,
            on: &mut |target, rendering, _| {
                texts.insert(
                    target.address.to_string(),
                    rendering.desired.template.to_string(),
                );
            },
        },
    );
    texts
}

/// Compiles a tree without a daemon: with its own templates, and placements that are guessed where none are given.
pub(super) fn offline(
    files: &Files,
    placements: Option<&BTreeMap<PlacementName, Placement>>,
    branch: &str,
) -> Compiled {
    let (templates, _) = bundles(files, &mut Checked::default());
    let grant = Grant {
        source: "local".parse().unwrap_or_else(|_| unreachable_name()),
        mode: Mode::Observe,
        may: May::everything(),
    };
    let guessed;
    let placements = match placements {
        Some(placements) => placements,
        None => {
            guessed = guess_placements(files);
            &guessed
        }
    };
    let tree = SourceTree {
        grant: &grant,
        branch,
        files,
        left_out: &BTreeSet::new(),
    };
    compile(&[tree], placements, &templates, &current_stored)
}

fn unreachable_name() -> crate::domain::model::SourceName {
    unreachable!("`local` is a source name")
}

fn bundles(files: &Files, out: &mut Checked) -> (Templates, Vec<String>) {
    let mut templates = Templates::default();
    let mut roots = Vec::new();
    let mut seen: BTreeMap<(&str, String, u32), String> = BTreeMap::new();
    for path in find_bundles(files) {
        out.bundles += 1;
        roots.push(path.root.clone());
        let (bundle, findings) = load_bundle(files, &path.root);
        let broken = findings.iter().any(Finding::is_error);
        out.findings.extend(findings);
        let Some(bundle) = bundle else { continue };
        for part in [&bundle.infrastructure, &bundle.instance, &bundle.pipeline]
            .into_iter()
            .flatten()
            .filter(|p| p.engine == Engine::Jinja)
        {
            let full = if path.root.is_empty() {
                part.file.clone()
            } else {
                format!("{}/{}", path.root, part.file)
            };
            if let Err(finding) = render::check(&full, &part.text) {
                out.findings.push(*finding);
            }
        }
        let major = path.major.unwrap_or(1);
        if let Some(other) = seen.insert(
            (bundle.kind.word(), path.name.clone(), major),
            path.root.clone(),
        ) && path.major.is_some()
        {
            let message = format!(
                "the {} template `{}` has the major {major} twice, also in `{other}`",
                bundle.kind.word(),
                path.name
            );
            out.findings.push(
                Finding::warning("bundle.ambiguous", Place::file(path.root.clone()), message)
                    .help("a sync file cannot tell them apart: rename one"),
            );
        }
        if broken {
            continue;
        }
        let version = TemplateVersion {
            version: format!("{}@{major}", path.name),
            digest: bundle::digest(&bundle.files),
            root: path.root.clone(),
            bundle: Arc::new(bundle),
        };
        let reference = TemplateRef {
            name: path.name,
            major,
            minor: None,
        };
        templates.add(version.bundle.kind, &reference, version.clone());
    }
    (templates, roots)
}

/// Makes placements of the names in the sync file. Regions come from specs that are written per region.
fn guess_placements(files: &Files) -> BTreeMap<PlacementName, Placement> {
    let mut placements = BTreeMap::new();
    let (sync, _) = read_sync(files);
    let mut add = |name: &PlacementName, regions: Vec<String>| {
        let regions: Vec<_> = regions.iter().filter_map(|r| r.parse().ok()).collect();
        let entry = placements.entry(name.clone()).or_insert_with(|| Placement {
            name: name.clone(),
            account: "000000000000"
                .parse()
                .unwrap_or_else(|_| unreachable!("twelve digits are an account id")),
            regions: vec![
                "us-east-1"
                    .parse()
                    .unwrap_or_else(|_| unreachable!("us-east-1 is a region")),
            ],
            mode: Mode::Observe,
            critical: false,
            blast_radius: usize::MAX,
            rule: ApprovalRule::default(),
            prune: PruneRule::default(),
            pin_references: false,
        });
        if !regions.is_empty() {
            entry.regions = regions;
        }
    };
    for entry in &sync.environments {
        let regions = match entry.spec.split_once("{region}") {
            Some((before, after)) => files
                .keys()
                .filter_map(|p| {
                    p.strip_prefix(before)?
                        .strip_suffix(after)
                        .map(str::to_owned)
                })
                .collect(),
            None => Vec::new(),
        };
        add(&entry.placement, regions);
    }
    for pipeline in sync.services.iter().filter_map(|s| s.pipeline.as_ref()) {
        add(&pipeline.placement, Vec::new());
    }
    for stack in &sync.stacks {
        add(&stack.placement, Vec::new());
    }
    placements
}

fn loose_specs(files: &Files, bound: &BTreeSet<String>, roots: &[String], out: &mut Checked) {
    for path in files
        .keys()
        .filter(|p| p.ends_with(".yaml") || p.ends_with(".yml"))
    {
        let in_bundle = roots.iter().any(|r| {
            !r.is_empty()
                && path.starts_with(&format!("{r}/"))
                && !path.starts_with(&format!("{r}/spec/"))
        });
        if in_bundle {
            continue;
        }
        let Ok(text) = text_of(files, path) else {
            continue;
        };
        let name = path.rsplit('/').next().unwrap_or_default();
        let findings = match spec_kind(text).as_deref() {
            Some("EnvironmentSpec") => parse_environment_spec(path, text).err(),
            Some("ServiceSpec") => parse_service_spec(path, text).err(),
            Some(other) => {
                let message = format!(
                    "`proton: {}` is neither EnvironmentSpec nor ServiceSpec",
                    other.escape_debug()
                );
                Some(vec![Finding::error(
                    "spec.kind",
                    Place::file(path),
                    message,
                )])
            }
            None if matches!(name, "proton-ops.yaml" | "proton-ops.yml") => {
                parse_ops(path, text).err()
            }
            None => continue,
        };
        out.specs += 1;
        if !bound.contains(path) {
            out.findings.extend(findings.into_iter().flatten());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::template::Blob;

    const MANIFEST: &str = "infrastructure: {templates: [{file: c.yaml, rendering_engine: jinja, template_language: cloudformation}]}";
    const TEMPLATE: &str = "Resources: {T: {Type: 'AWS::SNS::Topic'}}";

    fn schema(kind: &str) -> String {
        format!(
            "schema: {{format: {{openapi: '3.0.0'}}, {kind}_input_type: A, types: {{A: {{type: object, properties: {{a: {{type: string}}}}}}}}}}"
        )
    }

    fn codes(service_spec: &str) -> Vec<String> {
        let files: Files = [
            ("t/environment/net/v1/schema/schema.yaml", schema("environment").as_str()),
            ("t/environment/net/v1/infrastructure/manifest.yaml", MANIFEST),
            ("t/environment/net/v1/infrastructure/c.yaml", TEMPLATE),
            ("t/service/web/v1/schema/schema.yaml", &schema("service")),
            ("t/service/web/v1/.template-registration.yaml", "compatible_environments: ['net:1']\nsupported_component_sources: [DIRECTLY_DEFINED]\n"),
            ("t/service/web/v1/instance_infrastructure/manifest.yaml", MANIFEST),
            ("t/service/web/v1/instance_infrastructure/c.yaml", TEMPLATE),
            ("bucket/manifest.yaml", MANIFEST),
            ("bucket/c.yaml", TEMPLATE),
            ("plain.yaml", TEMPLATE),
            ("beta.yaml", "proton: EnvironmentSpec\nspec: {a: b}\n"),
            ("orders.yaml", service_spec),
            (
                "isoform.yaml",
                "isoform: 1\nenvironments: {beta: {template: net@1, spec: beta.yaml, placement: beta}}\nservices: {orders: {template: web@1, spec: orders.yaml}}\ncomponents: {bucket: {files: bucket, environment: beta, attach: orders/beta}}\nstacks: {plain: {template: plain.yaml, placement: beta, after: [svc/orders/beta]}}\n",
            ),
        ]
        .into_iter()
        .map(|(p, t)| (p.to_owned(), Blob::new(t.as_bytes())))
        .collect();
        let found = validate(&files, None, "main").findings;
        let errors = found.into_iter().filter(Finding::is_error);
        let mut codes: Vec<String> = errors.map(|f| f.code).collect();
        codes.sort();
        codes
    }

    #[test]
    fn a_spec_that_cannot_be_read_is_one_fault() {
        let good =
            "proton: ServiceSpec\ninstances: [{name: beta, environment: beta, spec: {a: b}}]\n";
        assert_eq!(codes(good), Vec::<String>::new());

        let bad = codes("proton: ServiceSpec\ninstances: [{name: beta\n");

        assert_eq!(bad.len(), 1, "{bad:?}");
        assert!(bad[0].starts_with("yaml."), "{bad:?}");
        let other = good.replace("name: beta", "name: betta");
        assert_eq!(codes(&other), ["sync.after", "sync.attach"]);
    }
}
