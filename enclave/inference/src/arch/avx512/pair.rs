//! Two groups of floats with a tile of columns: up to 24 sums in registers.
//!
//! In assembly, for the say in how products get their numbers: one load for both. A core that does two loads in a cycle and
//! two products as well has none to spare for a load in each. (That takes fewer operations, and was 5 to 15 % faster on a
//! machine whose cores others used too; it is given up.) The compiler runs out of registers, or chooses addresses that the
//! CPU takes apart into two operations again.

use std::arch::asm;

use super::super::LANES;
use super::super::ends::Ends;
use super::super::packed::Layout;
use super::super::prefetch::AHEAD_OF_TWO;

/// Widest tile: more sums do not fit the registers.
pub(in super::super) const MAX_COLUMNS: usize = 12;

/// All elements of all pieces of both groups; `$load` fills zmm30 and zmm31 with those at `v` and at `v + far`. Of each pair the first
/// number is the column and the register of its sum in the first group, the second that in the second.
macro_rules! multiply {
    ($pairs:expr, $x:expr, $sums:expr, $to:expr, $bytes:literal, [$($load:literal)*], $columns:literal: $($a:literal $b:literal)*) => {
        asm!(
            "test {from}, {from}",
            "jz 3f",
            $(concat!("vmovups zmm", $a, ", [{from} + 64*", $a, "]"),)*
            $(concat!("vmovups zmm", $b, ", [{from} + {next} + 64*", $a, "]"),)*
            "jmp 2f",
            "3:",
            $(concat!("vpxord zmm", $a, ", zmm", $a, ", zmm", $a),)*
            $(concat!("vpxord zmm", $b, ", zmm", $b, ", zmm", $b),)*
            // Each piece,
            "2:",
            "mov {v}, [{list}]",
            "lea {end}, [{v} + {len}]",
            // and each element of it.
            "4:",
            $($load,)*
            // The number of each column, and its products with both groups.
            $(
                concat!("vbroadcastss zmm29, dword ptr [{x} + 4*", $a, "]"),
                concat!("vfmadd231ps zmm", $a, ", zmm30, zmm29"),
                concat!("vfmadd231ps zmm", $b, ", zmm31, zmm29"),
            )*
            concat!("add {v}, ", $bytes),
            concat!("add {x}, 4*", $columns),
            "cmp {v}, {end}",
            "jne 4b",
            "add {list}, 8",
            "cmp {list}, {last}",
            "jne 2b",
            $(
                concat!("vmovups [{to}], zmm", $a),
                concat!("vmovups [{to} + {beside}], zmm", $b),
                "add {to}, {stride}",
            )*
            // The compiler does this behind vectors of its own. Without it every instruction of plain code that follows, on this
            // thread and for as long as nobody else does it, waits for the upper halves of its registers.
            "vzeroupper",
            // Not every `$load` hints.
            "/* {ahead} */",
            v = out(reg) _,
            end = out(reg) _,
            list = inout(reg) $pairs.starts.as_ptr() => _,
            last = in(reg) $pairs.starts.as_ptr_range().end,
            len = in(reg) $pairs.len,
            far = in(reg) $pairs.far,
            x = inout(reg) $x.as_ptr() => _,
            from = in(reg) $sums.0,
            next = in(reg) $sums.1,
            to = inout(reg) $to.0 => _,
            beside = in(reg) $to.1,
            stride = in(reg) $to.2,
            ahead = const AHEAD_OF_TWO,
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

/// Two groups that lie in pieces.
pub(in super::super) struct Pairs<'a> {
    /// Where those of the first begin.
    pub(in super::super) starts: &'a [*const u8],
    /// Bytes of each.
    pub(in super::super) len: usize,
    /// From there to that of the second, bytes, around the end of memory if need be.
    pub(in super::super) far: usize,
}

/// `sums[group][column] += groups[group] . x[column]`, pieces and their elements in order; `x` is `[element][columns]`.
///
/// # Panics
/// If lengths do not fit.
///
/// # Safety
/// `pairs` must be what it says: so many bytes of both groups, from each of the starts on.
#[target_feature(enable = "avx512f")]
pub(in super::super) unsafe fn floats(layout: Layout, pairs: &Pairs<'_>, x: &[f32], ends: Ends<'_, 2>) {
    let Ends { kept: [first, second], fresh, to } = ends;
    let columns = first.len();
    assert!(
        pairs.len.is_multiple_of(layout.block_bytes())
            && second.len() == columns
            && pairs.starts.len() * pairs.len * columns == x.len() * layout.block_bytes()
            && !x.is_empty(),
        "lengths of a pair of groups"
    );
    let (first, second) = (first.as_mut_ptr().cast::<f32>(), second.as_mut_ptr().cast::<f32>());
    let next = second.addr().wrapping_sub(first.addr());
    let sums = (if fresh { std::ptr::null_mut() } else { first }, next);
    // The first column's sums, how many bytes those of the second group are from them, and those of the next column.
    let to = match &to {
        None => (first, next, size_of::<[f32; LANES]>()),
        Some(place) => {
            let (start, stride) = place.of_columns(columns);
            (start, size_of::<[f32; LANES]>(), stride * size_of::<f32>())
        }
    };
    // SAFETY: each round reads an element of both groups and a number of each column; there are whole elements of each
    // piece, at least one, and numbers for all of them. `first` and `second` hold a sum for each column, and a place does. Hints never fail. All
    // registers that change are named.
    unsafe {
        match layout {
            Layout::F16 => by_width!(columns, pairs, x, sums, to, 32, [
                "vcvtph2ps zmm30, ymmword ptr [{v}]" "prefetcht0 [{v} + {ahead}]"
                "vcvtph2ps zmm31, ymmword ptr [{v} + {far}]" "prefetcht0 [{v} + {far} + {ahead}]"
            ]),
            Layout::Bf16 => by_width!(columns, pairs, x, sums, to, 32, [
                "vpmovzxwd zmm30, ymmword ptr [{v}]" "prefetcht0 [{v} + {ahead}]" "vpslld zmm30, zmm30, 16"
                "vpmovzxwd zmm31, ymmword ptr [{v} + {far}]" "prefetcht0 [{v} + {far} + {ahead}]" "vpslld zmm31, zmm31, 16"
            ]),
            Layout::F32 => by_width!(columns, pairs, x, sums, to, 64, [
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

    use super::super::super::ends::Place;
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
    fn pairs_give_the_sums_of_the_specification_and_do_not_slow_plain_code() {
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
                let mut got = [[[1.0; LANES]; 12]; 2];
                let [first, second] = &mut got;
                let kept = [&mut first[..columns], &mut second[..columns]];
                let ends = Ends { kept, fresh: false, to: None };
                let far = groups[1].as_ptr().addr().wrapping_sub(groups[0].as_ptr().addr());
                let pairs = Pairs { starts: &[groups[0].as_ptr()], len: groups[0].len(), far };
                // SAFETY: looked for above, and both groups are as long as the first.
                unsafe { floats(layout, &pairs, &x, ends) };
                assert!(upper_halves_in_use() != Some(true), "{layout:?}, {columns} columns");
                assert_eq!(got, want, "{layout:?}, {columns} columns");

                // In two calls, which begin with what is there at zero and end in a result with gaps.
                let half = 2 * layout.block_bytes();
                let mut result = vec![7.0f32; columns * 40];
                // SAFETY: 40 numbers of each column, of which 32 are written.
                let place = unsafe { Place::new(result.as_mut_ptr().add(4), 40, columns) };
                for (from, x, fresh, to) in
                    [(0, &x[..2 * columns], true, None), (half, &x[2 * columns..], false, Some(place))]
                {
                    let [first, second] = &mut got;
                    let kept = [&mut first[..columns], &mut second[..columns]];
                    let pairs = Pairs { starts: &[groups[0][from..].as_ptr()], len: half, far };
                    // SAFETY: as above, half of both.
                    unsafe { floats(layout, &pairs, x, Ends { kept, fresh, to }) };
                }
                // In one call, of pieces that lie the other way around.
                let turned = |group: &[u8]| [&group[half..], &group[..half]].concat();
                let turned = [turned(&groups[0]), turned(&groups[1])];
                let far = turned[1].as_ptr().addr().wrapping_sub(turned[0].as_ptr().addr());
                let starts = [turned[0][half..].as_ptr(), turned[0].as_ptr()];
                let [first, second] = &mut got;
                let kept = [&mut first[..columns], &mut second[..columns]];
                let ends = Ends { kept, fresh: true, to: None };
                // SAFETY: as above, half of both from each start on.
                unsafe { floats(layout, &Pairs { starts: &starts, len: half, far }, &x, ends) };
                for (column, result) in result.chunks(40).enumerate() {
                    assert_eq!((&result[..4], &result[36..]), (&[7.0; 4][..], &[7.0; 4][..]));
                    for (group, result) in result[4..36].chunks(LANES).enumerate() {
                        let mut want = [[0.0; LANES]; 12];
                        scalar::floats(layout, &groups[group], &x, columns, &mut want[..columns]);
                        assert_eq!(result, want[column], "{layout:?}, {columns} columns");
                        assert_eq!(got[group][column], want[column], "{layout:?}, {columns} columns");
                    }
                }
            }
        }
    }
}
