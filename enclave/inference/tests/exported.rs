//! Models trained in Keras, PyTorch and scikit-learn and exported by their own tools (`fixtures/make_keras.py`, `make_others.py`), with the
//! outputs their makers computed.
#![allow(clippy::disallowed_methods, reason = "tests read files and the clock")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::print_stderr, reason = "tests")]

use std::path::Path;

use adyton_inference::dense::{Network, Scratch};
use adyton_model::dense::{Activation, BatchNormPlacement, DenseError, DenseModel, Overrides, Structure};

/// Largest difference to a reference output, absolute.
const TOLERANCE: f32 = 1e-5;

fn rows(reference: &serde_json::Value, key: &str) -> Vec<f32> {
    let rows = reference[key].as_array().unwrap();
    rows.iter().flat_map(|row| row.as_array().unwrap()).map(|x| x.as_f64().unwrap() as f32).collect()
}

fn difference(model: &DenseModel, reference: &serde_json::Value) -> f32 {
    let (inputs, want) = (rows(reference, "inputs"), rows(reference, "outputs"));
    let network = Network::new(model).unwrap();
    let batch = inputs.len() / network.inputs();
    assert_eq!(want.len(), batch * network.outputs());
    let mut got = vec![0.0; want.len()];
    network.forward(&inputs, batch, &mut got, &mut Scratch::default()).unwrap();
    got.iter()
        .zip(&want)
        .map(|(a, b)| if a.is_nan() { f32::INFINITY } else { (a - b).abs() })
        .fold(0.0, f32::max)
}

/// Reads one file in every way it can be read without help that its name does not give.
fn read(folder: &Path, file: &str) -> Result<DenseModel, String> {
    let stem = file.rsplit_once('.').unwrap().0;
    let bytes = std::fs::read(folder.join(file)).unwrap();
    let config = folder.join(format!("{stem}.config.json"));
    let structure = std::fs::read_to_string(config).ok().filter(|_| file.ends_with(".safetensors"));
    let structure =
        structure.map(|text| Structure::from_json(&text).map_err(|error| error.to_string())).transpose()?;
    DenseModel::from_bytes_with(&bytes, structure.as_ref(), &Overrides::default())
        .map_err(|error| error.to_string())
}

#[test]
fn exported_models_give_their_reference_outputs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut files: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".onnx") || name.ends_with(".safetensors"))
        .collect();
    files.sort();
    assert!(files.len() >= 8, "fixtures are missing");
    let mut failures = Vec::new();
    for file in &files {
        let reference =
            std::fs::read(folder.join(format!("{}.json", file.rsplit_once('.').unwrap().0))).unwrap();
        let reference: serde_json::Value = serde_json::from_slice(&reference).unwrap();
        match read(&folder, file) {
            Err(error) => failures.push(format!("{file}: {error}")),
            Ok(model) => {
                let served = DenseModel::from_bytes(&model.to_safetensors().unwrap()).unwrap();
                let difference = difference(&served, &reference);
                if difference > TOLERANCE {
                    failures.push(format!("{file}: differs by {difference}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

#[test]
fn safetensors_without_structure_are_told_by_their_numbers() {
    for name in ["before-relu", "after-relu"] {
        let reference = serde_json::from_slice(&fixture(&format!("{name}.json"))).unwrap();
        let bytes = fixture(&format!("{name}.safetensors"));
        let model = DenseModel::from_bytes(&bytes).unwrap();
        assert!(difference(&model, &reference) < TOLERANCE, "{name}");
    }
    // The wrong side gives other numbers: the reference can tell.
    let reference = serde_json::from_slice(&fixture("after-relu.json")).unwrap();
    let overrides = Overrides { batch_norm: Some(BatchNormPlacement::Before), ..Overrides::default() };
    let model = DenseModel::from_bytes_with(&fixture("after-relu.safetensors"), None, &overrides).unwrap();
    assert!(difference(&model, &reference) > TOLERANCE);
}

#[test]
fn placement_that_nothing_proves_is_an_error() {
    let overrides = Overrides { activation: Some(Activation::Elu { alpha: 1.0 }), ..Overrides::default() };
    let result = DenseModel::from_bytes_with(&fixture("after-elu.safetensors"), None, &overrides);
    assert!(matches!(result, Err(DenseError::Ambiguous { .. })), "{:?}", result.err());
    let overrides =
        Overrides { batch_norm: Some(BatchNormPlacement::After), epsilon: Some(2e-3), ..overrides };
    let model = DenseModel::from_bytes_with(&fixture("after-elu.safetensors"), None, &overrides).unwrap();
    let reference = serde_json::from_slice(&fixture("after-elu.json")).unwrap();
    assert!(difference(&model, &reference) < TOLERANCE);
}

#[test]
fn class_names_come_from_the_graph() {
    let model = DenseModel::from_bytes(&fixture("sklearn-strings.onnx")).unwrap();
    assert_eq!(model.names().labels, ["blue", "green", "grey", "red"]);
}

#[test]
fn damaged_graphs_never_panic() {
    let bytes = fixture("torch-bn-gelu.onnx");
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        let _ = DenseModel::from_bytes(&changed);
        let _ = DenseModel::from_bytes(&bytes[..at]);
    }
}
