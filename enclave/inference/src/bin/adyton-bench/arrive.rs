//! How long requests that arrive together wait for their first tokens, through the scheduler.

use std::time::Instant;

use adyton_inference::lm::{Engine, EngineOptions, Event, KvKind, Request, RequestId, Sampling};
use serde_json::{Value, json};

use crate::speed::Tokens;
use crate::{AnyError, Run, file};

/// The value below which `share` of the sorted samples lie.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small counts"
)]
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let index = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or(0.0)
}

pub(crate) fn arrive(
    run: &Run,
    n_prompt: usize,
    n_gen: usize,
    n_sequences: usize,
    repetitions: usize,
) -> Result<Value, AnyError> {
    let model = file::load(run)?;
    let kernels = model.path().to_string();
    let seed = u64::from(std::process::id()) | 1;
    let mut tokens = Tokens::new(seed, model.architecture().vocab_size as u64);
    let options = EngineOptions {
        kv: run.kv.unwrap_or(KvKind::F16),
        positions: n_sequences * ((n_prompt + n_gen).next_multiple_of(16) + 16),
        running: n_sequences,
        kept: 0,
        ..EngineOptions::default()
    };
    let mut engine = Engine::new(model, options);
    let (mut first_s, mut rates) = (Vec::new(), Vec::new());
    // Once unmeasured: pages are touched, threads are awake.
    for repetition in 0..=repetitions {
        let request = |prompt| Request {
            tenant: 0,
            prompt,
            max_tokens: n_gen,
            stop_tokens: Vec::new(),
            sampling: Sampling::default(),
            logprobs: None,
            constraint: None,
        };
        let start = Instant::now();
        let mut waiting = Vec::<RequestId>::new();
        for _ in 0..n_sequences {
            waiting.push(engine.submit(request(tokens.take(n_prompt).into()))?);
        }
        let mut first = Vec::new();
        while !engine.is_idle() {
            for event in engine.step()? {
                let Event::Token(id, ..) = event else { continue };
                if waiting.contains(&id) {
                    waiting.retain(|other| *other != id);
                    first.push(start.elapsed().as_secs_f64());
                }
            }
        }
        if repetition > 0 {
            #[expect(clippy::cast_precision_loss, reason = "token counts")]
            rates.push((n_sequences * (n_prompt + n_gen)) as f64 / start.elapsed().as_secs_f64());
            first_s.extend(first);
        }
    }
    first_s.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "repetitions")]
    let average = rates.iter().sum::<f64>() / rates.len() as f64;
    Ok(json!({
        "n_prompt": n_prompt,
        "n_gen": n_gen,
        "n_sequences": n_sequences,
        "n_threads": run.machine.threads,
        "first_token_p50_s": quantile(&first_s, 0.5),
        "first_token_p95_s": quantile(&first_s, 0.95),
        "avg_total_ts": average,
        "kernels": kernels,
    }))
}
