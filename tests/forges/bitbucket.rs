//! Bitbucket Cloud: <https://developer.atlassian.com/cloud/bitbucket/rest/>, and what the service is known to do beyond that.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use isoform::clock::Clock;
use isoform::domain::forge::Verdict;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};

use super::{Account, Api, Asked, Comment, Fake, Pull, Reply, Reported, State, iso};

pub const OWNER: &str = "acme";
pub const NAME: &str = "platform";
/// An access token of the repository that is taken, and an API token behind its owner's address.
pub const ACCESS_TOKEN: &str = "ATCTT3xFfGN0_0123456789SECRET";
pub const API_TOKEN: &str = "deploy@acme.example:ATATT3xFfGF0_0123456789SECRET";
/// The account that owns the one, and what the other writes as.
pub const OWN: u64 = 41;
pub const OWN_TOKEN: u64 = 42;
/// What is in every listing of comments and nobody may be told of.
const DELETED: u64 = 1;
const PENDING: u64 = 2;

pub struct Bitbucket;

pub async fn serve(clock: Clock) -> Fake {
    let fake = Fake::serve(clock, Arc::new(Bitbucket)).await;
    for (id, login, bot) in [(OWN, "deployer", false), (OWN_TOKEN, "isoform", true)] {
        let login = login.to_owned();
        let own = Account { id, login, bot };
        fake.state().accounts.insert(id, own);
    }
    fake
}

/// The id of an account, as Bitbucket spells such.
pub fn uuid(id: u64) -> String {
    format!("{{{id:08x}-0000-4000-8000-00000000abcd}}")
}

/// What is sent of the API token.
pub fn basic() -> String {
    STANDARD.encode(API_TOKEN)
}

fn no(status: u16, message: &str) -> Reply {
    let body = json!({ "type": "error", "error": { "message": message } });
    Reply::json(status, &body)
}

impl Api for Bitbucket {
    fn base(&self) -> &str {
        "/2.0"
    }

    fn answer(&self, state: &mut State, asked: &Asked) -> Reply {
        let sent = asked.header("authorization");
        let me = if sent == format!("Bearer {ACCESS_TOKEN}") {
            OWN_TOKEN
        } else if sent == format!("Basic {}", basic()) {
            OWN
        } else {
            return no(401, "Token is invalid or not supported for this endpoint.");
        };
        let path: Vec<&str> = asked.path.iter().map(String::as_str).collect();
        let rest = match path.as_slice() {
            ["user"] if me == OWN_TOKEN => {
                return no(403, "This API is not accessible by this kind of token");
            }
            ["user"] => return Reply::json(200, &user(state, Some(me))),
            ["workspaces", OWNER, "permissions", "repositories", NAME] => {
                return permissions(state, asked);
            }
            ["repositories", OWNER, NAME, rest @ ..] => rest,
            _ => return no(404, "Repository not found"),
        };
        match (asked.method.as_str(), rest) {
            ("GET", ["pullrequests"]) => pulls(state, asked),
            (method, ["pullrequests", number, rest @ ..]) => {
                let Some(pull) = number.parse().ok().and_then(|n: u64| state.pulls.get(&n)) else {
                    return no(404, "There is no pull request with this id");
                };
                let number = pull.number;
                match (method, rest) {
                    ("GET", []) => Reply::json(200, &pull_json(state, pull)),
                    ("GET", ["commits"]) => {
                        let all = [pull.head.clone(), "e".repeat(40)];
                        listed(
                            &all.map(|hash| json!({ "type": "commit", "hash": hash })),
                            asked,
                            100,
                        )
                    }
                    ("GET", ["comments"]) => comments(state, asked, number),
                    ("POST", ["comments"]) => write(state, asked, number, me, None),
                    (method, ["comments", id]) => {
                        let known = id.parse().ok().and_then(|id: u64| state.comments.get(&id));
                        let Some(comment) = known.filter(|c| c.pull == number) else {
                            return no(404, "There is no comment with this id");
                        };
                        match method {
                            "GET" => Reply::json(200, &comment_json(state, comment)),
                            "PUT" if comment.author != Some(me) => {
                                no(403, "You may only change your own comments")
                            }
                            "PUT" => {
                                let id = comment.id;
                                write(state, asked, number, me, Some(id))
                            }
                            _ => no(405, "Method not allowed"),
                        }
                    }
                    _ => odd(state, asked),
                }
            }
            ("GET", ["commit", hash]) => {
                let merged = state.pulls.values().filter_map(|p| p.merged.as_deref());
                let mut whole = merged.filter(|merged| merged.starts_with(hash));
                match whole.next() {
                    Some(whole) => Reply::json(200, &json!({ "type": "commit", "hash": whole })),
                    None => no(404, "Commit not found"),
                }
            }
            ("GET", ["commit", hash, "pullrequests"]) => {
                let of = |p: &&Pull| p.merged.as_deref() == Some(*hash) || p.head == *hash;
                let all = state.pulls.values().filter(of);
                let all: Vec<Value> = all
                    .map(|p| json!({ "type": "pullrequest", "id": p.number, "title": p.title }))
                    .collect();
                if all.is_empty() && !hash.starts_with("feed") {
                    return no(404, "Commit not found");
                }
                listed(&all, asked, 50)
            }
            ("POST", ["commit", hash, "statuses", "build"]) => status(state, asked, hash),
            _ => odd(state, asked),
        }
    }
}

fn odd(state: &mut State, asked: &Asked) -> Reply {
    let line = format!("{} {} is no call of Bitbucket", asked.method, asked.raw);
    state.violations.push(line);
    no(404, "Resource not found")
}

/// A page; which one is next stands in it.
fn listed(all: &[Value], asked: &Asked, largest: usize) -> Reply {
    let number = |name: &str| asked.query.get(name).and_then(|v| v.parse::<usize>().ok());
    let size = number("pagelen").unwrap_or(10);
    if size > largest {
        return no(400, "Invalid pagelen");
    }
    let at = number("page").unwrap_or(1);
    let some: Vec<&Value> = all.iter().skip((at - 1) * size).take(size).collect();
    let mut page = json!({ "pagelen": size, "page": at, "values": some });
    if at * size < all.len() {
        let rest = asked.query.iter().filter(|(name, _)| *name != "page");
        let rest: String = rest
            .map(|(name, value)| format!("{name}={value}&"))
            .collect();
        let (host, raw) = (asked.header("host"), &asked.raw);
        page["next"] = json!(format!("http://{host}{raw}?{rest}page={}", at + 1));
    }
    Reply::json(200, &page)
}

fn user(state: &State, id: Option<u64>) -> Value {
    let Some(account) = id.and_then(|id| state.accounts.get(&id)) else {
        return Value::Null;
    };
    let kind = if account.bot { "app_user" } else { "user" };
    json!({ "type": kind, "uuid": uuid(account.id), "nickname": account.login, "display_name": account.login })
}

fn pull_json(state: &State, pull: &Pull) -> Value {
    let own =
        json!({ "type": "repository", "uuid": uuid(77), "full_name": format!("{OWNER}/{NAME}") });
    let source = match (pull.headless, pull.fork) {
        (true, _) => Value::Null,
        (false, true) => {
            json!({ "type": "repository", "uuid": uuid(78), "full_name": "stranger/platform" })
        }
        (false, false) => own.clone(),
    };
    let word = match (&pull.merged, pull.open) {
        (Some(_), _) => "MERGED",
        (None, true) => "OPEN",
        (None, false) => "DECLINED",
    };
    // Commits are told by their first twelve digits.
    let short = |hash: &str| json!({ "type": "commit", "hash": hash[..12] });
    json!({
        "type": "pullrequest",
        "id": pull.number,
        "title": pull.title,
        "author": user(state, pull.author),
        "source": { "branch": { "name": pull.branch }, "commit": short(&pull.head), "repository": source },
        "destination": { "branch": { "name": pull.base }, "commit": short(&"b".repeat(40)), "repository": own },
        "state": word,
        "draft": pull.draft,
        "merge_commit": pull.merged.as_deref().map(short),
        "updated_on": iso(pull.updated),
    })
}

fn pulls(state: &State, asked: &Asked) -> Reply {
    let query = |name: &str| asked.query.get(name).map(String::as_str);
    let mut some: Vec<&Pull> = state
        .pulls
        .values()
        .filter(|p| query("state").unwrap_or("OPEN") != "OPEN" || p.open)
        .collect();
    if query("sort") == Some("-updated_on") {
        some.sort_by_key(|p| std::cmp::Reverse((p.updated, p.number)));
    }
    let all: Vec<Value> = some.into_iter().map(|p| pull_json(state, p)).collect();
    listed(&all, asked, 50)
}

/// Comments lie here as people see them: with their marker, if that is one that is hidden.
fn raw(body: &str) -> String {
    let Some((marker, rest)) = body.split_once('\n').filter(|b| b.0.starts_with("<!--")) else {
        return body.to_owned();
    };
    let marker = utf8_percent_encode(marker, NON_ALPHANUMERIC);
    format!("[isoform]: # ({marker})\n\n{rest}")
}

fn comment_json(state: &State, comment: &Comment) -> Value {
    json!({
        "type": "pullrequest_comment",
        "id": comment.id,
        "user": user(state, comment.author),
        "content": { "type": "rendered", "raw": comment.body, "markup": "markdown", "html": "" },
        "created_on": iso(comment.created).replace('Z', ".000111+00:00"),
        "updated_on": iso(comment.updated).replace('Z', ".002007+00:00"),
        "deleted": false,
        "pending": false,
    })
}

fn comments(state: &State, asked: &Asked, pull: u64) -> Reply {
    let odd = |id: u64, deleted: bool| {
        let begun = iso(super::BEGINNING);
        json!({
            "id": id, "user": user(state, state.pulls[&pull].author), "content": { "raw": if deleted { "" } else { "a draft" } },
            "created_on": begun, "updated_on": begun, "deleted": deleted, "pending": !deleted,
        })
    };
    let mut all = vec![odd(DELETED, true), odd(PENDING, false)];
    all.extend(state.said(pull).into_iter().map(|c| comment_json(state, c)));
    listed(&all, asked, 100)
}

fn write(state: &mut State, asked: &Asked, pull: u64, me: u64, known: Option<u64>) -> Reply {
    let body = asked.body.clone().unwrap_or_default();
    let text = body["content"]["raw"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if text.trim().is_empty() {
        return no(400, "content: this field is required");
    }
    if text.chars().count() > 32_768 {
        return no(400, "Comments should have at most 32768 characters.");
    }
    if text.contains("<!-- isoform") {
        state
            .violations
            .push("people would see a comment of HTML".into());
    }
    let now = state.now();
    let id = known.unwrap_or_else(|| state.say(pull, Some(me), &text));
    if let Some(comment) = state.comments.get_mut(&id).filter(|_| known.is_some()) {
        comment.body = text;
        comment.updated = now;
    }
    let status = if known.is_some() { 200 } else { 201 };
    Reply::json(status, &comment_json(state, &state.comments[&id]))
}

/// The text that a raw comment stands for.
pub fn read(raw: &str) -> String {
    let found = raw
        .strip_prefix("[isoform]: # (")
        .and_then(|rest| rest.split_once(")\n\n"));
    match found {
        Some((marker, rest)) => {
            let marker = percent_decode_str(marker).decode_utf8_lossy();
            format!("{marker}\n{rest}")
        }
        None => raw.to_owned(),
    }
}

/// The raw comment that a text with a marker is written as.
pub fn written(text: &str) -> String {
    raw(text)
}

fn status(state: &mut State, asked: &Asked, sha: &str) -> Reply {
    let body = asked.body.clone().unwrap_or_default();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let verdict = match text("state").as_str() {
        "INPROGRESS" => Verdict::Pending,
        "SUCCESSFUL" => Verdict::Success,
        "FAILED" | "STOPPED" => Verdict::Failure,
        _ => return no(400, "state: not a valid choice"),
    };
    if text("key").is_empty() || text("key").chars().count() > 40 {
        return no(400, "key: must have 1 to 40 characters");
    }
    if !text("url").starts_with("https://") {
        return no(400, "url: this field is required");
    }
    let id = state.mint();
    state.reported.push(Reported {
        id,
        head: sha.into(),
        name: text("key"),
        verdict,
        title: text("description"),
        annotations: Vec::new(),
    });
    Reply::json(
        201,
        &json!({ "type": "build", "key": text("key"), "state": text("state") }),
    )
}

fn permissions(state: &State, asked: &Asked) -> Reply {
    let asked_for = asked
        .query
        .get("q")
        .and_then(|q| q.strip_prefix("user.uuid=\"")?.strip_suffix('"'));
    let Some(of) = asked_for.filter(|of| !of.contains('"')) else {
        return no(400, "Invalid query");
    };
    let all: Vec<Value> = state
        .roles
        .iter()
        .filter(|(id, role)| uuid(**id) == of && role.as_str() != "none")
        .map(|(id, role)| json!({ "type": "repository_permission", "permission": role, "user": user(state, Some(*id)) }))
        .collect();
    listed(&all, asked, 100)
}
