//! Places of requests that run or wait: as many as there are, and each is given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The places that are free.
#[derive(Debug, Clone)]
pub(crate) struct Places(Arc<AtomicUsize>);

/// One of them; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place(Places);

impl Places {
    pub(crate) fn new(count: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(count)))
    }

    /// `None` if all are taken.
    pub(crate) fn take(&self) -> Option<Place> {
        let less = |free: usize| free.checked_sub(1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
        Some(Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back() {
        let places = Places::new(2);
        let (first, second) = (places.take(), places.take());
        assert!(first.is_some() && second.is_some() && places.take().is_none());
        drop(first);
        assert!(places.take().is_some());
    }
}
