//! The whole line in one thread, on a clock that the driver moves, under seeded faults.
//!
//! A seed decides everything: what is pushed, what fails and at which call, when the process dies, what operators and
//! strangers do. After every step the world's ledger is held against the log and against what the driver knows; in the end
//! the faults stop and everything must come to rest as Git asks. `ISOFORM_SEED=<n>` replays one seed and tells its story,
//! `ISOFORM_SEEDS=<n>` runs so many, `ISOFORM_FIRST_SEED=<n>` begins elsewhere.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and a failed seed tells its story"
)]

mod checks;
mod driver;
mod estate;

use std::sync::atomic::{AtomicU64, Ordering};

use driver::{Ended, Simulation};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|t| t.replace('_', "").parse().ok())
        .unwrap_or(default)
}

/// Runs a seed on a runtime of its own; a violation comes back as text.
fn run(seed: u64, missing: Option<&str>, tell: bool) -> Result<Ended, String> {
    let missing = missing.map(str::to_owned);
    std::thread::Builder::new()
        .name(format!("seed {seed}"))
        .stack_size(32 << 20)
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .thread_stack_size(16 << 20)
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut simulation = Simulation::new(seed, tell).await;
                isoform::testing::faults::without(missing.as_deref());
                let ended = simulation.run().await;
                isoform::testing::faults::end();
                ended
            })
        })
        .unwrap()
        .join()
        .unwrap_or_else(|_| Err("it panicked".into()))
}

/// Runs many seeds, two at a time; returns those that failed.
fn many(first: u64, count: u64) -> Vec<(u64, String)> {
    let next = AtomicU64::new(first);
    let failed = std::sync::Mutex::new(Vec::new());
    let steps = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || failed.lock().unwrap().len() >= 5 {
                        return;
                    }
                    match run(seed, None, false) {
                        Ok(ended) => {
                            steps.fetch_add(ended.steps, Ordering::Relaxed);
                        }
                        Err(why) => failed.lock().unwrap().push((seed, why)),
                    }
                }
            });
        }
    });
    println!(
        "simulation: {count} seeds from {first}, {} steps",
        steps.load(Ordering::Relaxed)
    );
    failed.into_inner().unwrap()
}

#[test]
fn no_seed_breaks_a_promise() {
    if let Ok(seed) = std::env::var("ISOFORM_SEED") {
        run(seed.parse().unwrap(), None, true).unwrap();
        return;
    }
    let failed = many(number("ISOFORM_FIRST_SEED", 1), number("ISOFORM_SEEDS", 30));
    assert!(
        failed.is_empty(),
        "ISOFORM_SEED=<seed> tells the story:\n{}",
        failed
            .iter()
            .map(|(s, w)| format!("seed {s}: {w}"))
            .collect::<Vec<_>>()
            .join("\n")
    );
}

#[test]
fn a_seed_repeats() {
    let (one, two) = (run(7, None, false).unwrap(), run(7, None, false).unwrap());
    assert_eq!(one.story, two.story);
}

/// Seeds that found something once. They stay.
#[test]
fn what_was_found_stays_mended() {
    for seed in FOUND {
        if let Err(why) = run(*seed, None, false) {
            panic!("seed {seed}: {why}");
        }
    }
}

const FOUND: &[u64] = &[];
