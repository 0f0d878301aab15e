//! SNP launch measurements against published vectors, read in place.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests read files")]

use std::path::{Path, PathBuf};

use adyton_attestation::measurement::snp::{Kernel, Launch, LaunchError, VcpuSignature, Vmm, measure};
use serde_json::Value;

fn vectors_dir() -> Option<PathBuf> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|dir| dir.join("Cargo.lock").exists())?;
    let dir = root.join("../shared/evidence/snp-launch-measurement");
    dir.exists().then_some(dir)
}

fn read(dir: &Path, value: &Value) -> Option<Vec<u8>> {
    match value.as_str()? {
        "empty" => Some(Vec::new()),
        name => Some(std::fs::read(dir.join(name)).unwrap()),
    }
}

#[test]
fn published_vectors() {
    let Some(dir) = vectors_dir() else {
        eprintln!("skipped: ../shared/evidence/snp-launch-measurement is not here");
        return;
    };
    let vectors: Vec<Value> =
        serde_json::from_slice(&std::fs::read(dir.join("vectors.json")).unwrap()).unwrap();
    let manifest: Value = serde_json::from_slice(&std::fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    assert!(!vectors.is_empty());
    for vector in &vectors {
        let firmware = std::fs::read(dir.join(vector["ovmf"].as_str().unwrap())).unwrap();
        let (kernel, initrd) = (read(&dir, &vector["kernel"]), read(&dir, &vector["initrd"]));
        let kernel = kernel.as_deref().map(|kernel| Kernel {
            kernel,
            initrd: initrd.as_deref().unwrap_or_default(),
            cmdline: vector["append"].as_str().unwrap_or_default(),
        });
        let features = vector["guest_features"].as_str().unwrap().trim_start_matches("0x");
        let got = measure(&Launch {
            firmware: &firmware,
            svsm: None,
            kernel,
            vcpus: vector["vcpus"].as_u64().unwrap().try_into().unwrap(),
            vcpu_signature: VcpuSignature::from_model_name(vector["vcpu_type"].as_str().unwrap()).unwrap(),
            guest_features: u64::from_str_radix(features, 16).unwrap(),
            vmm: Vmm::from_name(vector["vmm"].as_str().unwrap()).unwrap(),
        });
        match vector["kind"].as_str().unwrap() {
            "launch-digest" => {
                let got = got.unwrap();
                assert_eq!(hex::encode(got.digest), vector["expected"].as_str().unwrap(), "{vector}");
                assert_eq!(got.steps.last().unwrap().digest, got.digest);
                if vector["ovmf"] == "ovmf_AmdSev_suffix.bin" {
                    let known = &manifest["extra"]["snp_ovmf_hash_AmdSev_suffix"];
                    assert_eq!(
                        hex::encode(got.steps[0].digest),
                        known.as_str().unwrap(),
                        "after the firmware"
                    );
                }
            }
            "tools-disagree" => {
                let got = got.unwrap();
                let chosen = &vector["candidates"]["sev_snp_measure_0_0_13"];
                assert_eq!(hex::encode(got.digest), chosen.as_str().unwrap(), "{vector}");
                assert!(got.note.is_some(), "a disputed digest says so");
            }
            "must-fail" => assert_eq!(got.unwrap_err(), LaunchError::KernelNotMeasured, "{vector}"),
            other => panic!("vector of unknown kind {other}"),
        }
    }
}
