//! Predictions in the Open Inference Protocol (KServe v2): JSON tensors in, JSON tensors out.

use std::cell::RefCell;
use std::sync::Arc;

use adyton_inference::dense::Scratch;
use adyton_language::Refusal;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroize as _;

use crate::load::{Dense, Model, Served};

#[derive(Deserialize)]
struct InferRequest {
    #[serde(default)]
    id: Option<String>,
    inputs: Vec<Input>,
}

#[derive(Deserialize)]
struct Input {
    shape: Vec<usize>,
    datatype: String,
    data: Vec<Option<f32>>,
}

#[derive(Serialize)]
struct InferResponse<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    outputs: [Output<'a>; 1],
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'static str,
    shape: [usize; 2],
    datatype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Labels<'a>>,
    data: &'a [f32],
}

#[derive(Serialize)]
struct Labels<'a> {
    labels: &'a [String],
}

/// The metadata of the model, as `GET /v2/models/{name}` answers it.
pub(crate) fn metadata(served: &Served) -> serde_json::Value {
    let (platform, inputs, outputs) = match &served.model {
        Model::Dense(dense) => (
            "adyton_dense",
            json!([{"name": "features", "datatype": "FP32", "shape": [-1, dense.network.inputs()],
                    "parameters": {"names": dense.feature_names}}]),
            json!([{"name": "outputs", "datatype": "FP32", "shape": [-1, dense.network.outputs()],
                    "parameters": {"labels": dense.labels}}]),
        ),
        // Asked by /v1/completions and /v1/chat/completions, not by tensors.
        Model::Language(_) => ("adyton_language", json!([]), json!([])),
    };
    json!({
        "name": served.description.model_name,
        "versions": [served.description.version],
        "platform": platform,
        "inputs": inputs,
        "outputs": outputs,
    })
}

thread_local! {
    /// Working memory of the computing threads, wiped after each use.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Computes one request. Runs on a thread that may be busy for long.
pub(crate) fn infer(served: &Arc<Served>, body: &[u8], max_rows: usize) -> Result<Vec<u8>, Refusal> {
    let malformed =
        Refusal(400, "the request is not an inference request with one FP32 input [rows, features]");
    let Model::Dense(dense) = &served.model else {
        return Err(Refusal(404, "a language model is asked by /v1/completions or /v1/chat/completions"));
    };
    let mut request: InferRequest = serde_json::from_slice(body).map_err(|_| malformed)?;
    let [input] = request.inputs.as_mut_slice() else { return Err(malformed) };
    let [rows, features] = *input.shape.as_slice() else { return Err(malformed) };
    if input.datatype != "FP32" || rows.checked_mul(features) != Some(input.data.len()) {
        return Err(malformed);
    }
    if features != dense.network.inputs() {
        return Err(Refusal(400, "the rows do not have as many features as the model has inputs"));
    }
    if rows == 0 || rows > max_rows {
        return Err(Refusal(413, "the number of rows is not within the limits of this service"));
    }
    // `null` is a missing value: NaN, which only a model that imputes accepts.
    let mut values: Vec<f32> = input.data.iter().map(|value| value.unwrap_or(f32::NAN)).collect();
    input.data.iter_mut().for_each(|value| *value = None);
    let result = compute(served, dense, rows, &values, request.id.take());
    values.zeroize();
    result
}

fn compute(
    served: &Served,
    dense: &Dense,
    rows: usize,
    values: &[f32],
    id: Option<String>,
) -> Result<Vec<u8>, Refusal> {
    let network = &dense.network;
    network
        .verify_rows(values)
        .map_err(|_| Refusal(400, "a value is infinite, or missing where the model does not fill it in"))?;
    let mut outputs = vec![0.0; rows * network.outputs()];
    let computed = SCRATCH.with_borrow_mut(|scratch| {
        let computed = network.forward(values, rows, &mut outputs, scratch);
        scratch.wipe();
        computed
    });
    computed.map_err(|_| Refusal(500, "internal error"))?;
    let labels = (!dense.labels.is_empty()).then_some(Labels { labels: &dense.labels });
    let output = Output {
        name: "outputs",
        shape: [rows, network.outputs()],
        datatype: "FP32",
        parameters: labels,
        data: &outputs,
    };
    let response = InferResponse {
        model_name: &served.description.model_name,
        model_version: &served.description.version,
        id,
        outputs: [output],
    };
    let encoded = serde_json::to_vec(&response).map_err(|_| Refusal(500, "internal error"));
    outputs.zeroize();
    encoded
}
