//! Each claim against its field, each rule against what it says.

use super::*;
use crate::snp::report::REPORT_LEN_BYTES;
use crate::verdict::StepResult;

/// A well-formed report of version 5 in which every byte of the signed area is another.
fn patterned() -> Vec<u8> {
    let mut bytes = vec![0; REPORT_LEN_BYTES];
    for (at, byte) in bytes.iter_mut().take(0x2a0).enumerate() {
        *byte = u8::try_from(at % 251).unwrap();
    }
    bytes[0x000..0x004].copy_from_slice(&5_u32.to_le_bytes());
    bytes[0x034..0x038].copy_from_slice(&1_u32.to_le_bytes());
    bytes
}

fn claims(platform: Platform, product: Product, report: &[u8]) -> SnpClaims {
    let tcb = TcbVersion { fmc: None, bootloader: 1, tee: 2, snp: 3, microcode: 4 };
    SnpClaims {
        platform,
        report: Report::parse(report).unwrap(),
        signing_key: SigningKey::Vlek,
        product,
        tcbs: Tcbs { current: tcb, reported: tcb, committed: tcb, launch: tcb },
        revocation: Revocation::NotSupplied,
    }
}

#[test]
fn every_claim_is_the_field_of_the_report() {
    let report = patterned();
    let at = |from: usize, len: usize| report[from..from + len].to_vec();
    let snp = claims(Platform::SevSnp, Product::Genoa, &report);
    assert_eq!(snp.report_version(), 5);
    assert_eq!(snp.guest_svn().to_le_bytes().to_vec(), at(0x004, 4));
    assert_eq!(snp.guest_policy().bits().to_le_bytes().to_vec(), at(0x008, 8));
    assert_eq!(snp.guest_policy().abi(), (report[0x009], report[0x008]));
    let (family, image) = snp.family_and_image_id();
    assert_eq!([family, image].concat(), at(0x010, 32));
    assert_eq!(snp.vmpl().to_le_bytes().to_vec(), at(0x030, 4));
    assert_eq!(snp.platform_info().bits().to_le_bytes().to_vec(), at(0x040, 8));
    assert_eq!(snp.id_key_digest().to_vec(), at(0x0e0, 48));
    assert_eq!(snp.report_id().to_vec(), at(0x140, 32));
    assert_eq!(snp.cpuid().unwrap().to_vec(), at(0x188, 3));
    assert_eq!(snp.chip_id().to_vec(), at(0x1a0, 64));
    let versions = snp.firmware_versions().map(|(major, minor, build)| [build, minor, major]);
    assert_eq!(versions.map(Vec::from), [at(0x1e8, 3), at(0x1ec, 3)]);
    let (launch, current) = snp.mitigation_vectors().unwrap();
    assert_eq!([launch.to_le_bytes(), current.to_le_bytes()].concat(), at(0x1f8, 16));
    assert_eq!((snp.product(), snp.signing_key()), (Product::Genoa, SigningKey::Vlek));
    assert_eq!((snp.revocation(), snp.tcbs().reported.snp), (Revocation::NotSupplied, 3));

    let mut older = report.clone();
    older[0] = 2;
    let older = claims(Platform::SevSnp, Product::Genoa, &older);
    assert_eq!((older.cpuid(), older.mitigation_vectors()), (None, None));
    for (word, author_key_en, mask_chip_key) in [(0, false, false), (1, true, false), (2, false, true)] {
        let mut report = report.clone();
        report[0x048] = word;
        let snp = claims(Platform::SevSnp, Product::Genoa, &report);
        assert_eq!(snp.mask_chip_key(), mask_chip_key);
        let author = snp.author_key_digest().map(Vec::from);
        assert_eq!(author, author_key_en.then(|| at(0x110, 48)));
    }

    for platform in [Platform::SevSnp, Platform::Simulated] {
        let hardware = Hardware::Snp(claims(platform, Product::Genoa, &report));
        let claims = Claims { hardware, policy_name: "standard", steps: Vec::new() };
        assert_eq!(claims.platform(), platform);
        assert_eq!(claims.simulated(), platform == Platform::Simulated);
        assert_eq!(claims.policy_name(), "standard");
        assert_eq!(claims.report_data().to_vec(), at(0x050, 64));
        assert_eq!(claims.measurement().to_vec(), at(0x090, 48));
        assert_eq!(claims.host_data().to_vec(), at(0x0c0, 32));
        assert_eq!(claims.platform_id(), hash(&at(0x1a0, 64)));
        assert!(claims.snp().is_some() && claims.tdx().is_none());
    }
}

/// The step `name` of appraising `report` by `policy`.
fn step(policy: &Policy, platform: Platform, product: Product, report: &[u8], name: &str) -> Step {
    let (hardware, at) =
        (Hardware::Snp(claims(platform, product, report)), crate::Time::from_unix_seconds(0));
    let authentic = Authentic { hardware, at, log: StepLog::default() };
    let steps = match authentic.appraise_saved(policy) {
        Ok(claims) => claims.steps().to_vec(),
        Err(rejected) => rejected.steps,
    };
    let mut named = steps.into_iter().filter(|step| step.name == name);
    let step = named.next().unwrap_or_else(|| panic!("no step {name}"));
    assert!(named.next().is_none(), "{name} is taken twice");
    step
}

#[test]
fn hardware_and_simulators_are_appraised_by_policies_of_their_own() {
    let report = patterned();
    let simulated = Policy::dangerous_simulated([], []);
    for (policy, platform, result) in [
        (Policy::vendor(), Platform::SevSnp, StepResult::Pass),
        (Policy::vendor(), Platform::Simulated, StepResult::Fail(Reason::Simulated)),
        (simulated.clone(), Platform::Simulated, StepResult::Pass),
        (simulated, Platform::SevSnp, StepResult::Fail(Reason::Simulated)),
    ] {
        let got = step(&policy, platform, Product::Genoa, &report, "policy-platform");
        assert_eq!(got.result, result, "{platform} by {}", policy.name());
    }
}

#[test]
fn a_bit_asked_of_one_product_is_judged_on_it_and_skipped_elsewhere() {
    let mut report = patterned();
    for (set, product, result) in [
        (true, Product::Turin, StepResult::Pass),
        (false, Product::Turin, StepResult::Fail(Reason::PlatformInfo)),
        (false, Product::Genoa, StepResult::Skip),
    ] {
        report[0x040] = u8::from(set) << PlatformInfo::IOMMU_WRITE_SAFE;
        let got = step(&Policy::standard(), Platform::SevSnp, product, &report, "platform-iommu-write-safe");
        assert_eq!(got.result, result, "{product} {set}");
    }
}

#[test]
fn identities_are_compared_and_both_values_shown() {
    let report = patterned();
    let shown = |policy: &Policy, report: &[u8], name: &str| {
        let step = step(policy, Platform::SevSnp, Product::Genoa, report, name);
        (step.result, step.detail)
    };
    let hex = |from: usize, len: usize| hex_string(&report[from..from + len]);
    let right: [u8; 48] = report[0x090..0x0c0].try_into().unwrap();
    let policy = Policy::vendor().measurements([right]);
    assert_eq!(shown(&policy, &report, "measurement"), (StepResult::Pass, hex(0x090, 48)));
    let wrong = (StepResult::Fail(Reason::Measurement), hex(0x090, 48) + " is none of the 2 accepted");
    assert_eq!(shown(&policy.measurements([[0; 48]; 2]), &report, "measurement"), wrong);

    let mut masked = report.clone();
    masked[0x1a0..0x1e0].fill(0);
    let anywhere = Policy::vendor();
    let listed = Policy::vendor().chip_allowlist([hash(&[0; 64]), hash(&report[0x1a0..0x1e0])]);
    let chip = |policy, report| shown(policy, report, "chip-allowlist");
    assert_eq!(chip(&anywhere, &masked).0, StepResult::Skip);
    assert_eq!(chip(&listed, &report).0, StepResult::Pass);
    let refused = (StepResult::Fail(Reason::ChipAllowlist), "CHIP_ID is masked".to_owned());
    assert_eq!(chip(&listed, &masked), refused, "though the hash of a masked one is listed");

    let mut from_host = report;
    from_host[0x030..0x034].fill(0xff);
    let detail = "it is host-requested, policy wants 0".to_owned();
    assert_eq!(shown(&anywhere, &from_host, "vmpl"), (StepResult::Fail(Reason::Vmpl), detail));
    from_host[0x030..0x034].copy_from_slice(&3_u32.to_le_bytes());
    let detail = "it is VMPL 3, policy wants at most 2".to_owned();
    let lenient = anywhere.dangerous_max_vmpl(2);
    assert_eq!(shown(&lenient, &from_host, "vmpl"), (StepResult::Fail(Reason::Vmpl), detail));
}

#[test]
fn the_words_for_rules() {
    let rules = [Rule::Exactly(1), Rule::AtLeast(2), Rule::AtMost(3), Rule::OneOf(vec![4, 5]), Rule::Any];
    let words = ["1", "at least 2", "at most 3", "one of [4, 5]", "any"];
    assert_eq!(rules.map(|rule| wanted(&rule)), words);
}
