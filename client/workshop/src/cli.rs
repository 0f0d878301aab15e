//! The verbs of the bench, as the `adyton` program offers them under `adyton model`.

mod language;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use adyton_model::dense::{
    Activation, BatchNormPlacement, DenseModel, Kernel, Layer, Loss, Overrides, Structure,
};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::files::{read, read_model, read_model_with, write, write_model};
use crate::language::is_gguf;
use crate::{
    Columns, Dataset, Epoch, Impute, Method, Metrics, Options, Precision, Preparation, Split, Table, Targets,
    WorkshopError, curve, evaluate, prune, quantize, train,
};

const MAX_STRUCTURE_LEN: u64 = 16 << 20;

/// A verb of the bench.
#[derive(Subcommand)]
pub enum ModelCommand {
    /// Train a dense network on a CSV.
    Train(Box<TrainArgs>),
    /// Bring a trained network (ONNX, safetensors) into the form that is served.
    Convert(ConvertArgs),
    /// Store weights in fewer bits: dense networks as int8, language models as their formats have it.
    Quantize(QuantizeArgs),
    /// Drop the smallest weights.
    Prune(PruneArgs),
    /// See how good a model is on a CSV.
    Evaluate(EvaluateArgs),
    /// Show what a model file holds.
    #[command(
        after_help = "Examples:\n  adyton model inspect digits.safetensors\n  adyton model inspect model-f16.gguf"
    )]
    Inspect {
        /// The model file.
        model: PathBuf,
    },
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ui {
    /// A bar on standard error.
    pub progress: bool,
    /// One JSON object a line on standard error.
    pub json_progress: bool,
}

/// What a verb has to say.
#[derive(Debug, Clone)]
pub struct Report {
    /// For programs.
    pub json: Value,
    /// For people.
    pub text: String,
}

/// Which columns of a CSV are what.
#[derive(Args)]
struct ColumnArgs {
    /// Column with the label.
    #[arg(long, env = "ADYTON_LABEL", default_value = "label")]
    label: String,
    /// Column that says train, validation or test; used if it exists.
    #[arg(long, env = "ADYTON_SPLIT_COLUMN", default_value = "split")]
    split_column: String,
    /// Columns to leave out, separated by commas.
    #[arg(long, env = "ADYTON_IGNORE", value_delimiter = ',')]
    ignore: Vec<String>,
}

/// `adyton model train`.
#[derive(Args)]
#[command(
    after_help = "Example:\n  adyton model train digits.csv --label digit --hidden 128,64 --epochs 30 --out digits.safetensors --curve curve.svg"
)]
pub struct TrainArgs {
    /// CSV with a header row; an empty cell is a missing value.
    data: PathBuf,
    /// Where the model goes.
    #[arg(long, env = "ADYTON_OUT")]
    out: PathBuf,
    #[command(flatten)]
    columns: ColumnArgs,
    /// Shares of training, validation and test rows, if no column says it.
    #[arg(long, env = "ADYTON_SPLIT", default_value = "0.7,0.15,0.15", value_delimiter = ',', num_args = 3)]
    split: Vec<f64>,
    /// What replaces missing values.
    #[arg(long, env = "ADYTON_IMPUTE", default_value = "mean")]
    impute: Impute,
    /// Leave features as they are, rather than at mean 0 and deviation 1.
    #[arg(long, env = "ADYTON_NO_STANDARDIZE")]
    no_standardize: bool,
    /// The loss; by default what the labels look like.
    #[arg(long, env = "ADYTON_LOSS", default_value = "auto")]
    loss: LossName,
    /// Widths of the hidden layers.
    #[arg(long, env = "ADYTON_HIDDEN", default_value = "128,64", value_delimiter = ',')]
    hidden: Vec<usize>,
    /// Activation of the hidden layers.
    #[arg(long, env = "ADYTON_ACTIVATION", default_value = "relu", value_parser = activation)]
    activation: Activation,
    /// Passes over the training rows, at most.
    #[arg(long, env = "ADYTON_EPOCHS", default_value_t = 50)]
    epochs: usize,
    /// Rows of one step.
    #[arg(long, env = "ADYTON_BATCH_SIZE", default_value_t = 32)]
    batch_size: usize,
    /// How steps are taken.
    #[arg(long, env = "ADYTON_OPTIMIZER", default_value = "adam")]
    optimizer: OptimizerName,
    /// Size of a step; by default 0.001 for Adam, 0.01 for gradient descent.
    #[arg(long, env = "ADYTON_LEARNING_RATE")]
    learning_rate: Option<f32>,
    /// Share of the last step that goes on, for gradient descent.
    #[arg(long, env = "ADYTON_MOMENTUM", default_value_t = 0.9)]
    momentum: f32,
    /// Penalty on the size of weights.
    #[arg(long, env = "ADYTON_L1", default_value_t = 0.0)]
    l1: f64,
    /// Penalty on the square of weights.
    #[arg(long, env = "ADYTON_L2", default_value_t = 1e-4)]
    l2: f64,
    /// Share of hidden units left out of each step.
    #[arg(long, env = "ADYTON_DROPOUT", default_value_t = 0.0)]
    dropout: f64,
    /// Augment training rows with noise of this deviation, after standardisation.
    #[arg(long, env = "ADYTON_NOISE", default_value_t = 0.0)]
    noise: f64,
    /// End after so many epochs without a better validation loss; 0 never ends early. By default 10 where there are
    /// validation rows.
    #[arg(long, env = "ADYTON_PATIENCE")]
    patience: Option<usize>,
    /// The same seed gives the same model, byte for byte.
    #[arg(long, env = "ADYTON_SEED", default_value_t = 1)]
    seed: u64,
    /// Draw the learning curve into this SVG file.
    #[arg(long, env = "ADYTON_CURVE")]
    curve: Option<PathBuf>,
}

/// `adyton model convert`.
#[derive(Args)]
#[command(
    after_help = "Example:\n  adyton model convert keras.safetensors --structure config.json --out model.safetensors\n\n\
                        A .keras file is a zip: its config.json is the structure (unzip -p model.keras config.json)."
)]
pub struct ConvertArgs {
    /// ONNX, or safetensors as Keras or PyTorch names tensors.
    model: PathBuf,
    /// Where the converted model goes.
    #[arg(long, env = "ADYTON_OUT")]
    out: PathBuf,
    /// JSON with the layers of a file that holds tensors only: Keras's config.json, or this program's own form.
    #[arg(long, env = "ADYTON_STRUCTURE")]
    structure: Option<PathBuf>,
    /// Hidden activation of a file that does not say; by default relu.
    #[arg(long, env = "ADYTON_ACTIVATION", value_parser = activation)]
    activation: Option<Activation>,
    /// Output activation of a file that does not say; by default sigmoid for one output, else softmax.
    #[arg(long, env = "ADYTON_OUTPUT_ACTIVATION", value_parser = activation)]
    output: Option<Activation>,
    /// Epsilon of batch normalisation in a file that does not say.
    #[arg(long, env = "ADYTON_EPSILON")]
    epsilon: Option<f64>,
    /// Where batch normalisation stands in a file that does not say.
    #[arg(long, env = "ADYTON_BATCH_NORM")]
    batch_norm: Option<Placement>,
}

/// `adyton model quantize`.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  adyton model quantize digits.safetensors --out digits-int8.safetensors --data digits.csv --label digit\n  \
                  adyton model quantize model-f16.gguf --to q4_k_m --out model-q4_k_m.gguf"
)]
pub struct QuantizeArgs {
    /// The model file: a dense network, or a language model in GGUF with 16 or 32 bits.
    model: PathBuf,
    /// Where the smaller model goes.
    #[arg(long, env = "ADYTON_OUT")]
    out: PathBuf,
    /// How the matrices of a language model are stored; by default q4_k_m.
    #[arg(long, env = "ADYTON_TO")]
    to: Option<Precision>,
    #[command(flatten)]
    data: DataArgs,
}

/// `adyton model prune`.
#[derive(Args)]
#[command(
    after_help = "Example:\n  adyton model prune digits.safetensors --sparsity 0.5 --out digits-half.safetensors --data digits.csv --label digit"
)]
pub struct PruneArgs {
    /// The model file.
    model: PathBuf,
    /// Where the smaller model goes.
    #[arg(long, env = "ADYTON_OUT")]
    out: PathBuf,
    /// Share of weights to drop.
    #[arg(long, env = "ADYTON_SPARSITY", default_value_t = 0.5)]
    sparsity: f64,
    /// Take the share from each layer rather than from all together.
    #[arg(long, env = "ADYTON_PER_LAYER")]
    per_layer: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// `adyton model evaluate`.
#[derive(Args)]
#[command(
    after_help = "Example:\n  adyton model evaluate digits.safetensors --data digits.csv --label digit"
)]
pub struct EvaluateArgs {
    /// The model file.
    model: PathBuf,
    /// CSV with labels.
    #[arg(long, env = "ADYTON_DATA")]
    data: PathBuf,
    #[command(flatten)]
    columns: ColumnArgs,
    /// Only rows of this split, if the CSV has a split column.
    #[arg(long, env = "ADYTON_ON", default_value = "test")]
    on: String,
}

#[derive(Args)]
struct DataArgs {
    /// Compare the accuracy before and after on this CSV.
    #[arg(long, env = "ADYTON_DATA")]
    data: Option<PathBuf>,
    #[command(flatten)]
    columns: ColumnArgs,
    /// Only rows of this split, if the CSV has a split column.
    #[arg(long, env = "ADYTON_ON", default_value = "test")]
    on: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum LossName {
    Auto,
    BinaryCrossEntropy,
    CategoricalCrossEntropy,
    SquaredError,
}

#[derive(Clone, Copy, ValueEnum)]
enum OptimizerName {
    Adam,
    Sgd,
}

#[derive(Clone, Copy, ValueEnum)]
enum Placement {
    Before,
    After,
}

fn activation(text: &str) -> Result<Activation, String> {
    Activation::from_name(text).ok_or_else(|| format!("known are {}", Activation::NAMES.join(", ")))
}

/// Runs a verb.
///
/// # Errors
/// [`WorkshopError`]; nothing is then left under an output's name that was not there before.
pub fn run(command: ModelCommand, ui: &Ui) -> Result<Report, WorkshopError> {
    match command {
        ModelCommand::Train(args) => run_train(&args, ui),
        ModelCommand::Convert(args) => run_convert(&args),
        ModelCommand::Quantize(args) if is_gguf(&args.model)? => language::quantize(&args, ui),
        ModelCommand::Quantize(args) => {
            if args.to.is_some() {
                return Err(WorkshopError::Option(
                    "--to is for language models in GGUF; dense networks become int8".to_owned(),
                ));
            }
            let before = read_model(&args.model)?;
            let after = quantize(&before)?;
            smaller("quantized to int8", &before, &after, &args.model, &args.out, &args.data)
        }
        ModelCommand::Prune(args) => {
            let before = read_model(&args.model)?;
            let after = prune(&before, args.sparsity, args.per_layer)?;
            let what = format!("pruned to {:.0} % of the weights", 100.0 * (1.0 - args.sparsity));
            smaller(&what, &before, &after, &args.model, &args.out, &args.data)
        }
        ModelCommand::Evaluate(args) => {
            let model = read_model(&args.model)?;
            let metrics = evaluate_on(&model, &args.data, &args.columns, &args.on)?;
            Ok(Report { json: metrics_json(&metrics), text: metrics_text(&metrics) })
        }
        ModelCommand::Inspect { model } => inspect(&model),
    }
}

fn run_train(args: &TrainArgs, ui: &Ui) -> Result<Report, WorkshopError> {
    let table = Table::read(&args.data, &columns(&args.columns, &[]))?;
    let loss = match args.loss {
        LossName::Auto => None,
        LossName::BinaryCrossEntropy => Some(Loss::BinaryCrossEntropy),
        LossName::CategoricalCrossEntropy => Some(Loss::CategoricalCrossEntropy),
        LossName::SquaredError => Some(Loss::SquaredError),
    };
    let targets = Targets::of(&table, loss)?;
    let shares = args.split.as_slice().try_into().unwrap_or([0.0; 3]);
    let split = Split { shares, seed: args.seed };
    let preparation = Preparation { impute: args.impute, standardize: !args.no_standardize };
    let dataset = Dataset::new(&table, &targets, &split, &preparation)?;
    let (method, rate) = match args.optimizer {
        OptimizerName::Adam => (Method::Adam, 0.001),
        OptimizerName::Sgd => (Method::Sgd { momentum: args.momentum }, 0.01),
    };
    let options = Options {
        hidden: args.hidden.clone(),
        activation: args.activation,
        epochs: args.epochs,
        batch_size: args.batch_size,
        learning_rate: args.learning_rate.unwrap_or(rate),
        method,
        l1: args.l1,
        l2: args.l2,
        dropout: args.dropout,
        noise: args.noise,
        patience: args.patience,
        seed: args.seed,
    };
    let progress = Progress::new(ui, args.epochs);
    let trained = train(&dataset, &targets, &table.features, &options, &mut |number, epoch| {
        progress.tell(number, epoch);
    })?;
    progress.end();
    let bytes = write_model(&args.out, &trained.model)?;
    if let Some(path) = &args.curve {
        write(path, curve::svg(&trained.epochs, trained.best_epoch).as_bytes())?;
    }
    let held_out = match dataset.test_rows.as_slice() {
        [] => None,
        rows => Some(evaluate(&trained.model, &table.select(rows))?),
    };
    let counts = [dataset.train.targets.len(), dataset.validation.targets.len(), dataset.test_rows.len()];
    let mut text = format!(
        "trained {} epochs on {} rows ({} validation, {} test), kept epoch {}\n{bytes} bytes in {}\n",
        trained.epochs.len(),
        counts[0],
        counts[1],
        counts[2],
        trained.best_epoch,
        args.out.display()
    );
    text += &held_out.as_ref().map(|metrics| format!("test: {}", metrics_text(metrics))).unwrap_or_default();
    let json = json!({
        "out": args.out, "bytes": bytes, "parameters": trained.model.parameters(),
        "rows": { "train": counts[0], "validation": counts[1], "test": counts[2] },
        "epochs": trained.epochs.iter().map(epoch_json).collect::<Value>(),
        "best_epoch": trained.best_epoch,
        "test": held_out.as_ref().map(metrics_json),
    });
    Ok(Report { json, text })
}

fn run_convert(args: &ConvertArgs) -> Result<Report, WorkshopError> {
    let structure = match &args.structure {
        None => None,
        Some(path) => {
            let bytes = read(path, MAX_STRUCTURE_LEN)?;
            let text = String::from_utf8_lossy(&bytes);
            let structure = Structure::from_json(&text)
                .map_err(|source| WorkshopError::ModelFile { path: path.clone(), source })?;
            Some(structure)
        }
    };
    let overrides = Overrides {
        activation: args.activation,
        output: args.output,
        epsilon: args.epsilon,
        batch_norm: args.batch_norm.map(|placement| match placement {
            Placement::Before => BatchNormPlacement::Before,
            Placement::After => BatchNormPlacement::After,
        }),
    };
    let model = read_model_with(&args.model, structure.as_ref(), &overrides)?;
    let bytes = write_model(&args.out, &model)?;
    let text = format!("{}{bytes} bytes in {}\n", layers_text(&model), args.out.display());
    Ok(Report { json: json!({ "out": args.out, "bytes": bytes, "model": model_json(&model) }), text })
}

fn smaller(
    what: &str,
    before: &DenseModel,
    after: &DenseModel,
    model: &Path,
    out: &Path,
    data: &DataArgs,
) -> Result<Report, WorkshopError> {
    let was = std::fs::metadata(model).map_or(0, |metadata| metadata.len());
    let bytes = write_model(out, after)?;
    let mut text = format!("{what}: {was} bytes before, {bytes} after\n");
    let mut json = json!({ "out": out, "bytes_before": was, "bytes": bytes });
    if let Some(path) = &data.data {
        let judge = |model| evaluate_on(model, path, &data.columns, &data.on);
        let (before, after) = (judge(before)?, judge(after)?);
        text += &format!("before: {}after:  {}", metrics_text(&before), metrics_text(&after));
        json["before"] = metrics_json(&before);
        json["after"] = metrics_json(&after);
    }
    Ok(Report { json, text })
}

fn columns<'a>(args: &'a ColumnArgs, features: &'a [String]) -> Columns<'a> {
    Columns { label: Some(&args.label), split: Some(&args.split_column), ignore: &args.ignore, features }
}

fn evaluate_on(
    model: &DenseModel,
    data: &Path,
    args: &ColumnArgs,
    on: &str,
) -> Result<Metrics, WorkshopError> {
    let table = Table::read(data, &columns(args, &model.names().features))?.only(on);
    if table.values.is_empty() {
        return Err(WorkshopError::Data(format!("{} has no rows of split {on:?}", data.display())));
    }
    evaluate(model, &table)
}

fn inspect(path: &Path) -> Result<Report, WorkshopError> {
    if is_gguf(path)? {
        return language::inspect(path);
    }
    let model = read_model(path)?;
    let text = format!(
        "{}{} inputs, {} outputs, {} parameters\n",
        layers_text(&model),
        model.inputs(),
        model.outputs(),
        model.parameters()
    );
    Ok(Report { json: model_json(&model), text })
}

fn layer_name(layer: &Layer) -> String {
    match layer {
        Layer::Dense(dense) => {
            let kind = if matches!(dense.kernel, Kernel::F32(_)) { "f32" } else { "int8" };
            format!(
                "dense {} -> {} ({kind}, {} of {} weights zero)",
                dense.inputs,
                dense.outputs,
                dense.kernel.zeros(),
                dense.kernel.len()
            )
        }
        Layer::Affine(affine) => format!("scale and shift ({} units)", affine.scale.len()),
        Layer::Activation(activation) => format!("{activation:?}").to_lowercase(),
    }
}

fn layers_text(model: &DenseModel) -> String {
    model.layers().iter().map(|layer| format!("  {}\n", layer_name(layer))).collect()
}

fn model_json(model: &DenseModel) -> Value {
    json!({
        "inputs": model.inputs(),
        "outputs": model.outputs(),
        "parameters": model.parameters(),
        "layers": model.layers().iter().map(layer_name).collect::<Vec<_>>(),
        "imputes": model.preprocessing().is_some_and(|preprocessing| preprocessing.impute.is_some()),
        "standardizes": model.preprocessing().is_some_and(|preprocessing| preprocessing.standardize.is_some()),
        "features": model.names().features,
        "labels": model.names().labels,
        "loss": model.loss(),
    })
}

fn epoch_json(epoch: &Epoch) -> Value {
    json!({
        "train_loss": epoch.train_loss, "train_accuracy": epoch.train_accuracy,
        "validation_loss": epoch.validation_loss, "validation_accuracy": epoch.validation_accuracy,
    })
}

fn metrics_json(metrics: &Metrics) -> Value {
    json!({
        "rows": metrics.rows, "loss": metrics.loss, "accuracy": metrics.accuracy,
        "root_mean_square_error": metrics.root_mean_square_error,
        "labels": metrics.labels, "confusion": metrics.confusion,
    })
}

fn metrics_text(metrics: &Metrics) -> String {
    let accuracy = metrics.accuracy.map(|accuracy| format!("accuracy {accuracy:.4}, ")).unwrap_or_default();
    let error = metrics.root_mean_square_error.map(|error| format!("error {error:.4}, ")).unwrap_or_default();
    format!("{accuracy}{error}loss {:.4} on {} rows\n", metrics.loss, metrics.rows)
}

/// A bar, JSON lines, or nothing.
struct Progress {
    bar: ProgressBar,
    lines: bool,
    epochs: usize,
}

impl Progress {
    fn new(ui: &Ui, epochs: usize) -> Self {
        let bar = if ui.progress { ProgressBar::new(epochs as u64) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("epoch {pos}/{len} {bar:30} {msg}") {
            bar.set_style(style);
        }
        Self { bar, lines: ui.json_progress, epochs }
    }

    fn tell(&self, number: usize, epoch: &Epoch) {
        let judged = epoch.validation_loss.unwrap_or(epoch.train_loss);
        let accuracy = epoch.validation_accuracy.or(epoch.train_accuracy);
        let accuracy = accuracy.map(|accuracy| format!(", accuracy {accuracy:.4}")).unwrap_or_default();
        self.bar.set_message(format!("loss {judged:.4}{accuracy}"));
        self.bar.set_position(number as u64);
        if self.lines {
            let mut line = epoch_json(epoch);
            line["task"] = "train".into();
            line["completed"] = number.into();
            line["total"] = self.epochs.into();
            // A reader that went away does not stop the work.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}
