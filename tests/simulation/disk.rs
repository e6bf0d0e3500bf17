//! The disk below the state database, at the moment when the power goes: what was acknowledged is there, what was not
//! may be there in part; and the disk that lies, which has lost what it said was written.
//!
//! SQLite's files are read here by their format (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>).

use std::path::Path;

/// What becomes of the files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tear {
    /// They are as they were written.
    None,
    /// A write behind the last commit was begun: this much of it is there, and is not what was meant.
    Tail(usize),
    /// A page was being brought from the write-ahead log into the database: half of it is there.
    Checkpoint(u64),
    /// The last commits were acknowledged and are gone.
    Lying(usize),
}

const HEADER: usize = 32;
const FRAME: usize = 24;
/// SQLite brings the log into the database when it is this long; what was brought there cannot be lost from the log alone.
const CHECKPOINT: usize = 900;

/// The frames of a write-ahead log that count: their pages, and where each commit ends.
struct Wal {
    page: usize,
    frames: Vec<u32>,
    commits: Vec<usize>,
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn read(bytes: &[u8]) -> Option<Wal> {
    if bytes.len() < HEADER {
        return None;
    }
    let page = number(bytes, 8) as usize;
    let mut wal = Wal {
        page,
        frames: Vec::new(),
        commits: Vec::new(),
    };
    let mut at = HEADER;
    // A frame with other salts is left from before the log began again.
    while at + FRAME + page <= bytes.len() && bytes[at + 8..at + 16] == bytes[16..24] {
        wal.frames.push(number(bytes, at));
        let commits = number(bytes, at + 4) != 0;
        at += FRAME + page;
        if commits {
            wal.commits.push(at);
        }
    }
    Some(wal)
}

/// Copies the state folder as a disk keeps it; what is not the database goes along. Tells what was done to it.
pub fn image(from: &Path, to: &Path, tear: Tear) -> std::io::Result<Tear> {
    snapshot(from, to)?;
    for other in ["mirrors", "FREEZE"] {
        if from.join(other).exists() {
            std::fs::rename(from.join(other), to.join(other))?;
        }
    }
    tear_up(to, tear)
}

/// Copies the database of a state folder, as a snapshot of the machine does.
pub fn snapshot(from: &Path, to: &Path) -> std::io::Result<()> {
    isoform::secret_file::folder(to)?;
    for file in ["isoform.db", "isoform.db-wal"] {
        if from.join(file).exists() {
            std::fs::copy(from.join(file), to.join(file))?;
        }
    }
    Ok(())
}

fn tear_up(folder: &Path, tear: Tear) -> std::io::Result<Tear> {
    let path = folder.join("isoform.db-wal");
    let Ok(mut bytes) = std::fs::read(&path) else {
        return Ok(Tear::None);
    };
    let Some(wal) = read(&bytes) else {
        return Ok(Tear::None);
    };
    let end = wal.commits.last().copied().unwrap_or(HEADER);
    let done = match tear {
        Tear::None => Tear::None,
        Tear::Tail(length) => {
            // It looks like the next frame: the page's number and the salts are right, and what follows is not.
            let mut torn = 1u32.to_be_bytes().to_vec();
            torn.extend_from_slice(&1u32.to_be_bytes());
            torn.extend_from_slice(&bytes[16..24]);
            torn.extend((0..length).map(|i| (i * 7 + 13) as u8));
            torn.truncate(length);
            let kept = bytes.len().max(end + torn.len());
            bytes.resize(kept, 0);
            bytes[end..end + torn.len()].copy_from_slice(&torn);
            tear
        }
        Tear::Checkpoint(which) => {
            let pages: Vec<u32> = wal.frames.clone();
            let database = folder.join("isoform.db");
            let mut main = std::fs::read(&database)?;
            let chosen = pages.get(which as usize % pages.len().max(1));
            match chosen.map(|p| (*p as usize - 1) * wal.page) {
                Some(at) if at + wal.page <= main.len() => {
                    main[at + wal.page / 2..at + wal.page].fill(0xA5);
                    std::fs::write(&database, main)?;
                    tear
                }
                _ => Tear::None,
            }
        }
        Tear::Lying(many) if wal.frames.len() < CHECKPOINT && wal.commits.len() > many => {
            bytes.truncate(wal.commits[wal.commits.len() - 1 - many]);
            tear
        }
        Tear::Lying(_) => Tear::None,
    };
    std::fs::write(&path, bytes)?;
    Ok(done)
}
