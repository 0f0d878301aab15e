//! `adyton evidence verify FOLDER` and `adyton measure snp`: recorded evidence and published vectors, by the command line.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use adyton_tests::Outcome;
use serde_json::{Value, json};

/// Recorded folders with their manifests; says so aloud where there are none.
fn folders() -> Vec<(PathBuf, Value)> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/evidence");
    let Ok(entries) = fs::read_dir(&shared) else {
        eprintln!("skipped: ../shared/evidence is missing");
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path().canonicalize().unwrap());
    let read = |folder: PathBuf| {
        let manifest = fs::read(folder.join("manifest.json")).ok()?;
        Some((folder, serde_json::from_slice(&manifest).unwrap()))
    };
    let found: Vec<_> = paths.filter_map(read).collect();
    assert!(found.len() > 40, "only {} folders", found.len());
    found
}

/// Judges `path` at the manifest's time, and compares verdict, class of reason and exit status.
fn judge(path: &Path, manifest: &Value, more: &[&str]) -> Value {
    let at = manifest["validation_time_iso"].as_str().unwrap_or("2025-09-01T00:00:00Z");
    let arguments =
        ["evidence", "verify", path.to_str().unwrap(), "--policy", "vendor", "--at", at, "--json"];
    let outcome = Outcome::of("adyton", &[&arguments, more].concat(), path);
    let (json, expect) = (outcome.json(), &manifest["expect"]);
    assert_eq!(json["verdict"], expect["verdict"], "{path:?}: {outcome:?}");
    if expect["verdict"] == "reject" {
        // Where refusals are equally right, the manifest names all.
        let got = json["reason"].as_str().unwrap();
        let mut classes = expect["reason"].as_str().unwrap().split("-or-").flat_map(|part| part.split('+'));
        assert!(classes.any(|class| class == got), "{path:?}: {got}, expected {expect}: {outcome:?}");
        assert!(outcome.code == 10 || outcome.code == 20, "{path:?}: {outcome:?}");
    } else {
        assert_eq!(outcome.code, 0, "{path:?}: {outcome:?}");
    }
    json
}

#[test]
fn every_recorded_snp_folder_gets_its_verdict() {
    let folders = folders();
    let reports = folders
        .iter()
        .filter(|(_, manifest)| manifest["tee"] == "sev-snp" && manifest["expect"]["verdict"].is_string());
    let mut judged = 0;
    for (folder, manifest) in reports {
        let ark = folder.join("ark.der").to_string_lossy().into_owned();
        let mut more = Vec::new();
        if manifest["trust_anchor"].as_str().is_some_and(|text| text.contains("included ark")) {
            more.extend(["--dangerous-trust-anchor", &ark]);
        }
        let note = manifest["note"].as_str().unwrap_or_default();
        if let Some(minimum) = note.split("minimum is ").nth(1) {
            more.extend(["--min-tcb", minimum]);
        }
        judge(folder, manifest, &more);
        judged += 1;
    }
    eprintln!("{judged} folders judged");
    assert!(folders.is_empty() || judged > 20, "only {judged} folders were judged");
}

#[test]
fn every_recorded_quote_folder_gets_its_verdict() {
    let folders = folders();
    let has_quote = |folder: &Path| ["quote.bin", "quote.dat"].iter().any(|name| folder.join(name).exists());
    let mut judged = 0;
    for (folder, manifest) in folders.iter().filter(|(folder, _)| has_quote(folder)) {
        let json = judge(folder, manifest, &[]);
        judged += 1;
        if manifest["expect"]["verdict"] == "reject" {
            continue;
        }
        assert_eq!(json["tdx"]["tcb_status"], "UpToDate", "{folder:?}");
        assert_eq!(json["measurement"], manifest["fields"]["mrtd"]);
        // The quote alone: shown, and refused for what is missing.
        let alone = tempfile::tempdir().unwrap();
        fs::copy(folder.join("quote.bin"), alone.path().join("quote.bin")).unwrap();
        let path = alone.path().to_str().unwrap();
        let shown = Outcome::of("adyton", &["evidence", "show", path, "--json"], folder);
        assert_eq!(shown.json()["claims"]["mr_td"], manifest["fields"]["mrtd"]);
        let mut missing = manifest.clone();
        missing["expect"] = json!({ "verdict": "reject", "reason": "endorsement-missing" });
        let refused = judge(alone.path(), &missing, &[]);
        assert!(refused["steps"].to_string().contains("TCB info"), "{refused}");
    }
    assert!(folders.is_empty() || judged > 20, "only {judged} folders were judged");
}

#[test]
fn every_published_launch_digest_comes_out_of_the_command() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/evidence/snp-launch-measurement");
    let Ok(vectors) = fs::read(folder.join("vectors.json")) else {
        eprintln!("skipped: ../shared/evidence/snp-launch-measurement is missing");
        return;
    };
    let (folder, empty) = (folder.canonicalize().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let vectors: Vec<Value> = serde_json::from_slice(&vectors).unwrap();
    assert!(!vectors.is_empty());
    for vector in &vectors {
        let text = |name: &str| vector[name].as_str().map(str::to_owned);
        let file = |name: &str| match text(name).as_deref() {
            Some("empty") => Some(empty.path().to_string_lossy().into_owned()),
            other => other.map(|file| folder.join(file).to_string_lossy().into_owned()),
        };
        let mut arguments: Vec<String> = ["measure", "snp", "--json", "--vcpus"].map(str::to_owned).into();
        arguments.push(vector["vcpus"].to_string());
        let named =
            [("--firmware", file("ovmf")), ("--kernel", file("kernel")), ("--vcpu-type", text("vcpu_type"))];
        let more = [("--guest-features", text("guest_features")), ("--vmm", text("vmm"))];
        let kernel = [("--initrd", file("initrd")), ("--cmdline", text("append"))];
        let kernel = kernel.into_iter().filter(|_| vector["kernel"].is_string());
        for (flag, value) in named.into_iter().chain(more).chain(kernel) {
            arguments.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value]));
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let outcome = Outcome::of("adyton", &arguments, &folder);
        let expected = match vector["kind"].as_str().unwrap() {
            "must-fail" => {
                assert_eq!(outcome.code, 1, "{vector}: {outcome:?}");
                continue;
            }
            "tools-disagree" => &vector["candidates"]["sev_snp_measure_0_0_13"],
            _ => &vector["expected"],
        };
        assert_eq!(&outcome.json()["measurement"], expected, "{vector}: {outcome:?}");
    }
}
