//! Windows: when changes of a target may run. Times are UTC.

use std::fmt;

use crate::domain::model::Timestamp;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const NAMES: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];
const MINUTES: u32 = 24 * 60;

/// A daily span of time on some days of the week. One that ends before it begins runs over midnight.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Window {
    days: [bool; 7],
    from: u32,
    to: u32,
}

impl Window {
    /// Makes a window from names of days (none means all) and times `hh:mm`.
    pub fn new(days: &[String], from: Option<&str>, to: Option<&str>) -> Result<Self, String> {
        let mut set = [days.is_empty(); 7];
        for day in days {
            let index = DAYS.iter().position(|d| d == day).ok_or_else(|| {
                format!("`{}` is not one of {}", day.escape_debug(), DAYS.join(", "))
            })?;
            set[index] = true;
        }
        let time = |text: Option<&str>, default: u32| -> Result<u32, String> {
            let Some(text) = text else { return Ok(default) };
            let parsed = text.split_once(':').and_then(|(h, m)| {
                Some((
                    h.parse::<u32>().ok()?,
                    m.parse::<u32>().ok().filter(|_| m.len() == 2)?,
                ))
            });
            match parsed {
                Some((h, m)) if h <= 24 && m < 60 && h * 60 + m <= MINUTES => Ok(h * 60 + m),
                _ => Err(format!(
                    "`{}` is not a time: write hh:mm",
                    text.escape_debug()
                )),
            }
        };
        let (from, to) = (time(from, 0)?, time(to, MINUTES)?);
        if from == to {
            return Err("a window that ends when it begins is never open".into());
        }
        Ok(Self {
            days: set,
            from,
            to,
        })
    }

    /// Tells whether the window is open.
    pub fn contains(&self, now: Timestamp) -> bool {
        let minutes = now.0.div_euclid(60_000);
        let day = minutes.div_euclid(i64::from(MINUTES));
        let minute = minutes.rem_euclid(i64::from(MINUTES)) as u32;
        // 1970-01-01 was a Thursday.
        let today = (day + 3).rem_euclid(7) as usize;
        let yesterday = (today + 6) % 7;
        if self.from < self.to {
            self.days[today] && (self.from..self.to).contains(&minute)
        } else {
            (self.days[today] && minute >= self.from) || (self.days[yesterday] && minute < self.to)
        }
    }

    /// Returns when it opens next; absent where it is open, or never opens.
    pub fn opens(&self, now: Timestamp) -> Option<Timestamp> {
        if self.contains(now) {
            return None;
        }
        let minute = now.0.checked_div_euclid(60_000)?;
        // Eight days hold every minute of a week, whichever of them it begins with.
        (1..=i64::from(MINUTES) * 8)
            .map(|n| Timestamp(minute.saturating_add(n).saturating_mul(60_000)))
            .find(|at| self.contains(*at))
    }
}

/// Returns when the first of some windows opens, as people say it: `Monday 09:00 UTC`; absent where one is open.
pub fn opening(windows: &[Window], now: Timestamp) -> Option<String> {
    if windows.iter().any(|w| w.contains(now)) {
        return None;
    }
    let at = windows.iter().filter_map(|w| w.opens(now)).min()?;
    let minutes = at.0.div_euclid(60_000);
    let day = minutes.div_euclid(i64::from(MINUTES));
    let minute = minutes.rem_euclid(i64::from(MINUTES));
    let name = NAMES[(day + 3).rem_euclid(7) as usize];
    Some(format!("{name} {:02}:{:02} UTC", minute / 60, minute % 60))
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<&str> = DAYS
            .iter()
            .zip(self.days)
            .filter(|(_, on)| *on)
            .map(|(d, _)| *d)
            .collect();
        let days = if days.len() == 7 {
            "daily".to_owned()
        } else {
            days.join(" ")
        };
        write!(
            f,
            "{days} {:02}:{:02}–{:02}:{:02}",
            self.from / 60,
            self.from % 60,
            self.to / 60,
            self.to % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i64, hour: i64) -> Timestamp {
        // Day 4 after the epoch is Monday, 1970-01-05.
        Timestamp(((4 + day) * 24 + hour) * 3_600_000)
    }

    #[test]
    fn windows_open_and_close() {
        let work =
            Window::new(&["mon".into(), "tue".into()], Some("09:00"), Some("17:00")).unwrap();
        assert!(work.contains(at(0, 9)) && !work.contains(at(0, 17)) && !work.contains(at(2, 12)));
        let night = Window::new(&["mon".into()], Some("22:00"), Some("06:00")).unwrap();
        assert!(
            night.contains(at(0, 23))
                && night.contains(at(1, 5))
                && !night.contains(at(1, 23))
                && !night.contains(at(0, 5))
        );
        assert!(
            Window::new(&["monday".into()], None, None).is_err()
                && Window::new(&[], Some("25:00"), None).is_err()
                && Window::new(&[], Some("2147483648:00"), None).is_err()
        );
    }

    #[test]
    fn the_next_opening_is_said_as_people_say_it() {
        let work = Window::new(&["mon".into()], Some("09:00"), Some("17:00")).unwrap();
        let night = Window::new(&["wed".into()], Some("22:30"), Some("06:00")).unwrap();
        for (windows, now, said) in [
            (vec![work.clone()], at(0, 10), None),
            (vec![work.clone()], at(0, 17), Some("Monday 09:00 UTC")),
            (vec![work.clone()], at(6, 23), Some("Monday 09:00 UTC")),
            (vec![work, night], at(0, 18), Some("Wednesday 22:30 UTC")),
        ] {
            assert_eq!(opening(&windows, now).as_deref(), said, "{now:?}");
        }
        let never = opening(&[], at(0, 0));
        assert_eq!(never, None);
    }

    #[test]
    fn sec_58_a_window_asks_for_the_time_of_now_and_remembers_none() {
        let window = Window::new(&["mon".into()], Some("09:00"), Some("17:00")).unwrap();
        // On, a day ahead, back, a day back, and on again.
        let seen: Vec<bool> = [at(0, 10), at(1, 10), at(0, 10), at(-1, 10), at(0, 10)]
            .into_iter()
            .map(|now| window.contains(now))
            .collect();
        assert_eq!(seen, [true, false, true, false, true]);
        for extreme in [Timestamp(i64::MIN), Timestamp(i64::MAX), Timestamp(-1)] {
            let _ = window.contains(extreme);
        }
    }
}
