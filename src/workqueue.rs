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
    due: BTreeMap<K, (Timestamp, String)>,
    running: BTreeMap<K, String>,
    stopped: bool,
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
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stopped {
            return;
        }
        let entry = state.due.entry(key).or_insert((at, lane.to_owned()));
        entry.0 = entry.0.min(at);
        drop(state);
        self.0.changed.notify_waiters();
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
        let mut busy: BTreeMap<&str, usize> = BTreeMap::new();
        for lane in state.running.values() {
            *busy.entry(lane).or_default() += 1;
        }
        let free = |key: &K, lane: &str| {
            !state.running.contains_key(key) && busy.get(lane).copied().unwrap_or(0) < self.0.lane
        };
        let first = state
            .due
            .iter()
            .filter(|(key, (_, lane))| free(key, lane))
            .min_by_key(|(_, (at, _))| *at);
        match first {
            Some((key, (at, lane))) if *at <= now => {
                let (key, lane) = (key.clone(), lane.clone());
                state.due.remove(&key);
                state.running.insert(key.clone(), lane);
                Ok(key)
            }
            Some((_, (at, _))) => Err(Some(at.since(now).max(Duration::from_millis(1)))),
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
        state.running.is_empty() && state.due.values().all(|(at, _)| *at > until)
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
}

impl<K: Ord + Clone> TargetGuard<K> {
    /// Returns the key.
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Ord + Clone> Drop for TargetGuard<K> {
    fn drop(&mut self) {
        self.queue
            .0
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .running
            .remove(&self.key);
        self.queue.0.changed.notify_waiters();
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
    async fn a_stopped_queue_hands_out_nothing() {
        let (queue, _, stop) = queue(9, 9);
        queue.add("a", "l", Duration::ZERO);
        stop.cancel();
        assert!(queue.next(&stop).await.is_none());
    }
}
