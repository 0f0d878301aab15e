//! Memory that waits for the next batch: what is asked for anew costs a fault for each page, and zeros nobody reads.

use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Buffers no batch is computed in.
#[derive(Default)]
pub(crate) struct Idle<T>(Mutex<Vec<T>>);

impl<T> fmt::Debug for Idle<T> {
    /// Without what is in them: it was computed from prompts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Idle")
    }
}

impl<T: Default> Idle<T> {
    /// Buffers of an earlier batch, or empty ones.
    pub(crate) fn take(&self) -> T {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Keeps buffers for the next batch.
    pub(crate) fn give_back(&self, buffers: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffers);
    }
}
