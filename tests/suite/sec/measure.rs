//! Runs a program that may hang or eat memory, and tells what it took.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a run came to.
pub struct Measured {
    pub code: Option<i32>,
    /// Standard output and standard error.
    pub text: String,
    /// The most memory that was resident.
    pub peak_kib: u64,
}

/// Runs a program to its end. One that does not end is killed and fails the test: a hang is no answer.
pub fn run(command: &mut Command) -> Measured {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("output");
    let output = std::fs::File::create(&path).unwrap();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let mut peak_kib = 0;
    let status = loop {
        peak_kib = peak_kib.max(resident_peak_of(child.id()).unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            child.wait().unwrap();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            panic!(
                "{command:?} hangs: {}",
                text.chars().take(2_000).collect::<String>()
            );
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    Measured {
        code: status.code(),
        text: String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned(),
        peak_kib,
    }
}

/// Returns the high-water mark of a running program's resident memory; absent where the system does not tell.
pub fn resident_peak_of(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Returns every file below a folder that holds one of these bytes, links not followed.
pub fn holding(folder: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(here) = open.pop() {
        for entry in std::fs::read_dir(&here).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file()
                && std::fs::read(entry.path())
                    .unwrap_or_default()
                    .windows(needle.len())
                    .any(|w| w == needle)
            {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found
}
