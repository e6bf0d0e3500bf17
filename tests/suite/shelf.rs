//! Templates from archives in an object store, as Proton's users have them: the same road as from a repository.

use std::path::Path;

use flate2::{Compression, GzBuilder};
use isoform::clock::Clock;
use isoform::domain::bundle;
use isoform::domain::template::{Blob, Files};
use isoform::local::{LocalObjects, World};
use isoform::port::{ObjectStore, Put, body};
use serde_json::Value;

use crate::support::{Bench, PLACEMENTS, all_in_sync};

/// An environment template with one topic, below a folder of an archive.
pub fn template(folder: &str, name: &str) -> Vec<u8> {
    let text = format!(
        "Resources:\n  T: {{Type: 'AWS::SNS::Topic', Properties: {{DisplayName: '{name} {{{{ environment.inputs.word }}}}'}}}}\n"
    );
    let files: Files = [
        ("schema/schema.yaml", "schema:\n  format: { openapi: '3.0.0' }\n  environment_input_type: In\n  types: { In: { type: object, properties: { word: { type: string, default: w } } } }\n"),
        ("infrastructure/manifest.yaml", "infrastructure:\n  templates:\n    - { file: c.yaml, rendering_engine: jinja, template_language: cloudformation }\n"),
        ("infrastructure/c.yaml", &text),
    ]
    .into_iter()
    .map(|(path, text)| (format!("{folder}{path}"), Blob::new(text.as_bytes())))
    .collect();
    bundle::pack(&files).unwrap()
}

/// An archive with a member that leads out of it.
fn hostile() -> Vec<u8> {
    let mut tar = tar::Builder::new(GzBuilder::new().write(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    let name = b"../../etc/cron.d/x";
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_size(1);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append(&header, &b"x"[..]).unwrap();
    tar.into_inner().unwrap().finish().unwrap()
}

fn put(root: &Path, key: &str, bytes: Vec<u8>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let world = World::open(&root.join("cloud"), Clock::system(), 0.3).await;
        let store = LocalObjects::new(world.unwrap(), "proton");
        let options = Put {
            if_absent: false,
            ..Put::default()
        };
        store.put(key, body(bytes), &options).await.unwrap();
    });
}

fn has(estate: &Value, code: &str, file: &str) -> bool {
    let findings = estate["findings"].as_array().unwrap();
    findings
        .iter()
        .any(|f| f["code"] == code && f["place"]["file"] == file)
}

/// The version that is deployed.
pub fn version(bench: &Bench) -> String {
    let estate = bench.estate();
    estate["targets"][0]["serving_template"].to_string()
}

#[test]
fn an_archive_registers_as_a_folder_of_a_repository_does() {
    let mut bench = Bench::empty(PLACEMENTS);
    let path = bench.root.join("config.yaml");
    let config = std::fs::read_to_string(&path).unwrap().replace(
        "sources:\n",
        "sources:\n  proton: { url: 'local://proton', may: { templates: [net, web] } }\n",
    );
    std::fs::write(&path, config).unwrap();
    put(
        &bench.root,
        "net/v1.tar.gz",
        template("some/prefix/", "one"),
    );
    bench.write("isoform.yaml", "isoform: 1\nenvironments:\n  beta: { template: net@1, spec: beta.yaml, placement: beta }\n");
    bench.write("beta.yaml", "proton: EnvironmentSpec\nspec: { word: a }\n");
    bench.push("an environment");
    bench.start();
    all_in_sync(&bench.settle(), 1);
    assert!(version(&bench).contains("net@1.0"), "{}", version(&bench));

    // Unmoved, a look lists and reads nothing.
    let (listed, read) = (bench.calls("ListObjects"), bench.calls("GetObject"));
    bench.until(|_| bench.calls("ListObjects") >= listed + 2);
    assert_eq!(bench.calls("GetObject"), read);

    put(&bench.root, "net/v1.tar.gz", template("", "two"));
    bench.until(|_| version(&bench).contains("net@1.1"));
    all_in_sync(&bench.settle(), 1);

    // What is wrong with one archive stops nothing else, and what is not allowed is not taken.
    put(&bench.root, "web/v1.tar.gz", hostile());
    put(&bench.root, "other/v1.tar.gz", template("", "three"));
    let estate = bench.until(|e| has(e, "shelf.archive", "web/v1.tar.gz"));
    assert!(has(&estate, "template.denied", "other/v1"), "{estate}");
    all_in_sync(&bench.settle(), 1);

    // Without its state the daemon has everything again, and changes nothing.
    bench.stop();
    std::fs::remove_dir_all(bench.root.join("state")).unwrap();
    let executed = bench.calls("ExecuteChangeSet");
    bench.start();
    all_in_sync(&bench.settle(), 1);
    assert_eq!(bench.calls("ExecuteChangeSet"), executed);
    bench.cli(&["audit", "verify"], 0);
}
