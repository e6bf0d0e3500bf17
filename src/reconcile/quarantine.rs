//! An input over which the daemon died twice is left alone: without this, one bad commit is a daemon that never starts.
//!
//! What is being tried lies in a small file of the state folder, from before the try until it has ended. It is no part of
//! the log: it says nothing about what was done, and losing it costs one more death.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::Poll;

use serde::{Deserialize, Serialize};

use super::{Error, Line};
use crate::domain::model::{Revision, SourceName};

/// How often the same heads may end the daemon, or make it panic, before they are left alone.
const DEATHS: u32 = 2;
/// How the refusal of a source begins that is left alone.
pub(super) const MARK: &str = "look.quarantine";

/// How many heads are remembered: the oldest is forgotten.
const REMEMBERED: usize = 8;

/// Heads that are being compiled, or whose compilation did not end, and how often.
#[derive(Serialize, Deserialize)]
struct Trial {
    heads: BTreeMap<SourceName, Revision>,
    deaths: u32,
}

fn read(path: &Path) -> Vec<Trial> {
    std::fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// Not written is not counted: a full disk must not stop what would have gone well.
fn write(path: &Path, trials: &[Trial]) {
    let written = if trials.is_empty() {
        std::fs::remove_file(path)
    } else {
        serde_json::to_vec(trials)
            .map_err(std::io::Error::other)
            .and_then(|bytes| crate::secret_file::write(path, &bytes))
    };
    if let Err(error) = written {
        tracing::warn!("{} cannot be written: {error}", path.display());
    }
}

/// Takes a try back when it ends, and also when the daemon stops waiting for it: only death leaves it.
struct Kept<'a> {
    path: PathBuf,
    heads: &'a BTreeMap<SourceName, Revision>,
    panicked: bool,
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if !self.panicked {
            let mut trials = read(&self.path);
            trials.retain(|t| t.heads != *self.heads);
            write(&self.path, &trials);
        }
    }
}

/// Does work, and makes an error of a panic: an input that has found a bug stops this work and nothing else.
pub(super) async fn unwound<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let mut work = pin!(work);
    poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(poll) => poll,
            Err(_) => Poll::Ready(Err(Error::Panicked)),
        },
    )
    .await
}

impl Line {
    fn trial(&self) -> PathBuf {
        self.settings.state.join("trial.json")
    }

    /// Works on heads unless they ended the daemon before; a panic is an error and counts as an end.
    pub(super) async fn tried<T>(
        &self,
        heads: &BTreeMap<SourceName, Revision>,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let path = self.trial();
        let mut trials = read(&path);
        let before = trials.iter().position(|t| t.heads == *heads);
        let deaths = before.map_or(0, |at| trials.remove(at).deaths);
        if deaths >= DEATHS {
            return Err(Error::Quarantined);
        }
        trials.push(Trial {
            heads: heads.clone(),
            deaths: deaths + 1,
        });
        let skip = trials.len().saturating_sub(REMEMBERED);
        write(&path, &trials[skip..]);
        let mut kept = Kept {
            path,
            heads,
            panicked: false,
        };
        let result = unwound(work).await;
        kept.panicked = matches!(result, Err(Error::Panicked));
        result
    }

    /// Says of every source that its newest head is left alone.
    pub(super) async fn leave_alone(
        &self,
        heads: &BTreeMap<SourceName, Revision>,
    ) -> Result<(), Error> {
        let good = self
            .newest()
            .map(|s| s.revisions.clone())
            .unwrap_or_default();
        for (name, head) in heads.iter().filter(|(n, h)| good.get(*n) != Some(*h)) {
            let reason = format!(
                "{MARK}: isoform died {DEATHS} times over {}, which is left alone: push another commit, or remove {} to have it tried again",
                head.short(),
                self.trial().display()
            );
            self.refuse(name, None, &reason).await?;
        }
        Ok(())
    }

    /// Forgets what was said of heads that are left alone.
    pub(super) fn nothing_is_left_alone(&self) {
        let mut shared = self.shared();
        shared
            .refused
            .retain(|_, (_, text)| !text.starts_with(MARK));
    }

    /// Tells whether the newest head of a source is left alone.
    pub(super) fn is_left_alone(&self, name: &SourceName) -> bool {
        let shared = self.shared();
        let refused = shared.refused.get(name);
        refused.is_some_and(|(_, text)| text.starts_with(MARK))
    }
}
