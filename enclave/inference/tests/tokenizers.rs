//! The vocabularies in `../shared/tokenizers`, read in place, against their expected tokens.
//! `ADYTON_TOKENIZERS` names another folder of the same form.
#![allow(clippy::disallowed_methods, reason = "tests read files and the environment")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::path::{Path, PathBuf};

use adyton_inference::tokenizer::{Detokenizer, Encode, TokenKind, Tokenizer};
use adyton_model::gguf::Gguf;

fn samples() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = root.ancestors().find(|dir| dir.join("Cargo.lock").exists()).unwrap();
    let folder =
        std::env::var_os("ADYTON_TOKENIZERS").map_or(root.join("../shared/tokenizers"), PathBuf::from);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: {} is missing", folder.display());
        return Vec::new();
    };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "out"));
    files.sort();
    assert!(!files.is_empty());
    files.iter().map(|file| file.with_extension("")).collect()
}

fn load(file: &Path) -> Tokenizer {
    let bytes = std::fs::read(file).unwrap();
    Tokenizer::from_gguf(&Gguf::parse(&bytes, bytes.len() as u64).unwrap()).unwrap()
}

fn beside(file: &Path, end: &str) -> String {
    let mut name = file.as_os_str().to_owned();
    name.push(end);
    std::fs::read_to_string(name).unwrap()
}

#[test]
fn texts_become_exactly_the_expected_tokens() {
    let mut failures = Vec::new();
    for file in samples() {
        let tokenizer = load(&file);
        let texts = beside(&file, ".inp");
        let texts = texts.split("\n__ggml_vocab_test__\n");
        let expected = beside(&file, ".out");
        let expected: Vec<Vec<u32>> = expected
            .lines()
            .map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect())
            .collect();
        let mut count = 0;
        for (text, want) in texts.zip(&expected) {
            count += 1;
            let got = tokenizer.encode(text, Encode::default()).unwrap();
            if got != *want {
                failures.push(format!("{}: {text:?}\n  got  {got:?}\n  want {want:?}", file.display()));
            }
        }
        assert!(count >= expected.len().saturating_sub(1) && count > 10, "{}: {count}", file.display());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What ends an answer, or begins a text, never comes out of what a stranger wrote.
#[test]
fn texts_become_no_token_that_ends_an_answer() {
    for file in samples() {
        let tokenizer = load(&file);
        let vocabulary = tokenizer.vocabulary();
        // Phi-3's file calls this one user-defined.
        let special = |id: &u32| vocabulary.kind(*id) != TokenKind::Normal;
        let slash = vocabulary.id("</s>").filter(special);
        for token in vocabulary.end_of_turn().iter().chain(&slash) {
            let text = format!("a{} b", vocabulary.text(*token));
            let options = |parse_special| Encode { add_special: false, parse_special };
            assert!(tokenizer.encode(&text, options(true)).unwrap().contains(token), "{text}");
            assert!(!tokenizer.encode(&text, options(false)).unwrap().contains(token), "{text}");
        }
        // The one the file names stays what templates are given.
        let eos = vocabulary.eos().map(|eos| vocabulary.text(eos));
        assert!(!file.to_string_lossy().contains("phi-3") || eos == Some("<|endoftext|>"), "{eos:?}");
    }
}

#[test]
fn what_was_encoded_is_decoded_and_streams_whole_characters() {
    for file in samples() {
        let tokenizer = load(&file);
        if file.to_string_lossy().contains("bert") {
            // Uncased: not reversible.
            continue;
        }
        for text in beside(&file, ".inp").split("\n__ggml_vocab_test__\n") {
            let tokens = tokenizer.encode(text, Encode::default()).unwrap();
            assert_eq!(tokenizer.decode(&tokens, false), text, "{}", file.display());
            let mut detokenizer = Detokenizer::new(false);
            let mut streamed = String::new();
            for token in &tokens {
                let piece = detokenizer.push(&tokenizer, *token);
                assert!(!piece.contains('\u{fffd}') || text.contains('\u{fffd}'));
                streamed.push_str(&piece);
            }
            streamed.push_str(&detokenizer.finish());
            assert_eq!(streamed, text);
        }
    }
}
