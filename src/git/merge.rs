//! What a branch would come to when it is merged. Nothing is written: not a ref, not an object.

use std::collections::BTreeMap;

use git2::{Commit, MergeOptions, ObjectType, Oid, TreeWalkMode, TreeWalkResult};

use super::Error;
use super::mirror::{BLOB, FILES, Mirror, Tree, git};
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
    /// Tells whether two commits have one in common. Without one, merging would lay one tree upon the other.
    pub fn related(&self, one: &Revision, other: &Revision) -> Result<bool, Error> {
        let found = self
            .repository
            .merge_base(Self::oid(one)?, Self::oid(other)?);
        match found {
            Ok(_) => Ok(true),
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(false),
            Err(error) => Err(git("looking for what two commits have in common")(error)),
        }
    }

    /// Merges a revision into another one in memory, as Git's own merge does by default: renames are followed.
    pub fn merged(&self, base: &Revision, head: &Revision) -> Result<Merged, Error> {
        let commit = |revision: &Revision| {
            self.repository
                .find_commit(Self::oid(revision)?)
                .map_err(git("reading a commit to merge"))
        };
        let (base, head) = (commit(base)?, commit(head)?);
        self.check_sizes(&base, &head)?;
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

    /// Refuses to merge files that are larger than any that is read: what both sides have is never opened.
    fn check_sizes(&self, base: &Commit<'_>, head: &Commit<'_>) -> Result<(), Error> {
        let before = self.large_files(base)?;
        let after = self.large_files(head)?;
        match after.iter().find(|(id, _)| !before.contains_key(*id)) {
            Some((_, name)) => Err(Error::Limit(format!(
                "`{}` is larger than {BLOB} bytes: it is not merged here",
                name.escape_debug()
            ))),
            None => Ok(()),
        }
    }

    fn large_files(&self, commit: &Commit<'_>) -> Result<BTreeMap<Oid, String>, Error> {
        let odb = self
            .repository
            .odb()
            .map_err(git("opening the object database"))?;
        let tree = commit.tree().map_err(git("reading a tree to merge"))?;
        let mut found = BTreeMap::new();
        let mut seen = 0;
        let walked = tree.walk(TreeWalkMode::PreOrder, |_, entry| {
            seen += 1;
            if seen > FILES {
                return TreeWalkResult::Abort;
            }
            if entry.kind() == Some(ObjectType::Blob)
                && odb.read_header(entry.id()).is_ok_and(|(s, _)| s > BLOB)
            {
                let name = String::from_utf8_lossy(entry.name_bytes()).into_owned();
                found.insert(entry.id(), name);
            }
            TreeWalkResult::Ok
        });
        if seen > FILES {
            return Err(Error::Limit(format!(
                "the commit has more than {FILES} entries"
            )));
        }
        walked.map_err(git("reading a tree to merge"))?;
        Ok(found)
    }
}
