//! What would change for an estate: the shape of the answer, for terminals, comments and machines alike.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Change;
use crate::domain::model::{Address, Digest, Finding, Prune};

/// What would change for one target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TargetDiff {
    /// Its address.
    pub address: Address,
    /// Whether it would be created.
    pub create: bool,
    /// Its placement.
    pub placement: String,
    /// What would change.
    pub changes: Vec<Change>,
    /// For each property path `<logical>.<path>`: the file and line that it comes from.
    pub places: BTreeMap<String, String>,
    /// Differences of the rendered text, unified.
    pub text: String,
    /// Targets that are planned again if its outputs change.
    pub then: Vec<Address>,
    /// What keeps it from being exact.
    pub problems: Vec<String>,
    /// What it would have to pass before it runs, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<String>,
    /// The review of it, where CloudFormation was asked: what an approval would bind to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<Digest>,
}

/// What would change for the estate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiffReport {
    /// Version of this shape.
    pub v: u32,
    /// What changes.
    pub targets: Vec<TargetDiff>,
    /// How many do not change.
    pub unchanged: usize,
    /// Targets that keep their stacks under another address.
    #[serde(default)]
    pub moved: Vec<Move>,
    /// Targets that Git would no longer ask for.
    pub orphaned: Vec<Orphan>,
    /// Faults.
    pub findings: Vec<Finding>,
}

impl DiffReport {
    /// Tells whether nothing would happen.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.orphaned.is_empty() && self.moved.is_empty()
    }
}

/// A target that would have another address, and keep its stack and its history.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Move {
    /// Its address until now.
    pub from: Address,
    /// The one that it would have.
    pub to: Address,
}

/// A target that Git would no longer ask for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Orphan {
    /// Its address.
    pub address: Address,
    /// What would become of its stack, where it has one.
    pub prune: Prune,
}
