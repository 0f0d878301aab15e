//! Model files of every accepted format: what is read is written and read again alike.
#![no_main]
use adyton_model::dense::DenseModel;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(model) = DenseModel::from_bytes(bytes) {
        let again = DenseModel::from_bytes(&model.to_safetensors().expect("a model encodes")).expect("it is read again");
        assert_eq!(again, model);
    }
});
