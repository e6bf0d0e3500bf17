//! The line at the standard estate: the first roll-out, looks at nothing new, pushes, and a start without any cache.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use isoform::clock::Clock;
use isoform::config::Config;
use isoform::daemon;
use isoform::domain::model::{Actor, Reason};
use isoform::reconcile::Line;
use isoform::store::RootKey;
use isoform::testing::estate::{Estate, Shape, configure};
use isoform::testing::stub::Stub;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::floors;
use crate::measure::{Cost, Started, print, ratio, resident, shown};

struct Running {
    line: Arc<Line>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<anyhow::Result<bool>>,
}

async fn start(config: &Path, stub: &Stub) -> anyhow::Result<Running> {
    let built = daemon::build_on(
        Config::load(config)?,
        Clock::system(),
        Some(Arc::new(stub.clone())),
    )
    .await?;
    let (line, stop) = (built.line.clone(), built.stop.clone());
    let task = tokio::spawn(daemon::run(built, std::future::pending()));
    Ok(Running { line, stop, task })
}

impl Running {
    async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.task.await??;
        Ok(())
    }

    /// Looks, and waits until the look at what it found has ended.
    async fn look(&self) -> anyhow::Result<()> {
        let (snapshot, _) = self.line.look("push", &Actor::daemon("bench")).await?;
        let id = snapshot.map(|s| s.id).unwrap_or_default();
        while !self.line.has_ended(id) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measured(options))
}

async fn measured(options: &Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let origin = folder.path().join("origin.git");
    let shape = Shape {
        services: options.services,
        ..Shape::standard()
    };
    let started = Started::now();
    let mut estate = Estate::make(&origin, shape)?;
    let targets = estate.shape().targets();
    println!(
        "an estate of {targets} targets, made in {}",
        shown(started.cost().wall)
    );
    RootKey::read_or_make(&folder.path().join("root.key"))?;
    let config = configure(folder.path(), &origin, options.workers)?;
    let stub = Stub::default();

    let started = Started::now();
    let running = start(&config, &stub).await?;
    running.look().await?;
    let cost = started.cost();
    print(
        "first roll-out",
        &[cost],
        &format!(
            "{:.0} targets/s {:?}",
            targets as f64 / cost.wall.as_secs_f64(),
            stub.take_calls()
        ),
    );
    if stub.stacks() != targets {
        let report = running.line.estate().await?;
        for target in report
            .targets
            .iter()
            .filter(|t| t.condition.reason != Reason::Settled)
            .take(3)
        {
            println!(
                "{}: {} {}",
                target.address, target.condition, target.condition.detail
            );
        }
        for finding in report.findings.iter().take(5) {
            println!("{}: {}", finding.place.file, finding.message);
        }
        anyhow::bail!("{} of {targets} stacks", stub.stacks());
    }
    println!("resident {:?}", resident("self"));

    let mut costs = Vec::new();
    for _ in 0..options.repeat {
        let started = Started::now();
        running.look().await?;
        costs.push(started.cost());
    }
    print(
        "look, source not moved",
        &costs,
        &format!("{:?}", stub.take_calls()),
    );
    let floor = floors::one_ref(&origin, options.repeat)?;
    print("floor: one ref read", &floor, "");
    ratio("the look to one ref read", &costs, &floor);

    let mut costs = Vec::new();
    for _ in 0..options.repeat {
        estate.idle()?;
        let started = Started::now();
        running.look().await?;
        costs.push(started.cost());
    }
    print(
        "look, a commit that changes nothing",
        &costs,
        &format!("{:?}", stub.take_calls()),
    );

    let (mut all, mut first_calls) = (Vec::new(), Vec::new());
    for _ in 0..options.repeat {
        estate.touch(3)?;
        let first: Arc<Mutex<Option<Cost>>> = Arc::default();
        let started = Arc::new(Started::now());
        stub.watch(Box::new({
            let (first, started) = (first.clone(), started.clone());
            move |call| {
                if call != "PutObject" && call != "ListStacks" {
                    first
                        .lock()
                        .expect("no panic")
                        .get_or_insert_with(|| started.cost());
                }
            }
        }));
        running.look().await?;
        all.push(started.cost());
        first_calls.extend(first.lock().expect("no panic").take());
    }
    stub.watch(Box::new(|_| {}));
    print("push of 3 specs, up to the first call", &first_calls, "");
    print(
        "push of 3 specs, up to the end of the look",
        &all,
        &format!("{:?}", stub.take_calls()),
    );

    // Three specs of ten instances.
    let floor = floors::push(&origin, 30, options.repeat)?;
    print("floor: the difference, and 30 renderings", &floor, "");
    ratio("up to the first call to that", &first_calls, &floor);
    ratio("up to the end of the look to that", &all, &floor);

    let many = (options.services / 10).max(1);
    let mut costs = Vec::new();
    for _ in 0..options.repeat {
        estate.touch_every_instance(many)?;
        let started = Started::now();
        running.look().await?;
        costs.push(started.cost());
    }
    let each = crate::measure::median(&costs).wall.as_secs_f64();
    print(
        &format!("push that changes {} targets", many * 10),
        &costs,
        &format!(
            "{:.0} targets/s {:?}",
            many as f64 * 10.0 / each,
            stub.take_calls()
        ),
    );
    running.stop().await?;

    let mut costs = Vec::new();
    for _ in 0..options.repeat {
        let started = Started::now();
        let running = start(&config, &stub).await?;
        running.look().await?;
        costs.push(started.cost());
        running.stop().await?;
    }
    print(
        "start without a cache, up to the end of the look",
        &costs,
        &format!("{:?}", stub.take_calls()),
    );
    let floor = floors::texts(&origin, targets, options.repeat)?;
    print("floor: all texts rendered and hashed", &floor, "");
    ratio("the start to that", &costs, &floor);
    Ok(())
}
