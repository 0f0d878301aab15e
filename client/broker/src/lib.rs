//! The model owner's side: keys, rules for evidence, and the broker that releases a model key after attestation.
//!
//! [`OwnerKeys`] is the owner's folder; [`EvidenceRules`] says by what evidence is judged; [`Releaser`] runs the owner's
//! side of flow R, whether an enclave calls the broker ([`serve`]) or the owner calls the enclave. Every release is
//! written to the [`Store`] before the key leaves.
#![forbid(unsafe_code)]

mod config;
mod error;
mod files;
mod keys;
mod release;
mod rules;
mod serve;
mod store;

pub use config::BrokerConfig;
pub use error::BrokerError;
pub use files::{read_capped, write_new_secret, write_whole};
pub use keys::{OwnerKeys, OwnerPublic};
pub use release::{EVIDENCE_DEADLINE, Release, Releaser};
pub use rules::{EvidenceRules, Judge, load_endorsements, now};
pub use serve::serve;
pub use store::{ReleaseRecord, Store};
