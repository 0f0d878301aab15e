//! The ioctl itself, and nothing else: the unsafe code of this crate.
//!
//! `struct snp_guest_request_ioctl`, 32 bytes: msg_version (1) at 0, req_data (8) at 8, resp_data (8) at 16, exitinfo2
//! (8) at 24, of which fw_error is the low half and vmm_error the high half.

use super::{CERTIFICATES_LEN, Outcome, Response};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `_IOWR('S', number, struct snp_guest_request_ioctl)`. C libraries disagree about the type; the bits are the same.
const fn request_code(number: u32) -> libc::Ioctl {
    let (read_write, size, group) = (3u32, 32u32, b'S' as u32);
    (read_write << 30 | size << 16 | group << 8 | number) as libc::Ioctl
}

pub(super) const SNP_GET_REPORT: libc::Ioctl = request_code(0);
pub(super) const SNP_GET_EXT_REPORT: libc::Ioctl = request_code(2);

/// The only message version of these two requests.
const MSG_VERSION: u8 = 1;

#[repr(C)]
struct GuestRequest {
    msg_version: u8,
    req_data: u64,
    resp_data: u64,
    exitinfo2: u64,
}

const _: () = {
    assert!(size_of::<GuestRequest>() == 32);
    assert!(std::mem::offset_of!(GuestRequest, req_data) == 8);
    assert!(std::mem::offset_of!(GuestRequest, resp_data) == 16);
    assert!(std::mem::offset_of!(GuestRequest, exitinfo2) == 24);
};

/// SNP_GET_REPORT: `request` is a `snp_report_req`.
pub(super) fn get_report(device: &File, request: &mut [u8; 96], response: &mut Response) -> Outcome {
    // SAFETY: the request is a whole `snp_report_req`, by its type, and holds no addresses.
    unsafe { call(device, SNP_GET_REPORT, request, response) }
}

/// SNP_GET_EXT_REPORT: `request` is a `snp_ext_report_req` that holds the address of `certificates` and their length.
pub(super) fn get_extended_report(
    device: &File,
    request: &mut [u8; 112],
    certificates: &mut [u8],
    response: &mut Response,
) -> Outcome {
    // The kernel writes to the address in the request, so it must be that of the buffer lent here.
    let address = certificates.as_mut_ptr().expose_provenance() as u64;
    assert_eq!(request[96..104], address.to_ne_bytes(), "request names another certificate buffer");
    assert_eq!(certificates.len(), CERTIFICATES_LEN, "request says another length");
    // SAFETY: the request is a whole `snp_ext_report_req`, by its type; the one address in it is that of `certificates`,
    // which is borrowed exclusively here and as long as the request says, both asserted above.
    unsafe { call(device, SNP_GET_EXT_REPORT, request, response) }
}

/// Makes the call.
///
/// # Safety
/// `request` is the whole structure that `code` takes, and an address in it is that of a buffer which nobody else uses
/// during the call and which is as long as the request says.
unsafe fn call(device: &File, code: libc::Ioctl, request: &mut [u8], response: &mut Response) -> Outcome {
    let mut argument = GuestRequest {
        msg_version: MSG_VERSION,
        req_data: request.as_mut_ptr().expose_provenance() as u64,
        resp_data: response.as_mut_ptr().expose_provenance() as u64,
        exitinfo2: 0,
    };
    // SAFETY: `device` is open for the whole call. `argument` is a live `snp_guest_request_ioctl` (layout asserted
    // above) that points to `request`, of the length the kernel takes for `code`, and to `response`, of which it writes
    // at most the 4000 bytes; all three are borrowed exclusively. The caller vouches for an address inside `request`.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), code, &raw mut argument) };
    let error = (result < 0).then(io::Error::last_os_error);
    Outcome { error, exitinfo2: argument.exitinfo2 }
}
