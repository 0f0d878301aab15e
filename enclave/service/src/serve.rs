//! The TLS port and what is answered on it.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use adyton_attestation::SIMULATED_NOTICE;
use adyton_attestation::release::MAX_MESSAGE_LEN;
use adyton_attestation::session::MAX_HELLO_LEN;
use adyton_channel::http::{ServerStream, accept, read_body, serving};
use adyton_language::Refusal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use http_body_util::StreamBody;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{infer, metadata};
use crate::document::Release;
use crate::enclave::Shared;
use crate::load::Served;
use crate::session::{AttestRefusal, Session};
use crate::transport::{Listener, Stream};
use crate::{EnclaveError, openai};

const ATTEST_PATH: &str = "/.well-known/adyton/attest";
const RELEASE_PATH: &str = "/.well-known/adyton/release/";
/// Name of the trailer that carries the receipt.
const RECEIPT_TRAILER: &str = "adyton-receipt";
const MAX_STREAMS: u32 = 64;
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// A caller that has not attested by then holds no slot.
const ATTEST_DEADLINE: Duration = Duration::from_secs(20);
/// How long a request waits for room, and how long its body may take.
const BUFFER_DEADLINE: Duration = Duration::from_secs(10);
const BODY_DEADLINE: Duration = Duration::from_secs(60);
/// What open requests get when the enclave stops.
const GRACE: Duration = Duration::from_secs(5);

/// Serves connections until `over`.
pub(crate) async fn run(
    listener: &Listener,
    shared: Arc<Shared>,
    over: CancellationToken,
) -> Result<(), EnclaveError> {
    let (tls, spki) = serving(&shared.keys.tls)?;
    let slots = Arc::new(Semaphore::new(shared.document.limits.max_connections));
    let mut open = JoinSet::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { break };
        let Some(stream) = listener.next(over.cancelled()).await else { break };
        while open.try_join_next().is_some() {}
        let (shared, tls, over) = (shared.clone(), tls.clone(), over.clone());
        open.spawn(async move {
            // Who does not shake hands is noise of the network; there is nothing to tell anybody.
            if let Ok((stream, connection)) = accept(stream, tls, spki).await {
                converse(stream, Arc::new(Session::new(shared, connection)), over).await;
            }
            drop(slot);
        });
    }
    let finished = async { while open.join_next().await.is_some() {} };
    // What is still open after this is dropped, and with it closed.
    let _ = tokio::time::timeout(GRACE, finished).await;
    Ok(())
}

async fn converse(stream: ServerStream<Stream>, session: Arc<Session>, over: CancellationToken) {
    let for_service = session.clone();
    let service = service_fn(move |request| {
        let session = for_service.clone();
        async move { Ok::<_, Infallible>(answer(request, session).await) }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).keep_alive_interval(PING_INTERVAL).max_concurrent_streams(MAX_STREAMS);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let attested_in_time = async {
        tokio::time::sleep(ATTEST_DEADLINE).await;
        if session.is_attested().await {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        // A peer that goes away has nothing to be told.
        _ = &mut serving => return,
        () = attested_in_time => (),
        () = over.cancelled() => (),
    }
    serving.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(GRACE, serving).await;
}

pub(crate) type Answer = Response<StreamBody<BoxStream<'static, io::Result<Frame<Bytes>>>>>;

async fn answer(request: Request<Incoming>, session: Arc<Session>) -> Answer {
    let simulated = session.shared.simulated;
    let mut answer = route(request, session).await;
    if simulated {
        answer.headers_mut().insert("adyton-warning", HeaderValue::from_static(SIMULATED_NOTICE));
    }
    answer
}

async fn route(request: Request<Incoming>, session: Arc<Session>) -> Answer {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if parts.method == Method::POST && path == ATTEST_PATH {
        return attest(body, &session).await;
    }
    if !session.is_attested().await {
        return refuse(Refusal(403, "attest first: POST /.well-known/adyton/attest"));
    }
    if let Some(verb) = path.strip_prefix(RELEASE_PATH).filter(|_| parts.method == Method::POST) {
        return push(verb, body, &session).await;
    }
    match (&parts.method, path) {
        (&Method::GET, "/v2/health/live") => json(StatusCode::OK, r#"{"live":true}"#),
        (&Method::GET, "/v2/health/ready") => match session.shared.model() {
            Some(_) => json(StatusCode::OK, r#"{"ready":true}"#),
            None => json(StatusCode::SERVICE_UNAVAILABLE, r#"{"ready":false}"#),
        },
        _ => model(&parts.method, path, body, session).await,
    }
}

async fn attest(body: impl Body<Error = hyper::Error>, session: &Session) -> Answer {
    let Ok((message, _)) = read_body(body, MAX_HELLO_LEN).await else {
        return refuse(Refusal(400, "the attestation request is too long or was cut off"));
    };
    match session.attest(&message).await {
        Ok(answer) => bytes(StatusCode::OK, "application/cbor", answer, None),
        Err(AttestRefusal::Malformed) => refuse(Refusal(400, "the attestation request is malformed")),
        Err(AttestRefusal::TooMany) => {
            refuse(Refusal(429, "too many attestations on one connection; open another"))
        }
        Err(AttestRefusal::WrongModel) => refuse(Refusal(404, "another model is served here")),
        Err(AttestRefusal::OtherPlatform) => {
            refuse(Refusal(406, "evidence of another platform is given here"))
        }
        Err(AttestRefusal::Failed) => refuse(Refusal(503, "the platform gives no evidence at the moment")),
    }
}

async fn push(verb: &str, body: Incoming, session: &Session) -> Answer {
    if !matches!(session.shared.document.release, Release::Push {}) {
        return refuse(Refusal(409, "this enclave gets its key from a broker"));
    }
    let Ok((message, _)) = read_body(body, MAX_MESSAGE_LEN).await else {
        return refuse(Refusal(400, "the message is too long or was cut off"));
    };
    match session.push(verb, &message).await {
        Ok(reply) => bytes(StatusCode::OK, "application/cbor", reply, None),
        Err(error) => {
            tracing::warn!("a pushed key was not taken: {error}");
            refuse(Refusal(400, "the release was refused; the enclave's console says why"))
        }
    }
}

async fn model(method: &Method, path: &str, body: Incoming, session: Arc<Session>) -> Answer {
    if let Some(verb) = path.strip_prefix("/v1/") {
        return openai::answer(method, verb, path, body, session).await;
    }
    let Some(served) = session.shared.model() else {
        return refuse(Refusal(503, "no model is released to this enclave (yet)"));
    };
    if method == Method::GET && path == "/v2/models" {
        return json(
            StatusCode::OK,
            serde_json::json!({ "models": [served.description.model_name] }).to_string(),
        );
    }
    let name = path.strip_prefix("/v2/models/");
    let (name, verb) = match name.and_then(|rest| rest.rsplit_once('/')) {
        Some((name, verb)) => (Some(name), verb),
        None => (name, ""),
    };
    if name != Some(served.description.model_name.as_str()) {
        return refuse(Refusal(404, "there is no such path or model here"));
    }
    match (method, verb) {
        (&Method::GET, "") => json(StatusCode::OK, metadata(&served).to_string()),
        (&Method::GET, "ready") => json(StatusCode::OK, r#"{"ready":true}"#),
        (&Method::POST, "infer") => predict(path, body, &session, served).await,
        _ => refuse(Refusal(404, "there is no such path or model here")),
    }
}

async fn predict(path: &str, body: Incoming, session: &Session, served: Arc<Served>) -> Answer {
    let (shared, limits) = (&session.shared, session.shared.document.limits);
    let (message, _room) = match receive(body, shared).await {
        Ok(received) => received,
        Err(refusal) => return refuse(refusal),
    };
    let Ok(permit) = shared.parallel.acquire().await else {
        return refuse(Refusal(503, "the enclave is stopping"));
    };
    let (for_thread, served_there) = (message.clone(), served.clone());
    let computed =
        tokio::task::spawn_blocking(move || infer(&served_there, &for_thread, limits.max_rows)).await;
    drop(permit);
    match computed {
        Ok(Ok(response)) => {
            let receipt = session.receipt(&served, (path, &message), &response).await;
            bytes(StatusCode::OK, "application/json", response, receipt.as_deref())
        }
        Ok(Err(refusal)) => refuse(refusal),
        Err(_) => refuse(Refusal(500, "internal error")),
    }
}

/// The whole body of a request, and the room it takes.
pub(crate) async fn receive(
    body: Incoming,
    shared: &Shared,
) -> Result<(Bytes, SemaphorePermit<'_>), Refusal> {
    let limits = shared.document.limits;
    // The body is read only when there is room for it: callers together cannot take more memory than the limit.
    let announced = body.size_hint().upper().unwrap_or(u64::MAX);
    let room = usize::try_from(announced).unwrap_or(usize::MAX).min(limits.max_request_bytes);
    let waiting = shared.buffered.acquire_many(u32::try_from(room).unwrap_or(u32::MAX));
    let Ok(Ok(room)) = tokio::time::timeout(BUFFER_DEADLINE, waiting).await else {
        return Err(Refusal(503, "too many requests are held at the moment; try again"));
    };
    let reading = tokio::time::timeout(BODY_DEADLINE, read_body(body, limits.max_request_bytes));
    match reading.await {
        Ok(Ok((message, _))) => Ok((message, room)),
        Ok(Err(_)) => Err(Refusal(413, "the request is longer than this service allows, or was cut off")),
        Err(_) => Err(Refusal(408, "the request took too long to arrive")),
    }
}

pub(crate) fn json(status: StatusCode, text: impl Into<String>) -> Answer {
    bytes(status, "application/json", text.into().into_bytes(), None)
}

fn refuse(Refusal(status, sentence): Refusal) -> Answer {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(status, serde_json::json!({ "error": sentence }).to_string())
}

/// A whole answer; the receipt, if any, follows the body as the last frame.
pub(crate) fn bytes(status: StatusCode, kind: &'static str, body: Vec<u8>, receipt: Option<&[u8]>) -> Answer {
    let mut frames = vec![Ok(Frame::data(Bytes::from(body)))];
    frames.extend(receipt.and_then(trailers).map(|trailers| Ok(Frame::trailers(trailers))));
    let mut response = Response::new(StreamBody::new(stream::iter(frames).boxed()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

pub(crate) fn trailers(receipt: &[u8]) -> Option<HeaderMap> {
    let value = HeaderValue::try_from(BASE64.encode(receipt)).ok()?;
    Some(HeaderMap::from_iter([(HeaderName::from_static(RECEIPT_TRAILER), value)]))
}
