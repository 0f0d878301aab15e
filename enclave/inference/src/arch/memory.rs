//! Zeroed memory for weights: aligned for vectors, in huge pages where the kernel gives them.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// x86 huge page, bytes.
const HUGE: usize = 2 << 20;

/// Owned bytes; aligned to 64, and to huge pages when there are that many.
pub(super) struct Memory {
    start: NonNull<u8>,
    layout: Layout,
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
        let align = if len >= HUGE { HUGE } else { 64 };
        let layout = Layout::from_size_align(len.max(1), align).expect("a length below isize::MAX");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        if len >= HUGE && !cfg!(miri) {
            // SAFETY: advice on pages that belong to this allocation alone. A refusal changes nothing.
            let _ = unsafe {
                rustix::mm::madvise(start.as_ptr().cast(), len, rustix::mm::Advice::LinuxHugepage)
            };
        }
        Self { start, layout }
    }
}

impl std::ops::Deref for Memory {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is valid for the layout's size, initialised with zeros, for as long as self lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) }
    }
}

impl std::ops::DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and self is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Weights are the owner's secret: nothing may find them in freed memory. `black_box` keeps the stores.
        self.fill(0);
        std::hint::black_box(&**self);
        // SAFETY: allocated with this layout and not used after.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_and_zero() {
        for len in [0, 1, 63, HUGE, HUGE + 1] {
            let mut memory = Memory::zeroed(len);
            assert!(memory.as_ptr().addr().is_multiple_of(64));
            assert!(memory.iter().all(|byte| *byte == 0));
            if let Some(last) = memory.last_mut() {
                *last = 7;
            }
        }
    }
}
