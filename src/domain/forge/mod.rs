//! Forges, as far as they can be decided without one: whose requests, what they say, what people ask for in comments.
//!
//! Nothing that comes from a forge is believed beyond what it names: a webhook says what to look at, a comment what
//! somebody would like. What is true is asked of the forge and of Git.

mod command;
mod delivery;
mod pull;
mod signature;

pub use command::{Command, PREFIX, Verb, commands};
pub use delivery::{Delivery, News, Refusal, admit};
pub use pull::{
    Annotation, Check, Level, Permission, Person, PullComment, PullRequest, PullState, Verdict,
};

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which kind of forge.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForgeKind {
    /// GitHub, and GitHub Enterprise Server.
    GitHub,
    /// GitLab, hosted or one's own.
    GitLab,
    /// Gitea and Forgejo.
    Gitea,
    /// Bitbucket Cloud.
    Bitbucket,
}

impl ForgeKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::GitHub, Self::GitLab, Self::Gitea, Self::Bitbucket];

    /// Returns its word, as the configuration writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Gitea => "gitea",
            Self::Bitbucket => "bitbucket",
        }
    }

    /// Returns the base address of the API that serves repositories on a host.
    ///
    /// GitHub: <https://docs.github.com/rest/using-the-rest-api/getting-started-with-the-rest-api>; with data residency
    /// (`<name>.ghe.com`) a host of its own, on GitHub Enterprise Server a path. GitLab: `/api/v4`, Gitea and Forgejo:
    /// `/api/v1`, both below the address of the pages, which may be a path of the host: then it has to be configured.
    /// Absent where the host is none, or where Bitbucket is somebody's own: that is another product.
    pub fn api(self, host: &str) -> Option<String> {
        let host = host.to_ascii_lowercase();
        let (name, port) = match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host.as_str(), None),
        };
        let label =
            |l: &str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let digits = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
        if !name.split('.').all(label) || !port.is_none_or(digits) {
            return None;
        }
        match self {
            Self::GitHub if host == "github.com" => Some("https://api.github.com".to_owned()),
            Self::GitHub if host.ends_with(".ghe.com") => Some(format!("https://api.{host}")),
            Self::GitHub => Some(format!("https://{host}/api/v3")),
            Self::GitLab => Some(format!("https://{host}/api/v4")),
            Self::Gitea => Some(format!("https://{host}/api/v1")),
            Self::Bitbucket => {
                (host == "bitbucket.org").then(|| "https://api.bitbucket.org/2.0".to_owned())
            }
        }
    }

    /// Returns the ref under which the forge keeps the head of a pull request; absent where there is none and the branch
    /// itself is read.
    ///
    /// GitHub and Gitea: `refs/pull/<n>/head`; GitLab: `refs/merge-requests/<n>/head`. Bitbucket Cloud keeps none.
    pub fn head_ref(self, number: u64) -> Option<String> {
        match self {
            Self::GitHub | Self::Gitea => Some(format!("refs/pull/{number}/head")),
            Self::GitLab => Some(format!("refs/merge-requests/{number}/head")),
            Self::Bitbucket => None,
        }
    }
}

impl fmt::Display for ForgeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_of_a_host_is_where_each_forge_keeps_it() {
        for (kind, host, api) in [
            (
                ForgeKind::GitHub,
                "github.com",
                Some("https://api.github.com"),
            ),
            (
                ForgeKind::GitHub,
                "GitHub.com",
                Some("https://api.github.com"),
            ),
            (
                ForgeKind::GitHub,
                "acme.ghe.com",
                Some("https://api.acme.ghe.com"),
            ),
            (
                ForgeKind::GitHub,
                "git.acme.example",
                Some("https://git.acme.example/api/v3"),
            ),
            (
                ForgeKind::GitLab,
                "gitlab.com",
                Some("https://gitlab.com/api/v4"),
            ),
            (
                ForgeKind::GitLab,
                "git.acme.example:8443",
                Some("https://git.acme.example:8443/api/v4"),
            ),
            (
                ForgeKind::Gitea,
                "codeberg.org",
                Some("https://codeberg.org/api/v1"),
            ),
            (
                ForgeKind::Bitbucket,
                "bitbucket.org",
                Some("https://api.bitbucket.org/2.0"),
            ),
            (ForgeKind::Bitbucket, "bitbucket.acme.example", None),
            (ForgeKind::GitHub, "", None),
            (ForgeKind::GitLab, "evil.example/x", None),
            (ForgeKind::GitLab, "user@evil.example", None),
            (ForgeKind::GitLab, "evil.example:x", None),
        ] {
            assert_eq!(kind.api(host).as_deref(), api, "{kind} {host}");
        }
    }
}
