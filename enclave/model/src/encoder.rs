//! Text encoders as Hugging Face folders hold them: `config.json`, `model.safetensors`, `1_Pooling/config.json`.
//!
//! What: the files of BERT encoders (MiniLM, BGE, E5) as plain data. Why: embeddings and search run on them. Flow: the
//! bytes of the files go in; counts that were checked, the pooling and tensors come out. Trust: nothing is
//! believed; shapes are compared by whoever takes a tensor, and memory stays a small multiple of the files.

use std::collections::BTreeMap;
use std::fmt;

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
    pub position_embedding_type: Option<String>,
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
        if let Some(kind) = config.position_embedding_type.as_deref().filter(|kind| *kind != "absolute") {
            let kind: String = kind.chars().take(40).collect();
            return Err(EncoderError::Unsupported(format!(
                "position_embedding_type `{kind}` is not computed here, only absolute"
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

/// Tensors by name. `Debug` tells how many, never what they hold.
pub struct EncoderTensors<'data>(SafeTensors<'data>);

/// A tensor as the file holds it. `Debug` tells its shape, never what it holds.
#[derive(Clone, PartialEq, Eq)]
pub struct EncoderTensor<'data> {
    /// Element type.
    pub kind: TensorType,
    /// Shape, outermost first.
    pub shape: Vec<usize>,
    /// Its bytes.
    pub bytes: &'data [u8],
}

impl fmt::Debug for EncoderTensors<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncoderTensors({})", self.0.len())
    }
}

impl fmt::Debug for EncoderTensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncoderTensor({:?}, {:?})", self.kind, self.shape)
    }
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolingFile {
    /// Their mean.
    Mean,
    /// The first one, of `[CLS]`.
    Cls,
}

#[derive(Deserialize)]
struct PoolingJson {
    /// One way or several behind each other; older files have a flag for each way instead.
    pooling_mode: Option<Modes>,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Modes {
    One(String),
    Several(Vec<String>),
}

impl PoolingFile {
    /// Reads `1_Pooling/config.json`.
    ///
    /// # Errors
    /// [`EncoderError::Json`], or [`EncoderError::Unsupported`] unless it is one of the two kinds.
    pub fn from_json(bytes: &[u8]) -> Result<Self, EncoderError> {
        let file = "1_Pooling/config.json";
        let json: PoolingJson =
            serde_json::from_slice(bytes).map_err(|error| EncoderError::Json { file, error })?;
        let modes = match json.pooling_mode {
            Some(Modes::One(mode)) => vec![mode],
            Some(Modes::Several(modes)) => modes,
            None => {
                let set = json.rest.into_iter().filter(|(_, value)| *value == true);
                set.filter_map(|(key, _)| key.strip_prefix("pooling_mode_").map(str::to_owned)).collect()
            }
        };
        match modes.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["mean" | "mean_tokens"] => Ok(Self::Mean),
            ["cls" | "cls_token"] => Ok(Self::Cls),
            _ => Err(EncoderError::Unsupported(format!("{file}: only mean or CLS pooling is computed here"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_as_older_and_newer_files_say_it() {
        let read = |json: &str| PoolingFile::from_json(json.as_bytes());
        let flags = |cls: bool, mean: bool, max: bool| {
            read(&format!(
                r#"{{"word_embedding_dimension":8,"pooling_mode_cls_token":{cls},"pooling_mode_mean_tokens":{mean},
                "pooling_mode_max_tokens":{max},"include_prompt":true}}"#
            ))
        };
        assert_eq!(flags(true, false, false).unwrap(), PoolingFile::Cls);
        assert_eq!(flags(false, true, false).unwrap(), PoolingFile::Mean);
        assert_eq!(read(r#"{"embedding_dimension":8,"pooling_mode":"cls"}"#).unwrap(), PoolingFile::Cls);
        assert_eq!(read(r#"{"pooling_mode":["mean"]}"#).unwrap(), PoolingFile::Mean);
        for refused in [flags(true, true, false), flags(false, true, true), flags(false, false, false)] {
            assert!(matches!(refused, Err(EncoderError::Unsupported(_))));
        }
        assert!(
            read(r#"{"pooling_mode":["cls","mean"]}"#).is_err() && read(r#"{"pooling_mode":"max"}"#).is_err()
        );
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
        let relative = config(2, 8, "gelu")
            .map(|known| EncoderConfig { position_embedding_type: Some("relative_key".to_owned()), ..known });
        assert!(relative.and_then(EncoderConfig::verified).is_err());
    }
}
