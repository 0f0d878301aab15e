//! How each family is wired, from the metadata of a file.

use adyton_model::gguf::{Gguf, GgufError};

use super::ModelError;
use crate::dense::math::ln;

/// The families that are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "their own names")]
pub enum Family {
    /// Llama 1 to 3, Mistral, Mixtral, SmolLM.
    Llama,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    Gemma2,
    Gemma3,
    Phi3,
    /// Encoders: BERT, MiniLM, BGE, E5.
    Bert,
}

impl Family {
    /// Which dimensions of a head turn together, in the order of rows that GGUF files have.
    pub(super) const fn rope_pairs(self) -> RopePairs {
        match self {
            Self::Llama => RopePairs::Adjacent,
            _ => RopePairs::Halves,
        }
    }
}

/// Which elements of a head are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairs {
    /// `2i` and `2i + 1`: the rows of llama files are permuted for this.
    Adjacent,
    /// `i` and `i + half`.
    Halves,
}

/// The nonlinearity of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "their own names")]
pub enum Activation {
    Silu,
    /// The tanh form.
    Gelu,
}

/// How rotations are slowed down beyond the context of training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all, or by the divisors in `rope_freqs.weight`.
    None,
    /// All frequencies are divided.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// YaRN (arXiv 2309.00071): low frequencies are divided, high ones kept.
    Yarn {
        /// The divisor.
        factor: f64,
        /// Context of training.
        original: usize,
        /// Extra factor on sine and cosine.
        attention: f64,
        /// Rotations within the context of training above which a frequency is kept, and below which it is divided.
        rotations: (f64, f64),
    },
    /// Divisors in `rope_factors_short.weight` and `rope_factors_long.weight`.
    Long {
        /// Context of training.
        original: usize,
        /// Factor on sine and cosine.
        attention: f64,
    },
}

/// Mixture of experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experts {
    /// Experts of a layer.
    pub count: usize,
    /// Experts a token goes to.
    pub used: usize,
}

/// Everything about a model that is not a weight.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the field's usual names")]
pub struct Architecture {
    pub family: Family,
    pub dim: usize,
    pub hidden_dim: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub vocab_size: usize,
    /// Longest sequence, tokens.
    pub seq_len: usize,
    pub epsilon: f32,
    pub rope_pairs: RopePairs,
    /// Rotated elements of a head.
    pub rope_dim: usize,
    pub rope_base: f64,
    /// Base of window layers where it differs.
    pub rope_base_local: Option<f64>,
    pub rope_scaling: RopeScaling,
    /// Positions a window layer sees, the token's own included.
    pub window: Option<usize>,
    /// Every how many layers one sees everything; 0: none, all have the window.
    pub global_every: usize,
    /// Every how many layers one rotates nothing; 0: all rotate.
    pub unrotated_every: usize,
    pub activation: Activation,
    /// Factor on the embedding.
    pub embedding_scale: f32,
    /// Factor on attention scores.
    pub attention_scale: f32,
    pub attention_cap: Option<f32>,
    pub final_cap: Option<f32>,
    /// RMS norms of each query and key head.
    pub qk_norm: bool,
    /// RMS norms after attention and feed-forward, before the residual.
    pub post_norms: bool,
    /// Q, K and V in one tensor, gate and up in another.
    pub fused: bool,
    pub experts: Option<Experts>,
}

/// Reads keys under the architecture's prefix.
struct Keys<'a> {
    gguf: &'a Gguf<'a>,
    prefix: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn optional(&self, name: &str, max: usize) -> Result<Option<usize>, ModelError> {
        let key = self.key(name);
        // Some files give one value for each layer; only uniform ones are computed.
        let value = match self.gguf.array(&key) {
            Ok(Some(array)) => {
                let mut values = array.iter().map(|value| value.as_u64());
                let first = values.next().flatten();
                let uniform = first.is_some() && values.all(|value| value == first);
                first.filter(|_| uniform).map(Some).ok_or_else(|| ModelError::Metadata {
                    key: key.clone(),
                    got: format!("an array of {} values", array.len()),
                    want: "only one count for all layers is computed here",
                })?
            }
            _ => self.gguf.integer(&key)?,
        };
        match value.map(usize::try_from) {
            None => Ok(None),
            Some(Ok(value)) if (1..=max).contains(&value) => Ok(Some(value)),
            Some(value) => Err(ModelError::Metadata {
                key,
                got: format!("{value:?}"),
                want: "a count that real models have, the same for all layers",
            }),
        }
    }

    fn count(&self, name: &str, max: usize) -> Result<usize, ModelError> {
        self.optional(name, max)?.ok_or_else(|| ModelError::Gguf(GgufError::MissingKey(self.key(name))))
    }

    /// As [`Self::optional`], for keys that files also write as 0 where there is none.
    fn unless_zero(&self, name: &str, max: usize) -> Result<Option<usize>, ModelError> {
        match self.gguf.integer(&self.key(name)) {
            Ok(Some(0)) => Ok(None),
            _ => self.optional(name, max),
        }
    }

    fn number(&self, name: &str) -> Result<Option<f64>, ModelError> {
        let key = self.key(name);
        match self.gguf.number(&key)? {
            Some(value) if !value.is_finite() || value < 0.0 => Err(ModelError::Metadata {
                key,
                got: value.to_string(),
                want: "a finite number that is not negative",
            }),
            value => Ok(value),
        }
    }

    fn cap(&self, name: &str, default: f64) -> Result<Option<f32>, ModelError> {
        Ok(Some(narrow(self.number(name)?.unwrap_or(default))).filter(|cap| *cap > 0.0))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
pub(crate) fn narrow(x: f64) -> f32 {
    x as f32
}

#[expect(clippy::cast_precision_loss, reason = "counts below 2^24")]
pub(super) fn float(count: usize) -> f32 {
    count as f32
}

impl Architecture {
    /// Reads the description of a file.
    ///
    /// # Errors
    /// [`ModelError::Architecture`] for an unknown family, and what is wrong with the metadata.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, ModelError> {
        let prefix = gguf.text("general.architecture")?;
        let prefix = prefix.ok_or_else(|| GgufError::MissingKey("general.architecture".to_owned()))?;
        let family = match prefix {
            "llama" | "mistral" | "smollm3" => Family::Llama,
            "qwen2" => Family::Qwen2,
            "qwen3" => Family::Qwen3,
            "qwen3moe" => Family::Qwen3Moe,
            "gemma2" => Family::Gemma2,
            "gemma3" => Family::Gemma3,
            "phi3" => Family::Phi3,
            other => return Err(ModelError::Architecture(other.chars().take(64).collect())),
        };
        let keys = Keys { gguf, prefix };
        let dim = keys.count("embedding_length", 1 << 17)?;
        let n_heads = keys.count("attention.head_count", 1 << 12)?;
        let n_kv_heads = keys.optional("attention.head_count_kv", n_heads)?.unwrap_or(n_heads);
        let head_dim = keys.optional("attention.key_length", 1 << 12)?.unwrap_or((dim / n_heads).max(1));
        let n_layers = keys.count("block_count", 1 << 10)?;
        let seq_len = keys.count("context_length", 1 << 24)?;
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(ModelError::Metadata {
                key: keys.key("attention.head_count_kv"),
                got: n_kv_heads.to_string(),
                want: "a divisor of attention.head_count",
            });
        }
        let gemma = matches!(family, Family::Gemma2 | Family::Gemma3);
        let experts = match keys.unless_zero("expert_count", 1 << 12)? {
            Some(count) => Some(Experts { count, used: keys.count("expert_used_count", count)? }),
            None => None,
        };
        let hidden_dim = match keys.optional("expert_feed_forward_length", 1 << 20)? {
            Some(hidden) if experts.is_some() => hidden,
            _ => keys.count("feed_forward_length", 1 << 20)?,
        };
        let vocab_size = gguf
            .tensor("token_embd.weight")
            .and_then(|tensor| usize::try_from(tensor.rows()).ok())
            .ok_or_else(|| ModelError::MissingTensor("token_embd.weight".to_owned()))?;
        vocabulary(gguf, prefix, vocab_size)?;
        let value_dim = keys.optional("attention.value_length", 1 << 12)?.unwrap_or(head_dim);
        if value_dim != head_dim {
            return Err(ModelError::Metadata {
                key: keys.key("attention.value_length"),
                got: value_dim.to_string(),
                want: "only values as long as keys are computed here",
            });
        }
        let rope_dim = keys.optional("rope.dimension_count", head_dim)?.unwrap_or(head_dim);
        if !rope_dim.is_multiple_of(2) {
            return Err(ModelError::Metadata {
                key: keys.key("rope.dimension_count"),
                got: rope_dim.to_string(),
                want: "an even number",
            });
        }
        let window = keys.unless_zero("attention.sliding_window", u32::MAX as usize)?;
        // The largest models of the Gemma families divide by another square root.
        let large = matches!((family, n_layers), (Family::Gemma2, 46) | (Family::Gemma3, 62));
        let attention_scale = 1.0 / float(if large { dim / n_heads } else { head_dim }).sqrt();
        Ok(Self {
            family,
            dim,
            hidden_dim,
            n_layers,
            n_heads,
            n_kv_heads,
            head_dim,
            vocab_size,
            seq_len,
            epsilon: narrow(keys.number("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5)),
            rope_pairs: family.rope_pairs(),
            rope_dim,
            rope_base: keys.number("rope.freq_base")?.unwrap_or(10_000.0).max(1.0),
            rope_base_local: match family {
                Family::Gemma3 => Some(keys.number("rope.freq_base_swa")?.unwrap_or(10_000.0).max(1.0)),
                _ => None,
            },
            rope_scaling: rope_scaling(&keys, seq_len)?,
            window,
            global_every: match family {
                Family::Gemma2 => 2,
                Family::Gemma3 => keys.optional("attention.sliding_window_pattern", 1 << 10)?.unwrap_or(6),
                _ => 0,
            },
            unrotated_every: if prefix == "smollm3" { 4 } else { 0 },
            activation: if gemma { Activation::Gelu } else { Activation::Silu },
            embedding_scale: if gemma { float(dim).sqrt() } else { 1.0 },
            attention_scale: keys.number("attention.scale")?.map_or(attention_scale, narrow),
            attention_cap: keys
                .cap("attn_logit_softcapping", if family == Family::Gemma2 { 50.0 } else { 0.0 })?,
            final_cap: keys
                .cap("final_logit_softcapping", if family == Family::Gemma2 { 30.0 } else { 0.0 })?,
            qk_norm: matches!(family, Family::Qwen3 | Family::Qwen3Moe | Family::Gemma3),
            post_norms: gemma,
            fused: family == Family::Phi3,
            experts,
        })
    }

    /// The window of a layer, if it has one.
    #[must_use]
    pub fn window(&self, layer: usize) -> Option<usize> {
        let global = self.global_every > 0 && (layer + 1).is_multiple_of(self.global_every);
        self.window.filter(|_| !global)
    }

    /// Whether the queries and keys of a layer are rotated.
    #[must_use]
    pub fn rotates(&self, layer: usize) -> bool {
        self.unrotated_every == 0 || !(layer + 1).is_multiple_of(self.unrotated_every)
    }
}

/// Every token must have its row, or tokens of the text would be others to the model.
fn vocabulary(gguf: &Gguf<'_>, prefix: &str, rows: usize) -> Result<(), ModelError> {
    let tokens = match gguf.array("tokenizer.ggml.tokens")? {
        Some(tokens) => Some(tokens.len() as u64),
        None => gguf.integer(&format!("{prefix}.vocab_size"))?,
    };
    match tokens {
        Some(tokens) if tokens != rows as u64 => Err(ModelError::Vocabulary { tokens, rows }),
        _ => Ok(()),
    }
}

/// What YaRN multiplies sines and cosines by.
pub(super) fn yarn_attention(factor: f64) -> f64 {
    1.0 + 0.1 * ln(factor)
}

fn rope_scaling(keys: &Keys<'_>, seq_len: usize) -> Result<RopeScaling, ModelError> {
    let key = keys.key("rope.scaling.type");
    // Older files have only `rope.scale_linear`.
    let factor = keys.number("rope.scaling.factor")?.or(keys.number("rope.scale_linear")?);
    let factor = factor.unwrap_or(1.0).max(1.0);
    let original = keys.optional("rope.scaling.original_context_length", 1 << 24)?.unwrap_or(seq_len);
    let attention = keys.number("rope.scaling.attn_factor")?;
    match keys.gguf.text(&key)? {
        Some("yarn") => {
            // What no family here is written with.
            for (name, usual) in [("yarn_ext_factor", 1.0), ("yarn_log_multiplier", 0.0)] {
                let name = format!("rope.scaling.{name}");
                if let Some(other) = keys.number(&name)?.filter(|value| *value != usual) {
                    let (key, got) = (keys.key(&name), other.to_string());
                    return Err(ModelError::Metadata {
                        key,
                        got,
                        want: "only the usual value is computed here",
                    });
                }
            }
            let rotations = |name: &str| keys.number(&format!("rope.scaling.yarn_beta_{name}"));
            let rotations = (rotations("fast")?.unwrap_or(32.0), rotations("slow")?.unwrap_or(1.0));
            // Newer files give the whole factor, older ones what it is multiplied by.
            let whole = keys.number("rope.scaling.yarn_attn_factor")?;
            let attention = match (whole, attention) {
                (Some(whole), None) => whole / yarn_attention(factor),
                (_, attention) => attention.unwrap_or(1.0),
            };
            Ok(RopeScaling::Yarn { factor, original, attention, rotations })
        }
        Some("longrope") => Ok(RopeScaling::Long { original, attention: attention.unwrap_or(1.0) }),
        None if keys.gguf.tensor("rope_factors_short.weight").is_some() => {
            Ok(RopeScaling::Long { original, attention: attention.unwrap_or(1.0) })
        }
        None | Some("linear") if factor > 1.0 => Ok(RopeScaling::Linear { factor }),
        None | Some("none" | "linear") => Ok(RopeScaling::None),
        Some(other) => Err(ModelError::Metadata {
            key,
            got: other.chars().take(64).collect(),
            want: "none, linear, yarn and longrope are known",
        }),
    }
}
