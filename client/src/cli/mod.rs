//! The command line: one module for each audience's verbs, one for what they print.

mod broker;
mod chat;
mod endorse;
mod event_log;
mod evidence;
mod key;
mod measure;
mod measure_diff;
mod measure_sign;
mod measure_tdx;
mod model;
mod output;
mod predict;
mod receipt;
mod result;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

pub(crate) use output::{Failure, Output, Printed};

/// Verify an enclave before sending it anything; own the models it serves; audit both.
#[derive(Parser)]
#[command(
    name = "adyton",
    version,
    after_help = "Example:\n  adyton verify enclave.example:8443 --trust trust.toml\n\n\
                  Exit status: 0 success, 1 our fault or bad usage, 10 evidence invalid, 20 refused by policy,\n\
                  30 network or service unreachable, 40 integrity (sealed model, receipt)."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON object on standard output, and nothing else there.
    #[arg(long, global = true, env = "ADYTON_JSON")]
    json: bool,
    /// Report progress of long work as one JSON object a line on standard error.
    #[arg(long, global = true, env = "ADYTON_JSON_PROGRESS")]
    json_progress: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Find out who serves at an address; nothing is sent but a challenge.
    Verify(verify::VerifyArgs),
    /// Verify, then send rows and check the receipts of the answers.
    Predict(predict::PredictArgs),
    /// Verify, then talk with a language model and check the receipts of its answers.
    Chat(chat::ChatArgs),
    /// Verify, then let a language model continue a text.
    Complete(chat::CompleteArgs),
    /// Look at saved evidence, or judge it.
    #[command(subcommand)]
    Evidence(evidence::EvidenceCommand),
    /// Judge saved receipts again, or compute their answers again, offline.
    #[command(subcommand)]
    Receipt(receipt::ReceiptCommand),
    /// Compute a launch measurement before anything is launched.
    #[command(subcommand)]
    Measure(measure::MeasureCommand),
    /// Train, convert, quantize, prune, evaluate, inspect and seal models.
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Make an owner's keys, or push a model key into an enclave.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Release model keys to enclaves that prove what they are.
    #[command(subcommand)]
    Broker(broker::BrokerCommand),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  adyton completions bash > /etc/bash_completion.d/adyton")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

impl Cli {
    pub(crate) fn run(self) -> ExitCode {
        let output = Output::new(self.json, self.json_progress);
        let printed = match self.command {
            Command::Verify(args) => block_on(verify::run(&args)),
            Command::Predict(args) => block_on(predict::run(&args)),
            Command::Chat(args) => block_on(chat::run(&args, &output)),
            Command::Complete(args) => block_on(chat::complete(&args, &output)),
            Command::Evidence(command) => evidence::run(&command),
            Command::Receipt(command) => receipt::run(&command, &output),
            Command::Measure(command) => measure::run(&command),
            Command::Model(command) => model::run(command, &output),
            Command::Key(command) => key::run(&command),
            Command::Broker(command) => block_on(broker::run(&command)),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "adyton", &mut script);
                Ok(Printed::text(String::from_utf8_lossy(&script).into_owned()))
            }
        };
        output.finish(printed)
    }
}

fn block_on<F>(work: F) -> Result<Printed, Failure>
where
    F: Future<Output = Result<Printed, Failure>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failure::own(format!("cannot start: {error}")))?.block_on(work)
}
