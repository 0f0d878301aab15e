//! The whole path with the enclave as the only program of a virtual machine: measured before it was ever started, booted
//! by the host, attested from outside, given its key, asked, and stopped.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use adyton_tests::{
    CANARY_VERSION, Machine, canary_weights, change_description, change_file, greedy_answer, holds,
    language_canary, language_model, memory,
};

#[test]
fn a_predicted_machine_boots_attests_serves_and_stops() {
    let Some(machine) = Machine::new() else { return };
    let site = &machine.site;
    // Client and broker know the publisher's key, and nothing of this build but what that key signed.
    machine.expect_release("image");
    let (broker, host) = (site.start_broker(), site.start_host());
    machine.wait_until_accepted(&host);
    let verified = site.succeed(&["verify", &site.url(), "--json"]).json();
    assert_eq!(verified["notice"], "SIMULATED, NOT CONFIDENTIAL", "{verified}");

    site.write_rows("rows.csv", "0.5", 5);
    let predicted =
        site.succeed(&["predict", &site.url(), "--input", "rows.csv", "--receipt", "receipt.json", "--json"]);
    assert_eq!(predicted.json()["receipts_verified"], 1);
    let file = adyton_client::ReceiptFile::read(&site.path("receipt.json")).unwrap();
    let answer = String::from_utf8(file.exchanges()[0].response.clone()).unwrap();
    assert!(answer.contains(CANARY_VERSION), "{answer}");

    let messages = host.messages();
    assert!(messages.contains("first program of this machine, confined"), "{messages}");
    assert!(!messages.contains("Linux version"), "the kernel says nothing to the host: {messages}");
    let log = host.log.clone();
    assert_eq!(host.stop(), Some(0), "a stopped host is a success");
    let messages = fs::read_to_string(log).unwrap();
    assert!(
        messages.contains("asked to stop") && messages.contains("model wiped: the enclave stops"),
        "{messages}"
    );
    let gone = site.adyton(&["verify", &site.url(), "--json"]);
    assert_eq!(gone.code, 30, "{gone:?}");
    assert_eq!(broker.stop(), Some(0));
}

/// Three machines side by side, each one byte off: all boot and ask for the key, and none gets it.
#[test]
fn one_changed_byte_in_kernel_initramfs_or_command_line_gets_no_key() {
    let Some(machine) = Machine::new() else { return };
    let site = &machine.site;
    let flip = |bytes: &mut Vec<u8>, at: usize| bytes[at] ^= 1;
    // Bytes that nothing reads: of a warning for those who start a kernel without EFI, and of a file's time.
    let note = b"Ancient bootloader";
    machine.copy_image("kernel", |image| {
        change_file(image, "vmlinuz", |bytes| {
            let at = bytes.windows(note.len()).position(|window| window == note).unwrap();
            flip(bytes, at);
        });
    });
    machine.copy_image("initramfs", |image| {
        change_file(image, "guest.cpio", |bytes| flip(bytes, 6 + 8 * 5 + 7));
    });
    machine.copy_image("line", |image| change_description(image, "\"quiet ", "\"quiet  "));
    machine.write_host(&["kernel", "initramfs", "line"], "");
    let (broker, host) = (site.start_broker(), site.start_host());
    for name in ["kernel", "initramfs", "line"] {
        let refused = format!("{name} console: ");
        machine.wait_for(|_| {
            let messages = host.messages();
            let mut lines = messages.lines();
            lines.any(|line| {
                line.contains(&refused)
                    && line.contains("the broker refused to release the key (measurement)")
            })
        });
    }
    let messages = host.messages();
    assert!(
        messages.matches("the broker refused to release the key (measurement)").count() >= 3,
        "{messages}"
    );
    assert!(!messages.contains("ready: the model is released"), "{messages}");
    assert!(broker.messages().contains("measurement"), "the owner's log has the step");
    let outcome = machine.wait_for(|outcome| outcome.code != 30);
    assert_eq!((outcome.code, &outcome.json()["reason"]), (20, &"measurement".into()), "{outcome:?}");
    // Each of the three is another machine, and none is the one expected.
    let predicted = ["image", "kernel", "initramfs", "line"].map(|name| machine.predict(name));
    for (at, one) in predicted.iter().enumerate() {
        assert!(predicted.iter().skip(at + 1).all(|other| other != one), "{predicted:?}");
    }
}

#[test]
fn machines_side_by_side_take_clients_in_turn() {
    let Some(machine) = Machine::new() else { return };
    let site = &machine.site;
    machine.write_host(&["one", "two"], "");
    let (_broker, host) = (site.start_broker(), site.start_host());
    for ready in ["one console: ", "two console: "] {
        machine.wait_for(|_| {
            let messages = host.messages();
            let mut lines = messages.lines();
            lines.any(|line| line.contains(ready) && line.contains("ready: the model is released"))
        });
    }
    let keysets: BTreeSet<String> = (0..4)
        .map(|_| site.succeed(&["verify", &site.url(), "--json"]).json()["keyset_id"].to_string())
        .collect();
    assert_eq!(keysets.len(), 2, "each machine has its own keys: {}", host.messages());
}

#[test]
fn a_machine_that_never_answers_is_ended_and_started_again() {
    let Some(machine) = Machine::new() else { return };
    let wrapper = machine.site.path("sleeps");
    fs::write(&wrapper, "#!/bin/sh\nexec sleep 600\n").unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    machine.write_host(&["one"], &format!("qemu = '{}'\nboot_limit_s = 1\n", wrapper.display()));
    let host = machine.site.start_host();
    machine.wait_for_message(&host, "its service does not answer; starting it again pause_ms=250");
    machine.wait_for_message(&host, "its service does not answer; starting it again pause_ms=500");
    assert_eq!(
        machine.site.adyton(&["verify", &machine.site.url(), "--json"]).code,
        30,
        "clients see a clean error"
    );
}

#[test]
fn a_changed_launch_document_gets_no_key() {
    let Some(machine) = Machine::new() else { return };
    let site = &machine.site;
    // After client and broker were told what to expect.
    machine.write_document("[limits]\nmax_rows = 1\n");
    let (_broker, host) = (site.start_broker(), site.start_host());
    machine.wait_for_message(&host, "the broker refused to release the key (host-data)");
    let outcome = machine.wait_for(|outcome| outcome.code != 30);
    assert_eq!((outcome.code, &outcome.json()["reason"]), (20, &"host-data".into()), "{outcome:?}");
}

/// The launcher has a check of its own before anything starts; what it lets pass is refused by whoever verifies.
#[test]
fn the_launcher_refuses_what_cannot_be_measured() {
    let Some(machine) = Machine::new() else { return };
    let site = &machine.site;
    let refusal = |why: &str| {
        let host =
            adyton_tests::Outcome::of("adyton-host", &["serve", "--config", "host.toml"], site.folder.path());
        assert_eq!(host.code, 1, "{host:?}");
        assert!(host.stderr.contains(why), "{why} is not in {host:?}");
    };
    let fixture = fs::read(site.path("OVMF.fd")).unwrap();
    fs::copy("/usr/share/ovmf/OVMF.fd", site.path("OVMF.fd")).unwrap();
    refusal("does not measure the kernel");
    fs::write(site.path("OVMF.fd"), fixture).unwrap();
    fs::write(site.path("image/guest.cpio"), "another").unwrap();
    refusal("guest.cpio has SHA-256");
    machine.copy_image("image", |image| change_description(image, "\"test\"", "\"production\""));
    refusal("production image cannot ask a simulator");
}

/// What adversary_host shows of a process, for a machine: the wire is all that crosses its vsock device.
///
/// Under emulation the guest's memory is the emulator's and lies open, so that one is not searched: only hardware can
/// show that it holds nothing.
#[test]
fn nothing_of_prompt_answer_key_or_weights_reaches_the_machines_host() {
    let Some(machine) = Machine::new() else { return };
    let site = &machine.site;
    machine.record_crossings();
    let (broker, host) = (site.start_broker(), site.start_host());
    machine.wait_until_accepted(&host);
    site.write_rows("rows.csv", "0.7319082450866699", 50);
    site.succeed(&["predict", &site.url(), "--input", "rows.csv", "--receipt", "receipt.json"]);

    let weights: Vec<u8> = canary_weights().iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let sent = adyton_client::ReceiptFile::read(&site.path("receipt.json")).unwrap();
    let kek_text = fs::read_to_string(site.path("owner/model.kek")).unwrap();
    let kek = hex::decode(kek_text.split_whitespace().nth(2).unwrap()).unwrap();
    let canaries: [(&str, &[u8]); 5] = [
        ("weights", &weights[..32]),
        ("prompt", b"0.7319082"),
        ("answer", CANARY_VERSION.as_bytes()),
        ("key", &kek),
        ("request", b"\"datatype\""),
    ];
    assert!(holds(&sent.exchanges()[0].request, b"0.7319082"), "the canary was really sent");
    assert!(holds(&sent.exchanges()[0].response, CANARY_VERSION.as_bytes()), "and really answered");

    let crossed = fs::read(site.path("run/one/crossed.bin")).unwrap();
    assert!(holds(&crossed, b"service_id = 'canary'"), "the document crossed in the clear, as it may");
    assert!(crossed.len() > 20_000, "and much more did: {}", crossed.len());
    let own_memory = memory(host.pid());
    assert!(holds(&own_memory, site.client_port.to_string().as_bytes()), "the host's memory was really read");
    let mut places = vec![("crossing".to_owned(), crossed), ("host memory".to_owned(), own_memory)];
    for log in [&host.log, &broker.log] {
        places.push((log.display().to_string(), fs::read(log).unwrap()));
    }
    for (place, bytes) in &places {
        for (canary, needle) in &canaries {
            assert!(!holds(bytes, needle), "{canary} found in {place}");
        }
    }
}

/// A language model in a machine: its weights are read chunk by chunk, its answer is the engine's own, and nothing of
/// either crosses in the clear.
#[test]
fn a_machine_generates_text() {
    const PROMPT: &str = "canary-prompt-51a7d0c2";
    let Some(machine) = Machine::new() else { return };
    let site = &machine.site;
    let model = language_model();
    fs::write(site.path("model.gguf"), &model).unwrap();
    site.seal("model.gguf");
    machine.record_crossings();
    let (broker, host) = (site.start_broker(), site.start_host());
    machine.wait_until_accepted(&host);
    let url = site.url();
    let arguments =
        ["complete", &url, "--prompt", PROMPT, "--max-tokens", "24", "--temperature", "0", "--json"];
    let answer = site.succeed(&arguments).json();
    let said = greedy_answer(PROMPT, 24);
    assert_eq!(
        (&answer["answers"][0]["text"], &answer["receipts_verified"]),
        (&said.as_str().into(), &1.into())
    );

    let crossed = fs::read(site.path("run/one/crossed.bin")).unwrap();
    assert!(crossed.len() > model.len(), "the sealed file crossed: {}", crossed.len());
    let mut places = vec![("crossing".to_owned(), crossed), ("host memory".to_owned(), memory(host.pid()))];
    for log in [&host.log, &broker.log] {
        places.push((log.display().to_string(), fs::read(log).unwrap()));
    }
    let canaries: [(&str, &[u8]); 4] = [
        ("weights", language_canary(&model)),
        ("prompt", PROMPT.as_bytes()),
        ("answer", &said.as_bytes()[..20]),
        ("chat template", b"im_start"),
    ];
    for (place, bytes) in &places {
        for (canary, needle) in &canaries {
            assert!(!holds(bytes, needle), "{canary} found in {place}");
        }
    }
}

/// The two ends of the vsock are programs that may not link each other, so the numbers are written down twice.
#[test]
fn guest_host_and_kernel_agree_about_ports_and_command_line() {
    assert_eq!(adyton_enclave::guest::DOCUMENT_PORT, adyton_host::vm::DOCUMENT_PORT);
    assert_eq!(adyton_enclave::guest::STOP_PORT, adyton_host::vm::STOP_PORT);
    let driver = include_str!("../../enclave/guest/test/tsm_sim.c");
    assert!(driver.contains(&format!("#define SIM_PORT {}\n", adyton_host::vm::REPORT_PORT)));
    let allowed = include_str!("../../enclave/service/src/guest/cmdline.rs");
    let told = format!("{} {}", adyton_image::description::COMMAND_LINE, adyton_image::description::EMULATED);
    for word in told.split(' ') {
        assert!(allowed.contains(&format!("(\"{word}\", ")), "PID 1 would refuse {word}");
    }
}
