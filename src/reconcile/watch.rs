//! Watching what runs: while several stacks of an account and region are in motion, one listing of those serves all who watch.
//!
//! A listing never decides anything. Whoever is in it moves on; whoever is not is described, and only that says what became of
//! it: a listing that lags behind costs a call. Whoever needs news makes the listing, and those who come meanwhile wait for that one: nothing
//! runs in the background, and nothing is called while nothing is watched.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::sweep::{Spot, spot};
use crate::clock::Clock;
use crate::domain::model::{StackId, Timestamp};
use crate::domain::plan::StackStatus;
use crate::port::{self, Pages, StackEngine};

/// How many pages of a listing are read in the least time between two looks.
const PAGES: u32 = 5;

/// Everything that is watched, by account and region.
#[derive(Default)]
pub(super) struct Watching(Mutex<BTreeMap<Option<Spot>, Arc<Place>>>);

/// What is watched in one account and region.
#[derive(Default)]
struct Place {
    state: Mutex<State>,
    listing: tokio::sync::Mutex<Option<Listing>>,
    /// Wakes everybody who watches here when there is a new listing.
    news: Notify,
}

#[derive(Default)]
struct State {
    /// Who is woken by a hint, by stack.
    stacks: BTreeMap<StackId, Vec<Arc<Notify>>>,
    count: usize,
    /// When something last began or ended.
    stirred: Option<Timestamp>,
    /// When the newest listing began, and how many pages it had.
    listed: Option<Timestamp>,
    pages: u32,
}

/// What was in motion when it was asked.
struct Listing {
    begun: Timestamp,
    moving: Result<BTreeMap<StackId, StackStatus>, port::Error>,
}

/// One who watches a stack, until it is dropped.
pub(super) struct Watched {
    place: Arc<Place>,
    stack: StackId,
    hint: Arc<Notify>,
    clock: Clock,
}

/// What a listing says of one stack.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Listed {
    /// It is in motion.
    Moving(StackStatus),
    /// The service gives no news now.
    NoNews,
    /// Only a description tells.
    Unsure,
}

/// Returns how long to wait between two looks at a place: longer while nothing begins or ends there, and where a listing has
/// many pages.
fn interval(least: Duration, quiet: Duration, pages: u32) -> Duration {
    let calm = match quiet.as_secs() {
        0..=59 => 1,
        60..=299 => 2,
        _ => 5,
    };
    least * calm.max(pages.div_ceil(PAGES))
}

impl Watching {
    fn places(&self) -> MutexGuard<'_, BTreeMap<Option<Spot>, Arc<Place>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to watch a stack.
    pub(super) fn watch(&self, stack: &StackId, clock: &Clock) -> Watched {
        let place = self.places().entry(spot(stack)).or_default().clone();
        let hint = Arc::new(Notify::new());
        {
            let mut state = place.state();
            let watchers = state.stacks.entry(stack.clone()).or_default();
            watchers.push(hint.clone());
            state.count += 1;
            state.stirred = Some(clock.steady());
        }
        Watched {
            place,
            stack: stack.clone(),
            hint,
            clock: clock.clone(),
        }
    }

    /// Says that something may have become of a stack. Returns whether anybody watches it.
    pub(super) fn hint(&self, stack: &StackId) -> bool {
        let place = self.places().get(&spot(stack)).cloned();
        let Some(place) = place else {
            return false;
        };
        let state = place.state();
        let watchers = state.stacks.get(stack);
        watchers.into_iter().flatten().for_each(|w| w.notify_one());
        watchers.is_some()
    }
}

impl Place {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// Tells whether nobody else watches in this place.
    pub(super) fn is_alone(&self) -> bool {
        self.place.state().count == 1
    }

    /// Waits until there is something to look at, and says what. `looked` is when the last look began, and `own` the wait where
    /// calls are free. Cancelling it is safe: whoever is left makes the listing.
    pub(super) async fn next(
        &self,
        engine: &dyn StackEngine,
        looked: Timestamp,
        own: Duration,
    ) -> Listed {
        let begun = self.clock.steady();
        loop {
            // Made before the wait is reckoned, so that no listing falls between.
            let news = self.place.news.notified();
            let wait = self.wait(engine.least_wait(), own, self.clock.steady().since(begun));
            tokio::select! {
                biased;
                () = self.hint.notified() => return Listed::Unsure,
                () = news => {
                    let listing = self.place.listing.lock().await;
                    // Older than what this one has seen itself: no news here.
                    if let Some(listing) = listing.as_ref().filter(|l| l.begun > looked) {
                        return self.said(listing);
                    }
                }
                () = self.clock.sleep(wait) => return self.listed(engine, looked).await,
            }
        }
    }

    /// Returns how long this one waits, which has waited already.
    fn wait(&self, least: Duration, own: Duration, waited: Duration) -> Duration {
        if least.is_zero() {
            return own.saturating_sub(waited);
        }
        let (state, now) = (self.place.state(), self.clock.steady());
        let since = |at: Option<Timestamp>| at.map(|at| now.since(at)).unwrap_or_default();
        let wait = interval(least, since(state.stirred), state.pages);
        match state.count {
            1 => wait.saturating_sub(waited),
            // From the beginning of the last listing, so that a slow one makes nobody late; but never at once.
            _ => wait.saturating_sub(since(state.listed)).max(wait / 4),
        }
    }

    /// Asks what is in motion here, in a listing that began after `looked`.
    async fn listed(&self, engine: &dyn StackEngine, looked: Timestamp) -> Listed {
        // A description of one costs what a listing costs, and says more.
        if self.is_alone() {
            return Listed::Unsure;
        }
        let mut kept = self.place.listing.lock().await;
        if let Some(listing) = kept.as_ref().filter(|l| l.begun > looked) {
            return self.said(listing);
        }
        let begun = self.clock.steady();
        let (moving, pages) = moving(engine).await;
        {
            let mut state = self.place.state();
            (state.listed, state.pages) = (Some(begun), pages);
        }
        let listing = Listing { begun, moving };
        let said = self.said(&listing);
        *kept = Some(listing);
        self.place.news.notify_waiters();
        said
    }

    fn said(&self, listing: &Listing) -> Listed {
        match &listing.moving {
            Ok(moving) => match moving.get(&self.stack) {
                Some(status) => Listed::Moving(status.clone()),
                None => Listed::Unsure,
            },
            Err(port::Error::Throttled) => Listed::NoNews,
            Err(_) => Listed::Unsure,
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut state = self.place.state();
        state.count -= 1;
        state.stirred = Some(self.clock.steady());
        if let Some(watchers) = state.stacks.get_mut(&self.stack) {
            watchers.retain(|w| !Arc::ptr_eq(w, &self.hint));
            if watchers.is_empty() {
                state.stacks.remove(&self.stack);
            }
        }
    }
}

async fn moving(
    engine: &dyn StackEngine,
) -> (Result<BTreeMap<StackId, StackStatus>, port::Error>, u32) {
    let (mut found, mut pages, mut read) = (BTreeMap::new(), Pages::default(), 0);
    while pages.go_on() {
        let page = match engine.list_moving(pages.token()).await {
            Ok(page) => page,
            Err(error) => return (Err(error), read),
        };
        read += 1;
        found.extend(page.items.into_iter().map(|s| (s.stack_id, s.status)));
        if let Err(error) = pages.turn(page.next) {
            return (Err(error), read);
        }
    }
    (Ok(found), read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_rarer_where_nothing_happens_and_where_much_is_listed() {
        let second = Duration::from_secs(1);
        for (quiet, pages, expected) in [
            (0, 0, 1),
            (59, 1, 1),
            (60, 1, 2),
            (300, 1, 5),
            (0, 5, 1),
            (0, 6, 2),
            (0, 100, 20),
            (300, 100, 20),
        ] {
            let wait = interval(second, Duration::from_secs(quiet), pages);
            assert_eq!(wait, second * expected, "{quiet} s, {pages} pages");
        }
        assert_eq!(interval(Duration::ZERO, second, 7), Duration::ZERO);
    }

    fn stack(n: usize) -> StackId {
        format!("arn:aws:cloudformation:eu-west-1:111111111111:stack/s{n}/{n}")
            .parse()
            .unwrap()
    }

    #[test]
    fn a_hint_finds_who_watches_that_stack_and_nobody_else() {
        let clock = Clock::standing(Timestamp(0));
        let watching = Watching::default();
        let one = watching.watch(&stack(1), &clock);
        assert!(one.is_alone());
        let other = watching.watch(&stack(2), &clock);
        assert!(!one.is_alone());

        assert!(watching.hint(&stack(1)));
        assert!(!watching.hint(&stack(3)));

        drop(one);
        assert!(!watching.hint(&stack(1)));
        assert!(other.is_alone());
    }

    #[cfg(feature = "testing")]
    mod on_a_stub {
        use std::collections::BTreeSet;

        use super::super::*;
        use super::stack;
        use crate::testing::stub::Stub;

        const SECOND: Duration = Duration::from_secs(1);

        fn engine(stub: &Stub) -> Arc<dyn StackEngine> {
            stub.engine_of("000000000001", "us-east-1")
        }

        /// Lets `count` stacks move for ten seconds and more, each a little longer than the one before. Returns how often the
        /// service was called, and how late the ends were seen at most.
        async fn watched(count: usize) -> (BTreeMap<&'static str, u64>, Duration) {
            let clock = Clock::standing(Timestamp(0));
            let stub = Stub::default();
            stub.slow(clock.clone(), SECOND, |name| {
                let number: u64 = name.as_str()[1..].parse().unwrap_or_default();
                Duration::from_millis(10_000 + number * 7)
            });
            let (engine, watching) = (engine(&stub), Arc::new(Watching::default()));
            let mut tasks = Vec::new();
            for number in 0..count {
                let id = stub.begin("000000000001", "us-east-1", &format!("s{number}"));
                let (engine, clock) = (engine.clone(), clock.clone());
                let watched = watching.watch(&id, &clock);
                tasks.push(tokio::spawn(async move {
                    let mut looked = clock.steady();
                    while let Listed::Moving(_) =
                        watched.next(engine.as_ref(), looked, SECOND).await
                    {
                        looked = clock.steady();
                    }
                    clock.steady()
                }));
            }
            stub.take_calls();
            let mut seen = Vec::new();
            for task in tasks {
                while !task.is_finished() {
                    for _ in 0..4 {
                        tokio::task::yield_now().await;
                    }
                    let Some(next) = clock.next_wake().filter(|_| !task.is_finished()) else {
                        continue;
                    };
                    clock.advance(next);
                }
                seen.push(task.await.unwrap());
            }
            let ends: BTreeSet<Timestamp> = stub.ends().into_values().collect();
            let late = ends.iter().zip(&seen).map(|(end, seen)| seen.since(*end));
            (stub.take_calls(), late.max().unwrap_or_default())
        }

        #[tokio::test]
        async fn a_hint_comes_before_the_next_look() {
            let clock = Clock::standing(Timestamp(0));
            let (engine, watching) = (engine(&Stub::default()), Watching::default());
            let watched = watching.watch(&stack(1), &clock);
            let _other = watching.watch(&stack(2), &clock);

            assert!(watching.hint(&stack(1)));
            let told = watched.next(engine.as_ref(), clock.steady(), SECOND).await;

            // The clock stands still: nothing else could have ended the wait.
            assert_eq!(told, Listed::Unsure);
        }

        #[tokio::test]
        async fn one_listing_serves_all_who_watch() {
            let (few, late) = watched(3).await;
            assert!(late <= SECOND, "{late:?}");
            let (many, late) = watched(250).await;
            assert!(late <= SECOND, "{late:?}");

            // Eleven seconds, a page each; twelve, with three pages at first.
            assert!((10..=12).contains(&few["ListStacks"]), "{few:?}");
            assert!((30..=36).contains(&many["ListStacks"]), "{many:?}");
            assert_eq!((few.len(), many.len()), (1, 1), "{few:?} {many:?}");
        }
    }
}
