//! Removal: what happens to a stack that Git no longer asks for.
//!
//! Unknown is never taken for empty: whatever cannot be told keeps the stack. The operator's configuration decides
//! whether anything is deleted at all; a repository can only be stricter.

use serde::{Deserialize, Serialize};

use super::Window;
use crate::domain::model::{Address, PlacementName, Prune, Reason, SourceName, TargetUid};
use crate::domain::spec::Gate;

/// The operator's rule of a placement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PruneRule {
    /// What is done.
    pub policy: Prune,
    /// How many stacks may go within a day without a person.
    pub targets: usize,
    /// The same as a part of the placement's stacks, in percent; the smaller of the two holds.
    pub percent: usize,
}

impl Default for PruneRule {
    fn default() -> Self {
        Self {
            policy: Prune::Never,
            targets: 5,
            percent: 20,
        }
    }
}

/// Where a target was deployed: what must be known when nothing asks for it any more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Placed {
    /// The source that asked for it.
    pub source: SourceName,
    /// The placement.
    pub placement: PlacementName,
    /// Targets that it used: they go after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<Address>,
    /// The same by their uids, which stay what they are when addresses move; absent in older entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Vec<TargetUid>>,
    /// What its sync file said of its removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<Prune>,
    /// The gate that it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// The windows that it had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
}

/// Everything that decides about the removal of one stack.
pub struct PruneInput<'a> {
    /// The placement's rule; absent where the placement is not configured any more.
    pub rule: Option<&'a PruneRule>,
    /// What the target's own sync file said.
    pub own: Option<Prune>,
    /// What keeps from telling whether it is still asked for.
    pub unknown: Option<&'a str>,
    /// Deployed targets that use it.
    pub used_by: &'a [Address],
    /// Whether the stack is protected against deletion.
    pub protected: bool,
    /// Whether two complete looks at the same state agree.
    pub seen_twice: bool,
}

/// What to do with a stack that is not asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PruneVerdict {
    /// It cannot be told whether it is still asked for.
    Unknown(String),
    /// It stays, for now or for good.
    Stays(Reason, String),
    /// It goes, through the gates; with whether a person is asked in any case.
    Goes {
        /// Whether the policy asks a person.
        ask: bool,
    },
}

/// Decides about the removal of one stack. The order is the order of what a person must know first.
pub fn prune(input: &PruneInput<'_>) -> PruneVerdict {
    if let Some(why) = input.unknown {
        return PruneVerdict::Unknown(why.to_owned());
    }
    let stays = |reason, text: &str| PruneVerdict::Stays(reason, text.to_owned());
    let Some(rule) = input.rule else {
        return stays(
            Reason::Removed,
            "its placement is not configured any more, so its stack stays as it is",
        );
    };
    let policy = input.own.map_or(rule.policy, |own| own.min(rule.policy));
    if policy == Prune::Never {
        return if rule.policy == Prune::Never {
            stays(
                Reason::Removed,
                "Git no longer asks for it; its stack stays as it is",
            )
        } else {
            stays(
                Reason::Retained,
                "Git no longer asks for it; its stack stays, as its sync file said",
            )
        };
    }
    if !input.used_by.is_empty() {
        let names: Vec<String> = input
            .used_by
            .iter()
            .take(5)
            .map(ToString::to_string)
            .collect();
        return PruneVerdict::Stays(
            Reason::Dependency,
            format!("it goes after what uses it: {}", names.join(", ")),
        );
    }
    if input.protected {
        return stays(
            Reason::Protected,
            "its stack is protected against deletion, and isoform never takes that off",
        );
    }
    if !input.seen_twice {
        return stays(
            Reason::SecondLook,
            "Git no longer asks for it; one more look must say the same before anything is deleted",
        );
    }
    PruneVerdict::Goes {
        ask: policy == Prune::Ask,
    }
}

/// Says why a removal is over the budget; absent where it is within.
///
/// `going` counts the stacks of the placement that want to go now, `gone` those that went within the last day,
/// `deployed` all that are deployed, those that want to go among them.
pub fn over_budget(rule: &PruneRule, going: usize, gone: usize, deployed: usize) -> Option<String> {
    // Rounded up: a part of few is one and not none.
    let part = ((deployed + gone) * rule.percent).div_ceil(100);
    let most = rule.targets.min(part);
    (going + gone > most).then(|| {
        format!(
            "{going} would be deleted and {gone} were within a day; {most} may be without a person ({} or {} % of {})",
            rule.targets,
            rule.percent,
            deployed + gone
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_to_stay_comes_before_going() {
        let auto = PruneRule {
            policy: Prune::Auto,
            ..PruneRule::default()
        };
        let user = [Address::environment("x")];
        let good = || PruneInput {
            rule: Some(&auto),
            own: None,
            unknown: None,
            used_by: &[],
            protected: false,
            seen_twice: true,
        };
        let reason = |input: PruneInput<'_>| match prune(&input) {
            PruneVerdict::Stays(reason, _) => Some(reason),
            PruneVerdict::Unknown(_) => None,
            PruneVerdict::Goes { .. } => panic!("it must stay"),
        };
        assert_eq!(prune(&good()), PruneVerdict::Goes { ask: false });
        assert_eq!(
            prune(&PruneInput {
                own: Some(Prune::Ask),
                ..good()
            }),
            PruneVerdict::Goes { ask: true }
        );
        assert_eq!(
            reason(PruneInput {
                unknown: Some("?"),
                ..good()
            }),
            None
        );
        assert_eq!(
            reason(PruneInput {
                rule: None,
                ..good()
            }),
            Some(Reason::Removed)
        );
        assert_eq!(
            reason(PruneInput {
                rule: Some(&PruneRule::default()),
                ..good()
            }),
            Some(Reason::Removed)
        );
        assert_eq!(
            reason(PruneInput {
                own: Some(Prune::Never),
                ..good()
            }),
            Some(Reason::Retained)
        );
        assert_eq!(
            reason(PruneInput {
                used_by: &user,
                ..good()
            }),
            Some(Reason::Dependency)
        );
        assert_eq!(
            reason(PruneInput {
                protected: true,
                ..good()
            }),
            Some(Reason::Protected)
        );
        assert_eq!(
            reason(PruneInput {
                seen_twice: false,
                ..good()
            }),
            Some(Reason::SecondLook)
        );
    }

    #[test]
    fn a_repository_can_only_be_stricter() {
        for (operator, own, goes) in [
            (Prune::Never, Prune::Auto, false),
            (Prune::Ask, Prune::Auto, true),
            (Prune::Auto, Prune::Never, false),
        ] {
            let rule = PruneRule {
                policy: operator,
                ..PruneRule::default()
            };
            let verdict = prune(&PruneInput {
                rule: Some(&rule),
                own: Some(own),
                unknown: None,
                used_by: &[],
                protected: false,
                seen_twice: true,
            });
            assert_eq!(matches!(verdict, PruneVerdict::Goes { .. }), goes);
            assert_ne!(
                verdict,
                PruneVerdict::Goes {
                    ask: operator == Prune::Auto
                }
            );
        }
    }

    #[test]
    fn the_smaller_of_number_and_part_is_the_budget() {
        let rule = PruneRule {
            policy: Prune::Auto,
            targets: 5,
            percent: 20,
        };
        for (going, gone, deployed, over) in [
            (1, 0, 100, false),
            (5, 0, 100, false),
            (6, 0, 100, true),
            (3, 3, 100, true),
            (1, 0, 5, false),
            (1, 0, 4, false),
            (2, 0, 5, true),
            (1, 1, 5, false),
            (1, 1, 4, true),
        ] {
            assert_eq!(
                over_budget(&rule, going, gone, deployed).is_some(),
                over,
                "{going} {gone} {deployed}"
            );
        }
    }
}
