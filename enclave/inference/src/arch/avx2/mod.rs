//! The kernels with AVX2 and FMA: 16 rows as two registers of 8, up to 4 columns of integers and 6 of floats at once.
//!
//! Tiles of integers have up to 16 columns, `S` shares of `N`: what registers hold. Codes are unpacked once for all shares.
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

    fn store(bytes: &mut [u8; 32], x: __m256i) {
        // SAFETY: 32 bytes are there; the store needs no alignment.
        unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), x) }
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

    /// Codes of 32 columns as bytes, for the shares of a tile: `[word][half of the rows]`.
    fn unpack_nibbles(vectors: &[[u8; 32]], bytes: &mut [[u8; 32]; 16]) {
        for i in 0..8 {
            let both = stream(&vectors[i]);
            store(&mut bytes[i], low_nibbles(both));
            store(&mut bytes[8 + i], high_nibbles(both));
        }
    }

    /// 16-bit sums of 32 columns of 4-bit codes, for both halves of the rows; `x` begins with the codes of the share.
    fn nibbles<const N: usize>(vectors: &[[u8; 32]], x: &[u32]) -> [[__m256i; N]; 2] {
        let mut sums = [[_mm256_setzero_si256(); N]; 2];
        for i in 0..4 {
            let both = [stream(&vectors[2 * i]), stream(&vectors[2 * i + 1])];
            add_pairs(&mut sums, [low_nibbles(both[0]), low_nibbles(both[1])], &x[i * N..]);
            add_pairs(&mut sums, [high_nibbles(both[0]), high_nibbles(both[1])], &x[(4 + i) * N..]);
        }
        sums
    }

    /// 16-bit sums of words of codes that are bytes, for both halves of the rows.
    fn bytes<const N: usize, const S: usize>(vectors: &[[u8; 32]], x: &[u32]) -> [[__m256i; N]; 2] {
        let mut sums = [[_mm256_setzero_si256(); N]; 2];
        for (i, vectors) in vectors.as_chunks::<2>().0.iter().enumerate() {
            add_pairs(&mut sums, [load(&vectors[0]), load(&vectors[1])], &x[i * S * N..]);
        }
        sums
    }

    fn q4_0<const N: usize, const S: usize>(group: &[u8], x: &[u32], out: &mut [[f32; LANES]]) {
        let mut buffer = [[0; 32]; 16];
        for (block, x) in group.as_chunks::<288>().0.iter().zip(x.chunks_exact(BLOCK_WORDS * S * N)) {
            let (scales, vectors) = block.split_first_chunk::<32>().expect("288 bytes");
            ahead(scales);
            let (scales, vectors) = (scales.as_chunks::<16>().0, vectors.as_chunks::<32>().0);
            let scales = [halves(&scales[0]), halves(&scales[1])];
            if S > 1 {
                unpack_nibbles(vectors, &mut buffer);
            }
            for share in 0..S {
                let x = &x[share * N..];
                let codes = &x[CODES * S * N..];
                let pairs = if S > 1 { bytes::<N, S>(&buffer, codes) } else { nibbles::<N>(vectors, codes) };
                for n in 0..N {
                    for h in 0..2 {
                        let sum = widen(x[S * N + n], pairs[h][n]);
                        scaled(&mut out[share * N + n], h, sum, x[n], scales[h]);
                    }
                }
            }
        }
    }

    /// Signed codes of a word for both halves of the rows, then their magnitudes: |w| <= 128 and |x| <= 127, so a pair is
    /// at most 32512.
    fn signed(vectors: &[[u8; 32]; 2]) -> [__m256i; 4] {
        let flip = _mm256_set1_epi8(-128);
        let (first, second) = (stream(&vectors[0]), stream(&vectors[1]));
        let (first, second) = (_mm256_xor_si256(first, flip), _mm256_xor_si256(second, flip));
        [first, second, _mm256_abs_epi8(first), _mm256_abs_epi8(second)]
    }

    fn q8<const N: usize, const S: usize>(group: &[u8], x: &[u32], out: &mut [[f32; LANES]]) {
        let mut buffer = [[[0; 32]; 4]; 8];
        for (block, x) in group.as_chunks::<544>().0.iter().zip(x.chunks_exact(BLOCK_WORDS * S * N)) {
            let (scales, vectors) = block.split_first_chunk::<32>().expect("544 bytes");
            ahead(scales);
            let (scales, vectors) = (scales.as_chunks::<16>().0, vectors.as_chunks::<32>().0.as_chunks::<2>().0);
            let scales = [halves(&scales[0]), halves(&scales[1])];
            if S > 1 {
                for i in 0..8 {
                    let w = signed(&vectors[i]);
                    for part in 0..4 {
                        store(&mut buffer[i][part], w[part]);
                    }
                }
            }
            for share in 0..S {
                let x = &x[share * N..];
                let mut sums = [[_mm256_setzero_si256(); N]; 2];
                for i in 0..8 {
                    let [first, second, size, next] = if S > 1 {
                        let w = &buffer[i];
                        [load(&w[0]), load(&w[1]), load(&w[2]), load(&w[3])]
                    } else {
                        signed(&vectors[i])
                    };
                    add_bytes(&mut sums, [first, second], [size, next], &x[(CODES + i) * S * N..]);
                }
                for n in 0..N {
                    for h in 0..2 {
                        scaled(&mut out[share * N + n], h, sums[h][n], x[n], scales[h]);
                    }
                }
            }
        }
    }

    fn affine<const N: usize, const S: usize>(group: &[u8], x: &[u32], out: &mut [[f32; LANES]]) {
        for (block, x) in group.as_chunks::<640>().0.iter().zip(x.chunks_exact(BLOCK_WORDS * S * N)) {
            block.as_chunks::<64>().0.iter().for_each(ahead);
            let vectors = block.as_chunks::<32>().0;
            for share in 0..S {
                let x = &x[share * N..];
                let mut sums = [[_mm256_setzero_si256(); N]; 2];
                for (four, vectors) in vectors[4..].chunks_exact(8).enumerate() {
                    let pairs = bytes::<N, S>(vectors, &x[(CODES + 4 * four) * S * N..]);
                    for h in 0..2 {
                        for n in 0..N {
                            let sum = _mm256_madd_epi16(pairs[h][n], _mm256_set1_epi16(1));
                            sums[h][n] = _mm256_add_epi32(sums[h][n], sum);
                        }
                    }
                }
                for n in 0..N {
                    let out = &mut out[share * N + n];
                    for h in 0..2 {
                        scaled(out, h, sums[h][n], x[n], _mm256_castsi256_ps(load(&vectors[h])));
                        minus(out, h, _mm256_castsi256_ps(load(&vectors[2 + h])), x[STEP_SUM * S * N + n]);
                    }
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

    /// The factor of sub-block `part` for half `h` of the rows, for both 16-bit sums of a row.
    fn k_factor(packed: &[[u8; 16]], part: usize, h: usize) -> __m256i {
        twice(_mm256_cvtepu8_epi32(upper_if(h, k_factors(packed, part).0)))
    }

    /// The minima of sub-blocks `2 * i` and `2 * i + 1`.
    fn k_mins(packed: &[[u8; 16]], i: usize, h: usize) -> __m256i {
        let (even, odd) = (k_factors(packed, 2 * i).1, k_factors(packed, 2 * i + 1).1);
        pair(_mm256_cvtepu8_epi32(upper_if(h, even)), _mm256_cvtepu8_epi32(upper_if(h, odd)))
    }

    fn q4_k<const N: usize, const S: usize>(group: &[u8], x: &[u32], out: &mut [[f32; LANES]]) {
        let mut buffer = [[0; 32]; 16];
        for (block, x) in group.as_chunks::<2304>().0.iter().zip(x.chunks_exact(LONG_WORDS * S * N)) {
            let (head, vectors) = block.split_first_chunk::<256>().expect("2304 bytes");
            head.as_chunks::<64>().0.iter().for_each(ahead);
            let (head, vectors) = (head.as_chunks::<16>().0, vectors.as_chunks::<32>().0);
            let mut dots = [[[_mm256_setzero_si256(); N]; 2]; S];
            let mut mins = [[[_mm256_setzero_si256(); N]; 2]; S];
            for part in 0..8 {
                let vectors = &vectors[8 * part..];
                if S > 1 {
                    unpack_nibbles(vectors, &mut buffer);
                }
                let factors = [k_factor(&head[4..], part, 0), k_factor(&head[4..], part, 1)];
                for share in 0..S {
                    let x = &x[(LONG_CODES + part * 8) * S * N + share * N..];
                    let pairs = if S > 1 { bytes::<N, S>(&buffer, x) } else { nibbles::<N>(vectors, x) };
                    let dots = &mut dots[share];
                    for h in 0..2 {
                        for n in 0..N {
                            dots[h][n] = _mm256_add_epi32(dots[h][n], _mm256_madd_epi16(pairs[h][n], factors[h]));
                        }
                    }
                }
            }
            for i in 0..4 {
                for h in 0..2 {
                    let min = k_mins(&head[4..], i, h);
                    for share in 0..S {
                        let mins = &mut mins[share][h];
                        for n in 0..N {
                            let x = x[((LONG_THIRTIES + i) * S + share) * N + n];
                            mins[n] = _mm256_add_epi32(mins[n], _mm256_madd_epi16(min, splat(x)));
                        }
                    }
                }
            }
            for h in 0..2 {
                // The sign of a product is exact.
                let min = _mm256_sub_ps(_mm256_set1_ps(-0.0), halves(&head[2 + h]));
                for share in 0..S {
                    for n in 0..N {
                        let at = share * N + n;
                        scaled(&mut out[at], h, dots[share][h][n], x[at], halves(&head[h]));
                        scaled(&mut out[at], h, mins[share][h][n], x[at], min);
                    }
                }
            }
        }
    }

    /// The codes of 16 columns for half `h` of the rows, word by word.
    fn six_bits(vectors: &[[u8; 32]], h: usize) -> [__m256i; 4] {
        let high = _mm256_set1_epi8(0x30);
        let (a, b, bits) = (stream(&vectors[h]), stream(&vectors[2 + h]), stream(&vectors[4 + h]));
        let with = |low, bits| _mm256_or_si256(low, _mm256_and_si256(bits, high));
        [
            with(low_nibbles(a), _mm256_slli_epi16::<4>(bits)),
            with(high_nibbles(a), _mm256_slli_epi16::<2>(bits)),
            with(low_nibbles(b), bits),
            with(high_nibbles(b), _mm256_srli_epi16::<2>(bits)),
        ]
    }

    fn six_factor(packed: &[[u8; 16]], part: usize, h: usize) -> __m256i {
        _mm256_cvtepi8_epi32(upper_if(h, load_half(&packed[part])))
    }

    fn q6_k<const N: usize, const S: usize>(group: &[u8], x: &[u32], out: &mut [[f32; LANES]]) {
        for (block, x) in group.as_chunks::<3360>().0.iter().zip(x.chunks_exact(LONG_WORDS * S * N)) {
            let (head, vectors) = block.split_first_chunk::<288>().expect("3360 bytes");
            head.as_chunks::<64>().0.iter().for_each(ahead);
            let (head, vectors) = (head.as_chunks::<16>().0, vectors.as_chunks::<32>().0);
            for h in 0..2 {
                let mut dots = [[_mm256_setzero_si256(); N]; S];
                // What the codes' zero, 32, adds to the dot products.
                for i in 0..8 {
                    let factors = pair(six_factor(&head[2..], 2 * i, h), six_factor(&head[2..], 2 * i + 1, h));
                    for share in 0..S {
                        for n in 0..N {
                            let x = x[((LONG_SIXTEENS + i) * S + share) * N + n];
                            let product = _mm256_madd_epi16(factors, splat(x));
                            dots[share][n] = _mm256_sub_epi32(dots[share][n], _mm256_slli_epi32::<5>(product));
                        }
                    }
                }
                for part in 0..16 {
                    let quads = six_bits(&vectors[6 * part..], h);
                    let factor = twice(six_factor(&head[2..], part, h));
                    for share in 0..S {
                        let x = &x[((LONG_CODES + part * 4) * S + share) * N..];
                        add_factored::<N, S>(&mut dots[share], quads, factor, x);
                    }
                }
                for share in 0..S {
                    for n in 0..N {
                        let at = share * N + n;
                        scaled(&mut out[at], h, dots[share][n], x[at], halves(&head[h]));
                    }
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

    /// `out[n] += group . column n` for a tile of an integer layout, `S` shares of `N` columns.
    fn integers_of<const N: usize, const S: usize>(layout: Layout, group: &[u8], x: &[u32], out: &mut [[f32; LANES]]) {
        match layout {
            Layout::Q4_0 => q4_0::<N, S>(group, x, out),
            Layout::Q4_K => q4_k::<N, S>(group, x, out),
            Layout::Q6_K => q6_k::<N, S>(group, x, out),
            Layout::Q8 => q8::<N, S>(group, x, out),
            Layout::Affine => affine::<N, S>(group, x, out),
            Layout::F32 | Layout::F16 | Layout::Bf16 => unreachable!("integer layouts only"),
        }
    }

    /// `out[n] += group . column n` for a tile of an integer layout.
    pub(super) fn integers(layout: Layout, group: &[u8], x: &[u32], columns: usize, out: &mut [[f32; LANES]]) {
        assert_eq!(out.len(), columns, "as many sums as columns");
        match columns {
            1 => integers_of::<1, 1>(layout, group, x, out),
            2 => integers_of::<2, 1>(layout, group, x, out),
            3 => integers_of::<3, 1>(layout, group, x, out),
            4 => integers_of::<4, 1>(layout, group, x, out),
            6 => integers_of::<3, 2>(layout, group, x, out),
            8 => integers_of::<4, 2>(layout, group, x, out),
            9 => integers_of::<3, 3>(layout, group, x, out),
            12 => integers_of::<4, 3>(layout, group, x, out),
            16 => integers_of::<4, 4>(layout, group, x, out),
            other => unreachable!("no kernel of integers for {other} columns"),
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
