//! What must hold, whatever happens. The world's ledger is what was really done; the log is what was said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use isoform::domain::audit::{Body, Checkpoint, Entry, Stream, verify};
use isoform::domain::deployment::{EventKind, Outcome, Pinned, Step};
use isoform::domain::model::{Address, Digest, TargetUid};
use isoform::reconcile::{Error, Snapshot};
use isoform::testing::faults::Effect;

use crate::estate::Model;

type Looked = Option<Result<(Option<Arc<Snapshot>>, bool), Error>>;

/// What the driver has seen, beside the ledger and the log.
#[derive(Default)]
pub struct Checks {
    /// Whether the wall was set: then nothing is said about how long something baked.
    pub jumped: bool,
    /// Whether the state folder was lost: then entries that were not shipped are gone, and so are the newest approvals.
    pub lost: bool,
    /// What the daemon that acts has seen.
    pub looks: Looks,
    /// Stacks that a stranger changed, and the newest entry of the log at that time.
    strangers: Vec<(String, u64)>,
}

/// What a daemon has seen of what is asked for.
#[derive(Default)]
pub struct Looks {
    /// Whether the newest look could not read the source, or could not read what it found.
    blind: bool,
    /// What the looks that read everything found to be asked for, newest last.
    asked: Vec<BTreeSet<String>>,
}

/// One deployment, as the log tells it.
struct Told<'a> {
    uid: TargetUid,
    pinned: &'a Pinned,
    begun: usize,
    reviewed: Option<(&'a Digest, bool)>,
    announced: bool,
    approved: Vec<&'a Digest>,
    settled: Option<(usize, Outcome)>,
}

impl Checks {
    /// Notes a look.
    pub fn looked(&mut self, looked: &Looked, away: bool) {
        match looked {
            Some(Ok((Some(snapshot), _))) if !away => {
                self.looks.blind = snapshot.compiled.incomplete;
                if !self.looks.blind {
                    let asked = snapshot.compiled.targets.keys();
                    self.looks
                        .asked
                        .push(asked.map(ToString::to_string).collect());
                }
            }
            Some(_) => self.looks.blind = true,
            None => {}
        }
    }

    /// Notes that a stranger touched a stack.
    pub fn meddled(&mut self, stack: &str, seq: u64) {
        self.strangers.push((stack.to_owned(), seq));
    }

    /// Holds what a step did against what the driver knows.
    pub fn after_step(&self, done: &[Effect], frozen: bool) -> Result<(), String> {
        for effect in done.iter().filter(|e| e.taken) {
            let moves = effect.call == "execute"
                || (effect.call == "delete" && !effect.token.ends_with("-shell"));
            if frozen && moves {
                return Err(format!(
                    "something moved while everything was frozen: {effect:?}"
                ));
            }
            if effect.call != "delete"
                || effect.token.ends_with("-shell")
                || effect.token.ends_with("-clear")
            {
                continue;
            }
            if self.looks.blind {
                return Err(format!("unknown was taken for empty: {effect:?}"));
            }
            // The stack's name tells which target it was: `isoform-stack-<name>-<uid8>`.
            let name = effect.what.split('/').nth(1).unwrap_or_default();
            let name = name
                .trim_start_matches("isoform-")
                .rsplit_once('-')
                .map_or("", |(n, _)| n)
                .replacen('-', "/", 1);
            let twice = self
                .looks
                .asked
                .iter()
                .rev()
                .take(2)
                .filter(|a| !a.contains(&name));
            if twice.count() < 2 {
                return Err(format!("{name} was deleted and two looks did not say so"));
            }
        }
        Ok(())
    }

    /// Holds the whole log against the whole ledger.
    pub fn whole(
        &self,
        entries: &[Entry],
        checkpoints: &[Checkpoint],
        ledger: &[Effect],
        commits: &BTreeMap<String, Model>,
    ) -> Result<(), String> {
        // Signatures are checked elsewhere; here the chain and the places of the checkpoints count.
        verify(entries, checkpoints, &|_, _| true).map_err(|e| format!("the chain: {e}"))?;
        let told = tell(entries);
        let by_token: BTreeMap<String, &Told<'_>> = told
            .iter()
            .map(|t| (t.pinned.deployment.to_string(), t))
            .collect();
        let mut executed: BTreeMap<String, u64> = BTreeMap::new();
        let mut sets: BTreeSet<&str> = BTreeSet::new();
        for effect in ledger.iter().filter(|e| e.taken && e.call == "execute") {
            let deployment = effect
                .token
                .strip_prefix("if-")
                .and_then(|t| t.rsplit_once("-a"))
                .map(|(d, _)| d)
                .ok_or_else(|| format!("a token of nobody: {effect:?}"))?;
            let Some(told) = by_token.get(deployment) else {
                return Err(format!(
                    "executed, and the log does not know it: {effect:?}"
                ));
            };
            if !told.announced {
                return Err(format!("executed without an entry before it: {effect:?}"));
            }
            if !sets.insert(&effect.what) {
                continue;
            }
            let stack = told.pinned.stack_name.to_string();
            let generation = told.pinned.generation.0;
            if let Some(before) = executed.insert(stack.clone(), generation)
                && before >= generation
            {
                return Err(format!("{stack}: generation {generation} after {before}"));
            }
            match told.reviewed {
                None => return Err(format!("executed without a review: {effect:?}")),
                Some((review, losing)) => {
                    if losing && !told.approved.contains(&review) {
                        return Err(format!("state was lost without an approval: {effect:?}"));
                    }
                }
            }
        }
        for effect in ledger.iter().filter(|e| e.taken && e.call == "delete") {
            let known = entries.iter().any(|e| match &e.body {
                Body::Target(EventKind::Announced(Step::Delete { token, .. })) => {
                    *token == effect.token
                }
                Body::Target(EventKind::Announced(Step::Clear { stack })) => {
                    stack.as_str() == effect.what
                }
                Body::Target(EventKind::Announced(Step::Discard)) => {
                    effect.token.ends_with("-shell")
                }
                _ => false,
            });
            if !known {
                return Err(format!("deleted without an entry before it: {effect:?}"));
            }
        }
        self.waves(entries, &told, commits)?;
        self.words(entries, &told)?;
        self.removals(entries)
    }

    /// What people said holds: a suspension, a change by hand, a failure that nobody asked to try again.
    fn words(&self, entries: &[Entry], told: &[Told<'_>]) -> Result<(), String> {
        let mut suspended: BTreeSet<&TargetUid> = BTreeSet::new();
        let mut failed: BTreeMap<&TargetUid, &Digest> = BTreeMap::new();
        for entry in entries {
            let (Stream::Target(uid), Body::Target(kind)) = (&entry.stream, &entry.body) else {
                continue;
            };
            match kind {
                EventKind::Suspended { .. } => {
                    suspended.insert(uid);
                }
                EventKind::Resumed => {
                    suspended.remove(uid);
                }
                EventKind::Announced(Step::Execute { .. } | Step::Delete { .. })
                    if suspended.contains(uid) =>
                {
                    return Err(format!("entry {}: it moves while suspended", entry.seq));
                }
                EventKind::Retried | EventKind::FailureForgotten => {
                    failed.remove(uid);
                }
                EventKind::Begun(pinned) if failed.get(uid) == Some(&&pinned.digest) => {
                    return Err(format!("entry {}: what failed is tried again", entry.seq));
                }
                EventKind::Settled(settled) => {
                    let of = told.iter().rfind(|t| {
                        t.uid == *uid
                            && t.settled
                                .is_some_and(|(at, _)| entries[at].seq == entry.seq)
                    });
                    match of {
                        Some(t) if settled.outcome.has_failed() => {
                            failed.insert(uid, &t.pinned.digest);
                        }
                        Some(_) if settled.outcome != Outcome::Superseded => {
                            failed.remove(uid);
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        // After a change by hand nothing of that stack runs that began later, until somebody has decided.
        for (stack, seq) in self.strangers.iter().filter(|_| !self.lost) {
            for t in told {
                let begun = entries[t.begun].seq;
                let runs = t.announced
                    && t.pinned
                        .watermark
                        .as_ref()
                        .is_some_and(|w| w.stack_id.as_str() == stack);
                let decided = entries.iter().any(|e| {
                    e.seq > *seq
                        && e.seq < begun
                        && e.stream == Stream::Target(t.uid.clone())
                        && matches!(e.body, Body::Target(EventKind::DriftResolved { .. }))
                });
                if runs && begun > *seq && !decided {
                    return Err(format!(
                        "deployment {} overwrites what a stranger did",
                        t.pinned.deployment
                    ));
                }
            }
        }
        Ok(())
    }

    /// What is deleted goes in order and within the budget.
    fn removals(&self, entries: &[Entry]) -> Result<(), String> {
        let mut address: BTreeMap<&TargetUid, &Address> = BTreeMap::new();
        let mut uses: BTreeMap<&TargetUid, BTreeSet<&TargetUid>> = BTreeMap::new();
        let mut owned: BTreeSet<&TargetUid> = BTreeSet::new();
        let mut approved: BTreeSet<&TargetUid> = BTreeSet::new();
        let mut gone = Vec::new();
        for entry in entries {
            let (Stream::Target(uid), Body::Target(kind)) = (&entry.stream, &entry.body) else {
                continue;
            };
            match kind {
                EventKind::Minted { address: a, .. } | EventKind::Moved { address: a } => {
                    address.insert(uid, a);
                }
                EventKind::Begun(pinned) => {
                    approved.remove(uid);
                    let used = pinned.placed.iter().flat_map(|p| p.used.iter().flatten());
                    uses.entry(uid).or_default().extend(used);
                }
                EventKind::Uses { targets } => {
                    uses.insert(uid, targets.iter().collect());
                }
                EventKind::Owned { .. } => {
                    owned.insert(uid);
                }
                EventKind::Approved { .. } => {
                    approved.insert(uid);
                }
                EventKind::Announced(Step::Delete { .. }) => {
                    let here = address.get(uid).copied();
                    let user = owned.iter().find(|other| {
                        **other != uid && uses.get(*other).is_some_and(|u| u.contains(uid))
                    });
                    if let Some(user) = user {
                        return Err(format!("{here:?} goes before {:?}", address.get(user)));
                    }
                }
                EventKind::Settled(settled) if settled.outcome == Outcome::Removed => {
                    owned.remove(uid);
                    let by_hand = settled.cause.is_some();
                    if !approved.contains(uid) && !by_hand {
                        gone.push(entry.at);
                    }
                }
                _ => {}
            }
        }
        let crowded = gone
            .windows(2)
            .any(|w| w[1].since(w[0]).as_secs() < 24 * 3600);
        if crowded && !self.jumped {
            return Err("more went within a day than may go without a person".into());
        }
        Ok(())
    }

    /// No wave before the one before it has settled and baked, none after a halt, nothing older after newer.
    fn waves(
        &self,
        entries: &[Entry],
        told: &[Told<'_>],
        commits: &BTreeMap<String, Model>,
    ) -> Result<(), String> {
        let address: BTreeMap<&TargetUid, String> = entries
            .iter()
            .filter_map(|e| match (&e.stream, &e.body) {
                (Stream::Target(uid), Body::Target(EventKind::Minted { address, .. })) => {
                    Some((uid, address.to_string()))
                }
                _ => None,
            })
            .collect();
        let place = |t: &Told<'_>| address.get(&t.uid).cloned().unwrap_or_default();
        let wants = |t: &Told<'_>| {
            let model = commits.get(t.pinned.revision.as_str())?;
            model.targets().get(&place(t)).cloned()
        };
        for later in told.iter().filter(|t| place(t).contains("/prod@")) {
            let (Some(number), here) = (wants(later), place(later)) else {
                continue;
            };
            let beta = here.split("prod@").next().unwrap_or_default().to_owned() + "beta";
            let at = entries[later.begun].at;
            let settled = told.iter().any(|earlier| {
                let good = matches!(
                    earlier.settled,
                    Some((_, Outcome::Applied | Outcome::NoEffect))
                );
                place(earlier) == beta
                    && good
                    && wants(earlier).as_ref() == Some(&number)
                    && earlier.settled.is_some_and(|(seq, _)| {
                        seq < later.begun
                            && (self.jumped || at.since(entries[seq].at).as_secs() >= 600)
                    })
            });
            if !settled && !self.lost {
                return Err(format!(
                    "{here} began with {number} at entry {}, and {beta} had not settled with it for ten minutes",
                    later.begun + 1
                ));
            }
            // After a failure in the wave nobody else of it begins with the same snapshot, until somebody says so.
            for failed in told.iter().filter(|f| f.uid != later.uid) {
                let Some((seq, outcome)) = failed.settled else {
                    continue;
                };
                let same_wave = place(failed).split('@').next() == here.split('@').next();
                if seq >= later.begun {
                    continue;
                }
                let resumed = entries[seq + 1..later.begun].iter().any(|e| {
                    matches!(
                        &e.body,
                        Body::Target(
                            EventKind::Resumed | EventKind::Retried | EventKind::Settled(_)
                        )
                    )
                });
                if same_wave
                    && outcome.has_failed()
                    && outcome != Outcome::Rejected
                    && failed.pinned.snapshot == later.pinned.snapshot
                    && !resumed
                {
                    return Err(format!("{here} began after the wave had halted"));
                }
            }
        }
        // Per target, the snapshot of what begins never goes back.
        let mut newest: BTreeMap<&TargetUid, u64> = BTreeMap::new();
        for t in told {
            let applied = matches!(t.settled, Some((_, Outcome::Applied)));
            let before = newest.get(&t.uid).copied().unwrap_or_default();
            if t.pinned.snapshot.0 < before {
                return Err(format!("{}: an older snapshot after a newer one", place(t)));
            }
            if applied {
                newest.insert(&t.uid, t.pinned.snapshot.0);
            }
        }
        Ok(())
    }
}

/// Collects the deployments of a log.
fn tell(entries: &[Entry]) -> Vec<Told<'_>> {
    let mut all: Vec<Told<'_>> = Vec::new();
    let mut open: BTreeMap<TargetUid, usize> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let Stream::Target(uid) = &entry.stream else {
            continue;
        };
        let Body::Target(kind) = &entry.body else {
            continue;
        };
        if let EventKind::Begun(pinned) = kind {
            open.insert(uid.clone(), all.len());
            all.push(Told {
                uid: uid.clone(),
                pinned,
                begun: at,
                reviewed: None,
                announced: false,
                approved: Vec::new(),
                settled: None,
            });
            continue;
        }
        let Some(told) = open.get(uid).map(|i| &mut all[*i]) else {
            continue;
        };
        match kind {
            EventKind::Reviewed { review, losses, .. } => {
                told.reviewed = Some((review, !losses.is_empty()));
            }
            EventKind::Announced(Step::Execute { .. }) => told.announced = true,
            EventKind::Approved { review, .. } => told.approved.push(review),
            EventKind::Settled(settlement) => told.settled = Some((at, settlement.outcome)),
            _ => {}
        }
    }
    all
}
