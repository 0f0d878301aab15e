//! Wrapping a KEK for a release, with the key that confirms it (SPEC, section 6).
//!
//! The same HPKE as [`crate::wrap`], X-Wing only; both ends also export a key from the HPKE context, under which the
//! enclave proves in its last message that it opened the KEK.

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable, Kem as HpkeKem, OpModeR, OpModeS, Serializable, setup_receiver, setup_sender};
use zeroize::Zeroizing;

use crate::secret::{Kek, Secret};
use crate::wrap::{Kem, PrivateKey, WrapError, WrappedKek, private_key};

/// Wraps `kek` for `recipient` (X-Wing) and returns the confirmation key beside it.
///
/// `info` is `lp("adyton/v1/wrap/release") || TH3`, `aad` the signed grant, `confirm_context` the exporter context.
///
/// # Errors
/// [`WrapError::PublicKey`].
pub fn seal_for_release(
    recipient: &[u8],
    info: &[u8],
    aad: &[u8],
    confirm_context: &[u8],
    kek: &Kek,
) -> Result<(WrappedKek, Secret<[u8; 32]>), WrapError> {
    let not_a_key = || WrapError::PublicKey(Kem::XWing, recipient.len());
    let key = <XWing as HpkeKem>::PublicKey::from_bytes(recipient).map_err(|_| not_a_key())?;
    let (enc, mut context) =
        setup_sender::<AesGcm256, HkdfSha256, XWing>(&OpModeS::Base, &key, info).map_err(|_| not_a_key())?;
    let ciphertext = kek.expose(|kek| context.seal(kek, aad)).map_err(|_| not_a_key())?;
    let mut confirm = Zeroizing::new([0; 32]);
    context.export(confirm_context, confirm.as_mut()).map_err(|_| not_a_key())?;
    Ok((WrappedKek::from_parts(Kem::XWing, &enc.to_bytes(), &ciphertext)?, Secret::new(*confirm)))
}

/// Opens a KEK that was wrapped by [`seal_for_release`]; the private key is used up and wiped in any case.
///
/// # Errors
/// [`WrapError::NotOpened`].
#[allow(clippy::needless_pass_by_value, reason = "taking the key is the point: it serves once")]
pub fn open_for_release(
    key: PrivateKey,
    info: &[u8],
    aad: &[u8],
    confirm_context: &[u8],
    wrapped: &[u8],
) -> Result<(Kek, Secret<[u8; 32]>), WrapError> {
    let wrapped = WrappedKek::from_bytes(Kem::XWing, wrapped)?;
    if key.kem() != Kem::XWing {
        return Err(WrapError::NotOpened);
    }
    let (enc, ciphertext) = wrapped.parts();
    let enc = <XWing as HpkeKem>::EncappedKey::from_bytes(enc).map_err(|_| WrapError::NotOpened)?;
    let private = key.seed(private_key::<XWing>);
    let mut context = setup_receiver::<AesGcm256, HkdfSha256, XWing>(&OpModeR::Base, &private, &enc, info)
        .map_err(|_| WrapError::NotOpened)?;
    let plaintext = Zeroizing::new(context.open(ciphertext, aad).map_err(|_| WrapError::NotOpened)?);
    let mut kek =
        Zeroizing::new(<[u8; 32]>::try_from(plaintext.as_slice()).map_err(|_| WrapError::NotOpened)?);
    let mut confirm = Zeroizing::new([0; 32]);
    context.export(confirm_context, confirm.as_mut()).map_err(|_| WrapError::NotOpened)?;
    Ok((Kek::from_bytes(&mut kek), Secret::new(*confirm)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wrap::{generate, open_with};

    #[test]
    fn both_ends_get_the_same_kek_and_confirmation_key() {
        let kek = Kek::from_bytes(&mut [7; 32]);
        let (key, public) = generate(Kem::XWing).unwrap();
        let (wrapped, sent) = seal_for_release(&public, b"info", b"aad", b"confirm", &kek).unwrap();
        let (opened, received) =
            open_for_release(key, b"info", b"aad", b"confirm", &wrapped.to_bytes()).unwrap();
        assert!(opened.equals(&kek));
        assert!(sent.expose(|sent| received.equals(sent)));
    }

    #[test]
    fn another_context_key_or_ciphertext_opens_nothing() {
        let kek = Kek::from_bytes(&mut [7; 32]);
        let seal = || {
            let (key, public) = generate(Kem::XWing).unwrap();
            let (wrapped, _) = seal_for_release(&public, b"info", b"aad", b"confirm", &kek).unwrap();
            (key, wrapped.to_bytes())
        };
        let (key, bytes) = seal();
        assert!(open_for_release(key, b"other", b"aad", b"confirm", &bytes).is_err());
        let (key, bytes) = seal();
        assert!(open_for_release(key, b"info", b"other", b"confirm", &bytes).is_err());
        let (key, mut bytes) = seal();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(open_for_release(key, b"info", b"aad", b"confirm", &bytes).is_err());
        let (_, bytes) = seal();
        assert!(open_for_release(seal().0, b"info", b"aad", b"confirm", &bytes).is_err());
        assert!(seal_for_release(b"short", b"", b"", b"", &kek).is_err());
    }

    #[test]
    fn it_is_the_same_hpke_as_plain_wrapping() {
        let kek = Kek::from_bytes(&mut [9; 32]);
        let (key, public) = generate(Kem::XWing).unwrap();
        let (wrapped, _) = seal_for_release(&public, b"info", b"aad", b"confirm", &kek).unwrap();
        assert!(open_with(&key, b"info", b"aad", &wrapped).unwrap().equals(&kek));
    }
}
