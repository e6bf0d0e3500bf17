//! A program that answers batches of cases: one line of JSON each way.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

pub struct Oracle {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
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

impl Oracle {
    pub fn start(program: &Path, script: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/oracle")
            .join(script);
        let mut child = Command::new(program)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            to: child.stdin.take().unwrap(),
            from: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    pub fn ask(&mut self, cases: &[Value]) -> Vec<Value> {
        let mut line = serde_json::to_string(cases).unwrap();
        line.push('\n');
        self.to.write_all(line.as_bytes()).unwrap();
        self.to.flush().unwrap();
        let mut answer = String::new();
        self.from.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).expect("the oracle answers every batch")
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
