//! What a TD's launch needs to know of its firmware (TDVF): which sections go where, and which are measured.
//!
//! Layout: Intel TDX Virtual Firmware Design Guide 1.01, section 11; edk2, `OvmfPkg/ResetVector/X64/OvmfTdxMetadata.asm`.
//! The footer table of the image says where the descriptor lies: signature `TDVF`, length, version and number of
//! sections, 4 bytes each, then sections of 32 bytes. The bytes are not trusted: every place is compared with the image
//! and counts and sizes have caps.

use thiserror::Error;

use super::chain::PAGE_LEN_BYTES;
use super::ovmf::{FirmwareError, tdx_metadata_from_end};

/// Real images have six.
const MAX_SECTIONS: usize = 64;
/// All sections together; a TD that starts with more memory in place is not started by a firmware.
const MAX_SECTIONS_LEN_BYTES: u64 = 1 << 30;
const DESCRIPTOR_LEN_BYTES: usize = 16;
const SECTION_LEN_BYTES: usize = 32;

const MR_EXTEND: u32 = 1;
const PAGE_AUG: u32 = 2;

/// Why an image is no TDVF.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TdvfError {
    /// The footer table, or the image as a whole.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// The descriptor is wrong.
    #[error("the TDX metadata of the firmware is damaged: {0}")]
    Descriptor(&'static str),
    /// A section is wrong.
    #[error("TDX metadata section {number}: {what}")]
    Section {
        /// Position in the metadata, from 1.
        number: usize,
        /// What is wrong.
        what: &'static str,
    },
}

/// What a section is for; the number is its type in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SectionKind {
    /// 0: boot firmware volume.
    Bfv,
    /// 1: configuration firmware volume.
    Cfv,
    /// 2: where the hypervisor puts the TD HOB.
    TdHob,
    /// 3: memory of the first instructions.
    TempMem,
    /// 4: memory that stays in use.
    PermMem,
    /// 5: a payload that the hypervisor loads.
    Payload,
    /// 6: its parameters.
    PayloadParam,
}

impl SectionKind {
    const ALL: [Self; 7] =
        [Self::Bfv, Self::Cfv, Self::TdHob, Self::TempMem, Self::PermMem, Self::Payload, Self::PayloadParam];

    /// The name that the design guide gives it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bfv => "boot firmware volume",
            Self::Cfv => "configuration firmware volume",
            Self::TdHob => "TD HOB",
            Self::TempMem => "temporary memory",
            Self::PermMem => "permanent memory",
            Self::Payload => "payload",
            Self::PayloadParam => "payload parameters",
        }
    }
}

/// One section; its data lies inside the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// What for.
    pub kind: SectionKind,
    /// Its bytes in the image; empty if it has none, as long as its memory if it is measured.
    pub data: &'a [u8],
    /// Guest-physical address, a multiple of 4096.
    pub gpa: u64,
    /// Size of its memory in pages of 4096 bytes.
    pub pages: u64,
    /// The bytes go into MRTD (MR.EXTEND).
    pub extended: bool,
    /// The pages are in place at the start (MEM.PAGE.ADD); false if the guest gets them later (PAGE_AUG).
    pub added: bool,
}

impl Section<'_> {
    /// Size of its memory.
    #[must_use]
    pub const fn len_bytes(&self) -> u64 {
        self.pages * PAGE_LEN_BYTES as u64 // below the cap
    }

    /// The first address after it.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.gpa + self.len_bytes() // compared when it was parsed
    }
}

/// The sections in the order of the metadata, which is the order of the launch.
///
/// # Errors
/// `Firmware` for the image and its footer table; `Descriptor`; `Section`, the first that is wrong.
pub fn sections(image: &[u8]) -> Result<Vec<Section<'_>>, TdvfError> {
    let damaged = TdvfError::Descriptor;
    let from_end =
        usize::try_from(tdx_metadata_from_end(image)?).map_err(|_| damaged("it is outside the image"))?;
    let start = image.len().checked_sub(from_end).ok_or(damaged("it is outside the image"))?;
    let metadata = image.get(start..).ok_or(damaged("it is outside the image"))?;
    let (descriptor, rest) =
        metadata.split_at_checked(DESCRIPTOR_LEN_BYTES).ok_or(damaged("it is outside the image"))?;
    let mut fields = descriptor.as_chunks::<4>().0.iter().map(|field| u32::from_le_bytes(*field));
    let mut field = || fields.next().ok_or(damaged("it is short"));
    let (signature, len, version, count) = (field()?, field()?, field()?, field()?);
    if signature.to_le_bytes() != *b"TDVF" || version != 1 {
        return Err(damaged("its signature or version is wrong"));
    }
    let count = usize::try_from(count).ok().filter(|count| (1..=MAX_SECTIONS).contains(count));
    let count = count.ok_or(damaged("its number of sections is not from 1 to 64"))?;
    let list_len = count * SECTION_LEN_BYTES; // at most 64 * 32
    if usize::try_from(len) != Ok(DESCRIPTOR_LEN_BYTES + list_len) {
        return Err(damaged("its length is not that of its sections"));
    }
    let list = rest.get(..list_len).ok_or(damaged("its sections are outside the image"))?;
    let (list, _) = list.as_chunks::<SECTION_LEN_BYTES>();
    let mut sections: Vec<Section<'_>> = Vec::with_capacity(count);
    for (bytes, number) in list.iter().zip(1..) {
        let section = section(image, bytes).map_err(|what| TdvfError::Section { number, what })?;
        if sections.iter().any(|other| other.gpa < section.end() && section.gpa < other.end()) {
            return Err(TdvfError::Section { number, what: "it overlaps another" });
        }
        sections.push(section);
    }
    // At most 64 sections of at most the cap each.
    if sections.iter().map(Section::len_bytes).sum::<u64>() > MAX_SECTIONS_LEN_BYTES {
        return Err(damaged("its sections are too large together"));
    }
    Ok(sections)
}

/// DataOffset, RawDataSize (4 bytes each), MemoryAddress, MemoryDataSize (8 each), Type, Attributes (4 each).
fn section<'a>(image: &'a [u8], bytes: &[u8; SECTION_LEN_BYTES]) -> Result<Section<'a>, &'static str> {
    let short =
        |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk).map(|field| u32::from_le_bytes(*field));
    let long =
        |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk).map(|field| u64::from_le_bytes(*field));
    let fields = (short(0), short(4), long(8), long(16), short(24), short(28));
    let (Some(offset), Some(raw_len), Some(gpa), Some(len_bytes), Some(kind), Some(attributes)) = fields
    else {
        return Err("it is short");
    };
    let page = PAGE_LEN_BYTES as u64;
    if !gpa.is_multiple_of(page) || !len_bytes.is_multiple_of(page) || gpa.checked_add(len_bytes).is_none() {
        return Err("its memory is not whole pages");
    }
    if len_bytes > MAX_SECTIONS_LEN_BYTES {
        return Err("its memory is too large");
    }
    let kind = usize::try_from(kind).ok().and_then(|kind| SectionKind::ALL.get(kind)).copied();
    let kind = kind.ok_or("its type is unknown: this firmware is newer than this program")?;
    if attributes & !(MR_EXTEND | PAGE_AUG) != 0 {
        return Err("its attributes are unknown: this firmware is newer than this program");
    }
    let (extended, added) = (attributes & MR_EXTEND != 0, attributes & PAGE_AUG == 0);
    let data = slice(image, offset, raw_len).ok_or("its data is outside the image")?;
    if data.len() as u64 > len_bytes {
        return Err("its data is larger than its memory");
    }
    if extended && (!added || data.len() as u64 != len_bytes) {
        return Err("it is measured, but its data does not fill its memory");
    }
    Ok(Section { kind, data, gpa, pages: len_bytes / page, extended, added })
}

fn slice(image: &[u8], offset: u32, len: u32) -> Option<&[u8]> {
    let (offset, len) = (usize::try_from(offset).ok()?, usize::try_from(len).ok()?);
    image.get(offset..offset.checked_add(len)?)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::ovmf::tests::put_tdx_footer;
    use super::*;
    use proptest::prelude::*;

    /// DataOffset, RawDataSize, MemoryAddress, MemoryDataSize, Type, Attributes.
    pub(in super::super) type Raw = (u32, u32, u64, u64, u32, u32);

    /// As a small OVMF has them: code of two pages, variables of one.
    pub(in super::super) const SECTIONS: [Raw; 6] = [
        (0x1000, 0x2000, 0xffff_e000, 0x2000, 0, 1),
        (0, 0x1000, 0xffff_d000, 0x1000, 1, 0),
        (0, 0, 0x81_0000, 0x1_0000, 3, 0),
        (0, 0, 0x80_b000, 0x2000, 3, 0),
        (0, 0, 0x80_9000, 0x2000, 2, 0),
        (0, 0, 0x80_0000, 0x6000, 3, 0),
    ];

    /// Three pages, each byte telling its place, with `sections` in the metadata.
    pub(in super::super) fn image(sections: &[Raw]) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..251_u8).cycle().take(3 * PAGE_LEN_BYTES).collect();
        let len = u32::try_from(DESCRIPTOR_LEN_BYTES + sections.len() * SECTION_LEN_BYTES).unwrap();
        let mut metadata = b"TDVF".to_vec();
        for field in [len, 1, u32::try_from(sections.len()).unwrap()] {
            metadata.extend(field.to_le_bytes());
        }
        for (offset, raw_len, gpa, len_bytes, kind, attributes) in sections {
            metadata.extend([offset.to_le_bytes(), raw_len.to_le_bytes()].concat());
            metadata.extend([gpa.to_le_bytes(), len_bytes.to_le_bytes()].concat());
            metadata.extend([kind.to_le_bytes(), attributes.to_le_bytes()].concat());
        }
        let start = 2 * PAGE_LEN_BYTES;
        let from_end = u32::try_from(bytes.len() - start).unwrap();
        bytes[start..start + metadata.len()].copy_from_slice(&metadata);
        put_tdx_footer(&mut bytes, from_end);
        bytes
    }

    #[test]
    fn a_good_image() {
        let image = image(&SECTIONS);
        let sections = sections(&image).unwrap();
        assert_eq!(sections.len(), 6);
        let first = sections[0];
        assert_eq!((first.kind, first.gpa, first.pages), (SectionKind::Bfv, 0xffff_e000, 2));
        assert_eq!((first.extended, first.added, first.data), (true, true, &image[0x1000..]));
        assert_eq!((sections[4].kind, sections[4].end()), (SectionKind::TdHob, 0x80_b000));
    }

    #[test]
    fn each_flaw_has_its_error() {
        let flaw = |raw: Raw| match sections(&image(&[SECTIONS[5], raw])) {
            Err(TdvfError::Section { number: 2, what }) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(flaw((0, 0, 1, 0x1000, 3, 0)), "its memory is not whole pages");
        assert_eq!(flaw((0, 0, 0, 0x1001, 3, 0)), "its memory is not whole pages");
        assert_eq!(flaw((0, 0, u64::MAX - 0xfff, 0x1000, 3, 0)), "its memory is not whole pages");
        assert_eq!(flaw((0, 0, 0, 1 << 31, 3, 0)), "its memory is too large");
        assert!(flaw((0, 0, 0, 0x1000, 7, 0)).starts_with("its type is unknown"));
        assert!(flaw((0, 0, 0, 0x1000, 3, 4)).starts_with("its attributes are unknown"));
        assert_eq!(flaw((0x3000, 1, 0, 0x1000, 0, 0)), "its data is outside the image");
        assert_eq!(flaw((u32::MAX, u32::MAX, 0, 0x1000, 0, 0)), "its data is outside the image");
        assert_eq!(flaw((0, 0x2000, 0, 0x1000, 0, 0)), "its data is larger than its memory");
        let unfilled = "it is measured, but its data does not fill its memory";
        assert_eq!(flaw((0, 0x1000, 0, 0x2000, 0, 1)), unfilled);
        assert_eq!(flaw((0, 0x1000, 0, 0x1000, 0, 3)), unfilled, "measured before it is there");
        assert_eq!(flaw((0, 0, 0x80_5000, 0x1000, 3, 0)), "it overlaps another");
    }

    #[test]
    fn each_flaw_of_the_descriptor_has_its_error() {
        let good = image(&SECTIONS);
        for (at, what) in [
            (0, "its signature or version is wrong"),
            (4, "its length is not that of its sections"),
            (8, "its signature or version is wrong"),
            (12, "its length is not that of its sections"),
        ] {
            let mut bad = good.clone();
            bad[2 * PAGE_LEN_BYTES + at] ^= 1;
            assert_eq!(sections(&bad), Err(TdvfError::Descriptor(what)), "{at}");
        }
        assert_eq!(
            sections(&image(&[])),
            Err(TdvfError::Descriptor("its number of sections is not from 1 to 64"))
        );
        let mut outside = good.clone();
        put_tdx_footer(&mut outside, u32::MAX);
        assert_eq!(sections(&outside), Err(TdvfError::Descriptor("it is outside the image")));
        put_tdx_footer(&mut outside, 8);
        assert_eq!(sections(&outside), Err(TdvfError::Descriptor("it is outside the image")));
        let no_entry = super::super::ovmf::tests::image(1, &[], &[]);
        assert_eq!(
            sections(&no_entry),
            Err(TdvfError::Firmware(FirmwareError::MissingEntry("TDX metadata")))
        );
        assert_eq!(sections(&[]), Err(TdvfError::Firmware(FirmwareError::NoFooter)));
        let large = [(0, 0, 0, 1 << 30, 3, 0), (0, 0, 1 << 30, 0x1000, 3, 0)];
        assert_eq!(
            sections(&image(&large)),
            Err(TdvfError::Descriptor("its sections are too large together"))
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            changes in prop::collection::vec((0..220_usize, any::<u8>()), 0..12), tail in any::<bool>(),
        ) {
            let mut bytes = image(&SECTIONS);
            for (at, value) in changes {
                let at = if tail { bytes.len() - 1 - at } else { 2 * PAGE_LEN_BYTES + at };
                bytes[at] = value;
            }
            let _ = sections(&bytes);
        }
    }
}
