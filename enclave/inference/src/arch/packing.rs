//! Rows of a tensor as a file has them, brought into a [`Layout`].

use adyton_model::half::f16_to_f32;
use adyton_model::quant::{MAX_BLOCK_LEN, TensorType, codes, k_scales};

use super::LANES;
use super::packed::{Layout, u16_at};

fn word(bytes: &[u8], index: usize) -> u32 {
    let at = 4 * index;
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn put(out: &mut [u8], index: usize, word: u32) {
    out[4 * index..4 * index + 4].copy_from_slice(&word.to_le_bytes());
}

/// Writes up to 16 rows of a tensor, which lie one after the other, into a group.
pub(super) fn pack_group(kind: TensorType, rows: &[u8], row_bytes: usize, group: &mut [u8]) {
    let layout = Layout::of(kind);
    if layout.is_float() {
        return match kind.block_bytes() {
            2 => pack_floats::<2>(rows, row_bytes, group),
            _ => pack_floats::<4>(rows, row_bytes, group),
        };
    }
    match kind {
        TensorType::Q8_0 => pack_blocks(rows, row_bytes, group, pack_q8_0),
        TensorType::Q4_0 => pack_blocks(rows, row_bytes, group, pack_q4_0),
        TensorType::Q4_K => pack_blocks(rows, row_bytes, group, pack_q4_k),
        TensorType::Q6_K => pack_blocks(rows, row_bytes, group, pack_q6_k),
        TensorType::Q5_0 => pack_blocks(rows, row_bytes, group, pack_q5_0),
        _ => {
            let place = layout.block_bytes() * (kind.block_len() / layout.block_len());
            in_turns(rows, row_bytes, group, [kind.block_bytes(), place], |block, lane, place| {
                pack_affine(kind, block, lane, place);
            });
        }
    }
}

/// Calls `pack(block, lane, place)` for each block of each row. The lanes of a place follow each other: its lines are
/// still in the first cache when the next lane writes into them.
fn in_turns(
    rows: &[u8],
    row_bytes: usize,
    group: &mut [u8],
    [block_bytes, place_bytes]: [usize; 2],
    pack: impl Fn(&[u8], usize, &mut [u8]),
) {
    for (index, place) in group.chunks_mut(place_bytes).enumerate() {
        let start = index * block_bytes;
        for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
            pack(&row[start..row_bytes.min(start + block_bytes)], lane, place);
        }
    }
}

/// [`in_turns`] with sizes that the compiler knows, and then need not check at each word.
fn pack_blocks<const BLOCK: usize, const PLACE: usize>(
    rows: &[u8],
    row_bytes: usize,
    group: &mut [u8],
    pack: impl Fn(&[u8; BLOCK], usize, &mut [u8; PLACE]),
) {
    in_turns(rows, row_bytes, group, [BLOCK, PLACE], |block, lane, place| {
        let place = place.first_chunk_mut().expect("groups are whole blocks");
        pack(block.first_chunk().expect("rows are whole blocks"), lane % LANES, place);
    });
}

fn pack_floats<const ELEMENT: usize>(rows: &[u8], row_bytes: usize, group: &mut [u8]) {
    // As many elements at once as fit few lines.
    let sizes = [32 * ELEMENT, 32 * ELEMENT * LANES];
    in_turns(rows, row_bytes, group, sizes, |values, lane, place| {
        let places = place.as_chunks_mut::<ELEMENT>().0.iter_mut().skip(lane).step_by(LANES);
        places.zip(values.as_chunks::<ELEMENT>().0).for_each(|(place, value)| *place = *value);
    });
}

fn pack_q8_0(block: &[u8; 34], lane: usize, place: &mut [u8; 544]) {
    place[2 * lane..2 * lane + 2].copy_from_slice(&block[..2]);
    for i in 0..8 {
        put(&mut place[32..], i * LANES + lane, word(&block[2..], i) ^ 0x8080_8080);
    }
}

fn pack_q4_0(block: &[u8; 18], lane: usize, place: &mut [u8; 288]) {
    place[2 * lane..2 * lane + 2].copy_from_slice(&block[..2]);
    for i in 0..4 {
        put(&mut place[32..], i * LANES + lane, word(&block[2..], i));
    }
}

fn pack_q5_0(block: &[u8; 22], lane: usize, place: &mut [u8; 544]) {
    let mut integers = [0i8; 32];
    codes(TensorType::Q5_0, block, &mut integers);
    place[2 * lane..2 * lane + 2].copy_from_slice(&block[..2]);
    // The code's zero is 16, the layout's 128.
    put_codes(&integers, lane, 112, &mut place[32..]);
}

fn put_codes(codes: &[i8], lane: usize, plus: u8, out: &mut [u8]) {
    for (i, quad) in codes.chunks_exact(4).enumerate() {
        for (j, code) in quad.iter().enumerate() {
            out[(i * LANES + lane) * 4 + j] = code.cast_unsigned().wrapping_add(plus);
        }
    }
}

fn pack_q4_k(block: &[u8; 144], lane: usize, place: &mut [u8; 2304]) {
    const LOW: u32 = 0x0f0f_0f0f;
    place[2 * lane..2 * lane + 2].copy_from_slice(&block[..2]);
    place[32 + 2 * lane..34 + 2 * lane].copy_from_slice(&block[2..4]);
    for i in 0..12 {
        place[64 + i * LANES + lane] = block[4 + i];
    }
    let place = &mut place[256..];
    for (pair, bytes) in block[16..].chunks_exact(32).enumerate() {
        for i in 0..4 {
            let (a, b) = (word(bytes, i), word(bytes, i + 4));
            put(place, (pair * 8 + i) * LANES + lane, a & LOW | (b & LOW) << 4);
            put(place, (pair * 8 + 4 + i) * LANES + lane, a >> 4 & LOW | b & !LOW);
        }
    }
}

fn pack_q6_k(block: &[u8; 210], lane: usize, place: &mut [u8; 3360]) {
    place[2 * lane..2 * lane + 2].copy_from_slice(&block[208..]);
    for i in 0..16 {
        place[32 + i * LANES + lane] = block[192 + i];
    }
    let place = &mut place[288..];
    // Quads of columns: eight follow each other with the same shifts, and four of them are a sub-block.
    for (half, place) in place.chunks_exact_mut(8 * 192).enumerate() {
        let (low, high) = (&block[half * 64..half * 64 + 64], &block[128 + half * 32..160 + half * 32]);
        for (quarter, place) in place.chunks_exact_mut(2 * 192).enumerate() {
            for (sub, place) in place.chunks_exact_mut(192).enumerate() {
                let low =
                    |i: usize| word(low, quarter % 2 * 8 + sub * 4 + i) >> (quarter / 2 * 4) & 0x0f0f_0f0f;
                let high = |i: usize| (word(high, sub * 4 + i) >> (2 * quarter) & 0x0303_0303) << (2 * i);
                put(place, lane, low(0) | low(1) << 4);
                put(place, LANES + lane, low(2) | low(3) << 4);
                put(place, 2 * LANES + lane, high(0) | high(1) | high(2) | high(3));
            }
        }
    }
}

fn pack_affine(kind: TensorType, block: &[u8], lane: usize, place: &mut [u8]) {
    let mut integers = [0i8; MAX_BLOCK_LEN];
    let integers = &mut integers[..kind.block_len()];
    codes(kind, block, integers);
    let (d, m) = (f16_to_f32(u16_at(block, 0)), f16_to_f32(u16_at(block, 1)));
    let factors = (kind == TensorType::Q5_K).then(|| k_scales(&block[4..16]));
    let places = place.chunks_exact_mut(Layout::Affine.block_bytes()).zip(integers.chunks_exact(32));
    for (part, (place, codes)) in places.enumerate() {
        let (scale, min) = match factors {
            Some((scales, mins)) => (d * f32::from(scales[part]), m * f32::from(mins[part])),
            None => (d, -m),
        };
        place[4 * lane..4 * lane + 4].copy_from_slice(&scale.to_le_bytes());
        place[64 + 4 * lane..68 + 4 * lane].copy_from_slice(&min.to_le_bytes());
        put_codes(codes, lane, 0, &mut place[128..]);
    }
}
