//! Tokens a second.

use std::time::Instant;

use adyton_inference::lm::{KvCache, KvKind, Model, Sequence, Step, Wanted};
use serde_json::{Value, json};

use crate::{AnyError, Run, file};

/// Tokens that no two repetitions share.
pub(crate) struct Tokens {
    state: u64,
    vocab_size: u64,
}

impl Tokens {
    pub(crate) fn new(seed: u64, vocab_size: u64) -> Self {
        Self { state: seed, vocab_size }
    }

    fn next(&mut self) -> u32 {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.state >> 33) % self.vocab_size).unwrap_or(0)
    }

    pub(crate) fn take(&mut self, n: usize) -> Vec<u32> {
        (0..n).map(|_| self.next()).collect()
    }
}

/// The largest memory this process ever held, bytes; 0 where the system does not say.
fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|text| text.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// CPU time of all threads so far, seconds; tells engines apart on a machine that others use too.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name in parentheses: utime and stime are the 12th and 13th field, in hundredths of a second.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Tokens a second of wall time and of CPU time.
#[derive(Clone, Copy)]
struct Rate {
    wall: f64,
    cpu: f64,
}

/// A running measurement.
struct Watch {
    start: Instant,
    cpu_s: f64,
}

impl Watch {
    fn start() -> Self {
        Self { start: Instant::now(), cpu_s: cpu_s() }
    }

    #[expect(clippy::cast_precision_loss, reason = "token counts")]
    fn rate(&self, tokens: usize) -> Rate {
        let (wall, cpu) = (self.start.elapsed().as_secs_f64(), cpu_s() - self.cpu_s);
        Rate { wall: tokens as f64 / wall, cpu: tokens as f64 / cpu.max(0.01) }
    }
}

fn prompt(model: &Model, cache: &mut KvCache, tokens: &[u32]) -> Result<Rate, AnyError> {
    let mut sequence = Sequence::default();
    let watch = Watch::start();
    let step = Step { sequence: &mut sequence, tokens, wanted: Wanted::Last };
    model.forward(cache, &mut [step])?;
    let rate = watch.rate(tokens.len());
    cache.release(sequence);
    Ok(rate)
}

fn generate(
    model: &Model,
    cache: &mut KvCache,
    tokens: &mut Tokens,
    (n, n_sequences): (usize, usize),
    greedy: bool,
) -> Result<Rate, AnyError> {
    let mut sequences: Vec<Sequence> = (0..n_sequences).map(|_| Sequence::default()).collect();
    let watch = Watch::start();
    for _ in 0..n {
        let next = tokens.take(n_sequences);
        let mut steps: Vec<Step<'_>> = sequences
            .iter_mut()
            .zip(next.chunks(1))
            .map(|(sequence, tokens)| Step { sequence, tokens, wanted: Wanted::Last })
            .collect();
        if greedy {
            model.forward_largest(cache, &mut steps)?;
        } else {
            model.forward(cache, &mut steps)?;
        }
    }
    let rate = watch.rate(n * n_sequences);
    sequences.into_iter().for_each(|sequence| cache.release(sequence));
    Ok(rate)
}

pub(crate) fn speed(
    run: &Run,
    (n_prompt, n_gen, n_sequences): (usize, usize, usize),
    repetitions: usize,
    greedy: bool,
) -> Result<Value, AnyError> {
    let start = Instant::now();
    let model = file::load(run)?;
    let load_s = start.elapsed().as_secs_f64();
    let vocab_size = model.architecture().vocab_size as u64;
    let seed = u64::from(std::process::id()) | 1;
    let mut tokens = Tokens::new(seed, vocab_size);
    let positions = n_prompt.max(n_gen * n_sequences + 16 * n_sequences);
    let mut cache = model.cache(run.kv.unwrap_or(KvKind::F16), positions);
    let mut answers = Vec::new();
    for (n_prompt, n_gen) in [(n_prompt, 0), (0, n_gen)] {
        if n_prompt + n_gen == 0 {
            continue;
        }
        // Once unmeasured: pages are touched, threads are awake.
        let mut samples = Vec::new();
        for repetition in 0..=repetitions {
            let sample = if n_gen == 0 {
                prompt(&model, &mut cache, &tokens.take(n_prompt))?
            } else {
                let n = if repetition == 0 { n_gen.min(4) } else { n_gen };
                generate(&model, &mut cache, &mut tokens, (n, n_sequences), greedy)?
            };
            if repetition > 0 {
                samples.push(sample);
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "repetitions")]
        let average = samples.iter().map(|rate: &Rate| rate.wall).sum::<f64>() / samples.len() as f64;
        answers.push(json!({
            "n_prompt": n_prompt,
            "n_gen": n_gen,
            "n_sequences": if n_gen == 0 { 1 } else { n_sequences },
            "greedy": greedy,
            "screened": model.is_screened(),
            "n_threads": run.machine.threads,
            "avg_ts": average,
            "samples_ts": samples.iter().map(|rate| rate.wall).collect::<Vec<_>>(),
            "samples_per_cpu_s": samples.iter().map(|rate| rate.cpu).collect::<Vec<_>>(),
            "load_s": load_s,
            "peak_rss_bytes": peak_rss_bytes(),
            "kernels": model.path().to_string(),
        }));
    }
    Ok(Value::Array(answers))
}
