//! Products of floats that lie in pieces: keys and values in the pages of a cache.
//!
//! All pieces of a sum are given to a kernel at once, so that it stays in registers from the first to the last.

use super::LANES;
#[cfg(target_arch = "x86_64")]
use super::avx512::pair::{self, Pairs};
use super::ends::{Ends, Place};
use super::matmul::{MAX_COLUMNS, float_groups, float_layout_tile};
use super::packed::Layout;
use super::path::Path;

/// Floats of `[element][16]` that are multiplied as they lie.
#[derive(Clone, Copy)]
pub(crate) enum Floats<'a> {
    F32(&'a [f32]),
    F16(&'a [u16]),
}

impl<'a> Floats<'a> {
    fn bytes(self) -> (Layout, &'a [u8]) {
        // SAFETY: every bit pattern of initialised numbers is bytes, and u8 has no alignment.
        unsafe {
            match self {
                Self::F32(w) => (Layout::F32, std::slice::from_raw_parts(w.as_ptr().cast(), size_of_val(w))),
                Self::F16(w) => (Layout::F16, std::slice::from_raw_parts(w.as_ptr().cast(), size_of_val(w))),
            }
        }
    }
}

/// `out[column][lane] += sum of w[i][lane] * x[i][column]`, elements in order; from zero on if `fresh`.
pub(crate) fn float_tile(
    path: Path,
    w: Floats<'_>,
    x: &[f32],
    columns: usize,
    (out, fresh): (&mut [[f32; LANES]], bool),
) {
    let (layout, w) = w.bytes();
    float_layout_tile(path, layout, w, x, columns, Ends { kept: [out], fresh, to: None });
}

/// Where a result goes: 16 numbers of each column for each piece or block.
pub(crate) struct Columns<'a> {
    pub(crate) out: &'a mut [f32],
    /// Numbers from a column to the next.
    pub(crate) stride: usize,
    pub(crate) count: usize,
}

impl Columns<'_> {
    /// Those of `count` blocks from `first` on.
    fn place(&mut self, first: usize, count: usize) -> Place {
        let (start, end) = (first * LANES, (first + count) * LANES);
        assert!(
            self.count > 0 && end <= self.stride && (self.count - 1) * self.stride + end <= self.out.len(),
            "blocks of a result"
        );
        // SAFETY: asserted; nobody else has them while this is borrowed, and kernels are called before it is again.
        unsafe { Place::new(self.out.as_mut_ptr().add(start), self.stride, self.count) }
    }
}

/// Floats of one kind, equally many in each piece.
pub(crate) struct Pieces<'a> {
    layout: Layout,
    pieces: Vec<&'a [u8]>,
}

impl<'a> Pieces<'a> {
    /// # Panics
    /// If they are not alike.
    pub(crate) fn new(all: impl Iterator<Item = Floats<'a>>) -> Self {
        let mut layout = None;
        let pieces: Vec<_> = all
            .map(|floats| {
                let (kind, bytes) = floats.bytes();
                assert_eq!(*layout.get_or_insert(kind), kind, "pieces of one kind");
                bytes
            })
            .collect();
        assert!(pieces.iter().all(|piece| piece.len() == pieces[0].len()), "pieces of one length");
        Self { layout: layout.unwrap_or(Layout::F32), pieces }
    }

    /// Each piece with all columns of `x`, which is `[element][columns]`.
    ///
    /// # Panics
    /// If shapes do not fit.
    pub(crate) fn each(&self, path: Path, x: &[f32], to: &mut Columns<'_>) {
        let mut sums = [[[0.0; LANES]; MAX_COLUMNS]; 2];
        for (index, pieces) in self.pieces.chunks(2).enumerate() {
            let place = to.place(2 * index, pieces.len());
            let ends = ends(&mut sums, to.count, true, Some(place));
            let groups = (pieces[0], pieces.get(1).copied());
            float_groups(path, self.layout, groups, x, to.count, ends);
        }
    }

    /// The sum of the pieces' products for each of their `blocks`, where a piece is `[block][element][16]` and `x` is
    /// `[piece][element][columns]`.
    ///
    /// # Panics
    /// If shapes do not fit.
    pub(crate) fn joined(&self, path: Path, blocks: usize, x: &[f32], to: &mut Columns<'_>) {
        let Some(first) = self.pieces.first() else { return };
        let len = first.len() / blocks;
        let mut sums = [[[0.0; LANES]; MAX_COLUMNS]; 2];
        for block in (0..blocks).step_by(2) {
            let count = (blocks - block).min(2);
            let place = to.place(block, count);
            #[cfg(target_arch = "x86_64")]
            if count == 2 && path.float_pairs(to.count) {
                let starts: Vec<_> = self.pieces.iter().map(|piece| piece[block * len..].as_ptr()).collect();
                let pairs = Pairs { starts: &starts, len, far: len };
                let ends = ends(&mut sums, to.count, true, Some(place));
                // SAFETY: a path with such kernels exists only on CPUs with these instructions. Each piece is as long as the
                // first, so that both blocks are in it.
                unsafe { pair::floats(self.layout, &pairs, x, ends) };
                continue;
            }
            let x = x.chunks_exact(x.len() / self.pieces.len());
            for (index, (piece, x)) in self.pieces.iter().zip(x).enumerate() {
                let last = index + 1 == self.pieces.len();
                let ends = ends(&mut sums, to.count, index == 0, last.then_some(place));
                let of = |block: usize| &piece[block * len..][..len];
                let groups = (of(block), (count == 2).then(|| of(block + 1)));
                float_groups(path, self.layout, groups, x, to.count, ends);
            }
        }
    }
}

fn ends(
    sums: &mut [[[f32; LANES]; MAX_COLUMNS]; 2],
    columns: usize,
    fresh: bool,
    to: Option<Place>,
) -> Ends<'_, 2> {
    let [one, two] = sums;
    Ends { kept: [&mut one[..columns], &mut two[..columns]], fresh, to }
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, reason = "tests")]
mod tests {
    use adyton_model::half::f32_to_f16;

    use super::super::activations::Forms;
    use super::*;

    /// Small whole numbers: every order of adding them gives the same.
    fn number(i: usize) -> f32 {
        (i * 7919 % 17) as f32 - 8.0
    }

    #[test]
    fn products_of_pieces_are_those_of_their_elements() {
        let most = if cfg!(miri) { 2 } else { 5 };
        let (elements, gap) = (3, 5);
        for (count, blocks) in (1..=most).flat_map(|count| (1..=most).map(move |blocks| (count, blocks))) {
            let len = blocks * elements * LANES;
            let f32s: Vec<f32> = (0..count * len).map(number).collect();
            let f16s: Vec<u16> = f32s.iter().map(|x| f32_to_f16(*x)).collect();
            let kinds = [
                Pieces::new(f32s.chunks(len).map(Floats::F32)),
                Pieces::new(f16s.chunks(len).map(Floats::F16)),
            ];
            let w = |piece: usize, element: usize, lane: usize| f32s[piece * len + element * LANES + lane];
            let floats = Forms { float: true, ..Forms::default() };
            let widths = |path: Path| path.widths(floats).iter().map(move |n| (path, *n));
            for (path, columns) in Path::available().into_iter().flat_map(widths) {
                let x: Vec<f32> = (0..count * elements * blocks * columns).map(|i| number(i + 5)).collect();
                for pieces in &kinds {
                    // Every element of a piece with its number of each column.
                    let stride = count * LANES + gap;
                    let mut out = vec![f32::NAN; columns * stride - gap];
                    let mut to = Columns { out: &mut out, stride, count: columns };
                    pieces.each(path, &x[..elements * blocks * columns], &mut to);
                    for (column, out) in out.chunks(stride).enumerate() {
                        for (i, got) in out[..count * LANES].iter().enumerate() {
                            let sum = (0..elements * blocks)
                                .map(|e| w(i / LANES, e, i % LANES) * x[e * columns + column]);
                            assert_eq!(*got, sum.sum::<f32>(), "{path}, {count} of {blocks}, {columns}");
                        }
                        assert!(out[count * LANES..].iter().all(|x| x.is_nan()), "the gap is left alone");
                    }
                    // Blocks of a piece with the same numbers, pieces one after the other.
                    let stride = blocks * LANES + gap;
                    let mut out = vec![f32::NAN; columns * stride - gap];
                    let mut to = Columns { out: &mut out, stride, count: columns };
                    pieces.joined(path, blocks, &x[..count * elements * columns], &mut to);
                    for (column, out) in out.chunks(stride).enumerate() {
                        for (i, got) in out[..blocks * LANES].iter().enumerate() {
                            let sum = (0..count * elements).map(|e| {
                                let (piece, element) = (e / elements, i / LANES * elements + e % elements);
                                w(piece, element, i % LANES) * x[e * columns + column]
                            });
                            assert_eq!(*got, sum.sum::<f32>(), "{path}, {count} of {blocks}, {columns}");
                        }
                        assert!(out[blocks * LANES..].iter().all(|x| x.is_nan()), "the gap is left alone");
                    }
                }
            }
        }
    }
}
