//! Gitea and Forgejo over their REST API: <https://docs.gitea.com/api/>, the same at `/api/swagger` of every server.
//!
//! A pull request is an issue there: its comments are the issue's. Neither tells of an account whether it is a bot; only what the
//! server itself writes, under ids that no account has, is known for one.

use std::collections::BTreeSet;
use std::path::PathBuf;

use async_trait::async_trait;
use reqwest::Method;
use reqwest::header::AUTHORIZATION;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::client::{Answer, Call, Client};
use super::shared::{self, Comments, Written, commit, first, time};
use super::{Auth, Repository, token};
use crate::domain::forge::{
    Check, ForgeKind, Permission, Person, PullComment, PullRequest, PullState, Verdict,
};
use crate::domain::model::{Revision, Timestamp};
use crate::port::{Error, Forge};

/// Gitea has no limit of its own; what GitHub takes is more than anybody reads.
const COMMENT: usize = 65_536;
/// A page's most entries, unless the server says less: `MAX_RESPONSE_ITEMS`.
const PAGE: usize = 50;
const PAGES: usize = 60;
/// What its pages show of a status' description.
const DESCRIPTION: usize = 255;

/// A repository on Gitea or Forgejo.
pub(super) struct Gitea {
    client: Client,
    repository: Repository,
    token: PathBuf,
    me: tokio::sync::Mutex<Option<i64>>,
}

/// Ids below 1 are the server's own: -1 stands for whoever is gone, -2 for its Actions.
#[derive(Deserialize)]
struct User {
    id: i64,
    login: String,
}

impl User {
    fn person(self) -> Person {
        Person {
            id: if self.id > 0 {
                self.id.to_string()
            } else {
                String::new()
            },
            bot: self.id < -1,
            login: self.login,
        }
    }
}

fn person(user: Option<User>) -> Person {
    user.map_or_else(
        || Person {
            id: String::new(),
            login: "Ghost".into(),
            bot: false,
        },
        User::person,
    )
}

#[derive(Deserialize)]
struct Pull {
    number: u64,
    title: String,
    user: Option<User>,
    head: End,
    base: End,
    state: String,
    #[serde(default)]
    merged: bool,
    merge_commit_sha: Option<String>,
    #[serde(default)]
    draft: bool,
    labels: Option<Vec<Label>>,
    updated_at: Option<String>,
}

#[derive(Deserialize)]
struct End {
    #[serde(rename = "ref")]
    branch: String,
    sha: String,
    /// Null where the fork was deleted.
    repo: Option<Repo>,
}

#[derive(Deserialize)]
struct Repo {
    id: i64,
}

#[derive(Deserialize)]
struct Label {
    name: String,
}

impl Pull {
    fn read(self) -> Result<PullRequest, String> {
        let number = self.number;
        let state = match self.state.as_str() {
            _ if self.merged => {
                let sha = self.merge_commit_sha.as_deref().filter(|s| !s.is_empty());
                PullState::Merged {
                    commit: sha.map(|s| commit(number, s)).transpose()?,
                }
            }
            "open" => PullState::Open,
            "closed" => PullState::Closed,
            _ => return Err(format!("pull request {number} has no known state")),
        };
        Ok(PullRequest {
            number,
            title: self.title,
            author: person(self.user),
            head: commit(number, &self.head.sha)?,
            fork: match (&self.head.repo, &self.base.repo) {
                (Some(head), Some(base)) => head.id != base.id,
                _ => true,
            },
            branch: self.head.branch,
            base: self.base.branch,
            state,
            draft: self.draft,
            labels: self.labels.into_iter().flatten().map(|l| l.name).collect(),
            updated: self.updated_at.as_deref().map(time).transpose()?,
        })
    }
}

#[derive(Deserialize)]
struct Comment {
    id: u64,
    user: Option<User>,
    #[serde(default)]
    body: String,
    created_at: String,
    updated_at: String,
    /// One of the two is empty.
    #[serde(default)]
    pull_request_url: String,
    #[serde(default)]
    issue_url: String,
}

impl Comment {
    fn is_by(&self, id: i64) -> bool {
        self.user.as_ref().is_some_and(|user| user.id == id)
    }

    fn is_under(&self, number: u64) -> bool {
        let end = format!("/{number}");
        self.pull_request_url.ends_with(&end) || self.issue_url.ends_with(&end)
    }
}

#[derive(Deserialize)]
struct Made {
    id: u64,
}

#[derive(Deserialize)]
struct Collaborator {
    permission: String,
    user: Option<User>,
}

impl Gitea {
    pub(super) fn new(client: Client, repository: Repository, auth: &Auth) -> Result<Self, Error> {
        Ok(Self {
            client,
            repository,
            token: shared::token_file(ForgeKind::Gitea, auth)?,
            me: tokio::sync::Mutex::default(),
        })
    }

    fn path(&self, rest: &[&str]) -> Vec<String> {
        let path = ["repos", &self.repository.owner, &self.repository.name];
        path.iter().chain(rest).map(|&s| s.to_owned()).collect()
    }

    /// <https://docs.gitea.com/development/api-usage#authentication>
    async fn send(&self, call: Call) -> Result<Answer, Error> {
        let secret = token(&self.token)?;
        self.client
            .send(call.secret(AUTHORIZATION, "token ", secret))
            .await
    }

    async fn list<T: DeserializeOwned>(&self, first: Call) -> Result<(Vec<T>, bool), Error> {
        let first = first.query("limit", PAGE);
        shared::pages(&self.client, first, PAGES, |call| self.send(call)).await
    }

    /// All of them come at once: the API knows no pages here, only times between which they lie.
    async fn all_comments(&self, number: u64) -> Result<Vec<Comment>, Error> {
        let path = self.path(&["issues", &number.to_string(), "comments"]);
        let (all, cut) = self.list(Call::get(path)).await?;
        if cut {
            return Err(shared::too_many(number, PAGES * PAGE));
        }
        Ok(all)
    }

    async fn me(&self) -> Result<i64, Error> {
        let mut me = self.me.lock().await;
        let id = match *me {
            Some(id) => id,
            None => self.send(Call::get(["user"])).await?.json::<User>()?.id,
        };
        *me = Some(id);
        Ok(id)
    }
}

#[async_trait]
impl Comments for Gitea {
    async fn ours(&self, number: u64, id: u64) -> Result<Option<Written>, Error> {
        let path = self.path(&["issues", "comments", &id.to_string()]);
        let answer = match self.send(Call::get(path)).await {
            Ok(answer) => answer,
            Err(Error::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        // 204: there is such an entry, and it is no comment.
        if answer.status == 204 {
            return Ok(None);
        }
        let comment: Comment = answer.json()?;
        let me = self.me().await?;
        let ours = comment.is_by(me) && comment.is_under(number);
        Ok(ours.then_some(Written {
            id: comment.id,
            body: comment.body,
        }))
    }

    async fn all_ours(&self, number: u64) -> Result<Vec<Written>, Error> {
        let me = self.me().await?;
        let mut all = self.all_comments(number).await?;
        all.retain(|comment| comment.is_by(me));
        let ours = all.into_iter().map(|comment| Written {
            id: comment.id,
            body: comment.body,
        });
        Ok(ours.collect())
    }

    async fn edit(&self, _number: u64, id: u64, text: &str) -> Result<(), Error> {
        let path = self.path(&["issues", "comments", &id.to_string()]);
        let call = Call::new(Method::PATCH, path).json(json!({ "body": text }));
        self.send(call).await.map(|_| ())
    }

    async fn add(&self, number: u64, text: &str) -> Result<u64, Error> {
        let path = self.path(&["issues", &number.to_string(), "comments"]);
        let call = Call::new(Method::POST, path).json(json!({ "body": text }));
        Ok(self.send(call).await?.json::<Made>()?.id)
    }
}

#[async_trait]
impl Forge for Gitea {
    fn kind(&self) -> ForgeKind {
        ForgeKind::Gitea
    }

    fn comment_limit(&self) -> usize {
        COMMENT
    }

    /// `repoListPullRequests`. Older servers know no filter by base, so the others are left out here.
    async fn open_pulls(&self, base: &str) -> Result<Vec<PullRequest>, Error> {
        let call = Call::get(self.path(&["pulls"]))
            .query("state", "open")
            .query("sort", "recentupdate");
        let (all, _) = self.list::<Pull>(call).await?;
        let mut seen = BTreeSet::new();
        let mut read = Vec::new();
        for pull in all {
            // Where a fork took its commits along there is nothing to look at, and the others count all the same.
            let here = pull.base.branch == base && !pull.head.sha.is_empty();
            if here && seen.insert(pull.number) {
                read.push(pull.read().map_err(Error::Untrusted)?);
            }
        }
        Ok(read)
    }

    async fn pull(&self, number: u64) -> Result<PullRequest, Error> {
        let call = Call::get(self.path(&["pulls", &number.to_string()]));
        let pull: Pull = self.send(call).await?.json()?;
        pull.read().map_err(Error::Untrusted)
    }

    async fn comments(&self, number: u64, after: u64) -> Result<Vec<PullComment>, Error> {
        let mut all = self.all_comments(number).await?;
        all.retain(|comment| comment.id > after);
        all.sort_by_key(|comment| comment.id);
        all.dedup_by_key(|comment| comment.id);
        let read = all.into_iter().map(|comment| {
            Ok(PullComment {
                id: comment.id,
                author: person(comment.user),
                edited: comment.updated_at != comment.created_at,
                created: time(&comment.created_at)?,
                body: comment.body,
            })
        });
        read.collect::<Result<_, String>>()
            .map_err(Error::Untrusted)
    }

    async fn write_comment(
        &self,
        number: u64,
        marker: &str,
        known: Option<u64>,
        text: &str,
    ) -> Result<u64, Error> {
        shared::fits(self.kind(), marker, text, COMMENT)?;
        shared::write(self, number, marker, known, text).await
    }

    /// `repoCreateStatus`. The newest of a context is the one that is shown.
    async fn report(&self, check: &Check) -> Result<(), Error> {
        let state = match check.verdict {
            Verdict::Pending => "pending",
            Verdict::Success => "success",
            Verdict::Neutral => "warning",
            Verdict::Failure => "failure",
        };
        let path = self.path(&["statuses", check.head.as_str()]);
        let call = Call::new(Method::POST, path).json(json!({
            "state": state,
            "context": check.name,
            "description": first(&check.title, DESCRIPTION),
        }));
        self.send(call).await.map(|_| ())
    }

    /// `repoGetRepoPermissions`: only an administrator of the repository may ask it of somebody else.
    async fn permission(&self, person: &Person) -> Result<Permission, Error> {
        if person.id.is_empty() {
            return Ok(Permission::None);
        }
        let path = self.path(&["collaborators", &person.login, "permission"]);
        let found: Collaborator = match self.send(Call::get(path)).await {
            Ok(answer) => answer.json()?,
            // Nobody is called so any more.
            Err(Error::NotFound(_)) => return Ok(Permission::None),
            Err(error) => return Err(error),
        };
        // A login can be taken over by somebody else; an id cannot.
        if found.user.map(|user| user.id.to_string()) != Some(person.id.clone()) {
            return Ok(Permission::None);
        }
        Ok(match found.permission.as_str() {
            "owner" | "admin" => Permission::Admin,
            "write" => Permission::Write,
            "read" => Permission::Read,
            _ => Permission::None,
        })
    }

    /// `repoGetCommitPullRequest`: the pull request that was merged as this commit. Of the commits that a merge brought along
    /// Gitea knows nothing.
    async fn pulls_of(&self, of: &Revision) -> Result<Vec<u64>, Error> {
        let path = self.path(&["commits", of.as_str(), "pull"]);
        match self.send(Call::get(path)).await {
            Ok(answer) => {
                let pull: Pull = answer.json()?;
                Ok(pull.merged.then_some(pull.number).into_iter().collect())
            }
            Err(Error::NotFound(_)) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Its API tells no deliveries.
    async fn redeliver(&self, _since: Timestamp) -> Result<usize, Error> {
        Err(Error::Unsupported("sending deliveries again"))
    }
}
