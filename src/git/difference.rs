//! Reading a commit after another one: what is the same is not read again.

use std::sync::Arc;

use git2::{Delta, FileMode};

use super::Error;
use super::mirror::{BLOB, BYTES, Mirror, Tree, git};
use crate::domain::model::Revision;
use crate::domain::template::Blob;

impl Mirror {
    /// Reads the files of a commit, given those of an earlier one: what it costs follows from what differs.
    ///
    /// Only the plain case is taken: files that have new content. Whatever else differs, and whatever was found in the
    /// earlier tree, makes it a full reading, so that each rule about names and kinds stands in one place.
    pub fn read_after(
        &self,
        revision: &Revision,
        earlier: &Revision,
        tree: &Tree,
    ) -> Result<Tree, Error> {
        match self.changed(revision, earlier, tree)? {
            Some(tree) => Ok(tree),
            None => self.read(revision),
        }
    }

    fn changed(
        &self,
        revision: &Revision,
        earlier: &Revision,
        tree: &Tree,
    ) -> Result<Option<Tree>, Error> {
        if !tree.findings.is_empty() {
            return Ok(None);
        }
        let Ok(before) = self.tree_of(earlier) else {
            return Ok(None);
        };
        let now = self.tree_of(revision)?;
        let difference = self
            .repository()
            .diff_tree_to_tree(Some(&before), Some(&now), None)
            .map_err(git("comparing two trees"))?;
        let odb = self
            .repository()
            .odb()
            .map_err(git("opening the object database"))?;
        let mut out = tree.clone();
        let plain = |mode: FileMode| matches!(mode, FileMode::Blob | FileMode::BlobExecutable);
        for delta in difference.deltas() {
            let (old, new) = (delta.old_file(), delta.new_file());
            let path = new.path_bytes().and_then(|p| std::str::from_utf8(p).ok());
            let Some(path) = path.filter(|_| {
                delta.status() == Delta::Modified
                    && plain(old.mode())
                    && plain(new.mode())
                    && old.path_bytes() == new.path_bytes()
            }) else {
                return Ok(None);
            };
            let Some(blob) = out.files.get_mut(path) else {
                return Ok(None);
            };
            let (size, _) = odb.read_header(new.id()).map_err(git("reading a file"))?;
            if size > BLOB {
                return Ok(None);
            }
            let object = odb.read(new.id()).map_err(git("reading a file"))?;
            *blob = Blob {
                bytes: Arc::from(object.data()),
                id: new.id().to_string(),
            };
        }
        let total: usize = out.files.values().map(|b| b.bytes.len()).sum();
        Ok((total <= BYTES).then_some(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use git2::{Oid, Repository};

    fn commit(repository: &Repository, files: &[(&str, &str, i32)]) -> Revision {
        let mut builder = repository.treebuilder(None).unwrap();
        for (name, body, mode) in files {
            let id: Oid = repository.blob(body.as_bytes()).unwrap();
            builder.insert(*name, id, *mode).unwrap();
        }
        let tree = repository.find_tree(builder.write().unwrap()).unwrap();
        let who = git2::Signature::new("a", "a@example.org", &git2::Time::new(1, 0)).unwrap();
        let id = repository
            .commit(None, &who, &who, "m", &tree, &[])
            .unwrap();
        id.to_string().parse().unwrap()
    }

    #[test]
    fn whatever_differs_it_reads_what_a_full_reading_reads() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(folder.path()).unwrap();
        const FILE: i32 = 0o100_644;
        let base: &[_] = &[("a.yaml", "1", FILE), ("b.yaml", "2", FILE)];
        let cases: &[&[(&str, &str, i32)]] = &[
            &[("a.yaml", "1", FILE), ("b.yaml", "3", FILE)],
            &[("a.yaml", "1", FILE)],
            &[
                ("a.yaml", "1", FILE),
                ("b.yaml", "2", FILE),
                ("c.yaml", "3", FILE),
            ],
            &[
                ("a.yaml", "1", FILE),
                ("b.yaml", "2", FILE),
                ("B.yaml", "3", FILE),
            ],
            &[("a.yaml", "1", FILE), ("b.yaml", "/etc/passwd", 0o120_000)],
            &[("a.yaml", "1", FILE), ("c.yaml", "2", FILE)],
            &[("a.yaml", "1", 0o100_755), ("b.yaml", "2", FILE)],
        ];
        let base = commit(&repository, base);
        let cases: Vec<Revision> = cases.iter().map(|c| commit(&repository, c)).collect();
        let mirror = Mirror::of(folder.path()).unwrap();
        for from in cases.iter().chain([&base]) {
            let earlier = mirror.read(from).unwrap();
            for to in &cases {
                let full = mirror.read(to).unwrap();
                let after = mirror.read_after(to, from, &earlier).unwrap();
                assert_eq!((after.files, after.findings), (full.files, full.findings));
            }
        }
        // The first differs in content only: it needs no full reading.
        let earlier = mirror.read(&base).unwrap();
        assert!(
            mirror
                .changed(&cases[0], &base, &earlier)
                .unwrap()
                .is_some()
        );
        assert!(
            mirror
                .changed(&cases[1], &base, &earlier)
                .unwrap()
                .is_none()
        );
    }
}
