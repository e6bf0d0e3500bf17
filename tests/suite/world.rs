//! The embedded engine's world under the real daemon: what it does on its own, and what an operator does to it.

use crate::support::{Bench, PLACEMENTS};

pub fn topic(name: &str) -> String {
    format!("Resources:\n  T: {{Type: 'AWS::SNS::Topic', Properties: {{DisplayName: '{name}'}}}}\n")
}

/// A bench with one stack of this template, deployed.
pub fn one(template: &str) -> Bench {
    let mut bench = Bench::empty(PLACEMENTS);
    bench.write("topic.yaml", template);
    bench.write(
        "isoform.yaml",
        "isoform: 1\nstacks:\n  topic: { template: topic.yaml, placement: beta, stack_name: topic }\n",
    );
    bench.push("a topic");
    bench.start();
    bench.settle();
    bench
}

#[test]
fn a_template_that_reads_back_otherwise_is_not_taken_for_another_one() {
    let bench = one(&topic("請交月報"));
    assert_eq!(bench.condition("stack/topic"), "InSync(Settled)");

    bench.write("topic.yaml", &topic("grün"));
    bench.push("another language");
    bench.settle();

    assert_eq!(bench.condition("stack/topic"), "InSync(Settled)");
    assert_eq!(bench.calls("ExecuteChangeSet"), 2);
}

#[test]
fn a_resource_that_was_deleted_by_hand_takes_the_update_back() {
    let bench = one(&topic("one"));
    bench.cli(
        &["local", "change", "topic", "T", "--set", "DisplayName=x"],
        0,
    );
    bench.cli(&["local", "change", "topic", "Nothing", "--delete"], 64);
    bench.cli(&["local", "change", "topic", "T", "--delete"], 0);

    bench.write("topic.yaml", &topic("two"));
    bench.push("two");
    bench.settle();

    assert_eq!(bench.condition("stack/topic"), "Failed(StackRolledBack)");
    bench.cli(&["local", "change", "topic", "T", "--restore"], 0);
    bench.cli(&["retry", "stack/topic"], 0);
    bench.settle();
    assert_eq!(bench.condition("stack/topic"), "InSync(Settled)");
}

#[test]
fn throttles_delays_and_small_pages_are_lived_through() {
    let bench = one(&topic("one"));
    let shown = bench.cli(
        &[
            "local",
            "faults",
            "--throttle",
            "*ChangeSet*=3",
            "--throttle",
            "DescribeStacks=4",
            "--delay",
            "5ms",
            "--making",
            "100ms",
            "--page",
            "1",
        ],
        0,
    );
    assert!(shown.contains("\"making_ms\": 100"), "{shown}");

    for turn in 0..3 {
        bench.write("topic.yaml", &topic(&format!("turn {turn}")));
        bench.push("again");
        bench.settle();
        bench.becomes("stack/topic", "InSync(Settled)");
    }

    // A review without its values is not let through by itself.
    bench.cli(&["local", "faults", "--off", "--withhold", "T"], 0);
    bench.write("topic.yaml", &topic("hidden"));
    bench.push("hidden");
    bench.becomes("stack/topic", "Pending(Approval)");
}

#[test]
fn stale_reads_are_lived_through() {
    let bench = one(&topic("one"));
    bench.cli(&["local", "faults", "--stale", "400ms"], 0);

    for turn in 0..4 {
        bench.write("topic.yaml", &topic(&format!("turn {turn}")));
        bench.push("again");
        bench.settle();
        assert_eq!(
            bench.condition("stack/topic"),
            "InSync(Settled)",
            "turn {turn}"
        );
    }
    bench.cli(&["local", "faults", "--off"], 0);
    bench.write("topic.yaml", &topic("last"));
    bench.push("last");
    bench.settle();
    assert_eq!(bench.condition("stack/topic"), "InSync(Settled)");
}

pub const PAIR: &str = "Resources:\n  Topic: { Type: AWS::SNS::Topic, Properties: { DisplayName: one } }\n  Alarm: { Type: AWS::CloudWatch::Alarm, DependsOn: Topic, Properties: { ComparisonOperator: LessThanThreshold, EvaluationPeriods: 1, AlarmDescription: one } }\n";

/// A bench with a stack whose rollback failed over its topic, and failed once more when it was continued.
pub fn stuck() -> Bench {
    let bench = one(PAIR);
    bench.cli(&["local", "fail", "topic", "Alarm", "--times", "1"], 0);
    bench.cli(
        &[
            "local", "fail", "topic", "Topic", "--on", "rollback", "--times", "2",
        ],
        0,
    );
    bench.write("topic.yaml", &PAIR.replace("one", "two"));
    bench.push("two");
    bench.settle();
    assert_eq!(bench.condition("stack/topic"), "Stuck(StackStuck)");
    bench
}

#[test]
fn a_rollback_that_failed_is_continued_by_hand_and_the_target_goes_on() {
    let bench = stuck();
    let why = bench.cli(&["why", "stack/topic"], 1);
    assert!(why.contains("isoform continue stack/topic"), "{why}");

    // What did not fail cannot be skipped.
    let refused = bench.cli(&["local", "continue", "topic", "--skip", "Nothing"], 1);
    assert!(refused.contains("[Nothing]"), "{refused}");
    bench.cli(&["local", "continue", "topic", "--skip", "Topic"], 0);
    bench.cli(&["retry", "stack/topic"], 0);

    // What a person did to the stack is for a person to accept.
    bench.becomes("stack/topic", "Drifted(OutOfBand)");
    bench.cli(
        &["drift", "overwrite", "stack/topic", "--reason", "mended"],
        0,
    );
    bench.becomes("stack/topic", "InSync(Settled)");
}

#[test]
fn a_stuck_stack_can_be_deleted_by_hand_and_is_made_again() {
    let bench = stuck();
    bench.cli(&["local", "protect", "topic"], 0);
    let refused = bench.cli(&["local", "delete", "topic"], 1);
    assert!(
        refused.contains("isoform local unprotect topic"),
        "{refused}"
    );
    bench.cli(&["local", "unprotect", "topic"], 0);
    let said: serde_json::Value =
        serde_json::from_str(&bench.cli(&["local", "delete", "topic", "--output", "json"], 0))
            .unwrap();
    assert_eq!(said["v"], 1, "{said}");
    bench.cli(&["retry", "stack/topic"], 0);

    bench.becomes("stack/topic", "Drifted(OutOfBand)");
    bench.cli(
        &["drift", "overwrite", "stack/topic", "--reason", "again"],
        0,
    );
    bench.becomes("stack/topic", "InSync(Settled)");
    // What rests cannot be cancelled, and what is not there is a question that means nothing.
    bench.cli(&["local", "cancel", "topic"], 1);
    bench.cli(&["local", "cancel", "nothing"], 64);
}

#[test]
fn an_update_that_runs_is_cancelled_by_hand() {
    let mut bench = Bench::empty(PLACEMENTS);
    let config = bench.root.join("config.yaml");
    let slow = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, slow.replace("pace: 0.3", "pace: 60")).unwrap();
    bench.write("topic.yaml", &topic("one"));
    bench.write(
        "isoform.yaml",
        "isoform: 1\nstacks:\n  topic: { template: topic.yaml, placement: beta, stack_name: topic }\n",
    );
    bench.push("a topic");
    bench.start();
    bench.settle();

    bench.write("topic.yaml", &topic("two"));
    bench.push("two");
    bench.becomes("stack/topic", "Applying(Settled)");
    bench.cli(&["local", "cancel", "topic"], 0);

    bench.becomes("stack/topic", "Failed(StackRolledBack)");
}
