//! ONNX graphs that are feed-forward networks (as Keras, PyTorch and scikit-learn export them).
//!
//! Flow: bytes are counted, then decoded (`proto`); nodes the output needs are evaluated in file order. Values are
//! constants (`constant`) or expressions of the row that flows through the network (`expression`); a matrix product
//! turns what is known so far into layers (`builder`). One input, one float output; anything that is not a chain of
//! layers, and any unknown operator, is a typed error that names the node.
//!
//! Label outputs of classifiers are left aside; a `ZipMap` is looked through for its probabilities and class names.

mod builder;
mod constant;
mod expression;
mod operators;
mod proto;

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use super::{DenseError, DenseModel, Names};
use constant::Constant;
use operators::{Evaluator, Value};

/// Most nodes of a graph; each layer needs two to ten.
const MAX_NODES: usize = 8192;
/// `TensorProto.DataType` of float tensors an output may have: float, float16, double, bfloat16.
const FLOAT_TYPES: [i32; 4] = [1, 10, 11, 16];

/// Reads a `ModelProto`.
///
/// # Errors
/// [`DenseError::Protobuf`] for damaged bytes, [`DenseError::Node`] for an operator or use of it that is not supported,
/// [`DenseError::Graph`] for a graph that is not a chain, and the errors of [`DenseModel::new`].
pub fn read(bytes: &[u8]) -> Result<DenseModel, DenseError> {
    if !proto::verify_budget(bytes) {
        return Err(DenseError::Graph("too many fields for a feed-forward network".to_owned()));
    }
    let model = proto::Model::decode(bytes)?;
    let graph = model.graph.ok_or_else(|| DenseError::Graph("the file holds no graph".to_owned()))?;
    if graph.node.len() > MAX_NODES {
        return Err(DenseError::TooLarge { what: "number of nodes", got: graph.node.len(), cap: MAX_NODES });
    }
    let opset = model.opset_import.iter().find(|set| matches!(set.domain.as_str(), "" | "ai.onnx"));
    let (output, labels) = output(&graph)?;
    let needed = needed(&graph, &output);
    let mut evaluator = evaluator(&graph, opset.map_or(1, |set| set.version), &needed)?;
    for node in graph.node.iter().filter(|node| node.output.iter().any(|name| needed.contains(name.as_str())))
    {
        evaluator.run(node)?;
    }
    let labels = labels.or(evaluator.labels.take()).unwrap_or_default();
    let model = evaluator.finish(&output)?;
    let wanted = if model.outputs() == 1 { 2 } else { model.outputs() };
    let labels = if labels.len() == wanted { labels } else { Vec::new() };
    model.with_names(Names { features: Vec::new(), labels })
}

/// Constants and the one input, before any node ran.
fn evaluator(graph: &proto::Graph, opset: i64, needed: &BTreeSet<&str>) -> Result<Evaluator, DenseError> {
    let mut values = BTreeMap::new();
    for tensor in graph.initializer.iter().filter(|tensor| needed.contains(tensor.name.as_str())) {
        values.insert(tensor.name.clone(), Value::Constant(Constant::read(tensor)?.into()));
    }
    // Old files list initialisers among the inputs.
    let named: BTreeSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let inputs: Vec<&proto::ValueInfo> =
        graph.input.iter().filter(|input| !named.contains(input.name.as_str())).collect();
    let [input] = inputs.as_slice() else {
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).take(8).collect();
        return Err(DenseError::Graph(format!(
            "{} inputs ({}); exactly one is supported",
            inputs.len(),
            names.join(", ")
        )));
    };
    let tensor = input.r#type.as_ref().and_then(|r#type| r#type.tensor_type.as_ref());
    let shape: Option<Vec<i64>> = tensor
        .and_then(|tensor| tensor.shape.as_ref())
        .map(|shape| shape.dim.iter().map(|dim| dim.dim_value).collect());
    Ok(Evaluator::new(values, opset, &input.name, shape.as_deref()))
}

/// The tensor to serve, and class names where a `ZipMap` carries them.
fn output(graph: &proto::Graph) -> Result<(String, Option<Vec<String>>), DenseError> {
    let mut found = Vec::new();
    for output in &graph.output {
        let producer = graph.node.iter().find(|node| node.output.contains(&output.name));
        if let Some(zip) = producer.filter(|node| node.op_type == "ZipMap") {
            let input = zip.input.first().cloned().unwrap_or_default();
            found.push((input, operators::class_labels(zip)));
            continue;
        }
        let tensor = output.r#type.as_ref().and_then(|r#type| r#type.tensor_type.as_ref());
        // Labels of a classifier are int64 or strings; probabilities say the same and more.
        if tensor.is_none_or(|tensor| tensor.elem_type == 0 || FLOAT_TYPES.contains(&tensor.elem_type)) {
            found.push((output.name.clone(), None));
        }
    }
    match (found.len(), found.pop()) {
        (1, Some(only)) => Ok(only),
        (count, _) => {
            let names: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).take(8).collect();
            Err(DenseError::Graph(format!(
                "{count} float outputs among ({}); exactly one is supported (a label output beside it is left aside)",
                names.join(", ")
            )))
        }
    }
}

/// Names of all tensors `output` depends on, found backwards through the nodes.
fn needed<'g>(graph: &'g proto::Graph, output: &'g str) -> BTreeSet<&'g str> {
    let mut needed = BTreeSet::from([output]);
    for node in graph.node.iter().rev() {
        if node.output.iter().any(|name| needed.contains(name.as_str())) {
            needed.extend(node.input.iter().map(String::as_str).filter(|name| !name.is_empty()));
        }
    }
    needed
}
