//! Zeroed memory for weights: aligned for vectors, in huge pages where the kernel gives them.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
#[cfg(target_os = "linux")]
use std::sync::Arc;

/// x86 huge page, bytes.
const HUGE: usize = 2 << 20;
/// Where vectors begin.
const ALIGNED: usize = 64;

/// Owned bytes, aligned to [`ALIGNED`].
pub(super) struct Memory {
    start: NonNull<u8>,
    len: usize,
    kind: Kind,
}

enum Kind {
    /// From the allocator.
    Allocated(Layout),
    /// Alone in its part of a mapping.
    #[cfg(target_os = "linux")]
    Mapped(#[expect(dead_code, reason = "kept until it is dropped")] Arc<Mapping>),
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
        Arena::default().zeroed(len)
    }

    fn allocated(len: usize) -> Self {
        let layout = Layout::from_size_align(len.max(1), ALIGNED).expect("a length below isize::MAX");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, len, kind: Kind::Allocated(layout) }
    }
}

/// Hands out memory one behind the other, so that small matrices and the ends of large ones lie in huge pages as well and
/// yet waste none: a read that misses the cache looks pages up first, and a virtual machine does so twice over.
#[derive(Default)]
pub struct Arena {
    /// Bytes to map at once.
    expected: usize,
    /// The last mapping, and where what is left of it begins.
    #[cfg(target_os = "linux")]
    open: Option<(Arc<Mapping>, usize)>,
}

impl Arena {
    /// One that is going to hold about so many bytes.
    #[must_use]
    pub fn new(expected: usize) -> Self {
        Self { expected, ..Self::default() }
    }

    /// `len` zeros.
    ///
    /// # Panics
    /// If `len` is over `isize::MAX`; aborts like `Vec` if memory runs out.
    pub(super) fn zeroed(&mut self, len: usize) -> Memory {
        assert!(isize::try_from(len).is_ok(), "a length below isize::MAX");
        // Miri looks at every byte of a mapping by itself.
        #[cfg(target_os = "linux")]
        if len.max(self.expected) >= HUGE
            && !cfg!(miri)
            && let Some(memory) = self.mapped(len)
        {
            return memory;
        }
        Memory::allocated(len)
    }

    #[cfg(target_os = "linux")]
    fn mapped(&mut self, len: usize) -> Option<Memory> {
        let fits = |(mapping, at): &(Arc<Mapping>, usize)| len <= mapping.len - at;
        let (mapping, at) = match self.open.take().filter(fits) {
            Some(open) => open,
            None => {
                let new = Mapping::new(len.max(self.expected))?;
                // What is more than was expected is a small part of it.
                self.expected = self.expected.min(MORE);
                (Arc::new(new), 0)
            }
        };
        // SAFETY: `at + len` is at most the length of the mapping.
        let start = unsafe { mapping.start.add(at) };
        // From here on are the bytes that nobody was given: a mapping ends with a whole number of lines.
        self.open = Some((Arc::clone(&mapping), (at + len).next_multiple_of(ALIGNED)));
        Some(Memory { start, len, kind: Kind::Mapped(mapping) })
    }
}

/// Bytes that an [`Arena`] maps where it turns out too small.
#[cfg(target_os = "linux")]
const MORE: usize = 32 << 20;

/// Private memory that the kernel gives when it is first touched, so that whoever fills it also places it.
#[cfg(target_os = "linux")]
struct Mapping {
    base: NonNull<u8>,
    /// The first huge page in it,
    start: NonNull<u8>,
    /// and the bytes of all of them. Mapped is one more.
    len: usize,
}

// SAFETY: it only keeps the mapping; who uses which bytes is the concern of the `Memory` that owns them.
#[cfg(target_os = "linux")]
unsafe impl Send for Mapping {}
// SAFETY: as above.
#[cfg(target_os = "linux")]
unsafe impl Sync for Mapping {}

#[cfg(target_os = "linux")]
impl Mapping {
    fn new(len: usize) -> Option<Self> {
        use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
        let len = len.checked_next_multiple_of(HUGE)?;
        let total = len.checked_add(HUGE)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private mapping at a place the kernel chooses touches nothing that exists.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), total, access, MapFlags::PRIVATE) }.ok()?;
        let base = NonNull::new(base.cast::<u8>())?;
        let skip = base.as_ptr().align_offset(HUGE);
        // SAFETY: `skip` is below HUGE, and `total` is `len + HUGE`.
        let start = unsafe { base.add(skip) };
        // SAFETY: advice on pages of this mapping alone. A refusal changes nothing.
        let _ = unsafe { madvise(start.as_ptr().cast(), len, Advice::LinuxHugepage) };
        Some(Self { base, start, len })
    }
}

#[cfg(target_os = "linux")]
impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and no `Memory` in it is left. An error leaves it mapped.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len + HUGE) };
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
        if let Kind::Allocated(layout) = self.kind {
            // SAFETY: allocated with this layout and not used after.
            unsafe { dealloc(self.start.as_ptr(), layout) }
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

    #[test]
    fn one_behind_the_other() {
        let small = if cfg!(miri) { 100 } else { 3 * HUGE / 2 };
        for expected in [0, 5 * small] {
            let mut arena = Arena::new(expected);
            let mut all: Vec<Memory> = [small, 1, 0, 65, small, 4 * small, small, small / 2, small]
                .into_iter()
                .map(|len| {
                    let memory = arena.zeroed(len);
                    assert_eq!(memory.len(), len);
                    assert!(memory.as_ptr().addr().is_multiple_of(ALIGNED));
                    memory
                })
                .collect();
            drop(arena);
            for (value, memory) in (1..).zip(&mut all) {
                assert!(memory.iter().all(|byte| *byte == 0), "nobody else's");
                memory.fill(value);
            }
            // Those that go leave the others as they are.
            for (value, memory) in (1..).zip(all).filter(|(value, _)| value % 2 == 0) {
                assert!(memory.iter().all(|byte| *byte == value));
            }
        }
    }
}
