//! The Authenticode digest of a PE image, which is what firmware measures of a program it starts.
//!
//! Windows Authenticode Portable Executable Signature Format 1.0, "Calculating the PE Image Hash", as edk2's
//! `OvmfPkg/Tcg/TdTcg2Dxe/MeasureBootPeCoff.c` does it: the headers without checksum and certificate entry, the
//! sections in order of their place in the file, then what follows except the certificates; nothing is padded. The
//! bytes are not trusted.

use ring::digest::{Context, SHA384};

/// Where the entry of the certificates is among the data directories.
const CERTIFICATES: usize = 4;
/// Sections of a kernel: about five.
const MAX_SECTIONS: usize = 96;
const PE_SIGNATURE: &[u8; 4] = b"PE\0\0";
const COFF_LEN_BYTES: usize = 20;
const SECTION_LEN_BYTES: usize = 40;

/// SHA-384 over `image` in the manner of Authenticode.
///
/// # Errors
/// What makes the bytes no PE image.
pub(super) fn authenticode_sha384(image: &[u8]) -> Result<[u8; 48], &'static str> {
    let outside = "a header is outside the file";
    if !image.starts_with(b"MZ") {
        return Err("it does not begin as a PE image: give a kernel with an EFI stub");
    }
    let pe = long(image, 0x3c).ok_or(outside)?;
    if image.get(pe..).and_then(<[u8]>::first_chunk) != Some(PE_SIGNATURE) {
        return Err("it has no PE header: give a kernel with an EFI stub");
    }
    let coff = pe.checked_add(PE_SIGNATURE.len()).ok_or(outside)?;
    let optional = coff.checked_add(COFF_LEN_BYTES).ok_or(outside)?;
    let optional_len = short(image, coff, 16).ok_or(outside)?;
    let directories_at = match short(image, optional, 0) {
        Some(0x10b) => 92, // PE32: NumberOfRvaAndSizes; the directories follow
        Some(0x20b) => 108,
        _ => return Err("its optional header is of an unknown kind"),
    };
    let headers_len = field(image, optional, 60).ok_or(outside)?;
    let directories = field(image, optional, directories_at).ok_or(outside)?;

    let mut hash = Context::new(&SHA384);
    let mut hash_range = |from: usize, to: usize| image.get(from..to).map(|bytes| hash.update(bytes));
    let checksum = optional.checked_add(64).ok_or(outside)?;
    let after_checksum = checksum.checked_add(4).ok_or(outside)?;
    hash_range(0, checksum).ok_or(outside)?;
    let mut certificates_len = 0;
    if directories > CERTIFICATES {
        let entry = directories_at.checked_add(4 + CERTIFICATES * 8).and_then(|at| optional.checked_add(at));
        let entry = entry.ok_or(outside)?;
        certificates_len = field(image, entry, 4).ok_or(outside)?;
        hash_range(after_checksum, entry).ok_or(outside)?;
        hash_range(entry.checked_add(8).ok_or(outside)?, headers_len).ok_or(outside)?;
    } else {
        hash_range(after_checksum, headers_len).ok_or(outside)?;
    }

    let table = optional.checked_add(optional_len).ok_or(outside)?;
    let mut hashed = headers_len;
    for (start, len) in sections(image, coff, table)? {
        let end = start.checked_add(len).ok_or("a section is outside the file")?;
        hash_range(start, end).ok_or("a section is outside the file")?;
        hashed = hashed.checked_add(len).ok_or("a section is outside the file")?;
    }
    if image.len() > hashed {
        let end = image.len().checked_sub(certificates_len).filter(|end| hashed <= *end);
        hash_range(hashed, end.ok_or("its certificates are larger than what follows its sections")?)
            .ok_or("a section is outside the file")?;
    }
    let mut digest = [0; 48];
    digest.copy_from_slice(hash.finish().as_ref());
    Ok(digest)
}

/// Place and size of the sections that have bytes, in order of their place.
fn sections(image: &[u8], coff: usize, table: usize) -> Result<Vec<(usize, usize)>, &'static str> {
    let outside = "a header is outside the file";
    let count = short(image, coff, 2).ok_or(outside)?;
    if count > MAX_SECTIONS {
        return Err("it has too many sections");
    }
    let headers = image.get(table..).and_then(|rest| rest.get(..count * SECTION_LEN_BYTES)).ok_or(outside)?;
    let section = |header: &[u8]| Some((field(header, 0, 20)?, field(header, 0, 16)?));
    let sections: Option<Vec<_>> = headers.chunks(SECTION_LEN_BYTES).map(section).collect();
    let mut sections = sections.ok_or(outside)?;
    sections.retain(|(_, len)| *len > 0);
    sections.sort_by_key(|(start, _)| *start);
    Ok(sections)
}

/// 16 bits, little-endian, at `at` from `base`.
fn short(bytes: &[u8], base: usize, at: usize) -> Option<usize> {
    let field = bytes.get(base.checked_add(at)?..)?.first_chunk()?;
    Some(usize::from(u16::from_le_bytes(*field)))
}

/// 32 bits, little-endian, at `at` from `base`.
fn field(bytes: &[u8], base: usize, at: usize) -> Option<usize> {
    long(bytes, base.checked_add(at)?)
}

fn long(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*field)).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    const PE: usize = 0x40;
    const OPTIONAL: usize = PE + 24;
    pub(in super::super) const HEADERS_LEN: usize = 0x1000;

    /// A PE32+ image whose headers are `HEADERS_LEN` long (room for the header of a Linux kernel), with two sections
    /// out of order in the table, `tail` after them and certificates of `certificates` bytes.
    pub(in super::super) fn image(tail: &[u8], certificates: u32) -> Vec<u8> {
        let mut bytes = vec![0; HEADERS_LEN];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = u8::try_from(PE).unwrap();
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(PE, PE_SIGNATURE);
        put(PE + 6, &2_u16.to_le_bytes()); // sections
        put(PE + 20, &0xa0_u16.to_le_bytes()); // optional header: 112 and six directories
        put(OPTIONAL, &0x20b_u16.to_le_bytes());
        put(OPTIONAL + 60, &u32::try_from(HEADERS_LEN).unwrap().to_le_bytes());
        put(OPTIONAL + 64, &0x1234_5678_u32.to_le_bytes()); // checksum
        put(OPTIONAL + 108, &6_u32.to_le_bytes());
        put(OPTIONAL + 112 + 36, &certificates.to_le_bytes());
        for (index, start) in [(0, 0x1200_u32), (1, 0x1000)] {
            put(OPTIONAL + 0xa0 + index * 40 + 16, &0x200_u32.to_le_bytes());
            put(OPTIONAL + 0xa0 + index * 40 + 20, &start.to_le_bytes());
        }
        bytes.extend([1; 0x200]);
        bytes.extend([2; 0x200]);
        bytes.extend(tail);
        bytes.extend(vec![0xcc; certificates as usize]);
        bytes
    }

    #[test]
    fn checksum_and_certificates_do_not_count_and_all_else_does() {
        let base = image(b"tail", 0);
        let digest = authenticode_sha384(&base).unwrap();
        let mut unsigned = base.clone();
        unsigned[OPTIONAL + 64] ^= 1;
        assert_eq!(authenticode_sha384(&unsigned), Ok(digest), "checksum");
        assert_eq!(authenticode_sha384(&image(b"tail", 16)), Ok(digest), "certificates");
        for at in [2, OPTIONAL + 63, OPTIONAL + 68, OPTIONAL + 112, 0x0fff, 0x1000, 0x13ff, base.len() - 1] {
            let mut changed = base.clone();
            changed[at] ^= 1;
            assert_ne!(authenticode_sha384(&changed), Ok(digest), "byte {at:#x}");
        }
        assert_ne!(authenticode_sha384(&image(b"tai", 0)), Ok(digest), "one byte less");
    }

    #[test]
    fn the_order_is_that_of_the_file() {
        let base = image(b"", 0);
        let mut hash = Context::new(&SHA384);
        hash.update(&base[..OPTIONAL + 64]);
        hash.update(&base[OPTIONAL + 68..OPTIONAL + 112 + 32]);
        hash.update(&base[OPTIONAL + 112 + 40..]);
        assert_eq!(authenticode_sha384(&base).unwrap(), hash.finish().as_ref());
        let mut swapped = base.clone();
        for (at, place) in [(16 + 4, 0x10_u8), (40 + 16 + 4, 0x12)] {
            swapped[OPTIONAL + 0xa0 + at + 1] = place;
        }
        assert_ne!(authenticode_sha384(&swapped), authenticode_sha384(&base), "the table itself is hashed");
    }

    #[test]
    fn each_flaw_has_its_error() {
        let error = |at: usize, value: u8| {
            let mut bad = image(b"", 0);
            bad[at] = value;
            authenticode_sha384(&bad).unwrap_err()
        };
        assert!(error(0, 0).starts_with("it does not begin as a PE image"));
        assert!(error(PE, 0).starts_with("it has no PE header"));
        assert_eq!(error(0x3f, 0xff), "it has no PE header: give a kernel with an EFI stub");
        assert_eq!(error(OPTIONAL, 0), "its optional header is of an unknown kind");
        assert_eq!(error(PE + 6, 97), "it has too many sections");
        assert_eq!(error(OPTIONAL + 63, 0xff), "a header is outside the file");
        assert_eq!(error(OPTIONAL + 0xa0 + 19, 0x7f), "a section is outside the file");
        let mut large = image(b"tail", 0);
        large[OPTIONAL + 112 + 36] = 5;
        assert_eq!(
            authenticode_sha384(&large),
            Err("its certificates are larger than what follows its sections")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            changes in prop::collection::vec((0..0x180_usize, any::<u8>()), 0..8), cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = image(b"tail", 8);
            for (at, value) in changes {
                bytes[at] = value;
            }
            let _ = authenticode_sha384(&bytes);
            let _ = authenticode_sha384(&bytes[..cut.index(bytes.len())]);
        }
    }
}
