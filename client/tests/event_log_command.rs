//! `adyton evidence show` and `verify` on event logs: recorded ones in place, and small ones made here.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn adyton(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adyton"));
    command.args(arguments).env_remove("ADYTON_JSON").output().unwrap()
}

fn answer(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error} in {output:?}"))
}

#[test]
fn every_recorded_log_alone_replays_and_is_explained() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/evidence");
    let Ok(folders) = fs::read_dir(&shared) else {
        eprintln!("SKIPPED: no folder ../shared/evidence beside the project");
        return;
    };
    let mut judged = 0;
    for folder in folders {
        let folder = folder.unwrap().path().canonicalize().unwrap();
        let Ok(manifest) = fs::read(folder.join("manifest.json")) else { continue };
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let path = folder.to_str().unwrap();
        let has_log = ["ccel.bin", "event-log.json"].iter().any(|name| folder.join(name).exists());
        if has_log {
            let shown = answer(&adyton(&["evidence", "show", path, "--json"]));
            assert!(shown["event_log"]["event_count"].as_u64().unwrap() > 0, "{path}");
        }
        if manifest["kind"] != "event log only" {
            continue;
        }
        let registers = manifest["expect"]["rtmr"].as_object().unwrap();
        let given: Vec<String> = registers
            .iter()
            .map(|(index, value)| format!("--rtmr={index}={}", value.as_str().unwrap()))
            .collect();
        let mut arguments = vec!["evidence", "verify", path, "--json"];
        arguments.extend(given.iter().map(String::as_str));
        let output = adyton(&arguments);
        let judgement = answer(&output);
        assert_eq!(output.status.code(), Some(0), "{path}: {output:?}");
        assert_eq!(judgement["verdict"], manifest["expect"]["verdict"]);
        assert_eq!(judgement["event_count"], manifest["expect"]["event_count"]);
        for (register, value) in manifest["expect"]["rtmr"].as_object().unwrap() {
            assert_eq!(&judgement["rtmr"][register], value, "{path}");
        }
        judged += 1;
    }
    assert!(judged > 0, "no sample is an event log alone");
}

fn log(payload: &str) -> String {
    let event = |register: u32, digest: String| json!({ "imr": register, "event_type": 13, "digest": digest, "event": "", "event_payload": "" });
    let runtime = json!({
        "imr": 3, "event_type": 0x0800_0001, "digest": "", "event": "app\u{1b}[2J", "event_payload": payload,
    });
    json!([event(0, "01".repeat(48)), event(1, "02".repeat(48)), runtime]).to_string()
}

#[test]
fn a_log_is_refused_by_register_and_without_registers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    fs::write(folder.path().join("event-log.json"), log("78")).unwrap();
    let missing = adyton(&["evidence", "verify", path]);
    assert_eq!(missing.status.code(), Some(20), "nothing to compare with: {missing:?}");
    let registers = answer(&adyton(&["evidence", "show", path, "--json"]))["event_log"]["rtmr"].clone();
    fs::write(folder.path().join("rtmrs.json"), registers.to_string()).unwrap();
    let right = adyton(&["evidence", "verify", path, "--json"]);
    assert_eq!((right.status.code(), &answer(&right)["verdict"]), (Some(0), &json!("parse")));

    // Another boot: the registers of this log are no longer its.
    fs::write(folder.path().join("event-log.json"), log("79")).unwrap();
    let stale = adyton(&["evidence", "verify", path, "--json"]);
    let judgement = answer(&stale);
    assert_eq!(stale.status.code(), Some(10), "{stale:?}");
    assert_eq!((&judgement["verdict"], &judgement["reason"]), (&json!("reject"), &json!("rtmr-replay")));
    let failed: Vec<_> =
        judgement["steps"].as_array().unwrap().iter().filter(|step| step["result"] == "fail").collect();
    assert_eq!(failed.len(), 1);
    assert!(failed[0]["detail"].as_str().unwrap().starts_with("RTMR3 does not replay"), "{judgement}");

    let value = format!("1={}", registers["1"].as_str().unwrap());
    let one = adyton(&["evidence", "verify", path, "--rtmr", &value, "--json"]);
    assert_eq!(one.status.code(), Some(0), "only the register asked for: {one:?}");
    let twice = adyton(&["evidence", "verify", path, "--rtmr", &value, "--rtmr", &value]);
    assert_eq!(twice.status.code(), Some(1), "{twice:?}");

    fs::write(folder.path().join("event-log.json"), "[").unwrap();
    let broken = adyton(&["evidence", "verify", path, "--json"]);
    assert_eq!((broken.status.code(), &answer(&broken)["reason"]), (Some(10), &json!("event-log")));
}

#[test]
fn a_log_cannot_play_tricks_on_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("event-log.json");
    fs::write(&path, log("1b5b324a")).unwrap();
    let shown = adyton(&["evidence", "show", path.to_str().unwrap()]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("data matches digest") && text.contains("NOT VERIFIED"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

/// A log beside a quote is not judged as if nobody had to sign its registers.
#[test]
fn a_log_beside_a_quote_is_not_judged_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("event-log.json"), log("78")).unwrap();
    fs::write(folder.path().join("quote.bin"), "not a quote").unwrap();
    let output = adyton(&["evidence", "verify", folder.path().to_str().unwrap(), "--json"]);
    assert_ne!(output.status.code(), Some(0), "{output:?}");
    assert_ne!(answer(&output)["verdict"], "parse");
}
