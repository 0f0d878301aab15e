//! Merging neighbouring symbols, best pair first: the heart of both kinds of BPE.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No symbol.
pub(super) const NONE: u32 = u32::MAX;

/// A run of bytes of the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Its number, [`NONE`] if it is in no vocabulary.
    pub(super) id: u32,
    prev: usize,
    next: usize,
}

const END: usize = usize::MAX;

/// Merges until no pair is left. `pair` gives the rank of a pair (lowest first; of equals the leftmost) and the merged
/// symbol's number.
pub(super) fn merge(
    symbols: impl Iterator<Item = (usize, usize, u32)>,
    pair: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>,
) -> Vec<Symbol> {
    let mut all: Vec<Symbol> = symbols
        .enumerate()
        .map(|(i, (start, end, id))| Symbol { start, end, id, prev: i.wrapping_sub(1), next: i + 1 })
        .collect();
    match all.last_mut() {
        Some(last) => last.next = END,
        None => return all,
    }
    let mut heap = BinaryHeap::new();
    let offer = |heap: &mut BinaryHeap<_>, all: &[Symbol], left: usize, right: usize| {
        if left != END
            && right != END
            && let Some((rank, id)) = pair(&all[left], &all[right])
        {
            // The ends tell whether both are still what they were.
            heap.push(Reverse((rank, left, all[left].end, right, all[right].end, id)));
        }
    };
    for i in 1..all.len() {
        offer(&mut heap, &all, i - 1, i);
    }
    while let Some(Reverse((_, left, left_end, right, right_end, id))) = heap.pop() {
        let alive = all[left].next == right && all[left].end == left_end && all[right].end == right_end;
        if !alive || all[right].start == all[right].end {
            continue;
        }
        let next = all[right].next;
        all[left].end = right_end;
        all[left].id = id;
        all[left].next = next;
        // Gone: empty and reached by nobody.
        all[right].start = right_end;
        all[right].next = END;
        if next != END {
            all[next].prev = left;
        }
        let prev = all[left].prev;
        offer(&mut heap, &all, prev, left);
        offer(&mut heap, &all, left, next);
    }
    all.retain(|symbol| symbol.start < symbol.end);
    all
}
