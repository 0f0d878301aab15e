//! Smaller models: int8 kernels, and kernels with most weights at zero.

use adyton_model::dense::{Dense, DenseModel, Kernel, Layer};

use crate::WorkshopError;

/// Every f32 kernel as int8 with one scale for each output; batch normalisation is folded in first.
///
/// # Errors
/// [`WorkshopError::Model`] if a folded weight leaves the range of f32.
pub fn quantize(model: &DenseModel) -> Result<DenseModel, WorkshopError> {
    let folded = model.folded()?;
    let layers = folded.layers().iter().map(|layer| match layer {
        Layer::Dense(dense) => Layer::Dense(quantize_layer(dense)),
        other => other.clone(),
    });
    Ok(folded.with_layers(layers.collect())?)
}

fn quantize_layer(dense: &Dense) -> Dense {
    let Kernel::F32(weights) = &dense.kernel else { return dense.clone() };
    let mut scales = vec![0f32; dense.outputs];
    for row in weights.chunks(dense.outputs) {
        for (scale, weight) in scales.iter_mut().zip(row) {
            *scale = scale.max(weight.abs() / 127.0);
        }
    }
    #[allow(clippy::cast_possible_truncation, reason = "rounded and within -127..=127")]
    let quantized = |weight: f32, scale: f32| {
        if scale > 0.0 { (weight / scale).round().clamp(-127.0, 127.0) as i8 } else { 0 }
    };
    let rows = weights.chunks(dense.outputs);
    let values =
        rows.flat_map(|row| row.iter().zip(&scales).map(|(weight, scale)| quantized(*weight, *scale)));
    Dense {
        kernel: Kernel::Int8 { values: values.collect(), scales: scales.clone() },
        bias: dense.bias.clone(),
        ..*dense
    }
}

/// Sets the smallest weights to zero until a share of `sparsity` is; the file format does not store zeros.
///
/// `per_layer` takes the share from each kernel, otherwise from all together. Last layers are pruned like any other.
///
/// # Errors
/// [`WorkshopError::Option`] for a share outside `0..1`, [`WorkshopError::Data`] for a model that is quantised already.
pub fn prune(model: &DenseModel, sparsity: f64, per_layer: bool) -> Result<DenseModel, WorkshopError> {
    if !(0.0..1.0).contains(&sparsity) {
        return Err(WorkshopError::Option("--sparsity must be in 0..1, such as 0.5".into()));
    }
    let folded = model.folded()?;
    let mut magnitudes = Vec::new();
    for layer in folded.layers() {
        match layer {
            Layer::Dense(Dense { kernel: Kernel::F32(weights), .. }) => {
                magnitudes.extend(weights.iter().map(|w| w.abs()));
            }
            Layer::Dense(_) => {
                return Err(WorkshopError::Data(
                    "prune before quantising: int8 kernels are not pruned".into(),
                ));
            }
            _ => {}
        }
    }
    let overall = threshold(&mut magnitudes, sparsity);
    let layers = folded.layers().iter().map(|layer| match layer {
        Layer::Dense(dense) => {
            let Kernel::F32(weights) = &dense.kernel else { return layer.clone() };
            let mut own: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
            let cut = if per_layer { threshold(&mut own, sparsity) } else { overall };
            let kept = weights.iter().map(|w| if w.abs() <= cut { 0.0 } else { *w }).collect();
            Layer::Dense(Dense { kernel: Kernel::F32(kept), bias: dense.bias.clone(), ..*dense })
        }
        other => other.clone(),
    });
    Ok(folded.with_layers(layers.collect())?)
}

/// The magnitude below or at which a share of `sparsity` lies; nothing lies below a negative one.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a count"
)]
fn threshold(magnitudes: &mut [f32], sparsity: f64) -> f32 {
    let count = (magnitudes.len() as f64 * sparsity) as usize;
    match count.checked_sub(1) {
        None => -1.0,
        Some(last) => *magnitudes.select_nth_unstable_by(last, f32::total_cmp).1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adyton_model::dense::Activation;
    use proptest::prelude::*;

    fn model(weights: Vec<f32>) -> DenseModel {
        let inputs = weights.len() / 2;
        let dense = Dense { inputs, outputs: 2, kernel: Kernel::F32(weights), bias: vec![0.5, -0.5] };
        DenseModel::new(inputs, vec![Layer::Dense(dense), Layer::Activation(Activation::Softmax)]).unwrap()
    }

    fn kernel(model: &DenseModel) -> Vec<f32> {
        let Layer::Dense(dense) = &model.layers()[0] else { panic!("a dense layer comes first") };
        dense.kernel.to_f32()
    }

    proptest! {
        #[test]
        fn a_quantised_weight_is_within_half_a_step(weights in prop::collection::vec(-3f32..3.0, 16)) {
            let before = model(weights.clone());
            let after = kernel(&quantize(&before).unwrap());
            for column in 0..2 {
                let most = weights.iter().skip(column).step_by(2).fold(0f32, |most, w| most.max(w.abs()));
                for (got, want) in after.iter().zip(&weights).skip(column).step_by(2) {
                    prop_assert!((got - want).abs() <= most / 127.0 * 0.501);
                }
            }
        }

        #[test]
        fn pruning_keeps_the_largest_and_drops_the_share(weights in prop::collection::vec(-3f32..3.0, 40)) {
            for per_layer in [false, true] {
                let after = kernel(&prune(&model(weights.clone()), 0.75, per_layer).unwrap());
                let zeros = after.iter().filter(|w| **w == 0.0).count();
                prop_assert!(zeros >= 30);
                let dropped = weights.iter().zip(&after).filter(|(_, after)| **after == 0.0);
                let most_dropped = dropped.map(|(before, _)| before.abs()).fold(0f32, f32::max);
                prop_assert!(after.iter().all(|w| *w == 0.0 || w.abs() > most_dropped));
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let model = model(vec![1.0, -2.0, 0.5, 3.0]);
        assert!(prune(&model, 1.0, false).is_err());
        assert!(prune(&quantize(&model).unwrap(), 0.5, false).is_err());
        assert_eq!(kernel(&prune(&model, 0.0, false).unwrap()), kernel(&model));
    }
}
