//! The keys of one generation: drawn after launch, in memory only (SPEC, section 3).

use std::time::{SystemTime, UNIX_EPOCH};

use adyton_attestation::Time;
use adyton_attestation::commit::Digest;
use adyton_attestation::cose::PublicKey;
use adyton_attestation::keyset::{KeySet, keyset_id};
use adyton_channel::TlsIdentity;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

use crate::EnclaveError;

/// How long a key set is valid, seconds.
pub(crate) const KEYSET_LIFE_S: u64 = 24 * 3600;
/// A key set begins this much before it was made, for verifiers whose clock is behind.
const BACKDATE_S: u64 = 60;

/// Identity key, receipt key and TLS key, with the key set that names them.
pub(crate) struct Keys {
    pub(crate) identity: Ed25519KeyPair,
    pub(crate) receipt: Ed25519KeyPair,
    pub(crate) tls: TlsIdentity,
    pub(crate) keyset_bytes: Vec<u8>,
    pub(crate) keyset_id: Digest,
    /// What evidence for the key set answers, as long as no checkpoint of a log is known.
    pub(crate) boot_nonce: [u8; 32],
}

impl Keys {
    /// Draws all keys from the kernel's generator.
    pub(crate) fn draw(
        service_id: &str,
        config_digest: Digest,
        manifest_id: Digest,
        epoch: u64,
        tls: TlsIdentity,
    ) -> Result<Self, EnclaveError> {
        let (identity, receipt) = (draw_ed25519()?, draw_ed25519()?);
        let (mut boot_id, mut boot_nonce) = ([0; 16], [0; 32]);
        getrandom::fill(&mut boot_id)?;
        getrandom::fill(&mut boot_nonce)?;
        // The guest's clock is the host's to set; a wrong one makes verifiers refuse, nothing more.
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let keyset = KeySet {
            boot_id,
            service_id: service_id.to_owned(),
            identity_key: public(&identity),
            tls_spki: *tls.spki(),
            message_keys: Vec::new(),
            receipt_key: public(&receipt),
            config_digest,
            manifest_ids: vec![manifest_id],
            epoch,
            not_before: Time::from_unix_seconds(now_s.saturating_sub(BACKDATE_S)),
            not_after: Time::from_unix_seconds(now_s.saturating_add(KEYSET_LIFE_S)),
        };
        let keyset_bytes = keyset.encode();
        let keyset_id = keyset_id(&keyset_bytes);
        Ok(Self { identity, receipt, tls, keyset_bytes, keyset_id, boot_nonce })
    }
}

fn draw_ed25519() -> Result<Ed25519KeyPair, EnclaveError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut())?;
    Ed25519KeyPair::from_seed_unchecked(seed.as_ref())
        .map_err(|_| EnclaveError::Entropy(getrandom::Error::UNEXPECTED))
}

fn public(key: &Ed25519KeyPair) -> PublicKey {
    let mut public = [0; 32];
    public.copy_from_slice(key.public_key().as_ref());
    public
}
