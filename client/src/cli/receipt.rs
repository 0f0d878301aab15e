//! `adyton receipt`: saved receipts, judged again by anyone.

use std::path::PathBuf;

use adyton_client::{ClientError, ReceiptFile, TrustFile};
use clap::{Args, Subcommand};

use super::output::{banner, steps_text};
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
    let session = file.verify(&trust.at(at, &[])).map_err(|error| match error {
        ClientError::Answer(what) => Failure::with(super::output::INTEGRITY, what),
        other => other.into(),
    })?;
    let count = file.exchanges().len();
    let mut json = session_json(&session);
    if let Some(object) = json.as_object_mut() {
        object.insert("receipts_verified".into(), count.into());
        object.insert("verified_at".into(), at.to_string().into());
    }
    let simulated = session.report().simulated();
    let text = format!(
        "{}{}{count} receipts hold, from a session verified at {at}\n",
        banner(simulated),
        steps_text(session.steps())
    );
    Ok(Printed::new(json, text))
}
