//! Model files: bytes to tensors and back.
//!
//! What: readers and writers of model files, and the plain data types that describe a network. Why: the enclave, the
//! inference core and the owner's bench must agree byte for byte on what a file means. Flow: bytes come from the caller,
//! a typed description goes out; there is no I/O here. Trust: nothing in a file is believed. Every count, shape and
//! offset is capped or checked before memory is taken for it, and a description that exists has been verified.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod dense;
pub mod encoder;
pub mod gguf;
pub mod half;
pub mod quant;
pub mod tokenizer;
