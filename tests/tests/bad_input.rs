//! Bad input ends in a message that says what to do, with the right exit status, and leaves nothing half done.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::net::TcpListener;

use adyton_tests::{Outcome, Running, Site};

fn message(outcome: &Outcome, code: i32, words: &[&str]) {
    assert_eq!(outcome.code, code, "{outcome:?}");
    for word in words {
        assert!(outcome.stderr.contains(word), "no {word:?} in {outcome:?}");
    }
}

fn names(site: &Site, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(site.path(folder)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn files_that_are_missing_or_wrong_are_named() {
    let site = Site::new("pull");
    site.write_rows("rows.csv", "x", 1);
    message(&site.adyton(&["verify", &site.url(), "--trust", "nowhere.toml"]), 1, &["nowhere.toml"]);
    message(&site.adyton(&["predict", &site.url(), "--input", "nowhere.csv"]), 1, &["nowhere.csv"]);
    message(&site.adyton(&["model", "seal", "nowhere", "--owner", "owner", "--name", "x"]), 1, &["nowhere"]);
    message(&site.adyton(&["key", "new", "--owner", "owner"]), 1, &["exists", "owner"]);
    message(&site.adyton(&["verify", "not an address"]), 1, &["host:port"]);
    message(&site.adyton(&["verify", &site.url()]), 30, &["cannot reach"]);
    message(&site.adyton(&["receipt", "verify", "rows.csv"]), 1, &["rows.csv is not a receipt file"]);
    message(&site.adyton(&["evidence", "verify", "rows.csv"]), 10, &["refused: size"]);
    message(&site.adyton(&["nonsense"]), 1, &["nonsense"]);
}

#[test]
fn an_unknown_configuration_key_is_named_everywhere() {
    let site = Site::new("pull");
    for file in ["trust.toml", "broker.toml", "host.toml"] {
        let text = fs::read_to_string(site.path(file)).unwrap();
        fs::write(site.path(file), format!("surprising_key = 1\n{text}")).unwrap();
    }
    message(&site.adyton(&["verify", &site.url()]), 1, &["trust.toml", "surprising_key"]);
    message(&site.adyton(&["broker", "serve"]), 1, &["broker.toml", "surprising_key"]);
    let host = Outcome::of("adyton-host", &["serve"], site.folder.path());
    message(&host, 1, &["host.toml", "surprising_key"]);
    let site = Site::new("push");
    site.write_document("push", "[limits]\nsurprising_key = 1\n");
    let host = site.start_host();
    site.wait_for_message(&host, "surprising_key");
}

#[test]
fn a_taken_port_is_named() {
    let site = Site::new("pull");
    let _taken =
        [TcpListener::bind(site.url()).unwrap(), TcpListener::bind(("127.0.0.1", site.broker_port)).unwrap()];
    let host = Outcome::of("adyton-host", &["serve"], site.folder.path());
    message(&host, 1, &["already in use", &site.client_port.to_string()]);
    let broker = site.adyton(&["broker", "serve"]);
    message(&broker, 1, &["already in use", &site.broker_port.to_string()]);
}

#[test]
fn a_full_disk_while_sealing_leaves_no_file_under_its_final_name() {
    let site = Site::new("pull");
    fs::write(site.path("big"), vec![7; 3 << 20]).unwrap();
    let before = names(&site, "sealed");
    // A limit on the size of files stands in for a full disk: the write fails in the middle all the same. Its signal is
    // ignored, as nobody sends one when a disk is full.
    let program = adyton_tests::program("adyton");
    let script = format!(
        "trap '' XFSZ; ulimit -f 1024; exec {} model seal big --owner owner --name big --out sealed",
        program.display()
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir(site.folder.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && stderr.contains("no space"), "{output:?}");
    assert_eq!(names(&site, "sealed"), before, "neither a sealed file nor a partial one is left");
}

#[test]
fn a_wrong_model_key_is_refused_by_the_broker_at_start() {
    let site = Site::new("pull");
    site.succeed(&["key", "new", "--owner", "other"]);
    fs::copy(site.path("other/model.kek"), site.path("owner/model.kek")).unwrap();
    message(&site.adyton(&["broker", "serve"]), 1, &["no key is held"]);
}

#[test]
fn a_model_sealed_for_another_policy_is_not_released() {
    let site = Site::new("pull");
    let config = fs::read_to_string(site.path("broker.toml")).unwrap();
    fs::write(site.path("broker.toml"), config.replace("canary-v1", "laxer")).unwrap();
    message(&site.adyton(&["broker", "serve"]), 1, &["release policy", "canary-v1", "laxer"]);
}

#[test]
fn a_manifest_of_another_owner_is_refused() {
    let site = Site::new("pull");
    site.succeed(&["key", "new", "--owner", "other"]);
    let seal =
        ["model", "seal", "model.safetensors", "--owner", "other", "--name", "canary", "--out", "sealed"];
    message(&site.adyton(&seal), 40, &["not this owner's"]);
    site.succeed(&[
        "model",
        "seal",
        "model.safetensors",
        "--owner",
        "other",
        "--name",
        "canary",
        "--out",
        "foreign",
    ]);
    fs::copy(site.path("foreign/manifest.cose"), site.path("sealed/manifest.cose")).unwrap();
    message(&site.adyton(&["broker", "serve"]), 40, &["manifest", "owner's key"]);
    let mut host = site.start_host();
    assert_eq!(host.ended(), Some(1), "an enclave that refuses its manifest ends, again and again");
    assert!(host.messages().contains("manifest does not verify"), "{}", host.messages());
}

#[test]
fn rows_that_do_not_fit_are_refused_before_they_are_sent() {
    let site = Site::new("pull");
    let (_broker, _host): (Running, Running) = (site.start_broker(), site.start_host());
    site.wait_until_accepted();
    fs::write(site.path("short.csv"), "a,b\n1,2\n").unwrap();
    message(&site.adyton(&["predict", &site.url(), "--input", "short.csv"]), 1, &["8 features", "has 2"]);
    site.write_rows("words.csv", "word", 1);
    message(
        &site.adyton(&["predict", &site.url(), "--input", "words.csv"]),
        1,
        &["line 2, column 1", "word"],
    );
    site.write_rows("missing.csv", "", 1);
    message(&site.adyton(&["predict", &site.url(), "--input", "missing.csv"]), 1, &["missing"]);
}

#[test]
fn requests_beyond_the_limits_are_refused_and_the_service_goes_on() {
    let site = Site::new("pull");
    site.write_document("pull", "[limits]\nmax_request_bytes = 1000\nmax_rows = 4\n");
    site.write_trust("");
    site.write_broker();
    let (_broker, _host): (Running, Running) = (site.start_broker(), site.start_host());
    site.wait_until_accepted();
    site.write_rows("long.csv", "1", 200);
    message(
        &site.adyton(&["predict", &site.url(), "--input", "long.csv"]),
        1,
        &["413", "longer than this service allows"],
    );
    site.write_rows("many.csv", "1", 5);
    message(&site.adyton(&["predict", &site.url(), "--input", "many.csv"]), 1, &["413", "number of rows"]);
    site.succeed(&["predict", &site.url(), "--input", "many.csv", "--limit", "4"]);
}
