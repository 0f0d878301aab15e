//! `adyton predict`: rows of a CSV to a verified enclave, answers with verified receipts back.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use adyton_client::{Channel, Exchange, ReceiptFile};
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::output::{INTEGRITY, banner};
use super::verify::{ServiceArgs, open, session_json};
use super::{Failure, Printed};

/// Rows sent in one request.
const ROWS_PER_REQUEST: usize = 4096;

#[derive(Args)]
#[command(
    after_help = "Example:\n  adyton predict enclave.example:8443 --input rows.csv --label digit --receipt receipt.json"
)]
pub(crate) struct PredictArgs {
    #[command(flatten)]
    service: ServiceArgs,
    /// The model's name; without it the one that is served.
    #[arg(long, env = "ADYTON_MODEL")]
    model: Option<String>,
    /// CSV with a header row; an empty cell is a missing value.
    #[arg(long, env = "ADYTON_INPUT")]
    input: PathBuf,
    /// Column with the true answer: not sent, compared with the predictions here.
    #[arg(long, env = "ADYTON_LABEL")]
    label: Option<String>,
    /// Only rows whose column has this value, such as `split=test`; the column is not sent.
    #[arg(long = "where", env = "ADYTON_WHERE", value_name = "COLUMN=VALUE")]
    filter: Option<String>,
    /// Send no more than so many rows.
    #[arg(long, env = "ADYTON_LIMIT")]
    limit: Option<usize>,
    /// Keep session, answers and receipts in this file, for `adyton receipt verify`.
    #[arg(long, env = "ADYTON_RECEIPT")]
    receipt: Option<PathBuf>,
}

/// What the model says of itself.
#[derive(Deserialize)]
struct Metadata {
    name: String,
    inputs: [Tensor; 1],
    outputs: [Tensor; 1],
}

#[derive(Deserialize)]
struct Tensor {
    shape: [i64; 2],
    #[serde(default)]
    parameters: Names,
}

#[derive(Deserialize, Default)]
struct Names {
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    labels: Vec<String>,
}

#[derive(Deserialize)]
struct Answer {
    outputs: [Output; 1],
}

#[derive(Deserialize)]
struct Output {
    shape: [usize; 2],
    data: Vec<f32>,
}

/// Rows to send, and what the caller says is true of them.
struct Rows {
    values: Vec<Vec<Option<f32>>>,
    truth: Vec<String>,
}

pub(crate) async fn run(args: &PredictArgs) -> Result<Printed, Failure> {
    if !args.input.exists() {
        return Err(Failure::own(format!("cannot read {}: no such file", args.input.display())));
    }
    let (mut channel, _) = open(&args.service).await?;
    let name = match &args.model {
        Some(name) => name.clone(),
        None => served_model(&mut channel).await?,
    };
    let bytes = channel.get(&format!("/v2/models/{name}")).await?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| malformed("the model's metadata"))?;
    if value["platform"] == "adyton_language" {
        return Err(Failure::own(format!(
            "{name} is a language model: use `adyton chat` or `adyton complete`"
        )));
    }
    let metadata: Metadata = serde_json::from_value(value).map_err(|_| malformed("the model's metadata"))?;
    let rows = read_rows(args, &metadata)?;
    let mut outputs = Vec::new();
    let mut exchanges = Vec::new();
    for chunk in rows.values.chunks(ROWS_PER_REQUEST) {
        outputs.extend(ask(&mut channel, &metadata, chunk, &mut exchanges).await?);
    }
    if let Some(path) = &args.receipt {
        ReceiptFile::new(channel.saved().clone(), exchanges.clone()).write(path)?;
    }
    Ok(printed(&channel, &metadata, &rows, &outputs, exchanges.len()))
}

fn malformed(what: &str) -> Failure {
    Failure::with(INTEGRITY, format!("{what} is malformed"))
}

async fn served_model(channel: &mut Channel) -> Result<String, Failure> {
    let bytes = channel.get("/v2/models").await?;
    let list: Value = serde_json::from_slice(&bytes).map_err(|_| malformed("the list of models"))?;
    let name = list.get("models").and_then(|models| models.get(0)).and_then(Value::as_str);
    name.map(str::to_owned).ok_or_else(|| malformed("the list of models"))
}

async fn ask(
    channel: &mut Channel,
    metadata: &Metadata,
    rows: &[Vec<Option<f32>>],
    exchanges: &mut Vec<Exchange>,
) -> Result<Vec<Vec<f32>>, Failure> {
    let [_, features] = metadata.inputs[0].shape;
    let data: Vec<Option<f32>> = rows.iter().flatten().copied().collect();
    let input =
        json!({"name": "features", "datatype": "FP32", "shape": [rows.len(), features], "data": data});
    let body = json!({ "inputs": [input] }).to_string().into_bytes();
    let answered = channel.ask(&format!("/v2/models/{}/infer", metadata.name), body).await?;
    let answer: Answer = serde_json::from_slice(&answered.body).map_err(|_| malformed("the answer"))?;
    exchanges.push(answered.exchange);
    let [output] = answer.outputs;
    let [count, width] = output.shape;
    if count != rows.len() || width == 0 || count.checked_mul(width) != Some(output.data.len()) {
        return Err(malformed("the answer"));
    }
    Ok(output.data.chunks(width).map(<[f32]>::to_vec).collect())
}

fn read_rows(args: &PredictArgs, metadata: &Metadata) -> Result<Rows, Failure> {
    let input: &Path = &args.input;
    let failed = |error: csv::Error| Failure::own(format!("cannot read {}: {error}", input.display()));
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(input).map_err(failed)?;
    let header = reader.headers().map_err(failed)?.clone();
    let column = |name: &str| {
        let at = header.iter().position(|column| column == name);
        at.ok_or_else(|| Failure::own(format!("{} has no column {name:?}", input.display())))
    };
    let label = args.label.as_deref().map(&column).transpose()?;
    let filter = match args.filter.as_deref().map(|filter| filter.split_once('=')) {
        None => None,
        Some(Some((name, value))) => Some((column(name)?, value)),
        Some(None) => return Err(Failure::own("--where wants COLUMN=VALUE")),
    };
    let names = &metadata.inputs[0].parameters.names;
    let columns: Vec<usize> = if !names.is_empty() && names.iter().all(|name| column(name).is_ok()) {
        names.iter().map(|name| column(name)).collect::<Result<_, _>>()?
    } else {
        let left_out = [label, filter.map(|(at, _)| at)];
        (0..header.len()).filter(|at| !left_out.contains(&Some(*at))).collect()
    };
    let features = usize::try_from(metadata.inputs[0].shape[1]).unwrap_or(0);
    if columns.len() != features {
        let message =
            format!("the model takes {features} features, {} has {}", input.display(), columns.len());
        return Err(Failure::own(message + "; name the other columns with --label and --where"));
    }
    let mut rows = Rows { values: Vec::new(), truth: Vec::new() };
    for record in reader.records() {
        let record = record.map_err(failed)?;
        if filter.is_some_and(|(at, value)| record.get(at) != Some(value)) {
            continue;
        }
        if args.limit.is_some_and(|limit| rows.values.len() >= limit) {
            break;
        }
        let line = record.position().map_or(0, csv::Position::line);
        let cells = columns.iter().map(|at| cell(record.get(*at).unwrap_or_default(), line, *at + 1, input));
        rows.values.push(cells.collect::<Result<_, _>>()?);
        rows.truth.extend(label.and_then(|at| record.get(at)).map(str::to_owned));
    }
    if rows.values.is_empty() {
        return Err(Failure::own(format!("{} has no rows to send", input.display())));
    }
    Ok(rows)
}

/// A number, or nothing for a missing value.
fn cell(text: &str, line: u64, column: usize, input: &Path) -> Result<Option<f32>, Failure> {
    if text.is_empty() || text.eq_ignore_ascii_case("na") || text.eq_ignore_ascii_case("nan") {
        return Ok(None);
    }
    let number = text.parse::<f32>().ok().filter(|number| number.is_finite());
    number.map(Some).ok_or_else(|| {
        Failure::own(format!(
            "{} line {line}, column {column}: {text:?} is not a finite number",
            input.display()
        ))
    })
}

/// What an output row says: the label with the most weight; without labels, a yes or no where that is what was asked
/// for, and otherwise the number itself.
fn said(row: &[f32], labels: &[String], binary: bool) -> String {
    match row {
        [one] if labels.len() == 2 => labels[usize::from(*one >= 0.5)].clone(),
        [one] if binary => u8::from(*one >= 0.5).to_string(),
        [one] => one.to_string(),
        _ => {
            let most = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(at, _)| at);
            labels.get(most).cloned().unwrap_or_else(|| most.to_string())
        }
    }
}

fn printed(
    channel: &Channel,
    metadata: &Metadata,
    rows: &Rows,
    outputs: &[Vec<f32>],
    receipts: usize,
) -> Printed {
    let labels = &metadata.outputs[0].parameters.labels;
    let binary = !rows.truth.is_empty() && rows.truth.iter().all(|truth| truth == "0" || truth == "1");
    let predictions: Vec<String> = outputs.iter().map(|row| said(row, labels, binary)).collect();
    let correct = rows.truth.iter().zip(&predictions).filter(|(truth, said)| truth == said).count();
    #[allow(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]
    let accuracy = (!rows.truth.is_empty()).then(|| correct as f64 / rows.truth.len() as f64);
    let session = channel.session();
    let simulated = session.report().simulated();
    let mut text = banner(simulated);
    for (at, (row, said)) in outputs.iter().zip(&predictions).enumerate().take(10) {
        let weight = row.iter().copied().fold(f32::MIN, f32::max);
        let truth = rows.truth.get(at).map(|truth| format!("   (true: {truth})")).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  row {:<4} {said}   {weight:.4}{truth}", at + 1);
    }
    if outputs.len() > 10 {
        let _ = writeln!(text, "  … and {} more rows", outputs.len() - 10);
    }
    if let Some(accuracy) = accuracy {
        let _ = writeln!(text, "accuracy {accuracy:.4} ({correct} of {})", rows.truth.len());
    }
    let _ = writeln!(text, "{} rows from a verified enclave, {receipts} receipts verified", outputs.len());
    let json = json!({
        "model": metadata.name,
        "rows": outputs.len(),
        "predictions": predictions,
        "outputs": outputs,
        "accuracy": accuracy,
        "receipts_verified": receipts,
        "session": session_json(session),
    });
    Printed::new(json, text)
}
