//! What a change would have to pass before it runs, in words.

use crate::domain::estate::Target;
use crate::domain::model::counted;
use crate::domain::plan::TargetDiff;
use crate::domain::policy::{Mode, opening};
use crate::domain::spec::Gate;
use crate::reconcile::{Line, Snapshot};

/// What a change would have to pass.
pub(super) struct Ahead {
    pub words: Vec<String>,
    /// How many people must approve; 0 where nobody is asked.
    pub asks: u32,
}

impl Line {
    /// Foretells the gates of a change. They are asked for real when it is there.
    pub(super) fn gates_ahead(
        &self,
        snapshot: &Snapshot,
        target: &Target,
        diff: &TargetDiff,
        in_placement: usize,
    ) -> Ahead {
        let mut words = Vec::new();
        let rule = &target.placement.rule;
        let mode = self.mode(target);
        let loses = diff.changes.iter().any(|c| c.loses_state());
        let uid = snapshot.uids.get(&diff.address);
        let history = uid.and_then(|u| self.history(u));
        let before = history.as_ref().and_then(|h| h.applied.as_ref());
        let gated = target.options.gate == Some(Gate::Approve) || before.is_some_and(|a| a.gated);
        let asked = mode == Mode::Approve || gated || loses;
        if mode == Mode::Observe {
            words.push("nothing is executed: the mode is observe".into());
        } else if asked {
            let people = match rule.from.as_slice() {
                [] => String::new(),
                some => format!(" of {}", some.join(", ")),
            };
            let author = match rule.not_author {
                true => ", not by its author",
                false => "",
            };
            let count = counted(rule.count as usize, "approval");
            words.push(format!("waits for {count}{people}{author}"));
        }
        let radius = target.placement.blast_radius;
        if target.placement.critical || in_placement > radius {
            let count = counted(in_placement, "target");
            words.push(format!(
                "waits for the list to be approved once: {count} of placement {} change",
                target.placement.name
            ));
        }
        if let Some(when) = opening(&target.options.windows, self.clock.now()) {
            words.push(format!("will apply {when}: no window is open"));
        }
        let behind: Vec<String> = target.producers().iter().map(ToString::to_string).collect();
        if !behind.is_empty() {
            words.push(format!("goes after {}", behind.join(", ")));
        }
        if let Some(history) = &history {
            let now = self.clock.now();
            let holds =
                |until: &Option<crate::domain::model::Timestamp>| until.is_none_or(|u| u > now);
            if let Some((why, until, by)) = &history.suspended
                && holds(until)
            {
                words.push(format!("is suspended by {}: {why}", by.display));
            }
            if history.pin.is_some() {
                words.push("is held at an earlier deployment, and follows no push".into());
            }
        }
        let condition = uid.and_then(|u| self.known(u)).map(|k| k.condition);
        if let Some(condition) = condition {
            use crate::domain::model::SyncResult::{Contested, Drifted, Foreign, Stuck};
            if matches!(condition.result, Drifted | Foreign | Stuck | Contested) {
                words.push(format!("stands at {condition}: {}", condition.detail));
            }
        }
        Ahead {
            words,
            asks: if asked && mode != Mode::Observe {
                rule.count
            } else {
                0
            },
        }
    }
}
