//! Evidence in, verdict out: the protocol and verification logic of Adyton, without I/O.
#![forbid(unsafe_code)]
