//! Int8 dense layers: weights quantised per output, activations per row as they come.
//!
//! `y[j] = (sum_i q[i] * w[i, j]) * row_scale * scale[j] + bias[j]`. The sum is exact in i32, so its order is free.

/// Largest magnitude of a quantised value; symmetric, so -128 never occurs.
const MAX: f32 = 127.0;

/// Quantises `row` to `-127..=127` in place of `quantized`; returns the scale that undoes it, 0 for a row of zeros.
#[expect(clippy::cast_possible_truncation, reason = "rounded and within -127..=127")]
pub(super) fn quantize_row(row: &[f32], quantized: &mut [i8]) -> f32 {
    let max = row.iter().fold(0f32, |max, x| max.max(x.abs()));
    let factor = if max > 0.0 { MAX / max } else { 0.0 };
    for (q, x) in quantized.iter_mut().zip(row) {
        // A tiny max makes the factor infinite; min and max bring the product back.
        *q = (x * factor).round().clamp(-MAX, MAX) as i8;
    }
    max / MAX
}

/// `sums[j] = sum_i row[i] * kernel[i, j]` with `kernel` `[row.len(), sums.len()]` row-major.
pub(super) fn multiply(row: &[i8], kernel: &[i8], sums: &mut [i32]) {
    sums.fill(0);
    let width = sums.len();
    let mut inputs = row.chunks_exact(2);
    let mut weights = kernel.chunks_exact(2 * width);
    for (pair, rows) in (&mut inputs).zip(&mut weights) {
        let (first, second) = rows.split_at(width);
        let (a, b) = (i16::from(pair[0]), i16::from(pair[1]));
        for ((sum, w), v) in sums.iter_mut().zip(first).zip(second) {
            // Two products of values within 127 fit into i16: 2 * 127 * 127 = 32258.
            *sum += i32::from(a * i16::from(*w) + b * i16::from(*v));
        }
    }
    if let [last] = inputs.remainder() {
        for (sum, w) in sums.iter_mut().zip(weights.remainder()) {
            *sum += i32::from(i16::from(*last) * i16::from(*w));
        }
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sums_are_exact(
            (row, kernel, width) in (1usize..20, 1usize..20).prop_flat_map(|(inputs, width)| (
                prop::collection::vec(-127i8..=127, inputs),
                prop::collection::vec(-127i8..=127, inputs * width),
                Just(width),
            )),
        ) {
            let mut sums = vec![7; width];
            multiply(&row, &kernel, &mut sums);
            for (j, sum) in sums.iter().enumerate() {
                let want: i32 =
                    row.iter().enumerate().map(|(i, q)| i32::from(*q) * i32::from(kernel[i * width + j])).sum();
                prop_assert_eq!(*sum, want);
            }
        }

        #[test]
        fn quantised_rows_are_within_half_a_step(row in prop::collection::vec(-1e3f32..1e3, 1..50)) {
            let mut quantized = vec![0; row.len()];
            let scale = quantize_row(&row, &mut quantized);
            for (x, q) in row.iter().zip(&quantized) {
                prop_assert!((x - f32::from(*q) * scale).abs() <= scale * 0.5001 + 1e-30);
            }
        }
    }

    #[test]
    fn extremes() {
        let mut sums = [0];
        multiply(&[127; 9], &[-127; 9], &mut sums);
        assert_eq!(sums, [-9 * 127 * 127]);
        let mut quantized = [1i8; 3];
        assert_eq!(quantize_row(&[0.0; 3], &mut quantized), 0.0);
        assert_eq!(quantized, [0; 3]);
        quantize_row(&[1e-45, -1e-45, 0.0], &mut quantized);
        assert!(quantized.iter().all(|q| *q != i8::MIN));
    }
}
