//! Why bytes are not a GGUF file.

/// Why a GGUF file was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The bytes end inside the header.
    #[error("the file ends inside its header; it is cut short, fetch it again")]
    Truncated,
    /// Not `GGUF` at the start.
    #[error("not a GGUF file: it starts with {0:#010x}")]
    Magic(u32),
    /// Version 1, a future version, or a big-endian file.
    #[error("GGUF version {0} is not read, only 2 and 3 in little endian; convert the model again")]
    Version(u32),
    /// A string is not UTF-8.
    #[error("the string at byte {at} is not UTF-8")]
    Utf8 {
        /// Offset of its first byte in the file.
        at: u64,
    },
    /// A metadata value of a type that does not exist, or an array of arrays.
    #[error("metadata value type {0} is not read here")]
    ValueType(u32),
    /// A `bool` that is neither 0 nor 1.
    #[error("a flag has the value {0}, not 0 or 1")]
    Flag(u8),
    /// The same key twice.
    #[error("metadata key `{0}` stands twice")]
    DuplicateKey(String),
    /// The same tensor name twice.
    #[error("tensor `{0}` stands twice")]
    DuplicateTensor(String),
    /// `general.alignment` is no power of two from 8 to 65536.
    #[error("`general.alignment` is no power of two from 8 to 65536")]
    Alignment,
    /// A tensor type this reader does not know.
    #[error(
        "tensor `{name}` has type {got}, which is not read here; quantise the model as Q4_K_M, Q8_0 or F16"
    )]
    TensorType {
        /// Its name.
        name: String,
        /// `ggml_type` in the file.
        got: u32,
    },
    /// No dimension, too many, a zero, a product over 2^63, or rows that are no whole blocks.
    #[error("tensor `{name}` has the impossible shape {shape:?}")]
    Shape {
        /// Its name.
        name: String,
        /// Dimensions as far as they were read, innermost first.
        shape: Vec<u64>,
    },
    /// Tensors must follow each other, each aligned.
    #[error("tensor `{name}` lies at offset {got}, {want} is where it must be")]
    Offset {
        /// Its name.
        name: String,
        /// The offset in the file.
        got: u64,
        /// The end of the tensor before it, aligned.
        want: u64,
    },
    /// A tensor's data ends behind the file.
    #[error("tensor `{name}` ends at byte {end}, the file at {file_len}; it is cut short, fetch it again")]
    Short {
        /// Its name.
        name: String,
        /// Where it would end.
        end: u64,
        /// Length of the file.
        file_len: u64,
    },
    /// Bytes after the last tensor that no tensor owns.
    #[error("{0} bytes follow the last tensor")]
    Trailing(u64),
    /// A key the reader needs is absent.
    #[error("metadata key `{0}` is missing")]
    MissingKey(String),
    /// A key has a value of another type.
    #[error("metadata key `{key}` is not {want}")]
    WrongType {
        /// The key.
        key: String,
        /// What it must be.
        want: &'static str,
    },
}
