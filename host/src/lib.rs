//! The host: everything an operator runs, and nothing that is trusted.
//!
//! It launches the enclave, carries the bytes of clients to it and back, and hands out files that are sealed or public
//! anyway. It holds no key, speaks no TLS and parses nothing that a client or the enclave says: what passes through is
//! opaque, and only sizes and times are counted. A host that lies can stop the service; it cannot read or change it.
#![forbid(unsafe_code)]

mod blobs;
pub mod check;
mod config;
mod error;
mod launch;
mod link;
mod metrics;
mod relay;
mod serve;
pub mod vm;

pub use config::{Config, Launch};
pub use error::HostError;
pub use serve::serve;
