//! A vendor that is fast, slow, overloaded, down or lying: a local server that speaks the forms of AMD's key service and
//! Intel's certification service, with the documents of the attestation crate's own vectors.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use adyton_attestation::{Endorsements, Evidence, Product, Time, TrustAnchors};
use adyton_endorsements::{EndorsementError, Fetched, Fetcher, Folder, Item, Need, PckCa, Sources, Store};
use base64::Engine as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// One answer of the vendor.
#[derive(Clone)]
enum Answer {
    Body(Vec<u8>),
    WithChain(&'static str, Vec<u8>),
    Status(&'static str),
    Hang,
    Cut,
}

/// Answers by path without the query; the last one of a path is repeated.
#[derive(Clone, Default)]
struct Vendor {
    answers: Arc<Mutex<HashMap<String, VecDeque<Answer>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Vendor {
    fn set(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.answers.lock().unwrap().insert(path.to_owned(), answers.into_iter().collect());
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn next(&self, path: &str) -> Option<Answer> {
        let mut answers = self.answers.lock().unwrap();
        let queue = answers.get_mut(path.split('?').next().unwrap())?;
        if queue.len() > 1 { queue.pop_front() } else { queue.front().cloned() }
    }

    async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let vendor = self.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let vendor = vendor.clone();
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                            return;
                        }
                        request.push(byte[0]);
                    }
                    let text = String::from_utf8(request).unwrap();
                    let path = text.split(' ').nth(1).unwrap().to_owned();
                    vendor.asked.lock().unwrap().push(path.clone());
                    let answer = match vendor.next(&path) {
                        None => head("404 Not Found", "", 0).into_bytes(),
                        Some(Answer::Body(body)) => {
                            [head("200 OK", "", body.len()).into_bytes(), body].concat()
                        }
                        Some(Answer::WithChain(name, body)) => {
                            let chain = format!("{name}: -----BEGIN%20CERTIFICATE-----%0AAA%3D%3D%0A\r\n");
                            [head("200 OK", &chain, body.len()).into_bytes(), body].concat()
                        }
                        Some(Answer::Status(status)) => head(status, "retry-after: 1\r\n", 0).into_bytes(),
                        Some(Answer::Hang) => return tokio::time::sleep(Duration::from_secs(60)).await,
                        Some(Answer::Cut) => {
                            let _ = stream.write_all(head("200 OK", "", 1000).as_bytes()).await;
                            return;
                        }
                    };
                    let _ = stream.write_all(&answer).await;
                });
            }
        });
        address
    }
}

fn head(status: &str, headers: &str, len: usize) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {len}\r\nconnection: close\r\n{headers}\r\n")
}

fn vectors() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../attestation/tests/vectors/evidence"))
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(vectors().join(file)).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap().to_owned()
}

fn hex_file(name: &str) -> Vec<u8> {
    hex::decode(fs::read_to_string(vectors().join(name)).unwrap().trim()).unwrap()
}

/// The documents of a certificate table, by the first byte of their GUIDs.
fn documents(table: &str) -> BTreeMap<u8, Vec<u8>> {
    let table = hex_file(table);
    let mut found = BTreeMap::new();
    for entry in table.chunks(24).take_while(|entry| entry[..16] != [0; 16]) {
        let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap()) as usize;
        found.insert(entry[0], table[word(16)..word(16) + word(20)].to_vec());
    }
    found
}

const VCEK: u8 = 0x63;
const ASK: u8 = 0x4a;
const ARK: u8 = 0xc0;
const CRL: u8 = 0x92;

fn pem(der: &[u8]) -> String {
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

fn now() -> Time {
    Time::from_unix_seconds(field("reference-values", "now").parse().unwrap())
}

fn evidence() -> Evidence {
    let report = hex::decode(field("accept_vendor.txt", "report")).unwrap();
    Evidence::snp_from_parts(&report, &[]).unwrap()
}

struct World {
    vendor: Vendor,
    address: String,
    folder: tempfile::TempDir,
    need: Need,
}

impl World {
    async fn new() -> Self {
        let vendor = Vendor::default();
        let documents = documents("honest.hex");
        let signer = evidence().snp_signer(None).unwrap();
        let hwid = signer.hwid.unwrap();
        let product = signer.product;
        let chain = pem(&documents[&ASK]) + &pem(&documents[&ARK]);
        vendor.set(&format!("/vcek/v1/{product}/cert_chain"), [Answer::Body(chain.into_bytes())]);
        vendor.set(&format!("/vcek/v1/{product}/crl"), [Answer::Body(documents[&CRL].clone())]);
        let path = format!("/vcek/v1/{product}/{}", hex::encode(&hwid));
        vendor.set(&path, [Answer::Body(documents[&VCEK].clone())]);
        let need = Need::SnpChip { product, hwid, reported: signer.reported };
        let address = vendor.serve().await;
        Self { vendor, address, folder: tempfile::tempdir().unwrap(), need }
    }

    fn fetcher(&self) -> Fetcher {
        self.fetcher_with(|_| ())
    }

    fn fetcher_with(&self, change: impl FnOnce(&mut Sources)) -> Fetcher {
        let mut sources = Sources {
            kds: self.address.clone(),
            pcs: self.address.clone(),
            certificates: self.address.clone(),
            pace: Duration::from_millis(1),
            patience: Duration::from_secs(10),
            ..Sources::default()
        };
        change(&mut sources);
        Fetcher::new(Store::open(self.folder.path()).unwrap(), sources).unwrap()
    }

    fn crl_path(&self) -> String {
        format!("/vcek/v1/{}/crl", self.product())
    }

    fn product(&self) -> Product {
        match &self.need {
            Need::SnpChip { product, .. } => *product,
            _ => unreachable!("the world is made of a chip's evidence"),
        }
    }
}

fn verify(fetched: &Fetched) {
    let Folder(files) = fetched.folder().unwrap();
    let endorsements = Endorsements {
        vcek: files.get("vcek.der").cloned(),
        ask: files.get("ask.der").cloned(),
        ark: files.get("ark.der").cloned(),
        crls: files.get("ark.crl.der").cloned().into_iter().collect(),
        ..Endorsements::default()
    };
    let anchors = TrustAnchors::dangerous_root(&hex_file("root.hex")).unwrap();
    let _ = evidence().verify(&anchors, &endorsements, now()).unwrap();
}

#[tokio::test]
async fn what_was_fetched_verifies_and_is_asked_for_once() {
    let world = World::new().await;
    let fetcher = world.fetcher();
    let fetched = fetcher.fetch(&world.need, now()).await.unwrap();
    verify(&fetched);
    fetcher.keep(&fetched).unwrap();
    let asked = world.vendor.asked();
    assert_eq!(asked.len(), 3);
    let wanted = ["blSPL=", "teeSPL=", "snpSPL=", "ucodeSPL="];
    assert!(wanted.iter().all(|part| asked[2].contains(part)), "{asked:?}");
    // The vendor is gone; the store is enough, with and without asking.
    let dark = world.fetcher_with(|sources| sources.kds = "http://127.0.0.1:9".into());
    verify(&dark.fetch(&world.need, now()).await.unwrap());
    let offline = world.fetcher_with(|sources| sources.offline = true);
    verify(&offline.fetch(&world.need, now()).await.unwrap());
    assert_eq!(world.vendor.asked().len(), 3);
}

#[tokio::test]
async fn nothing_is_kept_before_evidence_was_verified_with_it() {
    let world = World::new().await;
    let _fetched = world.fetcher().fetch(&world.need, now()).await.unwrap();
    let offline = world.fetcher_with(|sources| sources.offline = true);
    let refusal = offline.fetch(&world.need, now()).await.unwrap_err();
    assert!(matches!(refusal, EndorsementError::Unavailable { .. }), "{refusal}");
}

#[tokio::test]
async fn a_list_that_ran_out_is_never_used_and_says_so() {
    let world = World::new().await;
    let fetcher = world.fetcher();
    fetcher.keep(&fetcher.fetch(&world.need, now()).await.unwrap()).unwrap();
    let later = Time::from_unix_seconds(now().as_unix_seconds() + 10 * 365 * 24 * 3600);
    let refusal = fetcher.fetch(&world.need, later).await.unwrap_err();
    let EndorsementError::Expired { item, reason, .. } = &refusal else { panic!("{refusal}") };
    assert!(item.ends_with("chain.entry") || item.ends_with("crl.entry"), "{item}");
    assert!(reason.contains("ran out as well") || reason.contains("vendor"), "{reason}");
    // And while the vendor is down the refusal is the same, with its reason.
    let dark = world.fetcher_with(|sources| {
        sources.kds = "http://127.0.0.1:9".into();
        sources.patience = Duration::from_millis(700);
    });
    let refusal = dark.fetch(&world.need, later).await.unwrap_err().to_string();
    assert!(refusal.contains("is not used any more"), "{refusal}");
}

#[tokio::test]
async fn an_overloaded_service_is_waited_out_and_a_dead_one_given_up() {
    let world = World::new().await;
    let crl = documents("honest.hex").remove(&CRL).unwrap();
    let busy = [
        Answer::Status("429 Too Many Requests"),
        Answer::Status("503 Service Unavailable"),
        Answer::Cut,
        Answer::Body(crl),
    ];
    world.vendor.set(&world.crl_path(), busy);
    let started = Instant::now();
    verify(&world.fetcher().fetch(&world.need, now()).await.unwrap());
    assert!(started.elapsed() >= Duration::from_secs(2), "Retry-After was not honoured");

    world.vendor.set(&world.crl_path(), [Answer::Hang]);
    let impatient = world.fetcher_with(|sources| sources.patience = Duration::from_millis(800));
    let refusal = impatient.fetch(&world.need, now()).await.unwrap_err().to_string();
    assert!(refusal.contains("no answer within") && refusal.contains("given up"), "{refusal}");

    world.vendor.set(&world.crl_path(), [Answer::Status("404 Not Found")]);
    let refusal = world.fetcher().fetch(&world.need, now()).await.unwrap_err().to_string();
    assert!(refusal.contains("404"), "{refusal}");
}

#[tokio::test]
async fn a_lying_service_is_found_out() {
    let world = World::new().await;
    let honest = documents("honest.hex");
    for (lie, said) in [
        (b"not a list".to_vec(), "not a revocation list"),
        (honest[&VCEK].clone(), "not a revocation list"),
        (Vec::new(), "not a revocation list"),
        (documents("crl_stale.hex").remove(&CRL).unwrap(), "ran out as well"),
        (vec![0x30; 2 << 20], "length limit"),
    ] {
        world.vendor.set(&world.crl_path(), [Answer::Body(lie)]);
        let fetcher = world.fetcher_with(|sources| sources.patience = Duration::from_millis(900));
        let refusal = fetcher.fetch(&world.need, now()).await.unwrap_err().to_string();
        assert!(refusal.contains(said), "{said}: {refusal}");
    }
    // A certificate of another chip has the right form: the evidence does not verify with it, so it is not kept.
    world.vendor.set(&world.crl_path(), [Answer::Body(honest[&CRL].clone())]);
    let other = documents("hwid_of_other_chip.hex").remove(&VCEK).unwrap();
    let chip = world.need.items().pop().unwrap();
    let Item::Vcek { product, hwid, .. } = &chip else { panic!("{chip:?}") };
    world.vendor.set(&format!("/vcek/v1/{product}/{}", hex::encode(hwid)), [Answer::Body(other)]);
    let fetched = world.fetcher().fetch(&world.need, now()).await.unwrap();
    let Folder(files) = fetched.folder().unwrap();
    let endorsements = Endorsements { vcek: files.get("vcek.der").cloned(), ..Endorsements::default() };
    let anchors = TrustAnchors::dangerous_root(&hex_file("root.hex")).unwrap();
    assert!(evidence().verify(&anchors, &endorsements, now()).is_err());
    assert!(Store::open(world.folder.path()).unwrap().get(&chip).is_none());
}

#[tokio::test]
async fn chips_are_asked_for_at_the_services_pace() {
    let world = World::new().await;
    let slow = |sources: &mut Sources| sources.pace = Duration::from_secs(1);
    let _first = world.fetcher_with(slow).fetch(&world.need, now()).await.unwrap();
    let started = Instant::now();
    let _second = world.fetcher_with(slow).fetch(&world.need, now()).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(700), "{:?}", started.elapsed());
    let impatient = world.fetcher_with(|sources| {
        sources.pace = Duration::from_secs(60);
        sources.patience = Duration::from_secs(1);
    });
    let refusal = impatient.fetch(&world.need, now()).await.unwrap_err().to_string();
    assert!(refusal.contains("asked too recently"), "{refusal}");
}

#[tokio::test]
async fn a_mirror_stands_in_for_the_vendor() {
    let world = World::new().await;
    let fetcher = world.fetcher();
    fetcher.keep(&fetcher.fetch(&world.need, now()).await.unwrap()).unwrap();
    // What a host hands out as plain files is the store of somebody who fetched before.
    let mirror = Vendor::default();
    for item in world.need.items() {
        let bytes = fs::read(world.folder.path().join(item.name())).unwrap();
        mirror.set(&format!("/v1/certificates/{}", item.name()), [Answer::Body(bytes)]);
    }
    let address = mirror.serve().await;
    let empty = tempfile::tempdir().unwrap();
    let sources = Sources {
        kds: "http://127.0.0.1:9".into(),
        mirror: Some(format!("{address}/v1/certificates/")),
        patience: Duration::from_millis(700),
        ..Sources::default()
    };
    let client = Fetcher::new(Store::open(empty.path()).unwrap(), sources).unwrap();
    verify(&client.fetch(&world.need, now()).await.unwrap());
    assert_eq!(mirror.asked().len(), 3);
}

#[tokio::test]
async fn intels_documents_keep_their_exact_bytes() {
    let vendor = Vendor::default();
    let crl = documents("honest.hex").remove(&CRL).unwrap();
    let next = "2099-01-01T00:00:00Z";
    let info = format!("{{\"id\":\"TDX\", \"fmspc\":\"B0C06F000000\",\"nextUpdate\":\"{next}\"}}");
    let identity = format!("{{\"id\":\"TD_QE\",  \"nextUpdate\":\"{next}\"}}");
    let signed =
        |member: &str, exact: &str| format!("{{\"{member}\":{exact},\"signature\":\"00ff\"}}").into_bytes();
    vendor.set("/IntelSGXRootCA.der", [Answer::Body(crl.clone())]);
    let chained = |header, body| [Answer::WithChain(header, body)];
    vendor.set("/sgx/certification/v4/pckcrl", chained("SGX-PCK-CRL-Issuer-Chain", crl.clone()));
    vendor.set("/tdx/certification/v4/tcb", chained("TCB-Info-Issuer-Chain", signed("tcbInfo", &info)));
    vendor.set(
        "/tdx/certification/v4/qe/identity",
        chained("SGX-Enclave-Identity-Issuer-Chain", signed("enclaveIdentity", &identity)),
    );
    let address = vendor.serve().await;
    let folder = tempfile::tempdir().unwrap();
    let sources = || Sources {
        pcs: address.clone(),
        certificates: address.clone(),
        patience: Duration::from_secs(2),
        ..Sources::default()
    };
    let fetcher = Fetcher::new(Store::open(folder.path()).unwrap(), sources()).unwrap();
    let need = Need::Tdx { fmspc: [0xb0, 0xc0, 0x6f, 0, 0, 0], ca: PckCa::Platform };
    let fetched = fetcher.fetch(&need, now()).await.unwrap();
    let Folder(files) = fetched.folder().unwrap();
    let collateral: serde_json::Value = serde_json::from_slice(&files["collateral.json"]).unwrap();
    assert_eq!(collateral["tcb_info"], info, "a signature holds over these bytes and no others");
    assert_eq!(collateral["qe_identity"], identity);
    assert_eq!(collateral["tcb_info_signature"], "00ff");
    assert_eq!(collateral["pck_crl"], hex::encode(&crl));
    assert_eq!(collateral["tcb_info_issuer_chain"], "-----BEGIN CERTIFICATE-----\nAA==\n");
    let asked = vendor.asked();
    assert!(asked.contains(&"/sgx/certification/v4/pckcrl?ca=platform&encoding=der".to_owned()), "{asked:?}");

    let other = Need::Tdx { fmspc: [1; 6], ca: PckCa::Platform };
    let refusal = fetcher.fetch(&other, now()).await.unwrap_err().to_string();
    assert!(refusal.contains("it is for FMSPC"), "{refusal}");
    vendor.set("/tdx/certification/v4/tcb", [Answer::Body(signed("tcbInfo", &info))]);
    let refusal = fetcher.fetch(&need, now()).await.unwrap_err().to_string();
    assert!(refusal.contains("TCB-Info-Issuer-Chain is missing"), "{refusal}");
}
