//! Weights are read from memory once for each step, front to back. A core that is told early what comes keeps more reads
//! under way: most likely because its own prefetchers know physical pages only, and start anew at each.

use std::arch::asm;
use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};

/// How far ahead in one stream, bytes. 8192 was no faster. With 4096 products with one column were 5 to 11 % slower, those
/// of Q4_0 and Q8_0 with AVX-512 excepted.
const AHEAD: usize = 6144;
/// How far ahead in each of two streams, bytes. 2048 and 6144 were slower.
pub(super) const AHEAD_OF_TWO: usize = 4096;

/// Into the first-level cache,
pub(super) const FIRST: i32 = _MM_HINT_T0;
/// or the second. On a CPU with AMX 1 to 4 sequences generated 1.08 to 1.14 times as fast so on 4-bit weights (on Q8_0 1.02
/// times alone, 1.09 with four), 16 sequences up to 1.05 times; f16 was as fast. Most likely lines wait for memory outside
/// of the few buffers of the first level then. CPUs without AMX were not measured.
pub(super) const SECOND: i32 = _MM_HINT_T1;

/// When a kernel that reads a vector of weights asks for the one [`AHEAD`] of it: when the compiler likes,
pub(super) const ANY_TIME: u8 = 0;
/// right before,
pub(super) const NOW: u8 = 1;
/// or not at all, since it was asked for already.
pub(super) const DONE: u8 = 2;

/// Asks for the line [`AHEAD`] of these bytes, for the cache `LEVEL`. It may lie anywhere: a hint never fails. The compiler
/// decides when: mostly for a whole block at once, behind its products.
#[inline(always)]
pub(super) fn ahead_to<const LEVEL: i32, const N: usize>(bytes: &[u8; N]) {
    // SAFETY: every x86-64 CPU has the instruction; it reads nothing that a program could notice.
    unsafe { _mm_prefetch::<LEVEL>(bytes.as_ptr().wrapping_add(AHEAD).cast()) }
}

/// As [`ahead_to`], here and now. Products of Q4_0 with 4 to 16 columns read weights 10 to 16 % faster so, of Q6_K 4 to 10 %,
/// and 3 % of either may be noise; most likely since hints that come all at once take the buffers in which lines wait. That
/// was on an Intel CPU with AMX; AMD's were not measured.
#[inline(always)]
pub(super) fn ahead_now<const LEVEL: i32, const N: usize>(bytes: &[u8; N]) {
    macro_rules! hint {
        ($name:literal) => {
            // SAFETY: as above.
            unsafe {
                asm!(
                    concat!($name, " [{} + {}]"),
                    in(reg) bytes.as_ptr(),
                    const AHEAD,
                    options(readonly, nostack, preserves_flags),
                );
            }
        };
    }
    match LEVEL {
        SECOND => hint!("prefetcht1"),
        _ => hint!("prefetcht0"),
    }
}

/// [`ahead_to`] the first level.
#[inline(always)]
pub(super) fn ahead<const N: usize>(bytes: &[u8; N]) {
    ahead_to::<FIRST, N>(bytes);
}
