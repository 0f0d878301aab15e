//! By what evidence is judged, as owners and clients write it down: the `[evidence]` table of their TOML files.
//!
//! A key that is left out never means "unchecked": without measurements nothing is accepted.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use adyton_attestation::{
    Appraiser, Collateral, CollateralParts, Endorsements, MAX_COLLATERAL_JSON_LEN_BYTES, Policy,
    TdxReferences, Time, TrustAnchors,
};
use serde::Deserialize;

use crate::BrokerError;
use crate::files::read_capped;

const MAX_CERTIFICATE_LEN: u64 = 64 << 10;
/// All collateral in one file, as quoting tools write it.
const COLLATERAL_JSON: &str = "collateral.json";
/// Revocation lists of Intel: the ending is that of AMD's lists, which are found by it.
const INTEL_CRLS: [&str; 2] = ["root_ca.crl.der", "pck.crl.der"];

/// The `[evidence]` table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceRules {
    /// `strict` or `standard`; must be left out for a simulator.
    policy: Option<PolicyName>,
    /// Accepted launch measurements (SNP MEASUREMENT, TDX MRTD), 96 hexadecimal digits each.
    measurements: Vec<Hex<48>>,
    /// Accepted launch documents (SHA-256, as in HOST_DATA or at the head of MRCONFIGID), 64 hexadecimal digits each.
    host_data: Vec<Hex<32>>,
    /// Accepted machines (SHA-256 of CHIP_ID or PPID), 64 hexadecimal digits each.
    #[serde(default)]
    platform_ids: Vec<Hex<32>>,
    /// Least TCB beside the policy's own, such as `snp=24,ucode=220`.
    min_tcb: Option<String>,
    /// Folder with vendor certificates and revocation lists (`vcek.der`, `ask.der`, `ark.der`, `*.crl.der`).
    endorsements_dir: Option<PathBuf>,
    /// Root of a simulator: what is accepted under it is NOT CONFIDENTIAL.
    dangerous_simulator_root: Option<PathBuf>,
    /// What TDs must be beside that; without this table no TDX evidence is accepted.
    tdx: Option<TdxRules>,
}

/// The `[evidence.tdx]` table. An empty list accepts nothing.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TdxRules {
    /// Accepted XFAM values, as numbers (`0x602e7`).
    xfam: Vec<u64>,
    /// Accepted RTMR0 (firmware configuration), 96 hexadecimal digits each.
    rtmr0: Vec<Hex<48>>,
    /// Accepted RTMR1 (boot loader, kernel).
    rtmr1: Vec<Hex<48>>,
    /// Accepted RTMR2 (command line, initial file system).
    rtmr2: Vec<Hex<48>>,
    /// Accepted RTMR3; without it zero alone.
    rtmr3: Option<Vec<Hex<48>>>,
    /// Accepted TDX modules (MRSEAM).
    mr_seam: Vec<Hex<48>>,
    /// Accepted MRCONFIGID, in place of those of `host_data`.
    mr_config_ids: Option<Vec<Hex<48>>>,
    /// Accepted MROWNER with MROWNERCONFIG; without it any.
    owners: Option<TdxOwners>,
    /// Least tcbEvaluationDataNumber beside the policy's own: the highest one ever seen.
    min_evaluation_number: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TdxOwners {
    mr_owner: Vec<Hex<48>>,
    mr_owner_config: Vec<Hex<48>>,
}

impl TdxRules {
    fn apply(&self, policy: Policy) -> Policy {
        fn list(values: &[Hex<48>]) -> Vec<[u8; 48]> {
            values.iter().map(|hex| hex.0).collect()
        }
        let mut references = TdxReferences {
            xfam: self.xfam.clone(),
            rtmr0: list(&self.rtmr0),
            rtmr1: list(&self.rtmr1),
            rtmr2: list(&self.rtmr2),
            mr_seam: list(&self.mr_seam),
            ..TdxReferences::default()
        };
        if let Some(rtmr3) = &self.rtmr3 {
            references.rtmr3 = list(rtmr3);
        }
        let mut policy = policy.tdx_references(references);
        if let Some(ids) = &self.mr_config_ids {
            policy = policy.tdx_mr_config_ids(list(ids));
        }
        if let Some(owners) = &self.owners {
            policy = policy.tdx_owners(list(&owners.mr_owner), list(&owners.mr_owner_config));
        }
        if let Some(floor) = self.min_evaluation_number {
            policy = policy.min_tdx_evaluation_number(floor);
        }
        policy
    }
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
        let measurements = self.measurements.iter().map(|hex| hex.0);
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
        if let Some(tdx) = &self.tdx {
            policy = tdx.apply(policy);
        }
        if let Some(floor) = &self.min_tcb {
            let floor = floor.parse().map_err(|error| wrong(&format!("min_tcb: {error}")))?;
            policy = policy.min_tcb(floor);
        }
        Ok(Judge { anchors, endorsements, policy, simulated: self.dangerous_simulator_root.is_some() })
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

/// Reads the endorsements of a folder by their plain names; what is not there stays empty. TDX collateral is one file,
/// `collateral.json`, or the parts as Intel's service hands them out.
///
/// # Errors
/// [`BrokerError`] for a folder or file that cannot be read or is too long, and for collateral that is not whole.
pub fn load_endorsements(folder: &Path) -> Result<Endorsements, BrokerError> {
    let failed = |source| BrokerError::Read { path: folder.to_owned(), source };
    let mut crls = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        if name.ends_with(".crl.der") && !INTEL_CRLS.contains(&&*name) {
            crls.push(read_capped(&path, MAX_CERTIFICATE_LEN)?.to_vec());
        }
    }
    let optional = |name: &str| read_optional(folder, name, MAX_CERTIFICATE_LEN);
    Ok(Endorsements {
        vcek: optional("vcek.der")?,
        vlek: optional("vlek.der")?,
        ask: optional("ask.der")?,
        asvk: optional("asvk.der")?,
        ark: optional("ark.der")?,
        crls,
        tdx_collateral: load_collateral(folder)?,
    })
}

fn read_optional(folder: &Path, name: &str, max: u64) -> Result<Option<Vec<u8>>, BrokerError> {
    let path = folder.join(name);
    path.exists().then(|| read_capped(&path, max).map(|bytes| bytes.to_vec())).transpose()
}

fn load_collateral(folder: &Path) -> Result<Option<Collateral>, BrokerError> {
    if let Some(json) = read_optional(folder, COLLATERAL_JSON, MAX_COLLATERAL_JSON_LEN_BYTES as u64)? {
        return Collateral::from_json(&json).map(Some).map_err(BrokerError::Collateral);
    }
    let part = |name: &str| read_optional(folder, name, MAX_CERTIFICATE_LEN);
    let [root_crl, pck_crl] = INTEL_CRLS;
    let parts = CollateralParts {
        tcb_info: part("tcb_info.json")?,
        tcb_info_issuer_chain: part("tcb_info_issuer_chain.pem")?,
        qe_identity: part("qe_identity.json")?,
        qe_identity_issuer_chain: part("qe_identity_issuer_chain.pem")?,
        root_crl: part(root_crl)?,
        pck_crl: part(pck_crl)?,
        pck_crl_issuer_chain: part("pck_crl_issuer_chain.pem")?,
    };
    parts.assemble().map_err(BrokerError::Collateral)
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
    fn a_production_policy_cannot_name_a_simulator() {
        let both =
            "policy = 'standard'\nmeasurements = []\nhost_data = []\ndangerous_simulator_root = 'root.der'";
        assert!(load(both).unwrap_err().contains("exclude each other"));
        assert!(load("policy = 'vendor'\nmeasurements = []\nhost_data = []").is_err());
    }

    #[test]
    fn a_tdx_table_names_every_reference_or_is_an_error() {
        let common = "measurements = []\nhost_data = []\n[tdx]\n";
        assert!(load(&format!("{common}xfam = [0x602e7]")).unwrap_err().contains("rtmr0"));
        let whole = "xfam = [0x602e7]\nrtmr0 = []\nrtmr1 = []\nrtmr2 = []\nmr_seam = []\n";
        assert!(load(&format!("{common}{whole}min_evaluation_number = 21")).is_ok());
        assert!(load(&format!("{common}{whole}rtmr4 = []")).unwrap_err().contains("rtmr4"));
        assert!(load(&format!("{common}{whole}rtmr3 = ['00']")).unwrap_err().contains("96 hexadecimal"));
    }

    #[test]
    fn collateral_that_is_not_whole_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load_endorsements(folder.path()).unwrap().tdx_collateral.is_none());
        std::fs::write(folder.path().join("root_ca.crl.der"), [1]).unwrap();
        let refusal = load_endorsements(folder.path()).unwrap_err().to_string();
        assert!(refusal.contains("no TCB info") && refusal.contains("no PCK CRL"), "{refusal}");
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
