//! A batch of columns in the kernels' layout.
//!
//! Columns are taken in tiles of up to 12, so that a kernel holds their sums in registers and finds everything it needs
//! behind one pointer. Integer tiles hold, for each 32 rows of a column, 8-bit codes with one f32 step: symmetric,
//! `step = max |x| / 127`, rounded to nearest, ties to even. A column's codes depend on nothing but the column.

use super::lanes::Elementwise;
use super::path::Path;
use super::pool::Pool;

/// Words of an integer tile's block for each column: step, -8 sum, -128 sum, two times -32 half-sum, step * sum, and 8
/// words of codes. The sums fold the zero points of unsigned weight codes into the start value of an integer sum.
pub(super) const BLOCK_WORDS: usize = 14;

/// `n` columns of `len` elements each, as integers, as floats, or both.
#[derive(Debug, Default)]
pub struct Activations {
    len: usize,
    n: usize,
    tile: usize,
    /// `[tile][block][BLOCK_WORDS x columns]`.
    integers: Vec<u32>,
    /// `[tile][len][columns]`.
    floats: Vec<f32>,
}

/// Columns of each tile, all alike, for `n` columns: as few tiles as possible, and no wider than needed.
fn tile_columns(n: usize, max: usize) -> usize {
    let wanted = n.div_ceil(n.div_ceil(max).max(1)).max(1);
    // The widths kernels exist for.
    [1, 2, 3, 4, 5, 6, 8, 10, 12].into_iter().find(|width| *width >= wanted).unwrap_or(max)
}

impl Activations {
    /// Takes `n` columns of `len` elements. `column(i, out)` writes column `i`; it is called from all threads.
    ///
    /// # Panics
    /// If integers are wanted and `len` is no multiple of 32.
    pub fn fill(
        &mut self,
        path: Path,
        pool: &Pool,
        (n, len): (usize, usize),
        (integers, floats): (bool, bool),
        column: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        assert!(!integers || len.is_multiple_of(32), "integer activations: {len} is no multiple of 32");
        let tile = tile_columns(n, path.max_columns());
        let tiles = n.div_ceil(tile);
        (self.len, self.n, self.tile) = (len, n, tile);
        let words = if integers { len / 32 * BLOCK_WORDS * tile } else { 0 };
        let values = if floats { len * tile } else { 0 };
        // What is left of earlier batches is overwritten, or belongs to columns that only fill up the last tile.
        self.integers.resize(words * tiles, 0);
        self.floats.resize(values * tiles, 0.0);
        let f = Elementwise::new(path);
        let fill = |part: usize, words: &mut [u32], values: &mut [f32]| {
            let mut row = vec![0.0; len];
            for slot in 0..tile.min(n - part * tile) {
                column(part * tile + slot, &mut row);
                if integers {
                    quantize(f, &row, words, slot, tile);
                }
                if floats {
                    values.iter_mut().skip(slot).step_by(tile).zip(&row).for_each(|(to, x)| *to = *x);
                }
            }
        };
        match (integers, floats) {
            (true, false) => pool.chunks_mut(&mut self.integers, words, |i, words| fill(i, words, &mut [])),
            (false, true) => pool.chunks_mut(&mut self.floats, values, |i, values| fill(i, &mut [], values)),
            _ if words == 0 || values == 0 => {}
            _ => {
                let floats = &mut self.floats;
                let mut both: Vec<_> =
                    self.integers.chunks_mut(words).zip(floats.chunks_mut(values)).collect();
                pool.chunks_mut(&mut both, 1, |i, pair| {
                    for (words, values) in pair {
                        fill(i, words, values);
                    }
                });
            }
        }
    }

    /// Columns.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.n
    }

    /// Elements of a column.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.len
    }

    /// Columns of a tile.
    pub(super) fn tile(&self) -> usize {
        self.tile
    }

    /// Tiles.
    pub(super) fn tiles(&self) -> usize {
        self.n.div_ceil(self.tile.max(1))
    }

    /// Integer words of a tile.
    pub(super) fn integers(&self, tile: usize) -> &[u32] {
        let words = self.len / 32 * BLOCK_WORDS * self.tile;
        &self.integers[tile * words..][..words]
    }

    /// Floats of a tile.
    pub(super) fn floats(&self, tile: usize) -> &[f32] {
        let values = self.len * self.tile;
        &self.floats[tile * values..][..values]
    }
}

/// Writes one column into its slot of an integer tile.
fn quantize(f: Elementwise, row: &[f32], words: &mut [u32], slot: usize, tile: usize) {
    let blocks = words.chunks_exact_mut(BLOCK_WORDS * tile);
    for (block, x) in blocks.zip(row.as_chunks::<32>().0) {
        let mut codes = [0i8; 32];
        let step = f.quantize(x, &mut codes);
        let sum = |codes: &[i8]| codes.iter().map(|code| i32::from(*code)).sum::<i32>();
        let (first, second) = (sum(&codes[..16]), sum(&codes[16..]));
        let total = first + second;
        #[expect(clippy::cast_precision_loss, reason = "at most 32 * 128")]
        let weighted = step * total as f32;
        let head = [step.to_bits(), (-8 * total).cast_unsigned(), (-128 * total).cast_unsigned()];
        let halves = [(-32 * first).cast_unsigned(), (-32 * second).cast_unsigned(), weighted.to_bits()];
        for (i, word) in head.into_iter().chain(halves).enumerate() {
            block[i * tile + slot] = word;
        }
        for (i, quad) in codes.as_chunks::<4>().0.iter().enumerate() {
            block[(6 + i) * tile + slot] = u32::from_le_bytes(quad.map(i8::cast_unsigned));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_even() {
        let widths = [1, 2, 7, 12, 13, 16, 17, 24, 25, 512].map(|n| tile_columns(n, 12));
        assert_eq!(widths, [1, 2, 8, 12, 8, 8, 10, 12, 10, 12]);
        assert_eq!([1, 6, 7, 9, 16].map(|n| tile_columns(n, 6)), [1, 6, 4, 5, 6]);
        assert_eq!([1, 4, 5, 9].map(|n| tile_columns(n, 4)), [1, 4, 3, 3]);
    }
}
