//! The vault: sealed model files, key wrapping, and secrets in memory.
//!
//! A model leaves its owner only as sealed files: encrypted and authenticated chunk by chunk under keys that follow
//! from one KEK. The KEK reaches an attested enclave wrapped under a key made there ([`wrap`]), and opens the files
//! there ([`open`]). This crate does no network I/O and knows no TEE; who may have the KEK is decided elsewhere.
//!
//! - Owner: [`Kek::generate`], [`seal_file`], and the [`SealedFile`] it returns goes into the signed manifest.
//! - Release: [`wrap::generate`] in the enclave, [`release::seal_for_release`] at the broker, and
//!   [`release::open_for_release`] in the enclave again.
//! - Enclave: [`open_file`] or [`Opener`], which hand out [`Plaintext`] when all of it is proven.
//!
//! The format, byte by byte, is in [`header`], [`chunk`] and [`recipients`]; keys in `keys.rs`; the root in [`merkle`].
//! Trusted are the caller's KEK and the manifest whose signature it verified; a sealed file is never trusted.
#![forbid(unsafe_code)]

pub mod chunk;
pub mod header;
pub mod hidden;
mod keys;
mod memory;
pub mod merkle;
pub mod open;
pub mod recipients;
pub mod release;
pub mod seal;
mod seal_file;
mod secret;
mod workers;
pub mod wrap;

pub use header::{Header, Suite};
pub use keys::model_binding;
pub use memory::Plaintext;
pub use open::{FileClaims, OpenError, Opener, open_file};
pub use recipients::RecipientKey;
pub use seal::{SealError, SealParams, SealedFile, readdress, seal_stream};
pub use seal_file::seal_file;
pub use secret::{Kek, Secret, SecretError, constant_time_eq};
