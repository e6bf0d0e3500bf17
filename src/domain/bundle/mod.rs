//! Bundles as archives: deterministic to write, suspicious to read.
//!
//! A bundle's identity is the digest of its canonical file list, so it does not depend on the compressor or on the
//! order in which files were met. `docs/formats/bundle-archive.md` describes both. Sealing is in
//! [`crate::domain::seal`].

use std::collections::BTreeMap;
use std::io::{Read, Write};

use flate2::{Compression, GzBuilder, read::GzDecoder};
use serde_json::json;

use super::model::{Digest, canonical_json, sha256_hex};
use super::template::{Blob, Files};

/// What an archive may cost: checked while it is read.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most entries.
    pub entries: usize,
    /// Most bytes of all files together.
    pub bytes: u64,
    /// Longest path in bytes.
    pub path: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 2_000,
            bytes: 64 << 20,
            path: 512,
        }
    }
}

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be written or read as gzip and tar.
    #[error("the archive cannot be read")]
    Read(#[source] std::io::Error),
    /// It is too large for a limit.
    #[error("the archive has more than {most} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        most: u64,
    },
    /// A member is not a plain file with a plain path.
    #[error("the member `{path}` is refused: {why}")]
    Member {
        /// The member, escaped.
        path: String,
        /// Why.
        why: &'static str,
    },
}

/// Returns the identity of a set of files: `b1:` and SHA-256 over the canonical list of paths and digests.
pub fn digest(files: &Files) -> Digest {
    let list: BTreeMap<&String, String> = files
        .iter()
        .map(|(path, blob)| (path, sha256_hex(&blob.bytes)))
        .collect();
    Digest::of("b1", &canonical_json(&json!(list)))
}

/// Writes files as `tar.gz`: sorted by path, no times, owner 0, mode 0644.
pub fn pack(files: &Files) -> Result<Vec<u8>, Error> {
    let gz = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::new(6));
    let mut tar = tar::Builder::new(gz);
    tar.mode(tar::HeaderMode::Deterministic);
    for (path, blob) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(blob.bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_entry_type(tar::EntryType::Regular);
        tar.append_data(&mut header, path, &blob.bytes[..])
            .map_err(Error::Read)?;
    }
    tar.into_inner()
        .and_then(|gz| gz.finish())
        .and_then(|mut out| out.flush().map(|()| out))
        .map_err(Error::Read)
}

/// Reads a `tar.gz` under limits.
///
/// Everything but plain files and directories is refused: links, devices, sparse files, absolute paths, `..`,
/// doubled members, paths equal but for letter case, names that are not UTF-8, and what follows the archive.
pub fn unpack(archive: &[u8], limits: &Limits) -> Result<Files, Error> {
    // The decoder may give this much before the reader stops it: files, and a header and padding for each entry.
    let most = limits.bytes + (limits.entries as u64 + 8) * 2048;
    let mut tar = tar::Archive::new(Capped {
        inner: GzDecoder::new(archive),
        left: most,
    });
    let mut files = Files::new();
    let mut folded: BTreeMap<String, String> = BTreeMap::new();
    let (mut count, mut total) = (0usize, 0u64);
    for entry in tar.entries().map_err(Error::Read)? {
        let mut entry = entry.map_err(Error::Read)?;
        count += 1;
        if count > limits.entries {
            return Err(Error::Limit {
                what: "entries",
                most: limits.entries as u64,
            });
        }
        let raw = entry.path_bytes().into_owned();
        let shown = String::from_utf8_lossy(&raw)
            .chars()
            .take(80)
            .collect::<String>()
            .escape_debug()
            .to_string();
        let refuse = |why| Error::Member {
            path: shown.clone(),
            why,
        };
        let kind = entry.header().entry_type();
        let path = String::from_utf8(raw).map_err(|_| refuse("its name is not UTF-8"))?;
        let path = path.strip_prefix("./").unwrap_or(&path).to_owned();
        if kind.is_dir() {
            if !path.is_empty() {
                check_path(path.trim_end_matches('/'), limits).map_err(refuse)?;
            }
            continue;
        }
        if !kind.is_file() {
            return Err(refuse(
                "only plain files are allowed, no links, devices or sparse files",
            ));
        }
        check_path(&path, limits).map_err(refuse)?;
        if entry.header().mode().is_ok_and(|mode| mode & 0o7000 != 0) {
            return Err(refuse("setuid, setgid and sticky bits are not allowed"));
        }
        total = total.saturating_add(entry.size());
        if total > limits.bytes {
            return Err(Error::Limit {
                what: "bytes",
                most: limits.bytes,
            });
        }
        if folded.insert(path.to_lowercase(), path.clone()).is_some() {
            return Err(refuse(
                "the name stands twice, or differs from another in letter case only",
            ));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(Error::Read)?;
        files.insert(path, Blob::new(bytes));
    }
    Ok(files)
}

/// Tells what is wrong with a path of a tree or archive.
pub fn check_path(path: &str, limits: &Limits) -> Result<(), &'static str> {
    if path.is_empty() || path.len() > limits.path {
        return Err("its name is empty or too long");
    }
    if path.starts_with('/') || path.contains('\\') || path.chars().any(char::is_control) {
        return Err("its name is absolute or holds a backslash or a control character");
    }
    for part in path.split('/') {
        if part.is_empty() || part == "." || part == ".." {
            return Err("its name leads out of the archive");
        }
        if part.eq_ignore_ascii_case(".git") || part.to_ascii_lowercase().starts_with("git~") {
            return Err("its name is one of Git's own");
        }
    }
    Ok(())
}

struct Capped<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let most = out
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 && !out.is_empty() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::FileTooLarge,
                "the archive unpacks to more than it may",
            ));
        }
        let n = self.inner.read(&mut out[..most])?;
        self.left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(all: &[(&str, &str)]) -> Files {
        all.iter()
            .map(|(p, t)| ((*p).to_owned(), Blob::new(t.as_bytes())))
            .collect()
    }

    fn archive(add: impl FnOnce(&mut tar::Builder<GzipWriter>)) -> Vec<u8> {
        let mut tar = tar::Builder::new(GzBuilder::new().write(Vec::new(), Compression::fast()));
        add(&mut tar);
        tar.into_inner().unwrap().finish().unwrap()
    }

    type GzipWriter = flate2::write::GzEncoder<Vec<u8>>;

    fn member(tar: &mut tar::Builder<GzipWriter>, name: &str, kind: tar::EntryType, body: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(body.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, body).unwrap();
    }

    #[test]
    fn archives_are_deterministic_and_read_back() {
        let tree = files(&[
            ("schema/schema.yaml", "a"),
            ("b/é.txt", "ü"),
            (".template-registration.yaml", ""),
        ]);
        let packed = pack(&tree).unwrap();
        assert_eq!(packed, pack(&tree).unwrap());
        assert_eq!(unpack(&packed, &Limits::default()).unwrap(), tree);
    }

    #[test]
    fn the_digest_is_over_content_and_names_only() {
        assert_eq!(
            digest(&files(&[("a", "1"), ("b", "2")])),
            digest(&files(&[("b", "2"), ("a", "1")]))
        );
        assert_ne!(digest(&files(&[("a", "1")])), digest(&files(&[("a", "2")])));
        assert_ne!(digest(&files(&[("a", "1")])), digest(&files(&[("b", "1")])));
    }

    #[test]
    fn sec_09_hostile_archives_are_refused() {
        use tar::EntryType;
        let regular =
            |name: &'static str| archive(move |t| member(t, name, EntryType::Regular, b"x"));
        for (bad, why) in [
            (regular("../x"), "leads out"),
            (regular("/etc/passwd"), "absolute"),
            (regular("a/../../x"), "leads out"),
            (regular("a\\b"), "backslash"),
            (regular(".git/config"), "Git's own"),
            (
                archive(|t| member(t, "l", EntryType::Symlink, b"")),
                "plain files",
            ),
            (
                archive(|t| member(t, "l", EntryType::Link, b"")),
                "plain files",
            ),
            (
                archive(|t| member(t, "d", EntryType::Char, b"")),
                "plain files",
            ),
            (archive(|t| member(t, "s", EntryType::GNUSparse, b"")), ""),
            (
                archive(|t| {
                    member(t, "a", EntryType::Regular, b"1");
                    member(t, "a", EntryType::Regular, b"2");
                }),
                "twice",
            ),
            (
                archive(|t| {
                    member(t, "a", EntryType::Regular, b"1");
                    member(t, "A", EntryType::Regular, b"2");
                }),
                "letter case",
            ),
        ] {
            let error = unpack(&bad, &Limits::default()).unwrap_err().to_string();
            assert!(error.contains(why), "{error} should say {why}");
        }
    }

    #[test]
    fn sec_09_bombs_stop_at_the_limit() {
        let limits = Limits {
            entries: 10,
            bytes: 1000,
            path: 100,
        };
        let bomb = archive(|t| member(t, "zeros", tar::EntryType::Regular, &vec![0; 10_000_000]));
        assert!(matches!(
            unpack(&bomb, &limits),
            Err(Error::Limit { what: "bytes", .. })
        ));
        let many = archive(|t| {
            (0..20).for_each(|i| member(t, &format!("f{i}"), tar::EntryType::Regular, b""));
        });
        assert!(matches!(
            unpack(&many, &limits),
            Err(Error::Limit {
                what: "entries",
                ..
            })
        ));
    }
}
