//! What the model owner signs: broker certificates, admissions and grants (SPEC, sections 4 and 6).
//!
//! The owner's root key signs one [`BrokerCertificate`] and can then stay offline; the broker's key signs the rest.
//! An [`Admission`] tells clients that the owner accepted this very key set on this very machine: it is what still holds
//! when the hardware key of some accepted processor leaks.

use ring::signature::Ed25519KeyPair;

use crate::commit::Digest;
use crate::cose::{self, PublicKey, SignedError};
use crate::time::Time;
use crate::wire::{self, Blob, Bytes, WireError};

const BROKER_LABEL: &str = "adyton/v1/sig/broker";
const ADMISSION_LABEL: &str = "adyton/v1/sig/admission";
const GRANT_LABEL: &str = "adyton/v1/sig/grant";
const MAX_SIGNED_LEN: usize = 4096;
const MAX_NAME_LEN: usize = 128;

/// Why something the owner should have signed is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerError {
    /// Malformed, or not signed by the expected key for this purpose.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// The object's time is over; the owner has to issue a new one.
    #[error("expired at {expired_at} (it is {now}); the owner has to issue a new one")]
    Expired {
        /// When it ended, seconds since 1970.
        expired_at: u64,
        /// The time used to judge it, seconds since 1970.
        now: u64,
    },
}

impl From<WireError> for OwnerError {
    fn from(error: WireError) -> Self {
        Self::Signed(SignedError::Malformed(error))
    }
}

/// The owner's root key delegates to a broker: `COSE_Sign1 [1, broker key, not_after]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerCertificate {
    /// The key that signs challenges, grants and admissions.
    pub broker_key: PublicKey,
    /// Not to be used from then on.
    pub not_after: Time,
}

impl BrokerCertificate {
    /// Signs the certificate under the owner's root key.
    #[must_use]
    pub fn sign(&self, owner_root: &Ed25519KeyPair) -> Vec<u8> {
        let payload = wire::encode(&(1u8, Bytes(self.broker_key), self.not_after.as_unix_seconds()));
        cose::sign(owner_root, BROKER_LABEL, &payload)
    }

    /// Verifies a certificate under the owner's root key. Inside an enclave, which has no trusted clock, `now` is `None`:
    /// there the certificate's end is enforced by the client that sees the admission.
    ///
    /// # Errors
    /// [`OwnerError`]: malformed, not by the owner, or expired.
    pub fn verify(owner_root: &PublicKey, bytes: &[u8], now: Option<Time>) -> Result<Self, OwnerError> {
        let payload = cose::verify(owner_root, BROKER_LABEL, bytes)?;
        let (version, key, not_after): (u8, Bytes<32>, u64) = wire::decode(&payload, MAX_SIGNED_LEN)?;
        if version != 1 {
            return Err(WireError::WrongShape.into());
        }
        if let Some(now) = now.filter(|now| now.as_unix_seconds() >= not_after) {
            return Err(OwnerError::Expired { expired_at: not_after, now: now.as_unix_seconds() });
        }
        Ok(Self { broker_key: key.0, not_after: Time::from_unix_seconds(not_after) })
    }
}

/// The owner accepted this key set, on this machine, for this model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The key set that was attested when the model key was released.
    pub keyset_id: Digest,
    /// The model.
    pub manifest_id: Digest,
    /// `H(platform id)` of the machine.
    pub platform: Digest,
    /// The release policy that accepted it.
    pub policy_id: String,
    /// The release, as the broker's log names it.
    pub release_id: [u8; 16],
    /// Not to be accepted from then on.
    pub expires: Time,
}

type AdmissionWire = (Bytes<32>, Bytes<32>, Bytes<32>, String, Bytes<16>, u64);

impl Admission {
    /// Signs under the broker's key and joins the certificate that makes that key the owner's.
    #[must_use]
    pub fn sign(&self, broker: &Ed25519KeyPair, broker_certificate: &[u8]) -> Vec<u8> {
        let wire: AdmissionWire = (
            Bytes(self.keyset_id),
            Bytes(self.manifest_id),
            Bytes(self.platform),
            self.policy_id.clone(),
            Bytes(self.release_id),
            self.expires.as_unix_seconds(),
        );
        let signed = cose::sign(broker, ADMISSION_LABEL, &wire::encode(&wire));
        wire::encode(&(Blob::from(broker_certificate.to_vec()), Blob::from(signed)))
    }

    /// Verifies an admission from the owner's root down: root, certificate, admission, and that none is over.
    ///
    /// # Errors
    /// [`OwnerError`]: malformed, not from the owner, or expired.
    pub fn verify(owner_root: &PublicKey, bytes: &[u8], now: Option<Time>) -> Result<Self, OwnerError> {
        let (certificate, signed): (Blob, Blob) = wire::decode(bytes, 2 * MAX_SIGNED_LEN)?;
        let broker = BrokerCertificate::verify(owner_root, &certificate, now)?;
        let payload = cose::verify(&broker.broker_key, ADMISSION_LABEL, &signed)?;
        let (keyset_id, manifest_id, platform, policy_id, release_id, expires): AdmissionWire =
            wire::decode(&payload, MAX_SIGNED_LEN)?;
        if policy_id.len() > MAX_NAME_LEN {
            return Err(WireError::WrongShape.into());
        }
        if let Some(now) = now.filter(|now| now.as_unix_seconds() >= expires) {
            return Err(OwnerError::Expired { expired_at: expires, now: now.as_unix_seconds() });
        }
        Ok(Self {
            keyset_id: keyset_id.0,
            manifest_id: manifest_id.0,
            platform: platform.0,
            policy_id,
            release_id: release_id.0,
            expires: Time::from_unix_seconds(expires),
        })
    }
}

/// The terms under which one model key is released to one enclave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The release, as the broker's log names it.
    pub release_id: [u8; 16],
    /// The model.
    pub manifest_id: Digest,
    /// The model's version counter; the enclave refuses an older manifest.
    pub counter: u64,
    /// Seconds after which the enclave must have been granted again, or wipes.
    pub lease_s: u64,
    /// Terms for handing the key on; empty means never (flow X).
    pub handover_policy: Vec<u8>,
    /// `H(platform id)` of the machine that was attested.
    pub platform: Digest,
    /// The key set that was attested.
    pub keyset_id: Digest,
    /// The transcript up to the evidence (`TH3`).
    pub transcript: Digest,
}

type GrantWire = (Bytes<16>, Bytes<32>, u64, u64, Blob, Bytes<32>, Bytes<32>, Bytes<32>);

impl Grant {
    /// Signs under the broker's key.
    #[must_use]
    pub fn sign(&self, broker: &Ed25519KeyPair) -> Vec<u8> {
        let wire: GrantWire = (
            Bytes(self.release_id),
            Bytes(self.manifest_id),
            self.counter,
            self.lease_s,
            Blob::from(self.handover_policy.clone()),
            Bytes(self.platform),
            Bytes(self.keyset_id),
            Bytes(self.transcript),
        );
        cose::sign(broker, GRANT_LABEL, &wire::encode(&wire))
    }

    /// Verifies under the broker's key, which the caller got from a verified [`BrokerCertificate`].
    ///
    /// # Errors
    /// [`OwnerError::Signed`]: malformed or not by the broker.
    pub fn verify(broker_key: &PublicKey, bytes: &[u8]) -> Result<Self, OwnerError> {
        let payload = cose::verify(broker_key, GRANT_LABEL, bytes)?;
        let (release_id, manifest_id, counter, lease_s, handover, platform, keyset_id, transcript): GrantWire =
            wire::decode(&payload, MAX_SIGNED_LEN)?;
        Ok(Self {
            release_id: release_id.0,
            manifest_id: manifest_id.0,
            counter,
            lease_s,
            handover_policy: handover.into_vec(),
            platform: platform.0,
            keyset_id: keyset_id.0,
            transcript: transcript.0,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ring::signature::KeyPair;

    pub(crate) fn key(seed: u8) -> (Ed25519KeyPair, PublicKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        (pair, public)
    }

    fn admission() -> Admission {
        Admission {
            keyset_id: [1; 32],
            manifest_id: [2; 32],
            platform: [3; 32],
            policy_id: "digits-v1".into(),
            release_id: [4; 16],
            expires: Time::from_unix_seconds(2_000),
        }
    }

    #[test]
    fn an_admission_is_believed_only_from_the_owner_and_in_time() {
        let ((root, root_public), (broker, broker_key)) = (key(1), key(2));
        let certificate =
            BrokerCertificate { broker_key, not_after: Time::from_unix_seconds(3_000) }.sign(&root);
        let bytes = admission().sign(&broker, &certificate);
        assert_eq!(
            Admission::verify(&root_public, &bytes, Some(Time::from_unix_seconds(1_000))),
            Ok(admission())
        );
        assert_eq!(Admission::verify(&root_public, &bytes, None), Ok(admission()));
        assert_eq!(
            Admission::verify(&root_public, &bytes, Some(Time::from_unix_seconds(2_000))),
            Err(OwnerError::Expired { expired_at: 2_000, now: 2_000 })
        );
        assert_eq!(
            Admission::verify(&key(9).1, &bytes, Some(Time::from_unix_seconds(1_000))),
            Err(OwnerError::Signed(SignedError::Signature))
        );
    }

    #[test]
    fn a_broker_without_the_owners_certificate_cannot_admit() {
        let ((root, root_public), (_, broker_key), (stranger, _)) = (key(1), key(2), key(3));
        let certificate =
            BrokerCertificate { broker_key, not_after: Time::from_unix_seconds(3_000) }.sign(&root);
        let forged = admission().sign(&stranger, &certificate);
        assert!(Admission::verify(&root_public, &forged, Some(Time::from_unix_seconds(1_000))).is_err());
        let ended = BrokerCertificate { broker_key, not_after: Time::from_unix_seconds(500) }.sign(&root);
        let late = admission().sign(&key(2).0, &ended);
        assert!(matches!(
            Admission::verify(&root_public, &late, Some(Time::from_unix_seconds(1_000))),
            Err(OwnerError::Expired { expired_at: 500, .. })
        ));
    }

    #[test]
    fn a_grant_survives_its_encoding_and_no_other_purpose() {
        let (broker, broker_key) = key(2);
        let grant = Grant {
            release_id: [1; 16],
            manifest_id: [2; 32],
            counter: 7,
            lease_s: 3_600,
            handover_policy: Vec::new(),
            platform: [3; 32],
            keyset_id: [4; 32],
            transcript: [5; 32],
        };
        assert_eq!(Grant::verify(&broker_key, &grant.sign(&broker)), Ok(grant.clone()));
        let as_admission = wire::encode(&(Blob::new(), Blob::from(grant.sign(&broker))));
        assert!(Admission::verify(&broker_key, &as_admission, None).is_err());
    }
}
