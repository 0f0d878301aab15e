//! Dense (feed-forward) models: the description of a network and the file formats it is read from.
//!
//! Flow: [`DenseModel::from_bytes`] detects the format. Our own safetensors form carries its structure in
//! `__metadata__`; ONNX carries a graph; a plain safetensors file carries names and shapes only, from which
//! [`structure`] infers the order or asks for a [`Structure`]. Each reader ends in [`DenseModel::new`], which is the only
//! maker of a model, so whatever exists has fitting shapes and finite weights.
//!
//! Trusted: nothing in the bytes. A model that parses may still be wrong about the world; it cannot be malformed.

mod activation;
mod error;
mod layer;
mod native;
pub mod onnx;
mod preprocessing;
pub mod structure;
mod tensors;

pub use activation::Activation;
pub use error::DenseError;
pub use layer::{Affine, Dense, Kernel, Layer};
pub use preprocessing::{Preprocessing, Standardize};
pub use structure::{BatchNormPlacement, Overrides, Structure};

/// Largest file this reader looks at: a dense network of a quarter of a billion f32 parameters.
pub const MAX_FILE_BYTES: usize = 1 << 30;
/// Most layers in a model. Deep feed-forward networks have tens.
pub const MAX_LAYERS: usize = 512;
/// Widest layer, in units. Bounds the scratch memory of one row to a few megabytes.
pub const MAX_WIDTH: usize = 1 << 20;
/// Most elements in one kernel: what fits in [`MAX_FILE_BYTES`] as f32.
pub const MAX_KERNEL_ELEMENTS: usize = MAX_FILE_BYTES / 4;

/// What the model was trained to minimise; tells a client how to read the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// One sigmoid output: the probability of the second label.
    BinaryCrossEntropy,
    /// One softmax output per label.
    CategoricalCrossEntropy,
    /// A number.
    SquaredError,
}

/// Names that make a model readable to people; every field may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// One name per input, in order, or none at all.
    pub features: Vec<String>,
    /// One label per class, in the order of the outputs (two for a single sigmoid output), or none at all.
    pub labels: Vec<String>,
}

/// A verified description of a feed-forward network: `[batch, inputs]` f32 in, `[batch, outputs]` f32 out.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseModel {
    inputs: usize,
    outputs: usize,
    layers: Vec<Layer>,
    preprocessing: Option<Preprocessing>,
    names: Names,
    loss: Option<Loss>,
}

impl DenseModel {
    /// Makes a model of `inputs` features from layers in the order they are applied.
    ///
    /// # Errors
    /// [`DenseError::Shape`] where two layers do not fit, [`DenseError::NotFinite`] for a NaN or infinite weight,
    /// [`DenseError::TooLarge`] past a cap, [`DenseError::Empty`] without any dense layer.
    pub fn new(inputs: usize, layers: Vec<Layer>) -> Result<Self, DenseError> {
        if inputs == 0 || inputs > MAX_WIDTH {
            return Err(DenseError::TooLarge { what: "number of inputs", got: inputs, cap: MAX_WIDTH });
        }
        if layers.len() > MAX_LAYERS {
            return Err(DenseError::TooLarge {
                what: "number of layers",
                got: layers.len(),
                cap: MAX_LAYERS,
            });
        }
        let mut width = inputs;
        for (index, layer) in layers.iter().enumerate() {
            width = layer.verify(index, width)?;
        }
        if !layers.iter().any(|layer| matches!(layer, Layer::Dense(_))) {
            return Err(DenseError::Empty);
        }
        Ok(Self { inputs, outputs: width, layers, preprocessing: None, names: Names::default(), loss: None })
    }

    /// Adds what is done to raw features before the first layer.
    ///
    /// # Errors
    /// [`DenseError::Shape`] if it is not made for this number of inputs, [`DenseError::NotFinite`] for values that are
    /// not finite or a scale of zero.
    pub fn with_preprocessing(mut self, preprocessing: Preprocessing) -> Result<Self, DenseError> {
        preprocessing.verify(self.inputs)?;
        self.preprocessing = Some(preprocessing);
        Ok(self)
    }

    /// Adds names of features and labels.
    ///
    /// # Errors
    /// [`DenseError::Shape`] if a list is neither empty nor as long as the model wants.
    pub fn with_names(mut self, names: Names) -> Result<Self, DenseError> {
        let labels_wanted = if self.outputs == 1 { 2 } else { self.outputs };
        for (what, got, want) in [
            ("feature names", names.features.len(), self.inputs),
            ("labels", names.labels.len(), labels_wanted),
        ] {
            if got != 0 && got != want {
                return Err(DenseError::Shape { place: what.to_owned(), got: vec![got], want: vec![want] });
            }
        }
        self.names = names;
        Ok(self)
    }

    /// Records the loss the model was trained with.
    #[must_use]
    pub fn with_loss(mut self, loss: Option<Loss>) -> Self {
        self.loss = loss;
        self
    }

    /// Reads a model from any accepted format: our safetensors form, plain safetensors with telling names, ONNX.
    ///
    /// # Errors
    /// A [`DenseError`] that names the place in the file; see the readers in [`structure`] and [`onnx`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DenseError> {
        Self::from_bytes_with(bytes, None, &Overrides::default())
    }

    /// As [`DenseModel::from_bytes`], with what a file without structure cannot say itself.
    ///
    /// # Errors
    /// As [`DenseModel::from_bytes`]; [`DenseError::StructureNotNeeded`] if a structure or override is given for a file
    /// that already carries its own.
    pub fn from_bytes_with(
        bytes: &[u8],
        structure: Option<&Structure>,
        overrides: &Overrides,
    ) -> Result<Self, DenseError> {
        if bytes.len() > MAX_FILE_BYTES {
            return Err(DenseError::TooLarge {
                what: "file size in bytes",
                got: bytes.len(),
                cap: MAX_FILE_BYTES,
            });
        }
        let told = structure.is_some() || *overrides != Overrides::default();
        match Format::detect(bytes) {
            Format::Native | Format::Onnx if told => Err(DenseError::StructureNotNeeded),
            Format::Native => native::read(bytes),
            Format::Onnx => onnx::read(bytes),
            Format::Safetensors => structure::read(bytes, structure, overrides),
            Format::Unknown => Err(DenseError::UnknownFormat),
        }
    }

    /// Writes the model in our safetensors form. The same model gives the same bytes.
    ///
    /// Zeros are not stored: a kernel that is smaller as bitmap and values is written that way.
    ///
    /// # Errors
    /// [`DenseError::Safetensors`] if the header would exceed the format's own limit.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, DenseError> {
        native::write(self)
    }

    /// Number of features of one row.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number of outputs of one row.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The layers in the order they are applied.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// What is done to raw features first, if anything.
    #[must_use]
    pub fn preprocessing(&self) -> Option<&Preprocessing> {
        self.preprocessing.as_ref()
    }

    /// Names of features and labels.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The loss the model was trained with, where known.
    #[must_use]
    pub fn loss(&self) -> Option<Loss> {
        self.loss
    }

    /// Number of stored numbers: kernels, biases, scales and shifts.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.layers.iter().map(Layer::parameters).sum()
    }

    /// The same function with other layers; preprocessing, names and loss stay.
    ///
    /// # Errors
    /// As [`DenseModel::new`], and [`DenseError::Shape`] if the new layers do not give as many outputs.
    pub fn with_layers(&self, layers: Vec<Layer>) -> Result<Self, DenseError> {
        let new = Self::new(self.inputs, layers)?;
        if new.outputs != self.outputs {
            return Err(DenseError::Shape {
                place: "last layer".to_owned(),
                got: vec![new.outputs],
                want: vec![self.outputs],
            });
        }
        Ok(Self { layers: new.layers, ..self.clone() })
    }

    /// The same function with every [`Affine`] that touches an f32 dense layer merged into it.
    ///
    /// Batch normalisation costs nothing at inference this way. Sums are made in f64 and rounded once.
    ///
    /// # Errors
    /// [`DenseError::NotFinite`] if a merged weight leaves the range of f32.
    pub fn folded(&self) -> Result<Self, DenseError> {
        self.with_layers(layer::fold(&self.layers))
    }
}

/// File formats told apart by their first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// safetensors with our structure in `__metadata__`.
    Native,
    /// safetensors with names and shapes only.
    Safetensors,
    /// An ONNX `ModelProto`.
    Onnx,
    /// None of these.
    Unknown,
}

impl Format {
    /// Guesses the format of `bytes`; the reader of that format has the last word.
    #[must_use]
    pub fn detect(bytes: &[u8]) -> Self {
        let header_len = bytes.first_chunk::<8>().map_or(u64::MAX, |len| u64::from_le_bytes(*len));
        if bytes.get(8) == Some(&b'{') && usize::try_from(header_len).is_ok_and(|len| len <= bytes.len() - 8)
        {
            return if native::is_native(bytes) { Self::Native } else { Self::Safetensors };
        }
        // A ModelProto starts with field 1 (ir_version, varint); zip, HDF5 and text start otherwise.
        if bytes.first() == Some(&0x08) { Self::Onnx } else { Self::Unknown }
    }
}
