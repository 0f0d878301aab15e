//! Element types of tensors and what their blocks mean.
//!
//! What: the block formats of ggml, decoded to integers and to f32, in plain scalar code. Why: this is the
//! specification that kernels, packers and quantisers are tested against. Flow: a block's bytes go in; its integer
//! codes and scales, or its values, come out. Trust: every bit pattern is a valid block; the values may still be
//! infinite or NaN. Layout: `ggml-common.h` and `ggml-quants.c` of ggml.

mod blocks;
mod quantize;

pub use blocks::{codes, k_scales};
pub use quantize::{QuantizeError, quantize};

use crate::half::{bf16_to_f32, f16_to_f32};

/// Longest block, elements.
pub const MAX_BLOCK_LEN: usize = 256;

/// How a tensor's elements are stored. Names and numbers are ggml's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(non_camel_case_types, missing_docs, reason = "the formats' own names")]
#[repr(u32)]
pub enum TensorType {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    BF16 = 30,
}

impl TensorType {
    /// Every type that is read.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::BF16,
    ];

    /// The type of a `ggml_type` number.
    #[must_use]
    pub fn from_ggml(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.to_ggml() == number)
    }

    /// Its `ggml_type` number.
    #[must_use]
    pub fn to_ggml(self) -> u32 {
        self as u32
    }

    /// Elements in a block.
    #[must_use]
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 2 + 16,
            Self::Q4_1 => 4 + 16,
            Self::Q5_0 => 2 + 4 + 16,
            Self::Q5_1 => 4 + 4 + 16,
            Self::Q8_0 => 2 + 32,
            Self::Q4_K => 4 + 12 + 128,
            Self::Q5_K => 4 + 12 + 32 + 128,
            Self::Q6_K => 128 + 64 + 16 + 2,
        }
    }

    /// Bytes of `columns` elements; `None` if they are no whole blocks.
    #[must_use]
    pub fn row_bytes(self, columns: usize) -> Option<usize> {
        columns
            .is_multiple_of(self.block_len())
            .then(|| columns / self.block_len())?
            .checked_mul(self.block_bytes())
    }
}

fn half(bytes: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// Decodes whole blocks to f32.
///
/// # Panics
/// If the lengths do not belong together.
pub fn dequantize(kind: TensorType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(kind.row_bytes(out.len()), Some(bytes.len()), "dequantize: lengths differ");
    let blocks = bytes.chunks_exact(kind.block_bytes()).zip(out.chunks_exact_mut(kind.block_len()));
    for (block, out) in blocks {
        dequantize_block(kind, block, out);
    }
}

fn dequantize_block(kind: TensorType, block: &[u8], out: &mut [f32]) {
    match kind {
        TensorType::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
        TensorType::F16 => out[0] = half(block, 0),
        TensorType::BF16 => out[0] = bf16_to_f32(u16::from_le_bytes([block[0], block[1]])),
        _ => {
            let mut integers = [0i8; MAX_BLOCK_LEN];
            let integers = &mut integers[..kind.block_len()];
            codes(kind, block, integers);
            match kind {
                TensorType::Q4_0 => shifted(out, integers, half(block, 0), 8),
                TensorType::Q5_0 => shifted(out, integers, half(block, 0), 16),
                TensorType::Q8_0 => shifted(out, integers, half(block, 0), 0),
                TensorType::Q4_1 | TensorType::Q5_1 => {
                    affine(out, integers, half(block, 0), -half(block, 2));
                }
                TensorType::Q6_K => {
                    let d = half(block, 208);
                    let scales = &block[192..208];
                    let parts = out.chunks_exact_mut(16).zip(integers.chunks_exact(16));
                    for ((out, codes), scale) in parts.zip(scales) {
                        shifted(out, codes, d * f32::from(scale.cast_signed()), 32);
                    }
                }
                _ => {
                    let (d, d_min) = (half(block, 0), half(block, 2));
                    let (scales, mins) = k_scales(&block[4..16]);
                    let parts = out.chunks_exact_mut(32).zip(integers.chunks_exact(32));
                    for ((out, codes), (scale, min)) in parts.zip(scales.into_iter().zip(mins)) {
                        affine(out, codes, d * f32::from(scale), d_min * f32::from(min));
                    }
                }
            }
        }
    }
}

/// `(q - zero) * scale`.
fn shifted(out: &mut [f32], codes: &[i8], scale: f32, zero: i8) {
    out.iter_mut().zip(codes).for_each(|(y, q)| *y = f32::from(i16::from(*q) - i16::from(zero)) * scale);
}

/// `q * scale - min`.
fn affine(out: &mut [f32], codes: &[i8], scale: f32, min: f32) {
    out.iter_mut().zip(codes).for_each(|(y, q)| *y = f32::from(*q) * scale - min);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two positions of each format decoded by hand.
    #[test]
    fn blocks_by_hand() {
        let one = 0x3c00u16.to_le_bytes();
        let mut out = [0f32; 256];
        let mut block = vec![one[0], one[1]];
        block.extend([0x3f; 16]);
        dequantize(TensorType::Q4_0, &block, &mut out[..32]);
        assert_eq!((out[0], out[16]), (7.0, -5.0));

        // Q5_1: d = 1, m = 1, fifth bit of elements 0 and 31 set.
        let mut block = vec![one[0], one[1], one[0], one[1], 1, 0, 0, 0x80];
        block.extend([0x21; 16]);
        dequantize(TensorType::Q5_1, &block, &mut out[..32]);
        assert_eq!((out[0], out[1], out[16], out[31]), (18.0, 2.0, 3.0, 19.0));

        // Q6_K: d = 1, scale of part 5 is -2; codes are 0x21 for low bits 1 and high bits 2.
        let mut block = vec![0x01; 128];
        block.extend([0b10; 64]);
        block.extend([1; 16]);
        block.extend(one);
        block[192 + 5] = 0xfe;
        dequantize(TensorType::Q6_K, &block, &mut out);
        // Elements 0..32 have high bits 2: 0x21 - 32 = 1. Elements 64..96 have none: 0 - 32; part 5 is 80..96.
        assert_eq!((out[0], out[64], out[80], out[128]), (1.0, -32.0, 64.0, 1.0));

        // Q4_K: scale 5 of sub-block 6 has its high bits in scale byte 2.
        let mut block = vec![one[0], one[1], one[0], one[1]];
        let mut scales = [0u8; 12];
        scales[2] = 0x40;
        scales[10] = 0x15;
        block.extend(scales);
        block.extend([0x32; 128]);
        dequantize(TensorType::Q4_K, &block, &mut out);
        assert_eq!((out[0], out[192], out[224]), (0.0, 2.0 * 21.0 - 1.0, 0.0));

        // Q5_K: as above with the fifth bit of sub-block 6 (bit 6 of qh) set for element 0 of it.
        let mut block = block[..16].to_vec();
        let mut high = [0u8; 32];
        high[0] = 0x40;
        block.extend(high);
        block.extend([0x32; 128]);
        dequantize(TensorType::Q5_K, &block, &mut out);
        assert_eq!((out[192], out[193]), (18.0 * 21.0 - 1.0, 2.0 * 21.0 - 1.0));
    }

    #[test]
    fn numbers_and_sizes() {
        for kind in TensorType::ALL {
            assert_eq!(TensorType::from_ggml(kind.to_ggml()), Some(kind));
            assert_eq!(kind.row_bytes(256), Some(256 / kind.block_len() * kind.block_bytes()));
        }
        assert_eq!(TensorType::from_ggml(9), None);
        assert_eq!(TensorType::Q4_K.row_bytes(128), None);
    }
}
