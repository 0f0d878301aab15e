//! What can go wrong in the simulator.

use std::path::PathBuf;

/// An error of the simulator. No key material is ever in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulatorError {
    /// A file could not be read or written.
    #[error("{path}: {source}; name a directory that this user may write")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The directory holds no complete root.
    #[error("{0} is missing: run `adyton-simulator setup` on this directory first")]
    NotSetUp(PathBuf),
    /// A certificate is there whose key is gone.
    #[error("{0} is there without its key: delete the directory and set it up again")]
    KeyLost(PathBuf),
    /// A key file does not hold a key.
    #[error("{0} does not hold a key of the expected kind: delete the directory and set it up again")]
    KeyFile(PathBuf),
    /// A key could not be made or used.
    #[error("the cryptographic library failed to {0}")]
    Crypto(&'static str),
    /// A firmware cannot be made into one for tests.
    #[error("this firmware cannot be used: {0}; give a distribution's OVMF.fd")]
    Firmware(&'static str),
    /// What is to be launched has no measurement.
    #[error("cannot measure the machine: {0}")]
    Measure(String),
    /// The guest could not be prepared or started.
    #[error("cannot {action}: {source}")]
    Launch {
        /// What was attempted.
        action: &'static str,
        /// The cause.
        source: std::io::Error,
    },
}

impl SimulatorError {
    pub(crate) fn launch(action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Launch { action, source }
    }
}
