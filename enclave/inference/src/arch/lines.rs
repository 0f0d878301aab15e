//! Numbers that begin with a line of the cache: a load or store of 64 bytes that crosses two takes twice as long.
//!
//! They are computed from prompts, and wiped before their memory is given back.

use std::fmt;

use super::memory::wipe;

/// A growing row of `u32` or `f32` in whole lines.
pub(crate) struct Lines<T: Number> {
    lines: Vec<Line<T>>,
    len: usize,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
struct Line<T>([T; LINE]);

/// Numbers of a line.
const LINE: usize = 16;

/// The types that fill a line without a gap: 32 bits.
pub(crate) trait Number: Copy + Default {}
impl Number for u32 {}
impl Number for f32 {}

impl<T: Number> Default for Lines<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), len: 0 }
    }
}

impl<T: Number> fmt::Debug for Lines<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lines({} numbers)", self.len)
    }
}

impl<T: Number> Drop for Lines<T> {
    fn drop(&mut self) {
        wipe(&mut self.lines);
    }
}

impl<T: Number> Lines<T> {
    /// Makes room for `len` numbers. What was there stays, wherever it then belongs; room that is too large stays as well:
    /// layers take turns with long and short rows, and growing again means writing zeros.
    pub(crate) fn resize(&mut self, len: usize) {
        let lines = len.div_ceil(LINE);
        if self.lines.len() < lines {
            let mut more = vec![Line([T::default(); LINE]); lines];
            more[..self.lines.len()].copy_from_slice(&self.lines);
            wipe(&mut self.lines);
            self.lines = more;
        }
        self.len = len;
    }
}

impl<T: Number> std::ops::Deref for Lines<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: a line of these types is 16 initialised numbers without padding, and `len` is at most those of all lines.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T: Number> std::ops::DerefMut for Lines<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and self is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
