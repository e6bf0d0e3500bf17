//! Services that cost next to nothing and count every call: what is measured beside them is isoform's own.
//!
//! No model of CloudFormation: a change set holds one change, an execution is done when it is asked for. What a stack
//! is belongs to `local`, whose embedded engine is tested; here only the far side's cost is taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use crate::clock::Clock;
use crate::domain::estate::Placement;
use crate::domain::model::{
    AccountId, PlacementName, Region, StackId, StackName, Timestamp, sha256_hex,
};
use crate::domain::plan::{Action, Change, ChangeSetStatus, Observed, Replacement, StackStatus};
use crate::port::{
    Body, ChangeSet, ChangeSetSummary, Drift, Encryption, Error, KeyService, ObjectMeta,
    ObjectStore, Page, Ports, Proposal, Proposed, Put, StackEngine, StackEvent, StackRef,
    StackSummary, TemplateSummary, body,
};

/// How many stacks a page of a listing has, as CloudFormation's.
const PAGE: usize = 100;

/// The far side: stacks, change sets and objects in memory, and how often each call was made.
#[derive(Clone, Default)]
pub struct Stub(Arc<Inner>);

#[derive(Default)]
struct Inner {
    world: Mutex<World>,
    calls: Mutex<BTreeMap<&'static str, u64>>,
    clock: AtomicU64,
    /// Bytes of objects that were given out.
    read: AtomicU64,
    watch: Mutex<Option<Watch>>,
    /// Placements whose hands may list nothing.
    denied: Mutex<BTreeSet<PlacementName>>,
    slow: Mutex<Option<Slow>>,
    /// Whether every description is one too many.
    throttled: AtomicBool,
    /// Whether nobody may describe a stack.
    blind: AtomicBool,
}

/// How long operations take, and how often they may be looked at.
struct Slow {
    clock: Clock,
    least: Duration,
    takes: Box<dyn Fn(&StackName) -> Duration + Send>,
}

/// Told of every call, before it is answered.
pub type Watch = Box<dyn Fn(&'static str) + Send>;

#[derive(Default, Serialize, Deserialize)]
struct World {
    stacks: BTreeMap<String, Stack>,
    by_name: BTreeMap<String, String>,
    sets: BTreeMap<String, Set>,
    objects: BTreeMap<String, (String, Vec<u8>)>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Stack {
    name: StackName,
    place: String,
    status: StackStatus,
    operations: u64,
    updated: Option<Timestamp>,
    last: Option<String>,
    /// When an operation ends, and with which status.
    #[serde(default)]
    ends: Option<(Timestamp, StackStatus)>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Set {
    stack: String,
    name: String,
    url: String,
    executed: bool,
}

impl Stub {
    /// Returns how often each call was made since the last time this was asked.
    pub fn take_calls(&self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.0.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns how many bytes of objects were read since the last time this was asked.
    pub fn take_read(&self) -> u64 {
        self.0.read.swap(0, Ordering::Relaxed)
    }

    /// Returns how many stacks there are.
    pub fn stacks(&self) -> usize {
        self.world().stacks.len()
    }

    /// Writes what is there to a file, without the texts that only a deployment in motion needs.
    pub fn save(&self, path: &std::path::Path) -> std::io::Result<()> {
        let mut world = self.world();
        world.sets.clear();
        world.objects.retain(|key, _| !key.contains("rendered/"));
        let bytes = serde_json::to_vec(&*world)?;
        std::fs::write(path, bytes)
    }

    /// Reads what was saved.
    pub fn load(path: &std::path::Path) -> std::io::Result<Self> {
        let world: World = serde_json::from_slice(&std::fs::read(path)?)?;
        let operations: u64 = world.stacks.values().map(|s| s.operations).sum();
        let stub = Self::default();
        stub.0
            .clock
            .store(1_000_000 + operations, Ordering::Relaxed);
        *stub.world() = world;
        Ok(stub)
    }

    fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.0.world.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slow) = &*self.0.slow.lock().unwrap_or_else(PoisonError::into_inner) {
            let now = slow.clock.steady();
            for stack in world.stacks.values_mut() {
                if let Some((at, status)) = &stack.ends
                    && *at <= now
                    && stack.status != *status
                {
                    stack.status = status.clone();
                }
            }
        }
        world
    }

    /// Says who is told of every call from now on.
    pub fn watch(&self, watch: Watch) {
        *self.0.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch);
    }

    /// Lets operations take time from now on; whoever looks is asked to wait so long in between.
    pub fn slow(
        &self,
        clock: Clock,
        least: Duration,
        takes: impl Fn(&StackName) -> Duration + Send + 'static,
    ) {
        *self.0.slow.lock().unwrap_or_else(PoisonError::into_inner) = Some(Slow {
            clock,
            least,
            takes: Box::new(takes),
        });
    }

    /// Says whether nobody may describe a stack from now on.
    pub fn deny_descriptions(&self, on: bool) {
        self.0.blind.store(on, Ordering::Relaxed);
    }

    /// Says whether every description is refused for being one too many from now on.
    pub fn throttle(&self, on: bool) {
        self.0.throttled.store(on, Ordering::Relaxed);
    }

    /// Returns when operations ended or will end, by stack and the time that only goes forward.
    pub fn ends(&self) -> BTreeMap<StackName, Timestamp> {
        let world = self.world();
        let ends = world.stacks.values();
        ends.filter_map(|s| Some((s.name.clone(), s.ends.as_ref()?.0)))
            .collect()
    }

    /// Says with the hands of which placements nothing can be listed from now on.
    pub fn deny_lists(&self, placements: impl IntoIterator<Item = PlacementName>) {
        let mut denied = self.0.denied.lock().unwrap_or_else(PoisonError::into_inner);
        *denied = placements.into_iter().collect();
    }

    /// Begins to create a stack, as somebody else would; returns its ARN.
    pub fn begin(&self, account: &str, region: &str, name: &str) -> StackId {
        let name: StackName = name.parse().expect("a name of a stack");
        let engine = Engine {
            stub: self.clone(),
            placement: None,
            account: account.to_owned(),
            region: region.to_owned(),
        };
        let id = engine.id(&name);
        let mut stack = Stack {
            name,
            place: engine.place(),
            status: StackStatus::ReviewInProgress,
            operations: 1,
            updated: Some(self.tick()),
            last: None,
            ends: None,
        };
        self.run(&mut stack);
        self.world().stacks.insert(id.clone(), stack);
        stack_id(&id).expect("an ARN of a stack")
    }

    /// Lets an operation run, or be done where nothing takes time.
    fn run(&self, stack: &mut Stack) {
        let (during, after) = match stack.status {
            StackStatus::ReviewInProgress => {
                (StackStatus::CreateInProgress, StackStatus::CreateComplete)
            }
            _ => (StackStatus::UpdateInProgress, StackStatus::UpdateComplete),
        };
        let slow = self.0.slow.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slow {
            Some(slow) => {
                let ends = slow.clock.steady().plus((slow.takes)(&stack.name));
                stack.status = during;
                stack.ends = Some((ends, after));
            }
            None => stack.status = after,
        }
    }

    /// Returns the names and ARNs of all stacks.
    pub fn ids(&self) -> Vec<(StackName, String)> {
        let world = self.world();
        let all = world.stacks.iter();
        all.map(|(id, stack)| (stack.name.clone(), id.clone()))
            .collect()
    }

    /// Returns the engine of an account and region, for whoever has no placement.
    pub fn engine_of(&self, account: &str, region: &str) -> Arc<dyn StackEngine> {
        Arc::new(Engine {
            stub: self.clone(),
            placement: None,
            account: account.to_owned(),
            region: region.to_owned(),
        })
    }

    /// Updates every stack of an account, as somebody else would.
    pub fn meddle(&self, account: &AccountId) {
        let at = self.tick();
        let place = format!("{account}/");
        let mut world = self.world();
        let stacks = world.stacks.values_mut();
        for stack in stacks.filter(|s| s.place.starts_with(&place)) {
            stack.updated = Some(at);
            stack.operations += 1;
        }
    }

    fn count(&self, call: &'static str) {
        if let Some(watch) = &*self.0.watch.lock().unwrap_or_else(PoisonError::into_inner) {
            watch(call);
        }
        *self
            .0
            .calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(call)
            .or_default() += 1;
    }

    fn tick(&self) -> Timestamp {
        Timestamp(self.0.clock.fetch_add(1, Ordering::Relaxed) as i64 + 1)
    }
}

impl Ports for Stub {
    fn engine(
        &self,
        placement: &Placement,
        region: &Region,
    ) -> Result<Arc<dyn StackEngine>, Error> {
        Ok(Arc::new(Engine {
            stub: self.clone(),
            placement: Some(placement.name.clone()),
            account: placement.account.to_string(),
            region: region.to_string(),
        }))
    }

    fn store(&self, _: &Placement, _: &Region) -> Result<Arc<dyn ObjectStore>, Error> {
        Ok(self.home())
    }

    fn home(&self) -> Arc<dyn ObjectStore> {
        Arc::new(Objects(self.clone()))
    }

    fn sealing(&self) -> Option<Arc<dyn KeyService>> {
        None
    }
}

struct Engine {
    stub: Stub,
    placement: Option<PlacementName>,
    account: String,
    region: String,
}

impl Engine {
    fn place(&self) -> String {
        format!("{}/{}", self.account, self.region)
    }

    fn id(&self, name: &StackName) -> String {
        let unique = sha256_hex(name.as_str().as_bytes());
        format!(
            "arn:aws:cloudformation:{}:{}:stack/{name}/{}",
            self.region,
            self.account,
            &unique[..36]
        )
    }

    fn outputs(stack: &Stack) -> BTreeMap<String, String> {
        let name = &stack.name;
        if name.as_str().contains("-env-") {
            [
                ("VpcId", format!("vpc-{name}")),
                (
                    "TopicArn",
                    format!("arn:aws:sns:us-east-1:000000000001:{name}"),
                ),
            ]
            .map(|(k, v)| (k.to_owned(), v))
            .into()
        } else {
            BTreeMap::from([(
                "Queue0Url".to_owned(),
                format!("https://sqs.example/{name}"),
            )])
        }
    }

    fn page(
        &self,
        token: Option<&str>,
        wanted: impl Fn(&Stack) -> bool,
    ) -> Result<Page<StackSummary>, Error> {
        self.stub.count("ListStacks");
        let denied = self.stub.0.denied.lock();
        let denied = denied.unwrap_or_else(PoisonError::into_inner);
        if self.placement.as_ref().is_some_and(|p| denied.contains(p)) {
            return Err(Error::Denied("ListStacks".into()));
        }
        let world = self.stub.world();
        let from = token.unwrap_or_default().to_owned();
        let place = self.place();
        let mut items = Vec::new();
        let mut next = None;
        let here = world.stacks.range(from..);
        for (id, stack) in here.filter(|(_, s)| s.place == place && wanted(s)) {
            if items.len() == PAGE {
                next = Some(id.clone());
                break;
            }
            items.push(StackSummary {
                stack_id: stack_id(id)?,
                name: stack.name.clone(),
                status: stack.status.clone(),
                updated: stack.updated,
                operation: Self::operation(stack),
            });
        }
        Ok(Page { items, next })
    }

    fn operation(stack: &Stack) -> Option<String> {
        (stack.operations > 0).then(|| format!("op-{}", stack.operations))
    }
}

fn stack_id(text: &str) -> Result<StackId, Error> {
    text.parse()
        .map_err(|_| Error::Untrusted("a stack's ARN".into()))
}

#[async_trait]
impl StackEngine for Engine {
    async fn list(&self, token: Option<&str>) -> Result<Page<StackSummary>, Error> {
        self.page(token, |_| true)
    }

    async fn list_moving(&self, token: Option<&str>) -> Result<Page<StackSummary>, Error> {
        self.page(token, |s| !s.status.is_settled())
    }

    fn least_wait(&self) -> Duration {
        let slow = self.stub.0.slow.lock();
        let slow = slow.unwrap_or_else(PoisonError::into_inner);
        slow.as_ref().map(|s| s.least).unwrap_or_default()
    }

    async fn describe(&self, stack: &StackRef) -> Result<Option<Observed>, Error> {
        self.stub.count("DescribeStacks");
        if self.stub.0.throttled.load(Ordering::Relaxed) {
            return Err(Error::Throttled);
        }
        if self.stub.0.blind.load(Ordering::Relaxed) {
            return Err(Error::Denied("DescribeStacks".into()));
        }
        let world = self.stub.world();
        let id = match stack {
            StackRef::Id(id) => id.to_string(),
            StackRef::Name(name) => self.id(name),
        };
        let Some(found) = world.stacks.get(&id) else {
            return Ok(None);
        };
        Ok(Some(Observed {
            stack_id: stack_id(&id)?,
            name: found.name.clone(),
            status: found.status.clone(),
            status_reason: None,
            updated: found.updated,
            operation: Self::operation(found),
            parameters: BTreeMap::new(),
            tags: BTreeMap::new(),
            outputs: Self::outputs(found),
            notification_arns: Vec::new(),
            termination_protection: false,
            last_change_set: found.last.clone(),
            role: None,
            parent: None,
        }))
    }

    async fn template(&self, _: &StackRef) -> Result<String, Error> {
        Err(Error::Unsupported("GetTemplate of a stack"))
    }

    async fn change_set_template(&self, change_set: &str) -> Result<String, Error> {
        self.stub.count("GetTemplate");
        let world = self.stub.world();
        let set = world
            .sets
            .get(change_set)
            .ok_or_else(|| Error::NotFound(change_set.to_owned()))?;
        let key = set.url.trim_start_matches("stub://");
        let (_, bytes) = world
            .objects
            .get(key)
            .ok_or_else(|| Error::NotFound(key.to_owned()))?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    async fn summary(&self, _: &str) -> Result<TemplateSummary, Error> {
        Err(Error::Unsupported("GetTemplateSummary"))
    }

    async fn propose(&self, proposal: &Proposal) -> Result<Proposed, Error> {
        self.stub.count("CreateChangeSet");
        let id = self.id(&proposal.stack);
        let change_set = format!("{}/{id}", proposal.name);
        let mut world = self.stub.world();
        world.stacks.entry(id.clone()).or_insert_with(|| Stack {
            name: proposal.stack.clone(),
            place: self.place(),
            status: StackStatus::ReviewInProgress,
            operations: 0,
            updated: None,
            last: None,
            ends: None,
        });
        world.by_name.insert(proposal.stack.to_string(), id.clone());
        let set = Set {
            stack: id.clone(),
            name: proposal.name.clone(),
            url: proposal.template_url.clone(),
            executed: false,
        };
        if world.sets.insert(change_set.clone(), set).is_some() {
            return Err(Error::Exists(proposal.name.clone()));
        }
        Ok(Proposed {
            change_set,
            stack_id: stack_id(&id)?,
        })
    }

    async fn find(&self, stack: &StackName, name: &str) -> Result<Option<Proposed>, Error> {
        self.stub.count("ListChangeSets");
        let id = self.id(stack);
        let change_set = format!("{name}/{id}");
        let there = self.stub.world().sets.contains_key(&change_set);
        there
            .then(|| {
                Ok(Proposed {
                    change_set,
                    stack_id: stack_id(&id)?,
                })
            })
            .transpose()
    }

    async fn change_sets(
        &self,
        stack: &StackId,
        _: Option<&str>,
    ) -> Result<Page<ChangeSetSummary>, Error> {
        self.stub.count("ListChangeSets");
        let world = self.stub.world();
        let here = world.sets.iter().filter(|(_, s)| s.stack == stack.as_str());
        let items = here.map(|(id, set)| ChangeSetSummary {
            change_set: id.clone(),
            name: set.name.clone(),
            status: if set.executed {
                ChangeSetStatus::Executed
            } else {
                ChangeSetStatus::Available
            },
        });
        Ok(Page {
            items: items.collect(),
            next: None,
        })
    }

    async fn review(&self, change_set: &str) -> Result<ChangeSet, Error> {
        self.stub.count("DescribeChangeSet");
        let world = self.stub.world();
        let set = world
            .sets
            .get(change_set)
            .ok_or_else(|| Error::NotFound(change_set.to_owned()))?;
        let status = if set.executed {
            ChangeSetStatus::Executed
        } else {
            ChangeSetStatus::Available
        };
        Ok(ChangeSet {
            status,
            reason: None,
            changes: vec![Change {
                logical: "Param3".into(),
                kind: "AWS::SSM::Parameter".into(),
                physical: None,
                action: Action::Modify,
                replacement: Replacement::Never,
                policy: None,
                properties: Vec::new(),
            }],
            complete: true,
            capabilities: Vec::new(),
        })
    }

    async fn execute(&self, change_set: &str, _: &str) -> Result<(), Error> {
        self.stub.count("ExecuteChangeSet");
        let now = self.stub.tick();
        let mut world = self.stub.world();
        let set = world
            .sets
            .get_mut(change_set)
            .ok_or_else(|| Error::NotFound(change_set.to_owned()))?;
        if set.executed {
            return Err(Error::AlreadyAccepted);
        }
        set.executed = true;
        let (id, name, url) = (set.stack.clone(), set.name.clone(), set.url.clone());
        if let Some(stack) = world.stacks.get_mut(&id) {
            self.stub.run(stack);
            stack.operations += 1;
            stack.updated = Some(now);
            stack.last = Some(name);
        }
        // Nobody reads the text of what has run; a measured process is not to hold it.
        world.objects.remove(url.trim_start_matches("stub://"));
        Ok(())
    }

    async fn cancel(&self, _: &StackId, _: &str) -> Result<(), Error> {
        Err(Error::Unsupported("CancelUpdateStack"))
    }

    async fn continue_rollback(&self, _: &StackId, _: &str, _: &[String]) -> Result<(), Error> {
        Err(Error::Unsupported("ContinueUpdateRollback"))
    }

    async fn rollback(&self, _: &StackId, _: &str) -> Result<(), Error> {
        Err(Error::Unsupported("RollbackStack"))
    }

    async fn delete(&self, stack: &StackId, _: &str, _: &[String]) -> Result<(), Error> {
        self.stub.count("DeleteStack");
        self.stub.world().stacks.remove(stack.as_str());
        Ok(())
    }

    async fn set_stack_policy(&self, _: &StackId, _: &str) -> Result<(), Error> {
        Err(Error::Unsupported("SetStackPolicy"))
    }

    async fn stack_policy(&self, _: &StackId) -> Result<Option<String>, Error> {
        Err(Error::Unsupported("GetStackPolicy"))
    }

    async fn set_protection(&self, _: &StackId, _: bool) -> Result<(), Error> {
        Err(Error::Unsupported("UpdateTerminationProtection"))
    }

    async fn events(&self, _: &StackId, _: Option<&str>) -> Result<Vec<StackEvent>, Error> {
        self.stub.count("DescribeStackEvents");
        Ok(Vec::new())
    }

    async fn drift(&self, _: &StackId) -> Result<Vec<Drift>, Error> {
        Err(Error::Unsupported("DetectStackDrift"))
    }

    async fn discard(&self, change_set: &str) -> Result<(), Error> {
        self.stub.count("DeleteChangeSet");
        self.stub.world().sets.remove(change_set);
        Ok(())
    }
}

struct Objects(Stub);

fn meta(key: &str, etag: &str, size: usize) -> ObjectMeta {
    ObjectMeta {
        key: key.to_owned(),
        version: None,
        etag: etag.to_owned(),
        size: size as u64,
        sha256: None,
        encryption: Some(Encryption::Store),
        metadata: BTreeMap::new(),
    }
}

#[async_trait]
impl ObjectStore for Objects {
    async fn put(&self, key: &str, mut body: Body, options: &Put) -> Result<ObjectMeta, Error> {
        self.0.count("PutObject");
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes)
            .await
            .map_err(|e| Error::Unavailable(e.to_string()))?;
        let mut world = self.0.world();
        if options.if_absent && world.objects.contains_key(key) {
            return Err(Error::Exists(key.to_owned()));
        }
        let etag = bytes.len().to_string();
        let out = meta(key, &etag, bytes.len());
        world.objects.insert(key.to_owned(), (etag, bytes));
        Ok(out)
    }

    async fn get(&self, key: &str, _: Option<&str>) -> Result<(ObjectMeta, Body), Error> {
        self.0.count("GetObject");
        let world = self.0.world();
        let (etag, bytes) = world
            .objects
            .get(key)
            .ok_or_else(|| Error::NotFound(key.to_owned()))?;
        self.0
            .0
            .read
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok((meta(key, etag, bytes.len()), body(bytes.clone())))
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, Error> {
        self.0.count("HeadObject");
        let world = self.0.world();
        Ok(world.objects.get(key).map(|(etag, bytes)| ObjectMeta {
            sha256: Some(sha256_hex(bytes)),
            ..meta(key, etag, bytes.len())
        }))
    }

    async fn list(&self, prefix: &str, _: Option<&str>) -> Result<Page<ObjectMeta>, Error> {
        self.0.count("ListObjects");
        let world = self.0.world();
        let items = world
            .objects
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, (etag, bytes))| meta(key, etag, bytes.len()))
            .collect();
        Ok(Page { items, next: None })
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.0.count("DeleteObject");
        self.0.world().objects.remove(key);
        Ok(())
    }

    fn url(&self, key: &str, _: Option<&str>) -> String {
        format!("stub://{key}")
    }
}
