//! A shelf: archives of bundles below a prefix of an object store, where Proton's users put them.
//!
//! What lies there is a stranger's. An archive brings bundles and nothing else: whatever lies beside them in it is left out.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::domain::model::{Digest, Revision, Timestamp, canonical_json, sha256_hex};
use crate::domain::spec::TemplateRef;
use crate::domain::template::{Files, find_bundles, sub_tree};

/// How the name of an archive ends.
const ENDS: [&str; 2] = [".tar.gz", ".tgz"];

/// An archive as a listing tells it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Archive {
    /// Its key, below the prefix.
    pub key: String,
    /// Its tag: another content has another one.
    pub etag: String,
    /// Its size in bytes.
    pub size: u64,
}

impl Archive {
    /// Tells whether a key is that of an archive.
    pub fn is_one(key: &str) -> bool {
        ENDS.iter().any(|end| key.ends_with(end))
    }
}

/// What was found in an archive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shelved {
    /// The archive.
    #[serde(flatten)]
    pub archive: Archive,
    /// The version of the object that was read, where the store keeps versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its bundles, by `<template>/v<major>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bundles: BTreeMap<String, Digest>,
    /// Why nothing of it is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// A shelf at one revision: enough to have its bundles again from the bundle store, whatever has become of the archives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shelf {
    /// The format: 1.
    pub isoform_shelf: u32,
    /// When it was read.
    pub at: Timestamp,
    /// Every archive, by key.
    pub archives: Vec<Shelved>,
}

impl Shelf {
    /// Returns what was found in an archive, if it is as it was then.
    pub fn same(&self, archive: &Archive) -> Option<&Shelved> {
        self.archives.iter().find(|s| s.archive == *archive)
    }
}

/// Returns the revision of a shelf: it moves when an archive comes, goes, or gets another content.
pub fn revision(archives: &BTreeSet<Archive>) -> Option<Revision> {
    sha256_hex(&canonical_json(&json!(archives))).parse().ok()
}

/// Finds the bundles of an archive, each with the place at which a repository would have it: `<template>/v<major>`.
///
/// An archive stands for a folder of its key's name without the ending, so that `web/v1.tar.gz`, `web/v1/any.tar.gz` and
/// `web.tar.gz` with a folder `v1/` all hold `web@1`, whatever folders are around it inside. `web-v1.tar.gz` holds it too.
pub fn places(key: &str, files: &Files) -> Result<BTreeMap<String, Files>, String> {
    let stem = ENDS
        .iter()
        .find_map(|end| key.strip_suffix(end))
        .unwrap_or(key);
    let roots = find_bundles(files);
    if roots.is_empty() {
        return Err("it holds no bundle: no directory in it has a `schema/schema.yaml`".into());
    }
    let mut out = BTreeMap::new();
    for found in roots {
        let inside = found.root.as_str();
        let Some(place) = place(stem, inside) else {
            return Err(format!(
                "which template and major version `{}` is cannot be told: name the archive `<template>/v<major>.tar.gz`, or put the bundle into a folder `<template>/v<major>/`",
                if inside.is_empty() { "/" } else { inside }
            ));
        };
        if out.insert(place.clone(), sub_tree(files, inside)).is_some() {
            return Err(format!("it holds `{place}` twice"));
        }
    }
    Ok(out)
}

fn place(stem: &str, inside: &str) -> Option<String> {
    let parts: Vec<&str> = stem
        .split('/')
        .chain(inside.split('/'))
        .filter(|p| !p.is_empty())
        .collect();
    let folder = (1..parts.len())
        .rev()
        .find_map(|at| Some((parts[at - 1], major(parts[at])?)));
    let suffix = || {
        let (name, version) = stem.rsplit('/').next()?.rsplit_once('-')?;
        Some((name, major(version)?))
    };
    let (name, major) = folder.or_else(suffix)?;
    let reference: TemplateRef = format!("{name}@{major}").parse().ok()?;
    Some(format!("{}/v{}", reference.name, reference.major))
}

fn major(part: &str) -> Option<u32> {
    let digits = part.strip_prefix('v')?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::template::Blob;

    fn bundle_in(folders: &[&str]) -> Files {
        let file = |folder: &&str| {
            let slash = if folder.is_empty() { "" } else { "/" };
            let path = format!("{folder}{slash}schema/schema.yaml");
            (path, Blob::new(folder.as_bytes()))
        };
        folders.iter().map(file).collect()
    }

    #[test]
    fn where_a_bundle_lies_says_what_it_is() {
        for (key, folder, expected) in [
            ("web/v1.tar.gz", "", Some("web/v1")),
            ("web/v1.tar.gz", "any/prefix", Some("web/v1")),
            ("team/web/v12/2024-05-01.tar.gz", "", Some("web/v12")),
            ("team/web/v12/upload.tgz", "bundle", Some("web/v12")),
            ("web.tar.gz", "v1", Some("web/v1")),
            ("all.tar.gz", "templates/service/web/v3", Some("web/v3")),
            ("old/v1.tar.gz", "web/v2", Some("web/v2")),
            ("web-v1.tar.gz", "", Some("web/v1")),
            ("web-v1.tar.gz", "dist", Some("web/v1")),
            ("web.tar.gz", "", None),
            ("web.tar.gz", "version1", None),
            ("v1.tar.gz", "", None),
            ("we b/v1.tar.gz", "", None),
            ("web/v99999999999.tar.gz", "", None),
        ] {
            let found = places(key, &bundle_in(&[folder]));

            let found = found.ok().and_then(|f| f.into_keys().next());
            assert_eq!(found.as_deref(), expected, "{key} with {folder}");
        }
    }

    #[test]
    fn an_archive_may_hold_several_and_none_of_them_twice() {
        let several = places("all.tar.gz", &bundle_in(&["web/v1", "web/v2", "net/v1"])).unwrap();
        let names: Vec<&str> = several.keys().map(String::as_str).collect();
        assert_eq!(names, ["net/v1", "web/v1", "web/v2"]);

        let twice = places("all.tar.gz", &bundle_in(&["a/web/v1", "b/web/v1"]));
        assert!(twice.unwrap_err().contains("twice"));
        let nothing = places("web/v1.tar.gz", &Files::new());
        assert!(nothing.unwrap_err().contains("no bundle"));
    }

    #[test]
    fn what_lies_beside_a_bundle_is_left_out() {
        let mut files = bundle_in(&["web/v1"]);
        files.insert("isoform.yaml".into(), Blob::new(*b"isoform: 1"));

        let found = places("all.tar.gz", &files).unwrap();

        let kept: Vec<&str> = found["web/v1"].keys().map(String::as_str).collect();
        assert_eq!((found.len(), kept), (1, vec!["schema/schema.yaml"]));
    }

    #[test]
    fn a_shelf_moves_when_an_archive_does() {
        let archive = |key: &str, etag: &str, size| Archive {
            key: key.into(),
            etag: etag.into(),
            size,
        };
        let of = |all: &[Archive]| revision(&all.iter().cloned().collect()).unwrap();
        let one = of(&[archive("a.tgz", "x", 1), archive("b.tgz", "y", 2)]);

        assert_eq!(
            one,
            of(&[archive("b.tgz", "y", 2), archive("a.tgz", "x", 1)])
        );
        for other in [
            vec![archive("a.tgz", "x", 1)],
            vec![archive("a.tgz", "z", 1), archive("b.tgz", "y", 2)],
            vec![archive("a.tgz", "x", 3), archive("b.tgz", "y", 2)],
            vec![archive("c.tgz", "x", 1), archive("b.tgz", "y", 2)],
            vec![],
        ] {
            assert_ne!(one, of(&other), "{other:?}");
        }
    }
}
