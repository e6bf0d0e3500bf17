//! Clocks, medians and lines of a table.

use std::time::{Duration, Instant};

/// What something cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// On the wall.
    pub wall: Duration,
    /// Of the whole process.
    pub cpu: Duration,
}

/// Starts measuring.
pub struct Started(Instant, Duration);

impl Started {
    /// Now.
    pub fn now() -> Self {
        Self(Instant::now(), cpu())
    }

    /// Returns the cost up to now.
    pub fn cost(&self) -> Cost {
        Cost {
            wall: self.0.elapsed(),
            cpu: cpu().saturating_sub(self.1),
        }
    }
}

/// Returns the processor time of this process.
pub fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// Measures something several times.
pub fn repeated<T>(
    times: usize,
    mut what: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<Vec<Cost>> {
    (0..times)
        .map(|_| {
            let started = Started::now();
            std::hint::black_box(what()?);
            Ok(started.cost())
        })
        .collect()
}

/// Returns the median of some costs, of each part by itself.
pub fn median(costs: &[Cost]) -> Cost {
    let middle = |mut values: Vec<Duration>| {
        values.sort();
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Cost {
        wall: middle(costs.iter().map(|c| c.wall).collect()),
        cpu: middle(costs.iter().map(|c| c.cpu).collect()),
    }
}

/// Prints a line: what, its median, and what goes with it.
pub fn print(what: &str, costs: &[Cost], more: &str) {
    let middle = median(costs);
    println!(
        "{what:<44} wall {:>10} cpu {:>10}  n={} {more}",
        shown(middle.wall),
        shown(middle.cpu),
        costs.len()
    );
}

/// Shows a duration.
pub fn shown(duration: Duration) -> String {
    let us = duration.as_secs_f64() * 1e6;
    if us < 1000.0 {
        format!("{us:.1} µs")
    } else if us < 1e6 {
        format!("{:.2} ms", us / 1e3)
    } else {
        format!("{:.2} s", us / 1e6)
    }
}

/// Returns how many bytes of a process are resident, and how many of those are anonymous.
pub fn resident(process: &str) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let of = |name: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(name))
            .and_then(|l| l.trim().trim_end_matches(" kB").trim().parse::<u64>().ok())
            .unwrap_or_default()
            * 1024
    };
    (of("VmRSS:"), of("RssAnon:"))
}
