//! Replays the corpus of a target, mutates it while there is time, and keeps what fails.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::mutate::{Random, mutate};

/// One input must not take longer: a hang, and no slow machine.
const HANG: Duration = Duration::from_secs(20);
/// The largest input that is made.
const LARGEST: usize = 64 << 10;

fn folder(part: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz")
        .join(part)
        .join(target)
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_file() {
            all.push((entry.path(), std::fs::read(entry.path()).unwrap()));
        }
    }
    all.sort();
    all
}

/// Runs a target over everything that is known, and for a while over what is made of it.
pub fn run(target: &'static str, check: fn(&[u8])) {
    // Templates get this stack from the program too.
    let worker = std::thread::Builder::new().stack_size(16 << 20);
    let worker = worker.spawn(move || run_here(target, check)).unwrap();
    if let Err(panic) = worker.join() {
        std::panic::resume_unwind(panic);
    }
}

fn run_here(target: &'static str, check: fn(&[u8])) {
    let seeds = files(&folder("corpus", target));
    assert!(seeds.len() >= 3, "a corpus for {target} is missing");
    let guard = Guard::new(target);
    for (path, bytes) in seeds.iter().chain(&files(&folder("crashes", target))) {
        guard.watch(bytes);
        let result = catch_unwind(AssertUnwindSafe(|| check(bytes)));
        assert!(result.is_ok(), "{target} fails over {}", path.display());
    }
    let variable = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seconds = variable("ISOFORM_FUZZ_SECONDS").unwrap_or(0);
    let seed = variable("ISOFORM_FUZZ_SEED").unwrap_or_else(Random::any);
    let mut random = Random::new(seed);
    let pool: Vec<Vec<u8>> = seeds.into_iter().map(|(_, bytes)| bytes).collect();
    let begun = Instant::now();
    let mut runs = 0u64;
    while begun.elapsed() < Duration::from_secs(seconds) {
        let mut input = mutate(&mut random, &pool);
        input.truncate(LARGEST);
        guard.watch(&input);
        runs += 1;
        if catch_unwind(AssertUnwindSafe(|| check(&input))).is_err() {
            let kept = keep(target, &input);
            panic!(
                "{target} fails (seed {seed}, run {runs}); the input is kept as {}",
                kept.display()
            );
        }
    }
    if seconds > 0 {
        eprintln!("{target}: {runs} inputs, seed {seed}");
    }
}

/// Keeps an input among those that are replayed from now on.
fn keep(target: &str, input: &[u8]) -> PathBuf {
    let name = input.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let folder = folder("crashes", target);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{name:016x}"));
    std::fs::write(&path, input).unwrap();
    path
}

/// What runs, and since when.
type Running = Option<(Instant, Vec<u8>)>;

/// Keeps the input of a run that does not come back: a hang, or a stack that overflows and takes the process along.
struct Guard {
    target: &'static str,
    now: Arc<Mutex<Running>>,
    last: PathBuf,
    file: File,
}

impl Guard {
    fn new(target: &'static str) -> Self {
        let last =
            std::env::temp_dir().join(format!("isoform-fuzz-{target}-{}", std::process::id()));
        let now: Arc<Mutex<Running>> = Arc::default();
        let watched = now.clone();
        std::thread::spawn(move || {
            while Arc::strong_count(&watched) > 1 {
                std::thread::sleep(Duration::from_millis(200));
                let held = watched.lock().unwrap();
                if let Some((since, input)) = &*held
                    && since.elapsed() > HANG
                {
                    let kept = keep(target, input);
                    eprintln!("{target} hangs; the input is kept as {}", kept.display());
                    std::process::exit(101);
                }
            }
        });
        let file = File::create(&last).unwrap();
        Self {
            target,
            now,
            last,
            file,
        }
    }

    fn watch(&self, input: &[u8]) {
        *self.now.lock().unwrap() = Some((Instant::now(), input.to_vec()));
        // An abort leaves nothing but this file. It stays open: closing it each time would make the disk the limit.
        self.file
            .write_all_at(input, 0)
            .and_then(|()| self.file.set_len(input.len() as u64))
            .unwrap_or_else(|e| panic!("{}: {}: {e}", self.target, self.last.display()));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        *self
            .now
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = None;
        let _ = std::fs::remove_file(&self.last);
    }
}
