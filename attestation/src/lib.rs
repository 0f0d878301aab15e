//! Evidence in, verdict out: the protocol and the verification logic of Adyton.
//!
//! This crate is pure: no files, no network, no clock, no threads, no randomness. Time and challenges are arguments, so
//! a verdict can be replayed from files years later. Nothing that comes from outside is believed before the step that
//! verifies it; each step consumes the last and is the only maker of the next.
//!
//! The wire formats are described byte by byte in `SPEC.md` beside this crate.
#![forbid(unsafe_code)]

pub mod commit;
pub mod cose;
pub mod wire;
