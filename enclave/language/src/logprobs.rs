//! How likely the tokens of an answer were, in the two shapes of `OpenAI`'s API.

use adyton_inference::lm::Logprobs;
use adyton_inference::tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::Form;

/// What stands for minus infinity, which JSON does not have.
const NEVER: f64 = -9999.0;

/// The tokens that belong to the next bytes of an answer.
#[derive(Default)]
pub(crate) struct Likely {
    tokens: Vec<(u32, Logprobs)>,
    /// Characters of the tokens before them.
    offset: usize,
}

impl Likely {
    pub(crate) fn push(&mut self, token: u32, logprobs: Logprobs) {
        self.tokens.push((token, logprobs));
    }

    /// What is to be said of the tokens since the last time; null where there are none.
    pub(crate) fn take(&mut self, form: Form, tokenizer: &Tokenizer) -> Value {
        let tokens = std::mem::take(&mut self.tokens);
        if tokens.is_empty() {
            return Value::Null;
        }
        match form {
            Form::Chat => {
                let content: Vec<Value> = tokens
                    .iter()
                    .map(|(token, logprobs)| {
                        let mut entry = described(tokenizer, *token, logprobs.chosen);
                        let top = logprobs
                            .top
                            .iter()
                            .map(|(token, logprob)| described(tokenizer, *token, *logprob));
                        entry["top_logprobs"] = top.collect();
                        entry
                    })
                    .collect();
                json!({"content": content, "refusal": null})
            }
            Form::Completion => {
                let texts: Vec<String> = tokens.iter().map(|(token, _)| text(tokenizer, *token)).collect();
                let mut offsets = Vec::with_capacity(texts.len());
                for text in &texts {
                    offsets.push(self.offset);
                    self.offset += text.chars().count();
                }
                let top = tokens.iter().map(|(_, logprobs)| {
                    let top = logprobs.top.iter();
                    let named = top.map(|(token, logprob)| (text(tokenizer, *token), finite(*logprob)));
                    named.collect::<serde_json::Map<_, _>>()
                });
                json!({
                    "tokens": texts,
                    "token_logprobs": tokens.iter().map(|(_, logprobs)| finite(logprobs.chosen)).collect::<Vec<_>>(),
                    "top_logprobs": top.collect::<Vec<_>>(),
                    "text_offset": offsets,
                })
            }
        }
    }
}

fn finite(logprob: f64) -> Value {
    logprob.max(NEVER).into()
}

/// A token alone; bytes that are no characters alone become replacement characters.
fn text(tokenizer: &Tokenizer, token: u32) -> String {
    String::from_utf8_lossy(&tokenizer.token_bytes(token, true)).into_owned()
}

fn described(tokenizer: &Tokenizer, token: u32, logprob: f64) -> Value {
    json!({
        "token": text(tokenizer, token),
        "logprob": finite(logprob),
        "bytes": tokenizer.token_bytes(token, true),
    })
}
