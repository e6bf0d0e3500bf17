//! A daemon in this process, on services that cost next to nothing, with its estate rolled out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use isoform::clock::Clock;
use isoform::config::Config;
use isoform::daemon;
use isoform::domain::model::Actor;
use isoform::reconcile::Line;
use isoform::store::RootKey;
use isoform::testing::estate::{Estate, Shape, configure};
use isoform::testing::stub::Stub;
use tokio_util::sync::CancellationToken;

/// What runs.
pub struct Running {
    pub line: Arc<Line>,
    pub stub: Stub,
    pub estate: Estate,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<anyhow::Result<bool>>,
}

impl Running {
    /// Makes an estate in a folder, and waits until all of it is rolled out.
    pub async fn of(folder: &Path, shape: Shape) -> anyhow::Result<Self> {
        let origin = folder.join("origin.git");
        let estate = Estate::make(&origin, shape)?;
        RootKey::read_or_make(&folder.join("root.key"))?;
        let config: PathBuf = configure(folder, &origin, 64)?;
        let stub = Stub::default();
        let ports = Some(Arc::new(stub.clone()) as Arc<dyn isoform::port::Ports>);
        let built = daemon::build_on(Config::load(&config)?, Clock::system(), ports).await?;
        let (line, stop) = (built.line.clone(), built.stop.clone());
        let task = tokio::spawn(daemon::run(built, std::future::pending()));
        let running = Self {
            line,
            stub,
            estate,
            stop,
            task,
        };
        running.look().await?;
        let (made, targets) = (running.stub.stacks(), running.estate.shape().targets());
        anyhow::ensure!(made == targets, "{made} of {targets} stacks");
        Ok(running)
    }

    /// Looks, and waits until the look at what it found has ended.
    pub async fn look(&self) -> anyhow::Result<()> {
        let (snapshot, _) = self.line.look("push", &Actor::daemon("bench")).await?;
        let id = snapshot.map(|s| s.id).unwrap_or_default();
        while !self.line.has_ended(id) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.task.await??;
        Ok(())
    }
}
