//! Strict deterministic CBOR: the only place in this crate that names the CBOR library.
//!
//! Every object of the protocol is deterministic CBOR (RFC 8949, section 4.2.1) built from integers, byte strings,
//! text strings, arrays and maps. [`decode`] walks the bytes once before any value is built and refuses whatever a
//! second encoder could have written differently: indefinite lengths, integers in more bytes than needed, duplicate or
//! unsorted keys, trailing bytes, nesting deeper than [`MAX_DEPTH`], and anything longer than its type may be. Then it
//! decodes and encodes again, and refuses a difference: so the bytes that were read are the only bytes of that value.
//!
//! Input here is never trusted. No memory is taken from a length that the bytes do not back.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How deeply arrays and maps may nest (SPEC, section 1).
pub const MAX_DEPTH: usize = 8;

/// Why bytes are not the encoding of the wanted object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Longer than this type may be.
    #[error("object of {len} bytes is longer than the {max} allowed for its type")]
    TooLong {
        /// Bytes received.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The bytes end inside a value.
    #[error("object ends in the middle of a value")]
    Truncated,
    /// Bytes follow the value.
    #[error("bytes follow the end of the object")]
    TrailingBytes,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("object is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// An indefinite length was used.
    #[error("indefinite length is not deterministic CBOR")]
    Indefinite,
    /// An integer or length is not in its shortest form.
    #[error("integer or length is not in its shortest form")]
    NotShortest,
    /// A map holds the same key twice.
    #[error("map holds the same key twice")]
    DuplicateKey,
    /// The keys of a map are not in bytewise order.
    #[error("map keys are not in bytewise order")]
    UnsortedKeys,
    /// A text string is not UTF-8.
    #[error("text string is not UTF-8")]
    NotUtf8,
    /// A tag, float or simple value that the protocol does not use.
    #[error("tags, floats and simple values are not part of the protocol")]
    Unsupported,
    /// Well-formed CBOR, but not the fields of the wanted type.
    #[error("object does not have the fields of its type")]
    WrongShape,
}

/// Decodes `bytes` as exactly one `T` of at most `max_len` bytes.
///
/// # Errors
/// One variant of [`WireError`] for each way to be wrong; the first one met is reported.
pub fn decode<T: DeserializeOwned + Serialize>(bytes: &[u8], max_len: usize) -> Result<T, WireError> {
    if bytes.len() > max_len {
        return Err(WireError::TooLong { len: bytes.len(), max: max_len });
    }
    let mut scan = Scan { rest: bytes };
    scan.value(0)?;
    if !scan.rest.is_empty() {
        return Err(WireError::TrailingBytes);
    }
    let value: T = serde_cbor::from_slice(bytes).map_err(|_| WireError::WrongShape)?;
    if encode(&value) == bytes { Ok(value) } else { Err(WireError::WrongShape) }
}

/// Encodes a value of the protocol; the result is what [`decode`] accepts.
///
/// # Panics
/// Never for the types of this crate: they hold integers, strings and sequences of known length only.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_cbor::to_vec(value).expect("integers, strings and sequences of known length always encode")
}

/// One pass over the bytes that accepts deterministic CBOR and nothing else.
struct Scan<'a> {
    rest: &'a [u8],
}

impl<'a> Scan<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// Reads the head of a value: major type (0..=7) and argument.
    fn head(&mut self) -> Result<(u8, u64), WireError> {
        let first = *self.take(1)?.first().ok_or(WireError::Truncated)?;
        let (major, info) = (first >> 5, first & 0x1f);
        if major == 7 {
            return Err(WireError::Unsupported);
        }
        let (width, smallest) = match info {
            0..=23 => return Ok((major, u64::from(info))),
            24 => (1, 24),
            25 => (2, 1 << 8),
            26 => (4, 1 << 16),
            27 => (8, 1 << 32),
            31 => return Err(WireError::Indefinite),
            _ => return Err(WireError::Unsupported),
        };
        let argument = self.take(width)?.iter().fold(0u64, |n, byte| (n << 8) | u64::from(*byte));
        if argument < smallest { Err(WireError::NotShortest) } else { Ok((major, argument)) }
    }

    fn value(&mut self, depth: usize) -> Result<(), WireError> {
        let (major, argument) = self.head()?;
        match major {
            0 | 1 => Ok(()),
            2 => self.string(argument).map(|_| ()),
            3 => std::str::from_utf8(self.string(argument)?).map(|_| ()).map_err(|_| WireError::NotUtf8),
            4 | 5 if depth >= MAX_DEPTH => Err(WireError::TooDeep),
            4 => self.items(argument, depth),
            5 => self.pairs(argument, depth),
            _ => Err(WireError::Unsupported),
        }
    }

    fn string(&mut self, len: u64) -> Result<&'a [u8], WireError> {
        self.take(usize::try_from(len).map_err(|_| WireError::Truncated)?)
    }

    fn items(&mut self, count: u64, depth: usize) -> Result<(), WireError> {
        // Each item takes at least one byte, so a count beyond the input ends in `Truncated`, not in a long loop.
        for _ in 0..count {
            self.value(depth + 1)?;
        }
        Ok(())
    }

    fn pairs(&mut self, count: u64, depth: usize) -> Result<(), WireError> {
        let mut previous: Option<&[u8]> = None;
        for _ in 0..count {
            let before = self.rest;
            self.value(depth + 1)?;
            let key = before.get(..before.len() - self.rest.len()).ok_or(WireError::Truncated)?;
            match previous.map(|previous| previous.cmp(key)) {
                Some(std::cmp::Ordering::Equal) => return Err(WireError::DuplicateKey),
                Some(std::cmp::Ordering::Greater) => return Err(WireError::UnsortedKeys),
                _ => previous = Some(key),
            }
            self.value(depth + 1)?;
        }
        Ok(())
    }
}

/// A byte string of exactly `N` bytes: digests, challenges, public keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes<const N: usize>(pub [u8; N]);

impl<const N: usize> Serialize for Bytes<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Bytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        let array = <[u8; N]>::try_from(bytes.as_slice());
        array.map(Self).map_err(|_| D::Error::invalid_length(bytes.len(), &"a byte string of fixed length"))
    }
}

impl<const N: usize> AsRef<[u8]> for Bytes<N> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A text string as a map key, in the order of its encoding: shorter before longer, then bytewise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(pub String);

impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A byte string of any length (within the limit of the object that holds it).
pub type Blob = serde_bytes::ByteBuf;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Sample = (u8, Blob, Vec<Bytes<2>>, String);

    fn sample() -> Sample {
        (1, Blob::from(vec![7; 30]), vec![Bytes([1, 2]), Bytes([3, 4])], "text".into())
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        let bytes = encode(&sample());
        assert_eq!(decode::<Sample>(&bytes, 4096), Ok(sample()));
    }

    #[test]
    fn a_missing_or_extra_element_is_the_wrong_shape() {
        let short = encode(&(1u8, Blob::from(vec![7; 30])));
        assert_eq!(decode::<Sample>(&short, 4096), Err(WireError::WrongShape));
        let long = encode(&(1u8, Blob::new(), Vec::<Bytes<2>>::new(), "", 5u8));
        assert_eq!(decode::<Sample>(&long, 4096), Err(WireError::WrongShape));
    }

    #[test]
    fn an_array_may_not_stand_for_a_byte_string() {
        let array = encode(&(1u8, vec![7u8; 3], Vec::<Bytes<2>>::new(), ""));
        assert_eq!(decode::<Sample>(&array, 4096), Err(WireError::WrongShape));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_accepted_bytes_are_unique(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = decode::<Sample>(&bytes, 64) {
                prop_assert_eq!(encode(&value), bytes);
            }
        }

        #[test]
        fn one_flipped_bit_never_decodes_to_the_same_value(bit in 0usize..8, at in 0usize..48) {
            let mut bytes = encode(&sample());
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert_ne!(decode::<Sample>(&bytes, 4096), Ok(sample()));
        }
    }
}
