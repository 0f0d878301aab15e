//! What can go wrong for a client, by who is at fault.

use std::path::PathBuf;

use adyton_attestation::Rejected;
use adyton_broker::BrokerError;
use adyton_channel::http::CallError;

/// Why a client does not go on. Nothing was sent after the failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is not `host:port` or a URL of one.
    #[error("{0:?} is not an address; write host:port or https://host:port")]
    Address(String),
    /// The trust file does not parse.
    #[error("{path} is wrong: {message}")]
    Trust {
        /// The file.
        path: PathBuf,
        /// Line, key and reason.
        message: String,
    },
    /// A file, key or rule of this side cannot be used.
    #[error(transparent)]
    Own(#[from] BrokerError),
    /// The service cannot be reached, or the connection was lost.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The enclave is not one this client accepts.
    #[error("nothing was sent: {0}")]
    Rejected(#[from] Rejected),
    /// The service refused to attest or to answer.
    #[error("the service answered with status {status}: {message}")]
    Status {
        /// HTTP status.
        status: u16,
        /// The service's sentence, shortened.
        message: String,
    },
    /// The receipt of an answer is missing or is for something else. The answer is not to be used.
    #[error("the receipt does not verify: {0}; the answer is discarded")]
    Receipt(&'static str),
    /// The session's time is over.
    #[error("the session is over; connect and verify again")]
    SessionOver,
    /// The answer is not of the form that was asked for.
    #[error("the answer is malformed: {0}")]
    Answer(&'static str),
    /// A saved receipt file does not parse.
    #[error("{path} is not a receipt file: {message}")]
    ReceiptFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The enclave did not take the pushed key.
    #[error("the enclave did not take the key: {0}")]
    Provision(String),
}

impl From<getrandom::Error> for ClientError {
    fn from(error: getrandom::Error) -> Self {
        Self::Own(error.into())
    }
}
