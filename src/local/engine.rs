//! The reference model of CloudFormation behind its port.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::{Row, Sqlite, Transaction};

use super::model::{Stack, StoredChangeSet};
use super::objects::LocalObjects;
use super::physical::{Home, attribute, physical_id};
use super::schedule::Schedule;
use super::world::{Failure, World, WorldError, all, get, put, remove};
use crate::domain::cfn::{
    EvaluateError, Pseudo, Resolver, Resource, Scope, Template, bind_parameters, evaluate,
    parse_template, unknown,
};
use crate::domain::model::{AccountId, KeyedHasher, Region, StackId, StackName, sha256_hex};
use crate::domain::plan::{
    Change, ChangeSetStatus, Observed, Replacement, ResourceState, StackStatus, StatusClass,
    compare, replacement_of,
};
use crate::port::{
    ChangeSet, Drift, Error, Page, Proposal, Proposed, StackEngine, StackEvent, StackRef,
    StackSummary, TemplateSummary, read_all,
};

/// CloudFormation of one account and region in a local world.
pub struct LocalEngine {
    world: World,
    account: AccountId,
    region: Region,
}

const TEMPLATE_LIMIT: u64 = 1 << 20;
const NO_CHANGES: &str = "The submitted information didn't contain changes. Submit different information to create a change set.";

impl LocalEngine {
    /// Opens the engine of an account and region.
    pub fn new(world: World, account: AccountId, region: Region) -> Self {
        Self {
            world,
            account,
            region,
        }
    }

    fn place(&self) -> String {
        format!("{}/{}", self.account, self.region)
    }

    async fn load(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
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
        let events = found.advance(self.world.clock.now());
        if !events.is_empty() {
            self.append(tx, &found.id, &events).await?;
            self.save(tx, &found).await?;
        }
        if matches!(stack, StackRef::Name(_)) && found.status.class() == StatusClass::Gone {
            return Ok(None);
        }
        Ok(Some(found))
    }

    async fn save(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
        stack: &Stack,
    ) -> Result<(), WorldError> {
        put(tx, "stack", stack.id.as_str(), &self.place(), stack).await?;
        let name = format!("{}/{}", self.place(), stack.name);
        if stack.status.class() == StatusClass::Gone {
            remove(tx, "name", &name).await
        } else {
            put(tx, "name", &name, "", &stack.id.to_string()).await
        }
    }

    async fn append(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
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

    async fn body_of(&self, url: &str) -> Result<String, Error> {
        let bad = || {
            Error::Refused(format!(
                "TemplateURL must name an object of this world: {url}"
            ))
        };
        let rest = url.strip_prefix("local://").ok_or_else(bad)?;
        let (store, key) = rest.split_once('/').ok_or_else(bad)?;
        let (key, version) = match key.split_once("?versionId=") {
            Some((key, version)) => (key, Some(version)),
            None => (key, None),
        };
        let bytes = read_all(
            &LocalObjects::new(self.world.clone(), store),
            key,
            version,
            TEMPLATE_LIMIT,
        )
        .await?;
        String::from_utf8(bytes).map_err(|_| Error::Refused("the template is not UTF-8".into()))
    }

    fn pseudo(&self, name: &StackName, id: &StackId, arns: &[String]) -> Pseudo {
        Pseudo {
            account: self.account.to_string(),
            region: self.region.to_string(),
            stack_name: name.to_string(),
            stack_id: Some(id.to_string()),
            notification_arns: arns.to_vec(),
        }
    }

    async fn exports(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
    ) -> Result<BTreeMap<String, String>, WorldError> {
        let stacks: Vec<Stack> = all(tx, "stack", Some(&self.place())).await?;
        Ok(stacks
            .into_iter()
            .filter(|s| s.status.class() != StatusClass::Gone)
            .flat_map(|s| s.exports)
            .collect())
    }

    async fn change_set(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
        arn: &str,
    ) -> Result<StoredChangeSet, Error> {
        get(tx, "change-set", arn)
            .await?
            .ok_or_else(|| Error::NotFound(format!("ChangeSet [{arn}]")))
    }

    /// Refuses a proposal that the API would refuse, and finds or makes the stack.
    async fn admit(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
        proposal: &Proposal,
    ) -> Result<Stack, Error> {
        let existing = self
            .load(tx, &StackRef::Name(proposal.stack.clone()))
            .await?;
        let class = existing.as_ref().map(|s| s.status.class());
        match (proposal.create, existing) {
            (true, None) => Ok(self.shell(&proposal.stack)),
            (true, Some(stack)) if class == Some(StatusClass::Shell) => Ok(stack),
            (true, Some(stack)) => Err(Error::Exists(format!("Stack [{}]", stack.name))),
            (false, None) => Err(Error::NotFound(format!("Stack [{}]", proposal.stack))),
            (false, Some(stack)) => match class {
                Some(StatusClass::Ready | StatusClass::RolledBack) => Ok(stack),
                Some(StatusClass::Shell) => {
                    Err(Error::NotFound(format!("Stack [{}]", proposal.stack)))
                }
                _ if !stack.status.is_settled() => Err(Error::Busy(format!(
                    "Stack:{} is in {} state and can not be updated.",
                    stack.id, stack.status
                ))),
                _ => Err(Error::Refused(format!(
                    "Stack:{} is in {} state and can not be updated.",
                    stack.id, stack.status
                ))),
            },
        }
    }

    fn shell(&self, name: &StackName) -> Stack {
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
        Stack {
            id: id
                .parse()
                .unwrap_or_else(|_| unreachable!("the ARN is made of checked parts")),
            name: name.clone(),
            region: self.region.to_string(),
            account: self.account.to_string(),
            status: StackStatus::ReviewInProgress,
            reason: Some("User Initiated".into()),
            updated: None,
            operations: 0,
            template: String::new(),
            parameters: BTreeMap::new(),
            secrets: Vec::new(),
            tags: BTreeMap::new(),
            outputs: BTreeMap::new(),
            exports: BTreeMap::new(),
            notification_arns: Vec::new(),
            rollback_triggers: Vec::new(),
            monitoring_minutes: 0,
            policy: None,
            protected: false,
            resources: BTreeMap::new(),
            last_change_set: None,
            token: None,
            running: None,
        }
    }

    /// Works out what a stack would become, and what changes on the way.
    fn target(
        &self,
        stack: &Stack,
        set: &StoredChangeSet,
        template: &Template,
        exports: &BTreeMap<String, String>,
    ) -> Result<(Stack, Vec<Change>), EvaluateError> {
        let keyed = KeyedHasher::new(self.account.as_str().as_bytes());
        let secret = |value: &str| {
            format!(
                "secret-{}",
                keyed.digest("local", value.as_bytes()).short(12)
            )
        };
        let bound =
            bind_parameters(template, &set.proposal.parameters, &secret).map_err(|errors| {
                EvaluateError {
                    message: errors
                        .into_iter()
                        .map(|e| e.message)
                        .collect::<Vec<_>>()
                        .join("; "),
                }
            })?;
        let pseudo = self.pseudo(&stack.name, &stack.id, &set.proposal.notification_arns);
        let home = Home {
            account: self.account.as_str(),
            region: self.region.as_str(),
            stack: stack.name.as_str(),
        };
        let live = Live {
            home: &home,
            stack,
            template,
            exports,
            moved: RefCell::new(BTreeSet::new()),
            made: RefCell::new(BTreeMap::new()),
        };
        let scope = Scope {
            template,
            parameters: &bound,
            pseudo: &pseudo,
            resolver: &live,
        };
        let present = |logical: &str| {
            let condition = template
                .resources
                .get(logical)
                .and_then(|r| r.condition.clone());
            condition.is_none_or(|c| {
                evaluate(&json!({ "Fn::If": [c, true, false] }), &scope)
                    .is_ok_and(|v| v == Value::Bool(true))
            })
        };
        let changes = compare(
            &stack.resources,
            template,
            &present,
            &mut |_, resource: &Resource, moved| {
                live.moved.replace(moved.clone());
                evaluate(&resource.properties, &scope)
            },
        )?;
        // The second walk knows the physical ids of everything that is made.
        live.moved.replace(BTreeSet::new());
        let mut next = stack.clone();
        next.resources.clear();
        let order = template.order().map_err(|p| EvaluateError {
            message: format!("circular dependency: {}", p.join(" → ")),
        })?;
        for logical in order.iter().filter(|l| present(l)) {
            let resource = &template.resources[logical];
            let properties = evaluate(&resource.properties, &scope)?;
            // Now that every value is known, "perhaps" becomes yes or no.
            let kept = stack.resources.get(logical).filter(|r| {
                r.kind == resource.kind
                    && replacement_of(&r.kind, &r.properties, &properties) != Replacement::Always
            });
            let physical = match kept.and_then(|r| r.physical.clone()) {
                Some(id) => id,
                _ => physical_id(
                    &home,
                    logical,
                    &resource.kind,
                    &properties,
                    stack.operations + 1,
                ),
            };
            let state = ResourceState {
                kind: resource.kind.clone(),
                physical: Some(physical),
                properties,
                deletion_policy: resource.deletion_policy,
            };
            live.made
                .borrow_mut()
                .insert(logical.clone(), state.clone());
            next.resources.insert(logical.clone(), state);
        }
        next.outputs.clear();
        next.exports.clear();
        for (name, output) in &template.outputs {
            let holds = output.condition.as_ref().is_none_or(|c| {
                evaluate(&json!({ "Fn::If": [c, true, false] }), &scope)
                    .is_ok_and(|v| v == Value::Bool(true))
            });
            if !holds {
                continue;
            }
            let value = plain(&evaluate(&output.value, &scope)?)?;
            if let Some(export) = &output.export {
                next.exports
                    .insert(plain(&evaluate(export, &scope)?)?, value.clone());
            }
            next.outputs.insert(name.clone(), value);
        }
        next.template = set.template.clone();
        next.secrets = template
            .parameters
            .iter()
            .filter(|(_, p)| p.no_echo)
            .map(|(n, _)| n.clone())
            .collect();
        next.parameters = bound
            .iter()
            .map(|(n, v)| {
                (
                    n.clone(),
                    v.as_str().map_or_else(|| v.to_string(), str::to_owned),
                )
            })
            .collect();
        next.tags = set.proposal.tags.clone();
        next.notification_arns = set.proposal.notification_arns.clone();
        next.rollback_triggers = set.proposal.rollback_triggers.clone();
        next.monitoring_minutes = set.proposal.monitoring_minutes;
        next.last_change_set = Some(set.name.clone());
        Ok((next, changes))
    }

    async fn evaluate_set(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
        stack: &Stack,
        set: &mut StoredChangeSet,
        capabilities: &[String],
    ) -> Result<(), Error> {
        let template = match parse_template("template", &set.template) {
            Ok(template) => template,
            Err(findings) => {
                // The API refuses such a template at once, with a text that names the first fault.
                let first = findings
                    .first()
                    .map(|f| f.message.clone())
                    .unwrap_or_default();
                return Err(Error::Refused(format!("Template format error: {first}")));
            }
        };
        let missing: Vec<&str> = template
            .capabilities()
            .into_iter()
            .filter(|c| {
                !capabilities.iter().any(|have| {
                    have == c || (*c == "CAPABILITY_IAM" && have == "CAPABILITY_NAMED_IAM")
                })
            })
            .collect();
        if !missing.is_empty() {
            return Err(Error::Refused(format!(
                "Requires capabilities : [{}]",
                missing.join(", ")
            )));
        }
        let exports = self.exports(tx).await?;
        match self.target(stack, set, &template, &exports) {
            Ok((next, changes)) => {
                let same = changes.is_empty()
                    && !set.create
                    && next.outputs == stack.outputs
                    && next.exports == stack.exports
                    && next.tags == stack.tags
                    && next.notification_arns == stack.notification_arns
                    && next.rollback_triggers == stack.rollback_triggers
                    && next.monitoring_minutes == stack.monitoring_minutes;
                set.failed = same.then(|| NO_CHANGES.to_owned());
                set.changes = changes;
            }
            Err(error) => set.failed = Some(error.message),
        }
        Ok(())
    }
}

fn plain(value: &Value) -> Result<String, EvaluateError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        _ => Err(EvaluateError {
            message: "Template format error: Output values must be strings".into(),
        }),
    }
}

/// Resolves references against what exists, what was just made, and what is yet unknown.
struct Live<'a> {
    home: &'a Home<'a>,
    stack: &'a Stack,
    template: &'a Template,
    exports: &'a BTreeMap<String, String>,
    moved: RefCell<BTreeSet<String>>,
    made: RefCell<BTreeMap<String, ResourceState>>,
}

impl Resolver for Live<'_> {
    fn resource(
        &self,
        logical: &str,
        attribute_name: Option<&str>,
    ) -> Result<Value, EvaluateError> {
        let shown = attribute_name.map_or_else(|| logical.to_owned(), |a| format!("{logical}.{a}"));
        let made = self.made.borrow();
        let state = made
            .get(logical)
            .or_else(|| self.stack.resources.get(logical))
            .filter(|_| !self.moved.borrow().contains(logical));
        let Some(state) = state else {
            if self.template.resources.contains_key(logical) {
                return Ok(unknown(&shown));
            }
            // A resource that a transform would have made: SAM is not expanded here.
            return Ok(json!(physical_id(
                self.home,
                logical,
                "AWS::Serverless::Expanded",
                &Value::Null,
                0
            )));
        };
        let physical = state.physical.clone().unwrap_or_default();
        match attribute_name {
            None => Ok(json!(physical)),
            Some(name) => attribute(self.home, &state.kind, &physical, &state.properties, name)
                .ok_or_else(|| EvaluateError { message: format!("Template error: resource {logical} does not support attribute type {name} in Fn::GetAtt") }),
        }
    }

    fn import(&self, name: &str) -> Result<Value, EvaluateError> {
        self.exports
            .get(name)
            .map(|v| json!(v))
            .ok_or_else(|| EvaluateError {
                message: format!("No export named {name} found."),
            })
    }
}

#[async_trait]
impl StackEngine for LocalEngine {
    async fn list(&self, _: Option<&str>) -> Result<Page<StackSummary>, Error> {
        self.world.count("ListStacks").await?;
        let mut tx = self.world.begin().await?;
        let ids: Vec<Stack> = all(&mut tx, "stack", Some(&self.place())).await?;
        let mut items = Vec::new();
        for stack in ids {
            if let Some(stack) = self
                .load(&mut tx, &StackRef::Id(stack.id))
                .await?
                .filter(|s| s.status.class() != StatusClass::Gone)
            {
                items.push(StackSummary {
                    stack_id: stack.id.clone(),
                    name: stack.name.clone(),
                    status: stack.status.clone(),
                    updated: stack.updated,
                    operation: stack.operation(),
                });
            }
        }
        tx.commit().await.map_err(WorldError::from)?;
        Ok(Page { items, next: None })
    }

    async fn describe(&self, stack: &StackRef) -> Result<Option<Observed>, Error> {
        self.world.count("DescribeStacks").await?;
        let mut tx = self.world.begin().await?;
        let found = self.load(&mut tx, stack).await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(found.map(|s| s.observed()))
    }

    async fn template(&self, stack: &StackRef) -> Result<String, Error> {
        self.world.count("GetTemplate").await?;
        let mut tx = self.world.begin().await?;
        let found = self.load(&mut tx, stack).await?;
        tx.commit().await.map_err(WorldError::from)?;
        found
            .map(|s| s.template)
            .ok_or_else(|| Error::NotFound("Stack".into()))
    }

    async fn change_set_template(&self, change_set: &str) -> Result<String, Error> {
        self.world.count("GetTemplate").await?;
        let mut tx = self.world.begin().await?;
        Ok(self.change_set(&mut tx, change_set).await?.template)
    }

    async fn summary(&self, template_url: &str) -> Result<TemplateSummary, Error> {
        self.world.count("GetTemplateSummary").await?;
        let template =
            parse_template("template", &self.body_of(template_url).await?).map_err(|f| {
                Error::Refused(f.first().map(|f| f.message.clone()).unwrap_or_default())
            })?;
        Ok(TemplateSummary {
            capabilities: template
                .capabilities()
                .into_iter()
                .map(str::to_owned)
                .collect(),
            parameters: template
                .parameters
                .iter()
                .map(|(n, p)| (n.clone(), p.no_echo))
                .collect(),
        })
    }

    async fn propose(&self, proposal: &Proposal) -> Result<Proposed, Error> {
        self.world.count("CreateChangeSet").await?;
        if !proposal.import.is_empty() {
            return Err(Error::Unsupported("importing resources"));
        }
        let template = self.body_of(&proposal.template_url).await?;
        let mut tx = self.world.begin().await?;
        // By token first: a repeat of the same call is the same change set.
        let names: Vec<StoredChangeSet> = all(&mut tx, "change-set", None).await?;
        if let Some(same) = names.iter().find(|s| {
            s.token == proposal.token
                && s.stack
                    .as_str()
                    .contains(&format!(":stack/{}/", proposal.stack))
        }) {
            return Ok(Proposed {
                change_set: same.arn.clone(),
                stack_id: same.stack.clone(),
            });
        }
        let stack = self.admit(&mut tx, proposal).await?;
        let of_stack: Vec<&StoredChangeSet> =
            names.iter().filter(|s| s.stack == stack.id).collect();
        if of_stack.iter().any(|s| s.name == proposal.name) {
            return Err(Error::Exists(format!("ChangeSet {}", proposal.name)));
        }
        if of_stack.len() >= 1000 {
            return Err(Error::Refused(
                "LimitExceededException: too many change sets".into(),
            ));
        }
        let hash = sha256_hex(format!("{}|{}", stack.id, proposal.name).as_bytes());
        let arn = format!(
            "arn:aws:cloudformation:{}:{}:changeSet/{}/{}",
            self.region,
            self.account,
            proposal.name,
            &hash[..32]
        );
        let delay = Duration::from_micros((20_000.0 * self.world.pace) as u64);
        let mut set = StoredChangeSet {
            arn: arn.clone(),
            name: proposal.name.clone(),
            token: proposal.token.clone(),
            stack: stack.id.clone(),
            create: proposal.create,
            ready_at: self.world.clock.now().plus(delay),
            template,
            failed: None,
            changes: Vec::new(),
            base: stack.operations,
            proposal: proposal.into(),
            executed: false,
        };
        self.evaluate_set(&mut tx, &stack, &mut set, &proposal.capabilities)
            .await?;
        self.save(&mut tx, &stack).await?;
        // Secret values are kept as marks; nothing of the world holds one in the clear.
        let template = parse_template("template", &set.template)
            .map_err(|_| Error::Refused("Template format error".into()))?;
        let keyed = KeyedHasher::new(self.account.as_str().as_bytes());
        for (name, value) in &mut set.proposal.parameters {
            if template.parameters.get(name).is_some_and(|p| p.no_echo)
                && !value.starts_with("secret-")
            {
                *value = format!(
                    "secret-{}",
                    keyed.digest("local", value.as_bytes()).short(12)
                );
            }
        }
        put(&mut tx, "change-set", &arn, stack.id.as_str(), &set).await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(Proposed {
            change_set: arn,
            stack_id: stack.id,
        })
    }

    async fn find(&self, stack: &StackName, name: &str) -> Result<Option<Proposed>, Error> {
        self.world.count("ListChangeSets").await?;
        let mut tx = self.world.begin().await?;
        let Some(found) = self.load(&mut tx, &StackRef::Name(stack.clone())).await? else {
            return Ok(None);
        };
        let sets: Vec<StoredChangeSet> =
            all(&mut tx, "change-set", Some(found.id.as_str())).await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(sets.into_iter().find(|s| s.name == name).map(|s| Proposed {
            change_set: s.arn,
            stack_id: s.stack,
        }))
    }

    async fn review(&self, change_set: &str) -> Result<ChangeSet, Error> {
        self.world.count("DescribeChangeSet").await?;
        let mut tx = self.world.begin().await?;
        let set = self.change_set(&mut tx, change_set).await?;
        let stack = self.load(&mut tx, &StackRef::Id(set.stack.clone())).await?;
        tx.commit().await.map_err(WorldError::from)?;
        let moved = stack.as_ref().is_none_or(|s| s.operations != set.base);
        let status = match &set.failed {
            _ if self.world.clock.now() < set.ready_at => ChangeSetStatus::Creating,
            Some(reason) if reason == NO_CHANGES => ChangeSetStatus::NoChanges,
            Some(_) => ChangeSetStatus::Failed,
            None if set.executed && stack.as_ref().is_some_and(|s| s.running.is_some()) => {
                ChangeSetStatus::Executing
            }
            None if set.executed => ChangeSetStatus::Executed,
            None if moved => ChangeSetStatus::Obsolete,
            None => ChangeSetStatus::Available,
        };
        Ok(ChangeSet {
            status,
            reason: set.failed,
            changes: set.changes,
            complete: true,
        })
    }

    async fn execute(&self, change_set: &str, token: &str) -> Result<(), Error> {
        self.world.count("ExecuteChangeSet").await?;
        let mut tx = self.world.begin().await?;
        let mut set = self.change_set(&mut tx, change_set).await?;
        let mut stack = self
            .load(&mut tx, &StackRef::Id(set.stack.clone()))
            .await?
            .ok_or_else(|| Error::NotFound("Stack".into()))?;
        let started = |s: &Stack| {
            s.token.as_deref() == Some(token)
                || s.running
                    .as_ref()
                    .is_some_and(|r| r.end.token.as_deref() == Some(token))
        };
        if started(&stack) {
            return Err(Error::AlreadyAccepted);
        }
        if set.failed.is_some()
            || set.executed
            || self.world.clock.now() < set.ready_at
            || stack.operations != set.base
        {
            return Err(Error::Refused(format!(
                "InvalidChangeSetStatus: ChangeSet [{change_set}] cannot be executed in its current status"
            )));
        }
        let template = parse_template("template", &set.template)
            .map_err(|_| Error::Refused("Template format error".into()))?;
        let exports = self.exports(&mut tx).await?;
        let (next, changes) = self
            .target(&stack, &set, &template, &exports)
            .map_err(|e| Error::Refused(e.message))?;
        let failures: Vec<Failure> = all(&mut tx, "failure", None).await?;
        let mut next = next;
        // A creation reads its shell; its parameters and tags stand from the moment it runs.
        next.status = stack.status.clone();
        let ending = Schedule::new(&stack, token, self.world.clock.now(), self.world.pace)
            .execute(next, &template, &changes, set.create, &failures);
        if let Some(used) = ending.used {
            let id = format!("{}|{}", used.stack, used.logical);
            match used.times {
                Some(n) if n > 1 => {
                    put(
                        &mut tx,
                        "failure",
                        &id,
                        "",
                        &Failure {
                            times: Some(n - 1),
                            ..used
                        },
                    )
                    .await?;
                }
                Some(_) => remove(&mut tx, "failure", &id).await?,
                None => {}
            }
        }
        stack.running = Some(ending.operation);
        // Executing one change set deletes the stack's others.
        for other in all::<StoredChangeSet>(&mut tx, "change-set", Some(stack.id.as_str()))
            .await?
            .iter()
            .filter(|s| s.arn != set.arn)
        {
            remove(&mut tx, "change-set", &other.arn).await?;
        }
        set.executed = true;
        put(&mut tx, "change-set", &set.arn, stack.id.as_str(), &set).await?;
        let events = stack.advance(self.world.clock.now());
        // What the stack executed last is told from the start of the operation, not from its end.
        if let Some(running) = &mut stack.running {
            running.end.last_change_set = Some(set.name.clone());
        }
        stack.last_change_set = Some(set.name.clone());
        stack.token = Some(token.to_owned());
        self.append(&mut tx, &stack.id, &events).await?;
        self.save(&mut tx, &stack).await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(())
    }

    async fn cancel(&self, _: &StackId, _: &str) -> Result<(), Error> {
        Err(Error::Unsupported("cancelling an update"))
    }

    async fn continue_rollback(&self, _: &StackId, _: &str) -> Result<(), Error> {
        Err(Error::Unsupported("continuing a rollback"))
    }

    async fn rollback(&self, _: &StackId, _: &str) -> Result<(), Error> {
        Err(Error::Unsupported("rolling a stack back"))
    }

    async fn delete(&self, stack: &StackId, token: &str, retain: &[String]) -> Result<(), Error> {
        self.world.count("DeleteStack").await?;
        let mut tx = self.world.begin().await?;
        let Some(mut found) = self.load(&mut tx, &StackRef::Id(stack.clone())).await? else {
            return Ok(());
        };
        if found.status.class() == StatusClass::Gone || found.running.is_some() {
            return Ok(());
        }
        if found.protected {
            return Err(Error::Refused(format!(
                "Stack [{}] cannot be deleted while TerminationProtection is enabled",
                found.name
            )));
        }
        let operation =
            Schedule::new(&found, token, self.world.clock.now(), self.world.pace).delete(retain);
        found.running = Some(operation);
        let events = found.advance(self.world.clock.now());
        self.append(&mut tx, &found.id, &events).await?;
        self.save(&mut tx, &found).await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(())
    }

    async fn set_stack_policy(&self, stack: &StackId, policy: &str) -> Result<(), Error> {
        self.world.count("SetStackPolicy").await?;
        if serde_json::from_str::<Value>(policy).is_err() {
            return Err(Error::Refused(
                "Error validating stack policy: Invalid stack policy".into(),
            ));
        }
        self.edit(stack, |s| s.policy = Some(policy.to_owned()))
            .await
    }

    async fn stack_policy(&self, stack: &StackId) -> Result<Option<String>, Error> {
        self.world.count("GetStackPolicy").await?;
        let mut tx = self.world.begin().await?;
        Ok(self
            .load(&mut tx, &StackRef::Id(stack.clone()))
            .await?
            .and_then(|s| s.policy))
    }

    async fn set_protection(&self, stack: &StackId, on: bool) -> Result<(), Error> {
        self.world.count("UpdateTerminationProtection").await?;
        self.edit(stack, |s| s.protected = on).await
    }

    async fn events(&self, stack: &StackId, after: Option<&str>) -> Result<Vec<StackEvent>, Error> {
        self.world.count("DescribeStackEvents").await?;
        let mut tx = self.world.begin().await?;
        self.load(&mut tx, &StackRef::Id(stack.clone())).await?;
        let rows = sqlx::query("SELECT body FROM events WHERE stack = $1 ORDER BY number")
            .bind(stack.as_str())
            .fetch_all(&mut *tx)
            .await
            .map_err(WorldError::from)?;
        tx.commit().await.map_err(WorldError::from)?;
        let mut events = Vec::new();
        for row in rows {
            let body: &str = row.try_get(0).map_err(WorldError::from)?;
            events.push(serde_json::from_str::<StackEvent>(body).map_err(WorldError::from)?);
        }
        if let Some(known) = after.and_then(|id| events.iter().position(|e| e.id == id)) {
            events.drain(..=known);
        }
        Ok(events)
    }

    async fn drift(&self, _: &StackId) -> Result<Vec<Drift>, Error> {
        Err(Error::Unsupported("drift detection"))
    }

    async fn discard(&self, change_set: &str) -> Result<(), Error> {
        self.world.count("DeleteChangeSet").await?;
        let mut tx = self.world.begin().await?;
        if let Some(set) = get::<StoredChangeSet>(&mut tx, "change-set", change_set).await?
            && !set.executed
        {
            remove(&mut tx, "change-set", change_set).await?;
        }
        tx.commit().await.map_err(WorldError::from)?;
        Ok(())
    }
}

impl LocalEngine {
    async fn edit(&self, stack: &StackId, change: impl FnOnce(&mut Stack)) -> Result<(), Error> {
        let mut tx = self.world.begin().await?;
        let mut found = self
            .load(&mut tx, &StackRef::Id(stack.clone()))
            .await?
            .ok_or_else(|| Error::NotFound("Stack".into()))?;
        change(&mut found);
        // Both copies: an operation in motion ends in its own.
        if let Some(mut running) = found.running.take() {
            running.end.policy = found.policy.clone();
            running.end.protected = found.protected;
            found.running = Some(running);
        }
        self.save(&mut tx, &found).await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(())
    }

    /// Changes a stack behind isoform's back, as somebody with the console would: for trying out drift.
    pub async fn meddle(&self, stack: &StackName) -> Result<(), Error> {
        let mut tx = self.world.begin().await?;
        let mut found = self
            .load(&mut tx, &StackRef::Name(stack.clone()))
            .await?
            .ok_or_else(|| Error::NotFound(format!("Stack [{stack}]")))?;
        let mut schedule = Schedule::new(&found, "by-hand", self.world.clock.now(), 0.0);
        schedule.stack_status(StackStatus::UpdateInProgress, Some("User Initiated"));
        schedule.stack_status(StackStatus::UpdateComplete, None);
        let mut end = found.clone();
        end.last_change_set = Some("by-hand".into());
        found.running = Some(schedule.end(end));
        let events = found.advance(self.world.clock.now());
        self.append(&mut tx, &found.id, &events).await?;
        self.save(&mut tx, &found).await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(())
    }
}
