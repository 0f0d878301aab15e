//! Text to tokens and back.
//!
//! What: byte-level BPE, SentencePiece-style BPE and WordPiece vocabularies of GGUF files. Why: the model's numbers mean
//! nothing without exactly the tokens it was trained on. Flow: special tokens are cut out of the text; the pieces
//! between them are normalised, split and merged. Trust: the vocabulary is a stranger's; every id is looked at before
//! use, and memory grows with the file and the text only.

mod bpe;
mod detokenize;
mod merge;
mod patterns;
mod sentencepiece;
mod special;
mod vocabulary;
mod wordpiece;

pub use detokenize::Detokenizer;
pub use vocabulary::{TokenKind, Vocabulary};

use adyton_model::encoder::WordPieceFile;
use adyton_model::gguf::{Gguf, GgufError};

use special::{Piece, Special};

/// Why a vocabulary was refused or a text not tokenised.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The metadata itself.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A kind of vocabulary nobody here knows.
    #[error("tokenizer model `{0}` is not known; gpt2, llama and bert are")]
    Model(String),
    /// Arrays of different lengths, too many tokens, or none.
    #[error("the vocabulary is inconsistent: {0}")]
    Vocabulary(&'static str),
    /// A special token id outside the vocabulary.
    #[error("metadata key `{key}` names token {id}, but there are {len}")]
    Id {
        /// The key.
        key: &'static str,
        /// The id.
        id: u64,
        /// Size of the vocabulary.
        len: usize,
    },
    /// The pattern that splits text into words gave up.
    #[error("splitting the text into words: {0}")]
    Split(#[from] Box<fancy_regex::Error>),
}

/// What to do with special tokens when encoding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Encode {
    /// Put the tokens around the text that the model expects at its beginning and end.
    pub add_special: bool,
    /// Turn the text of control tokens (`<|im_start|>`) into these tokens. Only for text made by us, such as a chat
    /// template; never for what a stranger wrote.
    pub parse_special: bool,
}

#[derive(Debug)]
enum Algorithm {
    Bpe(bpe::Bpe),
    SentencePiece(sentencepiece::SentencePiece),
    WordPiece(wordpiece::WordPiece),
}

/// A vocabulary with the algorithm that applies it.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    special: Special,
    algorithm: Algorithm,
}

impl Tokenizer {
    /// Reads the vocabulary of a GGUF file.
    ///
    /// # Errors
    /// Unknown kinds and inconsistent metadata.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, TokenizerError> {
        let model = gguf.text("tokenizer.ggml.model")?.unwrap_or_default();
        let vocabulary = Vocabulary::from_gguf(gguf, model)?;
        let algorithm = match model {
            "gpt2" | "gemma4" => Algorithm::Bpe(bpe::Bpe::from_gguf(gguf, &vocabulary, model)?),
            "llama" => Algorithm::SentencePiece(sentencepiece::SentencePiece::from_gguf(gguf)?),
            "bert" => Algorithm::WordPiece(wordpiece::WordPiece::new(&vocabulary, true)),
            other => return Err(TokenizerError::Model(other.chars().take(64).collect())),
        };
        let name = gguf.text("general.name")?.unwrap_or_default();
        let special = Special::new(&vocabulary, name);
        Ok(Self { vocabulary, special, algorithm })
    }

    /// The vocabulary of an encoder's `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError::Vocabulary`].
    pub fn from_word_piece(file: &WordPieceFile) -> Result<Self, TokenizerError> {
        let vocabulary = Vocabulary::from_word_piece(file)?;
        let algorithm = Algorithm::WordPiece(wordpiece::WordPiece::new(&vocabulary, file.uncased));
        Ok(Self { special: Special::new(&vocabulary, ""), vocabulary, algorithm })
    }

    /// The tokens and what they are.
    #[must_use]
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// Tokens of a text.
    ///
    /// # Errors
    /// [`TokenizerError::Split`] for texts that the word pattern cannot be matched against in bounded time.
    pub fn encode(&self, text: &str, options: Encode) -> Result<Vec<u32>, TokenizerError> {
        let v = &self.vocabulary;
        let mut out = Vec::new();
        if options.add_special && v.add_bos {
            out.extend(v.bos);
        }
        let mut after_special = true;
        for piece in self.special.split(v, text, options.parse_special) {
            match piece {
                Piece::Token(token) => {
                    out.push(token);
                    after_special = true;
                }
                Piece::Text("") => {}
                Piece::Text(text) => {
                    match &self.algorithm {
                        Algorithm::Bpe(bpe) => bpe.encode(v, text, &mut out)?,
                        Algorithm::SentencePiece(spm) => spm.encode(v, text, after_special, &mut out),
                        Algorithm::WordPiece(wordpiece) => wordpiece.encode(v, text, &mut out),
                    }
                    after_special = false;
                }
            }
        }
        if options.add_special && v.add_eos {
            out.extend(v.eos_at_end);
        }
        Ok(out)
    }

    /// Bytes of one token. Control tokens have none unless `special` is set.
    #[must_use]
    pub fn token_bytes(&self, token: u32, special: bool) -> Vec<u8> {
        detokenize::token_bytes(self, token, special)
    }

    /// The text of tokens; broken UTF-8 becomes U+FFFD.
    #[must_use]
    pub fn decode(&self, tokens: &[u32], special: bool) -> String {
        let mut detokenizer = Detokenizer::new(special);
        let mut text: String = tokens.iter().map(|token| detokenizer.push(self, *token)).collect();
        text.push_str(&detokenizer.finish());
        text
    }

    fn strips_leading_space(&self) -> bool {
        matches!(&self.algorithm, Algorithm::SentencePiece(spm) if spm.add_space_prefix)
    }

    fn byte_encoded(&self) -> bool {
        matches!(&self.algorithm, Algorithm::Bpe(bpe) if bpe.byte_encoded())
    }
}
