//! What can go wrong in the enclave, by who is at fault. No variant holds anything secret.

use std::io;

use adyton_attestation::Rejected;
use adyton_attestation::cose::SignedError;
use adyton_attestation::release::ReleaseError;
use adyton_attester::AttestError;
use adyton_channel::ChannelError;
use adyton_channel::http::CallError;
use adyton_language::LoadError;
use adyton_model::dense::DenseError;
use adyton_vault::OpenError;
use adyton_vault::hidden::HiddenError;
use adyton_vault::wrap::WrapError;

/// Why the enclave cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnclaveError {
    /// The launch document does not parse, or holds a key that does not exist.
    #[error("launch document: {0}")]
    Document(String),
    /// The machine is not as the only program of a VM wants it.
    #[error("this machine: {0}")]
    Guest(String),
    /// The platform gave no evidence.
    #[error("no evidence from the platform: {0}")]
    Attest(#[from] AttestError),
    /// The enclave's own evidence shows a wrong launch.
    #[error("launched wrongly: {0}")]
    OwnEvidence(#[from] Rejected),
    /// The kernel gave no randomness.
    #[error("no randomness: {0}")]
    Entropy(#[from] getrandom::Error),
    /// TLS cannot be set up.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address of the launch document.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The host does not hand out a file.
    #[error("the host does not hand out {what}: {reason}")]
    Fetch {
        /// What was asked for.
        what: &'static str,
        /// Status or reason.
        reason: String,
    },
    /// The manifest is not the owner's.
    #[error("the manifest does not verify under the owner's key: {0}")]
    Manifest(#[from] SignedError),
    /// The manifest asks for something this program is not.
    #[error("the manifest cannot be served: {0}")]
    Unservable(&'static str),
    /// The model cannot be served as a language model.
    #[error("the manifest cannot be served: {0}")]
    Language(#[from] LoadError),
    /// The broker cannot be reached or broke off.
    #[error("key release: {0}")]
    Call(#[from] CallError),
    /// The broker refused.
    #[error("the broker refused to release the key ({0}); its log has the steps")]
    Refused(String),
    /// A message of the release is wrong.
    #[error("key release: {0}")]
    Release(#[from] ReleaseError),
    /// The released key does not open.
    #[error("key release: {0}")]
    Wrap(#[from] WrapError),
    /// The released key is not the manifest's.
    #[error("the released key does not open the manifest: {0}")]
    Hidden(#[from] HiddenError),
    /// A sealed file was refused.
    #[error("sealed model refused: {0}")]
    Open(#[from] OpenError),
    /// The plaintext is not a model this program can run.
    #[error("the model cannot be run: {0}")]
    Model(#[from] DenseError),
    /// A system service is not available.
    #[error("system error: {0}")]
    System(#[from] io::Error),
}
