//! One target, and its rendering.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Placement, TemplateVersion};
use crate::domain::cfn::{
    Reference, Template, bind_parameters, name_nested, parse_template_with, pin_references,
    unpinned,
};
use crate::domain::model::{Address, Finding, Place, Region, SourceName, StackName, closest};
use crate::domain::plan::{Desired, covers};
use crate::domain::render::{
    self, ComponentData, EnvironmentData, InstanceData, Limits, PipelineData, PipelineInstance,
    ServiceData,
};
use crate::domain::spec::StackOptions;
use crate::domain::template::{Component, Engine, Part, text_of};

/// A rollout: the source whose sync file defines it, and its name there. One source has no word in the waves of another.
pub type RolloutKey = (SourceName, String);

/// Where a target stands in a rollout.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StagePosition {
    /// The rollout.
    pub rollout: RolloutKey,
    /// The wave, from 0.
    pub stage: usize,
    /// The order of its region in the placement, where regions follow each other; else 0.
    pub region: usize,
}

/// What a target deploys.
#[derive(Clone, PartialEq, Debug)]
pub enum TargetKind {
    /// An environment of a template.
    Environment {
        /// The template.
        template: TemplateVersion,
        /// Its effective inputs.
        inputs: Value,
    },
    /// An environment that somebody else provisions: its inputs are its outputs, and there is no stack.
    CustomerManaged {
        /// The outputs.
        outputs: BTreeMap<String, String>,
    },
    /// A service instance.
    Instance {
        /// The template.
        template: TemplateVersion,
        /// Its effective inputs.
        inputs: Value,
        /// Its service.
        service: ServiceData,
        /// Its environment.
        environment: Address,
        /// The attached component.
        component: Option<Address>,
    },
    /// A service's pipeline.
    Pipeline {
        /// The template.
        template: TemplateVersion,
        /// Its effective inputs.
        inputs: Value,
        /// Its service.
        service: ServiceData,
        /// The instances, in the order of the spec, with their inputs and environments.
        instances: Vec<(Address, Value, Address)>,
    },
    /// A component.
    Component {
        /// Its files.
        component: Arc<Component>,
        /// Where they lie.
        directory: String,
        /// Its environment.
        environment: Address,
        /// The instance it is attached to, with its service and inputs.
        attached: Option<(Address, ServiceData, Value)>,
    },
    /// A plain stack.
    Stack {
        /// Path of its template.
        path: String,
        /// The template's text.
        text: Arc<str>,
        /// The files that it nests, by their paths; one that is missing is a fault of the template.
        nested: Arc<BTreeMap<String, Arc<str>>>,
    },
    /// What a fault keeps from being told.
    Broken,
}

/// One deployable unit that the sources ask for.
#[derive(Clone, PartialEq, Debug)]
pub struct Target {
    /// Its address.
    pub address: Address,
    /// The source that asks for it.
    pub source: SourceName,
    /// Its placement.
    pub placement: Placement,
    /// Its region.
    pub region: Region,
    /// What it deploys.
    pub kind: TargetKind,
    /// Stack options.
    pub options: StackOptions,
    /// The stack policy's text.
    pub stack_policy: Option<String>,
    /// Its place in a rollout.
    pub stage: Option<StagePosition>,
    /// Targets that must have settled first, without their outputs being used.
    pub after: Vec<Address>,
    /// The line that made it.
    pub made_by: Place,
    /// The file that holds its values, for messages.
    pub values_at: Option<Place>,
    /// The lines on which its spec sets its inputs.
    pub input_lines: BTreeMap<String, u32>,
    /// Faults of the files that it is made of.
    pub faults: Vec<Finding>,
}

/// What a rendering needs from outside.
pub struct Context<'a> {
    /// The tags that say whose the stack is.
    pub owner: &'a BTreeMap<String, String>,
    /// The stack's name.
    pub stack_name: &'a StackName,
    /// Outputs of a target, where it has any; and names of outputs that will come.
    pub outputs: &'a dyn Fn(&Address) -> Option<BTreeMap<String, String>>,
    /// Limits of one rendering.
    pub limits: Limits,
}

/// What came out of the renderer and is not checked yet.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What the stack should be, but for what only reading the template tells: capabilities and names of secrets.
    pub desired: Desired,
    path: String,
    data: Value,
    notes: Vec<Finding>,
}

/// What a rendering came to.
#[derive(Clone, Debug)]
pub struct Rendering {
    /// What the stack should be.
    pub desired: Desired,
    /// The file that was rendered, for messages, and its text.
    pub file: (String, Arc<str>),
    /// The data that it was rendered with.
    pub data: Value,
    /// Names of the template's outputs.
    pub outputs: Vec<String>,
    /// Dynamic references that name no version.
    pub references: BTreeSet<Reference>,
    /// Warnings.
    pub notes: Vec<Finding>,
}

impl Rendering {
    /// Writes down the version of every reference whose version is known. What was written stays.
    pub fn pin(&mut self, versions: &BTreeMap<Reference, String>) {
        let known = |r: &Reference| Some((r.to_string(), versions.get(r)?.clone()));
        self.desired.versions = self.references.iter().filter_map(known).collect();
        if !self.desired.versions.is_empty() {
            self.desired.template = pin_references(&self.desired.template, versions).into();
        }
    }
}

impl Target {
    /// Tells whether nothing of a rollout comes before it.
    pub fn is_first(&self) -> bool {
        let position = self.stage.as_ref();
        position.is_none_or(|s| s.stage == 0 && s.region == 0)
    }

    /// Returns the targets whose outputs it uses.
    pub fn producers(&self) -> Vec<Address> {
        match &self.kind {
            TargetKind::Instance {
                environment,
                component,
                ..
            } => [Some(environment.clone()), component.clone()]
                .into_iter()
                .flatten()
                .collect(),
            TargetKind::Component { environment, .. } => vec![environment.clone()],
            TargetKind::Pipeline { instances, .. } => {
                let mut all: Vec<Address> = instances
                    .iter()
                    .flat_map(|(i, _, e)| [i.clone(), e.clone()])
                    .collect();
                all.sort();
                all.dedup();
                all
            }
            _ => Vec::new(),
        }
    }

    /// Returns everything that must have settled first.
    pub fn needs(&self) -> Vec<Address> {
        let mut all = self.producers();
        all.extend(self.after.iter().cloned());
        all.sort();
        all.dedup();
        all
    }

    /// Tells whether another target renders to the same with the same outputs.
    pub fn renders_like(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.options == other.options
            && self.stack_policy == other.stack_policy
            && self.placement.account == other.placement.account
    }

    /// Returns the template version, where there is one.
    pub fn template(&self) -> Option<&TemplateVersion> {
        match &self.kind {
            TargetKind::Environment { template, .. }
            | TargetKind::Instance { template, .. }
            | TargetKind::Pipeline { template, .. } => Some(template),
            _ => None,
        }
    }

    /// Returns the effective inputs, where there are any.
    pub fn inputs(&self) -> Option<&Value> {
        match &self.kind {
            TargetKind::Environment { inputs, .. }
            | TargetKind::Instance { inputs, .. }
            | TargetKind::Pipeline { inputs, .. } => Some(inputs),
            _ => None,
        }
    }

    /// Returns the part that is rendered, with its full path.
    fn part(&self) -> Option<(&Part, String)> {
        let full = |root: &str, file: &str| {
            if root.is_empty() {
                file.to_owned()
            } else {
                format!("{root}/{file}")
            }
        };
        let of = |template: &'_ TemplateVersion, part: &Option<Part>| -> Option<String> {
            part.as_ref().map(|p| full(&template.root, &p.file))
        };
        match &self.kind {
            TargetKind::Environment { template, .. } => template
                .bundle
                .infrastructure
                .as_ref()
                .zip(of(template, &template.bundle.infrastructure)),
            TargetKind::Instance { template, .. } => template
                .bundle
                .instance
                .as_ref()
                .zip(of(template, &template.bundle.instance)),
            TargetKind::Pipeline { template, .. } => template
                .bundle
                .pipeline
                .as_ref()
                .zip(of(template, &template.bundle.pipeline)),
            TargetKind::Component {
                component,
                directory,
                ..
            } => Some((&component.part, full(directory, &component.part.file))),
            TargetKind::Stack { .. } | TargetKind::CustomerManaged { .. } | TargetKind::Broken => {
                None
            }
        }
    }

    /// Returns the engine that its manifest names.
    pub fn engine(&self) -> Engine {
        self.part().map_or(Engine::Jinja, |(part, _)| part.engine)
    }

    /// Returns the complete data of its namespaces.
    pub fn data(&self, outputs: &dyn Fn(&Address) -> Option<BTreeMap<String, String>>) -> Value {
        let account = self.placement.account.as_str();
        let values = |address: &Address| -> Value {
            Value::Object(
                outputs(address)
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(k, v)| (k, Value::String(v)))
                    .collect::<Map<_, _>>(),
            )
        };
        let environment = |address: &Address, account: &str| EnvironmentData {
            name: address.name().to_owned(),
            account_id: account.to_owned(),
            outputs: values(address),
        };
        match &self.kind {
            TargetKind::Environment { inputs, .. } => {
                EnvironmentData::own(self.address.name(), account, inputs)
            }
            TargetKind::Instance {
                inputs,
                service,
                environment: env,
                component,
                ..
            } => InstanceData {
                environment: environment(env, account),
                service: service.clone(),
                name: self.address.name().to_owned(),
                inputs: inputs.clone(),
                component: component.as_ref().map(|c| (c.name().to_owned(), values(c))),
            }
            .value(),
            TargetKind::Pipeline {
                inputs,
                service,
                instances,
                ..
            } => PipelineData {
                service: service.clone(),
                inputs: inputs.clone(),
                instances: instances
                    .iter()
                    .map(|(address, inputs, env)| PipelineInstance {
                        name: address.name().to_owned(),
                        inputs: inputs.clone(),
                        outputs: values(address),
                        environment: environment(env, account),
                    })
                    .collect(),
            }
            .value(),
            TargetKind::Component {
                environment: env,
                attached,
                ..
            } => ComponentData {
                name: self.address.name().to_owned(),
                environment: environment(env, account),
                attached: attached.as_ref().map(|(instance, service, inputs)| {
                    (service.clone(), instance.name().to_owned(), inputs.clone())
                }),
            }
            .value(),
            TargetKind::Stack { .. } | TargetKind::CustomerManaged { .. } | TargetKind::Broken => {
                Value::Object(Map::new())
            }
        }
    }

    /// Returns the template that is rendered, where there is one: its path and its text.
    pub fn source(&self) -> Option<(String, &str)> {
        self.part().map(|(part, path)| (path, part.text.as_str()))
    }

    /// Returns where a resource is defined in the template as it was written: file and line.
    ///
    /// By its text: what is not rendered cannot be read. The first line that begins with its name is taken.
    pub fn line_of(&self, logical: &str) -> Option<(String, usize)> {
        let (path, text) = match &self.kind {
            TargetKind::Stack { path, text, .. } => (path.clone(), &**text),
            _ => self.source()?,
        };
        let defines = |line: &str| {
            let line = line.trim_start().trim_start_matches('"');
            let rest = line.strip_prefix(logical);
            rest.is_some_and(|r| r.trim_start_matches('"').trim_start().starts_with(':'))
        };
        let at = text.lines().position(defines)?;
        Some((path, at + 1))
    }

    /// Renders the target and checks what came out.
    pub fn render(&self, context: &Context<'_>) -> Result<Rendering, Vec<Finding>> {
        self.check(self.draft(context, None)?)
    }

    /// Returns the template that it shares with other targets: what names it, its path and its text.
    pub fn shared_template(&self) -> Option<((&str, &'static str), String, &str)> {
        let version = self.template()?;
        let (path, text) = self.source()?;
        Some(((version.digest.as_str(), self.address.kind()), path, text))
    }

    /// Renders the target, with its template already compiled where the caller has many of one.
    pub fn draft(
        &self,
        context: &Context<'_>,
        compiled: Option<&render::Compiled<'_>>,
    ) -> Result<Draft, Vec<Finding>> {
        let data = self.data(context.outputs);
        let (path, text, notes): (String, Arc<str>, Vec<Finding>) = match (&self.kind, self.part())
        {
            (TargetKind::Stack { path, text, .. }, _) => (path.clone(), text.clone(), Vec::new()),
            (_, Some((part, path))) => {
                let rendered = match compiled {
                    Some(compiled) => compiled.render(&data, &context.limits),
                    None => render::render(&path, &part.text, &data, &context.limits),
                };
                let rendered = rendered.map_err(|f| vec![*f])?;
                (path, rendered.text.into(), rendered.notes)
            }
            _ => return Err(self.faults.clone()),
        };
        let named = name_nested(&path, &text, &|file| self.beside(file));
        let named = named.map_err(|found| match self.part() {
            Some((part, _)) => relocate(found, &part.text, &text),
            None => found,
        })?;
        let (text, nested) = match named {
            Some(named) => (named.text.into(), named.nested),
            None => (text, BTreeMap::new()),
        };
        let consumed = match self.part() {
            Some((part, _)) => self.consumed(&part.text, context),
            None => BTreeMap::new(),
        };
        let mut desired = Desired {
            stack_name: context.stack_name.clone(),
            template: text,
            secrets: Vec::new(),
            parameters: self.options.parameters.clone(),
            tags: self.options.tags.clone(),
            notification_arns: self.options.notification_arns.clone(),
            rollback_triggers: self.options.rollback_triggers.clone(),
            monitoring_minutes: self.options.monitoring.map_or(0, |d| d.as_secs() / 60),
            stack_policy: self.stack_policy.clone(),
            termination_protection: self.options.termination_protection,
            prune: self.options.prune,
            capabilities: Vec::new(),
            allowed: self.options.capabilities.clone(),
            nested,
            consumed,
            versions: BTreeMap::new(),
        };
        desired.own(context.owner);
        Ok(Draft {
            desired,
            path,
            data,
            notes,
        })
    }

    /// Checks what came out of the renderer.
    pub fn check(&self, draft: Draft) -> Result<Rendering, Vec<Finding>> {
        self.checked(draft).map(|(rendering, _)| rendering)
    }

    /// Does the same as [`Target::check`], and returns the template as it was read.
    pub fn checked(&self, draft: Draft) -> Result<(Rendering, Template), Vec<Finding>> {
        let Draft {
            mut desired,
            path,
            data,
            mut notes,
        } = draft;
        let text = desired.template.clone();
        let source: Arc<str> = match self.part() {
            Some((part, _)) => part.text.as_str().into(),
            None => text.clone(),
        };
        let template = parse_template_with(&path, &text, &desired.parameters)
            .map_err(|findings| relocate(findings, &source, &text))?;
        let at = self
            .values_at
            .clone()
            .unwrap_or_else(|| self.made_by.clone());
        if let Err(errors) = bind_parameters(&template, &desired.parameters, &|_| String::new()) {
            return Err(errors
                .into_iter()
                .map(|e| Finding::error("stack.parameter", at.clone(), e.message))
                .collect());
        }
        let mut needed = template.capabilities();
        for text in desired.nested.values() {
            let below = parse_template_with(&path, text, &BTreeMap::new())?;
            needed.extend(below.capabilities());
        }
        needed.sort_unstable();
        needed.dedup();
        if let Some(allowed) = &self.options.capabilities
            && let Some(missing) = needed.iter().find(|c| !covers(allowed, c))
        {
            let message =
                format!("the template needs {missing}, which `capabilities` does not allow");
            return Err(vec![Finding::error(
                "stack.capability",
                self.made_by.clone(),
                message,
            )]);
        }
        notes.extend(unknown_properties(&path, &template, &source, &text));
        desired.secrets = template
            .parameters
            .iter()
            .filter(|(_, p)| p.no_echo)
            .map(|(n, _)| n.clone())
            .collect();
        desired.capabilities = needed.into_iter().map(str::to_owned).collect();
        let references = unpinned(&template, &text, &desired.parameters);
        let rendering = Rendering {
            desired,
            file: (path, source),
            data,
            outputs: template.outputs.keys().cloned().collect(),
            references,
            notes,
        };
        Ok((rendering, template))
    }

    /// Returns the text of a file of the bundle, component or repository that its template comes from.
    fn beside(&self, path: &str) -> Option<Arc<str>> {
        let (files, root) = match &self.kind {
            TargetKind::Stack { nested, .. } => return nested.get(path).cloned(),
            TargetKind::Component {
                component,
                directory,
                ..
            } => (&component.files, directory.as_str()),
            _ => {
                let template = self.template()?;
                (&template.bundle.files, template.root.as_str())
            }
        };
        let inside = match root {
            "" => path,
            root => path.strip_prefix(root)?.strip_prefix('/')?,
        };
        let text = text_of(files, inside).ok()?;
        Some(text.into())
    }

    /// Returns the outputs whose names stand in the template: what it can have read.
    fn consumed(&self, source: &str, context: &Context<'_>) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        for producer in self.producers() {
            for (name, value) in (context.outputs)(&producer).unwrap_or_default() {
                if has_word(source, &name) {
                    out.insert(
                        format!("{producer}.{name}"),
                        crate::domain::model::sha256_hex(value.as_bytes()),
                    );
                }
            }
        }
        out
    }
}

/// Tells whether a name stands in a text by itself, not as a part of a longer one.
fn has_word(text: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    !name.is_empty()
        && name.chars().all(part)
        && text.match_indices(name).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            let after = text[at + name.len()..].chars().next();
            !before.is_some_and(part) && !after.is_some_and(part)
        })
}

/// Moves findings about a rendered text to the lines of the template that it came from.
fn relocate(findings: Vec<Finding>, source: &str, rendered: &str) -> Vec<Finding> {
    // The map is a comparison of both texts: it is made for those few that have something to say.
    if findings.is_empty() {
        return findings;
    }
    let map = render::line_map(source, rendered);
    findings
        .into_iter()
        .map(|mut finding| {
            if let Some(span) = finding.place.span {
                let line = map.get(span.line as usize - 1).copied().unwrap_or(span.line);
                let same = source.lines().nth(line as usize - 1) == rendered.lines().nth(span.line as usize - 1);
                let width = source.lines().nth(line as usize - 1).map_or(1, |l| l.trim().chars().count());
                let indent = source.lines().nth(line as usize - 1).map_or(0, |l| l.chars().take_while(|c| *c == ' ').count());
                let moved = if same { crate::domain::model::Span { line, end_line: line, ..span } } else { crate::domain::model::Span::on_line(line, indent as u32 + 1, width as u32) };
                if !same && finding.help.is_none() {
                    finding.help = Some("the line is shown as the template has it; `isoform render` prints what it became".into());
                }
                finding.place = Place::at(finding.place.file.clone(), moved, source);
            }
            finding
        })
        .collect()
}

/// Warns about properties that the published schemas do not know.
fn unknown_properties(
    path: &str,
    template: &crate::domain::cfn::Template,
    source: &str,
    rendered: &str,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for (logical, resource) in &template.resources {
        let Some(facts) = crate::domain::cfn::resource_type(&resource.kind) else {
            continue;
        };
        for name in resource
            .properties
            .as_object()
            .into_iter()
            .flatten()
            .map(|(n, _)| n)
        {
            if !facts.has_property(name) && !name.starts_with("Fn::") {
                let node = template
                    .root
                    .follow(["Resources", logical.as_str(), "Properties"]);
                let span = node.entry(name).map_or(node.span, |(k, _)| k.span);
                let mut finding = Finding::warning(
                    "cfn.property",
                    Place::at(path, span, rendered),
                    format!("`{name}` is not a property of {}", resource.kind),
                );
                finding.help =
                    closest(name, facts.properties()).map(|c| format!("did you mean `{c}`?"));
                found.push(finding);
            }
        }
    }
    relocate(found, source, rendered)
}

#[cfg(test)]
mod tests {
    use super::has_word;

    #[test]
    fn a_name_counts_only_by_itself() {
        let text = "{{ environment.outputs.VpcId }} {{ outputs['Topic-Arn'] }} SubnetIds Ünit";
        for (name, there) in [
            ("VpcId", true),
            ("Vpc", false),
            ("Topic-Arn", true),
            ("Topic", false),
            ("SubnetIds", true),
            ("SubnetId", false),
            ("nit", false),
            ("", false),
            ("outputs.VpcId", false),
        ] {
            assert_eq!(has_word(text, name), there, "{name}");
        }
    }
}
