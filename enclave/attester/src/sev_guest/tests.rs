//! Requests and answers as bytes; no device.

use super::*;

#[test]
fn request_codes_are_those_of_the_header() {
    assert_eq!(ioctl::SNP_GET_REPORT, 0xc020_5300);
    assert_eq!(ioctl::SNP_GET_EXT_REPORT, 0xc020_5302);
}

#[test]
fn requests_have_their_fields_in_place() {
    let report_data: [u8; 64] = std::array::from_fn(|i| u8::try_from(i).unwrap());
    let plain = report_request(&report_data);
    assert_eq!(plain[..64], report_data);
    assert_eq!(plain[64..], [0; 32], "VMPL 0, reserved bytes zero");

    let extended = extended_request(&report_data, 0x1122_3344_5566_7788);
    assert_eq!(extended[..96], plain);
    assert_eq!(extended[96..104], 0x1122_3344_5566_7788u64.to_ne_bytes());
    assert_eq!(extended[104..108], 0x4000u32.to_ne_bytes());
    assert_eq!(extended[108..], [0; 4]);
    assert_eq!(extended_request(&report_data, 0)[96..], [0; 16], "no buffer, no length");
}

fn response(status: u32, len: u32) -> Response {
    let mut response = [0xee; 4000];
    response[..4].copy_from_slice(&status.to_le_bytes());
    response[4..8].copy_from_slice(&len.to_le_bytes());
    response[8..32].fill(0);
    response[32..32 + SNP_REPORT_LEN].fill(0x11);
    response
}

#[test]
fn report_is_cut_out_of_the_response() {
    assert_eq!(report_of(&response(0, 1184)).unwrap(), [0x11; SNP_REPORT_LEN]);
    for len in [0, 1183, 1185, 4000, u32::MAX] {
        let refused = report_of(&response(0, len));
        assert!(matches!(refused, Err(SevGuestError::ReportLength(got)) if got == len), "{len}");
    }
    let refused = report_of(&response(0x16, 0));
    assert!(matches!(refused, Err(SevGuestError::Firmware { code: 0x16, .. })));
}

fn judge(errno: Option<i32>, vmm_error: u64, fw_error: u64) -> Result<(), SevGuestError> {
    let error = errno.map(io::Error::from_raw_os_error);
    Outcome { error, exitinfo2: vmm_error << 32 | fw_error }.judge()
}

#[test]
fn errors_are_given_to_whose_fault_they_are() {
    let eio = Some(libc::EIO);
    assert!(judge(None, 0, 0).is_ok());
    assert!(matches!(
        judge(Some(libc::ENOSPC), 1, 0),
        Err(SevGuestError::Host(HostError::CertificatesTooLong))
    ));
    assert!(matches!(judge(Some(libc::EAGAIN), 2, 0), Err(SevGuestError::Host(HostError::Busy))));
    assert!(matches!(judge(eio, 7, 0), Err(SevGuestError::Host(HostError::Other(7)))));
    assert!(matches!(judge(eio, 0, 0x27), Err(SevGuestError::Firmware { code: 0x27, .. })));
    assert!(matches!(judge(eio, 0, 0x999), Err(SevGuestError::Firmware { code: 0x999, .. })));
    // Since Linux 5.19 the call itself may succeed although the host refused.
    assert!(matches!(judge(None, 1, 0), Err(SevGuestError::Host(HostError::CertificatesTooLong))));
}

#[test]
fn a_lost_key_is_told_from_other_kernel_errors() {
    for untouched in [0, 0xff, 0xffff_ffff, u64::MAX] {
        let outcome =
            |errno| Outcome { error: Some(io::Error::from_raw_os_error(errno)), exitinfo2: untouched };
        assert!(matches!(outcome(libc::ENOTTY).judge(), Err(SevGuestError::KeyLost)));
        assert!(matches!(outcome(libc::EIO).judge(), Err(SevGuestError::Kernel(_))));
    }
}

#[test]
fn only_passing_troubles_are_tried_again() {
    assert!(is_passing(&SevGuestError::Host(HostError::Busy)));
    assert!(is_passing(&judge(Some(libc::EAGAIN), 0, 0).unwrap_err()));
    assert!(!is_passing(&judge(Some(libc::EIO), 0, 0).unwrap_err()));
    assert!(!is_passing(&judge(None, 0, 0x16).unwrap_err()));
    assert!(!is_passing(&SevGuestError::KeyLost));
}

/// A certificate buffer with one entry for each `(offset, length)`.
fn table(entries: &[(u32, u32)]) -> Vec<u8> {
    let mut buffer = vec![0; CERTIFICATES_LEN];
    for (i, (offset, len)) in entries.iter().enumerate() {
        let entry = &mut buffer[24 * i..24 * (i + 1)];
        entry[..16].fill(0xc0);
        entry[16..20].copy_from_slice(&offset.to_le_bytes());
        entry[20..].copy_from_slice(&len.to_le_bytes());
    }
    buffer
}

#[test]
fn certificate_tables_are_cut_to_what_is_used() {
    assert_eq!(used(&table(&[])).len(), 0);
    assert_eq!(used(&table(&[(72, 1000), (1072, 3)])).len(), 1075);
    assert_eq!(used(&table(&[(1072, 3), (72, 1000)])).len(), 1075, "in any order");
    assert_eq!(used(&table(&[(0, 16384)])).len(), 16384);
    for nonsense in [(0, 16385), (16384, 1), (u32::MAX, u32::MAX)] {
        assert_eq!(used(&table(&[nonsense])).len(), 16384, "left whole for the verifier to refuse");
    }
    assert_eq!(used(&[0xff; 1000]).len(), 1000, "no terminator");
    assert!(used(&[]).is_empty());
}

proptest::proptest! {
    #[test]
    fn no_table_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        proptest::prop_assert!(bytes.starts_with(used(&bytes)));
    }
}

#[test]
fn other_devices_are_refused_and_not_mistaken() {
    assert!(matches!(SevGuest::open("/nowhere/sev-guest"), Err(SevGuestError::Open { .. })));
    // Any other file answers the ioctl with ENOTTY, through the whole of the unsafe call.
    let file = tempfile::NamedTempFile::new().unwrap();
    let result = SevGuest::open(file.path()).unwrap().attest(&[0; 64]);
    assert!(matches!(result, Err(AttestError::SevGuest(SevGuestError::KeyLost))), "{result:?}");
}
