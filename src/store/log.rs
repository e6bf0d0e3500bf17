//! Appending: group commit with a compare-and-swap for each stream.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use tokio::sync::oneshot;

use super::{Error, Store};
use crate::domain::audit::{Body, Entry, Stream};
use crate::domain::model::{Actor, Digest, Timestamp};

/// An entry that has no place in the chain yet.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Whose it is.
    pub stream: Stream,
    /// The number that it must get in its stream; absent appends at the end, whatever that is.
    pub stream_seq: Option<u64>,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// What.
    pub body: Body,
    /// Payloads that it refers to, in the clear; they are sealed before they are written.
    pub payloads: Vec<(Digest, Vec<u8>)>,
}

/// What an append came to.
pub type Appended = Result<Entry, Error>;

pub(super) struct Request {
    draft: Draft,
    answer: oneshot::Sender<Appended>,
}

pub(super) fn entry(row: &SqliteRow) -> Result<Entry, Error> {
    let seq: i64 = row.try_get(0)?;
    let bad = |e| Error::Row(format!("log {seq}"), e);
    let stream: String = row.try_get(1)?;
    Ok(Entry {
        seq: seq as u64,
        stream: serde_json::from_value(serde_json::Value::String(stream)).map_err(bad)?,
        stream_seq: row.try_get::<i64, _>(2)? as u64,
        at: Timestamp(row.try_get(3)?),
        actor: serde_json::from_str(row.try_get::<&str, _>(4)?).map_err(bad)?,
        body: serde_json::from_str(row.try_get::<&str, _>(5)?).map_err(bad)?,
        prev_hash: row.try_get(6)?,
        hash: row.try_get(7)?,
    })
}

impl Store {
    /// Appends one entry durably. When this returns, it is on disk.
    ///
    /// Callers that come while a commit runs are committed together by the next one.
    pub async fn append(&self, draft: Draft) -> Appended {
        self.append_all(vec![draft])
            .await
            .pop()
            .unwrap_or_else(|| Err(Error::Commit("it was given up".into())))
    }

    /// Appends several entries durably, in their order and in one commit with whatever else waits.
    ///
    /// Each stands for itself: one that comes too late for its stream does not keep the others out.
    pub async fn append_all(&self, drafts: Vec<Draft>) -> Vec<Appended> {
        let many = drafts.len();
        let failed = |text: String| {
            (0..many)
                .map(|_| Err(Error::Commit(text.clone())))
                .collect()
        };
        if let Err(text) = crate::testing::at_store("before").await {
            return failed(text);
        }
        let appended = self.append_now(drafts).await;
        match crate::testing::at_store("after").await {
            Ok(()) => appended,
            Err(text) => failed(text),
        }
    }

    async fn append_now(&self, drafts: Vec<Draft>) -> Vec<Appended> {
        let mut results = Vec::with_capacity(drafts.len());
        {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            for draft in drafts {
                let (answer, result) = oneshot::channel();
                pending.push(Request { draft, answer });
                results.push(result);
            }
        }
        let Some(last) = results.last_mut() else {
            return Vec::new();
        };
        let held = self.commit.lock().await;
        let mut done = last.try_recv().ok();
        if done.is_none() {
            let batch =
                std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
            self.commit_batch(batch).await;
            done = last.try_recv().ok();
        }
        drop(held);
        results.pop();
        let given_up = || Err(Error::Commit("it was given up".into()));
        let mut out: Vec<Appended> = Vec::with_capacity(results.len() + 1);
        for mut result in results {
            out.push(result.try_recv().unwrap_or_else(|_| given_up()));
        }
        out.push(done.unwrap_or_else(given_up));
        out
    }

    /// Writes what is to be shown, if something is: otherwise it goes with the next entry.
    pub async fn flush(&self) -> Result<(), Error> {
        let _held = self.commit.lock().await;
        if self.is_flushed() {
            return Ok(());
        }
        crate::testing::at_store("flush")
            .await
            .map_err(Error::Commit)?;
        self.write(&[]).await.map(drop)
    }

    async fn commit_batch(&self, batch: Vec<Request>) {
        let drafts: Vec<&Draft> = batch.iter().map(|r| &r.draft).collect();
        match self.write(&drafts).await {
            Ok(results) => {
                let newest = results.iter().flatten().map(|e| e.seq).max();
                for (request, result) in batch.into_iter().zip(results) {
                    let _ = request.answer.send(result);
                }
                if let Some(newest) = newest {
                    self.head.send_replace(newest);
                }
            }
            Err(error) => {
                let text = format!(
                    "{error}: {}",
                    std::error::Error::source(&error)
                        .map(ToString::to_string)
                        .unwrap_or_default()
                );
                for request in batch {
                    let _ = request.answer.send(Err(Error::Commit(text.clone())));
                }
            }
        }
    }

    async fn write(&self, drafts: &[&Draft]) -> Result<Vec<Appended>, Error> {
        let mut tx = self.begin().await?;
        let (mut seq, mut hash, mut streams) = ends(&mut tx, drafts).await?;
        let mut results = Vec::new();
        for draft in drafts {
            let last = streams.get(&draft.stream).copied().unwrap_or_default();
            if draft.stream_seq.is_some_and(|wanted| wanted != last + 1) {
                results.push(Err(Error::Conflict(draft.stream.to_string())));
                continue;
            }
            for (digest, body) in &draft.payloads {
                let sealed = self.keyring.seal_payload(digest, body)?;
                sqlx::query("INSERT INTO payloads (digest, body) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING").bind(digest.as_str()).bind(sealed).execute(&mut *tx).await?;
            }
            let entry = Entry {
                seq: 0,
                stream: draft.stream.clone(),
                stream_seq: last + 1,
                at: draft.at,
                actor: draft.actor.clone(),
                body: draft.body.clone(),
                prev_hash: String::new(),
                hash: String::new(),
            }
            .chained(seq + 1, &hash);
            streams.insert(&draft.stream, last + 1);
            seq = entry.seq;
            hash.clone_from(&entry.hash);
            results.push(Ok(entry));
        }
        let entries: Vec<&Entry> = results.iter().flatten().collect();
        insert(&mut tx, &entries).await?;
        let shipped = *self.shipped.borrow();
        sqlx::query("UPDATE head SET seq = $1, hash = $2, shipped = $3 WHERE id = 1")
            .bind(seq as i64)
            .bind(&hash)
            .bind(shipped as i64)
            .execute(&mut *tx)
            .await?;
        let shown = self.take_shown();
        let written = async {
            for (uid, shown) in &shown {
                shown.write(uid, &mut tx).await?;
            }
            tx.commit().await?;
            Ok::<_, Error>(())
        }
        .await;
        if let Err(error) = written {
            self.show_again(shown);
            return Err(error);
        }
        self.written.store(shipped, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(results)
    }

    /// Takes in entries that were shipped and follow what is here. They must have been verified.
    pub async fn import(
        &self,
        entries: &[Entry],
        payloads: &[(Digest, Vec<u8>)],
    ) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        insert(&mut tx, &entries.iter().collect::<Vec<_>>()).await?;
        for (digest, sealed) in payloads {
            sqlx::query("INSERT INTO payloads (digest, body) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING").bind(digest.as_str()).bind(sealed).execute(&mut *tx).await?;
        }
        if let Some(last) = entries.last() {
            sqlx::query("UPDATE head SET seq = $1, hash = $2, shipped = $1 WHERE id = 1")
                .bind(last.seq as i64)
                .bind(&last.hash)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        let last = entries.last().map_or(0, |e| e.seq);
        self.head.send_replace(last);
        self.shipped.send_replace(last);
        self.written.store(last, Ordering::Relaxed);
        Ok(())
    }
}

/// Returns the last number and hash of the log, and the last number of every stream that drafts are for.
///
/// Asked together: each question costs more than finding its answer.
async fn ends<'a>(
    tx: &mut Tx,
    drafts: &[&'a Draft],
) -> Result<(u64, String, BTreeMap<&'a Stream, u64>), Error> {
    let mut streams: BTreeMap<&Stream, u64> = drafts.iter().map(|d| (&d.stream, 0)).collect();
    let (mut seq, mut hash) = (0u64, String::new());
    let names: Vec<(&Stream, String)> = streams.keys().map(|s| (*s, s.to_string())).collect();
    let mut parts = names.chunks(ROWS);
    let mut part = parts.next().unwrap_or_default();
    loop {
        let mut query =
            sqlx::QueryBuilder::<sqlx::Sqlite>::new("SELECT '', seq, hash FROM head WHERE id = 1");
        for (_, name) in part {
            // One search of the index for each, whatever the length of the stream.
            query.push(" UNION ALL SELECT ");
            query.push_bind(name);
            query.push(", COALESCE(MAX(stream_seq), 0), '' FROM log WHERE stream = ");
            query.push_bind(name);
        }
        for row in query.build().fetch_all(&mut **tx).await? {
            let name: &str = row.try_get(0)?;
            let number = row.try_get::<i64, _>(1)? as u64;
            if name.is_empty() {
                (seq, hash) = (number, row.try_get(2)?);
            } else if let Ok(at) = part.binary_search_by(|(_, n)| n.as_str().cmp(name)) {
                streams.insert(part[at].0, number);
            }
        }
        match parts.next() {
            Some(next) => part = next,
            None => return Ok((seq, hash, streams)),
        }
    }
}

type Tx = sqlx::Transaction<'static, sqlx::Sqlite>;

/// Rows of one statement. Fixed parts, so that few statements are kept prepared.
const ROWS: usize = 64;

async fn insert(tx: &mut Tx, entries: &[&Entry]) -> Result<(), Error> {
    let mut rest = entries;
    while !rest.is_empty() {
        let many = [ROWS, 16, 4, 1].into_iter().find(|n| *n <= rest.len());
        let (part, later) = rest.split_at(many.unwrap_or(1));
        insert_rows(tx, part).await?;
        rest = later;
    }
    Ok(())
}

async fn insert_rows(tx: &mut Tx, entries: &[&Entry]) -> Result<(), Error> {
    let mut rows = Vec::with_capacity(entries.len());
    for entry in entries {
        let bad = |e| Error::Row(format!("log {}", entry.seq), e);
        let actor = serde_json::to_string(&entry.actor).map_err(bad)?;
        let body = serde_json::to_string(&entry.body).map_err(bad)?;
        rows.push((entry, actor, body));
    }
    let mut query = sqlx::QueryBuilder::<sqlx::Sqlite>::new(
        "INSERT INTO log (seq, stream, stream_seq, at, actor, body, prev_hash, hash) ",
    );
    query.push_values(rows, |mut row, (entry, actor, body)| {
        row.push_bind(entry.seq as i64)
            .push_bind(entry.stream.to_string())
            .push_bind(entry.stream_seq as i64)
            .push_bind(entry.at.0)
            .push_bind(actor)
            .push_bind(body)
            .push_bind(&entry.prev_hash)
            .push_bind(&entry.hash);
    });
    query.build().execute(&mut **tx).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::{Checkpoint, Countersignature, verify};
    use crate::store::RootKey;

    fn draft(seq: Option<u64>) -> Draft {
        Draft {
            stream: Stream::Daemon,
            stream_seq: seq,
            at: Timestamp(1),
            actor: Actor::daemon("t"),
            body: Body::Stopped,
            payloads: vec![],
        }
    }

    #[tokio::test]
    async fn appends_from_many_sides_make_one_chain() {
        let folder = tempfile::tempdir().unwrap();
        let root = RootKey::from_bytes(&[7; 32]).unwrap();
        let store = Store::open(folder.path(), &root).await.unwrap();
        let tasks: Vec<_> = (0..40)
            .map(|_| {
                tokio::spawn({
                    let store = store.clone();
                    async move { store.append(draft(None)).await.unwrap().seq }
                })
            })
            .collect();
        let mut seqs = Vec::new();
        for task in tasks {
            seqs.push(task.await.unwrap());
        }
        seqs.sort_unstable();
        assert_eq!(seqs, (1..=40).collect::<Vec<u64>>());
        // Who waits while a commit runs goes into the next one together.
        assert!(store.commits() <= 41, "{}", store.commits());
        let entries = store.entries(1, 100).await.unwrap();
        assert_eq!(verify(&entries, &[], &|_, _| false).unwrap().entries, 40);
        assert!(matches!(
            store.append(draft(Some(7))).await,
            Err(Error::Conflict(_))
        ));
        assert!(store.append(draft(Some(41))).await.is_ok());
    }

    #[tokio::test]
    async fn what_comes_together_is_one_commit_and_each_stands_for_itself() {
        let folder = tempfile::tempdir().unwrap();
        let root = RootKey::from_bytes(&[7; 32]).unwrap();
        let store = Store::open(folder.path(), &root).await.unwrap();
        let before = store.commits();
        let mut drafts = vec![draft(None); 50];
        drafts[7].stream_seq = Some(99);
        let results = store.append_all(drafts).await;
        assert_eq!(store.commits() - before, 1);
        assert_eq!(results.len(), 50);
        assert!(matches!(results[7], Err(Error::Conflict(_))));
        let seqs: Vec<u64> = results.iter().flatten().map(|e| e.seq).collect();
        assert_eq!(seqs, (1..=49).collect::<Vec<u64>>());
    }

    #[tokio::test]
    async fn what_is_shown_goes_with_the_next_entry_or_when_it_is_flushed() {
        let folder = tempfile::tempdir().unwrap();
        let root = RootKey::from_bytes(&[7; 32]).unwrap();
        let store = Store::open(folder.path(), &root).await.unwrap();
        let uid: crate::domain::model::TargetUid = "0".repeat(32).parse().unwrap();
        let condition = |text: &str| crate::domain::model::Condition {
            result: crate::domain::model::SyncResult::InSync,
            reason: crate::domain::model::Reason::Settled,
            detail: text.into(),
            since: Timestamp(1),
        };
        let before = store.commits();
        store.show(&uid, "env/a", &condition("one"), 1).unwrap();
        store.show(&uid, "env/a", &condition("two"), 1).unwrap();
        assert_eq!(
            (store.commits(), store.shown().await.unwrap().len()),
            (before, 0)
        );
        store.append(draft(None)).await.unwrap();
        assert_eq!(store.shown().await.unwrap()[0].1.detail, "two");
        assert_eq!(store.commits() - before, 1);
        store.flush().await.unwrap();
        assert_eq!(store.commits() - before, 1);
        store.show(&uid, "env/a", &condition("three"), 1).unwrap();
        // Another holder's word does not take the place of the one that holds the target.
        store.flush().await.unwrap();
        store.show(&uid, "env/a", &condition("late"), 0).unwrap();
        store.flush().await.unwrap();
        assert_eq!(store.shown().await.unwrap()[0].1.detail, "three");
    }

    #[tokio::test]
    async fn a_checkpoint_takes_the_countersignature_that_it_lacks_and_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = RootKey::from_bytes(&[7; 32]).unwrap();
        let store = Store::open(folder.path(), &root).await.unwrap();
        let by = |key: &str| Countersignature {
            key: key.into(),
            public_key: "p".into(),
            signature: "s".into(),
        };
        let at = |seq, countersigned| Checkpoint {
            log: "l".into(),
            seq,
            hash: "h".into(),
            at: Timestamp(1),
            signature: "e".into(),
            countersigned,
        };
        let stands = async || {
            let all = store.checkpoints().await.unwrap();
            let by = all.into_iter().map(|c| c.countersigned.map(|by| by.key));
            (
                by.collect::<Vec<_>>(),
                store.countersigned_to().await.unwrap(),
            )
        };
        for (checkpoint, keys, to) in [
            (at(1, None), vec![None], 0),
            (at(2, Some(by("k"))), vec![None, Some("k".into())], 2),
            (at(3, None), vec![None, Some("k".into()), None], 2),
            (
                at(3, Some(by("k"))),
                vec![None, Some("k".into()), Some("k".into())],
                3,
            ),
            // Neither another one nor one of another checkpoint takes its place.
            (
                at(3, Some(by("other"))),
                vec![None, Some("k".into()), Some("k".into())],
                3,
            ),
            (
                Checkpoint {
                    hash: "other".into(),
                    ..at(1, Some(by("k")))
                },
                vec![None, Some("k".into()), Some("k".into())],
                3,
            ),
        ] {
            store.add_checkpoint(&checkpoint).await.unwrap();
            assert_eq!(stands().await, (keys, to));
        }
        let (_, read, ..) = crate::store::read_log(folder.path()).await.unwrap();
        assert_eq!(read, store.checkpoints().await.unwrap());

        // What an earlier release has left, read without a daemon.
        sqlx::query("ALTER TABLE checkpoints DROP COLUMN countersigned")
            .execute(&store.pool)
            .await
            .unwrap();
        let (_, read, ..) = crate::store::read_log(folder.path()).await.unwrap();
        assert_eq!(read.len(), 3);
        assert!(read.iter().all(|c| c.countersigned.is_none()));
    }

    #[tokio::test]
    async fn payloads_are_sealed_and_bound_to_their_digest() {
        let folder = tempfile::tempdir().unwrap();
        let root = RootKey::from_bytes(&[7; 32]).unwrap();
        let store = Store::open(folder.path(), &root).await.unwrap();
        let digest = store.keyring().hasher().digest("payload", b"CANARY");
        store
            .append(Draft {
                payloads: vec![(digest.clone(), b"CANARY".to_vec())],
                ..draft(None)
            })
            .await
            .unwrap();
        assert_eq!(store.payload(&digest).await.unwrap().unwrap(), b"CANARY");
        let (_, sealed) = store
            .sealed_payloads(std::slice::from_ref(&digest))
            .await
            .unwrap()
            .remove(0);
        assert!(!sealed.windows(6).any(|w| w == b"CANARY"));
        let other = store.keyring().hasher().digest("payload", b"x");
        assert!(store.keyring().open_payload(&other, &sealed).is_err());
        assert!(
            Store::open(folder.path(), &RootKey::from_bytes(&[8; 32]).unwrap())
                .await
                .is_err()
        );
    }
}
