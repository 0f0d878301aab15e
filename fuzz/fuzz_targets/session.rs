//! S1 as an enclave reads it, S2 as a client judges it, objects that owners sign.
#![no_main]
use adyton_attestation::keyset::KeySet;
use adyton_attestation::manifest::{Description, VerifiedManifest};
use adyton_attestation::owner::Admission;
use adyton_attestation::receipt::Receipt;
use adyton_attestation::release::{Asked, Direction};
use adyton_attestation::session::Received;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Received::read(bytes);
    let _ = Asked::read(bytes, Direction::Pull);
    let _ = Admission::verify(&[1; 32], bytes, None);
    let _ = Receipt::verify(&[1; 32], bytes);
    let _ = VerifiedManifest::verify(&[1; 32], bytes);
    let _ = Description::decode(bytes);
    if let Ok(keys) = KeySet::decode(bytes) {
        assert_eq!(keys.encode(), bytes);
    }
});
