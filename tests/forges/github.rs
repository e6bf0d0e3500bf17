//! GitHub: <https://docs.github.com/rest>, and what the service is known to do beyond that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use isoform::clock::Clock;
use isoform::domain::forge::Verdict;
use isoform::domain::model::Timestamp;
use serde_json::{Value, json};

use super::{Api, Asked, Comment, Fake, Pull, Reply, Reported, State, iso, page};

pub const OWNER: &str = "acme";
pub const NAME: &str = "platform";
/// The repository's id.
pub const REPOSITORY: u64 = 77;
/// The App, and its installation.
pub const APP: u64 = 4242;
pub const INSTALLATION: u64 = 991;
/// A personal token that is taken.
pub const TOKEN: &str = "ghp_0123456789abcdefSECRET";

/// What only GitHub knows.
pub struct GitHub {
    base: String,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Tokens of the installation, until when they hold.
    tokens: BTreeMap<String, Timestamp>,
    granted: u64,
    installation: u64,
    /// Check runs: the wire's fields that are read back.
    runs: BTreeMap<u64, Value>,
    /// Deliveries that were asked to be attempted again.
    attempts: Vec<u64>,
}

/// The account that owns [`TOKEN`], and the App's bot.
pub const OWN_USER: u64 = 11;
pub const OWN_BOT: u64 = 12;

/// The App's key, made once for a process.
pub fn key() -> &'static RsaKeyPair {
    static KEY: OnceLock<RsaKeyPair> = OnceLock::new();
    KEY.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
}

/// The key as other tools write it (PKCS#8), or as GitHub gives it (PKCS#1): what stands inside of the former.
pub fn pem(pkcs1: bool) -> String {
    let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(key()).unwrap();
    let der = der.as_ref();
    let (label, der) = match pkcs1 {
        // Version, algorithm and the head of the octet string are 26 bytes for a key of this size.
        true => ("RSA PRIVATE KEY", &der[26..]),
        false => ("PRIVATE KEY", der),
    };
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .map(|at| &text[at..text.len().min(at + 64)])
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

/// GitHub with its repository, below a path as GitHub Enterprise Server has one, or none.
pub async fn serve(clock: Clock, base: &str) -> (Fake, Arc<GitHub>) {
    let github = Arc::new(GitHub {
        base: base.to_owned(),
        inner: Mutex::new(Inner {
            installation: INSTALLATION,
            ..Inner::default()
        }),
    });
    let fake = Fake::serve(clock, github.clone()).await;
    {
        let mut state = fake.state();
        for (id, login, bot) in [
            (OWN_USER, "deployer", false),
            (OWN_BOT, "isoform[bot]", true),
        ] {
            let login = login.to_owned();
            state.accounts.insert(id, super::Account { id, login, bot });
        }
        state.roles.insert(OWN_USER, "write".into());
    }
    (fake, github)
}

impl GitHub {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes every token of the installation away.
    pub fn revoke(&self) {
        self.inner().tokens.clear();
    }

    /// Installs the App anew: it has another number then.
    pub fn reinstall(&self) {
        let mut inner = self.inner();
        inner.installation += 1;
        inner.tokens.clear();
    }

    /// The tokens that were given out.
    pub fn granted(&self) -> u64 {
        self.inner().granted
    }

    /// Every token that holds.
    pub fn tokens(&self) -> Vec<String> {
        self.inner().tokens.keys().cloned().collect()
    }

    /// Deliveries that were attempted again.
    pub fn attempts(&self) -> Vec<u64> {
        self.inner().attempts.clone()
    }

    /// The first comment under a pull request, as it is told.
    pub fn comment_of(&self, state: &State, number: u64) -> Value {
        self.comment_json(state, state.said(number)[0])
    }

    /// How many check runs there are, also those that nobody sees any more.
    pub fn runs(&self) -> usize {
        self.inner().runs.len()
    }
}

fn no(status: u16, message: &str) -> Reply {
    let body = json!({ "message": message, "documentation_url": "https://docs.github.com/rest", "status": status.to_string() });
    Reply::json(status, &body)
}

fn invalid(resource: &str, field: &str, code: &str, message: &str) -> Reply {
    let error = json!({ "resource": resource, "field": field, "code": code, "message": message });
    Reply::json(
        422,
        &json!({ "message": "Validation Failed", "errors": [error] }),
    )
}

/// By which right a request came.
#[derive(Clone, Copy, PartialEq)]
enum Right {
    /// As the App itself.
    Signed,
    /// With a token of the installation.
    Installed,
    /// With a personal token.
    Personal,
}

impl Api for GitHub {
    fn base(&self) -> &str {
        &self.base
    }

    fn answer(&self, state: &mut State, asked: &Asked) -> Reply {
        let mut asked = asked.clone();
        // Links of listings name the repository by its id.
        if asked.path.first().map(String::as_str) == Some("repositories")
            && asked.path.get(1) == Some(&REPOSITORY.to_string())
        {
            let rest = asked.path.split_off(2);
            asked.path = vec!["repos".into(), OWNER.into(), NAME.into()];
            asked.path.extend(rest);
        }
        let judge = match self.base.as_str() {
            "" => super::openapi::github(),
            _ => super::openapi::server(),
        };
        if let Some(judge) = judge {
            state.violations.extend(judge.judge(&asked).err());
        }
        for (name, value) in [
            ("accept", "application/vnd.github+json"),
            ("x-github-api-version", "2022-11-28"),
        ] {
            if asked.header(name) != value {
                state.violations.push(format!(
                    "{} {}: no {name}: {value}",
                    asked.method, asked.raw
                ));
            }
        }
        if asked.header("user-agent").is_empty() {
            return no(
                403,
                "Request forbidden by administrative rules. Please make sure your request has a User-Agent header.",
            );
        }
        let reply = match self.right(state, &asked) {
            Err(reply) => reply,
            Ok(right) => self.act(state, &asked, right),
        };
        let reply = reply
            .with("x-ratelimit-limit", 5000)
            .with("x-ratelimit-remaining", 4999)
            .with("x-ratelimit-reset", state.now().0 / 1000 + 3600);
        if asked.method != "GET" || reply.status != 200 {
            return reply;
        }
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &reply.body);
        let tag = format!("W/\"{}\"", URL_SAFE_NO_PAD.encode(digest.as_ref()));
        if asked.header("if-none-match") == tag {
            return Reply {
                status: 304,
                headers: vec![("etag".into(), tag)],
                body: Vec::new(),
            };
        }
        reply.with("etag", tag)
    }
}

impl GitHub {
    fn right(&self, state: &State, asked: &Asked) -> Result<Right, Reply> {
        let bad = || no(401, "Bad credentials");
        let Some(token) = asked.header("authorization").strip_prefix("Bearer ") else {
            return Err(no(401, "Requires authentication"));
        };
        let app_only = matches!(asked.path.first().map(String::as_str), Some("app"))
            || asked.path.last().map(String::as_str) == Some("installation");
        if token.split('.').count() == 3 {
            if !app_only {
                return Err(no(401, "A JSON web token could not be decoded"));
            }
            return verify(token, state.now())
                .map(|()| Right::Signed)
                .map_err(|why| no(401, why));
        }
        if app_only {
            return Err(no(401, "A JSON web token could not be decoded"));
        }
        if token == TOKEN {
            return Ok(Right::Personal);
        }
        let holds = self
            .inner()
            .tokens
            .get(token)
            .is_some_and(|until| *until > state.now());
        if holds {
            Ok(Right::Installed)
        } else {
            Err(bad())
        }
    }

    fn act(&self, state: &mut State, asked: &Asked, right: Right) -> Reply {
        let path: Vec<&str> = asked.path.iter().map(String::as_str).collect();
        if path.len() >= 3 && path[0] == "repos" && (path[1], path[2]) != (OWNER, NAME) {
            return no(404, "Not Found");
        }
        let rest = path.get(3..).unwrap_or_default();
        match (
            asked.method.as_str(),
            path.first().copied().unwrap_or_default(),
            rest,
        ) {
            ("GET", "app", []) if path.len() == 1 => Reply::json(
                200,
                &json!({ "id": APP, "slug": "isoform", "client_id": "Iv1.abc", "name": "isoform" }),
            ),
            ("GET", "user", []) if right == Right::Personal => {
                Reply::json(200, &user(state, Some(OWN_USER)))
            }
            ("GET", "user", _) => no(403, "Resource not accessible by integration"),
            ("GET", "repos", ["installation"]) => {
                let id = self.inner().installation;
                Reply::json(200, &json!({ "id": id, "app_id": APP }))
            }
            ("POST", "app", _) if path.get(1) == Some(&"installations") => {
                self.grant(state, asked, path[2])
            }
            ("GET", "app", _) => deliveries(state, asked, self.base.as_str()),
            ("POST", "app", _) => self.attempt(state, path.get(3).copied()),
            ("GET", "repos", []) => Reply::json(
                200,
                &json!({ "id": REPOSITORY, "full_name": format!("{OWNER}/{NAME}") }),
            ),
            ("GET", "repos", ["pulls"]) => self.pulls(state, asked),
            ("GET", "repos", ["pulls", number]) => {
                match number.parse().ok().and_then(|n: u64| state.pulls.get(&n)) {
                    Some(pull) => Reply::json(200, &pull_json(state, pull)),
                    None => no(404, "Not Found"),
                }
            }
            ("GET", "repos", ["commits", sha, "pulls"]) => self.pulls_of(state, asked, sha),
            ("GET", "repos", ["issues", number, "comments"]) => self.comments(state, asked, number),
            ("POST", "repos", ["issues", number, "comments"]) => {
                self.comment(state, asked, number, right)
            }
            ("GET", "repos", ["issues", "comments", id]) => {
                match id.parse().ok().and_then(|n: u64| state.comments.get(&n)) {
                    Some(comment) => Reply::json(200, &self.comment_json(state, comment)),
                    None => no(404, "Not Found"),
                }
            }
            ("PATCH", "repos", ["issues", "comments", id]) => self.edit(state, asked, id),
            ("GET", "repos", ["collaborators", login, "permission"]) => permission(state, login),
            ("GET", "repos", ["commits", sha, "check-runs"]) => self.list_runs(asked, sha),
            (_, "repos", ["check-runs", ..]) if right != Right::Installed => {
                no(403, "You must authenticate via a GitHub App.")
            }
            ("POST", "repos", ["check-runs"]) => self.run(state, asked, None),
            ("PATCH", "repos", ["check-runs", id]) => match id
                .parse()
                .ok()
                .filter(|id| self.inner().runs.contains_key(id))
            {
                Some(id) => self.run(state, asked, Some(id)),
                None => no(404, "Not Found"),
            },
            // The App asks for no right to write statuses.
            ("POST", "repos", ["statuses", _]) if right == Right::Installed => {
                no(403, "Resource not accessible by integration")
            }
            ("POST", "repos", ["statuses", sha]) => status(state, asked, sha),
            _ => no(404, "Not Found"),
        }
    }

    fn grant(&self, state: &State, asked: &Asked, installation: &str) -> Reply {
        let mut inner = self.inner();
        if installation != inner.installation.to_string() {
            return no(404, "Not Found");
        }
        let body = asked.body.clone().unwrap_or_default();
        if body["repositories"] != json!([NAME]) {
            return no(
                422,
                "There is at least one repository that does not exist or is not accessible to the parent installation.",
            );
        }
        let may = json!({ "checks": "write", "metadata": "read", "pull_requests": "write" });
        if body["permissions"] != may {
            return no(
                422,
                "The permissions requested are not granted to this installation.",
            );
        }
        inner.granted += 1;
        let token = format!("ghs_{}SECRET", inner.granted);
        let until = state.now().plus(std::time::Duration::from_secs(3600));
        inner.tokens.insert(token.clone(), until);
        Reply::json(
            201,
            &json!({ "token": token, "expires_at": iso(until), "permissions": may }),
        )
    }

    fn listed(&self, all: &[Value], asked: &Asked, rest: &str, host: &str) -> Reply {
        let link = format!(
            "http://{host}{}/repositories/{REPOSITORY}/{rest}",
            self.base
        );
        let (some, next) = page(all, asked, &link);
        let reply = Reply::json(200, &Value::Array(some));
        match next {
            Some(next) => reply.with("link", next),
            None => reply,
        }
    }

    fn pulls(&self, state: &State, asked: &Asked) -> Reply {
        let query = |name: &str| asked.query.get(name).map(String::as_str);
        let mut some: Vec<&Pull> = state
            .pulls
            .values()
            .filter(|p| match query("state").unwrap_or("open") {
                "open" => p.open,
                "closed" => !p.open,
                _ => true,
            })
            .filter(|p| query("base").is_none_or(|b| p.base == b))
            .collect();
        if query("sort") == Some("updated") {
            some.sort_by_key(|p| (p.updated, p.number));
        }
        if query("direction") == Some("desc") {
            some.reverse();
        }
        let all: Vec<Value> = some.into_iter().map(|p| pull_json(state, p)).collect();
        self.listed(&all, asked, "pulls", asked.header("host"))
    }

    fn pulls_of(&self, state: &State, asked: &Asked, sha: &str) -> Reply {
        let all: Vec<Value> = state
            .pulls
            .values()
            .filter(|p| p.merged.as_deref() == Some(sha) || p.head == sha)
            .map(|p| pull_json(state, p))
            .collect();
        if all.is_empty() && !sha.starts_with("feed") {
            return no(422, &format!("No commit found for SHA: {sha}"));
        }
        self.listed(
            &all,
            asked,
            &format!("commits/{sha}/pulls"),
            asked.header("host"),
        )
    }

    fn comments(&self, state: &State, asked: &Asked, number: &str) -> Reply {
        let Some(pull) = number.parse().ok().filter(|n| state.pulls.contains_key(n)) else {
            return no(404, "Not Found");
        };
        let all: Vec<Value> = state
            .said(pull)
            .into_iter()
            .map(|c| self.comment_json(state, c))
            .collect();
        let rest = format!("issues/{pull}/comments");
        self.listed(&all, asked, &rest, asked.header("host"))
    }

    fn comment_json(&self, state: &State, comment: &Comment) -> Value {
        let app =
            (comment.author == Some(OWN_BOT)).then(|| json!({ "id": APP, "slug": "isoform" }));
        json!({
            "id": comment.id,
            "user": user(state, comment.author),
            "body": comment.body,
            "created_at": iso(comment.created),
            "updated_at": iso(comment.updated),
            "issue_url": format!("https://api.github.example/repos/{OWNER}/{NAME}/issues/{}", comment.pull),
            "performed_via_github_app": app,
        })
    }

    fn comment(&self, state: &mut State, asked: &Asked, number: &str, right: Right) -> Reply {
        let Some(pull) = number.parse().ok().filter(|n| state.pulls.contains_key(n)) else {
            return no(404, "Not Found");
        };
        let body = match text_of(asked) {
            Ok(body) => body,
            Err(reply) => return reply,
        };
        let author = if right == Right::Personal {
            OWN_USER
        } else {
            OWN_BOT
        };
        let id = state.say(pull, Some(author), &body);
        Reply::json(201, &self.comment_json(state, &state.comments[&id]))
    }

    fn edit(&self, state: &mut State, asked: &Asked, id: &str) -> Reply {
        let body = match text_of(asked) {
            Ok(body) => body,
            Err(reply) => return reply,
        };
        let now = state.now();
        // Whoever may write may edit what others wrote: GitHub holds nobody back from it.
        let Some(comment) = id
            .parse()
            .ok()
            .and_then(|n: u64| state.comments.get_mut(&n))
        else {
            return no(404, "Not Found");
        };
        comment.body = body;
        comment.updated = now;
        let comment = comment.clone();
        Reply::json(200, &self.comment_json(state, &comment))
    }

    fn list_runs(&self, asked: &Asked, sha: &str) -> Reply {
        let query = |name: &str| asked.query.get(name).map(String::as_str);
        let inner = self.inner();
        let mut latest: BTreeMap<String, Value> = BTreeMap::new();
        let mut all = Vec::new();
        for run in inner.runs.values() {
            let name = run["name"].as_str().unwrap_or_default();
            if run["head_sha"] != sha || query("check_name").is_some_and(|n| n != name) {
                continue;
            }
            if query("app_id").is_some_and(|id| id != APP.to_string()) {
                continue;
            }
            all.push(run.clone());
            latest.insert(name.to_owned(), run.clone());
        }
        if query("filter").unwrap_or("latest") == "latest" {
            all = latest.into_values().collect();
        }
        Reply::json(200, &json!({ "total_count": all.len(), "check_runs": all }))
    }

    fn run(&self, state: &mut State, asked: &Asked, known: Option<u64>) -> Reply {
        let body = asked.body.clone().unwrap_or_default();
        let output = &body["output"];
        let annotations = output["annotations"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if annotations.len() > 50 {
            return invalid(
                "CheckRun",
                "annotations",
                "invalid",
                "No more than 50 annotations are allowed",
            );
        }
        for (field, limit) in [("summary", 65_535), ("text", 65_535), ("title", 255)] {
            if output[field].as_str().unwrap_or_default().len() > limit.max(255 * 4) {
                return invalid("CheckRun", field, "too_long", "is too long");
            }
        }
        for annotation in &annotations {
            let long = annotation["message"].as_str().unwrap_or_default().len() > 64 << 10;
            let wrong = annotation["path"].as_str().unwrap_or("/").starts_with('/');
            if long || wrong || annotation["start_line"].as_u64().unwrap_or(0) == 0 {
                return invalid("CheckRun", "annotations", "invalid", "is wrong");
            }
        }
        let verdict = match (body["status"].as_str(), body["conclusion"].as_str()) {
            (Some("completed"), None) => {
                return invalid("CheckRun", "conclusion", "missing_field", "is missing");
            }
            (_, Some("success")) => Verdict::Success,
            (_, Some("neutral")) => Verdict::Neutral,
            (_, Some("failure")) => Verdict::Failure,
            _ => Verdict::Pending,
        };
        let id = known.unwrap_or_else(|| state.mint());
        let mut inner = self.inner();
        let was = inner.runs.get(&id).cloned().unwrap_or_default();
        // A run that has ended stays as it ended: the call succeeds, and nobody sees it.
        let ended = was["status"] == "completed";
        let pick = |field: &str| match &body[field] {
            Value::Null => was[field].clone(),
            _ if ended => was[field].clone(),
            value => value.clone(),
        };
        let head = pick("head_sha");
        let name = pick("name");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let before = state.reported.iter().position(|r| r.id == id);
        let before = before.map(|at| state.reported.remove(at));
        let verdict = match &before {
            Some(before) if ended => before.verdict,
            _ => verdict,
        };
        let mut kept = before.map_or_else(Vec::new, |b| b.annotations);
        // Annotations are added to those that are there.
        kept.extend(annotations);
        let run = json!({
            "id": id, "name": name, "head_sha": head, "status": pick("status"), "conclusion": pick("conclusion"),
            "output": { "title": output["title"], "summary": output["summary"], "annotations_count": kept.len() },
        });
        inner.runs.insert(id, run.clone());
        state.reported.push(Reported {
            id,
            head: text(&head),
            name: text(&name),
            verdict,
            title: text(&output["title"]),
            annotations: kept,
        });
        state.reported.sort_by_key(|r| r.id);
        Reply::json(if known.is_some() { 200 } else { 201 }, &run)
    }

    fn attempt(&self, state: &State, id: Option<&str>) -> Reply {
        let found = id.and_then(|id| id.parse().ok());
        match found.filter(|id| state.deliveries.iter().any(|d| d.id == *id)) {
            Some(id) => {
                self.inner().attempts.push(id);
                Reply::json(202, &json!({}))
            }
            None => no(404, "Not Found"),
        }
    }
}

fn verify(token: &str, now: Timestamp) -> Result<(), &'static str> {
    let undecoded = "A JSON web token could not be decoded";
    let (signed, signature) = token.rsplit_once('.').ok_or(undecoded)?;
    let (header, claims) = signed.split_once('.').ok_or(undecoded)?;
    let read = |part: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
        serde_json::from_slice::<Value>(&bytes).ok()
    };
    let (header, claims) = (
        read(header).ok_or(undecoded)?,
        read(claims).ok_or(undecoded)?,
    );
    if header["alg"] != "RS256" {
        return Err(undecoded);
    }
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| undecoded)?;
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key().public_key())
        .verify(signed.as_bytes(), &signature)
        .map_err(|_| undecoded)?;
    let seconds = now.0 / 1000;
    let (Some(issued), Some(end)) = (claims["iat"].as_i64(), claims["exp"].as_i64()) else {
        return Err("Missing 'issued at' or 'expiration time' claim");
    };
    if issued > seconds {
        return Err(
            "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
        );
    }
    if end <= seconds || end > seconds + 600 {
        return Err("'Expiration time' claim ('exp') is too far in the future");
    }
    let app = APP.to_string();
    if ![Some(app.as_str()), Some("Iv1.abc")].contains(&claims["iss"].as_str()) {
        return Err("Integration not found");
    }
    Ok(())
}

fn text_of(asked: &Asked) -> Result<String, Reply> {
    let body = asked.body.clone().unwrap_or_default();
    let text = body["body"].as_str().unwrap_or_default().to_owned();
    if text.trim().is_empty() {
        return Err(invalid(
            "IssueComment",
            "body",
            "missing_field",
            "body cannot be blank",
        ));
    }
    if text.chars().count() > 65_536 {
        return Err(invalid(
            "IssueComment",
            "body",
            "unprocessable",
            "body is too long (maximum is 65536 characters)",
        ));
    }
    Ok(text)
}

fn user(state: &State, id: Option<u64>) -> Value {
    let Some(account) = id.and_then(|id| state.accounts.get(&id)) else {
        return Value::Null;
    };
    let kind = if account.bot { "Bot" } else { "User" };
    json!({ "id": account.id, "login": account.login, "type": kind })
}

/// A pull request, as it is told.
pub fn pull_of(state: &State, number: u64) -> Value {
    pull_json(state, &state.pulls[&number])
}

fn pull_json(state: &State, pull: &Pull) -> Value {
    let own = json!({ "id": REPOSITORY, "full_name": format!("{OWNER}/{NAME}") });
    let head = match (pull.headless, pull.fork) {
        (true, _) => Value::Null,
        (false, true) => json!({ "id": 78, "full_name": "stranger/platform" }),
        (false, false) => own.clone(),
    };
    let merged_at = pull.merged.as_ref().map(|_| iso(pull.updated));
    json!({
        "id": 1_000_000 + pull.number,
        "number": pull.number,
        "title": pull.title,
        "state": if pull.open { "open" } else { "closed" },
        "user": user(state, pull.author),
        "draft": pull.draft,
        "labels": pull.labels.iter().map(|l| json!({ "name": l })).collect::<Vec<_>>(),
        "head": { "ref": pull.branch, "sha": pull.head, "repo": head },
        "base": { "ref": pull.base, "sha": "b".repeat(40), "repo": own },
        "updated_at": iso(pull.updated),
        "merged_at": merged_at,
        // Before the merge this is a trial merge.
        "merge_commit_sha": pull.merged.clone().unwrap_or_else(|| "7e57".repeat(10)),
    })
}

fn permission(state: &State, login: &str) -> Reply {
    let Some(account) = state.by_login(login) else {
        return no(404, "Not Found");
    };
    let role = state.roles.get(&account.id).map_or("none", String::as_str);
    // Roles of an organisation are written `name:what they are built on`.
    let (role, base) = role.split_once(':').unwrap_or((role, role));
    let base = match base {
        "maintain" => "write",
        "triage" => "read",
        base => base,
    };
    let user = user(state, Some(account.id));
    Reply::json(
        200,
        &json!({ "permission": base, "role_name": role, "user": user }),
    )
}

fn status(state: &mut State, asked: &Asked, sha: &str) -> Reply {
    let body = asked.body.clone().unwrap_or_default();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    if text("description").chars().count() > 140 {
        return invalid(
            "Status",
            "description",
            "custom",
            "description is too long (maximum is 140 characters)",
        );
    }
    let verdict = match text("state").as_str() {
        "success" => Verdict::Success,
        "pending" => Verdict::Pending,
        "failure" | "error" => Verdict::Failure,
        _ => return invalid("Status", "state", "invalid", "is wrong"),
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
    Reply::json(201, &json!({ "id": id }))
}

fn deliveries(state: &State, asked: &Asked, base: &str) -> Reply {
    let mut all: Vec<&super::Delivery> = state.deliveries.iter().collect();
    all.sort_by_key(|d| std::cmp::Reverse(d.id));
    let all: Vec<Value> = all
        .into_iter()
        .map(|d| {
            json!({
                "id": d.id, "guid": d.guid, "delivered_at": iso(d.at), "status_code": d.status, "repository_id": d.repository,
                "status": if d.status == 200 { "OK" } else { "failed" }, "event": "push", "redelivery": false,
            })
        })
        .collect();
    // The real one turns pages by a cursor.
    let mut asked = asked.clone();
    if let Some(cursor) = asked.query.remove("cursor") {
        asked.query.insert("page".into(), cursor);
    }
    let link = format!("http://{}{base}/app/hook/deliveries", asked.header("host"));
    let (some, next) = page(&all, &asked, &link);
    let reply = Reply::json(200, &Value::Array(some));
    match next {
        Some(next) => reply.with("link", next.replace("&page=", "&cursor=")),
        None => reply,
    }
}
