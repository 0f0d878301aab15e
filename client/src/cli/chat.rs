//! `adyton chat` and `adyton complete`: texts to a verified enclave, answers as they come, receipts verified.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;

use adyton_client::{Channel, Exchange, ReceiptFile};
use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::output::{INTEGRITY, banner};
use super::verify::{ServiceArgs, open, session_json};
use super::{Failure, Output, Printed};

const MAX_PROMPT_LEN: u64 = 8 << 20;

#[derive(Args)]
#[command(after_help = "Example:\n  adyton chat enclave.example:8443 --message 'Why is the sky blue?'\n\n\
                  Without --message each line of standard input is a turn, and the conversation goes on.")]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    service: ServiceArgs,
    /// What to say; without it the lines of standard input.
    #[arg(long, short, env = "ADYTON_MESSAGE")]
    message: Option<String>,
    /// What the model is told before the conversation.
    #[arg(long, env = "ADYTON_SYSTEM")]
    system: Option<String>,
    #[command(flatten)]
    sampling: SamplingArgs,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  adyton complete enclave.example:8443 --prompt 'Once upon a time' --max-tokens 64\n\n\
                  Without --prompt standard input is the prompt."
)]
pub(crate) struct CompleteArgs {
    #[command(flatten)]
    service: ServiceArgs,
    /// The text to continue; without it standard input.
    #[arg(long, short, env = "ADYTON_PROMPT")]
    prompt: Option<String>,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// How the answer is chosen, and what is kept of it.
#[derive(Args)]
struct SamplingArgs {
    /// The model's name; without it the one that is served.
    #[arg(long, env = "ADYTON_MODEL")]
    model: Option<String>,
    /// Tokens of an answer, at most.
    #[arg(long, env = "ADYTON_MAX_TOKENS")]
    max_tokens: Option<u32>,
    /// 0 always chooses the likeliest token; the service's default is 1.
    #[arg(long, env = "ADYTON_TEMPERATURE")]
    temperature: Option<f32>,
    /// Only the likeliest tokens of this total probability.
    #[arg(long, env = "ADYTON_TOP_P")]
    top_p: Option<f32>,
    /// Only so many of the likeliest tokens.
    #[arg(long, env = "ADYTON_TOP_K")]
    top_k: Option<u32>,
    /// The same request with the same seed gives the same answer.
    #[arg(long, env = "ADYTON_SEED")]
    seed: Option<u32>,
    /// A text that ends the answer; may be given more than once.
    #[arg(long)]
    stop: Vec<String>,
    /// The answer is a JSON value that fulfils the schema in this file.
    #[arg(long, value_name = "FILE", env = "ADYTON_JSON_SCHEMA")]
    json_schema: Option<PathBuf>,
    /// Keep session, answers and receipts in this file, for `adyton receipt verify`.
    #[arg(long, env = "ADYTON_RECEIPT")]
    receipt: Option<PathBuf>,
}

impl SamplingArgs {
    /// The schema as it is written: answers have its order.
    fn schema(&self) -> Result<Option<Box<RawValue>>, Failure> {
        let Some(path) = &self.json_schema else { return Ok(None) };
        let unusable = |reason: &dyn std::fmt::Display| {
            Failure::own(format!("cannot use {} as a JSON schema: {reason}", path.display()))
        };
        let text = std::fs::read_to_string(path).map_err(|error| unusable(&error))?;
        serde_json::from_str(&text).map(Some).map_err(|error| unusable(&error))
    }

    /// The fields of a request that were asked for.
    fn body(&self, model: &str) -> serde_json::Map<String, Value> {
        let fields = [
            ("model", Some(json!(model))),
            ("stream", Some(json!(true))),
            ("stream_options", Some(json!({"include_usage": true}))),
            ("max_tokens", self.max_tokens.map(Value::from)),
            ("temperature", self.temperature.map(Value::from)),
            ("top_p", self.top_p.map(Value::from)),
            ("top_k", self.top_k.map(Value::from)),
            ("seed", self.seed.map(Value::from)),
            ("stop", (!self.stop.is_empty()).then(|| json!(self.stop))),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// A request as it is sent.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    fields: serde_json::Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<ResponseFormat<'a>>,
}

#[derive(Serialize)]
struct ResponseFormat<'a> {
    r#type: &'static str,
    json_schema: JsonSchema<'a>,
}

#[derive(Serialize)]
struct JsonSchema<'a> {
    name: &'static str,
    schema: &'a RawValue,
}

impl<'a> ResponseFormat<'a> {
    fn new(schema: &'a RawValue) -> Self {
        Self { r#type: "json_schema", json_schema: JsonSchema { name: "answer", schema } }
    }
}

/// A session with a language model.
struct Talk<'a> {
    channel: Channel,
    sampling: &'a SamplingArgs,
    output: &'a Output,
    model: String,
    schema: Option<Box<RawValue>>,
    exchanges: Vec<Exchange>,
    answers: Vec<Value>,
}

pub(crate) async fn run(args: &ChatArgs, output: &Output) -> Result<Printed, Failure> {
    let mut talk = Talk::begin(&args.service, &args.sampling, output).await?;
    let mut messages = Vec::new();
    messages.extend(args.system.iter().map(|text| json!({"role": "system", "content": text})));
    if let Some(message) = &args.message {
        talk.turn(&mut messages, message).await?;
        return talk.finish();
    }
    let ask = std::io::stdin().is_terminal();
    let mut lines = std::io::stdin().lock().take(MAX_PROMPT_LEN);
    loop {
        if ask {
            // Without a terminal to write to nobody waits for it.
            let _ = std::io::stderr().write_all(b"> ");
        }
        let mut line = String::new();
        let read = lines.read_line(&mut line).map_err(|error| unreadable(&error))?;
        match line.trim_end_matches(['\r', '\n']) {
            "" if read == 0 => return talk.finish(),
            "" => (),
            line => talk.turn(&mut messages, line).await?,
        }
    }
}

pub(crate) async fn complete(args: &CompleteArgs, output: &Output) -> Result<Printed, Failure> {
    let mut talk = Talk::begin(&args.service, &args.sampling, output).await?;
    let prompt = if let Some(prompt) = &args.prompt {
        prompt.clone()
    } else {
        let mut prompt = String::new();
        std::io::stdin()
            .lock()
            .take(MAX_PROMPT_LEN)
            .read_to_string(&mut prompt)
            .map_err(|error| unreadable(&error))?;
        prompt
    };
    talk.ask("/v1/completions", ("prompt", json!(prompt)), |choice| choice["text"].as_str()).await?;
    talk.finish()
}

fn unreadable(error: &std::io::Error) -> Failure {
    Failure::own(format!("cannot read standard input: {error}"))
}

fn malformed() -> Failure {
    Failure::with(INTEGRITY, "the answer is malformed")
}

impl<'a> Talk<'a> {
    async fn begin(
        service: &ServiceArgs,
        sampling: &'a SamplingArgs,
        output: &'a Output,
    ) -> Result<Self, Failure> {
        let schema = sampling.schema()?;
        let (mut channel, _) = open(service).await?;
        let model = match &sampling.model {
            Some(model) => model.clone(),
            None => {
                let list: Value = serde_json::from_slice(&channel.get("/v1/models").await?)
                    .map_err(|_| Failure::with(INTEGRITY, "the list of models is malformed"))?;
                let name = list["data"][0]["id"].as_str();
                name.ok_or_else(|| Failure::with(INTEGRITY, "the list of models is malformed"))?.to_owned()
            }
        };
        output.say(&banner(channel.session().report().simulated()));
        Ok(Self { channel, sampling, output, model, schema, exchanges: Vec::new(), answers: Vec::new() })
    }

    /// One turn of a conversation, which grows by it.
    async fn turn(&mut self, messages: &mut Vec<Value>, said: &str) -> Result<(), Failure> {
        messages.push(json!({"role": "user", "content": said}));
        let answer = self
            .ask("/v1/chat/completions", ("messages", json!(messages)), |choice| {
                choice["delta"]["content"].as_str()
            })
            .await?;
        messages.push(json!({"role": "assistant", "content": answer}));
        Ok(())
    }

    /// Asks, shows the answer as it comes, and gives it back once its receipt was verified.
    async fn ask(
        &mut self,
        path: &str,
        (name, value): (&str, Value),
        text_of: impl Fn(&Value) -> Option<&str>,
    ) -> Result<String, Failure> {
        let mut fields = self.sampling.body(&self.model);
        fields.insert(name.to_owned(), value);
        let response_format = self.schema.as_deref().map(ResponseFormat::new);
        let body = serde_json::to_vec(&Body { fields, response_format }).map_err(|_| malformed())?;
        let (mut events, mut shown) = (Events::default(), String::new());
        let output = self.output;
        let answered = self
            .channel
            .ask_streaming(path, body, |piece| {
                for event in events.push(piece) {
                    let text = text_of(&event["choices"][0]).unwrap_or_default();
                    output.say(&printable(text));
                    shown.push_str(text);
                    events.last(&event);
                }
            })
            .await;
        output.say("\n");
        let answered = answered?;
        if !events.done {
            return Err(malformed());
        }
        self.answers.push(json!({
            "text": shown,
            "finish_reason": events.finish,
            "usage": events.usage,
            "seed": events.seed,
        }));
        self.exchanges.push(answered.exchange);
        Ok(shown)
    }

    fn finish(self) -> Result<Printed, Failure> {
        let receipts = self.exchanges.len();
        if let Some(path) = &self.sampling.receipt {
            ReceiptFile::new(self.channel.saved().clone(), self.exchanges).write(path)?;
        }
        let json = json!({
            "model": self.model,
            "answers": self.answers,
            "receipts_verified": receipts,
            "session": session_json(self.channel.session()),
        });
        let plural = if receipts == 1 { "receipt" } else { "receipts" };
        // The answer alone goes to standard output, so that it can be piped on.
        let _ = writeln!(
            std::io::stderr(),
            "{} from a verified enclave, {receipts} {plural} verified",
            self.model
        );
        Ok(Printed::new(json, ""))
    }
}

/// Server-sent events, put together from pieces of any size.
#[derive(Default)]
struct Events {
    rest: Vec<u8>,
    done: bool,
    finish: Value,
    usage: Value,
    seed: Value,
}

impl Events {
    /// The events that `piece` completes.
    fn push(&mut self, piece: &[u8]) -> Vec<Value> {
        self.rest.extend_from_slice(piece);
        let mut events = Vec::new();
        while let Some(end) = self.rest.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = self.rest.drain(..end + 2).collect();
            match event.strip_prefix(b"data: ").map(<[u8]>::trim_ascii) {
                Some(b"[DONE]") => self.done = true,
                Some(data) => events.extend(serde_json::from_slice::<Value>(data).ok()),
                None => (),
            }
        }
        events
    }

    /// Keeps what an event tells of the whole answer.
    fn last(&mut self, event: &Value) {
        let told = |path| event.pointer(path).filter(|value| !value.is_null()).cloned();
        for (kept, path) in [
            (&mut self.finish, "/choices/0/finish_reason"),
            (&mut self.usage, "/usage"),
            (&mut self.seed, "/seed"),
        ] {
            if let Some(value) = told(path) {
                *kept = value;
            }
        }
    }
}

/// Text of a model for a terminal: no control characters but ends of lines and tabs.
fn printable(text: &str) -> String {
    text.chars().filter(|char| !char.is_control() || matches!(char, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_pieces_of_any_size() {
        let text = b"data: {\"choices\":[]}\n\ndata: {\"seed\":7}\n\ndata: [DONE]\n\n";
        for size in 1..=text.len() {
            let mut events = Events::default();
            let seen: Vec<Value> = text.chunks(size).flat_map(|piece| events.push(piece)).collect();
            assert_eq!(seen.len(), 2, "pieces of {size}");
            seen.iter().for_each(|event| events.last(event));
            assert!(events.done);
            assert_eq!((events.seed, events.finish), (json!(7), Value::Null));
        }
    }

    #[test]
    fn a_models_text_does_not_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\r\n\tc\u{7f}\u{9b}"), "a[2Jb\n\tc");
    }
}
