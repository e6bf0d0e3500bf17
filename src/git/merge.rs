//! What a branch would come to when it is merged. Nothing is written: not a ref, not an object.

use git2::MergeOptions;

use super::Error;
use super::mirror::{Mirror, Tree, git};
use crate::domain::model::Revision;

/// What merging came to.
#[derive(Debug)]
pub enum Merged {
    /// The files, as they would be.
    Tree(Box<Tree>),
    /// Paths that a person has to merge.
    Conflict(Vec<String>),
}

/// How many paths of a conflict are named.
const NAMED: usize = 100;

impl Mirror {
    /// Merges a revision into another one in memory, as Git's own merge does by default: renames are followed.
    pub fn merged(&self, base: &Revision, head: &Revision) -> Result<Merged, Error> {
        let commit = |revision: &Revision| {
            self.repository
                .find_commit(Self::oid(revision)?)
                .map_err(git("reading a commit to merge"))
        };
        let (base, head) = (commit(base)?, commit(head)?);
        let mut index = self
            .repository
            .merge_commits(&base, &head, Some(&MergeOptions::new()))
            .map_err(git("merging"))?;
        if index.has_conflicts() {
            let conflicts = index.conflicts().map_err(git("reading the conflicts"))?;
            let mut paths: Vec<String> = conflicts
                .filter_map(Result::ok)
                .filter_map(|c| c.our.or(c.their).or(c.ancestor))
                .map(|entry| String::from_utf8_lossy(&entry.path).into_owned())
                .take(NAMED)
                .collect();
            paths.sort();
            paths.dedup();
            return Ok(Merged::Conflict(paths));
        }
        // The trees of the result are kept in memory, and are gone with this handle.
        let objects = self
            .repository
            .odb()
            .map_err(git("opening the object database"))?;
        objects
            .add_new_mempack_backend(i32::MAX)
            .map_err(git("merging in memory"))?;
        let tree = index
            .write_tree_to(&self.repository)
            .map_err(git("writing the merged tree"))?;
        Ok(Merged::Tree(Box::new(self.read_tree(tree)?)))
    }
}
