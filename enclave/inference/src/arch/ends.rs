//! Where the sums of groups with the columns of a tile begin, and where they end.

use super::LANES;

/// Both ends of the sums of `R` groups.
pub(super) struct Ends<'a, const R: usize> {
    /// `[column]` of each group.
    pub(super) kept: [&'a mut [[f32; LANES]]; R],
    /// Whether they begin at zero, whatever `kept` holds.
    pub(super) fresh: bool,
    /// Where they go instead of back to `kept`.
    pub(super) to: Option<Place>,
}

impl<'a> Ends<'a, 2> {
    /// Those of each group.
    pub(super) fn apart(self) -> [Ends<'a, 1>; 2] {
        let [one, two] = self.kept;
        let next = self.to.map(|to| Place { start: to.start.wrapping_add(LANES), ..to });
        [
            Ends { kept: [one], fresh: self.fresh, to: self.to },
            Ends { kept: [two], fresh: self.fresh, to: next },
        ]
    }
}

impl Ends<'_, 1> {
    /// Runs a kernel that adds to what is in memory and leaves it there.
    pub(super) fn add(self, kernel: impl FnOnce(&mut [[f32; LANES]])) {
        let [kept] = self.kept;
        if self.fresh {
            kept.fill([0.0; LANES]);
        }
        kernel(kept);
        if let Some(to) = self.to {
            let (start, stride) = to.of_columns(kept.len());
            for (column, sums) in kept.iter().enumerate() {
                // SAFETY: one of the columns `Place::new` was promised.
                unsafe { start.add(column * stride).cast::<[f32; LANES]>().write_unaligned(*sums) }
            }
        }
    }
}

/// Rows of a result that this thread alone writes.
#[derive(Clone, Copy)]
pub(super) struct Place {
    start: *mut f32,
    stride: usize,
    columns: usize,
}

impl Place {
    /// Of each of `columns` the numbers from `start + column * stride` on: 16 for each group of the sums that go there.
    ///
    /// # Safety
    /// All of them must be there, and until these sums are used nobody else may read or write them.
    pub(super) unsafe fn new(start: *mut f32, stride: usize, columns: usize) -> Self {
        Self { start, stride, columns }
    }

    /// The first number of the first column, and how many there are from one column to the next.
    ///
    /// # Panics
    /// If it is not one of so many columns.
    #[inline(always)]
    pub(super) fn of_columns(&self, columns: usize) -> (*mut f32, usize) {
        // Not `assert_eq`, which would have a copy made for its message: 1.4 % of an encoder's time.
        assert!(columns == self.columns, "columns of a place");
        (self.start, self.stride)
    }

    /// Asks for the lines of two groups, so that stores do not wait for them. Those of a single column come in order anyway.
    pub(super) fn soon(&self) {
        if self.columns == 1 {
            return;
        }
        #[cfg(target_arch = "x86_64")]
        for column in 0..self.columns {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            let at = self.start.wrapping_add(column * self.stride);
            // SAFETY: every x86-64 CPU has the instruction, or does nothing in its place; it changes nothing that a program
            // could notice.
            unsafe {
                _mm_prefetch::<_MM_HINT_ET0>(at.cast());
                _mm_prefetch::<_MM_HINT_ET0>(at.wrapping_add(LANES).cast());
            }
        }
    }
}
