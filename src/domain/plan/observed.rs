//! What a stack is: CloudFormation's states as a total function, and the mark that tells whether a stack moved.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::domain::model::{StackId, StackName, Timestamp};

macro_rules! statuses {
    ($($name:ident = $text:literal => $class:ident),* $(,)?) => {
        /// A stack's status: every value of the API model, and one for what it may grow.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        #[expect(missing_docs, reason = "the names are the API's own")]
        pub enum StackStatus { $($name,)* Other(String) }

        impl StackStatus {
            /// Every known status.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Tells what a deployer may do with a stack in this status.
            pub fn class(&self) -> StatusClass {
                match self { $(Self::$name => StatusClass::$class,)* Self::Other(_) => StatusClass::Unknown }
            }

            /// Returns the API's word.
            pub fn as_str(&self) -> &str {
                match self { $(Self::$name => $text,)* Self::Other(text) => text }
            }
        }

        impl FromStr for StackStatus {
            type Err = std::convert::Infallible;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Ok(match text { $($text => Self::$name,)* other => Self::Other(other.to_owned()) })
            }
        }
    };
}

/// What a deployer may do with a stack. Decided by the status alone, never by a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StatusClass {
    /// No resources: a shell that a CREATE change set made. Counts as no stack.
    Shell,
    /// In motion; watch.
    Moving,
    /// In motion, and the change has succeeded.
    CleaningUp,
    /// In motion, and the change has failed.
    RollingBack,
    /// At rest and healthy; the last change succeeded.
    Ready,
    /// At rest and healthy; the last change was rolled back.
    RolledBack,
    /// The first creation failed and was rolled back: only deleting is possible.
    Dead,
    /// At rest in between: a person is needed.
    Stuck,
    /// Gone.
    Gone,
    /// A status that this release does not know: do nothing.
    Unknown,
}

statuses! {
    ReviewInProgress = "REVIEW_IN_PROGRESS" => Shell,
    CreateInProgress = "CREATE_IN_PROGRESS" => Moving,
    CreateFailed = "CREATE_FAILED" => Stuck,
    CreateComplete = "CREATE_COMPLETE" => Ready,
    RollbackInProgress = "ROLLBACK_IN_PROGRESS" => RollingBack,
    RollbackFailed = "ROLLBACK_FAILED" => Stuck,
    RollbackComplete = "ROLLBACK_COMPLETE" => Dead,
    DeleteInProgress = "DELETE_IN_PROGRESS" => Moving,
    DeleteFailed = "DELETE_FAILED" => Stuck,
    DeleteComplete = "DELETE_COMPLETE" => Gone,
    UpdateInProgress = "UPDATE_IN_PROGRESS" => Moving,
    UpdateCompleteCleanupInProgress = "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS" => CleaningUp,
    UpdateComplete = "UPDATE_COMPLETE" => Ready,
    UpdateFailed = "UPDATE_FAILED" => Stuck,
    UpdateRollbackInProgress = "UPDATE_ROLLBACK_IN_PROGRESS" => RollingBack,
    UpdateRollbackFailed = "UPDATE_ROLLBACK_FAILED" => Stuck,
    UpdateRollbackCompleteCleanupInProgress = "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS" => RollingBack,
    UpdateRollbackComplete = "UPDATE_ROLLBACK_COMPLETE" => RolledBack,
    ImportInProgress = "IMPORT_IN_PROGRESS" => Moving,
    ImportComplete = "IMPORT_COMPLETE" => Ready,
    ImportRollbackInProgress = "IMPORT_ROLLBACK_IN_PROGRESS" => RollingBack,
    ImportRollbackFailed = "IMPORT_ROLLBACK_FAILED" => Stuck,
    ImportRollbackComplete = "IMPORT_ROLLBACK_COMPLETE" => RolledBack,
}

impl StackStatus {
    /// Tells whether CloudFormation will not move the stack on its own.
    pub fn is_settled(&self) -> bool {
        !matches!(
            self.class(),
            StatusClass::Moving | StatusClass::CleaningUp | StatusClass::RollingBack
        )
    }
}

impl From<String> for StackStatus {
    fn from(text: String) -> Self {
        match text.parse() {
            Ok(status) => status,
        }
    }
}

impl From<StackStatus> for String {
    fn from(status: StackStatus) -> String {
        status.as_str().to_owned()
    }
}

impl fmt::Display for StackStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The two statuses of a change set, joined to what can be done with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ChangeSetStatus {
    /// Being made.
    Creating,
    /// `CREATE_COMPLETE` and `AVAILABLE`: can be executed.
    Available,
    /// `FAILED` because there is nothing to change.
    NoChanges,
    /// `FAILED` for another reason.
    Failed,
    /// Being executed.
    Executing,
    /// Executed.
    Executed,
    /// Another update landed first.
    Obsolete,
    /// Deleted, or being deleted.
    Deleted,
}

impl ChangeSetStatus {
    /// Joins what the API says in two fields and a text.
    ///
    /// "No changes" is an error with two spellings, and AWS adds words to them: the beginning decides.
    pub fn of(status: &str, execution: &str, reason: Option<&str>) -> Self {
        const NOTHING: [&str; 2] = [
            "The submitted information didn't contain changes.",
            "No updates are to be performed.",
        ];
        match (status, execution) {
            ("FAILED", _)
                if NOTHING
                    .iter()
                    .any(|n| reason.unwrap_or_default().starts_with(n)) =>
            {
                Self::NoChanges
            }
            ("FAILED", _) => Self::Failed,
            ("DELETE_PENDING" | "DELETE_IN_PROGRESS" | "DELETE_COMPLETE" | "DELETE_FAILED", _) => {
                Self::Deleted
            }
            ("CREATE_COMPLETE", "AVAILABLE") => Self::Available,
            ("CREATE_COMPLETE", "OBSOLETE") => Self::Obsolete,
            ("CREATE_COMPLETE", "EXECUTE_IN_PROGRESS") => Self::Executing,
            ("CREATE_COMPLETE", "EXECUTE_COMPLETE" | "EXECUTE_FAILED") => Self::Executed,
            _ => Self::Creating,
        }
    }
}

/// Tells whether a stack moved: every operation changes it, making or discarding a change set never does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Watermark {
    /// The stack's ARN.
    pub stack_id: StackId,
    /// Its status.
    pub status: StackStatus,
    /// When it was last updated.
    pub updated: Option<Timestamp>,
    /// The newest operation that is not `CREATE_CHANGESET`.
    pub operation: Option<String>,
}

/// A stack as described.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Observed {
    /// Its ARN.
    pub stack_id: StackId,
    /// Its name.
    pub name: StackName,
    /// Its status.
    pub status: StackStatus,
    /// The status's reason.
    pub status_reason: Option<String>,
    /// When it was last updated.
    pub updated: Option<Timestamp>,
    /// The newest operation that is not `CREATE_CHANGESET`.
    pub operation: Option<String>,
    /// Parameters; `NoEcho` values read `****`.
    pub parameters: BTreeMap<String, String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Outputs.
    pub outputs: BTreeMap<String, String>,
    /// Notification topics.
    pub notification_arns: Vec<String>,
    /// Whether it is protected against deletion.
    pub termination_protection: bool,
    /// Name of the change set that was executed last.
    pub last_change_set: Option<String>,
    /// The role that CloudFormation works with on this stack, whoever calls: it stays until another one is given.
    #[serde(default)]
    pub role: Option<String>,
    /// The stack that it is nested in.
    #[serde(default)]
    pub parent: Option<StackId>,
}

impl Observed {
    /// Returns the mark; absent for a shell, which counts as no stack.
    pub fn watermark(&self) -> Option<Watermark> {
        (self.status.class() != StatusClass::Shell && self.status.class() != StatusClass::Gone)
            .then(|| Watermark {
                stack_id: self.stack_id.clone(),
                status: self.status.clone(),
                updated: self.updated,
                operation: self.operation.clone(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_reason_tells_that_nothing_changes() {
        use ChangeSetStatus as C;
        let none = "The submitted information didn't contain changes. And some words more.";
        for (status, execution, reason, joined) in [
            ("CREATE_PENDING", "UNAVAILABLE", None, C::Creating),
            ("CREATE_IN_PROGRESS", "UNAVAILABLE", None, C::Creating),
            ("CREATE_COMPLETE", "UNAVAILABLE", None, C::Creating),
            ("CREATE_COMPLETE", "AVAILABLE", None, C::Available),
            ("CREATE_COMPLETE", "OBSOLETE", None, C::Obsolete),
            ("CREATE_COMPLETE", "EXECUTE_IN_PROGRESS", None, C::Executing),
            ("CREATE_COMPLETE", "EXECUTE_FAILED", None, C::Executed),
            ("FAILED", "UNAVAILABLE", Some(none), C::NoChanges),
            (
                "FAILED",
                "UNAVAILABLE",
                Some("No updates are to be performed."),
                C::NoChanges,
            ),
            (
                "FAILED",
                "UNAVAILABLE",
                Some("No export named x found."),
                C::Failed,
            ),
            ("FAILED", "UNAVAILABLE", None, C::Failed),
            ("DELETE_IN_PROGRESS", "UNAVAILABLE", None, C::Deleted),
        ] {
            assert_eq!(
                C::of(status, execution, reason),
                joined,
                "{status} {execution}"
            );
        }
    }

    #[test]
    fn every_status_has_a_class_and_reads_back() {
        assert_eq!(StackStatus::ALL.len(), 23);
        for status in StackStatus::ALL {
            assert_ne!(status.class(), StatusClass::Unknown);
            assert_eq!(&status.as_str().parse::<StackStatus>().unwrap(), status);
        }
        assert_eq!(
            StackStatus::Other("NEW_THING".into()).class(),
            StatusClass::Unknown
        );
        assert!(
            StackStatus::ReviewInProgress.is_settled()
                && !StackStatus::UpdateCompleteCleanupInProgress.is_settled()
        );
    }
}
