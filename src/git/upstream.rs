//! What a person's clone came from: read at its tips, and moved forward by one commit, never by force.
//!
//! For the command line only, with the person's own credentials. The work tree, the index and the branches of the clone
//! stay as they are; the remote-tracking branch follows a push, as it does with Git.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use git2::{Cred, CredentialType, FetchOptions, Oid, PushOptions, RemoteCallbacks, Repository};

use super::Error;
use super::mirror::{Mirror, git};
use crate::domain::model::Revision;

/// How much a remote may say about a push.
const CHATTER: usize = 64 << 10;
/// Hooks that may refuse a push. Only Git runs them.
const HOOKS: [&str; 4] = [
    "pre-receive",
    "update",
    "reference-transaction",
    "proc-receive",
];

/// The repository that a clone came from.
pub struct Upstream {
    clone: Repository,
    /// The repository itself, where it lies in a folder.
    here: Option<PathBuf>,
    url: String,
}

/// What became of a push.
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The branch is at the commit; what the remote said of it.
    Done(String),
    /// Somebody else moved the branch meanwhile.
    Moved,
}

impl Upstream {
    /// Finds the `origin` of the clone that a folder lies in.
    pub fn of(folder: &Path) -> Result<Self, Error> {
        let clone = Repository::discover(folder).map_err(git("opening the clone"))?;
        let url = {
            let origin = clone
                .find_remote("origin")
                .map_err(git("finding `origin`"))?;
            origin
                .url()
                .map_err(git("reading the URL of `origin`"))?
                .to_owned()
        };
        let plain = ["http://", "git://"]
            .iter()
            .find_map(|p| url.strip_prefix(p));
        let host = plain.map(|rest| rest.split(['/', ':']).next().unwrap_or_default());
        if host.is_some_and(|host| !matches!(host, "127.0.0.1" | "localhost" | "[")) {
            let why = "`origin` is reached without encryption, which is allowed to loopback only: use https or ssh";
            return Err(Error::Errand(why.into()));
        }
        let root = clone.workdir().unwrap_or_else(|| clone.path());
        let path = root.join(url.strip_prefix("file://").unwrap_or(&url));
        let here = (url.starts_with("file://") || !url.contains("://")) && path.is_dir();
        let here = here.then_some(path);
        Ok(Self { clone, here, url })
    }

    /// Returns the URL of `origin`; an absolute path where it is a folder.
    pub fn url(&self) -> String {
        let here = self.here.as_ref().and_then(|p| p.canonicalize().ok());
        here.map_or_else(|| self.url.clone(), |path| path.display().to_string())
    }

    /// Returns the branch that the repository's own head names, where that is known without asking over the network.
    pub fn default_branch(&self) -> Option<String> {
        let named = |repository: &Repository, name: &str, prefix: &str| {
            let head = repository.find_reference(name).ok()?;
            let target = head.symbolic_target().ok()??;
            target.strip_prefix(prefix).map(str::to_owned)
        };
        let here = self
            .here
            .as_ref()
            .and_then(|path| Repository::open(path).ok());
        here.and_then(|r| named(&r, "HEAD", "refs/heads/"))
            .or_else(|| {
                named(
                    &self.clone,
                    "refs/remotes/origin/HEAD",
                    "refs/remotes/origin/",
                )
            })
    }

    /// Opens what holds the objects: the repository itself where it is a folder, else the clone.
    fn store(&self) -> Result<Repository, Error> {
        let path = self.here.as_deref().unwrap_or(self.clone.path());
        Repository::open(path).map_err(git("opening the repository"))
    }

    /// Reads from what holds the objects.
    pub fn mirror(&self) -> Result<Mirror, Error> {
        Mirror::of(self.here.as_deref().unwrap_or(self.clone.path()))
    }

    /// Tells where a branch is, and fetches it; absent where there is no such branch.
    pub fn tip(&self, branch: &str) -> Result<Option<Revision>, Error> {
        let name = format!("refs/heads/{branch}");
        if let Some(path) = &self.here {
            return super::mirror::local_tip(path, branch);
        }
        let mut origin = self
            .clone
            .find_remote("origin")
            .map_err(git("finding `origin`"))?;
        let wanted = {
            let connected = origin
                .connect_auth(git2::Direction::Fetch, Some(self.callbacks()), None)
                .map_err(git("connecting to `origin`"))?;
            let heads = connected
                .list()
                .map_err(git("listing the branches of `origin`"))?;
            heads
                .iter()
                .find(|h| h.name() == name)
                .map(git2::RemoteHead::oid)
        };
        let Some(wanted) = wanted else {
            return Ok(None);
        };
        if self.clone.find_commit(wanted).is_err() {
            let mut options = FetchOptions::new();
            options
                .remote_callbacks(self.callbacks())
                .download_tags(git2::AutotagOption::None);
            // Downloaded and not fetched: no ref of the clone moves.
            origin
                .download(&[name.as_str()], Some(&mut options))
                .map_err(git("fetching from `origin`"))?;
        }
        Ok(wanted.to_string().parse().ok())
    }

    /// Makes a commit with one file changed, in the object database only.
    pub fn commit(
        &self,
        on: &Revision,
        file: &str,
        text: &str,
        message: &str,
    ) -> Result<Revision, Error> {
        let store = self.store()?;
        let signature = self.clone.signature().map_err(|_| {
            Error::Errand(
                "Git does not know who you are: git config user.name … and user.email …".into(),
            )
        })?;
        let parent = store
            .find_commit(Mirror::oid(on)?)
            .map_err(git("reading the commit to build on"))?;
        let tree = parent.tree().map_err(git("reading its tree"))?;
        let old = tree
            .get_path(Path::new(file))
            .map_err(git("finding the file"))?;
        // An executable file stays one.
        let mode = match old.filemode() {
            0o100_755 => git2::FileMode::BlobExecutable,
            _ => git2::FileMode::Blob,
        };
        let blob = store
            .blob(text.as_bytes())
            .map_err(git("writing the file"))?;
        let tree = git2::build::TreeUpdateBuilder::new()
            .upsert(file, blob, mode)
            .create_updated(&store, &tree)
            .and_then(|id| store.find_tree(id))
            .map_err(git("writing the tree"))?;
        let id = store
            .commit(None, &signature, &signature, message, &tree, &[&parent])
            .map_err(git("writing the commit"))?;
        id.to_string()
            .parse()
            .map_err(|_| Error::Protocol("a commit id that is none".into()))
    }

    /// Moves a branch to a commit, if it is still where it was; absent means that it is new.
    pub fn push(
        &self,
        commit: &Revision,
        branch: &str,
        was: Option<&Revision>,
    ) -> Result<Pushed, Error> {
        let name = format!("refs/heads/{branch}");
        let new = Mirror::oid(commit)?;
        match &self.here {
            Some(path) => move_here(path, &name, new, was),
            None => self.send(&name, new, branch, was),
        }
    }

    fn send(
        &self,
        name: &str,
        new: Oid,
        branch: &str,
        was: Option<&Revision>,
    ) -> Result<Pushed, Error> {
        let mut origin = self
            .clone
            .find_remote("origin")
            .map_err(git("finding `origin`"))?;
        let said = Rc::new(RefCell::new(String::new()));
        let refused = Rc::new(RefCell::new(None));
        let mut callbacks = self.callbacks();
        let (hears, tells) = (said.clone(), refused.clone());
        callbacks.sideband_progress(move |bytes| {
            let mut said = hears.borrow_mut();
            if said.len() < CHATTER {
                said.push_str(&String::from_utf8_lossy(bytes));
            }
            true
        });
        callbacks.push_update_reference(move |_, status| {
            *tells.borrow_mut() = status.map(str::to_owned);
            Ok(())
        });
        let mut options = PushOptions::new();
        options.remote_callbacks(callbacks);
        // The server compares with what it told when this began. What it told must be what was built upon.
        let result = origin.push(&[format!("{new}:{name}")], Some(&mut options));
        let why = match (result, refused.take()) {
            (Ok(()), None) => return Ok(Pushed::Done(said.take())),
            (Err(error), _) if error.code() == git2::ErrorCode::NotFastForward => {
                return Ok(Pushed::Moved);
            }
            (Err(error), _) => error.message().to_owned(),
            (Ok(()), Some(why)) => why,
        };
        // Servers have their own words for a branch that has moved: whether it has is asked.
        if self.tip(branch)?.as_ref() != was {
            return Ok(Pushed::Moved);
        }
        Err(Error::Errand(format!(
            "`origin` refuses the push to {branch}: {why}"
        )))
    }

    fn callbacks(&self) -> RemoteCallbacks<'static> {
        let mut callbacks = RemoteCallbacks::new();
        let config = self.clone.config().ok();
        let mut tries = 0;
        callbacks.credentials(move |url, user, allowed| {
            // What was refused once is asked for again and again.
            tries += 1;
            if tries > 3 {
                return Err(git2::Error::from_str("the credentials were refused"));
            }
            if allowed.contains(CredentialType::USERNAME) {
                return Cred::username(user.unwrap_or("git"));
            }
            if allowed.contains(CredentialType::SSH_KEY) {
                return Cred::ssh_key_from_agent(user.unwrap_or("git"));
            }
            match &config {
                Some(config) if allowed.contains(CredentialType::USER_PASS_PLAINTEXT) => {
                    Cred::credential_helper(config, url, user)
                }
                _ => Cred::default(),
            }
        });
        callbacks
    }
}

/// Moves a branch of a repository in a folder, under the lock of its ref. libgit2's own push would not compare.
fn move_here(path: &Path, name: &str, new: Oid, was: Option<&Revision>) -> Result<Pushed, Error> {
    let repository = Repository::open(path).map_err(git("opening the repository"))?;
    let runs = |hook: &&&str| {
        let meta = std::fs::metadata(repository.path().join("hooks").join(hook));
        meta.is_ok_and(|m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o111 != 0)
    };
    if let Some(hook) = HOOKS.iter().find(runs) {
        return Err(Error::Errand(format!(
            "`origin` is a folder with a hook `{hook}`, which only Git itself runs: clone it over ssh or https, or push with git"
        )));
    }
    let head = repository.find_reference("HEAD").ok();
    let head = head.and_then(|h| h.symbolic_target().ok().flatten().map(str::to_owned));
    if !repository.is_bare() && head.as_deref() == Some(name) {
        return Err(Error::Errand(format!(
            "`origin` has a work tree with {name} checked out: it is not moved under it"
        )));
    }
    let moved = match was {
        Some(was) => {
            let was = Mirror::oid(was)?;
            repository.reference_matching(name, new, true, was, "isoform set")
        }
        None => repository.reference(name, new, false, "isoform set"),
    };
    use git2::ErrorCode::{Exists, Locked, Modified, NotFound};
    match moved {
        Ok(_) => Ok(Pushed::Done(String::new())),
        Err(e) if matches!(e.code(), Modified | Exists | Locked | NotFound) => Ok(Pushed::Moved),
        Err(error) => Err(git("moving the branch")(error)),
    }
}
