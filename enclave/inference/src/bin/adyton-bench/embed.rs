//! Vectors of texts.

use std::path::Path;
use std::time::Instant;

use adyton_inference::encoder::{Encoder, Pooling};
use adyton_inference::tokenizer::{Encode, Tokenizer};
use adyton_model::encoder::{EncoderConfig, EncoderTensors, WordPieceFile};
use serde_json::{Value, json};

use crate::{AnyError, Run};

/// A number or flag in a JSON file that may be absent.
fn setting(folder: &Path, file: &str, key: &str) -> Value {
    let text = std::fs::read(folder.join(file)).unwrap_or_default();
    let json: Value = serde_json::from_slice(&text).unwrap_or_default();
    json[key].clone()
}

/// The vectors; or, with `repetitions`, how long they took each time.
pub(crate) fn embed(run: &Run, json_file: &Path, repetitions: usize) -> Result<Value, AnyError> {
    let read = |file: &str| {
        std::fs::read(run.model.join(file))
            .map_err(|error| format!("{}/{file}: {error}", run.model.display()))
    };
    let config = EncoderConfig::from_json(&read("config.json")?)?;
    let tokenizer = Tokenizer::from_word_piece(&WordPieceFile::from_json(&read("tokenizer.json")?)?)?;
    let weights = read("model.safetensors")?;
    let options = run.machine.options()?;
    let encoder = Encoder::load(&config, &EncoderTensors::parse(&weights)?, options)?;
    // Truncation and pooling are settings of the folder, not of tokenizer.json.
    let cls = setting(&run.model, "1_Pooling/config.json", "pooling_mode_cls_token").as_bool() == Some(true);
    let longest = setting(&run.model, "sentence_bert_config.json", "max_seq_length").as_u64();
    let longest = longest.and_then(|longest| usize::try_from(longest).ok()).unwrap_or(usize::MAX);
    let longest = longest.clamp(2, encoder.max_tokens().max(2));
    let texts: Vec<String> = serde_json::from_slice(&std::fs::read(json_file)?)?;
    let mut all = Vec::new();
    for text in &texts {
        let mut tokens = tokenizer.encode(text, Encode { add_special: true, parse_special: false })?;
        if tokens.len() > longest
            && let Some(last) = tokens.last().copied()
        {
            tokens.truncate(longest - 1);
            tokens.push(last);
        }
        all.push(tokens);
    }
    let pooling = if cls { Pooling::Cls } else { Pooling::Mean };
    let vectors = encoder.embed(&all, pooling)?;
    if repetitions == 0 {
        return Ok(json!(vectors));
    }
    let mut samples = Vec::new();
    for _ in 0..repetitions {
        let start = Instant::now();
        encoder.embed(&all, pooling)?;
        samples.push(start.elapsed().as_secs_f64());
    }
    Ok(json!({ "n_texts": all.len(), "n_threads": run.machine.threads, "samples_s": samples }))
}
