//! A bare TDX quote: what is read twice is the same, and nothing verifies without collateral.
#![no_main]
use adyton_attestation::{Endorsements, Evidence, Time, TrustAnchors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(evidence) = Evidence::tdx_from_parts(bytes, &[]) {
        let _ = evidence.describe();
        assert!(bytes.starts_with(evidence.report_bytes()));
        assert_eq!(Evidence::decode(&evidence.encode()).expect("what is encoded decodes").encode(), evidence.encode());
        let now = Time::from_unix_seconds(1_760_000_000);
        assert!(evidence.verify(&TrustAnchors::pinned(), &Endorsements::default(), now).is_err());
    }
});
