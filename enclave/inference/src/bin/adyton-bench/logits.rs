//! Answers that can be compared with another engine's.

use std::path::Path;

use adyton_inference::lm::{KvKind, Sequence, Step, Wanted};
use adyton_inference::tokenizer::Encode;
use serde_json::{Value, json};

use crate::{AnyError, Run, file};

/// Number of the largest logit; of equals the first.
pub(crate) fn best(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    u32::try_from(best).unwrap_or(0)
}

pub(crate) fn logits(run: &Run, tokens: &[u32], greedy: usize) -> Result<Value, AnyError> {
    let model = file::load(run)?;
    let mut cache = model.cache(run.kv.unwrap_or(KvKind::F32), tokens.len() + greedy);
    let mut sequence = Sequence::default();
    let step = Step { sequence: &mut sequence, tokens, wanted: Wanted::Last };
    let last = model.forward(&mut cache, &mut [step])?;
    let mut continuation = Vec::new();
    let mut next = best(&last);
    for _ in 0..greedy {
        continuation.push(next);
        if continuation.len() < greedy {
            let step = Step { sequence: &mut sequence, tokens: &[next], wanted: Wanted::Last };
            next = best(&model.forward(&mut cache, &mut [step])?);
        }
    }
    Ok(json!({ "last_logits": last, "greedy_tokens": continuation }))
}

pub(crate) fn tokenize(model: &Path, text_file: &Path, special: bool) -> Result<Value, AnyError> {
    let text =
        std::fs::read_to_string(text_file).map_err(|error| format!("{}: {error}", text_file.display()))?;
    let options = Encode { add_special: special, parse_special: special };
    Ok(json!(file::tokenizer(model)?.encode(&text, options)?))
}
