//! Why a file did not become a model.

/// Why bytes did not become a [`DenseModel`](super::DenseModel). The message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DenseError {
    /// The first bytes fit none of the readers.
    #[error(
        "not a model file this program reads; give safetensors or ONNX (from Keras: `model.export(F, format=\"onnx\")`)"
    )]
    UnknownFormat,
    /// A count or size is over its cap.
    #[error("{what} is {got}, over the cap of {cap}; this reader is for feed-forward networks")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// The count in the file.
        got: usize,
        /// The most this reader takes.
        cap: usize,
    },
    /// Shapes do not fit together.
    #[error("{place}: shape {got:?} does not fit, {want:?} is needed; export the model again")]
    Shape {
        /// Layer, tensor or node.
        place: String,
        /// The shape found.
        got: Vec<usize>,
        /// The shape needed.
        want: Vec<usize>,
    },
    /// A weight is NaN or infinite, or a divisor is zero.
    #[error("{place}: a value is NaN, infinite or an impossible divisor; the training that made it diverged")]
    NotFinite {
        /// Layer or tensor.
        place: String,
    },
    /// There is no dense layer.
    #[error("no dense layer found; nothing to serve")]
    Empty,
    /// safetensors container errors.
    #[error("safetensors container: {0}; the file is damaged or cut short, fetch it again")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// A tensor is missing from a safetensors file.
    #[error("tensor `{name}` is missing; found {found}")]
    MissingTensor {
        /// The name looked for.
        name: String,
        /// What is there instead, shortened.
        found: String,
    },
    /// A tensor nobody asked for: serving without it would compute something else.
    #[error(
        "tensor `{name}` belongs to no layer this reader knows ({hint}); pass `--structure FILE` or remove it"
    )]
    UnusedTensor {
        /// Its name.
        name: String,
        /// What it looks like.
        hint: &'static str,
    },
    /// A tensor has a number type that has no place in a dense model.
    #[error("tensor `{name}` has element type {dtype}; f16, bf16, f32 and f64 are read")]
    ElementType {
        /// Its name.
        name: String,
        /// The type found.
        dtype: String,
    },
    /// JSON of our own structure, or of Keras, is malformed.
    #[error("structure: {0}")]
    Json(#[from] serde_json::Error),
    /// A structure says something this reader does not do.
    #[error("structure: {0}")]
    Structure(String),
    /// Names and shapes allow more than one network.
    #[error(
        "names and shapes do not tell {what}; pass `--structure FILE` (Keras config.json, a .keras file, or our JSON){or}"
    )]
    Ambiguous {
        /// What could not be told.
        what: String,
        /// Another way out, starting with " or ", or nothing.
        or: &'static str,
    },
    /// A structure was given although the file has its own.
    #[error(
        "this file carries its own structure; leave out --structure, --activation, --output, --epsilon and --batch-norm"
    )]
    StructureNotNeeded,
    /// Not a `ModelProto`.
    #[error("ONNX: {0}; the file is damaged, fetch or export it again")]
    Protobuf(#[from] prost::DecodeError),
    /// An operator, or a use of one, this reader does not know.
    #[error("ONNX node `{node}` ({operator}): {why}")]
    Node {
        /// Name of the node, or of its first output where it has none.
        node: String,
        /// Its operator, with the domain where it is not the default one.
        operator: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The graph as a whole is not a chain with one input and one output.
    #[error("ONNX graph: {0}")]
    Graph(String),
}
