//! The rate governor: what a credential may ask of its forge, and when.
//!
//! One for each credential, shared by everything that uses it. It decides on what the forge said last and knows no network.
//! Two limits are kept apart from another rule: a limit refuses calls for a while (whoever is asked answers at once, and
//! nothing goes out), a pace only keeps writes apart.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::forge::ForgeKind;
use crate::domain::model::Timestamp;

/// A secondary limit that names no time: <https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api>
/// says at least one minute, and longer and longer while it goes on.
const AT_LEAST: Duration = Duration::from_secs(60);
/// Nobody waits longer than this for what a header says: the primary limits of every forge begin anew within an hour, and a
/// header that says more is wrong or ill meant.
const AT_MOST: Duration = Duration::from_secs(3600);
/// <https://docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api>: at least one second between
/// requests that change something.
const BETWEEN_WRITES: Duration = Duration::from_secs(1);

/// What an answer said of limits, as its headers spell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The status.
    pub status: u16,
    /// `Retry-After`, as a number of seconds or as a date.
    pub retry_after: Option<String>,
    /// How many calls are left in the window.
    pub remaining: Option<String>,
    /// When the window ends, in seconds since 1970.
    pub reset: Option<String>,
    /// `Date`: the forge's own clock, by which the two times above are meant.
    pub date: Option<String>,
    /// The forge's message, where it refused.
    pub message: String,
}

impl Said {
    /// Returns the names of the headers that tell what is left and when the window ends.
    ///
    /// GitHub: <https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api>. GitLab:
    /// <https://docs.gitlab.com/administration/settings/user_and_ip_rate_limits/#response-headers>. Gitea has no limits of
    /// its own, and Bitbucket Cloud tells no window
    /// (<https://support.atlassian.com/bitbucket-cloud/docs/api-request-limits/>).
    pub fn headers(kind: ForgeKind) -> Option<(&'static str, &'static str)> {
        match kind {
            ForgeKind::GitHub => Some(("x-ratelimit-remaining", "x-ratelimit-reset")),
            ForgeKind::GitLab => Some(("ratelimit-remaining", "ratelimit-reset")),
            ForgeKind::Gitea | ForgeKind::Bitbucket => None,
        }
    }

    /// Returns how long to wait; absent where nothing is limited.
    fn wait(&self, now: Timestamp, strikes: u32) -> Option<Wait> {
        let date = self.date.as_deref().and_then(http_date).unwrap_or(now);
        let refused = self.refuses();
        if let Some(text) = self.retry_after.as_deref().filter(|_| refused) {
            let named = match text.trim().parse::<u64>() {
                Ok(seconds) => Some(Duration::from_secs(seconds)),
                Err(_) => http_date(text).map(|until| until.since(date)),
            };
            if let Some(wait) = named {
                return Some(Wait::Named(bounded(wait)));
            }
        }
        let spent = self.remaining.as_deref().map(str::trim) == Some("0");
        if spent && let Some(reset) = self.reset.as_deref().and_then(|r| r.trim().parse().ok()) {
            let reset = Timestamp(i64::saturating_mul(reset, 1000));
            // One second more: the header counts whole seconds.
            let wait = reset.since(date) + Duration::from_secs(1);
            return Some(Wait::Named(bounded(wait)));
        }
        refused.then(|| Wait::Grown(bounded(AT_LEAST.saturating_mul(1 << strikes.min(6)))))
    }

    /// Tells whether the forge refused a call for being one too many.
    ///
    /// GitHub answers 403 as well as 429; a 403 that is about rights says neither of the two things asked here.
    pub fn refuses(&self) -> bool {
        match self.status {
            429 => true,
            403 => {
                let message = self.message.to_ascii_lowercase();
                self.retry_after.is_some()
                    || self.remaining.as_deref().map(str::trim) == Some("0")
                    || message.contains("rate limit")
                    || message.contains("abuse detection")
            }
            503 => self.retry_after.is_some(),
            _ => false,
        }
    }
}

enum Wait {
    Named(Duration),
    Grown(Duration),
}

fn bounded(wait: Duration) -> Duration {
    wait.clamp(Duration::from_secs(1), AT_MOST)
}

/// Reads a date as HTTP writes it (RFC 9110 §5.6.7, the preferred form).
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    let zoned = jiff::fmt::rfc2822::parse(text.trim()).ok()?;
    Some(Timestamp(zoned.timestamp().as_millisecond()))
}

/// The limits of one credential.
#[derive(Default)]
pub struct Governor {
    state: Mutex<State>,
    /// Held by whoever writes: <https://docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api> asks
    /// for one request after the other.
    pub writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Nothing goes out before, by the steady clock.
    held: Option<Timestamp>,
    /// How often in a row a limit named no time.
    strikes: u32,
    /// When something was written last.
    wrote: Option<Timestamp>,
}

impl Governor {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns for how long nothing may be asked; absent where a call may go out.
    pub fn held(&self, steady: Timestamp) -> Option<Duration> {
        let until = self.state().held?;
        (until > steady).then(|| until.since(steady))
    }

    /// Returns how long the next write has to wait for the one before it.
    pub fn apart(&self, kind: ForgeKind, steady: Timestamp) -> Duration {
        match (kind, self.state().wrote) {
            (ForgeKind::GitHub, Some(wrote)) => wrote.plus(BETWEEN_WRITES).since(steady),
            _ => Duration::ZERO,
        }
    }

    /// Notes that something is written.
    pub fn wrote(&self, steady: Timestamp) {
        self.state().wrote = Some(steady);
    }

    /// Learns from an answer; returns how long to wait where it was refused for being one too many.
    pub fn learn(&self, said: &Said, now: Timestamp, steady: Timestamp) -> Option<Duration> {
        let mut state = self.state();
        let wait = match said.wait(now, state.strikes) {
            None => {
                if said.status < 400 {
                    state.strikes = 0;
                }
                return None;
            }
            Some(Wait::Named(wait)) => wait,
            Some(Wait::Grown(wait)) => {
                state.strikes += 1;
                wait
            }
        };
        let until = steady.plus(wait);
        state.held = state.held.max(Some(until));
        said.refuses().then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_000_000_000);

    fn said(status: u16) -> Said {
        Said {
            status,
            ..Said::default()
        }
    }

    fn text(word: &str) -> Option<String> {
        Some(word.to_owned())
    }

    fn seconds(wait: Option<Duration>) -> Option<u64> {
        wait.map(|w| w.as_secs())
    }

    #[test]
    fn the_last_call_of_a_window_holds_until_it_ends() {
        let governor = Governor::default();
        let last = Said {
            remaining: text("0"),
            reset: text("1795000100"),
            ..said(200)
        };

        let refused = governor.learn(&last, NOW, Timestamp(5_000));

        assert_eq!(refused, None);
        assert_eq!(seconds(governor.held(Timestamp(5_000))), Some(101));
        assert_eq!(seconds(governor.held(Timestamp(105_999))), Some(0));
        assert_eq!(governor.held(Timestamp(106_000)), None);
    }

    #[test]
    fn the_end_of_a_window_is_meant_by_the_forges_own_clock() {
        let governor = Governor::default();
        // This machine is a year ahead.
        let now = NOW.plus(Duration::from_secs(365 * 86_400));
        let last = Said {
            remaining: text("0"),
            reset: text("1795000030"),
            date: text("Wed, 18 Nov 2026 11:06:40 GMT"),
            ..said(403)
        };

        let refused = governor.learn(&last, now, Timestamp(0));

        assert_eq!(seconds(refused), Some(31));
    }

    #[test]
    fn what_the_forge_says_to_wait_is_waited_and_no_longer_than_an_hour() {
        for (header, wait) in [
            ("30", Some(30)),
            ("0", Some(1)),
            ("99999999999", Some(3600)),
            ("Wed, 18 Nov 2026 11:07:40 GMT", Some(60)),
            // Neither of the two forms: the wait that names no time.
            ("soon", Some(60)),
            ("-5", Some(60)),
        ] {
            let governor = Governor::default();
            let refused = Said {
                retry_after: text(header),
                ..said(429)
            };

            let told = governor.learn(&refused, NOW, Timestamp(0));

            assert_eq!(seconds(told), wait, "{header}");
        }
    }

    #[test]
    fn a_limit_without_a_time_holds_a_minute_and_doubles_until_a_call_passes() {
        let governor = Governor::default();
        let refused = Said {
            message: "You have exceeded a secondary rate limit.".into(),
            ..said(403)
        };
        let mut told = Vec::new();
        for _ in 0..8 {
            told.push(
                governor
                    .learn(&refused, NOW, Timestamp(0))
                    .unwrap()
                    .as_secs(),
            );
        }
        assert_eq!(told, [60, 120, 240, 480, 960, 1920, 3600, 3600]);

        assert_eq!(governor.learn(&said(200), NOW, Timestamp(0)), None);

        assert_eq!(
            seconds(governor.learn(&refused, NOW, Timestamp(0))),
            Some(60)
        );
    }

    #[test]
    fn a_refusal_for_want_of_rights_is_no_limit() {
        let governor = Governor::default();
        let refused = Said {
            message: "Resource not accessible by integration".into(),
            remaining: text("4999"),
            reset: text("1795000100"),
            ..said(403)
        };

        assert_eq!(governor.learn(&refused, NOW, Timestamp(0)), None);
        assert_eq!(governor.learn(&said(503), NOW, Timestamp(0)), None);
        assert_eq!(governor.held(Timestamp(0)), None);
    }

    #[test]
    fn writes_to_github_are_a_second_apart() {
        let governor = Governor::default();
        assert_eq!(
            governor.apart(ForgeKind::GitHub, Timestamp(0)),
            Duration::ZERO
        );

        governor.wrote(Timestamp(10_000));

        let apart = |kind, at| governor.apart(kind, Timestamp(at)).as_millis();
        assert_eq!(apart(ForgeKind::GitHub, 10_400), 600);
        assert_eq!(apart(ForgeKind::GitHub, 11_000), 0);
        assert_eq!(apart(ForgeKind::GitLab, 10_000), 0);
    }
}
