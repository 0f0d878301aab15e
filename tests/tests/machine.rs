//! The whole path with the enclave as the only program of a virtual machine: measured before it was ever started, booted
//! by the host, attested from outside, given its key, asked, and stopped.
#![allow(clippy::unwrap_used, reason = "tests")]

use adyton_tests::{CANARY_VERSION, Machine};

#[test]
fn a_predicted_machine_boots_attests_serves_and_stops() {
    let Some(machine) = Machine::new() else { return };
    let site = &machine.site;
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
    assert_eq!(host.stop(), Some(0), "a stopped host is a success");
    let gone = site.adyton(&["verify", &site.url(), "--json"]);
    assert_eq!(gone.code, 30, "{gone:?}");
    assert_eq!(broker.stop(), Some(0));
}
