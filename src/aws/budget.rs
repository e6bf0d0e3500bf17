//! Call budgets: one for each account and region, shared by every placement in it.
//!
//! What is decided stands in `domain/pace`; here calls wait for their turn, are counted and are made again when they were
//! refused for being too many. Nothing of one account's budget is seen by another's.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::domain::model::{AccountId, Region, Timestamp};
use crate::domain::pace::{Pace, Queue, Urgency};
use crate::port::{Error, Traffic};

/// A refusal is told this long.
const LATELY: Duration = Duration::from_secs(300);

/// How long a call is held back before its caller hears of it. Nobody waits for a sweep.
fn patience(urgency: Urgency) -> Duration {
    match urgency {
        Urgency::Run | Urgency::Look => Duration::from_secs(20),
        Urgency::Sweep => Duration::from_secs(120),
    }
}

/// The budgets of an installation.
pub struct Budgets {
    clock: Clock,
    all: Mutex<BTreeMap<(AccountId, Region), Arc<Budget>>>,
}

impl Budgets {
    /// Makes budgets of which nothing is spent.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            all: Mutex::default(),
        }
    }

    /// Returns the budget of an account in a region.
    pub fn of(&self, account: &AccountId, region: &Region) -> Arc<Budget> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry((account.clone(), region.clone()))
            .or_insert_with(|| {
                let place = format!("{account}/{region}");
                Arc::new(Budget::new(self.clock.clone(), place))
            })
            .clone()
    }

    /// Tells what was called, and what is held back.
    pub fn traffic(&self) -> Vec<Traffic> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told = Vec::new();
        for ((account, region), budget) in all.iter() {
            let (now, steady) = (self.clock.now(), self.clock.steady());
            for (call, lane) in budget.lanes().iter_mut() {
                let slowed = lane.pace.limit(steady);
                let (made, refused) = lane.pace.counts();
                let ago = lane.pace.refused_at().map(|at| steady.since(at));
                told.push(Traffic {
                    account: account.clone(),
                    region: region.clone(),
                    call: (*call).to_owned(),
                    made,
                    throttled: refused,
                    waiting: lane.queue.len(),
                    rate: slowed.map(|rate| (rate * 10.0).round() / 10.0),
                    throttled_at: ago
                        .filter(|ago| *ago <= LATELY)
                        .map(|ago| Timestamp(now.0 - i64::try_from(ago.as_millis()).unwrap_or(0))),
                });
            }
        }
        told
    }
}

/// The budget of an account in a region.
pub struct Budget {
    clock: Clock,
    place: String,
    lanes: Mutex<BTreeMap<&'static str, Lane>>,
    moved: Notify,
    chance: RandomState,
}

#[derive(Default)]
struct Lane {
    pace: Pace,
    queue: Queue,
    told: Option<Timestamp>,
}

/// Who waits; gives the place in the queue up however the waiting ends.
struct Waiting<'a> {
    budget: &'a Budget,
    call: &'static str,
    ticket: (Urgency, u64),
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(lane) = self.budget.lanes().get_mut(self.call) {
            lane.queue.leave(self.ticket);
        }
        self.budget.moved.notify_waiters();
    }
}

/// The right to make one call now, and what is known of the tries before.
pub(super) struct Errand<'a> {
    budget: &'a Budget,
    call: &'static str,
    urgency: Urgency,
    until: Timestamp,
    sent: Timestamp,
    refusals: u32,
}

impl Budget {
    /// Makes a budget of which nothing is spent; `place` is for people.
    pub(super) fn new(clock: Clock, place: String) -> Self {
        Self {
            clock,
            place,
            lanes: Mutex::default(),
            moved: Notify::new(),
            chance: RandomState::new(),
        }
    }

    fn lanes(&self) -> MutexGuard<'_, BTreeMap<&'static str, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call: it waits for its turn, up to its patience, and counts.
    pub(super) async fn errand(
        &self,
        call: &'static str,
        urgency: Urgency,
    ) -> Result<Errand<'_>, Error> {
        let now = self.clock.steady();
        let mut errand = Errand {
            budget: self,
            call,
            urgency,
            until: now.plus(patience(urgency)),
            sent: now,
            refusals: 0,
        };
        errand.admit().await?;
        Ok(errand)
    }

    /// Makes the call where nothing holds it back.
    fn at_once(&self, call: &'static str, now: Timestamp) -> bool {
        let mut lanes = self.lanes();
        let lane = lanes.entry(call).or_default();
        let free = lane.queue.is_empty() && lane.pace.wait(now).is_zero();
        if free {
            lane.pace.make(now);
        }
        free
    }
}

impl Errand<'_> {
    async fn admit(&mut self) -> Result<(), Error> {
        let budget = self.budget;
        self.sent = budget.clock.steady();
        if budget.at_once(self.call, self.sent) {
            return Ok(());
        }
        let waiting = Waiting {
            budget,
            call: self.call,
            ticket: {
                let mut lanes = budget.lanes();
                let lane = lanes.entry(self.call).or_default();
                lane.queue.join(self.urgency)
            },
        };
        loop {
            // Registered before the look, so that no change falls between.
            let moved = budget.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let now = budget.clock.steady();
            let wait = {
                let mut lanes = budget.lanes();
                let lane = lanes.entry(self.call).or_default();
                let wait = lane.pace.wait(now);
                if !lane.queue.is_first(waiting.ticket) {
                    None
                } else if wait.is_zero() {
                    lane.pace.make(now);
                    self.sent = now;
                    return Ok(());
                } else {
                    Some(wait)
                }
            };
            let left = self.until.since(now);
            if left.is_zero() {
                return Err(Error::Throttled);
            }
            tokio::select! {
                () = &mut moved => {}
                () = budget.clock.sleep(wait.unwrap_or(left).min(left)) => {}
            }
        }
    }

    /// Notes that the call was answered, whatever the answer was.
    pub(super) fn taken(&self) {
        if let Some(lane) = self.budget.lanes().get_mut(self.call) {
            lane.pace.take(self.budget.clock.steady());
        }
    }

    /// Notes that the call was refused for being one too many, and waits until it may be made again. Fails when there is no
    /// patience left.
    pub(super) async fn refused(&mut self) -> Result<(), Error> {
        let budget = self.budget;
        let now = budget.clock.steady();
        {
            let mut lanes = budget.lanes();
            let lane = lanes.entry(self.call).or_default();
            let fell = lane.pace.refuse(self.sent, now);
            let quiet = lane
                .told
                .is_none_or(|at| now.since(at) >= Duration::from_secs(30));
            if fell && quiet {
                lane.told = Some(now);
                let (made, refused) = lane.pace.counts();
                let rate = lane.pace.limit(now).unwrap_or_default();
                tracing::info!(
                    place = %budget.place, call = self.call, rate, made, refused, waiting = lane.queue.len(),
                    "{} in {} is throttled: at most {rate:.1} calls a second now", self.call, budget.place
                );
            }
        }
        self.again().await
    }

    /// Waits until the call may be made again, after something that passes.
    pub(super) async fn again(&mut self) -> Result<(), Error> {
        let budget = self.budget;
        let word = (self.sent.0, self.call, self.refusals);
        let chance = budget.chance.hash_one(word) as f64 / u64::MAX as f64;
        let pause = Pace::pause(self.refusals, chance);
        self.refusals += 1;
        if self.until.since(budget.clock.steady()) <= pause {
            return Err(Error::Throttled);
        }
        budget.clock.sleep(pause).await;
        self.admit().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> (Arc<Budgets>, Arc<Budget>, Clock) {
        let clock = Clock::standing(Timestamp(0));
        let budgets = Arc::new(Budgets::new(clock.clone()));
        let account: AccountId = "111111111111".parse().unwrap();
        let one = budgets.of(&account, &"eu-west-1".parse().unwrap());
        (budgets, one, clock)
    }

    /// Moves the clock until a task has ended.
    async fn moved<T: Send + 'static>(
        clock: &Clock,
        work: impl Future<Output = T> + Send + 'static,
    ) -> (T, Duration) {
        let begun = clock.steady();
        let task = tokio::spawn(work);
        loop {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            if task.is_finished() {
                return (task.await.unwrap(), clock.steady().since(begun));
            }
            let next = clock.next_wake().unwrap();
            clock.advance(next);
        }
    }

    #[tokio::test]
    async fn a_refused_call_is_made_again_when_its_turn_comes() {
        let (budgets, one, clock) = budget();
        let (result, took) = moved(&clock, async move {
            let mut errand = one.errand("ListStacks", Urgency::Run).await?;
            errand.refused().await?;
            errand.refused().await?;
            errand.taken();
            Ok::<_, Error>(())
        })
        .await;
        assert_eq!(result, Ok(()));
        assert!(took >= Duration::from_secs(2), "{took:?}");
        let told = budgets.traffic();
        assert_eq!(
            (
                told.len(),
                told[0].made,
                told[0].throttled,
                told[0].call.as_str()
            ),
            (1, 3, 2, "ListStacks")
        );
        assert!(told[0].rate.is_some() && told[0].throttled_at.is_some());
    }

    #[tokio::test]
    async fn whoever_is_refused_for_long_hears_of_it_and_nobody_else_does() {
        let (budgets, one, clock) = budget();
        let account: AccountId = "222222222222".parse().unwrap();
        let (result, took) = moved(&clock, {
            let one = one.clone();
            async move {
                let mut errand = one.errand("ListStacks", Urgency::Look).await?;
                loop {
                    errand.refused().await?;
                }
                #[expect(unreachable_code, reason = "names the type of the error")]
                Ok::<(), Error>(())
            }
        })
        .await;
        assert_eq!(result, Err(Error::Throttled));
        assert!(took <= Duration::from_secs(20), "{took:?}");
        // Another call, another region and another account go on at once.
        let region = |name: &str| name.parse::<Region>().unwrap();
        let elsewhere = [
            (one, "DescribeStacks"),
            (budgets.of(&account, &region("eu-west-1")), "ListStacks"),
            (
                budgets.of(&"111111111111".parse().unwrap(), &region("us-east-1")),
                "ListStacks",
            ),
        ];
        for (budget, call) in elsewhere {
            assert!(budget.at_once(call, clock.steady()), "{call}");
        }
    }

    #[tokio::test]
    async fn what_is_urgent_goes_before_what_came_first() {
        let (_, one, clock) = budget();
        one.lanes()
            .entry("ListStacks")
            .or_default()
            .pace
            .refuse(Timestamp(0), Timestamp(0));
        let order: Arc<Mutex<Vec<Urgency>>> = Arc::default();
        let mut tasks = Vec::new();
        for urgency in [Urgency::Sweep, Urgency::Look, Urgency::Run] {
            let (one, order) = (one.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                one.errand("ListStacks", urgency).await.unwrap().taken();
                order.lock().unwrap().push(urgency);
            }));
            tokio::task::yield_now().await;
        }
        moved(&clock, async move {
            for task in tasks {
                task.await.unwrap();
            }
        })
        .await;
        let order = order.lock().unwrap().clone();
        assert_eq!(order, [Urgency::Run, Urgency::Look, Urgency::Sweep]);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_is_in_nobodys_way() {
        let (_, one, clock) = budget();
        one.lanes()
            .entry("ListStacks")
            .or_default()
            .pace
            .refuse(Timestamp(0), Timestamp(0));
        let gone = tokio::spawn({
            let one = one.clone();
            async move { one.errand("ListStacks", Urgency::Run).await.map(drop) }
        });
        clock.asleep().await;
        gone.abort();
        let _ = gone.await;

        let (result, _) = moved(&clock, async move {
            one.errand("ListStacks", Urgency::Sweep).await.map(drop)
        })
        .await;
        assert_eq!(result, Ok(()));
    }
}
