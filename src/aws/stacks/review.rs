//! A change set as it is read back: two descriptions made one.
//!
//! The answer with property values leaves out the reason of a failure (boto3 #4178), and can leave out whole resources, with
//! nothing but a warning to tell (cdk-cli #1780). So a failed change set, and one with that warning, is read without values too.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_cloudformation::types::{
    ChangeAction, EvaluationType, EventFilter, PolicyAction as ApiPolicy,
    Replacement as ApiReplacement, RequiresRecreation, ResourceAttribute, ResourceChange,
    ResourceChangeDetail,
};
use serde_json::Value;

use super::{Stacks, is_absent};
use crate::aws::error;
use crate::domain::plan::{
    Action, Change, ChangeSetStatus, PolicyAction, PropertyChange, Replacement,
};
use crate::port::{ChangeSet, Error};

/// How the reason begins that says that resources are missing from an answer with property values.
const WITHHELD: &str =
    "[WARN] --include-property-values option can return incomplete ChangeSet data";
/// What stands in the reason where validation before the deployment found something: what it found is in the events alone.
const EARLY: &str = "AWS::EarlyValidation";
/// A change set has at most 500 resources, and one can have several faults.
const EVENT_PAGES: usize = 20;
/// What stands for a value that is known only when the change runs.
const LATER: &str = "{{changeSet:KNOWN_AFTER_APPLY}}";
/// A stack has at most 500 resources; a page holds dozens.
const PAGES: usize = 100;

/// One description, all pages.
#[derive(Default)]
struct Described {
    status: String,
    execution: String,
    reason: Option<String>,
    changes: Vec<Change>,
    capabilities: Vec<String>,
}

impl Stacks {
    pub(super) async fn review_change_set(&self, change_set: &str) -> Result<ChangeSet, Error> {
        let with = self.described(change_set, true).await?;
        let withheld = with
            .reason
            .as_deref()
            .is_some_and(|r| r.starts_with(WITHHELD));
        let plain = if with.status == "FAILED" || withheld {
            Some(self.described(change_set, false).await?)
        } else {
            None
        };
        let mut read = join(with, plain, withheld);
        if read.status == ChangeSetStatus::Failed
            && let Some(reason) = read.reason.as_mut().filter(|r| r.contains(EARLY))
        {
            match self.validated(change_set).await {
                Ok(found) if found.is_empty() => {}
                Ok(found) => *reason = format!("{}: {reason}", found.join("; ")),
                // The verdict stands without them.
                Err(error) => *reason = format!("{reason} (what it found cannot be read: {error})"),
            }
        }
        Ok(read)
    }

    /// Returns what validation before the deployment found: all of it, resource by resource.
    async fn validated(&self, change_set: &str) -> Result<Vec<String>, Error> {
        let client = self.client().await?;
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        for _ in 0..EVENT_PAGES {
            let sent = self
                .read(
                    "DescribeEvents",
                    client
                        .describe_events()
                        .change_set_name(change_set)
                        .filters(EventFilter::builder().failed_events(true).build())
                        .set_next_token(token),
                    |c| c.send(),
                )
                .await?;
            let answer = sent.map_err(|e| error::of("DescribeEvents", change_set, e))?;
            for event in answer.operation_events() {
                let Some(reason) = event.validation_status_reason() else {
                    continue;
                };
                let logical = event.logical_resource_id().unwrap_or("the template");
                let path = event.validation_path().map(|p| format!(" at {p}"));
                found.push(format!("{logical}: {reason}{}", path.unwrap_or_default()));
            }
            token = answer.next_token().map(str::to_owned);
            if token.is_none() {
                break;
            }
        }
        Ok(found)
    }

    async fn described(&self, change_set: &str, values: bool) -> Result<Described, Error> {
        let client = self.client().await?;
        let mut out = Described::default();
        let mut token: Option<String> = None;
        for page in 0..PAGES {
            let sent = self
                .read(
                    "DescribeChangeSet",
                    client
                        .describe_change_set()
                        .change_set_name(change_set)
                        .include_property_values(values)
                        .set_next_token(token),
                    |c| c.send(),
                )
                .await?;
            let answer = match sent {
                Ok(answer) => answer,
                Err(failed) if is_absent(&failed) => {
                    return Err(Error::NotFound(change_set.to_owned()));
                }
                Err(failed) => return Err(error::of("DescribeChangeSet", change_set, failed)),
            };
            if page == 0 {
                let word = |w: Option<&str>| w.unwrap_or_default().to_owned();
                out.status = word(answer.status().map(|s| s.as_str()));
                out.execution = word(answer.execution_status().map(|s| s.as_str()));
                out.reason = answer.status_reason().map(str::to_owned);
                let given = answer.capabilities().iter();
                out.capabilities = given.map(|c| c.as_str().to_owned()).collect();
            }
            for change in answer.changes() {
                let resource = change.resource_change().ok_or_else(|| {
                    Error::Untrusted("a change set lists a change of no resource".into())
                })?;
                out.changes.push(told(resource));
            }
            token = answer.next_token().map(str::to_owned);
            if token.is_none() {
                return Ok(out);
            }
        }
        Err(Error::Untrusted(format!("{change_set} does not end")))
    }
}

/// Reads two answers as one: the plain one says why, the other one what exactly.
fn join(with: Described, plain: Option<Described>, withheld: bool) -> ChangeSet {
    let mut changes = with.changes;
    let (status, execution, reason) = match plain {
        Some(plain) => {
            for change in plain.changes {
                if !changes.iter().any(|c| c.logical == change.logical) {
                    changes.push(change);
                }
            }
            (plain.status, plain.execution, plain.reason)
        }
        None => (with.status, with.execution, with.reason),
    };
    ChangeSet {
        status: ChangeSetStatus::of(&status, &execution, reason.as_deref()),
        reason,
        changes,
        complete: !withheld,
        capabilities: with.capabilities,
    }
}

fn told(change: &ResourceChange) -> Change {
    let action = match change.action() {
        Some(ChangeAction::Add) => Action::Add,
        Some(ChangeAction::Modify) => Action::Modify,
        Some(ChangeAction::Remove) => Action::Remove,
        Some(ChangeAction::Import) => Action::Import,
        // What is not known now, and what this release does not know.
        _ => Action::Dynamic,
    };
    let replacement = match (action, change.replacement()) {
        (_, Some(ApiReplacement::True)) => Replacement::Always,
        (_, Some(ApiReplacement::False)) => Replacement::Never,
        (_, Some(_)) => Replacement::Conditional,
        // Every modification says whether it replaces. One that does not may.
        (Action::Modify | Action::Dynamic, None) => Replacement::Conditional,
        (_, None) => Replacement::Never,
    };
    let policy = change.policy_action().and_then(|p| match p {
        ApiPolicy::Delete => Some(PolicyAction::Delete),
        ApiPolicy::Retain => Some(PolicyAction::Retain),
        ApiPolicy::Snapshot => Some(PolicyAction::Snapshot),
        ApiPolicy::ReplaceAndDelete => Some(PolicyAction::ReplaceAndDelete),
        ApiPolicy::ReplaceAndRetain => Some(PolicyAction::ReplaceAndRetain),
        ApiPolicy::ReplaceAndSnapshot => Some(PolicyAction::ReplaceAndSnapshot),
        _ => None,
    });
    let mut properties = details(change.details());
    if properties.is_empty() {
        properties = contexts(
            context(change.before_context()),
            context(change.after_context()),
            replacement,
        );
    }
    Change {
        logical: change.logical_resource_id().unwrap_or_default().to_owned(),
        kind: change.resource_type().unwrap_or_default().to_owned(),
        physical: change
            .physical_resource_id()
            .filter(|p| !p.is_empty())
            .map(str::to_owned),
        action,
        replacement,
        policy,
        properties,
    }
}

/// One property can have several details, one for each cause: they are one change, and the gravest word counts.
fn details(details: &[ResourceChangeDetail]) -> Vec<PropertyChange> {
    let mut found: BTreeMap<String, PropertyChange> = BTreeMap::new();
    for detail in details {
        let Some(target) = detail.target() else {
            continue;
        };
        let path = match (target.attribute(), target.path(), target.name()) {
            (_, Some(given), _) if !given.is_empty() => path(given),
            (Some(ResourceAttribute::Properties) | None, _, Some(name)) => name.to_owned(),
            (Some(attribute), _, _) => attribute.as_str().to_owned(),
            _ => continue,
        };
        let replaces = match (target.requires_recreation(), detail.evaluation()) {
            (None | Some(RequiresRecreation::Never), _) => Replacement::Never,
            // A value that is evaluated later may turn out to be the same.
            (Some(RequiresRecreation::Always), Some(EvaluationType::Static)) => Replacement::Always,
            _ => Replacement::Conditional,
        };
        let after = target.after_value();
        let unknown = after == Some(LATER)
            || (after.is_none() && detail.evaluation() == Some(&EvaluationType::Dynamic));
        let change = PropertyChange {
            path: path.clone(),
            before: target.before_value().map(quoted),
            after: after.map(quoted),
            after_unknown: unknown,
            replaces,
        };
        match found.get_mut(&path) {
            None => {
                found.insert(path, change);
            }
            Some(known) => {
                known.replaces = known.replaces.max(change.replaces);
                known.before = known.before.take().or(change.before);
                known.after = known.after.take().or(change.after);
                known.after_unknown = known.after.is_none() && change.after_unknown;
            }
        }
    }
    found.into_values().collect()
}

fn context(text: Option<&str>) -> Value {
    text.and_then(|t| serde_json::from_str::<Value>(t).ok())
        .map_or(Value::Null, |mut v| v["Properties"].take())
}

/// Where no details are given, the whole resource before and after tells which properties differ.
fn contexts(before: Value, after: Value, replacement: Replacement) -> Vec<PropertyChange> {
    let empty = serde_json::Map::new();
    let (old, new) = (
        before.as_object().unwrap_or(&empty),
        after.as_object().unwrap_or(&empty),
    );
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let shown = |v: Option<&Value>| v.map(|v| v.as_str().map_or_else(|| v.to_string(), quoted));
    names
        .into_iter()
        .filter(|n| old.get(*n) != new.get(*n))
        .map(|name| PropertyChange {
            path: name.clone(),
            before: shown(old.get(name)),
            after: shown(new.get(name)),
            after_unknown: new.get(name).is_some_and(|v| v.to_string().contains(LATER)),
            replaces: replacement,
        })
        .collect()
}

/// Writes a value as the rest of isoform shows it: texts in quotes, numbers and structures as JSON.
fn quoted(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(value) => value.to_string(),
        Err(_) => Value::String(text.to_owned()).to_string(),
    }
}

/// Turns `/Properties/Tags/0/Value` into `Tags[0].Value`.
pub(super) fn path(given: &str) -> String {
    let mut out = String::new();
    let parts = given.trim_start_matches('/').split('/');
    for (index, part) in parts.enumerate() {
        if index == 0 && part == "Properties" {
            continue;
        }
        let part = part.replace("~1", "/").replace("~0", "~");
        if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            out.push_str(&format!("[{part}]"));
        } else {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&part);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_cloudformation::types::ResourceTargetDefinition;

    fn detail(
        path: &str,
        recreation: RequiresRecreation,
        evaluation: EvaluationType,
        after: Option<&str>,
    ) -> ResourceChangeDetail {
        let target = ResourceTargetDefinition::builder()
            .attribute(ResourceAttribute::Properties)
            .path(path)
            .requires_recreation(recreation)
            .before_value("1")
            .set_after_value(after.map(str::to_owned))
            .build();
        ResourceChangeDetail::builder()
            .target(target)
            .evaluation(evaluation)
            .build()
    }

    #[test]
    fn a_path_is_written_with_dots_and_brackets() {
        for (given, expected) in [
            ("/Properties/DelaySeconds", "DelaySeconds"),
            ("/Properties/Tags/0/Value", "Tags[0].Value"),
            ("/Properties/a~1b", "a/b"),
            ("DeletionPolicy", "DeletionPolicy"),
        ] {
            assert_eq!(path(given), expected);
        }
    }

    #[test]
    fn several_causes_of_one_change_are_one_and_the_gravest_counts() {
        use EvaluationType as E;
        use RequiresRecreation as R;
        let read = details(&[
            detail("/Properties/Name", R::Always, E::Dynamic, None),
            detail("/Properties/Name", R::Always, E::Static, Some("2")),
        ]);

        assert_eq!(read.len(), 1);
        assert_eq!(read[0].replaces, Replacement::Always);
        assert_eq!(read[0].after.as_deref(), Some("2"));
        assert!(!read[0].after_unknown);
    }

    #[test]
    fn what_is_evaluated_later_may_replace_and_is_not_known() {
        let read = details(&[detail(
            "/Properties/Name",
            RequiresRecreation::Always,
            EvaluationType::Dynamic,
            Some(LATER),
        )]);

        assert_eq!(read[0].replaces, Replacement::Conditional);
        assert!(read[0].after_unknown);
    }

    #[test]
    fn a_modification_that_does_not_say_whether_it_replaces_may() {
        let change = ResourceChange::builder()
            .action(ChangeAction::Modify)
            .logical_resource_id("A")
            .build();
        assert_eq!(told(&change).replacement, Replacement::Conditional);
        let unknown = ResourceChange::builder()
            .action(ChangeAction::from("SyncWithActual"))
            .build();
        assert_eq!(told(&unknown).action, Action::Dynamic);
    }

    #[test]
    fn without_details_the_whole_resource_tells_what_differs() {
        let before = r#"{"Properties":{"A":"x","B":{"C":1}}}"#;
        let after = r#"{"Properties":{"A":"y","B":{"C":1},"D":"{{changeSet:KNOWN_AFTER_APPLY}}"}}"#;

        let read = contexts(
            context(Some(before)),
            context(Some(after)),
            Replacement::Never,
        );

        let paths: Vec<&str> = read.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(paths, ["A", "D"]);
        assert_eq!(read[0].before.as_deref(), Some("\"x\""));
        assert!(read[1].after_unknown);
    }

    #[test]
    fn a_reason_that_is_left_out_comes_from_the_plain_answer() {
        let nothing = "The submitted information didn't contain changes. More.";
        let with = Described {
            status: "FAILED".into(),
            ..Described::default()
        };
        let plain = Described {
            status: "FAILED".into(),
            reason: Some(nothing.into()),
            ..Described::default()
        };

        let read = join(with, Some(plain), false);

        assert_eq!(read.status, ChangeSetStatus::NoChanges);
        assert_eq!(read.reason.as_deref(), Some(nothing));
    }

    #[test]
    fn a_resource_that_is_withheld_is_still_listed_and_the_review_is_incomplete() {
        let resource = ResourceChange::builder()
            .action(ChangeAction::Remove)
            .logical_resource_id("A");
        let plain = Described {
            status: "CREATE_COMPLETE".into(),
            execution: "AVAILABLE".into(),
            changes: vec![told(&resource.build())],
            ..Described::default()
        };

        let read = join(Described::default(), Some(plain), true);

        assert_eq!(read.status, ChangeSetStatus::Available);
        assert_eq!(read.changes[0].logical, "A");
        assert!(!read.complete);
    }
}
