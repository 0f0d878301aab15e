//! The guest image: what goes into it, what is written beside it, and what differs between two.
//!
//! [`newc`] writes the initramfs, [`description`] the `image.toml` that launcher and verifier read, [`materials`] the
//! software bill of materials, and [`compare`] says where two images differ. Nothing here is trusted: a wrong image is
//! one that measures differently.
#![forbid(unsafe_code)]

pub mod compare;
pub mod description;
pub mod materials;
pub mod newc;

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// Why an image cannot be put together or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The initramfs cannot be written.
    #[error("initramfs: {0}")]
    Initramfs(String),
    /// A file is not what it should be.
    #[error("{path}: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// Reads a whole file.
///
/// # Errors
/// [`ImageError::File`].
pub fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    std::fs::read(path).map_err(|source| ImageError::File { path: path.to_owned(), source })
}

/// Writes a whole file.
///
/// # Errors
/// [`ImageError::File`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    std::fs::write(path, bytes).map_err(|source| ImageError::File { path: path.to_owned(), source })
}

/// SHA-256 in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
