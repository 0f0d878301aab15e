//! From f32 to blocks.
//!
//! Q4_0 and Q8_0 follow the formats' usual rule; Q4_K and Q6_K look for the scales with the smallest squared error among
//! a few candidates, refined by least squares. The same input gives the same bytes everywhere: every step is plain
//! IEEE arithmetic in a fixed order.

use super::{TensorType, dequantize};
use crate::half::{f16_to_f32, f32_to_bf16, f32_to_f16};

/// A type nothing is quantised to here, or values that are no whole blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantizeError {
    /// There is no quantiser for the type.
    #[error("there is no quantiser for {0:?}; F32, F16, BF16, Q4_0, Q8_0, Q4_K and Q6_K are written")]
    Type(TensorType),
    /// The row does not divide into blocks.
    #[error("{len} values are no whole blocks of {kind:?}")]
    Length {
        /// The type.
        kind: TensorType,
        /// Values given.
        len: usize,
    },
    /// A value is NaN or infinite, or too large for the type's scale.
    #[error("a weight is NaN, infinite or too large")]
    NotFinite,
}

/// Encodes values as whole blocks of `kind`.
///
/// # Errors
/// [`QuantizeError`].
pub fn quantize(kind: TensorType, values: &[f32]) -> Result<Vec<u8>, QuantizeError> {
    let bytes = kind.row_bytes(values.len()).ok_or(QuantizeError::Length { kind, len: values.len() })?;
    if values.iter().any(|x| !x.is_finite()) {
        return Err(QuantizeError::NotFinite);
    }
    let mut out = Vec::with_capacity(bytes);
    for x in values.chunks_exact(kind.block_len()) {
        match kind {
            TensorType::F32 => out.extend_from_slice(&x[0].to_le_bytes()),
            TensorType::F16 => out.extend_from_slice(&f32_to_f16(x[0]).to_le_bytes()),
            TensorType::BF16 => out.extend_from_slice(&f32_to_bf16(x[0]).to_le_bytes()),
            TensorType::Q8_0 => q8_0(x, &mut out),
            TensorType::Q4_0 => q4_0(x, &mut out),
            TensorType::Q4_K => q4_k(x, &mut out),
            TensorType::Q6_K => q6_k(x, &mut out),
            other => return Err(QuantizeError::Type(other)),
        }
    }
    // A scale that became infinite in 16 bits would make the weights infinite.
    let mut back = vec![0.0; kind.block_len()];
    for block in out.chunks_exact(kind.block_bytes()) {
        dequantize(kind, block, &mut back);
        if back.iter().any(|x| !x.is_finite()) {
            return Err(QuantizeError::NotFinite);
        }
    }
    Ok(out)
}

/// Nearest integer within a range, ties to even.
#[expect(clippy::cast_possible_truncation, reason = "clamped to the range")]
fn nearest(x: f32, low: i16, high: i16) -> i16 {
    x.round_ties_even().clamp(f32::from(low), f32::from(high)) as i16
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "low byte of small integers")]
fn byte(x: i16) -> u8 {
    x as u8
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The value of largest magnitude, with its sign.
fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0f32, |best, x| if x.abs() > best.abs() { *x } else { best })
}

fn q8_0(x: &[f32], out: &mut Vec<u8>) {
    let scale = f32_to_f16(extreme(x).abs() / 127.0);
    out.extend_from_slice(&scale.to_le_bytes());
    let inverse = inverse(f16_to_f32(scale));
    out.extend(x.iter().map(|x| byte(nearest(x * inverse, -127, 127))));
}

/// The scale gives the extreme value the code 0, the end of the range with the larger magnitude.
fn q4_0(x: &[f32], out: &mut Vec<u8>) {
    let scale = f32_to_f16(extreme(x) / -8.0);
    out.extend_from_slice(&scale.to_le_bytes());
    let inverse = inverse(f16_to_f32(scale));
    let code = |x: f32| byte(nearest(x * inverse + 8.0, 0, 15));
    out.extend(x[..16].iter().zip(&x[16..]).map(|(low, high)| code(*low) | code(*high) << 4));
}

/// The scale `s` and minimum `m >= 0` for which `s * q - m` with codes 0..=15 is nearest to `x`.
fn scale_and_min(x: &[f32]) -> (f32, f32) {
    let low = x.iter().copied().fold(0f32, f32::min);
    let high = x.iter().copied().fold(f32::MIN, f32::max);
    if high <= low {
        return (0.0, -low);
    }
    let error = |scale: f32, min: f32| -> f64 {
        x.iter()
            .map(|x| {
                let q = nearest((x + min) * inverse(scale), 0, 15);
                f64::from(scale * f32::from(q) - min - x).powi(2)
            })
            .sum()
    };
    let mut best = ((high - low) / 15.0, -low);
    let mut least = error(best.0, best.1);
    for step in 0..=20i16 {
        // Ranges somewhat narrower and wider than the values' own, each moved to the least squares of its codes.
        let scale = (high - low) / (14.0 + 0.1 * f32::from(step));
        let codes: Vec<f32> = x.iter().map(|x| f32::from(nearest((x - low) / scale, 0, 15))).collect();
        let (mut n, mut sq, mut sqq, mut sx, mut sqx) = (0f64, 0f64, 0f64, 0f64, 0f64);
        for (x, q) in x.iter().zip(&codes) {
            let (x, q) = (f64::from(*x), f64::from(*q));
            n += 1.0;
            sq += q;
            sqq += q * q;
            sx += x;
            sqx += q * x;
        }
        let determinant = n * sqq - sq * sq;
        if determinant <= 0.0 {
            continue;
        }
        let mut candidate = ((n * sqx - sq * sx) / determinant, (sq * sqx - sqq * sx) / determinant);
        if candidate.1 < 0.0 {
            candidate = (sqx / sqq, 0.0);
        }
        #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
        let candidate = (candidate.0 as f32, candidate.1 as f32);
        let e = error(candidate.0, candidate.1);
        if candidate.0 > 0.0 && e < least {
            (best, least) = (candidate, e);
        }
    }
    best
}

fn q4_k(x: &[f32], out: &mut Vec<u8>) {
    let parts: Vec<(f32, f32)> = x.chunks_exact(32).map(scale_and_min).collect();
    let largest = |pick: fn(&(f32, f32)) -> f32| parts.iter().map(pick).fold(0f32, f32::max);
    let (d, m) = (f32_to_f16(largest(|p| p.0) / 63.0), f32_to_f16(largest(|p| p.1) / 63.0));
    out.extend_from_slice(&d.to_le_bytes());
    out.extend_from_slice(&m.to_le_bytes());
    let (d, m) = (f16_to_f32(d), f16_to_f32(m));
    let factors: Vec<(u8, u8)> = parts
        .iter()
        .map(|(scale, min)| {
            (byte(nearest(scale * inverse(d), 0, 63)), byte(nearest(min * inverse(m), 0, 63)))
        })
        .collect();
    let mut packed = [0u8; 12];
    for j in 0..4 {
        let ((low, low_min), (high, high_min)) = (factors[j], factors[j + 4]);
        packed[j] = low | (high >> 4) << 6;
        packed[j + 4] = low_min | (high_min >> 4) << 6;
        packed[j + 8] = high & 15 | high_min << 4;
    }
    out.extend_from_slice(&packed);
    let codes: Vec<u8> = x
        .chunks_exact(32)
        .zip(&factors)
        .flat_map(|(x, (scale, min))| {
            let (scale, min) = (inverse(d * f32::from(*scale)), m * f32::from(*min));
            x.iter().map(move |x| byte(nearest((x + min) * scale, 0, 15)))
        })
        .collect();
    for codes in codes.chunks_exact(64) {
        out.extend(codes[..32].iter().zip(&codes[32..]).map(|(low, high)| low | high << 4));
    }
}

/// The scale for which `s * q` with codes -32..=31 is nearest to `x`.
fn symmetric_scale(x: &[f32]) -> f32 {
    let extreme = extreme(x);
    let mut best = 0.0;
    let mut least = f64::INFINITY;
    for step in -9..=9i16 {
        // The extreme value takes about the code -32.
        let first = extreme / (-32.0 + 0.1 * f32::from(step));
        let codes: Vec<f32> = x.iter().map(|x| f32::from(nearest(x * inverse(first), -32, 31))).collect();
        let product = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let squares = product(&codes, &codes);
        if squares == 0.0 {
            continue;
        }
        #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
        let scale = (product(&codes, x) / squares) as f32;
        let error: f64 = x.iter().zip(&codes).map(|(x, q)| f64::from(scale * q - x).powi(2)).sum();
        if error < least {
            (best, least) = (scale, error);
        }
    }
    best
}

fn q6_k(x: &[f32], out: &mut Vec<u8>) {
    let scales: Vec<f32> = x.chunks_exact(16).map(symmetric_scale).collect();
    let d = f32_to_f16(extreme(&scales) / -128.0);
    let step = f16_to_f32(d);
    let factors: Vec<i16> = scales.iter().map(|scale| nearest(scale * inverse(step), -128, 127)).collect();
    let codes: Vec<u8> = x
        .chunks_exact(16)
        .zip(&factors)
        .flat_map(|(x, factor)| {
            let inverse = inverse(step * f32::from(*factor));
            x.iter().map(move |x| byte(nearest(x * inverse, -32, 31) + 32))
        })
        .collect();
    let halves = || codes.chunks_exact(128);
    for half in halves() {
        // Elements 64 further share a byte's nibbles.
        out.extend((0..64).map(|i| half[i] & 15 | (half[i + 64] & 15) << 4));
    }
    for half in halves() {
        let bits = |i: usize| half[i] >> 4;
        out.extend((0..32).map(|i| bits(i) | bits(i + 32) << 2 | bits(i + 64) << 4 | bits(i + 96) << 6));
    }
    out.extend(factors.iter().map(|factor| byte(*factor)));
    out.extend_from_slice(&d.to_le_bytes());
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WRITTEN: [TensorType; 7] = [
        TensorType::F32,
        TensorType::F16,
        TensorType::BF16,
        TensorType::Q8_0,
        TensorType::Q4_0,
        TensorType::Q4_K,
        TensorType::Q6_K,
    ];

    /// About normally distributed.
    fn weights(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..n).map(|_| (0..6).map(|_| next()).sum::<f32>() * 0.05).collect()
    }

    /// Root mean square of the error relative to that of the values.
    fn error(kind: TensorType, x: &[f32]) -> f64 {
        let mut back = vec![0.0; x.len()];
        dequantize(kind, &quantize(kind, x).unwrap(), &mut back);
        let square = |x: f32| f64::from(x).powi(2);
        let wrong: f64 = x.iter().zip(&back).map(|(a, b)| square(a - b)).sum();
        (wrong / x.iter().map(|x| square(*x)).sum::<f64>()).sqrt()
    }

    #[test]
    fn errors_are_those_of_the_formats() {
        let x = weights(256 * 64, 3);
        let got = WRITTEN.map(|kind| error(kind, &x));
        let most = [0.0, 3e-4, 2.5e-3, 6e-3, 0.095, 0.075, 0.019];
        for ((kind, got), most) in WRITTEN.iter().zip(got).zip(most) {
            assert!(got <= most, "{kind:?}: {got}");
        }
    }

    #[test]
    fn what_the_format_can_say_exactly_is_kept() {
        for kind in WRITTEN {
            assert!(error(kind, &[1.0; 256]) < 1e-3, "{kind:?}");
            let zeros = quantize(kind, &[0.0; 256]).unwrap();
            let mut back = vec![1.0; 256];
            dequantize(kind, &zeros, &mut back);
            assert_eq!(back, [0.0; 256], "{kind:?}");
        }
    }

    #[test]
    fn refusals() {
        assert_eq!(quantize(TensorType::Q5_K, &[0.0; 256]), Err(QuantizeError::Type(TensorType::Q5_K)));
        let error = QuantizeError::Length { kind: TensorType::Q4_0, len: 31 };
        assert_eq!(quantize(TensorType::Q4_0, &[0.0; 31]), Err(error));
        for bad in [f32::NAN, f32::INFINITY, 1e30] {
            for kind in [TensorType::Q8_0, TensorType::Q4_0, TensorType::Q4_K, TensorType::Q6_K] {
                let mut x = [0.0; 256];
                x[77] = bad;
                assert_eq!(quantize(kind, &x), Err(QuantizeError::NotFinite), "{kind:?} {bad}");
            }
        }
    }

    proptest! {
        #[test]
        fn quantising_again_stays_near(seed in any::<u64>(), scale in -12i32..8) {
            let x: Vec<f32> = weights(256, seed).iter().map(|x| x * 2f32.powi(scale)).collect();
            for kind in WRITTEN {
                let first = quantize(kind, &x).unwrap();
                prop_assert_eq!(first.len(), kind.row_bytes(256).unwrap());
                // Small scales fall into the subnormals of 16 bits, where everything is coarser.
                if scale > -4 {
                    prop_assert!(error(kind, &x) < 0.13, "{:?}: {}", kind, error(kind, &x));
                }
            }
        }
    }
}
