//! What the line can tell: the estate, one target, a difference, evidence and proof. Shapes are versioned with `v`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Error, Line, Snapshot};
use crate::domain::audit::{Body, Entry, Stream};
use crate::domain::cfn::Pseudo;
use crate::domain::deployment::{EventKind, Outcome};
use crate::domain::estate::{Context, Target, TargetKind};
use crate::domain::model::{
    Address, Condition, Digest, Finding, Reason, SourceName, TargetUid, Timestamp,
};
use crate::domain::plan::{Change, Deployed, preview};
use crate::domain::render::{self, Limits, line_map};
use crate::domain::template::{Engine, Files, load_bundle};
use crate::git::CommitInfo;

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
    /// How long the last deployment took, in milliseconds.
    pub took_ms: Option<u64>,
    /// What to do.
    pub help: String,
    /// Faults of its files.
    pub findings: Vec<Finding>,
    /// Names of its outputs.
    pub outputs: Vec<String>,
    /// The newest snapshot at which it was looked at.
    pub looked: u64,
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
}

/// What would change for one target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TargetDiff {
    /// Its address.
    pub address: Address,
    /// Whether it would be created.
    pub create: bool,
    /// Its placement.
    pub placement: String,
    /// What would change.
    pub changes: Vec<Change>,
    /// For each property path `<logical>.<path>`: the file and line that it comes from.
    pub places: BTreeMap<String, String>,
    /// Differences of the rendered text, unified.
    pub text: String,
    /// Targets that are planned again if its outputs change.
    pub then: Vec<Address>,
    /// What keeps it from being exact.
    pub problems: Vec<String>,
}

/// What would change for the estate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiffReport {
    /// Version of this shape.
    pub v: u32,
    /// What changes.
    pub targets: Vec<TargetDiff>,
    /// How many do not change.
    pub unchanged: usize,
    /// Targets that Git would no longer ask for.
    pub orphaned: Vec<Address>,
    /// Faults.
    pub findings: Vec<Finding>,
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
    /// Reports the whole estate.
    pub async fn estate(&self) -> Result<EstateReport, Error> {
        let newest = self.newest();
        let uids: Vec<TargetUid> = self.shared().targets.keys().cloned().collect();
        let mut targets = Vec::new();
        for uid in uids {
            if let Some(report) = self.target(&uid, false).await? {
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
        Ok(EstateReport {
            v: 1,
            installation: self.settings.installation.to_string(),
            snapshot: id.0,
            commits,
            settled: shared.synced.contains(&id) && self.queue.is_quiet(super::look::QUIET),
            targets,
            levels,
            findings,
            refused,
            swept_at: shared.swept_at,
            now: self.clock.now(),
            entries: *self.store.watch().borrow(),
            frozen: self.is_frozen(),
        })
    }

    /// Reports one target.
    pub async fn target(
        &self,
        uid: &TargetUid,
        with_changes: bool,
    ) -> Result<Option<TargetReport>, Error> {
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
        Ok(Some(TargetReport {
            uid: uid.clone(),
            progress: known.progress.clone(),
            stack_name: history.stack_name.as_ref().map(ToString::to_string),
            placement: target.as_ref().map(|t| t.placement.name.to_string()),
            template: target
                .as_ref()
                .and_then(Target::template)
                .map(|t| t.version.clone()),
            serving_template: history.applied.as_ref().and_then(|a| a.template.clone()),
            serving: history.applied.as_ref().map(|a| a.revision.to_string()),
            since: history.applied.as_ref().map(|a| a.at),
            uses: target.as_ref().map(Target::needs).unwrap_or_default(),
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
            took_ms: took.and_then(|(id, at)| {
                started(id.as_str()).map(|from| u64::try_from(at.0 - from).unwrap_or(0))
            }),
            help: known.condition.reason.help().to_owned(),
            findings,
            outputs: history
                .last
                .as_ref()
                .map(|(_, s, _)| s.output_names.clone())
                .unwrap_or_default(),
            looked: known.looked.0,
            condition: known.condition,
            address,
        }))
    }

    /// Compares files that are not pushed with what is deployed. Nothing is written and no engine is asked.
    pub async fn diff(&self, source: &SourceName, files: Files) -> Result<DiffReport, Error> {
        let (compiled, uids) = self.compile_files(source, files).await?;
        let snapshot = Snapshot {
            id: self.newest().map_or_else(Default::default, |s| s.id),
            revisions: self
                .newest()
                .map(|s| s.revisions.clone())
                .unwrap_or_default(),
            commits: BTreeMap::new(),
            compiled,
            at: self.clock.now(),
            trigger: "diff".into(),
            actor: crate::domain::model::Actor::daemon("diff"),
            uids,
        };
        let mut outputs: BTreeMap<Address, BTreeMap<String, String>> = self
            .all_outputs(&snapshot)
            .await?
            .into_iter()
            .map(|(a, o)| (a, (*o).clone()))
            .collect();
        let mut report = DiffReport {
            v: 1,
            targets: Vec::new(),
            unchanged: 0,
            orphaned: Vec::new(),
            findings: snapshot.compiled.findings.clone(),
        };
        for address in snapshot.compiled.graph.levels().into_iter().flatten() {
            let Some(target) = snapshot.compiled.targets.get(&address) else {
                continue;
            };
            if target.faults.iter().any(Finding::is_error)
                || matches!(
                    target.kind,
                    TargetKind::Broken | TargetKind::CustomerManaged { .. }
                )
                || target.engine() != Engine::Jinja
            {
                continue;
            }
            match self.diff_target(&snapshot, target, &mut outputs).await? {
                Ok(Some(diff)) => report.targets.push(diff),
                Ok(None) => report.unchanged += 1,
                Err(findings) => report.findings.extend(findings),
            }
        }
        if let Some(newest) = self.newest() {
            report.orphaned = newest
                .compiled
                .targets
                .keys()
                .filter(|a| !snapshot.compiled.targets.contains_key(*a))
                .cloned()
                .collect();
        }
        report.findings.sort();
        report.findings.dedup();
        Ok(report)
    }

    async fn diff_target(
        &self,
        snapshot: &Snapshot,
        target: &Target,
        outputs: &mut BTreeMap<Address, BTreeMap<String, String>>,
    ) -> Result<Result<Option<TargetDiff>, Vec<Finding>>, Error> {
        let uid = snapshot.uids.get(&target.address).cloned();
        let history = uid.as_ref().and_then(|u| self.history(u));
        let nobody: TargetUid = "0"
            .repeat(32)
            .parse()
            .map_err(|e| Error::Broken(format!("{e}")))?;
        let fallback = "isoform-new"
            .parse()
            .map_err(|e| Error::Broken(format!("{e}")))?;
        let stack_name = history
            .as_ref()
            .and_then(|h| h.stack_name.clone())
            .unwrap_or(fallback);
        // In a block of its own: nothing of it may live across a wait.
        let rendered = {
            let known = |a: &Address| outputs.get(a).cloned();
            let context = Context {
                installation: &self.settings.installation,
                uid: uid.as_ref().unwrap_or(&nobody),
                stack_name: &stack_name,
                outputs: &known,
                limits: Limits::default(),
            };
            target.render(&context)
        };
        let rendering = match rendered {
            Ok(rendering) => rendering,
            Err(findings) => return Ok(Err(findings)),
        };
        // Outputs that will come stand as names for those who use them.
        if let Ok(template) =
            crate::domain::cfn::parse_template(&rendering.file.0, &rendering.desired.template)
        {
            let mine = outputs.entry(target.address.clone()).or_default();
            for name in template.outputs.keys() {
                mine.entry(name.clone())
                    .or_insert_with(|| crate::domain::estate::placeholder(&target.address, name));
            }
        }
        let applied = history.as_ref().and_then(|h| h.applied.clone());
        let digest = rendering.desired.digest(self.store.keyring().hasher());
        if applied.as_ref().is_some_and(|a| a.digest == digest) {
            return Ok(Ok(None));
        }
        let before = match &applied {
            Some(applied) => Some(self.pinning(&applied.payload).await?),
            None => None,
        };
        let pseudo = Pseudo {
            account: target.placement.account.to_string(),
            region: target.region.to_string(),
            stack_name: stack_name.to_string(),
            stack_id: history
                .as_ref()
                .and_then(|h| h.owned.clone())
                .map(|s| s.to_string()),
            notification_arns: rendering.desired.notification_arns.clone(),
        };
        let deployed = before.as_ref().map(|p| Deployed {
            template: &p.rendered,
            parameters: &p.parameters,
        });
        let found = preview(
            deployed.as_ref(),
            &rendering.desired,
            &pseudo,
            self.store.keyring().hasher(),
        );
        let old = before
            .as_ref()
            .map(|p| p.rendered.as_str())
            .unwrap_or_default();
        let text = similar::TextDiff::from_lines(old, &*rendering.desired.template)
            .unified_diff()
            .context_radius(2)
            .header("deployed", "desired")
            .to_string();
        let places = places(
            target,
            &rendering,
            before.as_ref().map(|p| &p.data),
            &found.changes,
        );
        let then = snapshot
            .compiled
            .graph
            .users(&target.address)
            .cloned()
            .collect();
        Ok(Ok(Some(TargetDiff {
            address: target.address.clone(),
            create: applied.is_none(),
            placement: target.placement.name.to_string(),
            changes: found.changes,
            places,
            text,
            then,
            problems: found.problems,
        })))
    }

    /// Asks CloudFormation what the newest snapshot would change, with change sets that are never executed.
    ///
    /// A target without a stack is previewed by the reference model: no CREATE change set is made for a preview.
    pub async fn plan(&self, glob: &str) -> Result<DiffReport, Error> {
        let newest = self
            .newest()
            .ok_or_else(|| Error::Broken("nothing was looked at yet".into()))?;
        let mut outputs: BTreeMap<Address, BTreeMap<String, String>> = self
            .all_outputs(&newest)
            .await?
            .into_iter()
            .map(|(a, o)| (a, (*o).clone()))
            .collect();
        let mut report = DiffReport {
            v: 1,
            targets: Vec::new(),
            unchanged: 0,
            orphaned: Vec::new(),
            findings: newest.compiled.findings.clone(),
        };
        for address in newest.compiled.graph.levels().into_iter().flatten() {
            let Some(target) = newest.compiled.targets.get(&address) else {
                continue;
            };
            let fine = !target.faults.iter().any(Finding::is_error)
                && target.engine() == Engine::Jinja
                && !matches!(
                    target.kind,
                    TargetKind::Broken | TargetKind::CustomerManaged { .. }
                );
            if !fine || !crate::domain::model::glob_matches(glob, &address.to_string()) {
                continue;
            }
            let mut diff = match self.diff_target(&newest, target, &mut outputs).await? {
                Ok(Some(diff)) => diff,
                Ok(None) => {
                    report.unchanged += 1;
                    continue;
                }
                Err(findings) => {
                    report.findings.extend(findings);
                    continue;
                }
            };
            let owned = newest
                .uids
                .get(&address)
                .and_then(|u| Some((u.clone(), self.history(u)?)));
            if let Some((uid, history)) = owned
                && let Some(stack) = history.owned.clone()
                && let Ok(rendering) = self.render_target(&uid, &history, &newest, target).await?
            {
                let read = self
                    .preview_change_set(&uid, target, &rendering.desired, &stack)
                    .await?;
                diff.changes = read.changes;
                diff.problems
                    .extend(read.reason.filter(|_| diff.changes.is_empty()));
            }
            report.targets.push(diff);
        }
        Ok(report)
    }

    /// Returns the events of a target's stack, oldest first.
    pub async fn events(&self, uid: &TargetUid) -> Result<Vec<crate::port::StackEvent>, Error> {
        let Some(history) = self.history(uid) else {
            return Ok(Vec::new());
        };
        let newest = self.newest();
        let target = history
            .address
            .as_ref()
            .and_then(|a| newest.as_ref().and_then(|s| s.compiled.targets.get(a)));
        match (
            target,
            history.owned.or(history
                .last
                .and_then(|(p, _, _)| p.watermark.map(|w| w.stack_id))),
        ) {
            (Some(target), Some(stack)) => Ok(self
                .ports
                .engine(&target.placement, &target.region)?
                .events(&stack, None)
                .await?),
            _ => Ok(Vec::new()),
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
            for snapshot in &shared.snapshots {
                for info in snapshot.commits.values() {
                    commits.insert(info.revision.to_string(), info.clone());
                }
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

    /// Proves a deployment: opens the sealed bundle, renders again from the recorded inputs, and compares.
    pub async fn prove(&self, question: &str) -> Result<Proof, Error> {
        let evidence = self.evidence(question).await?;
        let pinned = evidence.entries.iter().rev().find_map(|e| match &e.body {
            Body::Target(EventKind::Begun(pinned)) => Some((e.stream.clone(), pinned.clone())),
            _ => None,
        });
        let Some((stream, pinned)) = pinned else {
            return Err(Error::Broken(format!(
                "`{}` names no deployment",
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
                    .map(|p| p.text)
            });
        }
        if let Some(text) = text {
            let again = render::render(&pinning.file, &text, &pinning.data, &Limits::default());
            let same = again.is_ok_and(|r| r.text == pinning.rendered);
            steps.push(("rendered again from the bundle and the recorded inputs, it is the same byte for byte".into(), same));
        }
        let stored =
            crate::port::read_all(self.ports.home().as_ref(), &pinned.rendered, None, 2 << 20)
                .await;
        steps.push((
            format!(
                "{} in the bundle store holds that text",
                pinned.rendered.chars().take(24).collect::<String>()
            ),
            stored.is_ok_and(|b| b == pinning.rendered.as_bytes()),
        ));
        Ok(Proof {
            deployment: pinned.deployment.to_string(),
            address,
            steps,
        })
    }
}

/// Reads the time that stands in a UUID, version 7.
fn started(id: &str) -> Option<i64> {
    let hex: String = id.chars().filter(|c| *c != '-').take(12).collect();
    i64::from_str_radix(&hex, 16).ok()
}

/// Finds the line that each changed property comes from: the spec's where a changed input has that value, else the
/// template's.
fn places(
    target: &Target,
    rendering: &crate::domain::estate::Rendering,
    before: Option<&serde_json::Value>,
    changes: &[Change],
) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let Ok(template) =
        crate::domain::cfn::parse_template(&rendering.file.0, &rendering.desired.template)
    else {
        return out;
    };
    let map = line_map(&rendering.file.1, &rendering.desired.template);
    let inputs = changed_inputs(target, before);
    for change in changes {
        for property in &change.properties {
            let key = format!("{}.{}", change.logical, property.path);
            let after = property
                .after
                .as_deref()
                .unwrap_or_default()
                .trim_matches('"');
            let from_spec = inputs.iter().find(|(value, _)| {
                !value.is_empty()
                    && (after == value || (value.len() > 3 && after.contains(value.as_str())))
            });
            if let Some((_, place)) = from_spec {
                out.insert(key, place.clone());
                continue;
            }
            let path = property.path.replace('[', ".").replace(']', "");
            let node = template.root.follow(
                ["Resources", change.logical.as_str(), "Properties"]
                    .into_iter()
                    .chain(path.split('.')),
            );
            let line = map
                .get(node.span.line as usize - 1)
                .copied()
                .unwrap_or(node.span.line);
            out.insert(key, format!("{}:{line}", rendering.file.0));
        }
    }
    out
}

/// Returns the texts of inputs that differ from what was deployed, with where the spec sets them.
fn changed_inputs(target: &Target, before: Option<&serde_json::Value>) -> Vec<(String, String)> {
    let Some(values_at) = &target.values_at else {
        return Vec::new();
    };
    let pointer = match target.address.kind() {
        "env" => "/environment/inputs",
        "svc" => "/service_instance/inputs",
        "pipe" => "/pipeline/inputs",
        _ => return Vec::new(),
    };
    let old = before.and_then(|b| b.pointer(pointer));
    let mut out = Vec::new();
    for (name, value) in target
        .inputs()
        .and_then(serde_json::Value::as_object)
        .into_iter()
        .flatten()
    {
        if old.and_then(|o| o.get(name)) == Some(value) {
            continue;
        }
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let line = target
            .input_lines
            .get(name)
            .copied()
            .or(values_at.span.map(|s| s.line));
        out.push((
            text,
            line.map_or_else(
                || values_at.file.clone(),
                |l| format!("{}:{l}", values_at.file),
            ),
        ));
    }
    out
}
