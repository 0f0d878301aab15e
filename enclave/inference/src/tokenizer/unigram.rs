//! SentencePiece unigram (T5, XLM-R, multilingual E5 and BGE): the cut of the text whose tokens are likeliest together.

use super::TokenizerError;
use super::vocabulary::{TokenKind, Vocabulary};

/// What an unknown letter costs beyond the unlikeliest token.
const UNKNOWN_PENALTY: f64 = 10.0;
/// Longest token, bytes: bounds the work at each place of a text.
const MAX_TOKEN: usize = 4096;

#[derive(Debug)]
pub(super) struct Unigram {
    /// Tokens that are searched for, by their bytes.
    sorted: Vec<u32>,
    /// Logarithms of probabilities by id.
    scores: Vec<f64>,
    unknown_score: f64,
    byte_fallback: bool,
}

/// How the best cut of a text up to some place ends.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    start: usize,
    /// `None`: an unknown letter.
    token: Option<u32>,
}

impl Unigram {
    /// `searched` says which tokens texts are cut into; control tokens are none.
    pub(super) fn new(
        v: &Vocabulary,
        scores: Vec<f64>,
        searched: impl Fn(u32) -> bool,
        byte_fallback: bool,
    ) -> Result<Self, TokenizerError> {
        let known = |token: &u32| {
            // Of several tokens with one text the last.
            searched(*token) && !v.text(*token).is_empty() && v.id(v.text(*token)) == Some(*token)
        };
        let mut sorted: Vec<u32> = (0u32..).take(scores.len().min(v.len())).filter(known).collect();
        if sorted.iter().any(|token| v.text(*token).len() > MAX_TOKEN) {
            return Err(TokenizerError::Vocabulary("a token longer than any model has"));
        }
        sorted.sort_by_key(|token| v.text(*token));
        let least = scores
            .iter()
            .zip(0u32..)
            .filter(|(_, token)| !matches!(v.kind(*token), TokenKind::Control | TokenKind::Byte))
            .map(|(score, _)| *score)
            .fold(f64::INFINITY, f64::min);
        let least = if least.is_finite() { least } else { 0.0 };
        Ok(Self { sorted, scores, unknown_score: least - UNKNOWN_PENALTY, byte_fallback })
    }

    /// Calls `found` with every token that begins `text` and its length.
    fn prefixes(&self, v: &Vocabulary, text: &str, mut found: impl FnMut(usize, u32)) {
        let mut range = self.sorted.as_slice();
        for (depth, byte) in text.bytes().enumerate() {
            let at = |token: &u32| v.text(*token).as_bytes().get(depth).copied();
            range = &range[range.partition_point(|token| at(token) < Some(byte))..];
            range = &range[..range.partition_point(|token| at(token) <= Some(byte))];
            match range.first() {
                None => return,
                Some(token) if v.text(*token).len() == depth + 1 => found(depth + 1, *token),
                Some(_) => {}
            }
        }
    }

    pub(super) fn encode(&self, v: &Vocabulary, text: &str, out: &mut Vec<u32>) {
        let mut best: Vec<Option<Best>> = vec![None; text.len() + 1];
        for (start, c) in text.char_indices() {
            let before =
                if start == 0 { 0.0 } else { best[start].map_or(f64::NEG_INFINITY, |best| best.score) };
            let mut offer = |end: usize, score: f64, token: Option<u32>| {
                let place = &mut best[end];
                if place.is_none_or(|best| before + score > best.score) {
                    *place = Some(Best { score: before + score, start, token });
                }
            };
            let mut single = false;
            self.prefixes(v, &text[start..], |len, token| {
                let user = v.kind(token) == TokenKind::UserDefined;
                let score =
                    if user { 0.0 } else { self.scores.get(token as usize).copied().unwrap_or_default() };
                offer(start + len, score, Some(token));
                single |= len == c.len_utf8();
            });
            if !single {
                offer(start + c.len_utf8(), self.unknown_score, None);
            }
        }
        let mut pieces = Vec::new();
        let mut end = text.len();
        while let Some(piece) = best[end].filter(|_| end > 0) {
            pieces.push((piece.start, end, piece.token.filter(|token| v.kind(*token) != TokenKind::Unknown)));
            end = piece.start;
        }
        // Unknown letters beside each other are one unknown token.
        let mut after_unknown = false;
        for (start, end, token) in pieces.into_iter().rev() {
            match token {
                Some(token) => out.push(token),
                None if self.byte_fallback => self.bytes(v, &text[start..end], out),
                None if after_unknown => {}
                None => out.extend(v.unknown),
            }
            after_unknown = token.is_none();
        }
    }

    /// The tokens of the bytes, or the unknown token if one is missing.
    fn bytes(&self, v: &Vocabulary, text: &str, out: &mut Vec<u32>) {
        let tokens: Option<Vec<u32>> = text.bytes().map(|byte| v.byte(byte)).collect();
        match tokens {
            Some(tokens) => out.extend(tokens),
            None => out.extend(v.unknown),
        }
    }
}
