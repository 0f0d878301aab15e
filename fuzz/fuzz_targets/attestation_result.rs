//! An Attestation Result that somebody hands us, in all four forms, and signed reference values.
#![no_main]

use adyton_attestation::Time;
use adyton_attestation::ear::{AttestationResult, ResultPublicKey};
use adyton_attestation::reference::ReferenceValues;
use libfuzzer_sys::fuzz_target;

const KEY: &str = include_str!("../../attestation/tests/vectors/ear/other.pub.pem");

fuzz_target!(|data: &[u8]| {
    if let Ok(result) = AttestationResult::from_json(data) {
        assert_eq!(AttestationResult::from_json(result.to_json().as_bytes()), Ok(result.clone()));
        assert_eq!(AttestationResult::from_cbor(&result.to_cbor()), Ok(result));
    }
    if let Ok(result) = AttestationResult::from_cbor(data) {
        assert_eq!(result.to_cbor(), data, "one encoding for each object");
    }
    let key = ResultPublicKey::from_pem(KEY).expect("the vector is a key");
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = AttestationResult::verify_jwt(text, &key);
        let _ = ResultPublicKey::from_pem(text);
    }
    let _ = AttestationResult::verify_cwt(data, &key);
    let _ = ReferenceValues::verify(&[1; 32], data, 0, Time::from_unix_seconds(0));
});
