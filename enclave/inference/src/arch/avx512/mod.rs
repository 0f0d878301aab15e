//! The kernels with AVX-512 and VNNI: 16 rows in a register, up to 16 columns at once.
//!
//! Weights are the unsigned operand of `vpdpbusd`; their zero point enters as the start value of the integer sum.

#![allow(clippy::needless_range_loop, reason = "loops over registers, unrolled")]

use std::arch::asm;
use std::arch::x86_64::*;

use super::LANES;
use super::activations::{
    BLOCK_WORDS, CODES, LONG_CODES, LONG_SIXTEENS, LONG_THIRTIES, LONG_WORDS, STEP_SUM,
};
use super::packed::Layout;
use super::prefetch::ahead;

/// Makes a function for this CPU; all of them are reached through [`integers`] and [`floats`].
macro_rules! vectors {
    ($($item:item)*) => { $(
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
        #[inline]
        $item
    )* };
}

pub(super) mod amx;
pub(super) mod pair;

/// The same slice, its address in a register of its own. The compiler would count weights and activations with one
/// register and add that in each address; such a product the CPU takes apart again, into a load and the product alone.
#[inline(always)]
#[expect(clippy::pointers_in_nomem_asm_block, reason = "nothing is read through it there")]
fn apart<T>(x: &[T]) -> &[T] {
    let mut start = x.as_ptr();
    // SAFETY: a comment is assembled, so that the register stays as it is.
    unsafe { asm!("/* {0} */", inout(reg) start, options(pure, nomem, nostack, preserves_flags)) };
    // SAFETY: the pointer and the length of `x`.
    unsafe { std::slice::from_raw_parts(start, x.len()) }
}

type Sums<const N: usize> = [[f32; LANES]; N];

vectors! {
    fn load(bytes: &[u8; 64]) -> __m512i {
        // SAFETY: 64 bytes are there; the load needs no alignment.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    /// Weights, which come from memory in order.
    fn stream(bytes: &[u8; 64]) -> __m512i {
        ahead(bytes);
        load(bytes)
    }

    fn stream_halves(bytes: &[u8; 32]) -> __m512 {
        ahead(bytes);
        halves(bytes)
    }

    fn load_floats(values: &[f32; LANES]) -> __m512 {
        // SAFETY: 16 floats are there; the load needs no alignment.
        unsafe { _mm512_loadu_ps(values.as_ptr()) }
    }

    fn store_floats(values: &mut [f32; LANES], x: __m512) {
        // SAFETY: 16 floats are there; the store needs no alignment.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), x) }
    }

    fn load_half(bytes: &[u8; 32]) -> __m256i {
        // SAFETY: 32 bytes are there; the load needs no alignment.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    fn load_quarter(bytes: &[u8; 16]) -> __m128i {
        // SAFETY: 16 bytes are there; the load needs no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    fn splat(word: u32) -> __m512i {
        _mm512_set1_epi32(word.cast_signed())
    }

    fn splat_float(word: u32) -> __m512 {
        _mm512_set1_ps(f32::from_bits(word))
    }

    fn halves(bytes: &[u8; 32]) -> __m512 {
        _mm512_cvtph_ps(load_half(bytes))
    }

    fn low_nibbles(x: __m512i) -> __m512i {
        _mm512_and_si512(x, _mm512_set1_epi8(15))
    }

    fn high_nibbles(x: __m512i) -> __m512i {
        low_nibbles(_mm512_srli_epi16::<4>(x))
    }

    /// `sums[n] += weights * codes of column n`, four columns of the matrix at once.
    fn dot<const N: usize>(sums: &mut [__m512i; N], weights: __m512i, x: &[u32]) {
        for n in 0..N {
            sums[n] = _mm512_dpbusd_epi32(sums[n], weights, splat(x[n]));
        }
    }

    fn start<const N: usize>(x: &[u32]) -> [__m512i; N] {
        let mut sums = [_mm512_setzero_si512(); N];
        for n in 0..N {
            sums[n] = splat(x[n]);
        }
        sums
    }

    /// `out[n] += (sums[n] * step[n]) * scale`.
    fn scaled<const N: usize>(out: &mut [__m512; N], sums: &[__m512i; N], step: &[u32], scale: __m512) {
        for n in 0..N {
            let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[n]), splat_float(step[n]));
            out[n] = _mm512_fmadd_ps(scaled, scale, out[n]);
        }
    }

    /// `out[n] -= min * step_sum[n]`.
    fn minus<const N: usize>(out: &mut [__m512; N], min: __m512, step_sum: &[u32]) {
        for n in 0..N {
            out[n] = _mm512_fnmadd_ps(min, splat_float(step_sum[n]), out[n]);
        }
    }

    fn load_sums<const N: usize>(out: &Sums<N>) -> [__m512; N] {
        let mut sums = [_mm512_setzero_ps(); N];
        for n in 0..N {
            sums[n] = load_floats(&out[n]);
        }
        sums
    }

    fn store_sums<const N: usize>(out: &mut Sums<N>, sums: &[__m512; N]) {
        for n in 0..N {
            store_floats(&mut out[n], sums[n]);
        }
    }

    /// 32 columns of 4-bit codes in 4 vectors; `x` begins with their codes.
    fn nibble_block<const N: usize>(sums: &mut [__m512i; N], vectors: &[[u8; 64]], x: &[u32]) {
        for i in 0..4 {
            let both = stream(&vectors[i]);
            dot(sums, low_nibbles(both), &x[i * N..(1 + i) * N]);
            dot(sums, high_nibbles(both), &x[(4 + i) * N..(5 + i) * N]);
        }
    }

    /// `sums[n] += factors * of[n]`.
    fn factored<const N: usize>(sums: &mut [__m512i; N], of: &[__m512i; N], factors: __m512i) {
        for n in 0..N {
            sums[n] = _mm512_add_epi32(sums[n], _mm512_mullo_epi32(of[n], factors));
        }
    }

    /// `sums[n] += factors . x[n]`, pairs of 16-bit numbers.
    fn pairs<const N: usize>(sums: &mut [__m512i; N], factors: __m512i, x: &[u32]) {
        for n in 0..N {
            sums[n] = _mm512_dpwssd_epi32(sums[n], factors, splat(x[n]));
        }
    }

    /// Two vectors of small numbers as one of pairs.
    fn pair(low: __m512i, high: __m512i) -> __m512i {
        _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi32(0xffff)), _mm512_slli_epi32::<16>(high))
    }

    fn q4_0<const N: usize>(group: &[u8], x: &[u32], out: &mut Sums<N>) {
        let mut total = load_sums(out);
        for (block, x) in group.as_chunks::<288>().0.iter().zip(x.chunks_exact(BLOCK_WORDS * N)) {
            let x = apart(x);
            let (scales, vectors) = block.split_first_chunk::<32>().expect("288 bytes");
            let mut sums = start::<N>(&x[N..2 * N]);
            nibble_block(&mut sums, vectors.as_chunks::<64>().0, &x[CODES * N..]);
            scaled(&mut total, &sums, &x[..N], stream_halves(scales));
        }
        store_sums(out, &total);
    }

    fn q8<const N: usize>(group: &[u8], x: &[u32], out: &mut Sums<N>) {
        let mut total = load_sums(out);
        for (block, x) in group.as_chunks::<544>().0.iter().zip(x.chunks_exact(BLOCK_WORDS * N)) {
            let x = apart(x);
            let (scales, vectors) = block.split_first_chunk::<32>().expect("544 bytes");
            let mut sums = start::<N>(&x[2 * N..3 * N]);
            for (i, vector) in vectors.as_chunks::<64>().0.iter().enumerate() {
                dot(&mut sums, stream(vector), apart(&x[(CODES + i) * N..(CODES + 1 + i) * N]));
            }
            scaled(&mut total, &sums, &x[..N], stream_halves(scales));
        }
        store_sums(out, &total);
    }

    fn affine<const N: usize>(group: &[u8], x: &[u32], out: &mut Sums<N>) {
        let mut total = load_sums(out);
        for (block, x) in group.as_chunks::<640>().0.iter().zip(x.chunks_exact(BLOCK_WORDS * N)) {
            let x = apart(x);
            let vectors = block.as_chunks::<64>().0;
            let mut sums = [_mm512_setzero_si512(); N];
            for i in 0..8 {
                dot(&mut sums, stream(&vectors[2 + i]), apart(&x[(CODES + i) * N..(CODES + 1 + i) * N]));
            }
            scaled(&mut total, &sums, &x[..N], _mm512_castsi512_ps(stream(&vectors[0])));
            minus(&mut total, _mm512_castsi512_ps(stream(&vectors[1])), &x[STEP_SUM * N..(STEP_SUM + 1) * N]);
        }
        store_sums(out, &total);
    }

    fn widened(bytes: __m128i) -> __m512i {
        _mm512_cvtepu8_epi32(bytes)
    }

    /// The 6-bit factors and minima of the eight sub-blocks.
    fn k_factors(packed: &[[u8; 16]; 12]) -> ([__m128i; 8], [__m128i; 8]) {
        let (six, four) = (_mm_set1_epi8(63), _mm_set1_epi8(15));
        let mut scales = [_mm_setzero_si128(); 8];
        let mut mins = [_mm_setzero_si128(); 8];
        for j in 0..4 {
            let (a, b, c) = (load_quarter(&packed[j]), load_quarter(&packed[j + 4]), load_quarter(&packed[j + 8]));
            // Bits 6 and 7 become 4 and 5; shifts work on 16 bits, the mask removes the neighbour's bits.
            let top = |x| _mm_and_si128(_mm_srli_epi16::<2>(x), _mm_set1_epi8(0x30));
            scales[j] = _mm_and_si128(a, six);
            mins[j] = _mm_and_si128(b, six);
            scales[j + 4] = _mm_or_si128(_mm_and_si128(c, four), top(a));
            mins[j + 4] = _mm_or_si128(_mm_and_si128(_mm_srli_epi16::<4>(c), four), top(b));
        }
        (scales, mins)
    }

    fn q4_k<const N: usize>(group: &[u8], x: &[u32], out: &mut Sums<N>) {
        let mut total = load_sums(out);
        for (block, x) in group.as_chunks::<2304>().0.iter().zip(x.chunks_exact(LONG_WORDS * N)) {
            let x = apart(x);
            let (head, vectors) = block.split_first_chunk::<256>().expect("2304 bytes");
            head.as_chunks::<64>().0.iter().for_each(ahead);
            let (d, rest) = head.split_first_chunk::<32>().expect("256 bytes");
            let (m, rest) = rest.split_first_chunk::<32>().expect("224 bytes");
            let (scales, mins) = k_factors(rest.as_chunks::<16>().0.first_chunk().expect("192 bytes"));
            let vectors = vectors.as_chunks::<64>().0;
            let mut dots = [_mm512_setzero_si512(); N];
            for part in 0..8 {
                let mut sums = [_mm512_setzero_si512(); N];
                let codes = apart(&x[(LONG_CODES + part * 8) * N..(LONG_CODES + 8 + part * 8) * N]);
                nibble_block(&mut sums, &vectors[part * 4..part * 4 + 4], codes);
                factored(&mut dots, &sums, widened(scales[part]));
            }
            scaled(&mut total, &dots, &x[..N], halves(d));
            let mut sums = [_mm512_setzero_si512(); N];
            for i in 0..4 {
                let factors = pair(widened(mins[2 * i]), widened(mins[2 * i + 1]));
                pairs(&mut sums, factors, &x[(LONG_THIRTIES + i) * N..(LONG_THIRTIES + 1 + i) * N]);
            }
            // The sign of a product is exact.
            scaled(&mut total, &sums, &x[..N], _mm512_sub_ps(_mm512_set1_ps(-0.0), halves(m)));
        }
        store_sums(out, &total);
    }

    fn q6_k<const N: usize>(group: &[u8], x: &[u32], out: &mut Sums<N>) {
        let high = _mm512_set1_epi8(0x30);
        let with = |low, bits| _mm512_or_si512(low, _mm512_and_si512(bits, high));
        let mut total = load_sums(out);
        for (block, x) in group.as_chunks::<3360>().0.iter().zip(x.chunks_exact(LONG_WORDS * N)) {
            let x = apart(x);
            let (d, rest) = block.split_first_chunk::<32>().expect("3360 bytes");
            let (factors, vectors) = rest.split_first_chunk::<256>().expect("3328 bytes");
            factors.as_chunks::<64>().0.iter().for_each(ahead);
            let (factors, vectors) = (factors.as_chunks::<16>().0, vectors.as_chunks::<64>().0);
            let factor = |part: usize| _mm512_cvtepi8_epi32(load_quarter(&factors[part]));
            // What the codes' zero, 32, adds to the dot products.
            let mut zeros = [_mm512_setzero_si512(); N];
            for i in 0..8 {
                let factors = pair(factor(2 * i), factor(2 * i + 1));
                pairs(&mut zeros, factors, &x[(LONG_SIXTEENS + i) * N..(LONG_SIXTEENS + 1 + i) * N]);
            }
            let mut dots = [_mm512_setzero_si512(); N];
            for n in 0..N {
                dots[n] = _mm512_sub_epi32(dots[n], _mm512_slli_epi32::<5>(zeros[n]));
            }
            for part in 0..16 {
                let (a, b) = (stream(&vectors[part * 3]), stream(&vectors[part * 3 + 1]));
                let bits = stream(&vectors[part * 3 + 2]);
                let mut sums = [_mm512_setzero_si512(); N];
                let codes = apart(&x[(LONG_CODES + part * 4) * N..(LONG_CODES + 4 + part * 4) * N]);
                dot(&mut sums, with(low_nibbles(a), _mm512_slli_epi16::<4>(bits)), &codes[..N]);
                dot(&mut sums, with(high_nibbles(a), _mm512_slli_epi16::<2>(bits)), &codes[N..2 * N]);
                dot(&mut sums, with(low_nibbles(b), bits), &codes[2 * N..3 * N]);
                dot(&mut sums, with(high_nibbles(b), _mm512_srli_epi16::<2>(bits)), &codes[3 * N..]);
                factored(&mut dots, &sums, factor(part));
            }
            scaled(&mut total, &dots, &x[..N], halves(d));
        }
        store_sums(out, &total);
    }

    fn of_f32(w: &[u8; 64]) -> __m512 {
        _mm512_castsi512_ps(load(w))
    }

    fn of_bf16(w: &[u8; 32]) -> __m512 {
        ahead(w);
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(load_half(w))))
    }

    fn one<const N: usize, const BYTES: usize>(
        group: &[u8],
        x: &[f32],
        widen: impl Fn(&[u8; BYTES]) -> __m512,
        out: &mut Sums<N>,
    ) {
        let mut total = load_sums(out);
        for (w, x) in group.as_chunks().0.iter().zip(x.as_chunks::<N>().0) {
            let w = widen(w);
            let x = apart(x);
            for n in 0..N {
                total[n] = _mm512_fmadd_ps(w, _mm512_set1_ps(x[n]), total[n]);
            }
        }
        store_sums(out, &total);
    }

    pub(super) fn widen_floats(layout: Layout, bytes: &[u8], wide: &mut [u8]) {
        for (bytes, wide) in bytes.as_chunks().0.iter().zip(wide.as_chunks_mut::<64>().0) {
            let x = if layout == Layout::F16 { stream_halves(bytes) } else { of_bf16(bytes) };
            // SAFETY: 64 bytes are there; the store needs no alignment.
            unsafe { _mm512_storeu_ps(wide.as_mut_ptr().cast(), x) }
        }
    }

    pub(super) fn integers<const N: usize>(layout: Layout, group: &[u8], x: &[u32], out: &mut Sums<N>) {
        match layout {
            Layout::Q4_0 => q4_0(group, x, out),
            Layout::Q4_K => q4_k(group, x, out),
            Layout::Q6_K => q6_k(group, x, out),
            Layout::Q8 => q8(group, x, out),
            Layout::Affine => affine(group, x, out),
            Layout::F32 | Layout::F16 | Layout::Bf16 => unreachable!("integer layouts only"),
        }
    }

    pub(super) fn floats<const N: usize>(layout: Layout, group: &[u8], x: &[f32], out: &mut Sums<N>) {
        match layout {
            Layout::F16 => one(group, x, |w| stream_halves(w), out),
            Layout::Bf16 => one(group, x, |w| of_bf16(w), out),
            _ => one(group, x, |w| of_f32(w), out),
        }
    }
}
