//! What is done to raw features before the first layer.

use std::fmt;

use super::DenseError;

/// Per-feature preprocessing: missing values first, then `(x - mean) / scale`. `Debug` tells which steps there are, never
/// their numbers, which come from the data of training.
#[derive(Clone, Default, PartialEq)]
pub struct Preprocessing {
    /// `[inputs]` values that replace NaN, or nothing: then NaN is refused.
    pub impute: Option<Vec<f32>>,
    /// `[inputs]` means and scales of standardisation, or nothing.
    pub standardize: Option<Standardize>,
}

/// `(x - mean) / scale` for each feature. `Debug` tells how many, never the numbers.
#[derive(Clone, PartialEq)]
pub struct Standardize {
    /// `[inputs]` in the feature's own unit.
    pub mean: Vec<f32>,
    /// `[inputs]`, above zero, in the feature's own unit.
    pub scale: Vec<f32>,
}

impl fmt::Debug for Preprocessing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let imputes = self.impute.is_some();
        write!(f, "Preprocessing(imputes: {imputes}, {:?})", self.standardize)
    }
}

impl fmt::Debug for Standardize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Standardize({} features)", self.mean.len())
    }
}

impl Preprocessing {
    /// Shapes are `[inputs]`, values finite, scales positive.
    pub(crate) fn verify(&self, inputs: usize) -> Result<(), DenseError> {
        if let Some(impute) = &self.impute {
            verify_vector("impute values", impute, inputs)?;
        }
        if let Some(Standardize { mean, scale }) = &self.standardize {
            verify_vector("means", mean, inputs)?;
            verify_vector("scales", scale, inputs)?;
            if scale.iter().any(|scale| *scale <= 0.0) {
                return Err(DenseError::NotFinite { place: "scales".to_owned() });
            }
        }
        Ok(())
    }
}

/// `values` is `[len]` and finite.
pub(crate) fn verify_vector(place: &str, values: &[f32], len: usize) -> Result<(), DenseError> {
    if values.len() != len {
        return Err(DenseError::Shape { place: place.to_owned(), got: vec![values.len()], want: vec![len] });
    }
    if values.iter().any(|value| !value.is_finite()) {
        return Err(DenseError::NotFinite { place: place.to_owned() });
    }
    Ok(())
}
