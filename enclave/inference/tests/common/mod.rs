//! Small models of every family with pseudo-random weights, made in memory.
#![allow(dead_code, reason = "each test uses a part")]

use adyton_model::gguf::{Gguf, Value, Writer, write};
use adyton_model::half::f32_to_f16;
use adyton_model::quant::TensorType;

/// Families and variants there are models for.
pub(crate) const FAMILIES: [&str; 12] = [
    "llama",
    "llama-yarn",
    "llama-experts",
    "smollm3",
    "qwen2",
    "qwen2-yarn",
    "qwen3",
    "qwen3moe",
    "gemma2",
    "gemma3",
    "phi3",
    "phi3-long",
];

/// Tokens of their vocabularies.
pub(crate) const VOCAB: u32 = 96;

const DIM: u64 = 64;
const HIDDEN: u64 = 96;
const HEADS: u64 = 4;
const KV_HEADS: u64 = 2;
const EXPERTS: u64 = 4;

struct Random(u64);

impl Random {
    /// About uniform in [-1, 1).
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f32::from(i16::from_le_bytes([(self.0 >> 40) as u8, (self.0 >> 48) as u8])) / 32768.0
    }
}

/// A whole GGUF file. `half` stores matrices as f16.
pub(crate) fn tiny(variant: &str, half: bool) -> Vec<u8> {
    let arch = variant.split('-').next().unwrap();
    let gemma = arch.starts_with("gemma");
    let experts = variant.ends_with("experts") || arch == "qwen3moe";
    let head_dim: u64 = if arch == "qwen3" { 24 } else { 16 };
    // One whose layers are not alike has one of each kind.
    let layers: u32 = if arch == "smollm3" { 4 } else { 3 };
    let mut w = Writer::default();
    w.text("general.architecture", arch);
    w.text("tokenizer.ggml.model", "none");
    let key = |name: &str| format!("{arch}.{name}");
    let small = |x: u64| u32::try_from(x).unwrap();
    w.u32(&key("vocab_size"), VOCAB);
    w.u32(&key("context_length"), 512);
    w.u32(&key("embedding_length"), small(DIM));
    w.u32(&key("block_count"), layers);
    w.u32(&key("feed_forward_length"), small(HIDDEN));
    w.u32(&key("attention.head_count"), small(HEADS));
    w.u32(&key("attention.head_count_kv"), small(KV_HEADS));
    w.u32(&key("attention.key_length"), small(head_dim));
    w.u32(&key("attention.value_length"), small(head_dim));
    w.u32(&key("rope.dimension_count"), small(head_dim));
    w.f32(&key("rope.freq_base"), 10_000.0);
    w.f32(&key("attention.layer_norm_rms_epsilon"), 1e-5);
    if gemma {
        w.u32(&key("attention.sliding_window"), 8);
    }
    if variant == "phi3-long" {
        w.text(&key("rope.scaling.type"), "longrope");
        w.u32(&key("rope.scaling.original_context_length"), 16);
        w.f32(&key("rope.scaling.attn_factor"), 1.5);
    }
    if variant.ends_with("yarn") {
        w.text(&key("rope.scaling.type"), "yarn");
        w.f32(&key("rope.scaling.factor"), 4.0);
        w.u32(&key("rope.scaling.original_context_length"), 128);
    }
    if variant == "qwen2-yarn" {
        w.f32(&key("rope.scaling.yarn_attn_factor"), 1.25);
        w.f32(&key("rope.scaling.yarn_beta_fast"), 8.0);
        w.f32(&key("rope.scaling.yarn_beta_slow"), 2.0);
    }
    if experts {
        w.u32(&key("expert_count"), small(EXPERTS));
        w.u32(&key("expert_used_count"), 2);
        w.u32(&key("expert_feed_forward_length"), small(HIDDEN));
    }
    let (q, kv) = (HEADS * head_dim, KV_HEADS * head_dim);
    let mut tensors: Vec<(String, Vec<u64>)> = vec![("token_embd".into(), vec![DIM, u64::from(VOCAB)])];
    for layer in 0..layers {
        let mut add = |name: &str, dims: &[u64]| tensors.push((format!("blk.{layer}.{name}"), dims.to_vec()));
        add("attn_norm", &[DIM]);
        if arch == "phi3" {
            add("attn_qkv", &[DIM, q + 2 * kv]);
        } else {
            add("attn_q", &[DIM, q]);
            add("attn_k", &[DIM, kv]);
            add("attn_v", &[DIM, kv]);
        }
        if arch == "qwen2" {
            add("attn_q.bias", &[q]);
            add("attn_k.bias", &[kv]);
            add("attn_v.bias", &[kv]);
        }
        if arch.starts_with("qwen3") || arch == "gemma3" {
            add("attn_q_norm", &[head_dim]);
            add("attn_k_norm", &[head_dim]);
        }
        add("attn_output", &[q, DIM]);
        if gemma {
            add("post_attention_norm", &[DIM]);
            add("post_ffw_norm", &[DIM]);
        }
        add("ffn_norm", &[DIM]);
        match (experts, arch) {
            (true, _) => {
                add("ffn_gate_inp", &[DIM, EXPERTS]);
                add("ffn_gate_exps", &[DIM, HIDDEN, EXPERTS]);
                add("ffn_up_exps", &[DIM, HIDDEN, EXPERTS]);
                add("ffn_down_exps", &[HIDDEN, DIM, EXPERTS]);
            }
            (_, "phi3") => {
                add("ffn_up", &[DIM, 2 * HIDDEN]);
                add("ffn_down", &[HIDDEN, DIM]);
            }
            _ => {
                add("ffn_gate", &[DIM, HIDDEN]);
                add("ffn_up", &[DIM, HIDDEN]);
                add("ffn_down", &[HIDDEN, DIM]);
            }
        }
    }
    if variant == "phi3-long" {
        tensors.extend(["short", "long"].map(|name| (format!("rope_factors_{name}"), vec![head_dim / 2])));
    }
    tensors.push(("output_norm".into(), vec![DIM]));
    if !gemma {
        tensors.push(("output".into(), vec![DIM, u64::from(VOCAB)]));
    }
    let mut random = Random(variant.len() as u64 * 77 + 5);
    let mut data: Vec<Vec<u8>> = Vec::new();
    for (name, dims) in &tensors {
        let full = if name.ends_with("bias") { name.clone() } else { format!("{name}.weight") };
        let f16 = half && dims.len() > 1 && !name.contains("gate_inp");
        w.tensor(&full, if f16 { TensorType::F16 } else { TensorType::F32 }, dims);
        let n: u64 = dims.iter().product();
        let scale = if dims.len() > 1 { 2.5 / (dims[0] as f32).sqrt() } else { 0.3 };
        let base = match name.as_str() {
            "rope_factors_long" => 4.0,
            name if name.ends_with("norm") || name == "rope_factors_short" => 1.0,
            _ => 0.0,
        };
        let values = (0..n).map(|_| base + scale * random.next());
        data.push(if f16 {
            values.flat_map(|x| f32_to_f16(x).to_le_bytes()).collect()
        } else {
            values.flat_map(f32::to_le_bytes).collect()
        });
    }
    let mut file = Vec::new();
    write(&mut file, &w, data.iter().map(Vec::as_slice)).unwrap();
    file
}

/// A metadata value to put in place of a file's own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Meta<'a> {
    U32(u32),
    F32(f32),
    Text(&'a str),
    Texts(&'a [&'a str]),
    I32s(&'a [i32]),
    Nothing,
}

/// Writes the values.
pub(crate) fn put(w: &mut Writer, changes: &[(&str, Meta<'_>)]) {
    for (key, value) in changes {
        match value {
            Meta::U32(x) => w.u32(key, *x),
            Meta::F32(x) => w.f32(key, *x),
            Meta::Text(text) => w.text(key, text),
            Meta::Texts(texts) => w.texts(key, texts),
            Meta::I32s(numbers) => w.i32s(key, numbers),
            Meta::Nothing => {}
        }
    }
}

/// The same file with other metadata, and with tensors of other shapes and types, whose bytes are then zero.
pub(crate) fn edited(
    bytes: &[u8],
    changes: &[(&str, Meta<'_>)],
    shape: impl Fn(&str) -> Option<(TensorType, Vec<u64>)>,
) -> Vec<u8> {
    let gguf = Gguf::parse(bytes, bytes.len() as u64).unwrap();
    let mut w = Writer::default();
    for (key, value) in gguf.metadata().filter(|(key, _)| changes.iter().all(|(changed, _)| changed != key)) {
        match value {
            Value::Unsigned(x) => w.u32(key, u32::try_from(*x).unwrap()),
            Value::Float(x) => w.f32(key, *x as f32),
            Value::String(text) => w.text(key, text),
            other => panic!("{key}: {other:?}"),
        }
    }
    put(&mut w, changes);
    let mut data = Vec::new();
    for tensor in gguf.tensors() {
        let start = usize::try_from(tensor.start).unwrap();
        let old = &bytes[start..start + usize::try_from(tensor.len_bytes).unwrap()];
        match shape(tensor.name) {
            None => {
                w.tensor(tensor.name, tensor.kind, &tensor.dims);
                data.push(old.to_vec());
            }
            Some((kind, dims)) => {
                w.tensor(tensor.name, kind, &dims);
                let blocks = dims.iter().product::<u64>() / kind.block_len() as u64;
                data.push(vec![0; usize::try_from(blocks).unwrap() * kind.block_bytes()]);
            }
        }
    }
    let mut file = Vec::new();
    write(&mut file, &w, data.iter().map(Vec::as_slice)).unwrap();
    file
}
