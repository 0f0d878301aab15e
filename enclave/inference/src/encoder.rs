//! BERT encoders: texts become vectors.
//!
//! What: the forward pass of MiniLM, BGE and E5 with mean or CLS pooling. Why: embeddings are what documents are searched
//! by. Flow: texts are tokenised, cut to the longest length, computed together without padding, pooled and normalised.
//! Results are a function of the weights and the one text, bit for bit, whatever it was computed with.

use adyton_model::encoder::{EncoderConfig, EncoderError, EncoderTensors};
use adyton_model::quant::TensorType;

use crate::arch::{Activations, Elementwise, PackError, Packed, Path, Pool, matmul};
use crate::lm::attention::{Attention, Span, store};
use crate::lm::{
    Activation, Architecture, Family, KvCache, KvKind, ModelError, Options, RopePairs, RopeScaling, Sequence,
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
    /// A text's tokens cannot be computed.
    #[error(transparent)]
    Model(#[from] ModelError),
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

#[derive(Debug)]
struct Linear {
    weights: Packed,
    bias: Vec<f32>,
}

#[derive(Debug)]
struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

#[derive(Debug)]
struct Layer {
    qkv: [Packed; 3],
    qkv_bias: Vec<f32>,
    output: Linear,
    output_norm: Norm,
    up: Linear,
    down: Linear,
    down_norm: Norm,
}

/// An encoder that can be run.
#[derive(Debug)]
pub struct Encoder {
    architecture: Architecture,
    path: Path,
    pool: Pool,
    words: Vec<f32>,
    /// Position plus segment 0.
    positions: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
    epsilon: f32,
}

/// Tokens computed together, about.
const BATCH_TOKENS: usize = 4096;

fn linear(t: &EncoderTensors<'_>, name: &str, columns: usize, rows: usize) -> Result<Linear, EncodeError> {
    let weights = packed(t, name, columns, rows)?;
    Ok(Linear { weights, bias: t.take(&format!("{name}.bias"), &[rows])? })
}

fn packed(t: &EncoderTensors<'_>, name: &str, columns: usize, rows: usize) -> Result<Packed, EncodeError> {
    let values = t.take(&format!("{name}.weight"), &[rows, columns])?;
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    Ok(Packed::from_bytes(TensorType::F32, (rows, columns), &bytes)?)
}

fn norm(t: &EncoderTensors<'_>, name: &str, dim: usize) -> Result<Norm, EncodeError> {
    Ok(Norm {
        weight: t.take(&format!("{name}.weight"), &[dim])?,
        bias: t.take(&format!("{name}.bias"), &[dim])?,
    })
}

impl Encoder {
    /// Packs the weights of an encoder.
    ///
    /// # Errors
    /// Missing tensors and wrong shapes.
    pub fn load(
        config: &EncoderConfig,
        tensors: &EncoderTensors<'_>,
        options: Options,
    ) -> Result<Self, EncodeError> {
        let (dim, hidden) = (config.hidden_size, config.intermediate_size);
        let words = tensors.take("embeddings.word_embeddings.weight", &[config.vocab_size, dim])?;
        let shape = [config.max_position_embeddings, dim];
        let mut positions = tensors.take("embeddings.position_embeddings.weight", &shape)?;
        let segments =
            tensors.take("embeddings.token_type_embeddings.weight", &[config.type_vocab_size, dim])?;
        for row in positions.chunks_exact_mut(dim) {
            row.iter_mut().zip(&segments[..dim]).for_each(|(x, segment)| *x += segment);
        }
        let mut layers = Vec::new();
        for index in 0..config.num_hidden_layers {
            let name = |part: &str| format!("encoder.layer.{index}.{part}");
            let mut qkv_bias = Vec::with_capacity(3 * dim);
            for part in ["query", "key", "value"] {
                qkv_bias.extend(tensors.take(&name(&format!("attention.self.{part}.bias")), &[dim])?);
            }
            let part = |part: &str| packed(tensors, &name(&format!("attention.self.{part}")), dim, dim);
            layers.push(Layer {
                qkv: [part("query")?, part("key")?, part("value")?],
                qkv_bias,
                output: linear(tensors, &name("attention.output.dense"), dim, dim)?,
                output_norm: norm(tensors, &name("attention.output.LayerNorm"), dim)?,
                up: linear(tensors, &name("intermediate.dense"), dim, hidden)?,
                down: linear(tensors, &name("output.dense"), hidden, dim)?,
                down_norm: norm(tensors, &name("output.LayerNorm"), dim)?,
            });
        }
        Ok(Self {
            architecture: architecture(config),
            path: options.path,
            pool: Pool::new(options.threads),
            words,
            positions,
            norm: norm(tensors, "embeddings.LayerNorm", dim)?,
            layers,
            epsilon: config.layer_norm_eps,
        })
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
        let a = &self.architecture;
        for text in texts {
            if text.is_empty() {
                return Err(ModelError::EmptyPrompt.into());
            }
            if text.len() > a.seq_len {
                return Err(ModelError::ContextFull { len: text.len(), seq_len: a.seq_len }.into());
            }
            if let Some(token) = text.iter().find(|token| **token as usize >= a.vocab_size) {
                return Err(ModelError::Token { token: *token, vocab_size: a.vocab_size }.into());
            }
        }
        let mut out = Vec::with_capacity(texts.len());
        let mut rest = texts;
        while !rest.is_empty() {
            let mut tokens = 0;
            let count = rest.iter().take_while(|text| {
                tokens += text.len();
                tokens <= BATCH_TOKENS
            });
            let (batch, after) = rest.split_at(count.count().max(1));
            out.extend(self.batch(batch, pooling)?);
            rest = after;
        }
        Ok(out)
    }

    fn batch(&self, texts: &[Vec<u32>], pooling: Pooling) -> Result<Vec<Vec<f32>>, EncodeError> {
        let (a, f) = (&self.architecture, Elementwise::new(self.path));
        let dim = a.dim;
        let places: Vec<(usize, u32)> =
            texts.iter().flat_map(|text| text.iter().copied().enumerate()).collect();
        let mut x = vec![0.0; places.len() * dim];
        self.pool.chunks_mut(&mut x, dim, |row, out| {
            let (position, token) = places[row];
            let mut sum = self.words[token as usize * dim..][..dim].to_vec();
            f.add(&mut sum, &self.positions[position * dim..][..dim]);
            f.layer_norm(&sum, &self.norm.weight, &self.norm.bias, self.epsilon, out);
        });
        let positions = texts.iter().map(|text| text.len().next_multiple_of(16)).sum();
        let mut cache = KvCache::new(a, KvKind::F32, positions);
        let mut sequences: Vec<Sequence> = texts.iter().map(|_| Sequence::default()).collect();
        for (sequence, text) in sequences.iter_mut().zip(texts) {
            cache.reserve(sequence, text.len())?;
        }
        let mut spans = Vec::new();
        let mut first = 0;
        for (sequence, text) in sequences.iter().zip(texts) {
            spans.push(Span { first, count: text.len(), start: 0, sequence });
            first += text.len();
        }
        let mut activations = Activations::default();
        for layer in &self.layers {
            let stack: Vec<&Packed> = layer.qkv.iter().collect();
            let qkv = self.product(&mut activations, &x, dim, &stack, &layer.qkv_bias);
            store(self.path, &self.pool, &mut cache, 0, &spans, (&qkv, 3 * dim), a);
            let attention = Attention {
                path: self.path,
                architecture: a,
                cache: &cache,
                layer: 0,
                qkv: &qkv,
                stride: 3 * dim,
                causal: false,
            };
            let mut mixed = vec![0.0; x.len()];
            attention.run(&self.pool, &spans, &mut mixed);
            let y = self.product(&mut activations, &mixed, dim, &[&layer.output.weights], &layer.output.bias);
            self.residual(&mut x, &y, &layer.output_norm);
            let mut wide = self.product(&mut activations, &x, dim, &[&layer.up.weights], &layer.up.bias);
            self.pool.chunks_mut(&mut wide, a.hidden_dim, |_, row| f.gelu_exact(row));
            let y =
                self.product(&mut activations, &wide, a.hidden_dim, &[&layer.down.weights], &layer.down.bias);
            self.residual(&mut x, &y, &layer.down_norm);
        }
        Ok(spans
            .iter()
            .map(|span| pool_rows(&x[span.first * dim..][..span.count * dim], dim, pooling))
            .collect())
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
        let n = x.len() / len;
        activations.fill(self.path, &self.pool, (n, len), (false, true), |i, out| {
            out.copy_from_slice(&x[i * len..(i + 1) * len]);
        });
        let mut out = vec![0.0; n * bias.len()];
        matmul(self.path, &self.pool, activations, stack, &mut out);
        let f = Elementwise::new(self.path);
        self.pool.chunks_mut(&mut out, bias.len(), |_, row| f.add(row, bias));
        out
    }

    /// `x = norm(x + y)`.
    fn residual(&self, x: &mut [f32], y: &[f32], norm: &Norm) {
        let (f, dim) = (Elementwise::new(self.path), self.architecture.dim);
        self.pool.chunks_mut(x, dim, |row, x| {
            let mut sum = x.to_vec();
            f.add(&mut sum, &y[row * dim..(row + 1) * dim]);
            f.layer_norm(&sum, &norm.weight, &norm.bias, self.epsilon, x);
        });
    }
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
        seq_len: config.max_position_embeddings,
        epsilon: config.layer_norm_eps,
        rope_pairs: RopePairs::Halves,
        rope_dim: 0,
        rope_base: 1.0,
        rope_base_local: None,
        rope_scaling: RopeScaling::None,
        window: None,
        global_every: 0,
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
