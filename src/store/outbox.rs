//! What is known of pull requests, and what forges are to be told.

use sqlx::Row;

use super::{Error, Store};
use crate::domain::model::SourceName;

/// Something that a forge is to show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Posted {
    /// What it is, such as `comment/7`: a later state takes the place of an earlier one.
    pub item: String,
    /// Which state: later ones have greater numbers, across all items.
    pub seq: u64,
    /// The forge's own id of it, where it has given one.
    pub remote: Option<u64>,
    /// What is to be shown.
    pub body: Vec<u8>,
}

fn place(table: &str, source: &SourceName, row: &str) -> String {
    format!("{table}|{source}|{row}|body")
}

impl Store {
    /// Keeps what is known of a pull request.
    pub async fn keep_pull(
        &self,
        source: &SourceName,
        number: u64,
        body: &[u8],
    ) -> Result<(), Error> {
        let row = place("pulls", source, &number.to_string());
        let sealed = self.keyring.seal_row(&row, body)?;
        sqlx::query("INSERT INTO pulls (source, number, body) VALUES ($1, $2, $3) ON CONFLICT (source, number) DO UPDATE SET body = excluded.body")
            .bind(source.as_str())
            .bind(number as i64)
            .bind(sealed)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Returns what is known of the pull requests of a source.
    pub async fn pulls(&self, source: &SourceName) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        let rows = sqlx::query("SELECT number, body FROM pulls WHERE source = $1 ORDER BY number")
            .bind(source.as_str())
            .fetch_all(&self.pool)
            .await?;
        let mut all = Vec::new();
        for row in rows {
            let number = row.try_get::<i64, _>(0)? as u64;
            let at = place("pulls", source, &number.to_string());
            let sealed: Vec<u8> = row.try_get(1)?;
            all.push((number, self.keyring.open_row(&at, &sealed)?));
        }
        Ok(all)
    }

    /// Forgets a pull request.
    pub async fn forget_pull(&self, source: &SourceName, number: u64) -> Result<(), Error> {
        sqlx::query("DELETE FROM pulls WHERE source = $1 AND number = $2")
            .bind(source.as_str())
            .bind(number as i64)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Posts a state of something that a forge is to show. The same state again is nothing new; returns whether it was new.
    pub async fn post(&self, source: &SourceName, item: &str, body: &[u8]) -> Result<bool, Error> {
        let at = place("outbox", source, item);
        let mut tx = self.begin().await?;
        let row = sqlx::query("SELECT body FROM outbox WHERE source = $1 AND item = $2")
            .bind(source.as_str())
            .bind(item)
            .fetch_optional(&mut *tx)
            .await?;
        if let Some(row) = row {
            let sealed: Vec<u8> = row.try_get(0)?;
            // What cannot be opened any more is written anew.
            if self.keyring.open_row(&at, &sealed).is_ok_and(|o| o == body) {
                return Ok(false);
            }
        }
        let sealed = self.keyring.seal_row(&at, body)?;
        sqlx::query("INSERT INTO outbox (source, item, seq, sent, remote, body) VALUES ($1, $2, (SELECT COALESCE(MAX(seq), 0) + 1 FROM outbox), 0, 0, $3) ON CONFLICT (source, item) DO UPDATE SET seq = excluded.seq, body = excluded.body")
            .bind(source.as_str())
            .bind(item)
            .bind(sealed)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Returns the newest state of something that a forge is to show, whether or not it shows it.
    pub async fn posted(&self, source: &SourceName, item: &str) -> Result<Option<Posted>, Error> {
        let row = sqlx::query(
            "SELECT item, seq, remote, body FROM outbox WHERE source = $1 AND item = $2",
        )
        .bind(source.as_str())
        .bind(item)
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| self.posted_of(source, &row)).transpose()
    }

    /// Returns what a source's forge has not been told, the oldest first.
    pub async fn unsent(&self, source: &SourceName, most: u32) -> Result<Vec<Posted>, Error> {
        let rows = sqlx::query("SELECT item, seq, remote, body FROM outbox WHERE source = $1 AND sent < seq ORDER BY seq LIMIT $2")
            .bind(source.as_str())
            .bind(i64::from(most))
            .fetch_all(&self.pool)
            .await?;
        let mut unsent = Vec::new();
        for row in &rows {
            match self.posted_of(source, row) {
                Ok(posted) => unsent.push(posted),
                // What cannot be opened is made anew from what is there; it holds up nothing else.
                Err(Error::Crypto(_)) => {
                    let item: String = row.try_get(0)?;
                    self.unpost(source, &[item]).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(unsent)
    }

    fn posted_of(
        &self,
        source: &SourceName,
        row: &sqlx::sqlite::SqliteRow,
    ) -> Result<Posted, Error> {
        let item: String = row.try_get(0)?;
        let at = place("outbox", source, &item);
        let sealed: Vec<u8> = row.try_get(3)?;
        let remote = row.try_get::<i64, _>(2)? as u64;
        Ok(Posted {
            seq: row.try_get::<i64, _>(1)? as u64,
            remote: (remote != 0).then_some(remote),
            body: self.keyring.open_row(&at, &sealed)?,
            item,
        })
    }

    /// Notes that the forge has taken a state. A newer one stays to be told.
    pub async fn sent(
        &self,
        source: &SourceName,
        item: &str,
        seq: u64,
        remote: Option<u64>,
    ) -> Result<(), Error> {
        sqlx::query("UPDATE outbox SET sent = $3, remote = $4 WHERE source = $1 AND item = $2 AND sent < $3")
            .bind(source.as_str())
            .bind(item)
            .bind(seq as i64)
            .bind(remote.unwrap_or_default() as i64)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Forgets things that a forge shows: it goes on showing them.
    pub async fn unpost(&self, source: &SourceName, items: &[String]) -> Result<(), Error> {
        for item in items {
            sqlx::query("DELETE FROM outbox WHERE source = $1 AND item = $2")
                .bind(source.as_str())
                .bind(item)
                .execute(&self.pool)
                .await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::RootKey;
    use super::*;

    #[tokio::test]
    async fn the_last_state_wins_and_the_order_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let root = RootKey::from_bytes(&[7; 32]).unwrap();
        let store = Store::open(folder.path(), &root).await.unwrap();
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());

        assert!(store.post(&a, "comment/1", b"one").await.unwrap());
        assert!(store.post(&a, "check/x", b"two").await.unwrap());
        assert!(!store.post(&a, "comment/1", b"one").await.unwrap());
        assert!(store.post(&b, "comment/1", b"other").await.unwrap());
        assert!(store.post(&a, "comment/1", b"three").await.unwrap());

        let unsent = store.unsent(&a, 10).await.unwrap();
        let bodies: Vec<&[u8]> = unsent.iter().map(|p| p.body.as_slice()).collect();
        assert_eq!(bodies, [b"two".as_slice(), b"three".as_slice()]);

        // A newer state that came while the older one was on its way stays to be told.
        let comment = &unsent[1];
        store.post(&a, "comment/1", b"four").await.unwrap();
        store
            .sent(&a, "comment/1", comment.seq, Some(77))
            .await
            .unwrap();
        let left = store.unsent(&a, 10).await.unwrap();
        assert_eq!(left[1].body, b"four");
        assert_eq!(left[1].remote, Some(77));
    }

    #[tokio::test]
    async fn what_is_known_is_sealed_and_bound_to_its_row() {
        let folder = tempfile::tempdir().unwrap();
        let root = RootKey::from_bytes(&[7; 32]).unwrap();
        let store = Store::open(folder.path(), &root).await.unwrap();
        let source = "a".parse().unwrap();
        store
            .keep_pull(&source, 1, b"canary-of-a-pull")
            .await
            .unwrap();
        store.keep_pull(&source, 2, b"another").await.unwrap();

        for name in ["isoform.db", "isoform.db-wal"] {
            let bytes = std::fs::read(folder.path().join(name)).unwrap_or_default();
            let canary = b"canary-of-a-pull".as_slice();
            assert!(!bytes.windows(canary.len()).any(|w| w == canary), "{name}");
        }
        sqlx::query("UPDATE pulls SET number = 3 WHERE number = 2")
            .execute(&store.pool)
            .await
            .unwrap();
        assert!(store.pulls(&source).await.is_err());
        for item in ["comment/1", "comment/2"] {
            store.post(&source, item, item.as_bytes()).await.unwrap();
        }
        sqlx::query("UPDATE outbox SET item = 'comment/3' WHERE item = 'comment/1'")
            .execute(&store.pool)
            .await
            .unwrap();
        for _ in 0..2 {
            let unsent = store.unsent(&source, 10).await.unwrap();
            assert_eq!(unsent.len(), 1);
        }
    }
}
