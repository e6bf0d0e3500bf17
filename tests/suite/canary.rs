//! Secrets that are planted are found nowhere.

use std::path::Path;

use crate::support::{Bench, text};

const CANARY: &str = "cAnArY-5b1f0e7d";

fn scan(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            scan(&path, found);
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes.windows(CANARY.len()).any(|w| w == CANARY.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
}

#[test]
fn sec_51_a_secret_value_is_in_no_log_file_answer_or_store() {
    let mut bench = Bench::empty(
        "accounts: { a: { id: \"000000000001\" } }\nplacements:\n  beta: { account: a, regions: [us-east-1], mode: auto, blast_radius: 50 }\n",
    );
    bench.write("stack.yaml", "Parameters: { Secret: { Type: String, NoEcho: true } }\nResources:\n  Db:\n    Type: AWS::RDS::DBInstance\n    Properties: { Engine: postgres, MasterUsername: a, MasterUserPassword: !Ref Secret }\nOutputs: { Id: { Value: !Ref Db } }\n");
    bench.write("isoform.yaml", &format!("isoform: 1\nstacks:\n  db: {{ template: stack.yaml, placement: beta, parameters: {{ Secret: {CANARY}-1 }} }}\n"));
    bench.push("secret");
    bench.start();
    bench.settle();
    let mut said = Vec::new();
    bench.edit(
        "isoform.yaml",
        &format!("{CANARY}-1"),
        &format!("{CANARY}-2"),
    );
    for command in [
        vec!["diff"],
        vec!["diff", "--output", "json"],
        vec!["diff", "--text"],
    ] {
        said.push(text(&bench.run(&command)));
    }
    bench.push("another secret");
    bench.settle();
    bench.cli(&["local", "fail", "*", "Db"], 0);
    bench.edit(
        "isoform.yaml",
        &format!("{CANARY}-2"),
        &format!("{CANARY}-3"),
    );
    bench.push("a third one that fails");
    bench.settle();
    bench.edit(
        "stack.yaml",
        "NoEcho: true",
        "NoEcho: true, AllowedPattern: x",
    );
    bench.push("a value that does not fit");
    bench.settle();
    for command in [
        vec!["status"],
        vec!["status", "--output", "json"],
        vec!["why", "stack/db"],
        vec!["history", "stack/db", "--output", "json"],
        vec!["logs", "stack/db"],
        vec!["audit", "list"],
        vec!["audit", "export"],
        vec!["audit", "show", "stack/db", "--output", "json"],
        vec!["plan"],
    ] {
        said.push(text(&bench.run(&command)));
    }
    bench.stop();
    for answer in &said {
        assert!(!answer.contains(CANARY), "{answer}");
    }
    let mut found = Vec::new();
    scan(&bench.root.join("cloud"), &mut found);
    // The mirror holds the repository itself, and with it what was committed there: SECURITY.md says so.
    for part in std::fs::read_dir(bench.root.join("state"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| !p.ends_with("mirrors"))
    {
        if part.is_dir() {
            scan(&part, &mut found);
        } else if std::fs::read(&part)
            .unwrap_or_default()
            .windows(CANARY.len())
            .any(|w| w == CANARY.as_bytes())
        {
            found.push(part.display().to_string());
        }
    }
    assert!(found.is_empty(), "{found:?}");
    assert!(
        !bench.log().contains(CANARY),
        "the log of the daemon at level trace"
    );
}

#[test]
fn sec_51_a_reason_that_quotes_a_value_is_kept_without_it() {
    let mut bench = Bench::empty(
        "accounts: { a: { id: \"000000000001\" } }\nplacements:\n  beta: { account: a, regions: [us-east-1], mode: auto, blast_radius: 50 }\n",
    );
    bench.write("stack.yaml", "Parameters: { Secret: { Type: String, NoEcho: true } }\nResources:\n  Db:\n    Type: AWS::RDS::DBInstance\n    Properties: { Engine: postgres, MasterUsername: a, MasterUserPassword: !Ref Secret }\n");
    bench.write("isoform.yaml", &format!("isoform: 1\nstacks:\n  db: {{ template: stack.yaml, placement: beta, parameters: {{ Secret: {CANARY} }} }}\n"));
    let reason = format!("MasterUserPassword {CANARY} is refused");
    bench.cli(&["local", "fail", "*", "Db", "--reason", &reason], 0);
    bench.push("secret");
    bench.start();
    bench.settle();
    for command in [
        vec!["why", "stack/db"],
        vec!["history", "stack/db", "--output", "json"],
        vec!["audit", "export"],
    ] {
        let said = text(&bench.run(&command));
        assert!(
            said.contains("MasterUserPassword ‹value› is refused") && !said.contains(CANARY),
            "{said}"
        );
    }
    bench.stop();
    assert!(!bench.log().contains(CANARY));
}
