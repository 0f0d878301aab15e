//! Signed results: JWT (RFC 7519 in the compact form of RFC 7515) and CWT (RFC 8392, tagged `COSE_Sign1`).
//!
//! A header may hold the algorithm and nothing that asks to be understood: no key, no URL, no `crit`. The algorithm
//! must be the key's own.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};

use super::{AttestationResult, KeyError, MAX_RESULT_LEN_BYTES, ResultError, ResultKey, ResultPublicKey};
use crate::cose::sig_structure;
use crate::wire::{self, Blob};

/// CBOR tag 18 before an array of four: a tagged `COSE_Sign1` (RFC 9052, section 4.2).
const TAG_COSE_SIGN1: u8 = 0xd2;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JwtHeader {
    alg: String,
    #[serde(default)]
    typ: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Sign1(Blob, BTreeMap<u8, u8>, Blob, Blob);

impl AttestationResult {
    /// The result as a signed JWT.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn sign_jwt(&self, key: &ResultKey, random: &dyn SecureRandom) -> Result<String, KeyError> {
        let header = format!("{{\"alg\":\"{}\",\"typ\":\"JWT\"}}", key.algorithm().jose());
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(self.to_json()));
        let signature = key.sign(signed.as_bytes(), random)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Reads a JWT that `key` must have signed.
    ///
    /// # Errors
    /// [`ResultError`]; the signature is verified before the content is read.
    pub fn verify_jwt(text: &str, key: &ResultPublicKey) -> Result<Self, ResultError> {
        if text.len() > 2 * MAX_RESULT_LEN_BYTES {
            return Err(ResultError::TooLong(text.len()));
        }
        let parts = || {
            let (signed, signature) = text.rsplit_once('.')?;
            let (header, payload) = signed.split_once('.')?;
            Some((signed, header, payload, signature))
        };
        let (signed, header, payload, signature) =
            parts().ok_or_else(|| ResultError::Malformed("not three parts with dots".into()))?;
        let decode = |part: &str| {
            URL_SAFE_NO_PAD.decode(part).map_err(|_| ResultError::Malformed("not base64url".into()))
        };
        let header: JwtHeader = serde_json::from_slice(&decode(header)?)
            .map_err(|error| ResultError::Header(error.to_string()))?;
        if header.alg != key.algorithm().jose() {
            return Err(ResultError::Header(format!("alg {:?}", header.alg)));
        }
        key.verify(signed.as_bytes(), &decode(signature)?)?;
        Self::from_json(&decode(payload)?)
    }

    /// The result as a signed CWT.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn sign_cwt(&self, key: &ResultKey, random: &dyn SecureRandom) -> Result<Vec<u8>, KeyError> {
        let protected = key.algorithm().cose_header();
        let payload = self.to_cbor();
        let signature = key.sign(&to_be_signed(protected, &payload), random)?;
        let blob = |bytes: &[u8]| Blob::from(bytes.to_vec());
        let sign1 = Sign1(blob(protected), BTreeMap::new(), blob(&payload), blob(&signature));
        let mut bytes = vec![TAG_COSE_SIGN1];
        bytes.extend(wire::encode(&sign1));
        Ok(bytes)
    }

    /// Reads a CWT that `key` must have signed.
    ///
    /// # Errors
    /// As [`verify_jwt`](Self::verify_jwt).
    pub fn verify_cwt(bytes: &[u8], key: &ResultPublicKey) -> Result<Self, ResultError> {
        let untagged = bytes
            .strip_prefix(&[TAG_COSE_SIGN1])
            .ok_or_else(|| ResultError::Malformed("not a tagged COSE_Sign1".into()))?;
        let Sign1(protected, unprotected, payload, signature) =
            wire::decode(untagged, 2 * MAX_RESULT_LEN_BYTES)
                .map_err(|error| ResultError::Malformed(error.to_string()))?;
        if protected.as_slice() != key.algorithm().cose_header() || !unprotected.is_empty() {
            return Err(ResultError::Header("COSE headers".into()));
        }
        key.verify(&to_be_signed(&protected, &payload), &signature)?;
        Self::from_cbor(&payload)
    }
}

/// Without external data: that is how other verifiers read a CWT.
fn to_be_signed(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    sig_structure(protected, &[], payload)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sample, step};
    use super::*;
    use crate::verdict::StepResult;
    use ring::rand::SystemRandom;

    fn key() -> ResultKey {
        let random = SystemRandom::new();
        ResultKey::from_pem(&ResultKey::generate_pem(&random).unwrap(), &random).unwrap()
    }

    #[test]
    fn signed_results_are_read_back_under_their_key_only() {
        let random = SystemRandom::new();
        let result = sample(None, &[step("signature", StepResult::Pass)]);
        let (ours, other) = (key(), key());
        let jwt = result.sign_jwt(&ours, &random).unwrap();
        let cwt = result.sign_cwt(&ours, &random).unwrap();
        assert_eq!(AttestationResult::verify_jwt(&jwt, &ours.public()), Ok(result.clone()));
        assert_eq!(AttestationResult::verify_cwt(&cwt, &ours.public()), Ok(result));
        assert_eq!(AttestationResult::verify_jwt(&jwt, &other.public()), Err(ResultError::Signature));
        assert_eq!(AttestationResult::verify_cwt(&cwt, &other.public()), Err(ResultError::Signature));
    }

    #[test]
    fn the_header_cannot_choose_the_algorithm_or_bring_a_key() {
        let random = SystemRandom::new();
        let ours = key();
        let jwt = sample(None, &[]).sign_jwt(&ours, &random).unwrap();
        let (_, rest) = jwt.split_once('.').unwrap();
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"ES384"}"#,
            r#"{"alg":"ES256","jwk":{}}"#,
            r#"{"alg":"ES256","crit":["x"]}"#,
        ] {
            let forged = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
            let refusal = AttestationResult::verify_jwt(&forged, &ours.public()).unwrap_err();
            assert!(matches!(refusal, ResultError::Header(_)), "{header}: {refusal}");
        }
    }

    #[test]
    fn no_byte_of_a_token_is_free() {
        let random = SystemRandom::new();
        let ours = key();
        let result = sample(None, &[step("signature", StepResult::Pass)]);
        let cwt = result.sign_cwt(&ours, &random).unwrap();
        for at in 0..cwt.len() {
            let mut changed = cwt.clone();
            changed[at] ^= 1;
            assert!(AttestationResult::verify_cwt(&changed, &ours.public()).is_err(), "byte {at}");
        }
        let jwt = result.sign_jwt(&ours, &random).unwrap();
        for at in (0..jwt.len()).step_by(7) {
            let mut changed = jwt.clone().into_bytes();
            changed[at] ^= 1;
            let Ok(changed) = String::from_utf8(changed) else { continue };
            assert!(AttestationResult::verify_jwt(&changed, &ours.public()).is_err(), "byte {at}");
        }
    }

    /// What another implementation of the draft (crate ear 0.6) signed is read as far as this one reads: signature and
    /// header are found good, and only the claims that are Adyton's own are missed.
    #[test]
    fn another_implementations_tokens_verify() {
        let public =
            ResultPublicKey::from_pem(include_str!("../../tests/vectors/ear/other.pub.pem")).unwrap();
        let jwt = include_str!("../../tests/vectors/ear/other.jwt").trim();
        let missed = AttestationResult::verify_jwt(jwt, &public).unwrap_err();
        assert!(
            matches!(&missed, ResultError::Malformed(what) if what.contains("ear_verifier_claims")),
            "{missed}"
        );
        let mut changed = jwt.to_owned();
        changed.replace_range(100..101, if &jwt[100..101] == "A" { "B" } else { "A" });
        assert_eq!(AttestationResult::verify_jwt(&changed, &public), Err(ResultError::Signature));
        let cwt = include_bytes!("../../tests/vectors/ear/other.cwt");
        let Sign1(protected, _, payload, signature) = wire::decode(&cwt[1..], 4096).unwrap();
        assert_eq!(public.verify(&to_be_signed(&protected, &payload), &signature), Ok(()));
    }
}
