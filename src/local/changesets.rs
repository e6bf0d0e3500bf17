//! The life of a change set: made, read back, executed or deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::engine::{LocalEngine, Tx};
use super::model::{Stack, StoredChangeSet};
use super::schedule::Goal;
use super::target::{Around, GoalError};
use super::world::{WorldError, all, get, put, remove};
use crate::domain::cfn::{Template, parse_template};
use crate::domain::model::{StackId, StackName, sha256_hex};
use crate::domain::plan::{ChangeSetStatus, StackStatus, StatusClass};
use crate::port::{ChangeSet, Error, Proposal, Proposed, StackRef};

/// Why a change set failed that would change nothing.
const NO_CHANGES: &str = "The submitted information didn't contain changes. Submit different information to create a change set.";
/// The same where a transform ran first.
const NO_UPDATES: &str = "No updates are to be performed.";
/// Change sets of one stack: seen by many, promised by nobody.
const MOST: usize = 1000;

impl LocalEngine {
    pub(super) async fn change_set(
        &self,
        tx: &mut Tx,
        arn: &str,
    ) -> Result<StoredChangeSet, Error> {
        get(tx, "change-set", arn)
            .await?
            .ok_or_else(|| Error::NotFound(format!("ChangeSet [{arn}]")))
    }

    pub(super) async fn proposed_template(&self, change_set: &str) -> Result<String, Error> {
        self.world.count("GetTemplate").await?;
        let mut tx = self.world.begin().await?;
        Ok(self.change_set(&mut tx, change_set).await?.template)
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
        self.world.count("CreateChangeSet").await?;
        let template = self.body_of(&proposal.template_url).await?;
        // Bodies are read outside the transaction: reading an object counts a call, which is a write.
        let mut bodies = BTreeMap::new();
        loop {
            match self.try_create(proposal, &template, &bodies).await? {
                Ok(proposed) => return Ok(proposed),
                Err(url) => {
                    let body = self.body_of(&url).await?;
                    bodies.insert(url, body);
                }
            }
        }
    }

    /// Makes a change set, or asks for the body of a nested template.
    async fn try_create(
        &self,
        proposal: &Proposal,
        text: &str,
        bodies: &BTreeMap<String, String>,
    ) -> Result<Result<Proposed, String>, Error> {
        let mut tx = self.world.begin().await?;
        let known = self
            .load(&mut tx, &StackRef::Name(proposal.stack.clone()))
            .await?;
        let siblings: Vec<StoredChangeSet> = match &known {
            Some(stack) => all(&mut tx, "change-set", Some(stack.id.as_str())).await?,
            None => Vec::new(),
        };
        // By token first: a repeat of the same call is the same change set.
        if let Some(same) = siblings.iter().find(|s| s.token == proposal.token) {
            return Ok(Ok(Proposed {
                change_set: same.arn.clone(),
                stack_id: same.stack.clone(),
            }));
        }
        let stack = self.admit(&mut tx, proposal).await?;
        if siblings.iter().any(|s| s.name == proposal.name) {
            return Err(Error::Exists(format!("ChangeSet {}", proposal.name)));
        }
        if siblings.len() >= MOST {
            return Err(Error::Refused(
                "LimitExceededException: too many change sets".into(),
            ));
        }
        let template = readable(text)?;
        capable(&template, &proposal.capabilities)?;
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
            template: text.to_owned(),
            bodies: bodies.clone(),
            failed: None,
            changes: Vec::new(),
            base: stack.operations,
            proposal: proposal.into(),
            executed: false,
        };
        for (name, value) in &mut set.proposal.parameters {
            if template.parameters.get(name).is_some_and(|p| p.no_echo) {
                *value = self.mark(value);
            }
        }
        match self.goal_of(&mut tx, &stack, &set, &template).await? {
            Ok(goal) => {
                if !set.create && is_idle(&stack, &goal) {
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
        self.save(&mut tx, &stack).await?;
        put(&mut tx, "change-set", &arn, stack.id.as_str(), &set).await?;
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

    pub(super) async fn review_change_set(&self, change_set: &str) -> Result<ChangeSet, Error> {
        self.world.count("DescribeChangeSet").await?;
        let mut tx = self.world.begin().await?;
        let set = self.change_set(&mut tx, change_set).await?;
        let stack = self.load(&mut tx, &StackRef::Id(set.stack.clone())).await?;
        tx.commit().await.map_err(WorldError::from)?;
        let moved = stack.as_ref().is_none_or(|s| s.operations != set.base);
        let status = match &set.failed {
            _ if self.world.clock.now() < set.ready_at => ChangeSetStatus::Creating,
            Some(reason) if reason == NO_CHANGES || reason == NO_UPDATES => {
                ChangeSetStatus::NoChanges
            }
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

    pub(super) async fn execute_change_set(
        &self,
        change_set: &str,
        token: &str,
    ) -> Result<(), Error> {
        self.world.count("ExecuteChangeSet").await?;
        let mut tx = self.world.begin().await?;
        let mut set = self.change_set(&mut tx, change_set).await?;
        let mut stack = self.stack(&mut tx, &set.stack).await?;
        if stack.token.as_deref() == Some(token) {
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
        let template = readable(&set.template)?;
        let goal = match self.goal_of(&mut tx, &stack, &set, &template).await? {
            Ok(goal) => goal,
            Err(GoalError::Evaluate(error)) => return Err(Error::Refused(error.message)),
            Err(GoalError::Needs(url)) => {
                return Err(Error::Refused(format!("{url} was not read")));
            }
        };
        // What the stack executed last is told from the start of the operation, not from its end.
        stack.last_change_set = Some(set.name.clone());
        let on_failure = set.proposal.on_failure;
        let create = set.create;
        let imported: BTreeSet<String> = set.proposal.import.keys().cloned().collect();
        self.begin(&mut tx, &mut stack, token, Some(&goal.form), |schedule| {
            if !imported.is_empty() {
                schedule.import(&goal, &imported);
            } else if create {
                schedule.create(&goal, on_failure);
            } else {
                schedule.update(&goal, on_failure);
            }
        })
        .await?;
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
        tx.commit().await.map_err(WorldError::from)?;
        Ok(())
    }

    pub(super) async fn delete_change_set(&self, change_set: &str) -> Result<(), Error> {
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

/// The API refuses a template that it cannot read at once, with a text that names the first fault.
fn readable(text: &str) -> Result<Template, Error> {
    parse_template("template", text).map_err(|findings| {
        let first = findings
            .first()
            .map(|f| f.message.clone())
            .unwrap_or_default();
        Error::Refused(format!("Template format error: {first}"))
    })
}

fn capable(template: &Template, capabilities: &[String]) -> Result<(), Error> {
    let missing: Vec<&str> = template
        .capabilities()
        .into_iter()
        .filter(|c| {
            !capabilities
                .iter()
                .any(|have| have == c || (*c == "CAPABILITY_IAM" && have == "CAPABILITY_NAMED_IAM"))
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Refused(format!(
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
