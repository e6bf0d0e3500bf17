//! The process and what it leaves on its host.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::measure::{holding, run};
use crate::support::{Bench, ISOFORM, PLACEMENTS, all_in_sync, text};

const STACK: &str = "Resources: { T: { Type: 'AWS::SNS::Topic' } }\n";

fn one_stack() -> Bench {
    let bench = Bench::empty(PLACEMENTS);
    bench.write("stack.yaml", STACK);
    bench.write(
        "isoform.yaml",
        "isoform: 1\nstacks: { one: { template: stack.yaml, placement: beta } }\n",
    );
    bench
}

/// Returns what below a folder others than the owner may touch.
fn open_to_others(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(here) = open.pop() {
        let meta = here.symlink_metadata().unwrap();
        if meta.mode() & 0o077 != 0 && !meta.is_symlink() {
            found.push(format!("{} {:04o}", here.display(), meta.mode() & 0o7777));
        }
        if meta.is_dir() {
            open.extend(std::fs::read_dir(&here).unwrap().map(|e| e.unwrap().path()));
        }
    }
    found
}

#[test]
fn sec_53_nothing_that_the_daemon_makes_is_open_to_others() {
    // Without a mask of the caller's, every mode is isoform's own choice.
    let mut bench = one_stack();
    bench.mask = Some("000".to_owned());
    bench.push("first");
    bench.start();
    bench.settle();
    bench.stop();
    let mut found = open_to_others(&bench.root.join("state"));
    // Inside a folder of mode 0700 the mirror's files are out of reach whatever their own mode is: libgit2 makes them.
    found.retain(|line| !line.contains("/mirrors/"));
    assert_eq!(found, [""; 0]);
    assert_eq!(
        bench.root.join("state/mirrors").metadata().unwrap().mode() & 0o777,
        0o700
    );
    assert_eq!(
        bench.root.join("root.key").metadata().unwrap().mode() & 0o777,
        0o600
    );
}

#[test]
fn sec_53_a_key_that_others_can_read_stops_the_daemon() {
    let bench = one_stack();
    let key = bench.root.join("root.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let config = bench.root.join("config.yaml");
    let started = run(Command::new(ISOFORM).arg("--config").arg(config).arg("run"));
    assert_ne!(started.code, Some(0));
    assert!(started.text.contains("0644"), "{}", started.text);
}

#[test]
fn sec_52_a_killed_daemon_leaves_no_key_and_no_core() {
    let mut bench = one_stack();
    bench.push("first");
    bench.start();
    bench.settle();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", bench.pid())).unwrap();
    let core = limits
        .lines()
        .find(|l| l.starts_with("Max core file size"))
        .unwrap();
    let words: Vec<&str> = core.split_whitespace().collect();
    assert_eq!(&words[4..6], ["0", "0"], "{core}");
    // Of the signals that end it, one that makes a core dump where it may.
    let pid = bench.pid().to_string();
    let aborted = Command::new("kill").args(["-ABRT", &pid]).status().unwrap();
    assert!(aborted.success());
    assert!(bench.ended(std::time::Duration::from_secs(60)));
    let file = bench.root.join("root.key");
    let text = std::fs::read_to_string(&file).unwrap();
    let digits = text.trim();
    assert_eq!(digits.len(), 64);
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
    // In the whole folder, which holds the state, the log and what stands in for AWS.
    assert_eq!(
        holding(&bench.root, digits.as_bytes()),
        [file.display().to_string()]
    );
    assert_eq!(holding(&bench.root, &bytes), [""; 0]);
    let dumps = std::fs::read_dir(&bench.root).unwrap();
    let dumps = dumps.filter(|e| {
        e.as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with("core")
    });
    assert_eq!(dumps.count(), 0);
}

#[test]
fn sec_55_an_input_that_crashed_the_daemon_twice_is_left_alone() {
    let mut bench = one_stack();
    bench.push("good");
    bench.start();
    bench.settle();
    bench.stop();
    bench.environment = vec![("ISOFORM_POISON".to_owned(), "abort:# poison".to_owned())];
    bench.edit("isoform.yaml", "stacks:", "# poison\nstacks:");
    bench.push("poison");
    for _ in 0..2 {
        bench.spawn();
        assert!(
            bench.ended(std::time::Duration::from_secs(60)),
            "it was to crash"
        );
    }

    // The third start meets the same input, and goes on without it.
    bench.start();
    let refused = bench.until(|estate| estate.to_string().contains("quarantine"));
    assert_eq!(
        refused["targets"][0]["condition"]["result"], "InSync",
        "{refused:#}"
    );
    bench.stop();

    // Another commit is another input.
    bench.environment.clear();
    bench.edit("isoform.yaml", "# poison\n", "# mended\n");
    bench.edit("stack.yaml", "{ T:", "{ U: { Type: 'AWS::SNS::Topic' }, T:");
    bench.push("mended");
    bench.start();
    let estate = bench.settle();
    all_in_sync(&estate, 1);
    assert!(!estate.to_string().contains("quarantine"), "{estate:#}");
}

#[test]
fn sec_55_a_panic_over_one_input_stops_no_other() {
    let mut bench = one_stack();
    bench.push("good");
    bench.environment = vec![("ISOFORM_POISON".to_owned(), "panic:# poison".to_owned())];
    bench.start();
    bench.settle();
    bench.edit("isoform.yaml", "isoform: 1", "isoform: 1 # poison");
    bench.push("poison");
    bench.until(|estate| estate.to_string().contains("quarantine"));
    let estate = bench.estate();
    assert_eq!(
        estate["targets"][0]["condition"]["result"], "InSync",
        "{estate:#}"
    );
    bench.edit("isoform.yaml", " # poison", "");
    bench.edit("stack.yaml", "{ T:", "{ U: { Type: 'AWS::SNS::Topic' }, T:");
    bench.push("mended");
    all_in_sync(&bench.settle(), 1);
}

#[test]
fn sec_59_nothing_from_outside_forges_a_line_of_the_log() {
    let mut bench = one_stack();
    let forged = "x\n2026-01-01T00:00:00Z ERROR forged line\r\u{1b}[2J";
    bench.write(&format!("{forged}.yaml"), "proton: [\n");
    bench.edit(
        "isoform.yaml",
        "template: stack.yaml",
        "template: \"no\\n2026-01-01T00:00:00Z ERROR forged line.yaml\"",
    );
    bench.push(forged);
    bench.start();
    bench.settle();
    bench.stop();
    for line in bench.log().lines() {
        assert!(!line.starts_with("2026-01-01T00:00:00Z"), "{line}");
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }

    let config = bench.root.join("config.yaml");
    let json = bench.root.join("json.log");
    let log = std::fs::File::create(&json).unwrap();
    let mut child = Command::new(ISOFORM)
        .args([
            "--config",
            config.to_str().unwrap(),
            "run",
            "--json-log",
            "--log",
            "debug",
        ])
        .stderr(log)
        .spawn()
        .unwrap();
    bench.write("another.yaml", "x: 1\n");
    bench.push(forged);
    bench.settle();
    let stopped = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(stopped.unwrap().success());
    child.wait().unwrap();
    let lines = std::fs::read_to_string(json).unwrap();
    assert!(lines.lines().count() > 1);
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        assert!(event.is_object());
    }
    let list = text(&bench.run(&["audit", "list"]));
    assert!(
        !list.lines().any(|l| l.starts_with("2026-01-01T00:00:00Z")),
        "{list}"
    );
}
