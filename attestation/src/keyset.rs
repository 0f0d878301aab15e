//! The keys of one enclave instance, as they are attested (SPEC, section 3).
//!
//! A [`KeySet`] names the public keys an enclave made after boot. It travels as bytes; its identifier is a hash of those
//! very bytes, hardware evidence commits to it, and the owner's admission names it. Lifetimes are enforced by the
//! verifier, because the clock inside a guest belongs to the host.

use crate::commit::{Digest, labelled_hash};
use crate::cose::PublicKey;
use crate::time::Time;
use crate::wire::{self, Blob, Bytes, WireError};

/// Longest encoded key set: a service name, a few HPKE keys of 1.2 kB and up to 64 manifests fit.
pub const MAX_LEN: usize = 16 << 10;

const VERSION: u8 = 1;
const MAX_SERVICE_ID_LEN: usize = 64;
const MAX_MANIFESTS: usize = 64;
const MAX_MESSAGE_KEYS: usize = 8;

/// The public keys and the configuration of one enclave instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySet {
    /// Drawn at boot: tells two runs of one image apart.
    pub boot_id: [u8; 16],
    /// The name of the service, from the launch document.
    pub service_id: String,
    /// `EIK`: signs the binding of each session.
    pub identity_key: PublicKey,
    /// `H(SPKI)` of the certificate the enclave shows in TLS.
    pub tls_spki: Digest,
    /// Key configurations for sealed messages (flow M); empty while only sessions are offered.
    pub message_keys: Vec<Vec<u8>>,
    /// `RCK`: signs receipts.
    pub receipt_key: PublicKey,
    /// Hash of the launch document; equals SNP `HOST_DATA` or the head of TDX `MRCONFIGID`.
    pub config_digest: Digest,
    /// The models this instance serves.
    pub manifest_ids: Vec<Digest>,
    /// Counts key sets of one boot.
    pub epoch: u64,
    /// Not to be used before.
    pub not_before: Time,
    /// Not to be used from then on.
    pub not_after: Time,
}

type Wire = (
    u8,
    Bytes<16>,
    String,
    Bytes<32>,
    Bytes<32>,
    Vec<Blob>,
    Bytes<32>,
    Bytes<32>,
    Vec<Bytes<32>>,
    u64,
    u64,
    u64,
);

impl KeySet {
    /// Decodes untrusted bytes. Nothing about the keys is believed yet.
    ///
    /// # Errors
    /// [`WireError`] for bytes that are not a key set of version 1 within its limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (
            version,
            boot_id,
            service_id,
            eik,
            spki,
            smk,
            rck,
            config,
            manifests,
            epoch,
            not_before,
            not_after,
        ): Wire = wire::decode(bytes, MAX_LEN)?;
        let within_limits = version == VERSION
            && service_id.len() <= MAX_SERVICE_ID_LEN
            && smk.len() <= MAX_MESSAGE_KEYS
            && manifests.len() <= MAX_MANIFESTS
            && not_before < not_after;
        if !within_limits {
            return Err(WireError::WrongShape);
        }
        Ok(Self {
            boot_id: boot_id.0,
            service_id,
            identity_key: eik.0,
            tls_spki: spki.0,
            message_keys: smk.into_iter().map(Blob::into_vec).collect(),
            receipt_key: rck.0,
            config_digest: config.0,
            manifest_ids: manifests.into_iter().map(|id| id.0).collect(),
            epoch,
            not_before: Time::from_unix_seconds(not_before),
            not_after: Time::from_unix_seconds(not_after),
        })
    }

    /// The deterministic encoding; what [`KeySet::decode`] accepts.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let wire: Wire = (
            VERSION,
            Bytes(self.boot_id),
            self.service_id.clone(),
            Bytes(self.identity_key),
            Bytes(self.tls_spki),
            self.message_keys.iter().cloned().map(Blob::from).collect(),
            Bytes(self.receipt_key),
            Bytes(self.config_digest),
            self.manifest_ids.iter().copied().map(Bytes).collect(),
            self.epoch,
            self.not_before.as_unix_seconds(),
            self.not_after.as_unix_seconds(),
        );
        wire::encode(&wire)
    }
}

/// `keyset_id = H(lp("adyton/v1/keyset") || KeySet bytes)`, over the bytes as carried.
#[must_use]
pub fn keyset_id(bytes: &[u8]) -> Digest {
    labelled_hash("adyton/v1/keyset", bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> KeySet {
        KeySet {
            boot_id: [1; 16],
            service_id: "digits".into(),
            identity_key: [2; 32],
            tls_spki: [3; 32],
            message_keys: Vec::new(),
            receipt_key: [4; 32],
            config_digest: [5; 32],
            manifest_ids: vec![[6; 32]],
            epoch: 1,
            not_before: Time::from_unix_seconds(1_000),
            not_after: Time::from_unix_seconds(90_000),
        }
    }

    #[test]
    fn a_key_set_survives_its_encoding() {
        assert_eq!(KeySet::decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn limits_are_part_of_the_type() {
        let refused = |change: fn(&mut KeySet)| {
            let mut keys = sample();
            change(&mut keys);
            KeySet::decode(&keys.encode())
        };
        assert!(refused(|keys| keys.service_id = "x".repeat(65)).is_err());
        assert!(refused(|keys| keys.not_after = keys.not_before).is_err());
        assert!(refused(|keys| keys.manifest_ids = vec![[0; 32]; 65]).is_err());
        assert!(refused(|keys| keys.message_keys = vec![vec![0; 20_000]]).is_err());
    }
}
