//! Whether a firmware covers what it boots: one that does not would start any kernel under an unchanged measurement.
//!
//! Only two questions are asked of the image, and the answers are for the operator: whoever verifies computes the
//! measurement from the whole of it. Layout: edk2, `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm`,
//! `OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm` and Intel's TDX virtual firmware design guide, section 11.

use std::path::Path;

use super::Platform;
use crate::HostError;

const MAX_LEN: usize = 64 << 20;
/// `dc886566-984a-4798-a75e-5585a7bf67cc`: where the SEV metadata lies.
const SEV_METADATA: [u8; 16] = *b"\x66\x65\x88\xdc\x4a\x98\x98\x47\xa7\x5e\x55\x85\xa7\xbf\x67\xcc";
/// `7255371f-3a3b-4b04-927b-1da6efa8d454`: where the hashes of the kernel go.
const HASHES_TABLE: [u8; 16] = *b"\x1f\x37\x55\x72\x3b\x3a\x04\x4b\x92\x7b\x1d\xa6\xef\xa8\xd4\x54";
/// `e47a6535-984a-4798-865e-4685a7bf8ec2`: where the TDX metadata lies.
const TDX_METADATA: [u8; 16] = *b"\x35\x65\x7a\xe4\x4a\x98\x98\x47\x86\x5e\x46\x85\xa7\xbf\x8e\xc2";
/// Type of the section that is the page of the hashes.
const KERNEL_HASHES: u32 = 0x10;
/// The footer table ends this many bytes before the end, and no longer table exists.
const FOOTER_END: usize = 32;
const MAX_FOOTER_LEN: usize = 4096;

/// Refuses a firmware with which `platform` would not measure the kernel.
pub(crate) fn verify(path: &Path, platform: Platform) -> Result<(), HostError> {
    let wrong = |message: &str| HostError::Firmware { path: path.to_owned(), message: message.to_owned() };
    let image = std::fs::read(path).map_err(|error| wrong(&error.to_string()))?;
    if image.len() > MAX_LEN {
        return Err(wrong("it is no firmware: too long"));
    }
    let covered = match platform {
        Platform::SevSnp | Platform::Simulated => measures_kernel(&image),
        // What boots is measured into RTMR1 and RTMR2 by any firmware with the metadata.
        Platform::Tdx => entry(&image, &TDX_METADATA).map(|_| ()),
    };
    covered.ok_or_else(|| match platform {
        Platform::Tdx => wrong("it has no TDX metadata: use one built for TDX"),
        _ => wrong("it does not measure the kernel (no page for its hashes): use one built for AmdSev, or for tests one made by `adyton-simulator firmware`"),
    })
}

/// The section for the hashes and the entry for their table are there, and the one lies in the other.
fn measures_kernel(image: &[u8]) -> Option<()> {
    let table = u64::from(word(image, entry(image, &HASHES_TABLE)?)?);
    let header =
        image.len().checked_sub(usize::try_from(word(image, entry(image, &SEV_METADATA)?)?).ok()?)?;
    if image.get(header..header.checked_add(4)?)? != b"ASEV" {
        return None;
    }
    let count = usize::try_from(word(image, header.checked_add(12)?)?).ok()?.min(64);
    let covers = |at: usize| -> Option<bool> {
        let (base, len) = (u64::from(word(image, at)?), u64::from(word(image, at.checked_add(4)?)?));
        let kind = word(image, at.checked_add(8)?)?;
        Some(kind == KERNEL_HASHES && base <= table && table < base + len)
    };
    (0..count).find_map(|section| covers(header + 16 + 12 * section).filter(|covers| *covers)).map(|_| ())
}

/// Where the first field of a footer table's entry lies: before its size (2 bytes) and its GUID.
fn entry(image: &[u8], guid: &[u8; 16]) -> Option<usize> {
    let end = image.len().checked_sub(FOOTER_END)?;
    let start = end.saturating_sub(MAX_FOOTER_LEN);
    let at = start + image.get(start..end)?.windows(16).rposition(|window| window == guid)?;
    let size = image.get(at.checked_sub(2)?..at)?;
    let size = usize::from(u16::from_le_bytes([*size.first()?, *size.get(1)?]));
    (at + 16).checked_sub(size).filter(|start| *start < at)
}

fn word(image: &[u8], at: usize) -> Option<u32> {
    let bytes = image.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An image with one section of `kind` and entries for metadata and table, or only for TDX.
    pub(crate) fn image(kind: u32, table: u32, tdx: bool) -> Vec<u8> {
        let mut image = vec![0; 8192];
        image[4096..4100].copy_from_slice(b"ASEV");
        image[4108..4112].copy_from_slice(&1u32.to_le_bytes());
        for (at, value) in [(4112, 0x80_f000u32), (4116, 0x1000), (4120, kind)] {
            image[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let entries: &[(u32, [u8; 16])] =
            if tdx { &[(4096, TDX_METADATA)] } else { &[(4096, SEV_METADATA), (table, HASHES_TABLE)] };
        let mut end = 8192 - FOOTER_END;
        for (value, guid) in entries {
            image[end - 16..end].copy_from_slice(guid);
            image[end - 18..end - 16].copy_from_slice(&22u16.to_le_bytes());
            image[end - 22..end - 18].copy_from_slice(&value.to_le_bytes());
            end -= 22;
        }
        image
    }

    fn verified(image: &[u8], platform: Platform) -> Result<(), String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), image).unwrap();
        verify(file.path(), platform).map_err(|error| error.to_string())
    }

    #[test]
    fn a_firmware_that_would_boot_anything_is_refused() {
        assert_eq!(verified(&image(0x10, 0x80_fc00, false), Platform::SevSnp), Ok(()));
        for (kind, table) in [(1, 0x80_fc00), (0x10, 0x81_0000), (0x10, 0x80_0000)] {
            let refused = verified(&image(kind, table, false), Platform::SevSnp).unwrap_err();
            assert!(refused.contains("does not measure the kernel"), "{refused}");
        }
        assert!(verified(&image(0x10, 0x80_fc00, true), Platform::Simulated).is_err());
        assert_eq!(verified(&image(0x10, 0, true), Platform::Tdx), Ok(()));
        assert!(verified(&image(0x10, 0x80_fc00, false), Platform::Tdx).unwrap_err().contains("TDX"));
    }

    #[test]
    fn no_damage_makes_it_panic() {
        let good = image(0x10, 0x80_fc00, false);
        for len in [0, 1, 31, 32, 40, 4100, 8191] {
            let _ = verified(&good[..len], Platform::SevSnp);
        }
        for at in (4096..4130).chain(8192 - 80..8192) {
            for value in [0, 0x7f, 0xff] {
                let mut damaged = good.clone();
                damaged[at] = value;
                let _ = verified(&damaged, Platform::SevSnp);
            }
        }
    }

    #[test]
    fn the_distributions_firmware_is_refused() {
        let path = Path::new("/usr/share/ovmf/OVMF.fd");
        if path.exists() {
            assert!(verify(path, Platform::SevSnp).is_err(), "it boots any kernel");
        } else {
            eprintln!("skipped: no OVMF on this machine");
        }
    }
}
