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
    /// `[column][words]` before threads that shared them join them in tiles.
    words: Lines<u32>,
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

/// From so many elements on, threads share the columns of a tile.
const SHARED: usize = 1 << 14;

/// So many elements of a column are worth a thread of their own.
const PIECE: usize = 2048;

/// What a thread fills tiles from; kept, since zeroing it anew costs as much as filling it.
#[derive(Default)]
struct Room {
    rows: Lines<f32>,
    words: Lines<u32>,
}

impl Room {
    /// Makes room for so many, whatever was in it.
    fn with(&mut self, rows: usize, words: usize) -> (&mut [f32], &mut [u32]) {
        self.rows.resize(rows);
        self.words.resize(words);
        (&mut self.rows, &mut self.words)
    }
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::new(Room::default());
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

    /// As [`Self::fill`], of columns of which each element stands for itself: `piece(i, start, out)` writes those from
    /// `start` on of column `i`, so that threads share one that is alone.
    ///
    /// # Panics
    /// As there.
    pub fn fill_pieces(
        &mut self,
        path: Path,
        pool: &Pool,
        (n, len): (usize, usize),
        forms: Forms,
        piece: impl Fn(usize, usize, &mut [f32]) + Sync,
    ) {
        let step = len.div_ceil(pool.threads()).max(PIECE).next_multiple_of(256);
        if n != 1 || len <= step {
            return self.fill(path, pool, (n, len), forms, |i, out| piece(i, 0, out));
        }
        let (short, long) = self.shape(path, (n, len), forms);
        let f = Elementwise::new(path);
        let (mut shorts, mut longs, mut floats) = (&mut *self.short, &mut *self.long, &mut *self.floats);
        let mut parts: Vec<_> = (0..len)
            .step_by(step)
            .map(|start| {
                let count = step.min(len - start);
                Tile {
                    columns: 1,
                    short: split_off(&mut shorts, short * count / len),
                    long: split_off(&mut longs, long * count / len),
                    floats: split_off(&mut floats, if forms.float { count } else { 0 }),
                }
            })
            .collect();
        pool.chunks_mut(&mut parts, 1, |part, tiles| {
            let [tile] = tiles else { unreachable!("parts of one piece") };
            ROOM.with_borrow_mut(|room| {
                let (row, _) = room.with(step.min(len - part * step), 0);
                piece(0, part * step, row);
                quantize(f, forms, row, (tile.short, tile.long));
                if forms.float {
                    tile.floats.copy_from_slice(row);
                }
            });
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

    /// Makes room for `n` columns of `len` elements. Returns the words of a column in each form of integers.
    fn shape(&mut self, path: Path, (n, len): (usize, usize), forms: Forms) -> (usize, usize) {
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
        (short, long)
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
        let (short, long) = self.shape(path, (n, len), forms);
        let (by_column, tile, last, tiles) = (self.by_column, self.tile, self.last, self.tiles());
        let values = if forms.float { len } else { 0 };
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
        let quantize = |row: &[f32], words: &mut [u32]| {
            assert_eq!(row.len(), len, "elements of a column");
            quantize(f, forms, row, words.split_at_mut(short));
        };
        let arrange = |words: &[u32], tile: &mut Tile<'_>| {
            let columns = words.chunks_exact(short + long);
            let (mut shorts, mut longs) = ([&[][..]; MAX_COLUMNS], [&[][..]; MAX_COLUMNS]);
            let count = columns.len();
            for ((to_short, to_long), words) in shorts.iter_mut().zip(&mut longs).zip(columns) {
                (*to_short, *to_long) = words.split_at(short);
            }
            if by_column {
                by_columns::<BLOCK_WORDS>(&shorts[..count], CODES, tile.columns, tile.short);
                by_columns::<LONG_WORDS>(&longs[..count], LONG_CODES, tile.columns, tile.long);
            } else {
                turn(path, &shorts[..count], tile.columns, tile.short);
                turn(path, &longs[..count], tile.columns, tile.long);
            }
        };
        let words = short + long;
        if tiles < pool.threads() && !forms.float && n * len >= SHARED {
            self.words.resize(n * words);
            pool.chunks_mut(&mut self.words, words, |i, words| {
                ROOM.with_borrow_mut(|room| {
                    let (row, _) = room.with(len, 0);
                    quantize(column(i, row).unwrap_or(row), words);
                });
            });
            parts
                .iter_mut()
                .zip(self.words.chunks(tile * words))
                .for_each(|(tile, words)| arrange(words, tile));
            return;
        }
        pool.chunks_mut(&mut parts, 1, |part, tiles| {
            let columns = part * tile..n.min((part + 1) * tile);
            let count = columns.len();
            ROOM.with_borrow_mut(|room| {
                let (rows, codes) = room.with(len * if forms.float { count } else { 1 }, count * words);
                let [tile] = tiles else { unreachable!("parts of one tile") };
                if forms.float {
                    // Turned once all of them are there: written column by column, each would touch every line of the tile.
                    let mut all = [&[][..]; MAX_COLUMNS];
                    for (slot, (i, row)) in columns.zip(rows.chunks_exact_mut(len)).enumerate() {
                        all[slot] = column(i, row).unwrap_or(row);
                        quantize(all[slot], &mut codes[slot * words..(slot + 1) * words]);
                    }
                    turn(path, &all[..count], tile.columns, tile.floats);
                } else {
                    for (i, words) in columns.zip(codes.chunks_exact_mut(words)) {
                        quantize(column(i, rows).unwrap_or(rows), words);
                    }
                }
                if words > 0 {
                    arrange(codes, tile);
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

/// Writes columns of words in blocks of which the heads lie word by word, and the codes behind them column by column.
fn by_columns<const BLOCK: usize>(columns: &[&[u32]], head: usize, width: usize, out: &mut [u32]) {
    for (index, out) in out.chunks_exact_mut(BLOCK * width).enumerate() {
        let (heads, codes) = out.split_at_mut(head * width);
        for (slot, (column, codes)) in columns.iter().zip(codes.chunks_exact_mut(BLOCK - head)).enumerate() {
            let (first, rest) = column[index * BLOCK..][..BLOCK].split_at(head);
            first.iter().enumerate().for_each(|(i, word)| heads[i * width + slot] = *word);
            codes.copy_from_slice(rest);
        }
    }
}

/// Writes the wanted codes of some rows of a column.
fn quantize(f: Elementwise, forms: Forms, row: &[f32], (short, long): (&mut [u32], &mut [u32])) {
    if forms.short {
        f.quantize_short(row, short);
    }
    if forms.long {
        f.quantize_long(row, long);
    }
}

fn split_off<'data, T>(rest: &mut &'data mut [T], len: usize) -> &'data mut [T] {
    let (first, others) = std::mem::take(rest).split_at_mut(len);
    *rest = others;
    first
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "tests")]
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
    fn pieces_are_what_whole_columns_are() {
        let element = |column: usize, i: usize| ((column + 3) * i % 97) as f32 - 48.0;
        let all = Forms { short: true, long: true, float: true };
        for forms in
            [all, Forms { long: true, ..Forms::default() }, Forms { float: true, ..Forms::default() }]
        {
            for path in Path::available() {
                for (n, len) in [(1, 256), (1, 2 * PIECE), (1, 3 * PIECE + 256), (2, 2 * PIECE)] {
                    let (mut whole, mut pieces) = (Activations::default(), Activations::default());
                    whole.fill(path, &Pool::new(1), (n, len), forms, |i, out| {
                        out.iter_mut().enumerate().for_each(|(at, x)| *x = element(i, at));
                    });
                    // What is left of others is overwritten.
                    pieces.fill(path, &Pool::new(1), (1, 5 * PIECE), forms, |_, out| out.fill(7.0));
                    pieces.fill_pieces(path, &Pool::new(3), (n, len), forms, |i, start, out| {
                        out.iter_mut().zip(start..).for_each(|(x, at)| *x = element(i, at));
                    });
                    assert_eq!((pieces.columns(), pieces.rows()), (n, len));
                    let got = |x: &Activations| {
                        (x.short.to_vec(), x.long.to_vec(), x.floats.to_vec(), x.tile, x.has_floats)
                    };
                    assert!(got(&whole) == got(&pieces), "{path}, {n} of {len}");
                }
            }
        }
    }

    #[test]
    fn codes_of_tiles_lie_column_by_column_behind_the_heads() {
        const BLOCK: usize = 7;
        let (head, width, blocks) = (3, 4, 2);
        let word = |column: usize, i: usize| (100 * column + i) as u32;
        let columns: Vec<Vec<u32>> =
            (0..3).map(|column| (0..BLOCK * blocks).map(|i| word(column, i)).collect()).collect();
        let columns: Vec<&[u32]> = columns.iter().map(Vec::as_slice).collect();
        let mut out = vec![u32::MAX; BLOCK * blocks * width];
        by_columns::<BLOCK>(&columns, head, width, &mut out);
        for (index, block) in out.chunks(BLOCK * width).enumerate() {
            for column in 0..width {
                for i in 0..BLOCK {
                    let at = if i < head {
                        i * width + column
                    } else {
                        head * width + column * (BLOCK - head) + i - head
                    };
                    let want = if column < 3 { word(column, index * BLOCK + i) } else { u32::MAX };
                    assert_eq!(block[at], want, "block {index}, column {column}, word {i}");
                }
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
