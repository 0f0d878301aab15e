//! An enclave whose TLS key was stolen, and the thief's relay.
//!
//! The enclave runs in this process, because its TLS key is to be copied: a real one never leaves the enclave.

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adyton_attestation::Platform;
use adyton_attester::{AttestError, Attester, RawEvidence};
use adyton_channel::http::{Call, accept, read_body, serving};
use adyton_channel::{Peer, TlsIdentity};
use adyton_enclave::{Enclave, Options};
use adyton_simulator::{LaunchContext, Simulator};
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The simulator without a process between.
struct Direct {
    simulator: Simulator,
    context: LaunchContext,
}

impl Attester for Direct {
    fn attest(&self, report_data: &[u8; 64]) -> Result<RawEvidence, AttestError> {
        let report = self.simulator.report(&self.context, report_data).expect("the simulator signs");
        let certificate_table = self.simulator.certificate_table().to_vec();
        Ok(RawEvidence { platform: Platform::Simulated, report, certificate_table })
    }
    fn name(&self) -> &'static str {
        "direct"
    }
    fn platform(&self) -> Platform {
        Platform::Simulated
    }
}

/// Runs an enclave with the measurement of `program`, and returns a copy of its TLS key.
///
/// # Panics
/// If a file is missing or the enclave cannot be made.
#[must_use]
pub fn run_enclave(document: &Path, program: &Path, simulator: &Path, stop: &CancellationToken) -> Vec<u8> {
    let document = fs::read(document).expect("the launch document is there");
    let program = fs::read(program).expect("the enclave program is there");
    let context = LaunchContext::new::<&[u8]>(&program, &document, &[]).expect("a launch context");
    let simulator = Simulator::load(simulator).expect("the simulator is set up");
    let tls = TlsIdentity::generate().expect("a TLS key");
    let stolen = tls.pkcs8().to_vec();
    let attester = Arc::new(Direct { simulator, context });
    let enclave = Enclave::new(&document, attester, Options { tls: Some(tls) }).expect("a launch document");
    tokio::spawn(enclave.run(stop.clone()));
    stolen
}

/// Relays requests on `port` to the enclave, with TLS ending here under the stolen key.
///
/// # Panics
/// If the key is none or the port is taken.
pub async fn relay(port: u16, stolen: &[u8], enclave_port: u16) {
    let identity = TlsIdentity::from_pkcs8(stolen).expect("a TLS key");
    let (config, spki) = serving(&identity).expect("a configuration");
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok((stream, _)) = accept(stream, config.clone(), spki).await else { continue };
            let service = hyper::service::service_fn(move |request| pass_on(request, enclave_port));
            let executor = hyper_util::rt::TokioExecutor::new();
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http2::Builder::new(executor).serve_connection(io, service));
        }
    });
}

async fn pass_on(
    request: Request<Incoming>,
    enclave_port: u16,
) -> Result<Response<http_body_util::Full<hyper::body::Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let (body, _) = read_body(request.into_body(), 1 << 20).await.expect("a body");
    let enclave = format!("127.0.0.1:{enclave_port}");
    let mut call =
        Call::dial(&enclave, Peer::Attested, Duration::from_secs(5)).await.expect("the enclave answers");
    let reply = call.post(&path, body.to_vec(), 1 << 20).await.expect("the enclave answers");
    let mut response = Response::new(http_body_util::Full::new(reply.body));
    *response.status_mut() = reply.status;
    Ok(response)
}
