//! One thin client over HTTP for every forge.
//!
//! What it guards: the token goes to the configured address only (no redirect is followed, no link of an answer leads
//! elsewhere, plain http reaches loopback only), an answer is bounded before it is parsed, every wait ends, and no error
//! holds a secret. What a forge's paths and shapes are, the adapters know.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroizing;

use super::governor::{Governor, Said};
use super::memory::Memory;
use super::words::{clean, message, without};
use crate::clock::Clock;
use crate::domain::forge::ForgeKind;
use crate::port::Error;

/// More of an answer is not read. A page of a hundred comments of the greatest size has less than that.
const ANSWER_LIMIT: usize = 8 << 20;
/// How long a connection may take, its handshake included.
const CONNECT: Duration = Duration::from_secs(10);
/// What a forge says of an error is shown up to so many characters.
const MESSAGE_LIMIT: usize = 300;

/// A client of one forge with one credential.
pub struct Client {
    http: reqwest::Client,
    kind: ForgeKind,
    pub(super) base: Url,
    clock: Clock,
    governor: Arc<Governor>,
    memory: Mutex<Memory>,
}

/// A call that is going to be made.
#[derive(Clone)]
pub struct Call {
    method: Method,
    pub(super) place: Place,
    pub(super) query: Vec<(String, String)>,
    headers: Vec<(&'static str, String)>,
    pub(super) secret: Option<(HeaderName, Arc<Zeroizing<String>>, &'static str)>,
    /// What the secret was made of, where it is sent in another spelling.
    pub(super) plain: Option<Arc<Zeroizing<String>>>,
    body: Option<Value>,
    remembers: bool,
}

#[derive(Clone)]
pub(super) enum Place {
    Segments(Vec<String>),
    /// A link of an answer, which was checked.
    Link(Url),
}

impl Call {
    /// Makes a call. Segments of the path below the base are data: each is percent-encoded whole.
    pub fn new<S: Into<String>>(method: Method, path: impl IntoIterator<Item = S>) -> Self {
        Self {
            method,
            place: Place::Segments(path.into_iter().map(Into::into).collect()),
            query: Vec::new(),
            headers: Vec::new(),
            secret: None,
            plain: None,
            body: None,
            remembers: false,
        }
    }

    /// Makes a call that reads.
    pub fn get<S: Into<String>>(path: impl IntoIterator<Item = S>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Adds to the query.
    #[must_use]
    pub fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    /// Sends this as JSON.
    #[must_use]
    pub fn json(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Asks only for what is new since the last time: what is not comes out of this process' memory.
    #[must_use]
    pub fn remembered(mut self) -> Self {
        self.remembers = true;
        self
    }

    /// Sends a header that is no secret.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.into()));
        self
    }

    /// Sends a secret in a header, after a word such as `Bearer ` where there is one.
    #[must_use]
    pub fn secret(
        mut self,
        name: HeaderName,
        before: &'static str,
        secret: Arc<Zeroizing<String>>,
    ) -> Self {
        self.secret = Some((name, secret, before));
        self
    }

    /// Sends a token as RFC 6750 says.
    #[must_use]
    pub fn bearer(self, token: Arc<Zeroizing<String>>) -> Self {
        self.secret(reqwest::header::AUTHORIZATION, "Bearer ", token)
    }

    /// Sends a name, a colon and a token as RFC 7617 says.
    #[must_use]
    pub fn basic(mut self, both: Arc<Zeroizing<String>>) -> Self {
        let spelt = Zeroizing::new(STANDARD.encode(both.as_bytes()));
        self.plain = Some(both);
        self.secret(reqwest::header::AUTHORIZATION, "Basic ", Arc::new(spelt))
    }

    /// Tells whether it changes something.
    pub fn writes(&self) -> bool {
        !matches!(self.method, Method::GET | Method::HEAD)
    }

    /// Names it for people: nothing in it is secret, for a query never holds a secret here.
    pub fn name(&self) -> String {
        let path = match &self.place {
            Place::Segments(segments) => segments.join("/"),
            Place::Link(url) => url.path().trim_start_matches('/').to_owned(),
        };
        format!("{} {}", self.method, clean(&path, MESSAGE_LIMIT))
    }
}

/// What came back: a status that is no error, and everything that was said.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body, whole.
    pub body: Vec<u8>,
    name: String,
}

impl Answer {
    #[cfg(test)]
    pub(super) fn of(status: u16, body: Vec<u8>) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body,
            name: "GET x".into(),
        }
    }

    /// Returns a header that is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Reads the body as JSON of this shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        read(&self.name, &self.body)
    }

    /// Says of what was read that it cannot be right.
    pub fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::Untrusted(format!("{}: {what}", self.name))
    }
}

/// Reads JSON that answered a call.
pub(super) fn read<T: DeserializeOwned>(name: &str, body: &[u8]) -> Result<T, Error> {
    // The message of serde_json may quote a value of the answer; where it stands is enough to find the fault.
    serde_json::from_slice(body).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => "is not of the documented shape",
            _ => "is not JSON",
        };
        let (line, column) = (error.line(), error.column());
        Error::Untrusted(format!(
            "{name}: the answer {what} (line {line}, column {column})"
        ))
    })
}

impl Client {
    /// Makes a client of the API at a base address.
    ///
    /// `ca` names a PEM file with certificates that are trusted beside those of the machine. `patience` is how long a whole
    /// exchange may take.
    pub fn new(
        kind: ForgeKind,
        api: &str,
        ca: Option<&Path>,
        patience: Duration,
        clock: Clock,
        governor: Arc<Governor>,
    ) -> Result<Self, Error> {
        let base = base(api)?;
        let mut http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .tls_version_min(reqwest::tls::Version::TLS_1_2)
            .connect_timeout(CONNECT.min(patience))
            .timeout(patience)
            .user_agent(concat!("isoform/", env!("CARGO_PKG_VERSION")));
        if base.scheme() == "http" {
            // What goes to loopback in the clear does not go through somebody's proxy.
            http = http.no_proxy();
        }
        if let Some(path) = ca {
            http = http.tls_certs_merge(certificates(path)?);
        }
        let http = http.build().map_err(|error| {
            let error = error.without_url();
            Error::Refused(format!("the client of {kind} cannot be made: {error:?}"))
        })?;
        Ok(Self {
            http,
            kind,
            base,
            clock,
            governor,
            memory: Mutex::default(),
        })
    }

    /// Returns the clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Makes a call; every status that is an error is one.
    ///
    /// While a limit holds nothing goes out. Writes to GitHub follow each other and are a second apart.
    pub async fn send(&self, call: Call) -> Result<Answer, Error> {
        let (answer, message) = self.exchange(&call).await?;
        self.judge(answer, &message)
    }

    /// Makes a call; absent where the credential is not taken (401), for whoever can get another one.
    pub async fn send_unless_expired(&self, call: Call) -> Result<Option<Answer>, Error> {
        let (answer, message) = self.exchange(&call).await?;
        if answer.status == 401 {
            return Ok(None);
        }
        self.judge(answer, &message).map(Some)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn exchange(&self, call: &Call) -> Result<(Answer, String), Error> {
        let url = self.url(call)?;
        let known = call.remembers.then(|| self.memory().recall(url.as_str()));
        let known = known.flatten();
        self.admit()?;
        let _one = match (self.kind, call.writes()) {
            (ForgeKind::GitHub, true) => {
                let one = self.governor.writing.lock().await;
                let wait = self.governor.apart(self.kind, self.clock.steady());
                if !wait.is_zero() {
                    self.clock.sleep(wait).await;
                }
                // The write before may have met a limit.
                self.admit()?;
                Some(one)
            }
            _ => None,
        };
        let name = call.name();
        let mut request = self.request(call, url.clone())?;
        if let Some(known) = &known {
            request = request.header(reqwest::header::IF_NONE_MATCH, &known.tag);
        }
        let response = request.send().await;
        if call.writes() {
            self.governor.wrote(self.clock.steady());
        }
        let mut response = response.map_err(|error| unavailable(&name, error))?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| unavailable(&name, error))?
        {
            if body.len() + chunk.len() > ANSWER_LIMIT {
                return Err(Error::Untrusted(format!(
                    "{name}: the answer has more than {ANSWER_LIMIT} bytes"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        let mut answer = Answer {
            status,
            headers,
            body,
            name,
        };
        match known {
            Some(known) if status == 304 => {
                answer.status = 200;
                answer.body = known.body.to_vec();
                if let Some(link) = known.link {
                    answer.headers.insert(reqwest::header::LINK, link);
                }
            }
            _ if status == 200 && call.remembers => self.memory().keep(url.as_str(), &answer),
            _ => {}
        }
        let message = if status >= 400 {
            let said = message(&answer.body);
            clean(&without(said, call), MESSAGE_LIMIT)
        } else {
            String::new()
        };
        Ok((answer, message))
    }

    fn admit(&self) -> Result<(), Error> {
        match self.governor.held(self.clock.steady()) {
            Some(rest) => Err(Error::Limited(rest)),
            None => Ok(()),
        }
    }

    fn request(&self, call: &Call, url: Url) -> Result<reqwest::RequestBuilder, Error> {
        let mut request = self.http.request(call.method.clone(), url);
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some((name, secret, before)) = &call.secret {
            let text = Zeroizing::new(format!("{before}{}", secret.as_str()));
            let mut value = HeaderValue::from_str(&text).map_err(|_| {
                Error::Denied("the token holds characters that no header can carry".into())
            })?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        Ok(request)
    }

    pub(super) fn url(&self, call: &Call) -> Result<Url, Error> {
        let mut url = match &call.place {
            Place::Link(url) => return Ok(url.clone()),
            Place::Segments(segments) => {
                let mut url = self.base.clone();
                // `.` and `..` would lead to another path, however they are encoded.
                let odd = |s: &String| {
                    matches!(s.as_str(), "" | "." | "..") || s.chars().any(char::is_control)
                };
                if let Some(segment) = segments.iter().find(|s| odd(s)) {
                    return Err(Error::Refused(format!(
                        "`{}` cannot be part of an address",
                        clean(segment, 40)
                    )));
                }
                url.path_segments_mut()
                    .map_err(|()| Error::Refused("the address of the API has no path".into()))?
                    .pop_if_empty()
                    .extend(segments);
                url
            }
        };
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        Ok(url)
    }

    fn judge(&self, answer: Answer, message: &str) -> Result<Answer, Error> {
        let text = |name: &str| answer.header(name).map(str::to_owned);
        let (remaining, reset) = match Said::headers(self.kind) {
            Some((remaining, reset)) => (text(remaining), text(reset)),
            None => (None, None),
        };
        let said = Said {
            status: answer.status,
            retry_after: text("retry-after"),
            remaining,
            reset,
            date: text("date"),
            message: message.to_owned(),
        };
        let limited = self
            .governor
            .learn(&said, self.clock.now(), self.clock.steady());
        if let Some(wait) = limited {
            return Err(Error::Limited(wait));
        }
        let status = answer.status;
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        let name = &answer.name;
        let what = match message {
            "" => StatusCode::from_u16(status)
                .ok()
                .and_then(|s| s.canonical_reason())
                .unwrap_or("an unknown status"),
            said => said,
        };
        Err(match status {
            401 | 403 => Error::Denied(format!("{name}: {what} (HTTP {status})")),
            404 | 410 => Error::NotFound(format!(
                "{name}: {what} (HTTP {status}): what it names, as far as this credential sees,"
            )),
            408 | 500..=599 => Error::Unavailable(format!("{name}: {what} (HTTP {status})")),
            400..=499 => Error::Refused(format!("{name}: {what} (HTTP {status})")),
            301 | 302 | 303 | 307 | 308 => Error::Refused(format!(
                "{name}: the answer leads to another address (HTTP {status}), and none is followed: give the address of the API and the name of the repository as they are now"
            )),
            _ => Error::Untrusted(format!("{name}: HTTP {status} is no answer to it")),
        })
    }
}

/// Reads the base address of an API.
pub fn base(api: &str) -> Result<Url, Error> {
    let refuse = |why: &str| {
        // What cannot be read may hold a password: it is not repeated.
        Error::Refused(format!("the address of the forge's API {why}"))
    };
    let mut url = Url::parse(api).map_err(|e| refuse(&format!("is none: {e}")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse(
            "holds a user or a password: name a file with the token instead",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("has a query or a fragment: leave it out"));
    }
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        _ => {
            return Err(refuse(
                "must begin with https://; plain http is for loopback only",
            ));
        }
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, Error> {
    let refuse =
        |why: String| Error::Refused(format!("the certificates in {}: {why}", path.display()));
    let pem = std::fs::read(path).map_err(|e| refuse(e.to_string()))?;
    let all = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| refuse(format!("{e:?}")))?;
    if all.is_empty() {
        return Err(refuse("there is none; it must be PEM".into()));
    }
    Ok(all)
}

fn unavailable(name: &str, error: reqwest::Error) -> Error {
    let error = error.without_url();
    if error.is_timeout() {
        return Error::Unavailable(format!("{name}: no answer in time"));
    }
    // The causes say what a person needs: which name was not found, which certificate was not trusted.
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    Error::Unavailable(format!("{name}: {}", clean(&text, MESSAGE_LIMIT)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::model::Timestamp;

    pub(in crate::forge) fn client(api: &str) -> Client {
        let clock = Clock::standing(Timestamp(0));
        let governor = Arc::new(Governor::default());
        Client::new(
            ForgeKind::GitHub,
            api,
            None,
            Duration::from_secs(5),
            clock,
            governor,
        )
        .unwrap()
    }

    #[test]
    fn plain_http_reaches_loopback_only_and_no_address_holds_a_password() {
        for good in [
            "https://api.github.com",
            "https://git.example.com/api/v3/",
            "http://127.0.0.1:8080",
            "http://127.9.9.9/x",
            "http://[::1]:1",
            "http://localhost:3000/api/v1",
        ] {
            assert!(base(good).unwrap().path().ends_with('/'), "{good}");
        }
        for bad in [
            "http://api.github.com",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "ftp://127.0.0.1",
            "https://u:hunter2@api.github.com",
            "https://hunter2@api.github.com",
            "https://api.github.com?hunter2=1",
            "https://api.github.com#hunter2",
            "hunter2",
            "",
        ] {
            let error = base(bad).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{bad}: {error}");
        }
    }

    #[test]
    fn what_stands_in_a_path_cannot_leave_its_place() {
        let client = client("https://git.example.com/api/v3");
        let url = |path: &[&str]| client.url(&Call::get(path.iter().copied()));

        let odd = url(&["users", "a/b?c#d%2e é"]).unwrap();

        assert_eq!(
            odd.as_str(),
            "https://git.example.com/api/v3/users/a%2Fb%3Fc%23d%252e%20%C3%A9"
        );
        for bad in ["..", ".", "", "a\nb"] {
            assert!(url(&["users", bad]).is_err(), "{bad:?}");
        }
    }
}
