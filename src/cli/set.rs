//! `isoform set`: one value of a target, as a commit. For pipelines that bring a new image into a spec.
//!
//! The commit is made on the newest tip of the remote and pushed without force. Where somebody else was faster, the edit
//! is made anew; where they changed the very value, it stops.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use super::branch;
use super::client::Client;
use super::online::{self, errors};
use super::proposal::Of;
use super::show::{self, BOLD, DIM, RED, RESET, clean};
use super::{DONE, FAILED, Faulty, Global, Output, SUPERSEDED, TIMEOUT, usage};
use crate::config::Config;
use crate::domain::estate::{AssignError, Assignment, Placement, assign, validate};
use crate::domain::model::{Address, Finding, PlacementName, Revision, counted, parse_duration};
use crate::domain::template::{Blob, Files};
use crate::git::{Pushed, Upstream};
use crate::reconcile::{EstateReport, TargetReport};

/// How often the edit is made anew because the branch has moved.
const ATTEMPTS: usize = 5;
/// A longer value is cut where it is shown.
const SHOWN: usize = 120;

/// Arguments of `set`.
#[derive(Args)]
pub(crate) struct SetArgs {
    /// The target's address.
    target: String,
    /// What to set, as in `image=repo/app:1.4`; names in names with dots.
    #[arg(required = true, value_name = "KEY=VALUE")]
    values: Vec<String>,
    /// The branch to commit to, made where it does not exist; absent means one named after the target.
    #[arg(long)]
    branch: Option<String>,
    /// Commit to the followed branch itself.
    #[arg(long, conflicts_with = "branch")]
    direct: bool,
    /// The followed branch; absent means the one that `HEAD` of `origin` names.
    #[arg(long)]
    base: Option<String>,
    /// The commit's message.
    #[arg(long, short)]
    message: Option<String>,
    /// Wait for what becomes of the commit at this target, and end as `wait` does.
    #[arg(long, requires = "direct")]
    wait: bool,
    /// How long to wait.
    #[arg(long, default_value = "10m")]
    timeout: String,
    /// The clone. Its work tree, index and branches are not touched.
    #[arg(long, default_value = ".")]
    folder: PathBuf,
}

/// What is to be done, checked.
struct Wish {
    target: Address,
    values: Vec<(String, String)>,
    base: String,
    branch: String,
    message: Option<String>,
    placements: Option<BTreeMap<PlacementName, Placement>>,
}

/// What came of it.
struct Landed {
    assignment: Assignment,
    /// The commit, and what the remote said; absent where the values were there already.
    pushed: Option<(Revision, String)>,
    /// What was built upon.
    on: Revision,
    /// Faults that were there before.
    faults: usize,
}

/// `isoform set`
pub(crate) async fn set(global: &Global, args: &SetArgs) -> anyhow::Result<u8> {
    parse_duration(&args.timeout).map_err(usage)?;
    let upstream = Upstream::of(&args.folder)
        .map_err(|e| usage(format!("{} cannot be used: {e}", args.folder.display())))?;
    let wish = wish(global, args, &upstream)?;
    let client = match args.wait {
        true => Some(followed(global, &wish.base, &upstream.url()).await?),
        false => None,
    };
    let landed = land(&upstream, &wish, &mut |_| Ok(()))?;
    let mut said = said(&wish, &landed);
    if global.output == Output::Text {
        tell(&wish, &landed, args.wait);
    }
    let mut code = DONE;
    if let (Some(client), Some((commit, _))) = (client, &landed.pushed) {
        let (ended, outcome) =
            outcome(global, &client, commit, &wish.target, &args.timeout).await?;
        code = ended;
        said["outcome"] = outcome;
    }
    if global.output == Output::Json {
        show::json(&said)?;
    }
    Ok(code)
}

fn wish(global: &Global, args: &SetArgs, upstream: &Upstream) -> anyhow::Result<Wish> {
    let target: Address = args.target.parse().map_err(|e| usage(format!("{e}")))?;
    let mut values: Vec<(String, String)> = Vec::new();
    for value in &args.values {
        let Some((key, value)) = value.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            // Not shown: what has no name may be a value.
            return Err(usage(
                "write what to set as key=value, as in image=repo/app:1.4",
            ));
        };
        if values.iter().any(|(other, _)| other == key) {
            return Err(usage(format!("`{}` is set twice", key.escape_debug())));
        }
        values.push((key.to_owned(), value.to_owned()));
    }
    let base = args
        .base
        .as_deref()
        .map(|b| b.strip_prefix("origin/").unwrap_or(b).to_owned());
    let base = base.or_else(|| upstream.default_branch()).ok_or_else(|| {
        usage("this clone does not know which branch `origin` has: name the followed one with --base, as in --base main")
    })?;
    let branch = match (&args.branch, args.direct) {
        (Some(branch), _) => branch.clone(),
        (None, true) => base.clone(),
        (None, false) => format!(
            "isoform/set-{}",
            target.to_string().replace(['/', '@'], "-")
        ),
    };
    for name in [&base, &branch] {
        let full = format!("refs/heads/{name}");
        if name.starts_with('-') || !git2::Reference::is_valid_name(&full) {
            return Err(usage(format!(
                "`{}` is not the name of a branch",
                name.escape_debug()
            )));
        }
    }
    if branch == base && !args.direct {
        return Err(usage(format!(
            "`{base}` is the followed branch: --direct commits to it"
        )));
    }
    let placements = match &global.config {
        Some(path) => Some(Config::load(path)?.placements),
        None => None,
    };
    Ok(Wish {
        target,
        values,
        base,
        branch,
        message: args.message.clone(),
        placements,
    })
}

/// Checks that there is a daemon that follows the branch, before anything is pushed that nobody would deploy.
async fn followed(global: &Global, base: &str, url: &str) -> anyhow::Result<Client> {
    let client = Client::connect(global)?;
    let of = Of {
        source: None,
        origin: Some(url),
    };
    let sources = branch::sources(&client, of).await?;
    if !sources.is_empty() && !sources.iter().any(|s| s.branch == base) {
        let followed: Vec<&str> = sources.iter().map(|s| s.branch.as_str()).collect();
        return Err(usage(format!(
            "the daemon follows {} of this repository and not `{base}`: nothing would come of it; name the branch with --base",
            followed.join(", ")
        )));
    }
    Ok(client)
}

/// Makes the commit and pushes it, anew on the newest tip where somebody else was faster.
///
/// `before_push` is told the number of the attempt: a test moves the branch there.
fn land(
    upstream: &Upstream,
    wish: &Wish,
    before_push: &mut dyn FnMut(usize) -> anyhow::Result<()>,
) -> anyhow::Result<Landed> {
    let mut first: Option<Vec<Option<String>>> = None;
    for attempt in 0..ATTEMPTS {
        let base = upstream.tip(&wish.base)?.ok_or_else(|| {
            usage(format!(
                "`origin` has no branch `{}`: name the followed one with --base",
                wish.base
            ))
        })?;
        let mirror = upstream.mirror()?;
        let was = match wish.branch == wish.base {
            true => Some(base.clone()),
            false => upstream.tip(&wish.branch)?,
        };
        let on = match &was {
            // A branch that was merged goes on from what it was merged into.
            Some(was) if !mirror.descends(&base, was)? => was.clone(),
            _ => base,
        };
        let tree = mirror.read(&on)?;
        let assignment = assignment(&tree.files, wish)?;
        let before: Vec<Option<String>> =
            assignment.values.iter().map(|v| v.before.clone()).collect();
        let read_first = first.get_or_insert_with(|| before.clone());
        for ((value, before), first) in assignment.values.iter().zip(&before).zip(read_first) {
            if before != first && !value.unchanged {
                bail!(
                    "`{}` was changed by somebody else meanwhile, {}: nothing is pushed; look at it and set it again",
                    value.key,
                    change(first.as_deref(), before.as_deref(), value.secret)
                );
            }
        }
        if assignment.is_empty() {
            return Ok(Landed {
                assignment,
                pushed: None,
                on,
                faults: 0,
            });
        }
        let faults = check(&tree.files, &assignment, wish)?;
        let message = wish
            .message
            .clone()
            .unwrap_or_else(|| message(wish, &assignment));
        let commit = upstream.commit(&on, &assignment.file, &assignment.text, &message)?;
        before_push(attempt)?;
        if let Pushed::Done(heard) = upstream.push(&commit, &wish.branch, was.as_ref())? {
            return Ok(Landed {
                assignment,
                pushed: Some((commit, heard)),
                on,
                faults,
            });
        }
    }
    bail!(
        "`{}` moved {ATTEMPTS} times while this was being committed: nothing is pushed; try again",
        wish.branch
    )
}

fn assignment(files: &Files, wish: &Wish) -> anyhow::Result<Assignment> {
    let made = assign(
        files,
        wish.placements.as_ref(),
        &wish.base,
        &wish.target,
        &wish.values,
    );
    made.map_err(|error| match error {
        AssignError::Asked(message) => usage(message),
        AssignError::Faults(message, findings) => Faulty::error(message, findings),
    })
}

/// Validates the files as they would be; returns how many faults were there before.
///
/// Only new faults stop it: what is wrong with another service is not mended by holding this one back.
fn check(files: &Files, assignment: &Assignment, wish: &Wish) -> anyhow::Result<usize> {
    let found = |files: &Files| -> Vec<Finding> {
        let checked = validate(files, wish.placements.as_ref(), &wish.base);
        checked
            .findings
            .into_iter()
            .filter(Finding::is_error)
            .collect()
    };
    let mut changed = files.clone();
    changed.insert(
        assignment.file.clone(),
        Blob::new(assignment.text.as_bytes()),
    );
    let after = found(&changed);
    if after.is_empty() {
        return Ok(0);
    }
    let mut before = found(files);
    let old = errors(&before);
    // Lines may have moved: what a fault says and of which file tells whether it is the same.
    let is_new = |fault: &Finding| {
        let same = before.iter().position(|b| {
            (&b.code, &b.message, &b.place.file) == (&fault.code, &fault.message, &fault.place.file)
        });
        same.map(|at| before.swap_remove(at)).is_none()
    };
    let new: Vec<Finding> = after.into_iter().filter(is_new).collect();
    if new.is_empty() {
        return Ok(old);
    }
    let message = format!(
        "nothing is committed: it would bring {}",
        counted(new.len(), "fault")
    );
    Err(Faulty::error(message, new))
}

fn message(wish: &Wish, assignment: &Assignment) -> String {
    let changed: Vec<_> = assignment.values.iter().filter(|v| !v.unchanged).collect();
    let line = |v: &&crate::domain::estate::Assigned| match v.secret {
        true => format!("{} is changed", v.key),
        false => format!(
            "{} {}",
            v.key,
            change(v.before.as_deref(), Some(&v.after), false)
        ),
    };
    match changed.as_slice() {
        [one] if !one.secret && one.after.len() <= 40 && !one.after.contains('\n') => {
            format!(
                "{}: {} is {}\n\n{}\n",
                wish.target,
                one.key,
                one.after,
                line(one)
            )
        }
        many => {
            let keys: Vec<&str> = many.iter().map(|v| v.key.as_str()).collect();
            let lines: Vec<String> = many.iter().map(line).collect();
            format!(
                "{}: set {}\n\n{}\n",
                wish.target,
                keys.join(", "),
                lines.join("\n")
            )
        }
    }
}

fn change(before: Option<&str>, after: Option<&str>, secret: bool) -> String {
    let shown = |value: Option<&str>, none: &str| match value {
        None => none.to_owned(),
        Some(_) if secret => "‹secret›".to_owned(),
        Some(value) if value.chars().count() > SHOWN => {
            format!("{}…", clean(&value.chars().take(SHOWN).collect::<String>()))
        }
        Some(value) => clean(value),
    };
    format!(
        "{} → {}",
        shown(before, "(not set)"),
        shown(after, "(removed)")
    )
}

fn said(wish: &Wish, landed: &Landed) -> Value {
    let values: Vec<Value> = landed
        .assignment
        .values
        .iter()
        .map(|v| {
            let before = v.before.as_ref().filter(|_| !v.secret);
            let after = Some(&v.after).filter(|_| !v.secret);
            json!({ "key": v.key, "line": v.line, "before": before, "after": after, "unchanged": v.unchanged, "secret": v.secret })
        })
        .collect();
    json!({
        "v": 1,
        "targets": landed.assignment.targets,
        "file": landed.assignment.file,
        "branch": wish.branch,
        "on": landed.on,
        "commit": landed.pushed.as_ref().map(|(commit, _)| commit),
        "values": values,
    })
}

fn tell(wish: &Wish, landed: &Landed, waits: bool) {
    let assignment = &landed.assignment;
    for value in &assignment.values {
        let shown = match value.unchanged {
            true if value.secret => "is that already".to_owned(),
            true => format!("is {} already", clean(&value.after)),
            false => change(value.before.as_deref(), Some(&value.after), value.secret),
        };
        anstream::println!(
            "{BOLD}{}{RESET}  {shown}   {DIM}{}:{}{RESET}",
            clean(&value.key),
            clean(&assignment.file),
            value.line
        );
    }
    if let [_, _, ..] = assignment.targets.as_slice() {
        let all: Vec<String> = assignment.targets.iter().map(ToString::to_string).collect();
        anstream::println!("these take it: {}", all.join(", "));
    }
    let Some((commit, heard)) = &landed.pushed else {
        anstream::println!(
            "nothing to commit at {} of {}",
            landed.on.short(),
            clean(&wish.branch)
        );
        return;
    };
    for line in heard.lines().filter(|l| !l.trim().is_empty()) {
        anstream::println!("remote: {}", clean(line));
    }
    if landed.faults > 0 {
        anstream::println!(
            "{RED}{}{RESET} stood in the files before and still {}: isoform validate",
            counted(landed.faults, "fault"),
            if landed.faults == 1 { "does" } else { "do" }
        );
    }
    let (short, branch) = (commit.short(), clean(&wish.branch));
    if waits {
        anstream::println!("{short} is pushed to {branch}");
    } else if wish.branch == wish.base {
        anstream::println!("{short} is pushed to {branch} · isoform wait --commit {short}");
    } else {
        anstream::println!(
            "{short} is pushed to {branch}, for a merge into {}",
            clean(&wish.base)
        );
    }
}

/// Waits for what becomes of a commit at its target.
async fn outcome(
    global: &Global,
    client: &Client,
    commit: &Revision,
    target: &Address,
    timeout: &str,
) -> anyhow::Result<(u8, Value)> {
    // The answer comes after the look, so the estate knows of the commit, of a newer one, or why it is not taken.
    let _: Value = client.post("hint", &json!({ "trigger": "push" })).await?;
    let estate: EstateReport = client.get("estate", &[]).await?;
    if !estate.commits.values().any(|c| c.revision == *commit) {
        let refused = estate.refused.iter().next();
        let (code, why) = match (refused, &estate.unlooked) {
            (Some((source, why)), _) => (FAILED, format!("not accepted for {source}: {why}")),
            (None, Some(why)) => (FAILED, format!("the sources could not be read: {why}")),
            (None, None) => (SUPERSEDED, "a newer push took over".to_owned()),
        };
        if global.output == Output::Text {
            anstream::println!("{}", clean(&why));
        }
        return Ok((code, json!({ "code": code, "why": why, "targets": [] })));
    }
    let base = target.base();
    let chosen = |t: &TargetReport| match target.region() {
        None => t.address.base() == base,
        Some(_) => t.address == *target || t.address == base,
    };
    let Some(rested) = online::rest(global, client, &chosen, timeout).await? else {
        return Ok((TIMEOUT, json!({ "code": TIMEOUT, "targets": [] })));
    };
    // What rests now may rest at a newer commit, which has taken this one's place.
    let replaced = !rested
        .estate
        .commits
        .values()
        .any(|c| c.revision == *commit);
    let code = match replaced {
        true => SUPERSEDED,
        false => rested.code,
    };
    if global.output == Output::Text {
        if replaced {
            anstream::println!("a newer push took over");
        }
        for target in &rested.targets {
            anstream::println!("{}", show::progress_line(target));
        }
    }
    Ok((code, json!({ "code": code, "targets": rested.targets })))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: &str = "isoform: 1\nstacks:\n  topic: { template: t.yaml, placement: beta, parameters: { Name: one } } # here\n  other: { template: t.yaml, placement: beta, parameters: { Name: one } }\n";
    const TEMPLATE: &str = "Parameters: {Name: {Type: String, AllowedPattern: '[a-z]+'}}\nResources: {T: {Type: 'AWS::SNS::Topic', Properties: {DisplayName: !Ref Name}}}\n";

    struct World {
        _guard: tempfile::TempDir,
        clone: PathBuf,
    }

    impl World {
        /// A bare repository with one commit, and an empty clone of it.
        fn new() -> Self {
            let guard = tempfile::tempdir().unwrap();
            let (bare, clone) = (guard.path().join("origin.git"), guard.path().join("work"));
            let mut options = git2::RepositoryInitOptions::new();
            options.bare(true).initial_head("main");
            let origin = git2::Repository::init_opts(&bare, &options).unwrap();
            let ana = git2::Signature::now("ana", "ana@example.org").unwrap();
            let mut tree = origin.treebuilder(None).unwrap();
            for (name, text) in [("isoform.yaml", SYNC), ("t.yaml", TEMPLATE)] {
                tree.insert(name, origin.blob(text.as_bytes()).unwrap(), 0o100_644)
                    .unwrap();
            }
            let tree = origin.find_tree(tree.write().unwrap()).unwrap();
            let head = Some("refs/heads/main");
            origin
                .commit(head, &ana, &ana, "first", &tree, &[])
                .unwrap();
            let work = git2::Repository::init(&clone).unwrap();
            work.remote("origin", "../origin.git").unwrap();
            let mut config = work.config().unwrap();
            config.set_str("user.name", "bo").unwrap();
            config.set_str("user.email", "bo@example.org").unwrap();
            Self {
                _guard: guard,
                clone,
            }
        }

        fn upstream(&self) -> Upstream {
            Upstream::of(&self.clone).unwrap()
        }

        fn file(&self, branch: &str) -> String {
            let upstream = self.upstream();
            let tip = upstream.tip(branch).unwrap().unwrap();
            let tree = upstream.mirror().unwrap().read(&tip).unwrap();
            String::from_utf8(tree.files["isoform.yaml"].bytes.to_vec()).unwrap()
        }
    }

    fn wish(target: &str, value: &str, branch: &str) -> Wish {
        Wish {
            target: target.parse().unwrap(),
            values: vec![("Name".into(), value.into())],
            base: "main".into(),
            branch: branch.into(),
            message: None,
            placements: None,
        }
    }

    fn quiet(_: usize) -> anyhow::Result<()> {
        Ok(())
    }

    #[test]
    fn a_commit_is_made_on_the_newest_tip_and_a_rival_keeps_its_own() {
        let world = World::new();
        let upstream = world.upstream();
        let mut rival = |attempt: usize| {
            if attempt == 0 {
                land(
                    &world.upstream(),
                    &wish("stack/other", "rival", "main"),
                    &mut quiet,
                )?;
            }
            Ok(())
        };

        let landed = land(&upstream, &wish("stack/topic", "two", "main"), &mut rival).unwrap();

        let expected = SYNC
            .replacen("{ Name: one } } # here", "{ Name: two } } # here", 1)
            .replacen("{ Name: one } }\n", "{ Name: rival } }\n", 1);
        assert_eq!(world.file("main"), expected);
        let (commit, _) = landed.pushed.unwrap();
        let commit = upstream.mirror().unwrap().commit(&commit).unwrap();
        assert_eq!(
            (commit.author.as_str(), commit.summary.as_str()),
            ("bo", "stack/topic: Name is two")
        );
        let again = land(&upstream, &wish("stack/topic", "two", "main"), &mut quiet).unwrap();
        assert!(again.pushed.is_none());
    }

    #[test]
    fn a_value_that_somebody_else_changed_meanwhile_is_left_to_them() {
        let world = World::new();
        let upstream = world.upstream();
        let mut rival = |_: usize| {
            land(
                &world.upstream(),
                &wish("stack/topic", "theirs", "main"),
                &mut quiet,
            )
            .map(drop)
        };

        let error = land(&upstream, &wish("stack/topic", "mine", "main"), &mut rival);

        let error = error.err().unwrap().to_string();
        assert!(error.contains("one → theirs"), "{error}");
        assert!(world.file("main").contains("{ Name: theirs } } # here"));
        // Who wanted the same has it.
        let mut same = |_: usize| {
            land(
                &world.upstream(),
                &wish("stack/topic", "same", "main"),
                &mut quiet,
            )
            .map(drop)
        };
        let landed = land(&upstream, &wish("stack/topic", "same", "main"), &mut same).unwrap();
        assert!(landed.pushed.is_none());
    }

    #[test]
    fn a_branch_that_never_rests_is_given_up() {
        let world = World::new();
        let upstream = world.upstream();
        let mut tries = 0;
        let mut rival = |attempt: usize| {
            tries += 1;
            let name = ["a", "b"][attempt % 2];
            land(
                &world.upstream(),
                &wish("stack/other", name, "main"),
                &mut quiet,
            )
            .map(drop)
        };

        let error = land(&upstream, &wish("stack/topic", "two", "main"), &mut rival);

        assert!(error.err().unwrap().to_string().contains("moved 5 times"));
        assert_eq!(tries, ATTEMPTS);
    }

    #[test]
    fn a_branch_is_made_advanced_and_made_again_after_its_merge() {
        let world = World::new();
        let upstream = world.upstream();
        let on = |landed: &Landed| landed.on.clone();
        let first = land(&upstream, &wish("stack/topic", "two", "f"), &mut quiet).unwrap();
        let (made, _) = first.pushed.clone().unwrap();
        let second = land(&upstream, &wish("stack/topic", "three", "f"), &mut quiet).unwrap();
        assert_eq!(
            (on(&first), on(&second)),
            (upstream.tip("main").unwrap().unwrap(), made)
        );
        assert_eq!(world.file("main"), SYNC);

        // Merged, and the base goes on: the next one builds on the base.
        let (newest, _) = second.pushed.unwrap();
        let base = upstream.tip("main").unwrap();
        assert!(matches!(
            upstream.push(&newest, "main", base.as_ref()),
            Ok(Pushed::Done(_))
        ));
        let direct = land(&upstream, &wish("stack/other", "x", "main"), &mut quiet).unwrap();
        let third = land(&upstream, &wish("stack/topic", "four", "f"), &mut quiet).unwrap();
        assert_eq!(on(&third), direct.pushed.unwrap().0);
        // A stale expectation moves nothing.
        assert_eq!(
            upstream.push(&newest, "f", base.as_ref()).unwrap(),
            Pushed::Moved
        );
    }

    #[test]
    fn a_value_that_brings_a_fault_is_not_committed() {
        let world = World::new();
        let upstream = world.upstream();
        let before = upstream.tip("main").unwrap();

        let error = land(&upstream, &wish("stack/topic", "7", "main"), &mut quiet);

        let error = error.err().unwrap().to_string();
        assert!(error.contains("nothing is committed"), "{error}");
        assert_eq!(upstream.tip("main").unwrap(), before);
    }

    #[test]
    fn a_hook_that_may_refuse_is_not_gone_past() {
        let world = World::new();
        let hook = world.clone.join("../origin.git/hooks/pre-receive");
        std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
        std::fs::write(&hook, "#!/bin/sh\nexit 1\n").unwrap();
        let runs = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&hook, runs).unwrap();

        let error = land(
            &world.upstream(),
            &wish("stack/topic", "two", "main"),
            &mut quiet,
        );

        let error = error.err().unwrap().to_string();
        assert!(error.contains("a hook `pre-receive`"), "{error}");
        assert_eq!(world.file("main"), SYNC);
    }
}
