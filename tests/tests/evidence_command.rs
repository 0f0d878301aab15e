//! `adyton evidence verify FOLDER` and `adyton measure snp`: recorded evidence and published vectors, by the command line.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::fs;
use std::path::Path;

use adyton_tests::Outcome;

#[test]
fn every_recorded_snp_folder_gets_its_verdict() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/evidence");
    let Ok(folders) = fs::read_dir(&shared) else {
        eprintln!("skipped: ../shared/evidence is missing");
        return;
    };
    let mut judged = 0;
    for folder in folders {
        let folder = folder.unwrap().path();
        let Ok(manifest) = fs::read(folder.join("manifest.json")) else { continue };
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let (verdict, reason) = (&manifest["expect"]["verdict"], &manifest["expect"]["reason"]);
        if manifest["tee"] != "sev-snp" || !verdict.is_string() {
            continue;
        }
        let folder = folder.canonicalize().unwrap();
        let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let at = manifest["validation_time_iso"].as_str().unwrap_or("2025-09-01T00:00:00Z").to_owned();
        let mut arguments =
            vec!["evidence", "verify", folder.to_str().unwrap(), "--policy", "vendor", "--at", &at, "--json"];
        let ark = path("ark.der");
        if manifest["trust_anchor"].as_str().is_some_and(|text| text.contains("included ark")) {
            arguments.extend(["--dangerous-trust-anchor", &ark]);
        }
        let note = manifest["note"].as_str().unwrap_or_default();
        let minimum = note.split("minimum is ").nth(1).map(str::to_owned);
        if let Some(minimum) = &minimum {
            arguments.extend(["--min-tcb", minimum]);
        }
        let outcome = Outcome::of("adyton", &arguments, &folder);
        let json = outcome.json();
        let name = folder.file_name().unwrap().to_string_lossy();
        assert_eq!(&json["verdict"], verdict, "{name}: {outcome:?}");
        if verdict == "reject" {
            // Where two refusals are equally right, the manifest names both.
            let got = json["reason"].as_str().unwrap_or_default();
            let mut alternatives = reason.as_str().unwrap_or_default().split("-or-");
            assert!(
                alternatives.any(|reason| reason == got),
                "{name}: {got}, expected {reason}: {outcome:?}"
            );
            assert!(outcome.code == 10 || outcome.code == 20, "{name}: {outcome:?}");
        } else {
            assert_eq!(outcome.code, 0, "{name}");
        }
        judged += 1;
    }
    eprintln!("{judged} folders judged");
    assert!(judged > 20, "only {judged} folders were judged");
}

#[test]
fn every_recorded_quote_folder_gets_its_verdict() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/evidence");
    let Ok(folders) = fs::read_dir(&shared) else {
        eprintln!("skipped: ../shared/evidence is missing");
        return;
    };
    let mut judged = 0;
    for folder in folders {
        let folder = folder.unwrap().path().canonicalize().unwrap();
        let quote = ["quote.bin", "quote.dat"].iter().any(|name| folder.join(name).exists());
        let Ok(manifest) = fs::read(folder.join("manifest.json")) else { continue };
        if !quote {
            continue;
        }
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let expect = &manifest["expect"];
        let at = manifest["validation_time_iso"].as_str().unwrap_or("2025-09-01T00:00:00Z");
        let arguments =
            ["evidence", "verify", folder.to_str().unwrap(), "--policy", "vendor", "--at", at, "--json"];
        let outcome = Outcome::of("adyton", &arguments, &folder);
        let json = outcome.json();
        assert_eq!(json["verdict"], expect["verdict"], "{outcome:?}");
        if expect["verdict"] == "reject" {
            let got = json["reason"].as_str().unwrap();
            let mut classes =
                expect["reason"].as_str().unwrap().split("-or-").flat_map(|part| part.split('+'));
            assert!(classes.any(|class| class == got), "{got}, expected {expect}: {outcome:?}");
            assert!(outcome.code == 10 || outcome.code == 20, "{outcome:?}");
        } else {
            assert_eq!((outcome.code, &json["tdx"]["tcb_status"]), (0, &"UpToDate".into()), "{outcome:?}");
            assert_eq!(json["measurement"], manifest["fields"]["mrtd"]);
            // The quote alone: shown, and refused for what is missing.
            let alone = tempfile::tempdir().unwrap();
            fs::copy(folder.join("quote.bin"), alone.path().join("quote.bin")).unwrap();
            let path = alone.path().to_str().unwrap();
            let shown = Outcome::of("adyton", &["evidence", "show", path, "--json"], &folder);
            assert_eq!(shown.json()["claims"]["mr_td"], manifest["fields"]["mrtd"]);
            let arguments = ["evidence", "verify", path, "--policy", "vendor", "--at", at, "--json"];
            let refused = Outcome::of("adyton", &arguments, &folder);
            assert_eq!((refused.code, &refused.json()["reason"]), (10, &"endorsement-missing".into()));
            assert!(refused.json()["steps"].to_string().contains("TCB info"), "{refused:?}");
        }
        judged += 1;
    }
    assert!(judged > 20, "only {judged} folders were judged");
}

#[test]
fn every_published_launch_digest_comes_out_of_the_command() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/evidence/snp-launch-measurement");
    let Ok(vectors) = fs::read(folder.join("vectors.json")) else {
        eprintln!("skipped: ../shared/evidence/snp-launch-measurement is missing");
        return;
    };
    let (folder, empty) = (folder.canonicalize().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let vectors: Vec<serde_json::Value> = serde_json::from_slice(&vectors).unwrap();
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
