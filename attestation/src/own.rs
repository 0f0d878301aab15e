//! An enclave's look at its own evidence before it speaks: is it launched as its document says, and not open to the host?
//!
//! This is no verification, since an enclave cannot tell a genuine signature by a clock it does not trust. It catches
//! a wrong launch early, with a message on the operator's console, instead of a refusal at each client.

use crate::commit::{Digest, ReportData, hash};
use crate::evidence::{Body, Evidence};
use crate::hex_string;
use crate::pem::certificates;
use crate::snp::report::{GuestPolicy, Report};
use crate::tdx::pck::PckExtensions;
use crate::tdx::quote::Quote;
use crate::verdict::{Finding, Reason, Rejected, StepLog};
use crate::x509::Certificate;

impl Evidence {
    /// Looks at evidence that the caller itself just got from its platform.
    ///
    /// # Errors
    /// [`Rejected`] with the first thing that is wrong: report data, launch document, debugging, privilege level.
    pub fn inspect_own(&self, report_data: &ReportData, config_digest: &Digest) -> Result<(), Rejected> {
        let findings = match &self.body {
            Body::Snp { report, .. } => own_report(report, report_data, config_digest),
            Body::Tdx { quote, .. } => own_quote(quote, report_data, config_digest),
        };
        match findings.into_iter().find(|(holds, _, _)| !holds) {
            None => Ok(()),
            Some((_, reason, detail)) => Err(StepLog::refusal("own-evidence", Finding::new(reason, detail))),
        }
    }

    /// What the evidence says of itself, as names and values. Nothing of it is verified.
    #[must_use]
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![("platform", self.platform().to_string())];
        match &self.body {
            Body::Snp { report, .. } => fields.extend(describe_report(report)),
            Body::Tdx { quote, .. } => fields.extend(describe_quote(quote)),
        }
        fields
    }

    /// `H(platform id)` as the Evidence states it; for comparing a grant with one's own machine. Zero for a quote whose
    /// PCK certificate cannot be read.
    #[must_use]
    pub fn own_platform_id(&self) -> Digest {
        match &self.body {
            Body::Snp { report, .. } => hash(&report.chip_id()),
            Body::Tdx { quote, .. } => pck_of(quote).map_or([0; 32], |pck| hash(&pck.ppid)),
        }
    }
}

type Look = (bool, Reason, &'static str);

fn own_report(report: &Report, report_data: &ReportData, config_digest: &Digest) -> Vec<Look> {
    vec![
        (report.report_data() == *report_data, Reason::ReportData, "the platform signed other report data"),
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
    ]
}

fn own_quote(quote: &Quote, report_data: &ReportData, config_digest: &Digest) -> Vec<Look> {
    let td = quote.td_report();
    let config_id = td.mr_config_id();
    let (head, tail) = config_id.split_at(config_digest.len());
    vec![
        (td.report_data() == *report_data, Reason::ReportData, "the platform signed other report data"),
        (
            head == config_digest && tail.iter().all(|byte| *byte == 0),
            Reason::HostData,
            "MRCONFIGID is not the hash of the launch document",
        ),
        (!td.attributes().under_debug(), Reason::Debug, "the TD attributes let the host debug it"),
    ]
}

fn describe_report(report: &Report) -> Vec<(&'static str, String)> {
    let cpuid = report.cpuid().map_or_else(|| "not in this version".into(), |cpuid| hex_string(&cpuid));
    let (major, minor, build) = report.current_version();
    vec![
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

fn describe_quote(quote: &Quote) -> Vec<(&'static str, String)> {
    let td = quote.td_report();
    let [rtmr0, rtmr1, rtmr2, rtmr3] = td.rtmrs().map(|rtmr| hex_string(&rtmr));
    let mut fields = vec![
        ("quote_version", quote.version().to_string()),
        ("body", quote.body_name().to_owned()),
        ("tee_tcb_svn", hex_string(&td.tee_tcb_svn())),
        ("mr_seam", hex_string(&td.mr_seam())),
        ("mr_signer_seam", hex_string(&td.mr_signer_seam())),
        ("seam_attributes", hex_string(&td.seam_attributes())),
        ("td_attributes", format!("{:#x}", td.attributes().bits())),
        ("xfam", format!("{:#x}", td.xfam())),
        ("mr_td", hex_string(&td.mr_td())),
        ("mr_config_id", hex_string(&td.mr_config_id())),
        ("mr_owner", hex_string(&td.mr_owner())),
        ("mr_owner_config", hex_string(&td.mr_owner_config())),
        ("rtmr0", rtmr0),
        ("rtmr1", rtmr1),
        ("rtmr2", rtmr2),
        ("rtmr3", rtmr3),
        ("report_data", hex_string(&td.report_data())),
    ];
    fields.extend(td.tee_tcb_svn_2().map(|svn| ("tee_tcb_svn_2", hex_string(&svn))));
    fields.extend(td.mr_service_td().map(|bound| ("mr_service_td", hex_string(&bound))));
    if let Some(pck) = pck_of(quote) {
        fields.push(("fmspc", hex_string(&pck.fmspc)));
        fields.push(("platform_id", hex_string(&hash(&pck.ppid))));
    }
    fields
}

/// The platform that the quote's PCK certificate names. Not verified.
fn pck_of(quote: &Quote) -> Option<PckExtensions> {
    let chain = certificates(quote.pck_chain())?;
    let certificate = Certificate::parse("PCK certificate", chain.first()?).ok()?;
    PckExtensions::of(&certificate).ok()
}
