//! GGUF model files, versions 2 and 3: header, metadata and tensor directory.
//!
//! What: a reader of everything in front of the tensor data, and a [writer](write()). Why: llama.cpp's format is what
//! quantised models are published in. Flow: the first bytes of a file go in with the file's length; a directory comes
//! out that says where each tensor lies. Trust: nothing is believed. Every count is bounded by the bytes that would
//! have to hold it, every string is UTF-8, keys and names are unique, and tensors lie one after the other without
//! holes or overlap, so that memory taken is never more than a small multiple of the header. Layout: the GGUF
//! specification in ggml's `docs/gguf.md`.

mod cursor;
mod directory;
mod error;
mod value;
mod write;

pub use directory::{MAX_DIMENSIONS, TensorInfo};
pub use error::GgufError;
pub use value::{Array, ArrayIter, Value};
pub use write::{Writer, write};

use std::collections::BTreeMap;

use cursor::Cursor;

/// `GGUF`, little endian.
const MAGIC: u32 = u32::from_le_bytes(*b"GGUF");
/// Alignment where `general.alignment` is absent, in bytes.
const DEFAULT_ALIGNMENT: u64 = 32;
/// Largest alignment taken; files use 32.
const MAX_ALIGNMENT: u64 = 1 << 16;

/// The directory of a GGUF file: metadata by key and tensors by name. Borrows the header's bytes.
#[derive(Debug)]
pub struct Gguf<'data> {
    version: u32,
    metadata: BTreeMap<&'data str, Entry<'data>>,
    tensors: Vec<TensorInfo<'data>>,
    by_name: BTreeMap<&'data str, usize>,
    alignment: u64,
}

/// A value, and the bytes of its type and itself.
#[derive(Debug)]
struct Entry<'data> {
    value: Value<'data>,
    encoded: &'data [u8],
}

impl<'data> Gguf<'data> {
    /// Reads the directory from the first bytes of a file that is `file_len` bytes long.
    ///
    /// # Errors
    /// [`GgufError::Truncated`] where the bytes end inside the header: give more of the file if there is more. Every
    /// other variant is the file's fault.
    pub fn parse(bytes: &'data [u8], file_len: u64) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(bytes);
        let magic = cursor.u32()?;
        if magic != MAGIC {
            return Err(GgufError::Magic(magic));
        }
        let version = cursor.u32()?;
        if version != 2 && version != 3 {
            return Err(GgufError::Version(version));
        }
        let tensor_count = cursor.u64()?;
        let metadata_count = cursor.u64()?;
        let metadata = read_metadata(&mut cursor, metadata_count)?;
        let alignment = alignment(&metadata)?;
        let tensors = directory::read(&mut cursor, tensor_count, alignment)?;
        let mut by_name = BTreeMap::new();
        for (index, tensor) in tensors.iter().enumerate() {
            if by_name.insert(tensor.name, index).is_some() {
                return Err(GgufError::DuplicateTensor(tensor.name.to_owned()));
            }
        }
        let tensors = directory::place(tensors, cursor.position(), alignment, file_len)?;
        Ok(Self { version, metadata, tensors, by_name, alignment })
    }

    /// 2 or 3.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Alignment of tensor data, bytes.
    #[must_use]
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Keys and values, in order of the keys.
    pub fn metadata(&self) -> impl Iterator<Item = (&'data str, &Value<'data>)> {
        self.metadata.iter().map(|(key, entry)| (*key, &entry.value))
    }

    /// Keys in order, each with the bytes of its value and the value's type, for [`Writer::encoded`].
    pub fn encoded(&self) -> impl Iterator<Item = (&'data str, &'data [u8])> {
        self.metadata.iter().map(|(key, entry)| (*key, entry.encoded))
    }

    /// The tensors in file order.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo<'data>] {
        &self.tensors
    }

    /// The tensor of this name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo<'data>> {
        self.by_name.get(name).and_then(|index| self.tensors.get(*index))
    }

    /// The value of a key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&Value<'data>> {
        self.metadata.get(key).map(|entry| &entry.value)
    }

    /// A value that must be there.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`].
    pub fn require(&self, key: &str) -> Result<&Value<'data>, GgufError> {
        self.value(key).ok_or_else(|| GgufError::MissingKey(key.to_owned()))
    }

    /// A text, if the key is there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`].
    pub fn text(&self, key: &str) -> Result<Option<&'data str>, GgufError> {
        self.typed(key, "a string", Value::as_str)
    }

    /// A non-negative integer of any width, if the key is there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`].
    pub fn integer(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "a non-negative integer", Value::as_u64)
    }

    /// A number, if the key is there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`].
    pub fn number(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// A flag, if the key is there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`].
    pub fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a flag", Value::as_bool)
    }

    /// An array, if the key is there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`].
    pub fn array(&self, key: &str) -> Result<Option<Array<'data>>, GgufError> {
        self.typed(key, "an array", Value::as_array)
    }

    fn typed<T>(
        &self,
        key: &str,
        want: &'static str,
        take: impl Fn(&Value<'data>) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => match take(value) {
                Some(taken) => Ok(Some(taken)),
                None => Err(GgufError::WrongType { key: key.to_owned(), want }),
            },
        }
    }
}

fn read_metadata<'data>(
    cursor: &mut Cursor<'data>,
    count: u64,
) -> Result<BTreeMap<&'data str, Entry<'data>>, GgufError> {
    // The map grows as pairs are read, so a count that lies costs nothing.
    let mut metadata = BTreeMap::new();
    for _ in 0..count {
        let key = cursor.string()?;
        let rest = cursor.rest();
        let value = Value::read(cursor)?;
        let encoded = &rest[..rest.len() - cursor.rest().len()];
        if metadata.insert(key, Entry { value, encoded }).is_some() {
            return Err(GgufError::DuplicateKey(key.to_owned()));
        }
    }
    Ok(metadata)
}

fn alignment(metadata: &BTreeMap<&str, Entry<'_>>) -> Result<u64, GgufError> {
    let Some(entry) = metadata.get("general.alignment") else { return Ok(DEFAULT_ALIGNMENT) };
    match entry.value.as_u64() {
        Some(alignment) if alignment.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(&alignment) => {
            Ok(alignment)
        }
        _ => Err(GgufError::Alignment),
    }
}

#[cfg(test)]
mod tests;
