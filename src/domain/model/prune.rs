//! What becomes of a stack that nothing asks for any more.

use serde::{Deserialize, Serialize};

/// What is done with a stack that is no longer asked for. The stricter of a placement's and a target's holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prune {
    /// It stays and is reported.
    #[default]
    Never,
    /// It is deleted when a person has approved exactly that.
    Ask,
    /// It is deleted, within the budget; what holds state still asks.
    Auto,
}
