//! Layers of a dense model, and merging of affine layers into dense ones.

use std::fmt;

use zeroize::Zeroize as _;

use super::preprocessing::verify_vector;
use super::{Activation, DenseError, MAX_KERNEL_ELEMENTS, MAX_WIDTH};

/// One step of a dense model.
#[derive(Debug, Clone, PartialEq)]
pub enum Layer {
    /// `y = x W + b`.
    Dense(Dense),
    /// `y = x * scale + shift`, unit by unit: batch normalisation at inference.
    Affine(Affine),
    /// A function of each unit, or of the row (softmax).
    Activation(Activation),
}

/// `y[j] = sum_i x[i] * kernel[i, j] + bias[j]`. `Debug` tells its shape, never its weights.
#[derive(Clone, PartialEq)]
pub struct Dense {
    /// Width of the row that comes in.
    pub inputs: usize,
    /// Width of the row that goes out.
    pub outputs: usize,
    /// `[inputs, outputs]` row-major.
    pub kernel: Kernel,
    /// `[outputs]`.
    pub bias: Vec<f32>,
}

/// The numbers of a kernel, `[inputs, outputs]` row-major. `Debug` tells how many there are, never what they are.
#[derive(Clone, PartialEq)]
pub enum Kernel {
    /// As trained.
    F32(Vec<f32>),
    /// Symmetric int8: weight = `values[i, j] * scales[j]`.
    Int8 {
        /// In `-127..=127`.
        values: Vec<i8>,
        /// `[outputs]`, not negative.
        scales: Vec<f32>,
    },
}

/// `y[j] = x[j] * scale[j] + shift[j]`. `Debug` tells its width, never its weights.
#[derive(Clone, PartialEq)]
pub struct Affine {
    /// `[width]`.
    pub scale: Vec<f32>,
    /// `[width]`.
    pub shift: Vec<f32>,
}

impl fmt::Debug for Dense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dense({} to {}, {:?})", self.inputs, self.outputs, self.kernel)
    }
}

impl fmt::Debug for Affine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Affine({} wide)", self.scale.len())
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let element = if matches!(self, Self::F32(_)) { "f32" } else { "int8" };
        write!(f, "Kernel({} {element} weights)", self.len())
    }
}

/// Weights are secrets of their owner: what held them is overwritten.
impl Drop for Kernel {
    fn drop(&mut self) {
        match self {
            Self::F32(values) => values.zeroize(),
            Self::Int8 { values, scales } => {
                values.zeroize();
                scales.zeroize();
            }
        }
    }
}

impl Kernel {
    /// Number of weights, zeros included.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Int8 { values, .. } => values.len(),
        }
    }

    /// Whether there is no weight at all; never true inside a model.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of weights that are exactly zero.
    #[must_use]
    pub fn zeros(&self) -> usize {
        match self {
            Self::F32(values) => values.iter().filter(|value| **value == 0.0).count(),
            Self::Int8 { values, .. } => values.iter().filter(|value| **value == 0).count(),
        }
    }

    /// The weights as f32, `[inputs, outputs]` row-major.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Self::F32(values) => values.clone(),
            Self::Int8 { values, scales } => values
                .chunks(scales.len().max(1))
                .flat_map(|row| row.iter().zip(scales).map(|(value, scale)| f32::from(*value) * scale))
                .collect(),
        }
    }
}

impl Affine {
    /// Batch normalisation at inference: `(x - mean) / sqrt(variance + epsilon) * gamma + beta`, all `[width]`.
    ///
    /// # Errors
    /// [`DenseError::NotFinite`] if `variance + epsilon` is not above zero somewhere.
    #[expect(clippy::cast_possible_truncation, reason = "rounding f64 to f32 is the purpose")]
    pub fn batch_norm(
        gamma: &[f32],
        beta: &[f32],
        mean: &[f32],
        variance: &[f32],
        epsilon: f64,
    ) -> Result<Self, DenseError> {
        let width = gamma.len();
        for (place, values) in [("beta", beta), ("mean", mean), ("variance", variance)] {
            verify_vector(place, values, width)?;
        }
        let mut affine = Self { scale: Vec::with_capacity(width), shift: Vec::with_capacity(width) };
        for (((gamma, beta), mean), variance) in gamma.iter().zip(beta).zip(mean).zip(variance) {
            let spread = f64::from(*variance) + epsilon;
            if spread.is_nan() || spread <= 0.0 {
                return Err(DenseError::NotFinite {
                    place: "batch normalisation variance + epsilon".to_owned(),
                });
            }
            let scale = f64::from(*gamma) / spread.sqrt();
            affine.scale.push(scale as f32);
            affine.shift.push((f64::from(*beta) - f64::from(*mean) * scale) as f32);
        }
        Ok(affine)
    }
}

impl Layer {
    /// Number of stored numbers.
    pub(crate) fn parameters(&self) -> usize {
        match self {
            Self::Dense(dense) => dense.kernel.len() + dense.bias.len(),
            Self::Affine(affine) => affine.scale.len() + affine.shift.len(),
            Self::Activation(_) => 0,
        }
    }

    /// Looks at one layer that receives rows of `width`; returns the width that leaves it.
    pub(crate) fn verify(&self, index: usize, width: usize) -> Result<usize, DenseError> {
        match self {
            Self::Dense(dense) => dense.verify(index, width),
            Self::Affine(affine) => {
                verify_vector(&format!("layer {index}, scale"), &affine.scale, width)?;
                verify_vector(&format!("layer {index}, shift"), &affine.shift, width)?;
                Ok(width)
            }
            Self::Activation(activation) if activation.is_finite() => Ok(width),
            Self::Activation(_) => Err(DenseError::NotFinite { place: format!("layer {index}, activation") }),
        }
    }
}

impl Dense {
    fn verify(&self, index: usize, width: usize) -> Result<usize, DenseError> {
        let place = format!("layer {index}, kernel");
        if self.outputs == 0 || self.outputs > MAX_WIDTH {
            return Err(DenseError::TooLarge { what: "width of a layer", got: self.outputs, cap: MAX_WIDTH });
        }
        let elements =
            self.inputs.checked_mul(self.outputs).filter(|elements| *elements <= MAX_KERNEL_ELEMENTS);
        if self.inputs != width || elements != Some(self.kernel.len()) {
            let got = vec![self.inputs, self.outputs];
            return Err(DenseError::Shape { place, got, want: vec![width, self.outputs] });
        }
        match &self.kernel {
            Kernel::F32(values) => verify_vector(&place, values, values.len())?,
            Kernel::Int8 { values, scales } => {
                verify_vector(&format!("layer {index}, scales"), scales, self.outputs)?;
                if values.contains(&i8::MIN) || scales.iter().any(|scale| *scale < 0.0) {
                    return Err(DenseError::NotFinite { place });
                }
            }
        }
        verify_vector(&format!("layer {index}, bias"), &self.bias, self.outputs)?;
        Ok(self.outputs)
    }
}

/// Merges affine layers into the f32 dense layer before them, else into the one after them.
pub(crate) fn fold(layers: &[Layer]) -> Vec<Layer> {
    let mut folded: Vec<Layer> = Vec::with_capacity(layers.len());
    for layer in layers {
        match (folded.last_mut(), layer) {
            (_, Layer::Activation(Activation::Linear)) => {}
            (Some(Layer::Dense(dense)), Layer::Affine(affine)) if matches!(dense.kernel, Kernel::F32(_)) => {
                scale_outputs(dense, affine);
            }
            (Some(Layer::Affine(_)), Layer::Dense(dense)) if matches!(dense.kernel, Kernel::F32(_)) => {
                let mut dense = dense.clone();
                if let Some(Layer::Affine(affine)) = folded.pop() {
                    scale_inputs(&mut dense, &affine);
                }
                folded.push(Layer::Dense(dense));
            }
            (Some(Layer::Affine(first)), Layer::Affine(second)) => compose(first, second),
            _ => folded.push(layer.clone()),
        }
    }
    folded
}

/// `(x W + b) * scale + shift`.
#[expect(clippy::cast_possible_truncation, reason = "rounding f64 to f32 is the purpose")]
fn scale_outputs(dense: &mut Dense, affine: &Affine) {
    if let Kernel::F32(values) = &mut dense.kernel {
        for row in values.chunks_mut(affine.scale.len().max(1)) {
            for (weight, scale) in row.iter_mut().zip(&affine.scale) {
                *weight = (f64::from(*weight) * f64::from(*scale)) as f32;
            }
        }
    }
    for ((bias, scale), shift) in dense.bias.iter_mut().zip(&affine.scale).zip(&affine.shift) {
        *bias = (f64::from(*bias) * f64::from(*scale) + f64::from(*shift)) as f32;
    }
}

/// `(x * scale + shift) W + b`.
#[expect(clippy::cast_possible_truncation, reason = "rounding f64 to f32 is the purpose")]
fn scale_inputs(dense: &mut Dense, affine: &Affine) {
    let mut bias: Vec<f64> = dense.bias.iter().map(|bias| f64::from(*bias)).collect();
    if let Kernel::F32(values) = &mut dense.kernel {
        for (row, (scale, shift)) in
            values.chunks_mut(dense.outputs).zip(affine.scale.iter().zip(&affine.shift))
        {
            for (weight, bias) in row.iter_mut().zip(&mut bias) {
                *bias += f64::from(*shift) * f64::from(*weight);
                *weight = (f64::from(*weight) * f64::from(*scale)) as f32;
            }
        }
    }
    dense.bias = bias.into_iter().map(|bias| bias as f32).collect();
}

/// `first` becomes `second` after `first`.
#[expect(clippy::cast_possible_truncation, reason = "rounding f64 to f32 is the purpose")]
fn compose(first: &mut Affine, second: &Affine) {
    for (((scale, shift), by), plus) in
        first.scale.iter_mut().zip(&mut first.shift).zip(&second.scale).zip(&second.shift)
    {
        *shift = (f64::from(*shift) * f64::from(*by) + f64::from(*plus)) as f32;
        *scale = (f64::from(*scale) * f64::from(*by)) as f32;
    }
}
