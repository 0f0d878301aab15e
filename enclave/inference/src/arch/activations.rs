//! A batch of columns in the kernels' layout.
//!
//! Columns are taken in tiles of up to 16, so that a kernel holds their sums in registers and finds everything it needs
//! behind one pointer. All are alike but the last, which may be narrower. Integer tiles hold, for each 32 or, for the long layouts, each 256 rows of a column, 8-bit codes
//! with one f32 step: symmetric, `step = max |x| / 127`, rounded to nearest, ties to even. A column's codes depend on
//! nothing but the column.

use std::cell::RefCell;
use std::ops::Range;

use super::lanes::Elementwise;
use super::lines::Lines;
use super::matmul::MAX_COLUMNS;
use super::packed::Packed;
use super::path::Path;
use super::pool::Pool;
use super::turn::turn;

/// Words of a block of 32 rows for each column: step, -8 sum, -128 sum, step * sum, and 8 words of codes. The sums fold
/// the zero points of unsigned weight codes into the start value of an integer sum.
pub(super) const BLOCK_WORDS: usize = CODES + 8;
/// Where `step * sum` is,
pub(super) const STEP_SUM: usize = 3;
/// and the codes begin.
pub(super) const CODES: usize = 4;
/// Words of a block of 256 rows for each column: step, sums of each 16 codes and then of each 32 as pairs of i16, and 64
/// words of codes.
pub(super) const LONG_WORDS: usize = LONG_CODES + 64;
/// Where the sums of 16 codes begin,
pub(super) const LONG_SIXTEENS: usize = 1;
/// those of 32,
pub(super) const LONG_THIRTIES: usize = 9;
/// and the codes.
pub(super) const LONG_CODES: usize = 13;

/// In which forms activations are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forms {
    /// Integers with a step for each 32 rows.
    pub short: bool,
    /// Integers with a step for each 256 rows.
    pub long: bool,
    /// Floats.
    pub float: bool,
}

impl Forms {
    /// What products with these matrices need.
    #[must_use]
    pub fn of(stack: &[&Packed]) -> Self {
        let mut forms = Self::default();
        for layout in stack.iter().map(|weights| weights.layout()) {
            forms.float |= layout.is_float();
            forms.long |= layout.is_long();
            forms.short |= !layout.is_float() && !layout.is_long();
        }
        forms
    }
}

/// `n` columns of `len` elements each, in some of the three forms.
#[derive(Debug, Default)]
pub struct Activations {
    len: usize,
    n: usize,
    tile: usize,
    /// Columns of the last tile.
    last: usize,
    /// Whether the codes of a block lie column by column, as AMX wants them, and not word by word.
    by_column: bool,
    /// `[tile][block][BLOCK_WORDS x columns]`.
    short: Lines<u32>,
    /// `[tile][block][LONG_WORDS x columns]`.
    long: Lines<u32>,
    /// `[tile][len][columns]`, where they are of these columns and not of earlier ones.
    floats: Lines<f32>,
    has_floats: bool,
}

/// Columns from which on tiles paid where it was measured: 1.1 to 1.3 times the vectors with 32, 0.9 with 16 and 24.
const COLUMNS_FOR_TILES: usize = 32;

/// Columns of each tile but the last, for `n` columns.
fn tile_columns(n: usize, path: Path, forms: Forms) -> usize {
    let (widths, max) = (path.widths(forms), path.max_columns(forms));
    if let Some(width) = widths.iter().find(|width| **width >= n) {
        return *width;
    }
    if path.in_shares(forms) {
        // As few columns as possible, where unpacking the codes for a tile costs what half a column does: 12 instructions
        // for half of the rows and 32 elements, a column about 24.
        let cost = |width: &&usize| n.div_ceil(**width) * (2 * **width + 1);
        return widths.iter().min_by_key(cost).copied().unwrap_or(max);
    }
    // As few tiles as possible, and no wider than needed.
    let wanted = n.div_ceil(n.div_ceil(max));
    widths.iter().find(|width| **width >= wanted).copied().unwrap_or(max)
}

thread_local! {
    /// The columns of the tile that this thread fills; kept, since zeroing it anew costs as much as filling it.
    static ROWS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// A tile that is being written.
struct Tile<'data> {
    columns: usize,
    short: &'data mut [u32],
    long: &'data mut [u32],
    floats: &'data mut [f32],
}

impl Activations {
    /// Takes `n` columns of `len` elements. `column(i, out)` writes column `i`; it is called from all threads.
    ///
    /// # Panics
    /// If integers are wanted and `len` is no multiple of 32 (short) or 256 (long).
    pub fn fill(
        &mut self,
        path: Path,
        pool: &Pool,
        shape: (usize, usize),
        forms: Forms,
        column: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        self.fill_with(path, pool, shape, forms, |i, out| {
            column(i, out);
            None
        });
    }

    /// As [`Self::fill`], of columns that are there: `column(i)` is column `i`.
    ///
    /// # Panics
    /// As there, and if one has not `len` elements.
    pub fn take<'a>(
        &mut self,
        path: Path,
        pool: &Pool,
        shape: (usize, usize),
        forms: Forms,
        column: impl Fn(usize) -> &'a [f32] + Sync,
    ) {
        self.fill_with(path, pool, shape, forms, |i, _| Some(column(i)));
    }

    /// `column` writes what it is given, or returns what is there.
    fn fill_with<'a>(
        &mut self,
        path: Path,
        pool: &Pool,
        (n, len): (usize, usize),
        forms: Forms,
        column: impl Fn(usize, &mut [f32]) -> Option<&'a [f32]> + Sync,
    ) {
        let whole = |rows: usize, wanted: bool| !wanted || len.is_multiple_of(rows);
        assert!(whole(32, forms.short) && whole(256, forms.long), "integer activations of {len} rows");
        let by_column = path.has_tiles() && n >= COLUMNS_FOR_TILES && (forms.short || forms.long);
        let tile = if by_column { 16 } else { tile_columns(n, path, forms) };
        let tiles = n.div_ceil(tile);
        let left = n - tiles.saturating_sub(1) * tile;
        let narrower = path.widths(forms).iter().find(|width| **width >= left);
        let last = if by_column { tile } else { narrower.copied().unwrap_or(tile) };
        (self.len, self.n, self.tile, self.last, self.by_column) = (len, n, tile, last, by_column);
        self.has_floats = forms.float;
        let if_wanted = |wanted: bool, size: usize| if wanted { size } else { 0 };
        let short = if_wanted(forms.short, len / 32 * BLOCK_WORDS);
        let long = if_wanted(forms.long, len / 256 * LONG_WORDS);
        let values = if_wanted(forms.float, len);
        // What is left of earlier batches is overwritten, or belongs to columns that only fill up the last tile.
        let columns = tiles.saturating_sub(1) * tile + last;
        self.short.resize(short * columns);
        self.long.resize(long * columns);
        self.floats.resize(values * columns);
        let (mut shorts, mut longs, mut floats) = (&mut *self.short, &mut *self.long, &mut *self.floats);
        let mut parts: Vec<_> = (0..tiles)
            .map(|index| {
                let columns = if index + 1 < tiles { tile } else { last };
                Tile {
                    columns,
                    short: split_off(&mut shorts, short * columns),
                    long: split_off(&mut longs, long * columns),
                    floats: split_off(&mut floats, values * columns),
                }
            })
            .collect();
        let f = Elementwise::new(path);
        let codes = |slot: usize, row: &[f32], tile: &mut Tile<'_>| {
            let place = Place { slot, tile: tile.columns, by_column };
            if forms.short {
                quantize(f, row, tile.short, place);
            }
            if forms.long {
                quantize_long(f, row, tile.long, place);
            }
        };
        let write = |i: usize, room: &mut [f32]| {
            let row = column(i, room);
            assert!(row.is_none_or(|row| row.len() == len), "column {i} has {len} elements");
            row
        };
        pool.chunks_mut(&mut parts, 1, |part, tiles| {
            let columns = part * tile..n.min((part + 1) * tile);
            ROWS.with_borrow_mut(|rows| {
                let wanted = len * if forms.float { columns.len() } else { 1 };
                if rows.len() < wanted {
                    rows.resize(wanted, 0.0);
                }
                for tile in tiles {
                    if forms.float {
                        // Turned round once all of them are there: written column by column, each would touch every line
                        // of the tile. Those that only fill it up are like the first.
                        let mut all: [&[f32]; MAX_COLUMNS] = [&[]; MAX_COLUMNS];
                        for ((to, room), i) in
                            all.iter_mut().zip(rows.chunks_exact_mut(len)).zip(columns.clone())
                        {
                            *to = write(i, room).unwrap_or(room);
                        }
                        let first = all[0];
                        all[columns.len()..].fill(first);
                        all.iter()
                            .enumerate()
                            .take(columns.len())
                            .for_each(|(slot, row)| codes(slot, row, tile));
                        turn(path, &all[..tile.columns], (0, tile.columns), tile.floats);
                    } else {
                        for (slot, i) in columns.clone().enumerate() {
                            let room = &mut rows[..len];
                            codes(slot, write(i, room).unwrap_or(room), tile);
                        }
                    }
                }
            });
        });
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

    /// Columns of a tile that is not the last one, which may have fewer.
    pub(super) fn tile(&self) -> usize {
        self.tile
    }

    /// Columns of this tile, those that only fill it up among them.
    pub(super) fn width(&self, tile: usize) -> usize {
        if tile + 1 < self.tiles() { self.tile } else { self.last }
    }

    /// Whether codes lie column by column, in tiles of 16.
    pub(super) fn by_column(&self) -> bool {
        self.by_column
    }

    /// Tiles.
    pub(super) fn tiles(&self) -> usize {
        self.n.div_ceil(self.tile.max(1))
    }

    /// Integer words of `rows` of a tile, with a step for each 32 rows or for each 256.
    pub(super) fn integers(&self, tile: usize, rows: &Range<usize>, long: bool) -> &[u32] {
        let (all, block, words) =
            if long { (&self.long, 256, LONG_WORDS) } else { (&self.short, 32, BLOCK_WORDS) };
        let at =
            |row: usize| tile * self.tile * self.len / block * words + row / block * words * self.width(tile);
        &all[at(rows.start)..at(rows.end)]
    }

    /// Floats of `rows` of a tile.
    pub(super) fn floats(&self, tile: usize, rows: &Range<usize>) -> &[f32] {
        assert!(self.has_floats, "float activations were not asked for");
        let at = |row: usize| tile * self.tile * self.len + row * self.width(tile);
        &self.floats[at(rows.start)..at(rows.end)]
    }
}

/// Where a column goes in its tile.
#[derive(Clone, Copy)]
struct Place {
    slot: usize,
    tile: usize,
    by_column: bool,
}

fn split_off<'data, T>(rest: &mut &'data mut [T], len: usize) -> &'data mut [T] {
    let (first, others) = std::mem::take(rest).split_at_mut(len);
    *rest = others;
    first
}

fn sum(codes: &[i8]) -> i32 {
    codes.iter().map(|code| i32::from(*code)).sum()
}

/// Writes one column into its slot of a tile with a step for each 32 rows.
fn quantize(f: Elementwise, row: &[f32], words: &mut [u32], place: Place) {
    let Place { slot, tile, .. } = place;
    let blocks = words.chunks_exact_mut(BLOCK_WORDS * tile);
    for (block, x) in blocks.zip(row.as_chunks::<32>().0) {
        let mut codes = [0i8; 32];
        let step = f.quantize(x, &mut codes);
        let total = sum(&codes);
        #[expect(clippy::cast_precision_loss, reason = "at most 32 * 128")]
        let weighted = step * total as f32;
        block[slot] = step.to_bits();
        block[tile + slot] = (-8 * total).cast_unsigned();
        block[2 * tile + slot] = (-128 * total).cast_unsigned();
        block[STEP_SUM * tile + slot] = weighted.to_bits();
        put_codes(&codes, &mut block[CODES * tile..], place);
    }
}

/// Writes one column into its slot of a tile with a step for each 256 rows.
fn quantize_long(f: Elementwise, row: &[f32], words: &mut [u32], place: Place) {
    let Place { slot, tile, .. } = place;
    let blocks = words.chunks_exact_mut(LONG_WORDS * tile);
    for (block, x) in blocks.zip(row.as_chunks::<256>().0) {
        let mut codes = [0i8; 256];
        block[slot] = f.quantize(x, &mut codes).to_bits();
        let mut sixteens = [0i32; 16];
        for (sum_of, codes) in sixteens.iter_mut().zip(codes.as_chunks::<16>().0) {
            *sum_of = sum(codes);
        }
        // At most 32 * 127: two fit a word.
        let pair = |low: i32, high: i32| (low & 0xffff | high << 16).cast_unsigned();
        for (i, two) in sixteens.as_chunks::<2>().0.iter().enumerate() {
            block[(LONG_SIXTEENS + i) * tile + slot] = pair(two[0], two[1]);
        }
        for (i, four) in sixteens.as_chunks::<4>().0.iter().enumerate() {
            block[(LONG_THIRTIES + i) * tile + slot] = pair(four[0] + four[1], four[2] + four[3]);
        }
        put_codes(&codes, &mut block[LONG_CODES * tile..], place);
    }
}

fn put_codes(codes: &[i8], words: &mut [u32], place: Place) {
    let quads = codes.as_chunks::<4>().0;
    let (first, step) =
        if place.by_column { (place.slot * quads.len(), 1) } else { (place.slot, place.tile) };
    for (i, quad) in quads.iter().enumerate() {
        words[first + i * step] = u32::from_le_bytes(quad.map(i8::cast_unsigned));
    }
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, reason = "tests")]
mod tests {
    use super::*;
    use crate::arch::path::Kind;

    #[test]
    fn the_last_tile_is_no_wider_than_needed() {
        let forms = Forms { float: true, ..Forms::default() };
        for path in Path::available() {
            for n in 1..80 {
                let mut x = Activations::default();
                x.fill(path, &Pool::new(1), (n, 3), forms, |i, out| out.fill(i as f32));
                let left = n - (x.tiles() - 1) * x.tile();
                let want = path.widths(forms).iter().find(|width| **width >= left).copied();
                assert_eq!(Some(x.width(x.tiles() - 1)), want, "{path}, {n} columns");
                let mut first = 0;
                for tile in 0..x.tiles() {
                    let count = x.width(tile).min(n - first);
                    for row in x.floats(tile, &(1..3)).chunks(x.width(tile)) {
                        let want: Vec<f32> = (first..first + count).map(|i| i as f32).collect();
                        assert_eq!(row[..count], want, "{path}, {n} columns, tile {tile}");
                    }
                    first += count;
                }
                assert_eq!(first, n, "{path}");
            }
        }
    }

    #[test]
    fn tiles_are_even() {
        let (integers, floats) =
            (Forms { long: true, ..Forms::default() }, Forms { float: true, ..Forms::default() });
        let both = Forms { short: true, float: true, ..Forms::default() };
        for path in Path::available() {
            let widths = |forms| {
                [1, 2, 5, 6, 7, 9, 12, 13, 16, 17, 24, 25, 65, 512].map(|n| tile_columns(n, path, forms))
            };
            let got = [integers, floats, both].map(widths);
            let narrow = [1, 2, 3, 3, 4, 3, 4, 4, 4, 4, 4, 4, 4, 4];
            let wide = [1, 2, 5, 6, 8, 10, 12, 16, 16, 10, 12, 10, 12, 12];
            match (path.kind(), path.integer_pairs()) {
                (Kind::Scalar, _) => assert_eq!(got, [narrow; 3]),
                #[cfg(target_arch = "x86_64")]
                (Kind::Avx2, _) => {
                    let shares = [1, 2, 6, 6, 8, 9, 12, 16, 16, 9, 12, 9, 6, 16];
                    let six = [1, 2, 5, 6, 4, 5, 6, 5, 6, 6, 6, 5, 6, 6];
                    assert_eq!(got, [shares, six, narrow]);
                }
                #[cfg(target_arch = "x86_64")]
                (Kind::Avx512, false) => assert_eq!(got, [wide; 3]),
                #[cfg(target_arch = "x86_64")]
                (Kind::Avx512, true) => {
                    let pairs = [1, 2, 5, 6, 8, 10, 12, 16, 16, 6, 6, 5, 6, 6];
                    assert_eq!(got, [pairs, wide, wide]);
                }
            }
        }
    }
}
