//! Cutting special tokens out of a text.

use super::vocabulary::{TokenKind, Vocabulary};

/// Part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// To be tokenised.
    Text(&'a str),
    /// A special token stood here.
    Token(u32),
}

/// Tokens that are looked for in texts, longest first.
#[derive(Debug)]
pub(super) struct Special {
    tokens: Vec<u32>,
    /// Tokens that take the whitespace before them.
    strips_left: Vec<u32>,
    /// Tokens that take the whitespace after them.
    strips_right: Vec<u32>,
}

impl Special {
    pub(super) fn new(v: &Vocabulary, strips_left: Vec<u32>, strips_right: Vec<u32>) -> Self {
        let mut tokens: Vec<u32> = (0u32..).take(v.len()).filter(|token| wanted(v, *token)).collect();
        tokens.sort_by_key(|token| std::cmp::Reverse(v.text(*token).len()));
        Self { tokens, strips_left, strips_right }
    }

    /// For GGUF files, which do not say what is stripped: Phi-3's tokens take the whitespace after them.
    pub(super) fn of_gguf(v: &Vocabulary, model_name: &str) -> Self {
        let name = model_name.to_lowercase();
        let phi_3 = name.contains("phi-3") || name.contains("phi3");
        let strips = |token: &u32| {
            phi_3 && wanted(v, *token) && !matches!(v.text(*token), "<unk>" | "<s>" | "<|endoftext|>")
        };
        let strips_right = (0u32..).take(v.len()).filter(strips).collect();
        Self::new(v, Vec::new(), strips_right)
    }

    /// The pieces of a text in order. User-defined tokens are always found, the others if `parse` is set.
    pub(super) fn split<'a>(&self, v: &Vocabulary, text: &'a str, parse: bool) -> Vec<Piece<'a>> {
        let mut pieces = vec![Piece::Text(text)];
        for token in &self.tokens {
            let needle = v.text(*token);
            let wanted = parse || v.kind(*token) == TokenKind::UserDefined;
            if !wanted || !text.contains(needle) {
                continue;
            }
            let (left, right) = (self.strips_left.contains(token), self.strips_right.contains(token));
            let mut next = Vec::with_capacity(pieces.len());
            for piece in pieces {
                let Piece::Text(mut rest) = piece else {
                    next.push(piece);
                    continue;
                };
                while let Some((before, after)) = rest.split_once(needle) {
                    next.push(Piece::Text(if left { before.trim_end() } else { before }));
                    next.push(Piece::Token(*token));
                    rest = if right { after.trim_start() } else { after };
                }
                next.push(Piece::Text(rest));
            }
            pieces = next;
        }
        pieces.retain(|piece| *piece != Piece::Text(""));
        pieces
    }
}

fn wanted(v: &Vocabulary, token: u32) -> bool {
    !v.text(token).is_empty()
        && matches!(v.kind(token), TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown)
}
