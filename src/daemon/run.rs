//! What runs: workers, the poller, the watcher, the sweeper, the shipper and the socket. The only place that spawns.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use notify::{RecursiveMode, Watcher};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::Built;
use crate::config::Config;
use crate::domain::audit::{Body, Stream};
use crate::domain::model::{Actor, SourceName};
use crate::http::webhooks::{self, Hears, LineEar, Webhooks};
use crate::http::{Hint, Socket};
use crate::port::HintQueue;
use crate::reconcile::Line;

const DEBOUNCE: Duration = Duration::from_millis(200);
/// How long a queue that does not answer is left alone.
const DEAF: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(25);
/// How long the last checkpoint waits for its second signature.
const FAREWELL: Duration = Duration::from_secs(5);

/// Runs a daemon until `shutdown` ends, and drains it. Returns whether it drained in time.
///
/// A running stack update is not waited for: the log resumes it.
pub async fn run(built: Built, shutdown: impl Future<Output = ()>) -> anyhow::Result<bool> {
    let Built {
        line, config, stop, ..
    } = &built;
    let tracker = TaskTracker::new();
    let (hints, inbox) = mpsc::channel::<Hint>(64);
    for _ in 0..config.workers {
        tracker.spawn(worker(line.clone()));
    }
    tracker.spawn(looker(line.clone(), inbox, config.poll));
    tracker.spawn(sweeper(line.clone(), config.sweep));
    tracker.spawn(shipper(line.clone()));
    tracker.spawn(janitor(line.clone()));
    if line.ports.signing().is_some() {
        tracker.spawn(countersigner(line.clone()));
    }
    for queue in line.ports.hints() {
        tracker.spawn(hearer(line.clone(), queue));
    }
    let watched: Vec<PathBuf> = config
        .sources
        .values()
        .filter_map(|s| s.remote.local_path().map(|p| p.to_owned()))
        .collect();
    let _watcher = watch(&watched, hints.clone());
    let path = config.socket();
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let socket = Socket { line: line.clone() };
    tracker.spawn(crate::http::serve(listener, socket, stop.clone()));
    if let Some(address) = config.listen {
        let heard = hears(config);
        let ear = Arc::new(LineEar {
            line: line.clone(),
            hints: hints.clone(),
        });
        let journal = config.state.join("webhooks.journal");
        let webhooks = Webhooks::open(heard, &journal, line.clock.clone(), ear)?;
        let listener = webhooks::bind(address)
            .await
            .with_context(|| format!("listening for webhooks on {address}"))?;
        tracing::info!("hearing webhooks on {}", listener.local_addr()?);
        tracker.spawn(webhooks::serve(listener, webhooks, stop.clone()));
    }
    for (name, source) in &config.sources {
        if source.forge.is_some() {
            tracker.spawn(forger(line.clone(), name.clone()));
        }
    }
    let _ = hints
        .send(Hint {
            trigger: "start".into(),
            actor: Actor::daemon("start"),
        })
        .await;
    line.enqueue_all();
    tracing::info!("listening on {}", path.display());
    tokio::select! {
        () = shutdown => {}
        () = stop.cancelled() => {}
    }
    tracing::info!("stopping: no new work; every step in progress ends");
    stop.cancel();
    line.queue.stop();
    tracker.close();
    let drained = tokio::time::timeout(GRACE, tracker.wait()).await.is_ok();
    let _ = std::fs::remove_file(&path);
    if drained {
        line.log(Stream::Daemon, Actor::daemon("stop"), Body::Stopped)
            .await?;
        line.checkpoint(1).await?;
        line.ship().await?;
        // A service that is not there does not keep it from ending.
        let _ = tokio::time::timeout(FAREWELL, line.countersign()).await;
    } else {
        tracing::warn!(
            "did not drain in {} s; still running: {:?}",
            GRACE.as_secs(),
            line.queue.running()
        );
    }
    line.store.close().await;
    Ok(drained)
}

/// What each source hears by webhooks.
fn hears(config: &Config) -> BTreeMap<SourceName, Hears> {
    let heard = config.sources.iter().filter_map(|(name, source)| {
        let forge = source.forge.as_ref().filter(|f| !f.secrets.is_empty())?;
        let hears = Hears {
            kind: forge.kind,
            repository: forge.repository.clone(),
            branch: source.remote.branch.clone(),
            secrets: forge.secrets.clone(),
        };
        Some((name.clone(), hears))
    });
    heard.collect()
}

/// Tends the pull requests of one source. In a task of its own: a forge that is slow holds up nothing else.
async fn forger(line: Arc<Line>, source: SourceName) {
    let mut hints = line.pull_hints();
    loop {
        hints.mark_unchanged();
        let one = tokio::spawn({
            let (line, source) = (line.clone(), source.clone());
            async move { line.tend_pulls(&source).await }
        });
        let wait = tokio::select! {
            biased;
            // Whatever it has in hand with a forge is in the outbox, or made anew.
            () = line.stop.cancelled() => return,
            one = one => match one {
                Ok(Ok(wait)) => wait,
                Ok(Err(error)) => {
                    tracing::warn!(source.name = %source, "pull requests: {error}");
                    DEAF
                }
                Err(_) => DEAF,
            },
        };
        tokio::select! {
            biased;
            () = line.stop.cancelled() => return,
            _ = hints.changed() => line.clock.sleep(DEBOUNCE).await,
            () = line.clock.sleep(wait) => {}
        }
    }
}

async fn worker(line: Arc<Line>) {
    while let Some(guard) = line.queue.next(&line.stop).await {
        let uid = guard.key().clone();
        // In a task of its own: a panic stalls this one target and leaves the worker.
        let one = tokio::spawn({
            let line = line.clone();
            async move { line.reconcile(&guard).await }
        });
        let after = match one.await {
            Ok(after) => after,
            Err(_) => {
                line.panicked(&uid).await;
                None
            }
        };
        if let Some(after) = after {
            line.enqueue(&uid, after);
        }
        if let Err(error) = line.close_look().await {
            tracing::warn!("the end of a look could not be written: {error}");
        }
    }
}

/// Looks at the sources whenever somebody hints, and at every poll.
async fn looker(line: Arc<Line>, mut inbox: mpsc::Receiver<Hint>, poll: Duration) {
    let mut turn: u64 = 0;
    loop {
        turn += 1;
        // Jitter without a random source: the installation and the turn spread the polls of a fleet.
        let spread = u64::from_str_radix(line.settings.installation.short(), 16)
            .unwrap_or(0)
            .wrapping_mul(turn)
            % 200;
        let wait = poll.mul_f64(0.9 + spread as f64 / 1000.0);
        let hint = tokio::select! {
            biased;
            () = line.stop.cancelled() => return,
            hint = inbox.recv() => match hint {
                Some(hint) => hint,
                None => return,
            },
            () = line.clock.sleep(wait) => Hint { trigger: "poll".into(), actor: Actor::daemon("poll") },
        };
        // A push comes with its own hint and with file events: what arrives together is one look, and a person's word wins.
        let mut best = hint;
        if matches!(best.trigger.as_str(), "file" | webhooks::TRIGGER) {
            line.clock.sleep(DEBOUNCE).await;
        }
        while let Ok(more) = inbox.try_recv() {
            if more.trigger == "push" || matches!(best.trigger.as_str(), "file" | webhooks::TRIGGER)
            {
                best = more;
            }
        }
        // In a task of its own: a panic ends this look, and the next one is made all the same.
        let one = tokio::spawn({
            let line = line.clone();
            async move { line.look(&best.trigger, &best.actor).await.map(drop) }
        });
        match one.await {
            Ok(Ok(())) => line.looked_at_all(None),
            Ok(Err(error)) => {
                tracing::error!("a look failed: {error}");
                line.looked_at_all(Some(error.to_string()));
            }
            Err(_) => tracing::error!("a look made isoform panic"),
        }
    }
}

async fn sweeper(line: Arc<Line>, every: Duration) {
    loop {
        if let Err(error) = line.sweep().await {
            tracing::warn!("a sweep failed: {error}");
        }
        tokio::select! {
            biased;
            () = line.stop.cancelled() => return,
            () = line.clock.sleep(every) => {}
        }
    }
}

/// Hears what a queue says. Without it the next look finds the same.
async fn hearer(line: Arc<Line>, queue: Arc<dyn HintQueue>) {
    let mut failed = false;
    loop {
        let heard = tokio::select! {
            biased;
            () = line.stop.cancelled() => return,
            heard = line.hear(queue.as_ref()) => heard,
        };
        match heard {
            Ok(_) => failed = false,
            Err(error) => {
                if !failed {
                    tracing::warn!(
                        "no hints from {}: {error}; stacks are looked at as without them",
                        queue.name()
                    );
                }
                failed = true;
                tokio::select! {
                    biased;
                    () = line.stop.cancelled() => return,
                    () = line.clock.sleep(DEAF) => {}
                }
            }
        }
    }
}

async fn shipper(line: Arc<Line>) {
    let mut turns = 0u32;
    loop {
        tokio::select! {
            biased;
            () = line.stop.cancelled() => return,
            () = line.clock.sleep(Duration::from_secs(5)) => {}
        }
        turns += 1;
        // At least every 100 entries or 60 s.
        let least = if turns.is_multiple_of(10) { 1 } else { 100 };
        if let Err(error) = line.checkpoint(least).await {
            tracing::warn!("a checkpoint failed: {error}");
        }
        if let Err(error) = line.ship().await {
            tracing::warn!("shipping the log failed: {error}");
        }
        if let Err(error) = line.store.flush().await {
            tracing::warn!("what is shown of targets could not be written: {error}");
        }
    }
}

/// Looks for leftover change sets, a few stacks at a time.
async fn janitor(line: Arc<Line>) {
    let started = line.clock.steady();
    loop {
        tokio::select! {
            biased;
            () = line.stop.cancelled() => return,
            () = line.clock.sleep(Duration::from_secs(60)) => {}
        }
        line.look_for_leftovers(started);
    }
}

/// In a task of its own: what a service takes its time over holds up nothing else.
async fn countersigner(line: Arc<Line>) {
    loop {
        line.countersign().await;
        tokio::select! {
            biased;
            () = line.stop.cancelled() => return,
            () = line.clock.sleep(Duration::from_secs(5)) => {}
        }
    }
}

/// Watches the refs of local repositories. Without it the poll finds a push.
fn watch(paths: &[PathBuf], hints: mpsc::Sender<Hint>) -> Option<notify::RecommendedWatcher> {
    let handler = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|e| e.kind.is_modify() || e.kind.is_create() || e.kind.is_remove()) {
            let _ = hints.try_send(Hint {
                trigger: "file".into(),
                actor: Actor::daemon("file event"),
            });
        }
    };
    let mut watcher = notify::recommended_watcher(handler)
        .map_err(|e| tracing::warn!("local repositories cannot be watched: {e}"))
        .ok()?;
    for path in paths {
        let git = if path.join(".git").is_dir() {
            path.join(".git")
        } else {
            path.clone()
        };
        for part in ["refs/heads", "packed-refs"] {
            if git.join(part).exists()
                && let Err(error) = watcher.watch(&git.join(part), RecursiveMode::Recursive)
            {
                tracing::warn!("{} cannot be watched: {error}", git.join(part).display());
            }
        }
    }
    Some(watcher)
}
