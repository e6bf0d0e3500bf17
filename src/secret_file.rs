//! Folders and files that only the daemon's own user may read: with that mode from the moment they exist.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Makes a folder with mode 0700, and its parents. One that exists is left as it is.
pub fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Reads a secret file, or makes it with mode 0600 where there is none.
///
/// A file that group or others can read is refused, so that a slip is seen before it is used.
pub fn read_or_make(
    path: &Path,
    make: impl FnOnce() -> io::Result<Zeroizing<Vec<u8>>>,
) -> io::Result<Zeroizing<Vec<u8>>> {
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                folder(parent)?;
            }
            let bytes = make()?;
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            Ok(bytes)
        }
        other => other,
    }
}

/// Writes a small file with mode 0600 in the place of what was there: a reader sees the old bytes or the new ones.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let half = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&half)?;
    file.write_all(bytes)?;
    fs::rename(half, path)
}

/// Where systemd puts what a unit loads as credentials; only root makes folders in it.
const CREDENTIALS: &str = "/run/credentials";

/// Reads a secret file of at most 64 KiB.
pub fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let own = std::env::var("CREDENTIALS_DIRECTORY").ok();
    let folders: Vec<PathBuf> = own
        .map(PathBuf::from)
        .into_iter()
        .chain([PathBuf::from(CREDENTIALS)])
        .collect();
    read_beside(path, &folders)
}

fn read_beside(path: &Path, credentials: &[PathBuf]) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = fs::File::open(path)?;
    let mode = file.metadata()?.mode();
    // To the user of a unit systemd gives a credential by an access list, and the bits of the group then show the mask of
    // that list: 0440, and no group reads it (https://github.com/systemd/systemd/issues/29435).
    let private = mode & 0o077 == 0 || mode & 0o237 == 0 && lies_in(path, credentials);
    if !private {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "its mode is {:04o}: group and others must not read it; chmod 600",
                mode & 0o7777
            ),
        ));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(64 << 10).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn lies_in(path: &Path, folders: &[PathBuf]) -> bool {
    let Ok(path) = path.canonicalize() else {
        return false;
    };
    let real = folders.iter().filter(|f| f.is_absolute());
    real.filter_map(|f| f.canonicalize().ok())
        .any(|f| path.starts_with(f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_53_secret_files_are_private_from_creation_and_refused_otherwise() {
        let folder_of_test = tempfile::tempdir().unwrap();
        let path = folder_of_test.path().join("a/b.key");
        read_or_make(&path, || Ok(Zeroizing::new(vec![1]))).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(
            fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777,
            0o700
        );
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("0640"));
    }

    #[test]
    fn sec_53_a_credential_of_systemd_may_show_the_mask_of_its_list() {
        let credentials = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let folders = [credentials.path().to_owned()];
        let with = |folder: &Path, mode: u32| {
            let path = folder.join(format!("{mode:o}.key"));
            fs::write(&path, [1]).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            read_beside(&path, &folders)
        };

        for mode in [0o440, 0o400, 0o600] {
            assert_eq!(*with(credentials.path(), mode).unwrap(), [1], "{mode:o}");
        }
        for mode in [0o640, 0o444, 0o460, 0o450] {
            assert!(with(credentials.path(), mode).is_err(), "{mode:o}");
        }
        assert!(with(elsewhere.path(), 0o440).is_err());
        let out = credentials
            .path()
            .join("..")
            .join(elsewhere.path().file_name().unwrap());
        assert!(with(&out, 0o440).is_err());
    }
}
