//! A change set as read back: what was shown, and the digest that binds an approval to exactly that.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Watermark;
use crate::domain::cfn::stateful;
use crate::domain::model::{Digest, StackId, TargetUid, canonical_json};

/// What happens to a resource.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Action {
    /// It is created.
    Add,
    /// It is changed, in place or by replacement.
    Modify,
    /// It leaves the stack.
    Remove,
    /// It is taken into the stack.
    Import,
    /// Not known until it runs.
    Dynamic,
}

/// Whether a change replaces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Replacement {
    /// In place.
    Never,
    /// Perhaps: it depends on values that are not known yet, or on the service.
    Conditional,
    /// Certainly.
    Always,
}

/// What happens to the old resource: CloudFormation API, `ResourceChange.PolicyAction`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the API's own")]
pub enum PolicyAction {
    Delete,
    Retain,
    Snapshot,
    ReplaceAndDelete,
    ReplaceAndRetain,
    ReplaceAndSnapshot,
}

impl PolicyAction {
    /// Says what becomes of the old resource, to stand behind what happens to it; empty where it is as everybody expects.
    pub fn fate(self) -> &'static str {
        match self {
            Self::ReplaceAndDelete => "; the old one is deleted",
            Self::ReplaceAndSnapshot => "; the old one is deleted with a snapshot",
            Self::ReplaceAndRetain => "; the old one stays",
            Self::Snapshot => " with a snapshot",
            Self::Retain => " from the stack and stays",
            Self::Delete => "",
        }
    }
}

/// A change of one property.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct PropertyChange {
    /// Its path, with `.` and `[n]`.
    pub path: String,
    /// The value before; absent where it was not set. Secrets are masked.
    pub before: Option<String>,
    /// The value after; absent where it is removed.
    pub after: Option<String>,
    /// Whether the value is known only when the change runs.
    pub after_unknown: bool,
    /// Whether it replaces the resource.
    pub replaces: Replacement,
}

/// A change of one resource.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Change {
    /// The logical id.
    pub logical: String,
    /// The type.
    pub kind: String,
    /// The physical id, where it exists.
    pub physical: Option<String>,
    /// What happens to it.
    pub action: Action,
    /// Whether it is replaced.
    pub replacement: Replacement,
    /// What happens to the old one.
    pub policy: Option<PolicyAction>,
    /// Its properties.
    pub properties: Vec<PropertyChange>,
}

impl Change {
    /// Tells whether it is a stack in the stack: what is inside is not shown.
    pub fn is_nested(&self) -> bool {
        self.kind == "AWS::CloudFormation::Stack"
    }

    /// Tells whether state is lost: a stateful resource is replaced, perhaps replaced, or deleted.
    pub fn loses_state(&self) -> bool {
        let gone = match self.action {
            Action::Remove => !matches!(self.policy, Some(PolicyAction::Retain)),
            Action::Modify => self.replacement != Replacement::Never,
            Action::Dynamic => true,
            Action::Add | Action::Import => false,
        };
        gone && stateful(&self.kind).is_some()
    }

    /// Says what is lost.
    pub fn loss(&self) -> String {
        let verb = match (self.action, self.replacement) {
            (Action::Remove, _) => "deletes",
            (_, Replacement::Conditional) => "may replace",
            _ => "replaces",
        };
        let reason = stateful(&self.kind).map_or("", |s| s.reason);
        format!("{verb} {} ({}: {reason})", self.logical, self.kind)
    }
}

/// A change set as it was read back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Review {
    /// The review digest.
    pub digest: Digest,
    /// What changes, sorted by logical id.
    pub changes: Vec<Change>,
    /// Whether CloudFormation showed every property value.
    pub complete: bool,
    /// What it may lose without showing it, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<String>,
    /// Capabilities that it acknowledges although neither the text shows them nor the options name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
}

/// What the changes of a change set do not show.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unshown {
    /// What it may lose, in words.
    pub hidden: Vec<String>,
    /// Capabilities that nobody foresaw.
    pub capabilities: Vec<String>,
}

impl Review {
    /// Makes a review and its digest.
    ///
    /// The digest is taken over target, stack, watermark, desired digest and the sorted changes; revision, change-set
    /// id and time stay outside, so that an unrelated push voids nothing.
    pub fn new(
        target: &TargetUid,
        stack: Option<&StackId>,
        watermark: Option<&Watermark>,
        desired: &Digest,
        mut changes: Vec<Change>,
        complete: bool,
        unshown: Unshown,
    ) -> Self {
        let Unshown {
            hidden,
            capabilities,
        } = unshown;
        changes.iter_mut().for_each(|c| c.properties.sort());
        changes.sort();
        let mut body = json!({
            "changes": changes,
            "complete": complete,
            "digest": desired,
            "stack": stack,
            "target": target,
            "watermark": watermark,
        });
        // Younger than the prefix: where there is none, the digest is what it was.
        if !hidden.is_empty() {
            body["hidden"] = json!(hidden);
        }
        if !capabilities.is_empty() {
            body["capabilities"] = json!(capabilities);
        }
        Self {
            digest: Digest::of("r1", &canonical_json(&body)),
            changes,
            complete,
            hidden,
            capabilities,
        }
    }

    /// Returns the changes that lose state.
    pub fn stateful_losses(&self) -> Vec<&Change> {
        self.changes.iter().filter(|c| c.loses_state()).collect()
    }

    /// Counts what happens: added, changed in place, replaced, removed.
    pub fn counts(&self) -> (usize, usize, usize, usize) {
        let count = |f: &dyn Fn(&Change) -> bool| self.changes.iter().filter(|c| f(c)).count();
        (
            count(&|c| matches!(c.action, Action::Add | Action::Import)),
            count(&|c| c.action == Action::Modify && c.replacement == Replacement::Never),
            count(&|c| c.action == Action::Modify && c.replacement != Replacement::Never),
            count(&|c| c.action == Action::Remove),
        )
    }

    /// Says the counts in words.
    pub fn summary(&self) -> String {
        let (added, changed, replaced, removed) = self.counts();
        let mut parts: Vec<String> = [
            (added, "added"),
            (changed, "in place"),
            (replaced, "replaced"),
            (removed, "removed"),
        ]
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, w)| format!("{n} {w}"))
        .collect();
        if parts.is_empty() {
            parts.push("options or outputs only".into());
        }
        parts.extend(self.capabilities.iter().cloned());
        parts.join(", ")
    }

    #[cfg(test)]
    pub(crate) fn sample(replaced: Option<&str>) -> Self {
        let kind = replaced.unwrap_or("AWS::IAM::Policy").to_owned();
        let change = Change {
            logical: "R".into(),
            kind,
            physical: None,
            action: Action::Modify,
            replacement: if replaced.is_some() {
                Replacement::Always
            } else {
                Replacement::Never
            },
            policy: None,
            properties: vec![],
        };
        let uid = "00000000000000000000000000000001".parse().unwrap();
        Self::new(
            &uid,
            None,
            None,
            &Digest::of("d1", b""),
            vec![change],
            true,
            Unshown::default(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_loses_state_is_decided_by_type_and_policy() {
        let change = |kind: &str, action, replacement, policy| Change {
            logical: "R".into(),
            kind: kind.into(),
            physical: None,
            action,
            replacement,
            policy,
            properties: vec![],
        };
        use Replacement::{Always, Conditional, Never};
        for (change, loses) in [
            (
                change("AWS::RDS::DBInstance", Action::Modify, Always, None),
                true,
            ),
            (
                change("AWS::RDS::DBInstance", Action::Modify, Conditional, None),
                true,
            ),
            (
                change("AWS::RDS::DBInstance", Action::Modify, Never, None),
                false,
            ),
            (
                change("AWS::RDS::DBInstance", Action::Add, Never, None),
                false,
            ),
            (
                change(
                    "AWS::S3::Bucket",
                    Action::Remove,
                    Never,
                    Some(PolicyAction::Delete),
                ),
                true,
            ),
            (
                change(
                    "AWS::S3::Bucket",
                    Action::Remove,
                    Never,
                    Some(PolicyAction::Retain),
                ),
                false,
            ),
            (
                change(
                    "AWS::IAM::Role",
                    Action::Remove,
                    Never,
                    Some(PolicyAction::Delete),
                ),
                false,
            ),
        ] {
            assert_eq!(change.loses_state(), loses, "{change:?}");
        }
    }

    #[test]
    fn the_review_digest_ignores_order() {
        let uid: TargetUid = "00000000000000000000000000000001".parse().unwrap();
        let make = |names: [&str; 2]| {
            let changes = names
                .iter()
                .map(|n| Change {
                    logical: (*n).into(),
                    ..Review::sample(None).changes[0].clone()
                })
                .collect();
            Review::new(
                &uid,
                None,
                None,
                &Digest::of("d1", b"x"),
                changes,
                true,
                Unshown::default(),
            )
            .digest
        };
        assert_eq!(make(["A", "B"]), make(["B", "A"]));
        assert_ne!(make(["A", "B"]), make(["A", "C"]));
    }

    #[test]
    fn a_capability_that_nobody_foresaw_is_part_of_what_is_reviewed() {
        let uid: TargetUid = "00000000000000000000000000000001".parse().unwrap();
        let make = |capabilities: &[&str]| {
            let unshown = Unshown {
                capabilities: capabilities.iter().map(|c| (*c).to_owned()).collect(),
                ..Unshown::default()
            };
            let digest = Digest::of("d1", b"");
            let changes = Review::sample(None).changes;
            Review::new(&uid, None, None, &digest, changes, true, unshown)
        };

        let (plain, more) = (make(&[]), make(&["CAPABILITY_IAM"]));

        assert_eq!(plain.digest, Review::sample(None).digest);
        assert_ne!(plain.digest, more.digest);
        assert_eq!(more.summary(), "1 in place, CAPABILITY_IAM");
    }
}
