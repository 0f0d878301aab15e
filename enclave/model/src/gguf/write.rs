//! Writing GGUF version 3.

use std::io::{self, Write};

use super::{DEFAULT_ALIGNMENT, MAGIC};
use crate::quant::TensorType;

/// Metadata and tensor directory of a file to be written; data follows in the same order.
#[derive(Debug, Default)]
pub struct Writer {
    metadata: Vec<u8>,
    metadata_count: u64,
    directory: Vec<u8>,
    lengths: Vec<u64>,
    offset: u64,
}

impl Writer {
    fn string(out: &mut Vec<u8>, text: &str) {
        out.extend_from_slice(&(text.len() as u64).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }

    fn key(&mut self, key: &str, kind: u32) {
        Self::string(&mut self.metadata, key);
        self.metadata.extend_from_slice(&kind.to_le_bytes());
        self.metadata_count += 1;
    }

    /// Adds a value as another file has it: its type and itself.
    pub fn encoded(&mut self, key: &str, value: &[u8]) {
        Self::string(&mut self.metadata, key);
        self.metadata.extend_from_slice(value);
        self.metadata_count += 1;
    }

    /// Adds a u32.
    pub fn u32(&mut self, key: &str, value: u32) {
        self.key(key, 4);
        self.metadata.extend_from_slice(&value.to_le_bytes());
    }

    /// Adds an f32.
    pub fn f32(&mut self, key: &str, value: f32) {
        self.key(key, 6);
        self.metadata.extend_from_slice(&value.to_le_bytes());
    }

    /// Adds a flag.
    pub fn bool(&mut self, key: &str, value: bool) {
        self.key(key, 7);
        self.metadata.push(value.into());
    }

    /// Adds a text.
    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        Self::string(&mut self.metadata, value);
    }

    fn array(&mut self, key: &str, kind: u32, len: usize) {
        self.key(key, 9);
        self.metadata.extend_from_slice(&kind.to_le_bytes());
        self.metadata.extend_from_slice(&(len as u64).to_le_bytes());
    }

    /// Adds an array of texts.
    pub fn texts<T: AsRef<str>>(&mut self, key: &str, values: &[T]) {
        self.array(key, 8, values.len());
        values.iter().for_each(|text| Self::string(&mut self.metadata, text.as_ref()));
    }

    /// Adds an array of i32.
    pub fn i32s(&mut self, key: &str, values: &[i32]) {
        self.array(key, 5, values.len());
        values.iter().for_each(|value| self.metadata.extend_from_slice(&value.to_le_bytes()));
    }

    /// Adds an array of f32.
    pub fn f32s(&mut self, key: &str, values: &[f32]) {
        self.array(key, 6, values.len());
        values.iter().for_each(|value| self.metadata.extend_from_slice(&value.to_le_bytes()));
    }

    /// Announces the next tensor, dimensions innermost first.
    ///
    /// # Panics
    /// If there are more than four dimensions or rows are no whole blocks.
    pub fn tensor(&mut self, name: &str, kind: TensorType, dims: &[u64]) {
        assert!((1..=4).contains(&dims.len()), "one to four dimensions");
        assert!(dims[0].is_multiple_of(kind.block_len() as u64), "rows are whole blocks");
        Self::string(&mut self.directory, name);
        // At most four.
        self.directory.extend_from_slice(&u32::try_from(dims.len()).unwrap_or(0).to_le_bytes());
        dims.iter().for_each(|dim| self.directory.extend_from_slice(&dim.to_le_bytes()));
        self.directory.extend_from_slice(&kind.to_ggml().to_le_bytes());
        self.directory.extend_from_slice(&self.offset.to_le_bytes());
        let len = dims.iter().product::<u64>() / kind.block_len() as u64 * kind.block_bytes() as u64;
        self.lengths.push(len);
        self.offset += len.next_multiple_of(DEFAULT_ALIGNMENT);
    }

    /// Everything in front of the tensor data, padded.
    #[must_use]
    pub fn header(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24 + self.metadata.len() + self.directory.len() + 32);
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&3u32.to_le_bytes());
        out.extend_from_slice(&(self.lengths.len() as u64).to_le_bytes());
        out.extend_from_slice(&self.metadata_count.to_le_bytes());
        out.extend_from_slice(&self.metadata);
        out.extend_from_slice(&self.directory);
        out.resize(out.len().next_multiple_of(32), 0);
        out
    }
}

/// Writes a whole file: the header, then each tensor's bytes in the order announced.
///
/// # Errors
/// Those of `out`; [`io::ErrorKind::InvalidInput`] if data and directory differ in number or length.
pub fn write<'a>(
    out: &mut dyn Write,
    writer: &Writer,
    data: impl IntoIterator<Item = &'a [u8]>,
) -> io::Result<()> {
    out.write_all(&writer.header())?;
    let mut lengths = writer.lengths.iter();
    for bytes in data {
        if lengths.next() != Some(&(bytes.len() as u64)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "tensor data of another length"));
        }
        out.write_all(bytes)?;
        let padding = bytes.len().next_multiple_of(32) - bytes.len();
        out.write_all(&[0; 32][..padding])?;
    }
    match lengths.next() {
        None => Ok(()),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "tensor data is missing")),
    }
}
