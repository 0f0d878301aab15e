//! Rules for evidence and launch documents, as people write them.
#![no_main]
use adyton_broker::EvidenceRules;
use adyton_enclave::LaunchDocument;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = LaunchDocument::parse(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = toml::from_str::<EvidenceRules>(text);
    }
});
