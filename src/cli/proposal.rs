//! What files that are not deployed would change: of a commit, of a merge, of a clone. `diff`, `preview` and the hook of a
//! push all ask here, so that they cannot tell different things of one commit.

use std::path::Path;

use super::client::Client;
use super::usage;
use crate::domain::bundle;
use crate::domain::model::Revision;
use crate::domain::plan::DiffReport;
use crate::domain::template::Files;
use crate::git::{Merged, Mirror, Tree};

/// Whose files they are.
#[derive(Clone, Copy, Default)]
pub(crate) struct Of<'a> {
    /// The source, where it is named.
    pub source: Option<&'a str>,
    /// The URL that the repository was cloned from, or its own path.
    pub origin: Option<&'a str>,
}

/// What merging two commits comes to.
pub(crate) enum Merge {
    /// The files as they would be.
    Tree(Box<Tree>),
    /// Paths that a person has to merge.
    Conflict(Vec<String>),
    /// They have no commit in common. Git refuses such a merge too.
    Unrelated,
}

/// Opens the repository that a folder lies in.
pub(crate) fn repository(folder: &Path) -> anyhow::Result<git2::Repository> {
    git2::Repository::discover(folder)
        .map_err(|_| usage(format!("{} lies in no Git repository", folder.display())))
}

/// Returns the URL that a repository was cloned from.
pub(crate) fn origin(repository: &git2::Repository) -> Option<String> {
    let origin = repository.find_remote("origin").ok()?;
    origin.url().ok().map(str::to_owned)
}

/// Merges two commits in memory.
pub(crate) fn merge(mirror: &Mirror, base: &Revision, head: &Revision) -> anyhow::Result<Merge> {
    if !mirror.related(base, head)? {
        return Ok(Merge::Unrelated);
    }
    Ok(match mirror.merged(base, head)? {
        Merged::Tree(tree) => Merge::Tree(tree),
        Merged::Conflict(paths) => Merge::Conflict(paths),
    })
}

/// Asks the daemon what files would change.
pub(crate) async fn compare(
    client: &Client,
    files: &Files,
    of: Of<'_>,
) -> anyhow::Result<DiffReport> {
    let named = of.source.map(|name| ("source", name));
    let origin = of.origin.map(|url| ("origin", url));
    let query: Vec<_> = named.into_iter().chain(origin).collect();
    client
        .post_bytes("diff", &query, bundle::pack(files)?)
        .await
}

/// As [`compare`], with what was wrong with entries of the tree.
pub(crate) async fn compare_tree(
    client: &Client,
    tree: Tree,
    of: Of<'_>,
) -> anyhow::Result<DiffReport> {
    let mut report = compare(client, &tree.files, of).await?;
    report.findings.extend(tree.findings);
    report.findings.sort();
    report.findings.dedup();
    Ok(report)
}
