//! The vectors that the attestation crate ships: one file for each way evidence can be right or wrong.

use std::fs;
use std::path::Path;

use adyton_attestation::TcbVersion;
use adyton_attestation::evidence::encode_certificate_table;
use ring::digest::{SHA256, digest};

use super::vendor::{Case, NOW, REPORT_DATA, SECOND_AGO, Vendor};
use crate::cert::chip_extensions;
use crate::setup::{PRODUCT, TCB};

/// A vector: what its file is called, the verdict or reason, the policy, and the case.
type Vector<'a> = (&'static str, &'static str, &'static str, Case<'a>);

fn vectors(vendor: &Vendor) -> Vec<Vector<'_>> {
    let case = || vendor.case();
    let field = |offset, value: &[u8]| vendor.case().field(offset, value);
    let lower = TcbVersion { snp: TCB.snp - 1, ..TCB };
    let chip_id = vendor.simulator.chip_id();
    let critical = [0x30, 0x0d, 0x06, 3, 0x55, 0x1d, 0x7f, 0x01, 1, 0xff, 0x04, 3, 0x02, 1, 0];
    let mut other_chip = *chip_id;
    other_chip[0] ^= 1;
    vec![
        ("accept_standard", "accept", "standard", case()),
        ("accept_vendor", "accept", "vendor", case()),
        ("accept_strict", "accept", "strict", strong(vendor)),
        ("strict_smt_allowed", "policy-bits", "strict", case()),
        ("strict_smt_on", "platform-info", "strict", strong(vendor).field(0x040, &[0b11_1101])),
        ("version_unknown", "version", "vendor", field(0x000, &[6])),
        ("signature_algorithm", "algorithm", "vendor", field(0x034, &[2])),
        ("signature_padding", "signature-encoding", "vendor", case().tamper(|r, _| r[0x2a0 + 48] = 1)),
        ("signature_reserved_tail", "reserved", "vendor", case().tamper(|r, _| r[0x49f] = 1)),
        ("measurement_flipped", "signature", "vendor", case().tamper(|r, _| r[0x090] ^= 1)),
        ("report_data_flipped", "signature", "vendor", case().tamper(|r, _| r[0x050] ^= 1)),
        ("reserved_bit_signed", "reserved", "vendor", field(0x04c, &[1])),
        ("policy_bit_26", "reserved", "vendor", field(0x00b, &[4])),
        ("debug_bit_set", "policy-debug", "vendor", field(0x00a, &[0b1011])),
        ("migration_allowed", "policy-migrate", "vendor", field(0x00a, &[0b0111])),
        ("vmpl_1", "vmpl", "vendor", field(0x030, &[1])),
        ("host_requested", "vmpl", "vendor", field(0x030, &[0xff; 4])),
        ("abi_newer_than_firmware", "policy-abi", "vendor", field(0x009, &[2])),
        ("signing_key_vlek", "signing-key", "vendor", field(0x048, &[1 << 2])),
        ("signing_key_none", "signing-key", "vendor", field(0x048, &[7 << 2])),
        ("cpuid_of_milan", "product", "vendor", field(0x188, &[0x19, 0x01, 0x01])),
        ("chip_id_masked", "hwid", "vendor", field(0x1a0, &[0; 64])),
        ("committed_above_current", "tcb-order", "vendor", field(0x1e0, &[0xff])),
        ("provisional_firmware", "provisional-firmware", "standard", field(0x1ed, &[57])),
        ("launch_tcb_low", "tcb-minimum", "standard", field(0x1f0, &lower.to_word())),
        ("no_alias_check", "platform-info", "standard", field(0x040, &[0b00_0101])),
        ("unknown_platform_bit", "platform-info", "standard", field(0x041, &[1])),
        ("mitigation_missing", "mitigation", "standard", field(0x200, &[0b011])),
        ("unknown_stepping", "tcb-unknown-cpu", "standard", field(0x188, &[0x19, 0x11, 0x03])),
        ("other_measurement", "measurement", "standard", field(0x090, &[0])),
        ("other_host_data", "host-data", "standard", field(0x0c0, &[0])),
        ("other_report_data", "report-data", "vendor", field(0x050, &[0])),
        (
            "hwid_of_other_chip",
            "hwid",
            "vendor",
            case().extensions(chip_extensions(TCB, &other_chip, PRODUCT)),
        ),
        (
            "certified_for_other_tcb",
            "tcb-binding",
            "vendor",
            case().extensions(chip_extensions(lower, chip_id, PRODUCT)),
        ),
        (
            "unknown_critical_extension",
            "chain",
            "vendor",
            case().chain(|c| c.leaf.extensions.push(critical.into())),
        ),
        (
            "intermediate_not_a_ca",
            "chain",
            "vendor",
            case().chain(|c| drop(c.intermediate.extensions.remove(1))),
        ),
        (
            "intermediate_expired",
            "expired",
            "vendor",
            case().chain(|c| c.intermediate.validity.not_after = SECOND_AGO),
        ),
        ("leaf_revoked_intermediate", "revoked", "vendor", case().chain(|c| c.revoked = Some(vec![2]))),
        ("crl_stale", "crl-stale", "vendor", case().chain(|c| c.crl_validity.not_after = SECOND_AGO)),
        ("crl_missing", "crl-missing", "standard", case().chain(|c| c.revoked = None)),
    ]
}

/// What the strict policy accepts: no SMT, every protection on.
fn strong(vendor: &Vendor) -> Case<'_> {
    vendor.case().field(0x00a, &[0b1000_0010, 0b11]).field(0x040, &[0b11_1100])
}

#[test]
#[ignore = "writes the vectors of the attestation crate anew, under new keys"]
fn write_vectors() {
    let keys = tempfile::tempdir().unwrap();
    let vendor = Vendor::new(keys.path());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/evidence");
    fs::remove_dir_all(&folder).ok();
    fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: String| fs::write(folder.join(name), text).unwrap();
    write("root.hex", hex::encode(&vendor.root_der));
    write("honest.hex", hex::encode(table(&vendor.case())));
    write(
        "reference-values",
        format!(
            "now: {}\nreport-data: {}\nmeasurement: {}\nhost-data: {}\nplatform-id: {}\n",
            NOW.as_unix_seconds(),
            hex::encode(REPORT_DATA),
            hex::encode(vendor.context.measurement),
            hex::encode(vendor.context.host_data),
            hex::encode(digest(&SHA256, vendor.simulator.chip_id())),
        ),
    );
    for (name, verdict, policy, case) in vectors(&vendor) {
        let (mut report, mut endorsements) = case.made();
        (case.tamper)(&mut report, &mut endorsements);
        let certificates = if case.chain == vendor.chain { "honest" } else { name };
        if certificates == name {
            write(&format!("{name}.hex"), hex::encode(table(&case)));
        }
        let report = hex::encode(report);
        write(
            &format!("{name}.txt"),
            format!("verdict: {verdict}\npolicy: {policy}\ncertificates: {certificates}\nreport: {report}\n"),
        );
    }
}

/// The certificate table of a case.
fn table(case: &Case<'_>) -> Vec<u8> {
    let (_, made) = case.made();
    let [ark, ask, vcek] = [made.ark, made.ask, made.vcek].map(Option::unwrap);
    encode_certificate_table(&ark, &ask, &vcek, made.crls.first().map(Vec::as_slice))
}
