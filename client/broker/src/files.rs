//! Reading with a cap, and writing so that a name never stands for half a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::BrokerError;

/// Reads a file of at most `max` bytes.
///
/// # Errors
/// [`BrokerError::Read`] or [`BrokerError::TooLong`].
pub fn read_capped(path: &Path, max: u64) -> Result<Zeroizing<Vec<u8>>, BrokerError> {
    let failed = |source| BrokerError::Read { path: path.to_owned(), source };
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path).map_err(failed)?.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        return Err(BrokerError::TooLong { path: path.to_owned(), max });
    }
    Ok(bytes)
}

/// Writes a secret to a file that must not exist yet, readable by its owner only.
///
/// # Errors
/// [`BrokerError::Exists`] or [`BrokerError::Write`].
pub fn write_new_secret(path: &Path, bytes: &[u8]) -> Result<(), BrokerError> {
    if path.exists() {
        return Err(BrokerError::Exists { path: path.to_owned() });
    }
    write_with_mode(path, bytes, 0o600)
}

/// Writes a file as a whole: under another name first, flushed to disk, then renamed.
///
/// # Errors
/// [`BrokerError::Write`]; nothing is then left under the final name that was not there before.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), BrokerError> {
    write_with_mode(path, bytes, 0o644)
}

fn write_with_mode(path: &Path, bytes: &[u8], mode: u32) -> Result<(), BrokerError> {
    let partial = partial_name(path);
    let written = (|| -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    })();
    written.map_err(|source| {
        // It may not exist; what matters is that the final name does not stand for half a file.
        let _ = fs::remove_file(&partial);
        BrokerError::Write { path: path.to_owned(), source }
    })
}

fn partial_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_is_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_new_secret(&path, b"secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(write_new_secret(&path, b"other"), Err(BrokerError::Exists { .. })));
        assert_eq!(read_capped(&path, 100).unwrap().as_slice(), b"secret");
        assert!(matches!(read_capped(&path, 5), Err(BrokerError::TooLong { .. })));
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("file");
        assert!(matches!(write_whole(&path, b"x"), Err(BrokerError::Write { .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
