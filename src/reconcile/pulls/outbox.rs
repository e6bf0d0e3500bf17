//! What a forge is to show: kept first, sent afterwards, in order, the last state of each thing.

use serde::{Deserialize, Serialize};

use super::state::Known;
use super::{Place, is_general};
use crate::domain::forge::{Check, ForgeKind};
use crate::domain::plan::{with_answers, without_html};
use crate::port;
use crate::reconcile::{Error, Line};
use crate::store::Posted;

/// How many things are sent in one go.
const BATCH: u32 = 50;
/// How the name of the check ends that says how a merge went.
pub(super) const DEPLOYED: &str = "/deployed";
/// A status is a line.
const TITLE: usize = 140;

#[derive(Serialize, Deserialize)]
enum Post {
    Comment {
        number: u64,
        marker: String,
        text: String,
    },
    Check(Check),
}

/// Everything that is shown of a pull request.
pub(super) fn items(number: u64) -> [String; 3] {
    [
        comment_item(number),
        format!("check/{number}"),
        format!("deployed/{number}"),
    ]
}

pub(super) fn comment_item(number: u64) -> String {
    format!("comment/{number}")
}

/// Returns the text of a comment that was posted.
pub(super) fn text_of(posted: &Posted) -> Option<String> {
    match serde_json::from_slice(&posted.body) {
        Ok(Post::Comment { text, .. }) => Some(text),
        _ => None,
    }
}

impl Line {
    pub(super) async fn post_comment(
        &self,
        place: &Place<'_>,
        known: &Known,
        marker: &str,
        text: String,
    ) -> Result<(), Error> {
        if !place.config.comments {
            return Ok(());
        }
        let number = known.pull.number;
        let text = with_answers(&text, &known.answers);
        let text = match place.forge.kind() {
            ForgeKind::Bitbucket => without_html(&text),
            _ => text,
        };
        let marker = format!("<!-- isoform-preview:v1:{marker} -->");
        let item = comment_item(number);
        let post = Post::Comment {
            number,
            marker,
            text,
        };
        self.post(place, &item, &post).await
    }

    /// Shows a verdict: of the head of a pull request, or of the commit that it was merged by.
    pub(super) async fn post_check(
        &self,
        place: &Place<'_>,
        number: u64,
        mut check: Check,
    ) -> Result<(), Error> {
        if !place.config.checks {
            return Ok(());
        }
        if check.title.chars().count() > TITLE {
            check.title = check.title.chars().take(TITLE - 1).chain(['…']).collect();
        }
        let [_, of_head, of_merge] = items(number);
        let item = match check.name.ends_with(DEPLOYED) {
            true => of_merge,
            false => of_head,
        };
        self.post(place, &item, &Post::Check(check)).await
    }

    async fn post(&self, place: &Place<'_>, item: &str, post: &Post) -> Result<(), Error> {
        let body = serde_json::to_vec(post)
            .map_err(|e| Error::Broken(format!("writing what a forge is to show: {e}")))?;
        self.store.post(place.name, item, &body).await?;
        Ok(())
    }

    /// Tells the forge what it was not told. What it refuses for good is dropped with a word in the log; what fails for
    /// itself alone is left alone for a while, and holds up nothing behind it.
    pub(super) async fn send_posts(&self, place: &Place<'_>) -> Result<(), Error> {
        let unsent = self.store.unsent(place.name, BATCH).await?;
        for posted in unsent {
            let what = format!("post/{}", posted.item);
            if self.is_left(place, &what) {
                continue;
            }
            let remote = match self.send_one(place, &posted).await {
                Ok(remote) => remote,
                Err(error) if is_final(&error) => {
                    tracing::warn!(source.name = %place.name, "the forge does not take {}: {error}", posted.item);
                    posted.remote
                }
                Err(error) if is_general(&error) => return Err(error.into()),
                Err(error) => {
                    self.leave(place, &what, &error);
                    continue;
                }
            };
            self.is_well(place, &what);
            self.store
                .sent(place.name, &posted.item, posted.seq, remote)
                .await?;
        }
        Ok(())
    }

    /// Shows the newest answers below what is shown.
    pub(super) async fn post_answers(&self, place: &Place<'_>, known: &Known) -> Result<(), Error> {
        let number = known.pull.number;
        let item = comment_item(number);
        let posted = self.store.posted(place.name, &item).await?;
        let Some(text) = posted.and_then(|p| text_of(&p)) else {
            return Ok(());
        };
        self.post_comment(place, known, &place.marker(self, number), text)
            .await
    }

    async fn send_one(
        &self,
        place: &Place<'_>,
        posted: &Posted,
    ) -> Result<Option<u64>, port::Error> {
        match serde_json::from_slice(&posted.body) {
            Ok(Post::Comment {
                number,
                marker,
                text,
            }) => {
                let id = place
                    .forge
                    .write_comment(number, &marker, posted.remote, &text)
                    .await?;
                Ok(Some(id))
            }
            Ok(Post::Check(check)) => place.forge.report(&check).await.map(|()| None),
            // Of another release: whatever it was, it is made anew.
            Err(_) => Ok(None),
        }
    }
}

/// Tells whether trying again can change nothing: it would stop everything behind it.
fn is_final(error: &port::Error) -> bool {
    matches!(
        error,
        port::Error::Refused(_) | port::Error::NotFound(_) | port::Error::Unsupported(_)
    )
}
