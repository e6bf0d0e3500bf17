//! The sweep: what every stack is, from one listing of each account and region.
//!
//! A place that does not answer is not empty: what was known of its stacks stays, and the others are swept all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Error, Known, Line};
use crate::domain::estate::Placement;
use crate::domain::model::{AccountId, Region, StackId, SyncResult, TargetUid, Timestamp};
use crate::domain::pace::Urgency;
use crate::domain::plan::Watermark;
use crate::port::{self, Pages};

/// An account and a region of it.
pub(super) type Spot = (AccountId, Region);

pub(super) fn spot(stack: &StackId) -> Option<Spot> {
    Some((stack.account()?, stack.region()?))
}

impl Line {
    /// Lists the stacks of every placement, so that a stack which moved is seen. Fails where one of them did not answer; the
    /// others were swept then.
    pub async fn sweep(&self) -> Result<(), Error> {
        let mut unlisted = self.sweep_each().await;
        self.reread_references().await;
        let Some((_, first)) = unlisted.pop_first() else {
            return Ok(());
        };
        for ((account, region), error) in &unlisted {
            tracing::warn!("the stacks of {account} in {region} cannot be listed either: {error}");
        }
        Err(first.into())
    }

    /// Does it, and returns which places did not answer.
    pub(super) async fn sweep_each(&self) -> BTreeMap<Spot, port::Error> {
        // By the time that only goes forward: a wall that was set back would hide every stack for as long.
        let begun = self.clock.steady();
        let mut hands: BTreeMap<Spot, Vec<&Placement>> = BTreeMap::new();
        for placement in self.settings.placements.values() {
            for region in &placement.regions {
                let spot = (placement.account.clone(), region.clone());
                hands.entry(spot).or_default().push(placement);
            }
        }
        let mut swept = BTreeMap::new();
        let (mut listed, mut unlisted) = (Vec::new(), BTreeMap::new());
        for (spot, hands) in hands {
            // Several placements may work in one place with different roles: whoever may list it does.
            let mut last = None;
            for placement in hands {
                match self.stacks_in(placement, &spot.1).await {
                    Ok(stacks) => {
                        swept.extend(stacks);
                        last = None;
                        break;
                    }
                    Err(error) => last = Some(error),
                }
            }
            match last {
                None => listed.push(spot),
                Some(error) => {
                    unlisted.insert(spot, error);
                }
            }
        }
        for uid in self.swept(begun, swept, listed, unlisted.is_empty()) {
            self.enqueue(&uid, Duration::ZERO);
        }
        unlisted
    }

    async fn stacks_in(
        &self,
        placement: &Placement,
        region: &Region,
    ) -> Result<BTreeMap<StackId, Watermark>, port::Error> {
        let engine = self.ports.engine_for(placement, region, Urgency::Sweep)?;
        let mut stacks = BTreeMap::new();
        let mut pages = Pages::default();
        while pages.go_on() {
            let page = engine.list(pages.token()).await?;
            for stack in page.items {
                let watermark = Watermark {
                    stack_id: stack.stack_id.clone(),
                    status: stack.status,
                    updated: stack.updated,
                    operation: stack.operation,
                };
                stacks.insert(stack.stack_id, watermark);
            }
            pages.turn(page.next)?;
        }
        Ok(stacks)
    }

    /// Takes in what was seen, and returns whose stacks moved.
    fn swept(
        &self,
        begun: Timestamp,
        mut swept: BTreeMap<StackId, Watermark>,
        listed: Vec<Spot>,
        all: bool,
    ) -> Vec<TargetUid> {
        let mut shared = self.shared();
        let now = |stack: &StackId| spot(stack).is_some_and(|s| listed.contains(&s));
        // What moved while the list was read is known better from its own end.
        let busy: Vec<_> = shared
            .targets
            .values()
            .filter(|k| {
                let executes =
                    |k: &&Known| k.history.current.as_ref().is_some_and(|d| d.is_executing());
                executes(k) || k.ended.is_some_and(|at| at >= begun)
            })
            .filter_map(|k| k.history.owned.clone())
            .collect();
        let elsewhere = shared.swept.keys().filter(|s| !now(s)).cloned();
        let kept: Vec<_> = busy.into_iter().chain(elsewhere).collect();
        for stack in kept {
            match shared.swept.get(&stack).cloned() {
                Some(known) => swept.insert(stack, known),
                None => swept.remove(&stack),
            };
        }
        shared.swept = swept;
        if all {
            shared.swept_at = Some(self.clock.now());
        }
        let moved = |k: &Known| match (&k.history.owned, &k.history.applied) {
            (Some(stack), Some(applied)) => {
                // Who is shown as drifted and is as it was is looked at too: it may have been put back.
                let differs = shared.swept.get(stack) != applied.watermark.as_ref();
                now(stack) && differs != (k.condition.result == SyncResult::Drifted)
            }
            _ => false,
        };
        let moved = shared.targets.iter().filter(|(_, k)| moved(k));
        let moved = moved.map(|(uid, _)| uid.clone()).collect();
        shared.listed.extend(listed);
        moved
    }
}
