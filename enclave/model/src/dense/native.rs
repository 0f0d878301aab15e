//! Our safetensors form: tensors named by layer number, structure as JSON under one key of `__metadata__`.
//!
//! Layer `3` has `3.kernel` `[inputs, outputs]` and `3.bias`, or `3.scale` and `3.shift`. An int8 kernel adds
//! `3.kernel_scale`. A kernel with many zeros is stored as `3.kernel_mask` (one bit per weight, least significant bit
//! first) and `3.kernel` with the non-zero values in order, when that is smaller. One metadata key only, because the
//! order of several is not fixed and the same model must give the same bytes.

use std::collections::{BTreeMap, HashMap};

use safetensors::{Dtype, View};
use serde::{Deserialize, Serialize};

use super::tensors::Tensors;
use super::{
    Activation, Affine, Dense, DenseError, DenseModel, Kernel, Layer, Loss, MAX_KERNEL_ELEMENTS, MAX_LAYERS,
    Names, Preprocessing, Standardize,
};

/// The metadata key that holds [`Header`]; its presence makes a file ours.
const KEY: &str = "adyton.dense.v1";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    inputs: usize,
    layers: Vec<LayerHeader>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    features: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loss: Option<Loss>,
    #[serde(default)]
    impute: bool,
    #[serde(default)]
    standardize: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
enum LayerHeader {
    Dense { inputs: usize, outputs: usize, element: Element, sparse: bool },
    Affine,
    Activation { function: Activation },
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Element {
    F32,
    Int8,
}

pub(super) fn is_native(bytes: &[u8]) -> bool {
    Tensors::parse(bytes).is_ok_and(|tensors| tensors.metadata.contains_key(KEY))
}

pub(super) fn read(bytes: &[u8]) -> Result<DenseModel, DenseError> {
    let mut tensors = Tensors::parse(bytes)?;
    let header = tensors.metadata.get(KEY).ok_or(DenseError::UnknownFormat)?;
    let header: Header = serde_json::from_str(header)?;
    if header.layers.len() > MAX_LAYERS {
        return Err(DenseError::TooLarge {
            what: "number of layers",
            got: header.layers.len(),
            cap: MAX_LAYERS,
        });
    }
    // A sparse kernel is up to 32 times larger in memory than in the file: the sum is capped before the first is made.
    let elements = header.layers.iter().map(|layer| match layer {
        LayerHeader::Dense { inputs, outputs, .. } => inputs.saturating_mul(*outputs),
        LayerHeader::Affine | LayerHeader::Activation { .. } => 0,
    });
    let elements = elements.fold(0usize, usize::saturating_add);
    if elements > MAX_KERNEL_ELEMENTS {
        let what = "number of weights in all kernels";
        return Err(DenseError::TooLarge { what, got: elements, cap: MAX_KERNEL_ELEMENTS });
    }
    let mut layers = Vec::with_capacity(header.layers.len());
    for (index, layer) in header.layers.iter().enumerate() {
        layers.push(match layer {
            LayerHeader::Dense { inputs, outputs, element, sparse } => Layer::Dense(Dense {
                inputs: *inputs,
                outputs: *outputs,
                kernel: read_kernel(&mut tensors, index, [*inputs, *outputs], *element, *sparse)?,
                bias: tensors.take_vector(&format!("{index}.bias"))?,
            }),
            LayerHeader::Affine => Layer::Affine(Affine {
                scale: tensors.take_vector(&format!("{index}.scale"))?,
                shift: tensors.take_vector(&format!("{index}.shift"))?,
            }),
            LayerHeader::Activation { function } => Layer::Activation(*function),
        });
    }
    let impute = header.impute.then(|| tensors.take_vector("input.impute")).transpose()?;
    let standardize = if header.standardize {
        Some(Standardize {
            mean: tensors.take_vector("input.mean")?,
            scale: tensors.take_vector("input.scale")?,
        })
    } else {
        None
    };
    tensors.finish()?;
    let model = DenseModel::new(header.inputs, layers)?
        .with_names(Names { features: header.features, labels: header.labels })?
        .with_loss(header.loss);
    if impute.is_none() && standardize.is_none() {
        return Ok(model);
    }
    model.with_preprocessing(Preprocessing { impute, standardize })
}

fn read_kernel(
    tensors: &mut Tensors<'_>,
    index: usize,
    [inputs, outputs]: [usize; 2],
    element: Element,
    sparse: bool,
) -> Result<Kernel, DenseError> {
    let name = format!("{index}.kernel");
    // Within the cap on the sum of all kernels, so it cannot overflow.
    let len = inputs * outputs;
    let mask = if sparse {
        let mask = tensors.take_bytes(&format!("{index}.kernel_mask"), Dtype::U8)?;
        if mask.len() != len.div_ceil(8) {
            let (got, want) = (vec![mask.len()], vec![len.div_ceil(8)]);
            return Err(DenseError::Shape { place: format!("{name}_mask"), got, want });
        }
        Some(mask)
    } else {
        None
    };
    Ok(match element {
        Element::F32 => {
            let values = tensors.take(&name)?.values;
            Kernel::F32(expand(&name, values, mask, len)?)
        }
        Element::Int8 => {
            let bytes = tensors.take_bytes(&name, Dtype::I8)?;
            let values = bytes.iter().map(|byte| byte.cast_signed()).collect();
            let scales = tensors.take_vector(&format!("{name}_scale"))?;
            Kernel::Int8 { values: expand(&name, values, mask, len)?, scales }
        }
    })
}

/// Puts the stored values where the mask has ones; without a mask they are all there.
fn expand<T: Copy + Default>(
    name: &str,
    values: Vec<T>,
    mask: Option<&[u8]>,
    len: usize,
) -> Result<Vec<T>, DenseError> {
    let wrong =
        |want| DenseError::Shape { place: name.to_owned(), got: vec![values.len()], want: vec![want] };
    let Some(mask) = mask else {
        return if values.len() == len { Ok(values) } else { Err(wrong(len)) };
    };
    let set = |index: usize| mask.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1);
    let ones = (0..mask.len() * 8).filter(|index| set(*index)).count();
    // Bits past the end must be zero: one model, one encoding.
    if ones != values.len() || (len..mask.len() * 8).any(set) {
        return Err(wrong(ones));
    }
    let mut stored = values.into_iter();
    Ok((0..len)
        .map(|index| if set(index) { stored.next().unwrap_or_default() } else { T::default() })
        .collect())
}

/// A tensor on its way into a file.
struct Blob {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Blob {
    fn f32(values: &[f32], shape: Vec<usize>) -> Self {
        Self {
            dtype: Dtype::F32,
            shape,
            bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }

    fn vector(values: &[f32]) -> Self {
        Self::f32(values, vec![values.len()])
    }
}

impl View for &Blob {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        (&self.bytes).into()
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

pub(super) fn write(model: &DenseModel) -> Result<Vec<u8>, DenseError> {
    let mut blobs = BTreeMap::new();
    let mut layers = Vec::with_capacity(model.layers.len());
    for (index, layer) in model.layers.iter().enumerate() {
        layers.push(match layer {
            Layer::Dense(dense) => {
                blobs.insert(format!("{index}.bias"), Blob::vector(&dense.bias));
                write_kernel(&mut blobs, index, dense)
            }
            Layer::Affine(affine) => {
                blobs.insert(format!("{index}.scale"), Blob::vector(&affine.scale));
                blobs.insert(format!("{index}.shift"), Blob::vector(&affine.shift));
                LayerHeader::Affine
            }
            Layer::Activation(function) => LayerHeader::Activation { function: *function },
        });
    }
    let preprocessing = model.preprocessing.clone().unwrap_or_default();
    if let Some(impute) = &preprocessing.impute {
        blobs.insert("input.impute".to_owned(), Blob::vector(impute));
    }
    if let Some(Standardize { mean, scale }) = &preprocessing.standardize {
        blobs.insert("input.mean".to_owned(), Blob::vector(mean));
        blobs.insert("input.scale".to_owned(), Blob::vector(scale));
    }
    let header = Header {
        inputs: model.inputs,
        layers,
        features: model.names.features.clone(),
        labels: model.names.labels.clone(),
        loss: model.loss,
        impute: preprocessing.impute.is_some(),
        standardize: preprocessing.standardize.is_some(),
    };
    let metadata = HashMap::from([(KEY.to_owned(), serde_json::to_string(&header)?)]);
    Ok(safetensors::serialize(&blobs, Some(metadata))?)
}

/// Stores a kernel in its smaller form and says which one that is.
fn write_kernel(blobs: &mut BTreeMap<String, Blob>, index: usize, dense: &Dense) -> LayerHeader {
    let name = format!("{index}.kernel");
    let len = dense.kernel.len();
    let kept = len - dense.kernel.zeros();
    let element_bytes = if matches!(dense.kernel, Kernel::F32(_)) { 4 } else { 1 };
    let sparse = kept * element_bytes + len.div_ceil(8) < len * element_bytes;
    let shape = if sparse { vec![kept] } else { vec![dense.inputs, dense.outputs] };
    let mut mask = vec![0u8; len.div_ceil(8)];
    let mut keep = |index: usize, nonzero: bool| {
        if let Some(byte) = mask.get_mut(index / 8) {
            *byte |= u8::from(nonzero) << (index % 8);
        }
        nonzero || !sparse
    };
    let element = match &dense.kernel {
        Kernel::F32(values) => {
            let kept: Vec<f32> =
                values.iter().enumerate().filter(|(i, v)| keep(*i, **v != 0.0)).map(|(_, v)| *v).collect();
            blobs.insert(name.clone(), Blob::f32(&kept, shape));
            Element::F32
        }
        Kernel::Int8 { values, scales } => {
            let bytes = values
                .iter()
                .enumerate()
                .filter(|(i, v)| keep(*i, **v != 0))
                .map(|(_, v)| v.cast_unsigned())
                .collect();
            blobs.insert(name.clone(), Blob { dtype: Dtype::I8, shape, bytes });
            blobs.insert(format!("{name}_scale"), Blob::vector(scales));
            Element::Int8
        }
    };
    if sparse {
        let shape = vec![mask.len()];
        blobs.insert(format!("{name}_mask"), Blob { dtype: Dtype::U8, shape, bytes: mask });
    }
    LayerHeader::Dense { inputs: dense.inputs, outputs: dense.outputs, element, sparse }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn model(values: &[i8], int8: bool, preprocessed: bool) -> DenseModel {
        let kernel = if int8 {
            Kernel::Int8 { values: values.to_vec(), scales: vec![0.5; 3] }
        } else {
            Kernel::F32(values.iter().map(|value| f32::from(*value) / 8.0).collect())
        };
        let dense = Dense { inputs: values.len() / 3, outputs: 3, kernel, bias: vec![1.0, 2.0, -0.5] };
        let affine = Affine { scale: vec![2.0; 3], shift: vec![0.25; 3] };
        let layers = vec![
            Layer::Dense(dense),
            Layer::Affine(affine),
            Layer::Activation(Activation::LeakyRelu { slope: 0.1 }),
            Layer::Activation(Activation::Softmax),
        ];
        let inputs = values.len() / 3;
        let model = DenseModel::new(inputs, layers).unwrap().with_loss(Some(Loss::CategoricalCrossEntropy));
        let labels = ["a", "b", "c"].map(str::to_owned).to_vec();
        let model = model.with_names(Names { labels, features: Vec::new() }).unwrap();
        if !preprocessed {
            return model;
        }
        let standardize = Some(Standardize { mean: vec![1.5; inputs], scale: vec![0.1; inputs] });
        model.with_preprocessing(Preprocessing { impute: Some(vec![0.0; inputs]), standardize }).unwrap()
    }

    proptest! {
        #[test]
        fn round_trip_keeps_every_bit(
            values in (1usize..20).prop_flat_map(|inputs| prop::collection::vec(-3i8..=3, inputs * 3)),
            int8: bool,
            preprocessed: bool,
        ) {
            let model = model(&values, int8, preprocessed);
            let bytes = model.to_safetensors().unwrap();
            prop_assert_eq!(&bytes, &model.to_safetensors().unwrap());
            prop_assert_eq!(DenseModel::from_bytes(&bytes).unwrap(), model);
        }

        #[test]
        fn damaged_files_never_panic(at in 0usize..1200, value: u8, cut in 0usize..1500) {
            let mut bytes = model(&[1; 30], true, true).to_safetensors().unwrap();
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = DenseModel::from_bytes(&bytes);
            bytes.truncate(cut);
            let _ = DenseModel::from_bytes(&bytes);
        }
    }

    #[test]
    fn zeros_make_the_file_smaller() {
        let full = model(&[3; 3000], false, false).to_safetensors().unwrap().len();
        let half: Vec<i8> = (0..3000).map(|index| i8::from(index % 2 == 0)).collect();
        let pruned = model(&half, false, false).to_safetensors().unwrap().len();
        assert!(pruned < full * 55 / 100 + 400, "{pruned} of {full}");
    }

    #[test]
    fn kernels_that_only_together_are_too_large_are_refused_before_they_are_made() {
        let side = 1 << 13;
        let layer =
            format!(r#"{{"kind":"dense","inputs":{side},"outputs":{side},"element":"f32","sparse":true}}"#);
        let layers = vec![layer; 5].join(",");
        let header = format!(r#"{{"inputs":{side},"layers":[{layers}]}}"#);
        let blobs: BTreeMap<String, Blob> = BTreeMap::new();
        let bytes = safetensors::serialize(&blobs, Some(HashMap::from([(KEY.to_owned(), header)]))).unwrap();
        assert!(matches!(DenseModel::from_bytes(&bytes), Err(DenseError::TooLarge { .. })));
    }

    #[test]
    fn unknown_keys_in_the_header_are_refused() {
        let bytes = model(&[1; 3], false, false).to_safetensors().unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.contains(r#"\"impute\":false"#));
        let mut changed = bytes;
        let at = text.find(r#"\"impute\""#).unwrap();
        changed[at + 2] = b'x';
        assert!(matches!(DenseModel::from_bytes(&changed), Err(DenseError::Json(_))));
    }
}
