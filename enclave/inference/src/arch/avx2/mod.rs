//! The kernels with AVX2 and FMA: 16 rows as two registers of 8, up to 4 columns of integers and 6 of floats at once.
//!
//! Products of codes are summed in 16 bits where they fit: 4-bit codes 8 deep (8 * 2 * 15 * 127 = 30480), 5-bit codes 4
//! deep (4 * 2 * 31 * 127 = 31496), 6-bit codes 2 deep (2 * 2 * 63 * 127 = 32004).

#![allow(clippy::needless_range_loop, reason = "loops over registers, unrolled")]

use std::arch::x86_64::*;

use super::LANES;
use super::activations::{
    BLOCK_WORDS, CODES, LONG_CODES, LONG_SIXTEENS, LONG_THIRTIES, LONG_WORDS, STEP_SUM,
};
use super::packed::Layout;
use super::prefetch::ahead;
use products::{add_bytes, add_factored, add_pairs};

pub(super) mod products;

/// Makes a function for this CPU; all of them are reached through [`integers`] and [`floats`].
macro_rules! vectors {
    ($($item:item)*) => { $(
        #[target_feature(enable = "avx2,fma,f16c")]
        #[inline]
        $item
    )* };
}

type Sums<const N: usize> = [[f32; LANES]; N];

vectors! {
    fn load(bytes: &[u8; 32]) -> __m256i {
        // SAFETY: 32 bytes are there; the load needs no alignment.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    fn load_half(bytes: &[u8; 16]) -> __m128i {
        // SAFETY: 16 bytes are there; the load needs no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    /// Weights, which come from memory in order.
    fn stream(bytes: &[u8; 32]) -> __m256i {
        ahead(bytes);
        load(bytes)
    }

    fn load_floats(values: &[f32; 8]) -> __m256 {
        // SAFETY: 8 floats are there; the load needs no alignment.
        unsafe { _mm256_loadu_ps(values.as_ptr()) }
    }

    fn store_floats(values: &mut [f32; 8], x: __m256) {
        // SAFETY: 8 floats are there; the store needs no alignment.
        unsafe { _mm256_storeu_ps(values.as_mut_ptr(), x) }
    }

    fn splat(word: u32) -> __m256i {
        _mm256_set1_epi32(word.cast_signed())
    }

    fn halves(bytes: &[u8; 16]) -> __m256 {
        _mm256_cvtph_ps(load_half(bytes))
    }

    fn low_nibbles(x: __m256i) -> __m256i {
        _mm256_and_si256(x, _mm256_set1_epi8(15))
    }

    fn high_nibbles(x: __m256i) -> __m256i {
        low_nibbles(_mm256_srli_epi16::<4>(x))
    }

    /// 16-bit pair sums to 32 bits, added to `start`.
    fn widen(start: u32, pairs: __m256i) -> __m256i {
        _mm256_add_epi32(splat(start), _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }

    /// `out += (sum * step) * scale` for half `h` of the rows of one column.
    fn scaled(out: &mut [f32; LANES], h: usize, sum: __m256i, step: u32, scale: __m256) {
        let out = &mut out.as_chunks_mut::<8>().0[h];
        let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(f32::from_bits(step)));
        store_floats(out, _mm256_fmadd_ps(scaled, scale, load_floats(out)));
    }

    fn minus(out: &mut [f32; LANES], h: usize, min: __m256, step_sum: u32) {
        let out = &mut out.as_chunks_mut::<8>().0[h];
        let step_sum = _mm256_set1_ps(f32::from_bits(step_sum));
        store_floats(out, _mm256_fnmadd_ps(min, step_sum, load_floats(out)));
    }

    /// 16-bit sums of 32 columns of 4-bit codes, for both halves of the rows; `x` begins with the codes.
    fn nibble_block<const N: usize>(vectors: &[[u8; 32]], x: &[u32]) -> [[__m256i; N]; 2] {
        let mut sums = [[_mm256_setzero_si256(); N]; 2];
        for i in 0..4 {
            let both = [stream(&vectors[2 * i]), stream(&vectors[2 * i + 1])];
            add_pairs(&mut sums, [low_nibbles(both[0]), low_nibbles(both[1])], &x[i * N..]);
            add_pairs(&mut sums, [high_nibbles(both[0]), high_nibbles(both[1])], &x[(4 + i) * N..]);
        }
        sums
    }

    fn q4_0<const N: usize>(group: &[u8], x: &[u32], out: &mut Sums<N>) {
        for (block, x) in group.as_chunks::<288>().0.iter().zip(x.chunks_exact(BLOCK_WORDS * N)) {
            let (scales, vectors) = block.split_first_chunk::<32>().expect("288 bytes");
            ahead(scales);
            let (scales, vectors) = (scales.as_chunks::<16>().0, vectors.as_chunks::<32>().0);
            let pairs = nibble_block::<N>(vectors, &x[CODES * N..]);
            let scales = [halves(&scales[0]), halves(&scales[1])];
            for n in 0..N {
                for h in 0..2 {
                    scaled(&mut out[n], h, widen(x[N + n], pairs[h][n]), x[n], scales[h]);
                }
            }
        }
    }

    fn q8<const N: usize>(group: &[u8], x: &[u32], out: &mut Sums<N>) {
        let flip = _mm256_set1_epi8(-128);
        for (block, x) in group.as_chunks::<544>().0.iter().zip(x.chunks_exact(BLOCK_WORDS * N)) {
            let (scales, vectors) = block.split_first_chunk::<32>().expect("544 bytes");
            ahead(scales);
            let (scales, vectors) = (scales.as_chunks::<16>().0, vectors.as_chunks::<32>().0);
            let mut sums = [[_mm256_setzero_si256(); N]; 2];
            for i in 0..8 {
                // Stored codes turned into signed ones: |w| <= 128 and |x| <= 127, so a pair is at most 32512.
                let w = [
                    _mm256_xor_si256(stream(&vectors[2 * i]), flip),
                    _mm256_xor_si256(stream(&vectors[2 * i + 1]), flip),
                ];
                let sizes = [_mm256_abs_epi8(w[0]), _mm256_abs_epi8(w[1])];
                add_bytes(&mut sums, w, sizes, &x[(CODES + i) * N..]);
            }
            let scales = [halves(&scales[0]), halves(&scales[1])];
            for n in 0..N {
                for h in 0..2 {
                    scaled(&mut out[n], h, sums[h][n], x[n], scales[h]);
                }
            }
        }
    }

    fn affine<const N: usize>(group: &[u8], x: &[u32], out: &mut Sums<N>) {
        for (block, x) in group.as_chunks::<640>().0.iter().zip(x.chunks_exact(BLOCK_WORDS * N)) {
            let vectors = block.as_chunks::<32>().0;
            let scales = [stream(&vectors[0]), stream(&vectors[1])];
            let mins = [stream(&vectors[2]), stream(&vectors[3])];
            let mut sums = [[_mm256_setzero_si256(); N]; 2];
            for (four, vectors) in vectors[4..].chunks_exact(8).enumerate() {
                let mut pairs = [[_mm256_setzero_si256(); N]; 2];
                for i in 0..4 {
                    let w = [stream(&vectors[2 * i]), stream(&vectors[2 * i + 1])];
                    add_pairs(&mut pairs, w, &x[(CODES + 4 * four + i) * N..]);
                }
                for h in 0..2 {
                    for n in 0..N {
                        let sum = _mm256_madd_epi16(pairs[h][n], _mm256_set1_epi16(1));
                        sums[h][n] = _mm256_add_epi32(sums[h][n], sum);
                    }
                }
            }
            for n in 0..N {
                for h in 0..2 {
                    scaled(&mut out[n], h, sums[h][n], x[n], _mm256_castsi256_ps(scales[h]));
                    minus(&mut out[n], h, _mm256_castsi256_ps(mins[h]), x[STEP_SUM * N + n]);
                }
            }
        }
    }

    /// Eight small numbers, each twice: what both 16-bit sums of a row are multiplied by.
    fn twice(numbers: __m256i) -> __m256i {
        pair(numbers, numbers)
    }

    /// Two vectors of small numbers as one of pairs.
    fn pair(low: __m256i, high: __m256i) -> __m256i {
        _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi32(0xffff)), _mm256_slli_epi32::<16>(high))
    }

    /// The 6-bit factor and minimum of sub-block `part`, for 16 rows.
    fn k_factors(packed: &[[u8; 16]], part: usize) -> (__m128i, __m128i) {
        let (six, four) = (_mm_set1_epi8(63), _mm_set1_epi8(15));
        let j = part % 4;
        let (a, b) = (load_half(&packed[j]), load_half(&packed[j + 4]));
        if part < 4 {
            return (_mm_and_si128(a, six), _mm_and_si128(b, six));
        }
        let c = load_half(&packed[j + 8]);
        // Bits 6 and 7 become 4 and 5; shifts work on 16 bits, the mask removes the neighbour's bits.
        let top = |x| _mm_and_si128(_mm_srli_epi16::<2>(x), _mm_set1_epi8(0x30));
        let scale = _mm_or_si128(_mm_and_si128(c, four), top(a));
        (scale, _mm_or_si128(_mm_and_si128(_mm_srli_epi16::<4>(c), four), top(b)))
    }

    fn upper_if(h: usize, bytes: __m128i) -> __m128i {
        if h == 0 { bytes } else { _mm_unpackhi_epi64(bytes, bytes) }
    }

    fn q4_k<const N: usize>(group: &[u8], x: &[u32], out: &mut Sums<N>) {
        for (block, x) in group.as_chunks::<2304>().0.iter().zip(x.chunks_exact(LONG_WORDS * N)) {
            let (head, vectors) = block.split_first_chunk::<256>().expect("2304 bytes");
            head.as_chunks::<64>().0.iter().for_each(ahead);
            let (head, vectors) = (head.as_chunks::<16>().0, vectors.as_chunks::<32>().0);
            let mut dots = [[_mm256_setzero_si256(); N]; 2];
            let mut mins = [[_mm256_setzero_si256(); N]; 2];
            for i in 0..4 {
                let (a, b) = (k_factors(&head[4..], 2 * i), k_factors(&head[4..], 2 * i + 1));
                for (part, (factor, _)) in [(2 * i, a), (2 * i + 1, b)] {
                    let codes = &x[(LONG_CODES + part * 8) * N..];
                    let pairs = nibble_block::<N>(&vectors[part * 8..part * 8 + 8], codes);
                    for h in 0..2 {
                        let factor = twice(_mm256_cvtepu8_epi32(upper_if(h, factor)));
                        for n in 0..N {
                            dots[h][n] = _mm256_add_epi32(dots[h][n], _mm256_madd_epi16(pairs[h][n], factor));
                        }
                    }
                }
                for h in 0..2 {
                    let wide = |min| _mm256_cvtepu8_epi32(upper_if(h, min));
                    let min = pair(wide(a.1), wide(b.1));
                    for n in 0..N {
                        let product = _mm256_madd_epi16(min, splat(x[(LONG_THIRTIES + i) * N + n]));
                        mins[h][n] = _mm256_add_epi32(mins[h][n], product);
                    }
                }
            }
            for h in 0..2 {
                // The sign of a product is exact.
                let min = _mm256_sub_ps(_mm256_set1_ps(-0.0), halves(&head[2 + h]));
                for n in 0..N {
                    scaled(&mut out[n], h, dots[h][n], x[n], halves(&head[h]));
                    scaled(&mut out[n], h, mins[h][n], x[n], min);
                }
            }
        }
    }

    fn q6_k<const N: usize>(group: &[u8], x: &[u32], out: &mut Sums<N>) {
        let high = _mm256_set1_epi8(0x30);
        for (block, x) in group.as_chunks::<3360>().0.iter().zip(x.chunks_exact(LONG_WORDS * N)) {
            let (head, vectors) = block.split_first_chunk::<288>().expect("3360 bytes");
            head.as_chunks::<64>().0.iter().for_each(ahead);
            let (head, vectors) = (head.as_chunks::<16>().0, vectors.as_chunks::<32>().0);
            for h in 0..2 {
                let factor = |part: usize| _mm256_cvtepi8_epi32(upper_if(h, load_half(&head[2 + part])));
                let mut dots = [_mm256_setzero_si256(); N];
                // What the codes' zero, 32, adds to the dot products.
                for i in 0..8 {
                    let factors = pair(factor(2 * i), factor(2 * i + 1));
                    for n in 0..N {
                        let product = _mm256_madd_epi16(factors, splat(x[(LONG_SIXTEENS + i) * N + n]));
                        dots[n] = _mm256_sub_epi32(dots[n], _mm256_slli_epi32::<5>(product));
                    }
                }
                for part in 0..16 {
                    let at = part * 6 + h;
                    let (a, b, bits) = (stream(&vectors[at]), stream(&vectors[at + 2]), stream(&vectors[at + 4]));
                    let with = |low, bits| _mm256_or_si256(low, _mm256_and_si256(bits, high));
                    let quads = [
                        with(low_nibbles(a), _mm256_slli_epi16::<4>(bits)),
                        with(high_nibbles(a), _mm256_slli_epi16::<2>(bits)),
                        with(low_nibbles(b), bits),
                        with(high_nibbles(b), _mm256_srli_epi16::<2>(bits)),
                    ];
                    let factor = twice(factor(part));
                    add_factored(&mut dots, quads, factor, &x[(LONG_CODES + part * 4) * N..]);
                }
                for n in 0..N {
                    scaled(&mut out[n], h, dots[n], x[n], halves(&head[h]));
                }
            }
        }
    }

    fn load_sums<const N: usize>(out: &Sums<N>) -> [[__m256; 2]; N] {
        let mut sums = [[_mm256_setzero_ps(); 2]; N];
        for n in 0..N {
            for h in 0..2 {
                sums[n][h] = load_floats(&out[n].as_chunks::<8>().0[h]);
            }
        }
        sums
    }

    fn store_sums<const N: usize>(out: &mut Sums<N>, sums: &[[__m256; 2]; N]) {
        for n in 0..N {
            for h in 0..2 {
                store_floats(&mut out[n].as_chunks_mut::<8>().0[h], sums[n][h]);
            }
        }
    }

    fn multiply_add<const N: usize>(total: &mut [[__m256; 2]; N], w: [__m256; 2], x: &[f32]) {
        for n in 0..N {
            let x = _mm256_set1_ps(x[n]);
            total[n][0] = _mm256_fmadd_ps(w[0], x, total[n][0]);
            total[n][1] = _mm256_fmadd_ps(w[1], x, total[n][1]);
        }
    }

    fn f32s<const N: usize>(group: &[u8], x: &[f32], out: &mut Sums<N>) {
        let mut total = load_sums(out);
        for (w, x) in group.as_chunks::<64>().0.iter().zip(x.chunks_exact(N)) {
            let w = w.as_chunks::<32>().0;
            let w = [_mm256_castsi256_ps(load(&w[0])), _mm256_castsi256_ps(load(&w[1]))];
            multiply_add(&mut total, w, x);
        }
        store_sums(out, &total);
    }

    fn f16s<const N: usize>(group: &[u8], x: &[f32], out: &mut Sums<N>) {
        let mut total = load_sums(out);
        for (w, x) in group.as_chunks::<32>().0.iter().zip(x.chunks_exact(N)) {
            ahead(w);
            let w = w.as_chunks::<16>().0;
            multiply_add(&mut total, [halves(&w[0]), halves(&w[1])], x);
        }
        store_sums(out, &total);
    }

    fn brain(bytes: &[u8; 16]) -> __m256 {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(load_half(bytes))))
    }

    fn bf16s<const N: usize>(group: &[u8], x: &[f32], out: &mut Sums<N>) {
        let mut total = load_sums(out);
        for (w, x) in group.as_chunks::<32>().0.iter().zip(x.chunks_exact(N)) {
            ahead(w);
            let w = w.as_chunks::<16>().0;
            multiply_add(&mut total, [brain(&w[0]), brain(&w[1])], x);
        }
        store_sums(out, &total);
    }

    pub(super) fn widen_floats(layout: Layout, bytes: &[u8], wide: &mut [u8]) {
        for (bytes, wide) in bytes.as_chunks::<16>().0.iter().zip(wide.as_chunks_mut::<32>().0) {
            ahead(bytes);
            let x = if layout == Layout::F16 { halves(bytes) } else { brain(bytes) };
            // SAFETY: 32 bytes are there; the store needs no alignment.
            unsafe { _mm256_storeu_ps(wide.as_mut_ptr().cast(), x) }
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
            Layout::F16 => f16s(group, x, out),
            Layout::Bf16 => bf16s(group, x, out),
            _ => f32s(group, x, out),
        }
    }
}
