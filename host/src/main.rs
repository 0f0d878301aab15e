//! `adyton-host`: the operator's program.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use adyton_host::{Config, HostError, check, serve, vm};
use clap::{CommandFactory as _, Parser, Subcommand};

/// The untrusted host of an Adyton enclave: launches it, relays ciphertext, hands out sealed files.
#[derive(Parser)]
#[command(name = "adyton-host", version, after_help = "Example:\n  adyton-host serve --config host.toml")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Relay clients to the enclave until SIGTERM.
    #[command(after_help = "Example:\n  adyton-host serve --config host.toml")]
    Serve {
        /// Configuration file (TOML); paths in it are relative to it.
        #[arg(long, env = "ADYTON_HOST_CONFIG", default_value = "host.toml")]
        config: PathBuf,
    },
    /// Say what this machine can do and what is missing, line by line; exit status 1 if it cannot do what is configured.
    #[command(after_help = "Example:\n  adyton-host check --config host.toml")]
    Check {
        /// Configuration whose machines are looked at too.
        #[arg(long, env = "ADYTON_HOST_CONFIG")]
        config: Option<PathBuf>,
    },
    /// Become another program that ends with its parent; `serve` starts its machines this way.
    #[command(hide = true)]
    Tied {
        /// Process id of the parent.
        parent: u32,
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        line: Vec<OsString>,
    },
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  adyton-host completions bash > /etc/bash_completion.d/adyton-host")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("ADYTON_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match run(Cli::parse().command) {
        Ok(status) => status,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, HostError> {
    match command {
        Command::Serve { config } => {
            let config = Config::read(&config)?;
            tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(config))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Tied { parent, line } => Ok(vm::tied(parent, &line).map(|never| match never {})?),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "adyton-host", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { config } => {
            let config = config.map(|path| Config::read(&path)).transpose()?;
            Ok(report(config.as_ref()))
        }
    }
}

/// Prints what was found; a reader that goes away needs no more of it.
fn report(config: Option<&Config>) -> ExitCode {
    let (mut lines, abilities) = check::machine(&check::Machine::default());
    let configured = config.map(|config| check::configuration(config, &abilities)).unwrap_or_default();
    let good = if configured.is_empty() {
        abilities.iter().any(|(_, able)| *able)
    } else {
        configured.iter().all(|line| line.ok)
    };
    lines.extend(configured);
    let mut out = std::io::stdout();
    for line in lines {
        let _ = writeln!(out, "{:8} {}: {}", if line.ok { "ok" } else { "missing" }, line.what, line.detail);
    }
    for (platform, able) in abilities {
        let _ = writeln!(out, "{:8} {platform}", if able { "can" } else { "cannot" });
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
