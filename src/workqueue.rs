//! A keyed queue: delay, one at a time per key, a limit for each lane and one for all.
//!
//! In memory only: Git and the log are the truth, and start-up enqueues every target. A key that is added while it
//! runs runs once more afterwards; of two times for one key the earlier wins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::domain::model::Timestamp;

/// The queue. Clones share it.
pub struct WorkQueue<K: Ord + Clone>(Arc<Shared<K>>);

struct Shared<K: Ord + Clone> {
    state: Mutex<State<K>>,
    changed: Notify,
    clock: Clock,
    total: usize,
    lane: usize,
}

struct State<K> {
    /// When a key is due, and its lane. A key that runs may stand here too: it runs once more afterwards.
    due: BTreeMap<K, (Timestamp, Arc<str>)>,
    /// The same by lane and time, without the keys that run: taking looks at the first of each lane only.
    lanes: BTreeMap<Arc<str>, Lane<K>>,
    running: BTreeMap<K, Arc<str>>,
    stopped: bool,
}

struct Lane<K> {
    order: BTreeSet<(Timestamp, K)>,
    running: usize,
}

impl<K: Ord + Clone> State<K> {
    /// Puts a key into the order of its lane.
    fn line_up(&mut self, key: K, at: Timestamp, lane: &Arc<str>) {
        self.lane(lane).order.insert((at, key));
    }

    fn lane(&mut self, lane: &Arc<str>) -> &mut Lane<K> {
        self.lanes.entry(lane.clone()).or_insert_with(|| Lane {
            order: BTreeSet::new(),
            running: 0,
        })
    }
}

impl<K: Ord + Clone> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The right to work on a key, given to one holder at a time. Dropping it gives it back.
pub struct TargetGuard<K: Ord + Clone> {
    key: K,
    queue: WorkQueue<K>,
}

impl<K: Ord + Clone> WorkQueue<K> {
    /// Makes a queue that hands out at most `total` keys at once, and `lane` of one lane.
    pub fn new(clock: Clock, total: usize, lane: usize) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                due: BTreeMap::new(),
                lanes: BTreeMap::new(),
                running: BTreeMap::new(),
                stopped: false,
            }),
            changed: Notify::new(),
            clock,
            total,
            lane,
        }))
    }

    /// Asks for a key to be worked on, not before `after` has passed.
    pub fn add(&self, key: K, lane: &str, after: Duration) {
        let at = self.0.clock.steady().plus(after);
        let mut guard = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *guard;
        if state.stopped {
            return;
        }
        let runs = state.running.contains_key(&key);
        match state.due.get_mut(&key) {
            Some((due, _)) if *due <= at => return,
            Some((due, lane)) => {
                let (before, lane) = (std::mem::replace(due, at), lane.clone());
                if !runs {
                    state.lane(&lane).order.remove(&(before, key.clone()));
                    state.line_up(key, at, &lane);
                }
            }
            None => {
                let lane: Arc<str> = match state.lanes.get_key_value(lane) {
                    Some((lane, _)) => lane.clone(),
                    None => lane.into(),
                };
                state.due.insert(key.clone(), (at, lane.clone()));
                if !runs {
                    state.line_up(key, at, &lane);
                }
            }
        }
        drop(guard);
        self.0.changed.notify_one();
    }

    /// Waits for a key that is due; `None` when the queue stops.
    pub async fn next(&self, stop: &CancellationToken) -> Option<TargetGuard<K>> {
        loop {
            // Registered before the look, so that no change falls between.
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let wait = {
                let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.stopped || stop.is_cancelled() {
                    return None;
                }
                let now = self.0.clock.steady();
                match self.take(&mut state, now) {
                    Ok(key) => {
                        drop(state);
                        // One change wakes one who waits; whoever takes a key wakes the next, who may find another.
                        self.0.changed.notify_one();
                        return Some(TargetGuard {
                            key,
                            queue: self.clone(),
                        });
                    }
                    Err(wait) => wait,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                () = changed => {}
                () = self.0.clock.sleep(wait.unwrap_or(Duration::from_secs(3600))) => {}
            }
        }
    }

    fn take(&self, state: &mut State<K>, now: Timestamp) -> Result<K, Option<Duration>> {
        if state.running.len() >= self.0.total {
            return Err(None);
        }
        let first = state
            .lanes
            .iter()
            .filter(|(_, lane)| lane.running < self.0.lane)
            .filter_map(|(name, lane)| Some((lane.order.first()?, name)))
            .min_by_key(|(first, _)| *first);
        match first {
            Some(((at, key), name)) if *at <= now => {
                let (at, key, name) = (*at, key.clone(), name.clone());
                state.due.remove(&key);
                let lane = state.lane(&name);
                lane.order.remove(&(at, key.clone()));
                lane.running += 1;
                state.running.insert(key.clone(), name);
                Ok(key)
            }
            Some(((at, _), _)) => Err(Some(at.since(now).max(Duration::from_millis(1)))),
            None => Err(None),
        }
    }

    /// Stops handing out keys. Work in progress goes on.
    pub fn stop(&self) {
        self.0
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stopped = true;
        self.0.changed.notify_waiters();
    }

    /// Tells whether nothing runs and nothing becomes due within a while.
    pub fn is_quiet(&self, within: Duration) -> bool {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let until = self.0.clock.steady().plus(within);
        // With nothing running, every due key stands in the order of its lane.
        state.running.is_empty()
            && state
                .lanes
                .values()
                .all(|lane| lane.order.first().is_none_or(|(at, _)| *at > until))
    }

    /// Returns the keys that run.
    pub fn running(&self) -> BTreeSet<K> {
        self.0
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .running
            .keys()
            .cloned()
            .collect()
    }

    fn give_back(&self, key: &K) {
        let mut guard = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *guard;
        if let Some(lane) = state.running.remove(key) {
            state.lane(&lane).running -= 1;
        }
        if let Some((at, lane)) = state.due.get(key).cloned() {
            state.line_up(key.clone(), at, &lane);
        }
        drop(guard);
        self.0.changed.notify_one();
    }
}

impl<K: Ord + Clone> TargetGuard<K> {
    /// Returns the key.
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Ord + Clone> Drop for TargetGuard<K> {
    fn drop(&mut self) {
        self.queue.give_back(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(total: usize, lane: usize) -> (WorkQueue<&'static str>, Clock, CancellationToken) {
        let clock = Clock::standing(Timestamp(0));
        (
            WorkQueue::new(clock.clone(), total, lane),
            clock,
            CancellationToken::new(),
        )
    }

    async fn now(
        queue: &WorkQueue<&'static str>,
        stop: &CancellationToken,
    ) -> Option<TargetGuard<&'static str>> {
        tokio::select! {
            biased;
            guard = queue.next(stop) => guard,
            () = tokio::task::yield_now() => None,
        }
    }

    #[tokio::test]
    async fn one_holder_per_key_and_once_more_afterwards() {
        let (queue, _, stop) = queue(9, 9);
        queue.add("a", "l", Duration::ZERO);
        let held = now(&queue, &stop).await.unwrap();
        queue.add("a", "l", Duration::ZERO);
        queue.add("a", "l", Duration::ZERO);
        assert!(now(&queue, &stop).await.is_none());
        drop(held);
        let again = now(&queue, &stop).await.unwrap();
        drop(again);
        assert!(now(&queue, &stop).await.is_none());
    }

    #[tokio::test]
    async fn the_earlier_time_wins_and_nothing_runs_early() {
        let (queue, clock, stop) = queue(9, 9);
        queue.add("a", "l", Duration::from_secs(10));
        queue.add("a", "l", Duration::from_secs(5));
        queue.add("a", "l", Duration::from_secs(20));
        clock.advance(Duration::from_secs(4));
        assert!(now(&queue, &stop).await.is_none());
        clock.advance(Duration::from_secs(1));
        assert!(now(&queue, &stop).await.is_some());
    }

    #[tokio::test]
    async fn lanes_and_the_whole_are_bounded() {
        let (queue, _, stop) = queue(2, 1);
        for (key, lane) in [("a", "x"), ("b", "x"), ("c", "y"), ("d", "z")] {
            queue.add(key, lane, Duration::ZERO);
        }
        let first = now(&queue, &stop).await.unwrap();
        let second = now(&queue, &stop).await.unwrap();
        assert_eq!((*first.key(), *second.key()), ("a", "c"));
        assert!(now(&queue, &stop).await.is_none());
        drop(first);
        assert_eq!(now(&queue, &stop).await.unwrap().key(), &"b");
    }

    #[tokio::test]
    async fn every_waiter_gets_a_key_however_few_changes_there_were() {
        let (queue, _, stop) = queue(9, 9);
        let mut waiting: Vec<_> = (0..3)
            .map(|_| {
                let (queue, stop) = (queue.clone(), stop.clone());
                tokio::spawn(async move { *queue.next(&stop).await.unwrap().key() })
            })
            .collect();
        tokio::task::yield_now().await;
        for key in ["a", "b", "c"] {
            queue.add(key, "l", Duration::ZERO);
        }
        let mut got = Vec::new();
        for task in waiting.drain(..) {
            got.push(task.await.unwrap());
        }
        got.sort_unstable();
        assert_eq!(got, ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn quiet_is_when_nothing_runs_and_nothing_is_due_soon() {
        let (queue, _, stop) = queue(9, 9);
        let soon = Duration::from_secs(2);
        queue.add("a", "l", Duration::from_secs(10));
        assert!(queue.is_quiet(soon));
        queue.add("b", "l", Duration::ZERO);
        assert!(!queue.is_quiet(soon));
        let held = now(&queue, &stop).await.unwrap();
        // Once more while it runs: not lost, and due when it has ended.
        queue.add("b", "l", Duration::ZERO);
        assert!(!queue.is_quiet(soon));
        drop(held);
        assert!(!queue.is_quiet(soon));
        drop(now(&queue, &stop).await.unwrap());
        assert!(queue.is_quiet(soon));
    }

    #[tokio::test]
    async fn a_stopped_queue_hands_out_nothing() {
        let (queue, _, stop) = queue(9, 9);
        queue.add("a", "l", Duration::ZERO);
        stop.cancel();
        assert!(queue.next(&stop).await.is_none());
    }
}
