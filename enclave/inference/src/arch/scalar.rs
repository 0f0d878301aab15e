//! What the kernels compute, in plain Rust. The other paths give the same bits.
//!
//! Row by row, column by column, sub-block by sub-block in order: an exact integer dot product, converted to f32, times
//! the activations' step; then one fused multiply-add with the weights' scale and one with the minimum. Float formats:
//! one fused multiply-add for each element, in order.

use super::LANES;
use super::activations::BLOCK_WORDS;
use super::packed::{Layout, float, sub_block};

/// `out[column][lane] += group[lane] . x[column]` for an integer layout.
pub(super) fn integers(layout: Layout, group: &[u8], x: &[u32], columns: usize, out: &mut [[f32; LANES]]) {
    let sub_len = layout.sub_len();
    let per_block = 32 / sub_len;
    for (lane, index) in (0..LANES).flat_map(|lane| {
        let subs = x.len() / (BLOCK_WORDS * columns) * per_block;
        (0..subs).map(move |index| (lane, index))
    }) {
        let sub = sub_block(layout, group, index, lane);
        let block = &x[index / per_block * BLOCK_WORDS * columns..][..BLOCK_WORDS * columns];
        let first = index % per_block * sub_len;
        for (column, out) in out.iter_mut().enumerate().take(columns) {
            let step = f32::from_bits(block[column]);
            let step_sum = f32::from_bits(block[5 * columns + column]);
            let code = |i: usize| {
                let word = block[(6 + (first + i) / 4) * columns + column];
                i32::from(word.to_le_bytes()[(first + i) % 4].cast_signed())
            };
            let dot: i32 = (0..sub_len).map(|i| i32::from(sub.codes[i]) * code(i)).sum();
            #[expect(clippy::cast_precision_loss, reason = "rounds the same way everywhere")]
            let scaled = dot as f32 * step;
            out[lane] = scaled.mul_add(sub.scale, out[lane]);
            if matches!(layout, Layout::Q4_K | Layout::Affine) {
                out[lane] = (-sub.min).mul_add(step_sum, out[lane]);
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
