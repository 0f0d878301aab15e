//! One chunk of a sealed file: how it is cut, encrypted and authenticated.
//!
//! Chunk `i` of a file is encrypted with
//! - the key of segment `i >> 16`, expanded from the file's own key (see `keys.rs`),
//! - nonce `u32(0) || u64(i)`, never used twice because every file has its own keys,
//! - AAD `lp("adyton/v1/seal/chunk") || file_id || u64(i) || u8(i == last) || u32(len)`.
//!
//! The AAD stops reordering and splicing (index, file id), truncation and extension (last), and a change of where
//! the plaintext ends (len).
//!
//! Padding: the ciphertext of every chunk is exactly [`CHUNK_LEN`] bytes, the last one filled up with zeros before
//! encryption, so that the size of a sealed file is a whole number of chunks. The exact length is not hidden from a
//! host that reads headers: `plaintext_len` stands there in clear. `len` in the AAD and the Merkle leaf are
//! those of the unpadded plaintext. Padding other than zeros is refused: one plaintext has one sealed form.
//! An empty file has one chunk, all padding, so that every file has a last chunk.

use crate::keys::{FileKeys, SEGMENT_LOG2};
use crate::merkle::{Digest, leaf};
use ring::aead::{Aad, LessSafeKey, Nonce, Tag};

/// Binary logarithm of the chunk size; version 1 of the format has only this one.
pub const CHUNK_LOG2: u8 = 20;
/// Plaintext and ciphertext bytes of a chunk.
pub const CHUNK_LEN: usize = 1 << CHUNK_LOG2;
/// Bytes of the authentication tag that follows the ciphertext of a chunk.
pub const TAG_LEN: usize = 16;
/// Bytes of a chunk as stored.
pub const SEALED_CHUNK_LEN: usize = CHUNK_LEN + TAG_LEN;
/// Largest plaintext of a file, 16 TiB: beyond any machine's memory, and keeps every size sum far from overflow.
pub const MAX_PLAINTEXT_LEN: u64 = 1 << 44;

const AAD_LABEL: &[u8] = b"adyton/v1/seal/chunk";
/// lp(label) 24, file id 16, index 8, last 1, length 4.
const AAD_LEN: usize = 4 + AAD_LABEL.len() + 16 + 8 + 1 + 4;

/// A tag did not match, or padding was not zero. Says nothing more, on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

/// Number of chunks of a plaintext of `plaintext_len` bytes; at least one.
#[must_use]
pub fn chunk_count(plaintext_len: u64) -> u64 {
    plaintext_len.div_ceil(CHUNK_LEN as u64).max(1)
}

/// Encrypts and decrypts the chunks of one file, from any number of threads.
pub(crate) struct ChunkCipher {
    segments: Vec<LessSafeKey>,
    file_id: [u8; 16],
    plaintext_len: u64,
    chunk_count: u64,
}

impl ChunkCipher {
    /// `plaintext_len` is at most [`MAX_PLAINTEXT_LEN`].
    pub(crate) fn new(keys: &FileKeys, file_id: [u8; 16], plaintext_len: u64) -> Self {
        let chunk_count = chunk_count(plaintext_len);
        Self { segments: keys.segments(chunk_count), file_id, plaintext_len, chunk_count }
    }

    pub(crate) fn chunk_count(&self) -> u64 {
        self.chunk_count
    }

    /// Unpadded length of chunk `index`.
    pub(crate) fn plaintext_len_of(&self, index: u64) -> usize {
        let left = self.plaintext_len.saturating_sub(index.saturating_mul(CHUNK_LEN as u64));
        usize::try_from(left).map_or(CHUNK_LEN, |left| left.min(CHUNK_LEN))
    }

    fn key(&self, index: u64) -> Option<&LessSafeKey> {
        self.segments.get(usize::try_from(index >> SEGMENT_LOG2).ok()?)
    }

    fn aad(&self, index: u64) -> Aad<[u8; AAD_LEN]> {
        let last = index.saturating_add(1) == self.chunk_count;
        let len = u32::try_from(self.plaintext_len_of(index)).unwrap_or(u32::MAX);
        let mut aad = [0; AAD_LEN];
        let fields: [&[u8]; 6] = [
            &crate::keys::lp_len(AAD_LABEL),
            AAD_LABEL,
            &self.file_id,
            &index.to_be_bytes(),
            &[u8::from(last)],
            &len.to_be_bytes(),
        ];
        aad.iter_mut().zip(fields.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        Aad::from(aad)
    }

    /// Encrypts `chunk` in place and returns its leaf and tag. The caller has zeroed the padding.
    ///
    /// `chunk` is [`CHUNK_LEN`] bytes of plaintext, `index` below the chunk count.
    pub(crate) fn seal(&self, index: u64, chunk: &mut [u8]) -> Result<(Digest, [u8; TAG_LEN]), NotAuthentic> {
        let plaintext = chunk.get(..self.plaintext_len_of(index)).ok_or(NotAuthentic)?;
        let leaf = leaf(index, plaintext);
        let key = self.key(index).ok_or(NotAuthentic)?;
        let tag =
            key.seal_in_place_separate_tag(nonce(index), self.aad(index), chunk).map_err(|_| NotAuthentic)?;
        let mut bytes = [0; TAG_LEN];
        bytes.copy_from_slice(tag.as_ref());
        Ok((leaf, bytes))
    }

    /// Decrypts `chunk` in place, if its tag matches, and returns its leaf.
    ///
    /// `chunk` is the [`CHUNK_LEN`] bytes of ciphertext; on failure it holds nothing meaningful.
    pub(crate) fn open(
        &self,
        index: u64,
        chunk: &mut [u8],
        tag: [u8; TAG_LEN],
    ) -> Result<Digest, NotAuthentic> {
        if chunk.len() != CHUNK_LEN {
            return Err(NotAuthentic);
        }
        let key = self.key(index).ok_or(NotAuthentic)?;
        key.open_in_place_separate_tag(nonce(index), self.aad(index), Tag::from(tag), chunk, 0..)
            .map_err(|_| NotAuthentic)?;
        let (plaintext, padding) = chunk.split_at(self.plaintext_len_of(index));
        if padding.iter().any(|&byte| byte != 0) {
            return Err(NotAuthentic);
        }
        Ok(leaf(index, plaintext))
    }
}

/// `u32(0) || u64(index)`.
fn nonce(index: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&index.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Suite;
    use crate::keys::KeyContext;
    use crate::secret::Kek;

    fn cipher(plaintext_len: u64) -> ChunkCipher {
        let context = KeyContext {
            suite: Suite::Aes256Gcm,
            file_id: &[3; 16],
            salt: &[2; 32],
            model_binding: &crate::keys::model_binding(b"owner", "model", 7),
        };
        let keys = FileKeys::derive(&Kek::from_bytes(&mut [1; 32]), context);
        ChunkCipher::new(&keys, [3; 16], plaintext_len)
    }

    #[test]
    fn counts_and_lengths() {
        let mib = CHUNK_LEN as u64;
        for (len, count, last) in
            [(0, 1, 0), (1, 1, 1), (mib - 1, 1, CHUNK_LEN - 1), (mib, 1, CHUNK_LEN), (mib + 1, 2, 1)]
        {
            let cipher = cipher(len);
            assert_eq!(cipher.chunk_count(), count, "{len}");
            assert_eq!(cipher.plaintext_len_of(count - 1), last, "{len}");
        }
    }

    #[test]
    fn aad_is_what_the_specification_says() {
        let mut expected = hex::decode("00000014").unwrap();
        expected.extend_from_slice(b"adyton/v1/seal/chunk");
        expected.extend_from_slice(&[3; 16]);
        expected.extend_from_slice(&hex::decode("00000000000000010100000005").unwrap());
        assert_eq!(cipher(CHUNK_LEN as u64 + 5).aad(1).as_ref(), expected);
    }

    #[test]
    fn chunk_opens_only_at_its_own_place() {
        let cipher = cipher(3 * CHUNK_LEN as u64);
        let mut chunk = vec![0x5a; CHUNK_LEN];
        let (leaf, tag) = cipher.seal(1, &mut chunk).unwrap();
        let sealed = chunk.clone();
        assert_eq!(cipher.open(1, &mut chunk, tag), Ok(leaf));
        assert!(chunk.iter().all(|&b| b == 0x5a));
        for index in [0, 2, 3, u64::MAX] {
            assert_eq!(cipher.open(index, &mut sealed.clone(), tag), Err(NotAuthentic), "index {index}");
        }
        assert_eq!(cipher.open(1, &mut sealed[1..].to_vec(), tag), Err(NotAuthentic));
    }

    #[test]
    fn padding_that_is_not_zero_is_refused() {
        let cipher = cipher(10);
        let mut chunk = vec![0; CHUNK_LEN];
        chunk[10] = 1;
        let (_, tag) = cipher.seal(0, &mut chunk).unwrap();
        assert_eq!(cipher.open(0, &mut chunk, tag), Err(NotAuthentic));
    }
}
