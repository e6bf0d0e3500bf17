//! The only file that changes the world: every step can be done twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::announce::Announced;
use super::bundles::{Pinning, Sent};
use super::capable::{Texts, refusal, unnamed};
use super::settle::LAG;
use super::{Error, Line};
use crate::domain::deployment::{EventKind, History, Remedy, Step};
use crate::domain::estate::Target;
use crate::domain::model::{Actor, StackId, TargetUid};
use crate::domain::plan::{StatusClass, acknowledged, grown};
use crate::domain::policy::opened_for;
use crate::port::{
    self, ChangeSetSummary, ObjectStore, Proposal, Put, StackEngine, StackRef, body,
};

/// What performing a step came to.
pub(super) enum Performed {
    /// Events to record, in order.
    Events(Vec<EventKind>),
    /// CloudFormation refused the change set, with its words.
    Refused(String),
    /// The stack is not as it was when the deployment began.
    Moved,
    /// The stack belongs to somebody else.
    NotOurs(String),
}

impl Announced {
    fn stack(&self) -> Result<&StackId, Error> {
        let stack = self.deployment.stack.as_ref();
        stack.ok_or_else(|| Error::Broken("no stack to configure".into()))
    }
}

impl Line {
    /// Performs an announced step.
    pub(super) async fn perform(
        &self,
        announced: &Announced,
        target: &Target,
        engine: &dyn StackEngine,
    ) -> Result<Performed, Error> {
        let deployment = &announced.deployment;
        match &announced.step {
            Step::Store => self.store_bundle(announced, target).await,
            Step::Clear { stack } => {
                engine
                    .delete(stack, &format!("{}-clear", deployment.token()), &[])
                    .await?;
                self.wait_gone(engine, stack).await?;
                Ok(Performed::Events(vec![EventKind::Cleared]))
            }
            Step::Propose { name } => self.propose(announced, target, engine, name).await,
            Step::Discard => {
                if let Some(change_set) = &deployment.change_set {
                    engine.discard(change_set).await?;
                }
                // A shell that our CREATE change set made goes with it: by ARN, and only if it is still a shell.
                if let Some(stack) = &deployment.stack
                    && deployment.pinned.watermark.is_none()
                    && engine
                        .describe(&StackRef::Id(stack.clone()))
                        .await?
                        .is_some_and(|s| s.status.class() == StatusClass::Shell)
                {
                    engine
                        .delete(stack, &format!("{}-shell", deployment.token()), &[])
                        .await?;
                }
                Ok(Performed::Events(Vec::new()))
            }
            Step::Execute { token } => {
                let change_set = deployment
                    .change_set
                    .as_deref()
                    .ok_or_else(|| Error::Broken("nothing to execute".into()))?;
                match engine.execute(change_set, token).await {
                    Ok(()) | Err(port::Error::AlreadyAccepted) => {
                        Ok(Performed::Events(vec![EventKind::Executed]))
                    }
                    Err(port::Error::NotFound(_) | port::Error::Refused(_)) => Ok(Performed::Moved),
                    // Made again it would be refused again.
                    Err(port::Error::Incapable(text)) => {
                        engine.discard(change_set).await?;
                        Ok(Performed::Refused(unnamed(target, &text)))
                    }
                    Err(error) => Err(error.into()),
                }
            }
            Step::Delete { stack, token } => match engine.delete(stack, token, &[]).await {
                Ok(()) | Err(port::Error::AlreadyAccepted | port::Error::NotFound(_)) => {
                    Ok(Performed::Events(vec![EventKind::Executed]))
                }
                Err(port::Error::Refused(text)) => Ok(Performed::Refused(text)),
                Err(error) => Err(error.into()),
            },
            Step::OpenPolicy { .. } => {
                let stack = announced.stack()?;
                let Some((_, payload)) = &deployment.review else {
                    return Err(Error::Broken("nothing was reviewed".into()));
                };
                let review = self.review_of(payload).await?;
                engine
                    .set_stack_policy(stack, &opened_for(&review.changes))
                    .await?;
                Ok(Performed::Events(Vec::new()))
            }
            Step::ClosePolicy => {
                let Some(former) = &deployment.opened else {
                    return Err(Error::Broken("no stack policy is open".into()));
                };
                let former = self.text_of(former).await?;
                match engine.set_stack_policy(announced.stack()?, &former).await {
                    // With the stack its policy is gone.
                    Ok(()) | Err(port::Error::NotFound(_)) => {
                        Ok(Performed::Events(vec![EventKind::PolicyClosed]))
                    }
                    Err(error) => Err(error.into()),
                }
            }
            Step::Cancel { stack, token } => {
                let refused = match engine.cancel(stack, token).await {
                    Ok(()) | Err(port::Error::AlreadyAccepted) => None,
                    // The update has ended in between, or is past the point where it can be stopped.
                    Err(port::Error::Refused(text) | port::Error::NotFound(text)) => Some(text),
                    Err(error) => return Err(error.into()),
                };
                Ok(Performed::Events(vec![EventKind::Cancelled { refused }]))
            }
            Step::Remedy {
                stack,
                token,
                remedy,
                ..
            } => {
                let told = match remedy {
                    Remedy::Continue { skip } => engine.continue_rollback(stack, token, skip).await,
                    Remedy::Rollback => engine.rollback(stack, token).await,
                    Remedy::Delete { retain } => engine.delete(stack, token, retain).await,
                };
                let refused = match told {
                    Ok(()) | Err(port::Error::AlreadyAccepted) => None,
                    Err(port::Error::Refused(text) | port::Error::NotFound(text)) => Some(text),
                    Err(error) => return Err(error.into()),
                };
                Ok(match refused {
                    Some(text) if deployment.pinned.remedy.is_some() => Performed::Refused(text),
                    refused => Performed::Events(vec![EventKind::Remedied { refused }]),
                })
            }
            Step::Configure => {
                let stack = announced.stack()?;
                // What was reviewed, and not what a newer commit says.
                let pinning = self.pinning(&deployment.pinned.payload).await?;
                if let Some(policy) = &pinning.stack_policy
                    && engine.stack_policy(stack).await?.as_ref() != Some(policy)
                {
                    engine.set_stack_policy(stack, policy).await?;
                }
                if let Some(on) = pinning.termination_protection {
                    engine.set_protection(stack, on).await?;
                }
                Ok(Performed::Events(Vec::new()))
            }
        }
    }

    async fn store_bundle(
        &self,
        announced: &Announced,
        target: &Target,
    ) -> Result<Performed, Error> {
        // What is brought back was put when it was deployed.
        if let Some(template) = target.template()
            && !announced.deployment.pinned.rollback
        {
            self.put_bundle(&template.digest, &template.bundle.files, &template.version)
                .await?;
        }
        let pinned = &announced.deployment.pinned;
        let sent = self.sent(target, pinned).await?;
        let store = self.ports.store(&target.placement, &target.region)?;
        // What lies below first: whoever reads the parent can read it whole.
        for (key, text) in &sent.below {
            put_text(store.as_ref(), key, text).await?;
        }
        let version = put_text(store.as_ref(), &sent.key, &sent.text).await?;
        Ok(Performed::Events(vec![EventKind::Stored { version }]))
    }

    async fn propose(
        &self,
        announced: &Announced,
        target: &Target,
        engine: &dyn StackEngine,
        name: &str,
    ) -> Result<Performed, Error> {
        let deployment = &announced.deployment;
        let pinned = &deployment.pinned;
        let pinning: Pinning = self.pinning(&pinned.payload).await?;
        let store = self.ports.store(&target.placement, &target.region)?;
        let (given, kept) = self.unsaid(announced, &pinning).await?;
        let proposal = Proposal {
            stack: pinned.stack_name.clone(),
            name: name.to_owned(),
            token: format!("{}-p", deployment.token()),
            create: pinned.watermark.is_none() || deployment.cleared,
            import: BTreeMap::new(),
            template_url: store.url(&pinned.rendered, deployment.rendered_version.as_deref()),
            parameters: given,
            kept,
            tags: pinning.tags,
            capabilities: acknowledged(&pinning.capabilities, pinning.allowed.as_deref()),
            notification_arns: pinning.notification_arns,
            rollback_triggers: pinning.rollback_triggers,
            monitoring_minutes: pinning.monitoring_minutes,
            on_failure: port::OnFailure::Delete,
        };
        let below = match pinning.nested.is_empty() {
            true => BTreeMap::new(),
            false => self.sent(target, pinned).await?.below,
        };
        let texts = texts(
            store.as_ref(),
            &pinned.rendered,
            &proposal.template_url,
            &below,
        );
        let allowed = pinning.allowed.as_deref();
        let proposed = match self
            .propose_able(&announced.uid, engine, target, proposal, &texts, allowed)
            .await?
        {
            Ok(proposed) => proposed,
            // A lost answer: the name is ours alone, so what bears it is what we made.
            Err(port::Error::Exists(_)) => match engine.find(&pinned.stack_name, name).await? {
                Some(found) => found,
                None => return Ok(Performed::Moved),
            },
            Err(
                port::Error::Refused(text)
                | port::Error::Incapable(text)
                | port::Error::TooMany(text),
            ) => {
                return Ok(Performed::Refused(text));
            }
            Err(port::Error::NotFound(_)) => return Ok(Performed::Moved),
            Err(error) => return Err(error.into()),
        };
        let mut events = Vec::new();
        if self
            .history(&announced.uid)
            .and_then(|h| h.owned.clone())
            .as_ref()
            != Some(&proposed.stack_id)
        {
            if let Err(owner) = self
                .claim(announced.uid.as_str(), &proposed.stack_id)
                .await?
            {
                return Ok(Performed::NotOurs(owner));
            }
            events.push(EventKind::Owned {
                stack: proposed.stack_id.clone(),
            });
        }
        events.push(EventKind::Proposed {
            change_set: proposed.change_set,
            stack: proposed.stack_id,
        });
        Ok(Performed::Events(events))
    }

    /// Makes a change set. Where CloudFormation needs more than the text shows, asks it what, and makes the change set with
    /// that, as far as the target's options allow.
    ///
    /// Done twice it is the same: the first proposal is refused again, or finds the name taken by the second.
    async fn propose_able(
        &self,
        uid: &TargetUid,
        engine: &dyn StackEngine,
        target: &Target,
        mut proposal: Proposal,
        texts: &Texts,
        allowed: Option<&[String]>,
    ) -> Result<Result<port::Proposed, port::Error>, Error> {
        let said = match self.make(uid, engine, &proposal).await? {
            Err(port::Error::Incapable(said)) => said,
            other => return Ok(other),
        };
        let needed = self.needs(target, engine, texts).await?;
        let acknowledged = match grown(&proposal.capabilities, &needed.capabilities, allowed) {
            Ok(acknowledged) => acknowledged,
            Err(missing) => {
                let why = refusal(target, &missing, needed.reason.as_deref());
                return Ok(Err(port::Error::Incapable(why)));
            }
        };
        if acknowledged == proposal.capabilities {
            return Ok(Err(port::Error::Incapable(unnamed(target, &said))));
        }
        proposal.capabilities = acknowledged;
        // Another call, and so another token.
        proposal.token.push('2');
        Ok(match self.make(uid, engine, &proposal).await? {
            Err(port::Error::Incapable(said)) => {
                Err(port::Error::Incapable(unnamed(target, &said)))
            }
            other => other,
        })
    }

    /// Takes out of the parameters the secret ones that the stack has as they are: a secret is sent when it is another one, and
    /// not with every change. Only what was executed counts as given, and only where nobody has moved the stack since.
    async fn unsaid(
        &self,
        announced: &Announced,
        pinning: &Pinning,
    ) -> Result<(BTreeMap<String, String>, BTreeSet<String>), Error> {
        let (mut given, mut kept) = (pinning.parameters.clone(), BTreeSet::new());
        let deployment = &announced.deployment;
        let history = self.history(&announced.uid);
        let found = history
            .as_ref()
            .and_then(|h| Some((h.applied.as_ref()?, h.sent.as_ref()?)));
        let Some((_, sent)) = found.filter(|(applied, _)| {
            applied.watermark.is_some()
                && applied.watermark == deployment.pinned.watermark
                && !deployment.cleared
        }) else {
            return Ok((given, kept));
        };
        if !pinning.secrets.is_empty() {
            let before = self.pinning(sent).await?;
            let same = |name: &&String| {
                before.secrets.contains(name)
                    && before.parameters.get(*name) == pinning.parameters.get(*name)
            };
            kept.extend(pinning.secrets.iter().filter(same).cloned());
            kept.retain(|name| given.remove(name).is_some());
        }
        Ok((given, kept))
    }

    /// Makes a change set only to look at it: under a name of a preview that is in the log already, read back and
    /// discarded, never executed.
    pub(super) async fn preview_change_set(
        &self,
        name: &str,
        uid: &TargetUid,
        target: &Target,
        desired: &crate::domain::plan::Desired,
        stack: &StackId,
    ) -> Result<crate::port::ChangeSet, Error> {
        let engine = self.ports.engine(&target.placement, &target.region)?;
        let store = self.ports.store(&target.placement, &target.region)?;
        let hasher = self.store.keyring().hasher();
        let sent = Sent::new(hasher, store.as_ref(), &desired.template, &desired.nested);
        for (key, text) in &sent.below {
            put_text(store.as_ref(), key, text).await?;
        }
        let version = put_text(store.as_ref(), &sent.key, &sent.text).await?;
        let proposal = Proposal {
            stack: desired.stack_name.clone(),
            token: format!("{name}-{}", uid.short()),
            name: name.to_owned(),
            create: false,
            import: BTreeMap::new(),
            template_url: store.url(&sent.key, version.as_deref()),
            parameters: desired.parameters.clone(),
            kept: BTreeSet::new(),
            tags: desired.tags.clone(),
            capabilities: acknowledged(&desired.capabilities, desired.allowed.as_deref()),
            notification_arns: desired.notification_arns.clone(),
            rollback_triggers: desired.rollback_triggers.clone(),
            monitoring_minutes: desired.monitoring_minutes,
            on_failure: port::OnFailure::Delete,
        };
        let texts = texts(
            store.as_ref(),
            &sent.key,
            &proposal.template_url,
            &sent.below,
        );
        let allowed = desired.allowed.as_deref();
        let proposed = self
            .propose_able(uid, engine.as_ref(), target, proposal, &texts, allowed)
            .await??;
        if proposed.stack_id != *stack {
            engine.discard(&proposed.change_set).await?;
            return Err(port::Error::Untrusted("the change set is of another stack".into()).into());
        }
        let read = loop {
            let read = engine.review(&proposed.change_set).await?;
            if read.status != crate::domain::plan::ChangeSetStatus::Creating {
                break read;
            }
            let wait = Duration::from_millis(20).max(engine.least_wait());
            self.clock.sleep(wait).await;
        };
        engine.discard(&proposed.change_set).await?;
        Ok(read)
    }

    /// Makes a change set. Where the stack has too many, those that nothing needs go first, and it is tried once more.
    async fn make(
        &self,
        uid: &TargetUid,
        engine: &dyn StackEngine,
        proposal: &Proposal,
    ) -> Result<Result<port::Proposed, port::Error>, Error> {
        let said = match engine.propose(proposal).await {
            Err(port::Error::TooMany(said)) => said,
            other => return Ok(other),
        };
        let owned = self.history(uid).and_then(|h| h.owned.clone());
        // Without a stack it is not about its change sets.
        let named = format!(":stack/{}/", proposal.stack);
        let Some(stack) = owned.filter(|s| s.as_str().contains(&named)) else {
            return Ok(Err(port::Error::TooMany(said)));
        };
        let tidied = self.tidy(uid, engine, &stack).await?;
        Ok(match engine.propose(proposal).await {
            // Deleting takes its time: what is on its way out is counted until then.
            Err(port::Error::TooMany(said)) if tidied.discarded > 0 => Err(port::Error::Busy(said)),
            Err(port::Error::TooMany(said)) => {
                Err(port::Error::TooMany(tidied.in_the_way(&stack, &said)))
            }
            other => other,
        })
    }

    /// Discards change sets that nothing needs, after the log has said so. Returns how many went.
    pub(super) async fn discard_leftovers(
        &self,
        uid: &TargetUid,
        engine: &dyn StackEngine,
        stack: &StackId,
        left: &[&ChangeSetSummary],
    ) -> Result<usize, Error> {
        if left.is_empty() {
            return Ok(0);
        }
        let event = EventKind::Tidying {
            change_sets: left.iter().map(|s| s.name.clone()).collect(),
        };
        self.record(uid, Actor::daemon("janitor"), event, Vec::new())
            .await?;
        let mut gone = 0;
        for set in left {
            match engine.discard(&set.change_set).await {
                Ok(()) => gone += 1,
                // It runs, or is gone: the list was older than that.
                Err(port::Error::Refused(_) | port::Error::NotFound(_) | port::Error::Busy(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        tracing::info!(target.id = %uid, "{gone} of {} leftover change sets of {stack} are discarded", left.len());
        Ok(gone)
    }

    /// Discards the change sets that previews left behind: the answer was lost, or the daemon died in between.
    pub(super) async fn clear_previews(
        &self,
        uid: &TargetUid,
        history: &History,
        engine: &dyn StackEngine,
    ) -> Result<(), Error> {
        for (name, stack) in &history.previews {
            if let Some(stack) = stack.as_ref().or(history.stack_name.as_ref())
                && let Some(left) = engine.find(stack, name).await?
            {
                engine.discard(&left.change_set).await?;
            }
            let event = EventKind::Previewed {
                change_set: name.clone(),
            };
            self.record(uid, Actor::daemon("preview"), event, Vec::new())
                .await?;
        }
        Ok(())
    }

    /// Claims a stack for a target: the first who puts the object owns it.
    pub(super) async fn claim(
        &self,
        whose: &str,
        stack: &StackId,
    ) -> Result<Result<(), String>, Error> {
        let home = self.ports.home();
        match home
            .put(&owner_key(stack), body(whose), &Put::default())
            .await
        {
            Ok(_) => Ok(Ok(())),
            Err(port::Error::Exists(_)) => Ok(match self.owner(stack).await? {
                Some(owner) if owner != whose => Err(owner),
                _ => Ok(()),
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads whose a stack is: the claim is in the bundle store before the log says it, and outlives the log.
    pub(super) async fn owner(&self, stack: &StackId) -> Result<Option<String>, Error> {
        match port::read_all(self.ports.home().as_ref(), &owner_key(stack), None, 200).await {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(port::Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn wait_gone(&self, engine: &dyn StackEngine, stack: &StackId) -> Result<(), Error> {
        // Reads lag behind: for a while it is still what was told to go.
        let patience = self.clock.steady().plus(LAG);
        loop {
            match engine.describe(&StackRef::Id(stack.clone())).await? {
                None => return Ok(()),
                Some(s) if s.status.class() == StatusClass::Gone => return Ok(()),
                Some(s)
                    if s.status.is_settled()
                        && (s.status.class() != StatusClass::Dead
                            || self.clock.steady() >= patience) =>
                {
                    return Err(port::Error::Refused(format!(
                        "the stack cannot be deleted: {}",
                        s.status
                    ))
                    .into());
                }
                Some(_) => {
                    let wait = Duration::from_millis(50).max(engine.least_wait());
                    self.clock.sleep(wait).await;
                }
            }
        }
    }
}

/// Names the texts of a proposal, the rendered one first.
fn texts(store: &dyn ObjectStore, key: &str, url: &str, below: &BTreeMap<String, String>) -> Texts {
    let below = below.keys().map(|key| (key.clone(), store.url(key, None)));
    let first = (key.to_owned(), url.to_owned());
    std::iter::once(first).chain(below).collect()
}

/// Puts a text under the key of what it holds; one that is there must be the same. Returns its version.
async fn put_text(store: &dyn ObjectStore, key: &str, text: &str) -> Result<Option<String>, Error> {
    match store.put(key, body(text.as_bytes()), &Put::default()).await {
        Ok(meta) => Ok(meta.version),
        // Put before, by an earlier try or for the same text: read back and compared, then it is ours.
        Err(port::Error::Exists(_)) => {
            let bytes = port::read_all(store, key, None, 2 << 20).await?;
            if bytes != text.as_bytes() {
                return Err(port::Error::Untrusted(format!(
                    "{key} holds another text than was rendered"
                ))
                .into());
            }
            Ok(store.head(key).await?.and_then(|m| m.version))
        }
        Err(error) => Err(error.into()),
    }
}

fn owner_key(stack: &StackId) -> String {
    format!("owners/{}", stack.as_str().replace(['/', ':'], "_"))
}
