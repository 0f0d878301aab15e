//! What was verified before and still holds: certificate chains of SEV-SNP, collateral and attestation keys of TDX.
//!
//! Every report of a chip at one TCB has the same chain, and of the ten P-256 verifications that a quote costs nine are the
//! same for every quote of one machine. An entry is found by the exact bytes it rests on and by its root, never by a
//! digest, and only while every certificate, document and list in it is current at the caller's time. Refusals are not
//! kept.

use std::sync::Arc;

use crate::snp::cache::{ChainKey, VerifiedChain};
use crate::tdx::certify::{Certified, CertifiedKey};
use crate::time::Time;
use crate::verdict::Step;
use crate::x509::Certificate;

/// When everything a verdict rests on is valid at once; both ends are inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: Time,
    pub(crate) until: Time,
}

impl Window {
    pub(crate) fn holds_at(&self, now: Time) -> bool {
        (self.from..=self.until).contains(&now)
    }

    pub(crate) fn narrow(&mut self, from: Time, until: Time) {
        self.from = self.from.max(from);
        self.until = self.until.min(until);
    }
}

/// Verdicts that [`Evidence::verify_cached`](crate::Evidence::verify_cached) keeps and answers from.
///
/// It grants nothing by itself: what is found in it was verified under the same root from the same bytes, and holds at
/// the time of the question. A clock that was set back finds nothing either, if that time lies before an entry's window.
#[derive(Debug)]
pub struct VerdictCache {
    pub(crate) chains: Kept<ChainKey, VerifiedChain>,
    pub(crate) collateral: Kept<CertifiedKey, Certified>,
}

impl VerdictCache {
    /// A cache for at most `capacity` machines of each vendor, some 30 kB each; the oldest entry makes room.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self { chains: Kept::new(capacity), collateral: Kept::new(capacity) }
    }

    /// How many verdicts are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chains.entries.len() + self.collateral.entries.len()
    }

    /// True if none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Verdicts of one kind.
#[derive(Debug)]
pub(crate) struct Kept<K, V> {
    capacity: usize,
    /// Oldest first.
    entries: Vec<Entry<K, V>>,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    /// The certificate of the root, DER.
    root: Vec<u8>,
    window: Window,
    verified: Arc<V>,
    steps: Vec<Step>,
}

impl<K, V> Kept<K, V> {
    const fn new(capacity: usize) -> Self {
        Self { capacity, entries: Vec::new() }
    }

    /// What rests on these bytes and one of these roots, if it holds at `now`; with the steps that led there.
    pub(crate) fn find(
        &self,
        anchors: &[Certificate],
        same: impl Fn(&K) -> bool,
        now: Time,
    ) -> Option<(Arc<V>, &[Step])> {
        let entry = self.entries.iter().find(|entry| {
            entry.window.holds_at(now)
                && same(&entry.key)
                && anchors.iter().any(|anchor| anchor.der() == entry.root)
        })?;
        Some((Arc::clone(&entry.verified), &entry.steps))
    }

    /// Keeps what was verified at `now`.
    pub(crate) fn keep(
        &mut self,
        key: K,
        root: &[u8],
        window: Window,
        (verified, steps): (&Arc<V>, &[Step]),
        now: Time,
    ) {
        if self.capacity == 0 {
            return;
        }
        // What ran out will not be found again by a clock that goes forward.
        self.entries.retain(|entry| now <= entry.window.until);
        if self.entries.len() >= self.capacity {
            self.entries.remove(0);
        }
        let (root, verified, steps) = (root.to_vec(), Arc::clone(verified), steps.to_vec());
        self.entries.push(Entry { key, root, window, verified, steps });
    }
}
