//! Watching what runs until it rests, and writing down how it ended.

use std::collections::BTreeMap;
use std::time::Duration;

use super::watch::Listed;
use super::{Error, Line};
use crate::domain::deployment::{
    Deployment, EventKind, Outcome, Pinned, Settlement, Step, conceal,
};
use crate::domain::estate::Target;
use crate::domain::model::{Actor, Reason, StackId, SyncResult, TargetUid};
use crate::domain::plan::{ChangeSetStatus, Observed, StatusClass};
use crate::port::{self, StackEngine, StackEvent, StackRef};
use crate::testing::crash_point;
use crate::workqueue::TargetGuard;

/// How long a read may show a stack as it was before an operation that was accepted.
pub(super) const LAG: Duration = Duration::from_secs(60);

/// Tells whether a stack reads as if nothing had been executed yet.
fn as_before(observed: Option<&Observed>, deployment: &Deployment) -> bool {
    match observed {
        None => true,
        Some(stack) if stack.status.class() == StatusClass::Gone => false,
        Some(stack) => {
            let watermark = stack.watermark();
            watermark.is_none() || watermark == deployment.pinned.watermark
        }
    }
}

/// Returns the resources that failed since a stack last began to move: those keep it where it is.
fn stuck_on(events: &[StackEvent], stack: &str) -> Vec<String> {
    let began = |e: &StackEvent| e.logical == stack && e.status.ends_with("_IN_PROGRESS");
    let since = events.iter().rposition(began).unwrap_or_default();
    let mut newest: BTreeMap<&str, &str> = BTreeMap::new();
    for event in events[since..].iter().filter(|e| e.logical != stack) {
        newest.insert(&event.logical, &event.status);
    }
    let failed = newest.iter().filter(|(_, s)| s.ends_with("_FAILED"));
    failed.map(|(logical, _)| (*logical).to_owned()).collect()
}

impl Line {
    /// Watches the stack until it is at rest. Returns false when the daemon stops first.
    pub(super) async fn watch_stack(
        &self,
        guard: &TargetGuard<TargetUid>,
        engine: &dyn StackEngine,
        target: &Target,
        deployment: &Deployment,
    ) -> Result<bool, Error> {
        let uid = guard.key();
        let stack = deployment
            .stack
            .clone()
            .ok_or_else(|| Error::Broken("no stack to watch".into()))?;
        let least = engine.least_wait();
        let watched = self.watching.watch(&stack, &self.clock);
        let mut wait = Duration::from_millis(20);
        let mut told: Vec<StackEvent> = Vec::new();
        let mut patience = self.clock.steady().plus(LAG);
        let total = match &deployment.review {
            Some((_, payload)) => self.review_of(payload).await?.changes.len(),
            None => 0,
        };
        let mut listed = Listed::Unsure;
        let observed = loop {
            let looked = self.clock.steady();
            let status = match listed {
                Listed::Moving(status) => Some(status),
                Listed::NoNews => None,
                Listed::Unsure => {
                    let observed = engine.describe(&StackRef::Id(stack.clone())).await?;
                    let settled = observed.as_ref().is_none_or(|o| o.status.is_settled());
                    // Reads lag behind what was caused and seen: a stack that is as it was before is read again, for a
                    // bounded time.
                    let lags =
                        as_before(observed.as_ref(), deployment) && self.clock.steady() < patience;
                    let lags = lags || self.reads_before(deployment, observed.as_ref());
                    if settled && !lags {
                        break observed;
                    }
                    observed.map(|o| o.status)
                }
            };
            if status.as_ref().is_some_and(|s| !s.is_settled()) {
                patience = self.clock.steady().plus(LAG);
            }
            self.tell_to_stop(guard, engine, target, &stack).await?;
            let token = deployment.token();
            // Where calls are counted, progress in detail is for what runs alone.
            if least.is_zero() || watched.is_alone() {
                let newest = told.last().map(|e| e.id.clone());
                told.extend(engine.events(&stack, newest.as_deref()).await?);
            }
            let done = told
                .iter()
                .filter(|e| {
                    e.token.as_deref() == Some(token.as_str())
                        && e.status.ends_with("_COMPLETE")
                        && e.logical != deployment.pinned.stack_name.as_str()
                })
                .count();
            let (result, word) = match status.as_ref().map(|s| s.class()) {
                Some(StatusClass::CleaningUp) => (SyncResult::CleaningUp, "cleaning up"),
                Some(StatusClass::RollingBack) => (SyncResult::Applying, "rolling back"),
                _ if deployment.pinned.removal => (SyncResult::Applying, "deleting"),
                _ if deployment.pinned.watermark.is_none() => (SyncResult::Applying, "creating"),
                _ => (SyncResult::Applying, "updating"),
            };
            self.show(uid, result, Reason::Settled, deployment.summary.clone())
                .await?;
            self.progress(uid, format!("{word} {} of {total}", done.min(total)));
            listed = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(false),
                listed = watched.next(engine, looked, wait) => listed,
            };
            wait = (wait * 3 / 2).min(Duration::from_secs(1));
        };
        drop(watched);
        // Somebody may have asked to stop it since.
        let deployment = self.history(uid).and_then(|h| h.current.clone());
        let deployment = deployment.ok_or_else(|| Error::Broken("nothing is in motion".into()))?;
        self.end(guard, engine, target, &deployment, observed)
            .await?;
        Ok(true)
    }

    pub(super) async fn operation_events(
        &self,
        engine: &dyn StackEngine,
        stack: &StackId,
        deployment: &Deployment,
    ) -> Result<Vec<StackEvent>, Error> {
        let token = deployment.token();
        Ok(engine
            .events(stack, None)
            .await?
            .into_iter()
            .filter(|e| e.token.as_deref() == Some(token.as_str()))
            .collect())
    }

    async fn end(
        &self,
        guard: &TargetGuard<TargetUid>,
        engine: &dyn StackEngine,
        target: &Target,
        deployment: &Deployment,
        observed: Option<Observed>,
    ) -> Result<(), Error> {
        let stack = deployment
            .stack
            .clone()
            .ok_or_else(|| Error::Broken("no stack".into()))?;
        if deployment.pinned.removal {
            let found = self
                .cause(engine, &stack, deployment, observed.as_ref())
                .await;
            return self.end_removal(guard, observed.as_ref(), found).await;
        }
        if deployment.pinned.remedy.is_some() {
            let found = self
                .cause(engine, &stack, deployment, observed.as_ref())
                .await;
            return self
                .end_remedy(guard, deployment, observed.as_ref(), found)
                .await;
        }
        if self
            .heal(guard, engine, target, deployment, observed.as_ref())
            .await?
        {
            return Ok(());
        }
        self.close_policy(guard, target, engine).await?;
        // It shows nothing of what was accepted: only the change set itself can say that it ran.
        let unmoved = observed.as_ref().is_some_and(|o| o.watermark().is_some())
            && as_before(observed.as_ref(), deployment);
        if unmoved && let Some(change_set) = &deployment.change_set {
            let status = match engine.review(change_set).await {
                Ok(read) => Some(read.status),
                Err(port::Error::NotFound(_)) => None,
                Err(error) => return Err(error.into()),
            };
            match status {
                Some(ChangeSetStatus::Executed) => {}
                Some(ChangeSetStatus::Executing) => {
                    let says = "CloudFormation executes the change set, and the stack does not show it yet";
                    return Err(port::Error::Unavailable(says.into()).into());
                }
                other => {
                    let cause = format!(
                        "the execution was accepted, and nothing came of it: {}",
                        match other {
                            Some(status) => format!("the change set is {status:?}"),
                            None => "the change set is gone".to_owned(),
                        }
                    );
                    let (outcome, reason) = (Outcome::Stuck, Reason::StackStuck);
                    return self
                        .settle(guard, outcome, reason, Some(cause), observed.as_ref())
                        .await;
                }
            }
        }
        let class = observed
            .as_ref()
            .map_or(StatusClass::Gone, |o| o.status.class());
        let (outcome, reason) = match class {
            StatusClass::Ready => (Outcome::Applied, Reason::Settled),
            StatusClass::RolledBack => (Outcome::RolledBack, Reason::StackRolledBack),
            StatusClass::Gone | StatusClass::Dead
                if deployment.pinned.watermark.is_none() || deployment.cleared =>
            {
                (Outcome::CreateFailed, Reason::StackCreateFailed)
            }
            _ => (Outcome::Stuck, Reason::StackStuck),
        };
        if outcome == Outcome::Applied {
            let pinning = self.pinning(&deployment.pinned.payload).await?;
            if pinning.stack_policy.is_some() || pinning.termination_protection.is_some() {
                self.step(guard, target, engine, Step::Configure).await?;
            }
            return self
                .settle(guard, outcome, reason, None, observed.as_ref())
                .await;
        }
        if let (Outcome::RolledBack, Some((by, _))) = (outcome, &deployment.cancel) {
            let (outcome, reason) = (Outcome::Cancelled, Reason::Cancelled);
            return self
                .settle(guard, outcome, reason, Some(by.clone()), observed.as_ref())
                .await;
        }
        let (cause, stuck_on) = self
            .cause(engine, &stack, deployment, observed.as_ref())
            .await;
        self.settle_with(guard, outcome, reason, cause, observed.as_ref(), stuck_on)
            .await
    }

    /// Finds why an operation failed, and what keeps its stack from moving where it is stuck.
    ///
    /// The first failure is the cause; what follows it is only cancelled. Where no resource failed, the stack itself says why.
    async fn cause(
        &self,
        engine: &dyn StackEngine,
        stack: &StackId,
        deployment: &Deployment,
        observed: Option<&Observed>,
    ) -> (Option<String>, Vec<String>) {
        let all = engine.events(stack, None).await.unwrap_or_default();
        let token = deployment.token();
        let begins = |e: &StackEvent| e.token.as_deref().is_some_and(|t| t.starts_with(&token));
        let mut events = all.iter().filter(|e| begins(e));
        let words = |e: &StackEvent| e.reason.clone().filter(|r| r != "User Initiated");
        let said = |e: &StackEvent| {
            let reason = words(e).unwrap_or_else(|| "no reason was given".into());
            match e.logical == deployment.pinned.stack_name.as_str() {
                true => reason,
                false => format!("{}: {reason}", e.logical),
            }
        };
        let cause = events
            .clone()
            .find(|e| {
                e.status.ends_with("_FAILED") && e.logical != deployment.pinned.stack_name.as_str()
            })
            .or_else(|| {
                events.find(|e| {
                    let turns = e.status.contains("ROLLBACK") || e.status.ends_with("_FAILED");
                    turns && words(e).is_some()
                })
            })
            .map(said)
            .or_else(|| observed.and_then(|o| o.status_reason.clone()));
        let stuck = observed.filter(|o| o.status.class() == StatusClass::Stuck);
        let Some(stuck) = stuck else {
            return (cause, Vec::new());
        };
        let keeps = stuck_on(&all, deployment.pinned.stack_name.as_str());
        let over = match keeps.as_slice() {
            [] => String::new(),
            names => format!(" over {}", names.join(", ")),
        };
        let cause = cause.map(|c| format!(": {c}")).unwrap_or_default();
        (
            Some(format!("the stack is {}{over}{cause}", stuck.status)),
            keeps,
        )
    }

    /// Takes the values of a deployment out of a reason: what is once in the log stays there.
    async fn cleared(&self, text: &str, pinned: &Pinned) -> String {
        let Ok(pinning) = self.pinning(&pinned.payload).await else {
            return "the reason may quote values and is not kept: `isoform logs` shows it"
                .to_owned();
        };
        let secrets = pinning.secrets.iter();
        conceal(
            text,
            secrets
                .filter_map(|name| pinning.parameters.get(name))
                .map(String::as_str),
            &pinning.inputs(),
        )
    }

    /// Writes the end of a deployment down.
    pub(super) async fn settle(
        &self,
        guard: &TargetGuard<TargetUid>,
        outcome: Outcome,
        reason: Reason,
        cause: Option<String>,
        observed: Option<&Observed>,
    ) -> Result<(), Error> {
        self.settle_with(guard, outcome, reason, cause, observed, Vec::new())
            .await
    }

    /// Does the same, and names the resources that keep a stuck stack from moving.
    pub(super) async fn settle_with(
        &self,
        guard: &TargetGuard<TargetUid>,
        outcome: Outcome,
        reason: Reason,
        cause: Option<String>,
        observed: Option<&Observed>,
        stuck_on: Vec<String>,
    ) -> Result<(), Error> {
        let uid = guard.key();
        let cause = match (cause, self.history(uid).and_then(|h| h.current.clone())) {
            (Some(text), Some(deployment)) => Some(self.cleared(&text, &deployment.pinned).await),
            (cause, _) => cause,
        };
        let mut payloads = Vec::new();
        let mut settlement = Settlement {
            outcome,
            status: observed.map(|o| o.status.clone()),
            watermark: observed.and_then(Observed::watermark),
            outputs: None,
            output_names: Vec::new(),
            cause: cause.clone(),
            reason,
            stuck_on,
        };
        if let Some(observed) =
            observed.filter(|_| matches!(outcome, Outcome::Applied | Outcome::NoEffect))
        {
            let bytes = serde_json::to_vec(&observed.outputs)
                .map_err(|e| Error::Broken(format!("writing outputs: {e}")))?;
            let digest = self.store.keyring().hasher().digest("payload", &bytes);
            settlement.output_names = observed.outputs.keys().cloned().collect();
            settlement.outputs = Some(digest.clone());
            payloads.push((digest, bytes));
        }
        let pinned = self
            .history(uid)
            .and_then(|h| h.current.clone())
            .map(|d| d.pinned.snapshot);
        crash_point("settle.before-record");
        self.record(
            uid,
            Actor::daemon("line"),
            EventKind::Settled(Box::new(settlement)),
            payloads,
        )
        .await?;
        crash_point("settle.after-record");
        if let Some(known) = self.shared().targets.get_mut(uid) {
            known.ended = Some(self.clock.steady());
        }
        match outcome {
            Outcome::Applied | Outcome::NoEffect => {
                if let (Some(snapshot), Some(at)) = (
                    pinned,
                    self.history(uid)
                        .and_then(|h| h.applied.as_ref().map(|a| a.at)),
                ) {
                    if let Some(watermark) = observed.and_then(Observed::watermark) {
                        self.shared()
                            .swept
                            .insert(watermark.stack_id.clone(), watermark);
                    }
                    self.pass(uid, snapshot, at);
                }
                // The fold has recorded the pass already: who waits is woken here.
                self.enqueue_waiting(uid);
            }
            Outcome::Superseded | Outcome::Remedied => {}
            Outcome::Removed => self.enqueue_waiting(uid),
            _ => {
                if let Some(watermark) = observed.and_then(Observed::watermark) {
                    self.shared()
                        .swept
                        .insert(watermark.stack_id.clone(), watermark);
                }
                let result = if outcome == Outcome::Stuck {
                    SyncResult::Stuck
                } else {
                    SyncResult::Failed
                };
                self.show(uid, result, reason, cause.unwrap_or_default())
                    .await?;
                self.enqueue_waiting(uid);
            }
        }
        Ok(())
    }
}
