//! The client library and the adyton command-line program.
#![forbid(unsafe_code)]
