//! The reference model of CloudFormation behind its port.
//!
//! This file has what every call needs: finding a stack, letting what is due happen to it, beginning an operation.
//! The calls themselves are in `reads`, `changesets` and `lifecycle`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Row, Sqlite, Transaction};

use super::faults::Faults;
use super::model::{Before, Effect, Form, Stack, Step};
use super::physical::own_name;
use super::schedule::{Neighbours, Schedule};
use super::world::{Failure, World, WorldError, all, get, put, remove};
use crate::domain::model::{AccountId, Region, StackId, StackName, sha256_hex};
use crate::domain::plan::{Observed, StackStatus, StatusClass};
use crate::port::{
    ChangeSet, ChangeSetSummary, Drift, Error, Page, Proposal, Proposed, StackEngine, StackEvent,
    StackRef, StackSummary, TemplateSummary,
};

/// CloudFormation of one account and region in a local world.
pub struct LocalEngine {
    pub(super) world: World,
    pub(super) account: AccountId,
    pub(super) region: Region,
}

/// Records of what exists by name.
const EXISTS: &str = "exists";

pub(super) type Tx = Transaction<'static, Sqlite>;

impl LocalEngine {
    /// Opens the engine of an account and region.
    pub fn new(world: World, account: AccountId, region: Region) -> Self {
        Self {
            world,
            account,
            region,
        }
    }

    pub(super) fn place(&self) -> String {
        format!("{}/{}", self.account, self.region)
    }

    pub(super) async fn load(
        &self,
        tx: &mut Tx,
        stack: &StackRef,
    ) -> Result<Option<Stack>, WorldError> {
        let id = match stack {
            StackRef::Id(id) => id.to_string(),
            StackRef::Name(name) => {
                match get::<String>(tx, "name", &format!("{}/{name}", self.place())).await? {
                    Some(id) => id,
                    None => return Ok(None),
                }
            }
        };
        let Some(mut found) = get::<Stack>(tx, "stack", &id).await? else {
            return Ok(None);
        };
        // The operation of a nested stack is written down at the top.
        if let Some(root) = &found.root {
            if let Some(mut top) = get::<Stack>(tx, "stack", root.as_str()).await? {
                self.settle(tx, &mut top).await?;
            }
            match get::<Stack>(tx, "stack", &id).await? {
                Some(now) => found = now,
                None => return Ok(None),
            }
        } else {
            self.settle(tx, &mut found).await?;
        }
        if matches!(stack, StackRef::Name(_)) && found.status.class() == StatusClass::Gone {
            return Ok(None);
        }
        Ok(Some(found))
    }

    /// Reads a stack as a call that only reads does: perhaps as it was a moment ago.
    pub(super) async fn read(
        &self,
        tx: &mut Tx,
        stack: &StackRef,
        faults: &Faults,
    ) -> Result<Option<Stack>, WorldError> {
        let found = self.load(tx, stack).await?;
        let (true, Some(now)) = (faults.stale_ms > 0, &found) else {
            return Ok(found);
        };
        match get::<Before>(tx, "before", now.id.as_str()).await? {
            Some(before) if self.world.clock.now() < before.until => Ok(before.stack),
            _ => Ok(found),
        }
    }

    /// Remembers how a stack is before it moves, where reads are to be stale.
    pub(super) async fn remember(
        &self,
        tx: &mut Tx,
        id: &StackId,
        stack: Option<&Stack>,
    ) -> Result<(), WorldError> {
        let faults: Option<Faults> = get(tx, "setting", "faults").await?;
        let Some(faults) = faults.filter(|f| f.stale_ms > 0) else {
            return Ok(());
        };
        let before = Before {
            until: self
                .world
                .clock
                .now()
                .plus(Duration::from_millis(faults.stale_ms)),
            stack: stack.cloned(),
        };
        put(tx, "before", id.as_str(), "", &before).await
    }

    /// Loads a stack that must be there.
    pub(super) async fn stack(&self, tx: &mut Tx, id: &StackId) -> Result<Stack, Error> {
        self.load(tx, &StackRef::Id(id.clone()))
            .await?
            .ok_or_else(|| Error::NotFound(format!("Stack [{id}]")))
    }

    /// Lets everything happen that is due, to a stack and to its nested ones.
    pub(super) async fn settle(&self, tx: &mut Tx, top: &mut Stack) -> Result<(), WorldError> {
        let due = top.take_due(self.world.clock.now());
        if due.is_empty() {
            return Ok(());
        }
        let mut nested: BTreeMap<StackId, Stack> = BTreeMap::new();
        let mut events: BTreeMap<StackId, Vec<StackEvent>> = BTreeMap::new();
        for step in due {
            for effect in &step.effects {
                if let Effect::Born(child) = effect {
                    nested.insert(child.id.clone(), (**child).clone());
                }
            }
            let id = step.of.clone().unwrap_or_else(|| top.id.clone());
            match &step.of {
                None => top.apply(&step),
                Some(of) => {
                    if !nested.contains_key(of)
                        && let Some(child) = get::<Stack>(tx, "stack", of.as_str()).await?
                    {
                        nested.insert(of.clone(), child);
                    }
                    if let Some(child) = nested.get_mut(of) {
                        child.apply(&step);
                    }
                }
            }
            self.note_existence(tx, &step).await?;
            events.entry(id).or_default().push(step.event);
        }
        for (id, events) in &events {
            self.append(tx, id, events).await?;
        }
        for child in nested.values() {
            self.save(tx, child).await?;
        }
        self.save(tx, top).await
    }

    fn existence(&self, kind: &str, physical: &str) -> String {
        format!("{}|{kind}|{physical}", self.place())
    }

    /// Keeps what exists in the account and region under a name of its own, or was retained: names can clash, and what
    /// was retained can be imported.
    async fn note_existence(&self, tx: &mut Tx, step: &Step) -> Result<(), WorldError> {
        let event = &step.event;
        let Some(physical) = event.physical.as_deref() else {
            return Ok(());
        };
        let key = self.existence(&event.kind, physical);
        let named = step.effects.iter().any(|e| {
            matches!(e, Effect::Put(_, state) if own_name(&state.kind, &state.properties).is_some())
        });
        match event.status.as_str() {
            "CREATE_COMPLETE" | "IMPORT_COMPLETE" | "UPDATE_COMPLETE" if named => {
                put(tx, EXISTS, &key, "", &event.logical).await
            }
            "DELETE_SKIPPED" | "IMPORT_ROLLBACK_COMPLETE" => {
                put(tx, EXISTS, &key, "", &event.logical).await
            }
            "DELETE_COMPLETE" => remove(tx, EXISTS, &key).await,
            _ => Ok(()),
        }
    }

    /// Tells whether a resource exists under its own name, or was retained.
    pub(super) async fn exists(
        &self,
        tx: &mut Tx,
        kind: &str,
        physical: &str,
    ) -> Result<bool, WorldError> {
        let key = self.existence(kind, physical);
        Ok(get::<String>(tx, EXISTS, &key).await?.is_some())
    }

    pub(super) async fn save(&self, tx: &mut Tx, stack: &Stack) -> Result<(), WorldError> {
        put(tx, "stack", stack.id.as_str(), &self.place(), stack).await?;
        let name = format!("{}/{}", self.place(), stack.name);
        if stack.status.class() == StatusClass::Gone {
            // Somebody may have the name again.
            if get::<String>(tx, "name", &name).await?.as_deref() == Some(stack.id.as_str()) {
                remove(tx, "name", &name).await?;
            }
            Ok(())
        } else {
            put(tx, "name", &name, "", &stack.id.to_string()).await
        }
    }

    async fn append(
        &self,
        tx: &mut Tx,
        stack: &StackId,
        events: &[StackEvent],
    ) -> Result<(), WorldError> {
        let row = sqlx::query("SELECT COALESCE(MAX(number), 0) FROM events WHERE stack = $1")
            .bind(stack.as_str())
            .fetch_one(&mut **tx)
            .await?;
        let mut number: i64 = row.try_get(0)?;
        for event in events {
            number += 1;
            sqlx::query("INSERT INTO events (stack, number, body) VALUES ($1, $2, $3)")
                .bind(stack.as_str())
                .bind(number)
                .bind(serde_json::to_string(event)?)
                .execute(&mut **tx)
                .await?;
        }
        Ok(())
    }

    /// A stack and everything nested in it, the stack first.
    pub(super) async fn tree(&self, tx: &mut Tx, top: &Stack) -> Result<Vec<Stack>, WorldError> {
        let mut tree = vec![top.clone()];
        let mut at = 0;
        while at < tree.len() {
            let stack = &tree[at];
            let stable = stack.stable.iter().flat_map(|s| s.resources.values());
            let leaving = stack.leaving.iter().map(|(_, r)| r);
            let ids: BTreeSet<String> = stack
                .resources
                .values()
                .chain(stable)
                .chain(leaving)
                .filter(|r| r.kind == super::schedule::NESTED)
                .filter_map(|r| r.physical.clone())
                .collect();
            for id in ids {
                if !tree.iter().any(|s| s.id.as_str() == id)
                    && let Some(child) = get::<Stack>(tx, "stack", &id).await?
                {
                    tree.push(child);
                }
            }
            at += 1;
        }
        Ok(tree)
    }

    async fn others(&self, tx: &mut Tx, top: &Stack) -> Result<Vec<Stack>, WorldError> {
        let stacks: Vec<Stack> = all(tx, "stack", Some(&self.place())).await?;
        Ok(stacks
            .into_iter()
            .filter(|s| {
                s.status.class() != StatusClass::Gone
                    && s.id != top.id
                    && s.root.as_ref() != Some(&top.id)
            })
            .collect())
    }

    /// Exports of the other stacks: read only where a template asks for one, as that reads every stack.
    pub(super) async fn exports(
        &self,
        tx: &mut Tx,
        top: &Stack,
    ) -> Result<BTreeMap<String, String>, WorldError> {
        let others = self.others(tx, top).await?;
        Ok(others.into_iter().flat_map(|s| s.form.exports).collect())
    }

    async fn neighbours(&self, tx: &mut Tx, top: &Stack) -> Result<Neighbours, WorldError> {
        let mut out = Neighbours::default();
        for other in self.others(tx, top).await? {
            let name = other.name.to_string();
            for export in other.form.exports.keys() {
                out.exported_by.insert(export.clone(), name.clone());
            }
            for export in &other.form.imports {
                out.read_by
                    .entry(export.clone())
                    .or_default()
                    .push(name.clone());
            }
        }
        Ok(out)
    }

    /// Begins an operation: plans it to its end, and lets happen what happens at once.
    pub(super) async fn begin(
        &self,
        tx: &mut Tx,
        stack: &mut Stack,
        token: &str,
        goal: Option<&Form>,
        plan: impl FnOnce(&mut Schedule<'_>),
    ) -> Result<(), WorldError> {
        self.remember(tx, &stack.id, Some(&*stack)).await?;
        let tree = self.tree(tx, stack).await?;
        let shares = !stack.form.exports.is_empty() || goal.is_some_and(|g| !g.exports.is_empty());
        let neighbours = if shares {
            self.neighbours(tx, stack).await?
        } else {
            Neighbours::default()
        };
        let before: Vec<Failure> = all(tx, "failure", None).await?;
        let mut failures = before.clone();
        let mut schedule = Schedule::new(
            tree,
            token,
            self.world.clock.now(),
            self.world.pace,
            &mut failures,
            &neighbours,
        );
        plan(&mut schedule);
        stack.running = Some(schedule.end());
        for (old, new) in before.iter().zip(&failures).filter(|(a, b)| a != b) {
            if new.times == Some(0) {
                remove(tx, "failure", &old.id()).await?;
            } else {
                put(tx, "failure", &old.id(), "", new).await?;
            }
        }
        self.settle(tx, stack).await
    }

    pub(super) fn new_id(&self, name: &StackName) -> StackId {
        let now = self.world.clock.now();
        let hash = sha256_hex(format!("{}|{name}|{now}", self.place()).as_bytes());
        let uuid = format!(
            "{}-{}-{}-{}-{}",
            &hash[..8],
            &hash[8..12],
            &hash[12..16],
            &hash[16..20],
            &hash[20..32]
        );
        let id = format!(
            "arn:aws:cloudformation:{}:{}:stack/{name}/{uuid}",
            self.region, self.account
        );
        id.parse()
            .unwrap_or_else(|_| unreachable!("the ARN is made of checked parts"))
    }

    pub(super) fn shell(&self, name: &StackName) -> Stack {
        Stack {
            id: self.new_id(name),
            name: name.clone(),
            region: self.region.to_string(),
            account: self.account.to_string(),
            parent: None,
            root: None,
            status: StackStatus::ReviewInProgress,
            reason: Some("User Initiated".into()),
            updated: None,
            operations: 0,
            form: Form::default(),
            policy: None,
            protected: false,
            resources: BTreeMap::new(),
            actual: BTreeMap::new(),
            stable: None,
            leaving: Vec::new(),
            last_change_set: None,
            token: None,
            running: None,
        }
    }
}

#[async_trait]
impl StackEngine for LocalEngine {
    async fn list(&self, token: Option<&str>) -> Result<Page<StackSummary>, Error> {
        self.list_stacks(token).await
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
        self.put_policy(stack, policy).await
    }

    async fn stack_policy(&self, stack: &StackId) -> Result<Option<String>, Error> {
        self.policy_of(stack).await
    }

    async fn set_protection(&self, stack: &StackId, on: bool) -> Result<(), Error> {
        self.protect(stack, on).await
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
}
