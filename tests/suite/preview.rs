//! `isoform preview`: the comment of a pull request, from a clone and a running daemon.

use crate::support::{Bench, PLACEMENTS};
use crate::world::topic;

const SYNC: &str =
    "isoform: 1\nstacks:\n  topic: { template: topic.yaml, placement: beta, stack_name: topic }\n";

fn bench() -> Bench {
    let mut bench = Bench::empty(PLACEMENTS);
    bench.write("topic.yaml", &topic("one"));
    bench.write("isoform.yaml", SYNC);
    bench.write("README.md", "one\n\n\n\n\nend\n");
    bench.push("a topic");
    bench.start();
    bench.becomes("stack/topic", "InSync(Settled)");
    bench
}

fn commit(bench: &Bench, message: &str) {
    bench.git(&["add", "-A"]);
    bench.git(&["commit", "-q", "-m", message]);
}

#[test]
fn a_comment_tells_of_the_merge_and_not_of_the_branch() {
    let bench = bench();
    bench.git(&["checkout", "-q", "-b", "feature"]);
    bench.write("topic.yaml", &topic("two"));
    commit(&bench, "two");
    // The base goes on meanwhile: what it deployed is not taken back by the branch, which does not have it.
    bench.git(&["checkout", "-q", "main"]);
    bench.write("other.yaml", &topic("other"));
    let other = "  other: { template: other.yaml, placement: beta, stack_name: other }\n";
    bench.write("isoform.yaml", &format!("{SYNC}{other}"));
    bench.push("another one");
    bench.becomes("stack/other", "InSync(Settled)");
    let objects = bench.git(&["count-objects", "-v"]);

    let text = bench.cli(
        &["preview", "feature", "--base", "main", "--marker", "7"],
        2,
    );

    assert!(
        text.starts_with("<!-- isoform-preview:v1:7 -->\n"),
        "{text}"
    );
    assert!(
        text.contains("1 target changes, 1 does not")
            && text.contains("`stack/topic`")
            && text.contains("\"one\" → \"two\""),
        "{text}"
    );
    assert!(!text.contains("stack/other"), "{text}");
    assert_eq!(
        bench.git(&["count-objects", "-v"]),
        objects,
        "nothing is written"
    );
    assert_eq!(bench.calls("ExecuteChangeSet"), 2);

    let file = bench.root.join("comment.md");
    bench.cli(&["preview", "feature", "--out", file.to_str().unwrap()], 2);
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains("into `origin/main`"), "{written}");
    // What is merged already does nothing.
    let nothing = bench.cli(&["preview", "main"], 0);
    assert!(nothing.contains("nothing changes"), "{nothing}");
}

#[test]
fn what_cannot_be_merged_is_said_with_its_files() {
    let bench = bench();
    bench.git(&["checkout", "-q", "-b", "feature"]);
    bench.write("topic.yaml", &topic("two"));
    commit(&bench, "two");
    bench.git(&["checkout", "-q", "main"]);
    bench.write("topic.yaml", &topic("three"));
    commit(&bench, "three");

    let text = bench.cli(&["preview", "feature", "--base", "main"], 1);

    assert!(
        text.contains("it cannot be merged") && text.contains("- `topic.yaml`"),
        "{text}"
    );
    let unknown = bench.cli(&["preview", "nowhere", "--base", "main"], 64);
    assert!(
        unknown.contains("`nowhere` is no commit of this clone"),
        "{unknown}"
    );
}

#[test]
fn faults_and_losses_stand_where_they_are_seen() {
    let bench = bench();
    bench.git(&["checkout", "-q", "-b", "feature"]);
    bench.write("topic.yaml", "Resources:\n  Topic: { Type: AWS::SNS::Topic, Properties: { DisplayName: !Ref Nobody } }\n");
    commit(&bench, "broken");

    let text = bench.cli(&["preview", "--base", "main"], 1);

    assert!(
        text.contains("❌") && text.contains("`topic.yaml:2`") && text.contains("Nobody"),
        "{text}"
    );
}
