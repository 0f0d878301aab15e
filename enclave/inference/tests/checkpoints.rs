//! The small models of every family written as Hugging Face folders, in one file and in several: the same bits as from
//! GGUF. Also those in `../shared/models` that hold plain floats, read in place; and folders that do not fit.
#![allow(clippy::disallowed_methods, reason = "tests read files")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::print_stderr,
    reason = "tests"
)]

mod common;

use std::collections::BTreeMap;

use adyton_inference::lm::{
    Architecture, KvKind, Model, ModelError, Options, RopeScaling, Sequence, Source, Step, Wanted,
};
use adyton_model::checkpoint::{LanguageConfig, Shard, ShardIndex};
use adyton_model::gguf::Gguf;
use adyton_model::half::{bf16_to_f32, f16_to_f32, f32_to_f16};
use adyton_model::quant::TensorType;
use common::{FAMILIES, VOCAB, tiny};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

/// A tensor with its name, type, shape (outermost first) and bytes.
type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

/// `config.json` of a GGUF file's model.
fn config(gguf: &Gguf<'_>, variant: &str) -> Value {
    let arch = gguf.text("general.architecture").unwrap().unwrap();
    let key = |name: &str| gguf.integer(&format!("{arch}.{name}")).unwrap();
    let number = |name: &str| gguf.number(&format!("{arch}.{name}")).unwrap();
    let rows = gguf.tensor("token_embd.weight").unwrap().rows();
    let model_type = match (arch, key("expert_count")) {
        ("llama", Some(_)) => "mixtral",
        ("qwen3moe", _) => "qwen3_moe",
        ("gemma3", _) => "gemma3_text",
        (other, _) => other,
    };
    let act = if arch.starts_with("gemma") { "gelu_pytorch_tanh" } else { "silu" };
    let mut config = json!({
        "model_type": model_type, "vocab_size": rows, "hidden_size": key("embedding_length"),
        "intermediate_size": key("feed_forward_length"), "num_hidden_layers": key("block_count"),
        "num_attention_heads": key("attention.head_count"), "num_key_value_heads": key("attention.head_count_kv"),
        "head_dim": key("attention.key_length"), "max_position_embeddings": key("context_length"),
        "rms_norm_eps": number("attention.layer_norm_rms_epsilon"), "rope_theta": number("rope.freq_base"),
        "hidden_act": act, "tie_word_embeddings": gguf.tensor("output.weight").is_none(),
        "sliding_window": key("attention.sliding_window"), "num_experts": key("expert_count"),
        "num_experts_per_tok": key("expert_used_count"), "norm_topk_prob": true,
        "moe_intermediate_size": key("expert_feed_forward_length"), "bos_token_id": 1, "eos_token_id": 2,
    });
    if variant == "llama-yarn" {
        config["rope_scaling"] = json!({"rope_type": "yarn", "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128});
    }
    if variant == "qwen2-yarn" {
        config["rope_scaling"] = json!({"rope_type": "yarn", "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128,
            "beta_fast": 8.0, "beta_slow": 2.0, "attention_factor": 1.25});
    }
    if arch.starts_with("gemma") {
        config["query_pre_attn_scalar"] = config["head_dim"].clone();
    }
    if arch == "smollm3" {
        config["no_rope_layers"] = json!([1, 1, 1, 0]);
    }
    if arch == "gemma2" {
        config["attn_logit_softcapping"] = json!(50.0);
        config["final_logit_softcapping"] = json!(30.0);
    }
    if arch == "gemma3" {
        let layers = key("block_count").unwrap();
        if layers >= 6 {
            let kind = |n: u64| if n.is_multiple_of(6) { "full_attention" } else { "sliding_attention" };
            config["layer_types"] = (1..=layers).map(kind).collect();
        }
        config["rope_local_base_freq"] = json!(10000.0);
    }
    config
}

/// The configuration with the divisors of rotations that a GGUF file has in tensors.
fn with_factors(mut config: Value, gguf: &Gguf<'_>, bytes: &[u8]) -> Value {
    let factors = |name: &str| -> Option<Vec<f32>> {
        let tensor = gguf.tensor(name)?;
        let data = &bytes[tensor.start as usize..][..tensor.len_bytes as usize];
        Some(data.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect())
    };
    if let (Some(short), Some(long)) =
        (factors("rope_factors_short.weight"), factors("rope_factors_long.weight"))
    {
        let number = |key: &str| gguf.number(&format!("phi3.rope.scaling.{key}")).unwrap();
        let original = gguf.integer("phi3.rope.scaling.original_context_length").unwrap();
        config["original_max_position_embeddings"] = json!(original);
        config["rope_scaling"] = json!({"rope_type": "longrope", "type": "longrope", "short_factor": short,
            "long_factor": long, "attention_factor": number("attn_factor"), "original_max_position_embeddings": original});
    }
    config
}

/// Rows of heads in pairs become rows in halves.
fn halves(bytes: &[u8], rows: usize, head_dim: usize) -> Vec<u8> {
    let row = bytes.len() / rows;
    let mut out = Vec::new();
    for stored in 0..rows {
        let (head, half, pair) =
            (stored / head_dim, stored % head_dim / (head_dim / 2), stored % (head_dim / 2));
        let from = head * head_dim + 2 * pair + half;
        out.extend_from_slice(&bytes[from * row..(from + 1) * row]);
    }
    out
}

/// The model under its Hugging Face names. Gemma's norms lose their 1 and are rounded to f16; `gguf_bytes` follow them.
fn converted(gguf_bytes: &mut [u8]) -> Vec<Tensor> {
    let copy = gguf_bytes.to_vec();
    let gguf = Gguf::parse(&copy, copy.len() as u64).unwrap();
    let arch = gguf.text("general.architecture").unwrap().unwrap();
    let gemma = arch.starts_with("gemma");
    let moe = gguf.integer(&format!("{arch}.expert_count")).unwrap();
    let head_dim = gguf.integer(&format!("{arch}.attention.key_length")).unwrap().unwrap() as usize;
    let mut out = Vec::new();
    for tensor in gguf.tensors() {
        let (start, len) = (tensor.start as usize, tensor.len_bytes as usize);
        let mut bytes = copy[start..start + len].to_vec();
        let mut kind = match tensor.kind {
            TensorType::F32 => Dtype::F32,
            TensorType::F16 => Dtype::F16,
            TensorType::BF16 => Dtype::BF16,
            other => panic!("{other:?}"),
        };
        let (columns, rows) = (tensor.columns() as usize, tensor.rows() as usize);
        let (layer, part) = match tensor.name.strip_prefix("blk.") {
            Some(rest) => rest.split_once('.').map(|(layer, part)| (Some(layer), part)).unwrap(),
            None => (None, tensor.name),
        };
        let (stem, end) = part.rsplit_once('.').unwrap();
        if matches!(arch, "llama" | "smollm3") && matches!(stem, "attn_q" | "attn_k") {
            bytes = halves(&bytes, if rows == 1 { columns } else { rows }, head_dim);
        }
        if gemma && stem.ends_with("norm") {
            let mut data = Vec::new();
            for (x, place) in
                bytes.as_chunks::<4>().0.iter().zip(gguf_bytes[start..start + len].as_chunks_mut::<4>().0)
            {
                let half = f32_to_f16(f32::from_le_bytes(*x) - 1.0);
                data.extend(half.to_le_bytes());
                *place = (f16_to_f32(half) + 1.0).to_le_bytes();
            }
            (bytes, kind) = (data, Dtype::F16);
        }
        let hf = match stem {
            "token_embd" => "embed_tokens",
            "output_norm" => "norm",
            "output" => "lm_head",
            "rope_freqs" | "rope_factors_short" | "rope_factors_long" => continue,
            "attn_norm" => "input_layernorm",
            "attn_q" => "self_attn.q_proj",
            "attn_k" => "self_attn.k_proj",
            "attn_v" => "self_attn.v_proj",
            "attn_qkv" => "self_attn.qkv_proj",
            "attn_output" => "self_attn.o_proj",
            "attn_q_norm" => "self_attn.q_norm",
            "attn_k_norm" => "self_attn.k_norm",
            "post_attention_norm" => "post_attention_layernorm",
            "post_ffw_norm" => "post_feedforward_layernorm",
            "ffn_norm" if gemma => "pre_feedforward_layernorm",
            "ffn_norm" => "post_attention_layernorm",
            "ffn_gate" => "mlp.gate_proj",
            "ffn_up" if arch == "phi3" => "mlp.gate_up_proj",
            "ffn_up" => "mlp.up_proj",
            "ffn_down" => "mlp.down_proj",
            "ffn_gate_inp" if arch == "llama" => "block_sparse_moe.gate",
            "ffn_gate_inp" => "mlp.gate",
            experts => {
                let count = moe.unwrap() as usize;
                let names = match (arch, experts) {
                    ("llama", "ffn_gate_exps") => ("block_sparse_moe", "w1"),
                    ("llama", "ffn_up_exps") => ("block_sparse_moe", "w3"),
                    ("llama", "ffn_down_exps") => ("block_sparse_moe", "w2"),
                    (_, "ffn_gate_exps") => ("mlp", "gate_proj"),
                    (_, "ffn_up_exps") => ("mlp", "up_proj"),
                    (_, "ffn_down_exps") => ("mlp", "down_proj"),
                    other => panic!("{other:?}"),
                };
                for (expert, part) in bytes.chunks_exact(bytes.len() / count).enumerate() {
                    let name = format!(
                        "model.layers.{}.{}.experts.{expert}.{}.weight",
                        layer.unwrap(),
                        names.0,
                        names.1
                    );
                    out.push((name, kind, vec![rows / count, columns], part.to_vec()));
                }
                continue;
            }
        };
        let name = match layer {
            Some(layer) => format!("model.layers.{layer}.{hf}.{end}"),
            None if hf == "lm_head" => "lm_head.weight".to_owned(),
            None => format!("model.{hf}.weight"),
        };
        let matrix = tensor.dims[1] > 1;
        out.push((name, kind, if matrix { vec![rows, columns] } else { vec![columns] }, bytes));
    }
    out
}

fn write(tensors: &[Tensor]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, kind, shape, bytes)| {
        (name.clone(), TensorView::new(*kind, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// Reads a folder whose tensors are dealt out to `n` files.
fn load(config: &Value, tensors: &[Tensor], n: usize) -> Result<Model, ModelError> {
    let mut files: Vec<Vec<Tensor>> = vec![Vec::new(); n];
    let mut map = BTreeMap::new();
    for (index, tensor) in tensors.iter().enumerate() {
        files[index % n].push(tensor.clone());
        map.insert(tensor.0.clone(), format!("model-{:05}-of-{n:05}.safetensors", index % n + 1));
    }
    let files: Vec<Vec<u8>> = files.iter().map(|tensors| write(tensors)).collect();
    let shards: Vec<Shard> =
        files.iter().map(|file| Shard::parse(file, file.len() as u64).unwrap()).collect();
    let index = ShardIndex::from_json(json!({"weight_map": map}).to_string().as_bytes()).unwrap();
    index.verify(&shards).unwrap();
    let slices: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let sources: Vec<&dyn Source> = slices.iter().map(|slice| slice as &dyn Source).collect();
    let config = LanguageConfig::from_json(config.to_string().as_bytes()).unwrap();
    Model::load_checkpoint(&config, &shards, &sources, Options { long_context: true, ..Options::default() })
}

fn logits(model: &Model) -> Vec<f32> {
    let mut cache = model.cache(KvKind::F32, 64);
    let mut sequence = Sequence::default();
    let vocab = model.architecture().vocab_size as u32;
    let tokens: Vec<u32> = (0..33).map(|i| (i * i * 31 + 7 * i + 3) % vocab).collect();
    let step = Step { sequence: &mut sequence, tokens: &tokens, wanted: Wanted::All };
    model.forward(&mut cache, &mut [step]).unwrap()
}

fn from_gguf(bytes: &[u8]) -> Model {
    let gguf = Gguf::parse(bytes, bytes.len() as u64).unwrap();
    Model::load(&gguf, &bytes, Options { long_context: true, ..Options::default() }).unwrap()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn every_family_gives_the_bits_of_its_gguf_file() {
    for variant in FAMILIES {
        for half in [false, true] {
            let mut bytes = tiny(variant, half);
            let tensors = converted(&mut bytes);
            let gguf = Gguf::parse(&bytes, bytes.len() as u64).unwrap();
            let config = config(&gguf, variant);
            let config = with_factors(config, &gguf, &bytes);
            let want = bits(&logits(&from_gguf(&bytes)));
            for n in [1, 3] {
                let model = load(&config, &tensors, n).unwrap();
                assert_eq!(model.architecture(), from_gguf(&bytes).architecture(), "{variant}");
                assert!(bits(&logits(&model)) == want, "{variant} half {half} in {n} files");
            }
        }
    }
}

/// What the models' own code gives for them, `transformers` in f32 (`fixtures/make_families.py`).
#[test]
fn every_family_gives_the_logits_of_its_own_code() {
    // Empty while it is being made.
    let reference: Value = serde_json::from_str(include_str!("fixtures/families.json")).unwrap_or_default();
    for variant in FAMILIES {
        let mut bytes = tiny(variant, false);
        let tensors = converted(&mut bytes);
        let gguf = Gguf::parse(&bytes, bytes.len() as u64).unwrap();
        let config = with_factors(config(&gguf, variant), &gguf, &bytes);
        if let Some(folder) = std::env::var_os("ADYTON_WRITE_MODELS") {
            let folder = std::path::Path::new(&folder).join(variant);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
            std::fs::write(folder.join("model.safetensors"), write(&tensors)).unwrap();
            continue;
        }
        let want: Vec<f32> = serde_json::from_value(reference[variant].clone()).unwrap_or_default();
        let got = logits(&load(&config, &tensors, 1).unwrap());
        let last = got.len() - want.len();
        assert_eq!(want.len(), VOCAB as usize, "{variant}");
        for (got, want) in got[last..].iter().zip(&want) {
            assert!((got - want).abs() < 2e-5, "{variant}: {got} {want}");
        }
    }
}

/// Gemma 3 as most of its folders hold it: the text's part of a model for pictures, hardly described.
#[test]
fn the_text_part_of_a_model_for_pictures() {
    let mut bytes = tiny("gemma3", false);
    let tensors = converted(&mut bytes);
    let gguf = Gguf::parse(&bytes, bytes.len() as u64).unwrap();
    let mut text = config(&gguf, "gemma3");
    text["model_type"] = json!("gemma3_text");
    let want = bits(&logits(&load(&text, &tensors, 1).unwrap()));
    let whole = json!({"model_type": "gemma3", "text_config": text, "eos_token_id": [1, 106]});
    let parsed = LanguageConfig::from_json(whole.to_string().as_bytes()).unwrap();
    assert_eq!((parsed.eos(), parsed.pictures), ([1, 106].as_slice(), true));
    let renamed = |how: &dyn Fn(&str) -> String| {
        let mut tensors: Vec<Tensor> =
            tensors.iter().map(|t| (how(&t.0), t.1, t.2.clone(), t.3.clone())).collect();
        tensors.push(("model.vision_tower.patch.weight".into(), Dtype::F32, vec![1, 1, 1, 1], vec![0; 4]));
        tensors.push(("multi_modal_projector.norm.weight".into(), Dtype::F32, vec![1], vec![0; 4]));
        tensors
    };
    let older = renamed(&|name| format!("language_model.{name}"));
    let newer = renamed(&|name| format!("model.language_model.{}", name.strip_prefix("model.").unwrap()));
    for tensors in [older, newer] {
        assert!(bits(&logits(&load(&whole, &tensors, 2).unwrap())) == want);
        assert!(matches!(load(&text, &tensors, 2).unwrap_err(), ModelError::UnknownTensor(_)));
    }
    let sparse = json!({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "hidden_size": 2560,
        "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}});
    let a = Architecture::from_config(&LanguageConfig::from_json(sparse.to_string().as_bytes()).unwrap())
        .unwrap();
    assert_eq!((a.n_heads, a.n_kv_heads, a.head_dim, a.vocab_size, a.seq_len), (8, 4, 256, 262_208, 131_072));
    assert_eq!((a.rope_base, a.rope_base_local, a.global_every), (1e6, Some(1e4), 6));
    assert_eq!((a.rope_scaling, a.attention_scale), (RopeScaling::Linear { factor: 8.0 }, 1.0 / 16.0));
}

/// Llama 3's rotations, tied embeddings and bf16 of the models in `../shared/models`.
#[test]
fn shared_float_models_give_the_bits_of_their_gguf_files() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = root.ancestors().find(|dir| dir.join("Cargo.lock").exists()).unwrap();
    for name in
        ["llama-gqa-ropescale-f32", "llama-k256-f16", "qwen3-tied-f32", "gemma3-swa-f32", "gemma3-swa-bf16"]
    {
        let path = root.join(format!("../shared/models/{name}.gguf"));
        let Ok(mut bytes) = std::fs::read(&path) else {
            eprintln!("skipped: {} is missing", path.display());
            continue;
        };
        let tensors = converted(&mut bytes);
        let gguf = Gguf::parse(&bytes, bytes.len() as u64).unwrap();
        let mut config = config(&gguf, name);
        if let Some(divisors) = gguf.tensor("rope_freqs.weight") {
            let data = &bytes[divisors.start as usize..][..divisors.len_bytes as usize];
            let last = data.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).fold(1.0, f32::max);
            let context = config["max_position_embeddings"].as_u64().unwrap();
            config["rope_parameters"] = json!({
                "rope_type": "llama3", "rope_theta": config["rope_theta"], "factor": last, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": if context > 8192 { 8192 } else { context / 2 },
            });
        }
        let (got, want) = (logits(&load(&config, &tensors, 2).unwrap()), logits(&from_gguf(&bytes)));
        assert!(bits(&got) == bits(&want), "{name}");
        assert!(bf16_to_f32(0x3f80) == 1.0 && got.iter().all(|x| x.is_finite()));
    }
}

#[test]
fn folders_that_do_not_fit_are_named_errors() {
    let mut bytes = tiny("llama", false);
    let tensors = converted(&mut bytes);
    let gguf = Gguf::parse(&bytes, bytes.len() as u64).unwrap();
    let config = config(&gguf, "llama");
    let with = |key: &str, value: Value| {
        let mut config = config.clone();
        config[key] = value;
        load(&config, &tensors, 1).unwrap_err()
    };
    for (key, value) in [
        ("num_attention_heads", json!(0)),
        ("num_key_value_heads", json!(3)),
        ("num_key_value_heads", json!(8)),
        ("hidden_size", json!(u64::MAX)),
        ("num_hidden_layers", json!(1 << 20)),
        ("vocab_size", json!(0)),
        ("head_dim", json!(15)),
        ("rms_norm_eps", json!(-1.0)),
        ("rope_theta", json!(0.0)),
        ("hidden_act", json!("relu")),
        ("partial_rotary_factor", json!(0.5)),
        ("partial_rotary_factor", json!(1e30)),
        ("sliding_window", json!(0)),
        ("use_sliding_window", json!(true)),
        ("use_bidirectional_attention", json!(true)),
        ("quantization_config", json!({"bits": 4})),
        ("rope_scaling", json!({"type": "dynamic", "factor": 2.0})),
        ("rope_scaling", json!({"type": "linear", "factor": -2.0})),
        ("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0})),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 8.0, "beta_fast": -16.0})),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 8.0, "truncate": false})),
    ] {
        let error = with(key, value);
        assert!(matches!(error, ModelError::Metadata { .. }), "{key}: {error}");
    }
    for order in [json!([1, 0, 0]), json!([0, 1, 1])] {
        let mut config = config.clone();
        (config["model_type"], config["no_rope_layers"]) = (json!("smollm3"), order);
        let error = load(&config, &tensors, 1).unwrap_err();
        assert!(matches!(error, ModelError::Metadata { .. }), "{error}");
    }
    assert!(matches!(with("model_type", json!("mamba")), ModelError::Architecture(_)));
    assert!(matches!(with("vocab_size", json!(95)), ModelError::Shape { .. }));
    assert!(matches!(with("num_hidden_layers", json!(2)), ModelError::UnknownTensor(_)));
    assert!(matches!(with("num_hidden_layers", json!(4)), ModelError::MissingTensor(_)));
    let mut missing = tensors.clone();
    missing.retain(|(name, ..)| name != "lm_head.weight");
    assert!(matches!(load(&config, &missing, 1).unwrap_err(), ModelError::MissingTensor(_)));
    let mut more = tensors.clone();
    more.push(("model.vision.weight".to_owned(), Dtype::F32, vec![1], vec![0; 4]));
    assert!(matches!(load(&config, &more, 1).unwrap_err(), ModelError::UnknownTensor(_)));
    let mut cube = tensors.clone();
    cube[0].2.push(1);
    assert!(matches!(load(&config, &cube, 1).unwrap_err(), ModelError::UnknownTensor(_)));
    // The same tensor in two files.
    let twice: Vec<Vec<u8>> = vec![write(&tensors), write(&tensors[..1])];
    let shards: Vec<Shard> =
        twice.iter().map(|file| Shard::parse(file, file.len() as u64).unwrap()).collect();
    let slices: Vec<&[u8]> = twice.iter().map(Vec::as_slice).collect();
    let sources: Vec<&dyn Source> = slices.iter().map(|slice| slice as &dyn Source).collect();
    let parsed = LanguageConfig::from_json(config.to_string().as_bytes()).unwrap();
    let error = Model::load_checkpoint(&parsed, &shards, &sources, Options::default()).unwrap_err();
    assert!(matches!(error, ModelError::DuplicateTensor(_)), "{error}");
    // Fewer sources than files.
    let error = Model::load_checkpoint(&parsed, &shards[..1], &[], Options::default()).unwrap_err();
    assert!(matches!(error, ModelError::Read(_)), "{error}");
    // An expert is missing.
    let mut bytes = tiny("qwen3moe", false);
    let mut tensors = converted(&mut bytes);
    let gguf = Gguf::parse(&bytes, bytes.len() as u64).unwrap();
    let config = self::config(&gguf, "qwen3moe");
    tensors.retain(|(name, ..)| !name.contains("layers.1.mlp.experts.2.up_proj"));
    assert!(matches!(load(&config, &tensors, 1).unwrap_err(), ModelError::MissingTensor(_)));
}
