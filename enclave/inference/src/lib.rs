//! The inference core: slices in, numbers out.
//!
//! What: forward passes over verified model descriptions. Why: the one place where arithmetic on weights and inputs
//! happens, small enough to be read. Flow: a description from `adyton-model` becomes a network once; rows go through it
//! many times. There is no I/O, no thread, no log and no clock here. Trust: the description was verified by its maker;
//! rows come from strangers and are looked at before use.

pub mod arch;
pub mod dense;
pub mod encoder;
pub mod lm;
pub mod tokenizer;
