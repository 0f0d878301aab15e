//! The inference core: slices in, numbers out.
//!
//! What: forward passes over verified model descriptions. Why: the one place where arithmetic on weights and inputs
//! happens, small enough to be read. Flow: a description from `adyton-model` becomes a network once; rows go through it
//! many times. Language models and encoders are read through a `Source`, packed once, and then compute batches of tokens.
//! There is no I/O, no log and no clock here; threads belong to `arch::Pool`. Trust: the description was verified by its
//! maker; rows, tokens and texts come from strangers and are looked at before use.
#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "kernels: the fence")]
pub mod arch;
pub mod chat;
pub mod dense;
pub mod encoder;
mod encoder_files;
mod idle;
pub mod lm;
pub mod tokenizer;
