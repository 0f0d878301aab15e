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
use adyton_inference::encoder::{Encoder, Pooling};
use adyton_inference::lm::Options;
use adyton_inference::tokenizer::{Encode, Tokenizer};
use adyton_model::encoder::{EncoderConfig, EncoderTensors, WordPieceFile};
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
            let encoder = Encoder::load(&config, &tensors, Options { threads: 2, path }).unwrap();
            if want.is_empty() {
                want = texts
                    .iter()
                    .flat_map(|text| bits(encoder.embed(std::slice::from_ref(text), pooling).unwrap()))
                    .collect();
            }
            assert!(bits(encoder.embed(&texts, pooling).unwrap()) == want, "{path} {pooling:?}");
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
    let tokenizer =
        Tokenizer::from_word_piece(&WordPieceFile::from_json(&read("tokenizer.json")).unwrap()).unwrap();
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
