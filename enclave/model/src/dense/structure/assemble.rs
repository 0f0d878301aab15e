//! Structure and tensors become a model; every tensor is taken exactly once.

use std::collections::BTreeMap;

use super::groups::{DenseGroup, Groups, NormGroup};
use super::{Structure, StructureLayer, names};
use crate::dense::tensors::{Tensors, narrow};
use crate::dense::{Affine, Dense, DenseError, DenseModel, Kernel, Layer, MAX_LAYERS};

/// Builds the model of `structure` from the tensors of `groups`.
pub(super) fn assemble(
    tensors: &mut Tensors<'_>,
    groups: &Groups,
    structure: &Structure,
) -> Result<DenseModel, DenseError> {
    if structure.layers.len() > MAX_LAYERS {
        return Err(DenseError::TooLarge {
            what: "number of layers",
            got: structure.layers.len(),
            cap: MAX_LAYERS,
        });
    }
    let wanted =
        |want: fn(&StructureLayer) -> Option<&str>| structure.layers.iter().filter_map(want).collect();
    let dense_names: Vec<&str> = wanted(|layer| match layer {
        StructureLayer::Dense { name } => Some(name),
        _ => None,
    });
    let norm_names: Vec<&str> = wanted(|layer| match layer {
        StructureLayer::BatchNorm { name, .. } | StructureLayer::Normalization { name } => Some(name),
        _ => None,
    });
    let mut dense = resolve(&groups.dense, &dense_names)?.into_iter();
    let mut norm = resolve(&groups.norm, &norm_names)?.into_iter();
    // Width of the row at this point; known once the first tensor was seen.
    let mut width = dense.as_slice().first().map_or(0, |group| group.inputs);
    let inputs = width;
    let mut layers = Vec::with_capacity(structure.layers.len());
    for layer in &structure.layers {
        layers.push(match layer {
            StructureLayer::Dense { .. } => {
                let dense = take_dense(tensors, dense.next().ok_or(DenseError::Empty)?)?;
                width = dense.outputs;
                Layer::Dense(dense)
            }
            StructureLayer::BatchNorm { epsilon, .. } => {
                Layer::Affine(take_norm(tensors, norm.next().ok_or(DenseError::Empty)?, *epsilon)?)
            }
            StructureLayer::Normalization { .. } => {
                Layer::Affine(take_normalization(tensors, norm.next().ok_or(DenseError::Empty)?)?)
            }
            StructureLayer::Rescaling { scale, offset } => {
                Layer::Affine(Affine { scale: vec![*scale; width], shift: vec![*offset; width] })
            }
            StructureLayer::Activation { function } => Layer::Activation(*function),
        });
    }
    tensors.finish()?;
    DenseModel::new(inputs, layers)
}

/// The group of each wanted name: the same name, or the only one whose path ends in it. If none of the names occurs at
/// all (Keras weight files name layers by class, not by their own name), groups in their numbered order.
fn resolve<'g, G>(groups: &'g BTreeMap<String, G>, wanted: &[&str]) -> Result<Vec<&'g G>, DenseError> {
    let find = |name: &str| {
        let mut by_end = groups.iter().filter(|(layer, _)| names::last_part(layer) == name);
        groups.get(name).or_else(|| match (by_end.next(), by_end.next()) {
            (Some((_, group)), None) => Some(group),
            _ => None,
        })
    };
    if wanted.iter().all(|name| find(name).is_none()) && wanted.len() == groups.len() {
        let mut ordered: Vec<(&String, &G)> = groups.iter().collect();
        ordered.sort_by(|(a, _), (b, _)| names::order(a, b).unwrap_or_else(|| a.cmp(b)));
        if ordered.iter().zip(ordered.iter().skip(1)).all(|((a, _), (b, _))| names::order(a, b).is_some()) {
            return Ok(ordered.into_iter().map(|(_, group)| group).collect());
        }
    }
    let missing = |name: &str| DenseError::MissingTensor {
        name: format!("{name}.*"),
        found: format!("layers {}", groups.keys().take(16).cloned().collect::<Vec<_>>().join(", ")),
    };
    wanted.iter().map(|name| find(name).ok_or_else(|| missing(name))).collect()
}

fn take_dense(tensors: &mut Tensors<'_>, group: &DenseGroup) -> Result<Dense, DenseError> {
    let mut values = tensors.take(&group.kernel)?.values;
    if group.transposed {
        values = transpose(&values, group.inputs);
    }
    let bias = match &group.bias {
        Some(bias) => tensors.take_vector(bias)?,
        None => vec![0.0; group.outputs],
    };
    Ok(Dense { inputs: group.inputs, outputs: group.outputs, kernel: Kernel::F32(values), bias })
}

/// `[rows, columns]` to `[columns, rows]`.
pub(crate) fn transpose(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns.max(1)).copied()).collect()
}

fn take_norm(tensors: &mut Tensors<'_>, group: &NormGroup, epsilon: f64) -> Result<Affine, DenseError> {
    let mut optional = |name: &Option<String>, default: f32| match name {
        Some(name) => tensors.take_vector(name),
        None => Ok(vec![default; group.width]),
    };
    let (gamma, beta) = (optional(&group.gamma, 1.0)?, optional(&group.beta, 0.0)?);
    let (mean, variance) = (tensors.take_vector(&group.mean)?, tensors.take_vector(&group.variance)?);
    Affine::batch_norm(&gamma, &beta, &mean, &variance, epsilon)
}

/// Keras stores the statistics as `[1, width]` or `[width]`.
fn take_normalization(tensors: &mut Tensors<'_>, group: &NormGroup) -> Result<Affine, DenseError> {
    let (mean, variance) = (tensors.take(&group.mean)?.values, tensors.take(&group.variance)?.values);
    // Keras divides by max(sqrt(variance), 1e-7).
    let scale: Vec<f64> =
        variance.iter().map(|variance| 1.0 / f64::from(*variance).sqrt().max(1e-7)).collect();
    let shift = mean.iter().zip(&scale).map(|(mean, scale)| narrow(-f64::from(*mean) * scale)).collect();
    Ok(Affine { scale: scale.into_iter().map(narrow).collect(), shift })
}
