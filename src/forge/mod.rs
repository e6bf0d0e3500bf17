//! Forges behind the port: GitHub, GitLab, Gitea and Bitbucket Cloud.
//!
//! Each adapter is a thin client of about ten calls over one [`reqwest`] client. They know nothing of what is written.
//! `client.rs` guards the exchange, `governor.rs` the limits; start reading in `github/`.

mod bitbucket;
mod client;
mod gitea;
mod github;
mod gitlab;
mod governor;
mod memory;
mod shared;
mod walk;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use zeroize::Zeroizing;

use self::bitbucket::Bitbucket;
use self::client::Client;
use self::gitea::Gitea;
use self::github::GitHub;
use self::gitlab::GitLab;
use self::governor::Governor;
use crate::clock::Clock;
use crate::domain::forge::ForgeKind;
use crate::port::{Error, Forge};
use crate::secret_file;

/// How long a whole exchange with a forge may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a repository lives, and by which right it is worked on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The kind of forge.
    pub kind: ForgeKind,
    /// The base address of its API, as [`ForgeKind::api`] tells it by default.
    pub api: String,
    /// The repository: `owner/name`, on GitLab with all its groups.
    pub repository: String,
    /// By which right.
    pub auth: Auth,
    /// A PEM file of certificates that are trusted beside those of the machine.
    pub ca: Option<PathBuf>,
}

/// By which right a forge is asked. Secrets are files; they are read whenever they are used, so that a new one needs no
/// restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// A token.
    Token(PathBuf),
    /// A GitHub App.
    App {
        /// Its id, or its client id.
        id: String,
        /// Its private key, PEM.
        key: PathBuf,
        /// Its installation; looked up by the repository where it is not given.
        installation: Option<u64>,
    },
}

/// Every forge of an installation. Those of one credential share its limits.
pub struct Forges {
    clock: Clock,
    patience: Duration,
    governors: Mutex<BTreeMap<String, Arc<Governor>>>,
}

impl Forges {
    /// Makes what opens forges.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            patience: PATIENCE,
            governors: Mutex::default(),
        }
    }

    /// Waits so long for a whole exchange.
    #[must_use]
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Opens a forge. Nothing is asked of it, and no secret is read, before the first call.
    ///
    /// Refused are an address, a repository or certificates that cannot be right.
    pub fn open(&self, settings: &Settings) -> Result<Arc<dyn Forge>, Error> {
        let repository = Repository::parse(settings.kind, &settings.repository)?;
        let client = Client::new(
            settings.kind,
            &settings.api,
            settings.ca.as_deref(),
            self.patience,
            self.clock.clone(),
            self.governor(settings, &repository),
        )?;
        let auth = &settings.auth;
        Ok(match settings.kind {
            ForgeKind::GitHub => Arc::new(GitHub::new(client, repository, auth)),
            ForgeKind::GitLab => Arc::new(GitLab::new(client, &repository, auth)?),
            ForgeKind::Gitea => Arc::new(Gitea::new(client, repository, auth)?),
            ForgeKind::Bitbucket => Arc::new(Bitbucket::new(client, repository, auth)?),
        })
    }

    fn governor(&self, settings: &Settings, repository: &Repository) -> Arc<Governor> {
        let who = match &settings.auth {
            Auth::Token(path) => format!("token {}", path.display()),
            // Limits are those of an installation, and an owner has one.
            Auth::App { id, .. } => format!("app {id} {}", repository.owner),
        };
        let mut all = self
            .governors
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.entry(format!("{} {who}", settings.api))
            .or_default()
            .clone()
    }
}

/// A repository's name in two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Repository {
    /// Whose it is; on GitLab with all groups.
    owner: String,
    /// Its own name.
    name: String,
}

impl Repository {
    fn parse(kind: ForgeKind, text: &str) -> Result<Self, Error> {
        let refuse = || {
            Error::Refused(format!(
                "`{}` names no repository on {kind}: write owner/name, of letters, digits, `-`, `_` and `.`",
                words::clean(text, 100)
            ))
        };
        let part = |p: &str| {
            !matches!(p, "" | "." | "..")
                && p.len() <= 255
                && p.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        let (owner, name) = text.rsplit_once('/').ok_or_else(refuse)?;
        let groups = owner.split('/').count();
        let deep = kind == ForgeKind::GitLab && groups <= 20;
        if !part(name) || !owner.split('/').all(part) || (groups > 1 && !deep) {
            return Err(refuse());
        }
        Ok(Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// Reads a token file: one line of visible ASCII.
fn token(path: &std::path::Path) -> Result<Arc<Zeroizing<String>>, Error> {
    let refuse = |why: &str| Error::Denied(format!("the token in {}: {why}", path.display()));
    let bytes = secret_file::read(path).map_err(|e| refuse(&e.to_string()))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| refuse("it is not text"))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(refuse("the file is empty"));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(refuse("it must be one line without blanks"));
    }
    Ok(Arc::new(Zeroizing::new(text.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_named_by_owner_and_name() {
        for (kind, good) in [
            (ForgeKind::GitHub, "acme/platform"),
            (ForgeKind::Bitbucket, "acme/a.b-c_d"),
            (ForgeKind::GitLab, "acme/infra/deep/platform"),
        ] {
            assert!(Repository::parse(kind, good).is_ok(), "{good}");
        }
        for (kind, bad) in [
            (ForgeKind::GitHub, "platform"),
            (ForgeKind::GitHub, "a/b/c"),
            (ForgeKind::GitHub, "../b"),
            (ForgeKind::GitHub, "a/.."),
            (ForgeKind::GitHub, "a/"),
            (ForgeKind::GitHub, "/a"),
            (ForgeKind::GitHub, "a/b?c"),
            (ForgeKind::GitHub, "a/b%2fc"),
            (ForgeKind::GitHub, "a/b\n"),
            (ForgeKind::GitLab, "a/../b"),
            (ForgeKind::GitLab, "a//b"),
        ] {
            let refused = Repository::parse(kind, bad);
            assert!(matches!(refused, Err(Error::Refused(_))), "{bad}");
        }
    }

    #[test]
    fn a_token_is_one_line_in_a_private_file_and_never_in_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (text, good) in [
            ("ghp_abc\n", true),
            ("", false),
            ("\n \n", false),
            ("hunter2 x", false),
            ("hunter2\nx", false),
            ("hunter2é", false),
        ] {
            secret_file::write(&path, text.as_bytes()).unwrap();
            match token(&path) {
                Ok(read) => assert!(good && read.as_str() == "ghp_abc", "{text}"),
                Err(error) => {
                    assert!(!good, "{text}: {error}");
                    assert!(!error.to_string().contains("hunter2"), "{error}");
                }
            }
        }
    }

    #[test]
    fn one_credential_has_one_governor() {
        let forges = Forges::new(Clock::system());
        let settings = |api: &str, token: &str| Settings {
            kind: ForgeKind::GitHub,
            api: api.into(),
            repository: "a/b".into(),
            auth: Auth::Token(token.into()),
            ca: None,
        };
        let repository = Repository::parse(ForgeKind::GitHub, "a/b").unwrap();
        let governor = |api, token| forges.governor(&settings(api, token), &repository);

        let one = governor("https://x", "t");

        assert!(Arc::ptr_eq(&one, &governor("https://x", "t")));
        assert!(!Arc::ptr_eq(&one, &governor("https://x", "u")));
        assert!(!Arc::ptr_eq(&one, &governor("https://y", "t")));
    }
}
