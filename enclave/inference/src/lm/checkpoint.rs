//! Models out of Hugging Face folders: the same description and the same weights that a GGUF file of them would have.
//!
//! Tensors are looked up under their GGUF names. What the conversion changes is done as they are read: rows of queries
//! and keys of the Llama family are put in the order of adjacent pairs, and Gemma's norms get the 1 that its code adds.
//! So a model gives the same bits from both kinds of files.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;

use adyton_model::checkpoint::{LanguageConfig, RopeLayers, RopeParameters, Shard};
use adyton_model::half::{bf16_to_f32, f16_to_f32};
use adyton_model::quant::TensorType;

use super::architecture::{
    Activation, Architecture, Experts, Family, RopePairs, RopeScaling, float, narrow, yarn_attention,
};
use super::loader::{Stored, Tensors};
use super::{Model, ModelError, Options, Source};
use crate::dense::math::{exp, ln};

fn metadata(key: &str, got: &dyn Display, want: &'static str) -> ModelError {
    ModelError::Metadata { key: key.to_owned(), got: got.to_string(), want }
}

/// A count that must lie from 1 to `max`.
fn count(key: &str, value: u64, max: usize) -> Result<usize, ModelError> {
    usize::try_from(value)
        .ok()
        .filter(|count| (1..=max).contains(count))
        .ok_or_else(|| metadata(key, &value, "a count that real models have"))
}

fn number(key: &str, value: f64) -> Result<f64, ModelError> {
    let good = value.is_finite() && value > 0.0;
    good.then_some(value).ok_or_else(|| metadata(key, &value, "a finite number above 0"))
}

/// Rotations of the layers that see everything, and of those with a window where they differ.
fn rope(c: &LanguageConfig) -> (RopeParameters, Option<f64>) {
    match &c.rope_parameters {
        Some(RopeLayers::All(rope)) => (RopeParameters::clone(rope), None),
        Some(RopeLayers::Kinds { full_attention, sliding_attention }) => {
            (RopeParameters::clone(full_attention), sliding_attention.rope_theta)
        }
        None => (c.rope_scaling.clone().unwrap_or_default(), None),
    }
}

fn scaling(c: &LanguageConfig, rope: &RopeParameters, seq_len: usize) -> Result<RopeScaling, ModelError> {
    let key = "rope_scaling";
    let factor = || number("rope_scaling.factor", rope.factor.unwrap_or(1.0)).map(|factor| factor.max(1.0));
    let original = rope.original_max_position_embeddings.or(c.original_max_position_embeddings);
    let original = original.map_or(Ok(seq_len), |original| count(key, original, 1 << 24))?;
    match rope.rope_type.as_deref().or(rope.kind.as_deref()) {
        // Llama 3's become divisors of the frequencies: see `llama3_divisors`.
        None | Some("default" | "llama3") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: factor()? }),
        Some("yarn") => {
            if rope.mscale.is_some() || rope.truncate == Some(false) {
                return Err(metadata(key, &"yarn", "only truncated ranges and no mscale are computed"));
            }
            let rotations = (
                number("rope_scaling.beta_fast", rope.beta_fast.unwrap_or(32.0))?,
                number("rope_scaling.beta_slow", rope.beta_slow.unwrap_or(1.0))?,
            );
            let factor = factor()?;
            // The factor given is the whole one.
            let attention = match rope.attention_factor {
                Some(whole) => number(key, whole)? / yarn_attention(factor),
                None => 1.0,
            };
            Ok(RopeScaling::Yarn { factor, original, attention, rotations })
        }
        Some("longrope" | "su") => {
            let stretch = f64::from(float(seq_len)) / f64::from(float(original));
            let usual = if stretch > 1.0 {
                (1.0 + ln(stretch) / ln(f64::from(float(original)).max(2.0))).sqrt()
            } else {
                1.0
            };
            let attention = rope.attention_factor.map_or(Ok(usual), |given| number(key, given))?;
            Ok(RopeScaling::Long { original, attention })
        }
        Some(other) => {
            let other: String = other.chars().take(64).collect();
            Err(metadata(key, &other, "default, linear, llama3, yarn and longrope are known"))
        }
    }
}

/// Every how many layers one is marked; 0: none is. `None` where they do not lie that way.
fn every(marked: &[bool]) -> Option<usize> {
    let every = marked.iter().position(|marked| *marked).map_or(0, |first| first + 1);
    let regular = (1..)
        .zip(marked)
        .all(|(number, marked): (usize, _)| (every > 0 && number.is_multiple_of(every)) == *marked);
    regular.then_some(every)
}

/// Every how many layers one sees everything, where the file lists the layers.
fn global_every(c: &LanguageConfig, usual: usize) -> Result<usize, ModelError> {
    let pattern = c.sliding_window_pattern.map(|every| count("sliding_window_pattern", every, 1 << 10));
    let Some(types) = &c.layer_types else { return pattern.unwrap_or(Ok(usual)) };
    let known = types.iter().all(|kind| matches!(kind.as_str(), "full_attention" | "sliding_attention"));
    let full: Vec<bool> = types.iter().map(|kind| kind == "full_attention").collect();
    let wanted = "windows in all layers but every n-th";
    every(&full).filter(|_| known).ok_or_else(|| metadata("layer_types", &"another order", wanted))
}

/// Every how many layers one rotates nothing.
fn unrotated_every(c: &LanguageConfig) -> Result<usize, ModelError> {
    if c.model_type != "smollm3" {
        return Ok(0);
    }
    let Some(rotated) = &c.no_rope_layers else {
        return count("no_rope_layer_interval", c.no_rope_layer_interval.unwrap_or(4), 1 << 10);
    };
    // The list has a 1 for layers that rotate.
    let unrotated: Vec<bool> = rotated.iter().map(|rotated| *rotated == 0).collect();
    let wanted = "rotations in all layers but every n-th";
    every(&unrotated).ok_or_else(|| metadata("no_rope_layers", &"another order", wanted))
}

/// The base of rotations where the file is silent.
fn usual_base(model_type: &str) -> f64 {
    match model_type {
        "mixtral" | "gemma3_text" => 1_000_000.0,
        "smollm3" => 2_000_000.0,
        _ => 10_000.0,
    }
}

/// What keeps a norm from dividing by 0 where the file is silent.
fn usual_epsilon(model_type: &str) -> f64 {
    if matches!(model_type, "mixtral" | "phi3") { 1e-5 } else { 1e-6 }
}

impl Architecture {
    /// Reads the description in `config.json`. Where that is silent, what the family's own code takes holds.
    ///
    /// # Errors
    /// [`ModelError::Architecture`] for an unknown family, and what is wrong with the counts.
    pub fn from_config(c: &LanguageConfig) -> Result<Self, ModelError> {
        let family = match c.model_type.as_str() {
            "llama" | "mistral" | "mixtral" | "smollm3" => Family::Llama,
            "qwen2" => Family::Qwen2,
            "qwen3" => Family::Qwen3,
            "qwen3_moe" => Family::Qwen3Moe,
            "gemma2" => Family::Gemma2,
            "gemma3_text" => Family::Gemma3,
            "phi3" => Family::Phi3,
            other => return Err(ModelError::Architecture(other.chars().take(64).collect())),
        };
        if c.quantization_config.is_some() {
            return Err(metadata(
                "quantization_config",
                &"present",
                "plain weights; give the quantised model as GGUF",
            ));
        }
        if c.use_bidirectional_attention == Some(true) {
            let wanted = "attention to earlier tokens alone";
            return Err(metadata("use_bidirectional_attention", &true, wanted));
        }
        let dim = count("hidden_size", c.hidden_size, 1 << 17)?;
        let n_heads = count("num_attention_heads", c.num_attention_heads, 1 << 12)?;
        let kv_key = "num_key_value_heads";
        let n_kv_heads = c.num_key_value_heads.map_or(Ok(n_heads), |heads| count(kv_key, heads, n_heads))?;
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(metadata(kv_key, &n_kv_heads, "a divisor of num_attention_heads"));
        }
        let head_dim = match (c.head_dim, family) {
            (Some(dim), _) => count("head_dim", dim, 1 << 12)?,
            (None, Family::Gemma2 | Family::Gemma3) => 256,
            (None, Family::Qwen3) => 128,
            (None, _) => (dim / n_heads).max(1),
        };
        let seq_len = count("max_position_embeddings", c.max_position_embeddings, 1 << 24)?;
        let n_layers = count("num_hidden_layers", c.num_hidden_layers, 1 << 10)?;
        let gemma = matches!(family, Family::Gemma2 | Family::Gemma3);
        let act = c.hidden_activation.as_deref().or(c.hidden_act.as_deref());
        let usual = if gemma { "gelu_pytorch_tanh" } else { "silu" };
        if act.unwrap_or(usual) != usual {
            let act: String = act.unwrap_or_default().chars().take(64).collect();
            return Err(metadata("hidden_act", &act, "silu, or gelu_pytorch_tanh for Gemma"));
        }
        let experts = experts(c, family)?;
        let hidden_dim = match c.moe_intermediate_size.filter(|_| experts.is_some()) {
            Some(hidden) => count("moe_intermediate_size", hidden, 1 << 20)?,
            None => count("intermediate_size", c.intermediate_size, 1 << 20)?,
        };
        let (rope, local) = rope(c);
        let partial = rope.partial_rotary_factor.or(c.partial_rotary_factor).unwrap_or(1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "as the models' own code"
        )]
        let rope_dim = (f64::from(float(head_dim)) * partial) as usize;
        if rope_dim == 0 || rope_dim > head_dim || !rope_dim.is_multiple_of(2) {
            return Err(metadata("partial_rotary_factor", &partial, "an even part of the head"));
        }
        if family == Family::Llama && rope_dim != head_dim {
            return Err(metadata("partial_rotary_factor", &partial, "1 in models of the Llama family"));
        }
        let window = match family {
            _ if c.use_sliding_window == Some(true) => {
                return Err(metadata("use_sliding_window", &true, "no window in some layers only"));
            }
            Family::Qwen2 | Family::Qwen3 | Family::Qwen3Moe => None,
            Family::Llama if c.model_type == "smollm3" => None,
            _ => match c.sliding_window {
                Some(window) => Some(count("sliding_window", window, u32::MAX as usize)?),
                None => None,
            },
        };
        let base = rope.rope_theta.or(c.rope_theta).unwrap_or_else(|| usual_base(&c.model_type));
        let base = number("rope_theta", base)?.max(1.0);
        let local = local.or(c.rope_local_base_freq).unwrap_or(10_000.0);
        let scalar = c.query_pre_attn_scalar.filter(|_| gemma);
        let usual = if gemma { 256.0 } else { f64::from(float(head_dim)) };
        let scalar = number("query_pre_attn_scalar", scalar.unwrap_or(usual))?;
        let cap = |cap: Option<f64>| cap.filter(|cap| gemma && *cap > 0.0).map(narrow);
        Ok(Self {
            family,
            dim,
            hidden_dim,
            n_layers,
            n_heads,
            n_kv_heads,
            head_dim,
            vocab_size: count("vocab_size", c.vocab_size, 1 << 24)?,
            seq_len,
            epsilon: narrow(number("rms_norm_eps", c.rms_norm_eps.unwrap_or(usual_epsilon(&c.model_type)))?),
            rope_pairs: family.rope_pairs(),
            rope_dim,
            rope_base: base,
            rope_base_local: match family {
                Family::Gemma3 => Some(number("rope_local_base_freq", local)?.max(1.0)),
                _ => None,
            },
            rope_scaling: scaling(c, &rope, seq_len)?,
            window,
            global_every: match family {
                Family::Gemma2 => global_every(c, 2)?,
                Family::Gemma3 => global_every(c, 6)?,
                _ => 0,
            },
            unrotated_every: unrotated_every(c)?,
            activation: if gemma { Activation::Gelu } else { Activation::Silu },
            embedding_scale: if gemma { float(dim).sqrt() } else { 1.0 },
            attention_scale: 1.0 / narrow(scalar).sqrt(),
            attention_cap: cap(c.attn_logit_softcapping),
            final_cap: cap(c.final_logit_softcapping),
            qk_norm: matches!(family, Family::Qwen3 | Family::Qwen3Moe | Family::Gemma3),
            post_norms: gemma,
            fused: family == Family::Phi3,
            experts,
        })
    }
}

fn experts(c: &LanguageConfig, family: Family) -> Result<Option<Experts>, ModelError> {
    let Some(n) = c.num_experts.or(c.num_local_experts) else { return Ok(None) };
    if !(family == Family::Qwen3Moe || (family == Family::Llama && c.model_type == "mixtral")) {
        return Ok(None);
    }
    if !c.norm_topk_prob.unwrap_or(family == Family::Llama) {
        return Err(metadata("norm_topk_prob", &false, "weights of the chosen experts that sum to 1"));
    }
    let dense = c.mlp_only_layers.as_ref().is_some_and(|layers| !layers.is_empty());
    if dense || c.decoder_sparse_step.unwrap_or(1) != 1 {
        return Err(metadata("decoder_sparse_step", &"some layers", "experts in every layer"));
    }
    let n = count("num_experts", n, 1 << 12)?;
    let used = count("num_experts_per_tok", c.num_experts_per_tok.unwrap_or(2), n)?;
    Ok(Some(Experts { count: n, used }))
}

/// Divisors of the frequencies, as Llama 3's own code has them: none for fast ones, `factor` for slow ones, smooth between.
fn llama3_divisors(a: &Architecture, rope: &RopeParameters) -> Result<Vec<f32>, ModelError> {
    let of = |key: &'static str, value: Option<f64>| match value {
        Some(value) => number(key, value),
        None => Err(metadata(key, &"missing", "needed by llama3 rotations")),
    };
    let factor = of("factor", rope.factor)?;
    let (low, high) =
        (of("low_freq_factor", rope.low_freq_factor)?, of("high_freq_factor", rope.high_freq_factor)?);
    let original = rope.original_max_position_embeddings;
    let original = original.ok_or_else(|| {
        metadata("original_max_position_embeddings", &"missing", "needed by llama3 rotations")
    })?;
    let original = f64::from(float(count("original_max_position_embeddings", original, 1 << 24)?));
    let divisor = |i: usize| {
        let frequency = exp(-ln(a.rope_base) * 2.0 * f64::from(float(i)) / f64::from(float(a.rope_dim)));
        let wavelength = std::f64::consts::TAU / frequency;
        if wavelength < original / high {
            1.0
        } else if wavelength > original / low {
            factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    Ok((0..a.rope_dim / 2).map(|i| narrow(divisor(i))).collect())
}

/// What is done to a tensor while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    /// Rows of each head, stored as two halves, become pairs.
    Pairs {
        head_dim: usize,
    },
    /// 1 is added to each element.
    PlusOne,
}

/// Where a tensor, or one expert's part of it, lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    shard: usize,
    start: u64,
    len_bytes: u64,
    kind: TensorType,
    dims: [u64; 2],
}

#[derive(Debug)]
enum Entry {
    /// One after the other.
    Stored { parts: Vec<Place>, change: Change },
    /// Made here from the configuration.
    Made(Vec<f32>),
}

/// The tensors of a folder under their GGUF names.
struct CheckpointTensors<'a> {
    entries: BTreeMap<String, Entry>,
    sources: &'a [&'a dyn Source],
}

/// The name a tensor of a model for texts and pictures has in one for texts alone; `None` for what only pictures need.
fn text_name(name: &str) -> Option<Cow<'_, str>> {
    let part = name.strip_prefix("model.").unwrap_or(name);
    if part.starts_with("vision_tower.") || part.starts_with("multi_modal_projector.") {
        return None;
    }
    match (name.strip_prefix("language_model."), name.strip_prefix("model.language_model.")) {
        (Some(rest), _) => Some(rest.into()),
        (_, Some(rest)) => Some(format!("model.{rest}").into()),
        _ => Some(name.into()),
    }
}

/// The GGUF name of a tensor, the expert it belongs to, and what reading changes. `None`: nobody knows it.
fn gguf_name(a: &Architecture, name: &str) -> Option<(String, usize, Change)> {
    let gemma = matches!(a.family, Family::Gemma2 | Family::Gemma3);
    let norm = if gemma { Change::PlusOne } else { Change::None };
    let whole = |name: &str, change: Change| Some((name.to_owned(), 0, change));
    match name {
        "model.embed_tokens.weight" => return whole("token_embd.weight", Change::None),
        "model.norm.weight" => return whole("output_norm.weight", norm),
        "lm_head.weight" => return whole("output.weight", Change::None),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let layer: usize = layer.parse().ok().filter(|layer| *layer < a.n_layers)?;
    let (part, end) = part.rsplit_once('.').filter(|(_, end)| matches!(*end, "weight" | "bias"))?;
    let pairs = match a.rope_pairs {
        RopePairs::Adjacent => Change::Pairs { head_dim: a.head_dim },
        RopePairs::Halves => Change::None,
    };
    let mut expert = 0;
    let (gguf, change) = match part {
        "input_layernorm" => ("attn_norm", norm),
        "self_attn.q_proj" => ("attn_q", pairs),
        "self_attn.k_proj" => ("attn_k", pairs),
        "self_attn.v_proj" => ("attn_v", Change::None),
        "self_attn.qkv_proj" => ("attn_qkv", Change::None),
        "self_attn.o_proj" => ("attn_output", Change::None),
        "self_attn.q_norm" => ("attn_q_norm", norm),
        "self_attn.k_norm" => ("attn_k_norm", norm),
        "post_attention_layernorm" if gemma => ("post_attention_norm", norm),
        "post_attention_layernorm" | "pre_feedforward_layernorm" => ("ffn_norm", norm),
        "post_feedforward_layernorm" => ("post_ffw_norm", norm),
        "mlp.gate_proj" => ("ffn_gate", Change::None),
        "mlp.up_proj" | "mlp.gate_up_proj" => ("ffn_up", Change::None),
        "mlp.down_proj" => ("ffn_down", Change::None),
        "mlp.gate" | "block_sparse_moe.gate" => ("ffn_gate_inp", Change::None),
        _ => {
            let rest = part.strip_prefix("mlp.experts.").or(part.strip_prefix("block_sparse_moe.experts."))?;
            let (number, part) = rest.split_once('.')?;
            expert = number.parse().ok().filter(|expert| a.experts.is_some_and(|e| *expert < e.count))?;
            let part = match part {
                "gate_proj" | "w1" => "ffn_gate_exps",
                "up_proj" | "w3" => "ffn_up_exps",
                "down_proj" | "w2" => "ffn_down_exps",
                _ => return None,
            };
            (part, Change::None)
        }
    };
    Some((format!("blk.{layer}.{gguf}.{end}"), expert, change))
}

impl<'a> CheckpointTensors<'a> {
    fn new(
        a: &Architecture,
        c: &LanguageConfig,
        shards: &[Shard],
        sources: &'a [&'a dyn Source],
    ) -> Result<Self, ModelError> {
        let tied = c.tie_word_embeddings.unwrap_or(matches!(a.family, Family::Gemma2 | Family::Gemma3));
        // Experts come in any order and from any file.
        let mut found: BTreeMap<String, (BTreeMap<usize, Place>, Change)> = BTreeMap::new();
        for (shard, tensor) in
            shards.iter().enumerate().flat_map(|(i, s)| s.tensors.iter().map(move |t| (i, t)))
        {
            let name = if c.pictures { text_name(&tensor.name) } else { Some(tensor.name.as_str().into()) };
            let Some(name) = name else { continue };
            // What older code stored beside the weights; a head that repeats the embedding.
            if name.ends_with("rotary_emb.inv_freq") || (tied && name == "lm_head.weight") {
                continue;
            }
            let unknown = || ModelError::UnknownTensor(tensor.name.clone());
            let (name, expert, change) = gguf_name(a, &name).ok_or_else(unknown)?;
            let dims = match tensor.shape.as_slice() {
                [len] => [*len, 1],
                [rows, columns] => [*columns, *rows],
                _ => return Err(unknown()),
            };
            let (kind, start, len_bytes) = (tensor.kind, tensor.start, tensor.len_bytes);
            let place = Place { shard, start, len_bytes, kind, dims };
            let parts = &mut found.entry(name).or_insert((BTreeMap::new(), change)).0;
            if parts.insert(expert, place).is_some() {
                return Err(ModelError::DuplicateTensor(tensor.name.clone()));
            }
        }
        let mut entries = BTreeMap::new();
        for (name, (parts, change)) in found {
            let want = if name.contains("_exps.") { a.experts.map_or(1, |experts| experts.count) } else { 1 };
            let parts: Vec<Place> = parts.into_values().collect();
            let same = parts.iter().all(|part| (part.kind, part.dims) == (parts[0].kind, parts[0].dims));
            if parts.len() != want || !same {
                return Err(ModelError::MissingTensor(name));
            }
            entries.insert(name, Entry::Stored { parts, change });
        }
        if !tied && !entries.contains_key("output.weight") {
            return Err(ModelError::MissingTensor("lm_head.weight".to_owned()));
        }
        let (rope, _) = rope(c);
        let mut make = |name: &str, values: Vec<f32>| entries.insert(name.to_owned(), Entry::Made(values));
        if matches!(rope.rope_type.as_deref().or(rope.kind.as_deref()), Some("llama3")) {
            make("rope_freqs.weight", llama3_divisors(a, &rope)?);
        }
        if matches!(a.rope_scaling, RopeScaling::Long { .. }) {
            let lists = [("short", &rope.short_factor), ("long", &rope.long_factor)];
            for (name, factors) in lists {
                let values = factors.as_deref().unwrap_or_default().iter().copied().map(narrow).collect();
                make(&format!("rope_factors_{name}.weight"), values);
            }
        }
        Ok(Self { entries, sources })
    }

    /// Bytes of one part as they lie in the file.
    fn raw(&self, place: &Place, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let source = self.sources.get(place.shard).ok_or(io::ErrorKind::NotFound)?;
        source.read(place.start + offset, out)
    }
}

impl Tensors for CheckpointTensors<'_> {
    fn find(&self, name: &str) -> Option<Stored> {
        Some(match self.entries.get(name)? {
            Entry::Made(values) => Stored { kind: TensorType::F32, dims: [values.len() as u64, 1, 1, 1] },
            Entry::Stored { parts, change } => {
                let [columns, rows] = parts.first()?.dims;
                let kind = if *change == Change::PlusOne { TensorType::F32 } else { parts.first()?.kind };
                Stored { kind, dims: [columns, rows, parts.len() as u64, 1] }
            }
        })
    }

    fn read(&self, name: &str, offset: usize, out: &mut [u8]) -> io::Result<()> {
        let (parts, change) = match self.entries.get(name) {
            None => return Err(io::ErrorKind::NotFound.into()),
            Some(Entry::Made(values)) => {
                let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                return Source::read(&bytes.as_slice(), offset as u64, out);
            }
            Some(Entry::Stored { parts, change }) => (parts, *change),
        };
        let first = parts.first().ok_or(io::ErrorKind::NotFound)?;
        let element = first.kind.block_bytes();
        match change {
            Change::None => {
                let (offset, len) = (offset as u64, first.len_bytes.max(1));
                let place = usize::try_from(offset / len).ok().and_then(|index| parts.get(index));
                self.raw(place.ok_or(io::ErrorKind::UnexpectedEof)?, offset % len, out)
            }
            Change::Pairs { head_dim } => {
                // A vector's elements are its rows.
                let columns =
                    if first.dims[1] == 1 { 1 } else { usize::try_from(first.dims[0]).unwrap_or(1) };
                let row = columns * element;
                for (index, out) in (offset / row..).zip(out.chunks_mut(row)) {
                    let (head, pair, half) = (index / head_dim, index % head_dim / 2, index % 2);
                    let stored = head * head_dim + half * (head_dim / 2) + pair;
                    self.raw(first, (stored * row) as u64, out)?;
                }
                Ok(())
            }
            Change::PlusOne => {
                let mut raw = vec![0; out.len() / 4 * element];
                self.raw(first, (offset / 4 * element) as u64, &mut raw)?;
                for (out, bytes) in out.chunks_exact_mut(4).zip(raw.chunks_exact(element)) {
                    let x = match (first.kind, bytes) {
                        (TensorType::F16, [a, b]) => f16_to_f32(u16::from_le_bytes([*a, *b])),
                        (TensorType::BF16, [a, b]) => bf16_to_f32(u16::from_le_bytes([*a, *b])),
                        (_, [a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]),
                        _ => return Err(io::ErrorKind::InvalidData.into()),
                    };
                    out.copy_from_slice(&(x + 1.0).to_le_bytes());
                }
                Ok(())
            }
        }
    }

    fn names(&self) -> Vec<&str> {
        self.entries.keys().map(String::as_str).collect()
    }

    fn len_bytes(&self) -> u64 {
        let bytes = |entry: &Entry| match entry {
            Entry::Stored { parts, .. } => parts.iter().map(|part| part.len_bytes).sum(),
            Entry::Made(values) => values.len() as u64 * 4,
        };
        self.entries.values().map(bytes).sum()
    }
}

impl Model {
    /// Reads and packs the weights of a Hugging Face folder: `config.json`, the directories of its safetensors files and
    /// where each file's bytes come from, in the same order.
    ///
    /// # Errors
    /// Counts, shapes, missing or unknown tensors, and those of the sources.
    pub fn load_checkpoint(
        config: &LanguageConfig,
        shards: &[Shard],
        sources: &[&dyn Source],
        options: Options,
    ) -> Result<Self, ModelError> {
        let a = Architecture::from_config(config)?;
        let tensors = CheckpointTensors::new(&a, config, shards, sources)?;
        Self::build(a, &tensors, options)
    }
}
