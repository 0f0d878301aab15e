//! How good a model is on a table.

use adyton_inference::dense::{Network, Scratch};
use adyton_model::dense::{DenseModel, Loss};

use crate::{Table, Targets, WorkshopError};

const CHUNK_ROWS: usize = 1024;

/// What a model comes to on some rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// Number of rows.
    pub rows: usize,
    /// Mean loss.
    pub loss: f64,
    /// Share of rows that are right; none for a quantity.
    pub accuracy: Option<f64>,
    /// Root of the mean squared error; for a quantity.
    pub root_mean_square_error: Option<f64>,
    /// `[true class][predicted class]` counts; empty for a quantity.
    pub confusion: Vec<Vec<usize>>,
    /// Names of the classes.
    pub labels: Vec<String>,
}

/// Runs a model, as an enclave would, over a table with labels.
///
/// # Errors
/// [`WorkshopError`]: labels or features the model does not know, or a missing value it does not fill in.
#[allow(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]
pub fn evaluate(model: &DenseModel, table: &Table) -> Result<Metrics, WorkshopError> {
    if table.features.len() != model.inputs() {
        let (got, want) = (table.features.len(), model.inputs());
        return Err(WorkshopError::Data(format!(
            "the model takes {want} features, the table has {got}; leave columns out with --ignore"
        )));
    }
    let (loss, labels, truth) = truth(model, table)?;
    let network = Network::new(model)?;
    network.verify_rows(&table.values).map_err(|error| WorkshopError::Data(error.to_string()))?;
    let mut scratch = Scratch::default();
    let mut outputs = vec![0.0; table.rows() * model.outputs()];
    let chunks = table
        .values
        .chunks(CHUNK_ROWS * model.inputs())
        .zip(outputs.chunks_mut(CHUNK_ROWS * model.outputs()));
    for (inputs, outputs) in chunks {
        let forward = network.forward(inputs, inputs.len() / model.inputs(), outputs, &mut scratch);
        forward.map_err(|error| WorkshopError::Data(error.to_string()))?;
    }
    let mut metrics = Metrics {
        rows: table.rows(),
        loss: 0.0,
        accuracy: None,
        root_mean_square_error: None,
        confusion: vec![vec![0; labels.len()]; labels.len()],
        labels,
    };
    for (row, truth) in outputs.chunks(model.outputs()).zip(&truth) {
        metrics.loss += row_loss(loss, row, *truth) / table.rows() as f64;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a class number")]
        if let Some(counts) = metrics.confusion.get_mut(*truth as usize) {
            counts[class(row)] += 1;
        }
    }
    if loss == Loss::SquaredError {
        metrics.root_mean_square_error = Some(metrics.loss.sqrt());
    } else {
        let right: usize = metrics.confusion.iter().enumerate().map(|(at, counts)| counts[at]).sum();
        metrics.accuracy = Some(right as f64 / table.rows() as f64);
    }
    Ok(metrics)
}

/// Loss, labels and the class or quantity of each row, by the model's own names where it has them.
fn truth(model: &DenseModel, table: &Table) -> Result<(Loss, Vec<String>, Vec<f32>), WorkshopError> {
    let known = &model.names().labels;
    let told = model.loss().or(match model.outputs() {
        1 => None,
        _ => Some(Loss::CategoricalCrossEntropy),
    });
    if known.is_empty() {
        let targets = Targets::of(table, told)?;
        if targets.outputs() != model.outputs() {
            return Err(WorkshopError::Data(format!(
                "the labels do not fit the model's {} outputs",
                model.outputs()
            )));
        }
        return Ok((targets.loss, targets.labels, targets.values));
    }
    #[allow(clippy::cast_precision_loss, reason = "class numbers are small")]
    let class = |label: &String| known.iter().position(|name| name == label).map(|at| at as f32);
    let values = table.labels.iter().map(|label| {
        class(label)
            .ok_or_else(|| WorkshopError::Data(format!("the model does not know the label {label:?}")))
    });
    let loss = if model.outputs() == 1 { Loss::BinaryCrossEntropy } else { Loss::CategoricalCrossEntropy };
    Ok((loss, known.clone(), values.collect::<Result<_, _>>()?))
}

fn class(row: &[f32]) -> usize {
    match row {
        [one] => usize::from(*one >= 0.5),
        many => many.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(at, _)| at),
    }
}

/// The loss of one row of outputs; probabilities are kept from 0 and 1 by 1e-7, as Keras does.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a class number")]
fn row_loss(loss: Loss, row: &[f32], truth: f32) -> f64 {
    let clip = |p: f32| f64::from(p).clamp(1e-7, 1.0 - 1e-7);
    match loss {
        Loss::SquaredError => f64::from(row[0] - truth).powi(2),
        Loss::BinaryCrossEntropy if truth >= 0.5 => -clip(row[0]).ln(),
        Loss::BinaryCrossEntropy => -(1.0 - clip(row[0])).ln(),
        Loss::CategoricalCrossEntropy => -clip(row[truth as usize]).ln(),
    }
}
