//! Mirrors: bare repositories that hold what was fetched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{FetchOptions, ObjectType, Oid, Repository};

use super::remote::callbacks;
use super::{Error, Remote};
use crate::domain::bundle::{Limits, check_path};
use crate::domain::model::{Finding, Place, Revision, Timestamp};
use crate::domain::template::{Blob, Files};

/// Limits of one tree. Proton: a synced repository has at most 250 MB.
const FILES: usize = 100_000;
const BYTES: usize = 250 << 20;
const BLOB: usize = 16 << 20;
const DEPTH: usize = 64;

/// A bare repository that belongs to isoform.
pub struct Mirror {
    repository: Repository,
}

/// The files of a commit, and what was wrong with some of them.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Plain files.
    pub files: Files,
    /// Entries that were refused: symlinks, submodules, names.
    pub findings: Vec<Finding>,
}

/// What is shown of a commit. Names and messages are data from outside: show them escaped.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CommitInfo {
    /// The commit.
    pub revision: Revision,
    /// The author's name.
    pub author: String,
    /// The first line of the message.
    pub summary: String,
    /// When it was committed, as it claims.
    pub at: Timestamp,
}

fn git(action: &str) -> impl FnOnce(git2::Error) -> Error {
    let action = action.to_owned();
    move |source| Error::Git { action, source }
}

pub(super) fn local_tip(path: &Path, branch: &str) -> Result<Option<Revision>, Error> {
    let repository = Repository::open(path).map_err(git("opening the repository"))?;
    match repository.find_reference(&format!("refs/heads/{branch}")) {
        Ok(reference) => {
            let commit = reference
                .peel_to_commit()
                .map_err(git("reading the branch"))?;
            Ok(commit.id().to_string().parse().ok())
        }
        Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
        Err(error) => Err(git("reading the branch")(error)),
    }
}

impl Mirror {
    /// Opens a mirror, or makes it. One that cannot be opened is moved away and made anew.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path.exists() {
            match Repository::open_bare(path) {
                Ok(repository) => return Ok(Self { repository }),
                Err(_) => discard(path)?,
            }
        }
        // Made beside and renamed, so that a crash never leaves half of one under the name.
        let half = path.with_extension("new");
        if half.exists() {
            std::fs::remove_dir_all(&half)
                .map_err(|e| Error::File(half.display().to_string(), e))?;
        }
        crate::secret_file::folder(&half)
            .map_err(|e| Error::File(half.display().to_string(), e))?;
        Repository::init_bare(&half).map_err(git("making the mirror"))?;
        std::fs::rename(&half, path).map_err(|e| Error::File(path.display().to_string(), e))?;
        Ok(Self {
            repository: Repository::open_bare(path).map_err(git("opening the mirror"))?,
        })
    }

    /// Opens a repository of somebody else's to read from, and never to write.
    pub fn of(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            repository: Repository::open(path).map_err(git("opening the repository"))?,
        })
    }

    /// Fetches the branch of a remote and checks that the commit is there and readable.
    ///
    /// A mirror that turns out to be damaged is discarded; the next try makes it anew.
    pub fn fetch(path: &Path, remote: &Remote, wanted: &Revision) -> Result<(), Error> {
        let first = Self::open(path)?.fetch_once(remote, wanted);
        match first {
            Err(Error::Git { source, .. })
                if matches!(
                    source.class(),
                    git2::ErrorClass::Odb
                        | git2::ErrorClass::Object
                        | git2::ErrorClass::Indexer
                        | git2::ErrorClass::Zlib
                        | git2::ErrorClass::Reference
                ) =>
            {
                discard(path)?;
                Self::open(path)?.fetch_once(remote, wanted)
            }
            other => other,
        }
    }

    fn fetch_once(&self, remote: &Remote, wanted: &Revision) -> Result<(), Error> {
        let mut connection = self
            .repository
            .remote_anonymous(&remote.url)
            .map_err(git("naming the remote"))?;
        let mut options = FetchOptions::new();
        options
            .remote_callbacks(callbacks(remote))
            .download_tags(git2::AutotagOption::None);
        options.follow_redirects(git2::RemoteRedirect::None);
        let refspec = format!("+{}:refs/isoform/tip", remote.reference());
        connection
            .fetch(&[refspec], Some(&mut options), None)
            .map_err(git("fetching"))?;
        self.tree_of(wanted).map(|_| ())
    }

    fn oid(revision: &Revision) -> Result<Oid, Error> {
        Oid::from_str(revision.as_str()).map_err(git("reading a commit id"))
    }

    fn tree_of(&self, revision: &Revision) -> Result<git2::Tree<'_>, Error> {
        let commit = self
            .repository
            .find_commit(Self::oid(revision)?)
            .map_err(git("reading the commit"))?;
        commit.tree().map_err(git("reading the tree"))
    }

    /// Tells whether a commit is there.
    pub fn has(&self, revision: &Revision) -> bool {
        self.tree_of(revision).is_ok()
    }

    /// Tells whether `new` has `old` among its ancestors.
    pub fn descends(&self, new: &Revision, old: &Revision) -> Result<bool, Error> {
        if new == old {
            return Ok(true);
        }
        match self
            .repository
            .graph_descendant_of(Self::oid(new)?, Self::oid(old)?)
        {
            Ok(answer) => Ok(answer),
            // An old head that is not in the mirror is no ancestor that can be shown.
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(false),
            Err(error) => Err(git("comparing two commits")(error)),
        }
    }

    /// Returns what is shown of a commit.
    pub fn commit(&self, revision: &Revision) -> Result<CommitInfo, Error> {
        let commit = self
            .repository
            .find_commit(Self::oid(revision)?)
            .map_err(git("reading the commit"))?;
        let clean = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes)
                .chars()
                .filter(|c| !c.is_control())
                .take(200)
                .collect::<String>()
        };
        let author = clean(commit.author().name_bytes());
        let first = commit
            .message_bytes()
            .split(|b| *b == b'\n')
            .next()
            .unwrap_or_default();
        Ok(CommitInfo {
            revision: revision.clone(),
            author,
            summary: clean(first),
            at: Timestamp(commit.time().seconds().saturating_mul(1000)),
        })
    }

    /// Reads the files of a commit from the object database.
    pub fn read(&self, revision: &Revision) -> Result<Tree, Error> {
        let mut out = Tree::default();
        let mut folded: BTreeMap<String, String> = BTreeMap::new();
        let mut total = 0usize;
        let limits = Limits {
            path: 1024,
            ..Limits::default()
        };
        let odb = self
            .repository
            .odb()
            .map_err(git("opening the object database"))?;
        let mut open: Vec<(String, Oid, usize)> =
            vec![(String::new(), self.tree_of(revision)?.id(), 0)];
        let mut seen = 0usize;
        while let Some((prefix, id, depth)) = open.pop() {
            if depth > DEPTH {
                return Err(Error::Limit(format!(
                    "the tree is nested deeper than {DEPTH} directories"
                )));
            }
            let tree = self
                .repository
                .find_tree(id)
                .map_err(git("reading a tree"))?;
            for entry in &tree {
                seen += 1;
                if seen > FILES {
                    return Err(Error::Limit(format!(
                        "the commit has more than {FILES} entries"
                    )));
                }
                let Ok(name) = std::str::from_utf8(entry.name_bytes()) else {
                    out.findings.push(Finding::error(
                        "git.name",
                        Place::file(prefix.clone()),
                        "an entry's name is not UTF-8: it is left out",
                    ));
                    continue;
                };
                let path = if prefix.is_empty() {
                    name.to_owned()
                } else {
                    format!("{prefix}/{name}")
                };
                let shown = path.escape_debug().to_string();
                if let Err(why) = check_path(&path, &limits) {
                    out.findings.push(Finding::error(
                        "git.name",
                        Place::file(shown),
                        format!("the entry is refused: {why}"),
                    ));
                    continue;
                }
                match (entry.filemode(), entry.kind()) {
                    (0o120_000, _) => {
                        let finding = Finding::warning(
                            "git.symlink",
                            Place::file(shown),
                            "a symlink is never followed: it is left out",
                        );
                        out.findings.push(finding);
                    }
                    (_, Some(ObjectType::Tree)) => open.push((path, entry.id(), depth + 1)),
                    (_, Some(ObjectType::Blob)) => {
                        let (size, _) =
                            odb.read_header(entry.id()).map_err(git("reading a file"))?;
                        total += size;
                        if size > BLOB || total > BYTES {
                            return Err(Error::Limit(format!(
                                "{shown}: a file has at most {BLOB} bytes and all of them at most {BYTES}"
                            )));
                        }
                        if let Some(other) = folded.insert(path.to_lowercase(), path.clone()) {
                            let message = format!(
                                "the name differs from `{}` in letter case only",
                                other.escape_debug()
                            );
                            out.findings.push(Finding::warning(
                                "git.case",
                                Place::file(shown),
                                message,
                            ));
                        }
                        let object = odb.read(entry.id()).map_err(git("reading a file"))?;
                        out.files.insert(
                            path,
                            Blob {
                                bytes: Arc::from(object.data()),
                                id: entry.id().to_string(),
                            },
                        );
                    }
                    _ => out.findings.push(Finding::warning(
                        "git.submodule",
                        Place::file(shown),
                        "a submodule is not read: it is left out",
                    )),
                }
            }
        }
        Ok(out)
    }
}

fn discard(path: &Path) -> Result<(), Error> {
    let gone: PathBuf = path.with_extension("damaged");
    let file = |e| Error::File(gone.display().to_string(), e);
    if gone.exists() {
        std::fs::remove_dir_all(&gone).map_err(file)?;
    }
    std::fs::rename(path, &gone).map_err(file)?;
    std::fs::remove_dir_all(&gone).map_err(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::{Auth, tip};

    fn commit(repository: &Repository, files: &[(&str, &str, i32)], parents: &[Oid]) -> Oid {
        let mut builder = repository.treebuilder(None).unwrap();
        for (name, body, mode) in files {
            builder
                .insert(*name, repository.blob(body.as_bytes()).unwrap(), *mode)
                .unwrap();
        }
        let tree = repository.find_tree(builder.write().unwrap()).unwrap();
        let who =
            git2::Signature::new("a\u{7}na", "a@example.org", &git2::Time::new(1, 0)).unwrap();
        let parents: Vec<_> = parents
            .iter()
            .map(|p| repository.find_commit(*p).unwrap())
            .collect();
        repository
            .commit(
                None,
                &who,
                &who,
                "first line\nmore",
                &tree,
                &parents.iter().collect::<Vec<_>>(),
            )
            .unwrap()
    }

    #[tokio::test]
    async fn a_branch_is_followed_into_the_mirror() {
        let folder = tempfile::tempdir().unwrap();
        let origin = folder.path().join("origin.git");
        let repository = Repository::init_bare(&origin).unwrap();
        let first = commit(&repository, &[("a.yaml", "1", 0o100_644)], &[]);
        repository
            .reference("refs/heads/main", first, true, "")
            .unwrap();
        let remote = Remote::new(origin.to_str().unwrap(), "main", Auth::default()).unwrap();
        let client = reqwest::Client::new();
        let old = tip(&remote, &client).await.unwrap().unwrap();
        let path = folder.path().join("mirror.git");
        Mirror::fetch(&path, &remote, &old).unwrap();
        assert_eq!(
            Mirror::open(&path).unwrap().read(&old).unwrap().files.len(),
            1
        );

        let second = commit(&repository, &[("a.yaml", "2", 0o100_644)], &[first]);
        let sideways = commit(&repository, &[("b.yaml", "2", 0o100_644)], &[]);
        for (oid, descends) in [(second, true), (sideways, false)] {
            repository
                .reference("refs/heads/main", oid, true, "")
                .unwrap();
            let new = tip(&remote, &client).await.unwrap().unwrap();
            Mirror::fetch(&path, &remote, &new).unwrap();
            assert_eq!(
                Mirror::open(&path).unwrap().descends(&new, &old).unwrap(),
                descends
            );
        }
        repository
            .find_reference("refs/heads/main")
            .unwrap()
            .delete()
            .unwrap();
        assert_eq!(tip(&remote, &client).await.unwrap(), None);

        std::fs::write(path.join("HEAD"), "garbage").unwrap();
        std::fs::remove_dir_all(path.join("objects")).unwrap();
        repository
            .reference("refs/heads/main", second, true, "")
            .unwrap();
        let new = tip(&remote, &client).await.unwrap().unwrap();
        Mirror::fetch(&path, &remote, &new).unwrap();
        assert!(Mirror::open(&path).unwrap().has(&new));
    }

    #[test]
    fn sec_01_symlinks_are_never_followed_and_names_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(folder.path()).unwrap();
        let oid = commit(
            &repository,
            &[
                ("link.yaml", "/etc/passwd", 0o120_000),
                ("ok.yaml", "x", 0o100_644),
                ("OK.yaml", "y", 0o100_644),
            ],
            &[],
        );
        let tree = Mirror { repository }
            .read(&oid.to_string().parse().unwrap())
            .unwrap();
        assert_eq!(tree.files.len(), 2);
        let codes: Vec<&str> = tree.findings.iter().map(|f| f.code.as_str()).collect();
        assert!(
            codes.contains(&"git.symlink") && codes.contains(&"git.case"),
            "{codes:?}"
        );
    }
}
