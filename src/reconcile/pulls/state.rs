//! What is known of one pull request, as it lies in the store.

use serde::{Deserialize, Serialize};

use crate::domain::forge::{PullRequest, PullState, Verdict};
use crate::domain::model::{Address, Digest, Revision, TargetUid, Timestamp};
use crate::domain::plan::Answer;

/// How many answers are shown.
const ANSWERS: usize = 5;

/// What is known of a pull request.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Known {
    /// As the forge told it last.
    pub pull: PullRequest,
    /// The newest comment that was read.
    pub read: u64,
    /// What was shown.
    pub shown: Option<Shown>,
    /// What was asked for lately, the oldest first.
    pub answers: Vec<Answer>,
    /// The head of another repository that somebody has let in.
    pub let_in: Option<Revision>,
    /// The head and base that are being looked at, and how often that was begun: what ends the daemon twice is left alone.
    pub tried: Option<(Revision, Revision, u32)>,
    /// A look that failed: at what, how often, and when to try it again.
    #[serde(default)]
    pub failed: Option<Failed>,
    /// Since when it is merged, as this daemon found.
    pub merged: Option<Timestamp>,
    /// Whether it was merged and everything came to its end.
    pub over: bool,
    /// Since when it is closed, or somewhere else. It is kept for a while, with what was read of it: whoever opens it again
    /// does not have commands obeyed once more.
    #[serde(default)]
    pub gone: Option<Timestamp>,
}

/// A look that failed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Failed {
    /// Head, base and what was deployed.
    pub at: (Revision, Revision, String),
    /// How often.
    pub times: u32,
    /// When to try again.
    pub again: Timestamp,
}

/// What was shown of a pull request.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Shown {
    /// The head.
    pub head: Revision,
    /// What it would be merged into.
    pub base: Revision,
    /// What was deployed then, as one digest.
    pub mark: String,
    /// What the check said.
    pub verdict: Verdict,
    /// The targets that change.
    pub targets: Vec<ShownTarget>,
}

/// What was shown of one target.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct ShownTarget {
    /// Its address.
    pub address: Address,
    /// Its uid, where it has one.
    pub uid: Option<TargetUid>,
    /// The review, where CloudFormation was asked.
    pub review: Option<Digest>,
    /// The changes in lines.
    pub lines: Vec<String>,
}

impl Known {
    pub fn new(pull: PullRequest) -> Self {
        Self {
            pull,
            read: 0,
            shown: None,
            answers: Vec::new(),
            let_in: None,
            tried: None,
            failed: None,
            merged: None,
            over: false,
            gone: None,
        }
    }

    pub fn is_open(&self) -> bool {
        self.pull.state == PullState::Open && self.gone.is_none()
    }

    /// Tells whether it comes from another repository and nobody has let its head in.
    pub fn is_stranger(&self) -> bool {
        self.pull.fork && self.let_in.as_ref() != Some(&self.pull.head)
    }

    /// Returns what was shown of a target at the head that there is now.
    pub fn shown_of(&self, address: &Address) -> Option<&ShownTarget> {
        let shown = self.shown.as_ref().filter(|s| s.head == self.pull.head)?;
        shown.targets.iter().find(|t| t.address == *address)
    }

    pub fn answer(&mut self, answer: Answer) {
        self.answers.push(answer);
        let more = self.answers.len().saturating_sub(ANSWERS);
        self.answers.drain(..more);
    }
}
