//! Requests to a language model, as strangers write them: read, begun, and computed to the end or the first kilobyte.
#![no_main]
use std::sync::{Arc, LazyLock, mpsc};

use adyton_language::{Answering, Ask, Form, Language, LanguageLimits, Named, Part};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "only the file is wanted here")]
#[path = "../../tests/src/language.rs"]
mod language;

static LANGUAGE: LazyLock<Arc<Language>> = LazyLock::new(|| {
    let limits = LanguageLimits { threads: Some(1), positions: 512, max_tokens: 32, ..LanguageLimits::default() };
    let model = language::language_model();
    Arc::new(Language::load(&model.as_slice(), model.len() as u64, limits).expect("as written"))
});

fuzz_target!(|bytes: &[u8]| {
    let Some((form, body)) = bytes.split_first() else { return };
    let form = if form & 1 == 0 { Form::Chat } else { Form::Completion };
    let Ok(ask) = Ask::parse(body, form) else { return };
    let seed = ask.seed().expect("the system has randomness");
    let (tell, pieces) = mpsc::channel();
    let tell = Box::new(move |piece| tell.send(piece).is_ok());
    let named = Named::new("model".to_owned(), &[0; 32]);
    let Ok(mut answering) = Answering::begin(&LANGUAGE, named, (ask, body), (0, seed), tell) else { return };
    let mut bytes = answering.opening();
    for piece in pieces {
        match answering.push(piece) {
            Part::More(more) => bytes.extend(more),
            Part::End(end) => return assert!(!end.is_empty()),
            Part::Broken => panic!("the engine failed"),
        }
        if bytes.len() > 1024 {
            return;
        }
    }
    panic!("an answer has an end");
});
