//! A daemon in a folder of its own, and hands to work with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The program under test.
pub const ISOFORM: &str = env!("CARGO_BIN_EXE_isoform");

/// A folder with a bare repository, a clone, a configuration, and perhaps a running daemon.
pub struct Bench {
    /// Removed when the test ends.
    _guard: tempfile::TempDir,
    /// The folder.
    pub root: PathBuf,
    daemon: Option<Child>,
    /// More of the environment for the daemon.
    pub environment: Vec<(String, String)>,
    /// The file mode mask of the daemon; absent means that of the tests.
    pub mask: Option<String>,
}

/// What placements and sources a bench has, as YAML.
pub const PLACEMENTS: &str = "\
accounts: { a: { id: \"000000000001\" }, b: { id: \"000000000002\" }, t: { id: \"000000000003\" } }
placements:
  beta: { account: a, regions: [us-east-1], mode: auto, blast_radius: 50 }
  prod: { account: b, regions: [us-east-1, eu-west-1], mode: auto, blast_radius: 50 }
  tools: { account: t, regions: [us-east-1], mode: auto, blast_radius: 50 }
";

impl Bench {
    /// Makes a bench with the example of the project.
    pub fn example() -> Self {
        Self::example_with(PLACEMENTS)
    }

    /// Makes a bench with the example of the project and placements of its own.
    pub fn example_with(placements: &str) -> Self {
        let bench = Self::empty(placements);
        copy(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/repo-layout"),
            &bench.work(),
        );
        bench
    }

    /// Makes a bench with an empty repository.
    pub fn empty(placements: &str) -> Self {
        let guard = tempfile::tempdir().unwrap();
        let root = guard.path().to_owned();
        let bench = Self {
            _guard: guard,
            root,
            daemon: None,
            environment: Vec::new(),
            mask: None,
        };
        bench.git_at(
            &bench.root,
            &["init", "-q", "--bare", "-b", "main", "origin.git"],
        );
        bench.git_at(&bench.root, &["init", "-q", "-b", "main", "work"]);
        bench.git(&["remote", "add", "origin", "../origin.git"]);
        let config = format!(
            "isoform: 1\n{placements}sources:\n  example:\n    url: ./origin.git\n    may: {{ templates: ['*'], environments: ['*'], services: ['*'], components: ['*'], stacks: ['*'], placements: ['*'], stack_names: ['*'] }}\nbundle_stores: {{ main: {{ url: 'local://bundles' }} }}\nstate: {{ path: state, key: 'file:root.key' }}\nlocal: {{ path: cloud, pace: 0.3 }}\npoll: 1s\nsweep: 300s\n"
        );
        std::fs::write(bench.root.join("config.yaml"), config).unwrap();
        let made = bench.run(&[
            "config",
            "key",
            bench.root.join("root.key").to_str().unwrap(),
        ]);
        assert!(made.status.success(), "{}", text(&made));
        bench
    }

    /// The clone.
    pub fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// Writes a file of the clone.
    pub fn write(&self, path: &str, body: &str) {
        let to = self.work().join(path);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, body).unwrap();
    }

    /// Replaces a text in a file of the clone; it must be there.
    pub fn edit(&self, path: &str, from: &str, to: &str) {
        let file = self.work().join(path);
        let body = std::fs::read_to_string(&file).unwrap();
        assert!(body.contains(from), "`{from}` is not in {path}");
        std::fs::write(file, body.replacen(from, to, 1)).unwrap();
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        self.git_at(&self.work(), arguments)
    }

    fn git_at(&self, folder: &Path, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args([
                "-c",
                "user.name=ana",
                "-c",
                "user.email=ana@example.org",
                "-c",
                "commit.gpgsign=false",
                "-c",
                "safe.directory=*",
            ])
            .args(arguments)
            .current_dir(folder)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("USER", "ana")
            .output()
            .unwrap();
        let text = text(&output);
        assert!(output.status.success(), "git {arguments:?}: {text}");
        text
    }

    /// Commits everything and pushes; returns what the push said.
    pub fn push(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["push", "origin", "main"])
    }

    /// Returns the head of the clone.
    pub fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Starts the daemon and waits for its socket.
    pub fn start(&mut self) {
        self.spawn();
        let begun = Instant::now();
        while !self.root.join("state/isoform.sock").exists() {
            if let Some(status) = self.daemon.as_mut().unwrap().try_wait().unwrap() {
                panic!("the daemon ended with {status}: {}", self.log());
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "the daemon does not open its socket: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts the daemon; returns whether it got as far as its socket.
    pub fn try_start(&mut self) -> bool {
        self.spawn();
        let begun = Instant::now();
        while !self.root.join("state/isoform.sock").exists() {
            if self.daemon.as_mut().unwrap().try_wait().unwrap().is_some() {
                self.daemon = None;
                return false;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Starts the daemon without waiting.
    pub fn spawn(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.root.join("daemon.log"))
            .unwrap();
        let _ = std::fs::remove_file(self.root.join("state/isoform.sock"));
        let mut command = match &self.mask {
            Some(mask) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", "umask $0; exec \"$@\"", mask, ISOFORM]);
                shell
            }
            None => Command::new(ISOFORM),
        };
        let child = command
            .args([
                "--config",
                self.root.join("config.yaml").to_str().unwrap(),
                "run",
                "--log",
                "trace,sqlx=info,hyper=info,notify=info",
            ])
            .envs(self.environment.iter().cloned())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(child);
    }

    /// Waits for the daemon to end on its own; returns whether it did.
    pub fn ended(&mut self, patience: Duration) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if self
                .daemon
                .as_mut()
                .is_none_or(|d| d.try_wait().unwrap().is_some())
            {
                self.daemon = None;
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Stops the daemon in order.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            Command::new("kill")
                .args(["-INT", &child.id().to_string()])
                .status()
                .unwrap();
            let status = child.wait().unwrap();
            assert!(status.success(), "the daemon did not drain: {}", self.log());
        }
    }

    /// Kills the daemon.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.root.join("daemon.log")).unwrap_or_default()
    }

    /// Runs the command line in the clone.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let folder = if self.work().exists() {
            self.work()
        } else {
            self.root.clone()
        };
        Command::new(ISOFORM)
            .args(["--config", self.root.join("config.yaml").to_str().unwrap()])
            .args(arguments)
            .current_dir(folder)
            .env("NO_COLOR", "1")
            .env("TZ", "UTC")
            .output()
            .unwrap()
    }

    /// Runs the command line; returns its text and asserts its exit code.
    pub fn cli(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        let text = text(&output);
        assert_eq!(
            output.status.code(),
            Some(code),
            "isoform {arguments:?}: {text}\n{}",
            self.log()
                .lines()
                .rev()
                .take(5)
                .collect::<Vec<_>>()
                .join("\n")
        );
        text
    }

    /// Returns the estate as JSON.
    pub fn estate(&self) -> Value {
        let output = self.run(&["status", "--output", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Waits until the daemon has looked at the clone's head and everything rests.
    pub fn settle(&self) -> Value {
        let head = self.head();
        let begun = Instant::now();
        loop {
            let estate = self.estate();
            let at_head = estate["commits"]["example"]["revision"] == head.as_str();
            if at_head && estate["settled"] == true {
                return estate;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "not settled: {estate:#}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(40));
        }
    }

    /// Waits until a target has this condition; `absent` waits until it is not shown any more.
    pub fn becomes(&self, address: &str, wanted: &str) {
        let begun = Instant::now();
        loop {
            let condition = self.condition(address);
            if condition == wanted {
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{address} is {condition} and not {wanted}: {}\n{}",
                text(&self.run(&["why", address])),
                self.log()
                    .lines()
                    .filter(|l| !l.contains("TRACE"))
                    .rev()
                    .take(10)
                    .collect::<Vec<_>>()
                    .join("\n")
            );
            std::thread::sleep(Duration::from_millis(40));
        }
    }

    /// Waits until so many targets are in sync at the clone's head, however often something has to be tried again.
    pub fn in_sync(&self, count: usize) {
        let head = self.head();
        let patience = Duration::from_secs(120);
        self.until_within(patience, |estate| {
            let all = estate["targets"].as_array();
            let good = |t: &Value| t["condition"]["result"] == "InSync";
            estate["commits"]["example"]["revision"] == head.as_str()
                && estate["settled"] == true
                && all.is_some_and(|all| all.len() == count && all.iter().all(good))
        });
    }

    /// Waits until the estate is as wished.
    pub fn until(&self, wish: impl Fn(&Value) -> bool) -> Value {
        self.until_within(Duration::from_secs(60), wish)
    }

    fn until_within(&self, patience: Duration, wish: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let estate = self.estate();
            if wish(&estate) {
                return estate;
            }
            assert!(
                begun.elapsed() < patience,
                "not as wished: {estate:#}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(40));
        }
    }

    /// Returns the process id of the daemon.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    /// Returns the condition of a target as `Result(Reason)`.
    pub fn condition(&self, address: &str) -> String {
        condition(&self.estate(), address)
    }

    /// Returns what the local world executed: change-set executions by stack, from its ledger.
    pub fn calls(&self, operation: &str) -> i64 {
        let output = self.run(&["local", "calls", "--output", "json"]);
        let calls: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        calls["calls"][operation].as_i64().unwrap_or(0)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the condition of a target in an estate.
pub fn condition(estate: &Value, address: &str) -> String {
    let target = estate["targets"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|t| t["address"] == address);
    target.map_or_else(
        || "absent".to_owned(),
        |t| {
            format!(
                "{}({})",
                t["condition"]["result"].as_str().unwrap_or_default(),
                t["condition"]["reason"].as_str().unwrap_or_default()
            )
        },
    )
}

/// Asserts that every target is in sync.
pub fn all_in_sync(estate: &Value, count: usize) {
    let bad: Vec<String> = estate["targets"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|t| t["condition"]["result"] != "InSync")
        .map(|t| format!("{} {}", t["address"], t["condition"]))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert_eq!(estate["targets"].as_array().unwrap().len(), count);
}

/// Returns standard output and standard error together.
pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// Returns the Python that `tests/run` prepared, or says why a test is skipped.
pub fn python(test: &str) -> Option<PathBuf> {
    let python = std::env::var("ISOFORM_TEST_PYTHON")
        .ok()
        .map(PathBuf::from)
        .filter(|p| p.exists());
    if python.is_none() {
        println!("SKIP {test}: ISOFORM_TEST_PYTHON names no Python; run ./tests/run");
    }
    python
}

/// Returns the folder of real Proton bundles, or says why a test is skipped.
pub fn corpus(test: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("SKIP {test}: there is no folder of real bundles beside this checkout");
    None
}
