//! The files of a Hugging Face folder, and a vocabulary that was read applied to a text.
#![no_main]
use adyton_inference::tokenizer::{Encode, Tokenizer};
use adyton_model::checkpoint::{LanguageConfig, Shard, ShardIndex};
use adyton_model::encoder::{EncoderConfig, PoolingFile};
use adyton_model::tokenizer::TokenizerFile;
use libfuzzer_sys::fuzz_target;

fn apply(tokenizer: &Tokenizer, text: &str) {
    if let Ok(tokens) = tokenizer.encode(text, Encode { add_special: true, parse_special: true }) {
        assert!(tokens.iter().all(|token| (*token as usize) < tokenizer.vocabulary().len()));
        let _ = tokenizer.decode(&tokens, true);
    }
}

fuzz_target!(|input: (u8, &str, &[u8])| {
    let (kind, text, bytes) = input;
    match kind % 5 {
        0 => {
            let read = TokenizerFile::from_json(bytes).ok();
            if let Some(tokenizer) = read.and_then(|file| Tokenizer::from_file(&file, &[]).ok()) {
                apply(&tokenizer, text);
            }
        }
        1 => {
            drop(EncoderConfig::from_json(bytes));
            drop(PoolingFile::from_json(bytes));
        }
        2 => drop(LanguageConfig::from_json(bytes)),
        3 => drop(ShardIndex::from_json(bytes)),
        _ => drop(Shard::parse(bytes, bytes.len() as u64)),
    }
});
