//! Recipient stanzas of a sealed file: who can unwrap its KEK without asking a broker.
//!
//! ```text
//! stanza = u16(kem) || lp(key id) || lp(enc) || lp(wrapped KEK)
//! ```
//! `kem` is the HPKE identifier, `0x647a` X-Wing or `0x0020` X25519; the key id is the SHA-256 of the recipient's
//! public key, so that a recipient finds its stanza without trying each. Lengths are fixed by the KEM, and a stanza
//! with any other length or an unknown KEM is refused: nothing can be smuggled in front of the header MAC. No stanza
//! at all means that a broker holds the KEK.
//!
//! The KEK is wrapped with HPKE `info = lp("adyton/v1/wrap/recipient") || H(fixed header)` and empty AAD: a stanza
//! moved to another file does not open.

use crate::keys::lp_len;
use crate::merkle::{Digest, sha256};
use crate::secret::Kek;
use crate::wrap::{Kem, PrivateKey, WrapError, WrappedKek, open_with, seal_kek};

const KEY_ID_LEN: usize = 32;
const INFO_LABEL: &[u8] = b"adyton/v1/wrap/recipient";

/// Why recipient stanzas are malformed.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecipientError {
    /// A KEM this code does not know.
    #[error("unknown recipient type {0:#06x}: known are 0x647a (X-Wing) and 0x0020 (X25519)")]
    Kem(u16),
    /// A field has not the one length its KEM allows.
    #[error("field `{field}` of a {kem:?} recipient has {got} bytes, expected {expected}")]
    Length {
        /// Which field.
        field: &'static str,
        /// The stanza's KEM.
        kem: Kem,
        /// Its one allowed length.
        expected: usize,
        /// Its length in the stanza.
        got: usize,
    },
    /// The stanzas end inside a field.
    #[error("the last recipient stanza is cut off")]
    Truncated,
}

/// One recipient: the KEK wrapped for one public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stanza {
    key_id: Digest,
    wrapped: WrappedKek,
}

impl Stanza {
    /// Wraps `kek` for the holder of `recipient`'s private key, bound to the fixed header with this hash.
    ///
    /// # Errors
    /// [`WrapError::PublicKey`] if `recipient` is not a public key of its KEM.
    pub(crate) fn seal(
        recipient: &RecipientKey,
        fixed_header_hash: &Digest,
        kek: &Kek,
    ) -> Result<Self, WrapError> {
        let wrapped = seal_kek(recipient.kem, &recipient.public_key, &info(fixed_header_hash), &[], kek)?;
        Ok(Self { key_id: recipient.key_id(), wrapped })
    }

    /// SHA-256 of the recipient's public key.
    #[must_use]
    pub fn key_id(&self) -> &Digest {
        &self.key_id
    }

    /// The recipient's KEM.
    #[must_use]
    pub fn kem(&self) -> Kem {
        self.wrapped.kem()
    }

    /// Unwraps the KEK. What comes out is proven right only by [`crate::Opener::new`].
    ///
    /// # Errors
    /// [`WrapError`] if the key is another one or the stanza belongs to another file.
    pub(crate) fn open(&self, key: &PrivateKey, fixed_header_hash: &Digest) -> Result<Kek, WrapError> {
        open_with(key, &info(fixed_header_hash), &[], &self.wrapped)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let (enc, ciphertext) = self.wrapped.parts();
        let mut bytes = self.kem().id().to_be_bytes().to_vec();
        for field in [self.key_id.as_slice(), enc, ciphertext] {
            bytes.extend_from_slice(&lp_len(field));
            bytes.extend_from_slice(field);
        }
        bytes
    }

    /// Decodes a whole recipients field.
    pub(crate) fn decode_all(mut bytes: &[u8]) -> Result<Vec<Self>, RecipientError> {
        let mut stanzas = Vec::new();
        while !bytes.is_empty() {
            stanzas.push(Self::decode(&mut bytes)?);
        }
        Ok(stanzas)
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, RecipientError> {
        let (id, rest) = bytes.split_first_chunk().ok_or(RecipientError::Truncated)?;
        *bytes = rest;
        let id = u16::from_be_bytes(*id);
        let kem = Kem::from_id(id).ok_or(RecipientError::Kem(id))?;
        let key_id = take_lp(bytes, kem, "key id", KEY_ID_LEN)?;
        let enc = take_lp(bytes, kem, "enc", kem.enc_len())?;
        let ciphertext = take_lp(bytes, kem, "wrapped KEK", WrappedKek::CIPHERTEXT_LEN)?;
        let truncated = RecipientError::Truncated;
        Ok(Self {
            key_id: key_id.try_into().map_err(|_| RecipientError::Truncated)?,
            wrapped: WrappedKek::from_parts(kem, enc, ciphertext).map_err(|_| truncated)?,
        })
    }
}

/// Takes one length-prefixed field, which must have exactly `expected` bytes.
fn take_lp<'a>(
    bytes: &mut &'a [u8],
    kem: Kem,
    field: &'static str,
    expected: usize,
) -> Result<&'a [u8], RecipientError> {
    let (len, rest) = bytes.split_first_chunk().ok_or(RecipientError::Truncated)?;
    let got = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
    if got != expected {
        return Err(RecipientError::Length { field, kem, expected, got });
    }
    let (value, rest) = rest.split_at_checked(got).ok_or(RecipientError::Truncated)?;
    *bytes = rest;
    Ok(value)
}

fn info(fixed_header_hash: &Digest) -> Vec<u8> {
    [&lp_len(INFO_LABEL), INFO_LABEL, fixed_header_hash].concat()
}

/// A public key to seal a file for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientKey {
    /// Its KEM.
    pub kem: Kem,
    /// Its bytes, 1216 for X-Wing and 32 for X25519; refused when sealing if they are not a key.
    pub public_key: Vec<u8>,
}

impl RecipientKey {
    /// SHA-256 of the public key.
    #[must_use]
    pub fn key_id(&self) -> Digest {
        sha256(&[&self.public_key])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wrap::generate;
    use proptest::prelude::*;

    fn stanza(kem: Kem) -> (PrivateKey, Stanza) {
        let (private, public_key) = generate(kem).unwrap();
        let recipient = RecipientKey { kem, public_key };
        (private, Stanza::seal(&recipient, &[9; 32], &Kek::from_bytes(&mut [1; 32])).unwrap())
    }

    #[test]
    fn stanzas_round_trip_and_open() {
        let (x_wing_key, x_wing) = stanza(Kem::XWing);
        let (x25519_key, x25519) = stanza(Kem::X25519);
        assert_eq!(x_wing.encode().len(), 2 + 4 + 32 + 4 + 1120 + 4 + 48);
        assert_eq!(x25519.encode().len(), 2 + 4 + 32 + 4 + 32 + 4 + 48);
        let bytes = [x_wing.encode(), x25519.encode()].concat();
        assert_eq!(Stanza::decode_all(&bytes), Ok(vec![x_wing.clone(), x25519.clone()]));
        for (key, stanza) in [(&x_wing_key, &x_wing), (&x25519_key, &x25519)] {
            assert!(stanza.open(key, &[9; 32]).unwrap().expose(|k| *k == [1; 32]));
            assert!(stanza.open(key, &[8; 32]).is_err(), "a stanza is bound to its file");
        }
        assert!(x_wing.open(&x25519_key, &[9; 32]).is_err());
    }

    #[test]
    fn wrong_lengths_and_kems_are_refused() {
        let good = stanza(Kem::X25519).1.encode();
        let patched = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Stanza::decode_all(&bytes)
        };
        assert_eq!(patched(1, 0x21), Err(RecipientError::Kem(0x21)));
        assert!(matches!(patched(5, 31), Err(RecipientError::Length { field: "key id", got: 31, .. })));
        assert!(matches!(patched(2, 255), Err(RecipientError::Length { field: "key id", .. })));
        assert!(matches!(patched(41, 33), Err(RecipientError::Length { field: "enc", .. })));
        assert!(matches!(patched(77, 49), Err(RecipientError::Length { field: "wrapped KEK", .. })));
        for len in 1..good.len() {
            assert_eq!(Stanza::decode_all(&good[..len]), Err(RecipientError::Truncated), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(stanzas) = Stanza::decode_all(&bytes) {
                prop_assert_eq!(stanzas.iter().flat_map(Stanza::encode).collect::<Vec<_>>(), bytes);
            }
        }
    }
}
