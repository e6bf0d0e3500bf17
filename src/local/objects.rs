//! The local object store: versions, conditional puts, checksums and metadata, as S3 has them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use tokio::io::AsyncReadExt;

use super::world::{World, WorldError};
use crate::domain::model::{Timestamp, sha256_hex};
use crate::port::{Body, Encryption, Error, ObjectMeta, ObjectStore, Page, Put, body};

const LARGEST: u64 = 256 << 20;
const PAGE: i64 = 1000;

/// One store of a local world.
#[derive(Clone)]
pub struct LocalObjects {
    world: World,
    name: String,
}

#[derive(Serialize, Deserialize)]
struct Record {
    sha256: String,
    size: u64,
    key: Option<String>,
    retain_until: Option<Timestamp>,
    metadata: BTreeMap<String, String>,
    deleted: bool,
}

impl LocalObjects {
    /// Opens a store by name; stores of one world know nothing of each other.
    pub fn new(world: World, name: &str) -> Self {
        Self {
            world,
            name: name.to_owned(),
        }
    }

    fn meta(&self, key: &str, version: i64, record: Record) -> ObjectMeta {
        ObjectMeta {
            key: key.to_owned(),
            version: Some(format!("v{version}")),
            etag: record.sha256[..32].to_owned(),
            size: record.size,
            sha256: Some(record.sha256),
            encryption: Some(record.key.map_or(Encryption::Store, Encryption::Key)),
            metadata: record.metadata,
        }
    }

    async fn newest(&self, key: &str) -> Result<Option<(i64, Record)>, WorldError> {
        let row = sqlx::query("SELECT version, meta FROM objects WHERE store = $1 AND name = $2 ORDER BY version DESC LIMIT 1")
            .bind(&self.name)
            .bind(key)
            .fetch_optional(&self.world.pool)
            .await?;
        match row {
            Some(row) => Ok(Some((
                row.try_get(0)?,
                serde_json::from_str(row.try_get::<&str, _>(1)?)?,
            ))),
            None => Ok(None),
        }
    }

    async fn write(
        &self,
        key: &str,
        bytes: Vec<u8>,
        options: &Put,
    ) -> Result<Result<ObjectMeta, Error>, WorldError> {
        let mut tx = self.world.begin().await?;
        let row = sqlx::query("SELECT version, meta FROM objects WHERE store = $1 AND name = $2 ORDER BY version DESC LIMIT 1").bind(&self.name).bind(key).fetch_optional(&mut *tx).await?;
        let (mut version, mut live): (i64, Option<Record>) = (0, None);
        if let Some(row) = row {
            version = row.try_get(0)?;
            live = Some(serde_json::from_str::<Record>(row.try_get::<&str, _>(1)?)?)
                .filter(|r| !r.deleted);
        }
        if options.if_absent && live.is_some() {
            return Ok(Err(Error::Exists(key.to_owned())));
        }
        if let Some(tag) = &options.if_match
            && live.as_ref().is_none_or(|r| r.sha256[..32] != **tag)
        {
            return Ok(Err(Error::Exists(key.to_owned())));
        }
        let sha256 = sha256_hex(&bytes);
        if options
            .sha256
            .as_ref()
            .is_some_and(|given| *given != sha256)
        {
            return Ok(Err(Error::Refused(
                "the body does not have the checksum that was given".into(),
            )));
        }
        let record = Record {
            sha256,
            size: bytes.len() as u64,
            key: match &options.encryption {
                Encryption::Store => None,
                Encryption::Key(key) => Some(key.clone()),
            },
            retain_until: options.retain_until,
            metadata: options.metadata.clone(),
            deleted: false,
        };
        sqlx::query(
            "INSERT INTO objects (store, name, version, meta, body) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(&self.name)
        .bind(key)
        .bind(version + 1)
        .bind(serde_json::to_string(&record)?)
        .bind(bytes)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Ok(self.meta(key, version + 1, record)))
    }
}

#[async_trait]
impl ObjectStore for LocalObjects {
    async fn put(&self, key: &str, mut stream: Body, options: &Put) -> Result<ObjectMeta, Error> {
        self.world.call("PutObject").await?;
        if key.is_empty() || key.len() > 1024 {
            return Err(Error::Refused("a key has 1 to 1,024 bytes".into()));
        }
        let mut bytes = Vec::new();
        (&mut stream)
            .take(LARGEST + 1)
            .read_to_end(&mut bytes)
            .await
            .map_err(|e| Error::Unavailable(e.to_string()))?;
        if bytes.len() as u64 > LARGEST {
            return Err(Error::Refused("the object is too large".into()));
        }
        self.write(key, bytes, options).await?
    }

    async fn get(&self, key: &str, version: Option<&str>) -> Result<(ObjectMeta, Body), Error> {
        self.world.call("GetObject").await?;
        let missing = || Error::NotFound(key.to_owned());
        let number = match version {
            Some(version) => version
                .strip_prefix('v')
                .and_then(|v| v.parse().ok())
                .ok_or_else(missing)?,
            None => self
                .newest(key)
                .await?
                .map(|(v, _)| v)
                .ok_or_else(missing)?,
        };
        let row = sqlx::query(
            "SELECT meta, body FROM objects WHERE store = $1 AND name = $2 AND version = $3",
        )
        .bind(&self.name)
        .bind(key)
        .bind(number)
        .fetch_optional(&self.world.pool)
        .await;
        let row = row.map_err(WorldError::from)?.ok_or_else(missing)?;
        let record: Record =
            serde_json::from_str(row.try_get::<&str, _>(0).map_err(WorldError::from)?)
                .map_err(WorldError::from)?;
        if record.deleted {
            return Err(missing());
        }
        let bytes: Vec<u8> = row.try_get(1).map_err(WorldError::from)?;
        Ok((self.meta(key, number, record), body(bytes)))
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, Error> {
        self.world.call("HeadObject").await?;
        Ok(self
            .newest(key)
            .await?
            .filter(|(_, r)| !r.deleted)
            .map(|(v, r)| self.meta(key, v, r)))
    }

    async fn list(&self, prefix: &str, token: Option<&str>) -> Result<Page<ObjectMeta>, Error> {
        self.world.call("ListObjects").await?;
        let rows = sqlx::query(
            "SELECT o.name, o.version, o.meta FROM objects o WHERE o.store = $1 AND o.name > $2 AND substr(o.name, 1, length($3)) = $3 \
             AND o.version = (SELECT max(i.version) FROM objects i WHERE i.store = o.store AND i.name = o.name) ORDER BY o.name LIMIT $4",
        )
        .bind(&self.name)
        .bind(token.unwrap_or_default())
        .bind(prefix)
        .bind(PAGE)
        .fetch_all(&self.world.pool)
        .await
        .map_err(WorldError::from)?;
        let mut items = Vec::new();
        let mut last = None;
        for row in &rows {
            let key: String = row.try_get(0).map_err(WorldError::from)?;
            let record: Record =
                serde_json::from_str(row.try_get::<&str, _>(2).map_err(WorldError::from)?)
                    .map_err(WorldError::from)?;
            last = Some(key.clone());
            if !record.deleted {
                items.push(self.meta(&key, row.try_get(1).map_err(WorldError::from)?, record));
            }
        }
        Ok(Page {
            items,
            next: last.filter(|_| rows.len() as i64 == PAGE),
        })
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.world.call("DeleteObject").await?;
        let Some((version, record)) = self.newest(key).await? else {
            return Ok(());
        };
        if record
            .retain_until
            .is_some_and(|until| until > self.world.clock.now())
        {
            return Err(Error::Denied(format!("{key} is retained")));
        }
        let marker = Record {
            sha256: "0".repeat(64),
            size: 0,
            key: None,
            retain_until: None,
            metadata: BTreeMap::new(),
            deleted: true,
        };
        let meta = serde_json::to_string(&marker).map_err(WorldError::from)?;
        sqlx::query(
            "INSERT INTO objects (store, name, version, meta, body) VALUES ($1, $2, $3, $4, NULL)",
        )
        .bind(&self.name)
        .bind(key)
        .bind(version + 1)
        .bind(meta)
        .execute(&self.world.pool)
        .await
        .map_err(WorldError::from)?;
        Ok(())
    }

    fn url(&self, key: &str, version: Option<&str>) -> String {
        let version = version
            .map(|v| format!("?versionId={v}"))
            .unwrap_or_default();
        format!("local://{}/{key}{version}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::port::read_all;

    #[tokio::test]
    async fn puts_are_conditional_and_versions_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let world = World::open(folder.path(), Clock::standing(Timestamp(0)), 1.0)
            .await
            .unwrap();
        let store = LocalObjects::new(world, "home");

        let first = store.put("a/b", body("1"), &Put::default()).await.unwrap();
        assert_eq!(
            store.put("a/b", body("2"), &Put::default()).await,
            Err(Error::Exists("a/b".into()))
        );
        let over = Put {
            if_absent: false,
            if_match: Some(first.etag.clone()),
            ..Put::default()
        };
        store.put("a/b", body("2"), &over).await.unwrap();
        assert!(store.put("a/b", body("3"), &over).await.is_err());
        assert_eq!(read_all(&store, "a/b", None, 10).await.unwrap(), b"2");
        assert_eq!(
            read_all(&store, "a/b", first.version.as_deref(), 10)
                .await
                .unwrap(),
            b"1"
        );
        assert!(matches!(
            read_all(&store, "a/b", None, 0).await,
            Err(Error::Untrusted(_))
        ));
        let wrong = Put {
            sha256: Some("0".repeat(64)),
            ..Put::default()
        };
        assert!(matches!(
            store.put("c", body("x"), &wrong).await,
            Err(Error::Refused(_))
        ));
        assert_eq!(store.list("a/", None).await.unwrap().items.len(), 1);
        store.delete("a/b").await.unwrap();
        assert_eq!(
            (
                store.head("a/b").await.unwrap(),
                store.list("a/", None).await.unwrap().items.len()
            ),
            (None, 0)
        );
    }
}
