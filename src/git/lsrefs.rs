//! One branch over http(s) with protocol version 2: <https://git-scm.com/docs/protocol-v2>.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Error, Remote};
use crate::domain::model::Revision;

const LIMIT: usize = 256 << 10;
const DEADLINE: Duration = Duration::from_secs(30);

/// What asks over http(s): kept connections, and which repositories are known to speak protocol version 2.
///
/// A repository is greeted once; every later question is one exchange, whatever the number of its refs.
pub struct Client {
    http: reqwest::Client,
    greeted: Mutex<BTreeSet<String>>,
}

impl Client {
    /// Makes a client that follows no redirect and speaks TLS 1.2 or newer.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            http: reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .tls_version_min(reqwest::tls::Version::TLS_1_2)
                .connect_timeout(Duration::from_secs(10))
                .build()?,
            greeted: Mutex::default(),
        })
    }

    fn greeted(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.greeted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn packet(text: &str) -> String {
    format!("{:04x}{text}", text.len() + 4)
}

pub(super) async fn tip(remote: &Remote, client: &Client) -> Result<Option<Revision>, Error> {
    let token = remote.token()?;
    let exchange = Exchange {
        remote,
        base: remote.url.trim_end_matches('/'),
        http: &client.http,
        token: token.as_deref(),
    };
    let known = client.greeted().contains(exchange.base);
    if known {
        match exchange.ask().await {
            Ok(found) => return Ok(found),
            Err(error) => {
                client.greeted().remove(exchange.base);
                if matches!(&error, Error::Http(e) if e.is_timeout()) {
                    return Err(error);
                }
                // The server may be another one by now: the whole exchange tells what is wrong.
            }
        }
    }
    exchange.greet().await?;
    let found = exchange.ask().await?;
    client.greeted().insert(exchange.base.to_owned());
    Ok(found)
}

struct Exchange<'a> {
    remote: &'a Remote,
    base: &'a str,
    http: &'a reqwest::Client,
    token: Option<&'a str>,
}

impl Exchange<'_> {
    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>, Error> {
        let request = request
            .header("Git-Protocol", "version=2")
            .timeout(DEADLINE.min(self.remote.patience.total));
        let user = self.remote.auth.user.as_deref();
        let request = match self.token {
            Some(token) => request.basic_auth(user.unwrap_or("x-access-token"), Some(token)),
            None => request,
        };
        read(request.send().await?).await
    }

    /// Asks what the server speaks. Git wants this before anything else.
    async fn greet(&self) -> Result<(), Error> {
        let url = format!("{}/info/refs?service=git-upload-pack", self.base);
        let greeting = self.send(self.http.get(url)).await?;
        if greeting.windows(9).any(|w| w == b"version 2") {
            return Ok(());
        }
        Err(Error::Protocol(
            "without protocol version 2; dumb http is refused".into(),
        ))
    }

    /// Asks where the branch is.
    async fn ask(&self) -> Result<Option<Revision>, Error> {
        let wanted = self.remote.reference();
        let body = format!(
            "{}{}0001{}0000",
            packet("command=ls-refs\n"),
            packet("agent=isoform\n"),
            packet(&format!("ref-prefix {wanted}\n"))
        );
        let request = self
            .http
            .post(format!("{}/git-upload-pack", self.base))
            .header("Content-Type", "application/x-git-upload-pack-request")
            .header("Accept", "application/x-git-upload-pack-result")
            .body(body);
        parse(&self.send(request).await?, &wanted)
    }
}

async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, Error> {
    if !response.status().is_success() {
        return Err(Error::Protocol(format!(
            "HTTP status {}",
            response.status()
        )));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LIMIT {
            return Err(Error::Protocol(format!(
                "more than {LIMIT} bytes to a question for one branch"
            )));
        }
    }
    Ok(bytes)
}

fn parse(bytes: &[u8], wanted: &str) -> Result<Option<Revision>, Error> {
    let bad = |what: &str| Error::Protocol(what.to_owned());
    let mut rest = bytes;
    let mut found = None;
    while rest.len() >= 4 {
        let length = std::str::from_utf8(&rest[..4])
            .ok()
            .and_then(|t| usize::from_str_radix(t, 16).ok())
            .ok_or_else(|| bad("a broken packet length"))?;
        if length == 0 {
            // An answer without its end may be one without the branch: unknown, and not absent.
            return Ok(found);
        }
        if length < 4 {
            rest = &rest[4..];
            continue;
        }
        let line = rest
            .get(4..length)
            .ok_or_else(|| bad("a packet that is cut"))?;
        let line = std::str::from_utf8(line)
            .map_err(|_| bad("a packet that is not text"))?
            .trim_end();
        if let Some(error) = line.strip_prefix("ERR ") {
            return Err(bad(&error.chars().take(200).collect::<String>()));
        }
        let mut words = line.split(' ');
        if let (Some(id), Some(name)) = (words.next(), words.next())
            && name == wanted
        {
            let id = id.parse().map_err(|_| bad("a commit id that is none"))?;
            found = Some(id);
        }
        rest = &rest[length..];
    }
    Err(bad("an answer that is cut"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_branch_counts() {
        let id = "0123456789012345678901234567890123456789";
        let answer = format!(
            "{}{}0000",
            packet(&format!("{id} refs/heads/main-2\n")),
            packet(&format!("{} refs/heads/main\n", id.replace('0', "a")))
        );
        assert_eq!(
            parse(answer.as_bytes(), "refs/heads/main")
                .unwrap()
                .unwrap()
                .as_str(),
            id.replace('0', "a")
        );
        assert_eq!(parse(b"0000", "refs/heads/main").unwrap(), None);
        for bad in ["zzzz", "00ff12", "0009ERR x", "", "0001", "<html>"] {
            assert!(parse(bad.as_bytes(), "refs/heads/main").is_err(), "{bad}");
        }
    }
}
