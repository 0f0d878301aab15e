//! The rows: name, verdict, policy, and the one thing that is wrong.

use crate::der::*;
use crate::fake::*;

type Row = (&'static str, &'static str, &'static str, fn(&mut Fake));

const DAY: u64 = 24 * 3600;

/// Everything, in the order of verification.
pub(crate) fn rows() -> Vec<Row> {
    [
        accepted(),
        format(),
        chain(),
        pck_extensions(),
        documents(),
        current(),
        signatures(),
        enclave(),
        levels(),
        policies(),
    ]
    .concat()
}

fn accepted() -> Vec<Row> {
    vec![
        ("accept_vendor", "accept", "vendor", |_| ()),
        ("accept_standard", "accept", "standard", |_| ()),
        ("accept_strict", "accept", "strict", |_| ()),
        ("accept_version_4", "accept", "strict", |f| f.quote.version_4()),
        ("accept_version_5_with_td_1_0", "accept", "strict", |f| {
            f.quote.body.truncate(584);
            f.quote.descriptor = Some((2, 584));
        }),
        ("accept_padding_of_zeros", "accept", "vendor", |f| f.quote.padding = vec![0; 100]),
        ("accept_chain_without_nul", "accept", "vendor", |f| f.quote.pem_suffix = ""),
        ("accept_no_authentication_data", "accept", "vendor", |f| f.quote.authentication.clear()),
        ("accept_processor_ca", "accept", "vendor", |f| {
            for name in [&mut f.ca.subject, &mut f.pck.issuer, &mut f.pck_crl.issuer] {
                *name = "Intel SGX PCK Processor CA";
            }
        }),
        ("accept_waived_by_every_advisory", "accept", "waived", |f| f.info("\"pcesvn\":13", "\"pcesvn\":14")),
    ]
}

fn format() -> Vec<Row> {
    vec![
        ("version_3_is_sgx", "foreign-tee", "vendor", |f| f.quote.header[0] = 3),
        ("version_6", "version", "vendor", |f| f.quote.header[0] = 6),
        ("sgx_in_version_4", "foreign-tee", "vendor", |f| {
            f.quote.version_4();
            f.quote.header[4] = 0;
            f.quote.body.truncate(384);
        }),
        ("sgx_in_version_5", "foreign-tee", "vendor", |f| {
            f.quote.header[4] = 0;
            f.quote.body.truncate(384);
            f.quote.descriptor = Some((1, 384));
        }),
        ("sgx_named_over_a_td_report", "tee-type", "vendor", |f| {
            f.quote.version_4();
            f.quote.header[4] = 0;
        }),
        ("tee_type_unknown", "tee-type", "vendor", |f| f.quote.header[5] = 1),
        ("tee_type_unknown_in_version_4", "tee-type", "vendor", |f| {
            f.quote.version_4();
            f.quote.header[4] = 0x80;
        }),
        ("body_type_is_an_enclave", "tee-type", "vendor", |f| f.quote.descriptor = Some((1, 648))),
        ("body_type_unknown", "tee-type", "vendor", |f| f.quote.descriptor = Some((5, 648))),
        ("body_length_announced_wrong", "size", "vendor", |f| f.quote.descriptor = Some((3, 649))),
        ("attestation_key_type", "algorithm", "vendor", |f| f.quote.header[2] = 3),
        ("qe_vendor", "qe-vendor", "vendor", |f| f.quote.header[12] ^= 1),
        ("padding_not_zero", "size", "vendor", |f| f.quote.padding = vec![0, 0, 1]),
        ("signature_data_longer_than_its_parts", "size", "vendor", |f| {
            f.after = Some(|parts| {
                let at = 54 + 648;
                let len = u32::from_le_bytes(parts.quote[at..at + 4].try_into().unwrap()) + 1;
                parts.quote[at..at + 4].copy_from_slice(&len.to_le_bytes());
                parts.quote.push(0);
            });
        }),
        ("outer_certification_data", "endorsement-missing", "vendor", |f| f.quote.outer_type = 5),
        ("encrypted_ppid_instead_of_chain", "endorsement-missing", "vendor", |f| f.quote.inner_type = 3),
        ("quote_too_long", "size", "vendor", |f| f.quote.padding = vec![0; 16 * 1024]),
        ("reserved_header_bytes_signed", "reserved", "vendor", |f| f.quote.header[8] = 1),
        ("xfam_without_sse_signed", "reserved", "vendor", |f| f.quote.body[128] = 0),
    ]
}

fn chain() -> Vec<Row> {
    vec![
        ("look_alike_root", "untrusted-root", "vendor", |f| {
            f.shown_root =
                Some(Certificate { key: Signer::Stranger, signed_by: Signer::Stranger, ..f.root.clone() });
        }),
        ("issuer_of_documents_under_another_root", "untrusted-root", "vendor", |f| {
            f.after = Some(|parts| parts.collateral.tcb_info.issuer_chain[1][20] ^= 1);
        }),
        ("issuer_of_lists_under_another_root", "untrusted-root", "vendor", |f| {
            f.after = Some(|parts| parts.collateral.pck_crl_issuer_chain[1][20] ^= 1);
        }),
        ("issuer_chain_without_root", "chain", "vendor", |f| {
            f.after = Some(|parts| parts.collateral.qe_identity.issuer_chain.truncate(1));
        }),
        ("pck_chain_is_no_pem", "chain", "vendor", |f| f.quote.pem_suffix = "x"),
        ("pck_signed_by_a_stranger", "chain", "vendor", |f| f.pck.signed_by = Signer::Stranger),
        ("pck_signed_by_the_root", "chain", "vendor", |f| f.pck.signed_by = Signer::Root),
        ("ca_signed_by_a_stranger", "chain", "vendor", |f| f.ca.signed_by = Signer::Stranger),
        ("document_signer_by_a_stranger", "chain", "vendor", |f| {
            f.document_signer.signed_by = Signer::Stranger;
        }),
        ("ca_is_no_authority", "chain", "vendor", |f| {
            f.ca.extensions = vec![key_usage(0x06), basic_constraints(false)];
        }),
        ("ca_without_basic_constraints", "chain", "vendor", |f| f.ca.extensions = vec![key_usage(0x06)]),
        ("ca_may_not_sign_certificates", "chain", "vendor", |f| {
            f.ca.extensions = vec![key_usage(0x02), basic_constraints(true)];
        }),
        ("ca_may_not_sign_lists", "chain", "vendor", |f| {
            f.ca.extensions = vec![key_usage(0x04), basic_constraints(true)];
        }),
        ("root_may_not_sign_lists", "chain", "vendor", |f| {
            f.root.extensions = vec![key_usage(0x04), basic_constraints(true)];
        }),
        ("pck_is_an_authority", "chain", "vendor", |f| f.pck.extensions[1] = basic_constraints(true)),
        ("document_signer_is_an_authority", "chain", "vendor", |f| {
            f.document_signer.extensions[1] = basic_constraints(true);
        }),
        ("pck_may_not_sign_data", "chain", "vendor", |f| f.pck.extensions[0] = key_usage(0x04)),
        ("unknown_critical_extension", "chain", "vendor", |f| {
            f.pck.extensions.push(extension(&[0x2a, 3], true, &[5, 0]));
        }),
        ("unknown_critical_extension_of_ca", "chain", "vendor", |f| {
            f.ca.extensions.push(extension(&[0x2a, 3], true, &[5, 0]));
        }),
        ("repeated_extension", "chain", "vendor", |f| f.pck.extensions.push(key_usage(0xc0))),
        ("issuer_name", "chain", "vendor", |f| f.pck.issuer = "Intel SGX PCK Processor CA"),
        ("pck_name", "chain", "vendor", |f| f.pck.subject = "Intel SGX TCB Signing"),
        ("document_signer_name", "chain", "vendor", |f| {
            f.document_signer.subject = "Intel SGX PCK Certificate";
        }),
        ("ca_name", "chain", "vendor", |f| {
            for name in [&mut f.ca.subject, &mut f.pck.issuer, &mut f.pck_crl.issuer] {
                *name = "Intel SGX Root CA";
            }
        }),
    ]
}

/// Replaces the SGX extensions of the PCK certificate.
fn with_members(fake: &mut Fake, change: fn(&mut Vec<(u8, Vec<u8>)>)) {
    let mut members = pck_members();
    change(&mut members);
    fake.pck.extensions[2] = pck_extension(&members);
}

fn masked_ppid(fake: &mut Fake) {
    with_members(fake, |members| members[0].1 = tlv(OCTET_STRING, &[vec![0; 16]]));
}

fn pck_extensions() -> Vec<Row> {
    vec![
        ("no_sgx_extensions", "chain", "vendor", |f| f.pck.extensions.truncate(2)),
        ("no_fmspc", "chain", "vendor", |f| with_members(f, |members| drop(members.remove(3)))),
        ("no_tcb", "chain", "vendor", |f| with_members(f, |members| drop(members.remove(1)))),
        ("fmspc_twice", "chain", "vendor", |f| {
            with_members(f, |members| members.push(members[3].clone()));
        }),
        ("unknown_member", "chain", "vendor", |f| with_members(f, |members| members.push((8, integer(1))))),
        ("short_ppid", "chain", "vendor", |f| {
            with_members(f, |members| members[0].1 = tlv(OCTET_STRING, &[vec![7; 15]]));
        }),
        ("unknown_sgx_type", "chain", "vendor", |f| {
            with_members(f, |members| members[4].1 = tlv(ENUMERATED, &[vec![3]]));
        }),
        ("accept_masked_ppid_where_any_chip_is", "accept", "vendor", masked_ppid),
        ("masked_ppid", "chip-allowlist", "standard", masked_ppid),
        ("accept_without_platform_instance", "accept", "vendor", |f| {
            with_members(f, |members| members.truncate(5));
        }),
    ]
}

fn documents() -> Vec<Row> {
    vec![
        ("tcb_info_signed_by_a_stranger", "tcb-info-signature", "vendor", |f| {
            f.tcb_info_signed_by = Signer::Stranger;
        }),
        ("tcb_info_serialised_anew", "tcb-info-signature", "vendor", |f| {
            f.after = Some(|parts| {
                let text = String::from_utf8(parts.collateral.tcb_info.document.clone()).unwrap();
                parts.collateral.tcb_info.document = text.replacen(',', ", ", 1).into_bytes();
            });
        }),
        ("tcb_info_with_a_key_twice", "tcb-info", "vendor", |f| {
            f.info("\"tcbType\":0", "\"tcbType\":0,\"tcbType\":0");
        }),
        ("tcb_info_of_sgx", "tcb-info", "vendor", |f| f.info("\"TDX\"", "\"SGX\"")),
        ("tcb_info_version", "tcb-info", "vendor", |f| f.info("\"version\":3", "\"version\":2")),
        ("tcb_info_type", "tcb-info", "vendor", |f| f.info("\"tcbType\":0", "\"tcbType\":1")),
        ("tcb_info_status_unknown", "tcb-info", "vendor", |f| f.info("\"OutOfDate\"", "\"Fine\"")),
        ("tcb_info_without_module", "tcb-info", "vendor", |f| f.info("\"tdxModule\":", "\"tdxModul\":")),
        ("tcb_info_with_fifteen_components", "tcb-info", "vendor", |f| f.info("{\"svn\":3},", "")),
        ("module_status_of_a_platform", "tcb-info", "vendor", |f| {
            f.info("\"OutOfDate\",\"advisoryIDs\":[\"INTEL-SA-01036\"]", "\"ConfigurationNeeded\"");
        }),
        ("qe_identity_signed_by_a_stranger", "qe-identity-signature", "vendor", |f| {
            f.qe_identity_signed_by = Signer::Stranger;
        }),
        ("qe_identity_of_sgx", "qe-identity", "vendor", |f| f.identity("\"TD_QE\"", "\"QE\"")),
        ("qe_identity_version", "qe-identity", "vendor", |f| f.identity("\"version\":2", "\"version\":1")),
        ("qe_identity_with_a_key_twice", "qe-identity", "vendor", |f| {
            f.identity("\"isvprodid\":2", "\"isvprodid\":2,\"isvprodid\":2");
        }),
        ("qe_status_of_a_platform", "qe-identity", "vendor", |f| {
            f.identity("\"OutOfDate\"", "\"SWHardeningNeeded\"");
        }),
        ("documents_swapped", "tcb-info", "vendor", |f| std::mem::swap(&mut f.tcb_info, &mut f.qe_identity)),
        ("fmspc", "fmspc", "vendor", |f| f.info("90C06F000000", "90C06F000001")),
        ("pce_id", "fmspc", "vendor", |f| f.info("\"pceId\":\"0000\"", "\"pceId\":\"0001\"")),
    ]
}

/// Moves a date of a document.
fn date(document: &mut String, field: &str, seconds: u64) {
    let at = document.find(field).unwrap() + field.len() + 3;
    document.replace_range(at..at + 20, &time(seconds).to_string());
}

fn current() -> Vec<Row> {
    vec![
        ("tcb_info_expired", "collateral-expired", "vendor", |f| {
            date(&mut f.tcb_info, "nextUpdate", NOW - 1);
        }),
        ("tcb_info_of_the_future", "not-yet-valid", "vendor", |f| {
            date(&mut f.tcb_info, "issueDate", NOW + 1);
        }),
        ("accept_tcb_info_in_its_last_second", "accept", "vendor", |f| {
            date(&mut f.tcb_info, "nextUpdate", NOW);
        }),
        ("qe_identity_expired", "collateral-expired", "vendor", |f| {
            date(&mut f.qe_identity, "nextUpdate", NOW - 1);
        }),
        ("qe_identity_of_the_future", "not-yet-valid", "vendor", |f| {
            date(&mut f.qe_identity, "issueDate", NOW + 1);
        }),
        ("documents_and_lists_expired", "collateral-expired", "vendor", |f| {
            date(&mut f.qe_identity, "nextUpdate", NOW - 1);
            (f.root_crl.until, f.pck_crl.until) = (NOW - 1, NOW - 1);
        }),
        ("pck_expired", "expired", "vendor", |f| f.pck.until = NOW - 1),
        ("pck_not_yet_valid", "not-yet-valid", "vendor", |f| f.pck.from = NOW + 1),
        ("ca_expired", "expired", "vendor", |f| f.ca.until = NOW - 1),
        ("document_signer_expired", "expired", "vendor", |f| f.document_signer.until = NOW - 1),
        ("root_expired", "expired", "vendor", |f| f.root.until = NOW - 1),
        ("root_list_stale", "crl-stale", "vendor", |f| f.root_crl.until = NOW - 1),
        ("root_list_of_the_future", "crl-stale", "vendor", |f| f.root_crl.from = NOW + 1),
        ("pck_list_stale", "crl-stale", "vendor", |f| f.pck_crl.until = NOW - 1),
        ("pck_list_of_the_future", "crl-stale", "vendor", |f| f.pck_crl.from = NOW + 1),
        ("root_list_by_a_stranger", "crl-signature", "vendor", |f| f.root_crl.signed_by = Signer::Stranger),
        ("pck_list_by_a_stranger", "crl-signature", "vendor", |f| f.pck_crl.signed_by = Signer::Stranger),
        ("pck_list_by_the_root", "crl-signature", "vendor", |f| f.pck_crl.signed_by = Signer::Root),
        ("pck_list_of_another_name", "crl-signature", "vendor", |f| f.pck_crl.issuer = "Intel SGX Root CA"),
        ("lists_swapped", "crl-signature", "vendor", |f| std::mem::swap(&mut f.root_crl, &mut f.pck_crl)),
        ("list_without_number", "crl-signature", "vendor", |f| f.pck_crl.extensions.clear()),
        ("list_with_critical_extension", "crl-signature", "vendor", |f| {
            f.pck_crl.extensions.push(extension(&[0x55, 0x1d, 0x1c], true, &[0x30, 0]));
        }),
        ("list_is_empty_bytes", "crl-signature", "vendor", |f| {
            f.after = Some(|parts| parts.collateral.root_crl.clear());
        }),
        ("pck_revoked", "revoked", "vendor", |f| f.pck_crl.revoked.push(3)),
        ("ca_revoked", "revoked", "vendor", |f| f.root_crl.revoked.push(2)),
        ("document_signer_revoked", "revoked", "vendor", |f| f.root_crl.revoked = vec![4]),
        ("revoked_on_a_stale_list", "revoked", "vendor", |f| {
            f.pck_crl.revoked.push(3);
            f.pck_crl.until = NOW - DAY / 2;
        }),
    ]
}

fn signatures() -> Vec<Row> {
    vec![
        ("qe_report_signed_by_a_stranger", "qe-report-signature", "vendor", |f| {
            f.quote.qe_signed_by = Signer::Stranger;
        }),
        ("qe_report_signed_by_the_attestation_key", "qe-report-signature", "vendor", |f| {
            f.quote.qe_signed_by = Signer::Attestation;
        }),
        ("attestation_key_not_bound", "qe-report-data", "vendor", |f| f.quote.bind_key = false),
        ("qe_report_data_with_a_tail", "qe-report-data", "vendor", |f| f.quote.qe_report[383] = 1),
        ("authentication_data_flipped", "qe-report-data", "vendor", |f| {
            f.after = Some(|parts| {
                let at = 54 + 648 + 4 + 128 + 6 + 384 + 64 + 2;
                parts.quote[at] ^= 1;
            });
        }),
        ("quote_signed_by_a_stranger", "quote-signature", "vendor", |f| f.quote.signed_by = Signer::Stranger),
        ("quote_signed_by_the_pck", "quote-signature", "vendor", |f| f.quote.signed_by = Signer::Pck),
        ("user_data_flipped", "quote-signature", "vendor", |f| {
            f.after = Some(|parts| parts.quote[30] ^= 1);
        }),
        ("report_data_flipped", "quote-signature", "vendor", |f| {
            f.after = Some(|parts| parts.quote[54 + 520] ^= 1);
        }),
        ("other_report_data", "report-data", "vendor", |f| f.quote.body[583] ^= 1),
    ]
}

fn enclave() -> Vec<Row> {
    vec![
        ("qe_mrsigner", "qe-identity", "vendor", |f| f.quote.qe_report[128] ^= 1),
        ("qe_isvprodid", "qe-identity", "vendor", |f| f.quote.qe_report[256] = 1),
        ("qe_miscselect", "qe-identity", "vendor", |f| f.quote.qe_report[16] = 1),
        ("qe_attributes", "qe-identity", "vendor", |f| f.quote.qe_report[48] = 0x31),
        ("accept_qe_attribute_outside_the_mask", "accept", "vendor", |f| f.quote.qe_report[48] = 0x15),
        ("qe_debug_outside_the_mask", "qe-identity", "vendor", |f| {
            f.identity("FBFFFFFF", "F9FFFFFF");
            f.quote.qe_report[48] = 0x13;
        }),
        ("qe_svn_below_every_level", "tcb-no-match", "vendor", |f| f.quote.qe_report[258] = 3),
        ("qe_out_of_date", "tcb-out-of-date", "vendor", |f| f.quote.qe_report[258] = 7),
        ("qe_out_of_date_is_not_waived_without_advisory", "tcb-out-of-date", "waived", |f| {
            f.quote.qe_report[258] = 7;
        }),
        ("qe_revoked", "tcb-revoked", "vendor", |f| f.identity("\"UpToDate\"", "\"Revoked\"")),
        ("qe_configuration", "tcb-configuration-needed", "vendor", |f| {
            f.identity("\"UpToDate\"", "\"ConfigurationNeeded\"");
        }),
    ]
}

/// Gives the level that the honest platform reaches another status.
fn platform_status(fake: &mut Fake, status: &str) {
    let at = fake.tcb_info.find("\"tcbLevels\":[{\"tcb\":{\"sgxtcb").unwrap();
    let level = fake.tcb_info.split_off(at).replacen("\"UpToDate\"", &format!("\"{status}\""), 1);
    fake.tcb_info.push_str(&level);
}

fn levels() -> Vec<Row> {
    vec![
        ("platform_out_of_date", "tcb-out-of-date", "vendor", |f| platform_status(f, "OutOfDate")),
        ("platform_out_of_date_configuration", "tcb-out-of-date", "vendor", |f| {
            platform_status(f, "OutOfDateConfigurationNeeded");
        }),
        ("platform_configuration", "tcb-configuration-needed", "vendor", |f| {
            platform_status(f, "ConfigurationNeeded");
        }),
        ("platform_hardening", "tcb-sw-hardening-needed", "vendor", |f| {
            platform_status(f, "SWHardeningNeeded");
        }),
        ("platform_both", "tcb-configuration-needed", "vendor", |f| {
            platform_status(f, "ConfigurationAndSWHardeningNeeded");
        }),
        ("platform_revoked", "tcb-revoked", "waived", |f| platform_status(f, "Revoked")),
        ("platform_revoked_with_every_advisory_waived", "tcb-revoked", "waived", |f| {
            f.info("\"pcesvn\":13", "\"pcesvn\":14");
            f.tcb_info = f.tcb_info.replace("\"OutOfDate\"", "\"Revoked\"");
        }),
        ("component_below_the_current_level", "tcb-out-of-date", "vendor", |f| {
            f.info("{\"svn\":3}", "{\"svn\":4}");
        }),
        ("one_high_component_does_not_make_up_for_a_low_one", "tcb-no-match", "vendor", |f| {
            f.tcb_info =
                f.tcb_info.replace("\"sgxtcbcomponents\":[{\"svn\":3}", "\"sgxtcbcomponents\":[{\"svn\":4}");
            f.tcb_info =
                f.tcb_info.replace("\"sgxtcbcomponents\":[{\"svn\":1}", "\"sgxtcbcomponents\":[{\"svn\":4}");
        }),
        ("pcesvn_below_the_current_level", "tcb-out-of-date", "vendor", |f| {
            f.info("\"pcesvn\":13", "\"pcesvn\":14");
        }),
        ("tdx_component_below_every_level", "tcb-no-match", "vendor", |f| {
            f.quote.body[2] = 4;
            f.quote.body[586] = 4;
        }),
        ("half_of_the_advisories_waived", "tcb-out-of-date", "waived-half", |f| {
            f.info("\"pcesvn\":13", "\"pcesvn\":14");
        }),
        ("module_out_of_date", "tcb-out-of-date", "vendor", |f| f.quote.body[0] = 5),
        ("accept_module_waived", "accept", "waived", |f| f.quote.body[0] = 5),
        ("module_revoked", "tcb-revoked", "vendor", |f| f.info("\"UpToDate\"", "\"Revoked\"")),
        ("module_below_every_level", "tcb-no-match", "vendor", |f| f.quote.body[0] = 3),
        ("module_generation_unknown", "tdx-module", "vendor", |f| f.quote.body[1] = 2),
        ("module_signer", "tdx-module", "vendor", |f| f.quote.body[64] = 1),
        ("module_attributes", "tdx-module", "vendor", |f| f.quote.body[112] = 1),
        ("module_attributes_outside_the_mask", "tdx-module", "vendor", |f| f.quote.body[119] = 0x80),
        ("running_module_out_of_date", "tcb-out-of-date", "vendor", |f| f.quote.body[584] = 5),
        ("running_module_below_every_level", "tcb-no-match", "vendor", |f| f.quote.body[584] = 3),
        ("accept_first_generation_by_the_platform", "accept", "vendor", |f| {
            f.quote.body[..2].copy_from_slice(&[5, 0]);
            f.quote.body[584..586].copy_from_slice(&[5, 0]);
        }),
        ("first_generation_module_below", "tcb-no-match", "vendor", |f| {
            f.quote.body[..2].copy_from_slice(&[4, 0]);
        }),
    ]
}

/// Sets a bit of TDATTRIBUTES beside SEPT_VE_DISABLE.
fn attribute(fake: &mut Fake, bit: u32) {
    fake.quote.body[120..128].copy_from_slice(&(SEPT_VE_DISABLE | 1 << bit).to_le_bytes());
}

fn policies() -> Vec<Row> {
    vec![
        ("debug", "debug", "vendor", |f| attribute(f, 0)),
        ("profiled", "debug", "vendor", |f| attribute(f, 4)),
        ("sept_ve_enabled", "sept-ve-disable", "vendor", |f| f.quote.body[123] = 0),
        ("migratable", "policy-migrate", "vendor", |f| attribute(f, 29)),
        ("service_td_extension", "service-td", "vendor", |f| attribute(f, 17)),
        ("service_td", "service-td", "vendor", |f| f.quote.body[600] = 1),
        ("reserved_attribute", "td-attributes", "vendor", |f| attribute(f, 8)),
        ("reserved_attribute_above", "td-attributes", "vendor", |f| attribute(f, 61)),
        ("accept_perfmon_by_vendor", "accept", "vendor", |f| attribute(f, 63)),
        ("perfmon", "td-attributes", "standard", |f| attribute(f, 63)),
        ("key_locker", "td-attributes", "standard", |f| attribute(f, 31)),
        ("xfam", "xfam", "standard", |f| f.quote.body[129] ^= 4),
        ("mrtd", "measurement", "standard", |f| f.quote.body[136] ^= 1),
        ("rtmr0", "rtmr", "standard", |f| f.quote.body[328] ^= 1),
        ("rtmr1", "rtmr", "standard", |f| f.quote.body[376] ^= 1),
        ("rtmr2", "rtmr", "standard", |f| f.quote.body[424] ^= 1),
        ("rtmr3", "rtmr", "standard", |f| f.quote.body[472] ^= 1),
        ("mr_config_id", "host-data", "standard", |f| f.quote.body[184] ^= 1),
        ("mr_config_id_tail", "host-data", "standard", |f| f.quote.body[231] = 1),
        ("mr_seam", "mr-seam", "standard", |f| f.quote.body[16] ^= 1),
        ("another_machine", "chip-allowlist", "standard", |f| {
            with_members(f, |members| members[0].1 = tlv(OCTET_STRING, &[vec![8; 16]]));
        }),
        ("no_machine_named", "chip-allowlist", "standard", |f| {
            with_members(f, |members| members[0].1 = tlv(OCTET_STRING, &[vec![0; 16]]));
        }),
        ("evaluation_of_tcb_info", "tcb-evaluation", "standard", |f| {
            f.info("DataNumber\":20", "DataNumber\":19");
        }),
        ("evaluation_of_qe_identity", "tcb-evaluation", "standard", |f| {
            f.identity("DataNumber\":20", "DataNumber\":19");
        }),
        ("evaluation_below_the_newest_seen", "tcb-evaluation", "evaluation-21", |_| ()),
        ("a_floor_never_lowers_the_policy", "tcb-evaluation", "evaluation-lower", |f| {
            f.info("DataNumber\":20", "DataNumber\":19");
        }),
        ("strict_module_floor", "tcb-minimum", "strict", |f| {
            f.info("\"isvsvn\":15", "\"isvsvn\":14");
            f.quote.body[0] = 14;
        }),
        ("strict_module_floor_of_what_runs", "tcb-minimum", "strict", |f| {
            f.info("\"isvsvn\":15", "\"isvsvn\":14");
            f.quote.body[584] = 14;
        }),
        ("standard_has_no_module_floor_accept", "accept", "standard", |f| {
            f.info("\"isvsvn\":15", "\"isvsvn\":14");
            f.quote.body[0] = 14;
        }),
        ("unset_references", "mr-seam", "unset", |_| ()),
    ]
}
