//! Fakes of forges: stateful, in this process, on loopback. Each checks what it is sent and answers like the real one.
//!
//! Here is what they share: the world that people and adapters see alike, what was asked, and faults on demand. A forge of
//! its own implements [`Api`].
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod bitbucket;
pub mod gitea;
pub mod github;
pub mod gitlab;
pub mod openapi;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isoform::clock::Clock;
use isoform::domain::forge::Verdict;
use isoform::domain::model::Timestamp;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// When every fake begins: 2026-11-18T11:06:40Z.
pub const BEGINNING: Timestamp = Timestamp(1_795_000_000_000);

/// An account.
#[derive(Clone, Debug)]
pub struct Account {
    pub id: u64,
    pub login: String,
    pub bot: bool,
}

/// A pull request, in words that every forge has.
#[derive(Clone, Debug)]
pub struct Pull {
    pub number: u64,
    pub title: String,
    /// Absent where the account is gone.
    pub author: Option<u64>,
    pub head: String,
    pub branch: String,
    pub base: String,
    pub open: bool,
    /// The commit on the base by which it was merged.
    pub merged: Option<String>,
    /// Another repository's.
    pub fork: bool,
    /// The fork was deleted.
    pub headless: bool,
    pub draft: bool,
    pub labels: Vec<String>,
    pub updated: Timestamp,
}

/// A comment under a pull request.
#[derive(Clone, Debug)]
pub struct Comment {
    pub id: u64,
    pub pull: u64,
    /// Absent where the account is gone.
    pub author: Option<u64>,
    pub body: String,
    pub created: Timestamp,
    pub updated: Timestamp,
}

/// A verdict that was reported. Of one name on one commit the last is what people see.
#[derive(Clone, Debug)]
pub struct Reported {
    pub id: u64,
    pub head: String,
    pub name: String,
    pub verdict: Verdict,
    pub title: String,
    pub annotations: Vec<Value>,
}

/// A delivery of a webhook.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub id: u64,
    pub guid: String,
    pub at: Timestamp,
    pub status: u16,
    pub repository: Option<u64>,
}

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Below the API's base, decoded where it is data: segments.
    pub path: Vec<String>,
    /// As it was sent.
    pub raw: String,
    pub query: BTreeMap<String, String>,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Option<Value>,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn writes(&self) -> bool {
        self.method != "GET"
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            headers: vec![(
                "content-type".into(),
                "application/json; charset=utf-8".into(),
            )],
            body: body.to_string().into_bytes(),
        }
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This answer instead; nothing was done.
    Instead(Reply),
    /// An error with this status that repeats the headers of the request, and forges a line.
    Echo(u16),
    /// What was asked is done, and the answer is lost.
    Lost,
    /// No answer, ever.
    Hang,
    /// The connection ends without an answer; nothing was done.
    HangUp,
    /// The answer ends in the middle.
    Cut,
    /// Something that is not HTTP.
    Garbage,
    /// An answer without end.
    Endless,
}

/// The world behind a forge.
pub struct State {
    pub clock: Clock,
    /// How far the forge's clock is ahead, in milliseconds.
    pub ahead: i64,
    pub accounts: BTreeMap<u64, Account>,
    /// What an account may do in the repository, in the forge's own word.
    pub roles: BTreeMap<u64, String>,
    pub pulls: BTreeMap<u64, Pull>,
    pub comments: BTreeMap<u64, Comment>,
    pub reported: Vec<Reported>,
    pub deliveries: Vec<Delivery>,
    /// Everything that was asked.
    pub asked: Vec<Asked>,
    /// What was asked that the real one would not understand.
    pub violations: Vec<String>,
    faults: Vec<(String, usize, Fault)>,
    next: u64,
}

impl State {
    fn new(clock: Clock) -> Self {
        Self {
            clock,
            ahead: 0,
            accounts: BTreeMap::new(),
            roles: BTreeMap::new(),
            pulls: BTreeMap::new(),
            comments: BTreeMap::new(),
            reported: Vec::new(),
            deliveries: Vec::new(),
            asked: Vec::new(),
            violations: Vec::new(),
            faults: Vec::new(),
            next: 100,
        }
    }

    /// Returns a number that nothing has.
    pub fn mint(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The forge's own clock.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.clock.now().0 + self.ahead)
    }

    pub fn by_login(&self, login: &str) -> Option<&Account> {
        let same = |a: &&Account| a.login.eq_ignore_ascii_case(login);
        self.accounts.values().find(same)
    }

    /// Whoever opens an account.
    pub fn account(&mut self, login: &str, bot: bool) -> u64 {
        let id = self.mint();
        let login = login.to_owned();
        self.accounts.insert(id, Account { id, login, bot });
        id
    }

    /// Opens a pull request into `main`; what else matters is changed in place.
    pub fn open(&mut self, author: u64, title: &str) -> &mut Pull {
        let number = self.pulls.keys().max().unwrap_or(&0) + 1;
        let pull = Pull {
            number,
            title: title.into(),
            author: Some(author),
            head: format!("{number:040x}"),
            branch: format!("topic-{number}"),
            base: "main".into(),
            open: true,
            merged: None,
            fork: false,
            headless: false,
            draft: false,
            labels: Vec::new(),
            updated: self.now(),
        };
        self.pulls.entry(number).or_insert(pull)
    }

    /// Writes a comment as somebody.
    pub fn say(&mut self, pull: u64, author: Option<u64>, body: &str) -> u64 {
        let id = self.mint();
        let now = self.now();
        let comment = Comment {
            id,
            pull,
            author,
            body: body.into(),
            created: now,
            updated: now,
        };
        self.comments.insert(id, comment);
        id
    }

    /// The comments of a pull request, oldest first.
    pub fn said(&self, pull: u64) -> Vec<&Comment> {
        self.comments.values().filter(|c| c.pull == pull).collect()
    }

    /// What people see beside a commit.
    pub fn shown(&self, head: &str, name: &str) -> Option<&Reported> {
        let here = |r: &&Reported| r.head == head && r.name == name;
        self.reported.iter().rfind(here)
    }

    /// Lets the next `times` requests go wrong whose `METHOD path` holds each of some words.
    pub fn fault(&mut self, holds: &str, times: usize, fault: Fault) {
        self.faults.push((holds.to_owned(), times, fault));
    }

    /// Takes every fault back.
    pub fn forgive(&mut self) {
        self.faults.clear();
    }

    fn take_fault(&mut self, line: &str) -> Option<Fault> {
        let at = self.faults.iter().position(|(holds, times, _)| {
            *times > 0 && holds.split(' ').all(|word| line.contains(word))
        })?;
        self.faults[at].1 -= 1;
        Some(self.faults[at].2.clone())
    }
}

/// What a forge makes of a request.
pub trait Api: Send + Sync + 'static {
    /// The path of its base, such as `/api/v3`.
    fn base(&self) -> &str;
    /// Answers; everything that the real one would refuse is refused.
    fn answer(&self, state: &mut State, asked: &Asked) -> Reply;
}

/// A forge that listens.
pub struct Fake {
    state: Arc<Mutex<State>>,
    /// The address of its API.
    pub api: String,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.serving.abort();
        let violations = std::mem::take(&mut self.state().violations);
        if !std::thread::panicking() {
            assert!(
                violations.is_empty(),
                "the forge would not understand:\n{}",
                violations.join("\n")
            );
        }
    }
}

impl Fake {
    /// Serves an API on a port of loopback.
    pub async fn serve(clock: Clock, api: Arc<dyn Api>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::new(clock)));
        let base = format!("http://{address}{}", api.base());
        let world = state.clone();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (world, api) = (world.clone(), api.clone());
                tokio::spawn(async move { exchange(stream, &world, api.as_ref()).await });
            }
        });
        Self {
            state,
            api: base,
            serving,
        }
    }

    /// The world behind it.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests came since the last time this was asked.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state().asked)
    }
}

/// One request and its answer; the connection ends with it.
async fn exchange(mut stream: TcpStream, world: &Mutex<State>, api: &dyn Api) -> Option<()> {
    let asked = receive(&mut stream, api.base()).await?;
    let line = format!("{} {}", asked.method, asked.raw);
    let fault = {
        let mut state = world.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked.push(asked.clone());
        state.take_fault(&line)
    };
    let answer = || {
        let mut state = world.lock().unwrap_or_else(PoisonError::into_inner);
        let date = http_date(state.now());
        api.answer(&mut state, &asked).with("date", date)
    };
    match fault {
        None => send(&mut stream, &answer(), usize::MAX).await,
        Some(Fault::Instead(reply)) => send(&mut stream, &reply, usize::MAX).await,
        Some(Fault::Echo(status)) => {
            let sent: Vec<&str> = asked.headers.values().map(String::as_str).collect();
            let message = format!("Bad: {}\r\nforged line", sent.join(", "));
            let reply = Reply::json(status, &serde_json::json!({ "message": message }));
            send(&mut stream, &reply, usize::MAX).await;
        }
        Some(Fault::Lost) => {
            answer();
        }
        Some(Fault::Cut) => {
            let reply = answer();
            send(&mut stream, &reply, reply.body.len() / 2).await;
        }
        Some(Fault::HangUp) => {}
        Some(Fault::Hang) => tokio::time::sleep(Duration::from_secs(600)).await,
        Some(Fault::Garbage) => {
            let _ = stream.write_all(b"\x00\xffnot http at all\r\n\r\n").await;
        }
        Some(Fault::Endless) => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n[";
            let _ = stream.write_all(head.as_bytes()).await;
            let some = vec![b' '; 1 << 20];
            // Sixteen times what anybody may read: the other side hangs up before.
            for _ in 0..128 {
                if stream.write_all(&some).await.is_err() {
                    break;
                }
            }
        }
    }
    let _ = stream.shutdown().await;
    Some(())
}

async fn receive(stream: &mut TcpStream, base: &str) -> Option<Asked> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        let mut some = [0; 4096];
        match stream.read(&mut some).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&some[..n]),
            _ => return None,
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|l| l.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers
        .get("content-length")
        .and_then(|l| l.parse().ok())
        .unwrap_or(0);
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        let mut some = [0; 65536];
        match stream.read(&mut some).await {
            Ok(n) if n > 0 => body.extend_from_slice(&some[..n]),
            _ => return None,
        }
    }
    let (raw, query) = target.split_once('?').unwrap_or((&target, ""));
    let below = raw.strip_prefix(base).unwrap_or("/outside-of-the-base");
    Some(Asked {
        path: below
            .split('/')
            .skip(1)
            .map(|s| decoded(s, false))
            .collect(),
        raw: raw.to_owned(),
        query: query
            .split('&')
            .filter_map(|p| p.split_once('='))
            .map(|(name, value)| (decoded(name, true), decoded(value, true)))
            .collect(),
        body: serde_json::from_slice(&body).ok(),
        method,
        headers,
    })
}

fn decoded(text: &str, form: bool) -> String {
    let text = if form {
        text.replace('+', " ")
    } else {
        text.to_owned()
    };
    percent_encoding::percent_decode_str(&text)
        .decode_utf8_lossy()
        .into_owned()
}

async fn send(stream: &mut TcpStream, reply: &Reply, most: usize) {
    let mut head = format!("HTTP/1.1 {} Said\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if reply.status != 204 && reply.status != 304 {
        head.push_str(&format!("content-length: {}\r\n", reply.body.len()));
    }
    head.push_str("\r\n");
    let _ = stream.write_all(head.as_bytes()).await;
    let body = &reply.body[..reply.body.len().min(most)];
    let _ = stream.write_all(body).await;
}

/// A date as HTTP writes it.
pub fn http_date(at: Timestamp) -> String {
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap();
    jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&at)
        .unwrap()
}

/// A time as JSON carries it: whole seconds of RFC 3339.
pub fn iso(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{}Z", &text[..19])
}

/// The pages of a listing, with what a `Link` header says of the next one.
pub fn page<T: Clone>(all: &[T], asked: &Asked, link: &str) -> (Vec<T>, Option<String>) {
    let number = |name: &str, default: usize| {
        let value = asked.query.get(name).and_then(|v| v.parse().ok());
        value.unwrap_or(default)
    };
    let (per, at) = (
        number("per_page", 30).clamp(1, 100),
        number("page", 1).max(1),
    );
    let some: Vec<T> = all.iter().skip((at - 1) * per).take(per).cloned().collect();
    let next = (at * per < all.len()).then(|| {
        let mut query: Vec<String> = asked
            .query
            .iter()
            .filter(|(name, _)| *name != "page")
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        query.push(format!("page={}", at + 1));
        format!("<{link}?{}>; rel=\"next\"", query.join("&"))
    });
    (some, next)
}

/// Moves a clock that stands whenever somebody sleeps on it, for as long as this is kept.
pub struct Driver(tokio::task::JoinHandle<()>);

impl Driver {
    pub fn of(clock: Clock) -> Self {
        Self(tokio::spawn(async move {
            loop {
                clock.asleep().await;
                if let Some(rest) = clock.next_wake() {
                    clock.advance(rest);
                }
                tokio::task::yield_now().await;
            }
        }))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}
