//! The lease on a model key: counted on the monotonic clock, which the host cannot set back.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Until when the model may be served.
#[derive(Default)]
pub(crate) struct Lease(Mutex<Option<Instant>>);

impl Lease {
    /// Begins or renews a lease of `seconds` from `granted`, the moment before the key was asked for.
    pub(crate) fn renew(&self, granted: Instant, seconds: u64) {
        // A lease beyond what the clock can count is as good as a year.
        let length = Duration::from_secs(seconds.min(365 * 86_400));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(granted + length);
    }

    /// Time left; none if there is no lease or it is over.
    pub(crate) fn left(&self) -> Option<Duration> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.and_then(|until| until.checked_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_and_can_be_renewed() {
        let lease = Lease::default();
        assert_eq!(lease.left(), None);
        lease.renew(Instant::now() - Duration::from_secs(5), 4);
        assert_eq!(lease.left(), None);
        lease.renew(Instant::now(), 60);
        assert!(lease.left().is_some_and(|left| left > Duration::from_secs(50)));
        lease.renew(Instant::now(), u64::MAX);
        assert!(lease.left().is_some());
    }
}
