//! The instructions of tiles in plain Rust, for tests of everything around them on CPUs with these vectors and no tiles
//! (`scripts/imitated-tiles`). Never in what is served.

use super::{LANES, Line, Sums16, permitted};

/// Whether the instructions are imitated.
pub(in super::super::super) fn imitated() -> bool {
    cfg!(any(test, imitated_tiles)) && !permitted()
}

/// What the instructions of one block give: `columns . weights`, in steps of four bytes.
fn imitate(columns: &[u32], weights: &[Line], out: &mut Sums16) {
    let byte = |byte: u8| i32::from(byte.cast_signed());
    for (sums, column) in out.0.iter_mut().zip(columns.chunks_exact(weights.len())) {
        *sums = [0; LANES];
        for (word, line) in column.iter().zip(weights) {
            for (sum, w) in sums.iter_mut().zip(line.as_chunks::<4>().0) {
                *sum += word.to_le_bytes().iter().zip(w).map(|(x, w)| byte(*x) * byte(*w)).sum::<i32>();
            }
        }
    }
}

/// As [`imitate`], for each tile of columns with each of two sets of weights.
pub(super) fn imitate_all(columns: &[&[u32]], weights: [&[Line]; 2], out: &mut [[Sums16; 2]]) {
    for (columns, out) in columns.iter().zip(out) {
        for (weights, out) in weights.iter().zip(out) {
            imitate(columns, weights, out);
        }
    }
}
