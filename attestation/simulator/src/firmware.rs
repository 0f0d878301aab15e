//! A firmware for tests: a distribution's OVMF whose tables say that the hashes of a kernel are measured.
//!
//! The OVMF of distributions has no page for these hashes, so no launch digest that covers a kernel can be computed with
//! it. Here the last section of its SEV metadata becomes that page, and the entry for the table points into it. The
//! firmware itself runs as before: it boots any machine, measures the same as the real one would, and checks nothing.
//! SIMULATED, NOT CONFIDENTIAL: a processor would not start it as a confidential guest.
//!
//! Layout: edk2, `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm` and `OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm`.

use crate::error::SimulatorError;

/// `dc886566-984a-4798-a75e-5585a7bf67cc`: where the metadata lies, counted from the end of the image.
const METADATA: [u8; 16] = *b"\x66\x65\x88\xdc\x4a\x98\x98\x47\xa7\x5e\x55\x85\xa7\xbf\x67\xcc";
/// `7255371f-3a3b-4b04-927b-1da6efa8d454`: where the table of hashes lies in memory.
const HASHES_TABLE: [u8; 16] = *b"\x1f\x37\x55\x72\x3b\x3a\x04\x4b\x92\x7b\x1d\xa6\xef\xa8\xd4\x54";

/// The page of the hashes: base, length and type of its section.
const SECTION: [u32; 3] = [0x0080_f000, 0x1000, 0x10];
/// The table in that page: base and length.
const TABLE: [u32; 2] = [0x0080_fc00, 0x400];

/// Gives `ovmf` a page for the hashes of a kernel.
///
/// # Errors
/// [`SimulatorError::Firmware`] if it is no OVMF that was built for confidential guests.
pub fn with_kernel_hashes(ovmf: &[u8]) -> Result<Vec<u8>, SimulatorError> {
    let mut image = ovmf.to_vec();
    let metadata = entry(&image, &METADATA)?;
    let from_end = word(&image, metadata)?;
    let header = image
        .len()
        .checked_sub(from_end as usize)
        .ok_or(SimulatorError::Firmware("its metadata lies outside"))?;
    if image.get(header..header + 4) != Some(b"ASEV") {
        return Err(SimulatorError::Firmware("its metadata has another signature"));
    }
    let last = word(&image, header + 12)?.checked_sub(1);
    let last = last.ok_or(SimulatorError::Firmware("its metadata has no sections"))? as usize;
    put(&mut image, header + 16 + 12 * last, &SECTION)?;
    let table = entry(&image, &HASHES_TABLE)?;
    put(&mut image, table, &TABLE)?;
    Ok(image)
}

/// Where the fields of the entry begin that ends in its size (2 bytes) and `guid`.
fn entry(image: &[u8], guid: &[u8; 16]) -> Result<usize, SimulatorError> {
    let at = image.windows(16).rposition(|window| window == guid);
    let at = at.ok_or(SimulatorError::Firmware("it has no entry that is needed"))?;
    let size =
        image.get(at.wrapping_sub(2)..at).map(|size| usize::from(u16::from_le_bytes([size[0], size[1]])));
    let start = size.and_then(|size| (at + 16).checked_sub(size));
    start.filter(|start| *start < at).ok_or(SimulatorError::Firmware("an entry has a wrong size"))
}

fn word(image: &[u8], at: usize) -> Result<u32, SimulatorError> {
    let bytes = image.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_le_bytes).ok_or(SimulatorError::Firmware("a table reaches beyond its end"))
}

fn put(image: &mut [u8], at: usize, words: &[u32]) -> Result<(), SimulatorError> {
    let place = image.get_mut(at..at + 4 * words.len());
    let place = place.ok_or(SimulatorError::Firmware("a table reaches beyond its end"))?;
    place.copy_from_slice(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use adyton_attestation::measurement::ovmf::{Firmware, SectionKind};

    /// The smallest image with the two entries and two sections.
    fn ovmf() -> Vec<u8> {
        let mut image = vec![0; 4096];
        image[1024..1028].copy_from_slice(b"ASEV");
        for (at, word) in [(1028, 40u32), (1032, 1), (1036, 2), (1040, 0x80_0000), (1044, 0x1000), (1048, 1)]
        {
            put(&mut image, at, &[word]).unwrap();
        }
        put(&mut image, 1052, &[0x80_d000, 0x1000, 2]).unwrap();
        let mut end = 4096 - 32;
        let footer: [u8; 16] = *b"\xde\x82\xb5\x96\xb2\x1f\xf7\x45\xba\xea\xa3\x66\xc5\x5a\x08\x2d";
        let entries: [(&[u32], [u8; 16]); 3] =
            [(&[], footer), (&[4096 - 1024], METADATA), (&[0, 0], HASHES_TABLE)];
        let total: usize = entries.iter().map(|(words, _)| 18 + 4 * words.len()).sum();
        for (words, guid) in entries {
            let own = 18 + 4 * words.len();
            let size = if guid == footer { total } else { own };
            image[end - 16..end].copy_from_slice(&guid);
            image[end - 18..end - 16].copy_from_slice(&u16::try_from(size).unwrap().to_le_bytes());
            put(&mut image, end - own, words).unwrap();
            end -= own;
        }
        image
    }

    #[test]
    fn the_measurement_finds_the_page() {
        let image = ovmf();
        let kinds = |image: &[u8]| -> Vec<SectionKind> {
            Firmware::parse(image).unwrap().sections().iter().map(|section| section.kind).collect()
        };
        assert_eq!(kinds(&image), [SectionKind::SecMem, SectionKind::Secrets]);
        let changed = with_kernel_hashes(&image).unwrap();
        assert_eq!(kinds(&changed), [SectionKind::SecMem, SectionKind::KernelHashes]);
        assert_eq!(changed.len(), image.len());
    }

    #[test]
    fn other_files_are_refused() {
        for image in [vec![], vec![0; 4096], METADATA.to_vec()] {
            assert!(matches!(with_kernel_hashes(&image), Err(SimulatorError::Firmware(_))));
        }
        let mut damaged = ovmf();
        damaged[1024] = b'X';
        assert!(with_kernel_hashes(&damaged).is_err());
    }
}
