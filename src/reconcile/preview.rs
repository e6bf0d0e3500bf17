//! What would change: for files that are not pushed, and for the newest snapshot in CloudFormation's own words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ahead::{Ahead, awaits_another};
use super::{Error, Line, Snapshot};
use crate::domain::cfn::{Pseudo, Template, parse_template_with};
use crate::domain::deployment::{EventKind, History};
use crate::domain::estate::{Context, Target, TargetKind};
use crate::domain::model::{Actor, Address, Finding, SourceName, StackId, TargetUid};
use crate::domain::plan::{
    Change, ChangeSetStatus, Deployed, Desired, DiffReport, Move, Observed, Orphan, Review,
    TargetDiff, Unshown, Whole, owner_tags, preview, preview_name, unforeseen,
};
use crate::domain::render::{Compiled, Limits, Prepared, line_map};
use crate::domain::template::{Engine, Files};
use crate::port::{ChangeSet, StackRef};

impl Line {
    /// Compares files that are not pushed with what is deployed. Nothing is written and no engine is asked.
    pub async fn diff(&self, source: &SourceName, files: Files) -> Result<DiffReport, Error> {
        let snapshot = self.would_be(source, files).await?;
        self.compare_whole(&snapshot).await
    }

    /// Makes a snapshot of files that are not pushed. It is kept nowhere.
    pub(super) async fn would_be(
        &self,
        source: &SourceName,
        files: Files,
    ) -> Result<Snapshot, Error> {
        let (compiled, uids) = self.compile_files(source, files).await?;
        Ok(Snapshot {
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
            uids: Arc::new(uids),
        })
    }

    /// Compares a snapshot that is not accepted with what is deployed, and says what it no longer asks for.
    pub(super) async fn compare_whole(&self, snapshot: &Snapshot) -> Result<DiffReport, Error> {
        let mut report = self.compare(snapshot, "**").await?;
        if let Some(newest) = self.newest() {
            // Who has moved is asked for at another address; and who stood at one that is still asked for may be gone.
            let kept: BTreeSet<&TargetUid> = snapshot.uids.values().collect();
            report.orphaned = newest
                .compiled
                .targets
                .iter()
                .filter(|(address, _)| match newest.uids.get(*address) {
                    Some(uid) => !kept.contains(uid),
                    None => !snapshot.compiled.targets.contains_key(*address),
                })
                // A file that cannot be read does not say what is gone, and what has moved is not gone.
                .filter(|(_, target)| {
                    !snapshot.compiled.incomplete
                        && !snapshot.compiled.without_sync.contains(&target.source)
                })
                .filter(|(address, _)| !snapshot.compiled.unmoved.contains_key(*address))
                .map(|(address, target)| {
                    let rule = target.placement.prune.policy;
                    Orphan {
                        address: address.clone(),
                        prune: target.options.prune.map_or(rule, |own| own.min(rule)),
                    }
                })
                .collect();
        }
        Ok(report)
    }

    /// Compares what a snapshot asks for with what is deployed, for the targets that are meant.
    async fn compare(&self, snapshot: &Snapshot, glob: &str) -> Result<DiffReport, Error> {
        let deployed = self.outputs_of(snapshot, &snapshot.addresses()).await?;
        let mut ahead = Ahead::new(deployed);
        let mut report = DiffReport {
            v: 1,
            targets: Vec::new(),
            unchanged: 0,
            moved: self.would_move(snapshot, glob),
            orphaned: Vec::new(),
            findings: snapshot.compiled.findings.clone(),
        };
        let concerned = concerned(snapshot, glob);
        // Each template is compiled once, however many targets have it.
        let targets = &snapshot.compiled.targets;
        let shared = concerned.iter().filter_map(|a| targets.get(a));
        let mut prepared = BTreeMap::new();
        for (key, path, text) in shared.filter_map(|t| t.shared_template()) {
            let new = || Prepared::new(&path, text);
            prepared.entry(key).or_insert_with(new);
        }
        let fuel = Limits::default().fuel;
        let compiled = prepared
            .iter()
            .filter_map(|(key, p)| Some((*key, p.as_ref().ok()?.compile(fuel).ok()?)));
        let compiled: BTreeMap<_, _> = compiled.collect();
        for address in snapshot.compiled.graph.levels().into_iter().flatten() {
            let Some(target) = snapshot.compiled.targets.get(&address) else {
                continue;
            };
            if !concerned.contains(&address) || !can_be_previewed(target) {
                continue;
            }
            let template = target.shared_template();
            let template = template.and_then(|(key, _, _)| compiled.get(&key));
            let found = self
                .diff_target(snapshot, target, template, &mut ahead)
                .await?;
            if !address.is_meant_by(glob) {
                continue;
            }
            match found {
                Ok(Some(diff)) => report.targets.push(diff),
                Ok(None) => report.unchanged += 1,
                Err(findings) => report.findings.extend(findings),
            }
        }
        report.findings.sort();
        report.findings.dedup();
        Ok(report)
    }

    fn would_move(&self, snapshot: &Snapshot, glob: &str) -> Vec<Move> {
        let shared = self.shared();
        let meant = snapshot.uids.iter().filter(|(to, _)| to.is_meant_by(glob));
        let moved = meant.filter_map(|(to, uid)| {
            let from = shared.targets.get(uid)?.history.address.clone()?;
            (from != *to).then(|| Move {
                from,
                to: to.clone(),
            })
        });
        moved.collect()
    }

    async fn diff_target(
        &self,
        snapshot: &Snapshot,
        target: &Target,
        template: Option<&Compiled<'_>>,
        ahead: &mut Ahead,
    ) -> Result<Result<Option<TargetDiff>, Vec<Finding>>, Error> {
        let uid = snapshot.uids.get(&target.address).cloned();
        let history = uid.as_ref().and_then(|u| self.history(u));
        let nobody: TargetUid = "0"
            .repeat(32)
            .parse()
            .map_err(|e| Error::Broken(format!("{e}")))?;
        let owner = history.as_ref().map_or_else(
            || owner_tags(&self.settings.installation, &nobody),
            |h| h.owner_tags(&self.settings.installation),
        );
        let fallback = "isoform-new"
            .parse()
            .map_err(|e| Error::Broken(format!("{e}")))?;
        let stack_name = history
            .as_ref()
            .and_then(|h| h.stack_name.clone())
            .unwrap_or(fallback);
        // In a block of its own: nothing of it may live across a wait.
        let rendered = {
            let known = |a: &Address| ahead.of(a);
            let context = Context {
                owner: &owner,
                stack_name: &stack_name,
                outputs: &known,
                limits: Limits::default(),
            };
            let draft = target.draft(&context, template);
            draft.and_then(|draft| target.checked(draft))
        };
        let (mut rendering, mut template) = match rendered {
            Ok(both) => both,
            Err(findings) => return Ok(Err(findings)),
        };
        // What is deployed names versions: as far as they are known, so does what would be.
        if target.placement.pin_references {
            self.shared().pin_as_known(target, &mut rendering);
            let (path, desired) = (&rendering.file.0, &rendering.desired);
            match parse_template_with(path, &desired.template, &desired.parameters) {
                Ok(pinned) => template = pinned,
                Err(findings) => return Ok(Err(findings)),
            }
        }
        ahead.expect_new(&target.address, &template);
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
        let given = &rendering.desired.parameters;
        let keyed = self.store.keyring().hasher();
        let mut found = preview(deployed.as_ref(), (&template, given), &pseudo, keyed);
        ahead.expect(&target.address, &template, &found.outputs);
        let old = before
            .as_ref()
            .map(|p| p.rendered.as_str())
            .unwrap_or_default();
        let text = similar::TextDiff::from_lines(old, &*rendering.desired.template)
            .unified_diff()
            .context_radius(2)
            .header("deployed", "desired")
            .to_string();
        let text = ahead.shown(&text).unwrap_or(text);
        let places = places(
            target,
            &rendering,
            &template,
            before.as_ref().map(|p| &p.data),
            &found.changes,
        );
        ahead.show(&mut found.changes);
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
            gates: Vec::new(),
            review: None,
        })))
    }

    /// Asks CloudFormation what the newest snapshot would change, with change sets that are never executed.
    ///
    /// A target without a stack is previewed by the reference model: no CREATE change set is made for a preview.
    pub async fn plan(&self, glob: &str, actor: &Actor) -> Result<DiffReport, Error> {
        let newest = self
            .newest()
            .ok_or_else(|| Error::Broken("nothing was looked at yet".into()))?;
        let mut report = self.compare(&newest, glob).await?;
        self.ask(&newest, &mut report, actor).await?;
        Ok(report)
    }

    /// Asks CloudFormation about every change of a stack that exists, and reviews the answer as a deployment would.
    pub(super) async fn ask(
        &self,
        snapshot: &Snapshot,
        report: &mut DiffReport,
        actor: &Actor,
    ) -> Result<(), Error> {
        for diff in &mut report.targets {
            let Some(target) = snapshot.compiled.targets.get(&diff.address) else {
                continue;
            };
            let owned = snapshot
                .uids
                .get(&diff.address)
                .and_then(|u| Some((u.clone(), self.history(u)?)));
            let Some((uid, history)) = owned else {
                continue;
            };
            let Some(stack) = history.owned.clone() else {
                continue;
            };
            // CloudFormation can only be asked about values that are there.
            if diff
                .changes
                .iter()
                .any(|c| c.properties.iter().any(awaits_another))
            {
                diff.problems.push("it uses outputs that are known after apply: CloudFormation is asked when they are there".into());
                continue;
            }
            if let Ok(rendering) = self.render_target(&history, snapshot, target).await? {
                let engine = self.ports.engine(&target.placement, &target.region)?;
                let observed = engine.describe(&StackRef::Id(stack.clone())).await?;
                let read = self
                    .previewed(&uid, &history, target, &rendering.desired, &stack, actor)
                    .await?;
                diff.problems
                    .extend(beyond(&rendering.desired, &read.capabilities));
                diff.problems
                    .extend(read.reason.clone().filter(|_| read.changes.is_empty()));
                diff.changes = read.changes.clone();
                let executable = read.status == ChangeSetStatus::Available;
                let review = self
                    .review_ahead(&uid, &rendering.desired, observed.as_ref(), read)
                    .await?;
                diff.problems.extend(review.hidden);
                diff.review = executable.then_some(review.digest);
            }
        }
        Ok(())
    }

    /// Reviews a change set as a deployment would that begins now: the same change gives the same digest.
    async fn review_ahead(
        &self,
        uid: &TargetUid,
        desired: &Desired,
        observed: Option<&Observed>,
        read: ChangeSet,
    ) -> Result<Review, Error> {
        let ChangeSet {
            changes,
            complete,
            capabilities,
            ..
        } = read;
        let after = Whole {
            text: &desired.template,
            parameters: &desired.parameters,
            nested: &desired.nested,
        };
        let hidden = self.hidden(uid, Some(after), &changes).await?;
        let allowed = desired.allowed.as_deref();
        let capabilities = unforeseen(&capabilities, &desired.capabilities, allowed);
        let watermark = observed.and_then(Observed::watermark);
        let digest = desired.digest(self.store.keyring().hasher());
        Ok(Review::new(
            uid,
            watermark.as_ref().map(|w| &w.stack_id),
            watermark.as_ref(),
            &digest,
            changes,
            complete,
            Unshown {
                hidden,
                capabilities,
            },
        ))
    }

    /// Makes a change set for a preview, reads it and discards it, with an entry in the log before and after.
    pub(super) async fn previewed(
        &self,
        uid: &TargetUid,
        history: &History,
        target: &Target,
        desired: &Desired,
        stack: &StackId,
        actor: &Actor,
    ) -> Result<ChangeSet, Error> {
        let engine = self.ports.engine(&target.placement, &target.region)?;
        self.clear_previews(uid, history, engine.as_ref()).await?;
        let unique = crate::domain::model::hex(&super::bundles::random::<4>()?);
        let digest = desired.digest(self.store.keyring().hasher());
        let name = preview_name(&self.settings.installation, &digest, &unique);
        let other = history.stack_name.as_ref() != Some(&desired.stack_name);
        let event = EventKind::Previewing {
            change_set: name.clone(),
            stack: other.then(|| desired.stack_name.clone()),
        };
        self.record(uid, actor.clone(), event, Vec::new()).await?;
        let read = self
            .preview_change_set(&name, uid, target, desired, stack)
            .await?;
        let event = EventKind::Previewed { change_set: name };
        self.record(uid, Actor::daemon("preview"), event, Vec::new())
            .await?;
        Ok(read)
    }
}

/// Says which capabilities a change set acknowledges that nobody foresaw.
pub(super) fn beyond(desired: &Desired, acknowledged: &[String]) -> Vec<String> {
    let allowed = desired.allowed.as_deref();
    let more = unforeseen(acknowledged, &desired.capabilities, allowed);
    more.iter()
        .map(|c| {
            format!("CloudFormation needs {c}, which the template does not show: a person approves it, or `capabilities` of the target names it")
        })
        .collect()
}

/// Returns the targets that are meant, and whatever gives them values.
fn concerned(snapshot: &Snapshot, glob: &str) -> BTreeSet<Address> {
    let targets = &snapshot.compiled.targets;
    let mut open: Vec<&Address> = targets.keys().filter(|a| a.is_meant_by(glob)).collect();
    let mut all = BTreeSet::new();
    while let Some(address) = open.pop() {
        if all.insert(address.clone())
            && let Some((_, target)) = targets.get_key_value(address)
        {
            let producers = target.producers();
            open.extend(
                producers
                    .iter()
                    .filter_map(|p| Some(targets.get_key_value(p)?.0)),
            );
        }
    }
    all
}

/// Tells whether a target has a template that can be compared: no faults, ours, and of an engine that is deployed.
fn can_be_previewed(target: &Target) -> bool {
    !target.faults.iter().any(Finding::is_error)
        && target.engine() == Engine::Jinja
        && !matches!(
            target.kind,
            TargetKind::Broken | TargetKind::CustomerManaged { .. }
        )
}

/// Finds the line that each changed property comes from: the spec's where a changed input has that value, else the
/// template's.
fn places(
    target: &Target,
    rendering: &crate::domain::estate::Rendering,
    template: &Template,
    before: Option<&serde_json::Value>,
    changes: &[Change],
) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
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
