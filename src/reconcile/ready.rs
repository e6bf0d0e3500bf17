//! Which snapshot a target may go to, and what it waits for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Known, Line, Shared, Snapshot};
use crate::domain::deployment::Outcome;
use crate::domain::estate::{StagePosition, Target, TargetKind};
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
        let now = self.clock.now();
        let shared = self.shared();
        // What was removed does not come back as it was before that.
        let history = shared.targets.get(uid).map(|k| &k.history);
        let removed = history
            .and_then(|h| h.last.as_ref())
            .filter(|(_, settled, _)| settled.outcome == Outcome::Removed)
            .map(|(pinned, _, _)| pinned.snapshot);
        let applied = history.and_then(|h| h.applied.as_ref()).map(|a| a.snapshot);
        let applied = applied.max(removed);
        let mut first = None;
        for snapshot in shared.snapshots.iter().rev().filter(|s| {
            s.id <= newest.id
                && (applied.is_none_or(|a| s.id >= a) || !crate::testing::guard("older"))
        }) {
            let Some(target) = snapshot.compiled.targets.get(address) else {
                continue;
            };
            // Only the newest was judged before this: what was wrong in a commit stays wrong when a newer one is right.
            if snapshot.id != newest.id && !can_go(snapshot, target) {
                continue;
            }
            let wait = blocked(&shared, snapshot, target, uid, now)
                .filter(|_| crate::testing::guard("order"));
            match wait {
                None => return Candidate::Go(snapshot.clone(), first),
                Some(wait) => {
                    first.get_or_insert(wait);
                }
            }
        }
        Candidate::Stay(first.unwrap_or(Wait {
            reason: Reason::Dependency,
            detail: "nothing that comes before it has settled".into(),
            on: None,
            after: None,
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
        let peers: Vec<(&Address, &Known)> = peers(&shared, snapshot, target, position.stage)
            .into_iter()
            .filter(|(a, _)| **a != target.address)
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
                return Some(Wait {
                    reason: Reason::RolloutHalted,
                    detail: format!(
                        "the wave halted after {} failure{}: {names}",
                        failed.len(),
                        if failed.len() == 1 { "" } else { "s" }
                    ),
                    on: failed.first().map(|a| (*a).clone()),
                    after: None,
                });
            }
        }
        if let Some(most) = stage.max_in_flight {
            let moving = peers
                .iter()
                .filter(|(_, k)| {
                    k.history.current.is_some()
                        && matches!(
                            k.condition.result,
                            SyncResult::Planning | SyncResult::Applying | SyncResult::CleaningUp
                        )
                })
                .count();
            if moving >= most as usize {
                return Some(Wait {
                    reason: Reason::Rollout,
                    detail: format!("{moving} of its wave are in motion, at most {most} may be"),
                    on: None,
                    after: Some(Duration::from_millis(200)),
                });
            }
        }
        None
    }
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

/// Returns the targets of a wave that share the service or the template with a target.
fn peers<'a>(
    shared: &'a Shared,
    snapshot: &'a Snapshot,
    target: &Target,
    stage: usize,
) -> Vec<(&'a Address, &'a Known)> {
    let Some(position) = &target.stage else {
        return Vec::new();
    };
    let family = family(target);
    snapshot
        .compiled
        .targets
        .iter()
        .filter(|(_, t)| {
            t.stage
                .as_ref()
                .is_some_and(|p| p.rollout == position.rollout && p.stage == stage)
        })
        .filter(|(a, t)| {
            a.kind() == target.address.kind()
                && (same_owner(t, target) || !family.is_disjoint(&self::family(t)))
        })
        .filter_map(|(a, _)| Some((a, shared.targets.get(snapshot.uids.get(a)?)?)))
        .collect()
}

/// The template names of a target: what makes others part of the same roll-out of a template.
fn family(target: &Target) -> BTreeSet<String> {
    target
        .template()
        .map(|t| t.version.split('@').next().unwrap_or_default().to_owned())
        .into_iter()
        .collect()
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
    now: Timestamp,
) -> Option<Wait> {
    for need in target.needs() {
        let Some(producer) = snapshot.compiled.targets.get(&need) else {
            return Some(Wait {
                reason: Reason::Dependency,
                detail: format!("uses {need}, which is not asked for"),
                on: Some(need),
                after: None,
            });
        };
        if matches!(producer.kind, TargetKind::CustomerManaged { .. }) {
            continue;
        }
        let known = snapshot.uids.get(&need).and_then(|u| shared.targets.get(u));
        if known.and_then(|k| shared.passed(k, snapshot.id)).is_none() {
            return Some(Wait {
                reason: Reason::Dependency,
                detail: waits_for(&need, known),
                on: Some(need),
                after: None,
            });
        }
    }
    let position = target.stage.as_ref()?;
    // A sibling whose files have faults may belong to an earlier wave: nobody can tell, so nothing later moves.
    let broken = |t: &&Arc<Target>| {
        t.stage.is_none()
            && t.address.kind() == target.address.kind()
            && same_owner(t, target)
            && t.faults.iter().any(|f| f.is_error())
    };
    if position.stage > 0
        && let Some(sibling) = snapshot.compiled.targets.values().find(broken)
    {
        return Some(Wait {
            reason: Reason::Rollout,
            detail: format!("waits for {}, whose files have faults", sibling.address),
            on: Some(sibling.address.clone()),
            after: None,
        });
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
        for (address, known) in peers(shared, snapshot, target, earlier) {
            let Some(other) = snapshot.compiled.targets.get(address) else {
                continue;
            };
            let since = match shared.passed(known, snapshot.id) {
                Some(since) => Some(since),
                // Another service counts only for what is shared: its template must have settled, not its own spec.
                None if !same_journey(other, target) => known
                    .history
                    .applied
                    .as_ref()
                    .filter(|a| a.bundle.as_ref() == other.template().map(|t| &t.digest))
                    .map(|a| a.at),
                None => None,
            };
            let Some(since) = since else {
                let failed = matches!(
                    known.condition.result,
                    SyncResult::Failed | SyncResult::Stuck
                );
                if failed
                    && !same_journey(other, target)
                    && resumed.is_some_and(|r| {
                        known
                            .history
                            .failed
                            .as_ref()
                            .is_some_and(|(_, _, at)| *at < r)
                    })
                {
                    continue;
                }
                return Some(Wait {
                    reason: Reason::Rollout,
                    detail: waits_for(address, Some(known)),
                    on: Some(address.clone()),
                    after: None,
                });
            };
            let baked = now.since(since);
            if baked < stage.bake && crate::testing::guard("bake") {
                let left = stage.bake - baked;
                return Some(Wait {
                    reason: Reason::Rollout,
                    detail: format!(
                        "waits for {address} to bake ({} s of {} s)",
                        baked.as_secs(),
                        stage.bake.as_secs()
                    ),
                    on: Some(address.clone()),
                    after: Some(left),
                });
            }
        }
    }
    if position.region > 0 {
        for (address, known) in peers(shared, snapshot, target, position.stage) {
            let Some(other) = snapshot.compiled.targets.get(address) else {
                continue;
            };
            if same_region_order(other, target) && shared.passed(known, snapshot.id).is_none() {
                return Some(Wait {
                    reason: Reason::Rollout,
                    detail: format!(
                        "regions follow each other: {}",
                        waits_for(address, Some(known))
                    ),
                    on: Some(address.clone()),
                    after: None,
                });
            }
        }
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
