//! WordPiece (BERT, MiniLM, BGE): words are cut into the longest known pieces from the left.
//!
//! In GGUF the first piece of a word carries a leading U+2581 and the others nothing. Text is brought to the form of
//! uncased models: decomposed, marks removed, lower case.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::detokenize::ESCAPED_SPACE;
use super::vocabulary::Vocabulary;

/// Longer words are unknown as a whole, as in the original.
const MAX_WORD_CHARS: usize = 100;

#[derive(Debug)]
pub(super) struct WordPiece {
    /// Longest token, bytes.
    longest: usize,
    /// Whether text becomes lower case and loses its accents.
    uncased: bool,
}

impl WordPiece {
    pub(super) fn new(v: &Vocabulary, uncased: bool) -> Self {
        Self { longest: (0u32..).take(v.len()).map(|token| v.text(token).len()).max().unwrap_or(0), uncased }
    }

    pub(super) fn encode(&self, v: &Vocabulary, text: &str, out: &mut Vec<u32>) {
        for word in words(text, self.uncased) {
            if word.chars().count() > MAX_WORD_CHARS || !self.word(v, &format!("{ESCAPED_SPACE}{word}"), out)
            {
                out.extend(v.unknown);
            }
        }
    }

    /// Appends the pieces of a word; appends nothing and returns false if a part is unknown.
    fn word(&self, v: &Vocabulary, word: &str, out: &mut Vec<u32>) -> bool {
        let before = out.len();
        let mut rest = word;
        while !rest.is_empty() {
            let ends = (1..=rest.len().min(self.longest)).rev().filter(|end| rest.is_char_boundary(*end));
            let found = ends.filter_map(|end| v.id(&rest[..end]).map(|id| (id, end))).next();
            let Some((id, end)) = found else {
                out.truncate(before);
                return false;
            };
            out.push(id);
            rest = &rest[end..];
        }
        true
    }
}

/// Words and single punctuation marks of a text.
fn words(text: &str, uncased: bool) -> Vec<String> {
    if uncased {
        split(text.nfd().filter(|c| !is_mark(*c)).flat_map(char::to_lowercase))
    } else {
        split(text.chars())
    }
}

fn split(chars: impl Iterator<Item = char>) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in chars {
        if c.is_whitespace() {
            words.push(String::new());
        } else if c == '\u{fffd}' || is_control(c) {
            // Dropped.
        } else if is_punctuation(c) || is_ideograph(c) {
            words.push(c.to_string());
            words.push(String::new());
        } else if let Some(word) = words.last_mut() {
            word.push(c);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Nonspacing marks; spacing ones stay.
fn is_mark(c: char) -> bool {
    use unicode_general_category::{GeneralCategory, get_general_category};
    is_combining_mark(c) && get_general_category(c) == GeneralCategory::NonspacingMark
}

fn is_control(c: char) -> bool {
    use unicode_general_category::{GeneralCategory as G, get_general_category};
    matches!(get_general_category(c), G::Control | G::Format | G::PrivateUse | G::Surrogate | G::Unassigned)
}

/// ASCII symbols count as punctuation too.
fn is_punctuation(c: char) -> bool {
    use unicode_general_category::{GeneralCategory as G, get_general_category};
    c.is_ascii_punctuation()
        || matches!(
            get_general_category(c),
            G::ConnectorPunctuation
                | G::DashPunctuation
                | G::OpenPunctuation
                | G::ClosePunctuation
                | G::InitialPunctuation
                | G::FinalPunctuation
                | G::OtherPunctuation
        )
}

/// The blocks of CJK ideographs, each of which is a word.
fn is_ideograph(c: char) -> bool {
    matches!(u32::from(c),
        0x4e00..=0x9fff | 0x3400..=0x4dbf | 0x2_0000..=0x2_a6df | 0x2_a700..=0x2_b73f | 0x2_b740..=0x2_b81f
        | 0x2_b820..=0x2_ceaf | 0xf900..=0xfaff | 0x2_f800..=0x2_fa1f)
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn words_of_uncased_models() {
        assert_eq!(words("Äpfel, naïve\u{0}  $5 中文", true), ["apfel", ",", "naive", "$", "5", "中", "文"]);
        assert_eq!(words("Äpfel Naïve", false), ["Äpfel", "Naïve"]);
        assert_eq!(words(" \t\n", true), [""; 0]);
    }
}
