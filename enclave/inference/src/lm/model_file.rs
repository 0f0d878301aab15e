//! GGUF files on disk: the directory is read first, tensors where they are wanted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use adyton_model::gguf::{Gguf, GgufError};

use super::Source;

impl Source for File {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset)
    }
}

/// Calls `then` with the directory of a file; reads more of the file until the directory is whole.
///
/// # Errors
/// The file cannot be read, has no valid directory, or `then` fails.
pub fn with_directory<T, E>(
    file: &File,
    then: impl FnOnce(&Gguf<'_>, &dyn Source) -> Result<T, E>,
) -> Result<T, E>
where
    E: From<io::Error> + From<GgufError>,
{
    let file_len = file.metadata()?.len();
    let mut len = file_len.min(1 << 20);
    loop {
        let mut head =
            vec![0; usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?];
        file.read_exact_at(&mut head, 0)?;
        match Gguf::parse(&head, file_len) {
            Err(GgufError::Truncated) if len < file_len => len = file_len.min(len.saturating_mul(4)),
            result => return then(&result?, file),
        }
    }
}
