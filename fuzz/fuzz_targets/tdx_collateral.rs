//! TDX collateral in each of its forms: JSON of quoting tools, the wire form, and parts as Intel's service gives them.
#![no_main]
use adyton_attestation::{Collateral, SignedDocument};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(collateral) = Collateral::from_json(bytes) {
        let wire = collateral.encode();
        if let Ok(decoded) = Collateral::decode(&wire) {
            assert_eq!(decoded, collateral);
        }
    }
    if let Ok(collateral) = Collateral::decode(bytes) {
        assert_eq!(collateral.encode(), bytes);
    }
    for name in ["tcbInfo", "enclaveIdentity"] {
        if let Ok(document) = SignedDocument::from_served(name, bytes, bytes) {
            assert!(bytes.windows(document.document.len()).any(|window| window == document.document));
        }
    }
});
