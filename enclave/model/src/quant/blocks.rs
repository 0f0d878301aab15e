//! The integer codes inside a block, in element order.

use super::TensorType;

/// Low nibble of `byte`.
fn low(byte: u8) -> i8 {
    (byte & 15).cast_signed()
}

/// High nibble of `byte`.
fn high(byte: u8) -> i8 {
    (byte >> 4).cast_signed()
}

/// The integers of one block of an integer format: 0..=15 for 4 bits, 0..=31 for 5, 0..=63 for 6, all of i8 for Q8_0.
///
/// # Panics
/// If the lengths are not those of one block, or `kind` is a float type.
pub fn codes(kind: TensorType, block: &[u8], out: &mut [i8]) {
    assert_eq!((block.len(), out.len()), (kind.block_bytes(), kind.block_len()), "codes: not one block");
    match kind {
        TensorType::Q8_0 => out.iter_mut().zip(&block[2..]).for_each(|(q, b)| *q = b.cast_signed()),
        TensorType::Q4_0 => nibbles(&block[2..], out),
        TensorType::Q4_1 => nibbles(&block[4..], out),
        TensorType::Q5_0 => fifth_bit(&block[2..], out),
        TensorType::Q5_1 => fifth_bit(&block[4..], out),
        TensorType::Q4_K => quarters(&block[16..], out),
        TensorType::Q5_K => {
            quarters(&block[48..], out);
            for (part, out) in out.chunks_exact_mut(32).enumerate() {
                for (q, bits) in out.iter_mut().zip(&block[16..48]) {
                    *q += (bits >> part & 1).cast_signed() << 4;
                }
            }
        }
        TensorType::Q6_K => {
            let halves = out.chunks_exact_mut(128).zip(block.chunks_exact(64));
            for (index, (out, low_bits)) in halves.enumerate() {
                six_bits(low_bits, &block[128 + 32 * index..][..32], out);
            }
        }
        TensorType::F32 | TensorType::F16 | TensorType::BF16 => panic!("codes: {kind:?} has none"),
    }
}

/// 16 bytes: low nibbles are the first half of the block, high nibbles the second.
fn nibbles(bytes: &[u8], out: &mut [i8]) {
    let (first, second) = out.split_at_mut(bytes.len());
    for ((a, b), byte) in first.iter_mut().zip(second).zip(bytes) {
        (*a, *b) = (low(*byte), high(*byte));
    }
}

/// The fifth bits as a u32, element by element, then nibbles.
fn fifth_bit(bytes: &[u8], out: &mut [i8]) {
    nibbles(&bytes[4..], out);
    for (index, q) in out.iter_mut().enumerate() {
        *q += (bytes[index / 8] >> (index % 8) & 1).cast_signed() << 4;
    }
}

/// 32 bytes for each 64 elements, as [`nibbles`].
fn quarters(bytes: &[u8], out: &mut [i8]) {
    bytes.chunks_exact(32).zip(out.chunks_exact_mut(64)).for_each(|(bytes, out)| nibbles(bytes, out));
}

/// Half a Q6_K block: 64 bytes of low nibbles and 32 bytes of four times two high bits make 128 codes.
fn six_bits(low_bits: &[u8], high_bits: &[u8], out: &mut [i8]) {
    for (index, bits) in high_bits.iter().enumerate() {
        let (a, b) = (low_bits[index], low_bits[index + 32]);
        out[index] = low(a) | (bits & 3).cast_signed() << 4;
        out[index + 32] = low(b) | (bits >> 2 & 3).cast_signed() << 4;
        out[index + 64] = high(a) | (bits >> 4 & 3).cast_signed() << 4;
        out[index + 96] = high(b) | (bits >> 6).cast_signed() << 4;
    }
}

/// Scales and minima of the eight sub-blocks of Q4_K and Q5_K, 6 bits each, from their 12 bytes.
///
/// # Panics
/// If there are not 12 bytes.
#[must_use]
pub fn k_scales(bytes: &[u8]) -> ([u8; 8], [u8; 8]) {
    assert_eq!(bytes.len(), 12, "k_scales: 12 bytes");
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for j in 0..4 {
        scales[j] = bytes[j] & 63;
        mins[j] = bytes[j + 4] & 63;
        scales[j + 4] = bytes[j + 8] & 15 | (bytes[j] >> 6) << 4;
        mins[j + 4] = bytes[j + 8] >> 4 | (bytes[j + 4] >> 6) << 4;
    }
    (scales, mins)
}
