//! What is not worked out twice: the digest of a target that asks for the same, with the same outputs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Error, Known, Line, Pass, Shared, Snapshot};
use crate::domain::cfn::may_refer;
use crate::domain::deployment::History;
use crate::domain::estate::{Draft, Filled, Outputs, Rendering, Target, TargetKind};
use crate::domain::model::{
    Address, Digest, Finding, Reason, SnapshotId, SyncResult, TargetUid, Timestamp, canonical_json,
};

/// How many commits of forgotten snapshots are still shown.
const COMMITS: usize = 200;
/// How many renderings are kept until a deployment takes them.
const FRESH: usize = 256;
/// How many passes of a target are kept at most: more than there are snapshots at hand.
const PASSES: usize = 256;
/// How many snapshots more than wanted there may be before the oldest are forgotten.
const SLACK: usize = 16;
/// How long a wave that has baked is given to be followed by the next one.
const FOLLOWED: Duration = Duration::from_secs(600);

/// What the line has done since it was opened, for tests on how cost grows.
#[derive(Debug, Default)]
pub struct Counts {
    renders: AtomicU64,
    compiled: AtomicU64,
    read: AtomicU64,
    looked: AtomicU64,
    hints: [AtomicU64; 3],
}

impl Counts {
    /// How many renderings there were.
    pub fn renders(&self) -> u64 {
        self.renders.load(Ordering::Relaxed)
    }

    /// How often a target was looked at by itself.
    pub fn looked(&self) -> u64 {
        self.looked.load(Ordering::Relaxed)
    }

    /// How many templates were compiled to render many targets.
    pub fn compiled(&self) -> u64 {
        self.compiled.load(Ordering::Relaxed)
    }

    /// How many renderings were read.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// How many hints were about stacks of ours, how many about others, and how many messages were no hints.
    pub fn hints(&self) -> [u64; 3] {
        self.hints.each_ref().map(|n| n.load(Ordering::Relaxed))
    }

    pub(super) fn heard(&self, ours: u64, others: u64, malformed: u64) {
        for (count, more) in self.hints.iter().zip([ours, others, malformed]) {
            count.fetch_add(more, Ordering::Relaxed);
        }
    }

    pub(super) fn rendered_one(&self) {
        self.renders.fetch_add(1, Ordering::Relaxed);
        self.read.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn filled(&self, filled: Filled) {
        let add = |to: &AtomicU64, more: usize| to.fetch_add(more as u64, Ordering::Relaxed);
        add(&self.renders, filled.rendered);
        add(&self.compiled, filled.compiled);
        add(&self.read, filled.read);
    }

    pub(super) fn looked_at_one(&self) {
        self.looked.fetch_add(1, Ordering::Relaxed);
    }
}

/// The digest that a target had when it was last rendered.
#[derive(Debug)]
pub(super) struct Memo {
    target: Arc<Target>,
    fed: Vec<Option<Digest>>,
    digest: Digest,
}

impl Shared {
    /// Returns the digest of each producer's outputs, as they are deployed, and at last that of the versions that it is pinned
    /// to; absent where there are none.
    pub(super) fn fed(&self, snapshot: &Snapshot, target: &Target) -> Vec<Option<Digest>> {
        let (producers, pinned) = (target.producers(), target.placement.pin_references);
        let outputs = producers.iter().map(|producer| {
            if let Some(TargetKind::CustomerManaged { outputs }) =
                snapshot.compiled.targets.get(producer).map(|t| &t.kind)
            {
                let given = serde_json::json!(outputs);
                return Some(Digest::of("o1", &canonical_json(&given)));
            }
            self.outputs_of(snapshot, producer).cloned()
        });
        outputs
            .chain(pinned.then(|| self.versions_of(snapshot, target)))
            .collect()
    }

    fn outputs_of(&self, snapshot: &Snapshot, address: &Address) -> Option<&Digest> {
        let known = self.targets.get(snapshot.uids.get(address)?)?;
        known.history.applied.as_ref()?.outputs.as_ref()
    }

    /// Returns the digest of what a target asks for, if it was rendered before with the same.
    pub(super) fn remembered(
        &self,
        uid: &TargetUid,
        snapshot: &Snapshot,
        target: &Arc<Target>,
    ) -> Option<Digest> {
        let memo = self.targets.get(uid)?.memo.as_ref()?;
        let same = Arc::ptr_eq(&memo.target, target) || memo.target.renders_like(target);
        (same && memo.fed == self.fed(snapshot, target)).then(|| memo.digest.clone())
    }

    /// Keeps the digest of what a target asks for.
    pub(super) fn remember(
        &mut self,
        uid: &TargetUid,
        target: &Arc<Target>,
        fed: Vec<Option<Digest>>,
        digest: Digest,
    ) {
        if let Some(known) = self.targets.get_mut(uid) {
            let target = target.clone();
            known.memo = Some(Arc::new(Memo {
                target,
                fed,
                digest,
            }));
        }
    }
}

impl Shared {
    /// Notes that a target may no longer be as the newest snapshot asks, or was looked at by itself: the next snapshot
    /// concerns it.
    pub(super) fn stir(&mut self, uid: &TargetUid) {
        if !self.open.insert(uid.clone()) {
            return;
        }
        // What went without a word while it rested is written down.
        if let Some(known) = self.targets.get_mut(uid) {
            known.looked = known.looked.max(self.carried);
            if let Some(last) = known.passes.last_mut() {
                last.to = last.to.max(self.carried);
            }
        }
    }

    /// Returns the newest snapshot at which a target was looked at.
    pub(super) fn looked(&self, uid: &TargetUid) -> SnapshotId {
        let known = self.targets.get(uid).map_or(SnapshotId(0), |k| k.looked);
        if self.open.contains(uid) {
            known
        } else {
            known.max(self.carried)
        }
    }

    /// Tells since when a target has been in sync with exactly this snapshot.
    ///
    /// A pass of a newer snapshot vouches for nothing older: what was pushed in between may never have worked.
    pub(super) fn passed(&self, known: &Known, snapshot: SnapshotId) -> Option<Timestamp> {
        let (last, before) = known.passes.split_last()?;
        let mut last = *last;
        if !self.open.contains(&known.history.uid) {
            last.to = last.to.max(self.carried);
        }
        let all = before.iter().chain([&last]);
        let at = all.filter(|p| p.from <= snapshot && snapshot <= p.to);
        at.map(|p| p.since).min()
    }

    /// Takes over from the snapshot before whatever was in sync with it and is asked for in the same way, without
    /// looking at it again. Returns who is to be looked at.
    pub(super) fn carry_over(
        &mut self,
        before: Option<&Snapshot>,
        now: &Snapshot,
    ) -> Vec<TargetUid> {
        self.carry(before, now);
        let open: Vec<TargetUid> = self.open.iter().cloned().collect();
        for uid in &open {
            if let Some(known) = self.targets.get_mut(uid) {
                known.attempts = 0;
            }
        }
        open
    }

    /// Lets rest whoever is in sync at the end of a look: nobody asks for them until something changes.
    pub(super) fn come_to_rest(&mut self, newest: &Snapshot) {
        if self.carried == newest.id {
            self.carry(Some(newest), newest);
        }
    }

    /// Who rests and is asked for by the very same target is not even visited.
    fn carry(&mut self, before: Option<&Snapshot>, now: &Snapshot) {
        let follows = before.filter(|b| b.id == self.carried && Arc::ptr_eq(&b.uids, &now.uids));
        let concerned: BTreeSet<Address> = match follows {
            Some(before) => self.concerned_by(before, now),
            None => now.compiled.targets.keys().cloned().collect(),
        };
        let everybody: Vec<TargetUid> = match follows {
            Some(_) => concerned
                .iter()
                .filter_map(|a| now.uids.get(a).cloned())
                .collect(),
            None => self.targets.keys().cloned().collect(),
        };
        for uid in &everybody {
            self.stir(uid);
        }
        let mut carried: BTreeMap<&Address, (&TargetUid, Timestamp)> = BTreeMap::new();
        let mut lost: BTreeSet<&Address> = BTreeSet::new();
        for address in &concerned {
            let Some(target) = now.compiled.targets.get(address) else {
                continue;
            };
            let found = before
                .zip(now.uids.get(address))
                .and_then(|(b, uid)| Some((uid, self.still_in_sync(b, now, uid, target)?)));
            let missing = |need: &Address| !now.compiled.targets.contains_key(need);
            match found.filter(|_| !target.needs().iter().any(missing)) {
                Some(found) => {
                    carried.insert(address, found);
                }
                None if matches!(target.kind, TargetKind::CustomerManaged { .. }) => {}
                None => {
                    lost.insert(address);
                }
            }
        }
        // Who needs one that is looked at waits for it, and is looked at too.
        let mut open: Vec<&Address> = lost.iter().copied().collect();
        while let Some(address) = open.pop() {
            for user in now.compiled.graph.users(address) {
                if lost.insert(user) {
                    open.push(user);
                }
            }
        }
        for address in &lost {
            if let Some(uid) = now.uids.get(*address) {
                self.stir(uid);
            }
        }
        for (address, (uid, since)) in carried {
            if lost.contains(address) {
                continue;
            }
            if let Some(known) = self.targets.get_mut(uid) {
                known.looked = now.id;
                known.goes_on(now.id, since);
                self.open.remove(uid);
            }
        }
        self.carried = now.id;
    }

    /// Tells whether everybody whom the newest snapshot asks for was looked at with it, and nobody moves.
    pub(super) fn has_passed_over(&self, newest: &Snapshot) -> bool {
        let rests = |uid: &TargetUid| {
            let Some(known) = self.targets.get(uid) else {
                return false;
            };
            let address = known.history.address.as_ref();
            let asked_for = address.is_some_and(|a| newest.uids.get(a) == Some(uid));
            let moves = matches!(
                known.condition.result,
                SyncResult::Planning | SyncResult::Applying | SyncResult::CleaningUp
            );
            let looked = known.looked >= newest.id && known.condition.reason != Reason::NotYet;
            !asked_for || (looked && !moves)
        };
        self.carried == newest.id && self.open.iter().all(rests)
    }

    /// Returns whom a snapshot asks for, in the order of the uids.
    pub(super) fn members_of(&mut self, snapshot: &Snapshot) -> Arc<BTreeSet<TargetUid>> {
        match &self.members {
            Some((uids, members)) if Arc::ptr_eq(uids, &snapshot.uids) => members.clone(),
            _ => {
                let members: Arc<BTreeSet<_>> = Arc::new(snapshot.uids.values().cloned().collect());
                self.members = Some((snapshot.uids.clone(), members.clone()));
                members
            }
        }
    }

    /// Finds whom a snapshot concerns that has the same targets as the one before: whoever does not rest, is asked for
    /// in another way, stands in a later wave, or uses what such a one may have other outputs of.
    fn concerned_by(&self, before: &Snapshot, now: &Snapshot) -> BTreeSet<Address> {
        let mut concerned: BTreeSet<Address> = BTreeSet::new();
        let mut others = before.compiled.targets.iter().peekable();
        for (address, target) in &now.compiled.targets {
            while others.next_if(|(a, _)| *a < address).is_some() {}
            let same = others
                .next_if(|(a, _)| *a == address)
                .is_some_and(|(_, t)| Arc::ptr_eq(t, target));
            // Later waves ask how those before them stand.
            if !same || !target.is_first() {
                concerned.insert(address.clone());
            }
        }
        let contested = before.compiled.contested.iter();
        concerned.extend(contested.chain(&now.compiled.contested).cloned());
        let restless = self.open.iter().filter_map(|uid| self.targets.get(uid));
        concerned.extend(restless.filter_map(|k| k.history.address.clone()));
        let users: Vec<Address> = concerned
            .iter()
            .flat_map(|a| now.compiled.graph.users(a).cloned())
            .collect();
        concerned.extend(users);
        concerned
    }

    /// Returns the oldest snapshot that somebody may still go to, or that tells under which options something was
    /// applied; with everything as the newest asks, that is the newest.
    pub(super) fn oldest_needed(&self, newest: &Snapshot) -> SnapshotId {
        let as_asked = |uid: &TargetUid, known: &Known| {
            let target = known
                .history
                .address
                .as_ref()
                .filter(|a| newest.uids.get(a) == Some(uid))
                .and_then(|a| newest.compiled.targets.get(a));
            let applied = known.history.applied.as_ref();
            known.history.current.is_none()
                && match (target, applied) {
                    (Some(target), Some(applied)) => {
                        self.remembered(uid, newest, target).as_ref() == Some(&applied.digest)
                    }
                    // What was never deployed and is not asked for is forgotten.
                    (None, None) => known.history.owned.is_none(),
                    (Some(_), None) | (None, Some(_)) => false,
                }
        };
        if self.targets.iter().all(|(uid, known)| as_asked(uid, known)) {
            return newest.id;
        }
        let histories = || self.targets.values().map(|k| &k.history);
        let applied = histories().filter_map(|h| h.applied.as_ref());
        let applied = applied.map(|a| a.snapshot);
        applied.chain(self.pinned()).min().unwrap_or(SnapshotId(0))
    }

    /// Returns the snapshots that deployments in hand go to.
    pub(super) fn pinned(&self) -> impl Iterator<Item = SnapshotId> {
        let current = |k: &'_ Known| k.history.current.as_ref().map(|d| d.pinned.snapshot);
        self.targets.values().filter_map(current)
    }

    /// Tells since when a target has been in sync with the snapshot before, if a look at the new one can only find
    /// the same.
    fn still_in_sync(
        &self,
        before: &Snapshot,
        now: &Snapshot,
        uid: &TargetUid,
        target: &Arc<Target>,
    ) -> Option<Timestamp> {
        let known = self.targets.get(uid)?;
        let rests = known.history.current.is_none()
            && known.looked == before.id
            && matches!(
                known.condition.result,
                SyncResult::InSync | SyncResult::NoEffect
            );
        if !rests || before.uids.get(&target.address) != Some(uid) {
            return None;
        }
        let first = target.is_first();
        let same = before
            .compiled
            .targets
            .get(&target.address)
            .is_some_and(|t| Arc::ptr_eq(t, target));
        let contested = now.compiled.contested.contains(&target.address);
        let applied = known.history.applied.as_ref()?;
        if !first || !same || contested || self.remembered(uid, now, target)? != applied.digest {
            return None;
        }
        known
            .passes
            .iter()
            .rfind(|p| p.from <= before.id && before.id <= p.to)
            .map(|p| p.since)
    }

    /// Forgets the oldest snapshots beyond so many.
    ///
    /// What a wave has settled with stays beyond that for as long as it may bake, and what a deployment has pinned: pushes
    /// that come faster than a wave bakes would starve what comes later. There may be as many of these again; of more, those
    /// go that lie closest to the one before them, so that what bakes is never all gone.
    pub(super) fn make_room(&mut self, most: usize, newest: &Snapshot, now: Timestamp) {
        if self.snapshots.len() <= most + SLACK {
            return;
        }
        let stages = newest.compiled.rollouts.values().flatten();
        let bake = stages.map(|s| s.bake).max().unwrap_or_default();
        let horizon = bake.saturating_mul(2).saturating_add(FOLLOWED);
        let mut settled: BTreeMap<SnapshotId, Timestamp> = BTreeMap::new();
        for known in self.targets.values() {
            // Of passes since one time the first is where it settled; at those after it the same was found.
            let mut before = None;
            for pass in &known.passes {
                if before != Some(pass.since) && now.since(pass.since) <= horizon {
                    settled.insert(pass.from, pass.since);
                }
                before = Some(pass.since);
            }
            if let Some(current) = &known.history.current {
                settled.insert(current.pinned.snapshot, now);
            }
        }
        let recent = self.snapshots[self.snapshots.len() - most].id;
        let mut older: Vec<(SnapshotId, Timestamp)> =
            settled.into_iter().filter(|(s, _)| *s < recent).collect();
        while older.len() > most {
            let gap = |i: &usize| older[*i].1.since(older[*i - 1].1);
            let Some(closest) = (1..older.len()).min_by_key(gap) else {
                break;
            };
            older.remove(closest);
        }
        let older: BTreeSet<SnapshotId> = older.into_iter().map(|(s, _)| s).collect();
        let kept = |s: &SnapshotId| *s >= recent || older.contains(s);
        self.snapshots.retain(|s| kept(&s.id));
        for (uid, known) in &mut self.targets {
            let passes = &mut known.passes;
            // Who rests is in sync up to now, without a word about it.
            if !self.open.contains(uid)
                && let Some(last) = passes.last_mut()
            {
                last.to = last.to.max(self.carried);
            }
            passes.retain(|p| p.to >= recent || older.range(p.from..=p.to).next().is_some());
        }
    }

    /// Forgets the snapshots that nobody can go to any more: everything has passed the newest, and nothing runs.
    ///
    /// Kept is also what tells with which options something was applied, where the newest has others: whoever is no
    /// longer asked for is removed under the gates that it had.
    pub(super) fn forget_snapshots(&mut self, newest: &Snapshot) {
        if self.carried != newest.id {
            return;
        }
        // Whoever rests has passed it, and does not move.
        let open = || self.open.iter().filter_map(|uid| self.targets.get(uid));
        let asked_for = |known: &Known| {
            let address = known.history.address.as_ref();
            address.is_some_and(|a| newest.uids.get(a) == Some(&known.history.uid))
        };
        let moves = open().any(|k| k.history.current.is_some());
        let passed = open()
            .filter(|k| asked_for(k))
            .all(|k| k.passes.last().is_some_and(|p| p.to == newest.id));
        if moves || !passed {
            return;
        }
        let base = self
            .snapshots
            .iter()
            .find(|s| Some(s.id) == self.alike)
            .cloned();
        // Whoever is asked for as in a snapshot that gives everybody his options has them.
        let others: Vec<&Known> = match &base {
            Some(base) => {
                let mut before = base.compiled.targets.iter().peekable();
                let differs = newest.compiled.targets.iter().filter(|(address, target)| {
                    while before.next_if(|(a, _)| a < address).is_some() {}
                    before
                        .next_if(|(a, _)| a == address)
                        .is_none_or(|(_, t)| !Arc::ptr_eq(t, target))
                });
                let known = |address| self.targets.get(newest.uids.get(address)?);
                let differs = differs.filter_map(|(address, _)| known(address));
                differs.chain(open()).collect()
            }
            None => self.targets.values().collect(),
        };
        let mut needed = BTreeSet::from([newest.id]);
        let mut alike = true;
        for known in others {
            let (Some(applied), Some(address)) = (&known.history.applied, &known.history.address)
            else {
                continue;
            };
            let then = self.snapshots.iter().find(|s| s.id == applied.snapshot);
            let then = then.or(base.as_ref());
            let of = |s: &Arc<Snapshot>| s.compiled.targets.get(address).cloned();
            let now = newest.compiled.targets.get(address);
            match then {
                Some(then) if of(then).as_ref().map(|t| &t.options) == now.map(|t| &t.options) => {}
                Some(then) => {
                    needed.insert(then.id);
                    alike = false;
                }
                None => alike = false,
            }
        }
        self.fresh.clear();
        let gone = self.snapshots.extract_if(.., |s| !needed.contains(&s.id));
        self.commits
            .extend(gone.flat_map(|s| s.commits.values().cloned().collect::<Vec<_>>()));
        let excess = self.commits.len().saturating_sub(COMMITS);
        self.commits.drain(..excess);
        if alike {
            self.alike = Some(newest.id);
        }
        for uid in &self.open {
            if let Some(known) = self.targets.get_mut(uid) {
                known.passes.retain(|p| p.to >= newest.id);
                known.passes.shrink_to_fit();
            }
        }
    }
}

impl Known {
    /// Records that it was in sync at a snapshot. Returns whether that is new.
    pub(super) fn passed(&mut self, snapshot: SnapshotId, since: Timestamp) -> bool {
        let same = |p: &Pass| p.since == since && p.from <= snapshot && snapshot <= p.to;
        if self.passes.iter().any(same) {
            return false;
        }
        self.passes.push(Pass::at(snapshot, since));
        let excess = self.passes.len().saturating_sub(PASSES);
        self.passes.drain(..excess);
        true
    }

    /// Records that it has been in sync since before this snapshot, and is still.
    fn goes_on(&mut self, snapshot: SnapshotId, since: Timestamp) {
        match self.passes.last_mut() {
            Some(last) if last.since == since => last.to = last.to.max(snapshot),
            _ => {
                self.passed(snapshot, since);
            }
        }
    }
}

impl Line {
    /// Returns the digest of what a target asks for; it is rendered only if that is not known.
    pub(super) async fn digest_of(
        &self,
        uid: &TargetUid,
        history: &History,
        snapshot: &Snapshot,
        target: &Arc<Target>,
    ) -> Result<Result<(Digest, Option<Rendering>), Vec<Finding>>, Error> {
        let fed = {
            let mut shared = self.shared();
            if let Some(digest) = shared.remembered(uid, snapshot, target) {
                let fresh = shared.fresh.remove(uid).filter(|(d, _)| *d == digest);
                return Ok(Ok((digest, fresh.map(|(_, rendering)| rendering))));
            }
            shared.fed(snapshot, target)
        };
        let rendering = match self.render_target(history, snapshot, target).await? {
            Ok(rendering) => rendering,
            Err(findings) => return Ok(Err(findings)),
        };
        let digest = rendering.desired.digest(self.store.keyring().hasher());
        let mut shared = self.shared();
        // Outputs that changed meanwhile may or may not be in it: that is not remembered.
        if shared.fed(snapshot, target) == fed {
            shared.remember(uid, target, fed, digest.clone());
        }
        drop(shared);
        Ok(Ok((digest, Some(rendering))))
    }

    /// Tells whether a target is as it was asked for when it was last rendered, and that is what is asked for now.
    pub(super) fn is_settled(&self, snapshot: &Snapshot, target: &Arc<Target>) -> bool {
        let shared = self.shared();
        snapshot.uids.get(&target.address).is_some_and(|uid| {
            let applied = shared
                .targets
                .get(uid)
                .and_then(|k| k.history.applied.as_ref());
            applied.is_some_and(|a| {
                shared.remembered(uid, snapshot, target).as_ref() == Some(&a.digest)
            })
        })
    }

    /// Tells whether a draft is what was applied: its text was read then. Its digest is remembered.
    pub(super) fn is_applied(
        &self,
        snapshot: &Snapshot,
        target: &Arc<Target>,
        draft: &Draft,
    ) -> bool {
        let Some(uid) = snapshot.uids.get(&target.address) else {
            return false;
        };
        // What it refers to has a version, which the draft does not say.
        if target.placement.pin_references && may_refer(&draft.desired.template) {
            return false;
        }
        let mut desired = draft.desired.clone();
        let Some(owner) = self.owner_tags(uid) else {
            return false;
        };
        desired.own(&owner);
        let given = desired.given(self.store.keyring().hasher());
        let mut shared = self.shared();
        let applied = shared
            .targets
            .get(uid)
            .and_then(|k| k.history.applied.as_ref());
        let Some(digest) = applied
            .filter(|a| a.given.as_ref() == Some(&given))
            .map(|a| a.digest.clone())
        else {
            return false;
        };
        let fed = shared.fed(snapshot, target);
        shared.remember(uid, target, fed, digest);
        true
    }

    fn owner_tags(&self, uid: &TargetUid) -> Option<BTreeMap<String, String>> {
        let shared = self.shared();
        let known = shared.targets.get(uid)?;
        Some(known.history.owner_tags(&self.settings.installation))
    }

    /// Remembers the digest of a rendering that was made with the outputs that are deployed.
    pub(super) fn remember_rendering(
        &self,
        snapshot: &Snapshot,
        target: &Arc<Target>,
        mut rendering: Rendering,
    ) {
        let Some(uid) = snapshot.uids.get(&target.address) else {
            return;
        };
        let Some(owner) = self.owner_tags(uid) else {
            return;
        };
        rendering.desired.own(&owner);
        let mut shared = self.shared();
        // What is not known is asked for when the target is looked at by itself.
        if !shared.pin_known(uid, target, &mut rendering).is_empty() {
            return;
        }
        let digest = rendering.desired.digest(self.store.keyring().hasher());
        let fed = shared.fed(snapshot, target);
        shared.remember(uid, target, fed, digest.clone());
        let Some(history) = shared.targets.get(uid).map(|k| &k.history) else {
            return;
        };
        let differs = history.applied.as_ref().is_none_or(|a| a.digest != digest);
        if let Some(name) = history.stack_name.clone()
            && differs
            && shared.fresh.len() < FRESH
        {
            // It was rendered for nobody: the text does not hold the name, and what is asked for does.
            rendering.desired.stack_name = name;
            shared.fresh.insert(uid.clone(), (digest, rendering));
        }
    }

    /// Returns the outputs of some targets, of those that have any.
    pub(super) async fn outputs_of(
        &self,
        snapshot: &Snapshot,
        addresses: &[Address],
    ) -> Result<BTreeMap<Address, Outputs>, Error> {
        let mut all = BTreeMap::new();
        for address in addresses {
            if let Some(TargetKind::CustomerManaged { outputs }) =
                snapshot.compiled.targets.get(address).map(|t| &t.kind)
            {
                all.insert(address.clone(), Arc::new(outputs.clone()));
                continue;
            }
            let digest = self.shared().outputs_of(snapshot, address).cloned();
            if let Some(digest) = digest {
                all.insert(address.clone(), self.outputs(&digest).await?);
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::model::{Actor, Condition};

    #[test]
    fn who_rests_keeps_its_pass_when_snapshots_are_forgotten() {
        let uid: TargetUid = "0".repeat(32).parse().unwrap();
        let mut shared = Shared::default();
        let known = Known {
            history: Arc::new(History::new(uid.clone())),
            stream_seq: 1,
            condition: Condition {
                result: SyncResult::InSync,
                reason: Reason::Settled,
                detail: String::new(),
                since: Timestamp(0),
            },
            looked: SnapshotId(1),
            passes: vec![Pass::at(SnapshotId(1), Timestamp(0))],
            attempts: 0,
            progress: None,
            wanted: None,
            radius: None,
            ended: None,
            memo: None,
        };
        shared.targets.insert(uid.clone(), known);
        let count = SLACK as u64 + 9;
        for id in 1..=count {
            shared.snapshots.push(Arc::new(Snapshot {
                id: SnapshotId(id),
                revisions: BTreeMap::new(),
                commits: BTreeMap::new(),
                compiled: Default::default(),
                at: Timestamp(0),
                trigger: String::new(),
                actor: Actor::daemon("test"),
                uids: Arc::default(),
            }));
        }
        shared.carried = SnapshotId(count);
        let newest = shared.snapshots.last().cloned().unwrap();
        shared.make_room(4, &newest, Timestamp(1_000_000_000));
        assert!(shared.snapshots.len() < count as usize);
        let known = &shared.targets[&uid];
        assert_eq!(shared.passed(known, SnapshotId(count)), Some(Timestamp(0)));
    }
}
