//! The estate: every target that the sources ask for, with everything that is known before outputs are.
//!
//! [`compile()`] turns trees of files into [`Target`]s; [`Target::render`] turns one target and the outputs it uses into
//! a [`crate::domain::plan::Desired`]. An entry with a fault becomes a target that carries it, so that a broken file
//! stops what it describes and nothing else.

mod assign;
mod compile;
mod memory;
mod moves;
mod sheets;
mod target;
mod validate;
mod waves;

pub use assign::{AssignError, Assigned, Assignment, assign};
pub use compile::{Compiled, SourceTree, compile, compile_after, current_stored, read_sync};
pub use memory::{Memory, Sync};
pub use moves::{Identities, Standing, identify};
#[cfg(feature = "edge")]
pub(crate) use sheets::placeholder;
pub use sheets::{Asker, Filled, Outputs, Sheets};
pub use target::{Context, Draft, Rendering, RolloutKey, StagePosition, Target, TargetKind};
pub use validate::{Checked, rendered, validate};
pub use waves::{WaveKey, Waves};

use std::collections::BTreeMap;
use std::sync::Arc;

use super::model::{AccountId, PlacementName, Region, SourceName, glob_matches};
use super::policy::{ApprovalRule, Mode, PruneRule};
use super::spec::TemplateRef;
use super::template::{Bundle, BundleKind};

/// An account and its regions, with the operator's side of every gate.
#[derive(Clone, PartialEq, Debug)]
pub struct Placement {
    /// Its name.
    pub name: PlacementName,
    /// The account.
    pub account: AccountId,
    /// The regions; at least one.
    pub regions: Vec<Region>,
    /// How far isoform may go.
    pub mode: Mode,
    /// Whether every change waits for an approval of its blast radius.
    pub critical: bool,
    /// Most targets that one snapshot may change here without an approval.
    pub blast_radius: usize,
    /// Who approves.
    pub rule: ApprovalRule,
    /// What happens to stacks that are no longer asked for.
    pub prune: PruneRule,
    /// Whether dynamic references without a version are deployed with the one that there is, and followed.
    pub pin_references: bool,
}

/// What a source may do.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The source.
    pub source: SourceName,
    /// How far isoform may go for it.
    pub mode: Mode,
    /// Globs of what it may define, by kind.
    pub may: May,
}

/// Globs of what a source may define.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct May {
    pub templates: Vec<String>,
    pub environments: Vec<String>,
    pub services: Vec<String>,
    pub components: Vec<String>,
    pub stacks: Vec<String>,
    pub placements: Vec<String>,
    pub stack_names: Vec<String>,
}

impl May {
    /// Allows everything: for a single repository of one team.
    pub fn everything() -> Self {
        let all = || vec!["**".to_owned()];
        Self {
            templates: all(),
            environments: all(),
            services: all(),
            components: all(),
            stacks: all(),
            placements: all(),
            stack_names: all(),
        }
    }

    /// Tells whether one of the globs matches.
    pub fn allows(globs: &[String], name: &str) -> bool {
        globs.iter().any(|g| glob_matches(g, name))
    }
}

/// A template version whose bundle is at hand.
#[derive(Clone, Debug)]
pub struct TemplateVersion {
    /// `name@major.minor`, or `name@major (new)` before it is registered.
    pub version: String,
    /// The bundle's identity.
    pub digest: super::model::Digest,
    /// The bundle.
    pub bundle: Arc<Bundle>,
    /// Where its files lie, for messages.
    pub root: String,
}

impl PartialEq for TemplateVersion {
    // Equal digests mean equal bundles.
    fn eq(&self, other: &Self) -> bool {
        (&self.digest, &self.version, &self.root) == (&other.digest, &other.version, &other.root)
    }
}

/// The template versions that a snapshot can use.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Templates {
    versions: BTreeMap<(BundleKind, String, u32, Option<u32>), TemplateVersion>,
}

impl Templates {
    /// Adds what a reference means. Without a minor it is what the major follows.
    pub fn add(&mut self, kind: BundleKind, reference: &TemplateRef, version: TemplateVersion) {
        self.versions.insert(
            (
                kind,
                reference.name.clone(),
                reference.major,
                reference.minor,
            ),
            version,
        );
    }

    /// Returns what a reference means.
    pub fn get(&self, kind: BundleKind, reference: &TemplateRef) -> Option<&TemplateVersion> {
        self.versions.get(&(
            kind,
            reference.name.clone(),
            reference.major,
            reference.minor,
        ))
    }

    /// Returns the names and majors of a kind, for messages.
    pub fn names(&self, kind: BundleKind) -> Vec<String> {
        let mut names: Vec<String> = self
            .versions
            .keys()
            .filter(|k| k.0 == kind)
            .map(|k| format!("{}@{}", k.1, k.2))
            .collect();
        names.dedup();
        names
    }
}
