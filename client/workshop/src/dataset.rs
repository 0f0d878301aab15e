//! From a table to numbers a network learns from: labels, split, missing values, standardisation.
//!
//! Everything that is learned from data (means, medians, deviations) is learned from the training rows only, and is
//! stored with the model: whoever serves it prepares rows in the same way.

use adyton_model::dense::{Loss, Preprocessing, Standardize};
use ndarray::Array2;

use crate::random::Random;
use crate::{Table, WorkshopError};

/// More classes than this in numbers are taken for a quantity, not for names.
const MAX_NUMERIC_CLASSES: usize = 50;

/// What replaces a missing value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Impute {
    /// The feature's mean.
    Mean,
    /// The feature's median.
    Median,
}

/// How rows become training, validation and test rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Split {
    /// Shares of training, validation and test rows; they add up to 1. Not used where the table says it itself.
    pub shares: [f64; 3],
    /// Seed of the shuffle.
    pub seed: u64,
}

/// What is done to features before the first layer.
#[derive(Debug, Clone, Copy)]
pub struct Preparation {
    /// What replaces a missing value.
    pub impute: Impute,
    /// Whether features are brought to mean 0 and deviation 1.
    pub standardize: bool,
}

/// What a network is to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Targets {
    /// The loss that fits.
    pub loss: Loss,
    /// Names of the classes, in the order of the outputs; empty for a quantity.
    pub labels: Vec<String>,
    /// For each row: the class, or the quantity.
    pub values: Vec<f32>,
}

/// Prepared rows to learn from, and the rows that are held out.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Training rows `[rows, features]`, prepared.
    pub train: Part,
    /// Validation rows; there may be none.
    pub validation: Part,
    /// Which rows of the table are held out; there may be none. They are judged as they are, by the finished model.
    pub test_rows: Vec<usize>,
    /// What was done to the features.
    pub preprocessing: Preprocessing,
    /// What was done to the targets: `(target - mean) / scale`. Classes are left as they are (0 and 1).
    pub target_scaling: Standardize,
}

/// Some of the rows.
#[derive(Debug, Clone)]
pub struct Part {
    /// `[rows, features]`.
    pub inputs: Array2<f32>,
    /// Class or quantity of each row.
    pub targets: Vec<f32>,
}

impl Targets {
    /// Reads the labels of a table; `loss` overrules what they look like.
    ///
    /// # Errors
    /// [`WorkshopError::Data`]: a missing label, one class only, or a loss that does not fit.
    pub fn of(table: &Table, loss: Option<Loss>) -> Result<Self, WorkshopError> {
        let data = |message: String| WorkshopError::Data(message);
        if let Some(row) = table.labels.iter().position(String::is_empty) {
            return Err(data(format!("row {} has no label; remove the row or fill it in", row + 1)));
        }
        let numbers: Option<Vec<f32>> = table.labels.iter().map(|label| label.parse().ok()).collect();
        let mut classes = table.labels.clone();
        classes.sort_by(|a, b| match (a.parse::<f64>(), b.parse::<f64>()) {
            (Ok(a), Ok(b)) => a.total_cmp(&b),
            _ => a.cmp(b),
        });
        classes.dedup();
        let names = numbers.is_none()
            || (classes.len() <= MAX_NUMERIC_CLASSES
                && numbers.iter().flatten().all(|number| number.fract() == 0.0));
        let loss = loss.unwrap_or(match (names, classes.len()) {
            (true, 0..=2) => Loss::BinaryCrossEntropy,
            (true, _) => Loss::CategoricalCrossEntropy,
            (false, _) => Loss::SquaredError,
        });
        if loss == Loss::SquaredError {
            let values = numbers.ok_or_else(|| data("squared error needs numbers as labels".into()))?;
            return Ok(Self { loss, labels: Vec::new(), values });
        }
        if classes.len() < 2 || (loss == Loss::BinaryCrossEntropy && classes.len() > 2) {
            return Err(data(format!("{loss:?} does not fit {} classes", classes.len())));
        }
        #[allow(clippy::cast_precision_loss, reason = "class numbers are small")]
        let class = |label: &String| classes.iter().position(|class| class == label).unwrap_or(0) as f32;
        Ok(Self { loss, values: table.labels.iter().map(class).collect(), labels: classes.clone() })
    }

    /// Number of outputs of the network.
    #[must_use]
    pub fn outputs(&self) -> usize {
        if self.loss == Loss::CategoricalCrossEntropy { self.labels.len() } else { 1 }
    }
}

impl Dataset {
    /// Splits and prepares a table.
    ///
    /// # Errors
    /// [`WorkshopError`]: shares that make no sense, an unknown split name, or no training rows.
    pub fn new(
        table: &Table,
        targets: &Targets,
        split: &Split,
        preparation: &Preparation,
    ) -> Result<Self, WorkshopError> {
        let [train, validation, test_rows] = split_rows(table, targets, split)?;
        if train.is_empty() {
            return Err(WorkshopError::Data("there are no training rows".into()));
        }
        let preprocessing = learn(table, &train, preparation);
        let target_scaling = learn_targets(targets, &train);
        let (mean, scale) = (target_scaling.mean[0], target_scaling.scale[0]);
        let part = |rows: &[usize]| Part {
            inputs: prepare(table, rows, &preprocessing),
            targets: rows.iter().map(|row| (targets.values[*row] - mean) / scale).collect(),
        };
        Ok(Self {
            train: part(&train),
            validation: part(&validation),
            test_rows,
            preprocessing,
            target_scaling,
        })
    }
}

/// Mean and deviation of a quantity over the training rows: a network starts near zero and moves in steps near one, and
/// would never arrive at a price. The last layer takes it back to the quantity's own unit.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "stored as f32, counted in f64"
)]
fn learn_targets(targets: &Targets, train: &[usize]) -> Standardize {
    if targets.loss != Loss::SquaredError {
        return Standardize { mean: vec![0.0], scale: vec![1.0] };
    }
    let count = train.len() as f64;
    let mean = train.iter().map(|row| f64::from(targets.values[*row])).sum::<f64>() / count;
    let spread = |row: &usize| (f64::from(targets.values[*row]) - mean).powi(2);
    let scale = (train.iter().map(spread).sum::<f64>() / count).sqrt();
    Standardize { mean: vec![mean as f32], scale: vec![if scale > 1e-12 { scale as f32 } else { 1.0 }] }
}

fn split_rows(table: &Table, targets: &Targets, split: &Split) -> Result<[Vec<usize>; 3], WorkshopError> {
    let mut parts: [Vec<usize>; 3] = Default::default();
    if !table.splits.is_empty() {
        for (row, name) in table.splits.iter().enumerate() {
            let part = match name.as_str() {
                "train" => 0,
                "validation" | "val" | "valid" => 1,
                "test" => 2,
                other => {
                    let message =
                        format!("row {}: split {other:?} is none of train, validation, test", row + 1);
                    return Err(WorkshopError::Data(message));
                }
            };
            parts[part].push(row);
        }
        return Ok(parts);
    }
    let [train, validation, test] = split.shares;
    let proper = split.shares.iter().all(|share| (0.0..=1.0).contains(share)) && train > 0.0;
    if !proper || (train + validation + test - 1.0).abs() > 1e-6 {
        return Err(WorkshopError::Option(
            "--split wants three shares that add up to 1, such as 0.7,0.15,0.15".into(),
        ));
    }
    let mut random = Random::new(split.seed);
    // Class by class, so that a rare class is in every part; a quantity is one class.
    let mut strata: Vec<Vec<usize>> = vec![Vec::new(); targets.labels.len().max(1)];
    for row in 0..table.rows() {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a class number")]
        let stratum = if targets.labels.is_empty() { 0 } else { targets.values[row] as usize };
        strata[stratum].push(row);
    }
    for mut rows in strata {
        random.shuffle(&mut rows);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a count of rows"
        )]
        let upto = |share: f64| ((rows.len() as f64 * share).round() as usize).min(rows.len());
        let (first, second) = (upto(train), upto(train + validation));
        parts[0].extend(&rows[..first]);
        parts[1].extend(&rows[first..second]);
        parts[2].extend(&rows[second..]);
    }
    parts.iter_mut().for_each(|rows| rows.sort_unstable());
    Ok(parts)
}

/// Learns what replaces missing values, mean and deviation of each feature, from the training rows.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "stored as f32, counted in f64"
)]
fn learn(table: &Table, train: &[usize], preparation: &Preparation) -> Preprocessing {
    let width = table.features.len();
    let missing = table.values.iter().any(|value| value.is_nan());
    let (mut impute, mut means, mut scales) = (Vec::new(), Vec::new(), Vec::new());
    for feature in 0..width {
        let column = train.iter().map(|row| table.values[row * width + feature]);
        let mut present: Vec<f32> = column.filter(|value| !value.is_nan()).collect();
        let count = present.len().max(1) as f64;
        let mean = present.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
        present.sort_by(f32::total_cmp);
        let fill = match preparation.impute {
            Impute::Mean => mean,
            Impute::Median => median(&present),
        };
        let spread = |value: f64| (value - mean) * (value - mean);
        // Filled-in cells count too: they are what the network sees.
        let filled = (train.len() - present.len()) as f64 * spread(fill);
        let variance = (present.iter().map(|value| spread(f64::from(*value))).sum::<f64>() + filled)
            / train.len() as f64;
        impute.push(fill as f32);
        means.push(mean as f32);
        // A feature that never changes carries nothing; it must not be divided by zero.
        scales.push(if variance > 1e-12 { variance.sqrt() as f32 } else { 1.0 });
    }
    Preprocessing {
        impute: missing.then_some(impute),
        standardize: preparation.standardize.then_some(Standardize { mean: means, scale: scales }),
    }
}

/// The middle of sorted values, or the mean of the two in the middle; 0 for none.
fn median(sorted: &[f32]) -> f64 {
    let at = |index: usize| sorted.get(index).map_or(0.0, |value| f64::from(*value));
    (at(sorted.len().saturating_sub(1) / 2) + at(sorted.len() / 2)) / 2.0
}

fn prepare(table: &Table, rows: &[usize], preprocessing: &Preprocessing) -> Array2<f32> {
    let width = table.features.len();
    Array2::from_shape_fn((rows.len(), width), |(at, feature)| {
        let mut value = table.values[rows[at] * width + feature];
        if let Some(impute) = preprocessing.impute.as_ref().filter(|_| value.is_nan()) {
            value = impute[feature];
        }
        match &preprocessing.standardize {
            Some(Standardize { mean, scale }) => (value - mean[feature]) / scale[feature],
            None => value,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(labels: &[&str]) -> Table {
        Table {
            features: vec!["a".into()],
            #[allow(clippy::cast_precision_loss, reason = "small")]
            values: (0..labels.len()).map(|row| row as f32).collect(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            splits: Vec::new(),
        }
    }

    const PREPARATION: Preparation = Preparation { impute: Impute::Mean, standardize: true };

    #[test]
    fn labels_choose_the_loss_and_its_outputs() {
        let targets = |labels: &[&str]| Targets::of(&table(labels), None).unwrap();
        assert_eq!(targets(&["1", "0", "1"]).loss, Loss::BinaryCrossEntropy);
        let classes = targets(&["10", "9", "2"]);
        assert_eq!((classes.labels.join(","), classes.outputs()), ("2,9,10".into(), 3));
        assert_eq!(targets(&["0.5", "1.25", "2"]).loss, Loss::SquaredError);
        assert!(Targets::of(&table(&["a", "a"]), None).is_err());
        assert!(Targets::of(&table(&["a", ""]), None).is_err());
        assert!(Targets::of(&table(&["a", "b"]), Some(Loss::SquaredError)).is_err());
    }

    #[test]
    fn medians_lie_in_the_middle() {
        assert_eq!((median(&[]), median(&[3.0]), median(&[1.0, 4.0])), (0.0, 3.0, 2.5));
        assert_eq!((median(&[1.0, 2.0, 9.0]), median(&[1.0, 2.0, 4.0, 9.0])), (2.0, 3.0));
    }

    #[test]
    fn a_split_is_stratified_complete_and_reproducible() {
        let labels: Vec<&str> = (0..200).map(|row| if row % 10 == 0 { "rare" } else { "common" }).collect();
        let table = table(&labels);
        let targets = Targets::of(&table, None).unwrap();
        let split = Split { shares: [0.7, 0.15, 0.15], seed: 3 };
        let parts = split_rows(&table, &targets, &split).unwrap();
        assert_eq!(parts, split_rows(&table, &targets, &split).unwrap());
        let rare = |rows: &[usize]| rows.iter().filter(|row| **row % 10 == 0).count();
        assert_eq!(parts.each_ref().map(|rows| rare(rows)), [14, 3, 3]);
        let mut all = parts.concat();
        all.sort_unstable();
        assert_eq!(all, (0..200).collect::<Vec<_>>());
        assert!(split_rows(&table, &targets, &Split { shares: [0.9, 0.9, 0.1], seed: 3 }).is_err());
    }

    #[test]
    fn training_rows_get_mean_zero_and_deviation_one_and_missing_values_are_filled() {
        let mut table = table(&["0", "1", "0", "1"]);
        table.values = vec![1.0, f32::NAN, 3.0, 5.0];
        let targets = Targets::of(&table, None).unwrap();
        let split = Split { shares: [1.0, 0.0, 0.0], seed: 0 };
        let dataset = Dataset::new(&table, &targets, &split, &PREPARATION).unwrap();
        let column: Vec<f32> = dataset.train.inputs.iter().copied().collect();
        let mean: f32 = column.iter().sum::<f32>() / 4.0;
        let variance: f32 = column.iter().map(|value| value * value).sum::<f32>() / 4.0;
        assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5, "{column:?}");
        assert_eq!(dataset.preprocessing.impute, Some(vec![3.0]));
    }
}
