//! Receipts: a signed statement of which model answered which request with which bytes (SPEC, section 12).
//!
//! A receipt holds hashes only. The request hash is salted with the client's own challenge, so nobody who sees the
//! receipt can guess the prompt. Receipts of one session form a chain: a missing one shows.

use ring::signature::Ed25519KeyPair;

use crate::commit::{Digest, hash, labelled_hash, sigmsg};
use crate::cose::{self, PublicKey, SignedError};
use crate::wire::{self, Bytes};

const LABEL: &str = "adyton/v1/sig/receipt";
const MAX_LEN: usize = 1024;

/// What the enclave's receipt key (`RCK`) signs for each answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The key set whose receipt key signs.
    pub keyset_id: Digest,
    /// The model that answered.
    pub manifest_id: Digest,
    /// `H(nonce_c || request)`, see [`request_hash`].
    pub request: Digest,
    /// `H(response stream)`.
    pub response: Digest,
    /// Digest of the parameters that shaped the answer.
    pub parameters: Digest,
    /// Counts the answers of the session, from 0.
    pub sequence: u64,
    /// `H(previous receipt)` of the session, zero for the first.
    pub previous: Digest,
}

type Wire = (Bytes<32>, Bytes<32>, Bytes<32>, Bytes<32>, Bytes<32>, u64, Bytes<32>);

impl Receipt {
    /// Signs under the receipt key.
    #[must_use]
    pub fn sign(&self, receipt_key: &Ed25519KeyPair) -> Vec<u8> {
        let wire: Wire = (
            Bytes(self.keyset_id),
            Bytes(self.manifest_id),
            Bytes(self.request),
            Bytes(self.response),
            Bytes(self.parameters),
            self.sequence,
            Bytes(self.previous),
        );
        cose::sign(receipt_key, LABEL, &wire::encode(&wire))
    }

    /// Verifies under a receipt key that came from a verified key set.
    ///
    /// # Errors
    /// [`SignedError`]: malformed or not by that key.
    pub fn verify(receipt_key: &PublicKey, bytes: &[u8]) -> Result<Self, SignedError> {
        let payload = cose::verify(receipt_key, LABEL, bytes)?;
        let (keyset_id, manifest_id, request, response, parameters, sequence, previous): Wire =
            wire::decode(&payload, MAX_LEN)?;
        Ok(Self {
            keyset_id: keyset_id.0,
            manifest_id: manifest_id.0,
            request: request.0,
            response: response.0,
            parameters: parameters.0,
            sequence,
            previous: previous.0,
        })
    }
}

/// `H(nonce_c || request)`: the salt is the client's challenge of the session, always 32 bytes.
#[must_use]
pub fn request_hash(challenge: &[u8; 32], request: &[u8]) -> Digest {
    let mut input = Vec::with_capacity(32 + request.len());
    input.extend_from_slice(challenge);
    input.extend_from_slice(request);
    hash(&input)
}

/// Digest of what shaped an answer to `path` beside request and model: nothing but the kind of interface. A language
/// model's answer holds the seed that was drawn for it, if any.
#[must_use]
pub fn parameters(path: &str) -> Digest {
    let kind: &[u8] = if path.starts_with("/v1/") { b"language" } else { b"dense" };
    labelled_hash("adyton/v1/parameters", kind)
}

/// What counts as the request of an answer: method, path and body, each delimited.
#[must_use]
pub fn request_bytes(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    sigmsg("adyton/v1/request", &[method.as_bytes(), path.as_bytes(), body])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::tests::key;

    #[test]
    fn a_receipt_is_bound_to_its_key_and_every_field() {
        let (pair, public) = key(4);
        let receipt = Receipt {
            keyset_id: [1; 32],
            manifest_id: [2; 32],
            request: request_hash(&[9; 32], b"prompt"),
            response: hash(b"answer"),
            parameters: [3; 32],
            sequence: 0,
            previous: [0; 32],
        };
        let signed = receipt.sign(&pair);
        assert_eq!(Receipt::verify(&public, &signed), Ok(receipt));
        assert_eq!(Receipt::verify(&key(5).1, &signed), Err(SignedError::Signature));
        for at in 0..signed.len() {
            let mut edited = signed.clone();
            edited[at] ^= 0x10;
            assert!(Receipt::verify(&public, &edited).is_err(), "byte {at} can be edited");
        }
    }

    #[test]
    fn the_same_prompt_in_two_sessions_gives_unrelated_hashes() {
        assert_ne!(request_hash(&[1; 32], b"prompt"), request_hash(&[2; 32], b"prompt"));
    }
}
