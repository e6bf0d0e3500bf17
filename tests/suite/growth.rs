//! How cost grows: counts of what is done, at two sizes. No time is looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use isoform::clock::Clock;
use isoform::config::Config;
use isoform::daemon;
use isoform::domain::model::Actor;
use isoform::git::{Auth, Client, Remote, errand, tip};
use isoform::reconcile::Line;
use isoform::store::RootKey;
use isoform::testing::estate::{Estate, Shape, configure};
use isoform::testing::stub::Stub;
use tokio_util::sync::CancellationToken;

use crate::sec::servers::HttpServer;

pub struct Running {
    pub line: Arc<Line>,
    pub stub: Stub,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<anyhow::Result<bool>>,
}

/// What was done between two moments.
#[derive(Debug, PartialEq, Eq)]
struct Done {
    renders: u64,
    compiled: u64,
    read: u64,
    looked: u64,
    /// Calls of ports, without those that carry the log away.
    calls: BTreeMap<&'static str, u64>,
}

impl Running {
    pub async fn start(config: &Path, stub: &Stub) -> Self {
        // A program that another test was just starting may still hold the lock of the daemon before.
        let mut tries = 0;
        let built = loop {
            let ports = Some(Arc::new(stub.clone()) as _);
            let config = Config::load(config).unwrap();
            match daemon::build_on(config, Clock::system(), ports).await {
                Err(error) if tries < 40 && error.to_string().contains("holds") => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                built => break built.unwrap(),
            }
        };
        let (line, stop) = (built.line.clone(), built.stop.clone());
        let task = tokio::spawn(daemon::run(built, std::future::pending()));
        let stub = stub.clone();
        Self {
            line,
            stub,
            stop,
            task,
        }
    }

    fn counted(&self) -> (u64, u64, u64, u64) {
        let counts = &self.line.counts;
        (
            counts.renders(),
            counts.compiled(),
            counts.read(),
            counts.looked(),
        )
    }

    /// Looks, waits until the look has ended, and returns what was done.
    async fn look(&self) -> Done {
        self.stub.take_calls();
        let before = self.counted();
        let (snapshot, _) = self
            .line
            .look("push", &Actor::daemon("test"))
            .await
            .unwrap();
        let id = snapshot.unwrap().id;
        for _ in 0..6000 {
            if self.line.has_ended(id) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(self.line.has_ended(id), "the look does not end");
        let after = self.counted();
        let mut calls = self.stub.take_calls();
        calls.remove("PutObject");
        Done {
            renders: after.0 - before.0,
            compiled: after.1 - before.1,
            read: after.2 - before.2,
            looked: after.3 - before.3,
            calls,
        }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        assert!(self.task.await.unwrap().unwrap());
    }
}

pub struct Settled {
    pub _folder: tempfile::TempDir,
    pub config: PathBuf,
    pub estate: Estate,
    pub running: Running,
}

/// A daemon that has rolled an estate out.
pub async fn settled(services: usize, instances: usize) -> Settled {
    settled_as(Shape::small(services, instances)).await
}

async fn settled_as(shape: Shape) -> Settled {
    let folder = tempfile::tempdir().unwrap();
    let origin = folder.path().join("origin.git");
    let estate = Estate::make(&origin, shape).unwrap();
    RootKey::read_or_make(&folder.path().join("root.key")).unwrap();
    let config = configure(folder.path(), &origin, 8).unwrap();
    let running = Running::start(&config, &Stub::default()).await;
    running.look().await;
    assert_eq!(running.stub.stacks(), estate.shape().targets());
    Settled {
        _folder: folder,
        config,
        estate,
        running,
    }
}

const NOTHING: Done = Done {
    renders: 0,
    compiled: 0,
    read: 0,
    looked: 0,
    calls: BTreeMap::new(),
};

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_costs_no_call_and_no_rendering() {
    for (services, instances) in [(2, 2), (6, 4)] {
        let mut all = settled(services, instances).await;
        // The source has not moved.
        assert_eq!(all.running.look().await, NOTHING);
        // It has moved, and asks for the same.
        all.estate.idle().unwrap();
        assert_eq!(all.running.look().await, NOTHING);
        all.running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_costs_a_call_for_each_page() {
    // Two of four accounts share everything: 3 stacks each, then 121.
    for (services, instances, expected) in [(2, 2, 4), (60, 4, 6)] {
        let all = settled(services, instances).await;
        all.running.stub.take_calls();

        all.running.line.sweep().await.unwrap();

        let mut calls = all.running.stub.take_calls();
        calls.remove("PutObject");
        assert_eq!(calls, BTreeMap::from([("ListStacks", expected)]));
        assert_eq!(all.running.look().await, NOTHING);
        all.running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_costs_what_it_changes_however_large_the_estate_is() {
    let mut done = Vec::new();
    for (services, instances) in [(2, 2), (6, 4)] {
        let mut all = settled(services, instances).await;
        all.estate.touch(1).unwrap();
        let one = all.running.look().await;
        assert_eq!((one.renders, one.compiled, one.read), (1, 1, 1), "{one:?}");
        assert_eq!(one.calls["CreateChangeSet"], 1);
        done.push(one.calls);
        all.running.stop().await;
    }
    assert_eq!(done[0], done[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_template_is_compiled_once_and_rendered_for_its_instances() {
    for (services, instances) in [(2, 2), (6, 4)] {
        let mut all = settled(services, instances).await;
        all.estate.revise(0).unwrap();
        // Two templates share the services.
        let of_it = (services / 2 * instances) as u64;
        let done = all.running.look().await;
        assert_eq!((done.renders, done.compiled), (of_it, 1), "{done:?}");
        assert_eq!(done.calls["CreateChangeSet"], of_it);
        all.running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_in_a_wave_is_not_asked_each_time_that_another_one_settles() {
    for (services, instances) in [(4, 4), (24, 8)] {
        let mut all = settled_as(Shape {
            waves: 2,
            ..Shape::small(services, instances)
        })
        .await;
        all.estate.revise(0).unwrap();
        let of_it = (services / 2 * instances) as u64;
        let done = all.running.look().await;
        assert_eq!(done.calls["CreateChangeSet"], of_it);
        // Once to wait, once to go, once when it has settled; and some are woken while others of the wave still move.
        assert!(done.looked <= 8 * of_it, "{of_it} targets: {done:?}");
        all.running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_any_cache_reads_only_what_others_use() {
    for (services, instances) in [(2, 2), (6, 4)] {
        let all = settled(services, instances).await;
        let (stub, config, targets) = (
            all.running.stub.clone(),
            all.config.clone(),
            all.estate.shape().targets() as u64,
        );
        all.running.stop().await;
        stub.take_calls();
        let again = Running::start(&config, &stub).await;
        // Everything is rendered to see that it is what was applied; two environments are read for their outputs.
        let counts = &again.line.counts;
        assert_eq!(
            (counts.renders(), counts.compiled(), counts.read()),
            (targets, 3, 2)
        );
        let before = stub.take_calls();
        assert_eq!(before.get("CreateChangeSet"), None);
        assert_eq!(before.get("DescribeStacks"), None);
        assert_eq!(
            (again.look().await.renders, stub.stacks() as u64),
            (0, targets)
        );
        again.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_that_have_not_changed_are_not_read() {
    for (services, instances) in [(2, 2), (6, 4)] {
        let mut all = settled(services, instances).await;
        all.running.stub.take_read();
        all.running.look().await;
        all.estate.touch(1).unwrap();
        let done = all.running.look().await;
        assert_eq!(done.calls["CreateChangeSet"], 1);
        assert_eq!(
            (
                done.calls.get("HeadObject"),
                done.calls.get("GetObject"),
                all.running.stub.take_read()
            ),
            // The one that runs looks whether its bundle and its text are still what was put.
            (Some(&2), None, 0)
        );
        all.running.stop().await;
    }
}

/// Polls a repository that has not moved; returns exchanges, bytes sent and received, and processes started.
async fn poll(refs: usize) -> (u64, u64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("origin.git");
    let repository = git2::Repository::init_bare(&path).unwrap();
    let tree = repository.treebuilder(None).unwrap().write().unwrap();
    let tree = repository.find_tree(tree).unwrap();
    let who = git2::Signature::new("a", "a@example.org", &git2::Time::new(1, 0)).unwrap();
    let id = repository
        .commit(Some("refs/heads/main"), &who, &who, "first", &tree, &[])
        .unwrap();
    let all: String = (0..refs)
        .map(|n| format!("{id} refs/pull/{n:06}/head\n"))
        .collect();
    std::fs::write(path.join("packed-refs"), all).unwrap();
    let server = HttpServer::start(folder.path());
    let remote = Remote::new(&server.url("origin.git"), "main", Auth::default()).unwrap();
    let client = Client::new().unwrap();
    // The first question greets the server.
    let first = tip(&remote, &client).await.unwrap();
    assert_eq!(
        first.as_ref().map(ToString::to_string),
        Some(id.to_string())
    );
    let [requests, received, sent] = server.traffic.so_far();
    let errands = errand::sent();
    assert_eq!(tip(&remote, &client).await.unwrap(), first);
    let after = server.traffic.so_far();
    (
        after[0] - requests,
        after[1] + after[2] - received - sent,
        errand::sent() - errands,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_is_one_small_exchange_at_any_number_of_refs() {
    let few = poll(10).await;
    assert_eq!((few.0, few.2), (1, 0));
    assert!(few.1 <= 1024, "{} bytes", few.1);
    // The port in a header may have another number of digits.
    let many = poll(5_000).await;
    assert_eq!((many.0, many.2), (1, 0));
    assert!(many.1.abs_diff(few.1) <= 2, "{} and {}", few.1, many.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_become_another_one_is_greeted_anew() {
    let folder = tempfile::tempdir().unwrap();
    git2::Repository::init_bare(folder.path().join("origin.git")).unwrap();
    let server = HttpServer::start(folder.path());
    let remote = Remote::new(&server.url("origin.git"), "main", Auth::default()).unwrap();
    let client = Client::new().unwrap();
    assert_eq!(tip(&remote, &client).await.unwrap(), None);
    // Nothing at all is no answer: the branch is not known to be gone.
    server.turn(|request, stream| {
        use std::io::Write;
        let asks = request.method == "POST";
        if asks {
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        asks
    });
    let before = server.traffic.so_far()[0];
    assert!(tip(&remote, &client).await.is_err());
    assert_eq!(server.traffic.so_far()[0] - before, 1, "it was greeted");
    server.behave();
    assert_eq!(tip(&remote, &client).await.unwrap(), None);
}
