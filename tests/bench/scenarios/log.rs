//! The log: durable appends beside SQLite alone, verification beside SHA-256 alone, and a question to many records.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use isoform::domain::audit::{Body, Entry, Stream, verify};
use isoform::domain::deployment::EventKind;
use isoform::domain::model::{Actor, Digest, TargetUid, Timestamp, sha256_hex};
use isoform::store::{Draft, RootKey, Store};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::Options;
use crate::measure::{Cost, Started, print, ratio, repeated, shown};

const WRITERS: usize = 8;
/// Single appends of each writer in one sample.
const SINGLE: usize = 100;
/// Groups of each writer in one sample, and records of each group.
const GROUPS: usize = 10;
const GROUP: usize = 64;
/// Records of the long log.
const LONG: usize = 100_000;
/// Targets of the long log.
const TARGETS: usize = 1_000;

fn uid(number: usize) -> TargetUid {
    format!("{number:032x}")
        .parse()
        .expect("32 hexadecimal digits")
}

/// A record of about 400 bytes, as a review leaves it.
fn draft(target: usize, number: usize) -> Draft {
    let summary = format!(
        "{} to modify, 1 to add; replacement of none; number {number}",
        number % 7
    );
    let kind = EventKind::Reviewed {
        review: Digest::of("r1", &number.to_le_bytes()),
        payload: Digest::of("payload", &target.to_le_bytes()),
        summary,
        losses: vec!["Bucket3 AWS::S3::Bucket".into()],
        settings_only: false,
    };
    Draft {
        stream: Stream::Target(uid(target)),
        stream_seq: None,
        at: Timestamp(1_700_000_000_000 + number as i64),
        actor: Actor::daemon("reconcile"),
        body: Body::Target(kind),
        payloads: vec![],
    }
}

async fn store(folder: &Path) -> anyhow::Result<Store> {
    Ok(Store::open(folder, &RootKey::from_bytes(&[7; 32])?).await?)
}

/// SQLite by the same library, with the same table: rows of the same size in transactions of a given size.
struct Alone(sqlx::SqlitePool, i64);

impl Alone {
    async fn open(folder: &Path) -> anyhow::Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(folder.join("alone.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await?;
        sqlx::query("CREATE TABLE log (seq BIGINT NOT NULL PRIMARY KEY, stream TEXT NOT NULL, stream_seq BIGINT NOT NULL, at BIGINT NOT NULL, actor TEXT NOT NULL, body TEXT NOT NULL, prev_hash TEXT NOT NULL, hash TEXT NOT NULL, UNIQUE (stream, stream_seq))").execute(&pool).await?;
        Ok(Self(pool, 0))
    }

    async fn write(&mut self, rows: &[Row], each: usize) -> anyhow::Result<()> {
        for rows in rows.chunks(each) {
            let mut tx = self.0.begin_with("BEGIN IMMEDIATE").await?;
            for row in rows {
                self.1 += 1;
                sqlx::query("INSERT INTO log (seq, stream, stream_seq, at, actor, body, prev_hash, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
                    .bind(self.1)
                    .bind(&row.stream)
                    .bind(self.1)
                    .bind(row.at)
                    .bind(&row.actor)
                    .bind(&row.body)
                    .bind(&row.hash)
                    .bind(&row.hash)
                    .execute(&mut *tx)
                    .await?;
            }
            tx.commit().await?;
        }
        Ok(())
    }
}

/// What SQLite is given, made before it is measured.
struct Row {
    stream: String,
    at: i64,
    actor: String,
    body: String,
    hash: String,
}

fn rows(many: usize) -> anyhow::Result<Vec<Row>> {
    (0..many)
        .map(|n| {
            let draft = draft(n % WRITERS, n);
            Ok(Row {
                stream: draft.stream.to_string(),
                at: draft.at.0,
                actor: serde_json::to_string(&draft.actor)?,
                body: serde_json::to_string(&draft.body)?,
                hash: "0".repeat(64),
            })
        })
        .collect()
}

/// Lets eight writers append, each waiting for its own before the next; returns how many commits that took.
async fn append(store: &Store, turns: usize, group: usize) -> anyhow::Result<u64> {
    let before = store.commits();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for turn in 0..turns {
                    let drafts = (0..group)
                        .map(|n| draft(writer, turn * group + n))
                        .collect();
                    for result in store.append_all(drafts).await {
                        result?;
                    }
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for writer in writers {
        writer.await??;
    }
    Ok(store.commits() - before)
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        groups(options, SINGLE, 1).await?;
        groups(options, GROUPS, GROUP).await?;
        single(options).await?;
        long(options).await
    })
}

async fn groups(options: &Options, turns: usize, group: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let store = store(folder.path()).await?;
    let mut alone = Alone::open(folder.path()).await?;
    let records = WRITERS * turns * group;
    let rows = rows(records)?;
    let (mut ours, mut floor, mut commits) = (Vec::new(), Vec::new(), 0);
    let mut each = 1;
    for _ in 0..options.repeat {
        let started = Started::now();
        let made = append(&store, turns, group).await?;
        ours.push(started.cost());
        commits += made;
        each = (records as f64 / made as f64).round().max(1.0) as usize;
        let started = Started::now();
        alone.write(&rows, each).await?;
        floor.push(started.cost());
    }
    println!("{WRITERS} writers, {group} records at a time, {records} records:");
    let rate = |costs: &[Cost]| {
        format!(
            "{:.0} records/s",
            records as f64 / crate::measure::median(costs).wall.as_secs_f64()
        )
    };
    let commits = commits as f64 / options.repeat as f64;
    print(
        "isoform",
        &ours,
        &format!(
            "{}, {commits:.0} commits, {:.1} records in one",
            rate(&ours),
            records as f64 / commits
        ),
    );
    print(
        "floor: SQLite alone, the same batches",
        &floor,
        &format!("{}, {each} records in one", rate(&floor)),
    );
    ratio("SQLite alone to isoform", &floor, &ours);
    Ok(())
}

async fn single(options: &Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let store = store(folder.path()).await?;
    let mut file = std::fs::File::create(folder.path().join("file"))?;
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for number in 0..options.repeat * 40 {
        let started = Instant::now();
        file.write_all(&[b'x'; 512])?;
        file.sync_data()?;
        floor.push(started.elapsed());
        let started = Instant::now();
        store.append(draft(1, number)).await?;
        ours.push(started.elapsed());
    }
    let quantile = |times: &mut Vec<Duration>, part: usize| {
        times.sort();
        times[times.len() * part / 100]
    };
    let (a, b) = (quantile(&mut ours, 50), quantile(&mut floor, 50));
    println!(
        "one record at a time: p50 {} p99 {}; 512 bytes and fdatasync: p50 {} p99 {}; {:.1}× by p50",
        shown(a),
        shown(quantile(&mut ours, 99)),
        shown(b),
        shown(quantile(&mut floor, 99)),
        a.as_secs_f64() / b.as_secs_f64()
    );
    Ok(())
}

async fn long(options: &Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let store = store(folder.path()).await?;
    let started = Started::now();
    for at in (0..LONG).step_by(1_000) {
        let drafts = (at..at + 1_000)
            .map(|n| draft(n * 7 % TARGETS, n))
            .collect();
        for result in store.append_all(drafts).await {
            result?;
        }
    }
    print(
        "append 100,000 records, 1,000 at a time",
        &[started.cost()],
        "",
    );
    let entries: Vec<Entry> = store.entries(1, u64::MAX).await?;
    let bytes: Vec<Vec<u8>> = entries.iter().map(Entry::canonical).collect();
    let total: usize = bytes.iter().map(Vec::len).sum();
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..options.repeat {
        let started = Started::now();
        for bytes in &bytes {
            std::hint::black_box(sha256_hex(bytes));
        }
        floor.push(started.cost());
        let started = Started::now();
        let verified = verify(&entries, &[], &|_, _| false)?;
        anyhow::ensure!(verified.entries == LONG as u64);
        ours.push(started.cost());
    }
    let rate = |costs: &[Cost]| {
        let cpu = crate::measure::median(costs).cpu;
        format!("{:.0} MB/s by cpu", total as f64 / 1e6 / cpu.as_secs_f64())
    };
    print(
        "verify the chain",
        &ours,
        &format!("{}, {total} bytes", rate(&ours)),
    );
    print("floor: SHA-256 of the same bytes", &floor, &rate(&floor));
    ratio("verification to SHA-256 alone", &ours, &floor);
    drop((entries, bytes));
    let costs = repeated(options.repeat * 20, || {
        let stream = Stream::Target(uid(77));
        let found = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(store.stream(&stream))
        })?;
        anyhow::ensure!(found.len() == LONG / TARGETS);
        Ok(())
    })?;
    print(
        "who changed one target, and when",
        &costs,
        &format!("{} of {LONG} records", LONG / TARGETS),
    );
    let costs = repeated(options.repeat, || {
        let log = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(isoform::store::read_log(folder.path()))
        })?;
        anyhow::ensure!(log.0.len() == LONG);
        Ok(())
    })?;
    print("read the log from disk, before it is verified", &costs, "");
    Ok(())
}
