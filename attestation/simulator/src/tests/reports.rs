//! Flawed reports, and authentic ones that policy must refuse.

use adyton_attestation::{Policy, Product, Reason, StepResult, TcbFloor, TcbVersion};

use super::vendor::Vendor;
use crate::cert::chip_extensions;
use crate::setup::{PRODUCT, TCB};

pub(super) fn flawed_reports(vendor: &Vendor, policy: &Policy) {
    let signed = |offset, value: &[u8], reason| vendor.case().field(offset, value).refused(policy, reason);
    signed(0x000, &[1], Reason::Version);
    signed(0x000, &[6], Reason::Version);
    signed(0x034, &[2], Reason::Algorithm);
    signed(0x00b, &[4], Reason::Reserved); // policy bit 26
    signed(0x00a, &[1], Reason::Reserved); // policy bit 17 clear
    signed(0x04c, &[1], Reason::Reserved);
    signed(0x18b, &[1], Reason::Reserved);
    signed(0x208, &[1], Reason::Reserved);
    signed(0x038 + 3, &[1], Reason::Reserved); // CURRENT_TCB
    // TCBs that contradict each other.
    let higher = TcbVersion { snp: TCB.snp + 1, ..TCB }.to_word();
    signed(0x1e0, &higher, Reason::TcbOrder);
    signed(0x1ee, &[2], Reason::TcbOrder);
    vendor
        .case()
        .field(0x180, &higher)
        .extensions(chip_extensions(
            TcbVersion { snp: TCB.snp + 1, ..TCB },
            vendor.simulator.chip_id(),
            PRODUCT,
        ))
        .refused(policy, Reason::TcbOrder);
    // What is changed after signing: whatever the field, the signature is wrong.
    let tamper = |tamper, reason| vendor.case().tamper(tamper).refused(policy, reason);
    tamper(|report, _| report[0x090] ^= 1, Reason::Signature);
    tamper(|report, _| report[0x04c] ^= 1, Reason::Signature);
    tamper(|report, _| report[0x2a0] ^= 1, Reason::Signature);
    tamper(|report, _| report[0x2a0..0x330].fill(0), Reason::Signature);
    tamper(|report, _| report[0x2a0 + 48] = 1, Reason::SignatureEncoding);
    tamper(|report, _| report[0x49f] = 1, Reason::Reserved);
    tamper(|report, _| report.push(0), Reason::Size);
}

/// Authentic, and still refused.
pub(super) fn unwelcome_reports(vendor: &Vendor, standard: &Policy) {
    let both = |offset, value: &[u8], reason| {
        vendor.case().field(offset, value).refused(standard, reason);
        vendor.case().field(offset, value).refused(&Policy::vendor(), reason);
    };
    both(0x00a, &[0b1011], Reason::PolicyDebug);
    both(0x00a, &[0b0111], Reason::PolicyMigrate);
    both(0x030, &[1], Reason::Vmpl);
    both(0x030, &[0xff; 4], Reason::Vmpl);
    both(0x008, &[0, 2], Reason::PolicyAbi);
    vendor.case().field(0x030, &[1]).accepted(&Policy::vendor().dangerous_max_vmpl(1));
    vendor.case().field(0x030, &[0xff; 4]).refused(&Policy::vendor().dangerous_max_vmpl(255), Reason::Vmpl);
    vendor.case().field(0x00a, &[0b1011]).accepted(&Policy::vendor().dangerous_allow_debug());

    let only_standard = |offset, value: &[u8], reason| {
        vendor.case().field(offset, value).refused(standard, reason);
        vendor.case().field(offset, value).accepted(&Policy::vendor());
    };
    only_standard(0x040, &[0b10_0001], Reason::PlatformInfo); // no ECC
    only_standard(0x040, &[0b00_0101], Reason::PlatformInfo); // no alias check
    only_standard(0x040, &[0b1010_0101], Reason::PlatformInfo); // TIO
    only_standard(0x041, &[1], Reason::PlatformInfo); // unknown bit 8
    only_standard(0x00a, &[0b10_0011], Reason::PolicyBits); // CXL
    only_standard(0x188, &[0x19, 0x11, 0x03], Reason::TcbUnknownCpu);
    only_standard(0x1f8, &[0b011], Reason::Mitigation); // LAUNCH_MIT_VECTOR
    only_standard(0x200, &[0b110], Reason::Mitigation); // CURRENT_MIT_VECTOR
    only_standard(0x090, &[0; 48], Reason::Measurement);
    only_standard(0x0c0, &[0; 32], Reason::HostData);
    let lower = TcbVersion { snp: TCB.snp - 1, ..TCB };
    only_standard(0x1f0, &lower.to_word(), Reason::TcbMinimum);
    only_standard(0x1e0, &lower.to_word(), Reason::ProvisionalFirmware);
    only_standard(0x1ed, &[57], Reason::ProvisionalFirmware);
    let higher = TcbVersion { snp: TCB.snp + 1, ..TCB };
    only_standard(0x1f0, &higher.to_word(), Reason::ProvisionalFirmware);
    let older = || {
        let extensions = chip_extensions(lower, vendor.simulator.chip_id(), PRODUCT);
        vendor.case().field(0x180, &lower.to_word()).extensions(extensions)
    };
    older().refused(standard, Reason::TcbMinimum);
    let floor = |text: &str| Policy::vendor().min_tcb(text.parse().unwrap());
    older().refused(&floor("snp=27"), Reason::TcbMinimum);
    older().accepted(&floor("snp=26,bl=10"));
    vendor.case().refused(
        &Policy::vendor().min_tcb(TcbFloor { fmc: Some(0), ..TcbFloor::default() }),
        Reason::TcbMinimum,
    );

    // Mitigations before version 5 are unproven, which is shown and not called a pass.
    let version_3 = vendor.case().field(0x000, &[3]).field(0x1f8, &[0; 16]).accepted(standard);
    let mitigations = version_3.steps().iter().find(|step| step.name == "mitigations").unwrap();
    assert_eq!(mitigations.result, StepResult::Skip);

    // Reference sets: empty accepts nothing, another accepts nothing, and the challenge must be this one.
    vendor.case().refused(&Policy::standard(), Reason::Measurement);
    vendor.case().refused(&vendor.named(Policy::standard()).measurements([]), Reason::Measurement);
    vendor.case().refused(&vendor.named(Policy::standard()).host_data([[1; 32]]), Reason::HostData);
    vendor.case().refused(&vendor.named(Policy::standard()).chip_allowlist([]), Reason::ChipAllowlist);
    vendor.case().refused(&vendor.named(Policy::standard()).products([Product::Milan]), Reason::Product);
    vendor.case().refused(&Policy::vendor().min_guest_svn(1), Reason::GuestSvn);
    vendor.case().refused(&Policy::vendor().id_key_digests([[1; 48]]), Reason::IdKey);
    vendor.case().refused(&Policy::vendor().author_key_digests([[1; 48]]), Reason::IdKey);
    vendor.case().field(0x050, &[1]).refused(&Policy::vendor(), Reason::ReportData);
    // An author key digest counts only where AUTHOR_KEY_EN says so.
    let author = Policy::vendor().author_key_digests([[7; 48]]);
    vendor.case().field(0x110, &[7; 48]).refused(&author, Reason::IdKey);
    vendor.case().field(0x110, &[7; 48]).field(0x048, &[1]).accepted(&author);

    // Several violations are all listed.
    let refusal = vendor.case().field(0x00a, &[0b1111]).field(0x030, &[2]).judge(standard).unwrap_err();
    let failed = refusal.steps.iter().filter(|step| matches!(step.result, StepResult::Fail(_))).count();
    assert_eq!(failed, 3, "{refusal}");
}

pub(super) fn strict_demands(vendor: &Vendor) {
    let strict = vendor.named(Policy::strict());
    // policy: RAPL_DIS, CIPHERTEXT_HIDING, PAGE_SWAP_DISABLE, no SMT; platform: the same.
    let strong = || vendor.case().field(0x00a, &[0b1000_0010, 0b11]).field(0x040, &[0b11_1100]);
    strong().accepted(&strict);
    vendor.case().refused(&strict, Reason::PolicyBits);
    strong().field(0x00a, &[0b1000_0011]).refused(&strict, Reason::PolicyBits);
    strong().field(0x00a, &[0b0000_0010]).refused(&strict, Reason::PolicyBits);
    strong().field(0x00b, &[0b01]).refused(&strict, Reason::PolicyBits);
    strong().field(0x00b, &[0b10]).refused(&strict, Reason::PolicyBits);
    for platform in [0b11_1101, 0b11_0100, 0b10_1100, 0b01_1100, 0b11_1000] {
        strong().field(0x040, &[platform]).refused(&strict, Reason::PlatformInfo);
    }
    strong().field(0x000, &[4]).field(0x1f8, &[0; 16]).refused(&strict, Reason::Version);
}
