//! What a case is given, and words that every case uses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use isoform::domain::cfn::Reference;
use isoform::domain::model::{StackId, Timestamp};
use isoform::domain::plan::{ChangeSetStatus, Observed};
use isoform::port::{
    ChangeSet, Error, KeyService, ObjectStore, OnFailure, Proposal, Proposed, StackEngine,
    StackRef, Versions,
};
use serde_json::Value;

/// During what a resource fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum During {
    Make,
    Delete,
    Rollback,
}

/// A fresh world behind the ports.
#[async_trait]
pub trait Harness: Send + Sync {
    /// CloudFormation of one account and region.
    fn engine(&self) -> Arc<dyn StackEngine>;
    /// A stack name that nobody has used.
    fn name(&self, word: &str) -> String;
    /// Puts a template where CloudFormation reads it; returns the URL.
    async fn put(&self, text: &str) -> String;
    /// Lets time pass.
    async fn pass(&self, time: Duration);
    /// Lets a resource fail from now on, or work again. Returns false where the world cannot do that.
    async fn fail(&self, stack: &str, logical: &str, during: During, on: bool) -> bool;
    /// Updates a stack as somebody else would. Returns false where the world cannot do that.
    async fn meddle(&self, stack: &str) -> bool;
    /// Sets properties of a resource by hand, or deletes it. Returns false where the world cannot do that.
    async fn change(&self, stack: &str, logical: &str, set: Option<Value>) -> bool;
    /// An empty object store.
    fn store(&self) -> Arc<dyn ObjectStore>;
    /// A key service.
    fn keys(&self) -> Arc<dyn KeyService>;
    /// What templates can refer to.
    fn versions(&self) -> Arc<dyn Versions>;
    /// Gives something that templates refer to another value, the first where there is none.
    async fn rotate(&self, reference: &Reference);
    /// A time that has not come yet.
    fn later(&self) -> Timestamp;
    /// Whether thousands of calls are nothing here.
    fn is_cheap(&self) -> bool;
}

/// What is heard of a case that is held against a table.
#[derive(Default)]
pub struct Heard {
    /// It has left.
    pub left: std::sync::atomic::AtomicBool,
    /// Where it panicked, and with what.
    pub panic: std::sync::Mutex<Option<String>>,
}

tokio::task_local! {
    /// Set where what comes of the running case is held against a table.
    pub static HEARD: Arc<Heard>;
}

/// Says that a case leaves: into the table's ear, or as a skip.
pub fn leave(name: &str) {
    let told = HEARD.try_with(|heard| heard.left.store(true, std::sync::atomic::Ordering::Relaxed));
    if told.is_err() {
        println!("SKIP {name}: this world cannot do that");
    }
}

/// Leaves a case whose world lacks an ability, and says so.
macro_rules! needs {
    ($can:expr, $name:literal) => {
        if !$can {
            crate::harness::leave($name);
            return;
        }
    };
}
pub(crate) use needs;

static TURN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Makes a proposal with nothing but a template.
pub async fn proposal(world: &dyn Harness, stack: &str, template: &str) -> Proposal {
    let turn = TURN.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let exists = world
        .engine()
        .describe(&StackRef::Name(stack.parse().unwrap()))
        .await
        .unwrap()
        .is_some_and(|s| s.status.as_str() != "REVIEW_IN_PROGRESS");
    Proposal {
        stack: stack.parse().unwrap(),
        name: format!("cs-{turn}"),
        token: format!("token-{turn}"),
        create: !exists,
        import: BTreeMap::new(),
        template_url: world.put(template).await,
        parameters: BTreeMap::new(),
        kept: std::collections::BTreeSet::new(),
        tags: BTreeMap::new(),
        capabilities: vec![
            "CAPABILITY_NAMED_IAM".into(),
            "CAPABILITY_AUTO_EXPAND".into(),
        ],
        notification_arns: Vec::new(),
        rollback_triggers: Vec::new(),
        monitoring_minutes: 0,
        on_failure: OnFailure::Rollback,
    }
}

/// Proposes and waits until the change set is made.
pub async fn propose(world: &dyn Harness, proposal: &Proposal) -> (Proposed, ChangeSet) {
    let engine = world.engine();
    let proposed = engine.propose(proposal).await.unwrap();
    let read = read_back(world, &proposed.change_set).await;
    (proposed, read)
}

/// Reads a change set back once it is made.
pub async fn read_back(world: &dyn Harness, change_set: &str) -> ChangeSet {
    for _ in 0..10_000 {
        let read = world.engine().review(change_set).await.unwrap();
        if read.status != ChangeSetStatus::Creating {
            return read;
        }
        world.pass(Duration::from_millis(50)).await;
    }
    panic!("{change_set} is never made");
}

/// Proposes and begins to execute.
pub async fn begin(world: &dyn Harness, proposal: &Proposal) -> StackId {
    let (proposed, read) = propose(world, proposal).await;
    assert_eq!(read.status, ChangeSetStatus::Available, "{read:?}");
    let token = format!("{}-x", proposal.token);
    world
        .engine()
        .execute(&proposed.change_set, &token)
        .await
        .unwrap();
    proposed.stack_id
}

/// Makes or updates a stack to the end; returns it as it then is.
pub async fn apply(world: &dyn Harness, stack: &str, template: &str) -> Observed {
    let proposal = proposal(world, stack, template).await;
    let id = begin(world, &proposal).await;
    settled(world, &id).await
}

/// The same with a choice of what a failure leaves.
pub async fn apply_or(
    world: &dyn Harness,
    stack: &str,
    template: &str,
    on_failure: OnFailure,
) -> Observed {
    let mut proposal = proposal(world, stack, template).await;
    proposal.on_failure = on_failure;
    let id = begin(world, &proposal).await;
    settled(world, &id).await
}

/// Describes a stack by its id.
pub async fn look(world: &dyn Harness, id: &StackId) -> Observed {
    let found = world.engine().describe(&StackRef::Id(id.clone())).await;
    found.unwrap().expect("by id a stack can be described")
}

/// Waits until a stack rests.
pub async fn settled(world: &dyn Harness, id: &StackId) -> Observed {
    for _ in 0..10_000 {
        let found = look(world, id).await;
        if found.status.is_settled() {
            return found;
        }
        world.pass(Duration::from_millis(50)).await;
    }
    panic!("{id} never rests");
}

/// Deletes a stack and waits.
pub async fn delete(world: &dyn Harness, id: &StackId, retain: &[&str]) -> Observed {
    let turn = TURN.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let retain: Vec<String> = retain.iter().map(|r| (*r).to_owned()).collect();
    let token = format!("delete-{turn}");
    world.engine().delete(id, &token, &retain).await.unwrap();
    settled(world, id).await
}

/// The states that a stack itself went through, from its first operation on: that there was a shell is not looked at.
pub async fn states(world: &dyn Harness, id: &StackId) -> Vec<String> {
    let events = world.engine().events(id, None).await.unwrap();
    events
        .into_iter()
        .filter(|e| e.physical.as_deref() == Some(id.as_str()))
        .map(|e| e.status)
        .filter(|s| s != "REVIEW_IN_PROGRESS")
        .collect()
}

/// The states that one resource went through.
pub async fn steps(world: &dyn Harness, id: &StackId, logical: &str) -> Vec<String> {
    let events = world.engine().events(id, None).await.unwrap();
    events
        .into_iter()
        .filter(|e| e.logical == logical)
        .map(|e| e.status)
        .collect()
}

/// Tells whether a call was refused for its content or its moment.
pub fn is_refused<T: std::fmt::Debug>(answer: Result<T, Error>) -> bool {
    match answer {
        Err(Error::Refused(_) | Error::Busy(_)) => true,
        other => panic!("not refused: {other:?}"),
    }
}
