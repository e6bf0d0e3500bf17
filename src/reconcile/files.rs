//! Trees and bundles as they were read last: a look reads what differs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::bundle;
use crate::domain::model::{Digest, Finding, Revision, SourceName};
use crate::domain::template::{Bundle, Files, load_bundle};
use crate::git::{self, Mirror, Tree};

/// The newest tree of each source. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Trees(Arc<Mutex<BTreeMap<SourceName, Known>>>);

type Known = (Revision, Arc<Tree>);

impl Trees {
    /// Reads a commit of a source; what is as in the one that was read before is not read again.
    pub fn read(
        &self,
        source: &SourceName,
        mirror: &Mirror,
        wanted: &Revision,
    ) -> Result<Arc<Tree>, git::Error> {
        let known = {
            let trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            trees.get(source).cloned()
        };
        let tree = match known {
            Some((revision, tree)) if revision == *wanted => return Ok(tree),
            Some((revision, tree)) => mirror.read_after(wanted, &revision, &tree)?,
            None => mirror.read(wanted)?,
        };
        let tree = Arc::new(tree);
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(source.clone(), (wanted.clone(), tree.clone()));
        Ok(tree)
    }
}

/// Bundles of sources as they were loaded last.
#[derive(Default)]
pub(super) struct Bundles(Mutex<BTreeMap<(SourceName, String), Arc<Loaded>>>);

/// A bundle with its digest, and what is wrong with it.
pub(super) struct Loaded {
    /// Its files by path, with their ids.
    made_of: Vec<(String, String)>,
    /// Absent where something is wrong with it.
    pub bundle: Option<(Arc<Bundle>, Digest)>,
    pub findings: Vec<Finding>,
}

impl Bundles {
    /// Loads a bundle, if its files are not those from which it was loaded before.
    pub fn load(&self, source: &SourceName, files: &Files, root: &str) -> Arc<Loaded> {
        let prefix = if root.is_empty() {
            String::new()
        } else {
            format!("{root}/")
        };
        let own = files
            .range(prefix.clone()..)
            .take_while(|(path, _)| path.starts_with(&prefix));
        let made_of: Vec<_> = own.map(|(p, b)| (p.clone(), b.id.clone())).collect();
        let key = (source.clone(), root.to_owned());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = known.get(&key).filter(|l| l.made_of == made_of) {
            return loaded.clone();
        }
        let (bundle, findings) = load_bundle(files, root);
        let fine = !findings.iter().any(Finding::is_error);
        let bundle = bundle.filter(|_| fine).map(|bundle| {
            let digest = bundle::digest(&bundle.files);
            (Arc::new(bundle), digest)
        });
        let loaded = Arc::new(Loaded {
            made_of,
            bundle,
            findings,
        });
        known.insert(key, loaded.clone());
        loaded
    }
}
