//! Every family on small models made here: the same bits under every path, thread count and chunking, through the engine,
//! and damaged files as typed errors.
#![allow(clippy::disallowed_methods, reason = "tests may write the models for another engine")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "tests"
)]

mod common;

use std::io;
use std::ops::Range;
use std::sync::Mutex;

use adyton_inference::arch::Path;
use adyton_inference::chat::Message;
use adyton_inference::lm::{
    Engine, EngineOptions, Event, Finish, KvKind, Mirostat, Model, ModelError, Options, Request, Sampler,
    Sampling, Sequence, Source, Step, StopStrings, Wanted,
};
use adyton_model::gguf::Gguf;
use common::{FAMILIES, VOCAB, tiny};

fn load(bytes: &[u8], options: Options) -> Result<Model, ModelError> {
    let gguf = Gguf::parse(bytes, bytes.len() as u64)?;
    Model::load(&gguf, &bytes, Options { long_context: true, ..options })
}

fn logits(model: &Model, tokens: &[u32], chunk: usize) -> Vec<u32> {
    let mut cache = model.cache(KvKind::F32, 128);
    let mut sequence = Sequence::default();
    let mut all = Vec::new();
    for tokens in tokens.chunks(chunk) {
        let step = Step { sequence: &mut sequence, tokens, wanted: Wanted::All };
        all.extend(model.forward(&mut cache, &mut [step]).unwrap());
    }
    all.into_iter().map(f32::to_bits).collect()
}

fn prompt(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * i * 31 + 7 * i + 3) % VOCAB).collect()
}

#[test]
fn every_family_gives_the_same_bits_everywhere() {
    for variant in FAMILIES {
        for half in [false, true] {
            let bytes = tiny(variant, half);
            if let Some(folder) = std::env::var_os("ADYTON_WRITE_MODELS") {
                let name = format!("{variant}-{}.gguf", if half { "f16" } else { "f32" });
                std::fs::write(std::path::Path::new(&folder).join(name), &bytes).unwrap();
            }
            let tokens = prompt(33);
            let want = logits(
                &load(&bytes, Options { path: Path::Scalar, ..Options::default() }).unwrap(),
                &tokens,
                33,
            );
            assert!(want.iter().all(|bits| f32::from_bits(*bits).is_finite()), "{variant}");
            for path in Path::available() {
                let model = load(&bytes, Options { path, ..Options::new(2) }).unwrap();
                for chunk in [1, 7, 33] {
                    assert!(logits(&model, &tokens, chunk) == want, "{variant} {path} chunks of {chunk}");
                }
            }
        }
    }
}

/// The largest logit is what it is among all, and others are left out.
#[test]
fn the_largest_logit_is_the_same_alone() {
    let (mut screened, best) =
        (0, |logits: &[f32]| (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])));
    for variant in FAMILIES {
        let bytes = tiny(variant, true);
        let mut first = None;
        for path in Path::available() {
            let run = |screen: bool, largest: bool| {
                let model = load(&bytes, Options { path, screen, ..Options::new(2) }).unwrap();
                let (mut cache, mut sequence) = (model.cache(KvKind::F16, 64), Sequence::default());
                let mut all = Vec::new();
                for tokens in prompt(40).chunks(1) {
                    let steps = &mut [Step { sequence: &mut sequence, tokens, wanted: Wanted::Last }];
                    all.push(match largest {
                        true => model.forward_largest(&mut cache, steps).unwrap(),
                        false => model.forward(&mut cache, steps).unwrap(),
                    });
                }
                all
            };
            let want = run(true, false);
            assert!(run(false, true) == want && run(false, false) == want, "{variant} {path}");
            let got = run(true, true);
            for (got, want) in got.iter().zip(&want) {
                assert_eq!(best(got), best(want), "{variant} {path}");
                let same = |(got, want): (&f32, &f32)| got == want || *got == f32::NEG_INFINITY;
                assert!(got.iter().zip(want).all(same), "{variant} {path}");
            }
            screened += usize::from(got != want);
            assert!(
                *first.get_or_insert(got.clone()) == got,
                "{variant} {path}: what is left out is the same"
            );
            // Where logits are capped, those that are alike then may differ before.
            assert!(variant != "gemma2" || got == want, "{path}");
        }
    }
    assert!(screened > 0, "nothing was left out");
}

/// A file whose bytes are gone once they were said to be done with.
struct Going<'a> {
    bytes: &'a [u8],
    gone: Mutex<Vec<bool>>,
}

impl Source for Going<'_> {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let gone = self.gone.lock().unwrap();
        assert!(!gone[offset as usize..][..out.len()].contains(&true), "read again");
        self.bytes.read(offset, out)
    }

    fn done(&self, range: Range<u64>) {
        let mut gone = self.gone.lock().unwrap();
        // Nothing pads the last tensor.
        for gone in &mut gone[range.start as usize..(range.end as usize).min(self.bytes.len())] {
            assert!(!std::mem::replace(gone, true), "done with twice");
        }
    }
}

#[test]
fn every_byte_of_a_tensor_is_read_once_and_given_back() {
    for variant in FAMILIES {
        let bytes = tiny(variant, true);
        let gguf = Gguf::parse(&bytes, bytes.len() as u64).unwrap();
        let source = Going { bytes: &bytes, gone: Mutex::new(vec![false; bytes.len()]) };
        let options = Options { long_context: true, ..Options::new(2) };
        let model = Model::load(&gguf, &source, options).unwrap();
        let gone = source.gone.into_inner().unwrap();
        let (directory, tensors) = gone.split_at(gguf.tensors()[0].start as usize);
        assert!(!directory.contains(&true) && !tensors.contains(&false), "{variant}");
        let tokens = prompt(9);
        assert!(
            logits(&model, &tokens, 9) == logits(&load(&bytes, Options::new(2)).unwrap(), &tokens, 9),
            "{variant}"
        );
    }
}

fn greedy(model: &Model, prompt: &[u32], n: usize) -> Vec<u32> {
    let mut cache = model.cache(KvKind::F16, 512);
    let mut sequence = Sequence::default();
    let mut next = prompt.to_vec();
    let mut out = Vec::new();
    while out.len() < n {
        let step = Step { sequence: &mut sequence, tokens: &next, wanted: Wanted::Last };
        let logits = model.forward(&mut cache, &mut [step]).unwrap();
        let best = (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32;
        out.push(best);
        next = vec![best];
    }
    out
}

fn request(prompt: &[u32], max_tokens: usize) -> Request {
    Request {
        tenant: 1,
        prompt: prompt.to_vec().into(),
        max_tokens,
        stop_tokens: Vec::new(),
        sampling: Sampling::default(),
        logprobs: None,
        constraint: None,
    }
}

/// Runs requests to their end; each comes after `delay` more steps than the one before.
fn run(engine: &mut Engine, requests: &[Request], delay: usize) -> Vec<(Vec<u32>, Finish)> {
    let mut ids = Vec::new();
    let mut answers = vec![(Vec::new(), None); requests.len()];
    let mut steps = 0;
    while ids.len() < requests.len() || !engine.is_idle() {
        while ids.len() < requests.len() && steps >= ids.len() * delay {
            ids.push(engine.submit(requests[ids.len()].clone()).unwrap());
        }
        for event in engine.step().unwrap() {
            let at = |id| ids.iter().position(|known| *known == id).unwrap();
            match event {
                Event::Token(id, token, _) => answers[at(id)].0.push(token),
                Event::Finished(id, finish) => answers[at(id)].1 = Some(finish),
            }
        }
        steps += 1;
        assert!(steps < 10_000);
    }
    answers.into_iter().map(|(tokens, finish)| (tokens, finish.unwrap())).collect()
}

#[test]
fn batches_chunks_prefixes_and_guesses_change_no_token() {
    for variant in ["llama", "gemma3", "qwen3moe"] {
        let bytes = tiny(variant, false);
        let options = Options::new(2);
        let alone = load(&bytes, options).unwrap();
        // The later ones share prefixes with the earlier ones.
        let requests: Vec<Request> = (0..10).map(|i| request(&prompt(60)[..8 + 5 * i], 20 + i)).collect();
        let want: Vec<Vec<u32>> =
            requests.iter().map(|request| greedy(&alone, &request.prompt, request.max_tokens)).collect();
        for (guesses, chunk, delay, running) in [(0, 256, 0, 16), (4, 7, 1, 3), (8, 16, 5, 2), (3, 1, 40, 16)]
        {
            let options =
                EngineOptions { guesses, chunk, running, positions: 512, ..EngineOptions::default() };
            let mut engine = Engine::new(load(&bytes, Options::new(2)).unwrap(), options);
            let got = run(&mut engine, &requests, delay);
            for (i, ((tokens, finish), want)) in got.iter().zip(&want).enumerate() {
                assert_eq!(tokens, want, "{variant} request {i}, {options:?}");
                assert_eq!(*finish, Finish::Length);
            }
        }
    }
}

/// What the engines generate for one prompt, each in its own order.
fn together(engines: &mut [Engine], at_once: bool) -> Vec<Vec<u32>> {
    let drive = |engine: &mut Engine, got: &mut Vec<u32>, steps: usize| {
        for _ in 0..steps {
            for event in engine.step().unwrap() {
                if let Event::Token(_, token, _) = event {
                    got.push(token);
                }
            }
        }
    };
    let mut got = vec![Vec::new(); engines.len()];
    for engine in engines.iter_mut() {
        engine.submit(request(&prompt(40), 30)).unwrap();
    }
    if at_once {
        std::thread::scope(|scope| {
            for (engine, got) in engines.iter_mut().zip(&mut got) {
                scope.spawn(move || drive(engine, got, 40));
            }
        });
    } else {
        for _ in 0..40 {
            engines.iter_mut().zip(&mut got).for_each(|(engine, got)| drive(engine, got, 1));
        }
    }
    assert!(engines.iter().all(Engine::is_idle));
    got
}

#[test]
fn models_that_share_their_threads_answer_as_if_alone() {
    let files =
        [("llama", true), ("gemma3", false), ("qwen3moe", true)].map(|(variant, half)| tiny(variant, half));
    let want: Vec<Vec<u32>> =
        files.iter().map(|bytes| greedy(&load(bytes, Options::new(2)).unwrap(), &prompt(40), 30)).collect();
    let shared = Options::new(2);
    let options = EngineOptions { positions: 512, ..EngineOptions::default() };
    let engine = |bytes: &Vec<u8>| Engine::new(load(bytes, shared.clone()).unwrap(), options);
    let mut engines: Vec<Engine> = files.iter().map(engine).collect();
    assert_eq!(together(&mut engines, false), want, "in turns");
    assert_eq!(together(&mut engines, true), want, "at once");
}

#[test]
fn prefixes_are_reused_within_one_tenant_only() {
    let bytes = tiny("llama", false);
    let options = EngineOptions { positions: 512, ..EngineOptions::default() };
    let mut engine = Engine::new(load(&bytes, Options::default()).unwrap(), options);
    let mut reused = |tenant, forget| {
        let before = engine.counts().reused;
        run(&mut engine, &[Request { tenant, ..request(&prompt(40), 2) }], 0);
        if forget {
            engine.forget(tenant);
        }
        engine.counts().reused - before
    };
    assert_eq!([reused(1, false), reused(2, true), reused(1, true)], [0, 0, 39]);
    assert_eq!([reused(1, false), reused(2, false)], [0, 0], "what was forgotten is gone");
}

#[test]
fn who_is_forgotten_leaves_nothing_running() {
    let bytes = tiny("llama", false);
    let options = EngineOptions { positions: 96, running: 1, ..EngineOptions::default() };
    let mut engine = Engine::new(load(&bytes, Options::default()).unwrap(), options);
    engine.submit(Request { tenant: 3, ..request(&prompt(9), 50) }).unwrap();
    engine.submit(Request { tenant: 3, ..request(&prompt(9), 50) }).unwrap();
    engine.step().unwrap();
    engine.forget(3);
    assert!(engine.is_idle());
    // All positions are free again.
    assert_eq!(run(&mut engine, &[request(&prompt(9), 60)], 0)[0].0.len(), 60);
}

#[test]
fn right_guesses_save_steps_and_wrong_ones_end_guessing() {
    let bytes = tiny("llama", false);
    let counts = |guesses, prompt: &[u32], sampling: Sampling| {
        let options = EngineOptions { guesses, positions: 512, ..EngineOptions::default() };
        let mut engine = Engine::new(load(&bytes, Options::default()).unwrap(), options);
        run(&mut engine, &[Request { sampling, ..request(prompt, 200) }], 0);
        engine.counts()
    };
    // One token again and again is guessed from itself.
    let again = || Sampling { logit_bias: [(7, 1e6)].into(), ..Sampling::default() };
    let (plain, guessing) = (counts(0, &prompt(20), again()), counts(4, &prompt(20), again()));
    assert_eq!((plain.steps, plain.guessed), (200, 0));
    assert_eq!(guessing.steps + guessing.right, plain.steps);
    assert!(guessing.right > 80, "{guessing:?}");
    // A hot answer to a prompt in which everything was said before: guesses are made, are wrong, and become rare.
    let said: Vec<u32> =
        (0..VOCAB).flat_map(|a| [a, (a + 1) % VOCAB, (a + 2) % VOCAB, 5]).take(250).collect();
    let hot = Sampling { temperature: 50.0, seed: 4, ..Sampling::default() };
    let wrong = counts(4, &said, hot);
    assert!(wrong.guessed - wrong.right < 60, "{wrong:?}");
}

#[test]
fn drawn_tokens_are_the_same_with_guesses() {
    let bytes = tiny("qwen2", false);
    let sampled = |guesses| {
        let options = EngineOptions { guesses, positions: 512, ..EngineOptions::default() };
        let mut engine = Engine::new(load(&bytes, Options::default()).unwrap(), options);
        let sampling = Sampling { temperature: 0.3, seed: 11, ..Sampling::default() };
        run(&mut engine, &[Request { sampling, ..request(&prompt(20), 100) }], 0)
    };
    assert_eq!(sampled(0), sampled(5));
}

#[test]
fn answers_end_at_stop_tokens_and_at_the_end_of_the_context() {
    let bytes = tiny("llama", false);
    let model = || load(&bytes, Options::default()).unwrap();
    let free = greedy(&model(), &prompt(9), 12);
    let stop = free[5];
    let first = free.iter().position(|token| *token == stop).unwrap();
    let mut engine = Engine::new(model(), EngineOptions { positions: 64, ..EngineOptions::default() });
    let stopping = Request { stop_tokens: vec![stop], ..request(&prompt(9), 12) };
    let answers = run(&mut engine, &[stopping, request(&prompt(50), usize::MAX), request(&prompt(9), 0)], 0);
    assert_eq!(answers[0], (free[..first].to_vec(), Finish::Stop));
    assert_eq!((answers[1].0.len(), answers[1].1), (14, Finish::Context));
    assert_eq!(answers[2], (Vec::new(), Finish::Length));
    let refused = |prompt: Vec<u32>| engine_error(&bytes, prompt);
    assert!(matches!(refused(Vec::new()), ModelError::EmptyPrompt));
    assert!(matches!(refused(vec![VOCAB]), ModelError::Token { token: VOCAB, .. }));
    assert!(matches!(refused(vec![1; 64]), ModelError::ContextFull { len: 65, seq_len: 64 }));
}

fn engine_error(bytes: &[u8], prompt: Vec<u32>) -> ModelError {
    let model = load(bytes, Options::default()).unwrap();
    let mut engine = Engine::new(model, EngineOptions { positions: 64, ..EngineOptions::default() });
    engine.submit(Request { prompt: prompt.into(), ..request(&[1], 1) }).unwrap_err()
}

/// Which rotations a model of two kinds has is said when it is loaded; with those for short texts there are no long ones.
#[test]
fn long_texts_want_long_rotations() {
    let bytes = tiny("phi3-long", false);
    let gguf = Gguf::parse(&bytes, bytes.len() as u64).unwrap();
    let short = Model::load(&gguf, &bytes.as_slice(), Options::default()).unwrap();
    let long = load(&bytes, Options::default()).unwrap();
    assert_eq!((short.architecture().seq_len, long.architecture().seq_len), (16, 512));
    assert!(logits(&short, &prompt(16), 16) != logits(&long, &prompt(16), 16));
    let (mut cache, mut sequence) = (short.cache(KvKind::F32, 64), Sequence::default());
    let step = Step { sequence: &mut sequence, tokens: &prompt(17), wanted: Wanted::Last };
    let error = short.forward(&mut cache, &mut [step]).unwrap_err();
    assert!(matches!(error, ModelError::ContextFull { len: 17, seq_len: 16 }));
}

#[test]
fn logprobs_follow_their_tokens() {
    let bytes = tiny("llama", false);
    for guesses in [0, 4] {
        let options = EngineOptions { guesses, positions: 64, ..EngineOptions::default() };
        let mut engine = Engine::new(load(&bytes, Options::default()).unwrap(), options);
        engine.submit(Request { logprobs: Some(3), ..request(&prompt(9), 6) }).unwrap();
        let mut events = Vec::new();
        while !engine.is_idle() {
            events.extend(engine.step().unwrap());
        }
        assert_eq!(events.len(), 7);
        for event in &events[..6] {
            let Event::Token(_, token, Some(logprobs)) = event else { panic!("{event:?}") };
            // Greedy: the token chosen is the likeliest.
            assert_eq!((logprobs.top[0], logprobs.top.len()), ((*token, logprobs.chosen), 3));
            assert!(logprobs.chosen < 0.0 && logprobs.top.is_sorted_by(|a, b| a.1 >= b.1));
        }
    }
}

/// Whoever writes one of these into a log writes no weight, prompt or answer: other secrets of the same size read alike.
#[test]
fn debug_tells_no_secret() {
    let seen = |other: bool| {
        let mut bytes = tiny("llama", false);
        let gguf = Gguf::parse(&bytes, bytes.len() as u64).unwrap();
        let weights: Vec<Range<u64>> =
            gguf.tensors().iter().map(|tensor| tensor.start..tensor.start + tensor.len_bytes).collect();
        for range in weights.iter().filter(|_| other) {
            bytes[range.start as usize..range.end as usize].reverse();
            bytes[range.start as usize..range.end as usize]
                .as_chunks_mut::<4>()
                .0
                .iter_mut()
                .for_each(|x| x.reverse());
        }
        let model = load(&bytes, Options::default()).unwrap();
        let mut texts = vec![format!("{model:?}")];
        let mut engine = Engine::new(model, EngineOptions { positions: 64, ..EngineOptions::default() });
        let prompt = if other { vec![5, 6, 7, 8] } else { vec![80, 81, 82, 83] };
        let request = Request { logprobs: Some(2), ..request(&prompt, 5) };
        texts.push(format!("{request:?}"));
        engine.submit(request).unwrap();
        let mut tokens = Vec::new();
        for _ in 0..5 {
            for event in engine.step().unwrap() {
                texts.push(format!("{event:?}"));
                if let Event::Token(_, token, Some(logprobs)) = event {
                    tokens.push(token);
                    texts.push(format!("{logprobs:?}"));
                }
            }
            texts.push(format!("{engine:?}"));
        }
        let mut sequence = Sequence::default();
        let mirostat = Some(Mirostat { tau: 3.0, eta: 0.1 });
        let mut sampler = Sampler::new(Sampling { temperature: 1.0, mirostat, ..Sampling::default() });
        sampler.sample(&[1.0, 2.0, if other { 9.0 } else { 3.0 }], &prompt);
        let step = Step { sequence: &mut sequence, tokens: &prompt, wanted: Wanted::Last };
        texts.extend([format!("{step:?}"), format!("{sampler:?}")]);
        let word = if other { "melon" } else { "apple" };
        let mut stops = StopStrings::new([format!("{word}s")]);
        stops.push(word);
        let message = Message { role: "user".into(), content: word.into() };
        texts.extend([format!("{stops:?}"), format!("{message:?}")]);
        (texts, tokens)
    };
    let (one, another) = (seen(false), seen(true));
    assert_ne!(one.1, another.1, "the secrets differ");
    assert_eq!(one.0, another.0);
}

#[test]
fn a_full_cache_and_a_long_sequence_are_errors_that_change_nothing() {
    let bytes = tiny("llama", false);
    let model = load(&bytes, Options::default()).unwrap();
    let mut cache = model.cache(KvKind::F16, 32);
    let (mut a, mut b) = (Sequence::default(), Sequence::default());
    let tokens = prompt(20);
    let step = Step { sequence: &mut a, tokens: &tokens, wanted: Wanted::Last };
    let first = model.forward(&mut cache, &mut [step]).unwrap();
    let step = Step { sequence: &mut b, tokens: &tokens, wanted: Wanted::Last };
    assert!(matches!(model.forward(&mut cache, &mut [step]), Err(ModelError::CacheFull)));
    assert!(b.is_empty());
    cache.release(a);
    let step = Step { sequence: &mut b, tokens: &tokens, wanted: Wanted::Last };
    assert_eq!(model.forward(&mut cache, &mut [step]).unwrap(), first);
    let long = vec![1; 600];
    let step = Step { sequence: &mut b, tokens: &long, wanted: Wanted::Last };
    let error = model.forward(&mut cache, &mut [step]).unwrap_err();
    assert!(matches!(error, ModelError::ContextFull { len: 620, seq_len: 512 }));
}

#[test]
fn damaged_models_are_errors_or_models_that_run() {
    for variant in FAMILIES {
        let bytes = tiny(variant, true);
        let gguf = Gguf::parse(&bytes, bytes.len() as u64).unwrap();
        let header = usize::try_from(gguf.tensors()[0].start).unwrap();
        for at in (0..header).step_by(if cfg!(debug_assertions) { 7 } else { 1 }) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            if let Ok(model) = load(&damaged, Options::default()) {
                let mut cache = model.cache(KvKind::F16, 32);
                let mut sequence = Sequence::default();
                let step = Step { sequence: &mut sequence, tokens: &[1, 2, 3], wanted: Wanted::Last };
                let _ = model.forward(&mut cache, &mut [step]);
            }
        }
    }
}
