//! The owner's side of flow R, the same for a broker that is called and an owner who calls.

use std::path::Path;
use std::time::Duration;

use adyton_attestation::commit::Digest;
use adyton_attestation::manifest::VerifiedManifest;
use adyton_attestation::owner::{Admission, Grant};
use adyton_attestation::release::{
    Accepted, Asked, AwaitingEvidence, CONFIRM_CONTEXT, Challenge, Direction, ReleaseError, Released,
    wrap_info,
};
use adyton_attestation::{Step, Time};
use adyton_vault::Secret;
use adyton_vault::release::seal_for_release;

use crate::files::read_capped;
use crate::rules::now;
use crate::{BrokerError, Judge, OwnerKeys, ReleaseRecord, Store};

/// R3 must arrive this soon after R2 (SPEC, section 6).
pub const EVIDENCE_DEADLINE: Duration = Duration::from_secs(60);

const MAX_MANIFEST_LEN: u64 = 1 << 20;

/// Releases the key of one model by one policy.
pub struct Releaser {
    /// The owner's keys.
    pub(crate) keys: OwnerKeys,
    judge: Judge,
    manifest: VerifiedManifest,
    lease_s: u64,
    admission_s: u64,
}

/// A release on its way: R4 was made, R5 is awaited.
#[must_use]
pub struct Release {
    released: Released,
    confirm_key: Secret<[u8; 32]>,
    record: ReleaseRecord,
    steps: Vec<Step>,
}

impl Releaser {
    /// Verifies that the manifest at `manifest` is the owner's and that its key is held.
    ///
    /// # Errors
    /// [`BrokerError`]: unreadable, not the owner's, or sealed under another key.
    pub fn new(
        keys: OwnerKeys,
        judge: Judge,
        manifest: &Path,
        lease_s: u64,
        admission_s: u64,
    ) -> Result<Self, BrokerError> {
        let manifest =
            VerifiedManifest::verify(keys.root_public(), &read_capped(manifest, MAX_MANIFEST_LEN)?)?;
        if manifest.manifest().kek_id != *keys.kek_id() {
            return Err(BrokerError::UnknownModel);
        }
        Ok(Self { keys, judge, manifest, lease_s, admission_s })
    }

    /// Whether what is accepted here is a simulator.
    #[must_use]
    pub fn simulated(&self) -> bool {
        self.judge.simulated()
    }

    /// The model.
    #[must_use]
    pub fn manifest_id(&self) -> &Digest {
        self.manifest.id()
    }

    /// The release policy that the owner named when sealing.
    #[must_use]
    pub fn policy_id(&self) -> &str {
        &self.manifest.manifest().policy_id
    }

    /// Answers R1 with R2.
    ///
    /// # Errors
    /// [`BrokerError`]: malformed, another model, or no randomness.
    pub fn challenge(
        &self,
        request: &[u8],
        direction: Direction,
        exporter: &[u8; 32],
    ) -> Result<(AwaitingEvidence, Vec<u8>), BrokerError> {
        let asked = Asked::read(request, direction)?;
        if !asked.manifest_ids().contains(self.manifest.id()) {
            return Err(BrokerError::UnknownModel);
        }
        let (mut nonce, mut session_id) = ([0; 32], [0; 16]);
        getrandom::fill(&mut nonce)?;
        getrandom::fill(&mut session_id)?;
        Ok(asked.challenge(&Challenge {
            nonce,
            session_id,
            policy_id: self.policy_id(),
            broker_certificate: &self.keys.broker_certificate,
            broker_key: &self.keys.broker,
            exporter,
        }))
    }

    /// Judges R3; if it is accepted, records the release and then makes R4.
    ///
    /// # Errors
    /// [`BrokerError`]: refused, rollback, or the record cannot be written. No key has left then.
    pub fn release(
        &self,
        awaiting: AwaitingEvidence,
        evidence: &[u8],
        store: &Store,
    ) -> Result<(Release, Vec<u8>), BrokerError> {
        let now = now();
        let accepted = awaiting
            .accept(evidence, &self.judge.reloaded()?.appraiser(now))
            .map_err(ReleaseError::Rejected)?;
        let record = self.record(&accepted, now)?;
        let grant = self.grant(&accepted, &record);
        let info = wrap_info(accepted.transcript());
        let (wrapped, confirm_key) =
            seal_for_release(accepted.kem_key(), &info, &grant, CONFIRM_CONTEXT, self.keys.kek())?;
        let admission = Admission {
            keyset_id: record.keyset_id,
            manifest_id: record.manifest_id,
            platform: record.platform,
            policy_id: self.policy_id().to_owned(),
            release_id: record.release_id,
            expires: Time::from_unix_seconds(now.as_unix_seconds().saturating_add(self.admission_s)),
        }
        .sign(&self.keys.broker, &self.keys.broker_certificate);
        store.record(self.keys.kek_id(), &record)?;
        let steps = accepted.report().steps().to_vec();
        let (released, message) = accepted.release(&grant, &wrapped.to_bytes(), &admission);
        Ok((Release { released, confirm_key, record, steps }, message))
    }

    fn record(&self, accepted: &Accepted, now: Time) -> Result<ReleaseRecord, BrokerError> {
        let mut release_id = [0; 16];
        getrandom::fill(&mut release_id)?;
        Ok(ReleaseRecord {
            release_id,
            at: now.as_unix_seconds(),
            policy_id: self.policy_id().to_owned(),
            manifest_id: *self.manifest.id(),
            counter: self.manifest.manifest().counter,
            keyset_id: accepted.keyset_id(),
            platform: accepted.report().platform_id(),
            measurement: accepted.report().measurement(),
        })
    }

    fn grant(&self, accepted: &Accepted, record: &ReleaseRecord) -> Vec<u8> {
        Grant {
            release_id: record.release_id,
            manifest_id: record.manifest_id,
            counter: record.counter,
            lease_s: self.lease_s,
            handover_policy: Vec::new(),
            platform: record.platform,
            keyset_id: record.keyset_id,
            transcript: *accepted.transcript(),
        }
        .sign(&self.keys.broker)
    }
}

impl Release {
    /// Checks R5 and notes the confirmation.
    ///
    /// # Errors
    /// [`BrokerError::Release`] if the enclave did not open the key.
    pub fn confirmed(self, message: &[u8], store: &Store) -> Result<ReleaseRecord, BrokerError> {
        self.confirm_key.expose(|key| self.released.confirmed(message, key))?;
        store.confirm(&self.record.release_id)?;
        Ok(self.record)
    }

    /// The steps of the verdict that led to the release.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}
