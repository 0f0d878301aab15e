//! Integer products of two groups with the same columns.
//!
//! In assembly, so that each word of activations is loaded once for both groups, right before it is used: loads, two in a
//! cycle, would be the limit otherwise, and the compiler loads many words early and has no registers left for sums.

use std::arch::asm;
use std::arch::x86_64::__m512i;

/// Widest tile: twice as many sums leave registers for as many totals, or as sums of sums.
pub(in super::super) const MAX_COLUMNS: usize = 6;

macro_rules! products {
    ($first:expr, $second:expr, $weights:expr, $x:expr, $($n:literal $a:ident $b:ident)*) => {{
        let ([$($a),*], [$($b),*]) = (&mut *$first, &mut *$second) else { unreachable!("as many sums as columns") };
        // Its type names the width of the register.
        let word: __m512i;
        // SAFETY: reads a word of `x` for each column, and changes the named registers only.
        unsafe {
            asm!(
                $(
                    concat!("vpbroadcastd {x}, dword ptr [{words} + 4*", $n, "]"),
                    concat!("vpdpbusd {", stringify!($a), "}, {first}, {x}"),
                    concat!("vpdpbusd {", stringify!($b), "}, {second}, {x}"),
                )*
                words = in(reg) $x.as_ptr(),
                first = in(zmm_reg) $weights[0],
                second = in(zmm_reg) $weights[1],
                x = out(zmm_reg) word,
                $($a = inout(zmm_reg) *$a, $b = inout(zmm_reg) *$b,)*
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        let _ = word;
    }};
}

/// `first[n] += weights[0] * codes of column n`, `second[n]` with `weights[1]`, four columns of the matrix at once.
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
pub(super) fn dot_two<const N: usize>(
    first: &mut [__m512i; N],
    second: &mut [__m512i; N],
    weights: [__m512i; 2],
    x: &[u32],
) {
    assert!(x.len() >= N, "a word for each column");
    match N {
        5 => products!(&mut first[..], &mut second[..], weights, x, 0 a0 b0 1 a1 b1 2 a2 b2 3 a3 b3 4 a4 b4),
        6 => {
            products!(&mut first[..], &mut second[..], weights, x, 0 a0 b0 1 a1 b1 2 a2 b2 3 a3 b3 4 a4 b4 5 a5 b5);
        }
        other => unreachable!("no kernel for two groups and {other} columns"),
    }
}
