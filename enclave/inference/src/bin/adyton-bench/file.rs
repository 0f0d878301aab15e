//! Models on disk: GGUF files, and the folders of [`crate::folder`].

use std::fs::File;
use std::path::Path;

use adyton_inference::lm::{self, Model, Source};
use adyton_inference::tokenizer::Tokenizer;
use adyton_model::gguf::Gguf;

use crate::{AnyError, Run, folder};

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
    let options = run.options()?;
    if run.model.is_dir() {
        return folder::model(&run.model, options);
    }
    with_directory(&run.model, |gguf, source| Ok(Model::load(gguf, source, options)?))
}

/// The vocabulary of a model.
pub(crate) fn tokenizer(path: &Path) -> Result<Tokenizer, AnyError> {
    if path.is_dir() {
        return folder::tokenizer(path);
    }
    with_directory(path, |gguf, _| Ok(Tokenizer::from_gguf(gguf)?))
}
