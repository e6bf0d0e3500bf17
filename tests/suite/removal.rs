//! What becomes of a stack that Git no longer asks for.

use crate::support::{Bench, PLACEMENTS};

/// Nothing in it holds state.
const HANDLE: &str = "Resources: { Handle: { Type: AWS::CloudFormation::WaitConditionHandle } }\n";

/// A bench with the stacks `base`, `mid` (after base) and `top` (after mid), deployed, under a rule for `beta`.
fn three(rule: &str) -> Bench {
    let placements = PLACEMENTS.replacen("mode: auto", &format!("mode: auto, prune: {rule}"), 1);
    let mut bench = Bench::empty(&placements);
    bench.write("handle.yaml", HANDLE);
    stacks(&bench, &["base", "mid", "top"]);
    bench.push("three stacks");
    bench.start();
    bench.settle();
    bench
}

/// Writes the sync file with some of the three.
fn stacks(bench: &Bench, names: &[&str]) {
    let mut text = String::from("isoform: 1\nstacks:\n");
    for name in ["base", "mid", "top"] {
        if names.contains(&name) {
            let after = match name {
                "mid" => ", after: [stack/base]",
                "top" => ", after: [stack/mid]",
                _ => "",
            };
            text.push_str(&format!(
                "  {name}: {{ template: handle.yaml, placement: beta{after} }}\n"
            ));
        }
    }
    text.push_str("  other: { template: handle.yaml, placement: tools }\n");
    bench.write("isoform.yaml", &text);
}

#[test]
fn without_a_rule_nothing_is_ever_deleted() {
    let bench = three("{}");
    stacks(&bench, &["base"]);
    let shown = bench.cli(&["diff"], 2);
    assert!(
        shown.contains("stack/top") && shown.contains("its stack stays"),
        "{shown}"
    );
    bench.push("two fewer");
    bench.settle();
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(bench.condition("stack/top"), "Orphaned(Removed)");
    assert_eq!(bench.calls("DeleteStack"), 0);
    // Asked for again, it is simply there.
    stacks(&bench, &["base", "mid", "top"]);
    bench.push("all three");
    bench.settle();
    assert_eq!(bench.condition("stack/top"), "InSync(Settled)");
    assert_eq!(bench.calls("ExecuteChangeSet"), 4);
}

#[test]
fn what_uses_goes_before_what_is_used_and_a_second_look_comes_first() {
    let bench = three("{ policy: auto, percent: 100 }");
    stacks(&bench, &[]);
    assert!(bench.cli(&["diff"], 2).contains("its stack may be deleted"));
    bench.push("none of the three");
    bench.settle();
    for name in ["stack/top", "stack/mid", "stack/base"] {
        bench.becomes(name, "absent");
    }
    assert_eq!(bench.calls("DeleteStack"), 3);
    let log = bench.cli(&["audit", "list"], 0);
    let began: Vec<&str> = log
        .lines()
        .filter(|l| l.contains("removal "))
        .map(|l| {
            ["-top-", "-mid-", "-base-"]
                .into_iter()
                .find(|n| l.contains(n))
                .unwrap()
        })
        .collect();
    assert_eq!(began, ["-top-", "-mid-", "-base-"], "{log}");
    let history = bench.cli(&["history", "stack/top"], 0);
    for said in ["removal ", "1 removed", "will delete", "settled: Removed"] {
        assert!(history.contains(said), "{said}: {history}");
    }
    bench.cli(&["audit", "verify"], 0);
    // It can come back: a new stack under the same name.
    stacks(&bench, &["base"]);
    bench.push("base again");
    bench.settle();
    assert_eq!(bench.condition("stack/base"), "InSync(Settled)");
}

/// Writes the sync file with `base` and `top`, perhaps one after the other.
fn two(bench: &Bench, after: &str) {
    bench.write(
        "isoform.yaml",
        &format!("isoform: 1\nstacks:\n  base: {{ template: handle.yaml, placement: beta }}\n  top: {{ template: handle.yaml, placement: beta{after} }}\n  other: {{ template: handle.yaml, placement: tools }}\n"),
    );
}

#[test]
fn the_order_of_removals_follows_what_after_says_last() {
    let bench = three("{ policy: auto, percent: 100 }");
    // It was after mid and is after base now: nothing is deployed for that, and the log says it all the same.
    two(&bench, ", after: [stack/base]");
    bench.push("top after base, and no mid");
    bench.settle();
    bench.becomes("stack/mid", "absent");
    assert_eq!(bench.calls("ExecuteChangeSet"), 4);
    // It has another name when it goes: what uses it still goes first.
    bench.edit("isoform.yaml", "  base: {", "  ground: {");
    bench.edit("isoform.yaml", "[stack/base]", "[stack/ground]");
    let whole = std::fs::read_to_string(bench.work().join("isoform.yaml")).unwrap();
    let moved = "moved: [ { from: stack/base, to: stack/ground } ]\n";
    bench.write("isoform.yaml", &format!("{whole}{moved}"));
    bench.push("base is called ground");
    bench.settle();
    bench.write(
        "isoform.yaml",
        &format!(
            "isoform: 1\nstacks:\n  other: {{ template: handle.yaml, placement: tools }}\n{moved}"
        ),
    );
    bench.push("neither of them");
    bench.settle();
    for name in ["stack/top", "stack/ground"] {
        bench.becomes(name, "absent");
    }
    let log = bench.cli(&["audit", "list"], 0);
    let began: Vec<&str> = log
        .lines()
        .filter(|l| l.contains("removal "))
        .filter_map(|l| {
            ["-mid-", "-top-", "-base-"]
                .into_iter()
                .find(|n| l.contains(n))
        })
        .collect();
    assert_eq!(began, ["-mid-", "-top-", "-base-"], "{log}");
    assert_eq!(bench.calls("ExecuteChangeSet"), 4);
}

#[test]
fn asking_means_that_a_person_lets_exactly_this_stack_go() {
    let bench = three("{ policy: ask, percent: 100 }");
    stacks(&bench, &["base", "mid"]);
    bench.push("without top");
    bench.settle();
    bench.becomes("stack/top", "Orphaned(Approval)");
    let why = bench.cli(&["why", "stack/top"], 3);
    assert!(
        why.contains("Handle") && why.contains("is deleted"),
        "{why}"
    );
    assert!(
        bench
            .cli(&["status"], 3)
            .contains("isoform approve stack/top")
    );
    // Asked for again before anybody approved: nothing happens to it.
    stacks(&bench, &["base", "mid", "top"]);
    bench.push("top stays");
    bench.settle();
    assert_eq!(bench.condition("stack/top"), "InSync(Settled)");
    stacks(&bench, &["base", "mid"]);
    bench.push("without top");
    bench.settle();
    bench.becomes("stack/top", "Orphaned(Approval)");
    assert_eq!(bench.calls("DeleteStack"), 0);
    bench.cli(&["approve", "stack/top"], 0);
    bench.becomes("stack/top", "absent");
    assert_eq!(bench.calls("DeleteStack"), 1);
}

#[test]
fn state_is_never_deleted_without_an_approval_that_names_it() {
    let placements = PLACEMENTS.replacen(
        "mode: auto",
        "mode: auto, prune: { policy: auto, percent: 100 }",
        1,
    );
    let mut bench = Bench::empty(&placements);
    bench.write(
        "data.yaml",
        "Resources:\n  Table: { Type: AWS::DynamoDB::Table, Properties: { KeySchema: [ { AttributeName: id, KeyType: HASH } ], AttributeDefinitions: [ { AttributeName: id, AttributeType: S } ], BillingMode: PAY_PER_REQUEST } }\n",
    );
    bench.write(
        "isoform.yaml",
        "isoform: 1\nstacks: { data: { template: data.yaml, placement: beta } }\n",
    );
    bench.push("a table");
    bench.start();
    bench.settle();
    bench.write("isoform.yaml", "isoform: 1\n");
    bench.push("no table");
    bench.settle();
    bench.becomes("stack/data", "Orphaned(Approval)");
    assert!(
        bench
            .cli(&["why", "stack/data"], 3)
            .contains("deletes Table")
    );
    assert_eq!(bench.calls("DeleteStack"), 0);
    bench.cli(&["reject", "stack/data", "--reason", "it holds data"], 0);
    bench.becomes("stack/data", "Orphaned(Rejected)");
    assert_eq!(bench.calls("DeleteStack"), 0);
}

#[test]
fn the_budget_the_target_s_own_word_and_protection_hold() {
    let placements = PLACEMENTS.replacen(
        "mode: auto",
        "mode: auto, prune: { policy: auto, targets: 1, percent: 100 }",
        1,
    );
    let mut bench = Bench::empty(&placements);
    bench.write("handle.yaml", HANDLE);
    let base = "isoform: 1\nstacks:\n  other: { template: handle.yaml, placement: tools }\n";
    bench.write(
        "isoform.yaml",
        &format!("{base}  a: {{ template: handle.yaml, placement: beta }}\n  b: {{ template: handle.yaml, placement: beta }}\n  kept: {{ template: handle.yaml, placement: beta, prune: never }}\n  locked: {{ template: handle.yaml, placement: beta, termination_protection: true }}\n"),
    );
    bench.push("four");
    bench.start();
    bench.settle();
    bench.write("isoform.yaml", base);
    bench.push("none");
    bench.settle();
    for (name, condition) in [
        ("stack/a", "Orphaned(PruneBudget)"),
        ("stack/b", "Orphaned(PruneBudget)"),
        ("stack/kept", "Orphaned(Retained)"),
        ("stack/locked", "Orphaned(Protected)"),
    ] {
        bench.becomes(name, condition);
    }
    assert_eq!(bench.calls("DeleteStack"), 0);
    bench.cli(&["approve", "stack/a"], 0);
    bench.becomes("stack/a", "absent");
    // One went within the day: the budget is used up for the next.
    bench.becomes("stack/b", "Orphaned(PruneBudget)");
    assert_eq!(bench.calls("DeleteStack"), 1);
}

#[test]
fn unknown_never_deletes() {
    let bench = three("{ policy: auto, percent: 100 }");
    // A sync file that cannot be read says nothing about what it no longer names.
    bench.write(
        "isoform.yaml",
        "isoform: 1\nstacks:\n  base: { template: [\n",
    );
    bench.push("broken");
    bench.settle();
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(bench.calls("DeleteStack"), 0);
    // The source goes away when everything else speaks for it, and only the file FREEZE holds it.
    std::fs::write(bench.root.join("state/FREEZE"), "").unwrap();
    stacks(&bench, &[]);
    bench.push("none");
    bench.becomes("stack/top", "Held(Frozen)");
    std::fs::rename(bench.root.join("origin.git"), bench.root.join("away.git")).unwrap();
    bench.becomes("stack/top", "Unknown(Invalid)");
    std::fs::remove_file(bench.root.join("state/FREEZE")).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(bench.calls("DeleteStack"), 0);
    std::fs::rename(bench.root.join("away.git"), bench.root.join("origin.git")).unwrap();
    bench.becomes("stack/top", "absent");
}

#[test]
fn what_is_left_out_is_not_taken_for_gone() {
    let bench = three("{ policy: auto, percent: 100 }");
    let whole = std::fs::read_to_string(bench.work().join("isoform.yaml")).unwrap();
    let (head, top) = whole.split_once("  top:").unwrap();
    let other = top.split_once('\n').unwrap().1;
    let fragment = "isoform: 1\nstacks:\n  top: { template: handle.yaml, placement: beta, after: [stack/mid] }\n";
    bench.write("parts/top.yaml", fragment);
    bench.write("parts/handle.yaml", HANDLE);
    let main = format!("{head}{other}include: [ \"parts/top*.yaml\" ]\n");
    bench.write("isoform.yaml", &main);
    bench.push("top in a fragment");
    bench.settle();
    assert_eq!(bench.condition("stack/top"), "InSync(Settled)");
    let refused = |bench: &Bench, name: &str, says: &str| {
        bench.becomes(name, "Unknown(Invalid)");
        std::thread::sleep(std::time::Duration::from_secs(4));
        assert_eq!(bench.calls("DeleteStack"), 0);
        let why = bench.cli(&["why", name], 1);
        assert!(why.contains(says), "{why}");
    };
    // The fragment becomes a symlink, and is too large; its folder becomes a symlink.
    let path = bench.work().join("parts/top.yaml");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("../handle.yaml", &path).unwrap();
    bench.push("a symlink");
    refused(&bench, "stack/top", "parts/top.yaml");
    std::fs::remove_file(&path).unwrap();
    bench.write("parts/top.yaml", &"#".repeat(17 << 20));
    bench.push("too large");
    refused(&bench, "stack/top", "parts/top.yaml");
    std::fs::remove_dir_all(bench.work().join("parts")).unwrap();
    std::os::unix::fs::symlink(".", bench.work().join("parts")).unwrap();
    bench.push("the folder");
    refused(&bench, "stack/top", "parts");
    // The sync file itself goes: that deploys nothing any more, and removes nothing.
    std::fs::remove_file(bench.work().join("isoform.yaml")).unwrap();
    bench.push("no sync file");
    refused(&bench, "stack/base", "isoform.yaml");
}

#[test]
fn a_moved_target_keeps_its_stack() {
    let bench = three("{ policy: auto, percent: 100 }");
    bench.write(
        "isoform.yaml",
        "isoform: 1\nstacks:\n  base: { template: handle.yaml, placement: beta }\n  renamed: { template: handle.yaml, placement: beta, after: [stack/base] }\n  top: { template: handle.yaml, placement: beta, after: [stack/renamed] }\n  other: { template: handle.yaml, placement: tools }\nmoved: [ { from: stack/mid, to: stack/renamed } ]\n",
    );
    bench.push("mid has another name");
    bench.settle();
    assert_eq!(bench.condition("stack/renamed"), "InSync(Settled)");
    assert_eq!(bench.condition("stack/mid"), "absent");
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(
        (bench.calls("DeleteStack"), bench.calls("ExecuteChangeSet")),
        (0, 4)
    );
    assert!(
        bench
            .cli(&["history", "stack/renamed"], 0)
            .contains("moved to stack/renamed")
    );
}

/// Returns the names of the stacks of `beta` by the address that has them now.
fn names(bench: &Bench) -> Vec<(String, String)> {
    let estate = bench.estate();
    let targets = estate["targets"].as_array().unwrap().iter();
    targets
        .filter(|t| t["placement"] == "beta")
        .map(|t| {
            let text = |name: &str| t[name].as_str().unwrap_or_default().to_owned();
            (text("address"), text("stack_name"))
        })
        .collect()
}

#[test]
fn a_chain_of_moves_and_a_swap_keep_every_stack() {
    let bench = three("{ policy: auto, percent: 100 }");
    let before = names(&bench);
    let was = |address: &str| before.iter().find(|(a, _)| a == address).unwrap().1.clone();
    let sync = |stacks: &[(&str, &str)], moved: &str| {
        let mut text = String::from("isoform: 1\nstacks:\n");
        for (name, template) in stacks {
            text.push_str(&format!(
                "  {name}: {{ template: {template}, placement: beta }}\n"
            ));
        }
        text.push_str("  other: { template: handle.yaml, placement: tools }\n");
        bench.write("isoform.yaml", &format!("{text}moved: [ {moved} ]\n"));
    };
    bench.write("two.yaml", &HANDLE.replace("Handle:", "Second:"));
    let chain = "{ from: stack/mid, to: stack/roof }, { from: stack/base, to: stack/mid }";
    let plain = [
        ("mid", "handle.yaml"),
        ("roof", "handle.yaml"),
        ("top", "handle.yaml"),
    ];
    sync(&plain, chain);
    let shown = bench.cli(&["diff"], 2);
    assert!(!shown.contains("orphaned"), "{shown}");
    assert!(
        shown.contains("stack/base moves to stack/mid: it keeps its stack"),
        "{shown}"
    );
    bench.push("a chain");
    bench.settle();
    let chained = vec![
        ("stack/mid".to_owned(), was("stack/base")),
        ("stack/roof".to_owned(), was("stack/mid")),
        ("stack/top".to_owned(), was("stack/top")),
    ];
    assert_eq!(names(&bench), chained);
    // What was followed is not followed again: not with the next commit, and not after a restart.
    sync(
        &[
            ("mid", "handle.yaml"),
            ("roof", "two.yaml"),
            ("top", "handle.yaml"),
        ],
        chain,
    );
    bench.push("roof has another template");
    bench.settle();
    assert_eq!(names(&bench), chained);
    assert_eq!(bench.calls("ExecuteChangeSet"), 5);

    // The templates go with their stacks: nothing is to be changed.
    let swap = "{ from: stack/mid, to: stack/roof }, { from: stack/roof, to: stack/mid }";
    let swapped = [
        ("mid", "two.yaml"),
        ("roof", "handle.yaml"),
        ("top", "handle.yaml"),
    ];
    sync(&swapped, swap);
    let shown = bench.cli(&["diff"], 2);
    assert!(!shown.contains("orphaned"), "{shown}");
    bench.push("a swap");
    bench.settle();
    let turned = vec![
        ("stack/mid".to_owned(), was("stack/mid")),
        ("stack/roof".to_owned(), was("stack/base")),
        ("stack/top".to_owned(), was("stack/top")),
    ];
    assert_eq!(names(&bench), turned);
    bench.write("unrelated.txt", "x");
    bench.push("something else");
    bench.settle();
    let mut bench = bench;
    bench.stop();
    bench.start();
    bench.settle();
    assert_eq!(names(&bench), turned);
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(
        (bench.calls("DeleteStack"), bench.calls("ExecuteChangeSet")),
        (0, 5)
    );
}

#[test]
fn a_move_that_cannot_be_followed_stops_what_it_names_and_nothing_else() {
    let bench = three("{ policy: auto, percent: 100 }");
    let before = names(&bench);
    bench.write("two.yaml", &HANDLE.replace("Handle:", "Second:"));
    bench.write(
        "isoform.yaml",
        "isoform: 1\nstacks:\n  top: { template: two.yaml, placement: beta }\n  new: { template: handle.yaml, placement: beta }\n  other: { template: handle.yaml, placement: tools }\nmoved: [ { from: stack/mid, to: stack/new }, { from: stack/base, to: stack/new } ]\n",
    );
    let shown = bench.cli(&["diff"], 1);
    assert!(shown.contains("two targets cannot become one"), "{shown}");
    assert!(!shown.contains("orphaned"), "{shown}");
    bench.push("two into one");
    bench.settle();
    bench.becomes("stack/mid", "Unknown(Invalid)");
    bench.becomes("stack/base", "Unknown(Invalid)");
    assert_eq!(bench.condition("stack/top"), "InSync(Settled)");
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(bench.calls("DeleteStack"), 0);
    assert_eq!(names(&bench), before);
    // With one of the two it is followed, and the other is what nobody asks for.
    bench.edit("isoform.yaml", ", { from: stack/base, to: stack/new }", "");
    bench.push("one into one");
    bench.settle();
    bench.becomes("stack/base", "absent");
    assert_eq!(bench.condition("stack/new"), "InSync(Settled)");
    assert_eq!(bench.calls("DeleteStack"), 1);
}

#[test]
fn a_diff_calls_orphaned_who_loses_an_address_to_another() {
    let bench = three("{ policy: auto, percent: 100 }");
    let whole = std::fs::read_to_string(bench.work().join("isoform.yaml")).unwrap();
    let (head, rest) = whole.split_once("  top:").unwrap();
    let other = rest.split_once('\n').unwrap().1;
    // top goes, and nothing says so: mid has its place.
    let moved =
        "moved: [ { from: stack/mid, to: stack/roof }, { from: stack/base, to: stack/mid } ]\n";
    let head = head
        .replace("  base:", "  roof:")
        .replace("stack/base", "stack/roof");
    bench.write("isoform.yaml", &format!("{head}{other}{moved}"));
    let shown = bench.cli(&["diff"], 2);
    assert!(
        shown.contains("stack/top") && shown.matches("orphaned").count() == 1,
        "{shown}"
    );
}

#[test]
fn a_removal_that_failed_is_stuck_and_not_tried_again_by_itself() {
    let bench = three("{ policy: auto, percent: 100 }");
    let fail = ["local", "fail", "isoform-stack-top-*", "Handle"];
    bench.cli(
        &[&fail[..], &["--on", "delete", "--times", "1"]].concat(),
        0,
    );
    stacks(&bench, &["base", "mid"]);
    bench.push("without top");
    bench.settle();
    bench.becomes("stack/top", "Stuck(StackStuck)");
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(bench.calls("DeleteStack"), 1);
    assert!(
        bench
            .cli(&["logs", "stack/top"], 0)
            .contains("DELETE_FAILED")
    );
    // Asked for again, it is not taken for what it was.
    stacks(&bench, &["base", "mid", "top"]);
    bench.push("top again");
    bench.settle();
    bench.becomes("stack/top", "Stuck(StackStuck)");
    stacks(&bench, &["base", "mid"]);
    bench.push("without top");
    bench.settle();
    bench.cli(&["retry", "stack/top"], 0);
    bench.becomes("stack/top", "absent");
    let deployment = bench.cli(&["history", "stack/top"], 0);
    let id = deployment.split("removal ").nth(1).unwrap();
    bench.cli(&["audit", "prove", &id[..36]], 0);
}

#[test]
fn a_diff_does_not_call_orphaned_what_cannot_be_read_or_has_moved() {
    let bench = three("{ policy: auto, percent: 100 }");
    let whole = std::fs::read_to_string(bench.work().join("isoform.yaml")).unwrap();
    bench.write("isoform.yaml", &whole.replace("top: {", "top: { oops: 1,"));
    assert!(!bench.cli(&["diff"], 1).contains("orphaned"));
    let moved =
        whole.replace("  top: {", "  roof: {") + "moved: [ { from: stack/top, to: stack/roof } ]\n";
    bench.write("isoform.yaml", &moved);
    let shown = bench.cli(&["diff"], 2);
    assert!(!shown.contains("orphaned"), "{shown}");
    assert!(
        shown.contains("stack/top moves to stack/roof: it keeps its stack"),
        "{shown}"
    );
}
