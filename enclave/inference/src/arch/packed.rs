//! Weights in the kernels' layout: 16 rows interleaved, in one stream.
//!
//! A group of 16 rows is one run of bytes, so a thread that computes a group reads memory in order. Within it each
//! 32-bit lane of a 64-byte vector belongs to one row and holds four consecutive columns (integer formats), or each
//! element belongs to one row (float formats). Packing keeps the size of Q4_0, Q4_K, Q6_K, Q8_0 and the floats to the
//! byte; the rarer formats become bytes with an f32 scale and minimum.
//!
//! Every integer format means `weight = scale * code - minimum` for each sub-block of 16 or 32 columns.

use std::ops::Range;
use std::sync::Mutex;

use adyton_model::half::{bf16_to_f32, f16_to_f32};
use adyton_model::quant::{TensorType, k_scales};

use super::LANES;
use super::memory::{Arena, Memory};
use super::packing::pack_group;
use super::pool::Pool;

/// How the bytes of a group are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(non_camel_case_types, reason = "the formats' own names")]
pub enum Layout {
    /// `[column][16] f32`.
    F32,
    /// `[column][16] f16`.
    F16,
    /// `[column][16] bf16`.
    Bf16,
    /// 32 columns: `[16] f16` scales, `[8][16][4]` codes + 128. Q8_0 and Q5_0.
    Q8,
    /// 32 columns: `[16] f16` scales, `[4][16][4]` bytes; byte `(i, row, j)` holds columns `4i + j` and `4i + j + 16`.
    Q4_0,
    /// 256 columns: `[16] f16` scales, `[16] f16` minima, `[12][16]` packed 6-bit factors, then 8 times the 256 bytes
    /// of Q4_0's codes.
    Q4_K,
    /// 256 columns: `[16] f16` scales, `[16][16]` i8 factors, then for each 16 columns three vectors: nibbles of column
    /// quads 0 and 1, of 2 and 3, and the two high bits of all four.
    Q6_K,
    /// 32 columns: `[16] f32` scales, `[16] f32` minima, `[8][16][4]` codes. Q4_1, Q5_1 and Q5_K.
    Affine,
}

impl Layout {
    /// The layout that holds tensors of this type.
    #[must_use]
    pub fn of(kind: TensorType) -> Self {
        match kind {
            TensorType::F32 => Self::F32,
            TensorType::F16 => Self::F16,
            TensorType::BF16 => Self::Bf16,
            TensorType::Q8_0 | TensorType::Q5_0 => Self::Q8,
            TensorType::Q4_0 => Self::Q4_0,
            TensorType::Q4_K => Self::Q4_K,
            TensorType::Q6_K => Self::Q6_K,
            TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q5_K => Self::Affine,
        }
    }

    /// Columns of a block.
    #[must_use]
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8 | Self::Q4_0 | Self::Affine => 32,
            Self::Q4_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of a block of 16 rows.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 64,
            Self::F16 | Self::Bf16 => 32,
            Self::Q8 => 32 + 512,
            Self::Q4_0 => 32 + 256,
            Self::Q4_K => 64 + 192 + 8 * 256,
            Self::Q6_K => 32 + 256 + 16 * 192,
            Self::Affine => 128 + 512,
        }
    }

    /// Where a group holds these columns: whole blocks of them.
    pub(super) fn bytes_of(self, columns: &Range<usize>) -> Range<usize> {
        let at = |column: usize| column / self.block_len() * self.block_bytes();
        at(columns.start)..at(columns.end)
    }

    /// Whether columns are multiplied as floats, not as integers.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::Bf16)
    }

    /// Whether 256 columns are multiplied as one sum of integers, with activations that share a step.
    #[must_use]
    pub fn is_long(self) -> bool {
        matches!(self, Self::Q4_K | Self::Q6_K)
    }

    /// Columns that share a scale.
    pub(super) fn sub_len(self) -> usize {
        if self == Self::Q6_K { 16 } else { 32 }
    }
}

/// A matrix in a [`Layout`].
pub struct Packed {
    layout: Layout,
    rows: usize,
    columns: usize,
    group_bytes: usize,
    data: Memory,
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { layout, rows, columns, .. } = self;
        write!(f, "Packed({layout:?}, {rows} x {columns})")
    }
}

/// What can be wrong with a matrix's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a matrix of {rows} rows and {columns} columns cannot be held as {kind:?}")]
pub struct PackError {
    kind: TensorType,
    rows: usize,
    columns: usize,
}

impl Packed {
    /// Bytes a matrix will take when packed.
    ///
    /// # Errors
    /// [`PackError`] for an impossible shape.
    pub fn packed_bytes(kind: TensorType, (rows, columns): (usize, usize)) -> Result<usize, PackError> {
        let sizes = sizes(kind, (rows, columns)).ok_or(PackError { kind, rows, columns })?;
        Ok(sizes.2)
    }

    /// Packs a matrix of `rows` x `columns` into memory of `arena`. `read(offset, bytes)` fills `bytes` with the tensor's
    /// bytes from `offset` on; it is called from all threads of `pool`.
    ///
    /// # Errors
    /// [`PackError`] for an impossible shape, and those of `read`.
    pub fn load<E: From<PackError> + Send>(
        kind: TensorType,
        (rows, columns): (usize, usize),
        pool: &Pool,
        arena: &mut Arena,
        read: impl Fn(usize, &mut [u8]) -> Result<(), E> + Sync,
    ) -> Result<Self, E> {
        let (row_bytes, group_bytes, len) =
            sizes(kind, (rows, columns)).ok_or(PackError { kind, rows, columns })?;
        let layout = Layout::of(kind);
        let mut data = arena.zeroed(len);
        // Half a MiB at once: few calls of `read`, and what was read is still in the cache when it is packed.
        let at_once = ((512 << 10) / (row_bytes * LANES)).max(1);
        let idle = Mutex::new(Vec::new());
        let failure = Mutex::new(None);
        pool.chunks_mut(&mut data[..len], at_once * group_bytes, |part, groups| {
            let first = part * at_once * LANES;
            let count = (groups.len() / group_bytes * LANES).min(rows - first);
            // Zeroed once and wiped once for each thread, not for each part.
            let buffer = idle.lock().ok().and_then(|mut idle| idle.pop());
            let mut buffer = buffer
                .unwrap_or_else(|| Memory::zeroed(at_once.min(rows.div_ceil(LANES)) * LANES * row_bytes));
            let raw = &mut buffer[..count * row_bytes];
            if let Err(error) = read(first * row_bytes, raw) {
                if let Ok(mut failure) = failure.lock() {
                    failure.get_or_insert(error);
                }
                return;
            }
            let raw_groups = raw.chunks(LANES * row_bytes);
            for (group, raw) in groups.chunks_exact_mut(group_bytes).zip(raw_groups) {
                pack_group(kind, raw, row_bytes, group);
            }
            if let Ok(mut idle) = idle.lock() {
                idle.push(buffer);
            }
        });
        match failure.into_inner() {
            Ok(Some(error)) => Err(error),
            _ => Ok(Self { layout, rows, columns, group_bytes, data }),
        }
    }

    /// Makes a matrix group by group: `fill(index, group, more)` writes one, and what belongs to it in `more`.
    ///
    /// # Errors
    /// [`PackError`] for an impossible shape.
    pub(super) fn build<T: Send>(
        kind: TensorType,
        (rows, columns): (usize, usize),
        pool: &Pool,
        arena: &mut Arena,
        more: &mut [T],
        fill: impl Fn(usize, &mut [u8], &mut T) + Sync,
    ) -> Result<Self, PackError> {
        let sizes = sizes(kind, (rows, columns)).ok_or(PackError { kind, rows, columns })?;
        let (_, group_bytes, len) = sizes;
        let mut data = arena.zeroed(len);
        let mut groups: Vec<_> = data.chunks_exact_mut(group_bytes).zip(more).enumerate().collect();
        pool.chunks_mut(&mut groups, 1, |_, groups| {
            groups.iter_mut().for_each(|(index, (group, more))| fill(*index, group, more));
        });
        Ok(Self { layout: Layout::of(kind), rows, columns, group_bytes, data })
    }

    /// As [`Self::load`] from bytes in memory.
    ///
    /// # Errors
    /// [`PackError`] for an impossible shape or another length.
    pub fn from_bytes(
        kind: TensorType,
        (rows, columns): (usize, usize),
        bytes: &[u8],
    ) -> Result<Self, PackError> {
        let error = PackError { kind, rows, columns };
        if kind.row_bytes(columns).and_then(|len| len.checked_mul(rows)) != Some(bytes.len()) {
            return Err(error);
        }
        Self::load(kind, (rows, columns), &Pool::new(1), &mut Arena::default(), |offset, out| {
            out.copy_from_slice(bytes.get(offset..).and_then(|rest| rest.get(..out.len())).ok_or(error)?);
            Ok(())
        })
    }

    /// How it is held.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Rows: outputs.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: inputs.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Groups of 16 rows, the last one filled up with zeros.
    pub(super) fn groups(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// Bytes of a group.
    pub(super) fn group_bytes(&self) -> usize {
        self.group_bytes
    }

    /// The bytes of one group.
    pub(super) fn group(&self, index: usize) -> &[u8] {
        &self.data[index * self.group_bytes..][..self.group_bytes]
    }

    /// One row as f32.
    ///
    /// # Panics
    /// If there is no such row or `out` has another length than a row.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.columns, "Packed::row: {row} of {self:?}");
        let (group, lane) = (self.group(row / LANES), row % LANES);
        if self.layout.is_float() {
            let element = self.layout.block_bytes() / LANES;
            for (x, block) in out.iter_mut().zip(group.chunks_exact(self.layout.block_bytes())) {
                *x = float(self.layout, &block[element * lane..][..element]);
            }
            return;
        }
        for (index, out) in out.chunks_mut(self.layout.sub_len()).enumerate() {
            let sub = sub_block(self.layout, group, index, lane);
            for (x, code) in out.iter_mut().zip(sub.codes) {
                *x = f32::from(code) * sub.scale - sub.min;
            }
        }
    }
}

/// Bytes of a row in the file, of a packed group and of all groups.
fn sizes(kind: TensorType, (rows, columns): (usize, usize)) -> Option<(usize, usize, usize)> {
    let layout = Layout::of(kind);
    let row_bytes = kind.row_bytes(columns).filter(|len| *len > 0 && rows > 0)?;
    let group_bytes = (columns / layout.block_len()).checked_mul(layout.block_bytes())?;
    let len = rows.div_ceil(LANES).checked_mul(group_bytes)?;
    isize::try_from(len).is_ok().then_some((row_bytes, group_bytes, len))
}

pub(super) fn u16_at(bytes: &[u8], index: usize) -> u16 {
    u16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]])
}

fn f32_at(bytes: &[u8], index: usize) -> f32 {
    let at = 4 * index;
    f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// One element of a float layout.
pub(super) fn float(layout: Layout, bytes: &[u8]) -> f32 {
    match layout {
        Layout::F32 => f32_at(bytes, 0),
        Layout::F16 => f16_to_f32(u16_at(bytes, 0)),
        _ => bf16_to_f32(u16_at(bytes, 0)),
    }
}

/// The columns of one row that share a scale. The first 16 or 32 codes count.
pub(super) struct SubBlock {
    pub(super) codes: [i16; 32],
    pub(super) scale: f32,
    pub(super) min: f32,
}

/// Sub-block `index` of row `lane` of a group, in any integer layout. This is what the layouts mean.
pub(super) fn sub_block(layout: Layout, group: &[u8], index: usize, lane: usize) -> SubBlock {
    let per_block = layout.block_len() / layout.sub_len();
    let (block, part) = (index / per_block, index % per_block);
    let block = &group[block * layout.block_bytes()..][..layout.block_bytes()];
    let mut codes = [0; 32];
    let half = |at: usize| f16_to_f32(u16_at(&block[at..], lane));
    // Byte of column `column` in vectors of four columns for each row.
    let byte = |bytes: &[u8], column: usize| bytes[column / 4 * 64 + lane * 4 + column % 4];
    let nibbles = |bytes: &[u8], codes: &mut [i16; 32], zero: i16| {
        for column in 0..16 {
            let both = i16::from(byte(bytes, column));
            codes[column] = (both & 15) - zero;
            codes[column + 16] = (both >> 4) - zero;
        }
    };
    match layout {
        Layout::Q8 => {
            for (column, code) in codes.iter_mut().enumerate() {
                *code = i16::from(byte(&block[32..], column)) - 128;
            }
            SubBlock { codes, scale: half(0), min: 0.0 }
        }
        Layout::Q4_0 => {
            nibbles(&block[32..], &mut codes, 8);
            SubBlock { codes, scale: half(0), min: 0.0 }
        }
        Layout::Q4_K => {
            nibbles(&block[256 + part * 256..], &mut codes, 0);
            let packed: [u8; 12] = std::array::from_fn(|i| block[64 + i * LANES + lane]);
            let (scales, mins) = k_scales(&packed);
            let (scale, min) = (half(0) * f32::from(scales[part]), half(32) * f32::from(mins[part]));
            SubBlock { codes, scale, min }
        }
        Layout::Q6_K => {
            let vectors = &block[288 + part * 192..][..192];
            for (column, code) in codes.iter_mut().enumerate().take(16) {
                let at = lane * 4 + column % 4;
                let quad = column / 4;
                let low = vectors[quad / 2 * 64 + at] >> (4 * (quad % 2)) & 15;
                let high = vectors[128 + at] >> (2 * quad) & 3;
                *code = i16::from(low | high << 4) - 32;
            }
            let factor = block[32 + part * LANES + lane].cast_signed();
            SubBlock { codes, scale: half(0) * f32::from(factor), min: 0.0 }
        }
        Layout::Affine => {
            for (column, code) in codes.iter_mut().enumerate() {
                *code = i16::from(byte(&block[128..], column));
            }
            SubBlock { codes, scale: f32_at(block, lane), min: f32_at(&block[64..], lane) }
        }
        Layout::F32 | Layout::F16 | Layout::Bf16 => unreachable!("float layouts have no sub-blocks"),
    }
}

/// What belongs to 256 columns of one row of a long layout, beside its codes.
pub(super) struct Factors {
    pub(super) scale: f32,
    pub(super) min: f32,
    /// Of each sub-block: 8 for Q4_K, 16 for Q6_K.
    pub(super) scales: [i32; 16],
    /// Of each sub-block of Q4_K; zeros for Q6_K.
    pub(super) mins: [i32; 8],
}

/// Factors of block `index` of row `lane`.
pub(super) fn factors(layout: Layout, group: &[u8], index: usize, lane: usize) -> Factors {
    let block = &group[index * layout.block_bytes()..][..layout.block_bytes()];
    let half = |at: usize| f16_to_f32(u16_at(&block[at..], lane));
    if layout == Layout::Q6_K {
        let scales = std::array::from_fn(|part| i32::from(block[32 + part * LANES + lane].cast_signed()));
        return Factors { scale: half(0), min: 0.0, scales, mins: [0; 8] };
    }
    let packed: [u8; 12] = std::array::from_fn(|i| block[64 + i * LANES + lane]);
    let (scales, mins) = k_scales(&packed);
    Factors {
        scale: half(0),
        min: half(32),
        scales: std::array::from_fn(|part| scales.get(part).map_or(0, |scale| i32::from(*scale))),
        mins: mins.map(i32::from),
    }
}

#[cfg(test)]
pub(super) use tests::random;

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use adyton_model::quant::dequantize;

    use super::*;

    /// Pseudo-random bytes whose floats are finite.
    pub(crate) fn random(kind: TensorType, rows: usize, columns: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let mut bytes: Vec<u8> = (0..kind.row_bytes(columns).unwrap() * rows).map(|_| next()).collect();
        // The exponents of the floats in a block: clear the highest bit but one.
        let exponents: &[usize] = match kind {
            TensorType::F32 => &[3],
            TensorType::F16 | TensorType::BF16 | TensorType::Q4_0 | TensorType::Q5_0 | TensorType::Q8_0 => {
                &[1]
            }
            TensorType::Q6_K => &[209],
            _ => &[1, 3],
        };
        for block in bytes.chunks_exact_mut(kind.block_bytes()) {
            exponents.iter().for_each(|at| block[*at] &= 0xbf);
        }
        bytes
    }

    #[test]
    fn rows_come_back_as_the_model_crate_decodes_them() {
        let columns = if cfg!(miri) { 256 } else { 768 };
        for kind in TensorType::ALL {
            for rows in [1, 16, 19] {
                let bytes = random(kind, rows, columns, 7);
                let packed = Packed::from_bytes(kind, (rows, columns), &bytes).unwrap();
                let (mut got, mut want) = (vec![0.0; columns], vec![0.0; columns]);
                for (row, bytes) in bytes.chunks_exact(kind.row_bytes(columns).unwrap()).enumerate() {
                    dequantize(kind, bytes, &mut want);
                    packed.row(row, &mut got);
                    assert_eq!(got, want, "{kind:?} row {row}");
                }
            }
        }
    }

    #[test]
    fn common_formats_keep_their_size() {
        for kind in [TensorType::Q4_0, TensorType::Q8_0, TensorType::Q4_K, TensorType::Q6_K, TensorType::F16]
        {
            let packed = Packed::from_bytes(kind, (32, 512), &random(kind, 32, 512, 1)).unwrap();
            assert_eq!(packed.groups() * packed.group_bytes(), kind.row_bytes(512).unwrap() * 32);
        }
    }

    #[test]
    fn impossible_shapes_are_errors() {
        let load = |rows, columns| {
            Packed::load::<PackError>(
                TensorType::Q4_K,
                (rows, columns),
                &Pool::new(1),
                &mut Arena::default(),
                |_, _| Ok(()),
            )
        };
        assert!(load(1, 128).is_err());
        assert!(load(0, 256).is_err());
        assert!(load(usize::MAX, 256).is_err());
        assert!(load(1 << 60, 1 << 20).is_err());
        assert!(Packed::from_bytes(TensorType::F32, (2, 2), &[0; 15]).is_err());
    }
}
