//! Reports through `/dev/sev-guest`, the older interface to the SNP firmware; Linux `include/uapi/linux/sev-guest.h`.
//!
//! The requests are encoded here, byte by byte, and the answers judged here; `ioctl.rs` does nothing but the call. So
//! everything that can be got wrong is tested without the device.
//!
//! Flow: ask for an extended report, with room for the host's certificate table. If the host gives no table, or one for
//! which the kernel's 16 KiB do not suffice, ask for the report alone: a verifier can get certificates elsewhere.
//!
//! The `sev` crate has these calls too, but it opens one fixed path, allocates what the host asks for, and walks the
//! host's table by raw pointers; a table is untrusted bytes and stays bytes here.

#[allow(unsafe_code, reason = "the ioctl")]
mod ioctl;

use crate::{AttestError, Attester, Platform, RawEvidence, SNP_REPORT_LEN};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the kernel has it.
pub const DEFAULT_PATH: &str = "/dev/sev-guest";
/// `SEV_FW_BLOB_MAX_SIZE`, the largest certificate buffer the kernel takes; a multiple of the page size, as it must be.
const CERTIFICATES_LEN: usize = 16 * 1024;
/// Times a request is made while the host says it is busy.
const ATTEMPTS: u32 = 5;
/// Wait before the next one, times the number of the attempt. The kernel itself has waited before it says busy.
const BACKOFF: Duration = Duration::from_millis(200);
/// The privilege level of the guest's own kernel, the only one that the default policy accepts.
const VMPL: u32 = 0;

/// Why the device gave no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SevGuestError {
    /// The device cannot be opened.
    #[error(
        "cannot open {path}: {source}; this is no SNP guest, or the module sev-guest is not loaded, or not for us"
    )]
    Open {
        /// The device.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The guest's message key is gone.
    #[error(
        "the kernel has given up its message key to the firmware, after a mismatch earlier: restart the VM"
    )]
    KeyLost,
    /// The host answered instead of the firmware.
    #[error("the host refused the request: {0}")]
    Host(HostError),
    /// The firmware refused.
    #[error("the firmware refused the request with {code:#x}: {meaning}")]
    Firmware {
        /// Status code of the SEV-SNP firmware ABI.
        code: u32,
        /// What it means, and what to do.
        meaning: &'static str,
    },
    /// The kernel refused.
    #[error("the kernel refused the request: {0}")]
    Kernel(#[source] io::Error),
    /// The firmware's answer is no report.
    #[error(
        "the firmware announces a report of {0} bytes, a report has {SNP_REPORT_LEN}: update the guest kernel"
    )]
    ReportLength(u32),
}

/// `vmm_error`: why the host did not pass a request on; Linux `include/uapi/linux/sev-guest.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostError {
    /// The certificate buffer is too small for the host's table.
    CertificatesTooLong,
    /// The host limits the rate of requests.
    Busy,
    /// Anything else.
    Other(u32),
}

impl std::fmt::Display for HostError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::CertificatesTooLong => write!(f, "its certificate table is larger than the kernel allows"),
            Self::Busy => write!(f, "it is busy; it limits how often reports are made, try again later"),
            Self::Other(code) => write!(f, "code {code:#x}; its hypervisor may not support guest requests"),
        }
    }
}

/// What the kernel and the firmware left behind after one call.
#[derive(Debug)]
struct Outcome {
    /// The call's own error.
    error: Option<io::Error>,
    /// `exitinfo2`: `fw_error` in the low half, `vmm_error` in the high half.
    exitinfo2: u64,
}

impl Outcome {
    /// Success, or whose fault it was.
    fn judge(self) -> Result<(), SevGuestError> {
        let [vmm_error, fw_error] = [self.exitinfo2 >> 32, self.exitinfo2 & 0xffff_ffff]
            .map(|half| u32::try_from(half).unwrap_or(u32::MAX));
        // The kernel sets all bits, older ones 0xff, before it has called anybody.
        let nobody_called = matches!(self.exitinfo2, u64::MAX | 0xffff_ffff | 0xff);
        if !nobody_called {
            match vmm_error {
                0 => {}
                1 => return Err(SevGuestError::Host(HostError::CertificatesTooLong)),
                2 => return Err(SevGuestError::Host(HostError::Busy)),
                other => return Err(SevGuestError::Host(HostError::Other(other))),
            }
            if fw_error != 0 {
                return Err(firmware_error(fw_error));
            }
        }
        match self.error {
            None => Ok(()),
            // What the driver says once it has wiped its key.
            Some(error) if error.raw_os_error() == Some(libc::ENOTTY) => Err(SevGuestError::KeyLost),
            Some(error) => Err(SevGuestError::Kernel(error)),
        }
    }
}

fn firmware_error(code: u32) -> SevGuestError {
    // Status codes of the SEV-SNP firmware ABI; also in Linux include/uapi/linux/psp-sev.h.
    let meaning = match code {
        0x01 => "the platform is in a wrong state: the host must initialise SNP again",
        0x02 => "the guest is in a wrong state: restart the VM",
        0x07 => "the guest's policy does not allow it: launch the VM with another policy",
        0x10 => "the firmware does not know this guest: restart the VM",
        0x15 => "the firmware does not support it: the host must update its firmware",
        0x16 => {
            "a parameter is invalid, perhaps a privilege level below that of this kernel (it asked for VMPL 0)"
        }
        0x17 => "the firmware has no resources left: try again later, or restart the host",
        0x1d => "the message counter has run out: restart the VM",
        0x23 => "the platform must be shut down first: the host must do so",
        0x27 => "the key asked for does not exist: the host has loaded no VLEK, or the firmware cannot sign",
        _ => "see the status codes of the SEV-SNP firmware ABI",
    };
    SevGuestError::Firmware { code, meaning }
}

/// `struct snp_report_req`: user_data (64) at 0, vmpl (4) at 64, reserved (28).
fn report_request(report_data: &[u8; 64]) -> [u8; 96] {
    let mut request = [0; 96];
    request[..64].copy_from_slice(report_data);
    request[64..68].copy_from_slice(&VMPL.to_ne_bytes());
    request
}

/// `struct snp_ext_report_req`: the report request at 0, certs_address (8) at 96, certs_len (4) at 104, padding (4).
fn extended_request(report_data: &[u8; 64], certificates_at: u64) -> [u8; 112] {
    let certificates_len = if certificates_at == 0 { 0 } else { CERTIFICATES_LEN };
    let mut request = [0; 112];
    request[..96].copy_from_slice(&report_request(report_data));
    request[96..104].copy_from_slice(&certificates_at.to_ne_bytes());
    request[104..108].copy_from_slice(&u32::try_from(certificates_len).unwrap_or(0).to_ne_bytes());
    request
}

/// `struct snp_report_resp`, 4000 bytes: the firmware's MSG_REPORT_RSP, status (4) at 0, report_size (4) at 4, reserved
/// (24), report at 32; SEV-SNP firmware ABI, MSG_REPORT_RSP.
type Response = [u8; 4000];

/// The report in a response.
fn report_of(response: &Response) -> Result<Vec<u8>, SevGuestError> {
    let word = |at: usize| {
        response.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(u32::MAX, u32::from_le_bytes)
    };
    let (status, len) = (word(0), word(4));
    if status != 0 {
        return Err(firmware_error(status));
    }
    if usize::try_from(len) != Ok(SNP_REPORT_LEN) {
        return Err(SevGuestError::ReportLength(len));
    }
    Ok(response[32..32 + SNP_REPORT_LEN].to_vec())
}

/// Cuts the unused rest off a certificate buffer.
///
/// The table is a list of 24-byte entries `guid (16) || offset (4) || length (4)`, little-endian, ended by a zero entry,
/// and then the certificates; GHCB 2.0, SNP Extended Guest Request. A table that makes no sense is returned whole, for the verifier
/// to refuse; an empty one as no bytes.
fn used(buffer: &[u8]) -> &[u8] {
    let mut end = 0usize;
    for entry in buffer.chunks_exact(24) {
        let (guid, place) = entry.split_at(16);
        if entry.iter().all(|&byte| byte == 0) {
            let after_terminator = if end == 0 { 0 } else { end };
            return buffer.get(..after_terminator).unwrap_or(buffer);
        }
        let word = |at: usize| {
            place.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(u32::MAX, u32::from_le_bytes)
        };
        let entry_end = usize::try_from(u64::from(word(0)) + u64::from(word(4))).unwrap_or(usize::MAX);
        if guid.iter().all(|&byte| byte == 0) || entry_end > buffer.len() {
            return buffer;
        }
        end = end.max(entry_end);
    }
    buffer
}

/// An open `/dev/sev-guest`.
#[derive(Debug)]
pub struct SevGuest {
    device: File,
}

impl SevGuest {
    /// Opens the device at `path`, [`DEFAULT_PATH`] on a real machine.
    ///
    /// # Errors
    /// [`SevGuestError::Open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SevGuestError> {
        let path = path.as_ref();
        let device = File::options()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|source| SevGuestError::Open { path: path.to_path_buf(), source })?;
        Ok(Self { device })
    }

    fn extended_report(&self, report_data: &[u8; 64]) -> Result<RawEvidence, SevGuestError> {
        let mut certificates = vec![0; CERTIFICATES_LEN];
        let mut response = [0; 4000];
        let outcome = ioctl::get_extended_report(
            &self.device,
            &mut extended_request(report_data, certificates.as_mut_ptr().expose_provenance() as u64),
            &mut certificates,
            &mut response,
        );
        outcome.judge()?;
        Ok(evidence(report_of(&response)?, used(&certificates).to_vec()))
    }

    fn plain_report(&self, report_data: &[u8; 64]) -> Result<RawEvidence, SevGuestError> {
        let mut response = [0; 4000];
        ioctl::get_report(&self.device, &mut report_request(report_data), &mut response).judge()?;
        Ok(evidence(report_of(&response)?, Vec::new()))
    }

    fn report(&self, report_data: &[u8; 64]) -> Result<RawEvidence, SevGuestError> {
        match self.extended_report(report_data) {
            Err(SevGuestError::Host(HostError::CertificatesTooLong | HostError::Other(_))) => {
                self.plain_report(report_data)
            }
            result => result,
        }
    }
}

fn evidence(report: Vec<u8>, certificate_table: Vec<u8>) -> RawEvidence {
    RawEvidence { platform: Platform::SevSnp, report, certificate_table }
}

impl Attester for SevGuest {
    fn attest(&self, report_data: &[u8; 64]) -> Result<RawEvidence, AttestError> {
        let mut attempt = 1;
        loop {
            match self.report(report_data) {
                Err(error) if attempt < ATTEMPTS && is_passing(&error) => {
                    std::thread::sleep(BACKOFF * attempt);
                    attempt += 1;
                }
                result => return result?.expect_report_data(report_data),
            }
        }
    }

    fn name(&self) -> &'static str {
        "sev-guest"
    }

    fn platform(&self) -> Platform {
        Platform::SevSnp
    }
}

/// Whether the same request may do better in a moment.
fn is_passing(error: &SevGuestError) -> bool {
    match error {
        SevGuestError::Host(HostError::Busy) => true,
        SevGuestError::Kernel(error) => {
            matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::EINTR))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
