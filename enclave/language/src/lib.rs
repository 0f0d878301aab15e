//! A language model that answers: its tokenizer, its chat template, and the thread that computes for all clients.
//!
//! Requests come in the shapes of the `OpenAI` API ([`Ask`]) and leave in them ([`Answering`]); between, one thread
//! steps the engine, which works on all requests at once. Keys and values of a prompt are used again within one
//! connection only. An answer is a function of the model, the request and the seed it tells, byte for byte, so that
//! whoever holds a request, its answer and the model can compute it again ([`replay`]).
//!
//! It sees prompts and answers, so it has no way to send or log them: the service around it does that.
#![forbid(unsafe_code)]

mod answer;
mod ask;
mod logprobs;
mod place;
mod replay;
mod worker;

use std::io;
use std::sync::OnceLock;
use std::thread::available_parallelism;

use adyton_inference::chat::{ChatContext, ChatTemplate, Message};
use adyton_inference::lm::{
    Constraint, Engine, EngineOptions, Grammar, GrammarError, Grammars, Model, Options, Request,
    with_directory,
};
use adyton_inference::tokenizer::{Encode, Tokenizer};
use adyton_model::gguf::{Gguf, GgufError};
use serde::Deserialize;

pub use adyton_inference::lm::{KvKind, Source};
pub use answer::{Answering, Form, Named, Part};
pub use ask::Ask;
use place::{Place, Places};
pub use replay::{ReplayError, Replayed, replay};
use worker::Worker;
pub use worker::{Piece, Tell};

/// First bytes of a GGUF file.
pub const MAGIC: &[u8; 4] = b"GGUF";

/// Why a request is refused: an HTTP status and a fixed sentence; nothing of the request is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal(pub u16, pub &'static str);

/// Why a model cannot be served, in fixed sentences: what the file says of itself is the owner's secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file.
    #[error("{0}")]
    Unservable(&'static str),
    /// The file cannot be read, or the system gives no thread.
    #[error("the model cannot be read or started: {0}")]
    System(#[from] io::Error),
}

impl From<GgufError> for LoadError {
    fn from(_: GgufError) -> Self {
        Self::Unservable(NO_MODEL)
    }
}

const NO_MODEL: &str =
    "its file is no language model that runs here; adyton-bench says why, where the owner is";

/// Bounds of a language model, as the launch document gives them.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LanguageLimits {
    /// Computing threads; without it one for each processor.
    pub threads: Option<usize>,
    /// Positions of all answers together whose keys and values are held.
    pub positions: usize,
    /// Answers computed at once.
    pub running: usize,
    /// Requests that wait for one of these.
    pub waiting: usize,
    /// Tokens of one answer.
    pub max_tokens: usize,
    /// How keys and values are held. Answers depend on it.
    pub kv: KvKind,
    /// For models with other rotations for long texts than for short ones: those for long texts. Answers depend on it.
    pub long_context: bool,
}

impl Default for LanguageLimits {
    fn default() -> Self {
        Self {
            threads: None,
            positions: 16_384,
            running: 16,
            waiting: 64,
            max_tokens: 4096,
            kv: KvKind::F16,
            long_context: false,
        }
    }
}

/// A loaded language model. Dropping it ends its thread, which wipes weights and caches.
pub struct Language {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    /// Made for the first request that needs it.
    grammars: OnceLock<Result<Grammars, GrammarError>>,
    worker: Worker,
    /// For requests that run or wait.
    places: Places,
    /// Longest prompt and answer together, tokens.
    seq_len: usize,
    max_tokens: usize,
}

impl Language {
    /// Builds the model from a GGUF file of `len` bytes, wherever it is.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(file: &dyn Source, len: u64, limits: LanguageLimits) -> Result<Self, LoadError> {
        with_directory(file, len, |gguf| Self::from_gguf(gguf, file, limits))
    }

    fn from_gguf(gguf: &Gguf<'_>, source: &dyn Source, limits: LanguageLimits) -> Result<Self, LoadError> {
        let not = LoadError::Unservable;
        let tokenizer =
            Tokenizer::from_gguf(gguf).map_err(|_| not("its tokenizer is none that is known here"))?;
        let template = gguf.text("tokenizer.chat_template")?;
        let template = template.map(ChatTemplate::new).transpose();
        let template = template.map_err(|_| not("its chat template does not compile"))?;
        let threads = limits.threads.or_else(|| available_parallelism().ok().map(usize::from)).unwrap_or(1);
        let options = Options { long_context: limits.long_context, ..Options::new(threads) };
        let model = Model::load(gguf, source, options).map_err(|_| not(NO_MODEL))?;
        let seq_len = model.architecture().seq_len.min(limits.positions);
        let engine = EngineOptions {
            kv: limits.kv,
            positions: limits.positions,
            running: limits.running,
            ..EngineOptions::default()
        };
        Ok(Self {
            tokenizer,
            template,
            grammars: OnceLock::new(),
            worker: Worker::start(Engine::new(model, engine))?,
            places: Places::new(limits.running + limits.waiting),
            seq_len,
            max_tokens: limits.max_tokens,
        })
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Compiles what an answer has to follow. What is wrong with it is not said: that would cite it.
    fn constraint(&self, grammar: Grammar<'_>) -> Result<Constraint, Refusal> {
        let grammars = self.grammars.get_or_init(|| Grammars::new(&self.tokenizer));
        let grammars =
            grammars.as_ref().map_err(|_| Refusal(400, "this model cannot follow a response_format"))?;
        grammars.compile(grammar).map_err(|error| match error {
            GrammarError::TooLong(_) => Refusal(400, "response_format takes at most 64 KiB"),
            _ => Refusal(
                400,
                "response_format is malformed, contradicts itself, or uses what is not supported (docs/clients.md)",
            ),
        })
    }

    /// Starts a request. The place is held for as long as the answer is wanted.
    fn generate(&self, request: Request, tell: Tell) -> Result<Place, Refusal> {
        if request.prompt.is_empty() {
            return Err(Refusal(400, "the prompt is empty"));
        }
        if request.prompt.len() >= self.seq_len {
            return Err(Refusal(400, "the prompt is longer than the context of this model"));
        }
        let place =
            self.places.take().ok_or(Refusal(503, "too many requests wait at the moment; try again"))?;
        if self.worker.generate(request, tell) {
            Ok(place)
        } else {
            Err(Refusal(503, "the model is being taken away"))
        }
    }

    /// Forgets what was kept of a connection that ended.
    pub fn forget(&self, tenant: u64) {
        self.worker.forget(tenant);
    }

    /// Ends all answers at once; nothing new is begun.
    pub fn end(&self) {
        self.worker.end();
    }

    /// Tokens of a conversation, up to where the assistant speaks.
    ///
    /// The whole text is encoded as the model's own code does it, unless a client wrote the text of a control token:
    /// then what clients wrote is encoded apart, as mere text.
    fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, Refusal> {
        const REFUSED: Refusal = Refusal(400, "the model's chat template refuses these messages");
        let Some(template) = &self.template else {
            return Err(Refusal(400, "this model has no chat template; use /v1/completions"));
        };
        let vocabulary = self.tokenizer.vocabulary();
        let text_of = |token: Option<u32>| token.map_or("", |token| vocabulary.text(token));
        // Control tokens count in what the template writes; it writes the one at the beginning itself.
        let control = Encode { add_special: false, parse_special: true };
        let encode = |text: &str, options| {
            self.tokenizer.encode(text, options).map_err(|_| Refusal(400, "the text cannot be encoded"))
        };
        let context = ChatContext {
            bos_token: text_of(vocabulary.bos()),
            eos_token: text_of(vocabulary.eos()),
            add_generation_prompt: true,
            // The clock is the host's, and an answer depends on the request alone.
            today: "",
        };
        let plain = |message: &Message| {
            Ok::<_, Refusal>(
                encode(&message.content, control)? == encode(&message.content, Encode::default())?,
            )
        };
        if messages.iter().map(plain).try_fold(true, |all, plain| plain.map(|plain| all && plain))? {
            let mut text = template.render(messages, context).map_err(|_| REFUSED)?;
            let tokens = encode(&text, control);
            zeroize::Zeroize::zeroize(&mut text);
            return tokens;
        }
        let marked: Vec<Message> = (0..messages.len())
            .map(|at| Message { role: messages[at].role.clone(), content: format!("{MARK}{at}{MARK}") })
            .collect();
        let text = template.render(&marked, context).map_err(|_| REFUSED)?;
        let mut tokens = Vec::new();
        for (at, piece) in text.split(MARK).enumerate() {
            // Between two marks stands the number of a message; the template wrote the rest.
            let message = piece.parse::<usize>().ok().and_then(|number| messages.get(number));
            match message.filter(|_| at % 2 == 1) {
                Some(message) => tokens.extend(encode(&message.content, Encode::default())?),
                None => tokens.extend(encode(piece, control)?),
            }
        }
        Ok(tokens)
    }
}

/// Stands around a message's number: a character for private use, which no template has.
const MARK: char = '\u{e000}';
