//! `broker.toml`: which model is released, by what rules, and where the broker listens. Unknown keys are errors.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::files::read_capped;
use crate::{BrokerError, EvidenceRules};

const MAX_LEN: u64 = 1 << 20;

/// The whole configuration; relative paths are relative to the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerConfig {
    /// Where enclaves call.
    pub listen: SocketAddr,
    /// The owner's folder, made with `adyton key new`.
    pub owner_dir: PathBuf,
    /// SQLite database of releases.
    pub database: PathBuf,
    /// The signed manifest of the model.
    pub manifest: PathBuf,
    /// Names the policy in grants and admissions.
    pub policy_id: String,
    /// Seconds after which an enclave must have been granted again.
    #[serde(default = "a_day")]
    pub lease_s: u64,
    /// Seconds that an admission is good for.
    #[serde(default = "a_day")]
    pub admission_s: u64,
    /// By what evidence is judged.
    pub evidence: EvidenceRules,
}

fn a_day() -> u64 {
    86_400
}

impl BrokerConfig {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// [`BrokerError`]: unreadable, unknown key, wrong type, or a lease of zero.
    pub fn read(path: &Path) -> Result<Self, BrokerError> {
        let bytes = read_capped(path, MAX_LEN)?;
        let wrong = |message: String| BrokerError::Config { path: path.to_owned(), message };
        let text = std::str::from_utf8(&bytes).map_err(|error| wrong(error.to_string()))?;
        let mut config: Self = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if config.lease_s == 0 || config.admission_s == 0 {
            return Err(wrong("a lease or admission of 0 seconds would be over before it is used".into()));
        }
        let base = path.parent().unwrap_or(Path::new("."));
        for relative in [&mut config.owner_dir, &mut config.database, &mut config.manifest] {
            *relative = base.join(&*relative);
        }
        Ok(config)
    }
}
