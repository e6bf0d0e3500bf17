//! The stories of a user, told with the real binary.

use crate::support::{Bench, PLACEMENTS, all_in_sync, condition};

#[test]
fn the_first_push_deploys_everything_in_order_and_a_second_look_costs_nothing() {
    let mut bench = Bench::example();
    bench.push("Initial layout");
    bench.start();
    all_in_sync(&bench.settle(), 13);

    let before: Vec<i64> = [
        "DescribeStacks",
        "ListStacks",
        "CreateChangeSet",
        "PutObject",
        "GetObject",
        "HeadObject",
    ]
    .map(|c| bench.calls(c))
    .to_vec();
    bench.write("README.md", "nothing that is deployed");
    bench.push("docs: a word");
    all_in_sync(&bench.settle(), 13);
    let after: Vec<i64> = [
        "DescribeStacks",
        "ListStacks",
        "CreateChangeSet",
        "PutObject",
        "GetObject",
        "HeadObject",
    ]
    .map(|c| bench.calls(c))
    .to_vec();
    assert_eq!(
        after[..3],
        before[..3],
        "no stack is asked about for an unrelated push"
    );
    // The snapshot itself is written down: its segment of the log and a checkpoint, and nothing else.
    assert!(after[3] - before[3] <= 4, "{before:?} {after:?}");
    assert_eq!(after[4..], before[4..]);

    let quiet: Vec<i64> = ["PutObject", "GetObject", "DescribeStacks"]
        .map(|c| bench.calls(c))
        .to_vec();
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_eq!(
        ["PutObject", "GetObject", "DescribeStacks"]
            .map(|c| bench.calls(c))
            .to_vec(),
        quiet,
        "polls of unchanged heads call no port"
    );
    bench.stop();
}

#[test]
fn a_diff_shows_what_a_push_then_does() {
    let mut bench = Bench::example();
    bench.push("Initial layout");
    bench.start();
    bench.settle();
    bench.edit(
        "services/orders.yaml",
        "desired_count: 2",
        "desired_count: 3",
    );
    let diff = bench.cli(&["diff"], 2);
    assert!(
        diff.contains("svc/orders/beta")
            && diff.contains("2 → 3")
            && diff.contains("services/orders.yaml:9")
            && diff.contains("1 target changes, 12 do not"),
        "{diff}"
    );

    bench.cli(&["hook", "install", "../origin.git"], 0);
    let push = bench.push("orders: three tasks");
    assert!(
        push.contains("remote: isoform:")
            && push.contains("svc/orders/beta")
            && push.contains("✓ updated")
            && push.contains("in sync · 13 of 13"),
        "{push}"
    );
    assert!(bench.cli(&["diff"], 0).contains("0 targets change"));
    let head = bench.head();
    for (command, word) in [
        (vec!["status"], "in sync"),
        (vec!["why", "svc/orders/beta"], "nothing to do"),
        (vec!["history", "svc/orders/beta"], "settled: Applied"),
        (vec!["logs", "svc/orders/beta"], "UPDATE_COMPLETE"),
        (vec!["audit", "show", &head[..7]], "1 in place"),
        (vec!["audit", "prove", "svc/orders/beta"], "byte for byte"),
    ] {
        let said = bench.cli(&command, 0);
        assert!(said.contains(word), "{command:?}: {said}");
    }
}

#[test]
fn a_broken_commit_shows_every_fault_and_stops_only_what_it_touches() {
    let mut bench = Bench::example();
    bench.push("Initial layout");
    bench.start();
    bench.settle();
    bench.cli(&["hook", "install", "../origin.git"], 0);
    bench.edit(
        "services/orders.yaml",
        "desired_count: 2",
        "desired_count: 300",
    );
    bench.edit("environments/prod.eu-west-1.yaml", "spec:", "spec: [");
    bench.edit(
        "templates/component/bucket/cloudformation.yaml",
        "{{ service.name }}",
        "{{ service.nam }}",
    );
    bench.edit(
        "services/billing.yaml",
        "image: public.ecr.aws/docker/library/httpd:2.4",
        "image: public.ecr.aws/docker/library/httpd:2.5",
    );
    let push = bench.push("broken");
    for word in [
        "services/orders.yaml:9:22",
        "at most 100",
        "set here",
        "environments/prod.eu-west-1.yaml:",
        "`service.nam` is not defined",
        "did you mean `name`?",
    ] {
        assert!(push.contains(word), "`{word}` is missing in {push}");
    }
    let estate = bench.settle();
    assert_eq!(condition(&estate, "svc/orders/beta"), "Failed(Invalid)");
    assert_eq!(condition(&estate, "svc/billing/beta"), "InSync(Settled)");
    let why = bench.cli(&["why", "svc/orders/beta"], 1);
    assert!(why.contains("services/orders.yaml:9:22"), "{why}");
    bench.git(
        &["revert", "--no-edit", "-q", "HEAD"]
            .iter()
            .filter(|a| **a != "-q")
            .copied()
            .collect::<Vec<_>>(),
    );
    bench.git(&["push", "origin", "main"]);
    all_in_sync(&bench.settle(), 13);
}

#[test]
fn an_unreadable_file_orphans_nothing() {
    let mut bench = Bench::example();
    bench.push("Initial layout");
    bench.start();
    bench.settle();
    let services = std::fs::read_to_string(bench.work().join("services/billing.yaml")).unwrap();
    bench.write("services/billing.yaml", &format!("{services}  bad: ["));
    bench.push("broken");
    let estate = bench.settle();
    assert_eq!(condition(&estate, "svc/billing/beta"), "Unknown(Invalid)");
    bench.write("services/billing.yaml", &services);
    let sync = std::fs::read_to_string(bench.work().join("isoform.yaml")).unwrap();
    bench.write("isoform.yaml", &sync[..sync.find("components:").unwrap()]);
    bench.push("no component and no stack");
    let estate = bench.settle();
    assert_eq!(
        (
            condition(&estate, "comp/orders-bucket"),
            condition(&estate, "stack/alarms")
        ),
        ("Orphaned(Removed)".into(), "Orphaned(Removed)".into())
    );
    assert_eq!(bench.calls("DeleteStack"), 0);
}

#[test]
fn replacing_a_database_waits_for_exactly_that_approval() {
    let mut bench = Bench::example();
    bench.push("Initial layout");
    bench.start();
    bench.settle();
    bench.edit(
        "services/orders.yaml",
        "database_name: orders",
        "database_name: orders2",
    );
    bench.push("another database");
    let estate = bench.settle();
    assert_eq!(condition(&estate, "svc/orders/beta"), "Pending(Approval)");
    let why = bench.cli(&["why", "svc/orders/beta"], 3);
    assert!(
        why.contains("replaces Database (AWS::RDS::DBInstance")
            && why.contains("forces replacement"),
        "{why}"
    );
    let review = |estate: &serde_json::Value| {
        estate["targets"]
            .as_array()
            .unwrap()
            .iter()
            .find(|t| t["address"] == "svc/orders/beta")
            .unwrap()["review"][0]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let first = review(&estate);

    // An unrelated push voids nothing.
    bench.write("README.md", "a word");
    bench.push("docs");
    let estate = bench.settle();
    assert_eq!(
        (condition(&estate, "svc/orders/beta"), review(&estate)),
        ("Pending(Approval)".into(), first.clone())
    );

    // A push that changes this target does: the old digest is refused.
    bench.edit(
        "services/orders.yaml",
        "desired_count: 2",
        "desired_count: 5",
    );
    bench.push("and more tasks");
    let estate = bench.settle();
    let second = review(&estate);
    assert_ne!(first, second);
    let refused = bench.cli(
        &["approve", "svc/orders/beta", "--review", &first[3..15]],
        1,
    );
    assert!(refused.contains("look again"), "{refused}");

    // So does a stack that moved.
    let stack = estate["targets"]
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["address"] == "svc/orders/beta")
        .unwrap()["stack_name"]
        .as_str()
        .unwrap()
        .to_owned();
    bench.cli(&["local", "meddle", &stack], 0);
    bench.cli(
        &["approve", "svc/orders/beta", "--review", &second[3..15]],
        0,
    );
    bench.settle();
    let state = bench.condition("svc/orders/beta");
    assert!(
        matches!(state.as_str(), "Drifted(OutOfBand)" | "Foreign(NotOurs)"),
        "{state}"
    );
    if state.starts_with("Drifted") {
        bench.cli(
            &[
                "drift",
                "overwrite",
                "svc/orders/beta",
                "--reason",
                "ours is right",
            ],
            0,
        );
    }
}

#[test]
fn an_approved_review_runs_and_a_rejected_one_does_not() {
    let mut bench = Bench::example();
    bench.push("Initial layout");
    bench.start();
    bench.settle();
    bench.edit(
        "services/orders.yaml",
        "database_name: orders",
        "database_name: orders2",
    );
    bench.push("another database");
    bench.settle();
    bench.cli(&["reject", "svc/orders/beta", "--reason", "not today"], 0);
    bench.cli(&["wait", "svc/orders/beta", "--timeout", "20s"], 1);
    assert_eq!(bench.condition("svc/orders/beta"), "Failed(Rejected)");
    bench.cli(&["retry", "svc/orders/beta"], 0);
    bench.cli(&["wait", "svc/orders/beta", "--timeout", "20s"], 3);
    let before = bench.calls("ExecuteChangeSet");
    bench.cli(&["approve", "svc/orders/beta"], 0);
    bench.cli(&["wait", "svc/orders/beta", "--timeout", "20s"], 0);
    assert_eq!(bench.calls("ExecuteChangeSet"), before + 1);
}

#[test]
fn options_that_no_change_set_carries_pass_the_same_gate() {
    let mut bench = Bench::empty(&PLACEMENTS.replacen("mode: auto", "mode: approve", 1));
    bench.write(
        "isoform.yaml",
        "isoform: 1\nstacks:\n  one: { template: one.yaml, placement: beta }\n",
    );
    bench.write(
        "one.yaml",
        "Resources: { Topic: { Type: AWS::SNS::Topic } }\n",
    );
    bench.push("one stack");
    bench.start();
    bench.settle();
    bench.cli(&["approve", "stack/one"], 0);
    bench.cli(&["wait", "stack/one", "--timeout", "20s"], 0);
    let executed = bench.calls("ExecuteChangeSet");
    bench.edit(
        "isoform.yaml",
        "placement: beta }",
        "placement: beta, termination_protection: true }",
    );
    bench.push("protect it");
    bench.settle();
    assert_eq!(bench.condition("stack/one"), "Pending(Approval)");
    assert_eq!(bench.calls("UpdateTerminationProtection"), 0);
    assert!(bench.cli(&["why", "stack/one"], 3).contains("protection"));
    bench.cli(&["approve", "stack/one"], 0);
    bench.cli(&["wait", "stack/one", "--timeout", "20s"], 0);
    assert_eq!(bench.condition("stack/one"), "InSync(Settled)");
    assert_eq!(bench.calls("UpdateTerminationProtection"), 1);
    assert_eq!(bench.calls("ExecuteChangeSet"), executed);
}

#[test]
fn a_plan_is_in_the_log_and_leaves_no_change_set() {
    let mut bench = Bench::empty(PLACEMENTS);
    bench.write(
        "isoform.yaml",
        "isoform: 1\nstacks:\n  one: { template: one.yaml, placement: beta }\n",
    );
    bench.write(
        "one.yaml",
        "Resources: { Topic: { Type: AWS::SNS::Topic } }\n",
    );
    bench.push("one stack");
    bench.start();
    bench.settle();
    bench.cli(&["suspend", "stack/one", "--reason", "looking first"], 0);
    bench.edit(
        "one.yaml",
        "AWS::SNS::Topic }",
        "AWS::SNS::Topic, Properties: { DisplayName: x } }",
    );
    bench.push("a name");
    bench.settle();
    assert!(bench.cli(&["plan"], 2).contains("DisplayName"));
    let history = bench.cli(&["history", "stack/one"], 0);
    for said in ["for a preview", "of a preview is gone"] {
        assert!(history.contains(said), "{history}");
    }
    bench.cli(&["audit", "verify"], 0);
}

#[test]
fn a_question_that_cannot_be_meant_ends_with_64_and_json_has_a_version() {
    let mut bench = Bench::empty(PLACEMENTS);
    bench.push("nothing");
    bench.start();
    for wrong in [
        vec!["why", "svc/none/beta"],
        vec!["retry", "svc/none/beta"],
        vec!["wait"],
        vec!["wait", "**", "--timeout", "soon"],
        vec!["approve"],
        vec!["validate", "no-such-folder"],
        vec!["diff", "HEAD"],
        vec!["no-such-command"],
    ] {
        bench.cli(&wrong, 64);
    }
    for asked in [
        vec!["status"],
        vec!["targets"],
        vec!["audit", "list"],
        vec!["audit", "verify"],
        vec!["local", "calls"],
        vec!["config", "show"],
    ] {
        let output = bench.run(&[&asked[..], &["--output", "json"]].concat());
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(value["v"], 1, "{asked:?}: {value}");
    }
}

const PAIR: &str = "Resources:\n  Topic: { Type: AWS::SNS::Topic, Properties: { DisplayName: one } }\n  Alarm: { Type: AWS::CloudWatch::Alarm, DependsOn: Topic, Properties: { ComparisonOperator: LessThanThreshold, EvaluationPeriods: 1, AlarmDescription: one } }\n";

fn pair() -> Bench {
    let mut bench = Bench::empty(PLACEMENTS);
    bench.write(
        "isoform.yaml",
        "isoform: 1\nstacks:\n  one: { template: one.yaml, placement: beta }\n",
    );
    bench.write("one.yaml", PAIR);
    bench.push("one stack");
    bench.start();
    bench.settle();
    bench
}

#[test]
fn a_revert_does_not_hide_a_stack_that_is_stuck() {
    let bench = pair();
    let stack = "isoform-stack-one-*";
    bench.cli(&["local", "fail", stack, "Alarm", "--times", "1"], 0);
    bench.cli(
        &[
            "local", "fail", stack, "Topic", "--on", "rollback", "--times", "2",
        ],
        0,
    );
    bench.write("one.yaml", &PAIR.replace("one", "two"));
    bench.push("two");
    bench.settle();
    assert_eq!(bench.condition("stack/one"), "Stuck(StackStuck)");
    bench.write("one.yaml", PAIR);
    bench.push("one again");
    bench.settle();
    assert_eq!(bench.condition("stack/one"), "Stuck(StackStuck)");
    bench.cli(&["status"], 1);
    bench.cli(&["why", "stack/one", "--output", "json"], 1);
}

#[test]
fn a_word_about_drift_is_about_the_stack_as_it_was_then() {
    let bench = pair();
    let stack = bench.estate()["targets"][0]["stack_name"]
        .as_str()
        .unwrap()
        .to_owned();
    bench.cli(&["local", "meddle", &stack], 0);
    bench.cli(&["sync"], 0);
    bench.becomes("stack/one", "Drifted(OutOfBand)");
    bench.cli(&["drift", "overwrite", "stack/one", "--reason", "so"], 0);
    std::thread::sleep(std::time::Duration::from_millis(500));
    // Nothing is overwritten before there is a change, and nothing says that it was.
    assert_eq!(bench.condition("stack/one"), "Drifted(OutOfBand)");
    bench.cli(&["local", "meddle", &stack], 0);
    bench.write("one.yaml", &PAIR.replace("one", "two"));
    bench.push("two");
    bench.settle();
    assert_eq!(bench.condition("stack/one"), "Drifted(OutOfBand)");
    bench.cli(&["drift", "overwrite", "stack/one", "--reason", "so"], 0);
    bench.becomes("stack/one", "InSync(Settled)");
}

/// A repository with one template that forty instances follow, half of them in a second wave.
fn forty(bench: &Bench) {
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/repo-layout/templates/environment");
    crate::support::copy(&example, &bench.work().join("templates/environment"));
    let manifest = "infrastructure:\n  templates:\n    - { file: c.yaml, rendering_engine: jinja, template_language: cloudformation }\n";
    bench.write("templates/service/queue/v1/schema/schema.yaml", "schema:\n  format: { openapi: '3.0.0' }\n  service_input_type: In\n  types: { In: { type: object, properties: { delay: { type: integer, default: 1 } } } }\n");
    bench.write(
        "templates/service/queue/v1/.compatible-envs",
        "fargate-env:1\n",
    );
    bench.write(
        "templates/service/queue/v1/instance_infrastructure/manifest.yaml",
        manifest,
    );
    bench.write("templates/service/queue/v1/instance_infrastructure/c.yaml", "Resources:\n  Rule:\n    Type: AWS::Events::Rule\n    Properties:\n      Description: \"{{ service.name }} in {{ environment.outputs.VpcId }}\"\n      ScheduleExpression: rate({{ service_instance.inputs.delay }} days)\n");
    let mut sync = "isoform: 1\nenvironments:\n  beta: { template: fargate-env@1, spec: beta.yaml, placement: beta }\n  prod: { template: fargate-env@1, spec: beta.yaml, placement: prod }\nrollouts:\n  waves:\n    - { environments: [beta] }\n    - { environments: [prod], max_in_flight: 4, stop_after: 1 }\ndefaults: { services: { rollout: waves } }\nservices:\n".to_owned();
    bench.write(
        "beta.yaml",
        "proton: EnvironmentSpec\nspec: { vpc_cidr: 10.0.0.0/16 }\n",
    );
    for service in 0..4 {
        sync.push_str(&format!(
            "  s{service}: {{ template: queue@1, spec: s{service}.yaml }}\n"
        ));
        let mut spec = "proton: ServiceSpec\ninstances:\n".to_owned();
        for i in 0..10 {
            spec.push_str(&format!(
                "  - {{ name: i{i}, environment: {} }}\n",
                if i < 5 { "beta" } else { "prod" }
            ));
        }
        bench.write(&format!("s{service}.yaml"), &spec);
    }
    bench.write("isoform.yaml", &sync);
}

const ONE_REGION: &str = "\
accounts: { a: { id: \"000000000001\" }, b: { id: \"000000000002\" } }
placements:
  beta: { account: a, regions: [us-east-1], mode: auto, blast_radius: 100 }
  prod: { account: b, regions: [us-east-1], mode: auto, blast_radius: 10 }
";

#[test]
fn a_template_that_forty_targets_follow_is_held_then_rolls_out_and_halts() {
    let mut bench = Bench::empty(ONE_REGION);
    forty(&bench);
    bench.push("forty");
    bench.start();
    let estate = bench.settle();
    let held = estate["targets"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|t| t["condition"]["reason"] == "BlastRadius")
        .count();
    assert!(held > 0, "{estate:#}");
    let why = bench.cli(&["why", "env/prod"], 3);
    assert!(
        why.contains("changes 21 targets in `prod`, 10 may change without an approval"),
        "{why}"
    );
    bench.cli(&["approve", "--snapshot", &bench.head()[..10]], 0);
    all_in_sync(&bench.settle(), 42);

    // A change of the template: beta goes, prod is held once more; then a failure halts the wave.
    bench.edit(
        "templates/service/queue/v1/instance_infrastructure/c.yaml",
        "Properties:",
        "Properties:\n      State: ENABLED",
    );
    bench.push("template: rules are enabled");
    let estate = bench.settle();
    assert_eq!(
        (
            condition(&estate, "svc/s0/i0"),
            condition(&estate, "svc/s0/i9")
        ),
        ("InSync(Settled)".into(), "Pending(BlastRadius)".into())
    );
    bench.cli(&["local", "fail", "isoform-svc-s*", "Rule"], 0);
    bench.cli(&["approve", "--snapshot", &bench.head()[..10]], 0);
    let estate = bench.settle();
    let count = |estate: &serde_json::Value, reason: &str| {
        estate["targets"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|t| t["condition"]["reason"] == reason)
            .count()
    };
    let failed = count(&estate, "StackRolledBack");
    assert!(
        (1..=4).contains(&failed),
        "at most what was in flight fails: {failed}"
    );
    assert!(count(&estate, "RolloutHalted") >= 15, "{estate:#}");

    // Another try of those that failed does not resume the wave before it has worked.
    for target in estate["targets"].as_array().unwrap() {
        if target["condition"]["reason"] == "StackRolledBack" {
            bench.cli(&["retry", target["address"].as_str().unwrap()], 0);
        }
    }
    let estate = bench.settle();
    assert!(
        (1..=failed).contains(&count(&estate, "StackRolledBack")),
        "{estate:#}"
    );
    assert!(count(&estate, "RolloutHalted") >= 15, "{estate:#}");

    bench.cli(&["local", "heal", "isoform-svc-s*", "Rule"], 0);
    bench.cli(&["retry", "svc/*/*"], 0);
    bench.cli(&["resume", "svc/*/*"], 0);
    bench.cli(&["wait", "svc/*/*", "--timeout", "50s"], 0);
    all_in_sync(&bench.settle(), 42);
}

#[test]
fn a_held_commit_can_be_let_go_while_a_newer_one_is_stuck_before_it() {
    let held = PLACEMENTS.replace(
        "[us-east-1, eu-west-1], mode: auto, blast_radius: 50",
        "[us-east-1, eu-west-1], mode: auto, blast_radius: 1",
    );
    let mut bench = Bench::example_with(&held);
    bench.push("Initial layout");
    bench.start();
    bench.settle();
    bench.cli(&["approve", "--snapshot", &bench.head()[..10]], 0);
    all_in_sync(&bench.settle(), 13);

    bench.edit(
        "services/orders.yaml",
        "desired_count: 4",
        "desired_count: 5",
    );
    bench.push("good, and held");
    let good = bench.head();
    bench.settle();
    assert_eq!(
        bench.condition("svc/orders/prod@us-east-1"),
        "Pending(BlastRadius)"
    );
    bench.cli(&["local", "fail", "isoform-svc-orders-beta*", "Service"], 0);
    bench.edit(
        "services/orders.yaml",
        "desired_count: 2",
        "desired_count: 9",
    );
    bench.push("fails in beta");
    let estate = bench.settle();
    assert_eq!(
        condition(&estate, "svc/orders/beta"),
        "Failed(StackRolledBack)"
    );
    let evidence = bench.cli(&["audit", "show", "svc/orders/prod@us-east-1"], 0);
    assert!(!evidence.contains(&good[..7]), "{evidence}");
    bench.cli(&["approve", "--snapshot", &good[..10]], 0);
    bench.settle();
    let evidence = bench.cli(&["audit", "show", "svc/orders/prod@us-east-1"], 0);
    assert!(evidence.contains(&good[..7]), "{evidence}");
}

#[test]
fn suspending_freezing_and_stopping_leave_nothing_half_done() {
    let mut bench = Bench::example();
    bench.push("Initial layout");
    bench.start();
    bench.settle();
    std::fs::write(bench.root.join("state/FREEZE"), "").unwrap();
    bench.edit(
        "services/orders.yaml",
        "desired_count: 2",
        "desired_count: 3",
    );
    bench.push("three");
    bench.settle();
    assert_eq!(bench.condition("svc/orders/beta"), "Held(Frozen)");
    bench.cli(&["suspend", "svc/orders/beta", "--reason", "lunch"], 0);
    std::fs::remove_file(bench.root.join("state/FREEZE")).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(4000));
    assert_eq!(bench.condition("svc/orders/beta"), "Held(Suspended)");
    bench.stop();
    bench.start();
    bench.settle();
    assert_eq!(bench.condition("svc/orders/beta"), "Held(Suspended)");
    bench.cli(&["resume", "svc/orders/beta"], 0);
    bench.cli(&["wait", "svc/orders/beta", "--timeout", "20s"], 0);
    bench.stop();
}

#[test]
fn a_rewritten_history_is_refused_until_it_is_accepted() {
    let mut bench = Bench::example();
    bench.push("Initial layout");
    let first = bench.head();
    bench.edit(
        "services/orders.yaml",
        "desired_count: 2",
        "desired_count: 3",
    );
    bench.push("three");
    bench.start();
    bench.settle();
    bench.git(&["reset", "-q", "--hard", &first]);
    bench.edit(
        "services/orders.yaml",
        "desired_count: 2",
        "desired_count: 9",
    );
    bench.git(&["commit", "-qam", "sideways"]);
    bench.git(&["push", "-q", "--force", "origin", "main"]);
    let said = bench.cli(&["sync"], 3);
    assert!(said.contains("nothing new"), "{said}");
    let status = bench.cli(&["status"], 3);
    assert!(status.contains("git.history-rewritten"), "{status}");
    bench.cli(&["approve", "--source", "example"], 0);
    all_in_sync(&bench.settle(), 13);

    bench.git(&[
        "--git-dir",
        "../origin.git",
        "update-ref",
        "-d",
        "refs/heads/main",
    ]);
    bench.cli(&["sync"], 1);
    all_in_sync(&bench.estate(), 13);
}

#[test]
fn a_commit_with_faults_is_never_deployed_not_even_after_the_next_one() {
    let mut bench = Bench::example();
    bench.push("Initial layout");
    bench.start();
    bench.settle();
    bench.edit(
        "services/orders.yaml",
        "desired_count: 2",
        "desired_count: 300",
    );
    bench.push("too many");
    bench.settle();
    assert_eq!(bench.condition("svc/orders/beta"), "Failed(Invalid)");
    let bad = bench.head();

    // While its environment is not there yet, the newest commit that has all it needs is the one with the fault.
    bench.edit(
        "services/orders.yaml",
        "desired_count: 300",
        "desired_count: 4",
    );
    bench.edit(
        "environments/beta.yaml",
        "log_retention_days: 7",
        "log_retention_days: 30",
    );
    bench.push("four, and longer logs");
    all_in_sync(&bench.settle(), 13);

    let said = bench.cli(&["audit", "show", &bad], 0);
    assert!(!said.contains("deployment "), "{said}");
}

#[test]
fn a_pinned_minor_stays_when_its_template_changes() {
    let mut bench = Bench::example();
    bench.push("Initial layout");
    bench.start();
    bench.settle();
    bench.edit(
        "isoform.yaml",
        "repository: { id: example/billing }",
        "repository: { id: example/billing }\n    overrides: { beta: { template: web@1.0 } }",
    );
    bench.edit(
        "templates/service/web/v1/instance_infrastructure/cloudformation.yaml",
        "AllocatedStorage: \"20\"",
        "AllocatedStorage: \"30\"",
    );
    bench.push("web: longer backups");
    let estate = bench.settle();
    let serving = |address: &str| {
        estate["targets"]
            .as_array()
            .unwrap()
            .iter()
            .find(|t| t["address"] == address)
            .unwrap()["serving_template"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        (serving("svc/orders/beta"), serving("svc/billing/beta")),
        ("web@1.1".into(), "web@1.0".into())
    );
}

#[test]
fn a_commit_that_failed_in_beta_and_was_reverted_never_reaches_prod() {
    let mut bench = Bench::example();
    bench.push("Initial layout");
    bench.start();
    bench.settle();
    bench.cli(&["local", "fail", "isoform-svc-orders-beta*", "Service"], 0);
    bench.edit(
        "services/orders.yaml",
        "desired_count: 2",
        "desired_count: 9",
    );
    bench.edit(
        "services/orders.yaml",
        "desired_count: 4",
        "desired_count: 99",
    );
    bench.push("bad");
    let bad = bench.head();
    let estate = bench.settle();
    assert_eq!(
        condition(&estate, "svc/orders/beta"),
        "Failed(StackRolledBack)"
    );
    bench.cli(&["local", "heal", "isoform-svc-orders-beta*", "Service"], 0);
    // The revert brings something of its own that keeps prod from the newest snapshot.
    bench.cli(
        &["local", "fail", "isoform-env-prod-us-east-1*", "LogGroup"],
        0,
    );
    bench.git(&["revert", "--no-edit", "HEAD"]);
    bench.edit(
        "environments/prod.us-east-1.yaml",
        "log_retention_days: 365",
        "log_retention_days: 30",
    );
    bench.push("revert, and another retention");
    bench.settle();
    let evidence = bench.cli(&["audit", "show", "svc/orders/prod@us-east-1"], 0);
    assert!(!evidence.contains(&bad[..7]), "{evidence}");
}

#[test]
fn the_example_fits_the_published_schemas() {
    let demo = Bench::empty(ONE_REGION);
    let files = [
        (
            "sync",
            std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("examples/repo-layout/isoform.yaml"),
        ),
        ("config", demo.root.join("config.yaml")),
    ];
    for (schema, file) in files {
        let output = std::process::Command::new(crate::support::ISOFORM)
            .args(["schema", schema])
            .output()
            .unwrap();
        let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        let value: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        let faults: Vec<String> = jsonschema::validator_for(&schema)
            .unwrap()
            .iter_errors(&value)
            .map(|e| format!("{} at {}", e, e.instance_path()))
            .collect();
        assert!(faults.is_empty(), "{faults:#?}");
    }
}
