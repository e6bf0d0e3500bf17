//! Remotes: what a URL may be, and how libgit2 connects.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use git2::{CertificateCheckStatus, Cred, CredentialType, RemoteCallbacks};

use super::Error;
use super::errand::Meter;
use crate::domain::model::Revision;

/// Why a URL is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(String);

/// How to authenticate. Secrets are files; they are read when they are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// A private key for ssh.
    pub ssh_key: Option<PathBuf>,
    /// The known hosts; absent means the user's own.
    pub known_hosts: Option<PathBuf>,
    /// A token for https, sent as the password.
    pub token: Option<PathBuf>,
    /// The user name that goes with the token.
    pub user: Option<String>,
}

/// How long a remote is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// One whole exchange.
    pub total: Duration,
    /// How long nothing may move within it.
    pub still: Duration,
}

impl Patience {
    /// Waits so long for an exchange, and gives it up earlier when nothing moves for a tenth of that.
    pub fn of(total: Duration) -> Self {
        let still = (total / 10).clamp(Duration::from_secs(1), Duration::from_secs(30));
        Self { total, still }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::of(Duration::from_secs(300))
    }
}

/// A repository and the branch that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The URL, or the path of a local repository.
    pub url: String,
    /// The branch; always resolved as `refs/heads/<branch>`.
    pub branch: String,
    /// How to authenticate.
    pub auth: Auth,
    /// How long it is waited for.
    pub patience: Patience,
}

impl Remote {
    /// Checks a URL and a branch.
    ///
    /// Allowed are absolute paths, `file://`, `https://`, `ssh://`, `user@host:path`, and `http://` to loopback only.
    /// A URL with credentials is refused, and so is everything that begins with `-`.
    pub fn new(url: &str, branch: &str, auth: Auth) -> Result<Self, UrlError> {
        let refuse = |why: &str| Err(UrlError(format!("the repository URL is refused: {why}")));
        if url.starts_with('-') || url.chars().any(|c| c.is_control() || c == ' ') {
            return refuse("it begins with `-` or holds a space or control character");
        }
        let bad_branch = branch.is_empty()
            || branch.starts_with('-')
            || branch.ends_with('/')
            || branch.contains("..")
            || branch
                .chars()
                .any(|c| c.is_control() || " ~^:?*[\\".contains(c));
        if bad_branch || branch.ends_with(".lock") {
            return Err(UrlError(format!(
                "`{}` is not a branch name",
                branch.escape_debug()
            )));
        }
        let remote = Self {
            url: url.to_owned(),
            branch: branch.to_owned(),
            auth,
            patience: Patience::default(),
        };
        if remote.local_path().is_some() {
            return Ok(remote);
        }
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None => match url.split_once(':') {
                Some((host, path))
                    if host.contains('@') && !path.is_empty() && !host.starts_with('-') =>
                {
                    ("ssh", url)
                }
                _ => return refuse("write an absolute path, https://…, ssh://… or user@host:path"),
            },
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        if user.contains(':') {
            return refuse("it holds a password; name a file with the token under `auth`");
        }
        if host.is_empty() || host.starts_with('-') || user.starts_with('-') {
            return refuse("the host or user begins with `-` or is missing");
        }
        let name = host.split(':').next().unwrap_or_default();
        match scheme {
            "https" if user.is_empty() => Ok(remote),
            "https" => refuse("it holds a user name; name it under `auth`"),
            "ssh" => Ok(remote),
            "http" if matches!(name, "127.0.0.1" | "localhost") || host.starts_with("[::1]") => {
                Ok(remote)
            }
            "http" => refuse("plain http is allowed to loopback only"),
            "git" => refuse("git:// has neither encryption nor authentication"),
            _ => refuse("only paths, https, ssh, and http to loopback are allowed"),
        }
    }

    /// Returns the path of a local repository.
    pub fn local_path(&self) -> Option<&Path> {
        let path = self.url.strip_prefix("file://").unwrap_or(&self.url);
        path.starts_with('/').then(|| Path::new(path))
    }

    /// Tells whether it is reached over http or https.
    pub fn is_http(&self) -> bool {
        self.url.starts_with("https://") || self.url.starts_with("http://")
    }

    /// Returns the full name of the branch.
    pub fn reference(&self) -> String {
        format!("refs/heads/{}", self.branch)
    }

    pub(super) fn token(&self) -> Result<Option<String>, Error> {
        let Some(path) = &self.auth.token else {
            return Ok(None);
        };
        let bytes = crate::secret_file::read(path)
            .map_err(|e| Error::File(format!("the token file {}", path.display()), e))?;
        Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()))
    }
}

/// Connects libgit2 with credentials from files and strict host keys.
pub(super) fn callbacks(remote: &Remote) -> RemoteCallbacks<'static> {
    let mut callbacks = RemoteCallbacks::new();
    let meter = Rc::new(RefCell::new(Meter::default()));
    let chatter = meter.clone();
    callbacks.sideband_progress(move |text| chatter.borrow_mut().text(text.len()));
    callbacks.transfer_progress(move |progress| meter.borrow_mut().transfer(&progress));
    let auth = remote.auth.clone();
    let owner = remote.clone();
    let mut tries = 0;
    callbacks.credentials(move |_, user, allowed| {
        // A wrong key makes libgit2 ask again and again.
        tries += 1;
        if tries > 2 {
            return Err(git2::Error::from_str("the credentials were refused"));
        }
        if allowed.contains(CredentialType::SSH_KEY) {
            let user = user.unwrap_or("git");
            return match &auth.ssh_key {
                Some(path) => {
                    let key = crate::secret_file::read(path).map_err(|e| {
                        git2::Error::from_str(&format!("the ssh key cannot be read: {e}"))
                    })?;
                    let text = std::str::from_utf8(&key)
                        .map_err(|_| git2::Error::from_str("the ssh key is not text"))?;
                    Cred::ssh_key_from_memory(user, None, text, None)
                }
                None => Cred::ssh_key_from_agent(user),
            };
        }
        if allowed.contains(CredentialType::USER_PASS_PLAINTEXT)
            && let Ok(Some(token)) = owner.token()
        {
            return Cred::userpass_plaintext(
                auth.user.as_deref().unwrap_or("x-access-token"),
                &token,
            );
        }
        if allowed.contains(CredentialType::USERNAME) {
            return Cred::username(user.unwrap_or("git"));
        }
        Err(git2::Error::from_str(
            "no credentials are configured for this source",
        ))
    });
    if let Some(path) = remote.auth.known_hosts.clone() {
        callbacks.certificate_check(move |certificate, host| {
            let Some(hostkey) = certificate.as_hostkey().and_then(|k| k.hostkey()) else {
                return Ok(CertificateCheckStatus::CertificatePassthrough);
            };
            let known = std::fs::read_to_string(&path).unwrap_or_default();
            if is_known(&known, host, hostkey) {
                Ok(CertificateCheckStatus::CertificateOk)
            } else {
                Err(git2::Error::from_str(
                    "HOSTKEY_UNKNOWN: the host key is not in the known hosts of this source",
                ))
            }
        });
    }
    callbacks
}

/// Looks a host key up: plain host names and `[host]:port`, no hashed ones and no certificate authorities.
fn is_known(known_hosts: &str, host: &str, key: &[u8]) -> bool {
    known_hosts
        .lines()
        .filter(|l| !l.starts_with(['#', '@', '|']))
        .any(|line| {
            let mut words = line.split_whitespace();
            let (Some(names), Some(_), Some(base)) = (words.next(), words.next(), words.next())
            else {
                return false;
            };
            let named = names
                .split(',')
                .any(|n| n.trim_start_matches('[').split(']').next().unwrap_or(n) == host);
            named && decode64(base).is_some_and(|bytes| bytes == key)
        })
}

fn decode64(text: &str) -> Option<Vec<u8>> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => Some(u32::from(c - b'A')),
        b'a'..=b'z' => Some(u32::from(c - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(c - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut out = Vec::new();
    for chunk in text.trim_end_matches('=').as_bytes().chunks(4) {
        let mut n = 0u32;
        for c in chunk {
            n = n << 6 | value(*c)?;
        }
        n <<= 6 * (4 - chunk.len());
        out.extend_from_slice(&n.to_be_bytes()[1..chunk.len()]);
    }
    Some(out)
}

/// Asks a remote over libgit2 where the branch is.
pub(super) fn list_tip(remote: &Remote) -> Result<Option<Revision>, Error> {
    let git = |action: &str| {
        let action = action.to_owned();
        move |source| Error::Git { action, source }
    };
    let mut connection =
        git2::Remote::create_detached(remote.url.as_str()).map_err(git("naming the remote"))?;
    let connected = connection
        .connect_auth(git2::Direction::Fetch, Some(callbacks(remote)), None)
        .map_err(git("connecting to the remote"))?;
    let wanted = remote.reference();
    let found = connected
        .list()
        .map_err(git("listing the refs of the remote"))?
        .iter()
        .find(|h| h.name() == wanted)
        .map(|h| h.oid().to_string());
    found
        .map(|text| {
            text.parse()
                .map_err(|_| Error::Protocol("a commit id that is none".into()))
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_16_dangerous_urls_are_refused() {
        for url in [
            "--upload-pack=touch /tmp/x",
            "-oProxyCommand=x",
            "ext::sh -c x",
            "ext::sh",
            "fd::3",
            "git://host/x",
            "http://example.org/x",
            "https://user:pw@host/x",
            "https://token@host/x",
            "ssh://-oProxyCommand=x/y",
            "ssh://-x@host/y",
            "relative/path",
            "ftp://host/x",
            "https:///x",
            "file://host/x",
            "fd::17/foo",
            "ssh://host -oProxyCommand=x/y",
            "git@-oProxyCommand=x:y",
            "-u@host:x",
            "https://-host/x",
            "http://169.254.169.254/latest",
            "HTTP://example.org/x",
            "https://host\n/x",
            "",
        ] {
            assert!(Remote::new(url, "main", Auth::default()).is_err(), "{url}");
        }
        for url in [
            "/srv/git/x.git",
            "file:///srv/git/x.git",
            "https://host/x",
            "ssh://git@host/x",
            "git@host:x/y.git",
            "http://127.0.0.1:8080/x",
        ] {
            assert!(Remote::new(url, "main", Auth::default()).is_ok(), "{url}");
        }
    }

    #[test]
    fn sec_17_branch_names_are_only_branch_names() {
        for branch in ["-h", "--output=x", "a..b", "a b", "", "a:b", "x.lock"] {
            assert!(
                Remote::new("/x", branch, Auth::default()).is_err(),
                "{branch}"
            );
        }
        assert_eq!(
            Remote::new("/x", "refs/heads/x", Auth::default())
                .unwrap()
                .reference(),
            "refs/heads/refs/heads/x"
        );
    }

    #[test]
    fn sec_21_only_listed_host_keys_are_known() {
        let known = "host,other ssh-ed25519 AAECAw==\n[host2]:2222 ssh-ed25519 AAECAw==\n|1|x|y ssh-rsa AAECAw==\n";
        assert!(is_known(known, "host", &[0, 1, 2, 3]) && is_known(known, "host2", &[0, 1, 2, 3]));
        assert!(
            !is_known(known, "host", &[0, 1, 2, 4])
                && !is_known(known, "evil", &[0, 1, 2, 3])
                && !is_known("", "host", &[])
        );
    }
}
