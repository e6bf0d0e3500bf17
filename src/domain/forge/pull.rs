//! Words for pull requests. GitLab calls them merge requests.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::model::{Revision, Timestamp};

/// An account of a forge.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Person {
    /// The forge's own id of the account: it stays when the account is renamed.
    pub id: String,
    /// The name that people see and mention.
    pub login: String,
    /// Whether the forge says that this is no human being.
    pub bot: bool,
}

/// Where a pull request stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PullState {
    /// It can be merged.
    Open,
    /// It was closed and not merged.
    Closed,
    /// It was merged.
    Merged {
        /// The commit on the base branch by which it came in, where the forge tells it.
        commit: Option<Revision>,
    },
}

/// A pull request, as the forge tells it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PullRequest {
    /// Its number in the repository.
    pub number: u64,
    /// Its title.
    pub title: String,
    /// Who opened it.
    pub author: Person,
    /// What would be merged.
    pub head: Revision,
    /// The branch that the head is on, without `refs/heads/`; it lies in another repository where this is a fork's.
    pub branch: String,
    /// The branch that it would be merged into, without `refs/heads/`.
    pub base: String,
    /// Where it stands.
    pub state: PullState,
    /// Whether the head comes from another repository.
    pub fork: bool,
    /// Whether its author says that it is not ready.
    pub draft: bool,
    /// Names of its labels.
    pub labels: Vec<String>,
    /// When anything about it was changed last, as far as the forge tells.
    pub updated: Option<Timestamp>,
}

/// What somebody wrote under a pull request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PullComment {
    /// The forge's own id; later comments of a pull request have greater ones.
    pub id: u64,
    /// Who wrote it.
    pub author: Person,
    /// What it says, as it was typed.
    pub body: String,
    /// When.
    pub created: Timestamp,
    /// Whether it was changed after it was written, as far as the forge tells.
    pub edited: bool,
}

/// What somebody may do in a repository, in the order of what each includes. Forges have more; each is taken for the
/// nearest of these that is no more than it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Nothing that others may not.
    None,
    /// Read it.
    Read,
    /// Push to it.
    Write,
    /// Push where others may not, and order the work.
    Maintain,
    /// Everything.
    Admin,
}

impl Permission {
    /// Returns its word, as the configuration writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Read => "read",
            Self::Write => "write",
            Self::Maintain => "maintain",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a check says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Verdict {
    /// Nobody knows yet.
    Pending,
    /// Nothing stands against it.
    Success,
    /// It works, and a person should look: it is no failure and no plain success.
    Neutral,
    /// It does not work.
    Failure,
}

/// How grave an annotation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Level {
    /// For information.
    Notice,
    /// It may be wrong.
    Warning,
    /// It is wrong.
    Failure,
}

/// A remark on one line of a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Annotation {
    /// The file, from the root of the repository.
    pub path: String,
    /// The line, from 1.
    pub line: u32,
    /// How grave it is.
    pub level: Level,
    /// A few words.
    pub title: String,
    /// What is wrong and what to do, plain text.
    pub message: String,
}

/// The verdict that is shown beside a commit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Check {
    /// The commit.
    pub head: Revision,
    /// What it is about, such as `isoform/platform`: one for each source, and always the same.
    pub name: String,
    /// What it says.
    pub verdict: Verdict,
    /// One line; at most 140 characters are shown by every forge.
    pub title: String,
    /// More of it, Markdown; forges without room for it leave it out.
    pub summary: String,
    /// Remarks on lines; forges without such leave them out.
    pub annotations: Vec<Annotation>,
}
