//! By what evidence is judged, as owners and clients write it down: the `[evidence]` table of their TOML files.
//!
//! A key that is left out never means "unchecked": without measurements nothing is accepted.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use adyton_attestation::reference::ReferenceValues;
use adyton_attestation::{
    Appraiser, Collateral, CollateralParts, Endorsements, MAX_COLLATERAL_JSON_LEN_BYTES, Platform, Policy,
    TdxReferences, Time, TrustAnchors, Waiver,
};
use serde::Deserialize;

use crate::BrokerError;
use crate::files::read_capped;

const MAX_CERTIFICATE_LEN: u64 = 64 << 10;
const MAX_REFERENCE_LEN: u64 = 1 << 20;
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
    /// Signed reference values of a release; their measurements are accepted beside those listed here.
    reference: Option<ReferenceRules>,
    /// Single rules set aside until a day; every verdict lists them.
    #[serde(default)]
    waivers: Vec<WaiverRule>,
    /// What TDs must be beside that; without this table no TDX evidence is accepted.
    tdx: Option<TdxRules>,
}

/// The `[evidence.reference]` table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReferenceRules {
    /// The signed reference values.
    file: PathBuf,
    /// Public key of whoever releases, 64 hexadecimal digits.
    key: Hex<32>,
    /// The least counter that is taken: that of the last release used, so that an older one does not come back.
    min_counter: u64,
}

/// One of `[[evidence.waivers]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct WaiverRule {
    /// A step of appraisal, such as `tcb-table`, or an advisory, such as `INTEL-SA-00837`.
    name: String,
    /// From then on it excuses nothing: `2027-01-31T00:00:00Z`.
    until: String,
    /// Why; printed in every verdict.
    why: String,
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
    /// Accepted RTMR3; without it zero, and what an event log beside the quote accounts for.
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
    fn apply(&self, policy: Policy, released: Option<&ReferenceValues>) -> Policy {
        fn list(values: &[Hex<48>]) -> Vec<[u8; 48]> {
            values.iter().map(|hex| hex.0).collect()
        }
        let references = TdxReferences {
            launches: released.map(ReferenceValues::td_launches).unwrap_or_default(),
            xfam: self.xfam.clone(),
            rtmr0: list(&self.rtmr0),
            rtmr1: list(&self.rtmr1),
            rtmr2: list(&self.rtmr2),
            rtmr3: self.rtmr3.as_deref().map(list),
            mr_seam: list(&self.mr_seam),
        };
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
    /// Until when the policy with reference values holds, and the one without them for the time after that.
    references_end: Option<(Time, Policy)>,
    simulated: bool,
    rules: EvidenceRules,
    path: PathBuf,
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
        let anchors = match (&self.dangerous_simulator_root, self.policy) {
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "`policy` and `dangerous_simulator_root` exclude each other: no production policy accepts a simulator",
                ));
            }
            (Some(root), None) => {
                let root = read_capped(&base.join(root), MAX_CERTIFICATE_LEN)?;
                TrustAnchors::dangerous_simulator(&root).map_err(BrokerError::Anchor)?
            }
            (None, _) => TrustAnchors::pinned(),
        };
        let references = self.reference.as_ref().map(|reference| reference.read(base)).transpose()?;
        let policy = |references| self.policy(references).map_err(|message| wrong(&message));
        let references_end = match &references {
            Some(references) => Some((references.not_after, policy(None)?)),
            None => None,
        };
        Ok(Judge {
            anchors,
            endorsements,
            policy: policy(references.as_ref())?,
            references_end,
            simulated: self.dangerous_simulator_root.is_some(),
            rules: self.clone(),
            path: path.to_owned(),
        })
    }

    /// The policy of these rules, with the reference values of a release if there are any.
    fn policy(&self, references: Option<&ReferenceValues>) -> Result<Policy, String> {
        let released = |platform| references.map(|values| values.measurements(platform)).unwrap_or_default();
        let listed = self.measurements.iter().map(|hex| hex.0);
        let host_data = self.host_data.iter().map(|hex| hex.0);
        let mut policy = if self.dangerous_simulator_root.is_some() {
            Policy::dangerous_simulated(listed.chain(released(Platform::Simulated)), host_data)
        } else {
            let policy = match self.policy.unwrap_or(PolicyName::Standard) {
                PolicyName::Strict => Policy::strict(),
                PolicyName::Standard => Policy::standard(),
            };
            policy.measurements(listed.chain(released(Platform::SevSnp))).host_data(host_data)
        };
        if !self.platform_ids.is_empty() || self.dangerous_simulator_root.is_none() {
            policy = policy.chip_allowlist(self.platform_ids.iter().map(|hex| hex.0));
        }
        if let Some(tdx) = &self.tdx {
            policy = tdx.apply(policy, references);
        }
        if let Some(floor) = &self.min_tcb {
            policy = policy.min_tcb(floor.parse().map_err(|error| format!("min_tcb: {error}"))?);
        }
        let waivers = self.waivers.iter().map(WaiverRule::read).collect::<Result<Vec<_>, _>>()?;
        Ok(policy.waivers(waivers))
    }
}

impl ReferenceRules {
    fn read(&self, base: &Path) -> Result<ReferenceValues, BrokerError> {
        let path = base.join(&self.file);
        let bytes = read_capped(&path, MAX_REFERENCE_LEN)?;
        // Their end is looked at each time evidence is judged, at the time of that judgement.
        ReferenceValues::verify(&self.key.0, &bytes, self.min_counter, Time::from_unix_seconds(0))
            .map_err(|error| BrokerError::Config { path, message: error.to_string() })
    }
}

impl WaiverRule {
    fn read(&self) -> Result<Waiver, String> {
        let until = self.until.parse().map_err(|error| format!("waiver of {}: until: {error}", self.name))?;
        Waiver::new(&self.name, until, &self.why).map_err(|error| format!("waiver: {error}"))
    }
}

impl Judge {
    /// The rules at a moment.
    #[must_use]
    pub fn appraiser(&self, now: Time) -> Appraiser<'_> {
        let policy = match &self.references_end {
            Some((end, without)) if now >= *end => without,
            _ => &self.policy,
        };
        Appraiser { anchors: &self.anchors, endorsements: &self.endorsements, policy, now }
    }

    /// The same rules with every file they name read again: revocation lists and collateral go on changing.
    ///
    /// # Errors
    /// As [`EvidenceRules::load`].
    pub fn reloaded(&self) -> Result<Self, BrokerError> {
        self.rules.load(&self.path)
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

    const NOTHING: &str = "measurements = []\nhost_data = []\n";

    #[test]
    fn a_waiver_needs_a_name_an_end_and_a_reason() {
        let waiver = |fields: &str| load(&format!("{NOTHING}[[waivers]]\n{fields}")).map(|_| ());
        let good = "name = 'tcb-table'\nuntil = '2027-01-31T00:00:00Z'\nwhy = 'firmware is ordered'";
        assert_eq!(waiver(good), Ok(()));
        assert!(waiver(&good.replace("tcb-table", "measurement")).unwrap_err().contains("cannot be waived"));
        assert!(waiver(&good.replace("2027-01-31T00:00:00Z", "soon")).unwrap_err().contains("until"));
        assert!(waiver(&good.replace("firmware is ordered", "")).unwrap_err().contains("no reason"));
        assert!(waiver("name = 'tcb-table'\nwhy = 'x'").unwrap_err().contains("until"));
    }

    #[test]
    fn released_tds_are_taken_whole_and_their_mrtd_for_nothing_else() {
        use adyton_attestation::reference::Launch;

        let td = Launch {
            name: "TD".into(),
            platform: Platform::Tdx,
            measurement: [7; 48],
            rtmrs: Some([[1; 48], [2; 48], [3; 48]]),
            inputs: vec![],
        };
        let end = Time::from_unix_seconds(1000);
        let values =
            ReferenceValues { release: "1.0.0".into(), counter: 3, not_after: end, launches: vec![td] };
        let whole = "[tdx]\nxfam = [0x602e7]\nrtmr0 = []\nrtmr1 = []\nrtmr2 = []\nmr_seam = []\n";
        let rules: EvidenceRules = toml::from_str(&format!("{NOTHING}{whole}")).unwrap();
        let launch = format!("{:?}", [[7_u8; 48], [1; 48], [2; 48], [3; 48]]);
        let shown = |references| format!("{:?}", rules.policy(references).unwrap());
        assert!(shown(Some(&values)).contains(&format!("launches: [{launch}]")));
        assert_eq!(shown(Some(&values)).replace(&launch, ""), shown(None), "nowhere else");
    }

    #[test]
    fn reference_values_count_until_their_end_and_not_after() {
        use adyton_attestation::reference::Launch;
        use ring::signature::{Ed25519KeyPair, KeyPair as _};

        let folder = tempfile::tempdir().unwrap();
        let key = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        let end = Time::from_unix_seconds(1000);
        let launch = Launch {
            name: "EPYC-Genoa".into(),
            platform: Platform::SevSnp,
            measurement: [7; 48],
            rtmrs: None,
            inputs: vec![],
        };
        let values =
            ReferenceValues { release: "1.0.0".into(), counter: 3, not_after: end, launches: vec![launch] };
        std::fs::write(folder.path().join("release.cose"), values.sign(&key).unwrap()).unwrap();
        let public = hex::encode(key.public_key());
        let load = |counter: u64, public: &str| {
            let text = format!(
                "{NOTHING}[reference]\nfile = 'release.cose'\nkey = '{public}'\nmin_counter = {counter}\n"
            );
            let rules: EvidenceRules = toml::from_str(&text).unwrap();
            rules.load(&folder.path().join("rules.toml")).map_err(|error| error.to_string())
        };
        let judge = load(3, &public).unwrap();
        let takes = |judge: &Judge, now: u64| {
            let policy = judge.appraiser(Time::from_unix_seconds(now)).policy;
            format!("{policy:?}").contains(&format!("{:?}", [7; 48]))
        };
        assert!(takes(&judge, 999) && !takes(&judge, 1000));
        assert!(load(4, &public).unwrap_err().contains("at least 4"));
        assert!(load(3, &"00".repeat(32)).unwrap_err().contains("signature"));
        // A newer release takes its place without a restart.
        std::fs::remove_file(folder.path().join("release.cose")).unwrap();
        assert!(judge.reloaded().is_err());
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
