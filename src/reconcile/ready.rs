//! Which snapshot a target may go to, and what it waits for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Known, Line, Shared, Snapshot};
use crate::domain::deployment::Outcome;
use crate::domain::estate::{StagePosition, Target, TargetKind, WaveKey};
use crate::domain::model::{Address, Finding, Reason, SyncResult, TargetUid, Timestamp};
use crate::domain::spec::Stage;
use crate::domain::template::Engine;

/// What a target waits for.
#[derive(Clone, Debug)]
pub(super) struct Wait {
    pub reason: Reason,
    pub detail: String,
    /// Whom it waits for, where that is one target.
    pub on: Option<Address>,
    /// When to look again, where that is known.
    pub after: Option<Duration>,
    /// Who else can end it: for each snapshot that could be gone to, the one that it waits for there.
    pub only: Vec<TargetUid>,
}

impl Wait {
    pub(super) fn new(reason: Reason, detail: String, on: Option<Address>) -> Self {
        Self {
            reason,
            detail,
            on,
            after: None,
            only: Vec::new(),
        }
    }
}

/// What both clocks say.
#[derive(Clone, Copy, Debug)]
struct Now {
    /// The wall, which may jump.
    wall: Timestamp,
    /// The time that only goes forward.
    steady: Timestamp,
}

/// How many times of the wall are remembered with the other clock: more than waves that bake at once.
const SEEN: usize = 4_096;

impl Shared {
    /// Tells how long ago something was: by the wall, or by how long this process has known of it, if that is longer.
    ///
    /// A wall that was ahead when a wave settled and is set right puts that into the future, and would keep the next wave
    /// for as long as it was ahead.
    fn elapsed(&self, since: Timestamp, now: Now) -> Duration {
        let mut seen = self.seen.borrow_mut();
        let first = *seen.entry(since).or_insert(now.steady);
        if seen.len() > SEEN {
            let oldest = seen.iter().min_by_key(|(_, first)| **first);
            if let Some(oldest) = oldest.map(|(since, _)| *since) {
                seen.remove(&oldest);
            }
        }
        now.wall.since(since).max(now.steady.since(first))
    }
}

/// Where a target may go.
pub(super) enum Candidate {
    /// To this snapshot; and why not to the newest one, where it is an older one.
    Go(Arc<Snapshot>, Option<Wait>),
    /// Nowhere yet.
    Stay(Wait),
}

impl Line {
    /// Finds the newest snapshot whose inputs have settled in everything that comes before this target.
    ///
    /// A newer push replaces a waiting candidate only when it has itself passed, so a steady stream of pushes never
    /// starves what comes later.
    pub(super) fn candidate(
        &self,
        uid: &TargetUid,
        newest: &Arc<Snapshot>,
        address: &Address,
    ) -> Candidate {
        let now = Now {
            wall: self.clock.now(),
            steady: self.clock.steady(),
        };
        let shared = self.shared();
        // What was removed does not come back as it was before that.
        let history = shared.targets.get(uid).map(|k| &k.history);
        let removed = history
            .and_then(|h| h.last.as_ref())
            .filter(|(_, settled, _)| settled.outcome == Outcome::Removed)
            .map(|(pinned, _, _)| pinned.snapshot);
        let applied = history.and_then(|h| h.applied.as_ref()).map(|a| a.snapshot);
        let applied = applied.max(removed);
        let mut behind: Option<Wait> = None;
        for snapshot in shared.snapshots.iter().rev().filter(|s| {
            s.id <= newest.id
                && (applied.is_none_or(|a| s.id >= a) || !crate::testing::guard("older"))
        }) {
            // By another name it may have been asked for otherwise, or somebody else by this one.
            if snapshot.uids.get(address) != Some(uid) {
                continue;
            }
            let Some(target) = snapshot.compiled.targets.get(address) else {
                continue;
            };
            // Only the newest was judged before this: what was wrong in a commit stays wrong when a newer one is right.
            if snapshot.id != newest.id && !can_go(snapshot, target) {
                continue;
            }
            let wait = blocked(&shared, snapshot, target, uid, now)
                .filter(|_| crate::testing::guard("order"));
            let Some(wait) = wait else {
                return Candidate::Go(snapshot.clone(), behind);
            };
            // One that bakes is ended by time alone.
            let on = wait.on.as_ref().filter(|_| wait.after.is_none());
            let only = on.and_then(|a| snapshot.uids.get(a)).cloned();
            match &mut behind {
                Some(first) => {
                    first.after = earliest(first.after, wait.after);
                    first.only.extend(only);
                }
                None => {
                    behind = Some(Wait {
                        only: only.into_iter().collect(),
                        ..wait
                    });
                }
            }
        }
        Candidate::Stay(behind.unwrap_or_else(|| {
            let detail = "nothing that comes before it has settled".into();
            Wait::new(Reason::Dependency, detail, None)
        }))
    }

    /// Tells whether a change of a target may begin now, beside others of its wave.
    pub(super) fn may_begin(
        &self,
        uid: &TargetUid,
        snapshot: &Snapshot,
        target: &Target,
    ) -> Option<Wait> {
        let position = target.stage.as_ref()?;
        let stage = stage_of(snapshot, position)?;
        let shared = self.shared();
        let resumed = shared.targets.get(uid).and_then(|k| k.history.resumed);
        // Whoever shares the service and the template is in both groups.
        let peers: BTreeMap<&Address, &Known> = snapshot
            .compiled
            .waves
            .peers(target, position.stage)
            .flat_map(|(_, members)| members)
            .filter(|a| **a != target.address)
            .filter_map(|a| Some((a, shared.known_at(snapshot, a)?)))
            .collect();
        if let Some(most) = stage.stop_after {
            let failed: Vec<&Address> = peers
                .iter()
                .filter(|(_, k)| {
                    // From the log, so that a restart does not resume a wave that has halted; from how the last try
                    // ended, so that another try of the one that failed does not resume it before it has worked.
                    k.history
                        .last
                        .as_ref()
                        .is_some_and(|(pinned, settled, at)| {
                            settled.outcome.has_failed()
                                && pinned.snapshot >= snapshot.id
                                && resumed.is_none_or(|r| r < *at)
                        })
                })
                .map(|(a, _)| *a)
                .collect();
            if failed.len() >= most as usize && crate::testing::guard("halt") {
                let names = failed
                    .iter()
                    .take(3)
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ");
                return Some(Wait::new(
                    Reason::RolloutHalted,
                    format!(
                        "the wave halted after {} failure{}: {names}",
                        failed.len(),
                        if failed.len() == 1 { "" } else { "s" }
                    ),
                    failed.first().map(|a| (*a).clone()),
                ));
            }
        }
        if let Some(most) = stage.max_in_flight {
            let moving = peers
                .iter()
                .filter(|(_, k)| {
                    // What runs goes on running while nobody can read how it is.
                    k.history.current.as_ref().is_some_and(|deployment| {
                        deployment.is_executing()
                            || matches!(
                                k.condition.result,
                                SyncResult::Planning
                                    | SyncResult::Applying
                                    | SyncResult::CleaningUp
                            )
                    })
                })
                .count();
            if moving >= most as usize {
                return Some(Wait {
                    after: Some(Duration::from_millis(200)),
                    ..Wait::new(
                        Reason::Rollout,
                        format!("{moving} of its wave are in motion, at most {most} may be"),
                        None,
                    )
                });
            }
        }
        None
    }
}

/// Returns the earlier of two times to look again.
pub(super) fn earliest(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.into_iter().chain(b).min()
}

/// Tells whether a target can be deployed as a snapshot asks for it: no faults, one claim, an engine that is deployed.
fn can_go(snapshot: &Snapshot, target: &Target) -> bool {
    let broken = matches!(
        target.kind,
        TargetKind::Broken | TargetKind::CustomerManaged { .. }
    );
    !broken
        && !target.faults.iter().any(Finding::is_error)
        && !snapshot.compiled.contested.contains(&target.address)
        && target.engine() == Engine::Jinja
}

fn stage_of<'a>(snapshot: &'a Snapshot, position: &StagePosition) -> Option<&'a Stage> {
    snapshot
        .compiled
        .rollouts
        .get(&position.rollout)?
        .get(position.stage)
}

/// Tells whether only so many of a target's wave may be in motion.
pub(super) fn counts_its_wave(snapshot: &Snapshot, target: &Target) -> bool {
    let stage = target.stage.as_ref().and_then(|p| stage_of(snapshot, p));
    stage.is_some_and(|s| s.max_in_flight.is_some())
}

impl Shared {
    fn known_at(&self, snapshot: &Snapshot, address: &Address) -> Option<&Known> {
        self.targets.get(snapshot.uids.get(address)?)
    }
}

fn same_owner(a: &Target, b: &Target) -> bool {
    match (a.address.service(), b.address.service()) {
        (Some(x), Some(y)) => x == y,
        _ => a.address.base() == b.address.base(),
    }
}

/// Tells whether a target goes the way of another: the instances of a service, and the environments of a template.
///
/// What comes later goes only to a commit that has worked in what came earlier.
fn same_journey(a: &Target, b: &Target) -> bool {
    same_owner(a, b) || a.address.kind() == "env"
}

fn blocked(
    shared: &Shared,
    snapshot: &Snapshot,
    target: &Target,
    uid: &TargetUid,
    now: Now,
) -> Option<Wait> {
    for need in target.needs() {
        let Some(producer) = snapshot.compiled.targets.get(&need) else {
            let detail = format!("uses {need}, which is not asked for");
            return Some(Wait::new(Reason::Dependency, detail, Some(need)));
        };
        if matches!(producer.kind, TargetKind::CustomerManaged { .. }) {
            continue;
        }
        let known = snapshot.uids.get(&need).and_then(|u| shared.targets.get(u));
        if known.and_then(|k| shared.passed(k, snapshot.id)).is_none() {
            return Some(Wait::new(
                Reason::Dependency,
                waits_for(&need, known),
                Some(need),
            ));
        }
    }
    let position = target.stage.as_ref()?;
    // A sibling whose files have faults may belong to an earlier wave: nobody can tell, so nothing later moves.
    let all = &snapshot.compiled.targets;
    let broken = |a: &&Address| {
        all.get(a)
            .is_some_and(|t| t.faults.iter().any(Finding::is_error))
    };
    let mut outside = snapshot.compiled.waves.outside(target).iter();
    if position.stage > 0
        && let Some(sibling) = outside.find(broken)
    {
        return Some(Wait::new(
            Reason::Rollout,
            format!("waits for {sibling}, whose files have faults"),
            Some(sibling.clone()),
        ));
    }
    let resumed = shared.targets.get(uid).and_then(|k| k.history.resumed);
    for earlier in (0..position.stage).rev() {
        let Some(stage) = snapshot
            .compiled
            .rollouts
            .get(&position.rollout)
            .and_then(|r| r.get(earlier))
        else {
            continue;
        };
        for wave in snapshot.compiled.waves.peers(target, earlier) {
            if let Some(wait) = wave_blocks(shared, snapshot, target, wave, stage, resumed, now) {
                return Some(wait);
            }
        }
    }
    if position.region > 0 {
        let peers = snapshot.compiled.waves.peers(target, position.stage);
        let siblings = peers.filter(|(key, _)| key.is_of_one_owner());
        for address in siblings.flat_map(|(_, members)| members) {
            let (Some(other), Some(known)) = (all.get(address), shared.known_at(snapshot, address))
            else {
                continue;
            };
            if same_region_order(other, target) && shared.passed(known, snapshot.id).is_none() {
                return Some(Wait::new(
                    Reason::Rollout,
                    format!(
                        "regions follow each other: {}",
                        waits_for(address, Some(known))
                    ),
                    Some(address.clone()),
                ));
            }
        }
    }
    None
}

/// Tells what a target waits for in an earlier wave, of those there that go its way or share its template.
///
/// The last of them is asked first: they settle in about the order of their names, so that whoever waits for the last one
/// is woken seldom.
fn wave_blocks(
    shared: &Shared,
    snapshot: &Snapshot,
    target: &Target,
    (key, members): (&WaveKey, &[Address]),
    stage: &Stage,
    resumed: Option<Timestamp>,
    now: Now,
) -> Option<Wait> {
    let bakes = |address: &Address, since: Timestamp| {
        let is_over = |baked: Duration| baked >= stage.bake || !crate::testing::guard("bake");
        // Only what still bakes is remembered by the other clock.
        if is_over(now.wall.since(since)) {
            return None;
        }
        let baked = shared.elapsed(since, now);
        if is_over(baked) {
            return None;
        }
        let detail = format!(
            "waits for {address} to bake ({} s of {} s)",
            baked.as_secs(),
            stage.bake.as_secs()
        );
        Some(Wait {
            after: Some(stage.bake - baked),
            ..Wait::new(Reason::Rollout, detail, Some(address.clone()))
        })
    };
    let through = (snapshot.id, key.clone());
    if let Some((last, since)) = shared.through.borrow().get(&through) {
        return bakes(last, *since);
    }
    let mut last: Option<(&Address, Timestamp)> = None;
    let mut all_passed = true;
    for address in members.iter().rev() {
        let Some(other) = snapshot.compiled.targets.get(address) else {
            continue;
        };
        let Some(known) = shared.known_at(snapshot, address) else {
            all_passed = false;
            // Nobody can tell who stands there: the same journey does not go round it.
            let unclear = snapshot.compiled.unmoved.contains_key(address)
                || other.faults.iter().any(Finding::is_error);
            if unclear && same_journey(other, target) {
                let detail = format!("waits for {address}, whose files have faults");
                return Some(Wait::new(Reason::Rollout, detail, Some(address.clone())));
            }
            continue;
        };
        let passed = shared.passed(known, snapshot.id);
        all_passed &= passed.is_some();
        // Another service counts only for what is shared: its template must have settled, not its own spec.
        let since = passed.or_else(|| {
            let applied = known.history.applied.as_ref();
            applied
                .filter(|a| {
                    !same_journey(other, target)
                        && a.bundle.as_ref() == other.template().map(|t| &t.digest)
                })
                .map(|a| a.at)
        });
        let Some(since) = since else {
            let failed = matches!(
                known.condition.result,
                SyncResult::Failed | SyncResult::Stuck
            );
            let at = known.history.failed.as_ref().map(|(_, _, at)| *at);
            let goes_on = at.zip(resumed).is_some_and(|(at, resumed)| at < resumed);
            if failed && !same_journey(other, target) && goes_on {
                continue;
            }
            let detail = waits_for(address, Some(known));
            return Some(Wait::new(Reason::Rollout, detail, Some(address.clone())));
        };
        if let Some(wait) = bakes(address, since) {
            return Some(wait);
        }
        if last.is_none_or(|(_, before)| before < since) {
            last = Some((address, since));
        }
    }
    // Who has passed a snapshot stays past it: the wave is not walked again for each one behind it.
    if let Some((address, since)) = last.filter(|_| all_passed) {
        let mut known = shared.through.borrow_mut();
        known.insert(through, (address.clone(), since));
    }
    None
}

/// Says whom a target waits for, and how that one is where that is known.
fn waits_for(address: &Address, known: Option<&Known>) -> String {
    match known.filter(|k| k.condition.reason != Reason::NotYet) {
        Some(known) => format!("waits for {address}, which is {}", known.condition),
        None => format!("waits for {address}"),
    }
}

fn same_region_order(other: &Target, target: &Target) -> bool {
    let earlier = other
        .stage
        .as_ref()
        .zip(target.stage.as_ref())
        .is_some_and(|(a, b)| a.region < b.region);
    earlier && other.placement.name == target.placement.name && same_owner(other, target)
}
