//! The fold, and what comes next.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::event::{Endorsed, Event, EventKind, Outcome, Pinned, Remedy, Settlement, Step};
use crate::domain::model::{
    Actor, Address, DeploymentId, Digest, Generation, InstallationId, Reason, Revision, SnapshotId,
    StackId, StackName, TargetUid, Timestamp,
};
use crate::domain::plan::{Watermark, change_set_name, owner_tags};
use crate::domain::policy::{Approval, Placed};

/// An event that may not follow what went before: a bug, or a damaged log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{event}` may not follow the phase {phase}")]
pub struct IllegalEvent {
    event: &'static str,
    phase: String,
}

/// How far a deployment has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Decided; nothing has happened.
    Begun,
    /// Bundle and text are stored.
    Stored,
    /// The change set exists.
    Proposed,
    /// It was read back.
    Reviewed,
    /// The execution was announced; it may have happened.
    Executing,
    /// CloudFormation took it.
    Executed,
}

/// A deployment that has not settled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deployment {
    /// What was pinned.
    pub pinned: Pinned,
    /// Who began it.
    pub actor: Actor,
    /// When it began.
    pub begun: Timestamp,
    /// How far it has come.
    pub phase: Phase,
    /// The version of the rendered object.
    pub rendered_version: Option<String>,
    /// The change set's ARN.
    pub change_set: Option<String>,
    /// The stack.
    pub stack: Option<StackId>,
    /// The review digest and the payload of its changes.
    pub review: Option<(Digest, Digest)>,
    /// Counts in words.
    pub summary: String,
    /// What would lose state.
    pub losses: Vec<String>,
    /// Whether only options change, and no change set is executed.
    pub settings_only: bool,
    /// What holds it, as last recorded.
    pub held: Vec<Reason>,
    /// Approvals.
    pub approvals: Vec<Approval>,
    /// How often the change set was made.
    pub attempt: u32,
    /// When the execution was announced.
    pub executing_since: Option<Timestamp>,
    /// Whether the rest of a failed creation was cleared for it.
    pub cleared: bool,
    /// Who rejected it, and why.
    pub rejected: Option<String>,
    /// Who wants it stopped, and why; and whether CloudFormation was told.
    pub cancel: Option<(String, bool)>,
    /// The stack policy as it was, as long as it is opened: no deployment ends before it is closed.
    pub opened: Option<Digest>,
    /// What was done about a stack that its failure left in between.
    pub treatment: Option<Treatment>,
}

/// What was done, once and without a person, about a stack that a failure left in between.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Treatment {
    /// The stack as it was.
    pub watermark: Option<Watermark>,
    /// When CloudFormation took it; absent while that is only announced, or where it refused.
    pub told: Option<Timestamp>,
    /// Whether it refused.
    pub refused: bool,
}

/// What an operator holds a target at, whatever Git asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pin {
    /// What the deployment that is brought back had pinned.
    pub to: Pinned,
    /// Who.
    pub by: Actor,
    /// Why.
    pub reason: String,
}

/// What was applied last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Applied {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The revision.
    pub revision: Revision,
    /// The template version.
    pub template: Option<String>,
    /// The bundle.
    pub bundle: Option<Digest>,
    /// The desired digest.
    pub digest: Digest,
    /// The renderer's epoch.
    pub epoch: u32,
    /// Digest of the inputs.
    pub inputs: Digest,
    /// Digest of what was given; absent in what was begun before there was one.
    pub given: Option<Digest>,
    /// Payload with inputs, parameters and rendered text.
    pub payload: Digest,
    /// Whether the repository itself asked for an approval of it.
    #[serde(default)]
    pub gated: bool,
    /// The stack's mark afterwards.
    pub watermark: Option<Watermark>,
    /// Payload with the outputs.
    pub outputs: Option<Digest>,
    /// When it settled.
    pub at: Timestamp,
}

impl Applied {
    fn new(
        pinned: &Pinned,
        watermark: Option<Watermark>,
        outputs: Option<Digest>,
        at: Timestamp,
    ) -> Self {
        Self {
            deployment: pinned.deployment.clone(),
            snapshot: pinned.snapshot,
            revision: pinned.revision.clone(),
            template: pinned.template.clone(),
            bundle: pinned.bundle.clone(),
            digest: pinned.digest.clone(),
            epoch: pinned.epoch,
            inputs: pinned.inputs.clone(),
            given: pinned.given.clone(),
            payload: pinned.payload.clone(),
            gated: pinned.placed.as_ref().is_some_and(|p| p.gate.is_some()),
            watermark,
            outputs,
            at,
        }
    }
}

/// Everything that a target's stream says, folded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    /// The target.
    pub uid: TargetUid,
    /// Its address today.
    pub address: Option<Address>,
    /// The address that it had before this one, where it has moved.
    pub came_from: Option<Address>,
    /// Its stack's name.
    pub stack_name: Option<StackName>,
    /// The stack that it owns.
    pub owned: Option<StackId>,
    /// The tags of an owner that the stack had when it was taken over: it keeps those, and gets no others.
    pub kept_tags: Option<BTreeMap<String, String>>,
    /// The largest generation so far.
    pub generation: Generation,
    /// The deployment in motion.
    pub current: Option<Deployment>,
    /// Where it was deployed last, for the day when nothing asks for it any more.
    pub placed: Option<Placed>,
    /// The targets that it uses: those of every deployment since that was last looked at in sync. Absent where only
    /// entries from before there were uids tell of them.
    pub uses: Option<BTreeSet<TargetUid>>,
    /// Whether its removal was held by the budget, and nobody has asked for it again since.
    pub over_budget: bool,
    /// What was applied last.
    pub applied: Option<Applied>,
    /// The payload of the last deployment that CloudFormation executed and that stands: what the stack was really given.
    pub sent: Option<Digest>,
    /// The last deployment that ended, with what was pinned.
    pub last: Option<(Pinned, Settlement, Timestamp)>,
    /// The digest whose failure must not be repeated until something changes.
    pub failed: Option<(Digest, Settlement, Timestamp)>,
    /// When its stacks were removed within the last days, for the budget: one that came back has been removed all the same.
    pub removed: Vec<Timestamp>,
    /// Why and until when it is suspended, and by whom.
    pub suspended: Option<(String, Option<Timestamp>, Actor)>,
    /// When somebody last let it go on: `resume` and `retry`.
    pub resumed: Option<Timestamp>,
    /// What an operator holds it at.
    pub pin: Option<Pin>,
    /// What an operator wants done about a stack that is stuck, with who and why.
    pub remedy: Option<(Remedy, Actor, String)>,
    /// A mark of the stack that somebody accepted, and whether the next change overwrites it.
    pub accepted: Option<(Option<Watermark>, bool)>,
    /// Names of change sets that were made for a preview and may still be there, with the stack's name where it is not its own.
    pub previews: BTreeMap<String, Option<StackName>>,
    /// Approvals that were given in pull requests, the newest last.
    pub endorsements: Vec<Endorsement>,
    /// Entries folded.
    pub entries: u64,
}

/// An approval that was given in a pull request, with who gave it and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endorsement {
    /// Of what.
    pub of: Endorsed,
    /// Who.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
}

/// How many approvals of pull requests are remembered for one target: more than are open at one time.
const ENDORSEMENTS: usize = 100;

/// How many removals of one target are remembered: far more than a day can hold.
const REMOVED: usize = 32;

/// What to do next with a deployment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Announce and perform a step.
    Do(Step),
    /// Read the change set back.
    Review,
    /// Ask the gates.
    Gate,
    /// Move a stack that is stuck, as an operator asked.
    Treat,
    /// Watch the stack until it is at rest.
    Watch,
}

impl History {
    /// Starts the history of a target.
    pub fn new(uid: TargetUid) -> Self {
        Self {
            uid,
            address: None,
            came_from: None,
            stack_name: None,
            owned: None,
            kept_tags: None,
            generation: Generation(0),
            current: None,
            placed: None,
            uses: None,
            over_budget: false,
            applied: None,
            sent: None,
            last: None,
            failed: None,
            removed: Vec::new(),
            suspended: None,
            resumed: None,
            pin: None,
            remedy: None,
            accepted: None,
            previews: BTreeMap::new(),
            endorsements: Vec::new(),
            entries: 0,
        }
    }

    /// Returns the tags that say whose its stack is.
    pub fn owner_tags(&self, installation: &InstallationId) -> BTreeMap<String, String> {
        let kept = self.kept_tags.clone();
        kept.unwrap_or_else(|| owner_tags(installation, &self.uid))
    }

    /// Folds a whole stream.
    pub fn fold<'a>(
        uid: TargetUid,
        events: impl IntoIterator<Item = &'a Event>,
    ) -> Result<Self, IllegalEvent> {
        let mut history = Self::new(uid);
        for event in events {
            history.record(event)?;
        }
        Ok(history)
    }

    /// Records one event. One arm for each legal transition; everything else is an error and changes nothing.
    pub fn record(&mut self, event: &Event) -> Result<(), IllegalEvent> {
        let illegal = |phase: &dyn std::fmt::Debug| {
            Err(IllegalEvent {
                event: event.kind.word(),
                phase: format!("{phase:?}"),
            })
        };
        let phase = self.current.as_ref().map(|d| d.phase.clone());
        match (&event.kind, &mut self.current) {
            (
                EventKind::Minted {
                    address,
                    stack_name,
                    ..
                },
                _,
            ) if self.address.is_none() => {
                self.address = Some(address.clone());
                self.stack_name = Some(stack_name.clone());
            }
            (EventKind::Moved { address }, _) if self.address.is_some() => {
                self.came_from = self.address.replace(address.clone());
            }
            (EventKind::Owned { stack }, current) => {
                self.owned = Some(stack.clone());
                if let Some(deployment) = current {
                    deployment.stack = Some(stack.clone());
                }
            }
            (
                EventKind::Adopted {
                    pinned,
                    stack,
                    outputs,
                    output_names,
                    kept_tags,
                    ..
                },
                None,
            ) if self.owned.is_none()
                && self.address.is_some()
                && pinned.generation > self.generation =>
            {
                self.generation = pinned.generation;
                self.stack_name = Some(pinned.stack_name.clone());
                self.owned = Some(stack.clone());
                self.kept_tags = Some(kept_tags.clone());
                self.placed.clone_from(&pinned.placed);
                let used = pinned.placed.as_ref().and_then(|p| p.used.clone());
                self.uses = used.map(|u| u.into_iter().collect());
                // What somebody else executed on it last is accepted with it.
                self.accepted = Some((pinned.watermark.clone(), false));
                self.applied = Some(Applied::new(
                    pinned,
                    pinned.watermark.clone(),
                    outputs.clone(),
                    event.at,
                ));
                self.failed = None;
                self.sent = None;
                let settled = Settlement {
                    outcome: Outcome::Applied,
                    status: pinned.watermark.as_ref().map(|w| w.status.clone()),
                    watermark: pinned.watermark.clone(),
                    outputs: outputs.clone(),
                    output_names: output_names.clone(),
                    cause: None,
                    reason: Reason::Settled,
                    stuck_on: Vec::new(),
                };
                self.last = Some(((**pinned).clone(), settled, event.at));
            }
            (EventKind::Begun(pinned), None) if pinned.generation > self.generation => {
                self.generation = pinned.generation;
                if let Some(placed) = &pinned.placed {
                    self.placed = Some(placed.clone());
                    self.over_budget = false;
                    // As long as this one is not applied, the stack uses what it used.
                    if let Some(used) = &placed.used {
                        self.uses
                            .get_or_insert_default()
                            .extend(used.iter().cloned());
                    }
                }
                let treats = pinned.removal || pinned.remedy.is_some();
                let removed = pinned.watermark.as_ref().filter(|_| treats);
                self.remedy = None;
                self.current = Some(Deployment {
                    stack: removed.map(|w| w.stack_id.clone()),
                    pinned: (**pinned).clone(),
                    actor: event.actor.clone(),
                    begun: event.at,
                    phase: Phase::Begun,
                    rendered_version: None,
                    change_set: None,
                    review: None,
                    summary: String::new(),
                    losses: Vec::new(),
                    settings_only: false,
                    held: Vec::new(),
                    approvals: Vec::new(),
                    attempt: 1,
                    executing_since: None,
                    cleared: false,
                    rejected: None,
                    cancel: None,
                    opened: None,
                    treatment: None,
                });
            }
            (EventKind::Announced(step), Some(deployment)) => match (step, &deployment.phase) {
                (Step::Store, Phase::Begun)
                    if !deployment.pinned.removal && deployment.pinned.remedy.is_none() => {}
                (Step::Remedy { remedy, .. }, Phase::Begun | Phase::Executing)
                    if deployment.pinned.remedy.as_ref() == Some(remedy) =>
                {
                    deployment.phase = Phase::Executing;
                    deployment.executing_since.get_or_insert(event.at);
                }
                (Step::Remedy { watermark, .. }, Phase::Executed) => {
                    deployment.treatment = Some(Treatment {
                        watermark: watermark.clone(),
                        told: None,
                        refused: false,
                    });
                }
                (Step::OpenPolicy { former }, Phase::Reviewed | Phase::Executing)
                    if deployment.approvals.iter().any(|a| a.opens) =>
                {
                    deployment.opened.get_or_insert(former.clone());
                }
                (Step::ClosePolicy, _) if deployment.opened.is_some() => {}
                (Step::Cancel { .. }, Phase::Executed) if deployment.cancel.is_some() => {}
                // Announced and never done: what was to run is taken away.
                (Step::Discard, Phase::Executing) => {}
                (Step::Delete { .. }, Phase::Reviewed | Phase::Executing)
                    if deployment.pinned.removal && !deployment.is_refused() =>
                {
                    deployment.phase = Phase::Executing;
                    deployment.executing_since.get_or_insert(event.at);
                }
                (Step::Clear { .. } | Step::Propose { .. }, Phase::Stored) => {}
                (Step::Discard, Phase::Stored | Phase::Proposed | Phase::Reviewed) => {}
                // Entries from before there were gates for it were announced before a review.
                (Step::Configure, Phase::Proposed | Phase::Executed) => {}
                (Step::Configure, Phase::Reviewed) if deployment.settings_only => {}
                (Step::Execute { .. }, Phase::Reviewed | Phase::Executing)
                    if !deployment.is_refused()
                        && !deployment.settings_only
                        && !deployment.pinned.removal =>
                {
                    deployment.phase = Phase::Executing;
                    deployment.executing_since.get_or_insert(event.at);
                }
                _ => return illegal(&phase),
            },
            (EventKind::Stored { version }, Some(deployment))
                if deployment.phase == Phase::Begun =>
            {
                deployment.rendered_version = version.clone();
                deployment.phase = Phase::Stored;
            }
            (EventKind::Cleared, Some(deployment)) if deployment.phase == Phase::Stored => {
                deployment.cleared = true;
                self.owned = None;
            }
            (EventKind::Proposed { change_set, stack }, Some(deployment))
                if deployment.phase == Phase::Stored =>
            {
                deployment.change_set = Some(change_set.clone());
                deployment.stack = Some(stack.clone());
                deployment.phase = Phase::Proposed;
            }
            (
                EventKind::Reviewed {
                    review,
                    payload,
                    summary,
                    losses,
                    settings_only,
                },
                Some(deployment),
            ) if matches!(deployment.phase, Phase::Proposed | Phase::Reviewed)
                || (deployment.pinned.removal && deployment.phase == Phase::Begun) =>
            {
                deployment.review = Some((review.clone(), payload.clone()));
                deployment.summary = summary.clone();
                deployment.losses = losses.clone();
                deployment.settings_only = *settings_only;
                deployment.phase = Phase::Reviewed;
            }
            (EventKind::Held { reasons, .. }, Some(deployment))
                if matches!(deployment.phase, Phase::Reviewed | Phase::Executing) =>
            {
                deployment.held = reasons.clone();
                self.over_budget |= reasons.contains(&Reason::PruneBudget);
            }
            (EventKind::PolicyClosed, Some(deployment)) if deployment.opened.is_some() => {
                deployment.opened = None;
            }
            (EventKind::Endorsed(of), _) => {
                let at = event.at;
                let by = event.actor.clone();
                let of = of.clone();
                self.endorsements.push(Endorsement { of, by, at });
                if self.endorsements.len() > ENDORSEMENTS {
                    self.endorsements.remove(0);
                }
            }
            (
                EventKind::Approved {
                    review,
                    opens,
                    carried,
                },
                Some(deployment),
            ) if deployment.phase == Phase::Reviewed && deployment.rejected.is_none() => {
                deployment.approvals.push(Approval {
                    review: review.clone(),
                    by: event.actor.clone(),
                    // It lives as long as it would have, had it been given here.
                    at: carried.as_ref().map_or(event.at, |c| c.at.min(event.at)),
                    opens: *opens,
                });
            }
            (EventKind::Rejected { reason, .. }, Some(deployment))
                if deployment.phase == Phase::Reviewed =>
            {
                deployment.rejected =
                    Some(format!("rejected by {}: {reason}", event.actor.display));
            }
            (EventKind::Executed, Some(deployment)) if deployment.phase == Phase::Executing => {
                deployment.phase = Phase::Executed;
            }
            (EventKind::CancelAsked { reason }, Some(deployment)) => {
                let by = format!("cancelled by {}: {reason}", event.actor.display);
                deployment.cancel.get_or_insert((by, false));
            }
            (EventKind::Cancelled { .. }, Some(deployment))
                if deployment.phase == Phase::Executed =>
            {
                match &mut deployment.cancel {
                    Some((_, told)) => *told = true,
                    None => return illegal(&phase),
                }
            }
            (EventKind::RemedyAsked { remedy, reason }, None)
                if self.owned.is_some() && self.last.is_some() =>
            {
                self.remedy = Some((remedy.clone(), event.actor.clone(), reason.clone()));
            }
            (EventKind::Remedied { refused }, Some(deployment)) => {
                match (&deployment.phase, &mut deployment.treatment) {
                    (Phase::Executing, _) if deployment.pinned.remedy.is_some() => {
                        deployment.phase = Phase::Executed;
                    }
                    (Phase::Executed, Some(treatment)) => {
                        treatment.refused = refused.is_some();
                        treatment.told = refused.is_none().then_some(event.at);
                    }
                    _ => return illegal(&phase),
                }
            }
            (EventKind::RollbackAsked { to, reason }, _) if self.owned.is_some() => {
                self.pin = Some(Pin {
                    to: (**to).clone(),
                    by: event.actor.clone(),
                    reason: reason.clone(),
                });
                self.failed = None;
            }
            (EventKind::FailureForgotten, None) if self.failed.is_some() => self.failed = None,
            (EventKind::Following, _) if self.pin.is_some() => self.pin = None,
            (EventKind::Settled(settlement), Some(deployment)) if deployment.opened.is_none() => {
                self.settle(settlement, event.at);
            }
            (EventKind::Retried, _) => {
                self.failed = None;
                self.remedy = None;
                self.resumed = Some(event.at);
            }
            (EventKind::Suspended { reason, until }, _) => {
                self.suspended = Some((reason.clone(), *until, event.actor.clone()));
            }
            (EventKind::Resumed, _) => {
                self.pin = None;
                self.remedy = None;
                self.suspended = None;
                self.resumed = Some(event.at);
            }
            (
                EventKind::DriftResolved {
                    watermark,
                    overwrite,
                    ..
                },
                _,
            ) => self.accepted = Some((watermark.clone(), *overwrite)),
            (EventKind::Uses { targets }, _) if self.address.is_some() => {
                self.uses = Some(targets.iter().cloned().collect());
            }
            (EventKind::Previewing { change_set, stack }, _) if self.address.is_some() => {
                self.previews.insert(change_set.clone(), stack.clone());
            }
            (EventKind::Previewed { change_set }, _) if self.previews.contains_key(change_set) => {
                self.previews.remove(change_set);
            }
            (EventKind::Tidying { .. }, _) if self.address.is_some() => {}
            _ => return illegal(&phase),
        }
        self.entries += 1;
        Ok(())
    }

    fn settle(&mut self, settlement: &Settlement, at: Timestamp) {
        let Some(deployment) = self.current.take() else {
            return;
        };
        let executed = deployment.phase == Phase::Executed;
        let pinned = deployment.pinned;
        match settlement.outcome {
            Outcome::Applied | Outcome::NoEffect => {
                if executed && settlement.outcome == Outcome::Applied {
                    self.sent = Some(pinned.payload.clone());
                }
                self.applied = Some(Applied::new(
                    &pinned,
                    settlement.watermark.clone(),
                    settlement.outputs.clone(),
                    at,
                ));
                self.failed = None;
                self.accepted = None;
            }
            Outcome::RolledBack
            | Outcome::CreateFailed
            | Outcome::ChangeSetFailed
            | Outcome::Stuck
            | Outcome::Cancelled
            | Outcome::Rejected => {
                // A remedy that did not help is about the same failure as before.
                let digest = match (&pinned.remedy, &self.failed) {
                    (Some(_), Some((digest, _, _))) => digest.clone(),
                    _ => pinned.digest.clone(),
                };
                self.failed = Some((digest, settlement.clone(), at));
                // The stack was moved by us: that is not drift.
                if let Some(applied) = &mut self.applied
                    && settlement.watermark.is_some()
                {
                    applied.watermark = settlement.watermark.clone();
                }
                if settlement.outcome == Outcome::CreateFailed && settlement.watermark.is_none() {
                    self.owned = None;
                }
            }
            Outcome::Remedied => {
                if let Some(applied) = &mut self.applied {
                    applied.watermark.clone_from(&settlement.watermark);
                }
                // What had failed stays failed: only its stack is not stuck any more.
                if let Some((_, failed, _)) = &mut self.failed {
                    failed.outcome = Outcome::RolledBack;
                    failed.reason = Reason::StackRolledBack;
                    failed.watermark.clone_from(&settlement.watermark);
                }
            }
            Outcome::Superseded => {
                // A removal that a newer commit has ended: it was asked for again.
                self.over_budget &= settlement.reason != Reason::NewerRevision;
            }
            Outcome::Removed => {
                self.applied = None;
                self.sent = None;
                self.owned = None;
                self.kept_tags = None;
                self.failed = None;
                self.accepted = None;
                self.over_budget = false;
                self.removed.push(at);
                let excess = self.removed.len().saturating_sub(REMOVED);
                self.removed.drain(..excess);
            }
        }
        self.last = Some((pinned, settlement.clone(), at));
    }
}

impl Deployment {
    /// Returns what comes next. The driver asks, performs, records, and asks again.
    pub fn next(&self, installation: &InstallationId) -> Next {
        match self.phase {
            Phase::Begun if self.pinned.removal => Next::Review,
            Phase::Begun if self.pinned.remedy.is_some() => Next::Treat,
            Phase::Begun => Next::Do(Step::Store),
            Phase::Stored => Next::Do(Step::Propose {
                name: change_set_name(
                    installation,
                    self.pinned.generation,
                    &self.pinned.digest,
                    self.attempt,
                ),
            }),
            Phase::Proposed => Next::Review,
            Phase::Reviewed => Next::Gate,
            // Announced and not answered: the same call once more, with the same token.
            Phase::Executing => Next::Do(Step::Execute {
                token: self.token(),
            }),
            Phase::Executed => Next::Watch,
        }
    }

    /// Returns the token of the execution: derived from the deployment, so a repeat is the same call.
    pub fn token(&self) -> String {
        format!("if-{}-a{}", self.pinned.deployment, self.attempt)
    }

    /// Tells whether a person said no to it: it must not run any more.
    pub fn is_refused(&self) -> bool {
        self.rejected.is_some() || self.cancel.is_some()
    }

    /// Tells whether the world may have been changed already, so that nothing newer may take its place.
    pub fn is_executing(&self) -> bool {
        matches!(self.phase, Phase::Executing | Phase::Executed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pinned(generation: u64) -> Pinned {
        Pinned {
            deployment: "0192f0c1-2a3b-7c4d-8e5f-001122334455".parse().unwrap(),
            generation: Generation(generation),
            snapshot: SnapshotId(1),
            revision: "0".repeat(40).parse().unwrap(),
            template: None,
            bundle: None,
            digest: Digest::of("d1", b"x"),
            epoch: 1,
            inputs: Digest::of("i1", b""),
            given: None,
            watermark: None,
            stack_name: "s".parse().unwrap(),
            rendered: "rendered/x".into(),
            payload: Digest::of("h1", b""),
            placed: None,
            removal: false,
            rollback: false,
            remedy: None,
        }
    }

    fn event(kind: EventKind) -> Event {
        Event {
            target: uid(),
            at: Timestamp(1),
            actor: Actor::daemon("test"),
            kind,
        }
    }

    fn uid() -> TargetUid {
        "0".repeat(32).parse().unwrap()
    }

    fn stack() -> StackId {
        "arn:aws:cloudformation:r-1:1:stack/s/u".parse().unwrap()
    }

    fn settled(outcome: Outcome) -> EventKind {
        EventKind::Settled(Box::new(Settlement {
            outcome,
            status: None,
            watermark: None,
            outputs: None,
            output_names: vec![],
            cause: None,
            reason: Reason::Settled,
            stuck_on: vec![],
        }))
    }

    fn whole() -> Vec<EventKind> {
        vec![
            EventKind::Minted {
                address: Address::stack("a"),
                stack_name: "s".parse().unwrap(),
                given: false,
            },
            EventKind::Begun(Box::new(pinned(1))),
            EventKind::Announced(Step::Store),
            EventKind::Stored { version: None },
            EventKind::Announced(Step::Propose { name: "n".into() }),
            EventKind::Proposed {
                change_set: "c".into(),
                stack: stack(),
            },
            EventKind::Owned { stack: stack() },
            EventKind::Reviewed {
                review: Digest::of("r1", b""),
                payload: Digest::of("h1", b""),
                summary: String::new(),
                losses: vec![],
                settings_only: false,
            },
            EventKind::Announced(Step::Execute { token: "t".into() }),
            EventKind::Executed,
            settled(Outcome::Applied),
        ]
    }

    #[test]
    fn a_whole_journey_folds_to_what_was_applied() {
        let events: Vec<Event> = whole().into_iter().map(event).collect();
        let history = History::fold(uid(), &events).unwrap();
        assert_eq!(history.applied.unwrap().digest, Digest::of("d1", b"x"));
        assert!(history.current.is_none() && history.owned.is_some());
    }

    #[test]
    fn a_stack_that_came_back_has_been_removed_all_the_same() {
        let mut removal = pinned(2);
        removal.removal = true;
        removal.watermark = Some(crate::domain::plan::Watermark {
            stack_id: stack(),
            status: crate::domain::plan::StackStatus::CreateComplete,
            updated: None,
            operation: None,
        });
        let mut kinds = whole();
        kinds.push(EventKind::Begun(Box::new(removal)));
        kinds.push(settled(Outcome::Removed));
        kinds.extend(whole().into_iter().skip(1).map(|kind| match kind {
            EventKind::Begun(_) => EventKind::Begun(Box::new(pinned(3))),
            other => other,
        }));
        let events: Vec<Event> = kinds.into_iter().map(event).collect();

        let history = History::fold(uid(), &events).unwrap();

        assert_eq!(history.removed, [Timestamp(1)]);
        assert_eq!(history.last.unwrap().1.outcome, Outcome::Applied);
    }

    #[test]
    fn what_it_used_counts_until_it_is_seen_in_sync_with_less() {
        let other = |digit: &str| digit.repeat(32).parse::<TargetUid>().unwrap();
        let using = |generation: u64, digit: &str| {
            let mut pinned = pinned(generation);
            pinned.placed = Some(Placed {
                source: "s".parse().unwrap(),
                placement: "p".parse().unwrap(),
                uses: Vec::new(),
                used: Some(vec![other(digit)]),
                prune: None,
                gate: None,
                windows: Vec::new(),
            });
            EventKind::Begun(Box::new(pinned))
        };
        let mut kinds = whole();
        kinds[1] = using(1, "1");
        kinds.extend([using(2, "2"), settled(Outcome::RolledBack)]);
        let events: Vec<Event> = kinds.into_iter().map(event).collect();
        let mut history = History::fold(uid(), &events).unwrap();
        assert_eq!(history.uses, Some([other("1"), other("2")].into()));

        let targets = vec![other("3")];
        history.record(&event(EventKind::Uses { targets })).unwrap();

        assert_eq!(history.uses, Some([other("3")].into()));
    }

    #[test]
    fn a_removal_over_the_budget_stays_so_until_it_is_asked_for_again() {
        let removal = |generation| {
            let mut removal = pinned(generation);
            removal.removal = true;
            EventKind::Begun(Box::new(removal))
        };
        let ended = |reason| {
            let EventKind::Settled(mut settlement) = settled(Outcome::Superseded) else {
                unreachable!("it settles");
            };
            settlement.reason = reason;
            EventKind::Settled(settlement)
        };
        let reviewed = whole()[7].clone();
        let held = EventKind::Held {
            reasons: vec![Reason::PruneBudget],
            detail: Vec::new(),
        };
        let mut kinds = whole();
        kinds.extend([
            removal(2),
            reviewed,
            held,
            ended(Reason::Invalid),
            removal(3),
        ]);
        let events: Vec<Event> = kinds.into_iter().map(event).collect();
        let mut history = History::fold(uid(), &events).unwrap();
        // It was taken back because a source could not be read, and began anew.
        assert!(history.over_budget);

        history
            .record(&event(ended(Reason::NewerRevision)))
            .unwrap();

        assert!(!history.over_budget);
    }

    #[test]
    fn an_intent_without_an_outcome_gives_the_same_step_again() {
        let installation = "0".repeat(32).parse().unwrap();
        let events: Vec<Event> = whole().into_iter().take(9).map(event).collect();
        let deployment = History::fold(uid(), &events).unwrap().current.unwrap();
        assert_eq!(
            deployment.next(&installation),
            Next::Do(Step::Execute {
                token: deployment.token()
            })
        );
    }

    #[test]
    fn generations_only_grow() {
        let mut history =
            History::fold(uid(), &whole().into_iter().map(event).collect::<Vec<_>>()).unwrap();
        assert!(
            history
                .record(&event(EventKind::Begun(Box::new(pinned(1)))))
                .is_err()
        );
        assert!(
            history
                .record(&event(EventKind::Begun(Box::new(pinned(2)))))
                .is_ok()
        );
    }

    #[test]
    fn nothing_executes_that_was_not_reviewed() {
        let mut history = History::new(uid());
        for kind in whole().into_iter().take(6) {
            history.record(&event(kind)).unwrap();
        }
        assert!(
            history
                .record(&event(EventKind::Announced(Step::Execute {
                    token: "t".into()
                })))
                .is_err()
        );
    }

    proptest! {
        /// No order of events makes the fold panic, and what is refused changes nothing.
        #[test]
        fn the_fold_never_panics(order in proptest::collection::vec(0usize..14, 0..40)) {
            let mut all = whole();
            all.extend([settled(Outcome::Superseded), EventKind::Retried, EventKind::Resumed]);
            let mut history = History::new(uid());
            for index in order {
                let before = history.clone();
                if history.record(&event(all[index].clone())).is_err() {
                    prop_assert_eq!(&history, &before);
                }
            }
        }
    }
}
