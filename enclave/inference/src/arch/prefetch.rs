//! Weights are read from memory once for each step, front to back. A core that is told early what comes keeps more reads
//! under way: most likely because its own prefetchers know physical pages only, and start anew at each.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// How far ahead, bytes. 2048 and 8192 were no faster.
pub(super) const AHEAD: usize = 4096;
/// The same in long blocks, 2304 bytes or more: products with one column were 6 to 10 % faster than with [`AHEAD`]. Short
/// ones gained nothing by it.
const FAR_AHEAD: usize = 6144;

/// Asks for the line [`AHEAD`] of these bytes. It may lie anywhere: a hint never fails.
#[inline(always)]
pub(super) fn ahead<const N: usize>(bytes: &[u8; N]) {
    hint(bytes.as_ptr(), AHEAD);
}

/// The same for a part of a long block.
#[inline(always)]
pub(super) fn far_ahead<const N: usize>(bytes: &[u8; N]) {
    hint(bytes.as_ptr(), FAR_AHEAD);
}

#[inline(always)]
fn hint(start: *const u8, distance: usize) {
    // SAFETY: every x86-64 CPU has the instruction; it reads nothing that a program could notice.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(distance).cast()) }
}
