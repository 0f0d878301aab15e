//! Memory for an opened model: the one place its plaintext ever is.
//!
//! Anonymous pages, advised to be huge (weights are read end to end, and huge pages save most of the page faults of
//! filling them), left out of core dumps and of forked children, locked against swapping where the limit allows, and
//! overwritten with zeros when dropped. Pages are locked after they were filled: locking first would touch all of
//! them from one thread.

use memmap2::{Advice, MmapMut};
use zeroize::Zeroize;

/// The plaintext of one model file; wiped when dropped.
///
/// No `Debug`, `Clone` or serialisation, as for [`crate::Secret`].
pub struct Plaintext {
    /// Whole chunks, so that each was decrypted where it stays.
    map: MmapMut,
    len: usize,
    locked: bool,
}

impl Plaintext {
    /// Maps `capacity` zeroed bytes, of which the first `len` will be the plaintext; `0 < capacity >= len`.
    pub(crate) fn map(capacity: usize, len: usize) -> std::io::Result<Self> {
        let map = MmapMut::map_anon(capacity)?;
        // Advice only makes things better: a kernel without one of these still holds the model.
        for advice in [Advice::HugePage, Advice::DontDump, Advice::DontFork] {
            let _ = map.advise(advice);
        }
        Ok(Self { map, len, locked: false })
    }

    /// All mapped bytes, for filling them.
    pub(crate) fn capacity_mut(&mut self) -> &mut [u8] {
        &mut self.map
    }

    /// Locks the pages against swapping, if the process may lock that much.
    pub(crate) fn lock(&mut self) {
        self.locked = self.map.lock().is_ok();
    }

    /// The plaintext, at an address that is a multiple of the page size. Grep for `expose` to see every use.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.map.get(..self.len).unwrap_or_default()
    }

    /// Whether the pages are locked in memory. If not, raise `RLIMIT_MEMLOCK` or run without swap.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.locked
    }
}

impl Zeroize for Plaintext {
    fn zeroize(&mut self) {
        self.map.zeroize();
    }
}

impl Drop for Plaintext {
    fn drop(&mut self) {
        self.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields of the mapping that holds `address`, from the kernel's own account of it.
    fn smaps_flags(address: usize) -> Option<String> {
        let smaps = std::fs::read_to_string("/proc/self/smaps").ok()?;
        let mut inside = false;
        for line in smaps.lines() {
            let bounds = line.split_whitespace().next().and_then(|range| range.split_once('-'));
            if let Some((start, end)) = bounds
                && let (Ok(start), Ok(end)) =
                    (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16))
            {
                inside = (start..end).contains(&address);
            } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
                return Some(flags.to_owned());
            }
        }
        None
    }

    #[test]
    fn mapping_is_out_of_dumps_and_forks_and_wants_huge_pages() {
        let memory = Plaintext::map(4 << 20, 5).unwrap();
        assert_eq!(memory.expose(), [0; 5]);
        let Some(flags) = smaps_flags(memory.expose().as_ptr() as usize) else {
            eprintln!("skipped: no /proc/self/smaps here");
            return;
        };
        for flag in ["dd", "dc"] {
            assert!(flags.split_whitespace().any(|f| f == flag), "{flag} is missing in {flags}");
        }
    }

    #[test]
    fn wiping_reaches_every_byte() {
        let mut memory = Plaintext::map(1 << 20, 5).unwrap();
        memory.capacity_mut().fill(0xa5);
        memory.zeroize();
        assert!(memory.capacity_mut().iter().all(|&byte| byte == 0));
    }

    #[test]
    fn locking_is_reported_as_the_kernel_has_it() {
        let mut memory = Plaintext::map(1 << 20, 1 << 20).unwrap();
        assert!(!memory.is_locked());
        memory.lock();
        if let Some(flags) = smaps_flags(memory.expose().as_ptr() as usize) {
            assert_eq!(flags.split_whitespace().any(|f| f == "lo"), memory.is_locked(), "{flags}");
        }
    }
}
