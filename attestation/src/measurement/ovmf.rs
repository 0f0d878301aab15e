//! What a launch needs to know of an OVMF firmware image: its reset address, its SEV sections, its hashes table.
//!
//! Why: the hypervisor takes from these tables which pages to add to a guest before it starts, so the launch digest
//! cannot be computed without them. Flow: the footer table 32 bytes before the end of the image lists entries by
//! GUID, read from the last to the first; one of them says where the SEV metadata lies, a list of sections. The bytes
//! are not trusted: each length is compared with what is left, and counts and sizes have caps.
//!
//! Layout: edk2, `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm` and `OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm`.

use thiserror::Error;

use super::chain::PAGE_LEN_BYTES;

/// Largest firmware or SVSM image: the space below 4 GiB a machine gives to flash is at most 16 MiB; SVSM is smaller.
pub const MAX_FIRMWARE_LEN_BYTES: usize = 64 << 20;
/// Real images have at most eight.
const MAX_SECTIONS: usize = 64;
/// All sections together; a guest that adds a gigabyte before its start is not a firmware.
const MAX_SECTIONS_LEN_BYTES: u64 = 1 << 30;

/// The footer table ends this many bytes before the end of the image: there the reset vector begins.
const RESET_VECTOR_LEN_BYTES: usize = 32;
/// Each entry ends with its size (2 bytes, of the entire entry) and its GUID (16 bytes).
const ENTRY_HEADER_LEN_BYTES: usize = 18;
/// Signature, size, version and number of sections, 4 bytes each.
const METADATA_HEADER_LEN_BYTES: usize = 16;
/// Base, size and type, 4 bytes each.
const SECTION_LEN_BYTES: usize = 12;

/// A GUID as it lies in memory: the first three fields little-endian.
type Guid = [u8; 16];

const FOOTER: Guid = guid(0x96b582de, 0x1fb2, 0x45f7, 0xbaea_a366_c55a_082d);
const HASHES_TABLE: Guid = guid(0x7255371f, 0x3a3b, 0x4b04, 0x927b_1da6_efa8_d454);
const RESET_BLOCK: Guid = guid(0x00f771de, 0x1a7e, 0x4fcb, 0x890e_68c7_7e2f_b44e);
const METADATA: Guid = guid(0xdc886566, 0x984a, 0x4798, 0xa75e_5585_a7bf_67cc);
const TDX_METADATA: Guid = guid(0xe47a6535, 0x984a, 0x4798, 0x865e_4685_a7bf_8ec2);
const SVSM_INFO: Guid = guid(0xa789a612, 0x0597, 0x4c4b, 0xa49f_cbb1_fe9d_1ddd);

/// The bytes of the GUID `a-b-c-d`, where `d` is its last two groups.
pub(super) const fn guid(a: u32, b: u16, c: u16, d: u64) -> Guid {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// Why an image is not the firmware of a confidential guest.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FirmwareError {
    /// Pages are added whole.
    #[error("firmware of {0} bytes: give the whole image, a multiple of 4096 bytes and not empty")]
    Length(usize),
    /// Over the cap.
    #[error("firmware of {0} bytes is larger than {MAX_FIRMWARE_LEN_BYTES} bytes: this is no firmware image")]
    TooLarge(usize),
    /// The table that ends every confidential-guest image is missing.
    #[error(
        "no OVMF footer table at the end of the image: give OVMF.fd or OVMF_CODE.fd built with SEV support"
    )]
    NoFooter,
    /// A size in the footer table reaches outside it.
    #[error("the OVMF footer table is damaged: an entry's size does not fit")]
    DamagedFooter,
    /// The same entry twice: two readers could believe different ones.
    #[error("the OVMF footer table has the {0} entry twice")]
    DuplicateEntry(&'static str),
    /// An entry shorter than its one field.
    #[error("the {0} entry of the OVMF footer table is too short")]
    ShortEntry(&'static str),
    /// The image cannot be launched this way.
    #[error("the OVMF footer table has no {0} entry: this image was not built for this kind of guest")]
    MissingEntry(&'static str),
    /// The SEV metadata lies outside the image or its header is wrong.
    #[error("the SEV metadata of the firmware is damaged: {0}")]
    DamagedMetadata(&'static str),
    /// A type this program does not know how to measure.
    #[error("SEV metadata section of unknown type {0:#x}: this firmware is newer than this program")]
    UnknownSection(u32),
    /// A section that no hypervisor can add.
    #[error(
        "SEV metadata section at {gpa:#x} of {len_bytes} bytes: not whole pages below 4 GiB, or too large"
    )]
    SectionBounds {
        /// Guest-physical address.
        gpa: u32,
        /// Size.
        len_bytes: u32,
    },
}

/// What a section is for; the number is its type in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SectionKind {
    /// 1: memory the first instructions use.
    SecMem,
    /// 2: the page with the keys of the guest.
    Secrets,
    /// 3: the page with the CPUID answers.
    Cpuid,
    /// 4: the calling area of the SVSM.
    SvsmCaa,
    /// 0x10: the page with the hashes of kernel, initrd and command line.
    KernelHashes,
}

/// Memory the firmware asks the hypervisor to add before the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// What for.
    pub kind: SectionKind,
    /// Guest-physical address, a multiple of 4096.
    pub gpa: u64,
    /// Size in pages of 4096 bytes; exactly one for secrets, CPUID and kernel hashes.
    pub pages: usize,
}

/// A well-formed firmware image; nobody has said yet that it is a good one.
#[derive(Debug)]
pub struct Firmware<'a> {
    bytes: &'a [u8],
    entries: Entries,
    sections: Vec<Section>,
}

/// The first field, 4 bytes little-endian, of each entry that matters here.
#[derive(Debug, Default)]
struct Entries {
    reset_block: Option<u32>,
    hashes_table: Option<u32>,
    metadata: Option<u32>,
    svsm_info: Option<u32>,
    tdx_metadata: Option<u32>,
}

impl<'a> Firmware<'a> {
    /// Parses an image (an SVSM image has the same tables).
    ///
    /// # Errors
    /// `Length`, `TooLarge`; `NoFooter`, `DamagedFooter`, `DuplicateEntry`, `ShortEntry` for the footer table;
    /// `DamagedMetadata`, `UnknownSection`, `SectionBounds` for the sections.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FirmwareError> {
        if bytes.is_empty() || !bytes.len().is_multiple_of(PAGE_LEN_BYTES) {
            return Err(FirmwareError::Length(bytes.len()));
        }
        if bytes.len() > MAX_FIRMWARE_LEN_BYTES {
            return Err(FirmwareError::TooLarge(bytes.len()));
        }
        let entries = Entries::parse(footer_table(bytes)?)?;
        let sections = entries.metadata.map_or(Ok(Vec::new()), |from_end| parse_sections(bytes, from_end))?;
        Ok(Self { bytes, entries, sections })
    }

    /// The whole image, whole pages.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The sections in the order of the image, which is the order of the launch.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Where every vCPU but the first starts.
    ///
    /// # Errors
    /// `MissingEntry`.
    pub fn reset_address(&self) -> Result<u32, FirmwareError> {
        self.entries.reset_block.ok_or(FirmwareError::MissingEntry("SEV-ES reset block"))
    }

    /// Guest-physical address of the table with the hashes of kernel, initrd and command line.
    ///
    /// # Errors
    /// `MissingEntry`.
    pub fn hashes_table_gpa(&self) -> Result<u32, FirmwareError> {
        self.entries
            .hashes_table
            .filter(|gpa| *gpa != 0)
            .ok_or(FirmwareError::MissingEntry("SEV hashes table"))
    }

    /// Where an SVSM image is entered, counted from its first byte.
    ///
    /// # Errors
    /// `MissingEntry`.
    pub fn svsm_entry_offset(&self) -> Result<u32, FirmwareError> {
        self.entries.svsm_info.ok_or(FirmwareError::MissingEntry("SVSM information"))
    }
}

/// Where the TDX metadata lies, counted from the end of the image.
///
/// # Errors
/// `TooLarge`; those of the footer table; `MissingEntry`.
pub(super) fn tdx_metadata_from_end(bytes: &[u8]) -> Result<u32, FirmwareError> {
    if bytes.len() > MAX_FIRMWARE_LEN_BYTES {
        return Err(FirmwareError::TooLarge(bytes.len()));
    }
    Entries::parse(footer_table(bytes)?)?.tdx_metadata.ok_or(FirmwareError::MissingEntry("TDX metadata"))
}

/// The entries of the footer table, without the footer.
fn footer_table(bytes: &[u8]) -> Result<&[u8], FirmwareError> {
    let (image, _) = bytes
        .split_at_checked(bytes.len().saturating_sub(RESET_VECTOR_LEN_BYTES))
        .ok_or(FirmwareError::NoFooter)?;
    let (before, size, id) = split_entry_header(image).ok_or(FirmwareError::NoFooter)?;
    if *id != FOOTER {
        return Err(FirmwareError::NoFooter);
    }
    let entries_len = size.checked_sub(ENTRY_HEADER_LEN_BYTES).ok_or(FirmwareError::DamagedFooter)?;
    let start = before.len().checked_sub(entries_len).ok_or(FirmwareError::DamagedFooter)?;
    before.get(start..).ok_or(FirmwareError::DamagedFooter)
}

/// What is before the last entry's header, the size in it, its GUID.
fn split_entry_header(bytes: &[u8]) -> Option<(&[u8], usize, &Guid)> {
    let (rest, id) = bytes.split_last_chunk::<16>()?;
    let (rest, size) = rest.split_last_chunk::<2>()?;
    Some((rest, usize::from(u16::from_le_bytes(*size)), id))
}

impl Entries {
    /// Reads the table from its end; entries of other GUIDs are for others.
    fn parse(mut table: &[u8]) -> Result<Self, FirmwareError> {
        let mut entries = Self::default();
        while !table.is_empty() {
            let (before, size, id) = split_entry_header(table).ok_or(FirmwareError::DamagedFooter)?;
            let data_len = size.checked_sub(ENTRY_HEADER_LEN_BYTES).ok_or(FirmwareError::DamagedFooter)?;
            let at = before.len().checked_sub(data_len).ok_or(FirmwareError::DamagedFooter)?;
            let (rest, data) = before.split_at_checked(at).ok_or(FirmwareError::DamagedFooter)?;
            entries.keep(id, data)?;
            table = rest;
        }
        Ok(entries)
    }

    fn keep(&mut self, id: &Guid, data: &[u8]) -> Result<(), FirmwareError> {
        let (slot, name) = match *id {
            RESET_BLOCK => (&mut self.reset_block, "SEV-ES reset block"),
            HASHES_TABLE => (&mut self.hashes_table, "SEV hashes table"),
            METADATA => (&mut self.metadata, "SEV metadata"),
            SVSM_INFO => (&mut self.svsm_info, "SVSM information"),
            TDX_METADATA => (&mut self.tdx_metadata, "TDX metadata"),
            _ => return Ok(()),
        };
        let first = data.first_chunk().ok_or(FirmwareError::ShortEntry(name))?;
        match slot.replace(u32::from_le_bytes(*first)) {
            None => Ok(()),
            Some(_) => Err(FirmwareError::DuplicateEntry(name)),
        }
    }
}

/// The sections of the metadata that begins `from_end` bytes before the end of the image.
fn parse_sections(bytes: &[u8], from_end: u32) -> Result<Vec<Section>, FirmwareError> {
    let damaged = FirmwareError::DamagedMetadata;
    let from_end = usize::try_from(from_end).map_err(|_| damaged("it is outside the image"))?;
    let start = bytes.len().checked_sub(from_end).ok_or(damaged("it is outside the image"))?;
    let metadata = bytes.get(start..).ok_or(damaged("it is outside the image"))?;
    let (header, rest) =
        metadata.split_at_checked(METADATA_HEADER_LEN_BYTES).ok_or(damaged("it is outside the image"))?;
    let [signature, size, version, count] = fields(header).ok_or(damaged("its header is short"))?;
    if signature.to_le_bytes() != *b"ASEV" || version != 1 {
        return Err(damaged("its signature or version is wrong"));
    }
    let count = usize::try_from(count).ok().filter(|count| *count <= MAX_SECTIONS);
    let count = count.ok_or(damaged("too many sections"))?;
    let list_len = count * SECTION_LEN_BYTES; // at most 64 * 12
    let size = usize::try_from(size).map_err(|_| damaged("its size is outside the image"))?;
    if size < METADATA_HEADER_LEN_BYTES + list_len {
        return Err(damaged("its size is less than its sections need"));
    }
    let list = rest.get(..list_len).ok_or(damaged("its sections are outside the image"))?;
    let sections = list.chunks_exact(SECTION_LEN_BYTES).map(parse_section).collect::<Result<Vec<_>, _>>()?;
    let total: u64 = sections.iter().map(|section| section.pages as u64 * PAGE_LEN_BYTES as u64).sum();
    if total > MAX_SECTIONS_LEN_BYTES {
        return Err(damaged("its sections are too large together"));
    }
    Ok(sections)
}

fn parse_section(bytes: &[u8]) -> Result<Section, FirmwareError> {
    let [gpa, len_bytes, kind] = fields(bytes).ok_or(FirmwareError::DamagedMetadata("a section is short"))?;
    let (kind, one_page) = match kind {
        1 => (SectionKind::SecMem, false),
        2 => (SectionKind::Secrets, true),
        3 => (SectionKind::Cpuid, true),
        4 => (SectionKind::SvsmCaa, false),
        0x10 => (SectionKind::KernelHashes, true),
        other => return Err(FirmwareError::UnknownSection(other)),
    };
    let bounds = FirmwareError::SectionBounds { gpa, len_bytes };
    let page = u32::try_from(PAGE_LEN_BYTES).map_err(|_| bounds.clone())?;
    let whole =
        gpa.is_multiple_of(page) && len_bytes.is_multiple_of(page) && gpa.checked_add(len_bytes).is_some();
    if !whole || (one_page && len_bytes != page) {
        return Err(bounds);
    }
    let pages = usize::try_from(len_bytes / page).map_err(|_| bounds)?;
    Ok(Section { kind, gpa: u64::from(gpa), pages })
}

/// Little-endian 32-bit fields that fill `bytes`.
fn fields<const N: usize>(bytes: &[u8]) -> Option<[u32; N]> {
    let (chunks, []) = bytes.as_chunks::<4>() else { return None };
    let chunks: &[[u8; 4]; N] = chunks.try_into().ok()?;
    Some(chunks.map(u32::from_le_bytes))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Three sections and the entries a kernel needs, in two pages.
    pub(in super::super) const SECTIONS: [(u32, u32, u32); 4] =
        [(0x80_0000, 0x2000, 1), (0x80_d000, 0x1000, 2), (0x80_e000, 0x1000, 3), (0x80_f000, 0x1000, 0x10)];

    fn entry(id: Guid, data: &[u8]) -> Vec<u8> {
        let size = u16::try_from(data.len() + ENTRY_HEADER_LEN_BYTES).unwrap();
        [data, &size.to_le_bytes(), &id].concat()
    }

    /// An image of `pages` pages; `more` comes before the entries every image has.
    pub(in super::super) fn image(pages: usize, sections: &[(u32, u32, u32)], more: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x5a; pages * PAGE_LEN_BYTES];
        let size = u32::try_from(METADATA_HEADER_LEN_BYTES + sections.len() * SECTION_LEN_BYTES).unwrap();
        let mut metadata = b"ASEV".to_vec();
        for field in [size, 1, u32::try_from(sections.len()).unwrap()] {
            metadata.extend_from_slice(&field.to_le_bytes());
        }
        for (gpa, len_bytes, kind) in sections {
            metadata.extend([gpa, len_bytes, kind].iter().flat_map(|field| field.to_le_bytes()));
        }
        bytes[..metadata.len()].copy_from_slice(&metadata);
        let mut table = more.to_vec();
        table.extend(entry(METADATA, &u32::try_from(bytes.len()).unwrap().to_le_bytes()));
        table.extend(entry(HASHES_TABLE, &[0x00, 0xfc, 0x80, 0, 0, 4, 0, 0]));
        table.extend(entry(RESET_BLOCK, &0x0080_b004_u32.to_le_bytes()));
        let footer = entry(FOOTER, &[]);
        let all = u16::try_from(table.len() + footer.len()).unwrap();
        table.extend(all.to_le_bytes());
        table.extend(FOOTER);
        let end = bytes.len() - RESET_VECTOR_LEN_BYTES;
        bytes[end - table.len()..end].copy_from_slice(&table);
        bytes
    }

    /// An image whose TDX metadata begins `from_end` bytes before its end, with no SEV entries.
    pub(in super::super) fn put_tdx_footer(bytes: &mut [u8], from_end: u32) {
        let mut table = entry(TDX_METADATA, &from_end.to_le_bytes());
        let all = u16::try_from(table.len() + ENTRY_HEADER_LEN_BYTES).unwrap();
        table.extend(all.to_le_bytes());
        table.extend(FOOTER);
        let end = bytes.len() - RESET_VECTOR_LEN_BYTES;
        bytes[end - table.len()..end].copy_from_slice(&table);
    }

    pub(in super::super) fn svsm_info(offset: u32) -> Vec<u8> {
        entry(SVSM_INFO, &offset.to_le_bytes())
    }

    #[test]
    fn a_guid_lies_in_memory_as_edk2_writes_it() {
        assert_eq!(hex::encode(FOOTER), "de82b596b21ff745baeaa366c55a082d");
    }

    #[test]
    fn a_good_image() {
        let bytes = image(2, &SECTIONS, &[]);
        let firmware = Firmware::parse(&bytes).unwrap();
        assert_eq!(firmware.reset_address(), Ok(0x0080_b004));
        assert_eq!(firmware.hashes_table_gpa(), Ok(0x0080_fc00));
        assert_eq!(firmware.sections().len(), 4);
        assert_eq!(firmware.sections()[0], Section { kind: SectionKind::SecMem, gpa: 0x80_0000, pages: 2 });
        assert_eq!(firmware.svsm_entry_offset(), Err(FirmwareError::MissingEntry("SVSM information")));
    }

    #[test]
    fn each_flaw_has_its_error() {
        let parse = |bytes: &[u8]| Firmware::parse(bytes).err();
        let good = image(2, &SECTIONS, &[]);
        assert_eq!(parse(&[]), Some(FirmwareError::Length(0)));
        assert_eq!(parse(&good[1..]), Some(FirmwareError::Length(8191)));
        assert_eq!(parse(&[0; 4096]), Some(FirmwareError::NoFooter));
        let too_large = vec![0; MAX_FIRMWARE_LEN_BYTES + PAGE_LEN_BYTES];
        assert_eq!(parse(&too_large), Some(FirmwareError::TooLarge(too_large.len())));
        let twice = image(2, &SECTIONS, &entry(RESET_BLOCK, &[0; 4]));
        assert_eq!(parse(&twice), Some(FirmwareError::DuplicateEntry("SEV-ES reset block")));
        let short = image(2, &SECTIONS, &entry(SVSM_INFO, &[0; 3]));
        assert_eq!(parse(&short), Some(FirmwareError::ShortEntry("SVSM information")));
        assert_eq!(parse(&image(2, &SECTIONS, &[0])), Some(FirmwareError::DamagedFooter), "a byte left over");
        let unknown = image(2, &[(0, 0x1000, 7)], &[]);
        assert_eq!(parse(&unknown), Some(FirmwareError::UnknownSection(7)));
        for bad in [(1, 0x1000, 1), (0, 0x1001, 1), (0xffff_f000, 0x2000, 1), (0, 0x2000, 2), (0, 0, 3)] {
            let error = FirmwareError::SectionBounds { gpa: bad.0, len_bytes: bad.1 };
            assert_eq!(parse(&image(2, &[bad], &[])), Some(error));
        }
        let huge = image(2, &[(0, 0x4000_0000, 1), (0x4000_0000, 0x1000, 1)], &[]);
        assert!(matches!(parse(&huge), Some(FirmwareError::DamagedMetadata(_))));
        for at in [0, 4, 8, 12] {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40; // signature; size, version, number of sections
            if at == 4 {
                bytes[at] = 15;
            }
            assert!(matches!(parse(&bytes), Some(FirmwareError::DamagedMetadata(_))), "field at {at}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12), tail in any::<bool>(),
        ) {
            let mut bytes = image(1, &SECTIONS, &svsm_info(0));
            for (at, value) in changes {
                // The tables: metadata at the start, footer at the end.
                let at = if tail { PAGE_LEN_BYTES - 1 - at.index(180) } else { at.index(64) };
                bytes[at] = value;
            }
            let _ = Firmware::parse(&bytes);
        }
    }
}
