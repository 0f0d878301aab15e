//! Weights are read from memory once for each step, front to back. The CPU's own prefetchers stop at each page of 4096
//! bytes and start anew slowly; told early what comes, a core keeps more reads under way.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// How far ahead.
const AHEAD: usize = 4096;

/// Asks for the line [`AHEAD`] of these bytes. It may lie anywhere: a hint never fails.
#[inline(always)]
pub(super) fn ahead<const N: usize>(bytes: &[u8; N]) {
    // SAFETY: every x86-64 CPU has the instruction; it reads nothing that a program could notice.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(AHEAD).cast()) }
}
