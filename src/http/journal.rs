//! The journal of deliveries: what was accepted is on disk before it is answered.
//!
//! One thread writes for everybody who waits: whatever has come while it was writing goes out with the next write and one
//! `fdatasync`. What it holds are hints. A daemon that starts reads them, looks, and begins an empty file.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// Past so many bytes a new file is begun, and the one before is kept beside it.
const MOST: u64 = 8 << 20;
/// How many wait to be written before whoever comes next is told to come again.
const WAITING: usize = 8_192;

/// What was heard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Heard {
    /// The source.
    pub source: String,
    /// The forge's id of the delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The pull request; absent where a branch moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<u64>,
}

type Request = (Vec<u8>, oneshot::Sender<bool>);

/// Writes what was heard.
#[derive(Clone)]
pub struct Journal {
    requests: mpsc::SyncSender<Request>,
}

fn open(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// Reads a journal. A line that was cut by a crash was never answered, and is left.
fn read(path: &Path) -> Vec<Heard> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines();
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("old")
}

impl Journal {
    /// Opens the journal of a state folder. Returns what it held, the oldest first, and begins anew.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<Heard>)> {
        let mut heard = read(&older(path));
        heard.extend(read(path));
        let _ = std::fs::remove_file(older(path));
        let file = open(path)?;
        file.set_len(0)?;
        file.sync_all()?;
        let (requests, inbox) = mpsc::sync_channel(WAITING);
        let writer = Writer {
            path: path.to_owned(),
            file,
            size: 0,
        };
        std::thread::Builder::new()
            .name("webhook journal".into())
            .spawn(move || writer.run(&inbox))?;
        Ok((Self { requests }, heard))
    }

    /// Writes what was heard; returns whether it is on disk.
    pub async fn write(&self, heard: &Heard) -> bool {
        let Ok(mut line) = serde_json::to_vec(heard) else {
            return false;
        };
        line.push(b'\n');
        let (answer, written) = oneshot::channel();
        // Full: the disk does not keep up, and whoever delivers tries again.
        if self.requests.try_send((line, answer)).is_err() {
            return false;
        }
        written.await.unwrap_or(false)
    }
}

struct Writer {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Writer {
    /// Writes until nobody is left who could send.
    fn run(mut self, inbox: &mpsc::Receiver<Request>) {
        let mut bytes = Vec::new();
        let mut waiting = Vec::new();
        while let Ok(first) = inbox.recv() {
            let more = std::iter::from_fn(|| inbox.try_recv().ok());
            for (line, answer) in std::iter::once(first).chain(more.take(WAITING)) {
                bytes.extend_from_slice(&line);
                waiting.push(answer);
            }
            let written = self.put(&bytes);
            if let Err(error) = &written {
                tracing::error!("a webhook could not be written down: {error}");
            }
            for answer in waiting.drain(..) {
                let _ = answer.send(written.is_ok());
            }
            bytes.clear();
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size > MOST {
            std::fs::rename(&self.path, older(&self.path))?;
            self.file = open(&self.path)?;
            self.size = 0;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(n: u64) -> Heard {
        Heard {
            source: "platform".into(),
            id: Some(format!("delivery-{n}")),
            pull: n.is_multiple_of(2).then_some(n),
        }
    }

    #[tokio::test]
    async fn what_was_answered_is_there_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("webhooks.journal");
        let (journal, before) = Journal::open(&path).unwrap();
        assert!(before.is_empty());
        let mut all = Vec::new();
        for n in 0..20 {
            let journal = journal.clone();
            all.push(tokio::spawn(async move { journal.write(&heard(n)).await }));
        }
        for one in all {
            assert!(one.await.unwrap());
        }
        // Cut in the middle of a line, as a machine that loses its power leaves it.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"source\":\"pla");
        std::fs::write(&path, bytes).unwrap();

        let (_journal, found) = Journal::open(&path).unwrap();

        assert_eq!(found.len(), 20);
        assert!(std::fs::read(&path).unwrap().is_empty());
    }

    #[tokio::test]
    async fn it_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("webhooks.journal");
        let (journal, _) = Journal::open(&path).unwrap();
        let large = Heard {
            id: Some("x".repeat(1 << 20)),
            ..heard(1)
        };
        for _ in 0..30 {
            assert!(journal.write(&large).await);
        }
        let size = |p: &Path| std::fs::metadata(p).map_or(0, |m| m.len());
        let all = size(&path) + size(&older(&path));
        assert!(all < 3 * MOST, "{all}");
    }
}
