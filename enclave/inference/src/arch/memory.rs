//! Zeroed memory for weights: aligned for vectors, in huge pages where the kernel gives them.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// x86 huge page, bytes.
const HUGE: usize = 2 << 20;

/// Owned bytes; aligned to 64, and to huge pages when there are that many.
pub(super) struct Memory {
    start: NonNull<u8>,
    len: usize,
    kind: Kind,
}

enum Kind {
    /// From the allocator.
    Allocated(Layout),
    /// Mapped: the kernel gives pages when they are first touched, so that whoever fills them also places them.
    #[cfg(target_os = "linux")]
    Mapped { base: NonNull<u8>, len: usize },
}

// SAFETY: Memory owns its bytes alone, like a Box<[u8]>.
unsafe impl Send for Memory {}
// SAFETY: shared references only read.
unsafe impl Sync for Memory {}

impl Memory {
    /// `len` zeros.
    ///
    /// # Panics
    /// If `len` is over `isize::MAX`; aborts like `Vec` if memory runs out.
    pub(super) fn zeroed(len: usize) -> Self {
        assert!(isize::try_from(len).is_ok(), "a length below isize::MAX");
        #[cfg(target_os = "linux")]
        if len >= HUGE
            && !cfg!(miri)
            && let Some(memory) = Self::mapped(len)
        {
            return memory;
        }
        let layout = Layout::from_size_align(len.max(1), 64).expect("a length below isize::MAX");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, len, kind: Kind::Allocated(layout) }
    }

    #[cfg(target_os = "linux")]
    fn mapped(len: usize) -> Option<Self> {
        use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
        let total = len.checked_next_multiple_of(HUGE)?.checked_add(HUGE)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private mapping at a place the kernel chooses touches nothing that exists.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), total, access, MapFlags::PRIVATE) }.ok()?;
        let base = NonNull::new(base.cast::<u8>())?;
        let skip = base.as_ptr().align_offset(HUGE);
        // SAFETY: `skip` is below HUGE, and `total` is at least `len + HUGE`.
        let start = unsafe { base.add(skip) };
        // What does not fill a huge page stays in small ones: many matrices would waste a page each.
        let whole = len / HUGE * HUGE;
        // SAFETY: advice on pages of this mapping alone. A refusal changes nothing.
        let _ = unsafe { madvise(start.as_ptr().cast(), whole, Advice::LinuxHugepage) };
        Some(Self { start, len, kind: Kind::Mapped { base, len: total } })
    }
}

impl std::ops::Deref for Memory {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is valid for `len` bytes, initialised with zeros, for as long as self lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl std::ops::DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and self is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Weights are the owner's secret: nothing may find them in freed memory.
        wipe(self);
        match self.kind {
            // SAFETY: allocated with this layout and not used after.
            Kind::Allocated(layout) => unsafe { dealloc(self.start.as_ptr(), layout) },
            #[cfg(target_os = "linux")]
            // SAFETY: mapped by `mapped` with this length, owned by self, not used after. An error leaves it mapped.
            Kind::Mapped { base, len } => unsafe {
                let _ = rustix::mm::munmap(base.as_ptr().cast(), len);
            },
        }
    }
}

/// Zeros that the compiler does not leave out, although nobody reads them.
pub(crate) fn wipe<T: Copy + Default>(data: &mut [T]) {
    data.fill(T::default());
    std::hint::black_box(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_and_zero() {
        // No pages are mapped under Miri, which looks at every byte by itself.
        let large = if cfg!(miri) { 4096 } else { HUGE };
        for len in [0, 1, 63, large, large + 1, 3 * large - 1] {
            let mut memory = Memory::zeroed(len);
            assert_eq!(memory.len(), len);
            assert!(memory.as_ptr().addr().is_multiple_of(64));
            assert!(memory.iter().all(|byte| *byte == 0));
            if let Some(last) = memory.last_mut() {
                *last = 7;
            }
        }
    }
}
