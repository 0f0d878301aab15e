//! Everything a verdict on evidence rests on, in one value: anchors, endorsements, policy and time.

use crate::commit::ReportData;
use crate::{Endorsements, Evidence, Policy, Rejected, Time, TrustAnchors, VerifiedReport};

/// What a relying party judges evidence by.
#[derive(Debug, Clone, Copy)]
pub struct Appraiser<'a> {
    /// Roots that are believed.
    pub anchors: &'a TrustAnchors,
    /// Certificates and revocation lists beside those that came with the evidence.
    pub endorsements: &'a Endorsements,
    /// What the evidence must say.
    pub policy: &'a Policy,
    /// The time of the judgement.
    pub now: Time,
}

impl Appraiser<'_> {
    /// Verifies and appraises evidence that must commit to `report_data`.
    ///
    /// # Errors
    /// [`Rejected`] with every step taken.
    pub fn appraise(&self, evidence: Evidence, report_data: &ReportData) -> Result<VerifiedReport, Rejected> {
        evidence.verify(self.anchors, self.endorsements, self.now)?.appraise(self.policy, report_data)
    }
}
