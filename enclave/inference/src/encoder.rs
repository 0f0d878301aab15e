//! BERT encoders: texts become vectors, and pairs of texts scores.
//!
//! What: the forward pass of MiniLM, BGE and E5 with mean or CLS pooling, and of cross-encoders with a classifier behind
//! the first token; from Hugging Face folders and GGUF files. Why: embeddings are what documents are searched by, and
//! scores what the finds are sorted by. Flow: texts are tokenised, cut to the longest length, computed together without
//! padding, pooled and normalised, or classified. Results are a function of the weights and the one text, bit for bit,
//! whatever it was computed with.

use std::fmt;
use std::sync::Arc;

use adyton_model::encoder::{EncoderConfig, EncoderError, EncoderTensors};
use adyton_model::gguf::{Gguf, GgufError, TensorInfo};

use crate::arch::{Activations, Elementwise, Forms, Lines, PackError, Packed, Path, Pool, matmul};
use crate::dense::math::tanh;
use crate::encoder_files::FolderTensors;
use crate::idle::Idle;
use crate::lm::architecture::narrow;
use crate::lm::attention::{Attention, Span, store};
use crate::lm::loader::{GgufTensors, Loader};
use crate::lm::{
    Activation, Architecture, Family, KvCache, KvKind, ModelError, Options, RopePairs, RopeScaling, Sequence,
    Source,
};

/// Why an encoder was refused or texts not encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Its files.
    #[error(transparent)]
    File(#[from] EncoderError),
    /// A matrix cannot be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Its metadata or tensors, or a text's tokens cannot be computed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Scores are wanted of a model without a classifier.
    #[error("this encoder has no classifier, so it gives vectors and no scores; use a reranking model")]
    NoClassifier,
    /// Not one segment, 0 or 1, for each token.
    #[error("segments must be 0 or 1 and as many as tokens")]
    Segments,
}

/// How the vectors of a text's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// The first one, of `[CLS]`.
    Cls,
}

/// The texts of a batch, each as tokens and their segments.
type Texts<'a> = &'a [(&'a [u32], &'a [u32])];

struct Linear {
    weights: Packed,
    bias: Vec<f32>,
}

struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

struct Layer {
    qkv: [Packed; 3],
    qkv_bias: Vec<f32>,
    output: Linear,
    output_norm: Norm,
    up: Linear,
    down: Linear,
    down_norm: Norm,
}

/// An encoder that can be run. `Debug` tells how it is wired, never its weights.
pub struct Encoder {
    architecture: Architecture,
    path: Path,
    pool: Arc<Pool>,
    words: Packed,
    /// Position plus segment, for each segment.
    positions: Vec<Vec<f32>>,
    pooling: Pooling,
    classifier: Option<Classifier>,
    norm: Norm,
    layers: Vec<Layer>,
    epsilon: f32,
    idle: Idle<Room>,
}

/// What makes scores of the first token's vector: a layer with tanh, if there is one, and the scores' own.
struct Classifier {
    dense: Option<Linear>,
    output: Linear,
}

/// What a batch is computed in.
#[derive(Default)]
struct Room {
    activations: Activations,
    x: Lines<f32>,
    qkv: Lines<f32>,
    mixed: Lines<f32>,
    wide: Lines<f32>,
    y: Lines<f32>,
}

/// Tokens that all threads compute together, about,
const BATCH_TOKENS: usize = 4096;
/// and those that one thread computes alone where there are enough of them: what lies between the products then stays near
/// its core. With half as many weights pass by twice as often, and with twice as many less stays near: both were slower.
const THREAD_TOKENS: usize = 256;
/// Rows of one part of what stands between the products.
const ROWS: usize = 8;

/// Most scores of a classifier.
const MAX_SCORES: u64 = 1 << 12;

fn linear(t: &mut Loader<'_>, name: &str, columns: usize, rows: usize) -> Result<Linear, ModelError> {
    let weights = t.matrix(&format!("{name}.weight"), columns, rows)?;
    Ok(Linear { weights, bias: t.vector(&format!("{name}.bias"), rows)? })
}

fn norm(t: &mut Loader<'_>, name: &str, dim: usize) -> Result<Norm, ModelError> {
    let weight = t.vector(&format!("{name}.weight"), dim)?;
    Ok(Norm { weight, bias: t.vector(&format!("{name}.bias"), dim)? })
}

/// `config.json` as the metadata of a GGUF file has it, and the pooling.
fn gguf_config(gguf: &Gguf<'_>) -> Result<(EncoderConfig, Pooling), EncodeError> {
    let prefix = gguf.text("general.architecture").map_err(ModelError::from)?.unwrap_or_default();
    if prefix != "bert" {
        return Err(ModelError::Architecture(prefix.chars().take(64).collect()).into());
    }
    let wrong = |name: &str, got: u64| ModelError::Metadata {
        key: name.to_owned(),
        got: got.to_string(),
        want: "a count that real models have",
    };
    let size = |name: &str, value: u64| usize::try_from(value).map_err(|_| wrong(name, value));
    let count = |name: &str| {
        let key = format!("bert.{name}");
        let value = gguf.integer(&key)?.ok_or_else(|| GgufError::MissingKey(key.clone()))?;
        size(&key, value)
    };
    let rows = |name: &str| {
        let tensor = gguf.tensor(name).ok_or_else(|| ModelError::MissingTensor(name.to_owned()))?;
        size(name, tensor.rows())
    };
    let epsilon = gguf.number("bert.attention.layer_norm_epsilon").map_err(ModelError::from)?;
    let config = EncoderConfig {
        vocab_size: rows("token_embd.weight")?,
        hidden_size: count("embedding_length")?,
        num_hidden_layers: count("block_count")?,
        num_attention_heads: count("attention.head_count")?,
        intermediate_size: count("feed_forward_length")?,
        max_position_embeddings: rows("position_embd.weight")?,
        type_vocab_size: rows("token_types.weight")?,
        layer_norm_eps: narrow(epsilon.unwrap_or(1e-12)),
        hidden_act: "gelu".to_owned(),
        model_type: "bert".to_owned(),
        pad_token_id: None,
        position_embedding_type: None,
    };
    // The same limits as for `config.json`.
    let config = config.verified()?;
    let pooling = match gguf.integer("bert.pooling_type").map_err(ModelError::from)? {
        None | Some(1) => Pooling::Mean,
        // Scores are made of the first token.
        Some(2 | 4) => Pooling::Cls,
        Some(other) => {
            return Err(ModelError::Metadata {
                key: "bert.pooling_type".to_owned(),
                got: other.to_string(),
                want: "1 (mean), 2 (CLS) and 4 (rank) are computed here",
            }
            .into());
        }
    };
    Ok((config, pooling))
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { architecture, path, .. } = self;
        write!(f, "Encoder({architecture:?}, {path})")
    }
}

/// Makes a result of the rows of one text, given with their length.
type Finish<'a> = dyn Fn(&[f32], usize) -> Vec<f32> + Sync + 'a;

impl Encoder {
    /// Packs the weights of a Hugging Face folder. Vectors are means unless [`Self::with_pooling`] says otherwise.
    ///
    /// # Errors
    /// Missing tensors and wrong shapes.
    pub fn load(
        config: &EncoderConfig,
        tensors: &EncoderTensors<'_>,
        options: Options,
    ) -> Result<Self, EncodeError> {
        let folder = FolderTensors::new(config, tensors);
        let labels = folder.labels();
        let pool = options.pool.clone();
        let mut loader = Loader::new(&folder, &pool);
        Ok(Self::build(config, &mut loader, labels, options)?)
    }

    /// Packs the weights of a GGUF file; its metadata says how tokens become one vector.
    ///
    /// # Errors
    /// Metadata, missing and unknown tensors and wrong shapes.
    pub fn from_gguf(gguf: &Gguf<'_>, source: &dyn Source, options: Options) -> Result<Self, EncodeError> {
        let (config, pooling) = gguf_config(gguf)?;
        let tensors = GgufTensors { gguf, source };
        let pool = options.pool.clone();
        let mut loader = Loader::new(&tensors, &pool);
        let labels = gguf.tensor("cls.output.weight").map(TensorInfo::rows);
        let encoder = Self::build(&config, &mut loader, labels, options)?;
        loader.finish()?;
        Ok(Self { pooling, ..encoder })
    }

    fn build(
        config: &EncoderConfig,
        t: &mut Loader<'_>,
        labels: Option<u64>,
        options: Options,
    ) -> Result<Self, ModelError> {
        let (dim, hidden) = (config.hidden_size, config.intermediate_size);
        let words = t.matrix("token_embd.weight", dim, config.vocab_size)?;
        let first = config.first_position();
        let places = t.matrix("position_embd.weight", dim, config.max_position_embeddings)?;
        let types = t.matrix("token_types.weight", dim, config.type_vocab_size)?;
        let mut positions = Vec::new();
        for segment in 0..config.type_vocab_size.min(2) {
            let (mut table, mut add) = (vec![0.0; dim * (places.rows() - first)], vec![0.0; dim]);
            types.row(segment, &mut add);
            for (row, out) in table.chunks_exact_mut(dim).enumerate() {
                places.row(first + row, out);
                out.iter_mut().zip(&add).for_each(|(x, segment)| *x += segment);
            }
            positions.push(table);
        }
        let mut layers = Vec::new();
        for index in 0..config.num_hidden_layers {
            let name = |part: &str| format!("blk.{index}.{part}");
            let mut qkv_bias = Vec::with_capacity(3 * dim);
            for part in ["attn_q.bias", "attn_k.bias", "attn_v.bias"] {
                qkv_bias.extend(t.vector(&name(part), dim)?);
            }
            let mut part = |part: &str| t.matrix(&name(part), dim, dim);
            layers.push(Layer {
                qkv: [part("attn_q.weight")?, part("attn_k.weight")?, part("attn_v.weight")?],
                qkv_bias,
                output: linear(t, &name("attn_output"), dim, dim)?,
                output_norm: norm(t, &name("attn_output_norm"), dim)?,
                up: linear(t, &name("ffn_up"), dim, hidden)?,
                down: linear(t, &name("ffn_down"), hidden, dim)?,
                down_norm: norm(t, &name("layer_output_norm"), dim)?,
            });
        }
        let classifier = match labels {
            None => None,
            Some(labels) => {
                let rows = usize::try_from(labels.clamp(1, MAX_SCORES)).unwrap_or(1);
                let dense = t.has("cls.weight").then(|| linear(t, "cls", dim, dim)).transpose()?;
                Some(Classifier { dense, output: linear(t, "cls.output", dim, rows)? })
            }
        };
        Ok(Self {
            architecture: architecture(config),
            path: options.path,
            pool: options.pool,
            words,
            positions,
            pooling: Pooling::Mean,
            classifier,
            norm: norm(t, "token_embd_norm", dim)?,
            layers,
            epsilon: config.layer_norm_eps,
            idle: Idle::default(),
        })
    }

    /// The same encoder with another pooling.
    #[must_use]
    pub fn with_pooling(self, pooling: Pooling) -> Self {
        Self { pooling, ..self }
    }

    /// How tokens become one vector, as the file says.
    #[must_use]
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Elements of a vector.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.architecture.dim
    }

    /// Longest text, tokens.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.architecture.seq_len
    }

    /// One vector of length 1 for each text, given as tokens with those around it.
    ///
    /// # Errors
    /// [`ModelError::EmptyPrompt`], [`ModelError::ContextFull`] or [`ModelError::Token`].
    pub fn embed(&self, texts: &[Vec<u32>], pooling: Pooling) -> Result<Vec<Vec<f32>>, EncodeError> {
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        let zeros = vec![0; longest];
        let all: Vec<(&[u32], &[u32])> =
            texts.iter().map(|text| (text.as_slice(), &zeros[..text.len()])).collect();
        self.run(&all, &|rows, dim| pool_rows(rows, dim, pooling))
    }

    /// The classifier's scores of each pair of texts, given as tokens and segments; for reranking models one number,
    /// the higher the better the second text answers the first.
    ///
    /// # Errors
    /// [`EncodeError::NoClassifier`], [`EncodeError::Segments`], and those of [`Self::embed`].
    pub fn score(&self, pairs: &[(Vec<u32>, Vec<u32>)]) -> Result<Vec<Vec<f32>>, EncodeError> {
        let classifier = self.classifier.as_ref().ok_or(EncodeError::NoClassifier)?;
        let all: Vec<(&[u32], &[u32])> =
            pairs.iter().map(|(tokens, segments)| (tokens.as_slice(), segments.as_slice())).collect();
        self.run(&all, &|rows, dim| {
            let mut activations = Activations::default();
            let mut x = rows[..dim].to_vec();
            if let Some(dense) = &classifier.dense {
                x = self.product(&mut activations, &x, dim, &[&dense.weights], &dense.bias);
                x.iter_mut().for_each(|x| *x = narrow(tanh(f64::from(*x))));
            }
            let output = &classifier.output;
            self.product(&mut activations, &x, dim, &[&output.weights], &output.bias)
        })
    }

    /// Computes texts and gives the rows of each to `finish`.
    fn run(&self, texts: Texts<'_>, finish: &Finish<'_>) -> Result<Vec<Vec<f32>>, EncodeError> {
        let a = &self.architecture;
        for (text, segments) in texts {
            if text.is_empty() {
                return Err(ModelError::EmptyPrompt.into());
            }
            if text.len() > a.seq_len {
                return Err(ModelError::ContextFull { len: text.len(), seq_len: a.seq_len }.into());
            }
            if let Some(token) = text.iter().find(|token| **token as usize >= a.vocab_size) {
                return Err(ModelError::Token { token: *token, vocab_size: a.vocab_size }.into());
            }
            if text.len() != segments.len()
                || segments.iter().any(|segment| *segment as usize >= self.positions.len())
            {
                return Err(EncodeError::Segments);
            }
        }
        let compute = |batch: Texts<'_>| -> Result<Vec<Vec<f32>>, EncodeError> {
            let mut room = self.idle.take();
            self.batch(batch, &mut room)?;
            let mut rest = &*room.x;
            let rows = batch.iter().map(|(text, _)| {
                let (rows, after) = rest.split_at(text.len() * a.dim);
                rest = after;
                finish(rows, a.dim)
            });
            let results = rows.collect();
            self.idle.give_back(room);
            Ok(results)
        };
        let alone = split(texts, THREAD_TOKENS);
        let mut results = Vec::new();
        if keeps_busy(&alone, self.pool.threads()) {
            results.resize_with(alone.len(), || Ok(Vec::new()));
            self.pool.chunks_mut(&mut results, 1, |index, result| result[0] = compute(alone[index]));
        } else {
            results.extend(split(texts, BATCH_TOKENS).into_iter().map(compute));
        }
        let vectors: Result<Vec<_>, _> = results.into_iter().collect();
        Ok(vectors?.into_iter().flatten().collect())
    }

    /// Leaves the vectors of all tokens, one after the other, in `room.x`.
    fn batch(&self, texts: Texts<'_>, room: &mut Room) -> Result<(), EncodeError> {
        let (a, f) = (&self.architecture, Elementwise::new(self.path));
        let dim = a.dim;
        let places: Vec<(usize, u32, u32)> = texts
            .iter()
            .flat_map(|(text, segments)| {
                text.iter()
                    .zip(*segments)
                    .enumerate()
                    .map(|(position, (token, segment))| (position, *token, *segment))
            })
            .collect();
        let Room { activations, x, qkv, mixed, wide, y } = room;
        // Every element of all of them is written before it is read.
        x.resize(places.len() * dim);
        mixed.resize(places.len() * dim);
        self.pool.chunks_mut(x, ROWS * dim, |part, x| {
            let mut sum = vec![0.0; dim];
            for (out, (position, token, segment)) in x.chunks_exact_mut(dim).zip(&places[part * ROWS..]) {
                self.words.row(*token as usize, &mut sum);
                f.add(&mut sum, &self.positions[*segment as usize][position * dim..][..dim]);
                f.layer_norm(&sum, &self.norm.weight, &self.norm.bias, self.epsilon, out);
            }
        });
        let texts: Vec<&[u32]> = texts.iter().map(|(text, _)| *text).collect();
        let positions = texts.iter().map(|text| text.len().next_multiple_of(16)).sum();
        let mut cache = KvCache::new(a, KvKind::F32, positions);
        let mut sequences: Vec<Sequence> = texts.iter().map(|_| Sequence::default()).collect();
        for (sequence, text) in sequences.iter_mut().zip(&texts) {
            cache.reserve(sequence, text.len())?;
        }
        let mut spans = Vec::new();
        let mut first = 0;
        for (sequence, text) in sequences.iter().zip(&texts) {
            spans.push(Span { first, count: text.len(), start: 0, sequence });
            first += text.len();
        }
        for layer in &self.layers {
            let stack: Vec<&Packed> = layer.qkv.iter().collect();
            self.multiply(activations, (x, dim), &stack, qkv);
            self.pool.chunks_mut(qkv, 3 * dim, |_, row| f.add(row, &layer.qkv_bias));
            store(self.path, &self.pool, &mut cache, 0, &spans, (qkv, 3 * dim), a);
            let attention = Attention {
                path: self.path,
                architecture: a,
                cache: &cache,
                layer: 0,
                qkv,
                stride: 3 * dim,
                causal: false,
            };
            attention.run(&self.pool, &spans, mixed);
            self.multiply(activations, (mixed, dim), &[&layer.output.weights], y);
            self.residual(x, y, &layer.output.bias, &layer.output_norm);
            self.multiply(activations, (x, dim), &[&layer.up.weights], wide);
            self.pool.chunks_mut(wide, a.hidden_dim, |_, row| {
                f.add(row, &layer.up.bias);
                f.gelu_exact(row);
            });
            self.multiply(activations, (wide, a.hidden_dim), &[&layer.down.weights], y);
            self.residual(x, y, &layer.down.bias, &layer.down_norm);
        }
        Ok(())
    }

    /// `out = stack . x` for rows of `len` elements.
    fn multiply(
        &self,
        activations: &mut Activations,
        (x, len): (&[f32], usize),
        stack: &[&Packed],
        out: &mut Lines<f32>,
    ) {
        let n = x.len() / len;
        let column = |i: usize| &x[i * len..(i + 1) * len];
        activations.take(self.path, &self.pool, (n, len), Forms::of(stack), column);
        // Every element is written.
        out.resize(n * stack.iter().map(|weights| weights.rows()).sum::<usize>());
        matmul(self.path, &self.pool, activations, stack, out);
    }

    /// `stack . x + bias` for rows of `len` elements.
    fn product(
        &self,
        activations: &mut Activations,
        x: &[f32],
        len: usize,
        stack: &[&Packed],
        bias: &[f32],
    ) -> Vec<f32> {
        let mut out = Lines::default();
        self.multiply(activations, (x, len), stack, &mut out);
        let f = Elementwise::new(self.path);
        self.pool.chunks_mut(&mut out, bias.len(), |_, row| f.add(row, bias));
        out.to_vec()
    }

    /// `x = norm(x + (y + bias))`.
    fn residual(&self, x: &mut [f32], y: &[f32], bias: &[f32], norm: &Norm) {
        let (f, dim) = (Elementwise::new(self.path), self.architecture.dim);
        self.pool.chunks_mut(x, ROWS * dim, |part, x| {
            let mut sum = vec![0.0; dim];
            for (x, y) in x.chunks_exact_mut(dim).zip(y[part * ROWS * dim..].chunks_exact(dim)) {
                f.sum(x, y, bias, &mut sum);
                f.layer_norm(&sum, &norm.weight, &norm.bias, self.epsilon, x);
            }
        });
    }
}

/// Texts in batches of at most so many tokens, or of one text.
fn split<'a>(texts: Texts<'a>, max_tokens: usize) -> Vec<Texts<'a>> {
    let (mut batches, mut rest) = (Vec::new(), texts);
    while !rest.is_empty() {
        let mut tokens = 0;
        let count = rest.iter().take_while(|(text, _)| {
            tokens += text.len();
            tokens <= max_tokens
        });
        let (batch, after) = rest.split_at(count.count().max(1));
        batches.push(batch);
        rest = after;
    }
    batches
}

/// Whether threads that compute a batch each hardly wait for the last of them: even if each batch were as long as the
/// longest, all rounds together would take at most an eighth more than the tokens there are.
fn keeps_busy(batches: &[Texts<'_>], threads: usize) -> bool {
    let tokens = |batch: &Texts<'_>| batch.iter().map(|(text, _)| text.len()).sum::<usize>();
    let longest = batches.iter().map(tokens).max().unwrap_or(0);
    let all: usize = batches.iter().map(tokens).sum();
    longest * batches.len().next_multiple_of(threads) <= all + all / 8
}

/// One vector of length 1 for the rows of a text.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "token counts, and rounding to f32"
)]
fn pool_rows(rows: &[f32], dim: usize, pooling: Pooling) -> Vec<f32> {
    let mut sum = vec![0f64; dim];
    let count = match pooling {
        Pooling::Mean => rows.len() / dim,
        Pooling::Cls => 1,
    };
    for row in rows.chunks_exact(dim).take(count) {
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    sum.iter_mut().for_each(|x| *x /= count as f64);
    let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12);
    sum.into_iter().map(|x| (x / length) as f32).collect()
}

/// What attention needs to know. Keys and values of one layer are held at a time.
fn architecture(config: &EncoderConfig) -> Architecture {
    let head_dim = config.hidden_size / config.num_attention_heads;
    #[expect(clippy::cast_precision_loss, reason = "dimensions")]
    let attention_scale = 1.0 / (head_dim as f32).sqrt();
    Architecture {
        family: Family::Bert,
        dim: config.hidden_size,
        hidden_dim: config.intermediate_size,
        n_layers: 1,
        n_heads: config.num_attention_heads,
        n_kv_heads: config.num_attention_heads,
        head_dim,
        vocab_size: config.vocab_size,
        seq_len: config.max_position_embeddings - config.first_position(),
        epsilon: config.layer_norm_eps,
        rope_pairs: RopePairs::Halves,
        rope_dim: 0,
        rope_base: 1.0,
        rope_base_local: None,
        rope_scaling: RopeScaling::None,
        window: None,
        global_every: 0,
        unrotated_every: 0,
        activation: Activation::Gelu,
        embedding_scale: 1.0,
        attention_scale,
        attention_cap: None,
        final_cap: None,
        qk_norm: false,
        post_norms: true,
        fused: false,
        experts: None,
    }
}
