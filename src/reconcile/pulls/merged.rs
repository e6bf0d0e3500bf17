//! After the merge: approvals that carry over, and how it goes, target by target.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Place;
use super::outbox::DEPLOYED;
use super::state::{Known, ShownTarget};
use crate::domain::deployment::{Carried, EventKind, Phase};
use crate::domain::forge::{Check, PullState, Verdict};
use crate::domain::model::{Address, Reason, Revision, SyncResult};
use crate::domain::plan::{ANSWERS, Outcome, Went, change_lines, difference, outcome};
use crate::domain::policy::Approval;
use crate::reconcile::{Error, Line, Snapshot};

impl Line {
    /// Carries approvals over to what was merged, and says how it goes.
    pub(super) async fn follow_merge(
        self: &Arc<Self>,
        place: &Place<'_>,
        known: &mut Known,
    ) -> Result<(), Error> {
        let Some(shown) = known.shown.clone() else {
            return Ok(());
        };
        let PullState::Merged { commit } = known.pull.state.clone() else {
            return Ok(());
        };
        let Some(newest) = self.newest() else {
            return Ok(());
        };
        // Nothing is said of it before it was looked at here.
        if newest.revisions.get(place.name) == Some(&shown.base) {
            return Ok(());
        }
        let waves = waves(&newest);
        let mut targets = Vec::new();
        for target in &shown.targets {
            targets.push(self.went(place, known, target, &waves).await?);
        }
        targets.sort_by(|a, b| (a.wave, &a.address).cmp(&(b.wave, &b.address)));
        let newest_signed = self.store.newest_checkpoints(u64::MAX, 1).await?;
        let checkpoint = newest_signed.first().map(|c| (c.seq, c.hash.clone()));
        let marker = place.marker(self, known.pull.number);
        let head = newest.revisions.get(place.name).cloned();
        let merged = commit.clone().or(head);
        let mut went = Outcome {
            marker: &marker,
            commit: merged.as_ref().map_or("", Revision::short),
            targets,
            checkpoint: None,
            budget: place.budget() - ANSWERS,
        };
        let settled = self.has_ended(newest.id);
        let over = went.is_over() && settled;
        // The witness is written once: a new one every minute would be a new comment every minute.
        if over || went.has_failed() && settled {
            went.checkpoint = checkpoint;
        }
        // Posted before it is kept: what is over is never posted again.
        self.post_comment(place, known, &marker, outcome(&went))
            .await?;
        if let Some(commit) = &merged {
            let check = deployed(place, commit.clone(), &went, over);
            self.post_check(place, known.pull.number, check).await?;
        }
        if over {
            known.over = true;
            self.keep(place.name, known).await?;
        }
        Ok(())
    }

    async fn went(
        &self,
        place: &Place<'_>,
        known: &Known,
        shown: &ShownTarget,
        waves: &BTreeMap<Address, usize>,
    ) -> Result<Went, Error> {
        let wave = waves.get(&shown.address).map_or(0, |w| w + 1);
        let mut went = Went {
            wave,
            address: shown.address.clone(),
            condition: crate::domain::model::Condition {
                result: SyncResult::Unknown,
                reason: Reason::NotYet,
                detail: "nothing asks for it now".into(),
                since: self.clock.now(),
            },
            notes: Vec::new(),
            review: None,
        };
        let uid = {
            let shared = self.shared();
            let at = shared.by_address.get(&shown.address);
            at.cloned().or_else(|| shown.uid.clone())
        };
        let Some(uid) = uid else { return Ok(went) };
        let Some(target) = self.known(&uid) else {
            return Ok(went);
        };
        went.condition = target.condition.clone();
        let history = target.history;
        let waits = history
            .current
            .as_ref()
            .filter(|d| d.phase == Phase::Reviewed);
        let Some((review, payload)) = waits.and_then(|d| d.review.clone()) else {
            return Ok(went);
        };
        let given: Vec<_> = history
            .endorsements
            .iter()
            .filter(|e| {
                e.of.source == *place.name
                    && e.of.pull == known.pull.number
                    && e.of.head == known.pull.head
            })
            .cloned()
            .collect();
        if went.condition.reason != Reason::Approval {
            return Ok(went);
        }
        went.review = Some(review.clone());
        let approved = waits.map(|d| d.approvals.clone()).unwrap_or_default();
        for endorsement in &given {
            if endorsement.of.review != review {
                continue;
            }
            let same = |a: &Approval| {
                let (one, other) = (&a.by, &endorsement.by);
                a.review == review && (&one.issuer, &one.subject) == (&other.issuer, &other.subject)
            };
            if approved.iter().any(same) {
                continue;
            }
            let carried = Carried {
                pull: known.pull.number,
                at: endorsement.at,
            };
            let event = EventKind::Approved {
                review: review.clone(),
                opens: false,
                carried: Some(carried),
            };
            match self
                .record(&uid, endorsement.by.clone(), event, Vec::new())
                .await
            {
                Ok(_) => {
                    self.ship().await?;
                    self.look_again(&uid);
                    let name = &endorsement.by.display;
                    went.notes
                        .push(format!("the approval of {name} carries over"));
                }
                // It went on meanwhile.
                Err(Error::Illegal(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if given.iter().any(|e| e.of.review != review)
            && !given.iter().any(|e| e.of.review == review)
        {
            let now = self.review_of(&payload).await?;
            went.notes.push(format!(
                "{} was approved before the merge, and is another change now:",
                shown.address
            ));
            went.notes
                .extend(difference(&shown.lines, &change_lines(&now.changes)));
        }
        Ok(went)
    }
}

fn waves(snapshot: &Snapshot) -> BTreeMap<Address, usize> {
    let levels = snapshot.compiled.graph.levels().into_iter().enumerate();
    let all = levels.flat_map(|(n, level)| level.into_iter().map(move |a| (a, n)));
    all.collect()
}

fn deployed(place: &Place<'_>, commit: Revision, went: &Outcome<'_>, over: bool) -> Check {
    Check {
        head: commit,
        name: format!("isoform/{}{DEPLOYED}", place.name),
        verdict: match (went.has_failed(), over) {
            (true, _) => Verdict::Failure,
            (_, true) => Verdict::Success,
            _ => Verdict::Pending,
        },
        title: went.verdict(),
        summary: String::new(),
        annotations: Vec::new(),
    }
}
