//! Byte-level BPE (GPT-2, Llama 3, Qwen) and its relative on plain text (Gemma 4).

use std::collections::HashMap;

use adyton_model::gguf::Gguf;
use fancy_regex::Regex;

use super::merge::{NONE, merge};
use super::patterns::{compile, patterns, whole_words};
use super::vocabulary::Vocabulary;
use super::{TokenizerError, detokenize::ESCAPED_SPACE};

/// Most merges taken; the largest files have half a million.
const MAX_MERGES: usize = 1 << 21;

#[derive(Debug)]
pub(super) struct Bpe {
    patterns: Vec<Regex>,
    whole_words: bool,
    /// Bytes are written as printable letters in the vocabulary.
    byte_encoded: bool,
    /// Ranks and results of pairs of symbols.
    merges: HashMap<(u32, u32), (u32, u32)>,
    /// Numbers of symbols that occur in merges but are no tokens; they follow the tokens' numbers.
    extra: HashMap<Box<str>, u32>,
}

/// The letter that stands for a byte: itself where it is printable, else the next free one from U+0100 on.
pub(super) fn letter(byte: u8) -> char {
    match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        0..=0x20 => char::from_u32(0x100 + u32::from(byte)).unwrap_or_default(),
        0x7f..=0xa0 => char::from_u32(0x100 + 33 + u32::from(byte - 0x7f)).unwrap_or_default(),
        0xad => '\u{143}',
    }
}

/// The byte a letter stands for.
pub(super) fn byte(letter: char) -> Option<u8> {
    match u32::from(letter) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => u8::try_from(code).ok(),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

impl Bpe {
    pub(super) fn from_gguf(gguf: &Gguf<'_>, v: &Vocabulary, model: &str) -> Result<Self, TokenizerError> {
        let pre = gguf.text("tokenizer.ggml.pre")?.unwrap_or_default();
        let list = gguf.require("tokenizer.ggml.merges")?.as_array().and_then(|array| array.strings());
        let list = list.ok_or(TokenizerError::Vocabulary("merges are no strings"))?;
        let byte_encoded = model == "gpt2";
        let patterns = if byte_encoded { patterns(pre) } else { vec!["[^\n]+|\n+"] };
        // The first space that is not the first letter: symbols of plain text may be spaces.
        let pair = |pair: &str| {
            let at = pair.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
            at.map(|at| (pair[..at].to_owned(), pair[at + 1..].to_owned()))
        };
        let pairs: Option<Vec<_>> = list.into_iter().map(pair).collect();
        let pairs = pairs.ok_or(TokenizerError::Vocabulary("a merge without two symbols"))?;
        let patterns = patterns.into_iter().map(compile).collect::<Result<_, _>>()?;
        Self::new(v, patterns, &pairs, whole_words(pre), byte_encoded)
    }

    /// `merges`: pairs of symbols, best first.
    pub(super) fn new(
        v: &Vocabulary,
        patterns: Vec<Regex>,
        merges: &[(String, String)],
        whole_words: bool,
        byte_encoded: bool,
    ) -> Result<Self, TokenizerError> {
        if merges.len() > MAX_MERGES {
            return Err(TokenizerError::Vocabulary("more merges than any model has"));
        }
        let (all, extra) = (HashMap::with_capacity(merges.len()), HashMap::new());
        let mut bpe = Self { patterns, whole_words, byte_encoded, merges: all, extra };
        for (rank, (a, b)) in (0u32..).zip(merges) {
            let key = (bpe.number(v, a), bpe.number(v, b));
            let merged = bpe.number(v, &format!("{a}{b}"));
            bpe.merges.entry(key).or_insert((rank, merged));
        }
        Ok(bpe)
    }

    /// The number of a symbol, given one if it has none.
    fn number(&mut self, v: &Vocabulary, text: &str) -> u32 {
        if let Some(id) = v.id(text) {
            return id;
        }
        let next = u32::try_from(v.len() + self.extra.len()).unwrap_or(NONE);
        *self.extra.entry(Box::from(text)).or_insert(next)
    }

    pub(super) fn byte_encoded(&self) -> bool {
        self.byte_encoded
    }

    pub(super) fn encode(
        &self,
        v: &Vocabulary,
        text: &str,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let escaped;
        let text = if self.byte_encoded {
            text
        } else {
            escaped = text.replace(' ', ESCAPED_SPACE);
            &escaped
        };
        let mut words = vec![text];
        for pattern in &self.patterns {
            let mut next = Vec::with_capacity(words.len());
            for word in words {
                split(pattern, word, &mut next)?;
            }
            words = next;
        }
        let mut letters = String::new();
        for word in words {
            letters.clear();
            if self.byte_encoded {
                letters.extend(word.bytes().map(letter));
            } else {
                letters.push_str(word);
            }
            self.word(v, &letters, out);
        }
        Ok(())
    }

    /// Appends the tokens of one word, whose bytes are letters already where they are to be.
    pub(super) fn word(&self, v: &Vocabulary, letters: &str, out: &mut Vec<u32>) {
        if self.whole_words
            && let Some(id) = v.id(letters)
        {
            out.push(id);
            return;
        }
        let number = |text: &str| v.id(text).or_else(|| self.extra.get(text).copied()).unwrap_or(NONE);
        let symbols = letters.char_indices().map(|(start, c)| {
            let end = start + c.len_utf8();
            (start, end, number(&letters[start..end]))
        });
        let pair =
            |a: u32, b: u32| if a == NONE || b == NONE { None } else { self.merges.get(&(a, b)).copied() };
        for symbol in merge(symbols, |a, b| pair(a.id, b.id)) {
            if (symbol.id as usize) < v.len() {
                out.push(symbol.id);
                continue;
            }
            // No token: its letters, then its bytes, then nothing at all.
            for c in letters[symbol.start..symbol.end].chars() {
                let mut buffer = [0; 4];
                let text = c.encode_utf8(&mut buffer);
                match v.id(text) {
                    Some(id) => out.push(id),
                    None => out.extend(text.bytes().filter_map(|byte| v.byte(byte).or(v.unknown))),
                }
            }
        }
    }
}

/// Matches and what lies between them, in order.
fn split<'a>(pattern: &Regex, text: &'a str, out: &mut Vec<&'a str>) -> Result<(), TokenizerError> {
    let mut last = 0;
    for found in pattern.find_iter(text) {
        let found = found.map_err(Box::new)?;
        if found.start() > last {
            out.push(&text[last..found.start()]);
        }
        if found.end() > found.start() {
            out.push(found.as_str());
        }
        last = found.end();
    }
    if last < text.len() {
        out.push(&text[last..]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_letter() {
        let letters: std::collections::BTreeSet<char> = (0..=255).map(letter).collect();
        assert_eq!(letters.len(), 256);
        for b in 0..=255 {
            assert_eq!(byte(letter(b)), Some(b));
        }
        assert_eq!((letter(b' '), letter(b'\n'), letter(0x7f)), ('Ġ', 'Ċ', 'ġ'));
        assert_eq!(byte('中'), None);
    }

    #[test]
    fn every_pattern_compiles() {
        for pre in [
            "",
            "llama-bpe",
            "qwen2",
            "qwen35",
            "tekken",
            "gpt-4o",
            "deepseek-llm",
            "deepseek-coder",
            "deepseek-v3",
            "falcon",
            "smollm",
            "gpt-2",
        ] {
            for pattern in patterns(pre) {
                Regex::new(pattern).unwrap();
            }
        }
    }

    #[test]
    fn words_of_qwen() {
        let pattern = Regex::new(patterns("qwen2")[0]).unwrap();
        let mut words = Vec::new();
        split(&pattern, "I'LL say  hello\n\n  123 ...\r\n x", &mut words).unwrap();
        let want = ["I", "'LL", " say", " ", " hello", "\n\n", " ", " ", "1", "2", "3", " ...\r\n", " x"];
        assert_eq!(words, want);
    }
}
