//! A bare SNP report, or a blob around one.
#![no_main]
use adyton_attestation::Evidence;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(evidence) = Evidence::snp_from_parts(bytes, &[]) {
        let _ = evidence.describe();
    }
});
