//! Wrapping a KEK under a public key: HPKE (RFC 9180), base mode, HKDF-SHA256, AES-256-GCM.
//!
//! Two KEMs: X-Wing (`0x647a`, ML-KEM-768 with X25519, safe if either holds) and X25519 (`0x0020`). Key release
//! (protocol section 6) uses X-Wing alone, with a key pair made for one release: [`open_kek`] takes the private key
//! by value, so that it is gone and wiped afterwards whatever came of it.
//!
//! Base mode authenticates no sender. Who sent the KEK is settled around it: by the signed grant in `aad` and the
//! transcript in `info` for a release, by the key commitment and header MAC for a file.

use crate::secret::{Kek, Secret, SecretError};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::{X25519HkdfSha256, XWing};
use hpke::{Deserializable, Kem as HpkeKem, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

/// Key encapsulation mechanism, named by its HPKE identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kem {
    /// X-Wing, the default: hybrid of ML-KEM-768 and X25519.
    XWing,
    /// DHKEM(X25519, HKDF-SHA256), for recipients without post-quantum keys.
    X25519,
}

impl Kem {
    /// HPKE KEM identifier.
    #[must_use]
    pub fn id(self) -> u16 {
        match self {
            Self::XWing => XWing::KEM_ID,
            Self::X25519 => X25519HkdfSha256::KEM_ID,
        }
    }

    /// The KEM with this HPKE identifier, if it is one of ours.
    #[must_use]
    pub fn from_id(id: u16) -> Option<Self> {
        [Self::XWing, Self::X25519].into_iter().find(|kem| kem.id() == id)
    }

    /// Bytes of an encapsulated key: 1120 or 32.
    #[must_use]
    pub fn enc_len(self) -> usize {
        match self {
            Self::XWing => <XWing as HpkeKem>::EncappedKey::size(),
            Self::X25519 => <X25519HkdfSha256 as HpkeKem>::EncappedKey::size(),
        }
    }
}

/// Why a key could not be wrapped or unwrapped.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WrapError {
    /// The bytes are not a public key of this KEM.
    #[error("not a public key for {0:?}: {1} bytes, or an invalid encoding; ask its owner for it again")]
    PublicKey(Kem, usize),
    /// Wrapped bytes of a length this KEM does not have.
    #[error("a KEK wrapped with {kem:?} has {expected} bytes, got {got}")]
    Length {
        /// The KEM.
        kem: Kem,
        /// Encapsulated key and ciphertext together.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// Another key, another context, or changed bytes; which of them is not told.
    #[error("the wrapped key could not be opened: it is for another key or another context, or was changed")]
    NotOpened,
    /// No stanza is for this private key.
    #[error("the sealed file names no recipient with this key: seal it again for this key")]
    NotARecipient,
    /// No randomness.
    #[error(transparent)]
    NoEntropy(#[from] SecretError),
}

/// A private key, kept as the 32 bytes from which its KEM derives it; wiped when dropped.
pub struct PrivateKey {
    kem: Kem,
    seed: Secret<[u8; 32]>,
}

impl PrivateKey {
    /// Takes a key that was stored, 32 bytes for either KEM.
    #[must_use]
    pub fn from_secret(kem: Kem, seed: Secret<[u8; 32]>) -> Self {
        Self { kem, seed }
    }

    /// Lends the key bytes to `f`, for a key file.
    pub fn expose<R>(&self, f: impl FnOnce(&[u8; 32]) -> R) -> R {
        self.seed.expose(f)
    }

    pub(crate) fn seed<R>(&self, f: impl FnOnce(&Secret<[u8; 32]>) -> R) -> R {
        f(&self.seed)
    }

    /// Its KEM.
    #[must_use]
    pub fn kem(&self) -> Kem {
        self.kem
    }

    /// Bytes of the public key, 1216 for X-Wing and 32 for X25519.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        match self.kem {
            Kem::XWing => public_key::<XWing>(&self.seed),
            Kem::X25519 => public_key::<X25519HkdfSha256>(&self.seed),
        }
    }
}

/// Makes a key pair: the private key and the bytes of the public one.
///
/// # Errors
/// [`WrapError::NoEntropy`] if the kernel's generator fails.
pub fn generate(kem: Kem) -> Result<(PrivateKey, Vec<u8>), WrapError> {
    let key = PrivateKey { kem, seed: Secret::generate()? };
    let public = key.public_key();
    Ok((key, public))
}

/// A wrapped KEK: the encapsulated key and the AEAD ciphertext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKek {
    kem: Kem,
    enc: Vec<u8>,
    ciphertext: [u8; Self::CIPHERTEXT_LEN],
}

impl WrappedKek {
    /// Bytes of the ciphertext: 32 of KEK and 16 of tag.
    pub const CIPHERTEXT_LEN: usize = 48;

    /// Its KEM.
    #[must_use]
    pub fn kem(&self) -> Kem {
        self.kem
    }

    /// Encapsulated key and ciphertext.
    pub(crate) fn parts(&self) -> (&[u8], &[u8]) {
        (&self.enc, &self.ciphertext)
    }

    /// `enc || ciphertext`, as a message carries it: 1168 bytes for X-Wing, 80 for X25519.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.enc.as_slice(), &self.ciphertext].concat()
    }

    /// Cuts `enc || ciphertext` apart.
    ///
    /// # Errors
    /// [`WrapError::Length`].
    pub fn from_bytes(kem: Kem, bytes: &[u8]) -> Result<Self, WrapError> {
        let (enc, ciphertext) = bytes.split_at_checked(kem.enc_len()).unwrap_or((bytes, &[]));
        Self::from_parts(kem, enc, ciphertext)
    }

    pub(crate) fn from_parts(kem: Kem, enc: &[u8], ciphertext: &[u8]) -> Result<Self, WrapError> {
        let expected = kem.enc_len() + Self::CIPHERTEXT_LEN;
        let wrong = WrapError::Length { kem, expected, got: enc.len().saturating_add(ciphertext.len()) };
        match ciphertext.try_into() {
            Ok(ciphertext) if enc.len() == kem.enc_len() => Ok(Self { kem, enc: enc.to_vec(), ciphertext }),
            _ => Err(wrong),
        }
    }
}

/// Wraps `kek` for `recipient`, a public key of `kem`.
///
/// `info` and `aad` are the context: opening needs the same bytes. For a release they are
/// `lp("adyton/v1/wrap/release") || TH3` and the grant.
///
/// # Errors
/// [`WrapError::PublicKey`].
pub fn seal_kek(
    kem: Kem,
    recipient: &[u8],
    info: &[u8],
    aad: &[u8],
    kek: &Kek,
) -> Result<WrappedKek, WrapError> {
    let (enc, ciphertext) = match kem {
        Kem::XWing => seal::<XWing>(recipient, info, aad, kek),
        Kem::X25519 => seal::<X25519HkdfSha256>(recipient, info, aad, kek),
    }
    .ok_or(WrapError::PublicKey(kem, recipient.len()))?;
    WrappedKek::from_parts(kem, &enc, &ciphertext)
}

/// Unwraps a KEK with a private key made for this one use, which is wiped in any case.
///
/// # Errors
/// [`WrapError::NotOpened`].
#[allow(clippy::needless_pass_by_value, reason = "taking the key is the point: it serves once")]
pub fn open_kek(key: PrivateKey, info: &[u8], aad: &[u8], wrapped: &WrappedKek) -> Result<Kek, WrapError> {
    open_with(&key, info, aad, wrapped)
}

/// Unwraps a KEK with a long-lived private key, as [`open_kek`].
pub(crate) fn open_with(
    key: &PrivateKey,
    info: &[u8],
    aad: &[u8],
    wrapped: &WrappedKek,
) -> Result<Kek, WrapError> {
    if key.kem != wrapped.kem {
        return Err(WrapError::NotOpened);
    }
    match key.kem {
        Kem::XWing => open::<XWing>(&key.seed, info, aad, wrapped),
        Kem::X25519 => open::<X25519HkdfSha256>(&key.seed, info, aad, wrapped),
    }
    .ok_or(WrapError::NotOpened)
}

/// The KEM's own private key from 32 bytes, which are one for both KEMs. It is wiped by its crate when dropped.
pub(crate) fn private_key<K: HpkeKem>(seed: &Secret<[u8; 32]>) -> K::PrivateKey {
    seed.expose(|seed| K::PrivateKey::from_bytes(seed)).expect("private keys of both KEMs are any 32 bytes")
}

fn public_key<K: HpkeKem>(seed: &Secret<[u8; 32]>) -> Vec<u8> {
    K::sk_to_pk(&private_key::<K>(seed)).to_bytes().to_vec()
}

fn seal<K: HpkeKem>(recipient: &[u8], info: &[u8], aad: &[u8], kek: &Kek) -> Option<(Vec<u8>, Vec<u8>)> {
    let recipient = K::PublicKey::from_bytes(recipient).ok()?;
    let (enc, ciphertext) = kek
        .expose(|kek| {
            hpke::single_shot_seal::<AesGcm256, HkdfSha256, K>(&OpModeS::Base, &recipient, info, kek, aad)
        })
        .ok()?;
    Some((enc.to_bytes().to_vec(), ciphertext))
}

fn open<K: HpkeKem>(seed: &Secret<[u8; 32]>, info: &[u8], aad: &[u8], wrapped: &WrappedKek) -> Option<Kek> {
    let enc = K::EncappedKey::from_bytes(&wrapped.enc).ok()?;
    let plaintext = hpke::single_shot_open::<AesGcm256, HkdfSha256, K>(
        &OpModeR::Base,
        &private_key::<K>(seed),
        &enc,
        info,
        &wrapped.ciphertext,
        aad,
    );
    let plaintext = Zeroizing::new(plaintext.ok()?);
    let mut kek = Zeroizing::new(<[u8; 32]>::try_from(plaintext.as_slice()).ok()?);
    Some(Kek::from_bytes(&mut kek))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Kem; 2] = [Kem::XWing, Kem::X25519];

    fn kek() -> Kek {
        Kek::from_bytes(&mut [0x4b; 32])
    }

    #[test]
    fn identifiers_and_sizes_are_those_of_hpke() {
        assert_eq!((Kem::XWing.id(), Kem::X25519.id()), (0x647a, 0x0020));
        assert_eq!((Kem::XWing.enc_len(), Kem::X25519.enc_len()), (1120, 32));
        assert_eq!(Kem::from_id(0x0010), None);
        assert_eq!(generate(Kem::XWing).unwrap().1.len(), 1216);
        assert_eq!(generate(Kem::X25519).unwrap().1.len(), 32);
    }

    #[test]
    fn wrapped_keks_open_in_their_context_only() {
        for kem in BOTH {
            let wrapped = |public: &[u8]| seal_kek(kem, public, b"info", b"aad", &kek()).unwrap();
            let (key, public) = generate(kem).unwrap();
            let one = wrapped(&public);
            assert!(open_with(&key, b"info", b"aad", &one).unwrap().equals(&kek()));
            assert_eq!(open_with(&key, b"infO", b"aad", &one).err(), Some(WrapError::NotOpened));
            assert_eq!(open_with(&key, b"info", b"aaD", &one).err(), Some(WrapError::NotOpened));
            let other = generate(kem).unwrap().0;
            assert_eq!(open_kek(other, b"info", b"aad", &one).err(), Some(WrapError::NotOpened));
            assert_ne!(wrapped(&public), one, "each wrapping is fresh");
            assert!(open_kek(key, b"info", b"aad", &one).unwrap().equals(&kek()));
        }
    }

    #[test]
    fn any_changed_byte_is_refused() {
        for kem in BOTH {
            let (key, public) = generate(kem).unwrap();
            let bytes = seal_kek(kem, &public, b"", b"", &kek()).unwrap().to_bytes();
            for at in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                let wrapped = WrappedKek::from_bytes(kem, &changed).unwrap();
                assert_eq!(open_with(&key, b"", b"", &wrapped).err(), Some(WrapError::NotOpened), "{at}");
            }
        }
    }

    #[test]
    fn wrong_lengths_and_bad_public_keys_are_refused() {
        for kem in BOTH {
            let (_, public) = generate(kem).unwrap();
            let bytes = seal_kek(kem, &public, b"", b"", &kek()).unwrap().to_bytes();
            for wrong in [&bytes[1..], &[], &[bytes.as_slice(), &[0]].concat()] {
                assert!(matches!(WrappedKek::from_bytes(kem, wrong), Err(WrapError::Length { .. })));
            }
            let refused = seal_kek(kem, &public[1..], b"", b"", &kek());
            assert_eq!(refused, Err(WrapError::PublicKey(kem, public.len() - 1)));
        }
        // A coordinate of the ML-KEM key above the modulus, and the X25519 point of order one.
        assert!(seal_kek(Kem::XWing, &[0xff; 1216], b"", b"", &kek()).is_err());
        assert!(seal_kek(Kem::X25519, &[0; 32], b"", b"", &kek()).is_err());
    }

    #[test]
    fn stored_private_key_is_the_same_key() {
        for kem in BOTH {
            let (key, public) = generate(kem).unwrap();
            let stored = PrivateKey::from_secret(kem, key.expose(|seed| Secret::new(*seed)));
            assert_eq!(stored.public_key(), public);
        }
    }
}
