//! The model owner's key broker: release after attestation.
#![forbid(unsafe_code)]
