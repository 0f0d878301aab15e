//! What can go wrong on the host, each with what to do about it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the host cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration {path}: {source}; pass its path with --config")]
    ReadConfig {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The configuration file does not parse, or holds a key that does not exist.
    #[error("configuration {path} is wrong: {message}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Line, key and reason.
        message: String,
    },
    /// An address is taken.
    #[error(
        "address {address} ({purpose}) is already in use; stop the program that uses it or configure another"
    )]
    AddressInUse {
        /// The address.
        address: SocketAddr,
        /// What it was wanted for.
        purpose: &'static str,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({purpose}): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What it was wanted for.
        purpose: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A folder or program the configuration names is missing.
    #[error("{purpose} {path} does not exist; correct the configuration or create it")]
    Missing {
        /// What it is for.
        purpose: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// The enclave cannot be launched.
    #[error("cannot launch the enclave ({program}): {source}")]
    Launch {
        /// The launcher.
        program: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A virtual machine is configured wrongly, or does not run.
    #[error("vm {name}: {message}")]
    Vm {
        /// Its name.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// An image is not what it says.
    #[error("image {path}: {message}; build it again with scripts/image")]
    Image {
        /// Its description.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A firmware would boot what nobody measured.
    #[error("firmware {path}: {message}")]
    Firmware {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The enclave keeps ending by itself.
    #[error("the enclave ended {times} times within a minute, last with {status}; see its messages above")]
    CrashLoop {
        /// How often.
        times: u32,
        /// The last exit status.
        status: String,
    },
    /// Signal handling or another system service is not available.
    #[error("system error: {0}")]
    System(#[from] io::Error),
}
