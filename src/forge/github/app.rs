//! A GitHub App: a key of its own, and tokens that live for an hour.
//!
//! The key signs a token for the App, with which an installation's token is asked for: for this repository alone, and with
//! no more rights than the adapter uses. Neither is written anywhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::{asked, time};
use crate::domain::model::Timestamp;
use crate::forge::Repository;
use crate::forge::client::{Call, Client};
use crate::port::Error;
use crate::secret_file;

/// <https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app>:
/// 60 seconds in the past against clocks that differ, and no more than ten minutes into the future.
const BEFORE: i64 = 60;
const LIFE: i64 = 9 * 60;
/// A token is not used in its last minutes: a call may take a while, and clocks differ.
const MARGIN: Duration = Duration::from_secs(300);
/// Whatever a forge says, a token is asked for anew after the hour that GitHub gives it.
const AT_MOST: Duration = Duration::from_secs(3600);

/// An App and what it was given.
pub(super) struct App {
    id: String,
    key: PathBuf,
    given: Option<u64>,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    installation: Option<u64>,
    token: Option<Token>,
}

struct Token {
    secret: Arc<Zeroizing<String>>,
    /// By the steady clock.
    until: Timestamp,
}

/// What the App is called.
#[derive(Clone, Deserialize)]
pub(super) struct Identity {
    /// Its number.
    pub id: u64,
    /// Its name in addresses; its comments are by `<slug>[bot]`.
    pub slug: String,
}

#[derive(Deserialize)]
struct Installation {
    id: u64,
}

#[derive(Deserialize)]
struct Granted {
    token: String,
    expires_at: String,
}

impl App {
    pub(super) fn new(id: &str, key: &Path, installation: Option<u64>) -> Self {
        Self {
            id: id.to_owned(),
            key: key.to_owned(),
            given: installation,
            state: tokio::sync::Mutex::default(),
        }
    }

    /// Makes a call as the App itself.
    pub(super) fn sign(&self, client: &Client, call: Call) -> Result<Call, Error> {
        let now = client.clock().now();
        Ok(asked(call).bearer(jwt(&self.id, &self.key, now)?))
    }

    /// Asks who the App is.
    pub(super) async fn identity(&self, client: &Client) -> Result<Identity, Error> {
        let call = self.sign(client, Call::get(["app"]))?;
        client.send(call).await?.json()
    }

    /// Returns a token of the installation; asks for one where there is none that lasts.
    pub(super) async fn token(
        &self,
        client: &Client,
        repository: &Repository,
    ) -> Result<Arc<Zeroizing<String>>, Error> {
        // Held over the calls: whoever comes in the meantime wants the very same token.
        let mut state = self.state.lock().await;
        let steady = client.clock().steady();
        if let Some(token) = state.token.as_ref().filter(|t| t.until > steady) {
            return Ok(token.secret.clone());
        }
        state.token = None;
        let known = self.given.or(state.installation);
        let installation = match known {
            Some(id) => id,
            None => self.look_up(client, repository).await?,
        };
        let granted = match self.ask(client, repository, installation).await {
            // It was taken away and given again since: it has another number then.
            Err(Error::NotFound(_)) if self.given.is_none() && known.is_some() => {
                state.installation = None;
                let installation = self.look_up(client, repository).await?;
                let granted = self.ask(client, repository, installation).await?;
                state.installation = Some(installation);
                granted
            }
            other => {
                let granted = other?;
                state.installation = Some(installation);
                granted
            }
        };
        let secret = granted.secret.clone();
        state.token = Some(granted);
        Ok(secret)
    }

    /// Forgets a token that was not taken.
    pub(super) async fn forget(&self, secret: &Arc<Zeroizing<String>>) {
        let mut state = self.state.lock().await;
        if state
            .token
            .as_ref()
            .is_some_and(|t| Arc::ptr_eq(&t.secret, secret))
        {
            state.token = None;
        }
    }

    async fn look_up(&self, client: &Client, repository: &Repository) -> Result<u64, Error> {
        let path = ["repos", &repository.owner, &repository.name, "installation"];
        let call = self.sign(client, Call::get(path))?;
        let found: Installation = match client.send(call).await {
            Err(Error::NotFound(_)) => {
                return Err(Error::Denied(format!(
                    "the GitHub App {} is not installed on {}/{}: install it there",
                    self.id, repository.owner, repository.name
                )));
            }
            other => other?.json()?,
        };
        Ok(found.id)
    }

    async fn ask(
        &self,
        client: &Client,
        repository: &Repository,
        installation: u64,
    ) -> Result<Token, Error> {
        let installation = installation.to_string();
        let path = ["app", "installations", &installation, "access_tokens"];
        let call = Call::new(Method::POST, path).json(json!({
            "repositories": [repository.name],
            "permissions": { "checks": "write", "metadata": "read", "pull_requests": "write" },
        }));
        let answer = client.send(self.sign(client, call)?).await?;
        let granted: Granted = answer.json()?;
        let secret = Arc::new(Zeroizing::new(granted.token));
        // By the forge's own clock, where it tells it: the end is meant by that.
        let end = time(&granted.expires_at).map_err(|why| answer.wrong(why))?;
        let now = client.clock().now();
        let date = answer
            .header("date")
            .and_then(super::http_date)
            .unwrap_or(now);
        let life = end.since(date).min(AT_MOST).saturating_sub(MARGIN);
        Ok(Token {
            secret,
            until: client.clock().steady().plus(life),
        })
    }
}

/// Signs a token for an App: RFC 7519 with RS256 (RFC 7518 §3.3).
fn jwt(id: &str, key: &Path, now: Timestamp) -> Result<Arc<Zeroizing<String>>, Error> {
    let refuse = |why: String| Error::Denied(format!("the App's key in {}: {why}", key.display()));
    let pem = secret_file::read(key).map_err(|e| refuse(e.to_string()))?;
    let key = read_key(&pem).map_err(refuse)?;
    let seconds = now.0.div_euclid(1000);
    let claims = json!({ "iat": seconds - BEFORE, "exp": seconds + LIFE, "iss": id });
    let token = signed(&key, r#"{"alg":"RS256","typ":"JWT"}"#, &claims.to_string())
        .ok_or_else(|| refuse("it cannot sign".into()))?;
    Ok(Arc::new(Zeroizing::new(token)))
}

/// Reads an RSA key as GitHub gives it (PKCS#1), or as other tools write it (PKCS#8).
fn read_key(pem: &[u8]) -> Result<RsaKeyPair, String> {
    let wrong = || "it is no private RSA key in PEM, as GitHub gives it out for an App".to_owned();
    let key = match PrivateKeyDer::from_pem_slice(pem).map_err(|_| wrong())? {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
        _ => return Err(wrong()),
    };
    key.map_err(|e| format!("{}: {e}", wrong()))
}

fn signed(key: &RsaKeyPair, header: &str, claims: &str) -> Option<String> {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let mut token = format!(
        "{}.{}",
        encode(header.as_bytes()),
        encode(claims.as_bytes())
    );
    let mut signature = vec![0; key.public_modulus_len()];
    let random = SystemRandom::new();
    key.sign(&RSA_PKCS1_SHA256, &random, token.as_bytes(), &mut signature)
        .ok()?;
    token.push('.');
    token.push_str(&encode(&signature));
    Some(token)
}
