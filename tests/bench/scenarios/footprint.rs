//! What a daemon takes that has nothing to do: memory, processor time, and its start.
//!
//! The estate is rolled out by one process, which writes down what its services hold and ends. Another loads that and
//! runs the daemon over the state that is there, so that nothing of the roll-out is left in its memory. What the loaded
//! services take is measured before the daemon starts, and told apart.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use isoform::clock::Clock;
use isoform::config::Config;
use isoform::daemon;
use isoform::domain::model::Actor;
use isoform::testing::estate::Shape;
use isoform::testing::stub::Stub;

use crate::Options;
use crate::measure::{Cost, child, cpu_of, mebibytes, resident, shown};

/// How many repositories are polled beside the estate's own.
const SOURCES: usize = 9;
const POLL: &str = "30s";
/// How long the daemon is left alone.
const IDLE: Duration = Duration::from_secs(60);

pub fn run(options: &Options) -> anyhow::Result<()> {
    let program = env!("CARGO_BIN_EXE_isoform");
    let size = std::fs::metadata(program)?.len();
    println!("the program as it was built: {}", mebibytes(size));
    let sizes = if options.services == 1000 {
        vec![100, 1000]
    } else {
        vec![options.services]
    };
    for services in sizes {
        of(options, services)?;
    }
    Ok(())
}

fn of(options: &Options, services: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().to_str().context("a path that is text")?;
    let begun = Instant::now();
    let done = child(&["roll-out", path, &services.to_string()])?.status()?;
    anyhow::ensure!(done.success(), "the roll-out");
    println!(
        "an estate of {services} services, rolled out in {}",
        shown(begun.elapsed())
    );
    for n in 0..SOURCES {
        crate::poll::repository(&folder.path().join(format!("other-{n}.git")), 10)?;
    }
    let server = crate::poll::Server::start(folder.path())?;
    let config = folder.path().join("config.yaml");
    let mut text = std::fs::read_to_string(&config)?.replace("poll: 1h", &format!("poll: {POLL}"));
    let others: String = (0..SOURCES)
        .map(|n| {
            format!(
                "  other-{n}: {{ url: '{}', may: {{ placements: [\"*\"] }} }}\n",
                server.url(&format!("other-{n}.git"))
            )
        })
        .collect();
    text = text.replace("bundle_stores:", &format!("{others}bundle_stores:"));
    std::fs::write(&config, text)?;
    let mut starts: Vec<[Cost; 2]> = Vec::new();
    for turn in 0..=options.repeat {
        let mut daemon = child(&["daemon", path])?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(daemon.stdout.take().context("its output")?).lines();
        let mut next = || anyhow::Ok(lines.next().context("the daemon has ended")??);
        let before = next()?;
        let serving = cost(&next()?)?;
        let looked = cost(&next()?)?;
        // The first start makes mirrors and takes the other sources in.
        if turn > 0 {
            starts.push([serving, looked]);
        }
        if turn == options.repeat {
            let process = daemon.id();
            // What was taken for the start is given back a little later.
            std::thread::sleep(Duration::from_secs(15));
            let before: Vec<u64> = before.split(' ').filter_map(|w| w.parse().ok()).collect();
            let (all, anonymous) = resident(&process.to_string());
            let used = cpu_of(process);
            std::thread::sleep(IDLE);
            let used = cpu_of(process) - used;
            println!(
                "idle: resident {}, of it anonymous {}; before the daemon, with the services loaded: {}, {}",
                mebibytes(all),
                mebibytes(anonymous),
                mebibytes(before[0]),
                mebibytes(before[1])
            );
            println!(
                "idle: {} of processor time in {} s, {} repositories polled every {POLL}: {:.2} % of a core",
                shown(used),
                IDLE.as_secs(),
                SOURCES + 1,
                used.as_secs_f64() / IDLE.as_secs_f64() * 100.0
            );
        }
        drop(daemon.stdin.take());
        anyhow::ensure!(daemon.wait()?.success(), "the daemon");
    }
    for (index, what) in ["start to serving", "start to the end of the first look"]
        .iter()
        .enumerate()
    {
        let costs: Vec<Cost> = starts.iter().map(|s| s[index]).collect();
        crate::measure::print(what, &costs, "");
    }
    Ok(())
}

/// Reads a line with two numbers of microseconds.
fn cost(line: &str) -> anyhow::Result<Cost> {
    let (wall, cpu) = line.split_once(' ').with_context(|| line.to_owned())?;
    Ok(Cost {
        wall: Duration::from_micros(wall.parse()?),
        cpu: Duration::from_micros(cpu.parse()?),
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}

/// Rolls an estate out and writes down what its services hold.
pub fn roll_out(folder: &str, services: &str) -> anyhow::Result<()> {
    let folder = Path::new(folder);
    let shape = Shape {
        services: services.parse()?,
        ..Shape::standard()
    };
    runtime()?.block_on(async {
        let running = crate::daemon::Running::of(folder, shape).await?;
        let stub = running.stub.clone();
        running.stop().await?;
        stub.save(&folder.join("stub.json"))?;
        Ok(())
    })
}

/// Runs the daemon over what was rolled out, until standard input ends.
///
/// Tells resident and anonymous bytes before it starts, then wall and processor time up to serving and up to the end of
/// the first look.
pub fn serve(folder: &str) -> anyhow::Result<()> {
    let folder = Path::new(folder);
    runtime()?.block_on(async {
        let stub = Stub::load(&folder.join("stub.json"))?;
        let (all, anonymous) = resident("self");
        println!("{all} {anonymous}");
        let started = crate::measure::Started::now();
        let told = |cost: Cost| println!("{} {}", cost.wall.as_micros(), cost.cpu.as_micros());
        let config = Config::load(&folder.join("config.yaml"))?;
        let socket = config.socket();
        let ports = Some(Arc::new(stub) as Arc<dyn isoform::port::Ports>);
        let built = daemon::build_on(config, Clock::system(), ports).await?;
        let (line, stop) = (built.line.clone(), built.stop.clone());
        let task = tokio::spawn(daemon::run(built, std::future::pending()));
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        told(started.cost());
        let (snapshot, _) = line.look("start", &Actor::daemon("bench")).await?;
        let id = snapshot.map(|s| s.id).unwrap_or_default();
        while !line.has_ended(id) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        told(started.cost());
        tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await?;
        stop.cancel();
        task.await??;
        Ok(())
    })
}
