//! Model files made to do harm, each a named error: what the metadata says against the tensors, counts no model has,
//! files that would take many times their size in memory, vocabularies that do not fit, templates without end.
//! Attacks on the container itself stand beside its reader in `adyton-model`.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

mod common;

use adyton_inference::chat::{ChatContext, ChatError, ChatTemplate, Message};
use adyton_inference::lm::{Model, ModelError, Options};
use adyton_inference::tokenizer::{Tokenizer, TokenizerError};
use adyton_model::gguf::{Gguf, GgufError, Writer, write};
use adyton_model::quant::TensorType;
use common::{Meta, edited, put, tiny};

fn load(bytes: &[u8]) -> Result<Model, ModelError> {
    let gguf = Gguf::parse(bytes, bytes.len() as u64)?;
    Model::load(&gguf, &bytes, Options::default())
}

/// The error of a small Llama with changed metadata.
fn with(changes: &[(&str, Meta<'_>)]) -> ModelError {
    load(&edited(&tiny("llama", false), changes, |_| None)).unwrap_err()
}

#[test]
fn counts_that_no_model_has() {
    let absurd = [
        ("llama.attention.head_count", 0),
        ("llama.attention.head_count", u32::MAX),
        ("llama.attention.head_count_kv", 0),
        ("llama.attention.head_count_kv", 3),
        ("llama.attention.head_count_kv", 8),
        ("llama.attention.key_length", 0),
        ("llama.attention.key_length", 1 << 30),
        ("llama.attention.value_length", 8),
        ("llama.rope.dimension_count", 18),
        ("llama.rope.dimension_count", 15),
        ("llama.rope.dimension_count", 0),
        ("llama.embedding_length", 0),
        ("llama.embedding_length", u32::MAX),
        ("llama.block_count", 0),
        ("llama.block_count", u32::MAX),
        ("llama.context_length", 0),
        ("llama.context_length", u32::MAX),
        ("llama.feed_forward_length", 0),
        ("llama.expert_count", u32::MAX),
    ];
    for (key, value) in absurd {
        match with(&[(key, Meta::U32(value))]) {
            ModelError::Metadata { key: named, .. } => assert_eq!(named, key, "{value}"),
            other => panic!("{key} {value}: {other}"),
        }
    }
    for (key, value) in [
        ("llama.attention.layer_norm_rms_epsilon", f32::NAN),
        ("llama.attention.layer_norm_rms_epsilon", -1.0),
        ("llama.rope.freq_base", f32::INFINITY),
        ("llama.rope.scaling.factor", f32::NAN),
        ("llama.attention.scale", f32::NEG_INFINITY),
    ] {
        assert!(matches!(with(&[(key, Meta::F32(value))]), ModelError::Metadata { .. }), "{key}");
    }
    // Different layers, and arrays of what are no counts.
    for heads in [Meta::I32s(&[4, 2, 4]), Meta::I32s(&[]), Meta::I32s(&[-4, -4]), Meta::Texts(&["4"])] {
        let error = with(&[("llama.attention.head_count", heads)]);
        assert!(matches!(error, ModelError::Metadata { .. }), "{heads:?}: {error}");
    }
}

#[test]
fn values_of_the_wrong_type_and_keys_that_are_missing() {
    for (key, value) in [
        ("general.architecture", Meta::U32(3)),
        ("llama.block_count", Meta::Text("3")),
        ("llama.block_count", Meta::F32(3.0)),
        ("llama.attention.sliding_window", Meta::Text("wide")),
        ("llama.expert_count", Meta::F32(2.5)),
        ("llama.rope.scaling.type", Meta::U32(1)),
        ("llama.rope.freq_base", Meta::Texts(&["a"])),
        ("tokenizer.ggml.tokens", Meta::U32(1)),
    ] {
        let error = with(&[(key, value)]);
        assert!(matches!(error, ModelError::Gguf(GgufError::WrongType { .. })), "{key}: {error}");
    }
    for key in ["general.architecture", "llama.block_count", "llama.attention.head_count"] {
        let error = with(&[(key, Meta::Nothing)]);
        assert!(matches!(error, ModelError::Gguf(GgufError::MissingKey(_))), "{key}: {error}");
    }
    let error = with(&[("general.architecture", Meta::Text("mamba"))]);
    assert!(matches!(error, ModelError::Architecture(_)), "{error}");
    let error = with(&[("llama.rope.scaling.type", Meta::Text("warp"))]);
    assert!(matches!(error, ModelError::Metadata { .. }), "{error}");
}

#[test]
fn tensors_of_other_shapes_than_the_metadata_says() {
    let bytes = tiny("llama", false);
    let reshaped = |name: &'static str, kind: TensorType, dims: &'static [u64]| {
        load(&edited(&bytes, &[], |tensor| (tensor == name).then(|| (kind, dims.to_vec())))).unwrap_err()
    };
    let shapes: [(&str, &[u64]); 6] = [
        ("blk.1.attn_q.weight", &[64, 63]),
        ("blk.1.attn_k.weight", &[32, 64]),
        ("blk.2.ffn_down.weight", &[64, 96]),
        ("blk.0.attn_norm.weight", &[64, 2]),
        ("output_norm.weight", &[1]),
        ("output.weight", &[64, 1]),
    ];
    for (name, dims) in shapes {
        match reshaped(name, TensorType::F32, dims) {
            ModelError::Shape { name: named, .. } => assert_eq!(named, name),
            other => panic!("{name}: {other}"),
        }
    }
    // More layers or experts than there are tensors, and fewer.
    let error = with(&[("llama.block_count", Meta::U32(1000))]);
    assert!(matches!(error, ModelError::MissingTensor(_)), "{error}");
    let error = with(&[("llama.block_count", Meta::U32(2))]);
    assert!(matches!(error, ModelError::UnknownTensor(_)), "{error}");
    let error = with(&[("llama.expert_count", Meta::U32(4)), ("llama.expert_used_count", Meta::U32(5))]);
    assert!(matches!(error, ModelError::Metadata { .. }), "{error}");
}

#[test]
fn vocabularies_of_another_length_than_the_embedding() {
    let tokens = vec!["a"; 95];
    for changes in [
        [("tokenizer.ggml.tokens", Meta::Texts(&tokens))],
        [("tokenizer.ggml.tokens", Meta::Texts(&[]))],
        [("llama.vocab_size", Meta::U32(97))],
    ] {
        let error = with(&changes);
        assert!(matches!(error, ModelError::Vocabulary { rows: 96, .. }), "{error}");
    }
}

/// One-row matrices are packed as sixteen rows.
#[test]
fn many_thin_matrices_take_no_more_memory_than_the_file_accounts_for() {
    const COLUMNS: u64 = 1 << 16;
    let mut w = Writer::default();
    w.text("general.architecture", "llama");
    for (key, value) in [
        ("context_length", 512),
        ("embedding_length", COLUMNS as u32),
        ("block_count", 3),
        ("feed_forward_length", 1),
        ("attention.head_count", 1),
        ("attention.key_length", 2),
        ("attention.value_length", 2),
    ] {
        w.u32(&format!("llama.{key}"), value);
    }
    let mut data = Vec::new();
    let mut add = |name: &str, kind: TensorType, dims: &[u64]| {
        w.tensor(name, kind, dims);
        let blocks = dims.iter().product::<u64>() / kind.block_len() as u64;
        data.push(vec![0; usize::try_from(blocks).unwrap() * kind.block_bytes()]);
    };
    let (thin, vector) = (TensorType::Q4_1, TensorType::F32);
    add("token_embd.weight", thin, &[COLUMNS, 1]);
    for layer in 0..3 {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        add(&name("attn_norm"), vector, &[COLUMNS]);
        for part in ["attn_q", "attn_k", "attn_v"] {
            add(&name(part), thin, &[COLUMNS, 2]);
        }
        add(&name("attn_output"), vector, &[2, COLUMNS]);
        add(&name("ffn_norm"), vector, &[COLUMNS]);
        add(&name("ffn_gate"), thin, &[COLUMNS, 1]);
        add(&name("ffn_up"), thin, &[COLUMNS, 1]);
        add(&name("ffn_down"), vector, &[1, COLUMNS]);
    }
    add("output_norm.weight", vector, &[COLUMNS]);
    let mut file = Vec::new();
    write(&mut file, &w, data.iter().map(Vec::as_slice)).unwrap();
    match load(&file).unwrap_err() {
        ModelError::Inflated { bytes, max, .. } => {
            assert!(bytes > max && max < 5 * file.len() as u64 + (1 << 20), "{bytes} {max}");
        }
        other => panic!("{other}"),
    }
}

/// A vocabulary with these changes to a small sound one.
fn vocabulary(model: &str, changes: &[(&str, Meta<'_>)]) -> Result<Tokenizer, TokenizerError> {
    let mut w = Writer::default();
    w.text("general.architecture", "llama");
    w.text("tokenizer.ggml.model", model);
    w.texts("tokenizer.ggml.tokens", &["<unk>", "a", "b", "ab"]);
    w.i32s("tokenizer.ggml.token_type", &[2, 1, 1, 1]);
    w.texts("tokenizer.ggml.merges", &["a b"]);
    let mut file = Vec::new();
    write(&mut file, &w, []).unwrap();
    let gguf = Gguf::parse(&file, file.len() as u64).unwrap();
    let mut w = Writer::default();
    for (key, value) in gguf.metadata().filter(|(key, _)| changes.iter().all(|(changed, _)| changed != key)) {
        match (value.as_str(), value.as_array()) {
            (Some(text), _) => w.text(key, text),
            (_, Some(array)) => match array.strings() {
                Some(texts) => w.texts(key, &texts),
                None => w.i32s(key, &array.iter().map(|x| x.as_f64().unwrap() as i32).collect::<Vec<_>>()),
            },
            other => panic!("{other:?}"),
        }
    }
    put(&mut w, changes);
    let mut file = Vec::new();
    write(&mut file, &w, []).unwrap();
    Tokenizer::from_gguf(&Gguf::parse(&file, file.len() as u64).unwrap())
}

#[test]
fn vocabularies_that_do_not_fit_themselves() {
    assert!(vocabulary("gpt2", &[]).is_ok());
    let refused = |changes: &[(&str, Meta<'_>)]| vocabulary("gpt2", changes).unwrap_err();
    for (key, value) in [
        ("tokenizer.ggml.tokens", Meta::Texts(&[])),
        ("tokenizer.ggml.tokens", Meta::I32s(&[1, 2, 3, 4])),
        ("tokenizer.ggml.token_type", Meta::I32s(&[1, 1, 1])),
        ("tokenizer.ggml.token_type", Meta::Texts(&["1", "1", "1", "1"])),
        ("tokenizer.ggml.scores", Meta::I32s(&[1; 5])),
        ("tokenizer.ggml.merges", Meta::Texts(&["ab"])),
        ("tokenizer.ggml.merges", Meta::I32s(&[1])),
    ] {
        let error = refused(&[(key, value)]);
        assert!(matches!(error, TokenizerError::Vocabulary(_)), "{key}: {error}");
    }
    let error = refused(&[("tokenizer.ggml.bos_token_id", Meta::U32(4))]);
    assert!(matches!(error, TokenizerError::Id { id: 4, len: 4, .. }), "{error}");
    let error = refused(&[("tokenizer.ggml.eos_token_id", Meta::Text("2"))]);
    assert!(matches!(error, TokenizerError::Gguf(GgufError::WrongType { .. })), "{error}");
    let error = refused(&[("tokenizer.ggml.tokens", Meta::Nothing)]);
    assert!(matches!(error, TokenizerError::Gguf(GgufError::MissingKey(_))), "{error}");
    assert!(matches!(vocabulary("rwkv", &[]).unwrap_err(), TokenizerError::Model(_)));
}

#[test]
fn templates_without_end() {
    let message = [Message { role: "user".to_owned(), content: "Hello".to_owned() }];
    let render = |source: &str| {
        ChatTemplate::new(source).and_then(|template| template.render(&message, ChatContext::default()))
    };
    for cyclic in [
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{% include 'chat' %}",
        "{% extends 'chat' %}",
        "{% import 'chat' as other %}",
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{{ range(1000000000) | join }}",
        "{{ 'a' * 1000000000 }}",
    ] {
        assert!(matches!(render(cyclic), Err(ChatError::Template(_))), "{cyclic}");
    }
    for deep in ["(", "[", "{", "not ", "-", "a.", "a|", "a+", "a if b else ", "a[0]"] {
        let source = |n: usize| format!("{{{{ {}a }}}}", deep.repeat(n));
        let chain = |result| matches!(result, Err(ChatError::Chain));
        assert!(chain(render(&source(15_000))), "{deep}");
        // Up to the limit the compiler copes.
        let result = render(&source(2000 / deep.len()));
        assert!(result.is_ok() || matches!(result, Err(ChatError::Template(_))), "{deep}");
    }
    for deep in ["{% if a %}", "{% for a in b %}", "{% if a %}{% else %}"] {
        assert!(matches!(render(&deep.repeat(10_000)), Err(ChatError::Template(_))), "{deep}");
    }
    let branches = |n| format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(n));
    assert!(matches!(render(&branches(10_000)), Err(ChatError::Chain)));
    assert_eq!(render(&branches(500)).unwrap(), "");
    for exploding in [
        "{% for a in range(2000) %}{{ 'a' * 1000 }}{% endfor %}",
        "{% for a in range(100000) %}{{ messages }}{% endfor %}",
        "{{ 'a' * 2000000 }}",
    ] {
        assert!(matches!(render(exploding), Err(ChatError::Output(_))), "{exploding}");
    }
    assert!(matches!(render(&" ".repeat(1 << 20)), Err(ChatError::TooLong(_))));
}
