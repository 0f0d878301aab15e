//! By what evidence is judged, as owners and clients write it down: the `[evidence]` table of their TOML files.
//!
//! A key that is left out never means "unchecked": without measurements nothing is accepted.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use adyton_attestation::reference::ReferenceValues;
use adyton_attestation::{Appraiser, Endorsements, Policy, Time, TrustAnchors};
use serde::Deserialize;

use crate::BrokerError;
use crate::files::read_capped;

const MAX_CERTIFICATE_LEN: u64 = 64 << 10;
const MAX_REFERENCE_LEN: u64 = 1 << 20;

/// The `[evidence]` table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceRules {
    /// `strict` or `standard`; must be left out for a simulator.
    policy: Option<PolicyName>,
    /// Accepted launch measurements, 96 hexadecimal digits each. Required, unless a release is named.
    measurements: Option<Vec<Hex<48>>>,
    /// Signed reference values of a release, whose measurements are accepted too.
    reference_values: Option<PathBuf>,
    /// Who published them, 64 hexadecimal digits.
    publisher_key: Option<Hex<32>>,
    /// Accepted launch documents (SHA-256, as in HOST_DATA), 64 hexadecimal digits each.
    host_data: Vec<Hex<32>>,
    /// Accepted machines (SHA-256 of CHIP_ID), 64 hexadecimal digits each.
    #[serde(default)]
    platform_ids: Vec<Hex<32>>,
    /// Least TCB beside the policy's own, such as `snp=24,ucode=220`.
    min_tcb: Option<String>,
    /// Folder with vendor certificates and revocation lists (`vcek.der`, `ask.der`, `ark.der`, `*.crl.der`).
    endorsements_dir: Option<PathBuf>,
    /// Root of a simulator: what is accepted under it is NOT CONFIDENTIAL.
    dangerous_simulator_root: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PolicyName {
    Strict,
    Standard,
}

/// Bytes written in hexadecimal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hex<const N: usize>(pub(crate) [u8; N]);

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; N];
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| {
            serde::de::Error::custom(format!("expected {} hexadecimal digits, got {text:?}", 2 * N))
        })?;
        Ok(Self(bytes))
    }
}

/// Loaded rules: anchors, endorsements and policy.
#[derive(Debug)]
pub struct Judge {
    anchors: TrustAnchors,
    endorsements: Endorsements,
    policy: Policy,
    simulated: bool,
}

impl EvidenceRules {
    /// Loads the files the rules name, relative to `base`; `path` is the file the rules came from, for messages.
    ///
    /// # Errors
    /// [`BrokerError`]: contradicting keys, an unreadable file, or a root that is none.
    pub fn load(&self, path: &Path) -> Result<Judge, BrokerError> {
        let base = path.parent().unwrap_or(Path::new("."));
        let wrong =
            |message: &str| BrokerError::Config { path: path.to_owned(), message: message.to_owned() };
        let endorsements = match &self.endorsements_dir {
            Some(folder) => load_endorsements(&base.join(folder))?,
            None => Endorsements::default(),
        };
        let measurements = self.measurements(base, path)?;
        let host_data = self.host_data.iter().map(|hex| hex.0);
        let (anchors, mut policy) = match (&self.dangerous_simulator_root, self.policy) {
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "`policy` and `dangerous_simulator_root` exclude each other: no production policy accepts a simulator",
                ));
            }
            (Some(root), None) => {
                let root = read_capped(&base.join(root), MAX_CERTIFICATE_LEN)?;
                let anchors = TrustAnchors::dangerous_simulator(&root).map_err(BrokerError::Anchor)?;
                (anchors, Policy::dangerous_simulated(measurements, host_data))
            }
            (None, name) => {
                let policy = match name.unwrap_or(PolicyName::Standard) {
                    PolicyName::Strict => Policy::strict(),
                    PolicyName::Standard => Policy::standard(),
                };
                (TrustAnchors::pinned(), policy.measurements(measurements).host_data(host_data))
            }
        };
        if !self.platform_ids.is_empty() || self.dangerous_simulator_root.is_none() {
            policy = policy.chip_allowlist(self.platform_ids.iter().map(|hex| hex.0));
        }
        if let Some(floor) = &self.min_tcb {
            let floor = floor.parse().map_err(|error| wrong(&format!("min_tcb: {error}")))?;
            policy = policy.min_tcb(floor);
        }
        Ok(Judge { anchors, endorsements, policy, simulated: self.dangerous_simulator_root.is_some() })
    }
}

impl EvidenceRules {
    /// Those that are listed, and those of the release.
    fn measurements(&self, base: &Path, path: &Path) -> Result<Vec<[u8; 48]>, BrokerError> {
        let wrong =
            |message: &str| BrokerError::Config { path: path.to_owned(), message: message.to_owned() };
        let listed = self.measurements.as_ref().map(|listed| listed.iter().map(|hex| hex.0).collect());
        let (file, publisher) = match (&self.reference_values, &self.publisher_key) {
            (Some(file), Some(publisher)) => (file, publisher),
            (None, None) => {
                return listed.ok_or_else(|| {
                    wrong("give `measurements`, or `reference_values` and `publisher_key` of a release")
                });
            }
            _ => return Err(wrong("`reference_values` and `publisher_key` go together")),
        };
        let signed = read_capped(&base.join(file), MAX_REFERENCE_LEN)?;
        let reference = ReferenceValues::verify(&publisher.0, &signed)
            .map_err(|error| wrong(&format!("{}: {error}", file.display())))?;
        if reference.test != self.dangerous_simulator_root.is_some() {
            return Err(wrong(
                "the release is a test image and the rules are for hardware, or the other way round",
            ));
        }
        let mut measurements: Vec<[u8; 48]> = listed.unwrap_or_default();
        measurements.extend(reference.values.iter().map(|value| value.measurement));
        Ok(measurements)
    }
}

impl Judge {
    /// The rules at a moment.
    #[must_use]
    pub fn appraiser(&self, now: Time) -> Appraiser<'_> {
        Appraiser { anchors: &self.anchors, endorsements: &self.endorsements, policy: &self.policy, now }
    }

    /// Whether a simulator is what these rules accept.
    #[must_use]
    pub fn simulated(&self) -> bool {
        self.simulated
    }
}

/// Reads the endorsements of a folder by their plain names; what is not there stays empty.
///
/// # Errors
/// [`BrokerError`] for a folder or file that cannot be read or is too long.
pub fn load_endorsements(folder: &Path) -> Result<Endorsements, BrokerError> {
    let optional = |name: &str| -> Result<Option<Vec<u8>>, BrokerError> {
        let path = folder.join(name);
        path.exists().then(|| read_capped(&path, MAX_CERTIFICATE_LEN).map(|bytes| bytes.to_vec())).transpose()
    };
    let failed = |source| BrokerError::Read { path: folder.to_owned(), source };
    let mut crls = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".crl.der")) {
            crls.push(read_capped(&path, MAX_CERTIFICATE_LEN)?.to_vec());
        }
    }
    Ok(Endorsements {
        vcek: optional("vcek.der")?,
        vlek: optional("vlek.der")?,
        ask: optional("ask.der")?,
        asvk: optional("asvk.der")?,
        ark: optional("ark.der")?,
        crls,
    })
}

/// The clock of this machine: owners and clients trust their own.
#[must_use]
pub fn now() -> Time {
    // A clock before 1970 judges everything as not yet valid, which is the safe way to be wrong.
    Time::from_unix_seconds(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Judge, String> {
        let rules: EvidenceRules = toml::from_str(text).map_err(|error| error.to_string())?;
        rules.load(Path::new("rules.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn unset_is_an_error_or_refuses_never_unchecked() {
        assert!(load("host_data = []").unwrap_err().contains("measurements"));
        assert!(load("measurements = []").unwrap_err().contains("host_data"));
        let judge = load("measurements = []\nhost_data = []").unwrap();
        assert!(!judge.simulated());
    }

    #[test]
    fn a_release_names_its_measurements_by_one_key() {
        use adyton_attestation::reference::Value;
        use ring::signature::{Ed25519KeyPair, KeyPair as _};
        let folder = tempfile::tempdir().unwrap();
        let pair = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        let value = Value { firmware: [1; 32], vcpus: 1, vcpu_type: "EPYC".into(), measurement: [0xab; 48] };
        let mut reference = ReferenceValues {
            release: "0.1.0".into(),
            test: false,
            kernel: [2; 32],
            initrd: [3; 32],
            cmdline: String::new(),
            values: vec![value],
        };
        let write = |reference: &ReferenceValues| {
            std::fs::write(folder.path().join("reference.cose"), reference.sign(&pair)).unwrap();
        };
        write(&reference);
        let rules = |key: &str, more: &str| -> Result<Vec<[u8; 48]>, String> {
            let text = format!(
                "reference_values = 'reference.cose'\npublisher_key = '{key}'\nhost_data = []\n{more}"
            );
            let rules: EvidenceRules = toml::from_str(&text).map_err(|error| error.to_string())?;
            let path = folder.path().join("rules.toml");
            rules.measurements(folder.path(), &path).map_err(|error| error.to_string())
        };
        let key = hex::encode(pair.public_key().as_ref());
        assert_eq!(rules(&key, "").unwrap(), [[0xab; 48]]);
        let listed = format!("measurements = ['{}']", "cd".repeat(48));
        assert_eq!(rules(&key, &listed).unwrap(), [[0xcd; 48], [0xab; 48]]);
        assert!(rules(&"00".repeat(32), "").unwrap_err().contains("reference.cose"), "another publisher");
        assert!(rules(&key, "dangerous_simulator_root = 'root.der'").unwrap_err().contains("hardware"));
        reference.test = true;
        write(&reference);
        assert!(rules(&key, "").unwrap_err().contains("test image"));
        assert!(load("reference_values = 'r'\nhost_data = []").unwrap_err().contains("go together"));
    }

    #[test]
    fn a_production_policy_cannot_name_a_simulator() {
        let both =
            "policy = 'standard'\nmeasurements = []\nhost_data = []\ndangerous_simulator_root = 'root.der'";
        assert!(load(both).unwrap_err().contains("exclude each other"));
        assert!(load("policy = 'vendor'\nmeasurements = []\nhost_data = []").is_err());
    }

    #[test]
    fn wrong_digits_and_unknown_keys_are_named() {
        assert!(
            load("measurements = ['abc']\nhost_data = []").unwrap_err().contains("96 hexadecimal digits")
        );
        assert!(
            load("measurements = []\nhost_data = []\nmeasurment = []").unwrap_err().contains("measurment")
        );
        assert!(load("measurements = []\nhost_data = []\nmin_tcb = 'x'").unwrap_err().contains("min_tcb"));
    }
}
