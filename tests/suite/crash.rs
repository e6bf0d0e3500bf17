//! The real process is killed at every boundary of the line; afterwards the end state is the same.

use std::time::Duration;

use crate::support::{Bench, all_in_sync};

/// Every named point, in the order of the line.
const POINTS: &[&str] = &[
    "accept.before-record",
    "accept.after-record",
    "register.before-effect",
    "register.after-effect",
    "begin.before-record",
    "begin.after-record",
    "store.before-intent",
    "store.before-effect",
    "store.after-effect",
    "store.after-record",
    "propose.before-intent",
    "propose.before-effect",
    "propose.after-effect",
    "propose.after-record",
    "review.before-record",
    "review.after-record",
    "execute.before-intent",
    "execute.before-effect",
    "execute.after-effect",
    "execute.after-record",
    "settle.before-record",
    "settle.after-record",
    "configure.before-intent",
    "configure.before-effect",
    "configure.after-effect",
    "configure.after-record",
];

fn small() -> Bench {
    let bench = Bench::empty(
        "accounts: { a: { id: \"000000000001\" } }\nplacements:\n  beta: { account: a, regions: [us-east-1], mode: auto, blast_radius: 50 }\n",
    );
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/repo-layout");
    crate::support::copy(
        &example.join("templates/environment"),
        &bench.work().join("templates/environment"),
    );
    crate::support::copy(&example.join("stacks"), &bench.work().join("stacks"));
    crate::support::copy(&example.join("policies"), &bench.work().join("policies"));
    bench.write(
        "beta.yaml",
        "proton: EnvironmentSpec\nspec: { vpc_cidr: 10.0.0.0/16 }\n",
    );
    bench.write("isoform.yaml", "isoform: 1\nenvironments:\n  beta: { template: fargate-env@1, spec: beta.yaml, placement: beta, termination_protection: true }\nstacks:\n  alarms: { template: stacks/alarms.yaml, placement: beta, parameters: { Email: a@b }, stack_policy: policies/protect-topic.json, after: [env/beta] }\n");
    bench
}

fn killed_and_resumed(point: &str, lose_state: bool) {
    let mut bench = small();
    bench.push("Initial layout");
    bench.environment = vec![("ISOFORM_CRASH".into(), point.into())];
    bench.spawn();
    assert!(
        bench.ended(Duration::from_secs(40)),
        "{point}: the point was not reached: {}",
        bench.log()
    );
    bench.environment.clear();
    if lose_state {
        std::fs::remove_dir_all(bench.root.join("state")).unwrap();
    }
    bench.start();
    all_in_sync(&bench.settle(), 2);

    // Nothing was applied twice: two stacks, two executions, whatever happened in between.
    assert_eq!(operations(&bench), 2, "{point}, state lost: {lose_state}");
    let verified = bench.cli(&["audit", "verify"], 0);
    assert!(verified.contains("chain verified"), "{point}: {verified}");
    bench.stop();
}

/// Counts the operations that the world really ran: starts of creations and updates in the events of all stacks.
fn operations(bench: &Bench) -> usize {
    ["env/beta", "stack/alarms"]
        .iter()
        .map(|t| {
            bench
                .cli(&["logs", t], 0)
                .lines()
                .filter(|l| {
                    (l.contains("CREATE_IN_PROGRESS") || l.contains("UPDATE_IN_PROGRESS"))
                        && l.contains("AWS::CloudFormation::Stack")
                })
                .count()
        })
        .sum()
}

#[test]
fn a_kill_at_any_boundary_changes_nothing_in_the_end() {
    for point in POINTS {
        killed_and_resumed(point, false);
    }
}

#[test]
fn a_kill_at_any_boundary_of_a_removal_deletes_once() {
    for point in [
        "begin.before-record",
        "begin.after-record",
        "review.after-record",
        "delete.before-intent",
        "delete.before-effect",
        "delete.after-effect",
        "delete.after-record",
        "settle.before-record",
        "settle.after-record",
    ] {
        let mut bench = Bench::empty(
            "accounts: { a: { id: \"000000000001\" } }\nplacements:\n  beta: { account: a, regions: [us-east-1], mode: auto, prune: { policy: auto, percent: 100 } }\n",
        );
        bench.write(
            "one.yaml",
            "Resources: { Handle: { Type: AWS::CloudFormation::WaitConditionHandle } }\n",
        );
        bench.write(
            "isoform.yaml",
            "isoform: 1\nstacks: { one: { template: one.yaml, placement: beta } }\n",
        );
        bench.push("one");
        bench.start();
        bench.settle();
        bench.stop();
        bench.write("isoform.yaml", "isoform: 1\n");
        bench.push("none");
        bench.environment = vec![("ISOFORM_CRASH".into(), point.into())];
        bench.spawn();
        assert!(
            bench.ended(Duration::from_secs(40)),
            "{point}: the point was not reached: {}",
            bench.log()
        );
        bench.environment.clear();
        bench.start();
        bench.becomes("stack/one", "absent");
        let log = bench.cli(&["audit", "list"], 0);
        let ended = log.matches("settled: Removed").count();
        assert_eq!(ended, 1, "{point}: {log}");
        bench.cli(&["audit", "verify"], 0);
        bench.stop();
    }
}

#[test]
fn an_empty_state_folder_is_rebuilt_from_the_bundle_store() {
    for point in POINTS {
        killed_and_resumed(point, true);
    }
}
