//! One file for each way a CBOR object can be wrong: `tests/vectors/wire/NAME.txt` holds the expected verdict and the
//! bytes in hexadecimal.
#![allow(clippy::disallowed_methods, reason = "tests read files and the clock")]

use adyton_attestation::wire::{Blob, WireError, decode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Any {
    Unsigned(u64),
    Array(Vec<Any>),
    Bytes(Blob),
    Text(String),
    Map(BTreeMap<u64, u64>),
}

#[test]
fn every_vector_gets_its_verdict() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/wire");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("vector folder") {
        let path = entry.expect("vector").path();
        let text = std::fs::read_to_string(&path).expect("vector is text");
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|rest| rest.trim_start_matches(':').trim())
        };
        let bytes = hex::decode(field("bytes").expect("bytes")).expect("hex");
        let verdict = match decode::<Any>(&bytes, 64) {
            Ok(_) => "accept".to_owned(),
            Err(WireError::TooLong { .. }) => "TooLong".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        assert_eq!(Some(verdict.as_str()), field("verdict"), "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 14, "only {seen} vectors were found");
}
