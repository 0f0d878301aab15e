//! The TD HOB list: how QEMU tells the firmware which memory it has, measured into RTMR0.
//!
//! QEMU, `hw/i386/tdvf-hob.c` and `target/i386/kvm/tdx.c`: a hand-off table (PI 1.8, volume 3, 5.2), then a resource
//! descriptor for each range of memory in order of address. Memory that is in place at the start (the HOB itself and
//! temporary memory) is system memory, the rest is unaccepted. The end marker is not measured.

use super::tdvf::{Section, SectionKind};

/// Q35: at this size and above, memory below 4 GiB ends at 2 GiB instead.
const SPLIT_AT_BYTES: u64 = 0xb000_0000;
const LOW_END_OF_LARGE: u64 = 0x8000_0000;
const FOUR_GIB: u64 = 1 << 32;
/// More than any machine; below it no sum here overflows.
pub(super) const MAX_MEMORY_BYTES: u64 = 1 << 52;

const HANDOFF_LEN_BYTES: u16 = 56;
const RESOURCE_LEN_BYTES: u16 = 48;
/// The end marker, which the table's pointer to its end counts.
const END_LEN_BYTES: u64 = 8;
const SYSTEM_MEMORY: u32 = 0;
const UNACCEPTED: u32 = 7;
/// Present, initialised, tested.
const ATTRIBUTES: u32 = 7;

/// Where memory of `memory_bytes` ends below 4 GiB.
pub(super) const fn low_end(memory_bytes: u64) -> u64 {
    if memory_bytes >= SPLIT_AT_BYTES { LOW_END_OF_LARGE } else { memory_bytes }
}

struct Range {
    kind: u32,
    start: u64,
    end: u64,
}

/// The measured bytes, for a guest of `memory_bytes`.
///
/// # Errors
/// What makes this no guest that QEMU starts.
pub(super) fn td_hob(sections: &[Section<'_>], memory_bytes: u64) -> Result<Vec<u8>, &'static str> {
    if !(1..=MAX_MEMORY_BYTES).contains(&memory_bytes) || !memory_bytes.is_multiple_of(4096) {
        return Err("memory is whole pages, of at most 4 PiB");
    }
    let mut hobs = sections.iter().filter(|section| section.kind == SectionKind::TdHob);
    let (Some(hob), None) = (hobs.next(), hobs.next()) else {
        return Err("the firmware does not have exactly one TD HOB section");
    };
    let mut list = Vec::new();
    for range in ranges(sections, memory_bytes)? {
        list.extend(header(3, RESOURCE_LEN_BYTES));
        list.extend([0; 16]); // owner
        list.extend([range.kind, ATTRIBUTES].map(u32::to_le_bytes).concat());
        list.extend([range.start, range.end - range.start].map(u64::to_le_bytes).concat());
    }
    let all = u64::from(HANDOFF_LEN_BYTES) + list.len() as u64 + END_LEN_BYTES;
    if all > hob.len_bytes() {
        return Err("the list does not fit the firmware's TD HOB section");
    }
    let mut table = header(1, HANDOFF_LEN_BYTES).to_vec();
    table.extend([9_u32, 0].map(u32::to_le_bytes).concat()); // version, boot mode
    table.extend([0; 32]); // EfiMemoryTop and Bottom, EfiFreeMemoryTop and Bottom
    table.extend((hob.gpa + all).to_le_bytes()); // EfiEndOfHobList
    table.extend(list);
    Ok(table)
}

/// HobType, HobLength (2 bytes each), reserved (4).
fn header(kind: u16, len_bytes: u16) -> [u8; 8] {
    let ([a, b], [c, d]) = (kind.to_le_bytes(), len_bytes.to_le_bytes());
    [a, b, c, d, 0, 0, 0, 0]
}

/// All memory in order, divided where a section in place begins and ends.
fn ranges(sections: &[Section<'_>], memory_bytes: u64) -> Result<Vec<Range>, &'static str> {
    let low = low_end(memory_bytes);
    let mut ranges = vec![Range { kind: UNACCEPTED, start: 0, end: low }];
    if memory_bytes > low {
        ranges.push(Range { kind: UNACCEPTED, start: FOUR_GIB, end: FOUR_GIB + (memory_bytes - low) });
    }
    let in_place = |section: &&Section<'_>| matches!(section.kind, SectionKind::TdHob | SectionKind::TempMem);
    for section in sections.iter().filter(in_place).filter(|section| section.pages > 0) {
        let holds = |range: &Range| {
            range.kind == UNACCEPTED && range.start <= section.gpa && section.end() <= range.end
        };
        let at = ranges.iter().position(holds).ok_or("the firmware needs more memory than the guest has")?;
        let whole = ranges.remove(at);
        ranges.push(Range { end: section.gpa, ..whole });
        ranges.push(Range { kind: SYSTEM_MEMORY, start: section.gpa, end: section.end() });
        ranges.push(Range { start: section.end(), ..whole });
        ranges.retain(|range| range.start < range.end);
    }
    ranges.sort_by_key(|range| range.start);
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::super::tdvf::{sections, tests::SECTIONS, tests::image};
    use super::*;

    fn resources(hob: &[u8]) -> Vec<(u32, u64, u64)> {
        let field = |bytes: &[u8], at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
        let resource = |bytes: &[u8]| (u32::from(bytes[24]), field(bytes, 32), field(bytes, 40));
        hob[56..].chunks(48).map(resource).collect()
    }

    #[test]
    fn memory_in_order_of_address() {
        let image = image(&SECTIONS);
        let sections = sections(&image).unwrap();
        let hob = td_hob(&sections, 0x8000_0000).unwrap();
        assert_eq!(
            resources(&hob),
            [
                (7, 0, 0x80_0000),
                (0, 0x80_0000, 0x6000),
                (7, 0x80_6000, 0x3000),
                (0, 0x80_9000, 0x2000),
                (0, 0x80_b000, 0x2000),
                (7, 0x80_d000, 0x3000),
                (0, 0x81_0000, 0x1_0000),
                (7, 0x82_0000, 0x8000_0000 - 0x82_0000),
            ]
        );
        assert_eq!(hob[48..56], (0x80_9000 + hob.len() as u64 + 8).to_le_bytes());
        let large = resources(&td_hob(&sections, 0xb000_0000).unwrap());
        assert_eq!(large[7..], [(7, 0x82_0000, 0x8000_0000 - 0x82_0000), (7, 1 << 32, 0x3000_0000)]);
        let below = resources(&td_hob(&sections, 0xb000_0000 - 4096).unwrap());
        assert_eq!(below[7..], [(7, 0x82_0000, 0xb000_0000 - 4096 - 0x82_0000)]);
    }

    #[test]
    fn what_qemu_does_not_start_is_refused() {
        let bytes = image(&SECTIONS);
        let good = sections(&bytes).unwrap();
        for memory in [0, 1, MAX_MEMORY_BYTES + 4096] {
            assert_eq!(td_hob(&good, memory), Err("memory is whole pages, of at most 4 PiB"));
        }
        assert_eq!(td_hob(&good, 0x81_0000), Err("the firmware needs more memory than the guest has"));
        let one = "the firmware does not have exactly one TD HOB section";
        assert_eq!(td_hob(&good[..4], 0x8000_0000), Err(one));
        assert_eq!(td_hob(&[&good[..], &good[4..5]].concat(), 0x8000_0000), Err(one));
        let small = Section { pages: 0, ..good[4] };
        let full = "the list does not fit the firmware's TD HOB section";
        assert_eq!(td_hob(&[small], 0x8000_0000), Err(full));
    }
}
