//! Reference outputs of Keras and ONNX Runtime for models in `../shared/models/mlp`, read in place.
#![allow(clippy::disallowed_methods, reason = "tests read files and the clock")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::print_stderr, reason = "tests")]

use std::path::{Path, PathBuf};

use adyton_inference::dense::{Network, Scratch};
use adyton_model::dense::{DenseModel, Format};

/// The folder of sample models, if this checkout has one beside it.
fn samples() -> Option<PathBuf> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|dir| dir.join("Cargo.lock").exists())?;
    let folder = root.join("../shared/models/mlp");
    if !folder.is_dir() {
        eprintln!("skipped: {} is missing", folder.display());
        return None;
    }
    Some(folder)
}

fn rows(golden: &serde_json::Value, key: &str) -> Vec<f32> {
    golden[key]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|x| x.as_f64().unwrap() as f32)
        .collect()
}

#[test]
fn reference_outputs_within_tolerance() {
    let Some(folder) = samples() else { return };
    for name in ["synthetic", "digits_odd_even"] {
        let golden = std::fs::read(folder.join(format!("{name}.golden.json"))).unwrap();
        let golden: serde_json::Value = serde_json::from_slice(&golden).unwrap();
        let (inputs, want) = (rows(&golden, "inputs"), rows(&golden, "outputs"));
        for format in ["onnx", "safetensors"] {
            let model =
                DenseModel::from_bytes(&std::fs::read(folder.join(format!("{name}.{format}"))).unwrap())
                    .unwrap();
            // What is served is the converted file, not the original.
            let bytes = model.to_safetensors().unwrap();
            assert_eq!(Format::detect(&bytes), Format::Native);
            let network = Network::new(&DenseModel::from_bytes(&bytes).unwrap()).unwrap();
            let mut got = vec![0.0; want.len()];
            network.forward(&inputs, want.len(), &mut got, &mut Scratch::default()).unwrap();
            let difference = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(difference < 1e-5, "{name}.{format}: {difference}");
        }
    }
}
