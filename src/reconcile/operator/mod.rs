//! What operators say: approvals, rejections, holds, ways back. Each is an entry of the log and a key in the queue, nothing more.

use std::collections::BTreeMap;
use std::time::Duration;

mod recovery;

use super::ready::Candidate;
use super::{Error, Known, Line, Radius};
use crate::domain::audit::{Body, Stream};
use crate::domain::deployment::{EventKind, Phase};
use crate::domain::model::{
    Actor, Address, Digest, Reason, SnapshotId, SourceName, SyncResult, TargetUid, counted,
};

/// Why an operator's word was not taken.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// It names nothing.
    #[error("{0}")]
    NoSuch(String),
    /// It does not fit what is there.
    #[error("{0}")]
    NotNow(String),
    /// The line failed.
    #[error(transparent)]
    Line(#[from] Error),
}

/// Which targets are meant.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
pub enum Selector {
    /// An address or a glob.
    Targets(String),
    /// Every target of a placement.
    Placement(String),
    /// Every target of a source.
    Source(String),
    /// Every target.
    All,
}

/// What is approved.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
pub enum ApproveWhat {
    /// A review of a target, by its digest or the beginning of it.
    Review {
        /// The target.
        target: String,
        /// The digest; absent means the one that waits.
        review: Option<String>,
        /// Whether the stack policy is opened for it while it runs.
        #[serde(default)]
        opens: bool,
    },
    /// The blast radius of a commit.
    Snapshot(String),
    /// The rewritten history of a source.
    Source(String),
}

impl Line {
    /// Returns the targets that a selector means, by address.
    pub fn select(&self, selector: &Selector) -> Result<Vec<(TargetUid, Address)>, OperatorError> {
        let shared = self.shared();
        let newest = shared.snapshots.last().cloned();
        let all = shared
            .targets
            .iter()
            .filter_map(|(uid, k)| Some((uid.clone(), k.history.address.clone()?)));
        let target = |a: &Address| {
            newest
                .as_ref()
                .and_then(|s| s.compiled.targets.get(a).cloned())
        };
        // What is not asked for any more is meant by where it was deployed.
        let placed = |uid: &TargetUid| shared.targets.get(uid)?.history.placed.clone();
        let found: Vec<(TargetUid, Address)> = match selector {
            Selector::All => all.collect(),
            Selector::Targets(glob) => all.filter(|(_, a)| a.is_meant_by(glob)).collect(),
            Selector::Placement(name) => all
                .filter(|(uid, a)| match target(a) {
                    Some(target) => target.placement.name.as_str() == name,
                    None => placed(uid).is_some_and(|p| p.placement.as_str() == name),
                })
                .collect(),
            Selector::Source(name) => all
                .filter(|(uid, a)| match target(a) {
                    Some(target) => target.source.as_str() == name,
                    None => placed(uid).is_some_and(|p| p.source.as_str() == name),
                })
                .collect(),
        };
        if found.is_empty() {
            let names: Vec<String> = shared.by_address.keys().map(Address::to_string).collect();
            let near = match selector {
                Selector::Targets(text) => {
                    crate::domain::model::closest(text, names.iter().map(String::as_str))
                        .map(|c| format!("; did you mean `{c}`?"))
                        .unwrap_or_default()
                }
                _ => String::new(),
            };
            return Err(OperatorError::NoSuch(format!("no target matches{near}")));
        }
        Ok(found)
    }

    pub(in crate::reconcile) fn one(
        &self,
        text: &str,
    ) -> Result<(TargetUid, Address), OperatorError> {
        let mut found = self.select(&Selector::Targets(text.to_owned()))?;
        if found.len() > 1 {
            let names = found
                .iter()
                .map(|(_, a)| a.to_string())
                .collect::<Vec<_>>()
                .join(", ");
            return Err(OperatorError::NoSuch(format!(
                "`{}` means several targets: {names}",
                text.escape_debug()
            )));
        }
        found
            .pop()
            .ok_or_else(|| OperatorError::NoSuch("no target matches".into()))
    }

    /// Approves exactly what was shown.
    pub async fn approve(
        &self,
        what: &ApproveWhat,
        actor: &Actor,
    ) -> Result<String, OperatorError> {
        match what {
            ApproveWhat::Review {
                target,
                review,
                opens,
            } => {
                let (uid, address) = self.one(target)?;
                let waiting = self.waiting_review(&uid, &address)?;
                if let Some(given) = review
                    && !waiting
                        .hex()
                        .starts_with(given.trim_start_matches("r1:").trim_end_matches('…'))
                {
                    return Err(OperatorError::NotNow(format!(
                        "the review of {address} is {} now, not {given}: look again with `isoform why {address}`",
                        waiting.short(8)
                    )));
                }
                self.check_allowed(&uid, &address, actor)?;
                self.record(
                    &uid,
                    actor.clone(),
                    EventKind::Approved {
                        review: waiting.clone(),
                        opens: *opens,
                        carried: None,
                    },
                    Vec::new(),
                )
                .await?;
                self.ship().await?;
                self.look_again(&uid);
                Ok(format!("approved {} of {address}", waiting.short(8)))
            }
            ApproveWhat::Snapshot(commit) => self.approve_radius(commit, actor).await,
            ApproveWhat::Source(name) => self.approve_history(name, actor).await,
        }
    }

    fn waiting_review(&self, uid: &TargetUid, address: &Address) -> Result<Digest, OperatorError> {
        let current = self.history(uid).and_then(|h| h.current.clone());
        match current {
            Some(d) if d.phase == Phase::Reviewed => d
                .review
                .map(|(digest, _)| digest)
                .ok_or_else(|| OperatorError::NotNow(format!("{address} has no review yet"))),
            _ => Err(OperatorError::NotNow(format!(
                "{address} waits for no approval: see `isoform why {address}`"
            ))),
        }
    }

    pub(in crate::reconcile) fn check_allowed(
        &self,
        uid: &TargetUid,
        address: &Address,
        actor: &Actor,
    ) -> Result<(), OperatorError> {
        let asked_for = self.newest().and_then(|s| {
            s.compiled
                .targets
                .get(address)
                .map(|t| t.placement.name.clone())
        });
        let name =
            asked_for.or_else(|| Some(self.history(uid)?.placed.as_ref()?.placement.clone()));
        let Some(placement) = name.and_then(|n| self.settings.placements.get(&n)) else {
            return Ok(());
        };
        if !placement.rule.takes(actor) {
            return Err(OperatorError::NotNow(format!(
                "the placement `{}` takes approvals from {} only",
                placement.name,
                placement.rule.from.join(", ")
            )));
        }
        Ok(())
    }

    async fn approve_radius(&self, commit: &str, actor: &Actor) -> Result<String, OperatorError> {
        // What was shown is what is approved: a list that has grown since holds its targets again.
        let held: Vec<(TargetUid, Radius)> = {
            let shared = self.shared();
            shared
                .targets
                .iter()
                .filter(|(_, k)| k.condition.reason == Reason::BlastRadius)
                .filter_map(|(u, k)| Some((u.clone(), k.radius.clone()?)))
                .collect()
        };
        if held.is_empty() {
            return Err(OperatorError::NotNow(
                "nothing is held by its blast radius".into(),
            ));
        }
        let held: Vec<_> = held
            .into_iter()
            .filter(|(_, radius)| {
                let mut revisions = radius.snapshot.revisions.values();
                commit.len() >= 4 && revisions.any(|r| r.as_str().starts_with(commit))
            })
            .collect();
        if held.is_empty() {
            return Err(OperatorError::NoSuch(format!(
                "`{}` is not the commit that waits",
                commit.escape_debug()
            )));
        }
        let lists: BTreeMap<_, _> = held
            .iter()
            .map(|(_, r)| (r.list.clone(), (r.snapshot.id, r.count)))
            .collect();
        for (list, (snapshot, _)) in &lists {
            self.log(
                Stream::Daemon,
                actor.clone(),
                Body::BlastRadiusApproved {
                    snapshot: *snapshot,
                    list: list.clone(),
                },
            )
            .await?;
        }
        self.ship().await?;
        for (uid, _) in &held {
            self.look_again(uid);
        }
        let total: usize = lists.values().map(|(_, count)| count).sum();
        Ok(format!("approved: {} may change", counted(total, "target")))
    }

    async fn approve_history(&self, name: &str, actor: &Actor) -> Result<String, OperatorError> {
        let source: SourceName = name
            .parse()
            .map_err(|e| OperatorError::NoSuch(format!("{e}")))?;
        let refused = self
            .shared()
            .refused
            .get(&source)
            .and_then(|(r, _)| r.clone());
        let Some(revision) = refused else {
            return Err(OperatorError::NotNow(format!(
                "the source `{name}` has no refused history"
            )));
        };
        self.log(
            Stream::Source(source),
            actor.clone(),
            Body::HistoryAccepted {
                revision: revision.clone(),
            },
        )
        .await?;
        self.ship().await?;
        Ok(format!(
            "accepted {} as the head of `{name}`",
            revision.short()
        ))
    }

    /// Rejects the review that waits. The same is not tried again until something changes.
    pub async fn reject(
        &self,
        target: &str,
        reason: &str,
        actor: &Actor,
    ) -> Result<String, OperatorError> {
        let (uid, address) = self.one(target)?;
        let review = self.waiting_review(&uid, &address)?;
        self.record(
            &uid,
            actor.clone(),
            EventKind::Rejected {
                review: review.clone(),
                reason: reason.to_owned(),
            },
            Vec::new(),
        )
        .await?;
        self.ship().await?;
        self.look_again(&uid);
        Ok(format!("rejected {} of {address}", review.short(8)))
    }

    /// Lets targets try again what failed.
    pub async fn retry(&self, selector: &Selector, actor: &Actor) -> Result<String, OperatorError> {
        let found = self.select(selector)?;
        self.each(found, actor, &|| EventKind::Retried, "tried again")
            .await
    }

    /// Holds targets until they are resumed.
    pub async fn suspend(
        &self,
        selector: &Selector,
        reason: &str,
        hold: Option<Duration>,
        actor: &Actor,
    ) -> Result<String, OperatorError> {
        let until = hold.map(|d| self.clock.now().plus(d));
        let found = self.select(selector)?;
        self.each(
            found,
            actor,
            &|| EventKind::Suspended {
                reason: reason.to_owned(),
                until,
            },
            "suspended",
        )
        .await
    }

    /// Lets targets go that were suspended, are held at an earlier deployment, or whose roll-out halted.
    pub async fn resume(
        &self,
        selector: &Selector,
        actor: &Actor,
    ) -> Result<String, OperatorError> {
        // A word that changes nothing is not written down: the log would say that somebody let go what nobody held.
        let held: Vec<_> = self
            .select(selector)?
            .into_iter()
            .filter(|(uid, _)| self.can_be_resumed(uid))
            .collect();
        if held.is_empty() {
            return Ok(
                "nothing to resume: none of them is suspended, held at an earlier deployment, or in a halted roll-out"
                    .into(),
            );
        }
        self.each(held, actor, &|| EventKind::Resumed, "resumed")
            .await
    }

    fn can_be_resumed(&self, uid: &TargetUid) -> bool {
        let Some(known) = self.known(uid) else {
            return false;
        };
        match known.condition.reason {
            _ if known.history.suspended.is_some() || known.history.pin.is_some() => true,
            Reason::RolloutHalted => true,
            Reason::Rollout => self.waits_for_a_failure(uid, &known),
            _ => false,
        }
    }

    fn waits_for_a_failure(&self, uid: &TargetUid, known: &Known) -> bool {
        let (Some(newest), Some(address)) = (self.newest(), &known.history.address) else {
            return false;
        };
        let (Candidate::Stay(wait) | Candidate::Go(_, Some(wait))) =
            self.candidate(uid, &newest, address)
        else {
            return false;
        };
        let shared = self.shared();
        wait.on
            .and_then(|a| shared.targets.get(shared.by_address.get(&a)?))
            .is_some_and(|k| matches!(k.condition.result, SyncResult::Failed | SyncResult::Stuck))
    }

    /// Accepts what a stack has become, or says that the next change overwrites it.
    pub async fn resolve_drift(
        &self,
        target: &str,
        overwrite: bool,
        reason: &str,
        actor: &Actor,
    ) -> Result<String, OperatorError> {
        let (uid, address) = self.one(target)?;
        let drifted = self
            .shared()
            .targets
            .get(&uid)
            .is_some_and(|k| k.condition.result == SyncResult::Drifted);
        if !drifted {
            return Err(OperatorError::NotNow(format!("{address} has not drifted")));
        }
        let unlisted = self.sweep_each().await;
        let place = self.history(&uid).and_then(|h| h.owned.clone());
        if let Some(error) = place
            .as_ref()
            .and_then(super::sweep::spot)
            .and_then(|spot| unlisted.get(&spot))
        {
            return Err(Error::from(error.clone()).into());
        }
        let watermark = {
            let shared = self.shared();
            shared
                .targets
                .get(&uid)
                .and_then(|k| k.history.owned.clone())
                .and_then(|s| shared.swept.get(&s).cloned())
        };
        self.record(
            &uid,
            actor.clone(),
            EventKind::DriftResolved {
                watermark,
                overwrite,
                reason: reason.to_owned(),
            },
            Vec::new(),
        )
        .await?;
        self.ship().await?;
        self.look_again(&uid);
        Ok(format!(
            "{address}: {}",
            if overwrite {
                "the next change overwrites what is there"
            } else {
                "what is there is accepted"
            }
        ))
    }

    /// Puts a target into the queue as one that was not looked at: what it says of itself is from before the operator's
    /// word, and whoever waits for it must not take that for the answer.
    pub(in crate::reconcile) fn look_again(&self, uid: &TargetUid) {
        {
            let mut shared = self.shared();
            shared.stir(uid);
            if let Some(known) = shared.targets.get_mut(uid) {
                known.looked = SnapshotId(0);
            }
        }
        self.enqueue(uid, Duration::ZERO);
    }

    async fn each(
        &self,
        found: Vec<(TargetUid, Address)>,
        actor: &Actor,
        event: &(dyn Fn() -> EventKind + Sync),
        word: &str,
    ) -> Result<String, OperatorError> {
        for (uid, _) in &found {
            self.record(uid, actor.clone(), event(), Vec::new()).await?;
        }
        self.ship().await?;
        for (uid, _) in &found {
            self.look_again(uid);
        }
        // A halted wave goes on for everybody in it.
        self.enqueue_all();
        Ok(match found.as_slice() {
            [(_, one)] => format!("{word}: {one}"),
            many => format!("{word}: {}", counted(many.len(), "target")),
        })
    }
}
