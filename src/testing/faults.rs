//! Faults for simulations: wrappers round the ports and a plan of what fails, by the number of the call.
//!
//! The plan belongs to a thread, so that simulations run beside each other; everything that asks it runs on the thread
//! of the simulation's runtime.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::domain::estate::Placement;
use crate::domain::model::{Region, SourceName, StackId, StackName, Timestamp};
use crate::domain::pace::Urgency;
use crate::domain::plan::Observed;
use crate::domain::seal::{DataKey, EncryptedDataKey, EncryptionContext};
use crate::port::{
    Body, ChangeSet, ChangeSetSummary, Drift, Error, Forge, HintQueue, KeyService, ObjectMeta,
    ObjectStore, Page, Ports, Proposal, Proposed, Purpose, Put, Roles, StackEngine, StackEvent,
    StackRef, StackSummary, TemplateSummary, Traffic,
};

/// How a call fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The caller has no right to it any more.
    Denied,
    /// The connection breaks before anything has happened.
    Reset,
    /// The effect has happened and the answer is lost.
    Lost,
    /// Too many calls.
    Throttled,
    /// The answer makes no sense; the effect has happened.
    Malformed,
    /// The answer is one from before.
    Stale,
    /// It takes half a minute.
    Slow,
    /// The process dies before the effect.
    DeathBefore,
    /// The process dies after the effect.
    DeathAfter,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Denied,
        Self::Reset,
        Self::Lost,
        Self::Throttled,
        Self::Malformed,
        Self::Stale,
        Self::Slow,
        Self::DeathBefore,
        Self::DeathAfter,
    ];
}

/// A call that changed the world, or may have: what the checkers read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Effect {
    /// When, by the wall.
    pub at: Timestamp,
    /// `execute`, `delete`, `propose`, …
    pub call: &'static str,
    /// The change set or the stack.
    pub what: String,
    /// The token.
    pub token: String,
    /// Whether the world took it.
    pub taken: bool,
}

#[derive(Default)]
struct Plan {
    clock: Option<Clock>,
    calls: u64,
    /// What fails, by the number of the call.
    faults: BTreeMap<u64, Kind>,
    fired: Vec<(u64, String, Kind)>,
    ledger: Vec<Effect>,
    dead: bool,
    full: bool,
    death: Arc<Notify>,
    before: BTreeMap<String, Option<Observed>>,
}

thread_local! {
    static PLAN: RefCell<Plan> = RefCell::default();
    static RANDOM: Cell<Option<u64>> = const { Cell::new(None) };
    static MISSING: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn plan<T>(with: impl FnOnce(&mut Plan) -> T) -> T {
    PLAN.with(|p| with(&mut p.borrow_mut()))
}

/// Begins a simulation on this thread: no faults, an empty ledger, a seeded source of what is random.
pub fn begin(seed: u64, clock: &Clock) {
    plan(|p| {
        *p = Plan {
            clock: Some(clock.clone()),
            ..Plan::default()
        };
    });
    RANDOM.set(Some(seed | 1));
}

/// Ends it: the thread is as it was.
pub fn end() {
    plan(|p| *p = Plan::default());
    RANDOM.set(None);
    MISSING.with(|m| *m.borrow_mut() = None);
}

/// Lets a call fail, counted from now: 0 is the next.
pub fn arm(in_calls: u64, kind: Kind) {
    plan(|p| {
        let at = p.calls + in_calls;
        p.faults.insert(at, kind);
    });
}

/// Takes back what has not failed yet.
pub fn disarm() {
    plan(|p| p.faults.clear());
}

/// Fills the disk of the state database, or makes space again: while it is full nothing can be written.
pub fn fill(full: bool) {
    plan(|p| p.full = full);
}

/// Returns how many boundaries were passed.
pub fn calls() -> u64 {
    plan(|p| p.calls)
}

/// Returns what has failed.
pub fn fired() -> Vec<(u64, String, Kind)> {
    plan(|p| p.fired.clone())
}

/// Returns what changed the world.
pub fn ledger() -> Vec<Effect> {
    plan(|p| p.ledger.clone())
}

/// Waits until the process dies.
pub async fn death() {
    let (notify, dead) = plan(|p| (p.death.clone(), p.dead));
    if !dead {
        notify.notified().await;
    }
}

/// Tells whether the process died, and brings it back to life.
pub fn died() -> bool {
    plan(|p| {
        p.death = Arc::default();
        std::mem::take(&mut p.dead)
    })
}

/// Takes a guard away on this thread; `None` gives it back.
pub fn without(name: Option<&str>) {
    MISSING.with(|m| *m.borrow_mut() = name.map(str::to_owned));
}

pub(super) fn guard(name: &str) -> bool {
    MISSING.with(|m| m.borrow().as_deref() != Some(name))
}

/// Returns the next number of a seeded source: xorshift64*, which is enough to choose.
pub fn next_random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D)
}

pub(super) fn seeded<const N: usize>() -> Option<[u8; N]> {
    let mut state = RANDOM.get()?;
    let mut bytes = [0u8; N];
    for byte in &mut bytes {
        *byte = (next_random(&mut state) >> 32) as u8;
    }
    RANDOM.set(Some(state));
    Some(bytes)
}

/// Takes the next number and says what happens there.
fn next(name: &str) -> Option<Kind> {
    plan(|p| {
        let number = p.calls;
        p.calls += 1;
        let kind = p.faults.remove(&number)?;
        p.fired.push((number, name.to_owned(), kind));
        Some(kind)
    })
}

/// Dies: nothing of this process goes on. The driver drops it.
async fn die<T>() -> T {
    plan(|p| {
        p.dead = true;
        p.death.notify_one();
    });
    std::future::pending().await
}

fn clock() -> Option<Clock> {
    plan(|p| p.clock.clone())
}

pub(super) async fn at_store(side: &'static str) -> Result<(), String> {
    if clock().is_none() {
        return Ok(());
    }
    if side != "after" && plan(|p| p.full) {
        return Err("database or disk is full".to_owned());
    }
    match next(&format!("store.append.{side}")) {
        Some(Kind::DeathBefore | Kind::DeathAfter) => die().await,
        // No space, a fault of the disk, or the answer of a commit that is done.
        Some(Kind::Denied | Kind::Reset | Kind::Lost | Kind::Malformed) => {
            Err("database or disk is full".to_owned())
        }
        _ => Ok(()),
    }
}

/// Makes a call, or what the plan has in its place.
async fn call<T>(name: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match next(name) {
        None | Some(Kind::Stale) => work.await,
        Some(Kind::Denied) => Err(Error::Denied("the role lost its right".into())),
        Some(Kind::Reset) => Err(Error::Unavailable("connection reset".into())),
        Some(Kind::Throttled) => Err(Error::Throttled),
        Some(Kind::Lost) => {
            let _ = work.await;
            Err(Error::Unavailable("timeout".into()))
        }
        Some(Kind::Malformed) => {
            let _ = work.await;
            Err(Error::Unavailable("the answer cannot be read".into()))
        }
        Some(Kind::Slow) => {
            if let Some(clock) = clock() {
                clock.sleep(Duration::from_secs(30)).await;
            }
            work.await
        }
        Some(Kind::DeathBefore) => die().await,
        Some(Kind::DeathAfter) => {
            let _ = work.await;
            die().await
        }
    }
}

/// As [`call`], with an entry in the ledger when the world was asked.
async fn effect<T>(
    name: &'static str,
    what: &str,
    token: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let noted = async {
        let result = work.await;
        plan(|p| {
            p.ledger.push(Effect {
                at: p.clock.as_ref().map_or(Timestamp(0), Clock::now),
                call: name,
                what: what.to_owned(),
                token: token.to_owned(),
                taken: result.is_ok(),
            });
        });
        result
    };
    call(name, noted).await
}

/// Ports with faults before them.
pub struct Faulty {
    inner: Arc<dyn Ports>,
    sticky: Option<(String, Arc<dyn Roles>)>,
}

impl Faulty {
    /// Puts faults before ports.
    pub fn new(inner: Arc<dyn Ports>) -> Arc<Self> {
        let sticky = None;
        Arc::new(Self { inner, sticky })
    }

    /// Does the same in a world where every stack has a role, which is looked for among these.
    pub fn with_role(inner: Arc<dyn Ports>, role: &str, roles: Arc<dyn Roles>) -> Arc<Self> {
        let sticky = Some((role.to_owned(), roles));
        Arc::new(Self { inner, sticky })
    }

    fn before(&self, engine: Arc<dyn StackEngine>) -> Arc<dyn StackEngine> {
        let role = self.sticky.as_ref().map(|(role, _)| role.clone());
        Arc::new(FaultyEngine(engine, role))
    }
}

impl Ports for Faulty {
    fn engine(
        &self,
        placement: &Placement,
        region: &Region,
    ) -> Result<Arc<dyn StackEngine>, Error> {
        Ok(self.before(self.inner.engine(placement, region)?))
    }

    fn engine_for(
        &self,
        placement: &Placement,
        region: &Region,
        urgency: Urgency,
    ) -> Result<Arc<dyn StackEngine>, Error> {
        Ok(self.before(self.inner.engine_for(placement, region, urgency)?))
    }

    fn deploying(
        &self,
        placement: &Placement,
        region: &Region,
        purpose: &Purpose,
    ) -> Result<Arc<dyn StackEngine>, Error> {
        let inner = self.inner.deploying(placement, region, purpose)?;
        Ok(self.before(inner))
    }

    fn roles(&self, placement: &Placement, region: &Region) -> Option<Arc<dyn Roles>> {
        match &self.sticky {
            Some((_, roles)) => Some(roles.clone()),
            None => self.inner.roles(placement, region),
        }
    }

    fn hints(&self) -> Vec<Arc<dyn HintQueue>> {
        self.inner.hints()
    }

    fn traffic(&self) -> Vec<Traffic> {
        self.inner.traffic()
    }

    fn store(&self, placement: &Placement, region: &Region) -> Result<Arc<dyn ObjectStore>, Error> {
        Ok(Arc::new(FaultyStore(self.inner.store(placement, region)?)))
    }

    fn forge(&self, source: &SourceName) -> Option<Arc<dyn Forge>> {
        self.inner.forge(source)
    }

    fn shelf(&self, source: &SourceName) -> Option<Arc<dyn ObjectStore>> {
        let inner = self.inner.shelf(source)?;
        Some(Arc::new(FaultyStore(inner)))
    }

    fn home(&self) -> Arc<dyn ObjectStore> {
        Arc::new(FaultyStore(self.inner.home()))
    }

    fn root(&self) -> Option<Arc<dyn KeyService>> {
        let inner = self.inner.root()?;
        Some(Arc::new(FaultyKeys(inner)))
    }

    fn sealing(&self) -> Option<Arc<dyn KeyService>> {
        let inner = self.inner.sealing()?;
        Some(Arc::new(FaultyKeys(inner)))
    }

    fn signing(&self) -> Option<(String, Arc<dyn KeyService>)> {
        let (name, inner) = self.inner.signing()?;
        Some((name, Arc::new(FaultyKeys(inner))))
    }
}

struct FaultyEngine(Arc<dyn StackEngine>, Option<String>);

#[async_trait]
impl StackEngine for FaultyEngine {
    async fn list(&self, token: Option<&str>) -> Result<Page<StackSummary>, Error> {
        call("list", self.0.list(token)).await
    }

    async fn list_moving(&self, token: Option<&str>) -> Result<Page<StackSummary>, Error> {
        let stale = plan(|p| p.faults.get(&p.calls) == Some(&Kind::Stale));
        let mut page = call("list_moving", self.0.list_moving(token)).await?;
        // A listing that lags behind does not have what began to move.
        if stale {
            page.items.clear();
        }
        Ok(page)
    }

    async fn describe(&self, stack: &StackRef) -> Result<Option<Observed>, Error> {
        let key = format!("{stack:?}");
        let stale = plan(|p| p.faults.get(&p.calls) == Some(&Kind::Stale));
        let mut found = call("describe", self.0.describe(stack)).await?;
        if let (Some(found), Some(role)) = (&mut found, &self.1) {
            found.role = Some(role.clone());
        }
        Ok(plan(|p| {
            let before = p.before.insert(key, found.clone());
            // CloudFormation's reads may lag behind: what was read before is read again.
            match before {
                Some(before) if stale => before,
                _ => found,
            }
        }))
    }

    async fn template(&self, stack: &StackRef) -> Result<String, Error> {
        call("template", self.0.template(stack)).await
    }

    async fn change_set_template(&self, change_set: &str) -> Result<String, Error> {
        call(
            "change_set_template",
            self.0.change_set_template(change_set),
        )
        .await
    }

    async fn summary(&self, template_url: &str) -> Result<TemplateSummary, Error> {
        call("summary", self.0.summary(template_url)).await
    }

    async fn propose(&self, proposal: &Proposal) -> Result<Proposed, Error> {
        effect(
            "propose",
            &proposal.name,
            &proposal.token,
            self.0.propose(proposal),
        )
        .await
    }

    async fn find(&self, stack: &StackName, name: &str) -> Result<Option<Proposed>, Error> {
        call("find", self.0.find(stack, name)).await
    }

    async fn change_sets(
        &self,
        stack: &StackId,
        token: Option<&str>,
    ) -> Result<Page<ChangeSetSummary>, Error> {
        call("change_sets", self.0.change_sets(stack, token)).await
    }

    async fn review(&self, change_set: &str) -> Result<ChangeSet, Error> {
        call("review", self.0.review(change_set)).await
    }

    async fn execute(&self, change_set: &str, token: &str) -> Result<(), Error> {
        effect(
            "execute",
            change_set,
            token,
            self.0.execute(change_set, token),
        )
        .await
    }

    async fn cancel(&self, stack: &StackId, token: &str) -> Result<(), Error> {
        effect("cancel", stack.as_str(), token, self.0.cancel(stack, token)).await
    }

    async fn continue_rollback(
        &self,
        stack: &StackId,
        token: &str,
        skip: &[String],
    ) -> Result<(), Error> {
        let work = self.0.continue_rollback(stack, token, skip);
        effect("continue_rollback", stack.as_str(), token, work).await
    }

    async fn rollback(&self, stack: &StackId, token: &str) -> Result<(), Error> {
        effect(
            "rollback",
            stack.as_str(),
            token,
            self.0.rollback(stack, token),
        )
        .await
    }

    async fn delete(&self, stack: &StackId, token: &str, retain: &[String]) -> Result<(), Error> {
        let work = self.0.delete(stack, token, retain);
        effect("delete", stack.as_str(), token, work).await
    }

    async fn set_stack_policy(&self, stack: &StackId, policy: &str) -> Result<(), Error> {
        let work = self.0.set_stack_policy(stack, policy);
        effect("set_stack_policy", stack.as_str(), "", work).await
    }

    async fn stack_policy(&self, stack: &StackId) -> Result<Option<String>, Error> {
        call("stack_policy", self.0.stack_policy(stack)).await
    }

    async fn set_protection(&self, stack: &StackId, on: bool) -> Result<(), Error> {
        let work = self.0.set_protection(stack, on);
        effect("set_protection", stack.as_str(), "", work).await
    }

    async fn events(&self, stack: &StackId, after: Option<&str>) -> Result<Vec<StackEvent>, Error> {
        call("events", self.0.events(stack, after)).await
    }

    async fn drift(&self, stack: &StackId) -> Result<Vec<Drift>, Error> {
        call("drift", self.0.drift(stack)).await
    }

    async fn discard(&self, change_set: &str) -> Result<(), Error> {
        effect("discard", change_set, "", self.0.discard(change_set)).await
    }
}

struct FaultyStore(Arc<dyn ObjectStore>);

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put(&self, key: &str, body: Body, options: &Put) -> Result<ObjectMeta, Error> {
        call("put", self.0.put(key, body, options)).await
    }

    async fn get(&self, key: &str, version: Option<&str>) -> Result<(ObjectMeta, Body), Error> {
        call("get", self.0.get(key, version)).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, Error> {
        call("head", self.0.head(key)).await
    }

    async fn list(&self, prefix: &str, token: Option<&str>) -> Result<Page<ObjectMeta>, Error> {
        call("list-objects", self.0.list(prefix, token)).await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        call("delete-object", self.0.delete(key)).await
    }

    fn url(&self, key: &str, version: Option<&str>) -> String {
        self.0.url(key, version)
    }
}

struct FaultyKeys(Arc<dyn KeyService>);

#[async_trait]
impl KeyService for FaultyKeys {
    async fn data_key(
        &self,
        context: &EncryptionContext,
    ) -> Result<(DataKey, EncryptedDataKey), Error> {
        call("data_key", self.0.data_key(context)).await
    }

    async fn unwrap(
        &self,
        keys: &[EncryptedDataKey],
        context: &EncryptionContext,
    ) -> Result<DataKey, Error> {
        call("unwrap", self.0.unwrap(keys, context)).await
    }

    async fn rewrap(
        &self,
        key: &EncryptedDataKey,
        context: &EncryptionContext,
    ) -> Result<EncryptedDataKey, Error> {
        call("rewrap", self.0.rewrap(key, context)).await
    }

    async fn describe(&self) -> Result<String, Error> {
        call("describe-key", self.0.describe()).await
    }

    async fn public_key(&self) -> Result<Vec<u8>, Error> {
        call("public-key", self.0.public_key()).await
    }

    async fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        call("sign", self.0.sign(bytes)).await
    }
}
