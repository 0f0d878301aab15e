//! The launch document: everything an operator may decide about an enclave, and all of it visible in the evidence.
//!
//! Its SHA-256 is SNP `HOST_DATA` (or the head of TDX `MRCONFIGID`), so clients and owners know these very bytes. There
//! is no other configuration: no environment, no arguments, no files.

use adyton_attestation::commit::{Digest, hash};
use adyton_language::LanguageLimits;
use serde::Deserialize;

use crate::EnclaveError;
use crate::transport::Address;

/// Longest launch document, bytes.
pub(crate) const MAX_DOCUMENT_LEN: usize = 64 << 10;
const MAX_THREADS: usize = 1024;
const MAX_LANGUAGE_LIMIT: usize = 1 << 30;

/// The parsed launch document (TOML; unknown keys are errors).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchDocument {
    /// Version of this format: 1.
    version: u32,
    /// Name of the service, shown in the key set.
    pub service_id: String,
    /// The model owner's root key, 64 hexadecimal digits.
    #[serde(deserialize_with = "hex32")]
    pub owner_root: Digest,
    /// Where the enclave listens for TLS.
    pub listen: Address,
    /// Where the host hands out manifest and sealed files.
    pub files: Address,
    /// How the model key arrives.
    pub release: Release,
    /// Bounds on what clients may use.
    #[serde(default)]
    pub limits: Limits,
    /// Bounds of a language model, where one is served.
    #[serde(default)]
    pub language: LanguageLimits,
}

/// How the model key arrives (SPEC, section 6).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, tag = "direction", rename_all = "lowercase")]
pub enum Release {
    /// The enclave calls the owner's broker.
    Pull {
        /// Where the broker is, or the port at which the host reaches it.
        broker: Address,
        /// SPKI hash of the broker's TLS key, 64 hexadecimal digits.
        #[serde(deserialize_with = "hex32")]
        broker_spki: Digest,
    },
    /// The owner calls the enclave.
    Push {},
}

/// Bounds on what clients may use.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once.
    pub max_connections: usize,
    /// Bytes of one request.
    pub max_request_bytes: usize,
    /// Bytes of all requests held at once; more wait, and are refused after a while.
    pub max_buffered_bytes: usize,
    /// Rows of one prediction.
    pub max_rows: usize,
    /// Predictions computed at once.
    pub max_parallel: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 512,
            max_request_bytes: 16 << 20,
            max_buffered_bytes: 256 << 20,
            max_rows: 65_536,
            max_parallel: 2,
        }
    }
}

fn hex32<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
    let text = String::deserialize(deserializer)?;
    let mut digest = [0; 32];
    hex::decode_to_slice(&text, &mut digest)
        .map_err(|_| serde::de::Error::custom("expected 64 hexadecimal digits"))?;
    Ok(digest)
}

impl LaunchDocument {
    /// Parses the bytes the platform handed over, and hashes them.
    ///
    /// # Errors
    /// [`EnclaveError::Document`] with line and key.
    pub fn parse(bytes: &[u8]) -> Result<(Self, Digest), EnclaveError> {
        let wrong = |message: String| EnclaveError::Document(message);
        if bytes.len() > MAX_DOCUMENT_LEN {
            return Err(wrong(format!("{} bytes are more than the {MAX_DOCUMENT_LEN} allowed", bytes.len())));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
        let document: Self = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if document.version != 1 {
            return Err(wrong(format!("version {} is unknown, this program knows 1", document.version)));
        }
        if document.service_id.is_empty() || document.service_id.len() > 64 {
            return Err(wrong("service_id must have 1 to 64 bytes".into()));
        }
        let Limits { max_connections, max_request_bytes, max_buffered_bytes, max_rows, max_parallel } =
            document.limits;
        let LanguageLimits { threads, positions, running, waiting, max_tokens, kv: _, long_context: _ } =
            document.language;
        let language = [threads.unwrap_or(1), positions, running, waiting, max_tokens];
        let limits = [max_connections, max_request_bytes, max_buffered_bytes, max_rows, max_parallel];
        if limits.contains(&0) || language.contains(&0) {
            return Err(wrong(
                "a limit of 0 would refuse everything; leave the key out for the default".into(),
            ));
        }
        if language.iter().any(|limit| *limit > MAX_LANGUAGE_LIMIT)
            || threads.is_some_and(|n| n > MAX_THREADS)
        {
            return Err(wrong(format!(
                "[language] takes at most {MAX_THREADS} threads, and {MAX_LANGUAGE_LIMIT} of everything else"
            )));
        }
        if max_buffered_bytes < max_request_bytes || u32::try_from(max_request_bytes).is_err() {
            return Err(wrong(
                "max_request_bytes must be below 4 GiB and not above max_buffered_bytes".into(),
            ));
        }
        Ok((document, hash(bytes)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const PUSH: &str = "version = 1\nservice_id = 'digits'\nlisten = '127.0.0.1:0'\nfiles = '127.0.0.1:1'\n\
        owner_root = '0101010101010101010101010101010101010101010101010101010101010101'\n[release]\ndirection = 'push'\n";

    #[test]
    fn the_hash_is_over_the_bytes_and_the_minimum_is_enough() {
        let (document, digest) = LaunchDocument::parse(PUSH.as_bytes()).unwrap();
        assert_eq!(document.limits.max_parallel, 2);
        assert_eq!(digest, hash(PUSH.as_bytes()));
    }

    #[test]
    fn unknown_keys_versions_and_zero_limits_are_named() {
        let wrong = |text: &str| LaunchDocument::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(wrong(&PUSH.replace("version = 1", "version = 2")).contains("version 2"));
        assert!(wrong(&format!("debug = true\n{PUSH}")).contains("debug"));
        assert!(wrong(&format!("{PUSH}[limits]\nmax_rows = 0\n")).contains("limit of 0"));
        assert!(wrong(&format!("{PUSH}[language]\nrunning = 0\n")).contains("limit of 0"));
        assert!(wrong(&format!("{PUSH}[language]\nkv = 'q4'\n")).contains("q4"));
        assert!(wrong(&format!("{PUSH}[language]\nthreads = 1025\n")).contains("1024 threads"));
        assert!(wrong(&format!("{PUSH}[language]\npositions = 2000000000\n")).contains("1073741824"));
        assert!(wrong(&format!("{PUSH}[limits]\nmax_buffered_bytes = 1\n")).contains("max_buffered_bytes"));
        assert!(wrong(&PUSH.replace("'push'", "'pull'")).contains("broker"));
        assert!(wrong(&PUSH.replace("0101'", "01'")).contains("64 hexadecimal"));
        assert!(LaunchDocument::parse(&vec![b'#'; MAX_DOCUMENT_LEN + 1]).is_err());
        assert!(LaunchDocument::parse(b"\xff").is_err());
    }
}
