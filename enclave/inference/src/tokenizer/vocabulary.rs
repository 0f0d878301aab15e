//! The tokens of a model.

use std::collections::HashMap;

use adyton_model::gguf::Gguf;
use adyton_model::tokenizer::{FileToken, MAX_TOKENS, Part, TokenModel, TokenRole, TokenizerFile};

use super::TokenizerError;
use super::detokenize::ESCAPED_SPACE;

/// What a token is, with the numbers of `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "their own names")]
pub enum TokenKind {
    Normal,
    Unknown,
    /// Never written, only meant: `<|im_end|>`.
    Control,
    /// Cut out of every text.
    UserDefined,
    Unused,
    /// `<0x41>`: one byte.
    Byte,
}

/// Texts, kinds and scores of all tokens.
#[derive(Debug)]
pub struct Vocabulary {
    texts: Vec<Box<str>>,
    kinds: Vec<TokenKind>,
    scores: Vec<f32>,
    ids: HashMap<Box<str>, u32>,
    bytes: [Option<u32>; 256],
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    /// What `add_special` puts at the end: end of sequence, or the separator of encoders.
    pub(super) eos_at_end: Option<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) add_bos: bool,
    pub(super) add_eos: bool,
    end_of_turn: Vec<u32>,
}

impl Vocabulary {
    pub(super) fn from_gguf(gguf: &Gguf<'_>, model: &str) -> Result<Self, TokenizerError> {
        let tokens = gguf.require("tokenizer.ggml.tokens")?.as_array().and_then(|array| array.strings());
        let tokens = tokens.ok_or(TokenizerError::Vocabulary("tokens are no strings"))?;
        let len = tokens.len();
        if len == 0 || len > MAX_TOKENS {
            return Err(TokenizerError::Vocabulary("no tokens, or more than any model has"));
        }
        let numbers = |key: &str| -> Result<Option<Vec<f64>>, TokenizerError> {
            let Some(array) = gguf.array(key)? else { return Ok(None) };
            let numbers = array.numbers().filter(|numbers| numbers.len() == len);
            numbers.map(Some).ok_or(TokenizerError::Vocabulary("not as many numbers as tokens"))
        };
        let kinds = numbers("tokenizer.ggml.token_type")?;
        #[expect(clippy::cast_possible_truncation, reason = "small numbers; others are normal tokens")]
        let kind = |number: &f64| match *number as i64 {
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            5 => TokenKind::Unused,
            6 => TokenKind::Byte,
            _ => TokenKind::Normal,
        };
        let kinds =
            kinds.map_or_else(|| vec![TokenKind::Normal; len], |kinds| kinds.iter().map(kind).collect());
        #[expect(clippy::cast_possible_truncation, reason = "scores were f32 in the file")]
        let scores = numbers("tokenizer.ggml.scores")?
            .map_or_else(|| vec![0.0; len], |scores| scores.iter().map(|score| *score as f32).collect());
        let mut ids = HashMap::with_capacity(len);
        let mut bytes = [None; 256];
        for (id, text) in (0u32..).zip(&tokens) {
            ids.insert(Box::from(*text), id);
            if kinds[id as usize] == TokenKind::Byte
                && let Some(byte) = byte_of(text)
            {
                bytes[usize::from(byte)] = Some(id);
            }
        }
        let special = |key: &'static str| -> Result<Option<u32>, TokenizerError> {
            match gguf.integer(key)? {
                None => Ok(None),
                Some(id) => match u32::try_from(id) {
                    Ok(token) if id < len as u64 => Ok(Some(token)),
                    // Files say "none" with an id of all ones.
                    _ if id == u64::from(u32::MAX) => Ok(None),
                    _ => Err(TokenizerError::Id { key, id, len }),
                },
            }
        };
        let bert = model == "bert";
        let eos = special("tokenizer.ggml.eos_token_id")?;
        let separator = special("tokenizer.ggml.seperator_token_id")?;
        let bos = special("tokenizer.ggml.bos_token_id")?;
        let cls = special("tokenizer.ggml.cls_token_id")?;
        let llama_3 = matches!(
            gguf.text("tokenizer.ggml.pre")?,
            Some("llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "pixtral" | "tekken" | "chameleon")
        );
        let t5 = model == "t5";
        let add_bos = model == "llama" || bert || model == "gemma4" || llama_3;
        let mut vocabulary = Self {
            texts: tokens.into_iter().map(Box::from).collect(),
            kinds,
            scores,
            ids,
            bytes,
            bos: if bert { cls.or(bos) } else { bos },
            eos,
            eos_at_end: if bert { separator.or(eos) } else { eos },
            unknown: special("tokenizer.ggml.unknown_token_id")?,
            add_bos: gguf.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(add_bos),
            add_eos: gguf.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(bert || t5),
            end_of_turn: Vec::new(),
        };
        let end = vocabulary.eos.into_iter().chain(special("tokenizer.ggml.eot_token_id")?).collect();
        vocabulary.end_with(end);
        Ok(vocabulary)
    }

    /// Sets what ends an answer: `end` and special tokens that usually do. Those that files call user-defined, as Phi-3's
    /// `</s>`, become control tokens, or the text of one in what a stranger wrote would be it.
    fn end_with(&mut self, mut end: Vec<u32>) {
        let usual = [
            "<|im_end|>",
            "<|eot_id|>",
            "<end_of_turn>",
            "<|end|>",
            "<|endoftext|>",
            "<|end_of_text|>",
            "<|eom_id|>",
            "</s>",
        ];
        let special = |id: &u32| matches!(self.kind(*id), TokenKind::Control | TokenKind::UserDefined);
        end.extend(usual.iter().filter_map(|text| self.id(text).filter(special)));
        end.sort_unstable();
        end.dedup();
        for id in end.iter().copied().chain(self.bos) {
            if let Some(kind) = self.kinds.get_mut(id as usize)
                && *kind == TokenKind::UserDefined
            {
                *kind = TokenKind::Control;
            }
        }
        self.end_of_turn = end;
    }

    /// The vocabulary of a `tokenizer.json`; `eos` are the ids that `config.json` names.
    pub(super) fn from_file(file: &TokenizerFile, eos: &[u32]) -> Result<Self, TokenizerError> {
        let len = file.tokens.len();
        if len == 0 || len > MAX_TOKENS {
            return Err(TokenizerError::Vocabulary("no tokens, or more than any model has"));
        }
        if let Some(id) = eos.iter().find(|id| **id as usize >= len) {
            return Err(TokenizerError::Id { key: "eos_token_id", id: u64::from(*id), len });
        }
        let (byte_fallback, scores, unknown) = match &file.model {
            TokenModel::Bpe { byte_fallback, unknown, .. } => (*byte_fallback, None, Err(unknown.as_deref())),
            TokenModel::Unigram { byte_fallback, scores, unknown } => {
                (*byte_fallback, Some(scores), Ok(*unknown))
            }
            TokenModel::WordPiece { unknown } => (false, None, Err(Some(unknown.as_str()))),
        };
        let mut ids = HashMap::with_capacity(len);
        let mut bytes = [None; 256];
        let (mut texts, mut kinds) = (Vec::with_capacity(len), Vec::with_capacity(len));
        for (id, token) in (0u32..).zip(&file.tokens) {
            let Some(token) = token else {
                texts.push(Box::from(""));
                kinds.push(TokenKind::Unused);
                continue;
            };
            let byte = byte_of(&token.text).filter(|_| byte_fallback);
            if let Some(byte) = byte {
                bytes[usize::from(byte)] = Some(id);
            }
            kinds.push(match token.role {
                TokenRole::Special => TokenKind::Control,
                TokenRole::Added => TokenKind::UserDefined,
                TokenRole::Normal if byte.is_some() => TokenKind::Byte,
                TokenRole::Normal => TokenKind::Normal,
            });
            ids.insert(Box::from(token.text.as_str()), id);
            texts.push(Box::from(token.text.as_str()));
        }
        let unknown = match unknown {
            Ok(id) => id,
            Err(text) => text.and_then(|text| ids.get(text).copied()),
        };
        if let Some(kind) = unknown.and_then(|id| kinds.get_mut(id as usize))
            && *kind == TokenKind::Normal
        {
            *kind = TokenKind::Unknown;
        }
        let around = |parts: &[Part]| match parts {
            [] => Ok(None),
            [Part::Token(id, _)] => Ok(Some(*id)),
            _ => Err(TokenizerError::Vocabulary("more than one token before or after a text")),
        };
        let middle = file.single.iter().position(|part| matches!(part, Part::First(_)));
        let middle = middle.ok_or(TokenizerError::Vocabulary("a template without its text"))?;
        let (bos, eos_at_end) = (around(&file.single[..middle])?, around(&file.single[middle + 1..])?);
        #[expect(clippy::cast_possible_truncation, reason = "the tokenizer keeps its own in f64")]
        let scores = scores.map_or_else(Vec::new, |scores| scores.iter().map(|x| *x as f32).collect());
        let mut vocabulary = Self {
            texts,
            kinds,
            scores,
            ids,
            bytes,
            bos,
            eos: eos.first().copied().or(eos_at_end),
            eos_at_end,
            unknown,
            add_bos: bos.is_some(),
            add_eos: eos_at_end.is_some(),
            end_of_turn: Vec::new(),
        };
        vocabulary.end_with(eos.to_vec());
        Ok(vocabulary)
    }

    pub(super) fn from_word_piece(file: &TokenizerFile, unknown: &str) -> Result<Self, TokenizerError> {
        let len = file.tokens.len();
        if len == 0 || len > MAX_TOKENS {
            return Err(TokenizerError::Vocabulary("no tokens, or more than any model has"));
        }
        // Ids that name nothing stand for no text either.
        let texts = file.tokens.iter().map(|token| token.as_ref().map_or("", |token| token.text.as_str()));
        let special =
            |token: &Option<FileToken>| token.as_ref().is_none_or(|token| token.role == TokenRole::Special);
        let kind = |special: bool| if special { TokenKind::Control } else { TokenKind::Normal };
        let kinds: Vec<TokenKind> = file.tokens.iter().map(|token| kind(special(token))).collect();
        // As GGUF files write it: the first piece of a word carries the mark, not the others.
        let text = |(text, kind): (&str, &TokenKind)| match (kind, text.strip_prefix("##")) {
            (TokenKind::Control, _) => text.to_owned(),
            (_, Some(rest)) => rest.to_owned(),
            (_, None) => format!("{ESCAPED_SPACE}{text}"),
        };
        let texts: Vec<Box<str>> = texts.zip(&kinds).map(|pair| text(pair).into()).collect();
        let ids: HashMap<Box<str>, u32> = texts.iter().cloned().zip(0u32..).collect();
        let id = |text: &str| ids.get(text).copied();
        let (bos, separator, unknown) = (id("[CLS]"), id("[SEP]"), id(unknown));
        Ok(Self {
            kinds,
            scores: vec![0.0; len],
            bytes: [None; 256],
            bos,
            eos: separator,
            eos_at_end: separator,
            unknown,
            add_bos: true,
            add_eos: true,
            end_of_turn: Vec::new(),
            texts,
            ids,
        })
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Never: an empty vocabulary is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The token of this very text; of several the last.
    #[must_use]
    pub fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// The token of a byte.
    pub(super) fn byte(&self, byte: u8) -> Option<u32> {
        self.bytes[usize::from(byte)]
    }

    /// Whether every byte has its token.
    pub(super) fn has_all_bytes(&self) -> bool {
        self.bytes.iter().all(Option::is_some)
    }

    /// Text of a token as the file has it; empty outside the vocabulary.
    #[must_use]
    pub fn text(&self, token: u32) -> &str {
        self.texts.get(token as usize).map_or("", |text| text)
    }

    /// Kind of a token; unused outside the vocabulary.
    #[must_use]
    pub fn kind(&self, token: u32) -> TokenKind {
        self.kinds.get(token as usize).copied().unwrap_or(TokenKind::Unused)
    }

    pub(super) fn score(&self, token: u32) -> f32 {
        self.scores.get(token as usize).copied().unwrap_or(0.0)
    }

    /// Beginning of a sequence.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// End of a sequence, as the file names it.
    #[must_use]
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Every token that ends an answer, sorted.
    #[must_use]
    pub fn end_of_turn(&self) -> &[u32] {
        &self.end_of_turn
    }
}

/// The byte of `<0x41>`.
pub(super) fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2)
}
