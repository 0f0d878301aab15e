//! Attention of a batch of queries over a paged cache.
//!
//! For each query: scores are dot products in order of the head's elements; softmax subtracts the exact maximum and sums
//! in 16 lanes, lane = position mod 16; the result adds values in order of the positions. Positions a query may not see
//! have weight exactly 0, so other tokens of the batch change nothing. Queries that share a KV head are computed
//! together, which is where the time is saved.

use std::cell::RefCell;
use std::ops::Range;

use super::Architecture;
use super::kv_cache::{BLOCK, KvCache, PAGE, Page, Sequence};
use crate::arch::{Cells, Elementwise, Floats, LANES, Lines, Path, Pool, float_tile, float_tiles, turn};

/// Queries of one sequence: rows `first..first + count` of the batch are positions `start..start + count`.
#[derive(Debug)]
pub(crate) struct Span<'a> {
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) start: usize,
    pub(crate) sequence: &'a Sequence,
}

/// Columns computed at once.
const COLUMNS: usize = 12;
/// Widths there are kernels for, widest first.
const WIDTHS: [usize; 7] = [12, 10, 8, 6, 4, 2, 1];

/// What a thread computes in. Kept: to ask for it anew for every few columns was 2 % of an encoder's time.
#[derive(Default)]
struct Room {
    /// `[head_dim][columns]`; before that, keys of a page as they are written.
    queries: Lines<f32>,
    /// `[columns][positions]`.
    scores: Lines<f32>,
    /// `[positions][columns]`.
    weights: Lines<f32>,
    /// `[columns of the part][head_dim]`.
    results: Lines<f32>,
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::new(Room::default());
}

/// What one layer's attention needs.
#[derive(Debug)]
pub(crate) struct Attention<'a> {
    pub(crate) path: Path,
    pub(crate) architecture: &'a Architecture,
    pub(crate) cache: &'a KvCache,
    pub(crate) layer: usize,
    /// `[rows][q rows, then k and v]`.
    pub(crate) qkv: &'a [f32],
    /// Elements of a row of `qkv`.
    pub(crate) stride: usize,
    /// Whether a position sees earlier ones only; encoders see all.
    pub(crate) causal: bool,
}

impl Attention<'_> {
    /// Computes all spans. `out`: `[rows][n_heads][head_dim]`.
    pub(crate) fn run(&self, pool: &Pool, spans: &[Span<'_>], out: &mut [f32]) {
        let a = self.architecture;
        let group = a.n_heads / a.n_kv_heads;
        let together = (self.path.attention_columns() / group).max(1);
        let mut parts = Vec::new();
        for span in spans {
            // The longest rows first, so that the job does not end with one of them.
            for offset in (0..span.count).step_by(together).rev() {
                parts.extend((0..a.n_kv_heads).map(|head| (span, offset, head)));
            }
        }
        pool.cells(out, group * a.head_dim, parts.len(), |part, cells| {
            let (span, offset, head) = parts[part];
            self.tile(span, offset..span.count.min(offset + together), head, cells);
        });
    }

    /// Queries `tokens` of a span for one KV head.
    fn tile(&self, span: &Span<'_>, tokens: Range<usize>, head: usize, cells: &Cells<'_, f32>) {
        let a = self.architecture;
        let group = a.n_heads / a.n_kv_heads;
        let count = tokens.len() * group;
        ROOM.with_borrow_mut(|room| {
            room.results.resize(count * a.head_dim);
            let mut done = 0;
            while done < count {
                let max = (count - done).min(self.path.attention_columns());
                let width = WIDTHS.into_iter().find(|width| *width <= max).unwrap_or(1);
                self.columns(span, (tokens.start, done..done + width), head, room);
                done += width;
            }
            for (token, results) in tokens.zip(room.results.chunks_exact(group * a.head_dim)) {
                let cell = cells.take((span.first + token) * a.n_kv_heads + head);
                cell.copy_from_slice(results);
            }
        });
    }

    /// Columns of one KV head: its query heads of token `start`, then those of the next.
    fn columns(
        &self,
        span: &Span<'_>,
        (start, columns): (usize, Range<usize>),
        head: usize,
        room: &mut Room,
    ) {
        let a = self.architecture;
        let f = Elementwise::new(self.path);
        let (n, group) = (columns.len(), a.n_heads / a.n_kv_heads);
        let window = a.window(self.layer);
        let visible = |column: usize| {
            let token = start + column / group;
            let position = if self.causal { span.start + token } else { span.start + span.count - 1 };
            (window.map_or(0, |window| (position + 1).saturating_sub(window)), position + 1)
        };
        let first = columns.clone().map(|column| visible(column).0).min().unwrap_or(0) / PAGE;
        let end = columns.clone().map(|column| visible(column).1).max().unwrap_or(0).div_ceil(PAGE);
        let pages = &span.sequence.pages[first..end];
        let len = pages.len() * PAGE;

        // Every element of all of them is written before it is read.
        let Room { queries, scores, weights, results } = room;
        queries.resize(a.head_dim * n);
        scores.resize(n * len);
        weights.resize(n * len);
        let mut rows: [&[f32]; COLUMNS] = [&[]; COLUMNS];
        for (row, column) in rows.iter_mut().zip(columns.clone()) {
            let at = (span.first + start + column / group) * self.stride;
            *row = &self.qkv[at + (head * group + column % group) * a.head_dim..][..a.head_dim];
        }
        turn(self.path, &rows[..n], n, queries);
        let mut sums = [[[0.0; LANES]; COLUMNS]; 2];
        for (index, pages) in pages.chunks(2).enumerate() {
            let parts = [0, 1].map(|i| pages.get(i).map(|page| (*page, Part::Keys)));
            self.multiply(parts, head, queries, n, (&mut sums, true));
            for (i, sums) in sums.iter().enumerate().take(pages.len()) {
                for (column, sums) in sums.iter().enumerate().take(n) {
                    scores[column * len + (2 * index + i) * PAGE..][..PAGE].copy_from_slice(sums);
                }
            }
        }
        let mut totals = [0.0; COLUMNS];
        for ((row, column), total) in scores.chunks_exact_mut(len).zip(columns.clone()).zip(&mut totals) {
            f.scale(row, a.attention_scale);
            if let Some(cap) = a.attention_cap {
                f.soft_cap(row, cap);
            }
            let (from, to) = visible(column);
            row[..from - first * PAGE].fill(f32::NEG_INFINITY);
            row[to - first * PAGE..].fill(f32::NEG_INFINITY);
            *total = f.exp_shifted(row);
        }
        rows.iter_mut().zip(scores.chunks_exact(len)).for_each(|(row, scores)| *row = scores);
        turn(self.path, &rows[..n], n, weights);
        let out = &mut results[columns.start * a.head_dim..columns.end * a.head_dim];
        let blocks = self.cache.head_dim() / LANES;
        for d in (0..blocks).step_by(2) {
            for (index, (page, weights)) in pages.iter().zip(weights.chunks_exact(PAGE * n)).enumerate() {
                let parts = [d, d + 1].map(|d| (d < blocks).then_some((*page, Part::Values(d))));
                self.multiply(parts, head, weights, n, (&mut sums, index == 0));
            }
            for (d, sums) in (d..blocks).zip(&sums) {
                let count = LANES.min(a.head_dim - d * LANES);
                for (column, sums) in sums.iter().enumerate().take(n) {
                    for (x, sum) in out[column * a.head_dim + d * LANES..][..count].iter_mut().zip(sums) {
                        *x = sum / totals[column];
                    }
                }
            }
        }
    }

    /// `sums[part][column] += sum over i of part[i][16] * x[i][column]` for one or two parts of pages; from zero on if
    /// `fresh`.
    fn multiply(
        &self,
        parts: [Option<(usize, Part)>; 2],
        head: usize,
        x: &[f32],
        n: usize,
        ([one, two], fresh): (&mut [[[f32; LANES]; COLUMNS]; 2], bool),
    ) {
        let floats = parts.map(|part| part.and_then(|(page, part)| self.floats(page, head, part)));
        let (one, two) = (&mut one[..n], &mut two[..n]);
        if let [Some(first), Some(second)] = floats {
            return float_tiles(self.path, [first, second], x, n, ([one, two], fresh));
        }
        for ((part, floats), sums) in parts.into_iter().zip(floats).zip([one, two]) {
            match (floats, part) {
                (Some(floats), _) => float_tile(self.path, floats, x, n, (sums, fresh)),
                (None, Some((page, part))) => self.multiply_codes(page, head, part, x, n, (sums, fresh)),
                (None, None) => {}
            }
        }
    }

    /// The elements of a part in its page.
    fn elements(&self, head: usize, part: Part) -> Range<usize> {
        let (offset, count) = match part {
            Part::Keys => (0, self.architecture.head_dim),
            Part::Values(d) => (self.cache.values() + d * PAGE * LANES, PAGE),
        };
        let from = self.cache.place(self.layer, head) + offset;
        from..from + count * LANES
    }

    /// A part of a page that holds floats.
    fn floats(&self, page: usize, head: usize, part: Part) -> Option<Floats<'_>> {
        let elements = self.elements(head, part);
        match &self.cache.pages[page] {
            Page::F32(data) => Some(Floats::F32(&data[elements])),
            Page::F16(data) => Some(Floats::F16(&data[elements])),
            Page::Q8(..) => None,
        }
    }

    /// `sums[column] += sum over i of part[i][16] * x[i][column]` of a page that holds codes.
    fn multiply_codes(
        &self,
        page: usize,
        head: usize,
        part: Part,
        x: &[f32],
        n: usize,
        (sums, fresh): (&mut [[f32; LANES]], bool),
    ) {
        let Page::Q8(codes, steps) = &self.cache.pages[page] else { return };
        let f = Elementwise::new(self.path);
        let steps = &steps[self.cache.steps(self.layer, head)..];
        let mut block = [0.0; BLOCK * LANES];
        // Of keys a block of elements at a time, of values all 16 positions.
        for (index, codes) in codes[self.elements(head, part)].chunks(BLOCK * LANES).enumerate() {
            let block = &mut block[..codes.len()];
            match part {
                Part::Keys => f.widen_by_lane(codes, &steps[index * PAGE..][..PAGE], block),
                Part::Values(d) => {
                    let first = self.cache.value_steps() + d * LANES / BLOCK * PAGE;
                    f.widen_by_row(codes, &steps[first..][..PAGE], block);
                }
            }
            let rows = block.len() / LANES;
            float_tile(
                self.path,
                Floats::F32(block),
                &x[index * BLOCK * n..][..rows * n],
                n,
                (&mut *sums, fresh && index == 0),
            );
        }
    }
}

/// What of a page is multiplied.
#[derive(Clone, Copy)]
enum Part {
    /// Keys: elements of the head by 16 positions.
    Keys,
    /// 16 elements of the values from 16 times this on: positions by elements.
    Values(usize),
}

/// Writes the keys and values of all spans into their pages.
pub(crate) fn store(
    path: Path,
    pool: &Pool,
    cache: &mut KvCache,
    layer: usize,
    spans: &[Span<'_>],
    (qkv, stride): (&[f32], usize),
    a: &Architecture,
) {
    let kind = cache.kind();
    let empty = || Page::empty(kind);
    // One piece for each page touched, so that threads write different pages.
    let mut pieces = Vec::new();
    for span in spans {
        let mut at = 0;
        while at < span.count {
            let position = span.start + at;
            let count = (PAGE - position % PAGE).min(span.count - at);
            let id = span.sequence.pages[position / PAGE];
            let page = std::mem::replace(&mut cache.pages[id], empty());
            pieces.push((id, page, span.first + at, position % PAGE, count));
            at += count;
        }
    }
    let f = Elementwise::new(path);
    let (kv_dim, q_dim) = (a.n_kv_heads * a.head_dim, a.n_heads * a.head_dim);
    let shared = &*cache;
    pool.chunks_mut(&mut pieces, 1, |_, pieces| {
        for (_, page, row, slot, count) in pieces {
            for head in 0..a.n_kv_heads {
                let (mut keys, mut values): ([&[f32]; PAGE], [&[f32]; PAGE]) = ([&[]; PAGE], [&[]; PAGE]);
                for (i, (key, value)) in keys.iter_mut().zip(&mut values).enumerate().take(*count) {
                    let kv = &qkv[(*row + i) * stride + q_dim..][..2 * kv_dim];
                    *key = &kv[head * a.head_dim..][..a.head_dim];
                    *value = &kv[kv_dim + head * a.head_dim..][..a.head_dim];
                }
                let rows = [&keys[..*count], &values[..*count]];
                let (place, len) = (shared.place(layer, head), shared.values());
                match page {
                    Page::F32(data) => {
                        let parts = data[place..].split_at_mut(len);
                        put(path, rows, *slot, parts, |x, to: &mut [f32]| to.copy_from_slice(x));
                    }
                    Page::F16(data) => {
                        put(path, rows, *slot, data[place..].split_at_mut(len), |x, to| f.to_f16(x, to));
                    }
                    Page::Q8(codes, steps) => {
                        let steps = &mut steps[shared.steps(layer, head)..];
                        let steps = steps.split_at_mut(shared.value_steps());
                        put_codes(f, rows, *slot, codes[place..].split_at_mut(len), steps);
                    }
                }
            }
        }
    });
    for (id, page, ..) in pieces {
        cache.pages[id] = page;
    }
}

/// Writes keys and values of one head, of positions that follow each other in a page from `slot` on.
fn put<T: Copy + Default>(
    path: Path,
    [keys, values]: [&[&[f32]]; 2],
    slot: usize,
    (keys_to, values_to): (&mut [T], &mut [T]),
    convert: impl Fn(&[f32], &mut [T]),
) {
    if keys.len() == PAGE {
        ROOM.with_borrow_mut(|room| {
            let turned = &mut room.queries;
            turned.resize(keys[0].len() * PAGE);
            turn(path, keys, PAGE, turned);
            convert(turned, &mut keys_to[..turned.len()]);
        });
    } else {
        // Converted many at a time, each of which then lies alone.
        let mut row = [T::default(); BLOCK];
        for (key, slot) in keys.iter().zip(slot..) {
            for (x, to) in key.chunks(BLOCK).zip(keys_to.chunks_mut(BLOCK * PAGE)) {
                let row = &mut row[..x.len()];
                convert(x, row);
                row.iter().zip(to.chunks_exact_mut(PAGE)).for_each(|(x, to)| to[slot] = *x);
            }
        }
    }
    for (value, slot) in values.iter().zip(slot..) {
        let mut to = values_to[slot * LANES..].chunks_mut(PAGE * LANES);
        // Sixteen at a time are one move each, since the compiler knows how many there are.
        let (whole, rest) = value.as_chunks::<LANES>();
        for (x, to) in whole.iter().zip(&mut to) {
            convert(x, &mut to[..LANES]);
        }
        if let Some(to) = to.next().filter(|_| !rest.is_empty()) {
            convert(rest, &mut to[..rest.len()]);
        }
    }
}

/// As [`put`], with a step for each block of a position.
fn put_codes(
    f: Elementwise,
    [keys, values]: [&[&[f32]]; 2],
    slot: usize,
    (keys_to, values_to): (&mut [i8], &mut [i8]),
    (key_steps, value_steps): (&mut [f32], &mut [f32]),
) {
    let mut codes = [0; BLOCK];
    for ((key, value), slot) in keys.iter().zip(values).zip(slot..) {
        for (block, x) in key.chunks(BLOCK).enumerate() {
            key_steps[block * PAGE + slot] = f.quantize(x, &mut codes[..x.len()]);
            for (code, to) in
                codes[..x.len()].iter().zip(keys_to[block * BLOCK * PAGE..].chunks_exact_mut(PAGE))
            {
                to[slot] = *code;
            }
        }
        for (block, x) in value.chunks(BLOCK).enumerate() {
            value_steps[block * PAGE + slot] = f.quantize(x, &mut codes[..x.len()]);
            let to = values_to[block * BLOCK * PAGE..].chunks_exact_mut(PAGE * LANES);
            for (codes, to) in codes[..x.len()].chunks(LANES).zip(to) {
                to[slot * LANES..][..codes.len()].copy_from_slice(codes);
            }
        }
    }
}
