//! Clocks, medians and lines of a table.

use std::time::{Duration, Instant};

/// What something cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// On the wall.
    pub wall: Duration,
    /// Of the whole process, and of its children that have ended.
    pub cpu: Duration,
}

/// Starts measuring.
pub struct Started(Instant, Duration);

impl Started {
    /// Now.
    pub fn now() -> Self {
        Self(Instant::now(), cpu() + children_cpu())
    }

    /// Returns the cost up to now.
    pub fn cost(&self) -> Cost {
        Cost {
            wall: self.0.elapsed(),
            cpu: (cpu() + children_cpu()).saturating_sub(self.1),
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

/// The clock of `/proc`: a hundredth of a second.
const TICK: Duration = Duration::from_millis(10);

/// Returns the processor time of the children that were waited for, and of theirs, in steps of 10 ms.
fn children_cpu() -> Duration {
    ticks("self", 15..17)
}

/// Returns the processor time of another process and of its children that have ended, in steps of 10 ms.
pub fn cpu_of(process: u32) -> Duration {
    ticks(&process.to_string(), 13..17)
}

/// Adds up fields of `/proc/PID/stat`, counted from the process id as proc(5) does, less one.
fn ticks(process: &str, fields: std::ops::Range<usize>) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name may hold spaces; it ends with the last bracket, and is the second field.
    let rest = text.rsplit(") ").next().unwrap_or_default();
    rest.split(' ')
        .skip(fields.start - 2)
        .take(fields.len())
        .filter_map(|word| word.parse::<u32>().ok())
        .map(|n| TICK * n)
        .sum()
}

/// The argument that makes this program a child of itself.
pub const CHILD: &str = "child";

/// Returns a command that runs this program as a child.
pub fn child(words: &[&str]) -> anyhow::Result<std::process::Command> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.arg(CHILD).args(words);
    Ok(command)
}

/// Measures what is so short that many of it are one sample; the cost is that of one.
pub fn batch(many: u32, mut what: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Cost> {
    let started = Started::now();
    for _ in 0..many {
        what()?;
    }
    let cost = started.cost();
    Ok(Cost {
        wall: cost.wall / many,
        cpu: cost.cpu / many,
    })
}

/// Prints how two medians relate, on the wall and in processor time.
pub fn ratio(what: &str, of: &[Cost], to: &[Cost]) {
    let (of, to) = (median(of), median(to));
    let part = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64().max(1e-9);
    println!(
        "{what:<44} wall {:>9.2}× cpu {:>9.2}×",
        part(of.wall, to.wall),
        part(of.cpu, to.cpu)
    );
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
    (status(process, "VmRSS:"), status(process, "RssAnon:"))
}

/// Returns the most that was resident of this process so far.
pub fn peak() -> u64 {
    status("self", "VmHWM:")
}

fn status(process: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    text.lines()
        .find_map(|l| l.strip_prefix(name))
        .and_then(|l| l.trim().trim_end_matches(" kB").trim().parse::<u64>().ok())
        .unwrap_or_default()
        * 1024
}

/// Shows bytes.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / f64::from(1 << 20))
}
