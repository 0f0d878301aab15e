//! One file for each way SEV-SNP evidence can be right or wrong: `tests/vectors/evidence/NAME.txt` holds the verdict,
//! the policy and the report; the certificate tables, the root and the reference values lie beside it. The vectors are
//! made by the simulator's ignored test `write_vectors`.
#![allow(clippy::disallowed_methods, reason = "tests read files and the clock")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::PathBuf;

use adyton_attestation::{
    Endorsements, Evidence, Policy, Rejected, Time, TrustAnchors, VerdictCache, VerifiedReport,
};
use proptest::prelude::*;

struct Fields(String);

impl Fields {
    fn read(name: &str) -> Self {
        Self(fs::read_to_string(folder().join(name)).unwrap())
    }

    fn text(&self, name: &str) -> &str {
        let value = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.unwrap_or_else(|| panic!("no field {name}"))
    }

    fn bytes<const N: usize>(&self, name: &str) -> [u8; N] {
        hex::decode(self.text(name)).unwrap().try_into().unwrap()
    }
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/evidence"))
}

fn hex_file(name: &str) -> Vec<u8> {
    hex::decode(fs::read_to_string(folder().join(name)).unwrap().trim()).unwrap()
}

/// What the vectors are judged by.
struct Judge {
    anchors: TrustAnchors,
    reference: Fields,
}

impl Judge {
    fn new() -> Self {
        let anchors = TrustAnchors::dangerous_root(&hex_file("root.hex")).unwrap();
        Self { anchors, reference: Fields::read("reference-values") }
    }

    fn policy(&self, name: &str) -> Policy {
        let production = |policy: Policy| {
            policy
                .measurements([self.reference.bytes("measurement")])
                .host_data([self.reference.bytes("host-data")])
                .chip_allowlist([self.reference.bytes("platform-id")])
        };
        match name {
            "strict" => production(Policy::strict()),
            "standard" => production(Policy::standard()),
            "vendor" => Policy::vendor(),
            other => panic!("no policy {other}"),
        }
    }

    fn judge(&self, report: &[u8], table: &[u8], policy: &str) -> Result<VerifiedReport, Rejected> {
        let now = Time::from_unix_seconds(self.reference.text("now").parse().unwrap());
        // Through the wire form, so that it is exercised too.
        let evidence = Evidence::decode(&Evidence::snp_from_parts(report, table)?.encode())?;
        evidence
            .verify(&self.anchors, &Endorsements::default(), now)?
            .appraise(&self.policy(policy), &self.reference.bytes("report-data"))
    }
}

#[test]
fn every_vector_gets_its_verdict() {
    let judge = Judge::new();
    let mut seen = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".txt") {
            continue;
        }
        let vector = Fields::read(&name);
        let report = hex::decode(vector.text("report")).unwrap();
        let table = hex_file(&format!("{}.hex", vector.text("certificates")));
        let outcome = |policy| judge.judge(&report, &table, policy);
        let verdict = match outcome(vector.text("policy")) {
            Ok(_) => "accept",
            Err(rejected) => rejected.reason.as_str(),
        };
        assert_eq!(verdict, vector.text("verdict"), "{name}");
        // A stricter policy never accepts more.
        let accepted = ["strict", "standard", "vendor"].map(|policy| outcome(policy).is_ok());
        assert!(accepted.is_sorted(), "{name}: {accepted:?}");
        seen += 1;
    }
    assert!(seen >= 40, "only {seen} vectors were found");
}

#[test]
fn one_flipped_bit_of_report_or_certificates_is_never_accepted() {
    let judge = Judge::new();
    let vector = Fields::read("accept_vendor.txt");
    let report = hex::decode(vector.text("report")).unwrap();
    let table = hex_file("honest.hex");
    let refused = |report: &[u8], table: &[u8]| judge.judge(report, table, "standard").is_err();
    assert!(!refused(&report, &table));
    // The first sixteen bytes of the table name the ARK entry. A hidden ARK is not missed: the anchor is ours.
    const ARK_GUID_LEN_BYTES: usize = 16;
    let mut runner = proptest::test_runner::TestRunner::default();
    runner
        .run(&(any::<prop::sample::Index>(), 0..8u32, any::<bool>()), |(at, bit, in_report)| {
            let (mut report, mut table) = (report.clone(), table.clone());
            let bytes = if in_report { &mut report[..] } else { &mut table[ARK_GUID_LEN_BYTES..] };
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(refused(&report, &table), "byte {at} bit {bit}, report: {in_report}");
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_remembered_chain_gives_the_same_verdict_and_ends_with_its_list() {
    let judge = Judge::new();
    let vector = Fields::read("accept_vendor.txt");
    let (report, table) = (hex::decode(vector.text("report")).unwrap(), hex_file("honest.hex"));
    let now: u64 = judge.reference.text("now").parse().unwrap();
    let mut cache = VerdictCache::new(2);
    assert!(cache.is_empty());
    let mut look = |report: &[u8], now: u64| {
        let (now, none) = (Time::from_unix_seconds(now), Endorsements::default());
        let evidence = || Evidence::snp_from_parts(report, &table).unwrap();
        let shown = |outcome: Result<adyton_attestation::Authentic, Rejected>| {
            outcome
                .and_then(|authentic| authentic.appraise_saved(&Policy::vendor()))
                .map(|claims| claims.steps().to_vec())
        };
        let plain = shown(evidence().verify(&judge.anchors, &none, now));
        let cached = shown(evidence().verify_cached(&judge.anchors, &none, now, &mut cache));
        assert_eq!(plain, cached);
        assert!(!cache.is_empty());
        (plain.map(|_| ()).map_err(|rejected| rejected.reason.as_str()), cache.len())
    };
    assert_eq!(look(&report, now), (Ok(()), 1));
    assert_eq!(look(&report, now), (Ok(()), 1));
    let mut forged = report.clone();
    forged[0x090] ^= 1;
    assert_eq!(look(&forged, now), (Err("signature"), 1));
    // However far the clock goes, the cache never says otherwise than a full verification.
    const DAY: u64 = 24 * 3600;
    let ended = (0..400).step_by(5).any(|days| look(&report, now + days * DAY).0.is_err());
    assert!(ended, "neither list nor certificate ran out");
}
