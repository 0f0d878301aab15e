//! The reader against files made here, whole and damaged.

use super::*;
use crate::quant::TensorType;

fn sample() -> Vec<u8> {
    let mut writer = Writer::default();
    writer.text("general.architecture", "llama");
    writer.u32("llama.block_count", 3);
    writer.f32("llama.rope.freq_base", 10000.0);
    writer.bool("tokenizer.ggml.add_bos_token", true);
    writer.texts("tokenizer.ggml.tokens", &["a", "", "\u{2581}b"]);
    writer.i32s("tokenizer.ggml.token_type", &[1, 3, -1]);
    writer.f32s("tokenizer.ggml.scores", &[0.5, -2.0]);
    writer.tensor("one", TensorType::F32, &[3]);
    writer.tensor("two", TensorType::Q4_0, &[64, 2]);
    let mut file = Vec::new();
    write(&mut file, &writer, [&[1u8; 12][..], &[2; 72]]).unwrap();
    file
}

fn parse(bytes: &[u8]) -> Result<Gguf<'_>, GgufError> {
    Gguf::parse(bytes, bytes.len() as u64)
}

#[test]
fn what_is_written_is_read() {
    let file = sample();
    let gguf = parse(&file).unwrap();
    assert_eq!(gguf.version(), 3);
    assert_eq!(gguf.text("general.architecture"), Ok(Some("llama")));
    assert_eq!(gguf.integer("llama.block_count"), Ok(Some(3)));
    assert_eq!(gguf.number("llama.rope.freq_base"), Ok(Some(10000.0)));
    assert_eq!(gguf.flag("tokenizer.ggml.add_bos_token"), Ok(Some(true)));
    let tokens = gguf.array("tokenizer.ggml.tokens").unwrap().unwrap();
    assert_eq!(tokens.strings().unwrap(), ["a", "", "\u{2581}b"]);
    assert_eq!(tokens.numbers(), None);
    let types = gguf.array("tokenizer.ggml.token_type").unwrap().unwrap();
    assert_eq!(types.numbers().unwrap(), [1.0, 3.0, -1.0]);
    assert_eq!(
        gguf.integer("general.architecture").unwrap_err().to_string(),
        "metadata key `general.architecture` is not a non-negative integer"
    );
    assert_eq!(gguf.integer("absent"), Ok(None));
    let two = gguf.tensor("two").unwrap();
    assert_eq!((two.columns(), two.rows(), two.len_bytes), (64, 2, 72));
    assert_eq!(file[usize::try_from(two.start).unwrap()..][..72], [2; 72]);
}

#[test]
fn every_prefix_is_truncated_or_short() {
    let file = sample();
    let header_len = usize::try_from(parse(&file).unwrap().tensors()[0].start).unwrap();
    for len in 0..file.len() - 31 {
        match parse(&file[..len]) {
            Err(GgufError::Truncated) => assert!(len < header_len),
            Err(GgufError::Short { .. }) => assert!(len + 31 >= header_len),
            other => panic!("{len}: {other:?}"),
        }
    }
}

#[test]
fn damaged_files_never_panic() {
    let file = sample();
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            if let Ok(gguf) = parse(&damaged) {
                for tensor in gguf.tensors() {
                    assert!(tensor.start + tensor.len_bytes <= file.len() as u64);
                }
            }
        }
    }
}

/// A header with the given counts and body.
fn raw(version: u32, tensors: u64, keys: u64, body: &[u8]) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend(version.to_le_bytes());
    file.extend(tensors.to_le_bytes());
    file.extend(keys.to_le_bytes());
    file.extend(body);
    file
}

fn entry(name: &str, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut out = (name.len() as u64).to_le_bytes().to_vec();
    out.extend(name.as_bytes());
    out.extend(u32::try_from(dims.len()).unwrap().to_le_bytes());
    dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
    out.extend(kind.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out
}

fn key(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    let mut out = (name.len() as u64).to_le_bytes().to_vec();
    out.extend(name.as_bytes());
    out.extend(kind.to_le_bytes());
    out.extend(value);
    out
}

fn refused(file: &[u8]) -> GgufError {
    parse(file).unwrap_err()
}

#[test]
fn attacks_on_counts_and_lengths() {
    assert_eq!(refused(&raw(3, u64::MAX, 0, &[])), GgufError::Truncated);
    assert_eq!(refused(&raw(3, 0, u64::MAX, &[])), GgufError::Truncated);
    assert_eq!(refused(&raw(1, 0, 0, &[])), GgufError::Version(1));
    assert_eq!(refused(&raw(3u32.swap_bytes(), 0, 0, &[])), GgufError::Version(0x0300_0000));
    assert_eq!(refused(b"GGML\x03\0\0\0"), GgufError::Magic(u32::from_le_bytes(*b"GGML")));
    // A string longer than anything, arrays longer than the file and of every kind.
    let long = u64::MAX.to_le_bytes();
    assert_eq!(refused(&raw(3, 0, 1, &long)), GgufError::Truncated);
    for kind in 0..16u32 {
        let mut array = kind.to_le_bytes().to_vec();
        array.extend((1u64 << 61).to_le_bytes());
        let error = refused(&raw(3, 0, 1, &key("k", 9, &array)));
        let readable = kind < 13 && kind != 9;
        assert_eq!(error, if readable { GgufError::Truncated } else { GgufError::ValueType(kind) });
    }
    assert_eq!(refused(&raw(3, 0, 1, &key("k", 7, &[2]))), GgufError::Flag(2));
    assert_eq!(
        refused(&raw(3, 0, 1, &key("k", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]))),
        GgufError::Utf8 { at: 45 }
    );
    let twice = [key("k", 7, &[1]), key("k", 7, &[1])].concat();
    assert_eq!(refused(&raw(3, 0, 2, &twice)), GgufError::DuplicateKey("k".into()));
}

#[test]
fn attacks_on_alignment() {
    for value in [0u32, 1, 7, 24, 1 << 17, u32::MAX] {
        let file = raw(3, 0, 1, &key("general.alignment", 4, &value.to_le_bytes()));
        assert_eq!(refused(&file), GgufError::Alignment, "{value}");
    }
    assert_eq!(refused(&raw(3, 0, 1, &key("general.alignment", 7, &[1]))), GgufError::Alignment);
}

#[test]
fn attacks_on_shapes_and_offsets() {
    let shape = |dims: &[u64], kind| refused(&raw(3, 1, 0, &entry("t", dims, kind, 0)));
    assert!(matches!(shape(&[], 0), GgufError::Shape { .. }));
    assert!(matches!(shape(&[1; 5], 0), GgufError::Shape { .. }));
    assert!(matches!(shape(&[0], 0), GgufError::Shape { .. }));
    assert!(matches!(shape(&[33], 2), GgufError::Shape { .. }));
    assert!(matches!(shape(&[1 << 32, 1 << 32], 0), GgufError::Shape { .. }));
    assert!(matches!(shape(&[1 << 62], 0), GgufError::Short { .. } | GgufError::Shape { .. }));
    assert!(matches!(shape(&[u64::MAX, u64::MAX, 2, 2], 8), GgufError::Shape { .. }));
    assert!(matches!(shape(&[32], 99), GgufError::TensorType { got: 99, .. }));
    assert!(matches!(shape(&[32], 0), GgufError::Short { .. }));
    let offset = |offset| refused(&raw(3, 1, 0, &entry("t", &[8], 0, offset)));
    assert!(matches!(offset(1), GgufError::Offset { got: 1, want: 0, .. }));
    assert!(matches!(offset(u64::MAX), GgufError::Offset { .. }));
    // The second tensor lies on the first.
    let both = [entry("a", &[8], 0, 0), entry("b", &[8], 0, 0), vec![0; 128]].concat();
    assert!(matches!(refused(&raw(3, 2, 0, &both)), GgufError::Offset { want: 32, .. }));
    let same = [entry("a", &[8], 0, 0), entry("a", &[8], 0, 32), vec![0; 128]].concat();
    assert_eq!(refused(&raw(3, 2, 0, &same)), GgufError::DuplicateTensor("a".into()));
    let longer = [entry("a", &[8], 0, 0), vec![0; 32 + 96]].concat();
    assert!(matches!(refused(&raw(3, 1, 0, &longer)), GgufError::Trailing(_)));
}
