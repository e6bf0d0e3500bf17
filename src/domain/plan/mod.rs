//! Desired against observed: what a stack should be, what it is, what would change, and the review of a change set.
//!
//! Start at [`Desired`] and [`compare()`]. Nothing here renders and nothing here knows how a change set is made.

mod capabilities;
mod comment;
mod compare;
mod concern;
mod desired;
mod diff;
mod inside;
mod observed;
mod preview;
mod pull;
mod review;

pub use capabilities::{acknowledged, covers, grown, unforeseen};
pub use comment::{About, comment, conflict, gravest_first};
pub use compare::{ResourceState, compare, removal, replacement_of};
pub use concern::{Concern, Worry, concerns};
pub use desired::{
    Desired, MadeFor, OWNER_TAGS, change_set_name, generation_of, made_for, owner_tags,
    preview_name,
};
pub use diff::{DiffReport, Move, Orphan, TargetDiff};
pub use inside::{Whole, hidden_losses};
pub use observed::{ChangeSetStatus, Observed, StackStatus, StatusClass, Watermark};
pub use preview::{Deployed, Preview, Read, preview, preview_read};
pub use pull::{
    ANSWERS, Answer, Aside, Asks, Outcome, Went, aside, change_lines, difference, outcome, stale,
    stranger, with_answers, without_html,
};
pub use review::{Action, Change, PolicyAction, PropertyChange, Replacement, Review, Unshown};
