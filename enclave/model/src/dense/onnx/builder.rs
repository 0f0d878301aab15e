//! Layers in the order the graph proves them, with consecutive affine steps merged in f64.

use crate::dense::tensors::narrow;
use crate::dense::{Activation, Affine, Dense, DenseError, DenseModel, Kernel, Layer};

/// Collects layers; knows the width of the row that leaves the last one.
#[derive(Debug, Default)]
pub(super) struct Builder {
    /// Features of the model; unknown until the graph's input or the first matrix tells.
    inputs: Option<usize>,
    /// Width of the current row.
    pub(super) width: Option<usize>,
    layers: Vec<Layer>,
    /// `x * scale + shift`, not yet a layer, so that steps that follow can be merged without rounding.
    pending: Option<(Vec<f64>, Vec<f64>)>,
}

impl Builder {
    pub(super) fn new(inputs: Option<usize>) -> Self {
        Self { inputs, width: inputs, ..Self::default() }
    }

    /// Number of layers so far; identifies the row that leaves them.
    pub(super) fn row(&self) -> usize {
        self.layers.len()
    }

    /// Sets the width where it is not known yet; returns whether it is `width`.
    pub(super) fn learn_width(&mut self, width: usize) -> bool {
        if self.width.is_none() {
            self.inputs = Some(width);
            self.width = Some(width);
        }
        self.width == Some(width)
    }

    /// Appends `x * scale + shift`, both of the current width.
    pub(super) fn affine(&mut self, scale: &[f64], shift: &[f64]) {
        let (scales, shifts) =
            self.pending.get_or_insert_with(|| (vec![1.0; scale.len()], vec![0.0; shift.len()]));
        for (((total_scale, total_shift), scale), shift) in
            scales.iter_mut().zip(shifts).zip(scale).zip(shift)
        {
            *total_scale *= scale;
            *total_shift = *total_shift * scale + shift;
        }
    }

    fn flush(&mut self) {
        let Some((scale, shift)) = self.pending.take() else { return };
        let shift = shift.into_iter().map(narrow);
        // Adding a vector after a matrix product is that layer's bias.
        if scale.iter().all(|scale| *scale == 1.0)
            && let Some(Layer::Dense(dense)) = self.layers.last_mut()
            && dense.bias.iter().all(|bias| *bias == 0.0)
        {
            dense.bias = shift.collect();
            return;
        }
        let scale = scale.into_iter().map(narrow).collect();
        self.layers.push(Layer::Affine(Affine { scale, shift: shift.collect() }));
    }

    pub(super) fn activation(&mut self, function: Activation) {
        self.flush();
        if function != Activation::Linear {
            self.layers.push(Layer::Activation(function));
        }
    }

    /// Appends `x W`; the bias follows as an affine step.
    pub(super) fn dense(&mut self, inputs: usize, outputs: usize, kernel: impl Iterator<Item = f64>) {
        self.flush();
        let kernel = Kernel::F32(kernel.map(narrow).collect());
        self.layers.push(Layer::Dense(Dense { inputs, outputs, kernel, bias: vec![0.0; outputs] }));
        self.width = Some(outputs);
    }

    pub(super) fn finish(mut self) -> Result<DenseModel, DenseError> {
        self.flush();
        DenseModel::new(self.inputs.unwrap_or(0), self.layers)
    }
}
