//! Device paths (UEFI 2.10, chapter 10): where firmware found a program.

use super::describe::{guid, utf16};

const MEDIA: u8 = 4;
const HARD_DRIVE: u8 = 1;
const FILE_PATH: u8 = 4;
const FIRMWARE_FILE: u8 = 6;
const FIRMWARE_VOLUME: u8 = 7;
const HARDWARE: u8 = 1;
const PCI: u8 = 1;
const ACPI: u8 = 2;
const MESSAGING: u8 = 3;
const SCSI: u8 = 2;
const NVME: u8 = 23;
const END: u8 = 0x7f;
/// Paths of real machines have below a dozen nodes.
const MAX_NODES: usize = 32;

/// The nodes in words: `PCI(1,0)/HD(15,…)/\EFI\BOOT\BOOTX64.EFI`. Nodes without words here are shown by their numbers.
pub(super) fn describe(path: &[u8]) -> String {
    let mut nodes = Vec::new();
    let mut rest = path;
    while let Some((kind, subtype, value, after)) = node(rest) {
        if kind == END || nodes.len() >= MAX_NODES {
            break;
        }
        nodes.push(words(kind, subtype, value));
        rest = after;
    }
    if nodes.is_empty() { "memory".into() } else { nodes.join("/") }
}

/// Type, subtype, length (of the whole node), value.
fn node(bytes: &[u8]) -> Option<(u8, u8, &[u8], &[u8])> {
    let ([kind, subtype, low, high], _) = bytes.split_first_chunk::<4>()?;
    let len = usize::from(u16::from_le_bytes([*low, *high]));
    let (node, after) = bytes.split_at_checked(len)?;
    Some((*kind, *subtype, node.get(4..)?, after))
}

fn words(kind: u8, subtype: u8, value: &[u8]) -> String {
    let known = match (kind, subtype) {
        (HARDWARE, PCI) => match value {
            [function, device] => Some(format!("PCI({device},{function})")),
            _ => None,
        },
        (ACPI, 1) => Some("ACPI".to_owned()),
        (MESSAGING, SCSI) => Some("SCSI".to_owned()),
        (MESSAGING, NVME) => Some("NVMe".to_owned()),
        (MEDIA, HARD_DRIVE) => hard_drive(value),
        (MEDIA, FILE_PATH) => Some(utf16(value).escape_debug().to_string().replace("\\\\", "\\")),
        (MEDIA, FIRMWARE_FILE) => value.first_chunk().map(|id| format!("FvFile({})", guid(id))),
        (MEDIA, FIRMWARE_VOLUME) => value.first_chunk().map(|id| format!("Fv({})", guid(id))),
        _ => None,
    };
    known.unwrap_or_else(|| format!("node({kind},{subtype})"))
}

/// Partition number, start, size, signature, format, kind of signature (2: GUID).
fn hard_drive(value: &[u8]) -> Option<String> {
    let (number, rest) = value.split_first_chunk::<4>()?;
    let signature = rest.get(16..)?.first_chunk::<16>()?;
    Some(format!("HD({},{})", u32::from_le_bytes(*number), guid(signature)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node_of(kind: u8, subtype: u8, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(value.len() + 4).unwrap().to_le_bytes();
        [&[kind, subtype][..], &len, value].concat()
    }

    #[test]
    fn a_path_in_words() {
        let mut drive = vec![15, 0, 0, 0];
        drive.extend([0; 16]);
        drive.extend(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128.to_be_bytes());
        drive.extend([2, 2]);
        let file: Vec<u8> = "\\EFI\\BOOT\u{1b}\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let path = [
            node_of(ACPI, 1, &[0; 8]),
            node_of(HARDWARE, PCI, &[0, 1]),
            node_of(MEDIA, HARD_DRIVE, &drive),
            node_of(9, 9, &[]),
            node_of(MEDIA, FILE_PATH, &file),
            node_of(END, 0xff, &[]),
            node_of(ACPI, 1, &[]),
        ];
        assert_eq!(
            describe(&path.concat()),
            r"ACPI/PCI(1,0)/HD(15,67452301-ab89-efcd-0123-456789abcdef)/node(9,9)/\EFI\BOOT\u{1b}"
        );
    }

    #[test]
    fn broken_paths_end_early() {
        assert_eq!(describe(&[]), "memory");
        assert_eq!(describe(&[4, 4, 3, 0]), "memory", "a length below the head's");
        assert_eq!(describe(&[4, 4, 200, 0, 1]), "memory", "a length beyond the end");
        assert_eq!(describe(&node_of(ACPI, 1, &[]).repeat(100)).matches('/').count(), MAX_NODES - 1);
    }
}
