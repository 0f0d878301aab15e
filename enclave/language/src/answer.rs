//! Answers in the shapes of `OpenAI`'s API, whole or as a stream of events.
//!
//! They hold nothing that the enclave does not know for certain: `created` is 0 because the clock is the host's, and
//! `id` follows from the request. `seed` is told, so that the same request with it gives the same answer again.

use std::fmt;
use std::sync::Arc;

use adyton_attestation::commit::hash;
use adyton_inference::lm::{Finish, StopStrings};
use adyton_inference::tokenizer::Detokenizer;
use serde_json::{Value, json};

use crate::logprobs::Likely;
use crate::place::Place;
use crate::{Ask, Language, Piece, Refusal, Tell};

/// Which of the two interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completion,
}

impl Form {
    /// The form of requests to a path.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        match path {
            "/v1/chat/completions" => Some(Self::Chat),
            "/v1/completions" => Some(Self::Completion),
            _ => None,
        }
    }
}

/// What an answer says of the model.
#[derive(Debug, Clone)]
pub struct Named {
    /// The owner's name of it.
    pub model: String,
    /// First bytes of the manifest's id, in hexadecimal digits, behind `fp_`.
    pub fingerprint: String,
}

impl Named {
    /// The name of the model of a manifest.
    #[must_use]
    pub fn new(model: String, manifest_id: &[u8; 32]) -> Self {
        Self { model, fingerprint: format!("fp_{}", hex::encode(&manifest_id[..8])) }
    }
}

/// An answer on its way: pieces of the engine go in, bytes come out.
pub struct Answering {
    language: Arc<Language>,
    named: Named,
    detokenizer: Detokenizer,
    stops: StopStrings,
    form: Form,
    /// What a whole answer will say; `None` for a stream.
    text: Option<String>,
    id: String,
    seed: u64,
    prompt_tokens: usize,
    completion_tokens: usize,
    include_usage: bool,
    likely: Likely,
    _place: Place,
}

/// What a piece brought. `Debug` tells how many bytes, never which.
#[derive(PartialEq, Eq)]
pub enum Part {
    /// Bytes of the answer, perhaps none yet.
    More(Vec<u8>),
    /// Its last bytes.
    End(Vec<u8>),
    /// There will be no answer: the engine failed.
    Broken,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::More(bytes) => write!(f, "More({} bytes)", bytes.len()),
            Self::End(bytes) => write!(f, "End({} bytes)", bytes.len()),
            Self::Broken => f.write_str("Broken"),
        }
    }
}

impl Answering {
    /// Begins the answer to `ask`, whose body was `body`; `tell` gets what [`Self::push`] wants. `seed` is the request's,
    /// or one drawn for it ([`Ask::seed`]).
    ///
    /// # Errors
    /// [`Refusal`]: what is asked for cannot be computed, or not now.
    pub fn begin(
        language: &Arc<Language>,
        named: Named,
        (ask, body): (Ask, &[u8]),
        (tenant, seed): (u64, u64),
        tell: Tell,
    ) -> Result<Self, Refusal> {
        let (form, stops) = (ask.form(), ask.stops()?);
        let (include_usage, text) = (ask.include_usage(), (!ask.stream()).then(String::new));
        let id = hash(&[body, &seed.to_le_bytes()].concat());
        let (place, prompt_tokens) = ask.begin(language, (tenant, seed), tell)?;
        let prefix = if form == Form::Chat { "chatcmpl" } else { "cmpl" };
        Ok(Self {
            language: language.clone(),
            named,
            detokenizer: Detokenizer::new(false),
            stops,
            form,
            text,
            id: format!("{prefix}-{}", hex::encode(&id[..12])),
            seed,
            prompt_tokens,
            completion_tokens: 0,
            include_usage,
            likely: Likely::default(),
            _place: place,
        })
    }

    /// Tokens that were pushed.
    pub(crate) fn completion_tokens(&self) -> usize {
        self.completion_tokens
    }

    /// What stands before everything else: the event that opens the stream of a conversation.
    #[must_use]
    pub fn opening(&self) -> Vec<u8> {
        match (&self.text, self.form) {
            (None, Form::Chat) => {
                self.event(&json!({"role": "assistant", "content": ""}), "", &Value::Null, None)
            }
            _ => Vec::new(),
        }
    }

    /// What the next piece brings. After the end there is nothing more to push.
    pub fn push(&mut self, piece: Piece) -> Part {
        let (text, finish) = match piece {
            Piece::Token(token, likely) => {
                self.completion_tokens += 1;
                if let Some(likely) = likely {
                    self.likely.push(token, likely);
                }
                (self.detokenizer.push(self.language.tokenizer(), token), None)
            }
            Piece::Finished(finish) => (self.detokenizer.finish(), Some(finish)),
            Piece::Failed => return Part::Broken,
        };
        let mut text = self.stops.push(&text);
        let finish = match finish {
            _ if self.stops.stopped() => "stop",
            None => return Part::More(self.say(&text)),
            Some(finish) => {
                text.push_str(&self.stops.finish());
                if finish == Finish::Stop { "stop" } else { "length" }
            }
        };
        let mut last = self.say(&text);
        last.extend(self.closing(finish));
        Part::End(last)
    }

    /// The event of a text that is not empty; a whole answer keeps it.
    fn say(&mut self, text: &str) -> Vec<u8> {
        match &mut self.text {
            Some(all) => all.push_str(text),
            None if text.is_empty() => (),
            None => {
                let likely = self.likely();
                return self.event(&json!({"content": text}), text, &likely, None);
            }
        }
        Vec::new()
    }

    /// What is said of the tokens since the last time.
    fn likely(&mut self) -> Value {
        self.likely.take(self.form, self.language.tokenizer())
    }

    /// What follows the last text: the rest of a stream, or the whole answer.
    fn closing(&mut self, finish: &str) -> Vec<u8> {
        let likely = self.likely();
        let Some(text) = self.text.take() else {
            let mut closing = self.event(&json!({}), "", &likely, Some(finish));
            if self.include_usage {
                closing.extend(sse(&self.object(self.chunk_object(), &[], Some(&self.usage()))));
            }
            closing.extend_from_slice(b"data: [DONE]\n\n");
            return closing;
        };
        let choice = match self.form {
            Form::Chat => json!({"index": 0, "message": {"role": "assistant", "content": text},
                                 "logprobs": likely, "finish_reason": finish}),
            Form::Completion => {
                json!({"index": 0, "text": text, "logprobs": likely, "finish_reason": finish})
            }
        };
        let object = if self.form == Form::Chat { "chat.completion" } else { "text_completion" };
        self.object(object, &[choice], Some(&self.usage())).to_string().into_bytes()
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
            "model": self.named.model,
            "system_fingerprint": self.named.fingerprint,
            "seed": self.seed,
            "choices": choices,
            "usage": usage,
        })
    }

    fn chunk_object(&self) -> &'static str {
        if self.form == Form::Chat { "chat.completion.chunk" } else { "text_completion" }
    }

    fn event(&self, delta: &Value, text: &str, likely: &Value, finish: Option<&str>) -> Vec<u8> {
        let choice = match self.form {
            Form::Chat => json!({"index": 0, "delta": delta, "logprobs": likely, "finish_reason": finish}),
            Form::Completion => {
                json!({"index": 0, "text": text, "logprobs": likely, "finish_reason": finish})
            }
        };
        sse(&self.object(self.chunk_object(), &[choice], None))
    }
}

fn sse(value: &Value) -> Vec<u8> {
    format!("data: {value}\n\n").into_bytes()
}
