//! `isoform doctor --probe`: what it tells on the embedded engine, and that nothing stays of it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use isoform::clock::Clock;
use isoform::local::{LocalEngine, LocalObjects, World};
use isoform::port::{ObjectStore, StackEngine};
use serde_json::Value;

use crate::support::{Bench, ISOFORM, PLACEMENTS, text};

/// What no stack of the embedded engine is asked for.
const SILENT: &str = "a change set that says nothing of tags, topics and alarms keeps them";

/// Runs a probe; returns how it ended and what it told.
pub fn probed(bench: &Bench, spot: &str) -> (i32, Value) {
    let output = bench.run(&["doctor", "--probe", spot, "--output", "json"]);
    let told = serde_json::from_slice(&output.stdout);
    let told = told.unwrap_or_else(|e| panic!("{e}: {}", text(&output)));
    (output.status.code().unwrap(), told)
}

/// The assumptions that had this answer.
pub fn with<'a>(told: &'a Value, answer: &str) -> Vec<&'a str> {
    let all = told["findings"].as_array().unwrap().iter();
    all.filter(|f| f["answer"] == answer)
        .map(|f| f["assumption"].as_str().unwrap())
        .collect()
}

/// The stacks that live in the account of `beta`, and the templates in its store.
fn there(bench: &Bench) -> (Vec<String>, usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let folder = bench.root.join("cloud");
        let world = World::open(&folder, Clock::system(), 1.0).await.unwrap();
        let account = "000000000001".parse().unwrap();
        let engine = LocalEngine::new(world.clone(), account, "us-east-1".parse().unwrap());
        let stacks = engine.list(None).await.unwrap().items;
        let store = LocalObjects::new(world, "bundles");
        let objects = store.list("rendered/", None).await.unwrap().items;
        let names = stacks.into_iter().map(|s| s.name.to_string());
        (names.collect(), objects.len())
    })
}

#[test]
fn everything_that_isoform_assumes_holds_on_the_embedded_engine() {
    let bench = Bench::empty(PLACEMENTS);
    bench.cli(&["local", "fail", "isoform-probe-*", "Fails"], 0);

    let (code, told) = probed(&bench, "beta");

    assert_eq!(with(&told, "not held"), [""; 0], "{told:#}");
    assert_eq!(with(&told, "could not be told"), [SILENT], "{told:#}");
    assert_eq!(with(&told, "held").len(), 25);
    assert_eq!((code, &told["stopped"]), (0, &false.into()));
    assert_eq!(there(&bench), (vec![], 0));
}

#[test]
fn what_stood_in_the_way_is_not_held_against_anybody() {
    let bench = Bench::empty(PLACEMENTS);

    // Nothing fails here.
    let text = bench.cli(&["doctor", "--probe", "prod@eu-west-1"], 0);

    assert!(
        text.contains("could not be told a first creation that fails leaves no stack"),
        "{text}"
    );
    assert!(text.contains("22 held, 0 not held, 4 could not be told"));
    assert!(text.contains("everything that was made is deleted"));
}

#[test]
fn a_probe_names_what_it_could_not_delete() {
    let bench = Bench::empty(PLACEMENTS);
    bench.cli(
        &[
            "local",
            "fail",
            "isoform-probe-*-life",
            "Kept",
            "--on",
            "delete",
        ],
        0,
    );

    let (code, told) = probed(&bench, "beta");

    assert_eq!(code, 1);
    let (stacks, objects) = there(&bench);
    assert_eq!((stacks.len(), objects), (1, 0));
    let left = told["left"].as_array().unwrap();
    assert_eq!(left.len(), 1, "{told:#}");
    let left = left[0].as_str().unwrap();
    assert!(left.contains(&stacks[0]) && left.contains("insufficient capacity"));
}

#[test]
fn a_probe_that_is_stopped_deletes_what_it_made() {
    let bench = Bench::empty(PLACEMENTS);
    // So that it has much to do still when it is stopped.
    bench.cli(&["local", "faults", "--delay", "50ms"], 0);
    let mut probe = Command::new(ISOFORM)
        .args(["--config", bench.root.join("config.yaml").to_str().unwrap()])
        .args(["doctor", "--probe", "beta"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(probe.stdout.take().unwrap()).lines();
    // By then there is a stack with resources in it.
    let seen = said.find(|l| {
        l.as_ref()
            .unwrap()
            .contains("the newest operation stands first")
    });
    assert!(seen.is_some(), "it ended before");
    assert_ne!(there(&bench).0, [""; 0]);

    let pid = rustix::process::Pid::from_raw(probe.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();

    let rest: Vec<String> = said.map(Result::unwrap).collect();
    assert_eq!(probe.wait().unwrap().code(), Some(1), "{rest:?}");
    assert!(
        rest.iter().any(|l| l == "stopped before the end"),
        "{rest:?}"
    );
    assert_eq!(there(&bench), (vec![], 0));
}

#[test]
fn a_probe_says_where_it_can_be_made() {
    let bench = Bench::empty(PLACEMENTS);

    for (spot, word) in [
        ("nowhere", "it has beta, prod, tools"),
        ("prod", "prod@<region>"),
        ("prod@eu-west-3", "us-east-1, eu-west-1"),
    ] {
        let text = bench.cli(&["doctor", "--probe", spot], 64);
        assert!(text.contains(word), "{text}");
    }
    bench.cli(&["doctor", "--probe"], 64);
    assert!(
        !bench.root.join("cloud/cloud.db").exists(),
        "nothing is made"
    );
}
