//! The API: HTTP with JSON under `/api/v1`, today on a Unix socket that only the daemon's own user and root can use.
//!
//! It never changes a target: it appends what an operator says and enqueues a key.

mod journal;
pub mod webhooks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::domain::bundle;
use crate::domain::model::{Actor, parse_duration};
use crate::reconcile::{ApproveWhat, Error, Line, OperatorError, Selector};

/// Largest body: the files of a clone, packed.
const BODY: usize = 64 << 20;

/// What made somebody look.
#[derive(Clone, Debug)]
pub struct Hint {
    /// The trigger: `push`, `poll`, `file`, `start`, `operator`.
    pub trigger: String,
    /// Who.
    pub actor: Actor,
}

/// What the handlers need.
#[derive(Clone)]
pub struct Socket {
    /// The line.
    pub line: Arc<Line>,
}

/// The user on the other side of the socket.
#[derive(Clone, Debug)]
struct Peer {
    uid: Option<u32>,
}

impl Connected<axum::serve::IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: axum::serve::IncomingStream<'_, UnixListener>) -> Self {
        Self {
            uid: stream.io().peer_cred().ok().map(|c| c.uid()),
        }
    }
}

impl Peer {
    fn actor(&self, via: &str) -> Actor {
        let uid = self
            .uid
            .map_or_else(|| "unknown".to_owned(), |u| u.to_string());
        let name = login_name(&uid).unwrap_or_else(|| format!("uid {uid}"));
        Actor {
            issuer: "local".into(),
            subject: name.clone(),
            via: via.into(),
            display: name,
        }
    }
}

fn login_name(uid: &str) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

/// An error as the API tells it.
struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(
            StatusCode::INTERNAL_SERVER_ERROR,
            crate::telemetry::redact(&error.to_string()),
        )
    }
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Self {
        let status = match error {
            OperatorError::NoSuch(_) => StatusCode::NOT_FOUND,
            OperatorError::NotNow(_) => StatusCode::CONFLICT,
            OperatorError::Line(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, crate::telemetry::redact(&error.to_string()))
    }
}

type Answer = Result<Json<Value>, Failure>;

fn answer<T: Serialize>(value: T) -> Answer {
    serde_json::to_value(value)
        .map(Json)
        .map_err(|e| Failure(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

/// Serves the API until it is stopped.
pub async fn serve(listener: UnixListener, socket: Socket, stop: CancellationToken) {
    let router = router(socket);
    let service = router.into_make_service_with_connect_info::<Peer>();
    if let Err(error) = axum::serve(listener, service)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
    {
        tracing::error!("the socket failed: {error}");
    }
}

fn router(socket: Socket) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/api/v1/estate", get(estate))
        .route("/api/v1/target", get(target))
        .route("/api/v1/events", get(events))
        .route("/api/v1/log", get(log))
        .route("/api/v1/changed", get(changed))
        .route("/api/v1/evidence", get(evidence))
        .route("/api/v1/prove", get(prove))
        .route("/api/v1/hint", post(hint))
        .route("/api/v1/diff", post(diff))
        .route("/api/v1/sources", get(sources))
        .route("/api/v1/plan", post(plan))
        .route("/api/v1/approve", post(approve))
        .route("/api/v1/say", post(say))
        .route("/api/v1/adopt", post(adopt))
        .layer(axum::middleware::from_fn(check_peer))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(socket)
}

/// Lets in the daemon's own user and root.
async fn check_peer(
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    let own = std::fs::metadata("/proc/self")
        .map(|m| std::os::unix::fs::MetadataExt::uid(&m))
        .ok();
    match peer.uid {
        Some(uid) if uid == 0 || Some(uid) == own => next.run(request).await,
        _ => Failure(
            StatusCode::FORBIDDEN,
            "only the daemon's own user and root may use this socket".into(),
        )
        .into_response(),
    }
}

async fn estate(State(socket): State<Socket>) -> Answer {
    answer(socket.line.estate().await?)
}

#[derive(Deserialize)]
struct TargetQuery {
    address: String,
}

async fn target(State(socket): State<Socket>, Query(query): Query<TargetQuery>) -> Answer {
    let mut reports = Vec::new();
    for (uid, _) in socket.line.select(&Selector::Targets(query.address))? {
        reports.extend(socket.line.target(&uid, true).await?);
    }
    answer(json!({ "v": 1, "targets": reports }))
}

async fn events(State(socket): State<Socket>, Query(query): Query<TargetQuery>) -> Answer {
    let mut all = BTreeMap::new();
    for (uid, address) in socket.line.select(&Selector::Targets(query.address))? {
        all.insert(address.to_string(), socket.line.events(&uid).await?);
    }
    answer(json!({ "v": 1, "events": all }))
}

#[derive(Deserialize)]
struct FromQuery {
    from: u64,
}

async fn log(State(socket): State<Socket>, Query(query): Query<FromQuery>) -> Answer {
    let entries = socket
        .line
        .store
        .entries(query.from.max(1), 1000)
        .await
        .map_err(Error::from)?;
    let checkpoints = socket.line.store.checkpoints().await.map_err(Error::from)?;
    answer(json!({ "v": 1, "entries": entries, "checkpoints": checkpoints }))
}

/// Waits until something is written after an entry, for at most half a second.
async fn changed(State(socket): State<Socket>, Query(query): Query<FromQuery>) -> Answer {
    let mut head = socket.line.store.watch();
    tokio::select! {
        _ = head.wait_for(|seq| *seq > query.from) => {}
        () = socket.line.clock.sleep(Duration::from_millis(100)) => {}
        () = socket.line.stop.cancelled() => {}
    }
    answer(socket.line.estate().await?)
}

#[derive(Deserialize)]
struct Question {
    q: String,
}

async fn evidence(State(socket): State<Socket>, Query(query): Query<Question>) -> Answer {
    socket.line.checkpoint(1).await?;
    answer(socket.line.evidence(&query.q).await?)
}

async fn prove(State(socket): State<Socket>, Query(query): Query<Question>) -> Answer {
    answer(socket.line.prove(&query.q).await?)
}

#[derive(Deserialize)]
struct HintBody {
    trigger: String,
    pusher: Option<String>,
}

async fn hint(
    State(socket): State<Socket>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(body): Json<HintBody>,
) -> Answer {
    let trigger = if body.trigger == "push" {
        "push"
    } else {
        "operator"
    };
    let mut actor = peer.actor(if trigger == "push" { "push" } else { "socket" });
    if let Some(pusher) = body.pusher.filter(|p| !p.is_empty() && p.len() < 200) {
        // The hook names the pusher; who vouches for it is Git's own transport.
        actor.issuer = "git".into();
        actor.display = pusher.chars().filter(|c| !c.is_control()).collect();
    }
    // The answer comes after the look, so that whoever hints knows what it came to.
    let line = socket.line.clone();
    let (snapshot, new) = whole(async move {
        let looked = line.look(trigger, &actor).await?;
        if trigger == "operator" {
            line.sweep().await?;
            line.enqueue_all();
        }
        Ok::<_, Error>(looked)
    })
    .await??;
    answer(json!({ "v": 1, "snapshot": snapshot.as_ref().map(|s| s.id.0), "new": new }))
}

/// Tells whether two URLs mean one repository. Paths are compared as the system resolves them.
fn is_same_repository(one: &str, other: &str) -> bool {
    let canonical = |url: &str| {
        std::fs::canonicalize(url.trim_start_matches("file://"))
            .map_or_else(|_| url.to_owned(), |p| p.display().to_string())
    };
    canonical(one) == canonical(other)
}

/// Tells which branches are followed, and which sources are the repository that is asked about.
async fn sources(State(socket): State<Socket>, Query(query): Query<DiffQuery>) -> Answer {
    let all = &socket.line.settings.sources;
    let mine = |name: &str, url: &str| match (&query.source, &query.origin) {
        (Some(source), _) => source == name,
        (None, Some(origin)) => all.len() == 1 || is_same_repository(url, origin),
        (None, None) => all.len() == 1,
    };
    let sources: Vec<Value> = all
        .iter()
        .map(|(name, source)| {
            let mine = mine(name.as_str(), &source.remote.url);
            json!({ "name": name, "branch": source.remote.branch, "mine": mine })
        })
        .collect();
    answer(json!({ "v": 1, "sources": sources }))
}

#[derive(Deserialize)]
struct DiffQuery {
    source: Option<String>,
    origin: Option<String>,
}

async fn diff(State(socket): State<Socket>, Query(query): Query<DiffQuery>, body: Bytes) -> Answer {
    let files = bundle::unpack(
        &body,
        &bundle::Limits {
            entries: 100_000,
            bytes: 250 << 20,
            path: 1024,
        },
    )
    .map_err(|e| Failure(StatusCode::BAD_REQUEST, e.to_string()))?;
    let sources = &socket.line.settings.sources;
    let found = match (&query.source, &query.origin) {
        (Some(name), _) => sources.keys().find(|k| k.as_str() == name),
        (None, Some(origin)) => sources
            .iter()
            .find(|(_, s)| is_same_repository(&s.remote.url, origin))
            .map(|(k, _)| k)
            .or_else(|| sources.keys().next().filter(|_| sources.len() == 1)),
        (None, None) => sources.keys().next().filter(|_| sources.len() == 1),
    };
    let Some(source) = found else {
        let names = sources
            .keys()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        return Err(Failure(
            StatusCode::NOT_FOUND,
            format!("which source is this? name one with --source: {names}"),
        ));
    };
    answer(socket.line.diff(source, files).await?)
}

async fn plan(
    State(socket): State<Socket>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(body): Json<Value>,
) -> Answer {
    let glob = body.get("targets").and_then(Value::as_str).unwrap_or("**");
    if glob != "**" {
        socket.line.select(&Selector::Targets(glob.to_owned()))?;
    }
    let (line, glob, actor) = (socket.line.clone(), glob.to_owned(), peer.actor("socket"));
    whole(async move { answer(line.plan(&glob, &actor).await?) }).await?
}

async fn approve(
    State(socket): State<Socket>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(what): Json<ApproveWhat>,
) -> Answer {
    let (line, actor) = (socket.line.clone(), peer.actor("socket"));
    let said = whole(async move {
        let said = line.approve(&what, &actor).await?;
        if matches!(what, ApproveWhat::Source(_)) {
            line.look("operator", &actor).await?;
        }
        Ok::<_, OperatorError>(said)
    })
    .await??;
    answer(json!({ "v": 1, "said": said }))
}

#[derive(Deserialize)]
struct Adopt {
    target: String,
    stack: Option<String>,
    #[serde(default)]
    check: bool,
    #[serde(default)]
    drift: bool,
}

async fn adopt(
    State(socket): State<Socket>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(body): Json<Adopt>,
) -> Answer {
    let (line, actor) = (socket.line.clone(), peer.actor("socket"));
    whole(async move {
        let stack = body.stack.as_deref();
        answer(
            line.adopt_stack(&body.target, stack, body.check, body.drift, &actor)
                .await?,
        )
    })
    .await?
}

#[derive(Deserialize)]
struct Say {
    what: String,
    selector: Selector,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    hold: Option<String>,
    #[serde(default)]
    overwrite: bool,
    #[serde(default)]
    to: Option<String>,
    #[serde(default)]
    skip: Vec<String>,
}

async fn say(
    State(socket): State<Socket>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(body): Json<Say>,
) -> Answer {
    let (line, actor) = (socket.line.clone(), peer.actor("socket"));
    whole(say_whole(line, actor, body)).await?
}

/// Lets a change end even if the caller hangs up: half of one would leave the log ahead of what the daemon knows.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Failure> {
    tokio::spawn(work).await.map_err(|_| {
        Failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            "a fault of isoform".into(),
        )
    })
}

async fn say_whole(line: Arc<Line>, actor: Actor, body: Say) -> Answer {
    let named = || match &body.selector {
        Selector::Targets(text) => Ok(text.clone()),
        _ => Err(Failure(StatusCode::BAD_REQUEST, "name one target".into())),
    };
    let said = match body.what.as_str() {
        "retry" => line.retry(&body.selector, &actor).await?,
        "resume" => line.resume(&body.selector, &actor).await?,
        "suspend" => {
            let hold = body
                .hold
                .as_deref()
                .map(parse_duration)
                .transpose()
                .map_err(|m| Failure(StatusCode::BAD_REQUEST, m))?;
            line.suspend(&body.selector, &body.reason, hold, &actor)
                .await?
        }
        "reject" => line.reject(&named()?, &body.reason, &actor).await?,
        "cancel" => line.cancel(&named()?, &body.reason, &actor).await?,
        "continue" => {
            line.go_on(&named()?, &body.skip, &body.reason, &actor)
                .await?
        }
        "rollback" => {
            line.rollback(&named()?, body.to.as_deref(), &body.reason, &actor)
                .await?
        }
        "drift" => {
            line.resolve_drift(&named()?, body.overwrite, &body.reason, &actor)
                .await?
        }
        other => {
            return Err(Failure(
                StatusCode::BAD_REQUEST,
                format!("`{other}` is not something to say"),
            ));
        }
    };
    answer(json!({ "v": 1, "said": said }))
}
