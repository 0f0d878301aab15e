//! Ties the parts together: listeners first, then the enclave, then traffic, and an orderly end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::link::TcpLink;
use crate::metrics::Metrics;
use crate::vm::{self, Fleet};
use crate::{Config, HostError, blobs, launch, relay};

/// Serves until SIGTERM or SIGINT, then lets open connections finish.
///
/// # Errors
/// [`HostError`]: an address is taken, the enclave cannot be launched or keeps ending.
pub async fn serve(config: Config) -> Result<(), HostError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let metrics = Arc::new(Metrics::new());
    let stop = CancellationToken::new();

    let clients = listen(config.listen, "listen").await?;
    let files = Box::new(listen(config.files_listen, "files_listen").await?);
    tokio::spawn(blobs::run(files, blobs::Content::files(&config), metrics.clone(), stop.clone()));
    if let Some(address) = config.metrics_listen {
        let page = Box::new(listen(address, "metrics_listen").await?);
        tokio::spawn(blobs::run(page, blobs::Content::Metrics, metrics.clone(), stop.clone()));
    }
    let fleet = Arc::new(match config.enclave {
        Some(address) => Fleet::of(Arc::new(TcpLink(address))),
        None => Fleet::new(config.vm.len()),
    });
    tracing::info!(listen = %config.listen, machines = config.vm.len(), files = %config.files_listen, "relaying");

    let enclave = launched(&config, &metrics, &fleet, &stop);
    let relaying = relay::run(clients, &config, fleet.clone(), metrics.clone(), stop.clone());
    tokio::pin!(enclave, relaying);
    tokio::select! {
        ended = &mut enclave => return ended,
        () = &mut relaying => return Ok(()),
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
    tracing::info!("stopping: no new connections, open ones may finish");
    stop.cancel();
    relaying.await;
    if config.launch.is_some() || !config.vm.is_empty() { enclave.await } else { Ok(()) }
}

/// Runs what the configuration launches until `stop`; for ever if it launches nothing.
async fn launched(
    config: &Config,
    metrics: &Arc<Metrics>,
    fleet: &Arc<Fleet>,
    stop: &CancellationToken,
) -> Result<(), HostError> {
    let grace = Duration::from_secs(config.grace_s);
    if let Some(launch) = &config.launch {
        return launch::supervise(launch, grace, metrics.clone(), stop.clone()).await;
    }
    if config.vm.is_empty() {
        return std::future::pending().await;
    }
    for vm in &config.vm {
        vm::verify(vm)?;
    }
    let site = vm::Site {
        runtime_dir: config.runtime_dir.clone(),
        files: blobs::Content::files(config),
        broker: config.broker.clone(),
        metrics: metrics.clone(),
        switch: Arc::default(),
        fleet: fleet.clone(),
        grace,
    };
    let lives = config.vm.iter().enumerate().map(|(at, vm)| vm::supervise(vm, at, &site, stop.clone()));
    futures_util::future::join_all(lives).await;
    Ok(())
}

async fn listen(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, HostError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => HostError::AddressInUse { address, purpose },
        _ => HostError::Listen { address, purpose, source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let error = listen(taken.local_addr().unwrap(), "listen").await.unwrap_err();
        assert!(matches!(error, HostError::AddressInUse { purpose: "listen", .. }), "{error}");
    }
}
