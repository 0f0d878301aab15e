//! The initramfs: an archive in the kernel's "newc" form, the same bytes on every machine.
//!
//! Layout: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`. Everything that a file system would bring
//! in by chance is fixed: inode numbers count up, owner is root, times are zero, names are sorted, and the end is padded
//! to 512 bytes. No compression: nothing inside the guest unpacks what the host hands over.

use std::collections::BTreeMap;

use crate::ImageError;

const MAGIC: &[u8] = b"070701";
const TRAILER: &str = "TRAILER!!!";
const BLOCK_LEN: usize = 512;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// What one name in the archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A folder that everybody may enter.
    Directory,
    /// A file, with its permissions.
    File {
        /// Permission bits.
        mode: u32,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A character device that everybody may use.
    Device {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// The archive of `entries`, by name without a leading slash.
///
/// # Errors
/// [`ImageError::Initramfs`] for a file of 4 GiB or more, or a name whose folder is missing.
pub fn archive(entries: &BTreeMap<String, Entry>) -> Result<Vec<u8>, ImageError> {
    let mut out = Vec::new();
    for (number, (name, entry)) in (1u32..).zip(entries) {
        if let Some((folder, _)) = name.rsplit_once('/')
            && entries.get(folder) != Some(&Entry::Directory)
        {
            return Err(ImageError::Initramfs(format!("{name} lies in a folder that is not there")));
        }
        let (mode, links, device, bytes): (_, _, _, &[u8]) = match entry {
            Entry::Directory => (DIRECTORY | 0o755, 2, (0, 0), &[]),
            Entry::File { mode, bytes } => (REGULAR | mode, 1, (0, 0), bytes),
            Entry::Device { major, minor } => (CHARACTER_DEVICE | 0o666, 1, (*major, *minor), &[]),
        };
        append(&mut out, &Head { number, mode, links, device }, name, bytes)?;
    }
    append(&mut out, &Head { number: 0, mode: 0, links: 1, device: (0, 0) }, TRAILER, &[])?;
    out.resize(out.len().next_multiple_of(BLOCK_LEN), 0);
    Ok(out)
}

struct Head {
    number: u32,
    mode: u32,
    links: u32,
    device: (u32, u32),
}

fn append(out: &mut Vec<u8>, head: &Head, name: &str, bytes: &[u8]) -> Result<(), ImageError> {
    let too_long = |_| ImageError::Initramfs(format!("{name} is too long"));
    let len = u32::try_from(bytes.len()).map_err(too_long)?;
    let name_len = u32::try_from(name.len() + 1).map_err(too_long)?;
    out.extend_from_slice(MAGIC);
    let (major, minor) = head.device;
    // inode, mode, uid, gid, links, mtime, size, device of the archive (two), device (two), length of the name, sum
    for field in [head.number, head.mode, 0, 0, head.links, 0, len, 0, 0, major, minor, name_len, 0] {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
    Ok(())
}

/// The initramfs of the guest: its program, the places where it mounts what the kernel offers, and the one device that
/// a program expects before that.
///
/// # Errors
/// As [`archive`].
pub fn initramfs(program: Vec<u8>) -> Result<Vec<u8>, ImageError> {
    let mut entries: BTreeMap<String, Entry> =
        ["dev", "proc", "sys"].map(|name| (name.to_owned(), Entry::Directory)).into();
    entries.insert("dev/null".into(), Entry::Device { major: 1, minor: 3 });
    entries.insert("init".into(), Entry::File { mode: 0o555, bytes: program });
    archive(&entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back: name, mode and bytes of each entry.
    fn read(mut rest: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&rest[..6], MAGIC);
            let field = |n: usize| {
                u32::from_str_radix(std::str::from_utf8(&rest[6 + 8 * n..14 + 8 * n]).unwrap(), 16).unwrap()
            };
            let (mode, len, name_len) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(rest[110..110 + name_len - 1].to_vec()).unwrap();
            assert_eq!(rest[110 + name_len - 1], 0);
            let data = (at + 110 + name_len).next_multiple_of(4) - at;
            let next = (at + data + len).next_multiple_of(4) - at;
            if name == TRAILER {
                assert!(rest[next..].iter().all(|byte| *byte == 0));
                return found;
            }
            found.push((name, mode, rest[data..data + len].to_vec()));
            (rest, at) = (&rest[next..], at + next);
        }
    }

    #[test]
    fn the_guest_has_one_program_and_nothing_else() {
        for len in 0..5 {
            let program = vec![7; len];
            let bytes = initramfs(program.clone()).unwrap();
            assert_eq!(bytes.len() % BLOCK_LEN, 0);
            let found = read(&bytes);
            let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
            assert_eq!(names, ["dev", "dev/null", "init", "proc", "sys"]);
            assert_eq!(found[2], ("init".into(), 0o100_555, program));
            assert_eq!(found.iter().filter(|(_, mode, _)| mode & 0o170_000 == REGULAR).count(), 1);
        }
    }

    #[test]
    fn the_bytes_depend_on_the_program_alone() {
        assert_eq!(initramfs(vec![1, 2]).unwrap(), initramfs(vec![1, 2]).unwrap());
        assert_ne!(initramfs(vec![1, 2]).unwrap(), initramfs(vec![1, 3]).unwrap());
    }

    #[test]
    fn a_name_without_its_folder_is_refused() {
        let lost = BTreeMap::from([("a/b".to_owned(), Entry::Directory)]);
        assert!(matches!(archive(&lost), Err(ImageError::Initramfs(_))));
    }
}
