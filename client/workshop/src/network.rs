//! A network that learns: forward, loss, backward. Generic over f32, which it trains in, and f64, in which its gradients
//! are checked.

use adyton_model::dense::{Activation, Loss};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView2, Axis, NdFloat, Zip};

use crate::random::Random;

/// One dense layer: kernel `[in, out]` and bias `[out]`; also the shape of its gradients and of an optimiser's memory.
#[derive(Debug, Clone)]
pub(crate) struct Dense<T> {
    pub(crate) kernel: Array2<T>,
    pub(crate) bias: Array1<T>,
}

/// Dense layers with one hidden activation; what the last one's sums mean is told by the loss.
#[derive(Debug, Clone)]
pub(crate) struct Network<T> {
    pub(crate) layers: Vec<Dense<T>>,
    pub(crate) hidden: Activation,
    pub(crate) loss: Loss,
}

/// What is added to the loss for each weight: `l1 |w| + l2 w^2`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Penalties {
    pub(crate) l1: f64,
    pub(crate) l2: f64,
}

/// What a forward pass leaves for the backward pass.
pub(crate) struct Trace<T> {
    /// Input of each layer, `[rows, in]`.
    inputs: Vec<Array2<T>>,
    /// Sums of each hidden layer before its activation, `[rows, out]`.
    sums: Vec<Array2<T>>,
    /// What each hidden unit was multiplied with, if dropout was on.
    masks: Vec<Option<Array2<T>>>,
    /// Sums of the last layer.
    pub(crate) outputs: Array2<T>,
}

/// `T` of a constant.
fn constant<T: NdFloat>(value: f64) -> T {
    T::from(value).expect("f32 and f64 hold every constant used here")
}

fn product<T: NdFloat>(a: &ArrayView2<'_, T>, b: &ArrayView2<'_, T>) -> Array2<T> {
    let mut out = Array2::zeros((a.nrows(), b.ncols()));
    general_mat_mul(T::one(), a, b, T::zero(), &mut out);
    out
}

impl<T: NdFloat> Network<T> {
    /// Draws kernels uniformly within `sqrt(6 / (in + out))` (Glorot and Bengio); biases are zero.
    #[allow(clippy::cast_precision_loss, reason = "widths are far below 2^52")]
    pub(crate) fn draw(widths: &[usize], hidden: Activation, loss: Loss, random: &mut Random) -> Self {
        let layers = widths.windows(2).map(|pair| {
            let limit = (6.0 / (pair[0] + pair[1]) as f64).sqrt();
            let kernel = Array2::from_shape_simple_fn((pair[0], pair[1]), || {
                constant((2.0 * random.uniform() - 1.0) * limit)
            });
            Dense { kernel, bias: Array1::zeros(pair[1]) }
        });
        Self { layers: layers.collect(), hidden, loss }
    }

    /// Computes the sums of the last layer; with `dropout` hidden units are left out at random.
    pub(crate) fn forward(
        &self,
        rows: &ArrayView2<'_, T>,
        mut dropout: Option<(&mut Random, f64)>,
    ) -> Trace<T> {
        let (mut inputs, mut sums, mut masks) = (Vec::new(), Vec::new(), Vec::new());
        let mut current = rows.to_owned();
        for (at, layer) in self.layers.iter().enumerate() {
            let mut z = product(&current.view(), &layer.kernel.view());
            z += &layer.bias;
            inputs.push(current);
            if at + 1 == self.layers.len() {
                return Trace { inputs, sums, masks, outputs: z };
            }
            let mut next = z.mapv(|x| value(self.hidden, x));
            let mask = dropout.as_mut().filter(|(_, rate)| *rate > 0.0).map(|(random, rate)| {
                let kept = constant(1.0 / (1.0 - *rate));
                let mask = Array2::from_shape_simple_fn(next.raw_dim(), || {
                    if random.uniform() < *rate { T::zero() } else { kept }
                });
                next *= &mask;
                mask
            });
            sums.push(z);
            masks.push(mask);
            current = next;
        }
        // A network has at least one layer, which returned above.
        Trace { inputs, sums, masks, outputs: current }
    }

    /// The mean loss of rows with these outputs, without penalties.
    pub(crate) fn loss(&self, outputs: &Array2<T>, targets: &[T]) -> T {
        let rows = outputs.rows().into_iter().zip(targets);
        let total = rows.map(|(row, target)| match self.loss {
            // log(1 + exp(-|z|)) + max(z, 0) - z y: never overflows.
            Loss::BinaryCrossEntropy => {
                let z = row[0];
                z.max(T::zero()) - z * *target + (-z.abs()).exp().ln_1p()
            }
            Loss::CategoricalCrossEntropy => {
                let most = row.fold(T::neg_infinity(), |most, z| most.max(*z));
                let sum = row.fold(T::zero(), |sum, z| sum + (*z - most).exp());
                sum.ln() + most - row[class(*target)]
            }
            Loss::SquaredError => (row[0] - *target) * (row[0] - *target),
        });
        total.fold(T::zero(), |sum, loss| sum + loss) / constant(targets.len().max(1) as f64)
    }

    /// Gradients of loss and penalties in all kernels and biases.
    pub(crate) fn backward(&self, trace: &Trace<T>, targets: &[T], penalties: &Penalties) -> Vec<Dense<T>> {
        let (l1, l2) = (constant::<T>(penalties.l1), constant::<T>(2.0 * penalties.l2));
        let mut delta = self.output_delta(&trace.outputs, targets);
        let mut gradients = Vec::with_capacity(self.layers.len());
        for (at, layer) in self.layers.iter().enumerate().rev() {
            let mut kernel = product(&trace.inputs[at].t(), &delta.view());
            if penalties.l1 > 0.0 || penalties.l2 > 0.0 {
                Zip::from(&mut kernel).and(&layer.kernel).for_each(|gradient, w| {
                    let sign = if *w == T::zero() { T::zero() } else { w.signum() };
                    *gradient += l1 * sign + l2 * *w;
                });
            }
            gradients.push(Dense { kernel, bias: delta.sum_axis(Axis(0)) });
            if let Some(before) = at.checked_sub(1) {
                let mut back = product(&delta.view(), &layer.kernel.t());
                if let Some(mask) = &trace.masks[before] {
                    back *= mask;
                }
                Zip::from(&mut back).and(&trace.sums[before]).for_each(|g, z| *g *= slope(self.hidden, *z));
                delta = back;
            }
        }
        gradients.reverse();
        gradients
    }

    /// Derivative of the mean loss in the last layer's sums, `[rows, out]`.
    fn output_delta(&self, outputs: &Array2<T>, targets: &[T]) -> Array2<T> {
        let share = constant::<T>(1.0 / targets.len().max(1) as f64);
        let mut delta = outputs.clone();
        for (mut row, target) in delta.rows_mut().into_iter().zip(targets) {
            match self.loss {
                Loss::BinaryCrossEntropy => row[0] = value(Activation::Sigmoid, row[0]) - *target,
                Loss::SquaredError => row[0] = constant::<T>(2.0) * (row[0] - *target),
                Loss::CategoricalCrossEntropy => {
                    let most = row.fold(T::neg_infinity(), |most, z| most.max(*z));
                    row.mapv_inplace(|z| (z - most).exp());
                    let sum = row.sum();
                    row.mapv_inplace(|e| e / sum);
                    let class = class(*target);
                    row[class] -= T::one();
                }
            }
            row.mapv_inplace(|g| g * share);
        }
        delta
    }
}

fn class<T: NdFloat>(target: T) -> usize {
    target.to_usize().unwrap_or(0)
}

/// Hidden activations that training knows.
pub(crate) const TRAINABLE: [&str; 9] =
    ["linear", "relu", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh"];

/// The value of an activation; what is not in [`TRAINABLE`] is refused before.
fn value<T: NdFloat>(activation: Activation, x: T) -> T {
    match activation {
        Activation::Linear => x,
        Activation::Relu => x.max(T::zero()),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => T::one() / (T::one() + (-x).exp()),
        // The others as inference computes them.
        other => constant(adyton_inference::dense::activation::unit(other, x.to_f64().unwrap_or(f64::NAN))),
    }
}

/// The derivative of an activation.
fn slope<T: NdFloat>(activation: Activation, x: T) -> T {
    let (zero, one) = (T::zero(), T::one());
    let sigmoid = |x: T| one / (one + (-x).exp());
    match activation {
        Activation::Relu if x > zero => one,
        Activation::Relu => zero,
        Activation::LeakyRelu { slope } if x <= zero => constant(f64::from(slope)),
        Activation::Elu { alpha } if x <= zero => constant::<T>(f64::from(alpha)) * x.exp(),
        Activation::Sigmoid => sigmoid(x) * (one - sigmoid(x)),
        Activation::Tanh => one - x.tanh() * x.tanh(),
        Activation::Silu => sigmoid(x) * (one + x * (one - sigmoid(x))),
        Activation::Gelu => {
            let x = x.to_f64().unwrap_or(f64::NAN);
            let cumulative =
                0.5 * (1.0 + adyton_inference::dense::math::erf(x * std::f64::consts::FRAC_1_SQRT_2));
            let density = (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
            constant(cumulative + x * density)
        }
        Activation::GeluTanh => {
            let x = x.to_f64().unwrap_or(f64::NAN);
            let root = (2.0 / std::f64::consts::PI).sqrt();
            let t = (root * (x + 0.044_715 * x * x * x)).tanh();
            constant(0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * root * (1.0 + 3.0 * 0.044_715 * x * x))
        }
        _ => one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn penalty(network: &Network<f64>, Penalties { l1, l2 }: &Penalties) -> f64 {
        let weights = network.layers.iter().flat_map(|layer| &layer.kernel);
        weights.map(|w| l1 * w.abs() + l2 * w * w).sum()
    }

    /// Compares every gradient with a central difference, in f64.
    fn check(hidden: Activation, loss: Loss, outputs: usize, penalties: &Penalties, dropout: f64) {
        let mut random = Random::new(11);
        let mut network = Network::<f64>::draw(&[5, 7, 4, outputs], hidden, loss, &mut random);
        for layer in &mut network.layers {
            layer.bias.mapv_inplace(|_| random.normal() * 0.1);
        }
        let rows = Array2::from_shape_simple_fn((6, 5), || random.normal());
        #[allow(clippy::cast_precision_loss, reason = "small")]
        let targets: Vec<f64> = (0..6)
            .map(|row| match loss {
                Loss::SquaredError => random.normal(),
                _ => (row % outputs.max(2)) as f64,
            })
            .collect();
        // The same seed leaves out the same units in every pass.
        let forward =
            |network: &Network<f64>| network.forward(&rows.view(), Some((&mut Random::new(5), dropout)));
        let total = |network: &Network<f64>| {
            network.loss(&forward(network).outputs, &targets) + penalty(network, penalties)
        };
        let gradients = network.backward(&forward(&network), &targets, penalties);
        let step = 1e-6;
        for (at, gradient) in gradients.iter().enumerate() {
            let values: Vec<f64> = gradient.kernel.iter().chain(&gradient.bias).copied().collect();
            for (index, got) in values.into_iter().enumerate() {
                let moved = |by: f64| {
                    let mut moved = network.clone();
                    let layer = &mut moved.layers[at];
                    let kernel_len = layer.kernel.len();
                    let parameter = if index < kernel_len {
                        layer.kernel.iter_mut().nth(index)
                    } else {
                        layer.bias.iter_mut().nth(index - kernel_len)
                    };
                    *parameter.unwrap() += by;
                    total(&moved)
                };
                let want = (moved(step) - moved(-step)) / (2.0 * step);
                let close = (got - want).abs() <= 1e-6 + 1e-5 * want.abs();
                assert!(
                    close,
                    "{hidden:?} {loss:?} layer {at} parameter {index}: {got}, difference says {want}"
                );
            }
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let losses =
            [(Loss::BinaryCrossEntropy, 1), (Loss::CategoricalCrossEntropy, 3), (Loss::SquaredError, 1)];
        let cases = [(0.0, 0.0, 0.0), (0.01, 0.02, 0.0), (0.0, 0.0, 0.3)];
        for name in TRAINABLE {
            let hidden = Activation::from_name(name).unwrap();
            for (loss, outputs) in losses {
                for (l1, l2, dropout) in cases {
                    check(hidden, loss, outputs, &Penalties { l1, l2 }, dropout);
                }
            }
        }
    }

    #[test]
    fn extreme_outputs_have_finite_losses() {
        let mut random = Random::new(1);
        for (loss, outputs) in [(Loss::BinaryCrossEntropy, 1), (Loss::CategoricalCrossEntropy, 3)] {
            let network = Network::<f32>::draw(&[2, outputs], Activation::Relu, loss, &mut random);
            let rows = Array2::from_elem((2, outputs), 1e4f32);
            assert!(network.loss(&rows, &[0.0, 1.0]).is_finite());
            assert!(network.output_delta(&rows, &[0.0, 1.0]).iter().all(|g| g.is_finite()));
        }
    }
}
