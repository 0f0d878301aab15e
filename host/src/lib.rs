//! The untrusted host: launches the enclave, relays opaque bytes, serves sealed files.
#![forbid(unsafe_code)]
