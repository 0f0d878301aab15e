//! What the kernels compute, in plain Rust. The other paths give the same bits.
//!
//! Row by row, column by column, block by block in order: an exact integer dot product, converted to f32, times the
//! activations' step; then one fused multiply-add with the weights' scale and one with the minimum. In the long layouts
//! the integer sum is over 256 columns and takes the integer factors of their sub-blocks with it. Float formats: one fused
//! multiply-add for each element, in order.

use super::LANES;
use super::activations::{BLOCK_WORDS, CODES, LONG_CODES, LONG_WORDS, STEP_SUM};
use super::packed::{Layout, factors, float, sub_block};

/// `out[column][lane] += group[lane] . x[column]` for an integer layout.
pub(super) fn integers(layout: Layout, group: &[u8], x: &[u32], columns: usize, out: &mut [[f32; LANES]]) {
    if layout.is_long() {
        return long(layout, group, x, columns, out);
    }
    let blocks = x.len() / (BLOCK_WORDS * columns);
    for (lane, index) in (0..LANES).flat_map(|lane| (0..blocks).map(move |index| (lane, index))) {
        let sub = sub_block(layout, group, index, lane);
        let block = &x[index * BLOCK_WORDS * columns..][..BLOCK_WORDS * columns];
        for (column, out) in out.iter_mut().enumerate().take(columns) {
            let step = f32::from_bits(block[column]);
            let step_sum = f32::from_bits(block[STEP_SUM * columns + column]);
            let code = |i: usize| {
                let word = block[(CODES + i / 4) * columns + column];
                i32::from(word.to_le_bytes()[i % 4].cast_signed())
            };
            let dot: i32 = (0..32).map(|i| i32::from(sub.codes[i]) * code(i)).sum();
            #[expect(clippy::cast_precision_loss, reason = "rounds the same way everywhere")]
            let scaled = dot as f32 * step;
            out[lane] = scaled.mul_add(sub.scale, out[lane]);
            if layout == Layout::Affine {
                out[lane] = (-sub.min).mul_add(step_sum, out[lane]);
            }
        }
    }
}

/// [`integers`] for the layouts that sum 256 columns.
fn long(layout: Layout, group: &[u8], x: &[u32], columns: usize, out: &mut [[f32; LANES]]) {
    let sub_len = layout.sub_len();
    for (index, block) in x.chunks_exact(LONG_WORDS * columns).enumerate() {
        for lane in 0..LANES {
            let factors = factors(layout, group, index, lane);
            let subs: Vec<_> = (0..256 / sub_len)
                .map(|part| sub_block(layout, group, index * 256 / sub_len + part, lane))
                .collect();
            for (column, out) in out.iter_mut().enumerate().take(columns) {
                let step = f32::from_bits(block[column]);
                let code = |i: usize| {
                    let word = block[(LONG_CODES + i / 4) * columns + column];
                    i32::from(word.to_le_bytes()[i % 4].cast_signed())
                };
                let (mut dot, mut min) = (0i32, 0i32);
                for (part, sub) in subs.iter().enumerate() {
                    let products = (0..sub_len).map(|i| i32::from(sub.codes[i]) * code(part * sub_len + i));
                    dot += factors.scales[part] * products.sum::<i32>();
                }
                for (part, factor) in factors.mins.iter().enumerate() {
                    min += factor * (0..32).map(|i| code(part * 32 + i)).sum::<i32>();
                }
                #[expect(clippy::cast_precision_loss, reason = "rounds the same way everywhere")]
                let (dot, min) = (dot as f32 * step, min as f32 * step);
                out[lane] = dot.mul_add(factors.scale, out[lane]);
                if layout == Layout::Q4_K {
                    out[lane] = (-factors.min).mul_add(min, out[lane]);
                }
            }
        }
    }
}

/// `out[column][lane] += group[lane] . x[column]` for a float layout; `x` is `[element][column]`.
pub(super) fn floats(layout: Layout, group: &[u8], x: &[f32], columns: usize, out: &mut [[f32; LANES]]) {
    let element = layout.block_bytes() / LANES;
    for (block, x) in group.chunks_exact(layout.block_bytes()).zip(x.chunks_exact(columns)) {
        for (lane, bytes) in block.chunks_exact(element).enumerate() {
            let weight = float(layout, bytes);
            for (out, x) in out.iter_mut().zip(x) {
                out[lane] = weight.mul_add(*x, out[lane]);
            }
        }
    }
}

/// 16-bit floats as f32.
pub(super) fn widen(layout: Layout, bytes: &[u8], wide: &mut [u8]) {
    for (bytes, wide) in bytes.as_chunks::<2>().0.iter().zip(wide.as_chunks_mut::<4>().0) {
        *wide = float(layout, bytes).to_ne_bytes();
    }
}
