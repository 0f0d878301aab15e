//! Rows as columns.

use super::LANES;
use super::lines::Number;
use super::path::{Kind, Path};

/// `out[i][row] = rows[row][i]`, where `out` is `[elements of a row][width]`; its other elements stay.
///
/// # Panics
/// If the rows are not all as long as `out` says, or do not fit its width.
pub(crate) fn turn<T: Number>(path: Path, rows: &[&[T]], width: usize, out: &mut [T]) {
    let len = out.len() / width;
    assert!(
        out.len() == len * width && rows.len() <= width && rows.iter().all(|row| row.len() == len),
        "turn: {} rows into [{len}][{width}]",
        rows.len()
    );
    if let ([row], 1) = (rows, width) {
        return out.copy_from_slice(row);
    }
    #[cfg(target_arch = "x86_64")]
    // A block of registers is turned as a whole, so a few rows alone are not worth it.
    let start = if path.kind() == Kind::Avx512 && (5..=LANES).contains(&rows.len()) {
        // SAFETY: a path of this kind exists only on CPUs with these instructions.
        unsafe { super::avx512::turn::blocks(rows, width, out) }
    } else {
        0
    };
    #[cfg(not(target_arch = "x86_64"))]
    let start = 0;
    for i in start..len {
        for (out, row) in out[i * width..].iter_mut().zip(rows) {
            *out = row[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns_and_nothing_else_changes() {
        for path in Path::available() {
            for (count, len, width) in
                [(1, 5, 1), (4, 33, 8), (5, 16, 5), (12, 50, 12), (7, 32, 16), (16, 48, 16)]
            {
                let value = |row: usize, i: usize| (100 * row + i) as f32;
                let rows: Vec<Vec<f32>> =
                    (0..count).map(|row| (0..len).map(|i| value(row, i)).collect()).collect();
                let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
                let mut out = vec![-1.0; len * width];
                turn(path, &rows, width, &mut out);
                for (i, out) in out.chunks(width).enumerate() {
                    for (column, out) in out.iter().enumerate() {
                        let want = if column < count { value(column, i) } else { -1.0 };
                        assert_eq!(*out, want, "{path}, {count} rows of {len} in {width}");
                    }
                }
            }
        }
    }
}
