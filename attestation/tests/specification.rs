//! The golden values of `SPEC.md`, section 14, are what this crate computes; those of 14.3 are the vault's.
#![allow(clippy::disallowed_methods, reason = "tests read files and the clock")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;

use adyton_attestation::commit::{Transcript, commit, hash, labelled_hash};
use adyton_attestation::cose::PublicKey;
use adyton_attestation::keyset::{KeySet, keyset_id};
use adyton_attestation::manifest::{FileEntry, Manifest};
use adyton_attestation::measurement::measure_process;
use adyton_attestation::owner::{Admission, BrokerCertificate, Grant};
use adyton_attestation::receipt::{Receipt, request_bytes, request_hash};
use adyton_attestation::release::{Asked, Challenge, Direction, Request};
use adyton_attestation::session::{Answer, Asking, Connection, Hello, Mode, Received, keyset_commitment};
use adyton_attestation::wire::{self, Blob};
use adyton_attestation::{Platform, Time};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

const CONNECTION: Connection = Connection { exporter: [0x11; 32], tls_spki: [0x22; 32] };
const BOOT_NONCE: [u8; 32] = [0x77; 32];
const EVIDENCE: &[u8] = b"evidence";

/// The values of one section, by name. Each has to be compared before the end.
struct Golden {
    section: &'static str,
    values: BTreeMap<String, Vec<u8>>,
}

impl Golden {
    /// Reads the code block of `section`; a line without a name goes on with the value above it.
    fn read(section: &'static str) -> Self {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/SPEC.md")).unwrap();
        let (_, rest) = text.split_once(&format!("### {section} ")).expect("the section is there");
        let block = rest.split("```").nth(1).expect("it has a block of values");
        let mut digits: Vec<(String, String)> = Vec::new();
        for line in block.lines().filter(|line| !line.is_empty()) {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            match name.trim() {
                "" => digits.last_mut().expect("a value to go on with").1.push_str(value),
                name => digits.push((name.to_owned(), value.to_owned())),
            }
        }
        let values: BTreeMap<String, Vec<u8>> =
            digits.iter().map(|(name, digits)| (name.clone(), hex::decode(digits).expect(name))).collect();
        assert_eq!(values.len(), digits.len(), "section {section}: a name occurs twice");
        Self { section, values }
    }

    fn is(&mut self, name: &str, computed: impl AsRef<[u8]>) {
        let golden =
            self.values.remove(name).unwrap_or_else(|| panic!("section {} lacks {name}", self.section));
        assert_eq!(hex::encode(computed), hex::encode(golden), "section {}: {name}", self.section);
    }

    fn end(self) {
        assert!(
            self.values.is_empty(),
            "section {}: nothing computes {:?}",
            self.section,
            self.values.keys()
        );
    }
}

fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(key: &Ed25519KeyPair) -> PublicKey {
    key.public_key().as_ref().try_into().unwrap()
}

fn challenge() -> [u8; 32] {
    std::array::from_fn(|at| u8::try_from(at).unwrap())
}

/// What both flows of section 14.2 are about.
struct Parties {
    root: Ed25519KeyPair,
    broker: Ed25519KeyPair,
    identity: Ed25519KeyPair,
    receipt: Ed25519KeyPair,
    certificate: Vec<u8>,
    manifest_id: [u8; 32],
    keyset: Vec<u8>,
    admission: Vec<u8>,
}

impl Parties {
    fn make(golden: &mut Golden) -> Self {
        let [root, broker, identity, receipt] = [1, 2, 3, 4].map(key);
        let (manifest, manifest_id) = manifest().sign(&root);
        let keyset = KeySet {
            boot_id: [0x10; 16],
            service_id: "digits".into(),
            identity_key: public(&identity),
            tls_spki: CONNECTION.tls_spki,
            message_keys: Vec::new(),
            receipt_key: public(&receipt),
            config_digest: [0x33; 32],
            manifest_ids: vec![manifest_id],
            epoch: 1,
            not_before: Time::from_unix_seconds(1_790_000_000),
            not_after: Time::from_unix_seconds(1_790_086_400),
        }
        .encode();
        let not_after = Time::from_unix_seconds(1_800_000_000);
        let certificate = BrokerCertificate { broker_key: public(&broker), not_after }.sign(&root);
        let admission = Admission {
            keyset_id: keyset_id(&keyset),
            manifest_id,
            platform: [0x55; 32],
            policy_id: "policy".into(),
            release_id: [0x66; 16],
            expires: Time::from_unix_seconds(1_790_003_600),
        }
        .sign(&broker, &certificate);
        golden.is("manifest_id", manifest_id);
        golden.is("H(manifest)", hash(&manifest));
        golden.is("KeySet", &keyset);
        golden.is("keyset_id", keyset_id(&keyset));
        golden.is("broker certificate", &certificate);
        golden.is("H(admission)", hash(&admission));
        Self { root, broker, identity, receipt, certificate, manifest_id, keyset, admission }
    }
}

fn manifest() -> Manifest {
    Manifest {
        counter: 7,
        previous: [0; 32],
        files: vec![FileEntry {
            file_id: [3; 16],
            plaintext_len: 3,
            plaintext_root: [0x44; 32],
            fixed_header_hash: [0x45; 32],
        }],
        model_binding: [0x46; 32],
        kek_id: [0x47; 16],
        policy_id: "policy".into(),
        minimum_enclave: "0.1.0".into(),
        hidden: vec![0x48; 8],
    }
}

#[test]
fn section_14_1_encodings() {
    let mut golden = Golden::read("14.1");
    let (keyset, th0) = ([0xa0; 8], Transcript::new("session"));
    let th1 = th0.then(1, &[0x81, 0x01]);
    let Connection { exporter, tls_spki } = CONNECTION;
    golden.is("TH0", th0.digest());
    golden.is("TH1", th1.digest());
    golden.is("keyset_id", keyset_id(&keyset));
    let fields: [&[u8]; 5] = [&keyset, &challenge(), &exporter, &tls_spki, th1.digest()];
    golden.is("ev/session", commit("adyton/v1/ev/session", &fields));
    golden.end();
}

#[test]
fn section_14_2_one_exchange() {
    let mut golden = Golden::read("14.2");
    let parties = Parties::make(&mut golden);
    flow_s(&mut golden, &parties);
    flow_r(&mut golden, &parties);
    receipts(&mut golden, &parties);
    golden.end();
}

fn flow_s(golden: &mut Golden, parties: &Parties) {
    let hello = Hello {
        challenge: challenge(),
        mode: Mode::Fresh,
        known: Vec::new(),
        platforms: vec![Platform::SevSnp],
        manifest_id: Some(parties.manifest_id),
    };
    let (_, s1) = Asking::begin(hello);
    let received = Received::read(&s1).unwrap();
    let s2 = received.answer(&Answer {
        keyset: &parties.keyset,
        evidence: EVIDENCE,
        mode: Mode::Fresh,
        boot_nonce: &BOOT_NONCE,
        admission: &parties.admission,
        identity_key: &parties.identity,
        connection: &CONNECTION,
    });
    golden.is("S1", &s1);
    golden.is("ev/keyset", keyset_commitment(&parties.keyset, &BOOT_NONCE));
    golden.is("ev/session", received.report_data(&parties.keyset, &CONNECTION));
    // The signature is the last but one of seven items; the empty list of proofs takes the last byte.
    golden.is("bind_sig", &s2[s2.len() - 65..s2.len() - 1]);
    golden.is("H(S2)", hash(&s2));
}

fn flow_r(golden: &mut Golden, parties: &Parties) {
    let request = Request {
        direction: Direction::Pull,
        keyset: parties.keyset.clone(),
        manifest_ids: vec![parties.manifest_id],
        nonce: [0x88; 32],
        kem_key: vec![0x99; 1216],
    };
    let (requested, r1) = request.begin();
    let challenge = Challenge {
        nonce: [0xaa; 32],
        session_id: [0xbb; 16],
        policy_id: "policy",
        broker_certificate: &parties.certificate,
        broker_key: &parties.broker,
        exporter: &CONNECTION.exporter,
    };
    let (_, r2) = Asked::read(&r1, Direction::Pull).unwrap().challenge(&challenge);
    let owner_root = public(&parties.root);
    let challenged = requested.challenged(&r2, &owner_root, &CONNECTION.exporter).unwrap();
    golden.is("H(R1)", hash(&r1));
    golden.is("H(R2)", hash(&r2));
    golden.is("ev/release", challenged.report_data());
    let th3 = Transcript::new("release").then(1, &r1).then(2, &r2).then(3, EVIDENCE);
    let grant = Grant {
        release_id: [0x66; 16],
        manifest_id: parties.manifest_id,
        counter: 7,
        lease_s: 3600,
        handover_policy: Vec::new(),
        platform: [0x55; 32],
        keyset_id: keyset_id(&parties.keyset),
        transcript: *th3.digest(),
    }
    .sign(&parties.broker);
    let blobs = [grant.clone(), vec![0xcc; 1168], parties.admission.clone()].map(Blob::from);
    let r4 = wire::encode(&blobs.to_vec());
    let granted = challenged.evidenced(EVIDENCE).granted(&r4, &owner_root, &[0x55; 32], 7).unwrap();
    golden.is("TH3", th3.digest());
    golden.is("H(grant)", hash(&grant));
    golden.is("TH4", th3.then(4, &r4).digest());
    golden.is("R5", granted.confirm(&[0xdd; 32]));
}

fn receipts(golden: &mut Golden, parties: &Parties) {
    let request = request_hash(&challenge(), &request_bytes("POST", "/v2/models/model/infer", b"{}"));
    let parameters = labelled_hash("adyton/v1/parameters", b"dense");
    let receipt = Receipt {
        keyset_id: keyset_id(&parties.keyset),
        manifest_id: parties.manifest_id,
        request,
        response: hash(b"answer"),
        parameters,
        sequence: 0,
        previous: [0; 32],
    };
    golden.is("request hash", request);
    golden.is("parameters", parameters);
    golden.is("H(receipt)", hash(&receipt.sign(&parties.receipt)));
}

#[test]
fn section_14_4_simulated_launch() {
    let mut golden = Golden::read("14.4");
    golden.is("launch", measure_process(b"program", b"document", &["one", "two"]));
    golden.is("launch alone", measure_process(&[7; 5000], &[], &[] as &[&[u8]]));
    golden.end();
}
