//! Grammars from strangers, followed for some tokens.
#![no_main]
use std::sync::LazyLock;

use adyton_inference::lm::{Grammar, Grammars};
use adyton_inference::tokenizer::Tokenizer;
use adyton_model::gguf::{Gguf, Writer, write};
use adyton_model::quant::TensorType;
use libfuzzer_sys::fuzz_target;

const VOCABULARY: usize = 259;

/// A vocabulary of single bytes.
static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    tokens.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    let mut kinds = vec![6; VOCABULARY];
    kinds[..3].fill(3);
    let mut w = Writer::default();
    w.text("general.architecture", "llama");
    w.text("tokenizer.ggml.model", "llama");
    w.texts("tokenizer.ggml.tokens", &tokens);
    w.f32s("tokenizer.ggml.scores", &[0.0; VOCABULARY]);
    w.i32s("tokenizer.ggml.token_type", &kinds);
    w.u32("tokenizer.ggml.eos_token_id", 2);
    w.tensor("token_embd.weight", TensorType::F32, &[32]);
    let mut file = Vec::new();
    write(&mut file, &w, [[0u8; 128].as_slice()]).expect("to memory");
    let gguf = Gguf::parse(&file, file.len() as u64).expect("as written");
    Grammars::new(&Tokenizer::from_gguf(&gguf).expect("as written")).expect("it has an end")
});

fuzz_target!(|input: (u8, &str, Vec<u8>)| {
    let (kind, text, choices) = input;
    let grammar = match kind % 3 {
        0 => Grammar::JsonSchema(text),
        1 => Grammar::Regex(text),
        _ => Grammar::Lark(text),
    };
    let Ok(mut constraint) = GRAMMARS.compile(grammar) else { return };
    for choice in choices.into_iter().take(64) {
        let mut row = [0.0; VOCABULARY];
        if constraint.allow(&mut row).is_none() {
            return;
        }
        let allowed: Vec<usize> = (0..VOCABULARY).filter(|token| row[*token] == 0.0).collect();
        let token = allowed[usize::from(choice) % allowed.len()];
        constraint.accept(u32::try_from(token).expect("small")).expect("it was allowed");
        if token == 2 {
            return;
        }
    }
});
