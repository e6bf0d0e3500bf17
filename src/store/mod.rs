//! The daemon's own database: log, payloads, keys, and what is shown of targets.
//!
//! SQLite through sqlx; the SQL is portable, so that PostgreSQL can join as the second kind of [`Store`]. `seq` and
//! `prev_hash` are given once per group commit: whoever comes first commits for everybody who waits. Payloads are
//! encrypted, entries are not: the chain verifies without any key.

mod keyring;
mod log;
mod outbox;

pub(crate) use keyring::unhex;
pub use keyring::{Keyring, RootKey};
pub use log::{Appended, Draft};
pub use outbox::Posted;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Row, Sqlite, Transaction};
use tokio::sync::watch;

use crate::domain::audit::{Checkpoint, Countersignature, End, Entry, Stream};
use crate::domain::model::{Condition, Digest, TargetUid};

/// Why the store cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error("using the state database")]
    Database(#[from] sqlx::Error),
    /// The database could not be brought to this release's shape.
    #[error("migrating the state database")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// Somebody appended to the stream first.
    #[error("the stream {0} has moved on")]
    Conflict(String),
    /// A row cannot be read: damage, or a newer release.
    #[error("the row {0} of the state database cannot be read")]
    Row(String, #[source] serde_json::Error),
    /// A key is wrong or a ciphertext was changed.
    #[error("{0}")]
    Crypto(String),
    /// A file.
    #[error("using {0}")]
    File(String, #[source] std::io::Error),
    /// Another commit failed for everybody who waited for it.
    #[error("the commit failed: {0}")]
    Commit(String),
}

/// The state database.
#[derive(Clone)]
pub struct Store {
    pool: SqlitePool,
    keyring: Keyring,
    pending: Arc<Mutex<Vec<log::Request>>>,
    commit: Arc<tokio::sync::Mutex<()>>,
    head: watch::Sender<u64>,
    /// What is to be shown of targets and is not written yet.
    shown: Arc<Mutex<BTreeMap<TargetUid, Shown>>>,
    /// Up to which entry the log was shipped; it is written with the next commit.
    shipped: watch::Sender<u64>,
    /// Up to which entry the database says that it was shipped.
    written: Arc<AtomicU64>,
    commits: Arc<AtomicU64>,
}

/// What is shown of a target.
struct Shown {
    address: String,
    condition: String,
    epoch: i64,
}

impl Shown {
    async fn write(
        &self,
        uid: &TargetUid,
        tx: &mut Transaction<'static, Sqlite>,
    ) -> Result<(), Error> {
        sqlx::query("INSERT INTO targets (uid, address, condition, owner, epoch, expires_at) VALUES ($1, $2, $3, '', $4, 0) ON CONFLICT (uid) DO UPDATE SET address = excluded.address, condition = excluded.condition WHERE targets.epoch = excluded.epoch")
            .bind(uid.as_str())
            .bind(&self.address)
            .bind(&self.condition)
            .bind(self.epoch)
            .execute(&mut **tx)
            .await?;
        Ok(())
    }
}

/// A log as it lies on disk: entries, checkpoints, and sealed payloads by digest, and how many
/// entries were shipped.
pub type RawLog = (Vec<Entry>, Vec<Checkpoint>, BTreeMap<Digest, Vec<u8>>, u64);

fn checkpoint(row: &SqliteRow) -> Result<Checkpoint, Error> {
    let seq = row.try_get::<i64, _>("seq")?;
    let countersigned: Option<String> = match row.try_get("countersigned") {
        Err(sqlx::Error::ColumnNotFound(_)) => None,
        other => other?,
    };
    let countersigned = countersigned.map(|text| serde_json::from_str(&text));
    Ok(Checkpoint {
        seq: seq as u64,
        log: row.try_get("log")?,
        hash: row.try_get("hash")?,
        at: crate::domain::model::Timestamp(row.try_get("at")?),
        signature: row.try_get("signature")?,
        countersigned: countersigned
            .transpose()
            .map_err(|e| Error::Row(format!("checkpoint {seq}"), e))?,
    })
}

fn written(countersigned: Option<&Countersignature>) -> Result<Option<String>, Error> {
    let text = countersigned.map(serde_json::to_string).transpose();
    text.map_err(|e| Error::Row("checkpoint".into(), e))
}

async fn read_only(folder: &Path) -> Result<SqlitePool, Error> {
    let options = SqliteConnectOptions::new()
        .filename(folder.join("isoform.db"))
        .read_only(true)
        .busy_timeout(Duration::from_secs(20));
    Ok(SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await?)
}

/// Reads a log without any key and without a daemon. An entry that cannot be read is an error that names it.
pub async fn read_log(folder: &Path) -> Result<RawLog, Error> {
    let pool = read_only(folder).await?;
    let rows = sqlx::query(
        "SELECT seq, stream, stream_seq, at, actor, body, prev_hash, hash FROM log ORDER BY seq",
    )
    .fetch_all(&pool)
    .await?;
    let entries = rows.iter().map(log::entry).collect::<Result<Vec<_>, _>>()?;
    // Every column: what an earlier release has left is read as it is, and lacks some.
    let rows = sqlx::query("SELECT * FROM checkpoints ORDER BY seq")
        .fetch_all(&pool)
        .await?;
    let checkpoints = rows.iter().map(checkpoint).collect::<Result<Vec<_>, _>>()?;
    let rows = sqlx::query("SELECT digest, body FROM payloads")
        .fetch_all(&pool)
        .await?;
    let mut payloads = BTreeMap::new();
    for row in rows {
        let digest: String = row.try_get(0)?;
        if let Ok(digest) = digest.parse() {
            payloads.insert(digest, row.try_get(1)?);
        }
    }
    let row = sqlx::query("SELECT shipped FROM head WHERE id = 1")
        .fetch_optional(&pool)
        .await?;
    let shipped = row.map_or(Ok(0i64), |r| r.try_get(0))? as u64;
    pool.close().await;
    Ok((entries, checkpoints, payloads, shipped))
}

/// Opens the keys of a state folder without a daemon.
pub async fn read_keyring(folder: &Path, root: &RootKey) -> Result<Keyring, Error> {
    let pool = read_only(folder).await?;
    let rows = sqlx::query("SELECT id, wrapped FROM data_keys")
        .fetch_all(&pool)
        .await?;
    let wrapped = rows
        .iter()
        .map(|r| Ok((r.try_get(0)?, r.try_get(1)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    pool.close().await;
    Keyring::open(root, &wrapped)
}

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("src/store/migrations");

impl Store {
    /// Opens the database in a state folder, making it where there is none, and opens its keys with the root key.
    pub async fn open(folder: &Path, root: &RootKey) -> Result<Self, Error> {
        crate::secret_file::folder(folder)
            .map_err(|e| Error::File(folder.display().to_string(), e))?;
        let path = folder.join("isoform.db");
        // Made with its mode before SQLite opens it: there is no moment when others could read it.
        crate::secret_file::read_or_make(&path, || Ok(zeroize::Zeroizing::new(Vec::new())))
            .map_err(|e| Error::File(path.display().to_string(), e))?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(20));
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await?;
        MIGRATIONS.run(&pool).await?;
        let rows = sqlx::query("SELECT id, wrapped FROM data_keys")
            .fetch_all(&pool)
            .await?;
        let mut wrapped = Vec::new();
        for row in rows {
            wrapped.push((row.try_get::<String, _>(0)?, row.try_get::<Vec<u8>, _>(1)?));
        }
        let keyring = Keyring::open(root, &wrapped)?;
        for (id, bytes) in keyring.made() {
            sqlx::query("INSERT INTO data_keys (id, wrapped) VALUES ($1, $2)")
                .bind(id)
                .bind(bytes)
                .execute(&pool)
                .await?;
        }
        let row = sqlx::query("SELECT seq, shipped FROM head WHERE id = 1")
            .fetch_optional(&pool)
            .await?;
        let (seq, shipped): (i64, i64) = match row {
            Some(row) => (row.try_get(0)?, row.try_get(1)?),
            None => {
                sqlx::query("INSERT INTO head (id, seq, hash, shipped) VALUES (1, 0, $1, 0)")
                    .bind(crate::domain::audit::GENESIS)
                    .execute(&pool)
                    .await?;
                (0, 0)
            }
        };
        let (head, _) = watch::channel(seq as u64);
        let written = Arc::new(AtomicU64::new(shipped as u64));
        let (shipped, _) = watch::channel(shipped as u64);
        Ok(Self {
            pool,
            keyring,
            pending: Arc::default(),
            commit: Arc::default(),
            head,
            shown: Arc::default(),
            shipped,
            written,
            commits: Arc::default(),
        })
    }

    /// Tells whether a state folder holds no log yet.
    pub async fn is_empty(&self) -> Result<bool, Error> {
        Ok(*self.head.borrow() == 0)
    }

    /// Replaces the keys by those that were shipped, before anything was written.
    pub async fn adopt_keys(
        &mut self,
        root: &RootKey,
        wrapped: &[(String, Vec<u8>)],
    ) -> Result<(), Error> {
        let keyring = Keyring::open(root, wrapped)?;
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM data_keys")
            .execute(&mut *tx)
            .await?;
        for (id, bytes) in wrapped.iter().chain(&keyring.made()) {
            sqlx::query("INSERT INTO data_keys (id, wrapped) VALUES ($1, $2)")
                .bind(id)
                .bind(bytes)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        self.keyring = keyring;
        Ok(())
    }

    /// Returns the wrapped data keys.
    pub async fn wrapped_keys(&self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let rows = sqlx::query("SELECT id, wrapped FROM data_keys ORDER BY id")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|r| Ok((r.try_get(0)?, r.try_get(1)?)))
            .collect()
    }

    /// Returns the keys.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, Error> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Tells of every commit: the number of the newest entry.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Reads a value that belongs to the installation.
    pub async fn meta(&self, name: &str) -> Result<Option<String>, Error> {
        let row = sqlx::query("SELECT value FROM meta WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|r| Ok(r.try_get(0)?)).transpose()
    }

    /// Writes a value that belongs to the installation.
    pub async fn set_meta(&self, name: &str, value: &str) -> Result<(), Error> {
        sqlx::query("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value").bind(name).bind(value).execute(&self.pool).await?;
        Ok(())
    }

    /// Returns entries in order, from a number on.
    pub async fn entries(&self, from: u64, most: u64) -> Result<Vec<Entry>, Error> {
        let rows = sqlx::query("SELECT seq, stream, stream_seq, at, actor, body, prev_hash, hash FROM log WHERE seq >= $1 ORDER BY seq LIMIT $2")
            .bind(from as i64)
            .bind(most.min(i64::MAX as u64) as i64)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(log::entry).collect()
    }

    /// Returns the end of the log: what a walk over the entries that follow begins with.
    pub async fn end(&self) -> Result<End, Error> {
        let mut tx = self.pool.begin().await?;
        let head = sqlx::query("SELECT seq, hash FROM head WHERE id = 1")
            .fetch_one(&mut *tx)
            .await?;
        let rows = sqlx::query("SELECT stream, MAX(stream_seq) FROM log GROUP BY stream")
            .fetch_all(&mut *tx)
            .await?;
        let mut streams = BTreeMap::new();
        for row in rows {
            let name: String = row.try_get(0)?;
            let bad = |e| Error::Row("log".into(), e);
            let stream = serde_json::from_value(serde_json::Value::String(name)).map_err(bad)?;
            streams.insert(stream, row.try_get::<i64, _>(1)? as u64);
        }
        Ok(End {
            seq: head.try_get::<i64, _>(0)? as u64,
            hash: head.try_get(1)?,
            streams,
        })
    }

    /// Returns the entries of a stream in order.
    pub async fn stream(&self, stream: &Stream) -> Result<Vec<Entry>, Error> {
        let rows = sqlx::query("SELECT seq, stream, stream_seq, at, actor, body, prev_hash, hash FROM log WHERE stream = $1 ORDER BY stream_seq")
            .bind(stream.to_string())
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(log::entry).collect()
    }

    /// Returns every checkpoint, the oldest first.
    pub async fn checkpoints(&self) -> Result<Vec<Checkpoint>, Error> {
        let mut all = self.newest_checkpoints(u64::MAX, u32::MAX).await?;
        all.reverse();
        Ok(all)
    }

    /// Returns the newest checkpoints over entries up to a number, the newest first.
    pub async fn newest_checkpoints(
        &self,
        up_to: u64,
        most: u32,
    ) -> Result<Vec<Checkpoint>, Error> {
        let rows = sqlx::query("SELECT seq, log, hash, at, signature, countersigned FROM checkpoints WHERE seq <= $1 ORDER BY seq DESC LIMIT $2")
            .bind(i64::try_from(up_to).unwrap_or(i64::MAX))
            .bind(i64::from(most))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(checkpoint).collect()
    }

    /// Keeps a checkpoint. One that is known takes a countersignature that it lacks.
    pub async fn add_checkpoint(&self, c: &Checkpoint) -> Result<(), Error> {
        crate::testing::at_store("checkpoint")
            .await
            .map_err(Error::Commit)?;
        let countersigned = written(c.countersigned.as_ref())?;
        sqlx::query("INSERT INTO checkpoints (seq, log, hash, at, signature, countersigned) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (seq) DO UPDATE SET countersigned = excluded.countersigned WHERE checkpoints.countersigned IS NULL AND checkpoints.hash = excluded.hash AND checkpoints.at = excluded.at")
            .bind(c.seq as i64)
            .bind(&c.log)
            .bind(&c.hash)
            .bind(c.at.0)
            .bind(&c.signature)
            .bind(countersigned)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Returns the last entry that a countersigned checkpoint stands at; 0 where none is.
    pub async fn countersigned_to(&self) -> Result<u64, Error> {
        let row = sqlx::query(
            "SELECT COALESCE(MAX(seq), 0) FROM checkpoints WHERE countersigned IS NOT NULL",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(row.try_get::<i64, _>(0)? as u64)
    }

    /// Returns the newest entry's number, and the number up to which entries were shipped.
    pub fn head(&self) -> (u64, u64) {
        (*self.head.borrow(), *self.shipped.borrow())
    }

    /// Remembers that entries were shipped. It is written with the next commit: what it says too little is found out
    /// where they lie.
    pub fn shipped(&self, to: u64) {
        self.shipped.send_if_modified(|shipped| {
            let further = to > *shipped;
            *shipped = to.max(*shipped);
            further
        });
    }

    /// Returns how many commits were made since the database was opened.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    fn is_flushed(&self) -> bool {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.is_empty() && self.written.load(Ordering::Relaxed) == *self.shipped.borrow()
    }

    fn take_shown(&self) -> BTreeMap<TargetUid, Shown> {
        std::mem::take(&mut *self.shown.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn show_again(&self, earlier: BTreeMap<TargetUid, Shown>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for (uid, before) in earlier {
            shown.entry(uid).or_insert(before);
        }
    }

    /// Opens a payload.
    pub async fn payload(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let row = sqlx::query("SELECT body FROM payloads WHERE digest = $1")
            .bind(digest.as_str())
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let sealed: Vec<u8> = row.try_get(0)?;
        let open = self.keyring.open_payload(digest, &sealed)?;
        if self.keyring.hasher().digest("payload", &open) != *digest {
            return Err(Error::Crypto(format!("the payload {digest} was changed")));
        }
        Ok(Some(open))
    }

    /// Returns payloads as they are stored, for shipping.
    pub async fn sealed_payloads(
        &self,
        digests: &[Digest],
    ) -> Result<Vec<(Digest, Vec<u8>)>, Error> {
        let mut out = Vec::new();
        for digest in digests {
            let row = sqlx::query("SELECT body FROM payloads WHERE digest = $1")
                .bind(digest.as_str())
                .fetch_optional(&self.pool)
                .await?;
            if let Some(row) = row {
                out.push((digest.clone(), row.try_get(0)?));
            }
        }
        Ok(out)
    }

    /// Says what is shown of a target. `epoch` must be the one under which the caller holds it.
    ///
    /// It is written with the next entry, or by [`Self::flush`]: all of it can be found out again after a crash.
    pub fn show(
        &self,
        uid: &TargetUid,
        address: &str,
        condition: &Condition,
        epoch: i64,
    ) -> Result<(), Error> {
        let condition =
            serde_json::to_string(condition).map_err(|e| Error::Row("condition".into(), e))?;
        let shown = Shown {
            address: address.to_owned(),
            condition,
            epoch,
        };
        self.shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(uid.clone(), shown);
        Ok(())
    }

    /// Returns what is shown of every target: uid, address, condition.
    pub async fn shown(&self) -> Result<Vec<(TargetUid, Condition)>, Error> {
        let rows = sqlx::query("SELECT uid, condition FROM targets")
            .fetch_all(&self.pool)
            .await?;
        let mut out = Vec::new();
        for row in rows {
            let uid: String = row.try_get(0)?;
            let condition = serde_json::from_str(row.try_get::<&str, _>(1)?)
                .map_err(|e| Error::Row(uid.clone(), e))?;
            if let Ok(uid) = uid.parse() {
                out.push((uid, condition));
            }
        }
        Ok(out)
    }

    /// Closes the database in order, with everything written that is to be shown.
    pub async fn close(&self) {
        if let Err(error) = self.flush().await {
            tracing::warn!("what is shown of targets could not be written: {error}");
        }
        self.pool.close().await;
    }
}
