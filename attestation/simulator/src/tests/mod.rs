//! Every way the evidence of a whole fake vendor must be refused.
//!
//! RSA keys take seconds to make, so the many cases share one vendor and one test.

mod certificates;
mod reports;
mod simulated;
mod vectors;
mod vendor;

use adyton_attestation::{Endorsements, Policy, Revocation, TrustAnchors};

use crate::processor::{LaunchContext, Simulator};
use crate::setup::{Setup, setup};
use vendor::{NOW, REPORT_DATA, Vendor};

#[test]
fn every_flaw_is_refused_for_its_own_reason() {
    let dir = tempfile::tempdir().unwrap();
    let vendor = Vendor::new(dir.path());
    let standard = vendor.named(Policy::standard());
    let report = vendor.case().accepted(&standard);
    assert!(!report.simulated());
    assert_eq!(report.measurement(), vendor.context.measurement);
    assert!(matches!(report.snp().unwrap().revocation(), Revocation::Fresh { .. }));
    certificates::flawed_chains(&vendor, &standard);
    certificates::misfit_certificates(&vendor);
    certificates::flawed_chip_certificates(&vendor, &standard);
    certificates::revocation(&vendor, &standard);
    certificates::provider_keys(&vendor);
    certificates::turin(&vendor);
    reports::flawed_reports(&vendor, &standard);
    reports::unwelcome_reports(&vendor, &standard);
    reports::strict_demands(&vendor);
    simulated::simulated_evidence(&vendor);
}

#[test]
fn set_up_is_made_once_and_finished_if_torn() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(setup(dir.path(), NOW).unwrap(), Setup::Made);
    let root = std::fs::read(dir.path().join("root.der")).unwrap();
    assert_eq!(setup(dir.path(), NOW).unwrap(), Setup::AlreadyComplete);
    // Torn after the intermediate: the rest is made again under the same root.
    for file in ["vcek.der", "vcek.key", "chip-id.bin", "crl.der"] {
        std::fs::remove_file(dir.path().join(file)).unwrap();
    }
    assert!(Simulator::load(dir.path()).is_err());
    assert_eq!(setup(dir.path(), NOW).unwrap(), Setup::Made);
    assert_eq!(std::fs::read(dir.path().join("root.der")).unwrap(), root);
    let simulator = Simulator::load(dir.path()).unwrap();
    let context = LaunchContext::new(b"program", b"document", &["argument"]).unwrap();
    let policy = Policy::dangerous_simulated([context.measurement], [context.host_data]);
    let anchors = TrustAnchors::dangerous_simulator(&root).unwrap();
    let evidence = simulator.evidence(&context, &REPORT_DATA).unwrap();
    let authentic = evidence.verify(&anchors, &Endorsements::default(), NOW).unwrap();
    let _report = authentic.appraise(&policy, &REPORT_DATA).unwrap();
    // No key is readable for others, and a key that is gone is not replaced under a certificate that is there.
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    std::fs::remove_file(dir.path().join("ask.key")).unwrap();
    assert!(matches!(setup(dir.path(), NOW), Err(crate::SimulatorError::KeyLost(_))));
}
