//! Memory for an opened model: where its plaintext is until the model is built.
//!
//! Anonymous pages, advised to be huge (weights are read end to end, and huge pages save most of the page faults of
//! filling them), left out of core dumps and of forked children, locked against swapping where the limit allows, and
//! overwritten with zeros when dropped. Pages are locked after they were filled: locking first would touch all of
//! them from one thread.
//!
//! They come in pieces. Whoever builds a model from its file says which bytes it has taken, and pieces of which all
//! were taken are wiped and given back: file and model together then need little more memory than one of them. Copies
//! are their makers' to wipe; the one that is made here wipes itself.

use std::io;
use std::ops::Range;
use std::sync::{PoisonError, RwLock};

use memmap2::{Advice, MmapMut};
use zeroize::{Zeroize, Zeroizing};

use crate::chunk::CHUNK_LEN;

/// Bytes of each piece but the last: whole chunks, and whole huge pages.
const PIECE_LEN: usize = 16 * CHUNK_LEN;

/// The plaintext of one model file; wiped when dropped.
///
/// No `Debug`, `Clone` or serialisation, as for [`crate::Secret`].
pub struct Plaintext {
    pieces: Vec<RwLock<Piece>>,
    len: u64,
    locked: bool,
}

struct Piece {
    /// Whole chunks, so that each was decrypted where it stays; gone once all was taken.
    map: Option<MmapMut>,
    /// Bytes of the file in it that were not taken yet.
    left: u64,
}

impl Plaintext {
    /// Maps `capacity` zeroed bytes, of which the first `len` will be the plaintext; `0 < capacity >= len`.
    pub(crate) fn map(capacity: usize, len: usize) -> io::Result<Self> {
        let piece = |start: usize| {
            let map = MmapMut::map_anon(PIECE_LEN.min(capacity - start))?;
            // Advice only makes things better: a kernel without one of these still holds the model.
            for advice in [Advice::HugePage, Advice::DontDump, Advice::DontFork] {
                let _ = map.advise(advice);
            }
            let left = map.len().min(len.saturating_sub(start)) as u64;
            Ok(RwLock::new(Piece { map: Some(map), left }))
        };
        let pieces = (0..capacity).step_by(PIECE_LEN).map(piece).collect::<io::Result<_>>()?;
        Ok(Self { pieces, len: len as u64, locked: false })
    }

    fn maps_mut(&mut self) -> impl Iterator<Item = &mut MmapMut> + Send {
        let piece = |piece| RwLock::get_mut(piece).unwrap_or_else(PoisonError::into_inner);
        self.pieces.iter_mut().filter_map(move |lock| piece(lock).map.as_mut())
    }

    /// All mapped bytes, for filling them, `len` at a time; pieces are a multiple of that.
    pub(crate) fn chunks_mut(&mut self, len: usize) -> impl Iterator<Item = &mut [u8]> + Send {
        self.maps_mut().flat_map(move |map| map.chunks_mut(len))
    }

    /// Locks the pages against swapping, if the process may lock that much.
    pub(crate) fn lock(&mut self) {
        let locked = self.maps_mut().all(|map| map.lock().is_ok());
        self.locked = locked;
    }

    /// Bytes of the file.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "of a file")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the pages are locked in memory. If not, raise `RLIMIT_MEMLOCK` or run without swap.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// Copies the bytes from `offset` on. Grep for `expose` to see every use.
    ///
    /// # Errors
    /// Some of them lie behind the end, or in a piece of which all was taken.
    pub fn expose_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.len);
        let range = offset..end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut rest = out;
        for (piece, within) in pieces(range) {
            let (to, after) = rest.split_at_mut(within.len());
            rest = after;
            let piece = self.pieces.get(piece).ok_or(io::ErrorKind::UnexpectedEof)?;
            let piece = piece.read().unwrap_or_else(PoisonError::into_inner);
            let taken = || io::Error::other("bytes of a model file that were taken before");
            let map = piece.map.as_ref().ok_or_else(taken)?;
            to.copy_from_slice(map.get(within).ok_or(io::ErrorKind::UnexpectedEof)?);
        }
        Ok(())
    }

    /// Copies all of it.
    ///
    /// # Errors
    /// As [`Self::expose_at`], and if it is too large for one.
    pub fn expose_all(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut all = Zeroizing::new(Vec::new());
        let len = usize::try_from(self.len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        all.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        all.resize(len, 0);
        self.expose_at(0, &mut all)?;
        Ok(all)
    }

    /// Says that these bytes are not read again, which is said once of each. Pieces with nothing left are wiped and given
    /// back.
    pub fn take(&self, range: Range<u64>) {
        for (index, within) in pieces(range.start..range.end.min(self.len)) {
            let Some(piece) = self.pieces.get(index) else { return };
            let mut piece = piece.write().unwrap_or_else(PoisonError::into_inner);
            piece.left = piece.left.saturating_sub(within.len() as u64);
            if piece.left == 0
                && let Some(mut map) = piece.map.take()
            {
                map.zeroize();
            }
        }
    }
}

/// The pieces that a range of the file lies in, and where in them.
fn pieces(range: Range<u64>) -> impl Iterator<Item = (usize, Range<usize>)> {
    const LEN: u64 = PIECE_LEN as u64;
    let mut at = range.start;
    std::iter::from_fn(move || {
        let end = range.end.min((at / LEN + 1).saturating_mul(LEN));
        let index = usize::try_from(at / LEN).ok().filter(|_| at < end)?;
        #[expect(clippy::cast_possible_truncation, reason = "within a piece")]
        let within = (at % LEN) as usize..(at % LEN + (end - at)) as usize;
        at = end;
        Some((index, within))
    })
}

impl Zeroize for Plaintext {
    fn zeroize(&mut self) {
        self.maps_mut().for_each(|map| map.zeroize());
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

    fn address(memory: &Plaintext) -> usize {
        memory.pieces[0].read().unwrap().map.as_ref().unwrap().as_ptr() as usize
    }

    #[test]
    fn mapping_is_out_of_dumps_and_forks_and_wants_huge_pages() {
        let memory = Plaintext::map(4 << 20, 5).unwrap();
        assert_eq!(**memory.expose_all().unwrap(), [0; 5]);
        let Some(flags) = smaps_flags(address(&memory)) else {
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
        memory.chunks_mut(CHUNK_LEN).for_each(|chunk| chunk.fill(0xa5));
        memory.zeroize();
        assert!(memory.chunks_mut(CHUNK_LEN).flatten().all(|&mut byte| byte == 0));
    }

    #[test]
    fn locking_is_reported_as_the_kernel_has_it() {
        let mut memory = Plaintext::map(1 << 20, 1 << 20).unwrap();
        assert!(!memory.is_locked());
        memory.lock();
        if let Some(flags) = smaps_flags(address(&memory)) {
            assert_eq!(flags.split_whitespace().any(|f| f == "lo"), memory.is_locked(), "{flags}");
        }
    }

    /// Bytes of two whole pieces and a part of a third.
    const LEN: usize = 2 * PIECE_LEN + 1000;
    /// Numbers of the first chunks of the second piece and of the third.
    const SECOND: u8 = 16;
    const LAST: u8 = 2 * SECOND;

    fn three_pieces() -> Plaintext {
        assert_eq!(PIECE_LEN, usize::from(SECOND) * CHUNK_LEN);
        let mut memory = Plaintext::map(2 * PIECE_LEN + CHUNK_LEN, LEN).unwrap();
        for (number, chunk) in (0..).zip(memory.chunks_mut(CHUNK_LEN)) {
            chunk[..1000].fill(number);
        }
        memory
    }

    fn byte(memory: &Plaintext, at: usize) -> Option<u8> {
        let mut out = [0];
        memory.expose_at(at as u64, &mut out).ok().map(|()| out[0])
    }

    #[test]
    fn reads_cross_pieces_and_end_where_the_file_does() {
        let memory = three_pieces();
        assert_eq!(memory.len(), LEN as u64);
        let mut out = vec![1; PIECE_LEN + 2000];
        memory.expose_at(PIECE_LEN as u64 - 1000, &mut out).unwrap();
        assert_eq!([out[0], out[999], out[1000], out[1999], out[2000]], [0, 0, SECOND, SECOND, 0]);
        assert_eq!(out[out.len() - 1000..], [LAST; 1000]);
        assert_eq!((byte(&memory, LEN - 1), byte(&memory, LEN)), (Some(LAST), None));
        for offset in [LEN as u64, u64::MAX - 1, u64::MAX] {
            assert!(memory.expose_at(offset, &mut [0; 3]).is_err());
        }
        assert!(memory.expose_at(LEN as u64, &mut []).is_ok());
        assert!(memory.expose_all().unwrap()[LEN - 1000..] == [LAST; 1000]);
    }

    #[test]
    fn a_piece_is_given_back_once_all_of_it_was_taken() {
        let memory = three_pieces();
        let [first, second, last] = [0, PIECE_LEN, LEN - 1];
        memory.take(0..PIECE_LEN as u64 - 1);
        assert_eq!(byte(&memory, first), Some(0), "one byte is left");
        memory.take(PIECE_LEN as u64 - 1..PIECE_LEN as u64 + 7);
        assert_eq!((byte(&memory, first), byte(&memory, second)), (None, Some(SECOND)));
        assert!(memory.expose_all().is_err());
        // Behind the end there is nothing, and nothing is counted.
        memory.take(2 * PIECE_LEN as u64 + 1..u64::MAX);
        memory.take(u64::MAX - 1..u64::MAX);
        assert_eq!(byte(&memory, last), Some(LAST));
        memory.take(2 * PIECE_LEN as u64..2 * PIECE_LEN as u64 + 1);
        assert_eq!((byte(&memory, last), byte(&memory, second)), (None, Some(SECOND)));
    }
}
