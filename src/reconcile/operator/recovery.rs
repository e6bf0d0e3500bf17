//! Ways back, as operators ask for them: `cancel`, `continue`, `rollback`. `recover.rs` does them.

use super::{Line, OperatorError};
use crate::domain::audit::{Body, Stream};
use crate::domain::deployment::{EventKind, History, Outcome, Pinned, Remedy};
use crate::domain::model::{Actor, Address, TargetUid};
use crate::domain::plan::{StackStatus, StatusClass};
use crate::domain::policy::Mode;
use crate::port::StackRef;
use crate::reconcile::Error;
use crate::reconcile::removal::removal_digest;

impl Line {
    /// Stops the deployment in motion: one that waits is discarded, an update that runs is rolled back by CloudFormation.
    ///
    /// The same is not tried again by itself. A creation and a deletion cannot be stopped.
    pub async fn cancel(
        &self,
        target: &str,
        reason: &str,
        actor: &Actor,
    ) -> Result<String, OperatorError> {
        let (uid, address) = self.one(target)?;
        let Some(deployment) = self.history(&uid).and_then(|h| h.current.clone()) else {
            return Err(OperatorError::NotNow(format!(
                "nothing is in motion for {address}: see `isoform why {address}`"
            )));
        };
        let pinned = &deployment.pinned;
        let runs = deployment.is_executing();
        if runs && pinned.removal {
            return Err(OperatorError::NotNow(
                "a deletion that runs cannot be stopped".into(),
            ));
        }
        if runs && pinned.remedy.is_some() {
            return Err(OperatorError::NotNow(format!(
                "the stack of {address} is on its way out of a failure, and that cannot be stopped"
            )));
        }
        if runs && (pinned.watermark.is_none() || deployment.cleared) {
            return Err(OperatorError::NotNow(
                "CloudFormation cannot stop a creation: if it fails, its stack goes by itself"
                    .into(),
            ));
        }
        if deployment.cancel.is_some() {
            return Err(OperatorError::NotNow(format!(
                "{address} is being cancelled already"
            )));
        }
        let event = EventKind::CancelAsked {
            reason: reason.to_owned(),
        };
        self.record(&uid, actor.clone(), event, Vec::new()).await?;
        self.ship().await?;
        self.look_again(&uid);
        // Whoever watches it tells CloudFormation, and looks again at once.
        if let Some(stack) = &deployment.stack {
            self.watching.hint(stack);
        }
        Ok(if runs {
            format!(
                "{address}: CloudFormation is told to stop; follow it with `isoform wait {address}`"
            )
        } else {
            format!("{address}: cancelled before anything ran")
        })
    }

    /// Moves a stack that is stuck: what that takes follows from its status.
    ///
    /// `skip` names resources by their logical ids: those that a rollback leaves as they are, or a deletion keeps.
    pub async fn go_on(
        &self,
        target: &str,
        skip: &[String],
        reason: &str,
        actor: &Actor,
    ) -> Result<String, OperatorError> {
        let (uid, address) = self.one(target)?;
        let history = self.history(&uid);
        let Some((history, target)) = history.and_then(|h| Some((h.clone(), self.departed(&h)?)))
        else {
            return Err(OperatorError::NotNow(format!("{address} has no stack")));
        };
        let Some(stack) = history.owned.clone().filter(|_| history.current.is_none()) else {
            return Err(OperatorError::NotNow(format!(
                "{address} is in motion: see `isoform why {address}`"
            )));
        };
        if self.mode(&target) == Mode::Observe {
            return Err(OperatorError::NotNow(format!(
                "the mode of `{}` is observe: nothing is done to its stacks",
                target.placement.name
            )));
        }
        self.check_allowed(&uid, &address, actor)?;
        let engine = self
            .ports
            .engine(&target.placement, &target.region)
            .map_err(Error::from)?;
        let observed = engine
            .describe(&StackRef::Id(stack.clone()))
            .await
            .map_err(Error::from)?;
        let Some(observed) = observed else {
            return Err(OperatorError::NotNow(format!("{stack} is gone")));
        };
        let asked = self
            .newest()
            .is_some_and(|s| s.uids.get(&address) == Some(&uid));
        if history.last.is_none() {
            return Err(OperatorError::NotNow(format!(
                "{address} was never deployed by isoform: mend its stack by hand"
            )));
        }
        let remedy = remedy(&observed.status, may_go(&history, asked), skip, &address)
            .map_err(OperatorError::NotNow)?;
        let said = match &remedy {
            Remedy::Continue { skip } if skip.is_empty() => "its rollback goes on".to_owned(),
            Remedy::Continue { skip } => {
                format!("its rollback goes on without {}", skip.join(", "))
            }
            Remedy::Rollback => "it is rolled back".to_owned(),
            Remedy::Delete { retain } if retain.is_empty() => "what is left is deleted".to_owned(),
            Remedy::Delete { retain } => {
                format!("what is left is deleted, and {} stays", retain.join(", "))
            }
        };
        let event = EventKind::RemedyAsked {
            remedy,
            reason: reason.to_owned(),
        };
        self.record(&uid, actor.clone(), event, Vec::new()).await?;
        self.ship().await?;
        self.look_again(&uid);
        Ok(format!(
            "{address}: {said}; follow it with `isoform wait {address}`"
        ))
    }

    /// Brings back what an earlier deployment gave a target, and follows Git no more until it asks for the same.
    ///
    /// `to` is the beginning of a deployment's id or of a commit, or a template's version. Without it, it is what the stack
    /// has where the newest change failed, and what it had before otherwise. Review, gates and fence are those of every change;
    /// no wave holds it.
    pub async fn rollback(
        &self,
        target: &str,
        to: Option<&str>,
        reason: &str,
        actor: &Actor,
    ) -> Result<String, OperatorError> {
        let (uid, address) = self.one(target)?;
        let Some(history) = self.history(&uid).filter(|h| h.owned.is_some()) else {
            return Err(OperatorError::NotNow(format!("{address} has no stack")));
        };
        if history.current.as_ref().is_some_and(|d| d.is_executing()) {
            return Err(OperatorError::NotNow(format!(
                "a deployment of {address} runs: `isoform cancel {address}`, or wait until it has settled"
            )));
        }
        let recorded = self.recorded(&uid).await?;
        let serving = history.applied.as_ref().map(|a| a.deployment.clone());
        let found = match to {
            Some(text) => {
                let means = |p: &&Pinned| {
                    text.len() >= 4
                        && (p.deployment.as_str().starts_with(text)
                            || p.revision.as_str().starts_with(text))
                        || p.template.as_deref().is_some_and(|t| {
                            t == text || t.split_once('@').is_some_and(|(_, v)| v == text)
                        })
                };
                recorded.iter().rev().find(means)
            }
            None if history.failed.is_some() => recorded
                .iter()
                .rev()
                .find(|p| Some(&p.deployment) == serving.as_ref()),
            None => {
                let now = history.applied.as_ref().map(|a| &a.digest);
                recorded.iter().rev().find(|p| Some(&p.digest) != now)
            }
        };
        let Some(to) = found.cloned() else {
            let all: Vec<String> = recorded
                .iter()
                .rev()
                .take(10)
                .map(|p| {
                    let template = p.template.as_deref().unwrap_or_default();
                    format!("{} ({} {template})", p.deployment, p.revision.short())
                })
                .collect();
            let asked = to.map_or_else(
                || "no other deployment succeeded".to_owned(),
                |t| {
                    format!(
                        "`{}` is no deployment of {address} that succeeded",
                        t.escape_debug()
                    )
                },
            );
            return Err(OperatorError::NoSuch(if all.is_empty() {
                asked
            } else {
                format!("{asked}; there are: {}", all.join(", "))
            }));
        };
        if self
            .store
            .payload(&to.payload)
            .await
            .map_err(Error::from)?
            .is_none()
        {
            return Err(OperatorError::NotNow(format!(
                "what deployment {} was given is not kept any more",
                to.deployment
            )));
        }
        let there = serving.as_ref() == Some(&to.deployment);
        let said = format!(
            "{address}: {} {} of {}; Git is not followed until it asks for the same, or `isoform resume {address}`",
            if there { "held at" } else { "goes back to" },
            to.deployment,
            to.revision.short()
        );
        let event = EventKind::RollbackAsked {
            to: Box::new(to),
            reason: reason.to_owned(),
        };
        self.record(&uid, actor.clone(), event, Vec::new()).await?;
        self.ship().await?;
        self.look_again(&uid);
        Ok(said)
    }

    /// Returns what the deployments of a target had pinned that succeeded, oldest first.
    async fn recorded(&self, uid: &TargetUid) -> Result<Vec<Pinned>, OperatorError> {
        let entries = self
            .store
            .stream(&Stream::Target(uid.clone()))
            .await
            .map_err(Error::from)?;
        let mut found = Vec::new();
        let mut begun = None;
        for entry in entries {
            match entry.body {
                Body::Target(EventKind::Adopted { pinned, .. }) => found.push(*pinned),
                Body::Target(EventKind::Begun(pinned)) => begun = Some(pinned),
                Body::Target(EventKind::Settled(settled)) => {
                    let worked = matches!(settled.outcome, Outcome::Applied | Outcome::NoEffect);
                    found.extend(begun.take().filter(|_| worked).map(|p| *p));
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Tells whether the stack of a target may be deleted to get it out of a failure; `asked` says whether Git has the target.
fn may_go(history: &History, asked: bool) -> bool {
    // What failed is a removal of this very stack, and nobody has asked for the target again since.
    let failed = history.failed.as_ref().map(|(digest, _, _)| digest);
    let removal = history
        .owned
        .as_ref()
        .map(|s| removal_digest(&history.uid, s));
    let removal = failed.is_some() && failed == removal.as_ref() && !asked;
    history.applied.is_none() || removal
}

/// Tells what moves a stack, or why nothing can.
///
/// `may_go` says whether the stack may be deleted.
fn remedy(
    status: &StackStatus,
    may_go: bool,
    skip: &[String],
    address: &Address,
) -> Result<Remedy, String> {
    use StackStatus as S;
    let remedy = match status {
        S::UpdateRollbackFailed => Remedy::Continue {
            skip: skip.to_vec(),
        },
        S::UpdateFailed => Remedy::Rollback,
        S::CreateFailed | S::RollbackFailed if may_go => Remedy::Delete { retain: Vec::new() },
        S::DeleteFailed if may_go => Remedy::Delete {
            retain: skip.to_vec(),
        },
        // Rolling a creation back deletes the stack too.
        S::CreateFailed | S::RollbackFailed | S::DeleteFailed => {
            return Err(format!(
                "the stack is {status}, and only deleting it can move it; {address} is deployed and asked for, so isoform does not: take it out of Git first, or mend it by hand"
            ));
        }
        S::RollbackComplete => {
            return Err(format!(
                "the stack is {status}: `isoform retry {address}` deletes it and makes it anew"
            ));
        }
        status => {
            return Err(match status.class() {
                StatusClass::Moving | StatusClass::CleaningUp | StatusClass::RollingBack => {
                    format!("the stack is in motion: {status}")
                }
                StatusClass::Stuck | StatusClass::Unknown => {
                    format!("the stack is {status}: only the console or AWS support can move it")
                }
                _ => format!(
                    "the stack is {status}: there is nothing to move; `isoform retry {address}` tries again what failed"
                ),
            });
        }
    };
    let takes = matches!(remedy, Remedy::Continue { .. }) || *status == S::DeleteFailed;
    if !takes && !skip.is_empty() {
        return Err(format!(
            "the stack is {status}: nothing can be skipped there; leave --skip out"
        ));
    }
    Ok(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_stack_follows_from_its_status() {
        let address = Address::stack("a");
        let names = ["Db".to_owned()];
        let mut lines = Vec::new();
        for status in StackStatus::ALL {
            let of = |may_go, skip: &[String]| remedy(status, may_go, skip, &address);
            let (plain, skipping) = (of(true, &[]), of(true, &names));
            lines.push(format!("{status}: {plain:?}"));
            // What cannot be moved cannot be moved by skipping either.
            assert!(plain.is_ok() || skipping.is_err(), "{status}");
            if of(false, &[]) != plain {
                lines.push(format!("  deployed and asked for: {:?}", of(false, &[])));
            }
        }
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_deployed_stack_is_never_deleted_to_get_it_out_of_a_failure() {
        let address = Address::stack("a");
        for status in StackStatus::ALL {
            let moved = remedy(status, false, &[], &address);
            let kept = !matches!(moved, Ok(Remedy::Delete { .. }));
            // CloudFormation deletes what it rolls back before it was ever whole.
            assert!(kept, "{status}");
            let rolled = matches!(moved, Ok(Remedy::Rollback));
            assert!(!rolled || *status == StackStatus::UpdateFailed, "{status}");
        }
    }
}
