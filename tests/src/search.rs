//! Where a secret might lie: searched byte by byte.

use std::fs;
use std::os::unix::fs::FileExt as _;

/// Whether `haystack` holds `needle`.
#[must_use]
pub fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// The memory of a process that can be read and written.
///
/// # Panics
/// If there is no such process of ours.
#[must_use]
pub fn memory(pid: u32) -> Vec<u8> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let file = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut memory = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw")))
    {
        let (begin, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (begin, end) = (u64::from_str_radix(begin, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        let mut region = vec![0; usize::try_from(end - begin).unwrap()];
        // Some regions cannot be read; those hold nothing of the program's.
        if file.read_exact_at(&mut region, begin).is_ok() {
            memory.extend_from_slice(&region);
        }
    }
    memory
}
