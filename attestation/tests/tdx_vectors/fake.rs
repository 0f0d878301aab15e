//! A fake Intel: root, PCK CA, PCK certificate, signed documents, revocation lists, quoting enclave and quote, each of
//! which a test can make wrong by itself.

use adyton_attestation::{Collateral, SignedDocument, Time};
use base64::Engine as _;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
};

use crate::der::*;

/// The time of judgement.
pub(crate) const NOW: u64 = 1_790_000_000;
const YEAR: u64 = 365 * 24 * 3600;
const DAY: u64 = 24 * 3600;
pub(crate) const SEPT_VE_DISABLE: u64 = 1 << 28;
pub(crate) const XFAM: u64 = 0x0006_02e7;

pub(crate) fn time(seconds: u64) -> Time {
    Time::from_unix_seconds(seconds)
}

/// A P-256 key that signs in both encodings.
pub(crate) struct Key {
    asn1: EcdsaKeyPair,
    fixed: EcdsaKeyPair,
}

impl Key {
    fn new() -> Self {
        let rng = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &rng).unwrap();
        let read = |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &rng).unwrap();
        Self { asn1: read(&ECDSA_P256_SHA256_ASN1_SIGNING), fixed: read(&ECDSA_P256_SHA256_FIXED_SIGNING) }
    }

    fn point(&self) -> &[u8] {
        self.fixed.public_key().as_ref()
    }

    fn sign_asn1(&self, message: &[u8]) -> Vec<u8> {
        self.asn1.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.fixed.sign(&SystemRandom::new(), message).unwrap().as_ref().try_into().unwrap()
    }
}

/// Whose key signs something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signer {
    Root,
    Ca,
    Pck,
    Documents,
    Attestation,
    /// Nobody's.
    Stranger,
}

pub(crate) struct Keys([Key; 6]);

impl Keys {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| Key::new()))
    }

    pub(crate) fn of(&self, signer: Signer) -> &Key {
        &self.0[signer as usize]
    }
}

#[derive(Clone)]
pub(crate) struct Certificate {
    pub(crate) subject: &'static str,
    pub(crate) issuer: &'static str,
    pub(crate) serial: u32,
    pub(crate) from: u64,
    pub(crate) until: u64,
    pub(crate) key: Signer,
    pub(crate) signed_by: Signer,
    pub(crate) extensions: Vec<Vec<u8>>,
}

impl Certificate {
    fn issue(&self, keys: &Keys) -> Vec<u8> {
        let tbs = tlv(
            SEQUENCE,
            &[
                tlv(CONTEXT_0, &[integer(2)]),
                integer(self.serial),
                ECDSA_SHA256.to_vec(),
                name(self.issuer),
                tlv(SEQUENCE, &[utc_time(time(self.from)), utc_time(time(self.until))]),
                name(self.subject),
                spki(keys.of(self.key).point()),
                tlv(CONTEXT_3, &[tlv(SEQUENCE, &self.extensions)]),
            ],
        );
        signed(tbs, keys.of(self.signed_by))
    }
}

#[derive(Clone)]
pub(crate) struct Crl {
    pub(crate) issuer: &'static str,
    pub(crate) from: u64,
    pub(crate) until: u64,
    pub(crate) signed_by: Signer,
    pub(crate) revoked: Vec<u32>,
    pub(crate) extensions: Vec<Vec<u8>>,
}

impl Crl {
    fn issue(&self, keys: &Keys) -> Vec<u8> {
        let entry = |serial: &u32| tlv(SEQUENCE, &[integer(*serial), utc_time(time(self.from))]);
        let mut parts = vec![
            integer(1),
            ECDSA_SHA256.to_vec(),
            name(self.issuer),
            utc_time(time(self.from)),
            utc_time(time(self.until)),
        ];
        if !self.revoked.is_empty() {
            parts.push(tlv(SEQUENCE, &self.revoked.iter().map(entry).collect::<Vec<_>>()));
        }
        if !self.extensions.is_empty() {
            parts.push(tlv(CONTEXT_0, &[tlv(SEQUENCE, &self.extensions)]));
        }
        signed(tlv(SEQUENCE, &parts), keys.of(self.signed_by))
    }
}

fn signed(tbs: Vec<u8>, key: &Key) -> Vec<u8> {
    let signature = bit_string(&key.sign_asn1(&tbs));
    tlv(SEQUENCE, &[tbs, ECDSA_SHA256.to_vec(), signature])
}

/// The members of the SGX extensions, each as (last arc, value).
pub(crate) fn pck_members() -> Vec<(u8, Vec<u8>)> {
    let octets = |bytes: &[u8]| tlv(OCTET_STRING, &[bytes.to_vec()]);
    let mut tcb: Vec<(u8, Vec<u8>)> = (1..=16).map(|number| (number, integer(3))).collect();
    tcb.extend([(17, integer(13)), (18, octets(&[3; 16]))]);
    vec![
        (1, octets(&[0x77; 16])),
        (2, sgx_sequence(&[2], &tcb)),
        (3, octets(&[0, 0])),
        (4, octets(&[0x90, 0xc0, 0x6f, 0, 0, 0])),
        (5, tlv(ENUMERATED, &[vec![1]])),
        (6, octets(&[9; 16])),
        (
            7,
            sgx_sequence(
                &[7],
                &[(1, tlv(1, &[vec![0xff]])), (2, tlv(1, &[vec![0]])), (3, tlv(1, &[vec![0xff]]))],
            ),
        ),
    ]
}

fn sgx_sequence(arc: &[u8], members: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let member = |(last, value): &(u8, Vec<u8>)| {
        tlv(SEQUENCE, &[oid(&[&SGX[..], arc, &[*last]].concat()), value.clone()])
    };
    tlv(SEQUENCE, &members.iter().map(member).collect::<Vec<_>>())
}

pub(crate) fn pck_extension(members: &[(u8, Vec<u8>)]) -> Vec<u8> {
    extension(&SGX, false, &sgx_sequence(&[], members))
}

/// A quote before it is signed.
#[derive(Clone)]
pub(crate) struct Quote {
    pub(crate) header: Vec<u8>,
    /// Body type and announced length, in version 5.
    pub(crate) descriptor: Option<(u16, u32)>,
    pub(crate) body: Vec<u8>,
    pub(crate) signed_by: Signer,
    pub(crate) qe_report: Vec<u8>,
    pub(crate) qe_signed_by: Signer,
    pub(crate) authentication: Vec<u8>,
    pub(crate) bind_key: bool,
    pub(crate) outer_type: u16,
    pub(crate) inner_type: u16,
    pub(crate) pem_suffix: &'static str,
    pub(crate) padding: Vec<u8>,
}

/// Everything of one machine and its vendor.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) root: Certificate,
    /// The root that the chains show, if it is not the trust anchor.
    pub(crate) shown_root: Option<Certificate>,
    pub(crate) ca: Certificate,
    pub(crate) pck: Certificate,
    pub(crate) document_signer: Certificate,
    pub(crate) root_crl: Crl,
    pub(crate) pck_crl: Crl,
    pub(crate) tcb_info: String,
    pub(crate) tcb_info_signed_by: Signer,
    pub(crate) qe_identity: String,
    pub(crate) qe_identity_signed_by: Signer,
    pub(crate) quote: Quote,
    /// What is done to the parts after all of them were signed.
    pub(crate) after: Option<fn(&mut Parts)>,
}

/// What a verifier gets.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) root: Vec<u8>,
    pub(crate) quote: Vec<u8>,
    pub(crate) collateral: Collateral,
    pck_chain: [Vec<u8>; 3],
}

const ROOT: &str = "Intel SGX Root CA";
const CA: &str = "Intel SGX PCK Platform CA";

impl Fake {
    pub(crate) fn honest() -> Self {
        let (from, until) = (NOW - YEAR, NOW + YEAR);
        let certificate = |subject, issuer, serial, key, signed_by, extensions| Certificate {
            subject,
            issuer,
            serial,
            from,
            until,
            key,
            signed_by,
            extensions,
        };
        let crl = |issuer, signed_by| Crl {
            issuer,
            from: NOW - DAY,
            until: NOW + DAY,
            signed_by,
            revoked: vec![0x0077_7777],
            extensions: vec![extension(&CRL_NUMBER, false, &integer(1))],
        };
        let authority = || vec![key_usage(0x06), basic_constraints(true)];
        let leaf = || vec![key_usage(0xc0), basic_constraints(false)];
        let pck = [leaf(), vec![pck_extension(&pck_members())]].concat();
        Self {
            root: certificate(ROOT, ROOT, 1, Signer::Root, Signer::Root, authority()),
            shown_root: None,
            ca: certificate(CA, ROOT, 2, Signer::Ca, Signer::Root, authority()),
            pck: certificate("Intel SGX PCK Certificate", CA, 3, Signer::Pck, Signer::Ca, pck),
            document_signer: certificate(
                "Intel SGX TCB Signing",
                ROOT,
                4,
                Signer::Documents,
                Signer::Root,
                leaf(),
            ),
            root_crl: crl(ROOT, Signer::Root),
            pck_crl: crl(CA, Signer::Ca),
            tcb_info: tcb_info(),
            tcb_info_signed_by: Signer::Documents,
            qe_identity: qe_identity(),
            qe_identity_signed_by: Signer::Documents,
            quote: Quote::honest(),
            after: None,
        }
    }

    pub(crate) fn build(&self, keys: &Keys) -> Parts {
        let root = self.root.issue(keys);
        let shown = self.shown_root.as_ref().map_or_else(|| root.clone(), |other| other.issue(keys));
        let ca = self.ca.issue(keys);
        let signer = self.document_signer.issue(keys);
        let document = |text: &str, signed_by| SignedDocument {
            document: text.as_bytes().to_vec(),
            signature: keys.of(signed_by).sign(text.as_bytes()),
            issuer_chain: vec![signer.clone(), shown.clone()],
        };
        let collateral = Collateral {
            tcb_info: document(&self.tcb_info, self.tcb_info_signed_by),
            qe_identity: document(&self.qe_identity, self.qe_identity_signed_by),
            root_crl: self.root_crl.issue(keys),
            pck_crl: self.pck_crl.issue(keys),
            pck_crl_issuer_chain: vec![ca.clone(), shown.clone()],
        };
        let chain = [self.pck.issue(keys), ca, shown];
        let mut parts = Parts { root, quote: self.quote.issue(keys, &chain), collateral, pck_chain: chain };
        if let Some(after) = self.after {
            after(&mut parts);
        }
        parts
    }

    /// Another quote by the quoting enclave that made the one in `parts`, whose body is as long.
    pub(crate) fn next_quote(&self, keys: &Keys, parts: &Parts) -> Parts {
        let fresh = self.quote.issue(keys, &parts.pck_chain);
        let signed = self.quote.header.len() + 6 + self.quote.body.len();
        let (length, signature) = (signed..signed + 4, signed + 4..signed + 68);
        let old = &parts.quote;
        let quote =
            [&fresh[..signed], &old[length], &fresh[signature.clone()], &old[signature.end..]].concat();
        Parts { quote, ..parts.clone() }
    }

    /// Replaces text of the TCB info before it is signed.
    pub(crate) fn info(&mut self, from: &str, to: &str) {
        assert!(self.tcb_info.contains(from), "no {from}");
        self.tcb_info = self.tcb_info.replacen(from, to, 1);
    }

    /// Replaces text of the QE identity before it is signed.
    pub(crate) fn identity(&mut self, from: &str, to: &str) {
        assert!(self.qe_identity.contains(from), "no {from}");
        self.qe_identity = self.qe_identity.replacen(from, to, 1);
    }
}

impl Quote {
    fn honest() -> Self {
        let mut header = vec![0; 48];
        header[..8].copy_from_slice(&[5, 0, 2, 0, 0x81, 0, 0, 0]);
        header[12..28].copy_from_slice(&hex::decode("939a7233f79c4ca9940a0db3957f0607").unwrap());
        let mut body = vec![0; 648];
        body[..3].copy_from_slice(&[0x0f, 1, 5]);
        body[16..64].fill(0x5e);
        body[120..128].copy_from_slice(&SEPT_VE_DISABLE.to_le_bytes());
        body[128..136].copy_from_slice(&XFAM.to_le_bytes());
        body[136..184].fill(0x3d);
        body[184..216].fill(0xc0);
        for (rtmr, byte) in [(328, 0xa0), (376, 0xa1), (424, 0xa2)] {
            body[rtmr..rtmr + 48].fill(byte);
        }
        body[520..584].fill(0xda);
        body[584..587].copy_from_slice(&[0x10, 1, 5]);
        let mut qe_report = vec![0; 384];
        qe_report[48] = 0x11;
        qe_report[128..160].fill(0xdc);
        qe_report[256] = 2;
        qe_report[258] = 8;
        Self {
            header,
            descriptor: Some((3, 648)),
            body,
            signed_by: Signer::Attestation,
            qe_report,
            qe_signed_by: Signer::Pck,
            authentication: (0..32).collect(),
            bind_key: true,
            outer_type: 6,
            inner_type: 5,
            pem_suffix: "\0",
            padding: Vec::new(),
        }
    }

    /// The form of version 4: no descriptor, a TD report 1.0.
    pub(crate) fn version_4(&mut self) {
        self.header[0] = 4;
        self.descriptor = None;
        self.body.truncate(584);
    }

    fn issue(&self, keys: &Keys, chain: &[Vec<u8>]) -> Vec<u8> {
        let mut signed = self.header.clone();
        if let Some((kind, len)) = self.descriptor {
            signed.extend(kind.to_le_bytes());
            signed.extend(len.to_le_bytes());
        }
        signed.extend(&self.body);
        let key = &keys.of(Signer::Attestation).point()[1..];
        let mut qe_report = self.qe_report.clone();
        if self.bind_key {
            let bound = digest(&SHA256, &[key, &self.authentication].concat());
            qe_report[320..352].copy_from_slice(bound.as_ref());
        }
        let pem: String = chain
            .iter()
            .map(|der| {
                let text = base64::engine::general_purpose::STANDARD.encode(der);
                format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
            })
            .chain([self.pem_suffix.to_owned()])
            .collect();
        let mut inner = qe_report.clone();
        inner.extend(keys.of(self.qe_signed_by).sign(&qe_report));
        inner.extend(u16::try_from(self.authentication.len()).unwrap().to_le_bytes());
        inner.extend(&self.authentication);
        inner.extend(self.inner_type.to_le_bytes());
        inner.extend(u32::try_from(pem.len()).unwrap().to_le_bytes());
        inner.extend(pem.as_bytes());
        let mut data = keys.of(self.signed_by).sign(&signed).to_vec();
        data.extend(key);
        data.extend(self.outer_type.to_le_bytes());
        data.extend(u32::try_from(inner.len()).unwrap().to_le_bytes());
        data.extend(inner);
        let mut quote = signed;
        quote.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        quote.extend(data);
        quote.extend(&self.padding);
        quote
    }
}

fn components(first: &[u8], rest: u8) -> String {
    let svns = first.iter().copied().chain(std::iter::repeat(rest)).take(16);
    svns.map(|svn| format!("{{\"svn\":{svn}}}")).collect::<Vec<_>>().join(",")
}

/// One level that the honest platform reaches, and one below it that is out of date.
fn tcb_info() -> String {
    let level = |sgx: u8, status: &str, advisories: &str| {
        format!(
            "{{\"tcb\":{{\"sgxtcbcomponents\":[{}],\"pcesvn\":13,\"tdxtcbcomponents\":[{}]}},\
             \"tcbDate\":\"2026-01-01T00:00:00Z\",\"tcbStatus\":\"{status}\"{advisories}}}",
            components(&[], sgx),
            components(&[5, 0, 5], 0),
        )
    };
    let zeros = "00".repeat(48);
    let module = format!(
        "\"mrsigner\":\"{zeros}\",\"attributes\":\"0000000000000000\",\"attributesMask\":\"FFFFFFFFFFFFFF7F\""
    );
    format!(
        "{{\"id\":\"TDX\",\"version\":3,\"issueDate\":\"{}\",\"nextUpdate\":\"{}\",\"fmspc\":\"90C06F000000\",\
         \"pceId\":\"0000\",\"tcbType\":0,\"tcbEvaluationDataNumber\":20,\"tdxModule\":{{{module}}},\
         \"tdxModuleIdentities\":[{{\"id\":\"TDX_01\",{module},\"tcbLevels\":[{{\"tcb\":{{\"isvsvn\":15}},\
         \"tcbDate\":\"2026-01-01T00:00:00Z\",\"tcbStatus\":\"UpToDate\"}},{{\"tcb\":{{\"isvsvn\":4}},\
         \"tcbDate\":\"2024-01-01T00:00:00Z\",\"tcbStatus\":\"OutOfDate\",\"advisoryIDs\":[\"INTEL-SA-01036\"]}}]}}],\
         \"tcbLevels\":[{},{}]}}",
        time(NOW - 20 * DAY),
        time(NOW + 10 * DAY),
        level(3, "UpToDate", ""),
        level(1, "OutOfDate", ",\"advisoryIDs\":[\"INTEL-SA-00960\",\"INTEL-SA-00982\"]"),
    )
}

fn qe_identity() -> String {
    format!(
        "{{\"id\":\"TD_QE\",\"version\":2,\"issueDate\":\"{}\",\"nextUpdate\":\"{}\",\
         \"tcbEvaluationDataNumber\":20,\"miscselect\":\"00000000\",\"miscselectMask\":\"FFFFFFFF\",\
         \"attributes\":\"11000000000000000000000000000000\",\"attributesMask\":\"FBFFFFFFFFFFFFFF0000000000000000\",\
         \"mrsigner\":\"{}\",\"isvprodid\":2,\"tcbLevels\":[{{\"tcb\":{{\"isvsvn\":8}},\
         \"tcbDate\":\"2026-01-01T00:00:00Z\",\"tcbStatus\":\"UpToDate\"}},{{\"tcb\":{{\"isvsvn\":4}},\
         \"tcbDate\":\"2024-01-01T00:00:00Z\",\"tcbStatus\":\"OutOfDate\"}}]}}",
        time(NOW - 20 * DAY),
        time(NOW + 9 * DAY),
        "DC".repeat(32),
    )
}
