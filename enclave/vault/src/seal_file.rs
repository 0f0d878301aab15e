//! Sealing from file to file: the sealed file appears under its name complete, or not at all.

use crate::seal::{SealError, SealParams, SealedFile, seal_stream, write_error};
use crate::secret::fill_random;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

/// Seals the file `input` into the file `output`, which appears under its name complete or not at all.
///
/// The bytes go to a temporary file in the same directory, which is flushed to disk, renamed, and the directory
/// flushed. An existing `output` is replaced.
///
/// # Errors
/// [`SealError`]; the temporary file is removed.
pub fn seal_file(
    input: &Path,
    output: &Path,
    params: &SealParams<'_>,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<SealedFile, SealError> {
    let mut reader = File::open(input).map_err(SealError::Read)?;
    let plaintext_len = reader.metadata().map_err(SealError::Read)?.len();
    // Only a hint: reading works without it.
    let _ = rustix::fs::fadvise(&reader, 0, None, rustix::fs::Advice::Sequential);
    let mut temporary = TemporaryFile::beside(output)?;
    let sealed = seal_stream(&mut reader, plaintext_len, &mut temporary, params, progress)?;
    temporary.persist(output).map_err(|error| write_error(error, sealed.sealed_len))?;
    Ok(sealed)
}

/// A file that is removed when dropped, unless it got its final name.
struct TemporaryFile {
    file: File,
    path: PathBuf,
    persisted: bool,
    written: u64,
    /// Bytes the disk was asked to store already.
    started: u64,
}

/// Bytes after which the disk is set to work, so that little is left to do when the file is flushed at the end.
const WRITEBACK_STEP: u64 = 16 << 20;

impl Write for TemporaryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.file.write(bytes)?;
        self.written = self.written.saturating_add(len as u64);
        let fresh = self.written.saturating_sub(self.started);
        if fresh >= WRITEBACK_STEP {
            // Linux starts to write the range back on this advice; where it does not, the flush at the end takes longer.
            let _ = rustix::fs::fadvise(
                &self.file,
                self.started,
                NonZeroU64::new(fresh),
                rustix::fs::Advice::DontNeed,
            );
            self.started = self.written;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl TemporaryFile {
    fn beside(output: &Path) -> Result<Self, SealError> {
        let mut random = [0; 8];
        fill_random(&mut random)?;
        let mut name = std::ffi::OsString::from(".");
        name.push(output.file_name().unwrap_or_default());
        name.push(format!(".{:016x}.partial", u64::from_be_bytes(random)));
        let path = output.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(SealError::Write)?;
        Ok(Self { file, path, persisted: false, written: 0, started: 0 })
    }

    fn persist(mut self, output: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, output)?;
        self.persisted = true;
        let directory = match output.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(directory)?.sync_all()
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.persisted {
            // Nothing else can be done about a file that cannot be removed; its name says what it is.
            let _ = fs::remove_file(&self.path);
        }
    }
}
