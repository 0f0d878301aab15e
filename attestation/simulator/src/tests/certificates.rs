//! Flawed certificates and revocation lists.

use adyton_attestation::evidence::encode_certificate_table;
use adyton_attestation::{
    Endorsements, Evidence, Policy, Product, Reason, Revocation, StepResult, TcbVersion, Time, TrustAnchors,
};
use ring::digest::{SHA256, digest};

use super::vendor::{Chain, NOW, SECOND_AGO, VALIDITY, Vendor, at};
use crate::cert::{
    CONTEXT_0, INTEGER, PSS_SHA384, SEQUENCE, Template, Validity, amd_extension, chip_extensions, extension,
    hex, revocation_list, sign, tcb_extensions, tlv, utc_time,
};
use crate::setup::{PRODUCT, TCB};

pub(super) fn flawed_chains(vendor: &Vendor, policy: &Policy) {
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
    let critical = critical_extension();
    for place in Chain::PLACES {
        vendor
            .case()
            .chain(|chain| place(chain).extensions.push(critical.clone()))
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
    // A malformed extension that is understood must not be skipped.
    let malformed = extension(&[0x55, 0x1d, 0x13], &[0x30, 1]);
    vendor.case().chain(|chain| chain.leaf.extensions.push(malformed)).refused(policy, Reason::Chain);
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

/// Certificates that do not belong together.
pub(super) fn misfit_certificates(vendor: &Vendor) {
    // The right key under the wrong name, an algorithm that differs outside the signed part, a short key.
    let [root, ask, vcek] = vendor.honest();
    let refused = |certificates| {
        assert_eq!(vendor.verify(certificates, vec![]).unwrap_err().reason, Reason::Chain);
    };
    let other_name = Template { organisation: "Another".into(), ..vendor.chain.intermediate.clone() };
    let misnamed = vendor.chain.leaf.issue(&other_name, &vendor.intermediate_key).unwrap();
    refused([root.clone(), ask.clone(), misnamed]);
    refused([root.clone(), ask.clone(), with_trailer_field(&vcek)]);
    refused([root.clone(), with_trailer_field(&ask), vcek]);
    let short = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der<'_> = aws_lc_rs::encoding::AsDer::as_der(&short).unwrap();
    let short = ring::signature::RsaKeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let mut intermediate = Template::authority(2, "SEV-Genoa", &short, VALIDITY);
    intermediate.organisation.clone_from(&vendor.chain.root.organisation);
    let ask = intermediate.issue(&vendor.chain.root, &vendor.root_key).unwrap();
    let vcek = vendor.chain.leaf.issue(&intermediate, &short).unwrap();
    refused([root.clone(), ask, vcek]);
    // Two roots: the caller's and another beside the report.
    let [_, ask, vcek] = vendor.honest();
    let other_root = vendor.chain.root.issue(&vendor.chain.root, &vendor.root_key).unwrap();
    let table = encode_certificate_table(&other_root, &ask, &vcek, None);
    let evidence = Evidence::snp_from_parts(&vendor.case().report, &table).unwrap();
    let anchors = TrustAnchors::dangerous_root(&root).unwrap();
    let refusal = evidence.verify(&anchors, &Endorsements { ark: Some(root), ..Default::default() }, NOW);
    assert_eq!(refusal.unwrap_err().reason, Reason::UntrustedRoot);
}

fn flip_last(der: Option<&mut Vec<u8>>) {
    *der.unwrap().last_mut().unwrap() ^= 1;
}

pub(super) fn flawed_chip_certificates(vendor: &Vendor, policy: &Policy) {
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
    let mut reserved = with(TCB, chip_id);
    let spl4 = reserved.iter().position(|ext| *ext == amd_extension(&[3, 4], &[2, 1, 0])).unwrap();
    reserved[spl4] = amd_extension(&[3, 4], &[2, 1, 1]);
    vendor.case().extensions(reserved).refused(policy, Reason::TcbBinding);
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

pub(super) fn revocation(vendor: &Vendor, standard: &Policy) {
    let vendor_policy = Policy::vendor();
    let case = |change: fn(&mut Chain)| vendor.case().chain(change);
    case(|chain| chain.revoked = Some(vec![7, 2])).refused(&vendor_policy, Reason::Revoked);
    case(|chain| chain.revoked = Some(vec![7])).accepted(standard);
    case(|chain| chain.revoked = None).refused(standard, Reason::CrlMissing);
    let missed = case(|chain| chain.revoked = None).accepted(&vendor_policy);
    assert_eq!(missed.snp().unwrap().revocation(), Revocation::NotSupplied);
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
    assert_eq!(case(ancient).accepted(&vendor_policy).snp().unwrap().revocation(), Revocation::Unrelated);
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
    let judge = |crls| vendor.verify(vendor.honest(), crls);
    let own = revocation_list(&vendor.chain.root, &vendor.root_key, VALIDITY, &[]).unwrap();
    assert!(judge(vec![foreign.clone(), own]).is_ok());
    assert_eq!(judge(vec![foreign]).unwrap_err().reason, Reason::CrlSignature);
    // Of two lists the newer counts, in whichever order they come.
    let list = |validity| revocation_list(&vendor.chain.root, &vendor.root_key, validity, &[]).unwrap();
    let old = list(Validity { not_before: at(-2), not_after: SECOND_AGO });
    for crls in [[list(VALIDITY), old.clone()], [old.clone(), list(VALIDITY)]] {
        assert!(judge(crls.into()).is_ok());
    }
    assert_eq!(judge(vec![old]).unwrap_err().reason, Reason::CrlStale);
    // Critical extensions of the list and of an entry, and an algorithm that differs outside the signed part.
    let unknown = extension(&[0x55, 0x1d, 0x7f], &tlv(INTEGER, &[vec![0]]));
    let critical = critical_extension();
    for (extensions, entry, good) in
        [(&unknown, &unknown, true), (&critical, &unknown, false), (&unknown, &critical, false)]
    {
        let entry_extensions = tlv(SEQUENCE, std::slice::from_ref(entry));
        let entry = tlv(SEQUENCE, &[tlv(INTEGER, &[vec![99]]), utc_time(at(-1)), entry_extensions]);
        let tbs = tlv(
            SEQUENCE,
            &[
                tlv(INTEGER, &[vec![1]]),
                hex(PSS_SHA384),
                vendor.chain.root.name(),
                utc_time(at(-1)),
                utc_time(at(1)),
                tlv(SEQUENCE, &[entry]),
                tlv(CONTEXT_0, &[tlv(SEQUENCE, std::slice::from_ref(extensions))]),
            ],
        );
        let outcome = judge(vec![sign(tbs, &vendor.root_key).unwrap()]).map_err(|refusal| refusal.reason);
        assert_eq!(outcome.is_ok(), good);
        assert!(good || outcome.unwrap_err() == Reason::CrlSignature);
    }
    let refusal = judge(vec![with_trailer_field(&list(VALIDITY))]).unwrap_err();
    assert_eq!(refusal.reason, Reason::CrlSignature);
}

/// A critical extension that nobody knows.
fn critical_extension() -> Vec<u8> {
    vec![0x30, 0x0d, 0x06, 3, 0x55, 0x1d, 0x7f, 0x01, 1, 0xff, 0x04, 3, 0x02, 1, 0]
}

/// The same signed object with the outer algorithm in its other spelling, which is not part of what is signed.
fn with_trailer_field(der: &[u8]) -> Vec<u8> {
    const SIGNATURE_LEN: usize = 4 + 1 + 512;
    let algorithm = hex(PSS_SHA384);
    let (head, signature) = der.split_at(der.len() - SIGNATURE_LEN);
    let (head, _) = head.split_at(head.len() - algorithm.len());
    let mut spelt_out = algorithm;
    spelt_out.extend([0xa3, 3, 2, 1, 1]);
    for length in [1, 14] {
        spelt_out[length] += 5;
    }
    tlv(SEQUENCE, &[head[4..].to_vec(), spelt_out, signature.to_vec()])
}

/// VLEK: a provider's key under an ASVK, for reports without a chip.
pub(super) fn provider_keys(vendor: &Vendor) {
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
    provider(csp)
        .chain(|chain| chain.leaf.extensions.push(amd_extension(&[4], vendor.simulator.chip_id())))
        .refused(&policy, Reason::Hwid);
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
    // An intermediate in the place of the other kind is found, and is what its names say it is.
    provider(csp).tamper(|_, e| e.ask = e.asvk.take()).accepted(&policy);
    vendor.case().tamper(|_, e| e.asvk = e.ask.take()).accepted(&policy);
    // Version 2 with a masked chip: which product signed is unknowable.
    provider(csp)
        .field(0x000, &[2])
        .field(0x188, &[0; 3])
        .field(0x1f8, &[0; 16])
        .refused(&policy, Reason::Product);
}

/// Turin: FMC first in the TCB, eight bytes of chip id.
pub(super) fn turin(vendor: &Vendor) {
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
    let claims = report.snp().unwrap();
    assert_eq!((claims.product(), claims.tcbs().reported), (Product::Turin, tcb));
    turin(extensions(TcbVersion { fmc: Some(0), ..tcb })).refused(&policy, Reason::TcbBinding);
    turin(extensions(TcbVersion { fmc: None, ..tcb })).refused(&policy, Reason::TcbBinding);
    turin(chip_extensions(tcb, &[hwid, [0; 8]].concat(), Product::Turin)).refused(&policy, Reason::Hwid);
    turin(extensions(tcb)).field(0x1a8, &[1]).refused(&policy, Reason::Hwid);
    turin(extensions(tcb)).field(0x038 + 5, &[1]).refused(&policy, Reason::Reserved);
    turin(extensions(tcb))
        .field(0x000, &[2])
        .field(0x188, &[0; 3])
        .field(0x1f8, &[0; 16])
        .refused(&policy, Reason::Product);
    // The standard policy asks for IOMMU write safety there, and nowhere else.
    let chip_id = turin(extensions(tcb)).report[0x1a0..0x1e0].to_vec();
    let chip: [u8; 32] = digest(&SHA256, &chip_id).as_ref().try_into().unwrap();
    let standard = vendor.named(Policy::standard()).chip_allowlist([chip]);
    turin(extensions(tcb)).refused(&standard, Reason::PlatformInfo);
    turin(extensions(tcb)).field(0x040, &[0b110_0101]).accepted(&standard);
}
