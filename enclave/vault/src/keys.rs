//! Keys of one sealed file, all derived from the model's KEK.
//!
//! ```text
//! DEK        = HKDF(salt, KEK, "adyton/v1/seal/dek" || file_id || model binding)
//! PRK        = HKDF-Extract(salt, DEK)
//! commitment = Expand(PRK, "adyton/v1/seal/commit" || file_id)
//! MAC key    = Expand(PRK, "adyton/v1/seal/mac" || file_id)
//! segment s  = Expand(PRK, "adyton/v1/seal/seg" || file_id || u32(s))        chunk i is in segment i >> 16
//! ```
//! The model binding in the DEK's derivation makes a key for another owner, model or version useless. The commitment
//! exists because AES-GCM and ChaCha20-Poly1305 do not commit to their key: without it, one file could be built to
//! open under two keys to two different models. A segment key serves at most 65536 chunks of 1 MiB, well below the
//! limits of either cipher.

use crate::header::{FixedHeader, Suite};
use crate::merkle::{Digest, sha256};
use crate::secret::Kek;
use ring::aead::{AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use ring::{hkdf, hmac};
use zeroize::Zeroizing;

/// Chunks of one segment share a key; `i >> SEGMENT_LOG2` is the segment of chunk `i`.
pub(crate) const SEGMENT_LOG2: u32 = 16;

/// `model binding = H(lp(owner id) || lp(model name) || u64(counter))`, protocol section 9.
///
/// `owner_id` and `model_name` come from the owner's manifest, as does `counter`, its version.
#[must_use]
pub fn model_binding(owner_id: &[u8], model_name: &str, counter: u64) -> Digest {
    sha256(&[
        &lp_len(owner_id),
        owner_id,
        &lp_len(model_name.as_bytes()),
        model_name.as_bytes(),
        &counter.to_be_bytes(),
    ])
}

/// The length prefix of `lp(x)`. Lengths of 4 GiB and more do not occur; they would saturate, not wrap.
pub(crate) fn lp_len(x: &[u8]) -> [u8; 4] {
    u32::try_from(x.len()).unwrap_or(u32::MAX).to_be_bytes()
}

/// What a file's keys depend on besides the KEK; all of it stands in the fixed header.
#[derive(Clone, Copy)]
pub(crate) struct KeyContext<'a> {
    pub(crate) suite: Suite,
    pub(crate) file_id: &'a [u8; 16],
    pub(crate) salt: &'a [u8; 32],
    pub(crate) model_binding: &'a Digest,
}

impl<'a> From<&'a FixedHeader> for KeyContext<'a> {
    fn from(h: &'a FixedHeader) -> Self {
        Self { suite: h.suite, file_id: &h.file_id, salt: &h.salt, model_binding: &h.model_binding }
    }
}

/// The pseudorandom key of one file, from which its other keys are expanded.
pub(crate) struct FileKeys {
    prk: hkdf::Prk,
    file_id: [u8; 16],
    suite: Suite,
}

impl FileKeys {
    pub(crate) fn derive(kek: &Kek, context: KeyContext<'_>) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, context.salt);
        let kek_prk = kek.expose(|kek| salt.extract(kek));
        let dek = expand(&kek_prk, &[b"adyton/v1/seal/dek", context.file_id, context.model_binding]);
        Self { prk: salt.extract(dek.as_slice()), file_id: *context.file_id, suite: context.suite }
    }

    pub(crate) fn commitment(&self) -> Digest {
        *expand(&self.prk, &[b"adyton/v1/seal/commit", &self.file_id])
    }

    fn mac_key(&self) -> hmac::Key {
        let key = expand(&self.prk, &[b"adyton/v1/seal/mac", &self.file_id]);
        hmac::Key::new(hmac::HMAC_SHA256, key.as_slice())
    }

    /// The header MAC over `authenticated`, all header bytes before the MAC itself.
    pub(crate) fn header_mac(&self, authenticated: &[u8]) -> Digest {
        let mut mac = [0; 32];
        mac.copy_from_slice(hmac::sign(&self.mac_key(), authenticated).as_ref());
        mac
    }

    /// Compares the header MAC in constant time.
    pub(crate) fn header_mac_matches(&self, authenticated: &[u8], mac: &Digest) -> bool {
        hmac::verify(&self.mac_key(), authenticated, mac).is_ok()
    }

    /// The AEAD key of `segment`.
    pub(crate) fn segment(&self, segment: u32) -> LessSafeKey {
        let key = expand(&self.prk, &[b"adyton/v1/seal/seg", &self.file_id, &segment.to_be_bytes()]);
        let algorithm = match self.suite {
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        LessSafeKey::new(UnboundKey::new(algorithm, key.as_slice()).expect("both ciphers take 32-byte keys"))
    }

    /// The AEAD keys of all segments of a file of `chunk_count` chunks, in order.
    pub(crate) fn segments(&self, chunk_count: u64) -> Vec<LessSafeKey> {
        let last = u32::try_from(chunk_count.saturating_sub(1) >> SEGMENT_LOG2).unwrap_or(u32::MAX);
        (0..=last).map(|segment| self.segment(segment)).collect()
    }
}

fn expand(prk: &hkdf::Prk, info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    prk.expand(info, hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(out.as_mut_slice()))
        .expect("HKDF-SHA256 gives 32 bytes, its own digest length");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inputs of protocol section 14.
    fn golden() -> (Kek, Digest) {
        (Kek::from_bytes(&mut [1; 32]), model_binding(b"owner", "model", 7))
    }

    fn hex32(s: &str) -> Vec<u8> {
        hex::decode(s).unwrap()
    }

    #[test]
    fn golden_model_binding() {
        let expected = hex32("4d214b48c64614bb8ad24225e2f99e32205eb1353bc04ade6d707ca6c230b24f");
        assert_eq!(model_binding(b"owner", "model", 7).to_vec(), expected);
        assert_ne!(model_binding(b"ownerm", "odel", 7).to_vec(), expected, "fields are delimited");
        assert_ne!(model_binding(b"owner", "model", 8).to_vec(), expected);
    }

    #[test]
    fn golden_keys() {
        let (kek, binding) = golden();
        let (salt, file_id) = ([2; 32], [3; 16]);
        let context =
            KeyContext { suite: Suite::Aes256Gcm, file_id: &file_id, salt: &salt, model_binding: &binding };
        let keys = FileKeys::derive(&kek, context);

        let kek_prk = kek.expose(|k| hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(k));
        let dek = expand(&kek_prk, &[b"adyton/v1/seal/dek", &file_id, &binding]);
        assert_eq!(dek.to_vec(), hex32("3ed64cda445787c39be8046e13a211affe719fac8596da13e9649d49c8972439"));
        assert_eq!(
            keys.commitment().to_vec(),
            hex32("b109e06d0bc99a0efd56a0385a6a601c55d50f12d064fadc1a7c73aa25dda6eb")
        );
        // ring hands out no key bytes, so compare what the golden keys do.
        let mac_key = hex32("30a2f7df6640e8083641172b4608654463e5a4e345ddd7a6eb867fa4645115f7");
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &mac_key), b"header");
        assert_eq!(keys.header_mac(b"header").as_slice(), mac.as_ref());
        let segment_0 = hex32("0d96803e17e9ebf81510bbf70451c6b2119b5c24ab30db8fc547fce5e8b50ad3");
        assert_eq!(
            *expand(&keys.prk, &[b"adyton/v1/seal/seg", &file_id, &0u32.to_be_bytes()]),
            segment_0.as_slice()
        );
    }

    #[test]
    fn segments_cover_the_last_chunk() {
        let (kek, binding) = golden();
        let context = KeyContext {
            suite: Suite::ChaCha20Poly1305,
            file_id: &[3; 16],
            salt: &[2; 32],
            model_binding: &binding,
        };
        let keys = FileKeys::derive(&kek, context);
        for (chunks, segments) in [(1, 1), (65536, 1), (65537, 2), (131_072, 2), (131_073, 3)] {
            assert_eq!(keys.segments(chunks).len(), segments, "{chunks} chunks");
        }
    }
}
