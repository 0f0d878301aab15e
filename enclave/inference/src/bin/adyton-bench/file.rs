//! Model files on disk.

use std::fs::File;
use std::path::Path;

use adyton_inference::lm::{self, Model, Source};
use adyton_model::gguf::Gguf;

use crate::{AnyError, Run};

/// Calls `then` with the directory of a file.
pub(crate) fn with_directory<T>(
    path: &Path,
    then: impl FnOnce(&Gguf<'_>, &dyn Source) -> Result<T, AnyError>,
) -> Result<T, AnyError> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let len = file.metadata()?.len();
    lm::with_directory(&file, len, |gguf| then(gguf, &file))
}

/// Loads a model.
pub(crate) fn load(run: &Run) -> Result<Model, AnyError> {
    let options = run.machine.options()?;
    with_directory(&run.model, |gguf, source| Ok(Model::load(gguf, source, options)?))
}
