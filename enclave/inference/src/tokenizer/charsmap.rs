//! The table of replacements in SentencePiece models: `precompiled_charsmap`.
//!
//! Layout: u32 length of the trie in bytes, the trie as u32 units of darts-clone's double array, then the replacements,
//! each ended by a zero byte. All little endian.

use unicode_segmentation::UnicodeSegmentation;

use super::TokenizerError;

#[derive(Debug)]
pub(super) struct Charsmap {
    units: Vec<u32>,
    texts: Vec<u8>,
}

/// Longer graphemes are replaced letter by letter, as in the `tokenizers` library.
const LONGEST_GRAPHEME: usize = 5;

fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & 1 << 9) >> 6)) as usize
}

impl Charsmap {
    pub(super) fn new(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let error = TokenizerError::Vocabulary("the table of replacements is cut short");
        let Some((len, rest)) = bytes.split_first_chunk::<4>() else { return Err(error) };
        let len = u32::from_le_bytes(*len) as usize;
        match rest.split_at_checked(len) {
            Some((units, texts)) if len.is_multiple_of(4) => {
                let units = units.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
                Ok(Self { units, texts: texts.to_vec() })
            }
            _ => Err(error),
        }
    }

    /// Prefixes of `text` that are replaced, shortest first: their lengths and what stands for them.
    fn prefixes<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
        let mut node = self.units.first().map_or(0, |unit| offset(*unit));
        let mut alive = true;
        text.bytes().enumerate().filter_map(move |(index, byte)| {
            // A zero byte ends keys; past a missing edge nothing longer is found.
            alive = alive && byte != 0;
            node ^= usize::from(byte);
            let unit = self
                .units
                .get(node)
                .copied()
                .filter(|unit| alive && unit & (1 << 31 | 0xff) == u32::from(byte));
            let Some(unit) = unit else {
                alive = false;
                return None;
            };
            node ^= offset(unit);
            let leaf = if unit >> 8 & 1 == 1 { self.units.get(node) } else { None };
            let start = (*leaf? & !(1 << 31)) as usize;
            let rest = self.texts.get(start..)?;
            let end = rest.iter().position(|byte| *byte == 0)?;
            Some((index + 1, std::str::from_utf8(&rest[..end]).ok()?))
        })
    }

    /// As SentencePiece itself: the longest prefix at every place.
    pub(super) fn longest<'a>(&'a self, text: &'a str) -> (usize, &'a str) {
        let whole = |(len, _): &(usize, &str)| text.is_char_boundary(*len);
        self.prefixes(text).filter(whole).last().unwrap_or_else(|| {
            let len = text.chars().next().map_or(0, char::len_utf8);
            (len, &text[..len])
        })
    }

    /// As the `tokenizers` library: graphemes as a whole, then their letters; the shortest prefix stands for all of it.
    pub(super) fn graphemes(&self, text: &str, out: &mut String) {
        for grapheme in text.graphemes(true) {
            let short = grapheme.len() <= LONGEST_GRAPHEME;
            if let Some((_, replaced)) = self.prefixes(grapheme).next().filter(|_| short) {
                out.push_str(replaced);
                continue;
            }
            for c in grapheme.chars() {
                let mut buffer = [0; 4];
                let letter = c.encode_utf8(&mut buffer);
                let replaced = self.prefixes(letter).next().map(|(_, replaced)| replaced);
                out.push_str(replaced.unwrap_or(letter));
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A trie of single bytes, each at its own place: `a` -> "x", `b` -> "", `c` leads on to `d`: "cd" -> "yz".
    pub(in super::super) fn sample() -> Vec<u8> {
        let mut units = vec![0u32; 1024];
        units[0] = 256 << 10;
        let mut edge = |node: usize, byte: u8, next: usize, value: Option<u32>| {
            let at = node ^ usize::from(byte);
            units[at] =
                u32::from(byte) | u32::from(value.is_some()) << 8 | u32::try_from(at ^ next).unwrap() << 10;
            if let Some(value) = value {
                units[next] = value | 1 << 31;
            }
        };
        edge(256, b'a', 512, Some(0));
        edge(256, b'b', 513, Some(2));
        edge(256, b'c', 768, None);
        edge(768, b'd', 514, Some(3));
        let mut bytes = 4096u32.to_le_bytes().to_vec();
        bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend(b"x\0\0yz\0");
        bytes
    }

    #[test]
    fn letters_and_longest_prefixes() {
        let map = Charsmap::new(&sample()).unwrap();
        assert_eq!(map.longest("abc"), (1, "x"));
        assert_eq!(map.longest("b"), (1, ""));
        assert_eq!(map.longest("cde"), (2, "yz"));
        assert_eq!(map.longest("ca"), (1, "c"));
        assert_eq!(map.longest("中"), (3, "中"));
        assert_eq!(map.longest(""), (0, ""));
        let mut out = String::new();
        map.graphemes("abcd中", &mut out);
        assert_eq!(out, "xcd中");
    }

    #[test]
    fn damaged_tables_never_panic() {
        let whole = sample();
        for bad in [&[][..], &[1, 0, 0, 0, 0], &[0xff; 64], &whole[..100]] {
            assert!(Charsmap::new(bad).is_err());
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xa5;
            if let Ok(map) = Charsmap::new(&damaged) {
                let mut out = String::new();
                map.graphemes("abcdé中\0", &mut out);
                map.longest("cdab");
            }
        }
    }
}
