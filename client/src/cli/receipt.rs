//! `adyton receipt`: saved receipts, judged again by anyone.

use std::path::PathBuf;

use adyton_client::{ClientError, ReceiptFile, ReceiptVerdict, TrustFile};
use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{INTEGRITY, banner, steps_text};
use super::verify::session_json;
use super::{Failure, Printed};

#[derive(Subcommand)]
pub(crate) enum ReceiptCommand {
    /// Judge the session at the time it was verified, then every receipt and the chain they form.
    Verify(VerifyArgs),
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

pub(crate) fn run(command: &ReceiptCommand) -> Result<Printed, Failure> {
    let ReceiptCommand::Verify(args) = command;
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
