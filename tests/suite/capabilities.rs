//! Capabilities that CloudFormation needs and no template shows.

use crate::support::{Bench, PLACEMENTS};
use crate::world::topic;

const NEEDS: &str = "AWS::SNS::*=CAPABILITY_IAM";

/// A bench with a world that knows more than the template shows. The options of the target are given.
fn knowing(options: &str) -> Bench {
    let bench = Bench::empty(PLACEMENTS);
    bench.cli(&["local", "faults", "--needs", NEEDS], 0);
    bench.write("topic.yaml", &topic("one"));
    sync(&bench, options);
    bench.push("a topic");
    bench
}

fn sync(bench: &Bench, options: &str) {
    bench.write(
        "isoform.yaml",
        &format!(
            "isoform: 1\nstacks:\n  topic: {{ template: topic.yaml, placement: beta{options} }}\n"
        ),
    );
}

#[test]
fn a_capability_that_nobody_foresaw_waits_for_a_person() {
    let mut bench = knowing("");
    bench.start();
    bench.becomes("stack/topic", "Pending(Approval)");
    let why = bench.cli(&["why", "stack/topic"], 3);
    assert!(
        why.contains("CloudFormation needs CAPABILITY_IAM")
            && why.contains("1 added, CAPABILITY_IAM"),
        "{why}"
    );
    bench.cli(&["approve", "stack/topic"], 0);
    bench.becomes("stack/topic", "InSync(Settled)");
    // Refused once, asked once, made once.
    assert_eq!(bench.calls("CreateChangeSet"), 2);
    assert_eq!(bench.calls("GetTemplateSummary"), 1);

    // The same again is not asked for again, and a preview says it too.
    bench.write("topic.yaml", &topic("two"));
    bench.push("two");
    bench.becomes("stack/topic", "Pending(Approval)");
    assert_eq!(bench.calls("GetTemplateSummary"), 2);
    let planned = bench.cli(&["plan"], 2);
    assert!(
        planned.contains("CloudFormation needs CAPABILITY_IAM"),
        "{planned}"
    );
    assert_eq!(bench.calls("GetTemplateSummary"), 2);
    // Whoever names it has seen it.
    sync(&bench, ", capabilities: [CAPABILITY_NAMED_IAM]");
    bench.write("topic.yaml", &topic("three"));
    bench.push("named");
    bench.becomes("stack/topic", "InSync(Settled)");
    bench.cli(&["audit", "verify"], 0);
}

#[test]
fn a_capability_that_the_options_do_not_allow_fails_and_says_what_to_write() {
    let mut bench = knowing(", capabilities: []");
    bench.start();
    bench.becomes("stack/topic", "Failed(ChangeSetFailed)");
    let why = bench.cli(&["why", "stack/topic"], 1);
    for words in [
        "CAPABILITY_IAM",
        "The following resource(s) require capabilities: [AWS::SNS::Topic]",
        "`capabilities` of stack/topic",
    ] {
        assert!(why.contains(words), "{words}: {why}");
    }
    assert_eq!(bench.calls("CreateChangeSet"), 1);

    sync(&bench, ", capabilities: [CAPABILITY_IAM]");
    bench.push("it may");
    bench.settle();
    bench.cli(&["retry", "stack/topic"], 0);
    bench.becomes("stack/topic", "InSync(Settled)");
}

#[test]
fn what_the_options_name_is_acknowledged_where_a_macro_rewrites_the_template() {
    let mut bench = knowing(", capabilities: [CAPABILITY_AUTO_EXPAND, CAPABILITY_IAM]");
    let text = format!("Transform: AWS::LanguageExtensions\n{}", topic("one"));
    bench.write("topic.yaml", &text);
    bench.push("with a transform");
    bench.start();
    bench.becomes("stack/topic", "InSync(Settled)");
    assert_eq!(bench.calls("CreateChangeSet"), 1);
    assert_eq!(bench.calls("GetTemplateSummary"), 0);
}

#[test]
fn a_crash_after_the_second_proposal_loses_nothing_of_the_review() {
    for point in ["propose.after-effect", "propose.after-record"] {
        let mut bench = knowing("");
        bench.environment = vec![("ISOFORM_CRASH".into(), point.into())];
        bench.spawn();
        assert!(
            bench.ended(std::time::Duration::from_secs(40)),
            "{point}: {}",
            bench.log()
        );
        bench.environment.clear();
        bench.start();
        bench.becomes("stack/topic", "Pending(Approval)");
        bench.cli(&["approve", "stack/topic"], 0);
        bench.becomes("stack/topic", "InSync(Settled)");
        assert_eq!(bench.calls("ExecuteChangeSet"), 1, "{point}");
        bench.stop();
    }
}

#[test]
fn an_execution_that_is_refused_for_want_of_capabilities_ends_and_leaves_nothing() {
    let mut bench = Bench::empty(&PLACEMENTS.replace("mode: auto", "mode: approve"));
    bench.write("topic.yaml", &topic("one"));
    sync(&bench, "");
    bench.push("a topic");
    bench.start();
    bench.becomes("stack/topic", "Pending(Approval)");
    bench.cli(&["local", "faults", "--needs", NEEDS], 0);
    bench.cli(&["approve", "stack/topic"], 0);
    bench.becomes("stack/topic", "Failed(ChangeSetFailed)");
    let why = bench.cli(&["why", "stack/topic"], 1);
    assert!(
        why.contains("Requires capabilities : [CAPABILITY_IAM]")
            && why.contains("under `capabilities` of stack/topic"),
        "{why}"
    );
    assert_eq!(bench.calls("DeleteChangeSet"), 1);

    bench.cli(&["retry", "stack/topic"], 0);
    bench.becomes("stack/topic", "Pending(Approval)");
    bench.cli(&["approve", "stack/topic"], 0);
    bench.becomes("stack/topic", "InSync(Settled)");
    bench.cli(&["audit", "verify"], 0);
}
