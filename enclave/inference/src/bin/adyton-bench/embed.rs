//! Vectors of texts.

use std::path::Path;
use std::time::Instant;

use adyton_inference::encoder::{Encoder, Pooling};
use adyton_inference::tokenizer::{Encode, Tokenizer};
use adyton_model::encoder::{EncoderConfig, EncoderTensors, PoolingFile};
use serde_json::{Value, json};

use crate::{AnyError, Run, file, folder};

/// An encoder, its vocabulary and the longest text it takes, tokens.
fn load(run: &Run) -> Result<(Encoder, Tokenizer, usize), AnyError> {
    let options = run.options()?;
    let tokenizer = file::tokenizer(&run.model)?;
    if !run.model.is_dir() {
        let encoder =
            file::with_directory(&run.model, |gguf, source| Ok(Encoder::from_gguf(gguf, source, options)?))?;
        let longest = encoder.max_tokens();
        return Ok((encoder, tokenizer, longest));
    }
    let config = EncoderConfig::from_json(&folder::read(&run.model, "config.json")?)?;
    let weights = folder::read(&run.model, "model.safetensors")?;
    let encoder = Encoder::load(&config, &EncoderTensors::parse(&weights)?, options)?;
    // Pooling and truncation are settings of the folder, not of tokenizer.json.
    let pooling = match folder::optional(&run.model, "1_Pooling/config.json")? {
        Some(bytes) => PoolingFile::from_json(&bytes)?,
        None => PoolingFile::Mean,
    };
    let settings: Value = match folder::optional(&run.model, "sentence_bert_config.json")? {
        Some(bytes) => serde_json::from_slice(&bytes)?,
        None => Value::Null,
    };
    let longest = settings["max_seq_length"].as_u64().and_then(|longest| usize::try_from(longest).ok());
    let longest = longest.unwrap_or(usize::MAX).min(encoder.max_tokens());
    let pooling = match pooling {
        PoolingFile::Mean => Pooling::Mean,
        PoolingFile::Cls => Pooling::Cls,
    };
    Ok((encoder.with_pooling(pooling), tokenizer, longest))
}

/// The vectors; or, with `repetitions`, how long they took each time.
pub(crate) fn embed(run: &Run, json_file: &Path, repetitions: usize) -> Result<Value, AnyError> {
    let (encoder, tokenizer, longest) = load(run)?;
    let (longest, pooling) = (longest.max(2), encoder.pooling());
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
