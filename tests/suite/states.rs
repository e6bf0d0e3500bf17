//! The worst states that a stack can be in: what `status` and `why` say, what they propose, and that the proposal works.

use isoform::clock::Clock;
use isoform::domain::plan::ChangeSetStatus;
use isoform::local::{LocalEngine, LocalObjects, World};
use isoform::port::{ObjectStore, OnFailure, Proposal, Put, StackEngine, StackRef, body};

use crate::support::{Bench, PLACEMENTS};
use crate::world::{one, stuck, topic};

/// Runs what `why` proposes under `next`, with a reason and what a person fills in; returns what `why` said.
fn proposed(bench: &Bench, target: &str, code: i32, choose: &str, more: &[&str]) -> String {
    let why = bench.cli(&["why", target], code);
    let next = why
        .lines()
        .find_map(|l| l.trim().strip_prefix("next"))
        .unwrap_or_default();
    let begins = format!("isoform {choose}");
    let at = next
        .find(&begins)
        .unwrap_or_else(|| panic!("no `{begins}`: {why}"));
    let words: Vec<&str> = next[at..]
        .split_whitespace()
        .skip(1)
        .map(|w| w.trim_matches(['`', ',', ';', ':']))
        .take_while(|w| !w.starts_with('-') && !matches!(*w, "or" | "with"))
        .collect();
    let status = bench.run(&["status"]);
    let status = crate::support::text(&status);
    assert!(status.contains(target), "{status}");
    bench.cli(&[&words[..], more].concat(), 0);
    why
}

pub fn by_hand<T>(bench: &Bench, work: impl AsyncFnOnce(LocalEngine, LocalObjects) -> T) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cloud = bench.root.join("cloud");
    runtime.block_on(async {
        let world = World::open(&cloud, Clock::system(), 0.3).await.unwrap();
        let account = "000000000001".parse().unwrap();
        let store = LocalObjects::new(world.clone(), "asked");
        work(
            LocalEngine::new(world, account, "us-east-1".parse().unwrap()),
            store,
        )
        .await
    })
}

const SYNC: &str =
    "isoform: 1\nstacks:\n  topic: { template: topic.yaml, placement: beta, stack_name: topic }\n";

fn pushed(placements: &str, template: &str) -> Bench {
    let mut bench = Bench::empty(placements);
    bench.write("topic.yaml", template);
    bench.write("isoform.yaml", SYNC);
    bench.push("a topic");
    bench.start();
    bench
}

#[test]
fn a_first_creation_that_failed() {
    let mut bench = Bench::empty(PLACEMENTS);
    bench.write("topic.yaml", &topic("one"));
    bench.write("isoform.yaml", SYNC);
    bench.start();
    bench.cli(&["local", "fail", "topic", "T", "--times", "1"], 0);
    bench.push("a topic");
    bench.becomes("stack/topic", "Failed(StackCreateFailed)");
    let why = proposed(&bench, "stack/topic", 1, "retry", &[]);
    assert!(
        why.contains("insufficient capacity") && why.contains("topic.yaml:2"),
        "{why}"
    );
    bench.becomes("stack/topic", "InSync(Settled)");
}

#[test]
fn a_first_creation_whose_rest_cannot_be_deleted() {
    let mut bench = Bench::empty(PLACEMENTS);
    bench.write("topic.yaml", crate::world::PAIR);
    bench.write("isoform.yaml", SYNC);
    bench.start();
    bench.cli(&["local", "fail", "topic", "Alarm", "--times", "1"], 0);
    let fail = ["local", "fail", "topic", "Topic", "--on", "delete"];
    bench.cli(&[&fail[..], &["--times", "1"]].concat(), 0);
    bench.push("a topic");
    bench.becomes("stack/topic", "Stuck(StackStuck)");
    let why = proposed(
        &bench,
        "stack/topic",
        1,
        "continue",
        &["--reason", "mended"],
    );
    assert!(
        why.contains("_FAILED over Topic") && why.contains("--skip Topic"),
        "{why}"
    );
    bench.until(|e| e["targets"][0]["condition"]["result"] != "Stuck");
    bench.cli(&["retry", "stack/topic"], 0);
    bench.becomes("stack/topic", "InSync(Settled)");
}

#[test]
fn a_rollback_that_failed() {
    let bench = stuck();
    proposed(
        &bench,
        "stack/topic",
        1,
        "continue",
        &["--skip", "Topic", "--reason", "it must"],
    );
    bench.becomes("stack/topic", "Failed(StackRolledBack)");
    proposed(&bench, "stack/topic", 1, "retry", &[]);
    bench.becomes("stack/topic", "InSync(Settled)");
}

#[test]
fn a_change_set_that_somebody_deleted() {
    let bench = pushed(
        &PLACEMENTS.replace("mode: auto", "mode: approve"),
        &topic("one"),
    );
    bench.becomes("stack/topic", "Pending(Approval)");
    bench.cli(&["approve", "stack/topic"], 0);
    bench.becomes("stack/topic", "InSync(Settled)");
    bench.write("topic.yaml", &topic("two"));
    bench.push("two");
    bench.becomes("stack/topic", "Pending(Approval)");
    let log = bench.cli(&["audit", "list"], 0);
    let name = log.rsplit("will make the change set ").next().unwrap();
    let name = name.split_whitespace().next().unwrap().to_owned();
    by_hand(&bench, async |engine, _| {
        let stack = "topic".parse().unwrap();
        let found = engine.find(&stack, &name).await.unwrap().unwrap();
        engine.discard(&found.change_set).await.unwrap();
    });
    // It is planned again, and what was approved is not taken for what is there now.
    proposed(&bench, "stack/topic", 3, "approve", &[]);
    bench.until(|e| {
        let logged = e["entries"].as_u64();
        logged.is_some() && bench.cli(&["audit", "list"], 0).contains("Superseded")
    });
    bench.becomes("stack/topic", "Pending(Approval)");
    proposed(&bench, "stack/topic", 3, "approve", &[]);
    bench.becomes("stack/topic", "InSync(Settled)");
    // One of the three was refused: its change set was gone.
    assert_eq!(bench.calls("ExecuteChangeSet"), 3);
}

#[test]
fn a_stack_that_somebody_moved() {
    let bench = one(&topic("one"));
    bench.cli(&["local", "meddle", "topic"], 0);
    bench.cli(&["sync"], 0);
    bench.becomes("stack/topic", "Drifted(OutOfBand)");
    let why = bench.cli(&["why", "stack/topic"], 3);
    assert!(
        why.contains("isoform drift accept|overwrite stack/topic"),
        "{why}"
    );
    bench.cli(
        &["drift", "accept", "stack/topic", "--reason", "as it is"],
        0,
    );
    bench.becomes("stack/topic", "InSync(Settled)");
}

#[test]
fn a_stack_that_somebody_deleted() {
    let bench = one(&topic("one"));
    bench.cli(&["local", "delete", "topic"], 0);
    bench.cli(&["sync"], 0);
    bench.becomes("stack/topic", "Drifted(OutOfBand)");
    let why = bench.cli(&["why", "stack/topic"], 3);
    assert!(
        why.contains("its stack is gone") && why.contains("isoform drift"),
        "{why}"
    );
    bench.cli(
        &["drift", "overwrite", "stack/topic", "--reason", "again"],
        0,
    );
    bench.becomes("stack/topic", "InSync(Settled)");
    assert_eq!(bench.calls("ExecuteChangeSet"), 2);
}

#[test]
fn a_template_over_a_megabyte() {
    let bench = one(&topic("one"));
    let long = format!("{}# {}\n", topic("two"), "x".repeat(1_100_000));
    bench.write("topic.yaml", &long);
    bench.push("long");
    bench.settle();
    let why = bench.cli(&["why", "stack/topic"], 1);
    assert!(
        why.contains("at most 1048576 are read") && why.contains("mend the faults"),
        "{why}"
    );
    bench.write("topic.yaml", &topic("two"));
    bench.push("short");
    bench.settle();
    assert_eq!(bench.condition("stack/topic"), "InSync(Settled)");
}

#[test]
fn an_export_in_use() {
    let mut bench = Bench::empty(PLACEMENTS);
    let exporter = |output: &str| format!("Resources:\n  T: {{Type: 'AWS::SNS::Topic'}}\n{output}");
    bench.write(
        "topic.yaml",
        &exporter("Outputs: { T: { Value: !Ref T, Export: { Name: the-topic } } }\n"),
    );
    bench.write("user.yaml", "Resources:\n  P: { Type: AWS::SSM::Parameter, Properties: { Type: String, Value: !ImportValue the-topic } }\n");
    bench.write(
        "isoform.yaml",
        &format!(
            "{SYNC}  user: {{ template: user.yaml, placement: beta, after: [stack/topic] }}\n"
        ),
    );
    bench.push("both");
    bench.start();
    bench.settle();
    bench.write("topic.yaml", &exporter(""));
    bench.push("without the export");
    bench.settle();
    let why = bench.cli(&["why", "stack/topic"], 1);
    assert!(why.contains("the-topic") && why.contains("user"), "{why}");
    // What it says helps: who uses it goes first, or it comes back.
    bench.write("user.yaml", "Resources:\n  P: { Type: AWS::SSM::Parameter, Properties: { Type: String, Value: nothing } }\n");
    bench.write(
        "topic.yaml",
        &exporter("Outputs: { T: { Value: !Ref T, Export: { Name: the-topic } } }\n"),
    );
    bench.push("nobody uses it");
    bench.settle();
    bench.write("topic.yaml", &exporter(""));
    bench.push("without the export");
    bench.settle();
    assert_eq!(bench.condition("stack/topic"), "InSync(Settled)");
}

#[test]
fn a_secret_that_was_never_executed_does_not_count_as_given() {
    let mut bench = Bench::empty(PLACEMENTS);
    let template = |on: bool| {
        format!(
            "Parameters: {{ Word: {{ Type: String, NoEcho: true }} }}\nConditions: {{ On: !Equals [ '{on}', 'true' ] }}\nResources:\n  H: {{ Type: AWS::CloudFormation::WaitConditionHandle }}\n  T: {{ Type: AWS::SNS::Topic, Condition: On, Properties: {{ DisplayName: !Ref Word }} }}\n"
        )
    };
    let write = |bench: &Bench, on: bool, word: &str| {
        bench.write("topic.yaml", &template(on));
        bench.write(
            "isoform.yaml",
            &SYNC.replace(
                "stack_name",
                &format!("parameters: {{ Word: {word} }}, stack_name"),
            ),
        );
    };
    write(&bench, false, "first-secret");
    bench.push("one");
    bench.start();
    bench.settle();
    write(&bench, false, "second-secret");
    bench.push("nothing uses it");
    bench.settle();
    assert_eq!(bench.condition("stack/topic"), "NoEffect(NoChanges)");
    write(&bench, true, "second-secret");
    bench.push("now something does");
    bench.settle();
    assert_eq!(bench.condition("stack/topic"), "InSync(Settled)");
    // CloudFormation itself says which one it has.
    let same = |word: &'static str| {
        by_hand(&bench, async move |engine, store| {
            let key = format!("{word}.yaml");
            store
                .put(&key, body(template(true)), &Put::default())
                .await
                .unwrap();
            let proposal = Proposal {
                stack: "topic".parse().unwrap(),
                name: format!("ask-{word}"),
                token: word.to_owned(),
                create: false,
                import: [].into(),
                template_url: store.url(&key, None),
                parameters: [("Word".to_owned(), word.to_owned())].into(),
                kept: [].into(),
                tags: engine
                    .describe(&StackRef::Name("topic".parse().unwrap()))
                    .await
                    .unwrap()
                    .unwrap()
                    .tags,
                capabilities: Vec::new(),
                notification_arns: Vec::new(),
                rollback_triggers: Vec::new(),
                monitoring_minutes: 0,
                on_failure: OnFailure::Rollback,
            };
            let made = engine.propose(&proposal).await.unwrap();
            loop {
                let status = engine.review(&made.change_set).await.unwrap().status;
                if status != ChangeSetStatus::Creating {
                    return status;
                }
            }
        })
    };
    assert_eq!(same("second-secret"), ChangeSetStatus::NoChanges);
    assert_eq!(same("first-secret"), ChangeSetStatus::Available);
}
