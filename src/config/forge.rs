//! Forges of sources, who may ask for what there, and where webhooks are heard.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Source;
use super::raw::{self, File, ForgeMay};
use crate::domain::forge::ForgeKind;
use crate::domain::model::{SourceName, parse_duration};
use crate::domain::policy::People;
use crate::git::Remote;

/// How often pull requests are asked for where nothing else is said: what a webhook missed is found then.
const POLL: Duration = Duration::from_secs(120);

/// The forge of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forge {
    /// Which kind.
    pub kind: ForgeKind,
    /// Its name: who vouches for the people on it.
    pub name: String,
    /// The base of its API, without a slash at the end.
    pub api: String,
    /// The repository, as the forge names it.
    pub repository: String,
    /// How isoform shows who it is.
    pub auth: ForgeAuth,
    /// Certificates that are trusted beside those of the system.
    pub ca: Option<PathBuf>,
    /// Files with the secrets of its webhook, the one in use first; none means that there is no webhook.
    pub secrets: Vec<PathBuf>,
    /// Who may ask for what.
    pub may: ForgeMay,
    /// Whether comments are written.
    pub comments: bool,
    /// Whether checks are reported.
    pub checks: bool,
    /// How often pull requests are asked for.
    pub poll: Duration,
}

/// How isoform shows a forge who it is. Secrets are files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForgeAuth {
    /// A token.
    Token(PathBuf),
    /// An app of GitHub.
    App {
        /// Its id.
        id: String,
        /// Its private key, PEM.
        key: PathBuf,
        /// Its installation; absent means that of the repository.
        installation: Option<u64>,
    },
}

/// Returns host, with its port, and path of a repository's URL.
fn split(url: &str) -> Option<(String, String)> {
    let (authority, path) = match url.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?,
        None => url.split_once(':')?,
    };
    let host = authority.rsplit('@').next()?;
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    Some((host.to_ascii_lowercase(), path.to_owned()))
}

/// Returns the name of a forge by its API.
fn named(api: &str) -> String {
    let host = api.split("://").last().unwrap_or(api);
    let host = host.split('/').next().unwrap_or(host);
    match host {
        "api.github.com" => "github.com".into(),
        "api.bitbucket.org" => "bitbucket.org".into(),
        other => other.to_owned(),
    }
}

fn is_loopback(api: &str) -> bool {
    let rest = api.strip_prefix("http://").unwrap_or_default();
    let host = rest.split('/').next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(h, _)| h);
    matches!(host, "127.0.0.1" | "localhost" | "[::1]")
}

pub(super) fn resolve(
    raw: &raw::Forge,
    remote: &Remote,
    base: &Path,
    at: &str,
    faults: &mut Vec<String>,
) -> Option<Forge> {
    let at = format!("{at}.forge");
    let before = faults.len();
    let of_url = split(&remote.url).filter(|_| remote.local_path().is_none());
    let api = match (&raw.api, &of_url) {
        (Some(api), _) => api.trim_end_matches('/').to_owned(),
        (None, Some((host, _))) => {
            let host = host.rsplit_once(':').map_or(host.as_str(), |(h, port)| {
                // The port of ssh is none of the API.
                if remote.is_http() && !port.is_empty() {
                    host
                } else {
                    h
                }
            });
            raw.kind.api(host).unwrap_or_else(|| {
                faults.push(format!(
                    "{at}.api: {} has none that follows from the host `{}`",
                    raw.kind,
                    host.escape_debug()
                ));
                String::new()
            })
        }
        (None, None) => {
            faults.push(format!("{at}.api: the URL of the source does not tell it"));
            String::new()
        }
    };
    if !(api.is_empty() || api.starts_with("https://") || is_loopback(&api)) {
        faults.push(format!(
            "{at}.api: write https://…; plain http is for this host itself only"
        ));
    }
    if api.contains('@') || api.contains('?') || api.contains('#') {
        faults.push(format!("{at}.api: an address and a path, nothing else"));
    }
    let repository = match (&raw.repository, of_url) {
        (Some(given), _) => given.clone(),
        (None, Some((_, path))) => path,
        (None, None) => {
            faults.push(format!(
                "{at}.repository: the URL of the source does not tell it; write <owner>/<name>"
            ));
            String::new()
        }
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./~".contains(c);
    let parts: Vec<&str> = repository.split('/').collect();
    let enough = match raw.kind {
        ForgeKind::GitLab => parts.len() >= 2,
        _ => parts.len() == 2,
    };
    let valid = enough
        && repository.chars().all(plain)
        && parts.iter().all(|p| !matches!(*p, "" | "." | ".."));
    if !repository.is_empty() && !valid {
        faults.push(format!(
            "{at}.repository: `{}` is no name of a repository; write <owner>/<name>",
            repository.escape_debug()
        ));
    }
    let file = |text: &str, key: &str, faults: &mut Vec<String>| {
        let Some(path) = text.strip_prefix("file:") else {
            faults.push(format!(
                "{at}.{key}: write file:<path>; a secret never stands here"
            ));
            return PathBuf::new();
        };
        base.join(path)
    };
    let auth = match (&raw.token, &raw.app) {
        (Some(token), None) => ForgeAuth::Token(file(token, "token", faults)),
        (None, Some(app)) if raw.kind == ForgeKind::GitHub => ForgeAuth::App {
            id: app.id.clone(),
            key: file(&app.key, "app.key", faults),
            installation: app.installation,
        },
        (None, Some(_)) => {
            faults.push(format!("{at}.app: only GitHub has apps; name a token"));
            return None;
        }
        _ => {
            faults.push(format!("{at}: name a `token`, or an `app` of GitHub"));
            return None;
        }
    };
    let mut secrets = Vec::new();
    if let Some(webhook) = &raw.webhook {
        secrets.push(file(&webhook.secret, "webhook.secret", faults));
        if let Some(former) = &webhook.former {
            secrets.push(file(former, "webhook.former", faults));
        }
    }
    let poll = match raw.poll.as_deref().map(parse_duration) {
        None => POLL,
        Some(Ok(every)) if every >= Duration::from_secs(1) => every,
        Some(Ok(_)) => {
            faults.push(format!("{at}.poll: at least 1s"));
            POLL
        }
        Some(Err(error)) => {
            faults.push(format!("{at}.poll: {error}"));
            POLL
        }
    };
    let name = raw.name.clone().unwrap_or_else(|| named(&api));
    if name.is_empty() && !api.is_empty() || name.contains('@') || name == "local" {
        faults.push(format!("{at}.name: a word without `@`, and not `local`"));
    }
    (faults.len() == before).then(|| Forge {
        kind: raw.kind,
        name,
        api,
        repository,
        auth,
        ca: raw.ca.as_ref().map(|ca| base.join(ca)),
        secrets,
        may: raw.may,
        comments: raw.comments,
        checks: raw.checks,
        poll,
    })
}

pub(super) fn people(file: &File, faults: &mut Vec<String>) -> Arc<People> {
    let given = file.people.iter().map(|(p, i)| (p.as_str(), i.as_slice()));
    let people = People::new(given).unwrap_or_else(|error| {
        faults.push(format!("people: {error}"));
        People::default()
    });
    for name in file.groups.keys().filter(|g| file.people.contains_key(*g)) {
        faults.push(format!("groups.{name}: there is a person of that name"));
    }
    Arc::new(people)
}

/// Returns whom a list means: a group means its members.
pub(super) fn members(
    file: &File,
    list: &[String],
    at: &str,
    faults: &mut Vec<String>,
) -> Vec<String> {
    let mut all = Vec::new();
    for entry in list {
        match file.groups.get(entry) {
            Some(group) if group.is_empty() => {
                faults.push(format!("{at}: nobody is in the group `{entry}`"));
            }
            Some(group) => all.extend(group.iter().cloned()),
            None => all.push(entry.clone()),
        }
    }
    all
}

/// Refuses names where a forge has none that stay one person's: on Bitbucket whoever likes takes any nickname.
pub(super) fn nameless(
    file: &File,
    sources: &BTreeMap<SourceName, Source>,
    faults: &mut Vec<String>,
) {
    let forges = sources.values().filter_map(|s| s.forge.as_ref());
    let nameless: Vec<&str> = forges
        .filter(|f| f.kind == ForgeKind::Bitbucket)
        .map(|f| f.name.as_str())
        .collect();
    let rules = file.placements.iter().filter_map(|(name, p)| {
        let approve = p.gates.approve.as_ref()?;
        Some((
            format!("placements.{name}.gates.approve.from"),
            &approve.from,
        ))
    });
    let people = file.people.iter().map(|(n, l)| (format!("people.{n}"), l));
    let groups = file.groups.iter().map(|(n, l)| (format!("groups.{n}"), l));
    for (at, list) in rules.chain(people).chain(groups) {
        for entry in list {
            let Some((name, issuer)) = entry.rsplit_once('@') else {
                continue;
            };
            if nameless.contains(&issuer) && !name.starts_with('#') {
                faults.push(format!(
                    "{at}: `{entry}`: a name on Bitbucket is whoever takes it; write #<account id>@{issuer}"
                ));
            }
        }
    }
}

pub(super) fn listen(
    file: &File,
    sources: &BTreeMap<SourceName, Source>,
    faults: &mut Vec<String>,
) -> Option<SocketAddr> {
    let heard = |s: &Source| s.forge.as_ref().is_some_and(|f| !f.secrets.is_empty());
    let hooked = sources.iter().find(|(_, s)| heard(s));
    let Some(given) = &file.listen else {
        if let Some((name, _)) = hooked {
            faults.push(format!(
                "sources.{name}.forge.webhook: nothing hears it; name an address under `listen.webhooks`, as in 127.0.0.1:8086"
            ));
        }
        return None;
    };
    let address: SocketAddr = match given.webhooks.parse() {
        Ok(address) => address,
        Err(_) => {
            faults.push(
                "listen.webhooks: write an address and a port, as in 127.0.0.1:8086".to_owned(),
            );
            return None;
        }
    };
    if !address.ip().is_loopback() {
        faults.push("listen.webhooks: only an address of this host itself, as in 127.0.0.1:8086; let a proxy that ends TLS pass webhooks on to it".to_owned());
    }
    if hooked.is_none() {
        faults.push("listen.webhooks: no source has a `forge` with a `webhook`, and a receiver without a secret does not exist".to_owned());
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const GOOD: &str = "isoform: 1\naccounts: {a: {id: '000000000001'}}\nplacements: {beta: {account: a, regions: [us-east-1], mode: auto}}\nsources: {p: {url: 'ssh://git@github.com/acme/platform.git', may: {services: ['*'], placements: [beta]}, forge: {kind: github, token: 'file:token', webhook: {secret: 'file:hook'}}}}\nlisten: {webhooks: '127.0.0.1:8086'}\nstate: {path: state, key: 'file:root.key'}\nlocal: {path: cloud}\n";

    fn resolved(text: &str) -> Result<Config, Vec<String>> {
        let file: File = serde_yaml::from_str(text).unwrap();
        Config::resolve(&file, Path::new("/x"))
    }

    #[test]
    fn what_the_url_tells_need_not_be_said() {
        for (url, kind, api, name, repository) in [
            (
                "ssh://git@github.com/acme/platform.git",
                "github",
                "https://api.github.com",
                "github.com",
                "acme/platform",
            ),
            (
                "git@git.acme.org:acme/platform",
                "github",
                "https://git.acme.org/api/v3",
                "git.acme.org",
                "acme/platform",
            ),
            (
                "https://gitlab.com/acme/sub/platform.git",
                "gitlab",
                "https://gitlab.com/api/v4",
                "gitlab.com",
                "acme/sub/platform",
            ),
            (
                "ssh://git@git.acme.org:2222/acme/platform.git",
                "gitea",
                "https://git.acme.org/api/v1",
                "git.acme.org",
                "acme/platform",
            ),
            (
                "https://bitbucket.org/acme/platform",
                "bitbucket",
                "https://api.bitbucket.org/2.0",
                "bitbucket.org",
                "acme/platform",
            ),
        ] {
            let text = GOOD
                .replace("ssh://git@github.com/acme/platform.git", url)
                .replace("kind: github", &format!("kind: {kind}"));
            let config = resolved(&text).unwrap();
            let forge = config.sources.values().next().unwrap();
            let forge = forge.forge.as_ref().unwrap();
            let told = (
                forge.api.as_str(),
                forge.name.as_str(),
                forge.repository.as_str(),
            );
            assert_eq!(told, (api, name, repository), "{url}");
        }
    }

    #[test]
    fn faults_name_their_key() {
        for (from, to, key) in [
            ("'file:token'", "abc", "sources.p.forge.token"),
            ("'file:hook'", "abc", "sources.p.forge.webhook.secret"),
            ("token: 'file:token', ", "", "sources.p.forge: name a"),
            (
                "kind: github",
                "kind: github, api: 'http://x.org'",
                "sources.p.forge.api",
            ),
            (
                "kind: github",
                "kind: github, repository: '../x'",
                "sources.p.forge.repository",
            ),
            (
                "kind: github",
                "kind: github, name: local",
                "sources.p.forge.name",
            ),
            ("127.0.0.1:8086", "0.0.0.0:8086", "listen.webhooks: only"),
            (
                ", webhook: {secret: 'file:hook'}",
                "",
                "listen.webhooks: no source",
            ),
            (
                "listen: {webhooks: '127.0.0.1:8086'}\n",
                "",
                "sources.p.forge.webhook",
            ),
            (
                "'ssh://git@github.com/acme/platform.git'",
                "/srv/x",
                "sources.p.forge.api",
            ),
        ] {
            let faults = resolved(&GOOD.replace(from, to)).unwrap_err();
            assert!(faults[0].starts_with(key), "{key}: {faults:?}");
        }
    }

    #[test]
    fn a_group_means_its_members_and_one_person_is_one() {
        let gate = |from: &str| {
            GOOD.replace(
                "mode: auto}",
                &format!("mode: auto, gates: {{approve: {{count: 2, from: {from}}}}}}}"),
            ) + "people: {bo: [bo, bo@github.com]}\ngroups: {ops: [bo, ana@github.com], none: []}\n"
        };

        let config = resolved(&gate("[ops]")).unwrap();

        let rule = &config.placements.values().next().unwrap().rule;
        assert_eq!(rule.from, ["bo", "ana@github.com"]);
        let one = resolved(&gate("[bo, bo@github.com]")).unwrap_err();
        assert!(one[0].contains("of 1 people"), "{one:?}");
        assert!(resolved(&gate("[none]")).is_err());
        let bitbucket = gate("[ops]")
            .replace("kind: github", "kind: bitbucket, name: github.com")
            .replace("ssh://git@github.com/", "ssh://git@bitbucket.org/");
        let faults = resolved(&bitbucket).unwrap_err();
        assert!(faults[0].contains("#<account id>@github.com"), "{faults:?}");
    }
}
