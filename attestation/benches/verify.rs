//! What a verdict costs: `cargo bench -p adyton-attestation`. The evidence is the vector `accept_standard`.
#![allow(clippy::disallowed_methods, reason = "tests read files and the clock")]

use adyton_attestation::{Endorsements, Evidence, Policy, Time, TrustAnchors};
use divan::Bencher;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/evidence");

fn main() {
    divan::main();
}

fn read(name: &str) -> String {
    std::fs::read_to_string(format!("{FOLDER}/{name}")).expect("the vectors lie beside the crate")
}

fn field(text: &str, name: &str) -> Vec<u8> {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    hex::decode(value.expect("the vector has this field")).expect("the vector is hex")
}

fn evidence() -> Evidence {
    let report = field(&read("accept_standard.txt"), "report: ");
    let table = hex::decode(read("honest.hex")).expect("the vector is hex");
    Evidence::snp_from_parts(&report, &table).expect("the vector is well formed")
}

#[divan::bench]
fn decode(bencher: Bencher) {
    let bytes = evidence().encode();
    bencher.bench(|| Evidence::decode(&bytes).expect("the vector is well formed"));
}

/// Four RSA-4096 verifications (root, intermediate, leaf, revocation list) and one of ECDSA P-384.
#[divan::bench]
fn verify_and_appraise(bencher: Bencher) {
    let anchors = TrustAnchors::dangerous_root(&hex::decode(read("root.hex")).expect("hex")).expect("a root");
    let (endorsements, now) = (Endorsements::default(), Time::from_unix_seconds(1_790_000_000));
    bencher.with_inputs(evidence).bench_values(|evidence| {
        let authentic = evidence.verify(&anchors, &endorsements, now).expect("the vector verifies");
        authentic.appraise_saved(&Policy::vendor()).expect("the vector is accepted")
    });
}
