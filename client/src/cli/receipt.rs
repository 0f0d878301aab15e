//! `adyton receipt`: saved receipts, judged again by anyone, and their answers computed again.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use adyton_client::{ClientError, ReceiptFile, ReceiptVerdict, TrustFile};
use adyton_language::{KvKind, Language, LanguageLimits, ReplayError, Replayed, replay};
use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{INTEGRITY, banner, steps_text};
use super::verify::session_json;
use super::{Failure, Output, Printed};

#[derive(Subcommand)]
pub(crate) enum ReceiptCommand {
    /// Judge the session at the time it was verified, then every receipt and the chain they form.
    Verify(VerifyArgs),
    /// Compute the answers of a language model again and compare them byte for byte. No signature is judged.
    Replay(ReplayArgs),
}

#[derive(Args)]
#[command(after_help = "Example:\n  adyton receipt verify receipt.json --trust trust.toml")]
pub(crate) struct VerifyArgs {
    /// A file that `adyton predict --receipt` wrote.
    file: PathBuf,
    /// Whom to accept (TOML).
    #[arg(long, env = "ADYTON_TRUST", default_value = "trust.toml")]
    trust: PathBuf,
}

#[derive(Args)]
#[command(after_help = "Example:\n  adyton receipt replay receipt.json --model model.gguf\n\n\
                  Limits are those of the service's launch document, table [language]; max_tokens and positions\n\
                  matter to requests that leave max_tokens out, and to answers that end where there is no more room;\n\
                  kv and long_context to all of them.")]
pub(crate) struct ReplayArgs {
    /// A file that `adyton chat --receipt` or `adyton complete --receipt` wrote.
    file: PathBuf,
    /// The model as it was before it was sealed (GGUF).
    #[arg(long, short, env = "ADYTON_MODEL_FILE")]
    model: PathBuf,
    /// Tokens of one answer, at most.
    #[arg(long, value_name = "TOKENS", default_value_t = LanguageLimits::default().max_tokens)]
    max_tokens: usize,
    /// Positions of prompt and answer together.
    #[arg(long, value_name = "TOKENS", default_value_t = LanguageLimits::default().positions)]
    positions: usize,
    /// How the service holds keys and values: f32, f16 or q8.
    #[arg(long, value_name = "KIND", default_value = "f16")]
    kv: KvKind,
    /// Whether the service takes the model's rotations for long texts.
    #[arg(long)]
    long_context: bool,
    /// Computing threads; without it one for each processor. The answer does not depend on them.
    #[arg(long, env = "ADYTON_THREADS")]
    threads: Option<usize>,
}

pub(crate) fn run(command: &ReceiptCommand, output: &Output) -> Result<Printed, Failure> {
    match command {
        ReceiptCommand::Verify(args) => verify(args),
        ReceiptCommand::Replay(args) => compute_again(args, output),
    }
}

fn compute_again(args: &ReplayArgs, output: &Output) -> Result<Printed, Failure> {
    let file = ReceiptFile::read(&args.file)?;
    let ReplayArgs { threads, max_tokens, positions, kv, long_context, .. } = *args;
    let limits =
        LanguageLimits { threads, max_tokens, positions, kv, long_context, ..LanguageLimits::default() };
    let unusable = |reason: &dyn std::fmt::Display| {
        Failure::own(format!("cannot use {}: {reason}", args.model.display()))
    };
    let model = File::open(&args.model).map_err(|error| unusable(&error))?;
    let len = model.metadata().map_err(|error| unusable(&error))?.len();
    let language = Arc::new(Language::load(&model, len, limits).map_err(|error| unusable(&error))?);
    let (mut answers, mut same, mut failed) = (Vec::new(), 0, false);
    for (number, exchange) in (1..).zip(file.exchanges()) {
        let (result, detail) = match replay(&language, &exchange.path, &exchange.request, &exchange.response)
        {
            Ok(Replayed::Same { tokens }) => {
                same += 1;
                ("pass", format!("the same bytes, {tokens} tokens computed again"))
            }
            Ok(Replayed::Differs { at }) => ("fail", format!("other bytes, from byte {at} on")),
            Err(error @ ReplayError::NotLanguage) => ("skip", error.to_string()),
            Err(error) => ("fail", error.to_string()),
        };
        failed |= result == "fail";
        let name = format!("answer-{number}");
        output.say(&format!("  {result:<4}  {name:<26} {detail}\n"));
        answers.push(json!({ "name": name, "result": result, "detail": detail }));
    }
    let text = format!("{same} of {} answers are what this model says\n", answers.len());
    let verdict = if failed || same == 0 { "reject" } else { "accept" };
    let json = json!({ "verdict": verdict, "answers_replayed": same, "steps": answers });
    Ok(Printed { json, text, code: if verdict == "accept" { 0 } else { INTEGRITY } })
}

fn verify(args: &VerifyArgs) -> Result<Printed, Failure> {
    let trust = TrustFile::read(&args.trust)?;
    let file = ReceiptFile::read(&args.file)?;
    let at = file.session().verified_at();
    // A session under delegated evidence rests on an earlier fresh one, which this file does not hold: it is refused.
    let (session, receipts) = file.verify(&trust.at(at, &[])).map_err(|error| match error {
        ClientError::Answer(what) => Failure::with(INTEGRITY, what),
        other => other.into(),
    })?;
    let holding = receipts.iter().filter(|receipt| **receipt == ReceiptVerdict::Holds).count();
    let all = holding == receipts.len();
    let mut text = format!("{}{}", banner(session.report().simulated()), steps_text(session.steps()));
    let mut steps = Vec::new();
    for (number, receipt) in receipts.iter().enumerate() {
        let (result, detail) = match receipt {
            ReceiptVerdict::Holds => ("pass", "for this request, this answer and this place in the chain"),
            ReceiptVerdict::Refused(why) => ("fail", *why),
            ReceiptVerdict::NotJudged => ("skip", "one before it does not hold"),
        };
        let name = format!("receipt-{}", number + 1);
        text += &format!("  {result:<4}  {name:<26} {detail}\n");
        steps.push(json!({ "name": name, "result": result, "detail": detail }));
    }
    text += &format!("{holding} of {} receipts hold, from a session verified at {at}\n", receipts.len());
    let mut json = session_json(&session);
    json["receipts_verified"] = holding.into();
    json["verified_at"] = at.to_string().into();
    if let Some(list) = json["steps"].as_array_mut() {
        list.extend(steps);
    }
    if !all {
        json["verdict"] = "reject".into();
        json["reason"] = "receipt".into();
    }
    Ok(Printed { json, text, code: if all { 0 } else { INTEGRITY } })
}
