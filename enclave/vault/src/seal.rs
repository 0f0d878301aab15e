//! Sealing a model file: one pass, in parallel, written in order.
//!
//! Each worker takes the next chunk of plaintext, hashes it into its Merkle leaf, encrypts it in place, waits until
//! the chunks before it are written, and writes it. So reading, encrypting and writing overlap, memory is one chunk
//! for each worker however large the model, and the output can be a pipe.
//!
//! File id and salt are drawn anew for every sealing, so that no key and nonce are ever used twice. Trusted: all of it;
//! this runs on the owner's side. The KEK is only read.
//!
//! What goes into the owner's manifest is returned as [`SealedFile`].

use crate::chunk::{CHUNK_LEN, ChunkCipher, MAX_PLAINTEXT_LEN, TAG_LEN};
use crate::header::{FixedHeader, Header, HeaderError, Suite};
use crate::keys::{FileKeys, KeyContext, model_binding};
use crate::merkle::{Digest, Tree};
use crate::recipients::{RecipientKey, Stanza};
use crate::secret::{Kek, SecretError, constant_time_eq, fill_random};
use crate::workers::{lock, worker_count};
use crate::wrap::WrapError;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use zeroize::Zeroizing;

/// What a file is sealed under.
#[derive(Clone, Copy)]
pub struct SealParams<'a> {
    /// The model's key-encryption key.
    pub kek: &'a Kek,
    /// The owner's id, as in the manifest.
    pub owner_id: &'a [u8],
    /// The model's name, as in the manifest.
    pub model_name: &'a str,
    /// The manifest's counter: the version of the model.
    pub counter: u64,
    /// Cipher of the chunks.
    pub suite: Suite,
    /// Who can unwrap the KEK from the file itself; empty if a broker holds it.
    pub recipients: &'a [RecipientKey],
    /// Encrypting threads, one for each CPU if absent.
    pub threads: Option<NonZeroUsize>,
}

/// What the owner's manifest says about a sealed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedFile {
    /// Opaque id, under which the host knows the file.
    pub file_id: [u8; 16],
    /// Merkle root over the plaintext.
    pub plaintext_root: Digest,
    /// SHA-256 of the fixed header.
    pub fixed_header_hash: Digest,
    /// Bytes of plaintext.
    pub plaintext_len: u64,
    /// Bytes of the sealed file, padded to whole chunks.
    pub sealed_len: u64,
}

/// Why a file was not sealed. Nothing was left under the output's name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The plaintext is beyond the format's limit.
    #[error(
        "the model has {0} bytes, a sealed file holds at most {MAX_PLAINTEXT_LEN}: split it into several files"
    )]
    TooLong(u64),
    /// The plaintext is shorter or longer than was said.
    #[error(
        "the model file changed while it was read (expected {expected_bytes} bytes): seal it again when it is complete"
    )]
    LengthChanged {
        /// Length announced.
        expected_bytes: u64,
    },
    /// The plaintext could not be read.
    #[error("cannot read the model: {0}")]
    Read(#[source] io::Error),
    /// The place for the sealed file is full.
    #[error(
        "no space for the sealed file, {sealed_len} bytes in all: free space, or choose an output on another disk ({source})"
    )]
    NoSpace {
        /// Size the sealed file would have.
        sealed_len: u64,
        /// The system's answer: disk full, quota, or file size limit.
        #[source]
        source: io::Error,
    },
    /// The sealed file could not be written.
    #[error("cannot write the sealed file: {0}")]
    Write(#[source] io::Error),
    /// A recipient's key is no key.
    #[error("recipient {index}: {source}")]
    Recipient {
        /// Position in [`SealParams::recipients`].
        index: usize,
        /// What is wrong with it.
        #[source]
        source: WrapError,
    },
    /// Too many recipients for one header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// No randomness.
    #[error(transparent)]
    NoEntropy(#[from] SecretError),
    /// The cipher refused a chunk.
    #[error("internal error: chunk {0} could not be encrypted; please report it")]
    Chunk(u64),
    /// A worker panicked. Nobody sees this: the panic goes on in the caller.
    #[error("internal error: a sealing thread panicked; please report it")]
    Panicked,
    /// The KEK is not this file's.
    #[error("the key is not the key of this sealed file, or its header was changed")]
    WrongKek,
}

/// Seals the `plaintext_len` bytes that `reader` gives, which must be all it gives, into `writer`.
///
/// `progress` is called with the bytes of plaintext sealed so far.
///
/// # Errors
/// [`SealError`]; `writer` then holds a part that opens nowhere.
pub fn seal_stream(
    reader: &mut (dyn Read + Send),
    plaintext_len: u64,
    writer: &mut (dyn Write + Send),
    params: &SealParams<'_>,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<SealedFile, SealError> {
    let (mut file_id, mut salt) = ([0; 16], [0; 32]);
    fill_random(&mut file_id)?;
    fill_random(&mut salt)?;
    let sealing = Sealing::prepare(plaintext_len, params, file_id, salt)?;
    sealing.run(reader, writer, params.threads, progress)
}

/// Makes the header of a sealed file anew for other `recipients`; the chunks after it and the manifest stay as they are.
///
/// # Errors
/// [`SealError::WrongKek`] if `header` is not authentic under `kek`; [`SealError::Recipient`]; [`SealError::Header`] if
/// they are too many.
pub fn readdress(header: &Header, kek: &Kek, recipients: &[RecipientKey]) -> Result<Header, SealError> {
    let fixed = header.fixed();
    let keys = FileKeys::derive(kek, KeyContext::from(fixed));
    if !constant_time_eq(&keys.commitment(), &fixed.key_commitment) || !header.is_authentic(&keys) {
        return Err(SealError::WrongKek);
    }
    Ok(Header::build(fixed.clone(), stanzas(fixed, kek, recipients)?, &keys)?)
}

fn stanzas(fixed: &FixedHeader, kek: &Kek, recipients: &[RecipientKey]) -> Result<Vec<Stanza>, SealError> {
    let hash = fixed.hash();
    let seal = |(index, recipient)| {
        Stanza::seal(recipient, &hash, kek).map_err(|source| SealError::Recipient { index, source })
    };
    recipients.iter().enumerate().map(seal).collect()
}

/// Everything about a file that is settled before its first chunk.
pub(crate) struct Sealing {
    header: Header,
    cipher: ChunkCipher,
}

impl Sealing {
    pub(crate) fn prepare(
        plaintext_len: u64,
        params: &SealParams<'_>,
        file_id: [u8; 16],
        salt: [u8; 32],
    ) -> Result<Self, SealError> {
        if plaintext_len > MAX_PLAINTEXT_LEN {
            return Err(SealError::TooLong(plaintext_len));
        }
        let mut fixed = FixedHeader {
            suite: params.suite,
            file_id,
            salt,
            model_binding: model_binding(params.owner_id, params.model_name, params.counter),
            key_commitment: [0; 32],
            plaintext_len,
        };
        let keys = FileKeys::derive(params.kek, KeyContext::from(&fixed));
        fixed.key_commitment = keys.commitment();
        let stanzas = stanzas(&fixed, params.kek, params.recipients)?;
        let cipher = ChunkCipher::new(&keys, file_id, plaintext_len);
        Ok(Self { header: Header::build(fixed, stanzas, &keys)?, cipher })
    }

    pub(crate) fn run(
        &self,
        reader: &mut (dyn Read + Send),
        writer: &mut (dyn Write + Send),
        threads: Option<NonZeroUsize>,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<SealedFile, SealError> {
        let sealed_len = self.header.sealed_len();
        writer.write_all(self.header.as_bytes()).map_err(|error| write_error(error, sealed_len))?;
        let pipeline = Pipeline {
            sealing: self,
            input: Mutex::new(Input { reader, next: 0 }),
            output: Mutex::new(Output { writer, next: 0, tree: Tree::default(), progress, failed: None }),
            turn: Condvar::new(),
        };
        thread::scope(|scope| {
            for _ in 1..worker_count(threads, self.cipher.chunk_count()) {
                scope.spawn(|| pipeline.seal_some());
            }
            pipeline.seal_some();
        });
        let output = pipeline.output.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = output.failed {
            return Err(error);
        }
        output.writer.flush().map_err(|error| write_error(error, sealed_len))?;
        let fixed = self.header.fixed();
        Ok(SealedFile {
            file_id: fixed.file_id,
            plaintext_root: output.tree.root(),
            fixed_header_hash: fixed.hash(),
            plaintext_len: fixed.plaintext_len,
            sealed_len,
        })
    }
}

struct Input<'a> {
    reader: &'a mut (dyn Read + Send),
    next: u64,
}

struct Output<'a> {
    writer: &'a mut (dyn Write + Send),
    /// Chunk that is to be written next.
    next: u64,
    tree: Tree,
    progress: &'a mut (dyn FnMut(u64) + Send),
    failed: Option<SealError>,
}

/// What the workers share: a place to read, a place to write, and whose turn it is to write.
struct Pipeline<'a> {
    sealing: &'a Sealing,
    input: Mutex<Input<'a>>,
    output: Mutex<Output<'a>>,
    turn: Condvar,
}

impl Pipeline<'_> {
    /// One worker: seals the next chunk, again and again, until there is none or somebody failed.
    fn seal_some(&self) {
        let _release = ReleaseOnPanic(self);
        // Holds plaintext between reading and encrypting.
        let mut buffer = Zeroizing::new(vec![0; CHUNK_LEN + TAG_LEN]);
        loop {
            match self.seal_next(&mut buffer) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return self.fail(error),
            }
        }
    }

    /// Keeps the first failure and sends everybody home.
    fn fail(&self, error: SealError) {
        lock(&self.output).failed.get_or_insert(error);
        self.turn.notify_all();
    }

    /// Seals the next chunk by way of `buffer`; false if there is nothing left to do.
    fn seal_next(&self, buffer: &mut [u8]) -> Result<bool, SealError> {
        let (chunk, tag_place) = buffer.split_at_mut(CHUNK_LEN);
        let Some(index) = self.read_next(chunk)? else { return Ok(false) };
        let (leaf, tag) = self.sealing.cipher.seal(index, chunk).map_err(|_| SealError::Chunk(index))?;
        tag_place.copy_from_slice(&tag);

        let mut output = lock(&self.output);
        while output.next != index && output.failed.is_none() {
            output = self.turn.wait(output).unwrap_or_else(PoisonError::into_inner);
        }
        if output.failed.is_some() {
            return Ok(false);
        }
        let sealed_len = self.sealing.header.sealed_len();
        output.writer.write_all(buffer).map_err(|error| write_error(error, sealed_len))?;
        output.tree.push(leaf);
        output.next = index.saturating_add(1);
        let plaintext_len = self.sealing.header.fixed().plaintext_len;
        let sealed = output.next.saturating_mul(CHUNK_LEN as u64).min(plaintext_len);
        (output.progress)(sealed);
        self.turn.notify_all();
        Ok(true)
    }

    /// Reads the next chunk and zeroes its padding. Its index, or nothing after the last one.
    fn read_next(&self, chunk: &mut [u8]) -> Result<Option<u64>, SealError> {
        let expected_bytes = self.sealing.header.fixed().plaintext_len;
        let read_error = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => SealError::LengthChanged { expected_bytes },
            _ => SealError::Read(error),
        };
        let mut input = lock(&self.input);
        let index = input.next;
        if index >= self.sealing.cipher.chunk_count() {
            return Ok(None);
        }
        input.next = index.saturating_add(1);
        let (plaintext, padding) = chunk.split_at_mut(self.sealing.cipher.plaintext_len_of(index));
        input.reader.read_exact(plaintext).map_err(read_error)?;
        padding.fill(0);
        if input.next == self.sealing.cipher.chunk_count() {
            // The length is in the header already, so a file that has grown cannot be sealed whole.
            match input.reader.read_exact(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Ok(()) => return Err(SealError::LengthChanged { expected_bytes }),
                Err(error) => return Err(SealError::Read(error)),
            }
        }
        Ok(Some(index))
    }
}

/// Lets the other workers go when one panics (in a caller's reader, say): its turn to write would never come.
struct ReleaseOnPanic<'p, 'io>(&'p Pipeline<'io>);

impl Drop for ReleaseOnPanic<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(SealError::Panicked);
        }
    }
}

pub(crate) fn write_error(error: io::Error, sealed_len: u64) -> SealError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            SealError::NoSpace { sealed_len, source: error }
        }
        _ => SealError::Write(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::sha256;

    /// Lengths, suites, then the SHA-256 of the sealed file, its plaintext root and the hash of its fixed header, for
    /// the inputs of protocol section 14. Computed by a separate implementation in another language.
    const VECTORS: [(usize, Suite, &str, &str, &str); 6] = [
        (
            0,
            Suite::Aes256Gcm,
            "8ee19da331980171624dc6d1fc14d9ae552360be256a418afeaf5abfbf17c04b",
            "c1e6a680304d4ceb64557ad16312dd5fea0c7edd52aff30ee4cc7eb3a7e1f48e",
            "b47e50b240d7b97c17420e87446d2533e8a5b50fcd97c7f9b4aab7814288374c",
        ),
        (
            0,
            Suite::ChaCha20Poly1305,
            "15be2418556fd313e052e2f1ce1e15e4f81cb0f669db62f2c90e56988b5cfe0b",
            "c1e6a680304d4ceb64557ad16312dd5fea0c7edd52aff30ee4cc7eb3a7e1f48e",
            "f3ff7f932babebdf6bc14dfee70661b757ad58ba22376b384543b1777d60974c",
        ),
        (
            3,
            Suite::Aes256Gcm,
            "451c2750e47ac9bdf5fc90ddc1d206a98279852cc0d6bc7edda748e0ea6f1138",
            "da1d31b4115b2ff68c477273793f119ce1bfea878964de971a069b54b32eca33",
            "c8d56da23bc4a25f7d523baebf28164f5e8fb32b8a13973296b48be6d44edc10",
        ),
        (
            3,
            Suite::ChaCha20Poly1305,
            "97183e6ba2496cf64dad9115a25b71912a62ad24e0cd17484ab7f09480cb5443",
            "da1d31b4115b2ff68c477273793f119ce1bfea878964de971a069b54b32eca33",
            "cad791a89f7acf021d81250170f6012e28d4b3ee450ee39ed52fdc7f00df45fb",
        ),
        (
            3_158_073,
            Suite::Aes256Gcm,
            "d2e4042f39310a821d9a11c220ec6bced872669d997a9f8c6b53554f6cfb1a43",
            "63007b09b1712d15d2a8147723f88b00b3f248ccbeb1f9650ff24acaef5b0c3d",
            "fd81cec6f932663752856da7fe335e176447992972569e9701c612345324d9ea",
        ),
        (
            3_158_073,
            Suite::ChaCha20Poly1305,
            "d2a36e6f3c60b09c9fe90cfb0273e16a39cbc5f16ab6c74087577a571c937ebc",
            "63007b09b1712d15d2a8147723f88b00b3f248ccbeb1f9650ff24acaef5b0c3d",
            "fb87e78870d26aa23706668a31553c33ed2c3ed048cff8a6498aabe3d09ea2c3",
        ),
    ];

    #[test]
    fn sealed_bytes_are_those_of_the_vectors() {
        for (len, suite, sealed, root, fixed) in VECTORS {
            let plain: Vec<u8> =
                (0..len).map(|i| u8::try_from((i * 7 + (i >> 8) * 13) & 255).unwrap()).collect();
            let kek = Kek::from_bytes(&mut [1; 32]);
            let params = SealParams {
                kek: &kek,
                owner_id: b"owner",
                model_name: "model",
                counter: 7,
                suite,
                recipients: &[],
                threads: None,
            };
            let mut out = Vec::new();
            let file = Sealing::prepare(len as u64, &params, [3; 16], [2; 32])
                .unwrap()
                .run(&mut plain.as_slice(), &mut out, None, &mut |_| {})
                .unwrap();
            assert_eq!(hex::encode(sha256(&[&out])), sealed, "{len} bytes, {suite:?}");
            assert_eq!(hex::encode(file.plaintext_root), root);
            assert_eq!(hex::encode(file.fixed_header_hash), fixed);
        }
    }
}
