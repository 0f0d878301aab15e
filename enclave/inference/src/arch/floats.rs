//! Products of float matrices with several tiles of columns.
//!
//! Weights are taken a block of elements at a time: widened to f32 once, then multiplied with every tile while they are in
//! the cache. Sums stay with the thread until the last block; they take elements in order, as everywhere.

use std::cell::RefCell;
use std::ops::Range;

use super::LANES;
use super::activations::Activations;
use super::matmul::{float_layout_tile, float_pair_tile};
use super::memory::Memory;
use super::packed::{Layout, Packed};
use super::path::{Kind, Path};
use super::scalar;

/// Elements of a block: those of a tile's columns stay in the first-level cache while all groups of the strip pass by.
const BLOCK: usize = 384;
/// Groups of a strip: their block is 96 KiB of f32, in the second-level cache for all tiles.
pub(super) const STRIP: usize = 4;
/// Bytes of 16 widened elements.
const WIDE: usize = LANES * size_of::<f32>();

struct Room {
    /// The strip's block, widened. Wiped when the thread ends.
    panel: Memory,
    /// `[tile][group of the strip][columns]`.
    sums: Vec<[f32; LANES]>,
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::new(Room { panel: Memory::zeroed(STRIP * BLOCK * WIDE), sums: Vec::new() });
}

/// Computes `groups` for all columns; `put(tile, group, sums)` takes the results.
pub(super) fn part(
    path: Path,
    weights: &Packed,
    groups: Range<usize>,
    x: &Activations,
    mut put: impl FnMut(usize, usize, &[[f32; LANES]]),
) {
    let (layout, columns) = (weights.layout(), x.tile());
    ROOM.with_borrow_mut(|Room { panel, sums }| {
        for first in groups.clone().step_by(STRIP) {
            let strip = first..groups.end.min(first + STRIP);
            sums.clear();
            sums.resize(x.tiles() * strip.len() * columns, [0.0; LANES]);
            for start in (0..x.rows()).step_by(BLOCK) {
                let elements = start..x.rows().min(start + BLOCK);
                let bytes = elements.start * layout.block_bytes()..elements.end * layout.block_bytes();
                if layout != Layout::F32 {
                    for (group, wide) in strip.clone().zip(panel.chunks_exact_mut(BLOCK * WIDE)) {
                        widen(path, layout, &weights.group(group)[bytes.clone()], wide);
                    }
                }
                let block = |slot: usize| match layout {
                    Layout::F32 => &weights.group(first + slot)[bytes.clone()],
                    _ => &panel[slot * BLOCK * WIDE..][..elements.len() * WIDE],
                };
                for (tile, sums) in sums.chunks_exact_mut(strip.len() * columns).enumerate() {
                    let x = &x.floats(tile)[elements.start * columns..elements.end * columns];
                    for (pair, sums) in sums.chunks_mut(2 * columns).enumerate() {
                        let (first, second) = sums.split_at_mut(columns);
                        if second.is_empty() {
                            float_layout_tile(path, Layout::F32, block(2 * pair), x, columns, first);
                        } else {
                            let blocks = [block(2 * pair), block(2 * pair + 1)];
                            float_pair_tile(path, Layout::F32, blocks, x, columns, [first, second]);
                        }
                    }
                }
            }
            for (tile, sums) in sums.chunks_exact(strip.len() * columns).enumerate() {
                for (group, sums) in strip.clone().zip(sums.chunks_exact(columns)) {
                    put(tile, group, sums);
                }
            }
        }
    });
}

/// Writes 16-bit floats as f32 in native order of bytes.
fn widen(path: Path, layout: Layout, bytes: &[u8], wide: &mut [u8]) {
    match path.kind() {
        Kind::Scalar => scalar::widen(layout, bytes, wide),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a path of this kind exists only on CPUs with these instructions.
        Kind::Avx2 => unsafe { super::avx2::widen_floats(layout, bytes, wide) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Kind::Avx512 => unsafe { super::avx512::widen_floats(layout, bytes, wide) },
    }
}
