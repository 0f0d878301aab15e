//! Attention of a batch of queries over a paged cache.
//!
//! For each query: scores are dot products in order of the head's elements; softmax subtracts the exact maximum and sums
//! in 16 lanes, lane = position mod 16; the result adds values in order of the positions. Positions a query may not see
//! have weight exactly 0, so other tokens of the batch change nothing. Queries that share a KV head are computed
//! together, which is where the time is saved.

use std::cell::RefCell;
use std::ops::Range;

use super::Architecture;
use super::kv_cache::{BLOCK, KvCache, KvKind, PAGE, Page, Sequence};
use crate::arch::{Cells, Columns, Elementwise, Floats, LANES, Lines, Path, Pieces, Pool, float_tile, turn};

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
    /// `[columns of the part][head_dim]`, filled up to 16, to be divided by
    results: Lines<f32>,
    /// `[columns of the part]`.
    totals: Lines<f32>,
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::new(Room::default());
}

/// What one layer's attention needs.
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
            let padded = self.cache.head_dim();
            room.results.resize(count * padded);
            room.totals.resize(count);
            let mut done = 0;
            while done < count {
                let max = (count - done).min(self.path.attention_columns());
                let width = WIDTHS.into_iter().find(|width| *width <= max).unwrap_or(1);
                self.columns(span, (tokens.start, done..done + width), head, room);
                done += width;
            }
            let f = Elementwise::new(self.path);
            let mut results = room.results.chunks_exact(padded).zip(&*room.totals);
            for token in tokens {
                let cell = cells.take((span.first + token) * a.n_kv_heads + head);
                for (out, (x, total)) in cell.chunks_exact_mut(a.head_dim).zip(&mut results) {
                    f.divide(&x[..a.head_dim], *total, out);
                }
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
        let Room { queries, scores, weights, results, totals } = room;
        queries.resize(a.head_dim * n);
        scores.resize(n * len);
        weights.resize(n * len);
        let mut rows: [&[f32]; COLUMNS] = [&[]; COLUMNS];
        for (row, column) in rows.iter_mut().zip(columns.clone()) {
            let at = (span.first + start + column / group) * self.stride;
            *row = &self.qkv[at + (head * group + column % group) * a.head_dim..][..a.head_dim];
        }
        turn(self.path, &rows[..n], n, queries);
        let mut to = Columns { out: scores, stride: len, count: n };
        match self.cache.kind() {
            KvKind::F32 | KvKind::F16 => {
                self.pieces(pages, head, Part::Keys).each(self.path, queries, &mut to);
            }
            KvKind::Q8 => self.scores_of_codes(pages, head, queries, &mut to),
        }
        let totals = &mut totals[columns.clone()];
        for ((row, column), total) in scores.chunks_exact_mut(len).zip(columns.clone()).zip(totals) {
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
        let padded = self.cache.head_dim();
        let out = &mut results[columns.start * padded..columns.end * padded];
        let mut to = Columns { out, stride: padded, count: n };
        match self.cache.kind() {
            KvKind::F32 | KvKind::F16 => {
                self.pieces(pages, head, Part::Values).joined(self.path, padded / LANES, weights, &mut to);
            }
            KvKind::Q8 => self.values_of_codes(pages, head, weights, &mut to),
        }
    }

    /// The same part of pages that hold floats.
    fn pieces(&self, pages: &[usize], head: usize, part: Part) -> Pieces<'_> {
        let elements = self.elements(head, part);
        Pieces::new(pages.iter().map(|page| match &self.cache.pages[*page] {
            Page::F32(data) => Floats::F32(&data[elements.clone()]),
            Page::F16(data) => Floats::F16(&data[elements.clone()]),
            Page::Q8(..) => Floats::F32(&[]),
        }))
    }

    /// Where a part lies in its page.
    fn elements(&self, head: usize, part: Part) -> Range<usize> {
        let from = self.cache.place(self.layer, head);
        match part {
            Part::Keys => from..from + self.architecture.head_dim * PAGE,
            Part::Values => from + self.cache.values()..from + 2 * self.cache.values(),
        }
    }

    /// As [`Pieces::each`] of keys that are codes.
    fn scores_of_codes(&self, pages: &[usize], head: usize, x: &[f32], to: &mut Columns<'_>) {
        let f = Elementwise::new(self.path);
        let n = to.count;
        let mut block = [0.0; BLOCK * LANES];
        let mut sums = [[0.0; LANES]; COLUMNS];
        for (page, at) in pages.iter().zip((0..).step_by(PAGE)) {
            let Page::Q8(codes, steps) = &self.cache.pages[*page] else { continue };
            let steps = &steps[self.cache.steps(self.layer, head)..];
            let codes = codes[self.elements(head, Part::Keys)].chunks(BLOCK * LANES);
            let of_block = codes.zip(steps.chunks_exact(PAGE)).zip(x.chunks(BLOCK * n));
            for (index, ((codes, steps), x)) in of_block.enumerate() {
                let block = &mut block[..codes.len()];
                f.widen_by_lane(codes, steps, block);
                float_tile(self.path, Floats::F32(block), x, n, (&mut sums[..n], index == 0));
            }
            for (sums, out) in sums[..n].iter().zip(to.out.chunks_exact_mut(to.stride)) {
                out[at..at + PAGE].copy_from_slice(sums);
            }
        }
    }

    /// As [`Pieces::joined`] of values that are codes.
    fn values_of_codes(&self, pages: &[usize], head: usize, x: &[f32], to: &mut Columns<'_>) {
        let f = Elementwise::new(self.path);
        let n = to.count;
        let mut block = [0.0; PAGE * LANES];
        let mut sums = [[0.0; LANES]; COLUMNS];
        for (d, at) in (0..to.stride).step_by(LANES).enumerate() {
            for (index, (page, x)) in pages.iter().zip(x.chunks_exact(PAGE * n)).enumerate() {
                let Page::Q8(codes, steps) = &self.cache.pages[*page] else { continue };
                let codes = &codes[self.elements(head, Part::Values)][d * block.len()..][..block.len()];
                let first = self.cache.steps(self.layer, head) + self.cache.value_steps() + at / BLOCK * PAGE;
                f.widen_by_row(codes, &steps[first..][..PAGE], &mut block);
                float_tile(self.path, Floats::F32(&block), x, n, (&mut sums[..n], index == 0));
            }
            for (sums, out) in sums[..n].iter().zip(to.out.chunks_exact_mut(to.stride)) {
                out[at..at + LANES].copy_from_slice(sums);
            }
        }
    }
}

/// What of a page is multiplied.
#[derive(Clone, Copy)]
enum Part {
    /// Keys: elements of the head by 16 positions.
    Keys,
    /// Values: for each 16 elements of the head, positions by elements.
    Values,
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
