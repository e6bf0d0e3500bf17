//! One thin client over HTTP for every forge.
//!
//! What it guards: the token goes to the configured address only (no redirect is followed, no link of an answer leads
//! elsewhere, plain http reaches loopback only), an answer is bounded before it is parsed, every wait ends, and no error
//! holds a secret. What a forge's paths and shapes are, the adapters know.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroizing;

use super::governor::{Governor, Said};
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
    base: Url,
    clock: Clock,
    governor: Arc<Governor>,
}

/// A call that is going to be made.
#[derive(Clone)]
pub struct Call {
    method: Method,
    place: Place,
    query: Vec<(String, String)>,
    headers: Vec<(&'static str, String)>,
    secret: Option<(HeaderName, Arc<Zeroizing<String>>, &'static str)>,
    body: Option<Value>,
}

#[derive(Clone)]
enum Place {
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
            body: None,
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

    /// Sends a header that is no secret.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
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
    /// The status; 304 only where the call asked for it with `If-None-Match`.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body, whole.
    pub body: Vec<u8>,
    name: String,
}

impl Answer {
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
        self.judge(&call, answer, &message)
    }

    async fn exchange(&self, call: &Call) -> Result<(Answer, String), Error> {
        let url = self.url(call)?;
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
        let response = self.request(call, url)?.send().await;
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
        let answer = Answer {
            status,
            headers,
            body,
            name,
        };
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

    fn url(&self, call: &Call) -> Result<Url, Error> {
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

    fn judge(&self, call: &Call, answer: Answer, message: &str) -> Result<Answer, Error> {
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
        let asked_if_new = call
            .headers
            .iter()
            .any(|(name, _)| *name == "if-none-match");
        let status = answer.status;
        if (200..300).contains(&status) || (status == 304 && asked_if_new) {
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
            404 | 410 => Error::NotFound(format!("{name}: {what} (HTTP {status}): what it names")),
            408 | 500..=599 => Error::Unavailable(format!("{name}: {what} (HTTP {status})")),
            400..=499 => Error::Refused(format!("{name}: {what} (HTTP {status})")),
            301 | 302 | 303 | 307 | 308 => Error::Refused(format!(
                "{name}: the answer leads to another address (HTTP {status}), and none is followed: give the address of the API and the name of the repository as they are now"
            )),
            _ => Error::Untrusted(format!("{name}: HTTP {status} is no answer to it")),
        })
    }

    /// Makes a call out of a link of an answer: only below the same base, so that no answer sends the token elsewhere.
    pub fn follow(&self, from: &Call, link: &str) -> Result<Call, Error> {
        let refuse = |why: &str| {
            Error::Untrusted(format!(
                "{}: the next page {why}: `{}`",
                from.name(),
                clean(link, 120)
            ))
        };
        let url = Url::parse(link).map_err(|_| refuse("is no address"))?;
        let below = url.path().starts_with(self.base.path());
        let plain = url.username().is_empty() && url.password().is_none();
        if url.origin() != self.base.origin() || !below || !plain {
            return Err(refuse("lies somewhere else"));
        }
        Ok(Call {
            place: Place::Link(url),
            query: Vec::new(),
            ..from.clone()
        })
    }
}

/// A walk over the pages of a listing: each once, and no more of them than allowed.
pub struct Walk {
    next: Option<Call>,
    seen: BTreeSet<String>,
    left: usize,
    /// Whether there were more pages than allowed.
    pub cut: bool,
}

impl Walk {
    /// Begins at a call; at most so many pages are read.
    pub fn new(first: Call, most: usize) -> Self {
        Self {
            next: Some(first),
            seen: BTreeSet::new(),
            left: most,
            cut: false,
        }
    }

    /// Returns the call for the page that is next.
    pub fn call(&mut self) -> Option<Call> {
        let call = self.next.take()?;
        if self.left == 0 {
            self.cut = true;
            return None;
        }
        self.left -= 1;
        Some(call)
    }

    /// Turns to the page that `Link: …; rel="next"` of an answer names (RFC 8288).
    pub fn turn(&mut self, client: &Client, from: &Call, answer: &Answer) -> Result<(), Error> {
        let links = answer.headers.get_all(reqwest::header::LINK);
        let next = links.iter().find_map(|l| next_link(l.to_str().ok()?));
        self.turn_to(client, from, next.as_deref())
    }

    /// Turns to a page that the body of an answer names.
    pub fn turn_to(
        &mut self,
        client: &Client,
        from: &Call,
        next: Option<&str>,
    ) -> Result<(), Error> {
        let Some(link) = next else {
            return Ok(());
        };
        let call = client.follow(from, link)?;
        if !self.seen.insert(link.to_owned()) {
            return Err(Error::Untrusted(format!(
                "{}: the listing leads back to a page that it had before",
                from.name()
            )));
        }
        self.next = Some(call);
        Ok(())
    }
}

fn next_link(header: &str) -> Option<String> {
    let mut rest = header;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>')?;
        let link = &rest[start + 1..end];
        let after = &rest[end + 1..];
        let parameters = &after[..after.find('<').unwrap_or(after.len())];
        let is_next = parameters.split([';', ',']).any(|p| {
            let (name, value) = p.split_once('=').unwrap_or((p, ""));
            name.trim().eq_ignore_ascii_case("rel")
                && value
                    .trim()
                    .trim_matches('"')
                    .split(' ')
                    .any(|word| word.eq_ignore_ascii_case("next"))
        });
        if is_next {
            return Some(link.to_owned());
        }
        rest = after;
    }
    None
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

/// Finds what a forge says of an error, in the shapes that they have for it.
fn message(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        // A page of HTML says nothing to anybody here.
        let text = String::from_utf8_lossy(&body[..body.len().min(1024)]);
        let page = text.trim_start().starts_with('<');
        return if page {
            String::new()
        } else {
            text.into_owned()
        };
    };
    let mut parts = Vec::new();
    for key in ["message", "error", "error_description", "errors"] {
        if let Some(value) = value.get(key) {
            words(value, &mut parts);
        }
    }
    parts.dedup();
    parts.join(": ")
}

fn words(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::String(text) if !text.is_empty() => out.push(text.clone()),
        Value::Array(all) => all.iter().take(5).for_each(|v| words(v, out)),
        Value::Object(fields) => {
            // GitHub: {resource, field, code, message}; GitLab: {field: [texts]}; Bitbucket: {message, detail}.
            for (name, value) in fields.iter().take(8) {
                if matches!(name.as_str(), "documentation_url" | "data" | "resource") {
                    continue;
                }
                let mut inner = Vec::new();
                words(value, &mut inner);
                match name.as_str() {
                    "message" | "detail" => out.extend(inner),
                    _ => out.extend(inner.iter().map(|text| format!("{name} {text}"))),
                }
            }
        }
        _ => {}
    }
}

/// Takes the call's own secret out of a text.
fn without(text: String, call: &Call) -> String {
    match &call.secret {
        Some((_, secret, _)) if !secret.is_empty() => text.replace(secret.as_str(), "***"),
        _ => text,
    }
}

/// Makes text of strangers fit for a line of a log: without control characters, and cut.
pub(super) fn clean(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for (number, c) in text.trim().chars().enumerate() {
        if number == limit {
            out.push('…');
            break;
        }
        let hides = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        out.push(if hides { ' ' } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::model::Timestamp;

    fn client(api: &str) -> Client {
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

    #[test]
    fn a_link_is_followed_only_below_the_same_base() {
        let client = client("https://git.example.com/api/v3");
        let from = Call::get(["repos"]).query("page", 1);

        let next = client.follow(
            &from,
            "https://git.example.com/api/v3/repositories/1/pulls?page=2",
        );

        let url = client.url(&next.unwrap()).unwrap();
        assert_eq!(url.query(), Some("page=2"));
        for bad in [
            "https://evil.example.com/api/v3/repos?page=2",
            "http://git.example.com/api/v3/repos?page=2",
            "https://git.example.com:444/api/v3/repos",
            "https://git.example.com/other?page=2",
            "https://git.example.com/api/v3/../v4/x",
            "https://u:p@git.example.com/api/v3/repos",
            "/api/v3/repos?page=2",
            "",
        ] {
            let refused = client.follow(&from, bad);
            assert!(matches!(refused, Err(Error::Untrusted(_))), "{bad}");
        }
    }

    #[test]
    fn the_next_page_is_found_in_a_link_header() {
        for (header, next) in [
            (
                r#"<https://a/x?page=2>; rel="next", <https://a/x?page=9>; rel="last""#,
                Some("https://a/x?page=2"),
            ),
            (
                r#"<https://a/x?page=1>; rel="prev", <https://a/x?page=3>; rel="next""#,
                Some("https://a/x?page=3"),
            ),
            (
                "<https://a/x?a=1,2;3>; rel=next",
                Some("https://a/x?a=1,2;3"),
            ),
            (
                r#"<https://a/x>; title="n"; REL="next last""#,
                Some("https://a/x"),
            ),
            (r#"<https://a/x>; rel="last""#, None),
            (r#"<https://a/next>; rel="prev""#, None),
            ("<https://a/x", None),
            ("", None),
        ] {
            assert_eq!(next_link(header).as_deref(), next, "{header}");
        }
    }

    #[test]
    fn a_listing_that_leads_back_is_not_followed_and_one_without_end_is_cut() {
        let client = client("https://a.example");
        let first = Call::get(["x"]);
        let mut walk = Walk::new(first.clone(), 2);

        let one = walk.call().unwrap();
        walk.turn_to(&client, &one, Some("https://a.example/x?page=2"))
            .unwrap();
        let two = walk.call().unwrap();
        let back = walk.turn_to(&client, &two, Some("https://a.example/x?page=2"));
        assert!(matches!(back, Err(Error::Untrusted(_))));
        walk.turn_to(&client, &two, Some("https://a.example/x?page=3"))
            .unwrap();

        assert!(walk.call().is_none());
        assert!(walk.cut);
    }

    #[test]
    fn what_a_forge_says_of_an_error_is_found_in_every_shape() {
        for (body, said) in [
            (
                r#"{"message":"Validation Failed","errors":[{"resource":"Issue","field":"body","code":"too_long"}],"documentation_url":"https://x"}"#,
                "Validation Failed: field body: code too_long",
            ),
            (r#"{"message":{"base":["is wrong"]}}"#, "base is wrong"),
            (
                r#"{"error":"invalid_token","error_description":"Token was revoked."}"#,
                "invalid_token: Token was revoked.",
            ),
            (
                r#"{"type":"error","error":{"message":"Bad","detail":"why"}}"#,
                "Bad: why",
            ),
            ("Retry later", "Retry later"),
            ("<html>Bad gateway</html>", ""),
            ("", ""),
        ] {
            assert_eq!(message(body.as_bytes()), said, "{body}");
        }
    }

    #[test]
    fn sec_what_a_forge_says_cannot_break_a_line_or_repeat_the_token() {
        let token = Arc::new(Zeroizing::new("s3cret".to_owned()));
        let call = Call::get(["x"]).bearer(token);

        let said = clean(&without("bad\r\ntoken s3cret\u{202e}".into(), &call), 300);

        assert_eq!(said, "bad  token *** ");
        assert_eq!(clean(&"é".repeat(400), 300).chars().count(), 301);
    }
}
