//! What can go wrong on the owner's side, each with what to do about it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use adyton_attestation::Rejected;
use adyton_attestation::cose::SignedError;
use adyton_attestation::release::ReleaseError;

/// Why the owner's side cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {source}; nothing was left under that name")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file exists that must not be overwritten.
    #[error("{path} exists and would be lost; choose another folder or move it away")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file is longer than a file of its kind can be.
    #[error("{path} is longer than {max} bytes; it is not what it should be")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Bytes allowed.
        max: u64,
    },
    /// A key file does not hold a key of its kind.
    #[error("{path} does not hold {what}; make the owner's keys again with `adyton key new`")]
    BadKey {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
    },
    /// A configuration file does not parse, or holds a key that does not exist.
    #[error("{path} is wrong: {message}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Line, key and reason.
        message: String,
    },
    /// A configured root or endorsement is not acceptable.
    #[error("configured trust anchor is refused: {0}")]
    Anchor(#[source] Rejected),
    /// Collateral in an endorsements folder is malformed or not whole.
    #[error("TDX collateral is refused: {0}")]
    Collateral(#[source] Rejected),
    /// The manifest is not the owner's.
    #[error("the manifest does not verify under the owner's key: {0}")]
    Manifest(#[from] SignedError),
    /// The model asked for is not one this side holds a key for.
    #[error("no key is held for the model that was asked for")]
    UnknownModel,
    /// The manifest names another release policy than the configuration.
    #[error(
        "the manifest is for release policy {manifest:?}, the configuration applies {configured:?}; seal with --policy-id {configured:?} or correct policy_id"
    )]
    Policy {
        /// Named by the owner when sealing.
        manifest: String,
        /// Named by the configuration.
        configured: String,
    },
    /// A newer version was released before.
    #[error(
        "manifest counter {got} is older than {floor}, which was released before; publish a newer version"
    )]
    Rollback {
        /// The counter of the manifest.
        got: u64,
        /// The least counter accepted.
        floor: u64,
    },
    /// The exchange failed or the evidence was refused.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// The key could not be wrapped.
    #[error("the enclave's key cannot be used: {0}")]
    Wrap(#[from] adyton_vault::wrap::WrapError),
    /// The database failed.
    #[error("the broker's database failed: {0}")]
    Store(#[from] rusqlite::Error),
    /// No randomness.
    #[error("the system gives no randomness: {0}")]
    Entropy(#[from] getrandom::Error),
    /// TLS cannot be set up.
    #[error(transparent)]
    Channel(#[from] adyton_channel::ChannelError),
    /// An address is taken.
    #[error("address {0} is already in use; stop the program that uses it or configure another")]
    AddressInUse(SocketAddr),
    /// A system service is not available.
    #[error("system error: {0}")]
    System(#[from] io::Error),
}
