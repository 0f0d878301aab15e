//! Elementary functions of our own: the same bits on every machine, unlike those of the C library.
//!
//! All work in f64 and are rounded to f32 by the caller, so that the f32 result is the nearest one or its neighbour.

use std::f64::consts::{LN_2, LOG2_E};

/// High part of ln 2: its low 21 bits are zero, so that `k * LN_2_HIGH` is exact for every exponent `k`.
pub(crate) const LN_2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
/// What is missing to ln 2.
pub(crate) const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// `exp(x)`; relative error below 1e-15 between -708 and 709, saturating to 0 and infinity outside. NaN stays NaN.
#[must_use]
pub fn exp(x: f64) -> f64 {
    if x > 709.0 {
        return f64::INFINITY;
    }
    if x < -708.0 {
        return 0.0;
    }
    // x = k ln 2 + r with |r| <= ln 2 / 2. Adding and subtracting 1.5 * 2^52 rounds to an integer.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let k = (x * LOG2_E + ROUND) - ROUND;
    let r = (x - k * LN_2_HIGH) - k * LN_2_LOW;
    // Taylor series; the first term left out is below 2^-52.
    let mut sum = 1.0;
    for divisor in (1..=13).rev() {
        sum = 1.0 + sum * r / f64::from(divisor);
    }
    sum * power_of_two(k)
}

/// `2^k` for an integer `k` in -1022..=1023.
#[expect(clippy::cast_possible_truncation, reason = "k is an integer within the exponents of f64")]
fn power_of_two(k: f64) -> f64 {
    f64::from_bits(((k as i64 + 1023).cast_unsigned()) << 52)
}

/// `exp(x) - 1` without cancellation near zero.
#[must_use]
pub fn exp_minus_one(x: f64) -> f64 {
    if x.abs() > 0.35 {
        return exp(x) - 1.0;
    }
    let mut sum = 1.0;
    for divisor in (2..=14).rev() {
        sum = 1.0 + sum * x / f64::from(divisor);
    }
    sum * x
}

/// Natural logarithm of `x > 0`, relative error below 1e-14; -infinity at zero, NaN below.
#[must_use]
pub fn ln(x: f64) -> f64 {
    if x <= 0.0 || !x.is_finite() {
        return if x == 0.0 {
            f64::NEG_INFINITY
        } else if x > 0.0 {
            x
        } else {
            f64::NAN
        };
    }
    // Subnormal numbers get a normal exponent first.
    let (x, shifted) = if x < f64::MIN_POSITIVE { (x * 2f64.powi(54), 54) } else { (x, 0) };
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52).cast_signed()) - 1023 - shifted;
    let mut mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1;
    }
    // ln m = 2 artanh(z), z = (m - 1) / (m + 1), |z| < 0.172.
    let z = (mantissa - 1.0) / (mantissa + 1.0);
    let mut sum = 0.0;
    for odd in (0..=10).rev() {
        sum = sum * z * z + 1.0 / f64::from(2 * odd + 1);
    }
    #[expect(clippy::cast_precision_loss, reason = "exponents are below 2100")]
    let exponent = exponent as f64;
    2.0 * z * sum + exponent * LN_2
}

/// `1 / (1 + exp(-x))`.
#[must_use]
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + exp(-x))
}

/// Hyperbolic tangent.
#[must_use]
pub fn tanh(x: f64) -> f64 {
    // 1 - tanh(20) is below 2^-53.
    let e = exp_minus_one(-2.0 * x.abs().min(20.0));
    if x.is_nan() { x } else { (-e / (e + 2.0)).copysign(x) }
}

/// `ln(1 + exp(x))`.
#[must_use]
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + ln(1.0 + exp(-x.abs()))
}

/// `erf(x) / x` as a polynomial in `x^2`, fitted for |x| < 1; error below 1e-12.
const ERF_SMALL: [f64; 9] = [
    1.128_379_167_094_695_2,
    -3.761_263_888_986_881e-1,
    1.128_379_131_349_414_3e-1,
    -2.686_613_362_527_02e-2,
    5.223_785_006_709_196e-3,
    -8.542_670_566_959_725e-4,
    1.195_694_688_188_556_6e-4,
    -1.391_170_184_680_556_5e-5,
    1.059_527_833_118_876_4e-6,
];

/// `erfc(x) exp(x^2)` as a polynomial in `1 / (1 + x / 2)`, fitted for 1 <= x <= 6; error of erf below 1e-12.
const ERF_LARGE: [f64; 10] = [
    9.386_577_581_871_336e-6,
    2.818_503_321_243_767_7e-1,
    2.849_319_790_680_654_4e-1,
    2.275_314_497_533_805e-1,
    2.613_220_249_808_585e-1,
    -1.680_789_696_468_011e-1,
    4.969_118_507_466_224e-1,
    -6.970_067_981_772_181e-1,
    3.979_795_528_931_839e-1,
    -8.547_878_813_399_214e-2,
];

/// Error function; absolute error below 1e-12.
#[must_use]
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a < 1.0 {
        return x * polynomial(&ERF_SMALL, x * x);
    }
    if a > 6.0 {
        return 1f64.copysign(x);
    }
    (1.0 - exp(-a * a) * polynomial(&ERF_LARGE, 1.0 / (1.0 + 0.5 * a))).copysign(x)
}

fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * x + coefficient)
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use super::*;

    fn grid(low: f64, high: f64) -> impl Iterator<Item = f64> {
        (0..=20_000).map(move |i| low + (high - low) * f64::from(i) / 20_000.0)
    }

    fn relative(got: f64, want: f64) -> f64 {
        (got - want).abs() / want.abs().max(f64::MIN_POSITIVE)
    }

    #[test]
    fn agree_with_the_standard_library() {
        for x in grid(-700.0, 700.0).chain(grid(-2.0, 2.0)) {
            assert!(relative(exp(x), x.exp()) < 2e-15, "exp {x}");
            assert!((tanh(x) - x.tanh()).abs() < 2e-15, "tanh {x}");
            assert!(relative(sigmoid(x), 1.0 / (1.0 + (-x).exp())) < 1e-14, "sigmoid {x}");
        }
        for x in grid(-3.0, 3.0).filter(|x| *x != 0.0) {
            assert!(relative(exp_minus_one(x), x.exp_m1()) < 1e-14, "exp_m1 {x}");
            assert!(relative(tanh(x), x.tanh()) < 1e-14, "tanh {x}");
        }
        for x in grid(1e-6, 3.0).chain(grid(1.0, 1e9)).chain([f64::MIN_POSITIVE / 64.0, f64::MAX]) {
            assert!((ln(x) - x.ln()).abs() <= 1e-14 * x.ln().abs() + 1e-15, "ln {x}");
        }
    }

    #[test]
    fn erf_matches_its_series() {
        // erf x = 2 / sqrt(pi) exp(-x^2) sum_n 2^n x^(2n+1) / (2n+1)!!, all terms of one sign.
        for x in grid(-5.0, 5.0).step_by(37) {
            let (mut term, mut sum) = (x, x);
            for n in 1..200 {
                term *= 2.0 * x * x / f64::from(2 * n + 1);
                sum += term;
            }
            let want = std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum;
            assert!((erf(x) - want).abs() < 2e-12, "erf {x}");
        }
    }

    #[test]
    fn limits_and_nan() {
        assert_eq!((exp(1e9), exp(-1e9), exp(0.0)), (f64::INFINITY, 0.0, 1.0));
        assert_eq!((tanh(1e9), tanh(-1e9), erf(9.0), erf(-9.0)), (1.0, -1.0, 1.0, -1.0));
        assert_eq!((softplus(1e4), softplus(-1e4)), (1e4, 0.0));
        for function in [exp, exp_minus_one, sigmoid, tanh, erf, ln] {
            assert!(function(f64::NAN).is_nan());
        }
    }
}
