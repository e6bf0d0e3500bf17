//! Git: two operations against a remote, and reading from the object database.
//!
//! [`tip`] tells where a branch is, [`Mirror::fetch`] brings a commit. There is no work tree, no shell and no symlink
//! is followed; a mirror is a cache and is made anew when it cannot be read. Everything here blocks, except [`tip`]
//! over http(s).

mod difference;
pub mod errand;
mod lsrefs;
mod merge;
mod mirror;
mod pulls;
mod remote;
mod upstream;

pub use lsrefs::Client;
pub use merge::Merged;
pub use mirror::{CommitInfo, Mirror, Tree};
pub use pulls::PullRef;
pub use remote::{Auth, Patience, Remote, UrlError};
pub use upstream::{Pushed, Upstream};

use crate::domain::model::Revision;

/// Why Git cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// libgit2 says no.
    #[error("{action}: {}", source.message())]
    Git {
        /// What was tried.
        action: String,
        /// Why it failed.
        #[source]
        source: git2::Error,
    },
    /// The remote answered what cannot be used.
    #[error("the remote answered {0}")]
    Protocol(String),
    /// A process that spoke to the remote says no.
    #[error("{0}")]
    Errand(String),
    /// The network, or TLS.
    #[error("asking the remote")]
    Http(#[from] reqwest::Error),
    /// A file.
    #[error("using {0}")]
    File(String, #[source] std::io::Error),
    /// The tree is larger than it may be.
    #[error("{0}")]
    Limit(String),
    /// A background thread failed.
    #[error("a thread of the Git reader failed")]
    Thread,
}

/// Tells where the branch of a remote is; absent where there is no such branch.
///
/// A local repository is read directly. Over http(s) one protocol-v2 exchange asks for this one branch, so the cost
/// does not grow with the number of refs; the first question greets the server before. Over ssh libgit2 lists all refs.
pub async fn tip(remote: &Remote, client: &Client) -> Result<Option<Revision>, Error> {
    if let Some(path) = remote.local_path() {
        return mirror::local_tip(path, &remote.branch);
    }
    if remote.is_http() {
        return lsrefs::tip(remote, client).await;
    }
    let remote = remote.clone();
    tokio::task::spawn_blocking(move || errand::send(&remote, errand::Task::Tip))
        .await
        .map_err(|_| Error::Thread)?
}
