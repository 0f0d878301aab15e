//! The encrypted part of a manifest: what a model is called and looks like, for holders of its key only.
//!
//! `salt (32) || AES-256-GCM ciphertext || tag`, padded before encryption to whole blocks of 1024 bytes so that lengths of
//! names do not show. The key is `HKDF(salt, KEK, "adyton/v1/seal/hidden")`, used once, with a zero nonce; the AAD is the
//! model binding, so a description cannot be moved to another manifest.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use zeroize::Zeroizing;

use crate::keys::lp_len;
use crate::secret::{Kek, Secret, SecretError};

const SALT_LEN: usize = 32;
const BLOCK_LEN: usize = 1024;
const LABEL: &[u8] = b"adyton/v1/seal/hidden";
/// Longest plaintext.
pub const MAX_LEN: usize = 32 << 10;

/// Why a description was not encrypted or decrypted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HiddenError {
    /// Longer than [`MAX_LEN`].
    #[error("the model's description has {0} bytes, at most {MAX_LEN} are allowed")]
    TooLong(usize),
    /// Another key, another manifest, or changed bytes; which of them is not told.
    #[error("the model's description could not be opened: wrong key, or another manifest's")]
    NotOpened,
    /// No randomness.
    #[error(transparent)]
    NoEntropy(#[from] SecretError),
}

fn key(kek: &Kek, salt: &[u8]) -> LessSafeKey {
    let prk = kek.expose(|kek| hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(kek));
    let info = [LABEL];
    let okm = prk.expand(&info, &AES_256_GCM).expect("32 bytes are within HKDF's limit");
    LessSafeKey::new(UnboundKey::from(okm))
}

/// Encrypts `plaintext` for the manifest with this model binding.
///
/// # Errors
/// [`HiddenError::TooLong`] or [`HiddenError::NoEntropy`].
pub fn seal_hidden(kek: &Kek, model_binding: &[u8; 32], plaintext: &[u8]) -> Result<Vec<u8>, HiddenError> {
    if plaintext.len() > MAX_LEN {
        return Err(HiddenError::TooLong(plaintext.len()));
    }
    let salt = Secret::<[u8; SALT_LEN]>::generate()?.expose(|salt| *salt);
    let mut buffer = Zeroizing::new(lp_len(plaintext).to_vec());
    buffer.extend_from_slice(plaintext);
    let padded_len = buffer.len().next_multiple_of(BLOCK_LEN);
    buffer.resize(padded_len, 0);
    let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
    let tag = key(kek, &salt)
        .seal_in_place_separate_tag(nonce, Aad::from(model_binding), &mut buffer)
        .map_err(|_| HiddenError::TooLong(plaintext.len()))?;
    Ok([&salt, buffer.as_slice(), tag.as_ref()].concat())
}

/// Decrypts what [`seal_hidden`] made for the same key and model binding.
///
/// # Errors
/// [`HiddenError::NotOpened`].
pub fn open_hidden(
    kek: &Kek,
    model_binding: &[u8; 32],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, HiddenError> {
    let (salt, ciphertext) = sealed.split_at_checked(SALT_LEN).ok_or(HiddenError::NotOpened)?;
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
    let padded = key(kek, salt)
        .open_in_place(nonce, Aad::from(model_binding), &mut buffer)
        .map_err(|_| HiddenError::NotOpened)?;
    let (len, rest) = padded.split_first_chunk::<4>().ok_or(HiddenError::NotOpened)?;
    let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| HiddenError::NotOpened)?;
    let plaintext = rest.get(..len).ok_or(HiddenError::NotOpened)?;
    Ok(Zeroizing::new(plaintext.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_and_the_binding_open_it_and_lengths_do_not_show() {
        let (kek, other) = (Kek::from_bytes(&mut [1; 32]), Kek::from_bytes(&mut [2; 32]));
        let sealed = seal_hidden(&kek, &[3; 32], b"digits").unwrap();
        assert_eq!(open_hidden(&kek, &[3; 32], &sealed).unwrap().as_slice(), b"digits");
        assert!(open_hidden(&other, &[3; 32], &sealed).is_err());
        assert!(open_hidden(&kek, &[4; 32], &sealed).is_err());
        assert_eq!(sealed.len(), seal_hidden(&kek, &[3; 32], b"a much longer name").unwrap().len());
        assert!(seal_hidden(&kek, &[3; 32], &vec![0; MAX_LEN + 1]).is_err());
    }

    #[test]
    fn every_changed_byte_is_refused() {
        let kek = Kek::from_bytes(&mut [1; 32]);
        let sealed = seal_hidden(&kek, &[3; 32], b"digits").unwrap();
        for at in (0..sealed.len()).step_by(13).chain([sealed.len() - 1]) {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open_hidden(&kek, &[3; 32], &changed).is_err(), "byte {at}");
        }
        assert!(open_hidden(&kek, &[3; 32], &sealed[..40]).is_err());
        assert!(open_hidden(&kek, &[3; 32], &[]).is_err());
    }
}
