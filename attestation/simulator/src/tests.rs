//! A whole fake vendor, and every way its evidence must be refused.
//!
//! RSA keys take seconds to make, so the many cases share one vendor.

use std::path::Path;

use adyton_attestation::evidence::encode_certificate_table;
use adyton_attestation::{
    Claims, Endorsements, Evidence, Policy, Product, Reason, Rejected, Revocation, StepResult, TcbFloor,
    TcbVersion, Time, TrustAnchors, VerifiedReport,
};
use ring::digest::{SHA256, digest};
use ring::signature::{EcdsaKeyPair, KeyPair as _, RsaKeyPair};

use crate::cert::{Template, Validity, amd_extension, chip_extensions, revocation_list, tcb_extensions};
use crate::processor::{LaunchContext, Simulator, sign};
use crate::setup::{self, PRODUCT, Setup, TCB};
use crate::{SIMULATED_NOTICE, setup as set_up};

const NOW: Time = Time::from_unix_seconds(1_790_000_000);
const YEAR_S: u64 = 365 * 86_400;
const REPORT_DATA: [u8; 64] = [0x5a; 64];
const VALIDITY: Validity = Validity { not_before: at(-1), not_after: at(1) };

/// So many years from now.
const fn at(years: i64) -> Time {
    Time::from_unix_seconds(NOW.as_unix_seconds().saturating_add_signed(years * YEAR_S as i64))
}

/// A vendor that does not carry the simulator's mark, as AMD's own certificates do not.
struct Vendor {
    root_key: RsaKeyPair,
    intermediate_key: RsaKeyPair,
    chip_key: EcdsaKeyPair,
    simulator: Simulator,
    context: LaunchContext,
    chain: Chain,
}

#[derive(Clone)]
struct Chain {
    root: Template,
    intermediate: Template,
    leaf: Template,
    revoked: Option<Vec<u8>>,
    crl_validity: Validity,
}

impl Chain {
    /// Root, intermediate and leaf.
    const PLACES: [fn(&mut Self) -> &mut Template; 3] =
        [|chain| &mut chain.root, |chain| &mut chain.intermediate, |chain| &mut chain.leaf];
}

/// One case: a chain and a report, honest until changed.
struct Case<'a> {
    vendor: &'a Vendor,
    chain: Chain,
    report: Vec<u8>,
    now: Time,
    tamper: fn(&mut Vec<u8>, &mut Endorsements),
}

impl Vendor {
    fn new(dir: &Path) -> Self {
        set_up(dir, NOW).unwrap();
        let key = |file| RsaKeyPair::from_pkcs8(&setup::read(dir, file).unwrap()).unwrap();
        let (root_key, intermediate_key) = (key("ark.key"), key("ask.key"));
        let chip_key = setup::load_chip_key(&setup::read(dir, "vcek.key").unwrap()).unwrap();
        let simulator = Simulator::load(dir).unwrap();
        let context = LaunchContext::new(b"program", b"document", &["argument"]).unwrap();
        let point = chip_key.public_key().as_ref();
        let mut chain = Chain {
            root: Template::authority(1, "ARK-Genoa", &root_key, VALIDITY),
            intermediate: Template::authority(2, "SEV-Genoa", &intermediate_key, VALIDITY),
            leaf: Template::chip(point, chip_extensions(TCB, simulator.chip_id(), PRODUCT), VALIDITY),
            revoked: Some(vec![]),
            crl_validity: VALIDITY,
        };
        for template in [&mut chain.root, &mut chain.intermediate, &mut chain.leaf] {
            template.organisation = "Some Vendor".into();
        }
        Self { root_key, intermediate_key, chip_key, simulator, context, chain }
    }

    fn case(&self) -> Case<'_> {
        let report = self.simulator.report(&self.context, &REPORT_DATA).unwrap();
        Case { vendor: self, chain: self.chain.clone(), report, now: NOW, tamper: |_, _| {} }
    }

    /// The policy that names this vendor's guest and chip.
    fn named(&self, policy: Policy) -> Policy {
        let chip = digest(&SHA256, self.simulator.chip_id()).as_ref().try_into().unwrap();
        policy
            .measurements([self.context.measurement])
            .host_data([self.context.host_data])
            .chip_allowlist([chip])
    }
}

impl Case<'_> {
    /// Writes into the report; it is signed again before it is judged.
    fn field(mut self, offset: usize, value: &[u8]) -> Self {
        self.report[offset..offset + value.len()].copy_from_slice(value);
        self
    }

    /// Changes the certificates before they are issued.
    fn chain(mut self, change: impl FnOnce(&mut Chain)) -> Self {
        change(&mut self.chain);
        self
    }

    /// Changes what is already signed.
    fn tamper(mut self, tamper: fn(&mut Vec<u8>, &mut Endorsements)) -> Self {
        self.tamper = tamper;
        self
    }

    /// Replaces the chip's extensions.
    fn extensions(self, extensions: Vec<Vec<u8>>) -> Self {
        self.chain(|chain| chain.leaf.extensions = extensions)
    }

    fn judge(&self, policy: &Policy) -> Result<VerifiedReport, Rejected> {
        let (vendor, chain) = (self.vendor, &self.chain);
        let mut report = self.report.clone();
        sign(&vendor.chip_key, &mut report).unwrap();
        let crl = |serials: &Vec<u8>| {
            revocation_list(&chain.root, &vendor.root_key, chain.crl_validity, serials).unwrap()
        };
        let mut endorsements = Endorsements {
            ark: Some(chain.root.issue(&chain.root, &vendor.root_key).unwrap()),
            crls: chain.revoked.iter().map(crl).collect(),
            ..Endorsements::default()
        };
        let anchors = TrustAnchors::dangerous_root(endorsements.ark.as_ref().unwrap())?;
        let intermediate = chain.intermediate.issue(&chain.root, &vendor.root_key).unwrap();
        let leaf = chain.leaf.issue(&chain.intermediate, &vendor.intermediate_key).unwrap();
        if chain.leaf.common_name == "SEV-VLEK" {
            (endorsements.asvk, endorsements.vlek) = (Some(intermediate), Some(leaf));
        } else {
            (endorsements.ask, endorsements.vcek) = (Some(intermediate), Some(leaf));
        }
        (self.tamper)(&mut report, &mut endorsements);
        Evidence::snp_from_parts(&report, &[])?
            .verify(&anchors, &endorsements, self.now)?
            .appraise(policy, &REPORT_DATA)
    }

    #[track_caller]
    fn refused(self, policy: &Policy, reason: Reason) {
        let refusal = self.judge(policy).expect_err("must be refused");
        assert_eq!(refusal.reason, reason, "{refusal}");
        let failed = refusal.steps.iter().find(|step| matches!(step.result, StepResult::Fail(_)));
        assert_eq!(failed.unwrap().result, StepResult::Fail(reason));
    }

    #[track_caller]
    fn accepted(self, policy: &Policy) -> Claims {
        self.judge(policy).unwrap_or_else(|refusal| panic!("{refusal}")).claims().clone()
    }
}

#[test]
fn every_flaw_is_refused_for_its_own_reason() {
    let dir = tempfile::tempdir().unwrap();
    let vendor = Vendor::new(dir.path());
    let standard = vendor.named(Policy::standard());
    let report = vendor.case().accepted(&standard);
    assert!(!report.simulated());
    assert_eq!(report.measurement(), vendor.context.measurement);
    assert!(matches!(report.revocation(), Revocation::Fresh { .. }));
    flawed_chains(&vendor, &standard);
    flawed_chip_certificates(&vendor, &standard);
    revocation(&vendor, &standard);
    provider_keys(&vendor);
    turin(&vendor);
    flawed_reports(&vendor, &standard);
    unwelcome_reports(&vendor, &standard);
    strict_demands(&vendor);
    simulated_evidence(&vendor);
}

fn flawed_chains(vendor: &Vendor, policy: &Policy) {
    let flaw = |change: fn(&mut Chain), reason| vendor.case().chain(change).refused(policy, reason);
    // basicConstraints CA:FALSE, absent; keyUsage absent, digitalSignature only.
    let ca_false = [0x30, 0x0c, 0x06, 3, 0x55, 0x1d, 0x13, 0x01, 1, 0xff, 0x04, 2, 0x30, 0];
    vendor
        .case()
        .chain(|chain| chain.intermediate.extensions[1] = ca_false.into())
        .refused(policy, Reason::Chain);
    flaw(|chain| drop(chain.intermediate.extensions.remove(1)), Reason::Chain);
    flaw(|chain| drop(chain.intermediate.extensions.remove(0)), Reason::Chain);
    let sign_only = [0x30, 0x0e, 0x06, 3, 0x55, 0x1d, 0x0f, 0x01, 1, 0xff, 0x04, 4, 3, 2, 7, 0x80];
    vendor
        .case()
        .chain(|chain| chain.intermediate.extensions[0] = sign_only.into())
        .refused(policy, Reason::Chain);
    // pathLenConstraint 0 on the root leaves no room for an intermediate.
    let path_len_0 =
        [0x30, 0x12, 0x06, 3, 0x55, 0x1d, 0x13, 0x01, 1, 0xff, 0x04, 8, 0x30, 6, 0x01, 1, 0xff, 0x02, 1, 0];
    vendor.case().chain(|chain| chain.root.extensions[1] = path_len_0.into()).refused(policy, Reason::Chain);
    vendor.case().chain(|chain| chain.intermediate.extensions[1] = path_len_0.into()).accepted(policy);
    // A critical extension nobody knows, an extension twice, a leaf that is a CA.
    let critical = [0x30, 0x0d, 0x06, 3, 0x55, 0x1d, 0x7f, 0x01, 1, 0xff, 0x04, 3, 0x02, 1, 0];
    for place in Chain::PLACES {
        vendor
            .case()
            .chain(|chain| place(chain).extensions.push(critical.into()))
            .refused(policy, Reason::Chain);
        vendor
            .case()
            .chain(|chain| {
                let first = place(chain).extensions[0].clone();
                place(chain).extensions.push(first);
            })
            .refused(policy, Reason::Chain);
    }
    flaw(|chain| chain.leaf.extensions.push(chain.root.extensions[1].clone()), Reason::Chain);
    // Names.
    flaw(|chain| chain.intermediate.common_name = "SEV-Milan".into(), Reason::Chain);
    flaw(|chain| chain.root.common_name = "ARK-Rome".into(), Reason::Chain);
    flaw(|chain| chain.leaf.common_name = "SEV-Something".into(), Reason::SigningKey);
    // A key of another kind in the leaf.
    flaw(|chain| chain.leaf.public_key = chain.root.public_key.clone(), Reason::Chain);
    // Validity of each.
    for place in Chain::PLACES {
        let second_ago = Time::from_unix_seconds(NOW.as_unix_seconds() - 1);
        let in_a_second = Time::from_unix_seconds(NOW.as_unix_seconds() + 1);
        vendor.case().chain(|chain| place(chain).validity.not_after = NOW).accepted(policy);
        vendor
            .case()
            .chain(|chain| place(chain).validity.not_after = second_ago)
            .refused(policy, Reason::Expired);
        vendor
            .case()
            .chain(|chain| place(chain).validity.not_before = in_a_second)
            .refused(policy, Reason::NotYetValid);
    }
    // Signatures and encodings of what is already issued.
    let tamper = |tamper, reason| vendor.case().tamper(tamper).refused(policy, reason);
    tamper(|_, e| flip_last(e.vcek.as_mut()), Reason::Chain);
    tamper(|_, e| flip_last(e.ask.as_mut()), Reason::Chain);
    tamper(|_, e| e.vcek.as_mut().unwrap().push(0), Reason::Chain);
    tamper(|_, e| e.ask.clone_from(&e.ark), Reason::Chain);
    tamper(|_, e| flip_last(e.ark.as_mut()), Reason::UntrustedRoot);
    tamper(|_, e| e.ark.clone_from(&e.ask), Reason::UntrustedRoot);
    tamper(|_, e| e.vcek = None, Reason::EndorsementMissing);
    tamper(|_, e| e.ask = None, Reason::EndorsementMissing);
    tamper(|_, e| e.vlek = e.vcek.take(), Reason::SigningKey);
    // Without an ARK the anchor is found by name.
    vendor.case().tamper(|_, e| e.ark = None).accepted(policy);
    // The pinned roots know nothing of this vendor.
    let evidence =
        Evidence::snp_from_parts(&vendor.case().report, vendor.simulator.certificate_table()).unwrap();
    let refusal = evidence.verify(&TrustAnchors::pinned(), &Endorsements::default(), NOW).unwrap_err();
    assert_eq!(refusal.reason, Reason::UntrustedRoot);
}

fn flip_last(der: Option<&mut Vec<u8>>) {
    *der.unwrap().last_mut().unwrap() ^= 1;
}

fn flawed_chip_certificates(vendor: &Vendor, policy: &Policy) {
    let chip_id = vendor.simulator.chip_id();
    let with = |tcb, hwid: &[u8]| chip_extensions(tcb, hwid, PRODUCT);
    // Each component, one up and one down.
    for tcb in [
        TcbVersion { bootloader: TCB.bootloader + 1, ..TCB },
        TcbVersion { bootloader: TCB.bootloader - 1, ..TCB },
        TcbVersion { tee: TCB.tee + 1, ..TCB },
        TcbVersion { snp: TCB.snp - 1, ..TCB },
        TcbVersion { microcode: TCB.microcode + 1, ..TCB },
        TcbVersion { fmc: Some(0), ..TCB },
    ] {
        vendor.case().extensions(with(tcb, chip_id)).refused(policy, Reason::TcbBinding);
    }
    // The right number in another encoding, and a component that is absent.
    let ucode = amd_extension(&[3, 8], &[2, 2, 0, TCB.microcode]);
    let replaced = |replacement: Option<Vec<u8>>| {
        let mut extensions = with(TCB, chip_id);
        let index = extensions.iter().position(|ext| *ext == amd_extension(&[3, 8], &[2, 1, TCB.microcode]));
        match replacement {
            Some(other) => extensions[index.unwrap()] = other,
            None => drop(extensions.remove(index.unwrap())),
        }
        extensions
    };
    vendor.case().extensions(replaced(Some(ucode))).refused(policy, Reason::TcbBinding);
    vendor.case().extensions(replaced(None)).refused(policy, Reason::TcbBinding);
    // The chip.
    let mut other_chip = *chip_id;
    other_chip[63] ^= 1;
    vendor.case().extensions(with(TCB, &other_chip)).refused(policy, Reason::Hwid);
    vendor.case().extensions(with(TCB, &chip_id[..63])).refused(policy, Reason::Hwid);
    vendor.case().extensions(with(TCB, &[&[4, 64], &chip_id[..]].concat())).refused(policy, Reason::Hwid);
    vendor.case().extensions(tcb_extensions(TCB, "Genoa")).refused(policy, Reason::Hwid);
    vendor.case().extensions(with(TCB, &[0; 64])).field(0x1a0, &[0; 64]).refused(policy, Reason::Hwid);
    let mut provider = with(TCB, chip_id);
    provider.push(amd_extension(&[5], b"\x16\x04CN=x"));
    vendor.case().extensions(provider).refused(policy, Reason::Hwid);
    // The product.
    let named = |name: &str| {
        let mut extensions = tcb_extensions(TCB, name);
        extensions.push(amd_extension(&[4], chip_id));
        extensions
    };
    vendor.case().extensions(named("Genoa-B1")).accepted(policy);
    for wrong in ["Milan-B0", "Genoa-", "Genoa-B1x", "genoa", "Rome", ""] {
        vendor.case().extensions(named(wrong)).refused(policy, Reason::Product);
    }
    vendor.case().field(0x188, &[0x19, 0x01, 0x01]).refused(policy, Reason::Product);
    vendor.case().field(0x188, &[0x17, 0x31, 0x00]).refused(policy, Reason::Product);
}

fn revocation(vendor: &Vendor, standard: &Policy) {
    let vendor_policy = Policy::vendor();
    let case = |change: fn(&mut Chain)| vendor.case().chain(change);
    case(|chain| chain.revoked = Some(vec![7, 2])).refused(&vendor_policy, Reason::Revoked);
    case(|chain| chain.revoked = Some(vec![7])).accepted(standard);
    case(|chain| chain.revoked = None).refused(standard, Reason::CrlMissing);
    let missed = case(|chain| chain.revoked = None).accepted(&vendor_policy);
    assert_eq!(missed.revocation(), Revocation::NotSupplied);
    assert!(missed.steps().iter().any(|step| step.name == "revocation" && step.result == StepResult::Skip));
    case(|chain| chain.revoked = None).refused(&Policy::vendor().require_revocation(), Reason::CrlMissing);
    // Out of date, and not begun.
    let stale = |chain: &mut Chain| {
        chain.crl_validity.not_after = Time::from_unix_seconds(NOW.as_unix_seconds() - 1);
    };
    case(stale).refused(&vendor_policy, Reason::CrlStale);
    case(|chain| chain.crl_validity.not_before = Time::from_unix_seconds(NOW.as_unix_seconds() + 1))
        .refused(&vendor_policy, Reason::CrlStale);
    // A list that ran out before the leaf was issued is of another time: no freshness, but it still revokes.
    let ancient = |chain: &mut Chain| {
        chain.crl_validity = Validity { not_before: at(-3), not_after: at(-2) };
    };
    assert_eq!(case(ancient).accepted(&vendor_policy).revocation(), Revocation::Unrelated);
    case(ancient).refused(standard, Reason::CrlStale);
    vendor
        .case()
        .chain(ancient)
        .chain(|chain| chain.revoked = Some(vec![2]))
        .refused(&vendor_policy, Reason::Revoked);
    // Not authentic, not of this root, not a list; and beside a good one, a list of another root is passed over.
    let tamper = |tamper| vendor.case().tamper(tamper).refused(&vendor_policy, Reason::CrlSignature);
    tamper(|_, e| flip_last(e.crls.first_mut()));
    tamper(|_, e| e.crls = vec![b"not a list".to_vec()]);
    tamper(|_, e| e.crls.first_mut().unwrap().push(0));
    let foreign = Template { common_name: "ARK-Other".into(), ..vendor.chain.root.clone() };
    let foreign = revocation_list(&foreign, &vendor.root_key, VALIDITY, &[2]).unwrap();
    let judge = |crls: Vec<Vec<u8>>| {
        let root = vendor.chain.root.issue(&vendor.chain.root, &vendor.root_key).unwrap();
        let ask = vendor.chain.intermediate.issue(&vendor.chain.root, &vendor.root_key).unwrap();
        let vcek = vendor.chain.leaf.issue(&vendor.chain.intermediate, &vendor.intermediate_key).unwrap();
        let table = encode_certificate_table(&root, &ask, &vcek, None);
        let evidence = Evidence::snp_from_parts(&vendor.case().report, &table).unwrap();
        let anchors = TrustAnchors::dangerous_root(&root).unwrap();
        evidence.verify(&anchors, &Endorsements { crls, ..Default::default() }, NOW)
    };
    let own = revocation_list(&vendor.chain.root, &vendor.root_key, VALIDITY, &[]).unwrap();
    assert!(judge(vec![foreign.clone(), own]).is_ok());
    assert_eq!(judge(vec![foreign]).unwrap_err().reason, Reason::CrlSignature);
}

/// VLEK: a provider's key under an ASVK, for reports without a chip.
fn provider_keys(vendor: &Vendor) {
    let policy = Policy::vendor();
    let provider = |csp: &[u8]| {
        let mut extensions = tcb_extensions(TCB, "Genoa");
        extensions.push(amd_extension(&[5], csp));
        let case = vendor.case().extensions(extensions).field(0x048, &[1 << 2]).field(0x1a0, &[0; 64]);
        case.chain(|chain| {
            chain.leaf.common_name = "SEV-VLEK".into();
            chain.intermediate.common_name = "SEV-VLEK-Genoa".into();
        })
    };
    let csp = b"\x16\x0eCN=example.com";
    provider(csp).accepted(&policy);
    provider(csp).refused(&vendor.named(Policy::standard()), Reason::SigningKey);
    provider(b"").refused(&policy, Reason::Hwid);
    provider(b"\x0c\x04CN=x").refused(&policy, Reason::Hwid);
    provider(csp)
        .chain(|chain| chain.intermediate.common_name = "SEV-Genoa".into())
        .refused(&policy, Reason::Chain);
    // The key that signed is named in the report and must be of the kind supplied.
    provider(csp).field(0x048, &[0]).refused(&policy, Reason::SigningKey);
    vendor.case().field(0x048, &[1 << 2]).refused(&policy, Reason::SigningKey);
    vendor.case().field(0x048, &[7 << 2]).refused(&policy, Reason::SigningKey);
    // A VLEK can be revoked by its serial.
    provider(csp)
        .chain(|chain| {
            chain.leaf.serial = 9;
            chain.revoked = Some(vec![9]);
        })
        .refused(&policy, Reason::Revoked);
    // An allow-list of chips cannot be met by a masked chip.
    let allowlist = Policy::vendor().chip_allowlist([digest(&SHA256, &[0; 64]).as_ref().try_into().unwrap()]);
    provider(csp).refused(&allowlist, Reason::ChipAllowlist);
    // Version 2 with a masked chip: which product signed is unknowable.
    provider(csp)
        .field(0x000, &[2])
        .field(0x188, &[0; 3])
        .field(0x1f8, &[0; 16])
        .refused(&policy, Reason::Product);
}

/// Turin: FMC first in the TCB, eight bytes of chip id.
fn turin(vendor: &Vendor) {
    let tcb = TcbVersion { fmc: Some(1), bootloader: 1, tee: 1, snp: 4, microcode: 81 };
    let word = tcb.to_word();
    let hwid = [1, 2, 3, 4, 5, 6, 7, 8];
    let turin = |extensions| {
        let mut case = vendor.case().extensions(extensions).chain(|chain| {
            chain.root.common_name = "ARK-Turin".into();
            chain.intermediate.common_name = "SEV-Turin".into();
        });
        for offset in [0x038, 0x180, 0x1e0, 0x1f0] {
            case = case.field(offset, &word);
        }
        case.field(0x188, &[0x1a, 0x02, 0x01]).field(0x1a0, &[0; 64]).field(0x1a0, &hwid)
    };
    let extensions = |tcb| chip_extensions(tcb, &hwid, Product::Turin);
    let policy = Policy::vendor();
    let report = turin(extensions(tcb)).accepted(&policy);
    assert_eq!((report.product(), report.tcbs().reported), (Product::Turin, tcb));
    turin(extensions(TcbVersion { fmc: Some(0), ..tcb })).refused(&policy, Reason::TcbBinding);
    turin(extensions(TcbVersion { fmc: None, ..tcb })).refused(&policy, Reason::TcbBinding);
    turin(chip_extensions(tcb, &[hwid, [0; 8]].concat(), Product::Turin)).refused(&policy, Reason::Hwid);
    turin(extensions(tcb)).field(0x1a8, &[1]).refused(&policy, Reason::Hwid);
    turin(extensions(tcb)).field(0x038 + 5, &[1]).refused(&policy, Reason::Reserved);
    // The standard policy asks for IOMMU write safety there, and nowhere else.
    let chip_id = turin(extensions(tcb)).report[0x1a0..0x1e0].to_vec();
    let chip: [u8; 32] = digest(&SHA256, &chip_id).as_ref().try_into().unwrap();
    let standard = vendor.named(Policy::standard()).chip_allowlist([chip]);
    turin(extensions(tcb)).refused(&standard, Reason::PlatformInfo);
    turin(extensions(tcb)).field(0x040, &[0b110_0101]).accepted(&standard);
}

fn flawed_reports(vendor: &Vendor, policy: &Policy) {
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
fn unwelcome_reports(vendor: &Vendor, standard: &Policy) {
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

    // Several violations are all listed.
    let refusal = vendor.case().field(0x00a, &[0b1111]).field(0x030, &[2]).judge(standard).unwrap_err();
    let failed = refusal.steps.iter().filter(|step| matches!(step.result, StepResult::Fail(_))).count();
    assert_eq!(failed, 3, "{refusal}");
}

fn strict_demands(vendor: &Vendor) {
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

/// Every way to pass a simulation off as hardware, or the reverse.
fn simulated_evidence(vendor: &Vendor) {
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

#[test]
fn set_up_is_made_once_and_finished_if_torn() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(set_up(dir.path(), NOW).unwrap(), Setup::Made);
    let root = std::fs::read(dir.path().join("root.der")).unwrap();
    assert_eq!(set_up(dir.path(), NOW).unwrap(), Setup::AlreadyComplete);
    // Torn after the intermediate: the rest is made again under the same root.
    for file in ["vcek.der", "vcek.key", "chip-id.bin", "crl.der"] {
        std::fs::remove_file(dir.path().join(file)).unwrap();
    }
    assert!(Simulator::load(dir.path()).is_err());
    assert_eq!(set_up(dir.path(), NOW).unwrap(), Setup::Made);
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
    assert!(matches!(set_up(dir.path(), NOW), Err(crate::SimulatorError::KeyLost(_))));
}
