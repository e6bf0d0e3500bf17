//! What a push says of refs that no source follows: a branch is previewed as if it were merged, everything else is a word.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::client::Client;
use super::diff::{fates, faults, headline, target_lines};
use super::finding;
use super::proposal::{self, Merge, Of};
use super::show::clean;
use crate::domain::model::{Revision, counted};
use crate::domain::plan::{DiffReport, gravest_first};
use crate::git::{Mirror, Tree};

/// How long a push is held for previews, all together.
const PATIENCE: Duration = Duration::from_secs(20);
/// More branches at once are somebody mirroring a repository, and nobody reads so many previews.
const BRANCHES: usize = 5;
/// Lines of one preview.
const LINES: usize = 40;
/// Lines of one target, while others wait for theirs.
const EACH: usize = 10;
/// Lines of faults, before what changes.
const FAULTS: usize = 20;
/// A longer line is cut: it would be three in a terminal.
const WIDTH: usize = 200;

/// One updated ref, as Git tells it to a hook.
pub(crate) struct Update<'a> {
    /// The commit that it is at now; zeros where it is gone.
    pub new: &'a str,
    /// Its full name.
    pub name: &'a str,
}

impl<'a> Update<'a> {
    /// Reads one line of a hook's input.
    pub fn read(line: &'a str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        let (_, new, name) = (words.next()?, words.next()?, words.next()?);
        Some(Self { new, name })
    }

    /// Returns the name of a branch; nothing for a tag or another ref.
    pub fn branch(&self) -> Option<&'a str> {
        self.name.strip_prefix("refs/heads/")
    }

    fn is_deleted(&self) -> bool {
        self.new.bytes().all(|b| b == b'0')
    }
}

/// A source that is the repository at hand.
#[derive(Deserialize)]
pub(crate) struct Source {
    /// Its name.
    pub name: String,
    /// The branch that it follows.
    pub branch: String,
    mine: bool,
}

#[derive(Deserialize)]
struct Sources {
    sources: Vec<Source>,
}

/// Asks the daemon which of its sources are this repository.
pub(crate) async fn sources(client: &Client, of: Of<'_>) -> anyhow::Result<Vec<Source>> {
    let named = of.source.map(|name| ("source", name));
    let origin = of.origin.map(|path| ("origin", path));
    let query: Vec<_> = named.into_iter().chain(origin).collect();
    let all: Sources = client.get("sources", &query).await?;
    Ok(all.sources.into_iter().filter(|s| s.mine).collect())
}

/// Says what refs mean that no source follows.
pub(crate) async fn show(
    client: &Client,
    repository: &Path,
    sources: &[Source],
    others: &[&Update<'_>],
) -> anyhow::Result<()> {
    let tags: Vec<&str> = others
        .iter()
        .filter_map(|u| u.name.strip_prefix("refs/tags/"))
        .collect();
    match tags.as_slice() {
        [] => {}
        [tag] => anstream::println!("isoform: {} is a tag: it moves nothing", clean(tag)),
        tags => anstream::println!("isoform: {} tags: they move nothing", tags.len()),
    }
    let branches = others.iter().filter_map(|u| Some((*u, u.branch()?)));
    let (deleted, pushed): (Vec<_>, Vec<_>) = branches.partition(|(u, _)| u.is_deleted());
    for (_, name) in deleted.iter().take(BRANCHES) {
        anstream::println!(
            "isoform: {} is deleted; no source follows it, so nothing changes",
            clean(name)
        );
    }
    if deleted.len() > BRANCHES {
        let more = deleted.len() - BRANCHES;
        anstream::println!("isoform: and {more} more deleted branches that no source follows");
    }
    if pushed.len() > BRANCHES {
        anstream::println!(
            "isoform: {} branches at once are not previewed, {BRANCHES} would be · isoform preview <branch>",
            pushed.len()
        );
        return Ok(());
    }
    if pushed.is_empty() {
        return Ok(());
    }
    let Some(source) = into(repository, sources)? else {
        return Ok(());
    };
    let previews = async {
        for (update, name) in pushed {
            let lines = preview(client, repository, source, update, name).await;
            let lines = lines.unwrap_or_else(|error| {
                let why = clean(&format!("{error:#}"));
                vec![format!(
                    "isoform: {} cannot be previewed: {why}",
                    clean(name)
                )]
            });
            for line in lines {
                anstream::println!("{line}");
            }
        }
    };
    if tokio::time::timeout(PATIENCE, previews).await.is_err() {
        anstream::println!(
            "isoform: the preview takes longer than {} s and is left · isoform preview <branch>",
            PATIENCE.as_secs()
        );
    }
    Ok(())
}

/// Chooses what a branch would be merged into: what the repository's own head is, else the first that is followed.
fn into<'a>(path: &Path, sources: &'a [Source]) -> anyhow::Result<Option<&'a Source>> {
    let repository = git2::Repository::open(path)?;
    let head = repository.find_reference("HEAD").ok();
    let head = head.and_then(|h| h.symbolic_target().ok().flatten().map(str::to_owned));
    let usual = |s: &&Source| head.as_deref() == Some(&format!("refs/heads/{}", s.branch));
    Ok(sources.iter().find(usual).or_else(|| sources.first()))
}

/// What Git alone tells of a branch.
enum Looked {
    /// There is nothing to compare, for this reason.
    Said(Vec<String>),
    /// The files as they would be after the merge.
    Tree(Box<Tree>),
}

async fn preview(
    client: &Client,
    repository: &Path,
    source: &Source,
    update: &Update<'_>,
    name: &str,
) -> anyhow::Result<Vec<String>> {
    let tree = match look(repository, source, update, name)? {
        Looked::Said(lines) => return Ok(lines),
        Looked::Tree(tree) => tree,
    };
    let of = Of {
        source: Some(&source.name),
        origin: None,
    };
    let report = proposal::compare_tree(client, *tree, of).await?;
    let (shown, followed) = (clean(name), clean(&source.branch));
    let title = format!("isoform: merging {shown} into {followed}");
    Ok(brief(&report, &title, &format!("isoform preview {shown}")))
}

fn look(path: &Path, source: &Source, update: &Update<'_>, name: &str) -> anyhow::Result<Looked> {
    let (shown, followed) = (clean(name), clean(&source.branch));
    let said = |line: String| Ok(Looked::Said(vec![line]));
    let repository = git2::Repository::open(path)?;
    let base = repository.find_reference(&format!("refs/heads/{}", source.branch));
    let Some(base) = base.ok().and_then(|b| b.peel_to_commit().ok()) else {
        return said(format!(
            "isoform: {shown} is previewed against {followed}, and that is not here yet"
        ));
    };
    let base: Revision = base.id().to_string().parse().map_err(anyhow::Error::msg)?;
    let head: Revision = update.new.parse().map_err(anyhow::Error::msg)?;
    let mirror = Mirror::of(path)?;
    if mirror.descends(&base, &head)? {
        return said(format!(
            "isoform: {shown} is part of {followed} already: merging it changes nothing"
        ));
    }
    match proposal::merge(&mirror, &base, &head)? {
        Merge::Unrelated => said(format!(
            "isoform: {shown} has no commit in common with {followed}: there is nothing to merge"
        )),
        Merge::Conflict(paths) => Ok(Looked::Said(conflict(&shown, &followed, &paths))),
        Merge::Tree(tree) => Ok(Looked::Tree(tree)),
    }
}

fn conflict(branch: &str, followed: &str, paths: &[String]) -> Vec<String> {
    let mut out = vec![format!(
        "isoform: {branch} cannot be merged into {followed}: it conflicts in"
    )];
    out.extend(paths.iter().take(FAULTS).map(|p| format!("  {}", clean(p))));
    if paths.len() > FAULTS {
        out.push(format!("  and {} more", paths.len() - FAULTS));
    }
    out.push(format!(
        "isoform: merge {followed} into {branch} and push again; then it is previewed"
    ));
    out
}

/// Writes a report so that it fits beneath a push: the gravest first, and what is left out as a count.
fn brief(report: &DiffReport, title: &str, more: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut untold = 0;
    for finding in report.findings.iter().filter(|f| f.is_error()) {
        let text = finding::render(finding);
        let lines: Vec<&str> = text.lines().collect();
        // The first is shown whatever its length: a fault without its place helps nobody.
        if out.is_empty() || out.len() + lines.len() <= FAULTS {
            out.extend(lines.into_iter().take(FAULTS).map(str::to_owned));
        } else {
            untold += 1;
        }
    }
    if untold > 0 {
        out.push(format!("and {}", counted(untold, "more fault")));
    }
    out.push(headline(report, title));
    let targets = gravest_first(report);
    let end: Vec<String> = fates(report).into_iter().chain(faults(report)).collect();
    let kept = end.len().min(FAULTS / 2);
    // Two lines stay free for what is left out.
    let room = LINES.saturating_sub(out.len() + kept + 2);
    let blocks: Vec<Vec<String>> = targets.iter().map(|t| target_lines(t, false)).collect();
    let whole = blocks.iter().map(Vec::len).sum::<usize>() <= room;
    let (mut used, mut shown, mut lines_left) = (0, 0, 0);
    for block in &blocks {
        let most = if whole || blocks.len() == 1 {
            room - used
        } else {
            EACH.min(room - used)
        };
        let take = block.len().min(most);
        if take == 0 {
            break;
        }
        out.extend(block.iter().take(take).map(|line| format!("  {line}")));
        lines_left += block.len() - take;
        used += take;
        shown += 1;
    }
    out.extend(end.iter().take(kept).cloned());
    lines_left += end.len() - kept;
    let mut left = Vec::new();
    if shown < blocks.len() {
        left.push(counted(blocks.len() - shown, "target"));
    }
    if lines_left > 0 {
        left.push(counted(lines_left, "line"));
    }
    if left.is_empty() {
        out.push(format!("isoform: as the comment of a pull request: {more}"));
    } else {
        out.push(format!(
            "isoform: left out here: {} · {more}",
            left.join(", ")
        ));
    }
    out.iter().map(|line| cut(line)).collect()
}

/// Takes colours out, which no push shows, and cuts what is too long.
fn cut(line: &str) -> String {
    let plain = anstream::adapter::strip_str(line).to_string();
    if plain.chars().count() <= WIDTH {
        return plain;
    }
    let start: String = plain.chars().take(WIDTH - 1).collect();
    format!("{start}…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::model::{Finding, Place, Span};
    use crate::domain::plan::{Action, Change, PropertyChange, Replacement, TargetDiff};

    fn target(number: usize, resources: usize) -> TargetDiff {
        let change = |n: usize| Change {
            logical: format!("R{n}"),
            kind: "AWS::SNS::Topic".into(),
            physical: None,
            action: Action::Modify,
            replacement: Replacement::Never,
            policy: None,
            properties: vec![PropertyChange {
                path: "DisplayName".into(),
                before: Some("x".repeat(300)),
                after: Some("two".into()),
                after_unknown: false,
                replaces: Replacement::Never,
            }],
        };
        TargetDiff {
            address: format!("stack/s{number:02}").parse().unwrap(),
            create: false,
            placement: "beta".into(),
            changes: (0..resources).map(change).collect(),
            places: Default::default(),
            text: String::new(),
            then: Vec::new(),
            problems: Vec::new(),
            gates: Vec::new(),
            review: None,
        }
    }

    fn report(targets: Vec<TargetDiff>, faults: usize) -> DiffReport {
        let fault = |n: usize| {
            let place = Place::at("a.yaml", Span::on_line(1, 1, 1), "a: 1");
            Finding::error("x.y", place, format!("fault {n}"))
        };
        DiffReport {
            v: 1,
            targets,
            unchanged: 3,
            moved: Vec::new(),
            orphaned: Vec::new(),
            findings: (0..faults).map(fault).collect(),
        }
    }

    #[test]
    fn a_short_preview_is_whole() {
        let lines = brief(
            &report(vec![target(1, 2)], 0),
            "isoform: x",
            "isoform preview f",
        );

        assert_eq!(lines[0], "isoform: x · 1 target changes, 3 do not");
        assert_eq!(lines.len(), 7, "{lines:#?}");
        assert!(lines.iter().all(|l| l.chars().count() <= WIDTH));
        assert_eq!(
            lines[6],
            "isoform: as the comment of a pull request: isoform preview f"
        );
    }

    #[test]
    fn a_long_preview_is_cut_and_says_how_much_is_left_out() {
        let (many, large) = ((0..60).map(|n| target(n, 8)).collect(), vec![target(1, 90)]);
        for (targets, left) in [(many, "56 targets, 31 lines"), (large, "144 lines")] {
            let all = report(targets, 0);

            let lines = brief(&all, "isoform: x", "isoform preview f");

            assert!(
                lines.len() <= LINES && lines.len() > LINES / 2,
                "{lines:#?}"
            );
            let shown = lines.iter().filter(|l| l.starts_with("  ")).count();
            let told = lines.last().unwrap();
            assert!(told.contains(left), "{shown} shown: {told}");
        }
    }

    #[test]
    fn faults_stand_first_and_leave_room_for_what_changes() {
        let lines = brief(
            &report(vec![target(1, 1)], 30),
            "isoform: x",
            "isoform preview f",
        );

        assert!(lines.len() <= LINES, "{lines:#?}");
        assert!(lines[0].contains("fault 0"), "{lines:#?}");
        assert!(
            lines
                .iter()
                .any(|l| l.starts_with("and ") && l.ends_with("more faults"))
        );
        assert!(lines.iter().any(|l| l.contains("stack/s01")), "{lines:#?}");
        assert!(
            lines.iter().any(|l| l.starts_with("30 errors")),
            "{lines:#?}"
        );
    }
}
