//! Commands that ask the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::Client;
use super::show::{self, BOLD, DIM, GREEN, RED, RESET, YELLOW, clean};
use super::{
    CHANGES, DONE, FAILED, Global, HELD, Output, SUPERSEDED, TIMEOUT, Which, finding, usage,
};
use crate::domain::model::{Finding, Reason, SyncResult, counted, parse_duration};
use crate::port::StackEvent;
use crate::reconcile::{Adoption, ApproveWhat, EstateReport, Selector, TargetReport};

/// `isoform status`
pub(crate) async fn status(global: &Global) -> anyhow::Result<u8> {
    let estate: EstateReport = Client::connect(global)?.get("estate", &[]).await?;
    if global.output == Output::Json {
        show::json(&estate)?;
        return Ok(estate_code(&estate));
    }
    let commits = estate
        .commits
        .values()
        .map(|c| format!("{} \"{}\"", c.revision.short(), clean(&c.summary)))
        .collect::<Vec<_>>()
        .join(", ");
    let swept = estate.swept_at.map_or_else(
        || "stacks not swept yet".to_owned(),
        |at| format!("stacks swept {} ago", show::span(estate.now.since(at))),
    );
    anstream::println!(
        "{}estate at {}{} · {swept}",
        BOLD,
        if commits.is_empty() {
            "no commit yet"
        } else {
            &commits
        },
        RESET
    );
    if estate.frozen {
        anstream::println!("{RED}frozen{RESET}  the file FREEZE stops every execution");
    }
    refused(&estate);
    throttled(&estate);
    forges(&estate);
    countersigned(&estate);
    for target in &estate.targets {
        let template = target
            .serving_template
            .clone()
            .or_else(|| target.template.clone())
            .unwrap_or_default();
        let behind = match (&target.serving_template, &target.template) {
            (Some(serving), Some(wanted)) if serving != wanted => {
                format!("  {YELLOW}wants {wanted}{RESET}")
            }
            _ => String::new(),
        };
        let (sign, colour) = show::sign(&target.condition);
        let progress = target
            .progress
            .as_deref()
            .map(|p| format!("  {p}"))
            .unwrap_or_default();
        let suspended = match &target.suspended {
            // What is held by it says so already.
            Some(_) if target.condition.reason != Reason::Suspended => {
                format!("  {YELLOW}suspended{RESET}")
            }
            _ => String::new(),
        };
        anstream::println!(
            "  {:<34} {colour}{sign}{RESET} {:<26} {DIM}{template}{RESET}{behind}{suspended}{progress}",
            target.address.to_string(),
            target.condition.to_string()
        );
    }
    anstream::println!(
        "{} · log at entry {}",
        show::verdict(&estate),
        estate.entries
    );
    let faults = estate.findings.iter().filter(|f| f.is_error()).count();
    if faults > 0 {
        anstream::println!(
            "  {RED}{} in the newest commit{RESET}: isoform why <target>",
            counted(faults, "fault")
        );
    }
    next_steps(&estate.targets);
    Ok(estate_code(&estate))
}

/// Prints why nothing newer is known: of everything, and of sources whose head was not accepted.
fn refused(estate: &EstateReport) {
    if let Some(reason) = &estate.unlooked {
        anstream::println!(
            "{RED}the last look failed and is made again{RESET}  {}",
            clean(reason)
        );
    }
    for (source, reason) in &estate.refused {
        anstream::println!("{YELLOW}source {source}{RESET}  {}", clean(reason));
    }
}

/// Prints what a service holds back: only that is of interest, `--output json` has every call.
fn throttled(estate: &EstateReport) {
    for calls in &estate.calls {
        if let Some(line) = show::throttled(calls, estate.now) {
            anstream::println!("{YELLOW}throttled{RESET}  {}", clean(&line));
        }
    }
}

/// Prints what forges do not do: comments and verdicts are late, and nothing that is deployed is.
fn forges(estate: &EstateReport) {
    for (source, troubles) in &estate.forges {
        for trouble in troubles {
            anstream::println!("{YELLOW}forge of {source}{RESET}  {}", clean(trouble));
        }
    }
}

/// Prints that checkpoints lack their second signature: nothing waits for it, and somebody may want to know.
fn countersigned(estate: &EstateReport) {
    if let Some(report) = &estate.countersigned
        && let Some(failed) = &report.failed
    {
        anstream::println!(
            "{YELLOW}countersigned to entry {} only{RESET}  {}",
            report.to,
            clean(failed)
        );
    }
}

/// The exit code of a whole estate: what its targets come to, its faults, and whether its sources could be read.
fn estate_code(estate: &EstateReport) -> u8 {
    let targets = code_of(estate.targets.iter());
    let unread = estate
        .refused
        .keys()
        .any(|name| !estate.rewritten.contains_key(name));
    if targets == FAILED || unread || estate.unlooked.is_some() || errors(&estate.findings) > 0 {
        FAILED
    } else if !estate.rewritten.is_empty() {
        HELD
    } else {
        targets
    }
}

/// How many targets are told one by one what to do; more of the same kind stand in one line.
const NAMED: usize = 5;

/// Prints what a person can do, the same for many targets once.
fn next_steps(targets: &[TargetReport]) {
    let mut steps: Vec<(String, String, Vec<&TargetReport>)> = Vec::new();
    for target in targets {
        if let Some((head, step)) = next_step(target) {
            let same = steps.iter_mut().find(|(h, s, _)| {
                *h == head && (*s == step || target.condition.reason == Reason::BlastRadius)
            });
            match same {
                Some((_, _, all)) => all.push(target),
                None => steps.push((head, step, vec![target])),
            }
        }
    }
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    for (head, _, _) in &steps {
        *told.entry(head.clone()).or_default() += 1;
    }
    let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
    for (head, step, all) in &steps {
        let count = shown.entry(head).or_default();
        *count += 1;
        if *count == NAMED + 1 {
            let more = told.get(head).copied().unwrap_or_default() - NAMED;
            anstream::println!("  {head}:   and {more} more like this");
        }
        if *count > NAMED {
            continue;
        }
        match all.as_slice() {
            [_] => anstream::println!("  {head}:   {step}"),
            many => anstream::println!("  {head}, {}:   {step}", counted(many.len(), "target")),
        }
    }
}

/// Says what a person can do about a target: what stands in the way, and the command.
fn next_step(target: &TargetReport) -> Option<(String, String)> {
    let address = &target.address;
    match (&target.review, target.condition.result) {
        (Some((digest, _, _)), SyncResult::Pending | SyncResult::Orphaned)
            if matches!(
                target.condition.reason,
                Reason::Approval | Reason::PruneBudget | Reason::StackPolicy
            ) =>
        {
            let opens = match target.condition.reason {
                Reason::StackPolicy => " --open-policy",
                _ => "",
            };
            let step = format!(
                "isoform approve {address} --review {}{opens}",
                digest.short(12)
            );
            Some((format!("{YELLOW}waits for you{RESET}"), step))
        }
        (_, SyncResult::Failed | SyncResult::Stuck | SyncResult::Drifted | SyncResult::Foreign) => {
            let head = format!("{RED}{}{RESET}", target.condition);
            Some((head, format!("isoform why {address}")))
        }
        _ if show::is_held(&target.condition) => {
            let head = format!("{YELLOW}{}{RESET}", target.condition);
            let step = match target.condition.reason {
                Reason::BlastRadius => {
                    format!("{} · the list: isoform why {address}", target.help)
                }
                _ => target.help.clone(),
            };
            Some((head, step))
        }
        _ => None,
    }
}

fn code_of<'a>(targets: impl Iterator<Item = &'a TargetReport>) -> u8 {
    let mut code = DONE;
    for target in targets {
        match target.condition.result {
            SyncResult::Failed | SyncResult::Stuck => return FAILED,
            // What cannot be told is not well; what was not looked at yet is neither.
            SyncResult::Unknown if target.condition.reason != Reason::NotYet => return FAILED,
            SyncResult::Superseded => code = SUPERSEDED,
            _ if show::is_held(&target.condition) => code = HELD,
            _ => {}
        }
    }
    code
}

/// `isoform targets`
pub(crate) async fn targets(global: &Global, explain: bool) -> anyhow::Result<u8> {
    let estate: EstateReport = Client::connect(global)?.get("estate", &[]).await?;
    if global.output == Output::Json {
        show::json(&json!({ "targets": estate.targets }))?;
        return Ok(DONE);
    }
    for target in &estate.targets {
        let made = if explain {
            format!(
                "   {DIM}{}{RESET}",
                clean(target.made_by.as_deref().unwrap_or_default())
            )
        } else {
            String::new()
        };
        let stack = target.stack_name.as_deref().unwrap_or_default();
        anstream::println!(
            "{:<34} {:<10} {stack}{made}",
            target.address.to_string(),
            target.placement.as_deref().unwrap_or("-")
        );
    }
    Ok(DONE)
}

#[derive(Deserialize)]
struct Targets {
    targets: Vec<TargetReport>,
}

/// `isoform why`
pub(crate) async fn why(global: &Global, address: &str) -> anyhow::Result<u8> {
    let client = Client::connect(global)?;
    let found: Value = client.get("target", &[("address", address)]).await?;
    if global.output == Output::Json {
        show::json(&found)?;
        let found: Targets = serde_json::from_value(found)?;
        return Ok(code_of(found.targets.iter()));
    }
    let found: Targets = serde_json::from_value(found)?;
    for target in &found.targets {
        let (_, colour) = show::sign(&target.condition);
        anstream::println!(
            "{BOLD}{}{RESET}  {colour}{}{RESET}  since {}",
            target.address,
            target.condition,
            show::time(target.condition.since)
        );
        let row = |name: &str, text: String| anstream::println!("  {DIM}{name:<10}{RESET}{text}");
        if !target.condition.detail.is_empty() {
            row("detail", clean(&target.condition.detail));
        }
        if let Some(serving) = &target.serving {
            row(
                "serving",
                format!(
                    "{} {}",
                    serving.get(..7).unwrap_or(serving),
                    target.serving_template.clone().unwrap_or_default()
                )
                .trim_end()
                .to_owned(),
            );
        }
        if let Some(stack) = &target.stack_name {
            row("stack", stack.clone());
        }
        if let Some((outcome, cause, at)) = &target.last {
            let cause = cause
                .as_deref()
                .map(|c| format!(": {}", clean(c)))
                .unwrap_or_default();
            let place = target
                .cause_at
                .as_deref()
                .filter(|_| !cause.is_empty())
                .map(|place| format!("   {}", clean(place)))
                .unwrap_or_default();
            row(
                "last",
                format!("{outcome:?} at {}{cause}{place}", show::time(*at)),
            );
        }
        if let Some(held) = &target.suspended {
            let until = held
                .until
                .map_or_else(String::new, |at| format!(" until {}", show::time(at)));
            row(
                "suspended",
                format!(
                    "by {}{until}: {} {DIM}(isoform resume {}){RESET}",
                    clean(&held.by),
                    clean(&held.reason),
                    target.address
                ),
            );
        }
        for (number, address) in target.blast_radius.iter().enumerate() {
            row(if number == 0 { "radius" } else { "" }, address.to_string());
        }
        if let Some((digest, summary, losses)) = &target.review {
            row("review", format!("{} · {summary}", digest.short(12)));
            for loss in losses {
                row("loses", format!("{RED}{}{RESET}", clean(loss)));
            }
            for line in show::changes(&target.changes, &|_| None) {
                anstream::println!("          {line}");
            }
            if !target.approvals.is_empty() {
                row(
                    "approved",
                    format!(
                        "by {}",
                        target
                            .approvals
                            .iter()
                            .map(|a| clean(a))
                            .collect::<Vec<_>>()
                            .join(", ")
                    ),
                );
            }
        }
        if !target.uses.is_empty() {
            row(
                "uses",
                target
                    .uses
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
            );
        }
        if !target.used_by.is_empty() {
            row(
                "used by",
                target
                    .used_by
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
            );
        }
        if let Some(made) = &target.made_by {
            row("made by", clean(made));
        }
        row("next", format!("{BOLD}{}{RESET}", next_here(target)));
        if !target.findings.is_empty() {
            anstream::println!("");
            finding::print(&target.findings);
        }
    }
    Ok(code_of(found.targets.iter()))
}

/// What to do about a target whose review and faults stand right here.
fn next_here(target: &TargetReport) -> String {
    let address = &target.address;
    match (target.condition.reason, &target.review) {
        (Reason::Approval | Reason::PruneBudget | Reason::StackPolicy, Some((digest, _, _))) => {
            let opens = match target.condition.reason {
                Reason::StackPolicy => " --open-policy",
                _ => "",
            };
            format!(
                "isoform approve {address} --review {}{opens}, or isoform reject {address} --reason …",
                digest.short(12)
            )
        }
        (Reason::Invalid, _) if !target.findings.is_empty() => {
            "mend the faults below and push again".to_owned()
        }
        _ => target.help.clone(),
    }
}

/// `isoform logs`
pub(crate) async fn logs(global: &Global, address: &str) -> anyhow::Result<u8> {
    let found: Value = Client::connect(global)?
        .get("events", &[("address", address)])
        .await?;
    if global.output == Output::Json {
        show::json(&found)?;
        return Ok(DONE);
    }
    let events: BTreeMap<String, Vec<StackEvent>> =
        serde_json::from_value(found.get("events").cloned().unwrap_or_default())?;
    for (target, events) in events {
        anstream::println!("{BOLD}{target}{RESET}");
        for event in events {
            let colour = if event.status.contains("FAILED") || event.status.contains("ROLLBACK") {
                RED
            } else if event.status.ends_with("_COMPLETE") {
                GREEN
            } else {
                DIM
            };
            let reason = event
                .reason
                .as_deref()
                .map(|r| format!("   {}", clean(r)))
                .unwrap_or_default();
            anstream::println!(
                "  {}  {colour}{:<28}{RESET} {:<28} {}{reason}",
                show::time(event.at),
                event.status,
                clean(&event.logical),
                clean(&event.kind)
            );
        }
    }
    Ok(DONE)
}

/// `isoform sync`
pub(crate) async fn sync(global: &Global, wait_for: bool, timeout: &str) -> anyhow::Result<u8> {
    let client = Client::connect(global)?;
    let mut answer: Value = client
        .post("hint", &json!({ "trigger": "operator" }))
        .await?;
    if wait_for {
        return follow(global, &client, &|_| true, timeout).await;
    }
    let estate: EstateReport = client.get("estate", &[]).await?;
    if global.output == Output::Json {
        answer["refused"] = json!(estate.refused);
        show::json(&answer)?;
    } else if answer.get("new").and_then(Value::as_bool) == Some(true) {
        anstream::println!("a new snapshot was accepted; follow it with `isoform sync --wait`");
    } else {
        anstream::println!("nothing new");
    }
    if global.output == Output::Text {
        refused(&estate);
    }
    Ok(if estate.refused.is_empty() && estate.unlooked.is_none() {
        DONE
    } else {
        estate_code(&estate)
    })
}

/// `isoform wait`
pub(crate) async fn wait(
    global: &Global,
    target: Option<&str>,
    commit: Option<&str>,
    timeout: &str,
) -> anyhow::Result<u8> {
    let client = Client::connect(global)?;
    if let Some(commit) = commit {
        let limit = parse_duration(timeout).map_err(usage)?;
        let begun = Instant::now();
        loop {
            let estate: EstateReport = client.get("estate", &[]).await?;
            if estate
                .commits
                .values()
                .any(|c| c.revision.as_str().starts_with(commit))
            {
                break;
            }
            if begun.elapsed() > limit {
                anstream::eprintln!("{commit} was not seen in {timeout}");
                return Ok(TIMEOUT);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    } else if target.is_none() {
        return Err(usage("name a target or --commit"));
    }
    let glob = target.unwrap_or("**").to_owned();
    follow(
        global,
        &client,
        &move |t| t.address.is_meant_by(&glob),
        timeout,
    )
    .await
}

/// Shows progress until the chosen targets rest; the exit code says how they rest.
async fn follow(
    global: &Global,
    client: &Client,
    chosen: &(dyn Fn(&TargetReport) -> bool + Sync),
    timeout: &str,
) -> anyhow::Result<u8> {
    let begun = Instant::now();
    let Some(rested) = rest(global, client, chosen, timeout).await? else {
        return Ok(TIMEOUT);
    };
    let estate = &rested.estate;
    if global.output == Output::Json {
        show::json(&json!({ "targets": rested.targets }))?;
    } else {
        anstream::println!(
            "{} · {}",
            show::verdict(estate),
            show::span(begun.elapsed())
        );
        if rested.targets.len() == estate.targets.len() {
            refused(estate);
        }
    }
    Ok(rested.code)
}

/// How targets rest.
pub(crate) struct Rested {
    /// What a command ends with.
    pub code: u8,
    /// Those that were chosen.
    pub targets: Vec<TargetReport>,
    /// The estate at that moment.
    pub estate: EstateReport,
}

/// Shows progress until the chosen targets rest; absent where they do not in time, which is said.
pub(crate) async fn rest(
    global: &Global,
    client: &Client,
    chosen: &(dyn Fn(&TargetReport) -> bool + Sync),
    timeout: &str,
) -> anyhow::Result<Option<Rested>> {
    let limit = parse_duration(timeout).map_err(usage)?;
    let begun = Instant::now();
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let estate: EstateReport = client.get("estate", &[]).await?;
        let mine: Vec<&TargetReport> = estate.targets.iter().filter(|t| chosen(t)).collect();
        if global.output == Output::Text {
            for target in &mine {
                let line = show::progress_line(target);
                let word = target.condition.to_string();
                let old = shown.insert(target.address.to_string(), word.clone());
                // What was in sync from the beginning only scrolls away what is not.
                let quiet = old.is_none()
                    && matches!(
                        target.condition.result,
                        SyncResult::InSync | SyncResult::NoEffect
                    );
                if !quiet && old.as_ref() != Some(&word) {
                    anstream::println!("{line}");
                }
            }
        }
        if mine.is_empty() && estate.settled {
            return Err(usage(
                "no target matches: `*` stands for one part of an address, `**` for any",
            ));
        }
        let mut code = code_of(mine.iter().copied());
        let mut ended = rests(&estate, &mine);
        if ended && code != FAILED {
            match behind(client, &mine).await? {
                // It bakes: nobody has to do anything, and it goes on.
                Some(DONE) => {
                    ended = false;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Some(FAILED) => code = FAILED,
                Some(other) => code = code.max(other),
                None => {}
            }
        }
        // What is asked about every target asks about the sources too.
        if ended && mine.len() == estate.targets.len() && code == DONE {
            code = estate_code(&estate);
        }
        if ended {
            let targets = mine.into_iter().cloned().collect();
            return Ok(Some(Rested {
                code,
                targets,
                estate,
            }));
        }
        if begun.elapsed() > limit {
            anstream::eprintln!("still not at rest after {timeout}");
            return Ok(None);
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

/// What stands behind targets that wait for others: failed, held, or nothing but time. Absent where none waits.
///
/// A target that waits behind one that failed will not move by itself, so whoever waits for it must be told.
async fn behind(client: &Client, targets: &[&TargetReport]) -> anyhow::Result<Option<u8>> {
    let mut worst = None;
    for target in targets.iter().filter(|t| waits_for_others(t)) {
        let mut seen = BTreeSet::from([target.address.clone()]);
        let mut at = target.address.to_string();
        let code = loop {
            // What is used and not asked for by anybody will not come by itself.
            let Ok(found) = client.get::<Targets>("target", &[("address", &at)]).await else {
                break FAILED;
            };
            let Some(report) = found.targets.first() else {
                break DONE;
            };
            if !waits_for_others(report) {
                break code_of(std::iter::once(report));
            }
            match &report.waits_for {
                Some(next) if seen.insert(next.clone()) => at = next.to_string(),
                _ => break DONE,
            }
        };
        if code == FAILED {
            return Ok(Some(FAILED));
        }
        worst = worst.max(Some(code));
    }
    Ok(worst)
}

fn waits_for_others(target: &TargetReport) -> bool {
    target.condition.result == SyncResult::Pending
        && matches!(
            target.condition.reason,
            Reason::Dependency | Reason::Rollout
        )
}

/// Tells whether targets rest: the look has ended, or these were looked at and wait for nobody.
pub(crate) fn rests(estate: &EstateReport, targets: &[&TargetReport]) -> bool {
    let waits = |t: &TargetReport| {
        matches!(
            t.condition.result,
            SyncResult::Planning | SyncResult::Applying | SyncResult::CleaningUp
        ) || matches!(
            t.condition.reason,
            Reason::NotYet
                | Reason::Dependency
                | Reason::Rollout
                | Reason::StackMoved
                | Reason::SecondLook
        ) || (t.looked < estate.snapshot && t.condition.result != SyncResult::Orphaned)
    };
    (estate.settled && !targets.is_empty())
        || (!targets.is_empty() && !targets.iter().any(|t| waits(t)))
}

/// `isoform approve`
pub(crate) async fn approve(
    global: &Global,
    target: Option<String>,
    review: Option<String>,
    snapshot: Option<String>,
    source: Option<String>,
    opens: bool,
) -> anyhow::Result<u8> {
    let what = match (target, snapshot, source) {
        (Some(target), None, None) => ApproveWhat::Review {
            target,
            review,
            opens,
        },
        (None, Some(commit), None) => ApproveWhat::Snapshot(commit),
        (None, None, Some(name)) => ApproveWhat::Source(name),
        _ => {
            return Err(usage(
                "name a target, --snapshot <commit> or --source <name>",
            ));
        }
    };
    let answer: Value = Client::connect(global)?.post("approve", &what).await?;
    said(global, &answer)
}

/// Commands that only say something to the daemon.
pub(crate) async fn say(
    global: &Global,
    what: &str,
    which: Which,
    reason: &str,
    hold: Option<String>,
    overwrite: bool,
) -> anyhow::Result<u8> {
    let selector = match which {
        Which { all: true, .. } => Selector::All,
        Which {
            placement: Some(name),
            ..
        } => Selector::Placement(name),
        Which {
            source: Some(name), ..
        } => Selector::Source(name),
        Which {
            target: Some(target),
            ..
        } => Selector::Targets(target),
        _ => return Err(usage("name a target, --placement, --source or --all")),
    };
    let body = json!({ "what": what, "selector": selector, "reason": reason, "hold": hold, "overwrite": overwrite });
    let answer: Value = Client::connect(global)?.post("say", &body).await?;
    said(global, &answer)
}

/// Commands that say something about one target, with what only they have.
pub(crate) async fn say_of(
    global: &Global,
    what: &str,
    target: &str,
    reason: &str,
    more: Value,
) -> anyhow::Result<u8> {
    let mut body =
        json!({ "what": what, "selector": Selector::Targets(target.to_owned()), "reason": reason });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    let answer: Value = Client::connect(global)?.post("say", &body).await?;
    said(global, &answer)
}

/// `isoform adopt`
pub(crate) async fn adopt(
    global: &Global,
    target: &str,
    stack: Option<&str>,
    check: bool,
    drift: bool,
) -> anyhow::Result<u8> {
    let body = json!({ "target": target, "stack": stack, "check": check, "drift": drift });
    let found: Adoption = Client::connect(global)?.post("adopt", &body).await?;
    let same = found.changes.is_empty() && (found.adopted || found.differences.is_empty());
    let code = if found.adopted || (check && same) {
        DONE
    } else {
        CHANGES
    };
    if global.output == Output::Json {
        show::json(&found)?;
        return Ok(code);
    }
    let row = |name: &str, text: &str| anstream::println!("  {DIM}{name:<10}{RESET}{text}");
    anstream::println!("{BOLD}{}{RESET}", found.target);
    row("stack", found.stack.as_str());
    row("status", &found.status);
    for (number, difference) in found.differences.iter().enumerate() {
        row(if number == 0 { "differs" } else { "" }, &clean(difference));
    }
    let lines = show::changes(&found.changes, &|_| None);
    row(
        "proof",
        if found.changes.is_empty() {
            "CloudFormation was asked with a change set, which is discarded: it finds nothing to change"
        } else {
            "CloudFormation was asked with a change set, which is discarded: it would change"
        },
    );
    for line in lines {
        anstream::println!("            {line}");
    }
    for line in found.drift.iter().flatten() {
        row("drift", &clean(line));
    }
    for note in &found.notes {
        row("note", &clean(note));
    }
    match (found.adopted, &found.evidence) {
        (true, Some(evidence)) => anstream::println!(
            "{GREEN}adopted{RESET}: nothing was changed; the evidence {} is in the log",
            evidence.short(12)
        ),
        _ if code == DONE => anstream::println!("it can be adopted: leave --check out"),
        _ => anstream::println!(
            "{YELLOW}not adopted{RESET}: bring Git to what is deployed, push, and ask again"
        ),
    }
    Ok(code)
}

fn said(global: &Global, answer: &Value) -> anyhow::Result<u8> {
    if global.output == Output::Json {
        show::json(answer)?;
    } else {
        anstream::println!(
            "{}",
            clean(
                answer
                    .get("said")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            )
        );
    }
    Ok(DONE)
}

/// Counts the errors among findings.
pub(crate) fn errors(findings: &[Finding]) -> usize {
    findings.iter().filter(|f| f.is_error()).count()
}
