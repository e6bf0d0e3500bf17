//! What the line can tell: the estate, one target, a difference, evidence and proof. Shapes are versioned with `v`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::bundles::Sent;
use super::ready::Candidate;
use super::{CountersignReport, Error, Known, Line, OperatorError};
use crate::domain::audit::{Body, Entry, Stream};
use crate::domain::cfn::name_nested;
use crate::domain::deployment::{EventKind, Outcome, Pinned};
use crate::domain::estate::Target;
use crate::domain::model::{
    Address, Condition, Digest, Finding, Reason, Revision, SourceName, SyncResult, TargetUid,
    Timestamp,
};
use crate::domain::plan::{Change, StackStatus, StatusClass};
use crate::domain::render::{self, Limits};
use crate::domain::template::{load_bundle, text_of};
use crate::git::CommitInfo;
use crate::port::{ObjectStore, Traffic};

/// One target, as people see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TargetReport {
    /// Its address.
    pub address: Address,
    /// Its uid.
    pub uid: TargetUid,
    /// Its condition.
    pub condition: Condition,
    /// What runs.
    pub progress: Option<String>,
    /// Its stack.
    pub stack_name: Option<String>,
    /// Its placement.
    pub placement: Option<String>,
    /// The template version that is asked for.
    pub template: Option<String>,
    /// The template version that serves.
    pub serving_template: Option<String>,
    /// The revision that serves.
    pub serving: Option<String>,
    /// When that settled.
    pub since: Option<Timestamp>,
    /// What it uses.
    pub uses: Vec<Address>,
    /// Who uses it.
    pub used_by: Vec<Address>,
    /// The line that made it.
    pub made_by: Option<String>,
    /// The review that waits, with counts and losses.
    pub review: Option<(Digest, String, Vec<String>)>,
    /// The changes of that review.
    pub changes: Vec<Change>,
    /// Approvals given so far.
    pub approvals: Vec<String>,
    /// The last outcome.
    pub last: Option<(Outcome, Option<String>, Timestamp)>,
    /// The line of the template that defines the resource which the cause names.
    #[serde(default)]
    pub cause_at: Option<String>,
    /// How long the last deployment took, in milliseconds.
    pub took_ms: Option<u64>,
    /// What to do.
    pub help: String,
    /// By whom, why and until when it is suspended, also while nothing of it is held.
    #[serde(default)]
    pub suspended: Option<Suspension>,
    /// The target that it waits for.
    #[serde(default)]
    pub waits_for: Option<Address>,
    /// What its commit changes in its placement, where that is more than may change without an approval.
    #[serde(default)]
    pub blast_radius: Vec<Address>,
    /// Faults of its files.
    pub findings: Vec<Finding>,
    /// Names of its outputs.
    pub outputs: Vec<String>,
    /// The newest snapshot at which it was looked at.
    pub looked: u64,
}

/// Who holds a target, why and until when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Suspension {
    /// Why.
    pub reason: String,
    /// Until when; absent means until it is resumed.
    pub until: Option<Timestamp>,
    /// Who said so.
    pub by: String,
}

/// The whole estate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EstateReport {
    /// Version of this shape.
    pub v: u32,
    /// The installation.
    pub installation: String,
    /// The newest snapshot.
    pub snapshot: u64,
    /// Its commits.
    pub commits: BTreeMap<SourceName, CommitInfo>,
    /// Targets by address.
    pub targets: Vec<TargetReport>,
    /// Levels of targets: each needs only earlier ones.
    pub levels: Vec<Vec<Address>>,
    /// Faults of the newest commit.
    pub findings: Vec<Finding>,
    /// Heads that were not accepted, by source.
    pub refused: BTreeMap<SourceName, String>,
    /// Why the last look could not be made: what is shown is from the one before, and it is made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlooked: Option<String>,
    /// What forges do not do, by source: nothing that is deployed waits for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forges: BTreeMap<SourceName, Vec<String>>,
    /// Those of them that are rewritten histories, which an operator may accept.
    #[serde(default)]
    pub rewritten: BTreeMap<SourceName, Revision>,
    /// When stacks were swept.
    pub swept_at: Option<Timestamp>,
    /// Now, by the daemon's clock.
    pub now: Timestamp,
    /// Whether every target was looked at with this snapshot and rests.
    pub settled: bool,
    /// Entries of the log.
    pub entries: u64,
    /// Whether FREEZE stops every execution.
    pub frozen: bool,
    /// How often services were called, where calls are counted.
    #[serde(default)]
    pub calls: Vec<Traffic>,
    /// How many hints were about stacks of ours, how many about others, and how many messages were no hints.
    #[serde(default)]
    pub hints: [u64; 3],
    /// How far checkpoints of the log have a second signature, where a key for it is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub countersigned: Option<CountersignReport>,
}

/// The entries that belong to a question, and what they hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Evidence {
    /// Version of this shape.
    pub v: u32,
    /// Entries in order.
    pub entries: Vec<Entry>,
    /// Commits by revision, where they are known.
    pub commits: BTreeMap<String, CommitInfo>,
    /// Addresses by uid.
    pub addresses: BTreeMap<String, Address>,
    /// The last entry that a checkpoint vouches for, and when it was signed.
    pub signed: Option<(u64, Timestamp)>,
}

/// What proving a deployment came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Proof {
    /// The deployment.
    pub deployment: String,
    /// The target.
    pub address: Option<Address>,
    /// Each step, and whether it held.
    pub steps: Vec<(String, bool)>,
}

impl Line {
    /// Keeps why a look could not be made, for people; nothing where it was made.
    pub fn looked_at_all(&self, failed: Option<String>) {
        self.shared().unlooked = failed;
    }

    /// Reports the whole estate.
    pub async fn estate(&self) -> Result<EstateReport, Error> {
        let newest = self.newest();
        let uids: Vec<TargetUid> = self.shared().targets.keys().cloned().collect();
        let mut targets = Vec::new();
        let mut fresh = FRESH;
        for uid in uids {
            if let Some(mut report) = self.target(&uid, false).await? {
                if waits(&report) && fresh > 0 {
                    fresh -= 1;
                    self.refresh(&mut report);
                }
                let gone = newest
                    .as_ref()
                    .is_some_and(|s| s.uids.get(&report.address) != Some(&uid));
                if !(gone && report.serving.is_none()) {
                    targets.push(report);
                }
            }
        }
        targets.sort_by(|a, b| a.address.cmp(&b.address));
        let shared = self.shared();
        let (commits, levels, findings, id) = match &newest {
            Some(s) => (
                s.commits.clone(),
                s.compiled.graph.levels(),
                s.compiled.findings.clone(),
                s.id,
            ),
            None => Default::default(),
        };
        let refused = shared
            .refused
            .iter()
            .map(|(name, (_, text))| (name.clone(), text.clone()))
            .collect();
        let rewritten = shared
            .refused
            .iter()
            .filter_map(|(name, (revision, _))| Some((name.clone(), revision.clone()?)))
            .collect();
        Ok(EstateReport {
            v: 1,
            installation: self.settings.installation.to_string(),
            snapshot: id.0,
            commits,
            settled: shared.synced.contains(&id)
                && shared.unlooked.is_none()
                && self.queue.is_quiet(super::look::QUIET),
            unlooked: shared.unlooked.clone(),
            forges: self.forge_troubles(),
            targets,
            levels,
            findings,
            refused,
            rewritten,
            swept_at: shared.swept_at,
            now: self.clock.now(),
            entries: *self.store.watch().borrow(),
            frozen: self.is_frozen(),
            calls: self.ports.traffic(),
            hints: self.counts.hints(),
            countersigned: self.countersigned(),
        })
    }

    /// Reports one target.
    pub async fn target(
        &self,
        uid: &TargetUid,
        with_changes: bool,
    ) -> Result<Option<TargetReport>, Error> {
        let looked = self.shared().looked(uid);
        let Some(known) = self.known(uid) else {
            return Ok(None);
        };
        let Some(address) = known.history.address.clone() else {
            return Ok(None);
        };
        let newest = self.newest();
        let target = newest
            .as_ref()
            .and_then(|s| s.compiled.targets.get(&address).cloned());
        let history = &known.history;
        let waiting = history
            .current
            .as_ref()
            .filter(|d| !d.is_executing())
            .and_then(|d| {
                d.review
                    .clone()
                    .map(|r| (r, d.summary.clone(), d.losses.clone()))
            });
        let mut changes = Vec::new();
        if with_changes && let Some(((_, payload), _, _)) = &waiting {
            changes = self.review_of(payload).await?.changes;
        }
        let mut findings = target
            .as_ref()
            .map(|t| t.faults.clone())
            .unwrap_or_default();
        if known.condition.reason == Reason::Invalid && findings.is_empty() {
            findings = newest
                .as_ref()
                .map(|s| {
                    s.compiled
                        .findings
                        .iter()
                        .filter(|f| f.is_error())
                        .cloned()
                        .collect()
                })
                .unwrap_or_default();
        }
        let took = history
            .last
            .as_ref()
            .map(|(pinned, _, at)| (pinned.deployment.clone(), *at));
        let blast_radius = match (&known.radius, &target) {
            (Some(radius), Some(target)) if with_changes => {
                self.radius_of(&radius.snapshot, target).await?.0
            }
            _ => Vec::new(),
        };
        let now = self.clock.now();
        let mut report = TargetReport {
            help: self.help(&known, &address),
            suspended: history
                .suspended
                .as_ref()
                .filter(|(_, until, _)| until.is_none_or(|u| u > now))
                .map(|(reason, until, by)| Suspension {
                    reason: reason.clone(),
                    until: *until,
                    by: by.display.clone(),
                }),
            waits_for: None,
            blast_radius,
            uid: uid.clone(),
            progress: known.progress.clone(),
            stack_name: history.stack_name.as_ref().map(ToString::to_string),
            placement: target
                .as_ref()
                .map(|t| &t.placement.name)
                .or(history.placed.as_ref().map(|p| &p.placement))
                .map(ToString::to_string),
            template: target
                .as_ref()
                .and_then(|t| t.template())
                .map(|t| t.version.clone()),
            serving_template: history.applied.as_ref().and_then(|a| a.template.clone()),
            serving: history.applied.as_ref().map(|a| a.revision.to_string()),
            since: history.applied.as_ref().map(|a| a.at),
            uses: target.as_ref().map(|t| t.needs()).unwrap_or_default(),
            used_by: newest
                .as_ref()
                .map(|s| s.compiled.graph.users(&address).cloned().collect())
                .unwrap_or_default(),
            made_by: target.as_ref().map(|t| match t.made_by.span {
                Some(span) => format!("{}:{}", t.made_by.file, span.line),
                None => t.made_by.file.clone(),
            }),
            review: waiting.map(|((digest, _), summary, losses)| (digest, summary, losses)),
            changes,
            approvals: history
                .current
                .iter()
                .flat_map(|d| d.approvals.iter().map(|a| a.by.display.clone()))
                .collect(),
            last: history
                .last
                .as_ref()
                .map(|(_, s, at)| (s.outcome, s.cause.clone(), *at)),
            cause_at: history
                .last
                .as_ref()
                .zip(target.as_ref())
                .and_then(|((_, s, _), target)| cause_at(target, s.cause.as_deref()?)),
            took_ms: took.and_then(|(id, at)| {
                started(id.as_str()).map(|from| u64::try_from(at.0 - from).unwrap_or(0))
            }),
            findings,
            outputs: history
                .last
                .as_ref()
                .map(|(_, s, _)| s.output_names.clone())
                .unwrap_or_default(),
            looked: looked.0,
            condition: known.condition,
            address,
        };
        if with_changes && waits(&report) {
            self.refresh(&mut report);
        }
        Ok(Some(report))
    }

    /// Says what to do about a target, with the words that stand for its own names filled in.
    fn help(&self, known: &Known, address: &Address) -> String {
        let reason = known.condition.reason;
        let address = address.to_string();
        if reason == Reason::StackStuck && known.history.stack_name.is_some() {
            let failed = known.history.failed.as_ref();
            let stuck_on = failed.map_or(&[][..], |(_, s, _)| &s.stuck_on);
            return way_out(self.status_of(known), &address, stuck_on);
        }
        if reason == Reason::Protected
            && let Some(stack) = &known.history.stack_name
        {
            return format!(
                "if the stack may go, take its protection off by hand (embedded engine: isoform local unprotect {stack})"
            );
        }
        let commit = known
            .radius
            .as_ref()
            .and_then(|r| r.snapshot.revisions.values().next())
            .map_or("<commit>", Revision::short);
        let mut help = reason.help().replace("<commit>", commit);
        if reason == Reason::HistoryRewritten {
            return help;
        }
        for word in ["isoform why", "isoform approve"] {
            help = help.replace(&format!("`{word}`"), &format!("`{word} {address}`"));
        }
        help.replace("<target>", &address)
    }

    /// The newest status that is known of a target's stack.
    fn status_of(&self, known: &Known) -> Option<StackStatus> {
        let shared = self.shared();
        let swept = known
            .history
            .owned
            .as_ref()
            .and_then(|s| Some((shared.swept_at?, shared.swept.get(s)?.status.clone())));
        let settled = known
            .history
            .last
            .as_ref()
            .and_then(|(_, s, at)| Some((*at, s.watermark.as_ref()?.status.clone())));
        let newest = [swept, settled].into_iter().flatten();
        newest.max_by_key(|(at, _)| *at).map(|(_, status)| status)
    }

    /// Says what a target waits for as it is now: what it said when it was looked at may have gone on since.
    fn refresh(&self, report: &mut TargetReport) {
        let Some(newest) = self.newest() else {
            return;
        };
        let wait = match self.candidate(&report.uid, &newest, &report.address) {
            Candidate::Stay(wait) | Candidate::Go(_, Some(wait)) => wait,
            Candidate::Go(_, None) => return,
        };
        report.condition.reason = wait.reason;
        report.condition.detail = wait.detail;
        report.waits_for = wait.on;
    }

    /// Returns the events of a target's stack, oldest first.
    pub async fn events(&self, uid: &TargetUid) -> Result<Vec<crate::port::StackEvent>, Error> {
        let Some(history) = self.history(uid) else {
            return Ok(Vec::new());
        };
        let stack = history.owned.clone().or(history
            .last
            .as_ref()
            .and_then(|(p, _, _)| p.watermark.as_ref().map(|w| w.stack_id.clone())));
        let Some(stack) = stack else {
            return Ok(Vec::new());
        };
        let asked_for = self.newest().and_then(|s| {
            let target = s.compiled.targets.get(history.address.as_ref()?)?;
            Some((target.placement.clone(), target.region.clone()))
        });
        // What is not asked for any more is where it was deployed: its end is what one wants to read.
        let deployed = || Some((self.placement_of(&history, &stack)?, stack.region()?));
        match asked_for.or_else(deployed) {
            Some((placement, region)) => Ok(self
                .ports
                .engine(&placement, &region)?
                .events(&stack, None)
                .await?),
            None => Ok(Vec::new()),
        }
    }

    /// Collects the entries that belong to a commit, a deployment, a stack or a target.
    pub async fn evidence(&self, question: &str) -> Result<Evidence, Error> {
        let mut entries = Vec::new();
        let selected: Vec<TargetUid> = {
            let shared = self.shared();
            let of = |k: &super::Known| {
                k.history
                    .address
                    .as_ref()
                    .is_some_and(|a| a.to_string() == question || a.base().to_string() == question)
                    || k.history
                        .stack_name
                        .as_ref()
                        .is_some_and(|n| n.as_str() == question)
                    || k.history
                        .owned
                        .as_ref()
                        .is_some_and(|s| s.as_str() == question)
            };
            shared
                .targets
                .iter()
                .filter(|(_, k)| of(k))
                .map(|(u, _)| u.clone())
                .collect()
        };
        let commit = question.len() >= 4 && question.bytes().all(|b| b.is_ascii_hexdigit());
        let mut from = 1;
        let mut wanted: std::collections::BTreeSet<String> = std::collections::BTreeSet::new();
        loop {
            let page = self.store.entries(from, 1000).await?;
            let Some(last) = page.last() else { break };
            from = last.seq + 1;
            for entry in page {
                let hit = match (&entry.stream, &entry.body) {
                    (Stream::Target(uid), Body::Target(kind)) => {
                        if let EventKind::Begun(pinned) = kind {
                            let same = pinned.deployment.as_str().starts_with(question)
                                || (commit && pinned.revision.as_str().starts_with(question));
                            if same {
                                wanted.insert(uid.to_string());
                            } else {
                                wanted.remove(uid.as_str());
                            }
                        }
                        wanted.contains(uid.as_str()) || selected.contains(uid)
                    }
                    (_, Body::Accepted { revisions, .. }) => {
                        commit && revisions.values().any(|r| r.as_str().starts_with(question))
                    }
                    (_, Body::Synced(look)) => {
                        commit
                            && look
                                .revisions
                                .values()
                                .any(|r| r.as_str().starts_with(question))
                    }
                    (_, Body::Registered(version)) => {
                        (commit && version.revision.as_str().starts_with(question))
                            || version.version() == question
                    }
                    _ => false,
                };
                if hit {
                    entries.push(entry);
                }
            }
        }
        let mut commits = BTreeMap::new();
        let addresses = {
            let shared = self.shared();
            let kept = shared.snapshots.iter().flat_map(|s| s.commits.values());
            for info in shared.commits.iter().chain(kept) {
                commits.insert(info.revision.to_string(), info.clone());
            }
            shared
                .targets
                .iter()
                .filter_map(|(u, k)| Some((u.to_string(), k.history.address.clone()?)))
                .collect()
        };
        let signed = self
            .store
            .checkpoints()
            .await?
            .last()
            .map(|c| (c.seq, c.at));
        Ok(Evidence {
            v: 1,
            entries,
            commits,
            addresses,
            signed,
        })
    }

    /// The store that holds what was rendered for a deployment: the one that serves its stack's region.
    fn store_of(&self, stream: &Stream, pinned: &Pinned) -> Arc<dyn ObjectStore> {
        let owned = match stream {
            Stream::Target(uid) => self.history(uid).and_then(|h| h.owned.clone()),
            _ => None,
        };
        let placed = pinned.placed.as_ref().map(|p| &p.placement);
        let placement = placed.and_then(|name| self.settings.placements.get(name));
        match (placement, owned.and_then(|s| s.region())) {
            (Some(placement), Some(region)) => self.ports.store(placement, &region).ok(),
            _ => None,
        }
        .unwrap_or_else(|| self.ports.home())
    }

    /// Proves a deployment: opens the sealed bundle, renders again from the recorded inputs, and compares.
    pub async fn prove(&self, question: &str) -> Result<Proof, OperatorError> {
        let evidence = self.evidence(question).await?;
        let pinned = evidence.entries.iter().rev().find_map(|e| match &e.body {
            Body::Target(EventKind::Begun(pinned)) => Some((e.stream.clone(), pinned.clone())),
            _ => None,
        });
        let Some((stream, pinned)) = pinned else {
            return Err(OperatorError::NoSuch(format!(
                "`{}` names no deployment: write a deployment, an address or a commit, as `isoform history <target>` shows them",
                question.escape_debug()
            )));
        };
        let address = match &stream {
            Stream::Target(uid) => evidence.addresses.get(uid.as_str()).cloned(),
            _ => None,
        };
        let mut steps = Vec::new();
        let pinning = self.pinning(&pinned.payload).await;
        steps.push((
            format!(
                "the payload {} opens and has its digest",
                pinned.payload.short(12)
            ),
            pinning.is_ok(),
        ));
        let pinning = pinning?;
        let mut text = None;
        if let Some(digest) = &pinned.bundle {
            let sealing = self.ports.sealing();
            let files =
                super::bundles::open_bundle(self.ports.home().as_ref(), sealing.as_deref(), digest)
                    .await;
            steps.push((
                format!(
                    "the sealed bundle {} opens and has its digest",
                    digest.short(12)
                ),
                files.is_ok(),
            ));
            let files = files?;
            let (bundle, _) = load_bundle(&files, "");
            text = bundle.and_then(|b| {
                [b.infrastructure, b.instance, b.pipeline]
                    .into_iter()
                    .flatten()
                    .find(|p| pinning.file.ends_with(&p.file))
                    .map(|p| (p, files))
            });
        }
        if let Some((part, files)) = text {
            let again =
                render::render(&pinning.file, &part.text, &pinning.data, &Limits::default());
            let same = again.is_ok_and(|r| {
                let beside = |path: &str| text_of(&files, path).ok().map(Into::into);
                match name_nested(&part.file, &r.text, &beside) {
                    Ok(None) => pinning.pin(&r.text) == pinning.rendered,
                    Ok(Some(named)) => {
                        pinning.pin(&named.text) == pinning.rendered
                            && named.nested == pinning.nested
                    }
                    Err(_) => false,
                }
            });
            steps.push(("rendered again from the bundle and the recorded inputs, it is the same byte for byte".into(), same));
        }
        if pinned.removal {
            // Nothing was rendered: what was removed is what the payload says was deployed.
            return Ok(Proof {
                deployment: pinned.deployment.to_string(),
                address,
                steps,
            });
        }
        let store = self.store_of(&stream, &pinned);
        let hasher = self.store.keyring().hasher();
        let sent = Sent::new(hasher, store.as_ref(), &pinning.rendered, &pinning.nested);
        let stored = crate::port::read_all(store.as_ref(), &pinned.rendered, None, 2 << 20).await;
        steps.push((
            format!(
                "{} in the bundle store holds that text",
                pinned.rendered.chars().take(24).collect::<String>()
            ),
            stored.is_ok_and(|b| b == sent.text.as_bytes()),
        ));
        for (key, text) in &sent.below {
            let stored = crate::port::read_all(store.as_ref(), key, None, 2 << 20).await;
            let step = format!(
                "the nested template {} holds its text",
                key.chars().take(24).collect::<String>()
            );
            steps.push((step, stored.is_ok_and(|b| b == text.as_bytes())));
        }
        Ok(Proof {
            deployment: pinned.deployment.to_string(),
            address,
            steps,
        })
    }
}

/// How many waiting targets of an estate are told afresh: each costs a walk over its waves.
const FRESH: usize = 50;

/// Tells whether a target waits for another one.
fn waits(report: &TargetReport) -> bool {
    report.condition.result == SyncResult::Pending
        && matches!(
            report.condition.reason,
            Reason::Dependency | Reason::Rollout
        )
}

/// Finds the line that defines the resource which a cause names: `Logical: reason`, perhaps after what became of the stack.
fn cause_at(target: &Target, cause: &str) -> Option<String> {
    let named = cause
        .split(": ")
        .map(|part| part.rsplit(' ').next().unwrap_or(part));
    let found = named
        .filter(|word| !word.is_empty() && word.chars().all(char::is_alphanumeric))
        .find_map(|logical| target.line_of(logical));
    found.map(|(file, line)| format!("{file}:{line}"))
}

/// Says how a person gets a stuck stack to move, by where it stands.
fn way_out(status: Option<StackStatus>, address: &str, stuck_on: &[String]) -> String {
    use StackStatus as S;
    let names = match stuck_on {
        [] => "<logical ids>".to_owned(),
        names => names.join(","),
    };
    match &status {
        Some(S::UpdateRollbackFailed) => format!(
            "isoform continue {address} --reason …; with --skip {names} for what cannot go back"
        ),
        Some(S::UpdateFailed | S::CreateFailed | S::RollbackFailed) => {
            format!("isoform continue {address} --reason …")
        }
        Some(S::DeleteFailed) => format!(
            "mend what keeps it, then isoform continue {address} --reason …; with --skip {names} for what is to stay"
        ),
        Some(S::RollbackComplete) => {
            format!("isoform retry {address}: the rest is deleted, and it is made anew")
        }
        Some(S::UpdateInProgress) => format!("isoform cancel {address} --reason …"),
        Some(status) if !matches!(status.class(), StatusClass::Stuck | StatusClass::Unknown) => {
            format!("the stack is {status} by now: isoform retry {address}")
        }
        _ => format!(
            "mend the stack by hand, then isoform retry {address}; see docs/guides/stuck-stacks.md"
        ),
    }
}

/// Reads the time that stands in a UUID, version 7.
fn started(id: &str) -> Option<i64> {
    let hex: String = id.chars().filter(|c| *c != '-').take(12).collect();
    i64::from_str_radix(&hex, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_stack_has_a_way_out_by_its_status() {
        let out = |status| way_out(Some(status), "stack/a", &["Db".to_owned()]);
        assert!(
            out(StackStatus::UpdateRollbackFailed).starts_with("isoform continue stack/a --reason")
        );
        assert!(out(StackStatus::DeleteFailed).contains("isoform continue stack/a"));
        assert!(out(StackStatus::DeleteFailed).contains("--skip Db "));
        assert!(out(StackStatus::RollbackComplete).starts_with("isoform retry stack/a"));
        assert_eq!(
            out(StackStatus::UpdateRollbackComplete),
            "the stack is UPDATE_ROLLBACK_COMPLETE by now: isoform retry stack/a"
        );
        assert!(way_out(None, "stack/a", &[]).contains("stuck-stacks.md"));
    }
}
