//! The sync file `isoform.yaml`: what Proton kept behind its API. `docs/formats/sync-file.md` is its description.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Fields;
use crate::domain::model::{
    Address, Finding, Place, PlacementName, Prune, Region, Span, StackName,
};
use crate::domain::policy::Window;
use crate::domain::yaml::{self, Limits, Node};

/// A template at a version: `name@1` follows the recommended minor, `name@1.3` pins.
#[derive(
    Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
pub struct TemplateRef {
    /// The template's name.
    pub name: String,
    /// The major version.
    pub major: u32,
    /// The pinned minor.
    pub minor: Option<u32>,
}

impl std::str::FromStr for TemplateRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || {
            format!(
                "`{}` is not a template version: write name@1 to follow a major, or name@1.3 to pin a minor",
                text.escape_debug()
            )
        };
        let (name, version) = text.split_once('@').ok_or_else(refuse)?;
        let (major, minor) = match version.split_once('.') {
            Some((major, minor)) => (major, Some(minor.parse().map_err(|_| refuse())?)),
            None => (version, None),
        };
        if Address::environment(name)
            .to_string()
            .parse::<Address>()
            .is_err()
        {
            return Err(refuse());
        }
        Ok(Self {
            name: name.to_owned(),
            major: major.parse().map_err(|_| refuse())?,
            minor,
        })
    }
}

impl fmt::Display for TemplateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minor {
            Some(minor) => write!(f, "{}@{}.{minor}", self.name, self.major),
            None => write!(f, "{}@{}", self.name, self.major),
        }
    }
}

/// A gate that the repository adds. It can never take one away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// Every change of the target needs an approval.
    Approve,
}

/// Stack options that a target can set. Absent means CloudFormation's own default.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StackOptions {
    /// Parameters of the template.
    pub parameters: BTreeMap<String, String>,
    /// Tags beside isoform's own.
    pub tags: BTreeMap<String, String>,
    /// Topics that hear of every event, at most 5.
    pub notification_arns: Vec<String>,
    /// Alarms that roll a change back, at most 5.
    pub rollback_triggers: Vec<String>,
    /// How long the alarms are watched after a change, up to 180 min.
    pub monitoring: Option<Duration>,
    /// Path of a stack policy in the repository.
    pub stack_policy: Option<String>,
    /// Whether the stack is protected against deletion.
    pub termination_protection: Option<bool>,
    /// The most that the template may ask for; absent allows what it needs.
    pub capabilities: Option<Vec<String>>,
    /// When changes may run; empty means always.
    pub windows: Vec<Window>,
    /// A gate of the repository's own.
    pub gate: Option<Gate>,
    /// What becomes of the stack when it is not asked for any more: never more than the operator allows.
    pub prune: Option<Prune>,
    /// A given stack name.
    pub stack_name: Option<StackName>,
}

const OPTION_KEYS: &[&str] = &[
    "parameters",
    "tags",
    "notification_arns",
    "rollback_triggers",
    "monitoring",
    "stack_policy",
    "termination_protection",
    "capabilities",
    "windows",
    "gate",
    "prune",
    "stack_name",
];

/// An environment.
#[derive(Clone, Debug)]
pub struct EnvironmentEntry {
    /// Its name.
    pub name: String,
    /// Its template.
    pub template: TemplateRef,
    /// Path of its spec; `{region}` is replaced.
    pub spec: String,
    /// Where it is placed.
    pub placement: PlacementName,
    /// Its rollout.
    pub rollout: Option<String>,
    /// Stack options.
    pub options: StackOptions,
    /// Where it stands, and in which file.
    pub at: (String, Span),
}

/// A repository as Proton's templates see it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Repository {
    /// `service.repository_id`.
    pub id: Option<String>,
    /// `service.branch_name`.
    pub branch: Option<String>,
    /// `service.repository_connection_arn`.
    pub connection_arn: Option<String>,
}

/// Where a pipeline goes.
#[derive(Clone, PartialEq, Debug)]
pub struct PipelineEntry {
    /// Its placement.
    pub placement: PlacementName,
    /// Stack options.
    pub options: StackOptions,
}

/// What an override changes for one instance.
#[derive(Clone, PartialEq, Debug)]
pub struct Override {
    /// The instance.
    pub instance: String,
    /// The region, where the override is for one of several.
    pub region: Option<Region>,
    /// Another template version.
    pub template: Option<TemplateRef>,
    /// Stack options.
    pub options: StackOptions,
    /// Where it stands.
    pub at: (String, Span),
}

/// A service.
#[derive(Clone, Debug)]
pub struct ServiceEntry {
    /// Its name.
    pub name: String,
    /// Its template.
    pub template: TemplateRef,
    /// Path of its spec, where one spec holds all instances.
    pub spec: Option<String>,
    /// Path of a Proton ops file that names a spec for each instance.
    pub ops: Option<String>,
    /// The only instances to deploy; absent means all.
    pub instances: Option<Vec<(String, Span)>>,
    /// Its rollout.
    pub rollout: Option<String>,
    /// Its pipeline.
    pub pipeline: Option<PipelineEntry>,
    /// Its repository.
    pub repository: Repository,
    /// Overrides.
    pub overrides: Vec<Override>,
    /// Stack options for all instances.
    pub options: StackOptions,
    /// Where it stands.
    pub at: (String, Span),
}

/// A directly defined component.
#[derive(Clone, Debug)]
pub struct ComponentEntry {
    /// Its name.
    pub name: String,
    /// The directory of its manifest.
    pub files: String,
    /// Its environment.
    pub environment: String,
    /// The service and instance that it is attached to.
    pub attach: Option<(String, String)>,
    /// Stack options.
    pub options: StackOptions,
    /// Where it stands.
    pub at: (String, Span),
}

/// A plain stack.
#[derive(Clone, Debug)]
pub struct StackEntry {
    /// Its name.
    pub name: String,
    /// Path of its template.
    pub template: String,
    /// Where it is placed.
    pub placement: PlacementName,
    /// What must have settled first: addresses or globs.
    pub after: Vec<(String, Span)>,
    /// Stack options.
    pub options: StackOptions,
    /// Where it stands.
    pub at: (String, Span),
}

/// One wave of a rollout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stage {
    /// The environments of the wave.
    pub environments: Vec<String>,
    /// How long a success must last before the next wave.
    pub bake: Duration,
    /// Whether regions follow each other.
    pub one_region_at_a_time: bool,
    /// Most targets in motion at once.
    pub max_in_flight: Option<u32>,
    /// Failures after which the rest is held.
    pub stop_after: Option<u32>,
}

/// An address that became another one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moved {
    /// The old address.
    pub from: Address,
    /// The new address.
    pub to: Address,
    /// Where that is written.
    pub place: Place,
}

/// What the sync file and its fragments say.
#[derive(Clone, Debug, Default)]
pub struct SyncFile {
    /// Globs of fragments.
    pub include: Vec<String>,
    /// Environments.
    pub environments: Vec<EnvironmentEntry>,
    /// Rollouts by name.
    pub rollouts: BTreeMap<String, Vec<Stage>>,
    /// Services.
    pub services: Vec<ServiceEntry>,
    /// Components.
    pub components: Vec<ComponentEntry>,
    /// Plain stacks.
    pub stacks: Vec<StackEntry>,
    /// Moved addresses.
    pub moved: Vec<Moved>,
    /// What services have that say nothing else.
    pub defaults: Defaults,
}

/// What services have that say nothing else: `defaults.services` of the sync file, which holds for fragments too.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    rollout: Option<String>,
    pipeline: Option<PipelineEntry>,
    repository: Repository,
    /// A fault stands in them or in the rollouts: what they give, and who waits for whom, is not known.
    faulty: bool,
}

/// What a fragment takes from elsewhere.
#[derive(Clone, Copy)]
pub struct Fragment<'a> {
    /// The directory that it lies in: its paths are relative to it.
    pub folder: &'a str,
    /// The defaults of the sync file that includes it.
    pub defaults: &'a Defaults,
}

/// Reads a sync file, or a fragment of one.
///
/// Returns what could be read together with every fault: an entry with a fault is left out, so the rest still works.
pub fn parse_sync(
    file: &str,
    text: &str,
    fragment: Option<Fragment<'_>>,
) -> (SyncFile, Vec<Finding>) {
    let root = match yaml::parse(file, text, &Limits::SYNC) {
        Ok(root) => root,
        Err(findings) => return (SyncFile::default(), findings),
    };
    let mut reader = Reader {
        fields: Fields::new(file, text),
        file,
        fragment,
    };
    let sync = reader.sync(&root);
    (sync, reader.fields.findings)
}

/// Reads a CloudFormation Git-sync deployment file: `template-file-path`, `parameters`, `tags`.
pub fn parse_deployment(file: &str, text: &str) -> Result<(String, StackOptions), Vec<Finding>> {
    let root = yaml::parse(file, text, &Limits::SPEC)?;
    let mut fields = Fields::new(file, text);
    fields.known(
        &root,
        "a deployment file",
        &["template-file-path", "parameters", "tags"],
    );
    if root.get("template-file-path").is_none() {
        fields.error(
            "key.missing",
            &root,
            "a deployment file lacks `template-file-path`",
        );
    }
    let template = fields.path(&root, "template-file-path");
    let parameters = fields.text_map(&root, "parameters").into_iter().collect();
    let tags = fields.text_map(&root, "tags").into_iter().collect();
    match template {
        Some(template) if fields.findings.is_empty() => Ok((
            template,
            StackOptions {
                parameters,
                tags,
                ..StackOptions::default()
            },
        )),
        _ => Err(fields.findings),
    }
}

struct Reader<'a> {
    fields: Fields<'a>,
    file: &'a str,
    fragment: Option<Fragment<'a>>,
}

impl Reader<'_> {
    fn sync(&mut self, root: &Node) -> SyncFile {
        let mut sync = SyncFile::default();
        let mut keys = vec![
            "isoform",
            "environments",
            "services",
            "components",
            "stacks",
            "moved",
        ];
        if self.fragment.is_none() {
            keys.extend(["include", "rollouts", "defaults"]);
        }
        self.fields.known(
            root,
            if self.fragment.is_some() {
                "a fragment"
            } else {
                "the sync file"
            },
            &keys,
        );
        match root.get("isoform") {
            Some(node) if node.text() == Some("1") => {}
            Some(node) => self.fields.error(
                "sync.format",
                node,
                "this format is not known; write `isoform: 1`",
            ),
            None => self.fields.error(
                "sync.format",
                root,
                "`isoform: 1` is missing: it names the format",
            ),
        }
        let before = self.fields.errors();
        if self.fragment.is_none() {
            sync.include = self.fields.texts(root, "include");
            if let Some(rollouts) = self.fields.mapping(root, "rollouts").cloned() {
                for (key, node) in rollouts.entries() {
                    let stages = self.sound(|reader| Some(reader.stages(node)));
                    sync.rollouts
                        .extend(stages.map(|stages| (key.key_text(), stages)));
                }
            }
        }
        let waves = self.fields.errors() == before;
        sync.defaults = self.defaults(root);
        sync.defaults.faulty |= !waves;
        for (key, node) in self.section(root, "environments") {
            if sync.defaults.faulty {
                continue;
            }
            let entry = self.sound(|reader| reader.environment(&key, &node));
            sync.environments.extend(entry);
        }
        for (key, node) in self.section(root, "services") {
            if sync.defaults.faulty {
                continue;
            }
            let entry = self.sound(|reader| reader.service(&key, &node, &sync.defaults));
            sync.services.extend(entry);
        }
        for (key, node) in self.section(root, "components") {
            let entry = self.sound(|reader| reader.component(&key, &node));
            sync.components.extend(entry);
        }
        for (key, node) in self.section(root, "stacks") {
            let entry = self.sound(|reader| reader.stack(&key, &node));
            sync.stacks.extend(entry);
        }
        for node in self.fields.list(root, "moved").to_vec() {
            self.fields
                .known(&node, "an entry of `moved`", &["from", "to"]);
            if let (Some(from), Some(to)) = (
                self.fields.parsed(&node, "from"),
                self.fields.parsed(&node, "to"),
            ) {
                let place = self.fields.at(&node);
                sync.moved.push(Moved { from, to, place });
            }
        }
        sync
    }

    /// Reads an entry, and leaves it out where it has a fault: without the option that could not be read (a window, a
    /// gate, a time to bake) it would be another one.
    fn sound<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let before = self.fields.errors();
        let entry = read(self);
        entry.filter(|_| self.fields.errors() == before)
    }

    fn section(&mut self, root: &Node, name: &str) -> Vec<(Node, Node)> {
        let Some(section) = self.fields.mapping(root, name).cloned() else {
            return Vec::new();
        };
        let mut out = Vec::new();
        for (key, node) in section.entries() {
            let text = key.key_text();
            if Address::environment(&text)
                .to_string()
                .parse::<Address>()
                .is_err()
            {
                self.fields.error(
                    "sync.name",
                    key,
                    format!(
                        "`{}` is not a name: letters, digits, - and _, at most 100",
                        text.escape_debug()
                    ),
                );
            } else if !node.is_mapping() {
                self.fields.error(
                    "key.type",
                    node,
                    format!("`{text}` must be a mapping, this is {}", node.type_name()),
                );
            } else {
                out.push((key.clone(), node.clone()));
            }
        }
        out
    }

    fn at(&self, key: &Node) -> (String, Span) {
        (self.file.to_owned(), key.span)
    }

    fn path(&mut self, node: &Node, key: &str) -> Option<String> {
        let path = self.fields.path(node, key)?;
        Some(match self.fragment {
            Some(Fragment { folder, .. }) if !folder.is_empty() => format!("{folder}/{path}"),
            _ => path,
        })
    }

    fn stages(&mut self, node: &Node) -> Vec<Stage> {
        let mut stages = Vec::new();
        for item in node.items() {
            self.fields.known(
                item,
                "a wave",
                &[
                    "environments",
                    "bake",
                    "regions",
                    "max_in_flight",
                    "stop_after",
                ],
            );
            let regions = self.fields.text(item, "regions");
            if let (Some(other), Some(at)) = (
                regions
                    .as_deref()
                    .filter(|r| *r != "one-at-a-time" && *r != "together"),
                item.get("regions"),
            ) {
                self.fields.error(
                    "sync.regions",
                    at,
                    format!("`{other}` is not one of one-at-a-time, together"),
                );
            }
            stages.push(Stage {
                environments: self.fields.texts(item, "environments"),
                bake: self.fields.duration(item, "bake").unwrap_or_default(),
                one_region_at_a_time: regions.as_deref() == Some("one-at-a-time"),
                max_in_flight: self
                    .fields
                    .number(item, "max_in_flight", 1, 100_000)
                    .map(|n| n as u32),
                stop_after: self
                    .fields
                    .number(item, "stop_after", 1, 100_000)
                    .map(|n| n as u32),
            });
        }
        if stages.is_empty() {
            self.fields
                .error("sync.rollout", node, "a rollout is a list of waves");
        }
        stages
    }

    fn defaults(&mut self, root: &Node) -> Defaults {
        if let Some(fragment) = self.fragment {
            return fragment.defaults.clone();
        }
        let before = self.fields.errors();
        let defaults = self.own_defaults(root);
        Defaults {
            faulty: self.fields.errors() > before,
            ..defaults
        }
    }

    fn own_defaults(&mut self, root: &Node) -> Defaults {
        let Some(defaults) = self.fields.mapping(root, "defaults").cloned() else {
            return Defaults::default();
        };
        self.fields.known(&defaults, "`defaults`", &["services"]);
        let Some(services) = self.fields.mapping(&defaults, "services").cloned() else {
            return Defaults::default();
        };
        self.fields.known(
            &services,
            "`defaults.services`",
            &["rollout", "pipeline", "repository"],
        );
        Defaults {
            rollout: self.fields.text(&services, "rollout"),
            pipeline: self.pipeline(&services),
            repository: self.repository(&services),
            faulty: false,
        }
    }

    fn pipeline(&mut self, node: &Node) -> Option<PipelineEntry> {
        let pipeline = self.fields.mapping(node, "pipeline").cloned()?;
        let keys: Vec<&str> = OPTION_KEYS.iter().copied().chain(["placement"]).collect();
        self.fields.known(&pipeline, "`pipeline`", &keys);
        if pipeline.get("placement").is_none() {
            self.fields
                .error("key.missing", &pipeline, "`pipeline` lacks `placement`");
        }
        let placement = self.fields.parsed(&pipeline, "placement");
        let options = self.options(&pipeline);
        Some(PipelineEntry {
            placement: placement?,
            options,
        })
    }

    fn repository(&mut self, node: &Node) -> Repository {
        let Some(repository) = self.fields.mapping(node, "repository").cloned() else {
            return Repository::default();
        };
        self.fields.known(
            &repository,
            "`repository`",
            &["id", "branch", "connection_arn"],
        );
        Repository {
            id: self.fields.text(&repository, "id"),
            branch: self.fields.text(&repository, "branch"),
            connection_arn: self.fields.text(&repository, "connection_arn"),
        }
    }

    fn environment(&mut self, key: &Node, node: &Node) -> Option<EnvironmentEntry> {
        let keys: Vec<&str> = OPTION_KEYS
            .iter()
            .copied()
            .chain(["template", "spec", "placement", "rollout"])
            .collect();
        self.fields.known(node, "an environment", &keys);
        for needed in ["template", "spec", "placement"] {
            if node.get(needed).is_none() {
                self.fields.error(
                    "key.missing",
                    key,
                    format!("the environment `{}` lacks `{needed}`", key.key_text()),
                );
            }
        }
        let (template, spec, placement) = (
            self.fields.parsed(node, "template"),
            self.path(node, "spec"),
            self.fields.parsed(node, "placement"),
        );
        let rollout = self.fields.text(node, "rollout");
        let options = self.options(node);
        Some(EnvironmentEntry {
            name: key.key_text(),
            template: template?,
            spec: spec?,
            placement: placement?,
            rollout,
            options,
            at: self.at(key),
        })
    }

    fn service(&mut self, key: &Node, node: &Node, defaults: &Defaults) -> Option<ServiceEntry> {
        let keys: Vec<&str> = OPTION_KEYS
            .iter()
            .copied()
            .chain([
                "template",
                "spec",
                "ops",
                "instances",
                "rollout",
                "pipeline",
                "repository",
                "overrides",
            ])
            .collect();
        self.fields.known(node, "a service", &keys);
        let name = key.key_text();
        if node.get("template").is_none() {
            self.fields.error(
                "key.missing",
                key,
                format!("the service `{name}` lacks `template`"),
            );
        }
        let (spec, ops) = (self.path(node, "spec"), self.path(node, "ops"));
        if node.get("spec").is_some() == node.get("ops").is_some() {
            self.fields.error(
                "sync.spec",
                key,
                format!("the service `{name}` has one of `spec` and `ops`"),
            );
            return None;
        }
        let template: Option<TemplateRef> = self.fields.parsed(node, "template");
        let narrowed = node.get("instances").is_some();
        let instances: Vec<(String, Span)> = self
            .fields
            .list(node, "instances")
            .iter()
            .map(|n| (n.key_text(), n.span))
            .collect();
        let mut own = self.repository(node);
        own.id = own.id.or_else(|| defaults.repository.id.clone());
        own.branch = own.branch.or_else(|| defaults.repository.branch.clone());
        own.connection_arn = own
            .connection_arn
            .or_else(|| defaults.repository.connection_arn.clone());
        let pipeline = self.pipeline(node).or_else(|| defaults.pipeline.clone());
        let rollout = self
            .fields
            .text(node, "rollout")
            .or_else(|| defaults.rollout.clone());
        let mut overrides = Vec::new();
        for (at, value) in self
            .fields
            .mapping(node, "overrides")
            .cloned()
            .iter()
            .flat_map(Node::entries)
        {
            overrides.extend(self.one_override(at, value));
        }
        let options = self.options(node);
        Some(ServiceEntry {
            name,
            template: template?,
            spec,
            ops,
            instances: narrowed.then_some(instances),
            rollout,
            pipeline,
            repository: own,
            overrides,
            options,
            at: self.at(key),
        })
    }

    fn one_override(&mut self, key: &Node, node: &Node) -> Option<Override> {
        let keys: Vec<&str> = OPTION_KEYS.iter().copied().chain(["template"]).collect();
        self.fields.known(node, "an override", &keys);
        let text = key.key_text();
        let (instance, region) = match text.split_once('@') {
            Some((instance, region)) => (
                instance.to_owned(),
                Some(self.fields.parse_at::<Region>(key, region)?),
            ),
            None => (text, None),
        };
        let template = self.fields.parsed(node, "template");
        let options = self.options(node);
        Some(Override {
            instance,
            region,
            template,
            options,
            at: self.at(key),
        })
    }

    fn component(&mut self, key: &Node, node: &Node) -> Option<ComponentEntry> {
        let keys: Vec<&str> = OPTION_KEYS
            .iter()
            .copied()
            .chain(["files", "environment", "attach"])
            .collect();
        self.fields.known(node, "a component", &keys);
        for needed in ["files", "environment"] {
            if node.get(needed).is_none() {
                self.fields.error(
                    "key.missing",
                    key,
                    format!("the component `{}` lacks `{needed}`", key.key_text()),
                );
            }
        }
        let attach = match (self.fields.text(node, "attach"), node.get("attach")) {
            (Some(text), Some(at)) => match text.split_once('/') {
                Some((service, instance)) => Some((service.to_owned(), instance.to_owned())),
                None => {
                    self.fields
                        .error("sync.attach", at, "`attach` is <service>/<instance>");
                    return None;
                }
            },
            _ => None,
        };
        let (files, environment) = (
            self.path(node, "files"),
            self.fields.text(node, "environment"),
        );
        let options = self.options(node);
        Some(ComponentEntry {
            name: key.key_text(),
            files: files?,
            environment: environment?,
            attach,
            options,
            at: self.at(key),
        })
    }

    fn stack(&mut self, key: &Node, node: &Node) -> Option<StackEntry> {
        let keys: Vec<&str> = OPTION_KEYS
            .iter()
            .copied()
            .chain(["template", "placement", "after"])
            .collect();
        self.fields.known(node, "a stack", &keys);
        for needed in ["template", "placement"] {
            if node.get(needed).is_none() {
                self.fields.error(
                    "key.missing",
                    key,
                    format!("the stack `{}` lacks `{needed}`", key.key_text()),
                );
            }
        }
        let after = self
            .fields
            .list(node, "after")
            .iter()
            .map(|n| (n.key_text(), n.span))
            .collect();
        let (template, placement) = (
            self.path(node, "template"),
            self.fields.parsed(node, "placement"),
        );
        let options = self.options(node);
        Some(StackEntry {
            name: key.key_text(),
            template: template?,
            placement: placement?,
            after,
            options,
            at: self.at(key),
        })
    }

    fn options(&mut self, node: &Node) -> StackOptions {
        let gate = match node.get("gate") {
            None => None,
            Some(gate) if gate.text() == Some("approve") => Some(Gate::Approve),
            Some(gate) => {
                self.fields.error(
                    "sync.gate",
                    gate,
                    "the only gate that a repository can add is `approve`",
                );
                None
            }
        };
        let prune = match node.get("prune") {
            None => None,
            Some(word) => match word.text() {
                Some("never") => Some(Prune::Never),
                Some("ask") => Some(Prune::Ask),
                _ => {
                    self.fields.error(
                        "sync.prune",
                        word,
                        "a repository can only be stricter than its operator: write `never` or `ask`",
                    );
                    None
                }
            },
        };
        let mut windows = Vec::new();
        for item in self.fields.list(node, "windows").to_vec() {
            if !item.is_mapping() {
                let message = "a window is a mapping with `from` and `to`";
                self.fields.error("sync.window", &item, message);
            }
            self.fields
                .known(&item, "a window", &["days", "from", "to"]);
            let days = self.fields.texts(&item, "days");
            let (from, to) = (
                self.fields.text(&item, "from"),
                self.fields.text(&item, "to"),
            );
            match Window::new(&days, from.as_deref(), to.as_deref()) {
                Ok(window) => windows.push(window),
                Err(message) => self.fields.error("sync.window", &item, message),
            }
        }
        let notification_arns = self.fields.texts(node, "notification_arns");
        let rollback_triggers = self.fields.texts(node, "rollback_triggers");
        for (list, key) in [
            (&notification_arns, "notification_arns"),
            (&rollback_triggers, "rollback_triggers"),
        ] {
            // CloudFormation API, CreateChangeSet: at most 5 of each.
            if list.len() > 5
                && let Some(at) = node.get(key)
            {
                self.fields.error(
                    "sync.limit",
                    at,
                    format!(
                        "`{key}` has {} entries, CloudFormation allows 5",
                        list.len()
                    ),
                );
            }
        }
        let tags: BTreeMap<String, String> =
            self.fields.text_map(node, "tags").into_iter().collect();
        if let Some(at) = node.get("tags") {
            if tags.len() > 45 {
                self.fields.error(
                    "sync.limit",
                    at,
                    "CloudFormation allows 50 tags, isoform and Proton use up to 5 of them",
                );
            }
            for name in tags
                .keys()
                .filter(|k| k.starts_with("aws:") || k.starts_with("isoform:"))
            {
                self.fields.error(
                    "sync.tag",
                    at,
                    format!("the tag `{}` has a reserved prefix", name.escape_debug()),
                );
            }
        }
        StackOptions {
            parameters: self
                .fields
                .text_map(node, "parameters")
                .into_iter()
                .collect(),
            tags,
            notification_arns,
            rollback_triggers,
            monitoring: self.fields.duration(node, "monitoring"),
            stack_policy: self.path(node, "stack_policy"),
            termination_protection: self.fields.boolean(node, "termination_protection"),
            capabilities: node
                .get("capabilities")
                .map(|_| self.fields.texts(node, "capabilities")),
            windows,
            gate,
            prune,
            stack_name: self.fields.parsed(node, "stack_name"),
        }
    }
}

impl StackOptions {
    /// Lays the options of an override over these.
    pub fn overlaid(&self, over: &Self) -> Self {
        let mut out = self.clone();
        out.parameters.extend(over.parameters.clone());
        out.tags.extend(over.tags.clone());
        if !over.notification_arns.is_empty() {
            out.notification_arns = over.notification_arns.clone();
        }
        if !over.rollback_triggers.is_empty() {
            out.rollback_triggers = over.rollback_triggers.clone();
        }
        if !over.windows.is_empty() {
            out.windows = over.windows.clone();
        }
        out.monitoring = over.monitoring.or(out.monitoring);
        out.stack_policy = over.stack_policy.clone().or(out.stack_policy);
        out.termination_protection = over.termination_protection.or(out.termination_protection);
        out.capabilities = over.capabilities.clone().or(out.capabilities);
        out.gate = over.gate.or(out.gate);
        out.prune = over.prune.or(out.prune);
        out.stack_name = over.stack_name.clone().or(out.stack_name);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
isoform: 1
include: ["services/*/isoform.yaml"]
environments:
  beta: { template: fargate-env@1, spec: environments/beta.yaml, placement: beta }
rollouts:
  standard: [ { environments: [beta], bake: 15m }, { environments: [prod], regions: one-at-a-time, max_in_flight: 5, stop_after: 1 } ]
defaults:
  services: { rollout: standard, pipeline: { placement: tools }, repository: { branch: main } }
services:
  orders:
    template: svc@1
    spec: services/orders.yaml
    repository: { id: acme/orders }
    overrides:
      prod@eu-west-1: { template: svc@1.2, gate: approve, stack_name: AWSProton-orders-prod }
components:
  bucket: { files: templates/component/bucket, environment: beta, attach: orders/beta }
stacks:
  network: { template: stacks/network.yaml, placement: beta, parameters: { Cidr: 10.0.0.0/16, Account: 012345678901 }, after: [env/beta] }
moved: [ { from: svc/orders/beta, to: svc/checkout/beta } ]
"#;

    #[test]
    fn the_whole_format_is_read() {
        let (sync, findings) = parse_sync("isoform.yaml", WHOLE, None);
        assert_eq!(findings, vec![]);
        let orders = &sync.services[0];
        assert_eq!(
            orders.repository,
            Repository {
                id: Some("acme/orders".into()),
                branch: Some("main".into()),
                connection_arn: None
            }
        );
        assert_eq!(
            orders.overrides[0].template.as_ref().unwrap().to_string(),
            "svc@1.2"
        );
        assert_eq!(sync.rollouts["standard"][0].bake, Duration::from_secs(900));
        assert_eq!(sync.stacks[0].options.parameters["Account"], "012345678901");
    }

    #[test]
    fn every_fault_is_found_and_the_rest_is_kept() {
        let text = "isoform: 1\nenvironment: {}\nenvironments:\n  a: {template: x, spec: /etc/passwd, placement: p}\n  b: {template: x@1, spec: ../x, placement: p}\n  c: {template: x@1, spec: x, placement: p, bake: 1}\nstacks:\n  d: {template: t.yaml, placement: p}\n";
        let (sync, findings) = parse_sync("isoform.yaml", text, None);
        let seen: Vec<(&str, u32)> = findings
            .iter()
            .map(|f| (f.code.as_str(), f.place.span.unwrap().line))
            .collect();
        assert_eq!(
            seen,
            [
                ("key.unknown", 2),
                ("key.value", 4),
                ("key.path", 4),
                ("key.path", 5),
                ("key.unknown", 6)
            ]
        );
        assert_eq!((sync.environments.len(), sync.stacks.len()), (0, 1));
    }

    #[test]
    fn fragments_define_only_what_lies_beside_them() {
        let text = "isoform: 1\nservices: {a: {template: t@1, spec: spec.yaml}}\n";
        let (whole, _) = parse_sync("isoform.yaml", WHOLE, None);
        let fragment = |folder| Fragment {
            folder,
            defaults: &whole.defaults,
        };
        let (sync, findings) = parse_sync(
            "services/a/isoform.yaml",
            text,
            Some(fragment("services/a")),
        );
        assert_eq!(
            (findings, sync.services[0].spec.as_deref()),
            (vec![], Some("services/a/spec.yaml"))
        );
        // What the sync file says for all services holds here too.
        let (mine, theirs) = (&sync.services[0], &whole.services[0]);
        assert!(mine.rollout.is_some() && mine.rollout == theirs.rollout);
        assert!(mine.pipeline.is_some() && mine.repository.branch == theirs.repository.branch);
        let (_, findings) = parse_sync("f", "isoform: 1\nrollouts: {}\n", Some(fragment("f")));
        assert_eq!(findings[0].code, "key.unknown");
    }

    #[test]
    fn sec_11_an_entry_with_a_fault_is_left_out_and_no_other() {
        let stacks = |options: &str| {
            let text = format!(
                "isoform: 1\nstacks:\n  bad: {{ template: a.yaml, placement: p, {options} }}\n  good: {{ template: a.yaml, placement: p }}\n"
            );
            let (sync, findings) = parse_sync("f", &text, None);
            assert!(!findings.is_empty(), "{options}");
            sync.stacks.into_iter().map(|s| s.name).collect::<Vec<_>>()
        };
        for options in [
            "monitoring: -5m",
            "monitoring: NaN",
            "monitoring: 1e30s",
            "monitoring: 99999999999999999999d",
            "monitoring: '5'",
            "monitoring: [1m]",
            "gate: aprove",
            "windows: [never]",
            "capabilities: 5",
            "terminaton_protection: true",
        ] {
            assert_eq!(stacks(options), ["good"], "{options}");
        }
    }

    #[test]
    fn sec_11_a_wave_that_cannot_be_read_lets_nobody_pass() {
        let read = |rollout: &str, defaults: &str| {
            let text = format!(
                "isoform: 1\nrollouts: {{ r: [ {{ environments: [beta] }}, {rollout} ] }}\ndefaults: {{ services: {{ {defaults} }} }}\nenvironments: {{ prod: {{ template: e@1, spec: e.yaml, placement: p }} }}\nservices: {{ s: {{ template: s@1, spec: s.yaml }} }}\nstacks: {{ a: {{ template: a.yaml, placement: p }} }}\n"
            );
            let (sync, findings) = parse_sync("f", &text, None);
            let counts = (
                sync.environments.len(),
                sync.services.len(),
                sync.stacks.len(),
            );
            (findings.len(), counts)
        };
        let fine = "{ environments: [prod], bake: 1h }";
        assert_eq!(read(fine, "rollout: r"), (0, (1, 1, 1)));
        assert_eq!(
            read("{ environments: [prod], bake: -1h }", "rollout: r"),
            (1, (0, 0, 1))
        );
        assert_eq!(read(fine, "rollout: [r]"), (1, (0, 0, 1)));
    }
}
