//! `isoform preview`: what merging a branch would do, as the comment of a pull request.
//!
//! For every forge and for none: whoever runs it posts what it writes. The merge is made in memory.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::client::Client;
use super::proposal::{self, Merge, Of};
use super::show;
use super::{FAILED, Global, Output, usage};
use crate::domain::model::Revision;
use crate::domain::plan::{About, comment};
use crate::git::Mirror;

/// Arguments of `preview`.
#[derive(Args)]
pub(crate) struct PreviewArgs {
    /// What is merged.
    #[arg(default_value = "HEAD")]
    head: String,
    /// What it is merged into; absent means the default branch of `origin`.
    #[arg(long)]
    base: Option<String>,
    /// The clone.
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// The source that the clone is of.
    #[arg(long)]
    source: Option<String>,
    /// Write the comment into this file instead of printing it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Most bytes of the comment; GitHub takes 65,536 characters.
    #[arg(long, default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    budget: u32,
    /// A word by which the comment is found again, such as the number of the pull request.
    #[arg(long, default_value = "")]
    marker: String,
}

/// `isoform preview`
pub(crate) async fn preview(global: &Global, args: &PreviewArgs) -> anyhow::Result<u8> {
    let repository = proposal::repository(&args.folder)?;
    let base = match &args.base {
        Some(base) => base.clone(),
        None => default_branch(&repository).ok_or_else(|| {
            usage(
                "`origin` has no default branch here: name one with --base, as in --base origin/main",
            )
        })?,
    };
    let (from, into) = (
        super::offline::commit_of(&repository, &args.head)?,
        super::offline::commit_of(&repository, &base)?,
    );
    let origin = proposal::origin(&repository);
    let mirror = Mirror::of(repository.path())?;
    let of = Of {
        source: args.source.as_deref(),
        origin: origin.as_deref(),
    };
    // The daemon is asked for last: what Git alone can tell needs none.
    let report = match proposal::merge(&mirror, &into, &from)? {
        Merge::Tree(tree) => proposal::compare_tree(&Client::connect(global)?, *tree, of).await?,
        Merge::Conflict(paths) => return conflict(global, args, (&from, &base), &paths),
        Merge::Unrelated => {
            return Err(usage(format!(
                "`{}` and `{}` have no commit in common: there is nothing to merge",
                args.head.escape_debug(),
                base.escape_debug()
            )));
        }
    };
    let code = super::diff::code_of(&report);
    if global.output == Output::Json {
        let text = serde_json::to_string_pretty(&report)?;
        give(args, &format!("{text}\n"))?;
        return Ok(code);
    }
    let text = comment(
        &report,
        &About {
            marker: &args.marker,
            head: from.short(),
            base: &base,
            budget: args.budget as usize,
        },
    );
    give(args, &text)?;
    Ok(code)
}

/// Returns the branch that a clone says is the remote's own.
fn default_branch(repository: &git2::Repository) -> Option<String> {
    let head = repository.find_reference("refs/remotes/origin/HEAD").ok();
    let named = head.and_then(|h| {
        let target = h.symbolic_target().ok()??;
        Some(target.strip_prefix("refs/remotes/")?.to_owned())
    });
    named.or_else(|| {
        let there = |name: &&str| {
            let full = format!("refs/remotes/{name}");
            repository.find_reference(&full).is_ok()
        };
        let usual = ["origin/main", "origin/master"].into_iter().find(there);
        usual.map(str::to_owned)
    })
}

fn conflict(
    global: &Global,
    args: &PreviewArgs,
    (head, base): (&Revision, &str),
    paths: &[String],
) -> anyhow::Result<u8> {
    if global.output == Output::Json {
        let said = json!({ "v": 1, "conflict": paths });
        give(args, &format!("{}\n", serde_json::to_string_pretty(&said)?))?;
    } else {
        let about = About {
            marker: &args.marker,
            head: head.short(),
            base,
            budget: args.budget as usize,
        };
        give(args, &crate::domain::plan::conflict(paths, &about))?;
    }
    Ok(FAILED)
}

fn give(args: &PreviewArgs, text: &str) -> anyhow::Result<()> {
    match &args.out {
        Some(path) => {
            std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
        }
        None => {
            for line in text.lines() {
                anstream::println!("{}", show::clean(line));
            }
            Ok(())
        }
    }
}
