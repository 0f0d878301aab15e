//! The training loop: shuffled batches, validation after each epoch, and the best weights in the end.

use adyton_model::dense::{Activation, Dense as ModelDense, DenseModel, Kernel, Layer, Loss, Names};
use ndarray::Axis;

use crate::dataset::Part;
use crate::network::{Dense, Network, Penalties, TRAINABLE};
use crate::optimizer::{Method, Optimizer};
use crate::random::Random;
use crate::{Dataset, Targets, WorkshopError};

/// Rows looked at together when a whole part is evaluated.
const EVALUATION_ROWS: usize = 4096;

/// Epochs waited for a better validation loss, if nothing else is asked for.
const DEFAULT_PATIENCE: usize = 10;

/// How a network is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// Activation of the hidden layers; one of those training knows.
    pub activation: Activation,
    /// Passes over the training rows.
    pub epochs: usize,
    /// Rows of one step.
    pub batch_size: usize,
    /// Size of a step.
    pub learning_rate: f32,
    /// How steps are taken.
    pub method: Method,
    /// Penalty on the size of weights.
    pub l1: f64,
    /// Penalty on the square of weights.
    pub l2: f64,
    /// Share of hidden units left out of each step.
    pub dropout: f64,
    /// Deviation of the noise added to training rows, after standardisation.
    pub noise: f64,
    /// Epochs without a better validation loss after which training ends. `None` is ten where there are validation rows,
    /// and never without; 0 never ends early. Asking for it without validation rows is an error.
    pub patience: Option<usize>,
    /// Seed of weights, shuffles, dropout and noise.
    pub seed: u64,
}

/// What one epoch came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epoch {
    /// Mean loss of the training rows; for a quantity after its standardisation, as the network sees it.
    pub train_loss: f64,
    /// Share of training rows that are right; none for a quantity.
    pub train_accuracy: Option<f64>,
    /// Mean loss of the validation rows, if there are any.
    pub validation_loss: Option<f64>,
    /// Share of validation rows that are right.
    pub validation_accuracy: Option<f64>,
}

/// A trained model and how it came about.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The model, preparation of features included.
    pub model: DenseModel,
    /// Every epoch in order.
    pub epochs: Vec<Epoch>,
    /// The epoch whose weights were kept, from 1.
    pub best_epoch: usize,
}

impl Options {
    fn verify(&self) -> Result<(), WorkshopError> {
        let wrong = |message: &str| Err(WorkshopError::Option(message.to_owned()));
        let known = TRAINABLE.iter().any(|name| Activation::from_name(name) == Some(self.activation));
        if !known {
            return Err(WorkshopError::Option(format!(
                "--activation must be one of {}",
                TRAINABLE.join(", ")
            )));
        }
        if self.epochs == 0 || self.batch_size == 0 || self.hidden.contains(&0) {
            return wrong("--epochs, --batch-size and each width of --hidden must be at least 1");
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return wrong("--learning-rate must be above 0");
        }
        if !(0.0..1.0).contains(&self.dropout) || self.l1 < 0.0 || self.l2 < 0.0 || self.noise < 0.0 {
            return wrong("--dropout must be in 0..1, and --l1, --l2 and --noise must not be negative");
        }
        Ok(())
    }
}

/// Trains a network on a prepared dataset; `watch` is called after each epoch with its number, from 1.
///
/// # Errors
/// [`WorkshopError`]: an option that makes no sense, or training that diverged.
pub fn train(
    dataset: &Dataset,
    targets: &Targets,
    features: &[String],
    options: &Options,
    watch: &mut dyn FnMut(usize, &Epoch),
) -> Result<Trained, WorkshopError> {
    options.verify()?;
    let patience = match (options.patience, dataset.validation.targets.is_empty()) {
        (Some(asked), true) if asked > 0 => {
            return Err(WorkshopError::Option(
                "--patience needs validation rows: give some the split `validation`, or use --patience 0"
                    .into(),
            ));
        }
        (asked, none) => asked.unwrap_or(if none { 0 } else { DEFAULT_PATIENCE }),
    };
    let mut random = Random::new(options.seed);
    let mut widths = vec![dataset.train.inputs.ncols()];
    widths.extend(&options.hidden);
    widths.push(targets.outputs());
    let mut network = Network::draw(&widths, options.activation, targets.loss, &mut random);
    let mut optimizer = Optimizer::new(options.method, options.learning_rate, &network);
    let (mut epochs, mut best) = (Vec::new(), (f64::INFINITY, 0, network.clone()));
    for number in 1..=options.epochs {
        run_epoch(&mut network, &mut optimizer, &dataset.train, options, &mut random);
        let epoch = look(&network, dataset);
        watch(number, &epoch);
        epochs.push(epoch);
        let judged = epoch.validation_loss.unwrap_or(epoch.train_loss);
        if !judged.is_finite() {
            return Err(WorkshopError::Diverged { epoch: number });
        }
        // Without validation rows the last weights are kept: a low training loss is no reason to prefer any.
        if judged < best.0 || epoch.validation_loss.is_none() {
            best = (judged, number, network.clone());
        } else if patience > 0 && number - best.1 >= patience {
            break;
        }
    }
    let (_, best_epoch, network) = best;
    Ok(Trained { model: model(&network, dataset, targets, features)?, epochs, best_epoch })
}

fn run_epoch(
    network: &mut Network<f32>,
    optimizer: &mut Optimizer,
    part: &Part,
    options: &Options,
    random: &mut Random,
) {
    let penalties = Penalties { l1: options.l1, l2: options.l2 };
    let mut order: Vec<usize> = (0..part.targets.len()).collect();
    random.shuffle(&mut order);
    for rows in order.chunks(options.batch_size) {
        let mut inputs = part.inputs.select(Axis(0), rows);
        if options.noise > 0.0 {
            #[allow(clippy::cast_possible_truncation, reason = "noise in f32")]
            inputs.mapv_inplace(|x| x + (random.normal() * options.noise) as f32);
        }
        let targets: Vec<f32> = rows.iter().map(|row| part.targets[*row]).collect();
        let trace = network.forward(&inputs.view(), Some((random, options.dropout)));
        let gradients = network.backward(&trace, &targets, &penalties);
        optimizer.step(network, &gradients);
    }
}

fn look(network: &Network<f32>, dataset: &Dataset) -> Epoch {
    let (train_loss, train_accuracy) = judge(network, &dataset.train);
    let (validation_loss, validation_accuracy) = if dataset.validation.targets.is_empty() {
        (None, None)
    } else {
        let (loss, accuracy) = judge(network, &dataset.validation);
        (Some(loss), accuracy)
    };
    Epoch { train_loss, train_accuracy, validation_loss, validation_accuracy }
}

/// Mean loss, and share of right rows for classes.
#[allow(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]
fn judge(network: &Network<f32>, part: &Part) -> (f64, Option<f64>) {
    let (mut loss, mut right) = (0.0, 0usize);
    let chunks =
        part.inputs.axis_chunks_iter(Axis(0), EVALUATION_ROWS).zip(part.targets.chunks(EVALUATION_ROWS));
    for (inputs, targets) in chunks {
        let outputs = network.forward(&inputs, None).outputs;
        loss += f64::from(network.loss(&outputs, targets)) * targets.len() as f64;
        right += outputs
            .rows()
            .into_iter()
            .zip(targets)
            .filter(|(row, target)| said(row.as_slice().unwrap_or_default()) == **target)
            .count();
    }
    let rows = part.targets.len().max(1) as f64;
    (loss / rows, (network.loss != Loss::SquaredError).then_some(right as f64 / rows))
}

/// The class that sums say: the sign of one, or the largest of several.
#[allow(clippy::cast_precision_loss, reason = "class numbers are small")]
fn said(sums: &[f32]) -> f32 {
    match sums {
        [one] => f32::from(u8::from(*one > 0.0)),
        many => many.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0.0, |(at, _)| at as f32),
    }
}

fn model(
    network: &Network<f32>,
    dataset: &Dataset,
    targets: &Targets,
    features: &[String],
) -> Result<DenseModel, WorkshopError> {
    let last = network.layers.len() - 1;
    let mut layers = Vec::new();
    for (at, Dense { kernel, bias }) in network.layers.iter().enumerate() {
        // The last layer answers in the unit of the labels; for classes this multiplies by one and adds zero.
        let (mean, scale) = match at == last {
            true => (dataset.target_scaling.mean[0], dataset.target_scaling.scale[0]),
            false => (0.0, 1.0),
        };
        layers.push(Layer::Dense(ModelDense {
            inputs: kernel.nrows(),
            outputs: kernel.ncols(),
            kernel: Kernel::F32(kernel.iter().map(|weight| weight * scale).collect()),
            bias: bias.iter().map(|bias| bias * scale + mean).collect(),
        }));
        let activation = match (at == last, targets.loss) {
            (false, _) => network.hidden,
            (true, Loss::BinaryCrossEntropy) => Activation::Sigmoid,
            (true, Loss::CategoricalCrossEntropy) => Activation::Softmax,
            (true, Loss::SquaredError) => Activation::Linear,
        };
        if activation != Activation::Linear {
            layers.push(Layer::Activation(activation));
        }
    }
    let names = Names { features: features.to_vec(), labels: targets.labels.clone() };
    Ok(DenseModel::new(dataset.train.inputs.ncols(), layers)?
        .with_preprocessing(dataset.preprocessing.clone())?
        .with_names(names)?
        .with_loss(Some(targets.loss)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Impute, Preparation, Split, Table};

    /// Three rings around the origin: no line separates them.
    fn rings() -> Table {
        let mut random = Random::new(9);
        let mut table = Table { features: vec!["x".into(), "y".into()], ..Table::default() };
        for row in 0..600 {
            let (class, angle) = (row % 3, random.uniform() * std::f64::consts::TAU);
            let radius = f64::from(class) + 0.5 + 0.1 * random.normal();
            #[allow(clippy::cast_possible_truncation, reason = "coordinates in f32")]
            table.values.extend([(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]);
            table.labels.push(["inner", "middle", "outer"][class as usize].to_owned());
        }
        table
    }

    fn options() -> Options {
        Options {
            hidden: vec![32, 16],
            activation: Activation::Tanh,
            epochs: 60,
            batch_size: 16,
            learning_rate: 0.01,
            method: Method::Adam,
            l1: 0.0,
            l2: 0.0,
            dropout: 0.0,
            noise: 0.0,
            patience: Some(0),
            seed: 4,
        }
    }

    fn run(table: &Table, options: &Options) -> Result<Trained, WorkshopError> {
        let targets = Targets::of(table, None)?;
        let split = Split { shares: [0.7, 0.15, 0.15], seed: 4 };
        let dataset =
            Dataset::new(table, &targets, &split, &Preparation { impute: Impute::Mean, standardize: true })?;
        train(&dataset, &targets, &table.features, options, &mut |_, _| ())
    }

    #[test]
    fn every_method_and_regularisation_learns_what_no_line_separates() {
        let sgd = Options { method: Method::Sgd { momentum: 0.9 }, ..options() };
        let cases = [
            options(),
            sgd,
            Options { noise: 0.05, dropout: 0.1, l1: 1e-5, l2: 1e-5, ..options() },
            Options { activation: Activation::Gelu, ..options() },
        ];
        for options in cases {
            let trained = run(&rings(), &options).unwrap();
            let accuracy = crate::evaluate(&trained.model, &rings()).unwrap().accuracy.unwrap();
            assert!(accuracy > 0.95, "{accuracy} with {options:?}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
        let short = Options { epochs: 3, dropout: 0.2, noise: 0.1, ..options() };
        let bytes = |options: &Options| run(&rings(), options).unwrap().model.to_safetensors().unwrap();
        assert_eq!(bytes(&short), bytes(&short));
        assert_ne!(bytes(&short), bytes(&Options { seed: 5, ..short.clone() }));
    }

    /// Prices: far from zero and from one, as quantities are.
    fn prices() -> Table {
        let mut random = Random::new(2);
        let mut table = Table { features: vec!["a".into(), "b".into()], ..Table::default() };
        for _ in 0..400 {
            let (a, b) = (random.uniform(), random.uniform());
            #[allow(clippy::cast_possible_truncation, reason = "features in f32")]
            table.values.extend([a as f32, b as f32]);
            let price = 250_000.0 + 90_000.0 * a - 40_000.0 * b + 500.0 * random.normal();
            table.labels.push(format!("{price:.2}"));
        }
        table
    }

    #[test]
    fn a_large_quantity_is_learned_in_its_own_unit() {
        for method in [Method::Adam, Method::Sgd { momentum: 0.9 }] {
            let trained = run(&prices(), &Options { method, ..options() }).unwrap();
            let error = crate::evaluate(&trained.model, &prices()).unwrap().root_mean_square_error.unwrap();
            assert!(error < 3_000.0, "{method:?}: {error}, the noise is 500 and the spread 30 000");
        }
    }

    #[test]
    fn early_stopping_keeps_the_best_epoch() {
        let trained = run(&rings(), &Options { patience: Some(3), epochs: 500, ..options() }).unwrap();
        let best = trained.epochs[trained.best_epoch - 1].validation_loss.unwrap();
        assert!(trained.epochs.len() < 500 && trained.epochs.len() == trained.best_epoch + 3);
        assert!(trained.epochs.iter().all(|epoch| epoch.validation_loss.unwrap() >= best));
    }

    #[test]
    fn early_stopping_without_validation_rows_is_an_error_not_a_silence() {
        let mut table = rings();
        table.splits = vec!["train".into(); table.labels.len()];
        let waiting = Options { patience: Some(3), epochs: 2, ..options() };
        assert!(matches!(run(&table, &waiting), Err(WorkshopError::Option(_))));
        for patience in [None, Some(0)] {
            assert!(run(&table, &Options { patience, epochs: 2, ..options() }).is_ok());
        }
    }

    #[test]
    fn divergence_and_senseless_options_are_errors() {
        let steep = Options {
            method: Method::Sgd { momentum: 0.9 },
            learning_rate: 1e9,
            activation: Activation::Relu,
            ..options()
        };
        assert!(matches!(run(&rings(), &steep), Err(WorkshopError::Diverged { .. })));
        for wrong in [
            Options { epochs: 0, ..options() },
            Options { dropout: 1.0, ..options() },
            Options { learning_rate: 0.0, ..options() },
            Options { activation: Activation::Softmax, ..options() },
            Options { hidden: vec![0], ..options() },
        ] {
            assert!(matches!(run(&rings(), &wrong), Err(WorkshopError::Option(_))), "{wrong:?}");
        }
    }
}
