//! Products of codes: one step of all columns of a tile.
//!
//! In assembly, so that each word of activations is loaded right before it is used. The compiler would load many words
//! early, and has no registers left for sums.

use std::arch::asm;
use std::arch::x86_64::{__m256i, _mm256_set1_epi16};

/// Names the sums of a tile's columns; the widths there are kernels for.
macro_rules! columns {
    ($width:expr, $step:ident, $($operands:tt)*) => {
        match $width {
            1 => $step!($($operands)* 0 a0 b0),
            2 => $step!($($operands)* 0 a0 b0 1 a1 b1),
            3 => $step!($($operands)* 0 a0 b0 1 a1 b1 2 a2 b2),
            4 => $step!($($operands)* 0 a0 b0 1 a1 b1 2 a2 b2 3 a3 b3),
            other => unreachable!("no products of {other} columns"),
        }
    };
}

/// For each column: loads its word into `two`, makes products for both halves of the rows of it in `one` and `two`, and
/// adds them to the sums.
macro_rules! both_halves {
    (
        $products:literal, $add:literal, $sums:expr, $x:expr, [$($name:ident = $value:expr),*],
        $($n:literal $a:ident $b:ident)*
    ) => {{
        let [first, second] = $sums;
        let ([$($a),*], [$($b),*]) = (&mut first[..], &mut second[..]) else { unreachable!("as many sums as columns") };
        let (one, two): (__m256i, __m256i);
        // SAFETY: reads a word of `x` for each column, and changes the named registers only.
        unsafe {
            asm!(
                $(
                    concat!("vpbroadcastd {two}, dword ptr [{x} + 4*", $n, "]"),
                    $products,
                    concat!($add, " {", stringify!($a), "}, {", stringify!($a), "}, {one}"),
                    concat!($add, " {", stringify!($b), "}, {", stringify!($b), "}, {two}"),
                )*
                x = in(reg) $x.as_ptr(),
                $($name = in(ymm_reg) $value,)*
                one = out(ymm_reg) one,
                two = out(ymm_reg) two,
                $($a = inout(ymm_reg) *$a, $b = inout(ymm_reg) *$b,)*
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        let _ = (one, two);
    }};
}

/// `sums[h][n] += weights[h] * codes of column n`, each 16-bit sum two products.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn add_pairs<const N: usize>(sums: &mut [[__m256i; N]; 2], weights: [__m256i; 2], x: &[u32]) {
    assert!(x.len() >= N, "a word for each column");
    columns!(
        N,
        both_halves,
        "vpmaddubsw {one}, {first}, {two}
        vpmaddubsw {two}, {second}, {two}",
        "vpaddw",
        sums,
        x,
        [first = weights[0], second = weights[1]],
    );
}

/// `sums[h][n] += weights[h] * codes of column n` for signed weights and their magnitudes, 32-bit sums of four products.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn add_bytes<const N: usize>(
    sums: &mut [[__m256i; N]; 2],
    weights: [__m256i; 2],
    sizes: [__m256i; 2],
    x: &[u32],
) {
    assert!(x.len() >= N, "a word for each column");
    columns!(
        N,
        both_halves,
        "vpsignb {one}, {two}, {first}
        vpsignb {two}, {two}, {second}
        vpmaddubsw {one}, {size}, {one}
        vpmaddubsw {two}, {next_size}, {two}
        vpmaddwd {one}, {one}, {ones}
        vpmaddwd {two}, {two}, {ones}",
        "vpaddd",
        sums,
        x,
        [
            first = weights[0],
            second = weights[1],
            size = sizes[0],
            next_size = sizes[1],
            ones = _mm256_set1_epi16(1)
        ],
    );
}

macro_rules! add_factored {
    ($sums:expr, $weights:expr, $factor:expr, $x:expr, $($n:literal $a:ident $b:ident)*) => {{
        let [$($a),*] = &mut $sums[..] else { unreachable!("as many sums as columns") };
        let (one, two): (__m256i, __m256i);
        // SAFETY: reads four words of `x` for each column, and changes the named registers only.
        unsafe {
            asm!(
                $(
                    concat!("vpbroadcastd {one}, dword ptr [{x} + 4*", $n, "]"),
                    concat!("vpbroadcastd {two}, dword ptr [{x} + {columns} + 4*", $n, "]"),
                    "vpmaddubsw {one}, {w0}, {one}",
                    "vpmaddubsw {two}, {w1}, {two}",
                    "vpaddw {one}, {one}, {two}",
                    "vpmaddwd {one}, {one}, {factor}",
                    concat!("vpaddd {", stringify!($a), "}, {", stringify!($a), "}, {one}"),
                    concat!("vpbroadcastd {one}, dword ptr [{x} + 2*{columns} + 4*", $n, "]"),
                    concat!("vpbroadcastd {two}, dword ptr [{x} + 3*{columns} + 4*", $n, "]"),
                    "vpmaddubsw {one}, {w2}, {one}",
                    "vpmaddubsw {two}, {w3}, {two}",
                    "vpaddw {one}, {one}, {two}",
                    "vpmaddwd {one}, {one}, {factor}",
                    concat!("vpaddd {", stringify!($a), "}, {", stringify!($a), "}, {one}"),
                )*
                x = in(reg) $x.as_ptr(),
                columns = const 4 * S * N,
                w0 = in(ymm_reg) $weights[0],
                w1 = in(ymm_reg) $weights[1],
                w2 = in(ymm_reg) $weights[2],
                w3 = in(ymm_reg) $weights[3],
                factor = in(ymm_reg) $factor,
                one = out(ymm_reg) one,
                two = out(ymm_reg) two,
                $($a = inout(ymm_reg) *$a,)*
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        let _ = (one, two);
    }};
}

/// `sums[n] += factor * (weights * codes of column n)` for four words of codes, `S * N` apart, whose 16-bit sums fit two
/// deep.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn add_factored<const N: usize, const S: usize>(
    sums: &mut [__m256i; N],
    weights: [__m256i; 4],
    factor: __m256i,
    x: &[u32],
) {
    assert!(x.len() >= (3 * S + 1) * N, "four words for each column");
    columns!(N, add_factored, sums, weights, factor, x,);
}
