//! Vocabularies of GGUF files, applied to the rest of the input as text.
#![no_main]
use adyton_inference::tokenizer::{Encode, Tokenizer};
use adyton_model::gguf::Gguf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &str)| {
    let (bytes, text) = input;
    let Ok(gguf) = Gguf::parse(bytes, bytes.len() as u64) else { return };
    let Ok(tokenizer) = Tokenizer::from_gguf(&gguf) else { return };
    for parse_special in [false, true] {
        if let Ok(tokens) = tokenizer.encode(text, Encode { add_special: true, parse_special }) {
            assert!(tokens.iter().all(|token| (*token as usize) < tokenizer.vocabulary().len()));
            let _ = tokenizer.decode(&tokens, true);
        }
    }
});
