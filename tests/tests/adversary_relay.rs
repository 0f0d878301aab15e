//! A relay that ends TLS itself, with a stolen copy of the enclave's TLS key, and one that replays what it recorded.
//!
//! The enclave runs in this process, because its TLS key is to be stolen: a real one never leaves the enclave.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;
use std::fs;
use std::time::Duration;

use adyton_attestation::{Platform, Reason};
use adyton_broker::now;
use adyton_channel::http::{Call, accept, serving};
use adyton_channel::{Peer, TlsIdentity};
use adyton_client::{ClientError, Dialed, TrustFile};
use adyton_tests::{Site, free_port, program, relay, run_enclave};
use hyper::{Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Runs the enclave of `site` in this process, with a TLS key that is returned as its thief would hold it.
fn run_stolen(site: &Site, stop: &CancellationToken) -> Vec<u8> {
    run_enclave(&site.path("launch.toml"), &program("adyton-enclave"), &site.path("simulator"), stop)
}

/// A host that only hands out files: the enclave is not launched by it.
fn files_only(site: &Site) -> adyton_tests::Running {
    let config = fs::read_to_string(site.path("host.toml")).unwrap();
    let without_launch = config.split("[launch]").next().unwrap().to_owned();
    fs::write(site.path("host.toml"), without_launch).unwrap();
    site.start_host()
}

fn reason(result: Result<adyton_client::Channel, ClientError>) -> Reason {
    match result {
        Err(ClientError::Rejected(rejected)) => rejected.reason,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("accepted"),
    }
}

async fn verify(site: &Site, port: u16) -> Result<adyton_client::Channel, ClientError> {
    let trust = TrustFile::read(&site.path("trust.toml")).unwrap();
    Dialed::dial(&format!("127.0.0.1:{port}")).await?.verify(&trust.at(now(), &[]), None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_with_a_copied_tls_key_is_refused() {
    let site = Site::new("pull");
    let stop = CancellationToken::new();
    let (_broker, _host) = (site.start_broker(), files_only(&site));
    let stolen = run_stolen(&site, &stop);
    tokio::task::block_in_place(|| site.wait_until_accepted());
    let port = free_port();
    relay(port, &stolen, site.enclave_port).await;
    // The key shown is the attested one and every byte is the enclave's: only the exporter is another.
    assert_eq!(reason(verify(&site, port).await), Reason::ReportData);
    assert!(verify(&site, site.enclave_port).await.is_ok(), "the same enclave without the relay is accepted");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_answer_is_refused_on_another_connection_and_for_another_challenge() {
    let site = Site::new("pull");
    let stop = CancellationToken::new();
    let (_broker, _host) = (site.start_broker(), files_only(&site));
    let stolen = run_stolen(&site, &stop);
    tokio::task::block_in_place(|| site.wait_until_accepted());
    // A genuine answer, as a relay that knew the TLS key could have recorded it.
    let recorded = {
        let enclave = format!("127.0.0.1:{}", site.enclave_port);
        let mut call = Call::dial(&enclave, Peer::Attested, Duration::from_secs(5)).await.unwrap();
        let hello = adyton_attestation::session::Hello {
            challenge: [7; 32],
            mode: adyton_attestation::session::Mode::Fresh,
            known: Vec::new(),
            platforms: vec![Platform::Simulated],
            manifest_id: None,
        };
        let (_, message) = adyton_attestation::session::Asking::begin(hello);
        call.post("/.well-known/adyton/attest", message, 1 << 20).await.unwrap().body
    };
    let identity = TlsIdentity::from_pkcs8(&stolen).unwrap();
    let (config, spki) = serving(&identity).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (stream, _) = accept(stream, config, spki).await.unwrap();
        let service = hyper::service::service_fn(move |_: Request<hyper::body::Incoming>| {
            let recorded = recorded.clone();
            async move { Ok::<_, Infallible>(Response::new(http_body_util::Full::new(recorded))) }
        });
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        hyper::server::conn::http2::Builder::new(executor).serve_connection(io, service).await
    });
    assert_eq!(reason(verify(&site, port).await), Reason::ReportData);
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_served_before_flow_s() {
    let site = Site::new("pull");
    let stop = CancellationToken::new();
    let (_broker, _host) = (site.start_broker(), files_only(&site));
    let _key = run_stolen(&site, &stop);
    tokio::task::block_in_place(|| site.wait_until_accepted());
    let enclave = format!("127.0.0.1:{}", site.enclave_port);
    let mut call = Call::dial(&enclave, Peer::Attested, Duration::from_secs(5)).await.unwrap();
    for path in [
        "/v2/models/canary/infer",
        "/v2/models",
        "/v2/health/ready",
        "/.well-known/adyton/release/begin",
        "/anything",
    ] {
        let reply = call.post(path, b"{}".to_vec(), 1 << 20).await.unwrap();
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{path}");
    }
    // A malformed challenge does not open the connection either.
    for bad in [&b""[..], b"\xff", &[0x80; 64], &vec![0; 9000]] {
        let reply = call.post("/.well-known/adyton/attest", bad.to_vec(), 1 << 20).await.unwrap();
        assert_eq!(reply.status, StatusCode::BAD_REQUEST);
        let reply = call.post("/v2/models", Vec::new(), 1 << 20).await.unwrap();
        assert_eq!(reply.status, StatusCode::FORBIDDEN);
    }
    stop.cancel();
}
