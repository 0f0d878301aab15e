//! The kernels with AVX-512 and VNNI: 16 rows in a register, one group of them with up to 16 columns or two with up to 6.
//!
//! Weights are the unsigned operand of `vpdpbusd`; their zero point enters as the start value of the integer sum.

#![allow(clippy::needless_range_loop, reason = "loops over registers, unrolled")]

use std::arch::asm;
use std::arch::x86_64::*;

use super::LANES;
use super::activations::{
    BLOCK_WORDS, CODES, LONG_CODES, LONG_SIXTEENS, LONG_THIRTIES, LONG_WORDS, STEP_SUM,
};
use super::ends::Ends;
use super::packed::Layout;
use super::prefetch::{ANY_TIME, DONE, FIRST, NOW, ahead, ahead_now, ahead_to};
use products::dot_two;

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
pub(super) mod products;
pub(super) mod turn;

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
/// Sums of each group in registers.
type Totals<const R: usize, const N: usize> = [[__m512; N]; R];

/// Blocks of each group. Loops over groups stay loops: what a call of `map` gets is not compiled for this CPU.
#[inline(always)]
fn blocks<const R: usize, const BYTES: usize>(groups: [&[u8]; R]) -> [&[[u8; BYTES]]; R] {
    let mut blocks: [&[_]; R] = [&[]; R];
    for r in 0..R {
        blocks[r] = groups[r].as_chunks().0;
    }
    blocks
}

/// Block `index` of each group.
#[inline(always)]
fn row<'data, const R: usize, const BYTES: usize>(
    groups: &[&'data [[u8; BYTES]]; R],
    index: usize,
) -> [&'data [u8; BYTES]; R] {
    let mut row = [&groups[0][index]; R];
    for r in 1..R {
        row[r] = &groups[r][index];
    }
    row
}

/// Some bytes of a block.
#[inline(always)]
fn at<const BYTES: usize>(block: &[u8], start: usize) -> &[u8; BYTES] {
    block[start..].first_chunk().expect("inside of a block")
}

vectors! {
    fn load(bytes: &[u8; 64]) -> __m512i {
        // SAFETY: 64 bytes are there; the load needs no alignment.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    /// Weights, which come from memory in order; `H`: the cache that is hinted to.
    fn stream<const H: i32>(bytes: &[u8; 64]) -> __m512i {
        ahead_now::<H, _>(bytes);
        load(bytes)
    }

    fn stream_halves<const H: i32>(bytes: &[u8; 32]) -> __m512 {
        ahead_now::<H, _>(bytes);
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

    /// `sums[r][n] += weights[r] * codes of column n`, four columns of the matrix at once.
    fn dot<const R: usize, const N: usize>(sums: &mut [[__m512i; N]; R], weights: [__m512i; R], x: &[u32]) {
        if let ([first, second], [one, two]) = (&mut sums[..], &weights[..]) {
            return dot_two(first, second, [*one, *two], x);
        }
        for r in 0..R {
            for n in 0..N {
                sums[r][n] = _mm512_dpbusd_epi32(sums[r][n], weights[r], splat(x[n]));
            }
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

    fn load_all<const R: usize, const N: usize>(ends: &Ends<'_, R>) -> Totals<R, N> {
        let mut all = [[_mm512_setzero_ps(); N]; R];
        if !ends.fresh {
            for r in 0..R {
                all[r] = load_sums(ends.kept[r].first_chunk().expect("a sum for each column"));
            }
        }
        all
    }

    fn store_all<const R: usize, const N: usize>(ends: Ends<'_, R>, all: &Totals<R, N>) {
        let Some(to) = ends.to else {
            for (kept, all) in ends.kept.into_iter().zip(all) {
                store_sums(kept.first_chunk_mut().expect("a sum for each column"), all);
            }
            return;
        };
        let (start, stride) = to.of_columns(N);
        for n in 0..N {
            for r in 0..R {
                // SAFETY: 16 numbers of each group for each of these columns, as `Place::new` was promised.
                unsafe { _mm512_storeu_ps(start.add(n * stride + r * LANES), all[r][n]) }
            }
        }
    }

    /// The vector at `start` of each block; `WHEN` those that come later are asked for. Two groups are read from the cache, and
    /// prompts of Q4_K_M were 2 to 3 % slower with hints in their place.
    fn streams<const H: i32, const WHEN: u8, const R: usize, const BYTES: usize>(
        blocks: [&[u8; BYTES]; R],
        start: usize,
    ) -> [__m512i; R] {
        let mut vectors = [_mm512_setzero_si512(); R];
        for r in 0..R {
            let bytes = at(blocks[r], start);
            match WHEN {
                DONE => {}
                NOW if R == 1 => ahead_now::<H, _>(bytes),
                _ => ahead_to::<H, _>(bytes),
            }
            vectors[r] = load(bytes);
        }
        vectors
    }

    /// 32 columns of 4-bit codes in the 4 vectors from `start` on; `x` begins with their codes.
    fn nibble_block<const H: i32, const WHEN: u8, const R: usize, const N: usize, const BYTES: usize>(
        sums: &mut [[__m512i; N]; R],
        blocks: [&[u8; BYTES]; R],
        start: usize,
        x: &[u32],
    ) {
        for i in 0..4 {
            let both = streams::<H, WHEN, _, _>(blocks, start + 64 * i);
            let (mut low, mut high) = (both, both);
            for r in 0..R {
                (low[r], high[r]) = (low_nibbles(both[r]), high_nibbles(both[r]));
            }
            dot(sums, low, &x[i * N..(1 + i) * N]);
            dot(sums, high, &x[(4 + i) * N..(5 + i) * N]);
        }
    }

    /// `sums[n] += factors * of[n]` for numbers of 24 bits and factors of 8, all signed.
    ///
    /// From four columns on as pairs of 16-bit numbers, the low 8 bits and the rest. On a CPU with AMX 16 sequences were 1.02 to
    /// 1.04 times as fast so, 4 were 1.02 times and one 0.91 times; most likely since a product of 32 bits takes two operations
    /// of one unit there. CPUs without AMX were not measured.
    fn factored<const N: usize>(sums: &mut [__m512i; N], of: &[__m512i; N], factors: __m512i) {
        if N < 4 {
            for n in 0..N {
                sums[n] = _mm512_add_epi32(sums[n], _mm512_mullo_epi32(of[n], factors));
            }
            return;
        }
        let factors = pair(factors, _mm512_slli_epi32::<8>(factors));
        // Of each 32 bits the lowest byte, nothing, and the next two.
        let apart = _mm_setr_epi8(0, -1, 1, 2, 4, -1, 5, 6, 8, -1, 9, 10, 12, -1, 13, 14);
        let apart = _mm512_broadcast_i32x4(apart);
        macro_rules! columns {
            ($($n:literal)*) => { $(
                if $n < N {
                    sums[$n] = _mm512_dpwssd_epi32(sums[$n], _mm512_shuffle_epi8(of[$n], apart), factors);
                }
            )* };
        }
        // The compiler would keep a loop here, and all sums in memory for it.
        columns!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
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

    fn q4_0<const H: i32, const R: usize, const N: usize>(
        groups: [&[u8]; R],
        x: &[u32],
        mut total: Totals<R, N>,
    ) -> Totals<R, N> {
        let groups = blocks::<R, 288>(groups);
        for (index, x) in x.chunks_exact(BLOCK_WORDS * N).enumerate() {
            let (x, blocks) = (apart(x), row(&groups, index));
            let mut sums = [start::<N>(&x[N..2 * N]); R];
            nibble_block::<H, NOW, _, _, _>(&mut sums, blocks, 32, &x[CODES * N..]);
            for r in 0..R {
                scaled(&mut total[r], &sums[r], &x[..N], stream_halves::<H>(at(blocks[r], 0)));
            }
        }
        total
    }

    fn q8<const H: i32, const R: usize, const N: usize>(
        groups: [&[u8]; R],
        x: &[u32],
        mut total: Totals<R, N>,
    ) -> Totals<R, N> {
        let groups = blocks::<R, 544>(groups);
        for (index, x) in x.chunks_exact(BLOCK_WORDS * N).enumerate() {
            let (x, blocks) = (apart(x), row(&groups, index));
            let mut sums = [start::<N>(&x[2 * N..3 * N]); R];
            for i in 0..8 {
                dot(&mut sums, streams::<H, NOW, _, _>(blocks, 32 + 64 * i), apart(&x[(CODES + i) * N..(CODES + 1 + i) * N]));
            }
            for r in 0..R {
                scaled(&mut total[r], &sums[r], &x[..N], stream_halves::<H>(at(blocks[r], 0)));
            }
        }
        total
    }

    fn affine<const H: i32, const R: usize, const N: usize>(
        groups: [&[u8]; R],
        x: &[u32],
        mut total: Totals<R, N>,
    ) -> Totals<R, N> {
        let groups = blocks::<R, 640>(groups);
        for (index, x) in x.chunks_exact(BLOCK_WORDS * N).enumerate() {
            let (x, blocks) = (apart(x), row(&groups, index));
            let mut sums = [[_mm512_setzero_si512(); N]; R];
            for i in 0..8 {
                dot(&mut sums, streams::<H, NOW, _, _>(blocks, 128 + 64 * i), apart(&x[(CODES + i) * N..(CODES + 1 + i) * N]));
            }
            for r in 0..R {
                scaled(&mut total[r], &sums[r], &x[..N], _mm512_castsi512_ps(stream::<H>(at(blocks[r], 0))));
                let min = _mm512_castsi512_ps(stream::<H>(at(blocks[r], 64)));
                minus(&mut total[r], min, &x[STEP_SUM * N..(STEP_SUM + 1) * N]);
            }
        }
        total
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

    fn q4_k<const H: i32, const R: usize, const N: usize>(
        groups: [&[u8]; R],
        x: &[u32],
        mut total: Totals<R, N>,
    ) -> Totals<R, N> {
        let groups = blocks::<R, 2304>(groups);
        // As measured for each width. With `NOW` 1, 3, 12 and 16 columns were 5 to 15 % slower, most likely for what the compiler
        // then keeps in registers, 2 and 4 as fast; 16 with all hints of a part at its start are 1.1 times as fast.
        let when = const {
            match N {
                5..12 if R == 1 => NOW,
                16 if R == 1 => DONE,
                _ => ANY_TIME,
            }
        };
        for (index, x) in x.chunks_exact(LONG_WORDS * N).enumerate() {
            let (x, blocks) = (apart(x), row(&groups, index));
            let mut factors = [([_mm_setzero_si128(); 8], [_mm_setzero_si128(); 8]); R];
            for r in 0..R {
                if when == ANY_TIME {
                    at::<256>(blocks[r], 0).as_chunks::<64>().0.iter().for_each(ahead_to::<H, _>);
                }
                let packed = at::<192>(blocks[r], 64).as_chunks::<16>().0;
                factors[r] = k_factors(packed.first_chunk().expect("192 bytes"));
            }
            let mut dots = [[_mm512_setzero_si512(); N]; R];
            for part in 0..8 {
                let mut sums = [[_mm512_setzero_si512(); N]; R];
                let codes = apart(&x[(LONG_CODES + part * 8) * N..(LONG_CODES + 8 + part * 8) * N]);
                let start = 256 + 256 * part;
                if when != ANY_TIME {
                    // Each line of the head twice, instead of all of them at once.
                    ahead_now::<H, _>(at::<32>(blocks[0], 32 * part));
                }
                match when {
                    DONE => {
                        for i in 0..4 {
                            ahead_now::<H, _>(at::<64>(blocks[0], start + 64 * i));
                        }
                        nibble_block::<H, DONE, _, _, _>(&mut sums, blocks, start, codes);
                    }
                    NOW => nibble_block::<H, NOW, _, _, _>(&mut sums, blocks, start, codes),
                    _ => nibble_block::<H, ANY_TIME, _, _, _>(&mut sums, blocks, start, codes),
                }
                for r in 0..R {
                    factored(&mut dots[r], &sums[r], widened(factors[r].0[part]));
                }
            }
            for r in 0..R {
                scaled(&mut total[r], &dots[r], &x[..N], halves(at(blocks[r], 0)));
                let mins = &factors[r].1;
                let mut sums = [_mm512_setzero_si512(); N];
                for i in 0..4 {
                    let factors = pair(widened(mins[2 * i]), widened(mins[2 * i + 1]));
                    pairs(&mut sums, factors, &x[(LONG_THIRTIES + i) * N..(LONG_THIRTIES + 1 + i) * N]);
                }
                // The sign of a product is exact.
                let min = _mm512_sub_ps(_mm512_set1_ps(-0.0), halves(at(blocks[r], 32)));
                scaled(&mut total[r], &sums, &x[..N], min);
            }
        }
        total
    }

    fn q6_k<const H: i32, const R: usize, const N: usize>(
        groups: [&[u8]; R],
        x: &[u32],
        mut total: Totals<R, N>,
    ) -> Totals<R, N> {
        let groups = blocks::<R, 3360>(groups);
        for (index, x) in x.chunks_exact(LONG_WORDS * N).enumerate() {
            let (x, blocks) = (apart(x), row(&groups, index));
            let mut dots = [[_mm512_setzero_si512(); N]; R];
            for r in 0..R {
                at::<256>(blocks[r], 32).as_chunks::<64>().0.iter().for_each(ahead_to::<H, _>);
                // What the codes' zero, 32, adds to the dot products.
                let mut zeros = [_mm512_setzero_si512(); N];
                for i in 0..8 {
                    let factors = pair(q6_k_factor(blocks[r], 2 * i), q6_k_factor(blocks[r], 2 * i + 1));
                    pairs(&mut zeros, factors, &x[(LONG_SIXTEENS + i) * N..(LONG_SIXTEENS + 1 + i) * N]);
                }
                for n in 0..N {
                    dots[r][n] = _mm512_sub_epi32(dots[r][n], _mm512_slli_epi32::<5>(zeros[n]));
                }
            }
            for part in 0..16 {
                let mut sums = [[_mm512_setzero_si512(); N]; R];
                let x = apart(&x[(LONG_CODES + part * 4) * N..(LONG_CODES + 4 + part * 4) * N]);
                let bits = streams::<H, NOW, _, _>(blocks, 288 + 192 * part + 128);
                for half in 0..2 {
                    let both = streams::<H, NOW, _, _>(blocks, 288 + 192 * part + 64 * half);
                    let (mut low, mut high) = (both, both);
                    for r in 0..R {
                        // The two high bits of each of four codes, lowest first.
                        (low[r], high[r]) = match half {
                            0 => (_mm512_slli_epi16::<4>(bits[r]), _mm512_slli_epi16::<2>(bits[r])),
                            _ => (bits[r], _mm512_srli_epi16::<2>(bits[r])),
                        };
                        low[r] = with_bits(low_nibbles(both[r]), low[r]);
                        high[r] = with_bits(high_nibbles(both[r]), high[r]);
                    }
                    dot(&mut sums, low, &x[2 * half * N..(2 * half + 1) * N]);
                    dot(&mut sums, high, &x[(2 * half + 1) * N..(2 * half + 2) * N]);
                }
                for r in 0..R {
                    factored(&mut dots[r], &sums[r], q6_k_factor(blocks[r], part));
                }
            }
            for r in 0..R {
                scaled(&mut total[r], &dots[r], &x[..N], halves(at(blocks[r], 0)));
            }
        }
        total
    }

    fn with_bits(low: __m512i, bits: __m512i) -> __m512i {
        _mm512_or_si512(low, _mm512_and_si512(bits, _mm512_set1_epi8(0x30)))
    }

    fn q6_k_factor(block: &[u8; 3360], part: usize) -> __m512i {
        _mm512_cvtepi8_epi32(load_quarter(at(block, 32 + 16 * part)))
    }

    fn of_f32(w: &[u8; 64]) -> __m512 {
        _mm512_castsi512_ps(load(w))
    }

    fn of_bf16(w: &[u8; 32]) -> __m512 {
        ahead(w);
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(load_half(w))))
    }

    /// Each of four numbers in all lanes.
    fn of_each(x: &[f32; 4]) -> [__m512; 4] {
        // SAFETY: four floats are there; the load needs no alignment.
        let mut all = _mm512_broadcast_f32x4(unsafe { _mm_loadu_ps(x.as_ptr()) });
        // SAFETY: a comment is assembled, so that the compiler does not load each of them after all.
        unsafe { asm!("/* {0} */", inout(zmm_reg) all, options(pure, nomem, nostack, preserves_flags)) };
        [
            _mm512_permute_ps::<0x00>(all),
            _mm512_permute_ps::<0x55>(all),
            _mm512_permute_ps::<0xaa>(all),
            _mm512_permute_ps::<0xff>(all),
        ]
    }

    fn one<const N: usize, const L: usize, const BYTES: usize>(
        group: &[u8],
        x: &[f32],
        widen: impl Fn(&[u8; BYTES]) -> __m512,
        out: &mut Sums<N>,
    ) {
        let mut total = load_sums(out);
        for (w, x) in group.as_chunks().0.iter().zip(x.as_chunks::<N>().0) {
            let w = widen(w);
            let x = apart(x);
            for n in 0..L {
                total[n] = _mm512_fmadd_ps(w, _mm512_set1_ps(x[n]), total[n]);
            }
            if L < N {
                let numbers = of_each(x[L..].first_chunk().expect("four more columns"));
                for n in L..N {
                    total[n] = _mm512_fmadd_ps(w, numbers[n - L], total[n]);
                }
            }
        }
        store_sums(out, &total);
    }

    pub(super) fn widen_floats(layout: Layout, bytes: &[u8], wide: &mut [u8]) {
        for (bytes, wide) in bytes.as_chunks().0.iter().zip(wide.as_chunks_mut::<64>().0) {
            let x = if layout == Layout::F16 { stream_halves::<FIRST>(bytes) } else { of_bf16(bytes) };
            // SAFETY: 64 bytes are there; the store needs no alignment.
            unsafe { _mm512_storeu_ps(wide.as_mut_ptr().cast(), x) }
        }
    }

    /// `out[r][n] += groups[r] . column n` for a tile of an integer layout; `H`: the cache that is hinted to.
    pub(super) fn integers<const H: i32, const R: usize, const N: usize>(
        layout: Layout,
        groups: [&[u8]; R],
        x: &[u32],
        ends: Ends<'_, R>,
    ) {
        let total: Totals<R, N> = load_all(&ends);
        let total = match layout {
            Layout::Q4_0 => q4_0::<H, R, N>(groups, x, total),
            Layout::Q4_K => q4_k::<H, R, N>(groups, x, total),
            Layout::Q6_K => q6_k::<H, R, N>(groups, x, total),
            Layout::Q8 => q8::<H, R, N>(groups, x, total),
            Layout::Affine => affine::<H, R, N>(groups, x, total),
            Layout::F32 | Layout::F16 | Layout::Bf16 => unreachable!("integer layouts only"),
        };
        store_all(ends, &total);
    }

    /// `out[n] += group . column n` for a tile of a float layout; numbers of the last `N - L` columns come with one load.
    pub(super) fn floats<const N: usize, const L: usize>(layout: Layout, group: &[u8], x: &[f32], out: &mut Sums<N>) {
        match layout {
            Layout::F16 => one::<N, L, _>(group, x, |w| stream_halves::<FIRST>(w), out),
            Layout::Bf16 => one::<N, L, _>(group, x, |w| of_bf16(w), out),
            _ => one::<N, L, _>(group, x, |w| of_f32(w), out),
        }
    }
}
