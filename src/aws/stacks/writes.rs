//! Writing: each call is sent once, with the caller's token.

use aws_sdk_cloudformation::types::{
    Capability, ChangeSetType, OnStackFailure, Parameter, ResourceToImport, RollbackConfiguration,
    RollbackTrigger, Tag,
};

use super::{Stacks, is_absent};
use crate::aws::error;
use crate::domain::model::{StackId, StackName};
use crate::domain::plan::StatusClass;
use crate::port::{Error, OnFailure, Proposal, Proposed, StackRef};

const ALARM: &str = "AWS::CloudWatch::Alarm";

fn kind(proposal: &Proposal) -> ChangeSetType {
    if !proposal.import.is_empty() {
        ChangeSetType::Import
    } else if proposal.create {
        ChangeSetType::Create
    } else {
        ChangeSetType::Update
    }
}

/// What becomes of a stack. An update is always rolled back unless everything is to stay.
fn on_failure(proposal: &Proposal) -> Option<OnStackFailure> {
    match (proposal.on_failure, kind(proposal)) {
        (OnFailure::Keep, _) => Some(OnStackFailure::DoNothing),
        (OnFailure::Delete, ChangeSetType::Create) => Some(OnStackFailure::Delete),
        (OnFailure::Rollback, ChangeSetType::Create) => Some(OnStackFailure::Rollback),
        _ => None,
    }
}

fn imports(proposal: &Proposal) -> Option<Vec<ResourceToImport>> {
    let resources = proposal.import.iter().map(|(logical, (kind, identifier))| {
        ResourceToImport::builder()
            .logical_resource_id(logical)
            .resource_type(kind)
            .set_resource_identifier(Some(identifier.clone().into_iter().collect()))
            .build()
    });
    Some(resources.collect::<Vec<_>>()).filter(|r| !r.is_empty())
}

/// What is absent is kept by an update and what is empty is taken away, so an update says everything; a new stack has
/// nothing to take away.
fn said<T>(items: Vec<T>, create: bool) -> Option<Vec<T>> {
    Some(items).filter(|i| !create || !i.is_empty())
}

fn triggers(proposal: &Proposal) -> RollbackConfiguration {
    let triggers = proposal
        .rollback_triggers
        .iter()
        .map(|arn| RollbackTrigger::builder().arn(arn).r#type(ALARM).build())
        .collect();
    RollbackConfiguration::builder()
        .set_rollback_triggers(Some(triggers))
        .monitoring_time_in_minutes(i32::try_from(proposal.monitoring_minutes).unwrap_or(180))
        .build()
}

impl Stacks {
    pub(super) async fn create_change_set(&self, proposal: &Proposal) -> Result<Proposed, Error> {
        let create = proposal.create;
        let given = proposal.parameters.iter().map(|(key, value)| {
            Parameter::builder()
                .parameter_key(key)
                .parameter_value(value)
                .build()
        });
        let kept = proposal.kept.iter().map(|key| {
            Parameter::builder()
                .parameter_key(key)
                .use_previous_value(true)
                .build()
        });
        let parameters = given.chain(kept);
        let tags = proposal
            .tags
            .iter()
            .map(|(key, value)| Tag::builder().key(key).value(value).build());
        let capabilities = proposal
            .capabilities
            .iter()
            .map(|c| Capability::from(c.as_str()));
        let watched = !proposal.rollback_triggers.is_empty() || proposal.monitoring_minutes > 0;
        let sent = self
            .write(
                "CreateChangeSet",
                self.client()
                    .await?
                    .create_change_set()
                    .stack_name(proposal.stack.as_str())
                    .change_set_name(&proposal.name)
                    .client_token(&proposal.token)
                    .change_set_type(kind(proposal))
                    .template_url(&proposal.template_url)
                    .set_parameters(Some(parameters.collect()))
                    .set_tags(said(tags.collect(), create))
                    .set_capabilities(Some(capabilities.collect()))
                    .set_notification_arns(said(proposal.notification_arns.clone(), create))
                    .set_rollback_configuration((watched || !create).then(|| triggers(proposal)))
                    .set_resources_to_import(imports(proposal))
                    .set_on_stack_failure(on_failure(proposal))
                    .set_role_arn(self.place.service_role.clone()),
                |c| c.send(),
            )
            .await?;
        let answer = match sent {
            Ok(answer) => answer,
            Err(failed) => {
                let failed = error::of("CreateChangeSet", proposal.stack.as_str(), failed);
                return Err(self.why_refused(proposal, failed).await);
            }
        };
        Ok(Proposed {
            change_set: answer
                .id()
                .ok_or_else(|| Error::Unavailable("a change set without an ARN".into()))?
                .to_owned(),
            stack_id: self.stack_id(answer.stack_id())?,
        })
    }

    /// One code stands for every refusal of a proposal: the stack tells which it is, where its text would have to. A text that
    /// something does not exist may be about a parameter, an export or a role.
    async fn why_refused(&self, proposal: &Proposal, failed: Error) -> Error {
        if !matches!(failed, Error::Refused(_)) {
            return failed;
        }
        let stack = StackRef::Name(proposal.stack.clone());
        let found = match self.describe_stack(&stack).await {
            Ok(found) => found.map(|s| s.status),
            Err(_) => return failed,
        };
        match (&found, proposal.create) {
            (Some(status), _) if !status.is_settled() => Error::Busy(failed.to_string()),
            (Some(status), true)
                if status.class() != StatusClass::Shell && proposal.import.is_empty() =>
            {
                Error::Exists(proposal.stack.as_str().to_owned())
            }
            (Some(status), false) if status.class() == StatusClass::Shell => {
                Error::NotFound(proposal.stack.as_str().to_owned())
            }
            (None, false) => Error::NotFound(proposal.stack.as_str().to_owned()),
            _ => failed,
        }
    }

    pub(super) async fn find_change_set(
        &self,
        stack: &StackName,
        name: &str,
    ) -> Result<Option<Proposed>, Error> {
        let sent = self
            .read(
                "DescribeChangeSet",
                self.client()
                    .await?
                    .describe_change_set()
                    .stack_name(stack.as_str())
                    .change_set_name(name),
                |c| c.send(),
            )
            .await?;
        let answer = match sent {
            Ok(answer) => answer,
            Err(failed) if is_absent(&failed) => return Ok(None),
            Err(failed) => {
                return match error::of("DescribeChangeSet", name, failed) {
                    Error::NotFound(_) => Ok(None),
                    other => Err(other),
                };
            }
        };
        let leaving = answer
            .status()
            .is_some_and(|s| s.as_str().starts_with("DELETE_"));
        let Some(change_set) = answer.change_set_id().filter(|_| !leaving) else {
            return Ok(None);
        };
        Ok(Some(Proposed {
            change_set: change_set.to_owned(),
            stack_id: self.stack_id(answer.stack_id())?,
        }))
    }

    /// Runs a change set. What is newly made goes with a failure, also where it says `Retain`: an orphan would block
    /// the next try by its name.
    pub(super) async fn execute_change_set(
        &self,
        change_set: &str,
        token: &str,
    ) -> Result<(), Error> {
        self.write(
            "ExecuteChangeSet",
            self.client()
                .await?
                .execute_change_set()
                .change_set_name(change_set)
                .client_request_token(token)
                .retain_except_on_create(true),
            |c| c.send(),
        )
        .await?
        .map(|_| ())
        .map_err(|e| error::of("ExecuteChangeSet", change_set, e))
    }

    pub(super) async fn delete_change_set(&self, change_set: &str) -> Result<(), Error> {
        let sent = self
            .write(
                "DeleteChangeSet",
                self.client()
                    .await?
                    .delete_change_set()
                    .change_set_name(change_set),
                |c| c.send(),
            )
            .await?;
        match sent {
            Ok(_) => Ok(()),
            // Its stack is gone, and it with the stack.
            Err(failed) if is_absent(&failed) => Ok(()),
            Err(failed) => match error::of("DeleteChangeSet", change_set, failed) {
                Error::NotFound(_) => Ok(()),
                other => Err(other),
            },
        }
    }

    pub(super) async fn cancel_update(&self, stack: &StackId, token: &str) -> Result<(), Error> {
        self.write(
            "CancelUpdateStack",
            self.client()
                .await?
                .cancel_update_stack()
                .stack_name(stack.as_str())
                .client_request_token(token),
            |c| c.send(),
        )
        .await?
        .map(|_| ())
        .map_err(|e| error::of("CancelUpdateStack", stack.as_str(), e))
    }

    pub(super) async fn continue_update_rollback(
        &self,
        stack: &StackId,
        token: &str,
        skip: &[String],
    ) -> Result<(), Error> {
        self.write(
            "ContinueUpdateRollback",
            self.client()
                .await?
                .continue_update_rollback()
                .stack_name(stack.as_str())
                .client_request_token(token)
                .set_role_arn(self.place.service_role.clone())
                .set_resources_to_skip(said(skip.to_vec(), true)),
            |c| c.send(),
        )
        .await?
        .map(|_| ())
        .map_err(|e| error::of("ContinueUpdateRollback", stack.as_str(), e))
    }

    pub(super) async fn rollback_stack(&self, stack: &StackId, token: &str) -> Result<(), Error> {
        self.write(
            "RollbackStack",
            self.client()
                .await?
                .rollback_stack()
                .stack_name(stack.as_str())
                .client_request_token(token)
                .set_role_arn(self.place.service_role.clone()),
            |c| c.send(),
        )
        .await?
        .map(|_| ())
        .map_err(|e| error::of("RollbackStack", stack.as_str(), e))
    }

    pub(super) async fn delete_stack(
        &self,
        stack: &StackId,
        token: &str,
        retain: &[String],
    ) -> Result<(), Error> {
        let sent = self
            .write(
                "DeleteStack",
                self.client()
                    .await?
                    .delete_stack()
                    .stack_name(stack.as_str())
                    .client_request_token(token)
                    .set_role_arn(self.place.service_role.clone())
                    .set_retain_resources(said(retain.to_vec(), true)),
                |c| c.send(),
            )
            .await?;
        match sent {
            Ok(_) => Ok(()),
            // Deleted before, and long ago.
            Err(failed) if is_absent(&failed) => Ok(()),
            Err(failed) => Err(error::of("DeleteStack", stack.as_str(), failed)),
        }
    }

    pub(super) async fn put_stack_policy(
        &self,
        stack: &StackId,
        policy: &str,
    ) -> Result<(), Error> {
        self.write(
            "SetStackPolicy",
            self.client()
                .await?
                .set_stack_policy()
                .stack_name(stack.as_str())
                .stack_policy_body(policy),
            |c| c.send(),
        )
        .await?
        .map(|_| ())
        .map_err(|e| error::of("SetStackPolicy", stack.as_str(), e))
    }

    pub(super) async fn get_stack_policy(&self, stack: &StackId) -> Result<Option<String>, Error> {
        let answer = self
            .read(
                "GetStackPolicy",
                self.client()
                    .await?
                    .get_stack_policy()
                    .stack_name(stack.as_str()),
                |c| c.send(),
            )
            .await?
            .map_err(|e| error::of("GetStackPolicy", stack.as_str(), e))?;
        Ok(answer
            .stack_policy_body()
            .filter(|b| !b.is_empty())
            .map(str::to_owned))
    }

    pub(super) async fn update_protection(&self, stack: &StackId, on: bool) -> Result<(), Error> {
        self.write(
            "UpdateTerminationProtection",
            self.client()
                .await?
                .update_termination_protection()
                .stack_name(stack.as_str())
                .enable_termination_protection(on),
            |c| c.send(),
        )
        .await?
        .map(|_| ())
        .map_err(|e| error::of("UpdateTerminationProtection", stack.as_str(), e))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn proposal(create: bool, failure: OnFailure) -> Proposal {
        Proposal {
            stack: "orders".parse().unwrap(),
            name: "cs".into(),
            token: "t".into(),
            create,
            import: BTreeMap::new(),
            template_url: String::new(),
            parameters: BTreeMap::new(),
            kept: std::collections::BTreeSet::new(),
            tags: BTreeMap::new(),
            capabilities: Vec::new(),
            notification_arns: Vec::new(),
            rollback_triggers: Vec::new(),
            monitoring_minutes: 0,
            on_failure: failure,
        }
    }

    #[test]
    fn only_a_creation_can_delete_its_stack() {
        let word = |create, failure| on_failure(&proposal(create, failure));
        assert_eq!(word(true, OnFailure::Delete), Some(OnStackFailure::Delete));
        assert_eq!(word(false, OnFailure::Delete), None);
        assert_eq!(
            word(false, OnFailure::Keep),
            Some(OnStackFailure::DoNothing)
        );
    }

    #[test]
    fn an_update_takes_away_what_is_not_asked_for() {
        assert_eq!(said::<u8>(vec![], false), Some(vec![]));
        assert_eq!(said::<u8>(vec![], true), None);
        assert_eq!(said(vec![1], true), Some(vec![1]));
    }
}
