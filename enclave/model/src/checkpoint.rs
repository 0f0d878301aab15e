//! Language models as Hugging Face folders hold them: `config.json` and safetensors in one file or several.
//!
//! What: counts and factors of a model, and where its tensors lie. Why: models are published like this before anybody
//! quantises them. Flow: the bytes of `config.json` and of the beginning of each safetensors file go in; plain data comes
//! out. Trust: nothing is believed. Tensors lie one after the other from the header to the end of the file, each as long
//! as its shape says. What a count must be is decided by whoever builds a model of it.

use std::collections::BTreeMap;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::quant::TensorType;

/// Longest header, bytes; as in the safetensors library.
const MAX_HEADER: u64 = 100_000_000;
/// Most files of one model.
const MAX_FILES: usize = 4096;

/// Why a folder was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Not the JSON that was expected.
    #[error("{file}: {error}")]
    Json {
        /// Which file.
        file: &'static str,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// The bytes end inside the header.
    #[error("a safetensors file ends inside its header; it is cut short, fetch it again")]
    Truncated,
    /// A header longer than any.
    #[error("a safetensors header of {0} bytes is longer than any model's")]
    Header(u64),
    /// An element type that is not computed here.
    #[error(
        "tensor `{name}` has type {kind}; only F32, F16 and BF16 are read: convert or quantise the model"
    )]
    Type {
        /// Its name.
        name: String,
        /// Its type.
        kind: String,
    },
    /// Tensors must follow each other, as long as their shapes say, up to the end of the file.
    #[error("tensor `{name}` does not lie where its shape and the file say")]
    Place {
        /// Its name.
        name: String,
    },
    /// Bytes that no tensor owns.
    #[error("{0} bytes follow the last tensor")]
    Trailing(u64),
    /// The index and the files do not belong together.
    #[error("model.safetensors.index.json: {0}")]
    Index(String),
}

/// `config.json` of a language model. Only what changes results is read; every name is the file's own.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the file's own names")]
pub struct LanguageConfig {
    pub model_type: String,
    pub vocab_size: u64,
    pub hidden_size: u64,
    pub intermediate_size: u64,
    pub moe_intermediate_size: Option<u64>,
    pub num_hidden_layers: u64,
    pub num_attention_heads: u64,
    pub num_key_value_heads: Option<u64>,
    pub head_dim: Option<u64>,
    pub max_position_embeddings: u64,
    pub original_max_position_embeddings: Option<u64>,
    pub rms_norm_eps: Option<f64>,
    pub hidden_act: Option<String>,
    pub hidden_activation: Option<String>,
    pub tie_word_embeddings: Option<bool>,
    pub rope_theta: Option<f64>,
    pub rope_local_base_freq: Option<f64>,
    pub rope_scaling: Option<RopeParameters>,
    pub rope_parameters: Option<RopeLayers>,
    pub partial_rotary_factor: Option<f64>,
    pub sliding_window: Option<u64>,
    pub use_sliding_window: Option<bool>,
    pub use_bidirectional_attention: Option<bool>,
    pub sliding_window_pattern: Option<u64>,
    pub layer_types: Option<Vec<String>>,
    pub no_rope_layers: Option<Vec<u64>>,
    pub no_rope_layer_interval: Option<u64>,
    pub query_pre_attn_scalar: Option<f64>,
    pub attn_logit_softcapping: Option<f64>,
    pub final_logit_softcapping: Option<f64>,
    pub num_experts: Option<u64>,
    pub num_local_experts: Option<u64>,
    pub num_experts_per_tok: Option<u64>,
    pub norm_topk_prob: Option<bool>,
    pub decoder_sparse_step: Option<u64>,
    pub mlp_only_layers: Option<Vec<u64>>,
    pub eos_token_id: Option<Ids>,
    /// Weights stored in another form than their types say.
    pub quantization_config: Option<IgnoredAny>,
    /// Whether the folder's model takes pictures as well: this describes the part of it that reads and writes text.
    #[serde(skip)]
    pub pictures: bool,
}

/// `config.json` of a model that takes pictures as well.
#[derive(Deserialize)]
struct PicturesConfig {
    #[serde(default)]
    model_type: String,
    text_config: Option<serde_json::Map<String, Value>>,
    eos_token_id: Option<Value>,
    quantization_config: Option<Value>,
}

/// What the code of Gemma 3 takes where its `text_config` is silent, which that of the published models mostly is.
fn gemma3_defaults() -> serde_json::Map<String, Value> {
    let counts = [
        ("vocab_size", 262_208),
        ("hidden_size", 2304),
        ("intermediate_size", 9216),
        ("num_hidden_layers", 26),
        ("num_attention_heads", 8),
        ("num_key_value_heads", 4),
        ("head_dim", 256),
        ("max_position_embeddings", 131_072),
        ("query_pre_attn_scalar", 256),
        ("sliding_window", 4096),
    ];
    counts.into_iter().map(|(key, count)| (key.to_owned(), Value::from(count))).collect()
}

/// One id or several.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "they say it")]
pub enum Ids {
    One(u32),
    Several(Vec<u32>),
}

impl Ids {
    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Several(ids) => ids,
        }
    }
}

/// How rotations are scaled.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the file's own names")]
pub struct RopeParameters {
    pub rope_type: Option<String>,
    /// Of older files.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub rope_theta: Option<f64>,
    pub factor: Option<f64>,
    pub original_max_position_embeddings: Option<u64>,
    pub low_freq_factor: Option<f64>,
    pub high_freq_factor: Option<f64>,
    pub attention_factor: Option<f64>,
    pub beta_fast: Option<f64>,
    pub beta_slow: Option<f64>,
    pub mscale: Option<f64>,
    pub truncate: Option<bool>,
    pub short_factor: Option<Vec<f64>>,
    pub long_factor: Option<Vec<f64>>,
    pub partial_rotary_factor: Option<f64>,
}

/// Of newer files: for all layers, or for each kind of them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "the file's own names")]
pub enum RopeLayers {
    Kinds { full_attention: Box<RopeParameters>, sliding_attention: Box<RopeParameters> },
    All(Box<RopeParameters>),
}

impl LanguageConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`CheckpointError::Json`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let wrong = |error| CheckpointError::Json { file: "config.json", error };
        let whole: PicturesConfig = serde_json::from_slice(bytes).map_err(wrong)?;
        match whole.text_config.filter(|_| whole.model_type == "gemma3") {
            None => serde_json::from_slice(bytes).map_err(wrong),
            Some(text) => {
                let mut all = gemma3_defaults();
                all.extend(text);
                all.extend(whole.eos_token_id.map(|ids| ("eos_token_id".to_owned(), ids)));
                all.extend(whole.quantization_config.map(|form| ("quantization_config".to_owned(), form)));
                let text: Self = serde_json::from_value(all.into()).map_err(wrong)?;
                Ok(Self { model_type: "gemma3_text".to_owned(), pictures: true, ..text })
            }
        }
    }

    /// Tokens that end an answer.
    #[must_use]
    pub fn eos(&self) -> &[u32] {
        self.eos_token_id.as_ref().map_or(&[], Ids::as_slice)
    }
}

/// One tensor of a safetensors file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardTensor {
    /// Its name.
    pub name: String,
    /// Element type.
    pub kind: TensorType,
    /// Shape, outermost first.
    pub shape: Vec<u64>,
    /// First byte in the file.
    pub start: u64,
    /// Bytes of data.
    pub len_bytes: u64,
}

/// The directory of one safetensors file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Tensors in file order.
    pub tensors: Vec<ShardTensor>,
}

#[derive(Deserialize)]
struct HeaderJson {
    #[serde(rename = "__metadata__")]
    _metadata: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    tensors: BTreeMap<String, TensorInfo>,
}

impl Shard {
    /// Length of the header with its length field, of a file that begins with these 8 bytes.
    #[must_use]
    pub fn header_len(first: [u8; 8]) -> u64 {
        u64::from_le_bytes(first).saturating_add(8)
    }

    /// Reads the directory from the first bytes of a file that is `file_len` bytes long.
    ///
    /// # Errors
    /// [`CheckpointError::Truncated`] where the bytes end inside the header; every other variant is the file's fault.
    pub fn parse(bytes: &[u8], file_len: u64) -> Result<Self, CheckpointError> {
        let (first, rest) = bytes.split_first_chunk::<8>().ok_or(CheckpointError::Truncated)?;
        let data = Self::header_len(*first);
        if data > MAX_HEADER {
            return Err(CheckpointError::Header(data));
        }
        let header = usize::try_from(data - 8).ok().and_then(|len| rest.get(..len));
        let header: HeaderJson = serde_json::from_slice(header.ok_or(CheckpointError::Truncated)?)
            .map_err(|error| CheckpointError::Json { file: "safetensors header", error })?;
        let mut all: Vec<(String, TensorInfo)> = header.tensors.into_iter().collect();
        all.sort_by_key(|(_, info)| info.data_offsets);
        let mut end = 0usize;
        let mut tensors = Vec::with_capacity(all.len());
        for (name, info) in all {
            let kind = match info.dtype {
                Dtype::F32 => TensorType::F32,
                Dtype::F16 => TensorType::F16,
                Dtype::BF16 => TensorType::BF16,
                other => return Err(CheckpointError::Type { name, kind: format!("{other:?}") }),
            };
            let (from, to) = info.data_offsets;
            let elements = info.shape.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim));
            let len = elements.and_then(|count| count.checked_mul(kind.block_bytes()));
            let shape = info.shape.iter().map(|dim| *dim as u64).collect();
            if from != end || len.is_none() || to.checked_sub(from) != len {
                return Err(CheckpointError::Place { name });
            }
            end = to;
            let len_bytes = (to - from) as u64;
            let start = data.checked_add(from as u64);
            match start.filter(|start| start.checked_add(len_bytes).is_some_and(|end| end <= file_len)) {
                Some(start) => tensors.push(ShardTensor { name, kind, shape, start, len_bytes }),
                None => return Err(CheckpointError::Place { name }),
            }
        }
        match file_len.checked_sub(data.saturating_add(end as u64)) {
            Some(0) => Ok(Self { tensors }),
            Some(rest) => Err(CheckpointError::Trailing(rest)),
            None => Err(CheckpointError::Truncated),
        }
    }
}

/// `model.safetensors.index.json`: which file holds which tensor.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads the index.
    ///
    /// # Errors
    /// [`CheckpointError::Json`], or [`CheckpointError::Index`] for names that leave the folder and too many files.
    pub fn from_json(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let file = "model.safetensors.index.json";
        let index: Self =
            serde_json::from_slice(bytes).map_err(|error| CheckpointError::Json { file, error })?;
        let files = index.files();
        if files.is_empty() || files.len() > MAX_FILES {
            return Err(CheckpointError::Index("no files, or more than any model has".to_owned()));
        }
        // A path would let the file choose what is read.
        let plain = |name: &str| {
            name.ends_with(".safetensors")
                && !name.starts_with('.')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        };
        match files.into_iter().find(|name| !plain(name)) {
            Some(name) => Err(CheckpointError::Index(format!("`{name}` is no name of a file beside it"))),
            None => Ok(index),
        }
    }

    /// Names of the files, sorted.
    #[must_use]
    pub fn files(&self) -> Vec<&str> {
        let mut files: Vec<&str> = self.weight_map.values().map(String::as_str).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    /// Compares the files' directories, in the order of [`Self::files`], with the index.
    ///
    /// # Errors
    /// [`CheckpointError::Index`] for tensors that are missing, elsewhere, or not in the index.
    pub fn verify(&self, shards: &[Shard]) -> Result<(), CheckpointError> {
        let files = self.files();
        if files.len() != shards.len() {
            return Err(CheckpointError::Index(format!("{} files, not {}", files.len(), shards.len())));
        }
        let mut count = 0;
        for (file, shard) in files.iter().zip(shards) {
            for tensor in &shard.tensors {
                count += 1;
                if self.weight_map.get(&tensor.name).map(String::as_str) != Some(*file) {
                    let name = &tensor.name;
                    return Err(CheckpointError::Index(format!(
                        "tensor `{name}` in {file} is not there by it"
                    )));
                }
            }
        }
        if count == self.weight_map.len() {
            Ok(())
        } else {
            Err(CheckpointError::Index("tensors are missing from the files".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    }

    fn parse(header: &str, data: usize) -> Result<Shard, CheckpointError> {
        let bytes = file(header, data);
        Shard::parse(&bytes, bytes.len() as u64)
    }

    const TWO: &str = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},
        "a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;

    #[test]
    fn directories_in_file_order() {
        let shard = parse(TWO, 20).unwrap();
        let names: Vec<&str> = shard.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!((shard.tensors[1].kind, shard.tensors[1].len_bytes), (TensorType::BF16, 12));
        assert_eq!(shard.tensors[1].start, TWO.len() as u64 + 16);
        // The header alone is enough.
        let bytes = file(TWO, 20);
        let header = usize::try_from(Shard::header_len(*bytes.first_chunk().unwrap())).unwrap();
        assert_eq!(Shard::parse(&bytes[..header], bytes.len() as u64).unwrap(), shard);
    }

    #[test]
    fn attacks_on_directories() {
        let one = |dtype: &str, shape: &str, offsets: &str| {
            parse(&format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#), 8)
        };
        assert!(one("F32", "[2]", "[0,8]").is_ok());
        assert!(matches!(one("I64", "[1]", "[0,8]"), Err(CheckpointError::Type { .. })));
        assert!(matches!(one("F32", "[3]", "[0,8]"), Err(CheckpointError::Place { .. })));
        assert!(matches!(one("F32", "[1]", "[4,8]"), Err(CheckpointError::Place { .. })));
        assert!(matches!(one("F32", "[2]", "[8,0]"), Err(CheckpointError::Place { .. })));
        assert!(matches!(one("F32", "[3]", "[0,12]"), Err(CheckpointError::Place { .. })));
        assert!(matches!(one("F32", "[1]", "[0,4]"), Err(CheckpointError::Trailing(4))));
        let huge = "[4294967296,4294967296,4294967296]";
        assert!(matches!(one("F32", huge, "[0,8]"), Err(CheckpointError::Place { .. })));
        // One tensor on another, headers that lie about their length, and what is no JSON.
        let both = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
            "b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        assert!(matches!(parse(both, 8), Err(CheckpointError::Place { .. })));
        assert!(matches!(Shard::parse(&[0xff; 16], 16), Err(CheckpointError::Header(_))));
        assert!(matches!(Shard::parse(&[9, 0, 0, 0, 0, 0, 0, 0, b'{'], 9), Err(CheckpointError::Truncated)));
        assert!(matches!(parse("[1]", 0), Err(CheckpointError::Json { .. })));
        let bytes = file(TWO, 20);
        for len in 0..bytes.len() {
            assert!(Shard::parse(&bytes[..len], len as u64).is_err());
        }
    }

    #[test]
    fn indices_and_their_files() {
        let index = |map: &str| ShardIndex::from_json(format!(r#"{{"weight_map":{map}}}"#).as_bytes());
        for map in ["{}", r#"{"a":"../a.safetensors"}"#, r#"{"a":"/etc/x.safetensors"}"#, r#"{"a":"a.bin"}"#]
        {
            assert!(matches!(index(map), Err(CheckpointError::Index(_))), "{map}");
        }
        let shard = |name: &str| {
            parse(&format!(r#"{{"{name}":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}}}"#), 8).unwrap()
        };
        let two = index(r#"{"a":"m-2.safetensors","b":"m-1.safetensors"}"#).unwrap();
        assert_eq!(two.files(), ["m-1.safetensors", "m-2.safetensors"]);
        assert!(two.verify(&[shard("b"), shard("a")]).is_ok());
        for shards in [vec![shard("a"), shard("b")], vec![shard("b")], vec![shard("b"), shard("c")]] {
            assert!(matches!(two.verify(&shards), Err(CheckpointError::Index(_))));
        }
        let more = index(r#"{"a":"m-2.safetensors","b":"m-1.safetensors","c":"m-1.safetensors"}"#).unwrap();
        assert!(more.verify(&[shard("b"), shard("a")]).is_err());
    }

    #[test]
    fn configurations() {
        let config = LanguageConfig::from_json(
            br#"{"model_type":"llama","hidden_size":64,"eos_token_id":[1,2],"hidden_activation":"silu","torch_dtype":"bfloat16",
            "rope_parameters":{"rope_type":"llama3","rope_theta":500000.0,"factor":8.0}}"#,
        )
        .unwrap();
        assert_eq!((config.hidden_size, config.eos()), (64, &[1, 2][..]));
        let Some(RopeLayers::All(rope)) = config.rope_parameters else { panic!() };
        assert_eq!((rope.rope_theta, rope.factor), (Some(500_000.0), Some(8.0)));
        assert!(LanguageConfig::from_json(br#"{"hidden_size":-1}"#).is_err());
        assert!(LanguageConfig::from_json(br#"{"hidden_size":"64"}"#).is_err());
    }
}
