//! Obtains Evidence from the platform: the only crate of the enclave that talks to a device.
//!
//! An [`Attester`] hands 64 bytes of report data to the hardware and returns what the hardware signed, unparsed and
//! unjudged. Three ways, each an [`Attester`] of its own:
//! - [`ConfigfsTsm`]: the kernel's configfs-tsm reports (Linux 6.7 and later), one interface for SNP and TDX;
//! - [`SevGuest`]: the older `/dev/sev-guest`, SNP only;
//! - [`SimulatorPort`]: a secure processor in software at the other end of a Unix socket, for development and tests.
//!   It is never chosen by [`detect`], only by name, and what it returns says [`Platform::Simulated`].
//!
//! Trusted: the guest's kernel, which was measured. Not trusted: the host, which makes the certificate table and decides
//! whether there is an answer at all. So everything read has a cap, every wait an end, and the report must carry the
//! report data that was asked for (see [`RawEvidence::expect_report_data`]); whether it is genuine is for the verifier.
//!
//! Beside Evidence, [`entropy`] brings randomness from the processor. Unsafe code is allowed in `sev_guest/ioctl.rs`,
//! `entropy/cpu.rs` and `entropy/pool.rs` alone, for the one call or instruction that needs it.
#![deny(unsafe_code)]

pub mod configfs_tsm;
mod detect;
pub mod entropy;
mod error;
pub mod sev_guest;
pub mod simulator_port;
#[cfg(feature = "tdx-attest-rs")]
pub mod tdx_attest;

pub use adyton_attestation::Platform;
pub use configfs_tsm::ConfigfsTsm;
pub use detect::{Candidates, NoAttester, detect};
pub use error::AttestError;
pub use sev_guest::SevGuest;
pub use simulator_port::SimulatorPort;

use std::io::{self, Read};

/// Size of an SNP attestation report; SEV-SNP firmware ABI 1.58, Table 23.
pub const SNP_REPORT_LEN: usize = 1184;
/// Largest report or quote accepted. A TDX quote has 5 to 8 KiB; the kernel's own limit was 32 KiB for long.
pub const MAX_REPORT_LEN: usize = 64 * 1024;
/// Largest certificate table accepted. The kernel's own limit for it is 16 KiB.
pub const MAX_CERTIFICATE_TABLE_LEN: usize = 64 * 1024;

/// What the platform gave: signed by the hardware, we hope; nobody has looked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEvidence {
    /// The platform, by the interface it came from.
    pub platform: Platform,
    /// SNP report (1184 bytes) or TDX quote.
    pub report: Vec<u8>,
    /// SNP certificate table (GHCB 2.0, SNP Extended Guest Request) as the host gave it; empty if it gave none.
    pub certificate_table: Vec<u8>,
}

impl RawEvidence {
    /// Makes sure that the report carries the report data asked for, which a lost race for the device would break.
    ///
    /// # Errors
    /// [`AttestError::OtherReportData`]; [`AttestError::ReportLength`] if the report is too short to carry any, or is an
    /// SNP report of another size than the firmware makes.
    pub fn expect_report_data(self, report_data: &[u8; 64]) -> Result<Self, AttestError> {
        if self.platform != Platform::Tdx && self.report.len() != SNP_REPORT_LEN {
            return Err(AttestError::ReportLength { got: self.report.len() });
        }
        let at = self.report_data_at();
        match self.report.get(at..at + 64) {
            None => Err(AttestError::ReportLength { got: self.report.len() }),
            Some(got) if got != report_data => Err(AttestError::OtherReportData),
            Some(_) => Ok(self),
        }
    }

    fn report_data_at(&self) -> usize {
        match (self.platform, self.report.get(..2)) {
            // REPORTDATA, 64 bytes at 520 of the TD report body; the body follows the 48-byte header of a version 4
            // quote, and 6 bytes of type and size in a version 5 quote. Intel TDX DCAP Quoting Library API, appendix A.3.
            (Platform::Tdx, Some([5, 0])) => 48 + 6 + 520,
            (Platform::Tdx, _) => 48 + 520,
            // REPORT_DATA, 64 bytes at 0x050; SEV-SNP firmware ABI 1.58, Table 23.
            _ => 0x50,
        }
    }
}

/// A source of Evidence.
pub trait Attester: Send + Sync {
    /// Asks for a report over `report_data`.
    ///
    /// # Errors
    /// [`AttestError`], with what to do about it. Nothing is returned that does not carry `report_data`.
    fn attest(&self, report_data: &[u8; 64]) -> Result<RawEvidence, AttestError>;

    /// Short name for logs: the interface, not the machine.
    fn name(&self) -> &'static str;

    /// The platform whose Evidence this gives.
    fn platform(&self) -> Platform;
}

/// Reads to the end, but no more than `cap` bytes: the size of what comes is the host's choice.
fn read_capped(reader: impl Read, cap: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(cap as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > cap {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {cap} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_data_is_looked_for_where_each_format_has_it() {
        let want: [u8; 64] = std::array::from_fn(|i| u8::try_from(i).unwrap() + 1);
        for (platform, version, at, len) in [
            (Platform::SevSnp, 2, 0x50, SNP_REPORT_LEN),
            (Platform::Simulated, 5, 0x50, SNP_REPORT_LEN),
            (Platform::Tdx, 4, 568, 5000),
            (Platform::Tdx, 5, 574, 5000),
        ] {
            let mut report = vec![0; len];
            report[0] = version;
            report[at..at + 64].copy_from_slice(&want);
            let raw = RawEvidence { platform, report, certificate_table: vec![] };
            assert!(raw.clone().expect_report_data(&want).is_ok(), "{platform:?} version {version}");
            let mut other = want;
            other[63] ^= 1;
            assert!(matches!(raw.clone().expect_report_data(&other), Err(AttestError::OtherReportData)));
            let short = RawEvidence { report: raw.report[..at + 63].to_vec(), ..raw };
            assert!(matches!(short.expect_report_data(&want), Err(AttestError::ReportLength { .. })));
        }
    }

    #[test]
    fn genuine_quotes_have_their_report_data_there() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .find(|directory| directory.join("Cargo.lock").exists())
            .unwrap();
        let samples = root.join("../shared/evidence");
        if !samples.is_dir() {
            eprintln!("skipped: no samples at ../shared/evidence");
            return;
        }
        let mut seen = 0;
        for entry in std::fs::read_dir(samples).unwrap() {
            let directory = entry.unwrap().path();
            let Ok(manifest) = std::fs::read_to_string(directory.join("manifest.json")) else { continue };
            for (file, platform) in [("report.bin", Platform::SevSnp), ("quote.bin", Platform::Tdx)] {
                let Ok(report) = std::fs::read(directory.join(file)) else { continue };
                let Some(want) = field(&manifest, "report_data") else { continue };
                // Bad samples may have other report data, and SGX quotes have another layout.
                let name = directory.file_name().unwrap_or_default().to_string_lossy();
                if !name.starts_with("snp-") && !name.starts_with("tdx-") {
                    continue;
                }
                let raw = RawEvidence { platform, report, certificate_table: vec![] };
                let result = raw.expect_report_data(&want);
                assert!(result.is_ok(), "{}: {result:?}", directory.display());
                seen += 1;
            }
        }
        assert!(seen > 5, "only {seen} samples say what their report data is");
    }

    /// The 64-byte hexadecimal string after `"name": ` in a manifest.
    fn field(manifest: &str, name: &str) -> Option<[u8; 64]> {
        let (_, rest) = manifest.split_once(&format!("\"{name}\": \""))?;
        let hex = rest.get(..128)?;
        let mut bytes = [0; 64];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(hex.get(2 * i..2 * i + 2)?, 16).ok()?;
        }
        Some(bytes)
    }

    #[test]
    fn reading_stops_at_the_cap() {
        assert_eq!(read_capped(io::repeat(1).take(10), 10).unwrap().len(), 10);
        assert!(read_capped(io::repeat(1), 10).is_err());
    }
}
