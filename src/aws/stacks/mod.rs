//! The stack port on CloudFormation.
//!
//! Change sets only; ARNs from the first answer on; the caller's tokens, so that a repeat is the same call. Every call is
//! made within the budget of its account and region. What reads is tried again, what writes is sent once unless it was refused
//! for being one too many: after a lost answer the line asks what became of it. Every rule here that
//! is not in the API's own reference has its source in `docs/reference-model.md`.

mod drift;
mod reads;
mod review;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_cloudformation::Client;
use aws_sdk_cloudformation::config::http::HttpResponse;
use aws_sdk_cloudformation::error::{ProvideErrorMetadata, SdkError};
use tokio::sync::OnceCell;

use super::budget::Budget;
use super::error;
use super::session::Session;
use crate::clock::Clock;
use crate::domain::model::{AccountId, StackId, StackName};
use crate::domain::pace::Urgency;
use crate::domain::plan::Observed;
use crate::port::{
    ChangeSet, ChangeSetSummary, Drift, Error, Page, Proposal, Proposed, StackEngine, StackEvent,
    StackRef, StackSummary, TemplateSummary,
};

/// Where an engine works, and with which hands.
#[derive(Clone, Debug)]
pub struct Place {
    /// The account that the credentials must be of.
    pub account: AccountId,
    /// The role that CloudFormation takes; without it CloudFormation works with the caller's rights.
    pub service_role: Option<String>,
}

/// How often a read is tried that fails by something that passes.
const TRIES: u32 = 3;

/// CloudFormation of one account and region, for calls of one urgency.
#[derive(Clone)]
pub struct Stacks {
    session: Session,
    client: Client,
    place: Place,
    clock: Clock,
    checked: Arc<OnceCell<()>>,
    budget: Arc<Budget>,
    urgency: Urgency,
}

impl Stacks {
    /// Opens CloudFormation in the session's region, with a budget of its own.
    pub fn new(session: Session, place: Place, clock: Clock) -> Self {
        let name = format!("{}/{}", place.account, session.region());
        Self {
            client: session.stacks(true),
            session,
            place,
            budget: Arc::new(Budget::new(clock.clone(), name)),
            clock,
            checked: Arc::default(),
            urgency: Urgency::Look,
        }
    }

    /// Returns the same with the budget that others share.
    pub fn within(self, budget: Arc<Budget>) -> Self {
        Self { budget, ..self }
    }

    /// Returns the same for calls that are more or less urgent.
    pub fn at(&self, urgency: Urgency) -> Self {
        Self {
            urgency,
            ..self.clone()
        }
    }

    /// Makes sure, once, that the credentials are of the account that the placement names.
    async fn right_account(&self) -> Result<(), Error> {
        let check = self.session.is_of(&self.place.account);
        self.checked.get_or_try_init(|| check).await.map(|_| ())
    }

    async fn client(&self) -> Result<&Client, Error> {
        self.right_account().await.map(|()| &self.client)
    }

    /// Makes a call that changes nothing: again after what passes.
    async fn read<B, T, E, F>(
        &self,
        name: &'static str,
        call: B,
        send: impl Fn(B) -> F,
    ) -> Result<Result<T, SdkError<E, HttpResponse>>, Error>
    where
        B: Clone,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        self.made(name, call, send, TRIES).await
    }

    /// Makes a call that changes something: again only where it was refused for being one too many.
    async fn write<B, T, E, F>(
        &self,
        name: &'static str,
        call: B,
        send: impl Fn(B) -> F,
    ) -> Result<Result<T, SdkError<E, HttpResponse>>, Error>
    where
        B: Clone,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        self.made(name, call, send, 1).await
    }

    /// Makes a call within the budget. The outer error says that it was not made for want of one.
    async fn made<B, T, E, F>(
        &self,
        name: &'static str,
        call: B,
        send: impl Fn(B) -> F,
        tries: u32,
    ) -> Result<Result<T, SdkError<E, HttpResponse>>, Error>
    where
        B: Clone,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        let mut errand = self.budget.errand(name, self.urgency).await?;
        let mut failures = 0;
        loop {
            let failed = match send(call.clone()).await {
                Ok(answer) => {
                    errand.taken();
                    return Ok(Ok(answer));
                }
                Err(failed) => failed,
            };
            if error::is_throttle(&failed) {
                errand.refused().await?;
                continue;
            }
            errand.taken();
            failures += 1;
            if failures >= tries || !error::passes(&failed) {
                return Ok(Err(failed));
            }
            // Whoever has no patience left hears of what failed, and not of the waiting.
            if errand.again().await.is_err() {
                return Ok(Err(failed));
            }
        }
    }

    /// Reads the ARN of a stack, which must be of this account and region.
    ///
    /// Where there is none the answer was garbled on the way: whatever was asked for may have happened.
    fn stack_id(&self, text: Option<&str>) -> Result<StackId, Error> {
        let text = text.unwrap_or_default();
        let id: StackId = text
            .parse()
            .map_err(|_| Error::Unavailable(format!("`{text}` is no ARN of a stack")))?;
        if id.account().as_ref() != Some(&self.place.account)
            || id.region().as_ref() != Some(self.session.region())
        {
            return Err(Error::Untrusted(format!(
                "{id} is not of the account {} and the region {}",
                self.place.account,
                self.session.region()
            )));
        }
        Ok(id)
    }
}

/// Tells whether an error says that a stack is not there.
///
/// DescribeStacks declares no error for that: it is a `ValidationError` like any other, so here the text must decide. Names
/// and ARNs were checked before, so nothing else of the call can be invalid.
fn is_absent<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let said = error.as_service_error().map(|e| (e.code(), e.message()));
    matches!(said, Some((Some("ValidationError"), Some(text))) if text.trim_end_matches('.').ends_with("does not exist"))
}

fn text(stack: &StackRef) -> &str {
    match stack {
        StackRef::Name(name) => name.as_str(),
        StackRef::Id(id) => id.as_str(),
    }
}

#[async_trait]
impl StackEngine for Stacks {
    async fn list(&self, token: Option<&str>) -> Result<Page<StackSummary>, Error> {
        self.list_live(token).await
    }

    async fn list_moving(&self, token: Option<&str>) -> Result<Page<StackSummary>, Error> {
        self.list_in_motion(token).await
    }

    async fn describe(&self, stack: &StackRef) -> Result<Option<Observed>, Error> {
        self.describe_stack(stack).await
    }

    async fn template(&self, stack: &StackRef) -> Result<String, Error> {
        self.stack_template(stack).await
    }

    async fn change_set_template(&self, change_set: &str) -> Result<String, Error> {
        self.proposed_template(change_set).await
    }

    async fn summary(&self, template_url: &str) -> Result<TemplateSummary, Error> {
        self.template_summary(template_url).await
    }

    async fn propose(&self, proposal: &Proposal) -> Result<Proposed, Error> {
        self.create_change_set(proposal).await
    }

    async fn find(&self, stack: &StackName, name: &str) -> Result<Option<Proposed>, Error> {
        self.find_change_set(stack, name).await
    }

    async fn change_sets(
        &self,
        stack: &StackId,
        token: Option<&str>,
    ) -> Result<Page<ChangeSetSummary>, Error> {
        self.list_change_sets(stack, token).await
    }

    async fn review(&self, change_set: &str) -> Result<ChangeSet, Error> {
        self.review_change_set(change_set).await
    }

    async fn execute(&self, change_set: &str, token: &str) -> Result<(), Error> {
        self.execute_change_set(change_set, token).await
    }

    async fn cancel(&self, stack: &StackId, token: &str) -> Result<(), Error> {
        self.cancel_update(stack, token).await
    }

    async fn continue_rollback(
        &self,
        stack: &StackId,
        token: &str,
        skip: &[String],
    ) -> Result<(), Error> {
        self.continue_update_rollback(stack, token, skip).await
    }

    async fn rollback(&self, stack: &StackId, token: &str) -> Result<(), Error> {
        self.rollback_stack(stack, token).await
    }

    async fn delete(&self, stack: &StackId, token: &str, retain: &[String]) -> Result<(), Error> {
        self.delete_stack(stack, token, retain).await
    }

    async fn set_stack_policy(&self, stack: &StackId, policy: &str) -> Result<(), Error> {
        self.put_stack_policy(stack, policy).await
    }

    async fn stack_policy(&self, stack: &StackId) -> Result<Option<String>, Error> {
        self.get_stack_policy(stack).await
    }

    async fn set_protection(&self, stack: &StackId, on: bool) -> Result<(), Error> {
        self.update_protection(stack, on).await
    }

    async fn events(&self, stack: &StackId, after: Option<&str>) -> Result<Vec<StackEvent>, Error> {
        self.events_since(stack, after).await
    }

    async fn drift(&self, stack: &StackId) -> Result<Vec<Drift>, Error> {
        self.detect_drift(stack).await
    }

    async fn discard(&self, change_set: &str) -> Result<(), Error> {
        self.delete_change_set(change_set).await
    }

    /// DescribeStacks is reported to give five calls a second to a whole account and region: SAM #2671.
    fn least_wait(&self) -> Duration {
        Duration::from_secs(1)
    }
}
