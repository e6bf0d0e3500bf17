//! The state of a target as people see it, with a stable reason.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What a look at a target came to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum SyncResult {
    /// The stack is what the snapshot asks for.
    InSync,
    /// The snapshot was accepted and CloudFormation found nothing to do.
    NoEffect,
    /// Something holds it; the reason says what.
    Pending,
    /// A change set is being made or read.
    Planning,
    /// A change set runs.
    Applying,
    /// The change is decided; old resources are being removed.
    CleaningUp,
    /// It did not work; the stack is at rest.
    Failed,
    /// A person is needed to move the stack at all.
    Stuck,
    /// Somebody else deploys this stack.
    Foreign,
    /// The stack is not what was last applied.
    Drifted,
    /// Git no longer asks for it.
    Orphaned,
    /// Two sources claim it.
    Contested,
    /// An operator holds it.
    Held,
    /// A newer snapshot took over.
    Superseded,
    /// Nothing could be read; nothing is done.
    Unknown,
}

impl fmt::Display for SyncResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $help:literal),* $(,)?) => {
        /// Why a target is in its state: a closed list with stable codes, shown to users and used as a metric label.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        pub enum Reason { $($(#[$doc])* $name),* }

        impl Reason {
            /// Every reason, for documentation and metrics.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Says what to do about it.
            pub fn help(self) -> &'static str {
                match self { $(Self::$name => $help),* }
            }
        }
    };
}

reasons! {
    /// Nothing stands in the way.
    Settled => "nothing to do",
    /// The files of the commit have faults.
    Invalid => "mend the faults that `isoform why` lists and push again",
    /// A target it uses has not settled.
    Dependency => "it goes on by itself when what it waits for has settled",
    /// An earlier wave has not settled or baked.
    Rollout => "it goes on by itself when the earlier wave has settled and baked",
    /// Too many targets of its wave failed.
    RolloutHalted => "mend the cause and push, or go on with `isoform resume <target>`",
    /// The review needs a person.
    Approval => "read it with `isoform why` and allow it with `isoform approve`",
    /// No window of the target is open.
    Window => "it goes on by itself when a window opens",
    /// The snapshot changes more targets than the placement allows at once.
    BlastRadius => "look at the list and allow it with `isoform approve --snapshot <commit>`",
    /// The placement or source is in mode observe.
    Observe => "set the mode of the placement to approve or auto when you trust what you see",
    /// The file FREEZE is in the state folder.
    Frozen => "remove the file FREEZE from the state folder",
    /// An operator suspended it.
    Suspended => "isoform resume <target>",
    /// A person rejected the review.
    Rejected => "push a change, or `isoform retry <target>`",
    /// The stack policy denies what it would do.
    StackPolicy => "open the policy for exactly this with `isoform approve <target> --open-policy`, or push another change",
    /// A person stopped it.
    Cancelled => "push a change, or `isoform retry <target>`",
    /// An operator holds it at an earlier deployment.
    Pinned => "it follows Git again by itself when Git asks for the same, or at once with `isoform resume <target>`",
    /// The renderer of this release writes other bytes for the same inputs.
    RendererChanged => "look at the difference with `isoform diff` and approve it",
    /// The stack rolled back after a failed change.
    StackRolledBack => "mend the cause and push, or `isoform retry <target>`",
    /// The first creation failed and nothing was left.
    StackCreateFailed => "mend the cause and push, or `isoform retry <target>`",
    /// CloudFormation refused the change set.
    ChangeSetFailed => "read the text of CloudFormation in `isoform why`, mend and push",
    /// The stack cannot move without a person.
    StackStuck => "see docs/guides/stuck-stacks.md",
    /// Somebody else changed the stack since it was last applied.
    OutOfBand => "isoform drift accept|overwrite <target> --reason …",
    /// The stack moved between the review and the execution.
    StackMoved => "it plans again by itself",
    /// Somebody else's change set was executed last, or the stack is not ours.
    NotOurs => "take it over with `isoform adopt <target>`, or give the target another `stack_name`",
    /// Two sources claim the address or the stack name.
    Claimed => "let only one source ask for it",
    /// Git no longer asks for it.
    Removed => "nothing is deleted: ask for it again, let `prune` of its placement delete it, or delete the stack by hand",
    /// Git no longer asks for it, and its sync file said that its stack stays.
    Retained => "nothing is deleted: ask for it again, or delete the stack by hand",
    /// Git no longer asks for it, and its stack is protected against deletion.
    Protected => "take the protection off by hand if the stack may go",
    /// Git no longer asks for it, and a second look must say the same.
    SecondLook => "it goes on by itself at the next look",
    /// More stacks would be deleted than may be without a person.
    PruneBudget => "look at each with `isoform why` and let it go with `isoform approve <target>`",
    /// A service did not answer; it is tried again.
    Unavailable => "it is tried again by itself",
    /// A key cannot be used: disabled, deleted, or not allowed.
    KeyUnavailable => "enable the key, or allow what the detail names; it goes on by itself then",
    /// The engine that the manifest names cannot be deployed yet.
    EngineNotSupported => "only jinja with cloudformation can be deployed today",
    /// A fault of isoform itself.
    Internal => "this is a fault of isoform: please report it with `isoform why --output json`",
    /// A newer revision took over.
    NewerRevision => "nothing to do",
    /// It has not been looked at yet.
    NotYet => "nothing to do",
    /// CloudFormation found no change to make.
    NoChanges => "nothing to do",
    /// A force-push or a deleted branch: the policy of the source decides.
    HistoryRewritten => "accept the new history with `isoform approve --source <name>`",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A result with its reason, detail and time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Condition {
    /// The result.
    pub result: SyncResult,
    /// The reason.
    pub reason: Reason,
    /// One sentence for people, without secrets.
    pub detail: String,
    /// Since when it holds.
    pub since: Timestamp,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Settled | Reason::NoChanges => write!(f, "{}", self.result),
            reason => write!(f, "{}({reason})", self.result),
        }
    }
}
