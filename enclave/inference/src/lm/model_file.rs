//! GGUF files on disk: the directory is read first, tensors where they are wanted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use adyton_model::gguf::{Gguf, GgufError};
use zeroize::Zeroizing;

use super::Source;

impl Source for File {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset)
    }
}

/// Calls `then` with the directory of a file of `file_len` bytes; reads more of it until the directory is whole.
///
/// # Errors
/// The file cannot be read, has no valid directory, or `then` fails.
pub fn with_directory<T, E>(
    source: &dyn Source,
    file_len: u64,
    then: impl FnOnce(&Gguf<'_>) -> Result<T, E>,
) -> Result<T, E>
where
    E: From<io::Error> + From<GgufError>,
{
    let mut len = file_len.min(1 << 20);
    loop {
        let size = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        // Names and vocabulary of a sealed model are the owner's as well.
        let mut head = Zeroizing::new(vec![0; size]);
        source.read(0, &mut head)?;
        match Gguf::parse(&head, file_len) {
            Err(GgufError::Truncated) if len < file_len => len = file_len.min(len.saturating_mul(4)),
            result => return then(&result?),
        }
    }
}
