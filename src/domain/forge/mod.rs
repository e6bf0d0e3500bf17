//! Forges, as far as they can be decided without one: whose requests, what they say, what people ask for in comments.
//!
//! Nothing that comes from a forge is believed beyond what it names: a webhook says what to look at, a comment what
//! somebody would like. What is true is asked of the forge and of Git.

mod command;
mod pull;

pub use command::{Command, PREFIX, Verb, commands};
pub use pull::{
    Annotation, Check, Level, Permission, Person, PullComment, PullRequest, PullState, Verdict,
};

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which kind of forge.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForgeKind {
    /// GitHub, and GitHub Enterprise Server.
    GitHub,
    /// GitLab, hosted or one's own.
    GitLab,
    /// Gitea and Forgejo.
    Gitea,
    /// Bitbucket Cloud.
    Bitbucket,
}

impl ForgeKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::GitHub, Self::GitLab, Self::Gitea, Self::Bitbucket];

    /// Returns its word, as the configuration writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Gitea => "gitea",
            Self::Bitbucket => "bitbucket",
        }
    }

    /// Returns the ref under which the forge keeps the head of a pull request; absent where there is none and the branch
    /// itself is read.
    ///
    /// GitHub and Gitea: `refs/pull/<n>/head`; GitLab: `refs/merge-requests/<n>/head`. Bitbucket Cloud keeps none.
    pub fn head_ref(self, number: u64) -> Option<String> {
        match self {
            Self::GitHub | Self::Gitea => Some(format!("refs/pull/{number}/head")),
            Self::GitLab => Some(format!("refs/merge-requests/{number}/head")),
            Self::Bitbucket => None,
        }
    }
}

impl fmt::Display for ForgeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
