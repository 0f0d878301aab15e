//! The broker's memory: every release, written and flushed before the key leaves, and the floor of each model's counter.
//!
//! SQLite with `synchronous = FULL`: a release that was sent is in the database after any crash. A release that is in
//! the database and not confirmed may or may not have arrived; it counts as released.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::BrokerError;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS release (
        release_id  BLOB PRIMARY KEY CHECK (length(release_id) = 16),
        at          INTEGER NOT NULL,
        policy_id   TEXT    NOT NULL,
        manifest_id BLOB    NOT NULL,
        counter     INTEGER NOT NULL,
        keyset_id   BLOB    NOT NULL,
        platform    BLOB    NOT NULL,
        measurement BLOB    NOT NULL,
        confirmed   INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS floor (
        kek_id  BLOB PRIMARY KEY CHECK (length(kek_id) = 16),
        counter INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// The database of one broker.
pub struct Store(Mutex<Connection>);

/// One release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseRecord {
    /// Names the release.
    pub release_id: [u8; 16],
    /// Seconds since 1970.
    pub at: u64,
    /// The policy that accepted.
    pub policy_id: String,
    /// The model.
    pub manifest_id: [u8; 32],
    /// Its version.
    pub counter: u64,
    /// The key set that was attested.
    pub keyset_id: [u8; 32],
    /// The machine, as `H(platform id)`.
    pub platform: [u8; 32],
    /// What was launched there.
    pub measurement: [u8; 48],
}

impl Store {
    /// Opens or makes the database.
    ///
    /// # Errors
    /// [`BrokerError::Store`] if it cannot be opened or is not a database.
    pub fn open(path: &Path) -> Result<Self, BrokerError> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self(Mutex::new(connection)))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // SQLite's own transactions keep the database whole if a holder panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a release, if its counter is not below the floor of this key; raises the floor. Returns after the record
    /// is on disk.
    ///
    /// # Errors
    /// [`BrokerError::Rollback`] or [`BrokerError::Store`]; nothing was then recorded and nothing may be released.
    pub fn record(&self, kek_id: &[u8; 16], release: &ReleaseRecord) -> Result<(), BrokerError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let floor: Option<u64> = transaction
            .query_row("SELECT counter FROM floor WHERE kek_id = ?1", [kek_id], |row| row.get(0))
            .optional()?;
        if let Some(floor) = floor.filter(|floor| release.counter < *floor) {
            return Err(BrokerError::Rollback { got: release.counter, floor });
        }
        transaction.execute(
            "INSERT INTO floor VALUES (?1, ?2) ON CONFLICT (kek_id) DO UPDATE SET counter = excluded.counter",
            params![kek_id, release.counter],
        )?;
        transaction.execute(
            "INSERT INTO release (release_id, at, policy_id, manifest_id, counter, keyset_id, platform, measurement)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                release.release_id,
                release.at,
                release.policy_id,
                release.manifest_id,
                release.counter,
                release.keyset_id,
                release.platform,
                release.measurement
            ],
        )?;
        transaction.commit()?;
        Ok(())
    }

    /// Notes that the enclave confirmed a release.
    ///
    /// # Errors
    /// [`BrokerError::Store`].
    pub fn confirm(&self, release_id: &[u8; 16]) -> Result<(), BrokerError> {
        self.connection().execute("UPDATE release SET confirmed = 1 WHERE release_id = ?1", [release_id])?;
        Ok(())
    }

    /// How many releases are recorded, and how many of them were confirmed.
    ///
    /// # Errors
    /// [`BrokerError::Store`].
    pub fn counts(&self) -> Result<(u64, u64), BrokerError> {
        let connection = self.connection();
        Ok(connection.query_row("SELECT count(*), coalesce(sum(confirmed), 0) FROM release", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(id: u8, counter: u64) -> ReleaseRecord {
        ReleaseRecord {
            release_id: [id; 16],
            at: 1,
            policy_id: "p".into(),
            manifest_id: [2; 32],
            counter,
            keyset_id: [3; 32],
            platform: [4; 32],
            measurement: [5; 48],
        }
    }

    #[test]
    fn an_older_version_is_never_released_after_a_newer_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.sqlite");
        let store = Store::open(&path).unwrap();
        store.record(&[1; 16], &release(1, 7)).unwrap();
        store.record(&[1; 16], &release(2, 7)).unwrap();
        store.record(&[1; 16], &release(3, 8)).unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        let refused = store.record(&[1; 16], &release(4, 7));
        assert!(matches!(refused, Err(BrokerError::Rollback { got: 7, floor: 8 })));
        store.record(&[2; 16], &release(5, 1)).unwrap();
        store.confirm(&[3; 16]).unwrap();
        assert_eq!(store.counts().unwrap(), (4, 1));
    }

    #[test]
    fn a_release_is_recorded_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("broker.sqlite")).unwrap();
        store.record(&[1; 16], &release(1, 1)).unwrap();
        assert!(matches!(store.record(&[1; 16], &release(1, 1)), Err(BrokerError::Store(_))));
    }

    #[test]
    fn a_file_that_is_no_database_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.sqlite");
        std::fs::write(&path, vec![7; 5000]).unwrap();
        assert!(matches!(Store::open(&path), Err(BrokerError::Store(_))));
    }
}
