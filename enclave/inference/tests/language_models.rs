//! The small models in `../shared/models`, read in place, against the exact reference and the peer's own distance to it;
//! and bit for bit against themselves under every thread count, batch, chunking and kernel path.
#![allow(clippy::disallowed_methods, reason = "tests read files and the clock")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "tests"
)]
#![allow(clippy::print_stderr, reason = "tests")]

use std::path::{Path as FilePath, PathBuf};

use adyton_inference::arch::Path;
use adyton_inference::lm::{KvKind, Model, Options, Sequence, Step, Wanted};
use adyton_model::gguf::Gguf;
use serde_json::Value;

/// The GGUF models beside this checkout with their reference answers.
fn samples() -> Vec<PathBuf> {
    let root = FilePath::new(env!("CARGO_MANIFEST_DIR"));
    let root = root.ancestors().find(|dir| dir.join("Cargo.lock").exists()).unwrap();
    let folder = root.join("../shared/models");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: {} is missing", folder.display());
        return Vec::new();
    };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| {
        path.extension().is_some_and(|end| end == "gguf") && path.with_extension("json").exists()
    });
    files.sort();
    assert!(!files.is_empty());
    files
}

fn load(bytes: &[u8], options: Options) -> Model {
    let gguf = Gguf::parse(bytes, bytes.len() as u64).unwrap();
    Model::load(&gguf, &bytes, options).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn tokens(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

/// Logits of every position, computed in chunks of the given lengths.
fn all_logits(model: &Model, kind: KvKind, tokens: &[u32], chunk: usize) -> Vec<f32> {
    let mut cache = model.cache(kind, 256);
    let mut sequence = Sequence::default();
    let mut logits = Vec::new();
    for tokens in tokens.chunks(chunk) {
        let step = Step { sequence: &mut sequence, tokens, wanted: Wanted::All };
        logits.extend(model.forward(&mut cache, &mut [step]).unwrap());
    }
    logits
}

fn best(logits: &[f32]) -> u32 {
    (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32
}

fn greedy(model: &Model, kind: KvKind, prompt: &[u32], n: usize) -> Vec<u32> {
    let mut cache = model.cache(kind, 256);
    let mut sequence = Sequence::default();
    let mut next = prompt.to_vec();
    let mut out = Vec::new();
    for _ in 0..n {
        let step = Step { sequence: &mut sequence, tokens: &next, wanted: Wanted::Last };
        next = vec![best(&model.forward(&mut cache, &mut [step]).unwrap())];
        out.push(next[0]);
    }
    out
}

fn kl(reference: &[f32], other: &[f32]) -> f64 {
    let log_softmax = |x: &[f32]| -> Vec<f64> {
        let max = x.iter().copied().fold(f32::MIN, f32::max);
        let total: f64 = x.iter().map(|x| f64::from(x - max).exp()).sum();
        x.iter().map(|x| f64::from(x - max) - total.ln()).collect()
    };
    let (p, q) = (log_softmax(reference), log_softmax(other));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
}

/// Root mean square of the differences of the five best logits of every position.
fn distance(reference: &Value, logit: impl Fn(usize, usize) -> Option<f32>) -> f64 {
    let mut all = Vec::new();
    for (position, top) in reference["top5_per_position"].as_array().unwrap().iter().enumerate() {
        for pair in top.as_array().unwrap() {
            let token = pair[0].as_u64().unwrap() as usize;
            if let Some(got) = logit(position, token) {
                all.push((f64::from(got) - pair[1].as_f64().unwrap()).powi(2));
            }
        }
    }
    (all.iter().sum::<f64>() / all.len() as f64).sqrt()
}

#[test]
fn logits_and_greedy_continuations_against_the_exact_reference() {
    let mut failures = Vec::new();
    for file in samples() {
        let bytes = std::fs::read(&file).unwrap();
        let golden: Value =
            serde_json::from_slice(&std::fs::read(file.with_extension("json")).unwrap()).unwrap();
        let model = load(&bytes, Options::new(2));
        let prompt = tokens(&golden["prompt_tokens"]);
        let vocab = model.architecture().vocab_size;
        let logits = all_logits(&model, KvKind::F32, &prompt, 512);
        let (exact, peer) = (&golden["transformers_f32"], &golden["llama_cpp"]);
        let (want, peer_last) = (floats(&exact["last_logits"]), floats(&peer["last_logits"]));
        let last = &logits[logits.len() - vocab..];
        let max = last.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        let ours = distance(exact, |position, token| Some(logits[position * vocab + token]));
        let theirs = distance(exact, |position, token| {
            let top = peer["top5_per_position"][position].as_array().unwrap();
            let pair = top.iter().find(|pair| pair[0].as_u64() == Some(token as u64))?;
            pair[1].as_f64().map(|x| x as f32)
        });
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        eprintln!(
            "{name}: last logits within {max:.2e}, KL {:.2e} (peer {:.2e}), rms of the best {ours:.2e} (peer {theirs:.2e})",
            kl(&want, last),
            kl(&want, &peer_last),
        );
        let exact_type = name.ends_with("f32") || name.ends_with("f16");
        // Both round activations to 8 bits; at the same step the two distances are draws from one distribution.
        let near = if exact_type { max < 1e-4 } else { ours <= theirs * 1.25 };
        if !near {
            failures.push(format!("{name}: {ours} {theirs} {max}"));
        }
        let got = greedy(&model, KvKind::F32, &prompt, 24);
        let margins = floats(&exact["greedy_margins"]);
        let certain = margins.iter().position(|margin| *margin < 0.5).unwrap_or(24);
        if got[..certain] != tokens(&exact["greedy_tokens"])[..certain] {
            failures.push(format!("{name}: greedy {got:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn the_same_bits_for_every_path_thread_count_chunking_and_batch() {
    for file in samples() {
        let name = file.display();
        let bytes = std::fs::read(&file).unwrap();
        let golden: Value =
            serde_json::from_slice(&std::fs::read(file.with_extension("json")).unwrap()).unwrap();
        let prompt = tokens(&golden["prompt_tokens"]);
        let prompt = &prompt[..37];
        for kind in [KvKind::F32, KvKind::F16, KvKind::Q8] {
            let mut want = Vec::new();
            for path in Path::available() {
                for threads in [1, 3] {
                    let model = load(&bytes, Options { path, ..Options::new(threads) });
                    if want.is_empty() {
                        want = bits(&all_logits(&model, kind, prompt, prompt.len()));
                        continue;
                    }
                    for chunk in [1, 5, 16, prompt.len()] {
                        let got = bits(&all_logits(&model, kind, prompt, chunk));
                        assert!(got == want, "{name} {kind:?} {path} {threads} threads, chunks of {chunk}");
                    }
                    batch_mix(&model, kind, prompt, &want, &format!("{name} {kind:?} {path}"));
                }
            }
        }
    }
}

#[test]
fn rounded_keys_and_values_stay_near_the_exact_ones() {
    for file in samples() {
        let bytes = std::fs::read(&file).unwrap();
        let golden: Value =
            serde_json::from_slice(&std::fs::read(file.with_extension("json")).unwrap()).unwrap();
        let prompt = tokens(&golden["prompt_tokens"]);
        let model = load(&bytes, Options::default());
        let exact = all_logits(&model, KvKind::F32, &prompt, 16);
        let size = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let mut bytes = Vec::new();
        // Where activations are rounded to 8 bits, a small difference may round otherwise and become a larger one.
        let float = file.to_string_lossy().ends_with("f32.gguf");
        let most = if float { [0.0, 0.002, 0.03] } else { [0.0, 0.05, 0.1] };
        for (kind, most) in [KvKind::F32, KvKind::F16, KvKind::Q8].into_iter().zip(most) {
            let got = all_logits(&model, kind, &prompt, 16);
            let apart = size(&mut got.iter().zip(&exact).map(|(a, b)| a - b));
            let apart = apart / size(&mut exact.iter().copied());
            assert!(apart <= most, "{} {kind:?}: {apart}", file.display());
            let (mut cache, mut sequence) = (model.cache(kind, 64), Sequence::default());
            let step = Step { sequence: &mut sequence, tokens: &prompt[..17], wanted: Wanted::Nothing };
            model.forward(&mut cache, &mut [step]).unwrap();
            bytes.push(cache.len_bytes());
        }
        assert!(bytes[1] * 2 == bytes[0] && bytes[2] * 10 <= bytes[0] * 4, "{bytes:?}");
    }
}

/// The prompt in chunks, beside other sequences that come and go.
fn batch_mix(model: &Model, kind: KvKind, prompt: &[u32], want: &[u32], what: &str) {
    let mut cache = model.cache(kind, 1024);
    let mut sequence = Sequence::default();
    let mut got = Vec::new();
    let mut others: Vec<Sequence> = Vec::new();
    for (round, chunk) in prompt.chunks(9).enumerate() {
        let noise: Vec<Vec<u32>> =
            (0..=round).map(|i| prompt[i..].iter().rev().copied().take(i + 3).collect()).collect();
        others.resize_with(round + 1, Sequence::default);
        let mut steps: Vec<Step<'_>> = others
            .iter_mut()
            .zip(&noise)
            .map(|(sequence, tokens)| Step { sequence, tokens, wanted: Wanted::Nothing })
            .collect();
        let at = round.min(1);
        steps.insert(at, Step { sequence: &mut sequence, tokens: chunk, wanted: Wanted::All });
        got.extend(bits(&model.forward(&mut cache, &mut steps).unwrap()));
        // One conversation ends, another gets its pages.
        let ended = others.remove(0);
        cache.release(ended);
    }
    assert!(got == want, "{what}: in a batch");
}
