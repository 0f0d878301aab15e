//! Model files on disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use adyton_inference::lm::{Model, Options, Source};
use adyton_model::gguf::{Gguf, GgufError};

use crate::{AnyError, Run};

struct Disk(File);

impl Source for Disk {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }
}

/// Calls `then` with the directory of a file; reads more of the file until the header is whole.
pub(crate) fn with_directory<T>(
    path: &Path,
    then: impl FnOnce(&Gguf<'_>, &dyn Source) -> Result<T, AnyError>,
) -> Result<T, AnyError> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let file_len = file.metadata()?.len();
    let disk = Disk(file);
    let mut len = file_len.min(1 << 20);
    loop {
        let mut head = vec![0; usize::try_from(len)?];
        disk.read(0, &mut head)?;
        match Gguf::parse(&head, file_len) {
            Err(GgufError::Truncated) if len < file_len => len = file_len.min(len.saturating_mul(4)),
            result => return then(&result?, &disk),
        }
    }
}

/// Loads a model.
pub(crate) fn load(run: &Run) -> Result<Model, AnyError> {
    let options = Options { threads: run.threads, path: run.path()? };
    with_directory(&run.model, |gguf, source| Ok(Model::load(gguf, source, options)?))
}
