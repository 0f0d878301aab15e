//! Products of packed matrices with batches of columns.

use std::ops::Range;

use super::activations::Activations;
#[cfg(target_arch = "x86_64")]
use super::avx512::amx;
#[cfg(target_arch = "x86_64")]
use super::avx512::pair::{self, Pairs};
use super::cut::Cut;
use super::ends::{Ends, Place};
use super::packed::{Layout, Packed};
use super::path::{Kind, Path};
use super::pool::Pool;
#[cfg(target_arch = "x86_64")]
use super::prefetch::{FIRST, SECOND};
use super::{LANES, blocks, scalar};

/// Weights a part of a job covers, bytes: fits the second-level cache beside a tile of activations.
const PART_BYTES: usize = 192 << 10;
/// Weights of the last part of a thread's share, bytes, if they are read from memory once.
const LAST_BYTES: usize = 32 << 10;
/// Widest kernel of any path.
pub(super) const MAX_COLUMNS: usize = 16;

/// Runs the kernel for a runtime number of columns with its compile-time twin.
macro_rules! with_columns {
    ($columns:expr, |$n:ident| $call:expr) => {
        match $columns {
            1 => with_columns!(@ 1, $n, $call),
            2 => with_columns!(@ 2, $n, $call),
            3 => with_columns!(@ 3, $n, $call),
            4 => with_columns!(@ 4, $n, $call),
            5 => with_columns!(@ 5, $n, $call),
            6 => with_columns!(@ 6, $n, $call),
            #[cfg(target_arch = "x86_64")]
            8 => with_columns!(@ 8, $n, $call),
            #[cfg(target_arch = "x86_64")]
            10 => with_columns!(@ 10, $n, $call),
            #[cfg(target_arch = "x86_64")]
            12 => with_columns!(@ 12, $n, $call),
            #[cfg(target_arch = "x86_64")]
            16 => with_columns!(@ 16, $n, $call),
            other => unreachable!("no kernel for {other} columns"),
        }
    };
    (@ $value:literal, $n:ident, $call:expr) => {{
        const $n: usize = $value;
        $call
    }};
}

/// `sums[column] += group . x[column]` for a tile of an integer layout.
fn integer_tile(path: Path, layout: Layout, group: &[u8], x: &[u32], columns: usize, ends: Ends<'_, 1>) {
    match path.kind() {
        Kind::Scalar => ends.add(|sums| scalar::integers(layout, group, x, columns, sums)),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a path of this kind exists only on CPUs with these instructions.
        Kind::Avx2 => ends.add(|sums| unsafe { super::avx2::integers(layout, group, x, columns, sums) }),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 if path.hints_to_second_level() => with_columns!(columns, |N| {
            // SAFETY: as above.
            unsafe { super::avx512::integers::<SECOND, 1, N>(layout, [group], x, ends) }
        }),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => with_columns!(columns, |N| {
            // SAFETY: as above.
            unsafe { super::avx512::integers::<FIRST, 1, N>(layout, [group], x, ends) }
        }),
    }
}

/// [`integer_tile`] for two groups, at once where there is a kernel for that.
fn integer_pair_tile(
    path: Path,
    layout: Layout,
    groups: [&[u8]; 2],
    x: &[u32],
    columns: usize,
    ends: Ends<'_, 2>,
) {
    #[cfg(target_arch = "x86_64")]
    if path.integer_pairs() {
        use super::avx512::integers;
        // The widths of several tiles of at most 6 columns. Others are there where floats share the activations, and at
        // the end of a batch.
        match columns {
            // SAFETY: a path with such kernels exists only on CPUs with these instructions.
            5 => return unsafe { integers::<FIRST, 2, 5>(layout, groups, x, ends) },
            // SAFETY: as above.
            6 => return unsafe { integers::<FIRST, 2, 6>(layout, groups, x, ends) },
            _ => {}
        }
    }
    for (group, ends) in groups.into_iter().zip(ends.apart()) {
        integer_tile(path, layout, group, x, columns, ends);
    }
}

/// `sums[column] += group . x[column]` for a tile of a float layout; `x` is `[element][columns]`.
pub(super) fn float_layout_tile(
    path: Path,
    layout: Layout,
    group: &[u8],
    x: &[f32],
    columns: usize,
    ends: Ends<'_, 1>,
) {
    ends.add(|sums| match path.kind() {
        Kind::Scalar => scalar::floats(layout, group, x, columns, sums),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => with_columns!(columns, |N| {
            let sums: &mut [_; N] = sums.first_chunk_mut().expect("a sum for each column");
            // SAFETY: a path of this kind exists only on CPUs with these instructions.
            unsafe { super::avx2::floats(layout, group, x, sums) }
        }),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 if path.fours(columns) => {
            let sums: &mut [_; 16] = sums.first_chunk_mut().expect("a sum for each column");
            // SAFETY: as above.
            unsafe { super::avx512::floats::<16, 12>(layout, group, x, sums) }
        }
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => with_columns!(columns, |N| {
            let sums: &mut [_; N] = sums.first_chunk_mut().expect("a sum for each column");
            // SAFETY: as above.
            unsafe { super::avx512::floats::<N, N>(layout, group, x, sums) }
        }),
    });
}

/// [`float_layout_tile`] for two groups, at once where there is a kernel for that.
fn float_pair_tile(
    path: Path,
    layout: Layout,
    groups: [&[u8]; 2],
    x: &[f32],
    columns: usize,
    ends: Ends<'_, 2>,
) {
    #[cfg(target_arch = "x86_64")]
    if path.float_pairs(columns) {
        let [one, two] = groups;
        assert_eq!(one.len(), two.len(), "groups of one matrix");
        let far = two.as_ptr().addr().wrapping_sub(one.as_ptr().addr());
        let pairs = Pairs { starts: &[one.as_ptr()], len: one.len(), far };
        // SAFETY: a path with such kernels exists only on CPUs with these instructions. Both groups are as long as said.
        return unsafe { pair::floats(layout, &pairs, x, ends) };
    }
    for (group, ends) in groups.into_iter().zip(ends.apart()) {
        float_layout_tile(path, layout, group, x, columns, ends);
    }
}

/// [`float_layout_tile`] for one or two groups.
pub(super) fn float_groups(
    path: Path,
    layout: Layout,
    (one, two): (&[u8], Option<&[u8]>),
    x: &[f32],
    columns: usize,
    ends: Ends<'_, 2>,
) {
    match two {
        None => {
            let [ends, _] = ends.apart();
            float_layout_tile(path, layout, one, x, columns, ends);
        }
        Some(two) => float_pair_tile(path, layout, [one, two], x, columns, ends),
    }
}

/// A result that several threads write, each its own rows.
struct Target {
    start: *mut f32,
    rows: usize,
}

// SAFETY: threads write disjoint elements; `matmul` hands each group of rows out once.
unsafe impl Sync for Target {}

/// The rows of one part in a result.
pub(super) struct Results<'a> {
    target: &'a Target,
    weights: &'a Packed,
    x: &'a Activations,
    /// The first row of this matrix.
    offset: usize,
}

impl Results<'_> {
    /// Writes the sums of one or two groups of this part.
    pub(super) fn put(&self, tile: usize, groups: Range<usize>, sums: [&[[f32; LANES]]; 2]) {
        groups.zip(sums).for_each(|(group, sums)| self.put_one(tile, group, sums));
    }

    fn put_one(&self, tile: usize, group: usize, sums: &[[f32; LANES]]) {
        let (count, column) = (LANES.min(self.weights.rows() - group * LANES), tile * self.x.tile());
        for (slot, sums) in sums.iter().enumerate().take(self.x.columns() - column) {
            let at = (column + slot) * self.target.rows + self.offset + group * LANES;
            // SAFETY: the result is `[columns][rows]` and no one else's until the job ends; the column is one of
            // them, the rows are below the end of this matrix's share, and each group belongs to one part, which one
            // thread takes.
            unsafe {
                let to = self.target.start.add(at);
                match sums[..count].first_chunk::<LANES>() {
                    // One store instead of a call.
                    Some(all) => to.cast::<[f32; LANES]>().write_unaligned(*all),
                    None => std::ptr::copy_nonoverlapping(sums.as_ptr(), to, count),
                }
            }
        }
    }

    /// Where sums of some groups of this part go, if all columns of the tile and all their rows are there.
    pub(super) fn place(&self, tile: usize, groups: Range<usize>) -> Option<Place> {
        let (column, width) = (tile * self.x.tile(), self.x.width(tile));
        let whole = column + width <= self.x.columns() && groups.end * LANES <= self.weights.rows();
        whole.then(|| {
            let at = column * self.target.rows + self.offset + groups.start * LANES;
            // SAFETY: as for `put`.
            unsafe { Place::new(self.target.start.add(at), self.target.rows, width) }
        })
    }
}

/// Whether weights are multiplied a block of elements at a time. With few tiles they are taken as they come from memory:
/// widening floats does not pay for so few, and integers were 5 to 30 % slower in blocks, most likely since one long stream
/// is read faster than many short ones. Of longer batches of integers only pairs of groups were faster in blocks.
fn in_blocks(path: Path, x: &Activations, weights: &Packed) -> bool {
    if weights.layout().is_float() { x.tiles() > 2 } else { path.integer_pairs() && x.tiles() > 3 }
}

/// Groups of a part.
fn at_once(path: Path, x: &Activations, weights: &Packed) -> usize {
    #[cfg(target_arch = "x86_64")]
    if x.by_column() && !weights.layout().is_float() {
        return amx::PANEL_BYTES / amx::panel_bytes(weights);
    }
    if in_blocks(path, x, weights) {
        return blocks::STRIP;
    }
    PART_BYTES / weights.group_bytes()
}

/// `sums[column] += one . x[column]`, and the same with the second group where there is one, for `rows` of a tile.
pub(super) fn tile_of_groups(
    path: Path,
    layout: Layout,
    (one, two): (&[u8], Option<&[u8]>),
    x: &Activations,
    (tile, rows): (usize, &Range<usize>),
    ends: Ends<'_, 2>,
) {
    let columns = x.width(tile);
    if layout.is_float() {
        float_groups(path, layout, (one, two), x.floats(tile, rows), columns, ends);
    } else {
        // A single tile takes weights from memory, and one long stream of them: pairs were 0.88 to 0.92 as fast there.
        let several = x.tiles() > 1;
        let x = x.integers(tile, rows, layout.is_long());
        match two {
            Some(two) if several => integer_pair_tile(path, layout, [one, two], x, columns, ends),
            two => {
                let [ends, next] = ends.apart();
                integer_tile(path, layout, one, x, columns, ends);
                if let Some(two) = two {
                    integer_tile(path, layout, two, x, columns, next);
                }
            }
        }
    }
}

/// `out[column] = [first . x[column], second . x[column], ...]` for the matrices of `stack` one under the other; `out`
/// is row-major `[columns][rows of all matrices]`.
///
/// # Panics
/// If shapes do not fit, or the activations lack the form a matrix needs.
pub fn matmul(path: Path, pool: &Pool, x: &Activations, stack: &[&Packed], out: &mut [f32]) {
    let rows: usize = stack.iter().map(|weights| weights.rows()).sum();
    assert_eq!(out.len(), x.columns() * rows, "matmul: result of {stack:?}");
    // SAFETY: as long as asserted, and borrowed exclusively.
    unsafe { multiply(path, pool, x, stack, &Target { start: out.as_mut_ptr(), rows }) }
}

/// [`matmul`] into memory that is asked for and not zeroed first: of 16 logits that is 8 MB a token.
///
/// # Panics
/// As there.
#[must_use]
pub fn product(path: Path, pool: &Pool, x: &Activations, weights: &Packed) -> Vec<f32> {
    let len = x.columns() * weights.rows();
    let mut out = Vec::with_capacity(len);
    // SAFETY: there is room for so many, which nobody else knows, and all of them are written.
    unsafe {
        multiply(path, pool, x, &[weights], &Target { start: out.as_mut_ptr(), rows: weights.rows() });
        out.set_len(len);
    }
    out
}

/// How a matrix is cut into parts.
fn cut(path: Path, x: &Activations, weights: &Packed, threads: usize) -> Cut {
    assert_eq!(weights.columns(), x.rows(), "matmul: {weights:?} with columns of {}", x.rows());
    let (groups, bytes) = (weights.groups(), weights.group_bytes());
    if x.tiles() == 1 && !x.by_column() {
        // A single tile takes only groups of floats in pairs.
        let unit = if weights.layout().is_float() { 2 } else { 1 };
        return Cut::halving(groups, unit, threads, LAST_BYTES / (unit * bytes));
    }
    // In pairs: several tiles have kernels for two groups.
    Cut::even(groups, 2, threads, at_once(path, x, weights) / 2)
}

/// Writes every element of a result.
///
/// # Safety
/// It must be `[columns of x][rows of all matrices]`, and nobody else may use it so long.
unsafe fn multiply(path: Path, pool: &Pool, x: &Activations, stack: &[&Packed], target: &Target) {
    let threads = pool.threads();
    let cut = |weights: &Packed| cut(path, x, weights, threads);
    let each: usize = stack.iter().map(|weights| cut(weights).parts).sum();
    pool.run(each * threads, &|part| {
        let (thread, mut part, mut offset, mut stack) = (part / each, part % each, 0, stack.iter());
        let (weights, groups) = loop {
            let weights = *stack.next().expect("as many parts as there are of all matrices");
            let cut = cut(weights);
            if part < cut.parts {
                break (weights, cut.groups(thread, part));
            }
            part -= cut.parts;
            offset += weights.rows();
        };
        if groups.is_empty() {
            // A small matrix has not enough for every thread.
            return;
        }
        let results = Results { target, weights, x, offset };
        #[cfg(target_arch = "x86_64")]
        if x.by_column() && !weights.layout().is_float() {
            amx::part(weights, groups.clone(), x, |tile, group, sums| results.put_one(tile, group, sums));
            return;
        }
        let layout = weights.layout();
        if in_blocks(path, x, weights) {
            blocks::part(path, weights, groups.clone(), x, &results);
            return;
        }
        let mut sums = [[[0.0; LANES]; MAX_COLUMNS]; 2];
        let all = 0..x.rows();
        for tile in 0..x.tiles() {
            let columns = x.width(tile);
            for group in groups.clone().step_by(2) {
                let [sums, next] = &mut sums;
                let last = groups.end.min(group + 2);
                let to = results.place(tile, group..last);
                if let Some(to) = &to {
                    to.soon();
                }
                let ends = Ends { kept: [&mut sums[..columns], &mut next[..columns]], fresh: true, to };
                let one = weights.group(group);
                let two = (group + 1 < last).then(|| weights.group(group + 1));
                tile_of_groups(path, layout, (one, two), x, (tile, &all), ends);
                if to.is_none() {
                    results.put(tile, group..last, [&sums[..columns], &next[..columns]]);
                }
            }
        }
    });
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, reason = "tests")]
mod tests {
    use adyton_model::quant::{TensorType, dequantize};
    use proptest::prelude::*;

    use super::super::activations::Forms;
    use super::super::packed::random;
    use super::*;

    fn product(path: Path, threads: usize, stack: &[&Packed], x: &[f32]) -> Vec<f32> {
        let len = stack[0].columns();
        let n = x.len() / len;
        let pool = Pool::new(threads);
        let mut activations = Activations::default();
        activations.fill(path, &pool, (n, len), Forms::of(stack), |i, out| {
            out.copy_from_slice(&x[i * len..(i + 1) * len]);
        });
        let mut out = vec![f32::NAN; n * stack.iter().map(|weights| weights.rows()).sum::<usize>()];
        matmul(path, &pool, &activations, stack, &mut out);
        out
    }

    /// All types; under Miri, where each takes long, one for each layout.
    fn kinds() -> Vec<TensorType> {
        let mut kinds = TensorType::ALL.to_vec();
        if cfg!(miri) {
            let mut seen = Vec::new();
            kinds.retain(|kind| {
                let layout = Layout::of(*kind);
                let new = !seen.contains(&layout);
                seen.push(layout);
                new
            });
        }
        kinds
    }

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect()
    }

    fn inputs(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 500.0 - 2.0).collect()
    }

    #[test]
    fn every_path_batch_and_thread_count_gives_the_same_bits() {
        // Parts of three groups on one thread, of one on three.
        let (rows, columns) = if cfg!(miri) { (17, 256) } else { (149, 512) };
        for kind in kinds() {
            let weights = Packed::from_bytes(kind, (rows, columns), &random(kind, rows, columns, 3)).unwrap();
            let counts: &[usize] = if cfg!(miri) {
                &[2]
            } else {
                &[1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 16, 17, 25, 32, 40, 65]
            };
            for n in counts {
                let x = inputs(n * columns, *n);
                let mut want = Vec::new();
                for x in x.chunks(columns) {
                    want.extend(product(Path::Scalar, 1, &[&weights], x));
                }
                for path in Path::available() {
                    for threads in [1, 3] {
                        let got = product(path, threads, &[&weights], &x);
                        assert_eq!(
                            bits(&got),
                            bits(&want),
                            "{kind:?}, {n} columns, {path}, {threads} threads"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn floats_and_integers_under_one_another_give_the_same_bits() {
        // Parts of several groups.
        let (rows, columns) = if cfg!(miri) { (33, 256) } else { (149, 256) };
        let packed =
            |kind| Packed::from_bytes(kind, (rows, columns), &random(kind, rows, columns, 5)).unwrap();
        for kinds in [
            [TensorType::Q4_K, TensorType::F16],
            [TensorType::F32, TensorType::Q8_0],
            [TensorType::Q4_0, TensorType::BF16],
        ] {
            let stack = kinds.map(packed);
            let stack = [&stack[0], &stack[1]];
            let counts: &[usize] = if cfg!(miri) { &[2] } else { &[1, 2, 6, 9, 12, 16, 17, 24, 32, 40, 65] };
            for n in counts {
                let x = inputs(n * columns, *n);
                let mut want = Vec::new();
                for x in x.chunks(columns) {
                    want.extend(product(Path::Scalar, 1, &stack, x));
                }
                for path in Path::available() {
                    let got = product(path, 2, &stack, &x);
                    assert_eq!(bits(&got), bits(&want), "{kinds:?}, {n} columns, {path}");
                }
            }
        }
    }

    #[test]
    fn products_are_close_to_f64() {
        let (rows, columns) = if cfg!(miri) { (2, 256) } else { (16, 1024) };
        for kind in kinds() {
            let bytes = random(kind, rows, columns, 11);
            let mut weights = vec![0.0; rows * columns];
            dequantize(kind, &bytes, &mut weights);
            let packed = Packed::from_bytes(kind, (rows, columns), &bytes).unwrap();
            let x = inputs(columns, 1);
            let got = product(Path::best(), 1, &[&packed], &x);
            for (row, got) in weights.chunks(columns).zip(got) {
                let want: f64 = row.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                let scale: f64 = row.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
                // Activations of up to 2 are rounded to steps of 2 / 127: an error of at most half a step each.
                let tolerance =
                    if packed.layout().is_float() { 1e-4 } else { 1.2 * (columns as f64).sqrt() / 127.0 };
                assert!((f64::from(got) - want).abs() <= tolerance * scale, "{kind:?}: {got} {want} {scale}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 60 }))]
        #[test]
        fn extreme_weights_and_inputs(
            kind in prop::sample::select(&TensorType::ALL[..]),
            bytes in prop::collection::vec(any::<u8>(), 1024),
            x in prop::collection::vec(prop_oneof![5 => -1f32..1.0, 1 => prop::num::f32::ANY], 256),
            n in 1usize..50,
        ) {
            let len = kind.row_bytes(256).unwrap();
            let bytes: Vec<u8> = bytes.iter().copied().cycle().take(len * 3).collect();
            let weights = Packed::from_bytes(kind, (3, 256), &bytes).unwrap();
            let x: Vec<f32> = x.iter().copied().cycle().take(256 * n).collect();
            let want = bits(&product(Path::Scalar, 1, &[&weights], &x));
            for path in Path::available() {
                prop_assert_eq!(&bits(&product(path, 2, &[&weights], &x)), &want, "{}", path);
            }
        }
    }
}
