//! `adyton`: the one program for clients, model owners and auditors.
//!
//! Exit status: 0 success, 1 our fault or bad usage, 10 evidence invalid, 20 refused by policy, 30 network or service
//! unreachable, 40 integrity (sealed model, receipt).
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are not failures; if nobody reads them there is nothing to do about it.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(1) } else { ExitCode::SUCCESS };
        }
    };
    cli.run()
}
