//! Key sets this client verified freshly: the memory that makes later connections cheap.
//!
//! One small JSON file. An entry counts for an hour, for the same service under the same trust file only; after that
//! fresh evidence is asked for again. A file that cannot be read is treated as empty: the cost is a fresh attestation.

use std::path::PathBuf;

use adyton_attestation::commit::Digest;
use adyton_broker::write_whole;
use serde::{Deserialize, Serialize};

use crate::ClientError;

/// Re-attest with fresh evidence after this long (SPEC, section 4).
const FRESH_FOR_S: u64 = 3600;
const MAX_ENTRIES: usize = 64;
const MAX_FILE_LEN: u64 = 1 << 20;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    endpoint: String,
    trust: String,
    keyset_id: String,
    verified_at: u64,
}

/// The remembered key sets.
#[derive(Debug, Default)]
pub struct KnownKeySets {
    path: Option<PathBuf>,
    entries: Vec<Entry>,
}

impl KnownKeySets {
    /// Remembers nothing: every connection asks for fresh evidence and none can be linked to another.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Loads the file, dropping what is over at `now_s`.
    #[must_use]
    pub fn load(path: PathBuf, now_s: u64) -> Self {
        let bytes = adyton_broker::read_capped(&path, MAX_FILE_LEN).ok();
        let mut entries: Vec<Entry> =
            bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        entries.retain(|entry| entry.verified_at <= now_s && now_s - entry.verified_at < FRESH_FOR_S);
        Self { path: Some(path), entries }
    }

    /// The key sets of one service that were verified under these rules.
    #[must_use]
    pub fn of(&self, endpoint: &str, trust: &Digest) -> Vec<Digest> {
        let trust = hex::encode(trust);
        let same = self.entries.iter().filter(|entry| entry.endpoint == endpoint && entry.trust == trust);
        same.filter_map(|entry| hex::decode(&entry.keyset_id).ok()?.try_into().ok()).collect()
    }

    /// Remembers a key set that was just verified freshly, and saves.
    ///
    /// # Errors
    /// [`ClientError::Own`] if the file cannot be written.
    pub fn remember(
        &mut self,
        endpoint: &str,
        trust: &Digest,
        keyset_id: &Digest,
        now_s: u64,
    ) -> Result<(), ClientError> {
        let Some(path) = &self.path else { return Ok(()) };
        let entry = Entry {
            endpoint: endpoint.to_owned(),
            trust: hex::encode(trust),
            keyset_id: hex::encode(keyset_id),
            verified_at: now_s,
        };
        self.entries.retain(|old| old.keyset_id != entry.keyset_id || old.trust != entry.trust);
        self.entries.push(entry);
        let surplus = self.entries.len().saturating_sub(MAX_ENTRIES);
        self.entries.drain(..surplus);
        let bytes =
            serde_json::to_vec(&self.entries).map_err(|_| ClientError::Answer("unwritable memory"))?;
        Ok(write_whole(path, &bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_counts_for_its_service_rules_and_hour_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known.json");
        let mut known = KnownKeySets::load(path.clone(), 1_000);
        known.remember("a:1", &[1; 32], &[9; 32], 1_000).unwrap();
        let known = KnownKeySets::load(path.clone(), 1_000 + FRESH_FOR_S - 1);
        assert_eq!(known.of("a:1", &[1; 32]), vec![[9; 32]]);
        assert!(known.of("a:2", &[1; 32]).is_empty());
        assert!(known.of("a:1", &[2; 32]).is_empty());
        assert!(KnownKeySets::load(path.clone(), 1_000 + FRESH_FOR_S).of("a:1", &[1; 32]).is_empty());
        assert!(KnownKeySets::load(path.clone(), 999).of("a:1", &[1; 32]).is_empty(), "a clock set back");
        std::fs::write(&path, b"not json").unwrap();
        assert!(KnownKeySets::load(path, 1_000).of("a:1", &[1; 32]).is_empty());
    }
}
