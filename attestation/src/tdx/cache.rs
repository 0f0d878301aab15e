//! Verdicts on collateral and attestation keys, kept for as long as they hold.
//!
//! A quote costs ten P-256 verifications; nine of them are the same for every quote of one machine. An entry is found by
//! the exact bytes of collateral and of the quote's endorsing part (attestation key, QE report, PCK chain) and by the
//! root it rests on, never by a digest, and only while every certificate, document and list in it is current at the
//! caller's time. Refusals are not kept.

use std::sync::Arc;

use crate::tdx::certify::Certified;
use crate::tdx::collateral::Collateral;
use crate::time::Time;
use crate::verdict::Step;
use crate::x509::Certificate;

#[derive(Debug)]
struct Entry {
    endorsement: Vec<u8>,
    collateral: Collateral,
    certified: Arc<Certified>,
    steps: Vec<Step>,
}

/// What was verified of collateral before.
#[derive(Debug)]
pub(crate) struct CollateralCache {
    capacity: usize,
    /// Oldest first.
    entries: Vec<Entry>,
}

impl CollateralCache {
    pub(crate) const fn new(capacity: usize) -> Self {
        Self { capacity, entries: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn find(
        &self,
        anchors: &[Certificate],
        endorsement: &[u8],
        collateral: &Collateral,
        now: Time,
    ) -> Option<(Arc<Certified>, &[Step])> {
        let entry = self.entries.iter().find(|entry| {
            entry.certified.window.holds_at(now)
                && entry.endorsement == endorsement
                && entry.collateral == *collateral
                && anchors.iter().any(|anchor| anchor.der() == entry.certified.root)
        })?;
        Some((Arc::clone(&entry.certified), &entry.steps))
    }

    pub(crate) fn keep(
        &mut self,
        endorsement: &[u8],
        collateral: &Collateral,
        certified: &Arc<Certified>,
        steps: &[Step],
        now: Time,
    ) {
        if self.capacity == 0 {
            return;
        }
        // What ran out will not be found again by a clock that goes forward.
        self.entries.retain(|entry| now <= entry.certified.window.until);
        if self.entries.len() >= self.capacity {
            self.entries.remove(0);
        }
        self.entries.push(Entry {
            endorsement: endorsement.to_vec(),
            collateral: collateral.clone(),
            certified: Arc::clone(certified),
            steps: steps.to_vec(),
        });
    }
}
