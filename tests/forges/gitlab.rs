//! GitLab: <https://docs.gitlab.com/api/rest/>, and what the service is known to do beyond that.

use std::sync::Arc;

use isoform::clock::Clock;
use isoform::domain::forge::Verdict;
use serde_json::{Value, json};

use super::{Account, Api, Asked, Comment, Fake, Pull, Reply, Reported, State, iso, page};

pub const PROJECT: &str = "acme/infra/platform";
/// A project access token that is taken.
pub const TOKEN: &str = "glpat-0123456789abcdefSECRET";
/// The account that owns it.
pub const OWN: u64 = 21;
/// What GitLab itself wrote under every merge request.
const SYSTEM_NOTE: u64 = 1;

pub struct GitLab;

pub async fn serve(clock: Clock) -> Fake {
    let fake = Fake::serve(clock, Arc::new(GitLab)).await;
    let login = "project_77_bot_5b1e".to_owned();
    let own = Account {
        id: OWN,
        login,
        bot: true,
    };
    fake.state().accounts.insert(OWN, own);
    fake
}

fn no(status: u16, message: &str) -> Reply {
    Reply::json(status, &json!({ "message": message }))
}

impl Api for GitLab {
    fn base(&self) -> &str {
        "/api/v4"
    }

    fn answer(&self, state: &mut State, asked: &Asked) -> Reply {
        if asked.header("authorization") != format!("Bearer {TOKEN}") {
            return no(401, "401 Unauthorized");
        }
        let path: Vec<&str> = asked.path.iter().map(String::as_str).collect();
        let (project, rest) = match path.as_slice() {
            ["user"] => return Reply::json(200, &account(state, OWN)),
            ["users", id] => {
                let id = id.parse().ok().filter(|id| state.accounts.contains_key(id));
                return match id {
                    Some(id) => Reply::json(200, &account(state, id)),
                    None => no(404, "404 User Not Found"),
                };
            }
            ["projects", project, rest @ ..] => (*project, rest),
            _ => ("", [].as_slice()),
        };
        if project != PROJECT {
            return no(404, "404 Project Not Found");
        }
        match (asked.method.as_str(), rest) {
            ("GET", ["merge_requests"]) => requests(state, asked),
            ("GET", ["merge_requests", iid]) => match found(state, iid) {
                Some(pull) => Reply::json(200, &request(state, pull)),
                None => no(404, "404 Not found"),
            },
            (method, ["merge_requests", iid, "notes", rest @ ..]) => {
                let Some(pull) = found(state, iid).map(|pull| pull.number) else {
                    return no(404, "404 Not found");
                };
                match (method, rest) {
                    ("GET", []) => notes(state, asked, pull),
                    ("POST", []) => write(state, asked, pull, None),
                    ("GET", [id]) => match under(state, pull, id) {
                        Some(comment) => Reply::json(200, &note(state, comment)),
                        None => no(404, "404 Note Not Found"),
                    },
                    ("PUT", [id]) => match under(state, pull, id).map(|c| c.id) {
                        Some(id) => write(state, asked, pull, Some(id)),
                        None => no(404, "404 Note Not Found"),
                    },
                    _ => no(405, "405 Method Not Allowed"),
                }
            }
            ("POST", ["statuses", sha]) => status(state, asked, sha),
            ("GET", ["repository", "commits", sha, "statuses"]) => statuses(state, asked, sha),
            ("GET", ["repository", "commits", sha, "merge_requests"]) => {
                let of = |p: &&Pull| p.merged.as_deref() == Some(*sha) || p.head == *sha;
                let all: Vec<Value> = state
                    .pulls
                    .values()
                    .filter(of)
                    .map(|p| request(state, p))
                    .collect();
                if all.is_empty() && !sha.starts_with("feed") {
                    return no(404, "404 Commit Not Found");
                }
                listed(&all, asked)
            }
            ("GET", ["members", "all", id]) => member(state, id),
            _ => {
                let line = format!("{} {} is no call of GitLab", asked.method, asked.raw);
                state.violations.push(line);
                no(404, "404 Not Found")
            }
        }
    }
}

fn listed(all: &[Value], asked: &Asked) -> Reply {
    let link = format!("http://{}{}", asked.header("host"), asked.raw);
    let (some, next) = page(all, asked, &link);
    let reply = Reply::json(200, &Value::Array(some));
    match next {
        Some(next) => reply.with("link", next),
        None => reply,
    }
}

fn found<'a>(state: &'a State, iid: &str) -> Option<&'a Pull> {
    state.pulls.get(&iid.parse().ok()?)
}

fn under<'a>(state: &'a State, pull: u64, id: &str) -> Option<&'a Comment> {
    let comment = state.comments.get(&id.parse().ok()?)?;
    (comment.pull == pull).then_some(comment)
}

fn account(state: &State, id: u64) -> Value {
    let Account { id, login, bot } = &state.accounts[&id];
    json!({ "id": id, "username": login, "name": login, "state": "active", "bot": bot })
}

/// Beside a note or a merge request nothing is said of bots.
fn user(state: &State, id: Option<u64>) -> Value {
    let Some(account) = id.and_then(|id| state.accounts.get(&id)) else {
        return Value::Null;
    };
    json!({ "id": account.id, "username": account.login, "state": "active" })
}

fn request(state: &State, pull: &Pull) -> Value {
    let word = match (&pull.merged, pull.open) {
        (Some(_), _) => "merged",
        (None, true) => "opened",
        (None, false) => "closed",
    };
    let source = match (pull.headless, pull.fork) {
        (true, _) => Value::Null,
        (false, true) => json!(78),
        (false, false) => json!(77),
    };
    json!({
        "id": 1_000_000 + pull.number,
        "iid": pull.number,
        "title": pull.title,
        "author": user(state, pull.author),
        "sha": pull.head,
        "source_branch": pull.branch,
        "target_branch": pull.base,
        "state": word,
        "source_project_id": source,
        "target_project_id": 77,
        "merge_commit_sha": pull.merged,
        "squash_commit_sha": null,
        "draft": pull.draft,
        "work_in_progress": pull.draft,
        "labels": pull.labels,
        "updated_at": iso(pull.updated),
    })
}

fn requests(state: &State, asked: &Asked) -> Reply {
    let query = |name: &str| asked.query.get(name).map(String::as_str);
    let mut some: Vec<&Pull> = state
        .pulls
        .values()
        .filter(|p| query("state") != Some("opened") || p.open)
        .filter(|p| query("target_branch").is_none_or(|b| p.base == b))
        .collect();
    if query("order_by") == Some("updated_at") {
        some.sort_by_key(|p| (p.updated, p.number));
    }
    if query("sort") != Some("asc") {
        some.reverse();
    }
    let all: Vec<Value> = some.into_iter().map(|p| request(state, p)).collect();
    listed(&all, asked)
}

fn note(state: &State, comment: &Comment) -> Value {
    json!({
        "id": comment.id,
        "body": comment.body,
        "author": user(state, comment.author),
        "created_at": iso(comment.created),
        "updated_at": iso(comment.updated),
        "system": false,
        "noteable_type": "MergeRequest",
        "noteable_iid": comment.pull,
    })
}

fn notes(state: &State, asked: &Asked, pull: u64) -> Reply {
    let mut all: Vec<Value> = state
        .said(pull)
        .into_iter()
        .map(|c| note(state, c))
        .collect();
    let begun = iso(super::BEGINNING);
    let system = json!({
        "id": SYSTEM_NOTE, "body": "changed the description", "author": user(state, state.pulls[&pull].author),
        "created_at": begun, "updated_at": begun, "system": true,
    });
    all.insert(0, system);
    // The newest come first, unless it is asked otherwise.
    if asked.query.get("sort").map(String::as_str) != Some("asc") {
        all.reverse();
    }
    listed(&all, asked)
}

fn write(state: &mut State, asked: &Asked, pull: u64, known: Option<u64>) -> Reply {
    let body = asked.body.clone().unwrap_or_default();
    let text = body["body"].as_str().unwrap_or_default().to_owned();
    if text.trim().is_empty() {
        return no(400, "400 Bad request - Note can't be blank");
    }
    if text.chars().count() > 1_000_000 {
        return no(400, "400 Bad request - Note is too long");
    }
    // What GitLab does with such a line it does as whoever wrote it.
    let mut lines = text.lines().map(str::trim_start);
    if let Some(action) = lines.find(|line| line.starts_with('/')) {
        state.violations.push(format!("`{action}` would be run"));
    }
    let now = state.now();
    let id = known.unwrap_or_else(|| state.say(pull, Some(OWN), &text));
    if let Some(comment) = state.comments.get_mut(&id).filter(|_| known.is_some()) {
        comment.body = text;
        comment.updated = now;
    }
    let status = if known.is_some() { 200 } else { 201 };
    Reply::json(status, &note(state, &state.comments[&id]))
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pending => "pending",
        Verdict::Success | Verdict::Neutral => "success",
        Verdict::Failure => "failed",
    }
}

/// A status that runs is changed; one that has ended is followed by another. What is the same again is no transition.
fn status(state: &mut State, asked: &Asked, sha: &str) -> Reply {
    let body = asked.body.clone().unwrap_or_default();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let verdict = match text("state").as_str() {
        "pending" => Verdict::Pending,
        "success" => Verdict::Success,
        "failed" => Verdict::Failure,
        _ => return no(400, "state does not have a valid value"),
    };
    if text("description").chars().count() > 255 {
        return Reply::json(
            400,
            &json!({ "message": { "description": ["is too long (maximum is 255 characters)"] } }),
        );
    }
    let (name, title) = (text("name"), text("description"));
    let running = state
        .reported
        .iter_mut()
        .rfind(|r| r.head == sha && r.name == name)
        .filter(|r| r.verdict == Verdict::Pending);
    if let Some(running) = running {
        running.title = title;
        if verdict == Verdict::Pending {
            return no(
                400,
                "Cannot transition status via :enqueue from :pending (Reason(s): Status cannot transition via \"enqueue\")",
            );
        }
        running.verdict = verdict;
    } else {
        let id = state.mint();
        state.reported.push(Reported {
            id,
            head: sha.into(),
            name,
            verdict,
            title,
            annotations: Vec::new(),
        });
    }
    Reply::json(201, &json!({ "id": 1, "status": text("state") }))
}

fn statuses(state: &State, asked: &Asked, sha: &str) -> Reply {
    let named = |r: &&Reported| asked.query.get("name").is_none_or(|name| r.name == *name);
    let all: Vec<Value> = state
        .reported
        .iter()
        .filter(|r| r.head == sha)
        .filter(named)
        .map(|r| json!({ "id": r.id, "name": r.name, "status": word(r.verdict), "description": r.title }))
        .collect();
    listed(&all, asked)
}

/// A role is written as its level, and perhaps `until` a day, or as another state.
fn member(state: &State, id: &str) -> Reply {
    let id = id.parse::<u64>().unwrap_or(0);
    let (Some(role), Some(account)) = (state.roles.get(&id), state.accounts.get(&id)) else {
        return no(404, "404 Not found");
    };
    let mut words = role.split(' ');
    let level: u64 = words.next().and_then(|w| w.parse().ok()).unwrap_or(0);
    let (mut expires, mut status, mut membership) = (Value::Null, "active", "active");
    match (words.next(), words.next()) {
        (Some("until"), Some(day)) => expires = json!(day),
        (Some("blocked"), _) => status = "blocked",
        (Some("awaiting"), _) => membership = "awaiting",
        _ => {}
    }
    Reply::json(
        200,
        &json!({
            "id": account.id, "username": account.login, "state": status, "membership_state": membership,
            "access_level": level, "expires_at": expires,
        }),
    )
}
