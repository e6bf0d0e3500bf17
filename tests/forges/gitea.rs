//! Gitea: its own description at `/api/swagger` of every server, and what it is known to do beyond that. Forgejo is the same here.

use std::sync::Arc;

use isoform::clock::Clock;
use isoform::domain::forge::Verdict;
use serde_json::{Value, json};

use super::{Account, Api, Asked, Comment, Fake, Pull, Reply, Reported, State, iso, page};

pub const OWNER: &str = "acme";
pub const NAME: &str = "platform";
/// A token that is taken.
pub const TOKEN: &str = "0123456789abcdef0123456789abcdefSECRET";
/// The account that owns it.
pub const OWN: u64 = 31;
/// `MAX_RESPONSE_ITEMS`
const LARGEST_PAGE: usize = 50;

pub struct Gitea;

pub async fn serve(clock: Clock) -> Fake {
    let fake = Fake::serve(clock, Arc::new(Gitea)).await;
    let own = Account {
        id: OWN,
        login: "isoform".into(),
        bot: false,
    };
    fake.state().accounts.insert(OWN, own);
    fake
}

fn no(status: u16, message: &str) -> Reply {
    let url = "http://forge.example/api/swagger";
    Reply::json(status, &json!({ "message": message, "url": url }))
}

fn not_found() -> Reply {
    no(404, "The target couldn't be found.")
}

impl Api for Gitea {
    fn base(&self) -> &str {
        "/api/v1"
    }

    fn answer(&self, state: &mut State, asked: &Asked) -> Reply {
        // Either word is taken.
        let sent = asked.header("authorization");
        if sent != format!("token {TOKEN}") && sent != format!("Bearer {TOKEN}") {
            return no(401, "token is required");
        }
        let path: Vec<&str> = asked.path.iter().map(String::as_str).collect();
        let rest = match path.as_slice() {
            ["user"] => return Reply::json(200, &user(state, Some(OWN))),
            ["repos", OWNER, NAME, rest @ ..] => rest,
            _ => return not_found(),
        };
        match (asked.method.as_str(), rest) {
            ("GET", ["pulls"]) => pulls(state, asked),
            ("GET", ["pulls", number]) => match found(state, number) {
                Some(pull) => Reply::json(200, &pull_json(state, pull)),
                None => not_found(),
            },
            ("GET", ["issues", number, "comments"]) => match found(state, number) {
                // Every one of them: there are no pages.
                Some(pull) => {
                    let all = state.said(pull.number).into_iter();
                    let all: Vec<Value> = all.map(|c| comment_json(state, c)).collect();
                    Reply::json(200, &Value::Array(all))
                }
                None => not_found(),
            },
            ("POST", ["issues", number, "comments"]) => {
                match found(state, number).map(|pull| pull.number) {
                    Some(pull) => write(state, asked, pull, None),
                    None => not_found(),
                }
            }
            ("GET", ["issues", "comments", id]) => match known(state, id) {
                Some(comment) => Reply::json(200, &comment_json(state, comment)),
                None => not_found(),
            },
            ("PATCH", ["issues", "comments", id]) => {
                match known(state, id).map(|c| (c.pull, c.id, c.author)) {
                    Some((pull, id, Some(OWN))) => write(state, asked, pull, Some(id)),
                    Some(_) => no(403, "user should have permission to edit comment"),
                    None => not_found(),
                }
            }
            ("POST", ["statuses", sha]) => status(state, asked, sha),
            ("GET", ["collaborators", login, "permission"]) => permission(state, login),
            ("GET", ["commits", sha, "pull"]) => {
                let merged = |p: &&Pull| p.merged.as_deref() == Some(*sha);
                match state.pulls.values().find(merged) {
                    Some(pull) => Reply::json(200, &pull_json(state, pull)),
                    None => not_found(),
                }
            }
            _ => {
                let line = format!("{} {} is no call of Gitea", asked.method, asked.raw);
                state.violations.push(line);
                not_found()
            }
        }
    }
}

fn found<'a>(state: &'a State, number: &str) -> Option<&'a Pull> {
    state.pulls.get(&number.parse().ok()?)
}

fn known<'a>(state: &'a State, id: &str) -> Option<&'a Comment> {
    state.comments.get(&id.parse().ok()?)
}

/// Nothing tells a bot from a person.
fn user(state: &State, id: Option<u64>) -> Value {
    match id.and_then(|id| state.accounts.get(&id)) {
        Some(account) => {
            json!({ "id": account.id, "login": account.login, "username": account.login })
        }
        None => json!({ "id": -1, "login": "Ghost", "username": "Ghost" }),
    }
}

fn pull_json(state: &State, pull: &Pull) -> Value {
    let own = json!({ "id": 77, "full_name": format!("{OWNER}/{NAME}") });
    let head = match (pull.headless, pull.fork) {
        (true, _) => Value::Null,
        (false, true) => json!({ "id": 78, "full_name": "stranger/platform" }),
        (false, false) => own.clone(),
    };
    json!({
        "id": 1_000_000 + pull.number,
        "number": pull.number,
        "title": pull.title,
        "state": if pull.open { "open" } else { "closed" },
        "user": user(state, pull.author),
        "draft": pull.draft,
        "labels": pull.labels.iter().map(|l| json!({ "id": 1, "name": l })).collect::<Vec<_>>(),
        "merged": pull.merged.is_some(),
        "merge_commit_sha": pull.merged,
        "head": { "label": pull.branch, "ref": pull.branch, "sha": pull.head, "repo": head },
        "base": { "label": pull.base, "ref": pull.base, "sha": "b".repeat(40), "repo": own },
        "updated_at": iso(pull.updated),
    })
}

fn pulls(state: &State, asked: &Asked) -> Reply {
    let query = |name: &str| asked.query.get(name).map(String::as_str);
    let mut some: Vec<&Pull> = state
        .pulls
        .values()
        .filter(|p| query("state").unwrap_or("open") != "open" || p.open)
        .collect();
    if query("sort") == Some("recentupdate") {
        some.sort_by_key(|p| std::cmp::Reverse((p.updated, p.number)));
    }
    let all: Vec<Value> = some.into_iter().map(|p| pull_json(state, p)).collect();
    let mut asked = asked.clone();
    let size = query("limit").and_then(|l| l.parse().ok()).unwrap_or(30);
    let size = LARGEST_PAGE.min(size).to_string();
    asked.query.insert("per_page".into(), size);
    let link = format!("http://{}{}", asked.header("host"), asked.raw);
    let (some, next) = page(&all, &asked, &link);
    let reply = Reply::json(200, &Value::Array(some)).with("x-total-count", all.len());
    match next {
        Some(next) => reply.with("link", next),
        None => reply,
    }
}

fn comment_json(state: &State, comment: &Comment) -> Value {
    let url = format!("http://forge.example/{OWNER}/{NAME}/pulls/{}", comment.pull);
    json!({
        "id": comment.id,
        "user": user(state, comment.author),
        "body": comment.body,
        "created_at": iso(comment.created),
        "updated_at": iso(comment.updated),
        "pull_request_url": url,
        "issue_url": "",
    })
}

fn write(state: &mut State, asked: &Asked, pull: u64, known: Option<u64>) -> Reply {
    let body = asked.body.clone().unwrap_or_default();
    let text = body["body"].as_str().unwrap_or_default().to_owned();
    if text.is_empty() {
        return no(422, "[Body]: Required");
    }
    let now = state.now();
    let id = known.unwrap_or_else(|| state.say(pull, Some(OWN), &text));
    if let Some(comment) = state.comments.get_mut(&id).filter(|_| known.is_some()) {
        comment.body = text;
        comment.updated = now;
    }
    let status = if known.is_some() { 200 } else { 201 };
    Reply::json(status, &comment_json(state, &state.comments[&id]))
}

fn status(state: &mut State, asked: &Asked, sha: &str) -> Reply {
    let body = asked.body.clone().unwrap_or_default();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let verdict = match text("state").as_str() {
        "pending" => Verdict::Pending,
        "success" => Verdict::Success,
        "warning" => Verdict::Neutral,
        "failure" | "error" => Verdict::Failure,
        _ => return no(422, "invalid state"),
    };
    let id = state.mint();
    state.reported.push(Reported {
        id,
        head: sha.into(),
        name: text("context"),
        verdict,
        title: text("description"),
        annotations: Vec::new(),
    });
    Reply::json(201, &json!({ "id": id, "status": text("state") }))
}

fn permission(state: &State, login: &str) -> Reply {
    let Some(account) = state.by_login(login) else {
        return no(404, "user does not exist");
    };
    let role = state.roles.get(&account.id).map_or("none", String::as_str);
    let user = user(state, Some(account.id));
    Reply::json(
        200,
        &json!({ "permission": role, "role_name": role, "user": user }),
    )
}
