//! Time: the only caller of the system's clock, and the only place that waits.
//!
//! Two times: the wall's, which people read and somebody may set, and one that only goes forward, by which everything
//! here waits. A virtual clock stands still until the simulation's driver moves it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use crate::domain::model::Timestamp;

/// Wall time, of the system or virtual.
#[derive(Clone)]
pub struct Clock(Kind);

#[derive(Clone)]
enum Kind {
    System,
    Virtual(Arc<Virtual>),
    /// The same time on another machine, whose wall nobody sets.
    Elsewhere(Arc<Virtual>),
}

struct Virtual {
    start: Timestamp,
    times: Mutex<Times>,
    moved: Notify,
    slept: Notify,
}

struct Times {
    /// Goes forward only.
    steady: Timestamp,
    /// What the wall shows beyond that, in milliseconds.
    wall: i64,
    /// Who waits, and until when.
    sleepers: BTreeMap<u64, Timestamp>,
    next: u64,
}

impl Virtual {
    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sleeper, for as long as it waits.
struct Sleeper<'a> {
    clock: &'a Virtual,
    number: u64,
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.clock.times().sleepers.remove(&self.number);
    }
}

impl Clock {
    /// Returns the system's clock.
    pub fn system() -> Self {
        Self(Kind::System)
    }

    /// Returns a clock that stands at `start` until it is advanced.
    pub fn standing(start: Timestamp) -> Self {
        Self(Kind::Virtual(Arc::new(Virtual {
            start,
            times: Mutex::new(Times {
                steady: Timestamp(0),
                wall: start.0,
                sleepers: BTreeMap::new(),
                next: 0,
            }),
            moved: Notify::new(),
            slept: Notify::new(),
        })))
    }

    /// Returns the clock of another machine in the same simulation: it goes as this one does, and never jumps.
    pub fn elsewhere(&self) -> Self {
        match &self.0 {
            Kind::Virtual(clock) | Kind::Elsewhere(clock) => Self(Kind::Elsewhere(clock.clone())),
            Kind::System => self.clone(),
        }
    }

    /// Returns the time of the wall. It may jump, in both directions: what waits goes by [`Clock::steady`].
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Kind::System => {
                let since = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Kind::Virtual(clock) => {
                let times = clock.times();
                Timestamp(times.steady.0 + times.wall)
            }
            Kind::Elsewhere(clock) => Timestamp(clock.times().steady.0 + clock.start.0),
        }
    }

    /// Returns a time that only goes forward, from an arbitrary beginning; it means nothing to another process.
    pub fn steady(&self) -> Timestamp {
        match &self.0 {
            Kind::System => {
                static BEGINNING: OnceLock<Instant> = OnceLock::new();
                let since = BEGINNING.get_or_init(Instant::now).elapsed();
                Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Kind::Virtual(clock) | Kind::Elsewhere(clock) => clock.times().steady,
        }
    }

    /// Moves a virtual clock on and wakes who waits. Does nothing to the system's clock.
    pub fn advance(&self, by: Duration) {
        if let Kind::Virtual(clock) = &self.0 {
            let mut times = clock.times();
            times.steady = times.steady.plus(by);
            drop(times);
            clock.moved.notify_waiters();
        }
    }

    /// Sets the wall of a virtual clock on or back, as a time server or a person does. Nobody wakes from it.
    pub fn jump(&self, milliseconds: i64) {
        if let Kind::Virtual(clock) = &self.0 {
            clock.times().wall += milliseconds;
        }
    }

    /// Returns how long it is until the first sleeper of a virtual clock wakes; absent when nobody sleeps.
    pub fn next_wake(&self) -> Option<Duration> {
        match &self.0 {
            Kind::System => None,
            Kind::Virtual(clock) | Kind::Elsewhere(clock) => {
                let times = clock.times();
                let first = times.sleepers.values().min()?;
                Some(first.since(times.steady))
            }
        }
    }

    /// Waits until somebody sleeps on a virtual clock. For the driver, which then knows that only time helps.
    pub async fn asleep(&self) {
        let Kind::Virtual(clock) = &self.0 else {
            return std::future::pending().await;
        };
        loop {
            let slept = clock.slept.notified();
            if !clock.times().sleepers.is_empty() {
                return;
            }
            slept.await;
        }
    }

    /// Waits. Cancelling it at any point is safe.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            Kind::System => tokio::time::sleep(duration).await,
            Kind::Virtual(clock) | Kind::Elsewhere(clock) => {
                let (until, number) = {
                    let mut times = clock.times();
                    let until = times.steady.plus(duration);
                    let number = times.next;
                    times.next += 1;
                    times.sleepers.insert(number, until);
                    (until, number)
                };
                let _sleeper = Sleeper { clock, number };
                clock.slept.notify_waiters();
                loop {
                    // Registered before the look, so that no step of the driver falls between.
                    let moved = clock.moved.notified();
                    if clock.times().steady >= until {
                        return;
                    }
                    moved.await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_virtual_clock_wakes_sleepers_when_it_is_advanced() {
        let clock = Clock::standing(Timestamp(0));
        let sleeper = clock.clone();
        let task = tokio::spawn(async move { sleeper.sleep(Duration::from_secs(60)).await });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(59));
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        clock.advance(Duration::from_secs(1));
        task.await.unwrap();
        assert_eq!(clock.now(), Timestamp(60_000));
    }

    #[tokio::test]
    async fn setting_the_wall_wakes_nobody_and_delays_nobody() {
        let clock = Clock::standing(Timestamp(1_000_000));
        let sleeper = clock.clone();
        let task = tokio::spawn(async move { sleeper.sleep(Duration::from_secs(60)).await });
        clock.asleep().await;
        clock.jump(86_400_000);
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        clock.jump(-2 * 86_400_000);
        assert_eq!(clock.next_wake(), Some(Duration::from_secs(60)));
        clock.advance(Duration::from_secs(60));
        task.await.unwrap();
        assert_eq!(clock.next_wake(), None);
    }
}
