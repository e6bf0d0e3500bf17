//! The second signature of checkpoints: it holds nothing up, and an auditor needs nothing but the log and a public key.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use isoform::clock::Clock;
use isoform::config::Config;
use isoform::daemon;
use isoform::domain::audit::{Body, Countersignature, Stream};
use isoform::domain::estate::Placement;
use isoform::domain::model::{Actor, Region, Timestamp};
use isoform::domain::seal::{DataKey, EncryptedDataKey, EncryptionContext};
use isoform::local::{LocalKeys, World};
use isoform::port::{Error, KeyService, ObjectStore, Ports, StackEngine};
use isoform::store::Draft;
use isoform::testing::stub::Stub;

use crate::support::{Bench, PLACEMENTS, python, text};

/// A key that can be denied, and that can sign something else than what it is asked to.
struct Signer {
    keys: LocalKeys,
    denied: AtomicBool,
    lies: AtomicBool,
    tried: AtomicU64,
    asked: AtomicU64,
}

#[async_trait]
impl KeyService for Signer {
    async fn data_key(&self, _: &EncryptionContext) -> Result<(DataKey, EncryptedDataKey), Error> {
        Err(Error::Unsupported("data_key"))
    }

    async fn unwrap(
        &self,
        _: &[EncryptedDataKey],
        _: &EncryptionContext,
    ) -> Result<DataKey, Error> {
        Err(Error::Unsupported("unwrap"))
    }

    async fn rewrap(
        &self,
        _: &EncryptedDataKey,
        _: &EncryptionContext,
    ) -> Result<EncryptedDataKey, Error> {
        Err(Error::Unsupported("rewrap"))
    }

    async fn describe(&self) -> Result<String, Error> {
        self.keys.describe().await
    }

    async fn public_key(&self) -> Result<Vec<u8>, Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.keys.public_key().await
    }

    async fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        self.tried.fetch_add(1, Ordering::Relaxed);
        if self.denied.load(Ordering::Relaxed) {
            return Err(Error::KeyUnavailable("the key k is Disabled".into()));
        }
        if self.lies.load(Ordering::Relaxed) {
            return self.keys.sign(b"something else").await;
        }
        self.keys.sign(bytes).await
    }
}

struct Signed(Stub, Arc<Signer>);

impl Ports for Signed {
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

    fn signing(&self) -> Option<(String, Arc<dyn KeyService>)> {
        Some(("k".into(), self.1.clone()))
    }
}

#[tokio::test]
async fn a_key_that_cannot_sign_holds_nothing_up_and_signs_the_newest_checkpoint_later() {
    let bench = Bench::empty(PLACEMENTS);
    let clock = Clock::standing(Timestamp(1_800_000_000_000));
    let folder = tempfile::tempdir().unwrap();
    let world = World::open(folder.path(), clock.clone(), 1.0)
        .await
        .unwrap();
    let signer = Arc::new(Signer {
        keys: LocalKeys::open(&world, "signs").unwrap(),
        denied: AtomicBool::new(true),
        lies: AtomicBool::default(),
        tried: AtomicU64::default(),
        asked: AtomicU64::default(),
    });
    let ports = Arc::new(Signed(Stub::default(), signer.clone()));
    let path = bench.root.join("config.yaml");
    let written = std::fs::read_to_string(&path).unwrap();
    let unsealed = written.replace(
        "'local://bundles' }",
        "'local://bundles', encryption: sse-s3 }",
    );
    std::fs::write(&path, unsealed).unwrap();
    let config = Config::load(&path).unwrap();
    let built = daemon::build_on(config, clock.clone(), Some(ports.clone())).await;
    let line = built.unwrap().line;
    // One more entry, and a checkpoint over it: each with its number, and whether it is countersigned.
    let next = async || {
        let draft = Draft {
            stream: Stream::Daemon,
            stream_seq: None,
            at: clock.now(),
            actor: Actor::daemon("test"),
            body: Body::Stopped,
            payloads: Vec::new(),
        };
        line.store.append(draft).await.unwrap();
        line.checkpoint(1).await.unwrap();
        line.countersign().await;
    };
    let stand = async || {
        let all = line.store.checkpoints().await.unwrap();
        let stand: Vec<(u64, bool)> = all
            .iter()
            .map(|c| (c.seq, c.countersigned.is_some()))
            .collect();
        let report = line.estate().await.unwrap().countersigned.unwrap();
        (stand, report.to, report.failed)
    };
    let ring = || signer.tried.swap(0, Ordering::Relaxed);

    next().await;
    let (first, to, failed) = stand().await;
    let [(one, false)] = first[..] else {
        panic!("{first:?}")
    };
    assert_eq!((to, ring()), (0, 1));
    assert!(failed.unwrap().contains("key unavailable: the key k"));
    let (_, shipped) = line.store.head();
    assert_eq!(shipped, one, "the log goes on");
    // It is left alone for a minute, and the log goes on.
    next().await;
    assert_eq!(ring(), 0);
    clock.advance(Duration::from_secs(61));
    line.countersign().await;
    assert_eq!(ring(), 1);

    // When it can sign, the newest checkpoint is signed; it vouches for those before it.
    signer.denied.store(false, Ordering::Relaxed);
    clock.advance(Duration::from_secs(61));
    line.countersign().await;
    let (now, to, failed) = stand().await;
    assert_eq!(now, [(one, false), (one + 1, true)]);
    assert_eq!((to, failed), (one + 1, None));
    line.countersign().await;
    assert_eq!(ring(), 1, "what is signed is not signed again");

    // A signature that nobody could verify is none.
    signer.lies.store(true, Ordering::Relaxed);
    next().await;
    let (now, to, failed) = stand().await;
    assert_eq!(now[2], (one + 2, false));
    assert_eq!(to, one + 1);
    assert!(failed.unwrap().contains("does not verify"));
    signer.lies.store(false, Ordering::Relaxed);
    clock.advance(Duration::from_secs(61));
    next().await;
    let (now, to, _) = stand().await;
    assert_eq!((now[3], to), ((one + 3, true), one + 3));
    assert_eq!(
        signer.asked.load(Ordering::Relaxed),
        1,
        "the public half is asked for once"
    );

    // It lies beside the checkpoint that was put before it.
    let listed = ports.home().list("checkpoints/", None).await.unwrap();
    let names: Vec<&str> = listed
        .items
        .iter()
        .filter_map(|m| m.key.rsplit('/').next())
        .collect();
    let name = |seq: u64, more: &str| format!("{seq:020}{more}");
    let wanted = [
        name(one, ""),
        name(one + 1, ""),
        name(one + 1, ".countersigned"),
        name(one + 2, ""),
        name(one + 3, ""),
        name(one + 3, ".countersigned"),
    ];
    assert_eq!(names, wanted);
}

fn edit(python: &Path, database: &Path, script: &str) {
    let prelude = "import sqlite3, json, sys\ndb = sqlite3.connect(sys.argv[1])\n";
    let output = Command::new(python)
        .args(["-c", &format!("{prelude}{script}\ndb.commit()\n")])
        .arg(database)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

/// The public key of a local world's signing key of this name, made where there is none.
fn public_key(world: &Path, name: &str) -> String {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let world = World::open(world, Clock::system(), 1.0).await.unwrap();
        let keys = LocalKeys::open(&world, name).unwrap();
        Countersignature::new("k", &keys.public_key().await.unwrap(), &[]).public_key
    })
}

#[test]
fn sec_57_a_countersigned_log_is_verified_with_nothing_but_the_public_key() {
    let Some(python) = python("sec_57_a_countersigned_log_is_verified") else {
        return;
    };
    let mut bench = Bench::empty(PLACEMENTS);
    bench.write("isoform.yaml", "isoform: 1\nstacks: {}\n");
    bench.push("Nothing yet");
    // Checkpoints from before there was a key.
    bench.start();
    bench.stop();
    let said = bench.cli(&["audit", "verify"], 0);
    assert!(!said.contains("countersigned"), "{said}");
    let path = bench.root.join("config.yaml");
    let mut config = std::fs::read_to_string(&path).unwrap();
    config.push_str("signing: { key: 'local://auditor' }\n");
    std::fs::write(&path, config).unwrap();
    bench.start();
    bench.stop();

    let said = bench.cli(&["audit", "verify"], 0);
    let (_, rest) = said.split_once("countersigned to ").unwrap();
    assert!(rest.contains("by local://auditor"), "{said}");
    let to: u64 = rest.split(' ').next().unwrap().parse().unwrap();
    let entries = format!("verified to checkpoint {to}");
    assert!(said.contains(&entries), "the last one too: {said}");
    assert!(
        said.contains("--signing-key says which one you trust"),
        "{said}"
    );

    let world = bench.root.join("cloud");
    let (ours, other) = (public_key(&world, "auditor"), public_key(&world, "other"));
    let folder = world.display().to_string();
    let alone = ["audit", "verify", "--shipped", "--cloud", &folder];
    let by = |key: &str, code: i32| {
        let key = ["--signing-key", key];
        bench.cli(&[&alone[..], &key].concat(), code)
    };
    let said = by(&ours, 0);
    assert!(
        said.contains(&format!("countersigned to {to} by local://auditor")),
        "{said}"
    );
    assert!(!said.contains("--signing-key says"), "{said}");
    let kept = bench.root.join("auditor.hex");
    std::fs::write(&kept, &ours).unwrap();
    by(kept.to_str().unwrap(), 0);
    assert!(by(&other, 1).contains("not a key that you trust"));
    assert!(by("nothing", 64).contains("neither a key in hexadecimal nor a file"));
    assert!(by(path.to_str().unwrap(), 64).contains("holds no public key on P-256"));

    // Whoever may write to the bundle store.
    let database = world.join("cloud.db");
    edit(
        &python,
        &database,
        "db.execute('pragma wal_checkpoint(truncate)')",
    );
    let whole = std::fs::read(&database).unwrap();
    let objects = |does: &str| {
        format!(
            "for name, body in db.execute(\"select name, body from objects where name like 'checkpoints/%.countersigned'\").fetchall():\n    c = json.loads(body)\n    {does}\n"
        )
    };
    let put =
        "db.execute('update objects set body = ? where name = ?', (json.dumps(c).encode(), name))";
    let forged = format!("c['countersigned']['signature'] = '00'; {put}");
    let swapped = format!("c['countersigned']['public_key'] = '{other}'; {put}");
    let gone = "db.execute('delete from objects where name = ?', (name,))".to_owned();
    for (does, trusted, said) in [
        (&forged, false, "is not one of local://auditor"),
        (&forged, true, "is not one of local://auditor"),
        (&swapped, false, "is not one of local://auditor"),
        (&gone, true, "no checkpoint is countersigned by a key"),
    ] {
        edit(&python, &database, &objects(does));
        let found = if trusted {
            by(&ours, 1)
        } else {
            bench.cli(&alone, 1)
        };
        assert!(found.contains(said), "{does}\nshould say `{said}`: {found}");
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", database.display()));
        }
        std::fs::write(&database, &whole).unwrap();
    }

    // The state is lost: what was countersigned is known again, and goes on.
    std::fs::remove_dir_all(bench.root.join("state")).unwrap();
    bench.start();
    let status: serde_json::Value =
        serde_json::from_str(&bench.cli(&["status", "--output", "json"], 0)).unwrap();
    assert_eq!(status["countersigned"]["key"], "local://auditor");
    bench.stop();
    let said = bench.cli(&["audit", "verify", "--signing-key", &ours], 0);
    let (_, rest) = said.split_once("countersigned to ").unwrap();
    let later: u64 = rest.split(' ').next().unwrap().parse().unwrap();
    assert!(later > to, "{said}");
}
