//! How fast a service that counts calls may be called, found out from what it refuses.
//!
//! CloudFormation publishes no rate, and shares what there is among everything in an account. So nothing is held back until
//! a call is refused. Then the pace falls to a part of what was taken, grows by small steps while everything is
//! taken, and is forgotten when nothing was refused for a while. Beginning without a limit is what the adaptive retry mode of the SDKs does:
//! <https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html>. Times and chance are given, never
//! taken; who waits for whom is decided in [`Queue`].

use std::collections::BTreeSet;
use std::time::Duration;

use crate::domain::model::Timestamp;

/// What is left of the pace after a refusal: CUBIC's part. Half would cost a third of what the service would take.
const FALL: f64 = 0.7;
/// What the pace grows by in a second, as a part of the pace that was refused last.
const GROWTH: f64 = 0.05;
/// The least that it grows by in a second.
const STEP: f64 = 0.1;
/// The slowest pace, in calls a second: whoever may make none learns nothing.
const SLOWEST: f64 = 0.5;
/// Without a refusal for this long the service is taken to be as it was before.
const QUIET: Duration = Duration::from_secs(300);
/// The first pause after a refusal, and the longest.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(5);

/// How urgent a call is. What is more urgent goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Urgency {
    /// A deployment that has begun: executing and watching it.
    Run,
    /// A look at one target.
    Look,
    /// Looking at everything: sweeps and drift.
    Sweep,
}

/// The pace of one kind of call in one account and region.
#[derive(Clone, Debug, PartialEq)]
pub struct Pace {
    /// Calls a second; absent while nothing was refused.
    rate: Option<f64>,
    /// The pace that was refused last.
    peak: f64,
    /// Calls that may be made at once, when that was counted.
    tokens: f64,
    filled: Timestamp,
    /// When the pace last grew, fell, and when a call was last refused.
    grown: Timestamp,
    fell: Timestamp,
    refused_at: Option<Timestamp>,
    /// Calls that were taken in this second and in the one before.
    second: i64,
    taken: [u32; 2],
    made: u64,
    refused: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            rate: None,
            peak: 0.0,
            tokens: 1.0,
            filled: Timestamp(0),
            grown: Timestamp(0),
            fell: Timestamp(i64::MIN),
            refused_at: None,
            second: i64::MIN,
            taken: [0; 2],
            made: 0,
            refused: 0,
        }
    }
}

impl Pace {
    /// Returns how long the next call has to wait.
    pub fn wait(&mut self, now: Timestamp) -> Duration {
        let Some(rate) = self.limit(now) else {
            return Duration::ZERO;
        };
        self.fill(rate, now);
        if self.tokens >= 1.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64((1.0 - self.tokens) / rate).max(Duration::from_millis(1))
    }

    /// Notes that a call is made.
    pub fn make(&mut self, now: Timestamp) {
        self.made += 1;
        if let Some(rate) = self.limit(now) {
            self.fill(rate, now);
            self.tokens -= 1.0;
        }
    }

    /// Notes that a call was taken: the pace grows.
    pub fn take(&mut self, now: Timestamp) {
        self.turn(now);
        self.taken[0] = self.taken[0].saturating_add(1);
        if let Some(rate) = &mut self.rate {
            // Idle time proves nothing about the service.
            let since = now.since(self.grown).min(Duration::from_secs(1));
            *rate += (self.peak * GROWTH).max(STEP) * since.as_secs_f64();
            self.grown = now;
        }
    }

    /// Notes that a call, made at `sent`, was refused. Returns whether the pace fell for it.
    ///
    /// Of many that were under way together one counts: the others were sent before anything could be learnt.
    pub fn refuse(&mut self, sent: Timestamp, now: Timestamp) -> bool {
        self.refused += 1;
        self.refused_at = Some(now);
        if sent < self.fell || (sent == self.fell && self.rate.is_some()) {
            return false;
        }
        let had = self.limit(now).unwrap_or_else(|| self.measured(now));
        self.peak = had;
        self.rate = Some((had * FALL).max(SLOWEST));
        self.tokens = 0.0;
        (self.filled, self.grown, self.fell) = (now, now, now);
        true
    }

    /// Returns how long a refused call waits before it is made again; `chance` lies between 0 and 1.
    pub fn pause(attempt: u32, chance: f64) -> Duration {
        let whole = PAUSE.saturating_mul(1 << attempt.min(10)).min(LONGEST);
        whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }

    /// Returns the present pace in calls a second; absent while nothing is held back.
    pub fn limit(&mut self, now: Timestamp) -> Option<f64> {
        if self.refused_at.is_some_and(|at| now.since(at) >= QUIET) {
            self.rate = None;
            self.refused_at = None;
        }
        self.rate
    }

    /// Returns how many calls were made, and how many of them were refused.
    pub fn counts(&self) -> (u64, u64) {
        (self.made, self.refused)
    }

    /// Returns when a call was last refused, as far as it is remembered.
    pub fn refused_at(&self) -> Option<Timestamp> {
        self.refused_at
    }

    fn fill(&mut self, rate: f64, now: Timestamp) {
        let since = now.since(self.filled).as_secs_f64();
        // A tenth of a second's worth may go at once, so that a fast pace does not hang on the clock's grain.
        self.tokens = (self.tokens + since * rate).min((rate / 10.0).max(1.0));
        self.filled = now;
    }

    fn turn(&mut self, now: Timestamp) {
        let second = now.0.div_euclid(1000);
        if second == self.second {
            return;
        }
        let next = self.second.checked_add(1) == Some(second);
        self.taken = [0, if next { self.taken[0] } else { 0 }];
        self.second = second;
    }

    /// What the service took in a second, as far as that is known.
    fn measured(&mut self, now: Timestamp) -> f64 {
        self.turn(now);
        f64::from(self.taken[0].max(self.taken[1]))
    }
}

/// Who waits to make a call: the more urgent first, and of equals whoever came first.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    next: u64,
    waiting: BTreeSet<(Urgency, u64)>,
}

impl Queue {
    /// Lines up.
    pub fn join(&mut self, urgency: Urgency) -> (Urgency, u64) {
        self.next += 1;
        let ticket = (urgency, self.next);
        self.waiting.insert(ticket);
        ticket
    }

    /// Tells whether it is this one's turn.
    pub fn is_first(&self, ticket: (Urgency, u64)) -> bool {
        self.waiting.first() == Some(&ticket)
    }

    /// Leaves, with or without having made the call.
    pub fn leave(&mut self, ticket: (Urgency, u64)) {
        self.waiting.remove(&ticket);
    }

    /// Returns how many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Tells whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp(ms)
    }

    /// A service that takes so many calls a second and refuses the others, and one who has `calls` to make. Returns how
    /// long it took in seconds, and how many were refused.
    fn work(limit: f64, calls: u32, round_trip: i64) -> (f64, u64) {
        let (mut pace, mut now, mut done) = (Pace::default(), 0i64, 0);
        let (mut bucket, mut seen) = (limit, 0i64);
        let mut answers: Vec<(i64, i64, bool)> = Vec::new();
        let mut left = calls;
        while done < calls {
            answers.retain(|&(back, sent, taken)| {
                if back > now {
                    return true;
                }
                if taken {
                    pace.take(at(now));
                    done += 1;
                } else {
                    pace.refuse(at(sent), at(now));
                    left += 1;
                }
                false
            });
            // As many are under way as a daemon has workers.
            while left > 0 && answers.len() < 16 && pace.wait(at(now)).is_zero() {
                pace.make(at(now));
                bucket = (bucket + limit * (now - seen) as f64 / 1000.0).min(limit.max(1.0));
                seen = now;
                let taken = bucket >= 1.0;
                bucket -= if taken { 1.0 } else { 0.0 };
                answers.push((now + round_trip, now, taken));
                left -= 1;
            }
            now += 1;
        }
        (now as f64 / 1000.0, pace.counts().1)
    }

    #[test]
    fn nothing_is_held_back_before_the_first_refusal() {
        let mut pace = Pace::default();
        for _ in 0..10_000 {
            assert_eq!(pace.wait(at(5)), Duration::ZERO);
            pace.make(at(5));
            pace.take(at(5));
        }
        assert_eq!(pace.limit(at(5)), None);
        assert_eq!(pace.counts(), (10_000, 0));
    }

    #[test]
    fn calls_that_were_under_way_together_are_one_refusal() {
        let mut pace = Pace::default();
        (0..20).for_each(|_| pace.take(at(1_500)));
        assert!(pace.refuse(at(1_500), at(1_600)));
        let fallen = pace.limit(at(1_600)).unwrap();
        for _ in 0..20 {
            assert!(!pace.refuse(at(1_550), at(1_650)));
        }
        assert_eq!(pace.limit(at(1_650)), Some(fallen));
        assert_eq!(fallen, 14.0);
        assert!(pace.refuse(at(1_700), at(1_800)));
        assert!(pace.limit(at(1_800)).unwrap() < fallen);
        assert_eq!(pace.counts().1, 22);
    }

    #[test]
    fn a_pace_is_forgotten_when_nothing_was_refused_for_a_while() {
        let mut pace = Pace::default();
        pace.refuse(at(0), at(0));
        assert!(pace.limit(at(299_999)).is_some());
        assert_eq!(pace.limit(at(300_000)), None);
        assert_eq!(pace.wait(at(300_000)), Duration::ZERO);
    }

    #[test]
    fn idle_time_lets_no_pace_grow() {
        let (mut idle, mut busy) = (Pace::default(), Pace::default());
        for pace in [&mut idle, &mut busy] {
            (0..10).for_each(|_| pace.take(at(0)));
            pace.refuse(at(0), at(0));
        }
        (1..=100).for_each(|s| busy.take(at(s * 1000)));
        idle.take(at(100_000));
        assert!(idle.limit(at(100_000)).unwrap() < 8.0);
        assert!(busy.limit(at(100_000)).unwrap() > 16.0);
    }

    #[test]
    fn the_more_urgent_goes_first_and_of_equals_who_came_first() {
        let mut queue = Queue::default();
        let sweep = queue.join(Urgency::Sweep);
        let look = queue.join(Urgency::Look);
        let (first, second) = (queue.join(Urgency::Run), queue.join(Urgency::Run));
        let mut order = Vec::new();
        while !queue.is_empty() {
            let all = [sweep, look, first, second];
            let next = *all.iter().find(|t| queue.is_first(**t)).unwrap();
            order.push(next);
            queue.leave(next);
        }
        assert_eq!(order, [first, second, look, sweep]);
    }

    #[test]
    fn a_pause_grows_and_is_spread() {
        assert_eq!(Pace::pause(0, 0.0), Duration::from_millis(125));
        assert_eq!(Pace::pause(0, 1.0), PAUSE);
        assert!(Pace::pause(2, 0.0) > Pace::pause(0, 1.0));
        assert_eq!(Pace::pause(40, 1.0), LONGEST);
        assert_eq!(Pace::pause(0, f64::NAN.max(7.0)), PAUSE);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// From three times the slowest pace on: a service that takes less than that is asked in vain now and then for ever.
        #[test]
        fn a_slow_service_is_used_well_and_seldom_asked_in_vain(
            limit in 3.0 * SLOWEST..60.0, seconds in 30u32..120, round_trip in 1i64..400,
        ) {
            let calls = (limit * f64::from(seconds)) as u32;
            let (took, refused) = work(limit, calls, round_trip);
            // What sixteen workers can do over this way at most, or what the service takes.
            let most = limit.min(16_000.0 / round_trip as f64);
            let best = f64::from(calls) / most;
            prop_assert!(took <= best * 1.35 + 5.0, "{took} s, {best} s would do");
            prop_assert!(refused <= 16 + u64::from(calls) / 8, "{refused} of {calls} refused");
        }

        #[test]
        fn a_pace_is_kept(
            refusals in proptest::collection::vec(0i64..20_000, 1..20), calls in 10u32..400,
        ) {
            let (mut pace, mut now, mut made) = (Pace::default(), 0i64, Vec::new());
            (0..calls).for_each(|_| pace.take(at(0)));
            pace.refuse(at(0), at(0));
            let mut refusals = refusals;
            refusals.sort_unstable();
            while now < 20_000 {
                if refusals.first().is_some_and(|r| *r <= now) {
                    refusals.remove(0);
                    pace.refuse(at(now), at(now));
                }
                let rate = pace.limit(at(now)).unwrap();
                prop_assert!(rate >= SLOWEST);
                prop_assert!(rate <= f64::from(calls));
                if pace.wait(at(now)).is_zero() {
                    pace.make(at(now));
                    made.push(now);
                }
                now += 1;
            }
            // No second holds more than the pace at the beginning allows.
            let most = f64::from(calls) * FALL;
            let burst = (most / 10.0).max(1.0);
            for (i, first) in made.iter().enumerate() {
                let within = made[i..].iter().take_while(|m| **m < first + 1000).count();
                prop_assert!(within as f64 <= most.max(SLOWEST) + burst + 1.0);
            }
        }

        #[test]
        fn whoever_waits_as_long_as_told_may_go(refused in 0i64..5_000, taken in 0u32..500) {
            let mut pace = Pace::default();
            (0..taken).for_each(|_| pace.take(at(refused)));
            pace.refuse(at(refused), at(refused));
            let wait = pace.wait(at(refused)).as_millis() as i64 + 1;
            prop_assert_eq!(pace.wait(at(refused + wait)), Duration::ZERO);
        }
    }
}
