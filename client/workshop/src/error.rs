//! What can go wrong on the bench, each with what to do about it.

use std::io;
use std::path::PathBuf;

use adyton_model::dense::DenseError;
use adyton_model::gguf::GgufError;
use adyton_model::quant::{QuantizeError, TensorType};

/// Why a verb of the bench fails. Nothing is then left under an output's name that was not there before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkshopError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {source}; free space or choose another place")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A CSV is malformed.
    #[error("{path}: {message}")]
    Csv {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        message: String,
    },
    /// A cell is not what its column holds.
    #[error(
        "{path} line {line}, column {column:?}: {text:?} is not a finite number; correct it, or leave it empty if it is missing"
    )]
    Cell {
        /// The file.
        path: PathBuf,
        /// Line in the file, from 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What stands there.
        text: String,
    },
    /// A column does not exist.
    #[error("{path} has no column {column:?}; its columns are: {known}")]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// The first of those there are.
        known: String,
    },
    /// The data cannot be used for what was asked.
    #[error("{0}")]
    Data(String),
    /// An option has a value that makes no sense.
    #[error("{0}")]
    Option(String),
    /// Training left the range of numbers.
    #[error(
        "training diverged in epoch {epoch}: the loss is not a number; lower --learning-rate or standardise the data"
    )]
    Diverged {
        /// From 1.
        epoch: usize,
    },
    /// A model file is not one.
    #[error("{path}: {source}")]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// The reader's reason.
        source: DenseError,
    },
    /// A GGUF file is not one.
    #[error("{0}; is it a GGUF file?")]
    Gguf(#[from] GgufError),
    /// Reading a model, or writing one, fails in the middle.
    #[error("reading or writing a model: {0}")]
    Io(#[from] io::Error),
    /// A matrix has lost what finer types would hold.
    #[error("{path}: `{tensor}` is in {kind:?} already; give the model with 16 or 32 bits")]
    Quantized {
        /// The file.
        path: PathBuf,
        /// The matrix.
        tensor: String,
        /// Its type.
        kind: TensorType,
    },
    /// A matrix cannot be stored in fewer bits.
    #[error("`{tensor}`: {source}")]
    Quantize {
        /// The matrix.
        tensor: String,
        /// Why.
        source: QuantizeError,
    },
    /// A model cannot be made.
    #[error(transparent)]
    Model(#[from] DenseError),
}
