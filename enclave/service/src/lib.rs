//! The program inside the confidential VM: it proves what it is, gets the model key, and serves.
//!
//! The order is the safety argument:
//! 1. [`LaunchDocument`]: the only configuration; its hash is in the evidence.
//! 2. keys are drawn, and the enclave looks at its own evidence;
//! 3. the signed manifest is fetched from the host and verified under the owner's root key;
//! 4. the TLS port opens; flow S answers, and nothing else does before it;
//! 5. flow R brings the model key; the sealed files are opened, chunk by chunk, against the manifest;
//! 6. only then requests are served, each with a receipt, until the lease or the keys end.
//!
//! The host is the adversary: it sees ciphertext and the coarse log lines of this crate, which never hold a request, an
//! answer, a key or a weight.
#![forbid(unsafe_code)]

mod api;
mod document;
mod enclave;
mod error;
mod fetch;
pub mod guest;
mod keys;
mod lease;
mod load;
mod openai;
mod release;
mod serve;
mod session;
mod transport;
mod version;

pub use document::{LaunchDocument, Limits, Release};
pub use enclave::{Enclave, Options};
pub use error::EnclaveError;
pub use transport::{Address, Duplex, Listener, Stream};
