//! Time: the only caller of the system's clock, and the only place that waits.
//!
//! A virtual clock stands still until the simulation's driver moves it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use crate::domain::model::Timestamp;

/// Wall time, of the system or virtual.
#[derive(Clone)]
pub struct Clock(Kind);

#[derive(Clone)]
enum Kind {
    System,
    Virtual(Arc<Virtual>),
}

struct Virtual {
    now: Mutex<Timestamp>,
    moved: Notify,
}

impl Clock {
    /// Returns the system's clock.
    pub fn system() -> Self {
        Self(Kind::System)
    }

    /// Returns a clock that stands at `start` until it is advanced.
    pub fn standing(start: Timestamp) -> Self {
        Self(Kind::Virtual(Arc::new(Virtual {
            now: Mutex::new(start),
            moved: Notify::new(),
        })))
    }

    /// Returns the time.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Kind::System => {
                let since = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Kind::Virtual(clock) => *clock.now.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Moves a virtual clock on and wakes who waits. Does nothing to the system's clock.
    pub fn advance(&self, by: Duration) {
        if let Kind::Virtual(clock) = &self.0 {
            let mut now = clock.now.lock().unwrap_or_else(PoisonError::into_inner);
            *now = now.plus(by);
            drop(now);
            clock.moved.notify_waiters();
        }
    }

    /// Waits. Cancelling it at any point is safe.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            Kind::System => tokio::time::sleep(duration).await,
            Kind::Virtual(clock) => {
                let until = self.now().plus(duration);
                loop {
                    // Registered before the look, so that no step of the driver falls between.
                    let moved = clock.moved.notified();
                    if self.now() >= until {
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
}
