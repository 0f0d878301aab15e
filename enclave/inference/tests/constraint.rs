//! Answers that follow a grammar, drawn from logits that know nothing of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod common;

use adyton_inference::lm::{
    Constraint, Engine, EngineOptions, Event, Finish, Grammar, GrammarError, Grammars, MAX_GRAMMAR_LEN,
    Model, Options, Request, Sampler, Sampling,
};
use adyton_inference::tokenizer::Tokenizer;
use adyton_model::gguf::{Gguf, Writer, write};
use adyton_model::quant::TensorType;
use proptest::prelude::*;
use serde_json::Value;

use common::tiny;

const END: u32 = 2;
/// Tokens that cross the borders of JSON's own tokens.
const PIECES: [&str; 12] =
    ["{\"", "\":", "\": \"", "\", \"", "\"}", "true", "fal", "se", "nu", "ll", " \u{e9}t\u{e9}", "12"];

/// A vocabulary of bytes and some pieces, with control tokens among them; one of them ends answers, or none.
fn tokenizer(with_end: bool) -> Tokenizer {
    let mut tokens: Vec<String> =
        ["<unk>", "<s>", if with_end { "</s>" } else { "<mask>" }].map(str::to_owned).to_vec();
    let mut kinds = vec![2, 3, 3];
    tokens.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    kinds.resize(tokens.len(), 6);
    tokens.extend(PIECES.iter().map(|piece| piece.replace(' ', "\u{2581}")));
    kinds.resize(tokens.len(), 1);
    let mut w = Writer::default();
    w.text("general.architecture", "llama");
    w.text("tokenizer.ggml.model", "llama");
    w.texts("tokenizer.ggml.tokens", &tokens);
    w.f32s("tokenizer.ggml.scores", &vec![0.0; tokens.len()]);
    w.i32s("tokenizer.ggml.token_type", &kinds);
    w.u32("tokenizer.ggml.unknown_token_id", 0);
    w.u32("tokenizer.ggml.bos_token_id", 1);
    if with_end {
        w.u32("tokenizer.ggml.eos_token_id", END);
    }
    w.tensor("token_embd.weight", TensorType::F32, &[32]);
    let mut file = Vec::new();
    write(&mut file, &w, [[0u8; 128].as_slice()]).unwrap();
    Tokenizer::from_gguf(&Gguf::parse(&file, file.len() as u64).unwrap()).unwrap()
}

fn model() -> Model {
    let bytes = tiny("llama", false);
    let gguf = Gguf::parse(&bytes, bytes.len() as u64).unwrap();
    Model::load(&gguf, &bytes.as_slice(), Options::default()).unwrap()
}

/// Numbers of which some are none.
struct Logits(u64);

impl Logits {
    fn next(&mut self, n: usize) -> Vec<f32> {
        let mut one = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bytes = self.0.to_be_bytes();
            match bytes[7] {
                0 => f32::NAN,
                1 => f32::NEG_INFINITY,
                2 => f32::INFINITY,
                _ => f32::from(i16::from_be_bytes([bytes[0], bytes[1]])) / 4096.0,
            }
        };
        (0..n).map(|_| one()).collect()
    }
}

/// The answer up to the end token; `None` if it did not come within `most` tokens.
fn answer(
    tokenizer: &Tokenizer,
    mut constraint: Constraint,
    sampling: Sampling,
    seed: u64,
    most: usize,
) -> Option<String> {
    let (mut sampler, mut logits) = (Sampler::new(sampling), Logits(seed));
    let mut tokens = Vec::new();
    while tokens.len() < most {
        let mut row = logits.next(tokenizer.vocabulary().len());
        // Else strings of such logits end only by chance.
        row[usize::try_from(END).unwrap()] += 8.0;
        row[usize::from(b'"') + 3] += 6.0;
        constraint.allow(&mut row).expect("within the limits");
        let token = sampler.sample(&row, &tokens);
        assert!(row[token as usize] > f32::NEG_INFINITY, "a token that was not allowed");
        constraint.accept(token).expect("an allowed token");
        if token == END {
            return Some(tokenizer.decode(&tokens, true));
        }
        tokens.push(token);
    }
    None
}

const SCHEMA: &str = r##"{
    "type": "object", "additionalProperties": false, "required": ["name", "size", "tags"],
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "size": {"enum": ["small", "large", null]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 1, "maxItems": 3}
    },
    "$defs": {"tag": {"type": "integer", "minimum": -5, "maximum": 40}}
}"##;

fn fulfils(value: &Value) -> bool {
    let object = value.as_object().unwrap();
    let size = &object["size"];
    let tags = object["tags"].as_array().unwrap();
    object.len() == 3
        && object["name"].as_str().is_some_and(|name| name.chars().count() <= 12)
        && (size.is_null() || size == "small" || size == "large")
        && (1..=3).contains(&tags.len())
        // A reader may take -0 for a float.
        && tags.iter().map(|tag| tag.as_f64().unwrap()).all(|tag| tag.fract() == 0.0 && (-5.0..=40.0).contains(&tag))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]
    #[test]
    fn whatever_the_logits_the_answer_fulfils_the_schema(seed in any::<u64>(), temperature in prop_oneof![Just(0.0f32), 0.1f32..2.0]) {
        let tokenizer = tokenizer(true);
        let constraint = Grammars::new(&tokenizer).unwrap().compile(Grammar::JsonSchema(SCHEMA)).unwrap();
        let sampling = Sampling { temperature, seed, top_p: 0.9, repetition_penalty: 1.3, ..Sampling::default() };
        if let Some(text) = answer(&tokenizer, constraint, sampling, seed, 400) {
            let value: Value = serde_json::from_str(&text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
            prop_assert!(fulfils(&value), "{}", text);
        }
    }
}

#[test]
fn expressions_and_grammars_are_followed_to_their_end() {
    let tokenizer = tokenizer(true);
    let grammars = Grammars::new(&tokenizer).unwrap();
    let lark = "start: expr\nexpr: num | \"(\" expr \"+\" expr \")\"\nnum: /[0-9]{1,3}/\n";
    for seed in 0..20 {
        let run = |grammar| {
            let constraint = grammars.compile(grammar).unwrap();
            let sampling = Sampling { temperature: 1.0, seed, ..Sampling::default() };
            answer(&tokenizer, constraint, sampling, seed, 2000)
        };
        let code = run(Grammar::Regex("[A-Z]{2}-[0-9]{4}(true)?")).unwrap();
        let bytes = code.as_bytes();
        assert!(bytes[..2].iter().all(u8::is_ascii_uppercase) && bytes[2] == b'-', "{code}");
        assert!(bytes[3..7].iter().all(u8::is_ascii_digit), "{code}");
        assert!(matches!(&code[7..], "" | "true"), "{code}");
        // Random sums may nest for long; those that end are balanced.
        if let Some(sum) = run(Grammar::Lark(lark)) {
            let count = |c| sum.matches(c).count();
            assert!(count('(') == count(')') && count('(') == count('+'), "{sum}");
        }
    }
}

#[test]
fn a_clone_goes_its_own_way() {
    let tokenizer = tokenizer(true);
    let grammars = Grammars::new(&tokenizer).unwrap();
    let mut first = grammars.compile(Grammar::Regex("ab|cd")).unwrap();
    let byte = |c: u8| u32::from(c) + 3;
    let mut second = first.clone();
    first.accept(byte(b'a')).unwrap();
    second.accept(byte(b'c')).unwrap();
    let allowed = |constraint: &mut Constraint| {
        let mut row = vec![0.0; tokenizer.vocabulary().len()];
        constraint.allow(&mut row).unwrap();
        (0u32..).zip(row).filter(|(_, x)| *x == 0.0).map(|(token, _)| token).collect::<Vec<_>>()
    };
    assert_eq!((allowed(&mut first), allowed(&mut second)), (vec![byte(b'b')], vec![byte(b'd')]));
    first.accept(byte(b'b')).unwrap();
    assert_eq!(allowed(&mut first), [END]);
    first.accept(END).unwrap();
    assert!(second.accept(byte(b'b')).is_none());
}

#[test]
fn a_grammar_that_grows_without_bound_ends_the_answer() {
    let tokenizer = tokenizer(true);
    // A text of `A` alone fits in so many ways that the parser must give up.
    let ways: Vec<String> = (0..60).map(|i| format!("e e w{i}")).collect();
    let words: Vec<String> = (0..60).map(|i| format!("w{i}: \"A\" | \"A\" e\n")).collect();
    let ambiguous = format!("start: e \"B\"\ne: \"A\" | {}\n{}", ways.join(" | "), words.concat());
    let constraint = Grammars::new(&tokenizer).unwrap().compile(Grammar::Lark(&ambiguous)).unwrap();
    let mut engine = Engine::new(model(), EngineOptions::default());
    let byte = |c: u8| u32::from(c) + 3;
    let request = Request {
        tenant: 1,
        prompt: vec![1].into(),
        max_tokens: 100_000,
        stop_tokens: vec![END],
        // The only other way to go on.
        sampling: Sampling { logit_bias: vec![(byte(b'B'), -1e9)], ..Sampling::default() },
        logprobs: None,
        constraint: Some(constraint),
    };
    let id = engine.submit(request).unwrap();
    let (mut tokens, mut end) = (Vec::new(), None);
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            match event {
                Event::Token(_, token, _) => tokens.push(token),
                Event::Finished(of, finish) => {
                    assert_eq!(of, id);
                    end = Some(finish);
                }
            }
        }
    }
    assert!(!tokens.is_empty() && tokens.iter().all(|token| *token == byte(b'A')));
    assert_eq!(end, Some(Finish::Grammar));
}

#[test]
fn what_cannot_be_followed_is_an_error() {
    let with_end = tokenizer(true);
    let grammars = Grammars::new(&with_end).unwrap();
    let refused = |grammar| matches!(grammars.compile(grammar).unwrap_err(), GrammarError::Refused(_));
    assert!(refused(Grammar::JsonSchema("{")));
    assert!(refused(Grammar::JsonSchema(r#"{"type": "banana"}"#)));
    assert!(refused(Grammar::JsonSchema(r#"{"$ref": "https://example.org/schema"}"#)));
    assert!(refused(Grammar::JsonSchema(r#"{"type": "integer", "minimum": 3, "maximum": 2}"#)));
    assert!(refused(Grammar::Regex("[")));
    assert!(refused(Grammar::Lark("start: missing")));
    assert!(refused(Grammar::Lark("")));
    // Large for their length: they meet a bound soon, or the test runner's patience ends.
    let nested = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    assert!(refused(Grammar::JsonSchema(&nested)));
    let counted = "((a{1,500}){1,500}){1,500}b";
    let _ = grammars.compile(Grammar::Regex(counted));
    let many: Vec<String> = (0..4000).map(|i| format!("\"{i}\"")).collect();
    let _ = grammars.compile(Grammar::JsonSchema(&format!("{{\"enum\": [{}]}}", many.join(","))));
    let long = " ".repeat(MAX_GRAMMAR_LEN + 1);
    assert_eq!(grammars.compile(Grammar::Lark(&long)).unwrap_err(), GrammarError::TooLong(long.len()));
    assert_eq!(Grammars::new(&tokenizer(false)).unwrap_err(), GrammarError::Endless);
}
