//! Webhooks: a receiver for each source that has a secret, and none without.
//!
//! What a webhook says is a hint and nothing more: which source, which pull request. It is admitted by the signature over
//! the raw body, written down, answered, and only then is anybody told to look.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use http_body_util::{BodyExt, Limited};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::Hint;
use super::journal::{Heard, Journal};
use crate::clock::Clock;
use crate::domain::forge::{ForgeKind, News, Refusal, admit};
use crate::domain::model::{Actor, SourceName, Timestamp};
use crate::reconcile::Line;
use crate::secret_file;

/// Largest body: GitHub sends none that is larger (<https://docs.github.com/webhooks/webhook-events-and-payloads>).
const BODY: u64 = 25 << 20;
/// What all large bodies together may take, and all others, in pieces of [`PIECE`]. They are apart: whoever announces
/// large ones and does not send them keeps no other waiting.
const ROOM: u64 = 64 << 20;
const LARGE: u64 = 1 << 20;
const PIECE: u64 = 64 << 10;
/// How long a request may take from its first byte to its last.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most connections at one time.
const CONNECTIONS: usize = 1_024;
/// Least bytes of a secret.
const SECRET: usize = 16;
/// How long a secret is known before its file is read again.
const KNOWN: Duration = Duration::from_secs(5);
/// How many ids of deliveries are remembered.
const IDS: usize = 65_536;
/// What waits to be looked at; whoever finds it full finds that a look is due in any case.
pub const TRIGGER: &str = "webhook";

/// What one source hears.
#[derive(Clone, Debug)]
pub struct Hears {
    /// The kind of its forge.
    pub kind: ForgeKind,
    /// Its repository there.
    pub repository: String,
    /// The branch that is followed.
    pub branch: String,
    /// Files with its secrets.
    pub secrets: Vec<PathBuf>,
}

/// Why a receiver cannot be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of a secret.
    #[error("the webhook secret {0} cannot be read: {1}")]
    File(PathBuf, std::io::Error),
    /// A secret that is guessed too easily.
    #[error("the webhook secret {0} has less than {SECRET} bytes")]
    Short(PathBuf),
    /// The journal.
    #[error("opening the journal of webhooks")]
    Journal(#[source] std::io::Error),
}

type Secret = Zeroizing<Vec<u8>>;

fn read_secret(path: &FilePath) -> Result<Secret, Error> {
    let bytes = secret_file::read(path).map_err(|e| Error::File(path.to_owned(), e))?;
    let secret = Zeroizing::new(bytes.trim_ascii().to_vec());
    if secret.len() < SECRET {
        return Err(Error::Short(path.to_owned()));
    }
    Ok(secret)
}

struct Receiver {
    hears: Hears,
    known: Mutex<(Timestamp, Arc<Vec<Secret>>)>,
}

impl Receiver {
    fn new(hears: Hears, now: Timestamp) -> Result<Self, Error> {
        let secrets = hears.secrets.iter().map(|p| read_secret(p));
        let secrets = secrets.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            hears,
            known: Mutex::new((now, Arc::new(secrets))),
        })
    }

    /// Returns the secrets, from their files where they were not read lately: a rotation needs no restart.
    fn secrets(&self, now: Timestamp) -> Arc<Vec<Secret>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(known.0) >= KNOWN {
            let read = self.hears.secrets.iter().map(|p| read_secret(p));
            match read.collect::<Result<Vec<_>, _>>() {
                Ok(secrets) => known.1 = Arc::new(secrets),
                // In the middle of a rotation a file may be missing: what is known goes on.
                Err(error) => tracing::warn!("{error}; the one before is still taken"),
            }
            known.0 = now;
        }
        known.1.clone()
    }
}

/// Ids of deliveries that were taken, the newest of them.
#[derive(Default)]
struct Ids {
    known: HashSet<(String, String)>,
    order: VecDeque<(String, String)>,
}

impl Ids {
    fn add(&mut self, source: &str, id: &str) {
        let key = (source.to_owned(), id.to_owned());
        if self.known.insert(key.clone()) {
            self.order.push_back(key);
            if self.order.len() > IDS
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }

    fn has(&self, source: &str, id: &str) -> bool {
        self.known.contains(&(source.to_owned(), id.to_owned()))
    }
}

/// Whom a hint goes to.
pub trait Ear: Send + Sync + 'static {
    /// A followed branch may have moved.
    fn branch(&self, source: &SourceName);
    /// Something of a pull request is new; without a number, of any.
    fn pull(&self, source: &SourceName, number: Option<u64>);
}

/// The line, and whoever looks for it.
pub struct LineEar {
    /// The line.
    pub line: Arc<Line>,
    /// The looker's inbox.
    pub hints: mpsc::Sender<Hint>,
}

impl Ear for LineEar {
    fn branch(&self, _: &SourceName) {
        // A full inbox means that a look is due in any case.
        let _ = self.hints.try_send(Hint {
            trigger: TRIGGER.into(),
            actor: Actor::daemon(TRIGGER),
        });
    }

    fn pull(&self, source: &SourceName, number: Option<u64>) {
        self.line.hint_pull(source, number);
    }
}

/// Everything that receives.
pub struct Webhooks {
    receivers: BTreeMap<SourceName, Receiver>,
    journal: Journal,
    ids: Mutex<Ids>,
    room: [Semaphore; 2],
    clock: Clock,
    ear: Arc<dyn Ear>,
}

impl Webhooks {
    /// Opens receivers and the journal, and tells what the journal holds: nobody may have looked since.
    pub fn open(
        sources: BTreeMap<SourceName, Hears>,
        journal: &FilePath,
        clock: Clock,
        ear: Arc<dyn Ear>,
    ) -> Result<Arc<Self>, Error> {
        let now = clock.steady();
        let receivers = sources
            .into_iter()
            .map(|(name, hears)| Ok((name, Receiver::new(hears, now)?)))
            .collect::<Result<BTreeMap<_, _>, Error>>()?;
        let (journal, before) = Journal::open(journal).map_err(Error::Journal)?;
        let mut ids = Ids::default();
        for heard in &before {
            if let Some(id) = &heard.id {
                ids.add(&heard.source, id);
            }
        }
        let webhooks = Self {
            receivers,
            journal,
            ids: Mutex::new(ids),
            room: [(); 2].map(|()| Semaphore::new((ROOM / PIECE) as usize)),
            clock,
            ear,
        };
        for heard in &before {
            webhooks.tell(heard);
        }
        Ok(Arc::new(webhooks))
    }

    fn tell(&self, heard: &Heard) {
        let found = self
            .receivers
            .keys()
            .find(|name| name.as_str() == heard.source);
        if let Some(name) = found {
            match heard.pull {
                Some(number) => self.ear.pull(name, Some(number)),
                None => self.ear.branch(name),
            }
        }
    }

    async fn receive(&self, name: &str, request: Request) -> (StatusCode, String) {
        let found = self.receivers.iter().find(|(n, _)| n.as_str() == name);
        // One answer for what is not there and for what hears nothing.
        let Some((source, receiver)) = found else {
            return (StatusCode::NOT_FOUND, "there is no such receiver".into());
        };
        let (parts, body) = request.into_parts();
        let Some(length) = content_length(&parts.headers) else {
            return (
                StatusCode::LENGTH_REQUIRED,
                "say how long the body is".into(),
            );
        };
        if length > BODY {
            return (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("at most {BODY} bytes"),
            );
        }
        let pieces = length.div_ceil(PIECE).max(1) as u32;
        let read = async {
            let room = &self.room[usize::from(length > LARGE)];
            let _room = room.acquire_many(pieces).await.ok()?;
            let body = Limited::new(body, length as usize).collect().await.ok()?;
            Some(body.to_bytes())
        };
        let bytes = match tokio::time::timeout(PATIENCE, read).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return (StatusCode::BAD_REQUEST, "the body is cut".into()),
            Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the body is late".into()),
        };
        let secrets = receiver.secrets(self.clock.steady());
        let secrets: Vec<&[u8]> = secrets.iter().map(|s| s.as_slice()).collect();
        let headers: Vec<(&str, &[u8])> = parts
            .headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_bytes()))
            .collect();
        let hears = &receiver.hears;
        let delivery = match admit(hears.kind, &headers, &bytes, &secrets) {
            Ok(delivery) => delivery,
            Err(refusal @ (Refusal::Unsigned | Refusal::BadSignature)) => {
                return (StatusCode::UNAUTHORIZED, refusal.to_string());
            }
            Err(refusal) => return (StatusCode::BAD_REQUEST, refusal.to_string()),
        };
        drop(bytes);
        let ours = |r: &String| r.eq_ignore_ascii_case(&hears.repository);
        let pull = match &delivery.news {
            News::Ping => return (StatusCode::OK, "it is heard".into()),
            News::Other => return (StatusCode::OK, "nothing to look at".into()),
            _ if !delivery.repository.as_ref().is_some_and(ours) => {
                return (StatusCode::OK, "of another repository: ignored".into());
            }
            News::Push { branches } if !branches.contains(&hears.branch) => {
                return (StatusCode::OK, "of another branch: ignored".into());
            }
            News::Push { .. } => None,
            News::Pull(number) | News::Comment { pull: number } => Some(*number),
        };
        if let Some(id) = &delivery.id
            && self.ids().has(source.as_str(), id)
        {
            return (StatusCode::OK, "it was heard before".into());
        }
        let heard = Heard {
            source: source.to_string(),
            id: delivery.id,
            pull,
        };
        if !self.journal.write(&heard).await {
            return (
                StatusCode::SERVICE_UNAVAILABLE,
                "it could not be written down: deliver it again".into(),
            );
        }
        if let Some(id) = &heard.id {
            self.ids().add(source.as_str(), id);
        }
        self.tell(&heard);
        (StatusCode::ACCEPTED, "it is looked at".into())
    }

    fn ids(&self) -> std::sync::MutexGuard<'_, Ids> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

async fn receive(
    State(webhooks): State<Arc<Webhooks>>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> (StatusCode, String) {
    webhooks.receive(&name, request).await
}

/// Serves receivers on an address until it is stopped.
pub async fn serve(listener: TcpListener, webhooks: Arc<Webhooks>, stop: CancellationToken) {
    let clock = webhooks.clock.clone();
    let router = Router::new()
        .route("/webhooks/{source}", post(receive))
        .with_state(webhooks);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors: nothing is gained by asking at once.
                tracing::warn!("a connection was not accepted: {error}");
                clock.sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Over the limit it is closed at once: whoever delivers tries again.
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        let stopped = stop.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let _ = stream.set_nodelay(true);
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .max_headers(64)
                .max_buf_size(64 << 10)
                .serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => {}
                () = stopped.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
        });
    }
}

/// Binds an address.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hmac;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::domain::model::hex;

    const OLD: &[u8] = b"an older secret of sixteen bytes";
    const NEW: &[u8] = b"the newer secret of sixteen bytes";

    /// Counts what it is told.
    #[derive(Default)]
    struct Told {
        branches: Mutex<u64>,
        pulls: Mutex<Vec<Option<u64>>>,
    }

    impl Ear for Told {
        fn branch(&self, _: &SourceName) {
            *self.branches.lock().unwrap() += 1;
        }

        fn pull(&self, _: &SourceName, number: Option<u64>) {
            self.pulls.lock().unwrap().push(number);
        }
    }

    struct Bench {
        folder: tempfile::TempDir,
        url: String,
        address: SocketAddr,
        told: Arc<Told>,
        stop: CancellationToken,
        http: reqwest::Client,
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            self.stop.cancel();
        }
    }

    fn hears(folder: &FilePath) -> BTreeMap<SourceName, Hears> {
        let secrets = [("new", NEW), ("old", OLD)].map(|(name, secret)| {
            let path = folder.join(name);
            crate::secret_file::write(&path, secret).unwrap();
            path
        });
        let hears = Hears {
            kind: ForgeKind::GitHub,
            repository: "acme/platform".into(),
            branch: "main".into(),
            secrets: secrets.to_vec(),
        };
        BTreeMap::from([("platform".parse().unwrap(), hears)])
    }

    async fn bench() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let told = Arc::new(Told::default());
        let webhooks = Webhooks::open(
            hears(folder.path()),
            &folder.path().join("journal"),
            Clock::system(),
            told.clone(),
        )
        .unwrap();
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, webhooks, stop.clone()));
        Bench {
            folder,
            url: format!("http://{address}/webhooks/platform"),
            address,
            told,
            stop,
            http: reqwest::Client::new(),
        }
    }

    fn push(repository: &str, branch: &str) -> Vec<u8> {
        format!(r#"{{"ref":"refs/heads/{branch}","after":"{}","repository":{{"full_name":"{repository}"}}}}"#, "a".repeat(40)).into_bytes()
    }

    impl Bench {
        async fn deliver(&self, event: &str, id: &str, body: &[u8], secret: &[u8]) -> u16 {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
            let signature = format!("sha256={}", hex(hmac::sign(&key, body).as_ref()));
            let request = self
                .http
                .post(&self.url)
                .header("X-GitHub-Event", event)
                .header("X-GitHub-Delivery", id)
                .header("X-Hub-Signature-256", signature)
                .header("Content-Type", "application/json")
                .body(body.to_vec());
            request.send().await.unwrap().status().as_u16()
        }

        async fn raw(&self, text: &[u8]) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(text).await.unwrap();
            let mut answer = vec![0; 64];
            let length = stream.read(&mut answer).await.unwrap();
            String::from_utf8_lossy(&answer[..length]).into_owned()
        }
    }

    #[tokio::test]
    async fn what_is_signed_is_written_down_and_told() {
        let bench = bench().await;
        let pull = br#"{"action":"opened","number":7,"repository":{"full_name":"Acme/Platform"},"pull_request":{"number":7}}"#;
        for (event, id, body, secret, status) in [
            ("push", "1", push("acme/platform", "main"), NEW, 202),
            // Two secrets while one takes the place of the other.
            ("push", "2", push("acme/platform", "main"), OLD, 202),
            ("pull_request", "3", pull.to_vec(), NEW, 202),
            ("push", "4", push("acme/platform", "feature"), NEW, 200),
            ("push", "5", push("acme/other", "main"), NEW, 200),
            ("ping", "6", b"{}".to_vec(), NEW, 200),
            // The same delivery once more.
            ("push", "1", push("acme/platform", "main"), NEW, 200),
        ] {
            let got = bench.deliver(event, id, &body, secret).await;
            assert_eq!(got, status, "{event} {id}");
        }
        assert_eq!(*bench.told.branches.lock().unwrap(), 2);
        assert_eq!(*bench.told.pulls.lock().unwrap(), [Some(7)]);
        let journal = std::fs::read_to_string(bench.folder.path().join("journal")).unwrap();
        assert_eq!(journal.lines().count(), 3);

        // What was accepted is told again by a daemon that starts: it may have died before anybody looked.
        let told = Arc::new(Told::default());
        let path = bench.folder.path().join("journal");
        let sources = hears(bench.folder.path());
        let opened = Webhooks::open(sources, &path, Clock::system(), told.clone()).unwrap();
        assert_eq!(*told.branches.lock().unwrap(), 2);
        assert!(opened.ids().has("platform", "3"));
    }

    #[tokio::test]
    async fn sec_26_what_is_not_signed_over_its_raw_bytes_is_refused() {
        let bench = bench().await;
        let body = push("acme/platform", "main");
        let mut spaced = body.clone();
        spaced.push(b' ');
        let key = hmac::Key::new(hmac::HMAC_SHA256, NEW);
        let signature = format!("sha256={}", hex(hmac::sign(&key, &body).as_ref()));
        let send = |body: Vec<u8>, headers: Vec<(&'static str, String)>| {
            let mut request = bench.http.post(&bench.url).header("X-GitHub-Event", "push");
            for (name, value) in headers {
                request = request.header(name, value);
            }
            request.body(body).send()
        };
        let name = "X-Hub-Signature-256";
        for (body, headers) in [
            (body.clone(), vec![]),
            (body.clone(), vec![(name, String::new())]),
            (body.clone(), vec![(name, "sha256=".into())]),
            (
                body.clone(),
                vec![("X-Hub-Signature", signature.replace("sha256", "sha1"))],
            ),
            (spaced, vec![(name, signature.clone())]),
        ] {
            let status = send(body, headers.clone()).await.unwrap().status();
            assert_eq!(status, 401, "{headers:?}");
        }
        let twice = vec![(name, signature.clone()), (name, signature)];
        assert_eq!(send(body, twice).await.unwrap().status(), 400);
        assert_eq!(*bench.told.branches.lock().unwrap(), 0);
    }

    #[tokio::test]
    async fn sec_26_a_receiver_without_a_good_secret_does_not_exist() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal");
        for secret in [b"".as_slice(), b"short", b"               \n"] {
            let mut sources = hears(folder.path());
            crate::secret_file::write(&folder.path().join("old"), secret).unwrap();
            let told = Arc::new(Told::default());
            let opened = Webhooks::open(sources.clone(), &journal, Clock::system(), told.clone());
            assert!(matches!(opened.err(), Some(Error::Short(_))), "{secret:?}");
            let source = sources.values_mut().next().unwrap();
            source.secrets = vec![folder.path().join("absent")];
            let opened = Webhooks::open(sources, &journal, Clock::system(), told);
            assert!(matches!(opened.err(), Some(Error::File(..))));
        }
    }

    #[tokio::test]
    async fn sec_27_bodies_are_cut_at_their_limit_before_they_are_read() {
        let bench = bench().await;
        let head = "POST /webhooks/platform HTTP/1.1\r\nHost: x\r\n";
        for (more, status) in [
            (format!("Content-Length: {}\r\n\r\n", BODY + 1), "413"),
            ("Transfer-Encoding: chunked\r\n\r\n".to_owned(), "411"),
            ("Content-Length: x\r\n\r\n".to_owned(), "400"),
        ] {
            let answer = bench.raw(format!("{head}{more}").as_bytes()).await;
            assert!(answer.contains(status), "{more:?}: {answer}");
        }
        let flood = format!("{head}{}\r\n", "X-A: b\r\n".repeat(1_000));
        let answer = bench.raw(flood.as_bytes()).await;
        assert!(answer.contains("431") || answer.is_empty(), "{answer}");
        for (path, status) in [
            ("/webhooks/other", "404"),
            ("/", "404"),
            ("/webhooks/platform/x", "404"),
        ] {
            let answer = bench
                .raw(
                    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                        .as_bytes(),
                )
                .await;
            assert!(answer.contains(status), "{path}: {answer}");
        }
        let get = b"GET /webhooks/platform HTTP/1.1\r\nHost: x\r\n\r\n";
        assert!(bench.raw(get).await.contains("405"));
    }

    #[tokio::test]
    async fn sec_27_large_bodies_wait_for_room() {
        let bench = bench().await;
        // Announced, and never sent: together they may hold no more than the room there is.
        let head = format!(
            "POST /webhooks/platform HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY}\r\n\r\n"
        );
        let mut held = Vec::new();
        for _ in 0..4 {
            let mut stream = TcpStream::connect(bench.address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            held.push(stream);
        }
        // A small one is not kept waiting for ever: what takes room without sending is cut.
        let body = push("acme/platform", "main");
        assert_eq!(bench.deliver("push", "1", &body, NEW).await, 202);
    }

    #[tokio::test]
    async fn sec_29_replays_and_reorders_change_nothing() {
        let bench = bench().await;
        let body = push("acme/platform", "main");
        let mut accepted = 0;
        for n in 0..1_000 {
            let id = format!("{}", (n * 7) % 10);
            accepted += u64::from(bench.deliver("push", &id, &body, NEW).await == 202);
        }
        assert_eq!(accepted, 10);
        assert_eq!(*bench.told.branches.lock().unwrap(), 10);
    }
}
