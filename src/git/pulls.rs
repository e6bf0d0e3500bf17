//! Heads of pull requests. They lie in a mirror of their own: whoever may open a pull request writes nothing where what is
//! deployed is read from.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::errand::{self, Task};
use super::mirror::{Mirror, discard, git};
use super::{Error, Remote};
use crate::domain::model::Revision;

/// Past so many bytes of packs a mirror of pull requests is made anew: what was closed long ago goes with it.
const MOST: u64 = 2 << 30;

/// A pull request as Git sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PullRef {
    /// Its number.
    pub number: u64,
    /// The ref on the remote that holds the head.
    pub reference: String,
    /// The head.
    pub head: Revision,
    /// The commit of the followed branch that it would be merged into.
    pub base: Revision,
}

impl PullRef {
    fn is_plain(&self) -> bool {
        let name = self.reference.strip_prefix("refs/").unwrap_or_default();
        !name.is_empty()
            && !name.contains("..")
            && !name.ends_with(['/', '.'])
            && !name.ends_with(".lock")
            && !name
                .chars()
                .any(|c| c.is_control() || " ~^:?*[\\".contains(c))
    }
}

impl Mirror {
    /// Fetches the head of a pull request and the branch it would go into, and checks that both commits can be read.
    ///
    /// Blocks. A head that has moved on is an error: whoever asked asks the forge again.
    pub fn fetch_pull(path: &Path, remote: &Remote, pull: &PullRef) -> Result<(), Error> {
        if packed(path) > MOST {
            discard(path)?;
        }
        let mirror = Self::open(path)?;
        if mirror.has(&pull.head) && mirror.has(&pull.base) {
            return Ok(());
        }
        let fetched = if remote.local_path().is_some() {
            mirror.fetch_pull_here(remote, pull)
        } else {
            let task = Task::Pull {
                mirror: path.to_owned(),
                pull: pull.clone(),
            };
            // What a stranger's bytes became is looked at by the daemon itself before it is believed.
            errand::send(remote, task).and_then(|_| Self::open(path)?.has_both(pull))
        };
        if fetched.is_err() && !Self::open(path).is_ok_and(|m| m.is_readable()) {
            discard(path)?;
        }
        fetched
    }

    pub(super) fn fetch_pull_here(&self, remote: &Remote, pull: &PullRef) -> Result<(), Error> {
        if !pull.is_plain() {
            return Err(Error::Protocol(format!(
                "`{}` is no ref of a pull request",
                pull.reference.escape_debug()
            )));
        }
        let refspecs = [
            format!("+{}:refs/isoform/base", remote.reference()),
            format!("+{}:refs/isoform/pull/{}", pull.reference, pull.number),
        ];
        self.fetch_refs(remote, &refspecs)?;
        self.has_both(pull)
    }

    fn has_both(&self, pull: &PullRef) -> Result<(), Error> {
        self.tree_of(&pull.base)?;
        self.tree_of(&pull.head).map(drop)
    }

    /// Tells whether every ref leads to a commit that is there.
    fn is_readable(&self) -> bool {
        let Ok(refs) = self.repository().references_glob("refs/isoform/*") else {
            return false;
        };
        refs.flatten().all(|r| r.peel_to_commit().is_ok())
    }

    /// Forgets the head of a pull request that is closed.
    pub fn forget_pull(path: &Path, number: u64) -> Result<(), Error> {
        if !path.exists() {
            return Ok(());
        }
        let mirror = Self::open(path)?;
        let name = format!("refs/isoform/pull/{number}");
        match mirror.repository().find_reference(&name) {
            Ok(mut found) => found.delete().map_err(git("forgetting a pull request")),
            Err(_) => Ok(()),
        }
    }
}

/// How many bytes the packs of a mirror have.
fn packed(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path.join("objects/pack"));
    let sizes = entries.into_iter().flatten().flatten();
    sizes
        .filter_map(|e| e.metadata().ok())
        .map(|m| m.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_17_only_refs_are_fetched() {
        let pull = |reference: &str| PullRef {
            number: 1,
            reference: reference.into(),
            head: "0".repeat(40).parse().unwrap(),
            base: "0".repeat(40).parse().unwrap(),
        };
        for good in [
            "refs/pull/1/head",
            "refs/heads/a/b",
            "refs/merge-requests/7/head",
        ] {
            assert!(pull(good).is_plain(), "{good}");
        }
        for bad in [
            "",
            "refs/",
            "HEAD",
            "-x",
            "refs/a:refs/b",
            "refs/*",
            "refs/a..b",
            "refs/a b",
            "refs/a/",
        ] {
            assert!(!pull(bad).is_plain(), "{bad}");
        }
    }
}
