//! Evidence as it comes from a peer: whatever decodes is encoded to the same bytes, and never verifies by chance.
#![no_main]
use adyton_attestation::{Endorsements, Evidence, Time, TrustAnchors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(evidence) = Evidence::decode(bytes) {
        assert_eq!(evidence.encode(), bytes);
        let now = Time::from_unix_seconds(1_760_000_000);
        let _ = evidence.verify(&TrustAnchors::pinned(), &Endorsements::default(), now);
    }
});
