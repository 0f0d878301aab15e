//! The header of a sealed file, which the host can write as it likes.
#![no_main]
use adyton_vault::{FileClaims, Header, Kek, Opener};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = Header::parse(bytes) {
        assert_eq!(header.as_bytes(), bytes);
        let fixed = header.fixed();
        let claims = FileClaims {
            file_id: fixed.file_id,
            plaintext_len: fixed.plaintext_len,
            plaintext_root: [0; 32],
            fixed_header_hash: fixed.hash(),
            owner_id: b"owner",
            model_name: "model",
            counter: 7,
        };
        assert!(Opener::new(&header, &Kek::from_bytes(&mut [1; 32]), &claims).is_err());
    }
});
