//! Rotary position embedding.

use super::architecture::{Architecture, RopePairs, RopeScaling, narrow, yarn_attention};
use super::trigonometry::sin_cos;
use crate::dense::math::{exp, ln};

/// Frequencies of one rotation, radians for each position.
#[derive(Debug, Clone)]
pub(super) struct Rope {
    pairs: RopePairs,
    frequencies: Vec<f32>,
    /// Factor on sine and cosine.
    magnitude: f32,
}

#[expect(clippy::cast_precision_loss, reason = "dimensions and contexts are below 2^53")]
fn float(x: usize) -> f64 {
    x as f64
}

impl Rope {
    /// The rotation with `base`; `divisors` are those of `rope_freqs.weight` and its like.
    pub(super) fn new(a: &Architecture, base: f64, scaling: RopeScaling, divisors: Option<&[f32]>) -> Self {
        let dim = float(a.rope_dim);
        let mut frequencies: Vec<f64> =
            (0..a.rope_dim / 2).map(|i| exp(-ln(base) * 2.0 * float(i) / dim)).collect();
        let mut magnitude = 1.0;
        match scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => frequencies.iter_mut().for_each(|f| *f /= factor),
            RopeScaling::Long { attention, .. } => magnitude = attention,
            RopeScaling::Yarn { factor, original, attention, rotations: (fast, slow) } => {
                magnitude = attention * yarn_attention(factor);
                // The pair that turns `rotations` times within the context of training.
                let pair = |rotations: f64| {
                    dim * ln(float(original) / (rotations * std::f64::consts::TAU)) / (2.0 * ln(base))
                };
                let low = pair(fast).floor().max(0.0);
                let high = pair(slow).ceil().min(dim - 1.0).max(low + 0.001);
                for (i, f) in frequencies.iter_mut().enumerate() {
                    let divided = ((float(i) - low) / (high - low)).clamp(0.0, 1.0);
                    *f = *f / factor * divided + *f * (1.0 - divided);
                }
            }
        }
        let mut frequencies: Vec<f32> = frequencies.into_iter().map(narrow).collect();
        if let Some(divisors) = divisors {
            frequencies.iter_mut().zip(divisors).for_each(|(f, divisor)| *f /= divisor);
        }
        Self { pairs: a.rope_pairs, frequencies, magnitude: narrow(magnitude) }
    }

    /// Elements of [`Self::angles`].
    pub(super) fn len(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// Cosine and sine of every pair at a position. The angle is a product of two f32 as in the models' own code.
    #[expect(clippy::cast_precision_loss, reason = "positions are below 2^24")]
    pub(super) fn angles(&self, position: usize, out: &mut [f32]) {
        for (out, frequency) in out.chunks_exact_mut(2).zip(&self.frequencies) {
            let (sine, cosine) = sin_cos(f64::from(position as f32 * frequency));
            (out[0], out[1]) = (narrow(cosine) * self.magnitude, narrow(sine) * self.magnitude);
        }
    }

    /// Rotates the first elements of one head.
    pub(super) fn rotate(&self, head: &mut [f32], angles: &[f32]) {
        let turn = |x: f32, y: f32, angle: &[f32]| (x * angle[0] - y * angle[1], y * angle[0] + x * angle[1]);
        let angles = angles.chunks_exact(2);
        match self.pairs {
            RopePairs::Adjacent => {
                for (pair, angle) in head.chunks_exact_mut(2).zip(angles) {
                    (pair[0], pair[1]) = turn(pair[0], pair[1], angle);
                }
            }
            RopePairs::Halves => {
                let (first, second) = head.split_at_mut(self.frequencies.len());
                for ((x, y), angle) in first.iter_mut().zip(second).zip(angles) {
                    (*x, *y) = turn(*x, *y, angle);
                }
            }
        }
    }
}
