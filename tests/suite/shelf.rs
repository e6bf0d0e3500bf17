//! Templates from archives in an object store, as Proton's users have them: the same road as from a repository.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use flate2::{Compression, GzBuilder};
use isoform::clock::Clock;
use isoform::config::Config;
use isoform::daemon;
use isoform::domain::bundle;
use isoform::domain::estate::Placement;
use isoform::domain::model::{Actor, Region, SourceName, Timestamp};
use isoform::domain::template::{Blob, Files};
use isoform::local::{LocalObjects, World};
use isoform::port::{
    Body, Error, KeyService, ObjectMeta, ObjectStore, Page, Ports, Put, StackEngine, body,
};
use isoform::testing::stub::Stub;
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

/// Archives that can be told to say nothing.
#[derive(Default)]
struct Slow {
    archives: BTreeMap<String, Vec<u8>>,
    /// No listing is answered.
    mute: AtomicBool,
    /// This archive is not given out.
    broken: Mutex<Option<&'static str>>,
    read: Mutex<Vec<String>>,
}

impl Slow {
    fn meta(&self, key: &str) -> ObjectMeta {
        ObjectMeta {
            key: key.to_owned(),
            version: None,
            etag: key.to_owned(),
            size: self.archives[key].len() as u64,
            sha256: None,
            encryption: None,
            metadata: BTreeMap::new(),
        }
    }
}

#[async_trait]
impl ObjectStore for Slow {
    async fn put(&self, _: &str, _: Body, _: &Put) -> Result<ObjectMeta, Error> {
        Err(Error::Unsupported("put"))
    }

    async fn get(&self, key: &str, _: Option<&str>) -> Result<(ObjectMeta, Body), Error> {
        self.read.lock().unwrap().push(key.to_owned());
        if *self.broken.lock().unwrap() == Some(key) {
            return Err(Error::KeyUnavailable("kms:Decrypt on a key".into()));
        }
        Ok((self.meta(key), body(self.archives[key].clone())))
    }

    async fn head(&self, _: &str) -> Result<Option<ObjectMeta>, Error> {
        Err(Error::Unsupported("head"))
    }

    async fn list(&self, _: &str, _: Option<&str>) -> Result<Page<ObjectMeta>, Error> {
        if self.mute.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        Ok(Page {
            items: self.archives.keys().map(|k| self.meta(k)).collect(),
            next: None,
        })
    }

    async fn delete(&self, _: &str) -> Result<(), Error> {
        Err(Error::Unsupported("delete"))
    }

    fn url(&self, key: &str, _: Option<&str>) -> String {
        key.to_owned()
    }
}

struct WithArchives(Stub, Arc<Slow>);

impl Ports for WithArchives {
    fn engine(&self, p: &Placement, r: &Region) -> Result<Arc<dyn StackEngine>, Error> {
        self.0.engine(p, r)
    }

    fn store(&self, p: &Placement, r: &Region) -> Result<Arc<dyn ObjectStore>, Error> {
        self.0.store(p, r)
    }

    fn home(&self) -> Arc<dyn ObjectStore> {
        self.0.home()
    }

    fn sealing(&self) -> Option<Arc<dyn KeyService>> {
        None
    }

    fn shelf(&self, _: &SourceName) -> Option<Arc<dyn ObjectStore>> {
        Some(self.1.clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_does_not_answer_stops_no_other_source() {
    let bench = Bench::empty(PLACEMENTS);
    let path = bench.root.join("config.yaml");
    let config = std::fs::read_to_string(&path)
        .unwrap()
        .replace(
            "sources:\n",
            "sources:\n  proton: { url: 'local://proton', may: { templates: ['*'] } }\n",
        )
        .replace(
            "'local://bundles' }",
            "'local://bundles', encryption: sse-s3 }",
        );
    std::fs::write(&path, config).unwrap();
    bench.write("isoform.yaml", "isoform: 1\nstacks: {}\n");
    bench.push("nothing yet");
    let slow = Arc::new(Slow {
        archives: ["a", "b", "c"]
            .map(|name| (format!("{name}/v1.tar.gz"), template("", name)))
            .into(),
        mute: AtomicBool::new(true),
        ..Slow::default()
    });
    let clock = Clock::standing(Timestamp(1_800_000_000_000));
    let ports = Arc::new(WithArchives(Stub::default(), slow.clone()));
    let config = Config::load(&path).unwrap();
    let built = daemon::build_on(config, clock.clone(), Some(ports)).await;
    let line = built.unwrap().line;
    let look = async || {
        let (looks, actor) = (line.clone(), Actor::daemon("test"));
        let looking = tokio::spawn(async move { looks.look("poll", &actor).await });
        while !looking.is_finished() {
            if slow.mute.load(Ordering::Relaxed) {
                clock.advance(Duration::from_secs(1));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (snapshot, _) = looking.await.unwrap().unwrap();
        let heads = snapshot.unwrap().revisions.clone();
        let names: Vec<String> = heads.keys().map(ToString::to_string).collect();
        let refused = line.estate().await.unwrap().refused;
        (names, refused.into_values().next().unwrap_or_default())
    };

    let (heads, refused) = look().await;
    assert_eq!(
        heads,
        ["example"],
        "the repository is looked at all the same"
    );
    assert!(refused.starts_with("shelf.unreachable"), "{refused}");

    // What was read is not read again when one of them cannot be.
    slow.mute.store(false, Ordering::Relaxed);
    *slow.broken.lock().unwrap() = Some("c/v1.tar.gz");
    let (heads, refused) = look().await;
    assert_eq!(heads, ["example"]);
    assert_eq!(refused, "Held(KeyUnavailable): kms:Decrypt on a key");
    *slow.broken.lock().unwrap() = None;
    let (heads, refused) = look().await;
    assert_eq!((heads.len(), refused.as_str()), (2, ""));
    assert_eq!(
        *slow.read.lock().unwrap(),
        ["a/v1.tar.gz", "b/v1.tar.gz", "c/v1.tar.gz", "c/v1.tar.gz"]
    );
}
