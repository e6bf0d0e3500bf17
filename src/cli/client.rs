//! The other side of the socket.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Global, usage};
use crate::config::{Config, DEFAULT_PATH};

/// There is no daemon to ask.
#[derive(Debug, thiserror::Error)]
#[error(
    "no isoform daemon answers{at}; start one with `isoform run` or `isoform demo`, or name its socket with --socket"
)]
pub(crate) struct NoDaemon {
    at: String,
}

/// Asks the daemon.
pub(crate) struct Client {
    http: reqwest::Client,
}

/// Finds the configuration file that a command is about.
pub(crate) fn config_path(global: &Global) -> PathBuf {
    global
        .config
        .clone()
        .unwrap_or_else(|| PathBuf::from(DEFAULT_PATH))
}

/// Finds the socket: a flag, the clone's own Git configuration, the configuration file, or a demo nearby.
pub(crate) fn socket_path(global: &Global) -> anyhow::Result<PathBuf> {
    if let Some(path) = &global.socket {
        return Ok(path.clone());
    }
    // What was named outright comes before what lies around: an answer of another daemon could be taken for this one's.
    if global.config.is_some() {
        return Ok(Config::load(&config_path(global))?.socket());
    }
    if let Ok(repository) = git2::Repository::discover(".")
        && let Ok(config) = repository.config()
        && let Ok(path) = config.get_string("isoform.socket")
    {
        return Ok(PathBuf::from(path));
    }
    let file = config_path(global);
    if file.exists() {
        return Ok(Config::load(&file)?.socket());
    }
    let mut folder = std::env::current_dir().ok();
    while let Some(here) = folder {
        for candidate in [
            here.join("isoform-demo/state/isoform.sock"),
            here.join("state/isoform.sock"),
        ] {
            if candidate.exists() {
                return Ok(candidate);
            }
        }
        folder = here.parent().map(Path::to_owned);
    }
    Err(NoDaemon { at: String::new() }.into())
}

impl Client {
    /// Connects to the daemon that the options or the surroundings name.
    pub fn connect(global: &Global) -> anyhow::Result<Self> {
        Self::at(&socket_path(global)?)
    }

    /// Connects to a socket.
    pub fn at(path: &Path) -> anyhow::Result<Self> {
        if !path.exists() {
            return Err(NoDaemon {
                at: format!(" at {}", path.display()),
            }
            .into());
        }
        let http = reqwest::Client::builder()
            .unix_socket(path)
            .build()
            .context("making the client of the socket")?;
        Ok(Self { http })
    }

    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> anyhow::Result<T> {
        let mut url = reqwest::Url::parse(&format!("http://isoform/api/v1/{path}"))
            .context("making the address of a request")?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.read(self.http.get(url)).await
    }

    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.read(
            self.http
                .post(format!("http://isoform/api/v1/{path}"))
                .json(body),
        )
        .await
    }

    pub async fn post_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        body: Vec<u8>,
    ) -> anyhow::Result<T> {
        let mut url = reqwest::Url::parse(&format!("http://isoform/api/v1/{path}"))
            .context("making the address of a request")?;
        url.query_pairs_mut().extend_pairs(query);
        self.read(self.http.post(url).body(body)).await
    }

    async fn read<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> anyhow::Result<T> {
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Err(NoDaemon { at: String::new() }.into()),
            Err(error) => return Err(error).context("asking the daemon"),
        };
        let status = response.status();
        let bytes = response
            .bytes()
            .await
            .context("reading the daemon's answer")?;
        if !status.is_success() {
            let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let text = value.get("error").and_then(|e| e.as_str()).map_or_else(
                || String::from_utf8_lossy(&bytes).into_owned(),
                str::to_owned,
            );
            // What the daemon was asked is wrong, or it knows nothing of that name: the question must change.
            if matches!(status.as_u16(), 400 | 404) {
                return Err(usage(text));
            }
            bail!("{text}");
        }
        serde_json::from_slice(&bytes).context("understanding the daemon's answer")
    }
}
