//! The largest products of a matrix of floats, without reading most of it.
//!
//! A copy in 8-bit codes is multiplied in its place; of 16-bit floats it has half the bytes. What a row of the copy lacks
//! bounds how far its product can be from the row's own. Rows that cannot have the largest product are ruled out by that; the
//! groups of the few that are left are computed as they are otherwise: the largest product is the same, bit for bit.
//! Why 8 bits, and only of floats: `docs/decisions/0019-screened-output-matrix.md`.

use adyton_model::quant::TensorType;

use super::activations::{Activations, Forms};
use super::blocks::widen;
use super::ends::Ends;
use super::lanes::Elementwise;
use super::matmul::{MAX_COLUMNS, product, tile_of_groups};
use super::memory::wipe;
use super::packed::{Layout, PackError, Packed};
use super::path::Path;
use super::pool::Pool;
use super::{Arena, LANES};

/// Columns of the matrix that share a scale in the copy.
const BLOCK: usize = 32;
/// Groups of products that a thread looks at together.
const GROUPS: usize = 512;
/// Products are not looked at where one could be so large that a sum on the way to it overflows.
const TOO_LARGE: f32 = 1e36;

/// A copy of a matrix, and how far its products can be from those of the matrix.
///
/// Of a row `w`, its copy `v`, a column `x` and its codes `y`: `|wx - vy| <= |w - v| |x| + |v| |x - y|`. Both kernels add
/// at most `n` terms in single precision, which rounds by less than `n 2^-24 |w| |x|`; bounds take four times as much, and
/// so cover the rounding of their own few steps.
pub struct Screen {
    copy: Packed,
    /// Of each group.
    bounds: Vec<Bounds>,
    /// Length of the longest row.
    longest: f32,
}

/// How far products of 16 rows can be from those of their copies, in parts of a column's [`Lengths`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounds {
    by_len: [f32; LANES],
    by_loss: [f32; LANES],
}

impl Bounds {
    /// That of one row.
    #[inline(always)]
    pub(super) fn of(&self, lane: usize, column: Lengths) -> f32 {
        self.by_loss[lane].mul_add(column.loss, self.by_len[lane] * column.len)
    }
}

/// Upper bounds of the lengths of a column and of what its codes lack.
#[derive(Debug, Clone, Copy)]
pub struct Lengths {
    len: f32,
    loss: f32,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Screen({:?})", self.copy)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // They tell lengths of the owner's rows.
        wipe(&mut self.bounds);
    }
}

impl Screen {
    /// Bytes of the copy of a matrix; none is made of what is no matrix of floats, or has no whole blocks.
    #[must_use]
    pub fn bytes(weights: &Packed) -> Option<usize> {
        let whole = weights.layout().is_float() && weights.columns().is_multiple_of(BLOCK);
        let bytes = Packed::packed_bytes(TensorType::Q8_0, (weights.rows(), weights.columns()));
        bytes.ok().filter(|_| whole)
    }

    /// Copies `weights`.
    ///
    /// # Errors
    /// [`PackError`] where [`Self::bytes`] says nothing.
    pub fn new(path: Path, pool: &Pool, weights: &Packed) -> Result<Self, PackError> {
        let (f, layout, columns) = (Elementwise::new(path), weights.layout(), weights.columns());
        // Of each row the sums of squares of what its copy lacks, and of the copy.
        let mut squares = vec![[[0.0; LANES]; 2]; weights.groups()];
        let mut arena = Arena::new(Self::bytes(weights).unwrap_or(0));
        let shape = (weights.rows(), columns);
        let fill = |index: usize, group: &mut [u8], [lost, kept]: &mut [[f32; LANES]; 2]| {
            let mut wide = [0; BLOCK * LANES * size_of::<f32>()];
            let blocks = group.chunks_exact_mut(Layout::Q8.block_bytes());
            for (block, start) in blocks.zip((0..columns).step_by(BLOCK)) {
                let from = &weights.group(index)[layout.bytes_of(&(start..start + BLOCK))];
                if layout == Layout::F32 {
                    f.to_codes(from, block, lost, kept);
                } else {
                    widen(path, layout, from, &mut wide);
                    f.to_codes(&wide, block, lost, kept);
                }
            }
        };
        let copy = Packed::build(TensorType::Q8_0, shape, pool, &mut arena, &mut squares, fill)?;
        #[expect(clippy::cast_precision_loss, reason = "an upper bound on what sums round")]
        let (terms, unit) = (columns as f32, f32::EPSILON / 2.0);
        // The sums are rounded themselves, and lack squares that are too small for a number.
        let length = |squares: f32| (squares * (1.0 + 4.0 * terms * unit)).sqrt() + 1e-17 * terms;
        let mut longest = 0.0;
        let bounds = squares.iter().map(|squares| {
            let [lost, kept] = squares.map(|squares| squares.map(length));
            let both: [f32; LANES] = std::array::from_fn(|lane| lost[lane] + kept[lane]);
            longest = both.iter().fold(longest, |longest, both| {
                f32::max(longest, if both.is_nan() { f32::INFINITY } else { *both })
            });
            let with_rounding = |length: [f32; LANES]| {
                std::array::from_fn(|lane| length[lane] + 4.0 * (terms + 8.0) * unit * both[lane])
            };
            Bounds { by_len: with_rounding(lost), by_loss: with_rounding(kept) }
        });
        let bounds = bounds.collect();
        wipe(&mut squares);
        Ok(Self { copy, bounds, longest })
    }

    /// The forms activations are needed in.
    #[must_use]
    pub fn forms(weights: &Packed) -> Forms {
        Forms { short: true, ..Forms::of(&[weights]) }
    }

    /// Products of the matrix this is a copy of, `[columns][rows]`, of which those that can be the largest of their column
    /// are right, and the others right or minus infinity. `None` if too many can be, or something is no number.
    ///
    /// # Panics
    /// If `weights`, or `x`, which holds [`Self::forms`] of `columns`, has another shape.
    #[must_use]
    pub fn largest(
        &self,
        path: Path,
        pool: &Pool,
        weights: &Packed,
        x: &Activations,
        columns: &[f32],
    ) -> Option<Vec<f32>> {
        let rows = self.copy.rows();
        assert_eq!((weights.rows(), weights.columns()), (rows, self.copy.columns()), "a copy of this matrix");
        assert_eq!(columns.len(), x.columns() * x.rows(), "columns of these activations");
        let columns: Vec<Lengths> =
            columns.chunks_exact(x.rows()).map(|x| lengths(Elementwise::new(path), x)).collect();
        // What is no number is not below.
        let in_range = |column: &Lengths| self.longest * (column.len + column.loss) < TOO_LARGE;
        if !columns.iter().all(in_range) {
            return None;
        }
        let mut products = product(path, pool, x, &self.copy);
        let open = self.rule_out(path, pool, &columns, &mut products);
        // Of more, reading them here and there costs as much as reading all.
        if open.len() > weights.groups() / 4 + 1 {
            return None;
        }
        let exact = groups(path, pool, weights, x, &open);
        for (group, exact) in open.iter().zip(exact.chunks_exact(x.columns())) {
            for (products, exact) in products.chunks_exact_mut(rows).zip(exact) {
                let to = &mut products[group * LANES..rows.min((group + 1) * LANES)];
                to.copy_from_slice(&exact[..to.len()]);
            }
        }
        Some(products)
    }

    /// Makes the copy's products that cannot be the largest of their column minus infinity. Returns the groups in which
    /// another is.
    fn rule_out(&self, path: Path, pool: &Pool, columns: &[Lengths], products: &mut [f32]) -> Vec<usize> {
        let (f, rows) = (Elementwise::new(path), self.copy.rows());
        let parts = self.bounds.chunks(GROUPS).len();
        let bounds = |part: usize| self.bounds.chunks(GROUPS).nth(part % parts).unwrap_or_default();
        let mut least = vec![f32::NEG_INFINITY; columns.len() * parts];
        let of_columns = products.chunks(rows).flat_map(|products| products.chunks(GROUPS * LANES));
        let mut all: Vec<_> = least.iter_mut().zip(of_columns).collect();
        pool.chunks_mut(&mut all, 1, |part, all| {
            for (least, products) in all {
                **least = f.most_of_least(products, bounds(part), columns[part / parts]);
            }
        });
        let least: Vec<f32> = least
            .chunks(parts)
            .map(|least| least.iter().copied().fold(f32::NEG_INFINITY, f32::max))
            .collect();
        let groups = self.bounds.len();
        let mut open = vec![false; columns.len() * groups];
        let of_columns = products.chunks_mut(rows).zip(open.chunks_mut(groups));
        let mut all: Vec<_> = of_columns
            .flat_map(|(products, open)| products.chunks_mut(GROUPS * LANES).zip(open.chunks_mut(GROUPS)))
            .collect();
        pool.chunks_mut(&mut all, 1, |part, all| {
            for (products, open) in all {
                f.rule_out(products, bounds(part), columns[part / parts], least[part / parts], open);
            }
        });
        (0..groups).filter(|group| open.iter().skip(*group).step_by(groups).any(|open| *open)).collect()
    }
}

fn lengths(f: Elementwise, x: &[f32]) -> Lengths {
    let (mut len, mut loss) = (0.0, 0.0);
    let mut codes = [0; BLOCK];
    for x in x.chunks_exact(BLOCK) {
        // As the column's own codes are made.
        let step = f64::from(f.quantize(x, &mut codes));
        for (x, code) in x.iter().zip(codes) {
            let x = f64::from(*x);
            len += x * x;
            loss += (x - step * f64::from(code)).powi(2);
        }
    }
    // Larger by what rounding takes, and so that no bound is below what sums of the smallest numbers lose.
    #[expect(clippy::cast_possible_truncation, reason = "rounded, and then made larger than that")]
    let up = |squares: f64| squares.sqrt() as f32 * (1.0 + 4.0 * f32::EPSILON) + 1e-25;
    Lengths { len: up(len), loss: up(loss) }
}

/// The products of some groups, `[group][column][16]`.
fn groups(path: Path, pool: &Pool, weights: &Packed, x: &Activations, groups: &[usize]) -> Vec<[f32; LANES]> {
    let n = x.columns();
    let mut out = vec![[0.0; LANES]; groups.len() * n];
    pool.chunks_mut(&mut out, 2 * n, |part, out| {
        let mut sums = [[[0.0; LANES]; MAX_COLUMNS]; 2];
        let two = &groups[2 * part..groups.len().min(2 * part + 2)];
        let (one, next) = (weights.group(two[0]), two.get(1).map(|group| weights.group(*group)));
        for tile in 0..x.tiles() {
            let (first, width) = (tile * x.tile(), x.width(tile));
            let [kept, beside] = &mut sums;
            let ends = Ends { kept: [&mut kept[..width], &mut beside[..width]], fresh: true, to: None };
            tile_of_groups(path, weights.layout(), (one, next), x, (tile, &(0..x.rows())), ends);
            let there = first..n.min(first + width);
            for (out, sums) in out.chunks_exact_mut(n).zip(&sums) {
                out[there.clone()].copy_from_slice(&sums[..there.len()]);
            }
        }
    });
    out
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use adyton_model::half::f32_to_f16;
    use proptest::prelude::*;

    use super::*;

    /// Rows as the kinds of floats there are; each as near as it can be.
    fn packed(kind: TensorType, rows: &[Vec<f32>]) -> Packed {
        let bytes: Vec<u8> = match kind {
            TensorType::F32 => rows.iter().flatten().flat_map(|x| x.to_le_bytes()).collect(),
            TensorType::F16 => rows.iter().flatten().flat_map(|x| f32_to_f16(*x).to_le_bytes()).collect(),
            _ => {
                rows.iter().flatten().flat_map(|x| (x.to_bits() >> 16).to_le_bytes()[..2].to_vec()).collect()
            }
        };
        Packed::from_bytes(kind, (rows.len(), rows[0].len()), &bytes).unwrap()
    }

    /// Rows of a matrix in which two groups may be left.
    const ROWS: usize = if cfg!(miri) { 80 } else { 400 };

    const KINDS: [TensorType; 3] = [TensorType::F32, TensorType::F16, TensorType::BF16];

    /// Products of all columns, and what the screen leaves of them.
    fn both(path: Path, weights: &Packed, columns: &[f32]) -> (Vec<f32>, Option<Vec<f32>>) {
        let pool = Pool::new(2);
        let shape = (columns.len() / weights.columns(), weights.columns());
        let mut x = Activations::default();
        x.take(path, &pool, shape, Screen::forms(weights), |i| &columns[i * shape.1..(i + 1) * shape.1]);
        let screen = Screen::new(path, &pool, weights).unwrap();
        (product(path, &pool, &x, weights), screen.largest(path, &pool, weights, &x, columns))
    }

    fn first_largest(products: &[f32]) -> usize {
        (0..products.len()).fold(0, |best, i| if products[i] > products[best] { i } else { best })
    }

    /// Checks what [`Screen::largest`] promises; returns how many products are left.
    fn check(path: Path, weights: &Packed, columns: &[f32]) -> Option<usize> {
        let (all, screened) = both(path, weights, columns);
        let screened = screened?;
        for (all, screened) in all.chunks(weights.rows()).zip(screened.chunks(weights.rows())) {
            assert_eq!(first_largest(screened), first_largest(all), "{path}, {weights:?}");
            for (all, screened) in all.iter().zip(screened) {
                assert!(*screened == f32::NEG_INFINITY || screened.to_bits() == all.to_bits(), "{path}");
            }
        }
        Some(screened.iter().filter(|x| **x > f32::NEG_INFINITY).count())
    }

    /// Sums of uniform numbers: bell-shaped enough.
    fn bell(seed: &mut u64) -> f32 {
        (0..6)
            .map(|_| {
                *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (*seed >> 40) as f32 / (1 << 24) as f32 - 0.5
            })
            .sum()
    }

    #[test]
    fn few_of_many_rows_are_left() {
        let (rows, columns) = if cfg!(miri) { (40, 32) } else { (6011, 256) };
        let mut seed = 1;
        let matrix: Vec<Vec<f32>> =
            (0..rows).map(|_| (0..columns).map(|_| bell(&mut seed)).collect()).collect();
        for kind in KINDS {
            let weights = packed(kind, &matrix);
            for path in Path::available() {
                // Columns like no row: the best of all is one of several that are nearly as good.
                let x: Vec<f32> = (0..columns).map(|_| bell(&mut seed)).collect();
                let left = check(path, &weights, &x);
                assert!(cfg!(miri) || left.is_some_and(|left| left <= 20 * LANES), "{path} {left:?}");
                // Columns each of which is like one row.
                for n in if cfg!(miri) { vec![1] } else { vec![3, 16, 40] } {
                    let x: Vec<f32> = (0..n).flat_map(|i| matrix[i * 149 % rows].clone()).collect();
                    let left = check(path, &weights, &x);
                    assert!(cfg!(miri) || left.is_some_and(|left| left <= n * n * LANES), "{path} {left:?}");
                }
            }
        }
    }

    /// How far the products of the copy are from the true ones, in parts of their bounds.
    fn apart(path: Path, weights: &Packed, column: &[f32]) -> Vec<f64> {
        let (pool, mut x) = (Pool::new(1), Activations::default());
        x.take(path, &pool, (1, column.len()), Screen::forms(weights), |_| column);
        let screen = Screen::new(path, &pool, weights).unwrap();
        let (near, lengths) =
            (product(path, &pool, &x, &screen.copy), lengths(Elementwise::new(path), column));
        let mut row = vec![0.0; column.len()];
        let of_row = near.iter().enumerate().map(|(i, near)| {
            weights.row(i, &mut row);
            let true_one: f64 = row.iter().zip(column).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            (f64::from(*near) - true_one).abs() / f64::from(screen.bounds[i / LANES].of(i % LANES, lengths))
        });
        of_row.collect()
    }

    #[test]
    fn bounds_can_be_reached() {
        // In each block one number that is 127 steps, and others that are nearly half a step from a code.
        let block = |rest: f32| (0..BLOCK).map(move |i| if i == 0 { 127.0 } else { rest });
        let (ones, off): (Vec<f32>, Vec<f32>) =
            (vec![1.0; 2 * BLOCK], [block(9.49), block(5.49)].into_iter().flatten().collect());
        for path in Path::available() {
            for (row, column) in [(&off, &ones), (&ones, &off)] {
                let apart = apart(path, &packed(TensorType::F32, &[row.clone(), row.clone()]), column);
                assert!(apart.iter().all(|apart| (0.95..1.0).contains(apart)), "{path} {apart:?}");
            }
        }
    }

    #[test]
    fn ties_go_to_the_first_and_what_is_no_number_is_not_looked_at() {
        let row = |x: f32| vec![x; 32];
        for path in Path::available() {
            let mut matrix: Vec<Vec<f32>> = (0..ROWS).map(|i| row(-1.0 - i as f32 / 500.0)).collect();
            matrix[7] = row(0.5);
            matrix[8] = row(0.5);
            matrix[ROWS - 1] = row(0.5);
            let weights = packed(TensorType::F32, &matrix);
            assert_eq!(check(path, &weights, &row(1.0)), Some(32));
            let (_, screened) = both(path, &weights, &row(1.0));
            assert_eq!(screened.map(|products| first_largest(&products)), Some(7));
            for odd in [f32::NAN, f32::INFINITY, 1e30] {
                let mut matrix = matrix.clone();
                matrix[5][7] = odd;
                assert_eq!(both(path, &packed(TensorType::F32, &matrix), &row(1e10)).1, None);
                assert_eq!(both(path, &weights, &row(odd * 1e10)).1, None);
            }
            // Nothing is ruled out where all are alike.
            let weights = packed(TensorType::F32, &vec![row(0.0); ROWS]);
            assert_eq!(both(path, &weights, &row(1.0)).1, None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 200 }))]

        /// Rows whose copies are alike, or next to each other, though they are not: each element is off by up to half a
        /// step, in the direction in which that makes the most of it.
        #[test]
        fn the_worst_rows_are_not_ruled_out(
            kind in prop::sample::select(&KINDS[..]),
            x in prop::collection::vec(prop_oneof![3 => -1f32..1.0, 1 => -100f32..100.0, 1 => Just(0.0)], 64),
            codes in prop::collection::vec(-126i8..=126, 64),
            worst in prop::collection::vec((0..ROWS, -0.5f32..=0.5), 0..6),
            scale in prop_oneof![Just(1e-9f32), Just(1e-4), Just(0.01), Just(1.0), Just(300.0)],
        ) {
            let near: Vec<f32> = codes.iter().map(|code| f32::from(*code)).collect();
            let size: f32 = near.iter().zip(&x).map(|(w, x)| w * x).sum();
            // The others are far from it, so that few are left.
            let far = |i: usize| near.iter().map(|w| -size.signum() * w / (2.0 + i as f32 / 100.0)).collect();
            let mut matrix: Vec<Vec<f32>> = (0..ROWS).map(far).collect();
            for (row, off) in worst {
                let off = |(w, x): (&f32, &f32)| size.signum() * w + off * x.signum();
                matrix[row] = near.iter().zip(&x).map(off).collect();
            }
            // The step of each block is that of 127.
            matrix.iter_mut().flatten().for_each(|w| *w *= scale / 127.0);
            let weights = packed(kind, &matrix);
            for path in Path::available() {
                check(path, &weights, &x);
                let apart = apart(path, &weights, &x);
                prop_assert!(apart.iter().all(|apart| *apart < 1.0), "{} {:?}", path, apart);
            }
        }

        #[test]
        fn any_rows_and_columns(
            kind in prop::sample::select(&KINDS[..]),
            w in prop::collection::vec(prop_oneof![9 => -1f32..1.0, 1 => prop::num::f32::ANY], 64),
            x in prop::collection::vec(prop_oneof![9 => -1f32..1.0, 1 => prop::num::f32::ANY], 32),
            rows in 1..ROWS,
        ) {
            let element = |i: usize| w[i % w.len()] * (1.0 - (i % 997) as f32 / 700.0);
            let matrix: Vec<Vec<f32>> = (0..rows).map(|r| (r * 32..(r + 1) * 32).map(element).collect()).collect();
            let weights = packed(kind, &matrix);
            for path in Path::available() {
                check(path, &weights, &x);
            }
        }
    }
}
