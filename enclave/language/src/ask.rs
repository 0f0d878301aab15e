//! Requests as `OpenAI`'s clients write them, with the fields other engines add.
//!
//! A field that would change the answer and is not known here is refused: to ignore it would give another answer than
//! was asked for.

use std::collections::BTreeMap;

use adyton_inference::chat::Message;
use adyton_inference::lm::{Grammar, Mirostat, Request, Sampling, StopStrings};
use adyton_inference::tokenizer::Encode;
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroize as _;

use crate::place::Place;
use crate::{Form, Language, Refusal, Tell};

const MAX_MESSAGES: usize = 4096;
const MAX_STOPS: usize = 16;
const MAX_STOP_LEN: usize = 1024;
const MAX_BIASES: usize = 1024;
/// Likeliest tokens told beside each token.
const MAX_LOGPROBS: usize = 20;
/// What `OpenAI` gives when a completion does not say how much it wants.
const DEFAULT_TOKENS: usize = 16;
/// Seeds that every reader of JSON holds exactly.
const SEED_BITS: u64 = (1 << 53) - 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    model: String,
    prompt: Option<Prompt>,
    messages: Option<Vec<Turn>>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<usize>,
    min_p: Option<f32>,
    typical_p: Option<f32>,
    mirostat: Option<u8>,
    mirostat_tau: Option<f32>,
    mirostat_eta: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    logit_bias: Option<BTreeMap<u32, f32>>,
    logprobs: Option<WantedLogprobs>,
    top_logprobs: Option<usize>,
    seed: Option<i64>,
    stop: Option<Stops>,
    response_format: Option<ResponseFormat>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    n: Option<usize>,
    /// Says who the client's own user is; nobody here needs to know.
    #[serde(rename = "user")]
    _user: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// Conversations say whether, completions how many.
#[derive(Deserialize, Clone, Copy)]
#[serde(untagged)]
enum WantedLogprobs {
    Whether(bool),
    Count(usize),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    role: Role,
    content: Content,
    #[serde(rename = "name")]
    _name: Option<String>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Role {
    System,
    Developer,
    User,
    Assistant,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, tag = "type", rename_all = "lowercase")]
enum Part {
    Text { text: String },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stops {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// What the answer has to follow. `regex` and `grammar` are what other engines add.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: Follow,
    json_schema: Option<JsonSchema>,
    regex: Option<String>,
    grammar: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Follow {
    Text,
    JsonObject,
    JsonSchema,
    Regex,
    Grammar,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonSchema {
    schema: Box<RawValue>,
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "description")]
    _description: Option<String>,
    /// Schemas are followed strictly in any case.
    #[serde(rename = "strict")]
    _strict: Option<bool>,
}

impl ResponseFormat {
    /// `Ok(None)` for a text that follows nothing.
    fn grammar(&self) -> Result<Option<Grammar<'_>>, Refusal> {
        const MISSING: Refusal =
            Refusal(400, "response_format has a type and lacks what belongs to it, or has more");
        let Self { kind, json_schema, regex, grammar } = self;
        Ok(Some(match (kind, json_schema, regex, grammar) {
            (Follow::Text, None, None, None) => return Ok(None),
            (Follow::JsonObject, None, None, None) => Grammar::JsonSchema(r#"{"type": "object"}"#),
            (Follow::JsonSchema, Some(json), None, None) => Grammar::JsonSchema(json.schema.get()),
            (Follow::Regex, None, Some(regex), None) => Grammar::Regex(regex),
            (Follow::Grammar, None, None, Some(grammar)) => Grammar::Lark(grammar),
            _ => return Err(MISSING),
        }))
    }
}

/// A request that was understood.
pub struct Ask {
    body: Body,
    form: Form,
}

impl Ask {
    /// Reads the body of a request for `form`.
    ///
    /// # Errors
    /// [`Refusal`]: malformed, or of another form.
    pub fn parse(body: &[u8], form: Form) -> Result<Self, Refusal> {
        const MALFORMED: Refusal = Refusal(
            400,
            "the request is not understood: a field is missing, of the wrong type, or not known here (docs/clients.md)",
        );
        let body: Body = serde_json::from_slice(body).map_err(|_| MALFORMED)?;
        let fits = match form {
            Form::Chat => body.messages.is_some() && body.prompt.is_none(),
            Form::Completion => body.prompt.is_some() && body.messages.is_none(),
        };
        if !fits {
            return Err(MALFORMED);
        }
        if body.n.is_some_and(|n| n != 1) {
            return Err(Refusal(400, "n must be 1: ask again for another answer"));
        }
        Ok(Self { body, form })
    }

    /// The model that is wanted.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.body.model
    }

    /// The interface it was sent to.
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Whether the answer is wanted as it comes.
    #[must_use]
    pub fn stream(&self) -> bool {
        self.body.stream
    }

    /// Whether a stream ends with the number of tokens.
    pub(crate) fn include_usage(&self) -> bool {
        self.body.stream_options.as_ref().is_some_and(|options| options.include_usage)
    }

    /// The seed the client asks for.
    pub(crate) fn wanted_seed(&self) -> Option<u64> {
        self.body.seed.map(i64::cast_unsigned)
    }

    /// The seed of the answer: the client's, or one drawn here, which the answer then tells.
    ///
    /// # Errors
    /// [`Refusal`]: the system gives no randomness.
    pub fn seed(&self) -> Result<u64, Refusal> {
        if let Some(seed) = self.wanted_seed() {
            return Ok(seed);
        }
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|_| Refusal(500, "internal error"))?;
        Ok(u64::from_le_bytes(bytes) & SEED_BITS)
    }

    /// Strings that end the answer.
    pub(crate) fn stops(&self) -> Result<StopStrings, Refusal> {
        let stops = match &self.body.stop {
            None => Vec::new(),
            Some(Stops::One(stop)) => vec![stop.clone()],
            Some(Stops::Many(stops)) => stops.clone(),
        };
        if stops.len() > MAX_STOPS || stops.iter().any(|stop| stop.len() > MAX_STOP_LEN) {
            return Err(Refusal(400, "stop takes at most 16 texts of at most 1024 bytes"));
        }
        Ok(StopStrings::new(stops))
    }

    /// How many of the likeliest tokens are wanted beside each token; `None` where nothing is said of likelihoods.
    fn logprobs(&self) -> Result<Option<usize>, Refusal> {
        use WantedLogprobs::{Count, Whether};
        const WRONG: Refusal = Refusal(
            400,
            "logprobs is true with top_logprobs up to 20 in conversations, and a number up to 20 in completions",
        );
        let wanted = match (self.form, self.body.logprobs, self.body.top_logprobs) {
            (_, None, None) | (Form::Chat, Some(Whether(false)), None) => None,
            (Form::Chat, Some(Whether(true)), top) => Some(top.unwrap_or(0)),
            (Form::Completion, Some(Count(n)), None) => Some(n),
            _ => return Err(WRONG),
        };
        if wanted.is_some_and(|n| n > MAX_LOGPROBS) { Err(WRONG) } else { Ok(wanted) }
    }

    fn sampling(&self, seed: u64) -> Result<Sampling, Refusal> {
        let body = &self.body;
        let default = Sampling::default();
        let within = |value: Option<f32>, default: f32, least: f32, most: f32| {
            let value = value.unwrap_or(default);
            let refusal = Refusal(400, "a sampling parameter is out of its range (docs/clients.md)");
            if (least..=most).contains(&value) { Ok(value) } else { Err(refusal) }
        };
        let mirostat = match (body.mirostat.unwrap_or(0), body.mirostat_tau, body.mirostat_eta) {
            (0, None, None) => None,
            (2, tau, eta) => {
                Some(Mirostat { tau: within(tau, 5.0, 0.0, 16.0)?, eta: within(eta, 0.1, 0.0, 1.0)? })
            }
            _ => return Err(Refusal(400, "mirostat is 0, or 2 with mirostat_tau and mirostat_eta")),
        };
        let biases = body.logit_bias.iter().flatten();
        let logit_bias = biases.map(|(token, bias)| Ok((*token, within(Some(*bias), 0.0, -100.0, 100.0)?)));
        if body.logit_bias.as_ref().is_some_and(|biases| biases.len() > MAX_BIASES) {
            return Err(Refusal(400, "logit_bias takes at most 1024 tokens"));
        }
        Ok(Sampling {
            temperature: within(body.temperature, 1.0, 0.0, 2.0)?,
            top_k: body.top_k.unwrap_or(default.top_k),
            top_p: within(body.top_p, default.top_p, 0.0, 1.0)?,
            min_p: within(body.min_p, default.min_p, 0.0, 1.0)?,
            typical_p: within(body.typical_p, default.typical_p, 0.0, 1.0)?,
            repetition_penalty: within(body.repetition_penalty, default.repetition_penalty, 0.01, 10.0)?,
            presence_penalty: within(body.presence_penalty, default.presence_penalty, -2.0, 2.0)?,
            frequency_penalty: within(body.frequency_penalty, default.frequency_penalty, -2.0, 2.0)?,
            logit_bias: logit_bias.collect::<Result<_, _>>()?,
            mirostat,
            seed,
            ..default
        })
    }

    fn max_tokens(&self, language: &Language) -> Result<usize, Refusal> {
        let default = match self.form {
            Form::Chat => language.max_tokens,
            Form::Completion => DEFAULT_TOKENS.min(language.max_tokens),
        };
        let wanted = self.body.max_completion_tokens.or(self.body.max_tokens).unwrap_or(default);
        if (1..=language.max_tokens).contains(&wanted) {
            Ok(wanted)
        } else {
            Err(Refusal(400, "max_tokens is not within the limits of this service"))
        }
    }

    /// Starts the answer for `tenant`; also tells the number of tokens of the prompt. Texts are wiped once encoded.
    pub(crate) fn begin(
        mut self,
        language: &Language,
        (tenant, seed): (u64, u64),
        tell: Tell,
    ) -> Result<(Place, usize), Refusal> {
        let (sampling, max_tokens) = (self.sampling(seed)?, self.max_tokens(language)?);
        let logprobs = self.logprobs()?;
        let format = self.body.response_format.as_ref();
        let grammar = format.map(ResponseFormat::grammar).transpose()?.flatten();
        let constraint = grammar.map(|grammar| language.constraint(grammar)).transpose()?;
        let prompt = match (self.body.prompt.take(), self.body.messages.take()) {
            (Some(Prompt::Tokens(tokens)), _) => tokens,
            (Some(Prompt::Text(mut text)), _) => {
                let options = Encode { add_special: true, parse_special: true };
                let tokens = language.tokenizer.encode(&text, options);
                text.zeroize();
                tokens.map_err(|_| Refusal(400, "the text cannot be encoded"))?
            }
            (None, turns) => {
                let turns = turns.unwrap_or_default();
                if turns.is_empty() || turns.len() > MAX_MESSAGES {
                    return Err(Refusal(400, "messages must hold 1 to 4096 turns"));
                }
                let mut messages: Vec<Message> = turns.into_iter().map(Turn::into_message).collect();
                let tokens = language.encode_chat(&messages);
                messages.iter_mut().for_each(|message| message.content.zeroize());
                tokens?
            }
        };
        let len = prompt.len();
        let known = language.tokenizer.vocabulary();
        if prompt.iter().any(|token| *token as usize >= known.len()) {
            return Err(Refusal(400, "the prompt has a token that the model does not have"));
        }
        let stop_tokens = known.end_of_turn().to_vec();
        let request = Request {
            tenant,
            prompt: prompt.into(),
            max_tokens,
            stop_tokens,
            sampling,
            logprobs,
            constraint,
        };
        Ok((language.generate(request, tell)?, len))
    }
}

impl Turn {
    fn into_message(self) -> Message {
        let role = match self.role {
            Role::System | Role::Developer => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        let content = match self.content {
            Content::Text(text) => text,
            Content::Parts(parts) => parts.into_iter().map(|Part::Text { text }| text).collect(),
        };
        Message { role: role.to_owned(), content }
    }
}
