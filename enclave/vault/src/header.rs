//! Header of a sealed file, protocol section 9.
//!
//! ```text
//! off len field                          off len field
//! 0   8   magic "adyton\r\n"             72  32  model binding
//! 8   2   version = 1                    104 32  key commitment
//! 10  2   suite                          136 8   chunk_count
//! 12  1   chunk_log2 = 20                144 8   plaintext_len
//! 13  11  reserved = 0                   152 4   recipients_len, then recipient stanzas
//! 24  16  file_id                        ..  32  header MAC over everything before it
//! 40  32  salt                           ..      chunks
//! ```
//! Bytes 0..152 are the fixed header; the owner's manifest commits to their hash, so recipients can be added later
//! without a new manifest. Integers are big-endian. The line end in the magic reveals a transfer as text.
//!
//! A parsed [`Header`] is well formed and nothing more: every byte came from the host. [`crate::Opener::new`]
//! compares it with the owner's claims and authenticates it. Sizes are capped before memory is taken for them.

use crate::chunk::{CHUNK_LOG2, MAX_PLAINTEXT_LEN, SEALED_CHUNK_LEN, chunk_count};
use crate::keys::FileKeys;
use crate::merkle::{Digest, sha256};
use crate::recipients::{RecipientError, Stanza};
use crate::secret::Kek;
use crate::wrap::{PrivateKey, WrapError};
use std::io::{self, Read};

/// First bytes of every sealed file.
pub const MAGIC: [u8; 8] = *b"adyton\r\n";
/// The only version of the format.
pub const VERSION: u16 = 1;
/// Bytes of the fixed header.
pub const FIXED_LEN: usize = 152;
/// Largest recipients field: some fifty X-Wing stanzas, and small enough to read before anything is authentic.
pub const MAX_RECIPIENTS_LEN: usize = 64 * 1024;
const MAC_LEN: usize = 32;

/// Cipher of the chunks: `suite, 2 bytes at 10`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u16)]
#[non_exhaustive]
pub enum Suite {
    /// AES-256-GCM, the faster one on server CPUs.
    #[default]
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305, for machines without AES instructions.
    ChaCha20Poly1305 = 2,
}

/// Why bytes are not the header of a sealed file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The first eight bytes are something else.
    #[error("not a sealed model file (wrong magic): seal the model with `adyton model seal` first")]
    Magic,
    /// A version this code does not know.
    #[error(
        "sealed file has format version {0}, this program reads version {VERSION}: update it or seal again"
    )]
    Version(u16),
    /// A cipher suite this code does not know.
    #[error(
        "sealed file names unknown cipher suite {0}: known are 1 (AES-256-GCM) and 2 (ChaCha20-Poly1305)"
    )]
    Suite(u16),
    /// A chunk size other than 1 MiB.
    #[error("sealed file has chunk_log2 {0}, version {VERSION} has only {CHUNK_LOG2}")]
    ChunkLog2(u8),
    /// Reserved bytes are not zero.
    #[error("reserved bytes of the header are not zero: the file was made by a newer program, or changed")]
    Reserved,
    /// `chunk_count` is not what `plaintext_len` needs.
    #[error(
        "header is inconsistent: {plaintext_len} bytes of plaintext need {expected} chunks, it says {got}"
    )]
    ChunkCount {
        /// Field `plaintext_len`.
        plaintext_len: u64,
        /// Chunks that many bytes take.
        expected: u64,
        /// Field `chunk_count`.
        got: u64,
    },
    /// `plaintext_len` is beyond the format's limit.
    #[error("header claims {0} bytes of plaintext, the limit is {MAX_PLAINTEXT_LEN}")]
    PlaintextTooLong(u64),
    /// `recipients_len` is beyond the cap.
    #[error("header claims {0} bytes of recipients, the limit is {MAX_RECIPIENTS_LEN}")]
    RecipientsTooLong(u64),
    /// A recipient stanza is malformed.
    #[error("recipient stanzas of the header: {0}")]
    Recipients(#[from] RecipientError),
    /// The bytes end inside the header.
    #[error("sealed file ends inside its header: it was not transferred completely")]
    Truncated,
    /// Bytes follow where the header should have ended.
    #[error("{0} bytes follow the header")]
    Trailing(usize),
    /// The file could not be read.
    #[error("cannot read the sealed file: {0}")]
    Io(#[source] io::Error),
}

/// The fixed header: bytes 0..152 of a sealed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedHeader {
    /// Cipher of the chunks.
    pub suite: Suite,
    /// `file_id, 16 bytes at 24`: random, also the opaque name under which the host knows the file.
    pub file_id: [u8; 16],
    /// `salt, 32 bytes at 40`: random.
    pub salt: [u8; 32],
    /// `model binding, 32 bytes at 72`: see [`crate::model_binding`].
    pub model_binding: Digest,
    /// `key commitment, 32 bytes at 104`.
    pub key_commitment: Digest,
    /// `plaintext_len, 8 bytes at 144`; `chunk_count, 8 bytes at 136`, follows from it.
    pub plaintext_len: u64,
}

impl FixedHeader {
    /// The bytes, as they stand in a file.
    #[must_use]
    pub fn encode(&self) -> [u8; FIXED_LEN] {
        let mut bytes = [0; FIXED_LEN];
        let fields: [&[u8]; 11] = [
            &MAGIC,
            &VERSION.to_be_bytes(),
            &(self.suite as u16).to_be_bytes(),
            &[CHUNK_LOG2],
            &[0; 11],
            &self.file_id,
            &self.salt,
            &self.model_binding,
            &self.key_commitment,
            &chunk_count(self.plaintext_len).to_be_bytes(),
            &self.plaintext_len.to_be_bytes(),
        ];
        bytes.iter_mut().zip(fields.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// Reads the fields and refuses whatever version 1 does not have.
    ///
    /// # Errors
    /// The variants of [`HeaderError`] that name a field.
    pub fn decode(bytes: &[u8; FIXED_LEN]) -> Result<Self, HeaderError> {
        let mut fields = bytes.as_slice();
        if take::<8>(&mut fields)? != MAGIC {
            return Err(HeaderError::Magic);
        }
        let version = u16::from_be_bytes(take(&mut fields)?);
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let suite = match u16::from_be_bytes(take(&mut fields)?) {
            1 => Suite::Aes256Gcm,
            2 => Suite::ChaCha20Poly1305,
            unknown => return Err(HeaderError::Suite(unknown)),
        };
        let [chunk_log2] = take(&mut fields)?;
        if chunk_log2 != CHUNK_LOG2 {
            return Err(HeaderError::ChunkLog2(chunk_log2));
        }
        if take::<11>(&mut fields)? != [0; 11] {
            return Err(HeaderError::Reserved);
        }
        let (file_id, salt) = (take(&mut fields)?, take(&mut fields)?);
        let (model_binding, key_commitment) = (take(&mut fields)?, take(&mut fields)?);
        let got = u64::from_be_bytes(take(&mut fields)?);
        let plaintext_len = u64::from_be_bytes(take(&mut fields)?);
        if plaintext_len > MAX_PLAINTEXT_LEN {
            return Err(HeaderError::PlaintextTooLong(plaintext_len));
        }
        let expected = chunk_count(plaintext_len);
        if got != expected {
            return Err(HeaderError::ChunkCount { plaintext_len, expected, got });
        }
        Ok(Self { suite, file_id, salt, model_binding, key_commitment, plaintext_len })
    }

    /// `H(fixed header)`, as the owner's manifest has it.
    #[must_use]
    pub fn hash(&self) -> Digest {
        sha256(&[&self.encode()])
    }
}

/// A well-formed header. Its contents are the host's word until [`crate::Opener::new`] has accepted them.
#[derive(Debug, Clone)]
pub struct Header {
    fixed: FixedHeader,
    recipients: Vec<Stanza>,
    /// All bytes as received, the MAC last: what is authenticated is never a re-encoding.
    bytes: Vec<u8>,
}

impl Header {
    /// Reads a header and leaves `reader` at the first chunk.
    ///
    /// # Errors
    /// [`HeaderError`]; at most 64 KiB and 188 bytes are read or allocated in any case.
    pub fn read(reader: &mut (impl Read + ?Sized)) -> Result<Self, HeaderError> {
        let mut bytes = vec![0; FIXED_LEN + 4];
        read_exact(reader, &mut bytes)?;
        let mut fields = bytes.as_slice();
        let fixed = FixedHeader::decode(&take(&mut fields)?)?;
        let len = u32::from_be_bytes(take(&mut fields)?);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > MAX_RECIPIENTS_LEN {
            return Err(HeaderError::RecipientsTooLong(len as u64));
        }
        let mut rest = vec![0; len + MAC_LEN];
        read_exact(reader, &mut rest)?;
        let recipients = Stanza::decode_all(rest.get(..len).unwrap_or_default())?;
        bytes.append(&mut rest);
        Ok(Self { fixed, recipients, bytes })
    }

    /// Parses a header that is all of `bytes`.
    ///
    /// # Errors
    /// As [`Header::read`], and [`HeaderError::Trailing`].
    pub fn parse(mut bytes: &[u8]) -> Result<Self, HeaderError> {
        let header = Self::read(&mut bytes)?;
        if bytes.is_empty() { Ok(header) } else { Err(HeaderError::Trailing(bytes.len())) }
    }

    /// Puts a header together and authenticates it. `recipients` encode to at most [`MAX_RECIPIENTS_LEN`].
    ///
    /// # Errors
    /// [`HeaderError::RecipientsTooLong`].
    pub(crate) fn build(
        fixed: FixedHeader,
        recipients: Vec<Stanza>,
        keys: &FileKeys,
    ) -> Result<Self, HeaderError> {
        let stanzas: Vec<u8> = recipients.iter().flat_map(Stanza::encode).collect();
        if stanzas.len() > MAX_RECIPIENTS_LEN {
            return Err(HeaderError::RecipientsTooLong(stanzas.len() as u64));
        }
        let mut bytes = fixed.encode().to_vec();
        bytes.extend_from_slice(&crate::keys::lp_len(&stanzas));
        bytes.extend_from_slice(&stanzas);
        bytes.extend_from_slice(&keys.header_mac(&bytes));
        Ok(Self { fixed, recipients, bytes })
    }

    /// The fields of the fixed header.
    #[must_use]
    pub fn fixed(&self) -> &FixedHeader {
        &self.fixed
    }

    /// Those who can unwrap the KEK with a private key of theirs; empty when a broker holds it.
    #[must_use]
    pub fn recipients(&self) -> &[Stanza] {
        &self.recipients
    }

    /// Unwraps the KEK with a recipient's private key. [`crate::Opener::new`] finds out whether it is the right one.
    ///
    /// # Errors
    /// [`WrapError::NotARecipient`], [`WrapError::NotOpened`].
    pub fn unwrap_kek(&self, key: &PrivateKey) -> Result<Kek, WrapError> {
        let id = sha256(&[&key.public_key()]);
        let stanza = self.recipients.iter().find(|s| *s.key_id() == id && s.kem() == key.kem());
        stanza.ok_or(WrapError::NotARecipient)?.open(key, &self.fixed.hash())
    }

    /// All bytes of the header, as they stand before the first chunk.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Size of the whole sealed file in bytes.
    #[must_use]
    pub fn sealed_len(&self) -> u64 {
        // At most 2^24 chunks of about 2^20 bytes, and a header of about 2^16: far from overflow.
        self.bytes.len() as u64 + chunk_count(self.fixed.plaintext_len) * SEALED_CHUNK_LEN as u64
    }

    /// Compares the MAC with what `keys` make of the bytes before it, in constant time.
    pub(crate) fn is_authentic(&self, keys: &FileKeys) -> bool {
        self.bytes
            .split_last_chunk::<MAC_LEN>()
            .is_some_and(|(authenticated, mac)| keys.header_mac_matches(authenticated, mac))
    }
}

/// Takes the next `N` bytes off `fields`.
fn take<const N: usize>(fields: &mut &[u8]) -> Result<[u8; N], HeaderError> {
    let (field, rest) = fields.split_first_chunk::<N>().ok_or(HeaderError::Truncated)?;
    *fields = rest;
    Ok(*field)
}

fn read_exact(reader: &mut (impl Read + ?Sized), bytes: &mut [u8]) -> Result<(), HeaderError> {
    reader.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => HeaderError::Truncated,
        _ => HeaderError::Io(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyContext;
    use proptest::prelude::*;

    fn fixed() -> FixedHeader {
        FixedHeader {
            suite: Suite::Aes256Gcm,
            file_id: [3; 16],
            salt: [2; 32],
            model_binding: crate::model_binding(b"owner", "model", 7),
            key_commitment: [4; 32],
            plaintext_len: 3_000_000,
        }
    }

    fn header(recipients: Vec<Stanza>) -> Header {
        let keys = FileKeys::derive(&Kek::from_bytes(&mut [1; 32]), KeyContext::from(&fixed()));
        Header::build(fixed(), recipients, &keys).unwrap()
    }

    /// Parses a header with `bytes` written at `at`.
    fn patched(at: usize, bytes: &[u8]) -> Result<Header, HeaderError> {
        let mut whole = header(vec![]).as_bytes().to_vec();
        whole[at..at + bytes.len()].copy_from_slice(bytes);
        Header::parse(&whole)
    }

    #[test]
    fn fields_stand_where_the_specification_says() {
        let header = header(vec![]);
        let bytes = header.as_bytes();
        assert_eq!(bytes.len(), 152 + 4 + 32);
        assert_eq!(&bytes[..8], b"adyton\r\n");
        assert_eq!(&bytes[8..13], &[0, 1, 0, 1, 20]);
        assert_eq!(&bytes[13..24], &[0; 11]);
        assert_eq!((&bytes[24..40], &bytes[40..72]), (&[3; 16][..], &[2; 32][..]));
        assert_eq!(&bytes[72..104], &fixed().model_binding);
        assert_eq!(&bytes[104..136], &[4; 32]);
        assert_eq!(&bytes[136..144], &3u64.to_be_bytes());
        assert_eq!(&bytes[144..152], &3_000_000u64.to_be_bytes());
        assert_eq!(&bytes[152..156], &[0; 4]);
        assert_eq!(header.sealed_len(), 188 + 3 * (1024 * 1024 + 16));
    }

    #[test]
    fn each_malformed_field_has_its_own_error() {
        assert!(matches!(patched(0, b"GGUF"), Err(HeaderError::Magic)));
        assert!(matches!(patched(6, b"\n\n"), Err(HeaderError::Magic)));
        assert!(matches!(patched(8, &[0, 2]), Err(HeaderError::Version(2))));
        assert!(matches!(patched(10, &[0, 0]), Err(HeaderError::Suite(0))));
        assert!(matches!(patched(10, &[0, 3]), Err(HeaderError::Suite(3))));
        assert!(matches!(patched(12, &[16]), Err(HeaderError::ChunkLog2(16))));
        for at in 13..24 {
            assert!(matches!(patched(at, &[1]), Err(HeaderError::Reserved)), "reserved byte {at}");
        }
        assert!(matches!(
            patched(136, &4u64.to_be_bytes()),
            Err(HeaderError::ChunkCount { expected: 3, got: 4, .. })
        ));
        assert!(matches!(patched(144, &9_000_000u64.to_be_bytes()), Err(HeaderError::ChunkCount { .. })));
        assert!(matches!(patched(144, &u64::MAX.to_be_bytes()), Err(HeaderError::PlaintextTooLong(_))));
        assert!(matches!(patched(152, &u32::MAX.to_be_bytes()), Err(HeaderError::RecipientsTooLong(_))));
        assert!(matches!(patched(152, &1u32.to_be_bytes()), Err(HeaderError::Truncated)));
    }

    #[test]
    fn empty_plaintext_has_one_chunk() {
        let empty = FixedHeader { plaintext_len: 0, ..fixed() };
        assert_eq!(empty.encode()[143], 1);
        assert_eq!(FixedHeader::decode(&empty.encode()).unwrap(), empty);
    }

    #[test]
    fn every_truncation_and_extension_is_refused() {
        let bytes = header(vec![]).as_bytes().to_vec();
        for len in 0..bytes.len() {
            assert!(matches!(Header::parse(&bytes[..len]), Err(HeaderError::Truncated)), "{len} bytes");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(matches!(Header::parse(&longer), Err(HeaderError::Trailing(1))));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_parses_encodes_to_the_same(
            mut bytes in prop::collection::vec(any::<u8>(), 0..400), good_start in any::<bool>()
        ) {
            if good_start {
                let good = header(vec![]);
                let n = good.as_bytes().len().min(bytes.len()).min(156);
                bytes[..n].copy_from_slice(&good.as_bytes()[..n]);
            }
            if let Ok(header) = Header::parse(&bytes) {
                prop_assert_eq!(header.as_bytes(), bytes.as_slice());
                prop_assert_eq!(&header.fixed().encode()[..], &bytes[..FIXED_LEN]);
            }
        }
    }
}
