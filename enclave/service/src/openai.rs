//! What is below `/v1/`: a language model for clients of `OpenAI`'s API.

use std::io;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use tokio::sync::mpsc;

use crate::api::Refusal;
use crate::language::{Answering, Ask, Form, Part};
use crate::serve::{Answer, bytes, json, receive, trailers};
use crate::session::Session;

/// Events of a stream that a slow client may be behind.
const EVENTS_AHEAD: usize = 16;

/// Answers a request for `/v1/{verb}`; refusals have the shape that clients of this interface read.
pub(crate) async fn answer(
    method: &Method,
    verb: &str,
    path: &str,
    body: Incoming,
    session: Arc<Session>,
) -> Answer {
    match route(method, verb, path, body, session).await {
        Ok(answer) => answer,
        Err(refusal) => refuse(refusal),
    }
}

async fn route(
    method: &Method,
    verb: &str,
    path: &str,
    body: Incoming,
    session: Arc<Session>,
) -> Result<Answer, Refusal> {
    let served = session.shared.model().ok_or(Refusal(503, "no model is released to this enclave (yet)"))?;
    let name = &served.description.model_name;
    let entry = || serde_json::json!({"id": name, "object": "model", "created": 0, "owned_by": served.description.owner_id});
    let form = match (method, verb) {
        (&Method::GET, "models") => {
            let list = serde_json::json!({"object": "list", "data": [entry()]});
            return Ok(json(StatusCode::OK, list.to_string()));
        }
        (&Method::GET, _) if verb.strip_prefix("models/") == Some(name) => {
            return Ok(json(StatusCode::OK, entry().to_string()));
        }
        (&Method::POST, "chat/completions") => Form::Chat,
        (&Method::POST, "completions") => Form::Completion,
        _ => return Err(Refusal(404, "there is no such path or model here")),
    };
    let (message, _room) = receive(body, &session.shared).await?;
    let ask = Ask::parse(&message, form)?;
    if ask.model() != name {
        return Err(Refusal(404, "another model is served here"));
    }
    let stream = ask.stream();
    let (served_there, for_thread, tenant) = (served.clone(), message.clone(), session.tenant);
    // Templates and tokenizers may be busy for long.
    let begun =
        tokio::task::spawn_blocking(move || Answering::begin(served_there, ask, form, tenant, &for_thread));
    let answering = begun.await.map_err(|_| Refusal(500, "internal error"))??;
    if !stream {
        let response = answering.whole().await?;
        let receipt = session.receipt(&served, (path, &message), &response).await;
        return Ok(bytes(StatusCode::OK, "application/json", response, receipt.as_deref()));
    }
    let (frames, mut coming) = mpsc::channel(EVENTS_AHEAD);
    let (path, for_receipt) = (path.to_owned(), session.clone());
    tokio::spawn(async move {
        // Nobody listens any more when this fails; dropping the answer ends its computation.
        let _ = tell(answering, frames, |response| async move {
            for_receipt.receipt(&served, (&path, &message), &response).await
        })
        .await;
    });
    let body = StreamBody::new(stream::poll_fn(move |context| coming.poll_recv(context)).boxed());
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

/// Sends an answer as it comes, and its receipt in the end. One that is broken off ends in an error of the stream.
async fn tell<R: Future<Output = Option<Vec<u8>>>>(
    mut answering: Answering,
    frames: mpsc::Sender<io::Result<Frame<Bytes>>>,
    receipt: impl FnOnce(Vec<u8>) -> R,
) -> Result<(), mpsc::error::SendError<io::Result<Frame<Bytes>>>> {
    let mut sent = Vec::new();
    let mut events: Vec<Vec<u8>> = answering.opening().into_iter().collect();
    let mut ended = false;
    loop {
        for event in events.drain(..) {
            sent.extend_from_slice(&event);
            frames.send(Ok(Frame::data(event.into()))).await?;
        }
        if ended {
            break;
        }
        match answering.next().await {
            Part::Text(text) => events.push(answering.chunk(&text, None)),
            Part::End(text, finish) => {
                if !text.is_empty() {
                    events.push(answering.chunk(&text, None));
                }
                events.push(answering.chunk("", Some(finish)));
                events.push(answering.closing());
                ended = true;
            }
            Part::Broken => {
                let broken = io::Error::other("the answer was broken off");
                return frames.send(Err(broken)).await;
            }
        }
    }
    match receipt(sent).await.as_deref().and_then(trailers) {
        Some(trailers) => frames.send(Ok(Frame::trailers(trailers))).await,
        None => Ok(()),
    }
}

fn refuse(Refusal(status, sentence): Refusal) -> Answer {
    let kind = if status < 500 { "invalid_request_error" } else { "server_error" };
    let error = serde_json::json!({"message": sentence, "type": kind, "param": null, "code": null});
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(status, serde_json::json!({ "error": error }).to_string())
}
