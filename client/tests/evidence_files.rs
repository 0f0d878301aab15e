//! Evidence as files, by the command line: fetched documents, bundles, results and replays. The evidence is that of the
//! attestation crate's own vectors, the vendor a local server.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use serde_json::Value;

fn vectors() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../attestation/tests/vectors/evidence"))
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(vectors().join(file)).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap().to_owned()
}

fn hex_file(name: &str) -> Vec<u8> {
    hex::decode(fs::read_to_string(vectors().join(name)).unwrap().trim()).unwrap()
}

/// The documents of the honest certificate table, by the first byte of their GUIDs.
fn documents() -> HashMap<u8, Vec<u8>> {
    let table = hex_file("honest.hex");
    let entries = table.chunks(24).take_while(|entry| entry[..16] != [0; 16]);
    let word = |entry: &[u8], at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap()) as usize;
    entries
        .map(|entry| (entry[0], table[word(entry, 16)..word(entry, 16) + word(entry, 20)].to_vec()))
        .collect()
}

struct World {
    folder: tempfile::TempDir,
    at: String,
}

struct Ran {
    code: i32,
    json: Value,
    text: String,
}

impl World {
    /// `saved/report.bin`, `root.der`, and with `documents` the vendor's documents in `saved/` too.
    fn new(with_documents: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let saved = folder.path().join("saved");
        fs::create_dir(&saved).unwrap();
        let report = hex::decode(field("accept_vendor.txt", "report")).unwrap();
        fs::write(saved.join("report.bin"), report).unwrap();
        fs::write(folder.path().join("root.der"), hex_file("root.hex")).unwrap();
        if with_documents {
            let names = [(0x63, "vcek.der"), (0x4a, "ask.der"), (0xc0, "ark.der"), (0x92, "ark.crl.der")];
            let documents = documents();
            for (guid, name) in names {
                fs::write(saved.join(name), &documents[&guid]).unwrap();
            }
        }
        let now: u64 = field("reference-values", "now").parse().unwrap();
        Self { folder, at: adyton_attestation::Time::from_unix_seconds(now).to_string() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_adyton"))
            .args(arguments)
            .arg("--json")
            .current_dir(self.folder.path())
            .env("XDG_CACHE_HOME", self.path("cache"))
            .output()
            .unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let json = serde_json::from_str(&stdout).unwrap_or(Value::Null);
        let stderr = String::from_utf8_lossy(&output.stderr);
        Ran { code: output.status.code().unwrap(), json, text: format!("{stdout}{stderr}") }
    }

    fn verify(&self, more: &[&str]) -> Ran {
        let arguments = [
            "evidence",
            "verify",
            "saved",
            "--policy",
            "vendor",
            "--at",
            &self.at,
            "--dangerous-trust-anchor",
            "root.der",
        ];
        self.run(&[&arguments, more].concat())
    }
}

/// Serves files by path, without their query, until the test ends.
fn serve(files: HashMap<String, Vec<u8>>) -> String {
    serve_with_headers(files.into_iter().map(|(path, body)| (path, (String::new(), body))).collect())
}

/// As [`serve`], with lines of the head beside each file.
fn serve_with_headers(files: HashMap<String, (String, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            let path = first.split([' ', '?']).nth(1).unwrap().to_owned();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let missing = (String::new(), Vec::new());
            let found = files.get(&path);
            let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
            let (headers, body) = found.unwrap_or(&missing);
            let len = body.len();
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-length: {len}\r\nconnection: close\r\n{headers}\r\n");
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
    address
}

fn kds() -> String {
    let report = hex::decode(field("accept_vendor.txt", "report")).unwrap();
    let signer =
        adyton_attestation::Evidence::snp_from_parts(&report, &[]).unwrap().snp_signer(None).unwrap();
    let documents = documents();
    let pem = |der: &[u8]| {
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    };
    let product = signer.product;
    let chain = pem(&documents[&0x4a]) + &pem(&documents[&0xc0]);
    serve(HashMap::from([
        (format!("/vcek/v1/{product}/cert_chain"), chain.into_bytes()),
        (format!("/vcek/v1/{product}/crl"), documents[&0x92].clone()),
        (format!("/vcek/v1/{product}/{}", hex::encode(signer.hwid.unwrap())), documents[&0x63].clone()),
    ]))
}

#[test]
fn a_verdict_can_be_signed_read_back_and_replayed_from_a_bundle() {
    let world = World::new(true);
    assert_eq!(world.run(&["evidence", "bundle", "saved", "--out", "saved.bundle"]).code, 0);
    assert_eq!(world.run(&["evidence", "result-key", "--out", "verifier"]).code, 0);
    let signed = ["--result", "verdict.jwt", "--result-key", "verifier/result.key.pem"];
    let verdict = world.verify(&signed);
    assert_eq!(verdict.code, 0, "{}", verdict.text);
    fs::write(world.path("verdict.json"), verdict.json.to_string()).unwrap();

    let read = world.run(&["evidence", "result", "verdict.jwt", "--key", "verifier/result.pub.pem"]);
    assert_eq!((read.code, &read.json["status"]), (0, &Value::from("affirming")), "{}", read.text);
    world.run(&["evidence", "result-key", "--out", "other"]);
    assert_eq!(world.run(&["evidence", "result", "verdict.jwt", "--key", "other/result.pub.pem"]).code, 40);
    assert_eq!(world.run(&["evidence", "result", "verdict.jwt"]).code, 1);

    // The folder is gone; the bundle has it all.
    fs::remove_dir_all(world.path("saved")).unwrap();
    let replay =
        ["evidence", "replay", "verdict.json", "saved.bundle", "--dangerous-trust-anchor", "root.der"];
    let same = world.run(&replay);
    assert_eq!((same.code, &same.json["same"]), (0, &Value::from(true)), "{}", same.text);
    fs::write(world.path("verdict.json"), verdict.json.to_string().replacen("\"pass\"", "\"skip\"", 1))
        .unwrap();
    let different = world.run(&replay);
    assert_eq!((different.code, &different.json["same"]), (40, &Value::from(false)), "{}", different.text);

    assert_eq!(world.run(&["evidence", "unpack", "saved.bundle", "--out", "saved"]).code, 0);
    assert_eq!(world.verify(&[]).code, 0);
}

#[test]
fn a_refusal_is_a_result_too_and_never_affirms() {
    let world = World::new(true);
    let other = "00".repeat(64);
    for (file, format) in [("verdict.json", "json"), ("verdict.cbor", "cbor")] {
        let refused = world.verify(&["--report-data", &other, "--result", file]);
        assert_eq!(
            (refused.code, &refused.json["reason"]),
            (10, &Value::from("report-data")),
            "{}",
            refused.text
        );
        assert!(refused.json["inputs"]["evidence_sha256"].is_string());
        let read = world.run(&["evidence", "result", file, "--format", format]);
        assert_eq!((read.code, &read.json["status"]), (20, &Value::from("contraindicated")), "{}", read.text);
        assert_eq!(read.json["signed"], false);
    }
    let unsigned = world.verify(&["--result", "verdict.jwt"]);
    assert!(unsigned.code == 1 && unsigned.text.contains("result-key"), "{}", unsigned.text);
    assert!(!world.path("verdict.jwt").exists());
}

#[test]
fn bare_evidence_becomes_complete_by_fetching_and_stays_so_offline() {
    let world = World::new(false);
    let fetch = |source: &[&str]| {
        let arguments = [
            "evidence",
            "fetch",
            "saved/report.bin",
            "--out",
            "saved",
            "--bundle",
            "saved.bundle",
            "--patience-s",
            "1",
            "--at",
            &world.at,
            "--dangerous-trust-anchor",
            "root.der",
        ];
        world.run(&[&arguments, source].concat())
    };
    assert_eq!(world.verify(&[]).json["reason"], "endorsement-missing");
    let unreachable = fetch(&["--kds", "http://127.0.0.1:9"]);
    assert!(unreachable.code == 30 && !world.path("saved.bundle").exists(), "{}", unreachable.text);
    let fetched = fetch(&["--kds", &kds()]);
    assert_eq!(fetched.code, 0, "{}", fetched.text);
    assert_eq!(world.verify(&[]).code, 0);
    let offline = fetch(&["--offline"]);
    assert_eq!(offline.code, 0, "{}", offline.text);
    // Under AMD's own roots the documents prove nothing, so they are neither kept nor handed on.
    fs::remove_dir_all(world.path("cache")).unwrap();
    let foreign = world.run(&[
        "evidence",
        "fetch",
        "saved/report.bin",
        "--out",
        "elsewhere",
        "--kds",
        &kds(),
        "--at",
        &world.at,
    ]);
    assert_eq!(foreign.json["reason"], "untrusted-root", "{}", foreign.text);
    assert!(!world.path("elsewhere").exists());
    assert_eq!(fetch(&["--offline"]).code, 30);
}

#[test]
fn a_store_served_as_files_is_a_mirror() {
    let world = World::new(false);
    let common = ["--at", &world.at, "--dangerous-trust-anchor", "root.der", "--patience-s", "1"];
    let fetch = ["evidence", "fetch", "saved/report.bin", "--out"];
    let source = kds();
    let first = world.run(&[&fetch[..], &["first", "--store", "store", "--kds", &source], &common].concat());
    assert_eq!(first.code, 0, "{}", first.text);
    let entries = fs::read_dir(world.path("store")).unwrap().map(|entry| entry.unwrap().path());
    let entries: Vec<PathBuf> = entries.filter(|path| path.extension().is_some()).collect();
    assert_eq!(entries.len(), 3);
    let name = |path: &Path| format!("/v1/certificates/{}", path.file_name().unwrap().to_string_lossy());
    let mirror = serve(entries.iter().map(|path| (name(path), fs::read(path).unwrap())).collect());
    let mirror = format!("{mirror}/v1/certificates");
    let dark = ["second", "--store", "other", "--kds", "http://127.0.0.1:9", "--mirror", &mirror];
    let second = world.run(&[&fetch[..], &dark, &common].concat());
    assert_eq!(second.code, 0, "{}", second.text);
    assert_eq!(
        fs::read(world.path("first/vcek.der")).unwrap(),
        fs::read(world.path("second/vcek.der")).unwrap()
    );
}

#[test]
fn reference_values_are_signed_and_read_back_under_their_key() {
    let world = World::new(false);
    assert_eq!(world.run(&["key", "new", "--owner", "owner"]).code, 0);
    let measurement = "ab".repeat(48);
    fs::write(world.path("genoa.json"), format!("{{\"measurement\":\"{measurement}\",\"note\":null}}"))
        .unwrap();
    let rtmrs: String =
        (0..3).map(|index| format!(",\"rtmr{index}\":\"{}\"", format!("{index:02x}").repeat(48))).collect();
    fs::write(world.path("td.json"), format!("{{\"mrtd\":\"{measurement}\"{rtmrs}}}")).unwrap();
    fs::write(world.path("kernel"), b"kernel").unwrap();
    let sign = [
        "measure",
        "sign",
        "--release",
        "0.2.0",
        "--counter",
        "2",
        "--owner",
        "owner",
        "--launch",
        "EPYC-Genoa=genoa.json",
        "--launch",
        "TD, 4 vCPUs=td.json",
        "--input",
        "kernel",
        "--out",
        "release.cose",
    ];
    let signed = world.run(&sign);
    assert_eq!(signed.code, 0, "{}", signed.text);
    let key = signed.json["key"].as_str().unwrap().to_owned();
    let read = |more: &[&str]| world.run(&[&["measure", "reference", "release.cose"], more].concat());
    let values = read(&["--key", &key]);
    assert_eq!(values.code, 0, "{}", values.text);
    assert_eq!(values.json["launches"][0]["measurement"], measurement);
    assert_eq!(values.json["launches"][1]["rtmrs"][2], "02".repeat(48));
    assert!(values.json["launches"][0]["inputs"]["kernel"].is_string());
    assert_eq!(read(&["--key", &"00".repeat(32)]).code, 40);
    assert_eq!(read(&["--key", &key, "--min-counter", "3"]).code, 40);
    assert_eq!(read(&["--key", &key, "--at", "2100-01-01T00:00:00Z"]).code, 40);
    // A policy takes its measurements from there.
    let policy = format!(
        "[evidence]\nmeasurements = []\nhost_data = []\n[evidence.reference]\nfile = \"release.cose\"\nkey = \"{key}\"\n\
         min_counter = 2\n"
    );
    fs::write(world.path("policy.toml"), policy).unwrap();
    let judged = world.run(&["evidence", "verify", "saved", "--policy", "policy.toml", "--at", &world.at]);
    assert_eq!(judged.json["reason"], "endorsement-missing", "the policy loads: {}", judged.text);
}

#[test]
fn a_recorded_quote_is_completed_from_intels_forms() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/evidence/tdx-v4-uptodate");
    let Ok(quote) = fs::read(sample.join("quote.bin")) else {
        println!("SKIPPED: ../shared/evidence/tdx-v4-uptodate is missing");
        return;
    };
    let collateral: Value =
        serde_json::from_slice(&fs::read(sample.join("collateral.json")).unwrap()).unwrap();
    let text = |name: &str| collateral[name].as_str().unwrap();
    let encoded = |name: &str| -> String {
        text(name)
            .bytes()
            .map(|byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            })
            .collect()
    };
    let signed = |member: &str, name: &str| {
        format!("{{\"{member}\":{},\"signature\":\"{}\"}}", text(name), text(&format!("{name}_signature")))
            .into_bytes()
    };
    let pcs = serve_with_headers(HashMap::from([
        ("/IntelSGXRootCA.der".into(), (String::new(), hex::decode(text("root_ca_crl")).unwrap())),
        (
            "/sgx/certification/v4/pckcrl".into(),
            (
                format!("SGX-PCK-CRL-Issuer-Chain: {}\r\n", encoded("pck_crl_issuer_chain")),
                hex::decode(text("pck_crl")).unwrap(),
            ),
        ),
        (
            "/tdx/certification/v4/tcb".into(),
            (
                format!("TCB-Info-Issuer-Chain: {}\r\n", encoded("tcb_info_issuer_chain")),
                signed("tcbInfo", "tcb_info"),
            ),
        ),
        (
            "/tdx/certification/v4/qe/identity".into(),
            (
                format!("SGX-Enclave-Identity-Issuer-Chain: {}\r\n", encoded("qe_identity_issuer_chain")),
                signed("enclaveIdentity", "qe_identity"),
            ),
        ),
    ]));
    let world = World::new(false);
    fs::write(world.path("quote.bin"), quote).unwrap();
    let at = "2025-07-04T10:16:31Z";
    let fetch = world.run(&[
        "evidence",
        "fetch",
        "quote.bin",
        "--bundle",
        "td.bundle",
        "--pcs",
        &pcs,
        "--intel-certificates",
        &pcs,
        "--at",
        at,
        "--patience-s",
        "2",
    ]);
    assert_eq!(fetch.code, 0, "{}", fetch.text);
    let judged = world.run(&["evidence", "verify", "td.bundle", "--policy", "vendor", "--at", at]);
    assert_eq!(
        (judged.code, &judged.json["tdx"]["tcb_status"]),
        (0, &Value::from("UpToDate")),
        "{}",
        judged.text
    );
    // A month later the same documents are neither used nor asked for in vain without saying so.
    let late = world.run(&[
        "evidence",
        "fetch",
        "quote.bin",
        "--bundle",
        "late.bundle",
        "--offline",
        "--at",
        "2025-08-20T00:00:00Z",
    ]);
    assert!(late.code == 30 && late.text.contains("is not used any more"), "{}", late.text);
}
