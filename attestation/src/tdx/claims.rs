//! What an accepted quote says, every part signed.

use std::sync::Arc;

use crate::commit::hash;
use crate::tdx::certify::Certified;
use crate::tdx::quote::Quote;
use crate::tdx::tcb::{AdvisoryId, Standing, TcbStatus};
use crate::tdx::tcb_info::PlatformStanding;
use crate::tdx::td_report::TdAttributes;
use crate::time::Time;

/// The claims of a TDX quote.
#[derive(Clone, Debug)]
pub struct TdxClaims {
    pub(crate) quote: Quote,
    pub(crate) certified: Arc<Certified>,
    pub(crate) launch: PlatformStanding,
    pub(crate) current: Option<PlatformStanding>,
}

impl TdxClaims {
    /// Version of the quote format: 4 or 5.
    #[must_use]
    pub fn quote_version(&self) -> u16 {
        self.quote.version()
    }

    /// TDATTRIBUTES.
    #[must_use]
    pub fn attributes(&self) -> TdAttributes {
        self.quote.td_report().attributes()
    }

    /// XFAM: the processor state that the TD may use.
    #[must_use]
    pub fn xfam(&self) -> u64 {
        self.quote.td_report().xfam()
    }

    /// TEE_TCB_SVN: module version, module generation, and what lies below.
    #[must_use]
    pub fn tee_tcb_svn(&self) -> [u8; 16] {
        self.quote.td_report().tee_tcb_svn()
    }

    /// TEE_TCB_SVN_2, of what runs now, where the report has it.
    #[must_use]
    pub fn tee_tcb_svn_2(&self) -> Option<[u8; 16]> {
        self.quote.td_report().tee_tcb_svn_2()
    }

    /// MRSEAM and MRSIGNERSEAM: the TDX module and its signer.
    #[must_use]
    pub fn mr_seam_and_signer(&self) -> ([u8; 48], [u8; 48]) {
        (self.quote.td_report().mr_seam(), self.quote.td_report().mr_signer_seam())
    }

    /// MRTD: what was launched.
    #[must_use]
    pub fn mr_td(&self) -> [u8; 48] {
        self.quote.td_report().mr_td()
    }

    /// RTMR0 to RTMR3: what was measured after launch.
    #[must_use]
    pub fn rtmrs(&self) -> [[u8; 48]; 4] {
        self.quote.td_report().rtmrs()
    }

    /// MRCONFIGID: what the host was asked to launch it for.
    #[must_use]
    pub fn mr_config_id(&self) -> [u8; 48] {
        self.quote.td_report().mr_config_id()
    }

    /// MROWNER and MROWNERCONFIG.
    #[must_use]
    pub fn mr_owner_and_config(&self) -> ([u8; 48], [u8; 48]) {
        (self.quote.td_report().mr_owner(), self.quote.td_report().mr_owner_config())
    }

    /// MRSERVICETD, where the report has it.
    #[must_use]
    pub fn mr_service_td(&self) -> Option<[u8; 48]> {
        self.quote.td_report().mr_service_td()
    }

    /// FMSPC: which kind of platform.
    #[must_use]
    pub fn fmspc(&self) -> [u8; 6] {
        self.certified.pck.fmspc
    }

    /// SHA-256 of the PPID: names the machine without giving its serial away.
    #[must_use]
    pub fn platform_id(&self) -> [u8; 32] {
        hash(&self.certified.pck.ppid)
    }

    /// True if the certificate names no machine.
    pub(crate) fn ppid_is_masked(&self) -> bool {
        self.certified.pck.ppid == [0; 16]
    }

    /// tcbEvaluationDataNumber of the TCB info and of the QE identity.
    #[must_use]
    pub fn evaluation_numbers(&self) -> (u32, u32) {
        (self.certified.tcb_info.evaluation_number, self.certified.qe_evaluation_number)
    }

    /// Until when the documents, certificates and revocation lists behind this verdict are all current.
    #[must_use]
    pub fn current_until(&self) -> Time {
        self.certified.window.until
    }

    /// Standing of platform and module at launch; and of what runs now, where the report has it.
    #[must_use]
    pub fn platform_standing(&self) -> (&PlatformStanding, Option<&PlatformStanding>) {
        (&self.launch, self.current.as_ref())
    }

    /// Standing of the quoting enclave.
    #[must_use]
    pub fn qe_standing(&self) -> &Standing {
        &self.certified.qe
    }

    /// Every part that has a standing, with the name of its step.
    pub(crate) fn standings(&self) -> Vec<(&'static str, &Standing)> {
        let mut parts = vec![("tcb-status", &self.launch.platform)];
        parts.extend(self.launch.module.as_ref().map(|module| ("tdx-module-status", module)));
        if let Some(current) = &self.current {
            parts.push(("tcb-status-now", &current.platform));
            parts.extend(current.module.as_ref().map(|module| ("tdx-module-status-now", module)));
        }
        parts.push(("qe-status", &self.certified.qe));
        parts
    }

    /// One status for all, as Intel merges them.
    #[must_use]
    pub fn tcb_status(&self) -> TcbStatus {
        let statuses = self.standings().into_iter().map(|(_, standing)| standing.status);
        statuses.fold(TcbStatus::UpToDate, TcbStatus::merged_with)
    }

    /// Every advisory that some part is named in, sorted.
    #[must_use]
    pub fn advisories(&self) -> Vec<AdvisoryId> {
        let parts = self.standings();
        let mut all: Vec<_> =
            parts.into_iter().flat_map(|(_, standing)| standing.advisories.clone()).collect();
        all.sort();
        all.dedup();
        all
    }
}
