//! TLS 1.3 as both ends of an Adyton session speak it.
#![forbid(unsafe_code)]
