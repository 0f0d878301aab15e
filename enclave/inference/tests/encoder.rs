//! Encoders: a small one made here gives the same bits alone and in batches, on every path; MiniLM gives its reference
//! vectors where its folder is named in `ADYTON_MINILM` (`../shared/models/minilm/README.md` says where it comes from).
#![allow(clippy::disallowed_methods, reason = "tests read files and the environment")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "tests"
)]
#![allow(clippy::print_stderr, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};

use adyton_inference::arch::Path;
use adyton_inference::encoder::{EncodeError, Encoder, Pooling};
use adyton_inference::lm::{ModelError, Options};
use adyton_inference::tokenizer::{Encode, Tokenizer};
use adyton_model::encoder::{EncoderConfig, EncoderTensors};
use adyton_model::gguf::{Gguf, Writer, write};
use adyton_model::quant::TensorType;
use adyton_model::tokenizer::TokenizerFile;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

const CONFIG: &str = r#"{"vocab_size":50,"hidden_size":48,"num_hidden_layers":2,"num_attention_heads":4,
    "intermediate_size":80,"max_position_embeddings":64,"type_vocab_size":2,"layer_norm_eps":1e-12,
    "hidden_act":"gelu","model_type":"bert"}"#;

fn tiny() -> Vec<u8> {
    let mut shapes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut add = |name: String, shape: &[usize]| shapes.insert(name, shape.to_vec());
    add("embeddings.word_embeddings.weight".into(), &[50, 48]);
    add("embeddings.position_embeddings.weight".into(), &[64, 48]);
    add("embeddings.token_type_embeddings.weight".into(), &[2, 48]);
    let mut pair = |name: &str, shape: &[usize]| {
        add(format!("{name}.weight"), shape);
        add(format!("{name}.bias"), &shape[..1]);
    };
    pair("embeddings.LayerNorm", &[48]);
    for i in 0..2 {
        for part in
            ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
        {
            pair(&format!("encoder.layer.{i}.{part}"), &[48, 48]);
        }
        pair(&format!("encoder.layer.{i}.attention.output.LayerNorm"), &[48]);
        pair(&format!("encoder.layer.{i}.intermediate.dense"), &[80, 48]);
        pair(&format!("encoder.layer.{i}.output.dense"), &[48, 80]);
        pair(&format!("encoder.layer.{i}.output.LayerNorm"), &[48]);
    }
    let mut state = 9u64;
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let values = (0..shape.iter().product::<usize>()).flat_map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((state >> 40) as f32 / 2f32.powi(24) - 0.5).to_le_bytes()
            });
            let bytes = values.collect();
            (name, shape, bytes)
        })
        .collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

fn bits(vectors: Vec<Vec<f32>>) -> Vec<Vec<u32>> {
    vectors.into_iter().map(|x| x.into_iter().map(f32::to_bits).collect()).collect()
}

#[test]
fn the_same_bits_alone_and_together_on_every_path() {
    let (bytes, config) = (tiny(), EncoderConfig::from_json(CONFIG.as_bytes()).unwrap());
    let tensors = EncoderTensors::parse(&bytes).unwrap();
    let texts: Vec<Vec<u32>> = (1..20).map(|n| (0..3 * n).map(|i| (i * i + n) % 50).collect()).collect();
    for pooling in [Pooling::Mean, Pooling::Cls] {
        let mut want = Vec::new();
        for path in Path::available() {
            // The texts make five batches: five threads compute one each, two would wait for each other and share all.
            for threads in [2, 5] {
                let encoder =
                    Encoder::load(&config, &tensors, Options { path, ..Options::new(threads) }).unwrap();
                if want.is_empty() {
                    want = texts
                        .iter()
                        .flat_map(|text| bits(encoder.embed(std::slice::from_ref(text), pooling).unwrap()))
                        .collect();
                }
                let got = bits(encoder.embed(&texts, pooling).unwrap());
                assert!(got == want, "{path} {pooling:?}, {threads} threads");
            }
        }
    }
    let encoder = Encoder::load(&config, &tensors, Options::default()).unwrap();
    for bad in [vec![], vec![50], vec![1; 65]] {
        assert!(encoder.embed(&[bad], Pooling::Mean).is_err());
    }
    let config = EncoderConfig { hidden_size: 64, ..config };
    assert!(Encoder::load(&config, &tensors, Options::default()).is_err());
}

#[test]
fn minilm_gives_its_reference_vectors() {
    let root = FilePath::new(env!("CARGO_MANIFEST_DIR"));
    let root = root.ancestors().find(|dir| dir.join("Cargo.lock").exists()).unwrap();
    let golden = std::fs::read(root.join("../shared/models/minilm/golden.json"));
    let (Ok(golden), Some(folder)) = (golden, std::env::var_os("ADYTON_MINILM").map(PathBuf::from)) else {
        eprintln!("skipped: ../shared/models/minilm or the folder named by ADYTON_MINILM is missing");
        return;
    };
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let read = |file: &str| std::fs::read(folder.join(file)).unwrap();
    let weights = read("model.safetensors");
    let config = EncoderConfig::from_json(&read("config.json")).unwrap();
    let file = TokenizerFile::from_json(&read("tokenizer.json")).unwrap();
    let tokenizer = Tokenizer::from_file(&file, &[]).unwrap();
    let encoder =
        Encoder::load(&config, &EncoderTensors::parse(&weights).unwrap(), Options::default()).unwrap();
    for item in golden["items"].as_array().unwrap() {
        let text = item["text"].as_str().unwrap();
        let mut tokens = tokenizer.encode(text, Encode { add_special: true, parse_special: false }).unwrap();
        let want: Vec<u32> =
            item["token_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        if tokens.len() > want.len() {
            tokens.truncate(want.len() - 1);
            tokens.extend(want.last());
        }
        assert_eq!(tokens, want, "{text}");
        let got = encoder.embed(&[tokens], Pooling::Mean).unwrap();
        let want = item["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap());
        let max = got[0].iter().zip(want).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        assert!(max < 2e-6, "{text}: {max}");
    }
}

/// Tensors of the small encoder with these more, by name and shape, all pseudo-random.
fn tensors(more: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let bytes = tiny();
    let parsed = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<(String, Vec<usize>, Vec<u8>)> = parsed
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.shape().to_vec(), view.data().to_vec()))
        .collect();
    all.sort();
    for (index, (name, shape)) in more.iter().enumerate() {
        let values =
            (0..shape.iter().product::<usize>()).map(|i| ((i * 37 + index * 11) % 101) as f32 / 101.0 - 0.5);
        all.push(((*name).to_owned(), shape.to_vec(), values.flat_map(f32::to_le_bytes).collect()));
    }
    all
}

fn folder(tensors: &[(String, Vec<usize>, Vec<u8>)], prefix: &str) -> Vec<u8> {
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let prefix = if name.starts_with("classifier") { "" } else { prefix };
        (format!("{prefix}{name}"), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// The same tensors as a GGUF file.
fn gguf(tensors: &[(String, Vec<usize>, Vec<u8>)], pooling: u32) -> Vec<u8> {
    let mut w = Writer::default();
    w.text("general.architecture", "bert");
    for (key, value) in [
        ("embedding_length", 48),
        ("block_count", 2),
        ("attention.head_count", 4),
        ("feed_forward_length", 80),
        ("context_length", 64),
        ("pooling_type", pooling),
    ] {
        w.u32(&format!("bert.{key}"), value);
    }
    w.f32("bert.attention.layer_norm_epsilon", 1e-12);
    for (name, shape, _) in tensors {
        let (stem, end) = name.rsplit_once('.').unwrap();
        let known = match stem {
            "embeddings.word_embeddings" => "token_embd",
            "embeddings.position_embeddings" => "position_embd",
            "embeddings.token_type_embeddings" => "token_types",
            "embeddings.LayerNorm" => "token_embd_norm",
            "pooler.dense" => "cls",
            "classifier" => "cls.output",
            other => other,
        };
        let name = match known.strip_prefix("encoder.layer.").and_then(|rest| rest.split_once('.')) {
            None => format!("{known}.{end}"),
            Some((layer, part)) => {
                let part = match part {
                    "attention.self.query" => "attn_q",
                    "attention.self.key" => "attn_k",
                    "attention.self.value" => "attn_v",
                    "attention.output.dense" => "attn_output",
                    "attention.output.LayerNorm" => "attn_output_norm",
                    "intermediate.dense" => "ffn_up",
                    "output.dense" => "ffn_down",
                    "output.LayerNorm" => "layer_output_norm",
                    other => panic!("{other}"),
                };
                format!("blk.{layer}.{part}.{end}")
            }
        };
        let dims: Vec<u64> = shape.iter().rev().map(|dim| *dim as u64).collect();
        w.tensor(&name, TensorType::F32, &dims);
    }
    let mut file = Vec::new();
    write(&mut file, &w, tensors.iter().map(|(.., bytes)| bytes.as_slice())).unwrap();
    file
}

fn from_gguf(bytes: &[u8]) -> Result<Encoder, EncodeError> {
    let gguf = Gguf::parse(bytes, bytes.len() as u64).map_err(ModelError::from)?;
    Encoder::from_gguf(&gguf, &bytes, Options::default())
}

fn from_folder(
    tensors: &[(String, Vec<usize>, Vec<u8>)],
    prefix: &str,
    config: &str,
) -> Result<Encoder, EncodeError> {
    let bytes = folder(tensors, prefix);
    let config = EncoderConfig::from_json(config.as_bytes())?;
    Encoder::load(&config, &EncoderTensors::parse(&bytes)?, Options::default())
}

#[test]
fn gguf_files_give_the_bits_of_the_folder_and_say_their_pooling() {
    let all = tensors(&[]);
    let texts = [vec![1, 2, 3, 4], vec![49; 20]];
    let want = from_folder(&all, "bert.", CONFIG).unwrap();
    for (number, pooling) in [(1, Pooling::Mean), (2, Pooling::Cls)] {
        let encoder = from_gguf(&gguf(&all, number)).unwrap();
        assert_eq!(encoder.pooling(), pooling);
        let (got, want) = (encoder.embed(&texts, pooling).unwrap(), want.embed(&texts, pooling).unwrap());
        assert!(bits(got) == bits(want));
        assert!(matches!(encoder.score(&[(vec![1], vec![0])]), Err(EncodeError::NoClassifier)));
    }
    assert!(matches!(from_gguf(&gguf(&all, 3)), Err(EncodeError::Model(ModelError::Metadata { .. }))));
    assert!(matches!(from_gguf(&gguf(&all[1..], 1)), Err(EncodeError::Model(ModelError::MissingTensor(_)))));
    let more = tensors(&[("extra.weight", &[3])]);
    assert!(matches!(from_gguf(&gguf(&more, 1)), Err(EncodeError::Model(ModelError::UnknownTensor(_)))));
}

/// A classifier behind the first token, against its formula on the vectors that CLS pooling gives.
#[test]
fn scores_are_the_classifier_of_the_first_token() {
    let head: [(&str, &[usize]); 4] = [
        ("pooler.dense.weight", &[48, 48]),
        ("pooler.dense.bias", &[48]),
        ("classifier.weight", &[1, 48]),
        ("classifier.bias", &[1]),
    ];
    let all = tensors(&head);
    let encoder = from_folder(&all, "bert.", CONFIG).unwrap();
    let pair = (vec![1, 7, 9, 2, 30, 2], vec![0, 0, 0, 0, 1, 1]);
    let other = (vec![1, 7, 9, 2, 31, 2], vec![0, 0, 0, 0, 1, 1]);
    let score = encoder.score(&[pair.clone(), other.clone()]).unwrap();
    let again = encoder.score(std::slice::from_ref(&pair)).unwrap();
    assert_eq!(bits(vec![score[0].clone()]), bits(again));
    assert!(score[0] != score[1] && score[0].len() == 1);
    let from_file = from_gguf(&gguf(&all, 4)).unwrap();
    assert_eq!(bits(from_file.score(&[pair.clone(), other]).unwrap()), bits(score.clone()));
    // Without a dense layer and with the identity as output the scores are the first token's vector.
    let identity: Vec<u8> =
        (0..48 * 48).flat_map(|i| f32::from(u8::from(i % 49 == 0)).to_le_bytes()).collect();
    let mut plain = tensors(&[("classifier.bias", &[48])]);
    plain.last_mut().unwrap().2.fill(0);
    plain.push(("classifier.weight".into(), vec![48, 48], identity));
    let vector =
        from_folder(&plain, "", CONFIG).unwrap().score(std::slice::from_ref(&pair)).unwrap().remove(0);
    let value = |name: &str, index: usize| {
        let data = &all.iter().find(|(known, ..)| known == name).unwrap().2;
        f64::from(f32::from_le_bytes(*data[4 * index..].first_chunk().unwrap()))
    };
    let dense = |row: usize| {
        let sum: f64 =
            (0..48).map(|i| value("pooler.dense.weight", row * 48 + i) * f64::from(vector[i])).sum();
        (sum + value("pooler.dense.bias", row)).tanh()
    };
    let want = (0..48).map(|row| value("classifier.weight", row) * dense(row)).sum::<f64>()
        + value("classifier.bias", 0);
    assert!((f64::from(score[0][0]) - want).abs() < 1e-4, "{} {want}", score[0][0]);
    // The second segment counts.
    let flat = encoder.score(&[(pair.0.clone(), vec![0; 6])]).unwrap();
    assert!(flat[0] != score[0]);
    for segments in [vec![0; 5], vec![2; 6]] {
        assert!(matches!(encoder.score(&[(pair.0.clone(), segments)]), Err(EncodeError::Segments)));
    }
}

/// RoBERTa's positions begin behind the padding token's.
#[test]
fn positions_of_roberta_begin_later() {
    let config = CONFIG.replace("\"bert\"", "\"xlm-roberta\",\"pad_token_id\":1");
    let mut all = tensors(&[]);
    let shifted = from_folder(&all, "roberta.", &config).unwrap();
    assert_eq!(shifted.max_tokens(), 62);
    let positions = all.iter_mut().find(|(name, ..)| name.contains("position")).unwrap();
    positions.2.drain(..2 * 48 * 4);
    positions.2.extend(vec![0; 2 * 48 * 4]);
    let moved = from_folder(&all, "", CONFIG).unwrap();
    let text = [vec![5, 6, 7]];
    let run = |encoder: &Encoder| bits(encoder.embed(&text, Pooling::Cls).unwrap());
    assert_eq!(run(&shifted), run(&moved));
}
