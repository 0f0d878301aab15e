//! Numbers out of a safetensors file: element types, shapes, and nothing left over.

use std::collections::{BTreeMap, BTreeSet};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::{DenseError, MAX_KERNEL_ELEMENTS};

/// Most tensors in a file; a dense layer has two to five.
const MAX_TENSORS: usize = 4096;

/// The tensors of a file by name, remembering which were taken.
pub(crate) struct Tensors<'data> {
    views: BTreeMap<String, TensorView<'data>>,
    taken: BTreeSet<String>,
    /// `__metadata__`, empty when absent.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// f32 values with their shape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl<'data> Tensors<'data> {
    pub(crate) fn parse(bytes: &'data [u8]) -> Result<Self, DenseError> {
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let file = SafeTensors::deserialize(bytes)?;
        if file.len() > MAX_TENSORS {
            return Err(DenseError::TooLarge {
                what: "number of tensors",
                got: file.len(),
                cap: MAX_TENSORS,
            });
        }
        let views = file.tensors().into_iter().collect();
        Ok(Self { views, taken: BTreeSet::new(), metadata })
    }

    /// Every name with its shape.
    pub(crate) fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.views.iter().map(|(name, view)| (name.as_str(), view.shape()))
    }

    /// Marks a tensor as known without reading it (counters, random seeds).
    pub(crate) fn ignore(&mut self, name: &str) {
        self.taken.insert(name.to_owned());
    }

    fn view(&mut self, name: &str) -> Result<&TensorView<'data>, DenseError> {
        if !self.views.contains_key(name) {
            return Err(DenseError::MissingTensor {
                name: name.to_owned(),
                found: shorten(self.views.keys()),
            });
        }
        self.taken.insert(name.to_owned());
        self.views.get(name).ok_or(DenseError::Empty)
    }

    /// Reads a float tensor of any accepted type as f32.
    pub(crate) fn take(&mut self, name: &str) -> Result<Tensor, DenseError> {
        let view = self.view(name)?;
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Dtype::F64 => {
                data.as_chunks::<8>().0.iter().map(|bytes| narrow(f64::from_le_bytes(*bytes))).collect()
            }
            Dtype::F16 => {
                data.as_chunks::<2>().0.iter().map(|bytes| f16_to_f32(u16::from_le_bytes(*bytes))).collect()
            }
            Dtype::BF16 => {
                data.as_chunks::<2>().0.iter().map(|bytes| bf16_to_f32(u16::from_le_bytes(*bytes))).collect()
            }
            other => {
                return Err(DenseError::ElementType { name: name.to_owned(), dtype: format!("{other:?}") });
            }
        };
        Ok(Tensor { shape: view.shape().to_vec(), values })
    }

    /// Reads a float vector.
    pub(crate) fn take_vector(&mut self, name: &str) -> Result<Vec<f32>, DenseError> {
        let tensor = self.take(name)?;
        match tensor.shape.as_slice() {
            [_] => Ok(tensor.values),
            shape => Err(DenseError::Shape {
                place: name.to_owned(),
                got: shape.to_vec(),
                want: vec![tensor.values.len()],
            }),
        }
    }

    /// Reads a tensor of bytes (`U8` or `I8`, as `dtype` says).
    pub(crate) fn take_bytes(&mut self, name: &str, dtype: Dtype) -> Result<&'data [u8], DenseError> {
        let view = self.view(name)?;
        if view.dtype() != dtype {
            return Err(DenseError::ElementType {
                name: name.to_owned(),
                dtype: format!("{:?}", view.dtype()),
            });
        }
        Ok(view.data())
    }

    /// Refuses a file with a tensor nobody took: serving without it would compute something else.
    pub(crate) fn finish(&self) -> Result<(), DenseError> {
        match self.views.keys().find(|name| !self.taken.contains(*name)) {
            None => Ok(()),
            Some(name) => Err(DenseError::UnusedTensor { name: name.clone(), hint: "left over" }),
        }
    }
}

/// A few names for a message.
fn shorten<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).take(9).collect();
    match names.len() {
        0 => "no tensor".to_owned(),
        9 => format!("{}, …", names.get(..8).unwrap_or_default().join(", ")),
        _ => names.join(", "),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounding f64 to f32 is the purpose")]
pub(crate) fn narrow(value: f64) -> f32 {
    value as f32
}

/// The upper half of an f32.
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// IEEE 754 binary16 to binary32, exact.
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10 & 0x1f);
    let fraction = u32::from(bits & 0x3ff);
    let magnitude = match exponent {
        // Subnormal: fraction * 2^-24, exact in f32.
        0 => return f32::from_bits(sign | (f32::from(bits & 0x3ff) * 2f32.powi(-24)).to_bits()),
        0x1f => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

/// The most elements a shape may have here; `None` past the cap.
pub(crate) fn elements(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1usize, |product, dim| product.checked_mul(*dim))
        .filter(|elements| *elements <= MAX_KERNEL_ELEMENTS)
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn half_precision_values() {
        for (bits, value) in [(0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65504.0), (0x0400, 6.103_515_6e-5)] {
            assert_eq!(f16_to_f32(bits), value);
        }
        assert_eq!(f16_to_f32(0x0001), 2f32.powi(-24));
        assert_eq!(f16_to_f32(0x8001), -(2f32.powi(-24)));
        assert_eq!(f16_to_f32(0x8000).to_bits(), (-0f32).to_bits());
        assert!(f16_to_f32(0x7c00).is_infinite() && f16_to_f32(0x7e01).is_nan());
        assert_eq!(bf16_to_f32(0x3f80), 1.0);
    }

    #[test]
    fn shape_products_are_capped() {
        assert_eq!(elements(&[3, 4]), Some(12));
        assert_eq!(elements(&[usize::MAX, 2]), None);
        assert_eq!(elements(&[MAX_KERNEL_ELEMENTS, 2]), None);
    }
}
