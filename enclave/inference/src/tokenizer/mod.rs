//! Text to tokens and back.
//!
//! What: byte-level BPE, SentencePiece-style BPE and unigram, and WordPiece, of GGUF files and `tokenizer.json`. Why: the
//! model's numbers mean nothing without exactly the tokens it was trained on. Flow: special tokens are cut out of the
//! text; the pieces between them are normalised, split and merged. Trust: the vocabulary is a stranger's; every id is looked at before
//! use, and memory grows with the file and the text only.

mod bpe;
mod charsmap;
mod detokenize;
mod merge;
mod patterns;
mod pipeline;
mod sentencepiece;
mod special;
mod unigram;
mod vocabulary;
mod wordpiece;

pub use detokenize::Detokenizer;
pub use vocabulary::{TokenKind, Vocabulary};

use std::fmt;

use adyton_model::gguf::{Gguf, GgufError, Value};
use adyton_model::tokenizer::{FileToken, Normalizer, Part, PreTokenizer, TokenModel, TokenizerFile};

use special::{Piece, Special};

/// Why a vocabulary was refused or a text not tokenised.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The metadata itself.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A kind of vocabulary nobody here knows.
    #[error("tokenizer model `{0}` is not known; gpt2, llama, t5 and bert are")]
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
    /// Normalising made a text far longer than it was.
    #[error("normalising the text gives over {0} bytes; the vocabulary is broken or hostile")]
    Growth(usize),
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
    Pipeline(pipeline::Pipeline),
}

/// A vocabulary with the algorithm that applies it. `Debug` tells how large it is: the tokens may be their owner's.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    special: Special,
    algorithm: Algorithm,
    /// What a pair of texts becomes.
    pair: Vec<Part>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.vocabulary.len())
    }
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
            "bert" => Algorithm::WordPiece(wordpiece::WordPiece::new(&vocabulary, cleaning_of_gguf(gguf)?)),
            "t5" => Algorithm::Pipeline(unigram_of_gguf(gguf, &vocabulary)?),
            other => return Err(TokenizerError::Model(other.chars().take(64).collect())),
        };
        let name = gguf.text("general.name")?.unwrap_or_default();
        let special = Special::of_gguf(&vocabulary, name);
        let pair = pair(&vocabulary, model == "t5");
        Ok(Self { vocabulary, special, algorithm, pair })
    }

    /// The vocabulary of a `tokenizer.json`. `eos`: the ids that `config.json` names as ends of an answer.
    ///
    /// # Errors
    /// Steps that are not computed here, and inconsistent tokens.
    pub fn from_file(file: &TokenizerFile, eos: &[u32]) -> Result<Self, TokenizerError> {
        if let TokenModel::WordPiece { unknown } = &file.model {
            return Self::from_word_piece(file, unknown);
        }
        let vocabulary = Vocabulary::from_file(file, eos)?;
        let words = match &file.model {
            TokenModel::Unigram { scores, byte_fallback, .. } => {
                let all = |_: u32| true;
                pipeline::Words::Unigram(unigram::Unigram::new(
                    &vocabulary,
                    scores.clone(),
                    all,
                    *byte_fallback,
                )?)
            }
            TokenModel::Bpe { merges, ignore_merges, .. } => {
                pipeline::Words::Bpe(bpe::Bpe::new(&vocabulary, Vec::new(), merges, *ignore_merges, false)?)
            }
            TokenModel::WordPiece { .. } => return Err(TokenizerError::Model("WordPiece".to_owned())),
        };
        let pipeline = pipeline::Pipeline::new(&file.normalizers, &file.pre_tokenizers, words)?;
        let strips = |left: bool| {
            let wanted = |token: &Option<FileToken>| {
                token.as_ref().is_some_and(|token| if left { token.strips_left } else { token.strips_right })
            };
            (0u32..).zip(&file.tokens).filter(|(_, token)| wanted(token)).map(|(id, _)| id).collect()
        };
        let special = Special::new(&vocabulary, strips(true), strips(false));
        let algorithm = Algorithm::Pipeline(pipeline);
        Ok(Self { vocabulary, special, algorithm, pair: file.pair.clone() })
    }

    fn from_word_piece(file: &TokenizerFile, unknown: &str) -> Result<Self, TokenizerError> {
        let vocabulary = Vocabulary::from_word_piece(file, unknown)?;
        let [Normalizer::BertNormalizer { clean_text: true, handle_chinese_chars, strip_accents, lowercase }] =
            file.normalizers.as_slice()
        else {
            return Err(TokenizerError::Vocabulary(
                "WordPiece goes with a BertNormalizer that cleans the text",
            ));
        };
        if !matches!(file.pre_tokenizers.as_slice(), [PreTokenizer::BertPreTokenizer]) {
            return Err(TokenizerError::Vocabulary("WordPiece goes with BertPreTokenizer"));
        }
        let cleaning = wordpiece::Cleaning {
            lowercase: *lowercase,
            strip_accents: strip_accents.unwrap_or(*lowercase),
            ideographs_apart: *handle_chinese_chars,
        };
        let algorithm = Algorithm::WordPiece(wordpiece::WordPiece::new(&vocabulary, cleaning));
        let special = Special::new(&vocabulary, Vec::new(), Vec::new());
        let pair = pair(&vocabulary, false);
        Ok(Self { vocabulary, special, algorithm, pair })
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
        self.append(text, options.parse_special, &mut out)?;
        if options.add_special && v.add_eos {
            out.extend(v.eos_at_end);
        }
        Ok(out)
    }

    /// Tokens of two texts that are judged together, with what the model expects around them, and the segment of each.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
        let (mut tokens, mut segments) = (Vec::new(), Vec::new());
        for part in &self.pair {
            let segment = match part {
                Part::Token(token, segment) => {
                    tokens.push(*token);
                    *segment
                }
                Part::First(segment) => {
                    self.append(first, false, &mut tokens)?;
                    *segment
                }
                Part::Second(segment) => {
                    self.append(second, false, &mut tokens)?;
                    *segment
                }
            };
            segments.resize(tokens.len(), segment);
        }
        Ok((tokens, segments))
    }

    fn append(&self, text: &str, parse_special: bool, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let v = &self.vocabulary;
        let mut after_special = true;
        let mut first = true;
        for piece in self.special.split(v, text, parse_special) {
            match piece {
                Piece::Token(token) => {
                    out.push(token);
                    after_special = true;
                }
                Piece::Text("") => {}
                Piece::Text(text) => {
                    match &self.algorithm {
                        Algorithm::Bpe(bpe) => bpe.encode(v, text, out)?,
                        Algorithm::SentencePiece(spm) => spm.encode(v, text, after_special, out),
                        Algorithm::WordPiece(wordpiece) => wordpiece.encode(v, text, out),
                        Algorithm::Pipeline(pipeline) => pipeline.encode(v, text, first, out)?,
                    }
                    after_special = false;
                }
            }
            first = false;
        }
        Ok(())
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
        match &self.algorithm {
            Algorithm::SentencePiece(spm) => spm.add_space_prefix,
            Algorithm::Pipeline(pipeline) => pipeline.adds_prefix(),
            Algorithm::Bpe(_) | Algorithm::WordPiece(_) => false,
        }
    }

    fn byte_encoded(&self) -> bool {
        match &self.algorithm {
            Algorithm::Bpe(bpe) => bpe.byte_encoded(),
            Algorithm::Pipeline(pipeline) => pipeline.byte_encoded(),
            Algorithm::SentencePiece(_) | Algorithm::WordPiece(_) => false,
        }
    }
}

/// What a GGUF file says of cleaning texts for WordPiece.
fn cleaning_of_gguf(gguf: &Gguf<'_>) -> Result<wordpiece::Cleaning, TokenizerError> {
    let lowercase = gguf.flag("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true);
    let strip_accents = gguf.flag("tokenizer.ggml.normalizer.strip_accents")?.unwrap_or(lowercase);
    Ok(wordpiece::Cleaning { lowercase, strip_accents, ideographs_apart: true })
}

/// Tokens, scores and replacements of a unigram vocabulary in a GGUF file.
fn unigram_of_gguf(gguf: &Gguf<'_>, v: &Vocabulary) -> Result<pipeline::Pipeline, TokenizerError> {
    let charsmap = match gguf.array("tokenizer.ggml.precompiled_charsmap")? {
        None => None,
        Some(bytes) if bytes.is_empty() => None,
        Some(bytes) => {
            // Some files have them signed.
            let byte = |value: Value<'_>| match value {
                Value::Unsigned(byte) => u8::try_from(byte).ok(),
                Value::Signed(byte) => i8::try_from(byte).ok().map(i8::cast_unsigned),
                _ => None,
            };
            let bytes: Option<Vec<u8>> = bytes.iter().map(byte).collect();
            let bytes = bytes.ok_or(TokenizerError::Vocabulary("the table of replacements is no bytes"))?;
            Some(charsmap::Charsmap::new(&bytes)?)
        }
    };
    let add_prefix = gguf.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let merge_spaces = gguf.flag("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(true);
    let scores = (0u32..).take(v.len()).map(|token| f64::from(v.score(token))).collect();
    let searched =
        |token: u32| matches!(v.kind(token), TokenKind::Normal | TokenKind::UserDefined | TokenKind::Unused);
    let unigram = unigram::Unigram::new(v, scores, searched, v.has_all_bytes())?;
    Ok(pipeline::Pipeline::sentence_piece(charsmap, add_prefix, merge_spaces, unigram))
}

/// Two texts one after the other, as BERT has them; `doubled` as RoBERTa, with two separators and no segments.
fn pair(v: &Vocabulary, doubled: bool) -> Vec<Part> {
    let token = |token: Option<u32>, segment: u32| token.map(|token| Part::Token(token, segment));
    let second = u32::from(!doubled);
    let parts = [
        token(v.bos, 0),
        Some(Part::First(0)),
        token(v.eos_at_end, 0),
        token(v.eos_at_end.filter(|_| doubled), 0),
        Some(Part::Second(second)),
        token(v.eos_at_end, second),
    ];
    parts.into_iter().flatten().collect()
}
