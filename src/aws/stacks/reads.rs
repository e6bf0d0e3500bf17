//! Reading: listings, descriptions, templates and events.

use aws_sdk_cloudformation::primitives::DateTime;
use aws_sdk_cloudformation::types::{
    OperationEntry, OperationType, Stack, StackEvent as ApiEvent, StackStatus as ApiStatus,
    TemplateStage,
};

use super::{Stacks, is_absent, text};
use crate::aws::error;
use crate::domain::model::{StackId, StackName, Timestamp};
use crate::domain::plan::{ChangeSetStatus, Observed, StackStatus, StatusClass};
use crate::port::{
    ChangeSetSummary, Error, Page, StackEvent, StackRef, StackSummary, TemplateSummary,
};

/// Pages of events that are read at most: ten thousand events of one stack.
const PAGES: usize = 100;

/// Every status but `DELETE_COMPLETE`: else ninety days of deleted stacks come along.
fn live() -> Vec<ApiStatus> {
    those(|s| s.class() != StatusClass::Gone)
}

/// Every status in which CloudFormation works: a page or two, however many stacks there are.
fn moving() -> Vec<ApiStatus> {
    those(|s| !s.is_settled())
}

fn those(wanted: impl Fn(&StackStatus) -> bool) -> Vec<ApiStatus> {
    let all = StackStatus::ALL.iter().filter(|s| wanted(s));
    all.map(|s| ApiStatus::from(s.as_str())).collect()
}

pub(super) fn time(at: Option<&DateTime>) -> Option<Timestamp> {
    at.and_then(|t| t.to_millis().ok()).map(Timestamp)
}

fn status(status: Option<&ApiStatus>) -> Result<StackStatus, Error> {
    let text = status.map(ApiStatus::as_str).unwrap_or_default();
    if text.is_empty() {
        return Err(Error::Untrusted("a stack without a status".into()));
    }
    Ok(StackStatus::from(text.to_owned()))
}

/// The newest operation that moves a stack. The newest stands first; making a change set moves nothing.
fn operation(entries: &[OperationEntry]) -> Option<String> {
    entries
        .iter()
        .find(|e| e.operation_type() != Some(&OperationType::CreateChangeset))
        .and_then(|e| e.operation_id().map(str::to_owned))
}

fn original(body: Option<&str>) -> Result<String, Error> {
    body.map(str::to_owned)
        .ok_or_else(|| Error::Untrusted("GetTemplate gave no template".into()))
}

/// Returns the name in the ARN of a change set.
fn change_set_name(arn: &str) -> Option<String> {
    let (_, rest) = arn.split_once(":changeSet/")?;
    let (name, _) = rest.split_once('/')?;
    Some(name.to_owned())
}

fn name(text: Option<&str>) -> Result<StackName, Error> {
    let text = text.unwrap_or_default();
    text.parse()
        .map_err(|_| Error::Untrusted(format!("`{text}` is no name of a stack")))
}

impl Stacks {
    pub(super) async fn list_live(&self, token: Option<&str>) -> Result<Page<StackSummary>, Error> {
        self.list_stacks(token, live()).await
    }

    pub(super) async fn list_change_sets(
        &self,
        stack: &StackId,
        token: Option<&str>,
    ) -> Result<Page<ChangeSetSummary>, Error> {
        let sent = self
            .read(
                "ListChangeSets",
                self.client()
                    .await?
                    .list_change_sets()
                    .stack_name(stack.as_str())
                    .set_next_token(token.map(str::to_owned)),
                |c| c.send(),
            )
            .await?;
        let answer = match sent {
            Ok(answer) => answer,
            Err(failed) if is_absent(&failed) => return Err(Error::NotFound(stack.to_string())),
            Err(failed) => return Err(error::of("ListChangeSets", stack.as_str(), failed)),
        };
        let mut items = Vec::new();
        for set in answer.summaries() {
            // Whoever deletes by this list must not reach another stack: not every stand-in for the service keeps to the one named.
            if set.stack_id() != Some(stack.as_str()) {
                continue;
            }
            let said = (set.change_set_id(), set.change_set_name());
            let (Some(change_set), Some(name)) = said else {
                return Err(Error::Untrusted("a change set without a name".into()));
            };
            let status = set.status().map_or("", |s| s.as_str());
            let execution = set.execution_status().map_or("", |s| s.as_str());
            items.push(ChangeSetSummary {
                change_set: change_set.to_owned(),
                name: name.to_owned(),
                status: ChangeSetStatus::of(status, execution, set.status_reason()),
            });
        }
        Ok(Page {
            items,
            next: answer.next_token().map(str::to_owned),
        })
    }

    pub(super) async fn list_in_motion(
        &self,
        token: Option<&str>,
    ) -> Result<Page<StackSummary>, Error> {
        let mut page = self.list_stacks(token, moving()).await?;
        // The filter is a wish: not every stand-in for the service knows it.
        page.items.retain(|s| !s.status.is_settled());
        Ok(page)
    }

    async fn list_stacks(
        &self,
        token: Option<&str>,
        wanted: Vec<ApiStatus>,
    ) -> Result<Page<StackSummary>, Error> {
        let answer = self
            .read(
                "ListStacks",
                self.client()
                    .await?
                    .list_stacks()
                    .set_next_token(token.map(str::to_owned))
                    .set_stack_status_filter(Some(wanted)),
                |c| c.send(),
            )
            .await?
            .map_err(|e| error::of("ListStacks", "the stacks", e))?;
        let mut items = Vec::new();
        for stack in answer.stack_summaries() {
            let status = status(stack.stack_status())?;
            if status.class() == StatusClass::Gone {
                continue;
            }
            items.push(StackSummary {
                stack_id: self.stack_id(stack.stack_id())?,
                name: name(stack.stack_name())?,
                status,
                updated: time(stack.last_updated_time()),
                operation: operation(stack.last_operations()),
            });
        }
        Ok(Page {
            items,
            next: answer.next_token().map(str::to_owned),
        })
    }

    pub(super) async fn describe_stack(&self, stack: &StackRef) -> Result<Option<Observed>, Error> {
        let sent = self
            .read(
                "DescribeStacks",
                self.client()
                    .await?
                    .describe_stacks()
                    .stack_name(text(stack)),
                |c| c.send(),
            )
            .await?;
        let answer = match sent {
            Ok(answer) => answer,
            Err(failed) if is_absent(&failed) => return Ok(None),
            Err(failed) => return Err(error::of("DescribeStacks", text(stack), failed)),
        };
        let [found] = answer.stacks() else {
            return Err(Error::Untrusted(format!(
                "DescribeStacks gave {} stacks for {}",
                answer.stacks().len(),
                text(stack)
            )));
        };
        let found = self.observed(found)?;
        match stack {
            StackRef::Id(id) if *id != found.stack_id => Err(Error::Untrusted(format!(
                "DescribeStacks gave {} for {id}",
                found.stack_id
            ))),
            StackRef::Name(name) if *name != found.name => Err(Error::Untrusted(format!(
                "DescribeStacks gave {} for {name}",
                found.name
            ))),
            StackRef::Name(_) if found.status.class() == StatusClass::Gone => Ok(None),
            _ => Ok(Some(found)),
        }
    }

    fn observed(&self, stack: &Stack) -> Result<Observed, Error> {
        let status = status(stack.stack_status())?;
        let pair = |key: Option<&str>, value: Option<&str>| {
            (
                key.unwrap_or_default().to_owned(),
                value.unwrap_or_default().to_owned(),
            )
        };
        // A shell names the change set that made it, which was not executed.
        let executed = match status.class() {
            StatusClass::Shell => None,
            _ => stack.change_set_id().and_then(change_set_name),
        };
        Ok(Observed {
            stack_id: self.stack_id(stack.stack_id())?,
            name: name(stack.stack_name())?,
            status,
            status_reason: stack.stack_status_reason().map(str::to_owned),
            updated: time(stack.last_updated_time()),
            operation: operation(stack.last_operations()),
            parameters: stack
                .parameters()
                .iter()
                .map(|p| pair(p.parameter_key(), p.parameter_value()))
                .collect(),
            tags: stack
                .tags()
                .iter()
                .map(|t| pair(t.key(), t.value()))
                .collect(),
            outputs: stack
                .outputs()
                .iter()
                .map(|o| pair(o.output_key(), o.output_value()))
                .collect(),
            notification_arns: stack.notification_arns().to_vec(),
            termination_protection: stack.enable_termination_protection().unwrap_or(false),
            last_change_set: executed,
            role: stack.role_arn().map(str::to_owned),
            parent: stack
                .parent_id()
                .map(|id| self.stack_id(Some(id)))
                .transpose()?,
        })
    }

    pub(super) async fn stack_template(&self, stack: &StackRef) -> Result<String, Error> {
        let sent = self
            .read(
                "GetTemplate",
                self.client()
                    .await?
                    .get_template()
                    .stack_name(text(stack))
                    .template_stage(TemplateStage::Original),
                |c| c.send(),
            )
            .await?;
        match sent {
            Ok(answer) => original(answer.template_body()),
            Err(failed) if is_absent(&failed) => Err(Error::NotFound(text(stack).to_owned())),
            Err(failed) => Err(error::of("GetTemplate", text(stack), failed)),
        }
    }

    pub(super) async fn proposed_template(&self, change_set: &str) -> Result<String, Error> {
        let sent = self
            .read(
                "GetTemplate",
                self.client()
                    .await?
                    .get_template()
                    .change_set_name(change_set)
                    .template_stage(TemplateStage::Original),
                |c| c.send(),
            )
            .await?;
        match sent {
            Ok(answer) => original(answer.template_body()),
            Err(failed) if is_absent(&failed) => Err(Error::NotFound(change_set.to_owned())),
            Err(failed) => Err(error::of("GetTemplate", change_set, failed)),
        }
    }

    pub(super) async fn template_summary(
        &self,
        template_url: &str,
    ) -> Result<TemplateSummary, Error> {
        let answer = self
            .read(
                "GetTemplateSummary",
                self.client()
                    .await?
                    .get_template_summary()
                    .template_url(template_url),
                |c| c.send(),
            )
            .await?
            .map_err(|e| error::of("GetTemplateSummary", template_url, e))?;
        Ok(TemplateSummary {
            capabilities: answer
                .capabilities()
                .iter()
                .map(|c| c.as_str().to_owned())
                .collect(),
            reason: answer.capabilities_reason().map(str::to_owned),
            parameters: answer
                .parameters()
                .iter()
                .map(|p| {
                    let name = p.parameter_key().unwrap_or_default().to_owned();
                    (name, p.no_echo().unwrap_or(false))
                })
                .collect(),
        })
    }

    /// Reads events, newest first as they come, until the known one; gives them oldest first.
    pub(super) async fn events_since(
        &self,
        stack: &StackId,
        after: Option<&str>,
    ) -> Result<Vec<StackEvent>, Error> {
        let client = self.client().await?;
        let mut events = Vec::new();
        let mut token = None;
        'pages: for _ in 0..PAGES {
            let sent = self
                .read(
                    "DescribeStackEvents",
                    client
                        .describe_stack_events()
                        .stack_name(stack.as_str())
                        .set_next_token(token),
                    |c| c.send(),
                )
                .await?;
            let answer = sent.map_err(|e| error::of("DescribeStackEvents", stack.as_str(), e))?;
            for event in answer.stack_events() {
                if after.is_some() && event.event_id() == after {
                    break 'pages;
                }
                events.push(told(event)?);
            }
            token = answer.next_token().map(str::to_owned);
            if token.is_none() {
                break;
            }
        }
        events.reverse();
        Ok(events)
    }
}

fn told(event: &ApiEvent) -> Result<StackEvent, Error> {
    let missing = || Error::Untrusted("an event without an id or a time".into());
    Ok(StackEvent {
        id: event.event_id().ok_or_else(missing)?.to_owned(),
        at: time(event.timestamp()).ok_or_else(missing)?,
        operation: event.operation_id().map(str::to_owned),
        token: event.client_request_token().map(str::to_owned),
        logical: event.logical_resource_id().unwrap_or_default().to_owned(),
        kind: event.resource_type().unwrap_or_default().to_owned(),
        physical: event
            .physical_resource_id()
            .filter(|p| !p.is_empty())
            .map(str::to_owned),
        status: event
            .resource_status()
            .map(|s| s.as_str().to_owned())
            .unwrap_or_default(),
        reason: event.resource_status_reason().map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_asks_for_every_status_but_deleted() {
        assert_eq!(live().len(), 22);
        assert!(!live().contains(&ApiStatus::DeleteComplete));
    }

    #[test]
    fn a_listing_of_what_moves_asks_for_every_status_in_progress_but_that_of_a_shell() {
        let asked = moving();
        for status in ApiStatus::values() {
            let expected = status.ends_with("_IN_PROGRESS") && *status != "REVIEW_IN_PROGRESS";
            assert_eq!(
                asked.contains(&ApiStatus::from(*status)),
                expected,
                "{status}"
            );
        }
    }

    #[test]
    fn making_a_change_set_is_no_operation_that_moves_a_stack() {
        let entry = |kind: OperationType, id: &str| {
            OperationEntry::builder()
                .operation_type(kind)
                .operation_id(id)
                .build()
        };
        let entries = [
            entry(OperationType::CreateChangeset, "3"),
            entry(OperationType::UpdateStack, "2"),
            entry(OperationType::CreateStack, "1"),
        ];
        assert_eq!(operation(&entries).as_deref(), Some("2"));
        assert_eq!(operation(&[]), None);
    }

    #[test]
    fn the_name_of_a_change_set_stands_in_its_arn() {
        let arn = "arn:aws:cloudformation:eu-west-1:111111111111:changeSet/if-0-g3/uuid";
        assert_eq!(change_set_name(arn).as_deref(), Some("if-0-g3"));
        assert_eq!(change_set_name("nonsense"), None);
    }
}
