//! GitHub and GitHub Enterprise Server over their REST API: <https://docs.github.com/rest>.
//!
//! A pull request is an issue there: its comments are the issue's. Remarks on lines of the difference (reviews) are other
//! things with other ids, and are not read.

mod app;
mod report;
mod wire;

use async_trait::async_trait;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use self::app::{App, Identity};
use self::wire::{Collaborator, Comment, Delivery, Pull, Repo, User, Written};
use super::client::{Answer, Call, Client};
use super::walk::Walk;
use super::{Auth, Repository, token};
use crate::domain::forge::{Check, ForgeKind, Permission, Person, PullComment, PullRequest};
use crate::domain::model::{Revision, Timestamp};
use crate::port::{Error, Forge};

/// The version of the API that is asked for: <https://docs.github.com/rest/about-the-rest-api/api-versions>.
const VERSION: &str = "2022-11-28";
/// A comment's most characters; the service says so when it refuses one.
const COMMENT: usize = 65_536;
/// Pages of a hundred. An issue takes 2,500 comments at most; of more open pull requests those changed last count.
const PAGES: usize = 30;
/// Deliveries are kept for three days. A sweep reads no more pages of them, and has no more sent again.
const DELIVERY_PAGES: usize = 10;
const REDELIVERIES: usize = 50;

/// A repository on GitHub.
pub(super) struct GitHub {
    client: Client,
    repository: Repository,
    right: Right,
    me: tokio::sync::Mutex<Me>,
}

enum Right {
    Token(PathBuf),
    App(App),
}

/// What was asked once of who and where this is.
#[derive(Default)]
struct Me {
    app: Option<Identity>,
    user: Option<u64>,
    repository: Option<u64>,
}

/// Whose comments are ours.
enum Own {
    User(u64),
    Bot(String),
}

impl Own {
    fn wrote(&self, comment: &Comment) -> bool {
        let Some(user) = &comment.user else {
            return false;
        };
        match self {
            Self::User(id) => user.id == *id,
            // No login of a person holds a bracket.
            Self::Bot(login) => user.kind == "Bot" && user.login == *login,
        }
    }
}

/// Adds what every request to GitHub says.
fn asked(call: Call) -> Call {
    call.header("accept", "application/vnd.github+json")
        .header("x-github-api-version", VERSION)
}

/// Reads a time as GitHub writes it (RFC 3339).
fn time(text: &str) -> Result<Timestamp, String> {
    let time: jiff::Timestamp = text.parse().map_err(|_| "a time that is none".to_owned())?;
    Ok(Timestamp(time.as_millisecond()))
}

fn http_date(text: &str) -> Option<Timestamp> {
    super::governor::http_date(text)
}

impl GitHub {
    pub(super) fn new(client: Client, repository: Repository, auth: &Auth) -> Self {
        let right = match auth {
            Auth::Token(path) => Right::Token(path.clone()),
            Auth::App {
                id,
                key,
                installation,
            } => Right::App(App::new(id, key, *installation)),
        };
        Self {
            client,
            repository,
            right,
            me: tokio::sync::Mutex::default(),
        }
    }

    fn path(&self, rest: &[&str]) -> Vec<String> {
        ["repos", &self.repository.owner, &self.repository.name]
            .iter()
            .chain(rest)
            .map(|&s| s.to_owned())
            .collect()
    }

    async fn send(&self, call: Call) -> Result<Answer, Error> {
        let call = asked(call);
        let app = match &self.right {
            Right::Token(path) => return self.client.send(call.bearer(token(path)?)).await,
            Right::App(app) => app,
        };
        let secret = app.token(&self.client, &self.repository).await?;
        let first = self
            .client
            .send_unless_expired(call.clone().bearer(secret.clone()));
        if let Some(answer) = first.await? {
            return Ok(answer);
        }
        // A token can be revoked before its end. Once: a second refusal is about something else.
        app.forget(&secret).await;
        let secret = app.token(&self.client, &self.repository).await?;
        self.client.send(call.bearer(secret)).await
    }

    /// Reads the pages of a listing; tells whether there were more than are read.
    async fn list<T: DeserializeOwned>(&self, first: Call) -> Result<(Vec<T>, bool), Error> {
        let mut walk = Walk::new(first.query("per_page", 100).remembered(), PAGES);
        let mut all = Vec::new();
        while let Some(call) = walk.call() {
            let answer = self.send(call.clone()).await?;
            all.extend(answer.json::<Vec<T>>()?);
            walk.turn(&self.client, &call, &answer)?;
        }
        Ok((all, walk.cut))
    }

    async fn all_comments(&self, number: u64) -> Result<Vec<Comment>, Error> {
        let path = self.path(&["issues", &number.to_string(), "comments"]);
        let (all, cut) = self.list(Call::get(path)).await?;
        if cut {
            return Err(Error::Untrusted(format!(
                "pull request {number} has more than {} comments",
                PAGES * 100
            )));
        }
        Ok(all)
    }

    async fn app_identity(&self, app: &App) -> Result<Identity, Error> {
        let mut me = self.me.lock().await;
        if me.app.is_none() {
            me.app = Some(app.identity(&self.client).await?);
        }
        me.app
            .clone()
            .ok_or(Error::Unsupported("an App without a name"))
    }

    async fn own(&self) -> Result<Own, Error> {
        if let Right::App(app) = &self.right {
            let slug = self.app_identity(app).await?.slug;
            return Ok(Own::Bot(format!("{slug}[bot]")));
        }
        let mut me = self.me.lock().await;
        let id = match me.user {
            Some(id) => id,
            None => self.send(Call::get(["user"])).await?.json::<User>()?.id,
        };
        me.user = Some(id);
        Ok(Own::User(id))
    }

    async fn repository_id(&self) -> Result<u64, Error> {
        let mut me = self.me.lock().await;
        let id = match me.repository {
            Some(id) => id,
            None => {
                let answer = self.send(Call::get(self.path(&[]))).await?;
                answer.json::<Repo>()?.id
            }
        };
        me.repository = Some(id);
        Ok(id)
    }

    /// Finds the comment that is written anew: the one that is known where it is still ours and still here, else the oldest
    /// of ours that begins with the marker.
    async fn find(
        &self,
        number: u64,
        marker: &str,
        known: Option<u64>,
    ) -> Result<Option<Comment>, Error> {
        let own = self.own().await?;
        if let Some(id) = known {
            let path = self.path(&["issues", "comments", &id.to_string()]);
            let found: Option<Comment> = match self.send(Call::get(path).remembered()).await {
                Ok(answer) => Some(answer.json()?),
                Err(Error::NotFound(_)) => None,
                Err(error) => return Err(error),
            };
            let here = format!("/issues/{number}");
            let ours = |c: &Comment| own.wrote(c) && c.issue_url.ends_with(&here);
            if let Some(comment) = found.filter(ours) {
                return Ok(Some(comment));
            }
        }
        let mut all = self.all_comments(number).await?;
        let marked = |body: &str| {
            let rest = body.strip_prefix(marker);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['\r', '\n']))
        };
        all.retain(|c| own.wrote(c) && marked(&c.body));
        Ok(all.into_iter().min_by_key(|c| c.id))
    }
}

#[async_trait]
impl Forge for GitHub {
    fn kind(&self) -> ForgeKind {
        ForgeKind::GitHub
    }

    fn comment_limit(&self) -> usize {
        COMMENT
    }

    async fn open_pulls(&self, base: &str) -> Result<Vec<PullRequest>, Error> {
        let call = Call::get(self.path(&["pulls"]))
            .query("state", "open")
            .query("base", base)
            .query("sort", "updated")
            .query("direction", "desc");
        let (pulls, _) = self.list::<Pull>(call).await?;
        let mut seen = BTreeSet::new();
        let mut read = Vec::new();
        for pull in pulls {
            // Something that changes while pages are read moves onto the first, and the last of that page onto the next.
            let new = seen.insert(pull.number);
            // One that cannot be read hides no other; whoever asks for it by its number is told why.
            read.extend(pull.read().ok().filter(|_| new));
        }
        Ok(read)
    }

    async fn pull(&self, number: u64) -> Result<PullRequest, Error> {
        let call = Call::get(self.path(&["pulls", &number.to_string()])).remembered();
        let pull: Pull = self.send(call).await?.json()?;
        pull.read().map_err(Error::Untrusted)
    }

    async fn comments(&self, number: u64, after: u64) -> Result<Vec<PullComment>, Error> {
        let mut all = self.all_comments(number).await?;
        all.retain(|c| c.id > after);
        all.sort_by_key(|c| c.id);
        all.dedup_by_key(|c| c.id);
        let read = all.into_iter().map(Comment::read);
        read.collect::<Result<_, _>>().map_err(Error::Untrusted)
    }

    async fn write_comment(
        &self,
        number: u64,
        marker: &str,
        known: Option<u64>,
        text: &str,
    ) -> Result<u64, Error> {
        if !text.starts_with(marker) || marker.is_empty() {
            return Err(Error::Refused(
                "a comment must begin with its marker, or it is not found again".into(),
            ));
        }
        let length = text.chars().count();
        if length > COMMENT {
            return Err(Error::Refused(format!(
                "a comment of {length} characters: GitHub takes {COMMENT}"
            )));
        }
        let body = json!({ "body": text });
        if let Some(comment) = self.find(number, marker, known).await? {
            if comment.body == text {
                return Ok(comment.id);
            }
            let path = self.path(&["issues", "comments", &comment.id.to_string()]);
            let call = Call::new(Method::PATCH, path).json(body.clone());
            match self.send(call).await {
                Ok(answer) => return Ok(answer.json::<Written>()?.id),
                // Somebody deleted it meanwhile.
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let path = self.path(&["issues", &number.to_string(), "comments"]);
        let call = Call::new(Method::POST, path).json(body);
        Ok(self.send(call).await?.json::<Written>()?.id)
    }

    async fn report(&self, check: &Check) -> Result<(), Error> {
        match &self.right {
            Right::App(app) => self.check_run(app, check).await,
            Right::Token(_) => self.status(check).await,
        }
    }

    /// <https://docs.github.com/rest/collaborators/collaborators#get-repository-permissions-for-a-user>: the highest role,
    /// whatever it comes from. Triage is no more than reading; a role of the organisation's own is what it is built on.
    async fn permission(&self, person: &Person) -> Result<Permission, Error> {
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
        let role = |word: &str| match word {
            "admin" => Some(Permission::Admin),
            "maintain" => Some(Permission::Maintain),
            "write" => Some(Permission::Write),
            "triage" | "read" => Some(Permission::Read),
            "none" => Some(Permission::None),
            _ => None,
        };
        let base = role(&found.permission).unwrap_or(Permission::None);
        Ok(role(&found.role_name).unwrap_or(base))
    }

    async fn pulls_of(&self, commit: &Revision) -> Result<Vec<u64>, Error> {
        let call = Call::get(self.path(&["commits", commit.as_str(), "pulls"]));
        let pulls = match self.list::<Pull>(call).await {
            Ok((pulls, _)) => pulls,
            // What GitHub says of a commit that it does not have: 422, "No commit found for SHA".
            Err(Error::Refused(why)) if why.contains("No commit found") => {
                return Err(Error::NotFound(format!("the commit {commit} on GitHub")));
            }
            Err(error) => return Err(error),
        };
        // Those that are open hold the commit, and it did not come in by them.
        let merged = pulls.iter().filter(|p| p.merged_at.is_some());
        Ok(merged.map(|p| p.number).collect())
    }

    /// <https://docs.github.com/rest/apps/webhooks#list-deliveries-for-an-app-webhook>: newest first. A guid is shared by a
    /// delivery and its repetitions.
    async fn redeliver(&self, since: Timestamp) -> Result<usize, Error> {
        let Right::App(app) = &self.right else {
            return Err(Error::Unsupported(
                "sending webhooks again without being a GitHub App",
            ));
        };
        let repository = self.repository_id().await?;
        let first = Call::get(["app", "hook", "deliveries"]).query("per_page", 100);
        let mut walk = Walk::new(first, DELIVERY_PAGES);
        let mut seen: BTreeMap<String, (bool, u64)> = BTreeMap::new();
        'pages: while let Some(call) = walk.call() {
            let call = app.sign(&self.client, call)?;
            let answer = self.client.send(call.clone()).await?;
            for delivery in answer.json::<Vec<Delivery>>()? {
                if time(&delivery.delivered_at).map_err(|w| answer.wrong(w))? < since {
                    break 'pages;
                }
                if delivery.repository_id != Some(repository) {
                    continue;
                }
                let arrived = (200..300).contains(&delivery.status_code);
                let of_guid = seen.entry(delivery.guid).or_insert((false, delivery.id));
                of_guid.0 |= arrived;
            }
            walk.turn(&self.client, &call, &answer)?;
        }
        let mut again = 0;
        // Oldest first, as they happened.
        let mut failed: Vec<u64> = seen.into_values().filter(|s| !s.0).map(|s| s.1).collect();
        failed.sort_unstable();
        for id in failed.into_iter().take(REDELIVERIES) {
            let path = ["app", "hook", "deliveries", &id.to_string(), "attempts"];
            let call = app.sign(&self.client, Call::new(Method::POST, path))?;
            self.client.send(call).await?;
            again += 1;
        }
        Ok(again)
    }
}
