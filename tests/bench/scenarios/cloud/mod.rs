//! AWS behind the ports: a first roll-out, a sweep, and operations in flight, through the SDK and over HTTP, beside raw calls of the
//! SDK and a script of threads in the same run.

pub mod far;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_cloudformation::Client;
use aws_sdk_cloudformation::types::ChangeSetType;
use isoform::aws::{Aws, Place, Reach, Role, Session, Stacks};
use isoform::clock::Clock;
use isoform::config::Config;
use isoform::daemon;
use isoform::domain::model::{Actor, SyncResult};
use isoform::port::{Pages, StackEngine};
use isoform::reconcile::Line;
use isoform::store::RootKey;
use isoform::testing::estate::{Estate, PLACEMENTS, Shape};
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::measure::{Cost, Started, child, print, ratio, shown};

const STACKS: usize = 100;
const IN_FLIGHT: usize = 500;
const THREADS: usize = 32;

/// Starts the stand-in and, with credentials that it knows, whoever measures.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let mut far = child(&["cloud-far"])?.stdout(Stdio::piped()).spawn()?;
    let mut address = String::new();
    if let Some(out) = far.stdout.take() {
        BufReader::new(out).read_line(&mut address)?;
    }
    let repeat = options.repeat.to_string();
    let done = child(&["cloud-measured", address.trim(), &repeat])?
        .env("AWS_ACCESS_KEY_ID", "ASIA000000000001")
        .env("AWS_SECRET_ACCESS_KEY", "s")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .status();
    far.kill()?;
    far.wait()?;
    anyhow::ensure!(done?.success(), "it could not be measured");
    Ok(())
}

pub fn measured(address: &str, repeat: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let far = Far(address.to_owned());
    let repeat = repeat.parse()?;
    runtime.block_on(async {
        first_roll_out(&far, repeat).await?;
        sweep(&far, repeat).await?;
        in_flight(&far, false).await?;
        in_flight(&far, true).await
    })
}

/// The stand-in, as whoever measures sees it.
struct Far(String);

type Calls = BTreeMap<String, u64>;

impl Far {
    async fn ask(&self, what: &str) -> anyhow::Result<serde_json::Value> {
        let answer = reqwest::get(format!("{}/-/{what}", self.0)).await?;
        Ok(serde_json::from_str(&answer.text().await?)?)
    }

    async fn calls(&self, what: &str) -> anyhow::Result<Calls> {
        Ok(serde_json::from_value(self.ask(what).await?)?)
    }

    async fn session(&self, account: usize) -> anyhow::Result<Session> {
        let reach = Reach {
            endpoint: Some(self.0.clone()),
            session: "bench".into(),
            ..Reach::default()
        };
        let role = Role {
            arn: format!("arn:aws:iam::{account:012}:role/isoform-apply"),
            external_id: None,
        };
        let region = "us-east-1".parse()?;
        Ok(Aws::connect(reach).await.session(&region, &[role]).await)
    }

    /// Runs the script; a machine without boto3 goes without.
    fn script(&self, words: &[&str]) -> anyhow::Result<Option<(Cost, u64)>> {
        let python = std::env::var("ISOFORM_BENCH_PYTHON").unwrap_or_else(|_| "python3".into());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/threads.py");
        let out = std::process::Command::new(python)
            .arg(path)
            .arg(&self.0)
            .args(words)
            .output()?;
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr);
            println!("no script: {}", said.lines().last().unwrap_or_default());
            return Ok(None);
        }
        let told: serde_json::Value = serde_json::from_slice(&out.stdout)?;
        let time = |name: &str| Duration::from_secs_f64(told[name].as_f64().unwrap_or_default());
        let cost = Cost {
            wall: time("wall"),
            cpu: time("cpu"),
        };
        Ok(Some((cost, told["calls"].as_u64().unwrap_or_default())))
    }
}

/// A configuration on the stand-in; `base` makes the accounts another's.
fn configure(
    folder: &Path,
    origin: &Path,
    far: &Far,
    base: usize,
    hints: bool,
) -> anyhow::Result<PathBuf> {
    let mut text = format!("isoform: 1\naws: {{ endpoint: '{}' }}\naccounts:\n", far.0);
    for index in 0..PLACEMENTS {
        let account = format!("{:012}", base + index);
        let hints = match hints {
            true => format!(", hints: {{ queue: 'arn:aws:sqs:us-east-1:{account}:hints' }}"),
            false => String::new(),
        };
        writeln!(
            text,
            "  account-{index}: {{ id: \"{account}\", roles: {{ apply: isoform-apply }}{hints} }}"
        )?;
    }
    text.push_str("placements:\n");
    for index in 0..PLACEMENTS {
        writeln!(
            text,
            "  place-{index}: {{ account: account-{index}, regions: [us-east-1], mode: auto, blast_radius: 1000000 }}"
        )?;
    }
    write!(
        text,
        "sources:\n  estate:\n    url: {}\n    may: {{ templates: [\"*\"], environments: [\"*\"], services: [\"*\"], placements: [\"*\"] }}\n\
bundle_stores:\n  main: {{ url: \"s3://bench/r{base}\", owner: \"000000000001\", region: us-east-1, encryption: sse-s3 }}\n\
state: {{ path: state, key: \"file:root.key\" }}\npoll: 1h\nsweep: 1h\nworkers: 1024\n",
        origin.display()
    )?;
    let path = folder.join("config.yaml");
    std::fs::write(&path, text)?;
    Ok(path)
}

struct Running {
    line: Arc<Line>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<anyhow::Result<bool>>,
}

impl Running {
    async fn start(config: &Path) -> anyhow::Result<Self> {
        let built = daemon::build_on(Config::load(config)?, Clock::system(), None).await?;
        let (line, stop) = (built.line.clone(), built.stop.clone());
        let task = tokio::spawn(daemon::run(built, std::future::pending()));
        Ok(Self { line, stop, task })
    }

    async fn look(&self) -> anyhow::Result<()> {
        let (snapshot, _) = self.line.look("push", &Actor::daemon("bench")).await?;
        let id = snapshot.map(|s| s.id).unwrap_or_default();
        while !self.line.has_ended(id) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn all_in_sync(&self) -> anyhow::Result<()> {
        let report = self.line.estate().await?;
        let other = report
            .targets
            .iter()
            .find(|t| t.condition.result != SyncResult::InSync);
        if let Some(t) = other {
            anyhow::bail!("{}: {} {}", t.address, t.condition, t.condition.detail);
        }
        Ok(())
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.task.await??;
        Ok(())
    }
}

/// One environment and so many instances of small templates, all in one account.
fn shape(instances: usize) -> Shape {
    Shape {
        environments: 1,
        templates: 2,
        services: instances / 10,
        instances: 10,
        lines: 40,
        waves: 0,
        seed: 1,
    }
}

fn per(calls: &Calls, stacks: usize) -> String {
    let of_s3 = |name: &str| name.contains("Object");
    let of = |s3: bool| {
        let some = calls.iter().filter(|(name, _)| of_s3(name) == s3);
        some.map(|(_, n)| n).sum::<u64>() as f64 / stacks as f64
    };
    format!(
        "{:.2} calls and {:.2} of S3 a stack {calls:?}",
        of(false),
        of(true)
    )
}

/// From an empty account to every stack made, rendered, bundled and logged; then the same again with nothing changed.
async fn first_roll_out(far: &Far, repeat: usize) -> anyhow::Result<()> {
    let (mut ours, mut raw, mut wide, mut script) = (vec![], vec![], vec![], vec![]);
    let stacks = STACKS + 1;
    for turn in 0..repeat {
        let base = 1000 + turn * 100;
        let folder = tempfile::tempdir()?;
        let origin = folder.path().join("origin.git");
        let _estate = Estate::make(&origin, shape(STACKS))?;
        RootKey::read_or_make(&folder.path().join("root.key"))?;
        let config = configure(folder.path(), &origin, far, base, false)?;
        far.calls("calls").await?;

        let started = Started::now();
        let running = Running::start(&config).await?;
        running.look().await?;
        ours.push(started.cost());
        running.all_in_sync().await?;
        let calls = far.calls("calls").await?;
        println!("a first roll-out: {}", per(&calls, stacks));

        let started = Started::now();
        running.line.sweep().await?;
        running.look().await?;
        let cost = started.cost();
        let calls = far.calls("calls").await?;
        println!(
            "a sync with nothing changed: wall {} cpu {} {calls:?}",
            shown(cost.wall),
            shown(cost.cpu)
        );
        running.stop().await?;

        let url = "https://s3.us-east-1.amazonaws.com/bench/t";
        for (threads, costs) in [(1, &mut raw), (THREADS, &mut wide)] {
            let session = far.session(base + 10 + threads).await?;
            let client = Client::new(session.config());
            let started = Started::now();
            let mut tasks = Vec::new();
            for thread in 0..threads {
                let client = client.clone();
                tasks.push(tokio::spawn(async move {
                    for index in (thread..stacks).step_by(threads) {
                        raw_calls(&client, &format!("raw-{index}"), url).await?;
                    }
                    anyhow::Ok(())
                }));
            }
            for task in tasks {
                task.await??;
            }
            costs.push(started.cost());
        }
        let (count, threads) = (stacks.to_string(), THREADS.to_string());
        if let Some((cost, _)) = far.script(&["deploy", &count, &threads, url])? {
            script.push(cost);
        }
    }
    print("first roll-out of 101 stacks", &ours, "");
    print("raw calls of the SDK, one after the other", &raw, "");
    print(
        &format!("raw calls of the SDK, {THREADS} at once"),
        &wide,
        "",
    );
    print(&format!("a script of {THREADS} threads"), &script, "");
    ratio("the roll-out to the raw calls", &ours, &raw);
    ratio("the roll-out to those at once", &ours, &wide);
    ratio("the roll-out to the script", &ours, &script);
    let each = crate::measure::median(&ours).cpu / u32::try_from(stacks)?;
    println!("processor time a stack: {}", shown(each));
    Ok(())
}

/// The calls that nobody can do without.
async fn raw_calls(client: &Client, name: &str, url: &str) -> anyhow::Result<()> {
    let made = client
        .create_change_set()
        .stack_name(name)
        .change_set_name("c")
        .change_set_type(ChangeSetType::Create)
        .template_url(url)
        .send()
        .await?;
    let set = made.id().unwrap_or_default();
    let describe = client.describe_change_set().change_set_name(set);
    describe.send().await?;
    let execute = client.execute_change_set().change_set_name(set);
    execute.send().await?;
    client.describe_stacks().stack_name(name).send().await?;
    Ok(())
}

/// All summaries of 10,000 stacks.
async fn sweep(far: &Far, repeat: usize) -> anyhow::Result<()> {
    far.ask("seed?stacks=10000").await?;
    let place = Place {
        account: "000000000009".parse()?,
        service_role: None,
    };
    let engine = Stacks::new(far.session(9).await?, place, Clock::system());
    engine.list(None).await?;
    far.calls("calls").await?;
    let raw_client = Client::new(far.session(9).await?.config());
    raw_client.list_stacks().send().await?;
    far.calls("calls").await?;
    let (mut ours, mut raw, mut texts, mut script) = (vec![], vec![], vec![], vec![]);
    let mut calls = Calls::new();
    for _ in 0..repeat {
        let started = Started::now();
        let (mut pages, mut found) = (Pages::default(), 0);
        while pages.go_on() {
            let page = engine.list(pages.token()).await?;
            found += page.items.len();
            pages.turn(page.next)?;
        }
        ours.push(started.cost());
        anyhow::ensure!(found == 10_000, "{found} summaries");
        calls = far.calls("calls").await?;
        let started = Started::now();
        let mut pages = raw_client.list_stacks().into_paginator().send();
        let mut found = 0;
        while let Some(page) = pages.next().await {
            found += page?.stack_summaries().len();
        }
        raw.push(started.cost());
        anyhow::ensure!(found == 10_000, "{found} summaries");
        texts.push(pages_as_text(far).await?);
        if let Some((cost, _)) = far.script(&["list"])? {
            script.push(cost);
        }
        far.calls("calls").await?;
    }
    print("a sweep of 10,000 stacks", &ours, &format!("{calls:?}"));
    print("raw calls of the SDK for the same", &raw, "");
    print("the same pages as text, nothing read", &texts, "");
    print("the same by the script", &script, "");
    ratio("the sweep to the raw calls", &ours, &raw);
    ratio("the sweep to the pages as text", &ours, &texts);
    ratio("the sweep to the script", &ours, &script);
    let each = crate::measure::median(&ours).cpu / 100;
    println!("processor time a page: {}", shown(each));
    Ok(())
}

/// The same exchange without signature, types or XML: what sockets and HTTP cost.
async fn pages_as_text(far: &Far) -> anyhow::Result<Cost> {
    let client = reqwest::Client::new();
    let started = Started::now();
    let mut token = String::new();
    loop {
        let body = format!(
            "Action=ListStacks&StackStatusFilter.member.1=UPDATE_COMPLETE&NextToken={token}"
        );
        let signed = "AWS4-HMAC-SHA256 Credential=ASIA000000000009/20260101/us-east-1/x";
        let asked = client.post(format!("{}/", far.0)).body(body);
        let text = asked.header("authorization", signed).send().await?;
        let text = text.text().await?;
        let next = text.split_once("<NextToken>").map(|(_, rest)| rest);
        let Some((next, _)) = next.and_then(|rest| rest.split_once('<')) else {
            break;
        };
        token = next.replace(':', "%3A").replace('/', "%2F");
    }
    Ok(started.cost())
}

/// Updates that take 0.2 to 60 seconds: how long after each end it is in the log, and at how many calls.
async fn in_flight(far: &Far, hints: bool) -> anyhow::Result<()> {
    let base = if hints { 6000 } else { 5000 };
    let folder = tempfile::tempdir()?;
    let origin = folder.path().join("origin.git");
    let mut estate = Estate::make(&origin, shape(IN_FLIGHT))?;
    RootKey::read_or_make(&folder.path().join("root.key"))?;
    let config = configure(folder.path(), &origin, far, base, hints)?;
    far.ask("takes?least=0&most=0").await?;
    let running = Running::start(&config).await?;
    running.look().await?;
    running.all_in_sync().await?;
    far.ask("takes?least=200&most=60000").await?;
    estate.touch_every_instance(IN_FLIGHT / 10)?;
    far.calls("calls").await?;

    let started = Started::now();
    let look = running.look();
    let begun = async {
        loop {
            let calls = far.calls("calls?keep=1").await?;
            if calls.get("ExecuteChangeSet").copied().unwrap_or_default() >= IN_FLIGHT as u64 {
                return anyhow::Ok((calls, Started::now()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (looked, begun) = tokio::join!(look, begun);
    looked?;
    let (before, watched) = begun?;
    let (whole, cost) = (started.cost(), watched.cost());
    let after = far.calls("calls").await?;
    running.all_in_sync().await?;
    let ends: BTreeMap<String, i64> = serde_json::from_value(far.ask("ends").await?)?;
    let mut late: Vec<i64> = Vec::new();
    for target in running.line.estate().await?.targets {
        let end = target.stack_name.and_then(|name| ends.get(&name).copied());
        if let (Some(end), Some((_, _, at))) = (end.filter(|e| *e > 0), target.last) {
            late.push(at.0 - end);
        }
    }
    late.sort_unstable();
    let at = |part: usize| {
        late.get(late.len() * part / 100)
            .copied()
            .unwrap_or_default()
    };
    let since = |name: &str| {
        let of = |calls: &Calls| calls.get(name).copied().unwrap_or_default();
        of(&after) - of(&before)
    };
    let seconds = cost.wall.as_secs_f64();
    let (lists, describes) = (since("ListStacks"), since("DescribeStacks"));
    let hears = since("ReceiveMessage") + since("DeleteMessageBatch");
    println!(
        "{} in flight{}: recorded {} ms after the end at the median, {} ms at p95, {} ms at most; {seconds:.1} s watched",
        late.len(),
        if hints { ", with hints" } else { "" },
        at(50),
        at(95),
        late.last().copied().unwrap_or_default(),
    );
    println!(
        "  a second: {:.2} listings, {:.2} descriptions, {:.2} of SQS; processor time {} watched, {} in all",
        lists as f64 / seconds,
        describes as f64 / seconds,
        hears as f64 / seconds,
        shown(cost.cpu),
        shown(whole.cpu)
    );
    println!("  {after:?}");
    running.stop().await
}
