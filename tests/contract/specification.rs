//! The specification of the reference model against the tests that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One row of the document: behaviour, source, names of tests.
struct Row {
    behaviour: String,
    source: String,
    tests: Vec<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn document() -> String {
    std::fs::read_to_string(root().join("docs/reference-model.md")).unwrap()
}

fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split(" | ").map(str::trim).collect()
}

fn quoted(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn rows(text: &str) -> Vec<Row> {
    text.lines()
        .filter(|l| l.starts_with('|') && !l.starts_with("| ---") && !l.starts_with("| behaviour"))
        .map(cells)
        .filter(|c| c.len() == 3)
        .map(|c| Row {
            behaviour: c[0].to_owned(),
            source: c[1].to_owned(),
            tests: quoted(c[2]),
        })
        .collect()
}

/// Names of the functions in the files of a folder.
fn functions(folder: &Path, out: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            for line in std::fs::read_to_string(path).unwrap().lines() {
                if let Some((_, rest)) = line.split_once("fn ")
                    && let Some((name, _)) = rest.split_once('(')
                {
                    out.insert(name.to_owned());
                }
            }
        }
    }
}

/// Compares the cases with the document: every case is a row with its source.
pub fn covers(cases: &[(&str, &str, &str)]) {
    let text = document();
    let rows = rows(&text);
    for (room, case, source) in cases {
        let guessed = *source == "guess";
        let found = rows.iter().any(|r| {
            r.tests.iter().any(|t| t == case)
                && if guessed {
                    r.source == "*guess*"
                } else {
                    r.source == *source
                }
        });
        assert!(
            found,
            "docs/reference-model.md has no row for {room}::{case} with the source «{source}»"
        );
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let mut known = BTreeSet::new();
    for folder in [
        "tests/contract",
        "src/local",
        "src/domain/cfn",
        "src/domain/plan",
        "src/domain/policy",
    ] {
        functions(&root().join(folder), &mut known);
    }
    let text = document();

    for row in rows(&text) {
        assert!(!row.tests.is_empty(), "no test pins «{}»", row.behaviour);
        assert!(
            !row.source.is_empty(),
            "«{}» has no source and is not a guess",
            row.behaviour
        );
        for test in &row.tests {
            assert!(
                known.contains(test),
                "«{}» names `{test}`, which is not there",
                row.behaviour
            );
        }
    }
}

#[test]
fn the_number_of_guesses_is_right() {
    let text = document();
    let rows = rows(&text);
    let guesses = rows.iter().filter(|r| r.source == "*guess*").count();

    let line = format!("Guesses: {guesses} of {} rows.", rows.len());

    assert!(text.contains(&line), "the document should say «{line}»");
}

#[test]
fn the_graph_of_states_is_the_tested_one() {
    let text = document();
    let written: BTreeMap<String, Vec<String>> = text
        .lines()
        .filter(|l| l.starts_with("| `"))
        .map(cells)
        .filter(|c| c.len() == 2)
        .map(|c| (quoted(c[0]).remove(0), quoted(c[1])))
        .collect();

    let tested: BTreeMap<String, Vec<String>> = crate::transitions::EDGES
        .iter()
        .map(|(from, to)| {
            let to = to.iter().map(|t| (*t).to_owned()).collect();
            ((*from).to_owned(), to)
        })
        .collect();

    assert_eq!(written, tested);
}
