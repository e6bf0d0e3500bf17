//! One pull request: what merging it would do.

use std::sync::Arc;

use super::state::{Failed, Known, Shown, ShownTarget};
use super::{Place, outbox, patience};
use crate::domain::forge::{Annotation, Check, Level, Verdict};
use crate::domain::model::{
    Actor, Address, Digest, Finding, Revision, Severity, SourceName, canonical_json,
};
use crate::domain::plan::{
    ANSWERS, About, Aside, Asks, DiffReport, aside, change_lines, comment, concerns, conflict,
    stale, stranger,
};
use crate::git::{self, Merged, Mirror, PullRef, Tree};
use crate::reconcile::quarantine::unwound;
use crate::reconcile::{Error, Line, Snapshot};

/// About more targets of one pull request CloudFormation is not asked: the reference model answers for all of them.
const ASKED: usize = 50;
/// After so many looks that isoform did not survive, what it looked at is left alone. A stop in the middle counts too.
const TRIES: u32 = 3;
/// How many remarks a check holds.
const REMARKS: usize = 200;

/// What a look at a pull request came to.
struct Look {
    text: String,
    check: Check,
    shown: Shown,
}

impl Line {
    /// Returns what is deployed, as one digest: as long as it is the same, no preview has become old.
    pub(super) fn estate_mark(&self) -> String {
        let shared = self.shared();
        let applied = shared.targets.iter().filter_map(|(uid, known)| {
            let applied = known.history.applied.as_ref()?;
            Some((uid.as_str(), &applied.digest, &applied.watermark))
        });
        Digest::of("m1", &canonical_json(&applied.collect::<Vec<_>>())).to_string()
    }

    /// Looks at a pull request, and posts what it would do.
    pub(super) async fn look_at_pull(
        self: &Arc<Self>,
        place: &Place<'_>,
        known: &mut Known,
    ) -> Result<(), Error> {
        let Some(newest) = self.newest() else {
            return Ok(());
        };
        let Some(base) = newest.revisions.get(place.name).cloned() else {
            return Ok(());
        };
        let head = known.pull.head.clone();
        let number = known.pull.number;
        let marker = place.marker(self, number);
        if known.is_stranger() {
            let text = stranger(&marker, head.short());
            let check = self.check(
                place,
                &head,
                Verdict::Pending,
                "not looked at: it comes from another repository".into(),
            );
            return self.post_look(place, known, text, check).await;
        }
        let tries = match &known.tried {
            Some((h, b, tries)) if (h, b) == (&head, &base) => *tries,
            _ => 0,
        };
        if tries >= TRIES {
            let why = "isoform ended whenever it looked at exactly this: it is left alone until it changes, or until somebody writes /isoform preview. Please report it";
            return self.post_stale(place, known, &marker, why).await;
        }
        known.tried = Some((head.clone(), base.clone(), tries + 1));
        self.keep(place.name, known).await?;
        let mark = self.estate_mark();
        let looked = self.preview_pull(place, known, &newest, &base).await;
        known.tried = None;
        match looked {
            Ok(look) => {
                // Kept after it is posted: what is not in the outbox was not shown.
                self.post_look(place, known, look.text, look.check).await?;
                known.shown = Some(look.shown);
                known.failed = None;
                self.keep(place.name, known).await
            }
            Err(error @ (Error::Store(_) | Error::Forked(_))) => Err(error),
            Err(error) => {
                let at = (head, base, mark);
                let before = known.failed.take().filter(|f| f.at == at);
                let times = before.map_or(1, |f| f.times.saturating_add(1));
                let again = self.clock.now().plus(patience(times));
                known.failed = Some(Failed { at, times, again });
                self.post_stale(place, known, &marker, &error.to_string())
                    .await?;
                self.keep(place.name, known).await
            }
        }
    }

    async fn post_look(
        &self,
        place: &Place<'_>,
        known: &Known,
        text: String,
        check: Check,
    ) -> Result<(), Error> {
        let number = known.pull.number;
        let marker = place.marker(self, number);
        self.post_comment(place, known, &marker, text).await?;
        self.post_check(place, number, check).await
    }

    /// Says that what is shown is old, and why nothing newer is.
    async fn post_stale(
        &self,
        place: &Place<'_>,
        known: &Known,
        marker: &str,
        why: &str,
    ) -> Result<(), Error> {
        let head = &known.pull.head;
        let number = known.pull.number;
        let item = outbox::comment_item(number);
        let before = self.store.posted(place.name, &item).await?;
        let before = before.and_then(|p| outbox::text_of(&p));
        let why = crate::telemetry::redact(why);
        let text = stale(marker, head.short(), &why, before.as_deref());
        let check = self.check(
            place,
            head,
            Verdict::Failure,
            format!("not looked at: {why}"),
        );
        self.post_look(place, known, text, check).await
    }

    fn check(&self, place: &Place<'_>, head: &Revision, verdict: Verdict, title: String) -> Check {
        Check {
            head: head.clone(),
            name: format!("isoform/{}", place.name),
            verdict,
            title,
            summary: String::new(),
            annotations: Vec::new(),
        }
    }

    async fn preview_pull(
        self: &Arc<Self>,
        place: &Place<'_>,
        known: &Known,
        newest: &Arc<Snapshot>,
        base: &Revision,
    ) -> Result<Look, Error> {
        let pull = &known.pull;
        let marker = place.marker(self, pull.number);
        // Taken before anything is read: whatever moves from here on makes it old.
        let mark = self.estate_mark();
        let reference = match place.forge.kind().head_ref(pull.number) {
            Some(reference) => reference,
            None if pull.fork => {
                return Err(Error::Broken(format!(
                    "{} keeps no head of a pull request from another repository: push the branch to this one",
                    place.forge.kind()
                )));
            }
            None => format!("refs/heads/{}", pull.branch),
        };
        let pull_ref = PullRef {
            number: pull.number,
            reference,
            head: pull.head.clone(),
            base: base.clone(),
        };
        let about = About {
            marker: &marker,
            head: pull.head.short(),
            base: &place.source.remote.branch,
            budget: place.budget() - ANSWERS,
        };
        let mut shown = Shown {
            head: pull.head.clone(),
            base: base.clone(),
            mark,
            verdict: Verdict::Failure,
            targets: Vec::new(),
        };
        let tree = match self.merge(place, pull_ref).await? {
            Merged::Tree(tree) => tree,
            Merged::Conflict(paths) => {
                let text = conflict(&paths, &about);
                let title = format!("conflicts with {} in {}", about.base, paths.len());
                let check = self.check(place, &pull.head, Verdict::Failure, title);
                return Ok(Look { text, check, shown });
            }
        };
        let Tree {
            files, findings, ..
        } = *tree;
        let fork = pull.fork;
        let (snapshot, mut report) = unwound(async {
            let snapshot = self.would_be(place.name, files).await?;
            let mut report = self.compare_whole(&snapshot).await?;
            // Before CloudFormation is asked: it is asked about what this pull request is about, and counted by that.
            keep_own(&mut report, place.name, newest, &snapshot);
            if !fork && report.targets.len() <= ASKED {
                let mut actor = Actor::daemon("pull request");
                actor.via.clone_from(&place.config.name);
                self.ask(&snapshot, &mut report, &actor).await?;
            }
            Ok((snapshot, report))
        })
        .await?;
        report.findings.extend(findings);
        report.findings.sort();
        report.findings.dedup();
        let (aside, asked) = self.beside(place, known, newest, &snapshot, &mut report, fork);
        for diff in &report.targets {
            shown.targets.push(ShownTarget {
                address: diff.address.clone(),
                uid: snapshot.uids.get(&diff.address).cloned(),
                review: diff.review.clone(),
                lines: change_lines(&diff.changes),
            });
        }
        let below = aside_within(&aside, about.budget / 3);
        let text = comment(
            &report,
            &About {
                budget: about.budget - below.len(),
                ..about
            },
        ) + &below;
        let (verdict, title) = verdict(&report, asked);
        shown.verdict = verdict;
        let mut check = self.check(place, &pull.head, verdict, title);
        check.annotations = remarks(&report);
        check.summary = text.split_once('\n').map_or("", |(_, t)| t).to_owned();
        Ok(Look { text, check, shown })
    }

    async fn merge(&self, place: &Place<'_>, pull: PullRef) -> Result<Merged, Error> {
        let path = self.pull_mirror(place.name);
        let remote = place.source.remote.clone();
        let merged = tokio::task::spawn_blocking(move || {
            if let Some(folder) = path.parent() {
                crate::secret_file::folder(folder)
                    .map_err(|e| git::Error::File(folder.display().to_string(), e))?;
            }
            Mirror::fetch_pull(&path, &remote, &pull)?;
            Mirror::open(&path)?.merged(&pull.base, &pull.head)
        });
        Ok(merged.await.map_err(|_| git::Error::Thread)??)
    }

    /// What is to be said beside the changes: gates, waves, what waits for people, and what the pull request does to gates.
    fn beside(
        &self,
        place: &Place<'_>,
        known: &Known,
        newest: &Snapshot,
        snapshot: &Snapshot,
        report: &mut DiffReport,
        fork: bool,
    ) -> (Aside, usize) {
        let mut asks = Vec::new();
        let mut asked = 0;
        let mut by_placement = std::collections::BTreeMap::new();
        for diff in &report.targets {
            *by_placement.entry(diff.placement.clone()).or_insert(0usize) += 1;
        }
        for diff in &mut report.targets {
            let Some(target) = snapshot.compiled.targets.get(&diff.address) else {
                continue;
            };
            let count = by_placement[&diff.placement];
            let gates = self.gates_ahead(snapshot, target, diff, count);
            diff.gates = gates.words;
            asked += usize::from(gates.asks > 0);
            // Of another source's targets nothing is approved here.
            let own = target.source == *place.name;
            if let Some(review) = diff.review.clone().filter(|_| gates.asks > 0 && own) {
                asks.push(Asks {
                    address: diff.address.clone(),
                    count: gates.asks,
                    given: self.endorsed(place, &diff.address, &review, known),
                    review,
                });
            }
        }
        let mut notes = gates_changed(newest, snapshot);
        if fork {
            notes.push("it comes from another repository: what is shown is worked out by the reference model, and CloudFormation was not asked".into());
        } else if report.targets.len() > ASKED {
            notes.push(format!(
                "more than {ASKED} targets change: what is shown is worked out by the reference model, and CloudFormation was not asked"
            ));
        }
        (Aside { asks, notes }, asked)
    }

    /// Names those who have approved a review in this pull request, for the head that there is.
    fn endorsed(
        &self,
        place: &Place<'_>,
        address: &Address,
        review: &Digest,
        known: &Known,
    ) -> Vec<String> {
        let shared = self.shared();
        let uid = shared.by_address.get(address);
        let history = uid
            .and_then(|u| shared.targets.get(u))
            .map(|k| k.history.clone());
        drop(shared);
        let Some(history) = history else {
            return Vec::new();
        };
        let mut names: Vec<String> = Vec::new();
        for endorsement in &history.endorsements {
            let of = &endorsement.of;
            let counts = of.source == *place.name
                && of.pull == known.pull.number
                && of.head == known.pull.head
                && of.review == *review;
            if counts && !names.contains(&endorsement.by.display) {
                names.push(endorsement.by.display.clone());
            }
        }
        names
    }
}

/// Writes what stands below within a budget: a list that is too long is cut where a line ends.
fn aside_within(given: &Aside, budget: usize) -> String {
    let mut text = aside(given);
    if text.len() > budget {
        let mut end = budget.saturating_sub(40);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let end = text[..end].rfind('\n').unwrap_or(0);
        text.truncate(end);
        text.push_str("\n\n_More is left out here._\n");
    }
    text
}

/// Leaves out what is another source's and asks for the same with and without the pull request: it waits for something else.
fn keep_own(report: &mut DiffReport, own: &SourceName, newest: &Snapshot, snapshot: &Snapshot) {
    report.targets.retain(|diff| {
        let after = snapshot.compiled.targets.get(&diff.address);
        let before = newest.compiled.targets.get(&diff.address);
        after.is_none_or(|t| t.source == *own) || before != after
    });
}

/// Says what a pull request does to gates that its own repository has set: it is asked by the rules that stand, and they
/// are others afterwards.
fn gates_changed(newest: &Snapshot, snapshot: &Snapshot) -> Vec<String> {
    let mut notes = Vec::new();
    for (address, before) in &newest.compiled.targets {
        let Some(after) = snapshot.compiled.targets.get(address) else {
            continue;
        };
        let (old, new) = (&before.options, &after.options);
        let mut what = Vec::new();
        if old.gate.is_some() && new.gate.is_none() {
            what.push("takes its `gate` away");
        }
        if !old.windows.is_empty() && old.windows != new.windows {
            what.push("changes its windows");
        }
        if old.termination_protection == Some(true) && new.termination_protection != Some(true) {
            what.push("takes its protection against deletion away");
        }
        if before.placement.name != after.placement.name {
            what.push("moves it to another placement");
        }
        if !what.is_empty() {
            notes.push(format!(
                "{address}: this pull request {}; look at who may approve it",
                what.join(", ")
            ));
        }
    }
    notes
}

fn verdict(report: &DiffReport, asked: usize) -> (Verdict, String) {
    let errors = report.findings.iter().filter(|f| f.is_error()).count();
    let losses = report.targets.iter().flat_map(|t| &t.changes);
    let losses = losses.filter(|c| c.loses_state()).count();
    let count = report.targets.len();
    let targets = crate::domain::model::counted(count, "target");
    let change = if count == 1 { "changes" } else { "change" };
    if errors > 0 {
        let errors = crate::domain::model::counted(errors, "error");
        return (Verdict::Failure, format!("{errors}; {targets} {change}"));
    }
    if losses > 0 {
        let title = format!("state is lost in {losses} of what changes; {targets} {change}");
        return (Verdict::Neutral, title);
    }
    if asked > 0 {
        let title = format!("{targets} {change}, {asked} wait for approvals");
        return (Verdict::Neutral, title);
    }
    match report.is_empty() {
        true => (Verdict::Success, "nothing changes".into()),
        false => (Verdict::Success, format!("{targets} {change}")),
    }
}

/// Remarks on lines: faults, and what must be looked at.
fn remarks(report: &DiffReport) -> Vec<Annotation> {
    let mut all: Vec<Annotation> = report.findings.iter().filter_map(of_finding).collect();
    for diff in &report.targets {
        for change in &diff.changes {
            for concern in concerns(change) {
                let path = concern.path.as_ref();
                let key = path.map(|p| format!("{}.{p}", change.logical));
                let at = key.and_then(|k| diff.places.get(&k));
                let Some((file, line)) = at.and_then(|p| p.rsplit_once(':')) else {
                    continue;
                };
                let Ok(line) = line.parse() else { continue };
                all.push(Annotation {
                    path: file.to_owned(),
                    line,
                    level: Level::Warning,
                    title: diff.address.to_string(),
                    message: concern.says,
                });
            }
        }
    }
    all.sort_by(|a, b| (&a.path, a.line, &a.message).cmp(&(&b.path, b.line, &b.message)));
    all.dedup();
    all.truncate(REMARKS);
    all
}

fn of_finding(finding: &Finding) -> Option<Annotation> {
    let span = finding.place.span.as_ref()?;
    Some(Annotation {
        path: finding.place.file.clone(),
        line: span.line,
        level: match finding.severity {
            Severity::Error => Level::Failure,
            _ => Level::Warning,
        },
        title: finding.code.to_string(),
        message: match &finding.help {
            Some(help) => format!("{}\n{help}", finding.message),
            None => finding.message.clone(),
        },
    })
}
