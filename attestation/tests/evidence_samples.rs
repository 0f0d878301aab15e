//! Every recorded SEV-SNP sample gets the verdict, and the class of reason, that its manifest states.
#![allow(clippy::disallowed_methods, reason = "tests read files and the clock")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::Path;

use adyton_attestation::{
    Claims, Endorsements, Evidence, Policy, Rejected, TcbFloor, Time, TrustAnchors, VerdictCache,
};
use serde_json::Value;
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;

use shared::samples;

mod shared;

fn read(folder: &Path, name: &str) -> Option<Vec<u8>> {
    fs::read(folder.join(name)).ok()
}

/// Endorsements from the files of a folder, named as the samples name them.
fn endorsements(folder: &Path) -> Endorsements {
    let crls = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".crl.der"))
        .map(|path| fs::read(path).unwrap())
        .collect();
    Endorsements {
        vcek: read(folder, "vcek.der"),
        vlek: read(folder, "vlek.der"),
        ask: read(folder, "ask.der"),
        asvk: read(folder, "asvk.der"),
        ark: read(folder, "ark.der"),
        crls,
        tdx_collateral: None,
    }
}

/// The minimum TCB that a manifest's note names, as `policy minimum is snp>=0x18`.
fn minimum(manifest: &Value) -> Option<TcbFloor> {
    let (_, floor) = manifest["note"].as_str()?.split_once("minimum is ")?;
    Some(floor.parse().expect("the note names a minimum"))
}

fn judge(folder: &Path, manifest: &Value, cache: &mut VerdictCache) -> Result<(), Rejected> {
    let report = read(folder, "report.bin").expect("every sample has a report");
    let endorsements = endorsements(folder);
    let anchor_included = manifest["trust_anchor"].as_str().is_some_and(|text| text.contains("included ark"));
    let anchors = if anchor_included {
        TrustAnchors::dangerous_root(endorsements.ark.as_ref().unwrap())?
    } else {
        TrustAnchors::pinned()
    };
    // Samples refused for their form or for missing certificates name no time.
    let now = Time::from_unix_seconds(manifest["validation_time"].as_u64().unwrap_or(0));
    let mut policy = Policy::vendor();
    if let Some(floor) = minimum(manifest) {
        policy = policy.min_tcb(floor);
    }
    let plain = Evidence::snp_from_parts(&report, &[])?
        .verify(&anchors, &endorsements, now)
        .and_then(|authentic| authentic.appraise_saved(&policy));
    // Once to fill the cache, once to be answered by it.
    for _ in 0..2 {
        let cached = Evidence::snp_from_parts(&report, &[])?
            .verify_cached(&anchors, &endorsements, now, cache)
            .and_then(|authentic| authentic.appraise_saved(&policy));
        match (&plain, &cached) {
            (Ok(plain), Ok(cached)) => assert_eq!(plain.steps(), cached.steps()),
            (Err(plain), Err(cached)) => assert_eq!(plain, cached),
            (plain, cached) => panic!("{plain:?} without, {cached:?} with a cache"),
        }
    }
    let claims = plain?;
    assert_read_alike(&claims, &report);
    Ok(())
}

/// An independent reader of the format, the `sev` crate, sees the same values.
fn assert_read_alike(claims: &Claims, report: &[u8]) {
    let other = AttestationReport::from_bytes(report).unwrap();
    assert_eq!(claims.measurement()[..], other.measurement[..]);
    assert_eq!(claims.host_data()[..], other.host_data[..]);
    assert_eq!(claims.report_data()[..], other.report_data[..]);
    let claims = claims.snp().expect("an SNP report");
    assert_eq!(claims.report_version(), other.version);
    assert_eq!(claims.guest_svn(), other.guest_svn);
    assert_eq!(claims.vmpl(), other.vmpl);
    assert_eq!(claims.guest_policy().bits(), u64::from(other.policy));
    assert_eq!(claims.platform_info().bits(), u64::from(other.plat_info));
    assert_eq!(claims.report_id()[..], other.report_id[..]);
    assert_eq!(claims.chip_id()[..], other.chip_id[..]);
    let tcbs = claims.tcbs();
    for (ours, theirs) in [
        (tcbs.current, other.current_tcb),
        (tcbs.reported, other.reported_tcb),
        (tcbs.committed, other.committed_tcb),
        (tcbs.launch, other.launch_tcb),
    ] {
        let theirs = (theirs.fmc, theirs.bootloader, theirs.tee, theirs.snp, theirs.microcode);
        assert_eq!((ours.fmc, ours.bootloader, ours.tee, ours.snp, ours.microcode), theirs);
    }
    let other_versions = [other.current, other.committed].map(|v| (v.major, v.minor, v.build));
    assert_eq!(claims.firmware_versions(), other_versions);
    let other_vectors = other.launch_mit_vector.zip(other.current_mit_vector);
    assert_eq!(claims.mitigation_vectors(), other_vectors);
}

#[test]
fn every_sample_gets_its_verdict() {
    let Some(root) = samples() else { return };
    let mut judged = 0;
    // One cache for all, so that an entry of one sample would show in the verdict of another.
    let mut cache = VerdictCache::new(4);
    let mut wrong = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let folder = entry.unwrap().path();
        let Some(manifest) = read(&folder, "manifest.json") else { continue };
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let (Some("sev-snp"), Some(verdict)) =
            (manifest["tee"].as_str(), manifest["expect"]["verdict"].as_str())
        else {
            continue;
        };
        judged += 1;
        let expected = manifest["expect"]["reason"].as_str().unwrap();
        let got = judge(&folder, &manifest, &mut cache);
        let right = match &got {
            Ok(()) => verdict == "accept",
            // `chain-or-hwid` names two classes that are both right.
            Err(rejected) => {
                verdict == "reject" && expected.split("-or-").any(|class| class == rejected.reason.as_str())
            }
        };
        if !right {
            wrong.push(format!("{}: expected {verdict} {expected:?}, got {got:#?}", folder.display()));
        }
    }
    assert!(!cache.is_empty());
    assert!(judged > 0, "the folder holds no SEV-SNP samples");
    assert!(wrong.is_empty(), "{} of {judged} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn an_azure_blob_is_read_and_its_runtime_data_is_bound() {
    let Some(root) = samples() else { return };
    let folder = root.join("snp-milan-v3-azure-hcl");
    let Some(wrapped) = read(&folder, "vendor-evidence.json") else {
        eprintln!("SKIPPED: no sample {}", folder.display());
        return;
    };
    let wrapped: Value = serde_json::from_slice(&wrapped).unwrap();
    let mut blob: Vec<u8> = serde_json::from_value(wrapped["report"].clone()).unwrap();
    let evidence = Evidence::snp_from_parts(&blob, &[]).unwrap();
    assert_eq!(evidence.report_bytes(), read(&folder, "report.bin").unwrap());
    // The first byte of the runtime JSON: after header, report and the five words before it.
    blob[32 + 1184 + 20] ^= 1;
    assert_eq!(Evidence::snp_from_parts(&blob, &[]).unwrap_err().reason.as_str(), "report-data");
}
