//! The composition root: this file and `cloud` alone know which adapter stands behind a port.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use anyhow::{Context, bail};
use tokio_util::sync::CancellationToken;

use super::cloud::AwsPorts;
use crate::clock::Clock;
use crate::config::{Config, ForgeAuth, ObjectLock, Root, ShelfPlace, Signing};
use crate::domain::audit::{Body, Stream};
use crate::domain::estate::Placement;
use crate::domain::model::{Actor, Region, SourceName, Timestamp};
use crate::domain::policy::Mode;
use crate::forge::{self, Forges};
use crate::local::{LocalEngine, LocalKeys, LocalObjects, LocalVersions, World};
use crate::port::{Error, Forge, KeyService, ObjectStore, Ports, StackEngine, Versions};
use crate::reconcile::{Line, Settings, open_root, restore};
use crate::store::{RootKey, Store};
use crate::workqueue::WorkQueue;

/// The ports of a local world.
pub struct LocalPorts {
    world: World,
    keys: Option<Arc<LocalKeys>>,
    signing: Option<(String, Arc<LocalKeys>)>,
    shelves: BTreeMap<SourceName, String>,
    forges: BTreeMap<SourceName, Arc<dyn Forge>>,
}

impl Ports for LocalPorts {
    fn engine(
        &self,
        placement: &Placement,
        region: &Region,
    ) -> Result<Arc<dyn StackEngine>, Error> {
        Ok(Arc::new(LocalEngine::new(
            self.world.clone(),
            placement.account.clone(),
            region.clone(),
        )))
    }

    fn versions(&self, placement: &Placement, region: &Region) -> Result<Arc<dyn Versions>, Error> {
        Ok(Arc::new(LocalVersions::new(
            self.world.clone(),
            placement.account.clone(),
            region.clone(),
        )))
    }

    fn store(&self, _: &Placement, _: &Region) -> Result<Arc<dyn ObjectStore>, Error> {
        Ok(self.home())
    }

    fn forge(&self, source: &SourceName) -> Option<Arc<dyn Forge>> {
        self.forges.get(source).cloned()
    }

    fn shelf(&self, source: &SourceName) -> Option<Arc<dyn ObjectStore>> {
        let store = self.shelves.get(source)?;
        Some(Arc::new(LocalObjects::new(self.world.clone(), store)))
    }

    fn home(&self) -> Arc<dyn ObjectStore> {
        Arc::new(LocalObjects::new(self.world.clone(), "bundles"))
    }

    fn sealing(&self) -> Option<Arc<dyn KeyService>> {
        self.keys.clone().map(|k| k as Arc<dyn KeyService>)
    }

    fn signing(&self) -> Option<(String, Arc<dyn KeyService>)> {
        let (name, keys) = self.signing.clone()?;
        Some((name, keys))
    }
}

/// Opens the ports of the embedded engine.
pub async fn open_ports(
    config: &Config,
    clock: &Clock,
) -> anyhow::Result<(World, Arc<LocalPorts>)> {
    let world = World::open(&config.cloud, clock.clone(), config.pace)
        .await
        .with_context(|| format!("opening the local world in {}", config.cloud.display()))?;
    // Also where bundles are not sealed any more: those that were must still be opened.
    let keys = LocalKeys::open(&world, "bundles").context("opening the key of the local world")?;
    let keys = Some(Arc::new(keys));
    let signing = match &config.signing {
        Some(Signing::Local(name)) => {
            let keys = LocalKeys::open(&world, name).context("opening the key that signs")?;
            Some((format!("local://{name}"), Arc::new(keys)))
        }
        Some(Signing::Kms(_)) | None => None,
    };
    let shelves = config.shelves.iter().filter_map(|(name, shelf)| {
        let ShelfPlace::Local(store) = &shelf.place else {
            return None;
        };
        Some((name.clone(), store.clone()))
    });
    let ports = LocalPorts {
        world: world.clone(),
        keys,
        signing,
        shelves: shelves.collect(),
        forges: open_forges(config, clock)?,
    };
    Ok((world, Arc::new(ports)))
}

/// Opens the forges of all sources. Nothing is asked of them yet.
pub(super) fn open_forges(
    config: &Config,
    clock: &Clock,
) -> anyhow::Result<BTreeMap<SourceName, Arc<dyn Forge>>> {
    let opener = Forges::new(clock.clone());
    let mut forges = BTreeMap::new();
    for (name, source) in &config.sources {
        let Some(forge) = &source.forge else { continue };
        let settings = forge::Settings {
            kind: forge.kind,
            api: forge.api.clone(),
            repository: forge.repository.clone(),
            auth: match &forge.auth {
                ForgeAuth::Token(path) => forge::Auth::Token(path.clone()),
                ForgeAuth::App {
                    id,
                    key,
                    installation,
                } => forge::Auth::App {
                    id: id.clone(),
                    key: key.clone(),
                    installation: *installation,
                },
            },
            ca: forge.ca.clone(),
        };
        let opened = opener
            .open(&settings)
            .with_context(|| format!("the forge of the source {name}"))?;
        forges.insert(name.clone(), opened);
    }
    Ok(forges)
}

/// Opens the ports that a configuration names, on AWS or on the embedded engine.
pub async fn open(config: &Config, clock: &Clock) -> anyhow::Result<Arc<dyn Ports>> {
    match &config.aws {
        Some(aws) => {
            let forges = open_forges(config, clock)?;
            Ok(Arc::new(AwsPorts::open(aws, config, clock, forges).await))
        }
        None => Ok(open_ports(config, clock).await?.1),
    }
}

/// Opens the root key, from its file or with the key service.
pub async fn root_key(
    config: &Config,
    ports: &dyn Ports,
    now: Timestamp,
) -> anyhow::Result<RootKey> {
    match (&config.root, ports.root()) {
        (Root::File(path), _) => RootKey::read(path)
            .context("opening the root key; `isoform config key <file>` makes one"),
        (Root::Kms(root), Some(keys)) => {
            let (home, lock) = (ports.home(), log_lock(config));
            open_root(
                &config.state,
                home.as_ref(),
                keys.as_ref(),
                lock.as_ref(),
                now,
            )
            .await
            .with_context(|| format!("opening the root key with {}", root.key))
        }
        (Root::Kms(_), None) => bail!("the root key is with KMS, and no key service is here"),
    }
}

/// How the log is kept in the home store.
fn log_lock(config: &Config) -> Option<ObjectLock> {
    let aws = config.aws.as_ref()?;
    aws.stores[&aws.home].lock
}

/// A daemon that is put together and does not run yet.
pub struct Built {
    /// The line.
    pub line: Arc<Line>,
    /// The configuration.
    pub config: Config,
    /// Stops everything.
    pub stop: CancellationToken,
    /// Entries that were taken over from the bundle store.
    pub restored: u64,
    _lock: File,
}

/// Puts a daemon together: locks the state folder, opens store and ports, folds the log.
pub async fn build(config: Config, clock: Clock) -> anyhow::Result<Built> {
    build_on(config, clock, None).await
}

/// Puts a daemon together on given ports; without them on those that the configuration names.
pub async fn build_on(
    config: Config,
    clock: Clock,
    ports: Option<Arc<dyn Ports>>,
) -> anyhow::Result<Built> {
    crate::secret_file::folder(&config.state)
        .with_context(|| format!("making {}", config.state.display()))?;
    let lock = lock(&config)?;
    let ports = match ports {
        Some(ports) => ports,
        None => open(&config, &clock).await?,
    };
    let root = root_key(&config, ports.as_ref(), clock.now()).await?;
    let mut store = Store::open(&config.state, &root).await?;
    let kept = log_lock(&config);
    let identity = restore(
        &mut store,
        ports.home().as_ref(),
        &root,
        kept.as_ref(),
        clock.now(),
    )
    .await
    .context("finding out who the state belongs to")?;
    let stop = CancellationToken::new();
    let queue = WorkQueue::new(
        clock.clone(),
        config.workers,
        config.workers.div_ceil(2).max(4),
    );
    let settings = Settings {
        installation: identity.installation,
        log: identity.log,
        state: config.state.clone(),
        sources: config.sources.clone(),
        shelves: config.shelves.clone(),
        placements: config.placements.clone(),
        encryption: config.encryption,
        lock: kept,
    };
    let line = Line::open(store, ports, clock, settings, queue, stop.clone())
        .await
        .context("folding the log")?;
    let modes: BTreeMap<String, _> = config
        .placements
        .values()
        .map(|p| (format!("placement/{}", p.name), p.mode))
        .chain(
            config
                .sources
                .values()
                .map(|s| (format!("source/{}", s.grant.source), s.grant.mode)),
        )
        .chain(
            config
                .shelves
                .keys()
                .map(|name| (format!("source/{name}"), Mode::Auto)),
        )
        .collect();
    let started = Body::Started {
        version: env!("CARGO_PKG_VERSION").into(),
        modes,
    };
    line.log(Stream::Daemon, Actor::daemon("start"), started)
        .await?;
    Ok(Built {
        line,
        config,
        stop,
        restored: identity.restored,
        _lock: lock,
    })
}

/// One daemon for one state folder.
fn lock(config: &Config) -> anyhow::Result<File> {
    let path = config.state.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            let holder = std::fs::read_to_string(&path).unwrap_or_default();
            bail!(
                "another isoform (process {}) holds {}",
                holder.trim(),
                config.state.display()
            );
        }
        Err(std::fs::TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("locking {}", path.display()));
        }
    }
    std::fs::write(&path, std::process::id().to_string())?;
    Ok(file)
}
