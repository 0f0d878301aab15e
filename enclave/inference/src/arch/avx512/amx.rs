//! Whole tiles with AMX: 16 rows by 16 columns of integer products in one instruction.
//!
//! What: the products of integer layouts with 16 columns. Why: tiles multiply eight times as many 8-bit numbers in a cycle
//! as vectors do. Flow: the groups of a part are unpacked once into a *panel* of signed bytes, then every tile of columns
//! runs over it; tiles give exact integer sums, vectors turn them into floats as in the other kernels, so the bits are
//! the same.
//!
//! In the long layouts a code times the factor of its sub-block takes up to 14 bits. The panel holds two planes, the low
//! seven bits and the rest: 256 columns are then `low + 128 * high`, without a look at the sub-blocks.
//!
//! The compiler has no stable intrinsics for tiles; the few instructions are written out.

mod imitation;
pub(in super::super) mod peak;

use std::arch::asm;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::OnceLock;

use super::super::activations::Activations;
use super::super::memory::Memory;
use super::super::packed::Packed;
use super::*;
use imitation::imitate_all;
pub(in super::super) use imitation::imitated;

/// Columns of a tile.
pub(in super::super) const COLUMNS: usize = 16;
/// Bytes of a panel: half of the second-level cache, the other half is for columns.
pub(in super::super) const PANEL_BYTES: usize = 1 << 20;

/// Blocks of 32 for which totals are in registers, one tile after the other.
const AT_ONCE: usize = 4;

type Line = [u8; 64];
/// Of a block of 32 columns: codes, scales, minima.
const SHORT_LINES: usize = 8 + 2;
/// Of a block of 256 columns: two planes of codes, scales, minima, and factors of the minima as pairs.
const LONG_LINES: usize = 2 * PLANE + 2 + 4;
/// Of a plane of 256 columns.
const PLANE: usize = 64;

/// Integer sums of a tile.
#[repr(C, align(64))]
struct Sums16([[i32; LANES]; COLUMNS]);

impl Sums16 {
    const ZERO: Self = Self([[0; LANES]; COLUMNS]);
}

/// Whether the CPU has tiles of 8-bit numbers and the kernel lets this process use them.
pub(in super::super) fn permitted() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        /// Intel's manual, volume 2, CPUID leaf 7: AMX-TILE and AMX-INT8.
        const FEATURES: u32 = 1 << 24 | 1 << 25;
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & FEATURES == FEATURES && request()
    })
}

fn planes_of(planes: &[Line; 2 * PLANE]) -> [&[Line]; 2] {
    let (low, high) = planes.split_at(PLANE);
    [low, high]
}

/// Asks for the registers, which are large and off until a process wants them. Threads that start later have them too.
#[cfg(target_os = "linux")]
fn request() -> bool {
    /// Linux `arch/x86/include/uapi/asm/prctl.h`, and the number of the tiles in `XCR0`.
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const TILE_DATA: libc::c_ulong = 18;
    // SAFETY: the call takes two numbers and changes what this process may execute, nothing else.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn request() -> bool {
    false
}

/// Bytes of the panel of one group.
pub(in super::super) fn panel_bytes(weights: &Packed) -> usize {
    lines(weights) * size_of::<Line>()
}

fn lines(weights: &Packed) -> usize {
    let blocks = weights.columns() / weights.layout().block_len();
    blocks * if weights.layout().is_long() { LONG_LINES } else { SHORT_LINES }
}

/// The shapes of the tile registers, as `ldtilecfg` wants them: 0 to 3 hold sums, 4 and 5 columns, 6 and 7 weights.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    const fn new(depth: u8) -> Self {
        let mut shapes =
            Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let mut tile = 0;
        while tile < 8 {
            shapes.row_bytes[tile] = if tile == 4 || tile == 5 { depth as u16 } else { 64 };
            shapes.rows[tile] = if tile >= 6 { depth / 4 } else { 16 };
            tile += 1;
        }
        shapes
    }
}

/// Tile registers in use on this thread, for columns in rows of `DEPTH` bytes; empty again when dropped. One at a time.
struct Registers<const DEPTH: u8>(());

impl<const DEPTH: u8> Registers<DEPTH> {
    /// # Safety
    /// [`permitted`] must have said yes, and no others may be in use on this thread; or they are [`imitated`].
    unsafe fn new() -> Self {
        if imitated() {
            return Self(());
        }
        let shapes: &'static Shapes = &const { Shapes::new(DEPTH) };
        // SAFETY: the CPU has the instruction; 64 bytes in the form it wants are there.
        unsafe { asm!("ldtilecfg [{}]", in(reg) shapes, options(nostack, readonly)) }
        Self(())
    }
}

impl<const DEPTH: u8> Drop for Registers<DEPTH> {
    fn drop(&mut self) {
        if imitated() {
            return;
        }
        // SAFETY: the CPU has the instruction. What the registers held is gone, as it should be.
        unsafe { asm!("tilerelease", options(nostack, nomem)) }
    }
}

/// For blocks of 32.
type Short = Registers<32>;
/// For blocks of 256, 64 at a time.
type Long = Registers<64>;

enum InUse {
    Short(Short),
    Long(Long),
}

thread_local! {
    /// Weights of the part this thread computes. Wiped when the thread ends.
    static PANEL: RefCell<Memory> = RefCell::new(Memory::zeroed(0));
}

/// Computes `groups` for all columns; `put(tile, group, sums)` takes the results.
///
/// # Panics
/// If the columns do not lie as tiles want them.
pub(in super::super) fn part(
    weights: &Packed,
    groups: Range<usize>,
    x: &Activations,
    mut put: impl FnMut(usize, usize, &Sums<COLUMNS>),
) {
    assert!(x.by_column(), "columns for tiles");
    let (layout, lines) = (weights.layout(), lines(weights));
    PANEL.with_borrow_mut(|panel| {
        let wanted = groups.len() * lines * size_of::<Line>();
        if panel.len() < wanted {
            *panel = Memory::zeroed(wanted.max(PANEL_BYTES));
        }
        let panel = panel[..wanted].as_chunks_mut().0;
        for (group, lines) in groups.clone().zip(panel.chunks_exact_mut(lines)) {
            // SAFETY: columns lie so only if they were filled for a path with tiles, which exists only on CPUs with these
            // vectors and tiles, and after `permitted` said yes; or tiles are `imitated`.
            unsafe { unpack(layout, weights.group(group), lines) }
        }
        // SAFETY: as above; nothing between here and the end of the part uses others.
        let registers =
            unsafe { if layout.is_long() { InUse::Long(Long::new()) } else { InUse::Short(Short::new()) } };
        let columns = |tile| x.integers(tile, &(0..x.rows()), layout.is_long());
        for tile in (0..x.tiles()).step_by(2) {
            let each = |offset, group, sums: &_| put(tile + offset, groups.start + group, sums);
            let one = [columns(tile)];
            let two = (tile + 1 < x.tiles()).then(|| [columns(tile), columns(tile + 1)]);
            // SAFETY: as above.
            unsafe {
                match (&registers, two) {
                    (InUse::Short(r), Some(two)) => {
                        short_groups(layout, panel, lines, two, |x, w, out| short_pair(r, x, w, out), each);
                    }
                    (InUse::Short(r), None) => {
                        short_groups(layout, panel, lines, one, |x, w, out| short_single(r, x, w, out), each);
                    }
                    (InUse::Long(r), Some(two)) => {
                        long_groups(layout, panel, lines, two, |x, w, out| long_pair(r, x, w, out), each);
                    }
                    (InUse::Long(r), None) => {
                        long_groups(layout, panel, lines, one, |x, w, out| long_single(r, x, w, out), each);
                    }
                }
            }
        }
    });
}

/// The instructions of one block: `sums = columns . weights` in the order of the list, and on to memory.
///
/// Loads of tile registers take 8 cycles at best and four times that most of the time on the machine this was written on,
/// so two groups and two tiles of columns share them, and sums begin anew with each block.
macro_rules! tiles {
    (zero: [$($zero:tt)*], steps: [$([$($load:tt $from:literal $place:literal)*] [$($sum:tt $x:tt $w:tt)*])*], store: [$($store:tt)*],
     $($operand:tt)*) => {
        asm!(
            $(concat!("tilezero ", $zero),)*
            $(
                $(concat!("tileloadd ", $load, ", [{", $from, "}", $place, "]"),)*
                $(concat!("tdpbssd ", $sum, ", ", $x, ", ", $w),)*
            )*
            $(concat!("tilestored [{out} + {wide}], ", $store), "add {out}, 1024",)*
            $($operand)*
            wide = in(reg) 64usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

type ShortCodes = [u32; COLUMNS * 8];
type LongCodes = [u32; COLUMNS * 64];

/// One block of 32: two groups with one tile of columns.
fn short_single(_: &Short, [x]: [&ShortCodes; 1], [a, b]: [&[Line; 8]; 2], out: &mut [[Sums16; 2]; 1]) {
    if imitated() {
        return imitate_all(&[x], [a, b], out);
    }
    // SAFETY: the registers have the shapes of `Short`: 16 rows of 32 bytes from `x`, 8 of 64 from `a` and `b`, 16 of 64 to each
    // of `out`, all of which are there. The registers are nobody else's.
    unsafe {
        tiles!(
            zero: ["tmm0" "tmm1"],
            steps: [["tmm4" "x" "+{narrow}" "tmm6" "a" "+{wide}" "tmm7" "b" "+{wide}"]
                    ["tmm0" "tmm4" "tmm6" "tmm1" "tmm4" "tmm7"]],
            store: ["tmm0" "tmm1"],
            x = in(reg) x, a = in(reg) a, b = in(reg) b, out = inout(reg) out => _, narrow = in(reg) 32usize,
        );
    }
}

/// One block of 32: two groups with two tiles of columns.
fn short_pair(_: &Short, [x, y]: [&ShortCodes; 2], [a, b]: [&[Line; 8]; 2], out: &mut [[Sums16; 2]; 2]) {
    if imitated() {
        return imitate_all(&[x, y], [a, b], out);
    }
    // SAFETY: as in `short_single`.
    unsafe {
        tiles!(
            zero: ["tmm0" "tmm1" "tmm2" "tmm3"],
            steps: [["tmm4" "x" "+{narrow}" "tmm6" "a" "+{wide}" "tmm5" "y" "+{narrow}" "tmm7" "b" "+{wide}"]
                    ["tmm0" "tmm4" "tmm6" "tmm1" "tmm4" "tmm7" "tmm2" "tmm5" "tmm6" "tmm3" "tmm5" "tmm7"]],
            store: ["tmm0" "tmm1" "tmm2" "tmm3"],
            x = in(reg) x, y = in(reg) y, a = in(reg) a, b = in(reg) b, out = inout(reg) out => _,
            narrow = in(reg) 32usize,
        );
    }
}

/// One block of 256: both planes of a group with one tile of columns.
fn long_single(_: &Long, [x]: [&LongCodes; 1], planes: &[Line; 2 * PLANE], out: &mut [[Sums16; 2]; 1]) {
    if imitated() {
        return imitate_all(&[x], planes_of(planes), out);
    }
    // SAFETY: the registers have the shapes of `Long`: 16 rows of 64 bytes, 256 apart, from `x` at 0, 64, 128 and 192; 16 of 64
    // from each quarter of both planes; 16 of 64 to each of `out`, all of which are there. The registers are nobody
    // else's.
    unsafe {
        tiles!(
            zero: ["tmm0" "tmm1"],
            steps: [["tmm4" "x" "+{far}" "tmm6" "a" "+{wide}" "tmm7" "a" "+{wide}+4096"]
                    ["tmm0" "tmm4" "tmm6" "tmm1" "tmm4" "tmm7"]
                    ["tmm5" "x" "+{far}+64" "tmm6" "a" "+{wide}+1024" "tmm7" "a" "+{wide}+5120"]
                    ["tmm0" "tmm5" "tmm6" "tmm1" "tmm5" "tmm7"]
                    ["tmm4" "x" "+{far}+128" "tmm6" "a" "+{wide}+2048" "tmm7" "a" "+{wide}+6144"]
                    ["tmm0" "tmm4" "tmm6" "tmm1" "tmm4" "tmm7"]
                    ["tmm5" "x" "+{far}+192" "tmm6" "a" "+{wide}+3072" "tmm7" "a" "+{wide}+7168"]
                    ["tmm0" "tmm5" "tmm6" "tmm1" "tmm5" "tmm7"]],
            store: ["tmm0" "tmm1"],
            x = in(reg) x, a = in(reg) planes, out = inout(reg) out => _, far = in(reg) 256usize,
        );
    }
}

/// One block of 256: both planes of a group with two tiles of columns.
fn long_pair(_: &Long, [x, y]: [&LongCodes; 2], planes: &[Line; 2 * PLANE], out: &mut [[Sums16; 2]; 2]) {
    if imitated() {
        return imitate_all(&[x, y], planes_of(planes), out);
    }
    // SAFETY: as in `long_single`.
    unsafe {
        tiles!(
            zero: ["tmm0" "tmm1" "tmm2" "tmm3"],
            steps: [["tmm4" "x" "+{far}" "tmm6" "a" "+{wide}" "tmm5" "y" "+{far}" "tmm7" "a" "+{wide}+4096"]
                    ["tmm0" "tmm4" "tmm6" "tmm1" "tmm4" "tmm7" "tmm2" "tmm5" "tmm6" "tmm3" "tmm5" "tmm7"]
                    ["tmm4" "x" "+{far}+64" "tmm6" "a" "+{wide}+1024" "tmm5" "y" "+{far}+64" "tmm7" "a" "+{wide}+5120"]
                    ["tmm0" "tmm4" "tmm6" "tmm1" "tmm4" "tmm7" "tmm2" "tmm5" "tmm6" "tmm3" "tmm5" "tmm7"]
                    ["tmm4" "x" "+{far}+128" "tmm6" "a" "+{wide}+2048" "tmm5" "y" "+{far}+128" "tmm7" "a" "+{wide}+6144"]
                    ["tmm0" "tmm4" "tmm6" "tmm1" "tmm4" "tmm7" "tmm2" "tmm5" "tmm6" "tmm3" "tmm5" "tmm7"]
                    ["tmm4" "x" "+{far}+192" "tmm6" "a" "+{wide}+3072" "tmm5" "y" "+{far}+192" "tmm7" "a" "+{wide}+7168"]
                    ["tmm0" "tmm4" "tmm6" "tmm1" "tmm4" "tmm7" "tmm2" "tmm5" "tmm6" "tmm3" "tmm5" "tmm7"]],
            store: ["tmm0" "tmm1" "tmm2" "tmm3"],
            x = in(reg) x, y = in(reg) y, a = in(reg) planes, out = inout(reg) out => _, far = in(reg) 256usize,
        );
    }
}

vectors! {
    fn store(line: &mut Line, x: __m512i) {
        // SAFETY: 64 bytes are there; the store needs no alignment.
        unsafe { _mm512_storeu_si512(line.as_mut_ptr().cast(), x) }
    }

    fn store_scales(line: &mut Line, x: __m512) {
        store(line, _mm512_castps_si512(x));
    }

    fn floats_of(line: &Line) -> __m512 {
        _mm512_castsi512_ps(load(line))
    }

    fn load_integers(sums: &Sums16) -> [__m512i; COLUMNS] {
        let mut out = [_mm512_setzero_si512(); COLUMNS];
        for n in 0..COLUMNS {
            // SAFETY: 16 integers are there; the load needs no alignment.
            out[n] = unsafe { _mm512_loadu_si512(sums.0[n].as_ptr().cast()) };
        }
        out
    }

    fn unpack(layout: Layout, group: &[u8], panel: &mut [Line]) {
        match layout {
            Layout::Q4_0 => unpack_q4_0(group, panel),
            Layout::Q8 => unpack_q8(group, panel),
            Layout::Affine => unpack_affine(group, panel),
            Layout::Q4_K => unpack_q4_k(group, panel),
            Layout::Q6_K => unpack_q6_k(group, panel),
            Layout::F32 | Layout::F16 | Layout::Bf16 => unreachable!("integer layouts only"),
        }
    }

    fn unpack_q4_0(group: &[u8], panel: &mut [Line]) {
        let zero = _mm512_set1_epi8(8);
        let panels = panel.as_chunks_mut::<SHORT_LINES>().0;
        for (block, lines) in group.as_chunks::<288>().0.iter().zip(panels) {
            let (scales, vectors) = block.split_first_chunk::<32>().expect("288 bytes");
            for (i, vector) in vectors.as_chunks::<64>().0.iter().enumerate() {
                let both = stream::<FIRST>(vector);
                store(&mut lines[i], _mm512_sub_epi8(low_nibbles(both), zero));
                store(&mut lines[4 + i], _mm512_sub_epi8(high_nibbles(both), zero));
            }
            store_scales(&mut lines[8], stream_halves::<FIRST>(scales));
        }
    }

    fn unpack_q8(group: &[u8], panel: &mut [Line]) {
        let zero = _mm512_set1_epi8(-128);
        let panels = panel.as_chunks_mut::<SHORT_LINES>().0;
        for (block, lines) in group.as_chunks::<544>().0.iter().zip(panels) {
            let (scales, vectors) = block.split_first_chunk::<32>().expect("544 bytes");
            for (i, vector) in vectors.as_chunks::<64>().0.iter().enumerate() {
                store(&mut lines[i], _mm512_xor_si512(stream::<FIRST>(vector), zero));
            }
            store_scales(&mut lines[8], stream_halves::<FIRST>(scales));
        }
    }

    fn unpack_affine(group: &[u8], panel: &mut [Line]) {
        let panels = panel.as_chunks_mut::<SHORT_LINES>().0;
        for (block, lines) in group.as_chunks::<640>().0.iter().zip(panels) {
            let vectors = block.as_chunks::<64>().0;
            lines[..8].copy_from_slice(&vectors[2..]);
            lines[8..].copy_from_slice(&vectors[..2]);
        }
    }

    /// Codes times factors, both as 16-bit numbers in even and odd places, as two planes of bytes.
    fn planes(low: &mut Line, high: &mut Line, even: __m512i, odd: __m512i, factors: __m512i) {
        let (even, odd) = (_mm512_mullo_epi16(even, factors), _mm512_mullo_epi16(odd, factors));
        let seven = _mm512_set1_epi16(0x7f);
        let (low_even, low_odd) = (_mm512_and_si512(even, seven), _mm512_and_si512(odd, seven));
        let (high_even, high_odd) = (_mm512_srai_epi16::<7>(even), _mm512_srai_epi16::<7>(odd));
        store(low, _mm512_or_si512(low_even, _mm512_slli_epi16::<8>(low_odd)));
        let high_even = _mm512_and_si512(high_even, _mm512_set1_epi16(0xff));
        store(high, _mm512_or_si512(high_even, _mm512_slli_epi16::<8>(high_odd)));
    }

    /// Factors of 16 rows for both halves of each 32 bits.
    fn twice(factors: __m512i) -> __m512i {
        pair(factors, factors)
    }

    fn unpack_q4_k(group: &[u8], panel: &mut [Line]) {
        let even = _mm512_set1_epi16(0x0f);
        let panels = panel.as_chunks_mut::<LONG_LINES>().0;
        for (block, lines) in group.as_chunks::<2304>().0.iter().zip(panels) {
            let (head, vectors) = block.split_first_chunk::<256>().expect("2304 bytes");
            head.as_chunks::<64>().0.iter().for_each(ahead);
            let (d, rest) = head.split_first_chunk::<32>().expect("256 bytes");
            let (m, rest) = rest.split_first_chunk::<32>().expect("224 bytes");
            let (scales, mins) = k_factors(rest.as_chunks::<16>().0.first_chunk().expect("192 bytes"));
            let vectors = vectors.as_chunks::<64>().0;
            let (low, rest) = lines.split_first_chunk_mut::<PLANE>().expect("a plane");
            let (high, rest) = rest.split_first_chunk_mut::<PLANE>().expect("a plane");
            for part in 0..8 {
                let factors = twice(widened(scales[part]));
                for i in 0..4 {
                    let both = stream::<FIRST>(&vectors[part * 4 + i]);
                    let places = [part * 8 + i, part * 8 + 4 + i];
                    let nibble = |shifted| _mm512_and_si512(shifted, even);
                    let (a, b) = (nibble(both), nibble(_mm512_srli_epi16::<8>(both)));
                    planes(&mut low[places[0]], &mut high[places[0]], a, b, factors);
                    let (a, b) = (nibble(_mm512_srli_epi16::<4>(both)), _mm512_srli_epi16::<12>(both));
                    planes(&mut low[places[1]], &mut high[places[1]], a, b, factors);
                }
            }
            store_scales(&mut rest[0], halves(d));
            // The sign of a product is exact.
            store_scales(&mut rest[1], _mm512_sub_ps(_mm512_set1_ps(-0.0), halves(m)));
            for i in 0..4 {
                store(&mut rest[2 + i], pair(widened(mins[2 * i]), widened(mins[2 * i + 1])));
            }
        }
    }

    fn unpack_q6_k(group: &[u8], panel: &mut [Line]) {
        let bits = _mm512_set1_epi8(0x30);
        let with = |low, high| _mm512_or_si512(low, _mm512_and_si512(high, bits));
        let zero = _mm512_set1_epi16(32);
        let panels = panel.as_chunks_mut::<LONG_LINES>().0;
        for (block, lines) in group.as_chunks::<3360>().0.iter().zip(panels) {
            let (d, rest) = block.split_first_chunk::<32>().expect("3360 bytes");
            let (factors, vectors) = rest.split_first_chunk::<256>().expect("3328 bytes");
            factors.as_chunks::<64>().0.iter().for_each(ahead);
            let (factors, vectors) = (factors.as_chunks::<16>().0, vectors.as_chunks::<64>().0);
            let (low, rest) = lines.split_first_chunk_mut::<PLANE>().expect("a plane");
            let (high, rest) = rest.split_first_chunk_mut::<PLANE>().expect("a plane");
            for part in 0..16 {
                let factors = twice(_mm512_cvtepi8_epi32(load_quarter(&factors[part])));
                let (a, b) = (stream::<FIRST>(&vectors[part * 3]), stream::<FIRST>(&vectors[part * 3 + 1]));
                let high_bits = stream::<FIRST>(&vectors[part * 3 + 2]);
                let quads = [
                    with(low_nibbles(a), _mm512_slli_epi16::<4>(high_bits)),
                    with(high_nibbles(a), _mm512_slli_epi16::<2>(high_bits)),
                    with(low_nibbles(b), high_bits),
                    with(high_nibbles(b), _mm512_srli_epi16::<2>(high_bits)),
                ];
                for i in 0..4 {
                    let even = _mm512_and_si512(quads[i], _mm512_set1_epi16(0xff));
                    let (even, odd) = (even, _mm512_srli_epi16::<8>(quads[i]));
                    let (even, odd) = (_mm512_sub_epi16(even, zero), _mm512_sub_epi16(odd, zero));
                    planes(&mut low[part * 4 + i], &mut high[part * 4 + i], even, odd, factors);
                }
            }
            store_scales(&mut rest[0], halves(d));
        }
    }

    /// Two groups with `T` tiles of columns; `out`: `[tile][group]`.
    fn short<const T: usize, const MINIMA: bool>(
        panels: [&[Line]; 2],
        x: [&[u32]; T],
        one_block: impl Fn([&ShortCodes; T], [&[Line; 8]; 2], &mut [[Sums16; 2]; T]),
        sums: &mut [[[Sums16; 2]; T]; AT_ONCE],
        out: &mut [[Sums<COLUMNS>; 2]; T],
    ) {
        const WORDS: usize = BLOCK_WORDS * COLUMNS;
        let x = x.map(|x| x.as_chunks::<WORDS>().0);
        let panels = panels.map(|panel| panel.as_chunks::<SHORT_LINES>().0);
        for first in (0..panels[0].len()).step_by(AT_ONCE) {
            let count = AT_ONCE.min(panels[0].len() - first);
            for (i, sums) in (first..first + count).zip(&mut *sums) {
                let codes = x.map(|x| x[i][CODES * COLUMNS..].first_chunk().expect("16 columns"));
                one_block(codes, panels.map(|panel| panel[i].first_chunk().expect("8 lines")), sums);
            }
            for (tile, group) in (0..T).flat_map(|tile| [(tile, 0), (tile, 1)]) {
                let mut total = load_sums(&out[tile][group]);
                for (i, sums) in (first..first + count).zip(&*sums) {
                    let (x, lines) = (&x[tile][i], &panels[group][i]);
                    scaled(&mut total, &load_integers(&sums[tile][group]), &x[..COLUMNS], floats_of(&lines[8]));
                    if MINIMA {
                        minus(&mut total, floats_of(&lines[9]), &x[STEP_SUM * COLUMNS..]);
                    }
                }
                store_sums(&mut out[tile][group], &total);
            }
        }
    }

    /// A group with `T` tiles of columns.
    fn long<const T: usize, const MINIMA: bool>(
        panel: &[Line],
        x: [&[u32]; T],
        one_block: impl Fn([&LongCodes; T], &[Line; 2 * PLANE], &mut [[Sums16; 2]; T]),
        planes: &mut [[Sums16; 2]; T],
        out: &mut [Sums<COLUMNS>; T],
    ) {
        const WORDS: usize = LONG_WORDS * COLUMNS;
        let x = x.map(|x| x.as_chunks::<WORDS>().0);
        for (i, lines) in panel.as_chunks::<LONG_LINES>().0.iter().enumerate() {
            let codes = x.map(|x| x[i][LONG_CODES * COLUMNS..].first_chunk().expect("16 columns"));
            one_block(codes, lines.first_chunk().expect("two planes"), planes);
            let factors = lines.last_chunk::<6>().expect("factors");
            for tile in 0..T {
                let x = &x[tile][i];
                let mut total = load_sums(&out[tile]);
                let (mut sums, high) = (load_integers(&planes[tile][0]), load_integers(&planes[tile][1]));
                for n in 0..COLUMNS {
                    sums[n] = _mm512_add_epi32(sums[n], _mm512_slli_epi32::<7>(high[n]));
                }
                scaled(&mut total, &sums, &x[..COLUMNS], floats_of(&factors[0]));
                if MINIMA {
                    let mut sums = [_mm512_setzero_si512(); COLUMNS];
                    for j in 0..4 {
                        pairs(&mut sums, load(&factors[2 + j]), &x[(LONG_THIRTIES + j) * COLUMNS..][..COLUMNS]);
                    }
                    scaled(&mut total, &sums, &x[..COLUMNS], floats_of(&factors[1]));
                }
                store_sums(&mut out[tile], &total);
            }
        }
    }

    /// `T` tiles of columns over all groups of a panel with blocks of 32.
    fn short_groups<const T: usize>(
        layout: Layout,
        panels: &[Line],
        lines: usize,
        x: [&[u32]; T],
        one_block: impl Fn([&ShortCodes; T], [&[Line; 8]; 2], &mut [[Sums16; 2]; T]),
        mut put: impl FnMut(usize, usize, &Sums<COLUMNS>),
    ) {
        let mut integers = [const { [const { [Sums16::ZERO; 2] }; T] }; AT_ONCE];
        for (index, two) in panels.chunks(2 * lines).enumerate() {
            // The last group may be alone; it is then computed twice.
            let (first, second) = two.split_at(lines);
            let pair = [first, if second.is_empty() { first } else { second }];
            let mut sums = [[[[0.0; LANES]; COLUMNS]; 2]; T];
            match layout {
                Layout::Affine => short::<T, true>(pair, x, &one_block, &mut integers, &mut sums),
                _ => short::<T, false>(pair, x, &one_block, &mut integers, &mut sums),
            }
            for (tile, sums) in sums.iter().enumerate() {
                for (group, sums) in sums.iter().enumerate().take(two.len() / lines) {
                    put(tile, 2 * index + group, sums);
                }
            }
        }
    }

    /// `T` tiles of columns over all groups of a panel with blocks of 256.
    fn long_groups<const T: usize>(
        layout: Layout,
        panels: &[Line],
        lines: usize,
        x: [&[u32]; T],
        one_block: impl Fn([&LongCodes; T], &[Line; 2 * PLANE], &mut [[Sums16; 2]; T]),
        mut put: impl FnMut(usize, usize, &Sums<COLUMNS>),
    ) {
        let mut planes = [const { [Sums16::ZERO; 2] }; T];
        for (group, panel) in panels.chunks_exact(lines).enumerate() {
            let mut sums = [[[0.0; LANES]; COLUMNS]; T];
            match layout {
                Layout::Q4_K => long::<T, true>(panel, x, &one_block, &mut planes, &mut sums),
                _ => long::<T, false>(panel, x, &one_block, &mut planes, &mut sums),
            }
            sums.iter().enumerate().for_each(|(tile, sums)| put(tile, group, sums));
        }
    }
}
