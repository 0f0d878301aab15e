//! Opening a sealed file: header, keys, then chunks front to back, in parallel, into the memory where they stay.
//!
//! Flow
//! 1. [`Header::read`]: well formed; still the host's word.
//! 2. [`Opener::new`]: the fixed header is the one the owner's manifest names, its binding is to this owner, model and
//!    version, and the KEK opens it (key commitment, then header MAC, in constant time). Nothing of the body was read.
//! 3. [`Opener::open_stream`] or [`Opener::open_file`]: worker threads take chunks in order, read ciphertext straight
//!    into its final place, decrypt it there and hash it. The Merkle root over all of it is compared with the
//!    manifest's, and only then is the plaintext handed out.
//!
//! Trusted: the KEK and the [`FileClaims`] (from a manifest whose signature the caller has verified). Not trusted: the
//! file. Whatever is wrong with it, no byte of plaintext is exposed and what was decrypted is wiped.

use crate::chunk::{CHUNK_LEN, ChunkCipher, NotAuthentic, SEALED_CHUNK_LEN, TAG_LEN};
use crate::header::{Header, HeaderError};
use crate::keys::{FileKeys, KeyContext, model_binding};
use crate::memory::Plaintext;
use crate::merkle::{Digest, Tree};
use crate::secret::{Kek, constant_time_eq};
use crate::workers::{lock, worker_count};
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// What the owner's signed manifest says about one file. The caller has verified its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileClaims<'a> {
    /// Opaque id of the file.
    pub file_id: [u8; 16],
    /// Bytes of plaintext.
    pub plaintext_len: u64,
    /// Merkle root over the plaintext, see [`crate::merkle`].
    pub plaintext_root: Digest,
    /// SHA-256 of the fixed header.
    pub fixed_header_hash: Digest,
    /// The owner's id, as in the manifest.
    pub owner_id: &'a [u8],
    /// The model's name, as in the manifest.
    pub model_name: &'a str,
    /// The manifest's counter: the version of the model.
    pub counter: u64,
}

/// Why a sealed file was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The header is malformed.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The file is another one than the manifest names.
    #[error(
        "this is not the file of the manifest ({0} differs): the host gave another file or another version"
    )]
    NotTheClaimedFile(&'static str),
    /// Wrong key, or changed bytes; which of them is not told.
    #[error("the sealed file could not be opened: the key is not its key, or its bytes were changed")]
    NotOpened,
    /// All chunks are authentic, but they are not the weights the manifest names.
    #[error(
        "the sealed file holds other weights than the manifest names (Merkle root differs): seal and sign again"
    )]
    Root,
    /// The file ends too early.
    #[error("the sealed file ends inside chunk {chunk} of {chunk_count}: it was not transferred completely")]
    Truncated {
        /// Index of the chunk that is not all there.
        chunk: u64,
        /// Chunks the file has by its header.
        chunk_count: u64,
    },
    /// The file goes on after its last chunk.
    #[error("bytes follow the last chunk of the sealed file: it was extended, or is not one sealed file")]
    Trailing,
    /// The machine cannot map that much memory.
    #[error(
        "no memory for {len_bytes} bytes of plaintext: give the enclave more memory, or seal a smaller model"
    )]
    Memory {
        /// Bytes wanted.
        len_bytes: u64,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The file could not be read.
    #[error("cannot read the sealed file: {0}")]
    Io(#[source] io::Error),
}

impl From<NotAuthentic> for OpenError {
    fn from(NotAuthentic: NotAuthentic) -> Self {
        Self::NotOpened
    }
}

/// One sealed file whose header is authentic and is the one the manifest names.
pub struct Opener {
    cipher: ChunkCipher,
    header_len: u64,
    sealed_len: u64,
    plaintext_len: u64,
    plaintext_root: Digest,
}

impl Opener {
    /// Accepts `header` if it is the one `claims` name and `kek` is its key.
    ///
    /// # Errors
    /// [`OpenError::NotTheClaimedFile`] with the field that differs; [`OpenError::NotOpened`] if key commitment or
    /// header MAC do not match.
    pub fn new(header: &Header, kek: &Kek, claims: &FileClaims<'_>) -> Result<Self, OpenError> {
        let fixed = header.fixed();
        let binding = model_binding(claims.owner_id, claims.model_name, claims.counter);
        let claimed = [
            (fixed.file_id == claims.file_id, "file id"),
            (fixed.plaintext_len == claims.plaintext_len, "plaintext length"),
            (fixed.model_binding == binding, "owner, model name or counter"),
            (fixed.hash() == claims.fixed_header_hash, "fixed header"),
        ];
        if let Some((_, field)) = claimed.iter().find(|(same, _)| !same) {
            return Err(OpenError::NotTheClaimedFile(field));
        }
        let keys = FileKeys::derive(kek, KeyContext::from(fixed));
        if !constant_time_eq(&keys.commitment(), &fixed.key_commitment) || !header.is_authentic(&keys) {
            return Err(OpenError::NotOpened);
        }
        Ok(Self {
            cipher: ChunkCipher::new(&keys, fixed.file_id, fixed.plaintext_len),
            header_len: header.as_bytes().len() as u64,
            sealed_len: header.sealed_len(),
            plaintext_len: fixed.plaintext_len,
            plaintext_root: claims.plaintext_root,
        })
    }

    /// Chunks of the file.
    #[must_use]
    pub fn chunk_count(&self) -> u64 {
        self.cipher.chunk_count()
    }

    /// Decrypts chunk `index` in place and returns its Merkle leaf: the step of which opening consists.
    ///
    /// `chunk` is [`CHUNK_LEN`] bytes of ciphertext and becomes plaintext, zeros after its end. A single chunk is
    /// authentic, but the root is not known to match before all of them were opened.
    ///
    /// # Errors
    /// [`OpenError::NotOpened`]; `chunk` then holds nothing meaningful.
    pub fn open_chunk(&self, index: u64, chunk: &mut [u8], tag: [u8; TAG_LEN]) -> Result<Digest, OpenError> {
        Ok(self.cipher.open(index, chunk, tag)?)
    }

    /// Opens all chunks, which `reader` gives from the first on and which must be all it gives.
    ///
    /// `threads` is the number of decrypting threads, one for each CPU if absent. `progress` is called with the bytes
    /// of plaintext opened so far.
    ///
    /// # Errors
    /// [`OpenError`]; no plaintext is left in memory then.
    pub fn open_stream(
        &self,
        reader: &mut (dyn Read + Send),
        threads: Option<NonZeroUsize>,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Plaintext, OpenError> {
        self.open_all(Input::Stream(reader), threads, progress)
    }

    /// Opens the sealed file `file`, header included, with every thread reading for itself.
    ///
    /// # Errors
    /// As [`Self::open_stream`]; a wrong file size is found before memory is taken.
    pub fn open_file(
        &self,
        file: &File,
        threads: Option<NonZeroUsize>,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Plaintext, OpenError> {
        let len = file.metadata().map_err(OpenError::Io)?.len();
        if len > self.sealed_len {
            return Err(OpenError::Trailing);
        }
        if len < self.sealed_len {
            let chunk = len.saturating_sub(self.header_len) / SEALED_CHUNK_LEN as u64;
            return Err(OpenError::Truncated { chunk, chunk_count: self.chunk_count() });
        }
        // Only a hint: reading works without it.
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Sequential);
        self.open_all(Input::File(file), threads, progress)
    }

    fn open_all<'input>(
        &self,
        input: Input<'input>,
        threads: Option<NonZeroUsize>,
        progress: &'input mut (dyn FnMut(u64) + Send),
    ) -> Result<Plaintext, OpenError> {
        let (mut plaintext, mut leaves) = self.allocate()?;
        let chunks = plaintext.chunks_mut(BATCH * CHUNK_LEN);
        let batches = Box::new(chunks.zip(leaves.chunks_mut(BATCH)).enumerate());
        let work = Mutex::new(Work { batches, input, progress, opened: 0, failed: None });
        thread::scope(|scope| {
            // The calling thread works too; the scope joins the others.
            for _ in 1..worker_count(threads, self.chunk_count()) {
                scope.spawn(|| self.open_some(&work));
            }
            self.open_some(&work);
        });
        work.into_inner().unwrap_or_else(PoisonError::into_inner).finish()?;
        if !constant_time_eq(&leaves.into_iter().collect::<Tree>().root(), &self.plaintext_root) {
            return Err(OpenError::Root);
        }
        plaintext.lock();
        Ok(plaintext)
    }

    /// Memory for the plaintext in whole chunks, and for one leaf for each of them.
    fn allocate(&self) -> Result<(Plaintext, Vec<Digest>), OpenError> {
        let no_memory = |source| OpenError::Memory { len_bytes: self.plaintext_len, source };
        let sizes = || {
            let chunks = usize::try_from(self.chunk_count()).ok()?;
            Some((chunks, chunks.checked_mul(CHUNK_LEN)?, usize::try_from(self.plaintext_len).ok()?))
        };
        let (chunks, capacity, len) =
            sizes().ok_or_else(|| no_memory(io::Error::from(io::ErrorKind::OutOfMemory)))?;
        Ok((Plaintext::map(capacity, len).map_err(no_memory)?, vec![[0; 32]; chunks]))
    }

    /// One worker: opens the next chunks, again and again, until there is none or somebody failed.
    fn open_some(&self, work: &Mutex<Work<'_, '_>>) {
        loop {
            match self.open_next(work) {
                Ok(true) => {}
                Ok(false) => return,
                Err((chunk, error)) => return lock(work).fail(chunk, error),
            }
        }
    }

    /// Opens the next batch of chunks; false if there is nothing left to do. An error comes with its batch.
    fn open_next(&self, work: &Mutex<Work<'_, '_>>) -> Result<bool, (u64, OpenError)> {
        let mut shared = lock(work);
        let Some(mut batch) = shared.next_batch() else { return Ok(false) };
        let first = batch.first;
        // A stream is read here, under the lock and so in order; a file by each thread for itself, without the lock.
        let read = match &mut shared.input {
            Input::Stream(reader) => {
                let read = batch.read(|_, chunk, tag| {
                    reader.read_exact(chunk)?;
                    reader.read_exact(tag)
                });
                drop(shared);
                read
            }
            Input::File(file) => {
                let file = *file;
                drop(shared);
                batch.read(|index, chunk, tag| self.read_chunk_at(file, index, chunk, tag))
            }
        };
        let opened = read
            .map_err(|(chunk, error)| self.read_error(chunk, error))
            .and_then(|()| batch.open(self))
            .map_err(|error| (first, error))?;
        lock(work).report(opened);
        Ok(true)
    }

    fn read_error(&self, chunk: u64, error: io::Error) -> OpenError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => OpenError::Truncated { chunk, chunk_count: self.chunk_count() },
            _ => OpenError::Io(error),
        }
    }

    fn read_chunk_at(&self, file: &File, index: u64, chunk: &mut [u8], tag: &mut [u8]) -> io::Result<()> {
        // Below `sealed_len`, which the header's caps keep far from overflow.
        let at = self.header_len + index * SEALED_CHUNK_LEN as u64;
        file.read_exact_at(chunk, at)?;
        file.read_exact_at(tag, at + CHUNK_LEN as u64)
    }
}

/// Opens the sealed file at `path` from beginning to end: [`Header::read`], [`Opener::new`], [`Opener::open_file`].
///
/// # Errors
/// [`OpenError`]; no plaintext is left in memory then.
pub fn open_file(
    path: &Path,
    kek: &Kek,
    claims: &FileClaims<'_>,
    threads: Option<NonZeroUsize>,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Plaintext, OpenError> {
    let mut file = File::open(path).map_err(OpenError::Io)?;
    let header = Header::read(&mut file)?;
    Opener::new(&header, kek, claims)?.open_file(&file, threads, progress)
}

/// Where the sealed chunks come from.
enum Input<'a> {
    Stream(&'a mut (dyn Read + Send)),
    File(&'a File),
}

/// Chunks a worker takes at once: as many as share a huge page, or two workers would wait for the same page to be
/// cleared, which costs more than all the cryptography.
const BATCH: usize = 2;

/// Some neighbouring chunks: their place in the plaintext, the places of their leaves, and their tags once read.
struct Batch<'memory> {
    first: u64,
    chunks: &'memory mut [u8],
    leaves: &'memory mut [Digest],
    tags: [[u8; TAG_LEN]; BATCH],
}

impl Batch<'_> {
    /// Calls `read` for the ciphertext and tag of each chunk; on failure the index of the chunk comes with the error.
    fn read(
        &mut self,
        mut read: impl FnMut(u64, &mut [u8], &mut [u8]) -> io::Result<()>,
    ) -> Result<(), (u64, io::Error)> {
        let chunks = self.chunks.chunks_exact_mut(CHUNK_LEN).zip(&mut self.tags);
        for (index, (chunk, tag)) in (self.first..).zip(chunks) {
            read(index, chunk, tag).map_err(|error| (index, error))?;
        }
        Ok(())
    }

    /// Opens each chunk where it is. The number of plaintext bytes opened.
    fn open(self, opener: &Opener) -> Result<u64, OpenError> {
        let chunks = self.chunks.chunks_exact_mut(CHUNK_LEN).zip(self.leaves).zip(self.tags);
        let mut opened = 0;
        for (index, ((chunk, leaf), tag)) in (self.first..).zip(chunks) {
            *leaf = opener.open_chunk(index, chunk, tag)?;
            opened += opener.cipher.plaintext_len_of(index) as u64;
        }
        Ok(opened)
    }
}

/// Numbered batches: their chunks and the places of their leaves.
type Batches<'memory> =
    Box<dyn Iterator<Item = (usize, (&'memory mut [u8], &'memory mut [Digest]))> + Send + 'memory>;

/// What the workers share.
struct Work<'memory, 'input> {
    batches: Batches<'memory>,
    input: Input<'input>,
    progress: &'input mut (dyn FnMut(u64) + Send),
    opened: u64,
    /// The first failure in the file, with its chunk.
    failed: Option<(u64, OpenError)>,
}

impl<'memory> Work<'memory, '_> {
    /// Chunks for the next worker; none when all are taken or somebody failed.
    fn next_batch(&mut self) -> Option<Batch<'memory>> {
        if self.failed.is_some() {
            return None;
        }
        let (number, (chunks, leaves)) = self.batches.next()?;
        Some(Batch { first: number as u64 * BATCH as u64, chunks, leaves, tags: [[0; TAG_LEN]; BATCH] })
    }

    fn report(&mut self, len: u64) {
        self.opened = self.opened.saturating_add(len);
        (self.progress)(self.opened);
    }

    /// Keeps the failure that comes first in the file. Batches are taken in order and finished once taken, so which one
    /// that is does not depend on the threads.
    fn fail(&mut self, chunk: u64, error: OpenError) {
        if self.failed.as_ref().is_none_or(|(first, _)| chunk < *first) {
            self.failed = Some((chunk, error));
        }
    }

    /// Makes sure that nobody failed and nothing follows the last chunk. A file's size is known already.
    fn finish(self) -> Result<(), OpenError> {
        if let Some((_, error)) = self.failed {
            return Err(error);
        }
        let Input::Stream(reader) = self.input else { return Ok(()) };
        match reader.read_exact(&mut [0]) {
            Ok(()) => Err(OpenError::Trailing),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(OpenError::Io(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::{FixedHeader, Suite};

    /// The MAC covers the commitment, so only its maker could get this past the MAC: a file built to open under two keys.
    #[test]
    fn key_commitment_is_compared_although_the_mac_is_right() {
        let kek = Kek::from_bytes(&mut [1; 32]);
        let mut fixed = FixedHeader {
            suite: Suite::Aes256Gcm,
            file_id: [3; 16],
            salt: [2; 32],
            model_binding: model_binding(b"owner", "model", 7),
            key_commitment: [0; 32],
            plaintext_len: 3,
        };
        let keys = FileKeys::derive(&kek, KeyContext::from(&fixed));
        let opens = |fixed: &FixedHeader| {
            let header = Header::build(fixed.clone(), vec![], &keys).unwrap();
            let claims = FileClaims {
                file_id: fixed.file_id,
                plaintext_len: 3,
                plaintext_root: [0; 32],
                fixed_header_hash: fixed.hash(),
                owner_id: b"owner",
                model_name: "model",
                counter: 7,
            };
            Opener::new(&header, &kek, &claims).map(|_| ())
        };
        assert!(matches!(opens(&fixed), Err(OpenError::NotOpened)));
        fixed.key_commitment = keys.commitment();
        assert!(opens(&fixed).is_ok());
    }
}
