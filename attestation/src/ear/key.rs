//! Keys that sign Attestation Results: ECDSA on P-256 (ES256) or P-384 (ES384).

use der::asn1::{BitString, ObjectIdentifier};
use der::pem::{LineEnding, decode_vec, encode_string};
use der::{Decode as _, Encode as _};
use ring::rand::SecureRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use super::ResultError;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const PRIVATE_LABEL: &str = "PRIVATE KEY";
const PUBLIC_LABEL: &str = "PUBLIC KEY";

/// Why a key file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not one PEM block of the wanted kind.
    #[error("not one PEM block \"{0}\"")]
    Pem(&'static str),
    /// Not ECDSA on P-256 or P-384.
    #[error("not an ECDSA key on P-256 or P-384 (PKCS#8 or SubjectPublicKeyInfo)")]
    Kind,
    /// The source of randomness failed.
    #[error("no randomness to be had")]
    Random,
}

/// The signature algorithm, which the key decides and never the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Es256,
    Es384,
}

impl Algorithm {
    /// `alg` in a JWT header.
    pub(super) const fn jose(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
        }
    }

    /// The protected COSE header `{1: alg}`, encoded.
    pub(super) const fn cose_header(self) -> &'static [u8] {
        match self {
            Self::Es256 => &[0xa1, 0x01, 0x26],
            // -35 needs a byte of its own.
            Self::Es384 => &[0xa1, 0x01, 0x38, 0x22],
        }
    }

    const fn curve(self) -> ObjectIdentifier {
        match self {
            Self::Es256 => SECP256R1,
            Self::Es384 => SECP384R1,
        }
    }

    const fn point_len_bytes(self) -> usize {
        match self {
            Self::Es256 => 65,
            Self::Es384 => 97,
        }
    }
}

/// A private key.
pub struct ResultKey {
    pair: EcdsaKeyPair,
    algorithm: Algorithm,
}

impl core::fmt::Debug for ResultKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ResultKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl ResultKey {
    /// Draws a P-256 key; returns it as PKCS#8 in PEM.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate_pem(random: &dyn SecureRandom) -> Result<String, KeyError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, random)
            .map_err(|_| KeyError::Random)?;
        Ok(pem(PRIVATE_LABEL, document.as_ref()))
    }

    /// Reads a PKCS#8 key in PEM.
    ///
    /// # Errors
    /// [`KeyError`]: not PEM, or not of the two curves.
    pub fn from_pem(text: &str, random: &dyn SecureRandom) -> Result<Self, KeyError> {
        let der = unpem(PRIVATE_LABEL, text)?;
        let kinds = [
            (&ECDSA_P256_SHA256_FIXED_SIGNING, Algorithm::Es256),
            (&ECDSA_P384_SHA384_FIXED_SIGNING, Algorithm::Es384),
        ];
        kinds
            .into_iter()
            .find_map(|(kind, algorithm)| {
                let pair = EcdsaKeyPair::from_pkcs8(kind, &der, random).ok()?;
                Some(Self { pair, algorithm })
            })
            .ok_or(KeyError::Kind)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> ResultPublicKey {
        ResultPublicKey { point: self.pair.public_key().as_ref().to_vec(), algorithm: self.algorithm }
    }

    pub(super) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// `r || s` over `message`.
    pub(super) fn sign(&self, message: &[u8], random: &dyn SecureRandom) -> Result<Vec<u8>, KeyError> {
        let signature = self.pair.sign(random, message).map_err(|_| KeyError::Random)?;
        Ok(signature.as_ref().to_vec())
    }
}

/// A public key that results are believed under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultPublicKey {
    point: Vec<u8>,
    algorithm: Algorithm,
}

impl ResultPublicKey {
    /// As SubjectPublicKeyInfo in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let info = SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned {
                oid: EC_PUBLIC_KEY,
                parameters: Some((&self.algorithm.curve()).into()),
            },
            subject_public_key: BitString::from_bytes(&self.point).expect("a point is far below DER's limit"),
        };
        pem(PUBLIC_LABEL, &info.to_der().expect("a key of known length always encodes"))
    }

    /// Reads a SubjectPublicKeyInfo in PEM.
    ///
    /// # Errors
    /// [`KeyError`]: not PEM, or not of the two curves.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = unpem(PUBLIC_LABEL, text)?;
        let info = SubjectPublicKeyInfoOwned::from_der(&der).map_err(|_| KeyError::Kind)?;
        let curve = info.algorithm.parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        let algorithm = [Algorithm::Es256, Algorithm::Es384]
            .into_iter()
            .find(|algorithm| curve == Some(algorithm.curve()))
            .filter(|_| info.algorithm.oid == EC_PUBLIC_KEY)
            .ok_or(KeyError::Kind)?;
        let point = info.subject_public_key.as_bytes().ok_or(KeyError::Kind)?;
        if point.len() != algorithm.point_len_bytes() {
            return Err(KeyError::Kind);
        }
        Ok(Self { point: point.to_vec(), algorithm })
    }

    pub(super) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), ResultError> {
        let kind = match self.algorithm {
            Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
            Algorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
        };
        UnparsedPublicKey::new(kind, &self.point)
            .verify(message, signature)
            .map_err(|_| ResultError::Signature)
    }
}

fn pem(label: &'static str, der: &[u8]) -> String {
    encode_string(label, LineEnding::LF, der).expect("a short key always encodes")
}

/// The content of exactly one PEM block (RFC 7468), by its label.
fn unpem(label: &'static str, text: &str) -> Result<Vec<u8>, KeyError> {
    match decode_vec(text.as_bytes()) {
        Ok((found, der)) if found == label => Ok(der),
        _ => Err(KeyError::Pem(label)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;

    #[test]
    fn keys_survive_their_files() {
        let random = SystemRandom::new();
        let text = ResultKey::generate_pem(&random).unwrap();
        let public = ResultKey::from_pem(&text, &random).unwrap().public();
        assert_eq!(ResultPublicKey::from_pem(&public.to_pem()), Ok(public.clone()));
        let p384 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
        let p384 = ResultKey::from_pem(&pem(PRIVATE_LABEL, p384.as_ref()), &random).unwrap().public();
        assert_eq!(ResultPublicKey::from_pem(&p384.to_pem()), Ok(p384.clone()));
        assert_ne!(p384.algorithm(), public.algorithm());
    }

    #[test]
    fn other_keys_and_other_text_are_refused() {
        let random = SystemRandom::new();
        let private = ResultKey::generate_pem(&random).unwrap();
        assert_eq!(ResultPublicKey::from_pem(&private), Err(KeyError::Pem(PUBLIC_LABEL)));
        let ed25519 = ring::signature::Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ed25519 = pem(PRIVATE_LABEL, ed25519.as_ref());
        assert_eq!(ResultKey::from_pem(&ed25519, &random).unwrap_err(), KeyError::Kind);
        assert_eq!(ResultPublicKey::from_pem("").unwrap_err(), KeyError::Pem(PUBLIC_LABEL));
    }
}
