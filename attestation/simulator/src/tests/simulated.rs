//! Simulated evidence where hardware is asked for, and the reverse.

use adyton_attestation::{Endorsements, Evidence, Policy, Reason, TrustAnchors};

use super::vendor::{NOW, REPORT_DATA, Vendor};
use crate::SIMULATED_NOTICE;
use crate::cert::Template;
use crate::processor::LaunchContext;

/// Every way to pass a simulation off as hardware, or the reverse.
pub(super) fn simulated_evidence(vendor: &Vendor) {
    let simulator = &vendor.simulator;
    let context = &vendor.context;
    let evidence = || simulator.evidence(context, &REPORT_DATA).unwrap();
    let dangerous = Policy::dangerous_simulated([context.measurement], [context.host_data]);
    let anchors = TrustAnchors::dangerous_simulator(simulator.root_der()).unwrap();
    let none = Endorsements::default();
    let authentic = |evidence: Evidence| evidence.verify(&anchors, &none, NOW).unwrap();

    // The one way in, through the wire form.
    let decoded = Evidence::decode(&evidence().encode()).unwrap();
    let report = authentic(decoded).appraise(&dangerous, &REPORT_DATA).unwrap();
    assert!(report.simulated());
    assert_eq!(report.measurement(), context.measurement);
    assert!(report.steps().iter().any(|step| step.detail.contains(SIMULATED_NOTICE)));

    // Pinned roots and hardware policies.
    let refusal = evidence().verify(&TrustAnchors::pinned(), &none, NOW).unwrap_err();
    assert_eq!(refusal.reason, Reason::Simulated);
    for policy in [Policy::strict(), Policy::standard(), Policy::vendor()] {
        let named = vendor.named(policy).dangerous_any_chip().dangerous_without_revocation();
        let refusal = authentic(evidence()).appraise(&named, &REPORT_DATA).unwrap_err();
        assert_eq!(refusal.reason, Reason::Simulated);
        assert!(authentic(evidence()).appraise_saved(&named).is_err());
    }
    // The same report relabelled as SEV-SNP: under pinned roots, under its own root, under a simulator's anchors.
    let report = simulator.report(context, &REPORT_DATA).unwrap();
    let relabelled = || Evidence::snp_from_parts(&report, simulator.certificate_table()).unwrap();
    let refusal = relabelled().verify(&TrustAnchors::pinned(), &none, NOW).unwrap_err();
    assert_eq!(refusal.reason, Reason::UntrustedRoot);
    let refusal = TrustAnchors::dangerous_root(simulator.root_der()).unwrap_err();
    assert_eq!(refusal.reason, Reason::Simulated);
    let refusal = relabelled().verify(&anchors, &none, NOW).unwrap_err();
    assert_eq!(refusal.reason, Reason::Simulated);
    // Hardware evidence does not pass as simulated either.
    let refusal = vendor.case().judge(&dangerous).unwrap_err();
    assert_eq!(refusal.reason, Reason::Simulated);
    // Another simulator's root.
    let other = TrustAnchors::dangerous_simulator(
        &Template { serial: 77, organisation: SIMULATED_NOTICE.into(), ..vendor.chain.root.clone() }
            .issue(
                &Template { organisation: SIMULATED_NOTICE.into(), ..vendor.chain.root.clone() },
                &vendor.root_key,
            )
            .unwrap(),
    );
    let refusal = evidence().verify(&other.unwrap(), &none, NOW).unwrap_err();
    assert_eq!(refusal.reason, Reason::UntrustedRoot);
    // A set that names nothing accepts nothing, and what was measured counts.
    let empty = Policy::dangerous_simulated([], [context.host_data]);
    let refusal = authentic(evidence()).appraise(&empty, &REPORT_DATA).unwrap_err();
    assert_eq!(refusal.reason, Reason::Measurement);
    let changed = LaunchContext::new(b"Program", b"document", &["argument"]).unwrap();
    let changed = simulator.evidence(&changed, &REPORT_DATA).unwrap();
    let refusal = authentic(changed).appraise(&dangerous, &REPORT_DATA).unwrap_err();
    assert_eq!(refusal.reason, Reason::Measurement);
}
