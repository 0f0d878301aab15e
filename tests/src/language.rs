//! A small language model that is made here: random weights, a vocabulary of syllables, a chat template.
//!
//! Its answers are nonsense, and always the same nonsense for a greedy request, so that they can be searched for.

use std::fmt::Write as _;

use adyton_inference::lm::{Engine, EngineOptions, Event, Model, Options, Request, Sampling};
use adyton_inference::tokenizer::{Encode, Tokenizer};
use adyton_model::gguf::{Gguf, Writer, write};
use adyton_model::quant::TensorType;

const DIM: u64 = 64;
const HIDDEN: u64 = 96;
const LAYERS: u32 = 2;
const HEADS: u64 = 4;
const KV_HEADS: u64 = 2;
const HEAD_DIM: u64 = 16;
/// Tokens that are no text: unknown, beginning, end, turns, and one for each byte.
const CONTROL: usize = 5;
const SYLLABLES: usize = 200;
/// Turns between `<|im_start|>` and `<|im_end|>`.
const TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + \
    '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// Uniform in [-1, 1), the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bytes = self.0.to_be_bytes();
        f32::from(i16::from_be_bytes([bytes[0], bytes[1]])) / 32768.0
    }
}

/// A GGUF file of about 270 kB.
///
/// # Panics
/// If the writer refuses it.
#[must_use]
pub fn language_model() -> Vec<u8> {
    let mut tokens: Vec<String> =
        ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"].map(str::to_owned).to_vec();
    let mut kinds = vec![2, 3, 3, 3, 3];
    for byte in 0..256 {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = write!(text, "<0x{byte:02X}>");
        tokens.push(text);
        kinds.push(6);
    }
    for at in 0..SYLLABLES {
        let letter = |set: &str, at: usize| set.chars().nth(at % set.len()).expect("within the set");
        let (first, second) = (letter("bdfgklmnprstvz", at), letter("aeiou", at / 14));
        let space = if at % 3 == 0 { "\u{2581}" } else { "" };
        tokens.push(format!("{space}{first}{second}{}", letter("lnrsx", at / 70)));
        kinds.push(1);
    }
    let vocab = u32::try_from(tokens.len()).expect("a small vocabulary");
    let mut w = Writer::default();
    w.text("general.architecture", "llama");
    for (key, value) in [
        ("vocab_size", vocab),
        ("context_length", 1024),
        ("embedding_length", 64),
        ("block_count", LAYERS),
        ("feed_forward_length", 96),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("attention.key_length", 16),
        ("attention.value_length", 16),
        ("rope.dimension_count", 16),
    ] {
        w.u32(&format!("llama.{key}"), value);
    }
    w.f32("llama.rope.freq_base", 10_000.0);
    w.f32("llama.attention.layer_norm_rms_epsilon", 1e-5);
    w.text("tokenizer.ggml.model", "llama");
    w.texts("tokenizer.ggml.tokens", &tokens);
    w.f32s("tokenizer.ggml.scores", &vec![0.0; tokens.len()]);
    w.i32s("tokenizer.ggml.token_type", &kinds);
    w.u32("tokenizer.ggml.unknown_token_id", 0);
    w.u32("tokenizer.ggml.bos_token_id", 1);
    w.u32("tokenizer.ggml.eos_token_id", 2);
    w.bool("tokenizer.ggml.add_bos_token", true);
    w.text("tokenizer.chat_template", TEMPLATE);

    let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    let mut tensors = vec![("token_embd".to_owned(), vec![DIM, u64::from(vocab)])];
    for layer in 0..LAYERS {
        let parts: [(&str, &[u64]); 9] = [
            ("attn_norm", &[DIM]),
            ("attn_q", &[DIM, q]),
            ("attn_k", &[DIM, kv]),
            ("attn_v", &[DIM, kv]),
            ("attn_output", &[q, DIM]),
            ("ffn_norm", &[DIM]),
            ("ffn_gate", &[DIM, HIDDEN]),
            ("ffn_up", &[DIM, HIDDEN]),
            ("ffn_down", &[HIDDEN, DIM]),
        ];
        tensors.extend(parts.map(|(name, dims)| (format!("blk.{layer}.{name}"), dims.to_vec())));
    }
    tensors.push(("output_norm".to_owned(), vec![DIM]));
    tensors.push(("output".to_owned(), vec![DIM, u64::from(vocab)]));
    let mut random = Random(0x00ad_1707);
    let mut data: Vec<Vec<u8>> = Vec::new();
    for (name, dims) in &tensors {
        w.tensor(&format!("{name}.weight"), TensorType::F32, dims);
        let count: u64 = dims.iter().product();
        let base = if name.ends_with("norm") { 1.0 } else { 0.0 };
        let scale = if dims.len() > 1 { 0.35 } else { 0.3 };
        let mut values: Vec<f32> = (0..count).map(|_| base + scale * random.next()).collect();
        if name == "output" {
            // Never likelier than a syllable.
            let text = usize::try_from(DIM).expect("small") * (CONTROL + 256);
            values[..text].fill(0.0);
        }
        data.push(values.into_iter().flat_map(f32::to_le_bytes).collect());
    }
    let mut file = Vec::new();
    write(&mut file, &w, data.iter().map(Vec::as_slice)).expect("the tensors are as announced");
    file
}

/// Weights of the model as they lie in its file: 64 bytes that are found nowhere by chance.
///
/// # Panics
/// If `file` is none of [`language_model`]'s.
#[must_use]
pub fn language_canary(file: &[u8]) -> &[u8] {
    let end = file.len() - 4096;
    &file[end..end + 64]
}

/// What the engine itself, without anything around it, answers to a greedy completion.
///
/// # Panics
/// If the model cannot be run.
#[must_use]
pub fn greedy_answer(prompt: &str, max_tokens: usize) -> String {
    let file = language_model();
    let gguf = Gguf::parse(&file, file.len() as u64).expect("it runs");
    let tokenizer = Tokenizer::from_gguf(&gguf).expect("it runs");
    let model = Model::load(&gguf, &file.as_slice(), Options::default()).expect("it runs");
    let prompt =
        tokenizer.encode(prompt, Encode { add_special: true, parse_special: true }).expect("it runs");
    let mut engine = Engine::new(model, EngineOptions::default());
    let sampling = Sampling::default();
    engine
        .submit(Request {
            tenant: 0,
            prompt: prompt.into(),
            max_tokens,
            stop_tokens: vec![2],
            sampling,
            logprobs: None,
            constraint: None,
        })
        .expect("it runs");
    let mut tokens = Vec::new();
    while !engine.is_idle() {
        tokens.extend(engine.step().expect("it runs").into_iter().filter_map(|event| match event {
            Event::Token(_, token, _) => Some(token),
            Event::Finished(..) => None,
        }));
    }
    tokenizer.decode(&tokens, false)
}
