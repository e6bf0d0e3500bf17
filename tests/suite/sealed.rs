//! The sealed format against the client that AWS publishes.

use std::process::Command;

use crate::support::{Bench, python, text};
use isoform::domain::seal::{Limits, RawAesKey, open};

#[test]
fn the_vectors_open() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/sealed");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "esdk") {
            continue;
        }
        let description = std::fs::read_to_string(path.with_extension("txt")).unwrap();
        let field = |name: &str| {
            description
                .lines()
                .find_map(|l| l.strip_prefix(&format!("{name}=")))
                .unwrap_or_else(|| panic!("{name} in {description}"))
                .to_owned()
        };
        let hex = field("wrapping_key");
        let bytes: Vec<u8> = (0..64)
            .step_by(2)
            .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
            .collect();
        let key = RawAesKey::new(field("namespace"), field("name"), &bytes).unwrap();
        let message = std::fs::read(&path).unwrap();
        assert!(
            open(&message, &key, &Limits::default()).is_ok(),
            "{}",
            path.display()
        );
        count += 1;
    }
    assert!(count >= 4);
}

#[test]
fn a_bundle_of_the_store_opens_in_the_client_of_aws() {
    let Some(python) = python("a_bundle_of_the_store_opens_in_the_client_of_aws") else {
        return;
    };
    let mut bench = Bench::example();
    bench.push("Initial layout");
    bench.start();
    bench.settle();
    bench.stop();
    let script =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/open_sealed.py");
    let output = Command::new(&python)
        .arg(script)
        .arg(bench.root.join("cloud"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let said = text(&output);
    assert!(
        said.contains("schema/schema.yaml") && said.contains("isoform:bundle"),
        "{said}"
    );
}
