//! Weights are read from memory once for each step, front to back. A core that is told early what comes keeps more reads
//! under way: most likely because its own prefetchers know physical pages only, and start anew at each.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// How far ahead in one stream, bytes. 8192 was no faster. With 4096 products with one column were 5 to 11 % slower, those
/// of Q4_0 and Q8_0 with AVX-512 excepted.
const AHEAD: usize = 6144;
/// How far ahead in each of two streams, bytes. 2048 and 6144 were slower.
pub(super) const AHEAD_OF_TWO: usize = 4096;

/// Asks for the line [`AHEAD`] of these bytes. It may lie anywhere: a hint never fails.
#[inline(always)]
pub(super) fn ahead<const N: usize>(bytes: &[u8; N]) {
    // SAFETY: every x86-64 CPU has the instruction; it reads nothing that a program could notice.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(AHEAD).cast()) }
}
