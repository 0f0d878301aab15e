//! What tiles can do at best.

use std::arch::asm;

use super::{COLUMNS, LANES, Line, Long, permitted};

/// Operations of a round of [`run`].
pub(in super::super::super) const OPERATIONS: usize = 4 * 2 * LANES * COLUMNS * size_of::<Line>();

/// Products of whole tiles in registers only, four sums in turn, so that none waits for itself.
///
/// # Panics
/// If there are no tiles, or no rounds.
pub(in super::super::super) fn run(rounds: usize) {
    assert!(permitted() && rounds > 0, "tiles of this CPU");
    // SAFETY: as asserted, and nothing between here and the end uses others.
    let _registers = unsafe { Long::new() };
    // SAFETY: all registers have shapes, which fit each other in these places, and are nobody else's.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
            "2:",
            "tdpbssd tmm0, tmm4, tmm6",
            "tdpbssd tmm1, tmm4, tmm7",
            "tdpbssd tmm2, tmm5, tmm6",
            "tdpbssd tmm3, tmm5, tmm7",
            "dec {rounds}",
            "jnz 2b",
            rounds = inout(reg) rounds => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, nomem),
        );
    }
}
