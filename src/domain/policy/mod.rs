//! Gates: why a reviewed change may not run yet.
//!
//! What a repository may do is decided by the operator's configuration; a repository can add a gate and never take
//! one away. Nothing here knows how an approval arrives.

mod people;
mod prune;
mod stack;
mod window;

pub use people::People;
pub use prune::{Placed, PruneInput, PruneRule, PruneVerdict, over_budget, prune};
pub use stack::{StackPolicy, opened_for};
pub use window::{Window, opening};

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::model::{Actor, Digest, Reason, Timestamp};
use super::plan::Review;
use super::spec::Gate;

/// How far isoform may go. The stricter of a source's and a placement's holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Look, plan and report; nothing is executed.
    Observe,
    /// Every change needs an approval.
    Approve,
    /// Changes run unless a gate holds them.
    Auto,
}

/// Who may approve, and how many must.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApprovalRule {
    /// How many different people must approve.
    pub count: u32,
    /// Who may, as identities; empty means every operator.
    pub from: Vec<String>,
    /// Which identities are one person: nobody counts twice.
    pub people: Arc<People>,
    /// Whether the author of the change may not.
    pub not_author: bool,
    /// How long an approval lasts.
    pub expires: Option<Duration>,
}

impl ApprovalRule {
    /// Tells whether the rule takes approvals of somebody.
    pub fn takes(&self, actor: &Actor) -> bool {
        self.from.is_empty() || self.from.iter().any(|f| self.people.is(f, actor))
    }

    /// Tells whether somebody wrote the change himself and may therefore not approve it.
    pub fn excludes(&self, actor: &Actor, author: Option<&str>) -> bool {
        self.not_author && author.is_some_and(|a| self.people.is_author(a, actor))
    }
}

impl Default for ApprovalRule {
    fn default() -> Self {
        Self {
            count: 1,
            from: Vec::new(),
            people: Arc::default(),
            not_author: false,
            expires: None,
        }
    }
}

/// An approval of one review.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Approval {
    /// The review digest that was shown.
    pub review: Digest,
    /// Who approved.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
    /// Whether the stack policy is opened for exactly this review.
    pub opens: bool,
}

/// What holds a change, with words for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hold {
    /// The stable reason.
    pub reason: Reason,
    /// One sentence.
    pub detail: String,
}

/// Everything that the gates look at.
pub struct GateInput<'a> {
    /// The effective mode.
    pub mode: Mode,
    /// The gate of the repository's own.
    pub gate: Option<Gate>,
    /// Whether the repository asked for an approval when the stack was last changed: whoever takes a gate away does not
    /// pass it by that.
    pub gated_before: bool,
    /// Who may approve.
    pub rule: &'a ApprovalRule,
    /// When changes may run.
    pub windows: &'a [Window],
    /// The review.
    pub review: &'a Review,
    /// Approvals that were given.
    pub approvals: &'a [Approval],
    /// The author of the change, where known.
    pub author: Option<&'a str>,
    /// Whether the file FREEZE exists.
    pub frozen: bool,
    /// Why an operator suspended the target.
    pub suspended: Option<&'a str>,
    /// Whether the bytes moved although no input did.
    pub renderer_changed: bool,
    /// What the stack policy denies of it, in words.
    pub denied: &'a [String],
    /// Whether the stack is to be deleted.
    pub removal: Option<&'a Removal>,
    /// Now.
    pub now: Timestamp,
}

/// What the gates must know of a removal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removal {
    /// Whether the policy asks a person in any case.
    pub ask: bool,
    /// Why it is over the budget.
    pub over_budget: Option<String>,
}

/// Returns what holds a reviewed change; empty means it may run.
pub fn gate(input: &GateInput<'_>) -> Vec<Hold> {
    let mut holds = Vec::new();
    let mut hold = |reason, detail: String| holds.push(Hold { reason, detail });
    if input.frozen {
        hold(
            Reason::Frozen,
            "the file FREEZE stops every execution".into(),
        );
    }
    if let Some(why) = input.suspended {
        hold(Reason::Suspended, format!("suspended: {why}"));
    }
    if input.mode == Mode::Observe {
        hold(
            Reason::Observe,
            "the mode is observe: nothing is executed".into(),
        );
    }
    let mut asks: Vec<String> = input
        .review
        .stateful_losses()
        .iter()
        .map(|c| c.loss())
        .collect();
    asks.extend(input.review.hidden.iter().cloned());
    asks.extend(input.review.capabilities.iter().map(|c| {
        format!("CloudFormation needs {c}, which the template does not show; `capabilities` of the target can name it")
    }));
    if input.mode == Mode::Approve {
        asks.push("the placement is in mode approve".into());
    }
    if input.gate == Some(Gate::Approve) {
        asks.push("the sync file asks for an approval".into());
    } else if input.gated_before {
        asks.push("the sync file asked for an approval until now: what takes that away is the last to need one".into());
    }
    if !input.review.complete {
        asks.push("CloudFormation did not show every property value".into());
    }
    if input.removal.is_some_and(|r| r.ask) {
        asks.push(
            "Git no longer asks for it, and `prune` asks a person before the stack is deleted"
                .into(),
        );
    }
    let given = approvals_that_count(input, false);
    if !input.denied.is_empty() && approvals_that_count(input, true) < input.rule.count as usize {
        hold(
            Reason::StackPolicy,
            format!(
                "its stack policy keeps it from succeeding: {}",
                input.denied.join("; ")
            ),
        );
    }
    if let Some(why) = input.removal.and_then(|r| r.over_budget.as_ref())
        && given < input.rule.count as usize
    {
        hold(Reason::PruneBudget, why.clone());
    }
    if !asks.is_empty() && given < input.rule.count as usize {
        let missing = input.rule.count as usize - given;
        hold(
            Reason::Approval,
            format!(
                "needs {missing} more approval{}: {}",
                if missing == 1 { "" } else { "s" },
                asks.join("; ")
            ),
        );
    }
    if input.renderer_changed && given == 0 {
        hold(
            Reason::RendererChanged,
            "this release renders other bytes from the same inputs".into(),
        );
    }
    if !input.windows.is_empty() && !input.windows.iter().any(|w| w.contains(input.now)) {
        let next = input
            .windows
            .iter()
            .map(|w| w.to_string())
            .collect::<Vec<_>>()
            .join(", ");
        hold(Reason::Window, format!("outside its windows: {next} (UTC)"));
    }
    holds
}

fn approvals_that_count(input: &GateInput<'_>, opening: bool) -> usize {
    let rule = input.rule;
    let mut people: BTreeSet<String> = BTreeSet::new();
    for approval in input
        .approvals
        .iter()
        .filter(|a| a.review == input.review.digest && (a.opens || !opening))
    {
        let expired = rule.expires.is_some_and(|d| {
            input
                .now
                .since(approval.at)
                .max(approval.at.since(input.now))
                > d
        });
        if rule.takes(&approval.by) && !rule.excludes(&approval.by, input.author) && !expired {
            people.insert(rule.people.name(&approval.by));
        }
    }
    people.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::plan::Review;

    fn holds(
        mode: Mode,
        rule: &ApprovalRule,
        review: &Review,
        approvals: &[Approval],
        author: Option<&str>,
    ) -> Vec<Reason> {
        let input = GateInput {
            mode,
            gate: None,
            gated_before: false,
            rule,
            windows: &[],
            review,
            approvals,
            author,
            frozen: false,
            suspended: None,
            renderer_changed: false,
            denied: &[],
            removal: None,
            now: Timestamp(1_000_000),
        };
        gate(&input).into_iter().map(|h| h.reason).collect()
    }

    fn approval(review: &Review, who: &str, at: i64) -> Approval {
        let by = Actor {
            issuer: "local".into(),
            subject: who.into(),
            via: "socket".into(),
            display: who.into(),
        };
        Approval {
            review: review.digest.clone(),
            by,
            at: Timestamp(at),
            opens: false,
        }
    }

    #[test]
    fn losing_state_needs_an_approval_in_every_mode() {
        let plain = Review::sample(None);
        let loss = Review::sample(Some("AWS::RDS::DBInstance"));
        assert_eq!(
            holds(Mode::Auto, &ApprovalRule::default(), &plain, &[], None),
            []
        );
        assert_eq!(
            holds(Mode::Auto, &ApprovalRule::default(), &loss, &[], None),
            [Reason::Approval]
        );
        assert_eq!(
            holds(
                Mode::Auto,
                &ApprovalRule::default(),
                &loss,
                &[approval(&loss, "bo", 0)],
                None
            ),
            []
        );
        assert_eq!(
            holds(
                Mode::Auto,
                &ApprovalRule::default(),
                &loss,
                &[approval(&plain, "bo", 0)],
                None
            ),
            [Reason::Approval]
        );
    }

    #[test]
    fn a_capability_that_nobody_foresaw_needs_an_approval() {
        let review = Review {
            capabilities: vec!["CAPABILITY_IAM".into()],
            ..Review::sample(None)
        };
        let rule = ApprovalRule::default();

        let held = holds(Mode::Auto, &rule, &review, &[], None);
        let given = [approval(&review, "bo", 0)];
        let open = holds(Mode::Auto, &rule, &review, &given, None);

        assert_eq!((held, open), (vec![Reason::Approval], vec![]));
    }

    #[test]
    fn rules_say_whose_approvals_count() {
        let review = Review::sample(None);
        let rule = ApprovalRule {
            count: 2,
            from: vec!["ana".into(), "bo".into()],
            not_author: true,
            expires: Some(Duration::from_secs(600)),
            ..ApprovalRule::default()
        };
        let (ana, bo, cy, old) = (
            approval(&review, "ana", 900_000),
            approval(&review, "bo", 900_000),
            approval(&review, "cy", 900_000),
            approval(&review, "bo", 0),
        );
        for (approvals, author, open) in [
            (vec![ana.clone(), bo.clone()], None, true),
            (vec![ana.clone(), ana.clone()], None, false),
            (vec![ana.clone(), cy], None, false),
            (vec![ana.clone(), bo], Some("ana"), false),
            (vec![ana, old], None, false),
        ] {
            assert_eq!(
                holds(Mode::Approve, &rule, &review, &approvals, author).is_empty(),
                open,
                "{approvals:?} {author:?}"
            );
        }
    }

    #[test]
    fn sec_58_a_clock_that_jumps_makes_no_approval_live_longer() {
        let review = Review::sample(None);
        let rule = ApprovalRule {
            expires: Some(Duration::from_secs(600)),
            ..ApprovalRule::default()
        };
        let (now, day) = (1_000_000, 86_400_000);
        // Given just now, a day ago, and while the clock was a day ahead.
        for (at, open) in [
            (now, true),
            (now - day, false),
            (now + day, false),
            (now + 1_000, true),
        ] {
            let given = [approval(&review, "bo", at)];
            let held = holds(Mode::Approve, &rule, &review, &given, None);
            assert_eq!(held.is_empty(), open, "{at}");
        }
    }

    #[test]
    fn observe_never_opens() {
        let review = Review::sample(None);
        assert!(
            holds(
                Mode::Observe,
                &ApprovalRule::default(),
                &review,
                &[approval(&review, "bo", 0)],
                None
            )
            .contains(&Reason::Observe)
        );
    }
}
