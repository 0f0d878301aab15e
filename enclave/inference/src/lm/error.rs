//! Why a file is no model that can be run, and why a batch cannot.

use adyton_model::gguf::GgufError;
use adyton_model::quant::TensorType;

use crate::arch::PackError;

/// Why a model was refused or a batch not computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file itself.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// An architecture nobody here knows.
    #[error(
        "architecture `{0}` is not known; llama, mistral, smollm3, qwen2, qwen3, qwen3moe, gemma2, gemma3 and phi3 are"
    )]
    Architecture(String),
    /// A count or factor in the metadata that no model has.
    #[error("metadata key `{key}` is {got}; {want}")]
    Metadata {
        /// The key.
        key: String,
        /// Its value.
        got: String,
        /// What it must be.
        want: &'static str,
    },
    /// A tensor is missing.
    #[error("tensor `{0}` is missing")]
    MissingTensor(String),
    /// Two tensors of a folder are the same part of the model.
    #[error("tensor `{0}` stands twice")]
    DuplicateTensor(String),
    /// A tensor has another shape or type than the metadata says.
    #[error("tensor `{name}` is {got:?} of {kind:?}, but the metadata asks for {want:?}")]
    Shape {
        /// Its name.
        name: String,
        /// Its element type.
        kind: TensorType,
        /// Its dimensions, innermost first.
        got: [u64; 4],
        /// Columns and rows wanted.
        want: [usize; 2],
    },
    /// A tensor nobody asked for: running without it would compute something else.
    #[error("tensor `{0}` belongs to no part of this architecture that is computed here")]
    UnknownTensor(String),
    /// Another number of tokens than rows of the embedding.
    #[error(
        "the file names {tokens} tokens, but `token_embd.weight` has {rows} rows; convert the model again"
    )]
    Vocabulary {
        /// Tokens in the metadata.
        tokens: u64,
        /// Rows of the embedding.
        rows: usize,
    },
    /// Matrices of few rows are filled up to 16 when packed; no real model consists of them.
    #[error(
        "tensor `{name}` would bring the weights to {bytes} bytes, more than {max} for a file of this size"
    )]
    Inflated {
        /// The tensor that went over.
        name: String,
        /// Bytes of all weights up to it.
        bytes: u64,
        /// The most they may take.
        max: u64,
    },
    /// A matrix cannot be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The weights could not be read.
    #[error("reading the weights: {0}")]
    Read(#[from] std::io::Error),
    /// A token outside the vocabulary.
    #[error("token {token} is not in the vocabulary of {vocab_size}")]
    Token {
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A sequence would be longer than the model or the cache allows.
    #[error("{len} tokens do not fit into the context of {seq_len}; shorten the text")]
    ContextFull {
        /// Tokens the sequence would have.
        len: usize,
        /// The most it may have.
        seq_len: usize,
    },
    /// A request without tokens.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// All pages of the cache are in use.
    #[error("the KV cache is full; end another sequence first")]
    CacheFull,
}
