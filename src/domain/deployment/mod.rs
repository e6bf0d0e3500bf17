//! One journey of a target, as a fold over its log entries.
//!
//! [`History::record`] is the only place that says which event may follow which; recovery after a crash is the same
//! fold. [`Deployment::next`] says what to do, never how. Nothing here performs anything and nothing waits.

mod conceal;
mod event;
mod history;

pub use conceal::conceal;
pub use event::{Carried, Endorsed, Event, EventKind, Outcome, Pinned, Remedy, Settlement, Step};
pub use history::{
    Applied, Deployment, Endorsement, History, IllegalEvent, Next, Phase, Pin, Treatment,
};
