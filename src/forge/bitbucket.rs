//! Bitbucket Cloud over its REST API: <https://developer.atlassian.com/cloud/bitbucket/rest/>.
//!
//! Its Markdown shows comments of HTML, so a marker is written as the title of a link that nothing refers to. Commits of pull
//! requests are told by their first twelve digits, and are looked up whole. There are no labels.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::client::{Answer, Call, Client};
use super::shared::{self, Comments, Written, first, time};
use super::walk::Walk;
use super::{Auth, Repository, token};
use crate::domain::forge::{
    Check, ForgeKind, Permission, Person, PullComment, PullRequest, PullState, Verdict,
};
use crate::domain::model::{Revision, Timestamp};
use crate::port::{Error, Forge};

/// A comment's most characters; the service says so when it refuses one.
const COMMENT: usize = 32_768;
/// What the marker may grow by when it is hidden.
const MARKER: usize = 768;
const PAGES: usize = 60;
/// <https://developer.atlassian.com/cloud/bitbucket/rest/intro/#pagination>: fifty pull requests, a hundred of most other things.
const PULLS: usize = 50;
const VALUES: usize = 100;
/// Commits whose whole name is remembered.
const COMMITS: usize = 10_000;
/// `key` and `name` of a build status: <https://developer.atlassian.com/cloud/bitbucket/rest/api-group-commit-statuses/>.
const KEY: usize = 40;
const DESCRIPTION: usize = 255;
/// A comment is stored in steps: both of its times may differ by a moment without anybody having changed it.
const MOMENT: Duration = Duration::from_secs(1);
/// Pull requests of one commit that are asked for whether they were merged.
const OF_ONE_COMMIT: usize = 20;

/// What hides a marker: the title of a link that nothing refers to is shown nowhere.
const HIDDEN: &str = "[isoform]: # (";
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b' ')
    .remove(b'-')
    .remove(b'.')
    .remove(b':')
    .remove(b'/')
    .remove(b'=');

/// A repository on Bitbucket Cloud.
pub(super) struct Bitbucket {
    client: Client,
    repository: Repository,
    token: PathBuf,
    me: tokio::sync::Mutex<Option<Me>>,
    commits: tokio::sync::Mutex<BTreeMap<String, Revision>>,
}

/// Whose comments are ours.
#[derive(Clone)]
enum Me {
    /// This account's.
    Account(String),
    /// An access token's, which may not ask who it is: no person's, and its own are those that it can change.
    Token,
}

/// A page of a listing.
#[derive(Deserialize)]
struct Page<T> {
    values: Vec<T>,
    next: Option<String>,
}

/// An account: of a person where its type is `user`, of an access token or an app where it is `app_user`, of old, a `team`.
#[derive(Deserialize)]
struct User {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    uuid: String,
    nickname: Option<String>,
    display_name: Option<String>,
}

impl User {
    fn person(self) -> Person {
        Person {
            bot: self.kind != "user",
            id: self.uuid,
            login: self.nickname.or(self.display_name).unwrap_or_default(),
        }
    }
}

/// Whoever is gone has no id: nobody's permission is ever looked up by it.
fn person(user: Option<User>) -> Person {
    user.map_or_else(
        || Person {
            id: String::new(),
            login: "Former user".into(),
            bot: false,
        },
        User::person,
    )
}

#[derive(Deserialize)]
struct Pull {
    id: u64,
    #[serde(default)]
    title: String,
    author: Option<User>,
    source: Side,
    destination: Side,
    state: String,
    merge_commit: Option<Commit>,
    #[serde(default)]
    draft: bool,
    updated_on: Option<String>,
}

#[derive(Deserialize)]
struct Side {
    branch: Branch,
    /// Null where the fork is gone.
    repository: Option<Repo>,
    commit: Option<Commit>,
}

#[derive(Deserialize)]
struct Branch {
    name: String,
}

#[derive(Deserialize)]
struct Repo {
    uuid: String,
}

#[derive(Deserialize)]
struct Commit {
    hash: String,
}

/// A commit as a pull request tells it, in the state that it was in then.
struct Told<'a> {
    number: u64,
    updated: &'a str,
    hash: &'a str,
    /// By which it was merged, and not its head.
    merged: bool,
}

#[derive(Deserialize)]
struct Numbered {
    id: u64,
}

#[derive(Deserialize)]
struct State {
    state: String,
}

#[derive(Deserialize)]
struct Comment {
    id: u64,
    user: Option<User>,
    content: Content,
    created_on: String,
    updated_on: Option<String>,
    /// It stays in the listing, without what it said.
    #[serde(default)]
    deleted: bool,
    /// A draft of a review that only its author sees.
    #[serde(default)]
    pending: bool,
}

#[derive(Default, Deserialize)]
struct Content {
    raw: Option<String>,
}

impl Comment {
    fn is_by(&self, me: &Me) -> bool {
        match (me, &self.user) {
            (Me::Account(uuid), Some(user)) => user.uuid == *uuid && !uuid.is_empty(),
            (Me::Token, Some(user)) => user.kind == "app_user",
            (_, None) => false,
        }
    }

    fn body(&self) -> &str {
        self.content.raw.as_deref().unwrap_or_default()
    }

    fn written(self) -> Written {
        Written {
            id: self.id,
            body: self.content.raw.unwrap_or_default(),
        }
    }
}

#[derive(Deserialize)]
struct Granted {
    permission: String,
    user: Option<User>,
}

/// Writes a text that begins with a marker so that nobody sees the marker.
fn hide(marker: &str, text: &str) -> String {
    let rest = text.strip_prefix(marker).unwrap_or(text);
    format!("{}\n{rest}", hidden(marker))
}

fn hidden(marker: &str) -> String {
    format!("{HIDDEN}{})", utf8_percent_encode(marker, PLAIN))
}

/// Undoes [`hide`], for whoever reads.
fn shown(raw: &str) -> String {
    let found = raw.strip_prefix(HIDDEN).and_then(|rest| {
        let (line, rest) = rest.split_once('\n').unwrap_or((rest, ""));
        let marker = line.trim_end().strip_suffix(')')?;
        let marker = percent_decode_str(marker).decode_utf8().ok()?;
        Some(format!("{marker}{rest}"))
    });
    found.unwrap_or_else(|| raw.to_owned())
}

impl Bitbucket {
    pub(super) fn new(client: Client, repository: Repository, auth: &Auth) -> Result<Self, Error> {
        Ok(Self {
            client,
            repository,
            token: shared::token_file(ForgeKind::Bitbucket, auth)?,
            me: tokio::sync::Mutex::default(),
            commits: tokio::sync::Mutex::default(),
        })
    }

    fn path(&self, rest: &[&str]) -> Vec<String> {
        let path = [
            "repositories",
            &self.repository.owner,
            &self.repository.name,
        ];
        path.iter().chain(rest).map(|&s| s.to_owned()).collect()
    }

    /// An access token of a repository, project or workspace stands alone; an API token of a person follows the person's
    /// address and a colon: <https://support.atlassian.com/bitbucket-cloud/docs/using-api-tokens/>.
    async fn send(&self, call: Call) -> Result<Answer, Error> {
        let secret = token(&self.token)?;
        let call = if secret.contains(':') {
            call.basic(secret)
        } else {
            call.bearer(secret)
        };
        self.client.send(call).await
    }

    async fn list<T: DeserializeOwned>(&self, first: Call) -> Result<(Vec<T>, bool), Error> {
        let mut walk = Walk::new(first, PAGES);
        let mut all = Vec::new();
        while let Some(call) = walk.call() {
            let page: Page<T> = self.send(call.clone()).await?.json()?;
            all.extend(page.values);
            walk.turn_to(&self.client, &call, page.next.as_deref())?;
        }
        Ok((all, walk.cut))
    }

    async fn all_comments(&self, number: u64) -> Result<Vec<Comment>, Error> {
        let path = self.path(&["pullrequests", &number.to_string(), "comments"]);
        let (mut all, cut) = self
            .list::<Comment>(Call::get(path).query("pagelen", VALUES))
            .await?;
        if cut {
            return Err(shared::too_many(number, PAGES * VALUES));
        }
        all.retain(|comment| !comment.deleted && !comment.pending);
        Ok(all)
    }

    async fn me(&self) -> Result<Me, Error> {
        let mut me = self.me.lock().await;
        if let Some(me) = &*me {
            return Ok(me.clone());
        }
        let asked = match self.send(Call::get(["user"])).await {
            Ok(answer) => Me::Account(answer.json::<User>()?.uuid),
            // An access token is no account.
            Err(Error::Denied(_) | Error::NotFound(_)) => Me::Token,
            Err(error) => return Err(error),
        };
        *me = Some(asked.clone());
        Ok(asked)
    }

    /// Keeps who wrote what this credential has just written.
    async fn learn(&self, written: &Comment) {
        let uuid = written.user.as_ref().map(|user| user.uuid.clone());
        if let Some(uuid) = uuid.filter(|uuid| !uuid.is_empty()) {
            *self.me.lock().await = Some(Me::Account(uuid));
        }
    }

    /// Returns the whole name of a commit that a pull request tells by its first digits.
    ///
    /// What is remembered holds for one state of one pull request: two commits with the same first twelve digits can be made,
    /// and one must not be taken for the other.
    async fn whole(&self, told: &Told<'_>) -> Result<Revision, Error> {
        if let Ok(whole) = told.hash.parse() {
            return Ok(whole);
        }
        let key = format!("{} {} {}", told.number, told.updated, told.hash);
        if let Some(whole) = self.commits.lock().await.get(&key) {
            return Ok(whole.clone());
        }
        let found = if told.merged {
            let answer = self.send(Call::get(self.path(&["commit", told.hash])));
            vec![answer.await?.json::<Commit>()?]
        } else {
            // Among the commits of the pull request, the newest first: a fork's repository may not be ours to read.
            let path = self.path(&["pullrequests", &told.number.to_string(), "commits"]);
            let answer = self.send(Call::get(path).query("pagelen", VALUES)).await?;
            answer.json::<Page<Commit>>()?.values
        };
        // Fewer digits could be anybody's.
        let whole = found
            .iter()
            .filter(|c| told.hash.len() >= 7 && c.hash.starts_with(told.hash))
            .find_map(|c| c.hash.parse::<Revision>().ok());
        let Some(whole) = whole else {
            return Err(Error::Untrusted(format!(
                "pull request {} names a commit that Bitbucket does not have",
                told.number
            )));
        };
        let mut commits = self.commits.lock().await;
        if commits.len() >= COMMITS {
            commits.clear();
        }
        commits.insert(key, whole.clone());
        Ok(whole)
    }

    async fn read(&self, pull: Pull) -> Result<PullRequest, Error> {
        let number = pull.id;
        let told = |hash, merged| Told {
            number,
            updated: pull.updated_on.as_deref().unwrap_or_default(),
            hash,
            merged,
        };
        let state = match pull.state.as_str() {
            "OPEN" | "DRAFT" | "QUEUED" => PullState::Open,
            "DECLINED" | "SUPERSEDED" => PullState::Closed,
            "MERGED" => PullState::Merged {
                commit: match &pull.merge_commit {
                    Some(commit) => Some(self.whole(&told(&commit.hash, true)).await?),
                    None => None,
                },
            },
            _ => {
                return Err(Error::Untrusted(format!(
                    "pull request {number} has no known state"
                )));
            }
        };
        let Some(source) = &pull.source.commit else {
            return Err(Error::Untrusted(format!(
                "pull request {number} names no commit"
            )));
        };
        let head = self.whole(&told(&source.hash, false)).await?;
        let updated = pull.updated_on.as_deref().map(time).transpose();
        Ok(PullRequest {
            number,
            title: pull.title,
            author: person(pull.author),
            head,
            fork: match (&pull.source.repository, &pull.destination.repository) {
                (Some(from), Some(to)) => from.uuid != to.uuid,
                _ => true,
            },
            branch: pull.source.branch.name,
            base: pull.destination.branch.name,
            state,
            draft: pull.draft,
            labels: Vec::new(),
            updated: updated.map_err(Error::Untrusted)?,
        })
    }
}

#[async_trait]
impl Comments for Bitbucket {
    async fn ours(&self, number: u64, id: u64) -> Result<Option<Written>, Error> {
        let (number, id) = (number.to_string(), id.to_string());
        let path = self.path(&["pullrequests", &number, "comments", &id]);
        let comment: Comment = match self.send(Call::get(path)).await {
            Ok(answer) => answer.json()?,
            Err(Error::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let ours = comment.is_by(&self.me().await?) && !comment.deleted;
        Ok(ours.then(|| comment.written()))
    }

    async fn all_ours(&self, number: u64) -> Result<Vec<Written>, Error> {
        let me = self.me().await?;
        let mut all = self.all_comments(number).await?;
        all.retain(|comment| comment.is_by(&me));
        Ok(all.into_iter().map(Comment::written).collect())
    }

    async fn edit(&self, number: u64, id: u64, text: &str) -> Result<(), Error> {
        let sure = matches!(self.me().await?, Me::Account(_));
        let (number, id) = (number.to_string(), id.to_string());
        let path = self.path(&["pullrequests", &number, "comments", &id]);
        let call = Call::new(Method::PUT, path).json(json!({ "content": { "raw": text } }));
        match self.send(call).await {
            Ok(answer) => {
                self.learn(&answer.json()?).await;
                Ok(())
            }
            // Only its author can change a comment: this one is another token's.
            Err(Error::Denied(why)) if !sure => Err(Error::NotFound(why)),
            Err(error) => Err(error),
        }
    }

    async fn add(&self, number: u64, text: &str) -> Result<u64, Error> {
        let path = self.path(&["pullrequests", &number.to_string(), "comments"]);
        let call = Call::new(Method::POST, path).json(json!({ "content": { "raw": text } }));
        let written: Comment = self.send(call).await?.json()?;
        self.learn(&written).await;
        Ok(written.id)
    }
}

#[async_trait]
impl Forge for Bitbucket {
    fn kind(&self) -> ForgeKind {
        ForgeKind::Bitbucket
    }

    fn comment_limit(&self) -> usize {
        COMMENT - MARKER
    }

    /// <https://developer.atlassian.com/cloud/bitbucket/rest/api-group-pullrequests/>. The base is compared here: in a query of
    /// theirs a branch would have to be quoted.
    async fn open_pulls(&self, base: &str) -> Result<Vec<PullRequest>, Error> {
        let call = Call::get(self.path(&["pullrequests"]))
            .query("state", "OPEN")
            .query("sort", "-updated_on")
            .query("pagelen", PULLS);
        let (all, _) = self.list::<Pull>(call).await?;
        let mut seen = BTreeSet::new();
        let mut read = Vec::new();
        for pull in all {
            let here = pull.destination.branch.name == base && pull.source.commit.is_some();
            if !here || !seen.insert(pull.id) {
                continue;
            }
            match self.read(pull).await {
                Ok(pull) => read.push(pull),
                // Where a fork took its commits along there is nothing to look at, and the others count all the same.
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    async fn pull(&self, number: u64) -> Result<PullRequest, Error> {
        let path = self.path(&["pullrequests", &number.to_string()]);
        let pull: Pull = self.send(Call::get(path)).await?.json()?;
        self.read(pull).await
    }

    async fn comments(&self, number: u64, after: u64) -> Result<Vec<PullComment>, Error> {
        let mut all = self.all_comments(number).await?;
        all.retain(|comment| comment.id > after);
        all.sort_by_key(|comment| comment.id);
        all.dedup_by_key(|comment| comment.id);
        let read = all.into_iter().map(|comment| {
            let created = time(&comment.created_on)?;
            let updated = comment.updated_on.as_deref().map(time).transpose()?;
            Ok(PullComment {
                id: comment.id,
                body: shown(comment.body()),
                author: person(comment.user),
                created,
                edited: updated.is_some_and(|updated| updated.since(created) > MOMENT),
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
        shared::fits(self.kind(), marker, text, self.comment_limit())?;
        let (hidden, text) = (hidden(marker), hide(marker, text));
        if hidden.len() > MARKER {
            return Err(Error::Refused("a marker that is too long to hide".into()));
        }
        shared::write(self, number, &hidden, known, &text).await
    }

    /// <https://developer.atlassian.com/cloud/bitbucket/rest/api-group-commit-statuses/>: a status of the same key is replaced. There
    /// is no word for "works, but look", and an address must be given: the commit's own page.
    async fn report(&self, check: &Check) -> Result<(), Error> {
        let state = match check.verdict {
            Verdict::Pending => "INPROGRESS",
            Verdict::Success | Verdict::Neutral => "SUCCESSFUL",
            Verdict::Failure => "FAILED",
        };
        let Repository { owner, name } = &self.repository;
        let sha = check.head.as_str();
        let path = self.path(&["commit", sha, "statuses", "build"]);
        let call = Call::new(Method::POST, path).json(json!({
            "key": key(&check.name),
            "name": first(&check.name, DESCRIPTION),
            "state": state,
            "description": first(&check.title, DESCRIPTION),
            "url": format!("https://bitbucket.org/{owner}/{name}/commits/{sha}"),
        }));
        self.send(call).await.map(|_| ())
    }

    /// <https://developer.atlassian.com/cloud/bitbucket/rest/api-group-workspaces/#api-workspaces-workspace-permissions-repositories-repo-slug-get>:
    /// the highest right of whoever was given one, whatever it comes from. Only an administrator of the repository may ask;
    /// otherwise this is [`Error::Denied`].
    async fn permission(&self, person: &Person) -> Result<Permission, Error> {
        let id = &person.id;
        let plain = |b: u8| b.is_ascii_hexdigit() || matches!(b, b'-' | b'{' | b'}');
        // It stands in a query of theirs.
        if id.is_empty() || !id.bytes().all(plain) {
            return Ok(Permission::None);
        }
        let Repository { owner, name } = &self.repository;
        let call = Call::get(["workspaces", owner, "permissions", "repositories", name])
            .query("q", format!("user.uuid=\"{id}\""))
            .query("pagelen", VALUES);
        let (all, _) = self.list::<Granted>(call).await?;
        let given = all
            .iter()
            .filter(|granted| granted.user.as_ref().is_some_and(|user| user.uuid == *id));
        let given = given.map(|granted| match granted.permission.as_str() {
            "admin" => Permission::Admin,
            "write" => Permission::Write,
            "read" => Permission::Read,
            _ => Permission::None,
        });
        Ok(given.max().unwrap_or(Permission::None))
    }

    /// <https://developer.atlassian.com/cloud/bitbucket/rest/api-group-pullrequests/#api-repositories-workspace-repo-slug-commit-commit-pullrequests-get>:
    /// only where the app "Pull Request Commit Links" was added to the workspace; without it nothing is found.
    async fn pulls_of(&self, of: &Revision) -> Result<Vec<u64>, Error> {
        let path = self.path(&["commit", of.as_str(), "pullrequests"]);
        let answer = self.send(Call::get(path)).await?;
        if answer.status == 202 {
            return Err(Error::Unavailable(
                "Bitbucket is looking through the pull requests".into(),
            ));
        }
        let mut merged = Vec::new();
        let found: Page<Numbered> = answer.json()?;
        for Numbered { id } in found.values.into_iter().take(OF_ONE_COMMIT) {
            let path = self.path(&["pullrequests", &id.to_string()]);
            let pull: State = self.send(Call::get(path)).await?.json()?;
            if pull.state == "MERGED" {
                merged.push(id);
            }
        }
        Ok(merged)
    }

    /// It tries a delivery three times by itself, and tells nobody which were lost.
    async fn redeliver(&self, _since: Timestamp) -> Result<usize, Error> {
        Err(Error::Unsupported("sending deliveries again"))
    }
}

/// Makes the key of a status, which has forty characters at most.
fn key(name: &str) -> String {
    if name.chars().count() <= KEY {
        return name.to_owned();
    }
    let digest = digest::digest(&digest::SHA256, name.as_bytes());
    let tail: String = digest.as_ref()[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let head: String = name.chars().take(KEY - 1 - tail.len()).collect();
    format!("{head}-{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_hidden_and_found_again() {
        for marker in [
            "<!-- isoform:preview platform -->",
            "<!-- a) (b] \\ % ü -->",
        ] {
            let text = format!("{marker}\n## Preview\n\nText");

            let raw = hide(marker, &text);

            let first = raw.lines().next().unwrap();
            let title = first.strip_prefix(HIDDEN).unwrap();
            assert_eq!(title.find(')'), Some(title.len() - 1), "{first}");
            assert!(!first.contains("<!--"), "{first}");
            assert!(raw.starts_with(&hidden(marker)));
            // Whatever follows begins a paragraph of its own: the blank line ends the definition.
            assert_eq!(raw.lines().nth(1), Some(""));
            assert_eq!(shown(&raw), text);
        }
        assert_eq!(shown("[isoform]: # (x"), "[isoform]: # (x");
        assert_eq!(shown("plain"), "plain");
    }

    #[test]
    fn a_key_has_forty_characters_and_tells_names_apart() {
        let long = "isoform/a-source-with-a-very-long-name-indeed";

        assert_eq!(key("isoform/platform"), "isoform/platform");
        assert_eq!(key(long).chars().count(), KEY);
        assert_ne!(key(long), key(&format!("{long}-2")));
    }
}
