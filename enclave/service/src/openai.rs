//! What is below `/v1/`: a language model for clients of `OpenAI`'s API.

use std::io;
use std::sync::Arc;

use adyton_language::{Answering, Ask, Form, Language, Named, Part, Piece, Refusal};
use futures_util::StreamExt as _;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use tokio::sync::mpsc;

use crate::load::{Model, Served};
use crate::serve::{Answer, bytes, json, receive, trailers};
use crate::session::Session;

const MISSING: Refusal = Refusal(404, "there is no such path or model here");
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
        (&Method::POST, _) => Form::of(path).ok_or(MISSING)?,
        _ => return Err(MISSING),
    };
    let (message, _room) = receive(body, &session.shared).await?;
    let ask = Ask::parse(&message, form)?;
    if ask.model() != name {
        return Err(Refusal(404, "another model is served here"));
    }
    let Model::Language(language) = &served.model else {
        return Err(Refusal(404, "the model served here is no language model"));
    };
    let stream = ask.stream();
    let answer = Coming::begin(language.clone(), &served, ask, message.clone(), session.tenant).await?;
    if !stream {
        let response = answer.whole().await?;
        let receipt = session.receipt(&served, (path, &message), &response).await;
        return Ok(bytes(StatusCode::OK, "application/json", response, receipt.as_deref()));
    }
    let (frames, mut coming) = mpsc::channel(EVENTS_AHEAD);
    let (path, for_receipt) = (path.to_owned(), session.clone());
    tokio::spawn(async move {
        // Nobody listens any more when this fails; dropping the answer ends its computation.
        let _ = tell(answer, frames, |response| async move {
            for_receipt.receipt(&served, (&path, &message), &response).await
        })
        .await;
    });
    let body = StreamBody::new(stream::poll_fn(move |context| coming.poll_recv(context)).boxed());
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

/// An answer, and the pieces it is made from. Dropping it ends its computation.
struct Coming {
    answering: Answering,
    pieces: mpsc::UnboundedReceiver<Piece>,
}

impl Coming {
    async fn begin(
        language: Arc<Language>,
        served: &Served,
        ask: Ask,
        body: Bytes,
        tenant: u64,
    ) -> Result<Self, Refusal> {
        let seed = ask.seed()?;
        let named = Named::new(served.description.model_name.clone(), &served.manifest_id);
        let (sender, pieces) = mpsc::unbounded_channel();
        let tell = Box::new(move |piece| sender.send(piece).is_ok());
        // Templates and tokenizers may be busy for long.
        let begun = tokio::task::spawn_blocking(move || {
            Answering::begin(&language, named, (ask, &body), (tenant, seed), tell)
        });
        let answering = begun.await.map_err(|_| Refusal(500, "internal error"))??;
        Ok(Self { answering, pieces })
    }

    async fn next(&mut self) -> Part {
        // A model that was taken away tells nothing more.
        let Some(piece) = self.pieces.recv().await else { return Part::Broken };
        let part = self.answering.push(piece);
        if part == Part::Broken {
            tracing::error!("the engine failed; an answer is broken off");
        }
        part
    }

    async fn whole(mut self) -> Result<Vec<u8>, Refusal> {
        loop {
            match self.next().await {
                Part::More(_) => (),
                Part::End(response) => return Ok(response),
                Part::Broken => return Err(Refusal(503, "the answer was broken off; ask again")),
            }
        }
    }
}

/// Sends an answer as it comes, and its receipt in the end. One that is broken off ends in an error of the stream.
async fn tell<R: Future<Output = Option<Vec<u8>>>>(
    mut answer: Coming,
    frames: mpsc::Sender<io::Result<Frame<Bytes>>>,
    receipt: impl FnOnce(Vec<u8>) -> R,
) -> Result<(), mpsc::error::SendError<io::Result<Frame<Bytes>>>> {
    let mut sent = answer.answering.opening();
    if !sent.is_empty() {
        frames.send(Ok(Frame::data(sent.clone().into()))).await?;
    }
    loop {
        let (bytes, ended) = match answer.next().await {
            Part::More(bytes) => (bytes, false),
            Part::End(bytes) => (bytes, true),
            Part::Broken => {
                let broken = io::Error::other("the answer was broken off");
                return frames.send(Err(broken)).await;
            }
        };
        if !bytes.is_empty() {
            sent.extend_from_slice(&bytes);
            frames.send(Ok(Frame::data(bytes.into()))).await?;
        }
        if ended {
            break;
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
