//! The hook of a bare repository: a push shows what it does.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use super::branch::{self, Update};
use super::client::{Client, socket_path};
use super::proposal::Of;
use super::show::{self, clean};
use super::{DONE, Global, Output};
use crate::domain::model::{Reason, SyncResult};
use crate::reconcile::{EstateReport, TargetReport};

/// How long a push is held to show what it does.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Subcommand)]
pub(crate) enum HookCommand {
    /// Put the hook into a bare repository.
    Install {
        /// The bare repository.
        repository: PathBuf,
        /// The source that it is, where its path does not tell.
        #[arg(long)]
        source: Option<String>,
    },
    /// What the hook runs: reads the updated refs from standard input.
    PostReceive {
        /// The source that the repository is.
        #[arg(long)]
        source: Option<String>,
    },
}

pub(crate) async fn hook(global: &Global, command: HookCommand) -> anyhow::Result<u8> {
    match command {
        HookCommand::Install { repository, source } => {
            let path = install(&repository, &socket_path(global)?, source.as_deref())?;
            if global.output == Output::Json {
                show::json(&json!({ "installed": path }))?;
            } else {
                anstream::println!("installed {}: a push shows what it does", path.display());
            }
            Ok(DONE)
        }
        HookCommand::PostReceive { source } => {
            // Nothing that goes wrong here may fail a push: it has been received already.
            if let Err(error) = post_receive(global, source.as_deref()).await {
                anstream::println!(
                    "isoform: {}; the push is received, the daemon finds it when it runs",
                    clean(&format!("{error:#}"))
                );
            }
            Ok(DONE)
        }
    }
}

/// Writes the hook. One that is there and not ours is left alone.
pub(crate) fn install(
    repository: &Path,
    socket: &Path,
    source: Option<&str>,
) -> anyhow::Result<PathBuf> {
    let hooks = repository.join("hooks");
    if !repository.join("refs").is_dir() {
        return Err(super::usage(format!(
            "{} is not a bare repository",
            repository.display()
        )));
    }
    std::fs::create_dir_all(&hooks)?;
    let path = hooks.join("post-receive");
    if path.exists()
        && !std::fs::read_to_string(&path)
            .unwrap_or_default()
            .contains("isoform hook")
    {
        bail!(
            "{} exists and is not isoform's: call `isoform hook post-receive` from it",
            path.display()
        );
    }
    let program = std::env::current_exe().context("finding this program")?;
    let quote = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let socket = std::path::absolute(socket)?;
    let named = source.map_or_else(String::new, |name| format!(" --source {}", quote(name)));
    let text = format!(
        "#!/bin/sh\n# isoform hook: shows what a push does. It can never fail a push.\nexec {} --socket {} hook post-receive{named}\n",
        quote(&program.display().to_string()),
        quote(&socket.display().to_string())
    );
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

async fn post_receive(global: &Global, source: Option<&str>) -> anyhow::Result<()> {
    let mut input = String::new();
    std::io::stdin().take(1 << 20).read_to_string(&mut input)?;
    let pushed: Vec<Update<'_>> = input.lines().filter_map(Update::read).collect();
    let client = Client::connect(global)?;
    let repository = std::env::current_dir()?;
    let of = Of {
        source,
        origin: repository.to_str(),
    };
    let sources = branch::sources(&client, of).await?;
    // Whose repository this is cannot be told: then every branch may be one that is followed.
    let is_followed = |u: &Update<'_>| {
        u.branch()
            .is_some_and(|name| sources.is_empty() || sources.iter().any(|s| s.branch == name))
    };
    let (followed, others): (Vec<_>, Vec<_>) = pushed.iter().partition(|u| is_followed(u));
    if !followed.is_empty() {
        accepted(&client, &followed).await?;
    }
    branch::show(&client, &repository, &sources, &others).await
}

async fn accepted(client: &Client, pushed: &[&Update<'_>]) -> anyhow::Result<()> {
    let pusher = std::env::var("GL_USERNAME")
        .or_else(|_| std::env::var("REMOTE_USER"))
        .or_else(|_| std::env::var("USER"))
        .unwrap_or_default();
    let before: EstateReport = client.get("estate", &[]).await?;
    let answer: Value = client
        .post("hint", &json!({ "trigger": "push", "pusher": pusher }))
        .await?;
    let estate: EstateReport = client.get("estate", &[]).await?;
    let mine = estate
        .commits
        .values()
        .find(|c| pushed.iter().any(|u| u.new == c.revision.as_str()));
    let Some(commit) = mine.cloned() else {
        if let Some((source, reason)) = estate.refused.iter().next() {
            anstream::println!("isoform: not accepted for {source}: {}", clean(reason));
        }
        return Ok(());
    };
    if answer.get("new").and_then(Value::as_bool) != Some(true) {
        anstream::println!("isoform: {} is accepted already", commit.revision.short());
    }
    let revision = commit.revision.as_str();
    // What stood before this push is not its doing. If the daemon was faster than the hook, nobody can tell.
    let faster = before
        .commits
        .values()
        .any(|c| c.revision.as_str() == revision);
    let old = if faster { Vec::new() } else { before.targets };
    follow(client, revision, &old).await
}

/// Tells whether a target is as it was: the same condition, since the same time, in the same words.
fn is_as_before(target: &TargetReport, old: &[TargetReport]) -> bool {
    old.iter()
        .any(|o| o.uid == target.uid && o.condition == target.condition)
}

async fn follow(client: &Client, revision: &str, old: &[TargetReport]) -> anyhow::Result<()> {
    let begun = Instant::now();
    let short = &revision[..7];
    let mut said: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
    let mut head = 0u64;
    let mut faults = false;
    anstream::println!("isoform: {short} accepted");
    loop {
        let estate: EstateReport = client
            .get("changed", &[("from", &head.to_string())])
            .await?;
        head = estate.entries;
        let current = estate
            .commits
            .values()
            .any(|c| c.revision.as_str() == revision);
        if !current {
            anstream::println!("isoform: a newer push took over · isoform status");
            return Ok(());
        }
        if !faults && estate.findings.iter().any(|f| f.is_error()) {
            faults = true;
            for finding in estate.findings.iter().filter(|f| f.is_error()) {
                for line in super::finding::render(finding).lines() {
                    anstream::println!("{line}");
                }
            }
        }
        for target in estate
            .targets
            .iter()
            .filter(|t| t.looked >= estate.snapshot || t.condition.result == SyncResult::Applying)
        {
            if is_as_before(target, old) {
                continue;
            }
            if let Some(line) = news(
                target,
                said.get(&target.address.to_string()).map(String::as_str),
                revision,
            ) {
                anstream::println!("  {:<34} {line}", target.address.to_string());
                said.insert(target.address.to_string(), line);
            }
        }
        if estate.settled {
            anstream::println!(
                "isoform: {} at {short} · details: isoform audit show {short}",
                show::verdict(&estate)
            );
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            anstream::println!(
                "isoform: still going on; it needs nobody to wait · follow with: isoform wait --commit {short}"
            );
            return Ok(());
        }
    }
}

/// Returns what is new about a target, if it is worth a line.
fn news(target: &TargetReport, before: Option<&str>, revision: &str) -> Option<String> {
    let line = match target.condition.result {
        SyncResult::Applying => format!("executing … {}", clean(&target.condition.detail)),
        SyncResult::InSync if target.serving.as_deref() == Some(revision) => {
            let took = target
                .took_ms
                .map(|ms| format!(" in {}", show::span(Duration::from_millis(ms))))
                .unwrap_or_default();
            format!("✓ updated{took}")
        }
        SyncResult::NoEffect if target.serving.as_deref() == Some(revision) => {
            "✓ nothing to change".to_owned()
        }
        SyncResult::InSync
        | SyncResult::NoEffect
        | SyncResult::Planning
        | SyncResult::CleaningUp
        | SyncResult::Unknown => return None,
        // What waits for another target goes on by itself; the last line counts it.
        _ if matches!(
            target.condition.reason,
            Reason::Dependency | Reason::Rollout | Reason::NotYet
        ) =>
        {
            return None;
        }
        // The faults themselves were shown above.
        SyncResult::Failed if target.condition.reason == Reason::Invalid => {
            "✗ does not move: its files have faults".to_owned()
        }
        SyncResult::Failed | SyncResult::Stuck => format!(
            "✗ {}: {}",
            target.condition,
            clean(&target.condition.detail)
        ),
        _ => format!(
            "⏸ {}: {}",
            target.condition,
            clean(&target.condition.detail)
        ),
    };
    let line: String = line.chars().take(160).collect();
    (before != Some(line.as_str())).then_some(line)
}
