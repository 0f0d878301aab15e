//! Metadata values. Arrays stay where they are in the header and are decoded as they are read.

use super::GgufError;
use super::cursor::Cursor;

/// `gguf_metadata_value_type` numbers.
mod kind {
    pub(super) const U8: u32 = 0;
    pub(super) const I8: u32 = 1;
    pub(super) const U16: u32 = 2;
    pub(super) const I16: u32 = 3;
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
    pub(super) const U64: u32 = 10;
    pub(super) const I64: u32 = 11;
    pub(super) const F64: u32 = 12;
}

/// One metadata value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'data> {
    /// Unsigned integers of all widths.
    Unsigned(u64),
    /// Signed integers of all widths.
    Signed(i64),
    /// f32 and f64.
    Float(f64),
    /// A flag.
    Bool(bool),
    /// UTF-8 text.
    String(&'data str),
    /// Values of one type.
    Array(Array<'data>),
}

/// An array of strings or numbers, still encoded; every element has been read once and is well formed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'data> {
    kind: u32,
    count: u64,
    bytes: &'data [u8],
}

impl<'data> Value<'data> {
    pub(super) fn read(cursor: &mut Cursor<'data>) -> Result<Self, GgufError> {
        match cursor.u32()? {
            kind::ARRAY => Array::read(cursor).map(Self::Array),
            other => scalar(cursor, other),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> Option<&'data str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// A non-negative integer.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Unsigned(x) => Some(*x),
            Self::Signed(x) => u64::try_from(*x).ok(),
            _ => None,
        }
    }

    /// Any number as f64; integers above 2^53 are rounded.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "documented")]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float(x) => Some(*x),
            Self::Unsigned(x) => Some(*x as f64),
            Self::Signed(x) => Some(*x as f64),
            _ => None,
        }
    }

    /// The flag.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(flag) = self { Some(*flag) } else { None }
    }

    /// The array.
    #[must_use]
    pub fn as_array(&self) -> Option<Array<'data>> {
        if let Self::Array(array) = self { Some(*array) } else { None }
    }
}

fn scalar<'data>(cursor: &mut Cursor<'data>, kind: u32) -> Result<Value<'data>, GgufError> {
    fn bytes<const N: usize>(cursor: &mut Cursor<'_>) -> Result<[u8; N], GgufError> {
        cursor.take(N as u64)?.try_into().map_err(|_| GgufError::Truncated)
    }
    Ok(match kind {
        kind::U8 => Value::Unsigned(u8::from_le_bytes(bytes(cursor)?).into()),
        kind::I8 => Value::Signed(i8::from_le_bytes(bytes(cursor)?).into()),
        kind::U16 => Value::Unsigned(u16::from_le_bytes(bytes(cursor)?).into()),
        kind::I16 => Value::Signed(i16::from_le_bytes(bytes(cursor)?).into()),
        kind::U32 => Value::Unsigned(cursor.u32()?.into()),
        kind::I32 => Value::Signed(i32::from_le_bytes(bytes(cursor)?).into()),
        kind::F32 => Value::Float(f32::from_le_bytes(bytes(cursor)?).into()),
        kind::U64 => Value::Unsigned(cursor.u64()?),
        kind::I64 => Value::Signed(i64::from_le_bytes(bytes(cursor)?)),
        kind::F64 => Value::Float(f64::from_le_bytes(bytes(cursor)?)),
        kind::STRING => Value::String(cursor.string()?),
        kind::BOOL => match bytes::<1>(cursor)? {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            [other] => return Err(GgufError::Flag(other)),
        },
        other => return Err(GgufError::ValueType(other)),
    })
}

/// Encoded size of a number, bytes; `None` for strings, arrays and unknown types.
fn width(kind: u32) -> Option<u64> {
    match kind {
        kind::U8 | kind::I8 | kind::BOOL => Some(1),
        kind::U16 | kind::I16 => Some(2),
        kind::U32 | kind::I32 | kind::F32 => Some(4),
        kind::U64 | kind::I64 | kind::F64 => Some(8),
        _ => None,
    }
}

impl<'data> Array<'data> {
    fn read(cursor: &mut Cursor<'data>) -> Result<Self, GgufError> {
        let kind = cursor.u32()?;
        let count = cursor.u64()?;
        let bytes = if kind == kind::STRING {
            strings(cursor, count)?
        } else {
            let width = width(kind).ok_or(GgufError::ValueType(kind))?;
            cursor.take(count.checked_mul(width).ok_or(GgufError::Truncated)?)?
        };
        if kind == kind::BOOL
            && let Some(other) = bytes.iter().find(|byte| **byte > 1)
        {
            return Err(GgufError::Flag(*other));
        }
        Ok(Self { kind, count, bytes })
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        // The elements are in memory, so their number fits.
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The elements in order.
    #[must_use]
    pub fn iter(&self) -> ArrayIter<'data> {
        ArrayIter { kind: self.kind, left: self.count, cursor: self.bytes }
    }

    /// The elements, if all are text.
    #[must_use]
    pub fn strings(&self) -> Option<Vec<&'data str>> {
        (self.kind == kind::STRING).then(|| self.iter().filter_map(|value| value.as_str()).collect())
    }

    /// The elements, if all are numbers.
    #[must_use]
    pub fn numbers(&self) -> Option<Vec<f64>> {
        (self.kind != kind::STRING && self.kind != kind::BOOL)
            .then(|| self.iter().filter_map(|value| value.as_f64()).collect())
    }
}

impl<'data> IntoIterator for &Array<'data> {
    type Item = Value<'data>;
    type IntoIter = ArrayIter<'data>;
    fn into_iter(self) -> ArrayIter<'data> {
        self.iter()
    }
}

/// Walks over `count` strings and returns the bytes that hold them.
fn strings<'data>(cursor: &mut Cursor<'data>, count: u64) -> Result<&'data [u8], GgufError> {
    let all = cursor.rest();
    let start = cursor.position();
    for _ in 0..count {
        cursor.string()?;
    }
    let len = usize::try_from(cursor.position().saturating_sub(start)).map_err(|_| GgufError::Truncated)?;
    all.get(..len).ok_or(GgufError::Truncated)
}

/// Elements of an [`Array`].
#[derive(Debug, Clone)]
pub struct ArrayIter<'data> {
    kind: u32,
    left: u64,
    cursor: &'data [u8],
}

impl<'data> Iterator for ArrayIter<'data> {
    type Item = Value<'data>;

    fn next(&mut self) -> Option<Value<'data>> {
        self.left = self.left.checked_sub(1)?;
        let mut cursor = Cursor::new(self.cursor);
        let value = scalar(&mut cursor, self.kind).ok()?;
        self.cursor = cursor.rest();
        Some(value)
    }
}
