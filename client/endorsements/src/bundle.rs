//! A folder of evidence under plain names, on disk or in one file.
//!
//! The file is deterministic CBOR: `[1, {name: bytes}]`. It carries the evidence, the vendor's documents and the event
//! log if there is one, so that a verdict can be reached again years later with nothing else at hand.

use std::collections::BTreeMap;
use std::path::Path;

use adyton_attestation::wire::{self, Blob, Name};
use adyton_broker::{BrokerError, read_capped, write_whole};

use crate::EndorsementError;

/// Longest bundle that is read.
pub const MAX_BUNDLE_LEN: usize = 16 << 20;
const MAX_FILE_LEN: u64 = 4 << 20;
const MAX_FILES: usize = 64;

/// Files by plain name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folder(pub BTreeMap<String, Vec<u8>>);

impl Folder {
    /// Reads the plain files of a folder; folders in it and hidden files are passed over.
    ///
    /// # Errors
    /// [`EndorsementError::File`] for what cannot be read or is too long, [`EndorsementError::Bundle`] for too many.
    pub fn read(path: &Path) -> Result<Self, EndorsementError> {
        let failed = |source| BrokerError::Read { path: path.to_owned(), source };
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if !path.is_file() || !is_plain(name) {
                continue;
            }
            if files.len() == MAX_FILES {
                return Err(EndorsementError::Bundle(format!("more than {MAX_FILES} files")));
            }
            files.insert(name.to_owned(), read_capped(&path, MAX_FILE_LEN)?.to_vec());
        }
        Ok(Self(files))
    }

    /// Writes every file into a folder, making it if it is not there.
    ///
    /// # Errors
    /// [`EndorsementError::File`]; each file is there whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), EndorsementError> {
        std::fs::create_dir_all(path)
            .map_err(|source| BrokerError::Write { path: path.to_owned(), source })?;
        for (name, bytes) in &self.0 {
            write_whole(&path.join(name), bytes)?;
        }
        Ok(())
    }

    /// The bundle of these files.
    ///
    /// # Errors
    /// [`EndorsementError::Bundle`] if it would be longer than is read.
    pub fn encode(&self) -> Result<Vec<u8>, EndorsementError> {
        let files: BTreeMap<Name, Blob> =
            self.0.iter().map(|(name, bytes)| (Name(name.clone()), Blob::from(bytes.clone()))).collect();
        let bytes = wire::encode(&(1u8, files));
        if bytes.len() > MAX_BUNDLE_LEN {
            return Err(EndorsementError::Bundle(format!("{} bytes is too long", bytes.len())));
        }
        Ok(bytes)
    }

    /// Reads a bundle.
    ///
    /// # Errors
    /// [`EndorsementError::Bundle`]: not of this form, or with a name that is no plain file name.
    pub fn decode(bytes: &[u8]) -> Result<Self, EndorsementError> {
        let wrong = |what: String| EndorsementError::Bundle(what);
        let (version, files): (u8, BTreeMap<Name, Blob>) =
            wire::decode(bytes, MAX_BUNDLE_LEN).map_err(|error| wrong(error.to_string()))?;
        if version != 1 {
            return Err(wrong(format!("version {version} is unknown")));
        }
        if files.len() > MAX_FILES {
            return Err(wrong(format!("more than {MAX_FILES} files")));
        }
        if let Some(Name(name)) = files.keys().find(|name| !is_plain(&name.0)) {
            return Err(wrong(format!("{name:?} is no plain file name")));
        }
        Ok(Self(files.into_iter().map(|(name, bytes)| (name.0, bytes.into_vec())).collect()))
    }
}

/// A name that stays inside the folder it is joined to.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.len() <= 128
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_survives_its_bundle() {
        let mut files = BTreeMap::new();
        files.insert("report.bin".to_owned(), vec![1; 1184]);
        files.insert("a.der".to_owned(), Vec::new());
        let folder = Folder(files);
        let bytes = folder.encode().unwrap();
        assert_eq!(Folder::decode(&bytes).unwrap(), folder);
        let out = tempfile::tempdir().unwrap();
        folder.write(&out.path().join("new")).unwrap();
        assert_eq!(Folder::read(&out.path().join("new")).unwrap(), folder);
        for end in 0..bytes.len() {
            assert!(Folder::decode(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn a_name_cannot_leave_its_folder() {
        for name in ["../x", "a/b", "", ".hidden", "a\0b", "a b"] {
            let bytes = Folder([(name.to_owned(), vec![])].into()).encode().unwrap();
            assert!(matches!(Folder::decode(&bytes), Err(EndorsementError::Bundle(_))), "{name:?}");
        }
    }
}
