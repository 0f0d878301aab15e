//! Constant tensors of an ONNX graph, and the few operators exporters leave between constants.

use super::proto::TensorProto;
use crate::dense::DenseError;
use crate::dense::tensors::{bf16_to_f32, elements, f16_to_f32};

/// A constant: f64 values (exact for every accepted element type that weights use), row-major.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Constant {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f64>,
}

impl Constant {
    pub(super) fn scalar(value: f64) -> Self {
        Self { shape: Vec::new(), values: vec![value] }
    }

    /// Reads an initialiser or the value of a `Constant` node.
    #[expect(clippy::cast_precision_loss, reason = "integers here are shapes and axes")]
    pub(super) fn read(tensor: &TensorProto) -> Result<Self, DenseError> {
        let place = || format!("ONNX tensor `{}`", tensor.name);
        let malformed =
            || DenseError::Graph(format!("tensor `{}` has dimensions that do not fit its data", tensor.name));
        if tensor.data_location != 0 {
            return Err(DenseError::Graph(format!(
                "tensor `{}` lies in another file; save the model with its weights inside (onnx.save without external data)",
                tensor.name
            )));
        }
        let shape: Option<Vec<usize>> = tensor.dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
        let shape = shape.ok_or_else(malformed)?;
        let len = elements(&shape).ok_or_else(malformed)?;
        let raw = tensor.raw_data.as_slice();
        let halves = || {
            let (pairs, _) = raw.as_chunks::<2>();
            let raw = pairs.iter().map(|pair| u16::from_le_bytes(*pair));
            // Without raw data, halves are stored one per int32.
            raw.chain(tensor.int32_data.iter().map(|bits| u16::try_from(*bits).unwrap_or(u16::MAX)))
        };
        let values: Vec<f64> = match tensor.data_type {
            1 => {
                let raw = raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
                raw.chain(tensor.float_data.iter().copied()).map(f64::from).collect()
            }
            6 | 9 if raw.is_empty() => tensor.int32_data.iter().map(|value| f64::from(*value)).collect(),
            6 => raw.as_chunks::<4>().0.iter().map(|bytes| f64::from(i32::from_le_bytes(*bytes))).collect(),
            7 => {
                let raw = raw.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes));
                raw.chain(tensor.int64_data.iter().copied()).map(|value| value as f64).collect()
            }
            9 => raw.iter().map(|byte| f64::from(*byte)).collect(),
            10 => halves().map(|bits| f64::from(f16_to_f32(bits))).collect(),
            11 => {
                let raw = raw.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
                raw.chain(tensor.double_data.iter().copied()).collect()
            }
            16 => halves().map(|bits| f64::from(bf16_to_f32(bits))).collect(),
            other => {
                return Err(DenseError::ElementType {
                    name: place(),
                    dtype: format!("number {other} of ONNX"),
                });
            }
        };
        if values.len() != len {
            return Err(DenseError::Shape { place: place(), got: vec![values.len()], want: vec![len] });
        }
        Ok(Self { shape, values })
    }

    /// The only value, whatever the rank.
    pub(super) fn as_scalar(&self) -> Option<f64> {
        match self.values.as_slice() {
            [value] => Some(*value),
            _ => None,
        }
    }

    /// A value for each unit of a row of `width`: a scalar, `[width]`, or that with leading ones.
    pub(super) fn as_row(&self, width: usize) -> Option<Vec<f64>> {
        if let Some(value) = self.as_scalar() {
            return Some(vec![value; width]);
        }
        let (last, leading) = self.shape.split_last()?;
        (*last == width && leading.iter().all(|dim| *dim == 1)).then(|| self.values.clone())
    }

    /// The matrix `[rows, columns]`.
    pub(super) fn as_matrix(&self) -> Option<[usize; 2]> {
        match self.shape.as_slice() {
            [rows, columns] => Some([*rows, *columns]),
            _ => None,
        }
    }

    pub(super) fn map(&self, function: impl Fn(f64) -> f64) -> Self {
        Self { shape: self.shape.clone(), values: self.values.iter().map(|value| function(*value)).collect() }
    }

    /// `self op other` where one is a scalar, both have one shape, or one is a row of the other.
    pub(super) fn zip(&self, other: &Self, function: impl Fn(f64, f64) -> f64) -> Option<Self> {
        if let Some(value) = other.as_scalar().filter(|_| other.shape.len() <= self.shape.len()) {
            return Some(self.map(|x| function(x, value)));
        }
        if let Some(value) = self.as_scalar().filter(|_| self.shape.len() <= other.shape.len()) {
            return Some(other.map(|x| function(value, x)));
        }
        let trimmed =
            |shape: &[usize]| shape.iter().skip_while(|dim| **dim == 1).copied().collect::<Vec<_>>();
        let (a, b) = (trimmed(&self.shape), trimmed(&other.shape));
        // The smaller one repeats along the leading dimensions of the larger one.
        let shape = if a.len() >= b.len() { &self.shape } else { &other.shape };
        if !(a.ends_with(&b) || b.ends_with(&a)) {
            return None;
        }
        let len = self.values.len().max(other.values.len());
        let values = self.values.iter().cycle().zip(other.values.iter().cycle()).take(len);
        Some(Self { shape: shape.clone(), values: values.map(|(x, y)| function(*x, *y)).collect() })
    }

    /// The transpose of a matrix; a vector stays.
    pub(super) fn transpose(&self) -> Option<Self> {
        let [rows, columns] = match self.shape.as_slice() {
            [_] => return Some(self.clone()),
            _ => self.as_matrix()?,
        };
        let values = (0..columns)
            .flat_map(|column| self.values.iter().skip(column).step_by(columns).copied())
            .collect();
        Some(Self { shape: vec![columns, rows], values })
    }

    /// The same values in another shape; `-1` and `0` as `Reshape` defines them.
    pub(super) fn reshape(&self, target: &[i64]) -> Option<Self> {
        let mut shape = Vec::with_capacity(target.len());
        for (index, dim) in target.iter().enumerate() {
            shape.push(match dim {
                0 => *self.shape.get(index)?,
                -1 => usize::MAX,
                dim => usize::try_from(*dim).ok()?,
            });
        }
        let known: Vec<usize> = shape.iter().copied().filter(|dim| *dim != usize::MAX).collect();
        let product = elements(&known)?;
        match shape.len() - known.len() {
            0 => {}
            1 => {
                let rest = self.values.len().checked_div(product)?;
                shape.iter_mut().filter(|dim| **dim == usize::MAX).for_each(|dim| *dim = rest);
            }
            _ => return None,
        }
        (elements(&shape)? == self.values.len()).then(|| Self { shape, values: self.values.clone() })
    }

    /// Values as integers: shapes and axes.
    #[expect(clippy::cast_possible_truncation, reason = "values that came from integers, small by use")]
    pub(super) fn as_ints(&self) -> Vec<i64> {
        self.values.iter().map(|value| *value as i64).collect()
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use super::*;

    fn constant(shape: &[usize], values: &[f64]) -> Constant {
        Constant { shape: shape.to_vec(), values: values.to_vec() }
    }

    #[test]
    fn raw_and_typed_data_give_the_same_values() {
        let raw = TensorProto {
            dims: vec![2],
            data_type: 1,
            raw_data: [1.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect(),
            ..TensorProto::default()
        };
        let typed = TensorProto { raw_data: Vec::new(), float_data: vec![1.5, -2.0], ..raw.clone() };
        assert_eq!(Constant::read(&raw).unwrap(), Constant::read(&typed).unwrap());
        let half = TensorProto { data_type: 10, raw_data: vec![0x00, 0x3e, 0x00, 0xc0], ..raw.clone() };
        assert_eq!(Constant::read(&half).unwrap().values, [1.5, -2.0]);
        let short = TensorProto { dims: vec![3], ..raw.clone() };
        assert!(matches!(Constant::read(&short), Err(DenseError::Shape { .. })));
        let huge = TensorProto { dims: vec![i64::MAX, 4], ..raw.clone() };
        assert!(matches!(Constant::read(&huge), Err(DenseError::Graph(_))));
        let outside = TensorProto { data_location: 1, ..raw };
        assert!(matches!(Constant::read(&outside), Err(DenseError::Graph(_))));
    }

    #[test]
    fn broadcasting_repeats_the_smaller_one() {
        let matrix = constant(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let row = constant(&[1, 3], &[10.0, 20.0, 30.0]);
        assert_eq!(matrix.zip(&row, |a, b| a + b).unwrap().values, [11.0, 22.0, 33.0, 14.0, 25.0, 36.0]);
        assert_eq!(row.zip(&matrix, |a, b| a - b).unwrap().values, [9.0, 18.0, 27.0, 6.0, 15.0, 24.0]);
        assert_eq!(matrix.zip(&constant(&[2], &[1.0, 2.0]), |a, b| a + b), None);
        assert_eq!(matrix.transpose().unwrap().values, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(matrix.reshape(&[3, -1]).unwrap().shape, [3, 2]);
        assert_eq!(matrix.reshape(&[-1, -1]), None);
        assert_eq!(matrix.reshape(&[0, 4]), None);
    }
}
