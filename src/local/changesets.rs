//! The life of a change set: made, read back, executed or deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sqlx::Row;

use super::engine::{LocalEngine, Tx};
use super::faults::Faults;
use super::import::importable;
use super::model::{Stack, StoredChangeSet, StoredProposal};
use super::physical::own_name;
use super::schedule::Goal;
use super::target::{Around, GoalError};
use super::world::{WorldError, get, put, remove};
use crate::domain::cfn::{Template, as_read_back, parse_template_with};
use crate::domain::model::{StackId, StackName, sha256_hex};
use crate::domain::plan::{Action, StackStatus, StatusClass, covers};
use crate::port::{Error, Proposal, Proposed, StackRef};

/// Why a change set failed that would change nothing.
const NO_CHANGES: &str = "The submitted information didn't contain changes. Submit different information to create a change set.";
/// The same where a transform ran first.
const NO_UPDATES: &str = "No updates are to be performed.";
/// Change sets of one stack: seen by many, promised by nobody.
const MOST: i64 = 1000;

/// Records: change sets, those that are being deleted, and the tokens of the calls that made them.
pub(super) const KIND: &str = "change-set";
const LEAVING: &str = "change-set-leaving";
const TOKEN: &str = "change-set-token";

impl LocalEngine {
    pub(super) async fn change_set(
        &self,
        tx: &mut Tx,
        arn: &str,
    ) -> Result<StoredChangeSet, Error> {
        if let Some(set) = get(tx, KIND, arn).await? {
            return Ok(set);
        }
        let leaving: Option<StoredChangeSet> = get(tx, LEAVING, arn).await?;
        leaving
            .filter(|s| !self.is_gone(s))
            .ok_or_else(|| Error::NotFound(format!("ChangeSet [{arn}]")))
    }

    fn is_gone(&self, set: &StoredChangeSet) -> bool {
        set.gone_at.is_some_and(|at| at <= self.world.clock.now())
    }

    /// The ARN follows from stack and name, so a name is looked up by it.
    fn arn(&self, stack: &StackId, name: &str) -> String {
        let hash = sha256_hex(format!("{stack}|{name}").as_bytes());
        format!(
            "arn:aws:cloudformation:{}:{}:changeSet/{name}/{}",
            self.region,
            self.account,
            &hash[..32]
        )
    }

    /// How long a change set takes to be made, and its name to be free again.
    fn lag(&self, more_ms: u64) -> Duration {
        Duration::from_micros((20_000.0 * self.world.pace) as u64) + Duration::from_millis(more_ms)
    }

    pub(super) async fn proposed_template(&self, change_set: &str) -> Result<String, Error> {
        self.world.call("GetTemplate").await?;
        let mut tx = self.world.begin().await?;
        Ok(as_read_back(
            &self.change_set(&mut tx, change_set).await?.template,
        ))
    }

    /// Refuses a proposal that the API would refuse, and finds or makes the stack.
    async fn admit(&self, tx: &mut Tx, proposal: &Proposal) -> Result<Stack, Error> {
        let existing = self
            .load(tx, &StackRef::Name(proposal.stack.clone()))
            .await?;
        let Some(stack) = existing else {
            return if proposal.create {
                Ok(self.shell(&proposal.stack))
            } else {
                Err(Error::NotFound(format!("Stack [{}]", proposal.stack)))
            };
        };
        let text = format!(
            "Stack:{} is in {} state and can not be updated.",
            stack.id, stack.status
        );
        match (proposal.create, stack.status.class()) {
            (true, StatusClass::Shell) => Ok(stack),
            (true, _) => Err(Error::Exists(format!("Stack [{}]", stack.name))),
            (false, StatusClass::Shell) => {
                Err(Error::NotFound(format!("Stack [{}]", proposal.stack)))
            }
            (false, StatusClass::Ready | StatusClass::RolledBack) => Ok(stack),
            // What a failure without rollback left can be updated further.
            (false, StatusClass::Stuck)
                if matches!(
                    stack.status,
                    StackStatus::CreateFailed | StackStatus::UpdateFailed
                ) =>
            {
                Ok(stack)
            }
            _ if !stack.status.is_settled() => Err(Error::Busy(text)),
            _ => Err(Error::Refused(text)),
        }
    }

    pub(super) async fn create_change_set(&self, proposal: &Proposal) -> Result<Proposed, Error> {
        let faults = self.world.call("CreateChangeSet").await?;
        let template = self.body_of(&proposal.template_url).await?;
        // Bodies are read outside the transaction: reading an object counts a call, which is a write.
        let mut bodies = BTreeMap::new();
        loop {
            match self
                .try_create(proposal, &template, &bodies, &faults)
                .await?
            {
                Ok(proposed) => return Ok(proposed),
                Err(url) => {
                    let body = self.body_of(&url).await?;
                    bodies.insert(url, body);
                }
            }
        }
    }

    /// Early validation: a resource cannot be made under a name that is taken.
    async fn taken(
        &self,
        tx: &mut Tx,
        goal: &Goal,
        proposal: &Proposal,
    ) -> Result<Option<String>, WorldError> {
        let added = goal.changes.iter().filter(|c| c.action == Action::Add);
        for change in added.filter(|c| !proposal.import.contains_key(&c.logical)) {
            let Some(state) = goal.resources.get(&change.logical) else {
                continue;
            };
            if let Some(name) = own_name(&state.kind, &state.properties)
                && self.exists(tx, &state.kind, &name).await?
            {
                return Ok(Some(format!(
                    "The following hook(s)/validation failed: [AWS::EarlyValidation::ResourceExistenceCheck]. Resource of type '{}' with identifier '{name}' already exists. (at /Resources/{})",
                    state.kind, change.logical
                )));
            }
        }
        Ok(None)
    }

    async fn count_of(&self, tx: &mut Tx, stack: &StackId) -> Result<i64, WorldError> {
        Ok(
            sqlx::query("SELECT COUNT(*) FROM records WHERE kind = $1 AND parent = $2")
                .bind(KIND)
                .bind(stack.as_str())
                .fetch_one(&mut **tx)
                .await?
                .try_get(0)?,
        )
    }

    /// Makes a change set, or asks for the body of a nested template.
    async fn try_create(
        &self,
        proposal: &Proposal,
        text: &str,
        bodies: &BTreeMap<String, String>,
        faults: &Faults,
    ) -> Result<Result<Proposed, String>, Error> {
        let mut tx = self.world.begin().await?;
        let known = self
            .load(&mut tx, &StackRef::Name(proposal.stack.clone()))
            .await?;
        // By token first: a repeat of the same call is the same change set.
        if let Some(stack) = &known {
            let key = format!("{}|{}", stack.id, proposal.token);
            if let Some(arn) = get::<String>(&mut tx, TOKEN, &key).await?
                && let Some(same) = get::<StoredChangeSet>(&mut tx, KIND, &arn).await?
            {
                return Ok(Ok(Proposed {
                    change_set: same.arn,
                    stack_id: same.stack,
                }));
            }
        }
        let stack = self.admit(&mut tx, proposal).await?;
        let arn = self.arn(&stack.id, &proposal.name);
        if self.change_set(&mut tx, &arn).await.is_ok() {
            // Also while it is being deleted.
            return Err(Error::Exists(format!(
                "ChangeSet {} cannot be created due to a mismatch with existing attribute ClientToken: it",
                proposal.name
            )));
        }
        if self.count_of(&mut tx, &stack.id).await? >= MOST {
            return Err(Error::TooMany(
                "LimitExceededException: too many change sets".into(),
            ));
        }
        let mut given = proposal.parameters.clone();
        for name in &proposal.kept {
            let Some(value) = stack.form.parameters.get(name) else {
                return Err(Error::Refused(format!(
                    "Invalid input for parameter key {name}. Cannot specify usePreviousValue as true for a parameter key not in the previous template"
                )));
            };
            given.insert(name.clone(), value.clone());
        }
        let template = readable(text, &given)?;
        acknowledges(needed(&template, faults), &proposal.capabilities)?;
        let delay = self.lag(faults.making_ms);
        let mut set = StoredChangeSet {
            arn: arn.clone(),
            name: proposal.name.clone(),
            token: proposal.token.clone(),
            stack: stack.id.clone(),
            create: proposal.create,
            ready_at: self.world.clock.now().plus(delay),
            template: text.to_owned(),
            bodies: bodies.clone(),
            failed: None,
            changes: Vec::new(),
            base: stack.operations,
            proposal: StoredProposal {
                parameters: given,
                ..proposal.into()
            },
            executed: false,
            gone_at: None,
        };
        for (name, value) in &mut set.proposal.parameters {
            // What is kept is marked already.
            if !proposal.kept.contains(name)
                && template.parameters.get(name).is_some_and(|p| p.no_echo)
            {
                *value = self.mark(value);
            }
        }
        match self.goal_of(&mut tx, &stack, &set, &template).await? {
            Ok(mut goal) => {
                if proposal.import.is_empty() {
                    same_types(&stack, &goal)?;
                } else {
                    importable(&stack, &template, &mut goal, proposal)?;
                }
                if let Some(taken) = self.taken(&mut tx, &goal, proposal).await? {
                    set.failed = Some(taken);
                } else if !set.create && is_idle(&stack, &goal) {
                    let text = if template.transforms.is_empty() {
                        NO_CHANGES
                    } else {
                        NO_UPDATES
                    };
                    set.failed = Some(text.to_owned());
                }
                set.changes = goal.changes;
            }
            Err(GoalError::Evaluate(error)) => set.failed = Some(error.message),
            Err(GoalError::Needs(url)) => return Ok(Err(url)),
        }
        if known.is_none() {
            self.remember(&mut tx, &stack.id, None).await?;
        }
        self.save(&mut tx, &stack).await?;
        put(&mut tx, KIND, &arn, stack.id.as_str(), &set).await?;
        let key = format!("{}|{}", stack.id, proposal.token);
        put(&mut tx, TOKEN, &key, stack.id.as_str(), &arn).await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(Ok(Proposed {
            change_set: arn,
            stack_id: stack.id,
        }))
    }

    async fn goal_of(
        &self,
        tx: &mut Tx,
        stack: &Stack,
        set: &StoredChangeSet,
        template: &Template,
    ) -> Result<Result<Goal, GoalError>, WorldError> {
        let reads = set.template.contains("ImportValue")
            || set.bodies.values().any(|b| b.contains("ImportValue"));
        let exports = if reads {
            self.exports(tx, stack).await?
        } else {
            BTreeMap::new()
        };
        let nested: BTreeMap<StackId, Stack> = self
            .tree(tx, stack)
            .await?
            .into_iter()
            .skip(1)
            .map(|s| (s.id.clone(), s))
            .collect();
        let around = Around {
            exports: &exports,
            bodies: &set.bodies,
            nested: &nested,
        };
        Ok(self.goal(stack, &set.proposal, &set.template, template, &around))
    }

    pub(super) async fn find_change_set(
        &self,
        stack: &StackName,
        name: &str,
    ) -> Result<Option<Proposed>, Error> {
        self.world.call("ListChangeSets").await?;
        let mut tx = self.world.begin().await?;
        let Some(found) = self.load(&mut tx, &StackRef::Name(stack.clone())).await? else {
            return Ok(None);
        };
        let set: Option<StoredChangeSet> = get(&mut tx, KIND, &self.arn(&found.id, name)).await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(set.map(|s| Proposed {
            change_set: s.arn,
            stack_id: s.stack,
        }))
    }

    pub(super) async fn execute_change_set(
        &self,
        change_set: &str,
        token: &str,
    ) -> Result<(), Error> {
        let faults = self.world.call("ExecuteChangeSet").await?;
        let mut tx = self.world.begin().await?;
        let mut set = self.change_set(&mut tx, change_set).await?;
        let mut stack = self.stack(&mut tx, &set.stack).await?;
        if stack.token.as_deref() == Some(token) {
            return Err(Error::AlreadyAccepted);
        }
        if set.failed.is_some()
            || set.executed
            || set.gone_at.is_some()
            || self.world.clock.now() < set.ready_at
            || stack.operations != set.base
        {
            return Err(Error::Refused(format!(
                "InvalidChangeSetStatus: ChangeSet [{change_set}] cannot be executed in its current status"
            )));
        }
        let template = readable(&set.template, &set.proposal.parameters)?;
        acknowledges(beyond(&template, &faults), &set.proposal.capabilities)?;
        let goal = match self.goal_of(&mut tx, &stack, &set, &template).await? {
            Ok(goal) => goal,
            Err(GoalError::Evaluate(error)) => return Err(Error::Refused(error.message)),
            Err(GoalError::Needs(url)) => {
                return Err(Error::Refused(format!("{url} was not read")));
            }
        };
        let mut missing = BTreeSet::new();
        for logical in set.proposal.import.keys() {
            if let Some(state) = goal.resources.get(logical)
                && let Some(physical) = &state.physical
                && !self.exists(&mut tx, &state.kind, physical).await?
            {
                missing.insert(logical.clone());
            }
        }
        // What the stack executed last is told from the start of the operation, not from its end.
        stack.last_change_set = Some(set.name.clone());
        let on_failure = set.proposal.on_failure;
        let create = set.create;
        let imported: BTreeSet<String> = set.proposal.import.keys().cloned().collect();
        self.begin(&mut tx, &mut stack, token, Some(&goal.form), |schedule| {
            if !imported.is_empty() {
                schedule.import(&goal, &imported, &missing);
            } else if create {
                schedule.create(&goal, on_failure);
            } else {
                schedule.update(&goal, on_failure);
            }
        })
        .await?;
        // Executing one change set deletes the stack's others.
        self.drop_change_sets(&mut tx, &stack.id, &set.arn).await?;
        set.executed = true;
        put(&mut tx, KIND, &set.arn, stack.id.as_str(), &set).await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(())
    }

    pub(super) async fn delete_change_set(&self, change_set: &str) -> Result<(), Error> {
        self.world.call("DeleteChangeSet").await?;
        let mut tx = self.world.begin().await?;
        // To delete what is not there works; an executed one is history.
        let found: Option<StoredChangeSet> = get(&mut tx, KIND, change_set).await?;
        if let Some(mut set) = found.filter(|s| !s.executed) {
            remove(&mut tx, KIND, change_set).await?;
            remove(&mut tx, TOKEN, &format!("{}|{}", set.stack, set.token)).await?;
            sqlx::query("DELETE FROM records WHERE kind = $1 AND parent = $2 AND json_extract(body, '$.gone_at') <= $3")
                .bind(LEAVING)
                .bind(set.stack.as_str())
                .bind(self.world.clock.now().0)
                .execute(&mut *tx)
                .await
                .map_err(WorldError::from)?;
            set.gone_at = Some(self.world.clock.now().plus(self.lag(0)));
            put(&mut tx, LEAVING, change_set, set.stack.as_str(), &set).await?;
        }
        tx.commit().await.map_err(WorldError::from)?;
        Ok(())
    }

    /// Forgets every change set of a stack but one.
    pub(super) async fn drop_change_sets(
        &self,
        tx: &mut Tx,
        stack: &StackId,
        but: &str,
    ) -> Result<(), WorldError> {
        sqlx::query("DELETE FROM records WHERE kind IN ($1, $2, $3) AND parent = $4 AND id <> $5")
            .bind(KIND)
            .bind(LEAVING)
            .bind(TOKEN)
            .bind(stack.as_str())
            .bind(but)
            .execute(&mut **tx)
            .await?;
        Ok(())
    }
}

/// The API refuses a template that it cannot read at once, with a text that names the first fault.
fn readable(text: &str, given: &BTreeMap<String, String>) -> Result<Template, Error> {
    parse_template_with("template", text, given).map_err(|findings| {
        let first = findings
            .first()
            .map(|f| f.message.clone())
            .unwrap_or_default();
        Error::Refused(format!("Template format error: {first}"))
    })
}

/// What a template needs: what it shows, and what this world knows of its types beyond that.
pub(super) fn needed(template: &Template, faults: &Faults) -> Vec<String> {
    let mut all = beyond(template, faults);
    all.extend(template.capabilities().into_iter().map(str::to_owned));
    all.sort();
    all.dedup();
    all
}

/// What this world knows that a template needs and does not show.
fn beyond(template: &Template, faults: &Faults) -> Vec<String> {
    let kinds = template.resources.values().map(|r| &r.kind);
    kinds.filter_map(|kind| faults.need_of(kind)).collect()
}

fn acknowledges(mut missing: Vec<String>, capabilities: &[String]) -> Result<(), Error> {
    missing.retain(|c| !covers(capabilities, c));
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Incapable(format!(
        "Requires capabilities : [{}]",
        missing.join(", ")
    )))
}

/// Tells whether there is nothing to do. An empty list of changes is not enough: outputs and options count too.
fn is_idle(stack: &Stack, goal: &Goal) -> bool {
    let (old, new) = (&stack.form, &goal.form);
    goal.changes.is_empty()
        && new.outputs == old.outputs
        && new.exports == old.exports
        && new.tags == old.tags
        && new.notification_arns == old.notification_arns
        && new.rollback_triggers == old.rollback_triggers
        && new.monitoring_minutes == old.monitoring_minutes
}

/// A resource cannot become one of another type under the same logical id.
fn same_types(stack: &Stack, goal: &Goal) -> Result<(), Error> {
    let other: Vec<&str> = goal
        .changes
        .iter()
        .filter(|c| {
            c.action == Action::Modify
                && stack
                    .resources
                    .get(&c.logical)
                    .is_some_and(|r| r.kind != c.kind)
        })
        .map(|c| c.logical.as_str())
        .collect();
    if other.is_empty() {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "Update of resource type is not permitted. The new template modifies resource type of the following resources: [{}]",
        other.join(", ")
    )))
}
