//! Bundles as archives: deterministic to write, suspicious to read.
//!
//! A bundle's identity is the digest of its canonical file list, so it does not depend on the compressor or on the
//! order in which files were met. `docs/formats/bundles.md` describes both. Sealing is in
//! [`crate::domain::seal`].

use std::collections::BTreeMap;
use std::io::{Read, Write};

use flate2::{Compression, GzBuilder, bufread::GzDecoder};
use serde_json::json;

use super::model::{Digest, canonical_json, folded_name, sha256_hex};
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
    let all = files.iter().map(|(path, blob)| (path, &blob.bytes));
    write(all, Vec::new())
}

/// Writes files as [`pack`] does, one after the other as they come, and gives the writer back.
///
/// They must come sorted by path. Held is a window of the compressor, whatever their number and size.
pub fn write<W: Write>(
    files: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<[u8]>)>,
    out: W,
) -> Result<W, Error> {
    let gz = GzBuilder::new().mtime(0).write(out, Compression::new(6));
    let mut tar = tar::Builder::new(gz);
    tar.mode(tar::HeaderMode::Deterministic);
    for (path, bytes) in files {
        let bytes = bytes.as_ref();
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_entry_type(tar::EntryType::Regular);
        tar.append_data(&mut header, path.as_ref(), bytes)
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
        // Readers disagree about which of two sizes counts, and about sparse files that look like plain ones.
        let header = entry.header().size().map_err(Error::Read)?;
        for extension in entry
            .pax_extensions()
            .map_err(Error::Read)?
            .into_iter()
            .flatten()
        {
            let key = extension.map_err(Error::Read)?.key_bytes().to_vec();
            if key.starts_with(b"GNU.sparse") || key == b"size" {
                return Err(refuse("an extended header gives it another size or holes"));
            }
        }
        if header != entry.size() {
            return Err(refuse("an extended header gives it another size or holes"));
        }
        total = total.saturating_add(entry.size());
        if total > limits.bytes {
            return Err(Error::Limit {
                what: "bytes",
                most: limits.bytes,
            });
        }
        if folded.insert(folded_name(&path), path.clone()).is_some() {
            return Err(refuse(
                "the name stands twice, or differs from another in letter case or Unicode form only",
            ));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(Error::Read)?;
        files.insert(path, Blob::new(bytes));
    }
    nothing_follows(tar.into_inner())?;
    Ok(files)
}

/// Refuses what stands behind the end of an archive: another reader might take it for more members.
fn nothing_follows(mut rest: Capped<GzDecoder<&[u8]>>) -> Result<(), Error> {
    let refuse = |why: &str| {
        Error::Read(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            why.to_owned(),
        ))
    };
    let mut block = [0u8; 8192];
    loop {
        match rest.read(&mut block).map_err(Error::Read)? {
            0 => break,
            n if block[..n].iter().all(|b| *b == 0) => {}
            _ => return Err(refuse("something stands behind the end of the archive")),
        }
    }
    if rest.inner.into_inner().is_empty() {
        Ok(())
    } else {
        Err(refuse("something stands behind the compressed data"))
    }
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
        if part.len() > 255 {
            return Err("a part of its name has more than 255 bytes");
        }
        if is_gits_own(part) {
            return Err("its name is one of Git's own");
        }
        if part.contains(':') || part.ends_with(['.', ' ']) {
            return Err(
                "its name holds a colon, or ends in a dot or space: it is another file elsewhere",
            );
        }
    }
    Ok(())
}

/// Tells whether some file system takes a name for `.git`: by letter case, by a short name or stream of NTFS, by dots and
/// spaces at the end, or by characters that HFS+ ignores. Git's own check is `verify_path` with `protectNTFS`, `protectHFS`.
fn is_gits_own(part: &str) -> bool {
    let ignored = |c: &char| matches!(c, '\u{200C}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{206A}'..='\u{206F}' | '\u{FEFF}');
    let name: String = part.chars().filter(|c| !ignored(c)).collect();
    let name = name.split(':').next().unwrap_or_default();
    let name = name.trim_end_matches(['.', ' ']).to_ascii_lowercase();
    name == ".git" || name.starts_with("git~")
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
    fn sec_03_names_that_some_file_system_takes_for_gits_own_are_refused() {
        for bad in [
            ".git",
            ".GIT/config",
            "a/.Git/hooks/x",
            "git~1/config",
            "GIT~2",
            ".git::$INDEX_ALLOCATION/config",
            ".git ",
            ".git...",
            ".g\u{200C}it/config",
            "\u{FEFF}.git",
            "a.yaml:stream",
            "a.yaml.",
            "a.yaml ",
            "dir./a.yaml",
            "nul\0.yaml",
        ] {
            assert!(check_path(bad, &Limits::default()).is_err(), "{bad:?}");
        }
        for good in [".github/x", ".gitignore", "a.git/x", "git/x", ".gitmodules"] {
            assert!(check_path(good, &Limits::default()).is_ok(), "{good}");
        }
    }

    #[test]
    fn sec_04_paths_lead_nowhere_and_have_bounds() {
        let long = "n".repeat(5_000);
        let part = format!("a/{}", "n".repeat(256));
        let deep = "d/".repeat(10_000) + "x";
        for bad in [
            "../x", "a/../x", "a/..", "/x", "//x", "a//x", "./x", "a/./x", "", "a\\b", "a\0b",
            "a\nb", &long, &part, &deep,
        ] {
            assert!(check_path(bad, &Limits::default()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sec_05_names_equal_but_for_case_or_unicode_form_are_refused() {
        for (one, other) in [
            ("a", "A"),
            ("caf\u{e9}", "cafe\u{301}"),
            ("stra\u{df}e", "STRASSE"),
            ("\u{3a3}\u{3c2}", "\u{3c3}\u{3c3}"),
            ("\u{212a}", "k"),
        ] {
            let bad = archive(|t| {
                member(t, one, tar::EntryType::Regular, b"1");
                member(t, other, tar::EntryType::Regular, b"2");
            });
            let error = unpack(&bad, &Limits::default()).unwrap_err().to_string();
            assert!(error.contains("Unicode form"), "{one} {other}: {error}");
        }
    }

    #[test]
    fn sec_09_sizes_that_readers_disagree_about_are_refused() {
        let with = |key: &'static str, value: &'static str| {
            archive(|t| {
                t.append_pax_extensions([(key, value.as_bytes())]).unwrap();
                member(t, "a", tar::EntryType::Regular, &[b'x'; 600]);
            })
        };
        for (key, value) in [
            ("size", "1"),
            ("size", "600"),
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.realsize", "1000000000"),
        ] {
            let error = unpack(&with(key, value), &Limits::default()).unwrap_err();
            assert!(error.to_string().contains("another size"), "{key}: {error}");
        }
        assert!(unpack(&with("mtime", "1"), &Limits::default()).is_ok());
        let setuid = archive(|t| {
            let mut header = tar::Header::new_gnu();
            header.set_path("a").unwrap();
            header.set_size(0);
            header.set_mode(0o4755);
            header.set_cksum();
            t.append(&header, &b""[..]).unwrap();
        });
        let error = unpack(&setuid, &Limits::default()).unwrap_err();
        assert!(error.to_string().contains("setuid"), "{error}");
    }

    #[test]
    fn sec_09_nothing_may_follow_an_archive() {
        let good = pack(&files(&[("a", "1")])).unwrap();
        let mut two = good.clone();
        two.extend_from_slice(&pack(&files(&[("b", "2")])).unwrap());
        let mut tail = good.clone();
        tail.extend_from_slice(b"tail");
        let mut plain = Vec::new();
        GzDecoder::new(&good[..]).read_to_end(&mut plain).unwrap();
        plain.extend_from_slice(&[7; 512]);
        let mut inside = GzBuilder::new().write(Vec::new(), Compression::fast());
        inside.write_all(&plain).unwrap();
        for bad in [two, tail, inside.finish().unwrap()] {
            assert!(unpack(&bad, &Limits::default()).is_err());
        }
        for end in 1..good.len() {
            assert!(
                unpack(&good[..end], &Limits::default()).is_err(),
                "cut at {end}"
            );
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
