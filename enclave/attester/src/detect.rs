//! Finds the interface to ask, and says of each why it is not the one.

use crate::configfs_tsm::{self, ConfigfsTsm};
use crate::sev_guest::{self, SevGuest};
use crate::{AttestError, Attester};
use std::path::PathBuf;

/// Where to look; the defaults are a real machine's.
#[derive(Debug, Clone)]
pub struct Candidates {
    /// The report directory of configfs-tsm.
    pub tsm_root: PathBuf,
    /// The SNP guest device.
    pub sev_guest: PathBuf,
}

impl Default for Candidates {
    fn default() -> Self {
        Self { tsm_root: configfs_tsm::DEFAULT_ROOT.into(), sev_guest: sev_guest::DEFAULT_PATH.into() }
    }
}

/// No interface is there: this machine cannot prove anything about itself.
#[derive(Debug, thiserror::Error)]
#[error("no way to get Evidence on this machine:\n  {}", reasons.join("\n  "))]
pub struct NoAttester {
    /// One line for each interface, in the order they were tried.
    pub reasons: Vec<String>,
}

/// The first interface that is there: configfs-tsm, which serves SNP and TDX alike, then `/dev/sev-guest`, which older
/// kernels have. The simulator is never found, only named: see [`crate::SimulatorPort::new`].
///
/// # Errors
/// [`NoAttester`] with a line for each interface.
pub fn detect(candidates: &Candidates) -> Result<Box<dyn Attester>, NoAttester> {
    let mut reasons = Vec::new();
    match ConfigfsTsm::open(&candidates.tsm_root) {
        Ok(attester) => return Ok(Box::new(attester)),
        Err(error) => reasons.push(AttestError::from(error).to_string()),
    }
    match SevGuest::open(&candidates.sev_guest) {
        Ok(attester) => return Ok(Box::new(attester)),
        Err(error) => reasons.push(AttestError::from(error).to_string()),
    }
    Err(NoAttester { reasons })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Platform;

    #[test]
    fn each_missing_interface_has_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let candidates = Candidates {
            tsm_root: directory.path().join("no-tsm"),
            sev_guest: directory.path().join("no-sev-guest"),
        };
        let Err(missing) = detect(&candidates) else { panic!("nothing is there") };
        assert_eq!(missing.reasons.len(), 2);
        assert!(missing.reasons[0].contains("no-tsm"), "{missing}");
        assert!(missing.reasons[1].contains("no-sev-guest"), "{missing}");
    }

    #[test]
    fn the_older_device_is_used_when_there_is_no_tsm() {
        let directory = tempfile::tempdir().unwrap();
        let sev_guest = directory.path().join("sev-guest");
        std::fs::write(&sev_guest, []).unwrap();
        let found =
            detect(&Candidates { tsm_root: directory.path().join("no-tsm"), sev_guest }).ok().unwrap();
        assert_eq!((found.name(), found.platform()), ("sev-guest", Platform::SevSnp));
    }

    #[test]
    fn defaults_are_the_kernels_paths() {
        let defaults = Candidates::default();
        assert_eq!(defaults.tsm_root.as_os_str(), "/sys/kernel/config/tsm/report");
        assert_eq!(defaults.sev_guest.as_os_str(), "/dev/sev-guest");
    }
}
