//! What compiling an estate has read before, so that a push costs what it changes.
//!
//! Only what has no fault is kept: a fault is told anew each time, with the places of today.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Compiled, Target, TemplateVersion, Templates};
use crate::domain::graph::Graph;
use crate::domain::model::{Address, Finding, SourceName, glob_matches};
use crate::domain::spec::{ServiceEntry, SyncFile, TemplateRef};
use crate::domain::template::{BundleKind, Files};

/// A sync file with what is wrong with it.
pub type Sync = Arc<(SyncFile, Vec<Finding>)>;

/// What earlier compilations came to. An empty one makes the next compilation a full one.
#[derive(Debug, Default)]
pub struct Memory {
    sources: BTreeMap<SourceName, Source>,
    templates: Templates,
    linked: Option<(Vec<Arc<Target>>, Arc<Graph>)>,
}

#[derive(Debug, Default)]
struct Source {
    /// The files that the sync file was read from, by id.
    read: Vec<(String, String)>,
    sync: Option<Sync>,
    /// The environments that services were put into.
    hosts: Vec<Arc<Target>>,
    services: BTreeMap<String, Arc<Part>>,
    /// What the services came to that were put together last, and all their targets.
    together: BTreeMap<String, Arc<Part>>,
    targets: BTreeMap<Address, Arc<Target>>,
}

/// What one service came to, and everything that it was made of.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Files by path, with their ids.
    pub read: Vec<(String, String)>,
    pub templates: Vec<(TemplateRef, TemplateVersion)>,
    pub targets: Vec<Arc<Target>>,
    pub findings: Vec<Finding>,
}

impl Part {
    /// Tells whether the files that it was made of are still the same.
    fn reads(&self, files: &Files) -> bool {
        let mut read = self.read.iter();
        read.all(|(path, id)| files.get(path).is_some_and(|b| b.id == *id))
    }

    fn goes_by(&self, templates: &Templates) -> bool {
        self.templates
            .iter()
            .all(|(r, version)| templates.get(BundleKind::Service, r) == Some(version))
    }
}

impl Memory {
    /// Returns the sync file of a source, read anew if one of its files has changed.
    pub fn sync(
        &mut self,
        source: &SourceName,
        files: &Files,
        read: impl FnOnce(&Files) -> (SyncFile, Vec<Finding>),
    ) -> Sync {
        let known = self.sources.entry(source.clone()).or_default();
        if let Some(sync) = &known.sync
            && known.read == parts_of(&sync.0, files)
        {
            return sync.clone();
        }
        let sync = Arc::new(read(files));
        known.read = parts_of(&sync.0, files);
        known.sync = Some(sync.clone());
        known.services.clear();
        sync
    }

    /// Says which environments there are; where they differ, no service is known any more.
    pub(super) fn on(&mut self, source: &SourceName, hosts: Vec<Arc<Target>>) {
        let known = self.sources.entry(source.clone()).or_default();
        if known.hosts != hosts {
            known.services.clear();
        }
        known.hosts = hosts;
    }

    /// Says which templates there are; what was made of others is no longer known.
    pub(super) fn with(&mut self, templates: &Templates) {
        if self.templates != *templates {
            for source in self.sources.values_mut() {
                source.services.retain(|_, part| part.goes_by(templates));
            }
            self.templates = templates.clone();
        }
    }

    /// Returns what a service came to, if it would come to the same.
    pub(super) fn service(
        &self,
        source: &SourceName,
        name: &str,
        files: &Files,
    ) -> Option<Arc<Part>> {
        let part = self.sources.get(source)?.services.get(name)?;
        part.reads(files).then(|| part.clone())
    }

    /// Keeps what a service came to, or forgets it where it cannot be kept.
    pub(super) fn keep(&mut self, source: &SourceName, name: &str, part: Option<Part>) {
        let services = &mut self.sources.entry(source.clone()).or_default().services;
        match part {
            Some(part) => services.insert(name.to_owned(), Arc::new(part)),
            None => services.remove(name),
        };
    }

    /// Puts the targets of services of a source together: what was put together before is only changed where it differs.
    pub(super) fn together(
        &mut self,
        source: &SourceName,
        parts: BTreeMap<String, Arc<Part>>,
    ) -> &BTreeMap<Address, Arc<Target>> {
        let known = self.sources.entry(source.clone()).or_default();
        let same = |a: &Arc<Part>, b: Option<&Arc<Part>>| b.is_some_and(|b| Arc::ptr_eq(a, b));
        for (name, part) in &known.together {
            if !same(part, parts.get(name)) {
                for target in &part.targets {
                    known.targets.remove(&target.address);
                }
            }
        }
        for (name, part) in &parts {
            if !same(part, known.together.get(name)) {
                let of = |target: &Arc<Target>| (target.address.clone(), target.clone());
                known.targets.extend(part.targets.iter().map(of));
            }
        }
        known.together = parts;
        &known.targets
    }

    /// Returns the graph of the targets, if every one needs what it needed before.
    pub(super) fn linked(&self, out: &Compiled) -> Option<Arc<Graph>> {
        let (targets, graph) = self.linked.as_ref()?;
        let same = targets.len() == out.targets.len()
            && targets.iter().zip(out.targets.values()).all(|(a, b)| {
                Arc::ptr_eq(a, b) || (a.address == b.address && a.needs() == b.needs())
            });
        same.then(|| graph.clone())
    }

    /// Keeps the graph of the targets.
    pub(super) fn keep_links(&mut self, out: &Compiled) {
        self.linked = Some((out.targets.values().cloned().collect(), out.graph.clone()));
    }
}

/// Returns the templates that a service names, as they are now; nothing where one is missing.
pub(super) fn templates_of(
    entry: &ServiceEntry,
    templates: &Templates,
) -> Option<Vec<(TemplateRef, TemplateVersion)>> {
    let overrides = entry.overrides.iter().filter_map(|o| o.template.as_ref());
    std::iter::once(&entry.template)
        .chain(overrides)
        .map(|r| Some((r.clone(), templates.get(BundleKind::Service, r)?.clone())))
        .collect()
}

fn parts_of(sync: &SyncFile, files: &Files) -> Vec<(String, String)> {
    let main = files.get_key_value("isoform.yaml");
    let fragments = (!sync.include.is_empty()).then_some(files).into_iter();
    let fragments = fragments
        .flatten()
        .filter(|(path, _)| sync.include.iter().any(|g| glob_matches(g, path)));
    main.into_iter()
        .chain(fragments)
        .map(|(path, blob)| (path.clone(), blob.id.clone()))
        .collect()
}
