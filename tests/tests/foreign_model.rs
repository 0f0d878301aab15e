//! A model nobody tuned for (10 classes, three hidden layers, batch normalisation, dropout; trained and exported by
//! Keras) is converted, sealed, served, and gives the outputs its maker computed.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use adyton_tests::Site;

/// Largest difference to a reference output, absolute.
const TOLERANCE: f64 = 1e-5;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../enclave/inference/tests/fixtures")
        .join(name)
        .canonicalize()
        .unwrap()
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    let rows = value.as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
    rows.map(|value| value.as_f64().unwrap()).collect()
}

/// Converts `file`, serves it from a sealed copy, and compares with the outputs in `reference`.
fn serve(file: &str, structure: Option<&str>, reference: &str) {
    let site = Site::new("pull");
    let model = fixture(file);
    let structure = structure.map(|name| fixture(name).to_string_lossy().into_owned());
    let mut convert = vec!["model", "convert", model.to_str().unwrap(), "--out", "foreign.safetensors"];
    if let Some(path) = &structure {
        convert.extend(["--structure", path]);
    }
    site.succeed(&convert);
    site.seal("foreign.safetensors");
    let reference: serde_json::Value =
        serde_json::from_slice(&fs::read(fixture(reference)).unwrap()).unwrap();
    let rows = reference["inputs"].as_array().unwrap();
    let width = rows[0].as_array().unwrap().len();
    let mut csv = (0..width).map(|at| format!("f{at}")).collect::<Vec<_>>().join(",") + "\n";
    for row in rows {
        csv +=
            &(row.as_array().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>().join(",") + "\n");
    }
    fs::write(site.path("rows.csv"), csv).unwrap();
    let (_broker, _host) = (site.start_broker(), site.start_host());
    site.wait_until_accepted();
    let answer = site.succeed(&["predict", &site.url(), "--input", "rows.csv", "--json"]).json();
    let (got, want) = (numbers(&answer["outputs"]), numbers(&reference["outputs"]));
    assert_eq!(got.len(), want.len());
    let worst = got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(0.0, f64::max);
    assert!(worst <= TOLERANCE, "{file}: {worst}");
}

#[test]
fn onnx_with_normalisation_before_the_activation() {
    serve("before-relu.onnx", None, "before-relu.json");
}

#[test]
fn onnx_with_normalisation_after_the_activation() {
    serve("after-elu.onnx", None, "after-elu.json");
}

#[test]
fn safetensors_with_a_keras_configuration() {
    serve("before-gelu.safetensors", Some("before-gelu.config.json"), "before-gelu.json");
}

#[test]
fn safetensors_with_names_only() {
    serve("plain-relu.safetensors", None, "plain-relu.json");
}
