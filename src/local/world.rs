//! The database of the local world.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Row, Sqlite, Transaction};

use super::faults::Faults;
use crate::clock::Clock;
use crate::port;

/// Why the world cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The folder cannot be made.
    #[error("making the folder {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database failed.
    #[error("using the database of the local world")]
    Database(#[from] sqlx::Error),
    /// A record cannot be read.
    #[error("reading a record of the local world")]
    Record(#[from] serde_json::Error),
}

impl From<WorldError> for port::Error {
    fn from(error: WorldError) -> Self {
        let detail = match &error {
            WorldError::Database(source) => format!("{error}: {source}"),
            WorldError::Record(source) => format!("{error}: {source}"),
            WorldError::Folder { .. } => error.to_string(),
        };
        port::Error::Unavailable(detail)
    }
}

/// What is being done to a resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Phase {
    /// It is created, updated or imported.
    #[default]
    Make,
    /// It is deleted: with its stack, or because it left it.
    Delete,
    /// It is put back.
    Rollback,
}

impl std::str::FromStr for Phase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "make" => Ok(Self::Make),
            "delete" => Ok(Self::Delete),
            "rollback" => Ok(Self::Rollback),
            other => Err(format!("`{other}` is not one of make, delete, rollback")),
        }
    }
}

/// A scripted failure: the next operations on a resource fail with this reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// Glob of the stack's name.
    pub stack: String,
    /// The logical id.
    pub logical: String,
    /// The reason that the events will show.
    pub reason: String,
    /// How many more times; absent for ever.
    pub times: Option<u32>,
    /// During what it fails.
    #[serde(default)]
    pub phase: Phase,
}

impl Failure {
    pub(super) fn id(&self) -> String {
        match self.phase {
            Phase::Make => format!("{}|{}", self.stack, self.logical),
            phase => format!("{}|{}|{phase:?}", self.stack, self.logical),
        }
    }
}

/// A folder that holds stacks, objects and keys.
#[derive(Clone)]
pub struct World {
    pub(super) pool: SqlitePool,
    pub(super) clock: Clock,
    pub(super) pace: f64,
    folder: Arc<PathBuf>,
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS records (kind TEXT NOT NULL, id TEXT NOT NULL, parent TEXT NOT NULL DEFAULT '', body TEXT NOT NULL, PRIMARY KEY (kind, id));
CREATE INDEX IF NOT EXISTS records_parent ON records (kind, parent);
CREATE TABLE IF NOT EXISTS events (stack TEXT NOT NULL, number BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (stack, number));
CREATE TABLE IF NOT EXISTS objects (store TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL, meta TEXT NOT NULL, body BLOB, PRIMARY KEY (store, name, version));
CREATE TABLE IF NOT EXISTS calls (operation TEXT NOT NULL PRIMARY KEY, count BIGINT NOT NULL);
";

impl World {
    /// Opens a world, making it where there is none.
    ///
    /// `pace` scales how long operations take: 1.0 is some tens of milliseconds a resource.
    pub async fn open(folder: &Path, clock: Clock, pace: f64) -> Result<Self, WorldError> {
        crate::secret_file::folder(folder).map_err(|source| WorldError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        let options = SqliteConnectOptions::new()
            .filename(folder.join("cloud.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(20));
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await?;
        sqlx::raw_sql(SCHEMA).execute(&pool).await?;
        Ok(Self {
            pool,
            clock,
            pace,
            folder: Arc::new(folder.to_owned()),
        })
    }

    /// Returns the folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Begins a change that nobody else can interleave with.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Sqlite>, WorldError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Counts a call, so that tests and `doctor` can see what a look costs; returns how often it was made, and how the
    /// world misbehaves.
    pub(super) async fn count(&self, operation: &'static str) -> Result<(u64, Faults), WorldError> {
        let row = sqlx::query("INSERT INTO calls (operation, count) VALUES ($1, 1) ON CONFLICT (operation) DO UPDATE SET count = count + 1 RETURNING count, (SELECT body FROM records WHERE kind = 'setting' AND id = 'faults')").bind(operation).fetch_one(&self.pool).await?;
        let count: i64 = row.try_get(0)?;
        let faults = match row.try_get::<Option<&str>, _>(1)? {
            Some(body) => serde_json::from_str(body)?,
            None => Faults::default(),
        };
        Ok((count.unsigned_abs(), faults))
    }

    /// Returns how often each call was made.
    pub async fn calls(&self) -> Result<Vec<(String, i64)>, WorldError> {
        let rows = sqlx::query("SELECT operation, count FROM calls ORDER BY operation")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|r| Ok((r.try_get(0)?, r.try_get(1)?)))
            .collect()
    }

    /// Scripts a failure; an empty reason takes it back.
    pub async fn script(&self, failure: &Failure) -> Result<(), WorldError> {
        let id = failure.id();
        let mut tx = self.begin().await?;
        if failure.reason.is_empty() {
            sqlx::query("DELETE FROM records WHERE kind = 'failure' AND id = $1")
                .bind(id)
                .execute(&mut *tx)
                .await?;
        } else {
            put(&mut tx, "failure", &id, "", failure).await?;
        }
        Ok(tx.commit().await?)
    }
}

pub(super) async fn get<T: DeserializeOwned>(
    tx: &mut Transaction<'static, Sqlite>,
    kind: &str,
    id: &str,
) -> Result<Option<T>, WorldError> {
    let row = sqlx::query("SELECT body FROM records WHERE kind = $1 AND id = $2")
        .bind(kind)
        .bind(id)
        .fetch_optional(&mut **tx)
        .await?;
    match row {
        Some(row) => Ok(Some(serde_json::from_str(row.try_get::<&str, _>(0)?)?)),
        None => Ok(None),
    }
}

pub(super) async fn put<T: Serialize>(
    tx: &mut Transaction<'static, Sqlite>,
    kind: &str,
    id: &str,
    parent: &str,
    body: &T,
) -> Result<(), WorldError> {
    sqlx::query("INSERT INTO records (kind, id, parent, body) VALUES ($1, $2, $3, $4) ON CONFLICT (kind, id) DO UPDATE SET parent = excluded.parent, body = excluded.body")
        .bind(kind)
        .bind(id)
        .bind(parent)
        .bind(serde_json::to_string(body)?)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub(super) async fn remove(
    tx: &mut Transaction<'static, Sqlite>,
    kind: &str,
    id: &str,
) -> Result<(), WorldError> {
    sqlx::query("DELETE FROM records WHERE kind = $1 AND id = $2")
        .bind(kind)
        .bind(id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub(super) async fn all<T: DeserializeOwned>(
    tx: &mut Transaction<'static, Sqlite>,
    kind: &str,
    parent: Option<&str>,
) -> Result<Vec<T>, WorldError> {
    let rows = match parent {
        Some(parent) => {
            sqlx::query("SELECT body FROM records WHERE kind = $1 AND parent = $2 ORDER BY id")
                .bind(kind)
                .bind(parent)
                .fetch_all(&mut **tx)
                .await?
        }
        None => {
            sqlx::query("SELECT body FROM records WHERE kind = $1 ORDER BY id")
                .bind(kind)
                .fetch_all(&mut **tx)
                .await?
        }
    };
    rows.iter()
        .map(|r| Ok(serde_json::from_str(r.try_get::<&str, _>(0)?)?))
        .collect()
}
