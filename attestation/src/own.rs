//! An enclave's look at its own evidence before it speaks: is it launched as its document says, and not open to the host?
//!
//! This is no verification, since an enclave cannot tell a genuine signature by a clock it does not trust. It catches
//! a wrong launch early, with a message on the operator's console, instead of a refusal at each client.

use crate::commit::{Digest, ReportData, hash};
use crate::evidence::Evidence;
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

    /// `H(platform id)` as the report states it; for comparing a grant with one's own machine.
    #[must_use]
    pub fn own_platform_id(&self) -> Digest {
        hash(&self.report.chip_id())
    }
}
