//! Language models in fewer bits: small files made here, and those in `../shared/models`, read in place.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "tests"
)]

use std::path::{Path, PathBuf};

use adyton_model::gguf::{Gguf, Value, Writer, write};
use adyton_model::quant::{TensorType, dequantize};
use adyton_workshop::cli::{ModelCommand, Report, Ui, run};
use adyton_workshop::{Precision, WorkshopError, contents, requantize};
use clap::Parser;

#[derive(Parser)]
struct Program {
    #[command(subcommand)]
    command: ModelCommand,
}

fn adyton(arguments: &[&str]) -> Result<Report, WorkshopError> {
    run(Program::parse_from([&["model"], arguments].concat()).command, &Ui::default())
}

/// A file with a matrix of each kind there is a rule for; rows of `ffn_gate` are no whole blocks of 256.
fn model(first: f32) -> Vec<u8> {
    let tensors: [(&str, &[u64]); 8] = [
        ("token_embd.weight", &[512, 40]),
        ("blk.0.attn_norm.weight", &[512]),
        ("blk.0.attn_v.weight", &[512, 24]),
        ("blk.0.attn_v.bias", &[24]),
        ("blk.0.ffn_gate_inp.weight", &[512, 4]),
        ("blk.0.ffn_gate.weight", &[96, 24]),
        ("blk.0.ffn_up_exps.weight", &[512, 24, 4]),
        ("output.weight", &[512, 40]),
    ];
    let mut writer = Writer::default();
    writer.text("general.architecture", "llama");
    writer.u32("general.alignment", 32);
    writer.u32("general.file_type", 0);
    writer.u32("llama.block_count", 1);
    writer.bool("tokenizer.ggml.add_bos_token", true);
    writer.texts("tokenizer.ggml.tokens", &["a", "\u{2581}b"]);
    writer.f32s("tokenizer.ggml.scores", &[0.5, -1.0]);
    let mut state = 3u64;
    let mut data: Vec<Vec<u8>> = Vec::new();
    for (name, dims) in tensors {
        writer.tensor(name, TensorType::F32, dims);
        let value = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / 2f32.powi(24) - 0.5).to_le_bytes()
        };
        data.push(
            std::iter::repeat_with(value).take(dims.iter().product::<u64>() as usize).flatten().collect(),
        );
    }
    data[0][..4].copy_from_slice(&first.to_le_bytes());
    let mut file = Vec::new();
    write(&mut file, &writer, data.iter().map(Vec::as_slice)).unwrap();
    file
}

fn values(file: &[u8], name: &str) -> (TensorType, Vec<f32>) {
    let gguf = Gguf::parse(file, file.len() as u64).unwrap();
    let tensor = gguf.tensor(name).unwrap();
    let mut values = vec![0.0; (tensor.columns() * tensor.rows()) as usize];
    dequantize(tensor.kind, &file[tensor.start as usize..][..tensor.len_bytes as usize], &mut values);
    (tensor.kind, values)
}

#[test]
fn matrices_change_and_everything_else_stays() {
    use TensorType::{BF16, F16, F32, Q4_0, Q4_K, Q6_K, Q8_0};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let before = model(0.25);
    std::fs::write(&path, &before).unwrap();
    // Embedding, values, gate and output.
    for (precision, kinds, error) in [
        (Precision::F16, [F16, F16, F16, F16], 0.001),
        (Precision::Bf16, [BF16, BF16, BF16, BF16], 0.004),
        (Precision::Q8_0, [Q8_0, Q8_0, Q8_0, Q8_0], 0.004),
        (Precision::Q6K, [Q6_K, Q6_K, Q8_0, Q6_K], 0.02),
        (Precision::Q4_0, [Q4_0, Q4_0, Q4_0, Q6_K], 0.08),
        (Precision::Q4KM, [Q4_K, Q6_K, Q8_0, Q6_K], 0.08),
    ] {
        let (mut after, mut heard) = (Vec::new(), Vec::new());
        requantize(&path, precision, &mut after, &mut |done, total| heard.push((done, total))).unwrap();
        assert!(heard.is_sorted() && heard.last().unwrap().0 == heard[0].1);
        let names = ["token_embd.weight", "blk.0.attn_v.weight", "blk.0.ffn_gate.weight", "output.weight"];
        assert_eq!(names.map(|name| values(&after, name).0), kinds, "{precision:?}");
        let gguf = Gguf::parse(&after, after.len() as u64).unwrap();
        for tensor in gguf.tensors() {
            let (kind, got) = values(&after, tensor.name);
            let (_, want) = values(&before, tensor.name);
            let kept = ["norm", "bias", "inp"].iter().any(|part| tensor.name.contains(part));
            assert!(if kept { kind == F32 && got == want } else { kind != F32 }, "{}", tensor.name);
            assert!(
                got.iter().zip(&want).all(|(a, b)| (a - b).abs() < error),
                "{precision:?} {}",
                tensor.name
            );
        }
        let old = Gguf::parse(&before, before.len() as u64).unwrap();
        let own = |key: &str| {
            matches!(key, "general.file_type" | "general.quantization_version" | "general.alignment")
        };
        let copied = |gguf: &Gguf<'_>| -> Vec<(String, Vec<u8>)> {
            let all = gguf.encoded().filter(|(key, _)| !own(key));
            all.map(|(key, value)| (key.to_owned(), value.to_vec())).collect()
        };
        assert_eq!(copied(&gguf), copied(&old));
        assert!(matches!(gguf.value("general.file_type"), Some(Value::Unsigned(1..))));
    }
}

#[test]
fn what_cannot_be_stored_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("model.gguf"), model(0.5)).unwrap();
    std::fs::write(at("broken.gguf"), model(f32::NAN)).unwrap();
    std::fs::write(at("short.gguf"), &model(0.5)[..3000]).unwrap();
    let to = |from: &str, rest: &[&str]| {
        let out = at("out.gguf");
        let result = adyton(&[&["quantize", &at(from), "--out", &out], rest].concat());
        let written = Path::new(&out).exists();
        if written {
            std::fs::remove_file(out).unwrap();
        }
        (result, written)
    };
    assert!(matches!(to("broken.gguf", &[]), (Err(WorkshopError::Quantize { .. }), false)));
    assert!(matches!(to("short.gguf", &[]), (Err(WorkshopError::Gguf(_)), false)));
    assert!(matches!(to("none.gguf", &[]), (Err(WorkshopError::Read { .. }), false)));
    assert!(matches!(to("model.gguf", &["--data", "x.csv"]), (Err(WorkshopError::Option(_)), false)));
    let (report, written) = to("model.gguf", &["--to", "q8_0"]);
    assert!(written && report.unwrap().json["model"]["types"]["Q8_0"]["tensors"] == 5);
    // What was rounded once is not rounded again.
    adyton(&["quantize", &at("model.gguf"), "--out", &at("q8.gguf"), "--to", "q8_0"]).unwrap();
    assert!(matches!(to("q8.gguf", &["--to", "q4_0"]), (Err(WorkshopError::Quantized { .. }), false)));
    std::fs::write(at("dense.csv"), "label,a\n1,2\n").unwrap();
    assert!(matches!(to("dense.csv", &["--to", "q4_0"]), (Err(WorkshopError::Option(_)), false)));
}

/// The same types for the same tensors as the files people have, and a model that the engine takes.
#[test]
fn mixes_are_those_of_files_as_people_have_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = root.ancestors().find(|dir| dir.join("Cargo.lock").exists()).unwrap();
    let shared = |name: &str| -> PathBuf { root.join(format!("../shared/models/llama-k256-{name}.gguf")) };
    if !shared("f16").exists() {
        eprintln!("skipped: {} is missing", shared("f16").display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["q4_0", "q4_k_m", "q6_k", "q8_0"] {
        let out = folder.path().join(name);
        let from = shared("f16").display().to_string();
        adyton(&["quantize", &from, "--to", name, "--out", &out.display().to_string()]).unwrap();
        let (got, want) = (contents(&out).unwrap(), contents(&shared(name)).unwrap());
        assert_eq!(got.types, want.types, "{name}");
        assert!(got.refused.is_none());
    }
}
