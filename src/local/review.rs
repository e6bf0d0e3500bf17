//! A change set as it is described, and what the adapter makes of two descriptions.
//!
//! The service answers differently with and without property values, and each answer lacks something. The model gives
//! both answers, and reads them as any adapter has to.

use super::engine::LocalEngine;
use super::faults::Faults;
use super::model::{Stack, StoredChangeSet};
use super::world::WorldError;
use crate::domain::cfn::as_read_back;
use crate::domain::model::Timestamp;
use crate::domain::plan::{Change, ChangeSetStatus, PropertyChange};
use crate::port::{ChangeSet, Error, StackRef};

/// How the reason begins that says that resources are missing from an answer with property values.
const WITHHELD: &str =
    "[WARN] --include-property-values option can return incomplete ChangeSet data";

/// One answer of DescribeChangeSet.
pub(super) struct Described {
    pub status: &'static str,
    pub execution: &'static str,
    pub reason: Option<String>,
    pub changes: Vec<Change>,
}

/// Describes a change set with or without property values.
pub(super) fn describe(
    set: &StoredChangeSet,
    stack: Option<&Stack>,
    now: Timestamp,
    faults: &Faults,
    values: bool,
) -> Described {
    let moved = stack.is_none_or(|s| s.operations != set.base);
    let moving = stack.is_some_and(|s| s.running.is_some());
    let (status, execution) = if set.gone_at.is_some() {
        ("DELETE_IN_PROGRESS", "UNAVAILABLE")
    } else if now < set.ready_at {
        ("CREATE_IN_PROGRESS", "UNAVAILABLE")
    } else if set.failed.is_some() {
        ("FAILED", "UNAVAILABLE")
    } else if set.executed && moving {
        ("CREATE_COMPLETE", "EXECUTE_IN_PROGRESS")
    } else if set.executed {
        ("CREATE_COMPLETE", "EXECUTE_COMPLETE")
    } else if moved {
        ("CREATE_COMPLETE", "OBSOLETE")
    } else {
        ("CREATE_COMPLETE", "AVAILABLE")
    };
    if status == "CREATE_IN_PROGRESS" {
        return Described {
            status,
            execution,
            reason: None,
            changes: Vec::new(),
        };
    }
    if !values {
        return Described {
            status,
            execution,
            reason: set.failed.clone(),
            changes: set.changes.iter().map(without_values).collect(),
        };
    }
    let shown: Vec<Change> = set
        .changes
        .iter()
        .filter(|c| !faults.withholds(&c.logical))
        .map(with_values)
        .collect();
    let reason = (shown.len() < set.changes.len()).then(|| WITHHELD.to_owned());
    Described {
        status,
        execution,
        // The reason of a failure is missing when values are asked for.
        reason,
        changes: shown,
    }
}

/// Reads two answers as one: the plain one says why, the other one what exactly.
pub(super) fn join(with: Described, plain: impl FnOnce() -> Described) -> ChangeSet {
    let withheld = with
        .reason
        .as_deref()
        .is_some_and(|r| r.starts_with(WITHHELD));
    let mut out = ChangeSet {
        status: ChangeSetStatus::of(with.status, with.execution, with.reason.as_deref()),
        reason: with.reason,
        changes: with.changes,
        complete: !withheld,
        capabilities: Vec::new(),
    };
    if with.status == "FAILED" || withheld {
        let plain = plain();
        out.status = ChangeSetStatus::of(plain.status, plain.execution, plain.reason.as_deref());
        out.reason = plain.reason;
        for change in plain.changes {
            if !out.changes.iter().any(|c| c.logical == change.logical) {
                out.changes.push(change);
            }
        }
    }
    out
}

fn with_values(change: &Change) -> Change {
    let mut change = change.clone();
    for property in &mut change.properties {
        property.before = property.before.as_deref().map(shown);
        property.after = property.after.as_deref().map(shown);
    }
    change
}

/// Paths without values: that a property changes is known, not to what.
fn without_values(change: &Change) -> Change {
    let mut change = change.clone();
    change.properties = change
        .properties
        .into_iter()
        .map(|p| PropertyChange {
            before: None,
            after: None,
            after_unknown: true,
            ..p
        })
        .collect();
    change
}

/// A value as the API gives it: secret parts masked, and outside ASCII lost.
fn shown(value: &str) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some(at) = rest.find("secret-") {
        let mark = &rest[at + 7..];
        let digits = mark.bytes().take_while(u8::is_ascii_hexdigit).count();
        out.push_str(&rest[..at]);
        out.push_str(if digits == 12 { "****" } else { "secret-" });
        rest = if digits == 12 { &mark[12..] } else { mark };
    }
    out.push_str(rest);
    as_read_back(&out)
}

impl LocalEngine {
    pub(super) async fn review_change_set(&self, change_set: &str) -> Result<ChangeSet, Error> {
        let faults = self.world.call("DescribeChangeSet").await?;
        let mut tx = self.world.begin().await?;
        let set = self.change_set(&mut tx, change_set).await?;
        let stack = self.load(&mut tx, &StackRef::Id(set.stack.clone())).await?;
        tx.commit().await.map_err(WorldError::from)?;
        let now = self.world.clock.now();
        let with = describe(&set, stack.as_ref(), now, &faults, true);
        let plain = || describe(&set, stack.as_ref(), now, &faults, false);
        Ok(ChangeSet {
            capabilities: set.proposal.capabilities.clone(),
            ..join(with, plain)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::local::model::StoredProposal;
    use crate::port::OnFailure;

    #[test]
    fn the_reason_of_a_failure_is_missing_where_values_are_asked_for() {
        let set = StoredChangeSet {
            arn: "a".into(),
            name: "n".into(),
            token: "t".into(),
            stack: "arn:aws:cloudformation:r:1:stack/s/u".parse().unwrap(),
            create: false,
            ready_at: Timestamp(0),
            template: String::new(),
            bodies: BTreeMap::new(),
            failed: Some("No export named x found.".into()),
            changes: Vec::new(),
            base: 0,
            proposal: StoredProposal {
                parameters: BTreeMap::new(),
                tags: BTreeMap::new(),
                notification_arns: Vec::new(),
                rollback_triggers: Vec::new(),
                monitoring_minutes: 0,
                on_failure: OnFailure::Delete,
                import: BTreeMap::new(),
                capabilities: Vec::new(),
            },
            executed: false,
            gone_at: None,
        };
        let answer = |values| describe(&set, None, Timestamp(1), &Faults::default(), values);

        assert_eq!((answer(true).status, answer(true).reason), ("FAILED", None));
        assert_eq!(answer(false).reason, set.failed);
        let joined = join(answer(true), || answer(false));

        assert_eq!(
            (joined.status, joined.reason),
            (ChangeSetStatus::Failed, set.failed.clone())
        );
    }

    #[test]
    fn marks_of_secrets_are_masked_and_other_characters_lost() {
        for (value, expected) in [
            ("\"a-secret-0123456789ab-b\"", "\"a-****-b\""),
            ("\"secret-manager\"", "\"secret-manager\""),
            ("\"grün\"", "\"gr?n\""),
        ] {
            assert_eq!(shown(value), expected);
        }
    }
}
