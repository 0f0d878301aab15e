//! An independent reader of the report format, the `sev` crate, sees the same values in every well-formed report: in the
//! vectors of this crate, and in the recorded samples where they are there. `tests/evidence_samples.rs` compares what
//! only verification shows, the TCB versions.
#![allow(clippy::disallowed_methods, reason = "tests read files and the clock")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};

use adyton_attestation::Evidence;
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;

/// The reports of the vectors, with their names.
fn vectors() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/evidence");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let report = text.lines().find_map(|line| line.strip_prefix("report: "))?;
        Some((path.display().to_string(), hex::decode(report).unwrap()))
    };
    fs::read_dir(folder).unwrap().filter_map(|entry| read(entry.unwrap().path())).collect()
}

mod shared;

/// The reports among the recorded samples.
fn samples() -> Option<Vec<(String, Vec<u8>)>> {
    let folders = fs::read_dir(shared::samples()?).unwrap();
    let read = |path: PathBuf| Some((path.display().to_string(), fs::read(path).ok()?));
    Some(folders.filter_map(|entry| read(entry.unwrap().path().join("report.bin"))).collect())
}

/// How many of the reports both readers take; each is read alike by both. `sev` refuses reserved bytes while parsing,
/// this crate after the signature, so not every report that is well formed here is taken there.
fn compare(reports: &[(String, Vec<u8>)]) -> usize {
    let mut compared = 0;
    for (name, bytes) in reports {
        let Ok(evidence) = Evidence::snp_from_parts(bytes, &[]) else { continue };
        let Ok(other) = AttestationReport::from_bytes(bytes) else { continue };
        let (ours, theirs) = (evidence.describe(), described(&other));
        assert_eq!(theirs.len(), ours.len() - 1, "every value but the platform is compared");
        for (field, value) in theirs {
            let ours = ours.iter().find(|(name, _)| *name == field).expect(field);
            assert_eq!(ours.1, value, "{field} of {name}");
        }
        compared += 1;
    }
    compared
}

/// What [`Evidence::describe`] shows, as `sev` has it.
fn described(report: &AttestationReport) -> Vec<(&'static str, String)> {
    let cpuid = match (report.cpuid_fam_id, report.cpuid_mod_id, report.cpuid_step) {
        (Some(family), Some(model), Some(stepping)) => hex::encode([family, model, stepping]),
        _ => "not in this version".to_owned(),
    };
    let version = report.current;
    vec![
        ("report_version", report.version.to_string()),
        ("cpuid", cpuid),
        ("firmware", format!("{}.{}.{}", version.major, version.minor, version.build)),
        ("vmpl", report.vmpl.to_string()),
        ("guest_svn", report.guest_svn.to_string()),
        ("guest_policy", format!("{:#x}", u64::from(report.policy))),
        ("platform_info", format!("{:#x}", u64::from(report.plat_info))),
        ("measurement", hex::encode(report.measurement)),
        ("host_data", hex::encode(report.host_data)),
        ("report_data", hex::encode(report.report_data)),
        ("id_key_digest", hex::encode(report.id_key_digest)),
        ("report_id", hex::encode(report.report_id)),
        ("chip_id", hex::encode(report.chip_id)),
    ]
}

#[test]
fn every_vector_is_read_alike() {
    let compared = compare(&vectors());
    assert!(compared >= 30, "only {compared} vectors were compared");
}

#[test]
fn every_recorded_sample_is_read_alike() {
    let Some(samples) = samples() else { return };
    assert!(compare(&samples) > 0, "the folder holds no SEV-SNP report");
}
