//! What sealing and opening share about worker threads.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// Number of workers: as wanted, or one for each CPU; never more than there are chunks.
pub(crate) fn worker_count(wanted: Option<NonZeroUsize>, chunk_count: u64) -> usize {
    let wanted = wanted.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    usize::try_from(chunk_count).map_or(wanted, |chunks| wanted.min(chunks))
}

/// Locks, poisoned or not: a scope rethrows a worker's panic, so what that worker left behind is never used.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
