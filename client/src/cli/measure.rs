//! `adyton measure`: what a launch will measure, computed from files alone.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use adyton_attestation::commit::hash;
use adyton_attestation::measurement::measure_process;
use adyton_broker::read_capped;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, Printed};

const MAX_PROGRAM_LEN: u64 = 1 << 30;
const MAX_DOCUMENT_LEN: u64 = 64 << 10;

#[derive(Subcommand)]
pub(crate) enum MeasureCommand {
    /// An enclave program and its launch document, as the software secure processor measures them.
    Process(ProcessArgs),
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  adyton measure process --program adyton-enclave --document launch.toml >> trust.toml\n\n\
                  The text form is TOML, ready for an [evidence] table."
)]
pub(crate) struct ProcessArgs {
    /// The enclave program.
    #[arg(long, env = "ADYTON_PROGRAM")]
    program: PathBuf,
    /// The launch document.
    #[arg(long, env = "ADYTON_DOCUMENT")]
    document: PathBuf,
    /// Arguments of the program, if it gets any.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(command: &MeasureCommand) -> Result<Printed, Failure> {
    let MeasureCommand::Process(args) = command;
    let program = read_capped(&args.program, MAX_PROGRAM_LEN)?;
    let document = read_capped(&args.document, MAX_DOCUMENT_LEN)?;
    let arguments: Vec<&[u8]> = args.arguments.iter().map(|argument| argument.as_bytes()).collect();
    let measurement = hex::encode(measure_process(&program, &document, &arguments));
    let host_data = hex::encode(hash(&document));
    let text = format!("measurements = [\"{measurement}\"]\nhost_data = [\"{host_data}\"]\n");
    Ok(Printed::new(json!({ "measurement": measurement, "host_data": host_data }), text))
}
