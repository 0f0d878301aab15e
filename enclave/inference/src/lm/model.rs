//! Weights of a model, read and packed.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use adyton_model::gguf::Gguf;

use super::architecture::{Architecture, Family, RopeScaling};
use super::forward::Scratch;
use super::loader::{GgufTensors, Loader, Tensors};
use super::rope::Rope;
use super::{KvCache, KvKind, ModelError};
use crate::arch::{Packed, Path, Pool, Screen};
use crate::idle::Idle;

/// Where the bytes of a file come from: a slice, a file, an opened sealed file.
pub trait Source: Sync {
    /// Fills `out` with the file's bytes from `offset` on.
    ///
    /// # Errors
    /// Whatever keeps the bytes away.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Says that these bytes, tensors and the padding behind them, are not read again: memory that holds them can go. It
    /// is said once of each, and from all threads.
    fn done(&self, _range: Range<u64>) {}
}

impl Source for &[u8] {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|offset| self.get(offset..));
        let bytes = from.and_then(|rest| rest.get(..out.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }
}

/// How a model is run. None of it changes results but [`Self::long_context`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads that compute. Models that are loaded with clones of one `Options` share them.
    pub pool: Arc<Pool>,
    /// Instruction-set path.
    pub path: Path,
    /// Whether an output matrix of floats is held in 8-bit codes as well, one of 16 bits half as large again: where only the
    /// largest logit counts, few rows of the matrix itself are read then.
    pub screen: bool,
    /// For models with other rotations beyond the context of training than within (LongRoPE, Phi-3): takes those of beyond,
    /// for all texts, and so long ones are possible. Otherwise sequences stay within, and such texts are computed as the
    /// model's own code does.
    pub long_context: bool,
}

impl Options {
    /// New threads, the caller's included in their number, on the best path of this processor.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self { pool: Arc::new(Pool::new(threads)), path: Path::best(), screen: true, long_context: false }
    }
}

impl Default for Options {
    /// The caller's thread alone.
    fn default() -> Self {
        Self::new(1)
    }
}

/// Feed-forward matrices of a layer.
pub(super) enum FeedForward {
    /// Gate and up (or both in one), then down.
    Dense { gate_up: Vec<Packed>, down: Packed },
    /// A router and the same for each expert.
    Experts { router: Packed, experts: Vec<(Vec<Packed>, Packed)> },
}

/// One transformer layer.
pub(super) struct Layer {
    pub(super) attention_norm: Vec<f32>,
    pub(super) qkv: Vec<Packed>,
    pub(super) qkv_bias: Option<Vec<f32>>,
    pub(super) q_norm: Option<Vec<f32>>,
    pub(super) k_norm: Option<Vec<f32>>,
    pub(super) output: Packed,
    pub(super) output_bias: Option<Vec<f32>>,
    pub(super) post_attention_norm: Option<Vec<f32>>,
    pub(super) ffn_norm: Vec<f32>,
    pub(super) ffn: FeedForward,
    pub(super) post_ffn_norm: Option<Vec<f32>>,
}

/// A model that can be run. `Debug` tells how it is wired, never its weights.
pub struct Model {
    pub(super) architecture: Architecture,
    pub(super) path: Path,
    pub(super) pool: Arc<Pool>,
    pub(super) embedding: Packed,
    pub(super) layers: Vec<Layer>,
    pub(super) output_norm: Vec<f32>,
    /// Absent where the embedding serves as output matrix.
    pub(super) output: Option<Packed>,
    pub(super) screen: Option<Screen>,
    pub(super) rope: Rope,
    pub(super) rope_local: Option<Rope>,
    pub(super) idle: Idle<Scratch>,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { architecture, path, .. } = self;
        write!(f, "Model({architecture:?}, {path})")
    }
}

impl Model {
    /// Reads and packs the weights of a file with this directory.
    ///
    /// # Errors
    /// Metadata, shapes, missing or unknown tensors, and those of `source`.
    pub fn load(gguf: &Gguf<'_>, source: &dyn Source, options: Options) -> Result<Self, ModelError> {
        Self::build(Architecture::from_gguf(gguf)?, &GgufTensors { gguf, source }, options)
    }

    pub(super) fn build(
        mut a: Architecture,
        tensors: &dyn Tensors,
        options: Options,
    ) -> Result<Self, ModelError> {
        let Options { pool, path, screen, long_context } = options;
        let mut loader = Loader::new(tensors, &pool);
        let embedding = loader.matrix("token_embd.weight", a.dim, a.vocab_size)?;
        let mut layers = Vec::new();
        for index in 0..a.n_layers {
            layers.push(layer(&mut loader, &a, index)?);
        }
        let output_norm = loader.vector("output_norm.weight", a.dim)?;
        let output = loader.has("output.weight");
        let output = output.then(|| loader.matrix("output.weight", a.dim, a.vocab_size)).transpose()?;
        let weights = output.as_ref().unwrap_or(&embedding);
        // Logits that are capped can be alike though the products are not.
        let screen = screen && a.final_cap.is_none();
        let bytes = screen.then(|| Screen::bytes(weights)).flatten().filter(|bytes| loader.has_room(*bytes));
        let screen = bytes.map(|_| Screen::new(path, &pool, weights)).transpose()?;
        let pairs = a.rope_dim / 2;
        let divisors = match a.rope_scaling {
            RopeScaling::Long { original, .. } => {
                // Which divisors apply is said beforehand, and does not depend on how long a text becomes.
                let long = loader.optional_vector("rope_factors_long.weight", pairs)?;
                let short = loader.optional_vector("rope_factors_short.weight", pairs)?;
                if long_context {
                    long
                } else {
                    a.seq_len = a.seq_len.min(original);
                    short
                }
            }
            _ => loader.optional_vector("rope_freqs.weight", pairs)?,
        };
        let rope = Rope::new(&a, a.rope_base, a.rope_scaling, divisors.as_deref());
        let rope_local = a.rope_base_local.map(|base| Rope::new(&a, base, RopeScaling::None, None));
        loader.finish()?;
        let idle = Idle::default();
        Ok(Self {
            architecture: a,
            path,
            pool,
            embedding,
            layers,
            output_norm,
            output,
            screen,
            rope,
            rope_local,
            idle,
        })
    }

    /// How the model is wired.
    #[must_use]
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The instruction-set path in use.
    #[must_use]
    pub fn path(&self) -> Path {
        self.path
    }

    /// Whether [`Self::forward_largest`] has less to read than [`Self::forward`], see [`Options::screen`].
    #[must_use]
    pub fn is_screened(&self) -> bool {
        self.screen.is_some()
    }

    /// A cache for `positions` tokens of all sequences together.
    #[must_use]
    pub fn cache(&self, kind: KvKind, positions: usize) -> KvCache {
        KvCache::new(&self.architecture, kind, positions)
    }
}

fn layer(loader: &mut Loader<'_>, a: &Architecture, index: usize) -> Result<Layer, ModelError> {
    let name = |part: &str| format!("blk.{index}.{part}");
    let (q, kv) = (a.n_heads * a.head_dim, a.n_kv_heads * a.head_dim);
    let weight = |part: &str| name(&format!("{part}.weight"));
    let qkv = if a.fused {
        vec![loader.matrix(&weight("attn_qkv"), a.dim, q + 2 * kv)?]
    } else {
        vec![
            loader.matrix(&weight("attn_q"), a.dim, q)?,
            loader.matrix(&weight("attn_k"), a.dim, kv)?,
            loader.matrix(&weight("attn_v"), a.dim, kv)?,
        ]
    };
    let mut qkv_bias = None;
    for (part, len, offset) in [("attn_q.bias", q, 0), ("attn_k.bias", kv, q), ("attn_v.bias", kv, q + kv)] {
        if let Some(bias) = loader.optional_vector(&name(part), len)? {
            qkv_bias.get_or_insert_with(|| vec![0.0; q + 2 * kv])[offset..offset + len]
                .copy_from_slice(&bias);
        }
    }
    let mut norm =
        |part: &str, len: usize, wanted: bool| wanted.then(|| loader.vector(&weight(part), len)).transpose();
    let q_norm = norm("attn_q_norm", a.head_dim, a.qk_norm)?;
    let k_norm = norm("attn_k_norm", a.head_dim, a.qk_norm)?;
    let post_attention_norm = norm("post_attention_norm", a.dim, a.post_norms)?;
    let post_ffn_norm = norm("post_ffw_norm", a.dim, a.post_norms)?;
    let ffn = match a.experts {
        Some(experts) => {
            let router = loader.matrix(&weight("ffn_gate_inp"), a.dim, experts.count)?;
            let mut all = Vec::new();
            for expert in 0..experts.count {
                let mut part = |kind: &str, columns: usize, rows: usize| {
                    loader.part(&weight(kind), columns, rows, expert, experts.count)
                };
                let gate_up = vec![
                    part("ffn_gate_exps", a.dim, a.hidden_dim)?,
                    part("ffn_up_exps", a.dim, a.hidden_dim)?,
                ];
                all.push((gate_up, part("ffn_down_exps", a.hidden_dim, a.dim)?));
            }
            FeedForward::Experts { router, experts: all }
        }
        None if a.fused => FeedForward::Dense {
            gate_up: vec![loader.matrix(&weight("ffn_up"), a.dim, 2 * a.hidden_dim)?],
            down: loader.matrix(&weight("ffn_down"), a.hidden_dim, a.dim)?,
        },
        None => FeedForward::Dense {
            gate_up: vec![
                loader.matrix(&weight("ffn_gate"), a.dim, a.hidden_dim)?,
                loader.matrix(&weight("ffn_up"), a.dim, a.hidden_dim)?,
            ],
            down: loader.matrix(&weight("ffn_down"), a.hidden_dim, a.dim)?,
        },
    };
    // Old files repeat the divisors in every layer; they are all the same.
    if a.family == Family::Llama && loader.has(&weight("rope_freqs")) {
        loader.take(&weight("rope_freqs"));
    }
    Ok(Layer {
        attention_norm: loader.vector(&weight("attn_norm"), a.dim)?,
        qkv,
        qkv_bias,
        q_norm,
        k_norm,
        output: loader.matrix(&weight("attn_output"), q, a.dim)?,
        output_bias: loader.optional_vector(&name("attn_output.bias"), a.dim)?,
        post_attention_norm,
        ffn_norm: loader.vector(&weight("ffn_norm"), a.dim)?,
        ffn,
        post_ffn_norm,
    })
}
