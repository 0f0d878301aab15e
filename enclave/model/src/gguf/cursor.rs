//! Reading numbers and strings off the front of the header.

use super::GgufError;

/// A place in the header. Nothing is read past its end.
pub(super) struct Cursor<'data> {
    rest: &'data [u8],
    position: u64,
}

impl<'data> Cursor<'data> {
    pub(super) fn new(bytes: &'data [u8]) -> Self {
        Self { rest: bytes, position: 0 }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// What has not been read yet.
    pub(super) fn rest(&self) -> &'data [u8] {
        self.rest
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: u64) -> Result<&'data [u8], GgufError> {
        let len = usize::try_from(count).map_err(|_| GgufError::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(GgufError::Truncated)?;
        self.rest = rest;
        self.position = self.position.saturating_add(count);
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(GgufError::Truncated)?;
        self.rest = rest;
        self.position = self.position.saturating_add(N as u64);
        Ok(*taken)
    }

    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        self.array().map(u64::from_le_bytes)
    }

    /// `gguf_string_t`: length in bytes (u64), then UTF-8 without a terminator.
    pub(super) fn string(&mut self) -> Result<&'data str, GgufError> {
        let len = self.u64()?;
        let at = self.position;
        std::str::from_utf8(self.take(len)?).map_err(|_| GgufError::Utf8 { at })
    }
}
