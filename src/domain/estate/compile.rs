//! From trees of files to targets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::memory::{Memory, Part, templates_of};
use super::target::{RolloutKey, StagePosition, Target, TargetKind};
use super::{Grant, May, Placement, TemplateVersion, Templates, Waves};
use crate::domain::cfn::nested_files;
use crate::domain::graph::Graph;
use crate::domain::model::{
    Address, Finding, Place, PlacementName, Region, SourceName, Span, closest, glob_matches,
};
use crate::domain::render::ServiceData;
use crate::domain::schema::InputType;
use crate::domain::spec::{
    CURRENT_VALUE, ComponentEntry, EnvironmentEntry, Fragment, InstanceSpec, Moved, ServiceEntry,
    ServiceSpec, StackEntry, StackOptions, Stage, SyncFile, TemplateRef, parse_deployment,
    parse_environment_spec, parse_ops, parse_service_spec, parse_sync,
};
use crate::domain::template::{BundleKind, Files, load_component, parent, text_of};
use crate::domain::yaml::Node;

/// Files that one template may nest, all levels together.
const NESTED: usize = 200;

/// The files of one source at one revision.
pub struct SourceTree<'a> {
    /// What the source may do.
    pub grant: &'a Grant,
    /// The branch that it follows.
    pub branch: &'a str,
    /// Its files.
    pub files: &'a Files,
    /// Paths of which nothing could be read, themselves and whatever lies below; an empty one stands for any path.
    pub left_out: &'a BTreeSet<String>,
}

/// What the sources ask for, all together.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// Targets by address.
    pub targets: BTreeMap<Address, Arc<Target>>,
    /// Addresses that two sources claim.
    pub contested: BTreeSet<Address>,
    /// Rollouts by source and name.
    pub rollouts: BTreeMap<RolloutKey, Vec<Stage>>,
    /// Who stands in which wave of them.
    pub waves: Arc<Waves>,
    /// Moved addresses.
    pub moved: Vec<Moved>,
    /// Every finding, those of targets included.
    pub findings: Vec<Finding>,
    /// Who needs whom.
    pub graph: Arc<Graph>,
    /// Whether a fault of a source's own files keeps from telling what it asks for: then nothing of it is orphaned.
    pub incomplete: bool,
    /// Sources that may deploy and have no sync file: what they asked for once is not known to be gone.
    pub without_sync: BTreeSet<SourceName>,
    /// What `after` of a stack names, as written.
    pub after: Vec<(Address, String, Place)>,
    /// Services whose instances are not all known, because a spec cannot be read, with what is wrong with it.
    pub unread: BTreeMap<String, Vec<Finding>>,
    /// Addresses that a move names which cannot be followed, with why: nobody can tell who stands there.
    pub unmoved: BTreeMap<Address, String>,
    /// Files that something bound to a template or target.
    pub bound: BTreeSet<String>,
}

impl Compiled {
    /// Stops whatever moves name that cannot be followed, and nothing else.
    pub fn stop_moves(&mut self, unresolved: Vec<([Address; 2], Finding)>) {
        for (addresses, finding) in unresolved {
            for address in addresses {
                if let Some(target) = self.targets.get_mut(&address) {
                    Arc::make_mut(target).faults.push(finding.clone());
                }
                self.unmoved.insert(address, finding.message.clone());
            }
            self.findings.push(finding);
        }
    }

    /// Takes over from an earlier snapshot every target that is the same, so that both hold one copy.
    pub fn share(&mut self, earlier: &Self) {
        let mut others = earlier.targets.iter().peekable();
        for (address, target) in &mut self.targets {
            while others.next_if(|(a, _)| *a < address).is_some() {}
            if let Some((_, same)) = others.next_if(|(a, _)| *a == address)
                && !Arc::ptr_eq(same, target)
                && same == target
            {
                *target = same.clone();
            }
        }
        if !Arc::ptr_eq(&self.graph, &earlier.graph) && self.graph == earlier.graph {
            self.graph = earlier.graph.clone();
        }
    }
}

/// Looks up the values that are stored for a target: what `${Proton::CURRENT_VAL}` stands for.
pub type Stored<'a> = dyn Fn(&Address) -> Option<Value> + 'a;

/// Knows nothing of what is stored: for checks without a daemon.
pub fn current_stored(_: &Address) -> Option<Value> {
    None
}

/// Turns the trees of all sources into targets, with every fault of every file.
pub fn compile(
    trees: &[SourceTree<'_>],
    placements: &BTreeMap<PlacementName, Placement>,
    templates: &Templates,
    stored: &Stored<'_>,
) -> Compiled {
    compile_after(trees, placements, templates, stored, &mut Memory::default())
}

/// As [`compile()`]; a service whose files are those of an earlier compilation is taken from there.
///
/// `placements` and the grants of the sources must be the same for as long as a memory is used.
pub fn compile_after(
    trees: &[SourceTree<'_>],
    placements: &BTreeMap<PlacementName, Placement>,
    templates: &Templates,
    stored: &Stored<'_>,
    memory: &mut Memory,
) -> Compiled {
    let mut out = Compiled::default();
    memory.with(templates);
    // Environments of all sources first: a service may run in an environment that another source defines.
    let mut read = Vec::new();
    for tree in trees {
        let before = out.findings.iter().filter(|f| f.is_error()).count();
        let both = memory.sync(&tree.grant.source, tree.files, read_sync);
        let (sync, more) = &*both;
        out.findings.extend(more.iter().cloned());
        let hidden = hidden(sync, tree.left_out);
        out.incomplete |= !hidden.is_empty();
        out.findings.extend(hidden);
        if !tree.files.contains_key("isoform.yaml") && !tree.grant.may.placements.is_empty() {
            out.without_sync.insert(tree.grant.source.clone());
        }
        for (name, stages) in &sync.rollouts {
            let key = (tree.grant.source.clone(), name.clone());
            out.rollouts.insert(key, stages.clone());
        }
        Pass::new(tree, placements, templates, stored, sync, &mut out, memory).environments();
        out.incomplete |= out.findings.iter().filter(|f| f.is_error()).count() > before;
        read.push((tree, both));
    }
    let mut names = BTreeSet::new();
    let mut services = read.iter().flat_map(|(_, both)| &both.0.services);
    let distinct = services.all(|s| names.insert(s.name.as_str()));
    for (tree, both) in &read {
        let sync = &both.0;
        let before = out.findings.iter().filter(|f| f.is_error()).count();
        Pass::new(tree, placements, templates, stored, sync, &mut out, memory).rest(distinct);
        out.incomplete |= out.findings.iter().filter(|f| f.is_error()).count() > before;
        for moved in &sync.moved {
            if allowed(&tree.grant.may, &moved.from) && allowed(&tree.grant.may, &moved.to) {
                out.moved.push(moved.clone());
            } else {
                let message = format!(
                    "the source `{}` may not move `{}` to `{}`",
                    tree.grant.source, moved.from, moved.to
                );
                out.findings.push(Finding::error(
                    "sync.denied",
                    Place::file("isoform.yaml"),
                    message,
                ));
            }
        }
    }
    link(&mut out, memory);
    if !out.rollouts.is_empty() {
        out.waves = Arc::new(Waves::of(out.targets.values().map(|t| &**t)));
    }
    out
}

/// Reads the sync file of a tree with the fragments that it includes; nothing where there is none.
pub fn read_sync(files: &Files) -> (SyncFile, Vec<Finding>) {
    if !files.contains_key("isoform.yaml") {
        return (SyncFile::default(), Vec::new());
    }
    let (mut sync, mut findings) = match text_of(files, "isoform.yaml") {
        Ok(text) => parse_sync("isoform.yaml", text, None),
        Err(finding) => return (SyncFile::default(), vec![*finding]),
    };
    for glob in &sync.include {
        if !files.keys().any(|path| glob_matches(glob, path)) {
            findings.push(Finding::warning(
                "sync.include",
                Place::file("isoform.yaml"),
                format!("`{}` matches no file", glob.escape_debug()),
            ));
        }
    }
    let fragments = files.keys().filter(|path| {
        *path != "isoform.yaml" && sync.include.iter().any(|g| glob_matches(g, path))
    });
    for path in fragments.collect::<Vec<_>>() {
        match text_of(files, path) {
            Ok(text) => {
                let beside = Fragment {
                    folder: parent(path),
                    defaults: &sync.defaults,
                };
                let (fragment, more) = parse_sync(path, text, Some(beside));
                findings.extend(more);
                sync.environments.extend(fragment.environments);
                sync.services.extend(fragment.services);
                sync.components.extend(fragment.components);
                sync.stacks.extend(fragment.stacks);
                sync.moved.extend(fragment.moved);
            }
            Err(finding) => findings.push(*finding),
        }
    }
    (sync, findings)
}

/// Finds what was left out and could be a part of the sync file: what stands there is not known to be asked for no more.
fn hidden(sync: &SyncFile, left_out: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let main = "isoform.yaml".to_owned();
    for path in left_out {
        let below = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        for glob in sync.include.iter().chain([&main]) {
            let literal = glob.split(['*', '?', '[', '{']).next().unwrap_or_default();
            let message = format!(
                "nothing of `{}` is read, and `{}` may mean it or what lies below: nothing is removed while that is so",
                path.escape_debug(),
                glob.escape_debug()
            );
            let place = Place::file(path.escape_debug().to_string());
            if glob_matches(glob, path) || literal.starts_with(&below) {
                let help = "make it a plain file or folder, or leave it out of `include`";
                findings.push(Finding::error("sync.hidden", place, message).help(help));
            } else if below.starts_with(literal) && literal != glob {
                let help = "narrow what `include` says, so that it cannot mean this";
                findings.push(Finding::warning("sync.hidden", place, message).help(help));
            }
        }
    }
    findings
}

struct Pass<'a> {
    tree: &'a SourceTree<'a>,
    placements: &'a BTreeMap<PlacementName, Placement>,
    templates: &'a Templates,
    stored: &'a Stored<'a>,
    sync: &'a SyncFile,
    out: &'a mut Compiled,
    /// Environments of this source and of those before it: name, with the targets by region.
    environments: BTreeMap<String, Vec<Address>>,
    memory: &'a mut Memory,
    /// What the service at hand has read and made.
    recorded: Recorded,
}

/// What a service has read and made.
#[derive(Default)]
struct Recorded {
    read: Vec<(String, String)>,
    made: Vec<Address>,
    /// Whether a file asks for values that are stored elsewhere.
    stored: bool,
}

impl<'a> Pass<'a> {
    fn new(
        tree: &'a SourceTree<'a>,
        placements: &'a BTreeMap<PlacementName, Placement>,
        templates: &'a Templates,
        stored: &'a Stored<'a>,
        sync: &'a SyncFile,
        out: &'a mut Compiled,
        memory: &'a mut Memory,
    ) -> Self {
        Self {
            tree,
            placements,
            templates,
            stored,
            sync,
            out,
            environments: BTreeMap::new(),
            memory,
            recorded: Recorded::default(),
        }
    }

    fn environments(&mut self) {
        for entry in &self.sync.environments {
            self.environment(entry);
        }
    }

    fn rest(&mut self, distinct: bool) {
        for (address, target) in &self.out.targets {
            if matches!(
                target.kind,
                TargetKind::Environment { .. }
                    | TargetKind::CustomerManaged { .. }
                    | TargetKind::Broken
            ) && address.kind() == "env"
            {
                self.environments
                    .entry(address.name().to_owned())
                    .or_default()
                    .push(address.clone());
            }
        }
        let hosts = self.out.targets.values();
        let hosts = hosts.filter(|t| t.address.kind() == "env").cloned();
        self.memory.on(&self.tree.grant.source, hosts.collect());
        let mut before = BTreeMap::new();
        for entry in &self.sync.services {
            // Only where no two services have one name can no two ask for one target.
            let known = distinct.then(|| self.as_before(entry)).flatten();
            match known {
                Some(part) => {
                    before.insert(entry.name.clone(), part);
                }
                None => self.service_anew(entry),
            }
        }
        let together = self.memory.together(&self.tree.grant.source, before);
        if self.out.targets.len() < together.len() {
            let others = std::mem::replace(&mut self.out.targets, together.clone());
            self.out.targets.extend(others);
        } else {
            let both = together.iter().map(|(a, t)| (a.clone(), t.clone()));
            self.out.targets.extend(both);
        }
        for entry in &self.sync.components {
            self.component(entry);
        }
        for entry in &self.sync.stacks {
            self.stack(entry);
        }
    }

    /// Takes a service from an earlier compilation, if it would come to the same. Its targets are put in later, all
    /// together.
    fn as_before(&mut self, entry: &ServiceEntry) -> Option<Arc<Part>> {
        let source = &self.tree.grant.source;
        let part = self.memory.service(source, &entry.name, self.tree.files)?;
        self.out.findings.extend(part.findings.iter().cloned());
        for (path, _) in &part.read {
            self.out.bound.insert(path.clone());
        }
        Some(part)
    }

    /// Reads a service, and keeps what it came to where nothing is wrong with it.
    fn service_anew(&mut self, entry: &ServiceEntry) {
        self.recorded = Recorded::default();
        let before = self.out.findings.len();
        self.service(entry);
        let recorded = std::mem::take(&mut self.recorded);
        let findings = &self.out.findings[before..];
        let templates = templates_of(entry, self.templates);
        let fine = !recorded.stored && !findings.iter().any(Finding::is_error);
        let part = templates.filter(|_| fine).map(|templates| Part {
            read: recorded.read,
            templates,
            targets: recorded
                .made
                .iter()
                .filter_map(|a| self.out.targets.get(a).cloned())
                .collect(),
            findings: findings.to_vec(),
        });
        self.memory.keep(&self.tree.grant.source, &entry.name, part);
    }

    fn place(&self, at: &(String, Span)) -> Place {
        let text = text_of(self.tree.files, &at.0).unwrap_or_default();
        let mut place = Place::at(at.0.clone(), at.1, text);
        // A flow mapping puts everything of an entry on one line, secret parameters too: only its name is shown.
        place.excerpt = place.excerpt.map(|line| {
            let shown: String = line.chars().take(at.1.end_column as usize).collect();
            if shown.len() < line.len() {
                format!("{shown} …")
            } else {
                shown
            }
        });
        place
    }

    fn text(&mut self, path: &str, faults: &mut Vec<Finding>) -> Option<String> {
        self.out.bound.insert(path.to_owned());
        if let Some(blob) = self.tree.files.get(path) {
            self.recorded.read.push((path.to_owned(), blob.id.clone()));
        }
        match text_of(self.tree.files, path) {
            Ok(text) => Some(text.to_owned()),
            Err(finding) => {
                faults.push(*finding);
                None
            }
        }
    }

    /// Reads the files that a template nests. One that is missing is told where its path stands, when it is rendered.
    fn nested(&mut self, path: &str, text: &str) -> BTreeMap<String, Arc<str>> {
        let mut found = BTreeMap::new();
        let mut open = nested_files(path, text);
        while let Some(path) = open.pop() {
            if found.contains_key(&path) || found.len() >= NESTED {
                continue;
            }
            if let Some(text) = self.text(&path, &mut Vec::new()) {
                open.extend(nested_files(&path, &text));
                found.insert(path, text.into());
            }
        }
        found
    }

    /// Checks a placement and the grant for it; returns it.
    fn placement(
        &self,
        name: &PlacementName,
        made_by: &Place,
        faults: &mut Vec<Finding>,
    ) -> Option<Placement> {
        let Some(placement) = self.placements.get(name) else {
            let mut finding = Finding::error(
                "sync.placement",
                made_by.clone(),
                format!("the placement `{name}` is not in the daemon's configuration"),
            );
            finding.help = closest(
                name.as_str(),
                self.placements.keys().map(PlacementName::as_str),
            )
            .map(|c| format!("did you mean `{c}`?"));
            faults.push(finding);
            return None;
        };
        if !May::allows(&self.tree.grant.may.placements, name.as_str()) {
            faults.push(self.denied("placements", name.as_str(), made_by));
            return None;
        }
        Some(placement.clone())
    }

    fn denied(&self, what: &str, name: &str, made_by: &Place) -> Finding {
        Finding::error(
            "sync.denied",
            made_by.clone(),
            format!(
                "the source `{}` may not use `{name}`",
                self.tree.grant.source
            ),
        )
        .help(format!(
            "an operator allows it under `sources.{}.may.{what}`",
            self.tree.grant.source
        ))
    }

    fn template(
        &self,
        kind: BundleKind,
        reference: &TemplateRef,
        made_by: &Place,
        faults: &mut Vec<Finding>,
    ) -> Option<TemplateVersion> {
        if let Some(version) = self.templates.get(kind, reference) {
            return Some(version.clone());
        }
        let names = self.templates.names(kind);
        let mut finding = Finding::error(
            "sync.template",
            made_by.clone(),
            format!("the {} template `{reference}` does not exist", kind.word()),
        );
        let written = format!("{}@{}", reference.name, reference.major);
        finding.help = Some(match closest(&written, names.iter().map(String::as_str)) {
            Some(near) if near == written => {
                "its bundle has faults, or that minor was never registered".to_owned()
            }
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are: {}", names.join(", ")),
        });
        faults.push(finding);
        None
    }

    fn policy(&mut self, options: &StackOptions, faults: &mut Vec<Finding>) -> Option<String> {
        let path = options.stack_policy.clone()?;
        let text = self.text(&path, faults)?;
        // CloudFormation API, SetStackPolicy: at most 16,384 bytes of JSON.
        if text.len() > 16_384 || serde_json::from_str::<Value>(&text).is_err() {
            faults.push(Finding::error(
                "stack.policy",
                Place::file(path),
                "a stack policy is JSON of at most 16,384 bytes",
            ));
        }
        Some(text)
    }

    fn stack_name(&self, options: &StackOptions, made_by: &Place, faults: &mut Vec<Finding>) {
        if let Some(name) = &options.stack_name
            && !May::allows(&self.tree.grant.may.stack_names, name.as_str())
        {
            faults.push(self.denied("stack_names", name.as_str(), made_by));
        }
    }

    fn insert(&mut self, target: Target) {
        self.out.findings.extend(target.faults.iter().cloned());
        if let Some(other) = self.out.targets.get(&target.address) {
            self.out.contested.insert(target.address.clone());
            let finding = Finding::error(
                "sync.contested",
                target.made_by.clone(),
                format!("`{}` is asked for twice: neither moves", target.address),
            )
            .related(
                other.made_by.clone(),
                format!("also here, by the source `{}`", other.source),
            );
            self.out.findings.push(finding);
            return;
        }
        self.recorded.made.push(target.address.clone());
        self.out
            .targets
            .insert(target.address.clone(), Arc::new(target));
    }

    fn stage(
        &self,
        rollout: Option<&str>,
        environment: &str,
        placement: &Placement,
        region: &Region,
        made_by: &Place,
        faults: &mut Vec<Finding>,
    ) -> Option<StagePosition> {
        let name = match rollout {
            Some(name) => name.to_owned(),
            None => {
                let mut holding = self.sync.rollouts.iter().filter(|(_, stages)| {
                    stages
                        .iter()
                        .any(|s| s.environments.iter().any(|e| e == environment))
                });
                match (holding.next(), holding.next()) {
                    (Some((name, _)), None) => name.clone(),
                    _ => return None,
                }
            }
        };
        let Some(stages) = self.sync.rollouts.get(&name) else {
            let mut finding = Finding::error(
                "sync.rollout",
                made_by.clone(),
                format!("the rollout `{name}` is not defined"),
            );
            finding.help = closest(&name, self.sync.rollouts.keys().map(String::as_str))
                .map(|c| format!("did you mean `{c}`?"));
            faults.push(finding);
            return None;
        };
        let stage = stages
            .iter()
            .position(|s| s.environments.iter().any(|e| glob_matches(e, environment)))?;
        let region = if stages[stage].one_region_at_a_time {
            placement
                .regions
                .iter()
                .position(|r| r == region)
                .unwrap_or(0)
        } else {
            0
        };
        Some(StagePosition {
            rollout: (self.tree.grant.source.clone(), name),
            stage,
            region,
        })
    }

    fn environment(&mut self, entry: &EnvironmentEntry) {
        let made_by = self.place(&entry.at);
        let mut shared = Vec::new();
        if !May::allows(&self.tree.grant.may.environments, &entry.name) {
            shared.push(self.denied("environments", &entry.name, &made_by));
        }
        let placement = self.placement(&entry.placement, &made_by, &mut shared);
        let template = self.template(
            BundleKind::Environment,
            &entry.template,
            &made_by,
            &mut shared,
        );
        self.stack_name(&entry.options, &made_by, &mut shared);
        let stack_policy = self.policy(&entry.options, &mut shared);
        let Some(placement) = placement else {
            self.out.findings.extend(shared);
            return;
        };
        for region in &placement.regions {
            let several = placement.regions.len() > 1;
            let address = Address::environment(&entry.name).at(several.then(|| region.clone()));
            let mut faults = shared.clone();
            let spec = entry.spec.replace("{region}", region.as_str());
            let mut kind = TargetKind::Broken;
            let mut input_lines = BTreeMap::new();
            let values_at = Some(Place::file(spec.clone()));
            if let (Some(text), Some(template)) = (self.text(&spec, &mut faults), template.clone())
            {
                match parse_environment_spec(&spec, &text) {
                    Ok(parsed) => {
                        input_lines = lines_of(parsed.values.as_ref());
                        if let Some(input) = &template.bundle.schema.environment {
                            let values = self.effective(
                                input,
                                &address,
                                &spec,
                                &text,
                                parsed.values.as_ref(),
                                parsed.span,
                                &mut faults,
                            );
                            kind = if template.bundle.is_customer_managed() {
                                let outputs = values
                                    .as_object()
                                    .into_iter()
                                    .flatten()
                                    .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
                                    .collect();
                                TargetKind::CustomerManaged { outputs }
                            } else {
                                TargetKind::Environment {
                                    template,
                                    inputs: values,
                                }
                            };
                        }
                    }
                    Err(findings) => faults.extend(findings),
                }
            }
            let stage = self.stage(
                entry.rollout.as_deref(),
                &entry.name,
                &placement,
                region,
                &made_by,
                &mut faults,
            );
            self.environments
                .entry(entry.name.clone())
                .or_default()
                .push(address.clone());
            self.insert(Target {
                address,
                source: self.tree.grant.source.clone(),
                placement: placement.clone(),
                region: region.clone(),
                kind,
                options: entry.options.clone(),
                stack_policy: stack_policy.clone(),
                stage,
                after: Vec::new(),
                made_by: made_by.clone(),
                values_at,
                input_lines,
                faults,
            });
        }
    }

    /// Applies current values and defaults, and checks against the schema.
    #[expect(
        clippy::too_many_arguments,
        reason = "a spec's values have a file, a text, a node and a place"
    )]
    fn effective(
        &mut self,
        input: &InputType,
        address: &Address,
        file: &str,
        text: &str,
        node: Option<&Node>,
        at: Span,
        faults: &mut Vec<Finding>,
    ) -> Value {
        let mut values = node.map_or_else(|| json!({}), Node::to_json);
        let asks = values
            .as_object()
            .is_some_and(|o| o.values().any(|v| v.as_str() == Some(CURRENT_VALUE)));
        let stored = asks.then(|| (self.stored)(address)).flatten();
        self.recorded.stored |= asks;
        let defaults = input.defaults();
        let names: Vec<&str> = defaults.iter().map(String::as_str).collect();
        for missing in crate::domain::spec::resolve_current(&mut values, stored.as_ref(), &names) {
            let span = node.and_then(|n| n.get(&missing)).map_or(at, |n| n.span);
            faults.push(
                Finding::error(
                    "spec.current-value",
                    Place::at(file, span, text),
                    format!(
                        "`{missing}` asks for the current value, and {address} has none stored"
                    ),
                )
                .help("write the value itself for the first deployment"),
            );
        }
        let (values, findings) = input.effective(file, text, node, values, at);
        faults.extend(findings);
        values
    }

    fn service(&mut self, entry: &ServiceEntry) {
        let made_by = self.place(&entry.at);
        let mut shared = Vec::new();
        if !May::allows(&self.tree.grant.may.services, &entry.name) {
            shared.push(self.denied("services", &entry.name, &made_by));
        }
        self.stack_name(&entry.options, &made_by, &mut shared);
        let (specs, readable) = self.service_specs(entry, &made_by, &mut shared);
        if !readable {
            let why = shared.clone();
            self.out.unread.insert(entry.name.clone(), why);
        }
        let service = ServiceData {
            name: entry.name.clone(),
            repository_id: entry.repository.id.clone().unwrap_or_default(),
            repository_connection_arn: entry.repository.connection_arn.clone().unwrap_or_default(),
            branch_name: entry.repository.branch.clone().unwrap_or_default(),
        };
        let mut known: Vec<String> = Vec::new();
        let mut instances = Vec::new();
        let mut pipeline_of: Option<(String, String, ServiceSpec)> = None;
        for (file, text, spec, only) in specs {
            for instance in &spec.instances {
                if only.as_ref().is_some_and(|o| !o.contains(&instance.name)) {
                    continue;
                }
                known.push(instance.name.clone());
                if entry
                    .instances
                    .as_ref()
                    .is_some_and(|list| !list.iter().any(|(n, _)| n == &instance.name))
                {
                    continue;
                }
                instances.extend(
                    self.instance(entry, &service, &file, &text, instance, &shared, &made_by),
                );
            }
            pipeline_of.get_or_insert((file, text, spec));
        }
        // A spec that cannot be read has been reported; that instances are missing from it would only be noise.
        if readable {
            let mut missing: Vec<(String, &(String, Span))> = Vec::new();
            let listed: Vec<(String, (String, Span))> = entry
                .instances
                .iter()
                .flatten()
                .map(|(n, s)| (n.clone(), (entry.at.0.clone(), *s)))
                .collect();
            missing.extend(
                listed
                    .iter()
                    .filter(|(n, _)| !known.contains(n))
                    .map(|(n, at)| (n.clone(), at)),
            );
            missing.extend(
                entry
                    .overrides
                    .iter()
                    .filter(|o| !known.contains(&o.instance))
                    .map(|o| (o.instance.clone(), &o.at)),
            );
            for (name, at) in missing {
                let mut finding = Finding::error(
                    "sync.instance",
                    self.place(at),
                    format!("the spec has no instance `{name}`"),
                );
                finding.help = closest(&name, known.iter().map(String::as_str))
                    .map(|c| format!("did you mean `{c}`?"));
                self.out.findings.push(finding);
            }
        }
        if !readable && instances.is_empty() {
            self.broken_service(entry, &shared, &made_by);
            return;
        }
        self.pipeline(entry, &service, pipeline_of, &instances, &shared, &made_by);
    }

    /// Keeps a service visible whose spec cannot be read: its instances are not known, so one target stands for it.
    fn broken_service(&mut self, entry: &ServiceEntry, shared: &[Finding], made_by: &Place) {
        self.out.findings.extend(shared.iter().cloned());
        let Some(pipeline) = &entry.pipeline else {
            return;
        };
        let Some(placement) = self.placements.get(&pipeline.placement).cloned() else {
            return;
        };
        let target = Target {
            address: Address::pipeline(&entry.name),
            source: self.tree.grant.source.clone(),
            region: placement.regions[0].clone(),
            placement,
            kind: TargetKind::Broken,
            options: StackOptions::default(),
            stack_policy: None,
            stage: None,
            after: Vec::new(),
            made_by: made_by.clone(),
            values_at: entry.spec.clone().map(Place::file),
            input_lines: BTreeMap::new(),
            faults: shared.to_vec(),
        };
        self.out
            .targets
            .entry(target.address.clone())
            .or_insert_with(|| Arc::new(target));
    }

    #[expect(
        clippy::type_complexity,
        reason = "file, text, spec and the instances that an ops file takes from it"
    )]
    fn service_specs(
        &mut self,
        entry: &ServiceEntry,
        made_by: &Place,
        shared: &mut Vec<Finding>,
    ) -> (
        Vec<(String, String, ServiceSpec, Option<Vec<String>>)>,
        bool,
    ) {
        let mut wanted: BTreeMap<String, Option<Vec<String>>> = BTreeMap::new();
        if let Some(spec) = &entry.spec {
            wanted.insert(spec.clone(), None);
        }
        if let Some(ops) = &entry.ops
            && let Some(text) = self.text(ops, shared)
        {
            match parse_ops(ops, &text) {
                Ok(lines) => {
                    for line in lines.into_iter().filter(|l| l.service == entry.name) {
                        let place = Place::at(ops.clone(), line.span, &text);
                        if line.branch != self.tree.branch {
                            let message = format!(
                                "the instance `{}` follows the branch `{}`, and this source follows `{}`",
                                line.instance, line.branch, self.tree.branch
                            );
                            self.out.findings.push(
                                Finding::warning("ops.branch", place, message)
                                    .help("add a source that follows that branch"),
                            );
                            continue;
                        }
                        wanted
                            .entry(line.spec)
                            .or_insert_with(|| Some(Vec::new()))
                            .get_or_insert_with(Vec::new)
                            .push(line.instance);
                    }
                    if wanted.is_empty() {
                        shared.push(Finding::error(
                            "ops.service",
                            made_by.clone(),
                            format!(
                                "the ops file names no instance of `{}` on this branch",
                                entry.name
                            ),
                        ));
                    }
                }
                Err(findings) => shared.extend(findings),
            }
        }
        let mut specs = Vec::new();
        let total = wanted.len();
        for (path, only) in wanted {
            let Some(text) = self.text(&path, shared) else {
                continue;
            };
            match parse_service_spec(&path, &text) {
                Ok(spec) => {
                    for name in only
                        .iter()
                        .flatten()
                        .filter(|n| !spec.instances.iter().any(|i| &i.name == *n))
                    {
                        shared.push(Finding::error(
                            "ops.instance",
                            Place::file(path.clone()),
                            format!(
                                "the ops file names the instance `{name}`, which this spec lacks"
                            ),
                        ));
                    }
                    specs.push((path, text, spec, only));
                }
                Err(findings) => shared.extend(findings),
            }
        }
        let readable = total > 0 && specs.len() == total;
        (specs, readable)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "an instance is where service, spec and sync file meet"
    )]
    fn instance(
        &mut self,
        entry: &ServiceEntry,
        service: &ServiceData,
        file: &str,
        text: &str,
        instance: &InstanceSpec,
        shared: &[Finding],
        made_by: &Place,
    ) -> Vec<(Address, Value, Address)> {
        let regions = match self.environments.get(&instance.environment) {
            Some(addresses) => addresses.clone(),
            None => {
                let place = Place::at(file, instance.environment_span, text);
                let mut finding = Finding::error(
                    "spec.environment",
                    place,
                    format!("the environment `{}` is not defined", instance.environment),
                )
                .label("not defined");
                finding.help = Some(
                    closest(
                        &instance.environment,
                        self.environments.keys().map(String::as_str),
                    )
                    .map_or_else(
                        || {
                            format!(
                                "there are: {}",
                                self.environments
                                    .keys()
                                    .cloned()
                                    .collect::<Vec<_>>()
                                    .join(", ")
                            )
                        },
                        |c| format!("did you mean `{c}`?"),
                    ),
                );
                self.out.findings.push(finding.clone());
                self.broken_instance(entry, instance, finding, made_by);
                // The pipeline still names it, so that it waits instead of moving without it.
                let missing = Address::instance(&entry.name, &instance.name);
                return vec![(
                    missing,
                    Value::Null,
                    Address::environment(&instance.environment),
                )];
            }
        };
        let mut made = Vec::new();
        for environment in regions {
            let Some(host) = self.out.targets.get(&environment) else {
                continue;
            };
            let (placement, region) = (host.placement.clone(), host.region.clone());
            let host_template = host.template().cloned();
            let mut faults = shared.to_vec();
            let applies = |o: &&crate::domain::spec::Override| {
                o.instance == instance.name && o.region.as_ref().is_none_or(|r| *r == region)
            };
            let mut options = entry.options.clone();
            let mut reference = entry.template.clone();
            for over in entry.overrides.iter().filter(applies) {
                options = options.overlaid(&over.options);
                reference = over.template.clone().unwrap_or(reference);
            }
            self.stack_name(&options, made_by, &mut faults);
            if !May::allows(&self.tree.grant.may.placements, placement.name.as_str()) {
                faults.push(self.denied("placements", placement.name.as_str(), made_by));
            }
            let stack_policy = self.policy(&options, &mut faults);
            let address =
                Address::instance(&entry.name, &instance.name).at(environment.region().cloned());
            let template = self.template(BundleKind::Service, &reference, made_by, &mut faults);
            let mut kind = TargetKind::Broken;
            let mut inputs = Value::Null;
            if let Some(template) = template {
                compatible(
                    &template,
                    host_template.as_ref(),
                    &reference,
                    &environment,
                    &Place::at(file, instance.environment_span, text),
                    &mut faults,
                );
                if let Some(input) = &template.bundle.schema.service {
                    inputs = self.effective(
                        input,
                        &address,
                        file,
                        text,
                        instance.values.as_ref(),
                        instance.span,
                        &mut faults,
                    );
                    kind = TargetKind::Instance {
                        template,
                        inputs: inputs.clone(),
                        service: service.clone(),
                        environment: environment.clone(),
                        component: None,
                    };
                }
            }
            let stage = self.stage(
                entry.rollout.as_deref(),
                &instance.environment,
                &placement,
                &region,
                made_by,
                &mut faults,
            );
            made.push((address.clone(), inputs, environment.clone()));
            self.insert(Target {
                address,
                source: self.tree.grant.source.clone(),
                placement,
                region,
                kind,
                options,
                stack_policy,
                stage,
                after: Vec::new(),
                made_by: made_by.clone(),
                values_at: Some(Place::at(file, instance.span, text)),
                input_lines: lines_of(instance.values.as_ref()),
                faults,
            });
        }
        made
    }

    /// Keeps an instance visible whose environment is not known; its placement is any, for it can never run.
    fn broken_instance(
        &mut self,
        entry: &ServiceEntry,
        instance: &InstanceSpec,
        fault: Finding,
        made_by: &Place,
    ) {
        let Some(placement) = self.placements.values().next().cloned() else {
            return;
        };
        let target = Target {
            address: Address::instance(&entry.name, &instance.name),
            source: self.tree.grant.source.clone(),
            region: placement.regions[0].clone(),
            placement,
            kind: TargetKind::Broken,
            options: StackOptions::default(),
            stack_policy: None,
            stage: None,
            after: Vec::new(),
            made_by: made_by.clone(),
            values_at: None,
            input_lines: BTreeMap::new(),
            faults: vec![fault],
        };
        self.out
            .targets
            .entry(target.address.clone())
            .or_insert_with(|| Arc::new(target));
    }

    fn pipeline(
        &mut self,
        entry: &ServiceEntry,
        service: &ServiceData,
        spec: Option<(String, String, ServiceSpec)>,
        instances: &[(Address, Value, Address)],
        shared: &[Finding],
        made_by: &Place,
    ) {
        let Some((file, text, spec)) = spec else {
            return;
        };
        let mut faults = shared.to_vec();
        let Some(template) = self.template(
            BundleKind::Service,
            &entry.template,
            made_by,
            &mut Vec::new(),
        ) else {
            return;
        };
        let Some(input) = template
            .bundle
            .schema
            .pipeline
            .clone()
            .filter(|_| template.bundle.pipeline.is_some())
        else {
            if let Some(node) = &spec.pipeline {
                let finding = Finding::error(
                    "spec.pipeline",
                    Place::at(file, node.span, &text),
                    format!("the template `{}` has no pipeline", entry.template),
                )
                .help("remove `pipeline:` from the spec");
                self.out.findings.push(finding);
            }
            return;
        };
        let Some(wanted) = &entry.pipeline else {
            let finding = Finding::warning(
                "sync.pipeline",
                made_by.clone(),
                format!(
                    "the template of `{}` has a pipeline, and nothing says where it goes",
                    entry.name
                ),
            )
            .help("add `pipeline: { placement: … }` to the service or to `defaults.services`");
            self.out.findings.push(finding);
            return;
        };
        let Some(placement) = self.placement(&wanted.placement, made_by, &mut faults) else {
            self.out.findings.extend(faults);
            return;
        };
        let address = Address::pipeline(&entry.name);
        let at = spec.pipeline.as_ref().map_or(spec.span, |n| n.span);
        let inputs = self.effective(
            &input,
            &address,
            &file,
            &text,
            spec.pipeline.as_ref(),
            at,
            &mut faults,
        );
        let stack_policy = self.policy(&wanted.options, &mut faults);
        self.insert(Target {
            address,
            source: self.tree.grant.source.clone(),
            region: placement.regions[0].clone(),
            placement,
            kind: TargetKind::Pipeline {
                template,
                inputs,
                service: service.clone(),
                instances: instances.to_vec(),
            },
            options: wanted.options.clone(),
            stack_policy,
            stage: None,
            after: Vec::new(),
            made_by: made_by.clone(),
            values_at: Some(Place::at(file, at, &text)),
            input_lines: lines_of(spec.pipeline.as_ref()),
            faults,
        });
    }

    fn component(&mut self, entry: &ComponentEntry) {
        let made_by = self.place(&entry.at);
        let mut shared = Vec::new();
        if !May::allows(&self.tree.grant.may.components, &entry.name) {
            shared.push(self.denied("components", &entry.name, &made_by));
        }
        let (component, findings) = load_component(self.tree.files, &entry.files);
        shared.extend(findings);
        self.stack_name(&entry.options, &made_by, &mut shared);
        let stack_policy = self.policy(&entry.options, &mut shared);
        let Some(environments) = self.environments.get(&entry.environment).cloned() else {
            let mut finding = Finding::error(
                "sync.environment",
                made_by.clone(),
                format!("the environment `{}` is not defined", entry.environment),
            );
            finding.help = closest(
                &entry.environment,
                self.environments.keys().map(String::as_str),
            )
            .map(|c| format!("did you mean `{c}`?"));
            self.out.findings.push(finding);
            return;
        };
        for environment in environments {
            let Some(host) = self.out.targets.get(&environment) else {
                continue;
            };
            let (placement, region, stage) = (
                host.placement.clone(),
                host.region.clone(),
                host.stage.clone(),
            );
            let mut faults = shared.clone();
            if !May::allows(&self.tree.grant.may.placements, placement.name.as_str()) {
                faults.push(self.denied("placements", placement.name.as_str(), &made_by));
            }
            let address = Address::component(&entry.name).at(environment.region().cloned());
            let mut attached = None;
            if let Some((service, instance)) = &entry.attach {
                let to = Address::instance(service, instance).at(environment.region().cloned());
                let foreign = self
                    .out
                    .targets
                    .get(&to)
                    .is_some_and(|t| t.source != self.tree.grant.source)
                    && !May::allows(&self.tree.grant.may.services, service);
                if foreign {
                    faults.push(self.denied("services", service, &made_by));
                }
                let host = self.out.targets.get_mut(&to).filter(|_| !foreign);
                match host.map(Arc::make_mut) {
                    Some(Target {
                        kind:
                            TargetKind::Instance {
                                template,
                                inputs,
                                service: data,
                                environment: home,
                                component,
                                ..
                            },
                        ..
                    }) => {
                        if *home != environment {
                            let message =
                                format!("`{to}` runs in `{home}`, not in `{environment}`");
                            faults.push(Finding::error("sync.attach", made_by.clone(), message));
                        }
                        if !template
                            .bundle
                            .registration
                            .as_ref()
                            .is_none_or(|r| r.components)
                        {
                            let message =
                                format!("the template of `{to}` does not allow components");
                            faults.push(Finding::error("sync.attach", made_by.clone(), message).help("add `supported_component_sources: [DIRECTLY_DEFINED]` to its .template-registration.yaml"));
                        }
                        if let Some(other) = component {
                            faults.push(Finding::error(
                                "sync.attach",
                                made_by.clone(),
                                format!("`{to}` has the component `{other}` attached already"),
                            ));
                        } else {
                            *component = Some(address.clone());
                        }
                        attached = Some((to, data.clone(), inputs.clone()));
                    }
                    Some(_) => {}
                    None if foreign => {}
                    // What it is attached to may stand in the spec that cannot be read: that is the one fault.
                    None if self.out.unread.contains_key(service) => {
                        faults.extend(self.out.unread[service].iter().cloned());
                    }
                    None => {
                        let names: Vec<String> = self
                            .out
                            .targets
                            .keys()
                            .filter(|a| a.kind() == "svc")
                            .map(|a| format!("{}/{}", a.service().unwrap_or_default(), a.name()))
                            .collect();
                        let mut finding = Finding::error(
                            "sync.attach",
                            made_by.clone(),
                            format!(
                                "there is no instance `{service}/{instance}` in this environment"
                            ),
                        );
                        finding.help = closest(
                            &format!("{service}/{instance}"),
                            names.iter().map(String::as_str),
                        )
                        .map(|c| format!("did you mean `{c}`?"));
                        faults.push(finding);
                    }
                }
            }
            let kind = match &component {
                Some(component) => TargetKind::Component {
                    component: component.clone().into(),
                    directory: entry.files.clone(),
                    environment: environment.clone(),
                    attached,
                },
                None => TargetKind::Broken,
            };
            self.insert(Target {
                address,
                source: self.tree.grant.source.clone(),
                placement,
                region,
                kind,
                options: entry.options.clone(),
                stack_policy: stack_policy.clone(),
                stage,
                after: Vec::new(),
                made_by: made_by.clone(),
                values_at: None,
                input_lines: BTreeMap::new(),
                faults,
            });
        }
    }

    fn stack(&mut self, entry: &StackEntry) {
        let made_by = self.place(&entry.at);
        let mut shared = Vec::new();
        if !May::allows(&self.tree.grant.may.stacks, &entry.name) {
            shared.push(self.denied("stacks", &entry.name, &made_by));
        }
        self.stack_name(&entry.options, &made_by, &mut shared);
        let Some(placement) = self.placement(&entry.placement, &made_by, &mut shared) else {
            self.out.findings.extend(shared);
            return;
        };
        let (mut path, mut options) = (entry.template.clone(), entry.options.clone());
        let mut text = self.text(&path, &mut shared);
        // A Git-sync deployment file names its template and brings parameters and tags.
        if let Some(found) = text.as_deref().filter(|t| t.contains("template-file-path")) {
            match parse_deployment(&path, found) {
                Ok((template, own)) => {
                    options = own.overlaid(&options);
                    path = template;
                    text = self.text(&path, &mut shared);
                }
                Err(findings) => {
                    shared.extend(findings);
                    text = None;
                }
            }
        }
        let nested = Arc::new(
            text.as_deref()
                .map_or_else(BTreeMap::new, |t| self.nested(&path, t)),
        );
        let stack_policy = self.policy(&options, &mut shared);
        for region in &placement.regions {
            let several = placement.regions.len() > 1;
            let kind = match &text {
                Some(text) => TargetKind::Stack {
                    path: path.clone(),
                    text: text.as_str().into(),
                    nested: nested.clone(),
                },
                None => TargetKind::Broken,
            };
            self.insert(Target {
                address: Address::stack(&entry.name).at(several.then(|| region.clone())),
                source: self.tree.grant.source.clone(),
                placement: placement.clone(),
                region: region.clone(),
                kind,
                options: options.clone(),
                stack_policy: stack_policy.clone(),
                stage: None,
                after: Vec::new(),
                made_by: made_by.clone(),
                values_at: Some(made_by.clone()),
                input_lines: BTreeMap::new(),
                faults: shared.clone(),
            });
        }
        // What `after` names is looked up when every target is known.
        for (pattern, span) in &entry.after {
            let place = self.place(&(entry.at.0.clone(), *span));
            self.out
                .after
                .push((Address::stack(&entry.name), pattern.clone(), place));
        }
    }
}

/// Tells whether a source may define a target of this address.
fn allowed(may: &May, address: &Address) -> bool {
    let (globs, name) = match address.kind() {
        "env" => (&may.environments, address.name()),
        "svc" | "pipe" => (&may.services, address.service().unwrap_or_default()),
        "comp" => (&may.components, address.name()),
        _ => (&may.stacks, address.name()),
    };
    May::allows(globs, name)
}

/// Returns the line of each key of a mapping.
fn lines_of(node: Option<&Node>) -> BTreeMap<String, u32> {
    node.map(Node::entries)
        .unwrap_or_default()
        .iter()
        .map(|(k, v)| (k.key_text(), v.span.line))
        .collect()
}

fn compatible(
    template: &TemplateVersion,
    host: Option<&TemplateVersion>,
    reference: &TemplateRef,
    environment: &Address,
    place: &Place,
    faults: &mut Vec<Finding>,
) {
    let Some(host) = host else { return };
    let Some((name, version)) = host.version.split_once('@') else {
        return;
    };
    let major = version
        .split('.')
        .next()
        .and_then(|m| m.parse::<u32>().ok())
        .unwrap_or_default();
    let listed = template.bundle.compatible();
    if !listed.iter().any(|c| c.name == name && c.major == major) {
        let names: Vec<String> = listed
            .iter()
            .map(|c| format!("{}:{}", c.name, c.major))
            .collect();
        let known = if names.is_empty() {
            "it lists none".to_owned()
        } else {
            format!("it lists {}", names.join(", "))
        };
        faults.push(
            Finding::error(
                "spec.incompatible",
                place.clone(),
                format!("`{reference}` does not go with `{environment}`, which is {name}:{major}"),
            )
            .help(format!(
                "{known}; add `{name}:{major}` to its .template-registration.yaml if it does"
            )),
        );
    }
}

/// Checks what can only be seen when every target is known: what `after` names, circles, doubled stack names.
fn link(out: &mut Compiled, memory: &mut Memory) {
    let mut findings = Vec::new();
    let after = out.after.clone();
    let all: BTreeSet<Address> = match after.is_empty() {
        true => BTreeSet::new(),
        false => out.targets.keys().cloned().collect(),
    };
    for (stack, pattern, place) in after {
        let named = |a: &Address| a.is_meant_by(&pattern);
        let hits: Vec<Address> = all
            .iter()
            .filter(|a| a.base() != stack && named(a))
            .cloned()
            .collect();
        // What is named may stand in a spec that cannot be read: that is the one fault.
        let unread = out.unread.iter().find(|(service, _)| {
            let mut parts = pattern.split('/');
            parts.next() == Some("svc") && parts.next() == Some(service)
        });
        if hits.is_empty()
            && let Some((_, why)) = unread
        {
            let stacks = out.targets.values_mut();
            for target in stacks.filter(|t| t.address.base() == stack) {
                Arc::make_mut(target).faults.extend(why.iter().cloned());
            }
            continue;
        }
        let fault = hits.is_empty().then(|| {
            let names: Vec<String> = all.iter().map(Address::to_string).collect();
            let mut finding = Finding::error(
                "sync.after",
                place,
                format!(
                    "`after` names `{}`, which is not a target",
                    pattern.escape_debug()
                ),
            );
            finding.help = closest(&pattern, names.iter().map(String::as_str))
                .map(|c| format!("did you mean `{c}`?"));
            finding
        });
        for target in out
            .targets
            .values_mut()
            .filter(|t| t.address.base() == stack)
            .map(Arc::make_mut)
        {
            target.after.extend(hits.iter().cloned());
            target.faults.extend(fault.clone());
        }
        findings.extend(fault);
    }
    let known = memory.linked(out);
    let circles = match known {
        Some(graph) => {
            out.graph = graph;
            Vec::new()
        }
        None => {
            let mut graph = Graph::default();
            for target in out.targets.values() {
                graph.add(&target.address);
                for first in target.needs() {
                    graph.needs(&target.address, &first);
                }
            }
            let circles = graph.circles();
            out.graph = Arc::new(graph);
            circles
        }
    };
    if circles.is_empty() {
        memory.keep_links(out);
    }
    for circle in circles {
        let path = circle
            .iter()
            .map(Address::to_string)
            .collect::<Vec<_>>()
            .join(" → ");
        for address in &circle {
            if let Some(target) = out.targets.get_mut(address).map(Arc::make_mut) {
                let finding = Finding::error(
                    "sync.circle",
                    target.made_by.clone(),
                    format!("targets wait for each other: {path}"),
                );
                if !findings.contains(&finding) {
                    findings.push(finding.clone());
                }
                target.faults.push(finding);
            }
        }
    }
    let mut names: BTreeMap<(String, String, String), Address> = BTreeMap::new();
    let mut doubled = Vec::new();
    for target in out.targets.values() {
        if let Some(name) = &target.options.stack_name {
            let key = (
                target.placement.account.to_string(),
                target.region.to_string(),
                name.to_string(),
            );
            if let Some(other) = names.insert(key, target.address.clone()) {
                findings.push(Finding::error(
                    "sync.contested",
                    target.made_by.clone(),
                    format!(
                        "`{}` and `{other}` both claim the stack `{name}`: neither moves",
                        target.address
                    ),
                ));
                doubled.extend([other, target.address.clone()]);
            }
        }
    }
    out.contested.extend(doubled);
    out.findings.extend(findings);
    out.findings.sort();
    out.findings.dedup();
}
