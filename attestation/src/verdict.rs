//! The verdict: what was looked at, in order, and what came of it.
//!
//! Success and failure both carry every step, so an auditor can replay the decision. A step that was not done is
//! [`StepResult::Skip`] and says why; a skip never counts as a pass. [`Reason`] is the coarse class of a failure,
//! stable in spelling because scripts and policies match on it.

use core::fmt;

/// Why Evidence was refused. The text form is the class in kebab case and never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The Evidence envelope or certificate table is not well formed.
    Encoding,
    /// The platform named in the Evidence is not one this verifier knows or was set up for.
    ForeignTee,
    /// The report is not exactly as long as its format says.
    Size,
    /// The report version is unknown, or older than the policy takes.
    Version,
    /// The signature algorithm is not the one the platform uses.
    Algorithm,
    /// Padding in the signature is not zero, or a component is out of range.
    SignatureEncoding,
    /// A reserved field holds what it must not.
    Reserved,
    /// A certificate needed to verify was not supplied.
    EndorsementMissing,
    /// The chain does not end in a trusted root.
    UntrustedRoot,
    /// The certificates do not form a proper chain.
    Chain,
    /// A certificate is past its validity.
    Expired,
    /// A certificate is not valid yet.
    NotYetValid,
    /// A revocation list is not signed by the root of this chain.
    CrlSignature,
    /// A revocation list is out of date.
    CrlStale,
    /// Policy requires a revocation list and none was supplied.
    CrlMissing,
    /// A certificate of the chain is revoked.
    Revoked,
    /// The report signature is wrong.
    Signature,
    /// The report names another kind of signing key than the certificate supplied.
    SigningKey,
    /// The certificate belongs to another chip, or the chip is not named.
    Hwid,
    /// The certificate is for another TCB than the report claims.
    TcbBinding,
    /// The TCB values of the report contradict each other.
    TcbOrder,
    /// A TCB is below the minimum.
    TcbMinimum,
    /// The CPU has no row in the TCB table, so no minimum is known.
    TcbUnknownCpu,
    /// The CPU product contradicts the certificates, or policy does not accept it.
    Product,
    /// Firmware that is not committed (it can still be rolled back) was running.
    ProvisionalFirmware,
    /// A firmware mitigation the policy requires is absent.
    Mitigation,
    /// The report was requested from a privilege level the policy does not accept, or by the host.
    Vmpl,
    /// The guest policy allows debugging.
    PolicyDebug,
    /// The guest policy allows a migration agent.
    PolicyMigrate,
    /// The guest policy allows, or lacks, another feature against the appraisal policy.
    PolicyBits,
    /// The guest policy asks for a newer firmware interface than the firmware has.
    PolicyAbi,
    /// The platform configuration lacks a required feature or has a forbidden or unknown one.
    PlatformInfo,
    /// The launch measurement is not a reference value.
    Measurement,
    /// HOST_DATA is not what was expected.
    HostData,
    /// REPORT_DATA is not what was expected: the Evidence is not for this challenge.
    ReportData,
    /// The chip is not on the allow-list.
    ChipAllowlist,
    /// The ID key or author key digest is not what was expected.
    IdKey,
    /// The guest security version is below the minimum.
    GuestSvn,
    /// The TEE type of a quote is unknown or contradicts its body.
    TeeType,
    /// The quoting enclave is not of Intel's make.
    QeVendor,
    /// The PCK key did not sign the report of the quoting enclave.
    QeReportSignature,
    /// The report of the quoting enclave does not bind the attestation key.
    QeReportData,
    /// The quoting enclave is not the one Intel published, or that document is not of its kind.
    QeIdentity,
    /// Intel did not sign the identity of the quoting enclave.
    QeIdentitySignature,
    /// The attestation key did not sign the quote.
    QuoteSignature,
    /// The TCB info is not a document of its kind.
    TcbInfo,
    /// Intel did not sign the TCB info.
    TcbInfoSignature,
    /// A signed document is out of date.
    CollateralExpired,
    /// The TCB info is for another kind of platform.
    Fmspc,
    /// The TDX module is not signed or set up as Intel's are.
    TdxModule,
    /// No published TCB level is reached.
    TcbNoMatch,
    /// The TCB level reached is out of date.
    TcbOutOfDate,
    /// The TCB level reached needs another configuration of the platform.
    TcbConfigurationNeeded,
    /// The TCB level reached needs hardening of the software inside.
    TcbSwHardeningNeeded,
    /// The TCB level reached is revoked.
    TcbRevoked,
    /// The documents are of an evaluation below the minimum.
    TcbEvaluation,
    /// The host may debug or profile the guest.
    Debug,
    /// The host can inject faults for pages it took away.
    SeptVeDisable,
    /// A service TD is bound to the guest.
    ServiceTd,
    /// A TD attribute is reserved or not as the policy says.
    TdAttributes,
    /// The processor state that the TD may use is not as the policy says.
    Xfam,
    /// The TDX module or its signer is not a reference value.
    MrSeam,
    /// A runtime measurement is not a reference value.
    Rtmr,
    /// MROWNER or MROWNERCONFIG is not what was expected.
    MrOwner,
    /// Simulated Evidence where hardware is required, or the reverse.
    Simulated,
    /// Fresh evidence was asked for, or is needed for a key set that was never verified freshly.
    NotFresh,
    /// The key shown in the TLS handshake is not the attested one.
    TlsKey,
    /// The attested identity key did not sign this challenge and connection.
    SessionBinding,
    /// The key set lives longer than one may.
    KeySetLife,
    /// The model owner has not admitted this key set on this machine.
    Admission,
    /// The model is not the one asked for.
    Manifest,
    /// An event log is not well formed, or its data contradicts its digests.
    EventLog,
    /// An event log does not lead to the registers of the quote.
    RtmrReplay,
}

impl Reason {
    /// The class as text, in kebab case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Encoding => "encoding",
            Self::ForeignTee => "foreign-tee",
            Self::Size => "size",
            Self::Version => "version",
            Self::Algorithm => "algorithm",
            Self::SignatureEncoding => "signature-encoding",
            Self::Reserved => "reserved",
            Self::EndorsementMissing => "endorsement-missing",
            Self::UntrustedRoot => "untrusted-root",
            Self::Chain => "chain",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::CrlSignature => "crl-signature",
            Self::CrlStale => "crl-stale",
            Self::CrlMissing => "crl-missing",
            Self::Revoked => "revoked",
            Self::Signature => "signature",
            Self::SigningKey => "signing-key",
            Self::Hwid => "hwid",
            Self::TcbBinding => "tcb-binding",
            Self::TcbOrder => "tcb-order",
            Self::TcbMinimum => "tcb-minimum",
            Self::TcbUnknownCpu => "tcb-unknown-cpu",
            Self::Product => "product",
            Self::ProvisionalFirmware => "provisional-firmware",
            Self::Mitigation => "mitigation",
            Self::Vmpl => "vmpl",
            Self::PolicyDebug => "policy-debug",
            Self::PolicyMigrate => "policy-migrate",
            Self::PolicyBits => "policy-bits",
            Self::PolicyAbi => "policy-abi",
            Self::PlatformInfo => "platform-info",
            Self::Measurement => "measurement",
            Self::HostData => "host-data",
            Self::ReportData => "report-data",
            Self::ChipAllowlist => "chip-allowlist",
            Self::IdKey => "id-key",
            Self::GuestSvn => "guest-svn",
            Self::TeeType => "tee-type",
            Self::QeVendor => "qe-vendor",
            Self::QeReportSignature => "qe-report-signature",
            Self::QeReportData => "qe-report-data",
            Self::QeIdentity => "qe-identity",
            Self::QeIdentitySignature => "qe-identity-signature",
            Self::QuoteSignature => "quote-signature",
            Self::TcbInfo => "tcb-info",
            Self::TcbInfoSignature => "tcb-info-signature",
            Self::CollateralExpired => "collateral-expired",
            Self::Fmspc => "fmspc",
            Self::TdxModule => "tdx-module",
            Self::TcbNoMatch => "tcb-no-match",
            Self::TcbOutOfDate => "tcb-out-of-date",
            Self::TcbConfigurationNeeded => "tcb-configuration-needed",
            Self::TcbSwHardeningNeeded => "tcb-sw-hardening-needed",
            Self::TcbRevoked => "tcb-revoked",
            Self::TcbEvaluation => "tcb-evaluation",
            Self::Debug => "debug",
            Self::SeptVeDisable => "sept-ve-disable",
            Self::ServiceTd => "service-td",
            Self::TdAttributes => "td-attributes",
            Self::Xfam => "xfam",
            Self::MrSeam => "mr-seam",
            Self::Rtmr => "rtmr",
            Self::MrOwner => "mr-owner",
            Self::Simulated => "simulated",
            Self::NotFresh => "not-fresh",
            Self::TlsKey => "tls-key",
            Self::SessionBinding => "session-binding",
            Self::KeySetLife => "key-set-life",
            Self::Admission => "admission",
            Self::Manifest => "manifest",
            Self::EventLog => "event-log",
            Self::RtmrReplay => "rtmr-replay",
        }
    }

    /// True if policy, not authenticity, refused: the Evidence may be genuine and still unwelcome.
    #[must_use]
    pub const fn is_policy(self) -> bool {
        matches!(
            self,
            Self::CrlMissing
                | Self::TcbMinimum
                | Self::TcbUnknownCpu
                | Self::ProvisionalFirmware
                | Self::Mitigation
                | Self::Vmpl
                | Self::PolicyDebug
                | Self::PolicyMigrate
                | Self::PolicyBits
                | Self::PlatformInfo
                | Self::Measurement
                | Self::HostData
                | Self::ChipAllowlist
                | Self::IdKey
                | Self::GuestSvn
                | Self::TcbOutOfDate
                | Self::TcbConfigurationNeeded
                | Self::TcbSwHardeningNeeded
                | Self::TcbRevoked
                | Self::TcbEvaluation
                | Self::Debug
                | Self::SeptVeDisable
                | Self::ServiceTd
                | Self::TdAttributes
                | Self::Xfam
                | Self::MrSeam
                | Self::Rtmr
                | Self::MrOwner
                | Self::Admission
                | Self::Manifest
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What came of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepResult {
    /// Looked at and in order.
    Pass,
    /// Looked at and refused.
    Fail(Reason),
    /// Not looked at; the detail says why. Never equal to a pass.
    Skip,
}

impl StepResult {
    /// `pass`, `fail` or `skip`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail(_) => "fail",
            Self::Skip => "skip",
        }
    }
}

/// One step of a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Stable name in kebab case.
    pub name: &'static str,
    /// What came of it.
    pub result: StepResult,
    /// The values compared, for people. No secret is ever in it: Evidence has none.
    pub detail: String,
}

/// Evidence was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// Class of the first step that failed.
    pub reason: Reason,
    /// Every step taken, in order, the failed ones included.
    pub steps: Vec<Step>,
}

impl Rejected {
    /// True if policy refused what may be genuine, false if the evidence itself is wrong.
    ///
    /// Some classes occur on both sides (a report version may be unknown, or known and too old for the policy), so
    /// the step that failed decides there.
    #[must_use]
    pub fn by_policy(&self) -> bool {
        const POLICY_STEPS: [&str; 5] =
            ["policy-platform", "report-version", "signing-key", "product-accepted", "revocation-fresh"];
        let failed = self.steps.iter().find(|step| matches!(step.result, StepResult::Fail(_)));
        self.reason.is_policy() || failed.is_some_and(|step| POLICY_STEPS.contains(&step.name))
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "evidence refused ({})", self.reason)?;
        for step in self.steps.iter().filter(|step| matches!(step.result, StepResult::Fail(_))) {
            write!(f, "; {}: {}", step.name, step.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Rejected {}

/// A failed look: its class and the values that show it.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

impl Finding {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// The steps taken so far.
#[derive(Debug, Default)]
pub(crate) struct StepLog(Vec<Step>);

/// A step failed and was logged; only [`StepLog`] makes one, so no failure goes unrecorded.
#[derive(Debug)]
pub(crate) struct Halt(Reason);

impl StepLog {
    /// Goes on from steps that all passed or were skipped.
    pub(crate) fn from_steps(steps: &[Step]) -> Self {
        Self(steps.to_vec())
    }

    /// How many steps were taken.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The steps after the first `before`.
    pub(crate) fn since(&self, before: usize) -> &[Step] {
        self.0.get(before..).unwrap_or_default()
    }

    /// Adds steps that were taken before and still hold.
    pub(crate) fn extend(&mut self, steps: &[Step]) {
        self.0.extend_from_slice(steps);
    }

    pub(crate) fn pass(&mut self, name: &'static str, detail: impl Into<String>) {
        self.0.push(Step { name, result: StepResult::Pass, detail: detail.into() });
    }

    pub(crate) fn skip(&mut self, name: &'static str, detail: impl Into<String>) {
        self.0.push(Step { name, result: StepResult::Skip, detail: detail.into() });
    }

    pub(crate) fn fail(&mut self, name: &'static str, reason: Reason, detail: impl Into<String>) {
        self.0.push(Step { name, result: StepResult::Fail(reason), detail: detail.into() });
    }

    /// Turns a failed step into a skipped one, with `note` before its detail; true if there was one.
    pub(crate) fn excuse(&mut self, name: &str, note: &str) -> bool {
        let failed = |step: &&mut Step| step.name == name && matches!(step.result, StepResult::Fail(_));
        let Some(step) = self.0.iter_mut().find(failed) else { return false };
        step.result = StepResult::Skip;
        step.detail = format!("{note}: {}", step.detail);
        true
    }

    /// True if a step of this name passed.
    pub(crate) fn passed(&self, name: &str) -> bool {
        self.0.iter().any(|step| step.name == name && step.result == StepResult::Pass)
    }

    /// Records a pass with the returned detail, or the finding.
    pub(crate) fn step<T>(
        &mut self,
        name: &'static str,
        outcome: Result<(T, String), Finding>,
    ) -> Result<T, Halt> {
        match outcome {
            Ok((value, detail)) => {
                self.pass(name, detail);
                Ok(value)
            }
            Err(finding) => {
                let Finding { reason, detail } = finding;
                self.fail(name, reason, detail);
                Err(Halt(reason))
            }
        }
    }

    /// The steps, whatever came of them.
    pub(crate) fn into_steps(self) -> Vec<Step> {
        self.0
    }

    /// The steps, or `Rejected` if any failed.
    pub(crate) fn finish(self) -> Result<Vec<Step>, Rejected> {
        let first = self.0.iter().find_map(|step| match step.result {
            StepResult::Fail(reason) => Some(reason),
            _ => None,
        });
        match first {
            None => Ok(self.0),
            Some(reason) => Err(Rejected { reason, steps: self.0 }),
        }
    }

    /// The refusal that `halt` proves was logged.
    pub(crate) fn into_rejected(self, Halt(reason): Halt) -> Rejected {
        Rejected { reason, steps: self.0 }
    }

    /// A one-step refusal.
    pub(crate) fn refusal(name: &'static str, finding: Finding) -> Rejected {
        let Finding { reason, detail } = finding;
        Rejected { reason, steps: vec![Step { name, result: StepResult::Fail(reason), detail }] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(name: &'static str, reason: Reason) -> Rejected {
        StepLog::refusal(name, Finding::new(reason, "seen and wanted"))
    }

    #[test]
    fn the_step_decides_whose_fault_a_shared_class_is() {
        assert!(!rejected("format", Reason::Version).by_policy());
        assert!(rejected("report-version", Reason::Version).by_policy());
        assert!(rejected("vmpl", Reason::Vmpl).by_policy());
        assert!(!rejected("signature", Reason::Signature).by_policy());
    }

    #[test]
    fn a_refusal_says_which_step_saw_what() {
        let text = rejected("vmpl", Reason::Vmpl).to_string();
        assert_eq!(text, "evidence refused (vmpl); vmpl: seen and wanted");
    }

    #[test]
    fn the_first_failure_gives_the_reason_and_a_skip_is_no_failure() {
        let mut log = StepLog::default();
        log.skip("a", "");
        log.fail("b", Reason::Vmpl, "");
        log.fail("c", Reason::Size, "");
        assert_eq!(log.finish().unwrap_err().reason, Reason::Vmpl);
        let mut log = StepLog::default();
        log.skip("a", "");
        assert_eq!(log.finish().unwrap()[0].result, StepResult::Skip);
    }
}
