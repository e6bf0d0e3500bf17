//! Files of a tree, as bytes with ids.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::model::{Finding, Place};

/// One file: its bytes and the id under which its content is known.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob {
    /// The content.
    pub bytes: Arc<[u8]>,
    /// Git's blob id, or a digest; equal ids mean equal bytes.
    pub id: String,
}

impl Blob {
    /// Makes a blob whose id is the digest of its bytes.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        let id = crate::domain::model::sha256_hex(&bytes);
        Self { bytes, id }
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.id, self.bytes.len())
    }
}

/// Files by path. Paths are relative, with `/`, without `.` and `..`.
pub type Files = BTreeMap<String, Blob>;

/// Returns the part of a tree below a directory, with paths relative to it.
pub fn sub_tree(files: &Files, directory: &str) -> Files {
    if directory.is_empty() {
        return files.clone();
    }
    let prefix = format!("{directory}/");
    files
        .range(prefix.clone()..)
        .take_while(|(path, _)| path.starts_with(&prefix))
        .map(|(path, blob)| (path[prefix.len()..].to_owned(), blob.clone()))
        .collect()
}

/// Returns the directory of a path; empty for the root.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// Returns a file's text, or a finding where it is missing or not UTF-8.
pub fn text_of<'a>(files: &'a Files, path: &str) -> Result<&'a str, Box<Finding>> {
    let Some(blob) = files.get(path) else {
        return Err(Box::new(Finding::error(
            "file.missing",
            Place::file(path),
            "the file does not exist in this commit",
        )));
    };
    std::str::from_utf8(&blob.bytes).map_err(|e| {
        Box::new(Finding::error(
            "file.encoding",
            Place::file(path),
            format!("the file is not UTF-8 from byte {} on", e.valid_up_to()),
        ))
    })
}
