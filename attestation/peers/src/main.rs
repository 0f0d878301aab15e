//! Verification beside the crates that people use for it, in one run, in turns: `sev` (with its RustCrypto back end) for
//! SEV-SNP, `dcap-qvl` (with ring) for TDX. Ours does more: CRL, extensions, reserved bits, policy; theirs is as much as
//! they do. Arguments: a folder of SEV-SNP evidence, a folder of TDX evidence, rounds.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use adyton_attestation::{Collateral, Endorsements, Evidence, Policy, Time, TrustAnchors, VerdictCache};
use sev::certs::snp::{Certificate, Chain, Verifiable as _, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;

/// Calls in one turn; the turn's mean is one sample.
const CALLS: u32 = 20;

struct Contender<'a> {
    name: &'static str,
    call: Box<dyn FnMut() + 'a>,
    samples: Vec<Duration>,
}

fn contender<'a>(name: &'static str, call: impl FnMut() + 'a) -> Contender<'a> {
    Contender { name, call: Box::new(call), samples: Vec::new() }
}

/// Runs all in turns and prints medians; the last is what the others are compared with.
fn race(title: &str, rounds: usize, mut contenders: Vec<Contender<'_>>) {
    for _ in 0..rounds {
        for contender in &mut contenders {
            let started = Instant::now();
            for _ in 0..CALLS {
                (contender.call)();
            }
            contender.samples.push(started.elapsed() / CALLS);
        }
    }
    for contender in &mut contenders {
        contender.samples.sort();
    }
    let median = |contender: &Contender<'_>| contender.samples[contender.samples.len() / 2];
    let peer = contenders.last().map(&median).expect("somebody runs");
    println!("{title} ({rounds} rounds of {CALLS} in turns)");
    for contender in &contenders {
        let (best, middle) = (contender.samples[0], median(contender));
        let ratio = peer.as_secs_f64() / middle.as_secs_f64();
        println!("  {:<44} best {best:>9.1?}  median {middle:>9.1?}  {ratio:>6.2}x the peer", contender.name);
    }
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    let path = folder.join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn snp(folder: &Path, rounds: usize) {
    let report = read(folder, "report.bin");
    let [ark, ask, vcek] = ["ark.der", "ask.der", "vcek.der"].map(|name| read(folder, name));
    let crls = fs::read(folder.join("ark.crl.der")).ok().into_iter().collect();
    let endorsements = Endorsements {
        ark: Some(ark.clone()),
        ask: Some(ask.clone()),
        vcek: Some(vcek.clone()),
        crls,
        ..Endorsements::default()
    };
    let (anchors, policy, now) = (TrustAnchors::pinned(), Policy::vendor(), time(folder));
    let judge = || {
        let evidence = Evidence::snp_from_parts(&report, &[]).expect("a report");
        let authentic = evidence.verify(&anchors, &endorsements, now).expect("it verifies");
        authentic.appraise_saved(&policy).expect("it is accepted");
    };
    let mut cache = VerdictCache::new(4);
    let judge_cached = || {
        let evidence = Evidence::snp_from_parts(&report, &[]).expect("a report");
        let authentic = evidence.verify_cached(&anchors, &endorsements, now, &mut cache).expect("it verifies");
        authentic.appraise_saved(&policy).expect("it is accepted");
    };
    let sev = || {
        let certificate = |der: &[u8]| Certificate::from_der(der).expect("a certificate");
        let chain = Chain {
            ca: ca::Chain { ark: certificate(&ark), ask: certificate(&ask) },
            vek: certificate(&vcek),
        };
        let report = AttestationReport::from_bytes(&report).expect("a report");
        (&chain, &report).verify().expect("it verifies");
    };
    let contenders = vec![
        contender("adyton: chain, CRL, report, policy", judge),
        contender("adyton: the same, chain verdict cached", judge_cached),
        contender("sev 8 (crypto_nossl): chain, report", sev),
    ];
    race("SEV-SNP", rounds, contenders);
}

fn tdx(folder: &Path, rounds: usize) {
    let quote = read(folder, "quote.bin");
    let json = read(folder, "collateral.json");
    let parse = || Collateral::from_json(&json).expect("collateral");
    let (anchors, policy, now) = (TrustAnchors::pinned(), Policy::vendor(), time(folder));
    let endorsements = Endorsements { tdx_collateral: Some(parse()), ..Endorsements::default() };
    let judge = || {
        let evidence = Evidence::tdx_from_parts(&quote, &[]).expect("a quote");
        let authentic = evidence.verify(&anchors, &endorsements, now).expect("it verifies");
        authentic.appraise_saved(&policy).expect("it is accepted");
    };
    let mut cache = VerdictCache::new(4);
    let judge_cached = || {
        let evidence = Evidence::tdx_from_parts(&quote, &[]).expect("a quote");
        let authentic = evidence.verify_cached(&anchors, &endorsements, now, &mut cache).expect("it verifies");
        authentic.appraise_saved(&policy).expect("it is accepted");
    };
    let collateral: dcap_qvl::QuoteCollateralV3 = serde_json::from_slice(&json).expect("collateral");
    let peer = || {
        dcap_qvl::verify::verify(&quote, &collateral, now.as_unix_seconds()).expect("it verifies");
    };
    let contenders = vec![
        contender("adyton: collateral, quote, policy", judge),
        contender("adyton: the same, collateral verdict cached", judge_cached),
        contender("dcap-qvl 0.7 (ring): full verify", peer),
    ];
    race("TDX", rounds, contenders);
}

/// A time at which the folder's documents are all in force: samples say it in a manifest beside them.
fn time(folder: &Path) -> Time {
    let manifest: serde_json::Value = serde_json::from_slice(&read(folder, "manifest.json")).expect("JSON");
    Time::from_unix_seconds(manifest["validation_time"].as_u64().expect("a validation time"))
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [snp_folder, tdx_folder, rounds] = arguments.as_slice() else {
        eprintln!("usage: adyton-evidence-bench SNP_FOLDER TDX_FOLDER ROUNDS");
        std::process::exit(1);
    };
    let rounds = rounds.parse().expect("rounds is a number");
    snp(Path::new(snp_folder), rounds);
    tdx(Path::new(tdx_folder), rounds);
}
