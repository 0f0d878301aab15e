//! GGUF files: directories stay inside the file, and a model that loads runs.
#![no_main]
use adyton_inference::lm::{KvKind, Model, Options, Sequence, Step, Wanted};
use adyton_model::gguf::Gguf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::parse(bytes, bytes.len() as u64) else { return };
    for tensor in gguf.tensors() {
        assert!(tensor.start.checked_add(tensor.len_bytes).expect("no overflow") <= bytes.len() as u64);
    }
    for (_, value) in gguf.metadata() {
        if let Some(array) = value.as_array() {
            assert_eq!(array.iter().count(), array.len());
        }
    }
    let Ok(model) = Model::load(&gguf, &bytes, Options::default()) else { return };
    let mut cache = model.cache(KvKind::F16, 32);
    let mut sequence = Sequence::default();
    let step = Step { sequence: &mut sequence, tokens: &[0, 0], wanted: Wanted::Last };
    let _ = model.forward(&mut cache, &mut [step]);
});
