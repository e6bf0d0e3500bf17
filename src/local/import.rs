//! What a change set of type IMPORT may hold: the imported resources and nothing else.

use super::model::Stack;
use super::schedule::Goal;
use crate::domain::cfn::{Template, resource_type};
use crate::domain::plan::Action;
use crate::port::{Error, Proposal};

/// "Resource import" limits, API CreateChangeSet: `ResourcesToImport`.
const MOST: usize = 200;

/// Checks an import and shows its resources as imported.
pub(super) fn importable(
    stack: &Stack,
    template: &Template,
    goal: &mut Goal,
    proposal: &Proposal,
) -> Result<(), Error> {
    let refuse = |text: String| Err(Error::Refused(text));
    if proposal.import.len() > MOST {
        return refuse(format!("At most {MOST} resources can be imported at once"));
    }
    let mut without = Vec::new();
    for (logical, (kind, identifier)) in &proposal.import {
        match template.resources.get(logical) {
            Some(resource) if resource.kind == *kind => {}
            Some(resource) => {
                return refuse(format!(
                    "Resource {logical} has the type {} in the template and {kind} in ResourcesToImport",
                    resource.kind
                ));
            }
            None => {
                return refuse(format!(
                    "Resources [{logical}] passed in ResourceToImport are not present in the template"
                ));
            }
        }
        if stack.resources.contains_key(logical) {
            return refuse(format!("Resource {logical} is already in the stack"));
        }
        let wanted: Vec<&str> = resource_type(kind)
            .map(|facts| facts.identifier().collect())
            .unwrap_or_default();
        if identifier.is_empty()
            || !wanted.is_empty() && !wanted.iter().all(|w| identifier.contains_key(*w))
        {
            return refuse(format!(
                "The identifier of {logical} must name [{}]",
                wanted.join(", ")
            ));
        }
        let resources = template.root.get("Resources");
        let node = resources.and_then(|r| r.get(logical));
        if node.is_none_or(|n| n.get("DeletionPolicy").is_none()) {
            without.push(logical.as_str());
        }
    }
    if !without.is_empty() {
        return refuse(format!(
            "The following resources to import [{}] must have DeletionPolicy attribute specified in the template.",
            without.join(", ")
        ));
    }
    let others: Vec<&str> = goal
        .changes
        .iter()
        .map(|c| c.logical.as_str())
        .filter(|l| !proposal.import.contains_key(*l))
        .collect();
    if !others.is_empty() {
        return refuse(format!(
            "You have modified resources [{}] in your template that are not being imported. Update, create or delete operations cannot be executed during import operations.",
            others.join(", ")
        ));
    }
    if goal.form.outputs != stack.form.outputs || goal.form.exports != stack.form.exports {
        return refuse(
            "As part of the import operation, you cannot modify or add [Outputs]".into(),
        );
    }
    for change in &mut goal.changes {
        change.action = Action::Import;
        change.physical = goal
            .resources
            .get(&change.logical)
            .and_then(|r| r.physical.clone());
    }
    Ok(())
}
