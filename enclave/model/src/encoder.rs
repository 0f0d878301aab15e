//! Text encoders as Hugging Face folders hold them: `config.json`, `tokenizer.json`, `model.safetensors`.
//!
//! What: the files of BERT encoders (MiniLM, BGE, E5) as plain data. Why: embeddings and search run on them. Flow: the
//! bytes of the files go in; counts that were checked, tokens in order and tensors as f32 come out. Trust: nothing is
//! believed; shapes are compared by whoever takes a tensor, and memory stays a small multiple of the files.

use std::collections::BTreeMap;

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::quant::TensorType;

/// Why an encoder's files were refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncoderError {
    /// Not the JSON that was expected.
    #[error("{file}: {error}")]
    Json {
        /// Which file.
        file: &'static str,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// Counts no encoder has, or a variant that is not computed here.
    #[error("{0}")]
    Unsupported(String),
    /// The container.
    #[error("model.safetensors: {0}")]
    Safetensors(#[from] safetensors::SafeTensorError),
}

/// `config.json` of a BERT encoder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the file's own names")]
pub struct EncoderConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    pub layer_norm_eps: f32,
    pub hidden_act: String,
    #[serde(default)]
    pub model_type: String,
    pub pad_token_id: Option<usize>,
}

impl EncoderConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`EncoderError::Json`], or [`EncoderError::Unsupported`] for counts no encoder has.
    pub fn from_json(bytes: &[u8]) -> Result<Self, EncoderError> {
        let file = "config.json";
        let config: Self =
            serde_json::from_slice(bytes).map_err(|error| EncoderError::Json { file, error })?;
        config.verified()
    }

    /// Gives the configuration back if an encoder can have it.
    ///
    /// # Errors
    /// [`EncoderError::Unsupported`].
    pub fn verified(self) -> Result<Self, EncoderError> {
        let config = self;
        let counts = [
            (config.vocab_size, 1 << 22),
            (config.hidden_size, 1 << 14),
            (config.num_hidden_layers, 1 << 10),
            (config.num_attention_heads, 1 << 10),
            (config.intermediate_size, 1 << 17),
            (config.max_position_embeddings, 1 << 20),
            (config.type_vocab_size, 1 << 10),
        ];
        let possible = counts.iter().all(|(count, max)| (1..=*max).contains(count))
            && config.hidden_size.is_multiple_of(config.num_attention_heads)
            && config.layer_norm_eps.is_finite();
        if !possible {
            return Err(EncoderError::Unsupported(
                "the configuration has counts that no encoder has".to_owned(),
            ));
        }
        if config.hidden_act != "gelu"
            || !matches!(config.model_type.as_str(), "" | "bert" | "roberta" | "xlm-roberta")
        {
            return Err(EncoderError::Unsupported(format!(
                "model type `{}` with `{}` is not computed here, only bert and roberta with gelu",
                config.model_type, config.hidden_act
            )));
        }
        if config.first_position() >= config.max_position_embeddings {
            return Err(EncoderError::Unsupported(
                "the configuration has no position behind the padding".to_owned(),
            ));
        }
        Ok(config)
    }

    /// Row of the position embedding that the first token takes: RoBERTa counts from behind the padding token.
    #[must_use]
    pub fn first_position(&self) -> usize {
        if self.model_type.contains("roberta") { self.pad_token_id.unwrap_or(1).saturating_add(1) } else { 0 }
    }
}

/// A WordPiece vocabulary out of `tokenizer.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WordPieceFile {
    /// Texts by id; pieces inside a word begin with `##`.
    pub tokens: Vec<String>,
    /// Ids that stand for no text: `[CLS]`, `[PAD]`.
    pub special: Vec<u32>,
    /// Text of the unknown token.
    pub unknown: String,
    /// Whether text becomes lower case and loses its accents.
    pub uncased: bool,
}

#[derive(Deserialize)]
struct TokenizerJson {
    model: ModelJson,
    #[serde(default)]
    normalizer: Option<NormalizerJson>,
    #[serde(default)]
    added_tokens: Vec<AddedJson>,
}

#[derive(Deserialize)]
struct ModelJson {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    unk_token: String,
    #[serde(default)]
    vocab: BTreeMap<String, u32>,
}

#[derive(Deserialize)]
struct NormalizerJson {
    #[serde(default)]
    lowercase: bool,
}

#[derive(Deserialize)]
struct AddedJson {
    id: u32,
    #[serde(default)]
    special: bool,
}

impl WordPieceFile {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// [`EncoderError::Json`], or [`EncoderError::Unsupported`] for other kinds of tokenizers and ids with holes.
    pub fn from_json(bytes: &[u8]) -> Result<Self, EncoderError> {
        let file = "tokenizer.json";
        let json: TokenizerJson =
            serde_json::from_slice(bytes).map_err(|error| EncoderError::Json { file, error })?;
        if json.model.kind != "WordPiece" {
            let kind = json.model.kind.chars().take(40).collect::<String>();
            return Err(EncoderError::Unsupported(format!(
                "tokenizer model `{kind}` is not read, only WordPiece"
            )));
        }
        let mut tokens = vec![None; json.model.vocab.len()];
        for (text, id) in json.model.vocab {
            match tokens.get_mut(id as usize) {
                Some(place @ None) => *place = Some(text),
                _ => {
                    return Err(EncoderError::Unsupported(format!(
                        "tokenizer.json: id {id} stands twice or too high"
                    )));
                }
            }
        }
        let uncased = json.normalizer.is_some_and(|normalizer| normalizer.lowercase);
        let special = json.added_tokens.iter().filter(|token| token.special).map(|token| token.id).collect();
        Ok(Self {
            tokens: tokens.into_iter().flatten().collect(),
            special,
            unknown: json.model.unk_token,
            uncased,
        })
    }
}

/// Tensors by name.
#[derive(Debug)]
pub struct EncoderTensors<'data>(SafeTensors<'data>);

/// A tensor as the file holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderTensor<'data> {
    /// Element type.
    pub kind: TensorType,
    /// Shape, outermost first.
    pub shape: Vec<usize>,
    /// Its bytes.
    pub bytes: &'data [u8],
}

impl<'data> EncoderTensors<'data> {
    /// Reads the directory of `model.safetensors`.
    ///
    /// # Errors
    /// [`EncoderError::Safetensors`].
    pub fn parse(bytes: &'data [u8]) -> Result<Self, EncoderError> {
        Ok(Self(SafeTensors::deserialize(bytes)?))
    }

    /// The tensor of this name, which may carry a leading `bert.` or `roberta.`, if it holds floats.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<EncoderTensor<'data>> {
        let views = ["", "bert.", "roberta."].map(|prefix| self.0.tensor(&format!("{prefix}{name}")).ok());
        let view = views.into_iter().flatten().next()?;
        let kind = match view.dtype() {
            Dtype::F32 => TensorType::F32,
            Dtype::F16 => TensorType::F16,
            Dtype::BF16 => TensorType::BF16,
            _ => return None,
        };
        Some(EncoderTensor { kind, shape: view.shape().to_vec(), bytes: view.data() })
    }
}

/// How a folder says that tokens become one vector: `1_Pooling/config.json` of sentence-transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the file's own names")]
pub struct PoolingFile {
    pub pooling_mode_cls_token: bool,
    pub pooling_mode_mean_tokens: bool,
}

impl PoolingFile {
    /// Reads `1_Pooling/config.json`.
    ///
    /// # Errors
    /// [`EncoderError::Json`], or [`EncoderError::Unsupported`] unless it is one of the two kinds.
    pub fn from_json(bytes: &[u8]) -> Result<Self, EncoderError> {
        let file = "1_Pooling/config.json";
        let pooling: Self =
            serde_json::from_slice(bytes).map_err(|error| EncoderError::Json { file, error })?;
        if pooling.pooling_mode_cls_token == pooling.pooling_mode_mean_tokens {
            return Err(EncoderError::Unsupported(format!(
                "{file}: only mean or CLS pooling is computed here"
            )));
        }
        Ok(pooling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vocabularies_in_order_and_without_holes() {
        let json = br###"{"added_tokens":[{"id":0,"special":true}],"normalizer":{"type":"BertNormalizer","lowercase":true},
            "model":{"type":"WordPiece","unk_token":"[UNK]","vocab":{"[UNK]":0,"##s":2,"a":1}}}"###;
        let file = WordPieceFile::from_json(json).unwrap();
        assert_eq!(file.tokens, ["[UNK]", "a", "##s"]);
        assert_eq!((file.special, file.uncased), (vec![0], true));
        for vocab in [r#"{"a":0,"b":0}"#, r#"{"a":1}"#, r#"{"a":4294967295}"#] {
            let json = format!(r#"{{"model":{{"type":"WordPiece","vocab":{vocab}}}}}"#);
            assert!(matches!(WordPieceFile::from_json(json.as_bytes()), Err(EncoderError::Unsupported(_))));
        }
        assert!(WordPieceFile::from_json(br#"{"model":{"type":"BPE"}}"#).is_err());
    }

    #[test]
    fn impossible_configurations_are_errors() {
        let config = |heads: usize, hidden: usize, act: &str| {
            let json = format!(
                r#"{{"vocab_size":10,"hidden_size":{hidden},"num_hidden_layers":1,"num_attention_heads":{heads},
                "intermediate_size":8,"max_position_embeddings":8,"type_vocab_size":2,"layer_norm_eps":1e-12,
                "hidden_act":"{act}"}}"#
            );
            EncoderConfig::from_json(json.as_bytes())
        };
        assert!(config(2, 8, "gelu").is_ok());
        assert!(config(3, 8, "gelu").is_err());
        assert!(config(0, 8, "gelu").is_err());
        assert!(config(2, 1 << 20, "gelu").is_err());
        assert!(config(2, 8, "relu").is_err());
    }
}
