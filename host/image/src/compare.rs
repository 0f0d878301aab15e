//! What differs between two images: for each file the first byte, and for an initramfs or kernel what stands around it.

use std::fmt::Write as _;
use std::path::Path;

use crate::{ImageError, description, materials, sha256};

/// Files of an image that have to be the same everywhere.
pub const FILES: [&str; 4] = [description::KERNEL, description::INITRD, description::FILE, materials::FILE];
/// How many bytes are shown on each side.
const SHOWN: usize = 24;
/// How many places of difference are shown for a file.
const PLACES: usize = 4;

/// Says what differs between the images in two folders; nothing if they are the same.
///
/// # Errors
/// [`ImageError::File`] if a file is missing in one of them.
pub fn compare(left: &Path, right: &Path) -> Result<Vec<String>, ImageError> {
    let mut found = Vec::new();
    for name in FILES {
        let (a, b) = (crate::read(&left.join(name))?, crate::read(&right.join(name))?);
        if a != b {
            found.push(differences(name, &a, &b));
        }
    }
    Ok(found)
}

fn differences(name: &str, a: &[u8], b: &[u8]) -> String {
    let mut text =
        format!("{name} differs\n  {} ({} bytes)\n  {} ({} bytes)", sha256(a), a.len(), sha256(b), b.len());
    let mut at = 0;
    for _ in 0..PLACES {
        let Some(first) = first_difference(a, b, at) else { break };
        let window = |bytes: &[u8]| {
            let end = bytes.len().min(first + SHOWN);
            let shown = bytes.get(first.saturating_sub(SHOWN / 2)..end).unwrap_or_default();
            shown.escape_ascii().to_string()
        };
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  at byte {first}:\n    {}\n    {}", window(a), window(b));
        at = first + SHOWN;
    }
    text
}

fn first_difference(a: &[u8], b: &[u8], from: usize) -> Option<usize> {
    let common = a.len().min(b.len());
    let within = (from..common).find(|at| a[*at] != b[*at]);
    within.or_else(|| (a.len() != b.len() && from <= common).then_some(common))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_images_have_no_difference_and_others_are_shown() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for folder in &folders {
            for name in FILES {
                std::fs::write(folder.path().join(name), name).unwrap();
            }
        }
        let compared = || compare(folders[0].path(), folders[1].path()).unwrap();
        assert!(compared().is_empty());
        std::fs::write(folders[1].path().join("vmlinuz"), "vmlinux, longer").unwrap();
        let found = compared();
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("vmlinuz differs") && found[0].contains("at byte 6"), "{}", found[0]);
        std::fs::remove_file(folders[0].path().join("guest.cpio")).unwrap();
        assert!(compare(folders[0].path(), folders[1].path()).is_err());
    }

    #[test]
    fn a_longer_file_differs_where_the_other_ends() {
        assert_eq!(first_difference(b"abc", b"abcd", 0), Some(3));
        assert_eq!(first_difference(b"abc", b"abc", 0), None);
        assert_eq!(first_difference(b"abc", b"axc", 0), Some(1));
        assert_eq!(first_difference(b"", b"", 0), None);
    }
}
