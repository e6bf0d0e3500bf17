//! `isoform init`: a sync file from what a repository holds, with the candidates where it cannot know.

use std::collections::BTreeMap;
use std::path::Path;

use super::show::{self, DIM, GREEN, RESET};
use super::{DONE, Global, Output, diff};
use crate::domain::model::counted;
use crate::domain::spec::{parse_environment_spec, parse_ops, parse_service_spec, spec_kind};
use crate::domain::template::{
    BundleKind, Files, find_bundles, find_components, load_bundle, text_of,
};

struct Found {
    environments: Vec<String>,
    services: Vec<String>,
    components: Vec<String>,
    environment_specs: Vec<String>,
    service_specs: Vec<(String, Vec<(String, String)>)>,
    ops: Vec<(String, Vec<String>)>,
    deployments: Vec<String>,
}

/// `isoform init`
pub(crate) fn init(global: &Global, folder: &Path, force: bool) -> anyhow::Result<u8> {
    let path = folder.join("isoform.yaml");
    if path.exists() && !force {
        return Err(super::usage(format!(
            "{} exists; --force overwrites it",
            path.display()
        )));
    }
    let (files, _) = diff::clone_files(folder)?;
    let found = find(&files);
    let text = write(&found);
    std::fs::write(&path, &text)?;
    let open = text.lines().filter(|l| l.contains("CHOOSE")).count();
    let specs = found.environment_specs.len() + found.service_specs.len();
    if global.output == Output::Json {
        show::json(&serde_json::json!({
            "file": path,
            "environment_templates": found.environments.len(),
            "service_templates": found.services.len(),
            "components": found.components.len(),
            "specs": specs,
            "choose": open,
        }))?;
        return Ok(DONE);
    }
    anstream::println!("{GREEN}wrote{RESET} {}", path.display());
    anstream::println!(
        "  {}, {}, {}, {}",
        counted(found.environments.len(), "environment template"),
        counted(found.services.len(), "service template"),
        counted(found.components.len(), "component"),
        counted(specs, "spec")
    );
    if open > 0 {
        anstream::println!(
            "  {} CHOOSE: isoform cannot know {}",
            if open == 1 {
                "1 line says".to_owned()
            } else {
                format!("{open} lines say")
            },
            if open == 1 { "it" } else { "them" }
        );
    }
    anstream::println!("next  {DIM}read it, then{RESET} isoform validate");
    Ok(DONE)
}

fn find(files: &Files) -> Found {
    let mut found = Found {
        environments: vec![],
        services: vec![],
        components: find_components(files),
        environment_specs: vec![],
        service_specs: vec![],
        ops: vec![],
        deployments: vec![],
    };
    let mut roots = Vec::new();
    for path in find_bundles(files) {
        roots.push(path.root.clone());
        let (Some(bundle), _) = load_bundle(files, &path.root) else {
            continue;
        };
        let name = format!("{}@{}", path.name, path.major.unwrap_or(1));
        match bundle.kind {
            BundleKind::Environment => found.environments.push(name),
            BundleKind::Service => found.services.push(name),
        }
    }
    for path in files
        .keys()
        .filter(|p| p.ends_with(".yaml") || p.ends_with(".yml"))
    {
        if roots.iter().any(|r| {
            path.starts_with(&format!("{r}/schema/"))
                || path.starts_with(&format!("{r}/infrastructure/"))
        }) {
            continue;
        }
        let Ok(text) = text_of(files, path) else {
            continue;
        };
        match spec_kind(text).as_deref() {
            Some("EnvironmentSpec") if parse_environment_spec(path, text).is_ok() => {
                found.environment_specs.push(path.clone());
            }
            Some("ServiceSpec") => {
                if let Ok(spec) = parse_service_spec(path, text) {
                    found.service_specs.push((
                        path.clone(),
                        spec.instances
                            .into_iter()
                            .map(|i| (i.name, i.environment))
                            .collect(),
                    ));
                }
            }
            _ if path.ends_with("proton-ops.yaml") => {
                if let Ok(entries) = parse_ops(path, text) {
                    let mut services: Vec<String> =
                        entries.into_iter().map(|e| e.service).collect();
                    services.dedup();
                    found.ops.push((path.clone(), services));
                }
            }
            _ if text.contains("template-file-path:") => found.deployments.push(path.clone()),
            _ => {}
        }
    }
    found
}

fn stem(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split('.').next().unwrap_or(file);
    let name = if matches!(stem, "spec" | "service" | "env-spec" | "svc-spec") {
        path.rsplit('/').nth(1).unwrap_or(stem)
    } else {
        stem
    };
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
                c
            } else {
                '-'
            }
        })
        .collect::<String>()
        .trim_start_matches('-')
        .to_owned()
}

/// Takes the only candidate, or writes a commented line with all of them.
fn choose(key: &str, candidates: &[String], out: &mut String, indent: &str) {
    match candidates {
        [one] => out.push_str(&format!("{indent}{key}: {one}\n")),
        [] => out.push_str(&format!(
            "{indent}{key}: CHOOSE        # none was found in this repository\n"
        )),
        many => out.push_str(&format!(
            "{indent}{key}: CHOOSE        # one of {}\n",
            many.join(", ")
        )),
    }
}

fn write(found: &Found) -> String {
    let mut out = String::from(
        "# What should exist, at which template version, where. `isoform schema sync` describes the format.\nisoform: 1\n",
    );
    let mut wanted: BTreeMap<String, ()> = BTreeMap::new();
    for (_, instances) in &found.service_specs {
        wanted.extend(instances.iter().map(|(_, e)| (e.clone(), ())));
    }
    if !found.environment_specs.is_empty() || !wanted.is_empty() {
        out.push_str("environments:\n");
    }
    let mut named: Vec<String> = Vec::new();
    // `prod.us-east-1.yaml` and `prod.eu-west-1.yaml` are one environment, with a spec for each region.
    let mut specs: Vec<String> = Vec::new();
    for path in &found.environment_specs {
        let (folder, file) = path
            .rsplit_once('/')
            .map_or(("", path.as_str()), |(d, f)| (d, f));
        let parts: Vec<&str> = file.split('.').collect();
        let regional = parts.len() == 3 && parts[1].matches('-').count() >= 2;
        let spec = match (regional, folder) {
            (true, "") => format!("{}.{{region}}.{}", parts[0], parts[2]),
            (true, folder) => format!("{folder}/{}.{{region}}.{}", parts[0], parts[2]),
            (false, _) => path.clone(),
        };
        if !specs.contains(&spec) {
            specs.push(spec);
        }
    }
    for path in &specs {
        let own = stem(path);
        let only: Vec<&String> = wanted.keys().collect();
        // A spec does not hold its environment's name; a single environment that specs ask for must be it.
        let name = if wanted.contains_key(&own) || only.len() != 1 || specs.len() != 1 {
            own
        } else {
            only[0].clone()
        };
        out.push_str(&format!("  {name}:\n"));
        choose("template", &found.environments, &mut out, "    ");
        out.push_str(&format!("    spec: \"{path}\"\n    placement: {name}        # a placement of the daemon's configuration\n"));
        named.push(name);
    }
    for name in wanted.keys().filter(|n| !named.contains(n)) {
        out.push_str(&format!("  # {name} is asked for by a service spec, and no EnvironmentSpec was found for it:\n  # {name}: {{ template: {}, spec: CHOOSE, placement: {name} }}\n", found.environments.first().map_or("CHOOSE", String::as_str)));
    }
    if !found.service_specs.is_empty() || !found.ops.is_empty() {
        out.push_str("services:\n");
    }
    let in_ops: Vec<&String> = found.ops.iter().flat_map(|(_, s)| s).collect();
    for (path, services) in &found.ops {
        for service in services {
            out.push_str(&format!("  {service}:\n"));
            choose("template", &found.services, &mut out, "    ");
            out.push_str(&format!("    ops: {path}\n"));
        }
    }
    for (path, _) in found
        .service_specs
        .iter()
        .filter(|(p, _)| in_ops.is_empty() || !in_ops.iter().any(|s| p.contains(s.as_str())))
    {
        out.push_str(&format!("  {}:\n", stem(path)));
        choose("template", &found.services, &mut out, "    ");
        out.push_str(&format!("    spec: {path}\n    # pipeline: {{ placement: CHOOSE }}        # where its pipeline goes, if its template has one\n"));
    }
    if !found.components.is_empty() {
        out.push_str("# components:\n");
        for directory in &found.components {
            out.push_str(&format!("#   {}: {{ files: {directory}, environment: CHOOSE, attach: <service>/<instance> }}\n", stem(directory)));
        }
    }
    if !found.deployments.is_empty() {
        out.push_str("stacks:\n");
        for path in &found.deployments {
            out.push_str(&format!(
                "  {}: {{ template: {path}, placement: CHOOSE }}\n",
                stem(path)
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::template::Blob;

    #[test]
    fn what_cannot_be_known_is_left_to_choose() {
        let schema = "schema: {format: {openapi: '3.0.0'}, environment_input_type: A, types: {A: {type: object, properties: {a: {type: string}}}}}";
        let manifest = "infrastructure: {templates: [{file: c.yaml, rendering_engine: jinja, template_language: cloudformation}]}";
        let files: Files = [
            ("envs/net/v1/schema/schema.yaml", schema),
            ("envs/net/v1/infrastructure/manifest.yaml", manifest),
            ("envs/net/v1/infrastructure/c.yaml", "x"),
            (
                "specs/env-spec.yaml",
                "proton: EnvironmentSpec\nspec: {a: b}\n",
            ),
            (
                "specs/svc.yaml",
                "proton: ServiceSpec\ninstances: [{name: a, environment: beta}]\n",
            ),
        ]
        .into_iter()
        .map(|(p, t)| (p.to_owned(), Blob::new(t.as_bytes())))
        .collect();
        let text = write(&find(&files));
        assert!(
            text.contains("  beta:\n    template: net@1\n    spec: \"specs/env-spec.yaml\""),
            "{text}"
        );
        assert!(
            text.contains("template: CHOOSE        # none was found"),
            "{text}"
        );
    }
}
