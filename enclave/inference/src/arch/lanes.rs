//! Functions on whole rows, written once in plain Rust and compiled once for each path.
//!
//! Sums run in 16 lanes: lane `i` adds elements `i, i + 16, i + 32, ...` in this order, then the lanes are added in a
//! fixed tree. `mul_add` is one rounding on every path. The compiler may vectorise, never reorder.

#![allow(clippy::needless_range_loop, reason = "the index is what the sums are about")]

use super::LANES;
use super::activations::{
    BLOCK_WORDS, CODES, LONG_CODES, LONG_SIXTEENS, LONG_THIRTIES, LONG_WORDS, STEP_SUM,
};
use super::path::{Kind, Path};
use super::screen::{Bounds, Lengths};
use crate::dense::math::{LN_2_HIGH, LN_2_LOW};

/// `exp(x)` within 2 units in the last place; 0 below -87.3, infinity above 88.7, NaN stays NaN.
#[inline(always)]
#[must_use]
pub fn exp(x: f32) -> f32 {
    /// Adding and subtracting 1.5 * 2^23 rounds to an integer, which the low bits then hold.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts; the first has 15 trailing zero bits.
    const LN_2_HIGH: f32 = 0.693_145_75;
    const LN_2_LOW: f32 = 1.428_606_8e-6;
    let clamped = x.clamp(-87.3, 88.7);
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let k = shifted - ROUND;
    let r = k.mul_add(-LN_2_LOW, k.mul_add(-LN_2_HIGH, clamped));
    // Taylor; the first term left out is below 2^-27 for |r| <= ln 2 / 2.
    let p = (1.0f32 / 5040.0).mul_add(r, 1.0 / 720.0);
    let p = p.mul_add(r, 1.0 / 120.0);
    let p = p.mul_add(r, 1.0 / 24.0);
    let p = p.mul_add(r, 1.0 / 6.0);
    let p = p.mul_add(r, 0.5);
    let p = p.mul_add(r, 1.0);
    let p = p.mul_add(r, 1.0);
    // k is from -126 to 128. Two factors, since 2^128 is no f32.
    let half = shifted.to_bits().wrapping_sub(ROUND.to_bits()).cast_signed() >> 1;
    let rest = shifted.to_bits().wrapping_sub(ROUND.to_bits()).cast_signed() - half;
    let power = |k: i32| f32::from_bits((k.wrapping_add(127) << 23).cast_unsigned());
    let y = p * power(half) * power(rest);
    if x < -87.3 {
        0.0
    } else if x > 88.7 {
        f32::INFINITY
    } else if x.is_nan() {
        x
    } else {
        y
    }
}

/// `exp(x - max)` for `x <= max` in f64, without the divisions of [`crate::dense::math::exp`], whose bits are settled; 1 if they are equal, 0 if `x` is no number or the result below 1e-304.
#[inline(always)]
fn exp_of_less(x: f32, max: f32) -> f64 {
    /// Adding and subtracting 1.5 * 2^52 rounds to an integer, which the low bits then hold.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let less = f64::from(x) - f64::from(max);
    let clamped = less.clamp(-700.0, 0.0);
    let shifted = clamped.mul_add(std::f64::consts::LOG2_E, ROUND);
    let k = shifted - ROUND;
    let r = k.mul_add(-LN_2_LOW, k.mul_add(-LN_2_HIGH, clamped));
    // Taylor; the first term left out is below 2^-52 for |r| <= ln 2 / 2.
    let mut p = 1.0 / 6_227_020_800.0;
    for inverse in [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = r.mul_add(p, inverse);
    }
    let y = p * f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    if x == max {
        1.0
    } else if less > -700.0 {
        y
    } else {
        // Also where it is no number.
        0.0
    }
}

/// `2 sqrt(2 / pi)`, of the tanh form of GELU.
const TWICE_ROOT_2_OVER_PI: f32 = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::SQRT_2;

/// Joins 16 lanes: 8 and 8, 4 and 4, 2 and 2, then the last two.
macro_rules! tree {
    ($lanes:expr, |$a:ident, $b:ident| $join:expr) => {{
        let mut lanes: [f32; LANES] = $lanes;
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                let ($a, $b) = (lanes[i], lanes[i + half]);
                lanes[i] = $join;
            }
            half /= 2;
        }
        lanes[0]
    }};
}

/// The sum of what `step` adds, for each element, to its lane. By chunks, not by index: else each element is added alone.
macro_rules! in_lanes {
    ($elements:expr, |$acc:ident, $x:ident| $step:expr) => {{
        let (chunks, rest) = $elements.as_chunks::<LANES>();
        let mut lanes = [0f32; LANES];
        for chunk in chunks {
            for lane in 0..LANES {
                let ($acc, $x) = (lanes[lane], chunk[lane]);
                lanes[lane] = $step;
            }
        }
        for lane in 0..rest.len() {
            let ($acc, $x) = (lanes[lane], rest[lane]);
            lanes[lane] = $step;
        }
        tree!(lanes, |a, b| a + b)
    }};
}

/// Makes a function of this name on [`Elementwise`] that runs `body` compiled for the path.
macro_rules! on_paths {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $kind:ty),*) $(-> $out:ty)? $body:block)*) => {
        mod body {
            #[allow(clippy::wildcard_imports, reason = "the functions of this file")]
            use super::*;
            $(
                #[inline(always)]
                pub(super) fn $name($($arg: $kind),*) $(-> $out)? $body
            )*
        }
        #[cfg(target_arch = "x86_64")]
        mod for_avx2 {
            use super::{Bounds, LANES, Lengths};
            $(
                #[target_feature(enable = "avx2,fma,f16c")]
                pub(super) fn $name($($arg: $kind),*) $(-> $out)? { super::body::$name($($arg),*) }
            )*
        }
        #[cfg(target_arch = "x86_64")]
        mod for_avx512 {
            use super::{Bounds, LANES, Lengths};
            $(
                #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
                pub(super) fn $name($($arg: $kind),*) $(-> $out)? { super::body::$name($($arg),*) }
            )*
        }
        impl Elementwise {
            $(
                $(#[$doc])*
                pub fn $name(self, $($arg: $kind),*) $(-> $out)? {
                    match self.0.kind() {
                        Kind::Scalar => body::$name($($arg),*),
                        // SAFETY: a path of this kind exists only on CPUs with these instructions.
                        #[cfg(target_arch = "x86_64")]
                        Kind::Avx2 => unsafe { for_avx2::$name($($arg),*) },
                        // SAFETY: as above.
                        #[cfg(target_arch = "x86_64")]
                        Kind::Avx512 => unsafe { for_avx512::$name($($arg),*) },
                    }
                }
            )*
        }
    };
}

/// Row functions of one path.
#[derive(Debug, Clone, Copy)]
pub struct Elementwise(Path);

impl Elementwise {
    /// Those of `path`.
    #[must_use]
    pub fn new(path: Path) -> Self {
        Self(path)
    }
}

on_paths! {
    /// `out[i] = x[i] / sqrt(mean(x^2) + epsilon) * weight[i]`.
    ///
    /// # Panics
    /// If lengths differ.
    fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        let n = x.len();
        assert!(weight.len() == n && out.len() == n, "rms_norm: lengths differ");
        let sum = in_lanes!(x, |acc, x| x.mul_add(x, acc));
        let scale = inverse_root(sum, n, epsilon);
        for i in 0..n {
            out[i] = x[i] * scale * weight[i];
        }
    }

    /// `out[i] = (x[i] - mean) / sqrt(variance + epsilon) * weight[i] + bias[i]`.
    ///
    /// # Panics
    /// If lengths differ.
    fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
        let n = x.len();
        assert!(weight.len() == n && bias.len() == n && out.len() == n, "layer_norm: lengths differ");
        let mean = in_lanes!(x, |acc, x| acc + x) / count(n);
        let sum = in_lanes!(x, |acc, x| (x - mean).mul_add(x - mean, acc));
        let scale = inverse_root(sum, n, epsilon);
        for i in 0..n {
            out[i] = ((x[i] - mean) * scale).mul_add(weight[i], bias[i]);
        }
    }

    /// `x[i] += y[i]`.
    ///
    /// # Panics
    /// If lengths differ.
    fn add(x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "add: lengths differ");
        for i in 0..x.len() {
            x[i] += y[i];
        }
    }

    /// `out[i] = x[i] + (y[i] + z[i])`.
    ///
    /// # Panics
    /// If lengths differ.
    fn sum(x: &[f32], y: &[f32], z: &[f32], out: &mut [f32]) {
        let n = out.len();
        assert!(x.len() == n && y.len() == n && z.len() == n, "sum: lengths differ");
        for i in 0..n {
            out[i] = x[i] + (y[i] + z[i]);
        }
    }

    /// `x[i] += scale * y[i]`.
    ///
    /// # Panics
    /// If lengths differ.
    fn add_scaled(x: &mut [f32], scale: f32, y: &[f32]) {
        assert_eq!(x.len(), y.len(), "add_scaled: lengths differ");
        for i in 0..x.len() {
            x[i] = scale.mul_add(y[i], x[i]);
        }
    }

    /// `gate[i] = silu(gate[i]) * up[i]`.
    ///
    /// # Panics
    /// If lengths differ.
    fn silu_gate(gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "silu_gate: lengths differ");
        for i in 0..gate.len() {
            gate[i] = gate[i] / (1.0 + exp(-gate[i])) * up[i];
        }
    }

    /// `gate[i] = gelu(gate[i]) * up[i]` with the tanh form of GELU: `x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))`.
    ///
    /// # Panics
    /// If lengths differ.
    fn gelu_gate(gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "gelu_gate: lengths differ");
        for i in 0..gate.len() {
            let x = gate[i];
            let inner = TWICE_ROOT_2_OVER_PI * (x * x * x).mul_add(0.044_715, x);
            gate[i] = x / (1.0 + exp(-inner)) * up[i];
        }
    }

    /// `x[i] = x[i] (1 + erf(x[i] / sqrt 2)) / 2`; erf within 2e-7 (Abramowitz and Stegun 7.1.26).
    fn gelu_exact(x: &mut [f32]) {
        for x in x {
            let a = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
            let t = 1.0 / 0.327_591_1f32.mul_add(a, 1.0);
            let p = 1.061_405_4f32.mul_add(t, -1.453_152);
            let p = p.mul_add(t, 1.421_413_7);
            let p = p.mul_add(t, -0.284_496_74);
            let p = p.mul_add(t, 0.254_829_6);
            let erf = (1.0 - p * t * exp(-a * a)).copysign(*x);
            *x = 0.5 * *x * (1.0 + erf);
        }
    }

    /// `x[i] = cap * tanh(x[i] / cap)`.
    fn soft_cap(x: &mut [f32], cap: f32) {
        for x in x {
            let e = exp(-2.0 * (*x / cap).abs());
            *x = ((1.0 - e) / (1.0 + e)).copysign(*x) * cap;
        }
    }

    /// `x[i] = exp(x[i] - max(x))`; returns the sum. Minus infinity becomes 0.
    fn exp_shifted(x: &mut [f32]) -> f32 {
        let max = maximum(x);
        // All masked: nothing to look at, and no NaN from infinity minus infinity.
        let max = if max == f32::NEG_INFINITY { 0.0 } else { max };
        for x in x.iter_mut() {
            *x = exp(*x - max);
        }
        in_lanes!(x, |acc, x| acc + x)
    }

    /// The largest number; minus infinity if there is none.
    fn largest_of(x: &[f32]) -> f32 {
        maximum(x)
    }

    /// The sum.
    fn total_of(x: &[f32]) -> f32 {
        in_lanes!(x, |acc, x| acc + x)
    }

    /// The sum of `exp(x[i] - max)` in f64, relative error below 1e-14; `max` is the largest, and counts as 1 even where it is
    /// infinite. What is no number counts as nothing.
    fn exp_total(x: &[f32], max: f32) -> f64 {
        let mut lanes = [0f64; LANES];
        let (chunks, rest) = x.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                lanes[lane] += exp_of_less(chunk[lane], max);
            }
        }
        for lane in 0..rest.len() {
            lanes[lane] += exp_of_less(rest[lane], max);
        }
        // In order: it is done once for a vocabulary.
        lanes.iter().sum()
    }

    /// `out[i] = exp((x[i] - max) / temperature)`.
    ///
    /// # Panics
    /// If lengths differ.
    fn weigh(x: &[f32], max: f32, temperature: f32, out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "weigh: lengths differ");
        for i in 0..x.len() {
            out[i] = exp((x[i] - max) / temperature);
        }
    }

    /// `x[i] *= factor`.
    fn scale(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }

    /// `out[i] = x[i] / divisor`.
    ///
    /// # Panics
    /// If lengths differ.
    fn divide(x: &[f32], divisor: f32, out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "divide: lengths differ");
        for i in 0..x.len() {
            out[i] = x[i] / divisor;
        }
    }

    /// Makes a block of `Layout::Q8` of `[32][16]` floats in native order of bytes. Adds the squares of what it lacks to
    /// `lost`, lane by lane, and its own to `kept`; where something is no number, these are none.
    ///
    /// # Panics
    /// If lengths do not fit.
    fn to_codes(x: &[u8], out: &mut [u8], lost: &mut [f32; LANES], kept: &mut [f32; LANES]) {
        let bytes: &[[u8; 4 * LANES]; 32] = x.as_chunks().0.try_into().expect("to_codes: a block");
        let (scales, out) = out.split_at_mut(2 * LANES);
        let words: &mut [[u8; 4 * LANES]; 8] = out.as_chunks_mut().0.try_into().expect("to_codes: a block");
        let mut x = [[0f32; LANES]; 32];
        let mut largest = [0f32; LANES];
        for i in 0..32 {
            let bytes = bytes[i].as_chunks::<4>().0;
            for lane in 0..LANES {
                let value = f32::from_ne_bytes(bytes[lane]);
                x[i][lane] = value;
                largest[lane] = if value.abs() > largest[lane] { value.abs() } else { largest[lane] };
            }
        }
        let (mut scale, mut inverse) = ([0f32; LANES], [0f32; LANES]);
        for lane in 0..LANES {
            let half = adyton_model::half::f32_to_f16(largest[lane] / 127.0);
            scale[lane] = adyton_model::half::f16_to_f32(half);
            inverse[lane] = if scale[lane] > 0.0 { 1.0 / scale[lane] } else { 0.0 };
            scales[2 * lane..2 * lane + 2].copy_from_slice(&half.to_le_bytes());
        }
        for i in 0..32 {
            let word = &mut words[i / 4];
            for lane in 0..LANES {
                // Rounds as in `quantize`; a scale that was rounded down leaves more than 127 of them.
                let rounded = (x[i][lane] * inverse[lane]).clamp(-127.0, 127.0) + 12_582_912.0;
                word[4 * lane + i % 4] = rounded.to_bits().to_le_bytes()[0] ^ 128;
                let value = (rounded - 12_582_912.0) * scale[lane];
                let less = x[i][lane] - value;
                lost[lane] = less.mul_add(less, lost[lane]);
                kept[lane] = value.mul_add(value, kept[lane]);
            }
        }
    }

    /// The largest of the least that products can be, 16 for each of `bounds`.
    ///
    /// # Panics
    /// If lengths do not fit.
    fn most_of_least(products: &[f32], bounds: &[Bounds], column: Lengths) -> f32 {
        assert_eq!(bounds.len(), products.len().div_ceil(LANES), "most_of_least: lengths do not fit");
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let (whole, rest) = products.as_chunks::<LANES>();
        let last = padded(rest);
        for (products, bounds) in whole.iter().chain([&last]).zip(bounds) {
            for lane in 0..LANES {
                let least = products[lane] - bounds.of(lane, column);
                lanes[lane] = if least > lanes[lane] { least } else { lanes[lane] };
            }
        }
        tree!(lanes, |a, b| if a > b { a } else { b })
    }

    /// Makes products that cannot be as large as `least` minus infinity; says of each 16 whether one can.
    ///
    /// # Panics
    /// If lengths do not fit.
    fn rule_out(products: &mut [f32], bounds: &[Bounds], column: Lengths, least: f32, open: &mut [bool]) {
        let groups = products.len().div_ceil(LANES);
        assert!(bounds.len() == groups && open.len() == groups, "rule_out: lengths do not fit");
        let (whole, rest) = products.as_chunks_mut::<LANES>();
        let mut last = padded(rest);
        for ((products, bounds), open) in whole.iter_mut().chain([&mut last]).zip(bounds).zip(open) {
            let mut most = f32::NEG_INFINITY;
            for lane in 0..LANES {
                let can = products[lane] + bounds.of(lane, column) >= least;
                products[lane] = if can { products[lane] } else { f32::NEG_INFINITY };
                most = if products[lane] > most { products[lane] } else { most };
            }
            *open = most > f32::NEG_INFINITY;
        }
        rest.copy_from_slice(&last[..rest.len()]);
    }

    /// `out[row][lane] = codes[row][lane] * steps[lane]`, rows of 16.
    ///
    /// # Panics
    /// If lengths do not fit.
    fn widen_by_lane(codes: &[i8], steps: &[f32], out: &mut [f32]) {
        assert!(codes.len() == out.len() && steps.len() == LANES, "widen_by_lane: lengths differ");
        for (codes, out) in codes.as_chunks::<LANES>().0.iter().zip(out.as_chunks_mut::<LANES>().0) {
            for lane in 0..LANES {
                out[lane] = f32::from(codes[lane]) * steps[lane];
            }
        }
    }

    /// `out[row][lane] = codes[row][lane] * steps[row]`, rows of 16.
    ///
    /// # Panics
    /// If lengths do not fit.
    fn widen_by_row(codes: &[i8], steps: &[f32], out: &mut [f32]) {
        assert!(codes.len() == out.len() && steps.len() * LANES == out.len(), "widen_by_row: lengths differ");
        let rows = codes.as_chunks::<LANES>().0.iter().zip(out.as_chunks_mut::<LANES>().0);
        for ((codes, out), step) in rows.zip(steps) {
            for lane in 0..LANES {
                out[lane] = f32::from(codes[lane]) * step;
            }
        }
    }

    /// Rounds to binary16.
    ///
    /// # Panics
    /// If lengths differ.
    fn to_f16(x: &[f32], out: &mut [u16]) {
        assert_eq!(x.len(), out.len(), "to_f16: lengths differ");
        for i in 0..x.len() {
            out[i] = adyton_model::half::f32_to_f16(x[i]);
        }
    }

    /// Quantises values to -127..=127; returns the step, 0 where all values are next to zero.
    ///
    /// # Panics
    /// If lengths differ.
    fn quantize(x: &[f32], codes: &mut [i8]) -> f32 {
        assert_eq!(x.len(), codes.len(), "quantize: lengths differ");
        let max = largest(x);
        // Below this 127 / max overflows.
        if max < 1e-30 {
            codes.fill(0);
            return 0.0;
        }
        let inverse = 127.0 / max;
        // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, and leaves it in the low bits.
        for i in 0..x.len() {
            let bits = (x[i] * inverse + 12_582_912.0).to_bits();
            codes[i] = bits.to_le_bytes()[0].cast_signed();
        }
        max / 127.0
    }

    /// Quantises 32 values at a time and writes the words of each block of a column, see [`BLOCK_WORDS`].
    ///
    /// # Panics
    /// If lengths do not fit.
    fn quantize_short(x: &[f32], words: &mut [u32]) {
        let (blocks, out) = (x.as_chunks::<32>().0, words.as_chunks_mut::<BLOCK_WORDS>().0);
        assert_eq!(blocks.len(), out.len(), "quantize_short: lengths differ");
        for (x, out) in blocks.iter().zip(out) {
            let mut codes = [0; 32];
            let step = quantize(x, &mut codes);
            let total = total(&codes);
            #[expect(clippy::cast_precision_loss, reason = "at most 32 * 128")]
            let weighted = step * total as f32;
            out[0] = step.to_bits();
            out[1] = (-8 * total).cast_unsigned();
            out[2] = (-128 * total).cast_unsigned();
            out[STEP_SUM] = weighted.to_bits();
            put_codes(&codes, &mut out[CODES..]);
        }
    }

    /// Quantises 256 values at a time and writes the words of each block of a column, see [`LONG_WORDS`].
    ///
    /// # Panics
    /// If lengths do not fit.
    fn quantize_long(x: &[f32], words: &mut [u32]) {
        let (blocks, out) = (x.as_chunks::<256>().0, words.as_chunks_mut::<LONG_WORDS>().0);
        assert_eq!(blocks.len(), out.len(), "quantize_long: lengths differ");
        for (x, out) in blocks.iter().zip(out) {
            let mut codes = [0; 256];
            out[0] = quantize(x, &mut codes).to_bits();
            let mut sums = [0; 16];
            for (sum, codes) in sums.iter_mut().zip(codes.as_chunks::<16>().0) {
                *sum = total(codes);
            }
            for i in 0..8 {
                out[LONG_SIXTEENS + i] = pair(sums[2 * i], sums[2 * i + 1]);
            }
            for i in 0..4 {
                out[LONG_THIRTIES + i] = pair(sums[4 * i] + sums[4 * i + 1], sums[4 * i + 2] + sums[4 * i + 3]);
            }
            put_codes(&codes, &mut out[LONG_CODES..]);
        }
    }
}

#[inline(always)]
fn total<const N: usize>(codes: &[i8; N]) -> i32 {
    let mut total = 0;
    for i in 0..N {
        total += i32::from(codes[i]);
    }
    total
}

/// Two sums of at most 32 codes as a word.
#[inline(always)]
fn pair(low: i32, high: i32) -> u32 {
    (low & 0xffff | high << 16).cast_unsigned()
}

#[inline(always)]
fn put_codes(codes: &[i8], words: &mut [u32]) {
    let quads = codes.as_chunks::<4>().0;
    for i in 0..quads.len() {
        let [a, b, c, d] = quads[i];
        words[i] =
            u32::from_le_bytes([a.cast_unsigned(), b.cast_unsigned(), c.cast_unsigned(), d.cast_unsigned()]);
    }
}

#[inline(always)]
fn maximum(x: &[f32]) -> f32 {
    // The largest value does not depend on the order.
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    let max = tree!(lanes, |a, b| if a > b { a } else { b });
    rest.iter().fold(max, |max, x| if *x > max { *x } else { max })
}

/// Up to 16 numbers, and minus infinity.
#[inline(always)]
fn padded(x: &[f32]) -> [f32; LANES] {
    let mut all = [f32::NEG_INFINITY; LANES];
    all[..x.len()].copy_from_slice(x);
    all
}

/// The largest absolute value; NaN is none.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            let x = chunk[i].abs();
            lanes[i] = if x > lanes[i] { x } else { lanes[i] };
        }
    }
    let max = tree!(lanes, |a, b| if a > b { a } else { b });
    rest.iter().fold(max, |max, x| if x.abs() > max { x.abs() } else { max })
}

#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "rows are shorter than 2^24")]
fn count(n: usize) -> f32 {
    n as f32
}

#[inline(always)]
fn inverse_root(sum: f32, n: usize, epsilon: f32) -> f32 {
    1.0 / (sum / count(n) + epsilon).sqrt()
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exp_is_close_to_the_real_one() {
        for i in -90_000..=90_000 {
            let x = i as f32 / 1000.0;
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            if x < -87.3 {
                assert_eq!(got, 0.0);
            } else if x > 88.7 {
                assert_eq!(got, f64::INFINITY);
            } else {
                assert!((got - want).abs() <= want * 2.4e-7, "{x}: {got} {want}");
            }
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        assert_eq!((exp(f32::INFINITY), exp(f32::NEG_INFINITY)), (f32::INFINITY, 0.0));
    }

    #[test]
    fn half_rounds_like_the_model_crate_on_every_path() {
        let x: Vec<f32> =
            (0..4096).map(|i| f32::from_bits(i * 0x000f_fff1)).filter(|x| !x.is_nan()).collect();
        for path in Path::available() {
            let mut out = vec![0; x.len()];
            Elementwise::new(path).to_f16(&x, &mut out);
            for (x, got) in x.iter().zip(&out) {
                assert_eq!(*got, adyton_model::half::f32_to_f16(*x));
            }
        }
    }

    fn every_function(path: Path, x: &[f32], y: &[f32]) -> Vec<u32> {
        let f = Elementwise::new(path);
        let mut all = Vec::new();
        let mut out = vec![0.0; x.len()];
        f.rms_norm(x, y, 1e-6, &mut out);
        all.extend_from_slice(&out);
        f.layer_norm(x, y, y, 1e-6, &mut out);
        all.extend_from_slice(&out);
        for apply in [Elementwise::add, Elementwise::silu_gate, Elementwise::gelu_gate] {
            out.copy_from_slice(x);
            apply(f, &mut out, y);
            all.extend_from_slice(&out);
        }
        out.copy_from_slice(x);
        f.add_scaled(&mut out, 0.3, y);
        f.sum(x, y, &out.clone(), &mut out);
        f.gelu_exact(&mut out);
        f.soft_cap(&mut out, 5.0);
        all.extend_from_slice(&out);
        all.push(f.exp_shifted(&mut out));
        f.scale(&mut out, 0.7);
        all.extend_from_slice(&out);
        let max = f.largest_of(x);
        f.weigh(x, max, 0.7, &mut out);
        all.extend_from_slice(&out);
        all.extend([max, f.total_of(y)]);
        let total = f.exp_total(x, max).to_bits();
        // Never NaN, so its bits are its own.
        all.extend([total >> 48, total >> 24 & 0xff_ffff, total & 0xff_ffff].map(|bits| bits as f32));
        for block in x.as_chunks::<32>().0 {
            let mut codes = [0; 32];
            all.push(f.quantize(block, &mut codes));
            all.extend(codes.map(f32::from));
        }
        let mut all: Vec<u32> = all.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect();
        let mut words = vec![0; x.len() / 32 * BLOCK_WORDS];
        f.quantize_short(x, &mut words);
        all.append(&mut words);
        let long: Vec<f32> = x.iter().cycle().take(if x.is_empty() { 0 } else { 512 }).copied().collect();
        words.resize(long.len() / 256 * LONG_WORDS, 0);
        f.quantize_long(&long, &mut words);
        all.append(&mut words);
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 200 }))]
        #[test]
        fn paths_agree_bit_for_bit(
            x in prop::collection::vec(prop_oneof![4 => -20f32..20.0, 1 => prop::num::f32::ANY], 0..100),
        ) {
            // Miri draws the payload of each NaN that is computed, and the code of a NaN is a part of it.
            let known = |x: f32| if cfg!(miri) && !x.is_finite() { 0.0 } else { x };
            let x: Vec<f32> = x.into_iter().map(known).collect();
            let y: Vec<f32> = x.iter().rev().copied().collect();
            let want = every_function(Path::Scalar, &x, &y);
            for path in Path::available() {
                prop_assert_eq!(&every_function(path, &x, &y), &want, "{}", path);
            }
        }
    }

    #[test]
    fn functions_against_f64() {
        let x: Vec<f32> = (0..100).map(|i| (i as f32 - 50.0) / 7.0).collect();
        let up = vec![1.0; 100];
        let f = Elementwise::new(Path::best());
        let mut got = x.clone();
        f.silu_gate(&mut got, &up);
        for (x, got) in x.iter().zip(&got) {
            let x = f64::from(*x);
            assert!((f64::from(*got) - x / (1.0 + (-x).exp())).abs() < 1e-6);
        }
        let mut got = x.clone();
        f.gelu_gate(&mut got, &up);
        for (x, got) in x.iter().zip(&got) {
            let x = f64::from(*x);
            let want = 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044715 * x.powi(3))).tanh());
            assert!((f64::from(*got) - want).abs() < 1e-6);
        }
        let mut got = x.clone();
        f.gelu_exact(&mut got);
        for (x, got) in x.iter().zip(&got) {
            let x = f64::from(*x);
            let want = 0.5 * x * (1.0 + crate::dense::math::erf(x / std::f64::consts::SQRT_2));
            assert!((f64::from(*got) - want).abs() < 1e-6, "{x}: {got} {want}");
        }
        let mut got = x.clone();
        f.soft_cap(&mut got, 3.0);
        for (x, got) in x.iter().zip(&got) {
            assert!((f64::from(*got) - 3.0 * (f64::from(*x) / 3.0).tanh()).abs() < 1e-6);
        }
        let got = f.exp_total(&x, 7.0);
        let want: f64 = x.iter().map(|x| (f64::from(*x) - 7.0).exp()).sum();
        assert!((got / want - 1.0).abs() < 1e-14, "{got} {want}");
        let odd = [f32::NAN, 3.0, f32::NEG_INFINITY, 2.0, -1e30];
        assert!((f.exp_total(&odd, 3.0) - (1.0 + (-1f64).exp())).abs() < 1e-15);
        assert_eq!(f.exp_total(&[f32::INFINITY, 5.0, f32::INFINITY], f32::INFINITY), 2.0);
        assert_eq!(f.largest_of(&odd), 3.0);
        let mut got = vec![f32::NEG_INFINITY; 3];
        assert_eq!(f.exp_shifted(&mut got), 0.0);
        f.layer_norm(&x, &up, &vec![0.0; 100], 0.0, &mut vec![0.0; 100]);
    }
}
