//! The host as adversary: each row of the threat model that this path touches ends in a named error, and nothing leaks.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;

use adyton_tests::{
    CANARY_VERSION, FEATURES, Outcome, Running, Site, Tap, canary_weights, free_port, holds, memory, program,
};

fn refused(outcome: &Outcome, code: i32, reason: &str) {
    assert_eq!(outcome.code, code, "{outcome:?}");
    assert_eq!(outcome.json()["reason"], reason, "{outcome:?}");
}

/// Starts broker and host; the model must never be served.
fn never_ready(site: &Site, message: &str) -> (Running, Running) {
    let (broker, host) = (site.start_broker(), site.start_host());
    site.wait_for_message(&host, message);
    assert!(!host.messages().contains("ready: the model is released"), "{}", host.messages());
    refused(&site.adyton(&["verify", &site.url(), "--json"]), 20, "admission");
    (broker, host)
}

/// Changes the sealed file in place.
fn change_sealed(site: &Site, change: impl FnOnce(&mut Vec<u8>)) {
    let path = site.sealed_file();
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_flipped_byte_of_the_sealed_model_is_refused() {
    let site = Site::new("pull");
    change_sealed(&site, |bytes| *bytes.last_mut().unwrap() ^= 1);
    never_ready(&site, "sealed model refused");
}

#[test]
fn a_truncated_sealed_model_is_refused() {
    let site = Site::new("pull");
    change_sealed(&site, |bytes| bytes.truncate(bytes.len() - 1));
    never_ready(&site, "sealed model refused");
}

#[test]
fn an_extended_sealed_model_is_refused() {
    let site = Site::new("pull");
    change_sealed(&site, |bytes| bytes.push(0));
    never_ready(&site, "sealed model refused");
}

#[test]
fn another_version_under_the_name_of_this_one_is_refused() {
    let site = Site::new("pull");
    let old = fs::read(site.sealed_file()).unwrap();
    site.seal("model.safetensors");
    fs::write(site.sealed_file(), old).unwrap();
    never_ready(&site, "not the file of the manifest");
}

#[test]
fn an_older_version_is_not_released_after_a_newer_one() {
    let site = Site::new("pull");
    let old = fs::read(site.path("sealed/manifest.cose")).unwrap();
    site.seal("model.safetensors");
    let (broker, host) = (site.start_broker(), site.start_host());
    site.wait_until_accepted();
    host.stop();
    broker.stop();
    fs::write(site.path("sealed/manifest.cose"), old).unwrap();
    let (broker, _host) = never_ready(&site, "the broker refused to release the key (rollback)");
    assert!(broker.messages().contains("counter 1 is older than 2"), "{}", broker.messages());
}

#[test]
fn an_enclave_with_one_changed_byte_gets_no_key_and_no_client() {
    let site = Site::new("pull");
    let mut enclave = fs::read(program("adyton-enclave")).unwrap();
    // A byte after the end of what is loaded: the program runs as before, and is another one all the same.
    enclave.push(0);
    fs::write(site.path("adyton-enclave"), enclave).unwrap();
    site.write_host();
    let (broker, host) = (site.start_broker(), site.start_host());
    site.wait_for_message(&host, "the broker refused to release the key (measurement)");
    assert!(broker.messages().contains("measurement"), "the owner's log has the step");
    refused(&site.adyton(&["verify", &site.url(), "--json"]), 20, "measurement");
}

#[test]
fn a_changed_launch_document_gets_no_key_and_no_client() {
    let site = Site::new("pull");
    site.write_document("pull", "[limits]\nmax_rows = 1\n");
    let (_broker, host) = (site.start_broker(), site.start_host());
    site.wait_for_message(&host, "the broker refused to release the key (measurement)");
    refused(&site.adyton(&["verify", &site.url(), "--json"]), 20, "measurement");
}

#[test]
fn a_machine_that_is_not_on_the_list_is_refused() {
    let site = Site::new("pull");
    let (_broker, _host) = (site.start_broker(), site.start_host());
    site.wait_until_accepted();
    site.write_trust(&format!("platform_ids = ['{}']\n", "0".repeat(64)));
    refused(&site.adyton(&["verify", &site.url(), "--json"]), 20, "chip-allowlist");
}

#[test]
fn no_production_policy_accepts_a_simulator() {
    let site = Site::new("pull");
    let (_broker, _host) = (site.start_broker(), site.start_host());
    site.wait_until_accepted();
    let trust = fs::read_to_string(site.path("trust.toml")).unwrap();
    for policy in ["standard", "strict"] {
        let production =
            trust.replace("dangerous_simulator_root = 'simulator/root.der'", &format!("policy = '{policy}'"));
        fs::write(site.path("trust.toml"), production).unwrap();
        let outcome = site.adyton(&["verify", &site.url(), "--json"]);
        refused(&outcome, 10, "simulated");
    }
}

#[test]
fn a_simulator_with_another_root_is_refused() {
    let site = Site::new("pull");
    let (_broker, _host) = (site.start_broker(), site.start_host());
    site.wait_until_accepted();
    let other = Outcome::of("adyton-simulator", &["setup", "--dir", "other"], site.folder.path());
    assert_eq!(other.code, 0, "{other:?}");
    let trust = fs::read_to_string(site.path("trust.toml")).unwrap();
    fs::write(site.path("trust.toml"), trust.replace("simulator/root.der", "other/root.der")).unwrap();
    refused(&site.adyton(&["verify", &site.url(), "--json"]), 10, "untrusted-root");
}

#[test]
fn an_enclave_admitted_by_another_owner_is_refused() {
    let site = Site::new("pull");
    let (_broker, _host) = (site.start_broker(), site.start_host());
    site.wait_until_accepted();
    site.succeed(&["key", "new", "--owner", "other"]);
    let own = fs::read_to_string(site.path("owner/owner.pub")).unwrap();
    let other = fs::read_to_string(site.path("other/owner.pub")).unwrap();
    let trust = fs::read_to_string(site.path("trust.toml")).unwrap();
    fs::write(site.path("trust.toml"), trust.replace(own.trim(), other.trim())).unwrap();
    refused(&site.adyton(&["verify", &site.url(), "--json"]), 20, "admission");
}

#[test]
fn another_model_than_the_one_asked_for_is_refused() {
    let site = Site::new("pull");
    let (_broker, _host) = (site.start_broker(), site.start_host());
    site.wait_until_accepted();
    let trust = fs::read_to_string(site.path("trust.toml")).unwrap();
    fs::write(site.path("trust.toml"), trust.replace("'any'", &format!("['{}']", "ab".repeat(32)))).unwrap();
    refused(&site.adyton(&["verify", &site.url(), "--json"]), 20, "manifest");
}

#[test]
fn receipts_hold_for_their_request_answer_and_session_only() {
    let site = Site::new("pull");
    let (_broker, _host) = (site.start_broker(), site.start_host());
    site.wait_until_accepted();
    site.write_rows("rows.csv", "0.5", 2);
    for name in ["one.json", "two.json"] {
        site.succeed(&["predict", &site.url(), "--input", "rows.csv", "--receipt", name]);
    }
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(site.path(name)).unwrap()).unwrap()
    };
    let (one, two) = (read("one.json"), read("two.json"));
    let judge = |file: &serde_json::Value| {
        fs::write(site.path("edited.json"), file.to_string()).unwrap();
        let outcome = site.adyton(&["receipt", "verify", "edited.json", "--json"]);
        if outcome.code == 40 {
            let steps = outcome.json()["steps"].clone();
            let failed = steps.as_array().unwrap().iter().filter(|step| step["result"] == "fail").count();
            assert_eq!((failed, &outcome.json()["reason"]), (1, &"receipt".into()), "{outcome:?}");
        }
        outcome.code
    };
    assert_eq!(judge(&one), 0);
    for field in ["request", "response", "receipt", "path"] {
        let mut edited = one.clone();
        edited["exchanges"][0][field] = match field {
            "path" => "/v2/models/other/infer".into(),
            _ => "QUJD".into(),
        };
        assert_eq!(judge(&edited), 40, "an edited {field} is noticed");
    }
    let mut spliced = one.clone();
    spliced["exchanges"][0] = two["exchanges"][0].clone();
    assert_eq!(judge(&spliced), 40, "a receipt of another session is noticed");
    let mut doubled = one.clone();
    let again = one["exchanges"][0].clone();
    doubled["exchanges"].as_array_mut().unwrap().push(again);
    assert_eq!(judge(&doubled), 40, "the same receipt twice is noticed");
    for field in ["hello", "answer", "exporter", "tls_spki"] {
        let mut edited = one.clone();
        edited["session"][field] = two["session"][field].clone();
        let verdict = judge(&edited);
        if field == "tls_spki" {
            assert_eq!(verdict, 0, "both sessions saw the same key");
        } else {
            assert_eq!(verdict, 10, "an exchanged {field} is noticed");
        }
    }
}

#[test]
fn nothing_of_prompt_answer_key_or_weights_reaches_the_host() {
    let mut site = Site::new("pull");
    // The host relays to the tap, the tap to the enclave: it keeps every byte that crosses the boundary.
    site.relay_target = free_port();
    site.write_host();
    let tap = Tap::start(site.relay_target, site.enclave_port);
    let broker = site.start_broker();
    let host = site.start_host();
    site.wait_until_accepted();
    let prompt = "0.7319082450866699";
    site.write_rows("rows.csv", prompt, 50);
    site.succeed(&["predict", &site.url(), "--input", "rows.csv", "--receipt", "receipt.json"]);

    let weights: Vec<u8> = canary_weights().iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let sent = adyton_client::ReceiptFile::read(&site.path("receipt.json")).unwrap();
    let kek_text = fs::read_to_string(site.path("owner/model.kek")).unwrap();
    let kek = hex::decode(kek_text.split_whitespace().nth(2).unwrap()).unwrap();
    let prompt_bytes = 0.731_908_25_f32.to_le_bytes();
    let canaries: [(&str, &[u8]); 6] = [
        ("weights", &weights[..32]),
        ("prompt as sent", b"0.7319082"),
        ("answer", CANARY_VERSION.as_bytes()),
        ("key", &kek),
        ("model name in the answer", b"\"model_name\""),
        ("request", b"\"datatype\""),
    ];
    // The canaries are where they should be, so that finding none elsewhere means something.
    let model = fs::read(site.path("model.safetensors")).unwrap();
    assert!(holds(&model, &weights[..32]) && weights.len() == 8 * FEATURES);
    assert!(holds(&sent.exchanges()[0].request, b"0.7319082") && prompt_bytes.len() == 4);
    assert!(holds(&sent.exchanges()[0].response, CANARY_VERSION.as_bytes()));

    let recorded = tap.recorded();
    assert!(recorded.len() > 10_000, "the tap saw the traffic");
    let memory = memory(host.pid());
    assert!(holds(&memory, site.client_port.to_string().as_bytes()), "the host's memory was really read");
    let mut places = vec![("wire".to_owned(), recorded), ("host memory".to_owned(), memory)];
    let mut folders = vec![site.path("sealed"), site.path("simulator")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                places.push((path.display().to_string(), fs::read(path).unwrap()));
            }
        }
    }
    for log in [&host.log, &broker.log] {
        places.push((log.display().to_string(), fs::read(log).unwrap()));
    }
    for (place, bytes) in &places {
        for (canary, needle) in &canaries {
            assert!(!holds(bytes, needle), "{canary} found in {place}");
        }
    }
}
