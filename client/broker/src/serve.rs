//! `adyton broker serve`: enclaves call, prove themselves, and get the model key.
//!
//! One exchange for each connection: `POST /v1/release/ask`, `/v1/release/evidence`, `/v1/release/confirm`, in that
//! order, on the connection whose exporter the evidence commits to. What an enclave learns of a refusal is its class;
//! the operator's log has the steps.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adyton_attestation::SIMULATED_NOTICE;
use adyton_attestation::release::{AwaitingEvidence, Direction, MAX_MESSAGE_LEN, ReleaseError};
use adyton_channel::http::{accept, next_connection, read_body, serving};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::release::{EVIDENCE_DEADLINE, Release};
use crate::{BrokerConfig, BrokerError, OwnerKeys, Releaser, Store};

const MAX_CONNECTIONS: usize = 128;
/// A whole exchange ends within this time; an idle caller holds no slot.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(120);

struct Broker {
    releaser: Releaser,
    store: Store,
}

/// Where one connection's exchange stands.
enum Exchange {
    Begun,
    Challenged(AwaitingEvidence, Instant),
    Released(Release),
    Over,
}

/// Serves until `stop` is cancelled.
///
/// # Errors
/// [`BrokerError`]: keys, manifest, database or address cannot be used.
pub async fn serve(
    config: &BrokerConfig,
    config_path: &std::path::Path,
    stop: CancellationToken,
) -> Result<(), BrokerError> {
    let keys = OwnerKeys::load(&config.owner_dir)?;
    let (tls, spki) = serving(&keys.tls)?;
    let judge = config.evidence.load(config_path)?;
    let BrokerConfig { manifest, policy_id, lease_s, admission_s, .. } = config;
    let releaser = Releaser::new(keys, judge, manifest, *lease_s, *admission_s)?;
    if releaser.policy_id() != policy_id {
        let manifest = releaser.policy_id().to_owned();
        return Err(BrokerError::Policy { manifest, configured: policy_id.clone() });
    }
    let broker = Arc::new(Broker { releaser, store: Store::open(&config.database)? });
    let listener = TcpListener::bind(config.listen).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => BrokerError::AddressInUse(config.listen),
        _ => BrokerError::System(error),
    })?;
    if broker.releaser.simulated() {
        tracing::warn!("{SIMULATED_NOTICE}: this broker releases the model key to a simulator");
    }
    tracing::info!(listen = %config.listen, policy = %policy_id, "releasing the key of one model");
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return Ok(()) };
        let Some(stream) = next_connection(&listener, stop.cancelled()).await else { return Ok(()) };
        let (broker, tls) = (broker.clone(), tls.clone());
        tokio::spawn(async move {
            let connection = converse(stream, broker, tls, spki);
            if tokio::time::timeout(CONNECTION_DEADLINE, connection).await.is_err() {
                tracing::info!("a caller did not finish its exchange in time");
            }
            drop(slot);
        });
    }
}

async fn converse(
    stream: TcpStream,
    broker: Arc<Broker>,
    tls: Arc<rustls::ServerConfig>,
    spki: adyton_attestation::commit::Digest,
) {
    let (stream, connection) = match accept(stream, tls, spki).await {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::info!(%error, "a caller did not complete the handshake");
            return;
        }
    };
    let exchange = Arc::new(Mutex::new(Exchange::Begun));
    let service = service_fn(move |request| {
        let (broker, exchange) = (broker.clone(), exchange.clone());
        async move { Ok::<_, Infallible>(answer(request, broker, exchange, connection.exporter).await) }
    });
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(4)
        .serve_connection(TokioIo::new(stream), service);
    // A caller that goes away has nothing to be told.
    let _ = serving.await;
}

async fn answer(
    request: Request<Incoming>,
    broker: Arc<Broker>,
    exchange: Arc<Mutex<Exchange>>,
    exporter: [u8; 32],
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    if request.method() != Method::POST {
        return reply(StatusCode::METHOD_NOT_ALLOWED, "method");
    }
    let Ok((body, _)) = read_body(request.into_body(), MAX_MESSAGE_LEN).await else {
        return reply(StatusCode::BAD_REQUEST, "body");
    };
    let mut exchange = exchange.lock().await;
    // Whatever goes wrong, the exchange is over: no message can be tried twice.
    let at = std::mem::replace(&mut *exchange, Exchange::Over);
    let stepped = tokio::task::spawn_blocking(move || step(&broker, at, &path, &body, &exporter)).await;
    match stepped {
        Ok(Ok((next, message))) => {
            *exchange = next;
            reply(StatusCode::OK, message)
        }
        Ok(Err(error)) => {
            tracing::warn!("no release: {error}");
            let (status, class) = class(&error);
            reply(status, class)
        }
        Err(_) => reply(StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

fn step(
    broker: &Broker,
    at: Exchange,
    path: &str,
    body: &[u8],
    exporter: &[u8; 32],
) -> Result<(Exchange, Vec<u8>), BrokerError> {
    match (at, path) {
        (Exchange::Begun, "/v1/release/ask") => {
            let (awaiting, message) = broker.releaser.challenge(body, Direction::Pull, exporter)?;
            Ok((Exchange::Challenged(awaiting, Instant::now()), message))
        }
        (Exchange::Challenged(awaiting, since), "/v1/release/evidence")
            if since.elapsed() < EVIDENCE_DEADLINE =>
        {
            let (release, message) = broker.releaser.release(awaiting, body, &broker.store)?;
            Ok((Exchange::Released(release), message))
        }
        (Exchange::Released(release), "/v1/release/confirm") => {
            let record = release.confirmed(body, &broker.store)?;
            tracing::info!(release = %hex::encode(record.release_id), keyset = %hex::encode(record.keyset_id), "key released and confirmed");
            Ok((Exchange::Over, Vec::new()))
        }
        _ => Err(ReleaseError::Mismatch("message out of order or too late").into()),
    }
}

/// What the caller is told of an error: its class and nothing else.
fn class(error: &BrokerError) -> (StatusCode, String) {
    match error {
        BrokerError::Release(ReleaseError::Rejected(rejected)) => {
            (StatusCode::FORBIDDEN, rejected.reason.to_string())
        }
        BrokerError::Release(ReleaseError::Mismatch(_)) => (StatusCode::CONFLICT, "order".into()),
        BrokerError::Release(_) => (StatusCode::BAD_REQUEST, "message".into()),
        BrokerError::UnknownModel => (StatusCode::NOT_FOUND, "model".into()),
        BrokerError::Rollback { .. } => (StatusCode::FORBIDDEN, "rollback".into()),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal".into()),
    }
}

fn reply(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}
