//! TDX quotes through Intel's `libtdx_attest`, for guests whose quotes come over vsock. Feature `tdx-attest-rs`.
//!
//! Off by default, and not tried by [`crate::detect`]: [`crate::ConfigfsTsm`] needs no C library and serves every guest
//! kernel from 6.7 on. Building with the feature needs libclang and Intel's headers, linking needs the library; see
//! `docs/decisions/0002-tdx-attest-rs.md`.

use crate::{AttestError, Attester, MAX_REPORT_LEN, Platform, RawEvidence};
use tdx_attest_rs::{tdx_att_get_quote, tdx_report_data_t};

/// Why the library gave no quote.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TdxAttestError {
    /// The library's error code, `tdx_attest_error_t`.
    #[error("the library refused with {code:#x}: {meaning}")]
    Refused {
        /// Its error code.
        code: u32,
        /// What it means, and what to do.
        meaning: &'static str,
    },
    /// Success without a quote, or a quote beyond the cap.
    #[error("the library gave no quote of a plausible size: update it")]
    NoQuote,
}

/// Intel's library.
#[derive(Debug, Default, Clone, Copy)]
pub struct TdxAttest;

impl Attester for TdxAttest {
    fn attest(&self, report_data: &[u8; 64]) -> Result<RawEvidence, AttestError> {
        let (error, quote) = tdx_att_get_quote(Some(&tdx_report_data_t { d: *report_data }), None, None, 0);
        let code = error as u32;
        if code != 0 {
            return Err(TdxAttestError::Refused { code, meaning: meaning(code) }.into());
        }
        let report = quote.filter(|quote| quote.len() <= MAX_REPORT_LEN).ok_or(TdxAttestError::NoQuote)?;
        RawEvidence { platform: Platform::Tdx, report, certificate_table: Vec::new() }
            .expect_report_data(report_data)
    }

    fn name(&self) -> &'static str {
        "tdx-attest-rs"
    }

    fn platform(&self) -> Platform {
        Platform::Tdx
    }
}

/// `tdx_attest_error_t` of `tdx_attest.h`.
fn meaning(code: u32) -> &'static str {
    match code {
        0x03 => "no memory left",
        0x04 => "no connection to the quoting service: the host must run it, and vsock must be allowed",
        0x05 => "the TD report failed: this is no TDX guest, or the module tdx-guest is not loaded",
        0x08 => "the quote failed: the host's quoting service refused it",
        0x09 => "the device is busy: try again later",
        0x0a => "the device failed: is /dev/tdx_guest there and ours to use?",
        _ => "see tdx_attest.h",
    }
}
