//! Reference values: which launch measurements a release of the guest image has, signed by who published it.
//!
//! A measurement alone is 48 bytes that nobody can read. Here it comes with everything that decides it (firmware, kernel,
//! initramfs, command line, number and model of vCPUs), so that an auditor recomputes it and a relying party takes all
//! the values of a release by one key and one file. Wire form: deterministic CBOR under `COSE_Sign1`, purpose
//! `adyton/v1/sig/reference`.
//!
//! A key that signs reference values decides which code gets the secrets of those who trust it; it is the publisher's,
//! never the host's, and does not have to be the model owner's.

use ring::signature::Ed25519KeyPair;

use crate::commit::Digest;
use crate::cose::{self, PublicKey, SignedError};
use crate::wire::{self, Blob, Bytes, WireError};

const LABEL: &str = "adyton/v1/sig/reference";
const VERSION: u8 = 1;
/// A release has one value for each firmware, number and model of vCPUs.
const MAX_VALUES: usize = 4096;
const MAX_TEXT_LEN: usize = 4096;

/// One launch and its measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// SHA-256 of the firmware.
    pub firmware: Digest,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// QEMU's name of their model.
    pub vcpu_type: String,
    /// The launch measurement.
    pub measurement: [u8; 48],
}

/// The values of one release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceValues {
    /// Version of the program inside.
    pub release: String,
    /// Whether the image is for machines without a secure processor: SIMULATED, NOT CONFIDENTIAL.
    pub test: bool,
    /// SHA-256 of the kernel.
    pub kernel: Digest,
    /// SHA-256 of the initramfs.
    pub initrd: Digest,
    /// What the kernel is told.
    pub cmdline: String,
    /// The launches.
    pub values: Vec<Value>,
}

type ValueWire = (Bytes<32>, u32, String, Bytes<48>);
type Wire = (u8, String, u8, Bytes<32>, Bytes<32>, String, Vec<ValueWire>);

impl ReferenceValues {
    /// Signs under the publisher's key.
    #[must_use]
    pub fn sign(&self, publisher: &Ed25519KeyPair) -> Vec<u8> {
        let value = |value: &Value| -> ValueWire {
            (Bytes(value.firmware), value.vcpus, value.vcpu_type.clone(), Bytes(value.measurement))
        };
        let wire: Wire = (
            VERSION,
            self.release.clone(),
            u8::from(self.test),
            Bytes(self.kernel),
            Bytes(self.initrd),
            self.cmdline.clone(),
            self.values.iter().map(value).collect(),
        );
        cose::sign(publisher, LABEL, &wire::encode(&wire))
    }

    /// Verifies that `publisher` signed `bytes`, and decodes them.
    ///
    /// # Errors
    /// [`SignedError`]: malformed, over a limit, or not signed by that key for this purpose.
    pub fn verify(publisher: &PublicKey, bytes: &[u8]) -> Result<Self, SignedError> {
        let payload: Blob = Blob::from(cose::verify(publisher, LABEL, bytes)?);
        let (version, release, test, kernel, initrd, cmdline, values): Wire =
            wire::decode(&payload, cose::MAX_LEN)?;
        let texts =
            [&release, &cmdline].into_iter().chain(values.iter().map(|(_, _, vcpu_type, _)| vcpu_type));
        let too_long = texts.into_iter().any(|text| text.len() > MAX_TEXT_LEN);
        if version != VERSION || test > 1 || values.len() > MAX_VALUES || too_long {
            return Err(SignedError::Malformed(WireError::WrongShape));
        }
        let values = values.into_iter().map(|(firmware, vcpus, vcpu_type, measurement)| Value {
            firmware: firmware.0,
            vcpus,
            vcpu_type,
            measurement: measurement.0,
        });
        Ok(Self {
            release,
            test: test == 1,
            kernel: kernel.0,
            initrd: initrd.0,
            cmdline,
            values: values.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::KeyPair as _;

    fn reference() -> ReferenceValues {
        let value =
            Value { firmware: [1; 32], vcpus: 4, vcpu_type: "EPYC-Genoa".into(), measurement: [2; 48] };
        ReferenceValues {
            release: "0.1.0".into(),
            test: false,
            kernel: [3; 32],
            initrd: [4; 32],
            cmdline: "quiet".into(),
            values: vec![value],
        }
    }

    fn key(seed: u8) -> (Ed25519KeyPair, PublicKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        (pair, public)
    }

    #[test]
    fn what_was_signed_is_read_and_nothing_else_is() {
        let (pair, public) = key(1);
        let signed = reference().sign(&pair);
        assert_eq!(ReferenceValues::verify(&public, &signed), Ok(reference()));
        assert_eq!(ReferenceValues::verify(&key(2).1, &signed), Err(SignedError::Signature));
        for at in 0..signed.len() {
            let mut changed = signed.clone();
            changed[at] ^= 1;
            assert!(ReferenceValues::verify(&public, &changed).is_err(), "byte {at} is not protected");
        }
        let test = ReferenceValues { test: true, ..reference() };
        assert!(ReferenceValues::verify(&public, &test.sign(&pair)).unwrap().test);
    }

    #[test]
    fn a_signature_for_another_purpose_is_worthless() {
        let (pair, public) = key(1);
        let payload = cose::verify(&public, LABEL, &reference().sign(&pair)).unwrap();
        let other = cose::sign(&pair, "adyton/v1/sig/manifest", &payload);
        assert_eq!(ReferenceValues::verify(&public, &other), Err(SignedError::Signature));
    }

    #[test]
    fn other_versions_and_long_texts_are_refused() {
        let (pair, public) = key(1);
        let long = ReferenceValues { cmdline: "x".repeat(MAX_TEXT_LEN + 1), ..reference() };
        assert!(matches!(
            ReferenceValues::verify(&public, &long.sign(&pair)),
            Err(SignedError::Malformed(_))
        ));
        let newer: Wire = (2, String::new(), 0, Bytes([0; 32]), Bytes([0; 32]), String::new(), Vec::new());
        let signed = cose::sign(&pair, LABEL, &wire::encode(&newer));
        assert!(matches!(ReferenceValues::verify(&public, &signed), Err(SignedError::Malformed(_))));
    }
}
