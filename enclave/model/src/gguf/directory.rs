//! The tensor directory: names, shapes, types and places.

use super::GgufError;
use super::cursor::Cursor;
use crate::quant::TensorType;

/// `GGML_MAX_DIMS`.
pub const MAX_DIMENSIONS: u32 = 4;

/// Where one tensor lies in the file and how it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorInfo<'data> {
    /// Its name.
    pub name: &'data str,
    /// Element type.
    pub kind: TensorType,
    /// Dimensions, innermost (row length) first; absent ones are 1.
    pub dims: [u64; 4],
    /// First byte in the file.
    pub start: u64,
    /// Bytes of data.
    pub len_bytes: u64,
}

impl TensorInfo<'_> {
    /// Elements in a row.
    #[must_use]
    pub fn columns(&self) -> u64 {
        self.dims[0]
    }

    /// Rows of the whole tensor; 1 for a vector.
    #[must_use]
    pub fn rows(&self) -> u64 {
        // Checked when the directory was read: the product of all dimensions is below 2^63.
        self.dims[1].saturating_mul(self.dims[2]).saturating_mul(self.dims[3])
    }
}

/// Reads `count` entries; `start` holds the offset within the tensor data until [`place`] has checked it.
pub(super) fn read<'data>(
    cursor: &mut Cursor<'data>,
    count: u64,
    alignment: u64,
) -> Result<Vec<TensorInfo<'data>>, GgufError> {
    let mut tensors = Vec::new();
    let mut want = 0u64;
    for _ in 0..count {
        let tensor = entry(cursor)?;
        if tensor.start != want {
            return Err(GgufError::Offset { name: tensor.name.to_owned(), got: tensor.start, want });
        }
        want = tensor
            .start
            .checked_add(tensor.len_bytes)
            .and_then(|end| end.checked_next_multiple_of(alignment))
            .ok_or_else(|| shape(tensor.name, &tensor.dims))?;
        tensors.push(tensor);
    }
    Ok(tensors)
}

fn entry<'data>(cursor: &mut Cursor<'data>) -> Result<TensorInfo<'data>, GgufError> {
    let name = cursor.string()?;
    let n_dims = cursor.u32()?;
    if n_dims == 0 || n_dims > MAX_DIMENSIONS {
        return Err(shape(name, &[]));
    }
    let mut dims = [1; 4];
    for dim in dims.iter_mut().take(n_dims as usize) {
        *dim = cursor.u64()?;
    }
    let number = cursor.u32()?;
    let kind = TensorType::from_ggml(number)
        .ok_or_else(|| GgufError::TensorType { name: name.to_owned(), got: number })?;
    let start = cursor.u64()?;
    let len_bytes = len_bytes(kind, &dims).ok_or_else(|| shape(name, &dims))?;
    Ok(TensorInfo { name, kind, dims, start, len_bytes })
}

/// Bytes of a tensor; `None` for zero dimensions, overflow and rows that are no whole blocks.
fn len_bytes(kind: TensorType, dims: &[u64; 4]) -> Option<u64> {
    let elements = dims.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim))?;
    let block = kind.block_len() as u64;
    if elements == 0 || elements > i64::MAX.cast_unsigned() || !dims[0].is_multiple_of(block) {
        return None;
    }
    elements.checked_div(block)?.checked_mul(kind.block_bytes() as u64)
}

fn shape(name: &str, dims: &[u64]) -> GgufError {
    GgufError::Shape { name: name.to_owned(), shape: dims.to_vec() }
}

/// Turns offsets into places in the file, whose header is `header_len` bytes long, and checks its end.
pub(super) fn place<'data>(
    mut tensors: Vec<TensorInfo<'data>>,
    header_len: u64,
    alignment: u64,
    file_len: u64,
) -> Result<Vec<TensorInfo<'data>>, GgufError> {
    let data = header_len.checked_next_multiple_of(alignment).ok_or(GgufError::Alignment)?;
    let mut end = header_len;
    for tensor in &mut tensors {
        tensor.start = tensor.start.checked_add(data).ok_or_else(|| shape(tensor.name, &tensor.dims))?;
        end = tensor.start.checked_add(tensor.len_bytes).ok_or_else(|| shape(tensor.name, &tensor.dims))?;
        if end > file_len {
            return Err(GgufError::Short { name: tensor.name.to_owned(), end, file_len });
        }
    }
    // Writers pad the last tensor too.
    let trailing = file_len.saturating_sub(end);
    if trailing >= alignment {
        return Err(GgufError::Trailing(trailing));
    }
    Ok(tensors)
}
