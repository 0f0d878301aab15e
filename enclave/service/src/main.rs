//! `adyton-enclave`: runs under a launcher that measured it, and takes its configuration from the launch document only.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read as _;
use std::process::ExitCode;
use std::sync::Arc;

use adyton_attester::{Attester, SimulatorPort};
use adyton_enclave::{Enclave, EnclaveError, Options, guest};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Where a launcher leaves the simulator's port and the launch document.
const PORT_FD: i32 = 3;
const DOCUMENT_FD: &str = "/proc/self/fd/4";
const MAX_DOCUMENT_LEN: u64 = (64 << 10) + 1;

fn main() -> ExitCode {
    let init = guest::is_init();
    if init && guest::begin().is_err() {
        guest::power_off();
    }
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    // A panic message may quote data; where it happened is enough.
    std::panic::set_hook(Box::new(move |info| {
        match info.location() {
            Some(at) => tracing::error!("panic at {}:{}", at.file(), at.line()),
            None => tracing::error!("panic"),
        }
        // A machine of its own does not go on with a broken invariant.
        if init {
            guest::power_off();
        }
    }));
    let ended = if init { guest::serve() } else { run() };
    if let Err(error) = &ended {
        tracing::error!("{error}");
    }
    if init {
        guest::power_off();
    }
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run() -> Result<(), EnclaveError> {
    // No core file ever holds a key, and no other process of the same user reads this one's memory.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(std::io::Error::from)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(std::io::Error::from)?;
    let (document, attester) = launched()?;
    let enclave = Enclave::new(&document, attester, Options::default())?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let stop = CancellationToken::new();
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stopping = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => (),
                _ = interrupt.recv() => (),
            }
            stopping.cancel();
        });
        enclave.run(stop).await
    })
}

/// What the launcher left: the document and the way to evidence.
fn launched() -> Result<(Vec<u8>, Arc<dyn Attester>), EnclaveError> {
    let document = File::open(DOCUMENT_FD).map_err(|_| {
        EnclaveError::Document(
            "there is none: this program runs under a launcher (`adyton-simulator launch`) or as the first of a guest image".into(),
        )
    })?;
    let port = SimulatorPort::inherited(PORT_FD).map_err(adyton_attester::AttestError::from)?;
    Ok((read(document)?, Arc::new(port)))
}

fn read(file: File) -> Result<Vec<u8>, EnclaveError> {
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT_LEN).read_to_end(&mut bytes)?;
    Ok(bytes)
}
