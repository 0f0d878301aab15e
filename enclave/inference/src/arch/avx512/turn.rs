//! 16 rows as 16 columns, in registers.

#![allow(clippy::needless_range_loop, reason = "loops over registers, unrolled")]

use std::arch::x86_64::*;

use super::super::LANES;
use super::super::lines::Number;

type Block = [__m512; LANES];

/// Turns 16 elements of each row at a time, at most 16 rows, as [`super::super::turn`] does; returns how many elements.
///
/// # Panics
/// If lengths do not fit.
#[target_feature(enable = "avx512f")]
pub(in super::super) fn blocks<T: Number>(rows: &[&[T]], width: usize, out: &mut [T]) -> usize {
    let len = out.len() / width;
    assert!(rows.len() <= width && rows.iter().all(|row| row.len() == len), "as many rows as fit");
    let mask = u16::MAX >> (LANES - rows.len());
    // Those that are lacking are turned like the first, and not stored.
    let mut starts = [rows[0].as_ptr().cast::<f32>(); LANES];
    starts.iter_mut().zip(rows).for_each(|(start, row)| *start = row.as_ptr().cast());
    let whole = len / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        let mut block = [_mm512_setzero_ps(); LANES];
        for i in 0..LANES {
            // SAFETY: each row has `len` numbers of 32 bits, and 16 from `first` on; the load needs no alignment.
            block[i] = unsafe { _mm512_loadu_ps(starts[i].add(first)) };
        }
        let block = turned(&block);
        let out = out[first * width..(first + LANES) * width].as_mut_ptr().cast::<f32>();
        for i in 0..LANES {
            // SAFETY: `i` of 16 rows of `width` numbers; as many as there are rows are stored, which fit.
            unsafe { _mm512_mask_storeu_ps(out.add(i * width), mask, block[i]) }
        }
    }
    whole
}

/// The block's rows as columns: pairs of numbers change places, pairs of pairs, and twice quarters of a register.
#[target_feature(enable = "avx512f")]
#[inline]
fn turned(x: &Block) -> Block {
    let (mut twos, mut fours, mut out) = (*x, *x, *x);
    for i in 0..8 {
        twos[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
        twos[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
    }
    for i in 0..4 {
        for half in 0..2 {
            let (a, b) = (_mm512_castps_pd(twos[4 * i + half]), _mm512_castps_pd(twos[4 * i + 2 + half]));
            fours[4 * i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            fours[4 * i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    }
    // Quarter q of `fours[4 i + j]` holds elements 4 q + j of rows 4 i to 4 i + 3.
    for j in 0..4 {
        let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
        let (ab_even, ab_odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
        let (cd_even, cd_odd) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
        out[j] = _mm512_shuffle_f32x4::<0x88>(ab_even, cd_even);
        out[4 + j] = _mm512_shuffle_f32x4::<0x88>(ab_odd, cd_odd);
        out[8 + j] = _mm512_shuffle_f32x4::<0xdd>(ab_even, cd_even);
        out[12 + j] = _mm512_shuffle_f32x4::<0xdd>(ab_odd, cd_odd);
    }
    out
}
