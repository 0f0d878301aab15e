//! Two groups of floats with a tile of columns: up to 24 sums in registers.
//!
//! In assembly, for the say in how a product gets its number. With a load of its own in the same instruction a third fewer
//! operations are left: 5 to 15 % faster where the core's other half is busy. With one load for both products half as many
//! loads are left: about a tenth faster where a core does two of them in a cycle and two products as well. The compiler
//! does neither for long: it runs out of registers, or chooses addresses that the CPU takes apart into two operations again.

use std::arch::asm;

use super::super::LANES;
use super::super::packed::Layout;
use super::super::prefetch::AHEAD;

/// Widest tile: more sums do not fit the registers.
pub(in super::super) const MAX_COLUMNS: usize = 12;

/// The products of both groups with one column.
macro_rules! product {
    (each $a:literal $b:literal) => {
        concat!(
            "vfmadd231ps zmm",
            $a,
            ", zmm30, dword ptr [{x} + 4*",
            $a,
            "]{{1to16}}\n",
            "vfmadd231ps zmm",
            $b,
            ", zmm31, dword ptr [{x} + 4*",
            $a,
            "]{{1to16}}",
        )
    };
    (once $a:literal $b:literal) => {
        concat!(
            "vbroadcastss zmm29, dword ptr [{x} + 4*",
            $a,
            "]\n",
            "vfmadd231ps zmm",
            $a,
            ", zmm30, zmm29\n",
            "vfmadd231ps zmm",
            $b,
            ", zmm31, zmm29",
        )
    };
}

/// All elements of both groups; `$load` fills zmm30 and zmm31 with those at `v` and at `v + far`. Of each pair the first
/// number is the column and the register of its sum in the first group, the second that in the second.
macro_rules! multiply {
    ($how:ident, $groups:expr, $x:expr, $first:expr, $second:expr, $bytes:literal, [$($load:literal)*], $columns:literal: $($a:literal $b:literal)*) => {
        asm!(
            $(concat!("vmovups zmm", $a, ", [{first} + 64*", $a, "]"),)*
            $(concat!("vmovups zmm", $b, ", [{second} + 64*", $a, "]"),)*
            "2:",
            $($load,)*
            $(
                product!($how $a $b),
            )*
            concat!("add {v}, ", $bytes),
            concat!("add {x}, 4*", $columns),
            "cmp {v}, {end}",
            "jne 2b",
            $(concat!("vmovups [{first} + 64*", $a, "], zmm", $a),)*
            $(concat!("vmovups [{second} + 64*", $a, "], zmm", $b),)*
            // The compiler does this behind vectors of its own. Without it every instruction of plain code that follows, on this
            // thread and for as long as nobody else does it, waits for the upper halves of its registers.
            "vzeroupper",
            // Not every `$load` hints.
            "/* {ahead} */",
            v = inout(reg) $groups[0].as_ptr() => _,
            far = in(reg) $groups[1].as_ptr().addr().wrapping_sub($groups[0].as_ptr().addr()),
            end = in(reg) $groups[0].as_ptr_range().end,
            x = inout(reg) $x.as_ptr() => _,
            first = in(reg) $first.as_mut_ptr(),
            second = in(reg) $second.as_mut_ptr(),
            ahead = const AHEAD,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
            out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
            out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _, out("zmm16") _, out("zmm17") _,
            out("zmm18") _, out("zmm19") _, out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
            out("zmm29") _, out("zmm30") _, out("zmm31") _,
            options(nostack),
        )
    };
}

macro_rules! by_width {
    ($width:expr, $($of:tt)*) => {
        match $width {
            1 => multiply!($($of)*, 1: 0 12),
            2 => multiply!($($of)*, 2: 0 12 1 13),
            3 => multiply!($($of)*, 3: 0 12 1 13 2 14),
            4 => multiply!($($of)*, 4: 0 12 1 13 2 14 3 15),
            5 => multiply!($($of)*, 5: 0 12 1 13 2 14 3 15 4 16),
            6 => multiply!($($of)*, 6: 0 12 1 13 2 14 3 15 4 16 5 17),
            8 => multiply!($($of)*, 8: 0 12 1 13 2 14 3 15 4 16 5 17 6 18 7 19),
            10 => multiply!($($of)*, 10: 0 12 1 13 2 14 3 15 4 16 5 17 6 18 7 19 8 20 9 21),
            12 => multiply!($($of)*, 12: 0 12 1 13 2 14 3 15 4 16 5 17 6 18 7 19 8 20 9 21 10 22 11 23),
            other => unreachable!("no kernel for {other} columns"),
        }
    };
}

/// `out[group][column] += groups[group] . x[column]`, elements in order; `x` is `[element][columns]`. `once`: with one
/// load of a number for both groups.
///
/// # Panics
/// If lengths do not fit.
#[target_feature(enable = "avx512f")]
pub(in super::super) fn floats(
    layout: Layout,
    groups: [&[u8]; 2],
    x: &[f32],
    out: [&mut [[f32; LANES]]; 2],
    once: bool,
) {
    let [first, second] = out;
    let columns = first.len();
    assert!(
        groups[0].len().is_multiple_of(layout.block_bytes())
            && groups[0].len() == groups[1].len()
            && second.len() == columns
            && groups[0].len() * columns == x.len() * layout.block_bytes(),
        "lengths of a pair of groups"
    );
    if x.is_empty() {
        return;
    }
    macro_rules! by_form {
        ($width:expr, $($of:tt)*) => {
            match once {
                true => by_width!($width, once, $($of)*),
                false => by_width!($width, each, $($of)*),
            }
        };
    }
    // SAFETY: each round reads an element of both groups and a number of each column; there are whole elements, equally
    // many, at least one. `first` and `second` hold a sum for each column. Hints never fail. All registers that change are
    // named.
    unsafe {
        match layout {
            Layout::F16 => by_form!(columns, groups, x, first, second, 32, [
                "vcvtph2ps zmm30, ymmword ptr [{v}]" "prefetcht0 [{v} + {ahead}]"
                "vcvtph2ps zmm31, ymmword ptr [{v} + {far}]" "prefetcht0 [{v} + {far} + {ahead}]"
            ]),
            Layout::Bf16 => by_form!(columns, groups, x, first, second, 32, [
                "vpmovzxwd zmm30, ymmword ptr [{v}]" "prefetcht0 [{v} + {ahead}]" "vpslld zmm30, zmm30, 16"
                "vpmovzxwd zmm31, ymmword ptr [{v} + {far}]" "prefetcht0 [{v} + {far} + {ahead}]" "vpslld zmm31, zmm31, 16"
            ]),
            Layout::F32 => by_form!(columns, groups, x, first, second, 64, [
                "vmovups zmm30, [{v}]" "vmovups zmm31, [{v} + {far}]"
            ]),
            _ => unreachable!("float layouts only"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use std::arch::x86_64::__cpuid_count;

    use super::super::super::scalar;
    use super::*;

    /// Whether the upper halves of the first 16 registers hold anything; `None` where the CPU does not say.
    fn upper_halves_in_use() -> Option<bool> {
        let says = is_x86_feature_detected!("xsave") && __cpuid_count(0xd, 1).eax & 4 != 0;
        says.then(|| {
            let low: u32;
            // SAFETY: the CPU has the instruction in this form; it changes nothing but these registers.
            unsafe { asm!("xgetbv", in("ecx") 1, out("eax") low, out("edx") _, options(nomem, nostack)) };
            low & (1 << 2 | 1 << 6) != 0
        })
    }

    #[test]
    fn both_forms_give_the_sums_of_the_specification_and_do_not_slow_plain_code() {
        if !is_x86_feature_detected!("avx512f") {
            eprintln!("this CPU has no AVX-512: nothing to look at");
            return;
        }
        for columns in [1, 2, 3, 4, 5, 6, 8, 10, 12] {
            let x: Vec<f32> = (0..4 * columns as u16).map(|i| f32::from(i) * 0.7 - 3.0).collect();
            for layout in [Layout::F32, Layout::F16, Layout::Bf16] {
                // Small numbers in each layout.
                let group = |seed: u8| {
                    (0..4 * layout.block_bytes()).map(|i| (i as u8 ^ seed) & 63).collect::<Vec<_>>()
                };
                let groups = [group(3), group(5)];
                let mut want = [[[1.0; LANES]; 12]; 2];
                for (group, want) in groups.iter().zip(&mut want) {
                    scalar::floats(layout, group, &x, columns, &mut want[..columns]);
                }
                for once in [false, true] {
                    let mut got = [[[1.0; LANES]; 12]; 2];
                    let [first, second] = &mut got;
                    let out = [&mut first[..columns], &mut second[..columns]];
                    // SAFETY: looked for above.
                    unsafe { floats(layout, [&groups[0], &groups[1]], &x, out, once) };
                    assert!(upper_halves_in_use() != Some(true), "{layout:?}, {columns} columns");
                    assert_eq!(got, want, "{layout:?}, {columns} columns, {once}");
                }
            }
        }
    }
}
