//! Change sets that nobody needs any more.
//!
//! What the log knows is discarded where it ends. What it does not know (a state that was lost with a bundle store older than
//! it, an answer that never came) stays for ever, and a thousand on one stack stop every deployment of it. So each stack is
//! looked at some time after a start and then once a day, at the lowest urgency, with its target held.

use std::time::Duration;

use super::{Error, Line};
use crate::domain::deployment::History;
use crate::domain::model::{InstallationId, StackId, TargetUid, Timestamp};
use crate::domain::pace::Urgency;
use crate::domain::plan::{ChangeSetStatus, MadeFor, made_for};
use crate::port::{self, ChangeSetSummary, Pages, StackEngine};

/// How often a stack is looked at.
const DAY: Duration = Duration::from_secs(86_400);
/// After a start the first looks are spread over this time at least, and over a second for each stack.
const SPREAD: u64 = 3600;
/// How many are discarded at once: the rest comes with the next look.
const MOST: usize = 100;
/// How many names of others are told.
const TOLD: usize = 3;

/// What was found on a stack, and what became of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tidied {
    /// Change sets of this installation, also those that are needed.
    pub ours: usize,
    /// How many of them were discarded.
    pub discarded: usize,
    /// Names of those that somebody else made.
    pub others: Vec<String>,
}

impl Tidied {
    /// Says whose change sets stand in the way.
    pub(super) fn in_the_way(&self, stack: &StackId, said: &str) -> String {
        let named: Vec<String> = self
            .others
            .iter()
            .take(TOLD)
            .map(|n| n.escape_debug().to_string())
            .collect();
        let named = if named.is_empty() {
            String::new()
        } else {
            format!(" ({}, …)", named.join(", "))
        };
        format!(
            "no more change sets can be made: the stack has {}, of which {} are isoform's and {} are made by others{named}; aws cloudformation list-change-sets --stack-name {stack} lists them: delete what nobody needs ({said})",
            self.ours + self.others.len() - self.discarded,
            self.ours - self.discarded,
            self.others.len()
        )
    }
}

/// Returns those of this installation that nothing needs: never one that runs or ran, that is being made, that the deployment in
/// motion has made, or that a preview looks at.
fn leftovers<'a>(
    installation: &InstallationId,
    history: &History,
    listed: &'a [ChangeSetSummary],
) -> Vec<&'a ChangeSetSummary> {
    let rests = |status| {
        use ChangeSetStatus as C;
        match status {
            C::Available | C::NoChanges | C::Failed | C::Obsolete => true,
            C::Creating | C::Executing | C::Executed | C::Deleted => false,
        }
    };
    let unneeded = |set: &&ChangeSetSummary| match made_for(installation, &set.name) {
        Some(MadeFor::Deployment(generation)) => history.current.as_ref().is_none_or(|d| {
            d.pinned.generation != generation && d.change_set.as_ref() != Some(&set.change_set)
        }),
        Some(MadeFor::Preview) => !history.previews.contains_key(&set.name),
        None => false,
    };
    let left = listed.iter().filter(|s| rests(s.status)).filter(unneeded);
    left.take(MOST).collect()
}

/// A number that follows from a target, so that stacks are spread without chance and alike after every start.
fn place(uid: &TargetUid) -> u64 {
    let digits = uid.as_str().get(..8).unwrap_or_default();
    u64::from_str_radix(digits, 16).unwrap_or_default()
}

impl Line {
    /// Puts into the queue whose stack is to be looked at for leftover change sets. `started` is when that began to be done.
    pub fn look_for_leftovers(&self, started: Timestamp) {
        let now = self.clock.steady();
        let due: Vec<TargetUid> = {
            let mut shared = self.shared();
            let owned = shared
                .targets
                .iter()
                .filter(|(_, k)| k.history.owned.is_some());
            let owned: Vec<TargetUid> = owned.map(|(uid, _)| uid.clone()).collect();
            let spread = SPREAD.max(owned.len() as u64);
            shared
                .tidied
                .retain(|uid, _| owned.binary_search(uid).is_ok());
            let first = |uid: &TargetUid| started.plus(Duration::from_secs(place(uid) % spread));
            let is_due = |uid: &TargetUid| match shared.tidied.get(uid) {
                Some(at) => now >= at.plus(DAY),
                None => now >= first(uid),
            };
            let due: Vec<TargetUid> = owned.into_iter().filter(is_due).collect();
            shared.untidy.extend(due.iter().cloned());
            due
        };
        for uid in due {
            self.enqueue(&uid, Duration::ZERO);
        }
    }

    /// Looks at the stack of a target that is held, if it is its turn. What goes wrong costs a day and nothing else.
    pub(super) async fn tidy_in_turn(&self, uid: &TargetUid) {
        if !self.shared().untidy.remove(uid) || self.stop.is_cancelled() {
            return;
        }
        let now = self.clock.steady();
        self.shared().tidied.insert(uid.clone(), now);
        let history = self.history(uid);
        let found = history.as_ref().and_then(|h| {
            let stack = h.owned.clone()?;
            Some((self.placement_of(h, &stack)?, stack.region()?, stack))
        });
        let Some((placement, region, stack)) = found else {
            return;
        };
        let done = match self.ports.engine_for(&placement, &region, Urgency::Sweep) {
            Ok(engine) => self.tidy(uid, engine.as_ref(), &stack).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = done {
            tracing::warn!(target.id = %uid, "leftover change sets of {stack} cannot be looked for: {error}");
        }
    }

    /// Discards what is left on a stack of ours.
    ///
    /// The list is read first and the history then: what was made after the list is not in it, and what was made before it is in
    /// the history, for every change set is announced there before it is made.
    pub(super) async fn tidy(
        &self,
        uid: &TargetUid,
        engine: &dyn StackEngine,
        stack: &StackId,
    ) -> Result<Tidied, Error> {
        self.alone()?;
        let mut listed = Vec::new();
        let mut pages = Pages::default();
        while pages.go_on() {
            let page = match engine.change_sets(stack, pages.token()).await {
                Ok(page) => page,
                Err(port::Error::NotFound(_)) => return Ok(Tidied::default()),
                Err(error) => return Err(error.into()),
            };
            listed.extend(page.items);
            pages.turn(page.next)?;
        }
        let installation = &self.settings.installation;
        let others = listed
            .iter()
            .filter(|s| made_for(installation, &s.name).is_none());
        let others: Vec<String> = others.map(|s| s.name.clone()).collect();
        let mut tidied = Tidied {
            ours: listed.len() - others.len(),
            discarded: 0,
            others,
        };
        let Some(history) = self.history(uid) else {
            return Ok(tidied);
        };
        if history.owned.as_ref() == Some(stack) {
            let left = leftovers(installation, &history, &listed);
            tidied.discarded = self.discard_leftovers(uid, engine, stack, &left).await?;
        }
        Ok(tidied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_over_but_what_rests_and_nothing_needs() {
        use ChangeSetStatus as C;
        let installation: InstallationId = "3fa9c1d0000000000000000000000000".parse().unwrap();
        let mut history = History::new("0".repeat(32).parse().unwrap());
        history
            .previews
            .insert("if-3fa9c1d0-p-0123456789ab-a1".into(), None);
        let set = |name: &str, status| ChangeSetSummary {
            change_set: format!("arn:{name}"),
            name: name.into(),
            status,
        };
        let deployment = "if-3fa9c1d0-g7-0123456789ab-a1";
        let listed = [
            set(deployment, C::Available),
            set("if-3fa9c1d0-g6-0123456789ab-a1", C::Failed),
            set("if-3fa9c1d0-g5-0123456789ab-a2", C::NoChanges),
            set("if-3fa9c1d0-g4-0123456789ab-a1", C::Obsolete),
            set("if-3fa9c1d0-g3-0123456789ab-a1", C::Executed),
            set("if-3fa9c1d0-g2-0123456789ab-a1", C::Executing),
            set("if-3fa9c1d0-g1-0123456789ab-a1", C::Creating),
            set("if-3fa9c1d0-g1-0123456789ab-a2", C::Deleted),
            set("if-3fa9c1d0-p-0123456789ab-a1", C::Available),
            set("if-3fa9c1d0-p-0123456789ab-a2", C::Available),
            set("if-00000000-g1-0123456789ab-a1", C::Available),
            set("if-3fa9c1d0-release", C::Available),
            set("release-42", C::Available),
        ];

        let left = leftovers(&installation, &history, &listed);

        let names: Vec<&str> = left.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(
            names,
            [
                deployment,
                "if-3fa9c1d0-g6-0123456789ab-a1",
                "if-3fa9c1d0-g5-0123456789ab-a2",
                "if-3fa9c1d0-g4-0123456789ab-a1",
                "if-3fa9c1d0-p-0123456789ab-a2",
            ]
        );
    }

    #[test]
    fn whose_change_sets_stand_in_the_way_is_said() {
        let stack: StackId = "arn:aws:cloudformation:us-east-1:000000000001:stack/s/1"
            .parse()
            .unwrap();
        let tidied = Tidied {
            ours: 3,
            discarded: 1,
            others: ["a\u{1b}[31m", "b", "c", "d"].map(str::to_owned).into(),
        };

        let said = tidied.in_the_way(&stack, "LimitExceededException");

        assert!(
            said.contains("has 6, of which 2 are isoform's and 4 are made by others"),
            "{said}"
        );
        assert!(said.contains("(a\\u{1b}[31m, b, c, …)"), "{said}");
        assert!(said.contains(stack.as_str()), "{said}");
    }
}
