//! Answers in the shapes of `OpenAI`'s API, whole or as a stream of events.
//!
//! They hold nothing that the enclave does not know for certain: `created` is 0 because the clock is the host's, and
//! `id` follows from the request. `seed` is told, so that the same request with it gives the same answer again.

use std::sync::Arc;

use adyton_attestation::commit::hash;
use adyton_inference::lm::{Finish, StopStrings};
use adyton_inference::tokenizer::Detokenizer;
use serde_json::{Value, json};

use super::worker::Piece;
use super::{Ask, Generation};
use crate::api::Refusal;
use crate::load::{Model, Served};

/// Which of the two interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Chat,
    Completion,
}

/// An answer on its way.
pub(crate) struct Answering {
    served: Arc<Served>,
    generation: Generation,
    detokenizer: Detokenizer,
    stops: StopStrings,
    form: Form,
    id: String,
    seed: u64,
    prompt_tokens: usize,
    completion_tokens: usize,
    pub(crate) include_usage: bool,
}

/// What an answer goes on with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Text(String),
    /// The last text, and why it ended: `stop` or `length`.
    End(String, &'static str),
    /// The model was taken away, or the engine failed.
    Broken,
}

impl Answering {
    /// Begins the answer to `ask`, whose body was `body`.
    pub(crate) fn begin(
        served: Arc<Served>,
        ask: Ask,
        form: Form,
        tenant: u64,
        body: &[u8],
    ) -> Result<Self, Refusal> {
        let Model::Language(language) = &served.model else {
            return Err(Refusal(404, "the model served here is no language model"));
        };
        let (seed, stops, include_usage) = (ask.seed()?, ask.stops()?, ask.include_usage());
        let id = hash(&[body, &seed.to_le_bytes()].concat());
        let (generation, prompt_tokens) = ask.begin(language, tenant, seed)?;
        let prefix = if form == Form::Chat { "chatcmpl" } else { "cmpl" };
        Ok(Self {
            generation,
            detokenizer: Detokenizer::new(false),
            stops,
            form,
            id: format!("{prefix}-{}", hex::encode(&id[..12])),
            seed,
            prompt_tokens,
            completion_tokens: 0,
            include_usage,
            served,
        })
    }

    /// The next text that is not empty, or the end. After the end there is nothing more to ask for.
    pub(crate) async fn next(&mut self) -> Part {
        loop {
            let Some(piece) = self.generation.pieces.recv().await else { return Part::Broken };
            let (text, finish) = match piece {
                Piece::Token(token) => {
                    self.completion_tokens += 1;
                    let Self { detokenizer, served, .. } = self;
                    let Model::Language(language) = &served.model else { return Part::Broken };
                    (detokenizer.push(language.tokenizer(), token), None)
                }
                Piece::Finished(finish) => (self.detokenizer.finish(), Some(finish)),
            };
            let mut text = self.stops.push(&text);
            if self.stops.stopped() {
                return Part::End(text, "stop");
            }
            match finish {
                Some(finish) => {
                    text.push_str(&self.stops.finish());
                    return Part::End(text, if finish == Finish::Stop { "stop" } else { "length" });
                }
                None if text.is_empty() => (),
                None => return Part::Text(text),
            }
        }
    }

    /// The whole answer, once it is complete.
    pub(crate) async fn whole(mut self) -> Result<Vec<u8>, Refusal> {
        let mut text = String::new();
        let finish = loop {
            match self.next().await {
                Part::Text(more) => text.push_str(&more),
                Part::End(more, finish) => {
                    text.push_str(&more);
                    break finish;
                }
                Part::Broken => return Err(Refusal(503, "the answer was broken off; ask again")),
            }
        };
        let choice = match self.form {
            Form::Chat => json!({"index": 0, "message": {"role": "assistant", "content": text},
                                 "logprobs": null, "finish_reason": finish}),
            Form::Completion => {
                json!({"index": 0, "text": text, "logprobs": null, "finish_reason": finish})
            }
        };
        let object = if self.form == Form::Chat { "chat.completion" } else { "text_completion" };
        Ok(self.object(object, &[choice], Some(&self.usage())).to_string().into_bytes())
    }

    fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        })
    }

    fn object(&self, object: &str, choices: &[Value], usage: Option<&Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": 0,
            "model": self.served.description.model_name,
            "system_fingerprint": format!("fp_{}", hex::encode(&self.served.manifest_id[..8])),
            "seed": self.seed,
            "choices": choices,
            "usage": usage,
        })
    }

    /// The event that opens a stream; only conversations have one.
    pub(crate) fn opening(&self) -> Option<Vec<u8>> {
        (self.form == Form::Chat).then(|| self.event(&json!({"role": "assistant", "content": ""}), "", None))
    }

    /// The event of a part.
    pub(crate) fn chunk(&self, text: &str, finish: Option<&str>) -> Vec<u8> {
        let delta = if text.is_empty() { json!({}) } else { json!({"content": text}) };
        self.event(&delta, text, finish)
    }

    /// What follows the last part.
    pub(crate) fn closing(&self) -> Vec<u8> {
        let mut closing = Vec::new();
        if self.include_usage {
            closing = sse(&self.object(self.chunk_object(), &[], Some(&self.usage())));
        }
        closing.extend_from_slice(b"data: [DONE]\n\n");
        closing
    }

    fn chunk_object(&self) -> &'static str {
        if self.form == Form::Chat { "chat.completion.chunk" } else { "text_completion" }
    }

    fn event(&self, delta: &Value, text: &str, finish: Option<&str>) -> Vec<u8> {
        let choice = match self.form {
            Form::Chat => json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}),
            Form::Completion => {
                json!({"index": 0, "text": text, "logprobs": null, "finish_reason": finish})
            }
        };
        sse(&self.object(self.chunk_object(), &[choice], None))
    }
}

fn sse(value: &Value) -> Vec<u8> {
    format!("data: {value}\n\n").into_bytes()
}
