//! Ways back: what an operator stops, moves on, and brings back.

use crate::support::{Bench, PLACEMENTS};
use crate::world::{PAIR, one, stuck, topic};

const SYNC: &str =
    "isoform: 1\nstacks:\n  topic: { template: topic.yaml, placement: beta, stack_name: topic }\n";

fn say(bench: &Bench, what: &[&str], code: i32) -> String {
    let arguments = [what, &["stack/topic", "--reason", "it must"]].concat();
    bench.cli(&arguments, code)
}

#[test]
fn what_waits_is_cancelled_before_anything_ran() {
    let mut bench = Bench::empty(&PLACEMENTS.replace("mode: auto", "mode: approve"));
    bench.write("topic.yaml", &topic("one"));
    bench.write("isoform.yaml", SYNC);
    bench.push("a topic");
    bench.start();
    bench.becomes("stack/topic", "Pending(Approval)");

    let said = say(&bench, &["cancel"], 0);
    assert!(said.contains("before anything ran"), "{said}");
    bench.becomes("stack/topic", "Failed(Cancelled)");
    let why = bench.cli(&["why", "stack/topic"], 1);
    assert!(
        why.contains("cancelled by") && why.contains("it must"),
        "{why}"
    );
    let nothing = say(&bench, &["cancel"], 1);
    assert!(nothing.contains("nothing is in motion"), "{nothing}");
    // The same is not tried again by itself, and is when somebody says so.
    bench.push("nothing new");
    bench.settle();
    assert_eq!(bench.condition("stack/topic"), "Failed(Cancelled)");
    bench.cli(&["retry", "stack/topic"], 0);
    bench.becomes("stack/topic", "Pending(Approval)");
    bench.cli(&["approve", "stack/topic"], 0);
    bench.becomes("stack/topic", "InSync(Settled)");
    assert_eq!(bench.calls("ExecuteChangeSet"), 1);
}

fn slow() -> Bench {
    let mut bench = Bench::empty(PLACEMENTS);
    let config = bench.root.join("config.yaml");
    let fast = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, fast.replace("pace: 0.3", "pace: 60")).unwrap();
    bench.write("topic.yaml", &topic("one"));
    bench.write("isoform.yaml", SYNC);
    bench.push("a topic");
    bench.start();
    bench
}

#[test]
fn an_update_that_runs_is_stopped_and_a_creation_is_not() {
    let bench = slow();
    bench.becomes("stack/topic", "Applying(Settled)");
    let refused = say(&bench, &["cancel"], 1);
    assert!(refused.contains("cannot stop a creation"), "{refused}");
    bench.settle();

    bench.write("topic.yaml", &topic("two"));
    bench.push("two");
    bench.becomes("stack/topic", "Applying(Settled)");
    say(&bench, &["cancel"], 0);
    bench.becomes("stack/topic", "Failed(Cancelled)");
    assert_eq!(bench.calls("CancelUpdateStack"), 1);
    let history = bench.cli(&["history", "stack/topic"], 0);
    assert!(
        history.contains("CloudFormation was told to stop the update")
            && history.contains("settled: Cancelled, UPDATE_ROLLBACK_COMPLETE"),
        "{history}"
    );
    // A push that asks for something else goes on from there.
    bench.write("topic.yaml", &topic("three"));
    bench.push("three");
    bench.settle();
    assert_eq!(bench.condition("stack/topic"), "InSync(Settled)");
}

#[test]
fn a_kill_around_a_cancel_stops_the_update_all_the_same() {
    for point in ["cancel.before-effect", "cancel.after-effect"] {
        let mut bench = slow();
        bench.settle();
        bench.stop();
        bench.environment = vec![("ISOFORM_CRASH".into(), point.into())];
        bench.start();
        bench.write("topic.yaml", &topic("two"));
        bench.push("two");
        bench.becomes("stack/topic", "Applying(Settled)");
        // Whether the answer is sent before the daemon dies is not promised; what was said is kept.
        bench.run(&["cancel", "stack/topic", "--reason", "it must"]);
        assert!(bench.ended(std::time::Duration::from_secs(60)), "{point}");
        bench.environment.clear();
        bench.start();
        bench.becomes("stack/topic", "Failed(Cancelled)");
        bench.cli(&["audit", "verify"], 0);
    }
}

#[test]
fn a_rollback_that_failed_once_is_continued_without_a_person() {
    let bench = one(PAIR);
    bench.cli(&["local", "fail", "topic", "Alarm", "--times", "1"], 0);
    let fail = ["local", "fail", "topic", "Topic", "--on", "rollback"];
    bench.cli(&[&fail[..], &["--times", "1"]].concat(), 0);
    bench.write("topic.yaml", &PAIR.replace("one", "two"));
    bench.push("two");
    bench.settle();

    assert_eq!(bench.condition("stack/topic"), "Failed(StackRolledBack)");
    assert_eq!(bench.calls("ContinueUpdateRollback"), 1);
    bench.cli(&["retry", "stack/topic"], 0);
    bench.becomes("stack/topic", "InSync(Settled)");
}

#[test]
fn a_kill_around_the_continuation_continues_once() {
    for point in ["remedy.before-effect", "remedy.after-effect"] {
        let mut bench = one(PAIR);
        bench.stop();
        bench.environment = vec![("ISOFORM_CRASH".into(), point.into())];
        bench.start();
        bench.cli(&["local", "fail", "topic", "Alarm", "--times", "1"], 0);
        let fail = ["local", "fail", "topic", "Topic", "--on", "rollback"];
        bench.cli(&[&fail[..], &["--times", "1"]].concat(), 0);
        bench.write("topic.yaml", &PAIR.replace("one", "two"));
        bench.push("two");
        assert!(bench.ended(std::time::Duration::from_secs(60)), "{point}");
        bench.environment.clear();
        bench.start();
        bench.becomes("stack/topic", "Failed(StackRolledBack)");
        bench.cli(&["audit", "verify"], 0);
    }
}

#[test]
fn a_stuck_stack_is_moved_as_an_operator_says_and_nothing_drifts() {
    let bench = stuck();
    assert_eq!(bench.calls("ContinueUpdateRollback"), 1);
    // What did not fail cannot be skipped, says CloudFormation; it stays stuck.
    say(&bench, &["continue", "--skip", "Nothing"], 0);
    let refused = bench.until(|e| {
        e["targets"][0]["condition"]["detail"]
            .to_string()
            .contains("[Nothing]")
    });
    assert_eq!(refused["targets"][0]["condition"]["result"], "Stuck");

    say(&bench, &["continue", "--skip", "Topic"], 0);
    bench.becomes("stack/topic", "Failed(StackRolledBack)");
    let nothing = say(&bench, &["continue"], 1);
    assert!(nothing.contains("nothing to move"), "{nothing}");
    bench.cli(&["retry", "stack/topic"], 0);
    bench.becomes("stack/topic", "InSync(Settled)");
    bench.cli(&["audit", "verify"], 0);
}

#[test]
fn a_frozen_daemon_moves_no_stack_on() {
    let bench = stuck();
    std::fs::write(bench.root.join("state/FREEZE"), "").unwrap();
    say(&bench, &["continue", "--skip", "Topic"], 0);
    bench.becomes("stack/topic", "Held(Frozen)");
    assert_eq!(bench.calls("ContinueUpdateRollback"), 1);
    std::fs::remove_file(bench.root.join("state/FREEZE")).unwrap();
    bench.becomes("stack/topic", "Failed(StackRolledBack)");
}

#[test]
fn a_suspended_target_is_not_moved_on() {
    let bench = stuck();
    bench.cli(&["suspend", "stack/topic", "--reason", "later"], 0);
    say(&bench, &["continue", "--skip", "Topic"], 0);
    bench.becomes("stack/topic", "Held(Suspended)");
    assert_eq!(bench.calls("ContinueUpdateRollback"), 1);
    bench.cli(&["resume", "stack/topic"], 0);
    bench.becomes("stack/topic", "Failed(StackRolledBack)");
}

#[test]
fn a_daemon_that_only_observes_moves_no_stack_on() {
    let mut bench = stuck();
    bench.stop();
    let config = bench.root.join("config.yaml");
    let acting = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, acting.replace("mode: auto", "mode: observe")).unwrap();
    bench.start();
    let refused = say(&bench, &["continue", "--skip", "Topic"], 1);
    assert!(
        refused.contains("the mode of `beta` is observe"),
        "{refused}"
    );
    assert_eq!(bench.calls("ContinueUpdateRollback"), 1);
}

fn push_topic(bench: &Bench, name: &str) {
    bench.write("topic.yaml", &topic(name));
    bench.push(name);
    bench.settle();
}

#[test]
fn a_rollback_holds_until_git_asks_for_the_same() {
    let mut bench = one(&topic("one"));
    push_topic(&bench, "two");
    let said = say(&bench, &["rollback"], 0);
    assert!(said.contains("goes back to"), "{said}");
    bench.becomes("stack/topic", "Held(Pinned)");
    assert_eq!(bench.calls("ExecuteChangeSet"), 3);
    let why = bench.cli(&["why", "stack/topic"], 3);
    assert!(
        why.contains("it must") && why.contains("isoform resume stack/topic"),
        "{why}"
    );

    // Pushes are not followed, whether or not they are any good; and a restart does not change that.
    push_topic(&bench, "three");
    bench.write("topic.yaml", "Resources: {");
    bench.push("broken");
    bench.settle();
    assert_eq!(bench.condition("stack/topic"), "Held(Pinned)");
    bench.stop();
    bench.start();
    bench.settle();
    assert_eq!(bench.condition("stack/topic"), "Held(Pinned)");
    assert_eq!(bench.calls("ExecuteChangeSet"), 3);

    push_topic(&bench, "one");
    assert_eq!(bench.condition("stack/topic"), "InSync(Settled)");
    push_topic(&bench, "four");
    assert_eq!(bench.condition("stack/topic"), "InSync(Settled)");
    assert_eq!(bench.calls("ExecuteChangeSet"), 4);
    bench.cli(&["audit", "verify"], 0);
    bench.cli(&["audit", "prove", "stack/topic"], 0);
}

#[test]
fn a_rollback_of_what_failed_holds_what_serves_and_can_be_let_go() {
    let bench = one(&topic("one"));
    let first = bench.head();
    push_topic(&bench, "two");
    bench.cli(&["local", "fail", "topic", "T", "--times", "1"], 0);
    push_topic(&bench, "three");
    assert_eq!(bench.condition("stack/topic"), "Failed(StackRolledBack)");

    let said = say(&bench, &["rollback"], 0);
    assert!(said.contains("held at"), "{said}");
    bench.becomes("stack/topic", "Held(Pinned)");
    assert_eq!(bench.calls("ExecuteChangeSet"), 3);
    // To a commit; and to one that never was.
    let refused = say(&bench, &["rollback", "--to", "0000000"], 64);
    assert!(refused.contains("there are:"), "{refused}");
    say(&bench, &["rollback", "--to", &first[..8]], 0);
    bench.until(|_| bench.calls("ExecuteChangeSet") == 4);
    bench.becomes("stack/topic", "Held(Pinned)");
    bench.cli(&["resume", "stack/topic"], 0);
    bench.becomes("stack/topic", "InSync(Settled)");
    assert_eq!(bench.calls("ExecuteChangeSet"), 5);
}

#[test]
fn who_is_held_at_an_earlier_deployment_is_not_removed() {
    let mut bench = one(&topic("one"));
    bench.stop();
    let config = bench.root.join("config.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    let prune = text.replace(
        "mode: auto,",
        "mode: auto, prune: { policy: auto, percent: 100 },",
    );
    std::fs::write(&config, prune).unwrap();
    bench.start();
    push_topic(&bench, "two");
    say(&bench, &["rollback"], 0);
    bench.becomes("stack/topic", "Held(Pinned)");
    bench.write("isoform.yaml", "isoform: 1\nstacks: {}\n");
    bench.push("no topic");
    bench.becomes("stack/topic", "Orphaned(Pinned)");
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(bench.calls("DeleteStack"), 0);
}

const POLICY: &str = r#"{"Statement": [
  {"Effect": "Allow", "Principal": "*", "Action": "Update:*", "Resource": "*"},
  {"Effect": "Deny", "Principal": "*", "Action": "Update:*", "Resource": "LogicalResourceId/Topic"}
]}"#;

/// A bench with a stack whose policy denies every update of its topic, and a push that would change it.
fn denied(crash: &str) -> Bench {
    let mut bench = Bench::empty(PLACEMENTS);
    bench.write("topic.yaml", PAIR);
    bench.write("policy.json", POLICY);
    bench.write(
        "isoform.yaml",
        &SYNC.replace("stack_name", "stack_policy: policy.json, stack_name"),
    );
    bench.push("a topic");
    bench.start();
    bench.settle();
    bench.stop();
    if !crash.is_empty() {
        bench.environment = vec![("ISOFORM_CRASH".into(), crash.into())];
    }
    bench.start();
    bench.write("topic.yaml", &PAIR.replace("one", "two"));
    bench.push("two");
    bench.becomes("stack/topic", "Pending(StackPolicy)");
    bench
}

#[test]
fn what_a_stack_policy_denies_waits_and_is_opened_for_exactly_that() {
    let bench = denied("");
    let why = bench.cli(&["why", "stack/topic"], 3);
    assert!(
        why.contains("--open-policy") && why.contains("[Update:Modify] for resource [Topic]"),
        "{why}"
    );
    // An approval that does not say so opens nothing.
    bench.cli(&["approve", "stack/topic"], 0);
    bench.settle();
    assert_eq!(bench.condition("stack/topic"), "Pending(StackPolicy)");
    bench.cli(&["approve", "stack/topic", "--open-policy"], 0);
    bench.becomes("stack/topic", "InSync(Settled)");
    // Set with the stack, opened, closed.
    assert_eq!(bench.calls("SetStackPolicy"), 3);
    let history = bench.cli(&["history", "stack/topic"], 0);
    assert!(
        history.contains("the stack policy is as it was"),
        "{history}"
    );
    // It is closed again: the next change waits as this one did.
    bench.write("topic.yaml", &PAIR.replace("one", "three"));
    bench.push("three");
    bench.becomes("stack/topic", "Pending(StackPolicy)");
}

#[test]
fn an_execution_that_is_denied_closes_the_stack_policy_and_goes_on_when_it_is_allowed() {
    let bench = denied("");
    bench.cli(&["local", "faults", "--deny", "ExecuteChangeSet"], 0);
    bench.cli(&["approve", "stack/topic", "--open-policy"], 0);
    bench.becomes("stack/topic", "Unknown(Unavailable)");
    let history = bench.cli(&["history", "stack/topic"], 0);
    assert!(
        history.contains("the stack policy is as it was"),
        "{history}"
    );

    // Nobody pushes, syncs or retries.
    bench.cli(&["local", "faults", "--off"], 0);
    bench.becomes("stack/topic", "InSync(Settled)");
    // As often closed as opened, after it was set with the stack.
    assert_eq!(bench.calls("SetStackPolicy") % 2, 1);
}

#[test]
fn a_stack_policy_that_was_opened_is_closed_however_it_ends() {
    let bench = denied("");
    bench.cli(&["local", "fail", "topic", "Topic", "--times", "1"], 0);
    bench.cli(&["approve", "stack/topic", "--open-policy"], 0);
    bench.becomes("stack/topic", "Failed(StackRolledBack)");
    assert_eq!(bench.calls("SetStackPolicy"), 3);
    bench.cli(&["retry", "stack/topic"], 0);
    bench.becomes("stack/topic", "Pending(StackPolicy)");
}

#[test]
fn a_kill_around_an_opened_stack_policy_leaves_it_closed() {
    for point in [
        "open-policy.before-effect",
        "open-policy.after-effect",
        "execute.before-effect",
        "execute.after-effect",
        "close-policy.before-effect",
        "close-policy.after-effect",
    ] {
        let mut bench = denied(point);
        bench.cli(&["approve", "stack/topic", "--open-policy"], 0);
        assert!(bench.ended(std::time::Duration::from_secs(60)), "{point}");
        bench.environment.clear();
        if point.starts_with("open-policy") {
            // Frozen before it ran: it does not stay open over that.
            std::fs::write(bench.root.join("state/FREEZE"), "").unwrap();
            bench.start();
            bench.becomes("stack/topic", "Held(Frozen)");
            let sets = bench.calls("SetStackPolicy");
            assert_eq!(
                sets,
                if point.ends_with("after-effect") {
                    3
                } else {
                    2
                },
                "{point}"
            );
            std::fs::remove_file(bench.root.join("state/FREEZE")).unwrap();
        } else {
            bench.start();
        }
        bench.becomes("stack/topic", "InSync(Settled)");
        bench.write("topic.yaml", &PAIR.replace("one", "three"));
        bench.push("three");
        bench.becomes("stack/topic", "Pending(StackPolicy)");
        bench.cli(&["audit", "verify"], 0);
    }
}

#[test]
fn who_stands_behind_what_is_taken_back_is_not_let_through() {
    let mut bench = Bench::empty(PLACEMENTS);
    bench.write("topic.yaml", &topic("one"));
    let sync = "isoform: 1\nstacks:\n  topic: { template: topic.yaml, placement: beta, stack_name: topic }\n  later: { template: topic.yaml, placement: beta, after: [stack/topic] }\n";
    bench.write("isoform.yaml", sync);
    bench.push("both");
    bench.start();
    bench.settle();
    // The later one waits for a person; what it stands behind is taken back before anybody says yes.
    bench.write(
        "isoform.yaml",
        &sync.replace("after:", "gate: approve, after:"),
    );
    push_topic(&bench, "two");
    bench.becomes("stack/later", "Pending(Approval)");
    say(&bench, &["rollback"], 0);
    bench.becomes("stack/topic", "Held(Pinned)");
    bench.becomes("stack/later", "Pending(Dependency)");
    bench.cli(&["approve", "stack/later"], 1);
    assert_eq!(bench.calls("ExecuteChangeSet"), 4);
    bench.cli(&["resume", "stack/topic"], 0);
    bench.becomes("stack/topic", "InSync(Settled)");
}

#[test]
fn a_push_that_comes_while_a_stack_policy_is_being_opened_closes_it() {
    let bench = denied("");
    bench.cli(&["local", "faults", "--throttle", "SetStackPolicy=1"], 0);
    bench.cli(&["approve", "stack/topic", "--open-policy"], 0);
    bench.until(|_| {
        bench
            .cli(&["history", "stack/topic"], 0)
            .contains("will open-policy")
    });
    bench.write("topic.yaml", PAIR);
    bench.push("one again");
    bench.until(|e| e["snapshot"] == 3);
    bench.cli(&["local", "faults", "--off"], 0);
    bench.becomes("stack/topic", "InSync(Settled)");
    let history = bench.cli(&["history", "stack/topic"], 0);
    assert!(
        history.contains("the stack policy is as it was"),
        "{history}"
    );
    assert_eq!(bench.calls("ExecuteChangeSet"), 1);
}

#[test]
fn a_rival_after_a_crash_takes_the_place_of_what_was_announced() {
    let mut bench = one(&topic("one"));
    bench.stop();
    bench.environment = vec![("ISOFORM_CRASH".into(), "execute.before-effect".into())];
    bench.start();
    bench.write("topic.yaml", &topic("two"));
    bench.push("two");
    assert!(bench.ended(std::time::Duration::from_secs(60)));
    bench.environment.clear();
    bench.cli(&["local", "meddle", "topic"], 0);
    bench.start();
    bench.becomes("stack/topic", "Drifted(OutOfBand)");
    assert_eq!(bench.calls("ExecuteChangeSet"), 1);
    bench.cli(
        &["drift", "overwrite", "stack/topic", "--reason", "ours"],
        0,
    );
    bench.becomes("stack/topic", "InSync(Settled)");
}

#[test]
fn what_was_asked_for_about_a_stuck_stack_is_not_done_to_one_that_moved() {
    let bench = stuck();
    std::fs::write(bench.root.join("state/FREEZE"), "").unwrap();
    say(&bench, &["continue", "--skip", "Topic"], 0);
    bench.becomes("stack/topic", "Held(Frozen)");
    bench.cli(&["local", "continue", "topic"], 0);
    bench.until(|_| {
        bench
            .cli(&["logs", "stack/topic"], 0)
            .contains("UPDATE_ROLLBACK_COMPLETE")
    });
    std::fs::remove_file(bench.root.join("state/FREEZE")).unwrap();
    bench.until(|_| {
        bench
            .cli(&["history", "stack/topic"], 0)
            .contains("settled: Superseded")
    });
    // By itself and by hand, and not a third time.
    assert_eq!(bench.calls("ContinueUpdateRollback"), 2);
}

/// A bench in which a stack could not be deleted after Git had dropped it, and is to go under `prune: auto`.
fn undeletable() -> Bench {
    let placements = PLACEMENTS.replace(
        "mode: auto,",
        "mode: auto, prune: { policy: auto, percent: 100 },",
    );
    let mut bench = Bench::empty(&placements);
    bench.write("topic.yaml", HANDLE);
    bench.write("isoform.yaml", SYNC);
    bench.push("a handle");
    bench.start();
    bench.settle();
    let fail = ["local", "fail", "topic", "Handle", "--on", "delete"];
    bench.cli(&[&fail[..], &["--times", "1"]].concat(), 0);
    bench.write("isoform.yaml", "isoform: 1\nstacks: {}\n");
    bench.push("without it");
    bench.becomes("stack/topic", "Stuck(StackStuck)");
    bench
}

const HANDLE: &str = "Resources: { Handle: { Type: AWS::CloudFormation::WaitConditionHandle } }\n";

#[test]
fn what_git_asks_for_again_is_not_deleted_to_get_it_out_of_a_failure() {
    let bench = undeletable();
    bench.write("isoform.yaml", SYNC);
    bench.push("again");
    bench.settle();
    let refused = say(&bench, &["continue"], 1);
    assert!(refused.contains("take it out of Git first"), "{refused}");
    assert_eq!(bench.calls("DeleteStack"), 1);
    bench.write("isoform.yaml", "isoform: 1\nstacks: {}\n");
    bench.push("without it once more");
    bench.settle();
    say(&bench, &["continue"], 0);
    bench.becomes("stack/topic", "absent");
    assert_eq!(bench.calls("DeleteStack"), 2);
}

#[test]
fn a_deletion_that_waits_is_dropped_when_git_asks_for_its_stack_again() {
    let bench = undeletable();
    std::fs::write(bench.root.join("state/FREEZE"), "").unwrap();
    say(&bench, &["continue"], 0);
    bench.becomes("stack/topic", "Held(Frozen)");
    bench.write("isoform.yaml", SYNC);
    bench.push("again");
    bench.until(|e| e["snapshot"] == 3);
    std::fs::remove_file(bench.root.join("state/FREEZE")).unwrap();
    bench.becomes("stack/topic", "Stuck(StackStuck)");
    assert_eq!(bench.calls("DeleteStack"), 1);
}

#[test]
fn what_an_earlier_deployment_uses_stays_while_it_is_brought_back() {
    let placements = PLACEMENTS.replace(
        "mode: auto,",
        "mode: auto, prune: { policy: auto, percent: 100 },",
    );
    let mut bench = Bench::empty(&placements);
    let sync = |bench: &Bench, stacks: &str| {
        bench.write("isoform.yaml", &format!("isoform: 1\nstacks:\n{stacks}"));
    };
    let base = "  base: { template: base.yaml, placement: beta }\n";
    let topic_of = |more: &str| {
        format!("  topic: {{ template: topic.yaml, placement: beta, stack_name: topic{more} }}\n")
    };
    bench.write("base.yaml", HANDLE);
    bench.write("topic.yaml", &topic("one"));
    sync(
        &bench,
        &format!("{base}{}", topic_of(", after: [stack/base]")),
    );
    bench.push("both");
    bench.start();
    bench.settle();
    sync(&bench, &format!("{base}{}", topic_of("")));
    push_topic(&bench, "two");
    say(&bench, &["rollback"], 0);
    bench.becomes("stack/topic", "Held(Pinned)");
    sync(&bench, &topic_of(""));
    bench.push("without base");
    bench.until(|e| e["snapshot"] == 3);
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(bench.calls("DeleteStack"), 0);
    // Let go, it does not use it any more.
    bench.cli(&["resume", "stack/topic"], 0);
    bench.becomes("stack/base", "absent");
}

#[test]
fn a_rollback_goes_to_where_the_target_is_while_git_is_broken() {
    // The first of the placements is another account.
    let placements = PLACEMENTS.replace(
        "placements:\n",
        "placements:\n  aaa: { account: t, regions: [us-east-1], mode: observe }\n",
    );
    let mut bench = Bench::example_with(&placements);
    bench.push("Initial layout");
    bench.start();
    bench.settle();
    bench.edit(
        "services/orders.yaml",
        "desired_count: 2",
        "desired_count: 3",
    );
    bench.push("three");
    bench.settle();
    std::fs::write(bench.root.join("state/FREEZE"), "").unwrap();
    bench.cli(&["rollback", "svc/orders/beta", "--reason", "it must"], 0);
    bench.becomes("svc/orders/beta", "Held(Frozen)");
    bench.edit(
        "services/orders.yaml",
        "environment: beta",
        "environment: nowhere",
    );
    bench.push("broken");
    bench.until(|e| e["snapshot"] == 3);
    std::fs::remove_file(bench.root.join("state/FREEZE")).unwrap();
    bench.becomes("svc/orders/beta", "Held(Pinned)");
    let why = bench.cli(&["history", "svc/orders/beta"], 0);
    assert_eq!(why.matches("settled: Applied").count(), 3, "{why}");
}
