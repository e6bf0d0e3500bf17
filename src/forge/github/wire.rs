//! What GitHub answers, as far as it is read: <https://docs.github.com/rest>.

use serde::Deserialize;

use super::time;
use crate::domain::forge::{Person, PullComment, PullRequest, PullState};
use crate::domain::model::Revision;

/// An account. It is null where the account is gone, which the pages show as `ghost`.
#[derive(Deserialize)]
pub(super) struct User {
    pub id: u64,
    pub login: String,
    #[serde(rename = "type", default)]
    pub kind: String,
}

impl User {
    pub(super) fn person(self) -> Person {
        Person {
            id: self.id.to_string(),
            bot: self.kind != "User",
            login: self.login,
        }
    }
}

/// Whoever is gone has no id: nobody's permission is ever looked up by it.
pub(super) fn person(user: Option<User>) -> Person {
    user.map_or_else(
        || Person {
            id: String::new(),
            login: "ghost".into(),
            bot: false,
        },
        User::person,
    )
}

#[derive(Deserialize)]
pub(super) struct Pull {
    pub number: u64,
    title: String,
    user: Option<User>,
    head: End,
    base: End,
    state: String,
    #[serde(default)]
    draft: bool,
    #[serde(default)]
    labels: Vec<Label>,
    updated_at: Option<String>,
    pub merged_at: Option<String>,
    merge_commit_sha: Option<String>,
}

#[derive(Deserialize)]
struct End {
    #[serde(rename = "ref")]
    branch: String,
    sha: String,
    /// Null where the fork was deleted.
    repo: Option<Repo>,
}

/// A repository.
#[derive(Deserialize)]
pub(super) struct Repo {
    pub id: u64,
}

#[derive(Deserialize)]
struct Label {
    name: String,
}

impl Pull {
    /// Says it in the words of the port, or what of it cannot be right.
    pub(super) fn read(self) -> Result<PullRequest, String> {
        let commit = |sha: &str| {
            sha.parse::<Revision>()
                .map_err(|_| format!("pull request {} names no commit", self.number))
        };
        let state = match self.state.as_str() {
            "open" => PullState::Open,
            // Before the merge `merge_commit_sha` is a trial merge that no branch has.
            "closed" if self.merged_at.is_some() => PullState::Merged {
                commit: self.merge_commit_sha.as_deref().map(commit).transpose()?,
            },
            "closed" => PullState::Closed,
            _ => return Err(format!("pull request {} has no known state", self.number)),
        };
        let fork = match (&self.head.repo, &self.base.repo) {
            (Some(head), Some(base)) => head.id != base.id,
            _ => true,
        };
        Ok(PullRequest {
            head: commit(&self.head.sha)?,
            number: self.number,
            title: self.title,
            author: person(self.user),
            branch: self.head.branch,
            base: self.base.branch,
            state,
            fork,
            draft: self.draft,
            labels: self.labels.into_iter().map(|l| l.name).collect(),
            updated: self.updated_at.as_deref().map(time).transpose()?,
        })
    }
}

#[derive(Deserialize)]
pub(super) struct Comment {
    pub id: u64,
    pub user: Option<User>,
    /// Left out where nothing was written.
    #[serde(default)]
    pub body: String,
    created_at: String,
    updated_at: String,
    pub issue_url: String,
}

impl Comment {
    pub(super) fn read(self) -> Result<PullComment, String> {
        Ok(PullComment {
            id: self.id,
            created: time(&self.created_at)?,
            // GitHub tells no more of an edit than that this time has moved.
            edited: self.updated_at != self.created_at,
            author: person(self.user),
            body: self.body,
        })
    }
}

#[derive(Deserialize)]
pub(super) struct Written {
    pub id: u64,
}

#[derive(Deserialize)]
pub(super) struct Collaborator {
    pub permission: String,
    #[serde(default)]
    pub role_name: String,
    pub user: Option<User>,
}

#[derive(Deserialize)]
pub(super) struct CheckRuns {
    pub check_runs: Vec<CheckRun>,
}

#[derive(Deserialize)]
pub(super) struct CheckRun {
    pub id: u64,
    pub name: String,
    pub status: String,
    pub conclusion: Option<String>,
    pub output: Output,
}

#[derive(Deserialize)]
pub(super) struct Output {
    pub title: Option<String>,
    pub summary: Option<String>,
    #[serde(default)]
    pub annotations_count: u64,
}

#[derive(Deserialize)]
pub(super) struct Delivery {
    pub id: u64,
    pub guid: String,
    pub delivered_at: String,
    pub status_code: i64,
    pub repository_id: Option<u64>,
}
