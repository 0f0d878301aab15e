//! Keras `config.json` (Keras 2 and 3; `Sequential`, or `Functional` if it is a chain) to a [`Structure`].

use serde_json::Value;

use super::{Structure, StructureLayer};
use crate::dense::{Activation, DenseError, MAX_LAYERS};

fn refuse(why: String) -> DenseError {
    DenseError::Structure(why)
}

/// Reads the value of a `config.json`, which has `class_name` and `config`.
///
/// # Errors
/// [`DenseError::Structure`] names the layer that is not supported, or says that the model is not a chain.
pub fn structure(value: &Value) -> Result<Structure, DenseError> {
    let class = text(value, "class_name").unwrap_or_default();
    if !matches!(class, "Sequential" | "Functional" | "Model") {
        return Err(refuse(format!(
            "Keras class `{class}` is not supported; use a Sequential or Functional model"
        )));
    }
    let config = value.get("config");
    let layers = config
        .and_then(|config| config.get("layers").or(Some(config)))
        .and_then(Value::as_array)
        .ok_or_else(|| refuse("Keras config has no list of layers".to_owned()))?;
    if layers.len() > MAX_LAYERS {
        return Err(DenseError::TooLarge { what: "number of layers", got: layers.len(), cap: MAX_LAYERS });
    }
    let mut structure = Structure { layers: Vec::new() };
    let mut previous = None;
    for layer in layers {
        let name = layer_name(layer);
        if class != "Sequential" {
            verify_chain(layer, name, previous)?;
            previous = Some(name);
        }
        read_layer(layer, name, &mut structure.layers)?;
    }
    Ok(structure)
}

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

fn layer_name(layer: &Value) -> &str {
    layer.get("config").and_then(|config| text(config, "name")).or(text(layer, "name")).unwrap_or("")
}

/// In a functional model every layer must be fed by the one listed before it.
fn verify_chain(layer: &Value, name: &str, previous: Option<&str>) -> Result<(), DenseError> {
    let mut sources = Vec::new();
    collect_sources(layer.get("inbound_nodes").unwrap_or(&Value::Null), &mut sources, 0);
    if sources.as_slice() == previous.as_slice() {
        return Ok(());
    }
    Err(refuse(format!("layer `{name}` is fed by {sources:?}; only chains of layers are supported")))
}

/// Names in `inbound_nodes`: `keras_history: [name, 0, 0]` in Keras 3, `[[name, 0, 0, {}]]` in Keras 2.
fn collect_sources<'v>(value: &'v Value, sources: &mut Vec<&'v str>, depth: usize) {
    match value {
        _ if depth > 16 => {}
        Value::Array(items) => match items.as_slice() {
            [Value::String(name), Value::Number(_), ..] => sources.push(name),
            items => items.iter().for_each(|item| collect_sources(item, sources, depth + 1)),
        },
        Value::Object(fields) => fields.values().for_each(|field| collect_sources(field, sources, depth + 1)),
        _ => {}
    }
}

fn read_layer(layer: &Value, name: &str, layers: &mut Vec<StructureLayer>) -> Result<(), DenseError> {
    let class = text(layer, "class_name").unwrap_or_default();
    let config = layer.get("config").unwrap_or(&Value::Null);
    let number = |key: &str| config.get(key).and_then(Value::as_f64);
    let parameter =
        |keys: [&str; 2], default: f64| keys.iter().find_map(|key| number(key)).unwrap_or(default);
    let name = || name.to_owned();
    match class {
        "InputLayer"
        | "Dropout"
        | "GaussianDropout"
        | "AlphaDropout"
        | "GaussianNoise"
        | "ActivityRegularization"
        | "Flatten"
        | "Identity"
        | "Reshape" => {}
        "Dense" => {
            layers.push(StructureLayer::Dense { name: name() });
            push_activation(config.get("activation"), layers)?;
        }
        "BatchNormalization" => {
            let epsilon = number("epsilon").unwrap_or(1e-3);
            layers.push(StructureLayer::BatchNorm { name: name(), epsilon });
        }
        "Normalization" if config.get("invert").and_then(Value::as_bool) != Some(true) => {
            layers.push(StructureLayer::Normalization { name: name() });
        }
        "Rescaling" => match (number("scale"), number("offset")) {
            (Some(scale), Some(offset)) => {
                layers.push(StructureLayer::Rescaling { scale: narrow(scale), offset: narrow(offset) });
            }
            _ => return Err(refuse(format!("Rescaling layer `{}` needs one scale and one offset", name()))),
        },
        "Activation" => push_activation(config.get("activation"), layers)?,
        "LeakyReLU" => {
            let slope = narrow(parameter(["negative_slope", "alpha"], 0.3));
            layers.push(StructureLayer::Activation { function: Activation::LeakyRelu { slope } });
        }
        "ELU" => {
            let alpha = narrow(parameter(["alpha", "alpha"], 1.0));
            layers.push(StructureLayer::Activation { function: Activation::Elu { alpha } });
        }
        "ReLU" => layers.push(StructureLayer::Activation { function: relu(config)? }),
        "Softmax" => layers.push(StructureLayer::Activation { function: Activation::Softmax }),
        _ => {
            return Err(refuse(format!(
                "Keras layer `{}` of class {class} is not supported; dense, batch normalisation, dropout, activations, \
                 flatten, normalization and rescaling are",
                name()
            )));
        }
    }
    Ok(())
}

fn push_activation(value: Option<&Value>, layers: &mut Vec<StructureLayer>) -> Result<(), DenseError> {
    match value {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(name)) => push_named(name, layers),
        // {"class_name": "function", "config": "relu"} or a layer such as LeakyReLU used as activation.
        Some(value) => match (value.get("config"), text(value, "class_name")) {
            (Some(Value::String(name)), _) => push_named(name, layers),
            (Some(_), Some(_)) => read_layer(value, "activation", layers),
            _ => Err(refuse("an activation is neither a name nor a layer".to_owned())),
        },
    }
}

fn push_named(name: &str, layers: &mut Vec<StructureLayer>) -> Result<(), DenseError> {
    match Activation::from_name(name) {
        Some(Activation::Linear) => Ok(()),
        Some(function) => {
            layers.push(StructureLayer::Activation { function });
            Ok(())
        }
        None => Err(refuse(format!(
            "activation `{name}` is not supported; known are {}",
            Activation::NAMES.join(", ")
        ))),
    }
}

fn relu(config: &Value) -> Result<Activation, DenseError> {
    let number = |key: &str| config.get(key).and_then(Value::as_f64);
    match (number("max_value"), number("negative_slope").unwrap_or(0.0), number("threshold").unwrap_or(0.0)) {
        (None, 0.0, 0.0) => Ok(Activation::Relu),
        (Some(6.0), 0.0, 0.0) => Ok(Activation::Relu6),
        (None, slope, 0.0) => Ok(Activation::LeakyRelu { slope: narrow(slope) }),
        _ => Err(refuse("ReLU with this max_value or threshold is not supported".to_owned())),
    }
}

fn narrow(value: f64) -> f32 {
    crate::dense::tensors::narrow(value)
}
