//! What the smaller forges have in common: one comment for each marker, names of states, times.

use std::path::PathBuf;

use async_trait::async_trait;

use super::{Auth, client::Call, client::Client};
use crate::domain::forge::ForgeKind;
use crate::domain::model::{Revision, Timestamp};
use crate::port::Error;

/// A comment that may be written anew.
pub(super) struct Written {
    /// The forge's id.
    pub id: u64,
    /// What it says now.
    pub body: String,
}

/// What writing one comment for each marker needs of a forge.
#[async_trait]
pub(super) trait Comments: Sync {
    /// Returns one comment, where it is there, ours, and under this pull request.
    async fn ours(&self, number: u64, id: u64) -> Result<Option<Written>, Error>;
    /// Returns every comment of ours under a pull request.
    async fn all_ours(&self, number: u64) -> Result<Vec<Written>, Error>;
    /// Writes a comment anew.
    async fn edit(&self, number: u64, id: u64, text: &str) -> Result<(), Error>;
    /// Writes a comment.
    async fn add(&self, number: u64, text: &str) -> Result<u64, Error>;
}

/// Writes a comment, or writes it anew in its place: [`crate::port::Forge::write_comment`].
pub(super) async fn write<C: Comments>(
    forge: &C,
    number: u64,
    marker: &str,
    known: Option<u64>,
    text: &str,
) -> Result<u64, Error> {
    if let Some(id) = known
        && let Some(comment) = forge.ours(number, id).await?
        && let Some(id) = anew(forge, number, comment, text).await?
    {
        return Ok(id);
    }
    let mut found = forge.all_ours(number).await?;
    found.retain(|c| c.body.starts_with(marker) && Some(c.id) != known);
    found.sort_by_key(|c| c.id);
    for comment in found {
        if let Some(id) = anew(forge, number, comment, text).await? {
            return Ok(id);
        }
    }
    forge.add(number, text).await
}

/// Writes a comment anew; absent where it cannot be: somebody deleted it meanwhile, or it was not ours after all.
async fn anew<C: Comments>(
    forge: &C,
    number: u64,
    comment: Written,
    text: &str,
) -> Result<Option<u64>, Error> {
    // Forges leave out blanks at the end of a comment.
    if comment.body.trim_end() == text.trim_end() {
        return Ok(Some(comment.id));
    }
    match forge.edit(number, comment.id, text).await {
        Ok(()) => Ok(Some(comment.id)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Refuses a comment that could not be found again or that the forge would not take.
pub(super) fn fits(kind: ForgeKind, marker: &str, text: &str, limit: usize) -> Result<(), Error> {
    if marker.is_empty() || marker.contains('\n') || !text.starts_with(marker) {
        return Err(Error::Refused(
            "a comment must begin with its marker, or it is not found again".into(),
        ));
    }
    let length = text.chars().count();
    if length > limit {
        return Err(Error::Refused(format!(
            "a comment of {length} characters: {kind} takes {limit}"
        )));
    }
    Ok(())
}

/// Takes the file of a token; other forges than GitHub have no Apps.
pub(super) fn token_file(kind: ForgeKind, auth: &Auth) -> Result<PathBuf, Error> {
    match auth {
        Auth::Token(path) => Ok(path.clone()),
        Auth::App { .. } => Err(Error::Refused(format!(
            "only GitHub has Apps: give {kind} a token"
        ))),
    }
}

/// Reads a time (RFC 3339).
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    let time: jiff::Timestamp = text.parse().map_err(|_| "a time that is none".to_owned())?;
    Ok(Timestamp(time.as_millisecond()))
}

/// Reads a commit of a pull request.
pub(super) fn commit(number: u64, sha: &str) -> Result<Revision, String> {
    sha.parse()
        .map_err(|_| format!("pull request {number} names no commit"))
}

/// Returns the first characters of a text, with a sign where there were more.
pub(super) fn first(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(limit.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// Reads the pages of a listing that `Link` headers join; tells whether there were more than are read.
pub(super) async fn pages<T, F>(
    client: &Client,
    first: Call,
    most: usize,
    send: impl Fn(Call) -> F,
) -> Result<(Vec<T>, bool), Error>
where
    T: serde::de::DeserializeOwned,
    F: Future<Output = Result<super::client::Answer, Error>>,
{
    let mut walk = super::walk::Walk::new(first, most);
    let mut all = Vec::new();
    while let Some(call) = walk.call() {
        let answer = send(call.clone()).await?;
        all.extend(answer.json::<Vec<T>>()?);
        walk.turn(client, &call, &answer)?;
    }
    Ok((all, walk.cut))
}

/// Says that a pull request has more comments than are read: what was not read might be what matters.
pub(super) fn too_many(number: u64, most: usize) -> Error {
    Error::Untrusted(format!(
        "pull request {number} has more than {most} comments"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_begins_with_its_marker_and_is_not_too_long() {
        let fits = |marker, text| fits(ForgeKind::GitLab, marker, text, 10);

        assert!(fits("<!---->", "<!---->\nab").is_ok());
        for (marker, text) in [
            ("<!---->", "ab"),
            ("", "ab"),
            ("a\nb", "a\nb"),
            ("<!---->", "<!---->\nabc"),
        ] {
            assert!(
                matches!(fits(marker, text), Err(Error::Refused(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_cut_text_says_so() {
        assert_eq!(first("äöü", 3), "äöü");
        assert_eq!(first("äöüß", 3), "äö…");
    }
}
