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
mod disk;
mod driver;
mod estate;
mod scripted;
mod situations;
mod swaps;

use std::sync::atomic::{AtomicU64, Ordering};

use driver::{Ended, Simulation};
use isoform::testing::faults::{self, Kind};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|t| t.replace('_', "").parse().ok())
        .unwrap_or(default)
}

/// Runs a simulation on a thread and a runtime of its own; a violation comes back as text.
fn alone<T: Send + 'static>(
    seed: u64,
    tell: bool,
    work: impl AsyncFnOnce(&mut Simulation) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
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
                let ended = work(&mut simulation).await;
                faults::end();
                ended
            })
        })
        .unwrap()
        .join()
        .unwrap_or_else(|_| Err("it panicked".into()))
}

/// Runs a seed, perhaps without one of the guards.
fn run(seed: u64, missing: Option<&'static str>, tell: bool) -> Result<Ended, String> {
    alone(seed, tell, async move |simulation| {
        faults::without(missing);
        simulation.run().await
    })
}

/// A simulation waits for its database more than it computes: two for each core.
fn threads() -> usize {
    2 * std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs many seeds; returns those that failed.
fn many(first: u64, count: u64) -> Vec<(u64, String)> {
    let next = AtomicU64::new(first);
    let failed = std::sync::Mutex::new(Vec::new());
    let steps = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads() {
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

mod seeds {
    use super::*;

    #[test]
    fn no_seed_breaks_a_promise() {
        if let Ok(seed) = std::env::var("ISOFORM_SEED") {
            let missing = std::env::var("ISOFORM_GUARD")
                .ok()
                .map(|name| &*name.leak());
            run(seed.parse().unwrap(), missing, true).unwrap();
            return;
        }
        let failed = many(
            number("ISOFORM_FIRST_SEED", 1),
            number("ISOFORM_SEEDS", 1_000),
        );
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

    /// A story is a function of its seed and of nothing else: told twice, and on two threads at once among others, it is the
    /// same to the last entry of the log.
    #[test]
    fn a_seed_repeats_to_the_last_entry_of_the_log() {
        for seed in [7, 20, 21, 22] {
            let alone = run(seed, None, false).unwrap();
            let beside: Vec<Ended> = std::thread::scope(|scope| {
                let others = [seed, seed + 1, seed]
                    .map(|seed| scope.spawn(move || run(seed, None, false).unwrap()));
                others.into_iter().map(|o| o.join().unwrap()).collect()
            });
            for again in [&beside[0], &beside[2]] {
                let differs = alone.story.iter().zip(&again.story).find(|(a, b)| a != b);
                assert_eq!(differs, None, "seed {seed}");
                assert_eq!(alone.digest, again.digest, "the log of seed {seed}");
            }
            assert_ne!(alone.digest, beside[1].digest);
        }
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

    const FOUND: &[u64] = &[6, 7, 22, 49, 69, 683, 847, 1_000_037];

    /// Each guard of the line, and a seed in which it is missed. A change of the line or of the driver tells other stories:
    /// `a_seed_for_every_guard` looks for new seeds and prints this table.
    const GUARDS: &[(&str, u64)] = &[
        ("approval", 5),
        ("bake", 10),
        ("budget", 26),
        ("dependency", 40),
        ("failed", 7),
        ("freeze", 2),
        ("halt", 13),
        ("older", 35),
        ("order", 5),
        ("out-of-band", 20),
        ("second-look", 1),
        ("shipped", 15),
        ("suspension", 7),
        ("unknown", 32),
    ];

    #[test]
    fn every_guard_is_missed_when_it_is_gone() {
        let failed: Vec<String> = GUARDS
            .iter()
            .filter(|(name, seed)| run(*seed, Some(name), false).is_ok())
            .map(|(name, seed)| format!("without the guard `{name}` the seed {seed} finds nothing"))
            .collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }

    /// Looks for a seed that misses each guard, first among short stories and then among long ones, and prints the table.
    /// `ISOFORM_GUARD=<name>` looks for one guard only, `ISOFORM_SEEDS` says how many short stories are tried.
    #[test]
    #[ignore = "a search: `cargo test --features testing --test simulation a_seed_for_every_guard -- --ignored --nocapture`"]
    fn a_seed_for_every_guard() {
        let only = std::env::var("ISOFORM_GUARD").ok();
        let short = number("ISOFORM_FIRST_SEED", 1);
        let seeds: Vec<u64> = (short..short + number("ISOFORM_SEEDS", 400))
            .chain(driver::LONG..driver::LONG + 60)
            .collect();
        for (name, _) in GUARDS
            .iter()
            .filter(|(n, _)| only.as_deref().is_none_or(|o| o == *n))
        {
            let found = first_that_fails(&seeds, name);
            match found {
                Some((seed, why)) => println!("    (\"{name}\", {seed}), // {why}"),
                None => println!("    (\"{name}\", ?), // none of {} seeds", seeds.len()),
            }
        }
    }

    fn first_that_fails(seeds: &[u64], guard: &'static str) -> Option<(u64, String)> {
        let next = AtomicU64::new(0);
        let found = std::sync::Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..threads() {
                scope.spawn(|| {
                    while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize)
                    {
                        if found.lock().unwrap().is_some() {
                            return;
                        }
                        if let Err(why) = run(*seed, Some(guard), false)
                            && run(*seed, None, false).is_ok()
                        {
                            *found.lock().unwrap() = Some((*seed, why));
                        }
                    }
                });
            }
        });
        found.into_inner().unwrap()
    }

    /// One fault at each call in turn, of each kind in turn; `ISOFORM_NTH=all` tries every kind at every call.
    #[test]
    fn a_fault_at_any_call_changes_nothing_in_the_end() {
        let calls = alone(3, false, async |s: &mut Simulation| s.nth(None).await).unwrap();
        let all = std::env::var("ISOFORM_NTH").is_ok_and(|v| v == "all");
        let stride = number("ISOFORM_NTH_STRIDE", 60) as usize;
        let tries: Vec<(u64, Kind)> = (0..calls)
            .flat_map(|n| Kind::ALL.into_iter().map(move |kind| (n, kind)))
            .enumerate()
            .filter(|(at, _)| all || at.is_multiple_of(stride + 1))
            .map(|(_, one)| one)
            .collect();
        let next = AtomicU64::new(0);
        let failed = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..threads() {
                scope.spawn(|| {
                    while let Some(one) = tries.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                        let one = *one;
                        let ended = alone(3, false, async move |s: &mut Simulation| {
                            s.nth(Some(one)).await
                        });
                        if let Err(why) = ended {
                            failed.lock().unwrap().push((one, why));
                        }
                    }
                });
            }
        });
        println!("simulation: {} faults at {calls} calls", tries.len());
        let failed = failed.into_inner().unwrap();
        assert!(failed.is_empty(), "{failed:#?}");
    }
}
