//! SentencePiece-style BPE (Llama 2, Mistral, Gemma, Phi-3): the pair that makes the best-scored token is merged first.

use adyton_model::gguf::Gguf;

use super::TokenizerError;
use super::detokenize::ESCAPED_SPACE;
use super::merge::{NONE, merge};
use super::vocabulary::{TokenKind, Vocabulary};

#[derive(Debug)]
pub(super) struct SentencePiece {
    pub(super) add_space_prefix: bool,
}

/// Orders scores from high to low as unsigned numbers from low to high.
fn rank(score: f32) -> u32 {
    let bits = score.to_bits();
    // The usual total order: negative floats reversed, positive ones above them; then upside down.
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

impl SentencePiece {
    pub(super) fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, TokenizerError> {
        Ok(Self { add_space_prefix: gguf.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true) })
    }

    /// `start` says that nothing or a special token stands before the text.
    pub(super) fn encode(&self, v: &Vocabulary, text: &str, start: bool, out: &mut Vec<u32>) {
        let mut escaped = String::with_capacity(text.len() + 3);
        if self.add_space_prefix && start {
            escaped.push_str(ESCAPED_SPACE);
        }
        for c in text.chars() {
            if c == ' ' { escaped.push_str(ESCAPED_SPACE) } else { escaped.push(c) }
        }
        let symbols = escaped.char_indices().map(|(at, c)| (at, at + c.len_utf8(), NONE));
        let merged = merge(symbols, |a, b| {
            let id = v.id(&escaped[a.start..b.end])?;
            Some((rank(v.score(id)), id))
        });
        for symbol in merged {
            let text = &escaped[symbol.start..symbol.end];
            match v.id(text).filter(|id| v.kind(*id) != TokenKind::Unused || symbol.id != NONE) {
                Some(id) => out.push(id),
                None => out.extend(text.bytes().filter_map(|byte| v.byte(byte).or(v.unknown))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn high_scores_come_first() {
        let scores = [5.0, 0.5, 0.0, -0.25, -1.0, -1e9];
        assert!(scores.map(rank).is_sorted());
    }
}
