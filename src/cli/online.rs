//! Commands that ask the daemon.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::Client;
use super::show::{self, BOLD, DIM, GREEN, RED, RESET, YELLOW, clean};
use super::{DONE, FAILED, Global, HELD, Output, SUPERSEDED, TIMEOUT, Which, finding, usage};
use crate::domain::model::{Finding, Reason, SyncResult, parse_duration};
use crate::port::StackEvent;
use crate::reconcile::{ApproveWhat, EstateReport, Selector, TargetReport};

/// `isoform status`
pub(crate) async fn status(global: &Global) -> anyhow::Result<u8> {
    let estate: EstateReport = Client::connect(global)?.get("estate", &[]).await?;
    if global.output == Output::Json {
        show::json(&estate)?;
        return Ok(code_of(estate.targets.iter()));
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
    for (source, reason) in &estate.refused {
        anstream::println!("{YELLOW}source {source}{RESET}  {}", clean(reason));
    }
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
        anstream::println!(
            "  {:<34} {colour}{sign}{RESET} {:<26} {DIM}{template}{RESET}{behind}{progress}",
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
            "  {RED}{faults} fault{} in the newest commit{RESET}: isoform why <target>",
            if faults == 1 { "" } else { "s" }
        );
    }
    for target in &estate.targets {
        next_step(target);
    }
    Ok(code_of(estate.targets.iter()))
}

fn next_step(target: &TargetReport) {
    let address = &target.address;
    match (&target.review, target.condition.result) {
        (Some((digest, _, _)), SyncResult::Pending | SyncResult::Orphaned)
            if matches!(
                target.condition.reason,
                Reason::Approval | Reason::PruneBudget
            ) =>
        {
            anstream::println!(
                "  {YELLOW}waits for you{RESET}:   isoform approve {address} --review {}",
                digest.short(12)
            );
        }
        (_, SyncResult::Failed | SyncResult::Stuck | SyncResult::Drifted | SyncResult::Foreign) => {
            anstream::println!(
                "  {RED}{}{RESET}:   isoform why {address}",
                target.condition
            );
        }
        _ if show::is_held(&target.condition) => {
            anstream::println!("  {YELLOW}{}{RESET}:   {}", target.condition, target.help);
        }
        _ => {}
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
        let row = |name: &str, text: String| anstream::println!("  {DIM}{name:<9}{RESET}{text}");
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
                ),
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
            row("last", format!("{outcome:?} at {}{cause}", show::time(*at)));
        }
        if let Some((digest, summary, losses)) = &target.review {
            row("review", format!("{} · {summary}", digest.short(12)));
            for loss in losses {
                row("loses", format!("{RED}{}{RESET}", clean(loss)));
            }
            for line in show::changes(&target.changes, &|_| None) {
                anstream::println!("         {line}");
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
        row("next", format!("{BOLD}{}{RESET}", target.help));
        if let (Some((digest, _, _)), true) = (
            &target.review,
            matches!(
                target.condition.reason,
                Reason::Approval | Reason::PruneBudget
            ),
        ) {
            row(
                "",
                format!(
                    "isoform approve {} --review {}",
                    target.address,
                    digest.short(12)
                ),
            );
        }
        if !target.findings.is_empty() {
            anstream::println!("");
            finding::print(&target.findings);
        }
    }
    Ok(code_of(found.targets.iter()))
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
    let answer: Value = client
        .post("hint", &json!({ "trigger": "operator" }))
        .await?;
    if wait_for {
        return follow(global, &client, &|_| true, timeout).await;
    }
    if global.output == Output::Json {
        show::json(&answer)?;
    } else if answer.get("new").and_then(Value::as_bool) == Some(true) {
        anstream::println!("a new snapshot was accepted; follow it with `isoform sync --wait`");
    } else {
        anstream::println!("nothing new");
    }
    Ok(DONE)
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
        &move |t| crate::domain::model::glob_matches(&glob, &t.address.to_string()),
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
                if shown
                    .insert(target.address.to_string(), word.clone())
                    .as_ref()
                    != Some(&word)
                {
                    anstream::println!("{line}");
                }
            }
        }
        if mine.is_empty() && estate.settled {
            return Err(usage(
                "no target matches: `*` stands for one part of an address, `**` for any",
            ));
        }
        if rests(&estate, &mine) {
            if global.output == Output::Json {
                show::json(&json!({ "targets": mine }))?;
            } else {
                anstream::println!(
                    "{} · {}",
                    show::verdict(&estate),
                    show::span(begun.elapsed())
                );
            }
            return Ok(code_of(mine.into_iter()));
        }
        if begun.elapsed() > limit {
            anstream::eprintln!("still not at rest after {timeout}");
            return Ok(TIMEOUT);
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
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
) -> anyhow::Result<u8> {
    let what = match (target, snapshot, source) {
        (Some(target), None, None) => ApproveWhat::Review { target, review },
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
