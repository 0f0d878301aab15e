//! `tokenizer.json` of every kind that is read, trained on sentences made here, against the tokens that Hugging Face's
//! `tokenizers` gives for drawn texts (`fixtures/make_tokenizers.py`); and the same unigram vocabulary as a GGUF file.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use adyton_inference::tokenizer::{Encode, Tokenizer};
use adyton_model::gguf::{Gguf, Writer, write};
use adyton_model::tokenizer::{TokenModel, TokenRole, TokenizerFile};
use serde_json::Value;

fn fixtures() -> Vec<Value> {
    serde_json::from_str(include_str!("fixtures/tokenizers.json")).unwrap()
}

fn file(fixture: &Value) -> TokenizerFile {
    TokenizerFile::from_json(fixture["tokenizer"].to_string().as_bytes()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

const AROUND: Encode = Encode { add_special: true, parse_special: false };

#[test]
fn texts_become_the_tokens_of_the_reference() {
    let mut failures = Vec::new();
    let fixtures = fixtures();
    assert!(fixtures.len() >= 9);
    for fixture in &fixtures {
        let name = fixture["name"].as_str().unwrap();
        let tokenizer = Tokenizer::from_file(&file(fixture), &[]).unwrap();
        let cases = fixture["cases"].as_array().unwrap();
        assert!(cases.len() > 70);
        for case in cases {
            let (text, want) = (case[0].as_str().unwrap(), ids(&case[1]));
            let got = tokenizer.encode(text, AROUND).unwrap();
            if got != want {
                failures.push(format!("{name}: {text:?}\n  got  {got:?}\n  want {want:?}"));
            }
        }
        for pair in fixture["pairs"].as_array().unwrap() {
            let (a, b) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
            let (tokens, segments) = tokenizer.encode_pair(a, b).unwrap();
            assert_eq!((tokens, segments), (ids(&pair[2]), ids(&pair[3])), "{name}");
        }
    }
    assert!(failures.is_empty(), "{} differ\n{}", failures.len(), failures.join("\n"));
}

/// Decoding gives back what a reversible vocabulary encoded.
#[test]
fn reversible_vocabularies_give_texts_back() {
    for fixture in fixtures() {
        let name = fixture["name"].as_str().unwrap();
        if !matches!(name, "llama2" | "gemma" | "llama3" | "digits") {
            continue;
        }
        let tokenizer = Tokenizer::from_file(&file(&fixture), &[]).unwrap();
        for case in fixture["cases"].as_array().unwrap() {
            let text = case[0].as_str().unwrap();
            // U+2581 stands for a space in these vocabularies, and one of them composes accents.
            if text.contains('▁') || (name == "digits" && text.contains(['\u{301}', '\u{300}'])) {
                continue;
            }
            let tokens = tokenizer.encode(text, AROUND).unwrap();
            assert_eq!(tokenizer.decode(&tokens, false), text, "{name}");
        }
    }
}

/// The unigram vocabularies written as GGUF files give the same tokens wherever SentencePiece's own way with spaces and
/// the library's steps agree.
#[test]
fn unigram_from_gguf_is_unigram_from_json() {
    let fixtures = fixtures();
    let fixture = fixtures.iter().find(|fixture| fixture["name"] == "xlm-roberta").unwrap();
    let parsed = file(fixture);
    let TokenModel::Unigram { scores, .. } = &parsed.model else { panic!() };
    let tokens: Vec<&str> = parsed.tokens.iter().map(|token| token.as_ref().unwrap().text.as_str()).collect();
    let kinds: Vec<i32> = parsed
        .tokens
        .iter()
        .map(|token| match token.as_ref().unwrap() {
            token if token.text == "<unk>" => 2,
            token if token.role == TokenRole::Special => 3,
            _ => 1,
        })
        .collect();
    let mut w = Writer::default();
    w.text("tokenizer.ggml.model", "t5");
    w.texts("tokenizer.ggml.tokens", &tokens);
    w.i32s("tokenizer.ggml.token_type", &kinds);
    w.f32s("tokenizer.ggml.scores", &scores.iter().map(|score| *score as f32).collect::<Vec<_>>());
    for (key, id) in [("bos", 0), ("eos", 2), ("unknown", 3)] {
        w.u32(&format!("tokenizer.ggml.{key}_token_id"), id);
    }
    w.bool("tokenizer.ggml.add_bos_token", true);
    let mut bytes = Vec::new();
    write(&mut bytes, &w, []).unwrap();
    let tokenizer = Tokenizer::from_gguf(&Gguf::parse(&bytes, bytes.len() as u64).unwrap()).unwrap();
    let mut compared = 0;
    for case in fixture["cases"].as_array().unwrap() {
        let text = case[0].as_str().unwrap();
        // Without its table of replacements: texts that it would leave alone.
        if !text.chars().all(|c| c == ' ' || c.is_ascii_graphic() || "éüñ中文のはдане".contains(c))
        {
            continue;
        }
        compared += 1;
        assert_eq!(tokenizer.encode(text, AROUND).unwrap(), ids(&case[1]), "{text:?}");
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.iter().all(|word| tokens.iter().any(|token| token == word) || word.is_ascii()) {
            let tokens = tokenizer.encode(text, AROUND).unwrap();
            if !tokens.contains(&3) {
                assert_eq!(tokenizer.decode(&tokens, false), words.join(" "));
            }
        }
    }
    assert!(compared > 20, "{compared}");
    let (pair, _) = tokenizer.encode_pair("ba", "ko").unwrap();
    assert_eq!((pair[0], pair.iter().filter(|token| **token == 2).count()), (0, 3));
}
