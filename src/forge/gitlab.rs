//! GitLab over its REST API, hosted or one's own: <https://docs.gitlab.com/api/rest/>.
//!
//! Pull requests are merge requests there, and their numbers `iid`. A comment is a note; remarks on lines are notes too,
//! and are read like the others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use async_trait::async_trait;
use reqwest::Method;
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

/// A quarter of what GitLab takes
/// (<https://docs.gitlab.com/administration/instance_limits/#size-of-comments-and-descriptions-of-issues-merge-requests-and-epics>):
/// comments come back in pages, and a page is bounded.
const COMMENT: usize = 250_000;
/// Pages of a hundred: <https://docs.gitlab.com/api/rest/#pagination>.
const PAGES: usize = 30;
/// A commit status' description.
const DESCRIPTION: usize = 255;
/// Accounts of whom it is known whether they are bots.
const ACCOUNTS: usize = 10_000;

/// A project on GitLab.
pub(super) struct GitLab {
    client: Client,
    /// With all its groups; the API takes it for the id where it is one part of a path.
    project: String,
    token: PathBuf,
    me: tokio::sync::Mutex<Option<u64>>,
    bots: tokio::sync::Mutex<BTreeMap<u64, bool>>,
}

#[derive(Clone, Deserialize)]
struct User {
    id: u64,
    username: String,
}

/// <https://docs.gitlab.com/api/users/#retrieve-a-user>
#[derive(Deserialize)]
struct Account {
    #[serde(default)]
    bot: bool,
}

/// <https://docs.gitlab.com/api/merge_requests/>
#[derive(Deserialize)]
struct MergeRequest {
    iid: u64,
    title: String,
    author: Option<User>,
    /// Null where it has no commit yet.
    sha: Option<String>,
    source_branch: String,
    target_branch: String,
    state: String,
    /// Null where the fork is gone.
    source_project_id: Option<u64>,
    target_project_id: Option<u64>,
    merge_commit_sha: Option<String>,
    squash_commit_sha: Option<String>,
    #[serde(default)]
    draft: bool,
    #[serde(default)]
    labels: Vec<String>,
    updated_at: Option<String>,
}

/// <https://docs.gitlab.com/api/notes/#merge-requests>
#[derive(Deserialize)]
struct Note {
    id: u64,
    author: Option<User>,
    #[serde(default)]
    body: String,
    created_at: String,
    updated_at: String,
    /// What GitLab itself wrote: "changed the description", in the name of whoever did it.
    #[serde(default)]
    system: bool,
}

/// <https://docs.gitlab.com/api/project_members/>
#[derive(Deserialize)]
struct Member {
    id: u64,
    access_level: u64,
    expires_at: Option<String>,
    state: Option<String>,
    membership_state: Option<String>,
}

#[derive(Deserialize)]
struct Status {
    name: String,
    status: String,
}

impl MergeRequest {
    fn read(self, author: Person) -> Result<PullRequest, String> {
        let number = self.iid;
        let sha = |sha: &str| commit(number, sha);
        let head = sha(self.sha.as_deref().unwrap_or_default())?;
        let state = match self.state.as_str() {
            // Locked: it is being merged.
            "opened" | "locked" => PullState::Open,
            "closed" => PullState::Closed,
            "merged" => {
                // A fast-forward leaves no commit but the head itself.
                let merge = self.merge_commit_sha.or(self.squash_commit_sha);
                let merge = merge.as_deref().map(sha).transpose()?;
                PullState::Merged {
                    commit: Some(merge.unwrap_or_else(|| head.clone())),
                }
            }
            _ => return Err(format!("merge request {number} has no known state")),
        };
        Ok(PullRequest {
            number,
            title: self.title,
            author,
            head,
            branch: self.source_branch,
            base: self.target_branch,
            state,
            fork: self.source_project_id.is_none()
                || self.source_project_id != self.target_project_id,
            draft: self.draft,
            labels: self.labels,
            updated: self.updated_at.as_deref().map(time).transpose()?,
        })
    }
}

impl GitLab {
    pub(super) fn new(client: Client, repository: &Repository, auth: &Auth) -> Result<Self, Error> {
        Ok(Self {
            client,
            project: format!("{}/{}", repository.owner, repository.name),
            token: shared::token_file(ForgeKind::GitLab, auth)?,
            me: tokio::sync::Mutex::default(),
            bots: tokio::sync::Mutex::default(),
        })
    }

    fn path(&self, rest: &[&str]) -> Vec<String> {
        let path = ["projects", &self.project];
        path.iter().chain(rest).map(|&s| s.to_owned()).collect()
    }

    /// <https://docs.gitlab.com/api/rest/authentication/>: every kind of token may be sent so.
    async fn send(&self, call: Call) -> Result<Answer, Error> {
        self.client.send(call.bearer(token(&self.token)?)).await
    }

    async fn list<T: DeserializeOwned>(&self, first: Call) -> Result<(Vec<T>, bool), Error> {
        let first = first.query("per_page", 100).remembered();
        shared::pages(&self.client, first, PAGES, |call| self.send(call)).await
    }

    async fn notes(&self, number: u64) -> Result<Vec<Note>, Error> {
        let call = Call::get(self.path(&["merge_requests", &number.to_string(), "notes"]))
            .query("sort", "asc")
            .query("order_by", "created_at");
        let (mut all, cut) = self.list::<Note>(call).await?;
        if cut {
            return Err(shared::too_many(number, PAGES * 100));
        }
        all.retain(|note| !note.system);
        Ok(all)
    }

    async fn me(&self) -> Result<u64, Error> {
        let mut me = self.me.lock().await;
        let id = match *me {
            Some(id) => id,
            None => self.send(Call::get(["user"])).await?.json::<User>()?.id,
        };
        *me = Some(id);
        Ok(id)
    }

    /// Asks whether an account is a bot: notes and merge requests do not say it. It never changes.
    async fn is_bot(&self, user: &User) -> Result<bool, Error> {
        // <https://docs.gitlab.com/user/project/settings/project_access_tokens/#bot-users-for-projects>
        let rest = ["project_", "group_"]
            .iter()
            .find_map(|kind| user.username.strip_prefix(kind));
        let named = rest.and_then(|rest| rest.split_once("_bot"));
        if named.is_some_and(|(id, _)| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit())) {
            return Ok(true);
        }
        let mut bots = self.bots.lock().await;
        if let Some(bot) = bots.get(&user.id) {
            return Ok(*bot);
        }
        let bot = match self.send(Call::get(["users", &user.id.to_string()])).await {
            Ok(answer) => answer.json::<Account>()?.bot,
            // Gone, or not to be seen by this credential.
            Err(Error::NotFound(_) | Error::Denied(_)) => false,
            Err(error) => return Err(error),
        };
        if bots.len() >= ACCOUNTS {
            bots.clear();
        }
        bots.insert(user.id, bot);
        Ok(bot)
    }

    /// Whoever is gone has no id: nobody's permission is ever looked up by it.
    async fn person(&self, user: Option<User>) -> Result<Person, Error> {
        let Some(user) = user else {
            return Ok(Person {
                id: String::new(),
                login: "ghost".into(),
                bot: false,
            });
        };
        Ok(Person {
            bot: self.is_bot(&user).await?,
            id: user.id.to_string(),
            login: user.username,
        })
    }

    async fn read(&self, request: MergeRequest) -> Result<PullRequest, Error> {
        let author = self.person(request.author.clone()).await?;
        request.read(author).map_err(Error::Untrusted)
    }

    /// Tells whether a commit shows this already.
    async fn shown(&self, check: &Check, state: &str) -> Result<bool, Error> {
        let path = self.path(&["repository", "commits", check.head.as_str(), "statuses"]);
        let (all, _) = self
            .list::<Status>(Call::get(path).query("name", &check.name))
            .await?;
        let mut of_name = all.iter().filter(|s| s.name == check.name);
        Ok(of_name.any(|s| s.status == state))
    }
}

/// Takes the meaning from lines that GitLab would run as commands of whoever writes them, such as `/merge`:
/// <https://docs.gitlab.com/user/project/quick_actions/>. In a comment there is text of others.
fn without_actions(text: &str) -> String {
    let lines = text.split_inclusive('\n').map(|line| {
        let rest = line.trim_start();
        let blank = &line[..line.len() - rest.len()];
        let escape = if rest.starts_with('/') { "\\" } else { "" };
        format!("{blank}{escape}{rest}")
    });
    lines.collect()
}

#[async_trait]
impl Comments for GitLab {
    async fn ours(&self, number: u64, id: u64) -> Result<Option<Written>, Error> {
        let (number, id) = (number.to_string(), id.to_string());
        let path = self.path(&["merge_requests", &number, "notes", &id]);
        let note: Note = match self.send(Call::get(path)).await {
            Ok(answer) => answer.json()?,
            Err(Error::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let me = self.me().await?;
        let ours = !note.system && note.author.is_some_and(|author| author.id == me);
        Ok(ours.then_some(Written {
            id: note.id,
            body: note.body,
        }))
    }

    async fn all_ours(&self, number: u64) -> Result<Vec<Written>, Error> {
        let me = self.me().await?;
        let mut all = self.notes(number).await?;
        all.retain(|note| note.author.as_ref().is_some_and(|author| author.id == me));
        let ours = all.into_iter().map(|note| Written {
            id: note.id,
            body: note.body,
        });
        Ok(ours.collect())
    }

    async fn edit(&self, number: u64, id: u64, text: &str) -> Result<(), Error> {
        let (number, id) = (number.to_string(), id.to_string());
        let path = self.path(&["merge_requests", &number, "notes", &id]);
        let call = Call::new(Method::PUT, path).json(json!({ "body": text }));
        self.send(call).await.map(|_| ())
    }

    async fn add(&self, number: u64, text: &str) -> Result<u64, Error> {
        let path = self.path(&["merge_requests", &number.to_string(), "notes"]);
        let call = Call::new(Method::POST, path).json(json!({ "body": text }));
        Ok(self.send(call).await?.json::<Note>()?.id)
    }
}

#[async_trait]
impl Forge for GitLab {
    fn kind(&self) -> ForgeKind {
        ForgeKind::GitLab
    }

    fn comment_limit(&self) -> usize {
        COMMENT
    }

    async fn open_pulls(&self, base: &str) -> Result<Vec<PullRequest>, Error> {
        let call = Call::get(self.path(&["merge_requests"]))
            .query("state", "opened")
            .query("target_branch", base)
            .query("order_by", "updated_at")
            .query("sort", "desc");
        let (all, _) = self.list::<MergeRequest>(call).await?;
        let mut seen = BTreeSet::new();
        let mut read = Vec::new();
        for request in all {
            // One without a commit has nothing to look at, and one that moved while pages were read comes twice.
            if request.sha.is_some() && seen.insert(request.iid) {
                read.push(self.read(request).await?);
            }
        }
        Ok(read)
    }

    async fn pull(&self, number: u64) -> Result<PullRequest, Error> {
        let call = Call::get(self.path(&["merge_requests", &number.to_string()])).remembered();
        let request: MergeRequest = self.send(call).await?.json()?;
        self.read(request).await
    }

    async fn comments(&self, number: u64, after: u64) -> Result<Vec<PullComment>, Error> {
        let mut all = self.notes(number).await?;
        all.retain(|note| note.id > after);
        all.sort_by_key(|note| note.id);
        all.dedup_by_key(|note| note.id);
        let mut read = Vec::new();
        for note in all {
            read.push(PullComment {
                id: note.id,
                author: self.person(note.author).await?,
                // Resolving a thread moves this time too: then a command is asked for once more, and none is obeyed twice.
                edited: note.updated_at != note.created_at,
                created: time(&note.created_at).map_err(Error::Untrusted)?,
                body: note.body,
            });
        }
        Ok(read)
    }

    async fn write_comment(
        &self,
        number: u64,
        marker: &str,
        known: Option<u64>,
        text: &str,
    ) -> Result<u64, Error> {
        shared::fits(self.kind(), marker, text, COMMENT)?;
        shared::write(self, number, marker, known, &without_actions(text)).await
    }

    /// <https://docs.gitlab.com/api/commits/#set-commit-pipeline-status>. There is no word for "works, but look".
    async fn report(&self, check: &Check) -> Result<(), Error> {
        let state = match check.verdict {
            Verdict::Pending => "pending",
            Verdict::Success | Verdict::Neutral => "success",
            Verdict::Failure => "failed",
        };
        let path = self.path(&["statuses", check.head.as_str()]);
        let call = Call::new(Method::POST, path).json(json!({
            "state": state,
            "name": check.name,
            "description": first(&check.title, DESCRIPTION),
        }));
        match self.send(call).await {
            Ok(_) => Ok(()),
            // What is shown already is refused: "Cannot transition status via :enqueue from :pending".
            Err(Error::Refused(why)) if why.contains("Cannot transition status") => {
                if self.shown(check, state).await? {
                    Ok(())
                } else {
                    Err(Error::Refused(why))
                }
            }
            Err(error) => Err(error),
        }
    }

    /// <https://docs.gitlab.com/api/project_members/#retrieve-a-direct-or-inherited-member-of-a-project>, with levels as
    /// <https://docs.gitlab.com/api/access_requests/#valid-access-levels> has them: what lies between two counts as the lower.
    async fn permission(&self, person: &Person) -> Result<Permission, Error> {
        let Ok(id) = person.id.parse::<u64>() else {
            return Ok(Permission::None);
        };
        let path = self.path(&["members", "all", &id.to_string()]);
        let member: Member = match self.send(Call::get(path)).await {
            Ok(answer) => answer.json()?,
            Err(Error::NotFound(_)) => return Ok(Permission::None),
            Err(error) => return Err(error),
        };
        let now = self.client.clock().now().0;
        let today = jiff::Timestamp::from_millisecond(now)
            .map(|now| now.to_zoned(jiff::tz::TimeZone::UTC).date())
            .map_err(|_| Error::Unsupported("the time of this machine"))?;
        // On its last day a membership is over.
        let expired = match member.expires_at.as_deref() {
            None => false,
            Some(day) => day
                .parse::<jiff::civil::Date>()
                .map_or(true, |d| d <= today),
        };
        let active = |state: &Option<String>| state.as_deref().is_none_or(|s| s == "active");
        if member.id != id || expired || !active(&member.state) || !active(&member.membership_state)
        {
            return Ok(Permission::None);
        }
        Ok(match member.access_level {
            0..10 => Permission::None,
            10..30 => Permission::Read,
            30..40 => Permission::Write,
            40..50 => Permission::Maintain,
            50.. => Permission::Admin,
        })
    }

    /// <https://docs.gitlab.com/api/commits/#list-all-merge-requests-associated-with-a-commit>
    async fn pulls_of(&self, of: &Revision) -> Result<Vec<u64>, Error> {
        let path = self.path(&["repository", "commits", of.as_str(), "merge_requests"]);
        let (all, _) = self.list::<MergeRequest>(Call::get(path)).await?;
        // Those that are open hold the commit, and it did not come in by them.
        let merged = all.iter().filter(|request| request.state == "merged");
        Ok(merged.map(|request| request.iid).collect())
    }

    /// GitLab can send an event again, of a hook that is named: which of a project's hooks is ours it cannot tell, and those of
    /// others are not for us to repeat.
    async fn redeliver(&self, _since: Timestamp) -> Result<usize, Error> {
        Err(Error::Unsupported("sending deliveries again"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_no_line_of_a_comment_is_run_as_a_command() {
        let text =
            "<!-- m -->\n/merge\n  /approve\nsee /etc\n```\n/close\n```\r\n/\n> /label ~x\n/tail";

        let safe = without_actions(text);

        assert_eq!(
            safe,
            "<!-- m -->\n\\/merge\n  \\/approve\nsee /etc\n```\n\\/close\n```\r\n\\/\n> /label ~x\n\\/tail"
        );
        assert_eq!(without_actions(&safe), safe, "once is enough");
    }
}
