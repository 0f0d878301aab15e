//! Every recorded TDX and SGX sample gets the verdict, and the class of reason, that its manifest states.
#![allow(clippy::disallowed_methods, reason = "tests read files and the clock")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::Path;

use adyton_attestation::{
    Claims, Collateral, Endorsements, Evidence, Policy, Rejected, Time, TrustAnchors, VerdictCache,
};
use serde_json::Value;

use shared::samples;

mod shared;

fn quote(folder: &Path) -> Option<Vec<u8>> {
    ["quote.bin", "quote.dat"].iter().find_map(|name| fs::read(folder.join(name)).ok())
}

fn judge(folder: &Path, now: Time, policy: &Policy, cache: &mut VerdictCache) -> Result<Claims, Rejected> {
    let evidence = Evidence::tdx_from_parts(&quote(folder).unwrap(), &[])?;
    let json = fs::read(folder.join("collateral.json")).unwrap();
    let endorsements =
        Endorsements { tdx_collateral: Some(Collateral::from_json(&json)?), ..Endorsements::default() };
    let anchors = TrustAnchors::pinned();
    let plain = evidence.verify(&anchors, &endorsements, now).and_then(|it| it.appraise_saved(policy));
    // Once to fill the cache, once to be answered by it; through the wire form, so that it is exercised too.
    let collateral = endorsements.tdx_collateral.unwrap().encode();
    for _ in 0..2 {
        let evidence = Evidence::tdx_from_parts(&quote(folder).unwrap(), &collateral)?;
        let evidence = Evidence::decode(&evidence.encode()).unwrap();
        let cached = evidence
            .verify_cached(&anchors, &Endorsements::default(), now, cache)
            .and_then(|it| it.appraise_saved(policy));
        match (&plain, &cached) {
            (Ok(plain), Ok(cached)) => assert_eq!(plain.steps(), cached.steps()),
            (Err(plain), Err(cached)) => assert_eq!(plain, cached),
            (plain, cached) => panic!("{plain:?} without, {cached:?} with a cache"),
        }
    }
    plain
}

/// The manifest's fields were decoded by another program.
fn assert_read_alike(claims: &Claims, fields: &Value) {
    let tdx = claims.tdx().expect("a TDX quote");
    let (seam, signer) = tdx.mr_seam_and_signer();
    let (owner, owner_config) = tdx.mr_owner_and_config();
    let hex_fields: [(&str, &[u8]); 11] = [
        ("tee_tcb_svn", &tdx.tee_tcb_svn()),
        ("mrseam", &seam),
        ("mrsignerseam", &signer),
        ("td_attributes", &tdx.attributes().bits().to_le_bytes()),
        ("xfam", &tdx.xfam().to_le_bytes()),
        ("mrtd", &claims.measurement()),
        ("mrconfigid", &tdx.mr_config_id()),
        ("mrowner", &owner),
        ("mrownerconfig", &owner_config),
        ("report_data", &claims.report_data()),
        ("mrservicetd", &tdx.mr_service_td().unwrap_or([0; 48])),
    ];
    for (name, bytes) in hex_fields {
        if let Some(other) = fields[name].as_str() {
            assert_eq!(hex::encode(bytes), other, "{name}");
        }
    }
    let rtmrs: Vec<String> = tdx.rtmrs().iter().map(hex::encode).collect();
    assert_eq!(serde_json::json!(rtmrs), fields["rtmr"]);
    assert_eq!(fields["quote_version"], tdx.quote_version());
}

#[test]
fn every_sample_gets_its_verdict() {
    let Some(root) = samples() else { return };
    let mut judged = 0;
    let mut wrong = Vec::new();
    // One cache for all, so that an entry of one sample would show in the verdict of another.
    let mut cache = VerdictCache::new(4);
    for entry in fs::read_dir(root).unwrap() {
        let folder = entry.unwrap().path();
        let (Ok(manifest), Some(_)) = (fs::read(folder.join("manifest.json")), quote(&folder)) else {
            continue;
        };
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        judged += 1;
        let (verdict, expected) =
            (manifest["expect"]["verdict"].as_str().unwrap(), manifest["expect"]["reason"].as_str().unwrap());
        let now = Time::from_unix_seconds(manifest["validation_time"].as_u64().unwrap_or(0));
        let got = judge(&folder, now, &Policy::vendor(), &mut cache);
        if let Ok(claims) = &got {
            assert_read_alike(claims, &manifest["fields"]);
            assert_eq!(claims.tdx().unwrap().tcb_status().as_str(), "UpToDate");
            // The documents behind every recorded quote are of an earlier evaluation than production takes.
            for policy in [Policy::standard(), Policy::strict()] {
                let refusal = judge(&folder, now, &policy, &mut cache).unwrap_err();
                assert!(
                    refusal.by_policy() && refusal.to_string().contains("evaluation-number"),
                    "{refusal}"
                );
            }
        }
        let right = match &got {
            Ok(_) => verdict == "accept",
            // `a-or-b` and `a+b` name two classes that are both right.
            Err(rejected) => {
                let mut classes = expected.split("-or-").flat_map(|part| part.split('+'));
                verdict == "reject" && classes.any(|class| class == rejected.reason.as_str())
            }
        };
        if !right {
            wrong.push(format!("{}: expected {verdict} {expected:?}, got {got:#?}", folder.display()));
        }
    }
    assert!(judged > 0, "the folder holds no quotes");
    assert!(wrong.is_empty(), "{} of {judged} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// MRTD and RTMR0 that others computed from the firmware, in the quote of a machine that ran it.
#[test]
fn a_recorded_quote_has_the_measurements_that_others_computed() {
    let Some(root) = samples() else { return };
    let Ok(values) = fs::read(root.join("tdx-mrtd-known-values/values.json")) else { return };
    let values: Vec<Value> = serde_json::from_slice(&values).unwrap();
    let mut cache = VerdictCache::new(1);
    let mut found = 0;
    for known in values.iter().filter(|known| known["corroborated_by"].is_string()) {
        let words = known["corroborated_by"].as_str().unwrap().split_whitespace();
        let folder = words.map(|word| root.join(word)).find(|folder| quote(folder).is_some()).unwrap();
        let manifest: Value =
            serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
        let now = Time::from_unix_seconds(manifest["validation_time"].as_u64().unwrap());
        let claims = judge(&folder, now, &Policy::vendor(), &mut cache).unwrap();
        assert_eq!(known["mrtd"], hex::encode(claims.measurement()));
        assert_eq!(known["rtmr0"], hex::encode(claims.tdx().unwrap().rtmrs()[0]));
        found += 1;
    }
    assert!(found > 0, "no known value has a quote");
}
