//! `COSE_Sign1` (RFC 9052, section 4.2) in the one form the protocol uses: Ed25519, untagged, no unprotected header.
//!
//! The label of the use goes into `external_aad`, so a signature made for one purpose is worthless for any other.
//! The protected header is exactly `{1: -8}` (alg: EdDSA); the verifier chooses the key, never the message.

use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::wire::{self, Blob, Bytes, WireError};

/// An Ed25519 public key.
pub type PublicKey = [u8; 32];

/// The encoded protected header `{1: -8}`.
const PROTECTED: [u8; 3] = [0xa1, 0x01, 0x27];

/// Longest signed object; a manifest of many files is the longest the protocol knows.
pub const MAX_LEN: usize = 1 << 20;

/// Why a signed object is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedError {
    /// Not the strict form of `COSE_Sign1`, or its payload is not of the wanted type.
    #[error("signed object is malformed: {0}")]
    Malformed(#[from] WireError),
    /// The headers name another algorithm or carry unsigned fields.
    #[error("signed object does not use the one header the protocol allows (EdDSA, nothing unprotected)")]
    Header,
    /// The signature is not by the expected key over this payload and purpose.
    #[error("signature is not by the expected key for this purpose")]
    Signature,
}

#[derive(Serialize, Deserialize)]
struct Sign1(Blob, BTreeMap<u8, u8>, Blob, Bytes<64>);

fn to_be_signed(label: &str, payload: &[u8]) -> Vec<u8> {
    sig_structure(&PROTECTED, label.as_bytes(), payload)
}

/// `Sig_structure` of RFC 9052, section 4.4: what any `COSE_Sign1` is a signature over.
pub(crate) fn sig_structure(protected: &[u8], external_aad: &[u8], payload: &[u8]) -> Vec<u8> {
    let blob = |bytes: &[u8]| Blob::from(bytes.to_vec());
    wire::encode(&("Signature1", blob(protected), blob(external_aad), blob(payload)))
}

/// Signs `payload` under `key` for the purpose `label`.
#[must_use]
pub fn sign(key: &Ed25519KeyPair, label: &str, payload: &[u8]) -> Vec<u8> {
    let mut signature = [0; 64];
    signature.copy_from_slice(key.sign(&to_be_signed(label, payload)).as_ref());
    let protected = Blob::from(PROTECTED.to_vec());
    wire::encode(&Sign1(protected, BTreeMap::new(), Blob::from(payload.to_vec()), Bytes(signature)))
}

/// Verifies `bytes` under `key` for the purpose `label` and returns the payload.
///
/// # Errors
/// [`SignedError`]: malformed, other header, or not signed by `key` for `label`.
pub fn verify(key: &PublicKey, label: &str, bytes: &[u8]) -> Result<Vec<u8>, SignedError> {
    let Sign1(protected, unprotected, payload, signature) = wire::decode(bytes, MAX_LEN)?;
    if protected.as_slice() != PROTECTED || !unprotected.is_empty() {
        return Err(SignedError::Header);
    }
    verify_raw(key, &to_be_signed(label, &payload), &signature.0)?;
    Ok(payload.into_vec())
}

/// Verifies a bare Ed25519 signature over a [`crate::commit::sigmsg`].
///
/// # Errors
/// [`SignedError::Signature`] if it is not by `key` over `message`.
pub fn verify_raw(key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> Result<(), SignedError> {
    UnparsedPublicKey::new(&ED25519, key).verify(message, signature).map_err(|_| SignedError::Signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::KeyPair;

    fn key(seed: u8) -> (Ed25519KeyPair, PublicKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        (pair, public)
    }

    #[test]
    fn only_the_same_key_payload_and_purpose_verify() {
        let (pair, public) = key(1);
        let signed = sign(&pair, "adyton/v1/sig/receipt", b"payload");
        assert_eq!(verify(&public, "adyton/v1/sig/receipt", &signed), Ok(b"payload".to_vec()));
        assert_eq!(verify(&public, "adyton/v1/sig/grant", &signed), Err(SignedError::Signature));
        assert_eq!(verify(&key(2).1, "adyton/v1/sig/receipt", &signed), Err(SignedError::Signature));
        for at in 0..signed.len() {
            let mut changed = signed.clone();
            changed[at] ^= 1;
            assert!(
                verify(&public, "adyton/v1/sig/receipt", &changed).is_err(),
                "byte {at} is not protected"
            );
        }
    }

    #[test]
    fn an_unprotected_header_is_refused() {
        let (pair, public) = key(1);
        let Sign1(protected, _, payload, signature) = wire::decode(&sign(&pair, "l", b"p"), 1024).unwrap();
        let with_header = wire::encode(&Sign1(protected, BTreeMap::from([(4, 1)]), payload, signature));
        assert_eq!(verify(&public, "l", &with_header), Err(SignedError::Header));
    }
}
