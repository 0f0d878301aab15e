//! Models in Hugging Face folders: `config.json`, `tokenizer.json`, safetensors in one file or several.

use std::fs::File;
use std::io;
use std::path::Path;

use adyton_inference::lm::{Model, Options, Source};
use adyton_inference::tokenizer::Tokenizer;
use adyton_model::checkpoint::{CheckpointError, LanguageConfig, Shard, ShardIndex};
use adyton_model::tokenizer::TokenizerFile;

use crate::AnyError;

/// Reads a small file of a folder; `None` if it is not there.
pub(crate) fn optional(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, AnyError> {
    match std::fs::read(folder.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", folder.join(name).display()).into()),
    }
}

/// Reads a small file of a folder.
pub(crate) fn read(folder: &Path, name: &str) -> Result<Vec<u8>, AnyError> {
    optional(folder, name)?
        .ok_or_else(|| format!("{}: there is no such file", folder.join(name).display()).into())
}

/// The vocabulary of a folder.
pub(crate) fn tokenizer(folder: &Path) -> Result<Tokenizer, AnyError> {
    let file = TokenizerFile::from_json(&read(folder, "tokenizer.json")?)?;
    // Nothing is generated here, so which tokens end an answer does not matter.
    Ok(Tokenizer::from_file(&file, &[])?)
}

/// Loads a language model.
pub(crate) fn model(folder: &Path, options: Options) -> Result<Model, AnyError> {
    let config = LanguageConfig::from_json(&read(folder, "config.json")?)?;
    let index = optional(folder, "model.safetensors.index.json")?;
    let index = index.map(|bytes| ShardIndex::from_json(&bytes)).transpose()?;
    let names = index.as_ref().map_or_else(|| vec!["model.safetensors"], ShardIndex::files);
    let (mut files, mut shards) = (Vec::new(), Vec::new());
    for name in names {
        let at = |error: &dyn std::fmt::Display| format!("{}: {error}", folder.join(name).display());
        let file = File::open(folder.join(name)).map_err(|error| at(&error))?;
        shards.push(directory(&file).map_err(|error| at(&error))?);
        files.push(file);
    }
    if let Some(index) = index {
        index.verify(&shards)?;
    }
    let sources: Vec<&dyn Source> = files.iter().map(|file| file as &dyn Source).collect();
    Ok(Model::load_checkpoint(&config, &shards, &sources, options)?)
}

/// The directory of one safetensors file.
fn directory(file: &File) -> Result<Shard, AnyError> {
    let len = file.metadata()?.len();
    let mut first = [0; 8];
    Source::read(file, 0, &mut first)?;
    // Headers longer than any model's end here.
    match Shard::parse(&first, len) {
        Err(CheckpointError::Truncated) => {}
        result => return Ok(result?),
    }
    let mut bytes = vec![0; usize::try_from(Shard::header_len(first).min(len))?];
    Source::read(file, 0, &mut bytes)?;
    Ok(Shard::parse(&bytes, len)?)
}
