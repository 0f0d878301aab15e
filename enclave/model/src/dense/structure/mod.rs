//! Plain safetensors: tensors with telling names, and a structure from somewhere else.
//!
//! A safetensors file has no graph. What is missing comes, in this order, from the caller ([`Structure`], made from our
//! JSON or from a Keras `config.json`), from such a text inside the file's `__metadata__`, or from names, shapes and
//! values (`infer`). Inference never guesses between two networks that both fit: it says which question is open.
//! Flow: [`read`] groups tensors by layer, settles the structure, then `assemble` takes every tensor exactly once.

mod assemble;
mod groups;
mod infer;
pub mod keras;
mod names;

use serde::{Deserialize, Serialize};

use super::tensors::Tensors;
use super::{Activation, DenseError, DenseModel};
use groups::Groups;

/// The order of layers, with the names their tensors carry. As JSON:
/// `{"layers": [{"kind": "dense", "name": "hidden1"}, {"kind": "activation", "function": {"name": "relu"}}]}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Structure {
    /// Layers in the order they are applied.
    pub layers: Vec<StructureLayer>,
}

/// One layer of a [`Structure`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
#[non_exhaustive]
pub enum StructureLayer {
    /// Kernel and optional bias called `name.kernel`, `name.bias` (or `/` for `.`, or PyTorch's `weight`).
    Dense {
        /// Prefix of the tensors.
        name: String,
    },
    /// Batch normalisation with the statistics of training.
    BatchNorm {
        /// Prefix of the tensors.
        name: String,
        /// Added to the variance: 1e-3 in Keras, 1e-5 in PyTorch.
        epsilon: f64,
    },
    /// Keras `Normalization`: `(x - mean) / max(sqrt(variance), 1e-7)`.
    Normalization {
        /// Prefix of the tensors.
        name: String,
    },
    /// `x * scale + offset`.
    Rescaling {
        /// Factor.
        scale: f32,
        /// Added after it.
        offset: f32,
    },
    /// An activation function.
    Activation {
        /// Which one.
        function: Activation,
    },
}

/// Where batch normalisation stands relative to the activation of its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchNormPlacement {
    /// Dense, normalisation, activation.
    Before,
    /// Dense, activation, normalisation.
    After,
}

/// Answers to what a file without structure leaves open. Each `None` means the default or an inference.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// Hidden layers; default relu.
    pub activation: Option<Activation>,
    /// Last layer; default sigmoid for one unit, else softmax.
    pub output: Option<Activation>,
    /// Of batch normalisation; default 1e-3 for Keras names, 1e-5 for PyTorch names.
    pub epsilon: Option<f64>,
    /// Default: what the running means prove, else an error.
    pub batch_norm: Option<BatchNormPlacement>,
}

impl Structure {
    /// Reads our JSON or a Keras `config.json`.
    ///
    /// # Errors
    /// [`DenseError::Json`] for malformed text, [`DenseError::Structure`] for a Keras layer this reader does not do.
    pub fn from_json(text: &str) -> Result<Self, DenseError> {
        let value: serde_json::Value = serde_json::from_str(text)?;
        if value.get("class_name").is_some() {
            return keras::structure(&value);
        }
        Ok(serde_json::from_value(value)?)
    }
}

/// Reads a safetensors file whose structure is not our own.
///
/// # Errors
/// [`DenseError::Ambiguous`] when names and shapes leave a choice, [`DenseError::MissingTensor`] and
/// [`DenseError::UnusedTensor`] when structure and tensors do not match, and the errors of [`DenseModel::new`].
pub fn read(
    bytes: &[u8],
    structure: Option<&Structure>,
    overrides: &Overrides,
) -> Result<DenseModel, DenseError> {
    let mut tensors = Tensors::parse(bytes)?;
    let groups = Groups::collect(&mut tensors)?;
    let embedded = match structure {
        Some(_) => None,
        None => tensors.metadata.values().find_map(|text| Structure::from_json(text).ok()),
    };
    let structure = match structure.or(embedded.as_ref()) {
        Some(_) if *overrides != Overrides::default() => {
            return Err(DenseError::Structure(
                "a structure leaves nothing open; leave out --activation, --output, --epsilon and --batch-norm".into(),
            ));
        }
        Some(structure) => structure.clone(),
        None => infer::structure(&mut tensors, &groups, overrides)?,
    };
    assemble::assemble(&mut tensors, &groups, &structure)
}
