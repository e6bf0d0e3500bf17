//! Operations without a change set: deleting, cancelling, rolling back, protecting, and meddling.

use super::engine::LocalEngine;
use super::model::{Effect, Stack};
use super::world::WorldError;
use crate::domain::model::{StackId, StackName};
use crate::domain::plan::{StackStatus as S, StatusClass};
use crate::domain::policy::StackPolicy;
use crate::port::{Error, StackRef};

fn refused(call: &str, stack: &Stack) -> Error {
    Error::Refused(format!(
        "{call} cannot be called from current stack status {}: {}",
        stack.status, stack.id
    ))
}

impl LocalEngine {
    pub(super) async fn delete_stack(
        &self,
        stack: &StackId,
        token: &str,
        retain: &[String],
    ) -> Result<(), Error> {
        self.world.call("DeleteStack").await?;
        let mut tx = self.world.begin().await?;
        // To delete what is not there works.
        let Some(mut found) = self.load(&mut tx, &StackRef::Id(stack.clone())).await? else {
            return Ok(());
        };
        match found.status {
            S::DeleteComplete | S::DeleteInProgress => return Ok(()),
            _ if found.protected => {
                return Err(Error::Refused(format!(
                    "Stack [{}] cannot be deleted while TerminationProtection is enabled",
                    found.name
                )));
            }
            // A creation in motion is given up; every other operation is waited for.
            S::CreateInProgress => {}
            _ if !found.status.is_settled() => {
                return Err(Error::Busy(format!(
                    "Stack [{}] cannot be deleted while in status {}",
                    found.id, found.status
                )));
            }
            _ => {}
        }
        if !retain.is_empty() {
            if found.status != S::DeleteFailed {
                return Err(Error::Refused(format!(
                    "Invalid operation on stack [{}]. When you delete a stack, specify which resources to retain only when the stack is in the DELETE_FAILED state.",
                    found.id
                )));
            }
            if let Some(odd) = retain.iter().find(|r| !found.resources.contains_key(*r)) {
                return Err(Error::Refused(format!(
                    "The specified resources to retain must be in a valid state. Do not specify resources that are in the DELETE_COMPLETE state. [{odd}]"
                )));
            }
        }
        found.running = None;
        self.begin(&mut tx, &mut found, token, None, |schedule| {
            schedule.delete("User Initiated", retain, true);
        })
        .await?;
        self.drop_change_sets(&mut tx, stack, "").await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(())
    }

    pub(super) async fn cancel_update(&self, stack: &StackId, token: &str) -> Result<(), Error> {
        self.world.call("CancelUpdateStack").await?;
        let mut tx = self.world.begin().await?;
        let mut found = self.stack(&mut tx, stack).await?;
        if found.token.as_deref() == Some(token) {
            return Err(Error::AlreadyAccepted);
        }
        if found.status != S::UpdateInProgress || found.parent.is_some() {
            return Err(refused("CancelUpdateStack", &found));
        }
        let dropped = found.running.take().unwrap_or_default().steps;
        self.begin(&mut tx, &mut found, token, None, |schedule| {
            schedule.interrupted(&dropped);
            schedule.undo_update("User Initiated", &[]);
        })
        .await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(())
    }

    pub(super) async fn continue_update_rollback(
        &self,
        stack: &StackId,
        token: &str,
        skip: &[String],
    ) -> Result<(), Error> {
        self.world.call("ContinueUpdateRollback").await?;
        let mut tx = self.world.begin().await?;
        let mut found = self.stack(&mut tx, stack).await?;
        if found.token.as_deref() == Some(token) {
            return Err(Error::AlreadyAccepted);
        }
        if found.status != S::UpdateRollbackFailed || found.parent.is_some() {
            return Err(refused("ContinueUpdateRollback", &found));
        }
        let stable = found.stable.as_ref().map(|s| &s.resources);
        if let Some(odd) = skip.iter().find(|s| {
            let top = s.split('.').next().unwrap_or(s);
            !stable.is_some_and(|r| r.contains_key(top) && r.get(top) != found.resources.get(top))
                && !s.contains('.')
        }) {
            return Err(Error::Refused(format!(
                "Resources to skip must be in the UPDATE_FAILED state: [{odd}]"
            )));
        }
        self.begin(&mut tx, &mut found, token, None, |schedule| {
            schedule.undo_update("User Initiated", skip);
        })
        .await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(())
    }

    pub(super) async fn rollback_stack(&self, stack: &StackId, token: &str) -> Result<(), Error> {
        self.world.call("RollbackStack").await?;
        let mut tx = self.world.begin().await?;
        let mut found = self.stack(&mut tx, stack).await?;
        if found.token.as_deref() == Some(token) {
            return Err(Error::AlreadyAccepted);
        }
        let update = match found.status {
            S::UpdateFailed => true,
            S::CreateFailed => false,
            _ => return Err(refused("RollbackStack", &found)),
        };
        self.begin(&mut tx, &mut found, token, None, |schedule| {
            if update {
                schedule.undo_update("User Initiated", &[]);
            } else {
                // There is no earlier stable state, so the stack goes.
                schedule.delete("User Initiated", &[], false);
            }
        })
        .await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(())
    }

    pub(super) async fn put_policy(&self, stack: &StackId, policy: &str) -> Result<(), Error> {
        self.world.call("SetStackPolicy").await?;
        if policy.len() > 16_384 || StackPolicy::parse(policy).is_none() {
            return Err(Error::Refused(
                "Error validating stack policy: Invalid stack policy".into(),
            ));
        }
        self.edit(stack, |s| s.policy = Some(policy.to_owned()))
            .await
    }

    pub(super) async fn policy_of(&self, stack: &StackId) -> Result<Option<String>, Error> {
        self.world.call("GetStackPolicy").await?;
        let mut tx = self.world.begin().await?;
        let found = self.load(&mut tx, &StackRef::Id(stack.clone())).await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(found.and_then(|s| s.policy))
    }

    pub(super) async fn protect(&self, stack: &StackId, on: bool) -> Result<(), Error> {
        self.world.call("UpdateTerminationProtection").await?;
        if self.is_nested(stack).await? {
            return Err(Error::Refused(format!(
                "Termination protection cannot be set on the nested stack {stack}; set it on its root"
            )));
        }
        self.edit(stack, |s| s.protected = on).await
    }

    async fn is_nested(&self, stack: &StackId) -> Result<bool, Error> {
        let mut tx = self.world.begin().await?;
        let found = self.load(&mut tx, &StackRef::Id(stack.clone())).await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(found.is_some_and(|s| s.parent.is_some()))
    }

    async fn edit(&self, stack: &StackId, change: impl FnOnce(&mut Stack)) -> Result<(), Error> {
        let mut tx = self.world.begin().await?;
        let mut found = self.stack(&mut tx, stack).await?;
        if found.status.class() == StatusClass::Gone {
            return Err(Error::NotFound(format!("Stack [{stack}]")));
        }
        change(&mut found);
        self.save(&mut tx, &found).await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(())
    }

    /// Updates a stack behind isoform's back, by a change set of somebody else.
    pub async fn meddle(&self, stack: &StackName) -> Result<(), Error> {
        self.meddle_by(stack, Some("by-hand")).await
    }

    /// Updates a stack behind isoform's back, by a named change set or without any: then the one that was executed last
    /// is the one from before.
    pub async fn meddle_by(
        &self,
        stack: &StackName,
        change_set: Option<&str>,
    ) -> Result<(), Error> {
        let mut tx = self.world.begin().await?;
        let mut found = self
            .load(&mut tx, &StackRef::Name(stack.clone()))
            .await?
            .ok_or_else(|| Error::NotFound(format!("Stack [{stack}]")))?;
        self.begin(&mut tx, &mut found, "by-hand", None, |schedule| {
            schedule.status(
                S::UpdateInProgress,
                Some("User Initiated"),
                vec![Effect::Began],
            );
            schedule.status(S::UpdateComplete, None, vec![]);
        })
        .await?;
        if let Some(name) = change_set {
            found.last_change_set = Some(name.to_owned());
        }
        self.save(&mut tx, &found).await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(())
    }
}
