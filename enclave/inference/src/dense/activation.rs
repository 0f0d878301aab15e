//! Activation functions on rows, computed in f64 and rounded once.

use adyton_model::dense::Activation;

use super::math::{erf, exp, exp_minus_one, ln, sigmoid, softplus, tanh};

/// Fixed constants of self-normalising networks.
pub const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
/// Fixed constants of self-normalising networks.
pub const SELU_SCALE: f64 = 1.050_700_987_355_480_5;
/// `sqrt(2 / pi)`, of the tanh form of GELU.
pub const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;

/// Applies `activation` to rows of `width` units in place.
///
/// # Panics
/// If `width` is zero.
pub fn apply(activation: Activation, rows: &mut [f32], width: usize) {
    match activation {
        Activation::Linear => {}
        // The common ones stay in f32, where they are exact.
        Activation::Relu => rows.iter_mut().for_each(|x| *x = x.max(0.0)),
        Activation::Relu6 => rows.iter_mut().for_each(|x| *x = x.clamp(0.0, 6.0)),
        Activation::Softmax => rows.chunks_mut(width).for_each(|row| softmax(row, false)),
        Activation::LogSoftmax => rows.chunks_mut(width).for_each(|row| softmax(row, true)),
        function => rows.iter_mut().for_each(|x| *x = narrow(unit(function, f64::from(*x)))),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounding f64 to f32 is the purpose")]
fn narrow(x: f64) -> f32 {
    x as f32
}

/// The value of a function of one unit; softmax, which is none, is left as it is.
#[must_use]
pub fn unit(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::LeakyRelu { slope } => {
            if x > 0.0 {
                x
            } else {
                f64::from(slope) * x
            }
        }
        Activation::Elu { alpha } => {
            if x > 0.0 {
                x
            } else {
                f64::from(alpha) * exp_minus_one(x)
            }
        }
        Activation::Selu => SELU_SCALE * if x > 0.0 { x } else { SELU_ALPHA * exp_minus_one(x) },
        Activation::Gelu => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => 0.5 * x * (1.0 + tanh(SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x))),
        Activation::Silu => x * sigmoid(x),
        Activation::Mish => x * tanh(softplus(x)),
        Activation::Sigmoid => sigmoid(x),
        Activation::HardSigmoid { slope, offset } => {
            (f64::from(slope) * x + f64::from(offset)).clamp(0.0, 1.0)
        }
        Activation::Tanh => tanh(x),
        Activation::Softplus => softplus(x),
        Activation::Softsign => x / (1.0 + x.abs()),
        Activation::Exp => exp(x),
        Activation::Linear | Activation::Softmax | Activation::LogSoftmax => x,
    }
}

/// Softmax of one row, or its logarithm. The sum runs from left to right in f64.
fn softmax(row: &mut [f32], logarithm: bool) {
    let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = row.iter().map(|x| exp(f64::from(*x) - max)).sum();
    let log_sum = ln(sum);
    for x in row {
        let shifted = f64::from(*x) - max;
        *x = narrow(if logarithm { shifted - log_sum } else { exp(shifted) / sum });
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use super::*;

    fn close(activation: Activation, x: f32, want: f64) {
        let mut row = [x];
        apply(activation, &mut row, 1);
        assert!(
            (f64::from(row[0]) - want).abs() <= 1e-7 * want.abs().max(0.2),
            "{activation} at {x}: {} {want}",
            row[0]
        );
    }

    #[test]
    fn formulas_in_f64() {
        for i in -400..=400 {
            let x = i as f32 / 40.0;
            let y = f64::from(x);
            let negative = y.min(0.0).exp_m1();
            close(Activation::LeakyRelu { slope: 0.25 }, x, if x > 0.0 { y } else { 0.25 * y });
            close(Activation::Elu { alpha: 0.5 }, x, if x > 0.0 { y } else { 0.5 * negative });
            close(Activation::Selu, x, SELU_SCALE * if x > 0.0 { y } else { SELU_ALPHA * negative });
            close(
                Activation::GeluTanh,
                x,
                0.5 * y * (1.0 + (SQRT_2_OVER_PI * (y + 0.044715 * y.powi(3))).tanh()),
            );
            close(Activation::Silu, x, y / (1.0 + (-y).exp()));
            close(Activation::Mish, x, y * (y.exp().ln_1p()).tanh());
            close(Activation::Sigmoid, x, 1.0 / (1.0 + (-y).exp()));
            close(Activation::HARD_SIGMOID, x, ((y + 3.0).clamp(0.0, 6.0)) / 6.0);
            close(Activation::Tanh, x, y.tanh());
            close(Activation::Softplus, x, y.exp().ln_1p());
            close(Activation::Softsign, x, y / (1.0 + y.abs()));
            close(Activation::Exp, x, y.exp());
            close(Activation::Relu, x, y.max(0.0));
            close(Activation::Relu6, x, y.clamp(0.0, 6.0));
        }
        // Abramowitz and Stegun, table 7.1 gives erf(1 / sqrt 2) = 0.6826894921.
        close(Activation::Gelu, 1.0, 0.5 * 1.682_689_492_137_086);
        close(Activation::Gelu, -1.0, -0.5 * (1.0 - 0.682_689_492_137_086));
    }

    #[test]
    fn softmax_of_rows() {
        let mut rows = [1.0f32, 2.0, 3.0, 1000.0, 1000.0, -1000.0];
        apply(Activation::Softmax, &mut rows, 3);
        let sum = 1f64.exp() + 2f64.exp() + 3f64.exp();
        assert!((f64::from(rows[0]) - 1f64.exp() / sum).abs() < 1e-7);
        assert_eq!(rows[3..], [0.5, 0.5, 0.0]);
        let mut rows = [0.0f32, 0.0];
        apply(Activation::LogSoftmax, &mut rows, 2);
        assert!((f64::from(rows[1]) + std::f64::consts::LN_2).abs() < 1e-7);
    }
}
