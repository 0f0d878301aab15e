//! Reading with a cap and writing as a whole.

use std::fs::File;
use std::io::{Read as _, Write};
use std::path::Path;

use adyton_model::dense::{DenseModel, Overrides, Structure};

use crate::WorkshopError;

const MAX_MODEL_LEN: u64 = 4 << 30;

/// Reads a file of at most `max` bytes.
pub(crate) fn read(path: &Path, max: u64) -> Result<Vec<u8>, WorkshopError> {
    let failed = |source| WorkshopError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        return Err(failed(std::io::Error::other(format!("it is longer than {max} bytes"))));
    }
    Ok(bytes)
}

/// Writes a file under another name in the same folder, flushes it, and renames it.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), WorkshopError> {
    let failed = |source| WorkshopError::Write { path: path.to_owned(), source };
    write_with(path, |file| file.write_all(bytes).map_err(failed))
}

/// As [`write()`], with whatever `fill` writes.
pub(crate) fn write_with(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), WorkshopError>,
) -> Result<(), WorkshopError> {
    let failed = |source| WorkshopError::Write { path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    fill(&mut file)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// Reads a model in any accepted format.
pub(crate) fn read_model(path: &Path) -> Result<DenseModel, WorkshopError> {
    read_model_with(path, None, &Overrides::default())
}

/// Reads a model whose file leaves something open.
pub(crate) fn read_model_with(
    path: &Path,
    structure: Option<&Structure>,
    overrides: &Overrides,
) -> Result<DenseModel, WorkshopError> {
    let bytes = read(path, MAX_MODEL_LEN)?;
    DenseModel::from_bytes_with(&bytes, structure, overrides)
        .map_err(|source| WorkshopError::ModelFile { path: path.to_owned(), source })
}

/// Writes a model and returns its size in bytes.
pub(crate) fn write_model(path: &Path, model: &DenseModel) -> Result<usize, WorkshopError> {
    let bytes = model.to_safetensors()?;
    write(path, &bytes)?;
    Ok(bytes.len())
}
