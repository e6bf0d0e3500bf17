//! Mirrors: bare repositories that hold what was fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{FetchOptions, ObjectType, Oid, Repository};

use super::errand::{self, Task};
use super::remote::callbacks;
use super::{Error, Remote};
use crate::domain::bundle::{Limits, check_path};
use crate::domain::model::{Finding, Place, Revision, Timestamp, folded_name};
use crate::domain::template::{Blob, Files};

/// Limits of one tree. Proton: a synced repository has at most 250 MB.
pub(super) const FILES: usize = 100_000;
pub(super) const BYTES: usize = 250 << 20;
pub(super) const BLOB: usize = 16 << 20;
const DEPTH: usize = 64;
/// One object that is no file: a tree of 100,000 entries fits, and so does every commit that a person wrote.
const OBJECT: usize = 16 << 20;
/// How many refused entries are told; more are counted.
const TOLD: usize = 200;
/// How much of a refused name is told.
const SHOWN: usize = 200;

/// Where the branch was when it was fetched last.
const TIP: &str = "refs/isoform/tip";

/// A bare repository that belongs to isoform.
pub struct Mirror {
    pub(super) repository: Repository,
}

/// The files of a commit, and what was wrong with some of them.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Plain files.
    pub files: Files,
    /// Entries that were refused: symlinks, submodules, names.
    pub findings: Vec<Finding>,
    /// Paths of which nothing was read, themselves and whatever lies below; an empty one stands for any path.
    pub left_out: BTreeSet<String>,
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

pub(super) fn git(action: &str) -> impl FnOnce(git2::Error) -> Error {
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
    /// A remote over the network is spoken to by a process of its own (`errand.rs`). A mirror that is damaged is
    /// discarded and made anew; one that is not stays as it was, whatever the remote sends.
    pub fn fetch(path: &Path, remote: &Remote, wanted: &Revision) -> Result<(), Error> {
        let first = Self::fetch_any(path, remote, wanted);
        if first.is_ok() || Self::is_sound(path) {
            return first;
        }
        discard(path)?;
        Self::fetch_any(path, remote, wanted)
    }

    /// Fetches once. Where that fails, the mirror is put back as it was.
    fn fetch_any(path: &Path, remote: &Remote, wanted: &Revision) -> Result<(), Error> {
        // Made here, so that it has its mode and its place whatever becomes of the errand.
        let mirror = Self::open(path)?;
        let before = Before::of(&mirror, path);
        let fetched = if remote.local_path().is_some() {
            mirror.fetch_here(remote, wanted)
        } else {
            let task = Task::Fetch {
                mirror: path.to_owned(),
                wanted: wanted.clone(),
            };
            // What a stranger's bytes became is looked at by the daemon itself before it is believed.
            errand::send(remote, task).and_then(|_| Self::open(path)?.tree_of(wanted).map(drop))
        };
        if fetched.is_err() {
            before.restore(&mirror);
        }
        fetched
    }

    /// Tells whether what was fetched last can still be read; true where nothing was.
    fn is_sound(path: &Path) -> bool {
        let Ok(repository) = Repository::open_bare(path) else {
            return false;
        };
        let tip = match repository.find_reference(TIP) {
            Ok(reference) => reference.target(),
            Err(error) => return error.code() == git2::ErrorCode::NotFound,
        };
        let tip = tip.and_then(|id| id.to_string().parse().ok());
        tip.is_some_and(|revision| Self { repository }.has(&revision))
    }

    /// Fetches in this process.
    pub(super) fn fetch_here(&self, remote: &Remote, wanted: &Revision) -> Result<(), Error> {
        let refspec = format!("+{}:{TIP}", remote.reference());
        self.fetch_refs(remote, &[refspec])?;
        self.tree_of(wanted).map(drop)
    }

    pub(super) fn fetch_refs(&self, remote: &Remote, refspecs: &[String]) -> Result<(), Error> {
        let mut connection = self
            .repository
            .remote_anonymous(&remote.url)
            .map_err(git("naming the remote"))?;
        let mut options = FetchOptions::new();
        options
            .remote_callbacks(callbacks(remote))
            .download_tags(git2::AutotagOption::None);
        options.follow_redirects(git2::RemoteRedirect::None);
        connection
            .fetch(refspecs, Some(&mut options), None)
            .map_err(git("fetching"))
    }

    pub(super) fn oid(revision: &Revision) -> Result<Oid, Error> {
        Oid::from_str(revision.as_str()).map_err(git("reading a commit id"))
    }

    /// Refuses an object that is larger than it may be, before it is read.
    fn check_size(&self, id: Oid, what: &str) -> Result<(), Error> {
        let odb = self.repository.odb();
        let header = odb.and_then(|odb| odb.read_header(id));
        let (size, _) = header.map_err(git(&format!("reading {what}")))?;
        if size > OBJECT {
            return Err(Error::Limit(format!(
                "{what} {id} has {size} bytes, at most {OBJECT} are read"
            )));
        }
        Ok(())
    }

    pub(super) fn repository(&self) -> &Repository {
        &self.repository
    }

    pub(super) fn tree_of(&self, revision: &Revision) -> Result<git2::Tree<'_>, Error> {
        self.check_size(Self::oid(revision)?, "the commit")?;
        let commit = self
            .repository
            .find_commit(Self::oid(revision)?)
            .map_err(git("reading the commit"))?;
        self.check_size(commit.tree_id(), "the tree")?;
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
        // An old head that is not in the mirror is no ancestor that can be shown: after the mirror was lost, a rewritten
        // history does not bring it back. libgit2 has no code of its own for that, so it is asked first.
        if !self.has(old) {
            return Ok(false);
        }
        self.repository
            .graph_descendant_of(Self::oid(new)?, Self::oid(old)?)
            .map_err(git("comparing two commits"))
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
        self.read_tree(self.tree_of(revision)?.id())
    }

    pub(super) fn read_tree(&self, root: Oid) -> Result<Tree, Error> {
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
        let mut open: Vec<(String, Oid, usize)> = vec![(String::new(), root, 0)];
        let mut seen = 0usize;
        while let Some((prefix, id, depth)) = open.pop() {
            if depth > DEPTH {
                return Err(Error::Limit(format!(
                    "the tree is nested deeper than {DEPTH} directories"
                )));
            }
            self.check_size(id, "the tree")?;
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
                    let finding = Finding::error(
                        "git.name",
                        Place::file(prefix.clone()),
                        "an entry's name is not UTF-8: it is left out",
                    );
                    out.leave_out(&prefix, finding);
                    continue;
                };
                let path = if prefix.is_empty() {
                    name.to_owned()
                } else {
                    format!("{prefix}/{name}")
                };
                let shown = || -> String {
                    let start: String = path.chars().take(SHOWN).collect();
                    start.escape_debug().to_string()
                };
                if let Err(why) = check_path(&path, &limits) {
                    let message = format!("the entry is refused: {why}");
                    let finding = Finding::error("git.name", Place::file(shown()), message);
                    out.leave_out(&path, finding);
                    continue;
                }
                match (entry.filemode(), entry.kind()) {
                    (0o120_000, _) => {
                        let finding = Finding::warning(
                            "git.symlink",
                            Place::file(shown()),
                            "a symlink is never followed: it is left out",
                        );
                        out.leave_out(&path, finding);
                    }
                    (_, Some(ObjectType::Tree)) => open.push((path, entry.id(), depth + 1)),
                    (_, Some(ObjectType::Blob)) => {
                        let (size, _) =
                            odb.read_header(entry.id()).map_err(git("reading a file"))?;
                        if size > BLOB {
                            let message = format!(
                                "the file has {size} bytes, at most {BLOB} are read: it is left out"
                            );
                            let finding =
                                Finding::warning("git.size", Place::file(shown()), message);
                            out.leave_out(&path, finding);
                            continue;
                        }
                        total += size;
                        if total > BYTES {
                            return Err(Error::Limit(format!(
                                "all files together have more than {BYTES} bytes"
                            )));
                        }
                        if let Some(other) = folded.insert(folded_name(&path), path.clone()) {
                            let message = format!(
                                "the name differs from `{}` in letter case or Unicode form only",
                                other.escape_debug()
                            );
                            out.tell(Finding::warning("git.case", Place::file(shown()), message));
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
                    _ => {
                        let finding = Finding::warning(
                            "git.submodule",
                            Place::file(shown()),
                            "a submodule is not read: it is left out",
                        );
                        out.leave_out(&path, finding);
                    }
                }
            }
        }
        Ok(out)
    }
}

impl Tree {
    /// Adds a finding while there are few: a tree of hostile names costs no more than its first ones.
    fn tell(&mut self, finding: Finding) {
        if self.findings.len() < TOLD {
            self.findings.push(finding);
        }
    }

    /// Notes that nothing of a path was read. Beyond the first ones it is only known that there are more.
    fn leave_out(&mut self, path: &str, finding: Finding) {
        let room = self.left_out.len() < TOLD;
        self.left_out
            .insert(if room { path.to_owned() } else { String::new() });
        self.tell(finding);
    }
}

/// What a mirror held before a fetch.
struct Before {
    folder: PathBuf,
    packs: BTreeSet<OsString>,
    tip: Option<Oid>,
}

impl Before {
    fn of(mirror: &Mirror, path: &Path) -> Self {
        let folder = path.join("objects/pack");
        Self {
            packs: names(&folder).collect(),
            folder,
            tip: mirror.repository.refname_to_id(TIP).ok(),
        }
    }

    /// Removes what came since, half of it or whole: libgit2 keeps packs that it cannot read later, and the parts of a
    /// process that was ended.
    fn restore(&self, mirror: &Mirror) {
        for name in names(&self.folder).filter(|name| !self.packs.contains(name)) {
            let _ = std::fs::remove_file(self.folder.join(name));
        }
        let now = mirror.repository.refname_to_id(TIP).ok();
        let restored = match (self.tip, now) {
            (Some(tip), now) if now != Some(tip) => {
                let reference = mirror.repository.reference(TIP, tip, true, "");
                reference.map(drop)
            }
            (None, Some(_)) => mirror
                .repository
                .find_reference(TIP)
                .and_then(|mut reference| reference.delete()),
            _ => Ok(()),
        };
        if let Err(error) = restored {
            tracing::warn!("a mirror cannot be put back: {}", error.message());
        }
    }
}

fn names(folder: &Path) -> impl Iterator<Item = OsString> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.flatten().map(|entry| entry.file_name())
}

pub(super) fn discard(path: &Path) -> Result<(), Error> {
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
    use crate::git::{Auth, Client, tip};

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
        let client = Client::new().unwrap();
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

    /// A tree object made of raw entries, as no well-behaved Git would make it.
    fn raw_tree(repository: &Repository, entries: &[(&str, &[u8], Oid)]) -> Oid {
        let mut bytes = Vec::new();
        for (mode, name, id) in entries {
            bytes.extend_from_slice(mode.as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(name);
            bytes.push(0);
            bytes.extend_from_slice(id.as_bytes());
        }
        let odb = repository.odb().unwrap();
        odb.write(ObjectType::Tree, &bytes).unwrap()
    }

    fn raw_commit(repository: &Repository, tree: Oid) -> Revision {
        let who = "a <a@example.org> 1 +0000";
        let text = format!("tree {tree}\nauthor {who}\ncommitter {who}\n\nhostile\n");
        let odb = repository.odb().unwrap();
        let id = odb.write(ObjectType::Commit, text.as_bytes()).unwrap();
        id.to_string().parse().unwrap()
    }

    fn bare() -> (tempfile::TempDir, Repository, Oid) {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(folder.path()).unwrap();
        let blob = repository.blob(b"x").unwrap();
        (folder, repository, blob)
    }

    fn codes(tree: &Tree) -> Vec<&str> {
        tree.findings.iter().map(|f| f.code.as_str()).collect()
    }

    #[test]
    fn sec_02_a_chain_of_symlinks_is_left_out_link_by_link() {
        let (_folder, repository, blob) = bare();
        let up = repository.blob(b"../../../../etc/passwd").unwrap();
        let here = repository.blob(b"real.yaml").unwrap();
        let folder = repository.blob(b"dir").unwrap();
        let inner = raw_tree(&repository, &[("120000", b"up", up)]);
        let root = raw_tree(
            &repository,
            &[
                ("40000", b"dir", inner),
                ("120000", b"folder", folder),
                ("120000", b"inside.yaml", here),
                ("100644", b"real.yaml", blob),
            ],
        );
        let revision = raw_commit(&repository, root);
        let tree = Mirror { repository }.read(&revision).unwrap();
        assert_eq!(tree.files.keys().collect::<Vec<_>>(), ["real.yaml"]);
        assert_eq!(codes(&tree), ["git.symlink"; 3]);
    }

    #[test]
    fn sec_03_hostile_names_of_tree_entries_are_left_out() {
        let (_folder, repository, blob) = bare();
        let names: &[&[u8]] = &[
            b".git",
            b".GIT",
            b"git~1",
            b".git::$INDEX_ALLOCATION",
            b".g\xe2\x80\x8cit",
            b"a.yaml.",
            b"a.yaml ",
            b"a.yaml:x",
            b"..",
            b".",
            b"../x",
            b"/etc/passwd",
            b"a\\b",
            b"a\x1b[2Jb",
            b"\xff\xfe",
        ];
        for name in names {
            let root = raw_tree(
                &repository,
                &[("100644", name, blob), ("100644", b"ok.yaml", blob)],
            );
            let revision = raw_commit(&repository, root);
            let mirror = Mirror::of(repository.path()).unwrap();
            let tree = mirror.read(&revision).unwrap();
            assert_eq!(
                tree.files.keys().collect::<Vec<_>>(),
                ["ok.yaml"],
                "{name:?}"
            );
            assert_eq!(codes(&tree), ["git.name"], "{name:?}");
            let told = format!("{:?}", tree.findings[0].place.file);
            assert!(!told.contains('\u{1b}'), "{told}");
        }
    }

    #[test]
    fn sec_04_trees_without_end_cost_no_more_than_their_limits() {
        let (_folder, repository, blob) = bare();
        let mirror = Mirror { repository };
        let repository = &mirror.repository;
        // In memory: ten thousand loose files would be all that this test does.
        let odb = repository.odb().unwrap();
        let _mempack = odb.add_new_mempack_backend(1_000).unwrap();
        let long = vec![b'n'; 5_000];
        let entries: Vec<(String, Vec<u8>)> = (0..2_000)
            .map(|i| {
                (
                    "100644".to_owned(),
                    [format!("{i:05}").as_bytes(), &long].concat(),
                )
            })
            .collect();
        let borrowed: Vec<_> = entries
            .iter()
            .map(|(mode, name)| (mode.as_str(), name.as_slice(), blob))
            .collect();
        let names = raw_commit(repository, raw_tree(repository, &borrowed));
        let mut deep = raw_tree(repository, &[("100644", b"x", blob)]);
        for _ in 0..10_000 {
            deep = raw_tree(repository, &[("40000", b"d", deep)]);
        }
        let deep = raw_commit(repository, deep);
        // Ten trees, ten entries each, every one the tree before: 10^10 files in 4 kB.
        let mut wide = raw_tree(repository, &[("100644", b"x", blob)]);
        for _ in 0..10 {
            let names: Vec<String> = (0..10).map(|i| i.to_string()).collect();
            let entries: Vec<_> = names
                .iter()
                .map(|n| ("40000", n.as_bytes(), wide))
                .collect();
            wide = raw_tree(repository, &entries);
        }
        let wide = raw_commit(repository, wide);
        let huge = repository
            .odb()
            .unwrap()
            .write(ObjectType::Tree, &vec![b'1'; OBJECT + 1])
            .unwrap();
        let huge = raw_commit(repository, huge);

        let tree = mirror.read(&names).unwrap();
        assert!(tree.files.is_empty());
        assert_eq!(tree.findings.len(), TOLD);
        assert!(tree.findings.iter().all(|f| f.place.file.len() <= SHOWN));
        for revision in [&deep, &wide, &huge] {
            assert!(matches!(mirror.read(revision), Err(Error::Limit(_))));
        }
    }

    #[test]
    fn sec_10_a_file_that_is_too_large_is_left_out_and_the_others_are_read() {
        let (_folder, repository, blob) = bare();
        let large = repository.blob(&vec![0u8; BLOB + 1]).unwrap();
        let root = raw_tree(
            &repository,
            &[
                ("100644", b"large.bin", large),
                ("100644", b"ok.yaml", blob),
            ],
        );
        let revision = raw_commit(&repository, root);
        let tree = Mirror { repository }.read(&revision).unwrap();
        assert_eq!(tree.files.keys().collect::<Vec<_>>(), ["ok.yaml"]);
        assert_eq!(codes(&tree), ["git.size"]);
    }

    #[test]
    fn sec_15_submodules_and_lfs_pointers_are_never_followed() {
        let (_folder, repository, blob) = bare();
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1\n";
        let lfs = repository.blob(pointer.as_bytes()).unwrap();
        let modules = repository
            .blob(b"[submodule \"x\"]\n\tpath = sub\n\turl = ../../evil.git\n")
            .unwrap();
        let root = raw_tree(
            &repository,
            &[
                ("100644", b".gitmodules", modules),
                ("100644", b"lfs.yaml", lfs),
                ("160000", b"sub", blob),
            ],
        );
        let revision = raw_commit(&repository, root);
        let tree = Mirror { repository }.read(&revision).unwrap();
        assert_eq!(codes(&tree), ["git.submodule"]);
        assert_eq!(&*tree.files["lfs.yaml"].bytes, pointer.as_bytes());
    }

    #[tokio::test]
    async fn sec_17_a_branch_is_nothing_but_refs_heads() {
        let (folder, repository, _) = bare();
        let one = commit(&repository, &[("a", "1", 0o100_644)], &[]);
        let two = commit(&repository, &[("a", "2", 0o100_644)], &[]);
        let three = commit(&repository, &[("a", "3", 0o100_644)], &[]);
        let hex = one.to_string();
        // A branch that is named like a commit, like HEAD, and like the full name of another.
        for (name, id) in [
            ("refs/heads/main".to_owned(), one),
            (format!("refs/heads/{hex}"), two),
            ("refs/heads/HEAD".to_owned(), two),
            ("refs/heads/refs/heads/main".to_owned(), three),
        ] {
            repository.reference(&name, id, true, "").unwrap();
        }
        let client = Client::new().unwrap();
        for (branch, id) in [
            ("main", Some(one)),
            (hex.as_str(), Some(two)),
            ("HEAD", Some(two)),
            ("refs/heads/main", Some(three)),
            ("main~0x", None),
            ("heads/main", None),
        ] {
            let url = folder.path().to_str().unwrap();
            let Ok(remote) = Remote::new(url, branch, Auth::default()) else {
                assert!(id.is_none(), "{branch}");
                continue;
            };
            let found = tip(&remote, &client).await.unwrap();
            assert_eq!(
                found.map(|r| r.to_string()),
                id.map(|i| i.to_string()),
                "{branch}"
            );
        }
    }

    #[tokio::test]
    async fn sec_18_a_tag_of_the_same_name_changes_nothing() {
        let (folder, repository, _) = bare();
        let one = commit(&repository, &[("a", "1", 0o100_644)], &[]);
        let two = commit(&repository, &[("a", "2", 0o100_644)], &[one]);
        repository
            .reference("refs/heads/v1", one, true, "")
            .unwrap();
        let url = folder.path().to_str().unwrap();
        let remote = Remote::new(url, "v1", Auth::default()).unwrap();
        let client = Client::new().unwrap();
        let who = git2::Signature::new("a", "a@example.org", &git2::Time::new(1, 0)).unwrap();
        let object = repository.find_object(two, None).unwrap();
        // Lightweight, moved, and annotated.
        for step in 0..3 {
            match step {
                0 => drop(repository.reference("refs/tags/v1", two, true, "").unwrap()),
                1 => drop(repository.reference("refs/tags/v1", one, true, "").unwrap()),
                _ => drop(repository.tag("v1", &object, &who, "x", true).unwrap()),
            }
            let found = tip(&remote, &client).await.unwrap().unwrap();
            assert_eq!(found.as_str(), one.to_string());
            let path = folder.path().join(format!("mirror{step}"));
            Mirror::fetch(&path, &remote, &found).unwrap();
            let mirror = Repository::open_bare(&path).unwrap();
            let names: Vec<String> = mirror
                .references()
                .unwrap()
                .map(|r| r.unwrap().name().unwrap_or_default().to_owned())
                .collect();
            assert_eq!(names, ["refs/isoform/tip"], "no tag comes along");
        }
    }
}
