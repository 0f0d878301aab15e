//! One batch through all layers.

use std::fmt;

use super::architecture::Activation;
use super::attention::{Attention, Span, store};
use super::kv_cache::{KvCache, Sequence};
use super::model::{FeedForward, Layer, Model};
use super::rope::Rope;
use super::{Architecture, ModelError};
use crate::arch::{Activations, Elementwise, Forms, Lines, Packed, Screen, matmul, product};

/// For which tokens of a step logits are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// For none: more of the prompt follows.
    Nothing,
    /// For the last token.
    Last,
    /// For every token.
    All,
}

/// The next tokens of one sequence. `Debug` tells how many there are, never which.
pub struct Step<'a> {
    /// Where they are appended.
    pub sequence: &'a mut Sequence,
    /// The tokens, at least one.
    pub tokens: &'a [u32],
    /// Whose logits are wanted.
    pub wanted: Wanted,
}

impl fmt::Debug for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Step({} tokens, {:?})", self.tokens.len(), self.wanted)
    }
}

/// Buffers of a batch.
#[derive(Default)]
pub(super) struct Scratch {
    activations: Activations,
    x: Lines<f32>,
    wide: Lines<f32>,
    out: Lines<f32>,
    mixed: Lines<f32>,
}

impl Model {
    /// Computes one batch: each step appends its tokens to its sequence. Returns the wanted logits,
    /// `[tokens wanted][vocab_size]`, in order of the steps.
    ///
    /// # Errors
    /// [`ModelError::Token`], [`ModelError::ContextFull`] or [`ModelError::CacheFull`]; the sequences are then as before.
    pub fn forward(&self, cache: &mut KvCache, steps: &mut [Step<'_>]) -> Result<Vec<f32>, ModelError> {
        self.batch(cache, steps, false)
    }

    /// As [`Self::forward`], where only the largest logit of a token counts: others may be minus infinity. Faster where
    /// the output matrix holds floats, see [`Options::screen`](super::Options::screen).
    ///
    /// # Errors
    /// As there.
    pub fn forward_largest(
        &self,
        cache: &mut KvCache,
        steps: &mut [Step<'_>],
    ) -> Result<Vec<f32>, ModelError> {
        self.batch(cache, steps, true)
    }

    fn batch(
        &self,
        cache: &mut KvCache,
        steps: &mut [Step<'_>],
        largest: bool,
    ) -> Result<Vec<f32>, ModelError> {
        let a = &self.architecture;
        for step in steps.iter_mut() {
            let len = step.sequence.len.saturating_add(step.tokens.len());
            if len > a.seq_len {
                return Err(ModelError::ContextFull { len, seq_len: a.seq_len });
            }
            if let Some(token) = step.tokens.iter().find(|token| **token as usize >= a.vocab_size) {
                return Err(ModelError::Token { token: *token, vocab_size: a.vocab_size });
            }
        }
        for step in steps.iter_mut() {
            let len = step.sequence.len + step.tokens.len();
            cache.reserve(step.sequence, len)?;
        }
        let tokens: Vec<u32> = steps.iter().flat_map(|step| step.tokens).copied().collect();
        let mut spans = Vec::new();
        let mut rows = Vec::new();
        let mut first = 0;
        for step in steps.iter() {
            let count = step.tokens.len();
            match step.wanted {
                Wanted::Last if count > 0 => rows.push(first + count - 1),
                Wanted::All => rows.extend(first..first + count),
                Wanted::Last | Wanted::Nothing => {}
            }
            spans.push(Span { first, count, start: step.sequence.len, sequence: step.sequence });
            first += count;
        }
        let logits = self.compute(cache, &tokens, &spans, (&rows, largest));
        for step in steps {
            step.sequence.len += step.tokens.len();
        }
        Ok(logits)
    }

    fn compute(
        &self,
        cache: &mut KvCache,
        tokens: &[u32],
        spans: &[Span<'_>],
        wanted: (&[usize], bool),
    ) -> Vec<f32> {
        let a = &self.architecture;
        let f = Elementwise::new(self.path);
        let mut scratch = self.idle.take();
        // Every element is written.
        let mut x = std::mem::take(&mut scratch.x);
        x.resize(tokens.len() * a.dim);
        self.pool.chunks_mut(&mut x, a.dim, |row, x| {
            self.embedding.row(tokens[row] as usize, x);
            if a.embedding_scale != 1.0 {
                f.scale(x, a.embedding_scale);
            }
        });
        let positions: Vec<usize> =
            spans.iter().flat_map(|span| span.start..span.start + span.count).collect();
        let angles = |rope: &Rope| {
            let mut angles = vec![0.0; positions.len() * rope.len()];
            self.pool.chunks_mut(&mut angles, rope.len().max(1), |row, out| rope.angles(positions[row], out));
            angles
        };
        let global = angles(&self.rope);
        let local = self.rope_local.as_ref().map(angles);
        for (index, layer) in self.layers.iter().enumerate() {
            let rope = match (&self.rope_local, &local) {
                (Some(rope), Some(angles)) if a.window(index).is_some() => (rope, angles),
                _ => (&self.rope, &global),
            };
            self.attention(cache, index, layer, spans, rope, &mut x, &mut scratch);
            self.feed_forward(layer, &mut x, &mut scratch);
        }
        let logits = self.logits(&x, wanted, &mut scratch);
        scratch.x = x;
        self.idle.give_back(scratch);
        logits
    }

    /// Columns of `x`, normalised, for the matrices of `stack`.
    fn normalized(&self, activations: &mut Activations, x: &[f32], weight: &[f32], stack: &[&Packed]) {
        let a = &self.architecture;
        let f = Elementwise::new(self.path);
        let shape = (x.len() / a.dim, a.dim);
        activations.fill(self.path, &self.pool, shape, Forms::of(stack), |i, out| {
            f.rms_norm(&x[i * a.dim..(i + 1) * a.dim], weight, a.epsilon, out);
        });
    }

    /// `out = stack . columns of x`, where `x` is `[n][len]`.
    fn product(
        &self,
        activations: &mut Activations,
        x: &[f32],
        len: usize,
        weights: &Packed,
        out: &mut Lines<f32>,
    ) {
        let shape = (x.len() / len, len);
        let column = |i: usize| &x[i * len..(i + 1) * len];
        activations.take(self.path, &self.pool, shape, Forms::of(&[weights]), column);
        self.multiply(activations, &[weights], out);
    }

    fn multiply(&self, activations: &Activations, stack: &[&Packed], out: &mut Lines<f32>) {
        let rows: usize = stack.iter().map(|weights| weights.rows()).sum();
        // Every element is written.
        out.resize(activations.columns() * rows);
        matmul(self.path, &self.pool, activations, stack, out);
    }

    /// `x += y`, through a norm where there is one.
    fn residual(&self, x: &mut [f32], y: &[f32], norm: Option<&Vec<f32>>) {
        let a = &self.architecture;
        let f = Elementwise::new(self.path);
        self.rows(x, a.dim, |row, x| {
            let y = &y[row * a.dim..(row + 1) * a.dim];
            match norm {
                None => f.add(x, y),
                Some(weight) => {
                    let mut normed = vec![0.0; a.dim];
                    f.rms_norm(y, weight, a.epsilon, &mut normed);
                    f.add(x, &normed);
                }
            }
        });
    }

    /// Calls `task` with each row; single rows are not worth a job.
    fn rows(&self, data: &mut [f32], len: usize, task: impl Fn(usize, &mut [f32]) + Sync) {
        self.pool.chunks_mut(data, len, task);
    }

    #[expect(clippy::too_many_arguments, reason = "one caller")]
    fn attention(
        &self,
        cache: &mut KvCache,
        index: usize,
        layer: &Layer,
        spans: &[Span<'_>],
        (rope, angles): (&Rope, &Vec<f32>),
        x: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let a = &self.architecture;
        let f = Elementwise::new(self.path);
        let stack: Vec<&Packed> = layer.qkv.iter().collect();
        self.normalized(&mut scratch.activations, x, &layer.attention_norm, &stack);
        self.multiply(&scratch.activations, &stack, &mut scratch.wide);
        let (q_dim, kv_dim) = (a.n_heads * a.head_dim, a.n_kv_heads * a.head_dim);
        let stride = q_dim + 2 * kv_dim;
        self.rows(&mut scratch.wide, stride, |row, qkv| {
            if let Some(bias) = &layer.qkv_bias {
                f.add(qkv, bias);
            }
            let angles = &angles[row * rope.len()..(row + 1) * rope.len()];
            let rotates = a.rotates(index);
            let mut normed = vec![0.0; a.head_dim];
            let (q, kv) = qkv.split_at_mut(q_dim);
            for (heads, norm) in [(q, &layer.q_norm), (&mut kv[..kv_dim], &layer.k_norm)] {
                for head in heads.chunks_exact_mut(a.head_dim) {
                    if let Some(weight) = norm {
                        f.rms_norm(head, weight, a.epsilon, &mut normed);
                        head.copy_from_slice(&normed);
                    }
                    if rotates {
                        rope.rotate(head, angles);
                    }
                }
            }
        });
        store(self.path, &self.pool, cache, index, spans, (&scratch.wide, stride), a);
        scratch.mixed.resize(x.len() / a.dim * q_dim);
        let attention = Attention {
            path: self.path,
            architecture: a,
            cache,
            layer: index,
            qkv: &scratch.wide,
            stride,
            causal: true,
        };
        attention.run(&self.pool, spans, &mut scratch.mixed);
        self.product(&mut scratch.activations, &scratch.mixed, q_dim, &layer.output, &mut scratch.out);
        if let Some(bias) = &layer.output_bias {
            self.rows(&mut scratch.out, a.dim, |_, out| f.add(out, bias));
        }
        self.residual(x, &scratch.out, layer.post_attention_norm.as_ref());
    }

    fn feed_forward(&self, layer: &Layer, x: &mut [f32], scratch: &mut Scratch) {
        match &layer.ffn {
            FeedForward::Dense { gate_up, down } => {
                let stack: Vec<&Packed> = gate_up.iter().collect();
                self.normalized(&mut scratch.activations, x, &layer.ffn_norm, &stack);
                self.gated(&stack, down, scratch);
            }
            FeedForward::Experts { router, experts } => self.experts(layer, router, experts, x, scratch),
        }
        self.residual(x, &scratch.out, layer.post_ffn_norm.as_ref());
    }

    /// `scratch.out = down . (act(gate . x) * (up . x))` for the columns in `scratch.activations`.
    fn gated(&self, stack: &[&Packed], down: &Packed, scratch: &mut Scratch) {
        let a = &self.architecture;
        self.multiply(&scratch.activations, stack, &mut scratch.wide);
        let (f, hidden, wide) = (Elementwise::new(self.path), a.hidden_dim, &scratch.wide);
        let n = scratch.activations.columns();
        scratch.activations.fill_pieces(
            self.path,
            &self.pool,
            (n, hidden),
            Forms::of(&[down]),
            |i, start, out| {
                let (gate, up) = wide[i * 2 * hidden..(i + 1) * 2 * hidden].split_at(hidden);
                let piece = start..start + out.len();
                out.copy_from_slice(&gate[piece.clone()]);
                activate(f, a, out, &up[piece]);
            },
        );
        self.multiply(&scratch.activations, &[down], &mut scratch.out);
    }

    /// Each token goes to its best experts; their results are added in order of their weights.
    fn experts(
        &self,
        layer: &Layer,
        router: &Packed,
        experts: &[(Vec<Packed>, Packed)],
        x: &[f32],
        scratch: &mut Scratch,
    ) {
        let a = &self.architecture;
        let f = Elementwise::new(self.path);
        let n = x.len() / a.dim;
        let used = a.experts.map_or(0, |experts| experts.used);
        let mut normed = vec![0.0; x.len()];
        self.rows(&mut normed, a.dim, |row, out| {
            f.rms_norm(&x[row * a.dim..(row + 1) * a.dim], &layer.ffn_norm, a.epsilon, out);
        });
        let mut scores = Lines::default();
        self.product(&mut scratch.activations, &normed, a.dim, router, &mut scores);
        let choices: Vec<Vec<(usize, f32)>> =
            scores.chunks_exact_mut(experts.len()).map(|scores| route(f, scores, used)).collect();
        // `[token][rank][dim]`: filled expert by expert, added up token by token.
        let mut parts = vec![0.0; n * used * a.dim];
        for (expert, (gate_up, down)) in experts.iter().enumerate() {
            let places: Vec<(usize, usize)> = choices
                .iter()
                .enumerate()
                .filter_map(|(token, choice)| {
                    choice.iter().position(|(chosen, _)| *chosen == expert).map(|rank| (token, rank))
                })
                .collect();
            if places.is_empty() {
                continue;
            }
            let stack: Vec<&Packed> = gate_up.iter().collect();
            let shape = (places.len(), a.dim);
            let column = |i: usize| &normed[places[i].0 * a.dim..][..a.dim];
            scratch.activations.take(self.path, &self.pool, shape, Forms::of(&stack), column);
            self.gated(&stack, down, scratch);
            for ((token, rank), y) in places.iter().zip(scratch.out.chunks_exact(a.dim)) {
                parts[(token * used + rank) * a.dim..][..a.dim].copy_from_slice(y);
            }
        }
        scratch.out.resize(x.len());
        scratch.out.fill(0.0);
        self.pool.chunks_mut(&mut scratch.out, a.dim, |token, out| {
            for (rank, (_, weight)) in choices[token].iter().enumerate() {
                f.add_scaled(out, *weight, &parts[(token * used + rank) * a.dim..][..a.dim]);
            }
        });
    }

    /// Logits of some rows, or of each at least the largest.
    fn logits(&self, x: &[f32], (rows, largest): (&[usize], bool), scratch: &mut Scratch) -> Vec<f32> {
        let a = &self.architecture;
        if rows.is_empty() {
            return Vec::new();
        }
        let f = Elementwise::new(self.path);
        let mut normed = vec![0.0; rows.len() * a.dim];
        self.rows(&mut normed, a.dim, |i, out| {
            f.rms_norm(&x[rows[i] * a.dim..(rows[i] + 1) * a.dim], &self.output_norm, a.epsilon, out);
        });
        let weights = self.output.as_ref().unwrap_or(&self.embedding);
        let screen = self.screen.as_ref().filter(|_| largest);
        let forms = screen.map_or(Forms::of(&[weights]), |_| Screen::forms(weights));
        let column = |i: usize| &normed[i * a.dim..(i + 1) * a.dim];
        scratch.activations.take(self.path, &self.pool, (rows.len(), a.dim), forms, column);
        let x = &scratch.activations;
        let screened = screen.and_then(|screen| screen.largest(self.path, &self.pool, weights, x, &normed));
        let mut logits = screened.unwrap_or_else(|| product(self.path, &self.pool, x, weights));
        if let Some(cap) = a.final_cap {
            self.rows(&mut logits, a.vocab_size, |_, row| f.soft_cap(row, cap));
        }
        logits
    }
}

fn activate(f: Elementwise, a: &Architecture, gate: &mut [f32], up: &[f32]) {
    match a.activation {
        Activation::Silu => f.silu_gate(gate, up),
        Activation::Gelu => f.gelu_gate(gate, up),
    }
}

/// The `used` best experts with their weights: softmax over all, then made to sum to 1. Ties go to the lower number.
fn route(f: Elementwise, scores: &mut [f32], used: usize) -> Vec<(usize, f32)> {
    f.exp_shifted(scores);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    order.truncate(used);
    let total: f32 = order.iter().map(|expert| scores[*expert]).sum();
    order.into_iter().map(|expert| (expert, scores[expert] / total)).collect()
}
