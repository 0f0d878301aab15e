//! Tokens back to text, also one at a time.

use std::fmt;

use super::Tokenizer;
use super::bpe;
use super::vocabulary::{TokenKind, byte_of};

/// U+2581, which stands for a space in SentencePiece vocabularies.
pub(super) const ESCAPED_SPACE: &str = "\u{2581}";

pub(super) fn token_bytes(tokenizer: &Tokenizer, token: u32, special: bool) -> Vec<u8> {
    let v = &tokenizer.vocabulary;
    let text = v.text(token);
    match v.kind(token) {
        TokenKind::Control | TokenKind::Unknown | TokenKind::Unused => {
            if special {
                text.as_bytes().to_vec()
            } else {
                Vec::new()
            }
        }
        TokenKind::Byte => byte_of(text).map_or_else(|| text.as_bytes().to_vec(), |byte| vec![byte]),
        TokenKind::UserDefined if tokenizer.byte_encoded() => text.as_bytes().to_vec(),
        TokenKind::Normal | TokenKind::UserDefined if tokenizer.byte_encoded() => {
            let mut bytes = Vec::with_capacity(text.len());
            for c in text.chars() {
                match bpe::byte(c) {
                    Some(byte) => bytes.push(byte),
                    None => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
                }
            }
            bytes
        }
        TokenKind::Normal | TokenKind::UserDefined => text.replace(ESCAPED_SPACE, " ").into_bytes(),
    }
}

/// Turns tokens into text as they come. What is given out is always whole characters: bytes that may still become one
/// wait, bytes that cannot become one turn into U+FFFD. `Debug` tells how many wait.
#[derive(Clone, Default)]
pub struct Detokenizer {
    waiting: Vec<u8>,
    special: bool,
    started: bool,
}

impl fmt::Debug for Detokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Detokenizer({} bytes wait)", self.waiting.len())
    }
}

impl Detokenizer {
    /// `special`: write control tokens too.
    #[must_use]
    pub fn new(special: bool) -> Self {
        Self { waiting: Vec::new(), special, started: false }
    }

    /// The text that `token` completes; often empty.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> String {
        let bytes = token_bytes(tokenizer, token, self.special);
        // The space that encoding put in front of the text.
        let strip = !self.started && tokenizer.strips_leading_space() && bytes.first() == Some(&b' ');
        self.started |= !bytes.is_empty();
        self.waiting.extend_from_slice(&bytes[usize::from(strip)..]);
        self.take(false)
    }

    /// What still waits, at the end of the text.
    pub fn finish(&mut self) -> String {
        self.take(true)
    }

    fn take(&mut self, all: bool) -> String {
        let mut text = String::new();
        let mut rest = 0;
        loop {
            match std::str::from_utf8(&self.waiting[rest..]) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = self.waiting.len();
                    break;
                }
                Err(error) => {
                    let valid = rest + error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&self.waiting[rest..valid]));
                    rest = valid;
                    match error.error_len() {
                        None if !all => break,
                        length => {
                            text.push('\u{fffd}');
                            rest += length.unwrap_or(self.waiting.len() - rest);
                        }
                    }
                }
            }
        }
        self.waiting.drain(..rest);
        text
    }
}
