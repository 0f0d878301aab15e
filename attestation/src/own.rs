//! An enclave's look at its own evidence before it speaks: is it launched as its document says, and not open to the host?
//!
//! This is no verification, since an enclave cannot tell a genuine signature by a clock it does not trust. It catches
//! a wrong launch early, with a message on the operator's console, instead of a refusal at each client.

use crate::commit::{Digest, ReportData, hash};
use crate::evidence::Evidence;
use crate::hex_string;
use crate::snp::report::GuestPolicy;
use crate::verdict::{Finding, Reason, Rejected, StepLog};

impl Evidence {
    /// Looks at evidence that the caller itself just got from its platform.
    ///
    /// # Errors
    /// [`Rejected`] with the first thing that is wrong: report data, launch document, debugging, privilege level.
    pub fn inspect_own(&self, report_data: &ReportData, config_digest: &Digest) -> Result<(), Rejected> {
        let report = &self.report;
        let findings = [
            (
                report.report_data() == *report_data,
                Reason::ReportData,
                "the platform signed other report data",
            ),
            (
                report.host_data() == *config_digest,
                Reason::HostData,
                "HOST_DATA is not the hash of the launch document",
            ),
            (
                !report.policy().bit(GuestPolicy::DEBUG),
                Reason::PolicyDebug,
                "the guest policy lets the host debug it",
            ),
            (report.vmpl() == 0, Reason::Vmpl, "the guest does not run at VMPL 0"),
        ];
        match findings.into_iter().find(|(holds, _, _)| !holds) {
            None => Ok(()),
            Some((_, reason, detail)) => Err(StepLog::refusal("own-evidence", Finding::new(reason, detail))),
        }
    }

    /// What the evidence says of itself, as names and values. Nothing of it is verified.
    #[must_use]
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let report = &self.report;
        let cpuid = report.cpuid().map_or_else(|| "not in this version".into(), |cpuid| hex_string(&cpuid));
        let (major, minor, build) = report.current_version();
        vec![
            ("platform", self.platform().to_string()),
            ("report_version", report.version().to_string()),
            ("cpuid", cpuid),
            ("firmware", format!("{major}.{minor}.{build}")),
            ("vmpl", report.vmpl().to_string()),
            ("guest_svn", report.guest_svn().to_string()),
            ("guest_policy", format!("{:#x}", report.policy().bits())),
            ("platform_info", format!("{:#x}", report.platform_info().bits())),
            ("measurement", hex_string(&report.measurement())),
            ("host_data", hex_string(&report.host_data())),
            ("report_data", hex_string(&report.report_data())),
            ("id_key_digest", hex_string(&report.id_key_digest())),
            ("report_id", hex_string(&report.report_id())),
            ("chip_id", hex_string(&report.chip_id())),
        ]
    }

    /// `H(platform id)` as the report states it; for comparing a grant with one's own machine.
    #[must_use]
    pub fn own_platform_id(&self) -> Digest {
        hash(&self.report.chip_id())
    }
}
