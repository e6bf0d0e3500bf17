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

/// Pushes refs through the hook; returns what the push said.
fn pushed(bench: &Bench, refs: &[&str]) -> String {
    bench.git(&[&["push", "-q", "origin"], refs].concat())
}

fn hooked() -> Bench {
    let bench = bench();
    bench.cli(&["hook", "install", "../origin.git"], 0);
    bench
}

#[test]
fn a_branch_that_is_pushed_shows_what_merging_it_would_do() {
    let bench = hooked();
    bench.git(&["checkout", "-q", "-b", "feature"]);
    bench.write("topic.yaml", &topic("two"));
    commit(&bench, "two");
    let before = (
        bench.calls("CreateChangeSet"),
        bench.calls("ExecuteChangeSet"),
    );

    let said = pushed(&bench, &["feature"]);

    assert!(
        said.contains("isoform: merging feature into main · 1 target changes, 0 do not")
            && said.contains("stack/topic   in place")
            && said.contains("\"one\" → \"two\"")
            && said.contains("isoform preview feature"),
        "{said}"
    );
    assert!(!said.contains('\u{1b}'), "{said:?}");
    assert_eq!(bench.estate()["snapshot"], 1, "nothing is accepted");
    let after = (
        bench.calls("CreateChangeSet"),
        bench.calls("ExecuteChangeSet"),
    );
    assert_eq!(after, before, "no engine is asked");

    // Faults stand there with their places, and the push is a push.
    bench.write("topic.yaml", "Resources:\n  Topic: { Type: AWS::SNS::Topic, Properties: { DisplayName: !Ref Nobody } }\n");
    commit(&bench, "broken");
    let said = pushed(&bench, &["feature"]);
    assert!(
        said.contains("topic.yaml:2") && said.contains("1 error"),
        "{said}"
    );
    let there = bench.git(&["ls-remote", "origin", "refs/heads/feature"]);
    assert!(there.starts_with(&bench.head()), "{there}");

    // Together with the branch that is followed: that one is deployed, this one shown.
    bench.git(&["checkout", "-q", "main"]);
    bench.write("topic.yaml", &topic("three"));
    commit(&bench, "three");
    let said = pushed(&bench, &["main", "main:copy"]);
    assert!(
        said.contains("accepted")
            && said.contains("✓ updated")
            && said.contains("copy is part of main"),
        "{said}"
    );
    let said = pushed(&bench, &["+feature:feature", "feature:again"]);
    assert!(
        said.contains("again cannot be merged into main: it conflicts in")
            && said.contains("  topic.yaml"),
        "{said}"
    );
}

#[test]
fn refs_that_say_nothing_of_a_merge_get_a_word() {
    let bench = hooked();
    bench.git(&["tag", "v1"]);
    let said = pushed(&bench, &["v1"]);
    assert!(said.contains("v1 is a tag: it moves nothing"), "{said}");

    bench.git(&["checkout", "-q", "--orphan", "other"]);
    commit(&bench, "a beginning");
    let said = pushed(&bench, &["other"]);
    assert!(
        said.contains("other has no commit in common with main"),
        "{said}"
    );
    let alone = bench.cli(&["preview", "other", "--base", "main"], 64);
    assert!(alone.contains("no commit in common"), "{alone}");

    let said = pushed(&bench, &[":other"]);
    assert!(
        said.contains("other is deleted; no source follows it"),
        "{said}"
    );

    let many: Vec<String> = (0..6).map(|n| format!("main:b{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let said = pushed(&bench, &many);
    assert!(
        said.contains("6 branches at once are not previewed"),
        "{said}"
    );
}

#[test]
fn a_push_of_a_branch_succeeds_without_a_daemon() {
    let mut bench = hooked();
    bench.stop();
    bench.git(&["checkout", "-q", "-b", "feature"]);
    bench.write("topic.yaml", &topic("two"));
    commit(&bench, "two");

    let said = pushed(&bench, &["feature"]);

    assert!(said.contains("no isoform daemon answers"), "{said}");
    let there = bench.git(&["ls-remote", "origin", "refs/heads/feature"]);
    assert!(there.starts_with(&bench.head()), "{there}");
}

#[test]
fn a_commit_is_compared_with_what_is_deployed() {
    let bench = bench();
    bench.git(&["checkout", "-q", "-b", "feature"]);
    bench.write("topic.yaml", &topic("two"));
    commit(&bench, "two");
    bench.write("topic.yaml", &topic("not committed"));

    let text = bench.cli(&["diff", "--against", "deployed", "feature"], 2);

    assert!(
        text.contains(&format!(
            "{} against what is deployed · 1 target changes",
            &bench.head()[..7]
        )) && text.contains("\"one\" → \"two\"")
            && !text.contains("not committed"),
        "{text}"
    );
    bench.cli(&["diff", "--against", "deployed", "main"], 0);
    let json = bench.run(&["diff", "--against", "deployed", "HEAD", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["targets"][0]["address"], "stack/topic");
    for (arguments, word) in [
        (
            ["--against", "deployed", "HEAD~1..HEAD"],
            "takes one commit",
        ),
        (
            ["--against", "deployed", "nowhere"],
            "is no commit of this clone",
        ),
        (
            ["--against", "applied", "HEAD"],
            "possible values: deployed",
        ),
        (["--source", "other", "HEAD"], "--against deployed"),
    ] {
        let said = bench.cli(&[&["diff"], &arguments[..]].concat(), 64);
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
    // A repository without a work tree has commits too.
    let bare = [
        "diff",
        "--folder",
        "../origin.git",
        "--against",
        "deployed",
        "main",
    ];
    bench.cli(&bare, 0);
}
