//! WordPiece (BERT, MiniLM, BGE): words are cut into the longest known pieces from the left.
//!
//! In GGUF the first piece of a word carries a leading U+2581 and the others nothing. For uncased models text is decomposed,
//! its marks are removed, and it becomes lower case.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::detokenize::ESCAPED_SPACE;
use super::vocabulary::Vocabulary;

/// Longer words are unknown as a whole, as in the original.
const MAX_WORD_CHARS: usize = 100;

/// How a text is brought to the form the vocabulary was made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cleaning {
    pub(super) lowercase: bool,
    pub(super) strip_accents: bool,
    /// Whether each CJK ideograph is a word.
    pub(super) ideographs_apart: bool,
}

#[derive(Debug)]
pub(super) struct WordPiece {
    /// Longest token, bytes.
    longest: usize,
    cleaning: Cleaning,
}

impl WordPiece {
    pub(super) fn new(v: &Vocabulary, cleaning: Cleaning) -> Self {
        let longest = (0u32..).take(v.len()).map(|token| v.text(token).len()).max().unwrap_or(0);
        Self { longest, cleaning }
    }

    pub(super) fn encode(&self, v: &Vocabulary, text: &str, out: &mut Vec<u32>) {
        for word in words(text, self.cleaning) {
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
fn words(text: &str, cleaning: Cleaning) -> Vec<String> {
    let apart = cleaning.ideographs_apart;
    match (cleaning.strip_accents, cleaning.lowercase) {
        (true, true) => split(text.nfd().filter(|c| !is_mark(*c)).flat_map(char::to_lowercase), apart),
        (true, false) => split(text.nfd().filter(|c| !is_mark(*c)), apart),
        (false, true) => split(text.chars().flat_map(char::to_lowercase), apart),
        (false, false) => split(text.chars(), apart),
    }
}

fn split(chars: impl Iterator<Item = char>, ideographs_apart: bool) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in chars {
        if c.is_whitespace() {
            words.push(String::new());
        } else if c == '\u{fffd}' || is_control(c) {
            // Dropped.
        } else if is_punctuation(c) || (ideographs_apart && is_ideograph(c)) {
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
    use super::{Cleaning, words};

    #[test]
    fn words_are_cleaned_as_the_model_wants_them() {
        let uncased = Cleaning { lowercase: true, strip_accents: true, ideographs_apart: true };
        let cased = Cleaning { lowercase: false, strip_accents: false, ..uncased };
        assert_eq!(
            words("Äpfel, naïve\u{0}  $5 中文", uncased),
            ["apfel", ",", "naive", "$", "5", "中", "文"]
        );
        assert_eq!(words("Äpfel Naïve", cased), ["Äpfel", "Naïve"]);
        assert_eq!(words("Äpfel", Cleaning { strip_accents: false, ..uncased }), ["äpfel"]);
        assert_eq!(words("Äpfel", Cleaning { lowercase: false, ..uncased }), ["Apfel"]);
        assert_eq!(words("a中文", Cleaning { ideographs_apart: false, ..cased }), ["a中文"]);
        assert_eq!(words(" \t\n", uncased), [""; 0]);
    }
}
