//! How the groups of a matrix are cut into parts of a job.
//!
//! Every thread has equally many parts, which follow each other in memory: one long stream is read faster than pieces of
//! one. They are several, so that one that is held up does not hold up all.

use std::ops::Range;

use super::pool::share;

/// The cut of one matrix.
pub(super) struct Cut {
    groups: usize,
    /// Groups that stay together.
    unit: usize,
    threads: usize,
    /// Parts of the share of a thread. Some may be empty, where there are few groups.
    pub(super) parts: usize,
    halving: bool,
}

impl Cut {
    /// Parts of about `step` units.
    pub(super) fn even(groups: usize, unit: usize, threads: usize, step: usize) -> Self {
        let units = groups.div_ceil(unit).div_ceil(threads);
        Self {
            groups,
            unit,
            threads,
            parts: units.div_ceil(step.clamp(1, units.div_ceil(4))),
            halving: false,
        }
    }

    /// Parts that are half of what is left of the share, down to about `last` units: as few as leave threads little to
    /// wait for at the end.
    pub(super) fn halving(groups: usize, unit: usize, threads: usize, last: usize) -> Self {
        let units = groups.div_ceil(unit).div_ceil(threads);
        let parts = (units / last.max(1)).max(1).ilog2() as usize + 1;
        Self { groups, unit, threads, parts, halving: true }
    }

    /// Groups of a part of a thread's share.
    pub(super) fn groups(&self, thread: usize, part: usize) -> Range<usize> {
        let mine = share(self.groups.div_ceil(self.unit), thread, self.threads);
        let len = mine.len();
        let units = if self.halving {
            let start = |part| if part < self.parts { len - (len >> part) } else { len };
            start(part)..start(part + 1)
        } else {
            share(len, part, self.parts)
        };
        self.unit * (mine.start + units.start)..self.groups.min(self.unit * (mine.start + units.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_is_in_one_part() {
        for groups in (1..40).chain([511, 512, 8016]) {
            for (unit, threads) in [(1, 1), (1, 2), (2, 2), (2, 3), (1, 16)] {
                for size in [1, 2, 5, 100] {
                    for cut in
                        [Cut::even(groups, unit, threads, size), Cut::halving(groups, unit, threads, size)]
                    {
                        let mut next = 0;
                        for thread in 0..threads {
                            for part in 0..cut.parts {
                                let part = cut.groups(thread, part);
                                if !part.is_empty() {
                                    assert_eq!((part.start, part.start % unit), (next, 0));
                                    next = part.end;
                                }
                            }
                        }
                        assert_eq!(next, groups, "{unit} {threads} {size}");
                    }
                }
            }
        }
    }

    #[test]
    fn parts_become_smaller_down_to_the_last() {
        let cut = Cut::halving(2 * 512, 1, 2, 2);
        let sizes: Vec<usize> = (0..cut.parts).map(|part| cut.groups(1, part).len()).collect();
        assert_eq!(sizes, [256, 128, 64, 32, 16, 8, 4, 2, 2]);
    }
}
