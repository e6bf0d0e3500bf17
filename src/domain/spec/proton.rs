//! Proton's own files: specs, the ops file and the two registration files.

use serde_json::Value;

use super::Fields;
use crate::domain::model::{Finding, Place, Span};
use crate::domain::yaml::{self, Limits, Node};

/// The value that means "keep what is deployed".
pub const CURRENT_VALUE: &str = "${Proton::CURRENT_VAL}";

/// An `EnvironmentSpec`.
#[derive(Clone, Debug)]
pub struct EnvironmentSpec {
    /// The values; absent where the spec leaves them out.
    pub values: Option<Node>,
    /// Where findings about missing values point.
    pub span: Span,
}

/// A `ServiceSpec`.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    /// The pipeline's values.
    pub pipeline: Option<Node>,
    /// The instances in the order of the file.
    pub instances: Vec<InstanceSpec>,
    /// Where findings about the whole point.
    pub span: Span,
}

/// One instance of a `ServiceSpec`.
#[derive(Clone, Debug)]
pub struct InstanceSpec {
    /// Its name, unique in the service.
    pub name: String,
    /// The environment it runs in.
    pub environment: String,
    /// Its values; absent means all defaults.
    pub values: Option<Node>,
    /// Where it stands.
    pub span: Span,
    /// Where the environment's name stands.
    pub environment_span: Span,
}

/// One line of an ops file: which file says what an instance is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpsEntry {
    /// The service.
    pub service: String,
    /// The instance.
    pub instance: String,
    /// The branch that holds the spec.
    pub branch: String,
    /// The spec's path.
    pub spec: String,
    /// Where it stands.
    pub span: Span,
}

/// An environment template that a service template goes with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompatibleEnvironment {
    /// The environment template's name.
    pub name: String,
    /// Its major version.
    pub major: u32,
}

/// A registration file of a service template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registration {
    /// Compatible environment templates.
    pub environments: Vec<CompatibleEnvironment>,
    /// Whether directly defined components may be attached.
    pub components: bool,
}

/// Tells what a YAML document says it is: the value of its key `proton`.
pub fn spec_kind(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim_matches(['"', '\'']) == "proton").then_some(value)
    })?;
    let value = value.split(" #").next().unwrap_or_default();
    Some(value.trim().trim_matches(['"', '\'']).to_owned())
}

fn header<'a>(
    file: &'a str,
    text: &'a str,
    kind: &str,
    keys: &[&str],
) -> Result<(Node, Fields<'a>), Vec<Finding>> {
    let root = yaml::parse(file, text, &Limits::SPEC)?;
    let mut fields = Fields::new(file, text);
    if !root.is_mapping() {
        fields.error(
            "spec.shape",
            &root,
            format!("a spec is a mapping with `proton: {kind}`"),
        );
        return Err(fields.findings);
    }
    match root.get("proton") {
        Some(node) if node.text() == Some(kind) => {}
        Some(node) => {
            let finding = Finding::error(
                "spec.kind",
                fields.at(node),
                format!("`proton` must be {kind} here"),
            )
            .help(format!("write `proton: {kind}`"));
            fields.push(finding);
        }
        None => {
            let finding = Finding::error(
                "spec.kind",
                fields.at(&root),
                format!("`proton: {kind}` is missing"),
            );
            fields.push(finding);
        }
    }
    fields.known(&root, &format!("an {kind}"), keys);
    Ok((root, fields))
}

/// Reads an `EnvironmentSpec`.
pub fn parse_environment_spec(file: &str, text: &str) -> Result<EnvironmentSpec, Vec<Finding>> {
    let (root, mut fields) = header(file, text, "EnvironmentSpec", &["proton", "spec"])?;
    let values = fields.mapping(&root, "spec").cloned();
    if fields.findings.is_empty() {
        Ok(EnvironmentSpec {
            values,
            span: root
                .entry("spec")
                .map_or(Span::on_line(1, 1, 1), |(k, _)| k.span),
        })
    } else {
        Err(fields.findings)
    }
}

/// Reads a `ServiceSpec`.
pub fn parse_service_spec(file: &str, text: &str) -> Result<ServiceSpec, Vec<Finding>> {
    let (root, mut fields) = header(
        file,
        text,
        "ServiceSpec",
        &["proton", "pipeline", "instances"],
    )?;
    let pipeline = fields.mapping(&root, "pipeline").cloned();
    let mut instances: Vec<InstanceSpec> = Vec::new();
    let listed: Vec<Node> = fields.list(&root, "instances").to_vec();
    if listed.is_empty() {
        fields.error(
            "spec.instances",
            root.get("instances").unwrap_or(&root),
            "`instances` must list at least one instance",
        );
    }
    for node in &listed {
        fields.known(node, "an instance", &["name", "environment", "spec"]);
        let (name, environment) = (
            fields.required(node, "name", "an instance"),
            fields.required(node, "environment", "an instance"),
        );
        let values = fields.mapping(node, "spec").cloned();
        let (Some(name), Some(environment)) = (name, environment) else {
            continue;
        };
        let span_of = |key: &str| node.get(key).map_or(node.span, |n| n.span);
        for (value, key) in [(&name, "name"), (&environment, "environment")] {
            if crate::domain::model::Address::instance("s", value)
                .to_string()
                .parse::<crate::domain::model::Address>()
                .is_err()
            {
                let place = Place::at(file, span_of(key), text);
                fields.push(
                    Finding::error(
                        "spec.name",
                        place,
                        format!("`{}` is not a name", value.escape_debug()),
                    )
                    .help("letters, digits, - and _, at most 100"),
                );
            }
        }
        if let Some(other) = instances.iter().find(|i| i.name == name) {
            let place = Place::at(file, span_of("name"), text);
            let first = Place::at(file, other.span, text);
            fields.push(
                Finding::error(
                    "spec.duplicate",
                    place,
                    format!("the instance `{name}` stands twice"),
                )
                .related(first, "first here"),
            );
            continue;
        }
        instances.push(InstanceSpec {
            name,
            environment,
            values,
            span: span_of("name"),
            environment_span: span_of("environment"),
        });
    }
    if fields.findings.is_empty() {
        Ok(ServiceSpec {
            pipeline,
            instances,
            span: root.span,
        })
    } else {
        Err(fields.findings)
    }
}

/// Reads an ops file: `sync.services.<service>.<instance>.{branch, spec}`.
pub fn parse_ops(file: &str, text: &str) -> Result<Vec<OpsEntry>, Vec<Finding>> {
    let root = yaml::parse(file, text, &Limits::SYNC)?;
    let mut fields = Fields::new(file, text);
    fields.known(&root, "an ops file", &["sync"]);
    let mut entries = Vec::new();
    let services = fields.mapping(&root, "sync").and_then(|sync| {
        fields.known(sync, "`sync`", &["services"]);
        fields.mapping(sync, "services")
    });
    if services.is_none() {
        fields.error(
            "ops.shape",
            &root,
            "an ops file has the keys `sync: services:`",
        );
    }
    for (service, instances) in services.map(Node::entries).unwrap_or_default() {
        for (instance, node) in instances.entries() {
            fields.known(node, "an instance of an ops file", &["branch", "spec"]);
            let branch = fields.required(node, "branch", "an instance of an ops file");
            if node.get("spec").is_none() {
                fields.error(
                    "key.missing",
                    instance,
                    "an instance of an ops file lacks `spec`",
                );
            }
            if let (Some(branch), Some(spec)) = (branch, fields.path(node, "spec")) {
                entries.push(OpsEntry {
                    service: service.key_text(),
                    instance: instance.key_text(),
                    branch,
                    spec,
                    span: instance.span,
                });
            }
        }
    }
    if fields.findings.is_empty() {
        Ok(entries)
    } else {
        Err(fields.findings)
    }
}

/// Reads `.template-registration.yaml` or `.compatible-envs`.
pub fn parse_registration(file: &str, text: &str) -> (Option<Registration>, Vec<Finding>) {
    let mut fields = Fields::new(file, text);
    let mut listed: Vec<(String, Span)> = Vec::new();
    let mut components = false;
    if file.ends_with(".compatible-envs") {
        // Proton had no key for component sources in this older form; what it allowed is not known, so allow.
        components = true;
        for (index, line) in text.lines().enumerate() {
            let entry = line.trim();
            if !entry.is_empty() {
                listed.push((
                    entry.to_owned(),
                    Span::on_line(index as u32 + 1, 1, entry.chars().count() as u32),
                ));
            }
        }
    } else {
        let root = match yaml::parse(file, text, &Limits::SPEC) {
            Ok(root) => root,
            Err(findings) => return (None, findings),
        };
        if let Some((key, _)) = root.entry("compatible_environment") {
            let finding = Finding::error(
                "registration.key",
                fields.at(key),
                "`compatible_environment` is misspelt",
            )
            .help("write `compatible_environments`");
            fields.push(finding);
            return (None, fields.findings);
        }
        fields.known(
            &root,
            "a registration file",
            &["compatible_environments", "supported_component_sources"],
        );
        for node in fields.list(&root, "compatible_environments").to_vec() {
            listed.push((node.key_text(), node.span));
        }
        for source in fields.list(&root, "supported_component_sources").to_vec() {
            components |= source.text() == Some("DIRECTLY_DEFINED");
            if source.text() != Some("DIRECTLY_DEFINED") {
                fields.error(
                    "registration.source",
                    &source,
                    "the only component source is DIRECTLY_DEFINED",
                );
            }
        }
    }
    let mut environments = Vec::new();
    for (entry, span) in &listed {
        match entry
            .split_once(':')
            .map(|(n, m)| (n.trim(), m.trim().parse::<u32>()))
        {
            Some((name, Ok(major))) if !name.is_empty() => {
                environments.push(CompatibleEnvironment {
                    name: name.to_owned(),
                    major,
                });
            }
            _ => {
                let place = Place::at(file, *span, text);
                fields.push(
                    Finding::error(
                        "registration.entry",
                        place,
                        format!(
                            "`{}` is not an environment template with its major",
                            entry.escape_debug()
                        ),
                    )
                    .help("write name:1"),
                );
            }
        }
    }
    if listed.is_empty() {
        fields.push(
            Finding::error(
                "registration.empty",
                Place::file(file),
                "no compatible environment is listed",
            )
            .help("list at least one as name:major"),
        );
    }
    if listed.len() > 10 {
        fields.push(Finding::warning(
            "registration.count",
            Place::file(file),
            format!(
                "{} environments are listed, Proton allowed 10",
                listed.len()
            ),
        ));
    }
    let fine = !fields.findings.iter().any(Finding::is_error);
    (
        fine.then_some(Registration {
            environments,
            components,
        }),
        fields.findings,
    )
}

/// Replaces `${Proton::CURRENT_VAL}` by what is stored; reports each that has nothing to stand for.
///
/// Where nothing is stored the key is dropped, so that the schema's default applies, and reported if there is none:
/// the caller passes the names that have one.
pub(crate) fn resolve_current(
    values: &mut Value,
    stored: Option<&Value>,
    defaults: &[&str],
) -> Vec<String> {
    let Some(object) = values.as_object_mut() else {
        return Vec::new();
    };
    let asked: Vec<String> = object
        .iter()
        .filter(|(_, v)| v.as_str() == Some(CURRENT_VALUE))
        .map(|(k, _)| k.clone())
        .collect();
    let mut missing = Vec::new();
    for name in asked {
        match stored.and_then(|s| s.get(&name)) {
            Some(value) => {
                object.insert(name, value.clone());
            }
            None => {
                object.remove(&name);
                if !defaults.contains(&name.as_str()) {
                    missing.push(name);
                }
            }
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn specs_read_with_their_places() {
        let spec = parse_service_spec("s", "proton: \"ServiceSpec\"\npipeline: {a: 1}\ninstances:\n  - name: dev\n    environment: beta\n").unwrap();
        assert_eq!(
            (
                spec.instances[0].name.as_str(),
                spec.instances[0].environment_span.line
            ),
            ("dev", 5)
        );
        assert!(spec.instances[0].values.is_none());
        assert!(
            parse_environment_spec("s", "proton: EnvironmentSpec\n")
                .unwrap()
                .values
                .is_none()
        );
    }

    #[test]
    fn every_fault_of_a_spec_is_named() {
        for (text, code) in [
            (
                "proton: EnvironmentSpec\ninstances: [{name: a, environment: b}]",
                "spec.kind",
            ),
            ("proton: ServiceSpec\n", "spec.instances"),
            ("proton: ServiceSpec\ninstances: [{name: a}]", "key.missing"),
            (
                "proton: ServiceSpec\ninstances: [{name: a, environment: b}, {name: a, environment: c}]",
                "spec.duplicate",
            ),
            (
                "proton: ServiceSpec\ninstances: [{name: a, environment: b, specs: {}}]",
                "key.unknown",
            ),
            (
                "proton: ServiceSpec\ninstances: [{name: ../a, environment: b}]",
                "spec.name",
            ),
            ("- a", "spec.shape"),
        ] {
            let findings = parse_service_spec("s", text).unwrap_err();
            assert!(
                findings.iter().any(|f| f.code == code),
                "{text}: {findings:?}"
            );
        }
    }

    #[test]
    fn both_registration_files_are_read() {
        let expected = vec![
            CompatibleEnvironment {
                name: "a".into(),
                major: 1,
            },
            CompatibleEnvironment {
                name: "b".into(),
                major: 2,
            },
        ];
        assert_eq!(
            parse_registration("x/.compatible-envs", "a:1\n\nb:2\n")
                .0
                .unwrap()
                .environments,
            expected
        );
        let text = "compatible_environments: [a:1, b:2]\nsupported_component_sources: [DIRECTLY_DEFINED]\n";
        let registration = parse_registration("x/.template-registration.yaml", text)
            .0
            .unwrap();
        assert_eq!(
            (registration.environments, registration.components),
            (expected, true)
        );
        let (none, findings) = parse_registration(
            "x/.template-registration.yaml",
            "compatible_environment: [a:1]",
        );
        assert!(none.is_none() && findings[0].code == "registration.key");
    }

    #[test]
    fn ops_files_name_a_spec_for_each_instance() {
        let entries = parse_ops(
            "o",
            "sync:\n  services:\n    web:\n      alpha: {branch: dev, spec: ./a/b.yaml}\n",
        )
        .unwrap();
        assert_eq!(
            (
                entries[0].service.as_str(),
                entries[0].spec.as_str(),
                entries[0].span.line
            ),
            ("web", "a/b.yaml", 4)
        );
    }

    #[test]
    fn the_current_value_is_the_stored_one() {
        let mut values = json!({"a": CURRENT_VALUE, "b": CURRENT_VALUE, "c": CURRENT_VALUE});
        assert_eq!(
            resolve_current(&mut values, Some(&json!({"a": 7})), &["b"]),
            ["c"]
        );
        assert_eq!(values, json!({"a": 7}));
    }
}
