//! The steps of a `tokenizer.json`: normalise the text, cut it into words, make tokens of them.

use adyton_model::tokenizer::{Behavior, Normalizer, Pattern, PreTokenizer, PrependScheme};
use base64::Engine;
use fancy_regex::Regex;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::TokenizerError;
use super::bpe::{Bpe, letter};
use super::charsmap::Charsmap;
use super::detokenize::ESCAPED_SPACE;
use super::patterns::{GPT_2, compile};
use super::unigram::Unigram;
use super::vocabulary::Vocabulary;

/// How much longer a text may become, times and bytes: no real step comes near, and a file's steps multiply.
const GROWTH: (usize, usize) = (64, 1 << 16);

/// A step on the text.
#[derive(Debug)]
enum Step {
    /// SentencePiece's own, from the metadata of GGUF files.
    SentencePiece {
        charsmap: Option<Charsmap>,
        add_prefix: bool,
        merge_spaces: bool,
    },
    Charsmap(Charsmap),
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
    Lowercase,
    StripAccents,
    Strip(bool, bool),
    Prepend(String),
    Replace(Finder, String),
}

/// What is looked for in a text.
#[derive(Debug)]
enum Finder {
    Text(String),
    Regex(Regex),
    Char(fn(char) -> bool),
}

/// A step that cuts words.
#[derive(Debug)]
enum Cut {
    Split {
        finder: Finder,
        behavior: Behavior,
        invert: bool,
    },
    Metaspace {
        replacement: char,
        scheme: PrependScheme,
        split: bool,
    },
    /// Every byte becomes its letter.
    Bytes {
        add_prefix: bool,
    },
}

/// What makes tokens of words.
#[derive(Debug)]
pub(super) enum Words {
    Bpe(Bpe),
    Unigram(Unigram),
}

#[derive(Debug)]
pub(super) struct Pipeline {
    steps: Vec<Step>,
    cuts: Vec<Cut>,
    words: Words,
}

/// A part of a text, and whether it stands at the beginning.
type Word = (String, bool);

impl Pipeline {
    pub(super) fn new(
        normalizers: &[Normalizer],
        pre_tokenizers: &[PreTokenizer],
        words: Words,
    ) -> Result<Self, TokenizerError> {
        let steps = normalizers.iter().filter_map(|step| self::step(step).transpose());
        let steps = steps.collect::<Result<_, _>>()?;
        let mut cuts = Vec::new();
        for pre_tokenizer in pre_tokenizers {
            cut(pre_tokenizer, &mut cuts)?;
        }
        Ok(Self { steps, cuts, words })
    }

    /// What SentencePiece does, as the metadata of a GGUF file says.
    pub(super) fn sentence_piece(
        charsmap: Option<Charsmap>,
        add_prefix: bool,
        merge_spaces: bool,
        unigram: Unigram,
    ) -> Self {
        let steps = vec![Step::SentencePiece { charsmap, add_prefix, merge_spaces }];
        Self { steps, cuts: Vec::new(), words: Words::Unigram(unigram) }
    }

    /// Whether tokens spell bytes as letters.
    pub(super) fn byte_encoded(&self) -> bool {
        self.cuts.iter().any(|cut| matches!(cut, Cut::Bytes { .. }))
    }

    /// Whether texts get a space in front that decoding takes away.
    pub(super) fn adds_prefix(&self) -> bool {
        let step = |step: &Step| match step {
            Step::SentencePiece { add_prefix, .. } => *add_prefix,
            Step::Prepend(text) => text == ESCAPED_SPACE,
            _ => false,
        };
        let cut = |cut: &Cut| {
            matches!(cut, Cut::Metaspace { replacement, scheme, .. }
                if *replacement != ' ' && *scheme != PrependScheme::Never)
        };
        self.steps.iter().any(step) || self.cuts.iter().any(cut)
    }

    /// `start`: nothing stands before the text.
    pub(super) fn encode(
        &self,
        v: &Vocabulary,
        text: &str,
        start: bool,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let max = text.len().saturating_mul(GROWTH.0).saturating_add(GROWTH.1);
        let mut text = text.to_owned();
        for step in &self.steps {
            text = step.apply(text, max)?;
        }
        // Nothing is left: not even the space in front.
        if text.is_empty() {
            return Ok(());
        }
        let mut words = vec![(text, start)];
        for cut in &self.cuts {
            let mut next = Vec::new();
            for word in words {
                cut.apply(word, &mut next)?;
            }
            next.retain(|(word, _)| !word.is_empty());
            words = next;
        }
        for (word, _) in &words {
            match &self.words {
                Words::Bpe(bpe) => bpe.word(v, word, out),
                Words::Unigram(unigram) => unigram.encode(v, word, out),
            }
        }
        Ok(())
    }
}

fn step(step: &Normalizer) -> Result<Option<Step>, TokenizerError> {
    Ok(Some(match step {
        Normalizer::Precompiled { precompiled_charsmap: None } => return Ok(None),
        Normalizer::Precompiled { precompiled_charsmap: Some(text) } if text.is_empty() => return Ok(None),
        Normalizer::Precompiled { precompiled_charsmap: Some(text) } => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            let bytes =
                bytes.map_err(|_| TokenizerError::Vocabulary("the table of replacements is not base64"))?;
            Step::Charsmap(Charsmap::new(&bytes)?)
        }
        Normalizer::Nfc => Step::Nfc,
        Normalizer::Nfd => Step::Nfd,
        Normalizer::Nfkc => Step::Nfkc,
        Normalizer::Nfkd => Step::Nfkd,
        Normalizer::Lowercase => Step::Lowercase,
        Normalizer::StripAccents => Step::StripAccents,
        Normalizer::Strip { strip_left, strip_right } => Step::Strip(*strip_left, *strip_right),
        Normalizer::Prepend { prepend } => Step::Prepend(prepend.clone()),
        Normalizer::Replace { pattern, content } => Step::Replace(finder(pattern)?, content.clone()),
        Normalizer::Sequence { .. } | Normalizer::BertNormalizer { .. } => {
            return Err(TokenizerError::Vocabulary("BertNormalizer goes with WordPiece only"));
        }
    }))
}

fn cut(step: &PreTokenizer, out: &mut Vec<Cut>) -> Result<(), TokenizerError> {
    let isolated = |finder: Finder, behavior: Behavior| Cut::Split { finder, behavior, invert: false };
    match step {
        PreTokenizer::WhitespaceSplit => {
            out.push(isolated(Finder::Char(char::is_whitespace), Behavior::Removed));
        }
        PreTokenizer::Metaspace { replacement, prepend_scheme, add_prefix_space, split } => {
            let scheme = match add_prefix_space {
                Some(false) => PrependScheme::Never,
                _ => *prepend_scheme,
            };
            out.push(Cut::Metaspace { replacement: *replacement, scheme, split: split.unwrap_or(true) });
        }
        PreTokenizer::Split { pattern, behavior, invert } => {
            out.push(Cut::Split { finder: finder(pattern)?, behavior: *behavior, invert: *invert });
        }
        PreTokenizer::Digits { individual_digits } => {
            let behavior = if *individual_digits { Behavior::Isolated } else { Behavior::Contiguous };
            out.push(isolated(Finder::Char(char::is_numeric), behavior));
        }
        PreTokenizer::ByteLevel { add_prefix_space, use_regex } => {
            let (add_prefix, bytes) = (*add_prefix_space, Cut::Bytes { add_prefix: false });
            if *use_regex {
                // The space comes first, so that the pattern sees it.
                if add_prefix {
                    out.push(Cut::Metaspace {
                        replacement: ' ',
                        scheme: PrependScheme::Always,
                        split: false,
                    });
                }
                out.push(isolated(Finder::Regex(compile(GPT_2)?), Behavior::Isolated));
                out.push(bytes);
            } else {
                out.push(Cut::Bytes { add_prefix });
            }
        }
        PreTokenizer::BertPreTokenizer | PreTokenizer::Sequence { .. } => {
            return Err(TokenizerError::Vocabulary("BertPreTokenizer goes with WordPiece only"));
        }
    }
    Ok(())
}

fn finder(pattern: &Pattern) -> Result<Finder, TokenizerError> {
    Ok(match pattern {
        Pattern::String(text) => Finder::Text(text.clone()),
        Pattern::Regex(text) => Finder::Regex(compile(text)?),
    })
}

impl Finder {
    /// Calls `found` with every match, in order, none empty.
    fn each(&self, text: &str, mut found: impl FnMut(usize, usize)) -> Result<(), TokenizerError> {
        match self {
            Self::Text(needle) if needle.is_empty() => {}
            Self::Text(needle) => {
                text.match_indices(needle.as_str())
                    .for_each(|(at, found_text)| found(at, at + found_text.len()));
            }
            Self::Char(wanted) => text
                .char_indices()
                .filter(|(_, c)| wanted(*c))
                .for_each(|(at, c)| found(at, at + c.len_utf8())),
            Self::Regex(regex) => {
                for place in regex.find_iter(text) {
                    let place = place.map_err(Box::new)?;
                    if place.end() > place.start() {
                        found(place.start(), place.end());
                    }
                }
            }
        }
        Ok(())
    }
}

impl Step {
    fn apply(&self, text: String, max: usize) -> Result<String, TokenizerError> {
        let text = match self {
            Self::SentencePiece { charsmap, add_prefix, merge_spaces } => {
                sentence_piece(charsmap.as_ref(), *add_prefix, *merge_spaces, &text)
            }
            Self::Charsmap(map) => {
                let mut out = String::with_capacity(text.len());
                map.graphemes(&text, &mut out);
                out
            }
            Self::Nfc => text.nfc().collect(),
            Self::Nfd => text.nfd().collect(),
            Self::Nfkc => text.nfkc().collect(),
            Self::Nfkd => text.nfkd().collect(),
            Self::Lowercase => text.chars().flat_map(char::to_lowercase).collect(),
            Self::StripAccents => text.chars().filter(|c| !is_combining_mark(*c)).collect(),
            Self::Strip(left, right) => {
                let text = if *left { text.trim_start() } else { &text };
                (if *right { text.trim_end() } else { text }).to_owned()
            }
            Self::Prepend(prefix) => {
                if text.is_empty() {
                    text
                } else {
                    format!("{prefix}{text}")
                }
            }
            Self::Replace(finder, content) => {
                let mut out = String::with_capacity(text.len());
                let mut last = 0;
                finder.each(&text, |start, end| {
                    // What is over is not built; the length below tells.
                    if out.len() <= max {
                        out.push_str(&text[last..start]);
                        out.push_str(content);
                    }
                    last = end;
                })?;
                out.push_str(&text[last..]);
                out
            }
        };
        if text.len() > max { Err(TokenizerError::Growth(max)) } else { Ok(text) }
    }
}

/// Replacements, then spaces: merged, escaped, and one in front.
fn sentence_piece(charsmap: Option<&Charsmap>, add_prefix: bool, merge: bool, text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 3);
    let (mut prefixed, mut in_word) = (false, false);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let first = c.len_utf8();
        let (len, replaced) = charsmap.map_or((first, &rest[..first]), |map| map.longest(rest));
        for c in replaced.chars() {
            if c == ' ' {
                in_word = false;
                if !merge {
                    out.push_str(ESCAPED_SPACE);
                }
                continue;
            }
            if !in_word {
                in_word = true;
                if (add_prefix && !prefixed) || merge {
                    out.push_str(ESCAPED_SPACE);
                    prefixed = true;
                }
            }
            out.push(c);
        }
        rest = &rest[len.max(1).min(rest.len())..];
    }
    out
}

impl Cut {
    fn apply(&self, (text, start): Word, out: &mut Vec<Word>) -> Result<(), TokenizerError> {
        match self {
            Self::Split { finder, behavior, invert } => {
                split(&text, start, finder, *behavior, *invert, out)?;
            }
            Self::Metaspace { replacement, scheme, split: cut } => {
                let mut text = text.replace(' ', replacement.encode_utf8(&mut [0; 4]));
                let wanted = match scheme {
                    PrependScheme::Always => true,
                    PrependScheme::First => start,
                    PrependScheme::Never => false,
                };
                if wanted && !text.starts_with(*replacement) {
                    text.insert(0, *replacement);
                }
                if *cut {
                    let finder = Finder::Text(replacement.to_string());
                    split(&text, start, &finder, Behavior::MergedWithNext, false, out)?;
                } else {
                    out.push((text, start));
                }
            }
            Self::Bytes { add_prefix } => {
                let prefix = if *add_prefix && !text.starts_with(' ') { " " } else { "" };
                out.push((prefix.bytes().chain(text.bytes()).map(letter).collect(), start));
            }
        }
        Ok(())
    }
}

/// Cuts a text at what the finder finds.
fn split(
    text: &str,
    start: bool,
    finder: &Finder,
    behavior: Behavior,
    invert: bool,
    out: &mut Vec<Word>,
) -> Result<(), TokenizerError> {
    // Everything in order: places and whether they are matches.
    let mut all: Vec<(usize, usize, bool)> = Vec::new();
    let mut last = 0;
    finder.each(text, |from, to| {
        if from > last {
            all.push((last, from, invert));
        }
        all.push((from, to, !invert));
        last = to;
    })?;
    if last < text.len() {
        all.push((last, text.len(), invert));
    }
    let mut places: Vec<(usize, usize)> = Vec::with_capacity(all.len());
    let mut previous = false;
    let ordered: Box<dyn Iterator<Item = _>> =
        if behavior == Behavior::MergedWithNext { Box::new(all.iter().rev()) } else { Box::new(all.iter()) };
    for (index, (from, to, matched)) in ordered.enumerate() {
        let joined = match behavior {
            Behavior::Removed if *matched => continue,
            Behavior::Removed | Behavior::Isolated => false,
            Behavior::MergedWithPrevious | Behavior::MergedWithNext => *matched && !previous,
            Behavior::Contiguous => index > 0 && *matched == previous,
        };
        previous = *matched;
        match places.last_mut().filter(|_| joined) {
            Some(place) if behavior == Behavior::MergedWithNext => place.0 = *from,
            Some(place) => place.1 = *to,
            None => places.push((*from, *to)),
        }
    }
    if behavior == Behavior::MergedWithNext {
        places.reverse();
    }
    out.extend(places.into_iter().map(|(from, to)| (text[from..to].to_owned(), start && from == 0)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(behavior: Behavior, invert: bool, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        split(text, true, &Finder::Text("-".into()), behavior, invert, &mut out).unwrap();
        out.into_iter().map(|(word, _)| word).collect()
    }

    #[test]
    fn splits_of_every_behavior() {
        // The example of the `tokenizers` library's documentation.
        let text = "the-final--countdown";
        assert_eq!(words(Behavior::Removed, false, text), ["the", "final", "countdown"]);
        assert_eq!(words(Behavior::Isolated, false, text), ["the", "-", "final", "-", "-", "countdown"]);
        assert_eq!(words(Behavior::MergedWithPrevious, false, text), ["the-", "final-", "-", "countdown"]);
        assert_eq!(words(Behavior::MergedWithNext, false, text), ["the", "-final", "-", "-countdown"]);
        assert_eq!(words(Behavior::Contiguous, false, text), ["the", "-", "final", "--", "countdown"]);
        assert_eq!(words(Behavior::Removed, true, text), ["-", "-", "-"]);
    }

    #[test]
    fn spaces_of_sentence_piece() {
        let text = "  two  words ";
        assert_eq!(sentence_piece(None, true, true, text), "▁two▁words");
        assert_eq!(sentence_piece(None, true, false, text), "▁▁▁two▁▁words▁");
        assert_eq!(sentence_piece(None, false, false, text), "▁▁two▁▁words▁");
        let map = Charsmap::new(&super::super::charsmap::tests::sample()).unwrap();
        assert_eq!(sentence_piece(Some(&map), true, true, "ab cd"), "▁x▁yz");
    }

    #[test]
    fn steps_that_blow_texts_up_are_refused() {
        let step = Step::Replace(Finder::Text("a".into()), "a".repeat(1 << 16));
        assert!(matches!(step.apply("a".repeat(100), 1000), Err(TokenizerError::Growth(1000))));
    }
}
