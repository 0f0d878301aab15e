//! A dense network ready to run.

use std::fmt;

use adyton_model::dense::{
    Activation, Affine, DenseError, DenseModel, Kernel, Layer, Preprocessing, Standardize,
};
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};

use super::{activation, int8};
use crate::arch::wipe;

/// Rows computed at once: enough to use the matrix kernel well, few enough to stay in cache and bound the scratch.
const CHUNK_ROWS: usize = 64;

/// A forward pass that cannot be made. Both are the caller's misuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The slice of inputs is not `[batch, inputs]`.
    #[error("{got} input values given, batch times inputs is {want}")]
    Inputs {
        /// Values given.
        got: usize,
        /// Values needed.
        want: usize,
    },
    /// The slice of outputs is not `[batch, outputs]`.
    #[error("room for {got} output values given, batch times outputs is {want}")]
    Outputs {
        /// Values given.
        got: usize,
        /// Values needed.
        want: usize,
    },
}

/// A row that is not made of usable numbers. The fault of whoever sent the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("row {row}, feature {feature} is {what}; send a finite number")]
pub struct RowError {
    /// Index of the row.
    pub row: usize,
    /// Index of the feature.
    pub feature: usize,
    /// "missing (NaN)" or "infinite".
    pub what: &'static str,
}

/// A dense network: weights laid out for the kernels, batch normalisation folded in. `Debug` tells its shape, never its
/// weights.
#[derive(Clone)]
pub struct Network {
    inputs: usize,
    outputs: usize,
    widest: usize,
    preprocessing: Option<Preprocessing>,
    layers: Vec<Layer>,
}

/// Working memory of a forward pass, reusable between calls and networks. Wiped on drop: it holds clients' data, which
/// `Debug` does not tell either.
#[derive(Default)]
pub struct Scratch {
    front: Vec<f32>,
    back: Vec<f32>,
    quantized: Vec<i8>,
    sums: Vec<i32>,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Network({} to {} in {} layers)", self.inputs, self.outputs, self.layers.len())
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scratch")
    }
}

impl Scratch {
    /// Overwrites what earlier passes left.
    pub fn wipe(&mut self) {
        wipe(&mut self.front);
        wipe(&mut self.back);
        wipe(&mut self.quantized);
        wipe(&mut self.sums);
    }

    fn reserve(&mut self, width: usize) {
        for buffer in [&mut self.front, &mut self.back] {
            buffer.resize(buffer.len().max(width * CHUNK_ROWS), 0.0);
        }
        self.quantized.resize(self.quantized.len().max(width), 0);
        self.sums.resize(self.sums.len().max(width), 0);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl Network {
    /// Makes a network of a model; batch normalisation is folded into the f32 matrices beside it.
    ///
    /// # Errors
    /// [`DenseError::NotFinite`] if a folded weight leaves the range of f32.
    pub fn new(model: &DenseModel) -> Result<Self, DenseError> {
        let folded = model.folded()?;
        let layers = folded.layers().to_vec();
        let outputs =
            layers.iter().map(|layer| if let Layer::Dense(dense) = layer { dense.outputs } else { 0 });
        let widest = outputs.fold(model.inputs(), usize::max);
        let preprocessing = model.preprocessing().cloned();
        Ok(Self { inputs: model.inputs(), outputs: model.outputs(), widest, preprocessing, layers })
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

    /// Refuses rows with NaN or infinity; NaN means "missing" and passes if the model imputes.
    ///
    /// # Errors
    /// [`RowError`] names the first such value.
    pub fn verify_rows(&self, inputs: &[f32]) -> Result<(), RowError> {
        let imputes = self.preprocessing.as_ref().is_some_and(|preprocessing| preprocessing.impute.is_some());
        let bad = |x: &f32| x.is_infinite() || (x.is_nan() && !imputes);
        match inputs.iter().position(bad) {
            None => Ok(()),
            Some(at) => Err(RowError {
                row: at / self.inputs,
                feature: at % self.inputs,
                what: if inputs.get(at).is_some_and(|x| x.is_nan()) { "missing (NaN)" } else { "infinite" },
            }),
        }
    }

    /// Computes `outputs` `[batch, outputs]` from `inputs` `[batch, inputs]`, both row-major.
    ///
    /// A row's outputs are bit for bit the same in any batch. NaN and infinity flow through; call
    /// [`Network::verify_rows`] first for rows from outside.
    ///
    /// # Errors
    /// [`ForwardError`] if a slice has the wrong length.
    pub fn forward(
        &self,
        inputs: &[f32],
        batch: usize,
        outputs: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<(), ForwardError> {
        let want = batch.saturating_mul(self.inputs);
        if inputs.len() != want {
            return Err(ForwardError::Inputs { got: inputs.len(), want });
        }
        let want = batch.saturating_mul(self.outputs);
        if outputs.len() != want {
            return Err(ForwardError::Outputs { got: outputs.len(), want });
        }
        scratch.reserve(self.widest);
        let chunks =
            inputs.chunks(CHUNK_ROWS * self.inputs).zip(outputs.chunks_mut(CHUNK_ROWS * self.outputs));
        for (inputs, outputs) in chunks {
            self.forward_chunk(inputs, outputs, scratch);
        }
        Ok(())
    }

    fn forward_chunk(&self, inputs: &[f32], outputs: &mut [f32], scratch: &mut Scratch) {
        let rows = inputs.len() / self.inputs;
        let Scratch { front, back, quantized, sums } = scratch;
        let mut width = self.inputs;
        front[..inputs.len()].copy_from_slice(inputs);
        if let Some(preprocessing) = &self.preprocessing {
            preprocess(preprocessing, &mut front[..inputs.len()]);
        }
        for layer in &self.layers {
            match layer {
                Layer::Dense(dense) => {
                    let x = &front[..rows * width];
                    let y = &mut back[..rows * dense.outputs];
                    match &dense.kernel {
                        Kernel::Int8 { values, scales } => {
                            let (quantized, sums) = (&mut quantized[..width], &mut sums[..dense.outputs]);
                            for (x, y) in x.chunks(width).zip(y.chunks_mut(dense.outputs)) {
                                let row_scale = int8::quantize_row(x, quantized);
                                int8::multiply(quantized, values, sums);
                                dequantize(y, sums, row_scale, scales, &dense.bias);
                            }
                        }
                        Kernel::F32(values) => {
                            dense_f32(x, [rows, width, dense.outputs], values, &dense.bias, y);
                        }
                    }
                    width = dense.outputs;
                    std::mem::swap(front, back);
                }
                Layer::Affine(affine) => apply_affine(affine, &mut front[..rows * width]),
                Layer::Activation(Activation::Linear) => {}
                Layer::Activation(function) => {
                    activation::apply(*function, &mut front[..rows * width], width);
                }
            }
        }
        outputs.copy_from_slice(&front[..outputs.len()]);
    }
}

/// `y = x W + b` for `rows` rows; `[rows, inputs] x [inputs, outputs]`.
///
/// The matrix kernel sums over inputs in one order that does not depend on the number of rows.
fn dense_f32(x: &[f32], [rows, inputs, outputs]: [usize; 3], kernel: &[f32], bias: &[f32], y: &mut [f32]) {
    y.chunks_mut(outputs).for_each(|row| row.copy_from_slice(bias));
    let x = ArrayView2::from_shape((rows, inputs), x);
    let kernel = ArrayView2::from_shape((inputs, outputs), kernel);
    let y = ArrayViewMut2::from_shape((rows, outputs), y);
    if let (Ok(x), Ok(kernel), Ok(mut y)) = (x, kernel, y) {
        general_mat_mul(1.0, &x, &kernel, 1.0, &mut y);
    }
}

fn preprocess(preprocessing: &Preprocessing, rows: &mut [f32]) {
    if let Some(impute) = &preprocessing.impute {
        for row in rows.chunks_mut(impute.len()) {
            row.iter_mut().zip(impute).filter(|(x, _)| x.is_nan()).for_each(|(x, value)| *x = *value);
        }
    }
    if let Some(Standardize { mean, scale }) = &preprocessing.standardize {
        for row in rows.chunks_mut(mean.len()) {
            row.iter_mut().zip(mean).zip(scale).for_each(|((x, mean), scale)| *x = (*x - mean) / scale);
        }
    }
}

fn apply_affine(affine: &Affine, rows: &mut [f32]) {
    for row in rows.chunks_mut(affine.scale.len()) {
        row.iter_mut()
            .zip(&affine.scale)
            .zip(&affine.shift)
            .for_each(|((x, scale), shift)| *x = *x * scale + shift);
    }
}

#[expect(clippy::cast_precision_loss, reason = "sums of int8 products, rounded like any f32 sum")]
fn dequantize(y: &mut [f32], sums: &[i32], row_scale: f32, scales: &[f32], bias: &[f32]) {
    for (((y, sum), scale), bias) in y.iter_mut().zip(sums).zip(scales).zip(bias) {
        *y = *sum as f32 * (row_scale * scale) + bias;
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use adyton_model::dense::Dense;
    use proptest::prelude::*;

    use super::*;

    fn noise(seed: u32, len: usize) -> Vec<f32> {
        let mut state = seed;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            })
            .collect()
    }

    fn network(widths: &[usize], int8: bool) -> Network {
        let mut layers = Vec::new();
        for (index, pair) in widths.windows(2).enumerate() {
            let len = pair[0] * pair[1];
            let values = noise(index as u32 + 1, len);
            let kernel = if int8 {
                let values = values.iter().map(|x| (x * 127.0) as i8).collect();
                Kernel::Int8 { values, scales: vec![0.01; pair[1]] }
            } else {
                Kernel::F32(values)
            };
            let bias = noise(99, pair[1]);
            layers.push(Layer::Dense(Dense { inputs: pair[0], outputs: pair[1], kernel, bias }));
            layers.push(Layer::Affine(Affine { scale: noise(5, pair[1]), shift: noise(6, pair[1]) }));
            layers.push(Layer::Activation(Activation::Gelu));
        }
        layers.push(Layer::Activation(Activation::Softmax));
        Network::new(&DenseModel::new(widths[0], layers).unwrap()).unwrap()
    }

    fn run(network: &Network, inputs: &[f32]) -> Vec<u32> {
        let batch = inputs.len() / network.inputs();
        let mut outputs = vec![0.0; batch * network.outputs()];
        network.forward(inputs, batch, &mut outputs, &mut Scratch::default()).unwrap();
        outputs.iter().map(|x| x.to_bits()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_row_does_not_depend_on_its_batch(
            widths in prop::collection::vec(1usize..300, 2..4),
            batch in 1usize..150,
            int8: bool,
        ) {
            let network = network(&widths, int8);
            let inputs = noise(7, batch * widths[0]);
            let together = run(&network, &inputs);
            let alone: Vec<u32> = inputs.chunks(widths[0]).flat_map(|row| run(&network, row)).collect();
            prop_assert_eq!(together, alone);
        }
    }

    #[test]
    fn matches_a_plain_loop_in_f64() {
        let widths = [13, 600, 3];
        let network = network(&widths, false);
        let row = noise(3, 13);
        let mut x: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
        for (index, pair) in widths.windows(2).enumerate() {
            let (kernel, bias) = (noise(index as u32 + 1, pair[0] * pair[1]), noise(99, pair[1]));
            let (scale, shift) = (noise(5, pair[1]), noise(6, pair[1]));
            x = (0..pair[1])
                .map(|j| {
                    let sum: f64 = (0..pair[0]).map(|i| x[i] * f64::from(kernel[i * pair[1] + j])).sum();
                    let sum = (sum + f64::from(bias[j])) * f64::from(scale[j]) + f64::from(shift[j]);
                    activation::unit(Activation::Gelu, sum)
                })
                .collect();
        }
        let total: f64 = x.iter().map(|x| x.exp()).sum();
        for (got, want) in run(&network, &row).iter().zip(&x) {
            assert!((f64::from(f32::from_bits(*got)) - want.exp() / total).abs() < 1e-5);
        }
    }

    #[test]
    fn rows_that_are_not_numbers_are_refused() {
        let layer = Dense { inputs: 2, outputs: 1, kernel: Kernel::F32(vec![1.0, 1.0]), bias: vec![0.0] };
        let model = DenseModel::new(2, vec![Layer::Dense(layer)]).unwrap();
        let network = Network::new(&model).unwrap();
        assert!(network.verify_rows(&[1.0, 2.0]).is_ok());
        let error = network.verify_rows(&[1.0, 2.0, 3.0, f32::NAN]).unwrap_err();
        assert_eq!((error.row, error.feature), (1, 1));
        assert!(network.verify_rows(&[f32::NEG_INFINITY, 0.0]).is_err());
        let impute = Preprocessing { impute: Some(vec![5.0, 7.0]), standardize: None };
        let imputing = Network::new(&model.with_preprocessing(impute).unwrap()).unwrap();
        assert!(imputing.verify_rows(&[f32::NAN, 0.0]).is_ok());
        assert!(imputing.verify_rows(&[f32::INFINITY, 0.0]).is_err());
        assert_eq!(run(&imputing, &[f32::NAN, 1.0]), [6f32.to_bits()]);
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let network = network(&[3, 2], false);
        let mut scratch = Scratch::default();
        let result = network.forward(&[0.0; 5], 2, &mut [0.0; 4], &mut scratch);
        assert_eq!(result, Err(ForwardError::Inputs { got: 5, want: 6 }));
        let result = network.forward(&[0.0; 6], 2, &mut [0.0; 3], &mut scratch);
        assert_eq!(result, Err(ForwardError::Outputs { got: 3, want: 4 }));
        assert!(network.forward(&[], usize::MAX, &mut [], &mut scratch).is_err());
        assert_eq!(network.forward(&[], 0, &mut [], &mut scratch), Ok(()));
    }
}
