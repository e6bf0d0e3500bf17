//! `diff` and `plan`: what would change, from this clone's files or from CloudFormation's own answer.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::client::Client;
use super::proposal::{self, Of};
use super::show::{self, BOLD, DIM, GREEN, RED, RESET, YELLOW, clean};
use super::{CHANGES, DONE, FAILED, Global, Output, finding, usage};
use crate::domain::model::{Prune, counted};
use crate::domain::plan::{DiffReport, TargetDiff};
use crate::domain::template::{Blob, Files};
use crate::git::Mirror;

/// What a commit is compared with.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Against {
    /// What is deployed.
    Deployed,
}

/// Arguments of `diff`.
#[derive(Args)]
pub(crate) struct DiffArgs {
    /// Two revisions to compare, as in `HEAD~1..HEAD`, or one commit with `--against`; absent compares the files of this
    /// clone with what is deployed.
    #[arg(value_name = "REVISION")]
    range: Option<String>,
    /// Compare the files of a commit, as they are in it, with this.
    #[arg(long, value_enum)]
    against: Option<Against>,
    /// The clone.
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// The source that the clone is of.
    #[arg(long)]
    source: Option<String>,
    /// Show the difference of the rendered text too.
    #[arg(long)]
    text: bool,
}

/// Reads the files of a clone: what Git tracks, and what is new and not ignored, as it is on disk.
pub(crate) fn clone_files(folder: &Path) -> anyhow::Result<(Files, Option<String>)> {
    let Ok(repository) = git2::Repository::discover(folder) else {
        return Ok((folder_files(folder)?, None));
    };
    let root = repository
        .workdir()
        .context("this is a bare repository: `diff` wants a clone")?
        .to_owned();
    let origin = repository
        .find_remote("origin")
        .ok()
        .and_then(|r| r.url().ok().map(str::to_owned));
    let mut names: Vec<String> = repository
        .index()?
        .iter()
        .map(|e| String::from_utf8_lossy(&e.path).into_owned())
        .collect();
    let mut options = git2::StatusOptions::new();
    options.include_untracked(true).recurse_untracked_dirs(true);
    for status in repository.statuses(Some(&mut options))?.iter() {
        if status.status().is_wt_new()
            && let Ok(path) = status.path()
        {
            names.push(path.to_owned());
        }
    }
    let mut files = Files::new();
    for name in names {
        let path = root.join(&name);
        let plain = path
            .symlink_metadata()
            .is_ok_and(|m| m.is_file() && m.len() <= 16 << 20);
        if plain {
            files.insert(name, Blob::new(std::fs::read(&path)?));
        }
    }
    Ok((files, origin))
}

/// Reads every plain file below a folder, under the limits of a tree.
pub(crate) fn folder_files(folder: &Path) -> anyhow::Result<Files> {
    if !folder.is_dir() {
        return Err(usage(format!("{} is not a folder", folder.display())));
    }
    let mut files = Files::new();
    let mut open = vec![folder.to_owned()];
    let mut total = 0u64;
    while let Some(here) = open.pop() {
        for entry in
            std::fs::read_dir(&here).with_context(|| format!("reading {}", here.display()))?
        {
            let path = entry?.path();
            let meta = path.symlink_metadata()?;
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if meta.is_dir() && name != ".git" && name != "target" && name != "node_modules" {
                open.push(path);
            } else if meta.is_file() && meta.len() <= 16 << 20 {
                total += meta.len();
                if total > 250 << 20 || files.len() > 100_000 {
                    bail!(
                        "{} holds more than 250 MB or 100,000 files",
                        folder.display()
                    );
                }
                let relative = path
                    .strip_prefix(folder)
                    .unwrap_or(&path)
                    .to_string_lossy()
                    .into_owned();
                files.insert(relative, Blob::new(std::fs::read(&path)?));
            }
        }
    }
    Ok(files)
}

/// `isoform diff`
pub(crate) async fn diff(global: &Global, args: &DiffArgs) -> anyhow::Result<u8> {
    match (&args.range, args.against) {
        (Some(revision), Some(Against::Deployed)) => {
            return commit_against_deployed(global, args, revision).await;
        }
        (Some(range), None) => {
            return super::offline::diff_revisions(global, &args.folder, range);
        }
        (None, _) => {}
    }
    let (files, origin) = clone_files(&args.folder)?;
    let client = Client::connect(global)?;
    let of = Of {
        source: args.source.as_deref(),
        origin: origin.as_deref(),
    };
    let report = proposal::compare(&client, &files, of).await?;
    show_diff(global, &report, args.text, "against what is deployed")
}

/// `isoform diff --against deployed <revision>`: the files are those of the commit, whatever lies in the work tree.
async fn commit_against_deployed(
    global: &Global,
    args: &DiffArgs,
    revision: &str,
) -> anyhow::Result<u8> {
    if revision.contains("..") {
        return Err(usage(
            "`--against deployed` takes one commit; two revisions, as in HEAD~1..HEAD, are compared without it",
        ));
    }
    let repository = proposal::repository(&args.folder)?;
    let commit = super::offline::commit_of(&repository, revision)?;
    let tree = Mirror::of(repository.path())?.read(&commit)?;
    let origin = proposal::origin(&repository);
    let of = Of {
        source: args.source.as_deref(),
        origin: origin.as_deref(),
    };
    let report = proposal::compare_tree(&Client::connect(global)?, tree, of).await?;
    let title = format!("{} against what is deployed", commit.short());
    show_diff(global, &report, args.text, &title)
}

/// `isoform plan`
pub(crate) async fn plan(global: &Global, targets: &str) -> anyhow::Result<u8> {
    let client = Client::connect(global)?;
    let report: DiffReport = client.post("plan", &json!({ "targets": targets })).await?;
    show_diff(
        global,
        &report,
        false,
        "what CloudFormation says of the newest commit",
    )
}

/// Returns what a command ends with that has shown a report.
pub(crate) fn code_of(report: &DiffReport) -> u8 {
    if report.findings.iter().any(|f| f.is_error()) {
        FAILED
    } else if report.is_empty() {
        DONE
    } else {
        CHANGES
    }
}

fn show_diff(global: &Global, report: &DiffReport, text: bool, title: &str) -> anyhow::Result<u8> {
    let code = code_of(report);
    if global.output == Output::Json {
        show::json(report)?;
        return Ok(code);
    }
    finding::print(&report.findings);
    anstream::println!("{}\n", headline(report, title));
    for target in &report.targets {
        for line in target_lines(target, text) {
            anstream::println!("{line}");
        }
        anstream::println!("");
    }
    for line in fates(report) {
        anstream::println!("{line}\n");
    }
    if let Some(line) = faults(report) {
        anstream::println!("{line}");
    }
    Ok(code)
}

/// Writes how many targets change and how many do not.
pub(crate) fn headline(report: &DiffReport, title: &str) -> String {
    let many = |n: usize, word: &str| {
        format!(
            "{} {word}{}",
            counted(n, "target"),
            if n == 1 { "s" } else { "" }
        )
    };
    format!(
        "{title} · {}, {} {} not",
        many(report.targets.len(), "change"),
        report.unchanged,
        if report.unchanged == 1 { "does" } else { "do" }
    )
}

/// Writes what changes in a target: its verdict, then a line for each resource and property.
pub(crate) fn target_lines(target: &TargetDiff, text: bool) -> Vec<String> {
    let losses: Vec<String> = target
        .changes
        .iter()
        .filter(|c| c.loses_state())
        .map(|c| c.loss())
        .collect();
    let verdict = if target.create {
        format!(
            "{GREEN}is created{RESET}   {}",
            counted(target.changes.len(), "resource")
        )
    } else if losses.is_empty() {
        match target
            .changes
            .iter()
            .any(|c| c.replacement != crate::domain::plan::Replacement::Never)
        {
            true => format!("{YELLOW}replaces resources{RESET}"),
            false => "in place".to_owned(),
        }
    } else {
        format!(
            "{RED}{}{RESET} · will wait for an approval (placement {})",
            losses.join("; "),
            clean(&target.placement)
        )
    };
    let mut out = vec![format!("{BOLD}{}{RESET}   {verdict}", target.address)];
    if !target.create {
        let place = |path: &str| target.places.get(path).cloned();
        out.extend(show::changes(&target.changes, &place));
        if target.changes.is_empty() {
            out.push("     options, tags or outputs only".into());
        }
    }
    for problem in &target.problems {
        out.push(format!("   {YELLOW}note{RESET}  {}", clean(problem)));
    }
    if !target.then.is_empty() {
        let then: Vec<String> = target.then.iter().map(ToString::to_string).collect();
        out.push(format!(
            "   {DIM}then  {} {} planned again if its outputs change{RESET}",
            then.join(", "),
            if then.len() == 1 { "is" } else { "are" }
        ));
    }
    for line in target.text.lines().filter(|_| text) {
        let colour = if line.starts_with('+') {
            GREEN
        } else if line.starts_with('-') {
            RED
        } else {
            DIM
        };
        out.push(format!("   {colour}{}{RESET}", clean(line)));
    }
    out
}

/// Writes what becomes of targets that move, and of those that are asked for no more.
pub(crate) fn fates(report: &DiffReport) -> Vec<String> {
    let moved = report.moved.iter().map(|moved| {
        format!(
            "{BOLD}{}{RESET} moves to {BOLD}{}{RESET}: it keeps its stack",
            moved.from, moved.to
        )
    });
    let orphaned = report.orphaned.iter().map(|orphan| {
        let (colour, fate) = match orphan.prune {
            Prune::Never => (YELLOW, "its stack stays"),
            Prune::Ask => (YELLOW, "its stack may be deleted when that is approved"),
            Prune::Auto => (RED, "its stack may be deleted (`prune: auto`)"),
        };
        format!(
            "{colour}orphaned{RESET}  {}: Git would no longer ask for it; {fate}",
            orphan.address
        )
    });
    moved.chain(orphaned).collect()
}

/// Writes how many errors there are; nothing where there are none.
pub(crate) fn faults(report: &DiffReport) -> Option<String> {
    let faults = report.findings.iter().filter(|f| f.is_error()).count();
    let what = if faults == 1 {
        "it touches does"
    } else {
        "they touch does"
    };
    (faults > 0).then(|| {
        format!(
            "{RED}{}{RESET}: what {what} not move",
            counted(faults, "error")
        )
    })
}
