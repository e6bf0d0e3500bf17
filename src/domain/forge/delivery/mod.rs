//! A delivery of a webhook: admitted by its signature, then asked for what it names and nothing else.
//!
//! What it says is a hint. Whether a branch has moved and what a comment says is asked of Git and of the forge, so
//! a delivery that comes twice, late or never changes nothing but when somebody looks.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{ForgeKind, signature};

/// The most characters of a delivery's id that are kept.
const LONGEST_ID: usize = 128;
/// The longest name of a repository or branch that is taken.
const LONGEST_NAME: usize = 1024;

/// What a webhook told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// The forge's id of the delivery, of at most 128 printable ASCII characters. It is not signed on every forge: good for
    /// leaving out what came twice, and for nothing else.
    pub id: Option<String>,
    /// The repository's full name as the forge spells it; forges do not tell upper case from lower case.
    pub repository: Option<String>,
    /// What there is to look at.
    pub news: News,
}

/// What a delivery is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// The hook was made.
    Ping,
    /// Branches moved, appeared or went, without `refs/heads/`. Bitbucket tells of several at once.
    Push {
        /// Their names; never empty.
        branches: Vec<String>,
    },
    /// Something about a pull request changed.
    Pull(u64),
    /// Somebody wrote under a pull request.
    Comment {
        /// Its number.
        pull: u64,
    },
    /// Nothing that is looked at.
    Other,
}

/// Why a delivery is not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It has no signature of the kind that is asked for.
    Unsigned,
    /// Its signature is under none of the secrets, or of other bytes.
    BadSignature,
    /// A header is missing, comes twice, or contradicts another.
    BadHeader(&'static str),
    /// The body is not what the event sends. Never holds a part of the body.
    BadBody(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned => f.write_str("it is not signed: give the webhook its secret"),
            Self::BadSignature => {
                f.write_str("its signature is not under the secret of this source")
            }
            Self::BadHeader(name) => write!(f, "the header {name} is missing or in doubt"),
            Self::BadBody(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Refusal {}

/// Admits a delivery: checks its signature over the body as it came, then decodes what it names.
///
/// Any of the secrets admits it, so that one can be rotated. What a delivery holds beyond what [`Delivery`] names is
/// skipped and not kept, however deep or long it is.
pub fn admit(
    kind: ForgeKind,
    headers: &[(&str, &[u8])],
    body: &[u8],
    secrets: &[&[u8]],
) -> Result<Delivery, Refusal> {
    let headers = Headers(headers);
    signature::check(kind, &headers, body, secrets)?;
    if body.starts_with(b"payload=") {
        return Err(Refusal::BadBody(
            "the body is a form: choose the content type application/json for the webhook".into(),
        ));
    }
    let id = id(kind, &headers)?;
    let (repository, news) = match kind {
        ForgeKind::GitHub => github(&headers, body),
        ForgeKind::GitLab => gitlab(body),
        ForgeKind::Gitea => gitea(&headers, body),
        ForgeKind::Bitbucket => bitbucket(&headers, body),
    }?;
    Ok(Delivery {
        id,
        repository: repository.map(named).transpose()?,
        news,
    })
}

/// The headers of a delivery.
pub(super) struct Headers<'a>(&'a [(&'a str, &'a [u8])]);

impl<'a> Headers<'a> {
    /// Returns the value of a header. One that comes twice is refused: two readers might take one each.
    pub(super) fn one(&self, name: &'static str) -> Result<Option<&'a [u8]>, Refusal> {
        let mut all = self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let first = all.next().map(|(_, value)| *value);
        if all.next().is_some() {
            return Err(Refusal::BadHeader(name));
        }
        Ok(first)
    }

    /// Returns the value of a header that must be there.
    fn event(&self, name: &'static str) -> Result<&'a str, Refusal> {
        let value = self.one(name)?.ok_or(Refusal::BadHeader(name))?;
        std::str::from_utf8(value).map_err(|_| Refusal::BadHeader(name))
    }
}

/// The headers that name a delivery, the best first.
fn id(kind: ForgeKind, headers: &Headers<'_>) -> Result<Option<String>, Refusal> {
    let names: &[&'static str] = match kind {
        ForgeKind::GitHub => &["x-github-delivery"],
        // The key stays when GitLab sends the same again; an event's own id is shared by what it caused elsewhere.
        ForgeKind::GitLab => &["idempotency-key", "webhook-id", "x-gitlab-event-uuid"],
        ForgeKind::Gitea => &["x-gitea-delivery", "x-forgejo-delivery"],
        // `X-Hook-UUID` names the hook, and not what it sends.
        ForgeKind::Bitbucket => &["x-request-uuid"],
    };
    for name in names {
        let value = headers.one(name)?.unwrap_or_default();
        let printable = value.iter().filter(|byte| byte.is_ascii_graphic());
        let id: String = printable.take(LONGEST_ID).map(|b| char::from(*b)).collect();
        if !id.is_empty() {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// A repository's name, where there is one, and the news of it.
type Told = Result<(Option<String>, News), Refusal>;

/// An object, and no array: what is derived would take one for the other.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        from.deserialize_map(Members(PhantomData))
    }
}

#[derive(Deserialize)]
struct Named {
    full_name: String,
}

#[derive(Deserialize)]
struct Numbered {
    number: u64,
}

/// What any event says that is not looked at.
#[derive(Deserialize)]
struct Plain {
    repository: Option<Object<Named>>,
}

#[derive(Deserialize)]
struct Push {
    repository: Object<Named>,
    r#ref: String,
}

#[derive(Deserialize)]
struct Pull {
    repository: Object<Named>,
    pull_request: Object<Numbered>,
}

/// A comment of GitHub or Gitea. Issues have such too.
#[derive(Deserialize)]
struct Comment {
    repository: Object<Named>,
    action: String,
    issue: Object<Issue>,
    is_pull: Option<bool>,
    pull_request: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Issue {
    number: u64,
    pull_request: Option<IgnoredAny>,
}

impl Push {
    fn told(self) -> Told {
        let news = match self.r#ref.strip_prefix("refs/heads/") {
            Some(branch) => News::Push {
                branches: vec![named(branch.to_owned())?],
            },
            None => News::Other,
        };
        Ok((Some(self.repository.0.full_name), news))
    }
}

impl Pull {
    fn told(self) -> Told {
        let number = numbered(self.pull_request.0.number)?;
        Ok((Some(self.repository.0.full_name), News::Pull(number)))
    }
}

impl Comment {
    fn told(self) -> Told {
        let under_a_pull = self.issue.0.pull_request.is_some()
            || self.pull_request.is_some()
            || self.is_pull == Some(true);
        // What is changed or taken back afterwards is not what people agreed to.
        let news = if under_a_pull && self.action == "created" {
            News::Comment {
                pull: numbered(self.issue.0.number)?,
            }
        } else {
            News::Other
        };
        Ok((Some(self.repository.0.full_name), news))
    }
}

impl Plain {
    fn told(self, news: News) -> Told {
        Ok((self.repository.map(|r| r.0.full_name), news))
    }
}

/// <https://docs.github.com/en/webhooks/webhook-events-and-payloads>
fn github(headers: &Headers<'_>, body: &[u8]) -> Told {
    match headers.event("x-github-event")? {
        "ping" => decode::<Plain>(body)?.told(News::Ping),
        "push" => decode::<Push>(body)?.told(),
        "pull_request" => decode::<Pull>(body)?.told(),
        "issue_comment" => decode::<Comment>(body)?.told(),
        _ => decode::<Plain>(body)?.told(News::Other),
    }
}

/// <https://docs.gitea.com/usage/repository/webhooks>, and what its `modules/structs/hook.go` declares.
fn gitea(headers: &Headers<'_>, body: &[u8]) -> Told {
    let (gitea, forgejo) = ("x-gitea-event", "x-forgejo-event");
    let event = match (headers.one(gitea)?, headers.one(forgejo)?) {
        (Some(a), Some(b)) if a != b => return Err(Refusal::BadHeader(forgejo)),
        (None, Some(_)) => headers.event(forgejo)?,
        _ => headers.event(gitea)?,
    };
    match event {
        "push" => decode::<Push>(body)?.told(),
        "pull_request" => decode::<Pull>(body)?.told(),
        "issue_comment" => decode::<Comment>(body)?.told(),
        _ => decode::<Plain>(body)?.told(News::Other),
    }
}

#[derive(Deserialize)]
struct Project {
    path_with_namespace: String,
}

/// Which event it is. GitLab says so in the body, and so it is signed where the body is.
#[derive(Deserialize)]
struct GitLabKind {
    object_kind: Option<String>,
    project: Option<Object<Project>>,
}

#[derive(Deserialize)]
struct GitLabPush {
    r#ref: String,
}

#[derive(Deserialize)]
struct GitLabPull {
    object_attributes: Object<Own>,
}

#[derive(Deserialize)]
struct Own {
    iid: u64,
}

#[derive(Deserialize)]
struct GitLabNote {
    object_attributes: Object<Note>,
    merge_request: Option<Object<Own>>,
}

#[derive(Deserialize)]
struct Note {
    noteable_type: Option<String>,
    /// Absent before GitLab 16.
    action: Option<String>,
    #[serde(default)]
    system: bool,
}

/// <https://docs.gitlab.com/user/project/integrations/webhook_events/>
fn gitlab(body: &[u8]) -> Told {
    let GitLabKind {
        object_kind,
        project,
    } = decode(body)?;
    let news = match object_kind.as_deref().unwrap_or_default() {
        "push" => match decode::<GitLabPush>(body)?
            .r#ref
            .strip_prefix("refs/heads/")
        {
            Some(branch) => News::Push {
                branches: vec![named(branch.to_owned())?],
            },
            None => News::Other,
        },
        "merge_request" => News::Pull(numbered(
            decode::<GitLabPull>(body)?.object_attributes.0.iid,
        )?),
        "note" => {
            let GitLabNote {
                object_attributes: Object(note),
                merge_request,
            } = decode(body)?;
            let created = note.action.is_none_or(|action| action == "create");
            let under_a_pull = note.noteable_type.as_deref() == Some("MergeRequest");
            match merge_request {
                Some(pull) if under_a_pull && created && !note.system => News::Comment {
                    pull: numbered(pull.0.iid)?,
                },
                None if under_a_pull => {
                    return Err(Refusal::BadBody(
                        "the body names no merge request for its comment".into(),
                    ));
                }
                _ => News::Other,
            }
        }
        _ => News::Other,
    };
    if news != News::Other && project.is_none() {
        return Err(Refusal::BadBody("the body names no project".into()));
    }
    Ok((project.map(|p| p.0.path_with_namespace), news))
}

#[derive(Deserialize)]
struct BitbucketPush {
    repository: Object<Named>,
    push: Object<Changes>,
}

#[derive(Deserialize)]
struct Changes {
    changes: Vec<Object<Change>>,
}

/// One branch or tag: `old` is absent where it was made, `new` where it was removed.
#[derive(Deserialize)]
struct Change {
    new: Option<Object<Reference>>,
    old: Option<Object<Reference>>,
}

#[derive(Deserialize)]
struct Reference {
    r#type: String,
    name: String,
}

#[derive(Deserialize)]
struct BitbucketPull {
    repository: Object<Named>,
    pullrequest: Object<Identified>,
}

#[derive(Deserialize)]
struct Identified {
    id: u64,
}

/// <https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/>
fn bitbucket(headers: &Headers<'_>, body: &[u8]) -> Told {
    match headers.event("x-event-key")? {
        "repo:push" => {
            let BitbucketPush { repository, push } = decode(body)?;
            if push.0.changes.is_empty() {
                return Err(Refusal::BadBody("the body names no change".into()));
            }
            let mut branches = Vec::new();
            for change in push.0.changes {
                let Some(Object(reference)) = change.0.new.or(change.0.old) else {
                    return Err(Refusal::BadBody("a change names no branch".into()));
                };
                if reference.r#type == "branch" {
                    branches.push(named(reference.name)?);
                }
            }
            let news = if branches.is_empty() {
                News::Other
            } else {
                News::Push { branches }
            };
            Ok((Some(repository.0.full_name), news))
        }
        event if event.starts_with("pullrequest:") => {
            let pull: BitbucketPull = decode(body)?;
            let number = numbered(pull.pullrequest.0.id)?;
            let news = match event {
                "pullrequest:comment_created" => News::Comment { pull: number },
                _ if event.starts_with("pullrequest:comment_") => News::Other,
                _ => News::Pull(number),
            };
            Ok((Some(pull.repository.0.full_name), news))
        }
        _ => decode::<Plain>(body)?.told(News::Other),
    }
}

/// Decodes what is asked for, and skips the rest without keeping it.
fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map(|Object(value)| value)
        .map_err(|error| {
            // The decoder's own words quote the body, which may hold anything: old versions of Gitea send the secret in it.
            let what = match error.classify() {
                serde_json::error::Category::Data => "is not what this event sends",
                _ => "is no JSON",
            };
            let (line, column) = (error.line(), error.column());
            Refusal::BadBody(format!("the body {what}: line {line}, column {column}"))
        })
}

/// Takes the name of a repository or a branch: data, never a pattern, a path or a part of a URL.
fn named(name: String) -> Result<String, Refusal> {
    if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(Refusal::BadBody(
            "a name in the body is empty, too long, or not printable".into(),
        ));
    }
    Ok(name)
}

fn numbered(number: u64) -> Result<u64, Refusal> {
    if number == 0 {
        return Err(Refusal::BadBody("a number in the body is 0".into()));
    }
    Ok(number)
}

#[cfg(test)]
mod tests;
