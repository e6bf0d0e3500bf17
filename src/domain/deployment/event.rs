//! What is recorded of a target. Entries live for ever: a variant is never removed and a field is only added with a
//! default. `docs/formats/log.md` lists them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::model::{
    Actor, Address, DeploymentId, Digest, Generation, Reason, Revision, SnapshotId, SourceName,
    StackId, StackName, TargetUid, Timestamp,
};
use crate::domain::plan::{StackStatus, Watermark};
use crate::domain::policy::Placed;

/// Everything that was decided when a deployment began. From here on nothing is decided, only carried out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pinned {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Its generation.
    pub generation: Generation,
    /// The snapshot that asked for it.
    pub snapshot: SnapshotId,
    /// The revision of the target's own source.
    pub revision: Revision,
    /// `name@major.minor`, where there is a template.
    pub template: Option<String>,
    /// The bundle's identity.
    pub bundle: Option<Digest>,
    /// The desired digest.
    pub digest: Digest,
    /// The renderer's epoch.
    pub epoch: u32,
    /// Digest of the inputs that the rendering used.
    pub inputs: Digest,
    /// Digest of what was given, the rendered text among it: the same once more needs no reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<Digest>,
    /// What the stack was.
    pub watermark: Option<Watermark>,
    /// The stack's name.
    pub stack_name: StackName,
    /// Key of the rendered text in the bundle store.
    pub rendered: String,
    /// Keyed digest of the payload with inputs, parameters and rendered text.
    pub payload: Digest,
    /// Where it is deployed, and what it uses; absent in entries from before there was removal, and in removals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<Placed>,
    /// Whether the stack is deleted and nothing is rendered.
    #[serde(default, skip_serializing_if = "is_false")]
    pub removal: bool,
    /// Whether an operator brings back what an earlier deployment had pinned: no wave holds it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub rollback: bool,
    /// What an operator does about a stack that a failure left in between; nothing is rendered then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Remedy>,
}

/// What moves a stack that a failure has left in between.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Remedy {
    /// `ContinueUpdateRollback`, for `UPDATE_ROLLBACK_FAILED`.
    Continue {
        /// Logical ids of resources that the rollback leaves as they are.
        skip: Vec<String>,
    },
    /// `RollbackStack`, for `UPDATE_FAILED`, and for a stack in `CREATE_FAILED` that was whole before.
    Rollback,
    /// `DeleteStack`, for the rest of a creation or of a removal that failed.
    Delete {
        /// Logical ids of resources that stay; only where an earlier deletion failed.
        retain: Vec<String>,
    },
}

/// An effect that is announced before it happens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Step {
    /// Put the sealed bundle and the rendered text.
    Store,
    /// Delete a stack of ours that holds nothing: the rest of a failed creation.
    Clear {
        /// The stack.
        stack: StackId,
    },
    /// Make the change set.
    Propose {
        /// Its name.
        name: String,
    },
    /// Discard the change set.
    Discard,
    /// Run the change set.
    Execute {
        /// The token that makes a repeat the same call.
        token: String,
    },
    /// Set options that a change set cannot carry.
    Configure,
    /// Delete a stack that Git no longer asks for.
    Delete {
        /// The stack.
        stack: StackId,
        /// The token that makes a repeat the same call.
        token: String,
    },
    /// Let a stack policy allow what was reviewed.
    OpenPolicy {
        /// Keyed digest of the payload with the policy as it was.
        former: Digest,
    },
    /// Set the stack policy as it was.
    ClosePolicy,
    /// Stop an update that runs.
    Cancel {
        /// The stack.
        stack: StackId,
        /// The token that makes a repeat the same call.
        token: String,
    },
    /// Move a stack that a failure left in between.
    Remedy {
        /// The stack.
        stack: StackId,
        /// The token that makes a repeat the same call.
        token: String,
        /// How.
        remedy: Remedy,
        /// The stack as it was: read so once more, it has not been moved yet.
        watermark: Option<Watermark>,
    },
}

impl Step {
    /// Returns the word for crash points and messages.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Clear { .. } => "clear",
            Self::Propose { .. } => "propose",
            Self::Discard => "discard",
            Self::Execute { .. } => "execute",
            Self::Configure => "configure",
            Self::Delete { .. } => "delete",
            Self::OpenPolicy { .. } => "open-policy",
            Self::ClosePolicy => "close-policy",
            Self::Cancel { .. } => "cancel",
            Self::Remedy { .. } => "remedy",
        }
    }
}

/// How a deployment ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// The stack is what was asked for.
    Applied,
    /// CloudFormation found nothing to do.
    NoEffect,
    /// The change failed and was rolled back.
    RolledBack,
    /// The first creation failed; nothing is left.
    CreateFailed,
    /// The change set could not be made.
    ChangeSetFailed,
    /// The stack cannot move without a person.
    Stuck,
    /// A person said no.
    Rejected,
    /// A newer snapshot, or a stack that moved, took its place.
    Superseded,
    /// The stack is gone, as it should be.
    Removed,
    /// A person stopped it, before it ran or while it did; the stack is what it was.
    Cancelled,
    /// A stack that was stuck is at rest again; what had failed stays failed.
    Remedied,
}

impl Outcome {
    /// Tells whether the change was tried, or refused, and is not there.
    pub fn has_failed(self) -> bool {
        matches!(
            self,
            Self::RolledBack
                | Self::CreateFailed
                | Self::ChangeSetFailed
                | Self::Stuck
                | Self::Rejected
                | Self::Cancelled
        )
    }
}

/// What is known when a deployment has ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settlement {
    /// How it ended.
    pub outcome: Outcome,
    /// The status of the stack.
    pub status: Option<StackStatus>,
    /// The stack's mark afterwards.
    pub watermark: Option<Watermark>,
    /// Keyed digest of the payload with the outputs.
    pub outputs: Option<Digest>,
    /// The names of the outputs.
    pub output_names: Vec<String>,
    /// Why, for people: ids and names, never values.
    pub cause: Option<String>,
    /// The stable reason.
    pub reason: Reason,
    /// Logical ids of the resources that keep a stuck stack from moving.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stuck_on: Vec<String>,
}

/// An approval that was given in a pull request, before its merge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Endorsed {
    /// The source that the pull request is of.
    pub source: SourceName,
    /// Its number.
    pub pull: u64,
    /// The head that was looked at.
    pub head: Revision,
    /// The review that was shown.
    pub review: Digest,
}

/// Where an approval that counts after a merge was given.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Carried {
    /// The pull request.
    pub pull: u64,
    /// When.
    pub at: Timestamp,
}

/// What happened to a target.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", content = "data")]
pub enum EventKind {
    /// The target was seen for the first time: its uid and address are bound.
    Minted {
        /// The address.
        address: Address,
        /// The stack's name, given or minted.
        stack_name: StackName,
        /// Whether the name was given.
        given: bool,
    },
    /// The target has another address.
    Moved {
        /// The new address.
        address: Address,
    },
    /// Ownership of a stack: announced in the bundle store before it counts.
    Owned {
        /// The stack.
        stack: StackId,
    },
    /// A stack that somebody else made is taken over as it is, after CloudFormation found nothing to change in it.
    Adopted {
        /// What a deployment of it would have pinned; its watermark is the stack as it was found.
        pinned: Box<Pinned>,
        /// The stack: its claim lies in the bundle store.
        stack: StackId,
        /// Keyed digest of the payload with the outputs.
        outputs: Option<Digest>,
        /// The names of the outputs.
        output_names: Vec<String>,
        /// Keyed digest of the payload with everything that was compared.
        evidence: Digest,
        /// Tags of an owner that it has: it keeps them and gets no others, for a tag is a change of every resource.
        kept_tags: BTreeMap<String, String>,
    },
    /// A deployment begins.
    Begun(Box<Pinned>),
    /// An effect is about to happen.
    Announced(Step),
    /// Bundle and rendered text are stored.
    Stored {
        /// The version of the rendered object, which the URL names.
        version: Option<String>,
    },
    /// The rest of a failed creation is gone.
    Cleared,
    /// The change set exists.
    Proposed {
        /// Its ARN.
        change_set: String,
        /// The stack.
        stack: StackId,
    },
    /// The change set was read back.
    Reviewed {
        /// The review digest.
        review: Digest,
        /// Keyed digest of the payload with the changes.
        payload: Digest,
        /// Counts in words.
        summary: String,
        /// What would lose state, by logical id and type.
        losses: Vec<String>,
        /// Whether the change set holds nothing and only options change that it cannot carry.
        #[serde(default, skip_serializing_if = "is_false")]
        settings_only: bool,
    },
    /// A gate holds, for these reasons.
    Held {
        /// Stable reasons.
        reasons: Vec<Reason>,
        /// Sentences for people.
        detail: Vec<String>,
    },
    /// Somebody approved a review.
    Approved {
        /// The review.
        review: Digest,
        /// Whether the stack policy is opened for it while it runs.
        #[serde(default, skip_serializing_if = "is_false")]
        opens: bool,
        /// The pull request in which it was given before the merge, and when; the entry's actor is who gave it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        carried: Option<Carried>,
    },
    /// Somebody approved in a pull request what its merge would change: it counts for that head and that review only.
    Endorsed(Endorsed),
    /// Somebody rejected a review.
    Rejected {
        /// The review.
        review: Digest,
        /// Why.
        reason: String,
    },
    /// The stack policy is as it was before it was opened.
    PolicyClosed,
    /// CloudFormation took the execution.
    Executed,
    /// A deployment ends.
    Settled(Box<Settlement>),
    /// Somebody asked to stop the deployment in motion.
    CancelAsked {
        /// Why.
        reason: String,
    },
    /// CloudFormation was told to stop.
    Cancelled {
        /// Its words, where it refused: the update had ended, or cannot be stopped any more.
        refused: Option<String>,
    },
    /// Somebody asked to move a stack that is stuck.
    RemedyAsked {
        /// How.
        remedy: Remedy,
        /// Why.
        reason: String,
    },
    /// CloudFormation was told to move a stack that was stuck.
    Remedied {
        /// Its words, where it refused.
        refused: Option<String>,
    },
    /// Somebody brings back what an earlier deployment had pinned; Git is not followed until it asks for the same.
    RollbackAsked {
        /// What that deployment had pinned.
        to: Box<Pinned>,
        /// Why.
        reason: String,
    },
    /// Git is followed again: it asks for what the target was held at.
    Following,
    /// Git asks for what is applied: a change that failed since is nothing that anybody wants, and would be tried when it is
    /// asked for anew.
    FailureForgotten,
    /// Somebody asked to try again.
    Retried,
    /// Somebody holds the target.
    Suspended {
        /// Why.
        reason: String,
        /// Until when.
        until: Option<Timestamp>,
    },
    /// Somebody lets the target go, or lets a halted rollout go on.
    Resumed,
    /// Somebody accepts what the stack is, or says that it is to be overwritten.
    DriftResolved {
        /// The stack's mark that was accepted.
        watermark: Option<Watermark>,
        /// Whether the next change overwrites it.
        overwrite: bool,
        /// Why.
        reason: String,
    },
    /// Whom it uses has changed and nothing else: what `after` names is no part of what is deployed.
    Uses {
        /// The targets that it uses: they go after it.
        targets: Vec<TargetUid>,
    },
    /// A change set is about to be made only to be looked at: it is read and discarded, never executed.
    Previewing {
        /// Its name.
        change_set: String,
        /// The stack's name, where it is another one than the target's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stack: Option<StackName>,
    },
    /// The change set of a preview is gone.
    Previewed {
        /// Its name.
        change_set: String,
    },
    /// Change sets that bear this installation's names and that nothing here needs are about to be discarded.
    Tidying {
        /// Their names.
        change_sets: Vec<String>,
    },
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_false(value: &bool) -> bool {
    !value
}

/// One entry of a target's stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// The target.
    pub target: TargetUid,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// What.
    pub kind: EventKind,
}

impl EventKind {
    /// Returns the word that stands in the log.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Minted { .. } => "minted",
            Self::Moved { .. } => "moved",
            Self::Owned { .. } => "owned",
            Self::Adopted { .. } => "adopted",
            Self::Begun(_) => "begun",
            Self::Announced(_) => "announced",
            Self::Stored { .. } => "stored",
            Self::Cleared => "cleared",
            Self::Proposed { .. } => "proposed",
            Self::Reviewed { .. } => "reviewed",
            Self::Held { .. } => "held",
            Self::Approved { .. } => "approved",
            Self::Endorsed(_) => "endorsed",
            Self::Rejected { .. } => "rejected",
            Self::PolicyClosed => "policy-closed",
            Self::Executed => "executed",
            Self::CancelAsked { .. } => "cancel-asked",
            Self::Cancelled { .. } => "cancelled",
            Self::RemedyAsked { .. } => "remedy-asked",
            Self::Remedied { .. } => "remedied",
            Self::RollbackAsked { .. } => "rollback-asked",
            Self::Following => "following",
            Self::FailureForgotten => "failure-forgotten",
            Self::Settled(_) => "settled",
            Self::Retried => "retried",
            Self::Suspended { .. } => "suspended",
            Self::Resumed => "resumed",
            Self::DriftResolved { .. } => "drift-resolved",
            Self::Uses { .. } => "uses",
            Self::Previewing { .. } => "previewing",
            Self::Previewed { .. } => "previewed",
            Self::Tidying { .. } => "tidying",
        }
    }

    /// Tells whether the entry binds the future, so that it must be away from this machine before its effect.
    pub fn binds_the_future(&self) -> bool {
        matches!(
            self,
            Self::Minted { .. }
                | Self::Moved { .. }
                | Self::Owned { .. }
                | Self::Adopted { .. }
                | Self::Begun(_)
                | Self::Approved { .. }
                | Self::Endorsed(_)
                | Self::Suspended { .. }
                | Self::DriftResolved { .. }
                | Self::CancelAsked { .. }
                | Self::RollbackAsked { .. }
                | Self::Announced(
                    Step::Execute { .. }
                        | Step::Clear { .. }
                        | Step::Delete { .. }
                        | Step::Remedy { .. }
                        | Step::OpenPolicy { .. }
                )
        )
    }

    /// Returns the digests of the payloads that the entry refers to.
    pub fn payloads(&self) -> Vec<Digest> {
        match self {
            Self::Begun(pinned) | Self::RollbackAsked { to: pinned, .. } => {
                vec![pinned.payload.clone()]
            }
            Self::Adopted {
                pinned,
                outputs,
                evidence,
                ..
            } => {
                let own = [&pinned.payload, evidence];
                own.into_iter().chain(outputs).cloned().collect()
            }
            Self::Reviewed { payload, .. } => vec![payload.clone()],
            Self::Announced(Step::OpenPolicy { former }) => vec![former.clone()],
            Self::Settled(settlement) => settlement.outputs.iter().cloned().collect(),
            _ => Vec::new(),
        }
    }
}
