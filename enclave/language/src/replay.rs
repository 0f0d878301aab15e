//! An answer computed again and compared, byte for byte.
//!
//! What: a saved request is answered anew under the seed and the names its answer tells. Why: signatures show who
//! answered; this shows that the answer is what this model says, and nothing else. It holds on any machine, because an
//! answer depends on nothing but model, request and seed.

use std::sync::{Arc, mpsc};

use serde::Deserialize;

use crate::{Answering, Ask, Form, Language, Named, Part, Refusal};

/// What came of computing an answer again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// The same bytes.
    Same {
        /// Tokens that were computed, without those of the prompt.
        tokens: usize,
    },
    /// Other bytes, from this one on.
    Differs {
        /// The first byte that differs.
        at: usize,
    },
}

/// Why an answer cannot be computed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// Not a request for text.
    #[error("it is no request to a language model")]
    NotLanguage,
    /// The answer does not say what it was computed with.
    #[error("the answer does not tell its seed and model, so it is none of this service's")]
    NotTold,
    /// The request asks for another seed or model than the answer tells.
    #[error("the answer tells another seed or model than the request asks for")]
    Contradiction,
    /// The model refuses the request.
    #[error("this model refuses the request: {}", .0.1)]
    Refused(Refusal),
    /// The engine failed.
    #[error("the engine failed")]
    Broken,
}

/// What each answer, and each event of a stream, tells.
#[derive(Deserialize)]
struct Told {
    model: String,
    system_fingerprint: String,
    seed: u64,
}

impl Told {
    fn of(response: &[u8]) -> Option<Self> {
        let first = match response.strip_prefix(b"data: ") {
            Some(events) => events.split(|byte| *byte == b'\n').next()?,
            None => response,
        };
        serde_json::from_slice(first).ok()
    }
}

/// Answers `request` to `path` anew and compares with `response`. `language` must have the limits of the service that
/// answered where the request leaves `max_tokens` out or asks for more than there is room for.
///
/// # Errors
/// [`ReplayError`]: nothing to compare.
pub fn replay(
    language: &Arc<Language>,
    path: &str,
    request: &[u8],
    response: &[u8],
) -> Result<Replayed, ReplayError> {
    let form = Form::of(path).ok_or(ReplayError::NotLanguage)?;
    let ask = Ask::parse(request, form).map_err(ReplayError::Refused)?;
    let told = Told::of(response).ok_or(ReplayError::NotTold)?;
    if ask.model() != told.model || ask.wanted_seed().is_some_and(|seed| seed != told.seed) {
        return Err(ReplayError::Contradiction);
    }
    let named = Named { model: told.model, fingerprint: told.system_fingerprint };
    let (tell, pieces) = mpsc::channel();
    let tell = Box::new(move |piece| tell.send(piece).is_ok());
    let mut answering = Answering::begin(language, named, (ask, request), (0, told.seed), tell)
        .map_err(ReplayError::Refused)?;
    let mut again = answering.opening();
    loop {
        let piece = pieces.recv().map_err(|_| ReplayError::Broken)?;
        let (bytes, ended) = match answering.push(piece) {
            Part::More(bytes) => (bytes, false),
            Part::End(bytes) => (bytes, true),
            Part::Broken => return Err(ReplayError::Broken),
        };
        let agrees = response.get(again.len()..).is_some_and(|rest| rest.starts_with(&bytes));
        again.extend(bytes);
        // A long answer that is another one from its beginning need not be finished.
        if ended || !agrees {
            break;
        }
    }
    if again == response {
        return Ok(Replayed::Same { tokens: answering.completion_tokens() });
    }
    let same = again.iter().zip(response).take_while(|(a, b)| a == b).count();
    Ok(Replayed::Differs { at: same })
}
