//! The certificate table that a host writes, behind a report that parses.
#![no_main]
use adyton_attestation::{Endorsements, Evidence, Time, TrustAnchors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|table: &[u8]| {
    let mut report = vec![0; 1184];
    (report[0], report[0x034], report[0x00a]) = (3, 1, 2);
    if let Ok(evidence) = Evidence::snp_from_parts(&report, table) {
        let now = Time::from_unix_seconds(1_760_000_000);
        let _ = evidence.verify(&TrustAnchors::pinned(), &Endorsements::default(), now);
    }
});
