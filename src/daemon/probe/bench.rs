//! What an assumption is tried with: stacks, templates and waiting. Everything that is made is written down before it is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::aws::{S3Objects, Session};
use crate::clock::Clock;
use crate::domain::model::{StackId, StackName};
use crate::domain::plan::{ChangeSetStatus, Observed, StatusClass};
use crate::port::{
    ChangeSet, Error, ObjectStore, OnFailure, Pages, Proposal, Proposed, Put, StackEngine,
    StackRef, StackSummary, body,
};

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long a stack may look as if nothing had begun.
const STALE: Duration = Duration::from_secs(15);
/// The least time between two looks.
const BREATH: Duration = Duration::from_millis(100);
/// How often a stack is looked for whose making was not answered.
const LOOKS: u32 = 3;

/// Ways to AWS beside the ports.
pub(super) struct Raw {
    pub session: Session,
    pub service_role: Option<String>,
}

/// The bundle store: where it can, what is deleted goes with its versions.
pub(super) enum Shelf {
    S3(Arc<S3Objects>),
    Any(Arc<dyn ObjectStore>),
}

impl Shelf {
    pub fn objects(&self) -> &dyn ObjectStore {
        match self {
            Self::S3(store) => store.as_ref(),
            Self::Any(store) => store.as_ref(),
        }
    }

    async fn delete(&self, key: &str, version: Option<&str>) -> Result<(), Error> {
        match (self, version) {
            (Self::S3(store), Some(version)) => store.delete_version(key, version).await,
            _ => self.objects().delete(key).await,
        }
    }
}

/// A stack that is there.
#[derive(Clone)]
pub(super) struct Stack {
    pub name: StackName,
    pub id: StackId,
}

/// What is known of a name that was asked for.
#[derive(Default)]
struct Kept {
    id: Option<StackId>,
    /// What it was last made of.
    text: Option<String>,
}

/// An execution that has come to rest.
pub(super) struct Done {
    /// The change set's name.
    pub change_set: String,
    /// The token of the execution.
    pub token: String,
    /// What the stack said while it ran, where it was looked at in time.
    pub during: Option<Observed>,
    /// The stack afterwards.
    pub stack: Observed,
}

pub(super) struct Bench {
    pub engine: Arc<dyn StackEngine>,
    pub store: Shelf,
    pub raw: Option<Raw>,
    pub prefix: String,
    clock: Clock,
    stop: CancellationToken,
    turn: u64,
    stacks: BTreeMap<StackName, Kept>,
    shared: BTreeMap<&'static str, Result<Stack, Error>>,
    objects: BTreeSet<(String, Option<String>)>,
}

fn stopped() -> Error {
    Error::Unavailable("it was stopped".into())
}

impl Bench {
    pub fn new(
        engine: Arc<dyn StackEngine>,
        store: Shelf,
        raw: Option<Raw>,
        clock: &Clock,
        stop: CancellationToken,
    ) -> Self {
        // The end of such an id is random, its beginning is the time.
        let id = uuid::Uuid::now_v7().simple().to_string();
        Self {
            engine,
            store,
            raw,
            prefix: format!("isoform-probe-{}", &id[22..]),
            clock: clock.clone(),
            stop,
            turn: 0,
            stacks: BTreeMap::new(),
            shared: BTreeMap::new(),
            objects: BTreeSet::new(),
        }
    }

    /// Returns a number that was not given before.
    pub fn turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    pub fn name(&self, word: &str) -> Result<StackName, Error> {
        let text = format!("{}-{word}", self.prefix);
        text.parse()
            .map_err(|_| Error::Refused(format!("`{text}` is no name of a stack")))
    }

    /// A template that nothing was made of: two handles of which one is new.
    pub fn fresh(&mut self) -> String {
        let turn = self.turn();
        format!(
            "Description: made by isoform doctor --probe\nResources:\n  Kept:\n    Type: AWS::CloudFormation::WaitConditionHandle\n  V{turn}:\n    Type: AWS::CloudFormation::WaitConditionHandle\n"
        )
    }

    /// The same with a parameter of SSM that cannot be made: its value is not of the pattern.
    pub fn failing(&mut self) -> String {
        let fresh = self.fresh();
        format!(
            "{fresh}  Fails:\n    Type: AWS::SSM::Parameter\n    DependsOn: Kept\n    Properties:\n      Type: String\n      Value: a\n      AllowedPattern: ^b$\n"
        )
    }

    /// Returns what a stack was last made of.
    pub fn text(&self, stack: &Stack) -> Result<String, Error> {
        let known = self.stacks.get(&stack.name).and_then(|k| k.text.clone());
        known.ok_or_else(|| Error::NotFound(format!("a template of {}", stack.name)))
    }

    /// Returns a key that nothing lies under, where roles may read templates.
    pub fn key(&mut self) -> String {
        let turn = self.turn();
        format!("rendered/{}/{turn}.yaml", self.prefix)
    }

    /// Puts an object; returns its version.
    pub async fn put(
        &mut self,
        key: &str,
        text: &str,
        options: &Put,
    ) -> Result<Option<String>, Error> {
        self.going()?;
        let store = self.store.objects();
        let put = store.put(key, body(text.as_bytes()), options).await;
        let version = match &put {
            Ok(meta) => meta.version.clone(),
            // Should only the answer be lost, the newest version goes.
            Err(Error::Unavailable(_)) => None,
            Err(error) => return Err(error.clone()),
        };
        self.objects.insert((key.to_owned(), version));
        put.map(|meta| meta.version)
    }

    /// Makes a proposal with nothing but a template.
    pub async fn proposal(&mut self, name: &StackName, text: &str) -> Result<Proposal, Error> {
        let key = self.key();
        let version = self.put(&key, text, &Put::default()).await?;
        let template_url = self.store.objects().url(&key, version.as_deref());
        let turn = self.turn();
        let transforms = text.contains("Transform:");
        let capabilities = transforms.then(|| "CAPABILITY_AUTO_EXPAND".to_owned());
        let made = self.stacks.get(name).is_some_and(|k| k.text.is_some());
        Ok(Proposal {
            stack: name.clone(),
            name: format!("if-probe-{turn}"),
            token: format!("{}-{turn}", self.prefix),
            create: !made,
            import: BTreeMap::new(),
            template_url,
            parameters: BTreeMap::new(),
            kept: std::collections::BTreeSet::new(),
            tags: BTreeMap::new(),
            capabilities: capabilities.into_iter().collect(),
            notification_arns: Vec::new(),
            rollback_triggers: Vec::new(),
            monitoring_minutes: 0,
            on_failure: OnFailure::Delete,
        })
    }

    /// Proposes, and waits until the change set is made.
    pub async fn propose(&mut self, asked: &Proposal) -> Result<(Proposed, ChangeSet), Error> {
        let proposed = self.propose_only(asked).await?;
        let read = self.read(&proposed.change_set).await?;
        Ok((proposed, read))
    }

    pub async fn propose_only(&mut self, asked: &Proposal) -> Result<Proposed, Error> {
        self.going()?;
        self.stacks.entry(asked.stack.clone()).or_default();
        let proposed = self.engine.propose(asked).await?;
        let kept = self.stacks.entry(asked.stack.clone()).or_default();
        kept.id = Some(proposed.stack_id.clone());
        Ok(proposed)
    }

    /// Reads a change set once it is made.
    pub async fn read(&self, change_set: &str) -> Result<ChangeSet, Error> {
        let since = self.clock.steady();
        loop {
            let read = self.engine.review(change_set).await?;
            if read.status != ChangeSetStatus::Creating {
                return Ok(read);
            }
            if self.clock.steady().since(since) > PATIENCE {
                return Err(Error::Unavailable(format!("{change_set} is never made")));
            }
            self.pause().await?;
        }
    }

    /// Returns a stack that several assumptions share, made of a template once.
    pub async fn shared(
        &mut self,
        word: &'static str,
        text: &str,
        parameters: BTreeMap<String, String>,
    ) -> Result<Stack, Error> {
        if let Some(known) = self.shared.get(word) {
            return known.clone();
        }
        let made = self.make(word, text, parameters).await;
        self.shared.insert(word, made.clone());
        made
    }

    async fn make(
        &mut self,
        word: &str,
        text: &str,
        parameters: BTreeMap<String, String>,
    ) -> Result<Stack, Error> {
        let name = self.name(word)?;
        let mut asked = self.proposal(&name, text).await?;
        asked.parameters = parameters;
        let done = self.apply(&asked, text).await?;
        match done.stack.status.class() {
            StatusClass::Ready => Ok(Stack {
                name,
                id: done.stack.stack_id,
            }),
            _ => Err(Error::Unavailable(format!(
                "the stack {name} could not be made: {}",
                self.why(&done.stack).await
            ))),
        }
    }

    /// The stack that most assumptions are tried on.
    pub async fn life(&mut self) -> Result<Stack, Error> {
        let text = self.fresh();
        self.shared("life", &text, BTreeMap::new()).await
    }

    /// Proposes, executes and waits.
    pub async fn apply(&mut self, asked: &Proposal, text: &str) -> Result<Done, Error> {
        let (proposed, read) = self.propose(asked).await?;
        if read.status != ChangeSetStatus::Available {
            let why = read.reason.unwrap_or_default();
            return Err(Error::Refused(format!(
                "the change set cannot be executed: {:?}: {why}",
                read.status
            )));
        }
        self.execute(asked, &proposed, text).await
    }

    /// Executes a change set that is made, and waits.
    pub async fn execute(
        &mut self,
        asked: &Proposal,
        proposed: &Proposed,
        text: &str,
    ) -> Result<Done, Error> {
        self.going()?;
        let before = self.look(&proposed.stack_id).await?;
        let token = format!("{}-x", asked.token);
        self.engine.execute(&proposed.change_set, &token).await?;
        let first = self.look(&proposed.stack_id).await?;
        let stack = self.rest(&proposed.stack_id, &before).await?;
        if stack.status.class() == StatusClass::Ready
            && let Some(kept) = self.stacks.get_mut(&asked.stack)
        {
            kept.text = Some(text.to_owned());
        }
        Ok(Done {
            change_set: asked.name.clone(),
            token,
            during: Some(first).filter(|s| !s.status.is_settled()),
            stack,
        })
    }

    /// Makes a stack of another template.
    pub async fn update(&mut self, stack: &Stack, text: &str) -> Result<Done, Error> {
        let asked = self.proposal(&stack.name, text).await?;
        self.apply(&asked, text).await
    }

    /// Waits until a stack rests that was asked to move. At first it may still be told as it was.
    pub async fn rest(&self, id: &StackId, before: &Observed) -> Result<Observed, Error> {
        let since = self.clock.steady();
        loop {
            let now = self.look(id).await?;
            let waited = self.clock.steady().since(since);
            let begun = match now.status.class() {
                StatusClass::Shell => false,
                StatusClass::Gone => true,
                _ => now.watermark() != before.watermark() || waited > STALE,
            };
            if begun && now.status.is_settled() {
                return Ok(now);
            }
            if waited > PATIENCE {
                return Err(Error::Unavailable(format!(
                    "{} stays in {} for {} minutes",
                    now.name,
                    now.status,
                    PATIENCE.as_secs() / 60
                )));
            }
            self.pause().await?;
        }
    }

    /// Describes a stack that must be there.
    pub async fn look(&self, id: &StackId) -> Result<Observed, Error> {
        let found = self.engine.describe(&StackRef::Id(id.clone())).await?;
        found.ok_or_else(|| Error::NotFound(id.to_string()))
    }

    /// Finds the line of a stack in the listing.
    pub async fn listed(&self, id: &StackId) -> Result<Option<StackSummary>, Error> {
        let mut pages = Pages::default();
        while pages.go_on() {
            let page = self.engine.list(pages.token()).await?;
            if let Some(found) = page.items.into_iter().find(|s| s.stack_id == *id) {
                return Ok(Some(found));
            }
            pages.turn(page.next)?;
        }
        Ok(None)
    }

    /// Says why a stack is as it is: the failure of a resource that came last, and is not another's consequence.
    pub async fn why(&self, stack: &Observed) -> String {
        let events = self.engine.events(&stack.stack_id, None).await;
        let failed = events.unwrap_or_default().into_iter().rfind(|e| {
            let reason = e.reason.as_deref().unwrap_or_default();
            e.status.ends_with("_FAILED")
                && e.physical.as_deref() != Some(stack.stack_id.as_str())
                && !reason.is_empty()
                && !reason.contains("cancelled")
        });
        match failed {
            Some(event) => format!(
                "{}, for {}: {}",
                stack.status,
                event.logical,
                event.reason.unwrap_or_default()
            ),
            None => stack.status.to_string(),
        }
    }

    /// Lets a moment pass; an error where somebody has stopped it.
    pub async fn pause(&self) -> Result<(), Error> {
        let moment = self.engine.least_wait().max(BREATH);
        tokio::select! {
            () = self.clock.sleep(moment) => Ok(()),
            () = self.stop.cancelled() => Err(stopped()),
        }
    }

    fn going(&self) -> Result<(), Error> {
        if self.stop.is_cancelled() {
            return Err(stopped());
        }
        Ok(())
    }

    /// Deletes everything that was made; returns what is left, with why.
    pub async fn clear(&mut self) -> Vec<String> {
        // Whoever stops the probe does not stop this.
        self.stop = CancellationToken::new();
        let mut left = Vec::new();
        let mut leaving = Vec::new();
        for (name, kept) in std::mem::take(&mut self.stacks) {
            match self.begin_to_delete(&name, kept.id).await {
                Ok(Some(was)) => leaving.push((name, was)),
                Ok(None) => {}
                Err(error) => left.push(format!("the stack {name}: {error}")),
            }
        }
        for (name, was) in leaving {
            match self.rest(&was.stack_id, &was).await {
                Ok(now) if now.status.class() == StatusClass::Gone => {}
                Ok(now) => left.push(format!("the stack {name}: {}", self.why(&now).await)),
                Err(Error::NotFound(_)) => {}
                Err(error) => left.push(format!("the stack {name}: {error}")),
            }
        }
        for (key, version) in std::mem::take(&mut self.objects) {
            if let Err(error) = self.store.delete(&key, version.as_deref()).await {
                left.push(format!("the object {key}: {error}"));
            }
        }
        left
    }

    /// Asks for the end of a stack; absent where there is none.
    async fn begin_to_delete(
        &mut self,
        name: &StackName,
        id: Option<StackId>,
    ) -> Result<Option<Observed>, Error> {
        let found = match id {
            Some(id) => self.engine.describe(&StackRef::Id(id)).await?,
            None => self.unanswered(name).await?,
        };
        let Some(mut found) = found.filter(|s| s.status.class() != StatusClass::Gone) else {
            return Ok(None);
        };
        let since = self.clock.steady();
        while !found.status.is_settled() && self.clock.steady().since(since) < PATIENCE {
            self.pause().await?;
            found = self.look(&found.stack_id).await?;
        }
        if found.status.class() == StatusClass::Gone {
            return Ok(None);
        }
        if found.termination_protection {
            self.engine.set_protection(&found.stack_id, false).await?;
        }
        let turn = self.turn();
        let token = format!("{}-{turn}", self.prefix);
        self.engine.delete(&found.stack_id, &token, &[]).await?;
        Ok(Some(found))
    }

    /// Looks for a stack whose making was asked for and not answered. Its name is nobody else's.
    async fn unanswered(&self, name: &StackName) -> Result<Option<Observed>, Error> {
        for _ in 0..LOOKS {
            let found = self.engine.describe(&StackRef::Name(name.clone())).await?;
            if found.is_some() {
                return Ok(found);
            }
            self.pause().await?;
        }
        Ok(None)
    }
}
