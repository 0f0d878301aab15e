//! A folder of entries. Each is a file of its own, written whole or not at all, so two programs may share a folder.

use std::path::{Path, PathBuf};

use adyton_attestation::Time;
use adyton_attestation::wire::{self, Blob};
use adyton_broker::{BrokerError, read_capped, write_whole};

use crate::{EndorsementError, Item};

/// Longest document that is kept.
pub(crate) const MAX_BODY_LEN: usize = 1 << 20;
const MAX_ENTRY_LEN: usize = MAX_BODY_LEN + (128 << 10);

/// A document with what came along: `[1, fetched, issuer chain, body]` in deterministic CBOR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it came from the vendor.
    pub fetched: Time,
    /// Intel's issuer chain, PEM; empty for documents that have none.
    pub issuer_chain: String,
    /// The document as the vendor sent it.
    pub body: Vec<u8>,
}

impl Entry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let body = Blob::from(self.body.clone());
        wire::encode(&(1u8, self.fetched.as_unix_seconds(), self.issuer_chain.as_str(), body))
    }

    /// Reads an entry for `item`; refuses what has not the form of that document.
    pub(crate) fn decode(item: &Item, bytes: &[u8]) -> Result<Self, String> {
        let (version, fetched, issuer_chain, body): (u8, u64, String, Blob) =
            wire::decode(bytes, MAX_ENTRY_LEN).map_err(|error| error.to_string())?;
        if version != 1 {
            return Err(format!("entry version {version} is unknown"));
        }
        let entry = Self { fetched: Time::from_unix_seconds(fetched), issuer_chain, body: body.into_vec() };
        item.refuse_other(&entry)?;
        Ok(entry)
    }
}

/// A folder of entries.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Uses a folder, making it if it is not there.
    ///
    /// # Errors
    /// [`EndorsementError::File`].
    pub fn open(folder: &Path) -> Result<Self, EndorsementError> {
        std::fs::create_dir_all(folder)
            .map_err(|source| BrokerError::Write { path: folder.to_owned(), source })?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The entry of an item, if there is one that can be read. A torn or foreign file counts as none.
    #[must_use]
    pub fn get(&self, item: &Item) -> Option<Entry> {
        let path = self.folder.join(item.name());
        if !path.exists() {
            return None;
        }
        let read = read_capped(&path, MAX_ENTRY_LEN as u64).map_err(|error| error.to_string());
        match read.and_then(|bytes| Entry::decode(item, &bytes)) {
            Ok(entry) => Some(entry),
            Err(error) => {
                tracing::warn!(path = %path.display(), error, "an entry cannot be used and will be replaced");
                None
            }
        }
    }

    /// Keeps an entry, unless a newer edition is there already.
    ///
    /// # Errors
    /// [`EndorsementError::File`]; what was there before is then still there.
    pub fn put(&self, item: &Item, entry: &Entry) -> Result<(), EndorsementError> {
        if self.get(item).is_some_and(|held| item.edition(&held) > item.edition(entry)) {
            return Ok(());
        }
        Ok(write_whole(&self.folder.join(item.name()), &entry.encode())?)
    }

    /// Path of the mark that says when AMD was last asked for a chip's certificate.
    pub(crate) fn pace_mark(&self) -> PathBuf {
        self.folder.join(".kds-asked")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(body: &str) -> Entry {
        let issuer_chain = "-----BEGIN CERTIFICATE-----".into();
        Entry {
            fetched: Time::from_unix_seconds(1_000_000_000),
            issuer_chain,
            body: body.as_bytes().to_vec(),
        }
    }

    fn identity(issued: &str) -> Entry {
        entry(&format!(
            "{{\"enclaveIdentity\":{{\"id\":\"TD_QE\",\"issueDate\":\"{issued}\",\"nextUpdate\":\"2001-09-19T00:00:00Z\"}},\
             \"signature\":\"00\"}}"
        ))
    }

    #[test]
    fn an_older_edition_never_replaces_a_newer_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("new")).unwrap();
        assert_eq!(store.get(&Item::QeIdentity), None);
        let (old, new) = (identity("2001-08-20T00:00:00Z"), identity("2001-09-01T00:00:00Z"));
        store.put(&Item::QeIdentity, &new).unwrap();
        store.put(&Item::QeIdentity, &old).unwrap();
        assert_eq!(store.get(&Item::QeIdentity), Some(new));
    }

    #[test]
    fn a_torn_entry_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.put(&Item::QeIdentity, &identity("2001-09-01T00:00:00Z")).unwrap();
        let path = folder.path().join(Item::QeIdentity.name());
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(store.get(&Item::QeIdentity), None);
    }

    #[test]
    fn collateral_ends_after_thirty_days_or_when_it_says() {
        let far = "{\"enclaveIdentity\":{\"id\":\"TD_QE\",\"nextUpdate\":\"2099-01-01T00:00:00Z\"},\"signature\":\"00\"}";
        let thirty_days = Time::from_unix_seconds(1_000_000_000 + 30 * 24 * 3600);
        assert_eq!(Item::QeIdentity.expires(&entry(far)), Some(thirty_days));
        let near = identity("2001-09-01T00:00:00Z");
        assert_eq!(Item::QeIdentity.expires(&near), Some("2001-09-19T00:00:00Z".parse().unwrap()));
        let nothing = entry("{\"enclaveIdentity\":{\"id\":\"TD_QE\"},\"signature\":\"00\"}");
        assert_eq!(Item::QeIdentity.expires(&nothing), Some(Time::from_unix_seconds(0)));
    }
}
