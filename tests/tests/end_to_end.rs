//! The whole path with real programs: keys, sealing, attestation, release, prediction, receipts.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;

use adyton_tests::{CANARY_VERSION, Site};

#[test]
fn a_pulled_key_serves_predictions_with_receipts() {
    let site = Site::new("pull");
    let broker = site.start_broker();
    let host = site.start_host();
    site.wait_until_accepted();

    site.write_rows("rows.csv", "0.5", 5);
    let predicted =
        site.succeed(&["predict", &site.url(), "--input", "rows.csv", "--receipt", "receipt.json", "--json"]);
    let json = predicted.json();
    assert_eq!((&json["rows"], &json["receipts_verified"]), (&5.into(), &1.into()));
    assert_eq!(json["session"]["notice"], "SIMULATED, NOT CONFIDENTIAL");
    for row in json["outputs"].as_array().unwrap() {
        let sum: f64 = row.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "softmax rows add up to one: {row}");
    }

    let verified = site.succeed(&["receipt", "verify", "receipt.json", "--json"]);
    assert_eq!(verified.json()["receipts_verified"], 1);
    let text = site.succeed(&["verify", &site.url()]).stdout;
    assert!(text.starts_with("*** SIMULATED, NOT CONFIDENTIAL ***"), "{text}");

    assert_eq!(host.stop(), Some(0), "a stopped host is a success");
    let gone = site.adyton(&["verify", &site.url(), "--json"]);
    assert_eq!(gone.code, 30, "{gone:?}");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_pushed_key_admits_the_enclave() {
    let site = Site::new("push");
    let _host = site.start_host();
    let before = site.wait_for(|outcome| outcome.code == 20);
    assert_eq!(before.json()["reason"], "admission", "without a key nobody is admitted: {before:?}");
    let pushed = site.adyton(&[
        "key",
        "provision",
        &site.url(),
        "--owner",
        "owner",
        "--manifest",
        "sealed/manifest.cose",
        "--json",
    ]);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    site.wait_until_accepted();
    site.write_rows("rows.csv", "1", 3);
    assert!(
        site.succeed(&["predict", &site.url(), "--input", "rows.csv"]).stdout.contains("receipts verified")
    );
}

#[test]
fn a_known_key_set_needs_no_new_report_and_an_unknown_one_does() {
    let site = Site::new("pull");
    let (_broker, _host) = (site.start_broker(), site.start_host());
    site.wait_until_accepted();
    let verify = || site.succeed(&["verify", &site.url(), "--known", "known.json", "--json"]).json();
    assert_eq!(verify()["fresh"], true);
    let second = verify();
    assert_eq!(second["fresh"], false, "the second time the key set is known: {second}");
    fs::write(
        site.path("trust.toml"),
        fs::read_to_string(site.path("trust.toml")).unwrap() + "\n# changed\n",
    )
    .unwrap();
    assert_eq!(verify()["fresh"], true, "what was learned under other rules is not used");
}

#[test]
fn a_lease_that_is_not_renewed_ends_the_service() {
    let site = Site::new("pull");
    let config = fs::read_to_string(site.path("broker.toml")).unwrap();
    fs::write(site.path("broker.toml"), format!("lease_s = 3\n{config}")).unwrap();
    let broker = site.start_broker();
    let host = site.start_host();
    site.wait_until_accepted();
    drop(broker);
    site.wait_for_message(&host, "model wiped: the lease ended");
    let over = site.adyton(&["verify", &site.url(), "--json"]);
    assert_eq!((over.code, &over.json()["reason"]), (20, &"admission".into()), "{over:?}");
    let _again = site.start_broker();
    site.wait_until_accepted();
}

#[test]
fn a_killed_enclave_comes_back_by_itself_with_other_keys() {
    let site = Site::new("pull");
    let (_broker, host) = (site.start_broker(), site.start_host());
    site.wait_until_accepted();
    let keyset = || site.succeed(&["verify", &site.url(), "--json"]).json()["keyset_id"].clone();
    let before = keyset();
    // The guest is the host's only child.
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", host.pid())).unwrap();
    let killed =
        std::process::Command::new("kill").arg("-9").args(children.split_whitespace()).status().unwrap();
    assert!(killed.success());
    site.wait_for_message(&host, "the enclave ended; starting it again");
    site.wait_until_accepted();
    assert_ne!(keyset(), before, "a new life has new keys");
}

#[test]
fn a_new_model_version_is_served_after_a_restart() {
    let site = Site::new("pull");
    let (broker, host) = (site.start_broker(), site.start_host());
    site.wait_until_accepted();
    let manifest = || site.succeed(&["verify", &site.url(), "--json"]).json()["manifest_id"].clone();
    let first = manifest();
    host.stop();
    broker.stop();
    site.seal("model.safetensors");
    let (_broker, _host) = (site.start_broker(), site.start_host());
    site.wait_until_accepted();
    assert_ne!(manifest(), first);
}

#[test]
fn the_answer_carries_the_models_version() {
    let site = Site::new("pull");
    let (_broker, _host) = (site.start_broker(), site.start_host());
    site.wait_until_accepted();
    site.write_rows("rows.csv", "1", 1);
    site.succeed(&["predict", &site.url(), "--input", "rows.csv", "--receipt", "receipt.json"]);
    let file = adyton_client::ReceiptFile::read(&site.path("receipt.json")).unwrap();
    let answer = String::from_utf8(file.exchanges()[0].response.clone()).unwrap();
    assert!(
        answer.contains(CANARY_VERSION),
        "the canary that other tests search for is really in the answer"
    );
}
