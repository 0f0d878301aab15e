//! The enclave as the only program of a VM: what PID 1 has to do before and beside serving.
//!
//! In order: the file systems of the kernel; the one console; what the kernel was told, compared with the few words it
//! may be told; limits and memory; randomness; the filter of system calls; and only then the first byte of the host, the
//! launch document. Its hash has to be in the evidence, or the enclave refuses its own launch.
//!
//! Whatever goes wrong here or later ends the machine: a guest that is half alive proves nothing to anybody, and
//! starting it again is the host's business.

mod cmdline;
mod confine;
mod mounts;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adyton_attester::{Attester, Candidates, detect, entropy};
use rustix::system::{RebootCommand, reboot};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::document::MAX_DOCUMENT_LEN;
use crate::transport::Address;
use crate::{Enclave, EnclaveError, Options};

/// Port of the host at which the launch document is read.
pub const DOCUMENT_PORT: u32 = 7001;
/// Port of the guest at which any connection asks it to stop. The host could as well cut the power.
pub const STOP_PORT: u32 = 7005;

const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Whether this process is the first one of a VM: a container's first process has a parent's world around it, which
/// shows in what is mounted.
#[must_use]
pub fn is_init() -> bool {
    rustix::process::getpid().is_init() && !Path::new("/proc/self").exists()
}

/// Mounts what the kernel offers and turns standard output and error to the console. Before this nothing can be said.
///
/// # Errors
/// The system's reason; [`power_off`] is all that can be done then.
pub fn begin() -> io::Result<()> {
    mounts::mount_all()?;
    mounts::open_console()
}

/// Serves until the host asks to stop. Returns only with the reason to end the machine.
///
/// # Errors
/// [`EnclaveError`]: what the kernel was told is not allowed, no randomness, no evidence, or whatever ends an enclave.
pub fn serve() -> Result<(), EnclaveError> {
    let refuse = |what: String| EnclaveError::Guest(what);
    let told = fs::read_to_string("/proc/cmdline")?;
    cmdline::allowed(&told, std::env::args().skip(1), std::env::vars_os()).map_err(refuse)?;
    confine::limits()?;
    entropy::seed_kernel(Path::new(entropy::POOL)).map_err(|error| refuse(error.to_string()))?;
    let attester: Arc<dyn Attester> =
        Arc::from(detect(&Candidates::default()).map_err(|none| refuse(none.to_string()))?);
    mounts::seal()?;
    confine::privileges()?;
    confine::system_calls()?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), platform = %attester.platform(), "first program of this machine, confined");
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn(reap());
        let listener = Address::Vsock(STOP_PORT).listen().await?;
        let asked = stop.clone();
        tokio::spawn(async move {
            listener.next(std::future::pending()).await;
            tracing::info!("asked to stop");
            asked.cancel();
        });
        let document = document().await?;
        Enclave::new(&document, attester, Options::default())?.run(stop).await
    })
}

/// Ends the machine.
pub fn power_off() -> ! {
    // If even that is refused, the end of the first program stops the kernel.
    let _ = reboot(RebootCommand::PowerOff);
    std::process::abort()
}

/// Reads the launch document, waiting for a host that is not ready. Who sends it is nobody to be trusted: its hash is
/// compared with the evidence before anything is done with it but parsing.
async fn document() -> Result<Vec<u8>, EnclaveError> {
    let mut pause = FIRST_PAUSE;
    loop {
        match timeout(DOCUMENT_TIMEOUT, read_document()).await {
            Ok(Ok(bytes)) => return Ok(bytes),
            Ok(Err(error)) => tracing::warn!("waiting for the launch document: {error}"),
            Err(_) => tracing::warn!("waiting for the launch document: the host sends nothing"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn read_document() -> io::Result<Vec<u8>> {
    let stream = Address::Vsock(DOCUMENT_PORT).connect().await?;
    let mut bytes = Vec::new();
    // One byte more than allowed, so that a longer one is refused and not cut.
    stream.take(MAX_DOCUMENT_LEN as u64 + 1).read_to_end(&mut bytes).await?;
    if bytes.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}

/// Takes leave of processes whose parent is gone, which are the first program's. There should never be any.
async fn reap() {
    let Ok(mut ended) = signal(SignalKind::child()) else { return };
    while ended.recv().await.is_some() {
        while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
    }
}
