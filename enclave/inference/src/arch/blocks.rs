//! Products with several tiles of columns.
//!
//! Weights are taken a block of elements at a time and multiplied with every tile while they are in the cache; floats of
//! 16 bits are widened to f32 once for all of them. Sums stay with the thread until the last block; they take elements in
//! order, as everywhere.

use std::cell::RefCell;
use std::ops::Range;

use super::LANES;
use super::activations::Activations;
use super::ends::Ends;
use super::matmul::{Results, tile_of_groups};
use super::memory::Memory;
use super::packed::{Layout, Packed};
use super::path::{Kind, Path};
use super::scalar;

/// Elements of a block of floats: those of a tile's columns stay in the first-level cache while all groups of the strip
/// pass by.
const FLOATS: usize = 384;
/// Elements of a block of integers: whole blocks of every layout. Half of it has sums loaded and stored too often; twice as
/// many were as fast.
const INTEGERS: usize = 512;
/// Groups of a strip: their block is at most 96 KiB, in the second-level cache for all tiles.
pub(super) const STRIP: usize = 4;
/// Tiles whose sums are kept from block to block: 192 KiB for 12 columns, in the second-level cache.
const TILES: usize = 64;
/// Bytes of 16 widened elements.
const WIDE: usize = LANES * size_of::<f32>();

struct Room {
    /// The strip's block, widened. Wiped when the thread ends.
    panel: Memory,
    /// `[tile][group of the strip][columns]`.
    sums: Vec<[f32; LANES]>,
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::new(Room { panel: Memory::zeroed(STRIP * FLOATS * WIDE), sums: Vec::new() });
}

/// Computes `groups` for all columns.
pub(super) fn part(
    path: Path,
    weights: &Packed,
    groups: Range<usize>,
    x: &Activations,
    results: &Results<'_>,
) {
    let (layout, widest) = (weights.layout(), x.tile());
    let len = if layout.is_float() { FLOATS } else { INTEGERS };
    // Results are written at once, not all together behind the last block: 4 % faster with Q4_0, but Q4_K was 5 % slower,
    // most likely since what its kernel keeps in memory waits behind such stores.
    let place = |tile, groups| if layout.is_long() { None } else { results.place(tile, groups) };
    ROOM.with_borrow_mut(|Room { panel, sums }| {
        for (first, from) in groups
            .clone()
            .step_by(STRIP)
            .flat_map(|first| (0..x.tiles()).step_by(TILES).map(move |from| (first, from)))
        {
            let strip = first..groups.end.min(first + STRIP);
            let tiles = from..x.tiles().min(from + TILES);
            // Written before they are read.
            sums.resize(tiles.len() * strip.len() * widest, [0.0; LANES]);
            for start in (0..x.rows()).step_by(len) {
                let elements = start..x.rows().min(start + len);
                let bytes = layout.bytes_of(&elements);
                let widened = layout.is_float() && layout != Layout::F32;
                if widened {
                    for (group, wide) in strip.clone().zip(panel.chunks_exact_mut(FLOATS * WIDE)) {
                        widen(path, layout, &weights.group(group)[bytes.clone()], wide);
                    }
                }
                let block = |slot: usize| match widened {
                    true => &panel[slot * FLOATS * WIDE..][..elements.len() * WIDE],
                    false => &weights.group(first + slot)[bytes.clone()],
                };
                for (tile, sums) in tiles.clone().zip(sums.chunks_exact_mut(strip.len() * widest)) {
                    let columns = x.width(tile);
                    let sums = &mut sums[..strip.len() * columns];
                    for (pair, sums) in sums.chunks_mut(2 * columns).enumerate() {
                        let (sums, next) = sums.split_at_mut(columns);
                        let (one, two) = (block(2 * pair), (!next.is_empty()).then(|| block(2 * pair + 1)));
                        let held = if widened { Layout::F32 } else { layout };
                        let groups = first + 2 * pair..strip.end.min(first + 2 * pair + 2);
                        let to = if elements.end == x.rows() { place(tile, groups) } else { None };
                        if let Some(to) = &to {
                            to.soon();
                        }
                        let ends = Ends { kept: [sums, next], fresh: start == 0, to };
                        tile_of_groups(path, held, (one, two), x, (tile, &elements), ends);
                    }
                }
            }
            for (tile, sums) in tiles.zip(sums.chunks_exact(strip.len() * widest)) {
                let columns = x.width(tile);
                for (pair, sums) in sums[..strip.len() * columns].chunks(2 * columns).enumerate() {
                    let groups = first + 2 * pair..strip.end.min(first + 2 * pair + 2);
                    if place(tile, groups.clone()).is_none() {
                        let (sums, next) = sums.split_at(columns);
                        results.put(tile, groups, [sums, next]);
                    }
                }
            }
        }
    });
}

/// Writes 16-bit floats as f32 in native order of bytes.
pub(super) fn widen(path: Path, layout: Layout, bytes: &[u8], wide: &mut [u8]) {
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
