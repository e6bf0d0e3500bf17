//! What `isoform doctor --probe` asks of CloudFormation beyond the port: answers of which the port keeps less, and a change set
//! that leaves out what the line always says.

use std::collections::BTreeMap;

use aws_sdk_cloudformation::types::{ChangeSetType, OperationEntry};

use super::error;
use super::session::Session;
use crate::domain::model::{StackId, StackName};
use crate::port::Error;

/// Pages of a listing that are read at most.
const PAGES: usize = 200;

/// What DescribeStacks says of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackFacts {
    /// The types of its last operations, as they come.
    pub operations: Vec<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its notification topics.
    pub topics: Vec<String>,
    /// For how many minutes its alarms are watched.
    pub watched_minutes: i32,
}

fn types(entries: &[OperationEntry]) -> Vec<String> {
    let word = |e: &OperationEntry| e.operation_type().map(|t| t.as_str().to_owned());
    entries.iter().filter_map(word).collect()
}

impl Session {
    /// Describes a stack.
    pub async fn stack_facts(&self, stack: &StackId) -> Result<StackFacts, Error> {
        let call = self.stacks(false).describe_stacks();
        let answer = call
            .stack_name(stack.as_str())
            .send()
            .await
            .map_err(|e| error::of("DescribeStacks", stack.as_str(), e))?;
        let [found] = answer.stacks() else {
            return Err(Error::NotFound(stack.to_string()));
        };
        let tags = found.tags().iter().map(|t| {
            let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
            (text(t.key()), text(t.value()))
        });
        Ok(StackFacts {
            operations: types(found.last_operations()),
            tags: tags.collect(),
            topics: found.notification_arns().to_vec(),
            watched_minutes: found
                .rollback_configuration()
                .and_then(|r| r.monitoring_time_in_minutes())
                .unwrap_or_default(),
        })
    }

    /// Returns the types of a stack's last operations as ListStacks tells them; absent where it is not listed.
    pub async fn listed_operations(&self, stack: &StackId) -> Result<Option<Vec<String>>, Error> {
        let client = self.stacks(false);
        let mut token = None;
        for _ in 0..PAGES {
            let answer = client
                .list_stacks()
                .set_next_token(token)
                .send()
                .await
                .map_err(|e| error::of("ListStacks", "the stacks", e))?;
            let mut all = answer.stack_summaries().iter();
            if let Some(found) = all.find(|s| s.stack_id() == Some(stack.as_str())) {
                return Ok(Some(types(found.last_operations())));
            }
            token = answer.next_token().map(str::to_owned);
            if token.is_none() {
                break;
            }
        }
        Ok(None)
    }

    /// Makes a change set that says nothing of tags, topics and alarms; returns its ARN.
    pub async fn propose_in_silence(
        &self,
        stack: &StackName,
        name: &str,
        template_url: &str,
        service_role: Option<String>,
    ) -> Result<String, Error> {
        let call = self.stacks(false).create_change_set();
        let answer = call
            .stack_name(stack.as_str())
            .change_set_name(name)
            .client_token(name)
            .change_set_type(ChangeSetType::Update)
            .template_url(template_url)
            .set_role_arn(service_role)
            .send()
            .await
            .map_err(|e| error::of("CreateChangeSet", stack.as_str(), e))?;
        let id = answer.id().map(str::to_owned);
        id.ok_or_else(|| Error::Unavailable("a change set without an ARN".into()))
    }
}
