//! `adyton broker`: the owner's key broker.

use std::path::PathBuf;

use adyton_broker::{BrokerConfig, serve};
use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, Printed};

#[derive(Subcommand)]
pub(crate) enum BrokerCommand {
    /// Release the key of a model to enclaves that prove what they are, until SIGTERM.
    #[command(after_help = "Example:\n  adyton broker serve --config broker.toml")]
    Serve {
        /// Configuration (TOML); paths in it are relative to it.
        #[arg(long, env = "ADYTON_BROKER_CONFIG", default_value = "broker.toml")]
        config: PathBuf,
    },
}

pub(crate) async fn run(command: &BrokerCommand) -> Result<Printed, Failure> {
    let BrokerCommand::Serve { config: path } = command;
    let filter = tracing_subscriber::EnvFilter::try_from_env("ADYTON_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
    let config = BrokerConfig::read(path)?;
    let stop = CancellationToken::new();
    let system = |error: std::io::Error| Failure::own(format!("cannot wait for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
        stopping.cancel();
    });
    serve(&config, path, stop).await?;
    Ok(Printed::text("stopped\n"))
}
