//! The verdict as an EAT Attestation Result (draft-ietf-rats-ear-04), so that others can act on it.
//!
//! One result holds one appraisal, under the name of its platform. Its trustworthiness vector (draft-ietf-rats-ar4si)
//! is computed from the steps of the verdict; the steps themselves, with every value that was compared, travel as
//! Verifier claims, what the evidence says of itself as Attester claims. JSON and CBOR carry the same content; either
//! is a bare claims set that anybody could have written, or is signed: [`AttestationResult::sign_jwt`] and
//! [`AttestationResult::sign_cwt`].

mod claims_set;
mod key;
mod token;
mod vector;

use std::collections::BTreeMap;

pub use key::{KeyError, ResultKey, ResultPublicKey};
pub use vector::{Tier, TrustVector};

use crate::evidence::Platform;
use crate::time::Time;
use crate::verdict::{Reason, Step};

/// `eat_profile` of the draft that is followed here.
pub const PROFILE: &str = "tag:ietf.org,2026:rats/ear#04";
/// Longest encoded result that is read.
pub const MAX_RESULT_LEN_BYTES: usize = 1 << 20;

/// Why bytes are not an Attestation Result to rely on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResultError {
    /// Longer than [`MAX_RESULT_LEN_BYTES`].
    #[error("attestation result of {0} bytes is longer than any that is read")]
    TooLong(usize),
    /// Neither the JSON nor the CBOR form.
    #[error("not an attestation result: {0}")]
    Malformed(String),
    /// Of another profile, or of no single appraisal.
    #[error("attestation result is of another kind: {0}")]
    Profile(String),
    /// The headers name another algorithm than the key's, or ask for something that is not understood.
    #[error("the token's header is not the one of this key: {0}")]
    Header(String),
    /// Not signed by this key.
    #[error("the attestation result is not signed by this key")]
    Signature,
}

/// One step of the verdict, as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultStep {
    /// Name of the step.
    pub name: String,
    /// `pass`, `fail` or `skip`.
    pub result: String,
    /// The values compared.
    pub detail: String,
}

/// What a verdict rests on and says: the input of [`AttestationResult::new`].
#[derive(Debug, Clone)]
pub struct Judgement<'a> {
    /// Where the evidence says it was made.
    pub platform: Platform,
    /// The policy that judged, by name.
    pub policy: &'a str,
    /// Why it was refused; `None` if it was accepted.
    pub refused: Option<Reason>,
    /// Every step of the verdict.
    pub steps: &'a [Step],
    /// What the evidence says of itself.
    pub claims: &'a [(&'static str, String)],
    /// The challenge that the evidence was compared with, 8 to 64 bytes, if any was.
    pub nonce: Option<&'a [u8]>,
    /// The time of the judgement.
    pub at: Time,
}

/// An EAT Attestation Result with one appraisal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttestationResult {
    /// `iat`: the time of the judgement.
    pub issued_at: Time,
    /// `ear_verifier_id`: who is responsible for the verifier, and its build.
    pub verifier: (String, String),
    /// `eat_nonce`: the challenge that the evidence was compared with.
    pub nonce: Option<Vec<u8>>,
    /// Name of the only submodule: the platform.
    pub submodule: String,
    /// `ear_status`.
    pub status: Tier,
    /// `ear_trustworthiness_vector`.
    pub vector: TrustVector,
    /// `ear_appraisal_policy_ids`, the only one.
    pub policy: String,
    /// `ear_attester_claims`: what the evidence says of itself. True only if the status affirms it.
    pub attester_claims: BTreeMap<String, String>,
    /// Verifier claim `adyton_reason`: why it was refused, empty if it was not.
    pub reason: String,
    /// Verifier claim `adyton_steps`: every step of the verdict.
    pub steps: Vec<ResultStep>,
}

impl AttestationResult {
    /// Says in EAR terms what was judged.
    #[must_use]
    pub fn new(judgement: &Judgement<'_>) -> Self {
        let vector = TrustVector::of(judgement);
        let step = |step: &Step| ResultStep {
            name: step.name.to_owned(),
            result: step.result.as_str().to_owned(),
            detail: step.detail.clone(),
        };
        Self {
            issued_at: judgement.at,
            verifier: ("adyton".to_owned(), format!("adyton-attestation {}", env!("CARGO_PKG_VERSION"))),
            nonce: judgement.nonce.map(<[u8]>::to_vec),
            submodule: judgement.platform.as_str().to_owned(),
            // Whatever the vector would allow: what was refused is not to be relied on.
            status: if judgement.refused.is_some() { Tier::Contraindicated } else { vector.worst() },
            vector,
            policy: judgement.policy.to_owned(),
            attester_claims: judgement
                .claims
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            reason: judgement.refused.map_or("", Reason::as_str).to_owned(),
            steps: judgement.steps.iter().map(step).collect(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::verdict::StepResult;

    pub(crate) fn step(name: &'static str, result: StepResult) -> Step {
        Step { name, result, detail: format!("detail of {name}") }
    }

    pub(crate) fn sample(refused: Option<Reason>, steps: &[Step]) -> AttestationResult {
        AttestationResult::new(&Judgement {
            platform: Platform::SevSnp,
            policy: "standard",
            refused,
            steps,
            claims: &[("measurement", "00ff".to_owned()), ("vmpl", "0".to_owned())],
            nonce: Some(&[7; 64]),
            at: Time::from_unix_seconds(1_762_539_573),
        })
    }

    #[test]
    fn what_was_refused_is_contraindicated_whatever_passed() {
        let steps = [step("signature", StepResult::Pass), step("measurement", StepResult::Pass)];
        assert_eq!(sample(None, &steps).status, Tier::Affirming);
        let refused = sample(Some(Reason::KeySetLife), &steps);
        assert_eq!(refused.status, Tier::Contraindicated);
        assert_eq!(refused.reason, "key-set-life");
    }
}
